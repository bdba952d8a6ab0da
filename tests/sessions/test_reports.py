"""What devices report, as real ones do and as hostile ones might, over the service's endpoint."""

from typing import Any

import pytest

from mdm_world import MANAGEMENT, Mdm, TestDevice
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status
from tandem.tenant import enrollment, mobile_apps, policies, sessions

SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"
PRODUCT = "{11111111-2222-3333-4444-555555555555}"
NODE = f"./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{PRODUCT}"
RESULT = "Reversed-Domain-Name:com.microsoft.mdm.win32csp_install"


async def known(mdm: Mdm, device: TestDevice) -> enrollment.Device:
    async with mdm.database.transaction() as tx:
        return await enrollment.device(tx, device.id)


async def timeline(mdm: Mdm, device: TestDevice) -> list[str]:
    async with mdm.database.transaction() as tx:
        return [event.text for event in await enrollment.timeline(tx, device_id=device.id)]


async def configured(mdm: Mdm, device: TestDevice) -> None:
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await policies.create(tx, "Lock", SETTING, "15", mdm.world.at)
        await policies.assign(tx, made.id, [group.id], [])


async def offered(mdm: Mdm, device: TestDevice) -> str:
    """An app that the device is told to install, put there as a published one. Returns its id."""
    group = await mdm.group("Apps", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await mobile_apps.create(
            tx,
            name="Client",
            description="",
            publisher="",
            command_line="",
            file_name="client.msi",
            now=mdm.world.at,
        )
        await tx.execute(
            "UPDATE mobile_apps_app SET state = 'published', product_code = %s, sha256 = 'ab',"
            " product_version = '1.0', size_bytes = 1 WHERE id = %s",
            (PRODUCT, made.id),
        )
        await mobile_apps.assign(tx, made.id, [group.id], [])
    return made.id


async def app_status(mdm: Mdm, app: str) -> dict[str, Any]:
    answer = await mdm.graph("GET", f"deviceAppManagement/mobileApps/{app}/deviceStatuses")
    (row,) = answer.json()["value"]
    return dict(row)


def alert(data: str, type: str = RESULT, source: str = f"{NODE}/DownloadInstall") -> Command:
    return Command("Alert", "5", (Item(source=source, data=data, type=type),), "1226")


# ------------------------------------------------------------------ inventory


async def test_what_a_device_says_of_itself_is_its_inventory(mdm: Mdm) -> None:
    """DevInfo comes by itself, DevDetail is asked for (section 12.1)."""
    device = await mdm.enrolled()
    device.nodes = {
        "./DevDetail/FwV": "1.2.3",
        "./DevDetail/Ext/Microsoft/ProcessorArchitecture": "9",
        "./DevDetail/Ext/Microsoft/TotalStorage": "512000",
    }
    asked = await device.begins()
    info = (Item(source="./DevInfo/Lang", data="fr-FR"), Item(source="./DevInfo/DmV", data="1.3"))
    await device.says(2, Command("Replace", "3", info), **device.replies(asked))
    found = (await known(mdm, device)).inventory
    assert (found["language"], found["dm_version"]) == ("fr-FR", "1.3")
    assert (found["firmware_version"], found["storage_mb"]) == ("1.2.3", "512000")
    assert found["processor_architecture"] == "9"


@pytest.mark.parametrize("serial", ["To be filled by O.E.M.", "System Serial Number", "0", ""])
async def test_a_placeholder_is_no_serial_number(mdm: Mdm, serial: str) -> None:
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": serial}
    await device.check_in()
    assert (await known(mdm, device)).inventory["serial_number"] == ""


async def test_results_for_what_was_not_asked_change_nothing(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    asked = await device.begins()
    made_up = (
        Results("50", "1", "4711", (Item(source=enrollment.CONFIG_INFO_URI, data="flags=1"),)),
        Results("51", "7", asked.commands[0].id, (Item(source="./DevDetail/SwV", data="9"),)),
    )
    answer = await device.says(2, results=made_up)
    assert [status.command for status in answer.statuses] == ["SyncHdr"], "results have no status"
    found = await known(mdm, device)
    assert (found.config_info, found.os_version) == ("", "10.0.22631.1")


# ------------------------------------------------------------------ who says it


async def test_a_session_that_names_another_device_is_refused(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    info = (Item(source="./DevInfo/DevId", data="F" * 32),)
    message = Message("1", 1, MANAGEMENT, device.windows_id, (Command("Replace", "2", info),))
    answer = await device.send(message)
    assert (answer.status_code, answer.content) == (401, b"")
    assert (await known(mdm, device)).seen_at is None


# ------------------------------------------------------------------ what became of commands


@pytest.mark.parametrize("code", [214, 215])
async def test_what_a_device_did_not_get_to_is_asked_again(mdm: Mdm, code: int) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device)
    await offered(mdm, device)
    device.codes = {"Replace": code, "Exec": code}
    first = [command.name for command in await device.check_in()]
    assert sorted(first) == ["Add", "Exec", "Replace"]
    device.codes = {}
    assert [command.name for command in await device.check_in()] == first
    async with mdm.database.transaction() as tx:
        assert (await sessions.deliveries(tx, device.id))[SETTING].code == 200


async def test_a_refusal_keeps_the_error_behind_it(mdm: Mdm) -> None:
    """Data's originalerror says more than the status (section 11.4)."""
    device = await mdm.enrolled()
    await configured(mdm, device)
    asked = await device.begins()
    work = await device.says(2, **device.replies(asked))
    raw = syncml.write(
        Message(
            str(device.session),
            3,
            MANAGEMENT,
            device.windows_id,
            statuses=(Status("2", "2", work.commands[0].id, "Replace", 500),),
        )
    ).replace(
        b"<Data>500",
        b'<Data xmlns:msft="http://schemas.microsoft.com/MobileDevice/MDM"'
        b' msft:originalerror="0x86000002">500',
    )
    mdm.peer.certificate = device.certificate
    answer = await mdm.management.post("/ManagementServer/MDM.svc", content=raw)
    assert answer.status_code == 200
    assert (await timeline(mdm, device))[0] == (
        f"{SETTING} refused by the device (status 500, 0x86000002)"
    )


async def test_a_failure_that_was_asked_for_has_its_code(mdm: Mdm) -> None:
    """When the alert was lost, Status and LastError tell (section 12.3)."""
    device = await mdm.enrolled()
    app = await offered(mdm, device)
    await device.check_in()
    device.nodes = {f"{NODE}/Status": "60", f"{NODE}/LastError": "-2147023293"}
    await device.check_in()
    status = await app_status(mdm, app)
    assert status["installState"] == "failed"
    assert status["errorCode"] & 0xFFFFFFFF == 0x80070643
    async with mdm.database.transaction() as tx:
        newest = (await enrollment.timeline(tx, device_id=device.id))[0]
    assert (newest.text, newest.code) == ("Client: failed", "0x80070643")


@pytest.mark.parametrize("data", ["9" * 30, "9" * 5000, "²", "", "0x80070643", "1.5", "-", "٣"])
async def test_a_code_that_is_none_changes_nothing(mdm: Mdm, data: str) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, device)
    await device.check_in()
    device.nodes = {f"{NODE}/Status": data, f"{NODE}/LastError": data}
    await device.check_in(alert(data))
    assert (await app_status(mdm, app))["installState"] == "installing"


async def test_an_app_that_was_deleted_meanwhile_does_not_break_the_session(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, device)
    asked = await device.begins()
    looks = await device.says(2, **device.replies(asked))
    assert [command.name for command in looks.commands] == ["Get"]
    work = await device.says(3, **device.replies(looks))
    assert [command.name for command in work.commands] == ["Add", "Exec"]
    await mdm.graph("DELETE", f"deviceAppManagement/mobileApps/{app}")
    await device.says(4, **device.replies(work))
    await device.check_in(alert("0"))


async def test_a_log_line_of_an_agent_holds_no_control_characters(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.agent("flags=0;agent=1;client=;policy=0;setup=308;code=5;log=No%00%1b%0aanswer")
    await device.check_in()
    assert (await timeline(mdm, device))[0] == "Client setup: state 308. Noanswer"


# ------------------------------------------------------------------ the conversation


async def test_news_in_a_message_of_the_same_form_is_no_repetition(mdm: Mdm) -> None:
    """A device that restarted counts from one again: what it says must not be taken for old."""
    device = await mdm.enrolled()
    app = await offered(mdm, device)
    await device.check_in()
    await device.begins(alert("7", "com.microsoft/MDM/LoginStatus"))
    device.session -= 1
    await device.begins(alert("0"))
    assert (await app_status(mdm, app))["installState"] == "installed"


async def test_a_device_that_breaks_off_gets_no_more_work(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device)
    asked = await device.begins()
    answer = await device.says(2, Command("Alert", "4", (), "1223"), **device.replies(asked))
    assert (answer.commands, answer.final) == ((), True)
    assert len(await device.check_in()) == 1, "it was not lost"
