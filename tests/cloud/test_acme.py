"""A gateway's certificate by ACME: Debian's Pebble as the authority, the proof in a DNS zone."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from msgspec.structs import replace

import site_world
from browsing import browsing
from site_world import NAME, PASSWORD, Site, free_ports, ready, shown, until
from small_dns import SmallDns, small_dns
from tandem import pki
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.infra.net import Resolver
from tandem.site.cloud_services import AcmeSettings, GatewayInstance, certificates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

TSIG = "site."
PROOF = f"_acme-challenge.{NAME}"


@dataclass
class Pebble:
    directory: str
    management: str
    root_file: Path

    async def root(self) -> x509.Certificate:
        """Which it made for this run."""
        tls = ssl.create_default_context(cafile=str(self.root_file))
        async with httpx.AsyncClient(verify=tls, trust_env=False) as web:
            answer = await web.get(f"{self.management}/roots/0")
        return x509.load_pem_x509_certificate(answer.content)


@contextmanager
def pebble(folder: Path, dns: SmallDns, **settings: Any) -> Iterator[Pebble]:
    if shutil.which("pebble") is None:
        why = "pebble is not installed: tools/packages.sh pebble."
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    root = pki.new_root(pki.name("Authority's own root"), now=utc_now())
    key = pki.generate_key("p256")
    leaf = root.issue(
        key.public_key(), pki.name("localhost"), now=utc_now(), days=1, dns=["localhost"],
        usages=["server"],
    )  # fmt: skip
    (folder / "pebble.pem").write_bytes(pki.pem(leaf))
    (folder / "pebble.key").write_bytes(pki.key_pem(key))
    (folder / "pebble-root.pem").write_bytes(pki.pem(root.certificate))
    port, management = free_ports(), free_ports()
    table = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "pebble.pem"),
        "privateKey": str(folder / "pebble.key"),
        "httpPort": 1,
        "tlsPort": 1,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        **settings,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": table}))
    with (folder / "pebble.out").open("wb") as output:
        process = subprocess.Popen(
            ["pebble", "-config", folder / "pebble.json", "-dnsserver", dns.address],
            env={
                **os.environ,
                "PEBBLE_VA_NOSLEEP": "1",
                "PEBBLE_WFE_NONCEREJECT": "0",
                "PEBBLE_AUTHZREUSE": "0",
            },
            stdout=output,
            stderr=output,
        )
    try:
        _listens(process, port, folder / "pebble.out")
        yield Pebble(
            f"https://localhost:{port}/dir",
            f"https://localhost:{management}",
            folder / "pebble-root.pem",
        )
    finally:
        process.terminate()
        process.wait()


def _listens(process: "subprocess.Popen[bytes]", port: int, output: Path) -> None:
    while True:
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        assert process.poll() is None, output.read_text()
        time.sleep(0.02)


@dataclass
class Desk:
    """The site, its authority, and the zone where proofs are shown."""

    site: Site
    authority: Pebble
    zone: SmallDns

    def use(self, **changes: Any) -> None:
        orders = self.site.cloud.orders
        orders.settings = replace(orders.settings, **changes)


@pytest.fixture
async def desk(site_db: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    secret = secrets.token_bytes(32)
    (tmp_path / "tsig").write_text(b64encode(secret).decode())
    (tmp_path / "tsig").chmod(0o600)
    async with small_dns(keys={TSIG: secret}, zone="contoso.com") as zone:
        with pebble(tmp_path, zone) as authority:
            settings = AcmeSettings(
                directory=authority.directory,
                agree_to_terms=True,
                contact="pki@contoso.com",
                ca_file=authority.root_file,
                dns_server=zone.address,
                tsig_name=TSIG,
                tsig_key_file=tmp_path / "tsig",
                wait_seconds=20,
            )
            public = Resolver(zone.address)
            async with site_world.site(site_db, tmp_path, acme=settings, public=public) as site:
                yield Desk(site, authority, zone)


async def _gateway(desk: Desk) -> dict[str, Any]:
    """A gateway with what was issued, as the API makes it of the site's own store."""
    site = desk.site
    async with site.db.transaction() as tx:
        item, made = await certificates.pfx_of(tx, site.box, NAME, "once")
        await site.cloud.gateways.create(
            tx, pfx=made, password="once", tenant_id="t1", acme=item.acme, actor="siteadmin"
        )
    return await until(site, ready)


