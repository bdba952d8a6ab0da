"""A certification authority: a root of our own, what it issues, what it revokes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tandem.pki.keys import KeyKind, PrivateKey, PublicKey, generate_key

Usage = Literal["server", "client", "code", "ocsp"]

_USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code": ExtendedKeyUsageOID.CODE_SIGNING,
    "ocsp": ExtendedKeyUsageOID.OCSP_SIGNING,
}
# New machines have wrong clocks: a certificate that starts now would not yet be valid for them.
_SKEW = timedelta(days=1)


def name(
    common_name: str,
    *,
    organization: str = "",
    organizational_unit: str = "",
    locality: str = "",
    state: str = "",
    country: str = "",
) -> x509.Name:
    """A distinguished name; empty parts are left out. Raises ValueError on illegal parts."""
    parts = [
        (NameOID.COUNTRY_NAME, country.upper()),
        (NameOID.STATE_OR_PROVINCE_NAME, state),
        (NameOID.LOCALITY_NAME, locality),
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, organizational_unit),
        (NameOID.COMMON_NAME, common_name),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value])


@dataclass(frozen=True)
class Authority:
    """`chain` is what stands above this authority's certificate, the root last."""

    certificate: x509.Certificate
    key: PrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    def issue(
        self,
        public_key: PublicKey,
        subject: x509.Name,
        *,
        now: datetime,
        days: int,
        dns: Iterable[str] = (),
        ips: Iterable[str] = (),
        uris: Iterable[str] = (),
        usages: Iterable[Usage] = (),
        ca: bool = False,
        path_length: int | None = None,
        crl_url: str = "",
        ocsp_url: str = "",
        serial: int | None = None,
    ) -> x509.Certificate:
        """A certificate for this key. Nothing is taken from any request: the caller decides."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
            .add_extension(_key_usage(ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(_authority_key_id(self.certificate), critical=False)
        )
        names: list[x509.GeneralName] = [x509.DNSName(item) for item in dns]
        names += [x509.IPAddress(ip_address(item)) for item in ips]
        names += [x509.UniformResourceIdentifier(item) for item in uris]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        oids = [_USAGES[usage] for usage in usages]
        if oids:
            builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
        if crl_url:
            where = [x509.UniformResourceIdentifier(crl_url)]
            point = x509.DistributionPoint(where, None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        if ocsp_url:
            access = x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp_url)
            )
            builder = builder.add_extension(
                x509.AuthorityInformationAccess([access]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256())

    def crl(
        self,
        revoked: Iterable[tuple[int, datetime] | tuple[int, datetime, str]],
        *,
        now: datetime,
        next_update: datetime,
        number: int,
    ) -> bytes:
        """The revocation list in DER; `revoked` are serial numbers with their time, and the reason
        in X.509's words (RFC 5280, 5.3.1) where there is one."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(_authority_key_id(self.certificate), critical=False)
        )
        for serial, at, *reason in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
            if reason and reason[0]:
                why = x509.CRLReason(x509.ReasonFlags(reason[0]))
                entry = entry.add_extension(why, critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def new_root(
    subject: x509.Name, *, now: datetime, days: int = 3650, key: KeyKind = "p256"
) -> Authority:
    """A self-signed root with a new key."""
    private = generate_key(key)
    public = private.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(_key_usage(True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    return Authority(certificate, private)


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
