"""The site's communication security, and what ends when: the API and its commands."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from site_world import NAME, PASSWORD, PFX_PASSWORD, Site, create, pfx
from tandem import pki
from tandem.cli import context
from tandem.infra.clock import utc_now
from tandem.site import properties

WHERE = "/api/v1/site/properties"


async def ask(site: Site, method: str, path: str, value: Any = None, **headers: str) -> Any:
    token = context.load_session("site").token
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(site.app), base_url=site.url
    ) as client:
        sent = {
            "Authorization": f"Bearer {token}",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return await client.request(method, path, json=value, headers=sent)


@pytest.fixture
async def issued(site: Site) -> properties.RoleCertificate:
    async with site.db.transaction() as tx:
        return await properties.role_certificate(
            tx,
            site.box,
            properties.SITE_SYSTEMS,
            dns=["localhost"],
            ips=["127.0.0.1"],
            now=utc_now(),
        )


async def test_the_management_point_answers_once_it_has_its_certificate(
    site: Site, issued: properties.RoleCertificate
) -> None:
    shown = await site.run("site", "properties", "show")
    assert (shown["enhanced_http"], shown["management_point"]["state"]) == (True, "waits")
    async with site.db.transaction() as tx:
        await properties.answers(tx, issued.certificate, utc_now())
    point = (await site.run("site", "properties", "show"))["management_point"]
    assert point["state"] == "answers"
    assert point["sha256"] == pki.sha256_fingerprint(issued.certificate)
    off = await site.run("site", "properties", "set", "--no-enhanced-http")
    assert (off["enhanced_http"], off["management_point"]["state"]) == (False, "closed")
    refused = await site.refusal("management-point", "set", "--allow-gateway-traffic")
    assert refused.code == "management-point.insecure"
    on = await site.run("site", "properties", "set", "--enhanced-http")
    assert on["management_point"]["state"] == "waits"


async def test_gateway_traffic_needs_enhanced_http(
    site: Site, issued: properties.RoleCertificate
) -> None:
    await site.run("management-point", "set", "--allow-gateway-traffic")
    refused = await site.refusal("site", "properties", "set", "--no-enhanced-http")
    assert refused.code == "site.gateway-needs-it"
    assert (await site.run("site", "properties", "show"))["enhanced_http"]


async def test_certificates_of_clients_are_let_in_only_while_they_are_wanted(
    site: Site, issued: properties.RoleCertificate
) -> None:
    await site.run("management-point", "set", "--allow-gateway-traffic")

    async def entries() -> set[str]:
        async with site.db.transaction() as tx:
            found = await site.cloud.connections.endpoints(tx)
        return {"/".join(item.prefix.split("/")[:2]) for item in found}

    assert await entries() == {"/CCM_Proxy_ServerAuth", "/CCM_Proxy_MutualAuth"}
    await site.run("site", "properties", "set", "--no-pki-client-certificate")
    assert await entries() == {"/CCM_Proxy_ServerAuth"}


async def test_https_only_is_refused_with_the_reason(site: Site) -> None:
    refused = await site.refusal("site", "properties", "set", "--site-systems", "https-only")
    assert refused.code == "site.needs-own-certificates"
    assert "of your own PKI" in refused.message


async def test_the_second_of_two_administrators_is_told(site: Site) -> None:
    first = await ask(site, "GET", WHERE)
    tag = first.headers["etag"]
    won = await ask(site, "PATCH", WHERE, {"check_crl": False}, If_Match=tag)
    assert (won.status_code, won.json()["changed_by"]) == (200, "siteadmin")
    lost = await ask(site, "PATCH", WHERE, {"enhanced_http": False}, If_Match=tag)
    assert (lost.status_code, lost.json()["error"]["code"]) == (412, "request.changed")
    assert (await ask(site, "GET", WHERE)).json()["enhanced_http"] is True


async def test_trusted_roots_are_added_listed_and_removed(site: Site, tmp_path: Path) -> None:
    root = pki.new_root(pki.name("Contoso Client CA"), now=utc_now())
    (tmp_path / "root.pem").write_bytes(pki.pem(root.certificate))
    await site.run("site", "properties", "root", "add", tmp_path / "root.pem")
    (shown,) = (await site.run("site", "properties", "show"))["trusted_roots"]
    assert shown["subject"] == "CN=Contoso Client CA"
    await site.run("site", "properties", "root", "remove", shown["id"])
    assert (await site.run("site", "properties", "show"))["trusted_roots"] == []
    refused = await site.refusal("site", "properties", "root", "remove", shown["id"])
    assert refused.code == "trust.no-such-root"


async def test_the_calendar_lists_what_ends_the_next_first(
    site: Site, issued: properties.RoleCertificate
) -> None:
    await create(site)
    (site.folder / "a.pfx").write_bytes(pfx("other.contoso.com"))
    password = site.secret("pfx-password", PFX_PASSWORD)
    await site.run("certificate", "import", site.folder / "a.pfx", "--password-file", password)
    found = await site.run("site", "expirations")
    assert [item["expires_at"] for item in found] == sorted(item["expires_at"] for item in found)
    by = {item["id"].partition(":")[0] + " " + item["subject"]: item for item in found}
    gateway = by[f"gateway {NAME}"]
    assert (gateway["level"], gateway["renewal"], gateway["days"]) == ("30", "request", 29)
    assert by["copy other.contoso.com"]["level"] == "30"
    assert by["role site-systems"]["level"] == "ok"
    assert by["role issuing-root"]["renewal"] == "none"


@pytest.mark.parametrize(
    ("days", "level"), [(-1, "expired"), (3, "7"), (20, "30"), (45, "60"), (61, "ok")]
)
async def test_levels(
    site: Site, issued: properties.RoleCertificate, days: int, level: str
) -> None:
    async with site.db.transaction() as tx:
        await tx.execute(
            "UPDATE properties_credential SET expires_at = %s WHERE role = 'site-systems'",
            (utc_now() + timedelta(days=days),),
        )
    found = {item["id"]: item for item in await site.run("site", "expirations")}
    assert found["role:site-systems"]["level"] == level


async def test_a_role_s_certificate_is_renewed_for_the_names_that_it_has(
    site: Site, issued: properties.RoleCertificate
) -> None:
    await site.run("site", "renew", "role:site-systems")
    async with site.db.transaction() as tx:
        made = await properties.role_certificate(
            tx,
            site.box,
            properties.SITE_SYSTEMS,
            dns=["localhost"],
            ips=["127.0.0.1"],
            now=utc_now(),
        )
    assert made.certificate.serial_number != issued.certificate.serial_number
    assert pki.same_key(made.certificate.public_key(), made.key)  # type: ignore[arg-type]
    for id, code in (
        ("role:issuing-root", "expiration.cannot-renew"),
        ("x", "expiration.cannot-renew"),
    ):
        assert (await site.refusal("site", "renew", id)).code == code


async def test_an_analyst_reads_and_changes_nothing(site: Site) -> None:
    file = site.secret("other-password", PASSWORD)
    await site.run(
        "administrator", "add", "ana", "--role", "read-only-analyst", "--password-file", file
    )
    await site.run("sign-in", "site", site.url, "--user", "ana", "--password-file", file)
    assert (await site.run("site", "properties", "show"))["enhanced_http"]
    refused = await site.refusal("site", "properties", "set", "--no-check-crl")
    assert refused.code == "site.not-allowed"
    assert (await site.refusal("site", "renew", "role:site-systems")).code == "site.not-allowed"
