from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.tenant.sessions.actions import Progress, Safeguards, State

_STEPS = [item.name for item in fields(Progress)]
_PROGRESS = "o.id, o.device_id, o.request_id::text AS request_id, o.created_at, " + ", ".join(
    f"o.{name}" for name in _STEPS
)


@dataclass(frozen=True, slots=True)
class Order:
    """An order for one device."""

    id: int
    device_id: str
    request_id: str | None
    created_at: datetime
    progress: Progress


@dataclass(frozen=True, slots=True)
class Request:
    """An order that nothing brings back, as it was asked for."""

    id: str
    kind: str
    data: str
    reason: str
    asked_by: str
    asked_by_name: str
    needs_approval: bool
    decision: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """Weaker safeguards that wait for a second administrator."""

    safeguards: Safeguards
    by: str
    by_name: str
    at: datetime


def _order(row: dict[str, Any]) -> Order:
    values = dict(row)
    progress = {name: values.pop(name) for name in _STEPS}
    return Order(**values, progress=Progress(**{**progress, "state": State(row["state"])}))


async def add_orders(
    tx: Tx,
    device_ids: Sequence[str],
    order: Progress,
    by: str,
    now: datetime,
    request_id: str | None = None,
) -> list[Order]:
    """The same order for each of these devices; in the order of their ids, as they are locked."""
    found = await tx.execute(
        "INSERT INTO sessions_order (device_id, request_id, kind, data, state, asked_by_name,"
        " created_at, expires_at, held_until, sent_at, ended_at, code, why)"
        " SELECT id, %s::uuid, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS t (id, n) ORDER BY n RETURNING id, device_id",
        (
            request_id, order.kind, order.data, order.state, by, now, order.expires_at,
            order.held_until, order.sent_at, order.ended_at, order.code, order.why,
            sorted(device_ids),
        ),
    )  # fmt: skip
    return [Order(row["id"], row["device_id"], request_id, now, order) async for row in found]


async def save(tx: Tx, ids: Sequence[int], order: Progress) -> None:
    """How far these orders are now."""
    await tx.execute(
        "UPDATE sessions_order SET state = %s, expires_at = %s, held_until = %s, sent_at = %s,"
        " accepted_at = %s, ended_at = %s, code = %s, why = %s WHERE id = ANY(%s)",
        (
            order.state, order.expires_at, order.held_until, order.sent_at, order.accepted_at,
            order.ended_at, order.code, order.why, list(ids),
        ),
    )  # fmt: skip


async def open_orders(tx: Tx, device_id: str) -> list[Order]:
    """Of one device, the oldest first; locked, so that none is cancelled while it is given."""
    found = await tx.execute(
        f"SELECT {_PROGRESS} FROM sessions_order o"  # noqa: S608
        " WHERE o.device_id = %s AND o.ended_at IS NULL ORDER BY o.id"
        " FOR NO KEY UPDATE",
        (device_id,),
    )
    return [_order(row) async for row in found]


async def open_orders_of(tx: Tx, device_ids: Sequence[str], kinds: Sequence[str]) -> list[Order]:
    """Of several devices and these kinds."""
    found = await tx.execute(
        f"SELECT {_PROGRESS} FROM sessions_order o"  # noqa: S608
        " WHERE o.device_id = ANY(%s) AND o.kind = ANY(%s) AND o.ended_at IS NULL ORDER BY o.id",
        (list(device_ids), list(kinds)),
    )
    return [_order(row) async for row in found]


async def order(tx: Tx, id: int) -> Order | None:
    """Locked, with its device first: as a session locks them."""
    found = await tx.execute(
        f"SELECT {_PROGRESS} FROM enrollment_device d"  # noqa: S608
        " JOIN sessions_order o ON o.device_id = d.id WHERE o.id = %s FOR NO KEY UPDATE OF d, o",
        (id,),
    )
    row = await found.fetchone()
    return _order(row) if row is not None else None


