"""The table of comanagement 2.12, row by row, and what holds for every list of assignments."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.tenant.assignments import Assignment, Membership, Target, TargetKind
from tandem.tenant.mobile_apps import intents
from tandem.tenant.mobile_apps.intents import Choice, Intent, Resolved, Uninstall

R, A, U, W = Intent.REQUIRED, Intent.AVAILABLE, Intent.UNINSTALL, Intent.WITHOUT_ENROLLMENT
BOTH = Resolved(True, A)

# (row, user's intents, device's intents, result)
TABLE = [
    ("User Required, User Available", {R, A}, {}, BOTH),
    ("User Required, User Uninstall", {R, U}, {}, Resolved(True)),
    ("User Available, User Uninstall", {A, U}, {}, Resolved(uninstall=Uninstall.ALWAYS)),
    ("User Required, Device Required", {R}, {R}, Resolved(True)),
    ("User Required, Device Uninstall", {R}, {U}, Resolved(True)),
    ("User Available, Device Required", {A}, {R}, BOTH),
    ("User Available, Device Uninstall", {A}, {U}, Resolved(False, A, Uninstall.ONCE)),
    ("User Uninstall, Device Required", {U}, {R}, Resolved(True)),
    ("User Uninstall, Device Uninstall", {U}, {U}, Resolved(uninstall=Uninstall.ALWAYS)),
    ("Device Required, Device Uninstall", {}, {R, U}, Resolved(True)),
    ("User Required and Available, User Available", {R, A}, {}, BOTH),
    ("User Required and Available, User Uninstall", {R, A, U}, {}, BOTH),
    ("User Required and Available, Device Required", {R, A}, {R}, BOTH),
    ("User Required and Available, Device Uninstall", {R, A}, {U}, BOTH),
    ("User Available without enrolment, User Required", {W, R}, {}, Resolved(True)),
    ("User Available without enrolment, User Required and Available", {W, R, A}, {}, BOTH),
    ("User Available without enrolment, Device Required", {W}, {R}, Resolved(True, W)),
    (
        "User Available without enrolment, Device Uninstall",
        {W},
        {U},
        Resolved(False, W, Uninstall.UNLESS_CHOSEN),
    ),
    # Alone, and what the table leaves to good sense.
    ("nothing", {}, {}, Resolved()),
    ("User Required", {R}, {}, Resolved(True)),
    ("User Available", {A}, {}, Resolved(False, A)),
    ("User Available without enrolment", {W}, {}, Resolved(False, W)),
    ("User Available, with and without enrolment", {A, W}, {}, Resolved(False, A)),
    ("Device Uninstall", {}, {U}, Resolved(uninstall=Uninstall.ALWAYS)),
    ("Device Available: nobody is there to choose", {}, {A, W}, Resolved()),
]


@pytest.mark.parametrize(("row", "user", "device", "result"), TABLE, ids=[r[0] for r in TABLE])
def test_intents_come_to_what_the_table_says(
    row: str, user: set[Intent], device: set[Intent], result: Resolved
) -> None:
    assert intents.resolve(user, device) == result


def test_a_kind_of_app_that_is_offered_to_devices_is_available_by_them() -> None:
    assert intents.resolve({}, {A}, devices_choose=True) == Resolved(False, A)
    assert intents.resolve({}, {A, R}, devices_choose=True) == BOTH


def test_graph_has_a_word_for_each_result() -> None:
    said = {row[0]: row[3].word for row in TABLE}
    assert said["User Required, User Available"] == "requiredAndAvailableInstall"
    assert said["User Required"] == "requiredInstall"
    assert said["Device Uninstall"] == "requiredUninstall"
    assert said["User Available without enrolment"] == "availableInstallWithoutEnrollment"
    assert said["nothing"] == "notAvailable"
    assert len({row[3].word for row in TABLE}) == len({row[3] for row in TABLE})


@pytest.mark.parametrize(
    ("resolved", "choice", "does"),
    [
        (Resolved(True), Choice(), "install"),
        (Resolved(False, A), Choice(), ""),
        (Resolved(False, A), Choice(requested=True), "install"),
        (Resolved(), Choice(requested=True), ""),
        (Resolved(uninstall=Uninstall.ALWAYS), Choice(requested=True), "remove"),
        (Resolved(False, A, Uninstall.ONCE), Choice(), "remove"),
        (Resolved(False, A, Uninstall.ONCE), Choice(requested=True), "remove"),
        (Resolved(False, A, Uninstall.ONCE), Choice(removed=True), ""),
        (Resolved(False, A, Uninstall.ONCE), Choice(True, True), "install"),
        (Resolved(False, W, Uninstall.UNLESS_CHOSEN), Choice(), "remove"),
        (Resolved(False, W, Uninstall.UNLESS_CHOSEN), Choice(requested=True), "install"),
    ],
)
def test_what_a_device_does_follows_from_the_result_and_its_users_choice(
    resolved: Resolved, choice: Choice, does: str
) -> None:
    assert intents.wanted(resolved, choice) == does


# ------------------------------------------------------------------ every list of assignments

NAMES = st.sampled_from(["u1", "u2", "d1", "d2", "elsewhere"])
TARGETS = st.one_of(
    st.builds(Target, st.just(TargetKind.GROUP), NAMES),
    st.builds(Target, st.just(TargetKind.EXCLUDED_GROUP), NAMES),
    st.just(Target(TargetKind.ALL_USERS)),
    st.just(Target(TargetKind.ALL_DEVICES)),
)
GIVEN = st.lists(st.tuples(TARGETS, st.sampled_from(list(Intent))), max_size=8).map(
    lambda pairs: [
        Assignment(f"a{number}", "app", target, {"intent": intent.value})
        for number, (target, intent) in enumerate(pairs)
    ]
)
GROUPS = st.builds(
    Membership,
    st.frozensets(st.sampled_from(["u1", "u2"])),
    st.frozensets(st.sampled_from(["d1", "d2"])),
)


@given(GIVEN, GROUPS, st.randoms())
def test_the_order_of_assignments_says_nothing(
    given: list[Assignment], groups: Membership, chance: random.Random
) -> None:
    shuffled = list(given)
    chance.shuffle(shuffled)
    assert intents.explain(shuffled, groups) == intents.explain(given, groups)


@given(GIVEN, GROUPS)
def test_saying_it_twice_changes_nothing(given: list[Assignment], groups: Membership) -> None:
    once, twice = intents.explain(given, groups), intents.explain([*given, *given], groups)
    assert once.resolved == twice.resolved


@given(GIVEN, GROUPS, st.sampled_from(list(Intent)))
def test_a_group_of_one_kind_takes_nothing_from_the_other(
    given: list[Assignment], groups: Membership, intent: Intent
) -> None:
    """Excluding groups of devices does not change what the user's groups come to."""
    users = [one for one in given if one.target.kind is not TargetKind.ALL_DEVICES]
    alone = Membership(groups.user)
    out = [
        Assignment(f"x{n}", "app", Target(TargetKind.EXCLUDED_GROUP, name), {"intent": intent})
        for n, name in enumerate(("d1", "d2"))
    ]
    before = intents.explain(users, alone)
    assert intents.explain([*users, *out], alone).resolved == before.resolved
    both = Membership(groups.user, frozenset(("d1", "d2")))
    only_users = [one for one in users if not one.target.subject.startswith("d")]
    assert (
        intents.explain([*only_users, *out], both).resolved
        == intents.explain(only_users, both).resolved
    )


