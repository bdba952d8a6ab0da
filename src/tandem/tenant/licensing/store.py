"""The SQL of licences."""

from collections.abc import Sequence
from datetime import datetime

from tandem.infra.database import Tx
from tandem.tenant.licensing.model import Assignment, Seat, Subscription, product

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


async def assignments(tx: Tx) -> list[Assignment]:
    """Oldest first: who came first gets the seat."""
    cursor = await tx.execute(
        """SELECT sku_id::text AS sku_id, holder_id::text AS holder_id,
            disabled_plans::text[] AS disabled_plans, assigned_at
        FROM licensing_assignment ORDER BY assigned_at, holder_id"""
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


async def save_seat(
    tx: Tx, sku_id: str, holder_id: str, user_id: str, error: str, now: datetime
) -> None:
    await tx.execute(
        """INSERT INTO licensing_seat (sku_id, holder_id, user_id, error, updated_at)
        VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (sku_id, holder_id, user_id)
        DO UPDATE SET error = EXCLUDED.error, updated_at = EXCLUDED.updated_at
        WHERE licensing_seat.error <> EXCLUDED.error""",
        (sku_id, holder_id, user_id, error, now),
    )


async def delete_seat(tx: Tx, sku_id: str, holder_id: str, user_id: str) -> None:
    await tx.execute(
        "DELETE FROM licensing_seat WHERE sku_id = %s AND holder_id = %s AND user_id = %s",
        (sku_id, holder_id, user_id),
    )


def holds_sku(user_column: str, placeholder: str) -> str:
    """A condition: the user in this column has a seat of the product in this placeholder."""
    return (
        f"EXISTS (SELECT 1 FROM licensing_seat s WHERE s.user_id = {user_column}"  # noqa: S608
        f" AND s.error = 'None' AND s.sku_id::text = lower({placeholder}))"
    )
