"""Updates and what is decided about them; the list of a client; what clients say."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.logs import get_logger
from tandem.protocols import ccm
from tandem.site import approvals, clients, collections
from tandem.site.software_updates import importing, store
from tandem.site.software_updates.model import (
    LIST_DAYS,
    BadDecision,
    Choice,
    Circular,
    Counts,
    Decision,
    NoSuchDecision,
    NoSuchUpdate,
    OnDevice,
    Point,
    Scan,
    State,
    TooManyUpdates,
    Update,
    UpdateExists,
    Wanted,
    check,
)

log = get_logger("software-updates")

# What waits for a second administrator is of this kind.
KIND = "software-update"
# A deadline further away than this is a slip of the pen.
_FURTHEST = timedelta(days=3 * 365)
_ASKED_EVERY = timedelta(minutes=5)
_STATES = {
    (ccm.DETECTION_TOPIC, ccm.NOT_REQUIRED): State.NOT_APPLICABLE,
    (ccm.DETECTION_TOPIC, ccm.REQUIRED): State.REQUIRED,
    (ccm.DETECTION_TOPIC, ccm.INSTALLED): State.INSTALLED,
    (ccm.ENFORCEMENT_TOPIC, ccm.INSTALL_FAILED): State.FAILED,
}
_SCANS = {ccm.SCAN_COMPLETED: "completed", ccm.SCAN_FAILED: "failed"}


# The point.


async def point(tx: Tx) -> Point:
    return await store.point(tx)


async def allow(tx: Tx, allowed: bool, *, actor: str, now: datetime) -> None:
    """The software update point's "Allow … cloud management gateway traffic"."""
    if (await store.point(tx)).allowed == allowed:
        return
    await store.allow(tx, allowed, actor, now)
    action = "allow-gateway" if allowed else "deny-gateway"
    await audit.record(
        tx,
        actor=actor,
        action=f"software-update-point.{action}",
        target="software update point",
        now=now,
    )


# Updates.


async def create(tx: Tx, wanted: Wanted, *, actor: str, now: datetime) -> Update:
    """Raises BadUpdate, UpdateExists, Circular."""
    wanted = check(wanted)
    told = {name: getattr(wanted, name) for name in wanted.__struct_fields__}
    made = Update(id=str(uuid.uuid4()), created_at=now, created_by=actor, changed_at=now, **told)
    if not await store.insert(tx, made):
        where = f" in {made.release}" if made.release else ""
        raise UpdateExists(
            f"There is an update {made.article} of {made.package}{where} already.",
            cure="Change it by importing it again, or delete it first.",
            field="article",
        )
    await _check_circles(tx, [wanted])
    await audit.record(
        tx,
        actor=actor,
        action="software-update.create",
        target=made.name,
        now=now,
        details={"package": made.package, "fixed_version": made.fixed_version},
    )
    return made


class Imported(msgspec.Struct, frozen=True):
    """`updates` are the ids of what is new or changed; `same` is how many were there as they are."""

    updates: list[str]
    created: int
    changed: int
    same: int


async def take_file(
    tx: Tx, format: importing.Format, content: str, release: str, *, actor: str, now: datetime
) -> Imported:
    """All updates of a file, or none. Raises BadFile, Circular."""
    found = importing.read(format, content, release.strip())
    created, changed, same, ids = 0, 0, 0, list[str]()
    for wanted in found:
        new = str(uuid.uuid4())
        id, differs = await store.save(tx, new, wanted, actor, now)
        if differs:
            ids.append(id)
        created += id == new
        changed += differs and id != new
        same += not differs
    await _check_circles(tx, found)
    await audit.record(
        tx,
        actor=actor,
        action="software-update.import",
        target=format,
        now=now,
        details={
            "created": created,
            "changed": changed,
            "same": same,
            "sha256": sha256(content.encode("utf-8", "surrogatepass")).hexdigest(),
        },
    )
    return Imported(ids, created, changed, same)


async def _check_circles(tx: Tx, wanted: Sequence[Wanted]) -> None:
    """Of updates that take one another's place nobody would get any. Raises Circular."""
    if not any(one.superseded_by for one in wanted):
        return
    by = await store.superseding(tx, sorted({one.package for one in wanted if one.superseded_by}))
    good: set[tuple[str, str, str]] = set()
    for start in by:
        package, release, article = start
        # In the order in which they follow; each chain is walked once.
        seen = {article: None}
        step = article
        while (package, release, step) not in good:
            following = by.get((package, release, step))
            if following is None:
                break
            if following in seen:
                told = " → ".join([*seen, following]).upper()
                raise Circular(
                    f"Updates of {package} supersede one another: {told}.",
                    cure="Correct superseded_by: it names the newer update.",
                    field="superseded_by",
                )
            seen[following] = None
            step = following
        good |= {(package, release, one) for one in seen}


