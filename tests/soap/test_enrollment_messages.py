"""The enrollment messages: what is read, what is refused, and what answers look like."""

import base64
import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from mdm_world import discover, envelope, get_policies, request_token
from tandem.agent.mdm import envelope as device_side
from tandem.agent.mdm.model import EnrollmentRefused
from tandem.protocols import soap

AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def test_a_discovery_says_who_asks_and_what_they_can() -> None:
    read = soap.read(discover("9.0"))
    assert read.message_id == "urn:uuid:1"
    assert isinstance(read.body, soap.Discover)
    assert read.body.email == "alex@contoso.com"
    assert read.body.request_version == 9.0
    assert read.body.auth_policies == ("OnPremise", "Federated")


def test_the_one_credential_is_the_token() -> None:
    credential = soap.one_credential(soap.read(get_policies("a.b.c")))
    assert (credential.kind, credential.value) == ("token", b"a.b.c")


def test_none_an_empty_or_a_second_credential_is_a_bad_security_header() -> None:
    two = get_policies("a.b.c").replace(
        b"</wsse:Security>",
        b"<wsse:UsernameToken><wsse:Username>x</wsse:Username><wsse:Password>y</wsse:Password>"
        b"</wsse:UsernameToken></wsse:Security>",
    )
    none = request_token("t", b"csr", security="")
    for message in (two, none, get_policies("")):
        with pytest.raises(soap.BadSecurity):
            soap.one_credential(soap.read(message))


def test_a_request_brings_the_csr_and_every_item_in_order() -> None:
    message = request_token("t", b"der" * 100, MAC="a").replace(
        b"</ac:AdditionalContext>",
        b'<ac:ContextItem Name="MAC"><ac:Value>b</ac:Value></ac:ContextItem>'
        b"</ac:AdditionalContext>",
    )
    body = soap.read(message).body
    assert isinstance(body, soap.RequestToken)
    assert body.request == b"der" * 100
    assert body.item("DeviceName") == "LAB-001"
    assert body.context["MAC"] == ("a", "b")
    assert body.item("Unknown") == ""


def test_an_item_that_says_two_things_is_refused() -> None:
    message = request_token("t", b"der").replace(
        b"</ac:AdditionalContext>",
        b'<ac:ContextItem Name="DeviceID"><ac:Value>other</ac:Value></ac:ContextItem>'
        b"</ac:AdditionalContext>",
    )
    with pytest.raises(soap.BadMessage, match="given twice"):
        soap.read(message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"<",
        b"<a/>",
        discover().replace(b"<s:Body>", b"<s:Body><!-- x -->").replace(b"</s:Envelope>", b""),
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + discover(),
        discover().replace(b"urn:uuid:1", b""),
        discover("five"),
        envelope("urn:other", "<x/>"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(soap.BadMessage):
        soap.read(message)


def test_entities_are_not_expanded_and_files_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    start = f'<!DOCTYPE x [<!ENTITY f SYSTEM "file://{secret}">]>'.encode()
    with pytest.raises(soap.BadMessage) as refusal:
        soap.read(start + discover().replace(b"alex@", b"&f;@"))
    assert "s3cret" not in str(refusal.value)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 1000))
def test_a_damaged_message_is_read_or_refused(noise: bytes, at: int) -> None:
    good = get_policies("a.b.c")
    damaged = good[: at % len(good)] + noise + good[at % len(good) + len(noise) :]
    with contextlib.suppress(soap.BadMessage):
        soap.read(damaged)


def test_answers_are_what_the_devices_side_understands() -> None:
    """The device's reader was written by itself, from the same specification."""
    answer = soap.DiscoverResponse("https://t/P", "https://t/E", "https://t/A", "4.0")
    found = device_side.read_discovery(soap.discover_response("urn:uuid:1", answer))
    assert (found.policy_url, found.enrollment_url, found.version) == (
        "https://t/P",
        "https://t/E",
        "4.0",
    )
    policy = device_side.read_policies(soap.policies_response("urn:uuid:1"))
    assert (policy.minimal_bits, policy.hash_name) == (2048, "sha256")
    given = soap.token_response("urn:uuid:1", soap.TokenResponse(b"<wap/>", AT))
    assert device_side.read_document(given) == b"<wap/>"


