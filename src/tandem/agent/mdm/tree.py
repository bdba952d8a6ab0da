"""The management tree: what a session may read, write and start on this device.

Each provider (CSP) answers for one branch. `./Device/Vendor/…` and `./Vendor/…` are one branch, and
names are compared without regard to case, as the same node is written in many ways.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import quote, unquote

from tandem.agent.mdm.messages import Command, Item

Path = tuple[str, ...]

OK, ACCEPTED, ROLLED_BACK = 200, 202, 216
BAD, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, UNSUPPORTED, EXISTS = 400, 403, 404, 405, 406, 418
FAILED, ATOMIC_FAILED, ROLLBACK_FAILED = 500, 507, 516


class Value:
    """A leaf's text with its format, or the names of a node's children."""

    def __init__(self, text: str, format: str = "chr") -> None:
        self.text = text
        self.format = format

    @classmethod
    def node(cls, children: list[str]) -> "Value":
        return cls("/".join(quote(name, safe="") for name in children), "node")


class Provider(Protocol):
    """One branch of the tree; paths begin below it. What it does not know is NOT_FOUND."""

    def get(self, path: Path) -> Value | None: ...

    def write(self, path: Path, item: Item, *, add: bool) -> int: ...

    def delete(self, path: Path) -> int: ...

    def run(self, path: Path, item: Item) -> int: ...

    @property
    def stores(self) -> "tuple[Store, ...]":
        """What can be put back when a group of commands fails."""
        ...


class ReadOnly:
    """Fixed leaves."""

    def __init__(self, leaves: Mapping[str, str]) -> None:
        self._leaves = {_key(tuple(name.split("/"))): (name, text) for name, text in leaves.items()}

    def get(self, path: Path) -> Value | None:
        found = self._leaves.get(_key(path))
        if found is not None:
            return Value(found[1])
        key = _key(path)
        children = [n for k, (n, _) in self._leaves.items() if k[: len(key)] == key]
        if not children:
            return None
        depth = len(path)
        return Value.node(list(dict.fromkeys(name.split("/")[depth] for name in children)))

    def write(self, path: Path, item: Item, *, add: bool) -> int:
        return NOT_ALLOWED if self.get(path) else NOT_FOUND

    def delete(self, path: Path) -> int:
        return NOT_ALLOWED if self.get(path) else NOT_FOUND

    def run(self, path: Path, item: Item) -> int:
        return NOT_ALLOWED if self.get(path) else NOT_FOUND

    @property
    def stores(self) -> "tuple[Store, ...]":
        return ()


class Store:
    """Leaves that the service writes. `kept` maps a path (`A/B/C`) to text and format.

    While a group of commands is tried, nobody acts on what it wrote: `trying`. Whoever acts on the
    leaves is told of its end by `settled`, with what was kept before.
    """

    def __init__(self, kept: dict[str, tuple[str, str]]) -> None:
        self.kept = kept
        self.trying = False
        self.settled: Callable[[Mapping[str, tuple[str, str]]], bool] = lambda before: True

    def get(self, path: Path) -> Value | None:
        key = _key(path)
        children: dict[str, None] = {}
        for name, (text, form) in self.kept.items():
            parts = tuple(name.split("/"))
            if _key(parts) == key:
                return Value(text, form or "chr")
            if _key(parts)[: len(key)] == key:
                children[unquote(parts[len(key)])] = None
        return Value.node(list(children)) if children else None

    def write(self, path: Path, item: Item, *, add: bool) -> int:
        if not path:
            return NOT_ALLOWED
        if item.format == "node":
            return OK
        known = self._name(path)
        if add and known is not None:
            return EXISTS
        name = known or "/".join(quote(part, safe="") for part in path)
        self.kept[name] = (item.data or "", item.format or "chr")
        return OK

    def delete(self, path: Path) -> int:
        key = _key(path)
        gone = [n for n in self.kept if _key(tuple(n.split("/")))[: len(key)] == key]
        for name in gone:
            del self.kept[name]
        return OK if gone else NOT_FOUND

    def run(self, path: Path, item: Item) -> int:
        return NOT_ALLOWED if self.get(path) else NOT_FOUND

    @property
    def stores(self) -> "tuple[Store, ...]":
        return (self,)

    def below(self, *path: str) -> dict[str, str]:
        """The leaves directly below a node, by name in small letters."""
        key = _key(path)
        found = {}
        for name, (text, _) in self.kept.items():
            parts = _key(tuple(name.split("/")))
            if parts[:-1] == key:
                found[parts[-1]] = text
        return found

    def _name(self, path: Path) -> str | None:
        key = _key(path)
        return next((n for n in self.kept if _key(tuple(n.split("/"))) == key), None)


def _key(path: Path) -> Path:
    return tuple(unquote(part).lower() for part in path)


def parts_of(locuri: str) -> Path:
    """`./Device/Vendor/MSFT/X` and `./Vendor/MSFT/X` are (`Vendor`, `MSFT`, `X`)."""
    parts = [unquote(part.strip()) for part in locuri.split("/")]
    if parts and parts[0] == ".":
        parts = parts[1:]
    if parts and parts[0].lower() == "device":
        parts = parts[1:]
    return tuple(parts)


class Attempt:
    """What the service writes from now on is kept altogether, or taken back."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._before = [(store, dict(store.kept)) for store in stores]
        for store in stores:
            store.trying = True

    def keep(self) -> bool:
        """False: it could not be acted on, and was taken back."""
        for store, _ in self._before:
            store.trying = False
        if all(store.settled(before) for store, before in self._before):
            return True
        self.undo()
        return False

    def undo(self) -> None:
        for store, before in self._before:
            store.trying = False
            store.kept.clear()
            store.kept.update(before)


class Tree:
    """All branches; the longest that fits answers."""

    def __init__(self, branches: Mapping[str, Provider]) -> None:
        found = [(_key(tuple(name.split("/"))), provider) for name, provider in branches.items()]
        self._branches = sorted(found, key=lambda branch: -len(branch[0]))

    def _provider(self, locuri: str) -> tuple[Provider, Path] | None:
        parts = parts_of(locuri)
        key = _key(parts)
        for prefix, provider in self._branches:
            if key[: len(prefix)] == prefix:
                return provider, parts[len(prefix) :]
        return None

    def attempt(self) -> "Attempt":
        """Begin a group of commands that is all done, or not at all."""
        return Attempt([store for _, provider in self._branches for store in provider.stores])

    def get(self, locuri: str) -> Value | int:
        found = self._provider(locuri)
        value = found[0].get(found[1]) if found else None
        return NOT_FOUND if value is None else value

    def change(self, command: Command) -> int:
        """Carry out an Add, Replace, Delete or Exec; the first item that fails decides."""
        if not command.items:
            return BAD
        code = OK
        for item in command.items:
            code = self._change(command.name, item)
            if code >= 300:
                return code
        return code

    def _change(self, name: str, item: Item) -> int:
        if not item.target or item.target.startswith("/"):
            return BAD
        found = self._provider(item.target)
        if found is None:
            return NOT_FOUND if name in ("Delete", "Exec") else UNSUPPORTED
        provider, path = found
        match name:
            case "Add":
                return provider.write(path, item, add=True)
            case "Replace":
                return provider.write(path, item, add=False)
            case "Delete":
                return provider.delete(path)
            case "Exec":
                return provider.run(path, item)
        return UNSUPPORTED
