"""Sessions that need no computing, and everything that ends their quiet, over the service's own endpoint."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from mdm_world import ORDERING, Mdm, TestDevice, new_id
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Status
from tandem.tenant import directory, licensing, policies, sessions
from tandem.tenant.enrollment import CONFIG_INFO_URI

SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"
AGENT = "flags=8201;agent=1.0;client=GUID:1;policy=1"


@pytest.fixture
async def quiet(mdm: Mdm, monkeypatch: pytest.MonkeyPatch) -> tuple[TestDevice, list[bool]]:
    """A device to which nothing new happens, and for each message whether it was answered so."""
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": "S1", CONFIG_INFO_URI: AGENT}
    await device.check_in()
    await device.check_in()
    found: list[bool] = []
    quietly = mdm.sessions.quietly

    async def watched(*given: object) -> bytes | None:
        answer = await quietly(*given)  # type: ignore[arg-type]
        found.append(answer is not None)
        return answer

    monkeypatch.setattr(mdm.sessions, "quietly", watched)
    return device, found


async def test_a_session_without_news_is_answered_as_a_computed_one_is(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, found = quiet
    mdm.world.wait(hours=1)
    answers = [await device.begins()]
    answers.append(await device.says(2, **device.replies(answers[0])))
    assert found == [True, True]
    assert [[item.name for item in one.commands] for one in answers] == [["Get"], []]
    known = (await mdm.graph("GET", f"deviceManagement/managedDevices/{device.id}")).json()
    assert known["lastSyncDateTime"] == mdm.world.at.strftime("%Y-%m-%dT%H:%M:%SZ")

    async def never(*_: object) -> None:
        return None

    monkeypatch.setattr(mdm.sessions, "quietly", never)
    computed = [await device.begins()]
    computed.append(await device.says(2, **device.replies(computed[0])))
    assert [(one.commands, one.statuses) for one in computed] == [
        (one.commands, one.statuses) for one in answers
    ]


async def test_a_lost_answer_of_a_quiet_session_is_given_again(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet
    device.session += 1
    hello = Message(
        str(device.session), 1, "", device.windows_id, (Command("Alert", "2", (), "1201"),)
    )
    first, again = await device.send(hello), await device.send(hello)
    assert (first.content, found) == (again.content, [True, False])
    reply = Message(
        str(device.session), 2, "", device.windows_id, **device.replies(syncml.read(first.content))
    )
    second, again = await device.send(reply), await device.send(reply)
    assert (second.content, found[2:]) == (again.content, [True, False])


async def _assigned(mdm: Mdm, device: TestDevice) -> None:
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await policies.create(tx, new_id(), SETTING, "15", mdm.world.at)
        await policies.assign(tx, made.id, [group.id], [])


async def _ordered(mdm: Mdm, device: TestDevice) -> None:
    async with mdm.database.transaction() as tx:
        await mdm.sessions.order(tx, ORDERING, "rebootNow", [device.id])


async def _told_to_leave(mdm: Mdm, device: TestDevice) -> None:
    async with mdm.database.transaction() as tx:
        await mdm.sessions.order(tx, ORDERING, sessions.RETIRE, [device.id])


@pytest.mark.parametrize(
    ("change", "command"),
    [(_assigned, "Replace"), (_ordered, "Exec"), (_told_to_leave, "Exec")],
)
async def test_what_is_new_comes_in_the_next_session(
    mdm: Mdm,
    quiet: tuple[TestDevice, list[bool]],
    change: Callable[[Mdm, TestDevice], Awaitable[None]],
    command: str,
) -> None:
    device, _ = quiet
    await device.check_in()
    await change(mdm, device)
    assert [item.name for item in await device.check_in()] == [command]


async def test_a_change_in_mid_session_is_not_missed(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet
    answer = await device.begins()
    await _assigned(mdm, device)
    answer = await device.says(2, **device.replies(answer))
    assert [item.name for item in answer.commands] == ["Replace"]
    assert found == [True, False]


async def test_a_session_after_one_that_set_everything_is_quiet(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet
    await _assigned(mdm, device)
    assert [item.name for item in await device.check_in()] == ["Replace"]
    found.clear()
    assert await device.check_in() == []
    assert found == [True, True]


async def test_a_change_while_the_device_does_the_last_one_is_not_missed(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, _ = quiet
    await _assigned(mdm, device)
    answer = await device.begins()
    answer = await device.says(2, **device.replies(answer))
    assert [item.name for item in answer.commands] == ["Replace"]
    group = await mdm.group("More", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await policies.create(
            tx, new_id(), "DeviceLock/MaxDevicePasswordFailedAttempts", "9", mdm.world.at
        )
        await policies.assign(tx, made.id, [group.id], [])
    await device.says(3, **device.replies(answer))
    assert [item.name for item in await device.check_in()] == ["Replace"]


async def test_a_setting_that_is_refused_ends_no_session_early(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet
    await _assigned(mdm, device)
    device.codes = {"Replace": 500}
    await device.check_in()
    found.clear()
    await device.check_in()
    assert found[1] is False


async def test_a_change_that_is_not_committed_yet_is_not_missed(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    """It began before the session and ends after it: the next one brings it."""
    device, found = quiet
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await policies.create(tx, new_id(), SETTING, "15", mdm.world.at)
        await policies.assign(tx, made.id, [group.id], [])
        assert await device.check_in() == []
        assert await device.check_in() == []
        assert found[-2:] == [True, True]
    assert [item.name for item in await device.check_in()] == ["Replace"]


async def test_members_of_groups_and_licences_end_the_quiet(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, _ = quiet
    await _assigned(mdm, device)
    await device.check_in()
    await device.check_in()
    group = (await mdm.graph("GET", "groups?$filter=displayName eq 'All'")).json()["value"][0]
    async with mdm.database.transaction() as tx:
        await directory.remove_member(tx, group["id"], device.user.id)
    assert [item.name for item in await device.check_in()] == ["Delete"]
    async with mdm.database.transaction() as tx:
        await licensing.require_licence(tx, True)
        await directory.add_member(tx, group["id"], device.user.id)
    assert await device.check_in() == []
    async with mdm.database.transaction() as tx:
        await licensing.require_licence(tx, False)
    assert [item.name for item in await device.check_in()] == ["Replace"]


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (Command("Alert", "3", (), "1223"), "it breaks off"),
        (Command("Replace", "3", (Item(source="./DevInfo/Mod", data="T2"),)), "another model"),
        (Command("Replace", "3", (Item(source="./DevInfo/DevId", data="X"),)), "another device"),
        (
            Command(
                "Alert",
                "3",
                (Item(type="com.microsoft:mdm.unenrollment.userrequest", data="1"),),
                "1226",
            ),
            "it leaves",
        ),
    ],
)
async def test_a_greeting_that_says_more_goes_the_long_way(
    quiet: tuple[TestDevice, list[bool]], hello: Command, why: str
) -> None:
    device, found = quiet
    device.session += 1
    message = Message(str(device.session), 1, "", device.windows_id, (hello,))
    await device.send(message)
    assert found == [False], why


@pytest.mark.parametrize("code", [401, 500])
async def test_an_answer_that_says_more_goes_the_long_way(
    quiet: tuple[TestDevice, list[bool]], code: int
) -> None:
    device, found = quiet
    answer = await device.begins()
    device.nodes[CONFIG_INFO_URI] = AGENT.replace("8201", "8193")
    await device.says(2, **device.replies(answer))
    assert found == [True, False]
    answer = await device.begins()
    await device.says(2, **device.replies(answer))
    answer = await device.begins()
    get = answer.commands[0]
    await device.says(
        2, statuses=(Status("1", "1", "0", "SyncHdr", 200), Status("2", "1", get.id, "Get", code))
    )
    assert found[-1] is False


async def test_another_certificate_gets_nothing_quietly(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet
    other = await mdm.enrolled("blair", "B" * 32)
    device.certificate = other.certificate
    device.session += 1
    hello = Message(
        str(device.session), 1, "", device.windows_id, (Command("Alert", "2", (), "1201"),)
    )
    assert (await device.send(hello)).status_code == 401
    assert found == [False]


async def test_inventory_and_memory_of_changes_have_an_end(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet
    mdm.world.at += timedelta(hours=25)
    assert len((await device.begins()).commands) > 1
    assert found == [False]
