"""What did not go as it should, on the tenant's pages: set aside, left and calling, overdue."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mdm_console import Browser, main_text, served, text, world
from test_console_my_apps import offered

from mdm_world import Mdm, TestDevice
from tandem.infra.database import Database
from tandem.protocols.syncml import Command, Message
from tandem.tenant import directory, enrollment, policies

STRAYS = "/console/stray-devices"


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made:
        yield made


async def refusing(mdm: Mdm, *settings: str) -> TestDevice:
    """A device that does not understand the commands for these."""
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        for setting in settings:
            made = await policies.create(tx, setting, setting, "1", mdm.world.at)
            await policies.assign(tx, made.id, [group.id], [])
    device.codes["Replace"] = 400
    await device.check_in()
    device.codes.clear()
    assert await device.check_in() == []
    return device


async def calls(device: TestDevice) -> int:
    """A session of a device that is enrolled no more; its status."""
    device.session += 1
    hello = Command("Alert", "2", (), "1201")
    message = Message(str(device.session), 1, "https://m", device.windows_id, (hello,))
    return (await device.send(message)).status_code


async def left(mdm: Mdm, name: str = "alex") -> TestDevice:
    device = await mdm.enrolled(name, f"{3:032X}")
    async with mdm.database.transaction() as tx:
        await mdm.enrollment.end(tx, await enrollment.device(tx, device.id), "test")
    return device


async def reader(mdm: Mdm) -> str:
    ada = await mdm.world.user("ada")
    async with mdm.database.transaction() as tx:
        await directory.grant_role(tx, directory.GLOBAL_READER, ada.id)
    return ada.user_principal_name


async def test_what_is_set_aside_is_shown_with_its_reason_and_released(
    both: tuple[Mdm, Browser],
) -> None:
    mdm, browser = both
    device = await refusing(mdm, "A/Odd", "B/Good")
    base = f"/console/devices/{device.id}"
    page = await browser.get(base)
    shown = main_text(page)
    assert "Set aside" in shown
    assert "the device does not understand the command (status 400)" in shown
    told = await browser.text("/console/notifications")
    assert "PC-Alex does not get everything: set aside are 2" in told
    (one,) = page.xpath("//a[normalize-space()='Release A/Odd']/@href")
    asked = main_text(await browser.get(one))
    assert "Release for PC-Alex?" in asked
    assert "Setting: A/Odd" in asked
    assert "B/Good" not in asked
    assert await device.check_in() == [], "to look at the question releases nothing"
    assert "comes at the device's next check-in" in await browser.text(await browser.goes(one))
    sent = [
        command.items[0].target.rpartition("/Config/")[2] for command in await device.check_in()
    ]
    assert sent == ["A/Odd"]
    shown = main_text(await browser.get(base))
    assert "Release B/Good" in shown
    assert "Release A/Odd" not in shown
    # Twice, or late: nothing is there any more.
    assert "Nothing is set aside any more" in await browser.text(await browser.goes(one))
    assert await browser.goes(f"{base}/release") == base
    assert "Set aside" not in main_text(await browser.get(base))
    assert (await browser.client.get(f"{base}/release")).headers["location"] == base
    await browser.get("/console/devices/nobody/release", 404)


async def test_an_app_that_is_set_aside_is_called_by_its_name_and_offered_anew(
    both: tuple[Mdm, Browser], tmp_path: Path
) -> None:
    mdm, browser = both
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    await offered(mdm, tmp_path, device, required=group.id)
    device.codes["Exec"] = 400
    for _ in range(2):
        await device.check_in()
    device.codes.clear()
    assert await device.check_in() == []
    base = f"/console/devices/{device.id}"
    page = await browser.get(base)
    assert "Installation of an appEditor" in main_text(page)
    (to,) = page.xpath("//a[normalize-space()='Release Editor']/@href")
    assert await browser.goes(to) == base
    assert [command.name for command in await device.check_in()] == ["Add", "Exec"]


async def test_the_reason_is_said_in_french(both: tuple[Mdm, Browser]) -> None:
    mdm, browser = both
    device = await refusing(mdm, "A/Odd")
    shown = await browser.text(f"/console/devices/{device.id}", **{"accept-language": "fr"})
    assert "Mis de côté" in shown
    assert "l’appareil ne comprend pas la commande (état 400)" in shown


async def test_of_a_device_that_has_left_nothing_is_set_aside(both: tuple[Mdm, Browser]) -> None:
    mdm, browser = both
    device = await refusing(mdm, "A/Odd")
    assert "does not get everything" in await browser.text("/console/notifications")
    async with mdm.database.transaction() as tx:
        await mdm.enrollment.end(tx, await enrollment.device(tx, device.id), "test")
    assert "does not get everything" not in await browser.text("/console/notifications")
    assert (await mdm.graph("GET", "tandem/setAsideCommands")).json()["value"] == []


async def test_who_may_only_read_releases_and_tells_nothing(both: tuple[Mdm, Browser]) -> None:
    mdm, _ = both
    device = await refusing(mdm, "A/Odd")
    async with served(mdm, await reader(mdm)) as other:
        base = f"/console/devices/{device.id}"
        assert "Set aside" in await other.text(base)
        assert (await other.post(f"{base}/release")).status_code == 403
        assert "Set aside" in await other.text(base)
        assert (await other.post(f"{STRAYS}/{device.id}/leave")).status_code == 403


async def test_a_device_that_left_and_calls_is_told_to_leave(both: tuple[Mdm, Browser]) -> None:
    mdm, browser = both
    assert "No device that has left calls" in await browser.text(STRAYS)
    device = await left(mdm)
    assert [await calls(device) for _ in range(2)] == [401, 401]
    page = await browser.get(STRAYS)
    assert "PC-Alex 2 " in main_text(page)
    assert "Calls in vain" in main_text(page)
    (to,) = page.xpath("//main//a[contains(@href, '/leave')]/@href")
    assert "Tell PC-Alex to leave?" in await browser.text(to)
    assert await calls(device) == 401, "to look at the question tells nothing"
    assert await browser.goes(to) == STRAYS
    assert "Is told at its next call" in await browser.text(STRAYS)
    assert await calls(device) == 200
    assert "Was told to leave" in await browser.text(STRAYS)
    assert (await browser.post(f"{STRAYS}/nobody/leave")).status_code == 404
    gone = await browser.client.get(f"{STRAYS}/nobody/leave")
    assert gone.headers["location"] == STRAYS
    french = await browser.text(STRAYS, **{"accept-language": "fr"})
    assert "Appareils partis qui appellent" in french


async def test_a_device_is_overdue_after_two_polls_and_a_day(both: tuple[Mdm, Browser]) -> None:
    mdm, _ = both
    device = await mdm.enrolled()
    await device.check_in()
    mdm.world.wait(hours=39, minutes=59)
    async with served(mdm) as early:
        assert "0 devices" in await early.text("/console/devices?overdue=1")
        assert "Overdue since" not in await early.text(f"/console/devices/{device.id}")
        mdm.world.wait(minutes=2)
        other = await mdm.enrolled("bob", f"{2:032X}")
        await one_is_overdue(mdm, early, device, other)
        await device.check_in()
        assert "0 devices" in await early.text("/console/devices?overdue=1")


async def one_is_overdue(mdm: Mdm, browser: Browser, device: TestDevice, other: TestDevice) -> None:
    page = await browser.get("/console/devices")
    rows = {text(row.xpath("th")[0]): text(row.xpath("td")[-1]) for row in page.xpath("//tbody/tr")}
    assert rows["PC-Alex"].endswith("Overdue")
    assert not rows["PC-Bob"].endswith("Overdue")
    shown = await browser.text("/console/devices?overdue=1&search=pc-")
    assert "1 device" in shown
    file = await browser.client.get("/console/devices.csv?overdue=1")
    assert len(file.text.strip().splitlines()) == 2
    shown = main_text(await browser.get(f"/console/devices/{device.id}"))
    assert "Overdue: it should have checked in" in shown
    assert "Overdue since" in shown
    assert "Overdue" not in main_text(await browser.get(f"/console/devices/{other.id}"))
    listed = (await mdm.graph("GET", "tandem/overdueDevices")).json()["value"]
    assert [item["deviceName"] for item in listed] == ["PC-Alex"]
    assert (await mdm.graph("DELETE", f"tandem/overdueDevices/{device.id}")).status_code == 405
