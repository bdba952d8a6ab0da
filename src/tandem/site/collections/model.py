"""Resources that the site knows, and the collections that administrators make of them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Invalid, Kind

CollectionId = NewType("CollectionId", str)

ALL_SYSTEMS = CollectionId("SMS00001")
ALL_USERS = CollectionId("SMS00002")
ALL_USER_GROUPS = CollectionId("SMS00003")
ALL_USERS_AND_GROUPS = CollectionId("SMS00004")
ALL_CLIENTS = CollectionId("SMSDM003")
# The field's documents do not say the id of this one.
ELIGIBLE = CollectionId("SMS000CE")
# Collections that nothing limits: one of devices, one of users.
ROOTS = frozenset({ALL_SYSTEMS, ALL_USERS_AND_GROUPS})
WEEK_MINUTES = 7 * 24 * 60


class MemberType(StrEnum):
    """What a collection has members of: never both."""

    DEVICE = "device"
    USER = "user"

    @property
    def root(self) -> CollectionId:
        return ALL_SYSTEMS if self is MemberType.DEVICE else ALL_USERS_AND_GROUPS


@dataclass(frozen=True, slots=True)
class Resource:
    """A device, as its client registered it. `client_id` is GUID:…"""

    client_id: str
    name: str
    tenant_id: str = ""
    device_id: str = ""
    os_name: str = ""
    os_version: str = ""
    client_version: str = ""


@dataclass(frozen=True, slots=True)
class UserResource:
    """A user or a group of users (`kind`), as discovery found it in a tenant. A group has no `upn`."""

    tenant_id: str
    object_id: str
    upn: str
    name: str = ""
    mail: str = ""
    sid: str = ""
    properties: dict[str, Any] = field(default_factory=dict)
    kind: str = "user"


@dataclass(frozen=True, slots=True)
class KnownResource:
    """A resource with the number that the site gave it."""

    id: int
    name: str
    client_id: str
    tenant_id: str
    device_id: str
    os_name: str
    os_version: str
    client_version: str
    discovered_at: datetime


@dataclass(frozen=True, slots=True)
class KnownUser:
    """A user, or a group of users (`kind`)."""

    id: int
    upn: str
    name: str
    mail: str
    tenant_id: str
    object_id: str
    discovered_at: datetime
    kind: str = "user"


@dataclass(frozen=True, slots=True)
class KnownGroup:
    """A group of users. `members` are those whom the site knows."""

    id: int
    name: str
    sid: str
    tenant_id: str
    object_id: str
    discovered_at: datetime
    members: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One membership rule: a device or a user, a query, or another collection's members.

    Whom an exclude rule names is never a member, whatever other rule names them.
    """

    id: int  # 0 while it is only thought of.
    kind: str  # One of RULE_KINDS.
    name: str
    query: str = ""
    resource_id: int | None = None
    other_id: CollectionId | None = None  # Of include and exclude rules.


# Who is in a collection that is built in, for people.
BUILT_IN = {
    ALL_SYSTEMS: "Every device that the site knows.",
    ALL_CLIENTS: "Devices that have a client.",
    ELIGIBLE: (
        "Devices that could be co-managed: Windows 10 version 1709 (10.0.16299) or later, no server,"
        " joined to the tenant, with a client, and not enrolled with another MDM service. Those"
        " that are co-managed are among them."
    ),
    ALL_USERS_AND_GROUPS: "Every user and every group of users that the site knows.",
    ALL_USERS: "Every user that discovery has found.",
    ALL_USER_GROUPS: "Every group of users that discovery has found.",
}


# What is reported of one class of a resource: a row of attributes for each instance.
Reported = Sequence[Mapping[str, str | int]]

RULE_KINDS = ("direct", "query", "include", "exclude")


