"""The profile of devices' certificates as a form, over a real MDM service."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from lxml import html
from mdm_console import Browser, main_text, served, text, world

from mdm_world import Mdm
from tandem.infra.database import Database
from tandem.tenant import directory

PROFILE = "/console/certificate-profile"
GOOD = {
    "validityDays": "90",
    "renewalDays": "30",
    "retryDays": "2",
    "keyBits": "3072",
    "keyProviders": "software-first",
}


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made:
        yield made


async def test_the_next_certificate_is_issued_as_the_form_says(both: tuple[Mdm, Browser]) -> None:
    mdm, browser = both
    page = await browser.get(PROFILE)
    assert page.xpath("//input[@id='validityDays']/@value") == ["365"]
    assert page.xpath("//input[@name='keyProviders'][@checked]/@value") == ["platform-first"]
    assert "the device's id in the MDM service" in main_text(page)
    to = await browser.goes(PROFILE, GOOD)
    shown = await browser.get(to)
    assert "counts for certificates from now on" in text(shown)
    assert shown.xpath("//option[@selected]/@value") == ["3072"]
    assert shown.xpath("//input[@name='keyProviders'][@checked]/@value") == ["software-first"]
    kept = (await mdm.graph("GET", "tandem/deviceCertificateProfile")).json()
    assert kept["keyProviders"][0] == "Microsoft Software Key Storage Provider"
    device = await mdm.enrolled()
    (one,) = (await mdm.graph("GET", f"tandem/managedDevices/{device.id}/certificates")).json()[
        "value"
    ]
    ends = datetime.fromisoformat(one["endDateTime"])
    assert (ends - mdm.world.at).days == 90
    assert (ends - datetime.fromisoformat(one["renewsFromDateTime"])).days == 30


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("validityDays", "0", ""),
        ("validityDays", "4000", ""),
        ("validityDays", "a year", ""),
        ("renewalDays", "90", "Choose fewer days"),
        ("retryDays", "31", "within the days that they renew in"),
        ("keyBits", "512", ""),
        ("keyProviders", "cloud", ""),
        ("keyProviders", "", ""),
    ],
)
async def test_what_no_certificate_can_be_is_said_at_its_field(
    both: tuple[Mdm, Browser], field: str, value: str, said: str
) -> None:
    _, browser = both
    answer = await browser.post(PROFILE, {**GOOD, field: value})
    assert answer.status_code == 422
    page = html.fromstring(answer.content)
    assert page.xpath(f"//*[@id='{field}-said'][@role='alert']"), "the field says what is wrong"
    assert said in text(page)
    assert (await browser.get(PROFILE)).xpath("//input[@id='validityDays']/@value") == ["365"]


async def test_who_may_only_read_changes_nothing(both: tuple[Mdm, Browser]) -> None:
    mdm, _ = both
    ada = await mdm.world.user("ada")
    async with mdm.database.transaction() as tx:
        await directory.grant_role(tx, directory.GLOBAL_READER, ada.id)
    async with served(mdm, ada.user_principal_name) as reader:
        assert "Certificate profile" in await reader.text(PROFILE)
        assert (await reader.post(PROFILE, GOOD)).status_code == 403
