"""The site itself: its code, its certificates, its management point's number."""

import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from tandem import pki
from tandem.infra.errors import AppError, Invalid, Kind

# Three letters or digits; these are names of devices and of parts of a file system.
_SITE_CODE = re.compile(r"^[A-Z0-9]{3}$")
_RESERVED = {"AUX", "CON", "NUL", "PRN", "SMS", "ENV"}

# Role ids of site systems are 64-bit numbers with the cloud's bit set.
ROLE_ID_BASE = 2**56


class BadSiteCode(Invalid):
    code = "site.bad-code"


class NotEstablished(AppError):
    kind, code = Kind.UNAVAILABLE, "site.not-established"


class AnotherSite(AppError):
    kind, code = Kind.CONFLICT, "site.another"


@dataclass(frozen=True, slots=True)
class Site:
    code: str
    name: str
    management_point_id: int  # The decimal in CCM_Proxy_MutualAuth/<id>.
    established_at: datetime


@dataclass(frozen=True, slots=True)
class RoleCertificate:
    """A key with the certificate that the site's issuing root gave to one of its roles."""

    key: pki.PrivateKey
    certificate: x509.Certificate


class NeedsOwnCertificates(AppError):
    kind, code = Kind.CONFLICT, "site.needs-own-certificates"


class GatewayNeedsIt(AppError):
    kind, code = Kind.CONFLICT, "site.gateway-needs-it"


class NotRenewable(AppError):
    kind, code = Kind.CONFLICT, "site.not-renewable"


@dataclass(frozen=True, slots=True)
class Communication:
    """The site's Communication Security (spec 2.4)."""

    enhanced_http: bool = True
    pki_client_certificate: bool = True
    check_crl: bool = True
    changed_at: datetime | None = None
    changed_by: str = ""


@dataclass(frozen=True, slots=True)
class Answering:
    """The certificate with which a role answers, and since when."""

    fingerprint: str
    since: datetime


def check_site_code(code: str) -> str:
    """The code in capitals. Raises BadSiteCode."""
    folded = code.strip().upper()
    if not _SITE_CODE.match(folded) or folded in _RESERVED:
        raise BadSiteCode(
            f"{code!r} cannot be a site code.",
            cure="A site code is three letters or digits, and not AUX, CON, NUL, PRN, SMS or ENV.",
        )
    return folded
