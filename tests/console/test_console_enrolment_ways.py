"""The page that says how devices enrol, and tokens that are shown once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lxml import html
from mdm_console import Browser, main_text, text, world

from mdm_world import Mdm, subcode
from tandem.infra.database import Database
from ways_world import enrol, issued

WAYS = "/console/enrolment/ways"


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made:
        yield made


async def test_how_devices_enrol_is_chosen_on_one_page(both: tuple[Mdm, Browser]) -> None:
    _, browser = both
    assert "Choose how devices enrol" in await browser.text("/console/enrolment")
    assert "alone do not enrol a device" in await browser.text(WAYS)
    to = await browser.goes(WAYS, {"passwordEnrollment": "1", "refusalText": "Call 4711."})
    shown = await browser.text(to)
    assert "They count from now on" in shown
    assert "enrol with a user name and a password" in shown
    # Nobody can accept terms that way.
    await browser.goes(WAYS, {"passwordEnrollment": "1", "termsOfUseEnglish": "Be <kind>."})
    page = await browser.get(WAYS)
    assert "alone do not enrol a device" in text(page)
    assert page.xpath("//textarea[@name='termsOfUseEnglish']/text()") == ["Be <kind>."]
    refused = await browser.post(WAYS, {"termsOfUseEnglish": "x" * 20_001})
    assert refused.status_code == 422
    french = await browser.text(WAYS, **{"accept-language": "fr"})
    assert "Comment les appareils s'inscrivent" in french


async def test_a_token_is_shown_once_and_revoked(both: tuple[Mdm, Browser]) -> None:
    mdm, browser = both
    user = await mdm.world.user("alex")
    form = {"user": user.id, "deviceName": "", "lifetimeInMinutes": "30"}
    answer = await browser.post(f"{WAYS}/new-token", form)
    page = html.fromstring(answer.content)
    assert answer.status_code == 200, main_text(page)
    assert answer.headers["cache-control"] == "no-store"
    (token,) = page.xpath("//input[@id='new-token']/@value") or [
        text(page.xpath("//*[@id='new-token']")[0])
    ]
    listed = await browser.get(WAYS)
    assert "alex@contoso.comanyNot used yet" in text(listed)
    assert token not in html.tostring(listed).decode()
    (action,) = listed.xpath("//form[contains(@action, '/revoke')]/@action")
    assert subcode(await enrol(mdm, issued(token))) == ""
    assert "Used" in await browser.text(WAYS)

    await browser.post(f"{WAYS}/new-token", form)
    (action,) = (await browser.get(WAYS)).xpath("//form[contains(@action, '/revoke')]/@action")
    assert "The token is void" in await browser.text(await browser.goes(action))
    late = await browser.post(f"{WAYS}/new-token", {**form, "lifetimeInMinutes": "1441"})
    assert late.status_code == 422
