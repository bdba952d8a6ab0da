"""The invariant, checked over random schedules: never two writers; none only within a bounded hand-over.

The device's own handler, gate, ledger, MDM policy branch and handlers run here on a disk that dies, is
full or half written at any write, below a network that loses, repeats and reorders. An observer looks
at nothing but the values in force and the files on the device, and the ledger alone has to tell the
same story.
"""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from one_site import Bridge, Moment
from tandem import pki
from tandem.agent import Machine, MdmEnrollment
from tandem.agent.comanagement import CoManagementHandler
from tandem.agent.folder import Folder, device_key
from tandem.agent.gate import Gate
from tandem.agent.handlers import Handlers
from tandem.agent.journal import Journal
from tandem.agent.mdm.branches import Policy as PolicyBranch
from tandem.agent.mdm.messages import Item
from tandem.agent.mdm.tree import Store
from tandem.infra.errors import AppError
from tandem.protocols import ccm
from tandem.workloads import (
    Account,
    Authority,
    Workload,
    capabilities,
    effective,
    follow,
    owner_of,
    workload_of_area,
)

SETTINGS = (
    "Defender/Scan",
    "Defender/Cloud",
    "Desktop/Banner",
    "Update/Defer",
    "TandemFiles/One",
    "TandemFiles/Two",
)
MOVED = (Workload.ENDPOINT_PROTECTION, Workload.DEVICE_CONFIGURATION, Workload.WINDOWS_UPDATE)
values = st.sampled_from(["1", "2", None])
# The write at which the disk breaks, and how; mostly it does not.
troubles = st.sampled_from(
    [
        *[(0, "")] * 16,
        *((n, way) for n in range(1, 7) for way in ("before", "after", "half", "full")),
    ]
)
KEY = pki.key_pem(pki.generate_key("p256"))


class Killed(BaseException):
    """The process ends at this instruction."""


@dataclass
class Fuse:
    """One for the folder and those below it: how many writes are left, and what happens then."""

    writes: int = 0
    way: str = ""


