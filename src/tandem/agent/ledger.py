"""The device's ledger on its disk: lines that are only ever added.

What is in it was decided and kept by the gate first, together with the lines themselves, so a
process that was killed between the two writes the rest when it is back, and never another line of
the same number.

When it is long and the site has all of it, an entry is added that says what stands at this point, and
what comes before it goes. The chain goes on over it, and whoever has the rest can check the entry.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem.agent.folder import Folder
from tandem.protocols import ccm
from tandem.workloads import Account, follow

FILE, SENT, BASE = "ledger.jws", "ledger.sent", "ledger.base"
# Some four hundred entries: years of a device that is switched now and then.
LIMIT_BYTES = 256 * 1024


class Sent(msgspec.Struct, frozen=True):
    """How far the site has it: the number of the last entry, and where the next one begins."""

    number: int = 0
    offset: int = 0


class Line(NamedTuple):
    """`end` is where the next one begins."""

    number: int
    text: str
    end: int


class Ledger:
    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._path = folder.path / FILE

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _mend(self) -> None:
        """Take away a last line that was not finished: nobody was told that it is there."""
        size = self._size()
        if not size:
            return
        with self._path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                return
            end = size
            while end:
                start = max(0, end - ccm.ENTRY_LIMIT)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    file.truncate(start + found + 1)
                    return
                end = start
            file.truncate(0)

    def last(self, key: ec.EllipticCurvePublicKey) -> tuple[int, str] | None:
        """Number and digest of the newest entry that this key signed."""
        for line in _backwards(self._tail()):
            try:
                return ccm.open_entry(line, key).number, ccm.entry_digest(line)
            except ccm.BadEntry:
                continue
        return None

    def _tail(self) -> bytes:
        size = self._size()
        if not size:
            return b""
        with self._path.open("rb") as file:
            file.seek(max(0, size - 4 * ccm.ENTRY_LIMIT))
            return file.read()

    def append(self, lines: Iterable[str]) -> None:
        self._mend()
        self._folder.append(FILE, "".join(f"{line}\n" for line in lines).encode())

    @property
    def oldest(self) -> int:
        """The number of the first entry that is still here."""
        return next((line.number for line in self._lines(Sent()) if line.number), 1)

    def _lines(self, start: Sent) -> Iterator[Line]:
        """Whole lines from here on; one that cannot be read counts as what stood there."""
        if not self._size():
            return
        offset, number = start.offset, start.number
        with self._path.open("rb") as file:
            file.seek(offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                offset += len(raw)
                text = raw[:-1].decode("ascii", "replace")
                try:
                    number = ccm.read_entry(text).number
                except ccm.BadEntry:
                    number += 1
                yield Line(number, text, offset)

    # Shortening it.

    def may_be_cut(self, limit: int = LIMIT_BYTES) -> bool:
        """Whether it is long, and the site has all of it."""
        size = self._size()
        return size > limit and self._sent.offset == size

    def account(self) -> Account | None:
        """What it says, from the last point at which it was shortened. None when it is damaged."""
        account = self._folder.load(BASE, Account) or Account()
        for line in self._lines(Sent()):
            try:
                entry = ccm.read_entry(line.text)
            except ccm.BadEntry:
                return None
            if entry.number <= account.number:
                continue
            if not account.follows(entry):
                return None
            account, _ = follow(account, entry, ccm.entry_digest(line.text), entry.at)
        return account

    def cut(self, account: Account) -> None:
        """Drop what comes before the entry after this account, which says so. Killed in between,
        what was to go is still there, and goes the next time."""
        kept = [line.text for line in self._lines(Sent()) if line.number > account.number]
        self._folder.save(BASE, account)
        # First, so that it never names a place in the middle of the new file.
        self._folder.save(SENT, Sent(account.number, 0))
        self._folder.write(FILE, "".join(f"{text}\n" for text in kept).encode())

    def forget(self) -> None:
        """Delete it: the machine that wrote it was another one."""
        for name in (FILE, SENT, BASE):
            self._folder.remove(name)

    # How far the site has it.

    @property
    def _sent(self) -> Sent:
        found = self._folder.load(SENT, Sent) or Sent()
        return found if found.offset <= self._size() else Sent()

    def unsent(self, limit: int) -> list[Line]:
        """What the site does not have yet, oldest first."""
        return list(islice(self._lines(self._sent), limit))

    def accepted(self, last: Line) -> None:
        """The site has everything up to this line."""
        self._folder.save(SENT, Sent(last.number, last.end))

    def wanted(self, number: int) -> None:
        """The site lacks entries from this one on: they are sent again."""
        before = Sent()
        for line in self._lines(before):
            if line.number >= number:
                break
            before = Sent(line.number, line.end)
        self._folder.save(SENT, before)


def _backwards(data: bytes) -> Iterator[str]:
    whole = data.split(b"\n")[:-1]
    for raw in reversed(whole):
        yield raw.decode("ascii", "replace")
