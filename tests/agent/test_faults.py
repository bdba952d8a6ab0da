"""The whole agent on a disk that fails, below a clock that goes back, killed at any write.

A write is every name that comes or goes in the device's folder, and every flush of one of its files.
"""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from one_site import Bridge, Broker, Moment, Site, enrolled, log
from tandem.agent import Client, Machine
from tandem.protocols import ccm
from tandem.site import clients, ledgers
from tandem.workloads import Authority, Workload, capabilities

CALLS = ("replace", "unlink", "mkdir", "rmdir", "symlink", "fsync")
WITNESS = ccm.Configuration("c1", "device-configuration", "Desktop/Banner", "from the site")
FILE = ccm.Configuration(
    "c2", "device-configuration", "TandemFiles/Motd", '{"path": "/etc/motd", "content": "hello"}'
)


class Killed(BaseException):
    """The process ends here, whatever it was doing."""


@contextmanager
def disk(folder: Path, writes: int, trouble: BaseException) -> Iterator[list[int]]:
    """After so many writes in this folder, or one that begins like it, each is this trouble."""
    left = [writes]

    def where(given: tuple[Any, ...], named: dict[str, Any]) -> str:
        at = given[0]
        over = named.get("dir_fd", named.get("src_dir_fd"))
        if isinstance(at, int) or over is not None:
            return os.readlink(f"/proc/self/fd/{at if isinstance(at, int) else over}")
        return str(at)

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:

            def call(*given: Any, real: Any = getattr(os, name), **named: Any) -> Any:
                if where(given, named).startswith(str(folder)):
                    left[0] -= 1
                    if left[0] < 0:
                        raise trouble
                return real(*given, **named)

            patch.setattr(os, name, call)
        yield left


def content(*moved: Workload) -> ccm.PolicyContent:
    policy = ccm.ConfigurationPolicy("p", "Prod", 1, "production", True, False, capabilities(moved))
    return ccm.PolicyContent(configuration_policies=[policy], configurations=[WITNESS, FILE])


async def told(site: Site, device_id: str) -> list[clients.TimelineEntry]:
    async with site.db.transaction() as tx:
        every = await clients.list_clients(tx, limit=1000)
        (one,) = [client for client in every if client.device_id == device_id]
        return await clients.timeline(tx, one.tenant_id, one.device_id, limit=1000)


def said(entries: list[clients.TimelineEntry]) -> Counter[tuple[int, int, str]]:
    """What a device told, by topic, state and code; what the site wrote itself left out. A report
    of inventory says what is there, so one that comes twice says nothing twice."""
    told = Counter(
        (e.topic, e.state, str(e.data.get("code", ""))) for e in entries if e.topic < 9100
    )
    return told - Counter({(ccm.INVENTORY_TOPIC, 1, ""): told[ccm.INVENTORY_TOPIC, 1, ""] - 1})


async def proof(site: Site, client_id: str) -> ledgers.Ledger:
    async with site.db.transaction() as tx:
        found = await ledgers.find(tx, client_id)
        assert await ledgers.check(tx, found) == []
    return found


STRIDE = 1 if os.environ.get("FAULTS") == "all" else 9


async def test_killed_at_any_write_it_loses_doubles_and_breaks_nothing(
    site: Site, installed: Machine, tmp_path: Path
) -> None:
    """Registration, policy, effects, messages and ledger, each time by a device of its own."""
    site.content = content()

    def device(name: str) -> Machine:
        state = tmp_path / name
        shutil.copytree(installed.state, state)
        for secret in ("key.pem", "tokens.key", "token-device"):
            (state / "CCM" / secret).unlink(missing_ok=True)
        (tmp_path / f"{name}.root/etc").mkdir(parents=True)
        made = replace(
            installed,
            state=state,
            name=name,
            mdm=Bridge(),
            directory=Broker(device=name),
            root=tmp_path / f"{name}.root",
        )
        enrolled(made)
        return made

    async def lives(machine: Machine) -> Client:
        client = Client(machine)
        for _ in range(2):
            site.now.passes(seconds=1)
            client.wake()
            await client.step()
        return client

    async def dies(machine: Machine, writes: int) -> bool:
        with disk(machine.state, writes, Killed()) as left, suppress(Killed):
            await lives(machine)
        return left[0] < 0

    good = device("good")
    assert not await dies(good, 10_000)
    await lives(good)
    wanted = said(await told(site, "good"))
    writes = 0
    while True:
        name = f"killed-{writes}"
        machine = device(name)
        dead = await dies(machine, writes)
        client = await lives(machine)
        assert said(await told(site, name)) == wanted, f"killed at write {writes}"
        assert list((machine.state / "CCM/spool").glob("*.json")) == []
        assert (tmp_path / f"{name}.root/etc/motd").read_text() == "hello"
        applied = {setting: one.source for setting, one in client.gate.applied.items()}
        assert applied == {"Desktop/Banner": "site", "TandemFiles/Motd": "site"}
        found = await proof(site, client.client_id)
        assert {of: one.authority for of, one in found.account.settings.items()} == applied
        if not dead:
            break
        shutil.rmtree(machine.state)
        writes += STRIDE
    assert writes > 40


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")]
)
async def test_a_disk_that_takes_nothing_is_told_and_gone_on_from(
    site: Site, client: Client, installed: Machine, number: int, words: str
) -> None:
    enrolled(installed)
    site.content = content()
    client.wake()
    await client.step()
    owner = client.gate.owner(Workload.DEVICE_CONFIGURATION)
    with disk(installed.state, 0, OSError(number, os.strerror(number))):
        site.content = content(Workload.DEVICE_CONFIGURATION)
        for _ in range(3):
            site.now.passes(seconds=1)
            client.wake()
            assert await client.step() > 0
        # What cannot be kept is not decided.
        assert client.gate.owner(Workload.DEVICE_CONFIGURATION) is owner
        (alarm,) = [e for e in await told(site, "d1") if (e.topic, e.state) == (1000, 2)]
        assert words in alarm.data["message"]
        assert "goes on by itself" in alarm.data["cure"] or alarm.data["cure"].startswith("Make")
        # Started anew on such a disk, it stays, and says the same.
        again = Client(installed)
        assert await again.step() > 0
    site.now.passes(seconds=1)
    client.wake()
    await client.step()
    await client.step()
    assert client.gate.owner(Workload.DEVICE_CONFIGURATION) is Authority.MDM
    well = [e.data["code"] for e in await told(site, "d1") if (e.topic, e.state) == (1000, 1)]
    assert well == ["agent.disk"]
    assert any(words in line for line in log(installed, "PolicyAgent") + log(installed, "CcmExec"))


async def test_a_clock_that_was_ahead_and_is_turned_back_keeps_nothing_waiting(
    site: Site, installed: Machine
) -> None:
    """The device's own clock; the site's goes right."""
    own = Moment()
    own.at = site.now()
    client = Client(replace(installed, now=own))
    await client.step()
    site.content = content()
    own.passes(hours=30)
    await client.step()
    assert client.gate.value("Desktop/Banner") is None
    assert any("clock" in line for line in log(installed, "CcmMessaging"))
    own.passes(hours=-30)
    for _ in range(2):
        # The interval of polling, where a minute lasts as long as the fixture says.
        own.passes(minutes=0.02)
        await client.step()
    assert client.gate.value("Desktop/Banner") == "from the site"
    assert any("put back" in line for line in log(installed, "CcmMessaging"))
    codes = [e.data.get("code") for e in await told(site, "d1")]
    assert codes.count("clock.put-back") == 1
