"""What becomes of an administrator's order, and what guards devices from one: from values alone.

    approval → held → pending → sent → done | failed | timedOut
                                └ accepted (a wipe) ┘
    before the device has it: cancelled, expired

Orders that nothing brings back begin in `approval` or `held`, all others in `pending`. Every state
has a deadline, and what happens then is here.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind

RETIRE = "unenroll"
WIPE = "wipe"
FRESH_START = "cleanWindowsDevice"
SYNC = "syncDevice"
# What the order of a wipe says, as the last part of its LocURI (windows-mdm, section 15).
DO_WIPE, DO_WIPE_PROTECTED = "doWipe", "doWipeProtected"
DO_WIPE_BUT_USER_DATA = "doWipePersistUserData"
DO_WIPE_BUT_ENROLLMENT = "doWipePersistProvisionedData"
# Orders that take a device away from its user.
WIPES = (WIPE, FRESH_START)
# Orders that nothing brings back.
DESTRUCTIVE = (RETIRE, *WIPES)
# There is no command of desktop Windows for these: they end at once as not supported.
UNSUPPORTED = ("remoteLock", "shutDown", "resetPasscode", "locateDevice")
# The status of an order that no device can carry out (SyncML: command not implemented).
NOT_SUPPORTED = 501
# After these the device still holds the certificate that it had.
_KEEPS_ENROLLMENT = (DO_WIPE_BUT_ENROLLMENT, DO_WIPE_BUT_USER_DATA)
# Windows restarts for a wipe within minutes; who reports later than this has not done it.
_WIPE_BEGINS = timedelta(hours=1)


class State(StrEnum):
    APPROVAL = "approval"
    HELD = "held"
    PENDING = "pending"
    SENT = "sent"
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timedOut"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


# The device does not have it yet: it can be cancelled.
WAITING = (State.APPROVAL, State.HELD, State.PENDING)
OPEN = (*WAITING, State.SENT, State.ACCEPTED)


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long an order waits for its device to come, and then for what the device says."""

    waits: timedelta
    answers: timedelta


_DAY = timedelta(days=1)
_PATIENCE = {
    # What is meant for now is worth nothing when the device comes back from a holiday.
    SYNC: _Patience(_DAY, _DAY),
    "rebootNow": _Patience(_DAY, _DAY),
    "windowsDefenderScan": _Patience(_DAY, _DAY),
    "windowsDefenderUpdateSignatures": _Patience(_DAY, _DAY),
    "setDeviceName": _Patience(7 * _DAY, _DAY),
    # A stolen machine may come online after months.
    RETIRE: _Patience(180 * _DAY, _DAY),
    WIPE: _Patience(180 * _DAY, _DAY),
    FRESH_START: _Patience(180 * _DAY, _DAY),
}
_ANY = _Patience(_DAY, _DAY)
# How long a wiped device that keeps its enrolment has for coming back.
_RETURNS = 7 * _DAY


class Safeguards(Settings, frozen=True):
    """What stands between an order and the loss of many devices."""

    # Devices that one administrator may retire or wipe within an hour on their own word.
    budget_per_hour: Annotated[int, Meta(ge=0, le=10_000)] = 5
    # An order for more devices than this needs a second administrator, and no budget.
    approval_above: Annotated[int, Meta(ge=0, le=10_000)] = 5
    # How long such an order waits, for somebody to cancel it.
    hold_minutes: Annotated[int, Meta(ge=0, le=1440)] = 10
    # After so long without a second administrator it is over.
    approval_hours: Annotated[int, Meta(ge=1, le=720)] = 72


class BadSafeguards(AppError):
    kind, code = Kind.INVALID, "action.bad-safeguards"


class BudgetSpent(AppError):
    kind, code = Kind.RATE_LIMITED, "action.budget-spent"
    audited = True


class TooLate(AppError):
    kind, code = Kind.CONFLICT, "action.too-late"


def check(safeguards: Safeguards) -> Safeguards:
    """Raises BadSafeguards when an order could be too big for one word and too small for two."""
    if safeguards.approval_above > safeguards.budget_per_hour:
        raise BadSafeguards(
            f"An order for {safeguards.approval_above} devices would never be possible: an"
            f" administrator has {safeguards.budget_per_hour} an hour without a second one.",
            cure="Set approvalAbove to at most budgetPerHour.",
            target="approvalAbove",
        )
    return safeguards


def weaker(after: Safeguards, before: Safeguards) -> bool:
    """Whether any part protects less than it did."""
    return (
        after.budget_per_hour > before.budget_per_hour
        or after.approval_above > before.approval_above
        or after.hold_minutes < before.hold_minutes
        or after.approval_hours > before.approval_hours
    )


