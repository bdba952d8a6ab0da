"""Plan a roll-out of a workload, start, pause, cancel and switch it back; and what moves it on."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from structlog import get_logger

from tandem import audit
from tandem.infra import events
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.rounds import rounds
from tandem.site import clients, collections, deployments, settings
from tandem.site.approvals import Safeguards
from tandem.site.collections import ALL_SYSTEMS
from tandem.site.comanagement import leaving, service, store, tenant
from tandem.site.comanagement import rollout_model as model
from tandem.site.comanagement import rollout_store as rows
from tandem.site.comanagement.model import Slider
from tandem.site.comanagement.rollout_model import (
    CONFIRM_ABOVE,
    MOST_RINGS,
    OPEN,
    BadPlan,
    Cause,
    GapKind,
    HasGaps,
    Member,
    NeedsApproval,
    NeedsConfirmation,
    NeedsReason,
    NoSuchRollout,
    NotAnalysed,
    Offer,
    ReachesOthers,
    Ring,
    RingState,
    RingWish,
    Rollout,
    Standing,
    State,
    Superseded,
    Told,
    UnderWay,
    Verdict,
    WrongState,
)
from tandem.workloads import Authority, Position, Workload, effective, owner_of, same_setting

log = get_logger("rollouts")

# Reports come at most a quarter of an hour after a policy poll (spec 3.3).
_STATE_MINUTES = 15
_PAGE = 999
_MOST_REASON = 1024
# Gaps that somebody has to have read before the roll-out starts.
_WEIGHTY = (GapKind.LOST, GapKind.CHANGES, GapKind.UNKNOWN)
AUTOMATIC = "roll-out"
# What the blast radius says of devices that are not heard of.
_OFFLINE_DAYS = (1, 7, 30)
OFFLINE_DAYS = 7
_NAMES = 20


# Plans


async def plan(
    tx: Tx,
    workload: Workload,
    wished: Sequence[RingWish],
    *,
    automatic_back: bool = False,
    second_approval: bool = False,
    offline_minutes: float | None = None,
    reason: str = "",
    guards: Safeguards = Safeguards(),
    actor: str,
    now: datetime,
) -> Rollout:
    """Write down who is to move when. Nothing moves; the gap analysis begins.

    Raises NotEnabled, BadPlan, NoAutomaticBack, NoSuchCollection, NeedsReason.
    """
    await store.lock(tx)
    await service.required(tx)
    if not 1 <= len(wished) <= MOST_RINGS:
        raise BadPlan(f"A roll-out has 1 to {MOST_RINGS} rings.", field="rings")
    model.check_back(workload, automatic_back)
    if (await store.sliders(tx))[workload].position is Position.MDM:
        raise BadPlan(
            f"{workload.title} are with the MDM service for everybody already.",
            cure="Switch it back to the site or to a pilot first.",
            field="workload",
        )
    rings = []
    for place, wish in enumerate(wished, 1):
        model.check_gate(wish.gate)
        found = await collections.device_collection(tx, wish.collection)
        rings.append(Ring(place, found.id, found.name, wish.gate))
    ids = [ring.collection_id for ring in rings]
    if len(set(ids)) < len(ids):
        raise BadPlan("A collection is the ring of a roll-out only once.", field="rings")
    if ALL_SYSTEMS in ids[:-1]:
        raise BadPlan(
            "All Systems can only be the last ring: nobody would be left for the next.",
            field="rings",
        )
    if offline_minutes is None:
        offline_minutes = float(await settings.longest_polling(tx)) + _STATE_MINUTES
    if not 0 < offline_minutes <= 60 * 24 * 30:
        raise BadPlan(
            "offline_minutes is a number of minutes up to 30 days.", field="offline_minutes"
        )
    made = Rollout(
        str(uuid.uuid4()),
        workload,
        State.PLANNED,
        now,
        actor,
        automatic_back,
        second_approval,
        offline_minutes,
        rings=tuple(rings),
        reason=_said(reason),
        asked_at=now,
    )
    await rows.insert(tx, made)
    await _assign(tx, made)
    planned = await find(tx, made.id)
    _check_reason(planned, guards)
    told = {"rings": [ring.collection for ring in rings], "reason": made.reason}
    await _audit(tx, made, "rollout.plan", actor, now, **told)
    return planned


def _said(reason: str) -> str:
    """Raises NeedsReason."""
    said = reason.strip()
    if len(said) > _MOST_REASON:
        raise NeedsReason(
            "A reason has at most 1,024 characters.", cure="Say it shorter.", field="reason"
        )
    return said


def _check_reason(rollout: Rollout, guards: Safeguards) -> None:
    devices = devices_of(rollout)
    if reaches_two(rollout, guards) and not rollout.reason:
        raise NeedsReason(
            f"This roll-out reaches {devices} devices: a second administrator has to"
            " approve it, and needs a reason.",
            cure="Say why, in at most 1,024 characters (`--reason`), or plan with fewer devices"
            " first.",
            field="reason",
            devices=devices,
        )


def devices_of(rollout: Rollout) -> int:
    """How many devices its rings have."""
    return sum(
        getattr(ring.counts, standing.value) for ring in rollout.rings for standing in Standing
    )


def reaches_two(rollout: Rollout, guards: Safeguards) -> bool:
    """Whether it reaches more devices than one administrator may reach alone."""
    return devices_of(rollout) > guards.approval_above


def needs_approval(rollout: Rollout, guards: Safeguards) -> bool:
    """Whether it does not start before a second administrator agrees."""
    asked = rollout.second_approval or reaches_two(rollout, guards)
    return rollout.state is State.PLANNED and asked and not rollout.approved_by


def expires_at(rollout: Rollout, guards: Safeguards) -> datetime:
    """Until when it may be approved."""
    return (rollout.asked_at or rollout.created_at) + timedelta(hours=guards.approval_hours)


async def seen(tx: Tx, rollout: Rollout) -> str:
    """Another value when it moves other devices, in other rings, or has other gaps."""
    shown = sha256(msgspec.json.encode([rollout.rings, rollout.gaps]))
    for one in await rows.members(tx, rollout.id):
        shown.update(msgspec.json.encode([one.client_id, one.place, one.gaps]))
    return shown.hexdigest()


async def _assign(tx: Tx, rollout: Rollout) -> None:
    """Give each co-managed device the first ring that is to come and has it. One that has the
    workload with the MDM service already has nothing to do in it."""
    decided = (await service.decided_now(tx))[rollout.workload]
    every = {one.id: one for one in await clients.reported(tx) if one.co_managed}
    begun = {
        one.client_id
        for one in await rows.members(tx, rollout.id)
        if one.standing is not Standing.WAITING
    }
    taken = begun | decided | await service.excluded_clients(tx)
    wanted = []
    for ring in rollout.rings[rollout.ring :]:
        if not ring.collection_id:
            continue
        found = await collections.client_ids(tx, collections.CollectionId(ring.collection_id))
        for id in found & every.keys() - taken:
            one = every[clients.ClientId(id)]
            wanted.append((id, one.device_id, one.name, ring.place))
        taken |= found
    await rows.assign(tx, rollout.id, wanted)


async def find(tx: Tx, id: str) -> Rollout:
    """Raises NoSuchRollout."""
    found = await rows.rollout(tx, id)
    if found is None:
        raise NoSuchRollout("There is no such roll-out.", cure="List them: `tandem rollout list`.")
    return found


async def analyse(
    tx: Tx,
    id: str,
    *,
    reason: str = "",
    guards: Safeguards = Safeguards(),
    actor: str,
    now: datetime,
) -> Rollout:
    """Begin the gap analysis again, for the devices that the rings have now. Raises NeedsReason when
    they are so many by now that somebody else has to approve it, and nobody has said why."""
    rollout = await _held(tx, id, (State.PLANNED,))
    await rows.forget_analysis(tx, id)
    await _assign(tx, rollout)
    # Who approved it has not seen the devices that it is for now.
    again = replace(rollout, cause=Cause(), approved_by="", asked_at=now)
    await rows.save(tx, replace(again, reason=_said(reason) or rollout.reason))
    found = await find(tx, id)
    _check_reason(found, guards)
    await _audit(tx, rollout, "rollout.analyse", actor, now)
    return found


async def approve(
    tx: Tx,
    id: str,
    *,
    devices: int | None = None,
    shown: str = "",
    guards: Safeguards = Safeguards(),
    actor: str,
    now: datetime,
) -> Rollout:
    """A second administrator agrees to a plan as it was shown: for so many `devices`, with this `seen`.
    Of one that one administrator may start alone neither has to be said.

    Raises NeedsApproval for who made it and when its time is over, NotAnalysed, ReachesOthers.
    """
    rollout = await _held(tx, id, (State.PLANNED,))
    if actor == rollout.created_by:
        raise NeedsApproval(
            "You planned this roll-out: somebody else has to approve it.",
            cure="Ask another full administrator, or appoint one: `tandem administrator add`.",
        )
    reached = devices_of(rollout)
    if reaches_two(rollout, guards) or devices is not None:
        if rollout.analysed_at is None:
            raise NotAnalysed(
                "The gap analysis is not complete: nobody knows yet what would be agreed to.",
                cure="Wait for it, then look at the plan: `tandem rollout show`.",
            )
        if now >= expires_at(rollout, guards):
            raise NeedsApproval(
                f"This plan is older than {guards.approval_hours} hours.",
                cure=f"Have it compared again, and look at it: `tandem rollout analyse {id}`.",
            )
        if (devices, shown) != (reached, await seen(tx, rollout)):
            raise ReachesOthers(
                f"This roll-out reaches {reached} devices, and is not as it was shown to you.",
                cure="Look at it again, and approve it if you still agree.",
                devices=reached,
            )
    await rows.save(tx, replace(rollout, approved_by=actor))
    told = {"asked_by": rollout.created_by, "devices": reached, "reason": rollout.reason}
    await _audit(tx, rollout, "rollout.approve", actor, now, **told)
    return await find(tx, id)


# What an administrator does with it


async def start(
    tx: Tx,
    id: str,
    *,
    confirm: int | None = None,
    accept_gaps: bool = False,
    guards: Safeguards = Safeguards(),
    actor: str,
    now: datetime,
) -> Rollout:
    """Begin the first ring. What is under way already goes on.

    Raises WrongState, NotAnalysed, HasGaps, NeedsApproval, NeedsConfirmation, UnderWay, BadPlan.
    """
    rollout = await _held(tx, id, (State.PLANNED, *OPEN))
    if rollout.state in OPEN:
        return rollout
    await service.required(tx)
    await _assign(tx, rollout)
    done, devices = await rows.analysed(tx, id)
    if rollout.analysed_at is None or done < devices:
        raise NotAnalysed(
            f"The gap analysis has seen {done} of {devices} devices.",
            cure="Wait for it; when devices have come since, begin it again:"
            f" `tandem rollout analyse {id}`.",
        )
    await _check_gaps(tx, rollout, accept_gaps)
    rollout = await find(tx, id)
    if needs_approval(rollout, guards):
        raise NeedsApproval(
            f"This roll-out reaches {devices} devices: it waits for a second administrator.",
            cure=f"Ask another full administrator: `tandem rollout approve {id}`.",
            devices=devices,
        )
    everybody = rollout.rings[-1].collection_id == ALL_SYSTEMS
    if reaches_far(rollout, devices) and confirm != devices:
        raise NeedsConfirmation(
            f"This roll-out moves {rollout.workload.title} of {devices} devices"
            + (", which are all that are co-managed." if everybody else "."),
            cure=f"When you mean that, send their number: `--confirm {devices}`.",
            devices=devices,
        )
    slider = (await store.sliders(tx))[rollout.workload]
    if slider.position is Position.MDM:
        raise WrongState(
            f"{rollout.workload.title} are with the MDM service for everybody by now.",
            cure="Cancel this plan.",
        )
    other = await store.rollout_under_way(tx, rollout.workload)
    if other:
        raise UnderWay(
            f"Another roll-out is moving {rollout.workload.title} now.",
            cure="Let it end, or cancel it first.",
            rollout=other,
        )
    rollout = replace(
        rollout,
        state=State.RUNNING,
        started_at=now,
        started_by=actor,
        before=(slider.position, slider.collection_id, slider.also),
        cause=Cause(),
    )
    await _audit(tx, rollout, "rollout.start", actor, now, devices=devices, accepted=accept_gaps)
    rollout = await _begin(tx, rollout, actor, now)
    if not rollout.rings[0].asked:
        raise BadPlan(
            f"The first ring, {rollout.rings[0].collection}, has no co-managed device to move: it"
            " would prove nothing.",
            cure="Add devices to its collection, or plan with another one.",
            field="rings",
        )
    return await find(tx, id)


@dataclass(frozen=True, slots=True)
class RingReach:
    """`members` are all devices of the ring's collection. Those that do not move with this ring are
    not co-managed, are kept out, have moved already, or move with an earlier ring."""

    place: int
    collection_id: str
    collection: str
    members: int
    moves: int
    silent: int


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom a plan moves, before it starts. `silent` are devices that were not heard of for more
    than `days`: they cannot follow; `offline` says so of other numbers of days."""

    devices: int
    users: int
    without_user: int
    days: float
    silent: int
    names: tuple[str, ...]
    offline: tuple[tuple[int, int], ...]
    rings: tuple[RingReach, ...]


