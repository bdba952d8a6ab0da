"""Members as they were found, what has changed since, and what finding them took."""

from collections.abc import Sequence
from datetime import datetime

from tandem.infra.database import Tx
from tandem.site.collections.model import CollectionId, Evaluation
from tandem.site.collections.query import Condition

_LOCK = 7_311_004


async def lock(tx: Tx) -> None:
    """One evaluation at a time, until this transaction ends."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def try_lock(tx: Tx) -> bool:
    row = await (
        await tx.execute("SELECT pg_try_advisory_xact_lock(%s) AS ours", (_LOCK,))
    ).fetchone()
    return bool(row and row["ours"])


async def limit_time(tx: Tx, seconds: int) -> None:
    await tx.execute("SELECT set_config('statement_timeout', %s, true)", (f"{seconds}s",))


async def take_changed(tx: Tx, most: int) -> list[int]:
    """Resources that have changed, no longer noted. What comes to be noted meanwhile stays."""
    found = await tx.execute(
        "WITH taken AS (DELETE FROM collections_changed WHERE sequence IN (SELECT sequence"
        " FROM collections_changed ORDER BY sequence LIMIT %s) RETURNING resource_id)"
        " SELECT DISTINCT resource_id FROM taken ORDER BY resource_id",
        (most,),
    )
    return [row["resource_id"] async for row in found]


async def take_stale(tx: Tx) -> list[CollectionId]:
    """Collections whose rules or limits have changed, no longer noted."""
    found = await tx.execute("DELETE FROM collections_stale RETURNING collection_id")
    return sorted({row["collection_id"] async for row in found})


async def make_due(tx: Tx, ids: Sequence[CollectionId], now: datetime) -> None:
    await tx.execute(
        "UPDATE collections_collection SET full_due_at = %s WHERE id = ANY(%s)", (now, list(ids))
    )


async def due(tx: Tx, now: datetime, most: int) -> list[CollectionId]:
    """Whose full evaluation has waited longest."""
    found = await tx.execute(
        "SELECT id FROM collections_collection WHERE full_due_at <= %s"
        " ORDER BY full_due_at, id LIMIT %s",
        (now, most),
    )
    return [row["id"] async for row in found]


async def save_due(tx: Tx, id: CollectionId, due_at: datetime | None, trouble: str = "") -> None:
    await tx.execute(
        "UPDATE collections_collection SET full_due_at = %s, trouble = %s WHERE id = %s",
        (due_at, trouble, id),
    )


async def schedule(tx: Tx, id: CollectionId) -> tuple[datetime | None, str]:
    """When the next full evaluation is due, and why the last one failed."""
    row = await (
        await tx.execute(
            "SELECT full_due_at, trouble FROM collections_collection WHERE id = %s", (id,)
        )
    ).fetchone()
    return (row["full_due_at"], row["trouble"]) if row else (None, "")


async def incremental(tx: Tx) -> list[CollectionId]:
    """Collections that are told of each change, but those that cannot be evaluated."""
    found = await tx.execute(
        "SELECT id FROM collections_collection WHERE incremental AND trouble = '' ORDER BY id"
    )
    return [row["id"] async for row in found]


async def save_members(
    tx: Tx, id: CollectionId, found: Condition, among: Sequence[int] | None, now: datetime
) -> tuple[int, int, int]:
    """Of those among whom was looked, these are the members. Returns how many came, how many went
    and how many these are."""
    within = "" if among is None else "AND m.resource_id = ANY(%(among)s::bigint[])"
    values = {f"v{place}": value for place, value in enumerate(found.values)}
    parts = found.sql.split("%s")
    sql = parts[0] + "".join(f"%(v{place})s{part}" for place, part in enumerate(parts[1:]))
    row = await (
        await tx.execute(
            f"WITH found AS MATERIALIZED ({sql}), gone AS ("  # noqa: S608
            f" DELETE FROM collections_member m WHERE m.collection_id = %(id)s {within}"
            " AND NOT EXISTS (SELECT 1 FROM found f WHERE f.id = m.resource_id) RETURNING 1"
            "), come AS (INSERT INTO collections_member (collection_id, resource_id, since)"
            " SELECT %(id)s, f.id, %(now)s FROM found f WHERE NOT EXISTS (SELECT 1"
            " FROM collections_member k WHERE k.collection_id = %(id)s AND k.resource_id = f.id)"
            " ON CONFLICT DO NOTHING RETURNING 1)"
            " SELECT (SELECT count(*) FROM come) AS come, (SELECT count(*) FROM gone) AS gone,"
            " (SELECT count(*) FROM found) AS found",
            {**values, "id": id, "among": list(among or ()), "now": now},
        )
    ).fetchone()
    assert row is not None
    return int(row["come"]), int(row["gone"]), int(row["found"])


async def save_full(
    tx: Tx, id: CollectionId, at: datetime, members: int, took_ms: float, *, changed: bool
) -> None:
    """And when the next one is due."""
    await tx.execute(
        "WITH next AS (UPDATE collections_collection SET trouble = '', full_due_at ="
        " %s::timestamptz + make_interval(mins => nullif(full_every_minutes, 0)) WHERE id = %s)"
        " INSERT INTO collections_evaluation AS e"
        " (collection_id, at, members, took_ms, changed_at) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (collection_id) DO UPDATE SET at = EXCLUDED.at,"
        " members = EXCLUDED.members, took_ms = EXCLUDED.took_ms, before = e.members,"
        " changed_at = coalesce(EXCLUDED.changed_at, e.changed_at)",
        (at, id, id, at, members, took_ms, at if changed else None),
    )


async def save_incremental(
    tx: Tx, at: datetime, runs: Sequence[tuple[CollectionId, float, int, int]]
) -> None:
    """What each collection took, and how many came to it and went. One that was never evaluated
    fully has nothing to add to."""
    await tx.execute(
        "UPDATE collections_evaluation e SET incremental_at = %s, incremental_ms = n.ms,"
        " incremental_runs = incremental_runs + 1,"
        " incremental_total_ms = incremental_total_ms + n.ms, members = members + n.come - n.gone,"
        " changed_at = CASE WHEN n.come + n.gone > 0 THEN %s ELSE changed_at END"
        " FROM unnest(%s::text[], %s::float8[], %s::int[], %s::int[]) n (id, ms, come, gone)"
        " WHERE e.collection_id = n.id",
        (
            at,
            at,
            [id for id, *_ in runs],
            [ms for _, ms, *_ in runs],
            [come for *_, come, _ in runs],
            [gone for *_, gone in runs],
        ),
    )


async def last(tx: Tx, id: CollectionId) -> Evaluation | None:
    row = await (
        await tx.execute(
            "SELECT at, members, took_ms, before, changed_at, incremental_at, incremental_ms,"
            " incremental_runs, incremental_total_ms FROM collections_evaluation"
            " WHERE collection_id = %s",
            (id,),
        )
    ).fetchone()
    return Evaluation(**row) if row else None


async def waiting(tx: Tx, now: datetime) -> tuple[int, int]:
    """How many resources and collections wait to be looked at."""
    row = await (
        await tx.execute(
            "SELECT (SELECT count(DISTINCT resource_id) FROM collections_changed) AS resources,"
            " (SELECT count(*) FROM collections_collection WHERE full_due_at <= %s)"
            " + (SELECT count(DISTINCT collection_id) FROM collections_stale) AS collections",
            (now,),
        )
    ).fetchone()
    assert row is not None
    return int(row["resources"]), int(row["collections"])
