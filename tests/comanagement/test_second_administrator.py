"""All Systems by mistake: a change that reaches many devices waits for a second administrator."""

from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import NOW, Api, add_device
from tandem.site import administrators

URL = "/api/v1/comanagement"
SLIDER = f"{URL}/workloads/client-apps"
# One more than one administrator reaches alone.
MANY = 101


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Co-managed devices, as many enrolled as not, and a second full administrator."""
    async with api.db.transaction() as tx:
        for number in range(MANY):
            await add_device(tx, f"LAB-{number:03}", flags=8193)
        await administrators.add(
            tx,
            "bea",
            site_api.PASSWORD,
            administrators.Role.FULL_ADMINISTRATOR,
            actor="test",
            now=NOW,
            settings=site_api.CHEAP,
        )
    query = "select * from SMS_R_System where Name = 'LAB-001'"
    new = {"name": "Pilot", "query": query}
    assert (await api.web.post("/api/v1/collections", json=new)).status_code == 201
    enabled = {"automatic_enrollment": "none", "access_token": "t"}
    assert (await api.web.put(URL, json=enabled)).status_code == 200
    return api


async def position(api: Api) -> str:
    return str((await api.get(SLIDER))["position"])


async def asked(api: Api, path: str, wanted: dict[str, Any]) -> dict[str, Any]:
    code, error = await api.refusal("PUT", path, wanted)
    assert (code, error["code"]) == (400, "comanagement.needs-reason")
    assert error["details"]["devices"] == MANY
    assert error["details"]["field"] == "reason"
    answer = await api.web.put(path, json={**wanted, "reason": "the pilot is done"})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert (found["state"], found["devices"]) == ("approval", MANY)
    return found


async def test_a_slider_for_all_waits_for_somebody_else(fleet: Api) -> None:
    few = {"position": "pilot", "collection": "Pilot"}
    assert (await fleet.web.put(SLIDER, json=few)).status_code == 200
    shown = await fleet.post(f"{URL}/preview", {"workloads": {"client-apps": {"position": "mdm"}}})
    assert (shown["reaches"], shown["needs_approval"]) == (MANY - 1, False)
    # Back at the site, so that all of them would change owner.
    assert (await fleet.web.put(SLIDER, json={"position": "site"})).status_code == 200
    everybody = {"position": "mdm"}
    shown = await fleet.post(f"{URL}/preview", {"workloads": {"client-apps": everybody}})
    assert (shown["reaches"], shown["needs_approval"]) == (MANY, True)
    made = await asked(fleet, SLIDER, everybody)
    assert await position(fleet) == "site"
    again = await fleet.web.put(SLIDER, json={**everybody, "reason": "sent twice"})
    assert (again.status_code, again.json()["id"]) == (202, made["id"])
    (waits,) = await fleet.get(f"{URL}/waiting")
    assert (waits["id"], waits["reaches"], waits["problem"]) == (made["id"], MANY, "")
    assert waits["changes"] == ["client-apps: mdm"]
    approve = f"{URL}/waiting/{made['id']}/approve"
    seen = {"devices": MANY, "seen": waits["seen"]}
    code, error = await fleet.refusal("POST", approve, seen)
    assert (code, error["code"]) == (403, "comanagement.second-administrator")
    await fleet.sign_in("bea")
    code, error = await fleet.refusal("POST", approve, {**seen, "devices": MANY - 1})
    assert (code, error["details"]["devices"]) == (409, MANY)
    assert await position(fleet) == "site"
    answer = await fleet.web.post(approve, json=seen)
    assert answer.status_code == 200, answer.text
    assert await position(fleet) == "mdm"
    assert (await fleet.refusal("POST", approve, seen))[0] == 404
    assert await fleet.get(f"{URL}/waiting") == []
    log = await fleet.get("/api/v1/site/audit")
    said = {item["action"]: item["actor"] for item in log}
    assert said["comanagement.approve"] == "bea"
    assert said["comanagement.ask"] == said["comanagement.switch"] == "siteadmin"
    # The way back waits for nobody.
    assert (await fleet.web.put(SLIDER, json={"position": "site"})).status_code == 200
    assert await position(fleet) == "site"


async def test_enrolment_for_all_waits_too_and_keeps_no_token(fleet: Api) -> None:
    async with fleet.db.transaction() as tx:
        for number in range(MANY):
            await add_device(tx, f"NEW-{number:03}", enrolled=False)
    wanted = {"automatic_enrollment": "all", "access_token": "Secret-Token-9"}
    made = await asked(fleet, URL, wanted)
    assert (await fleet.get(URL))["enablement"]["auto_enroll"] == "none"
    async with fleet.db.transaction() as tx:
        rows = [str(row) async for row in await tx.execute("SELECT * FROM comanagement_waiting")]
    assert len(rows) == 1
    assert "Secret-Token-9" not in rows[0]
    # The tenant is asked when it is asked for, not when somebody approves.
    fleet.cloud.mdm_authority = False
    code, error = await fleet.refusal("PUT", URL, {**wanted, "reason": "x"})
    assert (code, error["code"]) == (409, "cloud.no-mdm-authority")
    await fleet.sign_in("bea")
    (waits,) = await fleet.get(f"{URL}/waiting")
    approve = f"{URL}/waiting/{made['id']}/approve"
    seen = {"devices": MANY, "seen": waits["seen"]}
    assert (await fleet.web.post(approve, json=seen)).status_code == 200
    assert (await fleet.get(URL))["enablement"]["auto_enroll"] == "all"


async def test_who_approves_approves_the_devices_that_they_saw(fleet: Api) -> None:
    """As many others are others."""
    query = "select * from SMS_R_System where Name {} 'LAB-%'"
    async with fleet.db.transaction() as tx:
        for number in range(MANY):
            await add_device(tx, f"PC-{number:03}", flags=8193)
    new = {"name": "Some", "query": query.format("like")}
    assert (await fleet.web.post("/api/v1/collections", json=new)).status_code == 201
    made = await asked(fleet, SLIDER, {"position": "pilot", "collection": "Some"})
    approve = f"{URL}/waiting/{made['id']}/approve"
    (waits,) = await fleet.get(f"{URL}/waiting")
    seen = {"devices": waits["reaches"], "seen": waits["seen"]}
    other = {"rules": [{"kind": "query", "query": query.format("not like")}]}
    changed = await fleet.web.patch("/api/v1/collections/Some", json=other)
    assert changed.json()["members"] == MANY
    await fleet.sign_in("bea")
    code, error = await fleet.refusal("POST", approve, seen)
    assert (code, error["code"]) == (409, "comanagement.reaches-others")
    assert (await fleet.refusal("POST", approve, {"devices": MANY}))[0] == 400
    (waits,) = await fleet.get(f"{URL}/waiting")
    assert waits["reaches"] == MANY
    seen = {"devices": MANY, "seen": waits["seen"]}
    assert (await fleet.web.post(approve, json=seen)).status_code == 200


async def test_what_waits_is_cancelled_ends_and_says_when_it_cannot_be_done(fleet: Api) -> None:
    made = await asked(fleet, SLIDER, {"position": "mdm"})
    assert (await fleet.web.delete(f"{URL}/waiting/{made['id']}")).status_code == 204
    assert (await fleet.refusal("DELETE", f"{URL}/waiting/{made['id']}"))[0] == 404
    everybody = {"name": "Everybody", "query": "select * from SMS_R_System"}
    assert (await fleet.web.post("/api/v1/collections", json=everybody)).status_code == 201
    late = await asked(fleet, SLIDER, {"position": "pilot", "collection": "Everybody"})
    assert (await fleet.web.delete("/api/v1/collections/Everybody")).status_code == 204
    (waits,) = await fleet.get(f"{URL}/waiting")
    assert (waits["reaches"], "Everybody" in waits["problem"]) == (0, True)
    await fleet.sign_in("bea")
    path = f"{URL}/waiting/{late['id']}/approve"
    assert (await fleet.refusal("POST", path, {"devices": MANY, "seen": ""}))[0] == 404
    fleet.wait(hours=72)
    await fleet.sign_in("bea")
    assert await fleet.get(f"{URL}/waiting") == []
    assert await position(fleet) == "site"
    wrong = f"{URL}/workloads/coffee"
    assert (await fleet.refusal("PUT", wrong, {"position": "mdm", "reason": "x"}))[0] == 400


async def test_the_commands_of_approval(fleet: Api, tmp_path: Path) -> None:
    async with site_api.commands(fleet, tmp_path) as commands:
        run = commands.run
        words = ("comanagement", "switch", "client-apps", "mdm", "--yes")
        assert "second administrator" in str(await commands.refusal(*words))
        made = await run(*words, "--reason", "the pilot is done")
        assert made["state"] == "approval"
        refused = await commands.refusal("comanagement", "approve", made["id"], "--yes")
        assert "another administrator" in str(refused)
        assert len(await run("comanagement", "waiting")) == 1
        await run("comanagement", "cancel", made["id"])
        assert await run("comanagement", "waiting") == []
        made = await run(
            "comanagement", "enable", "--workload", "client-apps=mdm", "--reason", "now all"
        )
        assert made["state"] == "approval"
