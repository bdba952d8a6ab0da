"""What happened on a device as one story for each cause: from a decision to the device's report.

    cause        somebody decided, or the device itself changed            the site
    collections  it came into collections that its policy comes of         the site
    policy       the site gave it a signed policy that carries the trace   the site
    taken        it verified the policy                                    the device
    flags        it merged its workload flags                              the device
    sync         it called the MDM service for that                        the device
    mdm          the MDM service read the flags                            the MDM service
    setting      what the service then set                                 the MDM service
    state        the device's report with the trace arrived                the site

A step that is due and not there is a gap: it says what is waited for, and since when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec

from tandem.protocols import ccm
from tandem.site import clients, traces
from tandem.site.fleet.graph import Happening
from tandem.workloads import Authority, Position, Workload, effective, owners

POLL = "It asks for its policy at its next poll, or at once when it is told to."
_WHERE = {
    Position.SITE: "Configuration Manager",
    Position.PILOT: "the pilot",
    Position.MDM: "the MDM service",
}


@dataclass(frozen=True, slots=True)
class Step:
    """`at` is None for a gap, which has lasted since `since`. `workloads` are what it is about."""

    stage: str
    source: str  # "site", "device" or "mdm".
    text: str
    at: datetime | None = None
    who: str = ""
    workloads: tuple[str, ...] = ()
    since: datetime | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """`state`: "done", "under way", or "overtaken" by a newer cause before the device was done."""

    trace: str
    at: datetime
    kind: str
    actor: str
    state: str
    steps: tuple[Step, ...]
    # Other decisions that its policy follows too.
    also: tuple[Step, ...] = ()

    @property
    def gaps(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.at is None)


@dataclass(frozen=True, slots=True)
class Told:
    """What both authorities recorded of one device. `happened` is None where the tenant is silent;
    `pending` are settings that the MDM service has for it and that it has not taken yet."""

    entries: Sequence[clients.TimelineEntry]
    happened: Sequence[Happening] | None
    ahead: traces.Cause | None = None
    pending: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)  # Of collections, by id.


class _Cause(msgspec.Struct):
    """A cause as a delivery keeps it."""

    id: str
    at: datetime
    kind: str
    actor: str = ""
    details: dict[str, Any] = {}
    came: list[str] = []
    left: list[str] = []


def stories(told: Told) -> list[Story]:
    """The newest first."""
    found: list[Story] = []
    begun = [
        entry
        for entry in told.entries
        if (entry.topic, entry.state) == (clients.SITE_TOPIC, clients.POLICY_DELIVERED)
        and "cause" in entry.data
    ]
    states = [entry for entry in told.entries if _reports(entry)]
    for place, entry in enumerate(begun):
        newer = begun[place + 1] if place + 1 < len(begun) else None
        found.append(_story(told, entry, newer, states))
    if told.ahead is not None:
        cause = told.ahead
        first = _told(_Cause(cause.id, cause.at, cause.kind.value, cause.actor, {**cause.details}))
        gap = Step("policy", "device", f"Waits for the device. {POLL}", since=cause.at)
        steps = (_named(first, told), gap)
        found.append(Story(cause.id, cause.at, cause.kind.value, cause.actor, "under way", steps))
    return found[::-1]


def _reports(entry: clients.TimelineEntry) -> bool:
    return (entry.topic, entry.state) == (ccm.COMANAGEMENT_TOPIC, 100)


def _story(
    told: Told,
    given: clients.TimelineEntry,
    newer: clients.TimelineEntry | None,
    states: Sequence[clients.TimelineEntry],
) -> Story:
    cause = msgspec.convert(given.data["cause"], _Cause)
    also = [msgspec.convert(one, _Cause) for one in given.data.get("also", ())]
    steps = [_named(_told(cause), told)]
    moved = [("came into", cause.came), ("left", cause.left)]
    for word, ids in moved:
        if ids and cause.kind != traces.Kind.REGISTERED.value:
            names = ", ".join(told.names.get(id, id) for id in ids)
            steps.append(Step("collections", "site", f"It {word} {names}", given.at))
    version = given.data.get("version", "")
    steps.append(Step("policy", "site", f"Policy version {version} was given to it", given.at))
    mine = [one for one in states if one.data.get("trace") == cause.id]
    steps += _device(told, given, mine, states)
    state = "under way" if any(step.at is None for step in steps) else "done"
    if state == "under way" and newer is not None:
        # What it has not done for this cause it does for the newer one.
        steps = [step for step in steps if step.at is not None]
        steps.append(Step("overtaken", "site", "A newer policy took its place", newer.at))
        state = "overtaken"
    return Story(
        cause.id,
        cause.at,
        cause.kind,
        cause.actor,
        state,
        tuple(steps),
        tuple(_named(_told(one), told) for one in also),
    )


def _device(
    told: Told,
    given: clients.TimelineEntry,
    mine: Sequence[clients.TimelineEntry],
    states: Sequence[clients.TimelineEntry],
) -> list[Step]:
    """What came of the policy, by the device and the MDM service."""
    if not mine:
        text = (
            "Waits for the device. It has the policy, and its report comes with its next messages."
        )
        return [Step("state", "device", text, since=given.at)]
    before = [one for one in states if one.received_at < mine[0].received_at]
    last = mine[-1]
    moved = _moved(before[-1].data if before else {}, last.data)
    times = {name: at for one in mine[::-1] for name, at in _followed(one.data).items()}
    steps = []
    if "policy" in times:
        steps.append(Step("taken", "device", "It verified the policy", times["policy"]))
    if "flags" in times:
        text = f"Its workload flags are {last.data.get('flags', 0)}"
        steps.append(Step("flags", "device", text, times["flags"], workloads=tuple(moved)))
    if "sync" in times:
        steps.append(Step("sync", "device", "It called the MDM service", times["sync"]))
    enrolled = last.data.get("mdm_enrolled") is True
    if "flags" in times and enrolled:
        steps += _mdm(told, str(last.data["trace"]), times["flags"])
    steps.append(Step("state", "site", "Its report arrived", mine[0].received_at))
    waiting = sorted(last.data.get("handovers") or {})
    if waiting:
        text = "Waits for the new owner's values to be confirmed"
        since = times.get("flags", mine[0].at)
        steps.append(Step("handover", "device", text, since=since, workloads=tuple(waiting)))
    return sorted(steps, key=lambda step: (step.at is None, step.at or given.at))


def _mdm(told: Told, trace: str, since: datetime) -> list[Step]:
    if told.happened is None:
        text = "The tenant does not answer: what its MDM service did is not known."
        return [Step("mdm", "mdm", text, since=since)]
    here = sorted((one for one in told.happened if one.trace == trace), key=lambda one: one.at)
    steps = [
        Step("mdm" if one.kind == "workloads" else "setting", "mdm", one.text, one.at)
        for one in here
    ]
    if not any(step.stage == "mdm" for step in steps):
        text = "Waits for the device's session with the MDM service"
        return [*steps, Step("mdm", "mdm", text, since=since)]
    if told.pending:
        text = f"Waits for the device to take {len(told.pending)} settings of the MDM service"
        read = next(step.at for step in steps if step.stage == "mdm")
        steps.append(Step("setting", "mdm", text, since=read))
    return steps


def _followed(data: Mapping[str, Any]) -> dict[str, datetime]:
    try:
        return msgspec.convert(data.get("followed") or {}, dict[str, datetime])
    except msgspec.ValidationError:
        return {}


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Workloads whose owner these two reports tell differently."""
    was, now = _owners(before), _owners(after)
    return [one.value for one in Workload if was[one] is not now[one]]


