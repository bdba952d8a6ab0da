"""A roll-out that reaches many devices waits for a second administrator, as other changes do."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import site_api
from browsing import Browser, browsing
from rollout_world import URL, Site, rollout_site
from site_api import NOW, add_device
from tandem import console
from tandem.console.site_pages import SitePages
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.site import administrators, deployments

PATH = "/console/comanagement/rollouts"


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    """Four co-managed devices, of which one administrator moves two alone; and a second one, Bea."""
    few = deployments.Safeguards(approval_above=2)
    async with site_api.site_api(site_db, tmp_path, safeguards=few) as api:
        await api.sign_in()
        async with rollout_site(api) as made:
            async with api.db.transaction() as tx:
                await administrators.add(
                    tx,
                    "bea",
                    site_api.PASSWORD,
                    administrators.Role.FULL_ADMINISTRATOR,
                    actor="test",
                    now=NOW,
                    settings=site_api.CHEAP,
                )
            yield made


async def asked(site: Site) -> dict[str, Any]:
    return await site.plan("Pilot", "All Systems", reason="the pilot is well")


async def approved(site: Site, id: str) -> dict[str, Any]:
    """Bea has looked at it as it is, and agrees."""
    await site.api.sign_in("bea")
    shown = await site.show(id)
    found = await site.act(id, "approve", devices=shown["devices"], seen=shown["seen"])
    await site.api.sign_in()
    return found


async def test_what_reaches_few_starts_as_ever(site: Site) -> None:
    found = await site.plan("Second")
    assert (found["devices"], found["needs_approval"], found["reaches_far"]) == (2, False, False)
    assert (await site.act(found["id"], "start", accept_gaps=True))["state"] == "running"


async def test_what_reaches_many_needs_a_reason_and_somebody_else(site: Site) -> None:
    rings = [{"collection": "Pilot"}, {"collection": "All Systems"}]
    wanted = {"workload": "device-configuration", "rings": rings}
    code, error = await site.api.refusal("POST", URL, wanted)
    assert (code, error["code"]) == (400, "rollout.needs-reason")
    assert (error["details"]["devices"], error["details"]["field"]) == (4, "reason")
    assert (await site.api.get(URL))["items"] == []
    code, error = await site.api.refusal("POST", URL, {**wanted, "reason": "x" * 1025})
    assert (code, error["code"]) == (400, "rollout.needs-reason")

    found = await asked(site)
    id = found["id"]
    assert (found["needs_approval"], found["reason"]) == (True, "the pilot is well")
    assert (await site.api.get(URL))["items"][0]["needs_approval"]
    everything = {"accept_gaps": True, "confirm": 4}
    code, error = await site.api.refusal("POST", f"{URL}/{id}/start", everything)
    assert (code, error["code"]) == (409, "rollout.needs-approval")
    assert error["details"]["devices"] == 4
    seen = {"devices": 4, "seen": found["seen"]}
    _, error = await site.api.refusal("POST", f"{URL}/{id}/approve", seen)
    assert error["code"] == "rollout.needs-approval"
    assert "You planned" in error["message"]
    assert await site.flags("LAB-001") == 8193

    assert (await approved(site, id))["approved_by"] == "bea"
    assert (await site.act(id, "start", **everything))["state"] == "running"
    (told,) = [e for e in (await site.show(id))["history"] if e["action"] == "rollout.approve"]
    assert told["details"]["reason"] == "the pilot is well"


async def test_who_approves_has_seen_the_devices_and_the_gaps(site: Site) -> None:
    found = await asked(site)
    id, approve = found["id"], f"{URL}/{found['id']}/approve"
    await site.api.sign_in("bea")
    for wrong in ({}, {"devices": 3, "seen": found["seen"]}, {"devices": 4, "seen": "x"}):
        code, error = await site.api.refusal("POST", approve, wrong)
        assert (code, error["code"]) == (409, "rollout.reaches-others"), wrong
    async with site.api.db.transaction() as tx:
        await add_device(tx, "LAB-006", flags=8193)
    # Whoever planned it has it compared again: it is for other devices.
    await site.api.sign_in()
    await site.act(id, "analyse")
    await site.api.sign_in("bea")
    seen = {"devices": 5, "seen": (await site.show(id))["seen"]}
    code, error = await site.api.refusal("POST", approve, seen)
    assert (code, error["code"]) == (409, "rollout.not-analysed")
    await site.conductor.tend()
    for old in ({"devices": 4, "seen": found["seen"]}, seen):
        code, error = await site.api.refusal("POST", approve, old)
        assert (code, error["code"]) == (409, "rollout.reaches-others")
    assert (await approved(site, id))["approved_by"] == "bea"
    # And what was approved is not what has come since.
    async with site.api.db.transaction() as tx:
        await add_device(tx, "LAB-007", flags=8193)
    code, error = await site.api.refusal("POST", f"{URL}/{id}/start", {"accept_gaps": True})
    assert error["code"] == "rollout.not-analysed"
    assert (await site.act(id, "analyse"))["needs_approval"]


async def test_a_plan_waits_for_three_days(site: Site) -> None:
    found = await asked(site)
    site.api.wait(hours=72)
    await site.api.sign_in("bea")
    seen = {"devices": 4, "seen": found["seen"]}
    code, error = await site.api.refusal("POST", f"{URL}/{found['id']}/approve", seen)
    assert (code, error["code"]) == (409, "rollout.needs-approval")
    assert "older than 72 hours" in error["message"]
    await site.act(found["id"], "analyse")
    await site.conductor.tend()
    assert (await approved(site, found["id"]))["approved_by"] == "bea"


async def test_a_plan_that_has_come_to_reach_far_asks_for_its_reason(site: Site) -> None:
    query = "select * from SMS_R_System where Name like 'LAB-00[1267]'"
    wanted = {"name": "Floor", "query": query}
    assert (await site.api.web.post("/api/v1/collections", json=wanted)).status_code == 201
    id = (await site.plan("Floor"))["id"]
    async with site.api.db.transaction() as tx:
        for name in ("LAB-006", "LAB-007"):
            await add_device(tx, name, flags=8193)
    code, error = await site.api.refusal("POST", f"{URL}/{id}/analyse", {})
    assert (code, error["code"]) == (400, "rollout.needs-reason")
    assert (await site.act(id, "analyse", reason="they came"))["needs_approval"]


async def test_anybody_who_may_cancels_with_one_word(site: Site, tmp_path: Path) -> None:
    """And the commands say who waits for whom."""
    api = site.api
    async with site_api.commands(api, tmp_path) as commands:
        plan = ("rollout", "plan", "device-configuration", "--ring", "All Systems", "--no-wait")
        assert (await commands.refusal(*plan)).code == "rollout.needs-reason"
        made = await commands.run(*plan, "--reason", "the pilot is well")
        assert made["needs_approval"]
        await site.conductor.tend()
        refused = await commands.refusal("rollout", "approve", made["id"])
        assert refused.code == "rollout.needs-approval"
        refused = await commands.refusal(
            "rollout", "start", made["id"], "--accept-gaps", "--confirm", "4"
        )
        assert refused.code == "rollout.needs-approval"
        assert "tandem rollout approve" in refused.cure
        assert (await commands.run("rollout", "cancel", made["id"]))["state"] == "cancelled"


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    api = site.api

    def now() -> Any:
        return api.clock[0]

    async def token(session: console.Session) -> str:
        return session.token

    behind = console.Backend(
        console.Transport("https://site"),
        token,
        console.Drafts(api.db, SecretBox(b"k" * 32), now),
    )
    pages = SitePages(api.db, now=now, settings=site_api.CHEAP)
    api.app.router.routes.extend(console.site_routes(pages, now=now, backend=behind))
    behind.transport.app = api.app
    async with browsing(api.app, "bea", site_api.PASSWORD) as made:
        yield made


async def test_the_second_administrator_finds_it_on_the_pages(site: Site, browser: Browser) -> None:
    await browser.open(f"{PATH}/new")
    everybody = {
        "workload": "device-configuration",
        "pilot": str((await site.api.get("/api/v1/collections/Pilot"))["id"]),
        "everybody": "1",
    }
    await browser.press("Plan and compare", **everybody)
    assert "a second administrator has to approve it, and needs a reason" in browser.main
    await browser.open("/console/approvals")
    assert "Nothing waits for a second administrator." in browser.main
    id = (await asked(site))["id"]
    paint = {"name": "Paint", "setting": "Desk/Paint", "value": "blue", "collection": "SMS00001"}
    await site.api.web.post("/api/v1/configurations", json={**paint, "reason": "it is nicer"})
    slider = {"position": "mdm", "reason": "the pilot is done"}
    moved = await site.api.web.put("/api/v1/comanagement/workloads/client-apps", json=slider)
    assert moved.status_code == 202, moved.text
    await browser.open("/console/approvals")
    for said in (
        "Roll-out Pilot, All Systems",
        "the pilot is well",
        "Paint",
        "it is nicer",
        "client-apps: mdm",
        "the pilot is done",
    ):
        assert said in browser.main, browser.main
    await browser.open("/console/notifications")
    assert "a roll-out waits for a second administrator" in browser.main
    await browser.open(PATH)
    assert "Waits for a second administrator" in browser.main
    await browser.open(f"{PATH}/{id}")
    assert "It reaches 4 devices, and waits for a second administrator." in browser.main
    assert "Reason: the pilot is well" in browser.main
    await browser.press("Approve")
    assert "Approved by bea." in browser.main
    # One that nobody wants is gone by one click.
    other = (await asked(site))["id"]
    await browser.open(f"{PATH}/{other}")
    await browser.press("Cancel")
    assert (await site.show(other))["state"] == "cancelled"
