"""Who owns a workload on a device, decided the same way by site, MDM service, agent and console."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Protocol

import msgspec

# Co-management is configured, and nothing has moved (2111 and later; before it was 1).
BASE, OLD_BASE = 8193, 1
_NEW_MARK = 8192


class Authority(Enum):
    SITE = "site"
    MDM = "mdm"


class Position(Enum):
    """Where an administrator has put a workload."""

    SITE = "site"
    PILOT = "pilot"
    MDM = "mdm"


class Workload(Enum):
    """The seven, by the names that commands and documents use."""

    COMPLIANCE_POLICIES = "compliance-policies"
    RESOURCE_ACCESS = "resource-access"
    DEVICE_CONFIGURATION = "device-configuration"
    WINDOWS_UPDATE = "windows-update"
    ENDPOINT_PROTECTION = "endpoint-protection"
    CLIENT_APPS = "client-apps"
    OFFICE_CLICK_TO_RUN = "office-click-to-run"

    @property
    def bits(self) -> int:
        """What a site since 2111 writes for this workload."""
        return _BITS[self]

    @property
    def title(self) -> str:
        return _TITLES[self]

    @property
    def moves_along(self) -> "tuple[Workload, ...]":
        """Workloads that go to the MDM service with this one, wherever their own slider stands."""
        if self is Workload.DEVICE_CONFIGURATION:
            return (Workload.RESOURCE_ACCESS, Workload.ENDPOINT_PROTECTION)
        return ()


_BITS = {
    Workload.COMPLIANCE_POLICIES: 2,
    Workload.RESOURCE_ACCESS: 4,
    Workload.DEVICE_CONFIGURATION: 8,
    Workload.WINDOWS_UPDATE: 16,
    Workload.ENDPOINT_PROTECTION: 4096 + 32,
    Workload.CLIENT_APPS: 64,
    Workload.OFFICE_CLICK_TO_RUN: 128,
}
_TITLES = {
    Workload.COMPLIANCE_POLICIES: "Compliance policies",
    Workload.RESOURCE_ACCESS: "Resource access policies",
    Workload.DEVICE_CONFIGURATION: "Device configuration",
    Workload.WINDOWS_UPDATE: "Windows Update policies",
    Workload.ENDPOINT_PROTECTION: "Endpoint Protection",
    Workload.CLIENT_APPS: "Client apps",
    Workload.OFFICE_CLICK_TO_RUN: "Office Click-to-Run apps",
}
# Sites before 2111 write endpoint protection without 4096: both encodings are understood.
_TESTED = {**_BITS, Workload.ENDPOINT_PROTECTION: 32}

MAX_CAPABILITIES = BASE | sum(_BITS.values())


def capabilities(moved: Iterable[Workload]) -> int:
    """The integer of a policy that hands these workloads, and what moves along, to the MDM."""
    value = BASE
    for workload in moved:
        value |= workload.bits
        for other in workload.moves_along:
            value |= other.bits
    return value


class Encoding(Enum):
    """How a site writes capabilities. They differ in the base and in endpoint protection."""

    OLD = "2107"  # and before: 1, endpoint protection 32
    NEW = "2111"  # and after: 8193, endpoint protection 4128


class Decoded(msgspec.Struct, frozen=True):
    """What an integer of capabilities says. `unknown` are bits that belong to no workload."""

    value: int
    encoding: Encoding
    configured: bool
    moved: tuple[Workload, ...]
    unknown: int


def decode(value: int) -> Decoded:
    """Read capabilities or workload flags, whichever release wrote them. Zero moves nothing."""
    new = value & _NEW_MARK == _NEW_MARK
    moved = tuple(w for w in Workload if owner_of(w, value) is Authority.MDM)
    known = BASE if new else OLD_BASE
    for workload in moved:
        known |= workload.bits if new else _TESTED[workload]
    return Decoded(
        value,
        Encoding.NEW if new else Encoding.OLD,
        value & OLD_BASE == OLD_BASE,
        moved,
        value & ~known,
    )


def owner_of(workload: Workload, flags: int) -> Authority:
    bit = _TESTED[workload]
    return Authority.MDM if flags & bit == bit else Authority.SITE


def owners(flags: int) -> dict[Workload, Authority]:
    return {workload: owner_of(workload, flags) for workload in Workload}


def plan(positions: Mapping[Workload, Position]) -> tuple[int, dict[Workload, int]]:
    """Capabilities of the production policy, and of the pilot policy of each piloted workload."""
    production = capabilities(w for w, position in positions.items() if position is Position.MDM)
    pilots = {
        w: capabilities([w]) for w, position in positions.items() if position is Position.PILOT
    }
    return production, pilots


class HasCapabilities(Protocol):
    @property
    def allow(self) -> bool: ...
    @property
    def auto_enroll(self) -> bool: ...
    @property
    def capabilities(self) -> int: ...


class Merged(msgspec.Struct, frozen=True):
    """What all policies of one client come to. `flags` is what the client writes down."""

    allow: bool
    auto_enroll: bool
    raw: int
    flags: int


def merge(policies: Iterable[HasCapabilities]) -> Merged:
    """The client's merge of production and pilot policies: OR over each setting, then the mask."""
    allow, auto_enroll, raw = False, False, 0
    for policy in policies:
        allow |= policy.allow
        auto_enroll |= policy.auto_enroll
        raw |= policy.capabilities
    return Merged(allow, auto_enroll, raw, raw & MAX_CAPABILITIES if allow else 0)


def effective(flags: int, mdm_enrolled: bool) -> int:
    """The flags that count: a device the MDM service does not manage is the site's in everything."""
    return flags if mdm_enrolled else 0


class Eligibility(Enum):
    """By the names of Graph's comanagementEligibleType."""

    COMANAGED = "comanaged"
    ELIGIBLE = "eligible"
    NOT_JOINED = "eligibleButNotAzureAdJoined"
    NEEDS_OS_UPDATE = "needsOsUpdate"
    INELIGIBLE = "ineligible"


class Facts(msgspec.Struct, frozen=True):
    """What is known of a device when its eligibility is decided."""

    os_name: str = "Windows"
    os_version: str = ""
    server: bool = False
    joined: bool = False
    mdm_enrolled: bool = False
    policy_present: bool = False


# Windows 10 1709: the first that takes part in co-management.
MINIMUM_BUILD = (10, 0, 16299)


def eligibility(facts: Facts) -> Eligibility:
    if facts.server or not facts.os_name.lower().startswith("windows"):
        return Eligibility.INELIGIBLE
    version = _version(facts.os_version)
    if version is None or version < (10,):
        return Eligibility.INELIGIBLE
    if facts.mdm_enrolled and facts.policy_present:
        return Eligibility.COMANAGED
    if version < MINIMUM_BUILD:
        return Eligibility.NEEDS_OS_UPDATE
    return Eligibility.ELIGIBLE if facts.joined else Eligibility.NOT_JOINED


def _version(text: str) -> tuple[int, ...] | None:
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return tuple(int(part) for part in parts)
