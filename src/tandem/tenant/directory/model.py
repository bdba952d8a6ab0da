"""What a directory holds, and the plain rules about it."""

import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind


class DirectorySettings(Settings, frozen=True):
    # Work of one password check (argon2id). Less makes guessing from a stolen database cheaper.
    password_memory_kib: int = 19_456
    password_passes: int = 2
    # Wrong passwords in a row before the account is locked, and for how long at first.
    lock_after: int = 10
    lock_seconds: int = 60
    # How many devices one user may join.
    devices_per_user: int = 50


class MdmAuthority(Enum):
    """Who manages the tenant's devices; the words of Graph's organization resource."""

    UNKNOWN = "unknown"
    INTUNE = "intune"


class MdmScope(Enum):
    """Whose devices enrol by themselves when they join."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
INTUNE_ADMINISTRATOR = "3a2c62db-5318-420d-8d74-23affee5d9d5"
USER_ADMINISTRATOR = "fe930be7-5e62-47db-91af-98c3a49a38b1"
LICENSE_ADMINISTRATOR = "4d6ac14f-3453-41d0-bef9-a3e0c569773a"
CLOUD_DEVICE_ADMINISTRATOR = "7698a772-787b-4ac8-901f-60d6b08affd2"
APPLICATION_ADMINISTRATOR = "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3"
GLOBAL_READER = "f2ef992c-3afb-46b9-b7cf-a126ee74c451"
PRIVILEGED_ROLE_ADMINISTRATOR = "e8611ab8-c189-46e8-94e1-60213ab1f814"
HELPDESK_ADMINISTRATOR = "729827e3-9c14-49f7-bb1b-9608f156bbb8"
GROUPS_ADMINISTRATOR = "fdd7a751-b60b-444a-984c-02652fe8fa1c"
CONDITIONAL_ACCESS_ADMINISTRATOR = "b1be1c3e-b65d-4f19-8427-f6fa0d97feb9"
DEVICE_LOCAL_ADMINISTRATOR = "9f06204d-73c1-4d4c-880a-6edb90606fd8"

ROLES = {
    GLOBAL_ADMINISTRATOR: "Global Administrator",
    PRIVILEGED_ROLE_ADMINISTRATOR: "Privileged Role Administrator",
    INTUNE_ADMINISTRATOR: "Intune Administrator",
    USER_ADMINISTRATOR: "User Administrator",
    HELPDESK_ADMINISTRATOR: "Helpdesk Administrator",
    GROUPS_ADMINISTRATOR: "Groups Administrator",
    LICENSE_ADMINISTRATOR: "License Administrator",
    CLOUD_DEVICE_ADMINISTRATOR: "Cloud Device Administrator",
    DEVICE_LOCAL_ADMINISTRATOR: "Microsoft Entra Joined Device Local Administrator",
    APPLICATION_ADMINISTRATOR: "Application Administrator",
    CONDITIONAL_ACCESS_ADMINISTRATOR: "Conditional Access Administrator",
    GLOBAL_READER: "Global Reader",
}
DESCRIPTIONS = {
    GLOBAL_ADMINISTRATOR: "May do everything in the tenant.",
    PRIVILEGED_ROLE_ADMINISTRATOR: "Gives and takes directory roles, except privileged ones.",
    INTUNE_ADMINISTRATOR: "Manages devices, apps, policies and groups.",
    USER_ADMINISTRATOR: "Manages users and groups, except administrators.",
    HELPDESK_ADMINISTRATOR: "Sets passwords of users who hold no role.",
    GROUPS_ADMINISTRATOR: "Manages groups that give no role.",
    LICENSE_ADMINISTRATOR: "Assigns licences and sets usage locations.",
    CLOUD_DEVICE_ADMINISTRATOR: "Enables, disables and deletes devices.",
    DEVICE_LOCAL_ADMINISTRATOR: "Is a local administrator of joined devices.",
    APPLICATION_ADMINISTRATOR: "Manages app registrations and service principals.",
    CONDITIONAL_ACCESS_ADMINISTRATOR: "Manages conditional-access policies.",
    GLOBAL_READER: "Reads everything and changes nothing.",
}
# Who holds one of these can give it to anybody: only a Global Administrator touches them.
PRIVILEGED = frozenset({GLOBAL_ADMINISTRATOR, PRIVILEGED_ROLE_ADMINISTRATOR})


def role_name(role_id: str) -> str:
    return ROLES.get(role_id, role_id)


@dataclass(frozen=True, slots=True)
class RulePreview:
    """`sort` is user or device; `first` are ids and names."""

    sort: str
    total: int
    first: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class MdmAddresses:
    """What joined devices are told; None: the usual address of this tenant."""

    discovery: str | None = None
    terms_of_use: str | None = None
    compliance: str | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    display_name: str
    default_domain: str
    domains: tuple[str, ...]
    created_at: datetime
    mdm_authority: MdmAuthority
    mdm_authority_set_at: datetime | None
    mdm_scope: MdmScope
    mdm_scope_groups: tuple[str, ...]
    mam_scope: MdmScope = MdmScope.NONE
    mam_scope_groups: tuple[str, ...] = ()
    mdm_addresses: MdmAddresses = MdmAddresses()


@dataclass(frozen=True, slots=True)
class NewUser:
    user_principal_name: str
    display_name: str
    password: str
    mail_nickname: str = ""
    account_enabled: bool = True
    usage_location: str | None = None
    profile: dict[str, Any] | None = None
    must_change_password: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """`profile` holds Graph's free properties (jobTitle, department, …) by their Graph names."""

    id: str
    user_principal_name: str
    display_name: str
    account_enabled: bool
    mail_nickname: str
    usage_location: str | None
    profile: dict[str, Any]
    created_at: datetime
    sessions_valid_from: datetime
    must_change_password: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """`membership_rule` decides the members while `rule_processing` is On; `profile` holds what is
    kept and given back by its Graph name."""

    id: str
    display_name: str
    description: str | None
    mail_nickname: str
    created_at: datetime
    group_types: tuple[str, ...] = ()
    membership_rule: str | None = None
    rule_processing: str | None = None
    mail_enabled: bool = False
    security_enabled: bool = True
    is_assignable_to_role: bool = False
    visibility: str | None = None
    profile: dict[str, Any] = field(default_factory=dict)

    @property
    def is_dynamic(self) -> bool:
        return DYNAMIC in self.group_types


