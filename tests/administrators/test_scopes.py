"""What an administrator who is limited sees, and that nothing else gets out by any door."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb
from test_operations import person

import site_api
from site_api import NOW, TENANT, Api, add_device
from tandem import audit
from tandem.infra.database import Database
from tandem.site import clients, collections


class Limited:
    """A site with devices in Paris and Rome, and an administrator who is limited to Paris."""

    def __init__(self, api: Api, web: httpx.AsyncClient, paris: str, rome: str) -> None:
        self.api = api
        self.web = web
        self.paris = paris
        self.rome = rome

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.web.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def code(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        answer = await self.web.request(method, path, json=body)
        told = answer.json() if answer.content else {}
        return answer.status_code, told["error"]["code"] if "error" in told else ""


@pytest.fixture
async def limited(api: Api, site_db: Database) -> Any:
    async with site_db.transaction() as tx:
        for name in ("paris-1", "paris-2", "rome-1"):
            await add_device(tx, name)
    ids = {}
    for city in ("Paris", "Rome"):
        devices = [
            f"GUID:{n.upper()}"
            for n in ("paris-1", "paris-2", "rome-1")
            if n.startswith(city.lower())
        ]
        rules = [{"kind": "direct", "device": device} for device in devices]
        answer = await api.web.post("/api/v1/collections", json={"name": city, "rules": rules})
        assert answer.status_code == 201, answer.text
        ids[city] = answer.json()["id"]
        assert (await api.web.post("/api/v1/scopes", json={"name": city})).status_code == 201
    await api.keeper.settle_all()
    limits = {"scopes": ["paris"], "collections": ["Paris"]}
    async with person(api, "Pat", "operations-administrator", **limits) as web:
        yield Limited(api, web, ids["Paris"], ids["Rome"])


async def test_lists_leave_out_what_is_hidden(limited: Limited) -> None:
    devices = await limited.get("/api/v1/devices")
    assert [item["name"] for item in devices["devices"]] == ["paris-1", "paris-2"]
    assert devices["total"] == 2
    found = await limited.get("/api/v1/devices", search="*rome")
    assert (found["devices"], found["total"]) == ([], 0)
    clients = await limited.get("/api/v1/clients")
    assert ({c["name"] for c in clients["clients"]}, clients["total"]) == (
        {"paris-1", "paris-2"},
        2,
    )
    resources = await limited.get("/api/v1/resources")
    assert ([r["name"] for r in resources["items"]], resources["total"]) == (
        ["paris-1", "paris-2"],
        2,
    )
    collections = await limited.get("/api/v1/collections")
    assert ([c["name"] for c in collections["items"]], collections["total"]) == (["Paris"], 1)
    said = str(await limited.get("/api/v1/search", q="r")) + str(
        await limited.get("/api/v1/search", q="p")
    )
    assert "rome" not in said.lower()
    assert "paris-1" in said


async def test_what_is_hidden_is_not_found_by_its_id_or_name(limited: Limited) -> None:
    rome = limited.rome
    for method, path in (
        ("GET", f"/api/v1/collections/{rome}"),
        ("GET", "/api/v1/collections/Rome"),
        ("GET", "/api/v1/collections/SMS00001"),
        ("PATCH", f"/api/v1/collections/{rome}"),
        ("DELETE", f"/api/v1/collections/{rome}"),
        ("POST", f"/api/v1/collections/{rome}/evaluate"),
        ("GET", f"/api/v1/collections/{rome}/members"),
        ("GET", f"/api/v1/collections/{rome}/rules"),
        ("GET", f"/api/v1/collections/{rome}/uses"),
        ("GET", "/api/v1/devices/d-rome-1"),
        ("GET", "/api/v1/devices/d-rome-1/ledger"),
        ("GET", "/api/v1/clients/GUID:ROME-1"),
        ("POST", "/api/v1/clients/GUID:ROME-1/block"),
        ("DELETE", "/api/v1/clients/GUID:ROME-1"),
        ("GET", "/api/v1/client-settings/resultant/rome-1"),
        ("GET", "/api/v1/client-settings/resultant/GUID:ROME-1"),
    ):
        body = {} if method != "GET" else None
        unknown = path
        for there, nowhere in (
            (rome, "CM199999"),
            ("SMS00001", "SMS99999"),
            ("/Rome", "/Nowhere"),
            ("rome-1", "nowhere-1"),
            ("ROME-1", "NOWHERE-1"),
        ):
            unknown = unknown.replace(there, nowhere)
        assert unknown != path
        status, code = await limited.code(method, path, body)
        assert (status, code) == await limited.code(method, unknown, body), (method, path)
        assert status == 404, (method, path, code)
    assert (await limited.get("/api/v1/devices/d-paris-1"))["device"]["name"] == "paris-1"
    assert (await limited.get("/api/v1/clients/GUID:PARIS-1"))["client"]["name"] == "paris-1"


async def test_a_hidden_thing_cannot_be_drawn_in_by_naming_it(limited: Limited) -> None:
    """As the limiting collection, by a rule, in a preview, in a selection of devices."""
    new = {"name": "All of it"}
    assert (await limited.code("POST", "/api/v1/collections", new))[0] == 404
    mine = {**new, "limiting": limited.paris}
    for rule in (
        {"kind": "include", "collection": limited.rome},
        {"kind": "direct", "device": "rome-1"},
        {"kind": "direct", "device": "GUID:ROME-1"},
    ):
        wanted = {**mine, "rules": [rule]}
        assert (await limited.code("POST", "/api/v1/collections", wanted))[0] == 404, rule
        asked = {"limiting": limited.paris, "rules": [rule]}
        assert (await limited.code("POST", "/api/v1/collections/preview", asked))[0] == 404
    query = {"kind": "query", "query": "select * from SMS_R_System"}
    asked = {"limiting": limited.paris, "rules": [query]}
    answer = await limited.web.post("/api/v1/collections/preview", json=asked)
    assert answer.json()["members"] == 2
    for body in ({"devices": ["d-rome-1"]}, {"filter": {"search": "rome"}}):
        answer = await limited.web.post("/api/v1/devices/selection", json=body)
        assert answer.json().get("devices", 0) == 0
        await limited.web.post("/api/v1/devices/block", json={**body, "expected": 1})
    everything = {"filter": {}}
    answer = await limited.web.post("/api/v1/devices/selection", json=everything)
    assert (answer.json()["devices"], answer.json()["names"]) == (2, ["paris-1", "paris-2"])
    found = await limited.api.get("/api/v1/devices")
    assert not any(item["blocked"] for item in found["devices"])


async def test_client_settings_name_no_collection_that_is_hidden(limited: Limited) -> None:
    """Who is limited sees what holds for their devices, and changes it for nobody."""
    api, url = limited.api.web, "/api/v1/client-settings/custom"
    wanted = {"name": "Busy", "settings": {"policy_polling_minutes": 5}}
    assert (await api.post(url, json=wanted)).status_code == 201
    all_systems = {"collection": "SMS00001"}
    for to in ({"collection": "Paris"}, {"collection": "Rome"}, all_systems):
        assert (await api.post(f"{url}/Busy/deployments", json=to)).status_code == 201
    for path in (url, f"{url}/Busy"):
        found = await limited.get(path)
        one = found[0] if isinstance(found, list) else found
        assert [to["collection"] for to in one["deployments"]] == ["Paris"]
    found = await limited.get("/api/v1/client-settings/resultant/paris-1")
    polling = next(one for one in found["settings"] if one["name"] == "policy_polling_minutes")
    assert [to["name"] for to in polling["winner"]["collections"]] == ["Paris"]
    missing = await limited.code("GET", "/api/v1/client-settings/resultant/rome-1")
    assert missing == (404, "resource.not-found")
    for method, path, body in (
        ("POST", url, wanted),
        ("PATCH", f"{url}/Busy", {"priority": 1}),
        ("DELETE", f"{url}/Busy", None),
        ("POST", f"{url}/Busy/deployments", {"collection": "Paris"}),
        ("GET", "/api/v1/client-settings/resultant-user/anybody", None),
    ):
        assert (await limited.code(method, path, body))[0] == 403


async def test_nobody_widens_the_collection_that_limits_them(limited: Limited) -> None:
    paris = limited.paris
    query = {"kind": "query", "query": "select * from SMS_R_System"}
    for method, path, body in (
        ("PATCH", f"/api/v1/collections/{paris}", {"rules": [query]}),
        ("POST", f"/api/v1/collections/{paris}/rules", {"rules": [query]}),
        ("POST", f"/api/v1/collections/{paris}/members", {"devices": ["paris-1"]}),
        ("DELETE", f"/api/v1/collections/{paris}", None),
        ("DELETE", f"/api/v1/collections/{paris}/rules/1", None),
    ):
        assert await limited.code(method, path, body) == (403, "collection.limits-you")
    part = {"name": "Part", "limiting": paris, "rules": [query]}
    answer = await limited.web.post("/api/v1/collections", json=part)
    assert (answer.status_code, answer.json()["members"]) == (201, 2)


async def test_when_the_collection_that_limits_is_gone_nothing_is_seen(limited: Limited) -> None:
    """Never everything: an empty limit is not the same as none."""
    assert (await limited.api.web.delete(f"/api/v1/collections/{limited.paris}")).status_code == 204
    assert (await limited.get("/api/v1/devices"))["total"] == 0
    assert (await limited.get("/api/v1/collections"))["total"] == 0
    assert (await limited.get("/api/v1/resources"))["total"] == 0


async def test_configurations_carry_the_scopes_of_who_made_them(limited: Limited) -> None:
    new = {"setting": "Demo/A", "value": "1"}
    theirs = {**new, "name": "Of all", "collection": limited.paris}
    made = await limited.api.web.post("/api/v1/configurations", json=theirs)
    assert made.status_code == 201, made.text
    assert await limited.get("/api/v1/configurations") == []
    hidden = f"/api/v1/configurations/{made.json()['id']}"
    assert (await limited.code("DELETE", hidden))[0] == 404
    mine = {**new, "name": "Of Paris", "setting": "Demo/B", "collection": limited.paris}
    assert (await limited.web.post("/api/v1/configurations", json=mine)).status_code == 201
    assert [c["name"] for c in await limited.get("/api/v1/configurations")] == ["Of Paris"]
    # Of a device's settings, neither: what somebody else's configuration wants is not told.
    settings = "/api/v1/devices/d-paris-1/settings"
    assert [s["setting"] for s in (await limited.get(settings))["settings"]] == ["Demo/B"]
    every = (await limited.api.get(settings))["settings"]
    assert [s["setting"] for s in every] == ["Demo/A", "Demo/B"]
    elsewhere = {**mine, "name": "Of Rome", "collection": limited.rome}
    assert (await limited.code("POST", "/api/v1/configurations", elsewhere))[0] == 404
    given = await limited.api.web.put(
        f"/api/v1/scopes/objects/configuration/{made.json()['id']}",
        json={"scopes": ["Paris", "Rome"]},
    )
    assert given.status_code == 200, given.text
    assert len(await limited.get("/api/v1/configurations")) == 2


async def test_the_adminservice_shows_a_limited_administrator_their_part(limited: Limited) -> None:
    wmi = "/AdminService/wmi"
    for kind in ("SMS_R_System", "SMS_CombinedDeviceResources"):
        assert [row["Name"] for row in (await limited.get(f"{wmi}/{kind}"))["value"]] == [
            "paris-1",
            "paris-2",
        ]
        filtered = await limited.get(
            f"{wmi}/{kind}", **{"$filter": "Name eq 'rome-1'", "$count": "true"}
        )
        assert (filtered["value"], filtered["@odata.count"]) == ([], 0)
    assert [row["Name"] for row in (await limited.get(f"{wmi}/SMS_Collection"))["value"]] == [
        "Paris"
    ]
    members = (await limited.get(f"{wmi}/SMS_FullCollectionMembership"))["value"]
    assert {row["CollectionID"] for row in members} == {limited.paris}
    expanded = await limited.get(
        "/AdminService/v1.0/ResourceCollectionMembership", **{"$expand": "Collection"}
    )
    assert {row["Collection"]["Name"] for row in expanded["value"]} == {"Paris"}
    everyone = (await limited.api.get(f"{wmi}/SMS_R_System"))["value"]
    rome = next(row["ResourceId"] for row in everyone if row["Name"] == "rome-1")
    for path in (
        f"SMS_R_System({rome})",
        f"SMS_Collection('{limited.rome}')",
        f"SMS_CM_RES_COLL_{limited.rome}",
    ):
        assert (await limited.web.get(f"{wmi}/{path}")).status_code == 404, path
    assert (await limited.web.delete(f"{wmi}/SMS_R_System({rome})")).status_code == 404
    for path in (
        "SMS_Admin",
        "SMS_Role",
        "SMS_AzureService",
        "SMS_CoManagementSettings",
    ):
        assert (await limited.web.get(f"{wmi}/{path}")).status_code == 403, path


async def test_rights_that_change_hold_in_open_sessions_at_once(limited: Limited) -> None:
    assert (await limited.get("/api/v1/devices"))["total"] == 2
    pat = "/api/v1/administrators/Pat"
    await limited.api.web.patch(pat, json={"collections": ["Rome"]})
    assert [d["name"] for d in (await limited.get("/api/v1/devices"))["devices"]] == ["rome-1"]
    await limited.api.web.patch(pat, json={"collections": [], "scopes": ["All"]})
    assert (await limited.get("/api/v1/devices"))["total"] == 3
    await limited.api.web.patch(pat, json={"role": "read-only-analyst"})
    assert await limited.code("POST", "/api/v1/devices/block", {"devices": ["d-rome-1"]}) == (
        403,
        "site.not-allowed",
    )


async def test_what_changed_is_in_the_audit_log_before_and_after(
    limited: Limited, site_db: Database
) -> None:
    await limited.api.web.patch(
        "/api/v1/administrators/Pat", json={"scopes": ["Rome"], "role": "read-only-analyst"}
    )
    async with site_db.transaction() as tx:
        entry = (await audit.entries(tx, target="Pat"))[0]
    assert entry.details["changed"] == [
        {"name": "role", "old": "Operations Administrator", "new": "Read-only Analyst"},
        {"name": "scopes", "old": ["Paris"], "new": ["Rome"]},
    ]


async def test_the_last_full_administrator_is_not_limited(api: Api) -> None:
    await api.web.post("/api/v1/scopes", json={"name": "Paris"})
    for change in (
        {"scopes": ["Paris"]},
        {"collections": ["SMS00001"]},
        {"role": "infrastructure-administrator"},
    ):
        code, error = await api.refusal("PATCH", "/api/v1/administrators/siteadmin", change)
        assert (code, error["code"]) == (409, "site.last-full-administrator"), change
    # One who is limited does not count: they could limit nobody, and widen nobody.
    async with person(api, "Lim", "full-administrator", scopes=["Paris"]):
        code, _ = await api.refusal("DELETE", "/api/v1/administrators/siteadmin")
        assert code == 409


async def test_scopes_are_made_given_and_removed(api: Api) -> None:
    made = await api.web.post("/api/v1/scopes", json={"name": " Paris ", "comment": "The office"})
    assert (made.status_code, made.json()["name"]) == (201, "Paris")
    for wrong in ("", "paris", "a/b", "a,b", "x" * 200):
        assert (await api.web.post("/api/v1/scopes", json={"name": wrong})).status_code == 400, (
            wrong
        )
    async with person(api, "Ola", "read-only-analyst", scopes=["PARIS"]):
        code, error = await api.refusal("DELETE", "/api/v1/scopes/paris")
        assert (code, error["code"]) == (409, "site.scope-in-use")
    await api.web.patch("/api/v1/administrators/Ola", json={"scopes": ["All", "Paris"]})
    assert (await api.get("/api/v1/administrators/Ola"))["scopes"] == ["All"]
    assert (await api.web.delete("/api/v1/scopes/paris")).status_code == 204
    for built_in in ("All", "Default"):
        assert (await api.refusal("DELETE", f"/api/v1/scopes/{built_in}"))[0] == 409
    for wrong in ({"scopes": []}, {"scopes": ["Nowhere"]}, {"collections": ["Nowhere"]}):
        code, _ = await api.refusal("PATCH", "/api/v1/administrators/Ola", wrong)
        assert code in (400, 404), wrong
    code, error = await api.refusal(
        "PUT", "/api/v1/scopes/objects/device/x", {"scopes": ["Default"]}
    )
    assert (code, error["code"]) == (400, "site.bad-scope")


async def test_objects_are_given_scopes_and_lose_them(api: Api) -> None:
    """By id or name; who gave something meanwhile is not overwritten unseen."""
    for name in ("Paris", "Rome"):
        await api.web.post("/api/v1/scopes", json={"name": name})
    new = {"name": "Lock", "setting": "Demo/A", "value": "1", "collection": "SMS00001"}
    made = (await api.web.post("/api/v1/configurations", json=new)).json()
    held = await api.get("/api/v1/scopes/objects")
    assert [(item["kind"], item["name"], item["scopes"]) for item in held] == [
        ("configuration", "Lock", ["Default"]),
        ("gateway", "cmg.contoso.com", ["Default"]),
    ]
    lock = "/api/v1/scopes/objects/configuration/lock"
    read = (await api.web.get(lock)).headers["etag"]
    given = await api.web.put(lock, json={"scopes": ["paris"]}, headers={"If-Match": read})
    assert (given.json()["id"], given.json()["scopes"]) == (made["id"], ["Paris"])
    late = await api.web.put(lock, json={"scopes": ["Rome"]}, headers={"If-Match": read})
    assert late.status_code == 412
    more = await api.web.patch(lock, json={"add": ["Rome"]})
    assert more.json()["scopes"] == ["Paris", "Rome"]
    rome = await api.get("/api/v1/scopes/rome")
    assert [item["name"] for item in rome["carried_by"]] == ["Lock"]
    assert (await api.refusal("DELETE", "/api/v1/scopes/Rome"))[0] == 409
    fewer = await api.web.patch(lock, json={"remove": ["PARIS", "Rome"]})
    assert fewer.json()["scopes"] == ["Default"]
    assert (await api.web.delete("/api/v1/scopes/Rome")).status_code == 204
    for method, path, body, refused in (
        ("PUT", lock, {"scopes": ["All"]}, 400),
        ("PUT", lock, {"scopes": []}, 400),
        ("PATCH", lock, {}, 400),
        ("PATCH", lock, {"add": ["Nowhere"]}, 404),
        ("GET", "/api/v1/scopes/objects/configuration/nothing", None, 404),
        ("PUT", "/api/v1/scopes/objects/gateway/nothing", {"scopes": ["Paris"]}, 404),
        ("GET", "/api/v1/scopes/objects/device", None, 400),
        ("GET", "/api/v1/scopes/nowhere", None, 404),
        ("POST", "/api/v1/scopes", {"name": "Objects"}, 400),
    ):
        assert (await api.refusal(method, path, body))[0] == refused, (method, path, body)


async def test_the_commands_of_scopes(api: Api, tmp_path: Path) -> None:
    async with site_api.commands(api, tmp_path) as commands:
        run = commands.run
        await run("administrator", "add-scope", "Paris")
        gateway = ("gateway", "cmg.contoso.com")
        await run("administrator", "give-scope", *gateway, "Paris", "--also")
        (held,) = await run("administrator", "objects", "gateway")
        assert held["scopes"] == ["Default", "Paris"]
        shown = await run("administrator", "scope", "paris")
        assert [item["name"] for item in shown["carried_by"]] == ["cmg.contoso.com"]
        await run("administrator", "give-scope", *gateway, "Paris")
        await run("administrator", "take-scope", *gateway, "Paris")
        (held,) = await run("administrator", "objects", "gateway")
        assert held["scopes"] == ["Default"]
        assert "No gateway" in str(
            await commands.refusal("administrator", "take-scope", "gateway", "x", "Paris")
        )


async def test_rules_name_nothing_that_is_hidden(limited: Limited) -> None:
    """Somebody else's rules in a collection that they see: what a rule names may be hidden."""
    rules = [
        {"kind": "exclude", "collection": limited.rome},
        {"kind": "direct", "device": "rome-1"},
        {"kind": "direct", "device": "paris-1"},
    ]
    part = {"name": "Part", "limiting": limited.paris, "rules": rules}
    answer = await limited.api.web.post("/api/v1/collections", json=part)
    assert answer.status_code == 201, answer.text
    id = answer.json()["id"]
    shown = await limited.get(f"/api/v1/collections/{id}")
    assert sorted((rule["kind"], rule["name"]) for rule in shown["rules"]) == [
        ("direct", "(hidden from you)"),
        ("direct", "paris-1"),
        ("exclude", "(hidden from you)"),
    ]
    assert [rule["resource_id"] for rule in shown["rules"]].count(None) == 2
    for path in (f"/api/v1/collections/{id}/rules", f"/AdminService/wmi/SMS_Collection('{id}')"):
        said = str(await limited.get(path)).lower()
        assert limited.rome.lower() not in said
        assert "rome" not in said
    found = await limited.get(f"/api/v1/collections/{id}/rules", search="rome")
    assert (found["items"], found["total"]) == ([], 0)
    found = await limited.get(f"/api/v1/collections/{id}/rules", search="paris")
    assert [rule["name"] for rule in found["items"]] == ["paris-1"]


