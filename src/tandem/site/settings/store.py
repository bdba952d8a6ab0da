from datetime import datetime

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx


async def changed(tx: Tx) -> dict[str, bool | int]:
    found = await tx.execute("SELECT name, value FROM settings_default")
    return {row["name"]: row["value"] async for row in found}


async def save(tx: Tx, name: str, value: bool | int, now: datetime, actor: str) -> None:
    await tx.execute(
        "INSERT INTO settings_default (name, value, changed_at, changed_by)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value,"
        " changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by",
        (name, Jsonb(value), now, actor),
    )