def needs_approval(safeguards: Safeguards, devices: int) -> bool:
    return devices > safeguards.approval_above


def spend(safeguards: Safeguards, devices: int, spent: int, free_at: datetime | None) -> None:
    """Raises BudgetSpent. `spent` is what the last hour took, `free_at` when some of it is back."""
    left = max(0, safeguards.budget_per_hour - spent)
    if devices <= left:
        return
    when = f" More is free at {free_at:%H:%M} UTC." if free_at is not None else ""
    raise BudgetSpent(
        f"This is for {devices} devices, and {left} of {safeguards.budget_per_hour} are left of"
        f" what one administrator may retire or wipe in an hour.{when}",
        cure="Wait, or order it for all of them at once: a second administrator then approves it.",
        left=left,
        retry_after_seconds=3600,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an order for one device is."""

    kind: str
    data: str
    state: State
    expires_at: datetime
    held_until: datetime | None = None
    sent_at: datetime | None = None
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    code: int | None = None
    why: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_wipe(self) -> bool:
        return self.kind in WIPES


def ordered(kind: str, data: str, safeguards: Safeguards, devices: int, now: datetime) -> Progress:
    """The first state of an order for so many devices."""
    if kind in UNSUPPORTED:
        made = Progress(kind, data, State.PENDING, now)
        return _end(made, State.FAILED, now, "Windows does not have this.", code=NOT_SUPPORTED)
    waits = _PATIENCE.get(kind, _ANY).waits
    if kind not in DESTRUCTIVE:
        return Progress(kind, data, State.PENDING, now + waits)
    if needs_approval(safeguards, devices):
        until = now + timedelta(hours=safeguards.approval_hours)
        return Progress(kind, data, State.APPROVAL, until)
    return _hold(Progress(kind, data, State.HELD, now), safeguards, now)


def _hold(order: Progress, safeguards: Safeguards, now: datetime) -> Progress:
    until = now + timedelta(minutes=safeguards.hold_minutes)
    expires = until + _PATIENCE[order.kind].waits
    state = State.HELD if until > now else State.PENDING
    return replace(order, state=state, held_until=until, expires_at=expires)


def approved(order: Progress, safeguards: Safeguards, now: datetime) -> Progress:
    """A second administrator agrees: the hold window begins, for anybody who does not."""
    return _hold(order, safeguards, now) if order.state is State.APPROVAL else order


def cancelled(order: Progress, why: str, now: datetime) -> Progress:
    """Raises TooLate once the device has it, or it is over."""
    if order.state not in WAITING:
        raise TooLate(
            "The device has this order already: it cannot be taken back."
            if order.is_open
            else "This order is over.",
            cure="Look at how far it is: `tandem actions list`.",
            state=order.state.value,
        )
    return _end(order, State.CANCELLED, now, why)


def due(order: Progress, now: datetime) -> bool:
    """Whether a device that calls now is given it.

    A wipe is given once: a device that keeps its enrolment would wipe itself again.
    """
    if order.state is State.HELD:
        return order.held_until is not None and order.held_until <= now < order.expires_at
    if order.state is State.SENT:
        return not order.is_wipe
    return order.state is State.PENDING and now < order.expires_at


def delivered(order: Progress, now: datetime) -> Progress:
    return replace(order, state=State.SENT, sent_at=order.sent_at or now)


def undelivered(order: Progress) -> Progress:
    """The device says that it did not get to it (section 11.4): it is given again."""
    if order.state is not State.SENT:
        return order
    return replace(order, state=State.PENDING, sent_at=None)


def answered(order: Progress, code: int, now: datetime) -> Progress:
    """The Status of the device. That of a wipe says that it begins, not that it is done."""
    if order.state is not State.SENT:
        return order
    if order.kind == RETIRE:
        return order  # Over when the device has left: its Status says nothing (section 14).
    if not 200 <= code < 300:
        return _end(order, State.FAILED, now, refusal(order.kind, code), code=code)
    if order.is_wipe:
        return replace(order, state=State.ACCEPTED, accepted_at=now, code=code)
    return _end(order, State.DONE, now, "", code=code)


def returned(order: Progress, now: datetime) -> Progress:
    """The device begins a session with the certificate that it had before."""
    if order.state is State.SENT and order.kind == SYNC:
        return _end(order, State.DONE, now, "", code=200)
    if not order.is_wipe:
        return order
    if order.state is State.SENT:
        why = "The device came back without a word about its wipe. If it still has to be wiped,"
        return _end(order, State.TIMED_OUT, now, f"{why} order that again.")
    if order.state is State.ACCEPTED and order.accepted_at is not None:
        if now - order.accepted_at < _WIPE_BEGINS and order.data not in _KEEPS_ENROLLMENT:
            return order  # What was going on before Windows restarts.
        if order.data in _KEEPS_ENROLLMENT:
            return _end(order, State.DONE, now, "The device is back.")
        why = "The device accepted the wipe, and still reports as before. Look at its Windows RE."
        return _end(order, State.FAILED, now, why)
    return order


def left(order: Progress, now: datetime) -> Progress:
    """The device is not enrolled any more: it left, or it enrolled anew."""
    if not order.is_open:
        return order
    given = order.state in (State.SENT, State.ACCEPTED)
    if order.kind == RETIRE or (order.is_wipe and given):
        return _end(order, State.DONE, now, "")
    return _end(order, State.CANCELLED, now, "The device has left.")


def silent(order: Progress, seen_at: datetime | None, now: datetime) -> bool:
    """Whether the device counts as gone: it has an order to leave, or to wipe all, and a day since
    it got that it has not said a word."""
    since = order.sent_at if order.kind == RETIRE else order.accepted_at
    if order.kind == RETIRE:
        takes_it_away = order.state is State.SENT
    else:
        takes_it_away = order.state is State.ACCEPTED and order.data not in _KEEPS_ENROLLMENT
    if not takes_it_away or since is None or now - since < _PATIENCE[order.kind].answers:
        return False
    return seen_at is None or now - seen_at >= _PATIENCE[order.kind].answers


def passed(order: Progress, now: datetime) -> Progress:
    """What the time does."""
    if order.state in WAITING and now >= order.expires_at:
        why = "The device did not come."
        if order.state is State.APPROVAL:
            why = "No second administrator approved it in time."
        return _end(order, State.EXPIRED, now, why)
    if order.state is State.HELD and order.held_until is not None and order.held_until <= now:
        return replace(order, state=State.PENDING)
    if order.state is State.SENT and order.kind != RETIRE:
        patience = _PATIENCE.get(order.kind, _ANY).answers
        if order.sent_at is not None and now - order.sent_at >= patience:
            why = "The device did not say what became of it."
            return _end(order, State.TIMED_OUT, now, why)
    if order.state is State.ACCEPTED and order.accepted_at is not None:
        returns = order.data in _KEEPS_ENROLLMENT
        if returns and now - order.accepted_at >= _RETURNS:
            why = "The device accepted the wipe, and has not come back since."
            return _end(order, State.TIMED_OUT, now, why)
    return order


def _end(
    order: Progress, state: State, now: datetime, why: str, *, code: int | None = None
) -> Progress:
    code = order.code if code is None else code
    return replace(order, state=state, ended_at=now, why=why, code=code)


def refusal(kind: str, code: int) -> str:
    """What a device means by the status with which it refuses an order."""
    if kind in WIPES and code == 500:
        return (
            "The device cannot reset itself (status 500): Windows RE is disabled, or its image is"
            " damaged. Run `reagentc /enable` on it, and order the wipe again."
        )
    said = {
        403: "The device forbids it",
        404: "The device does not know this command",
        405: "The device does not allow it",
        406: "This edition or version of Windows does not have it",
        500: "The device tried, and failed",
    }.get(code, "The device refuses it")
    return f"{said} (status {code})."


# How Graph says the same (actionState).
_GRAPH_STATES = {
    State.APPROVAL: "pending",
    State.HELD: "pending",
    State.PENDING: "pending",
    State.SENT: "active",
    State.ACCEPTED: "active",
    State.DONE: "done",
    State.FAILED: "failed",
    State.TIMED_OUT: "failed",
    State.EXPIRED: "failed",
    State.CANCELLED: "canceled",
}


def graph_state(state: State, code: int | None) -> str:
    return "notSupported" if code == NOT_SUPPORTED else _GRAPH_STATES[state]


def graph_name(kind: str) -> str:
    return "retire" if kind == RETIRE else kind


def management_state(order: Progress) -> str:
    """Graph's managementState after this change of an order; empty: it says nothing."""
    sort = {RETIRE: "retire", WIPE: "wipe", FRESH_START: "wipe"}.get(order.kind)
    if sort is None:
        return ""
    if order.state in WAITING:
        return f"{sort}Pending"
    match order.state:
        case State.SENT | State.ACCEPTED:
            return f"{sort}Issued"
        case State.FAILED | State.TIMED_OUT:
            return f"{sort}Failed"
        case State.CANCELLED:
            return f"{sort}Canceled"
        case _:
            return "managed"
