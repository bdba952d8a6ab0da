"""Settings, applications, claims, and the refusals of the sign-in authority."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind


class OidcSettings(Settings, frozen=True):
    # Address under which devices and browsers reach the tenant; issuers and MDM URLs begin with it.
    public_url: str
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
class Request:
    """An authorization request that was checked, on its way through the sign-in pages."""

    app_id: str
    redirect_uri: str
    scope: str
    public: bool
    state: str = ""
    nonce: str = ""
    challenge: str = ""
    response_mode: str = "query"
    prompt: str = ""
    login_hint: str = ""
    client_info: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope string, understood: one resource, names asked of it, and the OpenID scopes."""

    resource: str  # App ID URI or app id as the client wrote it; "" when none was asked.
    names: tuple[str, ...]
    openid: frozenset[str]
    asked: tuple[str, ...]

    @property
    def default(self) -> bool:
        return ".default" in self.names


class OAuthError(AppError):
    """A refusal with its AADSTS number. `error` is OAuth's word for it."""

    code = "oidc.refused"

    def __init__(self, number: int, message: str, *, cure: str = "", suberror: str = "") -> None:
        super().__init__(message, cure=cure, number=number)
        self.number = number
        self.suberror = suberror
        self.error, self.status = AADSTS[number]


# Number to OAuth error and HTTP status (graph-compat.md 3.6).
AADSTS: dict[int, tuple[str, int]] = {
    16000: ("interaction_required", 400),
    50011: ("invalid_client", 400),
    50013: ("invalid_grant", 400),
    50020: ("invalid_grant", 400),
    50034: ("invalid_grant", 400),
    50053: ("invalid_grant", 400),
    50057: ("invalid_grant", 400),
    50058: ("login_required", 400),
    50126: ("invalid_grant", 400),
    50173: ("invalid_grant", 400),
    54005: ("invalid_grant", 400),
    65001: ("invalid_grant", 400),
    65004: ("access_denied", 400),
    70000: ("invalid_grant", 400),
    70003: ("unsupported_grant_type", 400),
    70008: ("invalid_grant", 400),
    70011: ("invalid_scope", 400),
    70043: ("invalid_grant", 400),
    90002: ("invalid_tenant", 400),
    90033: ("temporarily_unavailable", 503),
    90094: ("access_denied", 400),
    90100: ("invalid_request", 400),
    135011: ("invalid_grant", 400),
    500011: ("invalid_resource", 400),
    500021: ("access_denied", 400),
    501481: ("invalid_grant", 400),
    700016: ("unauthorized_client", 400),
    700027: ("invalid_client", 401),
    700082: ("invalid_grant", 400),
    900144: ("invalid_request", 400),
    7000112: ("unauthorized_client", 400),
    7000215: ("invalid_client", 401),
    7000218: ("invalid_client", 401),
    7000222: ("invalid_client", 401),
}

# Refusals of other modules, spoken as an AADSTS number.
NUMBER_OF: dict[Kind, int] = {
    Kind.INVALID: 90100,
    Kind.UNAUTHENTICATED: 50126,
    Kind.FORBIDDEN: 50057,
    Kind.NOT_FOUND: 90100,
    Kind.CONFLICT: 90100,
    Kind.GONE: 70008,
    Kind.TOO_LARGE: 90100,
    Kind.RATE_LIMITED: 50053,
    Kind.UNAVAILABLE: 90033,
    Kind.UNSUPPORTED: 70003,
}


class BadToken(AppError):
    kind, code = Kind.UNAUTHENTICATED, "oidc.bad-token"


class UnknownApplication(AppError):
    kind, code = Kind.NOT_FOUND, "oidc.unknown-application"


class UriTaken(AppError):
    kind, code = Kind.CONFLICT, "oidc.uri-taken"


class BadUri(AppError):
    kind, code = Kind.INVALID, "oidc.bad-uri"


class BuiltInApplication(AppError):
    kind, code = Kind.FORBIDDEN, "oidc.built-in-application"


class UnknownPermission(AppError):
    kind, code = Kind.INVALID, "oidc.unknown-permission"


_SCOPE = re.compile(r"^[\x21\x23-\x5b\x5d-\x7e]{1,300}$")


def parse_scope(text: str) -> Scope:
    """Raises OAuthError 70011 when it is malformed or asks for more than one resource."""
    asked = tuple(dict.fromkeys(text.split()))
    resources: dict[str, str] = {}
    names: list[str] = []
    openid = set()
    for item in asked:
        if not _SCOPE.match(item):
            raise _bad_scope(item)
        if item in OPENID:
            openid.add(item)
            continue
        resource, slash, name = item.rpartition("/")
        if not slash:
            resource = GRAPH_RESOURCE
        if not name:
            raise _bad_scope(item)
        resource = resource.rstrip("/")
        resources.setdefault(resource.lower(), resource)
        names.append(name)
    if len(resources) > 1:
        raise OAuthError(
            70011,
            "The scopes belong to several resources: " + ", ".join(resources.values()) + ".",
            cure="Ask for the scopes of one resource at a time.",
        )
    return Scope(next(iter(resources.values()), ""), tuple(names), frozenset(openid), asked)


OPENID = frozenset({"openid", "profile", "email", "offline_access"})
GRAPH_RESOURCE = "https://graph.microsoft.com"


def _bad_scope(item: str) -> OAuthError:
    return OAuthError(
        70011,
        f"The provided value for the input parameter 'scope' is not valid: {item[:100]}.",
        cure="Write <App ID URI>/.default, or the name of a permission after it.",
    )


_LOOPBACK = ("localhost", "127.0.0.1")


def redirect_matches(given: str, registered: str) -> bool:
    """Exact, but any port on loopback addresses, as native clients need (RFC 8252, 7.3)."""
    if given == registered:
        return True
    one, other = urlsplit(given), urlsplit(registered)
    return (
        one.scheme == other.scheme == "http"
        and one.hostname in _LOOPBACK
        and one.hostname == other.hostname
        and (one.path or "/") == (other.path or "/")
        and not one.query
        and not one.fragment
        and "@" not in one.netloc
    )


def check_identifier_uri(uri: str) -> str:
    if re.fullmatch(r"(https|api|urn|ms-appx|spn)[:][^\s\"<>]{3,250}", uri, re.IGNORECASE):
        return uri
    raise BadUri(
        f"'{uri}' is not an App ID URI.",
        cure="Write one like https://ConfigMgrService or api://<guid>.",
        target="identifierUris",
    )


def check_redirect_uri(uri: str) -> str:
    parts = urlsplit(uri)
    loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK
    native = bool(re.fullmatch(r"[a-z][a-z0-9+.-]*", parts.scheme)) and parts.scheme not in (
        "http",
        "javascript",
        "data",
        "file",
        "vbscript",
    )
    if (
        (loopback or native)
        and not parts.fragment
        and len(uri) <= 500
        and not re.search(r"\s", uri)
    ):
        return uri
    raise BadUri(
        f"'{uri}' cannot be a redirect URI.",
        cure="Use https://…, http://localhost, or a scheme of the application's own.",
        target="redirectUris",
    )
