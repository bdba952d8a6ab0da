"""The SQL of what was handed out: codes, refresh tokens, device codes, assertions, revocations."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from tandem.infra.database import Tx
from tandem.tenant.oidc.model import Request


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Handed:
    """A code or refresh token that was handed out."""

    family: str
    app_id: str
    user_id: str
    scope: str
    public: bool
    signed_in_at: datetime
    expires_at: datetime
    used_at: datetime | None
    redirect_uri: str = ""
    nonce: str = ""
    challenge: str = ""
    session_id: str = ""


_HANDED = """family::text AS family, app_id::text AS app_id, user_id::text AS user_id, scope,
    public, signed_in_at, expires_at, used_at"""


async def insert_code(
    tx: Tx,
    code: str,
    family: str,
    request: Request,
    user_id: str,
    session_id: str,
    signed_in_at: datetime,
    expires_at: datetime,
) -> None:
    await tx.execute(
        """INSERT INTO oidc_code (sha256, family, app_id, user_id, redirect_uri, scope, nonce,
            challenge, public, session_id, signed_in_at, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            _hash(code),
            family,
            request.app_id,
            user_id,
            request.redirect_uri,
            request.scope,
            request.nonce,
            request.challenge,
            request.public,
            session_id,
            signed_in_at,
            expires_at,
        ),
    )


async def code(tx: Tx, text: str) -> Handed | None:
    """Locked until the transaction ends, so that two requests cannot both use it."""
    cursor = await tx.execute(
        f"SELECT {_HANDED}, redirect_uri, nonce, challenge, coalesce(session_id::text, '')"  # noqa: S608
        " AS session_id FROM oidc_code WHERE sha256 = %s FOR UPDATE",
        (_hash(text),),
    )
    row = await cursor.fetchone()
    return Handed(**row) if row else None


async def use_code(tx: Tx, text: str, now: datetime) -> None:
    await tx.execute("UPDATE oidc_code SET used_at = %s WHERE sha256 = %s", (now, _hash(text)))


async def insert_refresh_token(
    tx: Tx, text: str, source: Handed, scope: str, expires_at: datetime
) -> None:
    await tx.execute(
        """INSERT INTO oidc_refresh_token (sha256, family, app_id, user_id, scope, public,
            signed_in_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            _hash(text),
            source.family,
            source.app_id,
            source.user_id,
            scope,
            source.public,
            source.signed_in_at,
            expires_at,
        ),
    )


async def refresh_token(tx: Tx, text: str) -> Handed | None:
    cursor = await tx.execute(
        f"SELECT {_HANDED} FROM oidc_refresh_token WHERE sha256 = %s FOR UPDATE",  # noqa: S608
        (_hash(text),),
    )
    row = await cursor.fetchone()
    return Handed(**row) if row else None


async def use_refresh_token(tx: Tx, text: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE oidc_refresh_token SET used_at = coalesce(used_at, %s) WHERE sha256 = %s",
        (now, _hash(text)),
    )


async def revoke_family(tx: Tx, family: str, until: datetime) -> None:
    """No refresh token of this sign-in is taken again, and no access token until they ended."""
    await tx.execute("DELETE FROM oidc_refresh_token WHERE family = %s", (family,))
    await tx.execute(
        "INSERT INTO oidc_revoked (family, until) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (family, until),
    )


async def revoked_families(tx: Tx, now: datetime) -> frozenset[str]:
    cursor = await tx.execute(
        "SELECT family::text AS family FROM oidc_revoked WHERE until > %s", (now,)
    )
    return frozenset(row["family"] for row in await cursor.fetchall())


async def use_assertion(tx: Tx, identity: str, address: str, expires_at: datetime) -> str | None:
    """None at its first use; afterwards the address that used it first."""
    cursor = await tx.execute(
        "INSERT INTO oidc_assertion (sha256, address, expires_at) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (_hash(identity), address, expires_at),
    )
    if cursor.rowcount == 1:
        return None
    cursor = await tx.execute(
        "SELECT address FROM oidc_assertion WHERE sha256 = %s", (_hash(identity),)
    )
    row = await cursor.fetchone()
    return str(row["address"]) if row else ""


# ---------------------------------------------------------------------------------- device codes


@dataclass(frozen=True, slots=True)
class DeviceCode:
    user_code: str
    app_id: str
    scope: str
    state: str
    user_id: str | None
    signed_in_at: datetime | None
    polled_at: datetime | None
    expires_at: datetime


_DEVICE_CODE = """user_code, app_id::text AS app_id, scope, state, user_id::text AS user_id,
    signed_in_at, polled_at, expires_at"""


async def insert_device_code(
    tx: Tx, text: str, user_code: str, app_id: str, scope: str, expires_at: datetime
) -> bool:
    """False when the user code is taken."""
    cursor = await tx.execute(
        "INSERT INTO oidc_device_code (sha256, user_code, app_id, scope, expires_at)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (user_code) DO NOTHING",
        (_hash(text), user_code, app_id, scope, expires_at),
    )
    return cursor.rowcount == 1


async def device_code(tx: Tx, text: str) -> DeviceCode | None:
    """Locked until the transaction ends, so that two polls cannot both get tokens."""
    cursor = await tx.execute(
        f"SELECT {_DEVICE_CODE} FROM oidc_device_code WHERE sha256 = %s FOR UPDATE",  # noqa: S608
        (_hash(text),),
    )
    row = await cursor.fetchone()
    return DeviceCode(**row) if row else None


async def device_code_of_user(tx: Tx, user_code: str) -> DeviceCode | None:
    cursor = await tx.execute(
        f"SELECT {_DEVICE_CODE} FROM oidc_device_code WHERE user_code = %s",  # noqa: S608
        (user_code,),
    )
    row = await cursor.fetchone()
    return DeviceCode(**row) if row else None


async def poll_device_code(tx: Tx, text: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE oidc_device_code SET polled_at = %s WHERE sha256 = %s", (now, _hash(text))
    )


async def use_device_code(tx: Tx, text: str) -> None:
    await tx.execute("UPDATE oidc_device_code SET state = 'used' WHERE sha256 = %s", (_hash(text),))


async def decide_device_code(
    tx: Tx, user_code: str, state: str, user_id: str | None, signed_in_at: datetime | None
) -> bool:
    """False when it was decided before."""
    cursor = await tx.execute(
        "UPDATE oidc_device_code SET state = %s, user_id = %s, signed_in_at = %s"
        " WHERE user_code = %s AND state = 'pending'",
        (state, user_id, signed_in_at, user_code),
    )
    return cursor.rowcount == 1


async def delete_expired(tx: Tx, now: datetime) -> None:
    await tx.execute("DELETE FROM oidc_assertion WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM oidc_code WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM oidc_device_code WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM oidc_refresh_token WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM oidc_revoked WHERE until < %s", (now,))
