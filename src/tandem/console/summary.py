"""The tiles as counts over devices. A tile and the list behind it ask the same question of each."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tandem.console.model import (
    Dashboard,
    DeviceFacts,
    Devices,
    EnrollmentState,
    ErrorCount,
    Filter,
    FunnelStep,
    Happening,
    Moved,
    OsGroup,
    Slice,
    Sort,
    Stage,
)
from tandem.workloads import (
    MINIMUM_BUILD,
    Authority,
    Eligibility,
    Facts,
    Position,
    Workload,
    effective,
    eligibility,
    owner_of,
)


def timeline(happened: Iterable[Happening]) -> tuple[Happening, ...]:
    """The newest first; what is said several times in a row is one line that counts."""
    lines: list[Happening] = []
    for item in sorted(happened, key=lambda one: one.at, reverse=True):
        last = lines[-1] if lines else None
        if last and (last.source, last.text, last.failed) == (item.source, item.text, item.failed):
            lines[-1] = msgspec.structs.replace(last, times=last.times + item.times)
        else:
            lines.append(item)
    return tuple(lines)


def operating_system(device: DeviceFacts) -> OsGroup:
    try:
        version = tuple(int(part) for part in device.os_version.split("."))
    except ValueError:
        return OsGroup.OTHER
    if version < (6, 1):
        return OsGroup.OTHER
    if version < (10,):
        return OsGroup.LEGACY
    return OsGroup.CURRENT if version >= MINIMUM_BUILD else OsGroup.BEFORE_1709


def steps(device: DeviceFacts) -> frozenset[FunnelStep]:
    """The funnel's steps that a device counts in: each one contains those after it."""
    found = eligibility(
        Facts(
            os_version=device.os_version,
            joined=device.joined,
            mdm_enrolled=device.mdm_enrolled,
            policy_present=device.policy_present,
        )
    )
    if found not in (Eligibility.ELIGIBLE, Eligibility.COMANAGED):
        return frozenset()
    reached = {FunnelStep.ELIGIBLE}
    if device.scheduled or device.initiated:
        reached.add(FunnelStep.SCHEDULED)
    if device.initiated:
        reached.add(FunnelStep.INITIATED)
    if device.co_managed:
        reached.add(FunnelStep.ENROLLED)
    return frozenset(reached)


def enrollment_state(device: DeviceFacts) -> EnrollmentState | None:
    if device.mdm_enrolled:
        return EnrollmentState.SUCCESS_HYBRID if device.hybrid else EnrollmentState.SUCCESS_JOINED
    if device.enrollment_error is not None:
        return EnrollmentState.FAILURE_HYBRID if device.hybrid else EnrollmentState.FAILURE_JOINED
    if device.pending_sign_in:
        return EnrollmentState.PENDING_SIGN_IN
    if device.hybrid and (device.scheduled or device.initiated):
        return EnrollmentState.ENROLLING_HYBRID
    return None


FAILED = (EnrollmentState.FAILURE_HYBRID, EnrollmentState.FAILURE_JOINED)


def stages(device: DeviceFacts) -> frozenset[Stage]:
    """Each stage by what is so now: a device that left the MDM is no longer counted there."""
    holds = {
        Stage.LICENSED: device.licensed,
        Stage.ENROLLED: device.mdm_enrolled,
        Stage.APP_OFFERED: device.app_offered,
        Stage.MSI_INSTALLED: device.msi_installed,
        Stage.REGISTERED: device.registered,
        Stage.POLICY: device.policy_present,
        Stage.CO_MANAGED: device.co_managed,
    }
    return frozenset(stage for stage, so in holds.items() if so)


def last_stage(device: DeviceFacts) -> Stage | None:
    reached = stages(device)
    return next((stage for stage in reversed(Stage) if stage in reached), None)


def owner(device: DeviceFacts, workload: Workload) -> Authority:
    return owner_of(workload, effective(device.flags, device.mdm_enrolled))


def matches(device: DeviceFacts, wanted: Filter) -> bool:
    text = wanted.search.strip().casefold()
    return (
        (not text or text in device.name.casefold() or text in device.user.casefold())
        and wanted.management in (None, device.management)
        and wanted.operating_system in (None, operating_system(device))
        and (wanted.funnel is None or wanted.funnel in steps(device))
        and wanted.enrollment in (None, enrollment_state(device))
        and (not wanted.failed or enrollment_state(device) in FAILED)
        and (wanted.stage is None or wanted.stage in stages(device))
        and (wanted.missing is None or wanted.missing not in stages(device))
        and (wanted.error is None or wanted.error == device.enrollment_error)
        and (wanted.workload is None or _has(device, wanted.workload, wanted.owner))
    )


def _has(device: DeviceFacts, workload: Workload, wanted: Authority | None) -> bool:
    return device.co_managed and wanted in (None, owner(device, workload))


def dashboard(
    devices: Iterable[DeviceFacts],
    positions: Mapping[Workload, Position],
    without_tenant: str = "",
) -> Dashboard:
    every = tuple(devices)
    together = [device for device in every if device.co_managed]
    reached = Counter(stage for device in every for stage in stages(device))
    in_funnel = Counter(step for device in every for step in steps(device))
    systems = Counter(operating_system(device) for device in every)
    states = Counter(enrollment_state(device) for device in every)
    errors = Counter(d.enrollment_error for d in every if d.enrollment_error is not None)
    workloads = {}
    for workload in Workload:
        moved = sum(owner(device, workload) is Authority.MDM for device in together)
        position = positions.get(workload, Position.SITE)
        workloads[workload] = Moved(position, len(together) - moved, moved)
    return Dashboard(
        devices=len(every),
        operating_systems={group: systems[group] for group in OsGroup},
        funnel={step: in_funnel[step] for step in FunnelStep},
        enrollment={state: states[state] for state in EnrollmentState},
        workloads=workloads,
        errors=tuple(ErrorCount(code, count) for code, count in errors.most_common()),
        stages={stage: reached[stage] for stage in Stage},
        without_tenant=without_tenant,
    )


_NEVER = datetime.min.replace(tzinfo=UTC)
_ORDER = list(Stage)
_KEYS: dict[Sort, Callable[[DeviceFacts], Any]] = {
    Sort.NAME: lambda d: d.name.casefold(),
    Sort.USER: lambda d: d.user.casefold(),
    Sort.OS: lambda d: d.os_version,
    Sort.MANAGEMENT: lambda d: d.management.value,
    Sort.STAGE: lambda d: _ORDER.index(stage) if (stage := last_stage(d)) else -1,
    Sort.CLIENT: lambda d: d.client_version,
    Sort.SEEN: lambda d: d.last_seen_at or _NEVER,
}


def listing(
    devices: Iterable[DeviceFacts], wanted: Filter, part: Slice, without_tenant: str = ""
) -> Devices:
    found = sorted((d for d in devices if matches(d, wanted)), key=lambda d: d.id)
    found.sort(key=_KEYS[part.sort], reverse=part.descending)
    first = (part.page - 1) * part.size
    return Devices(tuple(found[first : first + part.size]), len(found), without_tenant)
