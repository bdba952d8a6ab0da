"""What a device counts as, and how the row of both accounts is made."""

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from site_api import NOW, TENANT, add_device
from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site import clients, fleet
from tandem.site.fleet import (
    Device,
    EnrollmentState,
    FunnelStep,
    OsGroup,
    Stage,
    enrollment_state,
    operating_system,
    stages,
    steps,
)

WINDOWS_11 = "10.0.22631.1"


def device(**known: Any) -> Device:
    return Device(**{"id": "d", "name": "d", "os_version": WINDOWS_11, **known})


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
    await fleet.settle(site_tx)
    device = await fleet.find(site_tx, "d-LAB-001")
    assert enrollment_state(device) is EnrollmentState.FAILURE_JOINED
    assert device.enrollment_error == 0x80180018


@pytest.mark.parametrize(
    "code", ["0x", "0xZZ", "0x80180018' OR 1=1", -1, 2**40, True, None, [], "1"]
)
async def test_an_error_that_is_no_number_is_no_error_code(site_tx: Tx, code: object) -> None:
    await add_device(site_tx, "LAB-001", enrolled=False)
    await said(site_tx, "d-LAB-001", "1", 110, {"code": code})
    await fleet.settle(site_tx)
    assert (await fleet.find(site_tx, "d-LAB-001")).enrollment_error is None
