"""Collections of users: rules, evaluation, and what is refused because it would mix them with devices."""

from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import NOW, Api, add_device
from tandem.site import collections
from tandem.site.collections import MemberType, UserResource

MAIL = "select * from SMS_R_User where Mail like '%@contoso.com'"


async def discovered(api: Api, *names: str, mail: str = "{}@contoso.com", **more: Any) -> None:
    async with api.db.transaction() as tx:
        for name in names:
            user = UserResource(
                site_api.TENANT, f"o-{name}", f"{name}@contoso.com", name.title(),
                mail.format(name), **more,
            )  # fmt: skip
            await collections.upsert_user(tx, user, NOW)


async def made(api: Api, name: str, *rules: dict[str, str], **more: Any) -> dict[str, Any]:
    wanted = {"name": name, "type": "user", "rules": list(rules), **more}
    answer = await api.web.post("/api/v1/collections", json=wanted)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def members(api: Api, id: str, **query: Any) -> list[str]:
    found = await api.get(f"/api/v1/collections/{id}/members", **query)
    return [item["upn"].partition("@")[0] for item in found["items"]]


async def kept(api: Api, id: str) -> set[str]:
    async with api.db.transaction() as tx:
        rows = await tx.execute(
            "SELECT upn FROM collections_user_member m JOIN collections_user u"
            " ON u.id = m.resource_id WHERE m.collection_id = %s",
            (id,),
        )
        return {row["upn"].partition("@")[0] async for row in rows}


async def test_every_kind_of_rule_is_for_users_too(api: Api) -> None:
    await discovered(api, "ada", "bob", "cleo", "dora")
    await discovered(api, "eve", mail="{}@fabrikam.com")
    mail = await made(api, "Mail", {"kind": "query", "query": MAIL})
    assert await members(api, mail["id"]) == ["ada", "bob", "cleo", "dora"]
    assert (mail["type"], mail["limiting_id"], mail["members"]) == ("user", "SMS00004", 4)
    out = await made(api, "Out", {"kind": "direct", "user": "BOB@contoso.com"})
    both = await made(
        api, "Both", {"kind": "include", "collection": "Mail"},
        {"kind": "direct", "user": "o-eve"}, {"kind": "exclude", "collection": "Out"},
    )  # fmt: skip
    assert await members(api, both["id"]) == ["ada", "cleo", "dora", "eve"]
    few = await made(api, "Few", {"kind": "include", "collection": "Both"}, limiting="Mail")
    assert await members(api, few["id"], sort="-upn") == ["dora", "cleo", "ada"]
    assert await members(api, few["id"], search="cl") == ["cleo"]
    assert await members(api, "SMS00002") == ["ada", "bob", "cleo", "dora", "eve"]
    listed = await api.get("/api/v1/collections", type="user", sort="name")
    assert [(item["name"], item["members"]) for item in listed["items"]] == [
        ("All User Groups", 0), ("All Users", 5), ("All Users and User Groups", 5), ("Both", 4), ("Few", 3), ("Mail", 4),
        ("Out", 1),
    ]  # fmt: skip
    async with api.db.transaction() as tx:
        users = {item.upn: item.id for item in await collections.users(tx)}
        ids = [item["id"] for item in (mail, out, both, few)]
        of = await collections.memberships(tx, ids, users["ada@contoso.com"], MemberType.USER)
        assert of == {mail["id"], both["id"], few["id"]}
        # No device is in a collection of users, whatever its number.
        assert await collections.memberships(tx, ids, users["ada@contoso.com"]) == set()
        assert await collections.client_ids(tx, mail["id"]) == set()


async def test_users_are_kept_as_they_change(api: Api) -> None:
    await discovered(api, "ada")
    id = (await made(api, "Mail", {"kind": "query", "query": MAIL}))["id"]
    rest = [
        {"kind": "include", "collection": "SMS00002"},
        {"kind": "exclude", "collection": "Mail"},
    ]
    other = (await made(api, "Others", *rest))["id"]
    await api.evaluator.tend()
    assert (await kept(api, id), await kept(api, other)) == ({"ada"}, set())
    await discovered(api, "bob")
    await discovered(api, "ada", mail="{}@fabrikam.com")
    assert (await api.get("/api/v1/collections/waiting"))["resources"] == 2
    await api.evaluator.tend()
    assert (await kept(api, id), await kept(api, other)) == ({"bob"}, {"ada"})
    shown = (await api.get(f"/api/v1/collections/{id}"))["evaluation"]
    assert (shown["members"], shown["incremental_runs"]) == (1, 1)
    assert (await api.post(f"/api/v1/collections/{other}/evaluate", {}))["members"] == 1


