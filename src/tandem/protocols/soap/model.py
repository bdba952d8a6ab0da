"""The messages of enrollment, as values."""

from dataclasses import dataclass, field
from datetime import datetime

_ENROLLMENT = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
_POLICY = "http://schemas.microsoft.com/windows/pki/2009/01/enrollmentpolicy"
_WSTEP = "http://schemas.microsoft.com/windows/pki/2009/01/enrollment"

DISCOVER = f"{_ENROLLMENT}/IDiscoveryService/Discover"
DISCOVER_RESPONSE = f"{_ENROLLMENT}/IDiscoveryService/DiscoverResponse"
GET_POLICIES = f"{_POLICY}/IPolicy/GetPolicies"
GET_POLICIES_RESPONSE = f"{_POLICY}/IPolicy/GetPoliciesResponse"
REQUEST_TOKEN = f"{_WSTEP}/RST/wstep"
REQUEST_TOKEN_RESPONSE = f"{_WSTEP}/RSTRC/wstep"

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
USER_TOKEN_TYPE = (
    "http://schemas.microsoft.com/5.0.0.0/ConfigurationManager/Enrollment/DeviceEnrollmentUserToken"  # noqa: S105
)
FEDERATED, ON_PREMISE = "Federated", "OnPremise"
PASSWORD_TEXT = "PasswordText"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Credential:
    """The one credential of a Security header. `value` has gone through base64 once; a password
    stands as it was typed, and is of type "PasswordText" or another that its element names."""

    kind: str  # "token", "password" or "certificate"
    value_type: str = ""
    value: bytes = b""
    user_name: str = ""


@dataclass(frozen=True, slots=True)
class Discover:
    email: str
    request_version: float
    device_type: str
    application_version: str
    os_edition: str
    auth_policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GetPolicies:
    pass


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What a device is asked to make its key by. `providers` keep it, the preferred one first."""

    minimal_bits: int = 2048
    providers: tuple[str, ...] = (
        "Microsoft Platform Crypto Provider",
        "Microsoft Software Key Storage Provider",
    )
    validity_days: int = 365
    renewal_days: int = 180


@dataclass(frozen=True, slots=True)
class RequestToken:
    """`context` has every AdditionalContext item, in order, under its name."""

    token_type: str
    request_type: str
    sort: str  # "PKCS10", or "PKCS7" for a renewal
    request: bytes  # what was decoded; empty where it cannot be
    context: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def item(self, name: str) -> str:
        values = self.context.get(name, ())
        return values[0] if values else ""


@dataclass(frozen=True, slots=True)
class Envelope:
    action: str
    message_id: str
    to: str
    credentials: tuple[Credential, ...]
    body: Discover | GetPolicies | RequestToken


@dataclass(frozen=True, slots=True)
class DiscoverResponse:
    policy_url: str
    enrollment_url: str
    authentication_url: str  # Only of a federated sign-in; else empty.
    version: str
    auth_policy: str = FEDERATED


@dataclass(frozen=True, slots=True)
class Fault:
    """`subcode` is s:MessageFormat and its kin (section 10); `error_type` goes into the detail."""

    subcode: str
    reason: str
    error_type: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    provisioning: bytes
    created_at: datetime


class BadMessage(ValueError):
    """Not a message of this protocol, or one whose content cannot be used."""


class BadSecurity(BadMessage):
    """The Security header is missing, empty, or holds more than one credential."""
