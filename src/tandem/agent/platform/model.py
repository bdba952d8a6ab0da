"""The machine: its MDM client, its directory broker, its network, clock and state folder."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import httpx
from cryptography import x509

from tandem.infra.clock import Clock, utc_now
from tandem.infra.errors import AppError, Kind
from tandem.workloads import Authority, Workload


class NoToken(AppError):
    """The directory does not give this device, or its user, a token."""

    kind, code = Kind.UNAUTHENTICATED, "directory.no-token"


class NotJoined(NoToken):
    """The device has no join certificate."""

    code = "directory.not-joined"


@dataclass(frozen=True)
class MdmEnrollment:
    """What the operating system's MDM client says about itself."""

    enrolled: bool
    upn: str = ""
    provider: str = ""
    provisioned: bool = False


class ConfigurationGate(Protocol):
    """Asked by the MDM client before it writes a setting: one writer per workload."""

    def owner(self, workload: Workload) -> Authority: ...

    def offer(self, source: Authority, workload: Workload, setting: str, value: str) -> bool:
        """Apply a value from this source; False (and a log line) when the other one owns it."""
        ...

    def change(
        self,
        source: Authority,
        wanted: Mapping[str, tuple[Workload, str]],
        gone: Collection[str],
    ) -> None:
        """Offer all of the first and withdraw the others, at once. Raises AppError: then nothing."""
        ...

    def withdraw(self, source: Authority, setting: str) -> bool:
        """Take away a value that this source has set and no longer wants, if it may write."""
        ...

    def of(self, source: Authority) -> Collection[str]:
        """The settings in force that this source has set."""
        ...

    def value(self, setting: str) -> str | None:
        """What is in force for a setting, whoever set it."""
        ...


class MdmBridge(Protocol):
    """The device's MDM client, seen from the agent."""

    def enrollment(self) -> MdmEnrollment: ...

    def publish(self, config_info: str) -> None:
        """Put the agent's ConfigInfo where the MDM server reads it in its next session."""
        ...

    def install_gate(self, gate: ConfigurationGate) -> None:
        """Ask this gate from now on; before that, whatever the MDM server says is applied."""
        ...

    async def enroll(self, user: bool = False) -> None:
        """Enrol with device credentials, or the signed-in user's. Raises AppError."""
        ...

    async def sync(self) -> None:
        """Have an MDM session soon. Never raises for the session's outcome."""
        ...


@dataclass(frozen=True)
class DeviceJoin:
    """`authority` is `{tenant URL}/{tenant id}`; empty where it is not known."""

    tenant_id: str
    device_id: str
    authority: str = ""


class DirectoryBroker(Protocol):
    """The device's broker of directory tokens.

    NoToken is the directory's refusal. What passes, such as a network that is down, is an AppError
    of kind UNAVAILABLE, and is tried again.
    """

    def join(self) -> DeviceJoin | None:
        """The join in force, or None."""
        ...

    def signed_in(self) -> str:
        """Who is signed in, in a word that is another for another user; empty: nobody."""
        ...

    async def device_token(self, authority: str, client_app_id: str, resource: str) -> str:
        """An access token of the device for this App ID URI. Raises NoToken."""
        ...

    async def user_token(self, authority: str, client_app_id: str, resource: str) -> str:
        """An access token of the signed-in user, naming this device. Raises NoToken."""
        ...

    async def register(self) -> None:
        """Register the device with the directory by itself. Raises AppError when it cannot."""
        ...


class ClientCertificate(Protocol):
    """A certificate of the organisation's own authority, and the use of its key."""

    @property
    def der(self) -> bytes:
        """Raises NoToken when there is none."""
        ...

    def prove(self, over: str, now: datetime, nonce: str) -> str:
        """A proof by the certificate's key (`ccm.key_proof`). Raises NoToken."""
        ...

    async def post(self, url: str, body: bytes) -> httpx.Response:
        """Over TLS with this certificate. Raises httpx.HTTPError, NoToken."""
        ...


class CannotRestart(AppError):
    """The device cannot be restarted from here, with the reason."""

    kind, code = Kind.UNSUPPORTED, "restart.impossible"


class Restart(Protocol):
    def boot(self) -> str:
        """A word that is another after each start of the device. Raises CannotRestart."""
        ...

    async def restart(self) -> None:
        """Have the device restart soon. Raises CannotRestart."""
        ...


@dataclass(frozen=True)
class Machine:
    """One device. Many of them share an `http` client and an event loop.

    `trusted_root` is the root of the site's signing certificate, from the MSI. `minute_seconds` is
    how long a minute of every interval lasts. `durable` off spares the fsync of each state change,
    for fleets of simulated devices that share a disk.
    """

    state: Path
    name: str
    mdm: MdmBridge
    directory: DirectoryBroker
    http: httpx.AsyncClient
    trusted_root: x509.Certificate
    os_version: str = "10.0.22631.1"
    os_name: str = "Windows"
    minute_seconds: float = 60.0
    durable: bool = True
    # Where handlers have their effects: "/" on a device of its own, a folder in tests. None: nowhere.
    root: Path | None = None
    # Whether the process has a network of its own: firewall rules below a folder need one.
    own_network: bool = False
    # What the machine says it is, whatever is on its disk: "2:" and 40 digits in hex. Empty: read
    # from below `root`, where it says so there.
    hardware_id: str = ""
    # What speaks for this machine where it is in no directory, and is asked to.
    certificate: "ClientCertificate | None" = None
    # Whether a connection to the tenant is held open, by which it calls the device at once.
    waits_for_calls: bool = True
    # None: the agent is not what restarts this device.
    restart: Restart | None = None
    # A word that is another when the device's networks are; empty where nobody can say.
    network: Callable[[], str] = lambda: ""
    now: Clock = utc_now

    @property
    def logs(self) -> Path:
        return self.state / "Logs"
