"""The provisioning document: certificates, account and schedule of an enrolled device (section 7)."""

from base64 import b64encode
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from tandem import pki
from tandem.tenant.enrollment.certificate_model import CertificateProfile
from tandem.tenant.enrollment.model import POLL_NODES, Device, EnrollmentSettings
from tandem.tenant.enrollment.session_secrets import Account


def document(
    device: Device,
    settings: EnrollmentSettings,
    profile: CertificateProfile,
    *,
    root: x509.Certificate,
    certificate: x509.Certificate,
    management_url: str,
    account: Account,
) -> bytes:
    """wap-provisioningdoc in UTF-8. It holds the account's secrets in the clear."""
    store = _store(device)
    top = etree.Element("wap-provisioningdoc", version="1.1")
    certificates = _characteristic(top, "CertificateStore")
    system = _characteristic(certificates, "Root", "System")
    _certificate(system, root)
    mine = _characteristic(certificates, "My", store)
    _certificate(mine, certificate)
    _characteristic(mine, "PrivateKeyContainer")
    renewing = _characteristic(certificates, "My", "WSTEP", "Renew")
    _parm(renewing, "ROBOSupport", "true", "boolean")
    _parm(renewing, "RenewPeriod", str(profile.renewal_days), "integer")
    _parm(renewing, "RetryInterval", str(profile.retry_days), "integer")
    _application(top, settings, certificate, management_url, store, account)
    provider = _characteristic(top, "DMClient", "Provider", settings.provider_id)
    _parm(provider, "EntDMID", device.id, "string")
    _parm(provider, "EntDeviceName", device.name, "string")
    _parm(provider, "UPN", device.upn, "string")
    _poll(provider, settings)
    data: bytes = etree.tostring(top, encoding="UTF-8", xml_declaration=False)
    return data


def renewal(device: Device, settings: EnrollmentSettings, certificate: x509.Certificate) -> bytes:
    """What a renewal brings: the certificate, and which account it is of; nothing else (section 8)."""
    top = etree.Element("wap-provisioningdoc", version="1.1")
    mine = _characteristic(top, "CertificateStore", "My", _store(device))
    _certificate(mine, certificate)
    _characteristic(mine, "PrivateKeyContainer")
    account = etree.SubElement(top, "characteristic", type="APPLICATION")
    _parm(account, "PROVIDER-ID", settings.provider_id)
    data: bytes = etree.tostring(top, encoding="UTF-8", xml_declaration=False)
    return data


def _store(device: Device) -> str:
    return "System" if device.kind.lower() == "device" else "User"


def _characteristic(parent: Any, *types: str) -> Any:
    for name in types:
        found = next((item for item in parent if item.get("type") == name), None)
        parent = etree.SubElement(parent, "characteristic", type=name) if found is None else found
    return parent


def _parm(parent: Any, name: str, value: str, datatype: str = "") -> None:
    attributes = {"name": name, "value": value}
    if datatype:
        attributes["datatype"] = datatype
    etree.SubElement(parent, "parm", attributes)


def _certificate(parent: Any, certificate: x509.Certificate) -> None:
    entry = _characteristic(parent, pki.sha1_thumbprint(certificate))
    der = certificate.public_bytes(Encoding.DER)
    _parm(entry, "EncodedCertificate", b64encode(der).decode())


def _application(
    top: Any,
    settings: EnrollmentSettings,
    certificate: x509.Certificate,
    management_url: str,
    store: str,
    secrets: Account,
) -> None:
    account = etree.SubElement(top, "characteristic", type="APPLICATION")
    subject = quote(certificate.subject.rfc4514_string(), safe="")
    for name, value in (
        ("APPID", "w7"),
        ("PROVIDER-ID", settings.provider_id),
        ("NAME", settings.name),
        ("ADDR", management_url),
        ("CONNRETRYFREQ", "6"),
        ("INITIALBACKOFFTIME", "30000"),
        ("MAXBACKOFFTIME", "120000"),
        ("DEFAULTENCODING", "application/vnd.syncml.dm+xml"),
        ("SSLCLIENTCERTSEARCHCRITERIA", f"Subject={subject}&Stores=My%5C{store}"),
    ):
        _parm(account, name, value)
    etree.SubElement(account, "parm", name="BACKCOMPATRETRYDISABLED")
    # Both blocks have to be there (section 7), whatever the device proves itself by.
    for level, name, secret, nonce in (
        ("CLIENT", "", secrets.service_secret, secrets.service_nonce),
        ("APPSRV", secrets.name, secrets.device_secret, secrets.device_nonce),
    ):
        block = etree.SubElement(account, "characteristic", type="APPAUTH")
        _parm(block, "AAUTHLEVEL", level)
        _parm(block, "AAUTHTYPE", "DIGEST")
        if name:
            _parm(block, "AAUTHNAME", name)
        _parm(block, "AAUTHSECRET", secret)
        _parm(block, "AAUTHDATA", b64encode(nonce).decode())


def _poll(provider: Any, settings: EnrollmentSettings) -> None:
    poll = _characteristic(provider, "Poll")
    for (times_name, minutes_name), (minutes, times) in zip(
        POLL_NODES, settings.poll, strict=False
    ):
        _parm(poll, times_name, str(times), "integer")
        _parm(poll, minutes_name, str(minutes), "integer")
    _parm(poll, "PollOnLogin", "true", "boolean")
    _parm(poll, "AllUsersPollOnFirstLogin", "true", "boolean")
