"""What a device's ledger proves: its entries, one after the other, held against the rules.

The chain shows that nothing was changed or left out; this shows that what it tells of is one writer
per workload: every value was set by the owner of that moment, what was left over went only after
its successor was confirmed, and no hand-over went on in silence beyond its bound.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from hashlib import sha256

import msgspec

from tandem.protocols import ccm
from tandem.workloads.model import Authority, Workload

# How far a device's clock may go wrong before its times are doubted.
SKEW = timedelta(minutes=5)
# So many findings are kept of one ledger; whoever makes more is known by then.
MOST_PROBLEMS = 100


class Flaw(Enum):
    """What can be wrong with a ledger. The first ones break the proof, the others leave a doubt."""

    GAP = "gap"
    FORK = "fork"
    BEGAN_ANEW = "began-anew"
    BAD_ENTRY = "bad-entry"
    ALTERED = "altered"
    NOT_OWNER = "not-owner"
    REMOVED_FIRST = "removed-first"
    UNBOUNDED = "unbounded"
    CLOCK_BACK = "clock-back"
    CLOCK_AHEAD = "clock-ahead"
    STATE_LOST = "state-lost"
    NEW_KEY = "new-key"

    @property
    def breaks(self) -> bool:
        """Whether the ledger proves no longer what it is for."""
        return self not in (Flaw.CLOCK_BACK, Flaw.CLOCK_AHEAD, Flaw.STATE_LOST, Flaw.NEW_KEY)


class Finding(msgspec.Struct, frozen=True):
    """`number` is the entry at which it was found, `text` says it for people. An administrator may
    have acknowledged it, with a reason: then it stays, and breaks the proof no longer."""

    flaw: Flaw
    number: int
    text: str
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    reason: str = ""

    @property
    def breaks(self) -> bool:
        return self.flaw.breaks and self.acknowledged_at is None


class Held(msgspec.Struct, frozen=True):
    """Who owns a workload, since which entry. `handing` while values of the other are in force."""

    owner: str
    since: datetime
    number: int
    handing: bool = False
    overdue: bool = False
    bound: float = 0


class Written(msgspec.Struct, frozen=True):
    """Who set the value of a setting that is in force."""

    authority: str
    workload: str
    at: datetime
    number: int


class Account(msgspec.Struct, frozen=True):
    """What a ledger says as far as it was followed: its last entry, the owners, the settings.
    `partial` when something before is not known."""

    number: int = 0
    digest: str = ccm.GENESIS
    at: datetime | None = None
    owners: dict[str, Held] = {}
    settings: dict[str, Written] = {}
    partial: bool = False

    @property
    def checkpoint(self) -> str:
        """What a device signs when it shortens its ledger: a digest of owners and settings."""
        told = {"owners": self.owners, "settings": self.settings}
        return sha256(msgspec.json.encode(told, order="sorted")).hexdigest()

    def follows(self, entry: ccm.LedgerEntry) -> bool:
        """Whether this entry is the next."""
        return entry.number == self.number + 1 and entry.previous == self.digest


_Find = Callable[[Flaw, str], None]


def follow(
    account: Account, entry: ccm.LedgerEntry, digest: str, received_at: datetime
) -> tuple[Account, list[Finding]]:
    """The account with one more entry, whose signature was checked, and what is wrong with it."""
    found: list[Finding] = []

    def find(flaw: Flaw, text: str) -> None:
        found.append(Finding(flaw, entry.number, text))

    _times(account, entry, received_at, find)
    if entry.number == 1 and entry.kind != "begin":
        find(Flaw.BAD_ENTRY, "The ledger has no beginning.")
    owners, settings, partial = dict(account.owners), dict(account.settings), account.partial
    held = owners.get(entry.workload)
    match entry.kind:
        case "begin":
            if entry.number > 1:
                text = f"Entry {entry.number}: the device had lost its state, or its client was"
                find(Flaw.STATE_LOST, f"{text} installed anew; what was in force then is unknown.")
            alone = Held(Authority.MDM.value, entry.at, entry.number)
            owners = {workload.value: alone for workload in Workload}
            settings, partial = {}, False
        case "checkpoint" if not partial and entry.value != account.checkpoint:
            text = (
                f"Entry {entry.number}: what the device signed when it shortened its ledger is not"
            )
            find(Flaw.BAD_ENTRY, f"{text} what the entries before say.")
        case "own":
            owners[entry.workload] = Held(
                entry.authority,
                entry.at,
                entry.number,
                handing=entry.reason == "hand-over",
                bound=entry.bound,
            )
        case "confirm" if held is not None:
            owners[entry.workload] = msgspec.structs.replace(held, handing=False, overdue=False)
        case "overdue" if held is not None:
            owners[entry.workload] = msgspec.structs.replace(held, overdue=True)
        case "write":
            # After a gap nobody knows who owned what; that is said at the gap.
            if held is not None and held.owner != entry.authority:
                find(
                    Flaw.NOT_OWNER,
                    f"Entry {entry.number}: {entry.authority} set {entry.setting}, but"
                    f" {entry.workload} was {held.owner}'s.",
                )
            settings[entry.setting] = Written(
                entry.authority, entry.workload, entry.at, entry.number
            )
        case "remove":
            settings.pop(entry.setting, None)
            _removed(entry, held, find)
    made = Account(entry.number, digest, entry.at, owners, settings, partial)
    return made, found


def _times(account: Account, entry: ccm.LedgerEntry, received_at: datetime, find: _Find) -> None:
    if account.at is not None and entry.at < account.at - SKEW:
        text = f"Entry {entry.number} is from {entry.at.isoformat()}, the one before from"
        find(Flaw.CLOCK_BACK, f"{text} {account.at.isoformat()}: the clock was turned back.")
    if entry.at > received_at + SKEW:
        text = f"Entry {entry.number} is from {entry.at.isoformat()}, but came"
        find(Flaw.CLOCK_AHEAD, f"{text} {received_at.isoformat()}: the device's clock is ahead.")
    for workload, held in account.owners.items():
        late = entry.at - held.since > timedelta(seconds=held.bound) + SKEW
        told = (entry.workload, entry.kind) in ((workload, "overdue"), (workload, "confirm"))
        if held.handing and not held.overdue and late and not told and entry.kind == "write":
            text = f"Entry {entry.number}: the hand-over of {workload} since entry {held.number}"
            find(Flaw.UNBOUNDED, f"{text} took longer than it may, and nobody was told.")


def _removed(entry: ccm.LedgerEntry, held: Held | None, find: _Find) -> None:
    if held is None:
        return
    if entry.reason == "left" and held.owner != entry.authority:
        # An authority that leaves for good takes along what it set, confirmed or not.
        return
    if entry.reason == "leftover" and (held.handing or held.owner == entry.authority):
        text = f"Entry {entry.number}: a value of {entry.workload} was removed before its new"
        find(Flaw.REMOVED_FIRST, f"{text} owner's values were confirmed ({entry.setting}).")
    elif entry.reason != "leftover" and held.owner != entry.authority:
        text = f"Entry {entry.number}: {entry.authority} removed {entry.setting}, but"
        find(Flaw.NOT_OWNER, f"{text} {entry.workload} was {held.owner}'s.")


def merge_findings(known: list[Finding], new: list[Finding]) -> list[Finding]:
    """Each once, in the order in which they were found. Of too many those that break the proof stay.

    What was acknowledged is known; what came at the same entry later, and says something else, is not.
    """
    merged = list(known)
    for one in new:
        same = any(
            (a.flaw, a.number) == (one.flaw, one.number)
            and (a.acknowledged_at is None or a.text == one.text)
            for a in merged
        )
        if same:
            continue
        if len(merged) >= MOST_PROBLEMS:
            spare = next((place for place, a in enumerate(merged) if not a.breaks), None)
            if spare is None or not one.breaks:
                continue
            del merged[spare]
        merged.append(one)
    return merged
