"""OMA-DM messages as the device writes and reads them (SyncML 1.2).

A message has a header (session, number, from whom to whom) and a body: statuses of what the other
side asked for, results of its Gets, commands. An answer without commands ends the session.
"""

from dataclasses import dataclass, replace
from xml.sax.saxutils import escape

from lxml import etree

from tandem.agent.mdm import xml
from tandem.agent.mdm.model import BadAnswer

COMMANDS = ("Alert", "Add", "Replace", "Delete", "Get", "Exec", "Atomic", "Sequence")
_GROUPS = ("Atomic", "Sequence")
_META = "syncml:metinf"


@dataclass(frozen=True)
class Item:
    """`target` and `source` are LocURIs; the other side's items have a target, results a source."""

    target: str = ""
    source: str = ""
    data: str | None = None
    format: str = ""
    type: str = ""
    more: bool = False


@dataclass(frozen=True)
class Command:
    """One command. `children` are those of a group; `data` is the number of an Alert."""

    name: str
    id: str
    items: tuple[Item, ...] = ()
    children: tuple["Command", ...] = ()
    data: str = ""


@dataclass(frozen=True)
class Status:
    message_ref: str
    command_ref: str
    command: str
    code: str
    target: str = ""
    source: str = ""
    id: str = ""


@dataclass(frozen=True)
class Results:
    message_ref: str
    command_ref: str
    items: tuple[Item, ...]
    id: str = ""


@dataclass(frozen=True)
class Message:
    session: str
    number: str
    target: str
    source: str
    statuses: tuple[Status, ...] = ()
    results: tuple[Results, ...] = ()
    commands: tuple[Command, ...] = ()
    final: bool = True
    max_bytes: int = 0

    def numbered(self) -> "Message":
        """The message with command ids 1, 2, 3… over statuses, results and commands."""
        at = 0
        statuses, results, commands = [], [], []
        for status in self.statuses:
            statuses.append(replace(status, id=str(at := at + 1)))
        for result in self.results:
            results.append(replace(result, id=str(at := at + 1)))
        for command in self.commands:
            commands.append(replace(command, id=str(at := at + 1)))
        return replace(
            self, statuses=tuple(statuses), results=tuple(results), commands=tuple(commands)
        )


def write(message: Message) -> bytes:
    meta = f'<Meta><MaxMsgSize xmlns="{_META}">{message.max_bytes}</MaxMsgSize></Meta>'
    parts = [
        '<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>',
        _leaf("SessionID", message.session),
        _leaf("MsgID", message.number),
        f"<Target>{_leaf('LocURI', message.target)}</Target>",
        f"<Source>{_leaf('LocURI', message.source)}</Source>",
        meta if message.max_bytes else "",
        "</SyncHdr><SyncBody>",
        *(_status(status) for status in message.statuses),
        *(_results(result) for result in message.results),
        *(_command(command) for command in message.commands),
        "<Final/>" if message.final else "",
        "</SyncBody></SyncML>",
    ]
    return "".join(parts).encode()


def _leaf(name: str, value: str) -> str:
    # Line ends and tabs would not survive the XML of the other side as they are.
    safe = escape(value, {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})
    return f"<{name}>{safe}</{name}>"


def _status(status: Status) -> str:
    return (
        "<Status>"
        + _leaf("CmdID", status.id)
        + _leaf("MsgRef", status.message_ref)
        + _leaf("CmdRef", status.command_ref)
        + _leaf("Cmd", status.command)
        + (_leaf("TargetRef", status.target) if status.target else "")
        + (_leaf("SourceRef", status.source) if status.source else "")
        + _leaf("Data", status.code)
        + "</Status>"
    )


def _results(result: Results) -> str:
    return (
        "<Results>"
        + _leaf("CmdID", result.id)
        + _leaf("MsgRef", result.message_ref)
        + _leaf("CmdRef", result.command_ref)
        + "".join(_item(item) for item in result.items)
        + "</Results>"
    )


