"""Devices in MDM: how they came in, what they say of themselves, and how they leave."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind
from tandem.protocols.ccm import ConfigInfo

PROVIDER_ID = "TandemMDM"
# The provider is Windows's own: the bridge through which an agent writes lets it choose no other
# (MDM_DeviceManageability_Provider01_01).
CONFIG_INFO_URI = "./Device/Vendor/MSFT/DeviceManageability/Provider/WMI_Bridge_Server/ConfigInfo"


# Number and interval of DMClient/Poll's three schedules (windows-mdm, section 13).
POLL_NODES = (
    ("NumberOfFirstRetries", "IntervalForFirstSetOfRetries"),
    ("NumberOfSecondRetries", "IntervalForSecondSetOfRetries"),
    ("NumberOfRemainingScheduledRetries", "IntervalForRemainingScheduledRetries"),
)


class EnrollmentSettings(Settings, frozen=True):
    """`poll` is (minutes, times) for the first, second and remaining schedule; 0 times: for ever."""

    provider_id: str = PROVIDER_ID
    name: str = "Tandem MDM"
    certificate_days: int = 365
    # How long a device may take from its user's sign-in to its certificate.
    sign_in_token_seconds: int = 900
    poll: tuple[tuple[int, int], ...] = ((3, 8), (15, 8), (480, 0))
    # True: devices are told to sign each message, for a proxy that ends their TLS.
    require_signing: bool = False

    @property
    def overdue_after(self) -> timedelta:
        """So long after its last contact a device is overdue: two polls and a day (section 13)."""
        # Windows adds a daily schedule where none is for ever.
        endless = [minutes for minutes, times in self.poll if minutes and not times]
        return timedelta(minutes=2 * (endless[0] if endless else 1440), days=1)


@dataclass(frozen=True, slots=True)
class Device:
    """An enrollment. `windows_id` is Windows's id of it, `directory_device_id` the joined device."""

    id: str
    windows_id: str
    hardware_id: str
    directory_device_id: str
    user_id: str
    upn: str
    name: str
    os_version: str
    kind: str
    state: Literal["enrolled", "unenrolling", "unenrolled"]
    fingerprint: str
    enrolled_at: datetime
    seen_at: datetime | None
    ended_at: datetime | None
    inventory: dict[str, Any] = field(default_factory=dict)
    inventory_at: datetime | None = None
    config_info: str = ""
    config_info_at: datetime | None = None

    @property
    def agent(self) -> ConfigInfo | None:
        """What the site's client on the device says of itself; None before there is one."""
        return agent_of(self.config_info) if self.config_info else None

    @property
    def flags(self) -> int | None:
        """Workload flags of a client that has policy; None without one."""
        agent = self.agent
        return agent.flags if agent is not None and agent.policy else None


def agent_of(text: str) -> ConfigInfo:
    """What a device publishes of its agent. Its line goes to logs and terminals, so it has no
    control characters."""
    found = ConfigInfo.read(text)
    line = "".join(character for character in found.log if character.isprintable())
    return msgspec.structs.replace(found, log=line)


def management_agent(agent: ConfigInfo | None) -> str:
    """Graph's word for who manages a device. Both count only when the site's client has policy."""
    if agent is not None and agent.policy:
        return "configurationManagerClientMdm"
    known = agent is not None and bool(agent.client)
    return "configurationManagerClient" if known else "mdm"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a device's timeline. `code` is an HRESULT in hex, or empty; `trace` what of the
    site it follows, where the device said so."""

    id: int
    device_id: str
    directory_device_id: str
    at: datetime
    kind: str
    text: str
    code: str
    trace: str = ""


class EnrollmentRefused(AppError):
    """The user or the device may not enrol."""

    kind, code = Kind.FORBIDDEN, "enrollment.refused"


class BadEnrollment(AppError):
    kind, code = Kind.INVALID, "enrollment.invalid"


class RenewalRefused(AppError):
    kind, code = Kind.FORBIDDEN, "enrollment.renewal-refused"


class RecoveryRefused(AppError):
    kind, code = Kind.UNAUTHENTICATED, "enrollment.recovery-refused"


class NotEnrolled(AppError):
    kind, code = Kind.UNAUTHENTICATED, "device.not-enrolled"


class DeviceGone(AppError):
    """Enrolled, and deleted from the directory by an administrator."""

    kind, code = Kind.NOT_FOUND, "device.gone"


class NoSuchDevice(AppError):
    kind, code = Kind.NOT_FOUND, "device.not-found"
