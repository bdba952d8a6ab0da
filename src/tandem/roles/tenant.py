"""The tenant: directory, licences, sign-in, Graph and MDM in one process, on one database."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from tandem import audit, console, pki
from tandem.console import tenant_pages
from tandem.infra import config, events, http, logs, net
from tandem.infra.blobs import Blobs
from tandem.infra.clock import utc_now
from tandem.infra.config import Settings
from tandem.infra.database import Database, Embedded, migrate
from tandem.infra.errors import AppError, Kind
from tandem.infra.jobs import Jobs
from tandem.infra.logs import get_logger
from tandem.infra.net import Resolver
from tandem.infra.process import run_role
from tandem.infra.rounds import rounds
from tandem.infra.secrets import SecretBox, private_folder, write_private
from tandem.tenant import directory, enrollment, graph, licensing, mobile_apps, oidc, sessions
from tandem.tenant.graph import GraphSettings

log = get_logger("tenant")

_UPKEEP_SECONDS = 3600.0
_EVENTS_KEPT = timedelta(days=30)
# A hold window is over this much later than it says, at most.
_ORDERS_SECONDS = 15.0


class First(Settings, frozen=True):
    """The tenant that an empty database begins with."""

    name: str
    domain: str
    administrator_upn: str
    password_file: Path
    licence_required: bool = False


class StoreOptions(Settings, frozen=True):
    """The file of a store's options, which holds its keys."""

    options: dict[str, str] = {}


class ContentSettings(Settings, frozen=True):
    """Where the content of apps is kept."""

    url: str = ""  # s3://bucket/prefix, gs://…, az://…; empty: the folder state/content.
    options_file: Path | None = None  # TOML: [options] endpoint, access_key_id, ….
    # Whether devices download from the store by links that it signs. They have to reach it, and
    # to trust its certificate; otherwise they download from the tenant.
    links: bool = True
    hours: float = 4  # How long a link is good for.


class TenantSettings(Settings, frozen=True):
    state: Path  # Keys, content and, without a DSN, the database.
    public_url: str  # How devices and browsers reach the tenant; it is in every token.
    management_url: str  # …MDM.svc, where enrolled devices report with their certificate.
    certificate: Path
    key: Path
    first: First | None = None
    dsn: str = ""  # A PostgreSQL >= 15; empty: the embedded one, in state/pg.
    host: str = "0.0.0.0"  # noqa: S104  The tenant is on the internet.
    port: int = 443
    management_port: int = 444
    # The public listener asks for device certificates too, so that a renewal's connection is
    # compared with its signature; browsers on enrolled devices may then ask their user for one.
    ask_for_device_certificates: bool = False
    health_host: str = "127.0.0.1"
    health_port: int = 8081
    logs: Path | None = None
    resolver: str = ""  # "address:port" of a DNS server; empty: the system's.
    site_console_url: str = ""  # The site's console, for links from the tenant's; empty: none.
    ca_file: Path | None = None  # Roots for the tenant's own certificate; unset: the system's.
    content: ContentSettings = ContentSettings()
    mdm: enrollment.EnrollmentSettings = enrollment.EnrollmentSettings()
    sign_in: directory.DirectorySettings = directory.DirectorySettings()
    authority: oidc.OidcSettings = oidc.OidcSettings()  # Its public_url is this file's.
    console: tenant_pages.ConsoleSettings = tenant_pages.ConsoleSettings()
    # What stands between an order and the loss of devices, until administrators set it themselves.
    safeguards: sessions.Safeguards = sessions.Safeguards()
    graph: GraphSettings = GraphSettings()  # The module's name is the field's in this body.


def open_store(settings: TenantSettings) -> Blobs:
    """The store of app content. Raises BadStore, BadSettings."""
    kept = settings.content
    if not kept.url:
        return Blobs.open(settings.state / "content")
    options = config.load(kept.options_file, StoreOptions).options if kept.options_file else {}
    return Blobs.open(kept.url, options)


class NoTenantYet(AppError):
    kind, code = Kind.INVALID, "tenant.none"


def run(path: Path) -> None:
    """Serve until SIGTERM. Raises AppError when the settings or the database cannot be used."""
    settings = config.load(path, TenantSettings)
    logs.configure("tenant", settings.logs)
    run_role(lambda stop: _main(settings, stop))