@given(GIVEN, GROUPS)
def test_the_reasons_carry_the_result(given: list[Assignment], groups: Membership) -> None:
    """Without what lost, the same comes out; and whoever is not meant has no reason to be."""
    found = intents.explain(given, groups)
    kept = {one.assignment.id for one in found.reasons if one.outcome != "beaten"}
    again = intents.explain([one for one in given if one.id in kept], groups)
    assert again.resolved == found.resolved
    decided = any(one.outcome == "decides" for one in found.reasons)
    assert decided == (found.resolved != Resolved())


@given(st.sets(st.sampled_from(list(Intent))), st.sets(st.sampled_from(list(Intent))))
def test_the_numbered_table_is_the_same_table(user: set[Intent], device: set[Intent]) -> None:
    bits = sum(intents.BITS[one] for one in user) * 16 + sum(intents.BITS[one] for one in device)
    assert intents.words()[bits] == intents.resolve(user, device).word


@given(st.sets(st.sampled_from(list(Intent))), st.sets(st.sampled_from(list(Intent))))
def test_nothing_is_required_and_removed_at_once(user: set[Intent], device: set[Intent]) -> None:
    found = intents.resolve(user, device)
    assert not (found.required and found.uninstall)
    assert found.required == (R in user | device), "required beats everything"
