from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site.notifications.model import ChannelState, Operation, Result

CHANNEL, POLICY_CHANNEL = "notifications", "notifications_policy"

# What an order is now: nobody has to write down that its time is over.
_STATE = """CASE WHEN d.state IN ('waiting', 'sent', 'received') AND o.expires_at <= %(now)s
    THEN 'expired' ELSE d.state END"""
_OPERATION = """o.id, o.action, o.target, coalesce(o.collection_id, '') AS collection_id,
    coalesce(o.client_id, '') AS client_id, o.devices, o.created_at, o.created_by, o.expires_at,
    o.canceled_at, o.canceled_by"""
_RESULT = f"""d.operation_id, o.action, d.client_id, coalesce(c.name, d.client_id) AS device,
    {_STATE} AS state, d.sent_at, d.received_at, d.ended_at, d.code, d.text, o.created_at,
    o.expires_at"""


async def add(tx: Tx, made: Operation, client_ids: Sequence[str]) -> int:
    """For how many: clients that are blocked or gone get none."""
    await tx.execute(
        """INSERT INTO notifications_operation (id, action, target, collection_id, client_id,
               devices, created_at, created_by, expires_at)
           VALUES (%s, %s, %s, nullif(%s, ''), nullif(%s, ''), 0, %s, %s, %s)""",
        (
            made.id,
            made.action,
            made.target,
            made.collection_id,
            made.client_id,
            made.created_at,
            made.created_by,
            made.expires_at,
        ),
    )
    done = await tx.execute(
        """INSERT INTO notifications_order (operation_id, client_id, state)
           SELECT %s, id, 'waiting' FROM clients_client WHERE id = ANY(%s) AND NOT blocked""",
        (made.id, list(client_ids)),
    )
    await tx.execute(
        "UPDATE notifications_operation SET devices = %s WHERE id = %s", (done.rowcount, made.id)
    )
    return done.rowcount


async def reachable(tx: Tx, client_ids: Sequence[str], online_since: datetime) -> tuple[int, int]:
    """How many can be asked, and how many of them are online."""
    found = await tx.execute(
        """SELECT count(*) AS devices, count(*) FILTER (WHERE n.asked_at > %s) AS online
           FROM clients_client c LEFT JOIN notifications_channel n ON n.client_id = c.id
           WHERE c.id = ANY(%s) AND NOT c.blocked""",
        (online_since, list(client_ids)),
    )
    row = await found.fetchone()
    return (int(row["devices"]), int(row["online"])) if row else (0, 0)


async def nudge(tx: Tx, operation_id: str) -> None:
    await tx.execute("SELECT pg_notify(%s, %s)", (CHANNEL, operation_id))


async def policy_changed(tx: Tx, collection_id: str) -> None:
    await tx.execute("SELECT pg_notify(%s, %s)", (POLICY_CHANNEL, collection_id))


async def told_of(tx: Tx, operation_id: str, client_ids: Sequence[str]) -> list[str]:
    """Which of these an operation is for."""
    found = await tx.execute(
        "SELECT client_id FROM notifications_order WHERE operation_id = %s AND client_id = ANY(%s)",
        (operation_id, list(client_ids)),
    )
    return [row["client_id"] async for row in found]


async def forget(tx: Tx, before: datetime) -> int:
    done = await tx.execute("DELETE FROM notifications_operation WHERE created_at < %s", (before,))
    return done.rowcount


# Collections, and a SELECT of client ids with its named parameters.
Within = tuple[Sequence[str], str, Mapping[str, Any]]


def _seen(within: Within | None) -> tuple[str, dict[str, Any]]:
    """The condition of the operations for one of these collections or clients. An operation for a
    collection is for its members of then, who may have been others: its name is what is seen."""
    if within is None:
        return "true", {}
    ids, devices, named = within
    sql = f"(collection_id = ANY(%(seen_ids)s) OR client_id IN ({devices}))"
    return sql, {**named, "seen_ids": list(ids)}


async def operations(
    tx: Tx,
    now: datetime,
    limit: int,
    offset: int,
    wanted: str | None = None,
    within: Within | None = None,
) -> list[Operation]:
    """The newest first, or the one that is wanted."""
    seen, named = _seen(within)
    found = await tx.execute(
        f"""SELECT {_OPERATION}, counts.counts FROM (
                SELECT * FROM notifications_operation
                WHERE (%(wanted)s::text IS NULL OR id = %(wanted)s) AND {seen}
                ORDER BY created_at DESC, id LIMIT %(limit)s OFFSET %(offset)s) AS o,
            LATERAL (
                SELECT coalesce(jsonb_object_agg(state, n), '{{}}') AS counts FROM (
                    SELECT {_STATE} AS state, count(*) AS n FROM notifications_order d
                    WHERE d.operation_id = o.id GROUP BY 1) AS by_state) AS counts
            ORDER BY o.created_at DESC, o.id""".encode(),  # noqa: S608
        {**named, "now": now, "limit": limit, "offset": offset, "wanted": wanted},
    )
    return [Operation(**row) async for row in found]


async def count(tx: Tx, within: Within | None = None) -> int:
    seen, named = _seen(within)
    sql = f"SELECT count(*) AS n FROM notifications_operation WHERE {seen}"  # noqa: S608
    row = await (await tx.execute(sql.encode(), named)).fetchone()
    return int(row["n"]) if row else 0


