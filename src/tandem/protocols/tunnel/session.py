"""One end of a tunnel without any I/O: bytes in, calls to the owners of streams, bytes out.

    session.feed(data)                 whatever the transport brought; BadFrame: close it
    session.put(encode(Type.OPEN, 7))  queued
    transport.write(session.take())    once a round of the loop, while the transport takes more

What is small (heads, credit, the first of each stream) goes out before what is bulk, and the bulk of
several streams takes turns, a frame each: a check-in never waits for downloads that began before it.
The peer may send WINDOW bytes on a stream before it gets credit for more. Who sends more, gives more
credit than was used, answers twice or speaks on a stream that was never opened is cut off.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

from tandem.protocols.tunnel.frames import (
    FIN,
    HEADER,
    HEADER_BYTES,
    MAX_DATA,
    MOST_STREAM,
    WINDOW,
    BadFrame,
    Decoder,
    Frame,
    Type,
    credit,
    encode,
)

# Credit is given back in pieces of at least this size: a frame for each small read would cost more.
_GIVE = WINDOW // 4
# So much of each stream goes out ahead of all bulk.
_AHEAD = 16 * 1024
# Bulk that one round hands to the transport, and what a stream keeps before its source has to pause.
_ROUND = 128 * 1024
_KEEP = 64 * 1024
# What a peer may still send on a stream that this end has given up: what it has credit for, a head,
# and small change.
_STRAY = WINDOW + 160 * 1024


class Reset(IntEnum):
    """Why a stream ended early: the first byte of RESET's payload, since version 2."""

    FAILED = 1
    # Nothing was begun, or it is of a kind that may be asked again: another connection point can be
    # asked, whatever the method is.
    REPEAT = 2
    CANCELLED = 3
    TOO_LARGE = 4


class Stream(Protocol):
    """What a tunnel tells the owner of a stream.

    An owner has `incoming` and `outgoing`, too, where it receives and sends DATA; and `again` in
    place of `reset` when it can ask elsewhere what this peer has not begun.
    """

    def head(self, payload: bytes, fin: bool) -> None: ...
    def data(self, payload: bytes, fin: bool) -> None: ...
    def writable(self) -> None: ...
    def reset(self, reason: str) -> None: ...


class Outgoing:
    """The DATA that one side of a stream still has to send, within the credit it has."""

    __slots__ = ("_ahead", "_fin", "_queued", "_session", "_size", "_waiting", "credit", "number")

    def __init__(self, session: "Session", number: int) -> None:
        self._session = session
        self.number = number
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._ahead = _AHEAD
        self._fin = False
        self._queued = False
        self.credit = WINDOW

    @property
    def blocked(self) -> bool:
        """Whether its source should pause; `writable` says when it may go on."""
        return self._size > _KEEP

    @property
    def empty(self) -> bool:
        """Whether all is sent that was to be sent."""
        return not self._size and not self._fin

    def send(self, data: bytes, fin: bool = False) -> None:
        size = len(data)
        if not self._size and not self._fin and size <= self._ahead and size <= self.credit:
            self._ahead -= size
            self.credit -= size
            if size or fin:
                self._session.put(encode(Type.DATA, self.number, data, fin=fin))
            return
        if size:
            self._waiting.append(memoryview(data))
            self._size += size
        self._fin = self._fin or fin
        self._queue()

    def give(self, amount: int) -> None:
        """Raises BadFrame."""
        if not amount or self.credit + amount > WINDOW:
            raise BadFrame("more credit was given than was used")
        self.credit += amount
        self._queue()

    def _queue(self) -> None:
        if not self._queued and (self._size or self._fin) and (self.credit or not self._size):
            self._queued = True
            self._session.bulk(self)

    def frame(self) -> list[bytes | memoryview]:
        """The next DATA frame; the caller has been told by `Session.bulk` that there is one."""
        room = left = min(MAX_DATA, self.credit, self._size)
        parts: list[bytes | memoryview] = [b""]
        while left:
            first = self._waiting[0]
            if len(first) <= left:
                parts.append(self._waiting.popleft())
                left -= len(first)
            else:
                parts.append(first[:left])
                self._waiting[0] = first[left:]
                left = 0
        self._size -= room
        self.credit -= room
        last = self._fin and not self._size
        if last:
            self._fin = False
        parts[0] = HEADER.pack(room, Type.DATA | (FIN if last else 0), self.number)
        self._queued = False
        self._queue()
        return parts


