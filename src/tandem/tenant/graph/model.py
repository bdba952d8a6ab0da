"""What a resource is: one description that drives paths, parsing, SQL, permissions and answers.

A part of Graph is a file beside this one with one function that returns a `Part`:

    def managed_devices(collaborator: …) -> Part:
        source = Source("enrollment_device d", {"id": "d.id", "device_name": "d.name"}, key="id")
        devices = Resource(
            path="deviceManagement/managedDevices",     # without version; keys in braces
            type="managedDevice",
            family=Family.INTUNE,                       # error codes, always @odata.count
            fields=(Field("id", Primitive.GUID), Field("deviceName", writable=True)),
            rows=source,                                # or: async def rows(call) -> list[dict]
            read=access("DeviceManagementManagedDevices.Read.All", roles=READERS),
            write=access("DeviceManagementManagedDevices.ReadWrite.All", roles=WRITERS),
            delete=remove,                              # async def remove(call, key) -> None
        )
        sync = Action("deviceManagement/managedDevices/{managedDevice}/syncDevice", run=…, access=…)
        return Part((devices,), (sync,))

Bodies name the derived type of an object in `@odata.type`; a resource whose objects have several
types says so by `typed`, by `derived` (what each type adds) and by `bases` (who derives from whom).

A field reads the column of its name in snake_case, `value=` computes it from the row, `load=` brings
it for a whole page. `create(call, body) -> Created(key)`, `update(call, key, changes)`: bodies are
checked, and hold only writable fields, by Graph's names. `call.tx`, `call.now`, `call.caller`,
`call.keys["managedDevice"]` (ids of the path by type). Refusals are AppErrors; audit is written for
every change. `roles/tenant.py` hands the parts to `graph.routes(…, parts=[…])`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.listing import Row, Source
from tandem.protocols.odata import Primitive, Query

Body = dict[str, Any]


class Family(Enum):
    """Which half of Graph a resource belongs to: they differ in error codes, counts and pages."""

    DIRECTORY = "directory"
    INTUNE = "intune"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the access token says. `object_id` is a user's, a device's or a service
    principal's."""

    sort: str  # "app", "user" or "device"
    object_id: str
    app_id: str
    tenant_id: str
    scopes: frozenset[str] = frozenset()
    app_roles: frozenset[str] = frozenset()
    name: str = ""
    # A user's, as they are now; None: not read yet.
    directory_roles: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Who may: an application with one of `application`, or a user who came with one of the
    `delegated` scopes and, when `roles` is not empty, holds one of these directory roles.
    `own` are scopes that suffice for the caller's own user object (/me)."""

    delegated: frozenset[str] = frozenset()
    application: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()


def access(
    *permissions: str,
    delegated: Sequence[str] = (),
    application: Sequence[str] = (),
    roles: Sequence[str] = (),
    own: Sequence[str] = (),
) -> Access:
    """`permissions` count for both kinds of token, the named ones for one kind only."""
    return Access(
        frozenset((*permissions, *delegated)),
        frozenset((*permissions, *application)),
        frozenset(roles),
        frozenset(own),
    )


@dataclass
class Call:
    """One request, inside its transaction. `keys` holds the ids of the path by resource type,
    `parameters` what a function got in its brackets."""

    tx: Tx
    now: datetime
    caller: Caller
    version: str
    base: str
    path: str
    query: Query
    keys: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    own: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    # What the request says besides: If-Match, and ConsistencyLevel: eventual.
    if_match: str = ""
    eventual: bool = False
    cast: str = ""

    @property
    def beta(self) -> bool:
        return self.version == "beta"

    def note(self, **details: Any) -> None:
        """Tell the audit entry of this change what only the use case knows (see `changes`):
        `activity`, `type`, `name`, `changed`. Nothing secret."""
        self.notes.update(details)

    async def audit(self, action: str, target: str, **details: Any) -> None:
        """Leave an entry besides the one that the frame writes for the change."""
        await audit.record(
            self.tx,
            actor=f"{self.caller.sort}:{self.caller.name or self.caller.object_id}",
            action=action,
            target=target,
            outcome="done",
            details=details,
            now=self.now,
        )


@dataclass(frozen=True, slots=True)
class Field:
    """One property.

    It is read from the row's `column` (by default the name in snake_case), computed from the row
    by `value` (which reads the columns `needs`), or brought for a whole page at once by `load`
    (key to value). `shown=False`: only when $select names it. `initial` stands for "not set", and
    for every item when the property is `constant`.
    $filter looks at the column; `sql` is what it looks at instead, for a property that is computed.
    """

    name: str
    primitive: Primitive = Primitive.STRING
    collection: bool = False
    writable: bool = False
    required: bool = False
    readable: bool = True
    shown: bool = True
    beta: bool = False
    initial: Any = None
    constant: bool = False
    column: str = ""
    value: Callable[[Row], Any] | None = None
    needs: tuple[str, ...] = ()
    load: Callable[[Call, Sequence[Row]], Awaitable[Mapping[str, Any]]] | None = None
    choices: tuple[str, ...] = ()
    sql: str = ""
    has: Callable[[str, str], str] | None = None

    @property
    def source(self) -> str:
        return self.column or snake(self.name)

    @property
    def columns(self) -> tuple[str, ...]:
        if self.value is not None:
            return self.needs
        return () if self.constant or self.load is not None else (self.source,)


