"""The connection analyzer names the hop that is cut and its cure; each is cut for real here.

What a connection point does is in test_analyzed_gateway; here an instance is a listener of the
test's own, which shows what a test wants.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner

import site_world
from site_world import NAME, PFX_PASSWORD, Site, create, ready, until
from small_dns import SmallDns, small_dns
from tandem import pki
from tandem.cli.main import build
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.infra.net import Resolver

DEPLOYMENT = "mycmg.cloudapp.example"


@dataclass
class Authority:
    """A public authority of the test's own, and what it publishes on the web."""

    issuing: pki.Authority = field(
        default_factory=lambda: pki.new_root(pki.name("Public CA"), now=utc_now())
    )
    url: str = ""
    published: bytes | None = None

    def certificate(
        self, *, begins: int = 0, days: int = 30, names: Sequence[str] = (NAME,), crl_url: str = ""
    ) -> tuple[Any, x509.Certificate]:
        key = pki.generate_key()
        made = self.issuing.issue(
            key.public_key(), pki.name(names[0]), now=utc_now() + timedelta(days=begins),
            days=days, dns=names, usages=["server"], crl_url=crl_url,
        )  # fmt: skip
        return key, made

    def pfx(self, key: Any, certificate: x509.Certificate) -> bytes:
        chain = [self.issuing.certificate]
        return pki.pfx_export(key, certificate, chain, PFX_PASSWORD, NAME)

    def list(self, *revoked: int, hours: int = 24) -> bytes:
        now = utc_now()
        begin = now - timedelta(days=2)
        return self.issuing.crl(
            [(serial, begin) for serial in revoked],
            now=begin,
            next_update=now + timedelta(hours=hours),
            number=1,
        )


