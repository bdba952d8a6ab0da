"""The messages of OMA-DM, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    target: str = ""
    source: str = ""
    data: str | None = None
    format: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """Get, Add, Replace, Delete, Exec or Alert. `data` is an alert's number."""

    name: str
    id: str
    items: tuple[Item, ...] = ()
    data: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    id: str
    message_ref: str
    command_ref: str
    command: str
    code: int
    original_error: str = ""


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


class BadMessage(ValueError):
    """Not a message of OMA-DM 1.2."""
