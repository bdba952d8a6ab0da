"""Users, groups, devices, roles and domains, as scripts of administrators use them."""

import base64
import uuid
from typing import Any

import pytest

from graph_caller import USER, Graph, app_graph, group_body, ref, role_user
from tandem.tenant import directory, graph
from tenant_world import ADMIN, CHEAP, PASSWORD, World, make_world


async def ids(caller: Graph, path: str) -> list[str]:
    return [item["id"] for item in (await caller.get(path))["value"]]


async def test_a_user_has_every_property_and_keeps_what_is_written(admin: Graph) -> None:
    written = {
        "givenName": "Alex",
        "streetAddress": "Main Street 1",
        "state": "BY",
        "postalCode": "80331",
        "companyName": "Contoso",
        "userType": "Guest",
        "otherMails": ["alex@example.com"],
        "proxyAddresses": ["SMTP:alex@contoso.com"],
        "passwordPolicies": "DisablePasswordExpiration",
        "onPremisesExtensionAttributes": {"extensionAttribute3": "three"},
        "onPremisesImmutableId": "abc",
    }
    alex = await admin.post("users", {**USER, **written})
    found = await admin.get(f"users/{alex['id']}?$select=*")
    attributes = found["onPremisesExtensionAttributes"]
    assert attributes.pop("extensionAttribute3") == "three"
    assert set(attributes.values()) == {None}
    for name, value in written.items():
        if name != "onPremisesExtensionAttributes":
            assert found[name] == value, name
    nothing = ("mail", "employeeId", "city", "onPremisesSyncEnabled", "deletedDateTime")
    assert [found[name] for name in nothing] == [None] * len(nothing)
    lists = ("assignedLicenses", "assignedPlans", "provisionedPlans", "businessPhones")
    assert [found[name] for name in lists] == [[]] * len(lists)
    assert found["securityIdentifier"].startswith("S-1-12-1-")
    assert found["identities"][0]["issuerAssignedId"] == "alex@contoso.com"
    assert "passwordProfile" not in found
    shown = await admin.get(f"users/{alex['id']}")
    assert "department" not in shown, "only the default properties without $select"
    by_address = "users?$filter=proxyAddresses/any(p:p eq 'smtp:ALEX@contoso.com')"
    assert await ids(admin, by_address) == [alex["id"]]
    await admin.call("PATCH", f"users/{alex['id']}", {"otherMails": None, "state": None})
    again = await admin.get(f"users/{alex['id']}?$select=otherMails,state")
    assert (again["otherMails"], again["state"]) == ([], None)


@pytest.mark.parametrize(
    "change",
    [
        {"department": "x" * 65},
        {"otherMails": ["x"] * 101},
        {"otherMails": [1]},
        {"onPremisesExtensionAttributes": {"extensionAttribute16": "x"}},
        {"onPremisesExtensionAttributes": {"extensionAttribute1": 1}},
        {"userType": "Alien"},
        {"passwordProfile": {"password": ["x"]}},
        {"passwordProfile": {"password": "Good-Enough-1", "forceChangePasswordNextSignIn": 3}},
        {"manager@odata.bind": "https://x/users/00000000-0000-0000-0000-000000000001"},
    ],
)
async def test_values_out_of_bounds_are_refused(admin: Graph, change: dict[str, Any]) -> None:
    alex = await admin.world.user("alex")
    wanted = 404 if "manager@odata.bind" in change else 400
    await admin.call("PATCH", f"users/{alex.id}", change, status=wanted)


async def test_a_manager_is_set_shown_and_removed(admin: Graph) -> None:
    alex, boss = await admin.world.user("alex"), await admin.world.user("boss")
    at = f"users/{alex.id}/manager"
    await admin.get(at, status=404)
    await admin.call("PUT", f"{at}/$ref", ref(boss.id), status=204)
    assert (await admin.get(at))["id"] == boss.id
    expanded = await admin.get(f"users/{alex.id}?$expand=manager")
    assert expanded["manager"]["userPrincipalName"] == "boss@contoso.com"
    assert await ids(admin, f"users/{boss.id}/directReports") == [alex.id]
    await admin.call("PUT", f"{at}/$ref", ref(alex.id), status=400)
    await admin.call("DELETE", f"{at}/$ref")
    await admin.get(at, status=404)
    await admin.call("DELETE", f"{at}/$ref", status=404)


