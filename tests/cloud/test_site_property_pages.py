"""Site properties, and the calendar of certificates and secrets, in the console."""

from collections.abc import AsyncIterator

import pytest

from browsing import Browser, browsing
from site_world import NAME, PASSWORD, Site, create
from tandem import pki
from tandem.infra.clock import utc_now
from tandem.site import properties

PAGE = "/console/site-properties"
CALENDAR = "/console/expirations"


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    async with browsing(site.app, "siteadmin", PASSWORD) as made:
        yield made


async def test_enhanced_http_shows_its_progress_until_the_management_point_answers(
    browser: Browser, site: Site
) -> None:
    await browser.open(PAGE)
    await browser.press("Save", enhanced_http=None)
    assert "no client of this site gets policy" in browser.main
    await browser.press("Switch off")
    assert "The management point has no certificate" in browser.main
    await browser.press("Save", enhanced_http="1")
    assert "Waiting until the management point has its certificate" in browser.main
    (part,) = browser.page.xpath("//*[@id='management-point']")
    async with site.db.transaction() as tx:  # What the site does that runs.
        made = await properties.role_certificate(
            tx, site.box, properties.SITE_SYSTEMS, dns=["localhost"], now=utc_now()
        )
        await properties.answers(tx, made.certificate, utc_now())
    done = await browser.client.get(part.get("hx-get"), headers={"HX-Request": "true"})
    assert "The management point answers with its certificate." in done.text
    assert "hx-trigger" not in done.text


async def test_what_cannot_be_is_said_at_its_field(browser: Browser, site: Site) -> None:
    async with site.db.transaction() as tx:
        await properties.role_certificate(
            tx, site.box, properties.SITE_SYSTEMS, dns=["localhost"], now=utc_now()
        )
    await site.run("management-point", "set", "--allow-gateway-traffic")
    await browser.open(PAGE)
    assert "without effect in this version" in browser.main
    await browser.press("Save", site_systems="https-only")
    assert "of your own PKI" in browser.said("site_systems")
    await browser.open(PAGE)
    await browser.press("Save", enhanced_http=None)
    await browser.press("Switch off")
    assert "takes gateway traffic" in browser.said("enhanced_http")


async def test_two_administrators_do_not_overwrite_each_other(browser: Browser) -> None:
    await browser.open(PAGE)
    version = browser.value("version")
    await browser.press("Save", check_crl=None)
    assert "The changes were saved." in browser.main
    await browser.press("Save", version=version, pki_client_certificate=None)
    assert browser.answer.status_code == 409
    assert "Somebody else changed it" in browser.alert
    assert not browser.page.xpath("//input[@name='pki_client_certificate']/@checked")


async def test_roots_are_added_and_removed(browser: Browser) -> None:
    await browser.open(PAGE)
    await browser.press("Add", files={"root": ("photo.png", b"\x89PNG")})
    assert "no certificate" in browser.said("root")
    await browser.press("Add", files={"root": ("empty.pem", b"")})
    assert browser.said("root") == "Choose a file."
    root = pki.new_root(pki.name("<b>Client CA</b>"), now=utc_now())
    await browser.press("Add", files={"root": ("root.pem", pki.pem(root.certificate))})
    assert r"CN=\<b\>Client CA\</b\>" in browser.main
    await browser.press("Remove")
    assert "are not let in through gateways any more" in browser.main
    await browser.press("Remove")
    assert "No root is trusted yet." in browser.main


async def test_the_calendar_leads_to_each_renewal(browser: Browser, site: Site) -> None:
    await create(site)
    async with site.db.transaction() as tx:
        made = await properties.role_certificate(
            tx, site.box, properties.SITE_SYSTEMS, dns=["localhost"], now=utc_now()
        )
    await browser.open(CALENDAR)
    assert "1 of them ends within 60 days" in browser.main
    assert "Within 30 days" in browser.main
    assert f"prefix={NAME.partition('.')[0]}" in browser.link("Request a new certificate")
    await browser.follow("Request a new certificate")
    assert browser.value("prefix") == "mycmg"
    await browser.open(CALENDAR)
    await browser.press("Renew now")
    assert "site-systems has a new certificate." in browser.main
    async with site.db.transaction() as tx:
        now = await properties.role_certificate(
            tx, site.box, properties.SITE_SYSTEMS, dns=["localhost"], now=utc_now()
        )
    assert now.certificate.serial_number != made.certificate.serial_number
    await browser.open("/console/notifications")
    assert f"{NAME} (Gateway)" in browser.main


async def test_an_analyst_looks_and_changes_nothing(browser: Browser, site: Site) -> None:
    file = site.secret("other-password", PASSWORD)
    words = ("administrator", "add", "ana", "--role", "read-only-analyst")
    await site.run(*words, "--password-file", file)
    async with browsing(site.app, "ana", PASSWORD) as analyst:
        await analyst.open(PAGE)
        await analyst.press("Save", check_crl=None)
        needed = "Full Administrator or Infrastructure Administrator."
        assert f"ana is Read-only Analyst; this needs {needed}" in analyst.alert
        await analyst.open(CALENDAR)
        assert analyst.answer.status_code == 200


async def test_both_pages_are_french_too(site: Site) -> None:
    async with browsing(site.app, "siteadmin", PASSWORD, "fr") as browser:
        await browser.open(PAGE)
        assert "Propriétés du site" in browser.main
        await browser.press("Enregistrer", site_systems="https-only")
        assert "demande un certificat de votre propre PKI" in browser.said("site_systems")
        await browser.open(CALENDAR)
        assert "Racine émettrice du site" in browser.main