class Incoming:
    """Counts the DATA of the other side, and gives credit back for what was passed on."""

    __slots__ = ("_number", "_passed", "_session", "headed", "left")

    def __init__(self, session: "Session", number: int) -> None:
        self._session = session
        self._number = number
        self._passed = 0
        self.left = WINDOW
        self.headed = False

    def passed(self, amount: int) -> None:
        self._passed += amount
        if self._passed >= _GIVE:
            self.left += self._passed
            self._session.put(credit(self._number, self._passed))
            self._passed = 0


class Session:
    """The streams of one connection. `opened` is the connection point's: it takes requests."""

    def __init__(
        self, control: Callable[[Frame], None], opened: Callable[[Frame], None] | None = None
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self._control = control
        self._opened = opened
        self._decoder = Decoder()
        self._urgent: list[bytes | memoryview] = []
        self._bulk: deque[Outgoing] = deque()
        self._last = 0  # The highest stream that was opened.
        self._stray = 0  # Bytes on streams that are over.
        self.version = 1  # Of the protocol; what the peer's HELLO says.
        # An end that leaves takes no more streams.
        self.leaving = self.peer_leaves = False

    # -------------------------------------------------------------- in

    def feed(self, data: bytes) -> None:
        """Raises BadFrame: the caller closes."""
        self._decoder.feed_to(data, self._take)

    def _take(self, kind: Type, number: int, payload: bytes, fin: bool) -> None:
        stream: Any = self.streams.get(number)
        if stream is None or kind is Type.OPEN:
            self._take_other(kind, number, payload, fin)
        elif kind is Type.DATA:
            incoming = getattr(stream, "incoming", None)
            if incoming is not None:
                incoming.left -= len(payload)
                if incoming.left < 0:
                    raise BadFrame("more DATA than there is credit for")
                if self._opened is None and not incoming.headed:
                    raise BadFrame("DATA before HEAD")
            stream.data(payload, fin)
        elif kind is Type.HEAD:
            if self._opened is not None:
                raise BadFrame("HEAD from who asks")
            incoming = getattr(stream, "incoming", None)
            if incoming is not None:
                if incoming.headed:
                    raise BadFrame("a second HEAD")
                incoming.headed = True
            stream.head(payload, fin)
        elif kind is Type.CREDIT:
            outgoing = getattr(stream, "outgoing", None)
            if outgoing is not None:
                outgoing.give(int.from_bytes(payload))
                stream.writable()
        elif kind is Type.RESET:
            del self.streams[number]
            self._end(stream, payload)

    def _take_other(self, kind: Type, number: int, payload: bytes, fin: bool) -> None:
        """What is about no stream that is open here."""
        if kind is Type.OPEN:
            self._open(Frame(kind, number, payload, fin))
        elif number:
            self._over(number, len(payload))
        elif kind is Type.PING:
            self.put(encode(Type.PONG, 0, payload))
        elif kind is not Type.PONG:
            self._control(Frame(kind, number, payload, fin))
            if kind is Type.GOAWAY:
                # Whoever is told that it is free again must not find this peer any more.
                self._gone(payload)

    def _open(self, frame: Frame) -> None:
        if self._opened is None:
            raise BadFrame("a stream was opened by who answers")
        # Version 1 began with 1 again when its numbers were used up.
        if frame.stream in self.streams or (self.version > 1 and frame.stream <= self._last):
            raise BadFrame("a stream was opened twice")
        if self.leaving and self.version > 1:
            return  # It is asked for elsewhere: GOAWAY says that this one is not begun.
        self._last = frame.stream
        self._opened(frame)

    def _over(self, number: int, size: int) -> None:
        """A frame on no stream of ours: it ended meanwhile, or the peer makes numbers up."""
        if number > self._last:
            # After GOAWAY, what belongs to a stream that was not taken.
            if self.leaving and self._opened is not None:
                return
            raise BadFrame(f"stream {number} was never opened")
        self._stray += HEADER_BYTES + size
        if self._stray > self._last * _STRAY:
            raise BadFrame("it goes on with streams that are over")

    @staticmethod
    def _end(stream: Any, payload: bytes) -> None:
        code = payload[0] if payload and payload[0] < 32 else 0
        reason = payload[1 if code else 0 :].decode("utf-8", "replace")
        _tell(stream, reason, again=code == Reset.REPEAT)

    def _gone(self, payload: bytes) -> None:
        """The peer takes no more streams: those above the last one that it took are free again."""
        self.peer_leaves = True
        last, reason = int.from_bytes(payload[:4]), payload[4:].decode("utf-8", "replace")
        for number in [number for number in self.streams if number > last]:
            _tell(self.streams.pop(number), reason, again=True)

    # -------------------------------------------------------------- out

    def begin(self, stream: Stream) -> int:
        """The number of a new stream. Numbers are used once: see `used_up`. Not while `peer_leaves`:
        nobody would answer."""
        self._last += 1
        self.streams[self._last] = stream
        return self._last

    @property
    def used_up(self) -> bool:
        """Another connection has to take over: this one has no numbers left."""
        return self._last >= MOST_STREAM

    def put(self, data: bytes) -> None:
        """A frame that goes out before all bulk."""
        self._urgent.append(data)
        self.wake()

    def bulk(self, outgoing: Outgoing) -> None:
        """Something of it can be sent, when its turn comes."""
        self._bulk.append(outgoing)
        self.wake()

    def reset(self, number: int, code: Reset, reason: str) -> None:
        """End a stream early, and forget it."""
        self.streams.pop(number, None)
        text = reason.encode()[:1000]
        self.put(encode(Type.RESET, number, bytes([code]) + text if self.version > 1 else text))

    def leave(self, reason: str) -> None:
        """Take no more streams; those that are open go on. Nothing is said to a peer of version 1."""
        if not self.leaving:
            self.leaving = True
            if self.version > 1:
                self.put(encode(Type.GOAWAY, 0, self._last.to_bytes(4) + reason.encode()[:500]))

    def wake(self) -> None:
        """There is something to take."""

    @property
    def pending(self) -> bool:
        return bool(self._urgent or self._bulk)

    def take(self, most: int = _ROUND) -> bytes:
        """What has to be sent next: all that is small, and bulk of at most about `most` bytes."""
        parts, self._urgent = self._urgent, []
        if not self._bulk:
            return b"".join(parts)
        size = 0
        served: list[Any] = []
        while self._bulk and size < most:
            outgoing = self._bulk.popleft()
            stream = self.streams.get(outgoing.number)
            if stream is None or getattr(stream, "outgoing", None) is not outgoing:
                continue  # It was given up.
            made = outgoing.frame()
            size += sum(map(len, made))
            parts += made
            served.append(stream)
        data = b"".join(parts)
        for stream in served:
            stream.writable()
        return data

    def lost(self, reason: str) -> None:
        """The connection is gone: every stream ends."""
        streams, self.streams = list(self.streams.values()), {}
        self._urgent.clear()
        self._bulk.clear()
        for stream in streams:
            stream.reset(reason)


def _tell(stream: Any, reason: str, *, again: bool) -> None:
    ask = getattr(stream, "again", None) if again else None
    (ask or stream.reset)(reason)
