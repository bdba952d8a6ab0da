"""Apps of every kind over Graph: Win32 with rules in both forms, assignments, categories, relations."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdm_world import Mdm
from tandem.tenant.mobile_apps import rules

APPS = "deviceAppManagement/mobileApps"
GRAPH = "#microsoft.graph."
DETECTION = {
    "@odata.type": f"{GRAPH}win32LobAppRegistryDetection",
    "check32BitOn64System": False,
    "keyPath": "HKLM\\Software\\Contoso",
    "valueName": "Version",
    "detectionType": "version",
    "operator": "greaterThanOrEqual",
    "detectionValue": "1.2",
}
REQUIREMENT = {
    "@odata.type": f"{GRAPH}win32LobAppFileSystemRequirement",
    "path": "C:\\Contoso",
    "fileOrFolderName": "ready.txt",
    "check32BitOn64System": False,
    "detectionType": "exists",
    "operator": "notConfigured",
    "detectionValue": None,
}


async def call(mdm: Mdm, method: str, path: str, body: Any = None, version: str = "beta") -> Any:
    headers = await mdm.world.bearer()
    return await mdm.world.client.request(method, f"/{version}/{path}", json=body, headers=headers)


async def made(mdm: Mdm, sort: str, **values: Any) -> dict[str, Any]:
    body = {"@odata.type": f"{GRAPH}{sort}", "displayName": sort, **values}
    answer = await call(mdm, "POST", APPS, body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_rules_are_read_in_either_form(mdm: Mdm) -> None:
    app = await made(
        mdm,
        "win32LobApp",
        installCommandLine="setup /q",
        uninstallCommandLine="setup /x",
        detectionRules=[DETECTION],
        requirementRules=[REQUIREMENT],
    )
    assert app["detectionRules"] == [DETECTION]
    assert app["requirementRules"] == [REQUIREMENT]
    assert [code["returnCode"] for code in app["returnCodes"]] == [0, 1707, 3010, 1641, 1618]
    assert (app["displayVersion"], app["committedContentVersion"]) == (None, None)
    plain = (await call(mdm, "GET", f"{APPS}/{app['id']}", version="v1.0")).json()
    assert "detectionRules" not in plain
    detection, requirement = plain["rules"]
    assert detection == {
        "@odata.type": f"{GRAPH}win32LobAppRegistryRule",
        "ruleType": "detection",
        "check32BitOn64System": False,
        "keyPath": "HKLM\\Software\\Contoso",
        "valueName": "Version",
        "operationType": "version",
        "operator": "greaterThanOrEqual",
        "comparisonValue": "1.2",
    }
    assert requirement["ruleType"] == "requirement"
    # The one half is replaced, the other stays.
    other = {**DETECTION, "keyPath": "HKLM\\Software\\Other"}
    answer = await call(mdm, "PATCH", f"{APPS}/{app['id']}", {"detectionRules": [other]})
    assert answer.status_code == 204
    shown = (await call(mdm, "GET", f"{APPS}/{app['id']}")).json()
    assert (shown["detectionRules"], shown["requirementRules"]) == ([other], [REQUIREMENT])
    for wrong in ([{"@odata.type": "x"}], "x", [1]):
        answer = await call(mdm, "PATCH", f"{APPS}/{app['id']}", {"rules": wrong})
        assert answer.status_code == 400, wrong


VALUES = st.none() | st.text(max_size=5)


@given(
    st.sampled_from(["FileSystem", "Registry", "ProductCode", "PowerShellScript"]),
    st.dictionaries(
        st.sampled_from(
            ["path", "keyPath", "operator", "detectionType", "detectionValue", "scriptContent"]
        ),
        VALUES,
    ),
)
def test_the_older_form_comes_back_as_it_was(sort: str, members: dict[str, Any]) -> None:
    if sort == "PowerShellScript":
        members = {k: v for k, v in members.items() if k in ("scriptContent", "path")}
    item = {"@odata.type": f"{GRAPH}win32LobApp{sort}Detection", **members}
    kept = rules.canonical({"detectionRules": [item]})
    assert kept is not None
    assert rules.older(kept, "detection") == [item]
    assert rules.canonical({"rules": kept}) == kept


async def test_apps_are_found_by_type_name_and_assignment(mdm: Mdm) -> None:
    win32, web = await made(mdm, "win32LobApp"), await made(mdm, "webApp", appUrl="https://x")
    msi = await made(mdm, "windowsMobileMSI", fileName="a.msi", displayName="Client")
    assert web["publishingState"] == "published"
    assert win32["publishingState"] == "notPublished"
    cases = {
        "$filter=isof('microsoft.graph.win32LobApp')": [win32],
        "$filter=(isof('microsoft.graph.windowsMobileMSI'))&$search=\"client\"": [msi],
        '$search="nothing"': [],
        "$filter=isAssigned eq true": [],
        "$filter=displayName eq 'webApp'": [web],
        "$filter=(microsoft.graph.managedApp/appAvailability) eq null or "
        "(microsoft.graph.managedApp/appAvailability) eq 'lineOfBusiness' or isAssigned eq true"
        "&$orderby=displayName": [msi, web, win32],
    }
    for query, wanted in cases.items():
        answer = await call(mdm, "GET", f"{APPS}?{query}")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert [item["id"] for item in found["value"]] == [item["id"] for item in wanted], query
        assert found["@odata.count"] == len(wanted), query


async def test_assignments_of_apps_have_intents_and_settings(mdm: Mdm) -> None:
    app = await made(mdm, "webApp", appUrl="https://x")
    one = f"{APPS}/{app['id']}/assignments"
    assert (await call(mdm, "GET", one)).json()["@odata.count"] == 0
    group = await mdm.group("All")
    settings = {
        "@odata.type": f"{GRAPH}win32LobAppAssignmentSettings",
        "notifications": "showAll",
        "restartSettings": None,
    }
    body = {
        "@odata.type": f"{GRAPH}mobileAppAssignment",
        "intent": "available",
        "source": "direct",
        "target": {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": group.id},
        "settings": settings,
    }
    answer = await call(mdm, "POST", one, body)
    assert answer.status_code == 201, answer.text
    shown = (await call(mdm, "GET", one)).json()["value"][0]
    assert (shown["intent"], shown["settings"], shown["source"]) == (
        "available",
        settings,
        "direct",
    )
    assert (await call(mdm, "GET", f"{APPS}?$filter=isAssigned eq true")).json()[
        "@odata.count"
    ] == 1
    assert (await call(mdm, "POST", one, {**body, "intent": "maybe"})).status_code == 400
    assert (await call(mdm, "DELETE", f"{one}/{shown['id']}")).status_code == 200
    assert (await call(mdm, "GET", one)).json()["value"] == []


@pytest.mark.parametrize("intent", ["available", "uninstall"])
async def test_only_what_is_required_is_installed_unasked(
    mdm: Mdm, package: bytes, intent: str
) -> None:
    from app_content import publish

    device = await mdm.enrolled()
    app = await made(mdm, "windowsMobileMSI", fileName="a.msi")
    await publish(mdm.database, mdm.content.blobs, app["id"], package, mdm.world.now)
    everyone = {"@odata.type": f"{GRAPH}allDevicesAssignmentTarget"}
    assign = f"{APPS}/{app['id']}/assign"
    body = {"mobileAppAssignments": [{"intent": intent, "target": everyone}]}
    assert (await call(mdm, "POST", assign, body)).status_code == 200
    assert await device.check_in() == []
    body["mobileAppAssignments"][0]["intent"] = "required"
    await call(mdm, "POST", assign, body)
    assert [command.name for command in await device.check_in()] == ["Add", "Exec"]


async def test_categories_and_relationships(mdm: Mdm) -> None:
    first, second = await made(mdm, "win32LobApp"), await made(mdm, "win32LobApp")
    path = "deviceAppManagement/mobileAppCategories"
    category = (await call(mdm, "POST", path, {"displayName": "Tools"})).json()
    found = await call(mdm, "GET", f"{path}?$filter=displayName eq 'Tools'")
    assert found.json()["@odata.count"] == 1
    reference = {"@odata.id": f"https://graph.microsoft.com/beta/{path}/{category['id']}"}
    answer = await call(mdm, "POST", f"{APPS}/{first['id']}/categories/$ref", reference)
    assert answer.status_code == 204, answer.text
    shown = (await call(mdm, "GET", f"{APPS}/{first['id']}/categories")).json()["value"]
    assert [item["displayName"] for item in shown] == ["Tools"]

    def relation(target: str) -> dict[str, Any]:
        return {
            "relationships": [
                {
                    "@odata.type": f"{GRAPH}mobileAppDependency",
                    "targetId": target,
                    "dependencyType": "autoInstall",
                }
            ]
        }

    update = f"{APPS}/{{}}/updateRelationships"
    answer = await call(mdm, "POST", update.format(first["id"]), relation(second["id"]))
    assert answer.status_code == 204, answer.text
    (child,) = (await call(mdm, "GET", f"{APPS}/{first['id']}/relationships")).json()["value"]
    assert (child["targetId"], child["targetType"]) == (second["id"], "child")
    assert child["@odata.type"] == f"{GRAPH}mobileAppDependency"
    (parent,) = (await call(mdm, "GET", f"{APPS}/{second['id']}/relationships")).json()["value"]
    assert (parent["targetId"], parent["targetType"]) == (first["id"], "parent")
    for source, target in ((second, first), (first, first)):
        answer = await call(mdm, "POST", update.format(source["id"]), relation(target["id"]))
        assert answer.status_code == 400


async def test_pictures_stay_out_of_lists(mdm: Mdm) -> None:
    icon = {"type": "image/png", "value": "AAAA"}
    app = await made(mdm, "webApp", appUrl="https://x", largeIcon=icon)
    assert app["largeIcon"] == icon
    assert (await call(mdm, "GET", APPS)).json()["value"][0]["largeIcon"] is None
