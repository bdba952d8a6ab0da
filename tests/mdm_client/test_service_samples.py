"""Every message of a service among the wire examples, read and obeyed by the device's client.

Examples that are new in the folder have to be put into a table.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxml import etree
from test_session import ADDRESS, Service, server, session

from tandem.agent.mdm import BadAnswer, envelope, messages, provisioning
from tandem.agent.mdm.messages import Command

# What a session is told to do; None where the print is no XML, which a device cannot even answer.
COMMANDS = {
    "admx-ingest": "Add",
    "certstore-renew-atomic": "Atomic(Replace Replace Replace)",
    "csp-version-get": "Get",
    "devicelock-atomic": f"Atomic({' '.join(['Add'] * 9)})",
    "exploitguard-cdata": "Replace",
    "get-certificates": "Get",
    "get-cspversions": "Get",
    "get-devicename": "Get",
    "get-localtime": "Get",
    "linkedenrollment-replace": "Replace",
    "msi-install-atomic": None,
    "msi-install-device": "Add Exec",
    "msi-install-poc": "Add Exec",
    "msi-install-user": "Add Exec",
    "msi-status-get": "Get",
    "msi-uninstall": "Delete",
    "pfx-atomic": f"Delete Atomic({' '.join(['Add'] * 6)})",
    "replace-defender": None,
    "replace-firewall": None,
    "scep-atomic": None,
    "serveraddresslist": None,
    "syncml-response-real-two-replace": "Replace Replace",
    "syncml-response-real-unenroll": "",
    "syncml-spec-gets": "Get Get",
    "unenroll-exec": None,
    "vpn-atomic": "Atomic(Add)",
    "wifi-atomic-badxml": None,
    "windowslogon-cdata-atomic": "Atomic(Replace)",
}
# Answers of an enrollment service with who reads them, and whether a device can use them.
ANSWERS: dict[str, tuple[Callable[[bytes], object], type[Exception] | None]] = {
    "discover-response-real": (envelope.read_discovery, None),
    "discover-response-real-b": (envelope.read_discovery, None),
    # The token that this client brings counts, whatever way the service prefers (section 3).
    "discover-response-spec-certificate": (envelope.read_discovery, None),
    "discover-response-spec-federated": (envelope.read_discovery, None),
    "discover-response-spec-onpremise": (envelope.read_discovery, None),
    "fault-spec-authorization": (envelope.read_document, BadAnswer),
    "fault-spec-devicecapreached": (envelope.read_document, BadAnswer),
    "getpolicies-response-real": (envelope.read_policies, BadAnswer),
    "getpolicies-response-spec": (envelope.read_policies, None),
    # It offers SHA-1 alone, which this client does not sign with.
    "getpolicies-response-spec-attestation": (envelope.read_policies, BadAnswer),
    "rstrc-response-real": (envelope.read_document, None),
    "rstrc-response-spec": (envelope.read_document, BadAnswer),
}
DOCUMENTS = {
    "wap-provisioningdoc-real-b",
    "wap-provisioningdoc-spec-mam",
    "wap-provisioningdoc-spec-mdm-device",
    "wap-provisioningdoc-spec-mdm-user",
    "wap-renewal",
}
# The value of a setting by itself, for a service to deliver.
PAYLOADS = {"assignedaccess-cdata"}


def raw(samples: Path, name: str) -> bytes:
    return (samples / "mdm" / f"s2d-{name}.xml").read_bytes()


def test_every_example_is_in_a_table(samples: Path) -> None:
    there = {f.stem for f in (samples / "mdm").glob("s2d-*.xml")}
    assert there == {f"s2d-{name}" for name in (*COMMANDS, *ANSWERS, *DOCUMENTS, *PAYLOADS)}


def whole(data: bytes) -> bytes:
    """What is printed without its envelope, in one."""
    text = re.sub(rb"^<\?xml[^>]*\?>", b"", data.strip()).lstrip()
    if not text.startswith(b"<SyncML"):
        text = b'<SyncML xmlns="SYNCML:SYNCML1.2"><SyncBody>' + text + b"</SyncBody></SyncML>"
    if b"<SyncHdr" not in text:
        text = text.replace(b"<SyncBody", b"<SyncHdr/><SyncBody", 1)
    return text


def told(command: Command) -> str:
    inside = " ".join(told(child) for child in command.children)
    return f"{command.name}({inside})" if inside else command.name


def flat(commands: tuple[Command, ...]) -> Iterator[Command]:
    for command in commands:
        yield command
        yield from flat(command.children)


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_device_answers_every_command_of_an_example(samples: Path, name: str) -> None:
    """A Status for each, also inside a group, and Results for what is there."""
    data, wanted = whole(raw(samples, name)), COMMANDS[name]
    if wanted is None:
        with pytest.raises(BadAnswer):
            messages.read(data)
        with pytest.raises(etree.XMLSyntaxError):
            etree.fromstring(data)
        return
    read = messages.read(data)
    assert " ".join(told(command) for command in read.commands) == wanted
    body = re.search(rb"<SyncBody>(.*)</SyncBody>", data, re.DOTALL)
    assert body is not None
    commands = re.sub(rb"<Status>.*?</Status>|<Final\s*/>", b"", body[1], flags=re.DOTALL)
    service = Service(server(1, commands.decode()), server(2, ""))
    await session(service)
    if not read.commands:
        assert len(service.heard) == 1, "the session is over"
        return
    answered = re.findall(r"<CmdRef>([^<]*)</CmdRef><Cmd>(\w+)</Cmd>", service.heard[1])
    assert answered[0] == ("0", "SyncHdr")
    assert answered[1:] == [(command.id, command.name) for command in flat(read.commands)]
    there = {"get-devicename", "get-cspversions", "syncml-spec-gets"}
    assert ("<Results>" in service.heard[1]) == (name in there)
    assert service.heard[1].count(ADDRESS) == 1


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_to_an_enrollment_is_used_or_refused(samples: Path, name: str) -> None:
    reader, refusal = ANSWERS[name]
    data = raw(samples, name)
    if refusal is None:
        assert reader(data)
        return
    with pytest.raises(refusal):
        reader(data)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_provisioning_document_is_only_taken_for_its_own_key(samples: Path, name: str) -> None:
    """The captures are of other people's keys; what is printed with defects is no document."""
    from tandem import pki

    with pytest.raises(BadAnswer) as refusal:
        provisioning.read(raw(samples, name), pki.generate_key("p256").public_key())
    readable = name.endswith(("real-b", "spec-mam", "renewal"))
    assert refusal.value.hresult == ("0x80180004" if readable else "0x80180001")


@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_a_payload_arrives_as_it_was_sent(samples: Path, name: str) -> None:
    text = raw(samples, name).decode().replace("\r\n", "\n")
    item = messages.Item(target="./Vendor/MSFT/AssignedAccess/Configuration", data=text)
    sent = messages.write(
        messages.Message("1", "1", "t", "s", commands=(Command("Add", "2", (item,)),))
    )
    (read,) = messages.read(sent).commands
    assert read.items[0].data == text
