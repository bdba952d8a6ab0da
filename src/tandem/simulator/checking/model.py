"""What was said in a check, and what the specification asks of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import msgspec
from lxml import etree

Problems = Iterator[str]
State = Literal["pass", "fail", "not seen"]
Kind = Literal["http", "soap", "syncml", "content"]
Node = Any  # Elements of lxml, whose stubs know less than it does.


@dataclass(frozen=True)
class Facts:
    """What the client knew when it asked, as far as the answer is judged by it."""

    at: datetime | None = None
    message_id: str = ""
    offered: tuple[str, ...] = ()
    version: float = 0.0
    public_key: Any = None
    store: str = "System"
    subject: str = ""
    device_id: str = ""
    address: str = ""
    session: str = ""
    number: int = 0
    commands: tuple[tuple[str, str], ...] = ()  # (CmdID, name) of what the device asked.
    max_bytes: int = 0
    user: bool = True  # Somebody is signed in.
    quiet: bool = False  # No command may come.
    sha256: str = ""  # What an install job says of its package.
    earlier: "Exchange | None" = None


@dataclass(frozen=True)
class Exchange:
    """One request and the whole answer. `step` names what was tried."""

    kind: Kind
    step: str
    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    facts: Facts = field(default_factory=Facts)

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        return found[-1] if found else None

    @cached_property
    def root(self) -> Node | None:
        """The answer's element; None where it is not well-formed, or has a document type."""
        return strict(self.body)


def strict(data: bytes) -> Node | None:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    information: Any = root.getroottree().docinfo
    return None if information.doctype else root


def local(element: Node) -> str:
    return str(etree.QName(element).localname) if isinstance(element.tag, str) else ""


def children(element: Node) -> list[Node]:
    return [child for child in element if isinstance(child.tag, str)]


def text(parent: Node | None, path: str) -> str:
    found = parent.find(path) if parent is not None else None
    return str(found.text or "") if found is not None else ""


@dataclass(frozen=True)
class Must:
    """One demand. `judge` tells what is wrong with an exchange to which it applies."""

    name: str
    section: str
    text: str
    applies: Callable[[Exchange], bool]
    judge: Callable[[Exchange], Iterable[str]]


class Musts(list[Must]):
    """Demands of one subject, in the order in which they were written down."""

    def __init__(self, applies: Callable[[Exchange], bool]) -> None:
        super().__init__()
        self._applies = applies

    def __call__(
        self, name: str, section: str, text: str
    ) -> Callable[[Callable[[Exchange], Iterable[str]]], Callable[[Exchange], Iterable[str]]]:
        def keep(
            judge: Callable[[Exchange], Iterable[str]],
        ) -> Callable[[Exchange], Iterable[str]]:
            self.append(Must(name, section, text, self._applies, judge))
            return judge

        return keep


class Verdict(msgspec.Struct, frozen=True):
    """How a server does by one demand. `seen` counts the answers that it was asked of."""

    name: str
    section: str
    text: str
    state: State
    seen: int
    problems: list[str]


def verdicts(musts: Iterable[Must], exchanges: Sequence[Exchange]) -> list[Verdict]:
    """Every demand with how all the answers do by it."""
    found = []
    for must in musts:
        concerned = [exchange for exchange in exchanges if must.applies(exchange)]
        problems = [
            f"{exchange.step}: {problem}"
            for exchange in concerned
            for problem in must.judge(exchange)
        ]
        state: State = "fail" if problems else "pass" if concerned else "not seen"
        found.append(
            Verdict(must.name, must.section, must.text, state, len(concerned), problems[:20])
        )
    return found
