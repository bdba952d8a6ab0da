"""The dashboard's figures, device by device and together."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from site_api import NOW, TENANT, Api, add_device
from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site import clients, comanagement
from tandem.site.comanagement import (
    DeviceFacts,
    EnrollmentState,
    FunnelStep,
    OsGroup,
    Stage,
    enrollment_state,
    figures,
    operating_system,
    stages,
    steps,
)
from tandem.workloads import Workload

WINDOWS_11 = "10.0.22631.1"


@dataclass(frozen=True)
class Known:
    """A device as the tenant knows it."""

    os_version: str = WINDOWS_11
    joined: bool = True
    hybrid: bool = False
    licensed: bool = True
    mdm_enrolled: bool = True
    app_offered: bool = True
    msi_installed: bool = True
    enrollment_error: int | None = None


def device(**known: Any) -> DeviceFacts:
    return DeviceFacts(**{"device_id": "d", "os_version": WINDOWS_11, **known})


@pytest.mark.parametrize(
    ("version", "group"),
    [
        ("6.1.7601", OsGroup.LEGACY),
        ("6.3.9600", OsGroup.LEGACY),
        ("10.0.15063.1", OsGroup.BEFORE_1709),
        ("10.0.16299.0", OsGroup.CURRENT),
        (WINDOWS_11, OsGroup.CURRENT),
        ("", OsGroup.OTHER),
        ("23.1 Darwin", OsGroup.OTHER),
    ],
)
def test_operating_systems(version: str, group: OsGroup) -> None:
    assert operating_system(device(os_version=version)) is group


def test_a_device_that_enrolled_by_itself_is_eligible_and_enrolled() -> None:
    found = steps(device(mdm_enrolled=True, policy_present=True))
    assert found == {FunnelStep.ELIGIBLE, FunnelStep.ENROLLED}


def test_an_existing_client_goes_through_the_whole_funnel() -> None:
    assert steps(device()) == {FunnelStep.ELIGIBLE}
    assert steps(device(scheduled=True)) == {FunnelStep.ELIGIBLE, FunnelStep.SCHEDULED}
    assert steps(device(initiated=True, mdm_enrolled=True, policy_present=True)) == set(FunnelStep)


def test_who_is_not_eligible_is_in_no_step() -> None:
    assert steps(device(os_version="10.0.15063.1", scheduled=True)) == frozenset()
    assert steps(device(joined=False)) == frozenset()


@pytest.mark.parametrize(
    ("known", "state"),
    [
        ({"mdm_enrolled": True}, EnrollmentState.SUCCESS_JOINED),
        ({"mdm_enrolled": True, "hybrid": True}, EnrollmentState.SUCCESS_HYBRID),
        ({"enrollment_error": 1}, EnrollmentState.FAILURE_JOINED),
        ({"enrollment_error": 1, "hybrid": True}, EnrollmentState.FAILURE_HYBRID),
        ({"pending_sign_in": True}, EnrollmentState.PENDING_SIGN_IN),
        ({"scheduled": True, "hybrid": True}, EnrollmentState.ENROLLING_HYBRID),
        ({"scheduled": True}, None),
        ({}, None),
    ],
)
def test_states_of_enrolment(known: dict[str, Any], state: EnrollmentState | None) -> None:
    assert enrollment_state(device(**known)) is state


def test_co_managed_is_both_accounts_together() -> None:
    assert Stage.CO_MANAGED not in stages(device(mdm_enrolled=True, registered=True))
    assert Stage.CO_MANAGED not in stages(device(policy_present=True, registered=True))
    assert Stage.CO_MANAGED in stages(device(mdm_enrolled=True, policy_present=True))


@given(
    st.lists(
        st.builds(
            DeviceFacts,
            device_id=st.text(),
            os_version=st.sampled_from(["", "6.1.7601", "10.0.10240", WINDOWS_11, "x.y"]),
            enrollment_error=st.none() | st.integers(0, 2**32 - 1),
            flags=st.integers(0, 2**16),
        ),
        max_size=8,
    )
)
def test_figures_never_count_a_device_twice(devices: list[DeviceFacts]) -> None:
    found = figures(devices)
    assert sum(found.operating_systems.values()) == found.devices == len(devices)
    assert sum(found.enrollment.values()) <= found.devices
    assert found.funnel[FunnelStep.SCHEDULED] >= found.funnel[FunnelStep.INITIATED]
    assert all(count <= found.devices for count in found.stages.values())
    together = found.stages[Stage.CO_MANAGED]
    assert all(count <= together for count in found.workloads.values())


async def said(tx: Tx, device_id: str, id: str, state: int, data: dict[str, Any]) -> None:
    await tx.execute(
        "INSERT INTO clients_timeline"
        " (tenant_id, device_id, message_id, topic, state, at, received_at, data)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (TENANT, device_id, id, ccm.COMANAGEMENT_TOPIC, state, NOW, NOW, Jsonb(data)),
    )


async def test_a_client_tells_how_its_enrolment_goes(site_tx: Tx) -> None:
    await add_device(site_tx, "LAB-001", enrolled=False)
    await said(site_tx, "d-LAB-001", "1", 101, {})
    await said(site_tx, "d-LAB-001", "2", 105, {"try": 1})
    await said(site_tx, "d-LAB-001", "3", 110, {"code": "mdm.refused", "hresult": "0x80180018"})
    await said(site_tx, "d-LAB-001", "4", 100, {"flags": 0})
    (progress,) = await clients.enrollment_progress(site_tx)
    assert (progress.state, progress.code) == (110, 0x80180018)
    (facts,) = await comanagement.fleet(site_tx, {})
    assert enrollment_state(facts) is EnrollmentState.FAILURE_JOINED
    assert figures([facts]).errors == {0x80180018: 1}


@pytest.mark.parametrize(
    "code", ["0x", "0xZZ", "0x80180018' OR 1=1", -1, 2**40, True, None, [], "1"]
)
async def test_an_error_that_is_no_number_is_no_error_code(site_tx: Tx, code: object) -> None:
    await add_device(site_tx, "LAB-001", enrolled=False)
    await said(site_tx, "d-LAB-001", "1", 110, {"code": code})
    (facts,) = await comanagement.fleet(site_tx, {})
    assert facts.enrollment_error is None


async def test_the_tenants_word_on_enrolment_counts_when_it_can_be_asked(api: Api) -> None:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001", flags=8193 + 64)
        await add_device(tx, "LAB-002", flags=8193)
    path = "/api/v1/comanagement/dashboard"
    alone = await api.get(path)
    assert alone["without_tenant"] == "The tenant does not answer."
    assert alone["stages"]["co-managed"] == 2
    api.cloud.tenant = ""
    assert (await api.get(path))["without_tenant"] == "The site is not connected to a tenant."
    api.cloud.tenant = TENANT
    assert alone["workloads"]["client-apps"] == 1
    api.cloud.devices = {
        "d-LAB-001": Known(),
        "d-LAB-003": Known(mdm_enrolled=False, licensed=False, enrollment_error=0x80180018),
    }
    both = await api.get(path)
    assert both["without_tenant"] == ""
    assert both["devices"] == 3
    assert both["operating_systems"]["current"] == 3
    assert both["funnel"] == {"eligible": 3, "scheduled": 0, "initiated": 0, "enrolled": 1}
    assert both["enrollment"]["success-joined"] == 1
    assert both["enrollment"]["failure-joined"] == 1
    assert both["errors"] == {str(0x80180018): 1}
    assert both["stages"] == {
        "licensed": 1,
        "enrolled": 1,
        "app-offered": 2,
        "msi-installed": 2,
        "registered": 2,
        "policy": 2,
        "co-managed": 1,
    }
    assert both["workloads"] == {
        workload.value: int(workload is Workload.CLIENT_APPS) for workload in Workload
    }
