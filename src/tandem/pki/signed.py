"""CMS SignedData (RFC 5652): what was signed, by whom, and that it holds.

`cryptography` writes signatures and does not check them, so the check is here: asn1crypto reads,
`cryptography` verifies. Exactly one signer, whose certificate comes along; whether that certificate
is worth anything is the caller's to decide.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import new as digest
from hmac import compare_digest
from typing import Any

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tandem.infra.errors import AppError, Kind
from tandem.pki.keys import UNREADABLE

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_MAXIMUM_CERTIFICATES = 10


class BadSignature(AppError):
    """Not a CMS signature, or one that does not hold."""

    kind, code = Kind.UNAUTHENTICATED, "pki.bad-signature"


class NotSigned(BadSignature):
    """What came is no CMS signature at all."""

    code = "pki.not-signed"


@dataclass(frozen=True)
class Signed:
    """`signed_at` is the signer's claim; None when it makes none."""

    content: bytes
    certificate: x509.Certificate
    signed_at: datetime | None


def read_signed(data: bytes, detached: bytes | None = None, *, sha1: bool = False) -> Signed:
    """The content of a signature in DER or BER, or `detached`, which it is for. Raises BadSignature.

    `sha1` takes signatures over SHA-1 too: only where nobody but the signer chooses what is signed.
    """
    try:
        return _read(data, detached, sha1)
    except (*UNREADABLE, KeyError, IndexError, AttributeError):
        raise NotSigned("The signature cannot be read.") from None
    except RecursionError:
        raise NotSigned("The signature is nested too deeply.") from None


def _read(data: bytes, detached: bytes | None, sha1: bool) -> Signed:
    info = cms.ContentInfo.load(data, strict=True)
    if info["content_type"].native != "signed_data":
        raise NotSigned("The message is not a CMS signature.")
    signed = info["content"]
    (signer,) = signed["signer_infos"]
    inner = signed["encap_content_info"]
    kind, content = inner["content_type"].dotted, detached
    if detached is None:
        content = inner["content"].native
    elif inner["content"].native is not None:
        raise BadSignature("The signature brings content of its own.")
    if not isinstance(content, bytes):
        raise BadSignature("The signature holds nothing that was signed.")
    name = signer["digest_algorithm"]["algorithm"].native
    if name not in _HASHES or (name == "sha1" and not sha1):
        raise BadSignature("The signature uses a hash that is not taken.")
    attributes = signer["signed_attrs"]
    covered, signed_at = content, None
    if attributes.native is not None:
        values = _attributes(attributes)
        told = values.get("message_digest")
        if not isinstance(told, bytes) or not compare_digest(told, digest(name, content).digest()):
            raise BadSignature("The signature is for other content.")
        if _dotted(attributes, "content_type") != kind:
            raise BadSignature("The signature is for another type of content.")
        signed_at = values.get("signing_time")
        # The attributes are signed as a SET OF, whatever tag they are sent under (5.4).
        covered = b"\x31" + attributes.dump()[1:]
    certificate = _certificate(signed["certificates"], signer["sid"])
    _verify(certificate, signer["signature"].native, covered, _HASHES[name])
    return Signed(content, certificate, signed_at if isinstance(signed_at, datetime) else None)


def _attributes(attributes: Any) -> dict[str, Any]:
    """By name; each may be there once and has one value (11)."""
    found: dict[str, Any] = {}
    for item in attributes:
        name = item["type"].native
        if name in {"message_digest", "content_type", "signing_time"}:
            if name in found or len(item["values"]) != 1:
                raise BadSignature("A signed attribute is there twice.")
            found[name] = item["values"][0].native
    return found


def _dotted(attributes: Any, name: str) -> str:
    for item in attributes:
        if item["type"].native == name:
            return str(item["values"][0].dotted)
    return ""


def _certificate(certificates: Any, wanted: Any) -> x509.Certificate:
    """The certificate that the signer is named by."""
    if len(certificates) > _MAXIMUM_CERTIFICATES:
        raise BadSignature("The signature brings too many certificates.")
    for item in certificates:
        if item.name != "certificate":
            continue
        made = item.chosen
        if wanted.name == "issuer_and_serial_number":
            same = (
                made.issuer.dump() == wanted.chosen["issuer"].dump()
                and made.serial_number == wanted.chosen["serial_number"].native
            )
        else:
            same = made.key_identifier == wanted.chosen.native
        if same:
            return x509.load_der_x509_certificate(made.dump())
    raise BadSignature("The signer's certificate is not in the signature.")


def _verify(
    certificate: x509.Certificate, signature: bytes, covered: bytes, hash: hashes.HashAlgorithm
) -> None:
    key = certificate.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, covered, padding.PKCS1v15(), hash)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, covered, ec.ECDSA(hash))
        else:
            raise BadSignature("The signer's key is of a kind that is not taken.")
    except InvalidSignature:
        raise BadSignature("The signature does not hold.") from None
