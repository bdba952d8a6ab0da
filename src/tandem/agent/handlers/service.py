"""Bringing the device in line with what is in force, setting by setting."""

import uuid
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import msgspec

from tandem.agent.folder import Folder
from tandem.agent.gate import COMPONENTS, Applied, Gate
from tandem.agent.handlers.apps import Apps
from tandem.agent.handlers.compliance import facts
from tandem.agent.handlers.files import Files
from tandem.agent.handlers.firewall import Firewall
from tandem.agent.handlers.model import Effect, Record, Trouble
from tandem.agent.handlers.root import Root
from tandem.agent.handlers.units import Units
from tandem.agent.journal import INFORMATION, WARNING, Journal
from tandem.infra.clock import Clock
from tandem.infra.errors import AppError
from tandem.workloads import APPS, FILES, FIREWALL, UNITS, Authority, Workload, workload_of_area
from tandem.workloads.instructions import App, File, Instruction, Rule, Unit, area_of, read

# Detection may run a script, so an app that is there is looked at again only now and then; a
# failure is tried again as often.
LOOK_AGAIN_MINUTES = 60
FACTS = "facts.json"
KEPT, UNDO_FAILED = "kept", "undo.failed"
# A unit's file comes before its links, and what apps need before the apps.
_ORDER = (FILES, UNITS, FIREWALL, APPS)
# Between a setting's name, which has no spaces, and what it said before.
_REPLACED = " before "


def may_write(gate: Gate, source: Authority, workload: Workload) -> bool:
    """The one question that handlers put to the gate, before each write."""
    return gate.holding(workload).writer is source


