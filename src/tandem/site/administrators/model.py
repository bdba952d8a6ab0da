"""Administrators of the site: its own accounts, so that sign-in works when the internet is down."""

import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Invalid, Kind


class Role(Enum):
    """Security roles, by the field's names. What each may, `permissions` says."""

    FULL_ADMINISTRATOR = "Full Administrator"
    INFRASTRUCTURE_ADMINISTRATOR = "Infrastructure Administrator"
    OPERATIONS_ADMINISTRATOR = "Operations Administrator"
    READ_ONLY_ANALYST = "Read-only Analyst"

    def covers(self, other: "Role") -> bool:
        """Whether who has this role may all that the other one may. Neither of infrastructure and
        operations covers the other."""
        return self is other or self is Role.FULL_ADMINISTRATOR or other is Role.READ_ONLY_ANALYST


# Scopes that every site has: every object, and objects that no other scope was given to.
ALL, DEFAULT = "All", "Default"


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
    # Which objects: those with one of these scopes.
    scopes: tuple[str, ...] = (ALL,)
    # Which devices and collections: the members of these, and what is limited to them. Without one:
    # all of them.
    collections: tuple[str, ...] = ()

    @property
    def all_scopes(self) -> bool:
        return ALL in self.scopes

    @property
    def over_all(self) -> bool:
        """Nothing of the site is hidden from them."""
        return self.all_scopes and not self.collections

    @property
    def title(self) -> str:
        """The role, and what it reaches where that is not everything."""
        if self.over_all:
            return self.role.value
        within = [f"scope {name}" for name in self.scopes if name != ALL]
        within += [f"collection {id}" for id in self.collections]
        return f"{self.role.value} over {', '.join(within)}"


@dataclass(frozen=True, slots=True)
class Scope:
    name: str
    comment: str
    created_at: datetime
    administrators: int = 0
    objects: int = 0

    @property
    def built_in(self) -> bool:
        return self.name in (ALL, DEFAULT)


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


class NoSuchScope(AppError):
    kind, code = Kind.NOT_FOUND, "site.no-such-scope"


class ScopeInUse(AppError):
    kind, code = Kind.CONFLICT, "site.scope-in-use"


class BadScope(Invalid):
    code = "site.bad-scope"


class NotInScope(AppError):
    """The answer for what is hidden and for what is not there: neither is told apart."""

    kind, code = Kind.NOT_FOUND, "site.no-such-object"


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


def check_scope(name: str) -> str:
    """A scope's name as it is kept."""
    name = name.strip()
    # `objects` is a word of the API's paths.
    if not _NAME.fullmatch(name) or "," in name or name.lower() == "objects":
        raise BadScope(
            "A scope has a name of 1 to 128 characters, without slashes and commas; `objects` is"
            " none.",
            cure="Take a name like Paris or Servers.",
            field="name",
        )
    return name


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
