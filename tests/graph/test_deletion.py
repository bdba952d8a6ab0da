"""What is deleted is gone at once, and comes back as it was for thirty days."""

from datetime import timedelta
from typing import Any

from graph_caller import USER, Graph, app_graph, group_body, ref, role_user
from tandem.tenant import directory, licensing
from tenant_world import ADMIN, PASSWORD, World

BIN = "directory/deletedItems"


async def names(graph: Graph, path: str) -> list[str]:
    return [item["displayName"] for item in (await graph.get(path))["value"]]


async def test_a_deleted_user_stops_at_once_and_comes_back_as_before(
    admin: Graph, world: World
) -> None:
    alex = await admin.post("users", USER)
    group = await admin.post("groups", group_body("Pilot"))
    await admin.post(f"groups/{group['id']}/members/$ref", ref(alex["id"]), status=204)
    sku = licensing.product("EMSPREMIUM").sku_id
    licences = {"addLicenses": [{"skuId": sku}], "removeLicenses": []}
    await admin.post(f"users/{alex['id']}/assignLicense", licences, status=200)
    joined = await world.joined("alex@contoso.com")
    tokens = await world.user_tokens(
        "https://graph.microsoft.com/.default openid offline_access", upn="alex@contoso.com"
    )
    mine = Graph(world, {"Authorization": f"Bearer {tokens['access_token']}"})
    await mine.get("me")

    await admin.call("DELETE", f"users/{alex['id']}")
    await mine.get("me", status=401)
    refreshed = await world.token(
        grant_type="refresh_token",
        client_id="14d82eec-204b-4c2f-b7e8-296a70dab67e",
        refresh_token=tokens["refresh_token"],
    )
    assert refreshed.status_code == 400
    await admin.get(f"users/{alex['id']}", status=404)
    assert await names(admin, f"groups/{group['id']}/members") == []
    assert (await admin.get("subscribedSkus"))["value"][0]["consumedUnits"] == 0
    async with world.database.transaction() as tx:
        wrong = await directory.authenticate(tx, "alex@contoso.com", PASSWORD, world.at)
        assert isinstance(wrong, directory.WrongPassword)
    device = await admin.get(f"devices(deviceId='{joined.device_id}')")
    assert (await admin.get(f"devices/{device['id']}/registeredOwners"))["value"] == []

    (gone,) = (await admin.get(f"{BIN}/microsoft.graph.user"))["value"]
    assert gone["userPrincipalName"] == "alex@contoso.com"
    assert gone["deletedDateTime"] == "2026-11-24T09:00:00Z"
    one = await admin.get(f"{BIN}/{alex['id']}")
    assert one["@odata.type"] == "#microsoft.graph.user"

    back = await admin.post(f"{BIN}/{alex['id']}/restore", {}, status=200)
    assert back["userPrincipalName"] == "alex@contoso.com"
    assert await names(admin, f"groups/{group['id']}/members") == ["Alex Wilber"]
    again = await admin.get(f"users/{alex['id']}?$select=assignedLicenses,department")
    assert [item["skuId"] for item in again["assignedLicenses"]] == [sku]
    assert again["department"] == "Sales"
    (owner,) = (await admin.get(f"devices/{device['id']}/registeredOwners"))["value"]
    assert owner["id"] == alex["id"]
    await Graph(world, await world.bearer("alex@contoso.com")).get("me")
    assert (await admin.get(f"{BIN}/microsoft.graph.user"))["value"] == []
    await admin.post(f"{BIN}/{alex['id']}/restore", {}, status=404)


async def test_a_name_that_was_taken_meanwhile_keeps_a_user_from_coming_back(admin: Graph) -> None:
    alex = await admin.post("users", USER)
    await admin.call("DELETE", f"users/{alex['id']}")
    other = await admin.post("users", {**USER, "displayName": "Alex Darrow"})
    refused = await admin.post(f"{BIN}/{alex['id']}/restore", {}, status=400)
    assert refused["error"]["details"][0]["target"] == "userPrincipalName"
    assert "Alex Darrow" in refused["error"]["message"]
    renamed = {"userPrincipalName": "darrow@contoso.com"}
    await admin.call("PATCH", f"users/{other['id']}", renamed)
    await admin.post(f"{BIN}/{alex['id']}/restore", {}, status=200)


