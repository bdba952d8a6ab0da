"""A workload's move as a roll-out: rings, their gates, and what each device's reports come to.

Nothing here reads a clock or a database: the same report at the same moment has the same verdict.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.site import clients, deployments
from tandem.workloads import (
    APPS,
    CATALOGUE,
    Authority,
    Position,
    Workload,
    effective,
    instructions,
    is_secret,
    owner_of,
    same_setting,
    shown,
    workload_of_area,
)
from tandem.workloads.instructions import area_of

# A roll-out that reaches more devices, or All Systems, starts only when somebody types how many.
CONFIRM_ABOVE = 100
MOST_RINGS = 20
_MOST_MINUTES = 60 * 24 * 90

# What these bring stays (Windows Update and Office): an older build does not come back with the
# workload (spec F17), so who switches back has to know it, and is a person.
NEVER_AUTOMATIC = tuple(item for item in Workload if not CATALOGUE[item].rolls_back)


class State(Enum):
    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    RETURNED = "returned"


OPEN = (State.RUNNING, State.PAUSED, State.HALTED)


class RingState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    STOPPED = "stopped"


class Standing(Enum):
    """Where one device is with the move."""

    WAITING = "waiting"  # Its ring has not begun.
    PENDING = "pending"
    DONE = "done"
    OFFLINE = "offline"
    FAILED = "failed"
    LEFT = "left"  # No client of the site any more: it is not counted.


class Told(Enum):
    """What the MDM service said of the workload on a device, when it was asked last."""

    NOTHING = ""
    GOOD = "good"
    PENDING = "pending"
    ERROR = "error"
    # This Graph does not say it: the client's own report has to do.
    ABSENT = "absent"


class GapKind(Enum):
    LOST = "lost"
    CHANGES = "changes"
    SAME = "same"
    GAINS = "gains"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Gate:
    """When a ring is well. Shares are of all its devices that are still clients: one that nobody
    hears from proves nothing, so it counts as not done.

    Two hours hold a policy poll of an hour, a state report of a quarter, and an MDM session; a
    quarter of an hour is watched even when all are done, for errors come after the move.
    """

    minutes: float = 120
    soak_minutes: float = 15
    done_percent: float = 90
    failed_percent: float = 5


@dataclass(frozen=True, slots=True)
class Counts:
    waiting: int = 0
    pending: int = 0
    done: int = 0
    offline: int = 0
    failed: int = 0
    left: int = 0

    @property
    def counted(self) -> int:
        return self.pending + self.done + self.offline + self.failed


@dataclass(frozen=True, slots=True)
class Ring:
    """`collection_id` is empty when its collection was deleted; `asked` is how many devices were
    to move when it began."""

    place: int
    collection_id: str
    collection: str
    gate: Gate
    state: RingState = RingState.WAITING
    asked: int = 0
    started_at: datetime | None = None
    deadline_at: datetime | None = None
    soak_until: datetime | None = None
    ended_at: datetime | None = None
    counts: Counts = Counts()


class Subject(Enum):
    """What a gap is about."""

    SETTING = "setting"
    APP = "app"
    COMPLIANCE = "compliance"


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that is other when the workload has moved. `setting` is Area/Name or a node, the
    name of an app, or a rule of a compliance policy; empty of a compliance policy: there is none.
    `of_user`: the device has it by who is signed in, and not for itself."""

    kind: GapKind
    setting: str
    workload: str
    site_name: str = ""
    site_value: str = ""
    policy: str = ""
    value: str = ""
    subject: Subject = Subject.SETTING
    of_user: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """`text` says it for people. `code` is empty where there is nothing to say."""

    code: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """`before` is where the slider stood when it started: what switching back restores. `asked_at` is
    when it was planned or compared again: a second administrator approves what was seen since."""

    id: str
    workload: Workload
    state: State
    created_at: datetime
    created_by: str
    automatic_back: bool
    second_approval: bool
    offline_minutes: float
    ring: int = 0
    approved_by: str = ""
    before: tuple[Position, str, tuple[str, ...]] | None = None
    started_at: datetime | None = None
    started_by: str = ""
    paused_at: datetime | None = None
    ended_at: datetime | None = None
    ended_by: str = ""
    settled_at: datetime | None = None
    # When it was switched back: rings up to this one keep what they have.
    kept_rings: int = 0
    cause: Cause = Cause()
    analysed_at: datetime | None = None
    gaps: tuple[Gap, ...] = ()
    rings: tuple[Ring, ...] = ()
    reason: str = ""
    asked_at: datetime | None = None

    @property
    def current(self) -> Ring | None:
        return self.rings[self.ring - 1] if self.ring else None

    def to(self, place: int) -> Authority:
        """Who is to have the workload on the devices of a ring."""
        returned = self.state is State.RETURNED and place > self.kept_rings
        return Authority.SITE if returned else Authority.MDM


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a roll-out."""

    client_id: str
    device_id: str
    name: str
    place: int
    standing: Standing = Standing.WAITING
    cause: Cause = Cause()
    at: datetime | None = None
    mdm_id: str = ""
    # The tenant's complianceState when the roll-out was planned, and the newest.
    compliance_before: str = ""
    compliance: str = ""
    told: Told = Told.NOTHING
    told_text: str = ""
    checked_at: datetime | None = None
    gaps: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class RingWish:
    collection: str
    gate: Gate = field(default_factory=Gate)


class NoSuchRollout(AppError):
    kind, code = Kind.NOT_FOUND, "rollout.not-found"


class WrongState(AppError):
    kind, code = Kind.CONFLICT, "rollout.wrong-state"


class UnderWay(AppError):
    kind, code = Kind.CONFLICT, "rollout.under-way"


class NotAnalysed(AppError):
    kind, code = Kind.CONFLICT, "rollout.not-analysed"


class HasGaps(AppError):
    kind, code = Kind.CONFLICT, "rollout.has-gaps"


class NeedsConfirmation(AppError):
    kind, code = Kind.CONFLICT, "rollout.needs-confirmation"


class NeedsApproval(AppError):
    kind, code = Kind.CONFLICT, "rollout.needs-approval"


class NeedsReason(Invalid):
    code = "rollout.needs-reason"


class ReachesOthers(AppError):
    kind, code = Kind.CONFLICT, "rollout.reaches-others"


class BadPlan(Invalid):
    code = "rollout.bad-plan"


class NoAutomaticBack(BadPlan):
    code = "rollout.no-automatic-back"


class Superseded(AppError):
    kind, code = Kind.CONFLICT, "rollout.superseded"


def check_gate(gate: Gate) -> None:
    """Raises BadPlan."""
    for name, value, least, most in (
        ("minutes", gate.minutes, 0.05, _MOST_MINUTES),
        ("soak_minutes", gate.soak_minutes, 0, _MOST_MINUTES),
        ("done_percent", gate.done_percent, 1, 100),
        ("failed_percent", gate.failed_percent, 0, 100),
    ):
        if not math.isfinite(value) or not least <= value <= most:
            raise BadPlan(f"{name} is a number from {least:g} to {most:g}.", field=name)
    if gate.soak_minutes > gate.minutes:
        raise BadPlan(
            "A ring cannot be watched for longer than it has time.",
            cure="Make soak_minutes at most minutes.",
            field="soak_minutes",
        )


def check_back(workload: Workload, automatic_back: bool) -> None:
    """Raises NoAutomaticBack."""
    if automatic_back and workload in NEVER_AUTOMATIC:
        raise NoAutomaticBack(
            f"{workload.title} are never switched back automatically: what they installed stays, so"
            " nothing would be as it was before.",
            cure="Leave it out: a failed gate halts the roll-out, and you switch back by hand.",
            field="automatic_back",
        )


# Devices


def stand(
    known: clients.Reported | None,
    member: Member,
    rollout: Rollout,
    ring: Ring,
    now: datetime,
    trouble: str = "",
) -> tuple[Standing, Cause]:
    """Where a device is that has been asked to follow, by what it and the MDM service report.

    `trouble` is what it could not bring about of the MDM service's values, in a sentence.
    """
    if known is None:
        return Standing.LEFT, Cause("left", "It is no client of the site any more.")
    if known.blocked:
        return Standing.FAILED, Cause("blocked", "The site has blocked this client.")
    back = rollout.to(member.place) is Authority.SITE
    since = (rollout.ended_at if back else ring.started_at) or now
    if not back and not known.mdm_enrolled:
        return Standing.FAILED, Cause(
            "unenrolled", "It reports that the MDM service does not manage it any more."
        )
    if not back and not known.policy_present:
        return Standing.FAILED, Cause(
            "no-policy", "It reports that it has no co-management policy."
        )
    flags = effective(known.flags, known.mdm_enrolled)
    fetched = known.policy_at is not None and known.policy_at >= since
    if owner_of(rollout.workload, flags) is rollout.to(member.place):
        if not back:
            if trouble:
                return Standing.FAILED, Cause("effect", trouble)
            return _with_mdm(member)
        # One that never fetched what the ring asked of it has nothing to undo.
        asked = known.policy_at is not None and known.policy_at >= (ring.started_at or since)
        if fetched or not asked:
            return Standing.DONE, Cause()
    if known.last_seen_at is not None and known.last_seen_at < now - timedelta(
        minutes=rollout.offline_minutes
    ):
        return Standing.OFFLINE, Cause(
            "silent", "Nothing was heard of it for longer than it takes to ask for its policy."
        )
    if not fetched:
        return Standing.PENDING, Cause("not-asked", "It has not asked for its new policy yet.")
    if known.state_at is None or (known.policy_at and known.state_at < known.policy_at):
        return Standing.PENDING, Cause(
            "not-reported", "It has its new policy, and has not reported since."
        )
    return Standing.PENDING, Cause(
        "kept", "It has its new policy, and reports that the workload is where it was."
    )


def _with_mdm(member: Member) -> tuple[Standing, Cause]:
    if member.compliance_before == "compliant" and member.compliance in (
        "noncompliant",
        "conflict",
        "error",
    ):
        return Standing.FAILED, Cause(
            "noncompliant", f"It was compliant before, and is now: {member.compliance}."
        )
    if member.told is Told.ERROR:
        return Standing.FAILED, Cause("mdm-error", member.told_text)
    if member.told is Told.PENDING:
        return Standing.PENDING, Cause("mdm-pending", member.told_text)
    if member.told is Told.NOTHING:
        return Standing.PENDING, Cause(
            "unchecked", "It has moved; the MDM service has not been asked yet what came of it."
        )
    return Standing.DONE, Cause()


@dataclass(frozen=True, slots=True)
class Offered:
    """A setting that the tenant has for a device, as managedDevices/{id}/settings tells it."""

    setting: str
    workload: str
    outcome: str
    policy: str = ""
    value: str | None = None
    reason: str = ""

    @property
    def counts(self) -> bool:
        return self.outcome != "notApplicable"


@dataclass(frozen=True, slots=True)
class OfferedApp:
    """An app that the tenant has for a device: `meant` to be there or to be chosen, or to go."""

    name: str
    version: str
    workload: str
    intent: str
    uninstall: bool = False
    meant: bool = False
    withheld: bool = False
    brings_client: bool = False


@dataclass(frozen=True, slots=True)
class OfferedPolicy:
    """A compliance policy that is assigned to a device, with its rules and what they ask."""

    name: str
    rules: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """All that the tenant has for a device."""

    settings: tuple[Offered, ...] = ()
    apps: tuple[OfferedApp, ...] = ()
    compliance: tuple[OfferedPolicy, ...] = ()


def told(offered: Iterable[Offered], moved: Iterable[Workload]) -> tuple[Told, str]:
    """What these settings come to, for the workloads that have moved."""
    names = {workload.value for workload in moved}
    mine = [item for item in offered if item.workload in names]
    for item in mine:
        if item.outcome in ("error", "conflict"):
            return Told.ERROR, f"The MDM service reports for {item.setting}: {item.reason}"
    waiting = sum(item.outcome in ("pending", "withheld") for item in mine)
    if waiting:
        return Told.PENDING, f"The MDM service has {waiting} settings still to deliver."
    return Told.GOOD, ""


def troubles(failed: Iterable[clients.FailedEffect], moved: Sequence[Workload]) -> dict[str, str]:
    """For each client with an effect of these workloads that failed, the first in a sentence."""
    found: dict[str, str] = {}
    for one in failed:
        of = one.workload or workload_of_area(one.setting.partition("/")[0]).value
        if of in {workload.value for workload in moved}:
            found.setdefault(
                one.client_id, f"The device reports for {one.setting}: {one.text[:300]}"
            )
    return found


def moved_by(workload: Workload) -> tuple[Workload, ...]:
    return (workload, *workload.moves_along)


def find_gaps(
    configured: Sequence[deployments.Configuration],
    offer: Offer | None,
    moved: Sequence[Workload],
    of_user: Container[str] = (),
) -> list[Gap]:
    """What is other on a device when these workloads have moved. `offer` is None where the tenant
    cannot say what it has for the device: then nobody knows what replaces the site's. `of_user` are
    the ids of those configurations that it has by who is signed in."""

    def marked(gap: Gap, item: deployments.Configuration) -> Gap:
        return replace(gap, of_user=True) if item.id in of_user else gap

    names = {workload.value for workload in moved}
    mine = [item for item in configured if item.workload.value in names]
    if offer is None:
        unknown = [marked(_ours(GapKind.UNKNOWN, item), item) for item in mine]
        return unknown or [Gap(GapKind.UNKNOWN, "", moved[0].value)]
    theirs = {same_setting(item.setting): item for item in offer.settings if item.counts}
    apps = [item for item in offer.apps if item.workload in names and not item.brings_client]
    by_name = {item.name.casefold(): item for item in apps if item.meant}
    rules = _rules(offer) if Workload.COMPLIANCE_POLICIES.value in names else {}
    found = [marked(_compared(item, theirs, by_name, rules), item) for item in mine]
    known = {same_setting(item.setting) for item in mine}
    found += [
        Gap(GapKind.GAINS, item.setting, item.workload, "", "", item.policy, item.value or "")
        for key, item in theirs.items()
        if key not in known and item.workload in names and item.outcome == "withheld"
    ]
    taken = {name for item in mine for name in _app_names(item)}
    for app in apps:
        if app.withheld and app.uninstall:
            found.append(_app(GapKind.LOST, app))
        elif app.withheld and app.meant and app.name.casefold() not in taken:
            found.append(_app(GapKind.GAINS, app))
    found += [
        gap for name, gap in rules.items() if name not in {item.setting.casefold() for item in mine}
    ]
    if Workload.COMPLIANCE_POLICIES.value in names and not offer.compliance:
        workload = Workload.COMPLIANCE_POLICIES.value
        found.append(Gap(GapKind.LOST, "", workload, subject=Subject.COMPLIANCE))
    return found


def _ours(kind: GapKind, item: deployments.Configuration, policy: str = "", value: str = "") -> Gap:
    subject = Subject.APP if area_of(item.setting) == APPS else Subject.SETTING
    return Gap(
        kind,
        item.setting,
        item.workload.value,
        item.name,
        shown(item.setting, item.value),
        policy,
        value,
        subject,
    )


def _compared(
    item: deployments.Configuration,
    theirs: Mapping[str, Offered],
    apps: Mapping[str, OfferedApp],
    rules: Mapping[str, Gap],
) -> Gap:
    """What becomes of something that the site deploys. An app of the tenant takes the place of one
    of the same name, as a rule of a compliance policy does."""
    other = theirs.get(same_setting(item.setting))
    if other is not None:
        kind = GapKind.SAME if other.value == item.value else GapKind.CHANGES
        if is_secret(item.setting, item.value):
            kind = GapKind.UNKNOWN  # The tenant tells nobody what it is.
        return _ours(kind, item, other.policy, other.value or "")
    for name in _app_names(item):
        if name in apps:
            app = apps[name]
            return _ours(GapKind.CHANGES, item, app.name, f"{app.intent} {app.version}".strip())
    rule = rules.get(item.setting.casefold())
    if rule is not None:
        kind = GapKind.SAME if rule.value == item.value else GapKind.CHANGES
        return _ours(kind, item, rule.policy, rule.value)
    return _ours(GapKind.LOST, item)


def _app_names(item: deployments.Configuration) -> set[str]:
    """By what names an app that the site deploys goes, in small letters; none for a setting."""
    if area_of(item.setting) != APPS:
        return set()
    names = {item.name.casefold(), item.setting.partition("/")[2].casefold()}
    try:
        wanted = instructions.read(item.setting, item.value)
    except Invalid:
        return names
    package = wanted.package if isinstance(wanted, instructions.App) else None
    return names | ({package.name.casefold()} if package is not None else set())


def _app(kind: GapKind, app: OfferedApp) -> Gap:
    value = f"{app.intent} {app.version}".strip()
    return Gap(kind, app.name, app.workload, "", "", app.name, value, Subject.APP)


def _rules(offer: Offer) -> dict[str, Gap]:
    """The rules of the compliance policies, by name in small letters: each would begin to count."""
    found: dict[str, Gap] = {}
    for policy in offer.compliance:
        for name, value in policy.rules:
            found.setdefault(
                name.casefold(),
                Gap(
                    GapKind.GAINS,
                    name,
                    Workload.COMPLIANCE_POLICIES.value,
                    "",
                    "",
                    policy.name,
                    value,
                    Subject.COMPLIANCE,
                ),
            )
    return found


def not_known(workload: Workload) -> list[str]:
    """What no analysis can say, in sentences."""
    lines = [
        "What a user, a script or another tool has set on a device is known to neither authority.",
        "What the site deploys to users is compared for who is signed in now; others bring their own"
        " when they sign in.",
        "Settings that need a newer Windows, or another edition, show only when the device answers.",
    ]
    lines.append(
        "Whether policies of the tenant want different values shows only when the workload moves: a"
        " device with such a conflict counts as failed."
    )
    if workload is Workload.COMPLIANCE_POLICIES:
        lines.append(
            "Whether a device will comply with the tenant's rules shows only when they are judged: a"
            " device that was compliant and is not any more counts as failed."
        )
    if workload in (Workload.CLIENT_APPS, Workload.OFFICE_CLICK_TO_RUN):
        lines.append(
            "Apps are compared by their names: whether two of one name are the same program, and"
            " what users installed themselves, nobody can say."
        )
    if workload in NEVER_AUTOMATIC:
        lines.append("Builds that are installed meanwhile stay when you switch back.")
    return lines


# Gates


class Verdict(Enum):
    WAIT = "wait"
    PASSED = "passed"
    FAIL = "fail"


def judge(ring: Ring, now: datetime) -> tuple[Verdict, Cause]:
    """A running ring at this moment."""
    counts, gate = ring.counts, ring.gate
    of = counts.counted
    if not of:
        if ring.asked:
            return Verdict.FAIL, Cause(
                "all-left", f"All {ring.asked} devices of ring {ring.place} left the site."
            )
        return Verdict.PASSED, Cause("empty", "No device of this ring was left to move.")
    if counts.failed * 100 > gate.failed_percent * of:
        return Verdict.FAIL, Cause(
            "too-many-failed",
            f"Ring {ring.place}: {counts.failed} of {of} devices failed; at most"
            f" {gate.failed_percent:g} percent may.",
        )
    enough = counts.done * 100 >= gate.done_percent * of
    if enough and (ring.soak_until is None or now >= ring.soak_until):
        return Verdict.PASSED, Cause()
    if not enough and ring.deadline_at is not None and now >= ring.deadline_at:
        return Verdict.FAIL, Cause(
            "too-slow",
            f"Ring {ring.place}: after {gate.minutes:g} minutes {counts.done} of {of} devices are"
            f" done; {gate.done_percent:g} percent have to be.",
        )
    return Verdict.WAIT, Cause()


def count(standings: Mapping[Standing, int]) -> Counts:
    return Counts(**{item.value: standings.get(item, 0) for item in Standing})
