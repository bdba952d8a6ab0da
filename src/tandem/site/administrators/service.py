"""Accounts, sign-in and sessions of the site's administrators."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tandem import audit
from tandem.infra.database import Database, Tx
from tandem.site.administrators import scoping, store
from tandem.site.administrators.model import (
    ALL,
    Administrator,
    AdministratorsSettings,
    LastFullAdministrator,
    NameTaken,
    NoSuchAdministrator,
    NotSignedIn,
    Role,
    Session,
    SignInFailed,
    TooManyAttempts,
    WrongPassword,
    check_account,
    check_name,
    check_password,
)

# The object id of a tenant's account (by tenant id and sign-in name). Raises when the site knows
# no such account.
KnownAccount = Callable[[Tx, str, str], Awaitable[str]]

T = TypeVar("T")

_DEFAULTS = AdministratorsSettings()
_USED_EVERY = timedelta(minutes=1)


def _hasher(settings: AdministratorsSettings) -> PasswordHasher:
    return PasswordHasher(
        time_cost=settings.password_passes,
        memory_cost=settings.password_memory_kib,
        parallelism=1,
    )


async def create_first(
    tx: Tx, name: str, password: str, now: datetime, settings: AdministratorsSettings = _DEFAULTS
) -> Administrator | None:
    """The site's first full administrator; None when it has administrators already."""
    if await store.administrators(tx):
        return None
    return await add(
        tx, name, password, Role.FULL_ADMINISTRATOR, actor="set-up", now=now, settings=settings
    )


async def add(
    tx: Tx,
    name: str,
    password: str,
    role: Role,
    *,
    scopes: Sequence[str] = (ALL,),
    collections: Sequence[str] = (),
    actor: str,
    now: datetime,
    settings: AdministratorsSettings = _DEFAULTS,
) -> Administrator:
    """An account of the site's own. Raises NameTaken, WeakPassword, NoSuchScope, BadScope."""
    check_password(password)
    names = await scoping.known(tx, scopes)
    hashed = await asyncio.to_thread(_hasher(settings).hash, password)
    who = Administrator(
        name.strip(), role, now, scopes=names, collections=tuple(dict.fromkeys(collections))
    )
    return await _insert(tx, who, hashed, actor, now)


async def add_external(
    tx: Tx,
    name: str,
    tenant_id: str,
    upn: str,
    role: Role,
    *,
    scopes: Sequence[str] = (ALL,),
    collections: Sequence[str] = (),
    known: KnownAccount,
    actor: str,
    now: datetime,
) -> Administrator:
    """Let an account of the connected tenant sign in with this role.

    Raises NameTaken, BadAccount, NoSuchScope, BadScope, and what `known` raises.
    """
    check_account(tenant_id, upn)
    names = await scoping.known(tx, scopes)
    tenant_id, upn = tenant_id.strip().lower(), upn.strip()
    object_id = await known(tx, tenant_id, upn)
    limits = tuple(dict.fromkeys(collections))
    who = Administrator(name.strip(), role, now, tenant_id, upn, object_id, names, limits)
    return await _insert(tx, who, None, actor, now)


async def _insert(
    tx: Tx, who: Administrator, password: str | None, actor: str, now: datetime
) -> Administrator:
    check_name(who.name)
    if not await store.insert(tx, who, password):
        raise NameTaken(
            f"There is an administrator {who.name} already, or one for the same account.",
            cure="Take another name, or remove the other one first.",
            field="name",
        )
    details = {
        "role": who.role.value,
        "upn": who.upn,
        "scopes": list(who.scopes),
        "collections": list(who.collections),
    }
    await audit.record(
        tx, actor=actor, action="administrator.add", target=who.name, now=now, details=details
    )
    return who


async def remove(tx: Tx, name: str, *, actor: str, now: datetime) -> None:
    """Raises NoSuchAdministrator, LastFullAdministrator."""
    await store.lock(tx)
    found = await _not_the_last(tx, name)
    await store.delete(tx, found.name)
    await audit.record(tx, actor=actor, action="administrator.remove", target=found.name, now=now)


