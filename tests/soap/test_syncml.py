"""OMA-DM messages: there and back, and what cannot be one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status

TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"
    ),
    max_size=30,
)
NAME = st.text("abcdefABCDEF./_", min_size=1, max_size=20)
ITEMS = st.lists(
    st.builds(
        Item,
        target=NAME,
        source=st.just(""),
        data=st.one_of(st.none(), TEXT),
        format=st.sampled_from(["", "chr", "int"]),
        type=st.just(""),
    ),
    max_size=3,
).map(tuple)
COMMANDS = st.lists(
    st.builds(
        Command,
        st.sampled_from(["Get", "Add", "Replace", "Exec"]),
        st.integers(1, 99).map(str),
        ITEMS,
    ),
    max_size=4,
).map(tuple)
STATUSES = st.lists(
    st.builds(
        Status,
        st.integers(1, 99).map(str),
        st.just("1"),
        st.just("2"),
        st.just("Get"),
        st.integers(200, 599),
    ),
    max_size=3,
).map(tuple)


@given(COMMANDS, STATUSES, st.integers(1, 10_000), NAME)
def test_what_is_written_is_read(
    commands: tuple[Command, ...], statuses: tuple[Status, ...], number: int, source: str
) -> None:
    message = Message("2F", number, "https://t", source, commands, statuses)
    assert syncml.read(syncml.write(message)) == message


@given(st.binary(max_size=300))
def test_rubbish_never_breaks_the_reader(raw: bytes) -> None:
    with pytest.raises(syncml.BadMessage):
        syncml.read(raw)


def test_entities_and_doctypes_are_refused() -> None:
    raw = syncml.write(Message("1", 1, "t", "s"))
    with pytest.raises(syncml.BadMessage):
        syncml.read(b'<!DOCTYPE SyncML [<!ENTITY a "b">]>' + raw)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("./Device/Vendor/MSFT/X", "./Vendor/MSFT/X"),
        ("./Vendor/MSFT/MSI/%7BAB%7D/Status", "./device/vendor/msft/msi/{ab}/status"),
    ],
)
def test_one_node_has_many_spellings(one: str, other: str) -> None:
    assert syncml.same_node(one, other)
    assert not syncml.same_node(one, other + "x")


def test_results_without_a_message_reference_belong_to_the_first() -> None:
    raw = (
        b"<SyncML xmlns='SYNCML:SYNCML1.2'><SyncHdr><SessionID>1</SessionID><MsgID>2</MsgID>"
        b"</SyncHdr><SyncBody><Results><CmdID>3</CmdID><CmdRef>5</CmdRef><Item><Source><LocURI>"
        b"./DevDetail/SwV</LocURI></Source><Data>10.0.1</Data></Item></Results><Final/></SyncBody>"
        b"</SyncML>"
    )
    (results,) = syncml.read(raw).results
    assert results == Results("3", "1", "5", (Item(source="./DevDetail/SwV", data="10.0.1"),))


def test_captured_messages_are_read(samples: Path) -> None:
    read = refused = 0
    for path in sorted((samples / "mdm").glob("d2s-*.xml")):
        if any(kind in path.name for kind in ("discover", "getpolicies", "rst")):
            continue
        try:
            syncml.read(path.read_bytes())
            read += 1
        except syncml.BadMessage:
            refused += 1
    assert read > 20
    assert refused < 8
