"""What the MDM client of a device knows and says."""

from datetime import datetime
from pathlib import Path

import msgspec

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind


class DeviceSettings(Settings, frozen=True):
    """One device: who it is, who uses it, and whose tenant it joins."""

    name: str  # The computer's name.
    state: Path  # Everything that the device keeps: keys, enrollment, installed packages.
    tenant_url: str  # The tenant's base URL: sign-in, join and, without other news, discovery.
    tenant_id: str
    upn: str = ""  # Who signs in.
    password_file: Path | None = None  # The user's password; read when the user signs in.
    join: bool = (
        True  # False: the user enrols it in MDM alone; its MDM certificate is its identity.
    )
    os_version: str = "10.0.22631.4317"
    manufacturer: str = "Contoso"
    model: str = "Virtual Machine"
    minute_seconds: float = 60.0  # How long one minute of the MDM client's intervals lasts.
    client_minute_seconds: float = 60.0  # The same for the agent.
    durable: bool = True  # False leaves the time of writing to the disk.
    simulated: bool = False  # Said by the device wherever it says what it is.
    root: Path | None = None  # Where the agent's handlers have their effects; empty: nowhere.
    own_network: bool = False  # Whether the agent has a network of its own, for firewall rules.


class ComputerSettings(Settings, frozen=True):
    """The one device of a computer whose operating system brings no MDM client (Linux)."""

    name: str
    state: Path
    control: Path  # The socket on which enrolment is asked for.
    tenant_url: str
    tenant_id: str
    upn: str
    password_file: Path
    join: bool = True
    os_version: str = "10.0.22631.4317"  # What the device says: services ask for Windows.
    resolver: str = ""  # "address:port" of a DNS server; empty: the system's.
    ca_file: Path | None = None  # Trusted roots for TLS; empty: the system's.
    minute_seconds: float = 60.0
    client_minute_seconds: float = 60.0
    # Where policy has its effects: "/" on a computer that is to be managed, another folder to try it.
    root: Path | None = None  # Empty: nowhere.
    own_network: bool = False  # The process has a network of its own: firewall rules may be there.
    logs: Path | None = None

    @property
    def device(self) -> DeviceSettings:
        return DeviceSettings(
            name=self.name,
            state=self.state,
            tenant_url=self.tenant_url,
            tenant_id=self.tenant_id,
            upn=self.upn,
            password_file=self.password_file,
            join=self.join,
            os_version=self.os_version,
            minute_seconds=self.minute_seconds,
            client_minute_seconds=self.client_minute_seconds,
            root=self.root,
            own_network=self.own_network,
        )


class MdmError(AppError):
    """A step of joining, enrolling or managing went wrong; `details` has the client's `hresult`."""

    kind, code = Kind.FORBIDDEN, "mdm.refused"

    def __init__(self, hresult: str, message: str, *, cure: str = "") -> None:
        super().__init__(message, cure=cure, hresult=hresult)
        self.hresult = hresult


class SignInRefused(MdmError):
    kind, code = Kind.UNAUTHENTICATED, "mdm.sign-in-refused"


class JoinRefused(MdmError):
    code = "mdm.join-refused"


class EnrollmentRefused(MdmError):
    code = "mdm.enrollment-refused"


class Unreachable(MdmError):
    """What passes: tried again."""

    kind, code = Kind.UNAVAILABLE, "mdm.unreachable"


class BadAnswer(MdmError):
    """The server said something that is not what the protocol says."""

    kind, code = Kind.UNAVAILABLE, "mdm.bad-answer"


class Problem(msgspec.Struct, frozen=True):
    """The last thing that went wrong, for whoever asks the device."""

    code: str
    text: str
    cure: str
    at: datetime


class Account(msgspec.Struct, frozen=True):
    """An enrollment in force: where the management service is and who this device is to it."""

    provider: str
    address: str
    device_id: str  # Source of every session.
    subject: str
    upn: str
    enrolled_at: datetime
    retry_count: int = 3
    first_backoff_ms: int = 16000
    last_backoff_ms: int = 86400000
    discovery_url: str = ""  # Where the certificate is renewed.
    renew_days: int = 0  # How long before its end; 0: the service renews none.
    retry_days: int = 0


class Applied(msgspec.Struct, frozen=True):
    """A setting in force and who set it."""

    value: str
    source: str


class Status(msgspec.Struct, frozen=True):
    """All that a device can say about itself."""

    name: str
    upn: str
    simulated: bool
    joined: bool
    device_id: str  # In the directory.
    mdm_enrolled: bool
    mdm_device_id: str  # In the MDM service's sessions.
    msi_status: int  # Status of EnterpriseDesktopAppManagement: 70 is installed, 0 never offered.
    msi_installed: bool
    msi_product_code: str
    msi_error: str
    ccmsetup_state: int
    ccmsetup_code: int
    ccmsetup_log: str
    client_id: str
    client_version: str
    flags: int
    policy: bool
    configuration: dict[str, Applied]
    sessions: int
    last_session_at: datetime | None
    last_error: Problem | None
