"""The arithmetic of spec 3.1, and the properties of the merge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.protocols import ccm
from tandem.workloads import (
    APPS,
    BASE,
    CATALOGUE,
    FILES,
    MAX_CAPABILITIES,
    Authority,
    Decoded,
    Eligibility,
    Encoding,
    Facts,
    Position,
    Workload,
    capabilities,
    decode,
    effective,
    eligibility,
    merge,
    owner_of,
    owners,
    plan,
    workload_of_area,
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


@pytest.mark.parametrize(
    ("value", "encoding", "moved"),
    [
        (67, "2107", {Workload.COMPLIANCE_POLICIES, Workload.CLIENT_APPS}),
        (
            45,
            "2107",
            {
                Workload.RESOURCE_ACCESS,
                Workload.DEVICE_CONFIGURATION,
                Workload.ENDPOINT_PROTECTION,
            },
        ),
        (
            12333,
            "2111",
            {
                Workload.RESOURCE_ACCESS,
                Workload.DEVICE_CONFIGURATION,
                Workload.ENDPOINT_PROTECTION,
            },
        ),
        (255, "2107", set(Workload)),
        (12543, "2111", set(Workload)),
        (8193, "2111", set()),
        (1, "2107", set()),
        # An older site's policy merged with a newer one's.
        (8193 | 33, "2111", {Workload.ENDPOINT_PROTECTION}),
    ],
)
def test_both_encodings_are_decoded(value: int, encoding: str, moved: set[Workload]) -> None:
    found = decode(value)
    assert (found.encoding.value, set(found.moved)) == (encoding, moved)
    assert (found.configured, found.unknown) == (True, 0)


def test_what_belongs_to_no_workload_is_said() -> None:
    assert decode(0) == Decoded(0, Encoding.OLD, False, (), 0)
    assert decode(8193 + 256).unknown == 256
    # 4096 alone is half of endpoint protection, and hands nothing over.
    assert decode(8193 + 4096) == Decoded(12289, Encoding.NEW, True, (), 4096)
    # In the old encoding it means nothing.
    assert decode(1 + 4096 + 32).unknown == 4096


@given(st.integers(0, 2**20))
def test_decoding_accounts_for_every_bit(value: int) -> None:
    found = decode(value)
    assert set(found.moved) == {w for w, o in owners(value).items() if o is Authority.MDM}
    assert found.unknown & value == found.unknown
    assert found.unknown & MAX_CAPABILITIES in (0, 4096)


def test_the_catalogue_has_each_workload_with_what_moves_here() -> None:
    assert list(CATALOGUE) == list(Workload)
    assert {w for w, entry in CATALOGUE.items() if entry.has_effect} == {
        Workload.COMPLIANCE_POLICIES,
        Workload.DEVICE_CONFIGURATION,
        Workload.WINDOWS_UPDATE,
        Workload.CLIENT_APPS,
    }
    assert {w for w, entry in CATALOGUE.items() if not entry.rolls_back} == {
        Workload.WINDOWS_UPDATE,
        Workload.OFFICE_CLICK_TO_RUN,
    }
    for entry in CATALOGUE.values():
        assert entry.policies, entry.workload
        assert entry.rolls_back == all(policy.rolls_back for policy in entry.policies)
        for policy in entry.policies:
            assert policy.site or policy.mdm, policy.name


def test_areas_of_settings_belong_to_their_workload() -> None:
    assert workload_of_area("Update") is Workload.WINDOWS_UPDATE
    assert workload_of_area(APPS) is Workload.CLIENT_APPS
    assert workload_of_area(FILES) is Workload.DEVICE_CONFIGURATION
    assert workload_of_area("Nobody's") is Workload.DEVICE_CONFIGURATION
