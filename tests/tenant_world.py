"""A tenant with its front doors, as tests of directory, sign-in and Graph need it."""

import asyncio
import base64
import gc
import hashlib
import re
import secrets
import socket
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey

from tandem import pki
from tandem.infra import http
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.tenant import directory, graph, licensing, oidc

BASE = "https://tenant.example"
ADMIN = "admin@contoso.com"
PASSWORD = "Correct-Horse-1"
CHEAP = directory.DirectorySettings(password_memory_kib=64, password_passes=1)
OUT_OF_BAND = "http://localhost"


@dataclass
class World:
    database: Database
    tokens: oidc.Tokens
    tenant: directory.Tenant
    client: httpx.AsyncClient
    at: datetime = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
    app: Any = None

    def now(self) -> datetime:
        return self.at

    def wait(self, **span: float) -> None:
        self.at += timedelta(**span)

    @property
    def authority(self) -> str:
        return f"/{self.tenant.id}"

    @asynccontextmanager
    async def from_address(self, address: str) -> AsyncIterator[None]:
        """Requests come from there."""
        transport: Any = self.client._transport
        before, transport.client = transport.client, (address, 4711)
        yield
        transport.client = before

    async def user(self, name: str, **values: Any) -> directory.User:
        async with self.database.transaction() as tx:
            new = directory.NewUser(
                f"{name}@contoso.com", name.title(), PASSWORD, usage_location="DE", **values
            )
            return await directory.create_user(tx, new, self.at, CHEAP)

    # -------------------------------------------------------------- sign-in

    async def sign_in_page(self, **query: str) -> httpx.Response:
        return await self.client.get(f"{self.authority}/oauth2/v2.0/authorize", params=query)

    async def submit(self, page: httpx.Response, **fields: str) -> httpx.Response:
        """Fill in the first form of the page and press its first button."""
        action, hidden = first_form(page.text)
        return await self.client.post(action, data={**hidden, **fields})

    async def code(
        self,
        scope: str,
        *,
        upn: str = ADMIN,
        password: str = PASSWORD,
        client_id: str = oidc.CLI,
        redirect: str = OUT_OF_BAND,
        **query: str,
    ) -> tuple[dict[str, str], str]:
        """Sign in and accept; what came back to the redirect URI, and the PKCE verifier."""
        verifier = secrets.token_urlsafe(40)
        digest = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        page = await self.sign_in_page(
            client_id=client_id,
            response_type="code",
            redirect_uri=redirect,
            scope=scope,
            state="s1",
            code_challenge=challenge,
            code_challenge_method="S256",
            **{"login_hint": upn, **query},
        )
        if page.status_code == 200 and 'name="passwd"' in page.text:
            page = await self.submit(page, login=upn, passwd=password)
        if page.status_code == 200 and "Permissions requested" in page.text:
            page = await self.submit(page, decision="accept")
        assert page.status_code == 302, page.text
        back = parse_qs(urlsplit(page.headers["location"]).query)
        return {name: values[0] for name, values in back.items()}, verifier

    async def token(self, **form: str) -> httpx.Response:
        return await self.client.post(f"{self.authority}/oauth2/v2.0/token", data=form)

    async def user_tokens(self, scope: str, **options: Any) -> dict[str, Any]:
        client_id = options.get("client_id", oidc.CLI)
        redirect = options.get("redirect", OUT_OF_BAND)
        back, verifier = await self.code(scope, **options)
        answer = await self.token(
            grant_type="authorization_code",
            client_id=client_id,
            code=back["code"],
            redirect_uri=redirect,
            code_verifier=verifier,
            client_info="1",
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def bearer(self, upn: str = ADMIN, scope: str = "") -> dict[str, str]:
        scope = scope or "https://graph.microsoft.com/.default openid"
        tokens = await self.user_tokens(scope, upn=upn)
        return {"Authorization": f"Bearer {tokens['access_token']}"}

    # -------------------------------------------------------------- devices

    async def joined(self, upn: str, name: str = "LAB-001", join_type: int = 0) -> "Joined":
        redirect, scope = (
            oidc.BROKER_REDIRECT,
            f"openid profile {oidc.DEVICE_REGISTRATION}/.default",
        )
        tokens = await self.user_tokens(scope, upn=upn, client_id=oidc.BROKER, redirect=redirect)
        key = pki.generate_key("p256")
        request = pki.certificate_request(key, pki.name(name), ())
        answer = await self.join(tokens["access_token"], request, name, JoinType=join_type)
        assert answer.status_code == 200, answer.text
        return Joined(key, answer.json(), tokens["refresh_token"])

    async def join(self, token: str, request: bytes, name: str, **more: Any) -> httpx.Response:
        from cryptography import x509

        der = x509.load_pem_x509_csr(request).public_bytes(Encoding.DER)
        return await self.client.post(
            "/EnrollmentServer/device/?api-version=1.0",
            headers={"Authorization": f"Bearer {token}"},
            json={
                "CertificateRequest": {"Type": "pkcs10", "Data": base64.b64encode(der).decode()},
                "TargetDomain": "contoso.com",
                "DeviceType": "Windows",
                "OSVersion": "10.0.22631.1",
                "DeviceDisplayName": name,
                "JoinType": 0,
                **more,
            },
        )

    def assertion(self, device: "Joined", **changes: Any) -> str:
        claims = {
            "iss": device.device_id,
            "sub": device.device_id,
            "aud": f"{self.tokens.settings.base}/{self.tenant.id}/oauth2/v2.0/token",
            "iat": int(self.at.timestamp()),
            "exp": int(self.at.timestamp()) + 300,
            "jti": uuid.uuid4().hex,
            **changes,
        }
        header = {"alg": "ES256", "x5c": [device.answer["Certificate"]["RawBody"]]}
        return jwt.encode(header, claims, ECKey.import_key(pki.key_pem(device.key).decode()))


@dataclass
class Joined:
    key: pki.PrivateKey
    answer: dict[str, Any]
    refresh_token: str

    @property
    def device_id(self) -> str:
        return str(self.answer["DeviceId"])


def first_form(html: str) -> tuple[str, dict[str, str]]:
    form = re.search(r'<form method="post" action="([^"]+)">(.*?)</form>', html, re.DOTALL)
    assert form, html
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[2])
    return unescape(form[1]), {name: unescape(value) for name, value in hidden}


