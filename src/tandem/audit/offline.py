"""An exported log and its proof, from files alone: no database, no network.

entries.jsonl   every entry with its digests, oldest first
heads.jsonl     every signed head, oldest first
head.json       the last head by itself: the part to keep somewhere else
public-key.pem  for convenience; a verifier brings the key it trusts
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tandem.audit.model import GENESIS, Head, Problem, Stored, digest, key_id
from tandem.infra.errors import AppError, Kind

ENTRIES, HEADS, HEAD, PUBLIC_KEY = "entries.jsonl", "heads.jsonl", "head.json", "public-key.pem"
# More than one place is told, but a rewritten log would tell of every entry.
_MOST_PROBLEMS = 20

_T = TypeVar("_T", bound=msgspec.Struct)


class BadExport(AppError):
    kind, code = Kind.INVALID, "audit.bad-export"


class Export(msgspec.Struct, frozen=True):
    folder: Path
    heads: list[Head]

    def entries(self) -> Iterator[Stored]:
        """Read line by line: a log of years does not fit into memory."""
        yield from _lines(self.folder / ENTRIES, Stored)


def write_export(
    folder: Path, entries: Iterable[Stored], heads: Sequence[Head], public_pem: str
) -> int:
    """Write an export into a folder, which is made; returns the number of entries."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with (folder / ENTRIES).open("wb") as file:
        for item in entries:
            file.write(msgspec.json.encode(item) + b"\n")
            written += 1
    (folder / HEADS).write_bytes(b"".join(msgspec.json.encode(head) + b"\n" for head in heads))
    if heads:
        (folder / HEAD).write_bytes(msgspec.json.encode(heads[-1]) + b"\n")
    (folder / PUBLIC_KEY).write_text(public_pem, "ascii")
    return written


def read_export(folder: Path) -> Export:
    """Raises BadExport when the folder holds no export."""
    return Export(folder, list(_lines(folder / HEADS, Head)))


def read_heads(path: Path) -> list[Head]:
    """Heads that were kept elsewhere: a head.json, a heads.jsonl, or the folder of an export."""
    return list(_lines(path / HEADS if path.is_dir() else path, Head))


def _lines(path: Path, of: type[_T]) -> Iterator[_T]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield msgspec.json.decode(line, type=of)
                except (msgspec.DecodeError, RecursionError):
                    raise BadExport(
                        f"Line {number} of {path.name} cannot be read: it was changed or cut off.",
                        cure="Take the file from a copy that nobody wrote to.",
                    ) from None
    except OSError as error:
        raise BadExport(
            f"{path} cannot be read ({error.strerror}).",
            cure="Name the folder that `tandem audit export` wrote.",
        ) from None


def inspect(
    export: Export, keys: Iterable[Ed25519PublicKey], anchors: Iterable[Head] = ()
) -> list[Problem]:
    """Everything that is wrong with an export; nothing means that it is whole.

    `keys` are the keys that the verifier trusts, `anchors` heads that were kept elsewhere: with one
    of them, rows and heads that were rewritten together are found even if the key was stolen.
    """
    problems = list(judge_heads(export.heads, {key_id(key): key for key in keys}))
    problems += _anchors(export.heads, list(anchors))
    for problem in _rows(export):
        problems.append(problem)
        if len(problems) >= _MOST_PROBLEMS:
            break
    return problems


def judge_heads(heads: Sequence[Head], keys: dict[str, Ed25519PublicKey]) -> Iterator[Problem]:
    if not heads:
        yield Problem("no-head", "The export has no signed head, so it proves nothing.")
    previous, entries = GENESIS.hex(), 0
    for number, head in enumerate(heads, 1):
        key = keys.get(head.key_id)
        if head.number != number:
            yield Problem("head-missing", f"Head {number} is missing.", head=number)
            return
        if key is None:
            text = f"Head {number} is signed with the key {head.key_id}, which is not trusted."
            yield Problem("unknown-key", text, head=number)
        elif not head.is_signed_by(key):
            yield Problem("bad-signature", f"The signature of head {number} is wrong.", head=number)
        if head.previous != previous or head.entries < entries:
            text = f"Head {number} does not follow from the head before."
            yield Problem("head-chain", text, head=number)
        previous, entries = head.fingerprint(), head.entries


def _anchors(heads: Sequence[Head], anchors: Sequence[Head]) -> Iterator[Problem]:
    for anchor in anchors:
        if anchor.number > len(heads):
            text = f"Head {anchor.number}, which was kept elsewhere, is not in the export."
            yield Problem("shortened", text, head=anchor.number)
        elif heads[anchor.number - 1].fingerprint() != anchor.fingerprint():
            text = f"Head {anchor.number} is not the one that was kept elsewhere: the log up to "
            text += f"entry {anchor.entries} was rewritten."
            yield Problem("rewritten", text, head=anchor.number)


def _digest(item: Stored) -> str:
    try:
        return digest(item.entry, bytes.fromhex(item.previous)).hex()
    except (ValueError, OverflowError):
        return ""


def _rows(export: Export) -> Iterator[Problem]:
    promised = {head.entries: head for head in export.heads}
    previous, number = GENESIS.hex(), 0
    for item in export.entries():
        number += 1
        entry = item.entry
        if entry.id != number:
            text = f"Entry {number} is missing." if entry.id > number else f"{entry.id} is twice."
            yield Problem("entry-missing", text, entry=number)
            number = entry.id
        elif item.previous != previous:
            yield Problem("entry-chain", f"Entry {number} does not follow.", entry=number)
        if _digest(item) != item.digest:
            yield Problem("entry-changed", f"Entry {number} was changed.", entry=number)
        head = promised.get(number)
        if head is not None and head.digest != item.digest:
            text = f"Entry {number} is not the one that head {head.number} signed."
            yield Problem("not-as-signed", text, entry=number, head=head.number)
        previous = item.digest
    last = max(promised, default=0)
    if number < last:
        yield Problem("entries-cut-off", f"Entries {number + 1} to {last} are missing.")
    elif number > last:
        yield Problem("entries-unsigned", f"Entries {last + 1} to {number} are not signed.")