async def reach(tx: Tx, rollout: Rollout, days: float, now: datetime) -> Reach:
    """The blast radius of a roll-out, for the devices that its rings have now."""
    every = {one.id: one for one in await clients.reported(tx)}
    members = await rows.members(tx, rollout.id)
    users = await rows.users(tx, rollout.id)

    def quiet(one: Member, days: float) -> bool:
        known = every.get(clients.ClientId(one.client_id))
        seen = known.last_seen_at if known is not None else None
        return seen is None or seen < now - timedelta(days=days)

    silent = [one for one in members if quiet(one, days)]
    rings = []
    for ring in rollout.rings:
        id = collections.CollectionId(ring.collection_id)
        rings.append(
            RingReach(
                ring.place,
                ring.collection_id,
                ring.collection,
                len(await collections.client_ids(tx, id)) if ring.collection_id else 0,
                sum(one.place == ring.place for one in members),
                sum(one.place == ring.place for one in silent),
            )
        )
    return Reach(
        len(members),
        len(users.keys() - {""}),
        sum(count for user, count in users.items() if not user),
        days,
        len(silent),
        tuple(sorted((one.name for one in silent), key=str.lower)[:_NAMES]),
        tuple((many, sum(quiet(one, many) for one in members)) for many in _OFFLINE_DAYS),
        tuple(rings),
    )


