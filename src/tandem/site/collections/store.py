from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.collections.model import (
    Collection,
    CollectionId,
    KnownResource,
    KnownUser,
    Resource,
    Rule,
    UserResource,
)

_LOCK = 7_311_003
_RESOURCE = (
    "r.id, r.name, r.client_id, r.tenant_id, r.device_id, r.os_name, r.os_version,"
    " r.client_version, r.discovered_at"
)
_COLLECTION = "id, name, comment, limiting_id, created_at"


async def save_resource(tx: Tx, resource: Resource, now: datetime) -> int:
    row = await (
        await tx.execute(
            "INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name,"
            " os_version, client_version, discovered_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (client_id) DO UPDATE SET name = EXCLUDED.name,"
            " tenant_id = EXCLUDED.tenant_id, device_id = EXCLUDED.device_id,"
            " os_name = EXCLUDED.os_name, os_version = EXCLUDED.os_version,"
            " client_version = EXCLUDED.client_version, discovered_at = EXCLUDED.discovered_at"
            " RETURNING id",
            (
                resource.client_id,
                resource.name,
                resource.tenant_id,
                resource.device_id,
                resource.os_name,
                resource.os_version,
                resource.client_version,
                now,
            ),
        )
    ).fetchone()
    assert row is not None
    return int(row["id"])


async def save_user(tx: Tx, user: UserResource, now: datetime) -> bool:
    """Whether the user is new to the site."""
    row = await (
        await tx.execute(
            "INSERT INTO collections_user (tenant_id, object_id, upn, name, mail, sid, properties,"
            " discovered_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (tenant_id, object_id) DO UPDATE SET upn = EXCLUDED.upn,"
            " name = EXCLUDED.name, mail = EXCLUDED.mail, sid = EXCLUDED.sid,"
            " properties = EXCLUDED.properties, discovered_at = EXCLUDED.discovered_at"
            " RETURNING xmax = 0 AS added",
            (
                user.tenant_id,
                user.object_id,
                user.upn,
                user.name,
                user.mail,
                user.sid,
                Jsonb(user.properties),
                now,
            ),
        )
    ).fetchone()
    assert row is not None
    return bool(row["added"])


async def user_by(tx: Tx, tenant_id: str, object_id: str) -> KnownUser | None:
    row = await (
        await tx.execute(
            "SELECT id, upn, name, mail, tenant_id, object_id, discovered_at"
            " FROM collections_user WHERE tenant_id = %s AND object_id = %s",
            (tenant_id, object_id),
        )
    ).fetchone()
    return KnownUser(**row) if row else None


async def user_named(tx: Tx, tenant_id: str, upn: str) -> KnownUser | None:
    row = await (
        await tx.execute(
            "SELECT id, upn, name, mail, tenant_id, object_id, discovered_at"
            " FROM collections_user WHERE tenant_id = %s AND lower(upn) = lower(%s)"
            # Who had the name before is not there any more.
            " ORDER BY discovered_at DESC, id DESC LIMIT 1",
            (tenant_id, upn),
        )
    ).fetchone()
    return KnownUser(**row) if row else None


async def users(tx: Tx, limit: int, offset: int) -> list[KnownUser]:
    found = await tx.execute(
        "SELECT id, upn, name, mail, tenant_id, object_id, discovered_at"
        " FROM collections_user ORDER BY upn, id LIMIT %s OFFSET %s",
        (limit, offset),
    )
    return [KnownUser(**row) async for row in found]


async def count_users(tx: Tx) -> int:
    row = await (await tx.execute("SELECT count(*) AS n FROM collections_user")).fetchone()
    return int(row["n"]) if row else 0


async def resource(tx: Tx, wanted: str) -> KnownResource | None:
    """By number, client id or name (the newest of that name)."""
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        found = await _resource(tx, "r.id = %s", int(wanted))
        if found is not None:
            return found
    if wanted[:5].upper() == "GUID:":
        return await resource_of(tx, f"GUID:{wanted[5:].upper()}")
    return await _resource(tx, "lower(r.name) = lower(%s)", wanted)


async def resource_of(tx: Tx, client_id: str) -> KnownResource | None:
    return await _resource(tx, "r.client_id = %s", client_id)


async def _resource(tx: Tx, condition: str, value: str | int) -> KnownResource | None:
    row = await (
        await tx.execute(
            f"SELECT {_RESOURCE} FROM collections_resource r WHERE {condition}"  # noqa: S608
            " ORDER BY r.discovered_at DESC, r.id DESC LIMIT 1",
            (value,),
        )
    ).fetchone()
    return KnownResource(**row) if row else None


async def resources(
    tx: Tx, condition: str, values: tuple[Any, ...], limit: int, offset: int
) -> list[KnownResource]:
    found = await tx.execute(
        f"SELECT {_RESOURCE} FROM collections_resource r WHERE {condition}"  # noqa: S608
        " ORDER BY r.name, r.id LIMIT %s OFFSET %s",
        (*values, limit, offset),
    )
    return [KnownResource(**row) async for row in found]


async def count(tx: Tx, condition: str, values: tuple[Any, ...]) -> int:
    row = await (
        await tx.execute(
            f"SELECT count(*) AS n FROM collections_resource r WHERE {condition}",  # noqa: S608
            values,
        )
    ).fetchone()
    return int(row["n"]) if row else 0


