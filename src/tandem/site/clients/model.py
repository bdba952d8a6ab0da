"""Clients, what they report, and what the management point refuses."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Annotated, Any, Literal, NewType

import msgspec

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind
from tandem.protocols import ccm

ClientId = NewType("ClientId", str)

# Registration by a directory token is approved by the directory's word, and one by a certificate by
# its authority's. For a bulk registration token stands the administrator who made it.
APPROVED_BY_DIRECTORY, APPROVED = 3, 1
# Topics of what the site itself writes into a device's timeline.
SITE_TOPIC = 9100
REGISTERED, REGISTERED_AGAIN, POLICY_DELIVERED, USER_POLICY_DELIVERED = 1, 2, 3, 4
SUPERSEDED, REVIVED, CONFLICT = 5, 6, 7


class ClientsSettings(Settings, frozen=True):
    """`token_hours`: after how long a client has to show its directory token again.

    `policy_days`: how long a policy is in force without news; a client notices when news is
    withheld from it for that long. `site_token_days`: how long a client that no directory knows may
    stay away; `site_token_grace_days`: for how long after that its key alone still renews the token.

    `inactive_days`: a client that was not heard of for so long counts as inactive (the field's 7).
    `history_days`: so long the timeline of a device goes back (the field's 30 of status messages).
    """

    token_hours: float = 8
    policy_days: float = 7
    site_token_days: float = 90
    site_token_grace_days: float = 90
    inactive_days: float = 7
    history_days: Annotated[float, msgspec.Meta(ge=1)] = 30


class TenantIdentity(msgspec.Struct, frozen=True):
    """Who a directory token speaks for, after its signature, audience and life were verified.

    `app_id` is the application that asked for the token, `scopes` what it may do for its user.
    """

    tenant_id: str
    device_id: str
    kind: Literal["device", "user"]
    object_id: str = ""
    upn: str = ""
    app_id: str = ""
    scopes: tuple[str, ...] = ()


# By what a client showed who it is when it registered.
Credential = Literal["directory", "certificate", "bulk-token"]
ConflictKind = Literal["clone", "sequence", "hardware"]


class TokenHolder(msgspec.Struct, frozen=True):
    """Who a CCM token speaks for, the key that it is bound to, and until when it is taken.
    `registration_token` is the id of the bulk registration token that stands behind it."""

    tenant_id: str
    device_id: str
    kind: Literal["device", "user"]
    object_id: str
    thumbprint: str
    key: dict[str, str]
    expires: float
    by: Credential = "directory"
    registration_token: str = ""
    # The client whose copy this was, when it registers for the first time with a key of its own.
    successor_of: str = ""
    # Whether the token is the site's own, and good for as long as the client is known like that.
    lasting: bool = False


class Client(msgspec.Struct, frozen=True):
    """`state` is the last co-management state that the client reported."""

    id: ClientId
    tenant_id: str
    device_id: str
    thumbprint: str
    name: str
    os_name: str
    os_version: str
    client_version: str
    approval: int
    blocked: bool
    registered_at: datetime
    last_seen_at: datetime
    policy_at: datetime | None
    policy_version: int
    state_at: datetime | None
    state: ccm.ComanagementState | None
    registered_by: Credential = "directory"
    registration_token: str = ""
    hardware_id: str = ""
    # Another record of the same machine took this one's place.
    obsolete: bool = False


class ClientSummary(msgspec.Struct, frozen=True):
    """A client as lists show it."""

    id: ClientId
    name: str
    tenant_id: str
    device_id: str
    os_version: str
    client_version: str
    approval: int
    blocked: bool
    registered_at: datetime
    last_seen_at: datetime
    policy_version: int
    flags: int
    mdm_enrolled: bool
    policy_present: bool
    registered_by: Credential = "directory"
    obsolete: bool = False
    registration_token: str = ""

    @classmethod
    def of(cls, client: Client) -> "ClientSummary":
        state = client.state
        return cls(
            client.id,
            client.name,
            client.tenant_id,
            client.device_id,
            client.os_version,
            client.client_version,
            client.approval,
            client.blocked,
            client.registered_at,
            client.last_seen_at,
            client.policy_version,
            state.flags if state else 0,
            state.mdm_enrolled if state else False,
            state.policy_present if state else False,
            client.registered_by,
            client.obsolete,
            client.registration_token,
        )


class RegistrationToken(msgspec.Struct, frozen=True):
    """A bulk registration token without the token. `registered`: how many clients came by it."""

    id: str
    description: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    blocked: bool
    registered: int


class Conflict(msgspec.Struct, frozen=True):
    """Two machines that are one client, or one machine that is two.

    `kind`: "clone", the client spoke from hardware `other`; "sequence", it repeated a number that
    it had used: its disk was put back, or copied; "hardware", the client `other` has the same
    hardware. `decision` is what an administrator wants done, until it is.
    """

    id: int
    client_id: str
    name: str
    kind: ConflictKind
    other: str
    first_at: datetime
    last_at: datetime
    times: int
    decision: str
    decided_by: str
    resolved_at: datetime | None
    registered_by: Credential
    text: str = ""
    cure: str = ""


class Reported(msgspec.Struct, frozen=True):
    """What a client says of itself, as counts over the whole fleet need it."""

    id: ClientId
    name: str
    flags: int
    mdm_enrolled: bool
    policy_present: bool
    policy_at: datetime | None
    device_id: str = ""
    blocked: bool = False
    last_seen_at: datetime | None = None
    state_at: datetime | None = None

    @property
    def co_managed(self) -> bool:
        return self.mdm_enrolled and self.policy_present


class InForce(msgspec.Struct, frozen=True):
    """The value of a setting that a client says is in force, and which authority set it; for the
    site's, by which configuration. The value of a secret is stars."""

    value: str
    source: str
    configuration: str = ""


class FailedEffect(msgspec.Struct, frozen=True):
    """A setting that a client says it could not bring about; `workload` is empty where it does not
    say whose part that is."""

    client_id: str
    setting: str
    workload: str
    text: str


class Milestone(msgspec.Struct, frozen=True):
    """A device registered, or said where it stands: with which authority, and co-managed or not."""

    at: datetime
    device_id: str
    registered: bool
    co_managed: bool


class TimelineEntry(msgspec.Struct, frozen=True):
    """`text` says it for people."""

    at: datetime
    received_at: datetime
    topic: int
    state: int
    text: str
    data: dict[str, Any]


class Traced(msgspec.Struct, frozen=True):
    """The trace that a policy follows; with its first delivery, what the cause is, and what else
    was decided meanwhile."""

    id: str = ""
    cause: dict[str, Any] = {}
    also: list[dict[str, Any]] = []

    @property
    def told(self) -> dict[str, Any]:
        """As the timeline keeps it."""
        parts = {"trace": self.id, "cause": self.cause, "also": self.also}
        return {name: part for name, part in parts.items() if part}


class SetupState(msgspec.Struct, frozen=True):
    """The newest step of the bootstrap that a device reported."""

    tenant_id: str
    device_id: str
    state: int
    at: datetime
    text: str
    data: dict[str, Any]

    @property
    def failed(self) -> bool:
        return self.state in _FAILED_SETUP


class EnrollmentProgress(msgspec.Struct, frozen=True):
    """How far a client's automatic enrolment has come (topic 810), with its error if it failed."""

    device_id: str
    state: int
    at: datetime
    code: int | None
    text: str = ""
    # The moment that the device drew, or of its next try; how many it has made of a round.
    planned_at: datetime | None = None
    tries: int = 0

    @property
    def scheduled(self) -> bool:
        return self.state == 101

    @property
    def initiated(self) -> bool:
        return self.state in (105, 106, 107, 108, 110)

    @property
    def pending_sign_in(self) -> bool:
        return self.state == 108

    @property
    def error(self) -> int | None:
        return self.code if self.state == 110 else None


class DeviceFacts(msgspec.Struct, frozen=True):
    """What the site knows of one device. Before it is registered there may be its bootstrap."""

    client: ClientSummary | None = None
    setup: SetupState | None = None
    progress: EnrollmentProgress | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """What a gateway has to let through to this management point, below its MP role id."""

    path: str
    methods: tuple[str, ...]
    max_body_bytes: int
    hold_seconds: float = 0


TOKEN_LIMIT, REGISTRATION_LIMIT, MESSAGES_LIMIT = 16 * 1024, 16 * 1024, 512 * 1024
# How long the management point holds a request that waits for news; shorter than what routers on
# the way cut off, and often enough that who asks is not taken for offline (spec F12: 5 minutes).
HOLD_SECONDS = 120.0
NOTIFICATION_LIMIT = 8 * 1024

ENDPOINTS = (
    Endpoint("CCM_STS", ("POST",), TOKEN_LIMIT),
    Endpoint("SMS_MP", ("GET",), 0),
    Endpoint("CCM_Client", ("GET",), 0),
    Endpoint("ccm_system_tokenauth", ("POST",), REGISTRATION_LIMIT),
    Endpoint("ccm_incoming", ("POST",), MESSAGES_LIMIT),
    # As long again, so that nobody on the way gives up first.
    Endpoint("bgb", ("POST",), NOTIFICATION_LIMIT, HOLD_SECONDS + 30),
)


class Package(msgspec.Struct, frozen=True):
    """A client package: `read(start, end)` gives the bytes of that half-open range."""

    size_bytes: int
    read: Callable[[int, int], AsyncIterator[bytes]]


_FAILED_SETUP = range(301, 330)
_STATES = {
    (ccm.SETUP_TOPIC, 100): "Client deployment started",
    (ccm.SETUP_TOPIC, 301): "Client deployment failed",
    (ccm.SETUP_TOPIC, 307): "Client deployment failed: the command line cannot be used",
    (ccm.SETUP_TOPIC, 308): "Client deployment failed: a download did not succeed",
    (ccm.SETUP_TOPIC, 314): "Client deployment failed: the client's manifest cannot be used",
    (ccm.SETUP_TOPIC, 315): "Client deployment failed: there is no client certificate",
    (ccm.SETUP_TOPIC, 322): "Client deployment failed: the site cannot be reached",
    (ccm.SETUP_TOPIC, 325): "Client deployment failed: the client's hash is not the manifest's",
    (ccm.SETUP_TOPIC, 400): "Client deployment succeeded",
    (ccm.SETUP_TOPIC, 500): "Client assignment started",
    (ccm.SETUP_TOPIC, 602): "Client assignment failed: the site code is not this site's",
    (ccm.SETUP_TOPIC, 603): "Client assignment failed at the management point",
    (ccm.SETUP_TOPIC, 605): "Client assignment failed: the site signing certificate",
    (ccm.SETUP_TOPIC, 700): "Client assigned",
    # The field's other states (spec 3.2 and 4.3), which this client never sends.
    (ccm.SETUP_TOPIC, 101): "Client deployment waits for a download",
    (ccm.SETUP_TOPIC, 102): "Client deployment is scheduled",
    (ccm.SETUP_TOPIC, 103): "Client deployment waits for its maintenance window",
    (ccm.SETUP_TOPIC, 104): "Client deployment was skipped",
    (ccm.SETUP_TOPIC, 302): "Client deployment failed: its service could not be made",
    (ccm.SETUP_TOPIC, 303): "Client deployment failed: its service could not be removed",
    (ccm.SETUP_TOPIC, 304): "Client deployment failed: the device's write filter",
    (ccm.SETUP_TOPIC, 306): "Client deployment failed: the download did not begin",
    (ccm.SETUP_TOPIC, 309): "Client deployment failed: the download by BITS did not succeed",
    (ccm.SETUP_TOPIC, 310): "Client deployment failed: BITS could not be installed",
    (ccm.SETUP_TOPIC, 311): "Client deployment failed: the signature of what it needs first",
    (ccm.SETUP_TOPIC, 312): "Client deployment failed: the disk is full",
    (ccm.SETUP_TOPIC, 313): "Client deployment failed: the client's MSI",
    (ccm.SETUP_TOPIC, 316): "Client deployment failed: the signature of what it needs first",
    (ccm.SETUP_TOPIC, 317): "Client deployment failed: the device has to restart first",
    (ccm.SETUP_TOPIC, 318): "Client deployment failed: the management point is of another version",
    (ccm.SETUP_TOPIC, 319): "Client deployment failed: the operating system is not supported",
    (ccm.SETUP_TOPIC, 320): "Client deployment failed: this kind of deployment is not supported",
    (ccm.SETUP_TOPIC, 321): "Client deployment failed: BITS is missing",
    (ccm.SETUP_TOPIC, 323): "Client deployment failed: App-V",
    (ccm.SETUP_TOPIC, 324): "Client deployment failed: the site is of another version",
    (ccm.SETUP_TOPIC, 326): "Client deployment failed: the device did not leave its MDM service",
    (ccm.SETUP_TOPIC, 327): "Client deployment failed: the device is in an MDM service",
    (ccm.SETUP_TOPIC, 328): "Client deployment failed: the device is in Intune",
    (ccm.SETUP_TOPIC, 329): "Client deployment failed: the network is metered",
    (ccm.SETUP_TOPIC, 401): "Client deployment succeeded; the device has to restart",
    (ccm.SETUP_TOPIC, 402): "Client deployment succeeded, and the device has restarted",
    (ccm.SETUP_TOPIC, 601): "Client assignment failed",
    (ccm.SETUP_TOPIC, 604): "Client assignment failed: there is no default management point",
    (ccm.SETUP_TOPIC, 606): "Client assignment failed: no site was found",
    (ccm.SETUP_TOPIC, 607): "Client assignment failed: the client is newer than the site",
    (ccm.SETUP_TOPIC, 608): "Client assignment failed: the site's version",
    (ccm.SETUP_TOPIC, 609): "Client assignment failed: the client's version",
    (820, 1): "Windows Update for Business reported",
    (1001, 1): "The client's certificate is good",
    (1001, 2): "The client's certificate has a problem",
    (1300, 1): "The client's health check is good",
    (1300, 2): "The client's health check failed",
    (2001, 1): "Endpoint protection is not managed",
    (2001, 2): "Endpoint protection is to be installed",
    (2001, 3): "Endpoint protection is managed",
    (2001, 4): "Endpoint protection failed",
    (2001, 5): "Endpoint protection waits for a restart",
    (2001, 6): "Endpoint protection is not supported",
    (2001, 7): "Endpoint protection is with the MDM service",
    (7010, 1): "Conditional access: compliance was told",
    (7010, 2): "Conditional access failed at the management point",
    (7010, 3): "Conditional access failed at the client",
    (7010, 4): "Conditional access failed at the MDM service",
    (7010, 5): "Conditional access failed at the directory",
    (7010, 6): "Conditional access: the MDM service judges compliance",
    (ccm.COMANAGEMENT_TOPIC, 100): "Co-management state",
    (ccm.COMANAGEMENT_TOPIC, 101): "MDM enrollment scheduled",
    (ccm.COMANAGEMENT_TOPIC, 102): "MDM enrollment cancelled",
    (ccm.COMANAGEMENT_TOPIC, 105): "MDM enrollment started",
    (ccm.COMANAGEMENT_TOPIC, 106): "MDM enrollment succeeded, not provisioned",
    (ccm.COMANAGEMENT_TOPIC, 107): "MDM enrollment succeeded, provisioned",
    (ccm.COMANAGEMENT_TOPIC, 108): "MDM enrollment waits for a user to sign in",
    (ccm.COMANAGEMENT_TOPIC, 110): "MDM enrollment failed",
    (ccm.COMANAGEMENT_TOPIC, ccm.LEFT): "The client has left; the MDM service alone decides",
    (ccm.FRAMEWORK_TOPIC, 1): "The client is well",
    (ccm.FRAMEWORK_TOPIC, 2): "The client has a problem",
    (ccm.HEARTBEAT_TOPIC, 1): "Heartbeat",
    (ccm.INVENTORY_TOPIC, 1): "Inventory",
    (ccm.DETECTION_TOPIC, ccm.NOT_REQUIRED): "Software updates are not applicable",
    (ccm.DETECTION_TOPIC, ccm.REQUIRED): "Software updates are required",
    (ccm.DETECTION_TOPIC, ccm.INSTALLED): "Software updates are installed",
    (ccm.ENFORCEMENT_TOPIC, ccm.INSTALL_FAILED): "Software updates failed to install",
    (ccm.SCAN_TOPIC, ccm.SCAN_COMPLETED): "Scan for software updates completed",
    (ccm.SCAN_TOPIC, ccm.SCAN_FAILED): "Scan for software updates failed",
    (ccm.NOTIFICATION_TOPIC, ccm.ORDER_DONE): "Did what it was asked to do",
    (ccm.NOTIFICATION_TOPIC, ccm.ORDER_FAILED): "Could not do what it was asked to do",
    (SITE_TOPIC, REGISTERED): "Registered with the site",
    (SITE_TOPIC, REGISTERED_AGAIN): "Registered again, with a new key",
    (SITE_TOPIC, POLICY_DELIVERED): "Policy delivered",
    (SITE_TOPIC, USER_POLICY_DELIVERED): "Policy of a user delivered",
    (SITE_TOPIC, SUPERSEDED): "Obsolete: the machine registered anew",
    (SITE_TOPIC, REVIVED): "No longer obsolete: the client spoke again",
    (SITE_TOPIC, CONFLICT): "Two machines may be this one client",
}


def describe(topic: int, state: int) -> str:
    return _STATES.get((topic, state), f"State {state} of topic {topic}")


class UnknownClient(AppError):
    kind, code = Kind.UNAUTHENTICATED, "client.unknown"


class NoSuchClient(AppError):
    kind, code = Kind.NOT_FOUND, "client.not-found"


class BlockedClient(AppError):
    kind, code = Kind.FORBIDDEN, "client.blocked"


class StillBlocked(AppError):
    kind, code = Kind.CONFLICT, "client.still-blocked"


class BadToken(AppError):
    kind, code = Kind.UNAUTHENTICATED, "client.bad-token"


class ExpiredToken(AppError):
    kind, code = Kind.UNAUTHENTICATED, "client.token-expired"


class Replayed(AppError):
    kind, code = Kind.UNAUTHENTICATED, "client.replayed"


class NewKeyNeeded(AppError):
    """The key to register is another machine's."""

    kind, code = Kind.CONFLICT, "client.new-key-needed"


class BadCertificate(AppError):
    kind, code = Kind.FORBIDDEN, "client.bad-certificate"


class UserPolicyOff(AppError):
    kind, code = Kind.FORBIDDEN, "client.user-policy-off"


class UnknownSiteCode(AppError):
    kind, code = Kind.INVALID, "client.unknown-site"


class DeviceUnnamed(AppError):
    kind, code = Kind.FORBIDDEN, "client.device-unnamed"


class NoPackage(AppError):
    kind, code = Kind.NOT_FOUND, "client.no-package"