async def test_a_password_is_changed_by_its_owner_who_knows_the_old_one(world: World) -> None:
    await world.user("alex")
    alex = Graph(world, await world.bearer("alex@contoso.com"))
    wrong = {"currentPassword": "wrong", "newPassword": "New-Horse-22"}
    refused = await alex.post("me/changePassword", wrong, status=400)
    assert "does not match" in refused["error"]["message"]
    right = {"currentPassword": PASSWORD, "newPassword": "New-Horse-22"}
    await alex.post(f"users/{ADMIN}/changePassword", right, status=403)
    await alex.post("me/changePassword", right, status=204)
    world.wait(seconds=2)
    await world.user_tokens("openid", upn="alex@contoso.com", password="New-Horse-22")


async def test_revoking_sessions_ends_tokens_at_once(admin: Graph, world: World) -> None:
    user = await world.user("alex")
    alex = Graph(world, await world.bearer("alex@contoso.com"))
    world.wait(minutes=5)
    admin = Graph(world, await world.bearer())
    done = await admin.post(f"users/{user.id}/revokeSignInSessions", {}, status=200)
    assert done["value"] is True
    await alex.get("me", status=401)


async def test_narrow_roles_change_what_is_theirs(world: World) -> None:
    alex = await world.user("alex")
    helpdesk = await role_user(world, "heidi", directory.HELPDESK_ADMINISTRATOR)
    licences = await role_user(world, "lisa", directory.LICENSE_ADMINISTRATOR)
    password = {"passwordProfile": {"password": "Another-Horse-2"}}
    await helpdesk.call("PATCH", f"users/{alex.id}", password)
    await helpdesk.call("PATCH", f"users/{ADMIN}", password, status=403)
    await helpdesk.call("PATCH", f"users/{alex.id}", {"department": "IT"}, status=403)
    await helpdesk.call("DELETE", f"users/{alex.id}", status=403)
    await helpdesk.post("users", {**USER, "userPrincipalName": "n@contoso.com"}, status=403)
    await licences.call("PATCH", f"users/{alex.id}", {"usageLocation": "FR"})
    await licences.call("PATCH", f"users/{alex.id}", password, status=403)


# ---------------------------------------------------------------------------------- groups


async def test_a_group_is_made_with_members_and_owners_and_keeps_its_words(admin: Graph) -> None:
    alex, eva = await admin.world.user("alex"), await admin.world.user("eva")
    bound = [f"https://graph.microsoft.com/v1.0/users/{item.id}" for item in (alex, eva)]
    group = await admin.post(
        "groups",
        {
            **group_body("Pilot"),
            "description": "first",
            "uniqueName": "pilot-1",
            "visibility": "Private",
            "members@odata.bind": bound,
            "owners@odata.bind": bound[:1],
        },
    )
    assert (group["groupTypes"], group["securityEnabled"]) == ([], True)
    assert group["membershipRule"] is None
    assert group["uniqueName"] == "pilot-1"
    at = f"groups/{group['id']}"
    assert set(await ids(admin, f"{at}/members")) == {alex.id, eva.id}
    assert await ids(admin, f"{at}/owners") == [alex.id]
    assert await ids(admin, f"users/{alex.id}/ownedObjects") == [group["id"]]
    advanced = Graph(admin.world, {**admin.headers, "ConsistencyLevel": "eventual"})
    assert await advanced.get(f"{at}/members/$count") == "2"
    cast = await admin.get(f"{at}/members/microsoft.graph.user?$select=userPrincipalName")
    assert len(cast["value"]) == 2
    assert await ids(admin, f"{at}/members/microsoft.graph.device") == []
    await admin.post(f"{at}/owners/$ref", ref(eva.id), status=204)
    await admin.post(f"{at}/owners/$ref", ref(eva.id), status=400)
    await admin.call("DELETE", f"{at}/owners/{eva.id}/$ref")
    await admin.call("PATCH", at, {"members@odata.bind": bound * 11}, status=400)
    await admin.call("PATCH", at, {"description": None, "uniqueName": None})
    again = await admin.get(at)
    assert (again["description"], again["uniqueName"]) == (None, None)


