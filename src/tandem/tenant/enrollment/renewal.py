"""Renewal of a device's certificate without its user (spec 8).

    → RequestSecurityToken Renew: a new request, in a CMS signature of the old key
    ← provisioning document: the new certificate, and which account it is of
    → a session with the new certificate: the old one ends

The signature is the proof. What the header says proves nothing, and a certificate is public: neither
is taken for more than what it has to agree with.
"""

from base64 import b64decode
from binascii import Error as BadBase64
from dataclasses import dataclass

from tandem import audit, pki
from tandem.infra import events
from tandem.infra.database import Tx
from tandem.protocols import soap
from tandem.tenant.enrollment import certificate_store, certificates, provisioning
from tandem.tenant.enrollment.certificate_model import Certificate
from tandem.tenant.enrollment.model import Device, RenewalRefused
from tandem.tenant.enrollment.service import Enrollment

_CURE = "Have the device enrol again."


def is_asked(asked: soap.RequestToken) -> bool:
    return asked.request_type.rpartition("/")[2] == "Renew"


@dataclass(frozen=True)
class Claim:
    """What a renewal is asked with: whose certificate signed, what was signed, and from where."""

    fingerprint: str
    request: bytes
    upn: str
    address: str = ""


def claim(
    envelope: soap.Envelope, asked: soap.RequestToken, peer: bytes | None, address: str = ""
) -> Claim:
    """The signature of a renewal, checked. Raises RenewalRefused, BadSecurity, BadSignature.

    `peer` is the certificate of the connection, where it has one: it has to be the signer's.
    """
    if asked.sort != "PKCS7":
        raise RenewalRefused("A renewal is signed with the key it renews.", cure=_CURE)
    if len(envelope.credentials) != 1 or envelope.credentials[0].kind != "password":
        raise soap.BadSecurity("a renewal names its user")
    try:
        # Its content is no secret and its signer's own request, so that SHA-1, which older machines
        # sign with, gives nobody anything: a forger would need a second preimage.
        signed = pki.read_signed(asked.request, sha1=True)
    except pki.NotSigned:
        raise RenewalRefused("A renewal is signed with the key it renews.", cure=_CURE) from None
    fingerprint = pki.sha256_fingerprint(signed.certificate)
    if peer is not None and pki.sha256_fingerprint(peer) != fingerprint:
        raise RenewalRefused(
            "The renewal is signed with another certificate than the connection's.", cure=_CURE
        )
    name = envelope.credentials[0].user_name
    return Claim(fingerprint, _once_more(signed.content), name, address)


def _once_more(content: bytes) -> bytes:
    """Manual renewals encode the request once more (spec 8)."""
    if content[:1] == b"\x30":
        return content
    try:
        return b64decode(b"".join(content.split()), validate=True)
    except (BadBase64, ValueError):
        return content


async def renew(tx: Tx, enrollment: Enrollment, asked: Claim) -> soap.TokenResponse:
    """A certificate for a new key of an enrolled device. The old one counts until the device's first
    session with the new one. Raises BadSignature, RenewalRefused, BadRequest.
    """
    now = enrollment.now()
    found = await certificate_store.holder(tx, asked.fingerprint)
    if found is None:
        # Of another service, or made up: nobody here is known by it.
        raise pki.BadSignature("The renewal is signed with no certificate of this service.")
    await certificate_store.lock_device(tx, found[0].id)
    found = await certificate_store.holder(tx, asked.fingerprint)
    assert found is not None
    device, old = found
    profile = await certificates.profile(tx, enrollment.settings)
    _may(device, old, asked, profile.renewal_days, enrollment)
    key = pki.windows_request(asked.request)
    waiting = [one for one in await certificates.of(tx, device.id) if one.state == "issued"]
    known = await certificate_store.key_is_known(tx, certificates.key_sha256(key))
    if any(one not in waiting for one in known):
        raise pki.BadRequest("A renewal needs a key of its own: this one is certified already.")
    # The answer to an earlier one was lost: what it brought is not to be used any more.
    if unused := [one.fingerprint for one in waiting if one.fingerprint != old.fingerprint]:
        await certificates.supersede(tx, device.id, unused, now)
    authority = await enrollment.authority(tx)
    made = certificates.issue(
        authority, key, device.id, profile, list_url=enrollment.revocation_list_url, now=now
    )
    kept = await certificates.keep(tx, device.id, made, key, profile, now, renewal=True)
    await enrollment.note(
        tx,
        device,
        "certificate",
        f"Renewed its certificate; the new one ends on {kept.not_after:%Y-%m-%d}",
    )
    await events.record(tx, "device.certificate-renewed", device.id, {"serial": kept.serial})
    await _audit(tx, enrollment, device, asked, "done", {"renewed": kept.fingerprint})
    return soap.TokenResponse(provisioning.renewal(device, enrollment.settings, made), now)


def _may(
    device: Device, old: Certificate, asked: Claim, renewal_days: int, enrollment: Enrollment
) -> None:
    """Raises RenewalRefused."""
    now = enrollment.now()
    if device.state != "enrolled" or old.state not in {"issued", "active"}:
        raise RenewalRefused("The certificate does not count any more.", cure=_CURE)
    if now >= old.not_after:
        raise RenewalRefused("The certificate has ended.", cure=_CURE)
    if asked.upn.casefold() != device.upn.casefold():
        raise RenewalRefused("The device is enrolled by another user.", cure=_CURE)
    if now < old.renews_at(renewal_days):
        raise RenewalRefused(
            "It is too early to renew this certificate.",
            cure=f"It can be renewed from {old.renews_at(renewal_days):%Y-%m-%d} on.",
        )


async def refused(tx: Tx, enrollment: Enrollment, asked: Claim, text: str, code: str) -> None:
    """A refusal goes into the device's timeline, where its administrator looks."""
    found = await certificate_store.holder(tx, asked.fingerprint)
    if found is not None:
        await enrollment.note(tx, found[0], "renewal-refused", text, code)
        await _audit(
            tx, enrollment, found[0], asked, "refused", {"code": code, "reason": text[:1000]}
        )


async def _audit(
    tx: Tx,
    enrollment: Enrollment,
    device: Device,
    asked: Claim,
    outcome: audit.Outcome,
    more: dict[str, str],
) -> None:
    await audit.record(
        tx,
        actor=f"device:{device.id}",
        action="renew certificate",
        target=device.id,
        outcome=outcome,
        details={"certificate": asked.fingerprint, "address": asked.address, **more},
        now=enrollment.now(),
    )
