"""The MDM service of a test tenant, and a device that talks to it, message by message."""

import asyncio
import base64
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree
from starlette.types import ASGIApp, Receive, Scope, Send

from tandem import pki
from tandem.infra import http
from tandem.infra.blobs import Blobs
from tandem.infra.database import Database, Tx
from tandem.infra.jobs import Jobs
from tandem.infra.secrets import SecretBox
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status
from tandem.tenant import directory, enrollment, graph, mobile_apps, oidc, sessions
from tandem.tenant.enrollment import CONFIG_INFO_URI
from tenant_world import ADMIN, BASE, CHEAP, Joined, World, make_world

MANAGEMENT = "https://manage.example/ManagementServer/MDM.svc"
WINDOWS_ID = "0A1B2C3D4E5F60718293A4B5C6D7E8F9"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
_PKI = "http://schemas.microsoft.com/windows/pki/2009/01"
_ENR = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
_TRUST = "http://docs.oasis-open.org/ws-sx/ws-trust/200512"
ORDERING = sessions.By("00000000-0000-0000-0000-0000000000aa", "admin@contoso.com")
DISCOVER = f"{_ENR}/IDiscoveryService/Discover"
POLICIES = f"{_PKI}/enrollmentpolicy/IPolicy/GetPolicies"
REQUEST = f"{_PKI}/enrollment/RST/wstep"


