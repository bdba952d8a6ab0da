"""Entries, signed heads, and what their digests cover."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import private_folder, write_private

GENESIS = bytes(32)


class BadAuditKey(AppError):
    kind, code = Kind.INVALID, "audit.bad-key"


class Entry(msgspec.Struct, frozen=True):
    id: int
    at: datetime
    actor: str
    action: str
    target: str
    outcome: str
    details: dict[str, Any]


class Stored(msgspec.Struct, frozen=True):
    """An entry with its place in the chain, as it is kept and exported; digests in hex."""

    entry: Entry
    previous: str
    digest: str


class Head(msgspec.Struct, frozen=True):
    """A signed statement that the log then had `entries` entries, of which the last has `digest`.
    `previous` is the digest of the head before. Digests and signature are in hex."""

    number: int
    at: datetime
    entries: int
    digest: str
    previous: str
    key_id: str
    signature: str = ""

    def statement(self) -> bytes:
        fields = ["tandem-audit-head-1", self.number, moment(self.at), self.entries]
        return msgspec.json.encode([*fields, self.digest, self.previous, self.key_id])

    def fingerprint(self) -> str:
        return sha256(self.statement()).hexdigest()

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(bytes.fromhex(self.signature), self.statement())
        except (InvalidSignature, ValueError):
            return False
        return True


class Broken(msgspec.Struct, frozen=True):
    """The first entry that does not follow from the one before."""

    id: int


class Problem(msgspec.Struct, frozen=True):
    """What an inspection found. `entry` or `head` says where, 0 when it is the whole."""

    kind: str
    text: str
    entry: int = 0
    head: int = 0


class Signer:
    """Signs heads with an Ed25519 key from a private file. The database never holds it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key()
        self.key_id = key_id(self.public)

    @classmethod
    def generate(cls) -> "Signer":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def open(cls, path: Path) -> "Signer":
        """The signer whose key is in this file; file and folder are made when missing."""
        private_folder(path.parent)
        if not path.exists():
            made = Ed25519PrivateKey.generate()
            pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_private(path, pem)
        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise BadAuditKey(f"{path} holds no Ed25519 key.", cure="Restore it from its backup.")
        return cls(key)

    def public_pem(self) -> str:
        pem = self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem.decode()

    def sign(self, head: Head) -> Head:
        signature = self._key.sign(head.statement()).hex()
        return msgspec.structs.replace(head, signature=signature)


def key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return sha256(raw).hexdigest()[:32]


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """Raises BadAuditKey."""
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BadAuditKey(
            "This is not the public key of an audit log.",
            cure="Take the PEM file that `tandem audit key` wrote.",
        )
    return key


def moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def digest(entry: Entry, previous: bytes) -> bytes:
    fields = [
        entry.id,
        moment(entry.at),
        entry.actor,
        entry.action,
        entry.target,
        entry.outcome,
        _sorted(entry.details),
    ]
    return sha256(previous + msgspec.json.encode(fields)).digest()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
