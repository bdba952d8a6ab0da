"""One row a device, of what both authorities know; and what can be asked of all rows together.

A tile of the dashboard and the list behind it ask the same question: `merge` answers it once, when
something about the device changes, and writes the answer into the row.
"""

from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from tandem.infra.errors import AppError, Kind
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


FAILED = (EnrollmentState.FAILURE_HYBRID, EnrollmentState.FAILURE_JOINED)


class Stage(Enum):
    """From enrolment to co-management, in the order in which a device goes through it."""

    LICENSED = "licensed"
    ENROLLED = "enrolled"
    APP_OFFERED = "app-offered"
    MSI_INSTALLED = "msi-installed"
    REGISTERED = "registered"
    POLICY = "policy"
    CO_MANAGED = "co-managed"


class Management(Enum):
    CO_MANAGED = "co-managed"
    MDM = "mdm"
    SITE = "site"
    NOBODY = "nobody"


class Sort(Enum):
    NAME = "name"
    USER = "user"
    OS = "os"
    MANAGEMENT = "management"
    STAGE = "stage"
    CLIENT = "client"
    SEEN = "seen"


class BadFilter(AppError):
    kind, code = Kind.INVALID, "fleet.bad-filter"


class NoSuchDevice(AppError):
    kind, code = Kind.NOT_FOUND, "fleet.no-such-device"


class SelectionChanged(AppError):
    """Between the question and the answer other devices came to match."""

    kind, code = Kind.CONFLICT, "fleet.selection-changed"


class NothingSelected(AppError):
    kind, code = Kind.INVALID, "fleet.nothing-selected"


