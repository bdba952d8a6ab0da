"""What became of an app, by device and by user, as reports and collections; whom targets reach."""

from typing import Any

import pytest
from test_mobile_apps import APPS, assigned, finished, uploaded

from mdm_world import Mdm, TestDevice
from tandem.tenant import directory

REPORT = "deviceManagement/reports/retrieveDeviceAppInstallationStatusReport"
NAMESPACE = "#microsoft.graph."


async def get(mdm: Mdm, path: str) -> Any:
    answer = await mdm.graph("GET", path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def three_devices(mdm: Mdm, package: bytes) -> tuple[str, dict[str, TestDevice]]:
    """An app for two of three devices, one of which is left out again."""
    found = {
        name: await mdm.enrolled(name, f"{number:032X}")
        for number, name in enumerate(("ada", "bob", "eve"), 1)
    }
    app = await uploaded(mdm, package)
    everyone = await mdm.group("Everyone", *(item.user.id for item in found.values()))
    left_out = await mdm.group("Left out", found["eve"].user.id)
    answer = await assigned(mdm, app, everyone.id, exclude=(left_out.id,))
    assert answer.status_code in (200, 204), answer.text
    return app, found


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["deviceName"]: row for row in rows}


async def test_each_device_of_an_app_is_a_row_of_a_page(mdm: Mdm, package: bytes) -> None:
    app, found = await three_devices(mdm, package)
    await found["ada"].check_in()
    await found["ada"].begins(finished("0"))
    rows = by_name((await get(mdm, f"tandem/mobileApps/{app}/deviceStatuses"))["value"])
    assert {name: row["installState"] for name, row in rows.items()} == {
        "PC-Ada": "installed",
        "PC-Bob": "notInstalled",
        "PC-Eve": "excluded",
    }
    assert rows["PC-Eve"]["excludedBy"] == "Left out"
    assert rows["PC-Ada"]["client"]["stuckAt"] == "The client has not said anything yet."
    page = await get(mdm, f"tandem/mobileApps/{app}/deviceStatuses?$top=1&$orderby=deviceName desc")
    assert [row["deviceName"] for row in page["value"]] == ["PC-Eve"]
    assert page["@odata.count"] == 3
    only = await get(
        mdm, f"tandem/mobileApps/{app}/deviceStatuses?$filter=installState eq 'installed'"
    )
    assert [row["deviceName"] for row in only["value"]] == ["PC-Ada"]


async def test_the_summary_and_the_users_count_the_same_devices(mdm: Mdm, package: bytes) -> None:
    app, found = await three_devices(mdm, package)
    await found["ada"].check_in()
    await found["ada"].begins(finished("1603"))
    summary = await get(mdm, f"tandem/mobileApps/{app}/installSummary")
    assert summary["bringsClient"] is True
    counted = {name: summary[f"{name}Count"] for name in ("failed", "notInstalled", "excluded")}
    assert counted == {"failed": 1, "notInstalled": 1, "excluded": 1}
    users = (await get(mdm, f"tandem/mobileApps/{app}/userStatuses"))["value"]
    assert {row["userPrincipalName"]: row["failedCount"] for row in users} == {
        "ada@contoso.com": 1,
        "bob@contoso.com": 0,
        "eve@contoso.com": 0,
    }


async def test_the_apps_of_one_device_are_listed(mdm: Mdm, package: bytes) -> None:
    app, found = await three_devices(mdm, package)
    await uploaded(mdm, package, displayName="For nobody")
    await found["ada"].check_in()
    (row,) = (await get(mdm, f"tandem/managedDevices/{found['ada'].id}/apps"))["value"]
    assert (row["id"], row["installState"], row["bringsClient"]) == (app, "installing", True)
    (row,) = (await get(mdm, f"tandem/managedDevices/{found['eve'].id}/apps"))["value"]
    assert row["installState"] == "excluded"
    answer = await mdm.graph("GET", "tandem/managedDevices/nobody/apps")
    assert answer.status_code == 404


async def installed_on(mdm: Mdm, package: bytes) -> tuple[str, TestDevice, str]:
    """An app on a device that was required to have it, and the group that says so."""
    device = await mdm.enrolled()
    app = await uploaded(mdm, package)
    group = await mdm.group("Users", device.user.id)
    await assigned(mdm, app, group.id)
    await device.check_in()
    await device.begins(finished("0"))
    return app, device, group.id


