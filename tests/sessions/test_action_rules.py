"""What becomes of an order, whatever happens in whatever sequence."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tandem.tenant.sessions import actions
from tandem.tenant.sessions.actions import OPEN, Progress, Safeguards, State

AT = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
KINDS = ["syncDevice", "rebootNow", "setDeviceName", actions.RETIRE, *actions.WIPES]
WIPES = [
    actions.DO_WIPE,
    actions.DO_WIPE_PROTECTED,
    actions.DO_WIPE_BUT_USER_DATA,
    actions.DO_WIPE_BUT_ENROLLMENT,
]


def wipe(data: str = actions.DO_WIPE, **more: int) -> Progress:
    return actions.ordered(actions.WIPE, data, Safeguards(**more), 1, AT)


def sent(order: Progress, at: datetime = AT) -> Progress:
    return actions.delivered(order, at)


class Life(RuleBasedStateMachine):
    """One order for one device, through anything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = AT
        self.order: Progress | None = None
        self.past: list[Progress] = []
        self.safeguards = Safeguards()
        self.approvals = self.deliveries = 0
        self.may_go_at = AT

    def moved(self, order: Progress) -> None:
        assert self.order is not None
        self.past.append(self.order)
        self.order = order

    @rule(
        kind=st.sampled_from(KINDS),
        data=st.sampled_from(WIPES),
        devices=st.integers(1, 9),
        hold=st.sampled_from([0, 10, 60]),
    )
    @precondition(lambda self: self.order is None)
    def is_ordered(self, kind: str, data: str, devices: int, hold: int) -> None:
        self.safeguards = Safeguards(hold_minutes=hold)
        data = data if kind in actions.WIPES else ""
        self.order = actions.ordered(kind, data, self.safeguards, devices, self.now)
        self.devices = devices
        if kind in actions.DESTRUCTIVE:
            self.may_go_at = self.now + timedelta(minutes=hold)

    @precondition(lambda self: self.order is not None)
    @rule(minutes=st.sampled_from([1, 9, 59, 61, 1441, 60 * 24 * 8, 60 * 24 * 200]))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: self.order is not None)
    @rule()
    def is_tended(self) -> None:
        assert self.order is not None
        self.moved(actions.passed(self.order, self.now))

    @precondition(lambda self: self.order is not None)
    @rule()
    def is_approved(self) -> None:
        assert self.order is not None
        if self.order.state is State.APPROVAL and self.now < self.order.expires_at:
            self.approvals += 1
            self.may_go_at = self.now + timedelta(minutes=self.safeguards.hold_minutes)
        self.moved(actions.approved(self.order, self.safeguards, self.now))

    @precondition(lambda self: self.order is not None)
    @rule()
    def is_cancelled(self) -> None:
        assert self.order is not None
        if self.order.state in actions.WAITING:
            self.moved(actions.cancelled(self.order, "by an administrator", self.now))
        else:
            with pytest.raises(actions.TooLate):
                actions.cancelled(self.order, "by an administrator", self.now)

    @precondition(lambda self: self.order is not None)
    @rule()
    def the_device_calls(self) -> None:
        assert self.order is not None
        self.moved(actions.returned(self.order, self.now))
        if actions.due(self.order, self.now):
            if self.order.kind in actions.DESTRUCTIVE:
                assert self.now >= self.may_go_at, "it went before its hold window was over"
                if self.devices > self.safeguards.approval_above:
                    assert self.approvals, "it went without a second administrator"
            self.deliveries += 1
            self.moved(actions.delivered(self.order, self.now))

    @precondition(lambda self: self.order is not None)
    @rule(code=st.sampled_from([200, 202, 404, 406, 500]))
    def the_device_answers(self, code: int) -> None:
        assert self.order is not None
        self.moved(actions.answered(self.order, code, self.now))

    @precondition(lambda self: self.order is not None)
    @rule()
    def the_device_leaves(self) -> None:
        assert self.order is not None
        self.moved(actions.left(self.order, self.now))

    @invariant()
    def what_is_over_stays_so(self) -> None:
        over = [order for order in self.past if order.state not in OPEN]
        assert all(order == self.order for order in over)

    @invariant()
    def an_end_has_a_time(self) -> None:
        if self.order is not None:
            assert (self.order.ended_at is None) == (self.order.state in OPEN)

    @invariant()
    def a_wipe_is_given_once(self) -> None:
        if self.order is not None and self.order.is_wipe:
            assert self.deliveries <= 1

    @invariant()
    def graph_and_the_list_of_devices_have_a_word_for_it(self) -> None:
        if self.order is not None:
            assert actions.graph_state(self.order.state, self.order.code)
            destructive = self.order.kind in actions.DESTRUCTIVE
            assert bool(actions.management_state(self.order)) == destructive


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
TestLife = Life.TestCase


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("devices", [1, 9])
def test_every_order_ends_by_time_alone(kind: str, devices: int) -> None:
    """Nothing waits for ever, however far it got; a device that was told to go is given up."""
    order = actions.ordered(kind, actions.DO_WIPE, Safeguards(), devices, AT)
    far = AT + timedelta(days=400)
    assert not actions.passed(order, far).is_open
    if devices == 9:
        order = actions.approved(order, Safeguards(), AT)
    for step in (actions.delivered(order, AT), actions.answered(sent(order), 200, AT)):
        assert not actions.passed(step, far).is_open or actions.silent(step, AT, far)


