"""What a class of the AdminService is: one description drives everything that is done with it.

    SYSTEM = Class(
        surface="wmi", name="SMS_R_System", key=("ResourceId",),
        properties=(
            Property("ResourceId", Primitive.INTEGER, sql="r.id"),
            Property("CollectionRules", many=True, lazy=True, load=_rules),   # for a whole page
        ),
        origin="collections_resource r",         # or: read=async def (call) -> list of rows
        delete=_delete,                          # async def (call, key) -> None
        methods=(Method("RequestRefresh", run=_refresh),),
    )

SQL is our own text; it may use %(now)s and %(site)s, and a `%` in it is doubled. A class with `read`
has few objects, which are computed and filtered in memory. Names and types are those of the SMS
provider's classes where the field has them; docs/protocols/adminservice.md has the departures.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.infra.listing import Row
from tandem.protocols.odata import Expression, Primitive
from tandem.site import clients, cloud_services
from tandem.site.administrators import Administrator, NotSignedIn, Role

Body = dict[str, Any]
# The properties of one object's key, by name.
Key = dict[str, Any]


class NoSuchClass(AppError):
    kind, code = Kind.NOT_FOUND, "adminservice.no-such-class"


class NoSuchObject(AppError):
    kind, code = Kind.NOT_FOUND, "adminservice.no-such-object"


class NoSuchMethod(AppError):
    kind, code = Kind.NOT_FOUND, "adminservice.no-such-method"


class MethodNotAllowed(AppError):
    kind, code = Kind.UNSUPPORTED, "adminservice.method-not-allowed"


class BadProperty(Invalid):
    code = "adminservice.bad-property"


class Changed(AppError):
    """If-Match names another version of the object than there is."""

    kind, code = Kind.CONFLICT, "adminservice.changed"


async def _nobody(tx: Tx, token: str) -> clients.TenantIdentity:
    raise NotSignedIn("This site is not connected to a tenant.", cure="Use an account of the site.")


async def _no_app(tx: Tx, app_id: str) -> cloud_services.AdminServiceApp | None:
    return None


async def _no_address(tx: Tx, service_name: str, entry: str) -> str:
    raise cloud_services.NotPublished("The AdminService is not published through a gateway.")


async def _no_services(
    tx: Tx,
) -> Sequence[tuple[cloud_services.AzureService, Sequence[cloud_services.App]]]:
    return ()


@dataclass(frozen=True)
class Collaborators:
    """What the cloud's side knows; without them the site is connected to none.

    `account` says whom a tenant's token speaks for. `app` is the app that it came with, if tokens
    of that app ever travelled through a gateway. `address` is where a client on the internet finds
    the AdminService. `server` is the site server's name. More devices than `approval_above` do not
    come at once into a collection that is used.
    """

    account: Callable[[Tx, str], Awaitable[clients.TenantIdentity]] = _nobody
    app: Callable[[Tx, str], Awaitable[cloud_services.AdminServiceApp | None]] = _no_app
    address: Callable[[Tx, str, str], Awaitable[str]] = _no_address
    azure_services: Callable[
        [Tx], Awaitable[Sequence[tuple[cloud_services.AzureService, Sequence[cloud_services.App]]]]
    ] = _no_services
    server: str = "localhost"
    approval_above: int = 100

    @classmethod
    def of(
        cls, cloud: "cloud_services.CloudServices", server: str, approval_above: int = 100
    ) -> "Collaborators":
        async def azure_services(
            tx: Tx,
        ) -> list[tuple[cloud_services.AzureService, list[cloud_services.App]]]:
            services = await cloud.tenants.services(tx)
            return [(item, await cloud.tenants.apps(tx, item.id)) for item in services]

        return cls(
            cloud.tenants.verify_account,
            cloud.connections.adminservice_app,
            cloud.connections.adminservice_address,
            azure_services,
            server,
            approval_above,
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One request, inside its transaction."""

    tx: Tx
    now: datetime
    who: Administrator
    site: str
    others: Collaborators


@dataclass(frozen=True, slots=True)
class Property:
    """One property of a class.

    It is `sql`, or what `read` gives by its name, or brought for a whole page by `load` (a value
    for each row, in order). A `lazy` one is filled in when one object is asked for. `complex` is
    the type of an embedded object.
    """

    name: str
    primitive: Primitive = Primitive.STRING
    sql: str = ""
    load: Callable[[Call, Sequence[Row]], Awaitable[Sequence[Any]]] | None = None
    many: bool = False
    lazy: bool = False
    complex: str = ""
    writable: bool = False
    required: bool = False

    @property
    def held(self) -> bool:
        """Whether a row has it without being asked."""
        return self.load is None


@dataclass(frozen=True, slots=True)
class Complex:
    """The type of embedded objects. An abstract one says which others stand for it."""

    name: str
    properties: tuple[Property, ...] = ()
    base: str = ""
    abstract: bool = False


@dataclass(frozen=True, slots=True)
class Navigation:
    """What $expand of `name` puts in: the object of `target` whose key is the row's `by`."""

    name: str
    target: str
    by: str


Run = Callable[[Call, Key, Body], Awaitable[Body]]


@dataclass(frozen=True, slots=True)
class Method:
    """POST …/AdminService.name, or Class.name when it is static. The answer's ReturnValue is 0; what
    `run` returns are the out parameters. `asks` says that nothing changes."""

    name: str
    run: Run
    parameters: tuple[Property, ...] = ()
    static: bool = False
    asks: bool = False
    out: tuple[Property, ...] = ()


# A FROM clause and the named parameters in it, for a class whose rows depend on what is asked.
Origin = Callable[[Call, Expression | None], Awaitable[tuple[str, Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    surface: str
    name: str
    key: tuple[str, ...]
    properties: tuple[Property, ...]
    origin: str | Origin = ""
    read: Callable[[Call], Awaitable[list[Row]]] | None = None
    reads: Role = Role.READ_ONLY_ANALYST
    writes: Role = Role.OPERATIONS_ADMINISTRATOR
    create: Callable[[Call, Body], Awaitable[Key]] | None = None
    update: Callable[[Call, Key, Body], Awaitable[None]] | None = None
    delete: Callable[[Call, Key], Awaitable[None]] | None = None
    methods: tuple[Method, ...] = ()
    navigations: tuple[Navigation, ...] = ()
    superclass: str = "SMS_BaseClass"
    listed: bool = True
    # Whether its rows are only what who asks may see. Another class is for who sees everything.
    narrowed: bool = False

    def property(self, name: str) -> Property:
        """By its name in any letter case. Raises BadProperty."""
        for known in self.properties:
            if known.name.lower() == name.lower():
                return known
        names = ", ".join(known.name for known in self.properties)
        raise BadProperty(f"{self.name} has no property {name!r}.", cure=f"It has: {names}.")
