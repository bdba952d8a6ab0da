"""The site's Communication Security (spec 2.4): what its site systems answer with, whom they trust.

What each setting does here:

    enhanced HTTP           on: the site issues the certificate of its site systems, and the
                            management point answers with it. Off: it is taken away, and the
                            management point closes its listener.
    PKI client certificate  on: gateways publish the endpoints for clients with certificates, too.
    trusted roots           whose certificates gateways take from such clients.
    CRL check of clients    kept; without effect in this version: the certificates that the site
                            issues name no revocation list.
    HTTPS only              refused: the management point has no certificate of a PKI of your own.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from cryptography import x509

from tandem import audit, pki
from tandem.infra import http
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.site import properties, software_updates
from tandem.site.cloud_services import store

HTTPS_OR_HTTP, HTTPS_ONLY = "https-or-http", "https-only"


class NoSuchRoot(AppError):
    kind, code = Kind.NOT_FOUND, "trust.no-such-root"


async def shape(tx: Tx) -> dict[str, Any]:
    """Settings, roots, and how far the management point is with its certificate."""
    kept = await properties.communication(tx)
    issued, answering = await properties.answering(tx)
    if issued is None:
        state = "waits" if kept.enhanced_http else "closed"
    else:
        state = "answers" if answering and answering.fingerprint == issued[0] else "waits"
    return {
        "site_systems": HTTPS_OR_HTTP,
        "enhanced_http": kept.enhanced_http,
        "pki_client_certificate": kept.pki_client_certificate,
        "check_crl": kept.check_crl,
        "changed_at": kept.changed_at,
        "changed_by": kept.changed_by,
        "without_effect": ["check_crl"],
        "trusted_roots": [_root(row) for row in await store.trusted(tx, "root")],
        "management_point": {
            "state": state,
            "sha256": issued[0] if issued else "",
            "expires_at": issued[1] if issued else None,
            "since": answering.since if state == "answers" and answering else None,
        },
    }


def version(found: dict[str, Any]) -> str:
    """The ETag of what administrators set; how far the management point is does not count."""
    return http.version_of({k: v for k, v in found.items() if k != "management_point"})


def _root(row: dict[str, Any]) -> dict[str, Any]:
    certificate = x509.load_der_x509_certificate(bytes(row["der"]))
    return {
        "id": row["id"],
        "subject": certificate.subject.rfc4514_string(),
        "sha256": pki.sha256_fingerprint(certificate),
        "expires_at": certificate.not_valid_after_utc,
        "added_at": row["added_at"],
    }


async def change(
    tx: Tx,
    *,
    site_systems: str | None,
    enhanced_http: bool | None,
    pki_client_certificate: bool | None,
    check_crl: bool | None,
    actor: str,
    now: datetime,
) -> None:
    """What is None stays. Raises NeedsOwnCertificates, GatewayNeedsIt."""
    if site_systems not in (None, HTTPS_OR_HTTP):
        raise properties.NeedsOwnCertificates(
            "HTTPS only needs a certificate of your own PKI on the management point; this version"
            " has those of the site alone.",
            cure="Keep HTTPS or HTTP: with enhanced HTTP every answer is HTTPS.",
            field="site_systems",
        )
    before = await properties.communication(tx)
    given: dict[str, Any] = {
        "enhanced_http": enhanced_http,
        "pki_client_certificate": pki_client_certificate,
        "check_crl": check_crl,
    }
    made = replace(before, **{k: v for k, v in given.items() if v is not None})
    if before.enhanced_http and not made.enhanced_http and await store.gateway_traffic_allowed(tx):
        raise properties.GatewayNeedsIt(
            "The management point takes gateway traffic, and needs its certificate for it.",
            cure="Deny gateway traffic on the management point first.",
            field="enhanced_http",
        )
    if (
        before.enhanced_http
        and not made.enhanced_http
        and (await software_updates.point(tx)).allowed
    ):
        raise properties.GatewayNeedsIt(
            "The software update point takes gateway traffic, and needs the certificate for it.",
            cure="Deny gateway traffic on the software update point first.",
            field="enhanced_http",
        )
    for name in given:
        was, wanted = getattr(before, name), getattr(made, name)
        if was != wanted:
            action = f"site.{'enable' if wanted else 'disable'}-{name.replace('_', '-')}"
            await audit.record(tx, actor=actor, action=action, target="site", now=now)
    if (before.enhanced_http, before.pki_client_certificate, before.check_crl) != (
        made.enhanced_http,
        made.pki_client_certificate,
        made.check_crl,
    ):
        await properties.set_communication(tx, replace(made, changed_at=now, changed_by=actor))


async def remove_root(tx: Tx, id: int, *, actor: str, now: datetime) -> None:
    """Raises NoSuchRoot."""
    known = {row["id"]: row for row in await store.trusted(tx, "root")}
    if id not in known or not await store.delete_trust(tx, "root", id):
        raise NoSuchRoot("There is no such trusted root.", cure="Read the list again.")
    subject = _root(known[id])["subject"]
    await audit.record(tx, actor=actor, action="gateway.distrust-root", target=subject, now=now)