async def test_a_refusal_names_nothing_that_is_hidden(limited: Limited) -> None:
    part = {"name": "Part", "limiting": limited.paris}
    id = (await limited.web.post("/api/v1/collections", json=part)).json()["id"]
    other = {
        "name": "Secret plan",
        "rules": [{"kind": "include", "collection": id}],
    }
    assert (await limited.api.web.post("/api/v1/collections", json=other)).status_code == 201
    answer = await limited.web.delete(f"/api/v1/collections/{id}")
    assert answer.status_code == 409
    assert "something that you may not see" in answer.text
    assert "Secret plan" not in answer.text
    assert "Secret plan" in (await limited.api.web.delete(f"/api/v1/collections/{id}")).text
    assert "Secret plan" not in str(await limited.get(f"/api/v1/collections/{id}/uses"))
    assert "Secret plan" not in str(await limited.get(f"/api/v1/collections/{id}/dependencies"))
    waiting = await limited.get("/api/v1/collections/waiting")
    assert waiting["resources"] == 0
    assert waiting["collections"] <= 2


async def test_who_has_some_scopes_reads_only_of_what_shares_one(limited: Limited) -> None:
    """Limited by scopes alone: every collection is seen, and not what others deploy to it."""
    api, rome = limited.api, limited.rome
    for name, scope in (("Of Rome", "Rome"), ("Of Paris", "Paris")):
        new = {"name": name, "setting": f"Demo/{scope}", "value": "1", "collection": rome}
        assert (await api.web.post("/api/v1/configurations", json=new)).is_success
        path = f"/api/v1/scopes/objects/configuration/{name}"
        assert (await api.web.put(path, json={"scopes": [scope]})).is_success
    answer = await api.web.patch("/api/v1/administrators/Pat", json={"collections": []})
    assert answer.status_code == 200
    uses = await limited.get(f"/api/v1/collections/{rome}/uses")
    assert [use["name"] for use in uses] == ["Of Paris"]
    assert "seen" not in uses[0]
    answer = await limited.web.delete(f"/api/v1/collections/{rome}")
    assert (answer.status_code, "Of Paris" in answer.text) == (409, True)
    assert "Of Rome" not in answer.text
    device = await limited.get("/api/v1/devices/d-rome-1")
    assert [item["name"] for item in device["configurations"]] == ["Of Paris"]


