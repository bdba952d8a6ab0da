"""Nodes as values, and what a value has to be for a node."""

import re
from base64 import b64decode

import msgspec

# How a setting reaches a node.
SETTABLE = frozenset({"Add", "Replace"})
ACTIONS = frozenset({"Add", "Copy", "Delete", "Exec", "Get", "Replace"})


class BadDdf(ValueError):
    """Not a description of nodes; the text says why, and at which node."""


class BadValue(ValueError):
    """Not a value for this node; the text says what is taken."""


class Choice(msgspec.Struct, frozen=True):
    """One of the values of an enumeration. `texts`: what it means, by language."""

    value: str
    texts: dict[str, str] = {}


class Allowed(msgspec.Struct, frozen=True):
    """What a node takes.

    `kind` is "" (anything of its format), enum, flag (a sum of choices), range, regex, admx, or
    other: a schema that is not evaluated here (XSD, JSON, SDDL). `pattern` is that of a regex.
    With a `delimiter` the value is a list, each of whose parts is to be allowed.
    """

    kind: str = ""
    choices: tuple[Choice, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    pattern: str = ""
    delimiter: str = ""
    admx: tuple[str, str, str] | None = None  # area, name, file


class Leaf(msgspec.Struct, frozen=True):
    """A node that holds a value.

    `uri` names each dynamic part in braces. `format` is chr, int, bool, b64, bin, xml, float,
    date, time or null. `builds` are the oldest releases of Windows that have it. `titles` and
    `descriptions` are by language; `workload` is empty when no node above it says one.
    """

    uri: str
    format: str
    access: frozenset[str] = frozenset()
    default: str | None = None
    allowed: Allowed = Allowed()
    builds: tuple[str, ...] = ()
    csp_version: str = ""
    titles: dict[str, str] = {}
    descriptions: dict[str, str] = {}
    workload: str = ""
    deprecated: str = ""
    reboot: str = ""

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    @property
    def settable(self) -> bool:
        return bool(self.access & SETTABLE)


class Tree(msgspec.Struct, frozen=True):
    """The leaves of a file, and the workloads of its subtrees by their nodes' URIs."""

    leaves: tuple[Leaf, ...]
    workloads: dict[str, str]


_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_HEX = re.compile(r"0[xX][0-9A-Fa-f]{1,16}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}(?:T.*)?")
_TIME = re.compile(r"(?:[0-9]{4}-?[0-9]{2}-?[0-9]{2}T)?[0-9]{2}:?[0-9]{2}.*")
_BOOLEANS = {"true": "true", "1": "true", "false": "false", "0": "false"}


def checked(leaf: Leaf, value: str) -> str:
    """The value as the node takes it. Raises BadValue."""
    value = _formed(leaf, value)
    allowed = leaf.allowed
    if allowed.delimiter and allowed.kind in {"enum", "range", "regex"}:
        parts = [part for part in value.split(allowed.delimiter) if part]
        return allowed.delimiter.join(_allowed(leaf, part) for part in parts)
    return _allowed(leaf, value)


def _formed(leaf: Leaf, value: str) -> str:
    match leaf.format:
        case "int":
            text = value.strip()
            if _HEX.fullmatch(text):
                return str(int(text, 16))
            if not _WHOLE.fullmatch(text):
                raise BadValue("It takes a whole number.")
            return str(int(text))
        case "bool":
            known = _BOOLEANS.get(value.strip().lower())
            if known is None:
                raise BadValue("It takes true or false.")
            return known
        case "float":
            if not _FLOAT.fullmatch(value.strip()):
                raise BadValue("It takes a number.")
            return value.strip()
        case "b64" | "bin":
            text = "".join(value.split())
            try:
                b64decode(text, validate=True)
            except ValueError:
                raise BadValue("It takes base64.") from None
            return text
        case "date":
            if not _DATE.fullmatch(value.strip()):
                raise BadValue("It takes a date, like 2026-01-31.")
            return value.strip()
        case "time":
            if not _TIME.fullmatch(value.strip()):
                raise BadValue("It takes a time, like 03:00:00.")
            return value.strip()
        case "null" | "node":
            if value:
                raise BadValue("It takes no value.")
    return value


def _allowed(leaf: Leaf, value: str) -> str:
    allowed = leaf.allowed
    match allowed.kind:
        case "enum":
            for choice in allowed.choices:
                if _same(leaf, choice.value, value):
                    return value if leaf.format == "int" else choice.value
            raise BadValue("It takes one of: " + ", ".join(c.value for c in allowed.choices) + ".")
        case "flag":
            if not _WHOLE.fullmatch(value):
                raise BadValue("It takes a whole number.")
            most = 0
            for choice in allowed.choices:
                most |= _number(choice.value) or 0
            if int(value) & ~most:
                raise BadValue(f"It takes a sum of flags, at most {most}.")
        case "range":
            number = _number(value)
            if number is None or not any(low <= number <= high for low, high in allowed.ranges):
                spans = ", ".join(f"{low} to {high}" for low, high in allowed.ranges)
                raise BadValue(f"It takes {spans}.")
        case "admx":
            text = value.strip()
            if not (text.startswith(("<enabled", "<disabled")) or text == ""):
                raise BadValue("It takes <enabled/>, with its data elements, or <disabled/>.")
    return value


def _number(text: str) -> int | None:
    text = text.strip()
    if _HEX.fullmatch(text):
        return int(text, 16)
    return int(text) if _WHOLE.fullmatch(text) else None


def _same(leaf: Leaf, one: str, other: str) -> bool:
    if leaf.format == "int":
        return _number(one) == _number(other)
    return one == other if leaf.format != "bool" else one.lower() == other.lower()


def runs_on(builds: tuple[str, ...], version: str) -> bool:
    """Whether Windows of this version has a node that these releases brought.

    Fixes brought some nodes to older releases later, so a release that is named counts from its
    own revision on, and newer ones than any count always. Versions that cannot be read say
    nothing against it.
    """
    here = _version(version)
    known = [found for build in builds if (found := _version(build)) is not None]
    if here is None or not known:
        return True
    if any(here[:3] == build[:3] and here >= build for build in known):
        return True
    same = any(here[:3] == build[:3] for build in known)
    oldest, newest = min(known), max(known)
    if len(known) == 1:
        return here >= newest
    return here[:3] > newest[:3] or (not same and here[:3] > oldest[:3])


def _version(text: str) -> tuple[int, int, int, int] | None:
    parts = text.strip().split(".")
    if not 3 <= len(parts) <= 4 or not all(p.isascii() and p.isdigit() for p in parts):
        return None
    numbers = [int(part[:9]) for part in parts] + [0]
    return numbers[0], numbers[1], numbers[2], numbers[3]
