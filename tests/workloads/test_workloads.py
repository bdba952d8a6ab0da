"""The arithmetic of spec 3.1, and the properties of the merge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.protocols import ccm
from tandem.workloads import (
    BASE,
    MAX_CAPABILITIES,
    Authority,
    Eligibility,
    Facts,
    Position,
    Workload,
    capabilities,
    effective,
    eligibility,
    merge,
    owner_of,
    owners,
    plan,
)

workload_sets = st.sets(st.sampled_from(Workload))
policies = st.lists(
    st.builds(
        ccm.ConfigurationPolicy,
        id=st.text(max_size=5),
        name=st.just("p"),
        version=st.integers(1, 9),
        kind=st.sampled_from(["production", "pilot"]),
        allow=st.booleans(),
        auto_enroll=st.booleans(),
        capabilities=st.integers(0, 2**20),
    ),
    max_size=6,
)


@pytest.mark.parametrize(
    ("moved", "value"),
    [
        ([], 8193),
        ([Workload.COMPLIANCE_POLICIES, Workload.CLIENT_APPS], 8193 + 2 + 64),
        ([Workload.ENDPOINT_PROTECTION], 8193 + 4128),
        ([Workload.DEVICE_CONFIGURATION], 12333),
        (list(Workload), 12543),
    ],
)
def test_capabilities_are_the_fields_integers(moved: list[Workload], value: int) -> None:
    assert capabilities(moved) == value


def test_the_maximum_is_all_seven() -> None:
    assert MAX_CAPABILITIES == 12543


@given(workload_sets)
def test_an_owner_is_read_back_from_the_bits(moved: set[Workload]) -> None:
    along = {other for workload in moved for other in workload.moves_along}
    expected = {w: Authority.MDM if w in moved | along else Authority.SITE for w in Workload}
    assert owners(capabilities(moved)) == expected


@pytest.mark.parametrize("flags", [1 + 32, 8193 + 4128])
def test_both_encodings_of_endpoint_protection_are_understood(flags: int) -> None:
    assert owner_of(Workload.ENDPOINT_PROTECTION, flags) is Authority.MDM


@pytest.mark.parametrize("flags", [0, 1, 8193, 4096])
def test_nothing_moves_by_the_base_alone(flags: int) -> None:
    assert set(owners(flags).values()) == {Authority.SITE}


@given(policies)
def test_a_merge_does_not_depend_on_order_or_repetition(
    found: list[ccm.ConfigurationPolicy],
) -> None:
    assert merge(found) == merge([*reversed(found), *found])


@given(policies, policies)
def test_one_more_policy_never_takes_a_workload_back_from_the_mdm(
    some: list[ccm.ConfigurationPolicy], more: list[ccm.ConfigurationPolicy]
) -> None:
    before, after = merge(some), merge(some + more)
    if before.allow:
        assert before.flags & after.flags == before.flags


@given(policies)
def test_without_allow_nothing_is_co_managed(found: list[ccm.ConfigurationPolicy]) -> None:
    merged = merge(found)
    assert merged.allow or merged.flags == 0
    assert merged.flags | MAX_CAPABILITIES == MAX_CAPABILITIES


@given(st.dictionaries(st.sampled_from(Workload), st.sampled_from(Position)))
def test_a_plan_gives_each_device_what_its_position_says(
    positions: dict[Workload, Position],
) -> None:
    production, pilots = plan(positions)
    for workload, position in positions.items():
        everyone = owner_of(workload, production)
        if position is Position.MDM:
            assert everyone is Authority.MDM
        if position is Position.PILOT:
            assert owner_of(workload, production | pilots[workload]) is Authority.MDM
    assert production & BASE == BASE


def test_a_device_that_is_not_enrolled_is_the_sites_in_everything() -> None:
    assert effective(12543, mdm_enrolled=False) == 0
    assert effective(12543, mdm_enrolled=True) == 12543


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(os_version="10.0.22631.1", joined=True), Eligibility.ELIGIBLE),
        (Facts(os_version="10.0.22631.1"), Eligibility.NOT_JOINED),
        (Facts(os_version="10.0.15063", joined=True), Eligibility.NEEDS_OS_UPDATE),
        (Facts(os_version="6.3.9600", joined=True), Eligibility.INELIGIBLE),
        (Facts(os_version="10.0.20348", joined=True, server=True), Eligibility.INELIGIBLE),
        (Facts(os_name="Linux", os_version="6.1", joined=True), Eligibility.INELIGIBLE),
        (Facts(os_version="", joined=True), Eligibility.INELIGIBLE),
        (
            Facts(os_version="10.0.22631.1", mdm_enrolled=True, policy_present=True),
            Eligibility.COMANAGED,
        ),
        (
            Facts(os_version="10.0.22631.1", joined=True, mdm_enrolled=True),
            Eligibility.ELIGIBLE,
        ),
    ],
)
def test_eligibility(facts: Facts, expected: Eligibility) -> None:
    assert eligibility(facts) is expected
