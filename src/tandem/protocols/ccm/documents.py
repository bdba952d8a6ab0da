"""What the site signs: policy, client manifest, client notifications and lists of updates.

A JWS whose header carries the signing certificate. It is worth something when that certificate was
issued by the root that the device trusts, for signing, and is valid now. Certificates of the site's
roles come from the same root and are not for signing, so no role can make policy.

What a policy deploys is in it as a JWE (RFC 7516, ECDH-ES and A256GCM) for the device's key, so a
gateway that relays a policy, and whoever copies it, reads no value. The signature is around that:
nothing decrypted is looked at that the site did not sign.
"""

import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from tandem.infra.errors import AppError, Kind
from tandem.protocols.ccm import jws
from tandem.protocols.ccm.model import ClientManifest, Configuration, Policy
from tandem.protocols.ccm.notification import Notifications
from tandem.protocols.ccm.updates import UpdateList

T = TypeVar("T")
Purpose = Literal["policy", "manifest", "notification", "updates"]

_ALGORITHMS = ["ECDH-ES", "A256GCM"]
_READERS = jwe.JWERegistry(algorithms=_ALGORITHMS)
# A policy may deploy more than the library reads by itself; what is read here was signed.
_READERS.max_ciphertext_length = 16 * 1024 * 1024

_KEY_BYTES, _NONCE_BYTES, _TAG_BYTES = 32, 12, 16
# Of the key derivation (RFC 7518, 4.6.2): the content's algorithm, nothing of either side, 256 bits.
_OTHER_INFO = b"\0\0\0\x07A256GCM" + bytes(8) + (8 * _KEY_BYTES).to_bytes(4, "big")


class BadDocument(AppError):
    """Nothing in this document may be acted on."""

    kind, code = Kind.FORBIDDEN, "client.bad-document"


@dataclass(frozen=True)
class SigningIdentity:
    """Who signs for the site. `certificate` has the usage "code" and was issued by `root`."""

    key: jws.PrivateKey
    certificate: x509.Certificate
    root: x509.Certificate


def seal(
    purpose: Purpose,
    document: Policy | ClientManifest | Notifications | UpdateList,
    identity: SigningIdentity,
) -> str:
    """The signed document. A policy cannot be passed off as a manifest nor the other way round."""
    der = identity.certificate.public_bytes(Encoding.DER)
    header: dict[str, Any] = {"typ": f"ccm-{purpose}+jws", "x5c": [b64encode(der).decode()]}
    return jws.serialize(header, msgspec.json.encode(document), identity.key)


def hide(configurations: list[Configuration], key: ec.EllipticCurvePublicKey) -> str:
    """Configurations that only the device with this key can read; empty for none."""
    if not configurations:
        return ""
    once = ec.generate_private_key(ec.SECP256R1())
    point = once.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    epk = {
        "kty": "EC",
        "crv": "P-256",
        "x": jws.b64(point[1:33]),
        "y": jws.b64(point[33:]),
    }
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "typ": "ccm-configurations+jwe", "epk": epk}
    protected = jws.b64(msgspec.json.encode(header))
    derive = ConcatKDFHash(hashes.SHA256(), _KEY_BYTES, _OTHER_INFO)
    content_key = derive.derive(once.exchange(ec.ECDH(), key))
    nonce, plain = os.urandom(_NONCE_BYTES), msgspec.json.encode(configurations)
    sealed = AESGCM(content_key).encrypt(nonce, plain, protected.encode())
    hidden, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    # Direct agreement has no encrypted key (RFC 7518, 4.6).
    return f"{protected}..{jws.b64(nonce)}.{jws.b64(hidden)}.{jws.b64(tag)}"


def _reveal(hidden: str, key: ec.EllipticCurvePrivateKey | None) -> list[Configuration]:
    if key is None:
        raise BadDocument("The policy's settings are encrypted, and there is no key to read them.")
    try:
        plain = jwe.decrypt_compact(hidden, ECKey.import_key(key), registry=_READERS).plaintext
        return msgspec.json.decode(plain or b"", type=list[Configuration])
    except (JoseError, ValueError, msgspec.DecodeError, UnicodeDecodeError):
        raise BadDocument(
            "The policy's settings cannot be decrypted: they were encrypted to another key.",
            cure="The client registers again by itself when its key has changed.",
        ) from None


