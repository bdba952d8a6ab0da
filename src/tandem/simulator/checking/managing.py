"""What answers in a session have to look like (section 11)."""

import re
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterator
from hashlib import sha256

from tandem.simulator.checking.model import (
    Exchange,
    Musts,
    Node,
    Problems,
    children,
    local,
    strict,
    text,
)

NS = "SYNCML:SYNCML1.2"
META = "syncml:metinf"
COMMANDS = ("Alert", "Add", "Replace", "Delete", "Get", "Exec", "Atomic", "Sequence")
GROUPS = ("Atomic", "Sequence")
# More of them hold up the answer of a slow device (section 11.3).
_MOST_COMMANDS = 100
# A server-sent value is to stay below what every device's buffer holds (section 11.8).
_MOST_DATA_BYTES = 512 * 1024
_FORMATS = {"chr", "int", "bool", "node", "null", "b64", "bin", "xml", "float", "date", "time"}

# Children in the order of the DTD. `*` marks what may come more than once.
_ORDER = {
    "SyncML": "SyncHdr SyncBody",
    "SyncHdr": "VerDTD VerProto SessionID MsgID Target Source RespURI NoResp Cred Meta",
    "Status": "CmdID MsgRef CmdRef Cmd TargetRef* SourceRef* Cred Chal Data Item*",
    "Results": "CmdID MsgRef CmdRef Meta TargetRef SourceRef Item*",
    "Alert": "CmdID NoResp Cred Data Correlator Item*",
    "Get": "CmdID NoResp Lang Cred Meta Item*",
    "Add": "CmdID NoResp Cred Meta Item*",
    "Replace": "CmdID NoResp Cred Meta Item*",
    "Delete": "CmdID NoResp Archive SftDel Cred Meta Item*",
    "Exec": "CmdID NoResp Cred Meta Correlator Item*",
    "Item": "Target Source SourceParent TargetParent Meta Data MoreData",
    "Target": "LocURI LocName",
    "Source": "LocURI LocName",
    "Chal": "Meta",
    "Cred": "Meta Data",
}
_SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+")


def tag(name: str) -> str:
    return f"{{{NS}}}{name}"


def sync_body(exchange: Exchange) -> Node | None:
    return exchange.root.find(tag("SyncBody")) if exchange.root is not None else None


def statuses(exchange: Exchange) -> list[Node]:
    body = sync_body(exchange)
    return list(body.findall(tag("Status"))) if body is not None else []


def commands(exchange: Exchange) -> list[Node]:
    """The server's commands on the first level."""
    body = sync_body(exchange)
    return [c for c in (children(body) if body is not None else []) if local(c) in COMMANDS]


def every_command(exchange: Exchange) -> Iterator[Node]:
    """With those in groups."""
    for command in commands(exchange):
        yield command
        if local(command) in GROUPS:
            yield from (
                item for item in command.iter() if local(item) in COMMANDS and item is not command
            )


def is_message(exchange: Exchange) -> bool:
    return exchange.status == 200 and exchange.root is not None and local(exchange.root) == "SyncML"


def header_code(exchange: Exchange) -> str:
    """The code of the Status for our header."""
    found = statuses(exchange)
    return text(found[0], tag("Data")) if found else ""


def nonce(exchange: Exchange) -> bytes:
    """What a challenge wants a digest over; empty where there is none."""
    found = statuses(exchange)
    path = f"{tag('Chal')}/{tag('Meta')}/{{{META}}}NextNonce"
    try:
        return b64decode(text(found[0], path), validate=True) if found else b""
    except (BadBase64, ValueError):
        return b""


session = Musts(lambda exchange: exchange.kind == "syncml" and exchange.step.startswith("session"))
message = Musts(lambda exchange: session_answer(exchange))


def session_answer(exchange: Exchange) -> bool:
    return (
        exchange.kind == "syncml" and exchange.step.startswith("session") and is_message(exchange)
    )


@session("session.status", "11.1", "The HTTP status is 200, and the body a SyncML message.")
def _status(exchange: Exchange) -> Problems:
    if exchange.status != 200:
        yield f"status {exchange.status}"
    elif not exchange.body.strip():
        yield "an empty body"
    elif not is_message(exchange):
        yield "no SyncML message"


