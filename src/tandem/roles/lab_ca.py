"""The lab's "public CA": a root, an intermediate, and certificates for requests over HTTP.

It checks no domain and serves the lab alone. Besides the names of a request, certificates carry the
loopback names under which the lab is reached, as `lab.json` promises.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tandem import pki
from tandem.infra import config, http, logs
from tandem.infra.clock import utc_now
from tandem.infra.config import Settings
from tandem.infra.process import run_role
from tandem.infra.secrets import private_folder, write_private


class LabCaSettings(Settings, frozen=True):
    state: Path
    host: str = "127.0.0.1"
    port: int = 0
    # Addresses that every certificate carries besides the names asked for.
    addresses: list[str] = []
    logs: Path | None = None


class LabCa:
    """The authority, kept in a folder."""

    def __init__(self, folder: Path, addresses: list[str]) -> None:
        self._folder = private_folder(folder)
        self._addresses = addresses
        now = datetime.now(UTC)
        if (folder / "issuing.key").exists():
            self._issuing: pki.Authority = _load(folder)
            return
        root = pki.new_root(pki.name("Lab Public Root CA"), now=now, days=3650)
        key = pki.generate_key()
        certificate = root.issue(
            key.public_key(),
            pki.name("Lab Public Issuing CA"),
            now=now,
            days=1825,
            ca=True,
            path_length=0,
        )
        self._issuing = pki.Authority(certificate, key, (root.certificate,))
        write_private(folder / "root.pem", pki.pem(root.certificate))
        write_private(folder / "issuing.pem", pki.pem(certificate))
        write_private(folder / "issuing.key", pki.key_pem(key))

    @property
    def root(self) -> bytes:
        return pki.pem(*self._issuing.chain)

    def issue(self, data: bytes) -> bytes:
        """Leaf, intermediate and root in PEM. Raises BadRequest."""
        request = pki.read_request(data)
        try:
            asked = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = asked.get_values_for_type(x509.DNSName)
            addresses = [str(item) for item in asked.get_values_for_type(x509.IPAddress)]
        except x509.ExtensionNotFound:
            attributes = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            names, addresses = [str(item.value) for item in attributes], []
        leaf = self._issuing.issue(
            request.public_key(),  # type: ignore[arg-type]
            request.subject,
            now=utc_now(),
            days=365,
            dns=dict.fromkeys([*names, "localhost"]),
            ips=dict.fromkeys([*addresses, *self._addresses]),
            usages=["server"],
        )
        return pki.pem(leaf, self._issuing.certificate, *self._issuing.chain)


def _load(folder: Path) -> pki.Authority:
    read = {
        name: x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        for name in ("issuing", "root")
    }
    key = pki.load_key((folder / "issuing.key").read_bytes())
    return pki.Authority(read["issuing"], key, (read["root"],))


def run(path: Path) -> None:
    settings = config.load(path, LabCaSettings)
    logs.configure("public-ca", settings.logs)
    run_role(lambda stop: _main(settings, stop))


async def _main(settings: LabCaSettings, stop: asyncio.Event) -> None:
    authority = LabCa(settings.state, settings.addresses)

    async def issue(request: Request) -> Response:
        chain = authority.issue(await http.body(request))
        return Response(chain, 201, media_type="application/x-pem-file")

    async def root(_: Request) -> Response:
        return Response(authority.root, media_type="application/x-pem-file")

    async def ready(_: Request) -> Response:
        return http.reply({"ok": True})

    routes: list[Any] = [
        Route("/certificates", issue, methods=["POST"]),
        Route("/root.pem", root, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]
    app = http.application(routes, role="public-ca")
    await http.serve([http.Listener(app, settings.host, settings.port)], stop)