async def orders_of_request(tx: Tx, request_id: str) -> list[Order]:
    """Those that are not over, locked, each with its device first."""
    found = await tx.execute(
        f"SELECT {_PROGRESS} FROM enrollment_device d"  # noqa: S608
        " JOIN sessions_order o ON o.device_id = d.id"
        " WHERE o.request_id = %s::uuid AND o.ended_at IS NULL ORDER BY o.id"
        " FOR NO KEY UPDATE OF d, o",
        (request_id,),
    )
    return [_order(row) async for row in found]


async def timed(tx: Tx, now: datetime, answers: datetime, limit: int) -> list[Order]:
    """Open orders that time may have moved, of those that nobody else is looking at.

    `answers` is before when something has to have been given for its silence to mean anything.
    """
    found = await tx.execute(
        f"SELECT {_PROGRESS} FROM enrollment_device d"  # noqa: S608
        " JOIN sessions_order o ON o.device_id = d.id WHERE o.ended_at IS NULL AND ("
        "  d.state = 'unenrolled'"
        "  OR (o.state IN ('approval', 'held', 'pending') AND o.expires_at <= %(now)s)"
        "  OR (o.state = 'held' AND o.held_until <= %(now)s)"
        "  OR (o.state IN ('sent', 'accepted') AND o.sent_at <= %(answers)s))"
        " ORDER BY o.id LIMIT %(limit)s FOR NO KEY UPDATE OF d, o SKIP LOCKED",
        {"now": now, "answers": answers, "limit": limit},
    )
    return [_order(row) async for row in found]


async def latest(tx: Tx, device_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What administrators ordered of these devices, the newest of a kind last."""
    found = await tx.execute(
        "SELECT device_id, kind, state, code, created_at, coalesce(ended_at, sent_at, created_at)"
        " AS changed_at FROM sessions_order WHERE device_id = ANY(string_to_array(%s, ','))"
        " ORDER BY id",
        (",".join(device_ids),),  # A page has a thousand: one text is written faster than a list.
    )
    return [row async for row in found]


async def wanted_since(tx: Tx, directory_device_id: str, now: datetime) -> datetime | None:
    """Since when an order waits for a session of this device of the directory; None: none does."""
    row = await (
        await tx.execute(
            "SELECT max(coalesce(o.held_until, o.created_at)) AS at FROM sessions_order o"
            " JOIN enrollment_device d ON d.id = o.device_id"
            " WHERE d.directory_device_id = %s AND d.state <> 'unenrolled' AND o.ended_at IS NULL"
            " AND (o.state = 'pending' OR (o.state = 'held' AND o.held_until <= %s)"
            "      OR (o.state = 'sent' AND o.kind = 'syncDevice'))",
            (directory_device_id, now),
        )
    ).fetchone()
    return row["at"] if row is not None else None


# ---------------------------------------------------------------------------------- requests


async def lock_budget(tx: Tx, asked_by: str) -> None:
    """Two orders of one administrator at once do not both find the same budget."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('order-budget:' || %s))", (asked_by,))


async def spent(tx: Tx, asked_by: str, since: datetime) -> tuple[int, datetime | None]:
    """Devices that this administrator sent away alone since then, and when it began."""
    row = await (
        await tx.execute(
            "SELECT coalesce(sum(device_count), 0) AS devices, min(asked_at) AS at"
            " FROM sessions_request WHERE asked_by = %s AND asked_at > %s AND NOT needs_approval",
            (asked_by, since),
        )
    ).fetchone()
    assert row is not None
    return int(row["devices"]), row["at"]


async def waiting(tx: Tx, asked_by: str) -> int:
    """Requests of this administrator that nobody has decided yet."""
    row = await (
        await tx.execute(
            "SELECT count(DISTINCT r.id) AS n FROM sessions_request r"
            " JOIN sessions_order o ON o.request_id = r.id"
            " WHERE r.asked_by = %s AND o.state = 'approval'",
            (asked_by,),
        )
    ).fetchone()
    assert row is not None
    return int(row["n"])


