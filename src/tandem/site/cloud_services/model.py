"""Service names, certificates, tenants, gateways and connection points: values and refusals."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.protocols import tunnel

_LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
# A prefix becomes the name of things that allow no dash (spec 2.1).
_PREFIX = re.compile(r"^[a-z0-9]{3,24}$")

# What a resource group may be called; the field advises against blanks.
_RESOURCE_GROUP = re.compile(r"^[\w.()-]{1,90}$")

MAX_INSTANCES = 16
# State of an instance that a redeployment gives up.
LEAVING = "leaving"
# The days whose transfer is compared with the threshold (spec F23).
ALERT_DAYS = 14
_MOST_GB = 10_000_000
# Discovery reads users; the console reads what the tenant knows of devices.
SERVER_APP_SCOPES = (
    "User.Read.All",
    "Directory.Read.All",
    "Device.Read.All",
    "DeviceManagementManagedDevices.Read.All",
    "DeviceManagementApps.Read.All",
)
DISCOVERY_PERMISSION = "Directory.Read.All"
# The public client that every tenant knows, with which `tandem sign-in` asks (graph-compat 3.7).
COMMAND_LINE_APP = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
DEFAULT_APP_ID_URI = "https://ConfigMgrService"
DEFAULT_REPLY_URL = "https://ConfigMgrClient"


class CloudEnvironment(Settings, frozen=True):
    """Where a cloud's directory and Graph answer: what the field calls the Azure environment."""

    name: str = "Tandem"
    authority: str = ""
    graph: str = ""


class SshHost(Settings, frozen=True):
    """A host with systemd for one instance of a gateway."""

    address: str  # Where its instance listens, and is dialled.
    region: str
    host_key: str  # "ssh-ed25519 AAAA…": another key is not believed.
    ssh_host: str = ""  # Where its SSH server answers; empty: the address.
    port: int = 22
    user: str = "root"  # Another one uses sudo without a password.


class SshSettings(Settings, frozen=True):
    """An environment of hosts that the site manages by SSH."""

    environment: str
    key: Path  # The site's private key, readable by its owner alone.
    hosts: tuple[SshHost, ...]
    folder: str = "/var/lib/tandem-gateway"
    program: str = "/opt/tandem/bin/tandem"
    account: str = "tandem-gateway"  # As whom instances run.
    # Until a host that does not answer, or a command there, is given up.
    seconds: float = 20.0


class GatewaySettings(Settings, frozen=True):
    """How gateways are provisioned on this machine: instance n gets the n-th host."""

    hosts: tuple[str, ...] = ()
    port: int = 443
    tunnel_port: int = 10140
    health_host: str = "127.0.0.1"
    health_port: int = 10300
    workers: int = 1
    # Deployment names end with it: <prefix>.<deployment_domain>.
    deployment_domain: str = "cloudapp.example"
    regions: tuple[str, ...] = ("Local",)
    # Seconds between two looks at the instances, and until a starting one must be ready.
    check_seconds: float = 60.0
    start_seconds: float = 30.0
    # Other places than this machine: each has an environment's name and regions of its own.
    ssh: tuple[SshSettings, ...] = ()


class AcmeSettings(Settings, frozen=True):
    """The ACME authority for gateways' certificates, and the DNS server that takes its proofs."""

    directory: str = ""  # Its directory's address; empty: certificates come by hand.
    agree_to_terms: bool = False
    contact: str = ""  # A mail address that it may write to.
    ca_file: Path | None = None  # Roots for the authority's own TLS; unset: the system's.
    # An account that the authority made for the organisation elsewhere (external account binding).
    external_account_id: str = ""
    external_account_key_file: Path | None = None
    dns_server: str = ""  # "address:port" of the server that takes updates of the zone.
    zone: str = ""  # Empty: the domain of the service name.
    ttl: int = 60
    tsig_name: str = ""
    tsig_key_file: Path | None = None  # In base64, readable by its owner alone.
    tsig_algorithm: str = "hmac-sha256"
    # Until a record is seen in public DNS, and until the authority has decided.
    wait_seconds: float = 120.0
    # Days before a gateway's certificate ends, and seconds after an attempt that failed.
    renew_days: float = 30.0
    retry_seconds: float = 3600.0


