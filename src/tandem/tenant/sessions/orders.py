"""Orders of administrators: sync, restart, rename, wipe, leave; and who else has to agree."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.listing import Source
from tandem.tenant import enrollment
from tandem.tenant.enrollment import Device, Enrollment
from tandem.tenant.sessions import actions, model, order_store
from tandem.tenant.sessions.actions import (
    DESTRUCTIVE,
    RETIRE,
    SYNC,
    WIPES,
    Progress,
    Safeguards,
    State,
)
from tandem.tenant.sessions.model import ActionResult
from tandem.tenant.sessions.order_store import Order, Proposal, Request
from tandem.tenant.sessions.wakes import NoWakes, Wakes

# Orders of one administrator that may wait for a second one: more are noise, or an attack.
_MOST_WAITING = 20
MOST_DEVICES = 10_000
_TENDED_AT_ONCE = 500
_ANSWERS = timedelta(days=1)
_HOUR = timedelta(hours=1)


class NoSuchOrder(AppError):
    kind, code = Kind.NOT_FOUND, "action.not-found"


class NotTwoPeople(AppError):
    kind, code = Kind.FORBIDDEN, "action.second-administrator"


class Decided(AppError):
    kind, code = Kind.CONFLICT, "action.decided"


class BadOrder(AppError):
    kind, code = Kind.INVALID, "action.invalid"


class WaitsAlready(AppError):
    kind, code = Kind.CONFLICT, "action.waits-already"


@dataclass(frozen=True, slots=True)
class By:
    """Who orders or decides; `person` is false for an application."""

    id: str
    name: str
    person: bool = True


@dataclass(frozen=True, slots=True)
class Reach:
    """How far an order goes, before it is given: `devices` are those that it concerns."""

    devices: Sequence[Device]
    users: int
    co_managed: int
    needs_approval: bool
    budget_left: int
    safeguards: Safeguards


@dataclass(frozen=True, slots=True)
class Ordered:
    """`request_id` is None for what needs no safeguards; devices that had it already are left
    out of `devices`."""

    request_id: str | None
    devices: Sequence[Device]
    state: State
    held_until: datetime | None = None


class Orders:
    """What administrators order of devices, until it is done."""

    def __init__(
        self,
        enrollment: Enrollment,
        now: Clock,
        safeguards: Safeguards | None = None,
        wakes: Wakes | None = None,
    ) -> None:
        self._enrollment = enrollment
        self._now = now
        self._safeguards = actions.check(safeguards or Safeguards())
        self._wakes = wakes or NoWakes()

    # ------------------------------------------------------------------ giving orders

    async def order(
        self,
        tx: Tx,
        by: By,
        kind: str,
        device_ids: Sequence[str],
        data: str = "",
        reason: str = "",
    ) -> Ordered:
        """Order something of devices. What is open already is not ordered twice.

        Raises NoSuchDevice, BadOrder, WaitsAlready and, for what nothing brings back, BudgetSpent.
        """
        devices = await _devices(tx, device_ids, lock=True)
        now = self._now()
        missing = await self._without(tx, devices, kind, data)
        if not missing:
            return Ordered(None, (), State.PENDING)
        if kind not in DESTRUCTIVE:
            made = actions.ordered(kind, data, self._safeguards, len(missing), now)
            await self._give(tx, missing, made, by, None)
            return Ordered(None, missing, made.state)
        safeguards = await self.safeguards(tx)
        await order_store.lock_budget(tx, by.id)
        approval = actions.needs_approval(safeguards, len(missing))
        if approval:
            await self._may_wait(tx, by, reason)
        else:
            spent, since = await order_store.spent(tx, by.id, now - _HOUR)
            free_at = since + _HOUR if since is not None else None
            actions.spend(safeguards, len(missing), spent, free_at)
        request_id = await order_store.add_request(
            tx, kind, data, reason, (by.id, by.name), (len(missing), _users(missing)), approval, now
        )
        made = actions.ordered(kind, data, safeguards, len(missing), now)
        await self._give(tx, missing, made, by, request_id)
        return Ordered(request_id, missing, made.state, made.held_until)

    async def reach(self, tx: Tx, by: By, kind: str, device_ids: Sequence[str]) -> Reach:
        """What `order` would do, for who is about to. Raises NoSuchDevice, BadOrder."""
        devices = await _devices(tx, device_ids)
        safeguards = await self.safeguards(tx)
        spent, _ = await order_store.spent(tx, by.id, self._now() - _HOUR)
        return Reach(
            devices,
            _users(devices),
            sum(1 for device in devices if device.agent is not None and device.agent.policy),
            kind in DESTRUCTIVE and actions.needs_approval(safeguards, len(devices)),
            max(0, safeguards.budget_per_hour - spent),
            safeguards,
        )

    async def _may_wait(self, tx: Tx, by: By, reason: str) -> None:
        if not reason.strip():
            raise BadOrder(
                "An order that a second administrator has to approve needs a reason.",
                cure="Say why these devices have to go.",
                target="reason",
            )
        if await order_store.waiting(tx, by.id) >= _MOST_WAITING:
            raise actions.BudgetSpent(
                f"{_MOST_WAITING} orders of yours wait for a second administrator already.",
                cure="Have them decided, or cancel some: `tandem actions requests`.",
                retry_after_seconds=3600,
            )

    async def _without(
        self, tx: Tx, devices: Sequence[Device], kind: str, data: str
    ) -> list[Device]:
        """Devices that have no such order yet. Raises WaitsAlready."""
        if kind in actions.UNSUPPORTED or kind == SYNC:
            return list(devices)
        kinds = WIPES if kind in WIPES else (kind,)
        found = await order_store.open_orders_of(tx, [item.id for item in devices], kinds)
        has: dict[str, Progress] = {item.device_id: item.progress for item in found}
        for device in devices:
            known = has.get(device.id)
            if known is not None and kind in WIPES and (known.kind, known.data) != (kind, data):
                raise WaitsAlready(
                    f"Another wipe of {device.name} is under way.",
                    cure="Cancel that one first: `tandem managed-device cancel-action`.",
                )
        if kind == "setDeviceName":
            return [d for d in devices if d.id not in has or has[d.id].data != data]
        gone = {item.id for item in devices if item.state == "unenrolling"} - set(has)
        return [d for d in devices if d.id not in has and not (kind == RETIRE and d.id in gone)]

    async def _give(
        self, tx: Tx, devices: Sequence[Device], made: Progress, by: By, request_id: str | None
    ) -> None:
        """In as many statements for thousands of devices as for one: their sessions wait meanwhile."""
        now = self._now()
        if made.kind == SYNC:
            made = actions.delivered(made, now)
        ids = [device.id for device in devices]
        await order_store.add_orders(tx, ids, made, by.name, now, request_id)
        name = actions.graph_name(made.kind)
        if not made.is_open:
            await self._note(tx, devices, f"{name}: not supported by Windows")
            return
        match made.state:
            case State.APPROVAL:
                text = f"{by.name} orders {name}; a second administrator has to approve it"
            case State.HELD:
                assert made.held_until is not None
                text = f"{by.name} orders {name}; it can be cancelled until {_at(made.held_until)}"
            case _:
                text = f"{by.name} orders {name}"
        await self._note(tx, devices, text)
        await self._shown(tx, devices, made)
        await self._begun(tx, devices, made)

    # ------------------------------------------------------------------ taking them back

    async def cancel(self, tx: Tx, by: By, order_id: int) -> Device:
        """Before the device has it. Raises NoSuchOrder, TooLate."""
        found = await order_store.order(tx, order_id)
        if found is None:
            raise _no_order(str(order_id))
        await self._cancel(tx, by, found)
        return await enrollment.device(tx, found.device_id)

    async def _cancel(self, tx: Tx, by: By, found: Order) -> None:
        after = actions.cancelled(found.progress, f"Cancelled by {by.name}.", self._now())
        await self._moved(tx, [found], after)

    async def cancel_request(self, tx: Tx, by: By, request_id: str) -> int:
        """All of it that no device has yet. Returns for how many. Raises NoSuchOrder, TooLate."""
        request = await _request(tx, request_id)
        waiting = [
            item
            for item in await order_store.orders_of_request(tx, request.id)
            if item.progress.state in actions.WAITING
        ]
        if not waiting:
            raise actions.TooLate(
                "All its devices have this order already, or it is over.",
                cure="Look at how far it is: `tandem actions list`.",
            )
        why, now = f"Cancelled by {by.name}.", self._now()
        await self._step(tx, waiting, lambda one: actions.cancelled(one, why, now))
        if not request.decision:
            await order_store.decide(tx, request.id, "cancelled", by.name, "", self._now())
        return len(waiting)

    async def approve(self, tx: Tx, by: By, request_id: str) -> int:
        """As a second administrator: the hold window begins. Returns for how many devices.

        Raises NoSuchOrder, NotTwoPeople, Decided.
        """
        request, waiting = await self._undecided(tx, by, request_id)
        _second(by, request.asked_by, request.asked_by_name)
        safeguards = await self.safeguards(tx)
        now = self._now()
        await self._step(tx, waiting, lambda one: actions.approved(one, safeguards, now), by)
        await order_store.decide(tx, request.id, "approved", by.name, "", now)
        return len(waiting)

    async def reject(self, tx: Tx, by: By, request_id: str, reason: str) -> int:
        """Nothing of it happens. Raises NoSuchOrder, Decided."""
        request, waiting = await self._undecided(tx, by, request_id)
        why, now = f"Rejected by {by.name}.", self._now()
        await self._step(tx, waiting, lambda one: actions.cancelled(one, why, now))
        await order_store.decide(tx, request.id, "rejected", by.name, reason, self._now())
        return len(waiting)

    async def _undecided(self, tx: Tx, by: By, request_id: str) -> tuple[Request, list[Order]]:
        request = await _request(tx, request_id)
        now = self._now()
        waiting = [
            item
            for item in await order_store.orders_of_request(tx, request.id)
            if item.progress.state is State.APPROVAL and now < item.progress.expires_at
        ]
        if request.decision or not waiting:
            said = f"was {request.decision} already" if request.decision else "waits for nobody"
            raise Decided(
                f"This order {said}.", cure="Look at how far it is: `tandem actions requests`."
            )
        return request, waiting

    # ------------------------------------------------------------------ safeguards

    async def safeguards(self, tx: Tx) -> Safeguards:
        """Those in force."""
        kept, _ = await order_store.safeguards(tx)
        return kept or self._safeguards

    async def proposal(self, tx: Tx) -> Proposal | None:
        return (await order_store.safeguards(tx))[1]

    async def change_safeguards(self, tx: Tx, by: By, wanted: Safeguards) -> bool:
        """Returns whether they are in force: weaker ones wait for a second administrator.

        Raises BadSafeguards.
        """
        actions.check(wanted)
        await order_store.lock_safeguards(tx)
        kept, _ = await order_store.safeguards(tx)
        if actions.weaker(wanted, kept or self._safeguards):
            proposal = Proposal(wanted, by.id, by.name, self._now())
            await order_store.save_safeguards(tx, kept, proposal)
            return False
        await order_store.save_safeguards(tx, wanted, None)
        return True

    async def approve_safeguards(
        self, tx: Tx, by: By, seen: Mapping[str, int] | None = None
    ) -> Safeguards:
        """`seen`: what was read of the proposal, by the names of Safeguards; another one that came
        since is not approved. Raises Decided, NotTwoPeople."""
        await order_store.lock_safeguards(tx)
        kept, proposal = await order_store.safeguards(tx)
        in_force = kept or self._safeguards
        life = timedelta(hours=in_force.approval_hours)
        if proposal is None or self._now() - proposal.at >= life:
            raise Decided(
                "No change of the safeguards waits for approval.",
                cure="Propose it again: `tandem actions safeguards --help`.",
            )
        _second(by, proposal.by, proposal.by_name)
        if any(getattr(proposal.safeguards, name) != value for name, value in (seen or {}).items()):
            raise Decided(
                "The proposed safeguards are others than those that you have seen.",
                cure="Look at them again, and approve them if you still agree.",
            )
        await order_store.save_safeguards(tx, proposal.safeguards, None)
        return proposal.safeguards

    async def withdraw_safeguards(self, tx: Tx) -> None:
        """The proposed change is not made. Raises Decided."""
        await order_store.lock_safeguards(tx)
        kept, proposal = await order_store.safeguards(tx)
        if proposal is None:
            raise Decided("No change of the safeguards waits for approval.")
        await order_store.save_safeguards(tx, kept, None)

    # ------------------------------------------------------------------ what devices do

    async def came(self, tx: Tx, device: Device, now: datetime) -> None:
        """A device begins a session."""
        for item in await order_store.open_orders(tx, device.id):
            after = actions.returned(item.progress, now)
            if after != item.progress:
                await self._moved(tx, [item], after)

    async def hand_out(
        self, tx: Tx, device: Device, asked: Collection[int]
    ) -> tuple[list[model.Order], bool]:
        """The commands of what is due, and whether the device gets nothing besides.

        `asked` are the orders that this session was given already: each is given once in it.

        A wipe is alone in its message, so that nothing comes after it (section 15); so is the
        order to leave, which ends the session (section 14).
        """
        now = self._now()
        found = await order_store.open_orders(tx, device.id)
        if any(o.progress.is_wipe and o.progress.state in _GIVEN for o in found):
            return [], True
        ready = [i for i in found if i.id not in asked and actions.due(i.progress, now)]
        for kinds in (WIPES, (RETIRE,)):
            last = [item for item in ready if item.progress.kind in kinds]
            if last:
                return [await self._deliver(tx, last[0])], True
        return [
            await self._deliver(tx, item) for item in ready if item.progress.kind in model.ACTIONS
        ], False

    async def _deliver(self, tx: Tx, item: Order) -> model.Order:
        after = actions.delivered(item.progress, self._now())
        if after != item.progress:
            await self._moved(tx, [item], after)
        if after.kind == RETIRE:
            return model.unenroll(self._enrollment.settings.provider_id, item.id)
        return model.action(after.kind, after.data, item.id)

    async def answered(self, tx: Tx, device: Device, order_id: int, code: int) -> None:
        """A device says what became of an order of its own."""
        found = await order_store.order(tx, order_id)
        if found is None or found.device_id != device.id:
            return
        now = self._now()
        if code in model.NOT_DONE:
            after = actions.undelivered(found.progress)
        else:
            after = actions.answered(found.progress, code, now)
        if after != found.progress:
            await self._moved(tx, [found], after)

    async def left(self, tx: Tx, device: Device) -> None:
        for item in await order_store.open_orders(tx, device.id):
            await order_store.save(tx, [item.id], actions.left(item.progress, self._now()))

    async def tend(self, tx: Tx) -> int:
        """What the time does to orders; returns how many it moved, at most a few hundred.

        Devices that were told to leave or to wipe everything, and were never heard of again, have
        left.
        """
        now = self._now()
        moved = 0
        for item in await order_store.timed(tx, now, now - _ANSWERS, _TENDED_AT_ONCE):
            device = await enrollment.device(tx, item.device_id)
            if device.state == "unenrolled":
                after = actions.left(item.progress, now)
            elif actions.silent(item.progress, device.seen_at, now):
                why = "Told to leave" if item.progress.kind == RETIRE else "Told to wipe itself"
                await self._enrollment.end(tx, device, f"{why}, and silent for a day since")
                after = actions.left(item.progress, now)
            else:
                after = actions.passed(item.progress, now)
            if after != item.progress:
                moved += 1
                await self._moved(tx, [item], after)
        return moved

    # ------------------------------------------------------------------ one step

    async def _step(
        self,
        tx: Tx,
        items: Sequence[Order],
        step: Callable[[Progress], Progress],
        by: By | None = None,
    ) -> None:
        """The same step for each of them."""
        alike: dict[Progress, list[Order]] = {}
        for item in items:
            alike.setdefault(item.progress, []).append(item)
        for before, same in alike.items():
            await self._moved(tx, same, step(before), by)

    async def _moved(
        self, tx: Tx, items: Sequence[Order], after: Progress, by: By | None = None
    ) -> None:
        """Keep a step of orders that were equally far, and tell of it."""
        before = items[0].progress
        await order_store.save(tx, [item.id for item in items], after)
        devices = await enrollment.some(tx, [item.device_id for item in items])
        name = actions.graph_name(after.kind)
        text = _told(name, before, after, by)
        if text:
            await self._note(tx, devices, text)
        devices = [device for device in devices if device.state != "unenrolled"]
        await self._shown(tx, devices, after)
        if after.state is State.CANCELLED or after.state is State.EXPIRED:
            for device in devices:
                if after.kind == RETIRE and device.state == "unenrolling":
                    await self._enrollment.keep(tx, device)
            return
        await self._begun(tx, devices, after)

    async def _begun(self, tx: Tx, devices: Sequence[Device], order: Progress) -> None:
        """Nothing is in the way of it any more, or no longer: the devices may come for it."""
        if order.state not in (State.PENDING, State.SENT):
            return
        for device in devices:
            if order.kind == RETIRE and device.state == "enrolled":
                await self._enrollment.begin_unenroll(tx, device)
        if order.state is State.PENDING or order.kind == SYNC:
            await self._wakes.wake(tx, devices)

    async def _shown(self, tx: Tx, devices: Sequence[Device], order: Progress) -> None:
        state = actions.management_state(order)
        if state and devices:
            await enrollment.set_management_state(tx, [device.id for device in devices], state)

    async def _note(self, tx: Tx, devices: Sequence[Device], text: str) -> None:
        await self._enrollment.note_each(tx, devices, "action", text)


_GIVEN = (State.SENT, State.ACCEPTED)


def _told(name: str, before: Progress, after: Progress, by: By | None) -> str:
    """The line of the timeline for a step; empty for a step that tells nothing."""
    match after.state:
        case State.HELD | State.PENDING if before.state is State.APPROVAL:
            text = f"{name} is approved by {by.name if by is not None else ''}"
            until = after.held_until
            held = after.state is State.HELD and until is not None
            return f"{text}; it can be cancelled until {_at(until)}" if held and until else text
        case State.ACCEPTED:
            return f"{name}: the device has it, and begins"
        case State.DONE:
            if after.kind == SYNC:
                return "The device checks in, as it was asked to"
            return f"{name}: the device has it" if before.state is State.SENT else f"{name}: done"
        case State.CANCELLED | State.EXPIRED | State.FAILED | State.TIMED_OUT:
            return f"{name}: {after.why}"
        case _:
            return ""


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _users(devices: Sequence[Device]) -> int:
    return len({device.user_id for device in devices})


def _second(by: By, asked_by: str, asked_by_name: str) -> None:
    """Raises NotTwoPeople unless this is somebody else, and a person."""
    if not by.person:
        raise NotTwoPeople(
            "An application cannot approve: a second administrator has to.",
            cure="Sign in as an Intune Administrator.",
        )
    if by.id == asked_by:
        raise NotTwoPeople(
            f"{asked_by_name} asked for this: another administrator has to approve it.",
            cure="Ask another Intune Administrator, or appoint one.",
        )


async def _devices(tx: Tx, ids: Sequence[str], *, lock: bool = False) -> list[Device]:
    """Devices that have not left. `lock`: two orders at once do not both find that a device has
    none. Raises NoSuchDevice, BadOrder."""
    ids = list(dict.fromkeys(ids))
    if not ids or len(ids) > MOST_DEVICES:
        raise BadOrder(
            f"An order is for 1 to {MOST_DEVICES} devices, and this is for {len(ids)}.",
            cure="Name the devices by their ids.",
            target="devices",
        )
    devices = await enrollment.some(tx, ids, lock=lock)
    for device in devices:
        if device.state == "unenrolled":
            raise enrollment.NoSuchDevice(
                f"The device {device.name} has left the MDM service.", cure="It can enroll again."
            )
    return devices


async def _request(tx: Tx, id: str) -> Request:
    found = await order_store.request(tx, id)
    if found is None:
        raise _no_order(id)
    return found


def _no_order(id: str) -> NoSuchOrder:
    return NoSuchOrder(f"There is no order {id}.", cure="List them: `tandem actions list`.")


async def results(tx: Tx, device_ids: Sequence[str]) -> dict[str, list[ActionResult]]:
    """By device, the last order of each kind and how far it got (Graph's deviceActionResults)."""
    found: dict[str, dict[str, ActionResult]] = {}
    for row in await order_store.latest(tx, device_ids):
        kind = actions.graph_name(row["kind"])
        result = ActionResult(
            kind,
            actions.graph_state(State(row["state"]), row["code"]),
            row["created_at"],
            row["changed_at"],
        )
        found.setdefault(row["device_id"], {})[kind] = result
    return {device_id: list(kinds.values()) for device_id, kinds in found.items()}


_ACTION = "CASE o.kind WHEN 'unenroll' THEN CASE o.data WHEN 'delete' THEN 'delete' ELSE 'retire' END ELSE o.kind END"

# Orders for one device each, the newest first.
ORDERS = Source(
    "sessions_order o JOIN enrollment_device d ON d.id = o.device_id"
    " LEFT JOIN sessions_request r ON r.id = o.request_id",
    {
        "position": "-o.id",
        "id": "o.id::text",
        "device_id": "o.device_id",
        "device_name": "d.name",
        "user_principal_name": "d.upn",
        "action": _ACTION,
        "option": "CASE WHEN o.kind = 'unenroll' THEN '' ELSE o.data END",
        "state": "o.state",
        "request_id": "o.request_id::text",
        "ordered_by": "o.asked_by_name",
        "reason": "coalesce(r.reason, '')",
        "ordered_date_time": "o.created_at",
        "held_until_date_time": "o.held_until",
        "expires_date_time": "o.expires_at",
        "sent_date_time": "o.sent_at",
        "ended_date_time": "o.ended_at",
        "status_code": "o.code",
        "explanation": "o.why",
        "can_be_cancelled": "o.state IN ('approval', 'held', 'pending')",
    },
    key="position",
)

# Orders that nothing brings back, as they were asked for.
REQUESTS = Source(
    "sessions_request r",
    {
        "position": "r.asked_at",
        "id": "r.id::text",
        "action": _ACTION.replace("o.", "r."),
        "option": "CASE WHEN r.kind = 'unenroll' THEN '' ELSE r.data END",
        "reason": "r.reason",
        "requested_by_id": "r.asked_by",
        "requested_by": "r.asked_by_name",
        "requested_date_time": "r.asked_at",
        "device_count": "r.device_count",
        "user_count": "r.user_count",
        "state": "CASE WHEN r.decision <> '' THEN r.decision WHEN NOT r.needs_approval"
        " THEN 'notNeeded' WHEN EXISTS (SELECT 1 FROM sessions_order o WHERE o.request_id = r.id"
        " AND o.state = 'approval') THEN 'waiting' ELSE 'expired' END",
        "decided_by": "r.decided_by_name",
        "decided_date_time": "r.decided_at",
        "decision_reason": "r.decision_reason",
        "expires_date_time": "(SELECT max(o.expires_at) FROM sessions_order o"
        " WHERE o.request_id = r.id AND o.state = 'approval')",
        "held_until_date_time": "(SELECT max(o.held_until) FROM sessions_order o"
        " WHERE o.request_id = r.id AND o.state = 'held')",
        "can_be_cancelled": "EXISTS (SELECT 1 FROM sessions_order o WHERE o.request_id = r.id"
        " AND o.state IN ('approval', 'held', 'pending'))",
    },
)


async def devices_of_requests(
    tx: Tx, request_ids: Sequence[str]
) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """By request: id, name, user and state of each device, the first two hundred by name."""
    return await order_store.devices_of_requests(tx, request_ids)