async def intents(mdm: Mdm, app: str, **groups: str) -> None:
    given = [
        {"intent": intent, "target": {"@odata.type": f"{NAMESPACE}groupAssignmentTarget",
                                      "groupId": group}}
        for intent, group in groups.items()
    ]  # fmt: skip
    answer = await mdm.graph("POST", f"{APPS}/{app}/assign", {"mobileAppAssignments": given})
    assert answer.status_code in (200, 204), answer.text


async def test_an_app_is_uninstalled_where_it_came_from_here(mdm: Mdm, package: bytes) -> None:
    app, device, group = await installed_on(mdm, package)
    other = await mdm.enrolled("bob", f"{2:032X}")
    both = await mdm.group("Both", device.user.id, other.user.id)
    await intents(mdm, app, uninstall=both.id)
    (order,) = await device.check_in()
    assert (order.name, order.items[0].target.rpartition("/")[2]) == (
        "Delete",
        "%7B11111111-2222-3333-4444-55555555555A%7D",
    )
    assert await device.check_in() == [], "it is gone, once"
    assert await other.check_in() == [], "it never came from here"
    found = await get(mdm, f"deviceManagement/managedDevices/{device.id}/timeline")
    assert "Client Setup: uninstalled" in [item["text"] for item in found["value"]]
    await intents(mdm, app, required=group)
    assert [item.name for item in await device.check_in()] == ["Add", "Exec"]


async def test_required_beats_uninstall(mdm: Mdm, package: bytes) -> None:
    app, device, group = await installed_on(mdm, package)
    everyone = await mdm.group("Everyone", device.user.id)
    await intents(mdm, app, required=group, uninstall=everyone.id)
    assert await device.check_in() == []


async def test_a_device_that_does_not_uninstall_is_asked_again_a_day_later(
    mdm: Mdm, package: bytes
) -> None:
    app, device, group = await installed_on(mdm, package)
    await intents(mdm, app, uninstall=group)
    device.codes["Delete"] = 500
    assert [item.name for item in await device.check_in()] == ["Delete"]
    (row,) = (await get(mdm, f"tandem/mobileApps/{app}/deviceStatuses"))["value"]
    assert (row["installState"], row["errorCode"]) == ("uninstallFailed", 500)
    summary = await get(mdm, f"tandem/mobileApps/{app}/installSummary")
    assert summary["uninstallFailedCount"] == 1
    assert await device.check_in() == []
    mdm.world.wait(days=1, minutes=1)
    assert [item.name for item in await device.check_in()] == ["Delete"]


async def test_the_vendors_report_names_its_columns_once(mdm: Mdm, package: bytes) -> None:
    app, found = await three_devices(mdm, package)
    await found["ada"].check_in()
    await found["ada"].begins(finished("1603"))
    body = {
        "filter": f"(ApplicationId eq '{app}')",
        "select": ["DeviceName", "AppInstallState", "HexErrorCode"],
        "orderBy": ["DeviceName"],
        "top": 2,
    }
    answer = await mdm.graph("POST", REPORT, body)
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["TotalRowCount"] == 3
    assert [item["Column"] for item in report["Schema"]] == body["select"]
    assert report["Values"] == [["PC-Ada", 2, "0x00000643"], ["PC-Bob", 3, ""]]
    again = (await mdm.graph("POST", REPORT, {**body, "search": "EVE"})).json()
    assert [row[0] for row in again["Values"]] == ["PC-Eve"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": "(ApplicationId eq 'x') or true"},
        {"filter": "(ApplicationId eq '{app}')", "select": ["Secret"]},
        {"filter": "(ApplicationId eq '{app}')", "orderBy": ["Platform; drop"]},
    ],
)
async def test_a_report_of_something_else_is_refused(
    mdm: Mdm, package: bytes, body: dict[str, Any]
) -> None:
    app = await uploaded(mdm, package)
    if "filter" in body:
        body = {**body, "filter": body["filter"].replace("{app}", app)}
    assert (await mdm.graph("POST", REPORT, body)).status_code == 400


