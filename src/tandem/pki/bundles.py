"""Certificates as people hand them over: PEM, DER, P7B, several in one file, in any order."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tandem.infra.errors import AppError, Kind

_MAXIMUM_PATH = 10


class BadCertificate(AppError):
    kind, code = Kind.INVALID, "pki.bad-certificate"


@dataclass(frozen=True)
class CertificatePath:
    """From the leaf upwards. `missing_issuer` names whose certificate would come next."""

    certificates: tuple[x509.Certificate, ...]
    missing_issuer: str | None

    @property
    def complete(self) -> bool:
        return self.missing_issuer is None


def read_certificates(data: bytes) -> list[x509.Certificate]:
    """Every certificate in a file, whatever its format. Raises BadCertificate."""
    readers = [x509.load_pem_x509_certificates, pkcs7.load_pem_pkcs7_certificates]
    if b"-----BEGIN" not in data:
        readers = [_one_der, pkcs7.load_der_pkcs7_certificates]
    elif b"-----BEGIN PKCS7" in data:
        readers.reverse()
    for reader in readers:
        try:
            found = list(reader(data))
        except Exception:  # noqa: S112 - the next format may fit; the last failure is ours
            continue
        if found:
            return found
    raise BadCertificate(
        "The file holds no certificate that can be read.",
        cure="Take the file that the CA sent: PEM, DER (.cer), P7B, or a PEM bundle.",
    )


def _one_der(data: bytes) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(data)]


def build_path(leaf: x509.Certificate, pool: Iterable[x509.Certificate]) -> CertificatePath:
    """The path from the leaf to a self-signed root, as far as the pool reaches.

    Each step is checked by signature, so a look-alike issuer does not count.
    """
    candidates = list(pool)
    path = [leaf]
    while len(path) < _MAXIMUM_PATH:
        here = path[-1]
        if here.issuer == here.subject:
            return CertificatePath(tuple(path), None)
        issuer = next((c for c in candidates if c not in path and _issued(c, here)), None)
        if issuer is None:
            break
        path.append(issuer)
    return CertificatePath(tuple(path), path[-1].issuer.rfc4514_string())


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:
        return False
    return True


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def sha1_thumbprint(certificate: x509.Certificate) -> str:
    """Upper-case hex, as Windows shows and looks up certificates."""
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303


def sha256_fingerprint(certificate: x509.Certificate | bytes) -> str:
    """Lower-case hex of the DER form."""
    if isinstance(certificate, bytes):
        return sha256(certificate).hexdigest()
    return certificate.fingerprint(hashes.SHA256()).hex()
