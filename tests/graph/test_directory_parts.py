"""Graph as scripts and the site use it: over HTTP, with real tokens."""

from typing import Any

import pytest

from graph_caller import USER, Graph, app_graph, group_body, ref, role_user
from tandem.tenant import directory, licensing, oidc
from tenant_world import ADMIN, BASE, World


async def test_a_user_is_created_found_changed_and_deleted(admin: Graph) -> None:
    made = await admin.post("users", USER)
    assert made["userPrincipalName"] == "alex@contoso.com"
    assert "passwordProfile" not in made
    by_name = await admin.get("users/alex@contoso.com?$select=id,department,accountEnabled")
    assert by_name["department"] == "Sales"
    assert by_name["accountEnabled"] is True
    await admin.call("PATCH", f"users/{made['id']}", {"jobTitle": "Seller", "department": None})
    after = await admin.get(f"users('{made['id']}')?$select=jobTitle,department")
    assert (after["jobTitle"], after["department"]) == ("Seller", None)
    await admin.call("DELETE", f"users/{made['id']}")
    gone = await admin.get(f"users/{made['id']}", status=404)
    assert gone["error"]["code"] == "Request_ResourceNotFound"


async def test_a_name_that_is_taken_or_foreign_is_refused_by_property(admin: Graph) -> None:
    await admin.post("users", USER)
    taken = await admin.post("users", USER, status=400)
    assert taken["error"]["details"][0]["code"] == "ObjectConflict"
    foreign = await admin.post("users", {**USER, "userPrincipalName": "a@fabrikam.com"}, status=400)
    assert "verified domain" in foreign["error"]["message"]
    weak = {**USER, "userPrincipalName": "b@contoso.com", "passwordProfile": {"password": "x"}}
    assert "complexity" in (await admin.post("users", weak, status=400))["error"]["message"]


async def test_lists_are_filtered_counted_and_paged(admin: Graph) -> None:
    for number in range(7):
        await admin.world.user(f"user{number}")
    found = await admin.eventual().get(
        "users?$filter=startswith(userPrincipalName,'USER')&$count=true"
    )
    assert found["@odata.count"] == 7
    page = await admin.get("users?$top=3&$select=userPrincipalName&$filter=accountEnabled eq true")
    seen = [item["id"] for item in page["value"]]
    while "@odata.nextLink" in page:
        assert page["@odata.nextLink"].startswith(BASE)
        page = await admin.get(page["@odata.nextLink"])
        seen += [item["id"] for item in page["value"]]
    assert len(seen) == len(set(seen)) == 8
    assert await admin.eventual().get("users/$count") == "8"


async def test_me_is_the_signed_in_user(world: World) -> None:
    await world.user("alex")
    alex = Graph(world, await world.bearer("alex@contoso.com"))
    assert (await alex.get("me"))["userPrincipalName"] == "alex@contoso.com"


async def test_a_user_without_a_role_changes_nothing(world: World) -> None:
    await world.user("alex")
    alex = Graph(world, await world.bearer("alex@contoso.com"))
    refused = await alex.post("users", USER, status=403)
    assert refused["error"]["code"] == "Authorization_RequestDenied"
    assert "User Administrator" in refused["error"]["message"]


async def test_a_user_administrator_cannot_take_over_an_administrator(world: World) -> None:
    alex = await world.user("alex")
    async with world.database.transaction() as tx:
        await directory.grant_role(tx, directory.USER_ADMINISTRATOR, alex.id)
    graph = Graph(world, await world.bearer("alex@contoso.com"))
    await graph.post("users", {**USER, "userPrincipalName": "new@contoso.com"})
    change = {"passwordProfile": {"password": "Taken-Over-1"}}
    await graph.call("PATCH", f"users/{ADMIN}", change, status=403)


async def test_an_application_has_its_permissions_and_no_more(world: World) -> None:
    graph = await app_graph(world, "User.Read.All")
    assert (await graph.get("users"))["value"]
    refused = await graph.get("groups", status=403)
    assert "Group.Read.All" in refused["error"]["message"]
    assert "admin consent" in refused["error"]["message"]