async def test_a_devices_story_names_nothing_that_is_hidden(
    limited: Limited, site_db: Database
) -> None:
    """What changed its policy was decided in collections and by configurations of others."""
    hidden = {"name": "Secret plan", "setting": "Demo/A", "value": "1", "collection": "SMS00001"}
    assert (await limited.api.web.post("/api/v1/configurations", json=hidden)).is_success
    causes = [
        {"kind": "configuration", "details": {"action": "create", "name": "Secret plan"}},
        {"kind": "collection", "details": {"collection": limited.rome, "name": "Rome"}},
        {"kind": "rollout", "details": {"ring": 2, "collection": "Rome"}},
        {"kind": "collection", "details": {"collection": limited.paris, "devices": ["rome-1"]}},
    ]
    told = [
        {"id": f"{n:032x}", "at": NOW.isoformat(), "actor": "", **cause}
        for n, cause in enumerate(causes)
    ]
    data = {"version": 1, "cause": {**told[0], "came": [limited.rome, limited.paris], "left": []}}
    async with site_db.transaction() as tx:
        await tx.execute(
            "INSERT INTO clients_timeline (tenant_id, device_id, message_id, topic, state, at,"
            " received_at, data) VALUES (%s, 'd-paris-1', 'm', %s, %s, %s, %s, %s)",
            (
                TENANT,
                clients.SITE_TOPIC,
                clients.POLICY_DELIVERED,
                NOW,
                NOW,
                Jsonb({**data, "also": told[1:]}),
            ),
        )
    paths = (
        "/api/v1/devices/d-paris-1",
        "/api/v1/devices/d-paris-1/timeline",
        "/api/v1/clients/GUID:PARIS-1",
    )
    for path in paths:
        said = str(await limited.get(path))
        assert "Secret plan" not in said, path
        assert "rome" not in said.lower(), path
        assert limited.rome not in said, path
        assert limited.paris in said or "Paris" in said, path
        everything = str(await limited.api.get(path))
        assert "Secret plan" in everything, path
    story = (await limited.get(paths[1]))["stories"][0]
    texts = [step["text"] for step in (*story["steps"], *story["also"])]
    assert texts[:2] == ["A configuration was deployed", "It came into Paris"]
    assert {"A collection was changed", "A roll-out came to its ring 2"} < set(texts)