def reaches_far(rollout: Rollout, devices: int) -> bool:
    """Whether it moves so many devices that their number has to be typed."""
    return rollout.rings[-1].collection_id == ALL_SYSTEMS or devices > CONFIRM_ABOVE


async def _check_gaps(tx: Tx, rollout: Rollout, accepted: bool) -> None:
    counts = await rows.gap_counts(tx, rollout.id)
    weighty = Counter[GapKind]()
    for number, gap in enumerate(rollout.gaps):
        if number in counts and gap.kind in _WEIGHTY:
            weighty[gap.kind] += 1
    if weighty and not accepted:
        raise HasGaps(
            f"By this move {weighty[GapKind.LOST]} settings, apps or rules would be lost,"
            f" {weighty[GapKind.CHANGES]} would change, and of {weighty[GapKind.UNKNOWN]} nobody"
            " can say.",
            cure="Read the gap analysis; then assign what is missing in the tenant, or accept the"
            " gaps: `--accept-gaps`.",
            **{kind.value: weighty[kind] for kind in _WEIGHTY},
        )


async def _begin(tx: Tx, rollout: Rollout, actor: str, now: datetime) -> Rollout:
    """The next ring: its devices are asked to follow, and its clock runs."""
    await _assign(tx, rollout)
    ring = rollout.rings[rollout.ring]
    members = [
        replace(one, standing=Standing.PENDING, cause=Cause("not-asked", _NOT_ASKED), at=now)
        for one in await rows.members(tx, rollout.id)
        if one.place == ring.place and one.standing is Standing.WAITING
    ]
    await rows.save_standings(tx, rollout.id, members)
    gate = ring.gate
    ring = replace(
        ring,
        state=RingState.RUNNING,
        asked=len(members),
        started_at=now,
        deadline_at=now + timedelta(minutes=gate.minutes),
        soak_until=now + timedelta(minutes=gate.soak_minutes),
    )
    rollout = _with(replace(rollout, ring=ring.place), ring)
    await rows.save(tx, rollout)
    if ring.collection_id:
        slider = (await store.sliders(tx))[rollout.workload]
        about = {"rollout": rollout.id, "ring": ring.place, "collection": ring.collection}
        moved = _moved(slider, ring, actor, now)
        await service.place(tx, moved, about=about, actor=actor, now=now)
    await _audit(
        tx,
        rollout,
        "rollout.ring",
        actor,
        now,
        ring=ring.place,
        collection=ring.collection,
        devices=len(members),
    )
    return rollout


