from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.protocols.ddf import Leaf
from tandem.tenant import assignments
from tandem.tenant.policies.catalogue import Source
from tandem.tenant.policies.model import NoSuchObject, PolicyObject, Version, check

# How much of an object's history is kept.
VERSIONS = 100

_COLUMNS = "kind, id, type, name, version, created_at, changed_at, properties"


def _object(row: dict[str, Any]) -> PolicyObject:
    return PolicyObject(**row)


async def objects(tx: Tx, kind: str, ids: Sequence[str] | None = None) -> list[PolicyObject]:
    """The objects of a kind, oldest first; of `ids` only, if given."""
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM policies_object WHERE kind = %(kind)s"  # noqa: S608
        " AND (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s)) ORDER BY created_at, id",
        {"kind": kind, "ids": list(ids) if ids is not None else None},
    )
    return [_object(row) async for row in found]


async def find(tx: Tx, kind: str, id: str) -> PolicyObject | None:
    found = await objects(tx, kind, [id])
    return found[0] if found else None


async def lock(tx: Tx, kind: str, id: str) -> PolicyObject | None:
    """The object, to be changed: others that want to change it wait for this transaction."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 9))", (f"{kind}/{id}",))
    return await find(tx, kind, id)


async def next_number(tx: Tx, kind: str) -> int:
    """The next of the small numbers that some kinds have as ids; never one that was in use."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 8))", (kind,))
    found = await tx.execute(
        "SELECT coalesce(max(object_id::bigint), 0) + 1 AS n FROM policies_version"
        " WHERE kind = %s AND object_id ~ '^[0-9]{1,9}$'",
        (kind,),
    )
    row = await found.fetchone()
    assert row is not None
    return int(row["n"])


async def add(tx: Tx, made: PolicyObject, by: str) -> None:
    """Raises BadObject."""
    check(made.name, made.properties)
    await tx.execute(
        f"INSERT INTO policies_object ({_COLUMNS})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.kind,
            made.id,
            made.type,
            made.name,
            made.version,
            made.created_at,
            made.changed_at,
            Jsonb(dict(made.properties)),
        ),
    )
    await _remember(tx, made, by, deleted=False)


async def save(
    tx: Tx, before: PolicyObject, name: str, properties: dict[str, Any], now: datetime, by: str
) -> PolicyObject:
    """The object changed, as its next version. Raises BadObject, NoSuchObject."""
    check(name, properties)
    done = await tx.execute(
        "UPDATE policies_object SET name = %s, properties = %s, changed_at = %s,"
        " version = version + 1 WHERE kind = %s AND id = %s RETURNING version",
        (name, Jsonb(properties), now, before.kind, before.id),
    )
    row = await done.fetchone()
    if row is None:
        raise _missing(before.id)
    after = replace(
        before, name=name, properties=properties, changed_at=now, version=row["version"]
    )
    await _remember(tx, after, by, deleted=False)
    return after


async def remove(tx: Tx, kind: str, id: str, now: datetime, by: str) -> None:
    """The object with its assignments; its history stays. Raises NoSuchObject."""
    done = await tx.execute(
        f"DELETE FROM policies_object WHERE kind = %s AND id = %s RETURNING {_COLUMNS}",  # noqa: S608
        (kind, id),
    )
    row = await done.fetchone()
    if row is None:
        raise _missing(id)
    gone = _object(row)
    await assignments.forget(tx, kind, id)
    last = replace(gone, version=gone.version + 1, changed_at=now)
    await _remember(tx, last, by, deleted=True)


async def _remember(tx: Tx, item: PolicyObject, by: str, *, deleted: bool) -> None:
    await tx.execute(
        "INSERT INTO policies_version"
        " (kind, object_id, version, type, name, properties, at, by, deleted)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            item.kind,
            item.id,
            item.version,
            item.type,
            item.name,
            Jsonb(dict(item.properties)),
            item.changed_at,
            by,
            deleted,
        ),
    )
    await tx.execute(
        "DELETE FROM policies_version WHERE kind = %s AND object_id = %s AND version <= %s",
        (item.kind, item.id, item.version - VERSIONS),
    )


async def versions(tx: Tx, kind: str, id: str) -> list[Version]:
    """All of an object's versions, the newest first, also when it is gone."""
    found = await tx.execute(
        "SELECT version, name, properties, at, by, deleted FROM policies_version"
        " WHERE kind = %s AND object_id = %s ORDER BY version DESC",
        (kind, id),
    )
    return [Version(**row) async for row in found]


async def revision(tx: Tx) -> tuple[int, int]:
    """Two numbers: the first grows with each change to what reaches devices, the second with each
    change to the catalogue."""
    found = await tx.execute("SELECT revision, catalogue FROM policies_revision")
    row = await found.fetchone()
    assert row is not None
    return row["revision"], row["catalogue"]


async def object_versions(tx: Tx, kinds: Sequence[str]) -> dict[tuple[str, str], int]:
    """The version of each object of these kinds, the oldest object first."""
    found = await tx.execute(
        "SELECT kind, id, version FROM policies_object WHERE kind = ANY(%s)"
        " ORDER BY created_at, id",
        (list(kinds),),
    )
    return {(row["kind"], row["id"]): row["version"] async for row in found}


async def sources(tx: Tx) -> list[Source]:
    """Imported files, the oldest first."""
    found = await tx.execute(
        "SELECT name, leaves::text AS leaves FROM policies_ddf ORDER BY imported_at, name"
    )
    return [
        Source(row["name"], msgspec.json.decode(row["leaves"], type=tuple[Leaf, ...]), {})
        async for row in found
    ]


async def file_names(tx: Tx) -> list[str]:
    return [row["name"] for row in await files(tx)]


async def files(tx: Tx) -> list[dict[str, Any]]:
    """What was imported, by name."""
    found = await tx.execute(
        "SELECT name, sha256, imported_at, imported_by, jsonb_array_length(leaves) AS nodes"
        " FROM policies_ddf ORDER BY name"
    )
    return [row async for row in found]


async def save_file(tx: Tx, source: Source, digest: str, now: datetime, by: str) -> None:
    await tx.execute(
        "INSERT INTO policies_ddf (name, sha256, imported_at, imported_by, leaves)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET"
        " sha256 = EXCLUDED.sha256, imported_at = EXCLUDED.imported_at,"
        " imported_by = EXCLUDED.imported_by, leaves = EXCLUDED.leaves",
        (source.name, digest, now, by, Jsonb(msgspec.to_builtins(source.leaves))),
    )


async def remove_file(tx: Tx, name: str) -> bool:
    return (await tx.execute("DELETE FROM policies_ddf WHERE name = %s", (name,))).rowcount == 1


def _missing(id: str) -> NoSuchObject:
    return NoSuchObject(f"There is no object {id!r}.", cure="List the collection.")