def open_manifest(sealed: str, root: x509.Certificate, now: datetime) -> ClientManifest:
    """Raises BadDocument."""
    return _open("manifest", sealed, root, now, ClientManifest)


def open_notifications(
    sealed: str, root: x509.Certificate, now: datetime, *, client_id: str
) -> Notifications:
    """Orders for this client that are in force now. Raises BadDocument."""
    found = _open("notification", sealed, root, now, Notifications)
    if found.client_id != client_id:
        raise BadDocument("The notification is meant for another client.", meant=found.client_id)
    if found.expires_at <= now:
        raise BadDocument(
            "The notification is too old.",
            cure="Check the device's clock; the site tells it again.",
        )
    return found


def open_updates(
    sealed: str,
    root: x509.Certificate,
    now: datetime,
    *,
    client_id: str,
    not_before: datetime | None = None,
    expired: bool = False,
) -> UpdateList:
    """What is approved for this client. Raises BadDocument. `not_before` and `expired` as of a policy."""
    found = _open("updates", sealed, root, None if expired else now, UpdateList)
    if found.client_id != client_id:
        raise BadDocument("The list of updates is meant for another client.", meant=found.client_id)
    if found.expires_at <= now and not expired:
        raise BadDocument(
            "The list of updates has expired.",
            cure="Check that the device's clock is right and that the site can be reached.",
        )
    if not_before is not None and found.issued_at < not_before:
        raise BadDocument("The list of updates is older than the one that this client already has.")
    return found


def open_policy(
    sealed: str,
    root: x509.Certificate,
    now: datetime,
    *,
    client_id: str,
    key: ec.EllipticCurvePrivateKey | None = None,
    not_before: datetime | None = None,
    expired: bool = False,
) -> Policy:
    """Policy for this client that is in force now. Raises BadDocument.

    `key` is the device's, and reads what is encrypted to it. `not_before` is when the policy in hand was issued: an older one is a replay. `expired` takes a
    policy whose time is over, and with it a signing certificate whose time is over.
    """
    policy = _open("policy", sealed, root, None if expired else now, Policy)
    if policy.client_id != client_id:
        raise BadDocument("The policy is meant for another client.", policy_for=policy.client_id)
    if policy.expires_at <= now and not expired:
        raise BadDocument(
            "The policy has expired.",
            cure="Check that the device's clock is right and that the site can be reached.",
            expired_at=policy.expires_at.isoformat(),
        )
    if not_before is not None and policy.issued_at < not_before:
        raise BadDocument("The policy is older than the one that this client already has.")
    if not policy.hidden:
        return policy
    shown = [*policy.configurations, *_reveal(policy.hidden, key)]
    return msgspec.structs.replace(policy, configurations=shown, hidden="")


def _open(
    purpose: Purpose, sealed: str, root: x509.Certificate, now: datetime | None, wanted: type[T]
) -> T:
    try:
        header, payload, signing, signature = jws.parse(sealed)
        certificate = x509.load_der_x509_certificate(b64decode(header["x5c"][0], validate=True))
        key = certificate.public_key()
    except Exception:
        # A certificate from outside makes the parsers raise whatever they like.
        raise BadDocument(f"The {purpose} is not signed.") from None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise BadDocument(f"The {purpose} is signed with a kind of key that is not used here.")
    _check_signer(purpose, certificate, root, now)
    if (
        header.get("typ") != f"ccm-{purpose}+jws"
        or header.get("alg") != jws.algorithm(key)
        or not jws.is_signed(key, signature, signing)
    ):
        raise BadDocument(f"The signature of the {purpose} does not fit it.")
    try:
        return msgspec.json.decode(payload, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDocument(f"The {purpose} cannot be read: {error}.") from None


def _check_signer(
    purpose: Purpose, certificate: x509.Certificate, root: x509.Certificate, now: datetime | None
) -> None:
    try:
        certificate.verify_directly_issued_by(root)
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        trusted = ExtendedKeyUsageOID.CODE_SIGNING in usages
    except Exception:
        # Whatever a foreign certificate makes the checks raise, it is not the site's.
        trusted = False
    if not trusted:
        raise BadDocument(
            f"The {purpose} is signed, but not by the site that this device trusts.",
            cure="If the site was rebuilt, install its new client package (SMSPUBLICROOTKEY).",
        )
    if now is None:
        return
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise BadDocument(f"The certificate that signs the {purpose} is not valid now.")
