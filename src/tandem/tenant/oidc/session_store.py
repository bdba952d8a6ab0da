"""The SQL of browser sessions, locked names, and the sign-in log."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import Any

from tandem.infra.database import Tx


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()


# ---------------------------------------------------------------------------------- sessions


@dataclass(frozen=True, slots=True)
class Session:
    """One account that is signed in to one browser."""

    id: str
    user_id: str
    signed_in_at: datetime
    used_at: datetime
    expires_at: datetime


_SESSION = "id::text AS id, user_id::text AS user_id, signed_in_at, used_at, expires_at"


async def sessions(tx: Tx, browser: str, now: datetime) -> list[Session]:
    """The one used last first."""
    cursor = await tx.execute(
        f"SELECT {_SESSION} FROM oidc_session WHERE digest = %s AND expires_at > %s"  # noqa: S608
        " ORDER BY used_at DESC, id",
        (_hash(browser), now),
    )
    return [Session(**row) for row in await cursor.fetchall()]


async def move_sessions(tx: Tx, browser: str, to: str) -> None:
    await tx.execute(
        "UPDATE oidc_session SET digest = %s WHERE digest = %s", (_hash(to), _hash(browser))
    )


async def insert_session(tx: Tx, browser: str, item: Session) -> None:
    await tx.execute(
        """INSERT INTO oidc_session (id, digest, user_id, signed_in_at, used_at, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (digest, user_id) DO UPDATE SET id = EXCLUDED.id,
            signed_in_at = EXCLUDED.signed_in_at, used_at = EXCLUDED.used_at,
            expires_at = EXCLUDED.expires_at""",
        (item.id, _hash(browser), item.user_id, item.signed_in_at, item.used_at, item.expires_at),
    )


async def use_session(tx: Tx, session_id: str, now: datetime) -> None:
    await tx.execute("UPDATE oidc_session SET used_at = %s WHERE id = %s", (now, session_id))


async def delete_sessions(tx: Tx, ids: Sequence[str]) -> None:
    await tx.execute("DELETE FROM oidc_session WHERE id = ANY(%s::uuid[])", (list(ids),))


# ---------------------------------------------------------------------------------- names


async def unknown_name_locked(tx: Tx, name: str) -> datetime | None:
    """Until when this name, which nobody has, is locked."""
    cursor = await tx.execute(
        "SELECT locked_until FROM oidc_unknown_name WHERE sha256 = %s", (_hash(name),)
    )
    row = await cursor.fetchone()
    return row["locked_until"] if row else None


async def count_unknown_name(tx: Tx, name: str, now: datetime) -> int:
    cursor = await tx.execute(
        """INSERT INTO oidc_unknown_name (sha256, failures, last_at) VALUES (%s, 1, %s)
        ON CONFLICT (sha256) DO UPDATE SET failures = oidc_unknown_name.failures + 1,
            last_at = EXCLUDED.last_at
        RETURNING failures""",
        (_hash(name), now),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row["failures"])


async def lock_unknown_name(tx: Tx, name: str, until: datetime) -> None:
    await tx.execute(
        "UPDATE oidc_unknown_name SET locked_until = %s WHERE sha256 = %s", (until, _hash(name))
    )


# ---------------------------------------------------------------------------------- log


@dataclass(frozen=True, slots=True)
class SignIn:
    """One line of the sign-in log. `number` 0 is a success; `reason` says why it is none."""

    id: str
    at: datetime
    sort: str
    app_id: str
    address: str
    client: str
    correlation_id: str
    user_id: str | None = None
    upn: str = ""
    user_name: str = ""
    app_name: str = ""
    resource_id: str = ""
    resource_name: str = ""
    device_id: str = ""
    number: int = 0
    reason: str = ""
    conditions: str = "notApplied"


_COLUMNS = tuple(field.name for field in fields(SignIn))
_row = attrgetter(*_COLUMNS)
_INSERT = f"INSERT INTO oidc_sign_in ({', '.join(_COLUMNS)}) "
_PLACES = ", ".join(["%s"] * len(_COLUMNS))
_SIGN_IN = ", ".join(
    f"{name}::text AS {name}" if name in ("id", "user_id") else name for name in _COLUMNS
)


async def insert_sign_ins(tx: Tx, items: Sequence[SignIn]) -> None:
    if len(items) == 1:
        await tx.execute(f"{_INSERT} VALUES ({_PLACES})", _row(items[0]))
        return
    async with tx.cursor() as cursor:
        async with cursor.copy(f"COPY oidc_sign_in ({', '.join(_COLUMNS)}) FROM STDIN") as copy:
            for item in items:
                await copy.write_row(_row(item))


async def insert_failure(tx: Tx, item: SignIn, since: datetime, most: int) -> None:
    """Unless the address has failed so often since then: its flood does not fill the disk."""
    types = ["uuid" if n in ("id", "user_id") else "" for n in _COLUMNS]
    places = ", ".join(f"%s::{kind}" if kind else "%s" for kind in types)
    await tx.execute(
        f"{_INSERT} SELECT {places} WHERE (SELECT count(*) FROM (SELECT 1 FROM oidc_sign_in"  # noqa: S608
        " WHERE address = %s AND at > %s AND number <> 0 LIMIT %s) s) < %s",
        (*_row(item), item.address, since, most, most),
    )


async def failures(
    tx: Tx, address: str, number: int, since: datetime, most: int
) -> tuple[int, int]:
    """Refusals with this number from this address since then (at most `most` are looked at), and
    of how many names they were."""
    cursor = await tx.execute(
        """SELECT count(*) AS n, count(DISTINCT lower(upn)) AS names FROM (
            SELECT upn FROM oidc_sign_in WHERE address = %s AND at > %s AND number <> 0
            AND number = %s LIMIT %s) s""",
        (address, since, number, most),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row["n"]), int(row["names"])


async def sign_ins(tx: Tx, where: str, values: dict[str, Any], limit: int) -> list[SignIn]:
    """`where` is SQL of this module's callers, never of a request."""
    cursor = await tx.execute(
        f"SELECT {_SIGN_IN} FROM oidc_sign_in WHERE {where} ORDER BY at DESC, id LIMIT %(limit)s",  # noqa: S608
        {**values, "limit": limit},
    )
    return [SignIn(**row) for row in await cursor.fetchall()]


async def delete_old(tx: Tx, now: datetime, before: datetime) -> None:
    await tx.execute("DELETE FROM oidc_session WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM oidc_unknown_name WHERE last_at < %s", (before,))
    await tx.execute("DELETE FROM oidc_sign_in WHERE at < %s", (before,))