async def test_requests_without_a_valid_token_are_told_where_to_get_one(world: World) -> None:
    answer = await world.client.get("/v1.0/users")
    assert answer.status_code == 401
    assert "authorization_uri" in answer.headers["www-authenticate"]
    assert answer.json()["error"]["code"] == "InvalidAuthenticationToken"
    bad = await world.client.get("/v1.0/users", headers={"Authorization": "Bearer x"})
    assert bad.status_code == 401


async def test_group_members_come_and_go_by_reference(admin: Graph) -> None:
    alex = await admin.world.user("alex")
    group = await admin.post("groups", group_body("Pilot"))
    reference = {"@odata.id": f"{BASE}/v1.0/directoryObjects/{alex.id}"}
    await admin.post(f"groups/{group['id']}/members/$ref", reference, status=204)
    members = (await admin.get(f"groups/{group['id']}/members"))["value"]
    assert [(m["@odata.type"], m["id"]) for m in members] == [("#microsoft.graph.user", alex.id)]
    again = await admin.post(f"groups/{group['id']}/members/$ref", reference, status=400)
    assert "already exist" in again["error"]["message"]
    of = (await admin.get(f"users/{alex.id}/memberOf"))["value"]
    assert [item["displayName"] for item in of] == ["Pilot"]
    await admin.call("DELETE", f"groups/{group['id']}/members/{alex.id}/$ref")
    assert (await admin.get(f"groups/{group['id']}/members"))["value"] == []


async def test_licences_are_assigned_to_users_and_counted(admin: Graph) -> None:
    alex = await admin.world.user("alex")
    sku = licensing.product("EMSPREMIUM").sku_id
    body = {"addLicenses": [{"skuId": sku, "disabledPlans": []}], "removeLicenses": []}
    await admin.post(f"users/{alex.id}/assignLicense", body, status=200)
    (subscribed,) = (await admin.get("subscribedSkus"))["value"]
    assert subscribed["consumedUnits"] == 1
    plans = {plan["servicePlanName"] for plan in subscribed["servicePlans"]}
    assert {"INTUNE_A", "AAD_PREMIUM"} <= plans
    (details,) = (await admin.get(f"users/{alex.id}/licenseDetails"))["value"]
    assert details["skuPartNumber"] == "EMSPREMIUM"
    filtered = await admin.get(
        f"users?$filter=assignedLicenses/any(l:l/skuId eq {sku})&$select=assignedLicenses"
    )
    assert [item["id"] for item in filtered["value"]] == [alex.id]
    body = {"addLicenses": [], "removeLicenses": [sku]}
    await admin.post(f"users/{alex.id}/assignLicense", body, status=200)
    not_there = await admin.post(f"users/{alex.id}/assignLicense", body, status=400)
    assert "corresponding license" in not_there["error"]["message"]


async def test_a_group_assignment_reaches_members_and_lists_who_got_none(admin: Graph) -> None:
    await admin.post("tandem/subscribe", {"sku": "INTUNE_A", "seats": 2}, status=200)
    group = await admin.post("groups", group_body("Licensed"))
    sku = licensing.product("INTUNE_A").sku_id
    body = {"addLicenses": [{"skuId": sku}], "removeLicenses": []}
    await admin.post(f"groups/{group['id']}/assignLicense", body, status=202)
    for number in range(3):
        user = await admin.world.user(f"user{number}")
        reference = {"@odata.id": f"{BASE}/v1.0/users/{user.id}"}
        await admin.post(f"groups/{group['id']}/members/$ref", reference, status=204)
    failed = (await admin.get(f"groups/{group['id']}/membersWithLicenseErrors"))["value"]
    assert [item["userPrincipalName"] for item in failed] == ["user2@contoso.com"]
    (failure,) = (await admin.get("tandem/licensing"))["failures"]
    assert (failure["error"], failure["groupId"]) == ("CountViolation", group["id"])
    assert failure["reason"] == "No seat of this product is free."
    full = await admin.post(f"users/{user.id}/assignLicense", body, status=400)
    assert "available licenses" in full["error"]["message"]
    first = (await admin.get("users/user0@contoso.com"))["id"]
    await admin.call("DELETE", f"groups/{group['id']}/members/{first}/$ref")
    assert (await admin.get("tandem/licensing"))["failures"] == [], "the seat moved on"


