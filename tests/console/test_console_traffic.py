"""A gateway's traffic in a real browser: the numbers, the chart, axe in both themes, and French."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

import site_world
from site_world import NAME, PASSWORD, Site, create, ready, until
from tandem.infra.database import Database
from tandem.protocols import tunnel
from walk_browser import Hands, Seen, sitting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_world.site(site_db, tmp_path) as made:
        yield made


async def _tell(site: Site) -> None:
    """As a gateway's worker tells by a connection point, of more endpoints than a bar has parts."""
    names = ("SMS_MP", "CCM_STS", "ccm_incoming", "bgb", "CCM_Client", "ccm_system_tokenauth")
    counts = [
        tunnel.Counted(f"/CCM_Proxy_ServerAuth/7/{name}", "CP01", 10 * n, n, 500, 10**9, 1000.0)
        for n, name in enumerate(names, 1)
    ]
    counts.append(tunnel.Counted("refused", "", 3, 0, 0, 900, 0.0))
    telling = tunnel.Telling("r1", 1, counts=counts, connections=9, online=4)
    report = tunnel.ConnectorReport("CP01", tellings=[tunnel.GatewayTelling(NAME, 1, telling)])
    async with site.db.transaction() as tx:
        point = await site.cloud.connections.connection_point(tx, "CP01")
        await site.cloud.connections.report(tx, point, report)


@pytest.mark.parametrize(
    ("language", "online", "refused", "level"),
    [
        ("en", "4 devices wait for news", "Refused by the gateway", "Warning"),
        ("fr", "4 appareils attendent", "Refusé par la passerelle", "Avertissement"),
    ],
    ids=["en", "fr"],
)
async def test_traffic_is_drawn_and_told_by_endpoint_and_day(
    chromium: Browser, site: Site, language: str, online: str, refused: str, level: str
) -> None:
    await create(site)
    await until(site, ready)
    await site.run("connection-point", "add", "CP01")
    await site.run("gateway", "set", "--alert-gb", 8)
    await _tell(site)
    seen = Seen()
    async with sitting(chromium, language, (site.url,), seen) as context:
        hands = Hands(await context.new_page(), language, seen)
        page = hands.page
        async with hands.refused(401):
            await hands.go(f"{site.url}/console/gateways/{NAME}/traffic")
        await hands.fill("User name", "siteadmin")
        await hands.fill("Password", PASSWORD)
        await hands.press("Sign in")
        await expect(page.get_by_text(online)).to_be_visible()
        await expect(page.locator("#alerts-title + p")).to_contain_text(level)
        sums = page.locator("#sums tbody tr").first.locator("td")
        await expect(sums).to_have_text(["213", "213"])
        await expect(page.locator("#days-table tbody tr")).to_have_count(14)
        await expect(page.locator(".chart svg")).to_be_visible()
        rows = page.locator("#endpoints tbody tr")
        await expect(rows).to_have_count(7)
        await expect(rows.filter(has_text=refused)).to_have_count(1)
        await expect(page.locator("#points tbody tr")).to_have_count(7)
        await expect(page.locator("#hours tbody tr")).to_have_count(1)
        await hands.look()
        await hands.go(f"{site.url}/console/gateways/{NAME}/traffic?days=30")
        await expect(page.locator("#days-table tbody tr")).to_have_count(30)
    assert not seen.complaints, "\n".join(seen.complaints)