async def test_a_deleted_group_gives_nothing_until_it_is_restored(admin: Graph) -> None:
    """Both ends of a membership may be deleted; it counts again when both are back."""
    alex = await admin.post("users", USER)
    outer = await admin.post("groups", group_body("Outer"))
    inner = await admin.post("groups", group_body("Inner"))
    await admin.post(f"groups/{outer['id']}/members/$ref", ref(inner["id"]), status=204)
    await admin.post(f"groups/{inner['id']}/members/$ref", ref(alex["id"]), status=204)
    sku = licensing.product("EMSPREMIUM").sku_id
    licences = {"addLicenses": [{"skuId": sku}], "removeLicenses": []}
    await admin.post(f"groups/{outer['id']}/assignLicense", licences, status=202)

    async def consumed() -> Any:
        return (await admin.get("subscribedSkus"))["value"][0]["consumedUnits"]

    assert await consumed() == 1
    await admin.call("DELETE", f"users/{alex['id']}")
    await admin.call("DELETE", f"groups/{inner['id']}")
    assert await names(admin, f"groups/{outer['id']}/transitiveMembers") == []
    await admin.post(f"{BIN}/{alex['id']}/restore", {}, status=200)
    assert await names(admin, f"users/{alex['id']}/transitiveMemberOf") == []
    assert await consumed() == 0
    await admin.post(f"{BIN}/{inner['id']}/restore", {}, status=200)
    above = await names(admin, f"users/{alex['id']}/transitiveMemberOf")
    assert sorted(above) == ["Inner", "Outer"]
    assert await consumed() == 1


async def test_a_deleted_application_signs_nobody_in_and_comes_back_whole(
    admin: Graph, world: World
) -> None:
    await app_graph(world, "User.Read.All")
    (app,) = (await admin.get("applications?$filter=displayName eq 'Server'"))["value"]
    uri = {"identifierUris": ["api://server"]}
    await admin.call("PATCH", f"applications/{app['id']}", uri)
    (principal,) = (await admin.get(f"servicePrincipals?$filter=appId eq '{app['appId']}'"))[
        "value"
    ]
    secret = await admin.post(f"applications/{app['id']}/addPassword", {}, status=200)
    form = {
        "grant_type": "client_credentials",
        "client_id": app["appId"],
        "client_secret": secret["secretText"],
        "scope": "https://graph.microsoft.com/.default",
    }
    token = (await world.token(**form)).json()["access_token"]
    server = Graph(world, {"Authorization": f"Bearer {token}"})
    await server.get("users")
    await admin.call("DELETE", f"applications/{app['id']}")
    await server.get("users", status=401)
    assert (await world.token(**form)).status_code == 400
    await admin.get(f"servicePrincipals/{principal['id']}", status=404)
    assert await names(admin, f"{BIN}/microsoft.graph.application") == ["Server"]
    other = await admin.post("applications", {"displayName": "Other", **uri})
    refused = await admin.post(f"{BIN}/{app['id']}/restore", {}, status=400)
    assert "api://server" in refused["error"]["message"]
    await admin.call("DELETE", f"applications/{other['id']}")
    await admin.post(f"{BIN}/{app['id']}/restore", {}, status=200)
    token = (await world.token(**form)).json()["access_token"]
    await Graph(world, {"Authorization": f"Bearer {token}"}).get("users")
    held = await admin.get(f"servicePrincipals/{principal['id']}/appRoleAssignments")
    assert len(held["value"]) == 1


async def test_what_is_purged_or_thirty_days_old_is_gone_for_good(
    admin: Graph, world: World
) -> None:
    first = await admin.post("users", USER)
    second = await admin.post("users", {**USER, "userPrincipalName": "eva@contoso.com"})
    for user in (first, second):
        await admin.call("DELETE", f"users/{user['id']}")
    await admin.call("DELETE", f"{BIN}/{first['id']}")
    await admin.post(f"{BIN}/{first['id']}/restore", {}, status=404)
    audits = await admin.get("auditLogs/directoryAudits?$top=1")
    assert audits["value"][0]["activityDisplayName"] == "Hard delete user"
    async with world.database.transaction() as tx:
        assert await directory.tend(tx, world.at + timedelta(days=29)) == []
        (gone,) = await directory.tend(tx, world.at + timedelta(days=31))
        assert gone.id == second["id"]
    await admin.get(f"{BIN}/{second['id']}", status=404)


async def test_an_administrator_comes_and_goes_by_a_global_administrator_only(
    admin: Graph, world: World
) -> None:
    lower = await role_user(world, "ursula", directory.USER_ADMINISTRATOR)
    await role_user(world, "gerd", directory.GLOBAL_ADMINISTRATOR)
    gerd = (await admin.get("users/gerd@contoso.com"))["id"]
    await lower.call("DELETE", f"users/{gerd}", status=403)
    await admin.call("DELETE", f"users/{gerd}")
    await lower.call("POST", f"{BIN}/{gerd}/restore", {}, status=403)
    await lower.call("DELETE", f"{BIN}/{gerd}", status=403)
    only = (await admin.get(f"users/{ADMIN}"))["id"]
    await admin.call("DELETE", f"users/{only}", status=400)
    await admin.post(f"{BIN}/{gerd}/restore", {}, status=200)
    roles = await names(admin, f"users/{gerd}/memberOf")
    assert roles == ["Global Administrator"]
