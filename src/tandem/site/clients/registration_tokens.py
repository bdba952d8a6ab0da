"""Bulk registration tokens: an administrator lets many devices register that no directory knows."""

from datetime import datetime, timedelta
from uuid import uuid4

import msgspec

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.infra.secrets import SecretBox
from tandem.site.clients import store, tokens
from tandem.site.clients.model import BadToken, ExpiredToken, RegistrationToken

# The field's (spec 3.4), in minutes.
DEFAULT_MINUTES, MOST_MINUTES = 4_320, 10_080
_LONGEST_DESCRIPTION = 200


class NoSuchRegistrationToken(AppError):
    kind, code = Kind.NOT_FOUND, "client.no-such-registration-token"


class RegistrationTokenBlocked(AppError):
    kind, code = Kind.FORBIDDEN, "client.registration-token-blocked"


class NewRegistrationToken(msgspec.Struct, frozen=True):
    """`token` is shown this once: the site keeps what it is about, not the token."""

    id: str
    token: str
    expires_at: datetime
    description: str


async def create(
    tx: Tx,
    box: SecretBox,
    site_code: str,
    *,
    minutes: int,
    description: str,
    actor: str,
    now: datetime,
) -> NewRegistrationToken:
    """Raises Invalid."""
    if not 1 <= minutes <= MOST_MINUTES:
        raise Invalid(
            f"A bulk registration token is good for 1 to {MOST_MINUTES} minutes, not {minutes}.",
            cure=f"Leave it out for {DEFAULT_MINUTES} minutes: three days.",
        )
    if len(description) > _LONGEST_DESCRIPTION or not description.isprintable():
        raise Invalid(
            f"A description is one line of at most {_LONGEST_DESCRIPTION} characters.",
            cure="Shorten it.",
        )
    kid, key = await tokens.TokenKeys(box).signing(tx, now)
    made = RegistrationToken(
        str(uuid4()), description, actor, now, now + timedelta(minutes=minutes), False, 0
    )
    await store.add_registration_token(tx, made)
    details = {"minutes": minutes, "description": description}
    await audit.record(
        tx,
        actor=actor,
        action="client.registration-token-new",
        target=made.id,
        details=details,
        now=now,
    )
    token = tokens.issue_registration_token(
        kid, key, site_code, made.id, starts=now, ends=made.expires_at
    )
    return NewRegistrationToken(made.id, token, made.expires_at, description)


async def every(tx: Tx) -> list[RegistrationToken]:
    """The newest first, with how many clients registered by each."""
    return await store.registration_tokens(tx)


async def set_blocked(
    tx: Tx, id: str, blocked: bool, *, actor: str, now: datetime
) -> RegistrationToken:
    """A blocked token registers nothing more; who registered by it stays. Raises
    NoSuchRegistrationToken."""
    if not await store.block_registration_token(tx, id, blocked):
        raise _unknown(id)
    action = "client.registration-token-block" if blocked else "client.registration-token-unblock"
    await audit.record(tx, actor=actor, action=action, target=id, details={}, now=now)
    found = await store.registration_token(tx, id)
    assert found is not None
    return found


async def delete(tx: Tx, id: str, *, actor: str, now: datetime) -> None:
    """It registers nothing more, and is not in the list. Raises NoSuchRegistrationToken."""
    if not await store.delete_registration_token(tx, id):
        raise _unknown(id)
    await audit.record(
        tx, actor=actor, action="client.registration-token-delete", target=id, details={}, now=now
    )


def _unknown(id: str) -> NoSuchRegistrationToken:
    return NoSuchRegistrationToken(
        f"There is no bulk registration token {id[:64]}.",
        cure="`tandem bulk-registration-token list` shows those that there are.",
    )


async def admit(tx: Tx, id: str, ended: datetime | None = None) -> None:
    """Whether this token may register a client now. One that expired before `ended` may not. Raises
    BadToken, ExpiredToken, RegistrationTokenBlocked."""
    found = await store.registration_token(tx, id)
    if found is None:
        raise BadToken(
            "The bulk registration token was deleted.",
            cure="Ask an administrator of the site for a new one.",
        )
    if ended is not None and found.expires_at <= ended:
        raise ExpiredToken(
            f"The bulk registration token expired at {found.expires_at:%Y-%m-%d %H:%M} UTC.",
            cure="Ask an administrator of the site for a new one.",
        )
    if found.blocked:
        raise RegistrationTokenBlocked(
            f"The bulk registration token {found.id} is blocked.",
            cure="An administrator of the site can unblock it, or make a new one.",
        )
