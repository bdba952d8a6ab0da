from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.site.comanagement.model import (
    AutoEnroll,
    Begun,
    Enablement,
    Policy,
    Slider,
    Step,
    Wanted,
)
from tandem.workloads import Position, Workload

_LOCK = 7_311_002
_POLICY = "id, name, kind, collection_id, allow, auto_enroll, capabilities, version, changed_at"


async def lock(tx: Tx) -> None:
    """One administrator at a time changes co-management."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def enablement(tx: Tx) -> Enablement | None:
    row = await (
        await tx.execute(
            "SELECT tenant_id, auto_enroll, coalesce(collection_id, '') AS collection_id,"
            " enabled_at, enabled_by, enrolls_since, spread_minutes"
            " FROM comanagement_enablement"
        )
    ).fetchone()
    if row is None:
        return None
    return Enablement(**{**row, "auto_enroll": AutoEnroll(row["auto_enroll"])})


async def save_enablement(tx: Tx, wanted: Enablement) -> None:
    await tx.execute("DELETE FROM comanagement_enablement")
    await tx.execute(
        "INSERT INTO comanagement_enablement"
        " (tenant_id, auto_enroll, collection_id, enabled_at, enabled_by, enrolls_since,"
        " spread_minutes) VALUES (%s, %s, nullif(%s, ''), %s, %s, %s, %s)",
        (
            wanted.tenant_id,
            wanted.auto_enroll.value,
            wanted.collection_id,
            wanted.enabled_at,
            wanted.enabled_by,
            wanted.enrolls_since or wanted.enabled_at,
            wanted.spread_minutes,
        ),
    )


async def sliders(tx: Tx) -> dict[Workload, Slider]:
    """All seven: what was never moved is with the site."""
    found = await tx.execute(
        "SELECT workload, position, coalesce(collection_id, '') AS collection_id, changed_at,"
        " changed_by, ARRAY(SELECT p.collection_id FROM comanagement_pilot p"
        "   WHERE p.workload = w.workload ORDER BY p.place) AS also"
        " FROM comanagement_workload w"
    )
    moved = {Workload(row["workload"]): _slider(row) async for row in found}
    return {workload: moved.get(workload, Slider(workload)) for workload in Workload}


def _slider(row: dict[str, Any]) -> Slider:
    return Slider(
        Workload(row["workload"]),
        Position(row["position"]),
        row["collection_id"],
        row["changed_at"],
        row["changed_by"],
        tuple(row["also"]),
    )


async def save_slider(tx: Tx, slider: Slider) -> None:
    await tx.execute(
        "INSERT INTO comanagement_workload"
        " (workload, position, collection_id, changed_at, changed_by)"
        " VALUES (%s, %s, nullif(%s, ''), %s, %s)"
        " ON CONFLICT (workload) DO UPDATE SET position = EXCLUDED.position,"
        " collection_id = EXCLUDED.collection_id, changed_at = EXCLUDED.changed_at,"
        " changed_by = EXCLUDED.changed_by",
        (
            slider.workload.value,
            slider.position.value,
            slider.collection_id,
            slider.changed_at,
            slider.changed_by,
        ),
    )
    await tx.execute("DELETE FROM comanagement_pilot WHERE workload = %s", (slider.workload.value,))
    await tx.execute(
        "INSERT INTO comanagement_pilot (workload, place, collection_id)"
        " SELECT %s, place, id FROM unnest(%s::text[]) WITH ORDINALITY AS c (id, place)",
        (slider.workload.value, list(slider.also)),
    )


_STEP = "id, workload, at, by, position, collection_id, also, rollout_id, ring, back_to"


def _step(row: dict[str, Any]) -> Step:
    return Step(
        **{
            **row,
            "workload": Workload(row["workload"]),
            "position": Position(row["position"]),
            "also": tuple(row["also"]),
        }
    )


async def add_step(
    tx: Tx, slider: Slider, before: Slider, rollout_id: str, ring: int, back_to: int | None
) -> None:
    """With the first of a workload comes where it stood before."""
    (first,) = await _fetch(
        tx,
        "SELECT NOT EXISTS (SELECT FROM comanagement_step WHERE workload = %s) AS so",
        slider.workload.value,
    )
    if first["so"]:
        at = before.changed_at or slider.changed_at
        await _insert_step(tx, before, at, "", 0, None)
    await _insert_step(tx, slider, slider.changed_at, rollout_id, ring, back_to)


async def _insert_step(
    tx: Tx, at: Slider, when: datetime | None, rollout_id: str, ring: int, back_to: int | None
) -> None:
    await tx.execute(
        "INSERT INTO comanagement_step (workload, at, by, position, collection_id, also,"
        " rollout_id, ring, back_to) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            at.workload.value,
            when,
            at.changed_by,
            at.position.value,
            at.collection_id,
            list(at.also),
            rollout_id,
            ring,
            back_to,
        ),
    )


async def steps(tx: Tx, workload: Workload, limit: int) -> list[Step]:
    """The newest first."""
    condition = f"workload = %s ORDER BY id DESC LIMIT {int(limit)}"
    return await _steps(tx, condition, workload.value)


async def step(tx: Tx, workload: Workload, id: int) -> Step | None:
    return next(iter(await _steps(tx, "workload = %s AND id = %s", workload.value, id)), None)


async def step_of_ring(tx: Tx, rollout_id: str, ring: int) -> Step | None:
    condition = "rollout_id = %s AND ring = %s ORDER BY id DESC LIMIT 1"
    return next(iter(await _steps(tx, condition, rollout_id, ring)), None)


async def _steps(tx: Tx, condition: str, *values: Any) -> list[Step]:
    asked = f"SELECT {_STEP} FROM comanagement_step WHERE {condition}"  # noqa: S608
    return [_step(row) for row in await _fetch(tx, asked, *values)]


async def _fetch(tx: Tx, asked: str, *values: Any) -> list[dict[str, Any]]:
    return await (await tx.execute(asked.encode(), values)).fetchall()


async def rollout_under_way(tx: Tx, workload: Workload) -> str:
    """The id of the roll-out that moves this workload now; empty without one."""
    row = await (
        await tx.execute(
            "SELECT id FROM comanagement_rollout WHERE workload = %s"
            " AND state IN ('running', 'paused', 'halted')",
            (workload.value,),
        )
    ).fetchone()
    return str(row["id"]) if row else ""


async def policies(tx: Tx) -> list[Policy]:
    found = await tx.execute(
        f"SELECT {_POLICY} FROM comanagement_policy"  # noqa: S608
        " ORDER BY kind = 'pilot', name"
    )
    return [Policy(**row) async for row in found]


async def insert_policy(tx: Tx, id: str, wanted: Wanted, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO comanagement_policy (id, name, kind, collection_id, allow, auto_enroll,"
        " capabilities, version, changed_at) VALUES (%s, %s, %s, %s, true, %s, %s, 1, %s)",
        (
            id,
            wanted.name,
            wanted.kind,
            wanted.collection_id,
            wanted.auto_enroll,
            wanted.capabilities,
            now,
        ),
    )


async def change_policy(tx: Tx, id: str, wanted: Wanted, now: datetime) -> None:
    """A new version of a policy."""
    await tx.execute(
        "UPDATE comanagement_policy SET collection_id = %s, auto_enroll = %s, capabilities = %s,"
        " version = version + 1, changed_at = %s WHERE id = %s",
        (wanted.collection_id, wanted.auto_enroll, wanted.capabilities, now, id),
    )


async def delete_policy(tx: Tx, id: str) -> None:
    await tx.execute("DELETE FROM comanagement_policy WHERE id = %s", (id,))


async def exclusions(tx: Tx) -> list[str]:
    """The collections whose devices are kept out, in the order in which they were named."""
    found = await tx.execute("SELECT collection_id FROM comanagement_exclusion ORDER BY place")
    return [row["collection_id"] async for row in found]


async def save_exclusions(tx: Tx, ids: Sequence[str]) -> None:
    await tx.execute("DELETE FROM comanagement_exclusion")
    await tx.execute(
        "INSERT INTO comanagement_exclusion (collection_id, place)"
        " SELECT id, place FROM unnest(%s::text[]) WITH ORDINALITY AS c (id, place)",
        (list(ids),),
    )


async def order_enrolment(
    tx: Tx, client_ids: Sequence[str], order_id: str, actor: str, now: datetime
) -> None:
    """Each of these clients is to enrol when it gets its policy."""
    await tx.execute(
        "INSERT INTO comanagement_enroll_now (client_id, order_id, ordered_at, ordered_by)"
        " SELECT id, %s, %s, %s FROM unnest(%s::text[]) AS c (id)"
        " ON CONFLICT (client_id) DO UPDATE SET order_id = EXCLUDED.order_id,"
        " ordered_at = EXCLUDED.ordered_at, ordered_by = EXCLUDED.ordered_by",
        (order_id, now, actor, list(client_ids)),
    )


async def enrolment_order(tx: Tx, client_id: str) -> str:
    """The order that a client is to enrol now; empty without one."""
    row = await (
        await tx.execute(
            "SELECT order_id FROM comanagement_enroll_now WHERE client_id = %s", (client_id,)
        )
    ).fetchone()
    return row["order_id"] if row else ""


async def enrolment_ordered(tx: Tx) -> bool:
    """Whether there is an order for any client."""
    found = await tx.execute("SELECT FROM comanagement_enroll_now LIMIT 1")
    return await found.fetchone() is not None


async def enrolment_orders(tx: Tx) -> dict[str, tuple[datetime, str]]:
    """When and by whom, by client."""
    found = await tx.execute(
        "SELECT client_id, ordered_at, ordered_by FROM comanagement_enroll_now"
    )
    return {row["client_id"]: (row["ordered_at"], row["ordered_by"]) async for row in found}


async def begun(tx: Tx) -> dict[Workload, Begun]:
    found = await tx.execute("SELECT workload, began_at, began_by, devices FROM comanagement_move")
    return {
        Workload(row["workload"]): Begun(**{**row, "workload": Workload(row["workload"])})
        async for row in found
    }


async def save_begun(tx: Tx, move: Begun) -> None:
    await tx.execute(
        "INSERT INTO comanagement_move (workload, began_at, began_by, devices)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (workload) DO UPDATE SET"
        " began_at = EXCLUDED.began_at, began_by = EXCLUDED.began_by, devices = EXCLUDED.devices",
        (move.workload.value, move.began_at, move.began_by, move.devices),
    )


async def request_digest(tx: Tx, key: str) -> bytes | None:
    row = await (
        await tx.execute("SELECT digest FROM comanagement_request WHERE key = %s", (key,))
    ).fetchone()
    return bytes(row["digest"]) if row else None


async def keep_request(tx: Tx, key: str, digest: bytes, now: datetime, before: datetime) -> None:
    """Keep it, and forget those that are older than `before`."""
    await tx.execute("DELETE FROM comanagement_request WHERE applied_at < %s", (before,))
    await tx.execute(
        "INSERT INTO comanagement_request (key, digest, applied_at) VALUES (%s, %s, %s)",
        (key, digest, now),
    )


async def rollouts_with(tx: Tx, id: str) -> list[tuple[str, str]]:
    """Workload and state of the roll-outs under way that need a collection: for a ring that is to
    come, or to switch back."""
    found = await tx.execute(
        "SELECT r.workload, r.state FROM comanagement_rollout r"
        " WHERE r.state IN ('running', 'paused', 'halted')"
        "  AND (%(id)s = r.before_collection OR %(id)s = ANY (r.before_also)"
        "   OR EXISTS (SELECT FROM comanagement_ring g"
        "    WHERE g.rollout_id = r.id AND g.collection_id = %(id)s))"
        " ORDER BY r.workload",
        {"id": id},
    )
    return [(row["workload"], row["state"]) async for row in found]