class Account(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the tenant says of a device: as one that is joined, or as one that it manages."""

    name: str = ""
    user: str = ""
    os_version: str = ""
    hybrid: bool = False
    licensed: bool = False
    mdm_id: str = ""
    model: str = ""
    serial_number: str = ""
    enrolled_at: datetime | None = None
    checked_in_at: datetime | None = None
    app_offered: bool = False
    msi_installed: bool = False
    trouble: str = ""


class TenantFacts(msgspec.Struct, frozen=True):
    """Both accounts of the tenant, and the error of the last enrolment that it refused."""

    directory: Account | None = None
    mdm: Account | None = None
    error: int | None = None

    @property
    def told(self) -> bool:
        return bool(self.directory or self.mdm or self.error is not None)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A row. `client_id` and `mdm_id` are empty where an authority has no record of the device."""

    id: str
    name: str
    user: str = ""
    os_version: str = ""
    client_version: str = ""
    client_id: str = ""
    mdm_id: str = ""
    blocked: bool = False
    joined: bool = True
    hybrid: bool = False
    licensed: bool = False
    mdm_enrolled: bool = False
    app_offered: bool = False
    msi_installed: bool = False
    registered: bool = False
    policy_present: bool = False
    scheduled: bool = False
    initiated: bool = False
    pending_sign_in: bool = False
    flags: int = 0
    enrollment_error: int | None = None
    last_seen_at: datetime | None = None
    # The line of its log at which a device stands still; empty while it moves on.
    trouble: str = ""

    @property
    def co_managed(self) -> bool:
        """Only while the MDM reports it enrolled and the client reports its policy present."""
        return self.mdm_enrolled and self.policy_present

    @property
    def management(self) -> Management:
        if self.co_managed:
            return Management.CO_MANAGED
        if self.mdm_enrolled:
            return Management.MDM
        return Management.SITE if self.registered else Management.NOBODY

    @property
    def unlicensed(self) -> bool:
        """Co-managed, while nobody has assigned its user the licence that this takes."""
        return self.co_managed and bool(self.user) and not self.licensed


class Filter(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which devices: every field that is set must hold. What a tile counts, its link filters.

    `search` is how a name or a user begins; with a `*` before it, what is in it anywhere.
    """

    search: str = ""
    management: Management | None = None
    os: OsGroup | None = None
    funnel: FunnelStep | None = None
    enrollment: EnrollmentState | None = None
    failed: bool = False
    stage: Stage | None = None
    missing: Stage | None = None
    workload: Workload | None = None
    owner: Authority | None = None
    error: int | None = None
    unlicensed: bool = False
    blocked: bool = False


class Reading(msgspec.Struct, frozen=True):
    """How it goes with reading the tenant. `error` says why it does not, in a sentence."""

    tenant_id: str = ""
    read_at: datetime | None = None
    took_seconds: float = 0
    error: str = ""
    wanted_at: datetime | None = None

    @property
    def asked(self) -> bool:
        """Whether the tenant has said who is enrolled; before that, a client's own word counts."""
        return self.read_at is not None


NOT_CONNECTED = "The site is not connected to a tenant."
NOT_READ_YET = "The site has not read it yet."


class Figures(msgspec.Struct, frozen=True):
    """The dashboard's tiles. `workloads`: co-managed devices that have it with the MDM service;
    `positions`: where each slider stands.

    `without_tenant` says why the tenant's half is missing or old; it is empty when it is here.
    """

    devices: int
    operating_systems: dict[str, int]
    funnel: dict[str, int]
    enrollment: dict[str, int]
    workloads: dict[str, int]
    errors: dict[str, int]
    stages: dict[str, int]
    unlicensed_users: int
    blocked: int
    positions: dict[str, str]
    without_tenant: str = ""
    tenant_read_at: datetime | None = None


# From facts to the row


def merge(
    device_id: str, site: clients.DeviceFacts | None, tenant: TenantFacts | None, asked: bool
) -> Device | None:
    """The row of a device; None for one that nobody knows any more."""
    client = site.client if site else None
    setup = site.setup if site else None
    progress = site.progress if site else None
    theirs = tenant if tenant is not None and tenant.told else None
    if client is None and setup is None and progress is None and theirs is None:
        return None
    account = (theirs.mdm or theirs.directory) if theirs else None
    mine = account or Account()
    enrolled = (
        bool(theirs and theirs.mdm) if asked else bool(client is not None and client.mdm_enrolled)
    )
    error = theirs.error if theirs else None
    if error is None and progress is not None:
        error = progress.error
    trouble = mine.trouble
    if client is None and setup is not None and setup.failed:
        trouble = trouble or _line(setup.data) or setup.text
    seen = [
        at for at in (client.last_seen_at if client else None, mine.checked_in_at) if at is not None
    ]
    return Device(
        id=device_id,
        name=(client.name if client else "") or mine.name or device_id,
        user=mine.user,
        os_version=(client.os_version if client else "") or mine.os_version,
        client_version=client.client_version if client else "",
        client_id=client.id if client else "",
        mdm_id=mine.mdm_id,
        blocked=client is not None and client.blocked,
        # Of whom the tenant knows nothing but a refusal, it does not know the join either.
        joined=theirs is None or account is not None,
        hybrid=mine.hybrid or bool(theirs and theirs.directory and theirs.directory.hybrid),
        licensed=mine.licensed,
        mdm_enrolled=enrolled,
        app_offered=mine.app_offered,
        msi_installed=mine.msi_installed,
        registered=client is not None,
        policy_present=client is not None and client.policy_present,
        scheduled=progress is not None and progress.scheduled,
        initiated=progress is not None and progress.initiated,
        pending_sign_in=progress is not None and progress.pending_sign_in,
        flags=client.flags if client else 0,
        enrollment_error=None if enrolled else error,
        last_seen_at=max(seen, default=None),
        trouble=trouble,
    )


def _line(data: dict[str, Any]) -> str:
    return next((str(data[key]) for key in ("log", "line", "text", "detail") if data.get(key)), "")


# From the row to what is asked of it


def operating_system(device: Device) -> OsGroup:
    try:
        version = tuple(int(part) for part in device.os_version.split("."))
    except ValueError:
        return OsGroup.OTHER
    if version < (6, 1):
        return OsGroup.OTHER
    if version < (10,):
        return OsGroup.LEGACY
    return OsGroup.CURRENT if version >= MINIMUM_BUILD else OsGroup.BEFORE_1709


def steps(device: Device) -> frozenset[FunnelStep]:
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


def enrollment_state(device: Device) -> EnrollmentState | None:
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


def stages(device: Device) -> frozenset[Stage]:
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


def last_stage(device: Device) -> Stage | None:
    reached = stages(device)
    return next((stage for stage in reversed(Stage) if stage in reached), None)


def owner(device: Device, workload: Workload) -> Authority:
    """Who has the workload, by the flags that the device itself reports."""
    return owner_of(workload, effective(device.flags, device.mdm_enrolled))


def with_mdm(device: Device) -> frozenset[Workload]:
    """Of a co-managed device: the workloads that the MDM service has."""
    if not device.co_managed:
        return frozenset()
    return frozenset(w for w in Workload if owner(device, w) is Authority.MDM)


_KEY = 200  # An index row has a limit; of longer names the beginning orders.


def key(text: str) -> str:
    """By what texts are compared and found: letters of any size are one."""
    return text.casefold()[:_KEY]


def version_key(version: str) -> str:
    """Versions in the order of their numbers."""
    parts = version.split(".")
    if all(part.isascii() and part.isdigit() for part in parts):
        return ".".join(part.zfill(8) for part in parts)[:_KEY]
    return key(version)


def plain(text: str) -> str:
    """As a column can hold it: without NUL, and without halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