async def results(
    tx: Tx,
    operation_id: str,
    now: datetime,
    state: str,
    limit: int,
    offset: int,
    within: Within | None = None,
) -> list[Result]:
    devices, named = (within[1], within[2]) if within else ("SELECT d.client_id", {})
    found = await tx.execute(
        f"""SELECT {_RESULT} FROM notifications_order d
            JOIN notifications_operation o ON o.id = d.operation_id
            LEFT JOIN clients_client c ON c.id = d.client_id
            WHERE d.operation_id = %(id)s AND (%(state)s = '' OR {_STATE} = %(state)s)
              AND d.client_id IN ({devices})
            ORDER BY lower(c.name), d.client_id LIMIT %(limit)s OFFSET %(offset)s""".encode(),  # noqa: S608
        {
            **named,
            "id": operation_id,
            "now": now,
            "state": state,
            "limit": limit,
            "offset": offset,
        },
    )
    return [Result(**row) async for row in found]


async def orders_of(tx: Tx, client_id: str, now: datetime, limit: int) -> list[Result]:
    found = await tx.execute(
        f"""SELECT {_RESULT} FROM notifications_order d
            JOIN notifications_operation o ON o.id = d.operation_id
            LEFT JOIN clients_client c ON c.id = d.client_id
            WHERE d.client_id = %(id)s ORDER BY o.created_at DESC, o.id
            LIMIT %(limit)s""".encode(),  # noqa: S608
        {"id": client_id, "now": now, "limit": limit},
    )
    return [Result(**row) async for row in found]


async def cancel(tx: Tx, operation_id: str, actor: str, now: datetime) -> int:
    await tx.execute(
        "UPDATE notifications_operation SET canceled_at = %s, canceled_by = %s WHERE id = %s",
        (now, actor, operation_id),
    )
    done = await tx.execute(
        """UPDATE notifications_order SET state = 'canceled', ended_at = %s
           WHERE operation_id = %s AND state IN ('waiting', 'sent')""",
        (now, operation_id),
    )
    return done.rowcount


# What a device asks and says.


async def due(tx: Tx, client_id: str, now: datetime, limit: int) -> list[ccm.Order]:
    """What the device has not taken yet, the oldest first; from now on it is sent."""
    found = await tx.execute(
        """WITH next AS (
               SELECT d.operation_id, o.action, o.expires_at, o.created_at
               FROM notifications_order d JOIN notifications_operation o ON o.id = d.operation_id
               WHERE d.client_id = %(id)s AND d.state IN ('waiting', 'sent')
                   AND o.expires_at > %(now)s
               ORDER BY o.created_at, o.id LIMIT %(limit)s),
           sent AS (
               UPDATE notifications_order d SET state = 'sent', sent_at = coalesce(sent_at, %(now)s)
               FROM next WHERE d.operation_id = next.operation_id AND d.client_id = %(id)s
                   AND d.state IN ('waiting', 'sent')  -- Not cancelled meanwhile.
               RETURNING next.operation_id AS id, next.action, next.expires_at, next.created_at)
           SELECT id, action, expires_at FROM sent ORDER BY created_at, id""",
        {"id": client_id, "now": now, "limit": limit},
    )
    return [ccm.Order(**row) async for row in found]


async def taken(tx: Tx, client_id: str, orders: Sequence[str], now: datetime) -> None:
    await tx.execute(
        """UPDATE notifications_order SET state = 'received', received_at = %s
           WHERE client_id = %s AND operation_id = ANY(%s) AND state IN ('waiting', 'sent')""",
        (now, client_id, list(orders)),
    )


async def end(tx: Tx, client_id: str, result: ccm.OrderResult, state: str, at: datetime) -> bool:
    """False when it had ended before, or is none of this client's. One that was cancelled too late
    has happened all the same."""
    done = await tx.execute(
        """UPDATE notifications_order SET state = %(state)s, ended_at = %(at)s, code = %(code)s,
               text = %(text)s, received_at = coalesce(received_at, %(at)s)
           WHERE client_id = %(client)s AND operation_id = %(id)s AND state NOT IN ('done', 'failed')""",
        {
            "state": state,
            "at": at,
            "code": result.code,
            "text": result.text,
            "client": client_id,
            "id": result.order,
        },
    )
    return done.rowcount == 1


async def mark(tx: Tx, client_id: str, location: ccm.Location, now: datetime) -> None:
    await tx.execute(
        """INSERT INTO notifications_channel (client_id, asked_at, network, reason, since)
           VALUES (%(id)s, %(now)s, %(network)s, %(reason)s, %(since)s)
           ON CONFLICT (client_id) DO UPDATE SET asked_at = excluded.asked_at,
               network = excluded.network, reason = excluded.reason, since = excluded.since""",
        {
            "id": client_id,
            "now": now,
            "network": location.network,
            "reason": location.reason,
            "since": location.since,
        },
    )


async def channel(tx: Tx, client_id: str, online_since: datetime) -> ChannelState:
    row: dict[str, Any] | None = await (
        await tx.execute(
            """SELECT asked_at, network, reason, since FROM notifications_channel
               WHERE client_id = %s""",
            (client_id,),
        )
    ).fetchone()
    if row is None:
        return ChannelState(False)
    where = ccm.Location(row["network"], row["reason"], row["since"])
    return ChannelState(row["asked_at"] > online_since, row["asked_at"], where)
