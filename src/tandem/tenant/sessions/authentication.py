"""Who is calling: a device by its certificate, its signature or its secret (section 11.7).

certificate in the TLS handshake        →  level 1
MDM-Signature: CMS over the body        →  level 2, through any proxy
Cred syncml:auth-md5 over our nonce     →  level 3, the floor: no secrets go to it
nothing, or what does not fit           ←  407 or 401 with a challenge, the same for everybody

Nonces are made from the second in which they are given, so that asking for them keeps nothing, for
a known device or another; what was answered once is not taken again, nor anything before it.
"""

import binascii
import hmac
import secrets
from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from tandem import pki
from tandem.infra.database import Tx
from tandem.protocols.syncml import Challenge, Message
from tandem.tenant.enrollment import Device, Enrollment, NotEnrolled, SessionSecrets, auth_md5
from tandem.tenant.sessions import course, store
from tandem.tenant.sessions.store import Session

MD5 = "syncml:auth-md5"
# Missing credentials, and wrong ones (section 11.4).
MISSING, WRONG = 407, 401
_NONCE_SECONDS = 300
# How many challenges of one second can be told apart.
_AHEAD_SECONDS = 5
# A session whose device proved itself once goes on without that as long as it is not idle.
_IDLE = timedelta(minutes=10)
# The signature says when it was made: one that somebody kept is worth nothing later.
_SIGNED_WITHIN = timedelta(minutes=10)
_SIGNATURE_CHARACTERS = 64 * 1024
_NOBODY = SessionSecrets(bytes(16), bytes(16), bytes(16))


@dataclass(frozen=True, slots=True)
class Peer:
    """What came with a message: the certificate of the handshake, the MDM-Signature header, the
    body that it is over, and where it came from (address and port; empty behind a proxy, whose
    connections are not one device's)."""

    certificate: bytes | None = None
    signature: str = ""
    body: bytes = b""
    connection: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """`device` is None when the message is to be answered with `code` and `challenge` alone.

    `challenge` beside a device holds the nonce for its next session. `anew`: it proved itself with
    this very message.
    """

    device: Device | None
    level: int = course.CERTIFICATE
    code: int = 200
    challenge: Challenge | None = None
    anew: bool = False


class Authentication:
    def __init__(self, enrollment: Enrollment, secret: bytes) -> None:
        self._enrollment = enrollment
        self._secret = hmac.digest(secret, b"tandem mdm session nonces", "sha256")

    async def prove(self, tx: Tx, peer: Peer, message: Message, now: datetime) -> Proof:
        """Raises NotEnrolled for a certificate or signature that is nobody's here."""
        certificate = proven(peer, now)
        if certificate is not None:
            device = await self._enrollment.authenticate(tx, certificate, message.source)
            signed = peer.certificate is None
            return Proof(device, course.SIGNATURE if signed else course.CERTIFICATE)
        return await self._by_digest(tx, peer, message, now)

    async def _by_digest(self, tx: Tx, peer: Peer, message: Message, now: datetime) -> Proof:
        if not message.source or len(message.source) > 128:
            raise NotEnrolled("This device is not enrolled.")
        found = await self._enrollment.session_secrets(tx, message.source)
        device, kept = found if found is not None else (None, _NOBODY)
        session = await store.session(tx, device.id if device is not None else message.source)
        given = message.credential
        if given is None:
            if device is not None and _goes_on(session, peer, message, now):
                return Proof(device, course.DIGEST)
            return self._asking(message, MISSING, kept, now)
        accepted = self._accepted(kept, message, now)
        if device is None or accepted is None:
            return self._asking(message, WRONG, kept, now)
        nonce = secrets.token_bytes(16)
        await self._enrollment.session_accepted(tx, device, accepted, nonce)
        # Where no connection is the device's own, each message needs a credential.
        code = 212 if peer.connection else 200
        return Proof(device, course.DIGEST, code, Challenge(MD5, nonce), anew=True)

    def _asking(self, message: Message, code: int, kept: SessionSecrets, now: datetime) -> Proof:
        # Two challenges within a second are two: the second one is that of the next second.
        second = max(int(now.timestamp()), kept.accepted + 1)
        nonce = self._nonce(message.source, second)
        return Proof(None, course.DIGEST, code, Challenge(MD5, nonce))

    def _nonce(self, source: str, second: int) -> bytes:
        return hmac.digest(self._secret, f"{second}\n{source}".encode(), "sha256")[:16]

    def _accepted(self, kept: SessionSecrets, message: Message, now: datetime) -> int | None:
        """The second of the challenge that this credential answers; None when it answers none.

        The nonce of the session before counts once, whenever that was. All that could be meant is
        compared, so the time it takes says nothing.
        """
        assert message.credential is not None
        if message.credential.type != MD5:
            return None  # BASIC would send the secret itself (section 20).
        try:
            given = b64decode(message.credential.data)
        except (binascii.Error, ValueError):
            return None
        at = int(now.timestamp())
        found: int | None = None
        for second in range(at - _NONCE_SECONDS, at + _AHEAD_SECONDS):
            expected = b64decode(auth_md5(kept.device, self._nonce(message.source, second)))
            if hmac.compare_digest(expected, given) and second > kept.accepted:
                found = second
        expected = b64decode(auth_md5(kept.device, kept.nonce))
        if hmac.compare_digest(expected, given):
            found = max(found or 0, kept.accepted)
        return found


def proven(peer: Peer, now: datetime) -> bytes | None:
    """The certificate whose key the sender holds: in the handshake, or by its signature.

    None when there is neither. Raises NotEnrolled for a signature that does not hold, or not now.
    """
    if peer.certificate is not None or not peer.signature:
        return peer.certificate
    refused = NotEnrolled("This device is not enrolled.", claimed="signature")
    if len(peer.signature) > _SIGNATURE_CHARACTERS:
        raise refused
    try:
        signed = pki.read_signed(b64decode(peer.signature), peer.body)
    except (pki.BadSignature, binascii.Error, ValueError):
        raise refused from None
    at, certificate = signed.signed_at, signed.certificate
    if at is None or abs(now - at) > _SIGNED_WITHIN:
        raise refused
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise refused
    return certificate.public_bytes(Encoding.DER)


def _goes_on(session: Session | None, peer: Peer, message: Message, now: datetime) -> bool:
    """Whether it is the next message, or the last one again, of a session that began with a proof,
    over the same connection: then none is needed (section 11.7, status 212)."""
    return (
        session is not None
        and session.course.level == course.DIGEST
        and bool(session.course.connection)
        and session.course.connection == peer.connection
        and session.session == message.session
        and message.number in (session.number, session.number + 1)
        and now - session.changed_at <= _IDLE
    )
