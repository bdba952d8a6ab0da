from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.comanagement.rollout_model import (
    Cause,
    Counts,
    Gap,
    Gate,
    Member,
    Ring,
    RingState,
    Rollout,
    Standing,
    State,
    Told,
    count,
)
from tandem.workloads import Position, Workload

_KEEPER_LOCK = 7_311_005
_ROLLOUT = (
    "id, workload, state, created_at, created_by, automatic_back, second_approval, approved_by,"
    " offline_minutes, ring, before_position, before_collection, before_also, started_at,"
    " started_by, paused_at, ended_at, ended_by, settled_at, kept_rings, cause_code, cause, analysed_at,"
    " gaps, reason, asked_at"
)
_RING = (
    "rollout_id, place, coalesce(collection_id, '') AS collection_id, collection, minutes,"
    " soak_minutes, done_percent, failed_percent, state, asked, started_at, deadline_at,"
    " soak_until, ended_at"
)
_DEVICE = (
    "client_id, device_id, name, place, standing, cause_code, cause, at, mdm_id,"
    " compliance_before, compliance, told, told_text, checked_at, gaps"
)


async def try_keep(tx: Tx) -> bool:
    """Whether this transaction is the one that moves roll-outs on; another is not waited for."""
    row = await (
        await tx.execute("SELECT pg_try_advisory_xact_lock(%s) AS got", (_KEEPER_LOCK,))
    ).fetchone()
    return bool(row and row["got"])


async def insert(tx: Tx, made: Rollout) -> None:
    await tx.execute(
        "INSERT INTO comanagement_rollout (id, workload, state, created_at, created_by,"
        " automatic_back, second_approval, offline_minutes, reason, asked_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.workload.value,
            made.state.value,
            made.created_at,
            made.created_by,
            made.automatic_back,
            made.second_approval,
            made.offline_minutes,
            made.reason,
            made.asked_at,
        ),
    )
    for ring in made.rings:
        await tx.execute(
            "INSERT INTO comanagement_ring (rollout_id, place, collection_id, collection, minutes,"
            " soak_minutes, done_percent, failed_percent) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                made.id,
                ring.place,
                ring.collection_id,
                ring.collection,
                ring.gate.minutes,
                ring.gate.soak_minutes,
                ring.gate.done_percent,
                ring.gate.failed_percent,
            ),
        )


async def save(tx: Tx, rollout: Rollout) -> None:
    """All of it that changes after planning, but its gaps and its devices."""
    before = rollout.before
    await tx.execute(
        "UPDATE comanagement_rollout SET state = %s, approved_by = %s, ring = %s,"
        " before_position = %s, before_collection = %s, before_also = %s, started_at = %s,"
        " started_by = %s, paused_at = %s, ended_at = %s, ended_by = %s, settled_at = %s,"
        " kept_rings = %s, cause_code = %s, cause = %s, reason = %s, asked_at = %s WHERE id = %s",
        (
            rollout.state.value,
            rollout.approved_by,
            rollout.ring,
            before[0].value if before else None,
            before[1] if before else "",
            list(before[2]) if before else [],
            rollout.started_at,
            rollout.started_by,
            rollout.paused_at,
            rollout.ended_at,
            rollout.ended_by,
            rollout.settled_at,
            rollout.kept_rings,
            rollout.cause.code,
            rollout.cause.text,
            rollout.reason,
            rollout.asked_at,
            rollout.id,
        ),
    )
    for ring in rollout.rings:
        await tx.execute(
            "UPDATE comanagement_ring SET state = %s, asked = %s, started_at = %s,"
            " deadline_at = %s, soak_until = %s, ended_at = %s"
            " WHERE rollout_id = %s AND place = %s",
            (
                ring.state.value,
                ring.asked,
                ring.started_at,
                ring.deadline_at,
                ring.soak_until,
                ring.ended_at,
                rollout.id,
                ring.place,
            ),
        )


async def rollout(tx: Tx, id: str) -> Rollout | None:
    found = await _rollouts(tx, "id = %s", (id,))
    return found[0] if found else None


async def rollouts(tx: Tx, limit: int, offset: int) -> list[Rollout]:
    """The newest first."""
    return await _rollouts(
        tx, f"true ORDER BY created_at DESC, id LIMIT {int(limit)} OFFSET {int(offset)}", ()
    )