async def test_it_is_ordered_proved_in_dns_and_renewed_while_the_gateway_runs(desk: Desk) -> None:
    site = desk.site
    made = await site.run("certificate", "request", NAME, "--acme")
    assert (made["state"], made["problem"], made["acme"]) == ("complete", "", True)
    assert desk.zone.updates == [f"+ {PROOF}", f"- {PROOF}"]
    assert (PROOF, "TXT") not in desk.zone.records
    gateway = await _gateway(desk)
    assert gateway["acme"]
    async with site.db.transaction() as tx:
        first = await site.cloud.gateways.certificate(tx, NAME)
    path = pki.build_path(first.certificate, [*first.chain, await desk.authority.root()])
    assert path.complete
    # Nothing is due yet; ten days before its end it is.
    await site.cloud.orders.tend()
    assert len(desk.zone.updates) == 2
    await _ends_soon(site)
    await site.cloud.orders.tend()
    async with site.db.transaction() as tx:
        second = await site.cloud.gateways.certificate(tx, NAME)
        assert len(await site.cloud.gateways.gateways(tx)) == 1
    assert not pki.same_key(second.certificate.public_key(), first.key)  # type: ignore[arg-type]
    wanted = pki.sha256_fingerprint(second.certificate)
    node = {name: gateway["nodes"][0][name] for name in GatewayInstance.__dataclass_fields__}
    provider = site.cloud.gateways.providers["Tandem"]
    async with asyncio.timeout(10):
        while (await provider.look(GatewayInstance(**node), 2.0)).certificate != wanted:
            await asyncio.sleep(0.05)
    found = await shown(site)
    assert (found["nodes"][0]["pid"], found["renewal_reason"]) == (node["pid"], "")
    # Of the copies that the site works with the newest is left.
    assert [item["state"] for item in await site.run("certificate", "list")] == ["complete"]


async def _ends_soon(site: Site) -> None:
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_gateway SET expires_at = now() + interval '10 days'")


async def test_why_it_is_not_issued_is_said_and_it_is_tried_again(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    site, good = desk.site, desk.site.cloud.orders.settings
    (site.folder / "wrong").write_text(b64encode(b"another secret").decode())
    (site.folder / "wrong").chmod(0o600)
    (site.folder / "open").write_bytes((site.folder / "tsig").read_bytes())
    (site.folder / "open").chmod(0o644)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"directory": "https://localhost:1/dir"}, "cannot be spoken with"),
        ({"ca_file": None}, "cannot be spoken with"),
        ({"dns_server": "127.0.0.1:1"}, "took no update of contoso.com"),
        ({"tsig_key_file": site.folder / "wrong"}, "127.0.0.1"),
        ({"tsig_key_file": site.folder / "open"}, "Others can read the TSIG key"),
        ({"tsig_key_file": None}, "refused to set _acme-challenge.mycmg.contoso.com"),
        ({"zone": "fabrikam.com"}, "refused to set"),
        ({"tsig_algorithm": "md5"}, "no TSIG algorithm 'md5'"),
    ]
    for number, (changes, says) in enumerate(cases):
        desk.use(**changes)
        words = ("request", NAME, "--acme") if number == 0 else ("order", NAME)
        refused = await site.refusal("certificate", *words)
        assert refused.code == "certificate.acme"
        assert says in refused.message, (changes, refused.message)
        site.cloud.orders.settings = good
    # The authority looks where the record is not: it says so, and nothing stays behind.
    for kind in ("+", "-"):
        assert desk.zone.updates.count(f"{kind} {PROOF}") == 0
    made = await site.run("certificate", "order", NAME)
    assert (made["state"], made["problem"]) == ("complete", "")
    said = capsys.readouterr().out
    assert "certificate not issued" in said
    assert b64encode(b"another secret").decode() not in said
    assert (site.folder / "tsig").read_text() not in said
    desk.use(agree_to_terms=False)
    assert (await site.refusal("certificate", "request", NAME, "--acme")).code == (
        "certificate.acme-off"
    )


async def test_a_renewal_that_fails_is_a_reason_of_the_gateway(desk: Desk) -> None:
    site = desk.site
    await site.run("certificate", "request", NAME, "--acme")
    await _gateway(desk)
    desk.use(dns_server="127.0.0.1:1")
    await _ends_soon(site)
    await site.cloud.orders.tend()
    found = await shown(site)
    assert "took no update of contoso.com" in found["renewal_reason"]
    assert found["state"] == "Ready"
    tried = found["renewal_tried_at"]
    await site.cloud.orders.tend()
    assert (await shown(site))["renewal_tried_at"] == tried, "an hour later, and not at once"
    assert len(await site.run("certificate", "list")) == 1
    # By hand it goes on, and nobody orders any more.
    await site.run("gateway", "set", "--no-acme")
    desk.use(retry_seconds=0.0)
    await site.cloud.orders.tend()
    assert (await shown(site))["renewal_tried_at"] == tried


async def test_a_proof_may_lie_in_another_zone(desk: Desk) -> None:
    """Of which an alias in the organisation's own tells: that one need not be open to updates."""
    site, zone = desk.site, desk.zone
    zone.put(PROOF, "CNAME", "mycmg.proofs.example.")
    zone.zone = "proofs.example"
    desk.use(zone="proofs.example")
    made = await site.run("certificate", "request", NAME, "--acme")
    assert made["state"] == "complete"
    assert zone.updates == ["+ mycmg.proofs.example", "- mycmg.proofs.example"]