_NOT_ASKED = "It has not asked for its new policy yet."


def _moved(slider: Slider, ring: Ring, actor: str, now: datetime) -> Slider:
    """The slider when a ring has begun: what it reached before stays reached."""
    kept = replace(slider, changed_at=now, changed_by=actor)
    if ring.collection_id == ALL_SYSTEMS:
        return replace(kept, position=Position.MDM, also=())
    if slider.position is not Position.PILOT:
        return replace(kept, position=Position.PILOT, collection_id=ring.collection_id, also=())
    if ring.collection_id in (slider.collection_id, *slider.also):
        return slider
    return replace(kept, also=(*slider.also, ring.collection_id))


def _with(rollout: Rollout, ring: Ring) -> Rollout:
    return replace(
        rollout, rings=tuple(ring if r.place == ring.place else r for r in rollout.rings)
    )


async def pause(tx: Tx, id: str, *, actor: str, now: datetime) -> Rollout:
    """No gate is judged and no ring begins; devices that were asked go on following."""
    rollout = await _held(tx, id, (State.RUNNING, State.PAUSED))
    if rollout.state is State.RUNNING:
        await rows.save(tx, replace(rollout, state=State.PAUSED, paused_at=now))
        await _audit(tx, rollout, "rollout.pause", actor, now)
    return await find(tx, id)


