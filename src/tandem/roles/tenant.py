"""The tenant: directory, licences, sign-in, Graph and MDM in one process, on one database."""

import asyncio
from pathlib import Path
from typing import Any

from tandem.infra import config, http, logs
from tandem.infra.clock import utc_now
from tandem.infra.config import Settings
from tandem.infra.database import Database, Embedded, migrate
from tandem.infra.errors import AppError, Kind
from tandem.infra.process import run_role
from tandem.infra.secrets import SecretBox, private_folder
from tandem.tenant import directory, graph, licensing, oidc


class First(Settings, frozen=True):
    """The tenant that an empty database begins with."""

    name: str
    domain: str
    administrator_upn: str
    password_file: Path
    licence_required: bool = False


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
    health_host: str = "127.0.0.1"
    health_port: int = 8081
    logs: Path | None = None
    # How long a minute of the devices' poll schedules lasts, in seconds.
    minute_seconds: float = 60.0
    directory: directory.DirectorySettings = directory.DirectorySettings()


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


async def _first(settings: TenantSettings, database: Database) -> None:
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
            settings=settings.directory,
        )
        await licensing.establish(tx, utc_now())


async def _serve(settings: TenantSettings, database: Database, stop: asyncio.Event) -> None:
    await _first(settings, database)
    box = SecretBox.open(settings.state / "secrets" / "box.key")
    tokens = oidc.Tokens(oidc.OidcSettings(public_url=settings.public_url), box)
    async with database.transaction() as tx:
        await oidc.establish(tx, tokens, utc_now())

    async def ready() -> dict[str, Any]:
        async with database.transaction() as tx:
            return {"tenant_id": (await directory.tenant(tx)).id}

    served = [
        *graph.routes(
            database, tokens, utc_now, parts=[*graph.directory_parts(settings.directory)]
        ),
        *oidc.routes(database, tokens, utc_now, settings.directory),
    ]
    app = http.application(served, role="tenant")
    tls = http.TLS(settings.certificate, settings.key)
    await http.serve(
        [
            http.Listener(app, settings.host, settings.port, tls),
            http.Listener(http.health_app(ready), settings.health_host, settings.health_port),
        ],
        stop,
    )
