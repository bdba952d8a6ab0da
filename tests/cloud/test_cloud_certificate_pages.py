"""Tutorial step 1 in the console: the name, the request, days later the answer, the PFX."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from browsing import Browser, browsing
from site_world import NAME, PASSWORD, PFX_PASSWORD, Site, pfx
from tandem import pki
from tandem.roles.lab_ca import LabCa

START = "/console/wizards/gateway-certificate"


@pytest.fixture
def ca(tmp_path: Path) -> LabCa:
    return LabCa(tmp_path / "ca", ["127.0.0.11"])


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    async with browsing(site.app, "siteadmin", PASSWORD) as made:
        yield made


async def requested(browser: Browser) -> bytes:
    await browser.open("/console/certificates")
    await browser.follow("Request a certificate")
    await browser.press("Next", prefix="MyCmg", domain="contoso.com")
    await browser.press("Make key and request", organization="Contoso", country="us")
    assert "The key of mycmg.contoso.com is on the site server" in browser.main
    return (await browser.client.get(browser.link("Download the request"))).content


async def test_the_whole_wizard(browser: Browser, ca: LabCa, site: Site) -> None:
    request = await requested(browser)
    assert "openssl req -in request.csr -noout -text -verify" in browser.main
    assert pki.read_request(request) is not None
    await browser.press("I have the CA's answer")
    await browser.press("Import", files={"answer": ("answer.pem", ca.issue(request))})
    await browser.press("Next", password=PFX_PASSWORD, again=PFX_PASSWORD)
    step = browser.url
    await browser.press("Download the PFX")
    assert browser.answer.headers["content-disposition"] == f'attachment; filename="{NAME}.pfx"'
    made = pkcs12.load_pkcs12(browser.answer.content, PFX_PASSWORD.encode())
    assert len(made.additional_certs) == 2
    await browser.open(step)
    await browser.press("Next", remove="1")
    assert browser.facts()["Service name"] == NAME
    assert browser.facts()["Certificates in the PFX"] == "3"
    assert "tandem certificate request mycmg.contoso.com --organization 'Contoso'" in browser.main
    assert PFX_PASSWORD not in browser.answer.text
    await browser.press("Done")
    assert "The working copy of mycmg.contoso.com was removed" in browser.main
    assert await site.run("certificate", "list") == []


async def test_days_later_the_wizard_begins_again_at_the_waiting_request(
    browser: Browser, ca: LabCa, site: Site
) -> None:
    request = await requested(browser)
    async with site.db.transaction() as tx:  # The draft is long gone.
        await tx.execute("DELETE FROM console_draft")
    await browser.open("/console/certificates")
    assert "Waits for the CA's answer" in browser.main
    await browser.follow("Go on")
    await browser.press("I have the CA's answer")
    leaf, *path = pki.read_certificates(ca.issue(request))
    der = {"answer": ("leaf.cer", leaf.public_bytes(Encoding.DER))}
    await browser.press("Import", files=der)
    assert browser.answer.status_code == 422
    assert "that of CN=Lab Public Issuing CA is missing" in browser.said("answer")
    await browser.press("Import", pasted=pki.pem(*path).decode())
    await browser.press("Next", password="one", again="two")
    assert browser.said("password") == "The two passwords differ. Type both again."
    await browser.press("Next", password=PFX_PASSWORD, again=PFX_PASSWORD)
    await browser.press("Next")
    await browser.press("Done")
    assert "The certificate of mycmg.contoso.com is ready." in browser.main
    assert browser.facts()["Path"].startswith("CN=Lab Public Issuing CA")


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("my-cmg", "3 to 24 letters and digits"),
        ("ab", "3 to 24 letters and digits"),
        ("taken", "already belongs to a deployment of someone else"),
    ],
)
async def test_a_name_that_cannot_be_used_is_refused_while_it_is_typed(
    browser: Browser, site: Site, prefix: str, says: str
) -> None:
    site.names.hosts["taken.cloudapp.example"] = ["192.0.2.1"]
    await browser.open(START)
    form, _ = browser.form("Next")
    typed = {**dict(form.form_values()), "prefix": prefix, "domain": "contoso.com"}
    answer = await browser.client.post(
        f"{browser.url}/check/prefix", data=typed, headers={"HX-Request": "true"}
    )
    assert says in answer.text
    await browser.press("Next", prefix=prefix, domain="contoso.com")
    assert browser.answer.status_code == 422
    assert says in browser.said("prefix")
    assert browser.value("prefix") == prefix
    assert await site.run("certificate", "list") == []


async def test_a_foreign_certificate_and_a_photo_are_refused_at_the_file(
    browser: Browser, ca: LabCa
) -> None:
    await requested(browser)
    await browser.press("I have the CA's answer")
    await browser.press("Import")
    assert browser.said("answer").startswith("Choose the file that the CA sent")
    key = pki.generate_key("rsa2048")
    foreign = ca.issue(pki.certificate_request(key, pki.name(NAME), [NAME]))
    await browser.press("Import", files={"answer": ("foreign.pem", foreign)})
    assert "No key on this server waits for this certificate" in browser.said("answer")
    await browser.press("Import", files={"answer": ("photo.cer", b"\x89PNG")})
    assert "no certificate" in browser.said("answer")
    await browser.press("Import", pasted="nonsense <b>")
    assert "no certificate" in browser.said("pasted")


async def test_a_changed_name_makes_another_key_and_the_first_one_goes(
    browser: Browser, site: Site
) -> None:
    await requested(browser)
    first = browser.url.rpartition("/")[0]
    await browser.open(f"{first}/name")
    await browser.press("Next", prefix="other")
    await browser.press("Make key and request")
    names = [item["service_name"] for item in await site.run("certificate", "list")]
    assert names == ["other.contoso.com"]


async def test_a_country_is_two_letters(browser: Browser) -> None:
    await browser.open(START)
    await browser.press("Next", prefix="mycmg", domain="contoso.com")
    await browser.press("Make key and request", country="1A")
    assert browser.said("country") == "A country is its two letters, like US or FR."


async def test_a_pfx_made_elsewhere_is_imported_exported_and_removed(browser: Browser) -> None:
    await browser.open("/console/certificates")
    await browser.follow("Import a PFX")
    file = {"pfx": ("C:\\Certs\\cmg.pfx", pfx(NAME))}
    await browser.press("Import", files=file, password="wrong")
    assert browser.answer.status_code == 422
    assert "password" in browser.said("password")
    await browser.press("Import")
    assert browser.said("pfx") == "Choose a file."
    await browser.press("Import", files=file, password=PFX_PASSWORD)
    assert "The certificate of mycmg.contoso.com was imported." in browser.main
    here = browser.url
    await browser.press("Download the PFX", password="a", again="b")
    assert "The two passwords differ." in browser.said("password")
    await browser.press("Download the PFX", password="secret", again="secret")
    assert pkcs12.load_pkcs12(browser.answer.content, b"secret").key is not None
    await browser.open(here)
    await browser.press("Remove the working copy")
    assert "A gateway that uses it has its own copy" in browser.main
    await browser.press("Remove")
    assert "No certificate has been requested" in browser.main


async def test_the_pages_are_french_too(site: Site) -> None:
    async with browsing(site.app, "siteadmin", PASSWORD, "fr") as browser:
        await browser.open(START)
        await browser.press("Suivant", prefix="ab", domain="contoso.com")
        assert "3 à 24" in browser.said("prefix")
