"""Certificates of devices: issued by a profile, kept one by one, ended by us, listed as revoked.

Sessions are judged by what is kept here, so an end counts at once; the revocation list is for others.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tandem import pki
from tandem.infra.database import Tx
from tandem.tenant.enrollment import certificate_store as store
from tandem.tenant.enrollment.certificate_model import (
    Certificate,
    CertificateProfile,
    NoSuchCertificate,
)
from tandem.tenant.enrollment.model import Device, EnrollmentSettings, NotEnrolled

LIST_PATH = "/EnrollmentServer/DeviceCA.crl"
# A new list is signed when something ended since, and otherwise once a day; never more often than
# once a minute, whatever is asked.
_LIST_AT_LEAST = timedelta(days=1)
_LIST_AT_MOST = timedelta(minutes=1)
_LIST_VALID = timedelta(days=7)
# An end says when its transaction began, and may be committed after a list that is newer.
_ENDS_SETTLE = timedelta(minutes=5)


async def profile(tx: Tx, settings: EnrollmentSettings) -> CertificateProfile:
    """What the administrator chose, or the settings' validity with the usual rest."""
    kept = await store.profile(tx)
    if kept is not None:
        return kept
    days = settings.certificate_days
    renewal = min(60, max(days // 2, 1))
    return CertificateProfile(days, renewal, min(4, renewal))


async def set_profile(tx: Tx, wanted: CertificateProfile) -> None:
    """For certificates from now on; devices keep to what they were told before. Raises BadProfile."""
    wanted.check()
    await store.set_profile(tx, wanted)


def key_sha256(key: pki.PublicKey) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()


def issue(
    authority: pki.Authority,
    key: pki.PublicKey,
    device_id: str,
    by: CertificateProfile,
    *,
    list_url: str,
    now: datetime,
) -> x509.Certificate:
    """A certificate for a device's key. Its name is ours: the device's id (spec 6.3)."""
    return authority.issue(
        key,
        pki.name(device_id),
        now=now,
        days=by.validity_days,
        usages=["client"],
        crl_url=list_url,
    )


async def keep(
    tx: Tx,
    device_id: str,
    made: x509.Certificate,
    key: pki.PublicKey,
    by: CertificateProfile,
    now: datetime,
    *,
    renewal: bool = False,
) -> Certificate:
    """Remember it. One of a renewal is not in use before the device's first session with it."""
    kept = Certificate(
        pki.sha256_fingerprint(made),
        f"{made.serial_number:x}",
        device_id,
        key_sha256(key),
        made.not_valid_before_utc,
        made.not_valid_after_utc,
        by.renewal_days,
        "issued" if renewal else "active",
        "",
        now,
    )
    await store.insert(tx, kept)
    if not renewal:
        await store.use(tx, device_id, kept.fingerprint, kept.not_after, now)
    return kept


async def of(tx: Tx, *device_ids: str) -> list[Certificate]:
    """The newest first."""
    return await store.of(tx, device_ids)


async def holder(tx: Tx, certificate: bytes | None, now: datetime) -> tuple[Device, Certificate]:
    """The device that a certificate in DER is of, if it counts: by our own records, at once.

    It proves nothing of who sent it; that is TLS's or a signature's. Raises NotEnrolled, which does
    not tell an unknown certificate from one that ended.
    """
    fingerprint = pki.sha256_fingerprint(certificate) if certificate is not None else ""
    return await _counting(tx, fingerprint, now)


async def _counting(tx: Tx, fingerprint: str, now: datetime) -> tuple[Device, Certificate]:
    found = await store.holder(tx, fingerprint) if fingerprint else None
    if found is None or found[0].state == "unenrolled" or not found[1].usable(now):
        raise NotEnrolled("This device is not enrolled.")
    return found


async def left(tx: Tx, certificate: bytes, source: str, now: datetime) -> Device | None:
    """The device that once held this certificate here and is not enrolled any more."""
    found = await store.holder(tx, pki.sha256_fingerprint(certificate))
    if found is None or found[0].state != "unenrolled" or found[0].windows_id != source:
        return None
    return found[0] if found[1].not_after > now else None


async def used(tx: Tx, device: Device, certificate: Certificate, now: datetime) -> bool:
    """A session came with it. The first one with a renewed certificate ends the others (spec 8).

    Raises NotEnrolled where it, or the enrollment, was ended meanwhile.
    """
    if certificate.state != "issued":
        return False
    await store.lock_device(tx, device.id)
    _, held = await _counting(tx, certificate.fingerprint, now)
    if held.state != "issued":
        return False
    await store.use(tx, device.id, certificate.fingerprint, certificate.not_after, now)
    await store.end(tx, device.id, "superseded", "superseded", now, but=certificate.fingerprint)
    return True


async def end_all(tx: Tx, device_id: str, reason: str, now: datetime) -> int:
    """The enrollment is over."""
    return await store.end(tx, device_id, "revoked", reason, now)


async def supersede(tx: Tx, device_id: str, fingerprints: Sequence[str], now: datetime) -> None:
    await store.end(tx, device_id, "superseded", "superseded", now, only=fingerprints)


async def revoke(
    tx: Tx, device: Device, fingerprint: str, reason: str, now: datetime
) -> Certificate:
    """An administrator takes a certificate back: no session and no renewal with it from now on.

    What has ended already is left as it is. Raises NoSuchCertificate.
    """
    await store.lock_device(tx, device.id)
    wanted = fingerprint.strip().lower()
    found = [
        one for one in await of(tx, device.id) if wanted and wanted in (one.fingerprint, one.serial)
    ]
    if not found:
        raise NoSuchCertificate(
            f"{device.name} has no certificate {fingerprint[:64]!r}.",
            cure="Take the fingerprint or the serial number from the list of its certificates.",
        )
    (one,) = found
    await store.end(tx, device.id, "revoked", reason, now, only=[one.fingerprint])
    await store.disuse(tx, device.id, one.fingerprint)
    return next(item for item in await of(tx, device.id) if item.fingerprint == one.fingerprint)


async def revocation_list(tx: Tx, authority: pki.Authority, now: datetime) -> bytes:
    """The list in DER (RFC 5280): signed when it is asked for, and kept until something ends."""
    kept = await store.revocation_list(tx)
    if kept is not None and await _is_fresh(tx, kept[2], now):
        return kept[0]
    await store.lock_revocation_list(tx)
    kept = await store.revocation_list(tx)
    if kept is not None and await _is_fresh(tx, kept[2], now):
        return kept[0]
    number = kept[1] + 1 if kept is not None else 1
    made = authority.crl(
        await store.ended(tx, now), now=now, next_update=now + _LIST_VALID, number=number
    )
    await store.save_revocation_list(tx, made, number, now)
    return made


async def _is_fresh(tx: Tx, made_at: datetime, now: datetime) -> bool:
    age = now - made_at
    if abs(age) < _LIST_AT_MOST:
        return True
    last = await store.last_end(tx)
    settled = last is None or last + _ENDS_SETTLE < made_at
    # A list of the future: the clock was put back, and what ended since looks older than it.
    return timedelta() <= age < _LIST_AT_LEAST and settled
