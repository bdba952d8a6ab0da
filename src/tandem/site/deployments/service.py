"""What the site deploys, and what of it is meant for a device."""

import uuid
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tandem import audit
from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site import administrators, clients, collections, notifications, traces
from tandem.site.administrators import Administrator
from tandem.site.approvals import Safeguards
from tandem.site.collections import MemberType
from tandem.site.deployments import store
from tandem.site.deployments.model import (
    Configuration,
    NameTaken,
    NeedsReason,
    NoSuchConfiguration,
    NoSuchRequest,
    NotTwoPeople,
    ReachesOthers,
    Request,
    check,
)
from tandem.workloads import Workload, is_secret, shown

# What it is called where scopes are given.
KIND = "configuration"


async def create(
    tx: Tx,
    name: str,
    *,
    setting: str,
    value: str,
    collection: str,
    workload: Workload = Workload.DEVICE_CONFIGURATION,
    actor: str,
    now: datetime,
) -> Configuration:
    """Deploy one setting to a collection of devices or of users. Raises BadConfiguration, NameTaken,
    NoSuchCollection."""
    check(name, setting, value, workload)
    target = await collections.collection(tx, collection)
    made = Configuration(str(uuid.uuid4()), name.strip(), workload, setting, value, target.id, now)
    if not await store.insert(tx, made):
        raise _taken(name)
    await notifications.policy_changed(tx, [target.id])
    trace = await _trace(tx, made, "create", actor, now)
    await audit.record(
        tx,
        actor=actor,
        action="configuration.create",
        target=made.name,
        now=now,
        details={
            "setting": setting,
            "value": shown(setting, value),
            "collection": target.id,
            "trace": trace,
        },
    )
    return made


@dataclass(frozen=True, slots=True)
class Reach:
    """For how many a deployment to a collection would be, and of whom there are how many: devices,
    or users where the collection is of these (`type`)."""

    collection: str
    devices: int
    all_devices: int
    needs_approval: bool
    type: MemberType = MemberType.DEVICE


async def reach(tx: Tx, collection: str, safeguards: Safeguards) -> Reach:
    """Raises NoSuchCollection."""
    target = await collections.collection(tx, collection)
    count = await collections.count(tx, target.id)
    of_users = target.type is MemberType.USER
    every = await (collections.count_users if of_users else collections.count_resources)(tx)
    return Reach(target.name, count, every, count > safeguards.approval_above, target.type)


async def deploy(
    tx: Tx,
    name: str,
    *,
    setting: str,
    value: str,
    collection: str,
    workload: Workload = Workload.DEVICE_CONFIGURATION,
    reason: str = "",
    safeguards: Safeguards,
    who: Administrator,
    now: datetime,
) -> Configuration | Request:
    """As `create`, at once or, for more devices or users than one administrator may reach alone, when a
    second one has approved it. Either way it has the scopes of who asks. Raises what `create` does,
    and NeedsReason."""
    found, actor = await reach(tx, collection, safeguards), who.name
    if not found.needs_approval:
        done = await create(
            tx,
            name,
            setting=setting,
            value=value,
            collection=collection,
            workload=workload,
            actor=actor,
            now=now,
        )
        await administrators.created(tx, KIND, done.id, administrators.inherited(who))
        return done
    check(name, setting, value, workload)
    if await store.named(tx, name.strip()):
        raise _taken(name)
    reason = reason.strip()
    if not reason or len(reason) > 1024:
        raise _needs_reason(found)
    target = await collections.collection(tx, collection)
    made = Request(
        str(uuid.uuid4()),
        name.strip(),
        workload,
        setting,
        value,
        target.id,
        reason,
        found.devices,
        actor,
        now,
        now + timedelta(hours=safeguards.approval_hours),
        administrators.inherited(who),
    )
    await store.insert_request(tx, made)
    details = {"setting": setting, "value": shown(setting, value), "collection": target.id}
    await audit.record(
        tx,
        actor=actor,
        action="configuration.ask",
        target=made.name,
        now=now,
        details={**details, "devices": made.devices, "reason": reason},
    )
    return made


def _needs_reason(found: Reach) -> NeedsReason:
    if found.type is MemberType.USER:
        return NeedsReason(
            f"This deployment reaches {found.devices} users: a second administrator has to approve"
            " it, and needs a reason.",
            cure="Say why, in at most 1,024 characters (`--reason`), or deploy to a smaller"
            " collection first.",
            field="reason",
            devices=found.devices,
        )
    return NeedsReason(
        f"This deployment reaches {found.devices} devices: a second administrator has to"
        " approve it, and needs a reason.",
        cure="Say why, in at most 1,024 characters (`--reason`), or deploy to a smaller"
        " collection first.",
        field="reason",
        devices=found.devices,
    )


