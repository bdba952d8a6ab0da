"""Whom the site believes about clients' certificates: authorities, and their revocation lists.

Every gateway is given both, and the site itself asks by them what a client shows it.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tandem import audit, pki
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.site import properties
from tandem.site.cloud_services import store
from tandem.site.cloud_services.model import Gateway


class OlderList(AppError):
    """It would let in again who was revoked since."""

    kind, code = Kind.CONFLICT, "trust.older-list"


async def add_root(tx: Tx, data: bytes, *, actor: str, now: datetime) -> list[str]:
    """Trust these certificates of clients' authorities. Raises BadCertificate."""
    added = []
    for certificate in pki.read_certificates(data):
        subject = certificate.subject.rfc4514_string()
        await store.add_trust(tx, "root", subject, certificate.public_bytes(Encoding.DER), now)
        await audit.record(tx, actor=actor, action="gateway.trust-root", target=subject, now=now)
        added.append(subject)
    return added


async def add_crl(tx: Tx, data: bytes, *, actor: str, now: datetime) -> str:
    """A revocation list of such an authority, in place of its older one. Raises BadCertificate,
    OlderList."""
    crl = pki.read_crl(data)
    issuer = crl.issuer.rfc4514_string()
    of_this_name = [one for one in await _roots(tx) if one.subject == crl.issuer]
    if of_this_name and not any(pki.signed_by(crl, one) for one in of_this_name):
        raise pki.BadCertificate(
            f"The list names {issuer}, and no uploaded authority of this name has signed it.",
            cure="Take the CRL file from that authority itself; after it got a new key, upload its"
            " new certificate first.",
        )
    for row in await store.trusted(tx, "crl"):
        kept = x509.load_der_x509_crl(bytes(row["der"]))
        if kept.issuer != crl.issuer or _key_of(kept) != _key_of(crl):
            continue
        given, newer = (f"{one.last_update_utc:%Y-%m-%d %H:%M}" for one in (crl, kept))
        if kept.last_update_utc > crl.last_update_utc:
            raise OlderList(
                f"The list of {issuer} is of {given} UTC, and the site has one of {newer} UTC.",
                cure="Take the authority's newest CRL.",
            )
        await store.delete_trust(tx, "crl", row["id"])
    await store.add_trust(tx, "crl", issuer, crl.public_bytes(Encoding.DER), now)
    await audit.record(tx, actor=actor, action="gateway.add-crl", target=issuer, now=now)
    return issuer


def _key_of(crl: x509.CertificateRevocationList) -> bytes | None:
    """An authority that got a new key goes on with two lists of one name."""
    try:
        found = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.key_identifier


async def verify_client_certificate(tx: Tx, leaf: x509.Certificate, now: datetime) -> None:
    """Whether this speaks for a client of the site, by the same trust as at the gateway. Raises
    NotAClient."""
    how = await properties.communication(tx)
    if not how.pki_client_certificate:
        raise pki.NotAClient(
            "This site takes no client certificates.",
            cure="Register with a token, or allow them in the site's properties"
            " (Communication Security).",
            reason=pki.Reason.UNWANTED,
        )
    path = pki.client_path(leaf, await _roots(tx), now)
    if how.check_crl:
        (await _revocations(tx)).check(path, now)


async def alarms(tx: Tx, gateway: Gateway, now: datetime) -> list[pki.RevocationAlarm]:
    """What is wrong with the revocation lists of this gateway, while it lets in clients with
    certificates and looks at them."""
    asked = gateway.check_revocation and (await properties.communication(tx)).pki_client_certificate
    return (await _revocations(tx)).alarms(now) if asked else []


async def trusted(tx: Tx) -> dict[str, list[dict[str, Any]]]:
    """Roots and revocation lists by whose they are, and until when they count."""
    lists = [x509.load_der_x509_crl(der) for der in await store.trust(tx, "crl")]
    return {
        "roots": [
            {
                "subject": item.subject.rfc4514_string(),
                "sha256": pki.sha256_fingerprint(item),
                "expires_at": item.not_valid_after_utc,
            }
            for item in await _roots(tx)
        ],
        "crls": [
            {"issuer": item.issuer.rfc4514_string(), "next_update_at": item.next_update_utc}
            for item in lists
        ],
    }


async def _roots(tx: Tx) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(der) for der in await store.trust(tx, "root")]


async def _revocations(tx: Tx) -> pki.Revocations:
    return _read(tuple(await store.trust(tx, "root")), tuple(await store.trust(tx, "crl")))


@lru_cache(maxsize=2)
def _read(roots: tuple[bytes, ...], crls: tuple[bytes, ...]) -> pki.Revocations:
    """A list of an authority may have many thousands of entries, and changes once a week."""
    return pki.Revocations(
        [x509.load_der_x509_certificate(der) for der in roots],
        [x509.load_der_x509_crl(der) for der in crls],
    )