@session("session.type", "11.1", "Content-Type is application/vnd.syncml.dm+xml, in UTF-8.")
def _type(exchange: Exchange) -> Problems:
    kind, _, rest = (exchange.header("content-type") or "").replace(" ", "").lower().partition(";")
    if kind != "application/vnd.syncml.dm+xml" or rest not in ("", "charset=utf-8"):
        yield f"Content-Type {exchange.header('content-type')!r}"


@message("message.namespaces", "11.2", "Elements are SyncML 1.2's, those in Meta syncml:metinf's.")
def _namespaces(exchange: Exchange) -> Problems:
    root = exchange.root
    if root is None:
        return
    for element in root.iter():
        if not isinstance(element.tag, str) or any(
            local(a) == "Data" for a in element.iterancestors()
        ):
            continue
        inside = any(local(a) == "Meta" for a in element.iterancestors())
        wanted = META if inside else NS
        if not element.tag.startswith(f"{{{wanted}}}"):
            yield f"{local(element)} is not of {wanted}"


@message("message.order", "11.2", "Elements come in the order of the DTD.")
def _order(exchange: Exchange) -> Problems:
    root = exchange.root
    for element in root.iter() if root is not None else ():
        known = _ORDER.get(local(element))
        if known is None or any(local(a) == "Data" for a in element.iterancestors()):
            continue
        rank = {name.rstrip("*"): n for n, name in enumerate(known.split())}
        many = {name.rstrip("*") for name in known.split() if name.endswith("*")}
        names = [local(child) for child in children(element)]
        for name in names:
            if name not in rank:
                yield f"{name} in {local(element)}"
        ranks = [rank[name] for name in names if name in rank]
        if ranks != sorted(ranks):
            yield f"{local(element)} has {names}"
        for name in set(names) - many:
            if names.count(name) > 1:
                yield f"{local(element)} has {name} twice"


@message("message.header", "11.2", "The header says DM/1.2, our session, and who speaks to whom.")
def _header(exchange: Exchange) -> Problems:
    header = exchange.root.find(tag("SyncHdr")) if exchange.root is not None else None
    facts = exchange.facts
    wanted = {
        tag("VerDTD"): "1.2",
        tag("VerProto"): "DM/1.2",
        tag("SessionID"): facts.session,
        f"{tag('Target')}/{tag('LocURI')}": facts.device_id,
    }
    for path, value in wanted.items():
        if text(header, path) != value:
            yield f"{path.rpartition('}')[2]} {text(header, path)!r} instead of {value!r}"
    if not text(header, f"{tag('Source')}/{tag('LocURI')}"):
        yield "no Source"


@message("message.number", "11.2", "MsgID begins with 1 and grows by 1, as ours does.")
def _number(exchange: Exchange) -> Problems:
    told = text(exchange.root, f"{tag('SyncHdr')}/{tag('MsgID')}")
    if told != str(exchange.facts.number):
        yield f"MsgID {told!r} answers message {exchange.facts.number}"


@message(
    "message.header-status", "11.3", "The Status for the header comes first: CmdRef 0, SyncHdr."
)
def _header_status(exchange: Exchange) -> Problems:
    body = sync_body(exchange)
    first = next(iter(children(body) if body is not None else []), None)
    if first is None or local(first) != "Status":
        yield "the first element is no Status"
        return
    found = {name: text(first, tag(name)) for name in ("MsgRef", "CmdRef", "Cmd")}
    wanted = {"MsgRef": str(exchange.facts.number), "CmdRef": "0", "Cmd": "SyncHdr"}
    if found != wanted:
        yield f"{found}"
    if text(first, tag("Data")) not in ("200", "212"):
        yield f"code {text(first, tag('Data'))!r}"


@message("message.statuses", "11.3", "A Status for each of our commands, in our order, no other.")
def _statuses(exchange: Exchange) -> Problems:
    said = [
        (text(s, tag("CmdRef")), text(s, tag("Cmd")), text(s, tag("MsgRef")))
        for s in statuses(exchange)[1:]
    ]
    number = str(exchange.facts.number)
    wanted = [(id, name, number) for id, name in exchange.facts.commands]
    if said != wanted:
        yield f"{said} for {wanted}"
    for status in statuses(exchange):
        if not re.fullmatch(r"\d{3}", text(status, tag("Data"))):
            yield f"a Status without a code for {text(status, tag('CmdRef'))}"