def _owners(data: Mapping[str, Any]) -> dict[Workload, Authority]:
    flags = data.get("flags")
    known = flags if isinstance(flags, int) and not isinstance(flags, bool) and flags >= 0 else 0
    return owners(effective(known, data.get("mdm_enrolled") is True))


def _told(cause: _Cause) -> Step:
    """The first step: what was decided."""
    about = cause.details
    workloads: tuple[str, ...] = ()
    if isinstance(about.get("workload"), str):
        workloads = (about["workload"],)
    kind = traces.Kind(cause.kind)
    text = {
        traces.Kind.CONFIGURE: "Co-management was configured",
        traces.Kind.SETTINGS: "Client settings were changed",
        traces.Kind.REGISTERED: "The device registered with the site",
        traces.Kind.DEVICE: "What the site knows of the device changed",
        traces.Kind.COLLECTION: f"The collection {about.get('collection')} was changed"
        if "collection" in about
        else "A collection was changed",
        traces.Kind.OFFBOARDING: str(about.get("text") or "The device leaves co-management"),
    }.get(kind, "")
    if kind is traces.Kind.SWITCH:
        text = f"A workload was moved to {_WHERE[Position(about['position'])]}"
    elif kind is traces.Kind.ROLLOUT and about.get("back"):
        text = "A roll-out was switched back"
    elif kind is traces.Kind.ROLLOUT:
        text = f"A roll-out came to its ring {about.get('ring')}"
        text += f", {about['collection']}" if "collection" in about else ""
    elif kind is traces.Kind.CONFIGURATION:
        done = "was deployed" if about.get("action") == "create" else "is not deployed any more"
        # Who may not see it is not told its name.
        named = f"The configuration {about['name']}" if "name" in about else "A configuration"
        text = f"{named} {done}"
    elif kind is traces.Kind.CONFIGURE and isinstance(about.get("moved"), dict):
        workloads = tuple(sorted(about["moved"]))
    return Step("cause", "site", text, cause.at, cause.actor, workloads)


def _named(step: Step, told: Told) -> Step:
    """With a collection's name in the place of its id."""
    for id, name in told.names.items():
        if f"collection {id} " in step.text:
            return replace(step, text=step.text.replace(f"collection {id} ", f"collection {name} "))
    return step
