"""News between modules: recorded in the transaction of the change, read by whoever cares."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx


class Event(msgspec.Struct, frozen=True):
    id: int
    at: datetime
    kind: str
    subject: str
    data: dict[str, Any]


async def record(tx: Tx, kind: str, subject: str, data: dict[str, Any]) -> int:
    """Record that something happened to a subject. Returns the event's id."""
    cursor = await tx.execute(
        "INSERT INTO event (kind, subject, data) VALUES (%s, %s, %s) RETURNING id",
        (kind, subject, Jsonb(data)),
    )
    row = await cursor.fetchone()
    assert row is not None
    event_id: int = row["id"]
    return event_id


async def record_all(tx: Tx, kind: str, news: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Record the same kind of news of many subjects in one statement."""
    await tx.execute(
        "INSERT INTO event (kind, subject, data)"
        " SELECT %s, s, d::jsonb FROM unnest(%s::text[], %s::text[]) AS n (s, d)",
        (
            kind,
            [subject for subject, _ in news],
            [msgspec.json.encode(data).decode() for _, data in news],
        ),
    )


async def since(tx: Tx, last_id: int, limit: int = 1000) -> list[Event]:
    """Events after this id, oldest first."""
    cursor = await tx.execute(
        "SELECT id, at, kind, subject, data FROM event WHERE id > %s ORDER BY id LIMIT %s",
        (last_id, limit),
    )
    return [Event(**row) for row in await cursor.fetchall()]


async def of(tx: Tx, subject: str, limit: int = 1000) -> list[Event]:
    """What happened to one subject, oldest first."""
    cursor = await tx.execute(
        "SELECT id, at, kind, subject, data FROM event WHERE subject = %s ORDER BY id LIMIT %s",
        (subject, limit),
    )
    return [Event(**row) for row in await cursor.fetchall()]


# So many go in one statement, and a transaction of its own: nobody waits for them.
FORGET_AT_ONCE = 5000


async def forget(tx: Tx, before: datetime) -> int:
    """Drop the oldest of those that are older. Returns how many went: FORGET_AT_ONCE when there may
    be more."""
    cursor = await tx.execute(
        "DELETE FROM event WHERE at < %s AND id IN (SELECT id FROM event ORDER BY id LIMIT %s)",
        (before, FORGET_AT_ONCE),
    )
    return cursor.rowcount