async def find(tx: Tx, wanted: str) -> Update:
    """By id, or by an article that only one update has. Raises NoSuchUpdate."""
    found = await store.update(tx, wanted)
    if found is None:
        raise NoSuchUpdate(
            f"There is no update {wanted[:128]!r}, or several have this article.",
            cure="List them: `tandem software-update list --search ARTICLE`; name its id.",
        )
    return found


class Listed(msgspec.Struct, frozen=True):
    update: Update
    decisions: list[Decision]
    counts: Counts


async def listed(
    tx: Tx, search: str, filter: Mapping[str, str], limit: int, offset: int
) -> tuple[list[Listed], int]:
    page, total = await store.updates(tx, search, filter, limit, offset)
    ids = [one.id for one in page]
    decided: dict[str, list[Decision]] = {}
    for one in await store.decisions(tx, ids):
        decided.setdefault(one.update_id, []).append(one)
    counted = await _counts(tx, list(decided))
    return [
        Listed(one, decided.get(one.id, []), counted.get(one.id, Counts())) for one in page
    ], total


async def delete(tx: Tx, wanted: str, *, actor: str, now: datetime) -> None:
    """It is offered no more; what is installed stays. Raises NoSuchUpdate."""
    found = await find(tx, wanted)
    await store.delete(tx, found.id)
    await audit.record(tx, actor=actor, action="software-update.delete", target=found.name, now=now)


# Decisions.


class Reach(msgspec.Struct, frozen=True):
    collection: str
    devices: int
    needs_approval: bool


async def reach(tx: Tx, collection: str, safeguards: approvals.Safeguards) -> Reach:
    """Raises NoSuchCollection, WrongType."""
    target = await collections.device_collection(tx, collection)
    devices = await collections.count(tx, target.id)
    return Reach(target.name, devices, devices > safeguards.approval_above)


async def propose(
    tx: Tx,
    wanted: Sequence[str],
    collection: str,
    choice: Choice,
    deadline: datetime | None,
    *,
    reason: str = "",
    safeguards: approvals.Safeguards,
    actor: str,
    now: datetime,
) -> list[Decision] | approvals.Request:
    """As `decide`, at once or, when updates are approved for more devices than one administrator may
    reach alone, when a second one agrees. Raises what `decide` does, and NeedsReason."""
    found, target = await _checked(tx, wanted, collection, choice, deadline, now)
    if choice is Choice.APPROVED:
        first, more = found[0].name, len(found) - 1
        subject = {
            "updates": sorted(one.id for one in found),
            "deadline": deadline.isoformat() if deadline else None,
        }
        asked = await approvals.ask(
            tx,
            KIND,
            f"{first} (+{more})" if more else first,
            subject,
            target,
            reason=reason,
            safeguards=safeguards,
            actor=actor,
            now=now,
        )
        if asked is not None:
            return asked
    return await decide(tx, wanted, collection, choice, deadline, actor=actor, now=now)


async def described(tx: Tx, asked: approvals.Request) -> dict[str, Any]:
    """What a second administrator agrees to: the updates as they are by now."""
    return {
        "updates": await store.some(tx, asked.subject["updates"]),
        "deadline": asked.subject["deadline"],
    }


async def approved(tx: Tx, asked: approvals.Request, now: datetime) -> list[Decision]:
    """Do what was asked for. Raises what `decide` does."""
    deadline = asked.subject["deadline"]
    return await decide(
        tx,
        asked.subject["updates"],
        asked.collection_id,
        Choice.APPROVED,
        datetime.fromisoformat(deadline) if deadline else None,
        actor=asked.asked_by,
        now=now,
    )


