"""Enrollment messages: what is understood, what is refused, what is said."""

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tandem.protocols import soap

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ENR = "http://schemas.microsoft.com/windows/management/2012/01/enrollment"
DISCOVER = f"""<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"
 xmlns:a="http://www.w3.org/2005/08/addressing"><s:Header>
 <a:Action s:mustUnderstand="1"> {ENR}/IDiscoveryService/Discover </a:Action>
 <a:MessageID>urn:uuid:1</a:MessageID><a:To>https://x</a:To></s:Header>
 <s:Body><Discover xmlns="{ENR}"><request><EmailAddress>u@contoso.com</EmailAddress>
 <RequestVersion>VERSION</RequestVersion><DeviceType>CIMClient_Windows</DeviceType>
 <ApplicationVersion>10.0.26100.1</ApplicationVersion><OSEdition>4</OSEdition>
 <AuthPolicies><AuthPolicy>OnPremise</AuthPolicy><AuthPolicy>Federated</AuthPolicy></AuthPolicies>
 </request></Discover></s:Body></s:Envelope>"""


@pytest.mark.parametrize("version", ["4.0", "5.0", "9.0"])
def test_every_protocol_version_is_read_as_a_number(version: str) -> None:
    envelope = soap.read(DISCOVER.replace("VERSION", version).encode())
    assert isinstance(envelope.body, soap.Discover)
    assert envelope.body.request_version == float(version)
    assert envelope.body.auth_policies == ("OnPremise", "Federated")
    assert envelope.message_id == "urn:uuid:1"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<a/>",
        b"not xml",
        DISCOVER.replace("IDiscoveryService", "IUnknown").encode(),
        DISCOVER.replace("VERSION", "four").encode(),
        b'<!DOCTYPE x [<!ENTITY e "y">]>' + DISCOVER.replace("VERSION", "4.0").encode(),
        DISCOVER.replace("VERSION", "4.0").encode()[:-20],
    ],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(soap.BadMessage):
        soap.read(raw)


@given(st.binary(max_size=300))
def test_rubbish_never_breaks_the_reader(raw: bytes) -> None:
    with pytest.raises(soap.BadMessage):
        soap.read(raw)


def test_a_fault_uses_the_names_that_windows_understands() -> None:
    told = soap.Fault("s:Authorization", "No licence <&>", "UserLicense", "t1")
    root = etree.fromstring(soap.fault(soap.REQUEST_TOKEN_RESPONSE, "urn:uuid:7", told))
    ns = {"s": "http://www.w3.org/2003/05/soap-envelope"}
    assert root.findtext(".//s:Subcode/s:Value", namespaces=ns) == "s:Authorization"
    assert root.findtext(".//s:Reason/s:Text", namespaces=ns) == "No licence <&>"
    assert root.findtext(".//{*}ErrorType") == "UserLicense"
    assert root.findtext(".//{*}RelatesTo") == "urn:uuid:7"


def test_the_provisioning_document_travels_in_one_line_of_base64() -> None:
    document = b"<wap-provisioningdoc/>" * 100
    root = etree.fromstring(soap.token_response("x", soap.TokenResponse(document, NOW)))
    text = root.findtext(".//{*}BinarySecurityToken") or ""
    assert "\n" not in text
    assert b64decode(text) == document


def test_the_policy_asks_for_rsa_2048_and_sha_256() -> None:
    root = etree.fromstring(soap.policies_response("x"))
    assert root.findtext(".//{*}minimalKeyLength") == "2048"
    assert root.findtext(".//{*}policySchema") == "3"
    assert root.findtext(".//{*}oIDs/{*}oID/{*}value") == "2.16.840.1.101.3.4.2.1"


def test_tokens_are_read_in_both_base64_alphabets() -> None:
    secret = bytes(range(250, 256)) * 3
    for text in (
        b64encode(secret).decode(),
        b64encode(secret).decode().replace("+", "-").replace("/", "_").rstrip("="),
    ):
        header = (
            '<o:Security xmlns:o="http://docs.oasis-open.org/wss/2004/01/'
            'oasis-200401-wss-wssecurity-secext-1.0.xsd"><o:BinarySecurityToken ValueType="'
            f'{soap.JWT_TYPE}">{text}</o:BinarySecurityToken></o:Security></s:Header>'
        )
        envelope = soap.read(
            DISCOVER.replace("VERSION", "4.0").replace("</s:Header>", header).encode()
        )
        assert soap.one_credential(envelope).value == secret


def test_a_message_without_a_credential_or_with_two_is_refused() -> None:
    envelope = soap.read(DISCOVER.replace("VERSION", "4.0").encode())
    with pytest.raises(soap.BadSecurity):
        soap.one_credential(envelope)


_BROKEN = {
    "d2s-discover-fleet-integration-b.xml",
    "d2s-discover-docs-truncated.xml",
    "d2s-discover-minimal-no-authpolicies.xml",
    "d2s-rst-docs-certificate.xml",
    "d2s-rst-docs-federated-malformed.xml",
    "d2s-rst-minimal-template.xml",
}


def test_captured_requests_are_read(samples: Path) -> None:
    """Placeholders instead of base64 make some published samples unusable; the rest is read."""
    read = 0
    for path in sorted((samples / "mdm").glob("d2s-*.xml")):
        if not any(kind in path.name for kind in ("discover", "getpolicies")):
            continue
        if path.name in _BROKEN:
            with pytest.raises(soap.BadMessage):
                soap.read(path.read_bytes())
        else:
            try:
                soap.read(path.read_bytes())
            except soap.BadSecurity:
                assert "spec" in path.name or "docs" in path.name, path.name
            read += 1
    assert read > 10