async def test_users_are_seen_by_who_is_limited_to_collections_of_users(
    limited: Limited, site_db: Database
) -> None:
    async with site_db.transaction() as tx:
        for name in ("ada", "bob", "rex"):
            user = collections.UserResource(
                TENANT, f"o-{name}", f"{name}@contoso.com", name.title(), f"{name}@contoso.com"
            )
            await collections.upsert_user(tx, user, NOW)
    assert (await limited.get("/api/v1/users"))["total"] == 0
    rules = [{"kind": "direct", "user": f"{name}@contoso.com"} for name in ("ada", "bob")]
    new = {"name": "Paris people", "type": "user", "rules": rules}
    people = (await limited.api.web.post("/api/v1/collections", json=new)).json()["id"]
    change = {"collections": ["Paris", "Paris people"]}
    answer = await limited.api.web.patch("/api/v1/administrators/Pat", json=change)
    assert answer.status_code == 200, answer.text
    found = await limited.get("/api/v1/users", sort="-upn")
    assert ([u["name"] for u in found["items"]], found["total"]) == (["Bob", "Ada"], 2)
    assert (await limited.get("/api/v1/users", search="rex"))["total"] == 0
    assert (await limited.get("/api/v1/devices"))["total"] == 2
    for text, kinds in (("ada", {"user"}), ("rex", set())):
        results = (await limited.get("/api/v1/search", q=text))["results"]
        assert {item["kind"] for item in results} == kinds
    rows = (await limited.get("/AdminService/wmi/SMS_R_User"))["value"]
    assert [row["FullUserName"] for row in rows] == ["Ada", "Bob"]
    # Some of them, in a collection of their own; nobody else can be drawn in.
    query = {"kind": "query", "query": "select * from SMS_R_User"}
    some = {"name": "Some", "type": "user", "limiting": people, "rules": [query]}
    made = await limited.web.post("/api/v1/collections", json=some)
    assert (made.status_code, made.json()["members"]) == (201, 2)
    for rule in (
        {"kind": "direct", "user": "rex@contoso.com"},
        {"kind": "include", "collection": "SMS00004"},
    ):
        wrong = {**some, "name": "Other", "rules": [rule]}
        assert (await limited.code("POST", "/api/v1/collections", wrong))[0] == 404, rule
    wrong = {**some, "name": "Everybody", "limiting": ""}
    assert (await limited.code("POST", "/api/v1/collections", wrong))[0] == 404
    assert (await limited.code("PATCH", f"/api/v1/collections/{people}", {"rules": [query]})) == (
        403,
        "collection.limits-you",
    )


