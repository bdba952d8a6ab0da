from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.tenant.mobile_apps.model import (
    MSI,
    App,
    Block,
    Chosen,
    ContentFile,
    Status,
    UploadState,
)

_APP = (
    "id, name, description, publisher, command_line, file_name, product_code, product_version,"
    " upgrade_code, sha256, size_bytes, state, reason, created_at, type, properties,"
    " committed_version, changed_at, package_type"
)
_FILE = (
    "id, app_id, version, name, size_bytes, encrypted_bytes, manifest, is_dependency, state,"
    " reason, generation, expires_at, blocks, sealed, sha256, facts, created_at"
)


async def apps(tx: Tx, ids: list[str] | None = None) -> list[App]:
    found = await tx.execute(
        f"SELECT {_APP} FROM mobile_apps_app"  # noqa: S608
        " WHERE %(ids)s::text[] IS NULL OR id = ANY(%(ids)s) ORDER BY created_at, id",
        {"ids": ids},
    )
    return [App(**row) async for row in found]


async def installable(tx: Tx) -> list[App]:
    """What devices can be told to install, without its picture."""
    columns = _APP.replace(" properties,", " properties - 'largeIcon' AS properties,")
    found = await tx.execute(
        f"SELECT {columns} FROM mobile_apps_app"  # noqa: S608
        " WHERE type = %s AND state = 'published' ORDER BY created_at, id",
        (MSI,),
    )
    return [App(**row) async for row in found]


async def app(tx: Tx, id: str) -> App | None:
    found = await apps(tx, [id])
    return found[0] if found else None


async def insert(tx: Tx, made: App) -> None:
    await tx.execute(
        f"INSERT INTO mobile_apps_app ({_APP})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.name,
            made.description,
            made.publisher,
            made.command_line,
            made.file_name,
            made.product_code,
            made.product_version,
            made.upgrade_code,
            made.sha256,
            made.size_bytes,
            made.state,
            made.reason,
            made.created_at,
            made.type,
            Jsonb(dict(made.properties)),
            made.committed_version,
            made.changed_at,
            made.package_type,
        ),
    )


async def lock(tx: Tx, id: str) -> None:
    """Others that change this app, or its content, wait for this transaction."""
    await tx.execute("SELECT 1 FROM mobile_apps_app WHERE id = %s FOR UPDATE", (id,))


async def save(tx: Tx, changed: App) -> None:
    await tx.execute(
        "UPDATE mobile_apps_app SET name = %s, description = %s, publisher = %s,"
        " command_line = %s, file_name = %s, product_code = %s, product_version = %s,"
        " upgrade_code = %s, sha256 = %s, size_bytes = %s, state = %s, reason = %s,"
        " properties = %s, committed_version = %s, changed_at = %s, package_type = %s"
        " WHERE id = %s",
        (
            changed.name,
            changed.description,
            changed.publisher,
            changed.command_line,
            changed.file_name,
            changed.product_code,
            changed.product_version,
            changed.upgrade_code,
            changed.sha256,
            changed.size_bytes,
            changed.state,
            changed.reason,
            Jsonb(dict(changed.properties)),
            changed.committed_version,
            changed.changed_at,
            changed.package_type,
            changed.id,
        ),
    )


async def delete(tx: Tx, id: str) -> bool:
    done = await tx.execute("DELETE FROM mobile_apps_app WHERE id = %s", (id,))
    return done.rowcount == 1


# ---------------------------------------------------------------------- statuses


_STATUS = (
    "app_id, device_id, state, code, sha256, at, attempts, detail, version, found, repairs,"
    " repaired_at"
)


async def statuses(tx: Tx, *, app_id: str = "", device_id: str = "") -> list[Status]:
    """Of an app, of a device, or of the one on the other; each has its index."""
    given = {"app_id": app_id, "device_id": device_id}
    where = " AND ".join(f"{name} = %({name})s" for name, value in given.items() if value)
    found = await tx.execute(
        f"SELECT {_STATUS} FROM mobile_apps_status WHERE {where or 'true'}"  # noqa: S608
        " ORDER BY device_id, app_id",
        given,
    )
    return [Status(**row) async for row in found]


