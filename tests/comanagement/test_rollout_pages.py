"""Roll-outs in the console: planned, compared, started, watched, halted, and switched back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from browsing import Browser, browsing
from rollout_world import MDM, SETTING, Site, offered
from site_api import CHEAP, PASSWORD
from tandem import console
from tandem.console.site_pages import SitePages
from tandem.infra.secrets import SecretBox

PATH = "/console/comanagement/rollouts"
HOSTILE = "<script>alert(1)</script>"


async def _token_itself(session: console.Session) -> str:
    return session.token


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    api = site.api

    def now() -> Any:
        return api.clock[0]

    behind = console.Backend(
        console.Transport("https://site"),
        _token_itself,
        console.Drafts(api.db, SecretBox(b"k" * 32), now),
    )
    pages = SitePages(api.db, now=now, settings=CHEAP)
    api.app.router.routes.extend(console.site_routes(pages, now=now, backend=behind))
    behind.transport.app = api.app
    async with browsing(api.app, "siteadmin", PASSWORD) as made:
        yield made


async def collection(site: Site, name: str) -> str:
    return str((await site.api.get(f"/api/v1/collections/{name}"))["id"])


async def test_a_roll_out_is_planned_started_halted_and_put_back(
    site: Site, browser: Browser
) -> None:
    configured = {"name": HOSTILE, "setting": SETTING, "value": HOSTILE, "collection": "SMS00001"}
    assert (await site.api.web.post("/api/v1/configurations", json=configured)).status_code < 300
    await browser.open(PATH)
    assert "There was no roll-out yet." in browser.main
    await browser.open(f"{PATH}/new")
    wanted = {
        "workload": "device-configuration",
        "pilot": await collection(site, "Pilot"),
        "everybody": "1",
        "soak_minutes": "0",
        "failed_percent": "0",
    }
    await browser.press("Plan and compare", **wanted)
    assert "Nothing has moved" in browser.main
    (planned,) = (await site.api.get("/api/v1/comanagement/rollouts"))["items"]
    await site.conductor.tend()
    one = f"{PATH}/{planned['id']}"
    await browser.open(one)
    assert "Would be lost" in browser.main
    assert "Whom it reaches" in browser.main
    await browser.open(f"{one}?offline_days=30")
    assert "Not heard of for more than 30 days" in browser.main
    assert HOSTILE in browser.main  # As text.
    assert HOSTILE not in browser.answer.text

    await browser.press("Start")
    assert "4 devices move to the MDM service" in browser.main
    await browser.press("Start", accept_gaps="1", confirm="3")
    assert browser.answer.status_code == 422
    assert "4 devices" in browser.main
    await browser.press("Start", accept_gaps="1", confirm="4")
    assert "Started." in browser.main

    await site.follows("LAB-001")
    site.offers("LAB-001", offered(outcome="error", reason="The device answered 500."))
    await site.conductor.tend()
    await browser.open(one)
    assert "Halted" in browser.main
    assert "Ring 1: 1 of 1 devices failed; at most 0 percent may." in browser.main
    assert f"The MDM service reports for {SETTING}: The device answered 500." in browser.main
    await browser.open("/console/notifications")
    assert "Device configuration: the roll-out has halted" in browser.main

    await browser.open(f"{one}?page=%C2%B2&gap=%C2%B2&standing=%00")
    assert browser.answer.status_code == 200
    await browser.open(f"{one}?standing=failed")
    assert "LAB-001" in browser.main
    await browser.open(one)
    await browser.press("Switch back")
    assert "Switched back." in browser.main
    assert (await site.slider())["position"] == "site"
    assert await site.flags("LAB-001") == 8193


async def test_what_the_api_refuses_is_said_where_it_was_typed(
    site: Site, browser: Browser
) -> None:
    await browser.open(f"{PATH}/new")
    pilot = await collection(site, "Pilot")
    await browser.press(
        "Plan and compare", workload="windows-update", pilot=pilot, automatic_back="1"
    )
    assert browser.answer.status_code == 422
    assert "what they installed stays" in browser.main
    await browser.press("Plan and compare", workload="client-apps", pilot=pilot, second=pilot)
    assert "only once" in browser.main
    await browser.press("Plan and compare", workload="client-apps", pilot=pilot, minutes="none")
    assert browser.answer.status_code == 422


async def test_every_step_is_one_click_away(site: Site, browser: Browser) -> None:
    id = await site.started("Pilot", "Second", "All Systems")
    for name in ("LAB-001", "LAB-002"):
        await site.follows(name)
        await site.tend(id)
    site.api.wait(seconds=1)
    await browser.open(f"{PATH}/{id}")
    await browser.press("Back to ring 1")
    assert "Switched back." in browser.main
    assert "Devices up to ring 1 keep what they have." in browser.main
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2)] == [MDM, 8193]
    await browser.open(PATH)
    await browser.follow("Device configuration")
    assert "Here it stands" in browser.main
    assert "Its effects can be taken back" in browser.main
    # What somebody else has done meanwhile is said on the page.
    await browser.press("Back to here", step="0")
    assert browser.answer.status_code == 409
    assert "There is no such step" in browser.main


async def test_the_pages_speak_french(site: Site, browser: Browser) -> None:
    id = await site.started("Pilot")
    site.api.wait(minutes=29)
    await site.api.get("/api/v1/comanagement")
    site.api.wait(minutes=1)
    await site.conductor.tend()
    async with browsing(site.api.app, "siteadmin", PASSWORD, "fr") as french:
        await french.open(f"{PATH}/{id}")
        assert "Interrompu par un seuil" in french.main
        said = "Anneau 1 : après 30 minutes, 0 appareils terminés sur 1 ; il en faut 100 pour cent."
        assert said in french.main
        assert "Il n’a pas encore demandé sa nouvelle stratégie." in french.main
        await french.open(f"{PATH}/new")
        assert "Planifier et comparer" in french.main
