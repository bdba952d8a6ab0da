"""Sessions that do not go smoothly: commands devices choke on, values in parts, limits, strays."""

from typing import Any

import pytest

from mdm_world import Mdm, TestDevice, new_id
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status
from tandem.tenant import enrollment, policies, sessions
from tandem.tenant.sessions import course

GRAPH = "deviceManagement/managedDevices"
ACCOUNT = f"./Vendor/MSFT/DMClient/Provider/{enrollment.PROVIDER_ID}"


async def configured(mdm: Mdm, device: TestDevice, *settings: str, value: str = "1") -> None:
    group = await mdm.group(new_id(), device.user.id)
    async with mdm.database.transaction() as tx:
        for setting in settings:
            mdm.world.wait(seconds=1)
            made = await policies.create(tx, setting, setting, value, mdm.world.at)
            await policies.assign(tx, made.id, [group.id], [])


async def timeline(mdm: Mdm, device: TestDevice) -> list[str]:
    async with mdm.database.transaction() as tx:
        return [event.text for event in await enrollment.timeline(tx, device_id=device.id)]


async def delivered(mdm: Mdm, device: TestDevice) -> set[str]:
    async with mdm.database.transaction() as tx:
        return set(await sessions.deliveries(tx, device.id))


async def held(mdm: Mdm, device: TestDevice) -> list[tuple[str, int]]:
    async with mdm.database.transaction() as tx:
        return [(one.subject, one.code) for one in await sessions.holds(tx, device.id)]


def targets(answer: Message) -> list[str]:
    return [c.items[0].target.rpartition("/Config/")[2] for c in answer.commands if c.items]


async def dying_at(device: TestDevice, poison: str) -> list[str]:
    """A session of a device that dies when it reads this target. What it was sent with it."""
    answer = await device.begins()
    while answer.commands:
        if any(target == poison for target in targets(answer)):
            return targets(answer)
        answer = await device.says(answer.number + 1, **device.replies(answer))
    return []


# ------------------------------------------------------------------ poison


async def test_a_command_at_which_a_device_dies_is_set_aside_and_the_rest_goes_on(
    mdm: Mdm,
) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device, "A/First", "B/Poison", "C/Last")
    together = [await dying_at(device, "B/Poison") for _ in range(2)]
    assert [len(sent) for sent in together] == [3, 3]
    for _ in range(3):
        assert await dying_at(device, "B/Poison") == ["B/Poison"], "alone, to be sure"
    assert await delivered(mdm, device) == {"A/First"}
    assert await dying_at(device, "B/Poison") == []
    assert await delivered(mdm, device) == {"A/First", "C/Last"}
    assert await held(mdm, device) == [("B/Poison", 0)]
    assert any("B/Poison is set aside" in line for line in await timeline(mdm, device))


async def test_what_is_set_aside_is_seen_and_released_through_graph(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device, "A/Odd", "B/Good")
    device.codes["Replace"] = 400
    await device.check_in()
    device.codes.clear()
    assert await device.check_in() == []
    found = (await mdm.graph("GET", f"{GRAPH}/{device.id}/setAsideCommands")).json()["value"]
    assert {(item["subject"], item["status"]) for item in found} == {
        ("A/Odd", 400),
        ("B/Good", 400),
    }
    assert found[0]["reason"].startswith("the device does not understand")
    everywhere = (await mdm.graph("GET", "tandem/setAsideCommands")).json()["value"]
    assert {item["deviceName"] for item in everywhere} == {"PC-Alex"}
    body = {"kind": "setting", "subject": "A/Odd"}
    answer = await mdm.graph("POST", f"{GRAPH}/{device.id}/releaseCommands", body)
    assert (answer.status_code, answer.json()["value"]) == (200, 1)
    assert await held(mdm, device) == [("B/Good", 400)]
    sent = [
        command.items[0].target.rpartition("/Config/")[2] for command in await device.check_in()
    ]
    assert sent == ["A/Odd"], "it comes now, and not a day later"