@message("message.statuses-first", "11.3", "Statuses come before the commands.")
def _statuses_first(exchange: Exchange) -> Problems:
    body = sync_body(exchange)
    names = [local(child) for child in (children(body) if body is not None else [])]
    others = [n for n, name in enumerate(names) if name != "Status"]
    if others and "Status" in names[others[0] :]:
        yield f"a Status after a {names[others[0]]}"


@message(
    "message.ids", "11.2", "Every command has a CmdID of its own that is not 0, nested ones too."
)
def _ids(exchange: Exchange) -> Problems:
    seen: set[str] = set()
    body = sync_body(exchange)
    for element in body.iter() if body is not None else ():
        if local(element) not in (*COMMANDS, "Status", "Results"):
            continue
        told = text(element, tag("CmdID"))
        if not told.strip() or told == "0":
            yield f"{local(element)} has CmdID {told!r}"
        elif told in seen:
            yield f"CmdID {told} twice"
        seen.add(told)


@message("message.final", "11.2", "Final ends the message.")
def _final(exchange: Exchange) -> Problems:
    body = sync_body(exchange)
    names = [local(child) for child in (children(body) if body is not None else [])]
    if names.count("Final") != 1 or names[-1] != "Final":
        yield "Final is not the last element"


@message("message.size", "11.3", "The message is smaller than the device's MaxMsgSize.")
def _size(exchange: Exchange) -> Problems:
    most = exchange.facts.max_bytes
    if most and len(exchange.body) >= most:
        yield f"{len(exchange.body)} bytes; {most} were announced"


@message("message.count", "11.3", "Not more than about a hundred commands in a message.")
def _count(exchange: Exchange) -> Problems:
    count = sum(1 for _ in every_command(exchange))
    if count > _MOST_COMMANDS:
        yield f"{count} commands"


@message("message.quiet", "11.3, 14", "Nothing is asked of who is busy, is late, or leaves.")
def _quiet(exchange: Exchange) -> Problems:
    if exchange.facts.quiet and commands(exchange):
        yield f"{[local(c) for c in commands(exchange)]}"


@message("message.repeat", "11.3", "A message that comes again gets the answer that it got.")
def _repeat(exchange: Exchange) -> Problems:
    earlier = exchange.facts.earlier
    repeated = exchange.step == "session.again"
    if repeated and earlier is not None and earlier.body != exchange.body:
        yield "another answer"


# ---------------------------------------------------------------------- proof by digest

challenged = Musts(
    lambda exchange: (
        exchange.kind == "syncml"
        and exchange.step.startswith("refused")
        and is_message(exchange)
        and header_code(exchange) in ("401", "407")
    )
)


@challenged("challenge.form", "11.7", "A challenge is for MD5, with a nonce of 16 bytes in base64.")
def _challenge(exchange: Exchange) -> Problems:
    yield from _order(exchange)
    meta = statuses(exchange)[0].find(f"{tag('Chal')}/{tag('Meta')}")
    told = {name: text(meta, f"{{{META}}}{name}") for name in ("Type", "Format")}
    if told != {"Type": "syncml:auth-md5", "Format": "b64"}:
        yield f"{told}"
    if len(nonce(exchange)) < 16:
        yield "no nonce of 16 bytes"
    if len(statuses(exchange)) != 1:
        yield "it answers commands of who has not proved anything"


proved = Musts(lambda exchange: exchange.step == "session.digest" and is_message(exchange))


@proved("digest.next-nonce", "11.7", "Who proved itself by digest gets another nonce.")
def _next_nonce(exchange: Exchange) -> Problems:
    earlier = exchange.facts.earlier
    if len(nonce(exchange)) < 16 or (earlier is not None and nonce(earlier) == nonce(exchange)):
        yield "no nonce, or the same"


# ---------------------------------------------------------------------- commands

command = Musts(lambda exchange: session_answer(exchange) and bool(commands(exchange)))


def items(parent: Node) -> list[Node]:
    return list(parent.findall(tag("Item")))


def target(item: Node) -> str:
    return text(item, f"{tag('Target')}/{tag('LocURI')}")


