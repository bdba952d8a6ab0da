"""OMA-DM messages: what is read, what is refused, and that nothing is lost on the way."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.agent.mdm import messages as device_side
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status

TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xD7FF), max_size=40)
WORD = st.text(st.sampled_from("abcXYZ019-{}%&<>\"'/"), min_size=1, max_size=20)
ITEMS = st.builds(
    Item,
    target=WORD,
    data=st.none() | TEXT,
    format=st.sampled_from(["", "chr", "int", "xml"]),
    more=st.booleans(),
    size=st.integers(0, 1 << 20),
)
SINGLE = st.builds(
    Command,
    st.sampled_from(["Get", "Add", "Replace", "Delete", "Exec", "Alert"]),
    WORD,
    st.lists(ITEMS, max_size=3).map(tuple),
    st.sampled_from(["", "1201"]),
)
COMMANDS = SINGLE | st.builds(
    Command,
    st.sampled_from(["Atomic", "Sequence"]),
    WORD,
    children=st.lists(SINGLE, max_size=3).map(tuple),
)
STATUSES = st.builds(
    Status,
    WORD,
    st.just("1"),
    WORD,
    st.sampled_from(["Get", "SyncHdr"]),
    st.integers(100, 599),
    challenge=st.none()
    | st.builds(syncml.Challenge, st.just("syncml:auth-md5"), st.binary(max_size=20)),
)
RESULTS = st.builds(Results, WORD, st.just("1"), WORD, st.lists(ITEMS, max_size=2).map(tuple))
MESSAGES = st.builds(
    Message,
    WORD,
    st.integers(0, 99999),
    WORD,
    WORD,
    st.lists(COMMANDS, max_size=5).map(tuple),
    st.lists(STATUSES, max_size=5).map(tuple),
    st.lists(RESULTS, max_size=3).map(tuple),
    st.booleans(),
    st.integers(0, 1 << 20),
    st.none() | st.builds(syncml.Credential, st.just("syncml:auth-md5"), WORD),
)


@given(MESSAGES)
def test_a_message_that_was_written_reads_the_same(message: Message) -> None:
    assert syncml.read(syncml.write(message)) == message


def test_the_devices_side_reads_what_is_written() -> None:
    job = Item(target="./A/%7B1%7D/DownloadInstall", data='<Job a="1&2"/>', format="xml")
    made = syncml.write(
        Message(
            "2F",
            3,
            "device",
            "https://mdm",
            (Command("Exec", "5", (job,)),),
            (Status("1", "3", "0", "SyncHdr", 200),),
        )
    )
    read = device_side.read(made)
    assert (read.session, read.number, read.final) == ("2F", "3", True)
    assert read.commands[0].items[0].data == '<Job a="1&2"/>'
    assert read.statuses[0].code == "200"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("./Device/Vendor/MSFT/X", "./Vendor/MSFT/X"),
        ("./Vendor/MSFT/%7BAB%7D/S", "./device/vendor/msft/{ab}/s"),
        (" ./DevDetail/SwV ", "./DevDetail/SwV"),
    ],
)
def test_one_node_has_several_spellings(one: str, other: str) -> None:
    assert syncml.same_node(one, other)


def test_other_nodes_are_other_nodes() -> None:
    assert not syncml.same_node("./DevDetail/SwV", "./DevDetail/HwV")
    assert not syncml.same_node("./User/Vendor/MSFT/X", "./Device/Vendor/MSFT/X")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<SyncML/>",
        b"<!DOCTYPE SyncML [<!ENTITY a 'b'>]><SyncML/>",
        b"<SyncML><SyncHdr><MsgID>x</MsgID></SyncHdr><SyncBody/></SyncML>",
        b"<SyncML><SyncHdr><MsgID>1</MsgID></SyncHdr><SyncBody><Status><CmdID>1</CmdID>"
        b"<Data>soon</Data></Status></SyncBody></SyncML>",
        b"<SyncML><SyncHdr><MsgID>1</MsgID></SyncHdr><SyncBody>"
        + b"<Get><CmdID>1</CmdID></Get>" * 2001
        + b"</SyncBody></SyncML>",
        b"<SyncML><SyncHdr><MsgID>1</MsgID></SyncHdr><SyncBody><Results>"
        + b"<Item/>" * 10_001
        + b"</Results></SyncBody></SyncML>",
        b"<SyncML><SyncHdr><MsgID>1</MsgID></SyncHdr><SyncBody>"
        + b"<a>" * 63
        + b"</a>" * 63
        + b"</SyncBody></SyncML>",
        b"<SyncML><SyncHdr><MsgID>1</MsgID></SyncHdr><SyncBody>"
        + b"<Atomic>" * 5
        + b"</Atomic>" * 5
        + b"</SyncBody></SyncML>",
        b"<SyncML><SyncHdr><VerProto>DM/1.1</VerProto><MsgID>1</MsgID></SyncHdr><SyncBody/>"
        b"</SyncML>",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(syncml.BadMessage):
        syncml.read(data)


# ------------------------------------------------------------------ wire examples

REFUSED = {
    "d2s-alert-aadusertoken.xml",
    "d2s-alert-loginstatus-aad.xml",
    "d2s-alert-loginstatus-smartquotes.xml",
    "d2s-syncml-docs-utf16decl-empty-hdr.xml",
    "d2s-status-405-utf16decl.xml",
}
FRAGMENTS = ("d2s-status-", "d2s-results-")


def test_every_example_of_a_session_is_read_or_refused_as_it_has_to_be(samples: Path) -> None:
    for file in sorted((samples / "mdm").glob("d2s-*.xml")):
        name = file.name
        if name.startswith(("d2s-discover", "d2s-getpolicies", "d2s-rst")):
            continue
        if name in REFUSED:
            with pytest.raises(syncml.BadMessage):
                syncml.read(file.read_bytes())
        elif name.startswith(FRAGMENTS):
            with contextlib.suppress(syncml.BadMessage):
                syncml.read(file.read_bytes())
        else:
            assert syncml.read(file.read_bytes()).number >= 0, name


def example(samples: Path, name: str) -> Message:
    return syncml.read((samples / "mdm" / name).read_bytes())


def test_the_result_of_an_installation_is_understood(samples: Path) -> None:
    read = example(samples, "d2s-alert-msi-install-result.xml")
    alert = read.commands[-1]
    assert alert.data in {"1224", "1226"}
    assert alert.items[0].type.endswith("win32csp_install")
    assert "/MSI/" in alert.items[0].source
    assert alert.items[0].data == "0"


def test_a_busy_device_keeps_its_session_open(samples: Path) -> None:
    read = example(samples, "d2s-syncml-requestpending.xml")
    assert (read.number, read.final, read.statuses) == (2, False, ())


def test_a_users_departure_is_understood(samples: Path) -> None:
    read = example(samples, "d2s-syncml-real-user-unenroll.xml")
    types = [item.type for command in read.commands for item in command.items]
    assert "com.microsoft:mdm.unenrollment.userrequest" in types


def test_comments_do_not_cut_values(samples: Path) -> None:
    read = example(samples, "d2s-syncml-spec-results.xml")
    assert len(read.results) == 2
    assert all(result.items[0].data for result in read.results)
