"""Paths below AdminService: `wmi/Class`, `wmi/Class(key)`, `wmi/Class/key`, and what follows.

Letter case and doubled slashes do not matter; a slash in quotes belongs to the key.
"""

import re
from dataclasses import dataclass

from tandem.site.adminservice.model import NoSuchClass

_LIMIT = 2048
_MOST = 4
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_.]{0,127}")
_PART = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]{0,127})\s*=\s*)?('(?:[^']|'')*'|[^',()=\s]+)\s*")


@dataclass(frozen=True, slots=True)
class KeyPart:
    """A value of a key; `name` is empty when only the value is given."""

    name: str
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """`name` is empty when the segment can only be a key."""

    name: str
    key: tuple[KeyPart, ...]
    raw: str

    @property
    def as_key(self) -> tuple[KeyPart, ...]:
        """The segment read as a key, as in Class/key."""
        if len(self.raw) > 1 and self.raw[0] == self.raw[-1] == "'":
            return (KeyPart("", self.raw[1:-1].replace("''", "'"), True),)
        return (KeyPart("", self.raw, False),)


def split(path: str) -> list[Segment]:
    """Raises NoSuchClass for what is no path."""
    if len(path) > _LIMIT:
        raise _bad()
    raws, start, quoted = [], 0, False
    for at, character in enumerate(path + "/"):
        if character == "'":
            quoted = not quoted
        elif character == "/" and (not quoted or at == len(path)):
            raws.append(path[start:at].strip())
            start = at + 1
    raws = [raw for raw in raws if raw]
    if quoted or len(raws) > _MOST:
        raise _bad()
    return [_segment(raw) for raw in raws]


def _segment(raw: str) -> Segment:
    name, bracket, rest = raw.partition("(")
    if not bracket:
        return Segment(raw if _NAME.fullmatch(raw) else "", (), raw)
    if not _NAME.fullmatch(name) or not rest.endswith(")"):
        return Segment("", (), raw)
    inner, parts, at = rest[:-1], list[KeyPart](), 0
    while at < len(inner):
        found = _PART.match(inner, at)
        if found is None or (found.end() < len(inner) and inner[found.end()] != ","):
            raise _bad()
        text = found[2]
        quoted = text[0] == "'"
        value = text[1:-1].replace("''", "'") if quoted else text
        parts.append(KeyPart(found[1] or "", value, quoted))
        at = found.end() + 1
    return Segment(name, tuple(parts), raw)


def _bad() -> NoSuchClass:
    return NoSuchClass(
        "The path cannot be read.", cure="Write it like /AdminService/wmi/SMS_R_System(16777216)."
    )