async def test_operations_are_seen_by_who_sees_whom_they_are_for(limited: Limited) -> None:
    orders = "/api/v1/client-notifications"
    made = {}
    for key, by, target in (
        ("rome", limited.api.web, {"collection": "Rome"}),
        ("one", limited.api.web, {"client": "GUID:ROME-1"}),
        ("all", limited.api.web, {"collection": "SMS00001"}),
        ("paris", limited.web, {"collection": "Paris"}),
        ("mine", limited.web, {"client": "GUID:PARIS-1"}),
    ):
        answer = await by.post(orders, json={"action": "collect-discovery-data", **target})
        assert answer.status_code == 201, answer.text
        made[key] = answer.json()["id"]
    found = await limited.get(orders)
    assert ({item["id"] for item in found["operations"]}, found["total"]) == (
        {made["paris"], made["mine"]},
        2,
    )
    shown = await limited.get(f"{orders}/{made['paris']}")
    assert {item["device"] for item in shown["devices"]} == {"paris-1", "paris-2"}
    for key in ("rome", "one", "all"):
        assert (await limited.code("GET", f"{orders}/{made[key]}"))[0] == 404
        assert (await limited.code("POST", f"{orders}/{made[key]}/cancel"))[0] == 404
    assert (await limited.web.post(f"{orders}/{made['mine']}/cancel")).status_code == 200
    for target in ({"collection": "Rome"}, {"client": "GUID:ROME-1"}):
        body = {"action": "collect-discovery-data", **target}
        assert (await limited.code("POST", orders, body))[0] == 404
        answer = await limited.web.get(f"{orders}/reach", params=target)
        assert answer.status_code == 404
    assert (await limited.api.get(orders))["total"] == 5


