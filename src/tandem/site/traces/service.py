"""Causes as they happen, and which of them a device's new policy follows."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tandem.infra.database import Tx
from tandem.site.traces import store
from tandem.site.traces.model import Cause, Followed, Given, Kind, TraceId, new_trace_id

# Several may have happened since a device last asked; a person reads no more of them.
_MOST = 20
# A cause that was decided just before a device was given its policy may have been committed just
# after: it is still what the next one follows.
_OVERLAP = timedelta(seconds=5)


async def begin(
    tx: Tx,
    kind: Kind,
    *,
    actor: str,
    collections: Iterable[str],
    details: Mapping[str, Any],
    now: datetime,
) -> TraceId:
    """Something that changes the policy of these collections' members was decided."""
    cause = Cause(new_trace_id(), now, kind, actor, tuple(sorted(set(collections))), details)
    await store.insert(tx, cause)
    return cause.id


async def since(tx: Tx, last: Given | None, name: str, collections: Sequence[str]) -> list[Cause]:
    """What was decided for members of these collections since a device was given its policy, the
    newest first. A change that names devices concerns those."""
    if last is None:
        return []
    found = await store.since(tx, last.at - _OVERLAP, name, collections, _MOST)
    return [cause for cause in found if cause.id != last.cause.id]


async def follow(
    tx: Tx,
    client_id: str,
    last: Given | None,
    *,
    digest: str,
    name: str,
    collections: Sequence[str],
    upstream: Sequence[str],
    member_since: Callable[[], Awaitable[Mapping[str, datetime]]],
    now: datetime,
) -> Followed:
    """A device's policy differs from the one it was given: what it follows.

    `collections` are those that its policy comes of now; `upstream` all that decide who is or was
    in them; `member_since` when it came into them, as far as that is known.
    """
    found = [_to_one(cause) for cause in await since(tx, last, name, upstream)]
    before, after = set(last.collections) if last else set(), set(collections)
    came, left = sorted(after - before), sorted(before - after)
    if last is None:
        cause = Cause(new_trace_id(), now, Kind.REGISTERED)
    elif not found or (came and _came_by_itself(came, found, await member_since())):
        cause = Cause(new_trace_id(), now, Kind.DEVICE)
    else:
        cause = found[0]
    await store.save_given(tx, client_id, Given(cause, now, tuple(sorted(collections)), digest))
    return Followed(cause, [one for one in found if one.id != cause.id], came, left)


def _to_one(cause: Cause) -> Cause:
    """As one device is told of it: whom it concerns besides is not its own, and may be thousands."""
    details = {name: value for name, value in cause.details.items() if name != "devices"}
    return replace(cause, details=details)


def _came_by_itself(
    came: Sequence[str], found: Sequence[Cause], member_since: Mapping[str, datetime]
) -> bool:
    """Whether it came into a collection after all that was decided, and nobody changed one."""
    if any(cause.kind is Kind.COLLECTION for cause in found):
        return False
    return any(id not in member_since or member_since[id] > found[0].at for id in came)


async def forget(tx: Tx, before: datetime) -> int:
    """Drop what was decided before: a device that was away longer follows nothing that is told.
    What devices were given keeps a copy of its cause. Returns how many went."""
    return await store.forget(tx, before)


async def given(tx: Tx, client_id: str) -> Given | None:
    """What the newest policy of a device follows."""
    return await store.given(tx, client_id)
