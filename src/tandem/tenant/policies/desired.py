"""What a device is to have, decided from values alone, and why.

Of the policies that are meant for a device each setting is taken once. Two that want different
values conflict: neither is sent, the device keeps what it has, and both say so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256

from tandem.protocols import ddf
from tandem.tenant import assignments
from tandem.tenant.assignments import Assignment, Membership, TargetKind
from tandem.tenant.policies.catalogue import POLICY, Catalogue
from tandem.tenant.policies.catalogue import same as same_node
from tandem.tenant.policies.compiling import Problem
from tandem.tenant.policies.model import Configuration
from tandem.workloads import Authority, Workload, is_secret, owner_of

Key = tuple[str, str]  # kind and id of an object
# A fleet has few combinations of policies; each is decided once while nothing changes.
_REMEMBERED = 512


class Outcome(StrEnum):
    """What became of a setting on a device, in one word."""

    SUCCESS = "success"
    ERROR = "error"
    NOT_APPLICABLE = "notApplicable"
    CONFLICT = "conflict"
    PENDING = "pending"
    WITHHELD = "withheld"
    REMOVING = "removing"
    NOT_ASSIGNED = "notAssigned"


@dataclass(frozen=True, slots=True)
class Profile:
    """An object's settings, and whom it is for. `age` orders objects, the oldest first."""

    kind: str
    id: str
    name: str
    age: int
    settings: tuple[Configuration, ...]
    problems: tuple[Problem, ...]
    given: tuple[Assignment, ...]

    @property
    def key(self) -> Key:
        return self.kind, self.id


@dataclass(frozen=True, slots=True)
class Effective:
    """A device's settings by name. `wanted` are to be there, with the value that every policy
    agrees on; of `conflicts`, `withheld` (the site owns the workload) and `inapplicable` (Windows
    there is too old) nothing is sent."""

    wanted: Mapping[str, Configuration]
    conflicts: Mapping[str, tuple[Configuration, ...]]
    withheld: Mapping[str, Configuration]
    inapplicable: Mapping[str, Configuration]


class Desired:
    """All policies at one revision, ready to be asked for any device."""

    def __init__(self, revision: int, profiles: Sequence[Profile], catalogue: Catalogue) -> None:
        self.revision = revision
        self.catalogue = catalogue
        self.profiles = {one.key: one for one in profiles}
        self._by_target: dict[tuple[TargetKind, str], set[Key]] = {}
        for one in profiles:
            for item in one.given:
                subject = item.target.subject if item.target.kind is TargetKind.GROUP else ""
                self._by_target.setdefault((item.target.kind, subject), set()).add(one.key)
        self._merged: Callable[[tuple[Key, ...], int | None, str], Effective] = lru_cache(
            _REMEMBERED
        )(self._merge)

    def meant(self, groups: Membership) -> list[Profile]:
        """The policies for a device of these groups, the oldest first."""
        kinds = (
            *((TargetKind.GROUP, id) for id in groups.user | groups.device),
            (TargetKind.ALL_USERS, ""),
            (TargetKind.ALL_DEVICES, ""),
        )
        found: set[Key] = set()
        for kind in kinds:
            found |= self._by_target.get(kind, set())
        chosen = [self.profiles[key] for key in found]
        return sorted(
            (one for one in chosen if assignments.given_to(one.given, groups)),
            key=lambda one: one.age,
        )

    def effective(self, groups: Membership, flags: int | None, os_version: str) -> Effective:
        """What a device is to have. `flags` are its agent's workload flags, None without one."""
        return self._merged(tuple(one.key for one in self.meant(groups)), flags, os_version)

    def _merge(self, keys: tuple[Key, ...], flags: int | None, os_version: str) -> Effective:
        by_name: dict[str, list[Configuration]] = {}
        for key in keys:
            for item in self.profiles[key].settings:
                by_name.setdefault(same(item.setting), []).append(item)
        wanted: dict[str, Configuration] = {}
        conflicts: dict[str, tuple[Configuration, ...]] = {}
        withheld: dict[str, Configuration] = {}
        inapplicable: dict[str, Configuration] = {}
        for items in by_name.values():
            first = items[0]
            mine = [item for item in items if is_ours(item.workload, flags)]
            if not mine:
                withheld[first.setting] = first
            elif len({(item.value, item.format) for item in mine}) > 1:
                conflicts[first.setting] = tuple(mine)
            elif not ddf.runs_on(mine[0].builds, os_version):
                inapplicable[first.setting] = mine[0]
            else:
                wanted[first.setting] = mine[0]
        return Effective(wanted, conflicts, withheld, inapplicable)


def is_ours(workload: Workload, flags: int | None) -> bool:
    """Whether the MDM service writes settings of this workload on a device."""
    return flags is None or owner_of(workload, flags) is Authority.MDM


# ---------------------------------------------------------------------------------- why


