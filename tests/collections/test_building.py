"""Building collections: every kind of rule, the preview, two administrators, what uses what."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import NOW, Api, add_device
from tandem import audit
from tandem.infra.database import Tx
from tandem.site import administrators, collections
from tandem.site.collections import Resource

LAB = "select * from SMS_R_System where Name like 'LAB-%'"


async def devices(api: Api, *names: str) -> None:
    async with api.db.transaction() as tx:
        for name in names:
            await add_device(tx, name)


async def many(tx: Tx, count: int) -> None:
    """A fleet, by COPY: what it takes to register is another test's."""
    columns = "client_id, name, tenant_id, device_id, os_name, os_version, client_version"
    async with tx.cursor().copy(
        f"COPY collections_resource ({columns}, discovered_at) FROM STDIN"
    ) as copy:
        for place in range(count):
            name = f"FLEET-{place:05}"
            await copy.write_row((f"GUID:{name}", name, "t", "", "Windows", "10", "5", NOW))


async def made(api: Api, name: str, *rules: dict[str, str], **more: Any) -> dict[str, Any]:
    answer = await api.web.post(
        "/api/v1/collections", json={"name": name, "rules": list(rules), **more}
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def members(api: Api, id: str, **query: Any) -> list[str]:
    found = await api.get(f"/api/v1/collections/{id}/members", **query)
    return [item["name"] for item in found["items"]]


async def preview(api: Api, *rules: dict[str, str], **more: Any) -> dict[str, Any]:
    asked = {"rules": list(rules), **more}
    answer = await api.web.post("/api/v1/collections/preview", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# ------------------------------------------------------------------------------- rules


async def test_include_adds_and_exclude_wins(api: Api) -> None:
    await devices(api, "LAB-001", "LAB-002", "LAB-003", "DEV-001", "DEV-002")
    lab = await made(api, "Lab", {"kind": "query", "query": LAB})
    out = await made(api, "Out", {"kind": "direct", "device": "LAB-002"})
    both = await made(
        api,
        "Both",
        {"kind": "direct", "device": "DEV-001"},
        {"kind": "direct", "device": "LAB-002"},
        {"kind": "include", "collection": "Lab"},
        {"kind": "exclude", "collection": out["id"]},
    )
    assert await members(api, both["id"]) == ["DEV-001", "LAB-001", "LAB-003"]
    assert [rule["kind"] for rule in both["rules"]] == ["exclude", "include", "direct", "direct"]
    # Members of an included collection are those within its own limits, and within the others.
    few = await made(api, "Few", {"kind": "include", "collection": lab["id"]}, limiting=out["id"])
    assert await members(api, few["id"]) == ["LAB-002"]


async def test_what_somebody_lists_and_what_a_device_is_in_agree(api: Api) -> None:
    await devices(api, "LAB-001", "LAB-002", "DEV-001")
    rules: list[tuple[dict[str, str], ...]] = [
        ({"kind": "query", "query": LAB},),
        ({"kind": "include", "collection": "C0"}, {"kind": "direct", "device": "DEV-001"}),
        ({"kind": "include", "collection": "C1"}, {"kind": "exclude", "collection": "C0"}),
        ({"kind": "include", "collection": "SMS00001"}, {"kind": "exclude", "collection": "C2"}),
    ]
    for place, wanted in enumerate(rules):
        await made(api, f"C{place}", *wanted)
    async with api.db.transaction() as tx:
        known = await collections.collections(tx)
        every = [item.id for item in known if item.type is collections.MemberType.DEVICE]
        listed = {id: await collections.members(tx, id) for id in every}
        sql, parameters = await collections.memberships_sql(tx, every)
        rows = await (await tx.execute(sql.encode(), parameters)).fetchall()
        for device in await collections.resources(tx):
            of = {id for id, found in listed.items() if device in found}
            assert await collections.memberships(tx, every, device.id) == of
            assert {row["collection_id"] for row in rows if row["resource_id"] == device.id} == of
    id = {item.name: item.id for item in known}
    assert [item.name for item in listed[id["C2"]]] == ["DEV-001"]
    assert [item.name for item in listed[id["C3"]]] == ["LAB-001", "LAB-002"]


@pytest.mark.parametrize("kind", ["include", "exclude"])
async def test_collections_cannot_name_each_other_in_a_circle(api: Api, kind: str) -> None:
    await made(api, "A")
    await made(api, "B", {"kind": kind, "collection": "A"})
    await made(api, "C", limiting="B")
    for other in ("A", "B", "C"):
        rules = {"rules": [{"kind": kind, "collection": other}]}
        code, error = await api.refusal("POST", "/api/v1/collections/A/rules", rules)
        assert (code, error["code"]) == (409, "collection.circular")
        assert error["details"] == {"field": "rules", "rule": 0}
    code, error = await api.refusal("PATCH", "/api/v1/collections/A", {"limiting": "C"})
    assert (code, error["code"], error["details"]["field"]) == (
        409, "collection.circular", "limiting",
    )  # fmt: skip


async def test_collections_in_collections_come_to_an_end(api: Api) -> None:
    """Each level includes the one below twice: 2^n conditions, which no statement takes."""
    await made(api, "L0", {"kind": "query", "query": LAB})
    refused: dict[str, Any] = {}
    for level in range(1, 30):
        below = f"L{level - 1}"
        await made(api, f"M{level}", {"kind": "include", "collection": below})
        rules = [{"kind": "include", "collection": name} for name in (below, f"M{level}")]
        answer = await api.web.post(
            "/api/v1/collections", json={"name": f"L{level}", "rules": rules}
        )
        if answer.status_code != 201:
            refused = answer.json()["error"]
            break
    assert refused["code"] == "collection.too-complex"
    assert refused["cure"]
    await members(api, f"L{level - 1}")


async def test_rules_are_replaced_all_at_once_and_the_log_says_which(api: Api) -> None:
    await devices(api, "LAB-001", "LAB-002")
    one = await made(
        api,
        "Pilot",
        {"kind": "direct", "device": "LAB-001"},
        {"kind": "query", "name": "Lab", "query": LAB},
    )
    wanted = [
        {"kind": "direct", "device": "LAB-002"},
        {"kind": "query", "name": "Lab", "query": LAB.replace("LAB-%", "%1")},
    ]
    path = f"/api/v1/collections/{one['id']}"
    changed = await api.web.patch(path, json={"name": "Pilot 2", "rules": wanted})
    assert changed.status_code == 200
    assert await members(api, one["id"]) == ["LAB-001", "LAB-002"]
    async with api.db.transaction() as tx:
        (entry,) = await audit.entries(tx, target=one["id"], limit=1)
    assert entry.action == "collection.change"
    assert [item["name"] for item in entry.details["changed"]] == ["name", "rules"]
    gone, come = entry.details["changed"][1]["old"], entry.details["changed"][1]["new"]
    assert gone == ["direct LAB-001", f"query Lab: {LAB}"]
    assert come[0] == "direct LAB-002"


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"kind": "direct", "device": "LAB-009"}, "resource.not-found"),
        ({"kind": "direct"}, "resource.not-found"),
        ({"kind": "include", "collection": "Nowhere"}, "collection.not-found"),
        ({"kind": "query", "query": ""}, "collection.bad-query"),
        ({"kind": "category", "name": "Phones"}, "collection.bad-rule"),
        ({"kind": "'; drop table collections_rule; --"}, "collection.bad-rule"),
    ],
)
async def test_a_wrong_rule_is_named_and_nothing_is_made(
    api: Api, rule: dict[str, str], code: str
) -> None:
    good = {"kind": "query", "query": LAB}
    for path, body in (
        ("/api/v1/collections", {"name": "X", "rules": [good, rule]}),
        ("/api/v1/collections/preview", {"rules": [good, rule]}),
    ):
        _, error = await api.refusal("POST", path, body)
        assert (error["code"], error["details"]["rule"]) == (code, 1)
        assert error["cure"]
    assert (await api.get("/api/v1/collections", search="X"))["total"] == 0


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("select * from SMS_R_System where Nme = 'x'", 34),
        ("select * from SMS_R_User", 15),
        ("select * from SMS_R_System where Name = ", 40),
        ("select * from SMS_R_System where Name == 'x'", 40),
        ("select * from SMS_R_System\n where Name like 'LAB-[' ", 45),
        ("select * from SMS_R_System where ResourceId = 'x'", 47),
        ("select * from SMS_R_System where ResourceId = '²'", 47),
        ("select * from SMS_R_System where Client like '1'", 46),
        ("select * from SMS_R_System where Other.Name = '1'", 34),
    ],
)
async def test_a_wrong_query_says_where_it_is_wrong(api: Api, query: str, at: int) -> None:
    rule = {"kind": "query", "query": query}
    _, error = await api.refusal("POST", "/api/v1/collections/preview", {"rules": [rule]})
    assert (error["code"], error["details"]["at"]) == ("collection.bad-query", at)


