"""Secrets at rest: private files, and sealing of values that go into a database."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tandem.infra.errors import AppError, Kind

_NONCE_BYTES = 12


class Unsealable(AppError):
    """The value was sealed with another key or for another purpose, or it was altered."""

    kind, code = Kind.UNAVAILABLE, "secret.unsealable"


def private_folder(path: Path) -> Path:
    """The folder, made when missing, readable by its owner alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) != 0o700:  # A read-only disk refuses even what is so.
        path.chmod(0o700)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, all or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


class SecretBox:
    """AES-256-GCM under one key in a private file.

    `context` says what the secret is for ("oidc.signing-key"). It is authenticated, so a sealed
    value moved to another column cannot be opened there.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, path: Path) -> "SecretBox":
        """The box whose key is in this file; file and folder are made when missing."""
        private_folder(path.parent)
        if not path.exists():
            write_private(path, AESGCM.generate_key(256))
        return cls(path.read_bytes())

    def seal(self, data: bytes, context: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, context.encode())

    def unseal(self, sealed: bytes, context: str) -> bytes:
        nonce, body = bytes(sealed[:_NONCE_BYTES]), bytes(sealed[_NONCE_BYTES:])
        try:
            return self._cipher.decrypt(nonce, body, context.encode())
        except (InvalidTag, ValueError):
            raise Unsealable(
                "A stored secret cannot be opened.",
                cure="Restore the key file that belongs to this database from its backup.",
                context=context,
            ) from None
