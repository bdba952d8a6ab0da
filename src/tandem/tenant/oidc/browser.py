"""Sessions of browsers: single sign-on between applications.

A browser holds one random value; the database its hash, with an account for each row. The value
changes with every sign-in, so one that somebody planted or saw before is worth nothing after.
"""

import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import session_store as store
from tandem.tenant.oidc.model import OidcSettings
from tandem.tenant.oidc.session_store import Session

_MOST_ACCOUNTS = 5


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who is signed in here."""

    session: Session
    user: directory.User


async def accounts(tx: Tx, browser: str, now: datetime, settings: OidcSettings) -> list[Account]:
    """Who is signed in to the browser; the one used last first. Accounts that were disabled, and
    sessions from before a new password or a revocation, are none."""
    if not browser:
        return []
    idle = now - timedelta(seconds=settings.session_idle_seconds)
    found = []
    for session in await store.sessions(tx, browser, now):
        user = await directory.find_user(tx, session.user_id)
        if (
            user is not None
            and user.account_enabled
            and session.used_at >= idle
            and session.signed_in_at >= user.sessions_valid_from
        ):
            found.append(Account(session, user))
    return found


async def sign_in(
    tx: Tx, browser: str, user: directory.User, now: datetime, settings: OidcSettings
) -> tuple[str, Account]:
    """Add the account to the browser. Returns the browser's new value."""
    fresh = secrets.token_urlsafe(32)
    held = await store.sessions(tx, browser, now) if browser else []
    await store.delete_sessions(tx, [item.id for item in held[_MOST_ACCOUNTS - 1 :]])
    if browser:
        await store.move_sessions(tx, browser, fresh)
    until = now + timedelta(seconds=settings.session_seconds)
    session = Session(str(uuid.uuid4()), user.id, now, now, until)
    await store.insert_session(tx, fresh, session)
    return fresh, Account(session, user)


async def used(tx: Tx, account: Account, now: datetime) -> None:
    await store.use_session(tx, account.session.id, now)


async def sign_out(tx: Tx, browser: str, now: datetime) -> None:
    """End every session of the browser."""
    if browser:
        found = await store.sessions(tx, browser, now)
        await store.delete_sessions(tx, [item.id for item in found])
