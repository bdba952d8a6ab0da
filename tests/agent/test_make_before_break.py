"""What the old owner did to a device stays until what the new one wants was read back there.

Read from the device's own files, its gate and its signed ledger; the site's settings come as policy
over TLS, those of the MDM service through the branch of its client, as in `test_handlers`.
"""

import os
from pathlib import Path

import pytest
from test_handlers import CONFIGURATION, WANTS, Device, banner, device, machine, root

from tandem.agent import open_gate
from tandem.agent.mdm import messages
from tandem.agent.mdm.session import Outcome, _carry_out
from tandem.agent.mdm.tree import FORBIDDEN, OK, Tree
from tandem.protocols import ccm
from tandem.site import clients, ledgers
from tandem.workloads import Authority

__all__ = ["device", "machine", "root"]
KINDS = {"own": "owner", "confirm": "confirmed", "write": "wrote", "remove": "removed"}


def confirm(device: Device) -> None:
    """A session of the MDM service has ended, in which it said all that it wants."""
    gate = open_gate(device.machine.state, device.machine.now)
    assert gate
    gate.confirm(Authority.MDM, gate.epoch)


async def story(device: Device) -> list[str]:
    """What the site has of the ledger about device configuration, checked, the oldest first."""
    async with device.site.db.transaction() as tx:
        (one,) = await clients.list_clients(tx)
        found = await ledgers.find(tx, one.id)
        assert await ledgers.check(tx, found) == []
        every = await ledgers.entries(tx, found)
    said = [one.said for one in reversed(every) if one.said["workload"] == CONFIGURATION.value]
    return [
        f"{one['authority']} {KINDS[one['kind']]} {one.get('setting', '')}".strip() for one in said
    ]


async def settle(device: Device) -> ccm.ComanagementState:
    device.site.now.passes(seconds=1)
    return await device.poll()


async def test_a_file_a_unit_and_their_successors_change_hands_without_a_gap(
    device: Device, root: Path
) -> None:
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    device.site_sets("TandemUnits/Tidy", {"unit": "tidy.service", "enabled": True})
    await settle(device)
    device.mdm_has(CONFIGURATION)
    await settle(device)
    assert device.mdm_sets("TandemFiles/Issue", {"path": "/etc/issue", "content": "new"}) == OK
    # The gate took it and the service has ended its session: nothing is read back yet.
    confirm(device)
    gate = device.client.gate
    assert gate.handovers[CONFIGURATION].leaving is Authority.SITE
    assert (device.text("/etc/motd"), device.has(WANTS)) == ("of the site", True)
    state = await settle(device)
    assert (device.text("/etc/issue"), state.handovers) == ("new", {})
    assert not device.has("/etc/motd")
    assert not device.has(WANTS)
    await settle(device)
    assert (await story(device))[-5:] == [
        "mdm owner",
        "mdm wrote TandemFiles/Issue",
        "mdm confirmed",
        "site removed TandemFiles/Motd",
        "site removed TandemUnits/Tidy",
    ]