# ------------------------------------------------------------------------------- preview


async def test_a_preview_is_what_the_collection_would_be(api: Api) -> None:
    async with api.db.transaction() as tx:
        await many(tx, 60)
    await devices(api, "LAB-001", "LAB-002")
    await made(api, "Lab", {"kind": "query", "query": LAB})
    rules = [
        {"kind": "query", "query": "select * from SMS_R_System where Name like 'FLEET-%'"},
        {"kind": "direct", "device": "LAB-001"},
        {"kind": "exclude", "collection": "Lab"},
    ]
    found = await preview(api, *rules)
    assert found["members"] == 60
    assert [item["name"] for item in found["first"]] == [f"FLEET-{n:05}" for n in range(20)]
    assert found["direct"] == 1
    assert [(rule["kind"], rule["members"]) for rule in found["rules"]] == [
        ("query", 60), ("exclude", 2),
    ]  # fmt: skip
    assert found["took_ms"] > 0
    assert (await preview(api, limiting="Lab"))["members"] == 0
    assert (await preview(api, *rules, limiting="Lab", first=0))["first"] == []
    one = await made(api, "All", *rules)
    assert one["members"] == found["members"]


async def test_an_analyst_may_preview_and_not_build(api: Api) -> None:
    async with api.db.transaction() as tx:
        await administrators.add(
            tx,
            "reader",
            site_api.PASSWORD,
            administrators.Role.READ_ONLY_ANALYST,
            actor="test",
            now=NOW,
            settings=site_api.CHEAP,
        )
    await api.sign_in("reader")
    assert (await preview(api))["members"] == 0
    for method, path in (
        ("POST", "/api/v1/collections"),
        ("PATCH", "/api/v1/collections/SMS00001"),
        ("POST", "/api/v1/collections/SMS00001/rules"),
        ("POST", "/api/v1/collections/SMS00001/evaluate"),
    ):
        code, error = await api.refusal(method, path, {"name": "X", "rules": []})
        assert (code, error["code"]) == (403, "site.not-allowed")