async def test_the_mdm_authority_is_set_once(admin: Graph) -> None:
    here = (await admin.get("organization"))["value"][0]
    assert here["mobileDeviceManagementAuthority"] == "unknown"
    path = f"organization/{here['id']}/setMobileDeviceManagementAuthority"
    await admin.post(path, {}, status=200)
    again = await admin.post(path, {}, status=400)
    assert "already set" in again["error"]["message"]
    here = await admin.get(f"organization/{here['id']}")
    assert here["mobileDeviceManagementAuthority"] == "intune"


async def test_the_mdm_scope_is_none_some_or_all(admin: Graph) -> None:
    path = f"policies/mobileDeviceManagementPolicies/{oidc.MDM_APP}"
    assert (await admin.get(path))["appliesTo"] == "none"
    await admin.call("PATCH", path, {"appliesTo": "selected"}, status=400)
    group = await admin.post("groups", group_body("Pilot"))
    bound = [f"{BASE}/v1.0/groups/{group['id']}"]
    change = {"appliesTo": "selected", "includedGroups@odata.bind": bound}
    await admin.call("PATCH", path, change)
    assert (await admin.get(path))["appliesTo"] == "selected"
    assert (await admin.get(f"{path}/includedGroups"))["value"][0]["id"] == group["id"]
    await admin.call("DELETE", f"groups/{group['id']}", status=400)
    await admin.call("PATCH", path, {"appliesTo": "all"})
    assert (await admin.get(f"{path}/includedGroups"))["value"] == []


async def test_an_application_is_registered_consented_to_and_used(admin: Graph) -> None:
    """Steps 2.2 and 2.5: before consent discovery is refused, after it works."""
    (graph,) = (await admin.get(f"servicePrincipals?$filter=appId eq '{oidc.GRAPH}'"))["value"]
    role = next(r["id"] for r in graph["appRoles"] if r["value"] == "User.Read.All")
    app = await admin.post(
        "applications",
        {
            "displayName": "ConfigMgr server",
            "identifierUris": ["https://ConfigMgrService"],
            "web": {"homePageUrl": "https://ConfigMgrService", "redirectUris": []},
            "requiredResourceAccess": [
                {
                    "resourceAppId": oidc.GRAPH,
                    "resourceAccess": [{"id": role, "type": "Role"}],
                }
            ],
        },
    )
    scopes = app["api"]["oauth2PermissionScopes"]
    assert [item["value"] for item in scopes] == ["user_impersonation"]
    principal = await admin.post("servicePrincipals", {"appId": app["appId"]})
    secret = await admin.post(
        f"applications/{app['id']}/addPassword",
        {"passwordCredential": {"displayName": "site"}},
        status=200,
    )
    again = await admin.get(f"applications(appId='{app['appId']}')")
    assert again["passwordCredentials"][0]["secretText"] is None
    form = {
        "grant_type": "client_credentials",
        "client_id": app["appId"],
        "client_secret": secret["secretText"],
        "scope": "https://graph.microsoft.com/.default",
    }
    before = (await admin.world.token(**form)).json()["access_token"]
    site = Graph(admin.world, {"Authorization": f"Bearer {before}"})
    refused = await site.get("users", status=403)
    assert "User.Read.All" in refused["error"]["message"]
    await admin.post(
        f"servicePrincipals/{principal['id']}/appRoleAssignments",
        {"principalId": principal["id"], "resourceId": graph["id"], "appRoleId": role},
    )
    after = (await admin.world.token(**form)).json()["access_token"]
    site = Graph(admin.world, {"Authorization": f"Bearer {after}"})
    assert (await site.get("users"))["value"]
    taken = await admin.post(
        "applications",
        {"displayName": "Other", "identifierUris": ["https://configmgrservice"]},
        status=400,
    )
    assert taken["error"]["details"][0]["target"] == "identifierUris"
    await admin.call("DELETE", f"applications/{app['id']}")
    assert (await admin.world.token(**form)).json()["error_codes"] == [700016]


async def test_delegated_grants_are_made_and_taken_back(admin: Graph) -> None:
    server = await admin.post(
        "applications", {"displayName": "Server", "identifierUris": ["api://server"]}
    )
    client = await admin.post(
        "applications",
        {"displayName": "Client", "publicClient": {"redirectUris": ["http://localhost"]}},
    )
    there = await admin.post("servicePrincipals", {"appId": server["appId"]})
    here = await admin.post("servicePrincipals", {"appId": client["appId"]})
    grant = await admin.post(
        "oauth2PermissionGrants",
        {
            "clientId": here["id"],
            "consentType": "AllPrincipals",
            "resourceId": there["id"],
            "scope": "user_impersonation",
        },
    )
    tokens = await admin.world.user_tokens(
        "api://server/user_impersonation", client_id=client["appId"]
    )
    assert tokens["scope"] == "api://server/user_impersonation"
    await admin.call("DELETE", f"oauth2PermissionGrants/{grant['id']}")
    assert (await admin.get("oauth2PermissionGrants"))["value"] == []