class Handlers:
    def __init__(
        self,
        root: Path,
        folder: Folder,
        gate: Gate,
        journal: Journal,
        http: httpx.AsyncClient,
        now: Clock,
        *,
        forbidden: Path,
        minute_seconds: float,
        own_network: bool = False,
    ) -> None:
        """`folder` is the client's; `forbidden` is the agent's own: no policy reaches into it.
        `own_network`: the process has a network of its own, whose rules are the device's."""
        self._root = Root(root, forbidden)
        self._client_folder = folder
        folder = self._folder = folder.below("handlers")
        self._gate = gate
        self._journal = journal
        self._now = now
        self._minute = timedelta(seconds=minute_seconds)
        self._files = Files(self._root, folder)
        self._units = Units(self._root)
        self._firewall = Firewall(its_own=own_network or self._root.is_system)
        self._apps = Apps(
            self._root,
            folder.below("runs"),
            http,
            lambda text: journal.write(COMPONENTS[Workload.CLIENT_APPS], text),
        )
        self._records = self._load()
        self._saved: dict[str, bytes] = {}

    @property
    def effects(self) -> list[Effect]:
        """How each setting that has to do with this device stands."""
        shown = (r for r in self._records.values() if not r.replaced or r.effect.failed)
        return [record.effect for record in shown]

    def facts(self, asks: Authority) -> dict[str, str]:
        """The compliance facts for an authority; none for one that does not own the workload."""
        if not may_write(self._gate, asks, Workload.COMPLIANCE_POLICIES):
            return {}
        rules = [r for r in self._records.values() if area_of(r.setting) == FIREWALL and r.done]
        return facts(self._root, len(rules))

    def _publish_facts(self) -> None:
        """Lay the facts where the MDM client finds them, while they are the MDM service's."""
        found = self.facts(Authority.MDM)
        data = msgspec.json.encode(found) if found else None
        if data == self._client_folder.read(FACTS):
            return
        with suppress(OSError):
            if data is None:
                self._client_folder.remove(FACTS)
            else:
                self._client_folder.write(FACTS, data)

    def look_again(self) -> None:
        """What is left alone for a while is not left alone the next time."""
        for record in self._records.values():
            record.look_at = None

    async def act(self) -> None:
        """Make what differs, then take away what it replaces. What goes wrong is an effect, no
        exception.

        An owner that withdraws something of its own means that it goes. What another had set, and
        what a setting said before it said something else, stays until what comes in its place was
        read back: the gate lets go of the former, the record of the latter.
        """
        self._publish_facts()
        await self._undo([record for record in self._gone() if self._is_owners(record)])
        applied = {name: one for name, one in self._gate.applied.items() if area_of(name)}
        for name in sorted(applied, key=lambda name: (_ORDER.index(area_of(name)), name)):
            # Whatever came before took its time, so what is in force is asked for once more.
            wanted = self._gate.applied.get(name)
            if wanted is not None:
                await self._follow(name, wanted)
                self._confirm(name, wanted)
        await self._undo([record for record in self._gone() if not self._waited_for(record)])

    def _gone(self) -> list[Record]:
        """What was made, and is in force no more."""
        applied = self._gate.applied
        return [record for name, record in self._records.items() if name not in applied]

    def _is_owners(self, record: Record) -> bool:
        workload = workload_of_area(area_of(record.setting))
        return not record.replaced and may_write(self._gate, Authority(record.source), workload)

    def _waited_for(self, record: Record) -> bool:
        """Whether what replaces it was not read back yet."""
        if not record.replaced:
            return False
        setting = record.setting.partition(_REPLACED)[0]
        after, wanted = self._records.get(setting), self._gate.applied.get(setting)
        if wanted is None:
            return False
        return after is None or not after.done or after.value != wanted.value

    async def _undo(self, records: list[Record]) -> None:
        for record in sorted(records, key=_order, reverse=True):
            await self._withdraw(record)

    def _confirm(self, setting: str, wanted: Applied) -> None:
        """Tell the gate what was read back; a hand-over may wait for it."""
        record = self._records.get(setting)
        if record is None or not record.done or wanted.seen:
            return
        if (record.source, record.value) != (wanted.source, wanted.value):
            return
        source = Authority(wanted.source)
        if may_write(self._gate, source, workload_of_area(area_of(setting))):
            try:
                self._gate.read_back(source, setting, wanted.value)
            except AppError as error:
                self._write(record, error.message, WARNING)  # Told again in a minute.

    # One setting.

    async def _follow(self, setting: str, wanted: Applied) -> None:
        source, workload = Authority(wanted.source), workload_of_area(area_of(setting))
        record = self._records.get(setting)
        if not may_write(self._gate, source, workload):
            if record is not None and record.effect.code != KEPT:
                who = _WHO[Authority(record.source)]
                with suppress(OSError):
                    self._say(record, KEPT, f"What {who} set stays; it owns the workload no more.")
            return
        if record is None:
            record = self._new(setting, source)
        try:
            if wanted.workload != workload.value:
                raise Trouble(
                    "setting.other-workload",
                    f"{setting} belongs to {workload.title}, and came as part of another workload.",
                    cure=f"Deploy it as part of {workload.value}.",
                )
            instruction = read(setting, wanted.value)
            if record.value and not _is_same(instruction, _instruction(record)):
                if self._waits(record):
                    return
                if isinstance(instruction, App):
                    # Its removal could take away what the next one brought.
                    record.look_at = self._now() + self._minute * LOOK_AGAIN_MINUTES
                    await self._undone(record)
                    self._drop(record)
                else:
                    self._set_aside(record)
                record = self._new(setting, source)
            same = (record.source, record.value) == (source.value, wanted.value)
            record.source, record.value = source.value, wanted.value
            settled = same and record.done and record.effect.code != KEPT
            await self._enact(instruction, record, settled, same)
        except AppError as error:
            self._fail(record, error.code, error)
        except OSError as error:
            self._fail(record, "effect.failed", Trouble("", f"{error.strerror or error}."))

    def _set_aside(self, record: Record) -> None:
        """Keep what a setting made before it said something else, to be undone when that is there."""
        old = sha256(record.value.encode()).hexdigest()[:8]
        aside = msgspec.structs.replace(
            record, setting=f"{record.setting}{_REPLACED}{old}", replaced=True, look_at=None
        )
        kept = self._folder.read(f"{_name(record.setting)}.before")
        if kept is not None:
            self._folder.write(f"{_name(aside.setting)}.before", kept)
        self._save(aside)
        self._drop(record)

    def _waits(self, record: Record) -> bool:
        """Whether what failed is to be left alone for now."""
        return self._is_later(record) and record.effect.failed

    def _is_later(self, record: Record) -> bool:
        """Whether it is to be looked at again later; a clock that was turned back makes it now."""
        if record.look_at is None:
            return False
        now = self._now()
        return now < record.look_at <= now + self._minute * LOOK_AGAIN_MINUTES

    def _new(self, setting: str, source: Authority) -> Record:
        effect = Effect(setting, source.value, "begun", "", self._now())
        return Record(setting, source.value, "", effect)

    async def _enact(
        self, instruction: Instruction, record: Record, settled: bool, same: bool
    ) -> None:
        """`settled`: the setting was brought about before, so what differs now is a drift; `same`:
        it was at least tried before."""
        match instruction:
            case File():
                self._enact_file(instruction, record, settled)
            case Unit():
                self._enact_unit(instruction, record, settled)
            case Rule():
                await self._enact_rule(instruction, record, settled)
            case App():
                await self._enact_app(instruction, record, settled, same)

    def _enact_file(self, wanted: File, record: Record, settled: bool) -> None:
        self._claim(wanted, record)
        if self._files.in_place(wanted):
            if not settled:
                self._files.prepare(wanted, record, _name(record.setting))
                self._finish(record, "in-place", f"{wanted.path} is as it is to be.")
            return
        self._files.prepare(wanted, record, _name(record.setting))
        self._begin(record)
        self._files.write(wanted, record)
        _is_read_back(self._files.in_place(wanted), wanted.path)
        what = "removed" if wanted.absent else "written"
        self._finish(record, "corrected" if settled else what, f"{wanted.path} was {what}.")

    def _claim(self, wanted: File, record: Record) -> None:
        """Of two settings that name one file the owner's holds, and knows what was there first."""
        for other in list(self._records.values()):
            if other.setting == record.setting:
                continue
            instruction = _instruction(other)
            if not isinstance(instruction, File) or instruction.path != wanted.path:
                continue
            if other.source == record.source and other.setting in self._gate.applied:
                raise Trouble(
                    "file.claimed",
                    f"{other.setting} writes {wanted.path} already.",
                    cure="Withdraw one of the two.",
                )
            if record.before is None:
                record.before, record.folders = other.before, other.folders
                kept = self._folder.read(f"{_name(other.setting)}.before")
                if kept is not None:
                    self._folder.write(f"{_name(record.setting)}.before", kept)
            record.wrote += other.wrote
            self._begin(record)
            self._drop(other)

    def _enact_unit(self, wanted: Unit, record: Record, settled: bool) -> None:
        state = "enabled" if wanted.enabled else "disabled"
        if self._units.in_place(wanted):
            if not settled:
                self._finish(record, "in-place", f"{wanted.unit} is {state}.")
            return
        self._units.prepare(wanted, record)
        self._begin(record)
        self._units.write(wanted, record)
        _is_read_back(self._units.in_place(wanted), wanted.unit)
        self._finish(record, "corrected" if settled else "written", f"{wanted.unit} was {state}.")

    async def _enact_rule(self, wanted: Rule, record: Record, settled: bool) -> None:
        text = _sentence(wanted)
        if await self._firewall.in_place(wanted, record.setting):
            if not settled:
                self._finish(record, "in-place", text)
            return
        if not may_write(self._gate, Authority(record.source), Workload.DEVICE_CONFIGURATION):
            return  # The workload moved while the kernel was asked.
        self._begin(record)
        await self._firewall.write(wanted, record.setting)
        there = await self._firewall.in_place(wanted, record.setting)
        _is_read_back(there, "The firewall rule")
        self._finish(record, "corrected" if settled else "written", text)

    async def _enact_app(self, wanted: App, record: Record, settled: bool, same: bool) -> None:
        now = self._now()
        waits = self._is_later(record)
        if waits and not record.run and (settled or (same and record.effect.failed)):
            return
        if self._apps.is_running(record):
            self._say(record, "app.running", "An earlier run goes on; it is waited for.")
            return
        record.look_at = now + self._minute * LOOK_AGAIN_MINUTES
        if await self._apps.detected(wanted):
            record.ours = record.ours or bool(record.run)
            self._apps.forget(record)
            text = "It is there." if record.ours else "It was there already."
            self._finish(record, "in-place", text)
            return
        if record.run:
            await self._apps.recover(wanted, record)
        # Whoever owns the workload next waits until the installation is over.
        with self._gate.writing(Authority(record.source), Workload.CLIENT_APPS) as ours:
            if not ours:
                return  # The workload moved while the rule was looked at.
            record.run = uuid.uuid4().hex
            self._begin(record)
            await self._apps.install(wanted, record)
        record.ours = True
        text = "It was installed, and its rule detects it."
        self._finish(record, "corrected" if settled else "written", text)

    async def _withdraw(self, record: Record) -> None:
        """Undo what a setting did that is in force no more: the gate let its owner take it away, or
        cleared it away as left over."""
        if record.effect.code == UNDO_FAILED and self._waits(record):
            return
        try:
            text = await self._undone(record)
            self._drop(record)
        except (AppError, OSError) as error:
            record.look_at = self._now() + self._minute * LOOK_AGAIN_MINUTES
            trouble = error if isinstance(error, AppError) else Trouble("", str(error))
            self._fail(record, UNDO_FAILED, trouble)
            return
        self._write(record, f"'{record.setting}' of {record.source} was withdrawn: {text}")

    async def _undone(self, record: Record) -> str:
        instruction = _instruction(record)
        match instruction:
            case None:
                return "it had no effect."
            case File():
                if self._files.undo(instruction.path, record, _name(record.setting)):
                    return "what was there before is back."
                return "somebody has changed the file since, and it stays."
            case Unit():
                self._units.undo(record)
                return "the links are as they were."
            case Rule():
                await self._firewall.remove(record.setting)
                return "the firewall rule is gone."
            case App():
                if not record.ours and not record.run:
                    return "nothing of it is there by our hand."
                if self._apps.is_running(record):
                    raise Trouble("app.running", "An earlier run goes on; it is waited for.")
                record.run = record.run or uuid.uuid4().hex
                self._save(record)
                if await self._apps.remove(instruction, record):
                    return "the app was removed."
                return "the app does not say how it is removed, and stays."

    # What is kept.

    def _load(self) -> dict[str, Record]:
        found = (
            self._folder.load(path.name, Record)
            for path in sorted(self._folder.path.glob("*.json"))
        )
        return {record.setting: record for record in found if record is not None}

    def _save(self, record: Record) -> None:
        """On disk, unless it lies there like this already."""
        self._records[record.setting] = record
        data = msgspec.json.encode(record)
        if self._saved.get(record.setting) != data:
            self._folder.write(f"{_name(record.setting)}.json", data)
            self._saved[record.setting] = data

    def _drop(self, record: Record) -> None:
        self._records.pop(record.setting, None)
        self._saved.pop(record.setting, None)
        self._folder.remove(f"{_name(record.setting)}.json")
        self._folder.remove(f"{_name(record.setting)}.before")
        self._folder.sync()

    def _begin(self, record: Record) -> None:
        record.done = False
        self._save(record)

    def _finish(self, record: Record, code: str, text: str) -> None:
        record.done = True
        self._say(record, code, text)

    def _fail(self, record: Record, code: str, error: AppError) -> None:
        text = f"{error.message} {error.cure}".strip()
        record.done = False
        self._say(record, code, text, failed=True)

    def _say(self, record: Record, code: str, text: str, *, failed: bool = False) -> None:
        """Keep how the setting stands, and write it into the log of its workload when it is news."""
        before = record.effect
        told = (before.code, before.text, before.source) == (code, text, record.source)
        if not told:
            record.effect = Effect(record.setting, record.source, code, text, self._now(), failed)
        # A full disk is a reason to fail, and must not keep the failure from being reported.
        with suppress(OSError) if failed else nullcontext():
            self._save(record)
        if not told:
            severity = WARNING if failed else INFORMATION
            self._write(record, f"'{record.setting}' of {record.source}: {text} ({code})", severity)

    def _write(self, record: Record, text: str, severity: int = INFORMATION) -> None:
        component = COMPONENTS[workload_of_area(area_of(record.setting))]
        self._journal.write(component, text, severity)