async def test_who_is_in_what_at_any_depth_is_asked_by_ids(admin: Graph) -> None:
    """Groups that contain each other are walked once."""
    alex = await admin.world.user("alex")
    inner = await admin.post("groups", group_body("Inner"))
    outer = await admin.post("groups", group_body("Outer"))
    other = await admin.post("groups", group_body("Other"))
    for group, member in ((inner, alex.id), (outer, inner["id"]), (inner, outer["id"])):
        await admin.post(f"groups/{group['id']}/members/$ref", ref(member), status=204)
    both = {inner["id"], outer["id"]}
    asked: dict[str, Any] = {"securityEnabledOnly": True}
    for path in (f"users/{alex.id}", "users/alex@contoso.com", f"directoryObjects/{alex.id}"):
        found = await admin.post(f"{path}/getMemberGroups", asked, status=200)
        assert set(found["value"]) == both
        found = await admin.post(f"{path}/getMemberObjects", asked, status=200)
        assert set(found["value"]) == both
    wanted = {"groupIds": [inner["id"], other["id"]]}
    for path in (f"users/{alex.id}", f"groups/{outer['id']}"):
        found = await admin.post(f"{path}/checkMemberGroups", wanted, status=200)
        assert found["value"] == [inner["id"]]
    await admin.post(f"users/{alex.id}/checkMemberGroups", {"groupIds": [alex.id] * 21}, status=400)
    missing = uuid.uuid4()
    await admin.post(f"users/{missing}/getMemberGroups", asked, status=404)
    inside = await admin.get(f"groups/{outer['id']}/transitiveMembers")
    assert alex.id in [item["id"] for item in inside["value"]]


async def test_objects_of_any_type_are_found_by_id(admin: Graph) -> None:
    alex = await admin.world.user("alex")
    group = await admin.post("groups", group_body("Pilot"))
    wanted = {"ids": [group["id"], alex.id, str(uuid.uuid4())], "types": ["user", "group"]}
    found = (await admin.post("directoryObjects/getByIds", wanted, status=200))["value"]
    types = [(item["@odata.type"], item["id"]) for item in found]
    assert types == [("#microsoft.graph.group", group["id"]), ("#microsoft.graph.user", alex.id)]
    only = {"ids": wanted["ids"], "types": ["user"]}
    found = (await admin.post("directoryObjects/getByIds", only, status=200))["value"]
    assert [item["id"] for item in found] == [alex.id]
    one = await admin.get(f"directoryObjects/{alex.id}")
    assert one["@odata.type"] == "#microsoft.graph.user"
    await admin.get(f"directoryObjects/{uuid.uuid4()}", status=404)
    await admin.post("directoryObjects/getByIds", {"ids": [alex.id] * 1001}, status=400)
    audits = await admin.get("auditLogs/directoryAudits?$top=1")
    assert audits["value"][0]["activityDisplayName"] == "Add group", "asking leaves no trace"


DYNAMIC = {
    "groupTypes": ["DynamicMembership"],
    "membershipRule": '(user.department -eq "Sales") -and (user.accountEnabled -eq true)',
    "membershipRuleProcessingState": "On",
}


async def test_a_rule_decides_the_members_of_a_group(admin: Graph) -> None:
    alex = await admin.post("users", USER)
    group = await admin.post("groups", group_body("Sales", **DYNAMIC))
    at = f"groups/{group['id']}"
    assert (group["membershipRuleProcessingState"], group["groupTypes"]) == (
        "On",
        ["DynamicMembership"],
    )
    assert await ids(admin, f"{at}/members") == [alex["id"]]
    eva = await admin.post("users", {**USER, "userPrincipalName": "eva@contoso.com"})
    assert set(await ids(admin, f"{at}/members")) == {alex["id"], eva["id"]}
    await admin.call("PATCH", f"users/{alex['id']}", {"department": "IT"})
    await admin.call("PATCH", f"users/{eva['id']}", {"accountEnabled": False})
    assert await ids(admin, f"{at}/members") == []
    await admin.call("PATCH", at, {"membershipRule": 'user.department -in ["IT","HR"]'})
    assert await ids(admin, f"{at}/members") == [alex["id"]]
    await admin.call("PATCH", at, {"membershipRuleProcessingState": "Paused"})
    await admin.call("PATCH", f"users/{alex['id']}", {"department": "None"})
    assert await ids(admin, f"{at}/members") == [alex["id"]], "paused: nothing moves"
    refused = await admin.post(f"{at}/members/$ref", ref(eva["id"]), status=400)
    assert "membership rule" in refused["error"]["message"]
    assert await ids(admin, "groups?$filter=groupTypes/any(t:t eq 'DynamicMembership')") == [
        group["id"]
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "user.department -eq",
        'user.nonsense -eq "x"',
        'user.assignedPlans -any (assignedPlan.servicePlanId -eq "x")',
        'user.department -eq "x" -and device.model -eq "y"',
        "user.accountEnabled -eq 3",
        'user.accountEnabled -startsWith "t"',
        'user.department -match "(a+)\\1"',
        "(" * 200,
        'user.department -eq "' + "x" * 4000 + '"',
        "user.department -eq \"x'; DROP TABLE directory_user; --",
    ],
)
async def test_a_rule_that_is_not_understood_is_refused_not_stored(admin: Graph, rule: str) -> None:
    body = group_body("Ruled", **{**DYNAMIC, "membershipRule": rule})
    refused = await admin.post("groups", body, status=400)
    assert refused["error"]["details"][0]["target"] == "membershipRule"