async def client_ids(tx: Tx, condition: str, values: tuple[Any, ...]) -> set[str]:
    found = await tx.execute(
        f"SELECT r.client_id FROM collections_resource r WHERE {condition}",  # noqa: S608
        values,
    )
    return {row["client_id"] async for row in found}


async def collections(tx: Tx) -> list[Collection]:
    found = await tx.execute(
        f"SELECT {_COLLECTION} FROM collections_collection ORDER BY id"  # noqa: S608
    )
    return [Collection(**row) async for row in found]


async def collection(tx: Tx, wanted: str) -> Collection | None:
    """By id or name."""
    row = await (
        await tx.execute(
            f"SELECT {_COLLECTION} FROM collections_collection"  # noqa: S608
            " WHERE id = upper(%(w)s) OR lower(name) = lower(%(w)s)",
            {"w": wanted},
        )
    ).fetchone()
    return Collection(**row) if row else None


async def save_description(tx: Tx, id: CollectionId, name: str, comment: str) -> bool:
    """False when another collection has the name."""
    try:
        async with tx.transaction():
            await tx.execute(
                "UPDATE collections_collection SET name = %s, comment = %s WHERE id = %s",
                (name, comment, id),
            )
    except UniqueViolation:
        return False
    return True


async def delete_resource(tx: Tx, id: int) -> None:
    """Direct rules for it go with it."""
    await tx.execute("DELETE FROM collections_resource WHERE id = %s", (id,))


async def next_number(tx: Tx) -> int:
    row = await (
        await tx.execute("SELECT nextval('collections_collection_number') AS n")
    ).fetchone()
    assert row is not None
    return int(row["n"])


async def insert_collection(tx: Tx, made: Collection) -> bool:
    done = await tx.execute(
        "INSERT INTO collections_collection (id, name, comment, limiting_id, created_at)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (made.id, made.name, made.comment, made.limiting_id, made.created_at),
    )
    return done.rowcount == 1


async def delete_collection(tx: Tx, id: CollectionId) -> bool:
    """False when something is still deployed to it."""
    try:
        async with tx.transaction():
            await tx.execute("DELETE FROM collections_collection WHERE id = %s", (id,))
    except ForeignKeyViolation:
        return False
    return True


async def lock(tx: Tx) -> None:
    """One administrator at a time changes what limits what."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def save_limiting(tx: Tx, id: CollectionId, limiting_id: CollectionId) -> None:
    await tx.execute(
        "UPDATE collections_collection SET limiting_id = %s WHERE id = %s", (limiting_id, id)
    )


async def limited_by(tx: Tx, id: CollectionId) -> list[str]:
    found = await tx.execute(
        "SELECT name FROM collections_collection WHERE limiting_id = %s ORDER BY name", (id,)
    )
    return [row["name"] async for row in found]


async def rules(tx: Tx, ids: Sequence[CollectionId]) -> list[tuple[CollectionId, Rule]]:
    """The rules of these collections, each with the collection that it is of."""
    found = await tx.execute(
        "SELECT collection_id, id, kind, name, query, resource_id FROM collections_rule"
        " WHERE collection_id = ANY(%s) ORDER BY id",
        (list(ids),),
    )
    return [(row.pop("collection_id"), Rule(**row)) async for row in found]


async def true_of(
    tx: Tx, conditions: Sequence[tuple[str, tuple[Any, ...]]], resource_id: int
) -> list[bool]:
    """Which of the conditions hold for one resource."""
    columns = ", ".join(f"({sql}) AS c{place}" for place, (sql, _) in enumerate(conditions))
    values = [value for _, bound in conditions for value in bound]
    row = await (
        await tx.execute(
            f"SELECT {columns} FROM collections_resource r WHERE r.id = %s",  # noqa: S608
            (*values, resource_id),
        )
    ).fetchone()
    return [bool(row and row[f"c{place}"]) for place in range(len(conditions))]


async def add_rule(
    tx: Tx,
    collection_id: CollectionId,
    kind: str,
    name: str,
    query: str = "",
    resource_id: int | None = None,
) -> bool:
    """False when there is such a rule already."""
    done = await tx.execute(
        "INSERT INTO collections_rule (collection_id, kind, name, query, resource_id)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (collection_id, kind, name, query, resource_id),
    )
    return done.rowcount == 1


async def add_clients(tx: Tx, collection_id: CollectionId, client_ids: Sequence[str]) -> int:
    """A direct rule for each of these clients' devices that has none yet."""
    done = await tx.execute(
        "INSERT INTO collections_rule (collection_id, kind, name, query, resource_id)"
        " SELECT %s, 'direct', name, '', id FROM collections_resource WHERE client_id = ANY(%s)"
        " ON CONFLICT DO NOTHING",
        (collection_id, list(client_ids)),
    )
    return done.rowcount


async def remove_rule(tx: Tx, collection_id: CollectionId, id: int) -> str | None:
    """The name of the rule that is gone."""
    row = await (
        await tx.execute(
            "DELETE FROM collections_rule WHERE collection_id = %s AND id = %s RETURNING name",
            (collection_id, id),
        )
    ).fetchone()
    return row["name"] if row else None
