"""The messages of OMA-DM, as values."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """`more`: its data goes on in the next message. `size` is announced with the first part."""

    target: str = ""
    source: str = ""
    data: str | None = None
    format: str = ""
    type: str = ""
    more: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """Get, Add, Replace, Delete, Exec, Alert, or a group (Atomic, Sequence) with its children.

    `data` is an alert's number.
    """

    name: str
    id: str
    items: tuple[Item, ...] = ()
    data: str = ""
    children: "tuple[Command, ...]" = ()

    @property
    def each(self) -> "Iterator[Command]":
        """It, and what is in it, in the order of the message."""
        yield self
        for child in self.children:
            yield from child.each


@dataclass(frozen=True, slots=True)
class Challenge:
    """Who is asked proves itself by `type`, over `nonce` (section 11.7)."""

    type: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Credential:
    """`data` as it came; what it means is the type's."""

    type: str
    data: str


@dataclass(frozen=True, slots=True)
class Status:
    id: str
    message_ref: str
    command_ref: str
    command: str
    code: int
    original_error: str = ""
    challenge: Challenge | None = None


@dataclass(frozen=True, slots=True)
class Results:
    id: str
    message_ref: str
    command_ref: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Message:
    session: str
    number: int
    target: str
    source: str
    commands: tuple[Command, ...] = ()
    statuses: tuple[Status, ...] = ()
    results: tuple[Results, ...] = ()
    final: bool = True
    max_size: int = 0
    credential: Credential | None = None


class BadMessage(ValueError):
    """Not a message of OMA-DM 1.2."""
