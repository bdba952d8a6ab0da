"""Hardware inventory: from the kernel's files under a root, through the management point, to queries."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from one_site import Moment, Site
from tandem.agent import Client, Machine
from tandem.agent.handlers import Root, hardware
from tandem.protocols import ccm
from tandem.site import collections

FILES = {
    "etc/os-release": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
    "proc/sys/kernel/osrelease": "6.12.9-amd64\n",
    "proc/sys/kernel/hostname": "lab-001\n",
    "proc/meminfo": "MemTotal:       16314260 kB\nMemFree:          817000 kB\n",
    "proc/cpuinfo": "".join(
        f"processor\t: {place}\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD Ryzen 7 PRO\n"
        f"physical id\t: {place // 2}\ncpu cores\t: 1\n\n"
        for place in range(4)
    ),
    "proc/self/mountinfo": "21 1 254:1 / / rw - ext4 /dev/dm-1 rw\n"
    "22 21 0:5 / /proc rw - proc proc rw\n"
    "23 21 254:1 /home /home rw - ext4 /dev/dm-1 rw\n"
    "24 21 8:1 / /boot/efi rw - vfat /dev/sda1 rw\n",
    "sys/dev/block/254:1/size": "497014784\n",
    "sys/dev/block/8:1/size": "1048576\n",
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "ThinkPad T14\n",
    "sys/class/dmi/id/bios_vendor": "LENOVO\n",
    "sys/class/dmi/id/bios_version": "R23ET72W\n",
    "sys/class/net/lo/address": "00:00:00:00:00:00\n",
    "sys/class/net/enp1s0/address": "52:54:00:12:34:56\n",
}
JOINED = (
    "select * from SMS_R_System inner join SMS_G_System_{0} as c"
    " on c.ResourceID = SMS_R_System.ResourceID where c.{1}"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    for path, content in FILES.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_text(content)
    return made


@pytest.fixture
def machine(machine: Machine, root: Path) -> Machine:
    return replace(machine, root=root)


async def fits(site: Site, of: str, condition: str) -> bool:
    """Whether a query of this class finds the device."""
    rule = collections.WantedRule("query", query=JOINED.format(of, condition))
    async with site.db.transaction() as tx:
        return (await collections.preview(tx, "SMS00001", [rule])).members == 1


async def reports(site: Site) -> list[dict[str, Any]]:
    async with site.db.transaction() as tx:
        found = await tx.execute(
            "SELECT data FROM clients_timeline WHERE topic = %s ORDER BY sequence",
            (ccm.INVENTORY_TOPIC,),
        )
        return [row["data"]["classes"] async for row in found]


async def test_what_a_device_is_made_of_can_be_asked_for(site: Site, client: Client) -> None:
    for of, condition in (
        ("OPERATING_SYSTEM", "Caption like 'debian%' and c.Version = '13'"),
        ("OPERATING_SYSTEM", "BuildNumber like '6.12.%' and c.TotalVisibleMemorySize > 16000000"),
        ("COMPUTER_SYSTEM", "Model = 'thinkpad t14' and c.NumberOfProcessors = 2"),
        ("PROCESSOR", "DeviceID = 'CPU1' and c.NumberOfLogicalProcessors = 2"),
        ("X86_PC_MEMORY", "TotalPhysicalMemory >= 16314260"),
        ("PC_BIOS", "SMBIOSBIOSVersion = 'R23ET72W' and c.SerialNumber is null"),
        ("LOGICAL_DISK", "DeviceID = '/' and c.FileSystem = 'ext4' and c.Size = 242683"),
        ("LOGICAL_DISK", "DeviceID = '/boot/efi' and c.FileSystem = 'vfat'"),
        ("NETWORK_ADAPTER", "MACAddress = '52:54:00:12:34:56'"),
    ):
        assert await fits(site, of, condition), (of, condition)
    # Both of one row: no disk is the one and the other.
    assert not await fits(site, "LOGICAL_DISK", "DeviceID = '/' and c.FileSystem = 'vfat'")
    assert not await fits(site, "LOGICAL_DISK", "DeviceID = '/home'")
    assert not await fits(site, "NETWORK_ADAPTER", "Name = 'lo'")


async def test_only_what_has_changed_is_reported_and_all_of_it_with_a_heartbeat(
    site: Site, machine: Machine, client: Client, root: Path, moment: Moment
) -> None:
    (first,) = await reports(site)
    assert len(first) == 7
    moment.at += timedelta(seconds=0.02 * 24 * 60)
    client.wake()
    await client.step()
    assert len(await reports(site)) == 1
    (root / "sys/class/dmi/id/bios_version").write_text("R23ET73W\n")
    (root / "sys/class/net/enp1s0/address").unlink()
    moment.at += timedelta(seconds=0.02 * 24 * 60)
    client.wake()
    await client.step()
    _, second = await reports(site)
    assert second.keys() == {"SMS_G_System_PC_BIOS", "SMS_G_System_NETWORK_ADAPTER"}
    assert await fits(site, "PC_BIOS", "SMBIOSBIOSVersion = 'R23ET73W'")
    assert not await fits(site, "NETWORK_ADAPTER", "MACAddress like '%'")
    # A client that starts anew remembers what it said; the heartbeat brings all, for a site that
    # lost something.
    again = Client(machine)
    await again.step()
    assert len(await reports(site)) == 2
    moment.at += timedelta(seconds=0.02 * 7 * 24 * 60)
    await again.step()
    assert len((await reports(site))[-1]) == 7


async def test_the_client_settings_say_how_often_the_hardware_is_looked_at(
    site: Site, client: Client, root: Path, moment: Moment
) -> None:
    """A shorter schedule holds at once, off is off, and switched on again it is reported then."""

    async def later(minutes: int, version: str) -> int:
        (root / "sys/class/dmi/id/bios_version").write_text(version)
        moment.at += timedelta(seconds=0.02 * minutes)
        client.wake()
        await client.step()
        return len(await reports(site))

    assert await later(61, "A") == 1
    site.content = ccm.PolicyContent(settings={"hardware_inventory_minutes": 60})
    assert await later(1, "B") == 1
    assert await later(61, "C") == 2
    site.content = ccm.PolicyContent(settings={"enable_hardware_inventory": False})
    assert await later(1, "D") == 2
    # Nor does the heartbeat say it.
    assert await later(8 * 24 * 60, "E") == 2
    site.content = ccm.PolicyContent(settings={})
    assert await later(1, "F") == 3
    assert await fits(site, "PC_BIOS", "SMBIOSBIOSVersion = 'F'")


async def test_a_device_reports_of_known_classes_and_types_alone(
    site: Site, client: Client
) -> None:
    """What a client makes up is left out, in the class where it stands, and costs no other."""
    async with site.db.transaction() as tx:
        (known,) = await collections.resources(tx)
        of = collections.HARDWARE[1]
        hostile: list[dict[str, str | int]] = [
            {"Model": 5, "NumberOfProcessors": "many", "Name": "x" * 5000, "'; --": "x"}
        ]
        await collections.report(tx, known.client_id, of, hostile, site.now())
    assert await fits(site, "COMPUTER_SYSTEM", "Name like 'xxx%'")
    assert await fits(site, "COMPUTER_SYSTEM", "Model is null")
    assert not await fits(site, "COMPUTER_SYSTEM", "NumberOfProcessors > 0")
    async with site.db.transaction() as tx:
        late = site.now() - timedelta(days=1)
        await collections.report(tx, known.client_id, of, [{"Model": "older"}], late)
    assert not await fits(site, "COMPUTER_SYSTEM", "Model = 'older'")


def test_an_empty_root_says_nothing_and_a_hostile_one_nothing_else(tmp_path: Path) -> None:
    def of(path: Path) -> dict[str, Any]:
        return {name: rows for name, rows in hardware(Root(path, tmp_path / "a")).items() if rows}

    (tmp_path / "a").mkdir()
    empty, hostile = tmp_path / "empty", tmp_path / "hostile"
    empty.mkdir()
    assert of(empty) == {}
    for path in FILES:
        (hostile / path).parent.mkdir(parents=True, exist_ok=True)
        (hostile / path).write_bytes(b"\0\xff: 1 - \n" * 1000 + b"processor: \n\nMemTotal: -1 kB")
    for rows in of(hostile).values():
        for row in rows:
            for value in row.values():
                assert isinstance(value, int) or (len(value) <= 256 and value.isprintable())
    (tmp_path / "secret").write_text("PRETTY_NAME=secret")
    linked = tmp_path / "linked"
    (linked / "etc").mkdir(parents=True)
    (linked / "etc/os-release").symlink_to("../../secret")
    assert of(linked) == {}