def test_a_device_that_keeps_its_enrolment_is_not_wiped_twice() -> None:
    """Its answer was lost, or it was wiped before it could answer: nobody knows."""
    order = sent(wipe(actions.DO_WIPE_BUT_ENROLLMENT, hold_minutes=0))
    assert not actions.due(order, AT)
    back = actions.returned(order, AT + timedelta(minutes=30))
    assert back.state is State.TIMED_OUT
    assert "order that again" in back.why


@pytest.mark.parametrize(
    ("data", "after", "state"),
    [
        (actions.DO_WIPE, timedelta(minutes=5), State.ACCEPTED),
        (actions.DO_WIPE, timedelta(hours=2), State.FAILED),
        (actions.DO_WIPE_PROTECTED, timedelta(hours=2), State.FAILED),
        (actions.DO_WIPE_BUT_ENROLLMENT, timedelta(hours=2), State.DONE),
    ],
)
def test_who_comes_back_from_a_wipe(data: str, after: timedelta, state: State) -> None:
    accepted = actions.answered(sent(wipe(data, hold_minutes=0)), 200, AT)
    assert accepted.state is State.ACCEPTED, "the status says that it begins"
    assert actions.returned(accepted, AT + after).state is state


def test_a_wipe_that_fails_says_what_to_do_on_the_device() -> None:
    failed = actions.answered(sent(wipe(hold_minutes=0)), 500, AT)
    assert failed.state is State.FAILED
    assert "Windows RE" in failed.why


@pytest.mark.parametrize("devices", [1, 5])
def test_a_small_order_is_held_and_a_big_one_waits_for_approval(devices: int) -> None:
    small = actions.ordered(actions.RETIRE, "", Safeguards(), devices, AT)
    assert (small.state, small.held_until) == (State.HELD, AT + timedelta(minutes=10))
    big = actions.ordered(actions.RETIRE, "", Safeguards(), devices + 5, AT)
    assert big.state is State.APPROVAL
    later = AT + timedelta(hours=1)
    assert actions.approved(big, Safeguards(), later).held_until == later + timedelta(minutes=10)


def test_the_budget_says_what_is_left_and_when_there_is_more() -> None:
    actions.spend(Safeguards(), 5, 0, None)
    with pytest.raises(actions.BudgetSpent) as refused:
        actions.spend(Safeguards(), 2, 4, AT)
    assert "1 of 5" in refused.value.message
    assert "09:00 UTC" in refused.value.message


def test_no_order_is_too_big_for_one_and_too_small_for_two() -> None:
    with pytest.raises(actions.BadSafeguards):
        actions.check(Safeguards(budget_per_hour=5, approval_above=6))


@pytest.mark.parametrize(
    ("name", "weaker", "stronger"),
    [
        ("budget_per_hour", 6, 4),
        ("approval_above", 6, 4),
        ("hold_minutes", 9, 11),
        ("approval_hours", 73, 71),
    ],
)
def test_each_safeguard_has_a_weaker_and_a_stronger_side(
    name: str, weaker: int, stronger: int
) -> None:
    before = Safeguards()
    assert actions.weaker(Safeguards(**{name: weaker}), before)
    assert not actions.weaker(Safeguards(**{name: stronger}), before)