async def _main(settings: TenantSettings, stop: asyncio.Event) -> None:
    private_folder(settings.state)
    embedded = None
    dsn = settings.dsn
    if not dsn:
        embedded = await asyncio.to_thread(Embedded.start, settings.state / "pg")
        dsn = embedded.dsn("tenant")
    await asyncio.to_thread(migrate, dsn, "tenant")
    database = await Database.open(dsn)
    try:
        await _serve(settings, database, stop)
    finally:
        await database.close()
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)


async def begin(settings: TenantSettings, database: Database) -> None:
    """Begin the tenant that the settings describe, if the database has none."""
    async with database.transaction() as tx:
        if await directory.find_tenant(tx) is not None:
            return
        first = settings.first
        if first is None:
            raise NoTenantYet(
                "The database holds no tenant.",
                cure="Describe the first tenant under [first] in the settings file.",
            )
        await directory.create_tenant(
            tx,
            name=first.name,
            domain=first.domain,
            administrator_upn=first.administrator_upn,
            password=first.password_file.read_text("utf-8").strip(),
            now=utc_now(),
            settings=settings.sign_in,
        )
        await licensing.establish(tx, utc_now())
        if first.licence_required:
            await licensing.require_licence(tx, True)


async def _serve(settings: TenantSettings, database: Database, stop: asyncio.Event) -> None:
    await begin(settings, database)
    box = SecretBox.open(settings.state / "secrets" / "box.key")
    authority = msgspec.structs.replace(settings.authority, public_url=settings.public_url)
    tokens = oidc.Tokens(authority, box)
    enrolling = enrollment.Enrollment(
        box,
        tokens,
        now=utc_now,
        public_url=settings.public_url,
        management_url=settings.management_url,
        settings=settings.mdm,
        passwords=oidc.PasswordDoor(
            database,
            tokens,
            settings.sign_in,
            client_id=oidc.MDM_ENROLLMENT,
            resource_id=oidc.MDM_APP,
        ),
    )
    async with database.transaction() as tx:
        await oidc.establish(tx, tokens, utc_now())
        device_ca = await enrolling.establish(tx)
        console_id = await tenant_pages.establish(tx, settings.public_url, utc_now())
    ca_file = private_folder(settings.state / "tls") / "device-ca.pem"
    write_private(ca_file, pki.pem(device_ca))
    blobs = open_store(settings)
    content = mobile_apps.Content(
        blobs,
        _secret(settings.state / "secrets" / "content.key"),
        settings.public_url,
        settings.content.hours * 3600,
        by_store=bool(settings.content.url) and settings.content.links,
    )
    jobs = Jobs(database.dsn)
    uploads = mobile_apps.Uploads(blobs, content.secret, box, jobs, database, utc_now)
    uploads.register()
    managing = sessions.Sessions(
        enrolling,
        content,
        utc_now,
        settings.management_url,
        safeguards=settings.safeguards,
        wakes=sessions.AgentWakes(),
    )
    calls = sessions.Calls(database, tokens, utc_now)
    resolver = Resolver(settings.resolver or None)
    web = net.client(resolver=resolver, ca_file=settings.ca_file)
    runs = licensing.Runs(database, jobs, utc_now)
    pages = tenant_pages.TenantPages(
        database,
        tokens,
        box,
        web,
        client_id=console_id,
        public_url=settings.public_url,
        now=utc_now,
        settings=settings.console,
    )

    behind = console.Backend(
        console.Transport(settings.public_url),
        pages.bearer,
        console.Drafts(database, box, utc_now),
    )

    async def ready() -> dict[str, Any]:
        async with database.transaction() as tx:
            return {"tenant_id": (await directory.tenant(tx)).id}

    signer = audit.Signer.open(settings.state / "secrets" / "audit.key")
    parts = [
        *graph.directory_parts(
            settings.sign_in, signer, later=runs.later, texts=resolver.texts, authority=authority
        ),
        graph.enrollment_ways(enrolling),
        graph.managed_devices(managing),
        graph.device_certificates(enrolling),
        graph.comanagement(),
        graph.audit_events(),
        graph.mobile_app_parts(uploads),
        graph.configurations(),
    ]
    public = http.application(
        [
            *graph.routes(database, tokens, utc_now, parts=parts, settings=settings.graph),
            *enrollment.routes(database, enrolling, tokens),
            *mobile_apps.routes(database, content, utc_now),
            *mobile_apps.upload_routes(uploads),
            *sessions.call_routes(calls),
            *oidc.routes(database, tokens, utc_now, settings.sign_in),
            *console.tenant_routes(
                pages, now=utc_now, backend=behind, elsewhere=_site_console(settings)
            ),
        ],
        role="tenant",
    )
    behind.transport.app = public
    management = http.application(
        [
            *sessions.routes(database, managing),
            *oidc.certificate_routes(
                database,
                tokens,
                utc_now,
                lambda tx, proved: enrolling.directory_device(tx, proved, settings.sign_in),
            ),
        ],
        role="tenant",
        problems=sessions.problems,
    )
    tls = http.TLS(settings.certificate, settings.key)
    asking = http.TLS(settings.certificate, settings.key, ca_file)
    upkeep = asyncio.create_task(
        _tend(database, tokens, enrolling, managing, uploads, signer, stop)
    )
    calling = asyncio.create_task(calls.run(stop))
    ordering = asyncio.create_task(_tend_orders(database, managing, stop))
    working = asyncio.create_task(jobs.run(stop, concurrency=2))
    try:
        await http.serve(
            [
                http.Listener(
                    public,
                    settings.host,
                    settings.port,
                    asking if settings.ask_for_device_certificates else tls,
                ),
                http.Listener(management, settings.host, settings.management_port, asking),
                http.Listener(http.health_app(ready), settings.health_host, settings.health_port),
            ],
            stop,
        )
    finally:
        stop.set()
        await upkeep
        await ordering
        await calling
        await working
        await oidc.flush(database, tokens)
        await web.aclose()


