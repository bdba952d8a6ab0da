"""Members as they were found, what has changed since, and what finding them took."""

from collections.abc import Sequence
from datetime import datetime

from tandem.infra.database import Tx
from tandem.site.collections.classes import CHANGED, EVERYTHING
from tandem.site.collections.model import CollectionId, Evaluation, MemberType
from tandem.site.collections.query import Condition

_LOCK = 7_311_007


async def lock(tx: Tx) -> None:
    """One evaluation at a time, until this transaction ends."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def try_lock(tx: Tx) -> bool:
    row = await (
        await tx.execute("SELECT pg_try_advisory_xact_lock(%s) AS ours", (_LOCK,))
    ).fetchone()
    return bool(row and row["ours"])


async def limit_time(tx: Tx, seconds: float) -> None:
    limit = f"{max(1, int(seconds * 1000))}ms"
    await tx.execute("SELECT set_config('statement_timeout', %s, true)", (limit,))


async def end_limit(tx: Tx) -> None:
    await tx.execute("SET LOCAL statement_timeout TO DEFAULT")


# What a transaction that evaluates looks at: the resources that have changed with what is reported
# of them, and whom it found. Small, so that a thousand queries over them take as long as a few.
_COLUMNS = {
    CHANGED.resource: "id, name, client_id, tenant_id, device_id, os_name, os_version, client_version",
    CHANGED.user: "id, tenant_id, object_id, upn, name, mail, sid, properties, kind",
    CHANGED.inventory: "resource_id, class, folded",
}
_FROM = {
    CHANGED.resource: EVERYTHING.resource,
    CHANGED.user: EVERYTHING.user,
    CHANGED.inventory: EVERYTHING.inventory,
}
_GATHERED = (
    *(
        f"CREATE TEMP TABLE {table} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {_FROM[table]}"  # noqa: S608
        " WITH NO DATA"
        for table, columns in _COLUMNS.items()
    ),
    f"CREATE INDEX ON {CHANGED.resource} (id)",
    f"CREATE INDEX ON {CHANGED.user} (id)",
    f"CREATE INDEX ON {CHANGED.inventory} (class, resource_id)",
    "CREATE TEMP TABLE collections_found (collection_id text, resource_id bigint,"
    " PRIMARY KEY (collection_id, resource_id)) ON COMMIT DELETE ROWS",
)
# With fewer rows the planner needs no numbers to plan well.
_WORTH_COUNTING = 100
MEMBERS = {
    MemberType.DEVICE: "collections_member",
    MemberType.USER: "collections_user_member",
}
_SEEN = {MemberType.DEVICE: CHANGED.resource, MemberType.USER: CHANGED.user}


async def take_changed(tx: Tx, most: int) -> dict[int, set[str]]:
    """Resources that have changed, no longer noted, each with the classes of which it did; the
    empty one when it is new. What comes to be noted meanwhile stays."""
    rows = await tx.execute(
        "DELETE FROM collections_changed WHERE sequence IN (SELECT sequence"
        " FROM collections_changed ORDER BY sequence LIMIT %s) RETURNING resource_id, class",
        (most,),
    )
    found: dict[int, set[str]] = {}
    async for row in rows:
        found.setdefault(row["resource_id"], set()).add(row["class"])
    return found


async def gather(tx: Tx, ids: Sequence[int]) -> dict[MemberType, list[int]]:
    """Lay these resources out for `conditions.Graph` to ask about, until the transaction ends.
    Returns which there are still."""
    row = await (
        await tx.execute("SELECT to_regclass('pg_temp.collections_found') IS NOT NULL AS made")
    ).fetchone()
    if not (row and row["made"]):
        for statement in _GATHERED:
            await tx.execute(statement)
    found: dict[MemberType, list[int]] = {}
    for of, table in _SEEN.items():
        rows = await tx.execute(
            f"INSERT INTO {table} SELECT {_COLUMNS[table]} FROM {_FROM[table]}"  # noqa: S608
            " WHERE id = ANY(%s::bigint[]) RETURNING id",
            (list(ids),),
        )
        found[of] = [row["id"] async for row in rows]
    table = CHANGED.inventory
    await tx.execute(
        f"INSERT INTO {table} SELECT {_COLUMNS[table]} FROM {_FROM[table]}"  # noqa: S608
        " WHERE resource_id = ANY(%s::bigint[])",
        (list(ids),),
    )
    if len(ids) > _WORTH_COUNTING:
        await tx.execute(f"ANALYZE {CHANGED.resource}, {CHANGED.user}, {CHANGED.inventory}")
    return found


async def find(tx: Tx, id: CollectionId, found: Condition) -> None:
    """Note these members of a collection as found, for `keep_found`."""
    await tx.execute(
        "INSERT INTO collections_found (collection_id, resource_id)"  # noqa: S608
        f" SELECT %s, f.id FROM ({found.sql}) f",
        (id, *found.values),
    )


async def keep_found(
    tx: Tx, of: MemberType, ids: Sequence[CollectionId], now: datetime
) -> dict[CollectionId, tuple[int, int]]:
    """Of the resources that were gathered, those that were found are members of these collections
    from now on, and the others are not. Returns how many came and how many went, where any did."""
    members = MEMBERS[of]
    found = await tx.execute(
        f"WITH gone AS (DELETE FROM {members} m USING {_SEEN[of]} s"  # noqa: S608
        " WHERE m.resource_id = s.id AND m.collection_id = ANY(%(ids)s::text[])"
        " AND NOT EXISTS (SELECT 1 FROM collections_found f"
        "  WHERE f.collection_id = m.collection_id AND f.resource_id = m.resource_id)"
        " RETURNING m.collection_id"
        f"), come AS (INSERT INTO {members} (collection_id, resource_id, since)"
        " SELECT f.collection_id, f.resource_id, %(now)s FROM collections_found f"
        " WHERE f.collection_id = ANY(%(ids)s::text[]) AND NOT EXISTS (SELECT 1"
        f"  FROM {members} k WHERE k.collection_id = f.collection_id"
        "  AND k.resource_id = f.resource_id) ON CONFLICT DO NOTHING RETURNING collection_id)"
        " SELECT id, sum(come)::bigint AS come, sum(gone)::bigint AS gone FROM"
        " (SELECT collection_id AS id, 1 AS come, 0 AS gone FROM come"
        "  UNION ALL SELECT collection_id, 0, 1 FROM gone) n GROUP BY id",
        {"ids": list(ids), "now": now},
    )
    return {row["id"]: (row["come"], row["gone"]) async for row in found}


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
    tx: Tx, of: MemberType, id: CollectionId, found: Condition, now: datetime
) -> tuple[int, int, int]:
    """These are the members, and nobody else. Returns how many came, how many went and how many
    they are."""
    members = MEMBERS[of]
    row = await (
        await tx.execute(
            f"WITH found AS MATERIALIZED ({found.sql}), gone AS ("  # noqa: S608
            f" DELETE FROM {members} m WHERE m.collection_id = %s"
            " AND NOT EXISTS (SELECT 1 FROM found f WHERE f.id = m.resource_id) RETURNING 1"
            f"), come AS (INSERT INTO {members} (collection_id, resource_id, since)"
            " SELECT %s, f.id, %s FROM found f WHERE NOT EXISTS (SELECT 1"
            f" FROM {members} k WHERE k.collection_id = %s AND k.resource_id = f.id)"
            " ON CONFLICT DO NOTHING RETURNING 1)"
            " SELECT (SELECT count(*) FROM come) AS come, (SELECT count(*) FROM gone) AS gone,"
            " (SELECT count(*) FROM found) AS found",
            (*found.values, id, id, now, id),
        )
    ).fetchone()
    assert row is not None
    return int(row["come"]), int(row["gone"]), int(row["found"])


async def member_since(tx: Tx, client_id: str) -> dict[str, datetime]:
    found = await tx.execute(
        "SELECT m.collection_id, m.since FROM collections_member m"
        " JOIN collections_resource r ON r.id = m.resource_id WHERE r.client_id = %s",
        (client_id,),
    )
    return {row["collection_id"]: row["since"] async for row in found}


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


async def waiting_among(tx: Tx, ids: Sequence[CollectionId], now: datetime) -> int:
    """How many of these collections wait to be looked at."""
    row = await (
        await tx.execute(
            "SELECT count(*) AS n FROM collections_collection c WHERE c.id = ANY(%s)"
            " AND (c.full_due_at <= %s OR EXISTS"
            "   (SELECT FROM collections_stale s WHERE s.collection_id = c.id))",
            (list(ids), now),
        )
    ).fetchone()
    assert row is not None
    return int(row["n"])


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
