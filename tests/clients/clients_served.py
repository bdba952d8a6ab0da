"""A tenant on a real port with TLS, in a process's own time, for clients that nobody adapted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from tandem import pki
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.tenant import oidc
from tenant_world import ADMIN, PASSWORD, World, live

ROLES = ("User.Read.All", "Group.Read.All", "Application.Read.All")


@dataclass
class Served:
    """Where the tenant is, and whom it knows."""

    world: World
    root: Path
    app_id: str
    secret: str
    web_id: str
    web_secret: str
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    folder: Path

    @property
    def base(self) -> str:
        return self.world.tokens.settings.base

    @property
    def authority(self) -> str:
        return f"{self.base}/{self.world.tenant.id}"

    @property
    def tenant_id(self) -> str:
        return self.world.tenant.id

    @property
    def upn(self) -> str:
        return ADMIN

    @property
    def password(self) -> str:
        return PASSWORD

    @property
    def key_pem(self) -> str:
        raw = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return raw.decode()

    @property
    def certificate_pem(self) -> str:
        return pki.pem(self.certificate).decode()

    def pfx(self, password: str) -> Path:
        path = self.folder / "app.pfx"
        path.write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"app",
                self.key,
                self.certificate,
                None,
                BestAvailableEncryption(password.encode()),
            )
        )
        return path

    def pem(self) -> Path:
        path = self.folder / "app.pem"
        path.write_text(self.key_pem + self.certificate_pem)
        return path


@asynccontextmanager
async def serve(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Served]:
    made: Any = pki.new_root(pki.name("script"), now=utc_now(), days=30, key="rsa2048")
    authority = {"password_grant": True, "device_code_interval_seconds": 1}
    async with live(tenant_db, tmp_path, authority) as (world, root):
        async with world.database.transaction() as tx:
            graph = await oidc.applications.application(tx, oidc.GRAPH)
            needed = [
                {"id": role["id"], "type": "Role"}
                for role in graph.app_roles
                if role["value"] in ROLES
            ]
            needed += [
                {"id": scope["id"], "type": "Scope"}
                for scope in graph.scopes
                if scope["value"] == "User.Read"
            ]
            access = ({"resourceAppId": oidc.GRAPH, "resourceAccess": needed},)
            app = await oidc.applications.create_application(
                tx, "Script", world.at, required_access=access
            )
            _, secret = await oidc.applications.add_secret(tx, app.id, world.at)
            der = made.certificate.public_bytes(Encoding.DER)
            await oidc.applications.add_certificate(tx, app.id, der)
            await oidc.admin_consent(tx, app.id, world.at)
            web = await oidc.applications.create_application(
                tx,
                "Web",
                world.at,
                required_access=access,
                web_redirect_uris=("https://web.example/back",),
            )
            _, web_secret = await oidc.applications.add_secret(tx, web.id, world.at)
            await oidc.admin_consent(tx, web.id, world.at)
        yield Served(
            world,
            root,
            app.app_id,
            secret,
            web.app_id,
            web_secret,
            made.key,
            made.certificate,
            tmp_path,
        )
