"""What a session does, decided from values: one writer for a setting, and nothing twice."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tandem.tenant.assignments import Assignment, Membership, Target, TargetKind
from tandem.tenant.mobile_apps import App
from tandem.tenant.policies import Configuration, Desired, Effective, Profile, built_in
from tandem.tenant.sessions import LAPSED, Delivery, installs
from tandem.tenant.sessions.configuring import replacements, unwanted
from tandem.workloads import Authority, Workload, owner_of

AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
APP = App(
    "a1", "n", "", "", 'A="x & y" <z>', "c.msi", "{A}", '1"2', "", "ab" * 32, 1, "published", "", AT
)  # fmt: skip

NAMES = st.sampled_from(["A/One", "A/Two", "B/Three"])
WORKLOADS = st.sampled_from(list(Workload))
CONFIGURATIONS = st.lists(
    st.builds(
        Configuration,
        st.uuids().map(str),
        st.just("n"),
        WORKLOADS,
        NAMES,
        st.sampled_from(["1", "2"]),
        st.just(AT),
        st.just(AT),
    ),
    max_size=6,
)
FLAGS = st.none() | st.integers(0, 16383)
CODES = st.sampled_from([LAPSED, 200, 202, 405, 500])
DELIVERED = st.dictionaries(
    NAMES,
    st.builds(
        Delivery, st.just(""), st.sampled_from(["1", "2"]), CODES, WORKLOADS.map(lambda w: w.value)
    ),
).map(lambda found: {name: replace(item, subject=name) for name, item in found.items()})


GROUPS = Membership(frozenset({"g"}))
CATALOGUE = built_in()


def chosen(configurations: list[Configuration], flags: int | None) -> Effective:
    """What a device is to have of configurations that are all given to it, a policy each."""
    group = Target(TargetKind.GROUP, "g")
    profiles = [
        Profile(
            "deviceConfigurations",
            item.id,
            item.name,
            age,
            (item,),
            (),
            (Assignment(f"{age}", item.id, group, {}),),
        )
        for age, item in enumerate(configurations)
    ]
    return Desired(1, profiles, CATALOGUE).effective(GROUPS, flags, "")


@given(CONFIGURATIONS, DELIVERED, FLAGS)
def test_nothing_is_written_or_removed_for_a_workload_of_the_site(
    configurations: list[Configuration], delivered: dict[str, Delivery], flags: int | None
) -> None:
    effective = chosen(configurations, flags)
    removals, lapsing = unwanted(effective, delivered, flags)
    writes = replacements(effective.wanted, delivered, AT)
    if flags is not None:
        for order in writes:
            assert owner_of(Workload(order.sent.workload), flags) is Authority.MDM
        for order in removals:
            given_for = Workload(delivered[order.sent.subject].workload)
            assert owner_of(given_for, flags) is Authority.MDM
        for subject in lapsing:
            assert owner_of(Workload(delivered[subject].workload), flags) is Authority.SITE
    else:
        assert lapsing == []
    touched = [order.sent.subject for order in writes + removals]
    assert len(touched) == len(set(touched)), "no setting is both written and removed"


@given(CONFIGURATIONS, DELIVERED, FLAGS)
def test_once_everything_is_taken_there_is_nothing_to_do(
    configurations: list[Configuration], delivered: dict[str, Delivery], flags: int | None
) -> None:
    effective = chosen(configurations, flags)
    removals, lapsing = unwanted(effective, delivered, flags)
    after = dict(delivered)
    for order in replacements(effective.wanted, delivered, AT):
        sent = order.sent
        after[sent.subject] = Delivery(sent.subject, sent.value, 200, sent.workload)
    for order in removals:
        del after[order.sent.subject]
    for subject in lapsing:
        after[subject] = replace(after[subject], code=LAPSED)
    assert replacements(effective.wanted, after, AT) == []
    assert unwanted(effective, after, flags) == ([], [])


@given(CONFIGURATIONS, DELIVERED, FLAGS)
def test_what_policies_disagree_on_is_neither_written_nor_removed(
    configurations: list[Configuration], delivered: dict[str, Delivery], flags: int | None
) -> None:
    """The device keeps what it has, whoever gave it: the last good value."""
    effective = chosen(configurations, flags)
    for name, several in effective.conflicts.items():
        assert len({item.value for item in several}) > 1
        orders = replacements(effective.wanted, delivered, AT)
        orders += unwanted(effective, delivered, flags)[0]
        assert name not in [order.sent.subject for order in orders]


def test_an_install_job_survives_every_character_of_its_command_line() -> None:
    job = etree.fromstring(installs.install_job(APP, "https://t/c?a=1&b=2"))
    assert job.findtext(".//CommandLine") == '/quiet A="x & y" <z>'
    assert job.findtext(".//ContentURL") == "https://t/c?a=1&b=2"
    assert job.get("id") == "{A}"
    product = job.find("Product")
    assert product is not None
    assert product.get("Version") == '1"2'
    enforcement = job.find(".//Enforcement")
    assert enforcement is not None
    assert [child.tag for child in enforcement] == [
        "CommandLine",
        "TimeOut",
        "RetryCount",
        "RetryInterval",
    ]
