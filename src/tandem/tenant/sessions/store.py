from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.protocols.syncml import Message
from tandem.tenant import enrollment
from tandem.tenant.sessions.course import NEW, Course
from tandem.tenant.sessions.model import LAPSED, Delivery, Hold, Sent, Stray


@dataclass(frozen=True, slots=True)
class Session:
    """`sent` is, by our message's number and the command's id, what this session asked for.

    `asked`: the questions of its first message are not answered yet. `first_sha256` is the
    digest of that message. `snapshot` is that of the database in which there was nothing to do
    for the device; of a session that was read, the one that it was read in.
    """

    session: str
    number: int
    answer: bytes
    sent: dict[str, dict[str, Sent]]
    asked: bool
    changed_at: datetime
    first_sha256: str
    snapshot: str | None = None
    course: Course = NEW


def _json(value: object) -> Jsonb:
    return Jsonb(value, dumps=msgspec.json.encode)


async def session(tx: Tx, device_id: str) -> Session | None:
    """The device's session, locked: a device talks to one of us at a time."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('mdm-session:' || %s))", (device_id,))
    row = await (
        await tx.execute(
            "SELECT session, number, answer, sent, asked, changed_at, first_sha256, course,"
            " pg_current_snapshot()::text AS snapshot FROM sessions_session WHERE device_id = %s",
            (device_id,),
        )
    ).fetchone()
    if row is None:
        return None
    sent = msgspec.convert(row["sent"], dict[str, dict[str, Sent]])
    course = msgspec.convert(row["course"], Course)
    return Session(**{**row, "answer": bytes(row["answer"]), "sent": sent, "course": course})


async def save_session(tx: Tx, device_id: str, kept: Session) -> None:
    await tx.execute(
        "INSERT INTO sessions_session"
        " (device_id, session, number, answer, sent, asked, changed_at, first_sha256, settled,"
        " settled_at, course) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::pg_snapshot, %s, %s)"
        " ON CONFLICT (device_id) DO UPDATE SET"
        " session = EXCLUDED.session, number = EXCLUDED.number, answer = EXCLUDED.answer,"
        " sent = EXCLUDED.sent, asked = EXCLUDED.asked, changed_at = EXCLUDED.changed_at,"
        " first_sha256 = EXCLUDED.first_sha256, settled = EXCLUDED.settled,"
        " settled_at = EXCLUDED.settled_at, course = EXCLUDED.course",
        (
            device_id,
            kept.session,
            kept.number,
            kept.answer,
            _json(kept.sent),
            kept.asked,
            kept.changed_at,
            kept.first_sha256,
            kept.snapshot,
            kept.changed_at,
            _json(kept.course),
        ),
    )


# Longer than this nobody remembers what has changed.
_REMEMBERED = timedelta(days=2)


# A settled device without orders; `d` is it by its certificate, `s` its last message.
_BY_CERTIFICATE = f"({enrollment.BY_CERTIFICATE}) d"
_QUIET = """WHERE s.device_id = d.id AND d.windows_id = %(source)s AND s.settled IS NOT NULL
    AND NOT EXISTS (SELECT FROM sessions_order o
        WHERE o.device_id = d.id AND o.ended_at IS NULL)"""
# The device's last session is still the one that it was.
_SAME = "(s.session, s.number, s.changed_at) = (%(old_session)s, %(old_number)s, %(old_at)s)"
_BEGUN = """session = %(session)s, sent = %(sent)s, changed_at = %(now)s, first_sha256 = %(first)s,
    course = %(course)s
        || CASE WHEN s.course ? 'holds' THEN '{"holds": true}' ELSE '{}' END::jsonb"""


@dataclass(frozen=True, slots=True)
class Last:
    """The session that a settled device had last."""

    device_id: str
    session: str
    number: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Begun:
    """A session of a settled device whose first message was answered, and nothing written of it."""

    last: Last
    session: str
    answer: bytes
    sent: Mapping[str, Mapping[str, Sent]]
    first_sha256: str
    course: Course
    at: datetime


async def settled(
    tx: Tx,
    fingerprint: str,
    message: Message,
    told: Mapping[str, str],
    now: datetime,
    inventory_since: datetime,
) -> Last | None:
    """What a device that is settled, and is as it tells, did last."""
    row = await (
        await tx.execute(
            "SELECT s.device_id, s.session, s.number, s.changed_at FROM sessions_session s,"  # noqa: S608
            f" {_BY_CERTIFICATE} {_QUIET} AND (s.session, s.number) <> (%(session)s, 1)"
            " AND d.inventory @> %(told)s AND d.inventory ? 'serial_number'"
            " AND d.inventory_at >= %(since)s",
            {
                "fingerprint": fingerprint,
                "source": message.source,
                "session": message.session,
                "now": now,
                "told": _json(told),
                "since": inventory_since,
            },
        )
    ).fetchone()
    return Last(**row) if row is not None else None


async def begin(tx: Tx, begun: Begun) -> None:
    """Write a session that does not go on quietly. It stays as it is when there is a later one."""
    await tx.execute(
        f"UPDATE sessions_session s SET number = 1, answer = %(answer)s, asked = true, {_BEGUN}"  # noqa: S608
        f" WHERE device_id = %(device)s AND {_SAME}",
        {**_values(begun), "answer": begun.answer, "now": begun.at},
    )


async def end_quietly(
    tx: Tx,
    fingerprint: str,
    source: str,
    begun: Begun,
    config_info: str,
    answer: bytes,
    now: datetime,
) -> bool:
    """Whether the device answers what is known, and nothing has changed since there was nothing to
    do; all of its session is written then.

    Read and written in one statement, so that what it looks at is what it remembers.
    """
    done = await tx.execute(
        "WITH done AS (UPDATE sessions_session s SET number = 2, answer = %(answer)s,"  # noqa: S608
        f" asked = false, settled = pg_current_snapshot(), settled_at = %(now)s, {_BEGUN}"
        f" FROM {_BY_CERTIFICATE} {_QUIET} AND {_SAME}"
        " AND d.config_info = %(config_info)s AND s.settled_at > %(oldest)s"
        # Where the database was restored elsewhere, transactions are counted anew.
        " AND pg_snapshot_xmax(s.settled) <= pg_snapshot_xmax(pg_current_snapshot())"
        " AND NOT EXISTS (SELECT FROM sessions_change c WHERE c.xid >= pg_snapshot_xmin(s.settled)"
        " AND NOT pg_visible_in_snapshot(c.xid, s.settled)) RETURNING s.device_id)"
        f" {enrollment.SEEN} WHERE id IN (SELECT device_id FROM done)",
        {
            **_values(begun),
            "fingerprint": fingerprint,
            "source": source,
            "answer": answer,
            "config_info": config_info,
            "now": now,
            "oldest": now - _REMEMBERED / 2,
        },
    )
    return done.rowcount == 1


def _values(begun: Begun) -> dict[str, object]:
    return {
        "device": begun.last.device_id,
        "old_session": begun.last.session,
        "old_number": begun.last.number,
        "old_at": begun.last.changed_at,
        "session": begun.session,
        "sent": _json(begun.sent),
        "first": begun.first_sha256,
        "course": _json(begun.course),
    }


async def unsettle(tx: Tx, device_id: str) -> None:
    """Have the device's next session computed, though nothing that is watched was changed."""
    await tx.execute(
        "UPDATE sessions_session SET settled = NULL WHERE device_id = %s", (device_id,)
    )


