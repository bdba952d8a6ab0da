"""What gateways are told of check-ins: which tags count now, and what has changed since a number."""

import secrets
from itertools import takewhile

from tandem.protocols import tunnel

# Tags that are gone are remembered for those who have them still; who has not asked for longer than
# so many of them is told everything anew.
_MOST_GONE = 50_000
# So many entries go into one answer.
_MOST_ADDED = 20_000
# Ends are kept by the minute: fewer different numbers, here and at the gateways.
_MINUTE = 60


class Journal:
    """Of one process. Each change has a number, and only the last one of a tag is kept."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self._last = 0
        # Below this number it is not known any more what was gone.
        self._floor = 0
        # By tag, in the order of their numbers: the number (upper half) and when it ends; the number.
        self._kept: dict[bytes, int] = {}
        self._gone: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, tag: bytes, ends: float) -> None:
        self._last += 1
        self._gone.pop(tag, None)
        self._kept.pop(tag, None)
        self._kept[tag] = self._last << 32 | int(ends) // _MINUTE * _MINUTE

    def drop(self, tag: bytes) -> None:
        if self._kept.pop(tag, None) is None:
            return
        self._last += 1
        self._gone[tag] = self._last
        if len(self._gone) > _MOST_GONE:
            self._floor = self._gone.pop(next(iter(self._gone)))

    def clear(self) -> None:
        self._last += 1
        self._floor = self._last
        self._kept.clear()
        self._gone.clear()

    def told(self, question: tunnel.Question, now: float) -> tunnel.Confirmation:
        since = question.known.get(self.epoch, 0)
        if not self._floor <= since <= self._last:
            since = 0
        newest = takewhile(lambda item: item[1] >> 32 > since, reversed(self._kept.items()))
        added = list(newest)
        added.reverse()
        gone: list[bytes] = []
        if since:
            lately = takewhile(lambda item: item[1] > since, reversed(self._gone.items()))
            gone = [tag for tag, _ in lately]
        more = len(added) > _MOST_ADDED
        del added[_MOST_ADDED:]
        return tunnel.Confirmation(
            question.id,
            self.epoch,
            since,
            added[-1][1] >> 32 if more else self._last,
            now,
            b"".join(tag + (value & 0xFFFFFFFF).to_bytes(4) for tag, value in added),
            b"".join(gone),
            more,
        )
