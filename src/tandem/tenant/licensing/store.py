"""The SQL of licences."""

from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import Any

from tandem.infra.database import Tx
from tandem.tenant.licensing.model import (
    Assignment,
    Claim,
    Run,
    RunState,
    Seat,
    Subscription,
    product,
)

_SEAT = """s.sku_id::text AS sku_id, s.holder_id::text AS holder_id, s.user_id::text AS user_id,
    a.disabled_plans::text[] AS disabled_plans, s.error, s.updated_at"""
_FROM = "licensing_seat s JOIN licensing_assignment a USING (sku_id, holder_id)"


async def lock(tx: Tx) -> None:
    """One writer at a time, so that seats are never counted twice."""
    await tx.execute("SELECT pg_advisory_xact_lock(4120772)")


async def requirement(tx: Tx) -> bool:
    cursor = await tx.execute("SELECT required FROM licensing_requirement")
    row = await cursor.fetchone()
    return bool(row and row["required"])


async def set_requirement(tx: Tx, required: bool) -> None:
    await tx.execute(
        "INSERT INTO licensing_requirement (required) VALUES (%s)"
        " ON CONFLICT (only_one) DO UPDATE SET required = EXCLUDED.required",
        (required,),
    )


async def save_subscription(tx: Tx, sku_id: str, seats: int | None, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO licensing_subscription (sku_id, seats, created_at) VALUES (%s, %s, %s)"
        " ON CONFLICT (sku_id) DO UPDATE SET seats = EXCLUDED.seats",
        (sku_id, seats, now),
    )


async def subscriptions(tx: Tx) -> list[Subscription]:
    cursor = await tx.execute(
        """SELECT b.sku_id::text AS sku_id, b.seats, b.created_at,
            (SELECT count(DISTINCT s.user_id) FROM licensing_seat s
             WHERE s.sku_id = b.sku_id AND s.error = 'None') AS consumed
        FROM licensing_subscription b ORDER BY b.created_at, b.sku_id"""
    )
    return [
        Subscription(product(row["sku_id"]), row["seats"], row["consumed"], row["created_at"])
        for row in await cursor.fetchall()
    ]


async def save_assignment(
    tx: Tx, sku_id: str, holder_id: str, disabled_plans: Sequence[str], now: datetime
) -> None:
    await tx.execute(
        """INSERT INTO licensing_assignment (sku_id, holder_id, disabled_plans, assigned_at)
        VALUES (%s, %s, %s, %s)
        ON CONFLICT (sku_id, holder_id) DO UPDATE SET disabled_plans = EXCLUDED.disabled_plans""",
        (sku_id, holder_id, list(disabled_plans), now),
    )


async def delete_assignment(tx: Tx, sku_id: str, holder_id: str) -> bool:
    cursor = await tx.execute(
        "DELETE FROM licensing_assignment WHERE sku_id = %s AND holder_id = %s",
        (sku_id, holder_id),
    )
    return cursor.rowcount == 1


async def assignments(tx: Tx, holder_id: str | None = None) -> list[Assignment]:
    """Oldest first: who came first gets the seat."""
    cursor = await tx.execute(
        """SELECT sku_id::text AS sku_id, holder_id::text AS holder_id,
            disabled_plans::text[] AS disabled_plans, assigned_at
        FROM licensing_assignment a WHERE %(holder)s::uuid IS NULL OR holder_id = %(holder)s::uuid
        ORDER BY assigned_at, holder_id""",
        {"holder": holder_id},
    )
    return [
        Assignment(**{**row, "disabled_plans": tuple(row["disabled_plans"])})
        for row in await cursor.fetchall()
    ]


async def seats(
    tx: Tx, *, user_ids: Sequence[str] | None = None, holder_id: str | None = None
) -> list[Seat]:
    cursor = await tx.execute(
        f"SELECT {_SEAT} FROM {_FROM}"  # noqa: S608
        " WHERE (%(users)s::uuid[] IS NULL OR s.user_id = ANY(%(users)s::uuid[]))"
        " AND (%(holder)s::uuid IS NULL OR s.holder_id = %(holder)s::uuid)"
        " ORDER BY s.updated_at, s.sku_id, s.user_id",
        {"users": list(user_ids) if user_ids is not None else None, "holder": holder_id},
    )
    return [
        Seat(**{**row, "disabled_plans": tuple(row["disabled_plans"])})
        for row in await cursor.fetchall()
    ]