async def test_what_cannot_be_brought_about_removes_nothing_and_alarms_with_its_reason(
    device: Device, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    await settle(device)
    device.mdm_has(CONFIGURATION)
    await settle(device)
    # /bin/sh is a link here, and no file to be written.
    assert device.mdm_sets("TandemFiles/Shell", {"path": "/bin/sh", "content": "x"}) == OK
    confirm(device)
    for _ in range(3):
        device.site.now.passes(minutes=1)
        state = await settle(device)
    assert device.text("/etc/motd") == "of the site"
    assert state.handovers == {CONFIGURATION.value: "overdue"}
    async with device.site.db.transaction() as tx:
        client = await clients.find(tx, (await clients.list_clients(tx))[0].id)
        entries = await clients.timeline(tx, client.tenant_id, client.device_id)
    (alarm,) = [e.data for e in entries if e.data.get("code") == "handover.overdue"]
    assert "TandemFiles/Shell was set and could not be read back on the device" in alarm["message"]
    assert "no file" in alarm["message"]
    # A late success still tidies up.
    assert device.mdm_sets("TandemFiles/Shell", {"path": "/etc/shell", "content": "x"}) == OK
    confirm(device)
    state = await settle(device)
    assert (device.text("/etc/shell"), device.has("/etc/motd"), state.handovers) == ("x", False, {})


async def test_one_setting_that_moves_to_another_file_leaves_the_first_until_the_second_is_there(
    device: Device, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    await settle(device)
    device.mdm_has(CONFIGURATION)
    await settle(device)
    real = os.replace

    def full(source: str, target: str, **more: int) -> None:
        if str(target) == "issue":
            raise OSError(28, "No space left on device")
        real(source, target, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert device.mdm_sets("TandemFiles/Motd", {"path": "/etc/issue", "content": "new"}) == OK
        confirm(device)
        state = await settle(device)
        assert device.text("/etc/motd") == "of the site"
        assert state.handovers == {CONFIGURATION.value: "under way"}
        assert state.enacted["TandemFiles/Motd"].failed
        # The agent is started anew in the middle of it.
        await device.again()
        await settle(device)
        assert device.text("/etc/motd") == "of the site"
    state = await settle(device)
    assert (device.text("/etc/issue"), device.has("/etc/motd")) == ("new", False)
    assert (state.handovers, set(state.enacted)) == ({}, {"TandemFiles/Motd"})


async def test_a_value_that_is_written_and_not_found_again_confirms_nothing(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some other program puts its own in place at once."""
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    await settle(device)
    device.mdm_has(CONFIGURATION)
    await settle(device)
    real = os.replace

    def contested(source: str, target: str, **more: int) -> None:
        real(source, target, **more)
        if str(target) == "issue":
            (device.root / "etc/issue").write_text("of another program")

    monkeypatch.setattr(os, "replace", contested)
    assert device.mdm_sets("TandemFiles/Issue", {"path": "/etc/issue", "content": "new"}) == OK
    confirm(device)
    state = await settle(device)
    assert state.enacted["TandemFiles/Issue"].code == "effect.not-read-back"
    assert state.handovers == {CONFIGURATION.value: "under way"}
    assert device.text("/etc/motd") == "of the site"


async def test_without_a_switch_a_setting_that_goes_is_gone_at_once(device: Device) -> None:
    device.site_sets("TandemFiles/Motd", banner("of the site"))
    await settle(device)
    device.site_withdraws("TandemFiles/Motd")
    await settle(device)
    assert not device.has("/etc/motd")


# A group of commands.


def group(*commands: str) -> messages.Message:
    inside = "".join(commands)
    return messages.read(
        b'<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>'
        b"<SessionID>1</SessionID><MsgID>1</MsgID><Target><LocURI>d</LocURI></Target>"
        b"<Source><LocURI>s</LocURI></Source></SyncHdr><SyncBody><Atomic><CmdID>1</CmdID>"
        + inside.encode()
        + b"</Atomic><Final/></SyncBody></SyncML>"
    )


def replace_(number: int, uri: str, data: str) -> str:
    return (
        f"<Replace><CmdID>{number}</CmdID><Item><Target><LocURI>{uri}</LocURI></Target><Meta>"
        f'<Format xmlns="syncml:metinf">chr</Format></Meta><Data>{data}</Data></Item></Replace>'
    )


CONFIG = "./Device/Vendor/MSFT/Policy/Config"


def say(device: Device, *commands: str) -> list[str]:
    tree = Tree({"Vendor/MSFT/Policy": device.mdm})
    statuses, _ = _carry_out(tree, group(*commands), Outcome())
    return [status.code for status in statuses]


async def test_a_group_that_fails_leaves_nothing_in_force_and_nothing_overwritten(
    device: Device,
) -> None:
    device.mdm_has(CONFIGURATION)
    device.site_sets("Desktop/Banner", "of the site")
    device.moved = ()
    await settle(device)
    device.mdm_has(CONFIGURATION)
    await settle(device)
    before = device.client.gate.applied
    assert before["Desktop/Banner"].value == "of the site"
    said = say(
        device,
        replace_(2, f"{CONFIG}/Desktop/Banner", "of the service"),
        replace_(3, f"{CONFIG}/Update/Defer", "7"),
    )
    # The second is the site's: the group fails, and the first one reached nobody.
    assert said == ["507", "216", str(FORBIDDEN)]
    assert device.client.gate.applied == before
    assert device.stored.kept == {}
    assert say(device, replace_(2, f"{CONFIG}/Desktop/Banner", "of the service")) == ["200", "200"]
    assert device.client.gate.applied["Desktop/Banner"].value == "of the service"


async def test_a_group_that_cannot_be_kept_is_refused_whole(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.mdm_has(CONFIGURATION)
    await settle(device)
    tree = Tree({"Vendor/MSFT/Policy": device.mdm})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tandem.agent.folder.write_private", full)
        said = group(
            replace_(2, f"{CONFIG}/Desktop/A", "1"), replace_(3, f"{CONFIG}/Desktop/B", "2")
        )
        statuses, _ = _carry_out(tree, said, Outcome())
        assert [one.code for one in statuses] == ["507", "216", "216"]
        # A single command is refused in the protocol's own word.
        assert device.mdm_sets("Desktop/A", "1") == 500
    assert (device.stored.kept, device.client.gate.applied) == ({}, {})
    assert device.mdm_sets("Desktop/A", "1") == OK
