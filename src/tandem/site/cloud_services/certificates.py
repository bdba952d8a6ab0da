"""A public certificate for a gateway: name, request, import, export (tutorial 1.1 to 1.4)."""

import contextlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tandem import audit, pki
from tandem.infra.database import Tx
from tandem.infra.net import Resolver
from tandem.infra.secrets import SecretBox
from tandem.site.cloud_services import store
from tandem.site.cloud_services.model import (
    BadServiceName,
    BadSubject,
    CertificateRequest,
    ForeignCertificate,
    IncompletePath,
    NameCheck,
    NameTaken,
    NoSuchCertificate,
    UnusableCertificate,
    deployment_name,
    fold_certificate_name,
)

_FIELDS = ("organization", "organizational_unit", "locality", "state", "country")
_CONTEXT = "cloud.certificate"


async def check_name(
    tx: Tx, asked: str, *, deployment_domain: str, resolver: Resolver
) -> NameCheck:
    """Whether a service name can be used. Nothing is made or reserved. Raises DnsUnavailable."""
    try:
        name = fold_certificate_name(asked)
    except BadServiceName as error:
        return NameCheck(asked, asked, "", False, error.code, error.message, error.cure)
    if name.startswith("*."):  # Of gateways that each have a name of their own.
        return NameCheck(asked, name, "", True)
    deployed = deployment_name(name, deployment_domain)
    notes = [f"{asked.strip()} is written {name}."] if asked.strip() != name else []
    reason = await _taken(tx, name, deployed, resolver)
    cure = "Choose another prefix." if reason else ""
    code = NameTaken.code if reason else ""
    return NameCheck(asked, name, deployed, not reason, code, reason, cure, notes)


async def _taken(tx: Tx, name: str, deployed: str, resolver: Resolver) -> str:
    for gateway in await store.gateways(tx):
        if gateway.service_name == name or gateway.deployment_name == deployed:
            return f"{name} is taken: this site has a gateway {gateway.service_name}."
    if await resolver.lookup(deployed):
        return f"{name} is taken: {deployed} already belongs to a deployment of someone else."
    target = await resolver.cname(name)
    if target is not None and target != deployed:
        return f"{name} is taken: in DNS it is an alias of {target}."
    return ""


async def request(
    tx: Tx,
    box: SecretBox,
    service_name: str,
    subject: Mapping[str, str],
    *,
    actor: str,
    now: datetime,
) -> CertificateRequest:
    """A new RSA 2048 key that stays here, and the request for it: CN and SAN are the name.

    Raises BadServiceName, BadSubject.
    """
    name = fold_certificate_name(service_name)
    parts = {field: subject.get(field, "").strip() for field in _FIELDS}
    _check_subject(parts)
    key = pki.generate_key("rsa2048")
    try:
        csr = pki.certificate_request(key, pki.name(name, **parts), [name])
    except ValueError as error:
        raise BadSubject(f"The request's subject cannot be used: {error}.") from None
    made = CertificateRequest(str(uuid.uuid4()), name, {"common_name": name, **parts}, now, csr)
    await store.insert_request(tx, made, box.seal(pki.key_pem(key), _CONTEXT))
    await _audit(tx, actor, "certificate.request", name, now)
    return made


def _check_subject(parts: Mapping[str, str]) -> None:
    if parts["country"] and (len(parts["country"]) != 2 or not parts["country"].isalpha()):
        raise BadSubject(
            f"{parts['country']!r} is not a country.", cure="Use its two letters, like US or FR."
        )
    for field, value in parts.items():
        if len(value) > 64:
            raise BadSubject(f"The {field.replace('_', ' ')} has more than 64 characters.")


async def certificates(tx: Tx) -> list[CertificateRequest]:
    return await store.requests(tx)


