"""Requests from the tunnel to the management point, over connections that are kept."""

import asyncio
import contextlib
import re
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import aiofastnet
import httptools

from tandem.gateway.model import UNSAFE_PATH, Refusal
from tandem.gateway.mux import Incoming, Mux, Outgoing
from tandem.gateway.reader import IDEMPOTENT
from tandem.gateway.statuses import refusal
from tandem.infra.logs import get_logger
from tandem.protocols.tunnel import BadFrame, Reset, Type, encode

log = get_logger("connector")

_IDLE_SECONDS = 55.0
_MOST_IDLE = 64
_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer"}
# What a gateway may not say to the management point: how the request is framed is ours to say.
_OURS = _HOP | {b"host", b"content-length", b"te", b"expect"}
_FIRST = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *([\t\x20-\x7e\x80-\xff]*)")


@dataclass
class Tally:
    """What went through one endpoint since the last report."""

    requests: int = 0
    failures: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    elapsed_ms: float = 0.0
    now: int = 0
    most: int = 0

    @property
    def changed(self) -> bool:
        return bool(self.requests or self.failures or self.response_bytes or self.elapsed_ms)

    def begin_anew(self) -> None:
        """But for what is under way."""
        self.requests = self.failures = self.request_bytes = self.response_bytes = 0
        self.elapsed_ms = 0.0
        self.most = self.now


