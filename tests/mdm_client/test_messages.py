"""The device's own codec: what it writes it can read, and it reads what real services send."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tandem.agent.mdm import BadAnswer, MdmError, envelope, messages
from tandem.agent.mdm.messages import Command, Item, Message, Results, Status

# What XML can carry. White space around an identifier does not survive, and need not.
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
)
DATA = st.text(
    st.one_of(
        st.characters(
            codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"
        ),
        st.sampled_from("\r\n\t<>&\"'"),
    )
)
NAME = st.text("abcXYZ019./%{}-", min_size=1, max_size=30)
NUMBER = st.integers(1, 9999).map(str)
WORD = st.sampled_from(["", "chr", "int", "node", "xml", "b64"])
ITEM = st.builds(Item, NAME | st.just(""), NAME | st.just(""), st.none() | DATA, WORD, WORD)
ITEMS = st.lists(ITEM, max_size=3).map(tuple)
PLAIN = st.builds(
    Command,
    st.sampled_from(["Get", "Add", "Replace", "Delete", "Exec"]),
    NUMBER,
    ITEMS,
)
GROUP = st.builds(
    lambda name, number, children: Command(name, number, (), tuple(children)),
    st.sampled_from(["Atomic", "Sequence"]),
    NUMBER,
    st.lists(PLAIN, max_size=3),
)
ALERT = st.builds(
    lambda n, items, code: Command("Alert", n, items, (), code), NUMBER, ITEMS, NUMBER
)
STATUS = st.builds(Status, NUMBER, NUMBER, st.just("Get"), NUMBER, NAME, NAME, NUMBER)
RESULTS = st.builds(Results, NUMBER, NUMBER, ITEMS, NUMBER)
MESSAGE = st.builds(
    Message,
    NUMBER,
    NUMBER,
    NAME,
    NAME,
    st.lists(STATUS, max_size=3).map(tuple),
    st.lists(RESULTS, max_size=3).map(tuple),
    st.lists(st.one_of(PLAIN, GROUP, ALERT), max_size=3).map(tuple),
    st.booleans(),
    st.integers(0, 10**6),
)


@given(MESSAGE)
def test_a_message_that_is_written_reads_back_the_same(message: Message) -> None:
    assert messages.read(messages.write(message)) == message


@given(TEXT, TEXT)
def test_requests_carry_any_name_as_it_is(upn: str, name: str) -> None:
    facts = envelope.Facts("D", "H", name, "10.0", "4", "02-00", upn)
    for raw in (
        envelope.discover("https://a", upn, "10.0", "4"),
        envelope.request("https://a", "token", b"csr", facts),
    ):
        found = [element.text or "" for element in etree.fromstring(raw).iter()]
        assert {upn, name} & set(found)


def test_numbers_begin_at_one_and_never_repeat() -> None:
    status = Status("1", "0", "SyncHdr", "200")
    message = Message("1", "1", "t", "s", (status, status), (), (Command("Get", ""),)).numbered()
    assert [s.id for s in message.statuses] == ["1", "2"]
    assert message.commands[0].id == "3"


def test_a_job_that_is_embedded_instead_of_escaped_is_read_all_the_same() -> None:
    data = (
        b'<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr/><SyncBody><Exec><CmdID>2</CmdID><Item><Data>'
        b'<MsiInstallJob id="{A}"><Product/></MsiInstallJob></Data></Item></Exec></SyncBody></SyncML>'
    )
    (command,) = messages.read(data).commands
    assert "<MsiInstallJob" in (command.items[0].data or "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<SyncML>",
        b"<html/>",
        b'<!DOCTYPE x [<!ENTITY e "aaa">]><SyncML><SyncHdr/><SyncBody>&e;</SyncBody></SyncML>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><SyncML><SyncHdr/><SyncBody/></SyncML>',
        b"<SyncML><SyncHdr/></SyncML>",
        b"<a>" * 5000,
        b"x" * (5 * 1024 * 1024),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        messages.read(data)


def test_messages_of_real_services_are_read(samples: Path) -> None:
    read = 0
    for file in sorted((samples / "mdm").glob("s2d-*.xml")):
        raw = file.read_bytes()
        if b"<SyncBody" not in raw:
            continue
        if b"<SyncHdr" not in raw:
            # Documentation prints the body alone.
            raw = raw.replace(b"<SyncBody", b"<SyncHdr/><SyncBody", 1)
        try:
            found = messages.read(raw)
        except BadAnswer:
            # Some were printed with defects; these a service must not send either.
            with pytest.raises(etree.XMLSyntaxError):
                etree.fromstring(raw)
            continue
        assert found.commands or found.statuses, file.name
        read += 1
    assert read > 10


def test_answers_to_an_enrollment_are_read(samples: Path) -> None:
    folder = samples / "mdm"
    found = envelope.read_discovery((folder / "s2d-discover-response-real.xml").read_bytes())
    assert found.enrollment_url.startswith("https://")
    policy = envelope.read_policies((folder / "s2d-getpolicies-response-spec.xml").read_bytes())
    assert (policy.minimal_bits, policy.hash_name) == (2048, "sha256")
    document = envelope.read_document((folder / "s2d-rstrc-response-real.xml").read_bytes())
    assert b"wap-provisioningdoc" in document


FAULT = """<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault>
<s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>{subcode}</s:Value></s:Subcode></s:Code>
<s:Reason><s:Text>no</s:Text></s:Reason><s:Detail>{detail}</s:Detail></s:Fault></s:Body></s:Envelope>"""
DETAIL = (
    '<DeviceEnrollmentServiceError xmlns="http://schemas.microsoft.com/windows/pki/2009/01/enrollment">'
    "<ErrorType>{0}</ErrorType><Message>m</Message><TraceId>t1</TraceId></DeviceEnrollmentServiceError>"
)


@pytest.mark.parametrize(
    ("subcode", "error_type", "number"),
    [
        ("s:Authorization", "UserLicense", "0x80180018"),
        ("s:Authorization", "DeviceCapReached", "0x80180013"),
        ("s:Authorization", "", "0x80180003"),
        ("s:Authentication", "", "0x80180002"),
        ("s:MessageFormat", "", "0x80180001"),
        ("s:CertificateRequest", "", "0x80180004"),
        ("s:EnrollmentServer", "", "0x80180005"),
        ("a:InternalServiceFault", "", "0x80180006"),
        ("a:InvalidSecurity", "", "0x80180007"),
    ],
)
def test_a_fault_has_the_number_that_windows_shows(
    subcode: str, error_type: str, number: str
) -> None:
    detail = DETAIL.format(error_type) if error_type else ""
    with pytest.raises(MdmError) as refusal:
        envelope.read_document(FAULT.format(subcode=subcode, detail=detail).encode())
    assert refusal.value.hresult == number
    assert refusal.value.cure