async def test_a_group_of_devices_follows_how_they_joined(admin: Graph, world: World) -> None:
    await world.user("alex")
    rule = {**DYNAMIC, "membershipRule": 'device.deviceTrustType -eq "AzureAd"'}
    group = await admin.post("groups", group_body("Joined", **rule))
    joined = await world.joined("alex@contoso.com")
    device = await admin.get(f"devices(deviceId='{joined.device_id}')")
    assert await ids(admin, f"groups/{group['id']}/members") == [device["id"]]


# ---------------------------------------------------------------------------------- devices


async def test_devices_have_join_types_and_certificates(admin: Graph, world: World) -> None:
    await world.user("alex")
    joined = await world.joined("alex@contoso.com")
    device = await admin.get(f"devices(deviceId='{joined.device_id}')")
    assert (device["trustType"], device["deviceOwnership"]) == ("AzureAd", "Company")
    (identity,) = device["alternativeSecurityIds"]
    assert identity["type"] == 2
    assert base64.b64decode(identity["key"]).decode("utf-16-le").startswith("X509:<SHA256-JWK>")
    key = base64.b64encode("X509:<SHA1-TP-PUBKEY>AB".encode("utf-16-le")).decode()
    hybrid = {
        "deviceId": str(uuid.uuid4()),
        "displayName": "ONPREM-1",
        "operatingSystem": "Windows",
        "operatingSystemVersion": "10.0.1",
        "alternativeSecurityIds": [{"type": 2, "key": key}],
    }
    app = await app_graph(world, "Device.ReadWrite.All")
    made = await app.post("devices", hybrid)
    assert (made["trustType"], made["onPremisesSyncEnabled"]) == ("ServerAd", True)
    assert made["alternativeSecurityIds"][0]["key"] == key
    await app.post("devices", hybrid, status=400)
    await app.post("devices", {**hybrid, "alternativeSecurityIds": []}, status=400)
    await app.call("PATCH", f"devices/{made['id']}", {"extensionAttributes": {"x": 3}}, status=400)
    change = {"extensionAttributes": {"extensionAttribute1": "blue"}, "deviceCategory": "Lab"}
    await app.call("PATCH", f"devices/{made['id']}", change)
    again = await admin.get(f"devices/{made['id']}")
    assert again["extensionAttributes"]["extensionAttribute1"] == "blue"
    assert await ids(admin, "devices?$filter=trustType eq 'ServerAd'") == [made["id"]]


async def test_a_registered_device_is_personal(admin: Graph, world: World) -> None:
    await world.user("alex")
    joined = await world.joined("alex@contoso.com", join_type=4)
    device = await admin.get(f"devices(deviceId='{joined.device_id}')")
    assert (device["trustType"], device["deviceOwnership"]) == ("Workplace", "Personal")


# ---------------------------------------------------------------------------------- roles


async def test_roles_are_given_in_both_shapes_and_only_by_those_who_may(world: World) -> None:
    alex = await world.user("alex")
    admin = Graph(world, await world.bearer())
    lower = await role_user(world, "petra", directory.PRIVILEGED_ROLE_ADMINISTRATOR)
    users = await role_user(world, "ursula", directory.USER_ADMINISTRATOR)
    intune, highest = directory.INTUNE_ADMINISTRATOR, directory.GLOBAL_ADMINISTRATOR
    await users.post(f"directoryRoles/{intune}/members/$ref", ref(alex.id), status=403)
    await lower.post(f"directoryRoles/{highest}/members/$ref", ref(alex.id), status=403)
    await lower.post(f"directoryRoles/{intune}/members/$ref", ref(alex.id), status=204)
    at = f"directoryRoles(roleTemplateId='{intune}')/members"
    assert await ids(admin, at) == [alex.id]
    assignments = "roleManagement/directory/roleAssignments"
    (one,) = (await admin.get(f"{assignments}?$filter=principalId eq '{alex.id}'"))["value"]
    assert (one["roleDefinitionId"], one["directoryScopeId"]) == (intune, "/")
    await lower.call("DELETE", f"{assignments}/{one['id']}")
    assert await ids(admin, at) == []
    body = {"principalId": alex.id, "roleDefinitionId": highest, "directoryScopeId": "/"}
    await lower.post(assignments, body, status=403)
    made = await admin.post(assignments, body)
    expanded = await admin.get(f"{assignments}/{made['id']}?$expand=principal")
    assert expanded["principal"]["id"] == alex.id
    await admin.post(assignments, body, status=400)
    await admin.post(assignments, {**body, "directoryScopeId": "/x"}, status=400)
    definitions = (await admin.get("roleManagement/directory/roleDefinitions"))["value"]
    templates = (await admin.get("directoryRoleTemplates"))["value"]
    assert {item["id"] for item in definitions} == {item["id"] for item in templates}
    activated = await admin.post("directoryRoles", {"roleTemplateId": intune})
    assert activated["displayName"] == "Intune Administrator"