Least = Annotated[int, msgspec.Meta(ge=0)]
Most = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class GatewayLimits(Settings, frozen=True):
    """What gateways hold their clients to; published to them with everything else they know.

    A number for one address is 0, no limit: behind one address may be a whole office.
    """

    header_bytes: Most = 32 * 1024
    header_seconds: Seconds = 20
    body_bytes_per_second: Most = 1024
    idle_seconds: Seconds = 120
    request_seconds: Seconds = 60
    stall_seconds: Seconds = 60
    requests_per_connection_point: Most = 512
    queue: Least = 2048
    queue_seconds: Seconds = 20
    reconnect_seconds: Seconds = 2
    connections: Most = 15_000
    connections_per_address: Least = 0
    # In ten seconds, at one worker.
    requests_per_client: Least = 1000
    under_way_per_client: Least = 64
    unknown_requests_per_address: Least = 20_000

    def published(self) -> tunnel.Limits:
        return tunnel.Limits(**msgspec.structs.asdict(self))


class CloudSettings(Settings, frozen=True):
    environment: CloudEnvironment = CloudEnvironment()
    gateway: GatewaySettings = GatewaySettings()
    gateway_limits: GatewayLimits = GatewayLimits()
    acme: AcmeSettings = AcmeSettings()
    # "address:port" of a DNS server as devices on the internet ask it; empty: it is not asked apart.
    public_resolver: str = ""
    # Where the management point answers inside, for the connection point.
    management_point_url: str = ""
    folder: Path = Path("gateways")
    # Age at which a tenant's public keys are fetched again.
    jwks_seconds: float = 3600.0
    # A connection point that was silent for so long counts as not connected.
    silent_seconds: float = 200.0
    # Whether gateways ask the responder that a client's certificate names (OCSP), besides the lists:
    # off, soft (who cannot be asked about passes) or hard (does not).
    ocsp: tunnel.Ocsp = "soft"
    # Addresses (http://) of revocation lists of clients' authorities, fetched besides those that the
    # uploaded certificates name; and how often all of them are.
    crl_urls: tuple[str, ...] = ()
    crl_seconds: float = 900.0


class GatewayState(Enum):
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    READY = "Ready"
    FAILED = "Failed"
    STOPPED = "Stopped"
    DELETING = "Deleting"

    @property
    def before(self) -> "frozenset[GatewayState]":
        """The states that this one may follow. What an administrator ordered meanwhile is not
        undone by work that began earlier: nothing follows Deleting."""
        return _BEFORE[self]


_BEFORE = {
    GatewayState.PROVISIONING: frozenset(
        {GatewayState.FAILED, GatewayState.STOPPED, GatewayState.READY}
    ),
    GatewayState.STARTING: frozenset({GatewayState.PROVISIONING, GatewayState.STARTING}),
    GatewayState.READY: frozenset({GatewayState.STARTING, GatewayState.READY}),
    GatewayState.FAILED: frozenset({GatewayState.PROVISIONING, GatewayState.STARTING}),
    GatewayState.STOPPED: frozenset(GatewayState) - {GatewayState.DELETING},
    GatewayState.DELETING: frozenset(GatewayState),
}


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A key that waits for its certificate, or has it."""

    id: str
    service_name: str
    subject: dict[str, str]
    created_at: datetime
    request: bytes | None  # PEM; None when the certificate came as a PFX.
    certificate: bytes | None = None  # DER
    chain: bytes = b""  # PEM, without the leaf
    missing_issuer: str | None = None
    acme: bool = False  # Ordered of the ACME authority; what it said when it refused.
    problem: str = ""

    @property
    def state(self) -> str:
        if self.certificate is None:
            return "waiting"
        return "incomplete" if self.missing_issuer else "complete"


@dataclass(frozen=True, slots=True)
class AzureService:
    id: str
    name: str
    description: str
    environment: str
    tenant_id: str
    tenant_name: str
    created_at: datetime
    discovery_enabled: bool = False
    # Whether tokens of this tenant count at the site and at its gateways.
    authentication_enabled: bool = True


@dataclass(frozen=True, slots=True)
class TenantSignIn:
    """A tenant's administrator who signs in by a code: pending, done, refused or expired.

    `expires_at` is the code's end and, once it is done, that of what the site keeps of it.
    """

    id: str
    administrator: str
    state: str
    environment: str
    user_code: str
    verification_uri: str
    interval_seconds: int
    began_at: datetime
    expires_at: datetime
    tenant_id: str = ""
    tenant_name: str = ""
    upn: str = ""
    roles: tuple[str, ...] = ()
    # Whether the account is licensed for the MDM service; None when the tenant does not say.
    mdm_licence: bool | None = None
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True, slots=True)
class App:
    service_id: str
    kind: str  # "server" or "client"
    app_id: str
    object_id: str
    name: str
    app_id_uri: str
    secret_expires_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AdminServiceApp:
    """A client app of the tenant whose users' tokens reach the AdminService through the gateway.

    Its tokens count for this much at every door, and are kept apart for good: a gateway that was
    broken into has seen them.
    """

    app_id: str
    published: bool
    writes: bool
    changed_at: datetime
    changed_by: str


@dataclass(frozen=True, slots=True)
class Directory:
    """What a tenant's discovery document leads to: whose tokens, signed by which keys."""

    issuer: str
    jwks: dict[str, Any]
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """A threshold that is exceeded now."""

    name: str
    level: str  # warning or critical
    text: str
    cure: str


