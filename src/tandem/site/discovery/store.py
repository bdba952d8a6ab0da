from datetime import datetime

from tandem.infra.database import Tx
from tandem.site.discovery.model import ChosenGroup, GroupSchedule, Run, Schedule

_RUN = "id, service, kind, state, started_at, finished_at, users, added, removed, groups, reason, cure, code"


async def begin(tx: Tx, service: str, kind: str, now: datetime) -> int:
    row = await (
        await tx.execute(
            "INSERT INTO discovery_run (service, kind, state, started_at)"
            " VALUES (%s, %s, 'running', %s) RETURNING id",
            (service, kind, now),
        )
    ).fetchone()
    assert row is not None
    return int(row["id"])


async def progressed(tx: Tx, id: int, users: int) -> None:
    """How many users a run that is under way has read."""
    await tx.execute(
        "UPDATE discovery_run SET users = %s WHERE id = %s AND state = 'running'", (users, id)
    )


async def succeeded(
    tx: Tx, id: int, now: datetime, *, users: int, added: int, removed: int, groups: int = 0
) -> None:
    await tx.execute(
        "UPDATE discovery_run SET state = 'succeeded', finished_at = %s, users = %s, added = %s,"
        " removed = %s, groups = %s WHERE id = %s",
        (now, users, added, removed, groups, id),
    )


async def failed(tx: Tx, id: int, now: datetime, *, reason: str, cure: str, code: str) -> None:
    await tx.execute(
        "UPDATE discovery_run SET state = 'failed', finished_at = %s, reason = %s, cure = %s,"
        " code = %s, users = 0 WHERE id = %s",
        (now, reason, cure, code, id),
    )


async def runs(tx: Tx, limit: int) -> list[Run]:
    found = await tx.execute(
        f"SELECT {_RUN} FROM discovery_run ORDER BY id DESC LIMIT %s",  # noqa: S608
        (limit,),
    )
    return [Run(**row) async for row in found]


async def run(tx: Tx, id: int) -> Run | None:
    row = await (
        await tx.execute(
            f"SELECT {_RUN} FROM discovery_run WHERE id = %s",  # noqa: S608
            (id,),
        )
    ).fetchone()
    return Run(**row) if row else None


async def forget_quiet(tx: Tx, service: str, id: int) -> None:
    """A delta run that found nothing is worth its place only until the next."""
    await tx.execute(
        "DELETE FROM discovery_run WHERE service = %s AND id < %s AND kind = 'delta'"
        " AND state = 'succeeded' AND users = 0 AND removed = 0",
        (service, id),
    )


async def under_way(tx: Tx) -> list[Run]:
    found = await tx.execute(f"SELECT {_RUN} FROM discovery_run WHERE state = 'running'")  # noqa: S608
    return [Run(**row) async for row in found]


async def is_running(tx: Tx, service: str) -> bool:
    found = await tx.execute(
        "SELECT FROM discovery_run WHERE service = %s AND state = 'running' LIMIT 1", (service,)
    )
    return await found.fetchone() is not None


# ---------------------------------------------------------------- schedules

_SCHEDULE = "service_id, full_days, delta_minutes, full_at, delta_at, delta_link"


async def schedule(tx: Tx, service_id: str) -> Schedule:
    """What was set, or the default."""
    row = await (
        await tx.execute(
            f"SELECT {_SCHEDULE} FROM discovery_schedule WHERE service_id = %s",  # noqa: S608
            (service_id,),
        )
    ).fetchone()
    return Schedule(**row) if row else Schedule(service_id)


async def save_schedule(tx: Tx, service_id: str, full_days: int, delta_minutes: int) -> None:
    await tx.execute(
        "INSERT INTO discovery_schedule (service_id, full_days, delta_minutes)"
        " VALUES (%s, %s, %s) ON CONFLICT (service_id) DO UPDATE"
        " SET full_days = EXCLUDED.full_days, delta_minutes = EXCLUDED.delta_minutes",
        (service_id, full_days, delta_minutes),
    )


async def asked(tx: Tx, service_id: str, kind: str, now: datetime) -> None:
    column = {"full": "full_at", "delta": "delta_at", "groups": "groups_at"}[kind]
    await tx.execute(
        f"INSERT INTO discovery_schedule (service_id, {column}) VALUES (%s, %s)"  # noqa: S608
        f" ON CONFLICT (service_id) DO UPDATE SET {column} = EXCLUDED.{column}",
        (service_id, now),
    )


async def save_link(tx: Tx, service_id: str, link: str) -> None:
    await tx.execute(
        "INSERT INTO discovery_schedule (service_id, delta_link) VALUES (%s, %s)"
        " ON CONFLICT (service_id) DO UPDATE SET delta_link = EXCLUDED.delta_link",
        (service_id, link),
    )


# ---------------------------------------------------------------- groups


async def group_schedule(tx: Tx, service_id: str) -> GroupSchedule:
    """What was set, or the default."""
    row = await (
        await tx.execute(
            "SELECT service_id, groups_enabled AS enabled, groups_hours AS every_hours,"
            " groups_at AS at FROM discovery_schedule WHERE service_id = %s",
            (service_id,),
        )
    ).fetchone()
    return GroupSchedule(**row) if row else GroupSchedule(service_id)


async def save_group_schedule(tx: Tx, service_id: str, enabled: bool, every_hours: int) -> None:
    await tx.execute(
        "INSERT INTO discovery_schedule (service_id, groups_enabled, groups_hours)"
        " VALUES (%s, %s, %s) ON CONFLICT (service_id) DO UPDATE"
        " SET groups_enabled = EXCLUDED.groups_enabled, groups_hours = EXCLUDED.groups_hours",
        (service_id, enabled, every_hours),
    )


async def chosen(tx: Tx, service_id: str) -> list[ChosenGroup]:
    found = await tx.execute(
        "SELECT object_id, name, added_at, state, members FROM discovery_group"
        " WHERE service_id = %s ORDER BY lower(name), object_id",
        (service_id,),
    )
    return [ChosenGroup(**row) async for row in found]


async def choose(tx: Tx, service_id: str, object_id: str, name: str, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO discovery_group (service_id, object_id, name, added_at)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (service_id, object_id) DO UPDATE"
        " SET name = EXCLUDED.name",
        (service_id, object_id, name, now),
    )


async def unchoose(tx: Tx, service_id: str, object_id: str) -> None:
    await tx.execute(
        "DELETE FROM discovery_group WHERE service_id = %s AND object_id = %s",
        (service_id, object_id),
    )


async def found_group(
    tx: Tx, service_id: str, object_id: str, name: str, state: str, members: int
) -> bool:
    """A chosen group as a run found it; False when it was taken out meanwhile."""
    done = await tx.execute(
        "UPDATE discovery_group SET name = %s, state = %s, members = %s"
        " WHERE service_id = %s AND object_id = %s",
        (name, state, members, service_id, object_id),
    )
    return done.rowcount == 1
