from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx

Outcome = Literal["done", "refused"]

_GENESIS = bytes(32)
# One writer at a time: the chain has one end.
_LOCK = 4_120_771


class Entry(msgspec.Struct, frozen=True):
    id: int
    at: datetime
    actor: str
    action: str
    target: str
    outcome: str
    details: dict[str, Any]


class Broken(msgspec.Struct, frozen=True):
    """The first entry that does not follow from the one before."""

    id: int


def digest(entry: Entry, previous: bytes) -> bytes:
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    fields = [
        entry.id,
        at,
        entry.actor,
        entry.action,
        entry.target,
        entry.outcome,
        _sorted(entry.details),
    ]
    return sha256(previous + msgspec.json.encode(fields)).digest()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


async def record(
    tx: Tx,
    *,
    actor: str,
    action: str,
    target: str,
    now: datetime,
    outcome: Outcome = "done",
    details: dict[str, Any] | None = None,
) -> None:
    """Append one entry in the transaction of what it tells. Details hold no secret."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    cursor = await tx.execute("SELECT id, digest FROM audit_entry ORDER BY id DESC LIMIT 1")
    last = await cursor.fetchone()
    previous = bytes(last["digest"]) if last else _GENESIS
    number = last["id"] + 1 if last else 1
    # Numbers and times are stored as JSON and back: hash what will be read.
    plain = msgspec.json.decode(msgspec.json.encode(details or {}, enc_hook=str))
    entry = Entry(number, now, actor, action, target, outcome, plain)
    await tx.execute(
        "INSERT INTO audit_entry"
        " (id, at, actor, action, target, outcome, details, previous, digest)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            entry.id,
            entry.at,
            actor,
            action,
            target,
            outcome,
            Jsonb(plain),
            previous,
            digest(entry, previous),
        ),
    )


async def entries(tx: Tx, *, target: str | None = None, limit: int = 100) -> list[Entry]:
    """The newest entries, newest first."""
    cursor = await tx.execute(
        "SELECT id, at, actor, action, target, outcome, details FROM audit_entry"
        " WHERE %(target)s::text IS NULL OR target = %(target)s"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"target": target, "limit": limit},
    )
    return [Entry(**row) for row in await cursor.fetchall()]


async def verify(tx: Tx) -> Broken | None:
    """Walk the whole chain. None means that every entry follows from the one before."""
    previous, expected = _GENESIS, 1
    cursor = await tx.execute("SELECT * FROM audit_entry ORDER BY id")
    async for row in cursor:
        stored, before = bytes(row.pop("digest")), bytes(row.pop("previous"))
        entry = Entry(**row)
        if entry.id != expected or before != previous or digest(entry, before) != stored:
            return Broken(entry.id)
        previous, expected = stored, expected + 1
    return None