async def how_many(tx: Tx) -> int:
    row = await (await tx.execute("SELECT count(*) AS n FROM comanagement_rollout")).fetchone()
    return int(row["n"]) if row else 0


async def unsettled(tx: Tx) -> list[Rollout]:
    """Those that are under way, or whose devices still follow."""
    return await _rollouts(
        tx, "started_at IS NOT NULL AND settled_at IS NULL ORDER BY started_at", ()
    )


async def under_way(tx: Tx) -> list[Rollout]:
    return await _rollouts(tx, "state IN ('running', 'paused', 'halted') ORDER BY started_at", ())


async def newest_started(tx: Tx, workload: Workload) -> Rollout | None:
    found = await _rollouts(
        tx,
        "workload = %s AND started_at IS NOT NULL ORDER BY started_at DESC LIMIT 1",
        (workload.value,),
    )
    return found[0] if found else None


async def to_analyse(tx: Tx) -> list[Rollout]:
    return await _rollouts(
        tx, "state = 'planned' AND analysed_at IS NULL ORDER BY created_at LIMIT 1", ()
    )


async def newer_start(tx: Tx, rollout: Rollout) -> bool:
    """Whether another roll-out of its workload started after this one."""
    row = await (
        await tx.execute(
            "SELECT EXISTS (SELECT FROM comanagement_rollout WHERE workload = %s AND id <> %s"
            " AND started_at >= %s) AS so",
            (rollout.workload.value, rollout.id, rollout.started_at),
        )
    ).fetchone()
    return bool(row and row["so"])


async def _rollouts(tx: Tx, condition: str, values: tuple[Any, ...]) -> list[Rollout]:
    cursor = await tx.execute(
        f"SELECT {_ROLLOUT} FROM comanagement_rollout WHERE {condition}".encode(),  # noqa: S608
        values,
    )
    rows = await cursor.fetchall()
    ids = [row["id"] for row in rows]
    counted = await counts(tx, ids)
    rings: dict[str, list[Ring]] = {id: [] for id in ids}
    cursor = await tx.execute(
        f"SELECT {_RING} FROM comanagement_ring WHERE rollout_id = ANY(%s)"  # noqa: S608
        " ORDER BY rollout_id, place",
        (ids,),
    )
    for row in await cursor.fetchall():
        rings[row["rollout_id"]].append(
            _ring(row, counted.get((row["rollout_id"], row["place"]), Counts()))
        )
    return [_rollout(row, tuple(rings[row["id"]])) for row in rows]


def _ring(row: dict[str, Any], counted: Counts) -> Ring:
    return Ring(
        row["place"],
        row["collection_id"],
        row["collection"],
        Gate(row["minutes"], row["soak_minutes"], row["done_percent"], row["failed_percent"]),
        RingState(row["state"]),
        row["asked"],
        row["started_at"],
        row["deadline_at"],
        row["soak_until"],
        row["ended_at"],
        counted,
    )


def _rollout(row: dict[str, Any], rings: tuple[Ring, ...]) -> Rollout:
    position = row["before_position"]
    return Rollout(
        row["id"],
        Workload(row["workload"]),
        State(row["state"]),
        row["created_at"],
        row["created_by"],
        row["automatic_back"],
        row["second_approval"],
        row["offline_minutes"],
        row["ring"],
        row["approved_by"],
        (Position(position), row["before_collection"], tuple(row["before_also"]))
        if position
        else None,
        row["started_at"],
        row["started_by"],
        row["paused_at"],
        row["ended_at"],
        row["ended_by"],
        row["settled_at"],
        row["kept_rings"],
        Cause(row["cause_code"], row["cause"]),
        row["analysed_at"],
        tuple(msgspec.convert(row["gaps"], list[Gap])),
        rings,
        row["reason"],
        row["asked_at"],
    )


async def counts(tx: Tx, ids: Sequence[str]) -> dict[tuple[str, int], Counts]:
    cursor = await tx.execute(
        "SELECT rollout_id, place, standing, count(*) AS n FROM comanagement_rollout_device"
        " WHERE rollout_id = ANY(%s) GROUP BY rollout_id, place, standing",
        (list(ids),),
    )
    found: dict[tuple[str, int], dict[Standing, int]] = {}
    for row in await cursor.fetchall():
        key = row["rollout_id"], row["place"]
        found.setdefault(key, {})[Standing(row["standing"])] = row["n"]
    return {key: count(value) for key, value in found.items()}


