"""The frames of the tunnel.

    connection point                        gateway (one worker)
      TLS, both with certificates
      HELLO {connection_id, …}        →
                                      ←     HELLO {worker, workers, version}
      CONFIGURATION {…}               →                                (now, and on every change)
                                      ←     OPEN  7  GET /CCM_Proxy…    (a request, whole or begun)
      HEAD  7  HTTP/1.1 200 …         →
      DATA  7  …                      →
                                      ←     CREDIT 7  131072
      DATA  7  … (FIN)                →
                                      ←     PING
      PONG                            →

A frame is a big-endian header (payload length, type with the FIN bit, stream) and its payload.
Stream 0 is the connection itself. Each side may send WINDOW bytes of DATA on a stream before it
has to wait for CREDIT. RESET ends a stream at once; its payload says why.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

WINDOW = 256 * 1024
MAX_DATA = 64 * 1024
# OPEN and HEAD carry a head of HTTP, CONFIGURATION a document with revocation lists.
MAX_PAYLOAD = 8 * 1024 * 1024
FIN = 0x80

_HEADER = struct.Struct("!IBI")
HEADER_BYTES = _HEADER.size


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
}
_CONTROL = {Type.HELLO, Type.CONFIGURATION, Type.PING, Type.PONG}
_TYPES = {int(item): item for item in Type}


class BadFrame(ValueError):
    """The peer does not speak this protocol; the connection has to be closed."""


class Frame(NamedTuple):
    type: Type
    stream: int
    payload: bytes
    fin: bool


def encode(type: Type, stream: int = 0, payload: bytes = b"", *, fin: bool = False) -> bytes:
    return _HEADER.pack(len(payload), type | (FIN if fin else 0), stream) + payload


def credit(stream: int, amount: int) -> bytes:
    return encode(Type.CREDIT, stream, amount.to_bytes(4))


class Decoder:
    """Bytes in any pieces become frames. What is too long or unknown raises BadFrame at once."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        if self._rest:
            data = self._rest + data
        frames = []
        position, size = 0, len(data)
        while size - position >= HEADER_BYTES:
            length, raw, stream = _HEADER.unpack_from(data, position)
            kind = _TYPES.get(raw & ~FIN)
            if kind is None:
                raise BadFrame(f"unknown frame type {raw & ~FIN}")
            if length > _LIMITS[kind]:
                raise BadFrame(f"{kind.name} of {length} bytes is too long")
            if (stream == 0) != (kind in _CONTROL):
                raise BadFrame(f"{kind.name} on stream {stream}")
            end = position + HEADER_BYTES + length
            if end > size:
                break
            payload = data[position + HEADER_BYTES : end]
            if kind is Type.CREDIT and length != 4:
                raise BadFrame("CREDIT without an amount")
            frames.append(Frame(kind, stream, payload, bool(raw & FIN)))
            position = end
        self._rest = data[position:] if position < size else b""
        return frames
