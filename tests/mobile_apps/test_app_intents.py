"""Intents on devices, what is there already, what users choose, and the client that is broken."""

from typing import Any

import httpx
import pytest
from test_app_statuses import device_group, get
from test_mobile_apps import APPS, NODE, finished, made, statuses, uploaded

from app_content import publish
from mdm_world import Mdm, TestDevice
from tandem.infra.errors import AppError
from tandem.protocols.syncml import Command, Item
from tandem.tenant import enrollment

LINE = "LANG=en"
MSI = "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI"


async def give(mdm: Mdm, app: str, *pairs: tuple[str, str], out: tuple[str, ...] = ()) -> None:
    """`pairs` are intents and groups; `out` are groups left out of what is required."""
    kinds = [(intent, "groupAssignmentTarget", group) for intent, group in pairs]
    kinds += [("required", "exclusionGroupAssignmentTarget", group) for group in out]
    body = [
        {"intent": i, "target": {"@odata.type": f"#microsoft.graph.{k}", "groupId": g}}
        for i, k, g in kinds
    ]
    answer = await mdm.graph("POST", f"{APPS}/{app}/assign", {"mobileAppAssignments": body})
    assert answer.status_code in (200, 204), answer.text


async def row_of(mdm: Mdm, device: TestDevice) -> dict[str, Any]:
    """The one app of a device, which the collection over all devices tells the same of."""
    (row,) = (await get(mdm, f"tandem/managedDevices/{device.id}/apps"))["value"]
    rows = (await get(mdm, f"tandem/mobileApps/{row['id']}/deviceStatuses"))["value"]
    (same,) = [one for one in rows if one["id"] == device.id]
    for name in ("intent", "installState", "errorCode", "error", "attempts", "installedVersion"):
        assert same[name] == row[name], name
    return dict(row)


def names(work: list[Command]) -> list[str]:
    return [command.name for command in work]


async def timeline(mdm: Mdm, device: TestDevice) -> list[str]:
    async with mdm.database.transaction() as tx:
        return [event.text for event in await enrollment.timeline(tx, device_id=device.id)]


# ------------------------------------------------------------------ intents


@pytest.mark.parametrize(
    ("user", "device", "word", "state", "does"),
    [
        ("required", "uninstall", "requiredInstall", "notInstalled", ["Add", "Exec"]),
        ("available", "required", "requiredAndAvailableInstall", "notInstalled", ["Add", "Exec"]),
        ("available", "uninstall", "availableAfterUninstall", "available", []),
        ("uninstall", "required", "requiredInstall", "notInstalled", ["Add", "Exec"]),
        ("uninstall", "uninstall", "requiredUninstall", "absent", []),
        ("available", "", "available", "available", []),
        (
            "availableWithoutEnrollment",
            "uninstall",
            "uninstallUnlessChosen",
            "available",
            [],
        ),
    ],
)
async def test_what_is_assigned_by_user_and_by_device_comes_to_one_intent(
    mdm: Mdm, package: bytes, user: str, device: str, word: str, state: str, does: list[str]
) -> None:
    """The session, the device's page and the app's page say the same, and why."""
    known = await mdm.enrolled()
    app = await uploaded(mdm, package, commandLine=LINE)
    users = await mdm.group("Users", known.user.id)
    devices = await device_group(mdm, "Devices", known)
    await give(mdm, app, (user, users.id), *([(device, devices.id)] if device else []))
    row = await row_of(mdm, known)
    assert (row["intent"], row["installState"]) == (word, state)
    outcomes = {one["groupDisplayName"]: one["outcome"] for one in row["reasons"]}
    assert outcomes["Users"] == ("beaten" if user == "uninstall" and does else "decides")
    assert names(await known.check_in()) == does


async def test_a_group_is_included_by_one_intent(mdm: Mdm, package: bytes) -> None:
    app = await uploaded(mdm, package, commandLine=LINE)
    group = {"@odata.type": "#microsoft.graph.groupAssignmentTarget"}
    group["groupId"] = (await mdm.group("Users")).id
    body = [{"intent": intent, "target": group} for intent in ("required", "uninstall")]
    answer = await mdm.graph("POST", f"{APPS}/{app}/assign", {"mobileAppAssignments": body})
    assert (answer.status_code, "two intents" in answer.text) == (400, True)


