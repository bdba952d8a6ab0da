"""A site's cloud services over real TLS, with the commands that an administrator types."""

import asyncio
import contextlib
import gc
import os
import random
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from tandem import console, pki
from tandem.cli import context
from tandem.cli.lab.commands import CommandFailed, Commands
from tandem.console import site_pages
from tandem.infra import http, net
from tandem.infra.clock import utc_now
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.jobs import Jobs
from tandem.infra.net import Resolver
from tandem.infra.secrets import SecretBox, write_private
from tandem.protocols import ccm
from tandem.site import (
    administrators,
    adminservice,
    clients,
    cloud_services,
    collections,
    discovery,
    health,
    properties,
    software_updates,
)
from tenant_world import ADMIN
from tenant_world import PASSWORD as TENANT_PASSWORD

PASSWORD = "Correct-Horse-2"
PFX_PASSWORD = "Pfx-Secret-1"
NAME = "mycmg.contoso.com"
FAKE_INSTANCE = Path(__file__).with_name("fake_gateway_instance.py")


class Names(Resolver):
    """DNS as a test says it is."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1")
        self.aliases: dict[str, str] = {}
        self.hosts: dict[str, list[str]] = {}
        self.away = False

    async def lookup(self, host: str) -> list[str]:
        self._answers()
        return self.hosts.get(host, [])

    async def lookup6(self, host: str) -> list[str]:
        self._answers()
        return []

    async def cname(self, host: str) -> str | None:
        self._answers()
        return self.aliases.get(host)

    def _answers(self) -> None:
        if self.away:
            raise net.no_answer("the test's server")


@dataclass
class Site:
    db: Database
    folder: Path
    names: Names
    jobs: Jobs
    cloud: cloud_services.CloudServices
    discovery: discovery.Discovery
    box: SecretBox
    app: Any = None
    url: str = ""
    commands: Commands = field(default_factory=Commands)
    # What the site asked the tenant: method and path.
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def run(self, *words: object) -> Any:
        """What a command answers with --json. Raises CommandFailed."""
        return await self.commands.run(*words)

    async def refusal(self, *words: object) -> CommandFailed:
        return await self.commands.refusal(*words)

    async def jobs_done(self) -> None:
        """No discovery is under way any more."""
        for _ in range(200):
            async with self.db.transaction() as tx:
                if all(run.state != "running" for run in await self.discovery.runs(tx)):
                    return
            await asyncio.sleep(0.05)
        raise AssertionError("Discovery did not end.")

    def secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        write_private(path, text.encode())
        return path

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()


def admin(site: Site, upn: str = ADMIN) -> tuple[object, ...]:
    file = site.secret("tenant-password", TENANT_PASSWORD)
    return ("--tenant-admin", upn, "--tenant-password-file", file)


async def tenant_session(site: Site) -> None:
    file = site.secret("tenant-password", TENANT_PASSWORD)
    await site.run("sign-in", "tenant", "--user", ADMIN, "--password-file", file)


async def connect(site: Site, *, consent: bool = True) -> tuple[str, str]:
    """Both apps; their client ids."""
    await site.run("azure-service", "create", "Contoso cloud")
    made = [
        await site.run("azure-service", "app", "create", kind, *admin(site))
        for kind in ("server", "client")
    ]
    await site.run("discovery", "enable")
    await tenant_session(site)
    if consent:
        for item in made:
            await site.run("app-registration", "consent", item["app_id"])
    return made[0]["app_id"], made[1]["app_id"]


def pfx(
    *names: str,
    password: str = PFX_PASSWORD,
    whole: bool = True,
    root_file: Path | None = None,
    usages: Sequence[Any] = ("server",),
    begins: int = 0,
    dns: Sequence[str] = (),
) -> bytes:
    """A gateway's PFX of a public CA of its own, whose root goes to `root_file`. Its certificate
    is for 30 days, which begin in `begins` days; `dns` are its alternative names when they are not
    the names."""
    root = pki.new_root(pki.name("Public CA"), now=utc_now())
    key = pki.generate_key("p256")
    leaf = root.issue(
        key.public_key(),
        pki.name(names[0]),
        now=utc_now() + timedelta(days=begins + (begins > 0)),  # An authority dates back a day.
        days=30,
        dns=dns or names,
        usages=usages,
    )
    if root_file is not None:
        root_file.write_bytes(pki.pem(root.certificate))
    return pki.pfx_export(key, leaf, [root.certificate] if whole else [], password, names[0])


async def create(site: Site, **changes: Any) -> cloud_services.Gateway:
    values: dict[str, Any] = {"pfx": pfx(NAME), "password": PFX_PASSWORD, "tenant_id": "t1"}
    async with site.db.transaction() as tx:
        made = await site.cloud.gateways.create(tx, **{**values, **changes}, actor="siteadmin")
    return made.gateway


async def shown(site: Site, name: str = NAME) -> dict[str, Any]:
    found: dict[str, Any] = await site.run("gateway", "show", name)
    return found


async def until(
    site: Site, met: Callable[[dict[str, Any]], bool], name: str = NAME
) -> dict[str, Any]:
    for _ in range(200):
        found = await shown(site, name)
        if met(found):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(found)


def ready(found: dict[str, Any]) -> bool:
    return bool(found["state"] == "Ready")


def free_ports(count: int = 1) -> int:
    """The first of so many ports in a row that nobody uses, below those that clients get."""
    while True:
        first = random.randrange(20_000, 32_000)
        with contextlib.ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probe = probes.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


async def _token_itself(session: console.Session) -> str:
    return session.token


def _management_point(
    box: SecretBox, cloud: cloud_services.CloudServices
) -> clients.ManagementPointService:
    """What of it answers without a client: where management points are."""

    async def nothing(*_: Any) -> Any:
        return None

    async def signing(tx: Tx) -> ccm.SigningIdentity:
        return await properties.signing_identity(tx, box)

    with_ = clients.Collaborators(
        verify_token=cloud.tenants.verify_token,
        policy=nothing,
        signing=signing,
        management_points=cloud.connections.management_points,
        manifest=nothing,
        package=nothing,
    )
    return clients.ManagementPointService("CM1", box, with_, now=utc_now)


@asynccontextmanager
async def site(
    db: Database,
    folder: Path,
    tenant_url: str = "",
    ca_file: Path | None = None,
    command: Sequence[str] = (sys.executable, str(FAKE_INSTANCE)),
    ssh: tuple[cloud_services.SshSettings, ...] = (),
    acme: cloud_services.AcmeSettings | None = None,
    public: Resolver | None = None,
    inside: Resolver | None = None,
) -> AsyncIterator[Site]:
    """The site with its jobs running, and a profile for the commands.

    `command` runs an instance of a gateway: a stand-in, unless a test wants the real one.
    """
    now = utc_now
    box = SecretBox.open(folder / "keys" / "box.key")
    names, jobs = Names(), Jobs(db.dsn)
    port = free_ports()
    here = cloud_services.GatewaySettings(
        hosts=("127.0.0.11", "127.0.0.12"),
        port=free_ports(),
        health_port=free_ports(2),
        tunnel_port=free_ports(2),
        start_seconds=15.0,
        ssh=ssh,
    )
    settings = cloud_services.CloudSettings(
        environment=cloud_services.CloudEnvironment(
            authority=tenant_url, graph=f"{tenant_url}/v1.0"
        ),
        gateway=here,
        acme=acme or cloud_services.AcmeSettings(),
        management_point_url=f"https://localhost:{port}",
        folder=folder / "gateways",
    )
    web = net.client(ca_file=ca_file, timeout=10)
    logs = folder / "logs"
    tenants = cloud_services.Tenants(settings, box, web, now)
    news = cloud_services.News(look_seconds=0.5)
    gateways = cloud_services.Gateways(
        db,
        settings,
        box,
        jobs,
        resolver=inside or names,
        public=public,
        now=now,
        logs=logs,
        changed=news.tell,
        command=command,
    )

    async def token_keys(tx: Tx) -> dict[str, Any]:
        return await clients.token_keys(tx, box, now())

    connections = cloud_services.Connections(settings, box, tenants, gateways, token_keys, now)
    orders = cloud_services.Orders(
        db, settings.acme, box, jobs, gateways, resolver=public or names, now=now, changed=news.tell
    )
    lists = cloud_services.Lists(db, settings, now=now, changed=news.tell)
    cloud = cloud_services.CloudServices(
        db, box, tenants, gateways, connections, names, news, now, orders, lists
    )
    found = discovery.Discovery(db, jobs, tenants.sources, now=now, logs=logs)
    made = Site(db, folder, names, jobs, cloud, found, box)
    cheap = administrators.AdministratorsSettings(password_memory_kib=64, password_passes=1)
    async with db.transaction() as tx:
        await properties.establish(tx, box, code="CM1", name="Contoso", now=now())
        issuing = pki.pem(await properties.root_certificate(tx))
        await properties.role_certificate(
            tx, box, properties.SITE_SYSTEMS, dns=["localhost"], now=now()
        )
        await administrators.create_first(tx, "siteadmin", PASSWORD, now(), cheap)
    gate = administrators.Gate(db, now, cheap)

    async def note(request: httpx.Request) -> None:
        made.asked.append((request.method, request.url.path))

    web.event_hooks = {"request": [note]}
    scripts = adminservice.Collaborators.of(cloud, "localhost")
    pages = site_pages.SitePages(db, now=now, settings=cheap)
    behind = console.Backend(
        console.Transport("https://site"), _token_itself, console.Drafts(db, box, now)
    )
    admin = health.Listener("site", "127.0.0.1", port, "HTTPS", "in", "administrators", "console")
    places = health.SitePlaces((admin,), str(logs), str(folder), "embedded", "", now())
    app = http.application(
        [
            *administrators.routes(db, gate, now, tenants.account),
            *cloud_services.routes(cloud, gate),
            *cloud_services.connector_routes(cloud),
            *discovery.routes(db, found, gate),
            *collections.routes(db, gate, now, (software_updates.used_for,)),
            *software_updates.routes(db, gate, now),
            *health.routes(health.Health.of(cloud, places), gate),
            *clients.routes(db, _management_point(box, cloud)),
            *adminservice.routes(db, gate, now, scripts),
            *adminservice.gateway_routes(db, gate, now, scripts),
            *console.site_routes(pages, now=now, backend=behind),
        ],
        role="site",
    )
    made.app = behind.transport.app = app
    root, tls = _certificate(folder, issuing)
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(
            http.serve([http.Listener(app, "127.0.0.1", port, tls)], stop, drain_seconds=1)
        ),
        asyncio.create_task(jobs.run(stop)),
    ]
    made.url = f"https://localhost:{port}"
    await _answers(made.url, root)
    trusted = folder / "trusted.pem"
    trusted.write_bytes(root.read_bytes() + (ca_file.read_bytes() if ca_file else b""))
    before = os.environ.get("TANDEM_PROFILE")
    os.environ["TANDEM_PROFILE"] = str(folder / "profile" / "profile.toml")
    (folder / "profile").mkdir(mode=0o700)
    context.save_profile(context.Profile(site_url=made.url, tenant_url=tenant_url, ca_file=trusted))
    try:
        file = made.secret("site-password", PASSWORD)
        await made.run("sign-in", "site", made.url, "--user", "siteadmin", "--password-file", file)
        yield made
    finally:
        os.environ.pop("TANDEM_PROFILE")
        if before:
            os.environ["TANDEM_PROFILE"] = before
        async with db.transaction() as tx:
            every = await gateways.gateways(tx)
        for item in every:
            with contextlib.suppress(AppError):  # …that it is being deleted.
                await gateways.stop(item.service_name, actor="test")
        await web.aclose()
        gc.collect()  # Commands that were dropped close their connections.
        await asyncio.sleep(0.05)
        stop.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.05)


def _certificate(folder: Path, issuing: bytes) -> tuple[Path, http.TLS]:
    now = utc_now()
    root = pki.new_root(pki.name("Site test root"), now=now)
    key = pki.generate_key("p256")
    leaf = root.issue(
        key.public_key(),
        pki.name("localhost"),
        now=now,
        days=1,
        dns=["localhost"],
        usages=["server"],
    )
    (folder / "site.pem").write_bytes(pki.pem(leaf))
    (folder / "site.key").write_bytes(pki.key_pem(key))
    (folder / "site-root.pem").write_bytes(pki.pem(root.certificate))
    (folder / "issuing-root.pem").write_bytes(issuing)
    tls = http.TLS(folder / "site.pem", folder / "site.key", folder / "issuing-root.pem")
    return folder / "site-root.pem", tls


async def _answers(url: str, root: Path) -> None:
    context = ssl.create_default_context(cafile=str(root))
    async with httpx.AsyncClient(verify=context, trust_env=False) as probing:
        for _ in range(200):
            try:
                await probing.get(f"{url}/healthz")
                return
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