def test_answers_relate_to_their_request_and_have_no_line_breaks_in_base64() -> None:
    made = etree.fromstring(soap.token_response("urn:uuid:7", soap.TokenResponse(b"x" * 5000, AT)))
    texts = {etree.QName(e).localname: e.text or "" for e in made.iter()}
    assert texts["RelatesTo"] == "urn:uuid:7"
    assert base64.b64decode(texts["BinarySecurityToken"], validate=True) == b"x" * 5000
    assert "\n" not in texts["BinarySecurityToken"]
    assert texts["Created"] < "2026-11-24T09:00" < texts["Expires"]


def test_a_fault_becomes_the_number_that_windows_shows() -> None:
    told = soap.Fault("s:Authorization", "no licence", "UserLicense", "trace1")
    with pytest.raises(EnrollmentRefused, match=r"no licence.*trace1") as refusal:
        device_side.read_document(soap.fault(soap.REQUEST_TOKEN_RESPONSE, "urn:uuid:1", told))
    assert refusal.value.hresult == "0x80180018"


def test_control_characters_in_a_reason_do_not_break_the_fault() -> None:
    made = soap.fault(soap.DISCOVER_RESPONSE, "x", soap.Fault("s:MessageFormat", "a\x00b\x07<c>"))
    assert b"ab&lt;c&gt;" in made


# ------------------------------------------------------------------ wire examples

READ = {
    "d2s-discover-real-win10-19043-b.xml": soap.Discover,
    "d2s-discover-fleet-testclient.xml": soap.Discover,
    "d2s-discover-fleet-integration-c.xml": soap.Discover,
    "d2s-discover-intune-style.xml": soap.Discover,
    "d2s-discover-spec-certificate.xml": soap.Discover,
    "d2s-discover-spec-federated.xml": soap.Discover,
    "d2s-discover-spec-onpremise.xml": soap.Discover,
    "d2s-discover-docs-onpremise.xml": soap.Discover,
    "d2s-getpolicies-fleet-jwt-tpm.xml": soap.GetPolicies,
    "d2s-getpolicies-real-usernametoken-b.xml": soap.GetPolicies,
    "d2s-getpolicies-spec-onpremise.xml": soap.GetPolicies,
    "d2s-rst-aadj-device-ztd.xml": soap.RequestToken,
    "d2s-rst-fleet-jwt.xml": soap.RequestToken,
    "d2s-rst-fleet-devicetoken.xml": soap.RequestToken,
    "d2s-rst-real-usernametoken-b.xml": soap.RequestToken,
    "d2s-rst-renew-robo.xml": soap.RequestToken,
    "d2s-rst-spec-onpremise.xml": soap.RequestToken,
}
REFUSED = [
    "d2s-discover-docs-truncated.xml",
    "d2s-discover-fleet-integration-b.xml",
    "d2s-discover-minimal-no-authpolicies.xml",
    "d2s-rst-docs-certificate.xml",
    "d2s-rst-docs-federated-malformed.xml",
]


@pytest.mark.parametrize("name", READ)
def test_an_example_of_a_device_is_read(samples: Path, name: str) -> None:
    read = soap.read((samples / "mdm" / name).read_bytes())
    assert isinstance(read.body, READ[name])
    assert read.message_id


@pytest.mark.parametrize("name", REFUSED)
def test_an_example_that_is_broken_is_refused(samples: Path, name: str) -> None:
    with pytest.raises(soap.BadMessage):
        soap.read((samples / "mdm" / name).read_bytes())


def test_no_example_of_a_device_does_worse_than_being_refused(samples: Path) -> None:
    for file in sorted((samples / "mdm").glob("d2s-*.xml")):
        data = file.read_bytes()
        soap.message_id(data)
        with contextlib.suppress(soap.BadMessage):
            soap.one_credential(soap.read(data))
