"""Online certificate status (RFC 6960): what is asked about one certificate, and what an answer says.

Bytes and rules, no I/O. An answer is signed by the certificate's authority, or by a responder that
this authority certified for it, so it may come by any way.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

# Clocks of responders differ from ours.
_SKEW = timedelta(minutes=5)
# An answer that says nothing of the next one counts for so long.
_WITHOUT_END = timedelta(minutes=5)


class BadAnswer(ValueError):
    """The answer says nothing about this certificate; the text says why."""


class Standing(Enum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OcspAnswer:
    standing: Standing
    begins: datetime
    ends: datetime


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    # Responders look certificates up by SHA-1 of their issuer (RFC 5019, 2.1.1); it protects nothing.
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    return builder.build().public_bytes(Encoding.DER)


def read_ocsp(
    data: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> OcspAnswer:
    """Raises BadAnswer."""
    try:
        return _read(data, certificate, issuer, now)
    except BadAnswer:
        raise
    except Exception as error:
        # The parser looks into parts of an answer only when it is asked for them.
        raise BadAnswer(f"it cannot be read ({type(error).__name__})") from None


def _read(
    data: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> OcspAnswer:
    answer = ocsp.load_der_ocsp_response(data)
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise BadAnswer(f"the responder answers {answer.response_status.name.lower()}")
    _check_signed(answer, issuer, now)
    one = next((single for single in answer.responses if _about(single, certificate, issuer)), None)
    if one is None:
        raise BadAnswer("it is about another certificate")
    begins = one.this_update_utc
    ends = one.next_update_utc or begins + _WITHOUT_END
    if begins > now + _SKEW:
        raise BadAnswer("it is of the future: look at the clocks")
    if ends < now:
        raise BadAnswer(f"it is old: it ended at {ends:%Y-%m-%d %H:%M} UTC")
    standing = {
        ocsp.OCSPCertStatus.GOOD: Standing.GOOD,
        ocsp.OCSPCertStatus.REVOKED: Standing.REVOKED,
    }.get(one.certificate_status, Standing.UNKNOWN)
    return OcspAnswer(standing, begins, ends)


def _about(
    one: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> bool:
    if one.serial_number != certificate.serial_number:
        return False
    name = hashes.Hash(one.hash_algorithm)
    name.update(issuer.subject.public_bytes())
    key = hashes.Hash(one.hash_algorithm)
    key.update(_key_bits(issuer))
    return (one.issuer_name_hash, one.issuer_key_hash) == (name.finalize(), key.finalize())


def _key_bits(issuer: x509.Certificate) -> bytes:
    """The key without its algorithm, as the hash wants it (RFC 6960, 4.1.1)."""
    public = issuer.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    raise BadAnswer("the authority's key is of a kind that is not known here")


def _check_signed(answer: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    """By the authority itself, or by one that it certified for this and nothing else counts."""
    signers = [issuer, *(one for one in answer.certificates if _delegated(one, issuer, now))]
    if not any(_signed_by(answer, one) for one in signers):
        raise BadAnswer("it is not signed by the certificate's authority or its responder")


def _delegated(signer: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    try:
        signer.verify_directly_issued_by(issuer)
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except Exception:
        return False
    in_time = signer.not_valid_before_utc <= now <= signer.not_valid_after_utc
    return in_time and ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _signed_by(answer: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, algorithm = signer.public_key(), answer.signature_hash_algorithm
    signature, signed = answer.signature, answer.tbs_response_bytes
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, signed, ec.ECDSA(algorithm))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except InvalidSignature:
        return False
    return True
