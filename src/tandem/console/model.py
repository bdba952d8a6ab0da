"""What the pages show, and what they ask of the modules that know it.

The pages are written against the two protocols at the end. A page never asks what a name means in
a database: the adapters `site_pages` and `tenant_pages` do.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Protocol

import msgspec

from tandem.infra.errors import AppError, Kind
from tandem.workloads import Authority, Position, Workload


class NotSignedIn(AppError):
    kind, code = Kind.UNAUTHENTICATED, "console.not-signed-in"


class NotAllowed(AppError):
    kind, code = Kind.FORBIDDEN, "console.not-allowed"


class FormExpired(AppError):
    """A form that did not come from a page of ours, or from one that is too old."""

    kind, code = Kind.FORBIDDEN, "console.form-expired"


class UnknownDevice(AppError):
    kind, code = Kind.NOT_FOUND, "console.unknown-device"


class UnknownApp(AppError):
    kind, code = Kind.NOT_FOUND, "console.unknown-app"


class UnknownPage(AppError):
    kind, code = Kind.NOT_FOUND, "console.unknown-page"


class Session(msgspec.Struct, frozen=True):
    """A signed-in person. `token` is what the cookie holds, and leaves this process nowhere else.

    `own`: somebody without a role, for whom the pages of their own affairs are open and no others.
    """

    token: str
    user: str
    role: str
    own: bool = False


# The dashboard's tiles, by the field's names.


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


class Management(Enum):
    CO_MANAGED = "co-managed"
    MDM = "mdm"
    SITE = "site"
    NOBODY = "nobody"


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What both authorities know of a device, as far as the tiles and the list need it."""

    id: str
    name: str
    user: str = ""
    os_version: str = ""
    hybrid: bool = False
    joined: bool = True
    licensed: bool = False
    scheduled: bool = False
    initiated: bool = False
    mdm_enrolled: bool = False
    app_offered: bool = False
    msi_installed: bool = False
    registered: bool = False
    policy_present: bool = False
    pending_sign_in: bool = False
    # What the agent itself has written down.
    flags: int = 0
    enrollment_error: int | None = None
    client_version: str = ""
    last_seen_at: datetime | None = None
    # The line of its log at which a device stands still; empty while it moves on.
    trouble: str = ""

    @property
    def co_managed(self) -> bool:
        """Only while the MDM reports it enrolled and the agent reports its policy present."""
        return self.mdm_enrolled and self.policy_present

    @property
    def management(self) -> Management:
        if self.co_managed:
            return Management.CO_MANAGED
        if self.mdm_enrolled:
            return Management.MDM
        return Management.SITE if self.registered else Management.NOBODY


class Moved(msgspec.Struct, frozen=True):
    """Of the co-managed devices: how many have this workload with whom."""

    position: Position
    site: int
    mdm: int


class ErrorCount(msgspec.Struct, frozen=True):
    code: int
    count: int


class Dashboard(msgspec.Struct, frozen=True):
    devices: int
    operating_systems: Mapping[OsGroup, int]
    funnel: Mapping[FunnelStep, int]
    enrollment: Mapping[EnrollmentState, int]
    workloads: Mapping[Workload, Moved]
    errors: tuple[ErrorCount, ...]
    stages: Mapping[Stage, int]
    # Why the tenant's half of the numbers is missing, in a sentence; empty when it is here.
    without_tenant: str = ""


class Filter(msgspec.Struct, frozen=True):
    """Which devices: every field that is set must hold. What a tile counts, its link filters."""

    search: str = ""
    management: Management | None = None
    operating_system: OsGroup | None = None
    funnel: FunnelStep | None = None
    enrollment: EnrollmentState | None = None
    failed: bool = False
    stage: Stage | None = None
    missing: Stage | None = None
    workload: Workload | None = None
    owner: Authority | None = None
    error: int | None = None


class Sort(Enum):
    NAME = "name"
    USER = "user"
    OS = "os"
    MANAGEMENT = "management"
    STAGE = "stage"
    CLIENT = "client"
    SEEN = "seen"


class Slice(msgspec.Struct, frozen=True):
    """Which part of a list, in which order."""

    page: int = 1
    size: int = 50
    sort: Sort = Sort.NAME
    descending: bool = False


class Devices(msgspec.Struct, frozen=True):
    rows: tuple[DeviceFacts, ...]
    total: int
    without_tenant: str = ""


class Fact(msgspec.Struct, frozen=True):
    """One line of an authority's account: `label` is a message id, `value` is data."""

    label: str
    value: str | int | bool | datetime | None


class Owner(msgspec.Struct, frozen=True):
    """Who has a workload of a device, by its own account and by what was decided for it."""

    workload: Workload
    reported: Authority
    decided: Authority

    @property
    def agreed(self) -> bool:
        return self.reported is self.decided


class Happening(msgspec.Struct, frozen=True):
    """One line of a timeline. `times`: how often in a row the same was said, `at` the last time."""

    at: datetime
    source: str
    text: str
    failed: bool = False
    times: int = 1


class LogText(msgspec.Struct, frozen=True):
    name: str
    lines: tuple[str, ...]


class Device(msgspec.Struct, frozen=True):
    facts: DeviceFacts
    mdm: tuple[Fact, ...]
    site: tuple[Fact, ...]
    owners: tuple[Owner, ...]
    timeline: tuple[Happening, ...]
    logs: tuple[LogText, ...]
    without_tenant: str = ""


class AppStatus(msgspec.Struct, frozen=True):
    """The MSI and the client it brings are two things: each has its own state on a device."""

    device_id: str
    device: str
    user: str
    installation: str
    failed: bool
    client_step: str
    client_code: int | None
    registered: bool
    policy_present: bool
    stuck_at: str = ""
    at: datetime | None = None


class App(msgspec.Struct, frozen=True):
    """Given to the groups of `assigned_to`, except to those of `excluded`."""

    id: str
    name: str
    publisher: str
    version: str
    state: str
    assigned_to: tuple[str, ...]
    excluded: tuple[str, ...]
    installed: int
    failed: int
    waiting: int
    statuses: tuple[AppStatus, ...] = ()


class Begun(msgspec.Struct, frozen=True):
    """A sign-in on its way: where to send the browser, and what its cookie keeps until it is back."""

    url: str
    secret: str


class SiteReads(Protocol):
    async def sign_in(self, user: str, password: str) -> Session:
        """Raises an UNAUTHENTICATED AppError."""

    async def session(self, token: str) -> Session | None: ...

    async def sign_out(self, session: Session) -> None: ...

    async def dashboard(self, session: Session) -> Dashboard: ...

    async def devices(self, session: Session, wanted: Filter, part: Slice) -> Devices: ...

    async def device(self, session: Session, device_id: str) -> Device:
        """Raises UnknownDevice."""


class TenantReads(Protocol):
    async def begin(self, return_to: str) -> Begun: ...

    async def finish(self, secret: str, query: Mapping[str, str]) -> tuple[Session, str]:
        """The session, and the page to go on to. Raises an AppError when the sign-in failed."""

    async def session(self, token: str) -> Session | None: ...

    async def sign_out(self, session: Session) -> None: ...

    async def devices(self, session: Session, wanted: Filter, part: Slice) -> Devices: ...

    async def device(self, session: Session, device_id: str) -> Device:
        """Raises UnknownDevice."""

    async def apps(self, session: Session) -> tuple[App, ...]: ...

    async def app(self, session: Session, app_id: str) -> App:
        """With the status of every device it is meant for. Raises UnknownApp."""
