"""Private keys, and what of them may be shown."""

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
KeyKind = Literal["p256", "rsa2048", "rsa4096"]

# What `cryptography` raises for a certificate, request or list of a stranger's that is none:
# InvalidVersion is no ValueError.
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def generate_key(kind: KeyKind = "p256") -> PrivateKey:
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048 if kind == "rsa2048" else 4096)


def key_pem(key: PrivateKey) -> bytes:
    """PKCS#8, not encrypted: it belongs into a private file or a SecretBox."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(data: bytes) -> PrivateKey:
    """A key that `key_pem` wrote, out of a place of our own; others' keys are read with checks.

    OpenSSL's check of an RSA key takes longer than a hundred signatures, and says nothing of a key
    that we made.
    """
    key = serialization.load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return key


def public_jwk(key: PrivateKey | PublicKey) -> dict[str, str]:
    """The public part as a JWK (RFC 7517)."""
    public = _public(key)
    numbers = public.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        return {"kty": "RSA", "n": _uint(numbers.n), "e": _uint(numbers.e)}
    assert isinstance(public, ec.EllipticCurvePublicKey)
    size = (public.curve.key_size + 7) // 8
    curve = _CURVES[public.curve.name]
    return {"kty": "EC", "crv": curve, "x": _uint(numbers.x, size), "y": _uint(numbers.y, size)}


def jwk_thumbprint(key: PrivateKey | PublicKey) -> str:
    """The SHA-256 thumbprint of RFC 7638, base64url without padding."""
    canonical = msgspec.json.encode(dict(sorted(public_jwk(key).items())))
    return urlsafe_b64encode(sha256(canonical).digest()).rstrip(b"=").decode()


def same_key(one: PrivateKey | PublicKey, other: PrivateKey | PublicKey) -> bool:
    return _public(one).public_numbers() == _public(other).public_numbers()


def _public(key: PrivateKey | PublicKey) -> PublicKey:
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key.public_key()
    return key


def _uint(value: int, size: int = 0) -> str:
    data = value.to_bytes(size or (value.bit_length() + 7) // 8, "big")
    return urlsafe_b64encode(data).rstrip(b"=").decode()
