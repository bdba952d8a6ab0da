"""The frames of the tunnel.

    connection point                        gateway (one worker)
      TLS, both with certificates
      HELLO {connection_id, newest, …} →
                                      ←     HELLO {worker, workers, protocol, …}
      CONFIGURATION {…}               →                                (now, and on every change)
                                      ←     OPEN  7  GET /CCM_Proxy…    (a request, whole or begun)
      HEAD  7  HTTP/1.1 200 …         →
      DATA  7  …                      →
                                      ←     CREDIT 7  131072
      DATA  7  … (FIN)                →
                                      ←     PING
      PONG                            →
                                      ←     TELL {run, sequence, …}    (what the worker counted)
      TOLD {run, sequence}            →                                (the site has it)
      GOAWAY 7 "It is restarted."     →                                (no more streams; 7 goes on)

A frame is a big-endian header (payload length, type with the FIN bit, stream) and its payload.
Stream 0 is the connection itself. Each side may send WINDOW bytes of DATA on a stream before it
has to wait for CREDIT. RESET ends a stream at once; its payload says why. GOAWAY names the last
stream that its sender took: what was opened after it was not begun and can be asked elsewhere.

Version 2 has GOAWAY, a code as the first byte of RESET, and numbers that are used only once; version 3
has TELL and TOLD. Each end speaks the newest version that both know, and the one before its own.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

WINDOW = 256 * 1024
MAX_DATA = 64 * 1024
# OPEN and HEAD carry a head of HTTP, CONFIGURATION a document with revocation lists.
MAX_PAYLOAD = 8 * 1024 * 1024
FIN = 0x80
NEWEST, OLDEST = 3, 1
# Since which version there are TELL and TOLD.
TELLS = 3
MOST_STREAM = 0x7FFFFFFF

HEADER = struct.Struct("!IBI")
HEADER_BYTES = HEADER.size


class Type(IntEnum):
    HELLO = 1
    CONFIGURATION = 2
    OPEN = 3
    HEAD = 4
    DATA = 5
    CREDIT = 6
    RESET = 7
    PING = 8
    PONG = 9
    GOAWAY = 10
    TELL = 13
    TOLD = 14


_LIMITS = {
    Type.HELLO: 4096,
    Type.CONFIGURATION: MAX_PAYLOAD,
    Type.OPEN: 128 * 1024,
    Type.HEAD: 128 * 1024,
    Type.DATA: MAX_DATA,
    Type.CREDIT: 4,
    Type.RESET: 1024,
    Type.PING: 8,
    Type.PONG: 8,
    Type.GOAWAY: 1024,
    Type.TELL: 112 * 1024,
    Type.TOLD: 256,
}
_CONTROL = {
    Type.HELLO,
    Type.CONFIGURATION,
    Type.PING,
    Type.PONG,
    Type.GOAWAY,
    Type.TELL,
    Type.TOLD,
}
# By the second field of a header, which has the type and FIN: type, whether it ends its direction,
# the longest payload, whether it is of the connection itself.
_KNOWN = {
    kind | fin: (kind, bool(fin), _LIMITS[kind], kind in _CONTROL)
    for kind in Type
    for fin in (0, FIN)
}


class BadFrame(ValueError):
    """The peer does not speak this protocol; the connection has to be closed."""


class Frame(NamedTuple):
    type: Type
    stream: int
    payload: bytes
    fin: bool


# What a decoder does with a frame: its type, stream and payload, and whether it ends its direction.
Take = Callable[[Type, int, bytes, bool], None]


def encode(type: Type, stream: int = 0, payload: bytes = b"", *, fin: bool = False) -> bytes:
    return HEADER.pack(len(payload), type | (FIN if fin else 0), stream) + payload


def credit(stream: int, amount: int) -> bytes:
    return encode(Type.CREDIT, stream, amount.to_bytes(4))


class Decoder:
    """Bytes in any pieces become frames. What is too long or unknown raises BadFrame at once, and so
    does anything before HELLO."""

    def __init__(self, *, greeted: bool = False) -> None:
        self._greeted = greeted
        self._rest: list[bytes] = []
        self._have = 0
        self._need = HEADER_BYTES

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        self.feed_to(data, lambda *frame: frames.append(Frame(*frame)))
        return frames

    def feed_to(self, data: bytes, take: Take) -> None:
        """Each frame as soon as it is whole; those before a bad one, too."""
        if self._rest:
            # A large frame comes in many pieces: joined once, when it is whole.
            self._rest.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._rest)
            self._rest = []
        position, size = 0, len(data)
        need, unpack, known = HEADER_BYTES, HEADER.unpack_from, _KNOWN
        while size - position >= HEADER_BYTES:
            length, raw, stream = unpack(data, position)
            if raw not in known:
                raise BadFrame(f"unknown frame type {raw & ~FIN}")
            kind, fin, most, control = known[raw]
            if length > most:
                raise BadFrame(f"{kind.name} of {length} bytes is too long")
            if control is not (stream == 0):
                raise BadFrame(f"{kind.name} on stream {stream}")
            if not self._greeted and kind is not Type.HELLO:
                raise BadFrame("the first frame has to be HELLO")
            begin = position + HEADER_BYTES
            end = begin + length
            if end > size:
                need = HEADER_BYTES + length
                break
            if length < 4:
                if kind is Type.CREDIT:
                    raise BadFrame("CREDIT without an amount")
                if kind is Type.GOAWAY:
                    raise BadFrame("GOAWAY without a stream")
            self._greeted = True
            position = end
            take(kind, stream, data[begin:end], fin)
        if position < size:
            self._rest, self._have, self._need = [data[position:]], size - position, need
