"""Sessions that need no computing, and everything that ends their quiet, over the service's own endpoint."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from mdm_world import ORDERING, Mdm, TestDevice, new_id
from tandem.infra.database import Tx
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Status
from tandem.tenant import directory, enrollment, licensing, policies, sessions
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


async def test_that_a_device_came_is_written_without_touching_an_index(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, _ = quiet
    async with mdm.database.transaction() as tx:
        before = await _updates(tx)
        for hour in range(3):
            await enrollment.mark_seen(tx, device.id, mdm.world.at + timedelta(hours=hour))
        after = await _updates(tx)
    assert (after[0] - before[0], after[1] - before[1]) == (3, 3)


async def _updates(tx: Tx) -> tuple[int, int]:
    """Of the table of devices: how many, and how many of these left the indexes alone."""
    row = await (
        await tx.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
            " WHERE relname = 'enrollment_device'"
        )
    ).fetchone()
    assert row is not None
    return row["n_tup_upd"], row["n_tup_hot_upd"]


async def test_a_lost_answer_of_a_quiet_session_is_given_again(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet
    device.session += 1
    hello = Message(
        str(device.session), 1, "", device.windows_id, (Command("Alert", "2", (), "1201"),)
    )
    first, again = await device.send(hello), await device.send(hello)
    assert (first.content, found) == (again.content, [True, True])
    reply = Message(
        str(device.session), 2, "", device.windows_id, **device.replies(syncml.read(first.content))
    )
    second, again = await device.send(reply), await device.send(reply)
    assert (second.content, found[2:]) == (again.content, [True, False])


async def test_a_quiet_session_writes_one_row_once(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    device, found = quiet

    async def version() -> str:
        async with mdm.database.transaction() as tx:
            row = await (
                await tx.execute(
                    "SELECT xmin::text FROM sessions_session WHERE device_id = %s", (device.id,)
                )
            ).fetchone()
            assert row is not None
            return str(row["xmin"])

    before = await version()
    answer = await device.begins()
    assert await version() == before
    await device.says(2, **device.replies(answer))
    assert (await version() != before, found) == (True, [True, True])


async def test_a_service_that_starts_anew_in_mid_session_hears_the_device_in_its_next(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, found = quiet
    answer = await device.begins()
    await _assigned(mdm, device)
    monkeypatch.setattr(mdm.sessions._quiet, "_begun", OrderedDict())
    answer = await device.says(2, **device.replies(answer))
    assert (answer.commands, found) == ((), [True, False])
    # Also where it always ends up with another process.
    answer = await device.begins()
    monkeypatch.setattr(mdm.sessions._quiet, "_begun", OrderedDict())
    answer = await device.says(2, **device.replies(answer))
    assert [item.name for item in answer.commands] == ["Replace"]
    assert found == [True, False, False, False]


async def test_of_many_sessions_at_once_the_oldest_go_on_as_others_do(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, found = quiet
    monkeypatch.setattr("tandem.tenant.sessions.quiet._MOST", 0)
    answer = await device.begins()
    await _assigned(mdm, device)
    answer = await device.says(2, **device.replies(answer))
    assert [item.name for item in answer.commands] == ["Replace"]
    assert found == [True, False]


async def test_a_session_that_another_overtook_is_not_written(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by another process of the service, to which the device went when an answer was lost."""
    device, found = quiet
    answer = await device.begins()
    late = device.session
    with monkeypatch.context() as patch:
        patch.setattr(mdm.sessions._quiet, "_begun", OrderedDict())
        await device.check_in()
    monkeypatch.setattr(device, "session", late)
    found.clear()
    assert (await device.says(2, **device.replies(answer))).commands == ()
    assert found == [False]
    async with mdm.database.transaction() as tx:
        kept = await sessions.store.session(tx, device.id)
    assert kept is not None
    assert (kept.session, kept.number) == (str(late + 1), 2)


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


@pytest.mark.parametrize(
    ("change", "command"), [(_assigned, "Replace"), (_ordered, "Exec"), (_told_to_leave, "Exec")]
)
async def test_a_change_in_mid_session_is_not_missed(
    mdm: Mdm,
    quiet: tuple[TestDevice, list[bool]],
    change: Callable[[Mdm, TestDevice], Awaitable[None]],
    command: str,
) -> None:
    device, found = quiet
    answer = await device.begins()
    await change(mdm, device)
    answer = await device.says(2, **device.replies(answer))
    assert [item.name for item in answer.commands] == [command]
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


def _signed_in(who: str) -> Command:
    item = Item(type="com.microsoft/MDM/LoginStatus", data=who, format="chr")
    return Command("Alert", "3", (item,), "1224")