def _reaches_another_number(type: MemberType, reached: int, devices: int) -> ReachesOthers:
    if type is MemberType.USER:
        return ReachesOthers(
            f"This deployment reaches {reached} users by now, not {devices}.",
            cure="Look at it again, and approve it if you still agree.",
            devices=reached,
        )
    return ReachesOthers(
        f"This deployment reaches {reached} devices by now, not {devices}.",
        cure="Look at it again, and approve it if you still agree.",
        devices=reached,
    )


async def waiting(
    tx: Tx, who: Administrator, safeguards: Safeguards, now: datetime
) -> list[tuple[Request, Reach, str]]:
    """Deployments that wait for a second administrator and that who asks may see, with how many
    they would reach by now, and a value that is another when it is others."""
    only = await collections.visible(tx)
    return [
        (
            item,
            await reach(tx, item.collection_id, safeguards),
            await collections.fingerprint(tx, item.collection_id),
        )
        for item in await store.requests(tx, now)
        if _sees(who, only, item)
    ]


def _sees(
    who: Administrator, only: frozenset[collections.CollectionId] | None, item: Request
) -> bool:
    shared = who.all_scopes or not set(who.scopes).isdisjoint(item.scopes)
    return shared and (only is None or item.collection_id in only)


async def approve(
    tx: Tx, id: str, *, devices: int, seen: str, who: Administrator, now: datetime
) -> Configuration:
    """Deploy what somebody else has asked for. `devices` is how many the one who approves saw that
    it reaches, and `seen` the value that was shown with it. Raises NoSuchRequest, NotTwoPeople, ReachesOthers, NameTaken."""
    asked, actor = await _taken_request(tx, id, who, now), who.name
    if asked.asked_by == actor:
        raise NotTwoPeople(
            f"{asked.asked_by} asked for this: another administrator has to approve it.",
            cure="Ask another administrator, or appoint one: `tandem administrator add`.",
        )
    target = await collections.collection(tx, asked.collection_id)
    reached = await collections.count(tx, target.id)
    if reached != devices:
        raise _reaches_another_number(target.type, reached, devices)
    if seen != await collections.fingerprint(tx, asked.collection_id):
        raise ReachesOthers(
            "This deployment reaches others by now, or its collection was changed.",
            cure="Look at it again (`tandem configuration waiting`), and approve it if you still"
            " agree.",
            devices=reached,
        )
    await audit.record(
        tx,
        actor=actor,
        action="configuration.approve",
        target=asked.name,
        now=now,
        details={"asked_by": asked.asked_by, "devices": reached, "reason": asked.reason},
    )
    made = await create(
        tx,
        asked.name,
        setting=asked.setting,
        value=asked.value,
        collection=asked.collection_id,
        workload=asked.workload,
        actor=asked.asked_by,
        now=now,
    )
    await administrators.created(tx, KIND, made.id, asked.scopes)
    return made


async def cancel(tx: Tx, id: str, *, who: Administrator, now: datetime) -> None:
    """Nobody gets it: by whoever asked, or by anybody who may deploy. Raises NoSuchRequest."""
    asked = await _taken_request(tx, id, who, now)
    await audit.record(
        tx,
        actor=who.name,
        action="configuration.cancel",
        target=asked.name,
        now=now,
        details={"asked_by": asked.asked_by},
    )


async def _taken_request(tx: Tx, id: str, who: Administrator, now: datetime) -> Request:
    """Raises NoSuchRequest, also for one that they may not see."""
    found = await store.take_request(tx, id, now)
    if found is None or not _sees(who, await collections.visible(tx), found):
        raise NoSuchRequest(
            "No such deployment waits for approval.",
            cure="Somebody decided it, or its time is over: `tandem configuration waiting`.",
        )
    return found


def _taken(name: str) -> NameTaken:
    return NameTaken(
        f"There is a configuration {name!r} already.", cure="Take another name.", field="name"
    )


async def find(tx: Tx, who: Administrator, wanted: str) -> Configuration:
    """By id or name. Raises NoSuchConfiguration, also for one that they may not see."""
    for item in await seen(tx, who):
        if item.id == wanted or item.name.lower() == wanted.lower():
            return item
    raise _missing(wanted)


async def delete(tx: Tx, wanted: str, *, actor: str, now: datetime) -> None:
    """Raises NoSuchConfiguration."""
    gone = await store.delete(tx, wanted, now)
    if gone is None:
        raise _missing(wanted)
    await administrators.gone(tx, KIND, gone.id)
    await notifications.policy_changed(tx, [gone.collection_id])
    trace = await _trace(tx, gone, "delete", actor, now)
    await audit.record(
        tx,
        actor=actor,
        action="configuration.delete",
        target=gone.name,
        now=now,
        details={"trace": trace},
    )