async def decide(
    tx: Tx,
    wanted: Sequence[str],
    collection: str,
    choice: Choice,
    deadline: datetime | None,
    *,
    actor: str,
    now: datetime,
) -> list[Decision]:
    """Approve updates for a collection, or decline them. Raises NoSuchUpdate, NoSuchCollection,
    WrongType, BadDecision, TooManyUpdates."""
    found, target = await _checked(tx, wanted, collection, choice, deadline, now)
    await store.decide(tx, [one.id for one in found], target.id, choice.value, deadline, actor, now)
    if choice is Choice.APPROVED:
        approved = await store.approved_for(tx, [target.id])
        if len(approved) > ccm.LIST_LIMIT:
            raise TooManyUpdates(
                f"{len(approved)} updates would be approved for {target.name}; a list has at most"
                f" {ccm.LIST_LIMIT}.",
                cure="Decline or withdraw what is superseded, or approve fewer.",
                field="updates",
            )
    action = "approve" if choice is Choice.APPROVED else "decline"
    for one in found:
        await audit.record(
            tx,
            actor=actor,
            action=f"software-update.{action}",
            target=one.name,
            now=now,
            details={
                "collection": target.id,
                "deadline": deadline.isoformat() if deadline else "",
            },
        )
    made = await store.decisions(tx, [one.id for one in found])
    return [one for one in made if one.collection_id == target.id]


async def _checked(
    tx: Tx,
    wanted: Sequence[str],
    collection: str,
    choice: Choice,
    deadline: datetime | None,
    now: datetime,
) -> tuple[list[Update], collections.Collection]:
    if not wanted:
        raise BadDecision("Name at least one update.", field="updates")
    if deadline is not None and choice is Choice.DECLINED:
        raise BadDecision(
            "What is declined has no deadline.", cure="Leave the deadline out.", field="deadline"
        )
    if deadline is not None and (deadline.tzinfo is None or deadline > now + _FURTHEST):
        raise BadDecision(
            "A deadline is a moment with its time zone, within three years.",
            cure="Write it like 2026-12-01T18:00:00Z.",
            field="deadline",
        )
    target = await collections.device_collection(tx, collection)
    # One update may be named by its id and by its article.
    found = {one.id: one for one in [await find(tx, name) for name in wanted]}
    return list(found.values()), target


async def withdraw(tx: Tx, wanted: str, collection: str, *, actor: str, now: datetime) -> None:
    """Nothing is decided for this collection any more. Raises NoSuchUpdate, NoSuchDecision."""
    found = await find(tx, wanted)
    decided = await store.decisions(tx, [found.id])
    folded = collection.strip().casefold()
    mine = [
        one
        for one in decided
        if folded in (one.collection_id.casefold(), one.collection.casefold())
    ]
    if not mine or not await store.withdraw(tx, found.id, mine[0].collection_id):
        raise NoSuchDecision(
            f"Nothing is decided about {found.article} for {collection[:128]!r}.",
            cure="Look at the update: it names the collections.",
        )
    await audit.record(
        tx,
        actor=actor,
        action="software-update.withdraw",
        target=found.name,
        now=now,
        details={"collection": mine[0].collection_id, "was": mine[0].decision},
    )


async def used_for(tx: Tx, id: collections.CollectionId) -> list[collections.Use]:
    """The updates that are approved for a collection, or declined."""
    return [
        collections.Use(
            "software-update", name, decision, reaches=decision == Choice.APPROVED.value
        )
        for name, decision in await store.decided_for(tx, id)
    ]


# What a client is offered.


async def offered(tx: Tx, client_id: str) -> list[ccm.ApprovedUpdate]:
    """What is approved for this client now, without what something else takes the place of."""
    try:
        resource = await collections.resource_of(tx, client_id)
    except collections.NoSuchResource:
        return []
    ids = [collections.CollectionId(id) for id in await store.collections_decided(tx)]
    of = await collections.memberships(tx, ids, resource.id)
    approved = await store.approved_for(tx, sorted(of))
    there = {(one.package, one.release, one.article.lower()) for one, _ in approved}
    return [
        ccm.ApprovedUpdate(
            id=one.id,
            name=one.name,
            package=one.package,
            fixed_version=one.fixed_version,
            source=one.source,
            release=one.release,
            classification=one.classification,
            severity=one.severity,
            article=one.article,
            deadline=deadline,
            url=one.url,
            sha256=one.sha256,
        )
        for one, deadline in approved
        if (one.package, one.release, one.superseded_by.lower()) not in there
    ][: ccm.LIST_LIMIT]


class SealedList(msgspec.Struct, frozen=True):
    """`document` is None when the client has it already."""

    etag: str
    document: ccm.UpdateList | None


