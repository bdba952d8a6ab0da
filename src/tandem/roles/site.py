"""The site: every site-system role on one server, in one process, on one database.

Listeners: the admin API with the console, and the management point (mutual TLS, certified by the
site's own issuing root). Neither is meant for the internet; connection points dial out.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from tandem import audit, console, pki
from tandem.console import site_pages
from tandem.infra import config, events, http, logs, net
from tandem.infra.blobs import Blobs
from tandem.infra.clock import utc_now
from tandem.infra.config import Settings
from tandem.infra.database import Database, DatabaseUnavailable, Embedded, Tx, migrate
from tandem.infra.errors import AppError, Kind
from tandem.infra.jobs import Jobs
from tandem.infra.net import Resolver
from tandem.infra.process import run_role
from tandem.infra.rounds import rounds
from tandem.infra.secrets import SecretBox, private_folder, write_private
from tandem.protocols import ccm
from tandem.site import (
    administrators,
    adminservice,
    approvals,
    auditing,
    clients,
    cloud_services,
    collections,
    comanagement,
    content,
    deployments,
    discovery,
    fleet,
    guide,
    health,
    notifications,
    properties,
    search,
    software_updates,
    traces,
)
from tandem.site import settings as client_settings

_TICK_SECONDS = 300.0
_LISTS_SECONDS = 20.0
# How soon a change of the site's properties is noticed.
_LOOK_SECONDS = 2.0
_SIGN_SECONDS = 3600.0
# Who may be using a collection, and is named before it is deleted.
_USES = (
    client_settings.used_for,
    deployments.used_for,
    comanagement.used_for,
    software_updates.used_for,
)

log = structlog.get_logger("site")


class First(Settings, frozen=True):
    """The administrator that an empty database begins with."""

    administrator: str
    password_file: Path


class SiteSettings(Settings, frozen=True):
    state: Path  # Keys, content, gateways and, without a DSN, the database.
    site_code: str
    site_name: str = ""
    first: First | None = None
    dsn: str = ""  # A PostgreSQL >= 15; empty: the embedded one, in state/pg.
    # The admin API and the console. Without a certificate the site's own root certifies it.
    host: str = "127.0.0.1"
    port: int = 443
    certificate: Path | None = None
    key: Path | None = None
    # Names and addresses in the certificates of the site's own making.
    names: tuple[str, ...] = ("localhost",)
    addresses: tuple[str, ...] = ("127.0.0.1",)
    management_point_host: str = "127.0.0.1"
    management_point_port: int = 8443
    health_host: str = "127.0.0.1"
    health_port: int = 8082
    resolver: str = ""  # "address:port" of a DNS server; empty: the system's.
    ca_file: Path | None = None  # Roots for the tenant's certificate; unset: the system's.
    logs: Path | None = None
    # The archive that `make msi PYTHON_EMBED=…` leaves; unset: the client package has a placeholder.
    client_runtime: Path | None = None
    cloud: cloud_services.CloudSettings = cloud_services.CloudSettings()
    management_point: clients.ClientsSettings = clients.ClientsSettings()
    sign_in: administrators.AdministratorsSettings = administrators.AdministratorsSettings()
    safeguards: approvals.Safeguards = approvals.Safeguards()


class NoAdministrator(AppError):
    kind, code = Kind.INVALID, "site.no-administrator"


def run(path: Path) -> None:
    """Serve until SIGTERM. Raises AppError when the settings or the database cannot be used."""
    settings = config.load(path, SiteSettings)
    logs.configure("site", settings.logs)
    run_role(lambda stop: _main(settings, stop))


async def _main(settings: SiteSettings, stop: asyncio.Event) -> None:
    private_folder(settings.state)
    embedded = None
    dsn = settings.dsn
    if not dsn:
        embedded = await asyncio.to_thread(Embedded.start, settings.state / "pg")
        dsn = embedded.dsn("site")
    await asyncio.to_thread(migrate, dsn, "site")
    database = await Database.open(dsn)
    try:
        await _serve(settings, database, stop)
    finally:
        await database.close()
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)


async def _establish(settings: SiteSettings, database: Database, box: SecretBox) -> None:
    async with database.transaction() as tx:
        await properties.establish(
            tx, box, code=settings.site_code, name=settings.site_name, now=utc_now()
        )
        if await administrators.administrators(tx):
            return
        first = settings.first
        if first is None:
            raise NoAdministrator(
                "The site has no administrator.",
                cure="Describe the first one under [first] in the settings file.",
            )
        password = first.password_file.read_text("utf-8").rstrip("\n")
        await administrators.create_first(
            tx, first.administrator, password, utc_now(), settings.sign_in
        )


async def _serve(settings: SiteSettings, db: Database, stop: asyncio.Event) -> None:
    box = SecretBox.open(settings.state / "secrets" / "box.key")
    await _establish(settings, db, box)
    resolver = Resolver(settings.resolver or None)
    web = net.client(resolver=resolver, ca_file=settings.ca_file)
    jobs = Jobs(db.dsn)
    cloud = _cloud(settings, db, box, jobs, web, resolver)
    found = discovery.Discovery(db, jobs, cloud.tenants.sources, now=utc_now, logs=settings.logs)
    packages = content.ClientPackages(
        Blobs.open(settings.state / "content"), utc_now, runtime=settings.client_runtime
    )
    devices = _fleet(db, cloud)
    others = comanagement.Collaborators(
        cloud.connections.gateway_host,
        cloud.tenants.tenant_id,
        cloud.tenants.check_mdm_authority,
        cloud.sign_ins.token,
        devices.graph,
    )
    rollouts = comanagement.Conductor(db, others, utc_now)
    clients.register(jobs, db, now=utc_now)
    checkins = clients.CheckIns(db, now=utc_now)
    signing = _signing(box)
    point = _management_point(settings, box, cloud, packages, checkins, signing)
    channel = notifications.Channel(db, point, signing, now=utc_now)
    gate = administrators.Gate(db, utc_now, settings.sign_in)
    signer = audit.Signer.open(settings.state / "secrets" / "audit.key")
    scripts = adminservice.Collaborators.of(
        cloud, settings.names[0] if settings.names else "", settings.safeguards.approval_above
    )
    behind = console.Backend(
        console.Transport("https://site"), _token_itself, console.Drafts(db, box, utc_now)
    )
    routes = [
        *administrators.routes(
            db,
            gate,
            utc_now,
            cloud.tenants.account,
            collections.id_of,
            {"configuration": deployments.named, "gateway": cloud.gateways.named},
        ),
        *properties.routes(db, gate),
        *collections.routes(
            db,
            gate,
            utc_now,
            _USES,
            settings.safeguards.approval_above,
        ),
        *client_settings.routes(db, gate, utc_now, settings.safeguards),
        *content.routes(db, gate, packages),
        *auditing.routes(db, gate, utc_now, signer),
        *search.routes(db, gate, search.Collaborators.of(db, cloud)),
        *clients.admin_routes(
            db,
            require=gate,
            now=utc_now,
            inactive_days=settings.management_point.inactive_days,
        ),
        *clients.identity_routes(db, box, settings.site_code.upper(), require=gate, now=utc_now),
        *notifications.admin_routes(db, gate, utc_now),
        *deployments.routes(db, gate, utc_now, settings.safeguards),
        *software_updates.routes(db, gate, utc_now, settings.safeguards),
        *discovery.routes(db, found, gate),
        *cloud_services.routes(cloud, gate),
        *comanagement.routes(db, others, gate, utc_now, settings.safeguards),
        *fleet.routes(db, devices, gate, utc_now, settings.safeguards.approval_above),
        *guide.routes(db, guide.Collaborators(cloud, found, others), gate, utc_now),
        *health.routes(health.Health.of(cloud, _places(settings)), gate),
        *adminservice.routes(db, gate, utc_now, scripts),
        *console.site_routes(
            site_pages.SitePages(db, now=utc_now, settings=settings.sign_in),
            now=utc_now,
            backend=behind,
            elsewhere=_tenant_console(settings),
        ),
    ]
    administrators.check_declared(routes)
    admin = http.application(routes, role="site")
    behind.transport.app = admin
    management_point = http.application(
        [
            *clients.routes(db, point, checkins),
            *notifications.routes(channel),
            *software_updates.point_routes(db, point, signing, utc_now),
            *cloud_services.connector_routes(cloud),
            *cloud_services.content_routes(cloud, point, packages),
            *adminservice.gateway_routes(db, gate, utc_now, scripts),
        ],
        role="site",
    )
    answers = cloud_services.EdgeAnswers(db, checkins)
    management_point = answers.before(checkins.before(management_point))
    tls = _Certificates(settings, db, box)
    front = await tls.front()

    async def ready() -> dict[str, Any]:
        async with db.transaction() as tx:
            return {"site_code": (await properties.site(tx)).code}

    work = [
        asyncio.create_task(jobs.run(stop)),
        asyncio.create_task(cloud.gateways.watch(stop)),
        asyncio.create_task(
            rounds(stop, cloud.orders.tend, _TICK_SECONDS, failed="certificates not renewed")
        ),
        asyncio.create_task(
            rounds(stop, cloud.lists.tend, _LISTS_SECONDS, failed="revocation lists not fetched")
        ),
        asyncio.create_task(fleet.Keeper(db, devices, utc_now).run(stop)),
        asyncio.create_task(rollouts.run(stop)),
        asyncio.create_task(channel.run(stop)),
        asyncio.create_task(collections.Evaluator(db, utc_now).run(stop)),
        asyncio.create_task(_tick(db, jobs, cloud, found, stop)),
        asyncio.create_task(_sign(db, signer, stop)),
        asyncio.create_task(_forget(db, settings.management_point.history_days, stop)),
        asyncio.create_task(checkins.run(stop)),
    ]
    inner = asyncio.create_task(tls.serve_management_point(management_point, stop))
    inner.add_done_callback(lambda _: stop.set())
    try:
        await http.serve(
            [
                http.Listener(admin, settings.host, settings.port, front),
                http.Listener(http.health_app(ready), settings.health_host, settings.health_port),
            ],
            stop,
        )
    finally:
        stop.set()
        await asyncio.gather(*work, inner, return_exceptions=True)
        await web.aclose()
    inner.result()  # An address that cannot be listened on ends the role, whichever it is.


def _cloud(
    settings: SiteSettings,
    db: Database,
    box: SecretBox,
    jobs: Jobs,
    web: Any,
    resolver: Resolver,
) -> cloud_services.CloudServices:
    tenants = cloud_services.Tenants(settings.cloud, box, web, utc_now)
    news = cloud_services.News()
    public = Resolver(settings.cloud.public_resolver) if settings.cloud.public_resolver else None
    gateways = cloud_services.Gateways(
        db,
        settings.cloud,
        box,
        jobs,
        resolver=resolver,
        public=public,
        now=utc_now,
        logs=settings.logs,
        changed=news.tell,
    )

    async def token_keys(tx: Tx) -> dict[str, Any]:
        return await clients.token_keys(tx, box, utc_now())

    connections = cloud_services.Connections(
        settings.cloud, box, tenants, gateways, token_keys, utc_now
    )
    public = (
        Resolver(settings.cloud.public_resolver) if settings.cloud.public_resolver else resolver
    )
    orders = cloud_services.Orders(
        db,
        settings.cloud.acme,
        box,
        jobs,
        gateways,
        resolver=public or resolver,
        now=utc_now,
        changed=news.tell,
    )
    lists = cloud_services.Lists(db, settings.cloud, now=utc_now, changed=news.tell)
    return cloud_services.CloudServices(
        db, box, tenants, gateways, connections, resolver, news, utc_now, orders, lists
    )


def _places(settings: SiteSettings) -> health.SitePlaces:
    """Where this role listens, what it dials, and where it writes."""
    environment = settings.cloud.environment

    def listens(
        role: str, host: str, port: int, protocol: str, peer: str, purpose: str
    ) -> health.Listener:
        return health.Listener(role, host, port, protocol, "in", peer, purpose)

    found = [
        listens("site", settings.host, settings.port, "HTTPS", "administrators", "console"),
        listens(
            "management-point",
            settings.management_point_host,
            settings.management_point_port,
            "HTTPS",
            "connection-points",
            "management",
        ),
        listens("site", settings.health_host, settings.health_port, "HTTP", "operators", "health"),
    ]
    for url, purpose in ((environment.authority, "tokens"), (environment.graph, "graph")):
        if url:
            to = urlsplit(url)
            port = to.port or (443 if to.scheme == "https" else 80)
            found.append(
                health.Listener(
                    "site", to.hostname or "", port, to.scheme.upper(), "out", "tenant", purpose
                )
            )
    return health.SitePlaces(
        listeners=tuple(found),
        logs=str(settings.logs or ""),
        state=str(settings.state),
        database="external" if settings.dsn else "embedded",
        resolver=settings.resolver,
        started_at=utc_now(),
    )


def _signing(box: SecretBox) -> Callable[[Tx], Awaitable[ccm.SigningIdentity]]:
    signers: list[ccm.SigningIdentity] = []

    async def signing(tx: Tx) -> ccm.SigningIdentity:
        # It is for as long as the site is: clients trust the site by it.
        if not signers:
            signers.append(await properties.signing_identity(tx, box))
        return signers[0]

    return signing


def _management_point(
    settings: SiteSettings,
    box: SecretBox,
    cloud: cloud_services.CloudServices,
    packages: content.ClientPackages,
    checkins: clients.CheckIns,
    signing: Callable[[Tx], Awaitable[ccm.SigningIdentity]],
) -> clients.ManagementPointService:
    async def policy(tx: Tx, client: clients.Client) -> ccm.PolicyContent:
        plan = await checkins.shared(lambda: comanagement.plan(tx))
        return await comanagement.content_of(tx, plan, client.id, client.registered_at)

    async def ordered(tx: Tx, client: clients.Client, message: ccm.Message) -> None:
        await notifications.take_result(tx, client, message, utc_now())

    async def updates(tx: Tx, client: clients.Client, message: ccm.Message) -> None:
        await software_updates.take(tx, client, message, utc_now())

    async def trace(
        tx: Tx, client: clients.Client, content: ccm.PolicyContent, digest: str, now: datetime
    ) -> clients.Traced:
        plan = await checkins.shared(lambda: comanagement.plan(tx))
        return await comanagement.trace(tx, plan, client, content, digest, now)

    async def user_policy(
        tx: Tx, client: clients.Client, user: clients.TokenHolder
    ) -> list[ccm.Configuration]:
        plan = await checkins.shared(lambda: comanagement.plan(tx))
        return await comanagement.content_of_user(
            tx, plan, client.id, user.tenant_id, user.object_id
        )

    async def of_user(tx: Tx, user: clients.TokenHolder) -> client_settings.Values:
        return await client_settings.of_user(tx, user.tenant_id, user.object_id)

    async def package(sha256: str) -> clients.Package | None:
        found = await packages.content(sha256)
        return clients.Package(found.size_bytes, found.read) if found is not None else None

    return clients.ManagementPointService(
        settings.site_code.upper(),
        box,
        clients.Collaborators(
            verify_token=cloud.tenants.verify_token,
            verify_certificate=lambda tx, leaf: cloud_services.verify_client_certificate(
                tx, leaf, utc_now()
            ),
            policy=policy,
            signing=signing,
            management_points=cloud.connections.management_points,
            manifest=packages.manifest,
            package=package,
            user_policy=user_policy,
            user_settings=of_user,
            ordered=ordered,
            updates=updates,
            update_points=cloud.connections.update_points,
            trace=trace,
            admit=comanagement.admit,
        ),
        now=utc_now,
        settings=settings.management_point,
        logs=clients.log_files(settings.logs) if settings.logs else None,
    )


def _fleet(db: Database, cloud: cloud_services.CloudServices) -> fleet.Collaborators:
    async def graph() -> fleet.Graph:
        async with db.transaction() as tx:
            client = await cloud.tenants.kept_graph(tx, await cloud.tenants.service(tx))
        return BelowVersion(client)

    return fleet.Collaborators(cloud.tenants.tenant_id, graph)


class BelowVersion:
    """Graph by paths without a slash before them, as Graph's own links go on."""

    def __init__(self, graph: cloud_services.Graph) -> None:
        self._graph = graph

    async def get(self, path: str) -> dict[str, Any]:
        return await self._graph.get(f"/{path.lstrip('/')}")

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._graph.post(f"/{path.lstrip('/')}", body)


