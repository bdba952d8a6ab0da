"""Delta queries as scripts use them: follow the links, and miss nothing."""

from typing import Any

from graph_caller import Graph, group_body, ref


async def follow(admin: Graph, path: str) -> tuple[list[Any], str]:
    """All objects of the pages from here on, and the deltaLink that ends them."""
    found: list[Any] = []
    while True:
        page = await admin.get(path)
        found += page["value"]
        if "@odata.deltaLink" in page:
            assert "@odata.nextLink" not in page
            return found, str(page["@odata.deltaLink"])
        path = page["@odata.nextLink"]


async def test_a_delta_link_tells_what_was_made_changed_and_removed(admin: Graph) -> None:
    kept, dropped = await admin.world.user("kept"), await admin.world.user("dropped")
    everybody, link = await follow(admin, "users/delta()?$select=displayName&$top=2")
    assert {kept.id, dropped.id} < {item["id"] for item in everybody}
    assert all(set(item) == {"id", "displayName"} for item in everybody)
    nothing, link = await follow(admin, link)
    assert nothing == []
    fresh = await admin.world.user("fresh")
    await admin.call("PATCH", f"users/{kept.id}", {"displayName": "Renamed"})
    await admin.call("DELETE", f"users/{dropped.id}")
    changes, link = await follow(admin, link)
    by_id = {item["id"]: item for item in changes}
    assert by_id[fresh.id] == {"id": fresh.id, "displayName": "Fresh"}
    assert by_id[kept.id]["displayName"] == "Renamed"
    assert by_id[dropped.id] == {"id": dropped.id, "@removed": {"reason": "changed"}}
    assert (await follow(admin, link))[0] == []


async def test_only_what_comes_after_latest_is_told(admin: Graph) -> None:
    await admin.world.user("before")
    nothing, link = await follow(admin, "users/delta?$deltatoken=latest")
    assert nothing == []
    after = await admin.world.user("after")
    assert [item["id"] for item in (await follow(admin, link))[0]] == [after.id]


async def test_members_of_groups_come_and_go_in_a_delta(admin: Graph) -> None:
    alex, robin = await admin.world.user("alex"), await admin.world.user("robin")
    group = await admin.post("groups", group_body("Pilot"))
    path = f"groups/{group['id']}/members"
    await admin.post(f"{path}/$ref", ref(alex.id), status=204)
    groups, link = await follow(admin, f"groups/delta?$filter=id eq '{group['id']}'")
    user = "#microsoft.graph.user"
    (told,) = groups
    assert told["members@delta"] == [{"@odata.type": user, "id": alex.id}]
    await admin.post(f"{path}/$ref", ref(robin.id), status=204)
    await admin.call("DELETE", f"{path}/{alex.id}/$ref")
    other = await admin.post("groups", group_body("Other"))
    (told,), link = await follow(admin, link)
    assert told["id"] == group["id"] != other["id"], "the question's ids are kept"
    assert sorted(told["members@delta"], key=lambda item: item["id"]) == sorted(
        [
            {"@odata.type": user, "id": robin.id},
            {"@odata.type": user, "id": alex.id, "@removed": {"reason": "deleted"}},
        ],
        key=lambda item: str(item["id"]),
    )


async def test_changes_come_by_pages_and_for_every_kind_of_object(admin: Graph) -> None:
    _, link = await follow(admin, "applications/delta?$top=2")
    made = {(await admin.post("applications", {"displayName": f"A{n}"}))["id"] for n in range(5)}
    first = await admin.get(link)
    assert len(first["value"]) == 2
    told, link = await follow(admin, first["@odata.nextLink"])
    assert {item["id"] for item in [*first["value"], *told]} == made
    for path in ("servicePrincipals", "devices"):
        await follow(admin, f"{path}/microsoft.graph.delta()")


async def test_an_open_transaction_is_not_left_out(admin: Graph) -> None:
    """What commits late is told by a later link, though its rows were numbered early."""
    world = admin.world
    _, link = await follow(admin, "users/delta?$deltatoken=latest")
    async with world.database.transaction() as late:
        await late.execute("UPDATE directory_user SET display_name = 'Late'")
        early = await world.user("early")
        _, link = await follow(admin, link)
    told, _ = await follow(admin, link)
    assert {"Late", early.display_name} <= {item["displayName"] for item in told}


async def test_a_lapsed_link_says_where_to_start_anew(admin: Graph) -> None:
    _, link = await follow(admin, "users/delta?$select=id&$deltatoken=latest")
    admin.world.wait(days=31)
    admin.headers = await admin.world.bearer()
    lapsed = await admin.raw("GET", link)
    assert (lapsed.status_code, lapsed.json()["error"]["code"]) == (410, "syncStateNotFound")
    await follow(admin, lapsed.headers["location"])


async def test_tokens_of_others_and_other_conditions_are_refused(admin: Graph) -> None:
    _, link = await follow(admin, "users/delta?$deltatoken=latest")
    await admin.get(link[:-3] + "AAA", status=400)
    await admin.get("users/delta?$deltatoken=x", status=400)
    await admin.get(link.replace("/users/", "/groups/"), status=410)
    await admin.get("users/delta?$filter=displayName eq 'x'", status=400)
    await admin.get("users/delta?$select=nonsense", status=400)
