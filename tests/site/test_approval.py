"""A deployment that reaches many devices: how many is said first, a second administrator, and back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import NOW, Api, add_device
from tandem import audit
from tandem.infra.database import Database
from tandem.site import administrators, collections, deployments

API = "/api/v1/configurations"
NEW = {"name": "Lock", "setting": "DeviceLock/Max", "value": "9", "collection": "SMS00001"}


@pytest.fixture
async def api(site_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    """A hundred and one devices: one more than one administrator reaches alone."""
    async with site_api.site_api(site_db, tmp_path) as made:
        async with made.db.transaction() as tx:
            for number in range(101):
                device = collections.Resource(f"GUID:{number}", f"PC-{number:03}", site_api.TENANT)
                await collections.upsert_resource(tx, device, NOW)
            await administrators.add(
                tx,
                "bea",
                site_api.PASSWORD,
                administrators.Role.FULL_ADMINISTRATOR,
                actor="test",
                now=NOW,
                settings=site_api.CHEAP,
            )
        await made.sign_in()
        yield made


async def asked(api: Api, **more: Any) -> dict[str, Any]:
    answer = await api.web.post(API, json={**NEW, "reason": "the audit asks for it", **more})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_what_reaches_many_devices_waits_for_somebody_else(api: Api) -> None:
    shown = await api.post(f"{API}/preview", {"collection": "All Systems"})
    assert (shown["devices"], shown["all_devices"], shown["needs_approval"]) == (101, 101, True)
    code, error = await api.refusal("POST", API, NEW)
    assert (code, error["code"]) == (400, "configuration.needs-reason")
    assert (error["details"]["devices"], "101 devices" in error["message"]) == (101, True)
    made = await asked(api)
    assert (made["state"], made["devices"]) == ("approval", 101)
    # No device gets it.
    assert await api.get(API) == []
    async with api.db.transaction() as tx:
        device = await collections.resource(tx, "PC-001")
        assert await deployments.holding(tx, device.id) == []
    (waits,) = await api.get(f"{API}/waiting")
    assert (waits["id"], waits["reaches"], waits["collection"]) == (made["id"], 101, "All Systems")
    approve, seen = f"{API}/waiting/{made['id']}/approve", {"devices": 101, "seen": waits["seen"]}
    code, error = await api.refusal("POST", approve, seen)
    assert (code, error["code"]) == (403, "configuration.second-administrator")
    await api.sign_in("bea")
    # Who approves says how many devices it was that they saw.
    code, error = await api.refusal("POST", approve, {**seen, "devices": 100})
    assert (code, error["details"]["devices"]) == (409, 101)
    answer = await api.web.post(approve, json=seen)
    assert (answer.status_code, answer.json()["state"]) == (201, "deployed")
    assert [item["name"] for item in await api.get(API)] == ["Lock"]
    assert await api.get(f"{API}/waiting") == []
    assert (await api.refusal("POST", approve, seen))[0] == 404
    async with api.db.transaction() as tx:
        device = await collections.resource(tx, "PC-001")
        assert [item.value for item in await deployments.holding(tx, device.id)] == ["9"]
        entries = await audit.entries(tx, limit=10)
    said = {item.action: item.actor for item in entries}
    assert said["configuration.approve"] == "bea"
    assert said["configuration.ask"] == said["configuration.create"] != "bea"
    # One click, and nobody has it any more.
    assert (await api.web.delete(f"{API}/Lock")).status_code == 204
    assert await api.get(API) == []


async def test_what_waits_is_cancelled_and_comes_to_an_end(api: Api) -> None:
    made = await asked(api)
    assert (await api.web.delete(f"{API}/waiting/{made['id']}")).status_code == 204
    assert (await api.refusal("DELETE", f"{API}/waiting/{made['id']}"))[0] == 404
    late = await asked(api)
    api.wait(hours=72)
    await api.sign_in("bea")
    assert await api.get(f"{API}/waiting") == []
    path = f"{API}/waiting/{late['id']}/approve"
    assert (await api.refusal("POST", path, {"devices": 101, "seen": ""}))[0] == 404
    assert await api.get(API) == []


async def test_a_few_devices_need_one_administrator(api: Api) -> None:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    few = {"name": "Few", "query": "select * from SMS_R_System where Name like 'PC-%'"}
    few["query"] += " and not Name like 'PC-000'"
    assert (await api.web.post("/api/v1/collections", json=few)).status_code == 201
    answer = await api.web.post(API, json={**NEW, "collection": "Few"})
    assert (answer.status_code, answer.json()["state"]) == (201, "deployed")
    # What would be refused is refused when it is asked for, not when somebody approves.
    code, error = await api.refusal("POST", API, {**NEW, "reason": "x"})
    assert (code, error["code"]) == (409, "configuration.name-taken")
    for wrong in ({"setting": "nonsense"}, {"collection": "Nowhere"}, {"reason": "x" * 2000}):
        status, _ = await api.refusal("POST", API, {**NEW, "name": "Other", "reason": "x", **wrong})
        assert status in (400, 404)


async def test_the_commands_of_approval(api: Api, tmp_path: Path) -> None:
    async with site_api.commands(api, tmp_path) as commands:
        run = commands.run
        assert (await run("configuration", "preview", "All Systems"))["needs_approval"]
        words = ("configuration", "create", "Lock", "--setting", "DeviceLock/Max", "--value", "9")
        refused = await commands.refusal(*words, "--collection", "SMS00001")
        assert "second administrator" in str(refused)
        made = await run(*words, "--collection", "SMS00001", "--reason", "audit")
        refused = await commands.refusal("configuration", "approve", made["id"], "--yes")
        assert "another administrator" in str(refused)
        assert len(await run("configuration", "waiting")) == 1
        await run("configuration", "cancel", made["id"])
        assert await run("configuration", "waiting") == []


async def test_what_waits_is_seen_by_who_shares_a_scope_and_keeps_the_scopes_of_who_asked(
    api: Api,
) -> None:
    """And no secret is told on the way, in the log of who did what neither."""
    await api.web.post("/api/v1/scopes", json={"name": "Paris"})
    await api.web.post("/api/v1/scopes", json={"name": "Rome"})
    for name, scope in (("Pat", "Paris"), ("Pia", "Paris"), ("Rob", "Rome")):
        who = {"name": name, "password": site_api.PASSWORD, "scopes": [scope]}
        who["role"] = "operations-administrator"
        assert (await api.web.post("/api/v1/administrators", json=who)).status_code == 201
    await api.sign_in("Pat")
    made = await asked(api, setting="WiFi/SharedKey", value="Tell-Nobody-7")
    approve = f"{API}/waiting/{made['id']}/approve"
    seen = {"devices": 101, "seen": (await api.get(f"{API}/waiting"))[0]["seen"]}
    await api.sign_in("Rob")
    assert await api.get(f"{API}/waiting") == []
    assert (await api.refusal("POST", approve, seen))[0] == 404
    assert (await api.refusal("DELETE", f"{API}/waiting/{made['id']}"))[0] == 404
    await api.sign_in("Pia")
    assert [item["id"] for item in await api.get(f"{API}/waiting")] == [made["id"]]
    assert (await api.web.post(approve, json=seen)).status_code == 201
    assert [item["name"] for item in await api.get(API)] == ["Lock"]
    await api.sign_in("Rob")
    assert await api.get(API) == []
    await api.sign_in()
    (held,) = await api.get("/api/v1/scopes/objects/configuration")
    assert held["scopes"] == ["Paris"]
    async with api.db.transaction() as tx:
        entries = await audit.entries(tx, limit=50)
    assert "Tell-Nobody-7" not in repr(entries)


async def test_who_approves_approves_the_devices_that_they_saw(api: Api) -> None:
    """As many others are others; so is another rule that brings the same ones."""
    rules = [{"kind": "query", "query": "select * from SMS_R_System where Name like 'PC-%'"}]
    new = await api.web.post("/api/v1/collections", json={"name": "Some", "rules": rules})
    path = f"/api/v1/collections/{new.json()['id']}"
    made = await asked(api, collection="Some")
    approve = f"{API}/waiting/{made['id']}/approve"
    (waits,) = await api.get(f"{API}/waiting")
    seen = {"devices": waits["reaches"], "seen": waits["seen"]}
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    query = {"kind": "query", "query": "select * from SMS_R_System where Name <> 'PC-000'"}
    assert (await api.web.patch(path, json={"rules": [query]})).json()["members"] == 101
    await api.sign_in("bea")
    code, error = await api.refusal("POST", approve, seen)
    assert (code, error["code"]) == (409, "configuration.reaches-others")
    assert (await api.refusal("POST", approve, {"devices": 101}))[0] == 400
    (waits,) = await api.get(f"{API}/waiting")
    seen = {"devices": waits["reaches"], "seen": waits["seen"]}
    assert (await api.web.post(approve, json=seen)).status_code == 201


async def _update(api: Api) -> dict[str, Any]:
    lab = {"package": "lab", "fixed_version": "2.0", "article": "CVE-2026-1"}
    assert (await api.web.post("/api/v1/software-updates", json=lab)).status_code == 201
    return {
        "url": "/api/v1/software-updates",
        "ask": "/api/v1/software-updates/decisions",
        "body": {
            # Twice by two spellings is once.
            "updates": ["CVE-2026-1", "cve-2026-1"],
            "decision": "approved",
            "deadline": NOW.isoformat(),
        },
        "reach": "/api/v1/software-updates/reach",
        "change": ("/api/v1/software-updates/import", "post", {"format": "csv", "content": _CSV}),
    }


_CSV = "package,fixed_version,article\nlab,3.0,CVE-2026-1\n"


async def _settings(api: Api) -> dict[str, Any]:
    url = "/api/v1/client-settings"
    body = {"name": "Inside", "settings": {"enable_cloud_management_gateway": False}}
    id = (await api.web.post(f"{url}/custom", json=body)).json()["id"]
    more = {"settings": {"policy_polling_minutes": 1440}}
    return {
        "url": url,
        "ask": f"{url}/custom/{id}/deployments",
        "body": {},
        "reach": f"{url}/custom/{id}/reach",
        "change": (f"{url}/custom/{id}", "patch", more),
    }


async def _decided(api: Api) -> int:
    """How many updates are approved for all, and how many settings deployed to them."""
    uses = await api.get("/api/v1/collections/SMS00001/uses")
    return sum(use["kind"] in ("software-update", "client-settings") for use in uses)


@pytest.mark.parametrize("prepare", [_update, _settings])
async def test_updates_and_client_settings_for_many_wait_too(api: Api, prepare: Any) -> None:
    of = await prepare(api)
    shown = await api.get(of["reach"], collection="SMS00001")
    assert shown["needs_approval"] is True
    body = {**of["body"], "collection": "SMS00001"}
    code, error = await api.refusal("POST", of["ask"], body)
    assert (code, error["code"], error["details"]["devices"]) == (400, "approval.needs-reason", 101)
    asked = {**body, "reason": "the audit asks for it"}
    made = await api.web.post(of["ask"], json=asked)
    assert (made.status_code, made.json()["state"], made.json()["devices"]) == (
        202,
        "approval",
        101,
    )
    # The same again is what waits already, and nobody has it.
    assert (await api.web.post(of["ask"], json=asked)).json()["id"] == made.json()["id"]
    (waits,) = await api.get(f"{of['url']}/waiting")
    assert (waits["reaches"], waits["asked_by"]) == (101, "siteadmin")
    assert await _decided(api) == 0
    approve = f"{of['url']}/waiting/{made.json()['id']}/approve"
    seen = {"devices": 101, "seen": waits["seen"]}
    code, error = await api.refusal("POST", approve, seen)
    assert (code, error["code"]) == (403, "approval.second-administrator")
    await api.sign_in("bea")
    assert (await api.refusal("POST", approve, {**seen, "devices": 100}))[0] == 409
    # What is to be done is another thing by now: who approves has not seen it.
    path, method, change = of["change"]
    assert (await getattr(api.web, method)(path, json=change)).is_success
    code, error = await api.refusal("POST", approve, seen)
    assert (code, error["code"]) == (409, "approval.reaches-others")
    (waits,) = await api.get(f"{of['url']}/waiting")
    answer = await api.web.post(approve, json={"devices": 101, "seen": waits["seen"]})
    assert answer.status_code == 201, answer.text
    assert await _decided(api) == 1
    assert (await api.refusal("POST", approve, seen))[0] == 404
    assert await api.get(f"{of['url']}/waiting") == []
    async with api.db.transaction() as tx:
        said = {entry.action: entry.actor for entry in await audit.entries(tx)}
    kind = "software-update" if prepare is _update else "client-settings"
    assert (said[f"{kind}.ask"], said[f"{kind}.agree"]) == ("siteadmin", "bea")
    # Nobody is asked before it is taken back, and what waits may be cancelled.
    if prepare is _update:
        declined = {**body, "decision": "declined", "deadline": None}
        assert (await api.web.post(of["ask"], json=declined)).status_code == 200
        waits = (await api.web.post(of["ask"], json=asked)).json()
        assert (await api.web.delete(f"{of['url']}/waiting/{waits['id']}")).status_code == 204
        assert await api.get(f"{of['url']}/waiting") == []
