"""One writer per workload: every value that anyone wants to set on the device passes here.

Before each decision the question and its answer go to the log of the workload's own component, in
the lines that administrators know. What is in force is kept on disk with its source, so the device
can prove who set it.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from tandem.agent import locks
from tandem.agent.folder import Folder
from tandem.agent.installation import client_folder, installed
from tandem.agent.journal import WARNING, Journal
from tandem.infra.clock import Clock
from tandem.workloads import CATALOGUE, Authority, Workload, owner_of

FILE = "gate.json"

COMPONENTS = {workload: entry.component for workload, entry in CATALOGUE.items()}


class Applied(msgspec.Struct, frozen=True):
    """A setting in force. `count` is how often it was written: never twice for one decision."""

    value: str
    source: str
    workload: str
    at: datetime
    count: int = 1


class _Kept(msgspec.Struct):
    registered: bool = False
    flags: int = 0
    settings: dict[str, Applied] = {}


class Gate:
    """The `ConfigurationGate` of one device."""

    def __init__(self, folder: Folder, journal: Journal, now: Clock) -> None:
        self._folder = folder
        self._journal = journal
        self._now = now
        self._stamp = 0
        self._kept = _Kept()
        self._said: dict[tuple[Authority, Workload], bool] = {}

    @property
    def flags(self) -> int:
        """The flags that count now."""
        self._refresh()
        return self._kept.flags

    def _refresh(self) -> None:
        """See what another process that holds this gate has decided."""
        try:
            stamp = (self._folder.path / FILE).stat().st_mtime_ns
        except FileNotFoundError:
            stamp = 0
        if stamp != self._stamp:
            before = self._kept.flags, self._kept.registered
            self._kept = self._folder.load(FILE, _Kept) or _Kept()
            self._stamp = stamp
            if before != (self._kept.flags, self._kept.registered):
                self._said.clear()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with locks.held(self._folder.path / "gate.lock"):
            self._refresh()
            yield

    def _save(self) -> None:
        self._folder.save(FILE, self._kept)
        self._stamp = (self._folder.path / FILE).stat().st_mtime_ns

    def set(self, flags: int, *, registered: bool) -> bool:
        """From now on decide by these flags. True when they differ from before."""
        with self._writing():
            if (flags, registered) == (self._kept.flags, self._kept.registered):
                return False
            self._kept.flags, self._kept.registered = flags, registered
            self._said.clear()
            self._save()
            return True

    def owner(self, workload: Workload) -> Authority:
        """Until this device is a client of the site, the MDM service is its only authority."""
        self._refresh()
        if not self._kept.registered:
            return Authority.MDM
        return owner_of(workload, self._kept.flags)

    def offer(self, source: Authority, workload: Workload, setting: str, value: str) -> bool:
        """Apply a value, or refuse it because the other authority owns the workload."""
        with self._writing():
            return self._decide(source, workload, setting, value)

    def _decide(self, source: Authority, workload: Workload, setting: str, value: str) -> bool:
        allowed = self.owner(workload) is source
        self._explain(source, workload, allowed)
        if not allowed:
            return False
        before = self._kept.settings.get(setting)
        if before is not None and (before.value, before.source) == (value, source.value):
            return True
        count = before.count + 1 if before is not None else 1
        self._kept.settings[setting] = Applied(
            value, source.value, workload.value, self._now(), count
        )
        self._save()
        self._journal.write(COMPONENTS[workload], f"Applied '{setting}' from {source.value}.")
        return True

    def withdraw(self, source: Authority, setting: str) -> bool:
        """Take away a value that its owner no longer wants. A value that another has set stays."""
        with self._writing():
            found = self._kept.settings.get(setting)
            if found is None or found.source != source.value:
                return False
            workload = Workload(found.workload)
            if self.owner(workload) is not source:
                return False
            del self._kept.settings[setting]
            self._save()
        self._journal.write(COMPONENTS[workload], f"'{setting}' from {source.value} is withdrawn.")
        return True

    def keep_only(self, source: Authority, wanted: Collection[str]) -> None:
        """Withdraw everything of an authority that it does not want any more."""
        for name, one in self.applied.items():
            if one.source == source.value and name not in wanted:
                self.withdraw(source, name)

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
        if self.owner(workload) is Authority.MDM:
            write(component, "Feature flag is ON, device should be Intune managed.")
        else:
            write(component, "Feature flag is OFF, should be SCCM managed.")
        if not allowed:
            write(component, f"A value from {source.value} is not applied.", WARNING)


def open_gate(state: Path, now: Clock, *, durable: bool = True) -> Gate | None:
    """The gate of the client in this state folder, for another process; None without a client."""
    folder = client_folder(state, durable)
    if installed(folder) is None:
        return None
    return Gate(folder, Journal(state / "Logs", now), now)
