"""Renewing the device's certificate without its user: the key in use signs for the next one.

    → Discover
    → RequestSecurityToken Renew: a request of the new key, in a CMS signature of the old one
    ← a provisioning document with the new certificate alone

The old certificate counts until the first session with the new one, so an attempt may fail at any
place: the next one is made some days later, while there is time.
"""

from datetime import datetime, timedelta

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tandem.agent.mdm import enrollment, envelope, provisioning
from tandem.agent.mdm.model import Account


def is_due(
    account: Account, certificate: x509.Certificate, tried_at: datetime | None, now: datetime
) -> bool:
    """Whether to renew now: inside the days that the service named, and not too soon again."""
    if not account.renew_days or not account.discovery_url:
        return False
    ends = certificate.not_valid_after_utc
    if not ends - timedelta(days=account.renew_days) <= now < ends:
        return False
    return tried_at is None or now - tried_at >= timedelta(days=max(account.retry_days, 1))


async def renew(
    http: httpx.AsyncClient,
    account: Account,
    old: tuple[rsa.RSAPrivateKey, x509.Certificate],
    key: rsa.RSAPrivateKey,
    os_version: str,
    os_edition: str,
) -> x509.Certificate:
    """The certificate of the new key. Raises EnrollmentRefused, Unreachable, BadAnswer."""
    url = account.discovery_url
    found = envelope.read_discovery(
        await enrollment.post(
            http, url, envelope.discover(url, account.upn, os_version, os_edition)
        )
    )
    request = enrollment.certificate_request(key, account.device_id, "sha256")
    signature = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(request)
        .add_signer(old[1], old[0], hashes.SHA256())
        .sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )
    message = envelope.renewal(found.enrollment_url, account.upn, signature, os_version)
    answer = await enrollment.post(http, found.enrollment_url, message)
    return provisioning.read_renewal(
        envelope.read_document(answer), key.public_key(), account.provider
    )