class Alerts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to warn of a gateway. Without a threshold nothing is compared."""

    outbound_gb: int | None = None  # Outbound transfer in 14 days.
    warning_percent: int = 75
    critical_percent: int = 90
    stop_when_critical: bool = False
    # What the gateway keeps on its disk, and at most stores of content.
    storage_gb: int | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Alerts":
        """Raises BadAlerts, which names the field."""
        try:
            made = msgspec.convert(given, cls)
        except msgspec.ValidationError as error:
            raise BadAlerts(f"The alerts cannot be read: {error}.", field="alerts") from None
        for name, most, unit in (
            ("outbound_gb", _MOST_GB, "GB"),
            ("storage_gb", _MOST_GB, "GB"),
            ("warning_percent", 100, "percent"),
            ("critical_percent", 100, "percent"),
        ):
            value = getattr(made, name)
            if value is not None and not 1 <= value <= most:
                raise BadAlerts(f"This is a number from 1 to {most:,} {unit}.", field=name)
        if made.warning_percent >= made.critical_percent:
            raise BadAlerts(
                "The warning comes before the critical alert: its percentage is the lower one.",
                cure="Lower the warning, or raise the critical percentage.",
                field="warning_percent",
            )
        if made.stop_when_critical and made.outbound_gb is None:
            raise BadAlerts(
                "A gateway can be stopped only for a threshold that is set.",
                cure="Set the outbound transfer in GB, or leave the gateway running.",
                field="stop_when_critical",
            )
        return made

    def level(self, outbound_bytes: int) -> str:
        """Of the outbound transfer: off, good, warning or critical."""
        if self.outbound_gb is None:
            return "off"
        percent = self.percent(outbound_bytes)
        if percent >= self.critical_percent:
            return "critical"
        return "warning" if percent >= self.warning_percent else "good"

    def raised(self, outbound_bytes: int, storage_bytes: int) -> list["RaisedAlert"]:
        """What is above a threshold now. Nothing of it is stored: it is over when its cause is."""
        found = []
        level = self.level(outbound_bytes)
        if level in {"warning", "critical"}:
            critical = level == "critical"
            cure = "Look which endpoint sends so much: `tandem gateway traffic`."
            if critical and self.stop_when_critical:
                cure = "The gateway is stopped for it. Raise the threshold to start it again."
            found.append(
                RaisedAlert(
                    "CMG_Outbound_Critical" if critical else "CMG_Outbound_Warning",
                    level,
                    f"{outbound_bytes / 10**9:,.1f} GB went out in {ALERT_DAYS} days:"
                    f" {self.percent(outbound_bytes)} % of {self.outbound_gb:,} GB.",
                    cure,
                )
            )
        level = self.storage_level(storage_bytes)
        if level in {"warning", "critical"}:
            found.append(
                RaisedAlert(
                    "CMG_Storage_Critical" if level == "critical" else "CMG_Storage_Warning",
                    level,
                    f"It keeps {storage_bytes / 10**9:,.1f} GB of the {self.storage_gb:,} GB that it may.",
                    "Remove packages from the gateway, or raise the threshold.",
                )
            )
        return found

    def storage_level(self, kept_bytes: int) -> str:
        """Of what it keeps: off, good, warning or critical."""
        if self.storage_gb is None:
            return "off"
        percent = kept_bytes / (self.storage_gb * 10**7)
        if percent >= self.critical_percent:
            return "critical"
        return "warning" if percent >= self.warning_percent else "good"

    def percent(self, outbound_bytes: int) -> float:
        return (
            round(100 * outbound_bytes / (self.outbound_gb * 10**9), 1) if self.outbound_gb else 0
        )


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """What the provider has to offer, and what is known of the certificate (spec 2.3, "Next")."""

    environment: str
    tenant_id: str
    hosts: int
    free_hosts: int
    most_instances: int
    regions: tuple[str, ...]
    resource_groups: list[dict[str, str]]
    service_name: str = ""
    deployment_name: str = ""
    wildcard: str = ""
    names: list[str] = field(default_factory=list)
    expires_at: datetime | None = None
    notes: list[str] = field(default_factory=list)
    # Every environment there is: its name, regions, hosts and how many of them are free.
    environments: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Gateway:
    service_name: str
    deployment_name: str
    tenant_id: str
    region: str
    resource_group: str
    description: str
    instances: int
    check_revocation: bool
    serve_content: bool
    alerts: dict[str, Any]
    state: GatewayState
    reason: str
    connection_id: str
    created_at: datetime
    changed_at: datetime
    expires_at: datetime
    environment: str = ""  # Whose hosts it is on; empty: this machine.
    content_only: bool = False  # It serves content, and nothing of a management point.
    # Its certificate comes from the ACME authority of the settings, again before it ends; why the
    # last attempt failed, and when it was made.
    acme: bool = False
    renewal_reason: str = ""
    renewal_tried_at: datetime | None = None
    edge_answers: bool = True  # It answers check-ins without news itself.


@dataclass(frozen=True, slots=True)
class CreatedGateway:
    """A gateway that begins to be, and what was done to the name that was given."""

    gateway: Gateway
    notes: list[str]


@dataclass(frozen=True, slots=True)
class GatewayInstance:
    service_name: str
    instance: int
    host: str
    port: int
    tunnel_port: int
    health_port: int
    pid: int | None = None
    started: float | None = None
    state: str = "stopped"  # stopped, starting, running, failed, leaving
    reason: str = ""
    environment: str = ""  # Of the provider that has it; empty: this machine.


@dataclass(frozen=True, slots=True)
class ConnectionPoint:
    name: str
    service_name: str
    created_at: datetime
    reported_at: datetime | None = None
    # host:port of the proxy by which it leaves its network; its own settings come first.
    web_proxy: str = ""
    web_proxy_user: str = ""
    web_proxy_password_kept: bool = False


class BadProxy(AppError):
    kind, code = Kind.INVALID, "cloud.bad-proxy"


@dataclass(frozen=True, slots=True)
class NameCheck:
    """What is known of a service name before anything is made."""

    asked: str
    service_name: str
    deployment_name: str
    available: bool
    code: str = ""
    reason: str = ""
    cure: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried, and what to do when it did not work."""

    text: str
    ok: bool
    reason: str = ""
    cure: str = ""