_WHO: Mapping[Authority, str] = {Authority.SITE: "the site", Authority.MDM: "the MDM service"}


def _is_read_back(there: bool, what: str) -> None:
    if not there:
        raise Trouble(
            "effect.not-read-back",
            f"{what} was written, and is not as it was written.",
            cure="Look for another program on the device that writes it too.",
        )


def _sentence(rule: Rule) -> str:
    what = {"accept": "accepted", "drop": "dropped"}[rule.action]
    at = f"at {rule.protocol.upper()} port {rule.port}"
    if rule.direction == "in":
        other = f" from {rule.address}" if rule.address else ""
        return f"What comes in{other} {at} is {what}."
    other = f" to {rule.address}" if rule.address else ""
    return f"What goes out{other} {at} is {what}."


def _name(setting: str) -> str:
    """A file name for a setting, whatever it is called."""
    return sha256(setting.encode()).hexdigest()[:32]


def _order(record: Record) -> tuple[int, str]:
    return _ORDER.index(area_of(record.setting)), record.setting


def _instruction(record: Record) -> Instruction | None:
    """What the record's value says; None for one that never said anything."""
    try:
        return read(record.setting, record.value)
    except AppError:
        return None


def _is_same(one: Instruction, other: Instruction | None) -> bool:
    """Whether both are about one file, unit or app, so that the later goes over the earlier."""
    match one, other:
        case File(), File():
            return one.path == other.path
        case Unit(), Unit():
            return one.unit == other.unit
        case Rule(), Rule():
            return True  # One takes the other's place in one transaction.
        case App(), App():
            return one.rule == other.rule
    return other is None