async def add_request(
    tx: Tx,
    kind: str,
    data: str,
    reason: str,
    by: tuple[str, str],
    counts: tuple[int, int],
    needs_approval: bool,
    now: datetime,
) -> str:
    row = await (
        await tx.execute(
            "INSERT INTO sessions_request (kind, data, reason, asked_by, asked_by_name, asked_at,"
            " device_count, user_count, needs_approval) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " RETURNING id::text AS id",
            (kind, data, reason, *by, now, *counts, needs_approval),
        )
    ).fetchone()
    assert row is not None
    return str(row["id"])


async def request(tx: Tx, id: str) -> Request | None:
    """Locked."""
    row = await (
        await tx.execute(
            "SELECT id::text AS id, kind, data, reason, asked_by, asked_by_name, needs_approval,"
            " decision FROM sessions_request WHERE id = %s::uuid FOR UPDATE",
            (id,),
        )
    ).fetchone()
    return Request(**row) if row is not None else None


async def decide(tx: Tx, id: str, decision: str, by_name: str, reason: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE sessions_request SET decision = %s, decided_by_name = %s, decision_reason = %s,"
        " decided_at = %s WHERE id = %s::uuid",
        (decision, by_name, reason, now, id),
    )


# ---------------------------------------------------------------------------------- safeguards


async def lock_safeguards(tx: Tx) -> None:
    """One change at a time: an approval must not take back what another one has made stronger."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('action-safeguards'))")


async def safeguards(tx: Tx) -> tuple[Safeguards | None, Proposal | None]:
    """What administrators set, and what one of them proposes."""
    row = await (
        await tx.execute(
            "SELECT settings, proposal, proposed_by, proposed_by_name, proposed_at"
            " FROM sessions_safeguards"
        )
    ).fetchone()
    if row is None:
        return None, None
    kept = msgspec.convert(row["settings"], Safeguards) if row["settings"] is not None else None
    if row["proposal"] is None:
        return kept, None
    proposed = msgspec.convert(row["proposal"], Safeguards)
    return kept, Proposal(proposed, row["proposed_by"], row["proposed_by_name"], row["proposed_at"])


async def save_safeguards(tx: Tx, settings: Safeguards | None, proposal: Proposal | None) -> None:
    def kept(value: Safeguards | None) -> Jsonb | None:
        return Jsonb(msgspec.to_builtins(value)) if value is not None else None

    await tx.execute(
        "INSERT INTO sessions_safeguards"
        " (settings, proposal, proposed_by, proposed_by_name, proposed_at)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (one) DO UPDATE SET settings = EXCLUDED.settings,"
        " proposal = EXCLUDED.proposal, proposed_by = EXCLUDED.proposed_by,"
        " proposed_by_name = EXCLUDED.proposed_by_name, proposed_at = EXCLUDED.proposed_at",
        (
            kept(settings),
            kept(proposal.safeguards if proposal else None),
            proposal.by if proposal else "",
            proposal.by_name if proposal else "",
            proposal.at if proposal else None,
        ),
    )


async def devices_of_requests(
    tx: Tx, request_ids: Sequence[str]
) -> dict[str, list[dict[str, str]]]:
    found = await tx.execute(
        "SELECT request_id, id, name, upn, state FROM ("
        " SELECT o.request_id::text AS request_id, d.id, d.name, d.upn, o.state,"
        "  row_number() OVER (PARTITION BY o.request_id ORDER BY d.name, d.id) AS n"
        "  FROM sessions_order o JOIN enrollment_device d ON d.id = o.device_id"
        "  WHERE o.request_id = ANY(%s::uuid[])) numbered WHERE n <= 200 ORDER BY request_id, n",
        (list(request_ids),),
    )
    devices: dict[str, list[dict[str, str]]] = {}
    async for row in found:
        entry = {"id": row["id"], "deviceName": row["name"], "userPrincipalName": row["upn"]}
        devices.setdefault(row["request_id"], []).append({**entry, "state": row["state"]})
    return devices