async def forget_changes(tx: Tx, now: datetime) -> None:
    await tx.execute("DELETE FROM sessions_change WHERE at < %s", (now - _REMEMBERED,))


# ---------------------------------------------------------------------- large objects


async def begin_object(tx: Tx, device_id: str, size: int, data: str) -> None:
    await tx.execute(
        "INSERT INTO sessions_object (device_id, size, data) VALUES (%s, %s, %s)"
        " ON CONFLICT (device_id) DO UPDATE SET size = EXCLUDED.size, data = EXCLUDED.data",
        (device_id, size, data),
    )


async def add_part(tx: Tx, device_id: str, data: str, most: int) -> tuple[int, str]:
    """The announced size and all there is of it now; never much more than `most`."""
    row = await (
        await tx.execute(
            "UPDATE sessions_object SET data = left(data || %s, %s) WHERE device_id = %s"
            " RETURNING size, data",
            (data, most + 1, device_id),
        )
    ).fetchone()
    return (row["size"], row["data"]) if row is not None else (0, "")


async def end_object(tx: Tx, device_id: str) -> None:
    await tx.execute("DELETE FROM sessions_object WHERE device_id = %s", (device_id,))


# ---------------------------------------------------------------------- set aside


async def hold(tx: Tx, device_id: str, held: Hold, mark: str) -> None:
    await tx.execute(
        "INSERT INTO sessions_hold (device_id, kind, subject, value_mark, code, reason, at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (device_id, kind, subject) DO UPDATE SET"
        " value_mark = EXCLUDED.value_mark, code = EXCLUDED.code, reason = EXCLUDED.reason,"
        " at = EXCLUDED.at",
        (device_id, held.kind, held.subject, mark, held.code, held.reason, held.at),
    )
    await tx.execute(
        "UPDATE sessions_session SET course = course || '{\"holds\": true}' WHERE device_id = %s",
        (device_id,),
    )


