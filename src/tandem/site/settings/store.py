from datetime import datetime

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.settings.model import Changed

_LOCK = 7_311_004


async def lock(tx: Tx) -> None:
    """One administrator at a time changes the default settings."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def changed(tx: Tx) -> dict[str, Changed]:
    found = await tx.execute("SELECT name, value, changed_at, changed_by FROM settings_default")
    return {
        row["name"]: Changed(row["value"], row["changed_at"], row["changed_by"])
        async for row in found
    }


async def save(tx: Tx, name: str, value: bool | int, now: datetime, actor: str) -> None:
    await tx.execute(
        "INSERT INTO settings_default (name, value, changed_at, changed_by)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value,"
        " changed_at = EXCLUDED.changed_at, changed_by = EXCLUDED.changed_by",
        (name, Jsonb(value), now, actor),
    )
