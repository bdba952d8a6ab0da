"""The site as the process that an administrator runs: killed, alone without its tenant, looked into."""

import asyncio
import hashlib
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cryptography import x509

import tenant_world
from site_world import NAME, PASSWORD, PFX_PASSWORD, Commands, admin, connect, free_ports, pfx
from tandem import pki
from tandem.cli import context, sign_in
from tandem.infra import config
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.infra.secrets import write_private
from tandem.protocols import ccm

pytestmark = pytest.mark.slow


@dataclass
class Role:
    """`tandem site run`, with the commands of an administrator beside it."""

    db: Database
    folder: Path
    ports: tuple[int, int, int]
    settings: Path
    commands: Commands
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.ports[0]}"

    @property
    def management_point(self) -> str:
        return f"https://localhost:{self.ports[1]}"

    @property
    def root(self) -> Path:
        return self.folder / "site" / "tls" / "site-root.pem"

    def secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        write_private(path, text.encode())
        return path

    async def run(self, *words: object) -> Any:
        return await self.commands.run(*words)

    async def refusal(self, *words: object) -> Any:
        return await self.commands.refusal(*words)

    async def start(self) -> None:
        with (self.folder / "site.out").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tandem.cli", "site", "run", "--config", str(self.settings)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(600):
                assert self.process.poll() is None, (self.folder / "site.out").read_text()[-3000:]
                try:
                    url = f"http://127.0.0.1:{self.ports[2]}/readyz"
                    if (await client.get(url)).status_code == 200:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        raise AssertionError("The site was not ready in time.")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def sign_in(self) -> None:
        await self.run(*self.own_sign_in(PASSWORD))

    def own_sign_in(self, password: str) -> tuple[object, ...]:
        file = self.secret("site-password", password)
        return ("sign-in", "site", self.url, "--user", "siteadmin", "--password-file", file)


@asynccontextmanager
async def role(
    db: Database,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tenant: str = "https://localhost:1",
    tenant_ca: Path | None = None,
) -> AsyncIterator[Role]:
    first = free_ports(3)
    ports = (first, first + 1, first + 2)
    write_private(folder / "first-password", PASSWORD.encode())
    table: dict[str, Any] = {
        "state": str(folder / "site"),
        "dsn": db.dsn,
        "site_code": "CM1",
        "site_name": "Contoso",
        "port": ports[0],
        "management_point_port": ports[1],
        "health_port": ports[2],
        "logs": str(folder / "logs"),
        "sign_in": {"password_memory_kib": 64, "password_passes": 1},
        "first": {"administrator": "siteadmin", "password_file": str(folder / "first-password")},
        "cloud": {
            "management_point_url": f"https://localhost:{ports[1]}",
            "folder": str(folder / "gateways"),
            "environment": {"authority": tenant, "graph": f"{tenant}/v1.0"},
            "gateway": {
                "hosts": ["127.0.0.11", "127.0.0.12"],
                "port": free_ports(),
                "tunnel_port": free_ports(2),
                "health_port": free_ports(2),
                "check_seconds": 0.5,
            },
        },
    }
    if tenant_ca is not None:
        table["ca_file"] = str(tenant_ca)
    write_private(folder / "site.toml", config.toml(table).encode())
    made = Role(db, folder, ports, folder / "site.toml", Commands())
    monkeypatch.setenv("TANDEM_PROFILE", str(folder / "profile" / "profile.toml"))
    (folder / "profile").mkdir(mode=0o700)
    try:
        await made.start()
        trusted = folder / "trusted.pem"
        trusted.write_bytes(made.root.read_bytes() + (tenant_ca.read_bytes() if tenant_ca else b""))
        context.save_profile(context.Profile(site_url=made.url, tenant_url=tenant, ca_file=trusted))
        await made.sign_in()
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.terminate()
            await asyncio.to_thread(made.process.wait)
        for process in _instances(made):
            process.kill()


