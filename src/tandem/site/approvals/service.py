"""Ask a second administrator, show what waits, and let one agree or nobody have it."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from tandem import audit
from tandem.infra.database import Tx
from tandem.site import collections
from tandem.site.approvals import store
from tandem.site.approvals.model import (
    NeedsReason,
    NoSuchRequest,
    NotTwoPeople,
    ReachesOthers,
    Request,
    Safeguards,
)

# What a request is about as it is by now, for whoever approves it.
Describe = Callable[[Tx, Request], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """`reaches` is how many members there are by now, and `seen` another value when they are others,
    or `about` is."""

    request: Request
    collection: str
    reaches: int
    about: Mapping[str, Any]
    seen: str


async def ask(
    tx: Tx,
    kind: str,
    name: str,
    subject: Mapping[str, Any],
    target: collections.Collection,
    *,
    reason: str,
    safeguards: Safeguards,
    actor: str,
    now: datetime,
) -> Request | None:
    """Let it wait for a second administrator; None where the members of `target` are so few that one
    is enough. The same again is what waits already. Raises NeedsReason."""
    devices = await collections.count(tx, target.id)
    if devices <= safeguards.approval_above:
        return None
    reason = reason.strip()
    if not reason or len(reason) > 1024:
        raise NeedsReason(
            f"This reaches {devices} members: a second administrator has to approve it, and needs a"
            " reason.",
            cure="Say why, in at most 1,024 characters (`--reason`), or take a smaller collection"
            " first.",
            field="reason",
            devices=devices,
        )
    for known in await store.requests(tx, kind, now):
        same = (known.asked_by, known.subject, known.collection_id)
        if same == (actor, subject, target.id):
            return known
    made = Request(
        str(uuid.uuid4()),
        kind,
        name,
        subject,
        target.id,
        reason,
        devices,
        actor,
        now,
        now + timedelta(hours=safeguards.approval_hours),
    )
    await store.insert(tx, made)
    details = {"collection": target.id, "devices": devices, "reason": reason}
    await audit.record(tx, actor=actor, action=f"{kind}.ask", target=name, now=now, details=details)
    return made


async def waiting(tx: Tx, kind: str, describe: Describe, now: datetime) -> list[Waiting]:
    """What of a kind waits, the oldest first."""
    return [await _shown(tx, one, describe) for one in await store.requests(tx, kind, now)]


async def _shown(tx: Tx, request: Request, describe: Describe) -> Waiting:
    about = await describe(tx, request)
    target = await collections.collection(tx, request.collection_id)
    members = await collections.fingerprint(tx, target.id)
    seen = sha256(members.encode() + msgspec.json.encode(about)).hexdigest()
    count = await collections.count(tx, target.id)
    return Waiting(request, target.name, count, about, seen)


async def approve(
    tx: Tx,
    kind: str,
    id: str,
    describe: Describe,
    *,
    devices: int,
    seen: str,
    actor: str,
    now: datetime,
) -> Request:
    """What is to be done now, in the name of who asked. `devices` and `seen` are as they were shown
    to who approves. Raises NoSuchRequest, NotTwoPeople, ReachesOthers."""
    asked = await _taken(tx, kind, id, now)
    if asked.asked_by == actor:
        raise NotTwoPeople(
            f"{asked.asked_by} asked for this: another administrator has to approve it.",
            cure="Ask another administrator, or appoint one: `tandem administrator add`.",
        )
    current = await _shown(tx, asked, describe)
    if (current.reaches, current.seen) != (devices, seen):
        raise ReachesOthers(
            "This reaches others by now, or was changed since it was shown to you.",
            cure="Look at it again, and approve it if you still agree.",
            devices=current.reaches,
        )
    details = {"asked_by": asked.asked_by, "devices": devices, "reason": asked.reason}
    await audit.record(
        tx, actor=actor, action=f"{kind}.agree", target=asked.name, now=now, details=details
    )
    return asked


async def cancel(tx: Tx, kind: str, id: str, *, actor: str, now: datetime) -> None:
    """Nobody gets it: by whoever asked, or by anybody who may do it. Raises NoSuchRequest."""
    asked = await _taken(tx, kind, id, now)
    await audit.record(
        tx,
        actor=actor,
        action=f"{kind}.cancel",
        target=asked.name,
        now=now,
        details={"asked_by": asked.asked_by},
    )


async def _taken(tx: Tx, kind: str, id: str, now: datetime) -> Request:
    found = await store.take(tx, kind, id, now)
    if found is None:
        raise NoSuchRequest(
            "No such deployment waits for approval.",
            cure="Somebody decided it, or its time is over: look at what waits.",
        )
    return found


def shape(item: Request) -> dict[str, Any]:
    """As the API answers it."""
    told = {name: value for name, value in collections.as_dict(item).items() if name != "subject"}
    return {**told, "state": "approval"}