async def test_a_group_that_holds_a_role_is_guarded_like_the_role(world: World) -> None:
    alex = await world.user("alex")
    admin = Graph(world, await world.bearer())
    users = await role_user(world, "ursula", directory.USER_ADMINISTRATOR)
    assignable = group_body("Admins", isAssignableToRole=True)
    await users.post("groups", assignable, status=403)
    group = await admin.post("groups", assignable)
    plain = await admin.post("groups", group_body("Plain"))
    role = f"directoryRoles/{directory.GLOBAL_ADMINISTRATOR}/members"
    await admin.post(f"{role}/$ref", ref(plain["id"]), status=400)
    await admin.post(f"{role}/$ref", ref(group["id"]), status=204)
    members = f"groups/{group['id']}/members"
    await users.post(f"{members}/$ref", ref(alex.id), status=403)
    await admin.post(f"{members}/$ref", ref(plain["id"]), status=400)
    await admin.post(f"{members}/$ref", ref(alex.id), status=204)
    highest = Graph(world, await world.bearer("alex@contoso.com"))
    only = (await admin.get(f"users/{ADMIN}"))["id"]
    await highest.call("DELETE", f"{role}/{only}/$ref")
    await highest.call("DELETE", f"{members}/{alex.id}/$ref", status=400)
    await highest.call("DELETE", f"groups/{group['id']}", status=400)
    await highest.call("PATCH", f"users/{alex.id}", {"accountEnabled": False}, status=400)


# ---------------------------------------------------------------------------------- domains


async def test_a_domain_counts_when_its_text_record_is_there(tenant_db: Any) -> None:
    records: dict[str, list[str]] = {}

    async def texts(name: str) -> list[str]:
        return records.get(name, [])

    world = await make_world(
        tenant_db,
        lambda here: graph.routes(
            here.database,
            here.tokens,
            here.now,
            parts=graph.directory_parts(CHEAP, texts=texts),
        ),
    )
    admin = Graph(world, await world.bearer())
    made = await admin.post("domains", {"id": "Fabrikam.com"})
    assert (made["id"], made["isVerified"]) == ("fabrikam.com", False)
    foreign = {**USER, "userPrincipalName": "alex@fabrikam.com"}
    await admin.post("users", foreign, status=400)
    (record,) = (await admin.get("domains/fabrikam.com/verificationDnsRecords"))["value"]
    assert record["@odata.type"] == "#microsoft.graph.domainDnsTxtRecord"
    refused = await admin.post("domains/fabrikam.com/verify", {}, status=400)
    assert record["text"] in refused["error"]["message"]
    records["fabrikam.com"] = ["v=spf1 -all", record["text"]]
    assert (await admin.post("domains/fabrikam.com/verify", {}, status=200))["isVerified"]
    alex = await admin.post("users", foreign)
    await admin.call("DELETE", "domains/fabrikam.com", status=400)
    await admin.call("PATCH", "domains/fabrikam.com", {"isDefault": True})
    here = (await admin.get("organization"))["value"][0]
    shown = {
        item["name"]: (item["isDefault"], item["isInitial"]) for item in here["verifiedDomains"]
    }
    assert shown == {"fabrikam.com": (True, False), "contoso.com": (False, True)}
    await admin.call("PATCH", "domains/contoso.com", {"isDefault": True})
    await admin.call("PATCH", f"users/{alex['id']}", {"userPrincipalName": "alex@contoso.com"})
    await admin.call("DELETE", "domains/fabrikam.com")
    await admin.post("domains", {"id": "not a domain"}, status=400)
    await world.client.aclose()
