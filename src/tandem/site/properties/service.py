"""Establish the site once, and give its roles their certificates."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tandem import pki
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols.ccm import SigningIdentity
from tandem.site.properties import store
from tandem.site.properties.model import (
    ROLE_ID_BASE,
    AnotherSite,
    Answering,
    Communication,
    NotEstablished,
    NotRenewable,
    RoleCertificate,
    Site,
    check_site_code,
)

# The role whose certificate the HTTP site systems answer with: with it, enhanced HTTP is on.
SITE_SYSTEMS = "site-systems"

# The admin API's own, which does not come and go with enhanced HTTP.
ADMIN_SERVICE = "admin-service"

_LOCK = 7_311_001
_ROOT, _SIGNING = "issuing-root", "site-server-signing"
_ROOT_DAYS, _SIGNING_DAYS, _ROLE_DAYS = 365 * 20, 365 * 5, 365
# A role's certificate is made anew when less of its life is left.
_RENEW_BEFORE = timedelta(days=60)
_FIRST_ROLE = 5

RoleEnd = tuple[str, datetime]


async def establish(tx: Tx, box: SecretBox, *, code: str, name: str, now: datetime) -> Site:
    """The site of this database, made when there is none. Raises AnotherSite, BadSiteCode."""
    wanted = check_site_code(code)
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    known = await store.site(tx)
    if known is not None:
        if known.code != wanted:
            raise AnotherSite(
                f"This database belongs to site {known.code}, not {wanted}.",
                cure="A site's code never changes: correct the settings, or use another database.",
            )
        return known
    site = Site(wanted, name, ROLE_ID_BASE + _FIRST_ROLE, now)
    await store.insert_site(tx, site)
    root_name = pki.name("SMS Issuing", organizational_unit=f"Site {wanted}")
    root = pki.new_root(root_name, now=now, days=_ROOT_DAYS, key="rsa2048")
    await _save(tx, box, _ROOT, RoleCertificate(root.key, root.certificate))
    await _issue(tx, box, _SIGNING, pki.name("Site Server Signing"), ["code"], now, _SIGNING_DAYS)
    return site


async def site(tx: Tx) -> Site:
    """Raises NotEstablished."""
    found = await store.site(tx)
    if found is None:
        raise NotEstablished("This database holds no site yet.", cure="Start the site role once.")
    return found


async def issuing_root(tx: Tx, box: SecretBox) -> pki.Authority:
    """The site's own authority: it certifies the site's roles and nobody else."""
    found = await _load(tx, box, _ROOT)
    return pki.Authority(found.certificate, found.key)


async def root_certificate(tx: Tx) -> x509.Certificate:
    """What clients trust (SMSPUBLICROOTKEY) and the site systems' certificates chain to."""
    found = await store.credential(tx, _ROOT)
    if found is None:
        raise NotEstablished("This database holds no site yet.", cure="Start the site role once.")
    return x509.load_der_x509_certificate(found[1])


async def enhanced_http(tx: Tx) -> bool:
    """Whether the HTTP site systems have certificates of the site's own making."""
    return await store.credential(tx, SITE_SYSTEMS) is not None


async def signing_identity(tx: Tx, box: SecretBox) -> SigningIdentity:
    """Who signs policy and manifests for the site."""
    found = await _load(tx, box, _SIGNING)
    return SigningIdentity(found.key, found.certificate, await root_certificate(tx))


async def role_certificate(
    tx: Tx,
    box: SecretBox,
    role: str,
    *,
    dns: Iterable[str],
    ips: Iterable[str] = (),
    usages: Iterable[Literal["server", "client"]] = ("server",),
    now: datetime,
) -> RoleCertificate:
    """A role's key and certificate from the issuing root (enhanced HTTP), made when missing, for
    other names than wanted, or near its end."""
    names = [*dns, *ips]
    try:
        known = await _load(tx, box, role)
    except NotEstablished:
        known = None
    if known is not None and _fits(known.certificate, names, now):
        return known
    subject = pki.name(role, organizational_unit="SMS Role SSL Certificate")
    return await _issue(tx, box, role, subject, usages, now, _ROLE_DAYS, dns=dns, ips=ips)


