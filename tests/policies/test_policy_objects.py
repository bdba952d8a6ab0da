"""Policy objects over Graph: kept as they come, completed, versioned, assigned; refused when wrong."""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mdm_world import Mdm

DM = "deviceManagement"
GRAPH = "#microsoft.graph."
EVERYBODY = "adadadad-808e-44e2-905a-0b7873a8a531"
BLOCK = {
    "ruleName": "PasswordRequired",
    "scheduledActionConfigurations": [{"actionType": "block", "gracePeriodHours": 0}],
}
OMA = {
    "@odata.type": f"{GRAPH}omaSettingInteger",
    "displayName": "Lock",
    "omaUri": "./Device/Vendor/MSFT/Policy/Config/DeviceLock/MaxInactivityTimeDeviceLock",
    "value": 15,
}


class Beta:
    """Graph's beta with one token."""

    def __init__(self, mdm: Mdm, headers: dict[str, str]) -> None:
        self.mdm, self.headers = mdm, headers

    async def __call__(
        self, method: str, path: str, body: Any = None, version: str = "beta"
    ) -> httpx.Response:
        return await self.mdm.world.client.request(
            method, f"/{version}/{path}", json=body, headers=self.headers
        )

    async def made(self, path: str, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
        answer = await self("POST", path, body)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def got(self, path: str, version: str = "beta") -> dict[str, Any]:
        answer = await self("GET", path, version=version)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
async def beta(mdm: Mdm) -> Beta:
    return Beta(mdm, await mdm.world.bearer())


def custom(**values: Any) -> dict[str, Any]:
    return {
        "@odata.type": f"{GRAPH}windows10CustomConfiguration",
        "displayName": "Lock",
        "omaSettings": [OMA],
        **values,
    }


# ------------------------------------------------------------------ what is kept and completed


async def test_a_configuration_comes_back_with_everything_that_clients_read(beta: Beta) -> None:
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    assert list(made)[:2] == ["@odata.context", "@odata.type"]
    assert made["@odata.type"] == f"{GRAPH}windows10CustomConfiguration"
    assert (made["version"], made["roleScopeTagIds"], made["description"]) == (1, ["0"], None)
    (setting,) = made["omaSettings"]
    assert setting == {
        **OMA,
        "description": None,
        "isEncrypted": False,
        "secretReferenceValueId": None,
    }
    # v1.0 shows less of the same.
    plain = await beta.got(f"{DM}/deviceConfigurations/{made['id']}", "v1.0")
    assert "roleScopeTagIds" not in plain
    assert plain["omaSettings"] == made["omaSettings"]


async def test_settings_that_lost_their_marks_on_the_way_get_them_back(beta: Beta) -> None:
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    one = f"{DM}/deviceConfigurations/{made['id']}"
    stripped = custom(omaSettings=[{**OMA, "value": 30}])
    assert (await beta("PATCH", one, stripped)).status_code == 204
    shown = await beta.got(one)
    assert shown["version"] == 2
    assert shown["omaSettings"][0]["value"] == 30
    assert shown["omaSettings"][0]["isEncrypted"] is False


async def test_types_that_are_not_known_are_kept_as_they_come(beta: Beta) -> None:
    body = {
        "@odata.type": f"{GRAPH}windowsKioskConfiguration",
        "displayName": "Kiosk",
        "kioskProfiles": [
            {"profileId": "1", "appConfiguration": {"@odata.type": "#x.y", "z": None}}
        ],
        "kioskProfiles@odata.context": "https://example/x",
        "windowsKioskForceUpdateSchedule": None,
    }
    made = await beta.made(f"{DM}/deviceConfigurations", body)
    assert made["kioskProfiles"] == body["kioskProfiles"]
    assert "kioskProfiles@odata.context" not in made
    listed = await beta.got(
        f"{DM}/deviceConfigurations?$filter=isof('microsoft.graph.windowsKioskConfiguration')"
    )
    assert [item["id"] for item in listed["value"]] == [made["id"]]
    assert listed["@odata.count"] == 1


async def test_what_a_client_sends_back_of_the_server_s_own_is_ignored(beta: Beta) -> None:
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    again = {**made, "displayName": "Other", "version": 99, "id": "mine"}
    one = f"{DM}/deviceConfigurations/{made['id']}"
    assert (await beta("PATCH", one, again)).status_code == 204
    shown = await beta.got(one)
    assert (shown["id"], shown["version"], shown["displayName"]) == (made["id"], 2, "Other")


async def test_every_version_is_kept_with_who_wrote_it(beta: Beta) -> None:
    made = await beta.made(f"{DM}/deviceCategories", {"displayName": "Kiosk"})
    one = f"{DM}/deviceCategories/{made['id']}"
    await beta("PATCH", one, {"description": "In the lobby"})
    assert (await beta("DELETE", one)).status_code == 200
    assert (await beta("GET", one)).status_code == 404
    history = (await beta.got(f"{one}/versions"))["value"]
    assert [(item["version"], item["deleted"]) for item in history] == [
        (3, True),
        (2, False),
        (1, False),
    ]
    assert history[1]["properties"] == {"description": "In the lobby"}
    assert history[0]["by"] == "user:admin@contoso.com"


async def test_two_that_change_at_once_both_count(beta: Beta) -> None:
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    one = f"{DM}/deviceConfigurations/{made['id']}"
    answers = await asyncio.gather(
        beta("PATCH", one, {"description": "d"}), beta("PATCH", one, {"displayName": "n"})
    )
    assert [answer.status_code for answer in answers] == [204, 204]
    shown = await beta.got(one)
    assert (shown["description"], shown["displayName"], shown["version"]) == ("d", "n", 3)


# ------------------------------------------------------------------ what is refused


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no type": ("deviceConfigurations", {"displayName": "x"}, "@odata.type"),
    "no name": ("deviceConfigurations", custom(displayName=" "), "displayName"),
    "name of 300": ("deviceConfigurations", custom(displayName="x" * 300), "300"),
    "no OMA-URI": ("deviceConfigurations", custom(omaSettings=[{}]), "omaUri"),
    "no policy's name": (
        "deviceConfigurations",
        custom(omaSettings=[{**OMA, "omaUri": "./Device/Vendor/MSFT/Policy/Config/x"}]),
        "not the name of a setting",
    ),
    "unknown property": ("deviceCategories", {"displayName": "x", "isAdmin": True}, "isAdmin"),
    "wrong value": (
        "deviceManagementScripts",
        {"displayName": "x", "scriptContent": "?"},
        "base64",
    ),
    "odd property": ("deviceConfigurations", custom(**{"a b": 1}), "a name that is none"),
    "no action that blocks": (
        "deviceCompliancePolicies",
        {"@odata.type": f"{GRAPH}windows10CompliancePolicy", "displayName": "x"},
        "scheduledActionsForRule",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_what_cannot_be_kept_is_refused_and_named(beta: Beta, why: str) -> None:
    path, body, words = REFUSED[why]
    answer = await beta("POST", f"{DM}/{path}", body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]
    assert (await beta.got(f"{DM}/{path}"))["value"] == []


async def test_what_is_too_large_or_too_deep_is_refused(beta: Beta) -> None:
    deep: Any = {}
    for _ in range(70):
        deep = {"a": deep}
    for more in (deep, "x" * 1_100_000):
        answer = await beta("POST", f"{DM}/deviceConfigurations", custom(more=more))
        assert answer.status_code == 400, answer.text[:300]


async def test_an_object_keeps_its_type(beta: Beta) -> None:
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    answer = await beta(
        "PATCH",
        f"{DM}/deviceConfigurations/{made['id']}",
        {"@odata.type": f"{GRAPH}windowsKioskConfiguration"},
    )
    assert (answer.status_code, "type cannot change" in answer.text) == (400, True)


async def test_an_ordinary_user_may_neither_read_nor_write(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    plain = Beta(mdm, await mdm.world.bearer("alex@contoso.com"))
    for method, path in (
        ("GET", f"{DM}/deviceConfigurations"),
        ("POST", f"{DM}/deviceConfigurations"),
        ("GET", f"{DM}/roleDefinitions"),
        ("POST", "identity/conditionalAccess/policies"),
        ("PATCH", DM),
    ):
        answer = await plain(method, path, None if method == "GET" else {})
        assert answer.status_code == 403, (method, path)


# ------------------------------------------------------------------ assignments


async def test_all_targets_are_taken_and_each_has_its_members_only(beta: Beta, mdm: Mdm) -> None:
    group, out = await mdm.group("All"), await mdm.group("Out")
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    one = f"{DM}/deviceConfigurations/{made['id']}"
    filter_id = (
        await beta.made(
            f"{DM}/assignmentFilters",
            {"displayName": "f", "platform": "windows10AndLater", "rule": '(device.model -eq "x")'},
        )
    )["id"]
    targets: list[dict[str, Any]] = [
        {
            "@odata.type": f"{GRAPH}groupAssignmentTarget",
            "groupId": group.id,
            "deviceAndAppManagementAssignmentFilterId": filter_id,
            "deviceAndAppManagementAssignmentFilterType": "include",
        },
        {"@odata.type": f"{GRAPH}exclusionGroupAssignmentTarget", "groupId": out.id},
        {"@odata.type": f"{GRAPH}allDevicesAssignmentTarget", "groupId": None},
        {"@odata.type": f"{GRAPH}allLicensedUsersAssignmentTarget"},
        {
            "@odata.type": f"{GRAPH}configurationManagerCollectionAssignmentTarget",
            "collectionId": "P0100012",
        },
    ]
    body = {"assignments": [{"target": target} for target in targets]}
    answer = await beta("POST", f"{one}/assign", body)
    assert answer.status_code == 200, answer.text
    listed = await beta.got(f"{one}/assignments")
    assert f"deviceConfigurations('{made['id']}')/assignments" in listed["@odata.context"]
    shown = {item["target"]["@odata.type"].rpartition(".")[2]: item for item in listed["value"]}
    assert len(shown) == 5
    assert all(next(iter(item["target"])) == "@odata.type" for item in shown.values())
    with_group = {kind for kind, item in shown.items() if "groupId" in item["target"]}
    assert with_group == {"groupAssignmentTarget", "exclusionGroupAssignmentTarget"}
    assert shown["allDevicesAssignmentTarget"]["id"] == f"{made['id']}_{EVERYBODY}"
    filtered = shown["groupAssignmentTarget"]["target"]
    assert filtered["deviceAndAppManagementAssignmentFilterId"] == filter_id
    assert (await beta.got(one))["isAssigned"] is True
    # The same again has the same ids; assign replaces, and an empty list takes all away.
    again = await beta("POST", f"{one}/assign", body)
    assert [i["id"] for i in again.json()["value"]] == [i["id"] for i in answer.json()["value"]]
    await beta("POST", f"{one}/assign", {"assignments": []})
    assert (await beta.got(f"{one}/assignments"))["@odata.count"] == 0


async def test_one_is_added_and_one_is_taken_away(beta: Beta, mdm: Mdm) -> None:
    first, second = await mdm.group("A"), await mdm.group("B")
    made = await beta.made(
        f"{DM}/windowsAutopilotDeploymentProfiles",
        {"@odata.type": f"{GRAPH}azureADWindowsAutopilotDeploymentProfile", "displayName": "p"},
    )
    one = f"{DM}/windowsAutopilotDeploymentProfiles/{made['id']}/assignments"
    ids = []
    for group in (first, second):
        target = {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": group.id}
        ids.append((await beta.made(one, {"target": target}))["id"])
    assert (await beta("DELETE", f"{one}/{ids[0]}")).status_code == 200
    assert [item["id"] for item in (await beta.got(one))["value"]] == [ids[1]]


async def test_wrong_targets_are_refused_and_change_nothing(beta: Beta, mdm: Mdm) -> None:
    group = await mdm.group("A")
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    one = f"{DM}/deviceConfigurations/{made['id']}"
    good = {"target": {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": group.id}}
    await beta("POST", f"{one}/assign", {"assignments": [good]})
    out = {"@odata.type": f"{GRAPH}exclusionGroupAssignmentTarget", "groupId": group.id}
    for wrong, status in (
        ([{"target": {"@odata.type": f"{GRAPH}fooTarget"}}], 400),
        ([{"target": {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": "x"}}], 400),
        ([{"target": {**good["target"], "groupId": made["id"]}}], 404),
        ([good, {"target": out}], 400),
        (["x"], 400),
        ("x", 400),
    ):
        answer = await beta("POST", f"{one}/assign", {"assignments": wrong})
        assert answer.status_code == status, (wrong, answer.text)
    assert (await beta.got(f"{one}/assignments"))["@odata.count"] == 1


async def test_what_graph_assigns_a_device_gets_unless_a_filter_narrows_it(
    beta: Beta, mdm: Mdm
) -> None:
    device = await mdm.enrolled()
    made = await beta.made(f"{DM}/deviceConfigurations", custom())
    assign = f"{DM}/deviceConfigurations/{made['id']}/assign"
    filtered = {
        "@odata.type": f"{GRAPH}allDevicesAssignmentTarget",
        "deviceAndAppManagementAssignmentFilterId": made["id"],
        "deviceAndAppManagementAssignmentFilterType": "include",
    }
    await beta("POST", assign, {"assignments": [{"target": filtered}]})
    assert await device.check_in() == []
    everyone = {"@odata.type": f"{GRAPH}allDevicesAssignmentTarget"}
    await beta("POST", assign, {"assignments": [{"target": everyone}]})
    (command,) = await device.check_in()
    assert (command.items[0].target, command.items[0].data) == (OMA["omaUri"], "15")


# ------------------------------------------------------------------ kinds of their own


async def test_compliance_actions_are_expanded_completed_and_replaced(beta: Beta) -> None:
    made = await beta.made(
        f"{DM}/deviceCompliancePolicies",
        {
            "@odata.type": f"{GRAPH}windows10CompliancePolicy",
            "displayName": "Base",
            "bitLockerEnabled": True,
            "scheduledActionsForRule": [BLOCK],
        },
    )
    assert made["bitLockerEnabled"] is True
    assert made["passwordRequired"] is False
    assert made["configurationManagerComplianceRequired"] is False
    assert "scheduledActionsForRule" not in made
    for name in ("$expand", "expand"):
        query = f"{name}=scheduledActionsForRule($expand=scheduledActionConfigurations)"
        (listed,) = (await beta.got(f"{DM}/deviceCompliancePolicies/?{query}"))["value"]
        (rule,) = listed["scheduledActionsForRule"]
        (action,) = rule["scheduledActionConfigurations"]
        assert action["notificationTemplateId"] == "00000000-0000-0000-0000-000000000000"
        assert action["notificationMessageCCList"] == []
    one = f"{DM}/deviceCompliancePolicies/{made['id']}"
    later = {
        "scheduledActionConfigurations": [
            {"actionType": "block", "gracePeriodHours": 72, "notificationTemplateId": ""}
        ]
    }
    body = {"deviceComplianceScheduledActionForRules": [later]}
    assert (await beta("POST", f"{one}/scheduleActionsForRules", body)).status_code == 200
    query = "?$expand=scheduledActionConfigurations"
    (rule,) = (await beta.got(f"{one}/scheduledActionsForRule{query}"))["value"]
    assert rule["scheduledActionConfigurations"][0]["gracePeriodHours"] == 72


async def test_a_catalogue_policy_is_replaced_whole(beta: Beta) -> None:
    def setting(name: str) -> dict[str, Any]:
        return {
            "settingInstance": {
                "@odata.type": f"{GRAPH}deviceManagementConfigurationChoiceSettingInstance",
                "settingDefinitionId": f"device_vendor_msft_policy_config_{name}",
                "choiceSettingValue": {"value": f"{name}_1", "children": []},
            }
        }

    body = {
        "name": "Firewall",
        "platforms": "windows10",
        "technologies": "mdm",
        "settings": [setting("a"), setting("b")],
    }
    made = await beta.made(f"{DM}/configurationPolicies", body)
    assert (made["settingCount"], made["name"]) == (2, "Firewall")
    one = f"{DM}/configurationPolicies/{made['id']}"
    answer = await beta("PUT", one, {**body, "name": "New", "settings": [setting("c")]})
    assert answer.status_code == 204
    listed = await beta.got(f"{one}/settings?&top=1000")
    assert f"configurationPolicies('{made['id']}')/settings" in listed["@odata.context"]
    assert [item["id"] for item in listed["value"]] == ["0"]
    assert listed["value"][0]["settingInstance"] == setting("c")["settingInstance"]
    shown = await beta.got(one)
    assert (shown["settingCount"], shown["name"]) == (1, "New")


async def test_scripts_are_whole_in_the_item_and_short_in_the_list(beta: Beta, mdm: Mdm) -> None:
    script = b64encode(b"Write-Host hello").decode()
    made = await beta.made(
        f"{DM}/deviceShellScripts/",
        {"displayName": "s", "scriptContent": script, "fileName": "s.sh", "runAsAccount": "user"},
    )
    listed = await beta.got(f"{DM}/deviceShellScripts")
    assert listed["value"][0]["scriptContent"] is None
    one = await beta.got(f"{DM}/deviceShellScripts/{made['id']}?$expand=assignments")
    assert (one["scriptContent"], one["executionFrequency"]) == (script, "PT0S")
    assert one["assignments"] == []
    assert "assignments@odata.context" in one
    group = await mdm.group("All")
    target = {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": group.id}
    answer = await beta(
        "POST",
        f"{DM}/deviceManagementScripts/{made['id']}/assign",
        {"deviceManagementScriptAssignments": [{"target": target}]},
    )
    assert answer.status_code == 200, answer.text
    found = await beta.got(f"{DM}/deviceShellScripts/{made['id']}/assignments")
    assert found["@odata.count"] == 1


async def test_every_tenant_has_its_defaults(beta: Beta, mdm: Mdm) -> None:
    tags = (await beta.got(f"{DM}/roleScopeTags"))["value"]
    assert [(tag["id"], tag["displayName"], tag["isBuiltIn"]) for tag in tags] == [
        ("0", "Default", True)
    ]
    made = await beta.made(f"{DM}/roleScopeTags", {"displayName": "Paris"}, 200)
    assert (made["id"], made["isBuiltIn"]) == ("1", False)
    assert (await beta("DELETE", f"{DM}/roleScopeTags/0")).status_code == 400
    tenant = mdm.world.tenant.id
    configurations = (await beta.got(f"{DM}/deviceEnrollmentConfigurations/"))["value"]
    assert [(item["id"], item["priority"]) for item in configurations] == [
        (f"{tenant}_DefaultLimit", 0),
        (f"{tenant}_DefaultPlatformRestrictions", 0),
        (f"{tenant}_DefaultWindowsHelloForBusiness", 0),
        (f"{tenant}_DefaultWindows10EnrollmentCompletionPageConfiguration", 0),
    ]
    one = f"{DM}/deviceEnrollmentConfigurations/{tenant}_DefaultLimit"
    body = {"@odata.type": f"{GRAPH}deviceEnrollmentLimitConfiguration", "limit": 3}
    changed = await beta("PATCH", one, body)
    assert (changed.status_code, changed.json()["limit"]) == (200, 3)
    roles = (await beta.got(f"{DM}/roleDefinitions"))["value"]
    assert len(roles) == 7
    assert all(role["rolePermissions"] and role["isBuiltIn"] for role in roles)
    answer = await beta("GET", f"{DM}/roleDefinitions?$filter=isBuiltIn eq false")
    assert answer.json()["value"] == []


async def test_co_management_is_an_enrolment_configuration_with_an_order(beta: Beta) -> None:
    made = []
    for name in ("First", "Second"):
        body = {
            "@odata.type": f"{GRAPH}deviceComanagementAuthorityConfiguration",
            "displayName": name,
            "installConfigurationManagerAgent": True,
            "configurationManagerAgentCommandLineArgument": "SMSSITECODE=P01",
        }
        made.append(await beta.made(f"{DM}/deviceEnrollmentConfigurations", body))
    assert [item["priority"] for item in made] == [1, 2]
    assert made[0]["managedDeviceAuthority"] == 0
    one = f"{DM}/deviceEnrollmentConfigurations/{made[1]['id']}"
    assert (await beta("POST", f"{one}/setpriority", {"priority": 1})).status_code == 200
    assert (await beta.got(one))["priority"] == 1
    other = await beta.got(f"{DM}/deviceEnrollmentConfigurations/{made[0]['id']}")
    assert other["priority"] == 2


async def test_roles_are_assigned_to_groups(beta: Beta, mdm: Mdm) -> None:
    group = await mdm.group("Help desk")
    role = await beta.made(
        f"{DM}/roleDefinitions",
        {
            "displayName": "Reader",
            "rolePermissions": [
                {"resourceActions": [{"allowedResourceActions": ["Microsoft.Intune_Roles_Read"]}]}
            ],
        },
        200,
    )
    assert role["rolePermissions"][0]["actions"] == ["Microsoft.Intune_Roles_Read"]
    body = {
        "displayName": "Desk",
        "members": [group.id],
        "resourceScopes": [group.id],
        "roleDefinition@odata.bind": f"https://graph.microsoft.com/beta/{DM}/roleDefinitions('{role['id']}')",
    }
    made = await beta.made(f"{DM}/roleAssignments", body, 200)
    found = await beta.got(f"{DM}/roleDefinitions/{role['id']}/roleAssignments")
    assert [item["id"] for item in found["value"]] == [made["id"]]
    shown = await beta.got(f"{DM}/roleAssignments/{made['id']}?$expand=roleDefinition")
    assert (shown["members"], shown["scopeMembers"]) == ([group.id], [])
    assert shown["roleDefinition"]["displayName"] == "Reader"
    body["roleDefinition@odata.bind"] = f"{DM}/roleDefinitions/{group.id}"
    assert (await beta("POST", f"{DM}/roleAssignments", body)).status_code == 400


async def test_conditional_access_is_kept_and_cannot_be_misread(beta: Beta) -> None:
    path = "identity/conditionalAccess/policies"
    body: dict[str, Any] = {
        "displayName": "Compliant devices",
        "state": "enabledForReportingButNotEnforced",
        "conditions": {
            "users": {"includeUsers": ["All"]},
            "applications": {"includeApplications": ["All"]},
        },
        "grantControls": {"operator": "OR", "builtInControls": ["compliantDevice"]},
    }
    made = await beta.made(path, body)
    assert (await beta("PATCH", f"{path}/{made['id']}", {"grantControls": None})).status_code == 204
    alias = await beta.got(f"policies/conditionalAccessPolicies/{made['id']}")
    assert (alias["grantControls"], alias["state"]) == (None, body["state"])
    assert "modifiedDateTime" in alias
    for change in (
        {"state": "on"},
        {"conditions": {}},
        {"grantControls": {"operator": "XOR"}},
        {"grantControls": {"operator": "OR", "builtInControls": ["hope"]}},
    ):
        answer = await beta("PATCH", f"{path}/{made['id']}", change)
        assert answer.status_code == 400, change
    assert (await beta("DELETE", f"{path}/{made['id']}")).status_code == 204
    location = {
        "@odata.type": f"{GRAPH}ipNamedLocation",
        "displayName": "Office",
        "isTrusted": True,
        "ipRanges": [{"@odata.type": f"{GRAPH}iPv4CidrRange", "cidrAddress": "192.0.2.0/24"}],
    }
    named = await beta.made("identity/conditionalAccess/namedLocations", location)
    assert named["ipRanges"] == location["ipRanges"]


async def test_messages_of_a_template_are_a_collection_of_their_own(beta: Beta) -> None:
    made = await beta.made(f"{DM}/notificationMessageTemplates", {"displayName": "Late"}, 200)
    one = f"{DM}/notificationMessageTemplates/{made['id']}/localizedNotificationMessages"
    message = await beta.made(
        one, {"locale": "en-us", "subject": "S", "messageTemplate": "M", "isDefault": True}, 200
    )
    changed = await beta("PATCH", f"{one}/{message['id']}", {"subject": "T"})
    assert (changed.status_code, changed.json()["subject"]) == (200, "T")
    listed = await beta.got(
        f"{DM}/notificationMessageTemplates??$expand=localizedNotificationMessages"
    )
    (expanded,) = listed["value"][0]["localizedNotificationMessages"]
    assert (expanded["subject"], expanded["messageTemplate"]) == ("T", "M")


async def test_the_root_has_settings_that_can_be_changed(beta: Beta) -> None:
    settings = await beta.got(f"{DM}/settings")
    assert settings["deviceComplianceCheckinThresholdDays"] == 30
    body = {"settings": {"deviceComplianceCheckinThresholdDays": 7, "secureByDefault": True}}
    assert (await beta("PATCH", DM, body)).status_code == 204
    root = await beta.got(DM)
    assert root["settings"]["deviceComplianceCheckinThresholdDays"] == 7
    assert (await beta.got(f"{DM}/settings"))["secureByDefault"] is True
    assert (await beta("PATCH", DM, {"settings": {"nonsense": 1}})).status_code == 400


# ------------------------------------------------------------------ status codes


async def test_status_codes_are_those_that_a_client_compares(beta: Beta) -> None:
    """Table 8.3: any other code, even another 2xx, is an error to the client that was read."""
    named: Callable[..., dict[str, Any]] = lambda **more: {"displayName": "x", **more}  # noqa: E731
    typed = lambda name, **more: named(**{"@odata.type": f"{GRAPH}{name}"}, **more)  # noqa: E731
    table = [
        ("deviceConfigurations", typed("windows81GeneralConfiguration"), 201, 204, 200),
        ("deviceManagementScripts", named(), 201, 200, 200),
        ("deviceShellScripts", named(), 201, 200, 200),
        ("deviceCustomAttributeShellScripts", named(), 201, 200, 200),
        ("deviceHealthScripts", named(), 201, 200, 200),
        ("deviceComplianceScripts", named(), 201, 200, 200),
        ("deviceCategories", named(), 201, 200, 200),
        ("assignmentFilters", named(platform="windows10AndLater", rule="r"), 201, 200, 200),
        (
            "deviceEnrollmentConfigurations",
            typed("deviceEnrollmentLimitConfiguration", limit=5),
            201,
            200,
            200,
        ),
        ("groupPolicyConfigurations", named(), 201, 200, 204),
        ("notificationMessageTemplates", named(), 200, 200, 200),
        ("roleDefinitions", named(), 200, 200, 200),
        ("roleScopeTags", named(), 200, 200, 200),
        ("windowsFeatureUpdateProfiles", named(), 201, 200, 200),
        ("windowsQualityUpdateProfiles", named(), 201, 200, 200),
        ("windowsDriverUpdateProfiles", named(), 201, 200, 200),
        (
            "windowsAutopilotDeploymentProfiles",
            typed("azureADWindowsAutopilotDeploymentProfile"),
            201,
            200,
            200,
        ),
    ]
    for path, body, created, changed, deleted in table:
        answer = await beta("POST", f"{DM}/{path}", body)
        assert answer.status_code == created, (path, answer.text)
        one = f"{DM}/{path}/{answer.json()['id']}"
        answer = await beta("PATCH", one, {"description": "d"})
        assert answer.status_code == changed, (path, answer.text)
        answer = await beta("DELETE", one)
        assert (answer.status_code, answer.content) == (deleted, b""), path
