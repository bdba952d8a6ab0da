from datetime import datetime

from tandem.infra.database import Tx
from tandem.tenant.mobile_apps.model import App, Assignment, Status

_APP = (
    "id, name, description, publisher, command_line, file_name, product_code, product_version,"
    " upgrade_code, sha256, size_bytes, state, reason, created_at"
)


async def apps(tx: Tx) -> list[App]:
    found = await tx.execute(
        f"SELECT {_APP} FROM mobile_apps_app ORDER BY created_at, id"  # noqa: S608
    )
    return [App(**row) async for row in found]


async def app(tx: Tx, id: str) -> App | None:
    row = await (
        await tx.execute(f"SELECT {_APP} FROM mobile_apps_app WHERE id = %s", (id,))  # noqa: S608
    ).fetchone()
    return App(**row) if row else None


async def insert(tx: Tx, made: App) -> None:
    await tx.execute(
        f"INSERT INTO mobile_apps_app ({_APP})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
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
        ),
    )


async def update(tx: Tx, id: str, name: str, description: str, publisher: str, line: str) -> None:
    await tx.execute(
        "UPDATE mobile_apps_app SET name = %s, description = %s, publisher = %s,"
        " command_line = %s WHERE id = %s",
        (name, description, publisher, line, id),
    )


async def publish(
    tx: Tx,
    id: str,
    *,
    product_code: str,
    version: str,
    upgrade_code: str,
    sha256: str,
    size: int,
    name: str,
) -> None:
    await tx.execute(
        "UPDATE mobile_apps_app SET state = 'published', reason = '', product_code = %s,"
        " product_version = %s, upgrade_code = %s, sha256 = %s, size_bytes = %s,"
        " name = CASE WHEN name = '' THEN %s ELSE name END WHERE id = %s",
        (product_code, version, upgrade_code, sha256, size, name, id),
    )


async def fail(tx: Tx, id: str, reason: str) -> None:
    await tx.execute(
        "UPDATE mobile_apps_app SET state = 'failed', reason = %s WHERE id = %s", (reason, id)
    )


async def delete(tx: Tx, id: str) -> bool:
    done = await tx.execute("DELETE FROM mobile_apps_app WHERE id = %s", (id,))
    return done.rowcount == 1


async def assignments(tx: Tx) -> list[Assignment]:
    found = await tx.execute(
        "SELECT app_id, group_id, excluded FROM mobile_apps_assignment ORDER BY group_id"
    )
    return [Assignment(**row) async for row in found]


async def assign(tx: Tx, id: str, groups: list[tuple[str, bool]]) -> None:
    await tx.execute("DELETE FROM mobile_apps_assignment WHERE app_id = %s", (id,))
    for group_id, excluded in groups:
        await tx.execute(
            "INSERT INTO mobile_apps_assignment (app_id, group_id, excluded) VALUES (%s, %s, %s)",
            (id, group_id, excluded),
        )


async def statuses(tx: Tx, *, app_id: str = "", device_id: str = "") -> list[Status]:
    found = await tx.execute(
        "SELECT app_id, device_id, state, code, sha256, at FROM mobile_apps_status"
        " WHERE (%(a)s = '' OR app_id = %(a)s) AND (%(d)s = '' OR device_id = %(d)s)"
        " ORDER BY device_id, app_id",
        {"a": app_id, "d": device_id},
    )
    return [Status(**row) async for row in found]


async def save_status(
    tx: Tx, app_id: str, device_id: str, state: str, code: int, sha256: str, now: datetime
) -> None:
    await tx.execute(
        "INSERT INTO mobile_apps_status (app_id, device_id, state, code, sha256, at)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (app_id, device_id) DO UPDATE SET"
        " state = EXCLUDED.state, code = EXCLUDED.code, sha256 = EXCLUDED.sha256,"
        " at = EXCLUDED.at",
        (app_id, device_id, state, code, sha256, now),
    )


async def forget_device(tx: Tx, device_id: str) -> None:
    await tx.execute("DELETE FROM mobile_apps_status WHERE device_id = %s", (device_id,))
