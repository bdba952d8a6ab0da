"""The secrets of an account: by them device and service prove themselves without a certificate.

The provisioning document gives the device both (APPAUTH, section 7). Kept is what checks them, MD5
of name and secret (section 11.7), sealed; and the nonce that the device was given last.
"""

import secrets
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5

from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox

_CONTEXT = "enrollment.session-secrets"
_MD5_BYTES = 16


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """`device` and `service` are MD5 of name and secret. `accepted` is the challenge (its second)
    that was answered last: no earlier one is taken again. `nonce`: for the next first message."""

    device: bytes
    service: bytes
    nonce: bytes
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """What the provisioning document says: name, secrets in the clear, first nonces."""

    name: str
    device_secret: str
    device_nonce: bytes
    service_secret: str
    service_nonce: bytes

    def kept(self, provider_id: str) -> SessionSecrets:
        return SessionSecrets(
            hashed(self.name, self.device_secret),
            hashed(provider_id, self.service_secret),
            self.device_nonce,
        )


def new_account(name: str) -> Account:
    return Account(
        name,
        secrets.token_urlsafe(24),
        secrets.token_bytes(16),
        secrets.token_urlsafe(24),
        secrets.token_bytes(16),
    )


def hashed(name: str, secret: str) -> bytes:
    return md5(f"{name}:{secret}".encode(), usedforsecurity=False).digest()


def digest(kept: bytes, nonce: bytes) -> str:
    """syncml:auth-md5 over this nonce, as it is in a Cred (section 11.7)."""
    inner = b64encode(kept) + b":" + nonce
    return b64encode(md5(inner, usedforsecurity=False).digest()).decode()


async def insert(tx: Tx, box: SecretBox, device_id: str, kept: SessionSecrets) -> None:
    await tx.execute(
        "INSERT INTO enrollment_session_secret (device_id, sealed, nonce) VALUES (%s, %s, %s)",
        (device_id, box.seal(kept.device + kept.service, _CONTEXT), kept.nonce),
    )


def opened(box: SecretBox, row: Mapping[str, object]) -> SessionSecrets:
    plain = box.unseal(bytes(row["sealed"]), _CONTEXT)  # type: ignore[call-overload]
    return SessionSecrets(
        plain[:_MD5_BYTES],
        plain[_MD5_BYTES:],
        bytes(row["nonce"]),  # type: ignore[call-overload]
        int(row["accepted"]),  # type: ignore[call-overload]
    )


async def find(tx: Tx, device_id: str) -> Mapping[str, object] | None:
    return await (
        await tx.execute(
            "SELECT sealed, nonce, accepted FROM enrollment_session_secret WHERE device_id = %s",
            (device_id,),
        )
    ).fetchone()


async def accept(tx: Tx, device_id: str, accepted: int, nonce: bytes) -> None:
    await tx.execute(
        "UPDATE enrollment_session_secret SET accepted = greatest(accepted, %s), nonce = %s"
        " WHERE device_id = %s",
        (accepted, nonce, device_id),
    )
