"""SQL of the tables traces_…, and nothing else."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.traces.model import Cause, Given, Kind, TraceId

_CAUSE = "id, at, kind, actor, collections, details"


async def insert(tx: Tx, cause: Cause) -> None:
    await tx.execute(
        f"INSERT INTO traces_cause ({_CAUSE}) VALUES (%s, %s, %s, %s, %s, %s)",  # noqa: S608
        (
            cause.id,
            cause.at,
            cause.kind.value,
            cause.actor,
            list(cause.collections),
            Jsonb(dict(cause.details)),
        ),
    )


async def since(
    tx: Tx, after: datetime, name: str, collections: Sequence[str], most: int
) -> list[Cause]:
    """The newest first, of those that concern any of these collections. One that names devices
    concerns those."""
    found = await tx.execute(
        f"SELECT {_CAUSE} FROM traces_cause WHERE at > %s AND collections && %s::text[]"  # noqa: S608
        " AND (NOT details ? 'devices' OR details->'devices' ? %s) ORDER BY at DESC, id LIMIT %s",
        (after, list(collections), name, most),
    )
    return [_cause(row) async for row in found]


async def forget(tx: Tx, before: datetime) -> int:
    done = await tx.execute("DELETE FROM traces_cause WHERE at < %s", (before,))
    return done.rowcount


def _cause(row: dict[str, Any]) -> Cause:
    return Cause(
        TraceId(row["id"]),
        row["at"],
        Kind(row["kind"]),
        row["actor"],
        tuple(row["collections"]),
        row["details"],
    )


async def given(tx: Tx, client_id: str) -> Given | None:
    row = await (
        await tx.execute(
            "SELECT trace_id AS id, cause_at AS at, kind, actor, details, given_at, collections, digest"
            " FROM traces_given WHERE client_id = %s",
            (client_id,),
        )
    ).fetchone()
    if row is None:
        return None
    return Given(_cause(row), row["given_at"], tuple(row["collections"]), row["digest"])


async def save_given(tx: Tx, client_id: str, made: Given) -> None:
    await tx.execute(
        "INSERT INTO traces_given"
        " (client_id, trace_id, cause_at, kind, actor, details, given_at, collections, digest)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (client_id) DO UPDATE SET"
        " trace_id = EXCLUDED.trace_id, cause_at = EXCLUDED.cause_at, kind = EXCLUDED.kind,"
        " actor = EXCLUDED.actor, details = EXCLUDED.details, given_at = EXCLUDED.given_at,"
        " collections = EXCLUDED.collections,"
        " digest = EXCLUDED.digest",
        (
            client_id,
            made.cause.id,
            made.cause.at,
            made.cause.kind.value,
            made.cause.actor,
            Jsonb(dict(made.cause.details)),
            made.at,
            list(made.collections),
            made.digest,
        ),
    )
