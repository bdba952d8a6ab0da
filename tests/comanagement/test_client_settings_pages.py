"""The console's pages of client settings, walked as a browser without scripts does."""

from datetime import datetime
from typing import Any

import pytest

from browsing import browsing
from site_api import CHEAP, PASSWORD, Api, add_device
from tandem import console
from tandem.console.areas.comgmt import client_settings
from tandem.console.site_pages import SitePages
from tandem.infra.secrets import SecretBox

PATH = "/console/client-settings"
API = "/api/v1/client-settings"
NAME = 'Busy <b onclick="x">'


@pytest.fixture
async def site(api: Api) -> Api:
    """LAB-001 is in Pilot; LAB-002 is not."""

    def now() -> datetime:
        return api.clock[0]

    async def token(session: console.Session) -> str:
        return session.token

    drafts = console.Drafts(api.db, SecretBox(b"k" * 32), now)
    behind = console.Backend(console.Transport("https://site"), token, drafts)
    pages = SitePages(api.db, now=now, settings=CHEAP)
    api.app.router.routes.extend(console.site_routes(pages, now=now, backend=behind))
    behind.transport.app = api.app
    async with api.db.transaction() as tx:
        for number in (1, 2):
            await add_device(tx, f"LAB-00{number}")
    await api.web.post("/api/v1/collections", json={"name": "Pilot"})
    await api.web.post("/api/v1/collections/Pilot/members", json={"devices": ["LAB-001"]})
    return api


async def custom(api: Api, name: str, **values: Any) -> str:
    answer = await api.web.post(f"{API}/custom", json={"name": name, "settings": values})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_they_are_made_deployed_explained_and_deleted(site: Api) -> None:
    async with browsing(site.app, "siteadmin", PASSWORD) as browser:
        await browser.open(PATH)
        await browser.follow("Create custom client settings")
        await browser.press("Next", name=NAME, description="Devices that are looked at.")
        assert [one.get("value") for one in browser.page.xpath("//input[@name='groups']")] == list(
            client_settings.GROUPS
        )
        await browser.press("Next", groups=["Client policy"])
        assert browser.page.xpath("//*[@name='policy_polling_minutes']")
        assert not browser.page.xpath("//*[@name='state_reporting_minutes']")
        await browser.press("Next", policy_polling_minutes="2")
        assert browser.answer.status_code == 422
        await browser.press("Next", policy_polling_minutes="5")
        pilot = browser.page.xpath("//option[starts-with(text(), 'Pilot')]/@value")[0]
        await browser.press("Next", collection=pilot)
        facts = browser.facts()
        assert facts["Client policy polling interval (minutes)"] == "5"
        assert facts["Enable user policy on clients"] == "as the default settings have it now"
        assert "--set policy_polling_minutes=5" in browser.main
        await browser.press("Create")
        assert f"{NAME} was created" in browser.main
        assert "Priority 1 of 1" in browser.main
        assert "Pilot1siteadmin" in browser.main.replace(" ", "")

        await browser.open(f"{PATH}/resultant?device=LAB-001")
        row = " ".join(
            browser.page.xpath("//tr[th[contains(., 'polling interval')]]")[0]
            .text_content()
            .split()
        )
        assert row.endswith(f"5 {NAME}1 Pilot Default client settings (10,000): 60")
        await browser.follow(NAME)
        await browser.press("Take back")
        assert "The members of Pilot (1) go back" in browser.main
        await browser.press("Take back")
        assert "Nobody yet" in browser.main
        await browser.press("Deploy", collection=pilot)
        assert "will hold for the members of Pilot: 1 now." in browser.main
        await browser.press("Deploy")
        await browser.press("Delete")
        assert "Pilot (1)" in browser.main
        await browser.press("Delete")
        assert browser.url == PATH
        assert len(await site.get(f"{API}/custom")) == 1


