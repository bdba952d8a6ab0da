from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.infra.listing import Source
from tandem.tenant.enrollment.model import Device, Event

_DEVICE = (
    "id, windows_id, hardware_id, directory_device_id, user_id, upn, name, os_version, kind,"
    " state, fingerprint, enrolled_at, seen_at, ended_at, inventory, inventory_at, config_info,"
    " config_info_at"
)
DEVICES = Source(
    "enrollment_device d",
    {
        name: f"d.{name}"
        for name in (
            "id",
            "windows_id",
            "directory_device_id",
            "user_id",
            "upn",
            "name",
            "os_version",
            "state",
            "enrolled_at",
            "seen_at",
            "inventory",
            "config_info",
        )
    },
)


async def authority(tx: Tx) -> tuple[bytes, bytes] | None:
    row = await (
        await tx.execute("SELECT sealed_key, certificate FROM enrollment_authority")
    ).fetchone()
    return (bytes(row["sealed_key"]), bytes(row["certificate"])) if row else None


async def insert_authority(tx: Tx, sealed_key: bytes, certificate: bytes) -> None:
    await tx.execute(
        "INSERT INTO enrollment_authority (sealed_key, certificate) VALUES (%s, %s)"
        " ON CONFLICT DO NOTHING",
        (sealed_key, certificate),
    )


async def insert(tx: Tx, made: Device) -> None:
    await tx.execute(
        "INSERT INTO enrollment_device (id, windows_id, hardware_id, directory_device_id, user_id,"
        " upn, name, os_version, kind, state, fingerprint, enrolled_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.windows_id,
            made.hardware_id,
            made.directory_device_id,
            made.user_id,
            made.upn,
            made.name,
            made.os_version,
            made.kind,
            made.state,
            made.fingerprint,
            made.enrolled_at,
        ),
    )


async def device(tx: Tx, column: str, value: str) -> Device | None:
    """By id, fingerprint or directory_device_id; the newest that is not over first."""
    assert column in {"id", "fingerprint", "directory_device_id", "windows_id"}
    row = await (
        await tx.execute(
            f"SELECT {_DEVICE} FROM enrollment_device WHERE {column} = %s"  # noqa: S608
            " ORDER BY state = 'unenrolled', enrolled_at DESC LIMIT 1",
            (value,),
        )
    ).fetchone()
    return Device(**row) if row else None


async def devices(tx: Tx) -> list[Device]:
    found = await tx.execute(
        f"SELECT {_DEVICE} FROM enrollment_device"  # noqa: S608
        " WHERE state <> 'unenrolled' ORDER BY name, id"
    )
    return [Device(**row) async for row in found]


async def set_state(tx: Tx, id: str, state: str, ended_at: datetime | None) -> None:
    await tx.execute(
        "UPDATE enrollment_device SET state = %s, ended_at = %s WHERE id = %s",
        (state, ended_at, id),
    )


async def mark_seen(tx: Tx, id: str, now: datetime) -> None:
    await tx.execute("UPDATE enrollment_device SET seen_at = %s WHERE id = %s", (now, id))


async def save_inventory(tx: Tx, id: str, values: dict[str, Any], at: datetime | None) -> None:
    """`at`: when the device was asked for all of it; None for what it says by itself."""
    await tx.execute(
        "UPDATE enrollment_device SET inventory = inventory || %s,"
        " inventory_at = coalesce(%s, inventory_at),"
        " os_version = coalesce(nullif(%s, ''), os_version),"
        " name = coalesce(nullif(%s, ''), name) WHERE id = %s",
        (Jsonb(values), at, values.get("os_version", ""), values.get("name", ""), id),
    )


async def save_config_info(tx: Tx, id: str, text: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE enrollment_device SET config_info = %s, config_info_at = %s WHERE id = %s",
        (text, now, id),
    )


async def add_event(
    tx: Tx, device_id: str, directory_device_id: str, now: datetime, kind: str, text: str, code: str
) -> None:
    await tx.execute(
        "INSERT INTO enrollment_event (device_id, directory_device_id, at, kind, text, code)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (device_id, directory_device_id, now, kind, text, code),
    )


async def events(tx: Tx, *, device_id: str = "", kind: str = "", limit: int = 500) -> list[Event]:
    found = await tx.execute(
        "SELECT id, device_id, directory_device_id, at, kind, text, code FROM enrollment_event"
        " WHERE (%(d)s = '' OR device_id = %(d)s) AND (%(k)s = '' OR kind = %(k)s)"
        " ORDER BY id DESC LIMIT %(n)s",
        {"d": device_id, "k": kind, "n": limit},
    )
    return [Event(**row) async for row in found]
