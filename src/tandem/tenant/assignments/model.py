"""Assignments: a target each, in the words of Graph, and what else the owner keeps with it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from tandem.infra.errors import AppError, Invalid, Kind

# An object with more than this is meant for everybody.
MOST = 1000


class TargetKind(StrEnum):
    GROUP = "groupAssignmentTarget"
    EXCLUDED_GROUP = "exclusionGroupAssignmentTarget"
    ALL_DEVICES = "allDevicesAssignmentTarget"
    ALL_USERS = "allLicensedUsersAssignmentTarget"
    COLLECTION = "configurationManagerCollectionAssignmentTarget"


# How the ids of assignments name the targets that have no object of their own.
_EVERYBODY = {
    TargetKind.ALL_DEVICES: "adadadad-808e-44e2-905a-0b7873a8a531",
    TargetKind.ALL_USERS: "acacacac-9df4-4c7d-9d50-4ef0226f57a9",
}


@dataclass(frozen=True, slots=True)
class Target:
    """`subject` is the group's or the collection's id. A filter narrows the target to devices
    that its rule matches, or does not match."""

    kind: TargetKind
    subject: str = ""
    filter_id: str = ""
    filter_mode: str = "none"  # none, include, exclude

    @property
    def id(self) -> str:
        return self.subject or _EVERYBODY[self.kind]


@dataclass(frozen=True, slots=True)
class New:
    """An assignment to be made. `values` is the owner's: intent, settings, schedule."""

    target: Target
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assignment:
    id: str
    owner_id: str
    target: Target
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Membership:
    """The groups that count for a device: its user's, and its own as a directory object."""

    user: frozenset[str] = frozenset()
    device: frozenset[str] = frozenset()


class BadAssignment(Invalid):
    code = "assignment.invalid"


class NoSuchAssignment(AppError):
    kind, code = Kind.NOT_FOUND, "assignment.not-found"


def numbered(owner_id: str, wanted: Sequence[New]) -> list[Assignment]:
    """The assignments with their ids: the same target has the same id, whenever it is assigned.

    What is said twice in the same words counts once. Raises BadAssignment for a group that is
    included and excluded at once, and for too many.
    """
    if len(wanted) > MOST:
        raise BadAssignment(
            f"There are {len(wanted):,} assignments; an object takes {MOST:,}.",
            cure="Make a group of those groups, and assign to that.",
        )
    found: dict[str, Assignment] = {}
    for item in wanted:
        id, n = f"{owner_id}_{item.target.id}", 0
        while id in found and found[id].values != dict(item.values):
            n += 1
            id = f"{owner_id}_{item.target.id}_{n}"
        known = found.get(id)
        if known is not None and known.target.kind is not item.target.kind:
            raise BadAssignment(
                "A group cannot be included and excluded at once.",
                cure="Leave one of the two out.",
                groups=[item.target.subject],
            )
        found[id] = Assignment(id, owner_id, item.target, dict(item.values))
    kinds: dict[str, TargetKind] = {}
    for made in found.values():
        if kinds.setdefault(made.target.id, made.target.kind) is not made.target.kind:
            raise BadAssignment(
                "A group cannot be included and excluded at once.",
                cure="Leave one of the two out.",
                groups=[made.target.subject],
            )
    return list(found.values())


def reasons(
    assignments: Iterable[Assignment], groups: Membership
) -> tuple[list[Assignment], list[Assignment]]:
    """What includes a device, and what excludes it; both are empty for one that is not meant.

    What excludes counts only against what includes by the same kind of object: a group of devices
    takes nobody out of a group of users (comanagement, 2.12). So a device that is included by one
    kind and excluded by it is still meant when the other kind includes it.

    Targets with a filter include nobody as long as no filter is evaluated: giving it to those
    whom the filter leaves out would be worse than waiting. The site's collections are the site's.
    """
    both = sides(assignments, groups)
    meant = [item for _, included, excluded in both if not excluded for item in included]
    if meant:
        return meant, []
    included = [item for _, side, _ in both for item in side]
    return included, [item for _, side, excluded in both if side for item in excluded]


Side = Literal["user", "device"]


def sides(
    assignments: Iterable[Assignment], groups: Membership
) -> list[tuple[Side, list[Assignment], list[Assignment]]]:
    """By each kind of object, what includes and what excludes it."""
    given = list(assignments)
    return [
        ("user", *_side(given, groups.user, TargetKind.ALL_USERS)),
        ("device", *_side(given, groups.device, TargetKind.ALL_DEVICES)),
    ]


def _side(
    given: Iterable[Assignment], groups: frozenset[str], everybody: TargetKind
) -> tuple[list[Assignment], list[Assignment]]:
    """What includes and what excludes an object of one kind."""
    included, excluded = [], []
    for item in given:
        match item.target.kind:
            case TargetKind.EXCLUDED_GROUP if item.target.subject in groups:
                excluded.append(item)
            case TargetKind.GROUP if item.target.subject in groups:
                included.append(item)
            case kind if kind is everybody:
                included.append(item)
    return [item for item in included if item.target.filter_mode == "none"], excluded


def given_to(assignments: Iterable[Assignment], groups: Membership) -> bool:
    """Included, and not excluded by the same kind of object."""
    included, excluded = reasons(assignments, groups)
    return bool(included) and not excluded