async def test_values_groups_and_priorities_are_changed_with_what_was_typed_kept(
    site: Api,
) -> None:
    first = await custom(site, "First", policy_polling_minutes=5)
    await custom(site, "Second", state_reporting_minutes=5)
    async with browsing(site.app, "siteadmin", PASSWORD) as browser:
        await browser.open(PATH)
        await browser.press("Down")
        assert "First has the priority 2 now." in browser.main
        rows = await site.get(f"{API}/custom")
        assert [item["name"] for item in rows][:2] == ["Second", "First"]

        await browser.open(f"{PATH}/custom/{first}")
        await browser.press("Save", policy_polling_minutes="2000", name="Renamed")
        assert browser.answer.status_code == 422
        assert "a number from 3 to 1440" in browser.said("policy_polling_minutes")
        assert (browser.value("policy_polling_minutes"), browser.value("name")) == (
            "2000",
            "Renamed",
        )
        await browser.press(
            "Save", policy_polling_minutes="10", groups=["Client policy", "State messaging"]
        )
        found = await site.get(f"{API}/custom/Renamed")
        assert found["groups"] == ["Client policy", "State messaging"]
        await browser.press("Save", name="Second")
        assert "There are client settings 'Second' already." in browser.alert
        await site.web.patch(f"{API}/custom/Renamed", json={"description": "By another."})
        await browser.press("Save", name="Mine")
        assert browser.answer.status_code == 409
        assert "Somebody else changed the settings" in browser.main
        await browser.press("Save", name="Mine", groups=None)
        assert "at least one group" in browser.alert


async def test_who_forbids_the_gateway_is_warned_first(site: Api) -> None:
    id = await custom(site, "Off", enable_cloud_management_gateway=False)
    async with browsing(site.app, "siteadmin", PASSWORD) as browser:
        await browser.open(f"{PATH}/custom/{id}")
        await browser.press("Deploy")
        assert "hears nothing of the site from then on" in browser.main


async def test_a_device_s_page_leads_to_why(site: Api) -> None:
    id = await custom(site, "Busy", policy_polling_minutes=5)
    await site.web.post(f"{API}/custom/{id}/deployments", json={"collection": "Pilot"})
    async with browsing(site.app, "siteadmin", PASSWORD) as browser:
        await browser.open("/console/devices/d-LAB-001/policy")
        (row,) = browser.page.xpath("//tr[th/code='policy_polling_minutes']")
        assert [" ".join(one.text_content().split()) for one in row] == [
            "policy_polling_minutes",
            "5",
            "Busy",
        ]
        await browser.follow("Why each of them holds")
        assert browser.url == f"{PATH}/resultant"
        assert "LAB-001" in browser.main


async def test_a_read_only_analyst_looks_and_changes_nothing(site: Api) -> None:
    id = await custom(site, "Busy", policy_polling_minutes=5)
    wanted = {"name": "ola", "role": "read-only-analyst", "password": "Another-Horse-3"}
    assert (await site.web.post("/api/v1/administrators", json=wanted)).status_code == 201
    async with browsing(site.app, "ola", "Another-Horse-3") as browser:
        for path in (PATH, f"{PATH}/custom/{id}"):
            await browser.open(path)
            assert "looks at settings and does not change them" in browser.main
            assert not browser.page.xpath("//main//form[@method='post']//button")
        answer = await browser.client.post(f"{PATH}/custom/{id}/delete", data={"confirmed": "1"})
        assert answer.status_code in (400, 403)
    assert len(await site.get(f"{API}/custom")) == 2


async def test_the_pages_speak_french(site: Api) -> None:
    id = await custom(site, "Busy", policy_polling_minutes=5, hardware_inventory_minutes=60)
    await site.web.post(f"{API}/custom/{id}/deployments", json={"collection": "Pilot"})
    async with browsing(site.app, "siteadmin", PASSWORD, "fr") as browser:
        for path in (PATH, f"{PATH}/custom/{id}", f"{PATH}/resultant?device=LAB-001"):
            await browser.open(path)
            assert browser.answer.status_code == 200
            for word in ("settings", "Settings", "Priority", " the ", "Deployed", "Hardware"):
                assert word not in browser.main, word


async def test_the_console_knows_the_settings_that_the_site_has(site: Api) -> None:
    told = await site.get(f"{API}/catalogue")
    assert [
        (one["name"], one["group"], one["title"], one["minimum"] or 0, one["maximum"] or 0)
        for one in told
    ] == [(one.name, one.group, one.title, one.least, one.most) for one in client_settings.SETTINGS]
    assert {one["name"] for one in told if "user" in one["types"]} == {
        one.name for one in client_settings.SETTINGS if one.of_users
    }
