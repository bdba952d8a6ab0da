"""The provisioning document: certificate, account and poll schedule of a new enrollment."""

from base64 import b64decode
from dataclasses import dataclass, field
from urllib.parse import unquote

from cryptography import x509
from lxml import etree

from tandem import pki
from tandem.agent.mdm import xml
from tandem.agent.mdm.model import BadAnswer


@dataclass(frozen=True)
class Provisioning:
    """`nodes` are the values below `./Vendor/MSFT`, by path, that came along (DMClient)."""

    certificate: x509.Certificate
    roots: tuple[x509.Certificate, ...]
    provider: str
    address: str
    subject: str
    parameters: dict[str, str]
    nodes: dict[str, str] = field(default_factory=dict)
    renew_days: int = 0
    retry_days: int = 0


def read(document: bytes, public_key: pki.PublicKey) -> Provisioning:
    """Raises BadAnswer when the device could not use what it says."""
    root = xml.parse(document)
    if xml.local(root) != "wap-provisioningdoc":
        raise BadAnswer("0x80180001", "The provisioning document is not one.")
    values: dict[str, str] = {}
    _flatten(root, "", values)
    certificate = _client_certificate(values)
    if certificate.public_key() != public_key:
        raise BadAnswer("0x80180004", "The certificate is for another key than this device's.")
    application = {
        path.removeprefix("/APPLICATION/"): value
        for path, value in values.items()
        if path.startswith("/APPLICATION/") and path.count("/") == 2
    }
    provider, address = application.get("PROVIDER-ID", ""), application.get("ADDR", "")
    if not provider or not address.lower().startswith("https://"):
        raise BadAnswer("0x80180001", "The provisioning document names no management service.")
    roots = tuple(_certificates(values, "/CertificateStore/Root/System/"))
    nodes = {path: value for path, value in values.items() if path.startswith("/DMClient/")}
    criteria = application.get("SSLCLIENTCERTSEARCHCRITERIA", "")
    subject = unquote(criteria.partition("Subject=")[2].partition("&")[0])
    renew, retry = _renewal(values)
    return Provisioning(
        certificate, roots, provider, address, subject, application, nodes, renew, retry
    )


def _renewal(values: dict[str, str]) -> tuple[int, int]:
    """Days before the end to renew in, and between attempts; (0, 0) without automatic renewal."""
    told = {
        name: values.get(f"/CertificateStore/My/WSTEP/Renew/{name}", "")
        for name in ("ROBOSupport", "RenewPeriod", "RetryInterval")
    }
    if told["ROBOSupport"].lower() != "true" or not told["RenewPeriod"].isdigit():
        return 0, 0
    retry = told["RetryInterval"]
    return int(told["RenewPeriod"]), int(retry) if retry.isdigit() else 7


def read_renewal(document: bytes, public_key: pki.PublicKey, provider: str) -> x509.Certificate:
    """The certificate that a renewal brought to this account. Raises BadAnswer."""
    values: dict[str, str] = {}
    _flatten(xml.parse(document), "", values)
    certificate = _client_certificate(values)
    if certificate.public_key() != public_key:
        raise BadAnswer("0x80180004", "The certificate is for another key than this device's.")
    if values.get("/APPLICATION/PROVIDER-ID") != provider:
        raise BadAnswer("0x80180001", "The renewal is for another account than this device's.")
    return certificate


def _flatten(element: etree._Element, path: str, values: dict[str, str]) -> None:
    for child in element:
        if xml.local(child) == "characteristic":
            _flatten(child, f"{path}/{child.get('type', '')}", values)
        elif xml.local(child) == "parm":
            values[f"{path}/{child.get('name', '')}"] = child.get("value", "")


def _certificates(values: dict[str, str], prefix: str) -> list[x509.Certificate]:
    found = []
    for path, value in values.items():
        if path.startswith(prefix) and path.endswith("/EncodedCertificate"):
            try:
                certificate = x509.load_der_x509_certificate(b64decode("".join(value.split())))
            except pki.UNREADABLE:
                raise BadAnswer("0x80180004", "A certificate that came cannot be read.") from None
            if path.split("/")[-2].upper() != pki.sha1_thumbprint(certificate):
                raise BadAnswer("0x80180004", "A certificate has not the thumbprint it is under.")
            found.append(certificate)
    return found


def _client_certificate(values: dict[str, str]) -> x509.Certificate:
    for store in ("System", "User"):
        found = _certificates(values, f"/CertificateStore/My/{store}/")
        if found:
            return found[0]
    raise BadAnswer("0x80180004", "The enrollment brought no certificate for this device.")