async def renew_role(tx: Tx, box: SecretBox, role: str, now: datetime) -> RoleCertificate:
    """A new key and certificate for a role, for the names and uses that it has; a site that runs
    answers with it within seconds. Raises NotRenewable."""
    if role in {_ROOT, _SIGNING}:
        raise NotRenewable(
            "What clients trust the site by is not renewed while they do.",
            cure="It lasts for years; install clients anew before it ends.",
        )
    found = await store.credential(tx, role)
    if found is None:
        raise NotRenewable(f"No role {role!r} has a certificate.", cure="See `tandem site show`.")
    old = x509.load_der_x509_certificate(found[1])
    names = [
        item
        for extension in old.extensions
        if isinstance(extension.value, x509.SubjectAlternativeName)
        for item in extension.value
    ]
    uses = {
        usage
        for extension in old.extensions
        if isinstance(extension.value, x509.ExtendedKeyUsage)
        for usage in extension.value
    }
    usages: list[Literal["server", "client", "code"]] = []
    if ExtendedKeyUsageOID.SERVER_AUTH in uses:
        usages.append("server")
    if ExtendedKeyUsageOID.CLIENT_AUTH in uses:
        usages.append("client")
    return await _issue(
        tx,
        box,
        role,
        old.subject,
        usages,
        now,
        _ROLE_DAYS,
        dns=[str(item.value) for item in names if isinstance(item, x509.DNSName)],
        ips=[str(item.value) for item in names if isinstance(item, x509.IPAddress)],
    )


async def communication(tx: Tx, *, hold: bool = False) -> Communication:
    """The site's Communication Security, as administrators have set it. `hold`: it stays so until
    this transaction ends."""
    if hold:
        await tx.execute("LOCK TABLE properties_communication IN ROW SHARE MODE")
    return await store.communication(tx)


async def set_communication(tx: Tx, made: Communication) -> None:
    """Without enhanced HTTP the site systems lose the certificate of the site's making."""
    await store.save_communication(tx, made)
    if not made.enhanced_http:
        await store.delete_credential(tx, SITE_SYSTEMS)
        await store.delete_answering(tx, SITE_SYSTEMS)


async def answering(tx: Tx) -> tuple[RoleEnd | None, Answering | None]:
    """The certificate that the site systems have, and the one that they answer with."""
    found = await store.credential(tx, SITE_SYSTEMS)
    known = await store.answering(tx, SITE_SYSTEMS)
    if found is None:
        return None, known
    certificate = x509.load_der_x509_certificate(found[1])
    return (pki.sha256_fingerprint(certificate), certificate.not_valid_after_utc), known


async def answers(tx: Tx, certificate: x509.Certificate | None, now: datetime) -> None:
    """Told by the site that runs: its site systems answer with this certificate, or not at all."""
    if certificate is None:
        await store.delete_answering(tx, SITE_SYSTEMS)
    else:
        await store.save_answering(tx, SITE_SYSTEMS, pki.sha256_fingerprint(certificate), now)


async def role_ends(tx: Tx) -> list[tuple[str, datetime]]:
    """Every role that has a certificate, with its end."""
    return await store.credentials(tx)


def _fits(certificate: x509.Certificate, names: list[str], now: datetime) -> bool:
    if certificate.not_valid_after_utc - now < _RENEW_BEFORE:
        return False
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return not names
    return {str(item.value) for item in held} == set(names)


async def _issue(
    tx: Tx,
    box: SecretBox,
    role: str,
    subject: x509.Name,
    usages: Iterable[Literal["server", "client", "code"]],
    now: datetime,
    days: int,
    dns: Iterable[str] = (),
    ips: Iterable[str] = (),
) -> RoleCertificate:
    root = await issuing_root(tx, box)
    key = pki.generate_key("rsa2048" if role == _SIGNING else "p256")
    certificate = root.issue(
        key.public_key(), subject, now=now, days=days, dns=dns, ips=ips, usages=usages
    )
    made = RoleCertificate(key, certificate)
    await _save(tx, box, role, made)
    return made


async def _save(tx: Tx, box: SecretBox, role: str, made: RoleCertificate) -> None:
    sealed = box.seal(pki.key_pem(made.key), f"properties.{role}")
    der = made.certificate.public_bytes(Encoding.DER)
    await store.save_credential(tx, role, sealed, der, made.certificate.not_valid_after_utc)


async def _load(tx: Tx, box: SecretBox, role: str) -> RoleCertificate:
    found = await store.credential(tx, role)
    if found is None:
        raise NotEstablished("This database holds no site yet.", cure="Start the site role once.")
    key = pki.load_key(box.unseal(found[0], f"properties.{role}"))
    return RoleCertificate(key, x509.load_der_x509_certificate(found[1]))
