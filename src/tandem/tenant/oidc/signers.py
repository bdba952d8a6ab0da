"""Who signs tokens. A keeper holds private keys; the rest of the authority sees what it signed.

    keeper.make(subject, now, days)      a new key: its handle, to be stored, and its certificate
    keeper.open(handle, certificate)     the signer; asked once a process and key

`SoftwareKeys` seals the key into its handle. A hardware module returns the name of a key that
never leaves it; nothing else changes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from tandem import pki
from tandem.infra.secrets import SecretBox

ALGORITHM = "RS256"
_CONTEXT = "oidc.signing-key"
_RS256 = JWSRegistry.algorithms[ALGORITHM]


@dataclass(frozen=True, slots=True)
class MadeKey:
    handle: bytes
    certificate: bytes  # DER, self-signed: clients that want x5c get it.


class Signer(Protocol):
    async def sign(self, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 over the data (RFC 7518, 3.3)."""
        ...


class KeyKeeper(Protocol):
    @property
    def name(self) -> str:
        """Stored with the key: another keeper's handles are never opened."""
        ...

    def make(self, subject: x509.Name, now: datetime, days: int) -> MadeKey: ...

    def open(self, handle: bytes, certificate: bytes) -> Signer: ...


class SoftwareKeys:
    """Keys in this process's memory, at rest sealed in the database."""

    name = "software"

    def __init__(self, box: SecretBox) -> None:
        self._box = box

    def make(self, subject: x509.Name, now: datetime, days: int) -> MadeKey:
        made = pki.new_root(subject, now=now, days=days, key="rsa2048")
        sealed = self._box.seal(pki.key_pem(made.key), _CONTEXT)
        return MadeKey(sealed, made.certificate.public_bytes(Encoding.DER))

    def open(self, handle: bytes, certificate: bytes) -> Signer:
        key = pki.load_key(self._box.unseal(handle, _CONTEXT))
        assert isinstance(key, rsa.RSAPrivateKey)
        return _SoftwareSigner(RSAKey.import_key(key))


class _SoftwareSigner:
    def __init__(self, key: RSAKey) -> None:
        self._key = key

    async def sign(self, data: bytes) -> bytes:
        return _RS256.sign(data, self._key)
