"""Firewall rules by either authority, in a network namespace: read back from the kernel."""

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from test_handlers import CONFIGURATION, Device, root
from test_handlers import device as device
from test_make_before_break import confirm, settle

from one_site import enrolled
from own_network import own_network
from tandem.agent import Client, Machine
from tandem.agent.mdm.tree import FORBIDDEN, OK
from tandem.workloads.instructions import BadInstruction, read

__all__ = ["root"]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


@pytest.fixture
def machine(machine: Machine, root: object, network: None) -> Machine:
    enrolled(machine)
    return replace(machine, root=root, own_network=True)  # type: ignore[arg-type]


def rules() -> list[str]:
    """What the kernel filters, as an administrator reads it."""
    said = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in said.stdout.splitlines()]
    return [line for line in lines if "comment" in line]


def nft(command: str) -> None:
    subprocess.run(["nft", command], check=True)


def arrives(port: int) -> bool:
    """Whether a datagram comes through: on loopback it is there at once, or never."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as there,
        socket.socket(type=socket.SOCK_DGRAM) as here,
    ):
        there.bind(("127.0.0.1", port))
        there.setblocking(False)
        here.sendto(b"x", ("127.0.0.1", port))
        try:
            return bool(there.recv(1))
        except BlockingIOError:
            return False


def drop(port: int, **more: object) -> dict[str, object]:
    return {"action": "drop", "protocol": "udp", "port": port, **more}


async def test_a_rule_filters_is_read_back_and_goes_with_its_setting(device: Device) -> None:
    assert arrives(5353)
    device.site_sets("TandemFirewall/Names", drop(5353))
    state = await settle(device)
    told = state.enacted["TandemFirewall/Names"]
    text = "What comes in at UDP port 5353 is dropped."
    assert (told.code, told.source, told.text) == ("written", "site", text)
    assert rules() == ['udp dport 5353 drop comment "TandemFirewall/Names"']
    assert not arrives(5353)
    assert arrives(5354)
    device.site_sets("TandemFirewall/Names", drop(5354))
    await settle(device)
    assert rules() == ['udp dport 5354 drop comment "TandemFirewall/Names"']
    assert "rules of policy in force: 1" in (await settle(device)).facts["firewall_by"]
    device.site_withdraws("TandemFirewall/Names")
    await settle(device)
    assert rules() == []
    said = subprocess.run(["nft", "list", "tables"], capture_output=True, check=True)
    assert said.stdout == b""


async def test_what_somebody_changed_is_put_right_and_other_tables_are_let_be(
    device: Device,
) -> None:
    nft("add table inet other")
    device.site_sets("TandemFirewall/Names", drop(5353))
    await settle(device)
    nft("flush table inet tandem")
    assert arrives(5353)
    state = await settle(device)
    assert state.enacted["TandemFirewall/Names"].code == "corrected"
    assert not arrives(5353)
    # A second one by the same name, and one that says something else.
    nft('add rule inet tandem input udp dport 9 drop comment "TandemFirewall/Names"')
    await settle(device)
    assert rules() == ['udp dport 5353 drop comment "TandemFirewall/Names"']
    device.site_withdraws("TandemFirewall/Names")
    await settle(device)
    said = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert said.stdout == "table inet other\n"


async def test_an_exception_holds_whatever_came_first(device: Device) -> None:
    device.site_sets("TandemFirewall/A", drop(5353))
    device.site_sets("TandemFirewall/B", drop(5353, action="accept", address="127.0.0.1/32"))
    device.site_sets("TandemFirewall/C", drop(53, direction="out", address="2001:db8::/32"))
    await settle(device)
    assert rules() == [
        'ip saddr 127.0.0.1 udp dport 5353 accept comment "TandemFirewall/B"',
        'udp dport 5353 drop comment "TandemFirewall/A"',
        'ip6 daddr 2001:db8::/32 udp dport 53 drop comment "TandemFirewall/C"',
    ]
    assert arrives(5353)


async def test_a_rule_changes_hands_without_a_moment_in_which_nothing_filters(
    device: Device,
) -> None:
    device.site_sets("TandemFirewall/Names", drop(5353))
    await settle(device)
    assert device.mdm_sets("TandemFirewall/Mdns", drop(5353)) == FORBIDDEN
    device.mdm_has(CONFIGURATION)
    await settle(device)
    # Its owner has gone and the next one has said nothing yet: the rule stays.
    assert not arrives(5353)
    assert device.mdm_sets("TandemFirewall/Mdns", drop(5353, protocol="tcp")) == OK
    confirm(device)
    assert rules() == ['udp dport 5353 drop comment "TandemFirewall/Names"']
    state = await settle(device)
    assert state.enacted["TandemFirewall/Mdns"].source == "mdm"
    assert state.handovers == {}
    assert rules() == ['tcp dport 5353 drop comment "TandemFirewall/Mdns"']


async def test_an_agent_that_was_killed_finds_what_it_wrote(device: Device) -> None:
    device.site_sets("TandemFirewall/Names", drop(5353))
    await settle(device)
    await device.again()
    await settle(device)
    assert rules() == ['udp dport 5353 drop comment "TandemFirewall/Names"']
    device.site_withdraws("TandemFirewall/Names")
    await device.again()
    await settle(device)
    assert rules() == []


async def test_a_name_that_can_be_no_comment_has_its_rule_all_the_same(device: Device) -> None:
    setting = "TandemFirewall/" + "Ä" * 90
    device.site_sets(setting, drop(5353))
    assert (await settle(device)).enacted[setting].code == "written"
    assert (await settle(device)).enacted[setting].code == "written"
    device.site_withdraws(setting)
    await settle(device)
    assert rules() == []


async def test_the_machine_around_a_folder_keeps_its_own_rules(device: Device) -> None:
    """Where nobody said that the network is the agent's own, nothing is written into the kernel."""
    device.machine = replace(device.machine, own_network=False)
    device.client = Client(device.machine)
    device.site_sets("TandemFirewall/Names", drop(5353))
    told = (await settle(device)).enacted["TandemFirewall/Names"]
    assert (told.code, told.failed) == ("firewall.not-its-own", True)
    assert "own_network" in told.text
    assert rules() == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"action": "reject", "protocol": "tcp", "port": 1}', "reject"),
        ('{"action": "drop", "protocol": "icmp", "port": 1}', "icmp"),
        ('{"action": "drop", "protocol": "tcp", "port": 0}', "port is 1 to 65535"),
        ('{"action": "drop", "protocol": "tcp", "port": 65536}', "port is 1 to 65535"),
        ('{"action": "drop", "protocol": "tcp", "port": 1, "address": "10.0.0.1/8"}', "network"),
        ('{"action": "drop", "protocol": "tcp", "port": 1, "address": "; flush"}', "network"),
        ('{"action": "drop", "protocol": "tcp", "port": 1, "address": "::/0"}', "left out"),
        ('{"action": "drop", "protocol": "tcp", "port": 1, "chain": "x"}', "chain"),
    ],
)
def test_a_value_that_is_no_rule_is_refused_in_words(value: str, said: str) -> None:
    with pytest.raises(BadInstruction, match=said) as refused:
        read("TandemFirewall/X", value)
    assert refused.value.cure.startswith("Write it like {")
