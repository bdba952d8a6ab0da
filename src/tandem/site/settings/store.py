"""SQL of the tables settings_…, and nothing else."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.collections import CollectionId, MemberType
from tandem.site.settings.model import (
    CATALOGUE,
    Changed,
    CustomSettings,
    Deployment,
    SettingsId,
)

_LOCK = 7_311_006
_CUSTOM = (
    "c.id, c.name, c.description, c.type, c.priority, c.given, c.created_at, c.created_by,"
    " c.changed_at, c.changed_by, ARRAY(SELECT d.collection_id FROM settings_deployment d"
    " WHERE d.settings_id = c.id ORDER BY d.deployed_at, d.collection_id) AS deployed_to"
)


async def lock(tx: Tx) -> None:
    """One administrator at a time changes client settings."""
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


def _custom(row: Mapping[str, Any]) -> CustomSettings:
    given = row["given"]
    return CustomSettings(
        SettingsId(row["id"]),
        row["name"],
        row["description"],
        MemberType(row["type"]),
        row["priority"],
        {name: given[name] for name in CATALOGUE if name in given},
        row["created_at"],
        row["created_by"],
        row["changed_at"],
        row["changed_by"],
        tuple(CollectionId(id) for id in row["deployed_to"]),
    )


async def custom(tx: Tx) -> list[CustomSettings]:
    """In the order of their priorities."""
    found = await tx.execute(f"SELECT {_CUSTOM} FROM settings_custom c ORDER BY c.priority")  # noqa: S608
    return [_custom(row) async for row in found]


async def find(tx: Tx, wanted: str) -> CustomSettings | None:
    """By id or name."""
    row = await (
        await tx.execute(
            f"SELECT {_CUSTOM} FROM settings_custom c"  # noqa: S608
            " WHERE c.id = %(w)s OR lower(c.name) = lower(%(w)s) ORDER BY c.id = %(w)s DESC LIMIT 1",
            {"w": wanted},
        )
    ).fetchone()
    return _custom(row) if row else None


async def insert(tx: Tx, made: CustomSettings) -> bool:
    """False: another one has its name."""
    done = await tx.execute(
        "INSERT INTO settings_custom (id, name, description, type, priority, given, created_at,"
        " created_by, changed_at, changed_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (lower(name)) DO NOTHING",
        (
            made.id,
            made.name,
            made.description,
            made.type.value,
            made.priority,
            Jsonb(dict(made.values)),
            made.created_at,
            made.created_by,
            made.changed_at,
            made.changed_by,
        ),
    )
    return done.rowcount == 1


async def update(tx: Tx, made: CustomSettings) -> bool:
    """Its name, description and values. False: another one has its name."""
    done = await tx.execute(
        "UPDATE settings_custom SET name = %(name)s, description = %(description)s,"
        " given = %(given)s, changed_at = %(at)s, changed_by = %(by)s WHERE id = %(id)s"
        " AND NOT EXISTS (SELECT FROM settings_custom WHERE lower(name) = lower(%(name)s)"
        " AND id <> %(id)s)",
        {
            "id": made.id,
            "name": made.name,
            "description": made.description,
            "given": Jsonb(dict(made.values)),
            "at": made.changed_at,
            "by": made.changed_by,
        },
    )
    return done.rowcount == 1


async def delete(tx: Tx, id: SettingsId) -> None:
    await tx.execute("DELETE FROM settings_deployment WHERE settings_id = %s", (id,))
    await tx.execute("DELETE FROM settings_custom WHERE id = %s", (id,))


async def order(tx: Tx, ids: Sequence[SettingsId]) -> None:
    """Give them the priorities 1, 2, …: `ids` are all there are."""
    await tx.execute(
        "UPDATE settings_custom c SET priority = o.place FROM"
        " unnest(%s::text[]) WITH ORDINALITY AS o (id, place)"
        " WHERE c.id = o.id AND c.priority <> o.place",
        (list(ids),),
    )


async def deploy(
    tx: Tx, id: SettingsId, collection: CollectionId, now: datetime, actor: str
) -> bool:
    """False: it is deployed to it already."""
    done = await tx.execute(
        "INSERT INTO settings_deployment (settings_id, collection_id, deployed_at, deployed_by)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (id, collection, now, actor),
    )
    return done.rowcount == 1


async def withdraw(tx: Tx, id: SettingsId, collection: CollectionId) -> bool:
    done = await tx.execute(
        "DELETE FROM settings_deployment WHERE settings_id = %s AND collection_id = %s",
        (id, collection),
    )
    return done.rowcount == 1


async def deployments(tx: Tx) -> list[Deployment]:
    """Of all custom settings, the oldest first."""
    found = await tx.execute(
        "SELECT settings_id, collection_id, deployed_at, deployed_by FROM settings_deployment"
        " ORDER BY deployed_at, collection_id"
    )
    return [
        Deployment(
            SettingsId(row["settings_id"]),
            CollectionId(row["collection_id"]),
            row["deployed_at"],
            row["deployed_by"],
        )
        async for row in found
    ]
