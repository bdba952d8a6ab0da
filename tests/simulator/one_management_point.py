"""A site as devices see it: its management point, its certificates, and its own client package."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from one_tenant import TENANT, free_port, listens
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tandem import pki
from tandem.infra import http
from tandem.infra.blobs import Blobs
from tandem.infra.clock import utc_now
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm
from tandem.site import clients, content, properties

ROLE_ID = "72057594037927941"


class BadToken(AppError):
    kind, code = Kind.UNAUTHENTICATED, "token.invalid"


async def by_hand(tx: Tx, token: str) -> clients.TenantIdentity:
    """Whom a token of the tenant written by hand speaks for."""
    kind, _, device = token.partition(":")
    if kind != "device":
        raise BadToken("The token is not one of the tenant.")
    return clients.TenantIdentity(TENANT, device, "device", f"o-{device}")


class Site:
    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.folder, self.port = db, folder, free_port()
        self.box = SecretBox.open(folder / "site-keys" / "box")
        self.packages = content.ClientPackages(Blobs.open(folder / "site-content"), utc_now)
        self.content = ccm.PolicyContent()
        # By the user's object id.
        self.of_users: dict[str, list[ccm.Configuration]] = {}
        self.verify: Callable[[Tx, str], Awaitable[clients.TenantIdentity]] = by_hand

    @property
    def host(self) -> str:
        return f"localhost:{self.port}/CCM_Proxy_MutualAuth/{ROLE_ID}"

    @property
    def command_line(self) -> str:
        return f'CCMSETUPCMD="CCMHOSTNAME={self.host} SMSSITECODE=CM1"'

    async def msi(self) -> bytes:
        async with self.db.transaction() as tx:
            package = await self.packages.current(tx)
        return b"".join([piece async for piece in self.packages.read_msi(package)])

    async def client(self, client_id: str) -> clients.Client:
        async with self.db.transaction() as tx:
            return await clients.find(tx, clients.ClientId(client_id))

    async def _verify(self, tx: Tx, token: str) -> clients.TenantIdentity:
        return await self.verify(tx, token)

    async def _policy(self, tx: Tx, client: clients.Client) -> ccm.PolicyContent:
        return self.content

    async def _user_policy(
        self, tx: Tx, client: clients.Client, user: clients.TokenHolder
    ) -> list[ccm.Configuration]:
        return self.of_users.get(user.object_id, [])

    async def _signing(self, tx: Tx) -> ccm.SigningIdentity:
        return await properties.signing_identity(tx, self.box)

    async def _points(self, tx: Tx) -> list[ccm.ManagementPoint]:
        return [ccm.ManagementPoint(self.host, "Internet")]

    async def _package(self, wanted: str) -> clients.Package | None:
        found = await self.packages.content(wanted)
        return clients.Package(found.size_bytes, found.read) if found else None

    async def _auth_info(self, request: Request) -> Response:
        tenant = request.query_params["TenantID"]
        return http.reply(ccm.AuthInfo("app", "https://ConfigMgrService", tenant))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        now = utc_now()
        async with self.db.transaction() as tx:
            await properties.establish(tx, self.box, code="CM1", name="Lab", now=now)
        root, key = pki.new_root(pki.name("Public CA"), now=now), pki.generate_key()
        leaf = root.issue(
            key.public_key(),
            pki.name("localhost"),
            now=now,
            days=9,
            dns=["localhost"],
            usages=["server"],
        )
        files = self.folder / "site.pem", self.folder / "site.key"
        files[0].write_bytes(pki.pem(leaf))
        files[1].write_bytes(pki.key_pem(key))
        (self.folder / "site-ca.pem").write_bytes(pki.pem(root.certificate))
        point = clients.ManagementPointService(
            "CM1",
            self.box,
            clients.Collaborators(
                verify_token=self._verify,
                policy=self._policy,
                user_policy=self._user_policy,
                signing=self._signing,
                management_points=self._points,
                manifest=self.packages.manifest,
                package=self._package,
            ),
            now=utc_now,
        )
        prefix = f"/CCM_Proxy_ServerAuth/{ROLE_ID}"
        app = http.application(
            [
                Route("/CCM_Proxy_ServerAuth/AADAuthInfo", self._auth_info),
                Mount(prefix, routes=clients.routes(self.db, point)),
            ],
            role="site",
        )
        stop = asyncio.Event()
        listener = http.Listener(app, "127.0.0.1", self.port, http.TLS(*files))
        task = asyncio.create_task(http.serve([listener], stop, drain_seconds=1))
        await listens(self.port)
        try:
            yield
        finally:
            stop.set()
            await task