async def resume(tx: Tx, id: str, *, actor: str, now: datetime) -> Rollout:
    """Go on after a pause, with the time that was left; or after a halt, with all its time again."""
    rollout = await _held(tx, id, OPEN)
    if rollout.state is State.RUNNING:
        return rollout
    ring = rollout.current
    assert ring is not None
    if rollout.state is State.PAUSED:
        pause = now - (rollout.paused_at or now)
        ring = replace(
            ring,
            deadline_at=ring.deadline_at and ring.deadline_at + pause,
            soak_until=ring.soak_until and ring.soak_until + pause,
        )
    else:
        ring = replace(
            ring,
            state=RingState.RUNNING,
            ended_at=None,
            deadline_at=now + timedelta(minutes=ring.gate.minutes),
            soak_until=now + timedelta(minutes=ring.gate.soak_minutes),
        )
    going = replace(rollout, state=State.RUNNING, paused_at=None, cause=Cause())
    await rows.save(tx, _with(going, ring))
    await _audit(tx, rollout, "rollout.resume", actor, now, after=rollout.state.value)
    return await find(tx, id)


async def cancel(tx: Tx, id: str, *, actor: str, now: datetime) -> Rollout:
    """No further ring begins. Devices stay where they are: switching back is another step."""
    rollout = await _held(tx, id, (State.PLANNED, *OPEN, State.CANCELLED))
    if rollout.state is not State.CANCELLED:
        ended = _ended(rollout, State.CANCELLED, actor, now)
        await rows.save(tx, ended)
        await _audit(tx, rollout, "rollout.cancel", actor, now, ring=rollout.ring)
    return await find(tx, id)


async def back(tx: Tx, id: str, *, ring: int = 0, actor: str, now: datetime) -> Rollout:
    """Put the slider where it was before the roll-out; every device that moved follows. With a
    `ring`, where it was when that one had moved: it and those before it keep what they have, and may
    be put back later.

    Raises WrongState, and Superseded when the workload was moved otherwise since.
    """
    ended = (State.FINISHED, State.CANCELLED)
    rollout = await _held(tx, id, (*OPEN, *ended, State.RETURNED))
    returned = rollout.state is State.RETURNED
    if returned and ring == rollout.kept_rings:
        return rollout
    if rollout.started_at is None:
        raise WrongState("This roll-out never started: there is nothing to switch back.")
    last = rollout.kept_rings if returned else rollout.ring
    if ring and not 0 < ring < last:
        raise WrongState(
            f"Ring {ring} is none of the rings that are before {last}, where it is now.",
            cure="Leave the ring out to switch everything back.",
        )
    if rollout.state in (*ended, State.RETURNED) and await overtaken(tx, rollout):
        raise Superseded(
            f"{rollout.workload.title} were moved otherwise since this roll-out ended.",
            cure="Set the slider by hand: `tandem comanagement switch`.",
        )
    await _back(tx, rollout, actor, now, ring)
    return await find(tx, id)


async def _back(tx: Tx, rollout: Rollout, actor: str, now: datetime, kept: int = 0) -> None:
    assert rollout.before is not None
    position, collection_id, also = rollout.before
    if kept:
        step = await store.step_of_ring(tx, rollout.id, kept)
        if step is None:
            raise WrongState("Where the workload stood at that ring was not written down.")
        position, collection_id, also = step.position, step.collection_id, step.also
    for needed in (collection_id, *also) if position is Position.PILOT else ():
        await collections.collection(tx, needed)
    # Of those that an earlier way back left where they were.
    last = rollout.kept_rings if rollout.state is State.RETURNED else len(rollout.rings)
    returned = replace(_ended(rollout, State.RETURNED, actor, now), kept_rings=kept)
    await rows.save(tx, returned)
    following = [
        replace(one, standing=Standing.PENDING, cause=Cause("not-asked", _NOT_ASKED), at=now)
        for one in await rows.members(tx, rollout.id)
        if one.standing not in (Standing.WAITING, Standing.LEFT) and kept < one.place <= last
    ]
    await rows.save_standings(tx, rollout.id, following)
    wanted = Slider(rollout.workload, position, collection_id, now, actor, also)
    about = {"rollout": rollout.id, "back": True}
    await service.place(tx, wanted, about=about, actor=actor, now=now)
    await _audit(
        tx,
        rollout,
        "rollout.back",
        actor,
        now,
        devices=len(following),
        ring=kept,
        to=position.value,
        automatic=actor == AUTOMATIC,
    )


def _ended(rollout: Rollout, state: State, actor: str, now: datetime) -> Rollout:
    made = replace(rollout, state=state, ended_at=now, ended_by=actor, paused_at=None)
    made = replace(made, settled_at=now if rollout.started_at is None else None)
    ring = rollout.current
    if ring is not None and ring.state is RingState.RUNNING:
        made = _with(made, replace(ring, state=RingState.STOPPED, ended_at=now))
    return made


