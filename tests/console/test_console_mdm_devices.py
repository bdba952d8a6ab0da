"""The tenant's devices: lists, pages, orders to one and to many, over a real MDM service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lxml import html
from mdm_console import Browser, main_text, served, text, world

from mdm_world import Mdm, TestDevice
from tandem.infra.database import Database
from tandem.tenant import directory, policies

SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made:
        yield made


@pytest.fixture
def mdm(both: tuple[Mdm, Browser]) -> Mdm:
    return both[0]


@pytest.fixture
def browser(both: tuple[Mdm, Browser]) -> Browser:
    return both[1]


async def fleet(mdm: Mdm) -> dict[str, TestDevice]:
    return {
        name: await mdm.enrolled(name, f"{number:032X}")
        for number, name in enumerate(("ada", "bob", "eve"), 1)
    }


async def test_enrolled_and_joined_devices_are_listed_apart(mdm: Mdm, browser: Browser) -> None:
    await fleet(mdm)
    zoe = await mdm.world.user("zoe")
    joined = await mdm.world.joined(zoe.user_principal_name, "LAB-ZOE")
    shown = await browser.text("/console/devices")
    assert "3 devices" in shown
    assert "LAB-ZOE" not in shown
    shown = await browser.text("/console/devices?view=joined")
    assert "LAB-ZOE" in shown
    assert "PC-Ada" not in shown
    assert "Joined, not enrolled" in await browser.text(f"/console/devices/{joined.device_id}")
    to = await browser.goes(f"/console/devices/{joined.device_id}/delete", {"confirmed": "1"})
    assert to == "/console/devices?view=joined"
    assert "LAB-ZOE was deleted" in await browser.text(to)


async def test_the_list_is_searched_filtered_sorted_and_exported(
    mdm: Mdm, browser: Browser
) -> None:
    await fleet(mdm)
    assert "1 device" in await browser.text("/console/devices?search=pc-b")
    assert "1 device" in await browser.text("/console/devices?search=eve@")
    assert "3 devices" in await browser.text("/console/devices?agent=mdm&compliance=unknown")
    assert "0 devices" in await browser.text("/console/devices?silent=7")
    assert "0 devices" in await browser.text("/console/devices?search=' or 1 eq 1")
    page = await browser.get("/console/devices?sort=deviceName&descending=1")
    names = [text(item) for item in page.xpath("//tbody/tr/th")]
    assert names == ["PC-Eve", "PC-Bob", "PC-Ada"]
    file = await browser.client.get("/console/devices.csv?search=pc-a")
    assert len(file.text.strip().splitlines()) == 2
    assert "ada@contoso.com" in file.text
    mdm.world.wait(hours=1)
    assert "3 devices" in await browser.text("/console/devices?sort=nonsense&page=999999999")


async def test_each_part_of_a_device_has_its_page(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await policies.create(tx, "Lock", SETTING, "15", mdm.world.at)
        await policies.assign(tx, made.id, [group.id], [])
    base = f"/console/devices/{device.id}"
    assert "Waits for the next check-in" in await browser.text(f"{base}/configuration")
    await device.check_in()
    shown = await browser.text(base)
    assert "PC-Alex" in shown
    assert device.joined.device_id in shown
    assert "In force" in await browser.text(f"{base}/configuration")
    assert "Enrolled in MDM by alex@contoso.com" in await browser.text(f"{base}/timeline")
    assert "No app is assigned to this device" in await browser.text(f"{base}/apps")
    assert "not evaluated" in await browser.text(f"{base}/compliance")
    assert "has no policy on this device" in await browser.text(f"{base}/comanagement")
    device.agent("flags=8193;agent=5.0;client=GUID:1;policy=1")
    await device.check_in()
    shown = await browser.text(f"{base}/comanagement")
    assert "GUID:1" in shown
    assert "Compliance policiesSite" in shown
    assert "Co-managed" in await browser.text(base)
    # The directory's id leads there too.
    assert "PC-Alex" in await browser.text(f"/console/devices/{device.joined.device_id}")
    await browser.get("/console/devices/nobody", 404)
    await browser.get(f"{base}/nothing", 404)


async def test_what_is_written_about_a_device_is_kept(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    base = f"/console/devices/{device.id}"
    page = await browser.get(f"{base}/properties")
    assert page.xpath("//input[@name='managedDeviceOwnerType'][@checked]/@value") == ["company"]
    answer = await browser.post(f"{base}/properties", {"notes": "x"})
    assert answer.status_code == 422
    values = {
        "managedDeviceName": "Reception",
        "managedDeviceOwnerType": "personal",
        "notes": "Front desk",
    }
    assert await browser.goes(f"{base}/properties", values) == base
    shown = await browser.text(base)
    assert "Front desk" in shown
    assert "Personal" in shown
    assert "1 device" in await browser.text("/console/devices?owner=personal")


async def test_an_order_names_the_device_and_is_followed_to_its_end(
    mdm: Mdm, browser: Browser
) -> None:
    device = await mdm.enrolled()
    base = f"/console/devices/{device.id}"
    shown = await browser.text(f"{base}/actions/wipe")
    for said in (
        "For 1 device:",
        "PC-Alex",
        "alex@contoso.com",
        "Everything on the device is lost",
    ):
        assert said in shown
    answer = await browser.post(f"{base}/actions/setDeviceName", {"deviceName": "a b"})
    assert answer.status_code == 422
    page = html.fromstring(answer.content)
    assert page.xpath("//input[@id='deviceName']/@aria-invalid") == ["true"]
    assert "no name of a Windows computer" in text(page)
    to = await browser.goes(f"{base}/actions/setDeviceName", {"deviceName": "LAB-1"})
    assert to == base
    shown = await browser.text(base)
    assert "Rename was ordered for PC-Alex" in shown
    assert "Waits for the next check-in" in shown
    await device.check_in()
    await device.check_in()
    assert "Done" in main_text(await browser.get(base))
    await browser.goes(f"{base}/actions/retire")
    assert "Leaves at its next check-in" in await browser.text(base)
    await browser.get(f"{base}/actions/explode", 404)


async def test_one_order_for_many_is_named_and_has_a_result_for_each(
    mdm: Mdm, browser: Browser
) -> None:
    devices = await fleet(mdm)
    ids = [devices["ada"].id, devices["bob"].id]
    assert await browser.goes("/console/devices/bulk", {"action": "wipe"}) == "/console/devices"
    answer = await browser.post("/console/devices/bulk", {"action": "wipe", "device": ids})
    page = html.fromstring(answer.content)
    assert answer.status_code == 200
    assert "For 2 devices:" in text(page)
    assert "ada@contoso.com, bob@contoso.com" in text(page)
    form = {"action": "wipe", "device": ids, "confirmed": "1", "keepEnrollmentData": "1"}
    assert await browser.goes("/console/devices/bulk", form) == "/console/device-actions"
    page = await browser.get("/console/device-actions")
    assert len(page.xpath("//tbody/tr")) == 2
    work = [item.items[0].target for item in await devices["ada"].check_in()]
    assert any("doWipePersistProvisionedData" in target for target in work)
    assert await devices["eve"].check_in() == []
    assert "PC-Bob is being wiped" in await browser.text("/console/notifications")
    form = {"action": "syncDevice", "device": [*ids, "gone' or 1"], "confirmed": "1"}
    answer = await browser.post("/console/devices/bulk", form)
    page = html.fromstring(answer.content)
    assert len(page.xpath("//tbody/tr")) == 3
    assert "Ordered" in text(page)
    assert "This device is not there any more" in text(page)


async def test_a_wipe_is_held_back_shown_with_its_minutes_and_cancelled(
    mdm: Mdm, browser: Browser
) -> None:
    device = await mdm.enrolled()
    base = f"/console/devices/{device.id}"
    answer = await mdm.graph("PATCH", "tandem/actionSafeguards", {"holdMinutes": 10})
    assert answer.status_code == 200
    shown = await browser.text(f"{base}/actions/wipe")
    assert "You may do this to 5 more devices in this hour." in shown
    assert "It can be cancelled for 10 minutes." in shown
    await browser.goes(f"{base}/actions/wipe", {"reason": "Lost"})
    page = await browser.get(base)
    assert "Can be cancelled for 10 more minutes." in text(page)
    (to,) = page.xpath("//form[contains(@action, '/orders/')]/@action")
    assert await browser.goes(to) == base
    assert "Cancelled by admin@contoso.com." in await browser.text(base)
    for _ in range(4):
        await browser.goes(f"{base}/actions/wipe")
        page = await browser.get(base)
        await browser.goes(page.xpath("//form[contains(@action, '/orders/')]/@action")[0])
    answer = await browser.post(f"{base}/actions/wipe")
    assert answer.status_code == 422
    assert "0 of 5 are left" in text(html.fromstring(answer.content))


async def test_a_second_administrator_approves_on_a_page_that_names_them_all(
    mdm: Mdm, browser: Browser
) -> None:
    devices = await fleet(mdm)
    ids = [devices[name].id for name in ("ada", "bob")]
    answer = await mdm.graph("PATCH", "tandem/actionSafeguards", {"approvalAbove": 1})
    assert answer.status_code == 200
    form = {"action": "wipe", "device": ids, "confirmed": "1"}
    answer = await browser.post("/console/devices/bulk", form)
    assert answer.status_code == 422
    page = html.fromstring(answer.content)
    assert "A second administrator has to approve it." in text(page)
    assert page.xpath("//textarea[@id='reason']/@aria-invalid") == ["true"]
    form["reason"] = "Stolen"
    assert await browser.goes("/console/devices/bulk", form) == "/console/device-actions"
    page = await browser.get("/console/device-actions")
    assert "Wipe: 2 devices, 2 users" in text(page)
    (to,) = page.xpath("//a[contains(@href, '/approve')]/@href")
    assert "PC-Ada" in await browser.text(to)
    answer = await browser.post(to)
    assert answer.status_code == 422
    assert "another administrator has to approve it" in answer.text

    sam = await mdm.world.user("sam")
    async with mdm.database.transaction() as tx:
        await directory.grant_role(tx, directory.INTUNE_ADMINISTRATOR, sam.id)
    async with served(mdm, sam.user_principal_name) as other:
        assert "asks to do something to 2 devices" in await other.text("/console/notifications")
        assert await other.goes(to) == "/console/device-actions"
        changed = {
            "budgetPerHour": "50",
            "approvalAbove": "1",
            "holdMinutes": "0",
            "approvalHours": "72",
        }
        path = "/console/device-actions/safeguards"
        assert await other.goes(path, changed) == path
        assert "5 → 50" in await other.text(path)
        assert (await other.post(f"{path}/approve")).status_code == 403
        bad = {**changed, "approvalAbove": "99"}
        assert (await other.post(path, bad)).status_code == 422
    (form,) = (await browser.get(path)).xpath("//form[contains(@action, 'safeguards/approve')]")
    proposed = {item.get("name"): item.get("value") for item in form.xpath(".//input")}
    assert proposed.items() >= changed.items(), "what is approved is what the page shows"
    stale = await browser.post(f"{path}/approve", {**changed, "budgetPerHour": "9"})
    assert stale.status_code == 409
    assert await browser.goes(f"{path}/approve", changed) == path
    assert len(await devices["ada"].check_in()) == 1


async def test_who_may_only_read_orders_nothing(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    ada = await mdm.world.user("ada")
    async with mdm.database.transaction() as tx:
        await directory.grant_role(tx, directory.GLOBAL_READER, ada.id)
    async with served(mdm, ada.user_principal_name) as reader:
        assert "PC-Alex" in await reader.text("/console/devices")
        answer = await reader.post(f"/console/devices/{device.id}/actions/rebootNow")
        assert answer.status_code == 403
        form = {"action": "rebootNow", "device": [device.id], "confirmed": "1"}
        answer = await reader.post("/console/devices/bulk", form)
        assert "Ordered" not in answer.text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "=cmd|' /C calc'!A0", "\u202eexe"])
async def test_what_a_device_calls_itself_is_text(mdm: Mdm, browser: Browser, name: str) -> None:
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        await tx.execute("UPDATE enrollment_device SET name = %s WHERE id = %s", (name, device.id))
    for path in ("/console/devices", f"/console/devices/{device.id}"):
        answer = await browser.client.get(path)
        assert "<script>alert" not in answer.text
        assert name in text(html.fromstring(answer.content))
    file = await browser.client.get("/console/devices.csv")
    assert not any(line.startswith(("=", '"=')) for line in file.text.splitlines())


async def test_a_device_is_found_by_search(mdm: Mdm, browser: Browser) -> None:
    await mdm.enrolled()
    assert "PC-Alex" in main_text(await browser.get("/console/search?q=pc-al"))
