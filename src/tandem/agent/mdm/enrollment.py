"""Enrolling: discovery, policy, certificate, account."""

from datetime import datetime

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tandem.agent.mdm import envelope, provisioning, xml
from tandem.agent.mdm.envelope import Facts, KeyPolicy
from tandem.agent.mdm.model import Account, BadAnswer, EnrollmentRefused, Unreachable
from tandem.agent.mdm.provisioning import Provisioning

_CONTENT_TYPE = "application/soap+xml; charset=utf-8"
_DEVICE_ID_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.311.66.1.0")
_HASHES: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


async def enroll(
    http: httpx.AsyncClient,
    discovery_url: str,
    token: str,
    facts: Facts,
    key: rsa.RSAPrivateKey,
    now: datetime,
) -> tuple[Account, Provisioning]:
    """Enrol this device. Raises EnrollmentRefused, Unreachable, BadAnswer.

    `key` is the new key of this enrollment, and is used only for it.
    """
    found = envelope.read_discovery(
        await post(
            http,
            discovery_url,
            envelope.discover(discovery_url, facts.upn, facts.os_version, facts.os_edition),
        )
    )
    policy = KeyPolicy()
    if found.policy_url:
        policy = envelope.read_policies(
            await post(http, found.policy_url, envelope.policies(found.policy_url, token))
        )
    if key.key_size < policy.minimal_bits:
        raise EnrollmentRefused(
            "0x80180004",
            f"The service asks for a key of {policy.minimal_bits} bits; this one has {key.key_size}.",
        )
    request = certificate_request(key, facts.device_id, policy.hash_name)
    answer = await post(
        http,
        found.enrollment_url,
        envelope.request(found.enrollment_url, token, request, facts),
    )
    given = provisioning.read(envelope.read_document(answer), key.public_key())
    number = {
        name: int(value) for name, value in given.parameters.items() if value.strip().isdigit()
    }
    account = Account(
        given.provider,
        given.address,
        facts.device_id,
        given.subject,
        facts.upn,
        now,
        number.get("CONNRETRYFREQ", 3),
        number.get("INITIALBACKOFFTIME", 16000),
        number.get("MAXBACKOFFTIME", 86400000),
        discovery_url,
        given.renew_days,
        given.retry_days,
    )
    return account, given


def certificate_request(key: rsa.RSAPrivateKey, device_id: str, hash_name: str) -> bytes:
    """As current Windows writes it: a name the server will not use, and the device id."""
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"B1C43CD0-1624-5FBB-8E54-34CF17!{device_id}")]
    )
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(
            x509.UnrecognizedExtension(_DEVICE_ID_EXTENSION, device_id.encode() + b"\0"), False
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    )
    return builder.sign(key, _HASHES[hash_name]).public_bytes(serialization.Encoding.DER)


async def post(http: httpx.AsyncClient, url: str, message: bytes) -> bytes:
    headers = {
        "Content-Type": _CONTENT_TYPE,
        "User-Agent": "ENROLLClient",
        "Cache-Control": "no-cache",
    }
    try:
        response = await http.post(url, content=message, headers=headers)
    except httpx.HTTPError as error:
        raise Unreachable(
            "0x80180010",
            f"The management service does not answer: {error or type(error).__name__}.",
            cure="Check the device's network and the name of the management service.",
        ) from None
    if response.status_code != 200:
        _refuse(response)
    if "content-length" not in response.headers:
        raise BadAnswer("0x80180006", "The management service answers in pieces without a length.")
    return response.content


def _refuse(response: httpx.Response) -> None:
    """Windows does not read what comes with another status than 200; a fault still says more."""
    status = response.status_code
    number = f"0x{0x80190000 + status:08X}"
    said = f"The management service answers {status}."
    if status >= 500 or status == 429:
        raise Unreachable(number, said, cure="Try again later.")
    try:
        fault = xml.anywhere(xml.parse(response.content), "Fault")
    except BadAnswer:
        fault = None
    if fault is not None:
        said += f" {envelope.refusal(fault).message}"
    raise EnrollmentRefused(number, said, cure="Check the address of the management service.")
