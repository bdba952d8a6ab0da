"""How a workload changes hands, step by step."""

from datetime import UTC, datetime, timedelta

import pytest

from tandem.workloads import (
    Authority,
    Cleared,
    Confirmed,
    Decided,
    Effect,
    Holding,
    Passed,
    Said,
    WriteBegan,
    WriteEnded,
    step,
)

SITE, MDM = Authority.SITE, Authority.MDM
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = 86_400.0


def told(holding: Holding, *said: Said) -> tuple[Holding, list[Effect]]:
    effects: list[Effect] = []
    for one in said:
        holding, more = step(holding, one)
        effects += more
    return holding, effects


def at(hours: float) -> Passed:
    return Passed(NOON + timedelta(hours=hours))


TO_MDM = Decided(MDM, 1, DAY)


def test_the_new_owner_writes_at_once_and_the_old_values_go_when_it_is_confirmed() -> None:
    holding, effects = told(Holding(SITE), TO_MDM)
    assert (holding.writer, holding.leaving, effects) == (MDM, SITE, [Effect.BEGAN])
    holding, effects = told(holding, Confirmed(MDM, 1))
    assert (holding.settled, effects) == (True, [Effect.SETTLED, Effect.RELEASE])


def test_nobody_writes_while_the_old_owner_ends_what_it_began() -> None:
    holding, _ = told(Holding(SITE), WriteBegan(SITE, 600), TO_MDM)
    assert holding.writer is None
    assert told(holding, WriteBegan(MDM, 600))[1] == [Effect.REFUSED]
    assert told(holding, Confirmed(MDM, 1), Cleared())[1] == []
    assert told(holding, WriteEnded(SITE))[0].writer is MDM


def test_a_write_that_never_ends_does_not_leave_a_workload_without_a_writer() -> None:
    holding, effects = told(Holding(SITE), WriteBegan(SITE, 600), TO_MDM, at(0), at(0.1), at(0.2))
    assert (holding.writer, effects) == (MDM, [Effect.BEGAN, Effect.WRITE_OVERDUE])


def test_a_lost_authoritys_write_is_waited_for_as_it_runs_on_the_device() -> None:
    """Found by the model check: the device left the MDM service in the middle of an installation."""
    holding, _ = told(Holding(MDM), WriteBegan(MDM, 600), Decided(SITE, 1, DAY))
    assert holding.writer is None
    assert told(holding, WriteEnded(MDM))[0].writer is SITE


@pytest.mark.parametrize(
    "late",
    [Confirmed(MDM, 0), Confirmed(SITE, 1), TO_MDM, Decided(SITE, 1, DAY), WriteEnded(SITE)],
)
def test_what_is_late_repeated_or_anothers_changes_nothing(late: Said) -> None:
    holding, _ = told(Holding(SITE), TO_MDM)
    assert step(holding, late) == (holding, ())


def test_an_overdue_hand_over_is_told_once_and_removes_nothing() -> None:
    holding, effects = told(Holding(SITE), TO_MDM, at(0), at(23), at(25), at(80))
    assert effects == [Effect.BEGAN, Effect.OVERDUE]
    assert (holding.writer, holding.leaving) == (MDM, SITE)
    assert told(holding, Confirmed(MDM, 1))[1] == [Effect.SETTLED, Effect.RELEASE]


def test_a_clock_that_is_turned_back_stretches_no_bound() -> None:
    holding, effects = told(Holding(SITE), TO_MDM, at(0), at(12), at(-100), at(-89))
    assert effects == [Effect.BEGAN]
    assert told(holding, at(-87))[1] == [Effect.OVERDUE]


def test_a_hand_over_that_turns_round_leaves_over_what_the_second_owner_set() -> None:
    holding, effects = told(Holding(SITE), TO_MDM, Decided(SITE, 2, DAY))
    assert (holding.writer, holding.leaving) == (SITE, MDM)
    assert effects == [Effect.BEGAN, Effect.BEGAN]
    # What the MDM service says of the decision before counts for nothing.
    assert told(holding, Confirmed(MDM, 1), Confirmed(MDM, 2))[1] == []


def test_a_workload_of_which_nothing_is_left_is_settled_without_a_word() -> None:
    assert told(Holding(SITE), TO_MDM, Cleared())[0].settled
