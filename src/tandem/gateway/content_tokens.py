"""Content tokens: which device may have which content of this gateway, for a day.

The site signs them, and binds them to the device's key: a request for content is signed with it, as
every request to the management point is. Who steals a token has nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from tandem.gateway.model import Refusal
from tandem.gateway.shelf import Title
from tandem.gateway.statuses import refusal
from tandem.gateway.tokens import keys_of
from tandem.protocols import ccm
from tandem.protocols.tunnel import Configuration

_LONGEST = 8192
_SKEW_SECONDS = 300
_CACHE_SIZE = 20_000
_AGAIN = "Ask the management point where the content is: it gives another token."


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    aud: str
    sub: str
    gateway: str
    dist: int
    size: int
    deviceid: str
    nbf: float
    exp: float
    cnf: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Right:
    """What a token gives: this content to the holder of this key."""

    title: Title
    device: str
    key: Any
    starts: float
    ends: float


class ContentTokens:
    """Those that the keys of one configuration hold for."""

    def __init__(self, configuration: Configuration) -> None:
        self._issuer = f"urn:sccm:site:{configuration.site_code}"
        self._gateway = configuration.service_name
        self._keys = keys_of(configuration.site_token_keys)
        self._known: dict[bytes, Right] = {}

    def check(
        self, wanted: str, method: str, target: str, headers: Mapping[str, str], now: float
    ) -> Right | Refusal:
        """Whether this request may have the content `wanted`, a SHA-256. No I/O."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return refusal("CMGService_Token_Required", cure=_AGAIN)
        right = self._right(token.strip())
        if isinstance(right, str):
            return _disbelieved(right)
        if right.ends <= now:
            return _disbelieved("expired", "The content token has expired.")
        if right.starts > now + _SKEW_SECONDS:
            return _disbelieved("not valid yet", "The content token is not valid yet.")
        if right.title.sha256 != wanted:
            return _disbelieved("for other content", "The content token is for other content.")
        try:
            at = datetime.fromtimestamp(now, UTC)
            signed = ccm.read_signature(headers)
            path, _, query = target.partition("?")
            ccm.verify_request(
                right.key,
                signed,
                method=method,
                target=ccm.signed_target(path, query),
                body=b"",
                now=at,
            )
        except ccm.BadSignature as error:
            return _disbelieved("not signed by its device", error.message)
        return right

    def _right(self, token: str) -> Right | str:
        """What it gives, or why it is not believed."""
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None:
            return known
        found = self._read(token)
        if isinstance(found, Right):
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            self._known[digest] = found
        return found

    def _read(self, token: str) -> Right | str:
        if len(token) > _LONGEST:
            return "longer than a token may be"
        try:
            verified = jws.deserialize_compact(token, self._keys, algorithms=["ES256"])
            claims = msgspec.json.decode(verified.payload, type=_Claims)
            key = ccm.public_key(claims.cnf.get("jwk", {}))
        except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
            return type(error).__name__
        except ccm.BadSignature:
            return "no key that it is bound to"
        if claims.iss != self._issuer or claims.aud != ccm.CONTENT_AUDIENCE:
            return "meant for something else"
        if claims.gateway != self._gateway:
            return "meant for another gateway"
        if claims.size < 0 or claims.dist < 1 or not math.isfinite(claims.exp):
            return "claims that cannot be"
        title = Title(claims.sub, claims.dist, claims.size)
        return Right(title, claims.deviceid, key, claims.nbf, claims.exp)


def _disbelieved(why: str, message: str = "") -> Refusal:
    found = refusal("CMGService_Invalid_Token", message or "This is no content token.", _AGAIN)
    return Refusal(found.status, found.code, found.message, found.cure, why)
