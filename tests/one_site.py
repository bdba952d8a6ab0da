"""A management point over real TLS with a real database, and a machine that talks to it."""

import asyncio
import socket
from base64 import b64decode, urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec
from cryptography import x509
from joserfc import jws, jwt
from joserfc.jwk import ECKey
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from tandem import pki
from tandem.agent import (
    ConfigurationGate,
    DeviceJoin,
    JoinRecord,
    Machine,
    MdmEnrollment,
    NoToken,
)
from tandem.infra import http
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm, cmtrace
from tandem.site import administrators, clients, notifications, settings, software_updates

TENANT = "3f6b1b62-7b1c-4c55-9d58-0e6f9b6f5a11"
ROLE_ID = "72057594037927941"
PREFIX = f"/CCM_Proxy_ServerAuth/{ROLE_ID}"
# Of the software update point, which has a role id of its own.
UPDATES_ID = "72057594037927942"
UPDATES_PREFIX = f"/CCM_Proxy_ServerAuth/{UPDATES_ID}"
MUTUAL_PREFIX = f"/CCM_Proxy_MutualAuth/{ROLE_ID}"
PACKAGE = bytes(range(256)) * 2000


ADMINISTRATOR = administrators.Administrator(
    "siteadmin", administrators.Role.FULL_ADMINISTRATOR, datetime(2026, 11, 24, tzinfo=UTC)
)
NOT_ENROLLED = MdmEnrollment(False)


class BadDirectoryToken(AppError):
    kind, code = Kind.UNAUTHENTICATED, "token.invalid"