async def test_ten_thousand_members_by_pages(api: Api) -> None:
    async with api.db.transaction() as tx:
        await many(tx, 10_000)
    await devices(api, "LAB-001")
    rules = [{"kind": "direct", "device": f"FLEET-{n:05}"} for n in range(10_000)]
    assert (await preview(api, *rules))["direct"] == 10_000
    one = await made(api, "Fleet", *rules)
    path = f"/api/v1/collections/{one['id']}"
    assert (one["members"], one["rule_count"], len(one["rules"])) == (10_000, 10_000, 1000)
    page = await api.get(f"{path}/members", limit=50, offset=9_970)
    assert (page["total"], len(page["items"])) == (10_000, 30)
    assert page["items"][-1]["name"] == "FLEET-09999"
    last = await api.get(f"{path}/members", limit=1, sort="-name")
    assert last["items"][0]["name"] == "FLEET-09999"
    some = await api.get(f"{path}/members", search="fleet-0999")
    assert some["total"] == 10
    assert (await api.get(f"{path}/members", search="%"))["total"] == 0
    rules_page = await api.get(f"{path}/rules", search="FLEET-0123", limit=3)
    assert (rules_page["total"], len(rules_page["items"])) == (10, 3)
    assert await members(api, one["id"], search="LAB") == []


