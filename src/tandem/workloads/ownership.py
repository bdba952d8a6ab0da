"""Who may write one workload on one device, and how it changes hands: a state machine without I/O.

    settled      the owner writes; nobody else has a value in force
    handing over the new owner alone may write; what the old one set stays in force
      blocked    … but nobody may write while a write that the old owner had begun is under way
    overdue      the hand-over took too long: somebody is told, and what the old one set still stays

Two authorities are never writers together: there is one owner, and its right begins when the last
write of the other has ended. Nobody is a writer only while blocked, which has an end of its own. A
value goes only after its successor's owner was confirmed: never by removal first. Time is counted
in what passes between two looks, so a clock that is turned back stretches no bound.
"""

from datetime import datetime
from enum import Enum

import msgspec

from tandem.workloads.model import Authority


class Holding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One workload of one device. `leaving` is whose values may still be in force without it being
    the owner, None when settled. `epoch` numbers the device's decisions: what was said before the
    last one counts for nothing. `busy` has a write under way that takes time."""

    owner: Authority
    epoch: int = 0
    leaving: Authority | None = None
    left_seconds: float = 0
    overdue: bool = False
    busy: Authority | None = None
    busy_seconds: float = 0
    seen_at: datetime | None = None

    @property
    def writer(self) -> Authority | None:
        """Who may write now."""
        return None if self.busy is _other(self.owner) else self.owner

    @property
    def settled(self) -> bool:
        return self.leaving is None and self.writer is not None


def _other(authority: Authority) -> Authority:
    return Authority.MDM if authority is Authority.SITE else Authority.SITE


# What a holding is told.


class Decided(msgspec.Struct, frozen=True):
    """The site's policy and the device's enrolment come to this owner; so the loss of an authority
    is a decision too, and what it had begun to write is waited for: it runs on the device, whoever
    it was for. `bound_seconds`: how long a hand-over may take before somebody is told."""

    owner: Authority
    epoch: int
    bound_seconds: float


class Confirmed(msgspec.Struct, frozen=True):
    """Everything that this authority wants is in force, by what it knew at `epoch`."""

    authority: Authority
    epoch: int


class Cleared(msgspec.Struct, frozen=True):
    """No value of the leaving authority is in force."""


class Passed(msgspec.Struct, frozen=True):
    """It is now so late."""

    now: datetime


class WriteBegan(msgspec.Struct, frozen=True):
    """A write that takes time, such as an installation; it ends by itself after `bound_seconds`."""

    authority: Authority
    bound_seconds: float


class WriteEnded(msgspec.Struct, frozen=True):
    authority: Authority


Said = Decided | Confirmed | Cleared | Passed | WriteBegan | WriteEnded


class Effect(Enum):
    """What is to be done, and told, because of a step."""

    BEGAN = "began"
    SETTLED = "settled"
    # After that: the values of the authority that was leaving go.
    RELEASE = "release"
    OVERDUE = "overdue"
    # A write was under way for longer than it may; its right is over.
    WRITE_OVERDUE = "write-overdue"
    REFUSED = "refused"


def step(holding: Holding, said: Said) -> tuple[Holding, tuple[Effect, ...]]:
    """The holding after what was said. What is late, repeated or another's business changes nothing."""
    change = msgspec.structs.replace
    match said:
        case Decided(owner, epoch, bound):
            if epoch <= holding.epoch or owner is holding.owner:
                return holding, ()
            # A hand-over that turns round keeps what both have set: the first owner's values are its
            # own again, and the other's are left over.
            after = change(
                holding,
                owner=owner,
                epoch=epoch,
                leaving=_other(owner),
                left_seconds=bound,
                overdue=False,
            )
            return after, (Effect.BEGAN,)
        case Confirmed(authority, epoch):
            early = epoch < holding.epoch or holding.writer is not authority
            if early or holding.leaving is None:
                return holding, ()
            after = change(holding, leaving=None, left_seconds=0, overdue=False)
            return after, (Effect.SETTLED, Effect.RELEASE)
        case Cleared() if holding.leaving is not None and holding.writer is not None:
            after = change(holding, leaving=None, left_seconds=0, overdue=False)
            return after, (Effect.SETTLED,)
        case Passed(now):
            return _pass(holding, now)
        case WriteBegan(authority, bound):
            if holding.writer is not authority or holding.busy is not None:
                return holding, (Effect.REFUSED,)
            return change(holding, busy=authority, busy_seconds=bound), ()
        case WriteEnded(authority) if holding.busy is authority:
            return change(holding, busy=None, busy_seconds=0), ()
    return holding, ()


def _pass(holding: Holding, now: datetime) -> tuple[Holding, tuple[Effect, ...]]:
    if holding.busy is None and (holding.leaving is None or holding.overdue):
        # Nothing runs: the next thing to be timed begins where it begins.
        return msgspec.structs.replace(holding, seen_at=None), ()
    if holding.seen_at is None:
        return msgspec.structs.replace(holding, seen_at=now), ()
    spent = max(0.0, (now - holding.seen_at).total_seconds())
    effects: list[Effect] = []
    left, overdue = holding.left_seconds, holding.overdue
    if holding.leaving is not None and not overdue:
        left = max(0.0, left - spent)
        if left == 0:
            overdue = True
            effects.append(Effect.OVERDUE)
    busy, busy_left = holding.busy, holding.busy_seconds
    if busy is not None:
        busy_left = max(0.0, busy_left - spent)
        if busy_left == 0:
            busy = None
            effects.append(Effect.WRITE_OVERDUE)
    after = msgspec.structs.replace(
        holding,
        left_seconds=left,
        overdue=overdue,
        busy=busy,
        busy_seconds=busy_left,
        seen_at=now,
    )
    return after, tuple(effects)
