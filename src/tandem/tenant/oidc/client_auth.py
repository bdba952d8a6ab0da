"""How confidential clients prove themselves: a secret, or an assertion signed by a certificate's
key (RFC 7523; graph-compat.md 3.3 has what real clients send)."""

import re
from base64 import b64encode, urlsafe_b64decode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import grant_store, store
from tandem.tenant.oidc.model import Application, Certificate, Peer
from tandem.tenant.oidc.refusals import OAuthError
from tandem.tenant.oidc.tokens import Tokens

Form = dict[str, str]

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECRET, CERTIFICATE = "1", "2"  # What `appidacr` says.

_ALGORITHMS = ("RS256", "PS256")
_MOST_BYTES = 16_384
_LONGEST_SECONDS = 3600
_SKEW_SECONDS = 300
_PART = re.compile(r"[A-Za-z0-9_-]+={0,2}")


async def authenticate(
    tx: Tx, tokens: Tokens, client: Application, form: Form, peer: Peer, now: datetime
) -> str:
    """SECRET or CERTIFICATE. Raises OAuthError: invalid_client."""
    if form.get("client_assertion"):
        if form.get("client_assertion_type") != JWT_BEARER:
            raise OAuthError(
                900144,
                "The request body must contain the following parameter: 'client_assertion_type'.",
                cure=f"Send {JWT_BEARER}.",
            )
        await _check_assertion(tx, tokens, client, form["client_assertion"], peer, now)
        return CERTIFICATE
    await _check_secret(tx, client, form, now)
    return SECRET


async def _check_secret(tx: Tx, client: Application, form: Form, now: datetime) -> None:
    text = form.get("client_secret", "")
    if not text:
        raise OAuthError(
            7000218,
            "The request body must contain the following parameter: 'client_assertion' or "
            "'client_secret'.",
            cure="Send the application's secret, or an assertion signed with its certificate.",
        )
    held = await store.secret(tx, client.id, text)
    if held is None:
        raise OAuthError(
            7000215,
            f"Invalid client secret provided for app '{client.app_id}'. Ensure the secret being "
            "sent is the client secret value, not the client secret ID.",
            cure="Add a new secret to the app registration and use it.",
        )
    if held.ends_at <= now:
        raise OAuthError(
            7000222,
            f"The provided client secret keys for app '{client.app_id}' are expired.",
            cure="Add a new secret to the app registration and use it.",
        )


async def _check_assertion(
    tx: Tx, tokens: Tokens, client: Application, text: str, peer: Peer, now: datetime
) -> None:
    try:
        header, claims, data, signature = _parts(text)
        algorithm = str(header.get("alg"))
        if algorithm not in _ALGORITHMS:
            raise ValueError(f"it is signed with '{algorithm[:20]}', not RS256 or PS256")
        held = await _certificate_of(tx, client, header)
        if not held.starts_at <= now < held.ends_at:
            raise ValueError("the certificate is not valid at this time")
        public = x509.load_der_x509_certificate(bytes(held.der)).public_key()
        key = RSAKey.import_key(public)  # type: ignore[arg-type]
        if not JWSRegistry.algorithms[algorithm].verify(data, signature, key):
            raise ValueError("its signature was not made with the certificate's key")
        issuer, subject = claims.get("iss"), claims.get("sub")
        if not issuer == subject or str(issuer).lower() != client.app_id:
            raise ValueError("iss and sub are not the client id")
        expires = _time(claims, "exp")
        begins = max(_time(claims, "nbf", default=0), _time(claims, "iat", default=0))
        if not begins - _SKEW_SECONDS <= now.timestamp() < expires + _SKEW_SECONDS:
            raise ValueError("it is not within its valid time range")
        if expires - now.timestamp() > _LONGEST_SECONDS + _SKEW_SECONDS:
            raise ValueError(f"it is valid for more than {_LONGEST_SECONDS} seconds")
        if not await is_audience(tx, tokens, claims.get("aud")):
            raise ValueError("its audience is not this authority")
        identity = claims.get("jti")
        if not isinstance(identity, str) or not 0 < len(identity) <= 200:
            raise ValueError("it has no jti")
        kept = datetime.fromtimestamp(expires + 2 * _SKEW_SECONDS, UTC)
        # MSAL sends one assertion with several requests, so only its use from elsewhere is a
        # replay that can be told from the client's own.
        first = await grant_store.use_assertion(
            tx, f"{client.app_id}|{identity}", peer.address, kept
        )
        if first not in (None, peer.address):
            raise ValueError("it was used before, from another address")
    except (ValueError, TypeError, JoseError) as error:
        raise OAuthError(
            700027,
            f"The client assertion of app '{client.app_id}' is refused: {error}.",
            cure="Sign a new assertion with the key of a certificate that is registered for the "
            "application, for the token endpoint.",
        ) from None


def _parts(text: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, what is signed, and the signature. Some clients keep base64's padding, which
    RFC 7515 forbids and the signature covers. Raises ValueError."""
    pieces = text.split(".")
    if len(text) > _MOST_BYTES or len(pieces) != 3 or not all(map(_PART.fullmatch, pieces)):
        raise ValueError("it is not a JWT")
    first, second, third = (_decoded(piece) for piece in pieces)
    try:
        header = msgspec.json.decode(first, type=dict[str, Any])
        claims = msgspec.json.decode(second, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is not a JWT") from None
    if "crit" in header:
        raise ValueError("it has critical header parameters")
    return header, claims, ".".join(pieces[:2]).encode(), third


def _decoded(piece: str) -> bytes:
    bare = piece.rstrip("=")
    return urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


async def _certificate_of(tx: Tx, client: Application, header: dict[str, Any]) -> Certificate:
    """By thumbprint; the certificate in x5c is not looked at, and no URL is followed."""
    sha1, sha256 = header.get("x5t"), header.get("x5t#S256")
    if not (isinstance(sha1, str) or isinstance(sha256, str)):
        raise ValueError("its header names no certificate (x5t or x5t#S256)")
    held = await store.certificate(
        tx,
        client.id,
        sha1=_decoded(sha1) if isinstance(sha1, str) else b"",
        sha256=_decoded(sha256) if isinstance(sha256, str) else b"",
    )
    if held is None:
        named = _decoded(str(sha256 or sha1))
        raise ValueError(
            f"the certificate with the thumbprint {b64encode(named[:32]).decode()} is not "
            "registered for the application"
        )
    return held


def _time(claims: dict[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise ValueError(f"{name} is no time")
    return float(value)


async def is_audience(tx: Tx, tokens: Tokens, audience: Any) -> bool:
    """The token endpoint under any of our names, tenant as id or domain, v1 or v2; or an issuer."""
    wanted = audience if isinstance(audience, list) else [audience]
    here = await directory.tenant(tx)
    names = {here.id, *here.domains, "common", "organizations"}
    own = urlsplit(tokens.settings.base)
    for item in wanted:
        if not isinstance(item, str) or len(item) > 300:
            continue
        try:
            parts = urlsplit(item.lower())
        except ValueError:
            continue
        first, _, rest = parts.path.strip("/").partition("/")
        host = parts.netloc == own.netloc.lower() or parts.hostname in {
            own.hostname,
            *tokens.settings.extra_hosts,
        }
        if (
            parts.scheme == "https"
            and host
            and not parts.query
            and first in names
            and rest in ("", "v2.0", "oauth2/token", "oauth2/v2.0/token")
        ):
            return True
    return False
