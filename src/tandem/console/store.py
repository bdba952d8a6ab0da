"""Sign-ins under way and sessions of the tenant's console. Tokens of browsers are kept as hashes."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from tandem.infra.database import Tx


@dataclass(frozen=True, slots=True)
class Begun:
    state: str
    verifier: bytes
    return_to: str


@dataclass(frozen=True, slots=True)
class Kept:
    user_id: str
    upn: str
    token: bytes
    expires_at: datetime


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


async def begin(tx: Tx, secret: str, begun: Begun, now: datetime, expires_at: datetime) -> None:
    await tx.execute("DELETE FROM console_sign_in WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM console_session WHERE expires_at < %s", (now,))
    await tx.execute(
        """INSERT INTO console_sign_in (digest, state, verifier, return_to, expires_at)
           VALUES (%s, %s, %s, %s, %s)""",
        (_digest(secret), begun.state, begun.verifier, begun.return_to, expires_at),
    )


async def take(tx: Tx, secret: str, now: datetime) -> Begun | None:
    """The sign-in that this secret began, once."""
    cursor = await tx.execute(
        """DELETE FROM console_sign_in WHERE digest = %s AND expires_at >= %s
           RETURNING state, verifier, return_to""",
        (_digest(secret), now),
    )
    row = await cursor.fetchone()
    return Begun(row["state"], bytes(row["verifier"]), row["return_to"]) if row else None


async def keep(tx: Tx, token: str, kept: Kept) -> None:
    await tx.execute(
        """INSERT INTO console_session (digest, user_id, upn, token, expires_at)
           VALUES (%s, %s, %s, %s, %s)""",
        (_digest(token), kept.user_id, kept.upn, kept.token, kept.expires_at),
    )


async def kept(tx: Tx, token: str, now: datetime) -> Kept | None:
    cursor = await tx.execute(
        """SELECT user_id, upn, token, expires_at FROM console_session
           WHERE digest = %s AND expires_at >= %s""",
        (_digest(token), now),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    return Kept(row["user_id"], row["upn"], bytes(row["token"]), row["expires_at"])


async def forget(tx: Tx, token: str) -> None:
    await tx.execute("DELETE FROM console_session WHERE digest = %s", (_digest(token),))


async def renew(tx: Tx, token: str, sealed: bytes) -> None:
    await tx.execute(
        "UPDATE console_session SET token = %s WHERE digest = %s", (sealed, _digest(token))
    )
