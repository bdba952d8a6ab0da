"""Scope strings, redirect URIs and App ID URIs, understood."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from tandem.tenant.oidc.model import BadUri
from tandem.tenant.oidc.refusals import OAuthError

OPENID = frozenset({"openid", "profile", "email", "offline_access"})
GRAPH_RESOURCE = "https://graph.microsoft.com"
_SCOPE = re.compile(r"^[\x21\x23-\x5b\x5d-\x7e]{1,300}$")
_MOST_SCOPES = 100


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


def parse_scope(text: str) -> Scope:
    """Raises OAuthError 70011 when it is malformed or asks for more than one resource."""
    asked = tuple(dict.fromkeys(text.split()))
    if len(asked) > _MOST_SCOPES:
        raise OAuthError(
            70011, f"More than {_MOST_SCOPES} scopes are asked for.", cure="Ask for fewer."
        )
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
        elif name in OPENID and resource.rstrip("/").lower() == GRAPH_RESOURCE:
            openid.add(name)
            continue
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


def _bad_scope(item: str) -> OAuthError:
    return OAuthError(
        70011,
        f"The provided value for the input parameter 'scope' is not valid: {item[:100]}.",
        cure="Write <App ID URI>/.default, or the name of a permission after it.",
    )


# What native clients send: loopback, any port, nothing that a parser could read in two ways.
_LOOPBACK = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?(/[^\s?#\\@]*)?")


def redirect_matches(given: str, registered: str) -> bool:
    """Exact, but any port on loopback addresses, as native clients need (RFC 8252, 7.3)."""
    if given == registered:
        return True
    one, other = _LOOPBACK.fullmatch(given), _LOOPBACK.fullmatch(registered)
    return (
        one is not None
        and other is not None
        and one[1] == other[1]
        and (one[3] or "/") == (other[3] or "/")
    )


def check_identifier_uri(uri: str) -> str:
    if re.fullmatch(r"(https|api|urn|ms-appx|spn)[:][^\s\"<>]{3,250}", uri, re.IGNORECASE):
        return uri
    raise BadUri(
        f"'{uri[:200]}' is not an App ID URI.",
        cure="Write one like https://ConfigMgrService or api://<guid>.",
        target="identifierUris",
    )


_NEVER = ("http", "javascript", "data", "file", "vbscript", "about", "blob")


def check_redirect_uri(uri: str) -> str:
    """No wildcard, no fragment, no user name, no dot segments: what is registered is compared
    character by character, and has to mean one address for everybody."""
    try:
        parts = urlsplit(uri)
        name = parts.hostname or ""
    except ValueError:
        parts, name = urlsplit(""), ""
    scheme = parts.scheme
    native = bool(re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme)) and scheme not in _NEVER
    web = scheme != "https" or bool(name)
    odd = re.search(r"[\s\\*#\"<>]", uri) or "@" in parts.netloc or "/../" in uri + "/"
    if (native or _LOOPBACK.fullmatch(uri)) and web and not odd and len(uri) <= 500:
        return uri
    raise BadUri(
        f"'{uri[:200]}' cannot be a redirect URI.",
        cure="Use https://…, http://localhost, or a scheme of the application's own, without "
        "wildcards, fragments, user names and dot segments.",
        target="redirectUris",
    )
