"""What devices and the MDM service say to each other in sessions, over its own endpoint."""

from datetime import timedelta
from pathlib import Path

import pytest

from mdm_world import ORDERING, Mdm, TestDevice, new_id
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Status
from tandem.tenant import directory, enrollment, licensing, policies, sessions
from tandem.workloads import Workload, capabilities

SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"
TARGET = f"./Device/Vendor/MSFT/Policy/Config/{SETTING}"
SITE_OWNS = "flags=0;agent=1.0;client=GUID:1;policy=1"
MDM_OWNS = f"flags={capabilities([Workload.DEVICE_CONFIGURATION])};agent=1.0;client=GUID:1;policy=1"


async def configured(
    mdm: Mdm, group: directory.Group, value: str = "15", setting: str = SETTING
) -> policies.Configuration:
    async with mdm.database.transaction() as tx:
        made = await policies.create(tx, f"{setting} {new_id()}", setting, value, mdm.world.at)
        await policies.assign(tx, made.id, [group.id], [])
        return made


async def known(mdm: Mdm, device: TestDevice) -> enrollment.Device:
    async with mdm.database.transaction() as tx:
        return await enrollment.device(tx, device.id)


async def delivered(mdm: Mdm, device: TestDevice) -> dict[str, tuple[str, int]]:
    async with mdm.database.transaction() as tx:
        found = await sessions.deliveries(tx, device.id)
    return {name: (item.value, item.code) for name, item in found.items()}


async def timeline(mdm: Mdm, device: TestDevice) -> list[str]:
    async with mdm.database.transaction() as tx:
        return [event.text for event in await enrollment.timeline(tx, device_id=device.id)]


# ------------------------------------------------------------------ the conversation