async def test_an_account_made_elsewhere_is_bound(site_db: Database, tmp_path: Path) -> None:
    """Authorities of organisations ask for it (RFC 8555, 7.3.4)."""
    mac = urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    (tmp_path / "mac").write_text(mac)
    async with small_dns(zone="contoso.com", keys={TSIG: b"secret"}) as zone:
        (tmp_path / "tsig").write_text(b64encode(b"secret").decode())
        (tmp_path / "tsig").chmod(0o600)
        bound = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {"k1": mac}}
        with pebble(tmp_path, zone, **bound) as authority:
            settings = AcmeSettings(
                directory=authority.directory,
                agree_to_terms=True,
                ca_file=authority.root_file,
                dns_server=zone.address,
                tsig_name=TSIG,
                tsig_key_file=tmp_path / "tsig",
            )
            public = Resolver(zone.address)
            async with site_world.site(site_db, tmp_path, acme=settings, public=public) as site:
                refused = await site.refusal("certificate", "request", NAME, "--acme")
                assert "externalAccountRequired" in refused.message
                site.cloud.orders.settings = replace(
                    settings,
                    external_account_id="k1",
                    external_account_key_file=tmp_path / "mac",
                )
                made = await site.run("certificate", "order", NAME)
                assert made["state"] == "complete"


async def test_the_wizard_orders_it_and_says_why_it_did_not_come(desk: Desk) -> None:
    site = desk.site
    async with browsing(site.app, "siteadmin", PASSWORD) as browser:
        await browser.open("/console/certificates")
        await browser.follow("Request a certificate")
        await browser.press("Next", prefix="mycmg", domain="contoso.com")
        good = site.cloud.orders.settings
        desk.use(agree_to_terms=False)
        await browser.press("Make key and request", acme="1")
        assert "Nobody has agreed to the terms of the ACME authority." in browser.main
        site.cloud.orders.settings = good
        desk.use(zone="fabrikam.com")
        await browser.press("Make key and request", acme="1")
        await _decided(site)
        await browser.press("Next")
        assert browser.answer.status_code == 422
        assert "The authority has not issued the certificate of mycmg.contoso.com yet." in (
            browser.main
        )
        assert "refused to set _acme-challenge.mycmg.contoso.com in fabrikam.com" in browser.main
        # It is also said where the request waits, and the wizard goes on from there.
        wizard = browser.url
        await browser.open("/console/certificates")
        await browser.follow("mycmg.contoso.com")
        assert "The authority has not issued it" in browser.main
        site.cloud.orders.settings = good
        await browser.open(wizard)
        await browser.press("Order it once more")
        assert "The certificate of mycmg.contoso.com is ordered once more." in browser.main
        await _decided(site)
        part = await browser.client.get(f"{await _page_of(site)}/order")
        assert "The authority has issued it" in part.text
        assert "hx-get" not in part.text
        await browser.open(wizard)
        await browser.press("Next")
        assert "Import" not in browser.text
        await browser.press("Next", password="once-only", again="once-only")
        await browser.press("Next")
        assert "tandem certificate request mycmg.contoso.com --acme" in browser.main
        assert "certificate import" not in browser.main
        await browser.press("Done")
        assert browser.facts()["Ordered by ACME"] == "Yes"
    assert desk.zone.updates == [f"+ {PROOF}", f"- {PROOF}"]


async def _page_of(site: Site) -> str:
    (found,) = await site.run("certificate", "list")
    return f"/console/certificates/{found['id']}"


async def _decided(site: Site) -> None:
    """The order is a job of the background: until it has ended, one way or the other."""
    async with asyncio.timeout(30):
        while True:
            (found,) = await site.run("certificate", "list")
            if found["problem"] or found["state"] == "complete":
                return
            await asyncio.sleep(0.05)


async def test_the_wizard_takes_an_asterisk(site: Site) -> None:
    async with browsing(site.app, "siteadmin", PASSWORD) as browser:
        await browser.open("/console/wizards/gateway-certificate")
        await browser.press("Next", prefix="*", domain="contoso")
        assert "is not a public domain" in browser.main
        await browser.press("Next", prefix="*", domain="contoso.com")
        await browser.press("Make key and request")
        assert "The key of *.contoso.com is on the site server" in browser.main


async def test_a_wildcard_is_proved_at_its_domain(desk: Desk) -> None:
    site = desk.site
    made = await site.run("certificate", "request", "*.contoso.com", "--acme")
    assert (made["state"], made["problem"]) == ("complete", "")
    at = "_acme-challenge.contoso.com"
    assert desk.zone.updates == [f"+ {at}", f"- {at}"]
    # Of a gateway below it, by its name.
    async with site.db.transaction() as tx:
        item, made_pfx = await certificates.pfx_of(tx, site.box, "*.contoso.com", "once")
        await site.cloud.gateways.create(
            tx,
            pfx=made_pfx,
            password="once",
            tenant_id="t1",
            acme=item.acme,
            service_name=NAME,
            actor="siteadmin",
        )
    gateway = await until(site, ready)
    assert (gateway["service_name"], gateway["acme"]) == (NAME, True)
    await _ends_soon(site)
    await site.cloud.orders.tend()
    found = await shown(site)
    assert found["renewal_reason"] == ""
    async with site.db.transaction() as tx:
        renewed = await site.cloud.gateways.certificate(tx, NAME)
    names = renewed.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["*.contoso.com"]