def envelope(action: str, body: str, security: str = "", message_id: str = "urn:uuid:1") -> bytes:
    return (
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
        ' xmlns:a="http://www.w3.org/2005/08/addressing"'
        f' xmlns:wsse="{WSSE}" xmlns:wst="{_TRUST}"'
        ' xmlns:ac="http://schemas.xmlsoap.org/ws/2006/12/authorization"><s:Header>'
        f'<a:Action s:mustUnderstand="1">{action}</a:Action>'
        f"<a:MessageID>{message_id}</a:MessageID><a:To>https://tenant.example/</a:To>"
        f"{security}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def bearer(token: str, kind: str = "urn:ietf:params:oauth:token-type:jwt") -> str:
    return (
        f'<wsse:Security><wsse:BinarySecurityToken ValueType="{kind}"'
        f' EncodingType="{WSSE}#base64binary">{base64.b64encode(token.encode()).decode()}'
        "</wsse:BinarySecurityToken></wsse:Security>"
    )


def discover(version: str = "5.0", policies: Sequence[str] = ("OnPremise", "Federated")) -> bytes:
    offered = "".join(f"<AuthPolicy>{name}</AuthPolicy>" for name in policies)
    return envelope(
        DISCOVER,
        f'<Discover xmlns="{_ENR}"><request><EmailAddress>alex@contoso.com</EmailAddress>'
        f"<RequestVersion>{version}</RequestVersion><DeviceType>CIMClient_Windows</DeviceType>"
        f"<AuthPolicies>{offered}</AuthPolicies></request></Discover>",
    )


def get_policies(token: str) -> bytes:
    body = f'<GetPolicies xmlns="{_PKI}/enrollmentpolicy"><client/></GetPolicies>'
    return envelope(POLICIES, body, bearer(token))


def request_token(
    token: str, request: bytes, *, security: str | None = None, issue: str = "Issue", **items: str
) -> bytes:
    given = {
        "DeviceID": WINDOWS_ID,
        "DeviceName": "LAB-001",
        "EnrollmentType": "Device",
        "DeviceType": "CIMClient_Windows",
        "OSVersion": "10.0.22631.1",
        "HWDevID": "aa" * 32,
        **items,
    }
    context = "".join(
        f'<ac:ContextItem Name="{name}"><ac:Value>{value}</ac:Value></ac:ContextItem>'
        for name, value in given.items()
    )
    body = (
        f"<wst:RequestSecurityToken><wst:RequestType>{_TRUST}/{issue}</wst:RequestType>"
        f'<wsse:BinarySecurityToken ValueType="{_PKI}/enrollment#PKCS10"'
        f' EncodingType="{WSSE}#base64binary">{base64.encodebytes(request).decode()}'
        f"</wsse:BinarySecurityToken><ac:AdditionalContext>{context}</ac:AdditionalContext>"
        "</wst:RequestSecurityToken>"
    )
    return envelope(REQUEST, body, bearer(token) if security is None else security)


def certificate_request(key: pki.PrivateKey) -> bytes:
    request = pki.certificate_request(key, pki.name("x"), ())
    return x509.load_pem_x509_csr(request).public_bytes(Encoding.DER)


def said(answer: httpx.Response) -> dict[str, str]:
    """The texts of a SOAP answer by the name of their element."""
    found: dict[str, str] = {}
    for element in etree.fromstring(answer.content).iter():
        text = (element.text or "").strip()
        if text:
            found[etree.QName(element).localname] = text
    return found


def subcode(answer: httpx.Response) -> str:
    """Of a fault; empty for an answer that is none."""
    values = [
        element.text or ""
        for element in etree.fromstring(answer.content).iter()
        if etree.QName(element).localname == "Value"
        and etree.QName(element.getparent()).localname == "Subcode"
    ]
    return values[0] if values else ""


class PeerCertificate:
    """What the TLS listener does: says which certificate the peer holds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.certificate: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tls = {"client_cert": self.certificate}
        await self.app({**scope, "extensions": {"tls": tls}}, receive, send)


@dataclass
class Mdm:
    """A tenant with an MDM service; the licence requirement is off and everybody in scope."""

    world: World
    enrollment: enrollment.Enrollment
    content: mobile_apps.Content
    sessions: sessions.Sessions
    peer: PeerCertificate
    management: httpx.AsyncClient
    uploads: mobile_apps.Uploads
    _signed_in: dict[str, tuple[dict[str, str], datetime | None]] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        return self.world.database

    async def soap(self, path: str, message: bytes) -> httpx.Response:
        return await self.world.client.post(
            f"/EnrollmentServer/{path}.svc",
            content=message,
            headers={"content-type": "application/soap+xml; charset=utf-8"},
        )

    async def soap_as(self, certificate: bytes, path: str, message: bytes) -> httpx.Response:
        """Over a connection whose peer proved to hold a certificate."""
        peer = PeerCertificate(self.world.app)
        peer.certificate = certificate
        transport = httpx.ASGITransport(peer)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.post(f"/EnrollmentServer/{path}.svc", content=message)

    async def mdm_token(self, joined: Joined) -> str:
        answer = await self.world.token(
            grant_type="refresh_token",
            client_id=oidc.BROKER,
            refresh_token=joined.refresh_token,
            scope=f"{oidc.MDM_APP}/.default",
            device_assertion=self.world.assertion(joined),
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def user_token(self, user: directory.User) -> str:
        """For the MDM service, by a user on a device that is not joined."""
        tokens = await self.world.user_tokens(
            f"openid {oidc.MDM_APP}/.default",
            upn=user.user_principal_name,
            client_id=oidc.BROKER,
            redirect=oidc.BROKER_REDIRECT,
        )
        return str(tokens["access_token"])

    async def group(self, name: str, *members: str) -> directory.Group:
        async with self.database.transaction() as tx:
            made = await directory.create_group(tx, name, self.world.at)
            for member in members:
                await directory.add_member(tx, made.id, member)
            return made

    async def enrolled(self, name: str = "alex", windows_id: str = WINDOWS_ID) -> "TestDevice":
        """A user with a joined device that is enrolled over the wire."""
        user = await self.world.user(name)
        joined = await self.world.joined(user.user_principal_name, f"PC-{name}")
        return await self.enroll(user, joined, windows_id)

    async def enroll(
        self, user: directory.User, joined: Joined | None, windows_id: str = WINDOWS_ID
    ) -> "TestDevice":
        """Without a joined device the user's own token is what enrols it."""
        key = pki.generate_key("rsa2048")
        message = request_token(
            await (self.mdm_token(joined) if joined else self.user_token(user)),
            certificate_request(key),
            DeviceID=windows_id,
            DeviceName=f"PC-{user.display_name}",
        )
        answer = await self.soap("Enrollment", message)
        assert subcode(answer) == "", answer.text
        document = base64.b64decode(said(answer)["BinarySecurityToken"])
        top = etree.fromstring(document)
        mine = top.xpath("//characteristic[@type='My']//parm[@name='EncodedCertificate']/@value")
        certificate = base64.b64decode(mine[0])
        return TestDevice(self, user, joined, windows_id, certificate, top, key)

    async def until_somebody_waits(self) -> None:
        """For what a transaction holds that is not over yet."""
        for _ in range(1000):
            async with self.database.transaction() as tx:
                found = await tx.execute(
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                    " AND datname = current_database()"
                )
                if found.rowcount:
                    return
            await asyncio.sleep(0.005)
        raise AssertionError("nobody waits")

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The background work of this tenant is done meanwhile."""
        stop = asyncio.Event()
        worker = asyncio.create_task(self.uploads.jobs.run(stop))
        yield
        stop.set()
        await worker

    async def graph(
        self, method: str, path: str, body: Any = None, upn: str = ADMIN
    ) -> httpx.Response:
        """As an administrator, who signs in again when the token would be old."""
        headers, since = self._signed_in.get(upn, ({}, None))
        if since is None or self.world.at - since > timedelta(minutes=30):
            headers = await self.world.bearer(upn)
            self._signed_in[upn] = headers, self.world.at
        return await self.world.client.request(method, f"/v1.0/{path}", json=body, headers=headers)


@dataclass
class TestDevice:
    """An enrolled device. It answers each question from `nodes`, or with 404."""

    __test__ = False
    mdm: Mdm
    user: directory.User
    joined: Joined | None
    windows_id: str
    certificate: bytes
    document: Any
    key: pki.PrivateKey
    nodes: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    session: int = 0

    @property
    def id(self) -> str:
        """The MDM service's id of this device."""
        name = x509.load_der_x509_certificate(self.certificate).subject
        return str(name.rfc4514_string().removeprefix("CN="))

    async def send(self, message: Message) -> httpx.Response:
        self.mdm.peer.certificate = self.certificate
        return await self.mdm.management.post(
            "/ManagementServer/MDM.svc?mode=Maintenance&Platform=WoA",
            content=syncml.write(message),
            headers={"content-type": "application/vnd.syncml.dm+xml"},
        )

    async def says(self, number: int, *commands: Command, **more: Any) -> Message:
        message = Message(
            str(self.session), number, MANAGEMENT, self.windows_id, tuple(commands), **more
        )
        answer = await self.send(message)
        assert answer.status_code == 200, answer.status_code
        return syncml.read(answer.content)

    async def begins(self, *alerts: Command) -> Message:
        """The first message of a new session, and what the service answers."""
        self.session += 1
        info = tuple(
            Item(source=f"./DevInfo/{name}", data=value)
            for name, value in (("DevId", self.windows_id), ("Man", "Contoso"), ("Mod", "T1"))
        )
        return await self.says(
            1, Command("Alert", "2", (), "1201"), *alerts, Command("Replace", "9", info)
        )

    def replies(self, answer: Message) -> dict[str, Any]:
        """Statuses and results for what an answer asks."""
        statuses = [Status("1", str(answer.number), "0", "SyncHdr", 200)]
        results = []
        for command in [each for whole in answer.commands for each in whole.each]:
            uri = command.items[0].target if command.items else ""
            known = {syncml.normal(name): value for name, value in self.nodes.items()}
            value = known.get(syncml.normal(uri))
            code = self.codes.get(command.name, 200)
            if command.name == "Get" and value is None:
                code = 404
            id = str(len(statuses) + 100)
            statuses.append(Status(id, str(answer.number), command.id, command.name, code))
            if command.name == "Get" and value is not None:
                item = Item(source=uri, data=value)
                results.append(Results(f"r{id}", str(answer.number), command.id, (item,)))
        return {"statuses": tuple(statuses), "results": tuple(results)}

    async def check_in(self, *alerts: Command) -> list[Command]:
        """One whole session; every command that is not a question."""
        answer = await self.begins(*alerts)
        work: list[Command] = []
        while answer.commands:
            number = answer.number + 1
            answer = await self.says(number, **self.replies(answer))
            work += [command for command in answer.commands if command.name != "Get"]
        return work

    def agent(self, text: str) -> None:
        """What the site's client on the device says of itself."""
        self.nodes[CONFIG_INFO_URI] = text


@asynccontextmanager
async def mdm_service(
    database: Database,
    folder: Path,
    *,
    authority: bool = True,
    base: str = BASE,
    management_url: str = MANAGEMENT,
    now: datetime | None = None,
    limits: graph.GraphSettings | None = None,
    safeguards: sessions.Safeguards = sessions.Safeguards(hold_minutes=0),
) -> AsyncIterator[Mdm]:
    made: dict[str, Any] = {}

    def routes(world: World) -> list[Any]:
        blobs = Blobs.open(folder / "content")
        box = SecretBox(bytes(32))
        made["enrollment"] = enrollment.Enrollment(
            box,
            world.tokens,
            now=world.now,
            public_url=base,
            management_url=management_url,
            passwords=oidc.PasswordDoor(
                world.database,
                world.tokens,
                CHEAP,
                client_id=oidc.MDM_ENROLLMENT,
                resource_id=oidc.MDM_APP,
            ),
        )
        made["content"] = mobile_apps.Content(blobs, b"k" * 32, base)
        made["uploads"] = mobile_apps.Uploads(
            blobs, b"k" * 32, box, Jobs(database.dsn), database, world.now
        )
        made["uploads"].register()
        made["sessions"] = sessions.Sessions(
            made["enrollment"],
            made["content"],
            world.now,
            management_url,
            safeguards=safeguards,
            wakes=sessions.AgentWakes(),
        )
        parts = [
            *graph.directory_parts(CHEAP),
            graph.enrollment_ways(made["enrollment"]),
            graph.managed_devices(made["sessions"]),
            graph.device_certificates(made["enrollment"]),
            graph.comanagement(),
            graph.audit_events(),
            graph.mobile_app_parts(made["uploads"]),
            graph.configurations(),
        ]
        return [
            *graph.routes(world.database, world.tokens, world.now, parts=parts, settings=limits),
            *enrollment.routes(world.database, made["enrollment"], world.tokens),
            *mobile_apps.routes(world.database, made["content"], world.now),
            *mobile_apps.upload_routes(made["uploads"]),
        ]

    world = await make_world(database, routes, base, now)
    async with database.transaction() as tx:
        if authority:
            await directory.set_mdm_authority(tx, world.at)
        await directory.set_mdm_scope(tx, directory.MdmScope.ALL)
        await made["enrollment"].establish(tx)

    async def holder(tx: Tx, proved: bytes | None) -> directory.Device:
        found: directory.Device = await made["enrollment"].directory_device(tx, proved, CHEAP)
        return found

    app = http.application(
        [
            *sessions.routes(database, made["sessions"]),
            *oidc.certificate_routes(database, world.tokens, world.now, holder),
        ],
        role="tenant",
        problems=sessions.problems,
    )
    peer = PeerCertificate(app)
    management = httpx.AsyncClient(
        transport=httpx.ASGITransport(peer), base_url="https://manage.example"
    )
    yield Mdm(world, peer=peer, management=management, **made)
    await management.aclose()
    await world.client.aclose()


@asynccontextmanager
async def live_mdm(
    database: Database, folder: Path, names: Sequence[str] = (), ask: bool = False, **more: Any
) -> AsyncIterator[tuple[Mdm, Path, str]]:
    """The service on real ports with TLS, in real time: it, its root, and its management URL.

    `names` are other names that its certificate is for; `ask`: the public port asks for device
    certificates too; `more` is for `mdm_service`.
    """
    ports = [_free_port(), _free_port()]
    now = datetime.now(UTC)
    root = pki.new_root(pki.name("Test root"), now=now)
    key = pki.generate_key("p256")
    name = pki.name("localhost")
    certificate = root.issue(
        key.public_key(), name, now=now, days=1, dns=["localhost", *names], usages=["server"]
    )
    (folder / "key.pem").write_bytes(pki.key_pem(key))
    (folder / "certificate.pem").write_bytes(pki.pem(certificate))
    (folder / "root.pem").write_bytes(pki.pem(root.certificate))
    base = f"https://localhost:{ports[0]}"
    url = f"https://localhost:{ports[1]}/ManagementServer/MDM.svc"
    served = mdm_service(database, folder, base=base, management_url=url, now=now, **more)
    async with served as mdm:
        async with database.transaction() as tx:
            device_ca = await mdm.enrollment.establish(tx)
        (folder / "device-ca.pem").write_bytes(pki.pem(device_ca))
        plain = http.TLS(folder / "certificate.pem", folder / "key.pem")
        asking = http.TLS(plain.certificate, plain.key, folder / "device-ca.pem")
        stop = asyncio.Event()
        serving = asyncio.create_task(
            http.serve(
                [
                    http.Listener(mdm.world.app, "127.0.0.1", ports[0], asking if ask else plain),
                    http.Listener(mdm.peer.app, "127.0.0.1", ports[1], asking),
                ],
                stop,
                drain_seconds=1,
            )
        )
        try:
            for port in ports:
                await _listens(port)
            async with mdm.working():
                yield mdm, folder / "root.pem", url
        finally:
            stop.set()
            await serving


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _listens(port: int) -> None:
    for _ in range(250):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        await writer.wait_closed()
        return
    raise AssertionError(f"nothing listens on {port}")


def new_id() -> str:
    return uuid.uuid4().hex.upper()