async def list_for(tx: Tx, client: clients.Client, have: str, now: datetime) -> SealedList:
    """The client's list, or word that the one it has is still right. As of policy, the ETag changes
    at half of the list's life."""
    await store.asked(tx, client.id, now, now - _ASKED_EVERY)
    found = await offered(tx, client.id)
    life = timedelta(days=LIST_DAYS)
    half = int(now.timestamp() // (life.total_seconds() / 2))
    digest = sha256(msgspec.json.encode(found)).hexdigest()
    subject = f"{client.id}/{client.thumbprint}/{half}/{digest}"
    etag = f'"{sha256(subject.encode()).hexdigest()[:32]}"'
    if have == etag:
        return SealedList(etag, None)
    return SealedList(etag, ccm.UpdateList(client.id, now, now + life, found))


# What clients say.


async def take(tx: Tx, client: clients.Client, message: ccm.Message, now: datetime) -> None:
    """Keep what a client says of updates and scans. What cannot be read is in its timeline, and does
    not hold up what comes after it."""
    # A device whose clock is ahead must not outrank its own later reports.
    at = min(message.at, now)
    try:
        if message.topic == ccm.SCAN_TOPIC and message.state in _SCANS:
            said = msgspec.convert(message.data, ccm.ScanResult)
            await store.keep_scan(tx, client.id, _SCANS[message.state], said, at)
        elif (message.topic, message.state) in _STATES:
            facts = msgspec.convert(message.data, ccm.UpdateFacts)
            state = _STATES[message.topic, message.state]
            await store.keep_states(tx, client.id, state.value, facts, at)
    except msgspec.ValidationError as error:
        log.warning("unreadable update states", client=client.id, reason=str(error))


# Compliance.


async def _members(tx: Tx, about: Sequence[str] | None = None) -> tuple[str, dict[str, Any]]:
    """Of all collections for which something is decided; `about`: about one of these updates."""
    decided = await store.collections_decided(tx, about)
    return await collections.memberships_sql(tx, [collections.CollectionId(id) for id in decided])


async def _counts(tx: Tx, ids: Sequence[str]) -> dict[str, Counts]:
    if not ids:
        return {}
    about = await store.with_superseding(tx, ids)
    members, values = await _members(tx, about)
    return await store.counts(tx, members, values, ids, about)


class Shown(msgspec.Struct, frozen=True):
    update: Update
    decisions: list[Decision]
    counts: Counts
    devices: list[OnDevice]
    supersedes: list[str] = []


async def show(tx: Tx, wanted: str, state: str, limit: int, offset: int) -> Shown:
    """An update, what is decided about it, and how it stands on each device. Raises NoSuchUpdate."""
    found = await find(tx, wanted)
    about = await store.with_superseding(tx, [found.id])
    members, values = await _members(tx, about)
    counted = await store.counts(tx, members, values, [found.id], about)
    devices = await store.on_devices(
        tx,
        members,
        values,
        about=about,
        update_id=found.id,
        state=state,
        limit=limit,
        offset=offset,
    )
    decided = await store.decisions(tx, [found.id])
    return Shown(found, decided, counted.get(found.id, Counts()), devices)


class DeviceUpdates(msgspec.Struct, frozen=True):
    client_id: str
    device: str
    scan: Scan | None
    counts: Counts
    updates: list[dict[str, Any]]


async def of_device(tx: Tx, wanted: str, state: str, limit: int, offset: int) -> DeviceUpdates:
    """What is approved for a device, and how it stands there. Raises NoSuchResource."""
    resource = await collections.resource(tx, wanted)
    ids = [collections.CollectionId(id) for id in await store.collections_decided(tx)]
    of = await collections.memberships(tx, ids, resource.id)
    every = await store.on_devices(
        tx,
        "SELECT unnest(%(of)s::text[]) AS collection_id, %(device)s::bigint AS resource_id",
        {"of": sorted(of), "device": resource.id},
        limit=10 * ccm.LIST_LIMIT,
        offset=0,
    )
    counted: dict[str, int] = {}
    for one in every:
        name = State(one.state).name.lower()
        counted[name] = counted.get(name, 0) + 1
    chosen = [one for one in every if state in ("", one.state)][offset : offset + limit]
    told = {one.id: one for one in await store.some(tx, [one.update_id for one in chosen])}
    return DeviceUpdates(
        resource.client_id,
        resource.name,
        await store.scan(tx, resource.client_id),
        Counts(**counted),
        [
            {
                "update": told[one.update_id],
                "state": one.state,
                "deadline": one.deadline,
                "version": one.version,
                "code": one.code,
                "text": one.text,
                "at": one.at,
            }
            for one in chosen
            if one.update_id in told
        ],
    )


async def devices(tx: Tx, state: str, limit: int, offset: int) -> list[dict[str, Any]]:
    members, values = await _members(tx)
    return await store.counts_by_device(tx, members, values, limit, offset, state)
