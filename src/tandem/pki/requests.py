"""PKCS#10 requests: ours, and those that Windows really sends."""

from collections.abc import Iterable
from typing import cast

from asn1crypto import csr as asn1_csr
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tandem.infra.errors import AppError, Kind
from tandem.pki.keys import UNREADABLE, PrivateKey, PublicKey

# Nobody's device has a larger key, and checking a signature of one takes long.
_MINIMUM_RSA_BITS, _MAXIMUM_RSA_BITS = 2048, 8192
_CURVES = ("secp256r1", "secp384r1", "secp521r1")

# windows-mdm.md 6.2: real machines sign with the old OID and with SHA-1. SHA-1 is taken only here,
# as the proof that the sender holds the key.
_RSA_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.3.14.3.2.29": hashes.SHA1(),  # noqa: S303
    "1.2.840.113549.1.1.5": hashes.SHA1(),  # noqa: S303
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
}
_EC_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
}


class BadRequest(AppError):
    """The certificate request cannot be read, is not signed by its key, or its key is weak."""

    kind, code = Kind.INVALID, "pki.bad-request"


def certificate_request(key: PrivateKey, subject: x509.Name, dns: Iterable[str] = ()) -> bytes:
    """A PKCS#10 request in PEM, signed with SHA-256."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    names = [x509.DNSName(item) for item in dns]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(data: bytes) -> x509.CertificateSigningRequest:
    """A request in PEM or DER whose signature holds and whose key is strong enough."""
    try:
        if b"-----BEGIN" in data:
            request = x509.load_pem_x509_csr(data)
        else:
            request = x509.load_der_x509_csr(data)
        _strong(request.public_key())
        valid = request.is_signature_valid
    except UNREADABLE:
        raise BadRequest("The certificate request cannot be read.") from None
    if not valid:
        raise BadRequest("The certificate request is not signed by the key it holds.")
    return request


def windows_request(der: bytes) -> PublicKey:
    """The public key of an enrolling Windows machine, which proved to hold it.

    Nothing else of the request is of use: subject, names and extensions are the sender's claims
    (windows-mdm.md 6.2), and strict parsers refuse what real machines send.
    """
    try:
        request = asn1_csr.CertificationRequest.load(der, strict=True)
        info = request["certification_request_info"]
        signed = info.dump()
        public = serialization.load_der_public_key(info["subject_pk_info"].dump())
        algorithm = request["signature_algorithm"]["algorithm"].dotted
        signature = request["signature"].native
    except (*UNREADABLE, KeyError):
        raise BadRequest("The certificate request cannot be read.") from None
    key = _strong(public)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), _RSA_HASHES[algorithm])
        else:
            key.verify(signature, signed, ec.ECDSA(_EC_HASHES[algorithm]))
    except (InvalidSignature, KeyError, UnsupportedAlgorithm):
        raise BadRequest("The certificate request is not signed by the key it holds.") from None
    return key


def _strong(public: object) -> PublicKey:
    if isinstance(public, rsa.RSAPublicKey):
        exponent = public.public_numbers().e
        strong = (
            _MINIMUM_RSA_BITS <= public.key_size <= _MAXIMUM_RSA_BITS
            and 65537 <= exponent < 1 << 33
        )
    else:
        strong = isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES
    if strong:
        return cast(PublicKey, public)
    raise BadRequest("The key of the certificate request is too weak or of an unknown kind.")