async def _held(tx: Tx, id: str, allowed: Sequence[State]) -> Rollout:
    """The roll-out, with nobody else changing it. Raises NoSuchRollout, WrongState."""
    await store.lock(tx)
    found = await find(tx, id)
    if found.state not in allowed:
        raise WrongState(
            f"This cannot be done with a roll-out that is {found.state.value}.",
            cure=f"See where it is: `tandem rollout show {id}`.",
            state=found.state.value,
        )
    return found


async def _audit(
    tx: Tx, rollout: Rollout, action: str, actor: str, now: datetime, **details: Any
) -> None:
    await audit.record(
        tx,
        actor=actor,
        action=action,
        target=rollout.id,
        now=now,
        details={"workload": rollout.workload.value, **details},
    )


async def history(tx: Tx, id: str) -> list[audit.Entry]:
    """What was done with it, oldest first."""
    return list(reversed(await audit.entries(tx, target=id, limit=1000)))


# What moves it on


class Pace(msgspec.Struct, frozen=True):
    """How often roll-outs are looked at. `factor`: a pause is at least so many times the work."""

    seconds: float = 1
    idle_seconds: float = 2
    factor: float = 5
    # How often the tenant's list of devices is read, and a device that is well asked again.
    list_seconds: float = 30
    again_seconds: float = 60
    at_once: int = 2000


