"""Paths of Graph: every spelling that clients use, brought to one, and the tree they lead into."""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tandem.tenant.graph.model import UnknownSegment

_CALL = re.compile(r"^([^()]+)\((.*)\)$", re.DOTALL)
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^']|'')*'|[^,]*)\s*(?:,|$)")
_NAMESPACES = ("microsoft.graph.", "graph.")


@dataclass(frozen=True, slots=True)
class Segment:
    """`name`, or `name('key')`, or `name(key='value')`; a function has its parameters there."""

    text: str
    key: str | None = None
    named: tuple[tuple[str, str], ...] = ()


def segments(path: str) -> list[Segment]:
    """The parts of a raw path: doubled and trailing slashes collapsed, quotes undone."""
    return [_segment(unquote(part)) for part in path.split("/") if part]


def _segment(text: str) -> Segment:
    found = _CALL.match(text)
    if found is None:
        return Segment(text)
    name, inner = found[1], found[2].strip()
    if not inner:
        return Segment(name)
    if inner.startswith("'") or "=" not in inner:
        return Segment(name, key=_unquote(inner))
    pairs = tuple((item[1], _unquote(item[2])) for item in _PAIR.finditer(inner))
    return Segment(name, named=pairs)


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    return text


@dataclass
class Node:
    """One place in the tree. `here` is by method what is served; `key_type` names what a key is,
    `function` that what stands in its brackets are parameters."""

    children: dict[str, "Node"] = field(default_factory=dict)
    keyed: "Node | None" = None
    key_type: str = ""
    here: dict[str, Any] = field(default_factory=dict)
    function: bool = False

    def place(self, path: str) -> "Node":
        """The node of a template such as `groups/{group}/members`, made when missing."""
        node = self
        for part in path.split("/"):
            if part.startswith("{"):
                if node.keyed is None:
                    node.keyed, node.key_type = Node(), part[1:-1]
                assert node.key_type == part[1:-1], f"{path}: the key is {node.key_type} elsewhere"
                node = node.keyed
            else:
                name = part.lower()
                child = node.children.get(name)
                if child is None:
                    child = node.children[name] = Node()
                node = child
        return node


@dataclass
class Found:
    node: Node
    keys: list[tuple[str, str, str]]  # resource type, alternate key's name or "", value
    parameters: dict[str, str]
    cast: str


def find(root: Node, parts: list[Segment]) -> Found:
    """Where the path leads. Raises UnknownSegment."""
    found = Found(root, [], {}, "")
    for part in parts:
        _step(found, part)
    return found


def _step(found: Found, part: Segment) -> None:
    node, name = found.node, part.text.lower()
    bare = name
    for namespace in _NAMESPACES:
        bare = bare.removeprefix(namespace)
    child = node.children.get(name) or node.children.get(bare)
    if child is not None:
        found.node = child
        if not name.startswith("$"):
            found.cast = ""  # it was about what stands before this segment
        if part.key is not None and child.keyed is not None:
            found.keys.append((child.key_type, "", part.key))
            found.node = child.keyed
        elif part.named and child.keyed is not None and not child.function:
            key_name, value = part.named[0]
            found.keys.append((child.key_type, key_name, value))
            found.node = child.keyed
        elif part.named or part.key is not None:
            found.parameters.update(part.named)
        return
    if bare != name and part.key is None and not part.named:
        found.cast = bare  # …/members/microsoft.graph.user: only items of that type
        return
    if node.keyed is not None and part.key is None and not part.named and name[:1] != "$":
        found.keys.append((node.key_type, "", part.text))
        found.node = node.keyed
        return
    raise UnknownSegment(
        f"Resource not found for the segment '{part.text}'.",
        cure="Check the path; this part of Graph may not be served here.",
    )