async def _assigned_to_the_user(mdm: Mdm, device: TestDevice) -> None:
    group = await mdm.group("All", device.user.id)
    made = await mdm.graph(
        "POST",
        "deviceManagement/deviceConfigurations",
        {
            "@odata.type": "#microsoft.graph.windows10CustomConfiguration",
            "displayName": "For the user",
            "omaSettings": [
                {
                    "@odata.type": "#microsoft.graph.omaSettingInteger",
                    "displayName": "Printers",
                    "omaUri": "./User/Vendor/MSFT/Policy/Config/Education/PreventAddingNewPrinters",
                    "value": 1,
                }
            ],
        },
    )
    async with mdm.database.transaction() as tx:
        await policies.assign(tx, made.json()["id"], [group.id], [])


@pytest.mark.parametrize(("before", "now"), [("others", "user"), ("user", "others")])
async def test_who_is_signed_in_counts_when_a_quiet_session_is_not_quiet_any_more(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]], before: str, now: str
) -> None:
    device, found = quiet
    await device.check_in(_signed_in(before))
    answer = await device.begins(_signed_in(now))
    await _assigned_to_the_user(mdm, device)
    answer = await device.says(2, **device.replies(answer))
    assert found == [True, True, True, False]
    assert [item.name for item in answer.commands] == (["Replace"] if now == "user" else [])


async def test_a_device_that_announces_less_than_before_gets_no_more(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    """What its messages hold at most is said at the beginning of each session."""
    device, found = quiet
    device.session += 1
    hello = Message(
        str(device.session),
        1,
        "",
        device.windows_id,
        (Command("Alert", "2", (), "1201"),),
        max_size=6000,
    )
    answer = syncml.read((await device.send(hello)).content)
    group = await mdm.group("All", device.user.id)
    async with mdm.database.transaction() as tx:
        for number in range(20):
            made = await policies.create(tx, new_id(), f"X/{number}", "x" * 500, mdm.world.at)
            await policies.assign(tx, made.id, [group.id], [])
    reply = Message(str(device.session), 2, "", device.windows_id, **device.replies(answer))
    long = await device.send(reply)
    assert found == [True, False]
    assert syncml.read(long.content).commands
    assert len(long.content) <= 6000


async def test_the_memory_of_a_database_that_was_restored_elsewhere_is_not_believed(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    """There transactions are counted anew: what comes looks older than the snapshot."""
    device, found = quiet
    async with mdm.database.transaction() as tx:
        await tx.execute("UPDATE sessions_session SET settled = '900000000:900000000:'")
    await _assigned(mdm, device)
    assert [item.name for item in await device.check_in()] == ["Replace"]
    assert found[:2] == [True, False]


# What only the device's own sessions change, or an order of it (which is looked for).
_OWN = {
    "enrollment_certificate",
    "enrollment_event",
    "enrollment_session_secret",
    "mobile_apps_status",
    "sessions_capability",
    "sessions_change",
    "sessions_delivery",
    "sessions_hold",
    "sessions_object",
    "sessions_order",
    "sessions_session",
    "sessions_stray",
}
# Made from what is watched.
_DERIVED = {"policies_revision"}


async def test_all_that_a_session_is_computed_from_is_watched(
    mdm: Mdm, quiet: tuple[TestDevice, list[bool]]
) -> None:
    """A table that decides what a device gets, and has no trigger, would be missed for a day."""
    device, _ = quiet
    await _assigned(mdm, device)
    read: set[str] = set()
    exchange = mdm.sessions.exchange

    async def scans(tx: Any) -> dict[str, int]:
        tables = await tx.execute(
            "SELECT relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0) AS n"
            " FROM pg_stat_xact_user_tables"
        )
        return {row["relname"]: row["n"] async for row in tables}

    async def watched(tx: Any, *given: Any) -> bytes:
        # The connection still counts what it did before.
        before = await scans(tx)
        answer = await exchange(tx, *given)
        read.update(name for name, n in (await scans(tx)).items() if n > before.get(name, 0))
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mdm.sessions, "exchange", watched)
        mdm.sessions.policies = policies.Policies()
        await device.check_in()
    async with mdm.database.transaction() as tx:
        found = await tx.execute(
            "SELECT DISTINCT tgrelid::regclass::text AS name FROM pg_trigger"
            " WHERE tgname = 'sessions_changed'"
        )
        triggers = {row["name"] async for row in found}
    assert {"policies_object", "directory_member", "assignments_assignment"} <= read
    assert read - triggers - _OWN - _DERIVED == set()
