"""A wizard of the kit in a real browser: by keyboard alone, without scripts, and held against axe."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from console_areas import over_tls
from playwright.async_api import Browser, expect
from test_console_kit import BOX, application

from site_api import CHEAP, NOW, PASSWORD
from tandem.infra.database import Database
from tandem.site import administrators, collections, properties
from walk_browser import Hands, Seen, sitting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a site that serves the sample wizard."""
    async with site_db.transaction() as tx:
        await properties.establish(tx, BOX, code="ABC", name="", now=NOW)
        await administrators.create_first(tx, "admin", PASSWORD, NOW, CHEAP)
    async with over_tls(application(site_db, lambda: NOW), tmp_path) as address:
        yield address


async def arrive(hands: Hands, site: str) -> None:
    async with hands.refused(401):
        await hands.go(f"{site}/console/wizards/sample")
    await hands.fill("User name", "admin")
    await hands.fill("Password", PASSWORD)
    await hands.press("Sign in")


async def through(hands: Hands, pfx: Path) -> None:
    """The whole wizard, one refusal included."""
    await hands.fill("Name", "All Systems")
    await hands.fill("Size", "3")
    await hands.wrong("Name", "%(name)s is taken.", name="All Systems")
    await hands.fill("Name", "Pilot")
    await hands.look()
    await hands.next()
    await hands.wrong("Password", "Fill this in.")
    await hands.fill("Password", "sesame")
    await hands.attach("File", pfx)
    await hands.pick("Limiting collection", "All Systems")
    await hands.look()
    await hands.next()
    await hands.shows("tandem collection create Pilot")
    await hands.look()
    await hands.press("Finish")
    await hands.says("%(name)s was created.", name="Pilot")


@pytest.mark.parametrize("scripts", [True, False], ids=["keyboard", "no-scripts"])
async def test_a_wizard_is_walked_by_keyboard_and_without_scripts(
    chromium: Browser, site: str, site_db: Database, tmp_path: Path, scripts: bool
) -> None:
    pfx = tmp_path / "a.pfx"
    pfx.write_bytes(b"\x30\x82")
    seen = Seen()
    async with sitting(chromium, "en", (site,), seen, java_script_enabled=scripts) as context:
        hands = Hands(await context.new_page(), "en", seen, keyboard=scripts, scripts=scripts)
        await arrive(hands, site)
        await through(hands, pfx)
    assert not seen.complaints, "\n".join(seen.complaints)
    async with site_db.transaction() as tx:
        made = [c for c in await collections.collections(tx) if c.name == "Pilot"]
    assert len(made) == 1


async def test_what_is_typed_is_answered_while_it_is_typed(chromium: Browser, site: str) -> None:
    seen = Seen()
    async with sitting(chromium, "fr", (site,), seen) as context:
        hands = Hands(await context.new_page(), "fr", seen)
        await arrive(hands, site)
        await hands.box("Name").press_sequentially("All Systems")
        await hands.says("%(name)s is taken.", name="All Systems")
        await hands.box("Name").press_sequentially(" 2")
        await hands.says("This can be used.")
        await expect(hands.box("Name")).to_be_focused()
        await hands.look()
        await hands.next()
        # What is marked in a picker outlives the next search.
        await hands.pick("Limiting collection", "All Systems")
        picker = hands.group("Limiting collection")
        await picker.get_by_role("searchbox").fill("")
        async with hands.page.expect_response(lambda answer: "query=zzz" in answer.url):
            await picker.get_by_role("searchbox").press_sequentially("zzz")
        await expect(picker.locator(".chosen input:checked")).to_have_value("SMS00001")
        await hands.look()
    assert not seen.complaints, "\n".join(seen.complaints)
