"""Asking devices to do something now, and hearing what became of it."""

import uuid
from collections.abc import Iterable
from datetime import datetime

import msgspec

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.logs import get_logger
from tandem.protocols import ccm
from tandem.site import clients, collections
from tandem.site.notifications import store
from tandem.site.notifications.model import (
    DEFAULT_MINUTES,
    HISTORY,
    INACTIVE_AFTER,
    OFFLINE_AFTER,
    Activity,
    AlreadyOver,
    ChannelState,
    CountChanged,
    NobodyThere,
    NoSuchOperation,
    Operation,
    OrderState,
    Reach,
    Result,
    action,
    check_life,
)

log = get_logger("notifications")


async def create(
    tx: Tx,
    wanted: str,
    *,
    client: str = "",
    collection: str = "",
    minutes: float = DEFAULT_MINUTES,
    expected: int | None = None,
    actor: str,
    now: datetime,
) -> Operation:
    """Ask one client, or all members that a collection has now.

    Devices that are offline have it when they come, until it expires. `expected` is the number of
    devices that was agreed to; what interrupts people on a collection is not done without.

    Raises UnknownAction, BadLife, NoSuchClient, NoSuchCollection, NobodyThere, CountChanged.
    """
    todo, life = action(wanted), check_life(minutes)
    members, target, collection_id, client_id = await _target(tx, client, collection)
    reached, _ = await store.reachable(tx, members, now)
    if not reached:
        raise NobodyThere(
            f"{target} has no client that could be asked.",
            cure="Blocked clients are asked nothing; unblock them, or take other devices.",
        )
    if (expected is not None or (todo.disruptive and collection)) and expected != reached:
        raise CountChanged(
            f"{todo.title} would reach {reached} devices of {target}.",
            cure=f"If that is what you want, say so: ask again with expected {reached}.",
            devices=reached,
        )
    made = Operation(
        id=str(uuid.uuid4()),
        action=todo.id,
        target=target,
        collection_id=collection_id,
        client_id=client_id,
        devices=reached,
        created_at=now,
        created_by=actor,
        expires_at=now + life,
    )
    devices = await store.add(tx, made, members)
    await store.forget(tx, now - HISTORY)
    await audit.record(
        tx,
        actor=actor,
        action="client-notification.create",
        target=target,
        now=now,
        details={"operation": made.id, "action": todo.id, "devices": devices},
    )
    await store.nudge(tx, made.id)
    return await find(tx, made.id, now=now)


async def policy_changed(tx: Tx, collection_ids: Iterable[str]) -> None:
    """Devices of these collections, and those on which a user of one of them is signed in, ask for
    their policy in the next seconds when they are online. Nothing is written of it: who is away asks at
    its next poll."""
    for id in sorted(set(collection_ids)):
        await store.policy_changed(tx, id)


async def _target(tx: Tx, client: str, collection: str) -> tuple[list[str], str, str, str]:
    """The clients, what they are called together, and the id of the collection or of the client."""
    if collection:
        of = await collections.collection(tx, collection)
        return sorted(await collections.client_ids(tx, of.id)), of.name, str(of.id), ""
    found = await clients.find(tx, client)
    return [found.id], found.name, "", str(found.id)


async def reach(tx: Tx, *, client: str = "", collection: str = "", now: datetime) -> Reach:
    """Raises NoSuchClient, NoSuchCollection."""
    members, target, _, _ = await _target(tx, client, collection)
    devices, online = await store.reachable(tx, members, now - OFFLINE_AFTER)
    return Reach(target, devices, online)


async def cancel(tx: Tx, operation_id: str, *, actor: str, now: datetime) -> Operation:
    """Devices that have not taken it do not get it any more. Raises NoSuchOperation, AlreadyOver."""
    before = await find(tx, operation_id, now=now)
    if before.canceled_at is not None or before.over:
        raise AlreadyOver(
            "This operation is over: every device has taken it, or it has expired.",
            cure="Nothing is left to be cancelled.",
        )
    stopped = await store.cancel(tx, before.id, actor, now)
    await audit.record(
        tx,
        actor=actor,
        action="client-notification.cancel",
        target=before.target,
        now=now,
        details={"operation": before.id, "action": before.action, "devices": stopped},
    )
    return await find(tx, before.id, now=now)


async def find(tx: Tx, operation_id: str, *, now: datetime) -> Operation:
    """Raises NoSuchOperation, also for one for devices that who asks may not see."""
    found = await store.operations(tx, now, 1, 0, operation_id, await _within(tx))
    if not found:
        raise NoSuchOperation(
            f"There is no operation {operation_id[:64]!r}.",
            cure="They are kept for 31 days; `tandem notify list` shows them.",
        )
    return found[0]


async def listed(
    tx: Tx, *, now: datetime, limit: int = 100, offset: int = 0
) -> tuple[list[Operation], int]:
    """The newest first, and how many there are, of those that who asks may see."""
    within = await _within(tx)
    found = await store.operations(tx, now, limit, offset, within=within)
    return found, await store.count(tx, within)


async def _within(tx: Tx) -> store.Within | None:
    """The collections and clients whose operations are seen; None: all of them."""
    only, devices = await collections.visible(tx), await collections.visible_devices_sql(tx)
    return None if only is None or devices is None else (sorted(only), *devices)


async def results(
    tx: Tx, operation_id: str, *, now: datetime, state: str = "", limit: int = 200, offset: int = 0
) -> list[Result]:
    """Of the devices that who asks may see."""
    within = await _within(tx)
    return await store.results(tx, operation_id, now, state, limit, offset, within)


async def orders_of(tx: Tx, client_id: str, *, now: datetime, limit: int = 20) -> list[Result]:
    """What a device was asked to do lately, the newest first."""
    return await store.orders_of(tx, client_id, now, limit)


async def channel_of(tx: Tx, client_id: str, *, now: datetime) -> ChannelState:
    return await store.channel(tx, client_id, now - OFFLINE_AFTER)


async def activity(tx: Tx, client_id: str, *, now: datetime) -> Activity:
    """Raises NoSuchClient."""
    client = await clients.find(tx, client_id)
    newest = await clients.newest_of_topics(
        tx, client.tenant_id, client.device_id, (ccm.HEARTBEAT_TOPIC, ccm.INVENTORY_TOPIC)
    )
    heartbeat, inventory = newest.get(ccm.HEARTBEAT_TOPIC), newest.get(ccm.INVENTORY_TOPIC)
    done = (client.policy_at, heartbeat, inventory, client.state_at, client.last_seen_at)
    return Activity(
        active=any(at is not None and at > now - INACTIVE_AFTER for at in done),
        policy_at=client.policy_at,
        heartbeat_at=heartbeat,
        inventory_at=inventory,
        state_at=client.state_at,
        seen_at=client.last_seen_at,
    )


async def take_result(tx: Tx, client: clients.Client, message: ccm.Message, now: datetime) -> None:
    """What a device says became of an order. One that cannot be read is left in its timeline."""
    states = {ccm.ORDER_DONE: OrderState.DONE, ccm.ORDER_FAILED: OrderState.FAILED}
    state = states.get(message.state)
    try:
        result = msgspec.convert(message.data, ccm.OrderResult)
    except msgspec.ValidationError as error:
        log.warning("unreadable result", client=client.id, reason=str(error))
        return
    if state is None or not await store.end(
        tx, client.id, result, state.value, min(message.at, now)
    ):
        log.info("a result that nobody waits for", client=client.id, order=result.order)
