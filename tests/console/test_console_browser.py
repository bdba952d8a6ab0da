"""The site's pages in a real browser: accessibility, keyboard, scripts, and no request elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from console_areas import over_tls, replica
from playwright.async_api import Browser, Locator, Page, expect
from test_console_pages import SITE_PAGES

from site_api import PASSWORD, Api, add_device
from walk_browser import Hands, Seen, sitting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
async def site(api: Api, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a site of 69 devices, 61 of them co-managed; one could not enrol."""
    async with api.db.transaction() as tx:
        for number in range(1, 69):
            await add_device(tx, f"LAB-{number:03}", policy=number < 63)
    for number in range(1, 62):
        api.cloud.graph.knows(f"d-LAB-{number:03}")
    api.cloud.graph.knows("d-LAB-069", name="LAB-069", enrolled=False)
    api.cloud.graph.refuses("d-LAB-069", 0x80180018)
    api.cloud.graph.size = 1000
    await api.keeper.tend()
    async with over_tls(replica(api.db, api), tmp_path) as address:
        yield address


@asynccontextmanager
async def someone(
    chromium: Browser, site: str, language: str = "en", *, scripts: bool = True
) -> AsyncIterator[Hands]:
    """Signed in; what their browser complains of is a failure."""
    seen = Seen()
    async with sitting(chromium, language, (site,), seen, java_script_enabled=scripts) as context:
        hands = Hands(await context.new_page(), language, seen, scripts=scripts)
        await hands.go(f"{site}/console/sign-in")
        await hands.look()
        await hands.fill("User name", "siteadmin")
        await hands.fill("Password", PASSWORD)
        await hands.press("Sign in")
        yield hands
    # The guide's story needs the cloud's API, which this site does not serve.
    complaints = [said for said in seen.complaints if "/console/guide/story" not in said]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("language", ["en", "fr"])
async def test_axe_finds_nothing_on_any_page(chromium: Browser, site: str, language: str) -> None:
    async with someone(chromium, site, language) as hands:
        for path in [*SITE_PAGES, "/console/devices/d-LAB-069"]:
            await hands.go(f"{site}{path}")
            await hands.look()


async def test_the_sign_in_page_works_by_keyboard(chromium: Browser, site: str) -> None:
    page = await chromium.new_page(ignore_https_errors=True)
    await page.goto(f"{site}/console/sign-in")
    await expect(page.get_by_label("User name")).to_be_focused()
    await page.keyboard.type("siteadmin")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Co-management dashboard")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()


async def test_charts_are_drawn_and_follow_the_numbers(
    chromium: Browser, site: str, api: Api
) -> None:
    async with someone(chromium, site) as hands:
        page = hands.page
        await expect(page.locator(".chart svg")).to_have_count(5)
        await expect(page.locator("#co-managed")).to_have_text("61")
        api.cloud.graph.knows("d-LAB-062")
        api.wait(minutes=10)
        await api.keeper.tend()
        await expect(page.locator("#co-managed")).to_have_text("62", timeout=9000)
        await expect(page.locator(".chart svg")).to_have_count(5)


async def test_a_tile_leads_to_its_devices_and_the_panel_opens_and_closes(
    chromium: Browser, site: str
) -> None:
    async with someone(chromium, site) as hands:
        page = hands.page
        await hands.follow("Failure, directory joined")
        await expect(_count(page)).to_have_text("1 device")
        await page.get_by_label("Details of LAB-069").press("Enter")
        panel = page.get_by_role("dialog")
        await expect(panel.get_by_role("heading", level=2)).to_have_text("LAB-069")
        await hands.look()
        await page.keyboard.press("Escape")
        await expect(panel).to_be_hidden()
        await page.get_by_label("Remove the filter Enrolment status").click()
        await expect(_count(page)).to_have_text("69 devices")


def _count(page: Page) -> Locator:
    return page.locator(".count")


async def test_sorting_and_paging_change_the_address_and_go_back(
    chromium: Browser, site: str
) -> None:
    async with someone(chromium, site) as hands:
        page = hands.page
        await hands.go(f"{site}/console/devices")
        await page.get_by_role("link", name="Next").click()
        await expect(page.locator("tbody tr")).to_have_count(19)
        assert page.url.endswith("/console/devices?page=2")
        await page.get_by_role("link", name="Primary user").press("Enter")
        await expect(page.locator("th[aria-sort]")).to_have_text("Primary user")
        await page.go_back()
        await expect(page.locator("tbody tr")).to_have_count(19)


async def test_theme_and_language_change_with_a_click(chromium: Browser, site: str) -> None:
    async with someone(chromium, site) as hands:
        page = hands.page
        await hands.go(f"{site}/console/devices")
        await page.get_by_role("button", name="Dark theme").click()
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        await page.get_by_role("button", name="Français").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Appareils")
        assert page.url.endswith("/console/devices")


async def test_signing_out_by_the_account_menu(chromium: Browser, site: str) -> None:
    async with someone(chromium, site) as hands:
        page = hands.page
        await page.get_by_role("button", name="Account of siteadmin").click()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


async def test_without_scripts_lists_filters_and_sign_in_work(chromium: Browser, site: str) -> None:
    async with someone(chromium, site, scripts=False) as hands:
        page = hands.page
        await hands.go(f"{site}/console/devices")
        await page.get_by_label("Has reached", exact=True).select_option("policy")
        await page.get_by_role("button", name="Apply").click()
        await expect(_count(page)).to_have_text("62 devices")
        await page.get_by_role("link", name="Last seen").click()
        await expect(page.locator("th[aria-sort]")).to_have_text("Last seen")
        await page.get_by_role("link", name="Device name").click()
        await page.get_by_label("Details of LAB-050").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("LAB-050")
