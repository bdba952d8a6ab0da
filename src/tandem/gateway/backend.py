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
# Who waits too long for an answer is found by a look at all that wait, so late by this at most.
_LOOK_SECONDS = 0.5
_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer"}
# What a gateway may not say to the management point: how the request is framed is ours to say.
_OURS = _HOP | {b"host", b"content-length", b"te", b"expect"}
_FIRST = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): *([\t\x20-\x7e\x80-\xff]*)")
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_CORRELATION = b"x-correlation-id: "
# As our own gateway writes it: another one with each request.
_ID = re.compile(rb"x-correlation-id: [0-9A-Za-z._-]{1,64}")

# Lines of heads that were read before, and what became of them: devices and management points say
# the same again and again. Longer ones are not kept, and when there are many all are forgotten.
_MOST_LINES, _LONGEST_LINE = 2_000, 128
_first_lines: dict[bytes, tuple[str, str, bytes]] = {}
_asked: dict[bytes, bytes] = {}
_answered: dict[bytes, tuple[bytes, int]] = {}


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
        key = (service_name, endpoint)
        found = self.tallies.get(key)
        if found is None:
            found = self.tallies[key] = Tally()
        return found

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
        self._loop = asyncio.get_running_loop()
        # Requests that have no answer yet, and until when they may wait for it.
        self._waiting: dict[Request, float] = {}
        self._look: asyncio.TimerHandle | None = None

    def kept(self) -> "_Connection | None":
        """A connection that is there already."""
        while self._idle:
            since, connection = self._idle.pop()
            if connection.usable and self._loop.time() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def dial(self) -> "_Connection":
        """Raises OSError when the management point cannot be reached."""
        loop = self._loop
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
            self._idle.append((self._loop.time(), connection))
        else:
            connection.close()

    def expect(self, request: "Request", seconds: float) -> None:
        """An answer, or at least its head, within this time."""
        self._waiting[request] = self._loop.time() + seconds
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_SECONDS, self._look_around)

    def heard(self, request: "Request") -> None:
        """It is not waited for any more."""
        self._waiting.pop(request, None)

    def _look_around(self) -> None:
        self._look = None
        if self._waiting:
            now = self._loop.time()
            for request in [one for one, until in self._waiting.items() if until <= now]:
                self.heard(request)
                request.late()
            self._look = self._loop.call_later(_LOOK_SECONDS, self._look_around)

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()
        if self._look is not None:
            self._look.cancel()


class BadRequest(ValueError):
    """What came through the tunnel is no request that our own gateway would write."""