async def test_a_query_asks_about_no_device_that_is_hidden(
    limited: Limited, site_db: Database
) -> None:
    """By whether one's own device is a member, bit by bit."""
    of_rome = (
        "select * from SMS_R_System where Client in (select s.Client from SMS_R_System as s"
        " where s.Name = 'rome-1')"
    )
    joined = (
        "select SMS_R_System.Name from SMS_R_System inner join SMS_R_System as s"
        " on s.Client = SMS_R_System.Client where s.Name like 'rome%'"
    )
    refused = (403, "collection.reads-others")
    url = "/api/v1/collections"
    for query in (of_rome, joined, of_rome.replace(" in ", " not in ")):
        rule = {"kind": "query", "query": query}
        asked = {"limiting": limited.paris, "rules": [rule]}
        assert await limited.code("POST", f"{url}/preview", asked) == refused, query
        assert await limited.code("POST", url, {**asked, "name": "Bits"}) == refused
        made = {"limiting": limited.paris, "name": "Bits", "query": query}
        assert await limited.code("POST", url, made) == refused
    mine = {"limiting": limited.paris, "name": "Mine"}
    id = (await limited.web.post(url, json=mine)).json()["id"]
    rule = {"kind": "query", "query": of_rome}
    assert await limited.code("PATCH", f"{url}/{id}", {"rules": [rule]}) == refused
    assert await limited.code("POST", f"{url}/{id}/rules", {"rules": [rule]}) == refused
    assert await limited.code("POST", f"{url}/{id}/members", {"query": of_rome}) == refused
    body = {"collectionRule": {"RuleName": "Bits", "QueryExpression": of_rome}}
    path = f"/AdminService/wmi/SMS_Collection('{id}')/AdminService.AddMembershipRule"
    assert (await limited.web.post(path, json=body)).status_code == 403
    # What joins by ResourceID is about the device itself, however it is written.
    for query in (
        "select * from SMS_R_System where ResourceId in (select a.ResourceID from"
        " SMS_Client_ComanagementState as a inner join SMS_R_System as b"
        " on b.ResourceID = a.ResourceID where b.Name = 'paris-1')",
        "select SMS_R_System.Name from SMS_R_System inner join SMS_Client_ComanagementState as s"
        " on s.ResourceID = SMS_R_System.ResourceID where s.MDMEnrolled = 1",
    ):
        rules = {"rules": [{"kind": "query", "query": query}]}
        assert (await limited.code("POST", f"{url}/{id}/rules", rules))[0] == 200, query
    # A rule that is there stays, whoever changes another one.
    theirs = [{"kind": "query", "name": "Theirs", "query": of_rome}]
    answer = await limited.api.web.post(f"{url}/{id}/rules", json={"rules": theirs})
    assert answer.status_code == 200
    both = {"rules": [*theirs, {"kind": "direct", "device": "paris-1"}]}
    assert (await limited.code("PATCH", f"{url}/{id}", both))[0] == 200
    assert (await limited.get(f"{url}/{id}"))["rule_count"] == 2