async def test_the_reasons_name_the_group_that_leaves_it_out(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await uploaded(mdm, package, commandLine=LINE)
    users = await mdm.group("Users", device.user.id)
    out = await mdm.group("Out", device.user.id)
    await give(mdm, app, ("required", users.id), out=(out.id,))
    row = await row_of(mdm, device)
    assert (row["intent"], row["installState"]) == ("notAvailable", "excluded")
    assert {(one["groupDisplayName"], one["outcome"]) for one in row["reasons"]} == {
        ("Users", "excluded"),
        ("Out", "excludes"),
    }


async def test_an_available_app_is_installed_when_somebody_chooses_it(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    app = await uploaded(mdm, package, commandLine=LINE)
    choose = f"tandem/managedDevices/{device.id}/requestApp"
    refused = await mdm.graph("POST", choose, {"mobileAppId": app})
    assert (refused.status_code, "not available" in refused.text) == (409, True)
    users = await mdm.group("Users", device.user.id)
    await give(mdm, app, ("available", users.id))
    assert await device.check_in() == []
    answer = await mdm.graph("POST", choose, {"mobileAppId": app})
    assert answer.json()["value"][0]["requestedDateTime"] is not None
    assert names(await device.check_in()) == ["Add", "Exec"]
    await device.check_in(finished("0"))
    # The device's group takes the copy off once; what is chosen afterwards stays.
    devices = await device_group(mdm, "Devices", device)
    await give(mdm, app, ("available", users.id), ("uninstall", devices.id))
    assert names(await device.check_in()) == ["Delete"]
    assert await device.check_in() == []
    await mdm.graph("POST", choose, {"mobileAppId": app})
    assert names(await device.check_in()) == ["Add", "Exec"]
    await device.check_in(finished("0"))
    assert await device.check_in() == []
    back = await mdm.graph(
        "POST", f"tandem/managedDevices/{device.id}/withdrawApp", {"mobileAppId": app}
    )
    assert back.json()["value"][0]["requestedDateTime"] is None


async def test_people_choose_for_their_own_devices_and_for_no_others(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    bob = await mdm.enrolled("bob", f"{2:032X}")
    app = await uploaded(mdm, package, commandLine=LINE, description="Sets up")
    users = await mdm.group("Users", device.user.id, bob.user.id)
    await give(mdm, app, ("available", users.id))
    headers = await mdm.world.bearer(device.user.user_principal_name)
    client = mdm.world.client

    async def ask(call: str, **body: str) -> httpx.Response:
        return await client.post(f"/v1.0/tandem/myApps/{call}", json=body, headers=headers)

    (mine,) = (await client.get("/v1.0/tandem/myApps", headers=headers)).json()["value"]
    assert (mine["deviceId"], [one["displayName"] for one in mine["apps"]]) == (
        device.id,
        ["Client Setup"],
    )
    assert "reasons" not in mine["apps"][0]
    assert (await ask("request", deviceId=bob.id, mobileAppId=app)).status_code == 404
    assert (await ask("request", deviceId=device.id, mobileAppId=app)).status_code == 200
    assert names(await device.check_in()) == ["Add", "Exec"]
    assert await bob.check_in() == []
    answer = await ask("withdraw", deviceId=device.id, mobileAppId=app)
    assert answer.json()["value"][0]["apps"][0]["requestedDateTime"] is None
    assert (await client.get("/v1.0/tandem/myApps")).status_code == 401


# ------------------------------------------------------------------ what is there


async def required(mdm: Mdm, package: bytes, device: TestDevice, line: str, **more: Any) -> str:
    app = await uploaded(mdm, package, commandLine=line, **more)
    group = await mdm.group(f"Group of {app}", device.user.id)
    await give(mdm, app, ("required", group.id))
    return app


async def test_what_is_there_already_is_not_installed_and_not_uninstalled(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    app = await required(mdm, package, device, LINE)
    device.nodes[f"{NODE}/Version"] = "1.2.3"
    assert await device.check_in() == []
    row = await row_of(mdm, device)
    assert (row["installState"], row["installedVersion"]) == ("installed", "1.2.3")
    assert row["foundOnDevice"]
    assert "Client Setup: is there already in version 1.2.3" in await timeline(mdm, device)
    group = await mdm.group("Others", device.user.id)
    await give(mdm, app, ("uninstall", group.id))
    assert await device.check_in() == []


async def test_a_product_that_updates_itself_is_found_by_its_upgrade_code(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    device.nodes[f"{MSI}/UpgradeCode/%7B21111111-2222-3333-4444-555555555555%7D"] = "{9-9}"
    await required(mdm, package, device, LINE, ignoreVersionDetection=True)
    assert await device.check_in() == []
    assert (await row_of(mdm, device))["installState"] == "installed"


async def test_what_somebody_took_off_is_installed_again_within_a_day(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    await required(mdm, package, device, LINE)
    await device.check_in()
    await device.check_in(finished("0"))
    device.nodes["./DevDetail/Ext/Microsoft/SMBIOSSerialNumber"] = "S1"
    device.nodes[MSI] = "%7B11111111-2222-3333-4444-55555555555A%7D/%7B0%7D"
    mdm.world.wait(hours=25)
    assert await device.check_in() == []
    device.nodes[MSI] = "%7B0%7D"
    assert await device.check_in() == [], "the list comes with the inventory, once a day"
    mdm.world.wait(hours=25)
    assert names(await device.check_in()) == ["Add", "Exec"]
    assert "Client Setup: is not there any more" in await timeline(mdm, device)


async def test_an_order_that_the_device_has_lost_is_given_again(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    await required(mdm, package, device, LINE)
    await device.check_in()
    assert await device.check_in() == []
    mdm.world.wait(hours=2)
    assert names(await device.check_in()) == ["Add", "Exec"]


async def test_another_package_with_the_same_product_code_is_refused_once_devices_have_it(
    mdm: Mdm, package: bytes
) -> None:
    """Windows would not install it: a new version needs a product code of its own."""
    device = await mdm.enrolled()
    app = await required(mdm, package, device, LINE)
    other = package + b"\0" * 512
    await publish(mdm.database, mdm.content.blobs, app, other, mdm.world.now)
    await device.check_in()
    with pytest.raises(Exception, match="product code of the one before, which 1 devices have"):
        await publish(mdm.database, mdm.content.blobs, app, package, mdm.world.now)


async def test_the_job_has_the_times_of_the_app(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    times = {
        "installTimeoutInMinutes": 0,
        "installRetryCount": 255,
        "installRetryIntervalInMinutes": 7,
    }
    app = await required(mdm, package, device, LINE, **times)
    shown = (await mdm.graph("GET", f"{APPS}/{app}")).json()
    assert {name: shown[name] for name in times} == times
    job = (await device.check_in())[1].items[0].data or ""
    assert "<TimeOut>0</TimeOut><RetryCount>255</RetryCount><RetryInterval>7</RetryInterval>" in job
    for wrong in (256, -1):
        answer = await mdm.graph("PATCH", f"{APPS}/{app}", {"installRetryCount": wrong})
        assert (answer.status_code, "0 to 255" in answer.text) == (400, True)


async def test_an_app_for_one_user_is_kept_for_when_somebody_is_signed_in(
    mdm: Mdm, package_for_one_user: bytes
) -> None:
    device = await mdm.enrolled()
    await required(mdm, package_for_one_user, device, LINE)
    assert await device.check_in() == []
    signed_in = Item(type="com.microsoft/MDM/LoginStatus", data="user", format="chr")
    add, _ = await device.check_in(Command("Alert", "3", (signed_in,), "1224"))
    assert add.items[0].target.startswith("./User/Vendor/MSFT/EnterpriseDesktopAppManagement/")
    app = await made(mdm)
    with pytest.raises(Exception, match="no committed content"):
        await publish(
            mdm.database, mdm.content.blobs, app["id"], package_for_one_user, mdm.world.now
        )
    files = await mdm.graph(
        "GET", f"{APPS}/{app['id']}/microsoft.graph.windowsMobileMSI/contentVersions/1/files"
    )
    assert "the client is for the machine" in files.json()["value"][0]["reason"]


async def test_an_app_that_its_user_may_choose_and_did_not_keeps_no_session_busy(
    mdm: Mdm, package_for_one_user: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": "S1"}
    app = await required(mdm, package_for_one_user, device, LINE)
    group = await mdm.group("May choose", device.user.id)
    found: list[bool] = []
    quietly = mdm.sessions.quietly

    async def watched(*given: Any) -> bytes | None:
        answer = await quietly(*given)
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(mdm.sessions, "quietly", watched)
    await device.check_in()
    await device.check_in()
    assert True not in found, "it waits for somebody to sign in"
    await give(mdm, app, ("available", group.id))
    await device.check_in()
    found.clear()
    assert await device.check_in() == []
    assert found == [True, True]


@pytest.mark.parametrize("line", ["A=\x01", "A=\x1bB", "A=\ufffe"])
async def test_a_command_line_that_no_message_can_carry_is_refused(mdm: Mdm, line: str) -> None:
    app = await made(mdm)
    answer = await mdm.graph("PATCH", f"{APPS}/{app['id']}", {"commandLine": line})
    assert (answer.status_code, "control characters" in answer.text) == (400, True)


async def test_a_package_whose_version_no_message_can_carry_is_refused(
    mdm: Mdm, package: bytes
) -> None:
    """Each session of each device that is to have it would end there."""
    assert package.count(b"1.2.3") == 1
    app = await made(mdm)
    with pytest.raises(AppError, match="control characters"):
        await publish(
            mdm.database,
            mdm.content.blobs,
            app["id"],
            package.replace(b"1.2.3", b"1\x012.3"),
            mdm.world.now,
        )


# ------------------------------------------------------------------ codes in words


async def test_a_failure_is_told_with_cause_and_cure(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await required(mdm, package, device, LINE)
    await device.check_in()
    await device.begins(finished("-2147023278"))
    row = await row_of(mdm, device)
    assert row["error"] == {
        "code": "0x80070652",
        "name": "ERROR_INSTALL_ALREADY_RUNNING",
        "source": "Windows Installer",
        "message": "Another installation was in progress.",
        "cure": "Nothing is to be done: it is tried again by itself, after 15 minutes.",
        "triedAgainAfterMinutes": 15,
    }
    assert (await statuses(mdm, app))[0]["error"] == row["error"]
    mdm.world.wait(minutes=14)
    assert await device.check_in() == []
    mdm.world.wait(minutes=2)
    assert names(await device.check_in()) == ["Add", "Exec"]


async def test_every_code_with_a_text_has_a_cause_and_a_cure(mdm: Mdm) -> None:
    found = (await get(mdm, "tandem/installErrors"))["value"]
    assert len({one["code"] for one in found}) == len(found) > 50
    assert all(one["message"].endswith(".") and one["cure"].endswith(".") for one in found)
    named = {one["code"]: one["name"] for one in found}
    assert named["0x80070643"] == "ERROR_INSTALL_FAILURE"
    assert named["0x80072EFD"] == "ERROR_WINHTTP_CANNOT_CONNECT"


@pytest.mark.parametrize(
    ("status", "state"),
    [(10, "installing"), (25, "installing"), (48, "installing"), (30, "failed"), (70, "installed")],
)
async def test_the_installers_status_is_kept(
    mdm: Mdm, package: bytes, status: int, state: str
) -> None:
    device = await mdm.enrolled()
    await required(mdm, package, device, LINE)
    await device.check_in()
    device.nodes[f"{NODE}/Status"] = str(status)
    device.nodes[f"{NODE}/LastError"] = "-2146889721"
    await device.check_in()
    row = await row_of(mdm, device)
    assert (row["installState"], row["installerStatus"]) == (state, status)
    code = row["error"]["name"] if row["error"] else None
    assert code == ("CRYPT_E_HASH_VALUE" if state == "failed" else None)


# ------------------------------------------------------------------ co-management

CLIENT = 'CCMSETUPCMD="SMSSITECODE=P01"'
SITE = "flags=1;agent=1;client=GUID:1;policy=1"


async def test_apps_are_withheld_while_the_site_owns_them_but_its_client_is_not(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    device.agent(SITE)
    await required(mdm, package, device, LINE)
    assert await device.check_in() == []
    row = await row_of(mdm, device)
    assert row["installState"] == "withheld"
    assert "workload Client apps" in row["withheldReason"]
    device.agent("flags=65;agent=1;client=GUID:1;policy=1")
    assert names(await device.check_in()) == ["Add", "Exec"], "released by the switch"


async def test_a_client_that_is_gone_is_reinstalled_at_the_next_check_in_and_not_in_every_one(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    await required(mdm, package, device, CLIENT)
    await device.check_in()
    await device.check_in(finished("0"))
    device.agent(SITE)
    mdm.world.wait(minutes=5)
    assert await device.check_in() == []
    del device.nodes[
        "./Device/Vendor/MSFT/DeviceManageability/Provider/WMI_Bridge_Server/ConfigInfo"
    ]
    mdm.world.wait(minutes=5)
    assert names(await device.check_in()) == ["Delete", "Add", "Exec"]
    told = await timeline(mdm, device)
    assert "The site's client is gone: it is reinstalled" in told
    await device.check_in(finished("0"))
    row = await row_of(mdm, device)
    assert (row["installState"], row["repairs"]) == ("installed", 1)
    mdm.world.wait(hours=3)
    assert await device.check_in() == [], "it is given time"
    device.agent(SITE)
    mdm.world.wait(minutes=5)
    await device.check_in()
    del device.nodes[
        "./Device/Vendor/MSFT/DeviceManageability/Provider/WMI_Bridge_Server/ConfigInfo"
    ]
    mdm.world.wait(minutes=5)
    assert await device.check_in() == [], "not in every session"
    mdm.world.wait(hours=2)
    assert names(await device.check_in()) == ["Delete", "Add", "Exec"]