async def certificate(tx: Tx, wanted: str) -> CertificateRequest:
    """By id or service name, the newest of that name. Raises NoSuchCertificate."""
    folded = wanted.strip().lower()
    for item in reversed(await store.requests(tx)):
        if folded in {item.id, item.service_name}:
            return item
    raise NoSuchCertificate(
        f"There is no certificate or request for {wanted!r}.",
        cure="List them: `tandem certificate list`.",
    )


async def import_certificate(
    tx: Tx, box: SecretBox, data: bytes, *, actor: str, now: datetime
) -> CertificateRequest:
    """Pair what the CA sent (PEM, DER, P7B or bundle) with the key that waits for it.

    Raises BadCertificate, ForeignCertificate. A missing intermediate is kept as `missing_issuer`;
    importing it later completes the path. An ACME authority sends no root (RFC 8555, 7.4.2).
    """
    found = pki.read_certificates(data)
    waiting = await store.requests(tx)
    for item in waiting:
        key = pki.load_key(box.unseal(await store.sealed_key(tx, item.id), _CONTEXT))
        leaf = next((c for c in found if _belongs(c, key)), None)
        if leaf is not None:
            pool = [*found, *_chain(item)]
            return await _pair(tx, item, leaf, pool, actor, now)
    for item in waiting:
        if item.certificate is not None and item.missing_issuer:
            leaf = x509.load_der_x509_certificate(item.certificate)
            path = pki.build_path(leaf, [*found, *_chain(item)])
            if len(path.certificates) > 1 + len(_chain(item)):
                return await _pair(tx, item, leaf, path.certificates, actor, now)
    names = ", ".join(c.subject.rfc4514_string() for c in found[:3])
    raise ForeignCertificate(
        f"No key on this server waits for this certificate ({names}).",
        cure="Import it where its request was made, or import a PFX that carries its key.",
    )


def _belongs(certificate: x509.Certificate, key: pki.PrivateKey) -> bool:
    try:
        return pki.same_key(certificate.public_key(), key)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False


def _chain(item: CertificateRequest) -> list[x509.Certificate]:
    return list(pki.read_certificates(item.chain)) if item.chain else []


async def _pair(
    tx: Tx,
    item: CertificateRequest,
    leaf: x509.Certificate,
    pool: Iterable[x509.Certificate],
    actor: str,
    now: datetime,
) -> CertificateRequest:
    path = pki.build_path(leaf, pool)
    _check_name(leaf, item.service_name)
    check_usable(path.certificates, now)
    chain = pki.pem(*path.certificates[1:])
    missing = None if item.acme and chain else path.missing_issuer
    der = leaf.public_bytes(Encoding.DER)
    await store.save_certificate(tx, item.id, der, chain, missing)
    await _audit(tx, actor, "certificate.import", item.service_name, now)
    return await certificate(tx, item.id)


def _check_name(leaf: x509.Certificate, service_name: str) -> None:
    names = certificate_names(leaf)
    domain = "*." + service_name.partition(".")[2]
    if not {service_name, domain} & {name.lower() for name in names}:
        raise ForeignCertificate(
            f"The certificate is for {', '.join(names) or 'no name'}, not for {service_name}.",
            cure="Ask the CA for a certificate with the name of the request.",
        )