@dataclass(frozen=True, slots=True)
class WantedRule:
    """A rule as somebody asks for it: `device` by name, number or client id, `user` by sign-in name,
    number or object id (a group also by its name), `collection` by id or name. A query without a name gets one."""

    kind: str
    name: str = ""
    query: str = ""
    device: str = ""
    collection: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """Who would be a member: how many, and the first of them."""

    members: int
    first: Sequence["KnownResource | KnownUser"]
    took_ms: float
    direct: int  # Members that direct rules name, within the limit.
    # What each other rule alone would bring (or, of exclude rules, keep out), within the limit.
    rules: list[tuple[Rule, int]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A collection's members as they were found last, and what finding them costs.

    `at`, `took_ms` and `before` are of the last full evaluation, which looks at every resource;
    an incremental one looks at those that have changed.
    """

    at: datetime
    members: int
    took_ms: float
    before: int | None = None  # Members before the last full evaluation.
    changed_at: datetime | None = None  # When somebody last came or went.
    incremental_at: datetime | None = None
    incremental_ms: float | None = None
    incremental_runs: int = 0
    incremental_total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Use:
    """Something that a collection is used for. What `blocks` keeps it from being deleted. `seen`:
    also somebody who is limited may be told of it. `reaches`: whoever comes into the collection gets
    something by it."""

    kind: str
    name: str
    detail: str = ""
    blocks: bool = True
    seen: bool = False
    reaches: bool = True


# What one module uses a collection for: modules above this one hand theirs in.
UsedFor = Callable[[Tx, CollectionId], Awaitable[list[Use]]]


@dataclass(frozen=True, slots=True)
class Guard:
    """What collections are used for, and how many devices one administrator may reach alone."""

    used_for: Sequence[UsedFor] = ()
    approval_above: int = 100


@dataclass(frozen=True, slots=True)
class Collection:
    id: CollectionId
    name: str
    comment: str
    limiting_id: CollectionId | None  # None only for what is in ROOTS.
    created_at: datetime
    # How its members are found: when a resource changes, and all anew every so often (0: never).
    incremental: bool = True
    full_every_minutes: int = WEEK_MINUTES
    type: MemberType = MemberType.DEVICE

    @property
    def built_in(self) -> bool:
        return self.id in BUILT_IN


@dataclass(frozen=True, slots=True)
class Edge:
    """`of` is limited by `on`, or includes or excludes its members; `how` is limit, include or
    exclude."""

    of: CollectionId
    on: CollectionId
    how: str


@dataclass(frozen=True, slots=True)
class Dependencies:
    """All that a collection depends on and all that depends on it, however far away. It stands in
    neither list; nearest come first."""

    needs: tuple[Collection, ...]
    needed_by: tuple[Collection, ...]
    edges: tuple[Edge, ...]


class WrongType(AppError):
    """A collection of users where devices are meant, or the other way."""

    kind, code = Kind.CONFLICT, "collection.wrong-type"


class BadSchedule(Invalid):
    code = "collection.bad-schedule"


class BadQuery(Invalid):
    code = "collection.bad-query"


class BadName(Invalid):
    code = "collection.bad-name"


class BadRule(Invalid):
    code = "collection.bad-rule"


class TooComplex(Invalid):
    code = "collection.too-complex"


class NameTaken(AppError):
    kind, code = Kind.CONFLICT, "collection.name-taken"


class NoSuchCollection(AppError):
    kind, code = Kind.NOT_FOUND, "collection.not-found"


class NoSuchResource(AppError):
    kind, code = Kind.NOT_FOUND, "resource.not-found"


class NoSuchRule(AppError):
    kind, code = Kind.NOT_FOUND, "collection.no-such-rule"


class Circular(AppError):
    kind, code = Kind.CONFLICT, "collection.circular"


class BuiltIn(AppError):
    kind, code = Kind.CONFLICT, "collection.built-in"


class LimitsYou(AppError):
    kind, code = Kind.FORBIDDEN, "collection.limits-you"


class NeedsOverAll(AppError):
    kind, code = Kind.FORBIDDEN, "collection.needs-over-all"


class ReadsOthers(AppError):
    kind, code = Kind.FORBIDDEN, "collection.reads-others"


class GrowsTooFar(AppError):
    kind, code = Kind.CONFLICT, "collection.grows-too-far"


class InUse(AppError):
    kind, code = Kind.CONFLICT, "collection.in-use"