async def test_who_is_gone_from_the_tenant_leaves_the_collections_and_may_come_back(
    api: Api,
) -> None:
    await discovered(api, "ada", "bob")
    mail = (await made(api, "Mail", {"kind": "query", "query": MAIL}))["id"]
    named = (await made(api, "Named", {"kind": "direct", "user": "bob@contoso.com"}))["id"]
    rest = [
        {"kind": "include", "collection": "SMS00002"},
        {"kind": "exclude", "collection": "Named"},
    ]
    other = (await made(api, "Others", *rest))["id"]
    everywhere = (mail, named, other, "SMS00002", "SMS00004")
    await api.evaluator.tend()
    assert [await kept(api, id) for id in everywhere[:3]] == [{"ada", "bob"}, {"bob"}, {"ada"}]

    async with api.db.transaction() as tx:
        assert await collections.mark_gone(tx, site_api.TENANT, ["o-bob", "nobody"], NOW) == 1
        assert await collections.mark_gone(tx, site_api.TENANT, ["o-bob"], NOW) == 0
    # By the rules at once, and in what is kept as soon as the collections were looked at.
    for id, left in zip(everywhere, (1, 0, 1, 1, 1), strict=True):
        assert (await api.get(f"/api/v1/collections/{id}/members"))["total"] == left
        assert (await api.get(f"/api/v1/collections/{id}"))["members"] == left
    await api.evaluator.tend()
    assert [await kept(api, id) for id in everywhere[:3]] == [{"ada"}, set(), {"ada"}]
    assert (await api.get(f"/api/v1/collections/{named}"))["evaluation"]["members"] == 0
    assert (await api.post(f"/api/v1/collections/{named}/evaluate", {}))["members"] == 0
    assert [item["upn"] for item in (await api.get("/api/v1/users"))["items"]] == [
        "ada@contoso.com"
    ]
    _, error = await api.refusal(
        "POST", "/api/v1/collections",
        {"name": "B", "type": "user", "rules": [{"kind": "direct", "user": "bob@contoso.com"}]},
    )  # fmt: skip
    assert error["code"] == "resource.not-found"

    await discovered(api, "bob")
    await api.evaluator.tend()
    assert [await kept(api, id) for id in everywhere[:3]] == [{"ada", "bob"}, {"bob"}, {"ada"}]


async def test_users_and_devices_are_never_mixed(api: Api) -> None:
    await discovered(api, "ada")
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    await made(api, "Staff", {"kind": "direct", "user": "ada@contoso.com"})
    await api.web.post("/api/v1/collections", json={"name": "Lab"})
    post, preview = "/api/v1/collections", "/api/v1/collections/preview"
    user = {"kind": "direct", "user": "ada@contoso.com"}
    device = {"kind": "direct", "device": "LAB-001"}
    for path, body, code in (
        (post, {"name": "A", "type": "user", "limiting": "Lab"}, "collection.wrong-type"),
        (post, {"name": "A", "limiting": "All Users"}, "collection.wrong-type"),
        (post, {"name": "A", "type": "user", "rules": [device]}, "collection.bad-rule"),
        (post, {"name": "A", "rules": [user]}, "collection.bad-rule"),
        (post, {"name": "A", "type": "user", "query": "select * from SMS_R_System"},
            "collection.bad-query"),
        (preview, {"rules": [{"kind": "query", "query": MAIL}]}, "collection.bad-query"),
        (preview, {"type": "user", "rules": [{"kind": "include", "collection": "Lab"}]},
            "collection.wrong-type"),
        (preview, {"collection": "Staff", "rules": [{"kind": "exclude", "collection": "Lab"}]},
            "collection.wrong-type"),
        (preview, {"type": "user", "rules": [{"kind": "direct", "user": "nobody"}]},
            "resource.not-found"),
        (f"{post}/Staff/members", {"devices": ["LAB-001"]}, "collection.wrong-type"),
        (post, {"name": "A", "type": "group"}, "request.invalid"),
    ):  # fmt: skip
        _, error = await api.refusal("POST", path, body)
        assert (error["code"], bool(error["message"])) == (code, True), (path, body, error)
    _, error = await api.refusal("PATCH", f"{post}/Staff", {"limiting": "SMS00001"})
    assert (error["code"], error["details"]["field"]) == ("collection.wrong-type", "limiting")
    assert (await api.refusal("GET", f"{post}?type=x"))[0] == 400
    # What is for devices only refuses it by name.
    _, error = await api.refusal("GET", "/api/v1/software-updates/reach?collection=Staff")
    assert error["code"] == "collection.wrong-type"


