"""Configurations deployed to collections of users: who is reached, how many, and who may."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import NOW, TENANT, Api, add_device
from tandem.cli.device import _settings as told
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import administrators, clients, collections, comanagement, deployments
from tandem.workloads import Workload

API = "/api/v1/configurations"
DESK = {"name": "Desk", "setting": "Desk/Colour", "value": "blue", "collection": "All Users"}
DC = Workload.DEVICE_CONFIGURATION.value


async def add_user(api: Api, name: str) -> None:
    user = collections.UserResource(TENANT, f"o-{name}", f"{name}@contoso.com", name.title())
    async with api.db.transaction() as tx:
        await collections.upsert_user(tx, user, api.clock[0])


@pytest.fixture
async def api(site_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    """LAB-001, Anna and Bert; more than two of either are for two administrators to decide about."""
    few = deployments.Safeguards(approval_above=2)
    async with site_api.site_api(site_db, tmp_path, safeguards=few) as made:
        for name in ("anna", "bert"):
            await add_user(made, name)
        async with made.db.transaction() as tx:
            await add_device(tx, "LAB-001")
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


async def collection(api: Api, name: str, *members: str, **more: Any) -> dict[str, Any]:
    rules = [{"kind": "direct", "user": f"{one}@contoso.com"} for one in members]
    wanted = {"name": name, "type": "user", "rules": rules, **more}
    answer = await api.web.post("/api/v1/collections", json=wanted)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def deployed(api: Api, **more: Any) -> dict[str, Any]:
    answer = await api.web.post(API, json={**DESK, **more})
    assert answer.status_code == 201, answer.text
    api.wait(seconds=1)
    found: dict[str, Any] = answer.json()
    return found


async def content_of(api: Api, user: str) -> dict[str, str]:
    """What the policy of a user on LAB-001 has."""
    async with api.db.transaction() as tx:
        found = await comanagement.content_of_user(
            tx,
            await comanagement.plan(tx),
            clients.ClientId("GUID:LAB-001"),
            TENANT,
            f"o-{user}",
        )
    return {item.setting: item.value for item in found}


async def test_what_is_deployed_to_users_reaches_those_of_the_collection(api: Api) -> None:
    await collection(api, "Painters", "anna")
    shown = await api.post(f"{API}/preview", {"collection": "Painters"})
    assert (shown["type"], shown["devices"], shown["all_devices"]) == ("user", 1, 2)
    made = await deployed(api, collection="Painters")
    assert made["type"] == "user"
    # Of two that set the same the older one holds, for users as for devices.
    await deployed(api, name="Later", value="red")
    await deployed(api, name="Size", setting="Desk/Size")
    assert await content_of(api, "anna") == {"Desk/Colour": "blue", "Desk/Size": "blue"}
    assert await content_of(api, "bert") == {"Desk/Colour": "red", "Desk/Size": "blue"}
    assert await content_of(api, "nobody") == {}
    # No device has it for itself.
    async with api.db.transaction() as tx:
        plan = await comanagement.plan(tx)
        own = await comanagement.content_of(tx, plan, clients.ClientId("GUID:LAB-001"), NOW)
    assert own.configurations == []
    listed = {one["name"]: one for one in await api.get(API)}
    assert (listed["Desk"]["type"], listed["Desk"]["members"]) == ("user", 1)
    # Taken back by one click.
    assert (await api.web.delete(f"{API}/Desk")).status_code == 204
    assert (await content_of(api, "anna"))["Desk/Colour"] == "red"
    uses = await api.get("/api/v1/collections/All Users/uses")
    assert "configuration" in {use["kind"] for use in uses}


async def test_many_users_need_two_administrators(api: Api) -> None:
    """Who approves says how many users they saw, and that it is still these."""
    await add_user(api, "carl")
    code, error = await api.refusal("POST", API, DESK)
    assert (code, error["code"]) == (400, "configuration.needs-reason")
    assert "3 users" in error["message"]
    answer = await api.web.post(API, json={**DESK, "reason": "all want blue"})
    made = answer.json()
    assert (answer.status_code, made["type"], made["devices"]) == (202, "user", 3)
    await api.sign_in("bea")
    (waits,) = await api.get(f"{API}/waiting")
    assert (waits["type"], waits["reaches"]) == ("user", 3)
    approve, seen = f"{API}/waiting/{made['id']}/approve", {"devices": 3, "seen": waits["seen"]}
    # As many, but others.
    await add_user(api, "dora")
    async with api.db.transaction() as tx:
        await collections.mark_gone(tx, TENANT, ["o-anna"], NOW)
    code, error = await api.refusal("POST", approve, seen)
    assert (code, error["code"]) == (409, "configuration.reaches-others")
    (waits,) = await api.get(f"{API}/waiting")
    answer = await api.web.post(approve, json={"devices": 3, "seen": waits["seen"]})
    assert answer.status_code == 201, answer.text
    assert await content_of(api, "dora") == {"Desk/Colour": "blue"}
    assert await content_of(api, "anna") == {}


async def test_a_collection_of_users_in_use_does_not_grow_beyond_one_administrators_word(
    api: Api,
) -> None:
    await collection(api, "Painters", "anna")
    await deployed(api, collection="Painters")
    for name in ("carl", "dora", "emil"):
        await add_user(api, name)
    many = {"rules": [{"kind": "query", "query": "select * from SMS_R_User", "name": "All"}]}
    code, error = await api.refusal("POST", "/api/v1/collections/Painters/rules", many)
    assert (code, error["code"]) == (409, "collection.grows-too-far"), error
    assert "4 more members" in error["message"]
    assert await content_of(api, "emil") == {}


async def test_who_is_limited_deploys_to_users_that_they_see(api: Api) -> None:
    await collection(api, "Paris", "anna")
    await collection(api, "Rome", "bert")
    who = {
        "name": "Pat",
        "password": site_api.PASSWORD,
        "role": "operations-administrator",
        "collections": ["Paris"],
    }
    answer = await api.web.post("/api/v1/administrators", json=who)
    assert answer.status_code == 201, answer.text
    await deployed(api, name="Theirs", collection="Rome")
    await api.sign_in("Pat")
    for other in ("Rome", "All Users"):
        code, error = await api.refusal("POST", API, {**DESK, "collection": other})
        assert (code, error["code"]) == (404, "collection.not-found")
    await deployed(api, collection="Paris")
    assert [one["name"] for one in await api.get(API)] == ["Desk"]
    assert await content_of(api, "anna") == {"Desk/Colour": "blue"}


async def test_a_devices_settings_say_which_came_by_its_user(api: Api, tmp_path: Path) -> None:
    """And that what is deployed to the device itself comes first."""
    await collection(api, "Painters", "anna")
    colour = await deployed(api, collection="Painters")
    await deployed(api, name="Size", setting="Desk/Size", value="big", collection="Painters")
    own = await deployed(api, name="Own", setting="Desk/Size", value="small", collection="SMS00001")
    applied = {
        "Desk/Colour": {"value": "blue", "configuration": colour["id"], "user": "o-anna"},
        "Desk/Size": {"value": "small", "configuration": own["id"]},
    }
    state = ccm.ComanagementState(
        0,
        False,
        False,
        0,
        applied={k: {"source": "site", "workload": DC, **v} for k, v in applied.items()},
        user="o-anna",
    )
    async with api.db.transaction() as tx:
        await clients.keep_state(tx, clients.ClientId("GUID:LAB-001"), state, api.clock[0])
    found = await api.get("/api/v1/devices/d-LAB-001/settings")
    lines = {one["setting"]: one for one in found["settings"]}
    assert lines["Desk/Colour"]["user"] == found["user"] == "anna@contoso.com"
    assert lines["Desk/Size"]["user"] == ""
    assert [(c["name"], c["role"], c["user"]) for c in lines["Desk/Size"]["contenders"]] == [
        ("Own", "wins", ""),
        ("Size", "loses", "anna@contoso.com"),
    ]
    assert "whoever is signed in" in lines["Desk/Size"]["contenders"][1]["why"]
    text = told(found)
    assert "site, for anna@contoso.com" in text
    page = await api.get("/api/v1/devices/d-LAB-001")
    shown = {one["name"]: one["user"] for one in page["configurations"]}
    assert shown == {"Own": "", "Desk": "anna@contoso.com"}
    listed = {one["name"]: one["applied"] for one in await api.get(API)}
    assert listed == {"Desk": 1, "Size": 0, "Own": 1}
    async with site_api.commands(api, tmp_path) as commands:
        assert (await commands.run("configuration", "preview", "Painters"))["type"] == "user"
        await commands.run("configuration", "delete", "Desk", "--yes")
    assert await content_of(api, "anna") == {"Desk/Size": "big"}
