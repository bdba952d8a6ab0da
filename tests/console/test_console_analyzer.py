"""The analyzer's picture of the way, in a real browser: held against axe in both themes, and in
French."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

import site_world
from site_world import NAME, PASSWORD, Site, create, ready, until
from tandem.infra.database import Database
from walk_browser import Hands, Seen, sitting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_world.site(site_db, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", f"Device: Working. Public name {NAME}: Broken. Instance {NAME} 1: Broken."),
        ("fr", f"Appareil : Fonctionne. Nom public {NAME} : Rompue. Instance {NAME} 1 : Rompue."),
    ],
    ids=["en", "fr"],
)
async def test_the_way_is_drawn_and_told(
    chromium: Browser, site: Site, language: str, said: str
) -> None:
    await create(site)
    await until(site, ready)
    await site.run("connection-point", "add", "CP01")
    await site.run("connection-point", "add", "CP02")
    seen = Seen()
    async with sitting(chromium, language, (site.url,), seen) as context:
        hands = Hands(await context.new_page(), language, seen)
        async with hands.refused(401):
            await hands.go(f"{site.url}/console/gateways/{NAME}/analyze")
        await hands.fill("User name", "siteadmin")
        await hands.fill("Password", PASSWORD)
        await hands.press("Sign in")
        await hands.press("Start")
        drawn = hands.page.locator("figure.way svg[role=img]")
        await expect(drawn).to_be_visible()
        # Device, name, instance, two connection points, management point, tenant.
        await expect(drawn.locator("rect")).to_have_count(7)
        await expect(drawn.locator("line")).to_have_count(1 + 1 + 2 + 2 + 1)
        await expect(drawn.locator("g.bad text.strong").nth(0)).to_be_visible()
        assert said in (await hands.page.locator("#way-said").text_content() or "")
        await hands.look()
    assert not seen.complaints, "\n".join(seen.complaints)