async def statuses_of(tx: Tx, device_ids: list[str]) -> list[Status]:
    found = await tx.execute(
        f"SELECT {_STATUS} FROM mobile_apps_status WHERE device_id = ANY(%s)",  # noqa: S608
        (device_ids,),
    )
    return [Status(**row) async for row in found]


async def save_status(tx: Tx, status: Status) -> None:
    columns = [name.strip() for name in _STATUS.split(",")]
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns[2:])
    await tx.execute(
        f"INSERT INTO mobile_apps_status ({_STATUS})"  # noqa: S608
        f" VALUES ({', '.join(['%s'] * len(columns))})"
        f" ON CONFLICT (app_id, device_id) DO UPDATE SET {changes}",
        tuple(getattr(status, name) for name in columns),
    )


async def holders(tx: Tx, app_id: str) -> int:
    """Devices that have the app, or are about to."""
    found = await tx.execute(
        "SELECT count(*) AS n FROM mobile_apps_status"
        " WHERE app_id = %s AND state IN ('installing', 'installed', 'uninstallFailed')",
        (app_id,),
    )
    row = await found.fetchone()
    assert row is not None
    return int(row["n"])


async def choices(tx: Tx, device_id: str) -> dict[str, Chosen]:
    found = await tx.execute(
        "SELECT app_id, user_id, requested_at, removed_at FROM mobile_apps_choice"
        " WHERE device_id = %s",
        (device_id,),
    )
    return {row["app_id"]: Chosen(**row) async for row in found}


async def save_choice(tx: Tx, device_id: str, chosen: Chosen) -> None:
    await tx.execute(
        "INSERT INTO mobile_apps_choice (app_id, device_id, user_id, requested_at, removed_at)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (app_id, device_id) DO UPDATE SET"
        " user_id = EXCLUDED.user_id, requested_at = EXCLUDED.requested_at,"
        " removed_at = EXCLUDED.removed_at",
        (chosen.app_id, device_id, chosen.user_id, chosen.requested_at, chosen.removed_at),
    )


async def forget_status(tx: Tx, app_id: str, device_id: str) -> None:
    await tx.execute(
        "DELETE FROM mobile_apps_status WHERE app_id = %s AND device_id = %s", (app_id, device_id)
    )


async def forget_device(tx: Tx, device_id: str) -> None:
    await tx.execute("DELETE FROM mobile_apps_status WHERE device_id = %s", (device_id,))
    await tx.execute("DELETE FROM mobile_apps_choice WHERE device_id = %s", (device_id,))


# ---------------------------------------------------------------------- content


async def versions(tx: Tx, app_id: str) -> list[int]:
    found = await tx.execute(
        "SELECT number FROM mobile_apps_version WHERE app_id = %s ORDER BY number", (app_id,)
    )
    return [row["number"] async for row in found]


async def add_version(tx: Tx, app_id: str) -> int:
    found = await tx.execute(
        "INSERT INTO mobile_apps_version (app_id, number)"
        " SELECT %(app)s, coalesce(max(number), 0) + 1 FROM mobile_apps_version"
        " WHERE app_id = %(app)s RETURNING number",
        {"app": app_id},
    )
    row = await found.fetchone()
    assert row is not None
    return int(row["number"])


def _file(row: Mapping[str, Any]) -> ContentFile:
    blocks = row["blocks"]
    return ContentFile(
        **{
            **row,
            "state": UploadState(row["state"]),
            "blocks": None if blocks is None else tuple(Block(*item) for item in blocks),
        }
    )


async def files(tx: Tx, app_id: str, version: int | None = None) -> list[ContentFile]:
    found = await tx.execute(
        f"SELECT {_FILE} FROM mobile_apps_file WHERE app_id = %(app)s"  # noqa: S608
        " AND (%(version)s::integer IS NULL OR version = %(version)s) ORDER BY created_at, id",
        {"app": app_id, "version": version},
    )
    return [_file(row) async for row in found]