async def test_uses_are_told_as_far_as_they_are_seen(limited: Limited) -> None:
    new = {"setting": "Demo/A", "value": "hidden", "collection": limited.paris}
    assert (
        await limited.api.web.post("/api/v1/configurations", json={**new, "name": "Of all"})
    ).is_success
    mine = {**new, "name": "Of Paris", "setting": "Demo/B"}
    assert (await limited.web.post("/api/v1/configurations", json=mine)).is_success
    await enable_for(limited.api, limited.paris)
    path = f"/api/v1/collections/{limited.paris}/uses"
    everything = {(use["kind"], use["name"]) for use in await limited.api.get(path)}
    assert everything > {("configuration", "Of all"), ("enrollment", "automatic enrollment")}
    assert [use["name"] for use in await limited.get(path)] == ["Of Paris"]
    # By scopes alone: all devices are seen, and still not what others deploy.
    change = {"collections": [], "scopes": ["Paris"]}
    await limited.api.web.patch("/api/v1/administrators/Pat", json=change)
    assert [use["name"] for use in await limited.get(path)] == ["Of Paris"]
    device = (await limited.get("/api/v1/devices/d-paris-1"))["configurations"]
    assert [item["name"] for item in device] == ["Of Paris"]


async def enable_for(api: Api, collection: str) -> None:
    """Co-management with this collection as the pilot of its enrolment."""
    wanted = {"automatic_enrollment": "pilot", "collection": collection, "access_token": "x"}
    answer = await api.web.put("/api/v1/comanagement", json=wanted)
    assert answer.is_success, answer.text