async def _trace(
    tx: Tx, item: Configuration, action: str, actor: str, now: datetime
) -> traces.TraceId:
    return await traces.begin(
        tx,
        traces.Kind.CONFIGURATION,
        actor=actor,
        collections=[item.collection_id],
        details={"action": action, "name": item.name, "workload": item.workload.value},
        now=now,
    )


def _missing(wanted: str) -> NoSuchConfiguration:
    return NoSuchConfiguration(
        f"There is no configuration {wanted!r}.", cure="List them: `tandem configuration list`."
    )


async def configurations(tx: Tx) -> list[Configuration]:
    return await store.configurations(tx)


async def named(tx: Tx) -> list[tuple[str, str]]:
    """Id and name of each, for whoever gives them scopes."""
    return [(item.id, item.name) for item in await store.configurations(tx)]


@dataclass(frozen=True, slots=True)
class Deployed:
    """A configuration with its collection: on how many clients its value is in force, and on how
    many the MDM service has set the same thing. Of one for users (`type`), `members` are users, and
    the clients are those on which one of them is signed in."""

    configuration: Configuration
    collection: str
    members: int
    applied: int
    with_mdm: int
    type: MemberType = MemberType.DEVICE


async def seen(tx: Tx, who: Administrator) -> list[Configuration]:
    """Those that share a scope with an administrator, and a collection that they see."""
    only = await collections.visible(tx)
    every = [
        item
        for item in await store.configurations(tx)
        if only is None or item.collection_id in only
    ]
    shared = await administrators.visible(tx, who, KIND, [item.id for item in every])
    return [item for item in every if item.id in shared]


async def visible(tx: Tx) -> set[str] | None:
    """The ids of those that who asks may see; None: all of them."""
    who = administrators.asking()
    return None if who is None or who.over_all else {item.id for item in await seen(tx, who)}


async def deployed(tx: Tx, who: Administrator) -> list[Deployed]:
    """The configurations that an administrator sees, and how far each has come by the clients' own
    account."""
    found = []
    for item in await seen(tx, who):
        target = await collections.collection(tx, item.collection_id)
        held = await clients.in_force(tx, item.setting)
        if target.type is MemberType.USER:
            count = await collections.count(tx, target.id)
            applied = sum(one.configuration == item.id for one in held.values())
            found.append(Deployed(item, target.name, count, applied, 0, target.type))
            continue
        members = await collections.client_ids(tx, target.id)
        mine = [held[id] for id in members if id in held]
        applied = sum(_is_in_force(item, one) for one in mine)
        with_mdm = sum(one.source == "mdm" for one in mine)
        found.append(Deployed(item, target.name, len(members), applied, with_mdm))
    return found


def _is_in_force(item: Configuration, held: clients.InForce) -> bool:
    if held.source != "site":
        return False
    # Of a secret nobody says the value; two configurations may say the same where it is none.
    same = held.value == item.value and not is_secret(item.setting, item.value)
    return same or held.configuration == item.id


async def holding(
    tx: Tx, resource_id: int, type: MemberType = MemberType.DEVICE
) -> list[Configuration]:
    """What is deployed to a device, or to a user. Of two that set the same, the older one holds."""
    return held(*await _among(tx, resource_id, type))


async def reaching(
    tx: Tx, resource_id: int, type: MemberType = MemberType.DEVICE
) -> list[Configuration]:
    """All that is deployed to a device, or to a user, the oldest first."""
    every, of = await _among(tx, resource_id, type)
    return [item for item in every if item.collection_id in of]


async def _among(
    tx: Tx, resource_id: int, type: MemberType
) -> tuple[list[Configuration], set[collections.CollectionId]]:
    every = await store.configurations(tx)
    named = [item.collection_id for item in every]
    return every, await collections.memberships(tx, named, resource_id, type)


def held(
    every: Sequence[Configuration], of: Container[collections.CollectionId]
) -> list[Configuration]:
    """What is deployed to a device, or a user, in these collections. `every` is oldest first."""
    found: dict[str, Configuration] = {}
    for item in every:
        if item.collection_id in of:
            found.setdefault(item.setting, item)
    return list(found.values())


def in_policy(held: Sequence[Configuration]) -> list[ccm.Configuration]:
    """What is deployed, as policy has it."""
    return [
        ccm.Configuration(item.id, item.workload.value, item.setting, item.value) for item in held
    ]


async def used_for(tx: Tx, id: collections.CollectionId) -> list[collections.Use]:
    """What is deployed to a collection."""
    only = await visible(tx)
    return [
        collections.Use(
            "configuration",
            item.name,
            f"{item.setting} = {shown(item.setting, item.value)}",
            seen=only is None or item.id in only,
        )
        for item in await store.configurations(tx)
        if item.collection_id == id
    ]