async def test_a_session_opens_with_questions_and_its_answers_are_kept(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/SwV": "10.0.26100.2", "./DevDetail/OEM": "Contoso Ltd"}
    answer = await device.begins()
    assert [(s.command_ref, s.command, s.code) for s in answer.statuses] == [
        ("0", "SyncHdr", 200),
        ("2", "Alert", 200),
        ("9", "Replace", 200),
    ]
    assert answer.commands[0].items[0].target == enrollment.CONFIG_INFO_URI
    closing = await device.says(2, **device.replies(answer))
    assert (closing.commands, closing.final) == ((), True)
    found = await known(mdm, device)
    assert found.os_version == "10.0.26100.2"
    assert found.inventory["manufacturer"] == "Contoso Ltd"
    assert found.inventory["model"] == "T1"
    assert found.seen_at == mdm.world.at


async def test_inventory_is_asked_for_once_a_day_and_the_agent_always(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": "S1"}
    assert len((await device.begins()).commands) > 1
    await device.check_in()
    assert len((await device.begins()).commands) == 1
    mdm.world.wait(hours=25)
    assert len((await device.begins()).commands) > 1


async def test_a_session_lasts_until_nothing_is_left_to_do(mdm: Mdm) -> None:
    """More than one message holds comes in one session, and each of it once."""
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    for number in range(70):
        await configured(mdm, group, "1", f"Area{number}/Name")
    work = await device.check_in()
    assert len({command.items[0].target for command in work}) == len(work) == 70
    assert await device.check_in() == []


async def test_long_values_are_spread_over_messages(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    for number in range(58):
        await configured(mdm, group, "é" * 4096, f"Area{number}/Name")
    first = await device.begins()
    message = Message(
        "1",
        2,
        "https://manage.example",
        device.windows_id,
        **device.replies(first),
    )
    answer = await device.send(message)
    assert 100_000 < len(answer.content) < 512 * 1024


async def test_an_unanswered_command_is_sent_again_and_an_answered_one_is_not(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    first = await device.begins()
    work = await device.says(2, **device.replies(first))
    assert [c.items[0].data for c in work.commands] == ["15"]
    assert await delivered(mdm, device) == {}, "a Status alone takes it from the list"
    assert [c.items[0].data for c in await device.check_in()] == ["15"]
    assert await delivered(mdm, device) == {SETTING: ("15", 200)}
    assert await device.check_in() == []


async def test_a_repeated_message_gets_the_stored_answer_byte_for_byte(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    first = await device.begins()
    message = Message(
        str(device.session), 2, "https://m", device.windows_id, **device.replies(first)
    )
    once = await device.send(message)
    events = await timeline(mdm, device)
    await configured(mdm, await mdm.group("More", device.user.id), "9", "Later/Setting")
    twice = await device.send(message)
    assert once.content == twice.content
    assert await timeline(mdm, device) == events


async def test_a_first_message_that_says_something_else_begins_a_session(mdm: Mdm) -> None:
    """A restarted device counts its sessions anew: its news must not be taken for a repetition."""
    device = await mdm.enrolled()
    await device.begins()
    leaving = Item(data="1", type="com.microsoft:mdm.unenrollment.userrequest")
    await device.says(1, Command("Alert", "2", (), "1201"), Command("Alert", "3", (leaving,)))
    assert (await known(mdm, device)).state == "unenrolled"


async def test_the_same_first_message_much_later_begins_a_session(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.nodes = {"./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": "S1"}
    await device.check_in()
    one = await device.begins()
    device.session -= 1
    assert await device.begins() == one
    mdm.world.wait(hours=25)
    device.session -= 1
    assert len((await device.begins()).commands) > len(one.commands)


async def test_a_busy_device_keeps_its_session_and_gets_no_more_work(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    first = await device.begins()
    pending = Item(type="Reversed-Domain-Name:com.microsoft.mdm.requestpending", data="1")
    answer = await device.says(2, Command("Alert", "2", (pending,), "1224"), final=False)
    assert answer.commands == ()
    assert [s.command for s in answer.statuses] == ["SyncHdr", "Alert"]
    work = await device.says(3, **device.replies(first))
    assert [c.name for c in work.commands] == ["Replace"]


async def test_a_status_for_nothing_we_sent_is_passed_over(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    first = await device.begins()
    made_up = Status("50", "1", "4711", "Replace", 200)
    given = device.replies(first)
    await device.says(2, statuses=(*given["statuses"], made_up))
    assert await delivered(mdm, device) == {}


@pytest.mark.parametrize(
    "name",
    [
        "d2s-alert-1200.xml",
        "d2s-alert-1201-minimal.xml",
        "d2s-alert-appuninstall-nocmdid.xml",
        "d2s-alert-deviceprepsync.xml",
        "d2s-alert-health-attestation.xml",
        "d2s-alert-synctype-type-outside-meta.xml",
        "d2s-syncml-imei-bootstrap-odj.xml",
        "d2s-syncml-real-session1-b.xml",
        "d2s-syncml-spec-init.xml",
        "d2s-syncml-real-user-unenroll.xml",
    ],
)
async def test_examples_of_devices_are_answered_with_a_status_for_each_command(
    mdm: Mdm, samples: Path, name: str
) -> None:
    message = syncml.read((samples / "mdm" / name).read_bytes())
    device = await mdm.enrolled(windows_id=message.source or new_id())
    mdm.peer.certificate = device.certificate
    raw = (samples / "mdm" / name).read_bytes()
    answer = await mdm.management.post("/ManagementServer/MDM.svc", content=raw)
    if not message.source:
        assert answer.status_code == 401
        return
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/vnd.syncml.dm+xml")
    assert int(answer.headers["content-length"]) == len(answer.content)
    read = syncml.read(answer.content)
    assert (read.session, read.final) == (message.session, True)
    assert read.statuses[0].command_ref == "0"
    mine = [command.id for command in message.commands if command.id]
    assert [status.command_ref for status in read.statuses[1:]] == mine


# ------------------------------------------------------------------ who may come


async def test_a_stranger_and_a_known_device_without_its_certificate_hear_the_same(
    mdm: Mdm,
) -> None:
    device = await mdm.enrolled()
    other = await mdm.enrolled("sam", new_id())
    message = Message("1", 1, "https://m", device.windows_id)
    answers = []
    for certificate in (b"\x30\x03made up", other.certificate):
        mdm.peer.certificate = certificate
        answer = await mdm.management.post(
            "/ManagementServer/MDM.svc", content=syncml.write(message)
        )
        answers.append((answer.status_code, answer.content))
    assert set(answers) == {(401, b"")}
    for source in ("", "somebody"):
        mdm.peer.certificate = device.certificate
        unnamed = syncml.write(Message("1", 1, "https://m", source))
        answer = await mdm.management.post("/ManagementServer/MDM.svc", content=unnamed)
        assert answer.status_code == 401


async def test_what_is_no_message_is_refused_without_words(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    mdm.peer.certificate = device.certificate
    post = mdm.management.post
    assert (await post("/ManagementServer/MDM.svc", content=b"<a")).status_code == 400
    large = b"<SyncML>" + b" " * (4 * 1024 * 1024 + 1)
    assert (await post("/ManagementServer/MDM.svc", content=large)).status_code == 413
    wbxml = {"content-type": "application/vnd.syncml.dm+wbxml"}
    answer = await post("/ManagementServer/MDM.svc", content=b"\x03", headers=wbxml)
    assert (answer.status_code, answer.content) == (415, b"")


# ------------------------------------------------------------------ one writer for each workload


async def test_a_workload_follows_its_owner_and_only_its_owner_writes(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    assert len(await device.check_in()) == 1, "a device without an agent gets everything"
    device.agent(SITE_OWNS)
    assert await device.check_in() == [], "nothing is written, and nothing removed (F17)"
    device.agent(MDM_OWNS)
    assert [c.name for c in await device.check_in()] == ["Replace"], "the site may have changed it"
    assert await device.check_in() == []
    told = [line for line in await timeline(mdm, device) if line.startswith("Workload flags")]
    assert len(told) == 2
    assert "Device configuration" in told[0], "the newest first"
    assert told[0].endswith("come from the MDM service now")
    assert "Client apps" not in told[0]
    assert "Client apps" in told[1]
    assert told[1].endswith("are the site's now, and are withheld here")


async def test_flags_without_policy_do_not_move_a_workload(mdm: Mdm) -> None:
    """A client that has no policy yet writes nothing: the MDM service goes on."""
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    device.agent("flags=0;agent=1.0;client=;policy=0")
    assert len(await device.check_in()) == 1


async def test_a_setting_that_is_not_wanted_any_more_is_removed(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    made = await configured(mdm, await mdm.group("All", device.user.id))
    await device.check_in()
    async with mdm.database.transaction() as tx:
        await policies.remove(tx, policies.KIND, made.id, mdm.world.at, "")
    work = await device.check_in()
    assert [(c.name, c.items[0].target, c.items[0].data) for c in work] == [
        ("Delete", TARGET, None)
    ]
    assert await delivered(mdm, device) == {}
    assert await device.check_in() == []
    assert f"{SETTING} removed" in await timeline(mdm, device)


async def test_a_removal_waits_while_the_site_owns_the_workload(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    made = await configured(mdm, await mdm.group("All", device.user.id))
    await device.check_in()
    device.agent(SITE_OWNS)
    await device.check_in()
    async with mdm.database.transaction() as tx:
        await policies.remove(tx, policies.KIND, made.id, mdm.world.at, "")
    assert await device.check_in() == []
    device.agent(MDM_OWNS)
    device.codes["Delete"] = 404
    assert [c.name for c in await device.check_in()] == ["Delete"]
    assert await delivered(mdm, device) == {}, "what is not there is removed"


async def test_a_refused_value_is_not_repeated_but_a_new_one_is_sent(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    made = await configured(mdm, await mdm.group("All", device.user.id))
    device.codes["Replace"] = 405
    assert len(await device.check_in()) == 1
    assert await delivered(mdm, device) == {SETTING: ("15", 405)}
    assert await device.check_in() == []
    async with mdm.database.transaction() as tx:
        await policies.change(tx, made.id, "20", mdm.world.at)
    assert [c.items[0].data for c in await device.check_in()] == ["20"]


async def test_what_the_sites_client_forbids_is_offered_once_a_session(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    device.codes["Replace"] = 403
    assert len(await device.check_in()) == 1
    assert await delivered(mdm, device) == {}
    assert len(await device.check_in()) == 1


async def test_an_excluded_group_takes_a_setting_away(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    all_, out = await mdm.group("All", device.user.id), await mdm.group("Out", device.user.id)
    async with mdm.database.transaction() as tx:
        made = await policies.create(tx, "A", SETTING, "1", mdm.world.at)
        await policies.assign(tx, made.id, [all_.id], [out.id])
    assert await device.check_in() == []


async def test_a_group_of_devices_counts_too(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        joined = await directory.find_device(tx, device.joined.device_id)
    assert joined is not None
    await configured(mdm, await mdm.group("Machines", joined.id))
    assert len(await device.check_in()) == 1


async def test_without_a_licence_nothing_new_is_handed_out(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    async with mdm.database.transaction() as tx:
        await licensing.require_licence(tx, True)
    assert await device.check_in() == []
    assert (await known(mdm, device)).state == "enrolled"
    async with mdm.database.transaction() as tx:
        await licensing.assign(tx, "EMSPREMIUM", device.user.id, mdm.world.at)
    assert len(await device.check_in()) == 1


async def test_a_client_that_went_leaves_a_trace(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    device.agent(SITE_OWNS)
    await device.check_in()
    assert (await known(mdm, device)).flags == 0
    device.nodes.clear()
    await device.check_in()
    assert (await known(mdm, device)).agent is None
    moved, gone = (await timeline(mdm, device))[:2]
    assert gone == "The site's client is gone"
    assert moved.startswith("Workload flags are gone; Compliance policies, ")
    assert moved.endswith("come from the MDM service now")


async def test_what_an_agent_says_cannot_break_its_account(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    for text in ("", ";;;=", "flags=-1;policy=yes", "x" * 100_000, "flags=99999999999;code=x"):
        device.agent(text)
        await device.check_in()
    assert len((await known(mdm, device)).config_info) <= 4096


# ------------------------------------------------------------------ leaving


async def leaves(device: TestDevice) -> None:
    item = Item(data="1", type="com.microsoft:mdm.unenrollment.userrequest", format="int")
    answer = await device.begins(Command("Alert", "3", (item,), "1226"))
    assert answer.commands == ()


async def test_a_user_takes_the_device_out(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await leaves(device)
    found = await known(mdm, device)
    assert (found.state, found.ended_at) == ("unenrolled", mdm.world.at)
    async with mdm.database.transaction() as tx:
        joined = await directory.find_device(tx, device.joined.device_id)
    assert joined is not None
    assert not joined.is_managed
    assert (await device.send(Message("9", 1, "m", device.windows_id))).status_code == 401


async def test_an_administrator_has_a_device_leave(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await configured(mdm, await mdm.group("All", device.user.id))
    assert (
        await mdm.graph("POST", f"deviceManagement/managedDevices/{device.id}/retire")
    ).status_code == 204
    for _ in range(2):
        (order,) = await device.check_in()
        assert order.name == "Exec"
        assert order.items[0].target == "./Vendor/MSFT/DMClient/Provider/TandemMDM/Unenroll"
        assert order.items[0].data == "TandemMDM"
    assert (await known(mdm, device)).state == "unenrolling", "only the device's alert ends it"
    await leaves(device)
    assert (await known(mdm, device)).state == "unenrolled"
    assert (await timeline(mdm, device))[0] == "Ended by an administrator"


async def test_a_device_that_refuses_to_leave_is_told_again(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        await mdm.sessions.order(tx, ORDERING, sessions.RETIRE, [device.id])
    device.codes["Exec"] = 500
    assert len(await device.check_in()) == 1
    assert (await known(mdm, device)).state == "unenrolling"
    assert len(await device.check_in()) == 1


async def test_a_device_that_was_told_and_stays_silent_for_a_day_has_left(mdm: Mdm) -> None:
    told, untold = await mdm.enrolled(), await mdm.enrolled("sam", new_id())
    async with mdm.database.transaction() as tx:
        await mdm.sessions.order(tx, ORDERING, sessions.RETIRE, [told.id])
        await mdm.sessions.order(tx, ORDERING, sessions.RETIRE, [untold.id])
    await told.check_in()
    for wait, state in ((timedelta(hours=23), "unenrolling"), (timedelta(hours=2), "unenrolled")):
        mdm.world.at += wait
        async with mdm.database.transaction() as tx:
            await mdm.sessions.tend(tx)
        assert (await known(mdm, told)).state == state
    assert (await known(mdm, untold)).state == "unenrolling"