# Devices


def _member(row: dict[str, Any]) -> Member:
    return Member(
        row["client_id"],
        row["device_id"],
        row["name"],
        row["place"],
        Standing(row["standing"]),
        Cause(row["cause_code"], row["cause"]),
        row["at"],
        row["mdm_id"],
        row["compliance_before"],
        row["compliance"],
        Told(row["told"]),
        row["told_text"],
        row["checked_at"],
        tuple(row["gaps"]) if row["gaps"] is not None else None,
    )


async def members(tx: Tx, id: str) -> list[Member]:
    cursor = await tx.execute(
        f"SELECT {_DEVICE} FROM comanagement_rollout_device WHERE rollout_id = %s",  # noqa: S608
        (id,),
    )
    return [_member(row) for row in await cursor.fetchall()]


async def users(tx: Tx, id: str) -> dict[str, int]:
    """For each user, in small letters, how many of the devices are theirs; "" has those of nobody."""
    cursor = await tx.execute(
        "SELECT lower(user_name) AS name, count(*) AS n FROM comanagement_rollout_device"
        " WHERE rollout_id = %s GROUP BY lower(user_name)",
        (id,),
    )
    return {row["name"]: row["n"] for row in await cursor.fetchall()}


async def some_members(
    tx: Tx, id: str, standing: str, place: int, gap: int | None, limit: int, offset: int
) -> tuple[list[Member], int]:
    """Those that failed first, then by ring and name; and how many there are."""
    condition = (
        "rollout_id = %(id)s AND (%(standing)s = '' OR standing = %(standing)s)"
        " AND (%(place)s = 0 OR place = %(place)s)"
        " AND (%(gap)s::integer IS NULL OR %(gap)s = ANY (gaps))"
    )
    asked = {
        "id": id,
        "standing": standing,
        "place": place,
        "gap": gap,
        "limit": limit,
        "offset": offset,
    }
    cursor = await tx.execute(
        f"SELECT {_DEVICE} FROM comanagement_rollout_device WHERE {condition}"  # noqa: S608
        " ORDER BY array_position(ARRAY['failed', 'offline', 'pending', 'left', 'done', 'waiting'],"
        "  standing), place, lower(name), client_id LIMIT %(limit)s OFFSET %(offset)s",
        asked,
    )
    found = [_member(row) for row in await cursor.fetchall()]
    row = await (
        await tx.execute(
            f"SELECT count(*) AS n FROM comanagement_rollout_device WHERE {condition}",  # noqa: S608
            asked,
        )
    ).fetchone()
    return found, int(row["n"]) if row else 0


async def assign(tx: Tx, id: str, wanted: Iterable[tuple[str, str, str, int]]) -> None:
    """Client, device, name and ring of those whose ring has not begun; those that are not named
    any more are forgotten, and what is known of the others stays."""
    rows = list(wanted)
    await tx.execute(
        "DELETE FROM comanagement_rollout_device WHERE rollout_id = %s AND standing = 'waiting'"
        " AND NOT client_id = ANY(%s)",
        (id, [row[0] for row in rows]),
    )
    await tx.execute(
        "INSERT INTO comanagement_rollout_device (rollout_id, client_id, device_id, name, place)"
        " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::integer[])"
        " ON CONFLICT (rollout_id, client_id) DO UPDATE SET place = EXCLUDED.place,"
        " device_id = EXCLUDED.device_id, name = EXCLUDED.name",
        (id, *([row[i] for row in rows] for i in range(4))),
    )


async def save_standings(tx: Tx, id: str, changed: Sequence[Member]) -> None:
    await tx.execute(
        "UPDATE comanagement_rollout_device d SET standing = n.standing, cause_code = n.code,"
        " cause = n.text, at = n.at"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[])"
        "  AS n (id, standing, code, text, at)"
        " WHERE d.rollout_id = %s AND d.client_id = n.id",
        (
            [one.client_id for one in changed],
            [one.standing.value for one in changed],
            [one.cause.code for one in changed],
            [one.cause.text for one in changed],
            [one.at for one in changed],
            id,
        ),
    )