class Conductor:
    """Analyses plans, asks the tenant how devices are, and moves roll-outs on, until it is stopped.

    All it knows is in the database but when it last read a list: whoever runs next goes on where it
    was, and of two that run at once one does the work.
    """

    def __init__(
        self, db: Database, others: service.Collaborators, now: Clock, pace: Pace = Pace()
    ) -> None:
        self._db = db
        self._others = others
        self._now = now
        self._pace = pace
        self._listed: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        failed = "roll-outs are not moved on"
        await rounds(stop, self._round, self._pace.idle_seconds, failed=failed, cut_off=True)

    async def _round(self) -> float:
        """Until the next one: longer after one that took long."""
        begun = time.perf_counter()
        busy = await self.tend()
        took = time.perf_counter() - begun
        pause = self._pace.seconds if busy else self._pace.idle_seconds
        return max(pause, took * self._pace.factor)

    async def tend(self) -> bool:
        """What is due now. Returns whether there is any roll-out to look after."""
        async with self._db.transaction() as tx:
            planned = await rows.to_analyse(tx)
            going = await rows.unsettled(tx)
        for rollout in planned:
            await self._analyse(rollout)
        for rollout in going:
            if rollout.state is not State.RETURNED or rollout.kept_rings:
                await self._ask(rollout)
        if going:
            await self._advance()
        async with self._db.transaction() as tx:
            leave = await rows.try_keep(tx) and await leaving.tend(tx, self._now())
        return bool(planned or going or leave)

    # Gap analysis

    async def _analyse(self, rollout: Rollout) -> None:
        """All devices of one plan, some at a time."""
        graph, trouble = None, ""
        try:
            graph = await self._others.graph()
            await self._list(graph, rollout, first=True)
        except AppError as error:
            graph, trouble = None, error.message
        moved = model.moved_by(rollout.workload)
        while True:
            async with self._db.transaction() as tx:
                part = await rows.unanalysed(tx, rollout.id, tenant.AT_ONCE)
                configured = await _configured(tx, [one.client_id for one in part])
            if not part:
                break
            offers: Mapping[str, Offer] = {}
            if graph is not None:
                try:
                    offers = await tenant.offers(graph, [o.mdm_id for o in part if o.mdm_id])
                except AppError as error:
                    graph, trouble = None, trouble or error.message
            found = {}
            # Devices that are alike have the same gaps, and a fleet has few that are not.
            alike: dict[tuple[tuple[str, ...], frozenset[str], int], list[model.Gap]] = {}
            for one in part:
                offer = offers.get(one.mdm_id)
                if graph is not None and offer is None:
                    trouble = trouble or f"The tenant lists no managed device for {one.name}."
                mine, of_user = configured[one.client_id]
                key = (tuple(item.id for item in mine), of_user, id(offer))
                if key not in alike:
                    alike[key] = model.find_gaps(mine, offer, moved, of_user)
                found[one.client_id] = alike[key]
            if not await self._keep(rollout.id, found):
                return
        async with self._db.transaction() as tx:
            await store.lock(tx)
            current = await find(tx, rollout.id)
            if current.state is State.PLANNED:
                if trouble:
                    await rows.save(tx, replace(current, cause=Cause("tenant", trouble)))
                await rows.finish_analysis(tx, rollout.id, self._now())

    async def _keep(self, rollout_id: str, found: Mapping[str, list[model.Gap]]) -> bool:
        """Write down the gaps of some devices. Returns whether the plan is still one."""
        async with self._db.transaction() as tx:
            await store.lock(tx)
            current = await find(tx, rollout_id)
            if current.state is not State.PLANNED:
                return False
            every = list(current.gaps)
            numbers = {gap: number for number, gap in enumerate(every)}
            alike: dict[int, list[int]] = {}
            for gaps in found.values():
                if id(gaps) in alike:
                    continue
                for gap in gaps:
                    if gap not in numbers:
                        numbers[gap] = len(every)
                        every.append(gap)
                alike[id(gaps)] = [numbers[gap] for gap in gaps]
            of = {client_id: alike[id(gaps)] for client_id, gaps in found.items()}
            await rows.save_gaps(tx, rollout_id, every, of)
        return True

    # How devices are

    async def _list(self, graph: "service.Graph", rollout: Rollout, first: bool = False) -> None:
        path = "deviceManagement/managedDevices"
        query = f"?$select=id,azureADDeviceId,complianceState,userPrincipalName&$top={_PAGE}"
        async for page in tenant.pages(graph, path + query):
            found = {
                device: rows.Listed(
                    tenant.text(item.get("id")),
                    tenant.text(item.get("complianceState")),
                    tenant.text(item.get("userPrincipalName")),
                )
                for item in page
                if (device := tenant.text(item.get("azureADDeviceId")))
            }
            async with self._db.transaction() as tx:
                await rows.save_listed(tx, rollout.id, found, first)
        self._listed[rollout.id] = time.monotonic()

    async def _ask(self, rollout: Rollout) -> None:
        """Ask the tenant what came of the move, on devices that report it."""
        now = self._now()
        async with self._db.transaction() as tx:
            due = await self._due(tx, rollout, now)
        if not due:
            return
        try:
            graph = await self._others.graph()
            listed = self._listed.get(rollout.id)
            if listed is None or time.monotonic() - listed >= self._pace.list_seconds:
                await self._list(graph, rollout)
                async with self._db.transaction() as tx:
                    due = await self._due(tx, rollout, now)
            due = due[: self._pace.at_once]
            said = await _told(graph, due, rollout)
            async with self._db.transaction() as tx:
                await rows.save_told(tx, rollout.id, said, now)
        except AppError as error:
            # Devices that were not asked are not done: a gate does not pass on silence.
            log.warning("the tenant is not asked how devices are", reason=error.message)

    async def _due(self, tx: Tx, rollout: Rollout, now: datetime) -> list[Member]:
        """Those that report the move: first who was never asked, then who waits, then the others."""
        every = {one.id: one for one in await clients.reported(tx)}
        before = now - timedelta(seconds=self._pace.again_seconds)
        found = [
            one
            for one in await rows.members(tx, rollout.id)
            if one.standing not in (Standing.WAITING, Standing.LEFT)
            and (known := every.get(clients.ClientId(one.client_id))) is not None
            and owner_of(rollout.workload, effective(known.flags, known.mdm_enrolled))
            is Authority.MDM
            and (
                one.told in (Told.NOTHING, Told.PENDING)
                or one.checked_at is None
                or one.checked_at <= before
            )
        ]
        return sorted(
            found,
            key=lambda one: (
                one.told not in (Told.NOTHING, Told.PENDING),
                one.checked_at is not None,
                one.checked_at or now,
                one.client_id,
            ),
        )

    # Gates

    async def _advance(self) -> None:
        async with self._db.transaction() as tx:
            if not await rows.try_keep(tx):
                return
            await store.lock(tx)
            now = self._now()
            every = {one.id: one for one in await clients.reported(tx)}
            failed = await clients.failed_effects(tx, Authority.MDM.value)
            for rollout in await rows.unsettled(tx):
                troubles = model.troubles(failed, model.moved_by(rollout.workload))
                try:
                    # What keeps one from going on keeps no other.
                    async with tx.transaction():
                        fresh = await _refresh(tx, rollout, every, troubles, now)
                        await _advance(tx, fresh, now)
                except AppError as error:
                    log.error(
                        "a roll-out is not moved on", rollout=rollout.id, reason=error.message
                    )


async def _refresh(
    tx: Tx,
    rollout: Rollout,
    every: Mapping[clients.ClientId, clients.Reported],
    troubles: Mapping[str, str],
    now: datetime,
) -> Rollout:
    """Where each device is by now, written down where that is news."""
    changed, standings = [], dict[int, Counter[Standing]]()
    for one in await rows.members(tx, rollout.id):
        if one.standing is not Standing.WAITING:
            ring = rollout.rings[one.place - 1]
            known = every.get(clients.ClientId(one.client_id))
            trouble = troubles.get(one.client_id, "")
            standing, cause = model.stand(known, one, rollout, ring, now, trouble)
            if (standing, cause) != (one.standing, one.cause):
                one = replace(one, standing=standing, cause=cause, at=now)
                changed.append(one)
        standings.setdefault(one.place, Counter())[one.standing] += 1
    if changed:
        await rows.save_standings(tx, rollout.id, changed)
    rings = tuple(
        replace(ring, counts=model.count(standings.get(ring.place, {}))) for ring in rollout.rings
    )
    return replace(rollout, rings=rings)


