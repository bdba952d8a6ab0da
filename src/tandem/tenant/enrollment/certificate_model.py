"""Certificates of devices and the profile that they are issued by."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tandem.infra.errors import AppError, Invalid, Kind

CertificateState = Literal["issued", "active", "superseded", "revoked"]
# How keys are kept on Windows, the best first (spec 5).
PLATFORM_PROVIDER = "Microsoft Platform Crypto Provider"
SOFTWARE_PROVIDER = "Microsoft Software Key Storage Provider"
PROVIDERS = (PLATFORM_PROVIDER, SOFTWARE_PROVIDER)
KEY_BITS = (2048, 3072, 4096)
# Reasons of X.509 (RFC 5280, 5.3.1) that occur here.
REASONS = ("superseded", "cessationOfOperation", "keyCompromise", "privilegeWithdrawn")


class BadProfile(Invalid):
    code = "enrollment.bad-certificate-profile"


class NoSuchCertificate(AppError):
    kind, code = Kind.NOT_FOUND, "enrollment.certificate-not-found"


@dataclass(frozen=True, slots=True)
class CertificateProfile:
    """How device certificates are issued, and when devices renew them by themselves.

    A device renews from `renewal_days` before the end of its certificate, and tries again every
    `retry_days`. `providers` are where its key may be kept, the preferred one first.
    """

    validity_days: int = 365
    renewal_days: int = 60
    retry_days: int = 4
    key_bits: int = 2048
    providers: tuple[str, ...] = PROVIDERS

    def check(self) -> None:
        """Raises BadProfile."""
        if not 1 <= self.validity_days <= 3650:
            raise BadProfile("A certificate is valid for 1 to 3,650 days.", target="validityDays")
        if not 1 <= self.renewal_days <= 1000 or self.renewal_days >= self.validity_days:
            raise BadProfile(
                "Devices renew 1 to 1,000 days before the end, which is after the beginning.",
                cure="Choose fewer days than the certificate is valid.",
                target="renewalDays",
            )
        if not 1 <= self.retry_days <= self.renewal_days:
            raise BadProfile(
                "Devices try again after 1 day or more, within the days that they renew in.",
                target="retryDays",
            )
        if self.key_bits not in KEY_BITS:
            raise BadProfile("A key has 2048, 3072 or 4096 bits.", target="keyBits")
        names = set(self.providers)
        if not names or names - set(PROVIDERS) or len(names) != len(self.providers):
            raise BadProfile(
                "A key is kept by Windows's platform provider, its software provider, or the one of"
                " both that is there.",
                cure=f"Name: {', '.join(PROVIDERS)}.",
                target="keyProviders",
            )


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that a device has or had. `reason` says why it ended; empty while it has not."""

    fingerprint: str
    serial: str
    device_id: str
    key_sha256: str
    not_before: datetime
    not_after: datetime
    renewal_days: int
    state: CertificateState
    reason: str
    changed_at: datetime

    def usable(self, now: datetime) -> bool:
        return self.state in {"issued", "active"} and self.not_before <= now < self.not_after

    def renews_at(self, renewal_days: int) -> datetime:
        """When its renewal may begin: as the device was told, or as is wanted now."""
        return self.not_after - timedelta(days=max(self.renewal_days, renewal_days))