async def test_the_commands_for_users(api: Api, tmp_path: Path) -> None:
    await discovered(api, "ada", "bob")
    async with site_api.commands(api, tmp_path) as commands:
        run = commands.run
        assert (await run("collection", "preview", "--type", "user", "--query", MAIL))[
            "members"
        ] == 2
        staff = await run("collection", "create", "Staff", "--user", "ada@contoso.com")
        assert (staff["type"], staff["members"]) == ("user", 1)
        await run("collection", "create", "Rest", "--type", "user", "--include", "All Users",
            "--exclude", "Staff")  # fmt: skip
        assert [item["upn"] for item in await run("collection", "members", "Rest")] == [
            "bob@contoso.com"
        ]
        added = await run("collection", "add-rule", "Staff", "--user", "bob@contoso.com")
        assert added["members"] == 2
        names = {item["name"] for item in await run("collection", "list", "--type", "user")}
        assert names == {
            "All User Groups", "All Users", "All Users and User Groups", "Staff", "Rest",
        }  # fmt: skip
        graph = await run("collection", "graph", "Staff")
        assert [(edge["how"], edge["of"] == staff["id"]) for edge in graph["edges"]] == [
            ("limit", True), ("exclude", False),
        ]  # fmt: skip
        assert [item["name"] for item in graph["needed_by"]] == ["Rest"]


# ------------------------------------------------------------------------------- built in

ELIGIBLE = "SMS000CE"


@pytest.mark.parametrize(
    ("facts", "eligible"),
    [
        ({}, True),
        ({"os_version": "10.0.16299"}, True),
        ({"os_version": "10.0.16299.15"}, True),
        ({"os_version": "10.0.15063.1"}, False),
        ({"os_version": "10.0.9200.1"}, False),
        ({"os_version": "6.3.9600"}, False),
        ({"os_version": "11.0"}, True),
        ({"os_version": "10.0.99999999999"}, False),
        ({"os_version": "ten"}, False),
        ({"os_version": ""}, False),
        ({"os_name": "Linux"}, False),
        ({"os_name": "Windows Server 2022"}, False),
        ({"device_id": ""}, False),
        ({"provider": "MS DM Server"}, True),
        ({"provider": "OtherMDM"}, False),
        ({"provider": "OtherMDM", "enrolled": 0}, True),
    ],
)
async def test_who_is_eligible_for_co_management(
    api: Api, facts: dict[str, Any], eligible: bool
) -> None:
    known = {"os_name": "Windows", "os_version": "10.0.22631.1", "device_id": "d-1", **facts}
    provider, enrolled = known.pop("provider", "TandemMDM"), known.pop("enrolled", 1)
    async with api.db.transaction() as tx:
        device = collections.Resource("GUID:A", "A", site_api.TENANT, **known)
        number = await collections.upsert_resource(tx, device, NOW)
        said = {"MDMEnrolled": enrolled, "MDMProvider": provider}
        await collections.report(tx, "GUID:A", collections.COMANAGEMENT_STATE, [said], NOW)
        assert (await collections.is_member(tx, collections.ELIGIBLE, number)) is eligible
    page = await api.get(f"/api/v1/collections/{ELIGIBLE}/members")
    assert page["total"] == int(eligible)
    await api.evaluator.tend()
    async with api.db.transaction() as tx:
        rows = await tx.execute(
            "SELECT count(*) AS n FROM collections_member WHERE collection_id = %s", (ELIGIBLE,)
        )
        row = await rows.fetchone()
        assert row is not None
        assert row["n"] == int(eligible)
    assert (await api.post(f"/api/v1/collections/{ELIGIBLE}/evaluate", {}))["members"] == eligible


async def test_what_is_built_in_is_explained_and_stays(api: Api) -> None:
    listed = await api.get("/api/v1/collections")
    assert {item["id"] for item in listed["items"] if item["built_in"]} == set(collections.BUILT_IN)
    for id in collections.BUILT_IN:
        path = f"/api/v1/collections/{id}"
        shown = await api.get(path)
        assert shown["rule_of_the_site"] == collections.BUILT_IN[id]
        mine = {"name": f"Within {id}", "type": shown["type"]}
        assert (await api.web.post("/api/v1/collections", json=mine)).status_code == 201
        rule = {"kind": "query", "query": "select * from SMS_R_System"}
        for method, where, body in (
            ("DELETE", path, None),
            ("PATCH", path, {"name": "Other"}),
            ("PATCH", path, {"rules": []}),
            ("PATCH", path, {"limiting": mine["name"]}),
            ("POST", f"{path}/rules", {"rules": [rule]}),
        ):
            code, error = await api.refusal(method, where, body)
            assert (code, error["code"]) == (409, "collection.built-in"), (method, where, body)
            assert shown["name"] in error["message"]
    # They are there to be used.
    made = {"name": "Eligible lab", "limiting": ELIGIBLE}
    assert (await api.web.post("/api/v1/collections", json=made)).status_code == 201