# Every assignment that reaches a user: the user's own, and those of groups at any depth. %(users)s
# narrows it to some users, whose groups are walked upwards.
_CLAIMS = """WITH RECURSIVE above (user_id, id) AS (
        SELECT m.member_id, m.group_id FROM directory_member m
        JOIN directory_user u ON u.id = m.member_id WHERE u.id = ANY(%(users)s::uuid[])
        UNION SELECT above.user_id, m.group_id FROM directory_member m
        JOIN above ON m.member_id = above.id),
    reached (user_id, holder_id) AS (
        SELECT u.id, u.id FROM directory_user u WHERE u.id = ANY(%(users)s::uuid[])
        UNION ALL SELECT user_id, id FROM above)
    SELECT a.sku_id::text AS sku_id, a.holder_id::text AS holder_id, r.user_id::text AS user_id,
        a.disabled_plans::text[] AS disabled_plans, a.assigned_at,
        coalesce(s.error = 'None', false) AS held, s.error, u.usage_location
    FROM reached r JOIN licensing_assignment a ON a.holder_id = r.holder_id
    JOIN directory_user u ON u.id = r.user_id
    LEFT JOIN licensing_seat s ON s.sku_id = a.sku_id AND s.holder_id = a.holder_id
        AND s.user_id = r.user_id
    ORDER BY a.assigned_at, r.user_id, a.sku_id"""


async def claims(tx: Tx, user_ids: Sequence[str]) -> dict[str, tuple[bool, list[Claim]]]:
    """By user: whether the user has a usage location, and what reaches the user."""
    cursor = await tx.execute(_CLAIMS, {"users": list(user_ids)})
    found: dict[str, tuple[bool, list[Claim]]] = {}
    for row in await cursor.fetchall():
        located = bool(row.pop("usage_location"))
        row["disabled_plans"] = tuple(row["disabled_plans"])
        found.setdefault(row["user_id"], (located, []))[1].append(Claim(**row))
    return found


async def free_seats(tx: Tx) -> dict[str, float]:
    return {
        item.product.sku_id: inf if item.seats is None else item.seats - item.consumed
        for item in await subscriptions(tx)
    }


async def save_seats(tx: Tx, seats: Sequence[tuple[str, str, str, str]], now: datetime) -> None:
    """(sku, holder, user, error) of many users in one statement."""
    columns = list(zip(*seats, strict=True)) if seats else [(), (), (), ()]
    await tx.execute(
        """INSERT INTO licensing_seat (sku_id, holder_id, user_id, error, updated_at)
        SELECT *, %s FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[])
        ON CONFLICT (sku_id, holder_id, user_id)
        DO UPDATE SET error = EXCLUDED.error, updated_at = EXCLUDED.updated_at
        WHERE licensing_seat.error <> EXCLUDED.error""",
        (now, *(list(column) for column in columns)),
    )


async def drop_seats(
    tx: Tx, user_ids: Sequence[str], wanted: Sequence[tuple[str, str, str]]
) -> list[tuple[str, str]]:
    """Delete the seats of these users that no assignment stands behind; (sku, user) of each."""
    columns = list(zip(*wanted, strict=True)) if wanted else [(), (), ()]
    cursor = await tx.execute(
        """DELETE FROM licensing_seat s WHERE s.user_id = ANY(%s::uuid[])
            AND NOT EXISTS (SELECT 1 FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[]) w (sku, holder, who)
                WHERE w.sku = s.sku_id AND w.holder = s.holder_id AND w.who = s.user_id)
        RETURNING s.sku_id::text AS sku_id, s.user_id::text AS user_id""",
        (list(user_ids), *(list(column) for column in columns)),
    )
    return [(row["sku_id"], row["user_id"]) for row in await cursor.fetchall()]


async def waiting(tx: Tx, sku_id: str, limit: int) -> list[str]:
    """Users who wait for a seat of this product, the oldest assignment first."""
    cursor = await tx.execute(
        """SELECT s.user_id::text AS id FROM licensing_seat s
        JOIN licensing_assignment a USING (sku_id, holder_id)
        WHERE s.sku_id = %s AND s.error = 'CountViolation'
        GROUP BY s.user_id ORDER BY min(a.assigned_at), s.user_id LIMIT %s""",
        (sku_id, limit),
    )
    return [row["id"] for row in await cursor.fetchall()]