class BadServiceName(Invalid):
    code = "gateway.bad-name"


class NameTaken(AppError):
    kind, code = Kind.CONFLICT, "gateway.name-taken"


class NoSuchCertificate(AppError):
    kind, code = Kind.NOT_FOUND, "certificate.not-found"


class ForeignCertificate(AppError):
    kind, code = Kind.CONFLICT, "certificate.foreign"


class UnusableCertificate(Invalid):
    code = "certificate.unusable"


class AcmeOff(AppError):
    kind, code = Kind.CONFLICT, "certificate.acme-off"


class AcmeFault(AppError):
    """The authority, or the DNS server that shows it the proof, did not do what an order needs."""

    kind, code = Kind.UNAVAILABLE, "certificate.acme"


class IncompletePath(AppError):
    kind, code = Kind.CONFLICT, "certificate.incomplete-path"


class BadSubject(Invalid):
    code = "certificate.bad-subject"


class ServiceExists(AppError):
    kind, code = Kind.CONFLICT, "azure-service.exists"


class NoSuchService(AppError):
    kind, code = Kind.NOT_FOUND, "azure-service.not-found"


class AppExists(AppError):
    kind, code = Kind.CONFLICT, "azure-service.app-exists"


class BadApp(Invalid):
    code = "azure-service.bad-app"


class NotPublished(AppError):
    kind, code = Kind.NOT_FOUND, "adminservice.not-published"


class NoSuchApp(AppError):
    kind, code = Kind.NOT_FOUND, "adminservice.app-not-published"


class AppIdUriInUse(AppError):
    kind, code = Kind.CONFLICT, "azure-service.app-id-uri-in-use"


class NotGlobalAdministrator(AppError):
    kind, code = Kind.FORBIDDEN, "azure-service.not-global-administrator"


class NoEnvironment(AppError):
    kind, code = Kind.CONFLICT, "tenant.no-environment"


class NoSuchSignIn(AppError):
    kind, code = Kind.NOT_FOUND, "tenant-sign-in.not-found"


class SignInNotDone(AppError):
    kind, code = Kind.CONFLICT, "tenant-sign-in.pending"


class SignInOver(AppError):
    kind, code = Kind.GONE, "tenant-sign-in.over"


