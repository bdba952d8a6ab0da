"""The settings of one device over both authorities: what is in force, whose it is, and who lost.

Nothing here reads a clock or a database: what the device reports, what the site deploys, what the
tenant has and what the ledger proves come in, and one line a setting goes out.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from tandem.site import deployments
from tandem.site.fleet.graph import Offered
from tandem.workloads import Authority, Workload, is_secret, same_setting, shown, workload_of_area


class Role(Enum):
    """What became of one authority's wish. `WINS` is in force, `AGREES` wants the same value."""

    WINS = "wins"
    AGREES = "agrees"
    WAITS = "waits"
    LOSES = "loses"


class State(Enum):
    """`LEFT`: the value of who does not own the workload any more is still there."""

    IN_FORCE = "in-force"
    LEFT = "left"
    WAITS = "waits"
    CONFLICT = "conflict"
    FAILED = "failed"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that an authority has for the setting: a configuration, or a policy. `user` is by
    whose collections it came, where it is not the device's own."""

    authority: Authority
    name: str
    value: str
    role: Role
    why: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Resultant:
    """One setting. `value` and `source` are in force by the device's own account; `written_by` wrote
    last by its ledger, with the entry that says so. `user`: by whose policy it came, if by one's."""

    setting: str
    workload: Workload
    owner: Authority
    state: State
    value: str | None = None
    source: Authority | None = None
    written_by: Authority | None = None
    written_at: datetime | None = None
    entry: int = 0
    contenders: tuple[Contender, ...] = ()
    user: str = ""

    @property
    def losers(self) -> tuple[Contender, ...]:
        return tuple(one for one in self.contenders if one.role is Role.LOSES)


@dataclass
class _Gathered:
    """What is known of a setting, by any of its spellings."""

    name: str
    ours: list[deployments.Configuration] = field(default_factory=list)
    # Of the user who is signed in; the device's own come first.
    of_user: list[deployments.Configuration] = field(default_factory=list)
    theirs: list[Offered] = field(default_factory=list)
    applied: Mapping[str, Any] | None = None
    written: Mapping[str, Any] | None = None


NOT_OWNER_SITE = "The MDM service owns the workload on this device, so the device does not take it."
DEVICE_FIRST = "What is deployed to the device holds, whoever is signed in."
OLDER = "An older configuration of the site sets it, and of two the older one holds."
NOT_YET = "The device has not reported it yet."
HIDDEN = "A configuration that you may not see"
BEFORE = "It is left from before the workload moved, until the new owner's value is there."


def resultants(
    applied: Mapping[str, Mapping[str, Any]],
    deployed: Sequence[deployments.Configuration],
    offered: Sequence[Offered],
    written: Mapping[str, Mapping[str, Any]],
    owners: Mapping[Workload, Authority],
    *,
    failed: Mapping[str, str] | None = None,
    hidden: Set[str] = frozenset(),
    of_user: Sequence[deployments.Configuration] = (),
    user: str = "",
) -> list[Resultant]:
    """One line for each setting that either authority has for the device, or that it has.

    `deployed` are all configurations of its collections, the oldest first, and `of_user` those of
    the collections of its `user`. `offered` may have several policies of one setting. `failed` are
    settings that it could not bring about. Of the configurations with an id in `hidden` nothing is
    told but what is in force on the device.
    """
    every: dict[str, _Gathered] = {}

    def of(setting: str) -> _Gathered:
        return every.setdefault(same_setting(setting), _Gathered(setting))

    for name, said in applied.items():
        of(name).applied = said
    for item in deployed:
        of(item.setting).ours.append(item)
    for item in of_user:
        of(item.setting).of_user.append(item)
    for offer in offered:
        of(offer.setting).theirs.append(offer)
    for name, told in written.items():
        of(name).written = told
    wrong = {same_setting(name): text for name, text in (failed or {}).items()}
    found = [
        _resultant(one, owners, wrong.get(key, ""), hidden, user)
        for key, one in every.items()
        if one.applied
        or one.theirs
        or one.written
        or any(i.id not in hidden for i in (*one.ours, *one.of_user))
    ]
    return sorted(found, key=lambda one: (one.workload.value, one.setting.lower()))