async def held_marks(tx: Tx, device_id: str) -> dict[tuple[str, str], str]:
    found = await tx.execute(
        "SELECT kind, subject, value_mark FROM sessions_hold WHERE device_id = %s", (device_id,)
    )
    return {(row["kind"], row["subject"]): row["value_mark"] async for row in found}


async def holds(tx: Tx, device_id: str, subjects: Sequence[str] | None = None) -> list[Hold]:
    """Of one device, or of all devices for these subjects; the newest first."""
    found = await tx.execute(
        "SELECT device_id, kind, subject, code, reason, at FROM sessions_hold"
        " WHERE (%(d)s = '' OR device_id = %(d)s)"
        " AND (%(s)s::text[] IS NULL OR subject = ANY(%(s)s::text[])) ORDER BY at DESC, subject",
        {"d": device_id, "s": list(subjects) if subjects is not None else None},
    )
    return [Hold(**row) async for row in found]


async def release(tx: Tx, device_id: str, kind: str, subject: str) -> list[Hold]:
    """Take it off the list; empty `kind` and `subject` are all of the device's."""
    found = await tx.execute(
        "DELETE FROM sessions_hold WHERE device_id = %(d)s"
        " AND (%(k)s = '' OR kind = %(k)s) AND (%(s)s = '' OR subject = %(s)s)"
        " RETURNING device_id, kind, subject, code, reason, at",
        {"d": device_id, "k": kind, "s": subject},
    )
    return [Hold(**row) async for row in found]


# ---------------------------------------------------------------------- what a device can do


async def save_capabilities(tx: Tx, device_id: str, build: str, csps: dict[str, str]) -> None:
    await tx.execute(
        "INSERT INTO sessions_capability (device_id, build, csps) VALUES (%s, %s, %s)"
        " ON CONFLICT (device_id) DO UPDATE SET build = EXCLUDED.build, csps = EXCLUDED.csps",
        (device_id, build, Jsonb(csps)),
    )


async def capabilities(tx: Tx, device_id: str) -> tuple[str, dict[str, str]]:
    row = await (
        await tx.execute(
            "SELECT build, csps FROM sessions_capability WHERE device_id = %s", (device_id,)
        )
    ).fetchone()
    return (row["build"], dict(row["csps"])) if row is not None else ("", {})


# ---------------------------------------------------------------------- left, and calling


