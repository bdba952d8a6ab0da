"""One tunnel connection: the session's bytes over a transport. Both ends use it.

Everything that one round of the event loop brings goes out in one write, so a busy tunnel costs one
TLS record and one system call for many requests.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from tandem.protocols.tunnel import Frame, Incoming, Outgoing, Session, Stream, Type, encode

__all__ = ["Incoming", "Mux", "Outgoing", "Stream"]

# What may wait in the transport and, not yet sent, in the kernel: whatever comes later waits behind
# it, on a slow line for long.
_HIGH, _LOW = 128 * 1024, 32 * 1024
_UNSENT = 128 * 1024


class Mux(Session):
    """Frames over one transport."""

    def __init__(
        self, control: Callable[[Frame], None], opened: Callable[[Frame], None] | None = None
    ) -> None:
        super().__init__(control, opened)
        self._scheduled = False
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.heard_at = self._loop.time()
        self.reason = ""  # Why this side gave the connection up.

    def attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def tune(self) -> None:
        """Keep little in the transport and the kernel, so that bulk never stands before the rest."""
        if self._transport is None:
            return
        self._transport.set_write_buffer_limits(_HIGH, _LOW)
        sock = self._transport.get_extra_info("socket")
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if sock is not None and option is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, _UNSENT)

    @property
    def open(self) -> bool:
        return self._transport is not None

    def feed(self, data: bytes) -> None:
        """Raises BadFrame: the caller closes."""
        self.heard_at = self._loop.time()
        super().feed(data)

    def wake(self) -> None:
        if not self._scheduled and not self._paused:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._transport is None or self._paused:
            return
        data = self.take()
        if data:
            self._transport.write(data)
        if self.pending:
            self.wake()

    def pause(self) -> None:
        """The transport has enough for now."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self.pending:
            self.wake()

    def ping(self) -> None:
        self.put(encode(Type.PING, 0, b""))

    def lost(self, reason: str) -> None:
        """The connection is gone: every stream ends."""
        self._transport = None
        super().lost(reason)

    @property
    def silent_seconds(self) -> float:
        return self._loop.time() - self.heard_at

    def close(self) -> None:
        """Say what is still to be said, and end."""
        if self._transport is not None:
            if not self._paused:
                self._transport.write(self.take(0))
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Give the connection up without a farewell, which a dead peer would never answer."""
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()
