"""Who may enrol what: the platform and limit restrictions of Graph's deviceEnrollmentConfigurations.

Of each sort the first one counts, in the order of their priorities, that is assigned to a group of
the user; where none is, the default. It counts whole: restrictions are not merged.

Ownership is the vendor's rule: a device that its organisation joined to the directory is corporate,
one that only has a work account is personal. The limit counts personal devices alone: joined ones
are limited where they are joined.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.protocols import soap
from tandem.tenant import assignments, directory, policies
from tandem.tenant.assignments import Assignment, Membership
from tandem.tenant.enrollment import restriction_store
from tandem.tenant.policies import PolicyObject

KIND = "deviceEnrollmentConfigurations"
LIMIT = "deviceEnrollmentLimitConfiguration"
PLATFORMS = "deviceEnrollmentPlatformRestrictionsConfiguration"
PLATFORM = "deviceEnrollmentPlatformRestrictionConfiguration"
DEFAULT_LIMIT = 15
_WINDOWS = "windows"

Ownership = Literal["company", "personal"]


class DeviceCapReached(AppError):
    kind, code = Kind.FORBIDDEN, "enrollment.device-limit"


class DeviceNotSupported(AppError):
    kind, code = Kind.FORBIDDEN, "enrollment.device-not-supported"


@dataclass(frozen=True, slots=True)
class Restriction:
    """What a user's devices have to be. `name` is the configuration's, for whoever asks why."""

    name: str = "the default"
    blocked: bool = False
    personal_blocked: bool = False
    minimum: str = ""
    maximum: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    name: str = "the default"
    devices: int = DEFAULT_LIMIT


def version(text: str) -> tuple[int, ...] | None:
    """The numbers of a version of Windows (`10.0.22631.2715`); None when it is none."""
    parts = text.strip().split(".")
    if not 1 <= len(parts) <= 4 or not all(
        p.isascii() and p.isdigit() and len(p) < 7 for p in parts
    ):
        return None
    return tuple(int(part) for part in parts)


def _meets(found: tuple[int, ...] | None, minimum: str, maximum: str) -> bool:
    low, high = version(minimum), version(maximum)
    if low is None and high is None:
        return True
    if found is None:
        return False
    # A maximum of 10.0.19045 allows each of its revisions.
    upper = found[: len(high)] if high is not None else found
    return (low is None or found >= low) and (high is None or upper <= high)


def check_platform(rule: Restriction, ownership: Ownership, os_version: str) -> None:
    """Raises DeviceNotSupported."""
    if rule.blocked:
        raise DeviceNotSupported(
            f"Windows devices are blocked by the enrolment restriction “{rule.name}”.",
            cure="Allow Windows there, or give the user another restriction.",
        )
    if ownership == "personal" and rule.personal_blocked:
        raise DeviceNotSupported(
            f"Personal devices are blocked by the enrolment restriction “{rule.name}”.",
            cure="Join the device to the directory, or allow personal devices there.",
        )
    if not _meets(version(os_version), rule.minimum, rule.maximum):
        wanted = " to ".join(part for part in (rule.minimum or "any", rule.maximum) if part)
        raise DeviceNotSupported(
            f"Windows {os_version or 'of no known version'} is not allowed by the enrolment"
            f" restriction “{rule.name}”, which takes {wanted}.",
            cure="Update the device, or change the versions there.",
        )


def check_limit(limit: Limit, present: int) -> None:
    """Raises DeviceCapReached."""
    if present >= limit.devices:
        raise DeviceCapReached(
            f"The user has {present} devices; the enrolment restriction “{limit.name}” allows"
            f" {limit.devices}.",
            cure="Retire one that is no more, or raise the limit there.",
        )


def choose(
    objects: Iterable[PolicyObject],
    given: Iterable[Assignment],
    groups: Membership,
    types: frozenset[str],
) -> PolicyObject | None:
    """The configuration of one of the types that counts for a user; the default is one too."""
    by_owner: dict[str, list[Assignment]] = {}
    for one in given:
        by_owner.setdefault(one.owner_id, []).append(one)
    mine = [
        item
        for item in objects
        if item.type in types
        and (
            not item.properties.get("priority")
            or assignments.given_to(by_owner.get(item.id, []), groups)
        )
        and _of_windows(item)
    ]
    # The default has priority 0, and is the last.
    return min(mine, key=_order, default=None)


def _order(item: PolicyObject) -> tuple[bool, int, str]:
    priority = int(item.properties.get("priority") or 0)
    return priority == 0, priority, item.id


def _of_windows(item: PolicyObject) -> bool:
    if item.type != PLATFORM:
        return True
    return str(item.properties.get("platformType") or "").lower() in {"", _WINDOWS, "allplatforms"}


def restriction_of(found: PolicyObject | None) -> Restriction:
    if found is None:
        return Restriction()
    key = "platformRestriction" if found.type == PLATFORM else f"{_WINDOWS}Restriction"
    values: Mapping[str, Any] = found.properties.get(key) or {}
    return Restriction(
        found.name,
        bool(values.get("platformBlocked")),
        bool(values.get("personalDeviceEnrollmentBlocked")),
        str(values.get("osMinimumVersion") or ""),
        str(values.get("osMaximumVersion") or ""),
    )


def limit_of(found: PolicyObject | None) -> Limit:
    if found is None:
        return Limit()
    value = found.properties.get("limit")
    return Limit(found.name, value if isinstance(value, int) else DEFAULT_LIMIT)


async def ownership(tx: Tx, directory_device_id: str) -> Ownership:
    """Whose a device is, by how it belongs to the directory."""
    found = await directory.find_device(tx, directory_device_id) if directory_device_id else None
    joined = found is not None and found.trust_type != directory.Trust.REGISTERED.value
    return "company" if joined else "personal"


async def check(
    tx: Tx, user_id: str, directory_device_id: str, windows_id: str, asked: soap.RequestToken
) -> Ownership:
    """Whose the device is, if this user may enrol it. Raises DeviceNotSupported, DeviceCapReached."""
    owner = await ownership(tx, directory_device_id)
    objects = await policies.objects(tx, KIND)
    given = await assignments.every(tx, KIND)
    groups = Membership(await directory.groups_of(tx, user_id), frozenset())
    rule = restriction_of(choose(objects, given, groups, frozenset({PLATFORM, PLATFORMS})))
    os_version = asked.item("OSVersion") or asked.item("ApplicationVersion")
    check_platform(rule, owner, os_version)
    if owner == "personal":
        limit = limit_of(choose(objects, given, groups, frozenset({LIMIT})))
        present = await restriction_store.personal_devices(
            tx, user_id, windows_id, directory_device_id
        )
        check_limit(limit, present)
    return owner
