"""No row of a page is cut at 1,280 px: its last column has the buttons."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from console_areas import over_tls, replica
from playwright.async_api import Browser

import site_api
from site_api import NOW, PASSWORD, TENANT, Api, add_device
from tandem.infra.database import Database
from tandem.site import collections, deployments
from walk_browser import Hands, Seen, sitting

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"
PAGES = (
    "/console/approvals",
    "/console/configurations",
    "/console/comanagement",
    "/console/comanagement/rollouts",
    "/console/client-settings",
    "/console/software-updates",
    "/console/collections",
    "/console/administrators",
    "/console/scopes",
    "/console/scopes/objects",
    "/console/client-notifications",
    "/console/registration-tokens",
    "/console/devices",
    "/console/audit",
)
# What a person would have to scroll sideways to see.
_CUT = """() => [...document.querySelectorAll(".scroll")]
  .filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => `${one.getAttribute("aria-label")}: ${one.scrollWidth - one.clientWidth} px`)"""


@pytest.fixture
async def api(site_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    few = deployments.Safeguards(approval_above=2)
    async with site_api.site_api(site_db, tmp_path, safeguards=few) as made:
        await made.sign_in()
        async with made.db.transaction() as tx:
            for number in range(1, 4):
                await add_device(tx, f"LAPTOP-PARIS-{number:03}")
            for name in ("anna.von.der.heide", "bert"):
                user = collections.UserResource(TENANT, f"o-{name}", f"{name}@contoso.com")
                await collections.upsert_user(tx, user, NOW)
        yield made


async def posted(api: Api, path: str, wanted: dict[str, Any]) -> Any:
    answer = await api.web.post(path, json=wanted)
    assert answer.status_code < 300, answer.text
    return answer.json()


@pytest.fixture
async def rollout(api: Api) -> str:
    """What an administrator has after a while: configurations, some of which wait, roll-outs, tokens."""
    await posted(api, "/api/v1/collections", {"name": "Laptops of the office in Paris"})
    await posted(
        api,
        "/api/v1/collections/Laptops of the office in Paris/members",
        {"devices": ["LAPTOP-PARIS-001"]},
    )
    of_users = {"name": "Users of the office in Paris", "type": "user"}
    await posted(
        api,
        "/api/v1/collections",
        {**of_users, "rules": [{"kind": "direct", "user": "bert@contoso.com"}]},
    )
    made = {"setting": SETTING, "value": "15"}
    for name, to in (
        ("Screen lock of laptops", "Laptops of the office in Paris"),
        ("Screen lock of users", of_users["name"]),
        ("Screen lock of everybody", "SMS00001"),
    ):
        reason = "agreed with the works council"
        await posted(
            api,
            "/api/v1/configurations",
            {**made, "name": name, "collection": to, "reason": reason},
        )
    enable = {"automatic_enrollment": "none", "access_token": "t"}
    assert (await api.web.put("/api/v1/comanagement", json=enable)).status_code == 200
    rings = [{"collection": "Laptops of the office in Paris"}, {"collection": "SMS00001"}]
    planned = await posted(
        api,
        "/api/v1/comanagement/rollouts",
        {"workload": "device-configuration", "rings": rings, "reason": "the pilot is done"},
    )
    return str(planned["id"])


@pytest.mark.parametrize("language", ["en", "fr"])
async def test_no_row_is_cut(
    chromium: Browser, api: Api, rollout: str, tmp_path: Path, language: str
) -> None:
    seen, cut = Seen(), {}
    async with (
        over_tls(replica(api.db, api), tmp_path) as site,
        sitting(chromium, language, (site,), seen) as context,
    ):
        hands = Hands(await context.new_page(), language, seen)
        await hands.go(f"{site}/console/sign-in")
        await hands.fill("User name", "siteadmin")
        await hands.fill("Password", PASSWORD)
        await hands.press("Sign in")
        for path in (*PAGES, f"/console/comanagement/rollouts/{rollout}"):
            answer = await hands.page.goto(f"{site}{path}", wait_until="load")
            assert answer is not None
            assert answer.status == 200, path
            if found := await hands.page.evaluate(_CUT):
                cut[path] = found
            wide = await hands.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, path
    assert not cut
