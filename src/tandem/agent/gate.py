"""One writer per workload: every value that anyone wants to set on the device passes here.

Before each decision the question and its answer go to the log of the workload's own component, in
the lines that administrators know. Who may write is what `tandem.workloads.step` says. What is in
force, how each workload is held, and the signed entries that tell of it are kept in one file, which
is whole or not there; from it the ledger is completed, so neither says what the other does not.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem.agent import locks
from tandem.agent.folder import Folder, device_key
from tandem.agent.installation import client_folder, installed
from tandem.agent.journal import ERROR, WARNING, Journal
from tandem.agent.ledger import LIMIT_BYTES, Ledger
from tandem.infra.clock import Clock
from tandem.infra.errors import AppError, Kind
from tandem.protocols import ccm
from tandem.workloads import (
    CATALOGUE,
    Authority,
    Cleared,
    Confirmed,
    Decided,
    Effect,
    Holding,
    Passed,
    Said,
    Workload,
    WriteBegan,
    WriteEnded,
    owner_of,
    step,
)
from tandem.workloads.instructions import area_of

FILE = "gate.json"
# A device's next session with its MDM service is at most eight hours away; a day leaves room for
# one that is switched off at night.
HANDOVER_SECONDS = 24 * 3600.0
# Whoever installs something for longer than this is taken for dead.
WRITE_SECONDS = 3600.0

COMPONENTS = {workload: entry.component for workload, entry in CATALOGUE.items()}


class NotKept(AppError):
    """A decision could not be written down, so it was not made."""

    kind, code = Kind.UNAVAILABLE, "agent.not-kept"


class Applied(msgspec.Struct, frozen=True):
    """A setting in force. `count` is how often it was written: never twice for one decision.
    `seen`: its effect on this machine was read back, where it has one."""

    value: str
    source: str
    workload: str
    at: datetime
    count: int = 1
    seen: bool = False


class _Kept(msgspec.Struct):
    registered: bool = False
    flags: int = 0
    settings: dict[str, Applied] = {}
    epoch: int = 0
    holdings: dict[str, Holding] = {}
    # Whether handlers on this machine give values an effect, which is then waited for.
    acts: bool = False
    # Workload → the decision by which its owner said that it has set all that it wants there.
    said: dict[str, int] = {}
    # The newest entry of the ledger, and those that may not be in its file yet.
    number: int = 0
    digest: str = ccm.GENESIS
    unwritten: list[str] = []


class Gate:
    """The `ConfigurationGate` of one device."""

    def __init__(self, folder: Folder, journal: Journal, now: Clock) -> None:
        self._folder = folder
        self._journal = journal
        self._now = now
        self._stamp: tuple[int, int, int] | None = None
        self._kept = _Kept()
        self._entries: list[dict[str, Any]] = []
        self._dirty = False
        self._said: dict[tuple[Authority, Workload], bool] = {}
        self._key: ec.EllipticCurvePrivateKey | None = None
        self.ledger = Ledger(folder)

    # What is kept.

    def _on_disk(self) -> tuple[int, int, int] | None:
        try:
            found = (self._folder.path / FILE).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _load(self) -> None:
        before = self._kept.flags, self._kept.registered
        self._stamp = self._on_disk()
        self._kept = self._folder.load(FILE, _Kept) or _Kept()
        if before != (self._kept.flags, self._kept.registered):
            self._said.clear()

    def _refresh(self) -> None:
        """See what another process that holds this gate has decided."""
        if self._on_disk() != self._stamp:
            self._load()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Decide something, alone. At the end it is kept, all of it; or, if it raises, nothing."""
        try:
            with locks.held(self._folder.path / "gate.lock"):
                self._load()
                self._entries, self._dirty = [], False
                self._open_ledger()
                for workload in Workload:
                    self._tell(workload, Passed(self._now()))
                yield
                if self._entries or self._dirty:
                    self._keep()
        except OSError as error:
            self._load()
            raise NotKept(
                f"What this device decides cannot be kept: {error.strerror or error}.",
                cure="Make room on the disk of the device, or make it writable.",
            ) from error

    def _signer(self) -> ec.EllipticCurvePrivateKey:
        if self._key is None:
            self._key = device_key(self._folder)
        return self._key

    def _open_ledger(self) -> None:
        """Complete the ledger where its writer was killed, and go on where it ends."""
        kept, last = self._kept, self.ledger.last(self._signer().public_key())
        number = last[0] if last else 0
        if last is not None and number > kept.number:
            # This file was lost, or is older than the ledger: what it said then is not known now.
            kept.number, kept.digest, kept.unwritten = number, last[1], []
            self._begin("state-lost")
        elif number < kept.number:
            missing = [one for one in kept.unwritten if ccm.read_entry(one).number > number]
            if missing:
                self.ledger.append(missing)
        if kept.number == 0:
            self._begin("")

    def begin_anew(self) -> None:
        """A ledger of its own for a device that gets a key of its own. Who owns what stays."""
        with locks.held(self._folder.path / "gate.lock"):
            self._load()
            kept = self._kept
            kept.number, kept.digest, kept.unwritten = 0, ccm.GENESIS, []
            self._folder.save(FILE, kept)
            self._stamp = self._on_disk()
            self._key = None
            self.ledger.forget()

    def _begin(self, reason: str) -> None:
        self._record("begin", reason=reason)
        for workload in Workload:
            holding = self._holding(workload)
            self._kept.holdings[workload.value] = holding
            if holding.owner is Authority.SITE:
                self._record("own", workload, holding.owner, reason="begin", flags=self._kept.flags)

    def _record(
        self,
        kind: ccm.EntryKind,
        workload: Workload | None = None,
        authority: Authority | None = None,
        **more: Any,
    ) -> None:
        self._entries.append(
            {
                "kind": kind,
                "workload": workload.value if workload else "",
                "authority": authority.value if authority else "",
                **more,
            }
        )

    def _keep(self) -> None:
        kept, at = self._kept, self._now()
        lines: list[str] = []
        for told in self._entries:
            entry = ccm.LedgerEntry(number=kept.number + 1, at=at, previous=kept.digest, **told)
            lines.append(ccm.sign_entry(entry, self._signer()))
            kept.number, kept.digest = entry.number, ccm.entry_digest(lines[-1])
        kept.unwritten = lines
        self._folder.save(FILE, kept)
        self._stamp = self._on_disk()
        if not lines:
            return
        try:
            self.ledger.append(lines)
        except OSError as error:
            # It is decided and kept; the ledger's file is completed at the next decision.
            text = f"The ledger cannot be written yet: {error.strerror or error}."
            self._journal.write("CoManagementHandler", text, WARNING)

    def shorten(self, limit_bytes: int = LIMIT_BYTES) -> bool:
        """Cut the ledger where it is long and the site has all of it. True when it was. Raises NotKept."""
        if not self.ledger.may_be_cut(limit_bytes):
            return False
        with self._turn():
            account = self.ledger.account()
            if account is None or account.number != self._kept.number or self._entries:
                return False
            self._record("checkpoint", value=account.checkpoint)
        try:
            with locks.held(self._folder.path / "gate.lock"):
                self.ledger.cut(account)
        except OSError as error:
            text = f"The ledger cannot be shortened yet: {error.strerror or error}."
            self._journal.write("CoManagementHandler", text, WARNING)
            return False
        self._journal.write(
            "CoManagementHandler",
            f"The ledger was shortened: it begins with {account.number + 1} now.",
        )
        return True

    # Who holds what.

    @property
    def flags(self) -> int:
        """The flags that count now."""
        self._refresh()
        return self._kept.flags

    @property
    def epoch(self) -> int:
        """The number of the last decision about owners."""
        self._refresh()
        return self._kept.epoch

    def _holding(self, workload: Workload) -> Holding:
        found = self._kept.holdings.get(workload.value)
        return found if found is not None else Holding(self._owner(workload))

    def _owner(self, workload: Workload) -> Authority:
        """Until this device is a client of the site, the MDM service is its only authority."""
        if not self._kept.registered:
            return Authority.MDM
        return owner_of(workload, self._kept.flags)

    def owner(self, workload: Workload) -> Authority:
        """Until this device is a client of the site, the MDM service is its only authority."""
        self._refresh()
        return self._holding(workload).owner

    def holding(self, workload: Workload) -> Holding:
        self._refresh()
        return self._holding(workload)

    @property
    def handovers(self) -> dict[Workload, Holding]:
        """The workloads of which values of the owner before are still in force."""
        self._refresh()
        found = {workload: self._holding(workload) for workload in Workload}
        return {workload: one for workload, one in found.items() if one.leaving is not None}

    def set(
        self,
        flags: int,
        *,
        registered: bool,
        bound_seconds: float = HANDOVER_SECONDS,
    ) -> bool:
        """From now on decide by these flags. True when they differ from before.

        A hand-over that takes longer than `bound_seconds` is overdue.
        """
        with self._turn():
            kept = self._kept
            if (flags, registered) == (kept.flags, kept.registered):
                return False
            kept.flags, kept.registered, kept.epoch = flags, registered, kept.epoch + 1
            self._dirty = True
            self._said.clear()
            for workload in Workload:
                decided = Decided(self._owner(workload), kept.epoch, bound_seconds)
                self._tell(workload, decided)
            return True

    def _tell(self, workload: Workload, said: Said) -> tuple[Effect, ...]:
        before = self._holding(workload)
        after, effects = step(before, said)
        if after != before:
            self._kept.holdings[workload.value] = after
            passed = isinstance(said, Passed) and not effects
            self._dirty |= not passed or _worth_keeping(before, after)
        for effect in effects:
            self._follow(workload, after, effect)
        return effects

    def _follow(self, workload: Workload, holding: Holding, effect: Effect) -> None:
        owner, component = holding.owner, COMPONENTS[workload]
        match effect:
            case Effect.BEGAN:
                handed = bool(self._left(workload, owner)) or holding.writer is None
                self._record(
                    "own",
                    workload,
                    owner,
                    reason="hand-over" if handed else "",
                    flags=self._kept.flags,
                    bound=holding.left_seconds,
                )
                if handed:
                    self._tell(workload, Passed(self._now()))
                else:
                    after, _ = step(holding, Cleared())
                    self._kept.holdings[workload.value] = after
            case Effect.SETTLED:
                self._record("confirm", workload, owner)
                self._journal.write(component, f"The workload is handed over to {owner.value}.")
            case Effect.RELEASE:
                for setting in self._left(workload, owner):
                    self._remove(setting, "leftover")
            case Effect.OVERDUE:
                self._record("overdue", workload, owner)
                left = len(self._left(workload, owner))
                text = f"The hand-over to {owner.value} is overdue: {left} values set before stay."
                self._journal.write(component, text, ERROR)
            case Effect.WRITE_OVERDUE:
                text = "A write took longer than it may; its right to write is over."
                self._journal.write(component, text, ERROR)

    def brings_about(self, acts: bool) -> None:
        """Whether there are handlers here: then a value is in force when its effect was read back,
        and not already when the gate took it."""
        self._refresh()
        if self._kept.acts is acts:
            return
        with self._turn():
            self._kept.acts, self._dirty = acts, True

    def _is_seen(self, setting: str, one: Applied) -> bool:
        return one.seen or not self._kept.acts or not area_of(setting)

    def awaited(self, workload: Workload) -> list[str]:
        """The values of its owner whose effects were not read back yet."""
        self._refresh()
        return self._awaited(workload)

    def _awaited(self, workload: Workload) -> list[str]:
        owner = self._holding(workload).owner.value
        return [
            name
            for name, one in self._kept.settings.items()
            if one.workload == workload.value
            and one.source == owner
            and not self._is_seen(name, one)
        ]

    def _settle(self, workload: Workload) -> None:
        """End a hand-over whose new owner is confirmed: it has said all that it wants by this
        decision, has set something itself, and everything that it set was read back."""
        holding = self._holding(workload)
        if holding.leaving is None or self._awaited(workload):
            return
        owner = holding.owner
        if not self._left(workload, owner):
            self._tell(workload, Cleared())
            return
        self._tell(workload, Confirmed(owner, self._kept.said.get(workload.value, -1)))

    def read_back(self, source: Authority, setting: str, value: str) -> None:
        """The effect of this value was found on the machine, as it is to be."""
        self._refresh()
        if not self._is_news(source, setting, value):
            return
        with self._turn():
            if not self._is_news(source, setting, value):
                return
            found = self._kept.settings[setting]
            self._kept.settings[setting] = msgspec.structs.replace(found, seen=True)
            self._dirty = True
            self._settle(Workload(found.workload))

    def _is_news(self, source: Authority, setting: str, value: str) -> bool:
        found = self._kept.settings.get(setting)
        return (
            found is not None
            and (found.source, found.value) == (source.value, value)
            and not found.seen
        )

    def _left(self, workload: Workload, owner: Authority) -> list[str]:
        """Values in force in a workload that are not its owner's."""
        return [
            name
            for name, one in self._kept.settings.items()
            if one.workload == workload.value and one.source != owner.value
        ]

    def _remove(self, setting: str, reason: str) -> None:
        gone = self._kept.settings.pop(setting)
        workload = Workload(gone.workload)
        self._record(
            "remove", workload, Authority(gone.source), setting=_named(setting), reason=reason
        )
        self._journal.write(
            COMPONENTS[workload], f"Removed '{setting}' of {gone.source} ({reason})."
        )

    # What authorities want.

    def offer(self, source: Authority, workload: Workload, setting: str, value: str) -> bool:
        """Apply a value, or refuse it because the other authority owns the workload.

        Raises NotKept.
        """
        self._refresh()
        before = self._kept.settings.get(setting)
        same = before is not None and (before.value, before.source) == (value, source.value)
        if same and self._may_write(source, workload, before):
            return True
        with self._turn():
            return self._decide(source, workload, setting, value)

    def change(
        self,
        source: Authority,
        wanted: Mapping[str, tuple[Workload, str]],
        gone: Collection[str],
    ) -> None:
        """Offer values and withdraw others, in one decision: all of it is kept, or nothing.

        Raises NotKept.
        """
        self._refresh()
        held = self._kept.settings
        if not any(name in held and held[name].source == source.value for name in gone) and all(
            name in held
            and (held[name].value, held[name].source) == (value, source.value)
            and self._may_write(source, workload, held[name])
            for name, (workload, value) in wanted.items()
        ):
            return
        with self._turn():
            for name, (workload, value) in wanted.items():
                self._decide(source, workload, name, value)
            for name in sorted(gone):
                self._withdraw(source, name)

    def _may_write(self, source: Authority, workload: Workload, before: Applied | None) -> bool:
        """A setting that is in force as part of another workload is that one's owner's too."""
        both = {workload, *([Workload(before.workload)] if before is not None else [])}
        return all(self._holding(one).writer is source for one in both)

    def _decide(self, source: Authority, workload: Workload, setting: str, value: str) -> bool:
        before = self._kept.settings.get(setting)
        allowed = self._may_write(source, workload, before)
        self._explain(source, workload, allowed)
        if not allowed:
            return False
        if before is not None and (before.value, before.source) == (value, source.value):
            return True
        count = before.count + 1 if before is not None else 1
        self._kept.settings[setting] = Applied(
            value, source.value, workload.value, self._now(), count
        )
        digest = sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
        self._record("write", workload, source, setting=_named(setting), value=digest)
        # What it had said was without this.
        self._kept.said.pop(workload.value, None)
        self._settle(workload)
        self._journal.write(COMPONENTS[workload], f"Applied '{setting}' from {source.value}.")
        return True

    def withdraw(self, source: Authority, setting: str) -> bool:
        """Take away a value that its owner no longer wants. A value that another has set stays,
        and so does one that is left over: it goes with its hand-over."""
        with self._turn():
            return self._withdraw(source, setting)

    def _withdraw(self, source: Authority, setting: str) -> bool:
        found = self._kept.settings.get(setting)
        if found is None or found.source != source.value:
            return False
        if self._holding(Workload(found.workload)).writer is not source:
            return False
        self._remove(setting, "withdrawn")
        return True

    def keep_only(self, source: Authority, wanted: Collection[str]) -> None:
        """Withdraw everything of an authority that it does not want any more."""
        known = [name for name, one in self.applied.items() if one.source == source.value]
        if all(name in wanted for name in known):
            return
        with self._turn():
            for name in known:
                if name not in wanted:
                    self._withdraw(source, name)

    def give_up(self, source: Authority) -> None:
        """An authority leaves for good, and has handed over everything: what it set goes, whether or
        not the other has set something in its place. Where it is still the owner its values stay."""
        with self._turn():
            for name, one in list(self._kept.settings.items()):
                workload = Workload(one.workload)
                if one.source == source.value and self._holding(workload).owner is not source:
                    self._remove(name, "left")
            for workload in Workload:
                if not self._left(workload, self._holding(workload).owner):
                    self._tell(workload, Cleared())

    def confirm(self, source: Authority, epoch: int) -> None:
        """This authority has said all that it wants, by what it knew at `epoch`. Where it has set
        something itself, what was left over goes, once the effects of that were read back; where it
        has set nothing, what was left over stays."""
        if not self.handovers:
            return
        with self._turn():
            for workload in self.handovers:
                ours = any(
                    one.workload == workload.value and one.source == source.value
                    for one in self._kept.settings.values()
                )
                if ours and self._holding(workload).owner is source:
                    before = self._kept.said.get(workload.value, -1)
                    if before < epoch:
                        self._kept.said[workload.value], self._dirty = epoch, True
                    self._settle(workload)

    @contextmanager
    def writing(
        self, source: Authority, workload: Workload, bound_seconds: float = WRITE_SECONDS
    ) -> Iterator[bool]:
        """Hold the right to write for something that takes time, such as an installation. False: it
        is not this authority's now. Meanwhile nobody else gets it, for at most `bound_seconds`."""
        with self._turn():
            began = Effect.REFUSED not in self._tell(workload, WriteBegan(source, bound_seconds))
            self._tell(workload, Passed(self._now()))
        try:
            yield began
        finally:
            if began:
                self._end_write(source, workload)

    def _end_write(self, source: Authority, workload: Workload) -> None:
        with self._turn():
            self._tell(workload, WriteEnded(source))
            self._settle(workload)

    def abandon(self, source: Authority) -> None:
        """No write of this authority is under way: whoever did them was started anew."""
        self._refresh()
        for workload in Workload:
            if self._holding(workload).busy is source:
                self._end_write(source, workload)

    def of(self, source: Authority) -> list[str]:
        """The settings in force that this authority has set."""
        return [name for name, one in self.applied.items() if one.source == source.value]

    def value(self, setting: str) -> str | None:
        self._refresh()
        found = self._kept.settings.get(setting)
        return found.value if found is not None else None

    @property
    def applied(self) -> dict[str, Applied]:
        self._refresh()
        return dict(self._kept.settings)

    def _explain(self, source: Authority, workload: Workload, allowed: bool) -> None:
        if self._said.get((source, workload)) is allowed:
            return
        self._said[source, workload] = allowed
        component, flags = COMPONENTS[workload], self._kept.flags
        write = self._journal.write
        write(
            component, f"Verifying if workload {workload.bits} is enabled in workloadFlags {flags}"
        )
        write(component, f"Result of & operation is {flags & workload.bits}")
        if self._holding(workload).owner is Authority.MDM:
            write(component, "Feature flag is ON, device should be Intune managed.")
        else:
            write(component, "Feature flag is OFF, should be SCCM managed.")
        if not allowed:
            write(component, f"A value from {source.value} is not applied.", WARNING)


def _named(setting: str) -> str:
    """A setting's name as the ledger has it."""
    return setting.replace("\0", "\ufffd")[: ccm.TEXT_LIMIT]


def _worth_keeping(before: Holding, after: Holding) -> bool:
    """Whether time that passed is written down now: at the beginning, when a clock was turned back,
    and in steps that are small beside what is left. Until then it counts from where it is."""
    if before.seen_at is None or after.seen_at is None:
        return before.seen_at is not after.seen_at
    spent = (after.seen_at - before.seen_at).total_seconds()
    running = [left for left in (before.left_seconds, before.busy_seconds) if left > 0]
    return spent < 0 or spent >= min(running, default=0.0) / 20


def open_gate(state: Path, now: Clock, *, durable: bool = True) -> Gate | None:
    """The gate of the client in this state folder, for another process; None without a client."""
    folder = client_folder(state, durable)
    if installed(folder) is None:
        return None
    return Gate(folder, Journal(state / "Logs", now), now)