def _meta(parent: Node, item: Node, name: str) -> str:
    path = f"{tag('Meta')}/{{{META}}}{name}"
    return text(item, path) or text(parent, path)


def _with_items(exchange: Exchange) -> Iterator[tuple[Node, Node]]:
    for one in every_command(exchange):
        for item in items(one):
            yield one, item


@command("command.item", "11.9", "Every command but an Alert or a group names its target.")
def _item(exchange: Exchange) -> Problems:
    for one in every_command(exchange):
        if local(one) not in (*GROUPS, "Alert") and not [i for i in items(one) if target(i)]:
            yield f"{local(one)} {text(one, tag('CmdID'))} has no target"


@command("command.loc-uri", "11.9", "A LocURI begins with ./ and has encoded segments.")
def _loc_uri(exchange: Exchange) -> Problems:
    for _, item in _with_items(exchange):
        told = target(item)
        if not told:
            continue
        path, _, question = told.partition("?")
        segments = path.split("/")
        if segments[0] != "." or len(segments) < 2:
            yield f"{told!r} does not begin with ./"
        elif any(s in (".", "..") or not _SEGMENT.fullmatch(s) for s in segments[1:]):
            yield f"{told!r} has a segment that is not encoded"
        elif question and not re.fullmatch(r"(prop|list)=[A-Za-z]+", question):
            yield f"{told!r} has a query"


@command("command.user", "11.6", "./User/ is asked for only when a user is signed in.")
def _user(exchange: Exchange) -> Problems:
    if exchange.facts.user:
        return
    for _, item in _with_items(exchange):
        if target(item).lower().startswith("./user/"):
            yield target(item)


@command("command.format", "11.9", "Format is one of the DTD's, and the data is of it.")
def _format(exchange: Exchange) -> Problems:
    for one, item in _with_items(exchange):
        kind, data = _meta(one, item, "Format"), item.find(tag("Data"))
        if kind and kind not in _FORMATS:
            yield f"Format {kind!r}"
        if data is None or local(one) not in ("Add", "Replace", "Exec"):
            continue
        said = str(data.text or "")
        wrong = {
            "int": not re.fullmatch(r"\s*-?\d+\s*", said),
            "bool": said.strip().lower() not in ("true", "false", "0", "1"),
            "node": bool(said.strip()),
            "b64": not _is_base64(said),
        }.get(kind, False)
        if wrong:
            yield f"{target(item)}: {said[:40]!r} is no {kind}"


def _is_base64(said: str) -> bool:
    try:
        b64decode("".join(said.split()), validate=True)
    except (BadBase64, ValueError):
        return False
    return True


@command("command.data", "11.2", "Data is text: markup in it is escaped, and well-formed.")
def _data(exchange: Exchange) -> Problems:
    for one, item in _with_items(exchange):
        data = item.find(tag("Data"))
        if data is None:
            continue
        said = str(data.text or "")
        if children(data):
            yield f"{target(item)}: elements in Data"
        elif len(said.encode()) >= _MOST_DATA_BYTES:
            yield f"{target(item)}: {len(said.encode())} bytes"
        elif _meta(one, item, "Format") == "xml" and strict(f"<x>{said}</x>".encode()) is None:
            yield f"{target(item)}: XML that is not well-formed, or with a declaration"


@command("command.get", "11.9", "A Get brings no data, a Delete only its target.")
def _get(exchange: Exchange) -> Problems:
    for one, item in _with_items(exchange):
        if local(one) in ("Get", "Delete") and item.find(tag("Data")) is not None:
            yield f"{local(one)} {target(item)} with Data"


@command("command.add-exec", "12.3", "Add of an install comes before its Exec, in one message.")
def _add_exec(exchange: Exchange) -> Problems:
    added: set[str] = set()
    for one, item in _with_items(exchange):
        told = target(item)
        if not told.lower().endswith("/downloadinstall"):
            continue
        if local(one) == "Add":
            added.add(told)
        elif local(one) == "Exec" and told not in added:
            yield f"Exec of {told} without an Add before it"