class Head:
    """The head of a request, read strictly: who has the gateway must not have the inside."""

    __slots__ = ("correlation", "lines", "method", "path", "query")

    def __init__(
        self, method: str, path: str, query: bytes, lines: list[bytes], correlation: str
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.lines = lines  # The fields that go on.
        self.correlation = correlation

    @classmethod
    def read(cls, raw: bytes) -> tuple["Head", bytes]:
        """The head, and what of the body came with it. Raises BadRequest."""
        head, end, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        if not end:
            raise BadRequest
        method, path, query = _first_lines.get(first) or _first_line(first)
        written, correlation, known = [], "", _asked
        for line in lines:
            kept = known.get(line)
            if kept is None:
                kept = _field_asked(line)
                if kept.startswith(_CORRELATION):  # Those are not remembered.
                    correlation = kept[len(_CORRELATION) :].decode("latin-1")[:64]
            if kept:
                written.append(kept)
        return cls(method, path, query, written, correlation), body

    def written(self, to: "Target", body: bytes) -> bytes:
        """The request for the management point: the external prefix gives way to the internal path.

        What is below the prefix stays as it is: the device signed it.
        """
        inside = to.inside + self.path[to.prefix_bytes :].encode() or b"/"
        target = inside + b"?" + self.query if self.query else inside
        first = b"%s %s HTTP/1.1\r\nhost: %s" % (self.method.encode(), target, to.pool.authority)
        lines = [first, *self.lines]
        if body or self.method not in {"GET", "HEAD"}:
            lines.append(b"content-length: %d" % len(body))
        lines.append(b"\r\n")
        return b"\r\n".join(lines) + body


def _first_line(line: bytes) -> tuple[str, str, bytes]:
    """Method, path and query. Raises BadRequest."""
    found = _FIRST.fullmatch(line)
    if found is None:
        raise BadRequest
    path, _, query = found[2].partition(b"?")
    text = path.decode("ascii")
    if UNSAFE_PATH.search(text):
        raise BadRequest
    read = found[1].decode(), text, query
    if len(line) <= _LONGEST_LINE:
        if len(_first_lines) >= _MOST_LINES:
            _first_lines.clear()
        _first_lines[line] = read
    return read


def _field_asked(line: bytes) -> bytes:
    """A field of a request as it goes on, and nothing of one that does not. Raises BadRequest."""
    if _ID.fullmatch(line):
        return line
    field = _FIELD.fullmatch(line)
    if field is None:
        raise BadRequest
    name = field[1].lower()
    kept = b"" if name in _OURS else b"%s: %s" % (name, field[2])
    if len(line) <= _LONGEST_LINE and name not in {b"x-correlation-id", b"authorization"}:
        if len(_asked) >= _MOST_LINES:
            _asked.clear()
        _asked[line] = kept
    return kept


def _field_answered(line: bytes) -> tuple[bytes, int]:
    """A field of an answer as it goes on, and the length of the body if this says it; -1 otherwise,
    and -2 where it takes the whole parser to know what it means."""
    field = _FIELD.fullmatch(line)
    if field is None:
        return b"", -2
    name, value = field[1].lower(), field[2].strip(b"\t ")
    length, kept = -1, b"%s: %s" % (name, value)
    if name == b"content-length":
        length = int(value) if value.isdigit() and len(value) <= 18 else -2
    elif name in _HOP:
        kept = b""
        if name != b"keep-alive" and (name, value.lower()) != (b"connection", b"keep-alive"):
            length = -2
    found = kept, length
    if len(line) <= _LONGEST_LINE:
        if len(_answered) >= _MOST_LINES:
            _answered.clear()
        _answered[line] = found
    return found


def _read_answer(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, head and body of an answer that came whole, in one piece, plainly written, on a
    connection that goes on; None for all others."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    found = _STATUS.fullmatch(first)
    if found is None:
        return None
    written, length, known = [first], -1, _answered
    for line in lines:
        kept, size = known.get(line) or _field_answered(line)
        if size != -1:
            if size < 0 or length >= 0:
                return None
            length = size
        if kept:
            written.append(kept)
    # Those that have no body whatever they say of its length are left to the parser.
    status = int(found[1])
    if length != len(data) - end - 4 or status in {204, 304}:
        return None
    written.append(b"\r\n")
    return status, b"\r\n".join(written), data[end + 4 :]


# Of a request that was answered, for the log: correlation, path, endpoint, status, milliseconds.
Passed = Callable[[str, str, str, int, float], None]


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
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self._parser: Any = None
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
        self._parser = None
        assert self._transport is not None
        self._transport.write(raw)

    def data_received(self, data: bytes) -> None:
        request = self._request
        if request is None:
            self.close()
            return
        if self._parser is None:
            # Nearly all answers are small and come in one piece.
            read = None if request.bare else _read_answer(data)
            if read is not None:
                self._request = None
                request.answered(*read)
                if self.usable:
                    self.resume()
                    self.pool.keep(self)
                return
            self._head, self._reason = [], b""
            self._parser = httptools.HttpResponseParser(self)
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
            self._loop.call_soon(self._stop_reading)

    def _stop_reading(self) -> None:
        if self._paused and self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
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

    __slots__ = (
        "_begun",
        "_connection",
        "_ended",
        "_head",
        "_method",
        "_most",
        "_mux",
        "_number",
        "_parts",
        "_passed",
        "_retried",
        "_sent",
        "_size",
        "_status",
        "_tally",
        "_target",
        "_task",
        "_whole",
        "incoming",
        "outgoing",
    )

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
        passed: Passed,
    ) -> None:
        """Without `head` the request was no request, and without `target` it leads nowhere."""
        self._mux = mux
        self._number = number
        self.outgoing = Outgoing(mux, number)
        self.incoming = None if fin else Incoming(mux, number)
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
        self._passed = passed
        tally = traffic.of(service_name, target.endpoint if target else "?")
        self._tally = tally
        tally.requests += 1
        tally.request_bytes += len(body)
        tally.now += 1
        if tally.now > tally.most:
            tally.most = tally.now
        if head is None or target is None:
            self._refuse(_BAD_REQUEST if head is None else _UNMAPPED)
        elif fin:
            self._begin()

    @property
    def bare(self) -> bool:
        """Whether its answer has no body, whatever the answer's head says."""
        return self._head is not None and self._head.method == "HEAD"

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
        pool = self._target.pool
        pool.expect(self, max(pool.seconds, self._target.hold_seconds))
        connection = pool.kept()
        if connection is None:
            self._task = asyncio.get_running_loop().create_task(self._dial())
        else:
            self._send(connection)

    async def _dial(self) -> None:
        assert self._target is not None
        try:
            connection = await self._target.pool.dial()
        except ssl.SSLCertVerificationError as error:
            log.warning("management point not trusted", reason=error.verify_message)
            self._refuse(_UNTRUSTED)
            return
        except (OSError, TimeoutError, ssl.SSLError) as error:
            log.warning("management point unreachable", reason=str(error))
            self._refuse(_UNREACHABLE)
            return
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        assert self._target is not None
        assert self._head is not None
        self._connection = connection
        if not connection.usable:
            self.broken("The management point closed the connection.")
            return
        self._sent = True
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        connection.serve(self, self._head.written(self._target, body))

    # The rest of the request, from the tunnel.

    def head(self, payload: bytes, fin: bool) -> None:
        """A gateway sends no answers."""

    def answer(self, status: int, head: bytes) -> None:
        """The management point's status and head."""
        self._status = status
        if self._target is not None:
            self._target.pool.heard(self)
        self._mux.put(encode(Type.HEAD, self._number, head))

    def answered(self, status: int, head: bytes, body: bytes) -> None:
        """All of it at once."""
        self._connection = None
        self._tally.response_bytes += len(body)
        self.answer(status, head)
        self.outgoing.send(body, fin=True)
        self._end()

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
        if self.incoming is not None:
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
            self._task = asyncio.get_running_loop().create_task(self._dial())
        else:
            self._refuse(_UNREACHABLE)

    def late(self) -> None:
        """There is no answer in time."""
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
        if self.outgoing.empty:
            self._mux.streams.pop(self._number, None)
        self._ended = True
        elapsed = (time.monotonic() - self._begun) * 1000
        tally, head, target = self._tally, self._head, self._target
        tally.elapsed_ms += elapsed
        tally.now -= 1
        if target is not None:
            target.pool.heard(self)
            if head is not None and self._status:
                self._passed(head.correlation, head.path, target.endpoint, self._status, elapsed)


_UNREACHABLE = refusal("CMGConnector_Management_Point_Unreachable")
_UNKNOWN = refusal(
    "CMGConnector_Disconnected",
    "The management point ended the connection before it answered. It may have done what was asked.",
)
_UNTRUSTED = refusal("CMGConnector_Forbidden")
_LATE = refusal("CMGConnector_Timeout", "The management point did not answer in time.")
_BAD_REQUEST = refusal("CMGConnector_Bad_Request")
_UNMAPPED = refusal("CMGConnector_Not_Mapped")