async def make_world(
    database: Database,
    routes: Any = None,
    base: str = BASE,
    now: datetime | None = None,
    authority: dict[str, Any] | None = None,
    passwords: directory.DirectorySettings = CHEAP,
    **parts: Any,
) -> World:
    """`authority` changes OidcSettings; `parts` are a keeper or conditions for its tokens."""
    box = SecretBox(bytes(32))
    # The log is written at once: tests read it next.
    settings = oidc.OidcSettings(public_url=base, sign_in_log_delay_seconds=0)
    tokens = oidc.Tokens(msgspec.structs.replace(settings, **(authority or {})), box, **parts)
    world = World(database, tokens, None, None)  # type: ignore[arg-type]
    world.at = now or world.at
    async with database.transaction() as tx:
        world.tenant = await directory.create_tenant(
            tx,
            name="Contoso",
            domain="contoso.com",
            administrator_upn=ADMIN,
            password=PASSWORD,
            now=world.at,
            settings=CHEAP,
        )
        await licensing.establish(tx, world.at)
        await oidc.establish(tx, tokens, world.at)
    served = list(oidc.routes(database, tokens, world.now, passwords))
    served += routes(world) if routes else []
    world.app = http.application(served, role="tenant")
    world.client = httpx.AsyncClient(
        transport=httpx.ASGITransport(world.app, raise_app_exceptions=True), base_url=base
    )
    return world


@asynccontextmanager
async def live(
    database: Database, folder: Path, authority: dict[str, Any] | None = None
) -> AsyncIterator[tuple[World, Path]]:
    """The tenant on a real port with TLS, in real time; and the root that clients trust."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    now = datetime.now(UTC)
    root = pki.new_root(pki.name("Test root"), now=now)
    key = pki.generate_key("p256")
    certificate = root.issue(
        key.public_key(),
        pki.name("localhost"),
        now=now,
        days=1,
        dns=["localhost"],
        usages=["server"],
    )
    (folder / "key.pem").write_bytes(pki.key_pem(key))
    (folder / "certificate.pem").write_bytes(pki.pem(certificate))
    (folder / "root.pem").write_bytes(pki.pem(root.certificate))
    world = await make_world(
        database,
        lambda here: graph.routes(
            here.database, here.tokens, utc_now, parts=graph.directory_parts(CHEAP)
        ),
        f"https://localhost:{port}",
        now,
        authority,
    )
    tls = http.TLS(folder / "certificate.pem", folder / "key.pem")
    stop = asyncio.Event()
    listener = http.Listener(world.app, "127.0.0.1", port, tls)
    serving = asyncio.create_task(http.serve([listener], stop, drain_seconds=1))
    try:
        context = ssl.create_default_context(cafile=str(folder / "root.pem"))
        async with httpx.AsyncClient(verify=context) as probing:
            for _ in range(200):
                try:
                    await probing.get(f"{world.tokens.settings.base}/common/discovery/keys")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
        yield world, folder / "root.pem"
    finally:
        await world.client.aclose()
        gc.collect()  # Clients that were dropped close their connections.
        await asyncio.sleep(0.2)
        stop.set()
        await serving
        await asyncio.sleep(0.2)
