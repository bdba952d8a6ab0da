"""The settings catalogue: what nodes devices have, of our own DDF files and of imported ones."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import msgspec

from tandem.protocols import ddf
from tandem.protocols.ddf import Leaf
from tandem.workloads import Workload

POLICY = "./Device/Vendor/MSFT/Policy/Config/"
# Parts of a LocURI (OMA-DM, windows-mdm 11.9): percent-encoded where they need it, no dots alone.
_PART = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@{}\[\]^ |\\-]|%[0-9A-Fa-f]{2}|[^\x00-\x7f])+")
_DOTS = re.compile(r"(?:\.|%2[eE]){1,2}")
_URI_CHARACTERS = 1024
_PARTS = 32
_FOUND = 200


class Definition(msgspec.Struct, frozen=True):
    """A setting of the catalogue. `id` is the vendor's way to name it, `source` its file."""

    id: str
    leaf: Leaf
    workload: Workload
    source: str = ""

    @property
    def scope(self) -> str:
        return "user" if self.leaf.uri.lower().startswith("./user/") else "device"

    def title(self, language: str = "en") -> str:
        titles = self.leaf.titles
        return titles.get(language) or titles.get("en") or self.leaf.name

    def description(self, language: str = "en") -> str:
        texts = self.leaf.descriptions
        return texts.get(language) or texts.get("en") or ""


class Source(msgspec.Struct, frozen=True):
    """A file's part in the catalogue."""

    name: str
    leaves: tuple[Leaf, ...]
    workloads: dict[str, str]


class Catalogue:
    """Definitions by node and by id. Of two files that describe one node, the later holds."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._tree: dict[str, Any] = {}
        self._ids: dict[str, Definition] = {}
        self._workloads: dict[tuple[str, ...], str] = {}
        known: dict[tuple[str, ...], Definition] = {}
        for source in sources:
            for uri, named in source.workloads.items():
                # Whoever imports a published file changes nothing about who owns what.
                self._workloads.setdefault(tuple(_parts(uri)), named)
            for leaf in source.leaves:
                workload = self.workload(leaf.uri, leaf.workload)
                made = Definition(definition_id(leaf.uri), leaf, workload, source.name)
                before = known.get(tuple(_parts(leaf.uri)))
                if before is not None:
                    made = msgspec.structs.replace(made, leaf=_merged(before.leaf, leaf))
                known[tuple(_parts(leaf.uri))] = made
        for parts, made in known.items():
            at = self._tree
            for part in parts:
                at = at.setdefault("{}" if part.startswith("{") else part, {})
            at[""] = made
            for id in (made.id, _other_id(made.id)):
                self._ids[id] = made
        self.definitions = tuple(sorted(known.values(), key=lambda one: one.leaf.uri.lower()))
        self._words = [
            (
                " ".join(
                    [one.leaf.uri, *one.leaf.titles.values(), *one.leaf.descriptions.values()]
                ).casefold(),
                one,
            )
            for one in self.definitions
            if one.leaf.settable
        ]

    def find(self, uri: str) -> Definition | None:
        """What is known of a node."""
        at = [self._tree]
        for part in _parts(uri):
            at = [found for one in at for key in (part, "{}") if (found := one.get(key))]
        return next((one[""] for one in at if "" in one), None)

    def by_id(self, id: str) -> Definition | None:
        return self._ids.get(id.lower())

    def workload(self, uri: str, named: str = "") -> Workload:
        """As whose part a node is written: the one of the nearest node above that says one."""
        parts = tuple(_parts(uri))
        for length in range(len(parts), 0, -1):
            if named:
                break
            named = self._workloads.get(parts[:length], "")
        try:
            return Workload(named)
        except ValueError:
            return Workload.DEVICE_CONFIGURATION

    def search(self, text: str, workload: str = "") -> list[Definition]:
        """Settings in whose node, name or description every word occurs."""
        words = text.casefold().split()
        found = [
            one
            for line, one in self._words
            if workload in ("", one.workload.value) and all(word in line for word in words)
        ]
        first = text.casefold().strip()
        found.sort(
            key=lambda one: first not in (one.leaf.name.casefold(), one.title("en").casefold())
        )
        return found[:_FOUND]


def _merged(before: Leaf, after: Leaf) -> Leaf:
    """The later description, with the names of the earlier where it has none."""
    return msgspec.structs.replace(
        after,
        titles={**before.titles, **after.titles},
        descriptions={**before.descriptions, **after.descriptions},
    )


def _parts(uri: str) -> list[str]:
    """A node's parts, the same for each way to write it (windows-mdm 11.5)."""
    text = uri.strip().lower().replace("%7b", "{").replace("%7d", "}").replace("%20", " ")
    parts = text.removeprefix("./").split("/")
    return parts[1:] if parts[0] == "device" else parts


def same(uri: str) -> str:
    """What two names of one node have in common."""
    return "/".join(_parts(uri))


def definition_id(uri: str) -> str:
    """The vendor's id of a setting: its node in small letters, with underscores between."""
    return uri.strip().lower().removeprefix("./").replace("/", "_")


def _other_id(id: str) -> str:
    """The id of the same node with, or without, its scope."""
    return id.removeprefix("device_") if id.startswith("device_") else f"device_{id}"


def is_uri(text: str) -> bool:
    """Whether it is an absolute LocURI of a device: ./Device/…, ./User/…, ./Vendor/…."""
    if not text.startswith("./") or len(text) > _URI_CHARACTERS:
        return False
    parts = text[2:].split("/")
    return 2 <= len(parts) <= _PARTS and all(
        _PART.fullmatch(part) and not _DOTS.fullmatch(part) for part in parts
    )


def escaped(uri: str) -> str:
    """A LocURI with what needs it percent-encoded."""
    for plain, code in (("{", "%7B"), ("}", "%7D"), (" ", "%20"), ("\\", "%5C"), ("^", "%5E")):
        uri = uri.replace(plain, code)
    return uri


@lru_cache(maxsize=1)
def own() -> tuple[Source, ...]:
    """The files of this package."""
    folder = resources.files("tandem.tenant.policies") / "ddf"
    found = []
    for file in sorted(folder.iterdir(), key=lambda one: one.name):
        if file.name.endswith(".xml"):
            tree = ddf.read(file.read_bytes())
            found.append(Source(f"tandem/{file.name}", tree.leaves, tree.workloads))
    return tuple(found)


@lru_cache(maxsize=1)
def built_in() -> Catalogue:
    return Catalogue(own())


def choices(leaf: Leaf, language: str) -> Mapping[str, str]:
    """The values of an enumeration, each with what it means."""
    return {
        one.value: one.texts.get(language) or one.texts.get("en") or one.value
        for one in leaf.allowed.choices
    }
