from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from console_areas import Browser, browser, replica
from playwright.async_api import Browser as Chromium
from playwright.async_api import async_playwright

import site_api
from site_api import Api, add_device
from tandem.infra.database import Database
from walk_browser import ARGUMENTS, CHROMIUM


@pytest.fixture
async def api(site_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with site_api.site_api(site_db, tmp_path) as made:
        await made.sign_in()
        yield made


@pytest.fixture
async def stranger(api: Api) -> AsyncIterator[Browser]:
    """Not signed in, at the console of a site that knows one device."""
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    async with browser(replica(api.db, api)) as made:
        yield made


@pytest.fixture
async def seen(api: Api) -> AsyncIterator[Browser]:
    async with browser(replica(api.db, api)) as made:
        await made.sign_in()
        yield made


@pytest.fixture
async def chromium() -> AsyncIterator[Chromium]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian, Ubuntu: apt-get install chromium)")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        await started.close()