# Only groups are walked: a large group's people lead nowhere, and the planner cannot know.
_BELOW = """WITH RECURSIVE nested (id) AS (
    SELECT %(group)s::uuid
    UNION SELECT g.id FROM nested JOIN directory_member m ON m.group_id = nested.id
        JOIN directory_group g ON g.id = m.member_id),
below (id) AS (SELECT DISTINCT m.member_id FROM nested
    JOIN directory_member m ON m.group_id = nested.id)"""


async def users_below(
    tx: Tx, group_id: str, after: str | None = None, limit: int | None = None
) -> list[str]:
    """Users in the group at any depth, by id."""
    cursor = await tx.execute(
        _BELOW + " SELECT u.id::text AS id FROM below JOIN directory_user u ON u.id = below.id"  # noqa: S608
        " WHERE %(after)s::uuid IS NULL OR u.id > %(after)s::uuid ORDER BY u.id LIMIT %(limit)s",
        {"group": group_id, "after": after, "limit": limit},
    )
    return [row["id"] for row in await cursor.fetchall()]


async def count_below(tx: Tx, group_id: str) -> int:
    cursor = await tx.execute(
        _BELOW  # noqa: S608
        + " SELECT count(*) AS n FROM below JOIN directory_user u ON u.id = below.id",
        {"group": group_id},
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


async def everyone_concerned(tx: Tx) -> list[str]:
    """Every user whom an assignment reaches or who has a seat."""
    cursor = await tx.execute(
        """WITH RECURSIVE below (id) AS (
            SELECT holder_id FROM licensing_assignment
            UNION SELECT m.member_id FROM directory_member m JOIN below ON m.group_id = below.id)
        SELECT u.id::text AS id FROM directory_user u WHERE u.id IN (SELECT id FROM below)
        UNION SELECT s.user_id::text FROM licensing_seat s ORDER BY 1"""
    )
    return [row["id"] for row in await cursor.fetchall()]


# ---------------------------------------------------------------------------------- runs

_RUN = """id::text AS id, group_id::text AS group_id, state, total, done, failed,
    position::text AS position, queued_at, finished_at"""


def _run(row: dict[str, Any]) -> Run:
    return Run(**{**row, "state": RunState(row["state"])})


async def insert_run(tx: Tx, run: Run) -> None:
    await tx.execute(
        "INSERT INTO licensing_run (id, group_id, state, total, queued_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        (run.id, run.group_id, run.state.value, run.total, run.queued_at),
    )


async def run(tx: Tx, run_id: str) -> Run | None:
    cursor = await tx.execute(
        f"SELECT {_RUN} FROM licensing_run WHERE id = %s FOR UPDATE",  # noqa: S608
        (run_id,),
    )
    row = await cursor.fetchone()
    return _run(row) if row else None


async def save_run(tx: Tx, item: Run) -> None:
    await tx.execute(
        """UPDATE licensing_run SET state = %s, total = %s, done = %s, failed = %s, position = %s,
            finished_at = %s WHERE id = %s""",
        (
            item.state.value,
            item.total,
            item.done,
            item.failed,
            item.position,
            item.finished_at,
            item.id,
        ),
    )


async def newest_runs(tx: Tx, group_ids: Sequence[str] | None = None) -> list[Run]:
    """The newest run of each group."""
    cursor = await tx.execute(
        f"SELECT DISTINCT ON (group_id) {_RUN} FROM licensing_run"  # noqa: S608
        " WHERE %(ids)s::uuid[] IS NULL OR group_id = ANY(%(ids)s::uuid[])"
        " ORDER BY group_id, queued_at DESC",
        {"ids": list(group_ids) if group_ids is not None else None},
    )
    return [_run(row) for row in await cursor.fetchall()]


async def delete_runs(tx: Tx, before: datetime) -> None:
    await tx.execute("DELETE FROM licensing_run WHERE finished_at < %s", (before,))


def holds_sku(user_column: str, placeholder: str) -> str:
    """A condition: the user in this column has a seat of the product in this placeholder."""
    return (
        f"EXISTS (SELECT 1 FROM licensing_seat s WHERE s.user_id = {user_column}"  # noqa: S608
        f" AND s.error = 'None' AND s.sku_id::text = lower({placeholder}))"
    )
