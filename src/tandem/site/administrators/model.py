"""Administrators of the site: its own accounts, so that sign-in works when the internet is down."""

import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Invalid, Kind


class Role(Enum):
    """Security roles, by the field's names. All of them have all scopes."""

    FULL_ADMINISTRATOR = "Full Administrator"
    OPERATIONS_ADMINISTRATOR = "Operations Administrator"
    READ_ONLY_ANALYST = "Read-only Analyst"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {
    Role.READ_ONLY_ANALYST: 1,
    Role.OPERATIONS_ADMINISTRATOR: 2,
    Role.FULL_ADMINISTRATOR: 3,
}


class AdministratorsSettings(Settings, frozen=True):
    # Work of one password check (argon2id).
    password_memory_kib: int = 19_456
    password_passes: int = 2
    # Wrong passwords in a row before an account waits, and for how long.
    lock_after: int = 10
    lock_seconds: int = 60
    # A session ends after so long, or earlier when nothing is done with it.
    session_hours: float = 12
    idle_minutes: float = 60


@dataclass(frozen=True, slots=True)
class Administrator:
    name: str
    role: Role
    created_at: datetime
    # The tenant's account that may sign in as this administrator; empty for the site's own.
    tenant_id: str = ""
    upn: str = ""
    # What the account is in its directory, whatever it is called there later.
    object_id: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """Who is signed in. `token` is known only to whoever signed in; the site keeps its hash."""

    token: str
    administrator: Administrator
    expires_at: datetime


class SignInFailed(AppError):
    """One refusal for an unknown name and for a wrong password: neither is told apart."""

    kind, code = Kind.UNAUTHENTICATED, "site.sign-in-failed"


class TooManyAttempts(AppError):
    kind, code = Kind.RATE_LIMITED, "site.too-many-attempts"


class NotSignedIn(AppError):
    kind, code = Kind.UNAUTHENTICATED, "site.not-signed-in"


class NotAllowed(AppError):
    kind, code = Kind.FORBIDDEN, "site.not-allowed"


class NameTaken(AppError):
    kind, code = Kind.CONFLICT, "site.administrator-exists"


class NoSuchAdministrator(AppError):
    kind, code = Kind.NOT_FOUND, "site.no-such-administrator"


class LastFullAdministrator(AppError):
    kind, code = Kind.CONFLICT, "site.last-full-administrator"


class BadAccount(Invalid):
    code = "site.bad-account"


class WeakPassword(Invalid):
    code = "site.weak-password"


class WrongPassword(AppError):
    kind, code = Kind.FORBIDDEN, "site.wrong-password"


LEAST_PASSWORD, MOST_PASSWORD = 10, 1024


def check_password(password: str) -> None:
    if len(password) < LEAST_PASSWORD:
        raise WeakPassword(
            "The password is too short.", cure="Take at least 10 characters.", field="password"
        )
    if len(password) > MOST_PASSWORD:
        raise WeakPassword(
            "The password is longer than 1,024 characters.",
            cure="Take a shorter one.",
            field="password",
        )


# A name is a word of the audit log and of a URL.
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,128}")


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadAccount(
            "An administrator has a name of 1 to 128 characters, without slashes.",
            cure="Take a name like Alex or contoso.alex.",
            field="name",
        )


def check_account(tenant_id: str, upn: str) -> None:
    try:
        uuid.UUID(tenant_id.strip())
    except ValueError:
        raise BadAccount(
            f"{tenant_id[:256]!r} is not a tenant's id.",
            cure="See `tandem azure-service show`.",
            field="tenant_id",
        ) from None
    if not 3 <= len(upn.strip()) <= 256 or "@" not in upn:
        raise BadAccount(
            f"{upn[:256]!r} is not a user's sign-in name.",
            cure="Give it as name@domain.",
            field="upn",
        )