# ------------------------------------------------------------------------------- changes


async def test_the_second_of_two_administrators_is_told(api: Api) -> None:
    one = await made(api, "Pilot")
    path = f"/api/v1/collections/{one['id']}"
    read = (await api.web.get(path)).headers["etag"]
    both = [
        api.web.patch(path, json={"name": name}, headers={"If-Match": read}) for name in ("A", "B")
    ]
    codes = sorted(answer.status_code for answer in await asyncio.gather(*both))
    assert codes == [200, 412]
    now = await api.web.get(path)
    assert now.json()["name"] in {"A", "B"}
    # A rule is a part of the collection: who adds one makes another version of it.
    await devices(api, "LAB-001")
    rule = {"rules": [{"kind": "direct", "device": "LAB-001"}]}
    assert (await api.web.post(f"{path}/rules", json=rule)).status_code == 200
    stale = {"If-Match": now.headers["etag"]}
    assert (await api.web.delete(path, headers=stale)).status_code == 412
    fresh = {"If-Match": (await api.web.get(path)).headers["etag"]}
    assert (await api.web.delete(path, headers=fresh)).status_code == 204


@pytest.mark.parametrize(
    ("wanted", "code", "field"),
    [
        ({"name": "all systems"}, "collection.name-taken", "name"),
        ({"name": "  "}, "collection.bad-name", "name"),
        ({"name": "two\nlines"}, "collection.bad-name", "name"),
        ({"comment": "x" * 1025}, "collection.bad-name", "comment"),
        ({"limiting": "Nowhere"}, "collection.not-found", "limiting"),
        ({"rules": [{"kind": "query", "query": "x"}]}, "collection.bad-query", "rules"),
    ],
)
async def test_a_change_that_cannot_be_names_its_field(
    api: Api, wanted: dict[str, Any], code: str, field: str
) -> None:
    one = await made(api, "Pilot", comment="as it was")
    path = f"/api/v1/collections/{one['id']}"
    _, error = await api.refusal("PATCH", path, {"comment": "other", **wanted})
    assert (error["code"], error["details"]["field"]) == (code, field)
    assert (await api.get(path))["comment"] == "as it was"


async def test_what_uses_a_collection_keeps_it_and_is_named(api: Api) -> None:
    one = await made(api, "Pilot")
    await made(api, "Inner", limiting="Pilot")
    await made(api, "Other", {"kind": "exclude", "collection": "Pilot"})
    new = {"name": "Lock", "setting": "DeviceLock/Max", "value": "1", "collection": "Pilot"}
    assert (await api.web.post("/api/v1/configurations", json=new)).status_code == 201
    async with api.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO comanagement_workload (workload, position, collection_id, changed_at,"
            " changed_by) VALUES ('client-apps', 'pilot', %(id)s, now(), 'x'),"
            " ('compliance-policies', 'site', %(id)s, now(), 'x')",
            {"id": one["id"]},
        )
    uses = await api.get(f"/api/v1/collections/{one['id']}/uses")
    assert [(use["kind"], use["name"], use["blocks"]) for use in uses] == [
        ("limit", "Inner", True),
        ("exclude", "Other", True),
        ("configuration", "Lock", True),
        ("workload", "compliance-policies", False),
        ("workload", "client-apps", True),
    ]
    code, error = await api.refusal("DELETE", f"/api/v1/collections/{one['id']}")
    assert (code, error["code"]) == (409, "collection.in-use")
    for name in ("Inner", "Other", "Lock", "client-apps"):
        assert name in error["message"]
    assert "compliance-policies" not in error["message"]