def check_usable(path: Sequence[x509.Certificate], now: datetime) -> None:
    """Whether clients will accept a server with this path, the leaf first.

    Raises UnusableCertificate.
    """
    for certificate in path:
        name = certificate.subject.rfc4514_string() or "The certificate"
        if certificate.not_valid_after_utc <= now:
            raise UnusableCertificate(
                f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}.",
                cure="Ask the CA for a new one.",
            )
        if certificate.not_valid_before_utc > now:
            raise UnusableCertificate(
                f"{name} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.",
                cure="Wait until then, or check the clock of the site server.",
            )
    try:
        usages = path[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # Of any use.
    servers = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if servers.isdisjoint(usages):
        raise UnusableCertificate(
            "The certificate is not for servers: its enhanced key usage lacks server authentication.",
            cure="Ask the CA for a server (SSL) certificate.",
        )


def certificate_names(leaf: x509.Certificate) -> list[str]:
    """The host names that it is for, as they are written there."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return list(names.get_values_for_type(x509.DNSName))


async def import_pfx(
    tx: Tx, box: SecretBox, data: bytes, password: str, *, actor: str, now: datetime
) -> CertificateRequest:
    """Take key and certificate that were made elsewhere.

    Raises WrongPassword, BadPfx, ForeignCertificate, UnusableCertificate. A missing intermediate is
    kept as `missing_issuer`; importing it later completes the path.
    """
    pfx = pki.pfx_open(data, password)
    name = _name_of(pfx.certificate)
    path = pki.build_path(pfx.certificate, pfx.chain)
    check_usable(path.certificates, now)
    made = CertificateRequest(
        str(uuid.uuid4()),
        name,
        {"common_name": name},
        now,
        None,
        pfx.certificate.public_bytes(Encoding.DER),
        pki.pem(*path.certificates[1:]),
        path.missing_issuer,
    )
    await store.insert_request(tx, made, box.seal(pki.key_pem(pfx.key), _CONTEXT))
    await _audit(tx, actor, "certificate.import-pfx", made.service_name, now)
    return made


def _name_of(certificate: x509.Certificate) -> str:
    """The service name, or the wildcard, that a certificate is for. Raises ForeignCertificate."""
    names = certificate_names(certificate)
    for name in names:
        with contextlib.suppress(BadServiceName):
            return fold_certificate_name(name)
    for name in names:
        if name.startswith("*."):
            return name.lower()
    raise ForeignCertificate(
        f"The certificate is for {', '.join(names) or 'no host'}: none of it is a service name.",
        cure="Use a certificate for the gateway's service name, like mycmg.contoso.com.",
    )


async def export_pfx(
    tx: Tx, box: SecretBox, wanted: str, password: str, *, actor: str, now: datetime
) -> bytes:
    """Certificate, key and the whole path, protected by the password.

    Raises NoSuchCertificate, IncompletePath, BadSubject for an empty password.
    """
    item, pfx = await pfx_of(tx, box, wanted, password)
    await _audit(tx, actor, "certificate.export", item.service_name, now)
    return pfx


async def pfx_of(
    tx: Tx, box: SecretBox, wanted: str, password: str
) -> tuple[CertificateRequest, bytes]:
    """As `export_pfx`, for use inside the site: nothing leaves it."""
    item = await certificate(tx, wanted)
    if item.certificate is None:
        raise IncompletePath(
            f"The key for {item.service_name} still waits for its certificate.",
            cure="Send the request to your CA, then `tandem certificate import` its answer.",
        )
    if item.missing_issuer:
        raise IncompletePath(
            f"The path of the certificate is incomplete: the certificate of"
            f" {item.missing_issuer} is missing.",
            cure="Import that certificate too: `tandem certificate import`.",
        )
    if not password:
        raise BadSubject("A PFX needs a password.", cure="Give one with --password-file.")
    key = pki.load_key(box.unseal(await store.sealed_key(tx, item.id), _CONTEXT))
    leaf = x509.load_der_x509_certificate(item.certificate)
    return item, pki.pfx_export(key, leaf, _chain(item), password, item.service_name)


async def remove(tx: Tx, wanted: str, *, actor: str, now: datetime) -> CertificateRequest:
    """Forget the working copy, key included. Raises NoSuchCertificate."""
    item = await certificate(tx, wanted)
    await store.delete_request(tx, item.id)
    await _audit(tx, actor, "certificate.remove", item.service_name, now)
    return item


async def _audit(tx: Tx, actor: str, action: str, target: str, now: datetime) -> None:
    await audit.record(tx, actor=actor, action=action, target=target, now=now)


def fold(name: str) -> tuple[str, str]:
    """The folded name, and a note when it was folded."""
    folded = fold_certificate_name(name)
    return folded, "" if folded == name.strip() else f"{name.strip()} is written {folded}."