async def _token_itself(session: console.Session) -> str:
    """A session of the console is one of the admin API."""
    return session.token


def _tenant_console(
    settings: SiteSettings,
) -> Callable[[], Awaitable[console.Elsewhere | None]]:
    """The tenant's pages, at the address that its Graph has."""
    url = settings.cloud.environment.graph.rstrip("/").removesuffix("/v1.0")
    there = console.Elsewhere("Tenant", url, console.navigation("tenant")) if url else None

    async def known() -> console.Elsewhere | None:
        return there

    return known


class _Certificates:
    """The site's own certificates in files, kept up to what the database holds; listeners read
    files again that have changed."""

    def __init__(self, settings: SiteSettings, db: Database, box: SecretBox) -> None:
        self._settings = settings
        self._db = db
        self._box = box
        self._folder = private_folder(settings.state / "tls")
        self._written: dict[str, bytes] = {}

    async def front(self) -> http.TLS:
        """Of the admin API and the console, which are there whatever the site systems are."""
        own = self._settings.certificate
        made = await self._write(properties.ADMIN_SERVICE, "admin-service")
        return http.TLS(own or made, self._settings.key or made)

    async def _write(self, role: str, name: str) -> Path:
        """Key, certificate and root in one file, so that no pair is ever half written."""
        path, ca = self._folder / f"{name}.pem", self._folder / "site-root.pem"
        async with self._db.transaction() as tx:
            kept = await properties.communication(tx, hold=True)
            if role == properties.SITE_SYSTEMS and not kept.enhanced_http:
                return path  # Switched off meanwhile: none is issued again.
            root = await properties.root_certificate(tx)
            made = await self._role(tx, role)
        content = pki.key_pem(made.key) + pki.pem(made.certificate, root)
        if self._written.get(name) != content:
            write_private(ca, pki.pem(root))
            write_private(path, content)
            self._written[name] = content
        return path

    async def _role(self, tx: Tx, role: str) -> properties.RoleCertificate:
        settings = self._settings
        return await properties.role_certificate(
            tx, self._box, role, dns=settings.names, ips=settings.addresses, now=utc_now()
        )

    async def serve_management_point(self, app: Any, stop: asyncio.Event) -> None:
        """While enhanced HTTP is on: with the certificate that the site issues for it, and with
        the next one as soon as there is one. While it is off nothing listens."""
        while not stop.is_set():
            if not await self._wanted():
                await _pause(stop)
                continue
            try:
                path = await self._write(properties.SITE_SYSTEMS, "site-systems")
            except DatabaseUnavailable:
                await _pause(stop)
                continue
            if not path.exists():
                continue  # Switched off meanwhile.
            listener = http.Listener(
                app,
                self._settings.management_point_host,
                self._settings.management_point_port,
                http.TLS(path, path, self._folder / "site-root.pem"),
            )
            closing = asyncio.Event()
            serving = asyncio.create_task(http.serve([listener], closing))
            try:
                while not stop.is_set() and not serving.done() and await self._wanted():
                    await self._look()
                    await _pause(stop)
            finally:
                closing.set()
                await serving

    async def _wanted(self) -> bool:
        try:
            async with self._db.transaction() as tx:
                return (await properties.communication(tx)).enhanced_http
        except AppError:
            return True  # The database is away: nothing was decided.

    async def _look(self) -> None:
        """Renew what is near its end, and tell which certificate is answered with. While the
        database is away, all goes on as it is."""
        with contextlib.suppress(AppError):
            await self._write(properties.SITE_SYSTEMS, "site-systems")
            await self.front()
            async with self._db.transaction() as tx:
                if (await properties.communication(tx, hold=True)).enhanced_http:
                    made = await self._role(tx, properties.SITE_SYSTEMS)
                    await properties.answers(tx, made.certificate, utc_now())


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_SECONDS):
            await stop.wait()