async def test_directory_roles_keep_one_global_administrator(admin: Graph) -> None:
    (only,) = (await admin.get(f"directoryRoles/{directory.GLOBAL_ADMINISTRATOR}/members"))["value"]
    assert only["userPrincipalName"] == ADMIN
    role = f"directoryRoles/{directory.GLOBAL_ADMINISTRATOR}/members"
    refused = await admin.call("DELETE", f"{role}/{only['id']}/$ref", status=400)
    assert "last enabled Global Administrator" in refused["error"]["message"]


async def test_joined_devices_are_directory_objects(admin: Graph) -> None:
    await admin.world.user("alex")
    joined = await admin.world.joined("alex@contoso.com", "LAB-007")
    device = await admin.get(f"devices(deviceId='{joined.device_id}')")
    assert device["displayName"] == "LAB-007"
    (owner,) = (await admin.get(f"devices/{device['id']}/registeredOwners"))["value"]
    assert owner["userPrincipalName"] == "alex@contoso.com"


async def test_a_batch_answers_each_request_by_its_id(admin: Graph) -> None:
    answer = await admin.post(
        "$batch",
        {
            "requests": [
                {"id": 1, "method": "GET", "url": "users?$top=1"},
                {"id": "2", "method": "GET", "url": "https://graph.microsoft.com/v1.0/users/none"},
                {"id": "3", "method": "GET", "url": "/groups", "dependsOn": ["2"]},
                {"id": "4", "method": "POST", "url": "/groups", "body": group_body("Batched")},
                {
                    "id": "5",
                    "method": "GET",
                    "url": "/users/$count",
                    "headers": {"consistencyLevel": "eventual"},
                },
            ]
        },
        status=200,
    )
    by_id = {item["id"]: item for item in answer["responses"]}
    assert [by_id[n]["status"] for n in "12345"] == [200, 404, 424, 201, 200]
    assert by_id["1"]["body"]["value"][0]["userPrincipalName"] == ADMIN
    assert all("Content-Type" in item["headers"] for item in by_id.values())
    too_many = [{"id": n, "method": "GET", "url": "/users"} for n in range(21)]
    await admin.post("$batch", {"requests": too_many}, status=400)


@pytest.mark.parametrize(
    "change",
    [
        {"displayName": None},
        {"displayName": "x" * 300},
        {"accountEnabled": None},
        {"accountEnabled": "yes"},
        {"mailNickname": ""},
        {"userPrincipalName": None},
        {"usageLocation": "Germany"},
        {"displayName": "a\0b"},
        {"id": "1"},
        {"nonsense": 1},
    ],
)
async def test_values_that_a_user_cannot_have_are_refused(
    admin: Graph, change: dict[str, Any]
) -> None:
    alex = await admin.world.user("alex")
    await admin.call("PATCH", f"users/{alex.id}", change, status=400)


async def test_disabling_an_account_ends_its_access_at_once(world: World) -> None:
    alex = await world.user("alex")
    graph = Graph(world, await world.bearer("alex@contoso.com"))
    await graph.get("me")
    async with world.database.transaction() as tx:
        await directory.update_user(tx, alex.id, {"account_enabled": False}, world.at)
    await graph.get("me", status=401)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "nonsense", 400, "BadRequest"),
        ("DELETE", "organization", 405, "Request_BadRequest"),
        ("GET", "users?$filter=displayName eq", 400, "Request_BadRequest"),
        ("GET", "users?$select=nonsense", 400, "Request_BadRequest"),
        ("GET", "users?$filter=displayName eq '%00'", 400, "Request_BadRequest"),
        ("GET", "users?$skiptoken=nonsense", 400, "Request_BadRequest"),
        ("GET", "users/00000000-0000-0000-0000-000000000001", 404, "Request_ResourceNotFound"),
    ],
)
async def test_refusals_have_graphs_codes(
    admin: Graph, method: str, path: str, status: int, code: str
) -> None:
    assert (await admin.call(method, path, status=status))["error"]["code"] == code