def _command(command: Command) -> str:
    return (
        f"<{command.name}>"
        + _leaf("CmdID", command.id)
        + (_leaf("Data", command.data) if command.data else "")
        + "".join(_item(item) for item in command.items)
        + "".join(_command(child) for child in command.children)
        + f"</{command.name}>"
    )


def _item(item: Item) -> str:
    meta = ""
    for name, value in (("Format", item.format), ("Type", item.type)):
        if value:
            meta += f'<{name} xmlns="{_META}">{escape(value)}</{name}>'
    return (
        "<Item>"
        + (f"<Target>{_leaf('LocURI', item.target)}</Target>" if item.target else "")
        + (f"<Source>{_leaf('LocURI', item.source)}</Source>" if item.source else "")
        + (f"<Meta>{meta}</Meta>" if meta else "")
        + (_leaf("Data", item.data) if item.data is not None else "")
        + ("<MoreData/>" if item.more else "")
        + "</Item>"
    )


def read(data: bytes) -> Message:
    """Raises BadAnswer."""
    root = xml.parse(data)
    header, body = xml.find(root, "SyncHdr"), xml.find(root, "SyncBody")
    if xml.local(root) != "SyncML" or header is None or body is None:
        raise BadAnswer("0x80180001", "The management service's answer is no SyncML message.")
    session, number = (xml.text(xml.find(header, name)) for name in ("SessionID", "MsgID"))
    statuses, results, commands = [], [], []
    for element in body:
        name = xml.local(element)
        if name == "Status":
            statuses.append(_read_status(element))
        elif name == "Results":
            results.append(_read_results(element))
        elif name in COMMANDS:
            commands.append(_read_command(element))
    size = xml.text(xml.find(header, "Meta", "MaxMsgSize"))
    return Message(
        session,
        number,
        xml.text(xml.find(header, "Target", "LocURI")),
        xml.text(xml.find(header, "Source", "LocURI")),
        tuple(statuses),
        tuple(results),
        tuple(commands),
        xml.find(body, "Final") is not None,
        int(size) if size.isascii() and size.isdigit() else 0,
    )


def _read_status(element: etree._Element) -> Status:
    names = ("MsgRef", "CmdRef", "Cmd", "Data", "TargetRef", "SourceRef", "CmdID")
    return Status(*(xml.text(xml.find(element, name)) for name in names))


def _read_results(element: etree._Element) -> Results:
    refs = [xml.text(xml.find(element, name)) for name in ("MsgRef", "CmdRef")]
    return Results(refs[0], refs[1], _items(element), xml.text(xml.find(element, "CmdID")))


def _read_command(element: etree._Element, depth: int = 0) -> Command:
    name = xml.local(element)
    children: tuple[Command, ...] = ()
    if name in _GROUPS and depth < 2:
        children = tuple(
            _read_command(child, depth + 1) for child in element if xml.local(child) in COMMANDS
        )
    return Command(
        name,
        xml.text(xml.find(element, "CmdID")),
        _items(element, xml.find(element, "Meta")),
        children,
        xml.text(xml.find(element, "Data")),
    )


def _items(element: etree._Element, common: etree._Element | None = None) -> tuple[Item, ...]:
    """The items; a Meta of the command counts for those that have none."""
    return tuple(_read_item(child, common) for child in element if xml.local(child) == "Item")


def _read_item(element: etree._Element, common: etree._Element | None) -> Item:
    meta = xml.find(element, "Meta")
    if meta is None:
        meta = common
    # Some services write Type beside Meta instead of inside.
    inside = element if meta is None else meta
    data = xml.find(element, "Data")
    return Item(
        xml.text(xml.find(element, "Target", "LocURI")),
        xml.text(xml.find(element, "Source", "LocURI")),
        None if data is None else _data(data),
        xml.text(xml.find(inside, "Format")),
        xml.text(xml.find(inside, "Type")),
        xml.find(element, "MoreData") is not None,
    )


def _data(element: etree._Element) -> str:
    """The text, or the markup where somebody embedded elements instead of escaping them."""
    if len(element) == 0:
        return element.text or ""
    return (element.text or "") + "".join(
        etree.tostring(child, encoding="unicode") for child in element
    )
