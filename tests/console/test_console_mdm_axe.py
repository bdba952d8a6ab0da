"""The tenant's own pages of device management in a real browser, held against axe.

The browser draws what the console answers, over real devices; what it loads comes from there too.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from mdm_console import Browser, served, world
from playwright.async_api import Page, Route, async_playwright
from test_console_certificate_profile import PROFILE
from test_console_mdm_troubled import STRAYS, calls, left, refusing
from test_console_my_apps import offered

from mdm_world import Mdm
from tandem.infra.database import Database
from tenant_world import BASE
from walk_browser import ARGUMENTS, CHROMIUM, WCAG

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made:
        yield made


@pytest.fixture
async def looking() -> AsyncIterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian, Ubuntu: apt-get install chromium)")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield await started.new_page(viewport={"width": 1280, "height": 860})
        await started.close()


async def complaints(page: Page, browser: Browser, path: str, **cookies: str) -> list[str]:
    """What axe, the page's width and the browser's console say of a page."""
    said: list[str] = []

    async def answered(route: Route) -> None:
        answer = await browser.client.get(route.request.url, headers={"hx-request": "false"})
        headers = {k: v for k, v in answer.headers.items() if k != "content-encoding"}
        await route.fulfill(status=answer.status_code, headers=headers, body=answer.content)

    for name, value in cookies.items():
        browser.client.cookies.set(name, value)
    await page.route("**/*", answered)
    page.on("console", lambda message: said.append(message.text))
    await page.goto(BASE + path, wait_until="load")
    found = await Axe().run(page, options={"runOnly": WCAG})
    said += [
        f"{item['id']}: {item['nodes'][0]['html'][:200]}" for item in found.response["violations"]
    ]
    if await page.evaluate("document.documentElement.scrollWidth - innerWidth") > 0:
        said.append("it is too wide")
    await page.unroute("**/*")
    return said


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_where_things_went_wrong(
    both: tuple[Mdm, Browser], looking: Page, theme: str
) -> None:
    mdm, browser = both
    cookies = {"tandem-theme": theme, "tandem-language": "fr" if theme == "dark" else "en"}
    device = await refusing(mdm, "A/Odd", "B/Good")
    base = f"/console/devices/{device.id}"
    paths = [base, f"{base}/release", "/console/devices?overdue=1", STRAYS, PROFILE]
    for path in paths:
        assert not await complaints(looking, browser, path, **cookies), path
    await mdm.enrolled("bob", f"{2:032X}")
    gone = await left(mdm, "eve")
    assert await calls(gone) == 401
    for path in (STRAYS, f"{STRAYS}/{gone.id}/leave"):
        assert not await complaints(looking, browser, path, **cookies), path


async def test_axe_finds_nothing_on_the_page_of_somebody_without_a_role(
    both: tuple[Mdm, Browser], looking: Page, tmp_path: Path
) -> None:
    mdm, _ = both
    device = await mdm.enrolled()
    users = await mdm.group("Users", device.user.id)
    await offered(mdm, tmp_path, device, available=users.id)
    async with served(mdm, device.user.user_principal_name) as mine:
        for path in ("/console/my-apps", "/console/devices"):
            said = await complaints(looking, mine, path)
            # The browser tells its console of the refusal.
            assert not [one for one in said if "403" not in one], path