def _instances(role: Role) -> list[psutil.Process]:
    """The gateway's processes: those whose settings lie in this site's folder."""
    mine = str(role.folder / "gateways")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(mine in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


async def test_site_systems_answer_with_certificates_of_the_issuing_root_and_give_the_client_out(
    site_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with role(site_db, tmp_path, monkeypatch) as site:
        shown = await site.run("site", "show")
        assert shown["enhanced_http"]
        (root,) = pki.read_certificates(shown["issuing_root"]["certificate"].encode())
        for port in site.ports[:2]:
            served = await asyncio.to_thread(_served, port, site.root)
            served.verify_directly_issued_by(root)
        trust = ssl.create_default_context(cafile=str(site.root))
        async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=60) as web:
            file = await web.get(f"{site.url}/bin/i386/ccmsetup.msi")
            package = await site.run("client", "package", "--output", site.folder / "x.msi")
            assert hashlib.sha256(file.content).hexdigest() == package["sha256"]
            assert (site.folder / "x.msi").read_bytes() == file.content
            sealed = (await web.get(f"{site.management_point}/CCM_Client/manifest")).text
            manifest = ccm.open_manifest(sealed, root, utc_now())
            assert (manifest.site_code, manifest.sha256) == ("CM1", package["client"]["sha256"])
            client = await web.get(f"{site.management_point}/CCM_Client/{manifest.sha256}")
            assert hashlib.sha256(client.content).hexdigest() == manifest.sha256
            scripts = await web.get(
                f"{site.url}/AdminService/wmi/SMS_Site", auth=("siteadmin", PASSWORD)
            )
            assert [item["SiteCode"] for item in scripts.json()["value"]] == ["CM1"]
            door = f"{site.management_point}/AdminService_Gateway/{NAME}/ServerAuth/wmi/SMS_Site"
            closed = (await web.get(door)).json()["error"]["code"]
            assert closed == "adminservice.not-published"
            nowhere = await web.get(f"{site.management_point}/AdminService/wmi/SMS_Site")
            assert nowhere.json()["error"]["code"] == "http.not-found"
            stranger = pki.new_root(pki.name("SMS Issuing"), now=utc_now()).certificate
            with pytest.raises(ccm.BadDocument):
                ccm.open_manifest(sealed, stranger, utc_now())


async def test_the_management_point_comes_and_goes_with_enhanced_http_and_renews_while_it_runs(
    site_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with role(site_db, tmp_path, monkeypatch) as site:
        point = site.ports[1]

        async def state(wanted: str) -> dict[str, Any]:
            for _ in range(200):
                shown = await site.run("site", "properties", "show")
                if shown["management_point"]["state"] == wanted:
                    return dict(shown["management_point"])
                await asyncio.sleep(0.1)
            raise AssertionError(shown)

        first = await state("answers")
        assert pki.sha256_fingerprint(_served(point, site.root)) == first["sha256"]
        await site.run("site", "renew", "role:site-systems")
        await state("answers")
        for _ in range(100):
            served = pki.sha256_fingerprint(await asyncio.to_thread(_served, point, site.root))
            if served != first["sha256"]:
                break
            await asyncio.sleep(0.1)
        assert served == (await state("answers"))["sha256"]
        await site.run("site", "properties", "set", "--no-enhanced-http")
        for _ in range(100):
            try:
                await asyncio.to_thread(_served, point, site.root)
            except ConnectionRefusedError:
                break
            await asyncio.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            _served(point, site.root)
        assert await site.run("site", "show")  # The admin API goes on.
        await site.run("site", "properties", "set", "--enhanced-http")
        again = await state("answers")
        assert pki.sha256_fingerprint(_served(point, site.root)) == again["sha256"]


def _served(port: int, root: Path) -> x509.Certificate:
    import socket

    trust = ssl.create_default_context(cafile=str(root))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return x509.load_der_x509_certificate(secure.getpeercert(True) or b"")


async def test_what_a_global_administrator_gives_is_kept_nowhere_and_gateways_outlive_the_site(
    site_db: Database, tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step with a sign-in at the tenant; then the site is killed; then the tenant is gone."""
    given = _watch_sign_ins(monkeypatch)
    (tmp_path / "tenant").mkdir()
    async with tenant_world.live(tenant_db, tmp_path / "tenant") as (world, ca):
        base = world.tokens.settings.base
        async with role(site_db, tmp_path, monkeypatch, base, ca) as site:
            created = await _every_step(site, world)
            _nothing_kept(site, given, await _database(site))
            pids = [node["pid"] for node in created["nodes"]]

            site.kill()
            assert all(psutil.pid_exists(pid) for pid in pids)
            await site.start()
            found = await site.run("gateway", "show", NAME)
            assert (found["state"], [node["pid"] for node in found["nodes"]]) == ("Ready", pids)
            assert sorted(process.pid for process in _instances(site)) == sorted(pids)

            await site.run("discovery", "run")
            account = ("--upn", tenant_world.ADMIN, "--tenant-id", world.tenant.id)
            await site.run("administrator", "add", "Alex", "--role", "read-only-analyst", *account)
            file = site.secret("tenant-password", tenant_world.PASSWORD)
            words = ("sign-in", "site", "--with-tenant", "--user", tenant_world.ADMIN)
            who = (await site.run(*words, "--password-file", file))["administrator"]
            assert (who["name"], who["role"]) == ("Alex", "Read-only Analyst")
            await _without_the_tenant(site, monkeypatch, (*words, "--password-file", file))


async def _without_the_tenant(
    site: Role, monkeypatch: pytest.MonkeyPatch, with_tenant: tuple[object, ...]
) -> None:
    """The site's own account is the way in when the tenant's address leads nowhere."""
    site.kill()
    settings = site.settings.read_text()
    here = context.profile()
    site.settings.write_text(settings.replace(here.tenant_url, "https://localhost:1"))
    await site.start()
    away = {name: getattr(here, name) for name in here.__struct_fields__}
    context.save_profile(context.Profile(**{**away, "tenant_url": "https://localhost:1"}))
    refused = await site.refusal(*with_tenant)
    assert refused.code == "cli.not-reachable"
    await site.sign_in()
    assert (await site.run("gateway", "show", NAME))["state"] == "Ready"
    refused = await site.refusal("discovery", "run")
    assert refused.code == "tenant.unreachable"
    assert "does not answer" in refused.message
    refused = await site.refusal(*site.own_sign_in("wrong"))
    assert refused.code == "site.sign-in-failed"


def _watch_sign_ins(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every token that the tenant gives to a command, as it is given."""
    given: list[str] = []
    real = sign_in._sign_in

    def watched(*arguments: Any) -> dict[str, Any]:
        answer = real(*arguments)
        given.extend(str(answer[n]) for n in ("access_token", "refresh_token") if n in answer)
        return answer

    monkeypatch.setattr(sign_in, "_sign_in", watched)
    return given


async def _every_step(site: Role, world: tenant_world.World) -> dict[str, Any]:
    await connect(site)  # type: ignore[arg-type]
    who = admin(site)  # type: ignore[arg-type]
    await site.run("azure-service", "renew-secret", *who)
    await site.run("mdm-authority", "set")
    file = site.folder / "cmg.pfx"
    file.write_bytes(pfx(NAME, "localhost"))
    password = site.secret("pfx-password", PFX_PASSWORD)
    words = ("gateway", "create", "--pfx", file, "--password-file", password, "--instances", 2)
    created: dict[str, Any] = await site.run(*words, *who)
    assert created["state"] == "Ready"
    await site.run("management-point", "set", "--allow-gateway-traffic")
    await site.run("comanagement", "enable", "--automatic-enrollment", "all", *who)
    shown = await site.run("comanagement", "show", "--command-line")
    assert "SMSSITECODE=CM1" in shown["command_line"]
    return created


def _nothing_kept(site: Role, given: list[str], database: bytes) -> None:
    """Neither password nor token, nor a part of one, in database, logs, settings and what the
    processes said."""
    assert len(given) >= 5  # Two apps, the secret, the gateway, co-management.
    places = [site.folder / name for name in ("site", "logs", "gateways", "site.out")]
    kept = database
    for place in places:
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.is_file():
                kept += path.read_bytes()
    for process in [psutil.Process(site.process.pid if site.process else 0), *_instances(site)]:
        kept += "\0".join([*process.cmdline(), *process.environ().values()]).encode()
    assert b"siteadmin" in kept  # We do see what is kept.
    assert tenant_world.PASSWORD.encode() not in kept
    for token in given:
        for part in {token, *token.split(".")}:
            if len(part) > 40:
                assert part.encode() not in kept


async def _database(site: Role) -> bytes:
    """Every row as text, bytes included, and the database's own files."""
    async with site.db.transaction() as tx:
        await tx.execute("SET LOCAL bytea_output = 'escape'")
        names = await tx.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = b""
        for row in await names.fetchall():
            rows = await tx.execute(f'SELECT t::text AS row FROM "{row["tablename"]}" t'.encode())
            found += "\n".join([line["row"] async for line in rows]).encode()
        where = await (
            await tx.execute(
                "SELECT current_setting('data_directory') || '/base/' || oid AS folder"
                " FROM pg_database WHERE datname = current_database()"
            )
        ).fetchone()
    assert where is not None
    folder = Path(where["folder"])
    if os.access(folder, os.R_OK):
        for path in folder.iterdir():
            found += path.read_bytes()
    return found
