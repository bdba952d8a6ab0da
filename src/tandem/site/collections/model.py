"""Resources that the site knows, and the collections that administrators make of them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType

from tandem.infra.errors import AppError, Invalid, Kind

CollectionId = NewType("CollectionId", str)

ALL_SYSTEMS = CollectionId("SMS00001")
FIRST_RESOURCE = 16_777_216


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
    """A user, as discovery found it in a tenant."""

    tenant_id: str
    object_id: str
    upn: str
    name: str = ""
    mail: str = ""
    sid: str = ""
    properties: dict[str, Any] = field(default_factory=dict)


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
    id: int
    upn: str
    name: str
    mail: str
    tenant_id: str
    object_id: str
    discovered_at: datetime


@dataclass(frozen=True, slots=True)
class Rule:
    """One membership rule: a resource by its name, or a query."""

    id: int
    kind: str  # "direct" or "query"
    name: str
    query: str = ""
    resource_id: int | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    id: CollectionId
    name: str
    comment: str
    limiting_id: CollectionId | None  # None only for All Systems.
    created_at: datetime


class BadQuery(Invalid):
    code = "collection.bad-query"


class BadName(Invalid):
    code = "collection.bad-name"


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


class InUse(AppError):
    kind, code = Kind.CONFLICT, "collection.in-use"
