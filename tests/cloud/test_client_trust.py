"""Authorities of clients and their revocation lists: what the site takes, and what it warns of."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from browsing import browsing
from site_world import NAME, PASSWORD, Site, create, ready, until
from tandem import pki
from tandem.infra.clock import utc_now

PAGE = f"/console/gateways/{NAME}"


def listed(
    site: Site, authority: pki.Authority, *, begins: float = -1, ends: float = 7, number: int = 1
) -> Path:
    """A list of so many days from now."""
    now = utc_now()
    file = site.folder / f"{number}.crl"
    file.write_bytes(
        authority.crl(
            [],
            now=now + timedelta(days=begins),
            next_update=now + timedelta(days=ends),
            number=number,
        )
    )
    return file


def changed(
    site: Site, authority: pki.Authority, change: Callable[..., x509.ExtensionType]
) -> Path:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(utc_now())
        .next_update(utc_now() + timedelta(days=1))
        .add_extension(change(), critical=True)
    )
    file = site.folder / "changed.crl"
    made = builder.sign(authority.key, hashes.SHA256())
    file.write_bytes(made.public_bytes(Encoding.DER))
    return file


async def trust(site: Site, authority: pki.Authority) -> None:
    file = site.folder / "root.pem"
    file.write_bytes(pki.pem(authority.certificate))
    await site.run("management-point", "trust-root", file)


async def test_a_list_that_is_missing_or_over_is_told_of_wherever_somebody_looks(
    site: Site,
) -> None:
    await create(site)
    await until(site, ready)
    assert (await site.run("gateway", "show"))["alarms"] == []
    root = pki.new_root(pki.name("Contoso Clients"), now=utc_now())
    await trust(site, root)
    cases = [
        ({}, "CMGService_Crl_Missing", "is missing", "manque"),
        ({"begins": -8, "ends": -1}, "CMGService_Crl_Expired", "has expired", "a expiré"),
        ({"begins": -6, "ends": 0.5}, "CMGService_Crl_Expires", "expires soon", "expire bientôt"),
    ]
    async with (
        browsing(site.app, "siteadmin", PASSWORD) as browser,
        browsing(site.app, "siteadmin", PASSWORD, "fr") as french,
    ):
        for times, name, english, said in cases:
            if times:
                await site.run("management-point", "add-crl", listed(site, root, **times))
            for words in (("gateway", "show"), ("gateway", "alerts")):
                (alarm,) = (await site.run(*words))["alarms"]
                assert (alarm["name"], alarm["authority"]) == (name, "CN=Contoso Clients")
                assert "tandem management-point add-crl" in alarm["cure"]
            await browser.open(PAGE)
            assert f"The revocation list of CN=Contoso Clients {english}" in browser.text
            assert name in browser.text
            await french.open(PAGE)
            assert f"La liste de révocation de CN=Contoso Clients {said}" in french.text
            await site.cloud.gateways.tend()
            await site.cloud.gateways.tend()
            assert site.log("CloudMgr").count(f"Service {NAME}: {name}: ") == 1
        await site.run("management-point", "add-crl", listed(site, root, begins=0))
        assert (await site.run("gateway", "show"))["alarms"] == []
        await browser.open(PAGE)
        assert "CMGService_Crl" not in browser.text
        await site.cloud.gateways.tend()
        assert f"{NAME}: CMGService_Crl_Expires of CN=Contoso Clients is over" in site.log(
            "CloudMgr"
        )


async def test_where_nobody_asks_for_lists_none_is_missed(site: Site) -> None:
    await create(site)
    await until(site, ready)
    await trust(site, pki.new_root(pki.name("Contoso Clients"), now=utc_now()))
    assert (await site.run("gateway", "show"))["alarms"]
    await site.run("gateway", "set", "--no-check-revocation")
    assert (await site.run("gateway", "show"))["alarms"] == []


async def test_a_list_that_would_do_harm_is_refused(site: Site) -> None:
    root = pki.new_root(pki.name("Contoso Clients"), now=utc_now())
    await trust(site, root)
    await site.run("management-point", "add-crl", listed(site, root, begins=-1, number=2))

    async def refused(file: Path) -> str:
        return (await site.refusal("management-point", "add-crl", file)).message

    alike = pki.new_root(pki.name("Contoso Clients"), now=utc_now())
    assert "no uploaded authority of this name has signed it" in await refused(listed(site, alike))
    assert "and the site has one of" in await refused(listed(site, root, begins=-2))
    delta = await refused(changed(site, root, lambda: x509.DeltaCRLIndicator(1)))
    assert "not whole" in delta
    some = await refused(changed(site, root, lambda: _only_authorities()))
    assert "not whole" in some
    known = await site.run("management-point", "trusted")
    assert len(known["crls"]) == 1
    # The authority gets a new key: it goes on with two lists of one name.
    await trust(site, alike)
    await site.run("management-point", "add-crl", listed(site, alike, number=9))
    known = await site.run("management-point", "trusted")
    assert [item["issuer"] for item in known["crls"]] == ["CN=Contoso Clients"] * 2


def _only_authorities() -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=True,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
