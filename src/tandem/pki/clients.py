"""Whether a certificate speaks for a client: its path, its use, its strength, its time, its revocation.

The rules of RFC 5280, 6.1, as far as certificates of clients meet them. Gateway and site ask the same
functions, so what one of them refuses the other refuses for the same reason. What stands here is for
certificates that were uploaded as trusted: every certificate above the client's has to be one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from tandem.infra.errors import AppError, Kind
from tandem.pki.bundles import BadCertificate, build_path, sha256_fingerprint

_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}
# What makes a list one of some certificates only, or of other authorities' (RFC 5280, 5.2.4, 5.2.5).
_PARTIAL = {ExtensionOID.DELTA_CRL_INDICATOR, ExtensionOID.ISSUING_DISTRIBUTION_POINT}
_LEAST_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


class Reason(StrEnum):
    """Why a certificate does not pass."""

    UNWANTED = "unwanted"
    UNREADABLE = "unreadable"
    SELF_SIGNED = "self-signed"
    UNKNOWN_AUTHORITY = "unknown-authority"
    NOT_AN_AUTHORITY = "not-an-authority"
    NOT_UNDERSTOOD = "not-understood"
    USAGE = "usage"
    WEAK = "weak"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    CRL_MISSING = "crl-missing"
    CRL_EXPIRED = "crl-expired"
    REVOKED = "revoked"


class NotAClient(AppError):
    """The certificate does not speak for a client here."""

    kind, code = Kind.FORBIDDEN, "certificate.not-a-client"

    def __init__(self, message: str, *, cure: str, reason: Reason) -> None:
        super().__init__(message, cure=cure, reason=reason.value)
        self.reason = reason


@dataclass(frozen=True)
class ClientPath:
    """A path that holds, from the client's certificate upwards, and how long its times let it."""

    certificates: tuple[x509.Certificate, ...]
    until: datetime
    # (serial, fingerprint of who issued it) of each certificate below the topmost.
    links: tuple[tuple[int, str], ...]


def client_path(
    leaf: x509.Certificate, trusted: Sequence[x509.Certificate], now: datetime
) -> ClientPath:
    """Everything but revocation; `trusted` are roots and the authorities between. Raises
    NotAClient."""
    try:
        return _client_path(leaf, trusted, now)
    except NotAClient:
        raise
    except Exception:
        # The parser looks into parts of a certificate only when it is asked for them, and a
        # certificate from outside makes it raise whatever it likes.
        raise NotAClient(
            "The client's certificate cannot be read.",
            cure="Give the device another certificate.",
            reason=Reason.UNREADABLE,
        ) from None


def _client_path(
    leaf: x509.Certificate, trusted: Sequence[x509.Certificate], now: datetime
) -> ClientPath:
    path = build_path(leaf, trusted).certificates
    known = {sha256_fingerprint(one) for one in trusted}
    if len(path) < 2 or sha256_fingerprint(path[-1]) not in known:
        raise _of_nobody(leaf)
    for depth, certificate in enumerate(path):
        _check_understood(certificate)
        _check_time(certificate, now)
        if depth:
            _check_authority(certificate, depth - 1)
        if depth < len(path) - 1:
            _check_strength(certificate)
    _check_usage(leaf)
    prints = [sha256_fingerprint(one) for one in path[1:]]
    links = tuple(zip((one.serial_number for one in path[:-1]), prints, strict=True))
    return ClientPath(path, min(one.not_valid_after_utc for one in path), links)


def _of_nobody(leaf: x509.Certificate) -> NotAClient:
    if leaf.issuer == leaf.subject:
        return NotAClient(
            "The client's certificate is its own authority's: nobody vouches for it.",
            cure="Give the device a certificate of an authority whose certificate is uploaded.",
            reason=Reason.SELF_SIGNED,
        )
    issuer = leaf.issuer.rfc4514_string()[:200]
    return NotAClient(
        "The client's certificate is not of an authority that this site trusts:"
        f" it names {issuer}.",
        cure="Upload that authority's certificate, and those above it (trusted root certificates).",
        reason=Reason.UNKNOWN_AUTHORITY,
    )