def _resultant(
    one: _Gathered, owners: Mapping[Workload, Authority], failure: str, hidden: Set[str], user: str
) -> Resultant:
    workload = _workload(one)
    owner = owners[workload]
    source = _authority(one.applied.get("source")) if one.applied is not None else None
    value = str(one.applied.get("value", "")) if one.applied is not None else None
    ours = _of_site(one, owner, source, hidden, user)
    contenders = (*ours, *_of_tenant(one, owner, source, value))
    conflict = owner is Authority.MDM and any(o.outcome == "conflict" for o in one.theirs)
    broken = any(o.outcome == "error" for o in one.theirs) and owner is Authority.MDM
    if conflict:
        state = State.CONFLICT
    elif failure or broken:
        state = State.FAILED
    elif source is not None and source is not owner:
        state = State.LEFT
    elif any(one.role is Role.WAITS for one in contenders):
        state = State.WAITS
    elif source is not None:
        state = State.IN_FORCE
    else:
        state = State.NOBODY
    written = one.written or {}
    return Resultant(
        one.name,
        workload,
        owner,
        state,
        shown(one.name, value) if value is not None else None,
        source,
        _authority(written.get("authority")),
        written.get("at"),
        int(written.get("number") or 0),
        contenders,
        user if one.applied is not None and one.applied.get("user") else "",
    )


def _of_site(
    one: _Gathered, owner: Authority, source: Authority | None, hidden: Set[str], user: str
) -> list[Contender]:
    found = []
    every = [*one.ours, *one.of_user]
    for place, item in enumerate(every):
        of_user = place >= len(one.ours)
        if place:
            agrees = item.value == every[0].value
            lost = DEVICE_FIRST if of_user and one.ours else OLDER
            role, why = (Role.AGREES, "") if agrees else (Role.LOSES, lost)
        elif owner is not Authority.SITE and source is Authority.SITE:
            role, why = Role.WINS, BEFORE
        elif owner is not Authority.SITE:
            role, why = Role.LOSES, NOT_OWNER_SITE
        elif _holds(one, item):
            role, why = Role.WINS, ""
        else:
            role, why = Role.WAITS, NOT_YET
        if item.id in hidden and role is not Role.WINS:
            continue
        name = HIDDEN if item.id in hidden else item.name
        value = shown(item.setting, item.value)
        by = user if of_user else ""
        found.append(Contender(Authority.SITE, name, value, role, why, by))
    return found


def _holds(one: _Gathered, item: deployments.Configuration) -> bool:
    """Whether what the device says is in force is this configuration's."""
    if one.applied is None or one.applied.get("source") != Authority.SITE.value:
        return False
    same = one.applied.get("value") == item.value and not is_secret(item.setting, item.value)
    return same or one.applied.get("configuration") == item.id


def _of_tenant(
    one: _Gathered, owner: Authority, source: Authority | None, value: str | None
) -> list[Contender]:
    found: list[Contender] = []
    for offer in one.theirs:
        if not offer.policy:
            continue
        said = offer.value
        if offer.outcome in ("conflict", "error"):
            role = Role.LOSES
        elif owner is not Authority.MDM:
            role = Role.WINS if source is Authority.MDM and value == said else Role.LOSES
        elif offer.outcome == "success":
            role = Role.AGREES if any(other.role is Role.WINS for other in found) else Role.WINS
        elif offer.outcome in ("pending", "withheld"):
            role = Role.WAITS
        else:
            role = Role.LOSES
        why = BEFORE if role is Role.WINS and owner is not Authority.MDM else offer.reason
        if role in (Role.WINS, Role.AGREES) and owner is Authority.MDM:
            why = ""
        found.append(Contender(Authority.MDM, offer.policy, said, role, why))
    return found


def _workload(one: _Gathered) -> Workload:
    """As who sets it says, the device before the others."""
    told = [
        str((one.applied or {}).get("workload") or ""),
        *(item.workload.value for item in (*one.ours, *one.of_user)),
        *(offer.workload for offer in one.theirs),
        str((one.written or {}).get("workload") or ""),
    ]
    for name in filter(None, told):
        try:
            return Workload(name)
        except ValueError:
            continue
    return workload_of_area(same_setting(one.name).partition("/")[0])


def _authority(value: object) -> Authority | None:
    try:
        return Authority(value)
    except ValueError:
        return None
