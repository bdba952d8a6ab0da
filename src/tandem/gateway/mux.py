"""One tunnel connection: frames in and out, and credit per stream. Both ends use it.

Everything that one round of the event loop brings goes out in one write, so a busy tunnel costs one
TLS record and one system call for many requests.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from tandem.protocols.tunnel import (
    MAX_DATA,
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


class Stream(Protocol):
    """What a tunnel tells the owner of a stream."""

    def head(self, payload: bytes, fin: bool) -> None: ...
    def data(self, payload: bytes, fin: bool) -> None: ...
    def writable(self) -> None: ...
    def reset(self, reason: str) -> None: ...


class Outgoing:
    """The DATA that one side of a stream still has to send, within the credit it has."""

    __slots__ = ("_fin", "_mux", "_stream", "_waiting", "credit")

    def __init__(self, mux: "Mux", stream: int) -> None:
        self._mux = mux
        self._stream = stream
        self._waiting = bytearray()
        self._fin = False
        self.credit = WINDOW

    @property
    def blocked(self) -> bool:
        return bool(self._waiting)

    def send(self, data: bytes, fin: bool = False) -> None:
        self._waiting += data
        self._fin = self._fin or fin
        self.flush()

    def give(self, amount: int) -> None:
        self.credit += amount
        self.flush()

    def flush(self) -> None:
        while self._waiting and self.credit > 0:
            piece = bytes(self._waiting[: min(MAX_DATA, self.credit)])
            del self._waiting[: len(piece)]
            self.credit -= len(piece)
            last = self._fin and not self._waiting
            self._mux.put(encode(Type.DATA, self._stream, piece, fin=last))
            if last:
                self._fin = False
        if self._fin and not self._waiting:
            self._fin = False
            self._mux.put(encode(Type.DATA, self._stream, b"", fin=True))


class Incoming:
    """Counts what was passed on, and gives credit back for it."""

    __slots__ = ("_mux", "_passed", "_stream")

    def __init__(self, mux: "Mux", stream: int) -> None:
        self._mux = mux
        self._stream = stream
        self._passed = 0

    def passed(self, amount: int) -> None:
        self._passed += amount
        if self._passed >= _GIVE:
            self._mux.put(credit(self._stream, self._passed))
            self._passed = 0


class Mux:
    """Frames over one transport."""

    def __init__(
        self, control: Callable[[Frame], None], opened: Callable[[Frame], None] | None = None
    ) -> None:
        self.streams: dict[int, Stream] = {}
        self._control = control
        self._opened = opened
        self._decoder = Decoder()
        self._out: list[bytes] = []
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.heard_at = self._loop.time()
        self.reason = ""  # Why this side gave the connection up.

    def attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    @property
    def open(self) -> bool:
        return self._transport is not None

    def feed(self, data: bytes) -> None:
        """Raises BadFrame: the caller closes."""
        self.heard_at = self._loop.time()
        for frame in self._decoder.feed(data):
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        kind, number, payload, fin = frame
        if number == 0:
            if kind is Type.PING:
                self.put(encode(Type.PONG, 0, payload))
            elif kind is not Type.PONG:
                self._control(frame)
            return
        if kind is Type.OPEN:
            if self._opened is None or number in self.streams:
                raise BadFrame("a stream was opened where none may be")
            self._opened(frame)
            return
        stream = self.streams.get(number)
        if stream is None:
            # It ended on this side meanwhile.
            return
        if kind is Type.DATA:
            stream.data(payload, fin)
        elif kind is Type.HEAD:
            stream.head(payload, fin)
        elif kind is Type.CREDIT:
            outgoing = getattr(stream, "outgoing", None)
            if outgoing is not None:
                outgoing.give(int.from_bytes(payload))
                stream.writable()
        elif kind is Type.RESET:
            self.streams.pop(number, None)
            stream.reset(payload.decode("utf-8", "replace"))

    def put(self, data: bytes) -> None:
        self._out.append(data)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        data = b"".join(self._out)
        self._out.clear()
        if self._transport is not None:
            self._transport.write(data)

    def ping(self) -> None:
        self.put(encode(Type.PING, 0, b""))

    def lost(self, reason: str) -> None:
        """The connection is gone: every stream ends."""
        self._transport = None
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            stream.reset(reason)

    @property
    def silent_seconds(self) -> float:
        return self._loop.time() - self.heard_at

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Give the connection up without a farewell, which a dead peer would never answer."""
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()
