"""What several assignments of one app come to on one device (comanagement, 2.12).

Assignments speak by the user or by the device, each with an intent, each including or excluding.
What excludes counts against what includes with the same intent and by the same kind of object.
What is left is resolved by one table, for sessions, Graph, the command line and the console alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from tandem.tenant import assignments
from tandem.tenant.assignments import Assignment, Membership, Side


class Intent(StrEnum):
    REQUIRED = "required"
    AVAILABLE = "available"
    UNINSTALL = "uninstall"
    WITHOUT_ENROLLMENT = "availableWithoutEnrollment"


class Uninstall(StrEnum):
    NO = ""
    ALWAYS = "always"
    ONCE = "once"  # The copy that is there goes; what the user installs afterwards stays.
    UNLESS_CHOSEN = "unlessChosen"  # It goes unless the user installed it.


# The first of these counts when both are there.
_CHOOSING = (Intent.AVAILABLE, Intent.WITHOUT_ENROLLMENT)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a device is to do with an app, and whether its user may choose it."""

    required: bool = False
    available: Intent | None = None
    uninstall: Uninstall = Uninstall.NO

    @property
    def word(self) -> str:
        """Graph's mobileAppIntent; where that has no word for it, one made like it."""
        if self.required:
            return {
                None: "requiredInstall",
                Intent.AVAILABLE: "requiredAndAvailableInstall",
            }.get(self.available, "requiredAndAvailableInstallWithoutEnrollment")
        match self.uninstall:
            case Uninstall.ALWAYS:
                return "requiredUninstall"
            case Uninstall.ONCE:
                return "availableAfterUninstall"
            case Uninstall.UNLESS_CHOSEN:
                return "uninstallUnlessChosen"
        if self.available is Intent.WITHOUT_ENROLLMENT:
            return "availableInstallWithoutEnrollment"
        return "available" if self.available else "notAvailable"


def resolve(
    user: Iterable[Intent], device: Iterable[Intent], *, devices_choose: bool = False
) -> Resolved:
    """The table. `user` and `device` are the intents left on each side after what excludes.

    Offering an app to choose needs somebody who chooses: on the device's side it counts only for
    kinds of apps that may be offered to devices (`devices_choose`).
    """
    user, device = frozenset(user), frozenset(device)
    if devices_choose:
        user |= device & set(_CHOOSING)
    if Intent.REQUIRED in user:
        # Required and merely available without enrolment: required alone.
        return Resolved(True, Intent.AVAILABLE if Intent.AVAILABLE in user else None)
    if Intent.UNINSTALL in user:
        if Intent.REQUIRED in device:
            return Resolved(True)
        return Resolved(uninstall=Uninstall.ALWAYS)
    available = next((one for one in _CHOOSING if one in user), None)
    if Intent.REQUIRED in device:
        return Resolved(True, available)
    if Intent.UNINSTALL in device:
        how = {
            None: Uninstall.ALWAYS,
            Intent.AVAILABLE: Uninstall.ONCE,
            Intent.WITHOUT_ENROLLMENT: Uninstall.UNLESS_CHOSEN,
        }
        return Resolved(False, available, how[available])
    return Resolved(False, available)


Outcome = Literal["decides", "beaten", "excluded", "excludes"]


@dataclass(frozen=True, slots=True)
class Reason:
    """An assignment that concerns the device, and what became of it."""

    assignment: Assignment
    side: Side
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Explained:
    resolved: Resolved
    reasons: tuple[Reason, ...]

    @property
    def left_out(self) -> bool:
        """Whether it was meant for this device, and an excluded group took all of it away."""
        outcomes = {one.outcome for one in self.reasons}
        return "excluded" in outcomes and not outcomes & {"decides", "beaten"}


def explain(
    given: Iterable[Assignment], groups: Membership, *, devices_choose: bool = False
) -> Explained:
    """What the assignments of one app come to for a device of these groups, and why."""
    by_intent: dict[Intent, list[Assignment]] = {}
    for one in given:
        by_intent.setdefault(Intent(one.values.get("intent", "required")), []).append(one)
    left: dict[str, set[Intent]] = {"user": set(), "device": set()}
    found: list[tuple[Assignment, Side, Intent, Outcome]] = []
    for intent, mine in by_intent.items():
        for side, included, excluded in assignments.sides(mine, groups):
            if included and not excluded:
                left[side].add(intent)
            outcome: Outcome = "excluded" if excluded else "decides"
            found += [(one, side, intent, outcome) for one in included]
            found += [(one, side, intent, "excludes") for one in excluded if included]
    resolved = resolve(left["user"], left["device"], devices_choose=devices_choose)
    reasons = [
        Reason(
            one,
            side,
            "beaten"
            if outcome == "decides" and not _lives(intent, side, resolved, devices_choose)
            else outcome,
        )
        for one, side, intent, outcome in found
    ]
    reasons.sort(key=lambda one: (one.side, one.assignment.id))
    return Explained(resolved, tuple(reasons))


def _lives(intent: Intent, side: str, resolved: Resolved, devices_choose: bool) -> bool:
    """Whether the result still says what this intent says."""
    match intent:
        case Intent.REQUIRED:
            return resolved.required
        case Intent.UNINSTALL:
            return resolved.uninstall is not Uninstall.NO
    return resolved.available is intent and (side == "user" or devices_choose)


# ---------------------------------------------------------------------- what follows from it


@dataclass(frozen=True, slots=True)
class Choice:
    """What a device's user chose. `removed`: the copy that was there has gone once already."""

    requested: bool = False
    removed: bool = False


def wanted(resolved: Resolved, choice: Choice) -> Literal["install", "remove", ""]:
    """What the device is to do now."""
    if resolved.required:
        return "install"
    chosen: Literal["install", ""] = (
        "install" if choice.requested and resolved.available is not None else ""
    )
    match resolved.uninstall:
        case Uninstall.ALWAYS:
            return "remove"
        case Uninstall.ONCE:
            return chosen if choice.removed else "remove"
        case Uninstall.UNLESS_CHOSEN:
            return chosen or "remove"
    return chosen


# For questions over many devices: one bit an intent.
BITS = {
    Intent.REQUIRED: 1,
    Intent.AVAILABLE: 2,
    Intent.UNINSTALL: 4,
    Intent.WITHOUT_ENROLLMENT: 8,
}


def words() -> list[str]:
    """The table by number: the word for user's bits * 16 + device's bits."""

    def intents(bits: int) -> list[Intent]:
        return [intent for intent, bit in BITS.items() if bits & bit]

    return [resolve(intents(n >> 4), intents(n & 15)).word for n in range(256)]