async def test_a_released_setting_is_sent_again(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device, "B/Poison")
    for _ in range(6):
        await dying_at(device, "B/Poison")
    assert await device.check_in() == []
    async with mdm.database.transaction() as tx:
        assert await mdm.sessions.release(tx, device.id) == 1
    assert [c.items[0].target.rpartition("/")[2] for c in await device.check_in()] == ["Poison"]


async def test_a_message_that_the_device_refuses_as_a_whole_is_tried_in_parts(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device, "A/First", "B/Poison", "C/Last")
    answer = await device.begins()
    refusals = 0
    while answer.commands and answer.number < 20:
        replies = device.replies(answer)
        if "B/Poison" in targets(answer):
            refusals += 1
            whole = Status("1", str(answer.number), "0", "SyncHdr", 500)
            replies = {"statuses": (whole,)}
        answer = await device.says(answer.number + 1, **replies)
    assert refusals == 5
    assert await delivered(mdm, device) == {"A/First", "C/Last"}
    assert await held(mdm, device) == [("B/Poison", 0)]


# ------------------------------------------------------------------ what messages hold


async def test_answers_stay_below_what_the_device_announces(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device, *(f"Area{n}/Name" for n in range(12)), value="x" * 900)
    device.session += 1
    hello = Command("Alert", "2", (), "1201")
    answer = await device.says(1, hello, max_size=5000)
    most, work = 0, 0
    while answer.commands:
        most = max(most, len(syncml.write(answer)))
        replies = device.replies(answer)
        answer = await device.says(answer.number + 1, **replies)
        work += sum(1 for c in answer.commands if c.name == "Replace")
    assert most <= 5000
    assert work == 12
    assert len(await delivered(mdm, device)) == 12


async def test_a_value_larger_than_the_devices_messages_is_set_aside_with_its_reason(
    mdm: Mdm,
) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device, "A/Large", value="x" * 4000)
    await configured(mdm, device, "B/Small")
    device.session += 1
    answer = await device.says(1, Command("Alert", "2", (), "1201"), max_size=4096)
    while answer.commands:
        answer = await device.says(answer.number + 1, **device.replies(answer))
    assert await delivered(mdm, device) == {"B/Small"}
    assert await held(mdm, device) == [("A/Large", 413)]


def part(answer: Message, data: str, *, more: bool, size: int = 0, at: int = 0) -> dict[str, Any]:
    """Part of the answer to a question of this message."""
    command = answer.commands[at]
    item = Item(source=command.items[0].target, data=data, more=more, size=size)
    results = Results("7", str(answer.number), command.id, (item,))
    header = Status("1", str(answer.number), "0", "SyncHdr", 200)
    return {"statuses": (header,), "results": (results,), "final": not more}


def asked(answer: Message, node: str) -> int:
    return next(n for n, c in enumerate(answer.commands) if c.items[0].target.endswith(node))