class Fragile(Folder):
    """A disk that breaks at the n-th write from now on, in one of several ways."""

    def __init__(self, path: Path, durable: bool = True, lit: "Fuse | None" = None) -> None:
        super().__init__(path, durable)
        self.lit = lit or Fuse()

    def below(self, name: str) -> Folder:
        return Fragile(self.path / name, durable=False, lit=self.lit)

    @property
    def way(self) -> str:
        return self.lit.way

    def _burns(self) -> bool:
        if not self.lit.writes:
            return False
        self.lit.writes -= 1
        return not self.lit.writes

    def write(self, name: str, data: bytes) -> None:
        if not self._burns():
            return super().write(name, data)
        if self.way == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.way == "after":
            super().write(name, data)
        raise Killed

    def append(self, name: str, data: bytes) -> None:
        if not self._burns():
            return super().append(name, data)
        if self.way in ("half", "full"):
            super().append(name, data[: len(data) // 2])
        elif self.way == "after":
            super().append(name, data)
        if self.way == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise Killed


class OneWriter(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        path = Path(self._temporary.name)
        self.clock = Moment()
        self.folder = Fragile(path / "CCM", durable=False)
        Folder.write(self.folder, "key.pem", KEY)
        self.root = path / "root"
        self.root.mkdir()
        self.bridge = Bridge(MdmEnrollment(True, "u", "MDM", True))
        self.machine = Machine(
            path,
            "M",
            self.bridge,
            None,
            None,
            None,
            durable=False,
            now=self.clock,  # type: ignore[arg-type]
        )
        self.wanted = Store({})
        # The site.
        self.moved: set[Workload] = set()
        self.configured: dict[str, str] = {}
        self.issued = 0
        # The MDM service: what it wants, and the session that is under way.
        self.assigned: dict[str, str] = {}
        self.session: tuple[int, list[tuple[str, str | None]]] | None = None
        # The network.
        self.packets: list[ccm.Policy] = []
        self.uplink: list[list[str]] = []
        # The device.
        self.policy: ccm.Policy | None = None
        self.busy: dict[Workload, tuple[Authority, AbstractContextManager[bool]]] = {}
        # Of processes that ended: kept, or Python would end their writes for them.
        self.dead: list[AbstractContextManager[bool]] = []
        # The observer, and the site's account of the ledger.
        self.seen: dict[str, tuple[str, str, int]] = {}
        self.may: dict[Workload, set[Authority]] = {w: {Authority.MDM} for w in Workload}
        self.asked_gone: set[str] = set()
        self.files: set[str] = set()
        self.offset = 0
        self.account = Account()
        self.site = Account()
        self.public = device_key(self.folder).public_key()
        self.start()

    def start(self) -> None:
        """The device's processes, from what its disk holds."""
        self.folder.lit.writes = 0
        self.dead += [held for _, held in self.busy.values()]
        self.busy.clear()
        self.session = None
        journal = Journal(self.machine.logs, self.clock, max_bytes=10_000)
        self.gate = Gate(self.folder, journal, self.clock)
        self.gate.abandon(Authority.SITE)
        self.gate.abandon(Authority.MDM)
        self.gate.brings_about(True)
        self.handlers = Handlers(
            self.root,
            self.folder,
            self.gate,
            journal,
            None,  # type: ignore[arg-type]
            self.clock,
            forbidden=self.folder.path,
            minute_seconds=60,
        )
        self.handler = CoManagementHandler(
            self.machine, self.folder, self.gate, journal, self.handlers
        )
        self.branch = PolicyBranch(self.wanted, lambda: self.gate)

    @contextmanager
    def device(self, trouble: tuple[int, str] = (0, "")) -> Iterator[None]:
        """What happens on the device, and may end it."""
        if trouble[0]:
            self.folder.lit.writes, self.folder.lit.way = trouble
        try:
            yield
        except Killed:
            self.start()
        except (AppError, OSError):
            self.folder.lit.writes = 0

    # Administrators.

    @initialize()
    def enabled(self) -> None:
        self._issue()
        self.deliver(0)

    @rule(moved=st.sets(st.sampled_from(MOVED)), heard=st.booleans(), trouble=troubles)
    def switch(self, moved: set[Workload], heard: bool, trouble: tuple[int, str]) -> None:
        self.moved = moved
        self._issue()
        if heard:
            self.deliver(len(self.packets) - 1, False, trouble)

    @rule(setting=st.sampled_from(SETTINGS), value=values)
    def configure(self, setting: str, value: str | None) -> None:
        _put(self.configured, setting, value)
        self._issue()

    @rule(setting=st.sampled_from(SETTINGS), value=values)
    def assign(self, setting: str, value: str | None) -> None:
        _put(self.assigned, setting, value)

    def _issue(self) -> None:
        self.issued += 1
        policy = ccm.ConfigurationPolicy(
            "p", "Prod", self.issued, "production", True, False, capabilities(self.moved)
        )
        items = [
            ccm.Configuration(
                name, workload_of_area(name.split("/")[0]).value, name, _said("site", name, value)
            )
            for name, value in self.configured.items()
        ]
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.issued)
        self.packets.append(ccm.Policy("GUID:1", "CM1", self.issued, at, at, {}, [policy], items))

    # The network, and the site's word on the device.

    @precondition(lambda self: self.packets)
    @rule(index=st.integers(0, 9), again=st.booleans(), trouble=troubles)
    def deliver(self, index: int, again: bool = False, trouble: tuple[int, str] = (0, "")) -> None:
        index %= len(self.packets)
        policy = self.packets[index] if again else self.packets.pop(index)
        if self.policy is None or policy.issued_at > self.policy.issued_at:
            self.policy = policy
        self.evaluate(trouble)

    @precondition(lambda self: self.packets)
    @rule(index=st.integers(0, 9))
    def lose(self, index: int) -> None:
        self.packets.pop(index % len(self.packets))

    def _flags(self) -> int:
        assert self.policy is not None
        return effective(
            self.policy.configuration_policies[0].capabilities, self.bridge.state.enrolled
        )

    @precondition(lambda self: self.policy is not None)
    @rule(trouble=troubles)
    def evaluate(self, trouble: tuple[int, str] = (0, "")) -> None:
        flags = self._flags()
        for workload in Workload:
            # Until it is through, either decision may be the one in force.
            self.may[workload].add(owner_of(workload, flags))
        named = {item.setting for item in self.policy.configurations}
        self.asked_gone = {name for name in self.seen if name not in named}
        with self.device(trouble):
            _through(
                self.handler.evaluate(
                    self.policy, lambda *_: None, version="1", effects={}, current=True, sync=False
                )
            )
            for workload in Workload:
                assert self.gate.owner(workload) is owner_of(workload, flags)
                self.may[workload] = {owner_of(workload, flags)}
        self.observe()
        self.asked_gone = set()

    # The MDM service's sessions, between whose messages anything may happen.

    @rule()
    def call(self) -> None:
        assume(self.bridge.state.enrolled and self.bridge.published)
        said = self.bridge.info.flags
        current = said == self.gate.flags
        believed = [
            name
            for name in SETTINGS
            if owner_of(workload_of_area(name.split("/")[0]), said) is Authority.MDM
        ]
        commands = [(name, self.assigned.get(name)) for name in believed]
        self.session = (self.gate.epoch if current else -1, commands)

    @precondition(lambda self: self.session is not None)
    @rule(last=st.booleans(), trouble=troubles)
    def hear(self, last: bool, trouble: tuple[int, str] = (0, "")) -> None:
        epoch, commands = self.session
        with self.device(trouble):
            while commands:
                name, value = commands.pop(0)
                path = ("Config", *name.split("/"))
                if value is None:
                    self.asked_gone = {name}
                    self.branch.delete(path)
                else:
                    self.branch.write(
                        path, Item(data=_said("mdm", name, value), format="chr"), add=False
                    )
                self.observe()
                self.asked_gone = set()
                if not last:
                    return
            late, before = epoch != self.gate.epoch, set(self.gate.applied)
            self.gate.confirm(Authority.MDM, epoch)
            assert not late or set(self.gate.applied) == before
            self.session = None
        self.asked_gone = set()
        self.observe()

    @rule()
    def hang_up(self) -> None:
        self.session = None

    @rule()
    def offer_again(self) -> None:
        with self.device():
            self.branch.offer()
        self.observe()

    @rule(enrolled=st.booleans())
    def enroll(self, enrolled: bool) -> None:
        if enrolled == self.bridge.state.enrolled:
            return
        self.bridge.state = MdmEnrollment(enrolled, "u", "MDM", enrolled)
        if not enrolled:
            self.session = None
            self.wanted.kept.clear()

    # Writes that take time.

    @rule(workload=st.sampled_from(MOVED))
    def install(self, workload: Workload) -> None:
        if workload in self.busy:
            return
        with self.device():
            for source in Authority:
                held = self.gate.writing(source, workload)
                if held.__enter__():
                    assert source in self.may[workload]
                    self.busy[workload] = (source, held)
                    return
                held.__exit__(None, None, None)

    @precondition(lambda self: self.busy)
    @rule()
    def installed(self) -> None:
        workload = next(iter(self.busy))
        _, held = self.busy.pop(workload)
        with self.device(), ExitStack() as stack:
            stack.push(held.__exit__)

    # Trouble.

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(hours=st.integers(0, 30))
    def pass_time(self, hours: int) -> None:
        self.clock.passes(hours=hours)
        if hours >= 1:
            # Nobody may hold the right to write for longer.
            self.dead += [held for _, held in self.busy.values()]
            self.busy.clear()

    @rule(hours=st.integers(1, 30))
    def turn_the_clock_back(self, hours: int) -> None:
        self.clock.passes(hours=-hours)

    @rule(days=st.integers(2, 4))
    def wait_for_the_bound(self, days: int) -> None:
        """However the clock went before: a hand-over is over, or somebody is told."""
        if self.policy is None:
            return
        for _ in range(2):
            self.evaluate()
            self.pass_time(24 * days)
        before = self.gate.epoch
        self.evaluate()
        if self.gate.epoch == before and not self.folder.lit.writes:
            assert all(one.overdue for one in self.gate.handovers.values())
            assert all(self.gate.holding(w).writer is not None for w in Workload)

    # The ledger on its way.

    @rule()
    def send_ledger(self) -> None:
        with self.device():
            part = self.gate.ledger.unsent(5)
            if part:
                self.uplink.append([one.text for one in part])

    @precondition(lambda self: self.uplink)
    @rule(index=st.integers(0, 9), again=st.booleans(), answered=st.booleans())
    def receive_ledger(self, index: int, again: bool, answered: bool) -> None:
        index %= len(self.uplink)
        part = self.uplink[index] if again else self.uplink.pop(index)
        for text in part:
            entry = ccm.open_entry(text, self.public)
            if self.site.follows(entry):
                self.site, _ = follow(self.site, entry, ccm.entry_digest(text), self.clock())
        if answered:
            with self.device():
                self.gate.ledger.wanted(self.site.number + 1)

    # What has to hold.

    def observe(self) -> None:
        """Every change of a value in force was its owner's, and no value went too early."""
        now = {n: (a.source, a.workload, a.count) for n, a in self.gate.applied.items()}
        for name, (source, kind, _) in now.items():
            if self.seen.get(name) == now[name]:
                continue
            workload = Workload(kind)
            assert Authority(source) in self.may[workload], (name, source)
            if workload in self.busy:
                assert self.busy[workload][0].value == source, (name, source)
        for name, (source, kind, _) in self.seen.items():
            if name in now:
                continue
            workload = Workload(kind)
            withdrawn = name in self.asked_gone and Authority(source) in self.may[workload]
            successor = any(
                w == kind and s != source for s, w, _ in (*now.values(), *self.seen.values())
            )
            assert withdrawn or successor, f"{name} of {source} went before anything came"
            if not withdrawn:
                for other, (who, w, _) in now.items():
                    if w == kind and who != source and other.startswith("TandemFiles/"):
                        assert (self.root / _file(other, who)).exists(), f"{other} is not there yet"
        self.seen = now
        self._observe_files()

    def _observe_files(self) -> None:
        """A file went because its setting did, by the rules above, or because what the setting says
        now is there."""
        files = set(os.listdir(self.root))
        applied = self.gate.applied
        for name in self.files - files:
            setting = f"TandemFiles/{name.partition('.')[2]}"
            assert setting not in applied or _file(setting, applied[setting].source) in files, name
        self.files = files

    @invariant()
    def the_ledger_tells_the_same(self) -> None:
        file = self.folder.path / "ledger.jws"
        data = file.read_bytes() if file.exists() else b""
        assert len(data) >= self.offset, "the ledger became shorter"
        end = data.rfind(b"\n") + 1
        for line in data[self.offset : end].decode().splitlines():
            entry = ccm.open_entry(line, self.public)
            assert self.account.follows(entry)
            if entry.kind == "own" and entry.reason != "begin":
                # What is decided for others leaves a workload, and its bound, alone.
                assert self.account.owners[entry.workload].owner != entry.authority
            self.account, found = follow(self.account, entry, ccm.entry_digest(line), entry.at)
            assert not [one for one in found if one.flaw.breaks], found
        self.offset = end
        kept = self.folder.load("gate.json", _Head)
        if kept is None or kept.number != self.account.number or not kept.number:
            return
        told = {name: one.authority for name, one in self.account.settings.items()}
        assert told == {name: a.source for name, a in self.gate.applied.items()}
        for workload in Workload:
            assert self.account.owners[workload.value].owner == self.gate.owner(workload).value

    @invariant()
    def nobody_writes_only_while_a_write_is_under_way(self) -> None:
        for workload in Workload:
            holding = self.gate.holding(workload)
            assert holding.writer in (None, holding.owner)
            if holding.writer is None:
                assert holding.busy is not None
                assert 0 < holding.busy_seconds <= 3600

    def teardown(self) -> None:
        try:
            self._come_to_rest()
        finally:
            for held in [*self.dead, *(held for _, held in self.busy.values())]:
                with suppress(AppError):
                    held.__exit__(None, None, None)
            self._temporary.cleanup()

    def _come_to_rest(self) -> None:
        """When trouble ends, both authorities' wishes are in force, each where it owns."""
        self.start()
        self.observe()
        self.bridge.state = MdmEnrollment(True, "u", "MDM", True)
        self._issue()
        self.deliver(len(self.packets) - 1)
        for _ in range(2):
            self.call()
            while self.session is not None:
                self.hear(True)
            self.evaluate()
        owners = {name: self.gate.owner(workload_of_area(name.split("/")[0])) for name in SETTINGS}
        for name, owner in owners.items():
            wish = (self.configured if owner is Authority.SITE else self.assigned).get(name)
            found = self.gate.applied.get(name)
            if wish is not None:
                assert found is not None
                assert (found.source, found.value) == (owner.value, _said(owner.value, name, wish))
            elif found is not None:
                # Left over: nothing of its owner is in force in its workload.
                assert found.source != owner.value
                assert self.gate.holding(Workload(found.workload)).leaving is not None
        self.the_ledger_tells_the_same()
        self.gate.ledger.wanted(self.site.number + 1)
        for line in self.gate.ledger.unsent(100_000):
            entry = ccm.open_entry(line.text, self.public)
            self.site, _ = follow(self.site, entry, ccm.entry_digest(line.text), self.clock())
        assert self.site == self.account


class _Head(msgspec.Struct):
    """Of the gate's file: how far its ledger goes."""

    number: int = 0


def _file(setting: str, source: str) -> str:
    return f"{source}.{setting.partition('/')[2]}"


def _said(source: str, setting: str, value: str) -> str:
    """A value; that of a file names one of the authority's own."""
    if not setting.startswith("TandemFiles/"):
        return f"{source} {value}"
    return json.dumps({"path": f"/{_file(setting, source)}", "content": value})


def _put(where: dict[str, str], setting: str, value: str | None) -> None:
    if value is None:
        where.pop(setting, None)
    else:
        where[setting] = value


def _through(work: Any) -> None:
    """Run what waits for nobody."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


# `make model` runs many more.
SCHEDULES = int(os.environ.get("SCHEDULES", "40"))

OneWriter.TestCase.settings = settings(
    max_examples=SCHEDULES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
test_one_writer = OneWriter.TestCase