async def change_rights(
    tx: Tx,
    name: str,
    *,
    role: Role | None = None,
    scopes: Sequence[str] | None = None,
    collections: Sequence[str] | None = None,
    actor: str,
    now: datetime,
) -> Administrator:
    """What is not named stays. Their sessions go on, with the new rights. Raises
    NoSuchAdministrator, LastFullAdministrator, NoSuchScope, BadScope."""
    await store.lock(tx)
    found = await administrator(tx, name)
    wanted = replace(
        found,
        role=role or found.role,
        scopes=found.scopes if scopes is None else await scoping.known(tx, scopes),
        collections=found.collections if collections is None else tuple(dict.fromkeys(collections)),
    )
    if wanted == found:
        return found
    if not (wanted.role is Role.FULL_ADMINISTRATOR and wanted.over_all):
        await _not_the_last(tx, name)
    await store.save_rights(tx, found.name, wanted.role, wanted.scopes, wanted.collections)
    before, after = _rights(found), _rights(wanted)
    changed = [
        {"name": key, "old": before[key], "new": after[key]}
        for key in before
        if before[key] != after[key]
    ]
    await audit.record(
        tx,
        actor=actor,
        action="administrator.change",
        target=found.name,
        now=now,
        details={"changed": changed},
    )
    return await administrator(tx, found.name)


def _rights(who: Administrator) -> dict[str, object]:
    return {
        "role": who.role.value,
        "scopes": list(who.scopes),
        "collections": list(who.collections),
    }


async def _not_the_last(tx: Tx, name: str) -> Administrator:
    """Somebody who may go. An account of the tenant does not count as the last full administrator:
    it cannot sign in when the tenant is away. Nor does one who is limited: they can limit nobody. Raises NoSuchAdministrator, LastFullAdministrator."""
    found = await administrator(tx, name)
    full = [
        who
        for who in await store.administrators(tx)
        if who.role is Role.FULL_ADMINISTRATOR and who.over_all and not who.upn
    ]
    if full == [found]:
        raise LastFullAdministrator(
            f"{found.name} is the last full administrator of the site.",
            cure="Add another full administrator first.",
        )
    return found


async def administrator(tx: Tx, name: str) -> Administrator:
    """Raises NoSuchAdministrator."""
    for who in await store.administrators(tx):
        if who.name.lower() == name.lower():
            return who
    raise NoSuchAdministrator(
        f"There is no administrator {name[:128]}.", cure="List them: `tandem administrator list`."
    )


async def change_password(
    db: Database,
    who: Administrator,
    current: str,
    password: str,
    token: str,
    now: datetime,
    settings: AdministratorsSettings = _DEFAULTS,
) -> None:
    """One's own password; other sessions than the one that asks end. A wrong current password
    counts as one at sign-in. Raises WrongPassword, WeakPassword, TooManyAttempts."""
    if who.upn:
        raise WrongPassword(
            f"{who.name} signs in with an account of the tenant.",
            cure="Change the password there.",
        )
    check_password(password)
    hashed = await asyncio.to_thread(_hasher(settings).hash, password)

    async def known(tx: Tx, found: Administrator) -> None:
        await store.save_password(tx, found.name, hashed)
        await store.delete_other_sessions(tx, found.name, _digest(token))
        await audit.record(
            tx, actor=found.name, action="administrator.password", target=found.name, now=now
        )

    try:
        await _checked(db, who.name, current, now, settings, known)
    except SignInFailed:
        raise WrongPassword(
            "The current password is wrong.",
            cure="Type the password that you signed in with.",
            field="current",
        ) from None


async def administrators(tx: Tx) -> list[Administrator]:
    return await store.administrators(tx)


async def sign_in(
    db: Database,
    name: str,
    password: str,
    now: datetime,
    settings: AdministratorsSettings = _DEFAULTS,
) -> Session:
    """A session for the right password. Raises SignInFailed, TooManyAttempts."""

    async def signed_in(tx: Tx, who: Administrator) -> Session:
        await audit.record(
            tx, actor=who.name, action="administrator.sign-in", target=who.name, now=now
        )
        return await open_session(tx, who, now, settings)

    return await _checked(db, name, password, now, settings, signed_in)


async def authenticate(
    db: Database,
    name: str,
    password: str,
    now: datetime,
    settings: AdministratorsSettings = _DEFAULTS,
) -> Administrator:
    """Who has this password, for one request that brings it along. A wrong one counts towards the
    lock as it does at sign-in. Raises SignInFailed, TooManyAttempts."""

    async def known(_: Tx, who: Administrator) -> Administrator:
        return who

    return await _checked(db, name, password, now, settings, known)