DYNAMIC = "DynamicMembership"


class Trust(Enum):
    """How a device belongs to the tenant, in Graph's words: joined; joined to the domain and known
    here (hybrid); only registered, as personal devices are."""

    JOINED = "AzureAd"
    HYBRID = "ServerAd"
    REGISTERED = "Workplace"


@dataclass(frozen=True, slots=True)
class Deleted:
    """Something that can still be restored; `sort` is user, group or application."""

    id: str
    sort: str
    display_name: str
    deleted_at: datetime


KEPT_AFTER_DELETION = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Domain:
    """`challenge` is the text that a TXT record of the domain has to hold."""

    name: str
    is_default: bool
    is_initial: bool
    is_verified: bool
    challenge: str


@dataclass(frozen=True, slots=True)
class Member:
    """`sort` is user, group, device or servicePrincipal."""

    id: str
    sort: str


@dataclass(frozen=True, slots=True)
class Device:
    """A joined device. `id` is its directory object, `device_id` what tokens and MDM call it."""

    id: str
    device_id: str
    display_name: str
    account_enabled: bool
    operating_system: str
    operating_system_version: str
    key_thumbprint: str
    owner_id: str | None
    is_managed: bool
    is_compliant: bool | None
    registered_at: datetime
    trust_type: str = Trust.JOINED.value
    profile: dict[str, Any] = field(default_factory=dict)


class NoTenant(AppError):
    kind, code = Kind.UNAVAILABLE, "directory.no-tenant"


class TenantExists(AppError):
    kind, code = Kind.CONFLICT, "directory.tenant-exists"


class BadValue(AppError):
    kind, code = Kind.INVALID, "directory.bad-value"


class Taken(AppError):
    kind, code = Kind.CONFLICT, "directory.taken"


class UnknownObject(AppError):
    kind, code = Kind.NOT_FOUND, "directory.not-found"


class LastAdministrator(AppError):
    kind, code = Kind.CONFLICT, "directory.last-administrator"


class DynamicMembers(AppError):
    kind, code = Kind.INVALID, "directory.dynamic-members"


class BadRule(BadValue):
    code = "directory.bad-rule"