async def stray_called(tx: Tx, device_id: str, now: datetime) -> Stray:
    """Count a call of a device that has left."""
    row = await (
        await tx.execute(
            "INSERT INTO sessions_stray (device_id, first_at, last_at) VALUES (%s, %s, %s)"
            " ON CONFLICT (device_id) DO UPDATE SET last_at = EXCLUDED.last_at,"
            " calls = least(sessions_stray.calls + 1, 1000000)"
            " RETURNING device_id, first_at, last_at, calls, ordered_at, told_at",
            (device_id, now, now),
        )
    ).fetchone()
    assert row is not None
    return Stray(**row)


async def strays(tx: Tx, device_id: str = "") -> list[Stray]:
    found = await tx.execute(
        "SELECT device_id, first_at, last_at, calls, ordered_at, told_at FROM sessions_stray"
        " WHERE %(d)s = '' OR device_id = %(d)s ORDER BY last_at DESC",
        {"d": device_id},
    )
    return [Stray(**row) async for row in found]


async def order_stray(tx: Tx, device_id: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE sessions_stray SET ordered_at = %s, told_at = NULL WHERE device_id = %s",
        (now, device_id),
    )


async def stray_told(tx: Tx, device_id: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE sessions_stray SET told_at = %s WHERE device_id = %s", (now, device_id)
    )


async def forget_stray(tx: Tx, device_id: str) -> None:
    await tx.execute("DELETE FROM sessions_stray WHERE device_id = %s", (device_id,))


# ---------------------------------------------------------------------- settings


async def deliveries(tx: Tx, device_id: str) -> dict[str, Delivery]:
    # The column source names the workload as whose part the setting was given.
    found = await tx.execute(
        "SELECT subject, value, code, source AS workload, error, added, at FROM sessions_delivery"
        " WHERE device_id = %s ORDER BY subject",
        (device_id,),
    )
    return {row["subject"]: Delivery(**row) async for row in found}


async def deliveries_of(tx: Tx, device_ids: Sequence[str]) -> dict[str, dict[str, Delivery]]:
    found: dict[str, dict[str, Delivery]] = {}
    rows = await tx.execute(
        "SELECT device_id, subject, value, code, source AS workload, error, added, at"
        " FROM sessions_delivery WHERE device_id = ANY(%s) ORDER BY device_id, subject",
        (list(device_ids),),
    )
    async for row in rows:
        device_id = row.pop("device_id")
        found.setdefault(device_id, {})[row["subject"]] = Delivery(**row)
    return found


async def save_deliveries(tx: Tx, device_id: str, kept: Sequence[Delivery], now: datetime) -> None:
    """One statement for a message's worth of them; each names another setting."""
    await tx.execute(
        "INSERT INTO sessions_delivery (device_id, subject, value, code, source, error, added, at)"
        " SELECT %s, subject, value, code, source, error, added, %s FROM unnest(%s::text[],"
        " %s::text[], %s::integer[], %s::text[], %s::text[], %s::boolean[])"
        " AS given (subject, value, code, source, error, added)"
        " ON CONFLICT (device_id, subject) DO UPDATE SET value = EXCLUDED.value,"
        " code = EXCLUDED.code, source = EXCLUDED.source, error = EXCLUDED.error,"
        " added = EXCLUDED.added, at = EXCLUDED.at",
        (
            device_id,
            now,
            [one.subject for one in kept],
            [one.value for one in kept],
            [one.code for one in kept],
            [one.workload for one in kept],
            [one.error for one in kept],
            [one.added for one in kept],
        ),
    )


async def lapse_deliveries(tx: Tx, device_id: str, subjects: Sequence[str]) -> None:
    await tx.execute(
        "UPDATE sessions_delivery SET code = %s WHERE device_id = %s AND subject = ANY(%s)",
        (LAPSED, device_id, list(subjects)),
    )


async def forget_deliveries(tx: Tx, device_id: str, subjects: Sequence[str]) -> None:
    await tx.execute(
        "DELETE FROM sessions_delivery WHERE device_id = %s AND subject = ANY(%s)",
        (device_id, list(subjects)),
    )
