"""Accepting: from the queue of a listening socket to a connection that has proved its TLS.

The servers of asyncio and aiofastnet cut off who is in the middle of a handshake when they are closed,
so an instance that showed another certificate, or was told to stop, turned clients away in that
moment. Here a certificate is one for the next handshake, and to stop is to take nothing more from
the queue: what was taken goes on.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

import aiofastnet

from tandem.infra.logs import get_logger

log = get_logger("gateway")

BACKLOG = 4096
# Taken from the queue between two rounds of the loop: a storm of clients must not hold up those
# that are connected, nor one worker take what another has time for.
_AT_ONCE = 32
# How long a client may take to answer the end of TLS.
_FAREWELL_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
# What may stand before the end of its handshake: more than a worker serves. Then the oldest goes,
# who has had the most time.
_MOST_ARRIVING = 16_384
_HANDSHAKE_SECONDS = 30.0
_NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """Takes connections from a socket that its process may share with others."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        sock: socket.socket,
        context: ssl.SSLContext,
        fast: bool,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        """`failed` is told why a handshake was none."""
        self._factory = factory
        self._failed = failed
        self._socket = sock
        self.context = context  # Of the handshakes that begin from now on.
        self._fast = fast
        self._loop = asyncio.get_running_loop()
        self._arriving: dict[asyncio.Task[None], None] = {}
        self._open = True
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    @property
    def arriving(self) -> int:
        """Connections whose TLS is not finished."""
        return len(self._arriving)

    def stop(self) -> None:
        """Take those that wait, and no more."""
        if self._open:
            while self._take():
                pass
            self._open = False
            self._deaf()
            self._socket.close()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._take_some)

    def _deaf(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket.fileno())

    def _take_some(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._take():
                return

    def _take(self) -> bool:
        """False when nobody waits."""
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:
            return True
        except OSError as error:
            if error.errno not in _NOTHING_LEFT:
                # Of the network below one connection (accept(2)): the next one has another.
                log.warning("not accepted", reason=error.strerror)
                return False
            # The socket says that somebody waits for as long as that is so: without a pause
            # nothing else would be done.
            log.error("no connection can be taken", reason=error.strerror, pause=_PAUSE_SECONDS)
            self._deaf()
            self._pause = self._loop.call_later(_PAUSE_SECONDS, self._listen)
            return False
        accepted.setblocking(False)
        if len(self._arriving) >= _MOST_ARRIVING:
            oldest = next(iter(self._arriving))
            del self._arriving[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._shake_hands(accepted, self.context))
        self._arriving[task] = None
        task.add_done_callback(self._arrived)
        return True

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.pop(task, None)

    async def _shake_hands(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        try:
            if self._fast:
                await aiofastnet.connect_accepted_socket(
                    self._loop,
                    self._factory,
                    accepted,
                    ssl=context,
                    ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=_FAREWELL_SECONDS,
                )
            else:
                await self._loop.connect_accepted_socket(
                    self._factory,
                    accepted,
                    ssl=context,
                    ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=_FAREWELL_SECONDS,
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            accepted.close()
            self._failed(error)  # Those are counted, not logged each.
        except BaseException:
            accepted.close()
            raise