@asynccontextmanager
async def web(authority: Authority) -> AsyncIterator[None]:
    """What the authority publishes, by HTTP on this machine."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = authority.published
        head = "200 OK" if body is not None else "404 Not Found"
        content = body or b""
        writer.write(
            f"HTTP/1.1 {head}\r\nContent-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    authority.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/public.crl"
    async with server:
        yield


@asynccontextmanager
async def showing(
    site: Site, folder: Path, key: Any, *chain: x509.Certificate
) -> AsyncIterator[None]:
    """In the place of the instance: TLS with this certificate, and no HTTP."""
    (folder / "shown.pem").write_bytes(pki.pem(*chain))
    (folder / "shown.key").write_bytes(pki.key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "shown.pem", folder / "shown.key")
    async with _listening(site, context):
        yield


@asynccontextmanager
async def _listening(site: Site, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if context is None:
            writer.write(b"SSH-2.0-OpenSSH\r\n")
        with suppress(OSError):
            await reader.read(1)
        writer.transport.abort()

    here = site.cloud.gateways.settings.gateway
    server = await asyncio.start_server(answer, here.hosts[0], here.port, ssl=context)
    async with server:
        yield


async def rows(site: Site, *words: object) -> dict[str, dict[str, Any]]:
    found = await site.run("gateway", "analyze", *words)
    made = {item["check"]: item for item in found["checks"]}
    bad = [item for item in found["checks"] if item["state"] == "bad"]
    assert found["broken"] == (bad[0] if bad else None)
    for item in bad:
        assert item["text"], item
        assert item["cure"], item
        assert "%(" not in item["text"] + item["cure"]
    return made


@pytest.fixture
async def place(
    site_db: Database, tmp_path: Path
) -> AsyncIterator[tuple[Site, SmallDns, SmallDns]]:
    async with small_dns() as public, small_dns() as inside:
        views = {"public": Resolver(public.address), "inside": Resolver(inside.address)}
        async with site_world.site(site_db, tmp_path, **views) as site:  # type: ignore[arg-type]
            yield site, public, inside


async def test_a_wrong_name_is_told_of_outside_and_inside_apart(
    place: tuple[Site, SmallDns, SmallDns],
) -> None:
    site, public, inside = place
    await create(site)
    await until(site, ready)
    found = await rows(site)
    assert found["dns"]["cause"] == "dns.no-record"
    assert found["dns"]["cure"] == f"Add to your public DNS: {NAME}. CNAME {DEPLOYMENT}."
    assert found["dns-internal"]["cause"] == "dns-inside.no-record"
    assert found["dns-internal"]["cure"] == f"Add to your internal DNS: {NAME}. CNAME {DEPLOYMENT}."
    public.put(NAME, "CNAME", "elsewhere.example.")
    inside.put(NAME, "A", "127.0.0.99")
    found = await rows(site)
    assert "leads to elsewhere.example" in found["dns"]["text"]
    assert "to 127.0.0.99, and not to this gateway" in found["dns-internal"]["text"]
    public.put(NAME, "CNAME", f"{DEPLOYMENT}.")
    public.put(DEPLOYMENT, "A", "127.0.0.11")
    inside.put(NAME, "A", "127.0.0.11")
    found = await rows(site)
    assert found["dns"]["state"] == found["dns-internal"]["state"] == "good"


async def test_what_is_wrong_with_the_certificate_that_an_instance_shows(
    site: Site, tmp_path: Path
) -> None:
    public = Authority()
    key, own = public.certificate()
    await create(site, pfx=public.pfx(key, own))
    await until(site, ready)
    assert (await rows(site))["instance"]["cause"] == "probe.no-connection"
    async with _listening(site, None):
        found = await rows(site)
        assert found["instance"]["cause"] == "probe.no-tls"
        assert found["tls"]["state"] == "skipped"
    shown: dict[str, tuple[Any, x509.Certificate]] = {
        "probe.certificate-expired": public.certificate(begins=-60, days=30),
        "probe.certificate-early": public.certificate(begins=5),
        "probe.certificate-name": public.certificate(names=["other.contoso.com"]),
        "probe.certificate-unknown": Authority().certificate(),
        "probe.other-certificate": public.certificate(),
    }
    for cause, (other, certificate) in shown.items():
        async with showing(site, tmp_path, other, certificate):
            found = await rows(site)
        assert found["instance"]["state"] == "good", cause
        assert (found["tls"]["state"], found["tls"]["cause"]) == ("bad", cause)
        assert found["management-point"]["state"] == "skipped"
    assert NAME in found["tls"]["gateway"]
    async with showing(site, tmp_path, key, own):
        found = await rows(site)
    assert found["tls"]["state"] == "good"
    # It speaks TLS and no HTTP: the way ends there.
    assert found["configuration"]["cause"] == "probe.no-connection"


async def test_a_part_of_the_path_that_is_left_out_is_told(site: Site, tmp_path: Path) -> None:
    """What a browser that knows the missing part does not notice."""
    public = Authority()
    above = pki.generate_key()
    between = public.issuing.issue(
        above.public_key(), pki.name("Public issuing"), now=utc_now(), days=90, ca=True
    )
    issuing = pki.Authority(between, above)
    key = pki.generate_key()
    own = issuing.issue(
        key.public_key(), pki.name(NAME), now=utc_now(), days=30, dns=[NAME], usages=["server"]
    )
    chain = [between, public.issuing.certificate]
    await create(site, pfx=pki.pfx_export(key, own, chain, PFX_PASSWORD, NAME))
    await until(site, ready)
    async with showing(site, tmp_path, key, own, between):
        assert (await rows(site))["tls"]["state"] == "good"
    async with showing(site, tmp_path, key, own):
        assert (await rows(site))["tls"]["cause"] == "probe.certificate-unknown"


async def test_the_list_of_the_gateways_own_certificate_is_fetched_and_read(site: Site) -> None:
    public = Authority()
    async with web(public):
        key, own = public.certificate(crl_url=public.url)
        await create(site, pfx=public.pfx(key, own))
        await until(site, ready)

        async def said(published: bytes | None) -> dict[str, Any]:
            public.published = published
            return (await rows(site))["server-crl"]

        missing = await said(None)
        assert missing["cause"] == "server-crl.unreachable"
        assert f"{public.url} gives no revocation list: the answer is 404" in missing["text"]
        assert (await said(b"<html>"))["cause"] == "server-crl.wrong"
        assert (await said(Authority().list()))["cause"] == "server-crl.wrong"
        assert (await said(public.list(hours=-1)))["cause"] == "server-crl.expired"
        assert (await said(public.list(own.serial_number)))["cause"] == "server-crl.revoked"
        assert (await said(public.list()))["state"] == "good"
    assert (await rows(site))["server-crl"]["cause"] == "server-crl.unreachable"


async def test_a_list_that_is_in_a_directory_alone_is_no_use_outside(site: Site) -> None:
    public = Authority()
    key, own = public.certificate(crl_url="ldap:///CN=Public%20CA?certificateRevocationList")
    await create(site, pfx=public.pfx(key, own))
    await until(site, ready)
    assert (await rows(site))["server-crl"]["cause"] == "server-crl.no-web"


async def test_lists_of_clients_that_are_missing_or_over(site: Site) -> None:
    await create(site)
    await until(site, ready)
    clients = Authority(pki.new_root(pki.name("Clients' root"), now=utc_now()))
    root = site.folder / "clients.pem"
    root.write_bytes(pki.pem(clients.issuing.certificate))
    await site.run("management-point", "trust-root", root)
    found = (await rows(site))["crl"]
    assert (found["cause"], found["state"]) == ("crl.missing", "bad")
    assert "CN=Clients' root" in found["text"]
    for hours, cause, state in (
        (-1, "crl.expired", "bad"),
        (2, "crl.expires", "waiting"),
        (24 * 9, "", "good"),
    ):
        crl = site.folder / "clients.crl"
        crl.write_bytes(clients.list(hours=hours))
        await site.run("management-point", "add-crl", crl)
        found = (await rows(site))["crl"]
        assert (found["cause"], found["state"]) == (cause, state)


async def test_who_asks_is_judged_first_by_the_sites_own_rules(site: Site) -> None:
    await create(site)
    await until(site, ready)
    clients = Authority(pki.new_root(pki.name("Clients' root"), now=utc_now()))
    root, crl = site.folder / "clients.pem", site.folder / "clients.crl"
    root.write_bytes(pki.pem(clients.issuing.certificate))
    await site.run("management-point", "trust-root", root)

    def client(of: Authority, **changes: Any) -> tuple[Path, x509.Certificate]:
        key = pki.generate_key()
        values: dict[str, Any] = {"now": utc_now(), "days": 30, "usages": ["client"], **changes}
        made = of.issuing.issue(key.public_key(), pki.name("PC-1"), **values)
        file = site.folder / f"{made.serial_number}.pfx"
        file.write_bytes(pki.pfx_export(key, made, [], PFX_PASSWORD, "PC-1"))
        return file, made

    password = site.secret("p", PFX_PASSWORD)
    revoked, its = client(clients)
    crl.write_bytes(clients.list(its.serial_number))
    await site.run("management-point", "add-crl", crl)
    for file, cause in (
        (revoked, "identity.certificate-revoked"),
        (client(Authority())[0], "identity.certificate-unknown"),
        (client(clients, now=utc_now() - timedelta(days=60))[0], "identity.certificate-expired"),
        (client(clients, usages=["server"])[0], "identity.certificate"),
        (client(clients)[0], ""),
    ):
        found = (await rows(site, "--client-pfx", file, "--password-file", password))["identity"]
        assert found["cause"] == cause
        assert found["source"]["kind"] == "device"
    found = (await rows(site, "--token-file", site.secret("t", "no.token.this")))["identity"]
    assert found["cause"] == "identity.token"
    assert "connected tenant" in found["cure"]


async def test_people_read_where_it_is_cut_and_what_to_do(site: Site) -> None:
    """Rows come one by one; the last words are the first broken hop."""
    await create(site)
    await until(site, ready)
    said = await asyncio.to_thread(CliRunner().invoke, build(), ["gateway", "analyze"])
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert "good     State of the gateway: mycmg.contoso.com" in lines
    assert f"A device's way is cut here: Public name, {NAME}." in lines
    assert lines[-1] == f"→ Add to your public DNS: {NAME}. CNAME {DEPLOYMENT}."
    refused = await asyncio.to_thread(CliRunner().invoke, build(), ["gateway", "analyze", "x.y.z"])
    assert refused.exit_code == 1
    assert "Traceback" not in refused.output