def _site_console(
    settings: TenantSettings,
) -> Callable[[], Awaitable[console.Elsewhere | None]]:
    """The site's pages, where the settings say that they are."""
    url = settings.site_console_url.rstrip("/")
    there = console.Elsewhere("Site", url, console.navigation("site")) if url else None

    async def known() -> console.Elsewhere | None:
        return there

    return known


def _secret(path: Path) -> bytes:
    """A key of this role's own, made when missing."""
    private_folder(path.parent)
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


async def _tend(
    database: Database,
    tokens: oidc.Tokens,
    enrolling: enrollment.Enrollment,
    managing: sessions.Sessions,
    uploads: mobile_apps.Uploads,
    signer: audit.Signer,
    stop: asyncio.Event,
) -> None:
    """Expired codes and tokens go, keys rotate when due, what was deleted long ago goes for good,
    and the audit log's head is signed."""

    async def work() -> None:
        async with database.transaction() as tx:
            await oidc.tend(tx, tokens, utc_now())
            await managing.forget(tx)
            await uploads.tend(tx)
            await licensing.tend(tx, utc_now())
            await graph.prune(tx, utc_now())
            await events.forget(tx, utc_now() - _EVENTS_KEPT)
            # What writes to the audit log comes last: its one end is others' too.
            await enrolling.tend(tx)
            for item in await directory.tend(tx, utc_now()):
                await audit.record(
                    tx,
                    actor="tenant",
                    action="purge",
                    target=item.id,
                    details={"type": item.sort, "name": item.display_name},
                    now=utc_now(),
                )
            head = await audit.sign(tx, signer, utc_now())
        if head is not None:
            # Where logs are shipped to another machine, this line anchors the audit log there.
            log.info("audit head", **msgspec.to_builtins(head))

    await rounds(stop, work, _UPKEEP_SECONDS, failed="upkeep failed")


async def _tend_orders(
    database: Database, managing: sessions.Sessions, stop: asyncio.Event
) -> None:
    """Hold windows and deadlines of administrators' orders end."""

    async def work() -> float | None:
        """At once again while there is something to move."""
        async with database.transaction() as tx:
            return 0 if await managing.tend(tx) else None

    await rounds(stop, work, _ORDERS_SECONDS, failed="orders are not tended")