async def device_group(mdm: Mdm, name: str, *devices: TestDevice) -> directory.Group:
    async with mdm.database.transaction() as tx:
        group = await directory.create_group(tx, name, mdm.world.at)
        for device in devices:
            known = await directory.find_device(tx, device.joined.device_id)
            assert known is not None
            await directory.add_member(tx, group.id, known.id)
    return group


async def test_a_group_of_devices_takes_nobody_out_of_a_group_of_users(
    mdm: Mdm, package: bytes
) -> None:
    """Exclusion beats inclusion between the same kind only (comanagement, 2.12)."""
    device = await mdm.enrolled()
    app = await uploaded(mdm, package)
    users = await mdm.group("Users", device.user.id)
    devices = await device_group(mdm, "Devices", device)
    await assigned(mdm, app, users.id, exclude=(devices.id,))
    (row,) = (await get(mdm, f"tandem/mobileApps/{app}/deviceStatuses"))["value"]
    assert row["installState"] == "notInstalled"
    assert [item.name for item in await device.check_in()] == ["Add", "Exec"]
    await assigned(mdm, app, devices.id, exclude=(devices.id,))
    answer = await assigned(mdm, app, devices.id, exclude=(users.id,))
    assert answer.status_code in (200, 204)
    (row,) = (await get(mdm, f"tandem/mobileApps/{app}/deviceStatuses"))["value"]
    assert row["installState"] != "excluded"


def targets(*given: tuple[str, str]) -> dict[str, Any]:
    return {
        "assignments": [
            {
                "target": {
                    "@odata.type": NAMESPACE + kind,
                    **({"groupId": group} if group else {}),
                }
            }
            for kind, group in given
        ]
    }


async def test_the_reach_of_targets_is_counted_before_they_are_assigned(mdm: Mdm) -> None:
    ada = await mdm.enrolled("ada", f"{1:032X}")
    bob = await mdm.enrolled("bob", f"{2:032X}")
    eve = await mdm.world.user("eve")
    await mdm.world.joined(eve.user_principal_name, "PC-eve")
    users = await mdm.group("Users", ada.user.id, bob.user.id, eve.id)
    outer = await mdm.group("Outer", users.id)
    out = await mdm.group("Out", bob.user.id)
    devices = await device_group(mdm, "Devices", ada)

    async def reach(*given: tuple[str, str]) -> tuple[int, int, int]:
        answer = await mdm.graph("POST", "tandem/assignmentReach", targets(*given))
        assert answer.status_code == 200, answer.text
        value = answer.json()
        return value["userCount"], value["deviceCount"], value["joinedDeviceCount"]

    inside, outside = "groupAssignmentTarget", "exclusionGroupAssignmentTarget"
    assert await reach((inside, outer.id)) == (3, 2, 1)
    assert await reach((inside, outer.id), (outside, out.id)) == (2, 1, 1)
    assert await reach((inside, devices.id)) == (0, 1, 0)
    assert await reach((inside, outer.id), (outside, devices.id)) == (3, 2, 1)
    assert await reach(("allDevicesAssignmentTarget", ""), (outside, devices.id)) == (0, 1, 1)
    assert (await reach(("allLicensedUsersAssignmentTarget", "")))[1:] == (2, 1)
    assert await reach() == (0, 0, 0)
    answer = await mdm.graph("POST", "tandem/assignmentReach", targets((inside, devices.id)))
    (told,) = answer.json()["groups"]
    assert (told["displayName"], told["userCount"], told["deviceCount"]) == ("Devices", 0, 1)
    wrong = targets((inside, "00000000-0000-0000-0000-000000000001"))
    assert (await mdm.graph("POST", "tandem/assignmentReach", wrong)).status_code == 404


async def test_managed_devices_are_found_by_their_ids(mdm: Mdm) -> None:
    """Quoted as the vendor's texts are, and bare as GUIDs are."""
    device = await mdm.enrolled()
    for condition in (
        f"id eq '{device.id}'",
        f"id eq {device.id}",
        f"azureADDeviceId eq '{device.joined.device_id}'",
        f"userId eq '{device.user.id}' and deviceName eq 'pc-alex'",
    ):
        found = await get(mdm, f"deviceManagement/managedDevices?$filter={condition}")
        assert [item["id"] for item in found["value"]] == [device.id], condition
