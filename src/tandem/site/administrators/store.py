from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation

from tandem.infra.database import Tx
from tandem.site.administrators.model import Administrator, Role, Scope

_LOCK = 7_311_004
_COLUMNS = "name, role, created_at, tenant_id, upn, object_id, scopes, collections"


def administrator(row: dict[str, Any]) -> Administrator:
    return Administrator(
        row["name"],
        Role(row["role"]),
        row["created_at"],
        row["tenant_id"],
        row["upn"],
        row["object_id"],
        tuple(row["scopes"]),
        tuple(row["collections"]),
    )


async def administrators(tx: Tx) -> list[Administrator]:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM administrators_administrator ORDER BY name"  # noqa: S608
    )
    return [administrator(row) async for row in found]


async def lock(tx: Tx) -> None:
    """One at a time removes administrators: the last one stays."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def credential(tx: Tx, name: str, *, lock: bool = False) -> dict[str, Any] | None:
    """The account with its password hash and its count of failures."""
    return await (
        await tx.execute(
            f"SELECT {_COLUMNS}, password, failures, locked_until"  # noqa: S608
            " FROM administrators_administrator WHERE lower(name) = lower(%s)"
            f"{' FOR UPDATE' if lock else ''}",
            (name,),
        )
    ).fetchone()


async def external(tx: Tx, tenant_id: str, object_id: str) -> Administrator | None:
    row = await (
        await tx.execute(
            f"SELECT {_COLUMNS} FROM administrators_administrator"  # noqa: S608
            " WHERE tenant_id = %s AND object_id = %s",
            (tenant_id, object_id),
        )
    ).fetchone()
    return administrator(row) if row else None


async def insert(tx: Tx, who: Administrator, password: str | None) -> bool:
    done = await tx.execute(
        f"INSERT INTO administrators_administrator ({_COLUMNS}, password)"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            who.name,
            who.role.value,
            who.created_at,
            who.tenant_id,
            who.upn,
            who.object_id,
            list(who.scopes),
            list(who.collections),
            password,
        ),
    )
    return done.rowcount == 1


async def save_rights(
    tx: Tx, name: str, role: Role, scopes: Sequence[str], collections: Sequence[str]
) -> None:
    await tx.execute(
        "UPDATE administrators_administrator SET role = %s, scopes = %s, collections = %s"
        " WHERE name = %s",
        (role.value, list(scopes), list(collections), name),
    )


async def save_password(tx: Tx, name: str, password: str) -> None:
    await tx.execute(
        "UPDATE administrators_administrator SET password = %s WHERE name = %s", (password, name)
    )


async def delete_other_sessions(tx: Tx, name: str, digest: bytes) -> None:
    """All but the one with this digest."""
    await tx.execute(
        "DELETE FROM administrators_session WHERE administrator = %s AND digest <> %s",
        (name, digest),
    )


async def delete(tx: Tx, name: str) -> None:
    await tx.execute("DELETE FROM administrators_administrator WHERE name = %s", (name,))


async def save_failures(tx: Tx, name: str, failures: int, locked_until: datetime | None) -> None:
    await tx.execute(
        "UPDATE administrators_administrator SET failures = %s, locked_until = %s WHERE name = %s",
        (failures, locked_until, name),
    )


async def insert_session(
    tx: Tx, digest: bytes, name: str, now: datetime, expires_at: datetime
) -> None:
    await tx.execute("DELETE FROM administrators_session WHERE expires_at < %s", (now,))
    await tx.execute(
        "INSERT INTO administrators_session (digest, administrator, used_at, expires_at)"
        " VALUES (%s, %s, %s, %s)",
        (digest, name, now, expires_at),
    )


async def session(tx: Tx, digest: bytes) -> tuple[Administrator, datetime, datetime] | None:
    """Who, when it was used last, when it ends."""
    row = await (
        await tx.execute(
            "SELECT a.name, a.role, a.created_at, a.tenant_id, a.upn, a.object_id, a.scopes,"
            " a.collections, s.used_at, s.expires_at"
            " FROM administrators_session s JOIN administrators_administrator a"
            " ON a.name = s.administrator WHERE s.digest = %s",
            (digest,),
        )
    ).fetchone()
    return (administrator(row), row["used_at"], row["expires_at"]) if row else None


async def mark_used(tx: Tx, digest: bytes, now: datetime) -> None:
    await tx.execute(
        "UPDATE administrators_session SET used_at = %s WHERE digest = %s", (now, digest)
    )


async def delete_session(tx: Tx, digest: bytes) -> None:
    await tx.execute("DELETE FROM administrators_session WHERE digest = %s", (digest,))


# Scopes


async def scopes(tx: Tx) -> list[Scope]:
    found = await tx.execute(
        "SELECT name, comment, created_at,"
        " (SELECT count(*) FROM administrators_administrator a WHERE s.name = ANY(a.scopes))"
        "   AS administrators,"
        " (SELECT count(*) FROM administrators_scoped o WHERE o.scope = s.name) AS objects"
        " FROM administrators_scope s ORDER BY lower(name)"
    )
    return [Scope(**row) async for row in found]


async def insert_scope(tx: Tx, name: str, comment: str, now: datetime) -> bool:
    done = await tx.execute(
        "INSERT INTO administrators_scope (name, comment, created_at) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (name, comment, now),
    )
    return done.rowcount == 1


async def delete_scope(tx: Tx, name: str) -> bool:
    """False while an object has it."""
    try:
        async with tx.transaction():
            await tx.execute("DELETE FROM administrators_scope WHERE name = %s", (name,))
    except ForeignKeyViolation:
        return False
    return True


async def scoped(tx: Tx, kind: str) -> list[tuple[str, str]]:
    """Every object of a kind that was given scopes, with each of them."""
    found = await tx.execute(
        "SELECT object_id, scope FROM administrators_scoped WHERE kind = %s ORDER BY 1, 2", (kind,)
    )
    return [(row["object_id"], row["scope"]) async for row in found]


async def save_scoped(tx: Tx, kind: str, object_id: str, names: Iterable[str]) -> None:
    await tx.execute(
        "DELETE FROM administrators_scoped WHERE kind = %s AND object_id = %s", (kind, object_id)
    )
    await tx.execute(
        "INSERT INTO administrators_scoped (kind, object_id, scope)"
        " SELECT %s, %s, unnest(%s::text[])",
        (kind, object_id, list(names)),
    )