class BadTenantToken(AppError):
    """The access token is not one that the connected tenant gave for the site."""

    kind, code = Kind.UNAUTHENTICATED, "tenant.bad-token"


class UnknownAccount(AppError):
    kind, code = Kind.NOT_FOUND, "tenant.unknown-account"


class ConsentMissing(AppError):
    kind, code = Kind.FORBIDDEN, "azure-service.consent-missing"


class TenantRefuses(AppError):
    kind, code = Kind.UNAVAILABLE, "tenant.refuses"


class DeltaGone(AppError):
    kind, code = Kind.CONFLICT, "tenant.delta-gone"


class NotInTenant(TenantRefuses):
    """What was asked for is not there, or no part of this tenant's Graph at all."""

    kind, code = Kind.NOT_FOUND, "tenant.not-found"


class TenantUnreachable(AppError):
    kind, code = Kind.UNAVAILABLE, "tenant.unreachable"


class NoMdmAuthority(AppError):
    kind, code = Kind.CONFLICT, "comanagement.no-mdm-authority"


class NoSuchGateway(AppError):
    kind, code = Kind.NOT_FOUND, "gateway.not-found"


class GatewayExists(AppError):
    kind, code = Kind.CONFLICT, "gateway.exists"


class BadGateway(Invalid):
    code = "gateway.invalid"


class BadAlerts(BadGateway):
    code = "gateway.bad-alerts"


class AnotherCommonName(AppError):
    kind, code = Kind.CONFLICT, "gateway.another-common-name"


class NoHosts(AppError):
    kind, code = Kind.CONFLICT, "gateway.no-hosts"


class TransferExceeded(AppError):
    kind, code = Kind.CONFLICT, "gateway.transfer-exceeded"


class GatewayInUse(AppError):
    kind, code = Kind.CONFLICT, "gateway.in-use"


class BeingDeleted(AppError):
    kind, code = Kind.CONFLICT, "gateway.being-deleted"


class BeingProvisioned(AppError):
    kind, code = Kind.CONFLICT, "gateway.being-provisioned"


class NoSuchConnectionPoint(AppError):
    kind, code = Kind.NOT_FOUND, "connection-point.not-found"


class ConnectionPointExists(AppError):
    kind, code = Kind.CONFLICT, "connection-point.exists"


class ManagementPointInsecure(AppError):
    kind, code = Kind.CONFLICT, "management-point.insecure"


class NotAConnectionPoint(AppError):
    kind, code = Kind.UNAUTHENTICATED, "connection-point.unknown"


def fold_service_name(asked: str) -> str:
    """The service name in lower case. Raises BadServiceName, which says what is wrong with it."""
    name = asked.strip().rstrip(".").lower()
    prefix, _, domain = name.partition(".")
    if not domain or not all(_LABEL.match(part) for part in domain.split(".")) or len(name) > 253:
        raise BadServiceName(
            f"{asked!r} is not a service name.",
            cure="A service name is a prefix and your company's public domain, like"
            " mycmg.contoso.com.",
        )
    if "." not in domain:
        raise BadServiceName(
            f"{domain!r} is not a public domain.", cure="Use a domain like contoso.com."
        )
    if not _PREFIX.match(prefix):
        raise BadServiceName(
            f"The prefix {prefix!r} cannot be used.",
            cure="A prefix has 3 to 24 letters and digits, and no dash or other character.",
        )
    return name


def wildcard_of(service_name: str) -> str:
    """The name of a certificate for all names below the service name's domain."""
    return f"*.{service_name.partition('.')[2]}"


def fold_certificate_name(asked: str) -> str:
    """As `fold_service_name`, of what a certificate may be for: also all names below a domain."""
    name = asked.strip().rstrip(".").lower()
    if not name.startswith("*."):
        return fold_service_name(asked)
    # A prefix of any gateway: what is judged is the domain.
    return f"*.{fold_service_name(f'any.{name[2:]}').partition('.')[2]}"


def check_resource_group(name: str) -> None:
    """Raises BadGateway, which says how the name could be written."""
    if _RESOURCE_GROUP.match(name) and not name.endswith("."):
        return
    fitting = re.sub(r"[^\w.()-]+", "-", name.strip()).strip("-.")[:90]
    raise BadGateway(
        f"{name[:90]!r} cannot be the name of a resource group.",
        cure="Use up to 90 letters, digits, dots, dashes and underscores, and no blank"
        + (f": {fitting}" if fitting else "."),
        field="resource_group",
    )


def deployment_name(service_name: str, domain: str) -> str:
    return f"{service_name.partition('.')[0]}.{domain}"