async def test_a_list_is_searched_sorted_and_counted_in_the_database(api: Api) -> None:
    await devices(api, "LAB-001")
    await made(api, "Pilot 100%", comment="for the lab")
    await made(api, "Pilot_B", {"kind": "query", "query": LAB})
    found = await api.get("/api/v1/collections", sort="-name", type="device")
    assert [item["name"] for item in found["items"]] == [
        "Pilot_B", "Pilot 100%", "Co-management Eligible Devices", "All Systems",
        "All Desktop and Server Clients",
    ]  # fmt: skip
    assert [item["members"] for item in found["items"]] == [1, 0, 1, 1, 1]
    assert [item["built_in"] for item in found["items"]] == [False, False, True, True, True]
    assert found["items"][0]["limiting_name"] == "All Systems"
    users = await api.get("/api/v1/collections", type="user")
    assert {item["name"]: item["members"] for item in users["items"]} == {
        "All User Groups": 0, "All Users": 0, "All Users and User Groups": 0,
    }  # fmt: skip
    assert (await api.get("/api/v1/collections"))["total"] == 8
    for search, names in (
        ("100%", ["Pilot 100%"]),
        ("T_", ["Pilot_B"]),
        ("LAB", ["Pilot 100%"]),
        ("sms00001", ["All Systems"]),
        ("\\", []),
    ):
        page = await api.get("/api/v1/collections", search=search, count="false")
        assert [item["name"] for item in page["items"]] == names
        assert all("members" not in item for item in page["items"])
    page = await api.get("/api/v1/collections", sort="rules", limit=1, offset=7)
    assert (page["items"][0]["name"], page["total"]) == ("Pilot_B", 8)


async def test_update_membership_says_what_it_found(api: Api) -> None:
    one = await made(api, "Lab", {"kind": "query", "query": LAB})
    path = f"/api/v1/collections/{one['id']}"
    assert one["evaluation"] is None
    assert (await api.web.post(f"{path}/evaluate")).json()["before"] is None
    await devices(api, "LAB-001")
    again = (await api.web.post(f"{path}/evaluate")).json()
    assert (again["members"], again["before"]) == (1, 0)
    assert (await api.get(path))["evaluation"]["members"] == 1


async def test_users_are_searched_and_paged(api: Api) -> None:
    async with api.db.transaction() as tx:
        for name in ("ada", "adam", "bea", "100%_sure"):
            user = collections.UserResource(
                site_api.TENANT, f"o-{name}", f"{name}@contoso.com", f"{name.title()} X"
            )
            await collections.upsert_user(tx, user, NOW)
    found = await api.get("/api/v1/users", search="ADA", sort="-upn", limit=1)
    assert ([item["upn"] for item in found["items"]], found["total"]) == (["adam@contoso.com"], 2)
    assert (await api.get("/api/v1/users", search="100%_"))["total"] == 1
    assert (await api.get("/api/v1/users", search="%"))["total"] == 0


async def test_the_same_device_by_each_of_its_names(api: Api) -> None:
    async with api.db.transaction() as tx:
        await collections.upsert_resource(tx, Resource("GUID:ÉTÉ", "Été-1", "t"), NOW)
        (known,) = await collections.resources(tx)
    for device in ("Été-1", "guid:ÉTÉ", str(known.id)):
        assert (await preview(api, {"kind": "direct", "device": device}))["members"] == 1