async def test_a_result_in_parts_is_one_result(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    begun = await device.begins()
    at = asked(begun, "DevDetail/OEM")
    more = await device.says(2, **part(begun, "Con", more=True, size=7, at=at))
    assert [(s.command, s.code) for s in more.statuses] == [("SyncHdr", 200), ("Results", 213)]
    assert [(c.name, c.data) for c in more.commands] == [("Alert", "1222")]
    more = await device.says(3, **part(begun, "to", more=True, at=at))
    assert [c.data for c in more.commands] == ["1222"]
    await device.says(4, **part(begun, "so", more=False, at=at))
    async with mdm.database.transaction() as tx:
        found = await enrollment.device(tx, device.id)
    assert found.inventory["manufacturer"] == "Contoso"


@pytest.mark.parametrize(
    ("size", "rest", "code"),
    [(5, "tosoooo", 424), (90, "so", 424), (course.OBJECT_BYTES + 1, "", 413), (0, "", 411)],
)
async def test_parts_that_do_not_add_up_are_refused_and_the_session_goes_on(
    mdm: Mdm, size: int, rest: str, code: int
) -> None:
    device = await mdm.enrolled()
    begun = await device.begins()
    at = asked(begun, "DevDetail/FwV")
    answer = await device.says(2, **part(begun, "Con", more=True, size=size, at=at))
    number = 3
    if rest:
        answer = await device.says(3, **part(begun, rest, more=False, at=at))
        number = 4
    assert [s.code for s in answer.statuses if s.command == "Results"] == [code]
    assert not [c for c in answer.commands if c.name == "Alert"]
    await device.says(number, **device.replies(begun))
    async with mdm.database.transaction() as tx:
        found = await enrollment.device(tx, device.id)
    assert "firmware_version" not in found.inventory


async def test_an_object_without_its_end_and_a_second_one_are_told_so(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    begun = await device.begins()
    oem, version = asked(begun, "DevDetail/OEM"), asked(begun, "DevDetail/SwV")
    await device.says(2, **part(begun, "Con", more=True, size=9, at=oem))
    answer = await device.says(3, **part(begun, "10.", more=True, size=9, at=version))
    assert [c.data for c in answer.commands] == ["1225", "1222"]
    answer = await device.says(4, **device.replies(begun))
    assert [c.data for c in answer.commands if c.name == "Alert"] == ["1225"]


# ------------------------------------------------------------------ limits and order


async def test_messages_out_of_order_are_not_heard_and_not_said_to_be(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    begun = await device.begins()
    info = Command("Replace", "3", (Item(source="./DevInfo/Man", data="Later"),))
    answer = await device.says(5, info, **device.replies(begun))
    assert [(s.command, s.code) for s in answer.statuses] == [("SyncHdr", 200), ("Replace", 215)]
    assert answer.commands == ()
    device.session += 5
    answer = await device.says(2, info)
    assert [s.code for s in answer.statuses] == [200, 215]
    async with mdm.database.transaction() as tx:
        found = await enrollment.device(tx, device.id)
    assert found.inventory["manufacturer"] == "Contoso"


async def test_a_session_ends_when_it_costs_too_much(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    begun = await device.begins()
    item = Item(source="./DevInfo/Man", data="x")
    many = Command("Replace", "3", (item,) * 9_000)
    answer = await device.says(2, many, **device.replies(begun))
    assert answer.statuses[0].code == 200
    answer = await device.says(3, many)
    assert [s.code for s in answer.statuses] == [413, 215]
    answer = await device.says(3, many)
    assert [s.code for s in answer.statuses] == [413, 215]
    assert (await device.begins()).statuses[0].code == 200, "the next session is another"


async def test_a_device_has_nothing_to_ask_here(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await device.begins()
    get = Command("Get", "4", (Item(target="./DevInfo/DevId"),))
    group = Command("Sequence", "5", children=(Command("Alert", "6", (), "1224"),))
    answer = await device.says(2, get, group)
    assert [(s.command, s.code) for s in answer.statuses[1:]] == [
        ("Get", 406),
        ("Sequence", 200),
        ("Alert", 200),
    ]


# ------------------------------------------------------------------ the account


def knows_its_account(device: TestDevice, **poll: str) -> None:
    device.nodes |= {
        f"{ACCOUNT}/MaxSyncApplicationVersion": "5.0",
        f"{ACCOUNT}/SyncApplicationVersion": "1.0",
        **{f"{ACCOUNT}/Poll/{name}": value for name, value in poll.items()},
    }


async def test_the_first_session_sets_the_account_right(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    knows_its_account(device, NumberOfFirstRetries="10", IntervalForFirstSetOfRetries="15")
    work = await device.check_in()
    written = {
        item.items[0].target.removeprefix(f"{ACCOUNT}/"): item.items[0].data
        for command in work
        for item in command.each
        if item.items
    }
    assert written == {
        "SyncApplicationVersion": "4.0",
        "EnableOmaDmKeepAliveMessage": "true",
        "Poll/NumberOfFirstRetries": "8",
        "Poll/IntervalForFirstSetOfRetries": "3",
        "Poll/NumberOfSecondRetries": "8",
        "Poll/IntervalForSecondSetOfRetries": "15",
        "Poll/NumberOfRemainingScheduledRetries": "0",
        "Poll/IntervalForRemainingScheduledRetries": "480",
    }
    assert [c.name for c in work if c.children] == ["Atomic"], "half a schedule is none"


async def test_a_version_never_goes_back_and_what_is_right_is_left_alone(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    knows_its_account(
        device,
        NumberOfFirstRetries="8",
        IntervalForFirstSetOfRetries="3",
        NumberOfSecondRetries="8",
        IntervalForSecondSetOfRetries="15",
        NumberOfRemainingScheduledRetries="0",
        IntervalForRemainingScheduledRetries="480",
    )
    device.nodes[f"{ACCOUNT}/SyncApplicationVersion"] = "5.0"
    device.nodes[f"{ACCOUNT}/EnableOmaDmKeepAliveMessage"] = "true"
    assert await device.check_in() == []


async def test_what_a_device_can_do_is_asked_once_for_each_build(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.nodes = {
        "./DevDetail/SwV": "10.0.26100.1",
        "./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": "S1",
        "./Device/Vendor/MSFT/DeviceManageability/Capabilities/CSPVersions": (
            '<?xml version="1.0"?><DeviceManageability><Capabilities><CSPVersions>'
            '<CSP Node="./Device/Vendor/MSFT/BitLocker" Version="5.0"/></CSPVersions>'
            "</Capabilities></DeviceManageability>"
        ),
    }
    await device.check_in()
    answer = await mdm.graph("GET", f"{GRAPH}/{device.id}/capabilities")
    assert answer.status_code == 200, answer.text
    assert answer.json()["osVersion"] == "10.0.26100.1"
    assert answer.json()["csps"] == [{"node": "./Device/Vendor/MSFT/BitLocker", "version": "5.0"}]
    mdm.world.wait(hours=25)
    assert "CSPVersions" not in str((await device.begins()).commands)
    device.nodes["./DevDetail/SwV"] = "10.0.26200.1"
    await device.check_in()
    mdm.world.wait(hours=25)
    assert "CSPVersions" in str((await device.begins()).commands)


# ------------------------------------------------------------------ devices that have left


async def gone(mdm: Mdm, device: TestDevice) -> None:
    async with mdm.database.transaction() as tx:
        await mdm.enrollment.end(tx, await enrollment.device(tx, device.id), "test")


async def calls(device: TestDevice, *commands: Command) -> Any:
    device.session += 1
    message = Message(
        str(device.session), 1, "https://m", device.windows_id,
        (Command("Alert", "2", (), "1201"), *commands),
    )  # fmt: skip
    return await device.send(message)


async def test_a_device_that_has_left_and_calls_can_be_told_to_leave(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, device, "A/B")
    await gone(mdm, device)
    for _ in range(2):
        answer = await calls(device)
        assert (answer.status_code, answer.content) == (401, b"")
    (listed,) = (await mdm.graph("GET", "tandem/strayDevices")).json()["value"]
    assert (listed["id"], listed["deviceName"], listed["calls"]) == (device.id, "PC-Alex", 2)
    assert (await mdm.graph("POST", f"tandem/strayDevices/{device.id}/unenroll")).status_code == 204
    answer = await calls(device)
    assert answer.status_code == 200
    (only,) = syncml.read(answer.content).commands
    assert (only.name, only.items[0].target.rpartition("/")[2]) == ("Exec", "Unenroll")
    leaving = Item(data="1", type="com.microsoft:mdm.unenrollment.userrequest", format="int")
    answer = await calls(device, Command("Alert", "3", (leaving,), "1226"))
    assert syncml.read(answer.content).commands == ()
    assert (await mdm.graph("GET", "tandem/strayDevices")).json()["value"] == []
    assert (await calls(device)).status_code == 401


async def test_only_a_device_that_calls_can_be_told_to_leave(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    path = f"tandem/strayDevices/{device.id}/unenroll"
    assert (await mdm.graph("POST", path)).status_code == 404