@dataclass(frozen=True, slots=True)
class Taken:
    """What a device last said of a setting: the value that it was given, and its status."""

    value: str
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that names the setting. `role` is winner, agrees, conflicts, withheld,
    inapplicable, or notMeant; `included` and `excluded` are its assignments that count for the
    device, `filtered` those that a filter keeps from counting."""

    profile: Profile
    item: Configuration
    role: str
    included: tuple[Assignment, ...]
    excluded: tuple[Assignment, ...]
    filtered: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class Why:
    """Everything that decides about one setting on one device."""

    setting: str
    outcome: Outcome
    wanted: Configuration | None
    candidates: tuple[Candidate, ...]
    workload: Workload
    owner: Authority
    taken: Taken | None
    reason: str


def explain(
    desired: Desired,
    setting: str,
    groups: Membership,
    flags: int | None,
    os_version: str,
    taken: Taken | None,
) -> Why:
    """Why a device has a setting, or has it not."""
    effective = desired.effective(groups, flags, os_version)
    meant = {one.key for one in desired.meant(groups)}
    name = same(setting)
    candidates = []
    wanted = _named(effective.wanted, name)
    conflict = name in {same(one) for one in effective.conflicts}
    for profile in sorted(desired.profiles.values(), key=lambda one: one.age):
        item = next((one for one in profile.settings if same(one.setting) == name), None)
        if item is None:
            continue
        included, excluded = assignments.reasons(profile.given, groups)
        everybody = groups.user | groups.device
        filtered = tuple(
            one
            for one in profile.given
            if one.target.filter_mode != "none"
            and (one.target.kind is not TargetKind.GROUP or one.target.subject in everybody)
        )
        if profile.key not in meant:
            role = "notMeant"
        elif not is_ours(item.workload, flags):
            role = "withheld"
        elif conflict:
            role = "conflicts"
        elif wanted is None:
            role = "inapplicable"
        else:
            role = "winner" if item.id == wanted.id else "agrees"
        candidates.append(
            Candidate(profile, item, role, tuple(included), tuple(excluded), filtered)
        )
    counted = [one.item for one in candidates if one.role != "notMeant"]
    workload = counted[0].workload if counted else desired.catalogue.workload(node(setting))
    owner = Authority.MDM if is_ours(workload, flags) else Authority.SITE
    outcome, reason = outcome_of(effective, setting, taken, os_version)
    shown = (counted or [one.item for one in candidates])[:1]
    called = shown[0].setting if shown else setting
    return Why(called, outcome, wanted, tuple(candidates), workload, owner, taken, reason)


def node(setting: str) -> str:
    """The node of a setting, as people write it."""
    return setting if setting.startswith("./") else POLICY + setting


@lru_cache(4096)
def same(setting: str) -> str:
    """What two names of one setting have in common."""
    return same_node(node(setting))


def _named(items: Mapping[str, Configuration], name: str) -> Configuration | None:
    return next((one for one in items.values() if same(one.setting) == name), None)


def outcome_of(
    effective: Effective, setting: str, taken: Taken | None, os_version: str = ""
) -> tuple[Outcome, str]:
    """What became of a setting, and in a sentence why."""
    name = same(setting)
    for items, outcome in (
        (effective.conflicts, Outcome.CONFLICT),
        (effective.withheld, Outcome.WITHHELD),
        (effective.inapplicable, Outcome.NOT_APPLICABLE),
        (effective.wanted, Outcome.PENDING),
    ):
        if setting not in items and not any(same(one) == name for one in items):
            continue
        if outcome is Outcome.CONFLICT:
            kept = " The device keeps what it has." if taken and _good(taken) else ""
            return outcome, f"Policies want different values, so none is sent.{kept}"
        if outcome is Outcome.WITHHELD:
            return outcome, "The site owns the workload on this device, so nothing is sent."
        if outcome is Outcome.NOT_APPLICABLE:
            item = effective.inapplicable.get(setting) or _named(effective.inapplicable, name)
            needs = ", ".join(item.builds) if item is not None else ""
            return outcome, f"It needs Windows {needs}; the device has {os_version or 'another'}."
        wanted = effective.wanted.get(setting) or _named(effective.wanted, name)
        if wanted is None or taken is None or taken.value != stored(setting, wanted.value):
            return outcome, "It is sent at the next check-in."
        return _reported(taken)
    if taken is not None:
        return Outcome.REMOVING, "No policy wants it any more; it is removed at the next check-in."
    return Outcome.NOT_ASSIGNED, "No policy for this device sets it."


def _good(taken: Taken) -> bool:
    return 200 <= taken.code < 300


def _reported(taken: Taken) -> tuple[Outcome, str]:
    if _good(taken):
        return Outcome.SUCCESS, "The device has it."
    if taken.code == 0:
        return (
            Outcome.PENDING,
            "What the device answered before does not count any more; it is sent again.",
        )
    outcome = Outcome.NOT_APPLICABLE if taken.code == 406 else Outcome.ERROR
    return outcome, ERRORS.get(taken.code, "The device refuses it.")


# Statuses of a device in words (windows-mdm, 11.4).
ERRORS = {
    400: "The command was malformed: this is a fault of the service.",
    403: "The device forbids it.",
    404: "The device has no such node.",
    405: "The node cannot be set so: it is read-only, or of the other scope.",
    406: "This edition or build of Windows does not know it.",
    415: "The value has a format that the node does not take.",
    418: "The node exists already.",
    424: "The value did not arrive whole.",
    425: "The service lacks the right to set it.",
    500: "The device failed to set it.",
    507: "It was part of a group that failed.",
    516: "It was undone, and that failed: its state is not known.",
}


def stored(setting: str, value: str) -> str:
    """How a value is remembered: as it is, or by its digest when it is long or a secret."""
    if len(value) <= 256 and not is_secret(setting, value):
        return value
    return "sha256:" + sha256(value.encode()).hexdigest()