@command(
    "command.atomic", "11.9", "An Atomic holds no Get, no Atomic, no Add and Replace of a node."
)
def _atomic(exchange: Exchange) -> Problems:
    for group in every_command(exchange):
        if local(group) != "Atomic":
            continue
        inside = [child for child in children(group) if local(child) in COMMANDS]
        if not inside:
            yield "an empty Atomic"
        for child in inside:
            if local(child) not in ("Add", "Replace", "Delete", "Exec"):
                yield f"{local(child)} in an Atomic"
        added, replaced = (
            {target(i) for c in inside if local(c) == name for i in items(c)}
            for name in ("Add", "Replace")
        )
        for told in added & replaced:
            yield f"Add and Replace of {told}"


@command(
    "command.install-job", "12.3", "An MsiInstallJob is such as the XSD says, for its product."
)
def _install_job(exchange: Exchange) -> Problems:
    for one, item in _with_items(exchange):
        if local(one) == "Exec" and target(item).lower().endswith("/downloadinstall"):
            yield from _job(target(item), text(item, tag("Data")))


_JOB = [
    *("MsiInstallJob", "Product", "Download", "ContentURLList", "ContentURL", "Validation"),
    *("FileHash", "Enforcement", "CommandLine", "TimeOut", "RetryCount", "RetryInterval"),
]


def _job(loc_uri: str, data: str) -> Problems:
    job = strict(data.encode())
    if job is None:
        yield "no MsiInstallJob"
        return
    names = [local(item) for item in job.iter()]
    if [name for n, name in enumerate(names) if name not in names[:n]] != _JOB:
        yield f"the job has {names}"
        return
    product = loc_uri.split("/")[-2].replace("%7B", "{").replace("%7D", "}")
    if not re.fullmatch(r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}", product):
        yield f"product code {product!r}"
    if job.get("id") != product:
        yield f"id {job.get('id')!r} for {product}"
    if not re.fullmatch(r"\d+(\.\d+){1,3}", job.find("Product").get("Version", "")):
        yield f"Version {job.find('Product').get('Version')!r}"
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", (text(job, ".//FileHash")).strip()):
        yield "FileHash is no SHA-256"
    for url in job.iter("ContentURL"):
        if not re.match(r"https?://[^\s]+$", str(url.text or "")):
            yield "ContentURL is no address"
    for name in ("TimeOut", "RetryCount", "RetryInterval"):
        told = text(job, f".//{name}")
        if not told.isdigit() or int(told) > 255:
            yield f"{name} {told!r} is no unsigned byte"


def packages(exchange: Exchange) -> Iterator[tuple[str, str]]:
    """Address and SHA-256 of what the jobs in an answer would have a device download."""
    for one, item in _with_items(exchange):
        if local(one) == "Exec" and target(item).lower().endswith("/downloadinstall"):
            job = strict(text(item, tag("Data")).encode())
            for url in job.iter("ContentURL") if job is not None else ():
                yield str(url.text or ""), text(job, ".//FileHash").strip().lower()


# ---------------------------------------------------------------------- packages

# BITS asks for the head first, and for ranges.
whole = Musts(lambda exchange: exchange.kind == "content" and exchange.step == "content")
head = Musts(lambda exchange: exchange.kind == "content" and exchange.step == "content.head")
part = Musts(lambda exchange: exchange.kind == "content" and exchange.step == "content.range")


@whole("content.hash", "12.3", "A package has the SHA-256 of its job.")
def _hash(exchange: Exchange) -> Problems:
    if exchange.status != 200:
        yield f"status {exchange.status}"
    elif sha256(exchange.body).hexdigest() != exchange.facts.sha256:
        yield "another file"


@head("content.head", "12.3", "HEAD tells how long a package is.")
def _head(exchange: Exchange) -> Problems:
    earlier = exchange.facts.earlier
    size = str(len(earlier.body)) if earlier is not None else ""
    if exchange.status != 200 or exchange.header("content-length") != size:
        yield f"status {exchange.status}, Content-Length {exchange.header('content-length')}"


@part("content.range", "12.3", "A range of a package is answered 206 with that range.")
def _range(exchange: Exchange) -> Problems:
    earlier = exchange.facts.earlier
    wanted = earlier.body[1:8] if earlier is not None else b""
    said = exchange.header("content-range") or ""
    if exchange.status != 206 or exchange.body != wanted or not said.startswith("bytes 1-7/"):
        yield f"status {exchange.status}, Content-Range {said!r}"
