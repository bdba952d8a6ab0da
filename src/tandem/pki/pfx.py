"""PFX (PKCS #12) files: key, certificate and path under a password."""

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from tandem.infra.errors import AppError, Kind
from tandem.pki.keys import PrivateKey, same_key


class BadPfx(AppError):
    kind, code = Kind.INVALID, "pki.bad-pfx"


class WrongPassword(AppError):
    kind, code = Kind.INVALID, "pki.wrong-password"


@dataclass(frozen=True)
class Pfx:
    key: PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]


def pfx_export(
    key: PrivateKey,
    certificate: x509.Certificate,
    chain: Iterable[x509.Certificate],
    password: str,
    friendly_name: str,
) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        friendly_name.encode(),
        key,
        certificate,
        list(chain),
        BestAvailableEncryption(password.encode()),
    )


def pfx_open(data: bytes, password: str) -> Pfx:
    """Open a PFX that holds a private key and its certificate.

    Raises WrongPassword, or BadPfx when it is no PFX or lacks the key or the certificate.
    """
    try:
        key, certificate, chain = pkcs12.load_key_and_certificates(data, password.encode())
    except UnsupportedAlgorithm:
        raise BadPfx(
            "The PFX file uses an encryption that is no longer taken (like RC2).",
            cure="Export it again with AES256-SHA256, or TripleDES-SHA1 from an older Windows.",
        ) from None
    except ValueError as error:
        if "password" in str(error).lower() or "mac" in str(error).lower():
            raise WrongPassword(
                "The password does not open this PFX file.",
                cure="Type the password that was chosen when the file was exported.",
            ) from None
        raise BadPfx(
            "The file is not a PFX (PKCS #12) file.",
            cure="Export certificate and private key again as PFX.",
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) or certificate is None:
        raise BadPfx(
            "The PFX file holds no private key with its certificate.",
            cure="Export it again with the private key included.",
        )
    if not same_key(key, certificate.public_key()):  # type: ignore[arg-type]
        raise BadPfx("The PFX file's private key does not belong to its certificate.")
    return Pfx(key, certificate, tuple(chain))