class Listed(NamedTuple):
    """What the tenant's list says of a device: the MDM's id, complianceState, and its user."""

    mdm_id: str
    compliance: str
    user: str


async def save_listed(tx: Tx, id: str, found: Mapping[str, Listed], first: bool) -> None:
    """By directory device id. How a device complied before the move is how it did until its ring
    began."""
    await tx.execute(
        "UPDATE comanagement_rollout_device d SET mdm_id = n.mdm_id, compliance = n.state,"
        " user_name = n.user_name, compliance_before = CASE WHEN %s OR d.standing = 'waiting'"
        "  THEN n.state ELSE compliance_before END"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])"
        "  AS n (id, mdm_id, state, user_name)"
        " WHERE d.rollout_id = %s AND d.device_id = n.id AND (d.mdm_id, d.compliance, d.user_name)"
        "  IS DISTINCT FROM (n.mdm_id, n.state, n.user_name)",
        (
            first,
            list(found),
            [one.mdm_id for one in found.values()],
            [one.compliance for one in found.values()],
            [one.user for one in found.values()],
            id,
        ),
    )


async def save_told(tx: Tx, id: str, said: Mapping[str, tuple[Told, str]], now: datetime) -> None:
    await tx.execute(
        "UPDATE comanagement_rollout_device d SET told = n.told, told_text = n.text,"
        " checked_at = %s FROM unnest(%s::text[], %s::text[], %s::text[]) AS n (id, told, text)"
        " WHERE d.rollout_id = %s AND d.client_id = n.id",
        (
            now,
            list(said),
            [told.value for told, _ in said.values()],
            [text for _, text in said.values()],
            id,
        ),
    )


async def unanalysed(tx: Tx, id: str, limit: int) -> list[Member]:
    cursor = await tx.execute(
        f"SELECT {_DEVICE} FROM comanagement_rollout_device"  # noqa: S608
        " WHERE rollout_id = %s AND gaps IS NULL ORDER BY place, client_id LIMIT %s",
        (id, limit),
    )
    return [_member(row) for row in await cursor.fetchall()]


async def save_gaps(tx: Tx, id: str, every: Sequence[Gap], of: Mapping[str, Sequence[int]]) -> None:
    await tx.execute(
        "UPDATE comanagement_rollout SET gaps = %s WHERE id = %s",
        (Jsonb(msgspec.to_builtins(list(every))), id),
    )
    await tx.execute(
        "UPDATE comanagement_rollout_device d SET gaps = n.gaps::integer[]"
        " FROM unnest(%s::text[], %s::text[]) AS n (id, gaps)"
        " WHERE d.rollout_id = %s AND d.client_id = n.id",
        (list(of), ["{" + ",".join(map(str, mine)) + "}" for mine in of.values()], id),
    )


async def finish_analysis(tx: Tx, id: str, now: datetime) -> None:
    await tx.execute("UPDATE comanagement_rollout SET analysed_at = %s WHERE id = %s", (now, id))


async def forget_analysis(tx: Tx, id: str) -> None:
    await tx.execute(
        "UPDATE comanagement_rollout SET analysed_at = NULL, gaps = '[]' WHERE id = %s", (id,)
    )
    await tx.execute(
        "UPDATE comanagement_rollout_device SET gaps = NULL WHERE rollout_id = %s", (id,)
    )


async def gap_counts(tx: Tx, id: str) -> dict[int, tuple[int, list[str]]]:
    """For each gap, how many devices it concerns, and the first names of them."""
    cursor = await tx.execute(
        "SELECT gap, count(*) AS n, (array_agg(name ORDER BY lower(name)))[1:20] AS names"
        " FROM comanagement_rollout_device, unnest(gaps) AS gap"
        " WHERE rollout_id = %s GROUP BY gap",
        (id,),
    )
    return {row["gap"]: (row["n"], list(row["names"])) for row in await cursor.fetchall()}


async def analysed(tx: Tx, id: str) -> tuple[int, int]:
    """How many devices were analysed, of how many."""
    row = await (
        await tx.execute(
            "SELECT count(gaps) AS done, count(*) AS n FROM comanagement_rollout_device"
            " WHERE rollout_id = %s",
            (id,),
        )
    ).fetchone()
    return (int(row["done"]), int(row["n"])) if row else (0, 0)