MDM = f"policies/mobileDeviceManagementPolicies/{oidc.MDM_APP}"
MAM = f"policies/mobileAppManagementPolicies/{oidc.MDM_APP}"


async def test_the_mdm_addresses_are_chosen_and_restored(admin: Graph) -> None:
    usual = (await admin.get(f"{MDM}?$select=discoveryUrl,defaultUrls"))["defaultUrls"]
    assert usual["discoveryUrl"].endswith("/EnrollmentServer/Discovery.svc")
    await admin.call("PATCH", MDM, {"discoveryUrl": "https://mdm.example/discover"})
    assert (await admin.get(MDM))["discoveryUrl"] == "https://mdm.example/discover"
    assert (await admin.get(MDM))["complianceUrl"] == usual["complianceUrl"]
    for wrong in ("http://mdm.example/", "https:///", "mdm", "https://[", "https://a b/"):
        refused = await admin.call("PATCH", MDM, {"termsOfUseUrl": wrong}, status=400)
        assert refused["error"]["details"][0]["target"] == "termsOfUseUrl", refused
    await admin.call("PATCH", MDM, {"discoveryUrl": None})
    assert (await admin.get(MDM))["discoveryUrl"] == usual["discoveryUrl"]


async def test_two_administrators_do_not_overwrite_each_others_scope(admin: Graph) -> None:
    read = (await admin.raw("GET", MDM)).headers["etag"]
    await admin.call("PATCH", MDM, {"appliesTo": "all"})
    late = await admin.raw("PATCH", MDM, {"appliesTo": "none"}, {"If-Match": read})
    assert late.status_code == 412, late.text
    assert (await admin.get(MDM))["appliesTo"] == "all"


async def test_the_mam_scope_is_a_scope_of_its_own(admin: Graph) -> None:
    group = await admin.post("groups", group_body("Phones"))
    change = {
        "appliesTo": "selected",
        "includedGroups@odata.bind": [f"{BASE}/v1.0/groups/{group['id']}"],
    }
    await admin.call("PATCH", MAM, change)
    assert (await admin.get(f"{MAM}/includedGroups"))["value"][0]["id"] == group["id"]
    assert (await admin.get(MDM))["appliesTo"] == "none"
    await admin.call("DELETE", f"groups/{group['id']}", status=400)
    await admin.call("PATCH", MAM, {"appliesTo": "none"})
    await admin.call("DELETE", f"groups/{group['id']}")


async def test_who_gets_the_mdm_addresses_is_told_with_the_reason(admin: Graph) -> None:
    made = await admin.post("users", USER)
    outer = await admin.post("groups", group_body("Pilot"))
    inner = await admin.post("groups", group_body("Sales"))
    await admin.call("POST", f"groups/{outer['id']}/members/$ref", ref(inner["id"]), 204)
    asked = {"user": USER["userPrincipalName"]}

    async def checks() -> tuple[bool, dict[str, Any]]:
        said = await admin.post("tandem/enrollmentCheck", asked, status=200)
        return said["getsUrls"], {item["name"]: item for item in said["checks"]}

    gets, found = await checks()
    assert not gets
    assert {name for name, item in found.items() if not item["holds"]} == {"authority", "scope"}
    here = (await admin.get("organization"))["value"][0]
    path = f"organization/{here['id']}/setMobileDeviceManagementAuthority"
    await admin.post(path, {}, status=200)
    bound = [f"{BASE}/v1.0/groups/{outer['id']}"]
    await admin.call("PATCH", MDM, {"appliesTo": "selected", "includedGroups@odata.bind": bound})
    assert not (await checks())[0], "the group is in the scope, the user is not in the group"
    await admin.call("POST", f"groups/{inner['id']}/members/$ref", ref(made["id"]), 204)
    gets, found = await checks()
    assert gets
    assert found["scope"]["groups"] == ["Pilot"], "through a group inside it"
    await admin.call("PATCH", "tandem/licensing", {"licenceRequired": True}, status=200)
    gets, found = await checks()
    assert not gets
    assert not found["premium"]["holds"]
    assert not found["licence"]["holds"]
    unknown = await admin.post("tandem/enrollmentCheck", {"user": "nobody@contoso.com"}, 404)
    assert "nobody@contoso.com" in unknown["error"]["message"]


