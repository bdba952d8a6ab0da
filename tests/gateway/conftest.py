"""A gateway and a connection point as real processes, and a management point to forward to."""

import asyncio
import contextlib
import json
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tandem import pki
from tandem.infra import config, http
from tandem.protocols import tunnel

NAME = "mycmg.contoso.com"
ROLE = "72057594037927941"
TENANT = "3f6b1b62-7b1c-4c55-9d58-0e6f9b6f5a11"
URI = "https://ConfigMgrService"
CONNECTION_ID = "the-connection-id"
BASE = f"/CCM_Proxy_ServerAuth/{ROLE}"
MUTUAL = f"/CCM_Proxy_MutualAuth/{ROLE}"


def free_port() -> int:
    """Below those that the system gives to clients: what restarts here finds its port free again."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Rig:
    """Everything between a client and a management point, and hands to break it."""

    folder: Path
    port: int = field(default_factory=free_port)
    tunnel_port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    site_port: int = field(default_factory=free_port)
    workers: int = 1
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    begun: int = 0  # Answers of /halting whose head went out.
    under_way: int = 0  # Of /pausing.
    most_under_way: int = 0
    reports: list[tunnel.ConnectorReport] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    crls: list[str] = field(default_factory=list)
    check_revocation: bool = True
    version: int = 1
    silence: float = 100
    limits: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    fast_tls: bool = True
    drain_seconds: float = 5
    tell_seconds: float = 60
    # A site of the release before takes no tellings.
    site_before: bool = False
    report_status: int = 200

    def __post_init__(self) -> None:
        self.points: dict[str, str] = {}
        # What the site once said to a connection point that it does not reach any more.
        self.cut_off: dict[str, tunnel.ConnectorConfiguration] = {}
        self.public = pki.new_root(pki.name("Public root"), now=self.now)
        self.site_root = pki.new_root(pki.name("SMS Issuing"), now=self.now)
        self.clients_root = pki.new_root(pki.name("Clients' root"), now=self.now)
        self.tenant_key = RSAKey.generate_key(2048, {"kid": "t1"}, private=True)
        self.site_key = ECKey.generate_key("P-256", {"kid": "s1"}, private=True)
        above = pki.generate_key()
        subordinate = self.public.issue(
            above.public_key(), pki.name("Public issuing"), now=self.now, days=60, ca=True
        )
        issuing = pki.Authority(subordinate, above)
        key = pki.generate_key()
        leaf = issuing.issue(
            key.public_key(), pki.name(NAME), now=self.now, days=30,
            dns=[NAME, "localhost"], ips=["127.0.0.1"], usages=["server"],
        )  # fmt: skip
        chain = [subordinate, self.public.certificate]
        (self.folder / "server.pfx").write_bytes(pki.pfx_export(key, leaf, chain, "secret", NAME))
        (self.folder / "server.password").write_text("secret")
        (self.folder / "public.pem").write_bytes(pki.pem(self.public.certificate))
        (self.folder / "site.pem").write_bytes(pki.pem(self.site_root.certificate))
        self._role("CP01", "client")
        self._role("mp", "server")

    def role(self, name: str) -> Any:
        """The certificate of another connection point."""
        return self._role(name, "client")

    def _role(self, name: str, usage: Any, authority: pki.Authority | None = None) -> Any:
        key = pki.generate_key()
        certificate = (authority or self.site_root).issue(
            key.public_key(), pki.name(name), now=self.now, days=30,
            dns=["localhost"], ips=["127.0.0.1"], usages=[usage],
        )  # fmt: skip
        (self.folder / f"{name}.pem").write_bytes(pki.pem(certificate))
        (self.folder / f"{name}.key").write_bytes(pki.key_pem(key))
        self.points[sha256(certificate.public_bytes(Encoding.DER)).hexdigest()] = name
        return certificate

    # -------------------------------------------------------------- what the site says

    def configuration(self) -> tunnel.Configuration:
        jwks = {"keys": [self.tenant_key.as_dict(private=False)]}
        tokens = {"keys": [self.site_key.as_dict(private=False)]}

        def published(base: str, path: str, methods: list[str], limit: int, auth: Any) -> Any:
            return tunnel.Endpoint(f"{base}/{path}", methods, limit, [auth])

        return tunnel.Configuration(
            self.version, NAME, "CM1",
            tenants=[
                tunnel.Tenant(TENANT, "client-app", URI, ["https://sts.test/"], jwks, "https://t")
            ],
            site_token_keys=tokens,
            trusted_roots=self.roots,
            crls=self.crls,
            check_revocation=self.check_revocation,
            endpoints=[
                published(BASE, "echo", ["GET", "POST"], 100_000, "token"),
                published(BASE, "large", ["POST"], 512 * 1024, "token"),
                published(BASE, "big", ["GET"], 0, "token"),
                published(BASE, "slow", ["GET"], 0, "token"),
                published(BASE, "halting", ["GET"], 0, "token"),
                published(BASE, "pausing", ["GET", "POST"], 512 * 1024, "token"),
                tunnel.Endpoint(f"{BASE}/held", ["GET"], 0, ["token"], hold_seconds=60),
                published(MUTUAL, "echo", ["GET"], 0, "certificate"),
            ],
            limits=tunnel.Limits(
                **{"request_seconds": 5, "tunnel_silence_seconds": self.silence, **self.limits}
            ),
        )  # fmt: skip

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        instance = tunnel.Instance(1, "127.0.0.1", self.port, self.tunnel_port)
        url = f"https://127.0.0.1:{self.site_port}"
        target = tunnel.GatewayTarget(NAME, NAME, CONNECTION_ID, [instance], self.configuration())
        mappings = [
            tunnel.Mapping(f"{base}/{path}", f"{url}/{path}")
            for base in (BASE, MUTUAL)
            for path in ("echo", "large", "big", "slow", "halting", "pausing", "held")
        ]
        return tunnel.ConnectorConfiguration(name, [target], mappings)

    def site(self) -> Starlette:
        async def configuration(request: Request) -> Response:
            peer = http.peer_certificate(request)
            name = self.points[sha256(peer or b"").hexdigest()]
            deadline = time.monotonic() + float(request.query_params.get("wait", 0))
            while True:
                tag = f'"{self.version}"'
                if request.headers.get("if-none-match") != tag:
                    told = self.cut_off.get(name) or self.connector_configuration(name)
                    content = msgspec.json.encode(told)
                    return Response(content, headers={"ETag": tag})
                if time.monotonic() > deadline:
                    return Response(status_code=304, headers={"ETag": tag})
                await asyncio.sleep(0.05)

        async def report(request: Request) -> Response:
            report = await http.decode(request, tunnel.ConnectorReport)
            self.reports.append(report)
            if self.report_status != 200:
                return Response(status_code=self.report_status)
            if self.site_before:
                return Response(status_code=204)
            told = [tunnel.Told(t.telling.run, t.telling.sequence) for t in report.tellings]
            return Response(msgspec.json.encode(tunnel.ReportAnswer(told)))

        async def echo(request: Request) -> Response:
            body = await request.body()
            self.seen.append(
                {
                    "target": request.scope["raw_path"] + b"?" + request.scope["query_string"],
                    "headers": dict(request.headers),
                    "body": body,
                }
            )
            return PlainTextResponse(f"{request.method} {len(body)}")

        async def big(request: Request) -> Response:
            count = int(request.query_params["mb"])

            async def pieces() -> AsyncIterator[bytes]:
                for number in range(count):
                    yield bytes([number % 256]) * 1_000_000

            sized = "sized" in request.query_params
            headers = {"content-length": str(count * 1_000_000)} if sized else {}
            return StreamingResponse(pieces(), headers=headers)

        async def slow(_: Request) -> Response:
            await asyncio.sleep(30)
            return Response()

        async def pausing(request: Request) -> Response:
            """An answer after `ms`; how many are under way at once is counted."""
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                await asyncio.sleep(int(request.query_params.get("ms", 0)) / 1000)
            finally:
                self.under_way -= 1
            return PlainTextResponse("rested")

        async def halting(_: Request) -> Response:
            """The first time the head alone; the whole answer from then on."""
            first, self.begun = self.begun == 0, self.begun + 1

            async def pieces() -> AsyncIterator[bytes]:
                if first:
                    await asyncio.sleep(30)
                yield b"whole"

            return StreamingResponse(pieces(), headers={"content-length": "5"})

        return Starlette(
            routes=[
                Route("/SMS_CMG/connector/configuration", configuration),
                Route("/SMS_CMG/connector/report", report, methods=["POST"]),
                Route("/echo{rest:path}", echo, methods=["GET", "POST", "DELETE"]),
                Route("/large", echo, methods=["POST"]),
                Route("/secret{rest:path}", echo, methods=["GET", "POST"]),
                Route("/big", big),
                Route("/slow", slow),
                Route("/halting", halting),
                Route("/pausing", pausing, methods=["GET", "POST"]),
                Route("/held", slow),
            ]
        )

    # -------------------------------------------------------------- processes

    def start_gateway(self, name: str = "gateway", **changes: Any) -> None:
        settings = {
            "service_name": NAME, "instance": 1, "host": "127.0.0.1", "port": self.port,
            "tunnel_port": self.tunnel_port, "health": f"127.0.0.1:{self.health_port}",
            "pfx": str(self.folder / "server.pfx"),
            "pfx_password_file": str(self.folder / "server.password"),
            "connector_ca": str(self.folder / "site.pem"), "connection_id": CONNECTION_ID,
            "state": str(self.folder / "gateway"), "workers": self.workers,
            "logs": str(self.folder / "logs"), "fast_tls": self.fast_tls,
            "drain_seconds": self.drain_seconds, "tell_seconds": self.tell_seconds, **changes,
        }  # fmt: skip
        self._start("gateway", settings, name)

    def start_connector(self, name: str = "CP01", **changes: Any) -> None:
        """Its process is known as `connector`, or by its name when it is another one."""
        process = "connector" if name == "CP01" else name
        settings = {
            "connection_point": name,
            "management_point_url": f"https://127.0.0.1:{self.site_port}",
            "certificate": str(self.folder / f"{name}.pem"),
            "key": str(self.folder / f"{name}.key"),
            "site_root": str(self.folder / "site.pem"), "state": str(self.folder / process),
            "gateway_ca_file": str(self.folder / "public.pem"), "retry_seconds": 0.1,
            "retry_most_seconds": 0.5, "report_seconds": 0.5, "poll_seconds": 5.0,
            "request_seconds": 4.0, "logs": str(self.folder / "logs"), "fast_tls": self.fast_tls,
            **changes,
        }  # fmt: skip
        self._start("connector", settings, process)

    def _start(self, role: str, settings: dict[str, Any], name: str = "") -> None:
        name = name or role
        path = self.folder / f"{name}.toml"
        path.write_text(config.toml(settings))
        code = f"from pathlib import Path; from tandem.roles import {role} as r; r.run(Path({str(path)!r}))"
        with (self.folder / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [self.python, "-c", code], stdout=output, stderr=output
            )

    def stop(self, role: str, number: int = signal.SIGTERM) -> int:
        process = self.processes.pop(role)
        process.send_signal(number)
        return process.wait(15)

    async def health(self) -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{self.health_port}/readyz")
            except httpx.TransportError:
                return {"ok": False, "tunnels": 0, "version": -1}
            return dict(answer.json())

    async def until(self, what: Any, seconds: float = 60) -> dict[str, Any]:
        """Wait until what the gateway says of itself fits."""
        deadline = time.monotonic() + seconds
        while not what(facts := await self.health()):
            if time.monotonic() > deadline:
                outs = [p.read_text()[-1500:] for p in self.folder.glob("*.out")]
                raise AssertionError(f"{facts} {outs}")
            await asyncio.sleep(0.05)
        return facts

    async def reported(self, holds: Any, seconds: float = 40) -> list[tunnel.ConnectionState]:
        """Wait until what the connection point says of its tunnels fits."""
        deadline = time.monotonic() + seconds
        while not (self.reports and holds(self.reports[-1].connections)):
            assert time.monotonic() < deadline, self.reports[-1:]
            await asyncio.sleep(0.05)
        return self.reports[-1].connections

    async def news(self, **changes: Any) -> None:
        """The site's configuration changes, and arrives."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.version += 1
        await self.until(lambda facts: facts["version"] == self.version)

    # -------------------------------------------------------------- clients

    def token(self, *, seconds: int = 600, key: Any = None, **changes: Any) -> str:
        """A tenant's device token."""
        now = int(time.time())
        claims = {
            "iss": "https://sts.test/", "aud": URI, "tid": TENANT, "deviceid": "d1", "oid": "o1",
            "idtyp": "device", "iat": now, "nbf": now - 10, "exp": now + seconds, **changes,
        }  # fmt: skip
        return jwt.encode({"alg": "RS256", "kid": "t1"}, claims, key or self.tenant_key)

    def site_token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": "urn:sccm:site:CM1", "aud": "urn:sccm:service", "sub": "d1", "exp": now + 600,
            **changes,
        }  # fmt: skip
        return jwt.encode({"alg": "ES256", "kid": "s1"}, claims, self.site_key)

    def context(self, certificate: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "public.pem"))
        if certificate:
            context.load_cert_chain(
                self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key"
            )
        return context

    def client(self, certificate: str = "", **options: Any) -> httpx.AsyncClient:
        context = self.context(certificate)
        return httpx.AsyncClient(
            base_url=f"https://localhost:{self.port}", verify=context, trust_env=False, **options
        )

    async def ask(self, method: str, path: str, token: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= options.pop("headers", {})
        async with self.client() as client:
            return await client.request(method, path, headers=headers, **options)

    def client_certificate(self, name: str, root: pki.Authority | None = None) -> Any:
        return self._role(name, "client", root or self.clients_root)

    def server_certificate(self, name: str) -> Any:
        """Of the clients' authority, but not for clients."""
        return self._role(name, "server", self.clients_root)

    def crl(self, revoked: Any = (), root: pki.Authority | None = None, days: int = 7) -> str:
        made = (root or self.clients_root).crl(
            revoked,
            now=self.now - timedelta(days=2),
            next_update=self.now + timedelta(days=days),
            number=1,
        )
        return b64encode(made).decode()


@asynccontextmanager
async def serving(made: Rig) -> AsyncIterator[Rig]:
    """Site, gateway and connection point, connected."""
    stop = asyncio.Event()
    where = made.folder
    tls = http.TLS(where / "mp.pem", where / "mp.key", where / "site.pem")
    site = asyncio.create_task(
        http.serve([http.Listener(made.site(), "127.0.0.1", made.site_port, tls)], stop, 1)
    )
    made.start_gateway()
    made.start_connector()
    try:
        await made.until(lambda facts: facts["tunnels"] == 1 and facts["version"] == 1, 60)
        yield made
    finally:
        for role in list(made.processes):
            ended = await asyncio.to_thread(made.stop, role)
            assert ended == 0, (where / f"{role}.out").read_text()[-3000:]
        stop.set()
        await site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with serving(Rig(tmp_path_factory.mktemp("rig"))) as made:
        yield made


@pytest.fixture
def shared(standing: Rig) -> Rig:
    """One for all tests of a module that break nothing: starting one takes seconds."""
    standing.seen.clear()
    return standing


@pytest_asyncio.fixture(loop_scope="module")
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(Rig(tmp_path)) as made:
        yield made


def code(answer: httpx.Response) -> str:
    return str(json.loads(answer.content)["error"]["code"])


def another_certificate(rig: Rig) -> str:
    """A certificate of the same name lies where the instance reads it; its fingerprint."""
    key = pki.generate_key()
    leaf = rig.public.issue(
        key.public_key(), pki.name(NAME), now=rig.now, days=60,
        dns=[NAME, "localhost"], ips=["127.0.0.1"], usages=["server"],
    )  # fmt: skip
    made = pki.pfx_export(key, leaf, [rig.public.certificate], "secret", NAME)
    (rig.folder / "server.pfx").write_bytes(made)
    return pki.sha256_fingerprint(leaf)
