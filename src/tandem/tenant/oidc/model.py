"""Settings, applications and claims of the sign-in authority."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind


class OidcSettings(Settings, frozen=True):
    # Address under which devices and browsers reach the tenant; issuers and MDM URLs begin with it.
    public_url: str = ""
    # Other names under which clients come here. Metadata asked for under one of them names it in
    # its endpoints; under any other name it names public_url. The issuer never changes.
    extra_hosts: tuple[str, ...] = (
        "login.microsoftonline.com",
        "login.microsoft.com",
        "login.windows.net",
        "sts.windows.net",
        "graph.microsoft.com",
        "management.azure.com",
        "main.iam.ad.ext.azure.com",
    )
    # The password grant hands passwords to clients and knows no second factor: off unless needed.
    password_grant: bool = False
    # Audience of tokens for the MDM service; empty: https://{default domain}/mdm.
    mdm_app_id_uri: str = ""
    # What a joined device is told; empty: the usual paths under public_url.
    mdm_discovery_url: str = ""
    mdm_terms_of_use_url: str = ""
    mdm_compliance_url: str = ""
    # Lifetimes. A disabled user or device keeps access for at most one access token.
    access_token_seconds: int = 3600
    code_seconds: int = 600
    sign_in_seconds: int = 900
    refresh_token_days: int = 90
    # A used refresh token is taken again for so long, for clients whose answer was lost.
    refresh_grace_seconds: int = 30
    # How long a browser stays signed in, and how long when it is not used.
    session_seconds: int = 86_400
    session_idle_seconds: int = 28_800
    device_code_seconds: int = 900
    device_code_interval_seconds: int = 5
    # Wrong passwords from one address in this time before it has to wait: of how many accounts,
    # and altogether.
    address_window_seconds: int = 600
    address_accounts: int = 10
    address_failures: int = 50
    # Sign-ins of applications are written together after so long; 0: each at once.
    sign_in_log_delay_seconds: float = 1.0
    sign_in_log_days: int = 30
    # How long a key signs, and how long before that it is published.
    key_days: int = 180
    key_announce_hours: int = 24
    join_certificate_days: int = 3650

    @property
    def base(self) -> str:
        return self.public_url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Application:
    """An app registration. `scopes`, `app_roles` and `required_access` have Graph's shapes."""

    id: str
    app_id: str
    display_name: str
    built_in: bool
    token_version: int
    identifier_uris: tuple[str, ...]
    public_redirect_uris: tuple[str, ...]
    web_redirect_uris: tuple[str, ...]
    scopes: tuple[dict[str, Any], ...]
    app_roles: tuple[dict[str, Any], ...]
    required_access: tuple[dict[str, Any], ...]
    properties: dict[str, Any]
    created_at: datetime

    @property
    def scope_names(self) -> tuple[str, ...]:
        return tuple(item["value"] for item in self.scopes if item.get("isEnabled", True))

    @property
    def public(self) -> bool:
        """Whether it may get tokens for users without proving itself."""
        return bool(self.public_redirect_uris or self.properties.get("isFallbackPublicClient"))

    @property
    def id_token_issuance(self) -> bool:
        """Whether the authorization endpoint may hand out id_tokens (the hybrid flow)."""
        return bool(self.properties.get("enableIdTokenIssuance"))

    @property
    def redirect_uris(self) -> tuple[str, ...]:
        return (*self.public_redirect_uris, *self.web_redirect_uris)

    @property
    def uri(self) -> str:
        """How the application is called as a resource."""
        return self.identifier_uris[0] if self.identifier_uris else self.app_id

    @property
    def audience(self) -> str:
        return self.app_id if self.token_version == 2 else self.uri


@dataclass(frozen=True, slots=True)
class ServicePrincipal:
    """The application's account in the tenant."""

    id: str
    app_id: str
    account_enabled: bool
    properties: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Secret:
    """A client secret as it can be shown afterwards; its text is in the answer that made it."""

    key_id: str
    application_id: str
    display_name: str | None
    hint: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """Delegated permissions that a client has for a resource: of one user, or (None) of all."""

    id: str
    client_id: str
    resource_id: str
    user_id: str | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleAssignment:
    id: str
    role_id: str
    principal_id: str
    resource_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says. `object_id` is the user's, the device's or the service
    principal's."""

    sort: Literal["user", "app", "device"]
    tenant_id: str
    object_id: str
    app_id: str
    audience: str
    upn: str = ""
    name: str = ""
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    device_id: str = ""
    expires_at: int = 0
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate whose key an application may sign its assertions with."""

    key_id: str
    application_id: str
    display_name: str | None
    der: bytes
    sha1: bytes
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Expiring:
    """A credential that ends soon, or has ended: `sort` is secret or certificate."""

    sort: Literal["secret", "certificate"]
    key_id: str
    app_id: str
    app_name: str
    display_name: str | None
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """An authorization request that was checked, on its way through the sign-in pages."""

    app_id: str
    redirect_uri: str
    scope: str
    public: bool
    state: str = ""
    nonce: str = ""
    challenge: str = ""
    response_type: str = "code"
    response_mode: str = "query"
    prompt: str = ""
    login_hint: str = ""
    max_age: int | None = None
    client_info: bool = False
    device: str = ""  # The user code, when this signs in another device and nothing redirects.


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a request comes from, for limits and the log."""

    address: str = ""
    client: str = ""
    correlation_id: str = ""


class BadToken(AppError):
    kind, code = Kind.UNAUTHENTICATED, "oidc.bad-token"


class KeyElsewhere(AppError):
    kind, code = Kind.UNAVAILABLE, "oidc.key-elsewhere"


class UnknownApplication(AppError):
    kind, code = Kind.NOT_FOUND, "oidc.unknown-application"


class UriTaken(AppError):
    kind, code = Kind.CONFLICT, "oidc.uri-taken"


class BadUri(AppError):
    kind, code = Kind.INVALID, "oidc.bad-uri"


class BadCredential(AppError):
    kind, code = Kind.INVALID, "oidc.bad-credential"


class BuiltInApplication(AppError):
    kind, code = Kind.FORBIDDEN, "oidc.built-in-application"


class UnknownPermission(AppError):
    kind, code = Kind.INVALID, "oidc.unknown-permission"