async def test_a_rule_is_tried_before_it_is_a_groups(admin: Graph) -> None:
    await admin.post("users", USER)
    tried = await admin.post(
        "tandem/membershipRule", {"membershipRule": 'user.department -eq "sales"'}, status=200
    )
    assert (tried["memberType"], tried["count"]) == ("user", 1)
    assert tried["first"][0]["displayName"] == "Alex Wilber"
    for wrong in ("user.shoe -eq 4", 'user.department -eq "', 'user.department -match "("'):
        refused = await admin.post("tandem/membershipRule", {"membershipRule": wrong}, 400)
        assert refused["error"]["details"][0]["target"] == "membershipRule", refused
        group = group_body("Bad", groupTypes=["DynamicMembership"], membershipRule=wrong)
        refused = await admin.post("groups", group, 400)
        assert refused["error"]["details"][0]["target"] == "membershipRule", refused
    assert (await admin.get("groups?$filter=displayName eq 'Bad'"))["value"] == []


async def test_users_groups_and_applications_have_entity_tags(admin: Graph) -> None:
    """Two administrators who have the same page open: the second is told, and loses nothing."""
    paths = [
        f"users/{(await admin.post('users', USER))['id']}",
        f"groups/{(await admin.post('groups', group_body('Sales')))['id']}",
        f"applications/{(await admin.post('applications', {'displayName': 'App'}))['id']}",
    ]
    for path in paths:
        first = (await admin.raw("GET", path)).headers["etag"]
        fine = await admin.raw("PATCH", path, {"displayName": "One"}, {"If-Match": first})
        assert fine.status_code == 204, fine.text
        late = await admin.raw("PATCH", path, {"displayName": "Two"}, {"If-Match": first})
        assert late.status_code == 412, late.text
        assert (await admin.get(path))["displayName"] == "One"
        assert "@odata.etag" not in await admin.get(path), "Graph's own objects carry none"


async def test_a_caller_is_told_what_it_may_do(world: World, admin: Graph) -> None:
    mine = (await admin.get("tandem/access"))["parts"]
    assert all(part["read"] and part["write"] for part in mine.values()), mine
    reader = await role_user(world, "reader", directory.GLOBAL_READER)
    parts = (await reader.get("tandem/access"))["parts"]
    assert parts["users"]["read"]
    assert not parts["users"]["write"]
    assert "User Administrator" in parts["users"]["writers"]
    licences = await role_user(world, "licences", directory.LICENSE_ADMINISTRATOR)
    parts = (await licences.get("tandem/access"))["parts"]
    assert parts["licences"]["write"]
    assert not parts["roles"]["write"]


async def test_the_audit_log_is_verified_where_it_is(world: World, admin: Graph) -> None:
    await admin.post("users", USER)
    said = await admin.post("tandem/verifyAudit", {}, status=200)
    assert said["whole"]
    assert said["entries"] == said["head"]["entries"] > 0
    async with world.database.transaction() as tx:
        await tx.execute("ALTER TABLE audit_entry DISABLE TRIGGER ALL")
        await tx.execute("UPDATE audit_entry SET actor = 'user:nobody' WHERE id = 1")
        await tx.execute("ALTER TABLE audit_entry ENABLE TRIGGER ALL")
    said = await admin.post("tandem/verifyAudit", {}, status=200)
    assert not said["whole"]
    assert said["problems"][0]["entry"] == 1


async def test_who_may_not_read_users_learns_nothing_of_them_by_asking(world: World) -> None:
    """Neither by conditions that are tried, nor by who would enrol."""
    await world.user("eva")
    asks = {
        "tandem/membershipRule": {"membershipRule": 'user.displayName -startsWith "E"'},
        "tandem/enrollmentCheck": {"user": "eva@contoso.com"},
    }
    blind = await app_graph(world, "Group.Read.All", "DeviceManagementServiceConfig.Read.All")
    for path, body in asks.items():
        refused = await blind.post(path, body, status=403)
        assert "User.Read.All" in refused["error"]["message"]
    seeing = await app_graph(world, "User.Read.All", "DeviceManagementServiceConfig.Read.All")
    for path, body in asks.items():
        await seeing.post(path, body, status=200)