async def _advance(tx: Tx, rollout: Rollout, now: datetime) -> None:
    if rollout.state not in OPEN:
        following = sum(ring.counts.pending + ring.counts.offline for ring in rollout.rings)
        if not following or await overtaken(tx, rollout):
            await rows.save(tx, replace(rollout, settled_at=now))
        return
    ring = rollout.current
    if rollout.state is not State.RUNNING or ring is None:
        return
    verdict, cause = model.judge(ring, now)
    if verdict is Verdict.FAIL:
        await _halt(tx, rollout, ring, cause, now)
    elif verdict is Verdict.PASSED:
        passed = _with(rollout, replace(ring, state=RingState.PASSED, ended_at=now))
        await rows.save(tx, passed)
        await _audit(
            tx,
            rollout,
            "rollout.pass",
            AUTOMATIC,
            now,
            ring=ring.place,
            **msgspec.to_builtins(ring.counts),
        )
        if ring.place < len(rollout.rings):
            await _begin(tx, passed, AUTOMATIC, now)
        else:
            await rows.save(tx, _ended(passed, State.FINISHED, AUTOMATIC, now))
            await _audit(tx, rollout, "rollout.finish", AUTOMATIC, now)


async def overtaken(tx: Tx, rollout: Rollout) -> bool:
    """Whether its workload was moved by something else since it ended."""
    slider = (await store.sliders(tx))[rollout.workload]
    moved = slider.changed_at and rollout.ended_at and slider.changed_at > rollout.ended_at
    return bool(moved) or await rows.newer_start(tx, rollout)


async def _halt(tx: Tx, rollout: Rollout, ring: Ring, cause: Cause, now: datetime) -> None:
    """A gate has failed: no further ring begins, and it is told loudly."""
    halted = _with(
        replace(rollout, state=State.HALTED, cause=cause),
        replace(ring, state=RingState.FAILED, ended_at=now),
    )
    await rows.save(tx, halted)
    details = {"workload": rollout.workload.value, "ring": ring.place, "cause": cause.text}
    await audit.record(
        tx,
        actor=AUTOMATIC,
        action="rollout.halt",
        target=rollout.id,
        now=now,
        details=details | msgspec.to_builtins(ring.counts),
    )
    await events.record(tx, "comanagement.rollout-halted", rollout.id, details)
    log.error("a roll-out has halted", rollout=rollout.id, **details)
    if rollout.automatic_back:
        try:
            async with tx.transaction():
                await _back(tx, halted, AUTOMATIC, now)
        except AppError as error:
            # Halted it stays, whatever keeps it from going back.
            log.error("a roll-out does not go back", rollout=rollout.id, reason=error.message)


# The tenant


async def _configured(
    tx: Tx, client_ids: Sequence[str]
) -> dict[str, tuple[list[deployments.Configuration], frozenset[str]]]:
    """What the site deploys to each client, and the ids of what it deploys to who is signed in there.
    The device comes before its user; of two that set the same, the older one holds."""
    own: dict[str, dict[str, deployments.Configuration]] = {id: {} for id in client_ids}
    of_user: dict[str, dict[str, deployments.Configuration]] = {id: {} for id in client_ids}
    there = await clients.signed_in(tx, client_ids)
    for item in await deployments.configurations(tx):
        for id in await collections.client_ids(tx, item.collection_id) & own.keys():
            own[id].setdefault(item.setting, item)
        users = await collections.user_ids(tx, item.collection_id) if there else set()
        for id in (id for id, user in there.items() if user in users):
            of_user[id].setdefault(item.setting, item)
    found = {}
    for id, mine in own.items():
        taken = {same_setting(setting) for setting in mine}
        brought = [one for one in of_user[id].values() if same_setting(one.setting) not in taken]
        found[id] = [*mine.values(), *brought], frozenset(one.id for one in brought)
    return found


async def _told(
    graph: "service.Graph", asked: Sequence[Member], rollout: Rollout
) -> dict[str, tuple[Told, str]]:
    """What the tenant says came of the move on each of these devices."""
    try:
        offers = await tenant.offers(graph, [one.mdm_id for one in asked if one.mdm_id])
    except AppError as error:
        if error.kind in tenant.ABSENT:
            return {one.client_id: (Told.ABSENT, "") for one in asked}
        raise
    gone = Told.ERROR, "The tenant lists no such managed device."
    moved = model.moved_by(rollout.workload)
    return {
        one.client_id: model.told(offers[one.mdm_id].settings, moved)
        if one.mdm_id in offers
        else gone
        for one in asked
    }