async def test_who_is_in_a_pilot_is_changed_by_full_administrators_over_all(
    limited: Limited,
) -> None:
    url = "/api/v1/collections"
    part = {"name": "Part", "limiting": limited.paris}
    id = (await limited.web.post(url, json=part)).json()["id"]
    include = [{"kind": "include", "collection": id}]
    other = await limited.api.web.post(url, json={"name": "Secret plan", "rules": include})
    # Their own part of it decides, though they do not see what it decides about.
    await enable_for(limited.api, other.json()["id"])
    query = "select * from SMS_R_System where Name like 'p%'"
    rule = {"kind": "query", "query": query}
    refused = (403, "collection.needs-over-all")
    async with person(limited.api, "Ola", "operations-administrator") as ola:
        for web in (limited.web, ola):
            for method, path, body in (
                ("PATCH", f"{url}/{id}", {"rules": [rule]}),
                ("POST", f"{url}/{id}/rules", {"rules": [rule]}),
                ("POST", f"{url}/{id}/members", {"devices": ["paris-1"]}),
                (
                    "POST",
                    "/api/v1/devices/add-to-collection",
                    {"devices": ["d-paris-1"], "collection": id, "expected": 1},
                ),
            ):
                answer = await web.request(method, path, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == refused, path
                assert web is ola or "Secret plan" not in answer.text
            wmi = f"/AdminService/wmi/SMS_Collection('{id}')/AdminService.AddMembershipRule"
            body = {"collectionRule": {"RuleName": "p", "QueryExpression": query}}
            assert (await web.post(wmi, json=body)).status_code == 403
    assert (await limited.get(f"{url}/{id}"))["members"] == 0
    # Its name decides nothing.
    assert (await limited.code("PATCH", f"{url}/{id}", {"comment": "ours"}))[0] == 200
    answer = await limited.api.web.post(f"{url}/{id}/rules", json={"rules": [rule]})
    assert (answer.status_code, answer.json()["members"]) == (200, 2)
    number = answer.json()["rules"][0]["id"]
    assert await limited.code("DELETE", f"{url}/{id}/rules/{number}") == refused


async def test_a_collection_that_is_used_does_not_grow_far_at_once(
    api: Api, site_db: Database
) -> None:
    """A deployment for nobody, and a rule for everybody after it, is a deployment for everybody."""
    async with site_db.transaction() as tx:
        for number in range(102):
            await add_device(tx, f"PC-{number:03}")
    url = "/api/v1/collections"
    id = (await api.web.post(url, json={"name": "Nobody"})).json()["id"]
    deployed = {"name": "Lock", "setting": "Demo/A", "value": "1", "collection": id}
    assert (await api.web.post("/api/v1/configurations", json=deployed)).status_code == 201
    every = {"rules": [{"kind": "query", "query": "select * from SMS_R_System"}]}
    code, error = await api.refusal("POST", f"{url}/{id}/rules", every)
    assert (code, error["code"], error["details"]["devices"]) == (
        409,
        "collection.grows-too-far",
        102,
    )
    assert (await api.refusal("PATCH", f"{url}/{id}", every))[0] == 409
    assert (await api.get(f"{url}/{id}"))["members"] == 0
    few = {
        "rules": [{"kind": "query", "query": every["rules"][0]["query"] + " where Name < 'PC-1'"}]
    }
    assert (await api.web.post(f"{url}/{id}/rules", json=few)).status_code == 200
    assert (await api.get(f"{url}/{id}"))["members"] == 100


async def test_what_updates_and_settings_are_for_does_not_grow_far_either(
    api: Api, site_db: Database
) -> None:
    async with site_db.transaction() as tx:
        for number in range(201):
            await add_device(tx, f"PC-{number:03}")
    url, updates = "/api/v1/collections", "/api/v1/software-updates"
    custom = "/api/v1/client-settings/custom"
    refused = (409, "collection.grows-too-far")

    def named(condition: str) -> dict[str, Any]:
        query = f"select * from SMS_R_System where Name {condition}"
        return {"rules": [{"kind": "query", "query": query}]}

    async def changed(condition: str) -> tuple[int, str, int]:
        answer = await api.web.patch(f"{url}/{id}", json=named(condition))
        error = answer.json().get("error", {"code": "", "details": {}})
        return answer.status_code, error["code"], error["details"].get("devices", 0)

    id = (await api.web.post(url, json={"name": "Nobody"})).json()["id"]
    lab = {"package": "lab", "fixed_version": "2.0", "article": "CVE-2026-1"}
    assert (await api.web.post(updates, json=lab)).status_code == 201
    decision = {"updates": ["CVE-2026-1"], "collection": id, "decision": "approved"}
    assert (await api.web.post(f"{updates}/decisions", json=decision)).is_success
    assert await changed("like 'P%'") == (*refused, 201)
    # What is declined there reaches nobody; settings do.
    decision["decision"] = "declined"
    assert (await api.web.post(f"{updates}/decisions", json=decision)).is_success
    body = {"name": "Far", "settings": {"enable_cloud_management_gateway": False}}
    deployments = f"{custom}/{(await api.web.post(custom, json=body)).json()['id']}/deployments"
    assert (await api.web.post(deployments, json={"collection": id})).status_code == 201
    assert await changed("like 'P%'") == (*refused, 201)
    assert (await api.web.delete(f"{deployments}/{id}")).is_success
    assert (await changed("< 'PC-101'"))[0] == 200
    assert (await changed("< 'PC-100'"))[0] == 200
    decision["decision"] = "approved"
    assert (await api.web.post(f"{updates}/decisions", json=decision)).is_success
    # Others in the place of those who go: one more than before, and everybody is new.
    assert await changed(">= 'PC-100'") == (*refused, 101)
    # Who leaves what keeps them out of co-management is reached by it.
    everybody = {"name": "Kept out", **named("like 'P%'")}
    id = (await api.web.post(url, json=everybody)).json()["id"]
    wanted: dict[str, Any] = {"automatic_enrollment": "none", "access_token": "x"}
    wanted["staging"] = {"exclusions": [id]}
    assert (await api.web.put("/api/v1/comanagement", json=wanted)).is_success
    assert await changed("< 'PC-100'") == (*refused, 101)
    assert (await changed("< 'PC-101'"))[0] == 200