def _check_understood(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise NotAClient(
                f"The certificate of {_subject(certificate)} has a critical extension"
                f" ({extension.oid.dotted_string}) that"
                " is not understood here.",
                cure="Issue certificates without it, or mark it as not critical.",
                reason=Reason.NOT_UNDERSTOOD,
            )


def _check_time(certificate: x509.Certificate, now: datetime) -> None:
    if now < certificate.not_valid_before_utc:
        raise NotAClient(
            f"The certificate of {_subject(certificate)} is not valid now: it begins at"
            f" {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.",
            cure="Wait until then; check the clocks of the authority and of this server.",
            reason=Reason.NOT_YET_VALID,
        )
    if now > certificate.not_valid_after_utc:
        raise NotAClient(
            f"The certificate of {_subject(certificate)} is not valid now: it expired at"
            f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.",
            cure="Renew it; check that the clock of the device is right.",
            reason=Reason.EXPIRED,
        )


def _check_authority(certificate: x509.Certificate, below: int) -> None:
    """`below`: how many authorities stand between it and the client."""
    basic = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    fits = (
        basic is not None
        and basic.ca
        and (basic.path_length is None or below <= basic.path_length)
        and (usage is None or usage.key_cert_sign)
        and (extended is None or _lets_clients(extended))
    )
    if not fits:
        raise NotAClient(
            f"The certificate of {_subject(certificate)} cannot have certified a client: it is no"
            " authority's, or not for that use or depth.",
            cure="Give the device a certificate of another authority.",
            reason=Reason.NOT_AN_AUTHORITY,
        )


def _check_strength(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        weak = f"RSA {key.key_size}" if key.key_size < _LEAST_RSA_BITS else ""
    elif isinstance(key, ec.EllipticCurvePublicKey):
        weak = "" if isinstance(key.curve, _CURVES) else key.curve.name
    else:
        fine = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
        weak = "" if fine else type(key).__name__.lstrip("_")
    if isinstance(certificate.signature_hash_algorithm, _WEAK_HASHES):
        weak = certificate.signature_hash_algorithm.name
    if weak:
        raise NotAClient(
            f"The certificate of {_subject(certificate)} is too weak to be believed ({weak}).",
            cure=f"Issue one with RSA {_LEAST_RSA_BITS} or P-256 at least, signed with SHA-256.",
            reason=Reason.WEAK,
        )


def _check_usage(leaf: x509.Certificate) -> None:
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    usage = _extension(leaf, x509.KeyUsage)
    signs = usage is None or usage.digital_signature
    if extended is None or ExtendedKeyUsageOID.CLIENT_AUTH not in extended or not signs:
        raise NotAClient(
            "The certificate is not for clients: it has not the usage client authentication.",
            cure="Issue one from a template for client authentication.",
            reason=Reason.USAGE,
        )


def _lets_clients(usage: x509.ExtendedKeyUsage) -> bool:
    return (
        ExtendedKeyUsageOID.CLIENT_AUTH in usage
        or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
    )


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:200] or "nobody"


# ------------------------------------------------------------------ revocation


class Alarm(StrEnum):
    """What is wrong with an authority's revocation list, as status texts spell it."""

    MISSING = "CMGService_Crl_Missing"
    EXPIRED = "CMGService_Crl_Expired"
    EXPIRES = "CMGService_Crl_Expires"


@dataclass(frozen=True)
class RevocationAlarm:
    """`at` is when the list expired or will; None while there is none."""

    alarm: Alarm
    authority: str
    at: datetime | None

    @property
    def text(self) -> str:
        if self.at is None:
            return (
                f"The certificate revocation list (CRL) of {self.authority} is missing: its clients"
                " are refused."
            )
        when = f"{self.at:%Y-%m-%d %H:%M} UTC"
        if self.alarm is Alarm.EXPIRED:
            return (
                f"The certificate revocation list of {self.authority} expired at {when}: its clients"
                " are refused."
            )
        return (
            f"The certificate revocation list of {self.authority} expires at {when}: its clients are"
            " refused from then on."
        )

    @property
    def cure(self) -> str:
        return (
            "Upload this authority's newest CRL (`tandem management-point add-crl`), or switch the"
            " check off in the gateway's properties."
        )


@dataclass(frozen=True)
class _List:
    serials: frozenset[int]
    begins: datetime
    ends: datetime | None


class Revocations:
    """The newest list of each trusted authority. Asked for a path it looks into sets, no more."""

    def __init__(
        self,
        trusted: Iterable[x509.Certificate],
        crls: Iterable[x509.CertificateRevocationList],
    ) -> None:
        self._names: dict[str, str] = {}
        self._lists: dict[str, _List] = {}
        waiting = list(crls)
        for authority in trusted:
            at = sha256_fingerprint(authority)
            self._names[at] = authority.subject.rfc4514_string()
            for crl in waiting:
                known = self._lists.get(at)
                if not signed_by(crl, authority):
                    continue
                if known is None or known.begins < crl.last_update_utc:
                    serials = frozenset(one.serial_number for one in crl)
                    self._lists[at] = _List(serials, crl.last_update_utc, crl.next_update_utc)

    def check(self, path: ClientPath, now: datetime) -> datetime:
        """Until when the lists of all authorities in the path count. Raises NotAClient."""
        until = path.until
        for serial, at in path.links:
            found = self._lists.get(at)
            name = self._names.get(at, "?")
            if found is None:
                raise NotAClient(
                    f"The certificate revocation list (CRL) of {name} is missing.",
                    cure="Upload this authority's CRL, or switch the check of revocation off.",
                    reason=Reason.CRL_MISSING,
                )
            if serial in found.serials and at == path.links[0][1]:
                raise NotAClient(
                    "The client's certificate is revoked.",
                    cure="Give the device a new certificate.",
                    reason=Reason.REVOKED,
                )
            if serial in found.serials:
                raise NotAClient(
                    f"The authority of the client's certificate is revoked by {name}.",
                    cure="Give the device a certificate of another authority.",
                    reason=Reason.REVOKED,
                )
            if found.ends is not None and found.ends < now:
                ended = f"{found.ends:%Y-%m-%d %H:%M}"
                raise NotAClient(
                    f"The certificate revocation list of {name} has expired at {ended} UTC.",
                    cure="Upload a newer CRL of this authority.",
                    reason=Reason.CRL_EXPIRED,
                )
            until = until if found.ends is None else min(until, found.ends)
        return until

    def alarms(self, now: datetime) -> list[RevocationAlarm]:
        """Of every trusted authority whose list is missing, over or nearly so."""
        found = []
        for at, name in self._names.items():
            kept = self._lists.get(at)
            if kept is None:
                found.append(RevocationAlarm(Alarm.MISSING, name, None))
            elif kept.ends is not None and kept.ends < now:
                found.append(RevocationAlarm(Alarm.EXPIRED, name, kept.ends))
            elif kept.ends is not None and kept.ends - now <= _warned(kept.begins, kept.ends):
                found.append(RevocationAlarm(Alarm.EXPIRES, name, kept.ends))
        return found


def _warned(begins: datetime, ends: datetime) -> timedelta:
    """How long before its end a list is told of: a day, and of short-lived ones a quarter."""
    return min(timedelta(days=1), (ends - begins) / 4)


def signed_by(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if crl.issuer != authority.subject:
        return False
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def read_crl(data: bytes) -> x509.CertificateRevocationList:
    """A whole list, PEM or DER. Raises BadCertificate."""
    load = x509.load_pem_x509_crl if b"-----BEGIN" in data else x509.load_der_x509_crl
    try:
        crl = load(data)
        extensions = list(crl.extensions)
    except Exception:
        raise BadCertificate(
            "The file is not a certificate revocation list.", cure="Take the CA's CRL file."
        ) from None
    for extension in extensions:
        if extension.oid in _PARTIAL and not _whole(extension.value):
            raise BadCertificate(
                "This list is not whole: it tells of changes, or of some certificates only.",
                cure="Take the CA's base CRL, not its delta CRL.",
            )
    return crl


def _whole(value: x509.ExtensionType) -> bool:
    if not isinstance(value, x509.IssuingDistributionPoint):
        return False
    return not (
        value.only_contains_user_certs
        or value.only_contains_ca_certs
        or value.only_contains_attribute_certs
        or value.indirect_crl
        or value.only_some_reasons
    )


def check_client(
    leaf: x509.Certificate,
    trusted: Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList] | None,
    now: datetime,
) -> None:
    """`crls` is None when revocation is not looked at. Raises NotAClient."""
    path = client_path(leaf, trusted, now)
    if crls is not None:
        Revocations(trusted, crls).check(path, now)
