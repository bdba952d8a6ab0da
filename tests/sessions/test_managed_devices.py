"""Managed devices as scripts see them through Graph: lists, counters, and orders to a device."""

from datetime import timedelta
from typing import Any

import pytest

from mdm_world import Mdm, TestDevice
from tandem.protocols.syncml import Command, Item
from tandem.workloads import Workload, capabilities

PATH = "deviceManagement/managedDevices"
CO_MANAGED = f"flags={capabilities([Workload.CLIENT_APPS])};agent=1.0;client=GUID:1;policy=1"


async def read(mdm: Mdm, path: str) -> Any:
    answer = await mdm.graph("GET", path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def order(mdm: Mdm, device: TestDevice, action: str, body: Any = None) -> int:
    answer = await mdm.graph("POST", f"{PATH}/{device.id}/{action}", body)
    return answer.status_code


async def result(mdm: Mdm, device: TestDevice, action: str) -> str:
    found = await read(mdm, f"{PATH}/{device.id}")
    states = {item["actionName"]: item["actionState"] for item in found["deviceActionResults"]}
    return str(states[action])


async def test_devices_are_filtered_counted_and_paged_by_the_database(mdm: Mdm) -> None:
    for number in range(3):
        await mdm.enrolled(f"user{number}", f"{number:032X}")
    page = await read(mdm, f"{PATH}?$filter=startswith(deviceName,'pc-user')&$top=2")
    assert page["@odata.count"] == 3
    names = [item["deviceName"] for item in page["value"]]
    rest = await read(mdm, page["@odata.nextLink"].partition("/v1.0/")[2])
    assert sorted(names + [item["deviceName"] for item in rest["value"]]) == [
        "PC-User0",
        "PC-User1",
        "PC-User2",
    ]
    one = await read(mdm, f"{PATH}?$filter=userPrincipalName eq 'user1@contoso.com'")
    assert [item["userDisplayName"] for item in one["value"]] == ["User1"]
    assert one["value"][0]["managementAgent"] == "mdm"
    assert one["value"][0]["configurationManagerClientEnabledFeatures"] is None


async def test_a_device_of_both_says_who_owns_which_workload(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.agent(CO_MANAGED)
    await device.check_in()
    found = await read(mdm, f"{PATH}?$filter=managementAgent eq 'configurationManagerClientMdm'")
    (item,) = found["value"]
    assert item["complianceState"] == "configManager"
    features = item["configurationManagerClientEnabledFeatures"]
    assert [name for name, mdm_owns in features.items() if mdm_owns] == ["modernApps", "inventory"]
    both = await read(mdm, "deviceManagement/comanagedDevices")
    assert [entry["id"] for entry in both["value"]] == [device.id]
    summary = await read(mdm, "deviceManagement/getComanagedDevicesSummary()")
    assert summary["value"]["totalComanagedCount"] == 1
    assert summary["value"]["modernAppsCount"] == 1
    assert summary["value"]["officeAppsCount"] == 0
    overview = await read(mdm, "deviceManagement/managedDeviceOverview")
    assert (overview["enrolledDeviceCount"], overview["dualEnrolledDeviceCount"]) == (1, 1)

    device.agent("")
    await device.check_in()
    assert (await read(mdm, "deviceManagement/comanagedDevices"))["value"] == []


async def test_eligible_devices_are_told_from_those_that_are_not(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/SwV": "10.0.15063.1"}
    await device.check_in()
    (item,) = (await read(mdm, "deviceManagement/comanagementEligibleDevices"))["value"]
    assert item["status"] == "needsOsUpdate"
    summary = await read(mdm, "deviceManagement/getComanagementEligibleDevicesSummary()")
    assert summary["value"]["needsOsUpdateCount"] == 1
    assert summary["value"]["eligibleCount"] == 0


@pytest.mark.parametrize(
    ("action", "body", "command"),
    [
        ("rebootNow", None, ("Exec", "./Device/Vendor/MSFT/Reboot/RebootNow", None)),
        (
            "windowsDefenderScan",
            {"quickScan": True},
            ("Exec", "./Device/Vendor/MSFT/Defender/Scan", "1"),
        ),
        (
            "setDeviceName",
            {"deviceName": "PC-%SERIAL%"},
            ("Replace", "./DevDetail/Ext/Microsoft/DNSComputerName", "PC-%SERIAL%"),
        ),
        ("wipe", {}, ("Exec", "./Device/Vendor/MSFT/RemoteWipe/doWipe", None)),
        (
            "wipe",
            {"keepUserData": True},
            ("Exec", "./Device/Vendor/MSFT/RemoteWipe/doWipePersistUserData", None),
        ),
        (
            "wipe",
            {"keepEnrollmentData": True},
            ("Exec", "./Device/Vendor/MSFT/RemoteWipe/doWipePersistProvisionedData", None),
        ),
        (
            "wipe",
            {"useProtectedWipe": True},
            ("Exec", "./Device/Vendor/MSFT/RemoteWipe/doWipeProtected", None),
        ),
    ],
)
async def test_an_order_is_pending_then_active_then_done(
    mdm: Mdm, action: str, body: Any, command: tuple[str, str, str | None]
) -> None:
    device = await mdm.enrolled()
    assert await order(mdm, device, action, body) == 204
    assert await order(mdm, device, action, body) == 204, "ordered twice, carried out once"
    assert await result(mdm, device, action) == "pending"
    questions = await device.begins()
    answer = await device.says(2, **device.replies(questions))
    (sent,) = answer.commands
    assert (sent.name, sent.items[0].target, sent.items[0].data or None) == command
    assert await result(mdm, device, action) == "active"
    await device.says(3, **device.replies(answer))
    # The status of a wipe says that it begins.
    assert await result(mdm, device, action) == ("active" if action == "wipe" else "done")
    assert await device.check_in() == []


async def test_an_order_whose_answer_was_lost_is_given_again(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await order(mdm, device, "rebootNow")
    questions = await device.begins()
    await device.says(2, **device.replies(questions))
    assert [command.name for command in await device.check_in()] == ["Exec"]
    assert await device.check_in() == []


async def test_an_order_that_the_device_refuses_has_failed(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.codes["Exec"] = 500
    await order(mdm, device, "wipe")
    assert (await read(mdm, f"{PATH}/{device.id}"))["managementState"] == "wipePending"
    await device.check_in()
    assert await result(mdm, device, "wipe") == "failed"
    assert (await read(mdm, f"{PATH}/{device.id}"))["managementState"] == "wipeFailed"


async def test_what_windows_has_no_command_for_is_not_supported(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    assert await order(mdm, device, "remoteLock") == 204
    assert await result(mdm, device, "remoteLock") == "notSupported"
    assert await device.check_in() == []


async def test_a_sync_is_done_when_the_device_has_come(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await order(mdm, device, "syncDevice")
    assert await result(mdm, device, "syncDevice") == "active"
    await device.check_in()
    assert await result(mdm, device, "syncDevice") == "done"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", ""),
        ("123456", "digits alone"),
        ("has space", "letters, digits and hyphens"),
        ("-lead", "begins and ends"),
        ("tail-", "begins and ends"),
        ("x" * 16, "16 characters"),
        ("a/b", "letters, digits and hyphens"),
        ("%RAND%", "%SERIAL% or %RAND:n%"),
        ("PC-%RAND:0%", "%SERIAL% or %RAND:n%"),
        ("KIOSK-01-%RAND:7%", "16 characters, counting 7 for %RAND%"),
    ],
)
async def test_a_name_that_no_computer_can_have_is_refused(mdm: Mdm, name: str, why: str) -> None:
    device = await mdm.enrolled()
    answer = await mdm.graph("POST", f"{PATH}/{device.id}/setDeviceName", {"deviceName": name})
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]
    assert await device.check_in() == []


@pytest.mark.parametrize("name", ["PC-%RAND:5%", "%SERIAL%", "KIOSK-01-%RAND:6%", "a"])
async def test_names_may_have_what_the_device_fills_in(mdm: Mdm, name: str) -> None:
    device = await mdm.enrolled()
    assert await order(mdm, device, "setDeviceName", {"deviceName": name}) == 204


async def test_notes_and_owner_are_changed_and_nothing_else(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    path = f"{PATH}/{device.id}"
    changes = {"notes": "on loan", "managedDeviceOwnerType": "personal"}
    assert (await mdm.graph("PATCH", path, changes)).status_code in (200, 204)
    found = await read(mdm, path)
    assert (found["notes"], found["managedDeviceOwnerType"]) == ("on loan", "personal")
    assert (await mdm.graph("PATCH", path, {"deviceName": "x"})).status_code == 400
    assert (await mdm.graph("PATCH", path, {"managedDeviceOwnerType": None})).status_code == 400
    assert (await mdm.graph("PATCH", f"{PATH}/nothing", changes)).status_code == 404


async def test_what_belongs_to_a_device_is_read_below_it(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    (user,) = (await read(mdm, f"{PATH}/{device.id}/users"))["value"]
    assert user["userPrincipalName"] == "alex@contoso.com"
    for name in ("deviceConfigurationStates", "deviceCompliancePolicyStates", "detectedApps"):
        assert (await read(mdm, f"{PATH}/{device.id}/{name}"))["value"] == []
    assert (await mdm.graph("GET", f"{PATH}/nothing/users")).status_code == 404


async def test_orders_are_audit_events_of_device_management(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await order(mdm, device, "rebootNow")
    await mdm.graph("PATCH", f"{PATH}/{device.id}", {"notes": "on loan"})
    base = "deviceManagement/auditEvents"
    changed, restarted = (await read(mdm, base))["value"]
    assert restarted["activity"] == "rebootNow"
    assert restarted["activityOperationType"] == "Action"
    assert restarted["componentName"] == "ManagedDevices"
    assert restarted["actor"]["userPrincipalName"] == "admin@contoso.com"
    assert restarted["resources"][0]["resourceId"] == device.id
    (note,) = changed["resources"][0]["modifiedProperties"]
    assert note == {"displayName": "notes", "oldValue": None, "newValue": "on loan"}
    asked = (
        f"{base}?$filter=componentName eq 'ManagedDevices' and activityDateTime gt 2020-01-01T00:00:00Z"
        " and activityOperationType ne 'Get'&$orderby=activityDateTime desc&$select=actor,resources"
    )
    assert len((await read(mdm, asked))["value"]) == 2
    by_type = f"{base}?$filter=resources/any(s:s/auditResourceType eq 'managedDevice')"
    assert len((await read(mdm, by_type))["value"]) == 2
    other = f"{base}?$filter=resources/any(s:s/auditResourceType eq 'DeviceManagementSettings')"
    assert (await read(mdm, other))["value"] == []
    assert "Device" in (await read(mdm, f"{base}/getAuditCategories()"))["value"]
    types = await read(mdm, f"{base}/getAuditActivityTypes(category='Device')")
    assert types["value"] == ["Update managedDevice", "rebootNow"]
    none = await read(mdm, f"{base}/getAuditActivityTypes(category='Role')")
    assert none["value"] == []


@pytest.mark.parametrize("action", ["rebootNow", "wipe", "syncDevice", "remoteLock"])
async def test_a_device_that_has_left_takes_no_orders(mdm: Mdm, action: str) -> None:
    device = await mdm.enrolled()
    await order(mdm, device, "retire")
    item = Item(data="1", type="com.microsoft:mdm.unenrollment.userrequest", format="int")
    await device.begins(Command("Alert", "3", (item,), "1226"))
    assert await order(mdm, device, action) == 404


async def test_a_device_that_says_it_is_encrypted_is_so_in_graph(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await device.check_in()
    assert (await read(mdm, f"{PATH}/{device.id}"))["isEncrypted"] is False
    device.nodes["./Vendor/MSFT/DeviceStatus/Compliance/EncryptionCompliance"] = "1"
    mdm.world.at += timedelta(hours=25)
    await device.check_in()
    assert (await read(mdm, f"{PATH}/{device.id}"))["isEncrypted"] is True
    found = await read(mdm, f"{PATH}?$filter=isEncrypted eq true")
    assert [item["id"] for item in found["value"]] == [device.id]
