"""Whether a certificate speaks for a client: its path, its use, its time, its revocation."""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tandem.infra.errors import AppError, Kind
from tandem.pki.bundles import build_path, sha256_fingerprint


class NotAClient(AppError):
    """The certificate does not speak for a client here."""

    kind, code = Kind.FORBIDDEN, "certificate.not-a-client"


def check_client(
    leaf: x509.Certificate,
    trusted: Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList] | None,
    now: datetime,
) -> None:
    """`trusted` are roots and the authorities between; `crls` is None when revocation is not
    looked at. Raises NotAClient."""
    path = build_path(leaf, trusted).certificates
    roots = {sha256_fingerprint(one) for one in trusted}
    if len(path) < 2 or sha256_fingerprint(path[-1]) not in roots:
        raise NotAClient(
            "The client's certificate is not of an authority that this site trusts.",
            cure="Upload the authority's certificates to the site (trusted root certificates).",
        )
    if not _for_clients(leaf):
        raise NotAClient(
            "The certificate is not for clients: it has not the usage client authentication.",
            cure="Issue one from a template for client authentication.",
        )
    if not all(one.not_valid_before_utc <= now <= one.not_valid_after_utc for one in path):
        raise NotAClient(
            "The client's certificate, or one above it, is not valid now.",
            cure="Renew it; check that the clock of the device is right.",
        )
    if crls is not None:
        _check_revocation(leaf, path[1], crls, now)


def _for_clients(leaf: x509.Certificate) -> bool:
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages


def _check_revocation(
    leaf: x509.Certificate,
    issuer: x509.Certificate,
    crls: Sequence[x509.CertificateRevocationList],
    now: datetime,
) -> None:
    name = leaf.issuer.rfc4514_string()
    for crl in crls:
        if crl.issuer != leaf.issuer or not crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]
            continue
        if crl.next_update_utc is not None and crl.next_update_utc < now:
            raise NotAClient(
                f"The certificate revocation list of {name} has expired.",
                cure="Upload a newer CRL of this authority.",
            )
        if crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None:
            raise NotAClient(
                "The client's certificate is revoked.", cure="Give the device a new certificate."
            )
        return
    raise NotAClient(
        f"The certificate revocation list (CRL) of {name} is missing at the site.",
        cure="Upload this authority's CRL, or switch the check off in the site's properties.",
    )