class Moment:
    """The one clock of site and devices."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def passes(self, **amount: float) -> None:
        self.at += timedelta(**amount)


@dataclass
class Bridge:
    """An MDM client that a test steers."""

    state: MdmEnrollment = NOT_ENROLLED
    published: list[str] = field(default_factory=list)
    syncs: int = 0
    gate: ConfigurationGate | None = None
    refusals: list[AppError] = field(default_factory=list)
    enrolments: list[bool] = field(default_factory=list)

    def enrollment(self) -> MdmEnrollment:
        return self.state

    def publish(self, config_info: str) -> None:
        self.published.append(config_info)

    def install_gate(self, gate: ConfigurationGate) -> None:
        self.gate = gate

    async def enroll(self, user: bool = False) -> None:
        self.enrolments.append(user)
        if self.refusals:
            raise self.refusals.pop(0)
        self.state = MdmEnrollment(True, "user@contoso.com", "TandemMDM", True)

    async def sync(self) -> None:
        self.syncs += 1

    @property
    def info(self) -> ccm.ConfigInfo:
        return ccm.ConfigInfo.read(self.published[-1])


@dataclass
class Broker:
    """A directory broker; its tokens are `device:<id>`, and `user:<id>` or, of another user than u1,
    `user:<id>:<user>`."""

    device: str | None = "d1"
    device_tokens: bool = True
    user_tokens: bool = True
    user: str = "u1"
    registers: bool = False
    registrations: int = 0

    def join(self) -> DeviceJoin | None:
        return DeviceJoin(TENANT, self.device) if self.device else None

    def signed_in(self) -> str:
        return f"{self.user}@contoso.com" if self.user_tokens else ""

    async def device_token(self, authority: str, client_app_id: str, resource: str) -> str:
        if not self.device_tokens:
            raise NoToken("The directory gives no device token (0xd0090016).")
        return f"device:{self.device}"

    async def user_token(self, authority: str, client_app_id: str, resource: str) -> str:
        if not self.user_tokens:
            raise NoToken("Nobody is signed in (0x800703F0).")
        return f"user:{self.device}" + ("" if self.user == "u1" else f":{self.user}")

    async def register(self) -> None:
        if not self.registers:
            raise NoToken("There is no domain controller.")
        self.device, self.registrations = "d1", self.registrations + 1


async def verify_token(tx: Tx, token: str) -> clients.TenantIdentity:
    kind, _, device = token.partition(":")
    if kind == "device":
        return clients.TenantIdentity(TENANT, device, "device", f"o-{device}")
    if kind == "user":
        device, _, user = device.partition(":")
        return clients.TenantIdentity(TENANT, device, "user", user or "u1", "user@contoso.com")
    raise BadDirectoryToken("The token is not one of the tenant.")


class Site:
    """The site's side of the wire, with everything a test turns."""

    def __init__(self, db: Database, folder: Path, moment: Moment, port: int) -> None:
        self.db, self.now, self.port, self.folder = db, moment, port, folder
        self.tls_root = pki.new_root(pki.name("Lab public CA"), now=moment())
        self.root = pki.new_root(pki.name("SMS Issuing"), now=moment())
        key = pki.generate_key()
        signer = self.root.issue(
            key.public_key(),
            pki.name("Site Server Signing"),
            now=moment(),
            days=365,
            usages=["code"],
        )
        self.identity = ccm.SigningIdentity(key, signer, self.root.certificate)
        self.content = ccm.PolicyContent()
        # By the user's object id.
        self.of_users: dict[str, list[ccm.Configuration]] = {}
        # What a site with co-management does instead, when a test wants it.
        self.policy_of: Callable[[Tx, clients.ClientId], Awaitable[ccm.PolicyContent]] | None = None
        # The same of what is deployed to users; `of_users` without it.
        self.user_policy_of: (
            Callable[[Tx, clients.Client, clients.TokenHolder], Awaitable[list[ccm.Configuration]]]
            | None
        ) = None
        self.trace_of = clients.no_trace
        self.admits = clients.everybody
        self.package = PACKAGE
        self.site_code = "CM1"
        self.onboarded = True
        self.manifest = ccm.ClientManifest(
            "CM1", "0.1.0", "client.whl", sha256(PACKAGE).hexdigest(), len(PACKAGE)
        )
        # Authorities of client certificates, and their revocation lists; None: nobody looks.
        self.client_roots: list[x509.Certificate] = []
        self.crls: list[x509.CertificateRevocationList] | None = None
        # Where clients are told that software update points are; none, unless a test wants one.
        self.update_points: list[ccm.UpdatePoint] = []
        self.resources: list[str] = []
        self.seen: list[Request] = []
        # May answer a request in the management point's stead, as a bad relay would.
        self.relay: Callable[[Request], Response | None] = lambda request: None
        self.cut_downloads = 0
        self.verify_token = verify_token
        self.token_of = lambda device: f"device:{device}"
        self.package_of = self._package
        # Fingerprints of join certificates.
        self.joined: set[str] = set()
        self.box = box = SecretBox.open(folder / "keys" / "box")
        self.point = clients.ManagementPointService(
            "CM1",
            box,
            clients.Collaborators(
                verify_token=lambda tx, token: self.verify_token(tx, token),
                verify_certificate=self._verify_certificate,
                policy=self._policy,
                trace=lambda *asked: self.trace_of(*asked),
                admit=lambda *asked: self.admits(*asked),
                resource=self._resource,
                signing=self._signing,
                management_points=self._points,
                manifest=self._manifest,
                package=lambda wanted: self.package_of(wanted),
                ordered=self._ordered,
                updates=self._updates,
                update_points=self._update_points,
                user_policy=self._user_policy,
                user_settings=lambda tx, user: settings.of_user(tx, user.tenant_id, user.object_id),
            ),
            now=moment,
        )
        # Of other modules at the management point, where a test wants them.
        self.more: list[BaseRoute] = []
        self.channel = notifications.Channel(db, self.point, self._signing, now=moment)

    async def _user_policy(
        self, tx: Tx, client: clients.Client, user: clients.TokenHolder
    ) -> list[ccm.Configuration]:
        if self.user_policy_of is not None:
            return await self.user_policy_of(tx, client, user)
        return self.of_users.get(user.object_id, [])

    async def _ordered(self, tx: Tx, client: clients.Client, message: ccm.Message) -> None:
        await notifications.take_result(tx, client, message, self.now())

    async def _updates(self, tx: Tx, client: clients.Client, message: ccm.Message) -> None:
        await software_updates.take(tx, client, message, self.now())

    async def _update_points(self, tx: Tx) -> list[ccm.UpdatePoint]:
        return self.update_points

    async def _verify_certificate(self, tx: Tx, leaf: x509.Certificate) -> None:
        pki.check_client(leaf, self.client_roots, self.crls, self.now())

    async def _policy(self, tx: Tx, client: clients.Client) -> ccm.PolicyContent:
        if self.policy_of is not None:
            return await self.policy_of(tx, client.id)
        return self.content

    async def _resource(self, tx: Tx, client: clients.Client, now: datetime) -> None:
        self.resources.append(client.name)
        await clients.keep_resource(tx, client, now)

    async def _signing(self, tx: Tx) -> ccm.SigningIdentity:
        return self.identity

    async def _points(self, tx: Tx) -> list[ccm.ManagementPoint]:
        return [ccm.ManagementPoint(f"localhost/CCM_Proxy_MutualAuth/{ROLE_ID}", "Internet")]

    async def _manifest(self, tx: Tx) -> ccm.ClientManifest | None:
        return self.manifest

    async def _package(self, wanted: str) -> clients.Package | None:
        if wanted != self.manifest.sha256:
            return None

        async def read(start: int, end: int) -> AsyncIterator[bytes]:
            if self.cut_downloads:
                self.cut_downloads -= 1
                yield self.package[start : start + 100_000]
                raise ConnectionResetError
            yield self.package[start:end]

        return clients.Package(len(self.package), read)

    @property
    def host(self) -> str:
        return f"localhost:{self.port}/CCM_Proxy_MutualAuth/{ROLE_ID}"

    @property
    def command_line(self) -> str:
        return f'CCMSETUPCMD="CCMHOSTNAME={self.host} SMSSITECODE={self.site_code}"'

    async def _auth_info(self, request: Request) -> Response:
        if not self.onboarded or request.query_params["TenantID"] != TENANT:
            return Response(status_code=204)
        return http.reply(ccm.AuthInfo("app", "https://ConfigMgrService", TENANT))

    async def _directory(self, request: Request) -> Response:
        """The tenant's token endpoint, as far as a joined device needs it."""
        form = dict(parse_qsl((await request.body()).decode()))
        head = form["assertion"].partition(".")[0]
        header = msgspec.json.decode(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        certificate = x509.load_der_x509_certificate(b64decode(header["x5c"][0]))
        if pki.sha256_fingerprint(certificate) not in self.joined:
            return http.reply({"error": "invalid_client", "error_description": "no such join"}, 401)
        key = ECKey.import_key(pki.public_jwk(certificate.public_key()))
        registry = jws.JWSRegistry(algorithms=["ES256"])
        # The library's limit is smaller than one certificate.
        registry.max_header_length = 4096
        claims = jwt.decode(form["assertion"], key, registry=registry).claims
        assert claims["aud"] == f"https://localhost:{self.port}/{TENANT}/oauth2/v2.0/token"
        assert form["scope"] == "https://ConfigMgrService/.default"
        return http.reply({"access_token": self.token_of(claims["sub"]), "expires_in": 3600})

    def _below(self) -> list[BaseRoute]:
        return [
            *clients.routes(self.db, self.point),
            *notifications.routes(self.channel),
            *self.more,
        ]

    def _update_point(self) -> list[BaseRoute]:
        return software_updates.point_routes(self.db, self.point, self._signing, self.now)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        key = pki.generate_key()
        leaf = self.tls_root.issue(
            key.public_key(),
            pki.name("localhost"),
            now=self.now(),
            days=3650,
            dns=["localhost"],
            usages=["server"],
        )
        certificate, key_file = self.folder / "tls.pem", self.folder / "tls.key"
        certificate.write_bytes(pki.pem(leaf))
        key_file.write_bytes(pki.key_pem(key))
        (self.folder / "ca.pem").write_bytes(pki.pem(self.tls_root.certificate))
        app = http.application(
            [
                Route("/CCM_Proxy_ServerAuth/AADAuthInfo", self._auth_info),
                Route(f"/{TENANT}/oauth2/v2.0/token", self._directory, methods=["POST"]),
                # The same inside, without a gateway's prefix.
                *self._below(),
                *self._update_point(),
                Mount(PREFIX, routes=self._below()),
                Mount(UPDATES_PREFIX, routes=self._update_point()),
                Mount(MUTUAL_PREFIX, routes=self._below()),
                *clients.admin_routes(self.db, require=_anyone, now=self.now),
                *clients.identity_routes(self.db, self.box, "CM1", require=_anyone, now=self.now),
                *notifications.admin_routes(self.db, _anyone, self.now),
                *software_updates.routes(self.db, _anyone, self.now),
            ],
            role="site",
        )

        async def relayed(scope, receive, send):  # type: ignore[no-untyped-def]
            request = Request(scope, receive)
            self.seen.append(request)
            answer = self.relay(request)
            await (answer or app)(scope, receive, send)

        stop = asyncio.Event()
        listener = http.Listener(relayed, "127.0.0.1", self.port, http.TLS(certificate, key_file))
        task = asyncio.create_task(http.serve([listener], stop, drain_seconds=1))
        hearing = asyncio.create_task(self.channel.run(stop))
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            await asyncio.sleep(0.01)
        yield
        stop.set()
        await asyncio.gather(task, hearing)


async def _anyone(request: Request, role: object = None) -> administrators.Administrator:
    return ADMINISTRATOR


async def waits_for_a_lock(db: Database) -> bool:
    """Whether a transaction of this database waits for another one's row."""
    async with db.transaction() as tx:
        row = await (
            await tx.execute(
                "SELECT count(*) AS n FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        ).fetchone()
    return bool(row and row["n"])


def renamed(machine: Machine, folder: Path, **changes: object) -> Machine:
    return replace(machine, state=folder, **changes)  # type: ignore[arg-type]


def log(machine: Machine, component: str) -> list[str]:
    """The messages of one of the machine's log files."""
    text = (machine.logs / f"{component}.log").read_text()
    return [cmtrace.message_of(line) or "" for line in text.splitlines()]


def enrolled(machine: Machine) -> None:
    machine.mdm.state = MdmEnrollment(True, "user@contoso.com", "TandemMDM", True)


def joined(site: Site, folder: Path) -> JoinRecord:
    """A device that has joined the directory."""
    root = pki.new_root(pki.name("Device join"), now=site.now())
    key = pki.generate_key()
    leaf = root.issue(key.public_key(), pki.name("d7"), now=site.now(), days=9, usages=["client"])
    site.joined.add(pki.sha256_fingerprint(leaf))
    (folder / "join.key").write_bytes(pki.key_pem(key))
    (folder / "join.pem").write_bytes(pki.pem(leaf))
    return JoinRecord(
        TENANT,
        "d7",
        f"https://localhost:{site.port}/{TENANT}",
        str(folder / "join.key"),
        str(folder / "join.pem"),
    )