async def _checked(
    db: Database,
    name: str,
    password: str,
    now: datetime,
    settings: AdministratorsSettings,
    then: Callable[[Tx, Administrator], Awaitable[T]],
) -> T:
    """What `then` makes of the account whose password it is. Raises SignInFailed, TooManyAttempts.

    Takes the database and not a transaction: a wrong password must be counted although the
    request fails, and no connection may wait for the hash.
    """
    async with db.transaction() as tx:
        found = await store.credential(tx, name)
    _check_lock(found, now, settings)
    async with _checking():
        right = await asyncio.to_thread(_matches, settings, found, password)
    refusal: SignInFailed | TooManyAttempts
    async with db.transaction() as tx:
        # What happened meanwhile counts: another guess may have locked the account.
        found = await store.credential(tx, name, lock=True)
        try:
            _check_lock(found, now, settings)
        except TooManyAttempts as locked:
            refusal = locked
        else:
            if right and found is not None:
                if found["failures"]:
                    await store.save_failures(tx, found["name"], 0, None)
                return await then(tx, store.administrator(found))
            if found is not None:
                await _count_failure(tx, found["name"], found["failures"] + 1, now, settings)
            refusal = SignInFailed(
                "Name or password is wrong.", cure="Check both; the site has accounts of its own."
            )
    raise refusal


def _check_lock(
    found: dict[str, Any] | None, now: datetime, settings: AdministratorsSettings
) -> None:
    """Raises TooManyAttempts."""
    if found is not None and found["locked_until"] and found["locked_until"] > now:
        raise TooManyAttempts(
            "Too many wrong passwords for this account.",
            cure=f"Wait {settings.lock_seconds} seconds, then try again.",
        )


# A check takes memory and a processor: a flood of guesses must not take all of either.
_AT_ONCE = 2
_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _checking() -> asyncio.Semaphore:
    """The gate of this event loop: a semaphore belongs to the loop that first waits on it."""
    return _gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_AT_ONCE))


async def _count_failure(
    tx: Tx, name: str, failures: int, now: datetime, settings: AdministratorsSettings
) -> None:
    until = None
    if failures >= settings.lock_after:
        until = now + timedelta(seconds=settings.lock_seconds)
        failures = 0
    await store.save_failures(tx, name, failures, until)
    await audit.record(
        tx, actor=name, action="administrator.sign-in", target=name, now=now, outcome="refused"
    )


# Checked when there is no such account, so that the answer takes as long.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43


def _matches(settings: AdministratorsSettings, found: dict[str, Any] | None, password: str) -> bool:
    hashed = found["password"] if found is not None else None
    try:
        return _hasher(settings).verify(hashed or _NOBODY, password[:1024]) and bool(hashed)
    except (VerificationError, InvalidHashError):
        return False


async def sign_in_external(
    tx: Tx,
    tenant_id: str,
    object_id: str,
    upn: str,
    now: datetime,
    settings: AdministratorsSettings = _DEFAULTS,
) -> Session:
    """A session for a tenant's account, whose token the caller has verified. Raises SignInFailed.

    The account is known by its object id: whoever gets a name that somebody else had is not them.
    """
    who = await find_external(tx, tenant_id, object_id)
    if who is None:
        raise SignInFailed(
            f"{upn or 'This account'} is not an administrator of this site.",
            cure="A full administrator of the site can add this account.",
        )
    await audit.record(tx, actor=who.name, action="administrator.sign-in", target=who.name, now=now)
    return await open_session(tx, who, now, settings)


async def find_external(tx: Tx, tenant_id: str, object_id: str) -> Administrator | None:
    """The administrator that this account of a tenant is."""
    # The site's own accounts have neither, and must not be found by that.
    known = tenant_id and object_id
    return await store.external(tx, tenant_id.lower(), object_id) if known else None


async def open_session(
    tx: Tx, who: Administrator, now: datetime, settings: AdministratorsSettings = _DEFAULTS
) -> Session:
    token = secrets.token_urlsafe(32)
    expires_at = now + timedelta(hours=settings.session_hours)
    await store.insert_session(tx, _digest(token), who.name, now, expires_at)
    return Session(token, who, expires_at)


async def session(
    tx: Tx, token: str, now: datetime, settings: AdministratorsSettings = _DEFAULTS
) -> Administrator:
    """Who is signed in with this token. Raises NotSignedIn."""
    digest = _digest(token)
    found = await store.session(tx, digest) if token else None
    if found is not None:
        who, used_at, expires_at = found
        idle = timedelta(minutes=settings.idle_minutes)
        if now < expires_at and now - used_at < idle:
            if now - used_at > _USED_EVERY:
                await store.mark_used(tx, digest, now)
            return who
        await store.delete_session(tx, digest)
    raise NotSignedIn(
        "You are not signed in to the site, or your session has ended.",
        cure="Sign in again: `tandem sign-in site`.",
    )


async def sign_out(tx: Tx, token: str) -> None:
    await store.delete_session(tx, _digest(token))


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
