"""What the frame does for every resource, shown by one that uses all of it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from widgets import PATH, TABLE, widgets

from graph_caller import Graph, group_body
from tandem.infra.database import Database
from tandem.tenant import graph
from tenant_world import BASE, CHEAP, World, make_world

A_WIDGET = {"@odata.type": "#microsoft.graph.msiWidget", "displayName": "One", "publisher": "P"}


@pytest.fixture
async def world(tenant_db: Database) -> AsyncIterator[World]:
    async with tenant_db.transaction() as tx:
        for statement in TABLE.split(";"):
            await tx.execute(statement.encode())
    parts = [*graph.directory_parts(CHEAP), widgets()]
    made = await make_world(
        tenant_db, lambda here: graph.routes(here.database, here.tokens, here.now, parts=parts)
    )
    yield made
    await made.client.aclose()


async def make(admin: Graph, **values: Any) -> dict[str, Any]:
    return dict(await admin.post(PATH, {**A_WIDGET, **values}))


async def test_each_method_answers_with_the_status_its_resource_says(admin: Graph) -> None:
    made = await make(admin)
    changed = await admin.call("PATCH", f"{PATH}/{made['id']}", {"displayName": "Two"}, status=200)
    assert changed["displayName"] == "Two"
    body = {**A_WIDGET, "displayName": "Three"}
    await admin.call("PUT", f"{PATH}/{made['id']}", body, status=204)
    assert (await admin.get(f"{PATH}/{made['id']}"))["displayName"] == "Three"
    gone = await admin.raw("DELETE", f"{PATH}/{made['id']}")
    assert (gone.status_code, gone.content) == (200, b"")
    await admin.get(f"{PATH}/{made['id']}", status=404)


async def test_an_open_resource_gives_back_what_it_was_given(admin: Graph) -> None:
    extra = {"settings": [{"@odata.type": "#x.y", "v": 1}], "note": None, "createdBy": "me"}
    made = await make(admin, **extra, version=77)
    assert {name: made[name] for name in extra} == extra
    assert made["version"] == 1, "read-only properties are left alone"
    listed = (await admin.get(f"{PATH}?$select=note,displayname"))["value"][0]
    assert set(listed) == {"@odata.type", "@odata.etag", "id", "displayName", "note"}


async def test_each_type_has_its_own_properties(admin: Graph) -> None:
    msi = await make(admin, productCode="{1}")
    web = await make(admin, **{"@odata.type": "#microsoft.graph.webWidget", "address": "a"})
    assert msi["@odata.type"] == "#microsoft.graph.msiWidget"
    assert {"publisher", "productCode"} <= set(msi)
    assert "productCode" not in web
    unsaid = {"@odata.type": "microsoft.graph.LOBwidget", "displayName": "x"}
    refused = await admin.post(PATH, unsaid, status=400)
    assert refused["error"]["details"][0]["target"] == "publisher"
    only = await admin.get(f"{PATH}/graph.lobWidget")
    assert [item["id"] for item in only["value"]] == [msi["id"]]
    by_cast = await admin.get(f"{PATH}/{msi['id']}/microsoft.graph.msiWidget/assignments")
    assert by_cast["value"] == []


async def test_a_change_with_an_old_etag_is_refused(admin: Graph) -> None:
    made = await make(admin)
    one, tag = f"{PATH}/{made['id']}", made["@odata.etag"]
    read = await admin.raw("GET", one)
    assert read.headers["etag"] == read.json()["@odata.etag"] == tag
    first = await admin.raw("PATCH", one, {"displayName": "Mine"}, {"If-Match": tag})
    assert first.status_code == 200
    second = await admin.raw("PATCH", one, {"displayName": "Yours"}, {"If-Match": tag})
    assert second.status_code == 412
    assert second.json()["error"]["code"] == "PreconditionFailed"
    assert (await admin.raw("DELETE", one, headers={"If-Match": tag})).status_code == 412
    assert (await admin.get(one))["displayName"] == "Mine"
    assert (await admin.raw("DELETE", one, headers={"If-Match": "*"})).status_code == 200


async def test_contained_collections_name_their_parent(admin: Graph) -> None:
    made = await make(admin)
    body = {"assignments": [{"target": {"groupId": "g1"}}, {"target": {"groupId": "g2"}}]}
    assigned = await admin.post(f"{PATH}('{made['id']}')/assign", body, status=200)
    context = f"{BASE}/v1.0/$metadata#{PATH}('{made['id']}')/assignments"
    assert assigned["@odata.context"] == context
    assert [item["groupId"] for item in assigned["value"]] == ["g1", "g2"]
    expanded = await admin.get(
        f"{PATH}??$expand=assignments($select=groupId;$filter=groupId eq 'g2')&top=5"
    )
    (item,) = expanded["value"]
    assert item["assignments"] == [{"id": f"{made['id']}_1", "groupId": "g2"}]
    assert made["id"] in item["assignments@odata.context"]
    beta = await admin.get(f"/beta/{PATH}/{made['id']}/assignments")
    assert beta["@odata.context"] == context.replace("v1.0", "beta")


@pytest.mark.parametrize(
    "path",
    [
        "/v1.0//deviceManagement/widgets/",
        "/V1.0/DEVICEMANAGEMENT/Widgets",
        "/Beta/deviceManagement/widgets/",
        "/v1.0/myorganization/deviceManagement/widgets",
        "/v1.0/deviceManagement/widgets?%24top=1&$select=displayname",
        "/v1.0/deviceManagement/widgets?&top=1000",
    ],
)
async def test_every_spelling_of_a_path_leads_to_the_same_place(admin: Graph, path: str) -> None:
    await make(admin)
    assert [item["displayName"] for item in (await admin.get(path))["value"]] == ["One"]


async def test_functions_take_parameters_and_namespaces(admin: Graph) -> None:
    one = f"{PATH}/{(await make(admin))['id']}"
    for call in ("echo(a='it''s',b=2)", "microsoft.graph.ECHO(a='it''s',b=2)"):
        answer = await admin.get(f"{one}/{call}")
        assert (answer["a"], answer["b"]) == ("it's", "2")
    assert "a" not in await admin.get(f"{one}/graph.echo()")


async def test_a_stream_is_answered_as_it_is(admin: Graph) -> None:
    answer = await admin.raw("GET", f"{PATH}/{(await make(admin))['id']}/picture/$value")
    assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert answer.headers["request-id"]


async def test_a_collection_of_intune_is_always_counted(admin: Graph) -> None:
    for number in range(3):
        await make(admin, displayName=f"w{number}")
    page = await admin.get(f"{PATH}?$top=2")
    assert (page["@odata.count"], len(page["value"])) == (3, 2)
    rest = await admin.get(page["@odata.nextLink"])
    assert (len(rest["value"]), "@odata.nextLink" in rest) == (1, False)
    assert await admin.get(f"{PATH}/$count?$filter=displayName eq 'W1'") == "1"


async def test_members_are_bound_by_the_body_of_agroup_body(admin: Graph) -> None:
    alex = await admin.world.user("alex")
    reference = {"members@odata.bind": [f"https://graph.microsoft.com/v1.0/users/{alex.id}"]}
    group = await admin.post("groups", {**group_body("Bound"), **reference})
    members = (await admin.get(f"groups/{group['id']}/members/$ref"))["value"]
    assert [item["@odata.id"].rpartition("/")[2] for item in members] == [alex.id]
    many = {"members@odata.bind": [f"{BASE}/v1.0/users/{n}" for n in range(21)]}
    await admin.call("PATCH", f"groups/{group['id']}", many, status=400)
    await admin.call("DELETE", f"groups/{group['id']}/members/{alex.id}/$ref")
    await admin.call("PATCH", f"groups/{group['id']}", reference)
    nested = f"groups/{group['id']}?$expand=members($select=id,mail)&$select=id"
    (member,) = (await admin.get(nested))["members"]
    assert set(member) == {"@odata.type", "id", "mail"}


@pytest.mark.parametrize(
    "query",
    [
        "$count=true",
        "$filter=displayName ne 'x'",
        '$search="displayName:x"',
        "$filter=displayName eq 'x'&$orderby=displayName",
    ],
)
async def test_advanced_queries_need_their_header(admin: Graph, query: str) -> None:
    refused = await admin.get(f"users?{query}", status=400)
    assert refused["error"]["code"] == "Request_UnsupportedQuery"
    await admin.eventual().get(f"users?{query}&$count=true".replace("$count=true&", ""))
    plain = await admin.get("users/$count", status=400)
    assert plain["error"]["message"].startswith("$count is not currently supported.")


async def test_who_may_not_does_not_learn_what_exists(world: World, admin: Graph) -> None:
    made = await make(admin)
    await world.user("alex")
    alex = Graph(
        world, await world.bearer("alex@contoso.com", "https://graph.microsoft.com/User.Read")
    )
    for key in (made["id"], "00000000-0000-0000-0000-0000000000ff", "nonsense"):
        for method in ("GET", "PATCH", "DELETE"):
            await alex.call(method, f"{PATH}/{key}", {} if method == "PATCH" else None, status=403)
    await alex.get("applications(appId='00000003-0000-0000-c000-000000000000')", status=403)
    await alex.get("applications(appId='nonsense')", status=403)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("$filter=isof('microsoft.graph.lobWidget')", ["One", "Two"]),
        ("$filter=isof('microsoft.graph.webWidget')&$search=\"we\"", ["Web"]),
        ("$filter=(microsoft.graph.msiWidget/productCode) eq null", ["Two", "Web"]),
        ("$filter=targets/any(t:t/groupId eq 'G1' and t/intent eq 'required')", ["Two"]),
        ("$filter=publisher eq 'p' and not(displayName eq 'one')", ["Two"]),
        ("$filter=number in (1,2)&$orderby=number desc", ["Two", "One"]),
        ("$orderby=publisher,displayName desc", None),
        ("$search=nothing", []),
    ],
)
async def test_every_kind_of_condition_works_on_an_open_resource(
    admin: Graph, query: str, found: list[str] | None
) -> None:
    await make(admin, number=1, productCode="{1}", targets=[])
    targets = [{"groupId": "g1", "intent": "required"}, {"groupId": "g2"}]
    lob = {"@odata.type": "#microsoft.graph.lobWidget"}
    await make(admin, displayName="Two", number=2, targets=targets, **lob)
    web = {"@odata.type": "#microsoft.graph.webWidget", "displayName": "Web"}
    await admin.post(PATH, web)
    answer = await admin.get(f"{PATH}?{query}", status=200 if found is not None else 400)
    if found is not None:
        assert sorted(item["displayName"] for item in answer["value"]) == sorted(found)
