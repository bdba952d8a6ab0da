"""SyncML 1.2 in and out."""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from lxml import etree

from tandem.infra import xml
from tandem.protocols.syncml.model import (
    BadMessage,
    Challenge,
    Command,
    Credential,
    Item,
    Message,
    Results,
    Status,
)

NS = "SYNCML:SYNCML1.2"
META = "syncml:metinf"
_MS = "http://schemas.microsoft.com/MobileDevice/MDM"
_COMMANDS = {"Get", "Add", "Replace", "Delete", "Exec", "Alert"}
_GROUPS = {"Atomic", "Sequence"}
_MAX_COMMANDS = 2000
_MAX_ITEMS = 10_000
# Groups in groups have a use once (a Sequence of Atomics); whoever sends more tries something.
_MAX_GROUPS = 4
# What XML 1.0 (section 2.2) has no place for, and what a text has to say otherwise besides.
_IMPOSSIBLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile("[^\t\n\x20-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _local(element: Any) -> str:
    # etree.QName says the same, and takes longer than all the rest of reading.
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _child(parent: Any, name: str) -> Any:
    """The first child of this name, whatever its namespace."""
    return None if parent is None else next(parent.iterchildren(f"{{*}}{name}"), None)


def _parts(parent: Any) -> dict[str, Any]:
    """Its children by name; of several of one name the first. For who asks for many of them."""
    found: dict[str, Any] = {}
    if parent is not None:
        for child in parent:
            found.setdefault(_local(child), child)
    return found


def _said(element: Any) -> str:
    return (element.text or "").strip() if element is not None else ""


def _text(parent: Any, *names: str) -> str:
    for name in names:
        parent = _child(parent, name)
    return _said(parent)


def read(data: bytes) -> Message:
    """Raises BadMessage."""
    try:
        root = xml.parse(data)
    except xml.BadXml as error:
        raise BadMessage(str(error)) from None
    if _local(root) != "SyncML":
        raise BadMessage("not a SyncML message")
    # What is not in the bytes so often is no element so often.
    if data.count(b"Item") > _MAX_ITEMS and sum(1 for _ in root.iter("{*}Item")) > _MAX_ITEMS:
        raise BadMessage("too many items in one message")
    whole = _parts(root)
    header, body = _parts(whole.get("SyncHdr")), whole.get("SyncBody")
    if "SyncHdr" not in whole or body is None:
        raise BadMessage("SyncHdr or SyncBody is missing")
    number = _said(header.get("MsgID"))
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise BadMessage("MsgID is not a number")
    if _said(header.get("VerProto")) not in ("", "DM/1.2"):
        raise BadMessage("not OMA-DM 1.2")
    commands, statuses, results = _body(body)
    return Message(
        _said(header.get("SessionID"))[:64],
        int(number),
        _text(header.get("Target"), "LocURI"),
        _text(header.get("Source"), "LocURI"),
        tuple(commands),
        tuple(statuses),
        tuple(results),
        _child(body, "Final") is not None,
        _number(_text(header.get("Meta"), "MaxMsgSize")),
        _credential(header.get("Cred")),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _credential(element: Any) -> Credential | None:
    if element is None:
        return None
    return Credential(_text(element, "Meta", "Type")[:64], _text(element, "Data")[:1024])


def _body(body: Any, groups: int = 0) -> tuple[list[Command], list[Status], list[Results]]:
    commands: list[Command] = []
    statuses: list[Status] = []
    results: list[Results] = []
    if len(body) > _MAX_COMMANDS:
        raise BadMessage("too many commands in one message")
    for element in body:
        name = _local(element)
        if name in _COMMANDS:
            commands.append(
                Command(name, _text(element, "CmdID"), _items(element), _text(element, "Data"))
            )
        elif name in _GROUPS:
            if groups == _MAX_GROUPS:
                raise BadMessage("groups of commands are nested too deeply")
            children, _, _ = _body(element, groups + 1)
            commands.append(Command(name, _text(element, "CmdID"), children=tuple(children)))
        elif name == "Status":
            statuses.append(_status(element))
        elif name == "Results":
            results.append(
                Results(
                    _text(element, "CmdID"),
                    _text(element, "MsgRef") or "1",
                    _text(element, "CmdRef"),
                    _items(element),
                )
            )
    return commands, statuses, results


def _items(element: Any) -> tuple[Item, ...]:
    """Its items. Size, Format and Type that stand once for all of them count for each."""
    found = [item for item in element if _local(item) == "Item"]
    if not found:
        return ()
    meta = _parts(_child(element, "Meta"))
    return tuple(_item(item, meta) for item in found)


def _status(element: Any) -> Status:
    parts = _parts(element)
    data = parts.get("Data")
    text = _said(data)
    if data is None or not text.isascii() or not text.isdigit() or len(text) > 4:
        raise BadMessage("a Status has no code")
    return Status(
        _said(parts.get("CmdID")),
        _said(parts.get("MsgRef")),
        _said(parts.get("CmdRef")),
        _said(parts.get("Cmd")),
        int(text),
        data.get(f"{{{_MS}}}originalerror", ""),
        _challenge(parts.get("Chal")),
    )


def _challenge(element: Any) -> Challenge | None:
    if element is None:
        return None
    text = _text(element, "Meta", "NextNonce")[:1024]
    try:
        nonce = b64decode(text)
    except (binascii.Error, ValueError):
        nonce = b""
    return Challenge(_text(element, "Meta", "Type")[:64], nonce)


def _item(element: Any, shared: Mapping[str, Any]) -> Item:
    parts = _parts(element)
    data, meta = parts.get("Data"), _parts(parts.get("Meta"))
    content: str | None = None
    if data is not None:
        content = data.text or ""
        if len(data):
            # Some senders embed what others escape.
            content = "".join(
                etree.tostring(child, encoding="unicode", with_tail=False) for child in data
            )

    def told(name: str) -> str:
        return _said(meta.get(name)) or _said(shared.get(name))

    return Item(
        _text(parts.get("Target"), "LocURI"),
        _text(parts.get("Source"), "LocURI"),
        content,
        told("Format"),
        _said(meta.get("Type")) or _said(parts.get("Type")) or _said(shared.get("Type")),
        "MoreData" in parts,
        _number(told("Size")),
    )


# ---------------------------------------------------------------------- out


def write(message: Message) -> bytes:
    """The message in the order of the DTD: header status first, then statuses, then commands.

    Written as text: a tree of elements that is only serialised took three times as long. Raises
    ValueError for characters that XML has no place for.
    """
    out = [f'<SyncML xmlns="{NS}"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>']
    out += [
        _said_as("SessionID", message.session),
        _said_as("MsgID", str(message.number)),
        f"<Target>{_said_as('LocURI', message.target)}</Target>",
        f"<Source>{_said_as('LocURI', message.source)}</Source>",
    ]
    if message.credential is not None:
        meta = _meta(Format="b64", Type=message.credential.type)
        out.append(f"<Cred>{meta}{_said_as('Data', message.credential.data)}</Cred>")
    if message.max_size:
        out.append(_meta(MaxMsgSize=str(message.max_size)))
    out.append("</SyncHdr><SyncBody>")
    out += map(_status_as_text, message.statuses)
    for command in message.commands:
        _write_command(out, command)
    for result in message.results:
        out += [
            "<Results>",
            _said_as("CmdID", result.id),
            _said_as("MsgRef", result.message_ref),
            _said_as("CmdRef", result.command_ref),
            *map(_item_as_text, result.items),
            "</Results>",
        ]
    out.append("<Final/></SyncBody></SyncML>" if message.final else "</SyncBody></SyncML>")
    return "".join(out).encode()


def _status_as_text(status: Status) -> str:
    challenge = ""
    if status.challenge is not None:
        nonce = b64encode(status.challenge.nonce).decode()
        meta = _meta(Format="b64", Type=status.challenge.type, NextNonce=nonce)
        challenge = f"<Chal>{meta}</Chal>"
    return (
        f"<Status>{_said_as('CmdID', status.id)}{_said_as('MsgRef', status.message_ref)}"
        f"{_said_as('CmdRef', status.command_ref)}{_said_as('Cmd', status.command)}{challenge}"
        f"<Data>{status.code}</Data></Status>"
    )


def _write_command(out: list[str], command: Command) -> None:
    out += [f"<{command.name}>", _said_as("CmdID", command.id)]
    if command.data:
        out.append(_said_as("Data", command.data))
    out += map(_item_as_text, command.items)
    for child in command.children:
        _write_command(out, child)
    out.append(f"</{command.name}>")


def _item_as_text(item: Item) -> str:
    target = f"<Target>{_said_as('LocURI', item.target)}</Target>" if item.target else ""
    source = f"<Source>{_said_as('LocURI', item.source)}</Source>" if item.source else ""
    size = str(item.size) if item.size else ""
    meta = _meta(Format=item.format, Type=item.type, Size=size)
    data = _said_as("Data", item.data) if item.data is not None else ""
    more = "<MoreData/>" if item.more else ""
    return f"<Item>{target}{source}{meta}{data}{more}</Item>"


def _meta(**values: str) -> str:
    """Meta with those of the values that say something."""
    given = "".join(
        f'<{name} xmlns="{META}">{_escaped(value)}</{name}>'
        for name, value in values.items()
        if value
    )
    return f"<Meta>{given}</Meta>" if given else ""


def _said_as(name: str, text: str) -> str:
    return f"<{name}>{_escaped(text)}</{name}>"


def _escaped(text: str) -> str:
    if _SPECIAL.search(text) is None:
        return text
    if _IMPOSSIBLE.search(text) is not None:
        raise ValueError("characters that XML has no place for")
    return escape(text, {"\r": "&#13;"})


def same_node(one: str, other: str) -> bool:
    """Whether two LocURIs name one node (section 11.5)."""
    return normal(one) == normal(other)


def normal(uri: str) -> str:
    folded = uri.strip().lower().replace("%7b", "{").replace("%7d", "}").removeprefix("./")
    return folded.removeprefix("device/")


def whole(text: str | None) -> int | None:
    """A number of at most 32 bits, as devices write it; None for anything else."""
    text = (text or "").strip()
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        return None
    number = int(text)
    return number if -(1 << 31) <= number < 1 << 32 else None
