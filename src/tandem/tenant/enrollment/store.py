from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.infra.listing import Source
from tandem.protocols.ccm import ConfigInfo
from tandem.tenant.enrollment.model import Device, Event, management_agent

_DEVICE = (
    "id, windows_id, hardware_id, directory_device_id, user_id, upn, name, os_version, kind,"
    " state, fingerprint, enrolled_at, seen_at, ended_at, inventory, inventory_at, config_info,"
    " config_info_at"
)
DEVICE_COLUMNS = _DEVICE.split(", ")
# Statements of others may begin with these: the enrolled device of a certificate, and that it came.
BY_CERTIFICATE = (
    "SELECT id, windows_id, config_info, inventory, inventory_at FROM enrollment_device"
    " WHERE fingerprint = %(fingerprint)s AND state = 'enrolled'"
    " AND certificate_ends_at > %(now)s"
)
SEEN = "UPDATE enrollment_device SET seen_at = %(now)s"
_NOBODY = "'00000000-0000-0000-0000-000000000000'"
_DIRECTORY_ID = f"coalesce(nullif(d.directory_device_id, ''), {_NOBODY})"
# What an API may list and filter by, under Graph's names of a managed device.
DEVICES = Source(
    "enrollment_device d",
    {
        "id": "d.id",
        "user_id": "d.user_id",
        "device_name": "d.name",
        "managed_device_name": "coalesce(d.managed_name, split_part(d.upn, '@', 1) || '_Windows_'"
        " || to_char(d.enrolled_at AT TIME ZONE 'UTC', 'FMMM/FMDD/YYYY_FMHH12:MI AM'))",
        "managed_device_owner_type": "d.owner_type",
        "enrolled_date_time": "d.enrolled_at",
        "last_sync_date_time": "coalesce(d.seen_at, d.enrolled_at)",
        "operating_system": "'Windows'::text",
        "os_version": "d.os_version",
        # Compliance is the site's to judge until its workload has moved (windows-mdm, 6.2).
        "compliance_state": "CASE WHEN d.management_agent = 'configurationManagerClientMdm'"
        " AND d.workload_flags & 2 = 0 THEN 'configManager' ELSE 'unknown' END",
        "management_agent": "d.management_agent",
        "management_state": "d.management_state",
        "device_enrollment_type": "CASE WHEN d.directory_device_id = '' THEN 'userEnrollment'"
        " ELSE 'windowsAzureADJoin' END",
        "azure_ad_registered": "d.directory_device_id <> ''",
        "azure_ad_device_id": _DIRECTORY_ID,
        "user_principal_name": "d.upn",
        "model": "d.inventory->>'model'",
        "manufacturer": "d.inventory->>'manufacturer'",
        "serial_number": "d.inventory->>'serial_number'",
        "notes": "d.notes",
        "physical_memory_in_bytes": "CASE WHEN d.inventory->>'ram_mb' ~ '^[0-9]{1,9}$'"
        " THEN (d.inventory->>'ram_mb')::bigint * 1048576 END",
        "is_encrypted": "coalesce(d.inventory->>'encryption' = '1', false)",
        "inventory": "d.inventory",
        "config_info": "d.config_info",
        "config_info_at": "d.config_info_at",
        "certificate_ends_at": "d.certificate_ends_at",
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


async def lock(tx: Tx, ids: Iterable[str]) -> None:
    """One enrollment of a device at a time, until the transaction ends."""
    for id in sorted(set(ids) - {""}):
        await tx.execute("SELECT pg_advisory_xact_lock(hashtext('mdm-enrol:' || %s))", (id,))


async def key_is_anothers(tx: Tx, key_sha256: str, windows_id: str) -> bool:
    """Whether another device ever had a certificate for this key."""
    found = await tx.execute(
        "SELECT FROM enrollment_certificate c JOIN enrollment_device d ON d.id = c.device_id"
        " WHERE c.key_sha256 = %s AND d.windows_id <> %s LIMIT 1",
        (key_sha256, windows_id),
    )
    return await found.fetchone() is not None


async def of_hardware(tx: Tx, hardware_id: str, but: str) -> list[Device]:
    """Other enrollments that are not over, of what says it is the same hardware."""
    found = await tx.execute(
        f"SELECT {_DEVICE} FROM enrollment_device WHERE hardware_id = %s AND id <> %s"  # noqa: S608
        " AND hardware_id <> '' AND state <> 'unenrolled' ORDER BY enrolled_at DESC LIMIT 20",
        (hardware_id, but),
    )
    return [Device(**row) async for row in found]


async def never_came(tx: Tx, before: datetime) -> list[Device]:
    """Locked until the transaction ends; one that comes just now is passed over."""
    found = await tx.execute(
        f"SELECT {_DEVICE} FROM enrollment_device WHERE never_came"  # noqa: S608
        " AND state = 'enrolled' AND enrolled_at < %s ORDER BY enrolled_at LIMIT 1000"
        " FOR UPDATE SKIP LOCKED",
        (before,),
    )
    return [Device(**row) async for row in found]


async def insert(tx: Tx, made: Device, key_sha256: str) -> None:
    await tx.execute(
        "INSERT INTO enrollment_device (id, windows_id, hardware_id, directory_device_id, user_id,"
        " upn, name, os_version, kind, state, fingerprint, enrolled_at, key_sha256)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
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
            key_sha256,
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


async def some(tx: Tx, ids: Sequence[str], *, lock: bool = False) -> list[Device]:
    """By their ids. `lock`: nobody else changes them until the transaction ends; all lock in one
    order, so two that lock do not wait for each other."""
    found = await tx.execute(
        f"SELECT {_DEVICE} FROM enrollment_device WHERE id = ANY(%s) ORDER BY id"  # noqa: S608
        + (" FOR NO KEY UPDATE" if lock else ""),
        (list(ids),),
    )
    return [Device(**row) async for row in found]


async def devices_of(tx: Tx, user_id: str, upn: str) -> list[Device]:
    """By the index on user names; the id is what counts."""
    found = await tx.execute(
        f"SELECT {_DEVICE} FROM enrollment_device"  # noqa: S608
        " WHERE state <> 'unenrolled' AND upn = %s AND user_id = %s ORDER BY name, id",
        (upn, user_id),
    )
    return [Device(**row) async for row in found]


async def names_of(tx: Tx, ids: Iterable[str]) -> dict[str, str]:
    """Names by id, also of devices that have left."""
    found = await tx.execute(
        "SELECT id, name FROM enrollment_device WHERE id = ANY(string_to_array(%s, ','))",
        (",".join(ids),),
    )
    return {row["id"]: row["name"] async for row in found}


async def set_state(tx: Tx, id: str, state: str, ended_at: datetime | None) -> None:
    await tx.execute(
        "UPDATE enrollment_device SET state = %s, ended_at = %s WHERE id = %s",
        (state, ended_at, id),
    )


async def set_directory_device(tx: Tx, id: str, directory_device_id: str) -> None:
    await tx.execute(
        "UPDATE enrollment_device SET directory_device_id = %s WHERE id = %s",
        (directory_device_id, id),
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
    """The agent's account of itself, and what lists filter by of it."""
    agent = management_agent(ConfigInfo.read(text) if text else None)
    flags = ConfigInfo.read(text).flags if text else 0
    await tx.execute(
        "UPDATE enrollment_device SET config_info = %s, config_info_at = %s,"
        " management_agent = %s, workload_flags = %s WHERE id = %s",
        (text, now, agent, flags, id),
    )


async def set_management(tx: Tx, id: str, column: str, value: str | None) -> None:
    assert column in {"management_state", "owner_type", "managed_name", "notes"}
    await tx.execute(
        f"UPDATE enrollment_device SET {column} = %s WHERE id = %s",  # noqa: S608
        (value, id),
    )


async def set_management_state(tx: Tx, ids: Sequence[str], state: str) -> None:
    await tx.execute(
        "UPDATE enrollment_device SET management_state = %s WHERE id = ANY(%s)", (state, list(ids))
    )


async def count_by_agent(tx: Tx) -> dict[str, int]:
    found = await tx.execute(
        "SELECT management_agent, count(*) AS n FROM enrollment_device"
        " WHERE state <> 'unenrolled' GROUP BY 1"
    )
    return {row["management_agent"]: row["n"] async for row in found}


async def count_by_eligibility(tx: Tx) -> list[tuple[str, bool, bool, int]]:
    """(os_version, joined, co-managed, how many) over all enrolled devices."""
    found = await tx.execute(
        "SELECT os_version, directory_device_id <> '' AS joined,"
        " management_agent = 'configurationManagerClientMdm' AS together, count(*) AS n"
        " FROM enrollment_device WHERE state <> 'unenrolled' GROUP BY 1, 2, 3"
    )
    return [(r["os_version"], r["joined"], r["together"], r["n"]) async for r in found]


async def count_by_flags(tx: Tx) -> dict[int, int]:
    """Co-managed devices by the value of their workload flags."""
    found = await tx.execute(
        "SELECT workload_flags, count(*) AS n FROM enrollment_device"
        " WHERE state <> 'unenrolled' AND management_agent = 'configurationManagerClientMdm'"
        " GROUP BY 1"
    )
    return {row["workload_flags"]: row["n"] async for row in found}


async def add_event(
    tx: Tx,
    device_id: str,
    directory_device_id: str,
    now: datetime,
    kind: str,
    text: str,
    code: str,
    trace: str = "",
) -> None:
    await tx.execute(
        "INSERT INTO enrollment_event (device_id, directory_device_id, at, kind, text, code, trace)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (device_id, directory_device_id, now, kind, text, code, trace),
    )


async def add_events(
    tx: Tx,
    device_id: str,
    directory_device_id: str,
    now: datetime,
    kind: str,
    texts: Sequence[str],
    trace: str,
) -> None:
    await tx.execute(
        "INSERT INTO enrollment_event (device_id, directory_device_id, at, kind, text, code, trace)"
        " SELECT %s, %s, %s, %s, text, '', %s"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS t (text, n) ORDER BY n",
        (device_id, directory_device_id, now, kind, trace, list(texts)),
    )


async def add_event_of_each(
    tx: Tx, device_ids: Sequence[str], now: datetime, kind: str, text: str
) -> None:
    await tx.execute(
        "INSERT INTO enrollment_event (device_id, directory_device_id, at, kind, text, code)"
        " SELECT id, directory_device_id, %s, %s, %s, '' FROM enrollment_device"
        " WHERE id = ANY(%s) ORDER BY id",
        (now, kind, text, list(device_ids)),
    )


async def events(tx: Tx, *, device_id: str = "", kind: str = "", limit: int = 500) -> list[Event]:
    found = await tx.execute(
        "SELECT id, device_id, directory_device_id, at, kind, text, code, trace"
        " FROM enrollment_event"
        " WHERE (%(d)s = '' OR device_id = %(d)s) AND (%(k)s = '' OR kind = %(k)s)"
        " ORDER BY id DESC LIMIT %(n)s",
        {"d": device_id, "k": kind, "n": limit},
    )
    return [Event(**row) async for row in found]