async def test_the_commands_of_the_builder(api: Api, tmp_path: Path) -> None:
    await devices(api, "LAB-001", "LAB-002", "DEV-001")
    async with site_api.commands(api, tmp_path) as commands:
        run = commands.run
        await run("collection", "create", "Lab", "--query", LAB)
        both = await run(
            "collection", "create", "Both", "--member", "DEV-001", "--include", "Lab", "--comment",
            "x",
        )  # fmt: skip
        assert both["members"] == 3
        await run("collection", "create", "Out", "--member", "LAB-002")
        assert (await run("collection", "add-rule", "Both", "--exclude", "Out"))["members"] == 2
        found = await run("collection", "preview", "--include", "Both", "--exclude", "Lab")
        assert [item["name"] for item in found["first"]] == ["DEV-001"]
        assert (await run("collection", "edit", "Both", "--name", "Two"))["name"] == "Two"
        assert (await run("collection", "remove-rule", "Two", "Lab"))["removed"] == ["Lab"]
        assert (await run("collection", "update-membership", "Two"))["members"] == 1
        changed = await run("collection", "edit", "Two", "--no-incremental", "--full-every", "60")
        assert (changed["incremental"], changed["full_every_minutes"]) == (False, 60)
        (dearest, *_) = await run("collection", "costs")
        assert dearest["full_ms"] > 0
        assert [u["name"] for u in await run("collection", "uses", "Out")] == ["Two"]
        assert len(await run("collection", "list", "--search", "Out")) == 1
        assert len(await run("collection", "members", "Two", "--search", "dev")) == 1
        refused = await commands.refusal("collection", "delete", "Out", "--yes")
        assert "Two" in str(refused)
        assert await run("collection", "users") == []


async def test_a_list_does_not_wait_for_its_numbers_and_says_of_when_they_are(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api.db.transaction() as tx:
        await many(tx, 20_000)
    slow = "select * from SMS_R_System where Name like '%9[0-9]%[1-7]_' or Name like '%x%'"
    one = await made(api, "Slow", {"kind": "query", "query": slow})
    monkeypatch.setattr("tandem.site.collections.service._LIST_SECONDS", 0.0)
    (shown,) = (await api.get("/api/v1/collections", search="Slow"))["items"]
    assert shown["members"] is None
    await api.web.post(f"/api/v1/collections/{one['id']}/evaluate")
    (shown,) = (await api.get("/api/v1/collections", search="Slow"))["items"]
    assert (shown["members"], shown["members_at"]) == (one["members"], shown["evaluated_at"])
    rules = {"rules": [{"kind": "query", "query": slow}]}
    monkeypatch.setattr("tandem.site.collections.service._PREVIEW_SECONDS", 0.0)
    _, error = await api.refusal("POST", "/api/v1/collections/preview", rules)
    assert error["code"] == "collection.too-complex"
    async with api.db.transaction() as tx:
        row = await (await tx.execute("SHOW statement_timeout")).fetchone()
    assert row == {"statement_timeout": "0"}


async def test_a_query_without_an_end_becomes_no_rule(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold whoever asks for its members: lists, roll-outs, and devices for their policy."""
    async with api.db.transaction() as tx:
        await many(tx, 300)
    monkeypatch.setattr("tandem.site.collections.service._PREVIEW_SECONDS", 0.2)
    joins = "".join(
        f" inner join SMS_R_System as {name} on {name}.Client = {before}.Client"
        for before, name in (("SMS_R_System", "b"), ("b", "c"), ("c", "d"))
    )
    endless = f"select * from SMS_R_System{joins} where b.Name='q' or c.Name='q' or d.Name='q'"
    rule = {"kind": "query", "query": endless}
    new = {"name": "Endless", "rules": [rule]}
    _, error = await api.refusal("POST", "/api/v1/collections", new)
    assert error["code"] == "collection.too-complex"
    await made(api, "Small")
    for method, path, body in (
        ("POST", "/api/v1/collections/Small/rules", {"rules": [rule]}),
        ("PATCH", "/api/v1/collections/Small", {"rules": [rule]}),
    ):
        _, error = await api.refusal(method, path, body)
        assert error["code"] == "collection.too-complex"
    assert (await api.get("/api/v1/collections/Small"))["members"] == 0