@dataclass
class Traffic:
    """Requests that are under way count on in the tally that they began with."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)

    def of(self, service_name: str, endpoint: str) -> Tally:
        return self.tallies.setdefault((service_name, endpoint), Tally())

    def take(self) -> dict[tuple[str, str], Tally]:
        """What was counted since it was taken last."""
        taken = {}
        for key, tally in self.tallies.items():
            if tally.changed:
                taken[key] = replace(tally)
                tally.begin_anew()
        return taken


class Backend:
    """The pool of connections to one management point."""

    def __init__(self, url: str, context: ssl.SSLContext | None, fast_tls: bool, seconds: float):
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = f"{self.host}:{self.port}".encode()
        self._context = context if parts.scheme == "https" else None
        self._fast = fast_tls
        self.seconds = seconds
        self._idle: deque[tuple[float, _Connection]] = deque()

    async def connection(self, fresh: bool = False) -> "_Connection":
        """Raises OSError when the management point cannot be reached."""
        loop = asyncio.get_running_loop()
        while self._idle and not fresh:
            since, connection = self._idle.pop()
            if connection.usable and loop.time() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        options: dict[str, Any] = {}
        if self._context is not None:
            options = {"ssl": self._context, "server_hostname": self.host}
        create = (
            aiofastnet.create_connection(
                loop, lambda: _Connection(self), self.host, self.port, **options
            )
            if self._fast
            else loop.create_connection(lambda: _Connection(self), self.host, self.port, **options)
        )
        async with asyncio.timeout(10):
            _, made = await create
        return made

    def keep(self, connection: "_Connection") -> None:
        if len(self._idle) < _MOST_IDLE:
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()


class BadRequest(ValueError):
    """What came through the tunnel is no request that our own gateway would write."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request, read strictly: who has the gateway must not have the inside."""

    method: str
    path: str
    query: bytes
    fields: list[tuple[bytes, bytes]]
    correlation: str

    @classmethod
    def read(cls, raw: bytes) -> tuple["Head", bytes]:
        """The head, and what of the body came with it. Raises BadRequest."""
        head, end, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        found = _FIRST.fullmatch(first)
        if not end or found is None:
            raise BadRequest
        path, _, query = found[2].partition(b"?")
        if UNSAFE_PATH.search(path.decode("ascii")):
            raise BadRequest
        fields, correlation = [], ""
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise BadRequest
            name = field[1].lower()
            if name == b"x-correlation-id":
                correlation = field[2].decode("latin-1")[:64]
            if name not in _OURS:
                fields.append((name, field[2]))
        return cls(found[1].decode(), path.decode("ascii"), query, fields, correlation), body

    def written(self, to: "Target", body: bytes) -> bytes:
        """The request for the management point: the external prefix gives way to the internal path.

        What is below the prefix stays as it is: the device signed it.
        """
        inside = to.inside + self.path[to.prefix_bytes :].encode() or b"/"
        target = inside + b"?" + self.query if self.query else inside
        lines = [b"%s %s HTTP/1.1" % (self.method.encode(), target), b"host: " + to.pool.authority]
        lines += [b"%s: %s" % field for field in self.fields]
        if body or self.method not in {"GET", "HEAD"}:
            lines.append(b"content-length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass(frozen=True, slots=True)
class Passed:
    """One request that was answered, for the log."""

    correlation: str
    path: str
    endpoint: str
    status: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request leads: the pool, how much of its path gives way, and to what."""

    pool: Backend
    prefix_bytes: int
    inside: bytes
    endpoint: str
    hold_seconds: float = 0


class _Connection(asyncio.Protocol):
    """One kept connection; it serves one request at a time."""

    def __init__(self, pool: Backend) -> None:
        self.pool = pool
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self._parser: Any = None
        self._keep = True
        self._head: list[bytes] = []
        self._reason = b""
        self._paused = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def serve(self, request: "Request", raw: bytes) -> None:
        self._request = request
        self._head, self._reason = [], b""
        self._parser = httptools.HttpResponseParser(self)
        assert self._transport is not None
        self._transport.write(raw)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._request is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("The management point's answer is not HTTP.")

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower not in _HOP:
            self._head.append(lower + b": " + value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._request is None:
            self._head, self._reason = [], b""
            return
        first = b"HTTP/1.1 %d %s" % (status, self._reason)
        self._request.answer(status, b"\r\n".join([first, *self._head]) + b"\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._request is not None:
            self._request.body(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        request, self._request = self._request, None
        keep = self._parser.should_keep_alive()
        if request is not None:
            request.complete()
        if keep and self.usable:
            self.resume()
            self.pool.keep(self)
        else:
            self.close()

    def pause(self) -> None:
        """Stop reading, after all that was read is delivered.

        Not at once: aiofastnet (1.2) delivers 256 KB a call, keeps what it has read beyond that
        when it is paused within the call, and looks at it again only when more arrives. The end
        of an answer would lie there for ever.
        """
        if not self._paused:
            self._paused = True
            asyncio.get_running_loop().call_soon(self._stop_reading)

    def _stop_reading(self) -> None:
        if self._paused and self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()

    def _fail(self, reason: str) -> None:
        request, self._request = self._request, None
        self.close()
        if request is not None:
            request.broken(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        request, self._request = self._request, None
        if request is not None:
            request.broken("The management point closed the connection.")

    def abandon(self) -> None:
        self._request = None
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Request:
    """One stream of a tunnel: a request to the management point, and its answer back."""

    def __init__(
        self,
        mux: Mux,
        number: int,
        head: Head | None,
        body: bytes,
        fin: bool,
        *,
        target: "Target | None",
        service_name: str,
        most_bytes: int,
        traffic: Traffic,
        passed: Callable[[Passed], None],
    ) -> None:
        """Without `head` the request was no request, and without `target` it leads nowhere."""
        self._mux = mux
        self._number = number
        self.outgoing = Outgoing(mux, number)
        self.incoming = Incoming(mux, number)
        self._connection: _Connection | None = None
        self._head = head
        self._target = target
        self._parts = [body]
        self._size = len(body)
        self._most = most_bytes
        self._whole = fin
        self._status = 0
        self._begun = time.monotonic()
        self._retried = False
        self._sent = False
        self._method = head.method if head else ""
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._passed = passed
        self._tally = traffic.of(service_name, target.endpoint if target else "?")
        self._tally.requests += 1
        self._tally.request_bytes += len(body)
        self._tally.now += 1
        self._tally.most = max(self._tally.most, self._tally.now)
        if head is None or target is None:
            self._refuse(_BAD_REQUEST if head is None else _UNMAPPED)
        elif fin:
            self._begin()

    @property
    def over(self) -> bool:
        """Answered already, when it was refused at once."""
        return self._ended and self.outgoing.empty

    @property
    def held(self) -> bool:
        """Whether it waits for news at the management point, which a client asks for anew."""
        return self._target is not None and self._target.hold_seconds > 0 and not self._status

    def _begin(self) -> None:
        assert self._target is not None
        loop = asyncio.get_running_loop()
        seconds = max(self._target.pool.seconds, self._target.hold_seconds)
        self._timer = loop.call_later(seconds, self._late)
        self._task = loop.create_task(self._send())

    async def _send(self) -> None:
        assert self._target is not None
        assert self._head is not None
        target = self._target
        try:
            connection = await target.pool.connection(fresh=self._retried)
        except ssl.SSLCertVerificationError as error:
            log.warning("management point not trusted", reason=error.verify_message)
            self._refuse(_UNTRUSTED)
            return
        except (OSError, TimeoutError, ssl.SSLError) as error:
            log.warning("management point unreachable", reason=str(error))
            self._refuse(_UNREACHABLE)
            return
        self._connection = connection
        if not connection.usable:
            self.broken("The management point closed the connection.")
            return
        self._sent = True
        connection.serve(self, self._head.written(target, b"".join(self._parts)))

    # The rest of the request, from the tunnel.

    def head(self, payload: bytes, fin: bool) -> None:
        """A gateway sends no answers."""

    def answer(self, status: int, head: bytes) -> None:
        """The management point's status and head."""
        self._status = status
        self._mux.put(encode(Type.HEAD, self._number, head))

    def data(self, payload: bytes, fin: bool) -> None:
        if self._whole:
            raise BadFrame("DATA after the end of a request")
        if self._ended:
            return
        self._size += len(payload)
        if self._size > self._most:
            # Our own gateway refuses such a body before it sends any of it.
            self._mux.reset(self._number, Reset.TOO_LARGE, "The request is too large.")
            self._parts.clear()
            self._tally.failures += 1
            self._end()
            return
        self._parts.append(payload)
        self._tally.request_bytes += len(payload)
        self.incoming.passed(len(payload))
        if fin:
            self._whole = True
            self._begin()

    def writable(self) -> None:
        if self._ended and self.outgoing.empty:
            self._mux.streams.pop(self._number, None)
        if self._connection is not None and not self.outgoing.blocked:
            self._connection.resume()

    def reset(self, reason: str) -> None:
        """The gateway does not want the answer any more."""
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None
        self._end()

    def give_back(self, reason: str) -> None:
        """The connection point ends: another one asks, whatever the method is."""
        self._mux.reset(self._number, Reset.REPEAT, reason)
        self.reset(reason)

    # The answer, from the management point.

    def body(self, data: bytes) -> None:
        self._tally.response_bytes += len(data)
        self.outgoing.send(data)
        if self.outgoing.blocked and self._connection is not None:
            self._connection.pause()

    def complete(self) -> None:
        self._connection = None
        self.outgoing.send(b"", fin=True)
        self._end()

    def broken(self, reason: str) -> None:
        self._connection = None
        if self._status:
            self._tally.failures += 1
            self._mux.reset(self._number, Reset.FAILED, reason)
            self._end()
        elif self._sent and self._method not in IDEMPOTENT:
            # The management point may have done what was asked, and only its answer is lost (RFC
            # 9110, 9.2.2): who asked decides, and not we.
            self._refuse(_UNKNOWN)
        elif not self._retried:
            # A kept connection may have been closed while it was idle: once more on a new one.
            self._retried = True
            self._task = asyncio.get_running_loop().create_task(self._send())
        else:
            self._refuse(_UNREACHABLE)

    def _late(self) -> None:
        if self._status:
            return
        if self._connection is not None:
            self._connection.abandon()
        if self._task is not None:
            self._task.cancel()
        self._refuse(_LATE)

    def _refuse(self, refusal: Refusal) -> None:
        self._tally.failures += 1
        self._status = refusal.status
        content = refusal.body()
        again = f"retry-after: {refusal.retry_after}\r\n" if refusal.retry_after else ""
        head = (
            f"HTTP/1.1 {refusal.status} {refusal.code}\r\ncontent-type: application/json\r\n"
            f"{again}content-length: {len(content)}\r\n\r\n"
        )
        self._mux.put(encode(Type.HEAD, self._number, head.encode()))
        self.outgoing.send(content, fin=True)
        self._end()

    def _end(self) -> None:
        if self._ended:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self.outgoing.empty:
            self._mux.streams.pop(self._number, None)
        self._ended = True
        elapsed = (time.monotonic() - self._begun) * 1000
        self._tally.elapsed_ms += elapsed
        self._tally.now -= 1
        if self._head is not None and self._target is not None and self._status:
            self._passed(
                Passed(
                    self._head.correlation,
                    self._head.path,
                    self._target.endpoint,
                    self._status,
                    elapsed,
                )
            )


_UNREACHABLE = refusal("CMGConnector_Management_Point_Unreachable")
_UNKNOWN = refusal(
    "CMGConnector_Disconnected",
    "The management point ended the connection before it answered. It may have done what was asked.",
)
_UNTRUSTED = refusal("CMGConnector_Forbidden")
_LATE = refusal("CMGConnector_Timeout", "The management point did not answer in time.")
_BAD_REQUEST = refusal("CMGConnector_Bad_Request")
_UNMAPPED = refusal("CMGConnector_Not_Mapped")