async def file(tx: Tx, id: str, *, lock: bool = False) -> ContentFile | None:
    statement = f"SELECT {_FILE} FROM mobile_apps_file WHERE id = %s"  # noqa: S608
    found = await tx.execute(statement + (" FOR UPDATE" if lock else ""), (id,))
    row = await found.fetchone()
    return _file(row) if row else None


async def stale(tx: Tx, before: datetime) -> list[str]:
    """Uploads that nobody finished: their URLs ended long ago."""
    found = await tx.execute(
        "SELECT id FROM mobile_apps_file WHERE expires_at < %s AND state <> %s"
        " AND (blocks IS NOT NULL OR EXISTS"
        " (SELECT 1 FROM mobile_apps_block b WHERE b.file_id = mobile_apps_file.id))",
        (before, UploadState.COMMITTED.value),
    )
    return [row["id"] async for row in found]


async def insert_file(tx: Tx, made: ContentFile) -> None:
    await tx.execute(
        f"INSERT INTO mobile_apps_file ({_FILE})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.app_id,
            made.version,
            made.name,
            made.size_bytes,
            made.encrypted_bytes,
            made.manifest,
            made.is_dependency,
            made.state.value,
            made.reason,
            made.generation,
            made.expires_at,
            None,
            made.sealed,
            made.sha256,
            Jsonb(dict(made.facts)),
            made.created_at,
        ),
    )


async def save_file(tx: Tx, changed: ContentFile) -> None:
    blocks = changed.blocks
    shown = None if blocks is None else [[b.id, b.object, b.size_bytes] for b in blocks]
    await tx.execute(
        "UPDATE mobile_apps_file SET state = %s, reason = %s, generation = %s, expires_at = %s,"
        " blocks = %s, sealed = %s, sha256 = %s, facts = %s WHERE id = %s",
        (
            changed.state.value,
            changed.reason,
            changed.generation,
            changed.expires_at,
            Jsonb(shown) if shown is not None else None,
            changed.sealed,
            changed.sha256,
            Jsonb(dict(changed.facts)),
            changed.id,
        ),
    )


async def blocks(tx: Tx, file_id: str) -> dict[str, Block]:
    found = await tx.execute(
        "SELECT block_id AS id, object, size_bytes FROM mobile_apps_block WHERE file_id = %s",
        (file_id,),
    )
    return {row["id"]: Block(**row) async for row in found}


async def staged(tx: Tx, file_id: str) -> tuple[int, int, int]:
    """How many blocks wait for a list, their bytes, and the length of one of their ids."""
    found = await tx.execute(
        "SELECT count(*) AS n, coalesce(sum(size_bytes), 0)::bigint AS bytes,"
        " coalesce(max(length(block_id)), 0) AS length"
        " FROM mobile_apps_block WHERE file_id = %s",
        (file_id,),
    )
    row = await found.fetchone()
    assert row is not None
    return row["n"], row["bytes"], row["length"]


async def save_block(tx: Tx, file_id: str, block: Block) -> str:
    """Keep the block; the object of the one of this id that it takes the place of, or ""."""
    found = await tx.execute(
        "SELECT object FROM mobile_apps_block WHERE file_id = %s AND block_id = %s",
        (file_id, block.id),
    )
    row = await found.fetchone()
    await tx.execute(
        "INSERT INTO mobile_apps_block (file_id, block_id, object, size_bytes)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (file_id, block_id) DO UPDATE"
        " SET object = EXCLUDED.object, size_bytes = EXCLUDED.size_bytes",
        (file_id, block.id, block.object, block.size_bytes),
    )
    return str(row["object"]) if row else ""


async def drop_blocks(tx: Tx, file_id: str) -> None:
    await tx.execute("DELETE FROM mobile_apps_block WHERE file_id = %s", (file_id,))
