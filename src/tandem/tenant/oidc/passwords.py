"""Passwords at the door: limits per account and per address, and nothing that tells names apart."""

from datetime import datetime, timedelta

from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.tenant import directory
from tandem.tenant.oidc import session_store as store
from tandem.tenant.oidc.model import OidcSettings
from tandem.tenant.oidc.refusals import OAuthError


async def check(
    tx: Tx,
    upn: str,
    password: str,
    address: str,
    now: datetime,
    settings: OidcSettings,
    passwords: directory.DirectorySettings,
) -> directory.User | AppError:
    """The user whose password this is, or the refusal as a value: what it counted has to stay.

    A name that nobody has costs the same time, is locked after as many tries, and is refused in
    the same words as one that somebody has.
    """
    tried = await _address_limit(tx, address, now, settings)
    if tried is not None:
        return tried
    name = upn.strip().lower()
    if "@" in name and await directory.find_user(tx, name) is not None:
        return await directory.authenticate(tx, name, password, now, passwords)
    locked_until = await store.unknown_name_locked(tx, name)
    if locked_until is not None and locked_until > now:
        return directory.locked(locked_until, now)
    refusal = await directory.authenticate(tx, name, password, now, passwords)
    wait = directory.lock_time(await store.count_unknown_name(tx, name, now), passwords)
    if wait:
        await store.lock_unknown_name(tx, name, now + wait)
    return refusal


async def _address_limit(
    tx: Tx, address: str, now: datetime, settings: OidcSettings
) -> OAuthError | None:
    """One password against many accounts shows only where they come from (password spraying)."""
    span = settings.address_window_seconds
    since = now - timedelta(seconds=span)
    wrong, accounts = await store.failures(tx, address, 50126, since, settings.address_failures)
    if accounts < settings.address_accounts and wrong < settings.address_failures:
        return None
    return OAuthError(
        50053,
        "Sign-in was blocked because it came from an address with many wrong passwords.",
        cure=f"Wait {span // 60} minutes and try again, or sign in from elsewhere.",
        retry_after_seconds=span,
    )