class NotVerified(AppError):
    kind, code = Kind.INVALID, "directory.domain-not-verified"


class NoMdmAuthority(AppError):
    kind, code = Kind.CONFLICT, "directory.no-mdm-authority"


class MdmAuthorityIsSet(AppError):
    kind, code = Kind.CONFLICT, "directory.mdm-authority-is-set"


class WrongPassword(AppError):
    kind, code = Kind.UNAUTHENTICATED, "directory.wrong-password"


class AccountLocked(AppError):
    kind, code = Kind.RATE_LIMITED, "directory.account-locked"


class AccountDisabled(AppError):
    kind, code = Kind.FORBIDDEN, "directory.account-disabled"


class DeviceQuota(AppError):
    kind, code = Kind.FORBIDDEN, "directory.device-quota"


_DOMAIN = re.compile(
    r"^(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])$"
)
_LOCAL = re.compile(r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}$")
MINIMUM_PASSWORD = 8
MAXIMUM_PASSWORD = 256
MAXIMUM_NAME = 256
_LONGEST_LOCK = timedelta(hours=1)


def as_guid(text: str) -> str | None:
    """The id in its one spelling, or None when the text is no GUID."""
    try:
        return str(uuid.UUID(text)) if len(text) == 36 else None
    except ValueError:
        return None


def check_domain(name: str) -> str:
    lower = name.strip().lower().rstrip(".")
    if not _DOMAIN.match(lower):
        raise BadValue(
            f"'{name}' is not a domain name.",
            cure="Write a name like contoso.com.",
            target="domain",
        )
    return lower


def check_name(name: object) -> str:
    """A display name: something, and not too much of it."""
    if isinstance(name, str) and 0 < len(name.strip()) <= MAXIMUM_NAME:
        return name.strip()
    raise BadValue(
        "The display name is missing or too long.",
        cure=f"Give one of 1 to {MAXIMUM_NAME} characters.",
        target="displayName",
    )


def check_upn(upn: str, domains: tuple[str, ...]) -> str:
    """Raises BadValue unless the name is `somebody@` a verified domain."""
    local, at, domain = upn.strip().rpartition("@")
    if not at or not _LOCAL.match(local):
        raise BadValue(
            f"'{upn}' is not a user principal name.",
            cure="Write a name like alex@contoso.com.",
            target="userPrincipalName",
        )
    if domain.lower() not in domains:
        raise BadValue(
            f"The domain portion of the userPrincipalName '{upn}' is not a verified domain of "
            "this tenant.",
            cure="Use one of: " + ", ".join(domains) + ".",
            target="userPrincipalName",
        )
    return f"{local}@{domain.lower()}"


def check_password(password: str) -> None:
    kinds = [r"[a-z]", r"[A-Z]", r"[0-9]", r"[^A-Za-z0-9]"]
    variety = sum(bool(re.search(kind, password)) for kind in kinds)
    if not MINIMUM_PASSWORD <= len(password) <= MAXIMUM_PASSWORD or (
        variety < 3 and len(password) < 20
    ):
        raise BadValue(
            "The specified password does not comply with password complexity requirements.",
            cure=f"Use {MINIMUM_PASSWORD} to {MAXIMUM_PASSWORD} characters with three of: small "
            "letter, capital, digit, symbol; or at least 20 characters of any kind.",
            target="passwordProfile",
        )


def check_location(location: str | None) -> str | None:
    if location is None or re.fullmatch(r"[A-Za-z]{2}", location):
        return location.upper() if location else None
    raise BadValue(
        f"'{location}' is not a usage location.",
        cure="Give a country in two letters, such as DE.",
        target="usageLocation",
    )


def locked(until: datetime, now: datetime) -> AccountLocked:
    seconds = int((until - now).total_seconds()) + 1
    return AccountLocked(
        "Too many wrong passwords: this account is locked for a while.",
        cure=f"Try again in {seconds} seconds, or have an administrator set a new password.",
        retry_after_seconds=seconds,
    )


def lock_time(failures: int, settings: DirectorySettings) -> timedelta | None:
    """How long the account is locked after so many wrong passwords: longer each time."""
    over = failures - settings.lock_after
    if over < 0:
        return None
    return min(timedelta(seconds=settings.lock_seconds * 2 ** min(over, 20)), _LONGEST_LOCK)