async def _tick(
    db: Database,
    jobs: Jobs,
    cloud: cloud_services.CloudServices,
    found: discovery.Discovery,
    stop: asyncio.Event,
) -> None:
    """What is due now and then, as jobs."""

    async def work() -> None:
        async with db.transaction() as tx:
            await jobs.defer(tx, clients.FORGET_NONCES, lock=clients.FORGET_NONCES)
            await cloud.sign_ins.forget_old(tx)
            await found.request_due(tx)

    await rounds(stop, work, _TICK_SECONDS, failed="upkeep failed")


async def _forget(db: Database, days: float, stop: asyncio.Event) -> None:
    """What is older than the history goes for good."""

    async def work() -> None:
        before = utc_now() - timedelta(days=days)
        gone = await clients.forget_history(db, before)
        async with db.transaction() as tx:
            gone += await traces.forget(tx, before)
        while True:
            async with db.transaction() as tx:
                news = await events.forget(tx, before)
            gone += news
            if news < events.FORGET_AT_ONCE:
                break
        if gone:
            log.info("history forgotten", rows=gone, before=before)

    await rounds(stop, work, _SIGN_SECONDS, failed="upkeep failed")


async def _sign(db: Database, signer: audit.Signer, stop: asyncio.Event) -> None:
    """The audit log's head is signed every hour (ADR 12)."""

    async def work() -> None:
        async with db.transaction() as tx:
            head = await auditing.sign(tx, signer, utc_now())
        if head is not None:
            # Where logs are shipped to another machine, this line anchors the audit log there.
            log.info("audit head", **msgspec.to_builtins(head))

    await rounds(stop, work, _SIGN_SECONDS, failed="upkeep failed")
