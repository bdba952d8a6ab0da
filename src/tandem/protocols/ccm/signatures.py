"""Every request of a client is signed with the key of its device.

The signature covers, each on its own line: method, path and query below the MP role id, SHA-256 of
the body in hex, client id, date, nonce. It travels in headers, so a relay passes it on untouched,
and a relay that changes a byte of what it covers is noticed.
"""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from re import compile as pattern
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem.infra.errors import AppError, Kind
from tandem.protocols.ccm import jws

CLIENT_HEADER = "CCM-Client"
DATE_HEADER = "CCM-Date"
NONCE_HEADER = "CCM-Nonce"
SIGNATURE_HEADER = "CCM-Signature"

# How far a device's clock may be off. A nonce has to be remembered twice as long.
SKEW = timedelta(minutes=5)

_DATE = pattern(r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$")
_NONCE = pattern(r"^[A-Za-z0-9_-]{16,64}$")
_CLIENT = pattern(r"^[A-Za-z0-9:-]{0,64}$")
_PREFIX = pattern(r"^/CCM_Proxy_(?:Mutual|Server)Auth/\d+(?=/)")


class BadSignature(AppError):
    """The request does not prove which device sent it."""

    kind, code = Kind.UNAUTHENTICATED, "client.bad-signature"


class Signed(msgspec.Struct, frozen=True):
    """The four headers."""

    client_id: str
    at: datetime
    nonce: str
    signature: bytes


def signed_target(path: str, query: str = "") -> str:
    """What of a URL is signed: path and query below the MP role id, whoever relays it."""
    below = _PREFIX.sub("", path)
    return f"{below}?{query}" if query else below


def _lines(method: str, target: str, body: bytes, client: str, date: str, nonce: str) -> bytes:
    digest = sha256(body).hexdigest()
    return "\n".join([method.upper(), target, digest, client, date, nonce]).encode()


def sign_request(
    key: ec.EllipticCurvePrivateKey,
    *,
    method: str,
    target: str,
    body: bytes,
    client_id: str,
    now: datetime,
    nonce: str,
) -> dict[str, str]:
    """The headers for one request. `client_id` is empty before registration."""
    date = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = _lines(method, target, body, client_id, date, nonce)
    return {
        CLIENT_HEADER: client_id,
        DATE_HEADER: date,
        NONCE_HEADER: nonce,
        SIGNATURE_HEADER: jws.b64(jws.raw_signature(key, data)),
    }


def read_signature(headers: Mapping[str, str]) -> Signed:
    """The headers of a request, not yet verified. Raises BadSignature."""
    date, nonce = headers.get(DATE_HEADER.lower(), ""), headers.get(NONCE_HEADER.lower(), "")
    try:
        if not _DATE.match(date):
            raise ValueError("not a date")
        at = datetime.fromisoformat(date)
        signature = jws.unb64(headers.get(SIGNATURE_HEADER.lower(), ""))
    except ValueError:
        raise BadSignature(
            "The request is not signed.", cure="Sign it with the key of the device."
        ) from None
    if not _NONCE.match(nonce):
        raise BadSignature("The request's nonce is missing or has not the right form.")
    client = headers.get(CLIENT_HEADER.lower(), "")
    if not _CLIENT.match(client):
        raise BadSignature("The request's client id has not the right form.")
    return Signed(client, at, nonce, signature)


def verify_request(
    key: ec.EllipticCurvePublicKey,
    signed: Signed,
    *,
    method: str,
    target: str,
    body: bytes,
    now: datetime,
) -> None:
    """Raises BadSignature. That the nonce is new is for the caller to see to."""
    if abs(now - signed.at) > SKEW:
        raise BadSignature(
            "The request was signed too long ago, or the clock of the device is wrong.",
            cure="Set the clock of the device.",
            server_time=now.astimezone(UTC).isoformat(),
        )
    date = f"{signed.at.isoformat()[:19]}Z"
    data = _lines(method, target, body, signed.client_id, date, signed.nonce)
    if not jws.is_signed(key, signed.signature, data):
        raise BadSignature(
            "The signature does not fit the request and the key of the device.",
            cure="The request was altered on its way, or another key signed it.",
        )


def public_key(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    """The P-256 key of a JWK. Raises BadSignature for every other key."""
    try:
        if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
            raise ValueError("not P-256")
        x, y = (int.from_bytes(jws.unb64(jwk[part]), "big") for part in ("x", "y"))
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadSignature("The key of the device is not a P-256 key.") from None


def public_point(jwk: Mapping[str, Any]) -> bytes:
    """The key of a JWK that was looked at before, as its point: 65 bytes."""
    return b"\x04" + jws.unb64(jwk["x"]).rjust(32, b"\0") + jws.unb64(jwk["y"]).rjust(32, b"\0")


def key_of_point(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point)


_CURVE = ec.SECP256R1()


class _Proof(msgspec.Struct):
    ath: str
    iat: int
    jti: str


def key_proof(key: jws.PrivateKey, access_token: str, now: datetime, nonce: str) -> str:
    """A JWS that ties a directory token to the key whose holder sends it."""
    proof = _Proof(_token_hash(access_token), int(now.timestamp()), nonce)
    return jws.serialize({"typ": "ccm-proof+jwt"}, msgspec.json.encode(proof), key)


def open_key_proof(proof: str, key: jws.PublicKey, access_token: str, now: datetime) -> str:
    """The proof's nonce. Raises BadSignature when it is old, for another token or another key."""
    try:
        header, payload, signing, signature = jws.parse(proof)
        claims = msgspec.json.decode(payload, type=_Proof)
    except (ValueError, msgspec.DecodeError):
        raise BadSignature("The proof of the device's key cannot be read.") from None
    if (
        header.get("typ") != "ccm-proof+jwt"
        or header.get("alg") != jws.algorithm(key)
        or not jws.is_signed(key, signature, signing)
        or claims.ath != _token_hash(access_token)
        or not _NONCE.match(claims.jti)
    ):
        raise BadSignature("The proof does not show that the sender holds the device's key.")
    if abs(int(now.timestamp()) - claims.iat) > SKEW.total_seconds():
        raise BadSignature(
            "The proof of the device's key is too old, or the clock of the device is wrong.",
            cure="Set the clock of the device.",
        )
    return claims.jti


def _token_hash(token: str) -> str:
    return urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()