@dataclass(frozen=True, slots=True)
class Ref:
    """An object by its resource type ("user") and id."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Navigation:
    """References from an item to other objects: members, owners, memberOf.

    `refs` lists them in a stable order. `add` and `remove` serve POST and DELETE of …/$ref.
    `single` means that there is one or none: `add` then serves PUT of …/$ref and replaces it.
    `binds` lets bodies add by `name@odata.bind`; without it the resource's functions read that.
    """

    name: str
    refs: Callable[[Call, str], Awaitable[Sequence[Ref]]]
    read: Access
    write: Access | None = None
    add: Callable[[Call, str, str], Awaitable[None]] | None = None
    remove: Callable[[Call, str, str], Awaitable[None]] | None = None
    single: bool = False
    binds: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """The answer of `create`: the new key, and what only this answer may carry (a secret)."""

    key: str
    once: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """A collection and its items.

    `path` is the collection's; keys of what contains it stand in braces by the container's type:
    `servicePrincipals/{servicePrincipal}/appRoleAssignments`. `rows` is a `Source`, filtered and
    paged in SQL and narrowed by `scope` to what the path contains, or a function that returns all
    rows of a small collection. Functions that are None make their method a 405; `replace` is PUT.

    An `open` resource takes properties that no field names, and shows those of the row's
    "properties". `derived` names the fields that types deriving from this one add, `bases` the type
    that a type derives from (this one, when it is not said); with a `Source`, `type_column` holds
    the type's name. `etag` is the column whose value changes with every change: then items carry
    `@odata.etag`, and If-Match is heeded; without `tells_etag` an item says it in its header alone, for
    clients that write down every property they read. Status codes are per resource because clients compare
    them; Intune's DELETE is 200 with nothing in it.
    """

    path: str
    type: str
    fields: tuple[Field, ...]
    rows: Source | Callable[[Call], Awaitable[Sequence[Row]]]
    read: Access
    family: Family = Family.DIRECTORY
    write: Access | None = None
    scope: Callable[[Call], tuple[str, Mapping[str, Any]]] | None = None
    create: Callable[[Call, Body], Awaitable[Created]] | None = None
    update: Callable[[Call, str, Body], Awaitable[None]] | None = None
    delete: Callable[[Call, str], Awaitable[None]] | None = None
    resolve: Callable[[Call, str], Awaitable[str | None]] | None = None
    alternate_keys: Mapping[str, str] = field(default_factory=dict)
    key: str = "id"
    key_is_guid: bool = True
    navigations: tuple[Navigation, ...] = ()
    typed: Callable[[Row], str] | None = None
    open: bool = False
    replace: Callable[[Call, str, Body], Awaitable[None]] | None = None
    derived: Mapping[str, tuple[Field, ...]] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)
    type_column: str = ""
    etag: str = ""
    tells_etag: bool = True
    create_status: int = 201
    update_status: int = 204
    replace_status: int = 204
    delete_status: int | None = None
    singleton: bool = False
    page_size: int = 0
    max_page_size: int = 999

    @property
    def deleted_status(self) -> int:
        return self.delete_status or (200 if self.family is Family.INTUNE else 204)

    @property
    def default_page(self) -> int:
        """100 in the directory, 1,000 in Intune, unless the resource says otherwise."""
        return self.page_size or (1000 if self.family is Family.INTUNE else 100)

    @property
    def longest_page(self) -> int:
        return self.max_page_size if self.family is Family.DIRECTORY else 10_000

    def types(self, wanted: str) -> frozenset[str]:
        """The types, in small letters, whose objects are of the type that is wanted."""
        wanted = wanted.lower().lstrip("#").removeprefix("microsoft.graph.")
        known = {name: self.bases.get(name, self.type) for name in {*self.derived, *self.bases}}
        found = {wanted}
        while more := {n.lower() for n, base in known.items() if base.lower() in found} - found:
            found |= more
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Entity:
    """An answer that is an item of a resource, read anew after the action."""

    type: str
    key: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class Value:
    """An answer as it stands. A list becomes `{"value": […]}`; a mapping stays as it is."""

    value: Any
    status: int = 200


@dataclass(frozen=True, slots=True)
class Objects:
    """An answer that is directory objects of any type; `single` is one by itself."""

    refs: Sequence[Ref]
    single: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """The collection at this path (a resource's `path`), as GET would answer it now."""

    path: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes as they are: `…/$value`, a report's file."""

    content: bytes
    media_type: str = "application/octet-stream"


Answer = Entity | Value | Objects | Listed | Stream | None


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done (POST) or asked (GET, a function) at a path of its own.

    None as the answer is 204. `body` names the members that are taken, with their types. `asks`
    says that a POST changes nothing, so that it takes no right to write and leaves no audit entry.
    """

    path: str
    run: Callable[[Call, Body], Awaitable[Answer]]
    access: Access
    method: str = "POST"
    body: tuple[Field, ...] = ()
    open: bool = False
    family: Family = Family.DIRECTORY
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What one file contributes."""

    resources: tuple[Resource, ...] = ()
    actions: tuple[Action, ...] = ()


class NotFound(AppError):
    kind, code = Kind.NOT_FOUND, "graph.not-found"


class UnknownSegment(AppError):
    kind, code = Kind.INVALID, "graph.unknown-segment"


class BadProperty(AppError):
    kind, code = Kind.INVALID, "graph.bad-property"


class MethodNotAllowed(AppError):
    kind, code = Kind.UNSUPPORTED, "graph.method-not-allowed"


class PreconditionFailed(AppError):
    kind, code = Kind.CONFLICT, "graph.precondition-failed"


class UnsupportedQuery(AppError):
    kind, code = Kind.INVALID, "graph.unsupported-query"


class NoToken(AppError):
    kind, code = Kind.UNAUTHENTICATED, "graph.no-token"


class Forbidden(AppError):
    kind, code = Kind.FORBIDDEN, "graph.permission-missing"


def missing(key: str) -> NotFound:
    return NotFound(
        f"Resource '{key}' does not exist or one of its queried reference-property objects "
        "are not present.",
        cure="Check the id, or list the collection.",
    )


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
