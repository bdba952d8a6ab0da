"""The dashboard's figures: the five tiles of the field, and the way from enrolment to co-management.

    Client OS distribution         OsGroup → devices
    Co-management status           FunnelStep → devices
    Co-management enrollment       EnrollmentState → devices
    Workload transition            workload → devices that have it with the MDM service
    Enrollment errors              code → devices
    From enrolment to co-management  Stage → devices

What the tenant knows of a device is handed in; what the site knows comes of its clients' own words.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from tandem.site import clients
from tandem.workloads import (
    MINIMUM_BUILD,
    Authority,
    Eligibility,
    Facts,
    Workload,
    effective,
    eligibility,
    owner_of,
)


class OsGroup(Enum):
    LEGACY = "legacy"
    BEFORE_1709 = "before-1709"
    CURRENT = "current"
    OTHER = "other"


class FunnelStep(Enum):
    ELIGIBLE = "eligible"
    SCHEDULED = "scheduled"
    INITIATED = "initiated"
    ENROLLED = "enrolled"


class EnrollmentState(Enum):
    SUCCESS_HYBRID = "success-hybrid"
    SUCCESS_JOINED = "success-joined"
    ENROLLING_HYBRID = "enrolling-hybrid"
    FAILURE_HYBRID = "failure-hybrid"
    FAILURE_JOINED = "failure-joined"
    PENDING_SIGN_IN = "pending-sign-in"


class Stage(Enum):
    """From enrolment to co-management, in the order in which a device goes through it."""

    LICENSED = "licensed"
    ENROLLED = "enrolled"
    APP_OFFERED = "app-offered"
    MSI_INSTALLED = "msi-installed"
    REGISTERED = "registered"
    POLICY = "policy"
    CO_MANAGED = "co-managed"


class TenantFacts(Protocol):
    """What the tenant says of one of its devices."""

    @property
    def os_version(self) -> str: ...
    @property
    def joined(self) -> bool: ...
    @property
    def hybrid(self) -> bool: ...
    @property
    def licensed(self) -> bool: ...
    @property
    def mdm_enrolled(self) -> bool: ...
    @property
    def app_offered(self) -> bool: ...
    @property
    def msi_installed(self) -> bool: ...
    @property
    def enrollment_error(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What both authorities know of a device, as far as the figures need it."""

    device_id: str
    os_version: str = ""
    joined: bool = True
    hybrid: bool = False
    licensed: bool = False
    mdm_enrolled: bool = False
    app_offered: bool = False
    msi_installed: bool = False
    registered: bool = False
    policy_present: bool = False
    flags: int = 0
    scheduled: bool = False
    initiated: bool = False
    pending_sign_in: bool = False
    enrollment_error: int | None = None

    @property
    def co_managed(self) -> bool:
        """Only while the device is enrolled and the client reports its policy present."""
        return self.mdm_enrolled and self.policy_present


def facts(
    device_id: str,
    client: clients.ClientSummary | None,
    tenant: TenantFacts | None,
    progress: clients.EnrollmentProgress | None,
    tenant_asked: bool,
) -> DeviceFacts:
    """Without the tenant's word, a client's own word on its enrolment is the best there is."""
    enrolled = client is not None and client.mdm_enrolled
    if tenant is not None or tenant_asked:
        enrolled = tenant is not None and tenant.mdm_enrolled
    error = tenant.enrollment_error if tenant else None
    if error is None and progress is not None:
        error = progress.error
    return DeviceFacts(
        device_id=device_id,
        os_version=(client.os_version if client else "") or (tenant.os_version if tenant else ""),
        joined=tenant.joined if tenant else True,
        hybrid=tenant is not None and tenant.hybrid,
        licensed=tenant is not None and tenant.licensed,
        mdm_enrolled=enrolled,
        app_offered=tenant is not None and tenant.app_offered,
        msi_installed=tenant is not None and tenant.msi_installed,
        registered=client is not None,
        policy_present=client is not None and client.policy_present,
        flags=client.flags if client else 0,
        scheduled=progress is not None and progress.scheduled,
        initiated=progress is not None and progress.initiated,
        pending_sign_in=progress is not None and progress.pending_sign_in,
        enrollment_error=None if enrolled else error,
    )


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
    """The steps of the funnel that a device counts in.

    Scheduled and initiated belong to existing clients that the site had enrolled: a device that
    enrolled by itself goes from eligible to enrolled.
    """
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
    """None for a device that nobody has tried to enrol."""
    if device.mdm_enrolled:
        return EnrollmentState.SUCCESS_HYBRID if device.hybrid else EnrollmentState.SUCCESS_JOINED
    if device.enrollment_error is not None:
        return EnrollmentState.FAILURE_HYBRID if device.hybrid else EnrollmentState.FAILURE_JOINED
    if device.pending_sign_in:
        return EnrollmentState.PENDING_SIGN_IN
    if device.hybrid and (device.scheduled or device.initiated):
        return EnrollmentState.ENROLLING_HYBRID
    return None


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


def owner(device: DeviceFacts, workload: Workload) -> Authority:
    """Who has the workload, by the flags that the device itself reports."""
    return owner_of(workload, effective(device.flags, device.mdm_enrolled))


@dataclass(frozen=True, slots=True)
class Figures:
    """`without_tenant` says why the tenant's half is missing; it is empty when it is here."""

    devices: int
    operating_systems: Mapping[OsGroup, int]
    funnel: Mapping[FunnelStep, int]
    enrollment: Mapping[EnrollmentState, int]
    workloads: Mapping[Workload, int]
    errors: Mapping[int, int]
    stages: Mapping[Stage, int]
    without_tenant: str = field(default="")


def figures(devices: Iterable[DeviceFacts], without_tenant: str = "") -> Figures:
    every = tuple(devices)
    together = [device for device in every if device.co_managed]
    systems = Counter(operating_system(device) for device in every)
    funnel = Counter(step for device in every for step in steps(device))
    states = Counter(enrollment_state(device) for device in every)
    errors = Counter(d.enrollment_error for d in every if d.enrollment_error is not None)
    reached = Counter(stage for device in every for stage in stages(device))
    return Figures(
        devices=len(every),
        operating_systems={group: systems[group] for group in OsGroup},
        funnel={step: funnel[step] for step in FunnelStep},
        enrollment={state: states[state] for state in EnrollmentState},
        workloads={
            workload: sum(owner(device, workload) is Authority.MDM for device in together)
            for workload in Workload
        },
        errors=dict(errors.most_common()),
        stages={stage: reached[stage] for stage in Stage},
        without_tenant=without_tenant,
    )
