"""Clients of the gateway: HTTP/1.1 over TLS, one request at a time on a connection.

Every request is read and written anew (`reader`): nothing of its framing reaches the inside. A body
up to BODY_KEPT is kept until it is whole, so that a slow client takes no place at the connection
point; a larger one goes on as it comes, as an answer does, and waits when the other side does not
read. What waits has a deadline, and one look a second at all of them takes the place of timers.
"""

import asyncio
import contextlib
import itertools
import math
import re
import secrets
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tandem.gateway.answers import Answers
from tandem.gateway.carriers import PATH, Doors, NotTunnel
from tandem.gateway.content import Delivered, Delivery
from tandem.gateway.counts import CONTENT, EDGE, REFUSED
from tandem.gateway.desk import Desk
from tandem.gateway.gate import Gate
from tandem.gateway.guard import TOO_MANY_CONNECTIONS, WINDOW_SECONDS, Guard
from tandem.gateway.model import Decision, EdgeAnswer, Forward, Refusal, Shelved
from tandem.gateway.mux import Incoming, Outgoing
from tandem.gateway.reader import IDEMPOTENT, Reader, Refused
from tandem.gateway.statuses import refusal
from tandem.gateway.tunnels import Tunnel, Tunnels
from tandem.infra.logs import Lines, get_logger
from tandem.protocols.tunnel import WINDOW, Type, encode

log = get_logger("gateway")

# Bodies up to this size are kept until they are whole, and all of a worker's up to the second.
BODY_KEPT = 65_536
BODIES_KEPT = 64 * 1024 * 1024
# What fits beside the head into one frame.
_FIRST_FRAME = 32_768
# What was decided about a longer token is not kept with the connection.
_TOKEN_KEPT = 4_096
_SWEEP_SECONDS = 1.0
_LOG_SECONDS = 0.1
# A connection that was closed is cut when its end was not taken for so long.
_CLOSING_SECONDS = 10.0
# A request may still come on a connection that is kept when the drain begins, or that begins then;
# who takes longer for the handshake of TLS has asked nothing yet.
_DRAIN_IDLE_SECONDS = 0.5
_ARRIVAL_SECONDS = 5.0
_NEVER = math.inf
# Connections that are looked at between two rounds of the loop when a list of revoked ones arrives.
_AT_A_TIME = 200
_DOOR = PATH.encode()
# Connection points that are all being restarted hand a request on; not for ever.
_MOST_REPEATS = 8


class _Meter(Collector):
    """Requests and their times: counted in plain numbers, made to metrics when somebody looks."""

    BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

    def __init__(self) -> None:
        self.outcomes: Tally[str] = Tally()
        self._buckets = [0] * (len(self.BOUNDS) + 1)
        self._seconds = 0.0
        self._taken: list[float] = []

    def took(self, seconds: float) -> None:
        self._taken.append(seconds)
        if len(self._taken) >= 1_000:
            self._sort()

    def _sort(self) -> None:
        taken, self._taken[:] = list(self._taken), []
        for seconds in taken:
            self._buckets[bisect_left(self.BOUNDS, seconds)] += 1
        self._seconds += sum(taken)

    def collect(self) -> Iterable[Metric]:
        self._sort()
        requests = CounterMetricFamily(
            "gateway_requests", "Requests by outcome", labels=["outcome"]
        )
        for outcome, count in self.outcomes.items():
            requests.add_metric([outcome], count)
        yield requests
        named = [*map(str, self.BOUNDS), "+Inf"]
        sums = list(zip(named, itertools.accumulate(self._buckets), strict=True))
        yield HistogramMetricFamily(
            "gateway_request_seconds",
            "Time until an answer was complete",
            buckets=sums,
            sum_value=self._seconds,
        )


METER = _Meter()
REGISTRY.register(METER)


class Front:
    """What all client connections of a worker share."""

    def __init__(
        self, tunnels: Tunnels, gate: Gate, connection_id: str = "", worker: str = ""
    ) -> None:
        self.tunnels = tunnels
        self.gate = gate
        self.limits = gate.configuration.limits
        self.rules = 0  # How often what was decided about clients had to be forgotten.
        self.counts = tunnels.ledger.own  # Of what no connection point had.
        self.connections: set[Client] = set()
        self.draining = False
        self.doors: Doors | None = None  # Where connection points come by HTTPS.
        self.desk: Desk | None = None  # Where content is given out.
        self.guard = Guard(self.limits)
        self.bodies_kept = 0
        self.waiting: deque[Exchange] = deque()
        self.loop = asyncio.get_running_loop()
        self._passed = Lines(
            "request", ("method", "url", "status", "ms", "client", "correlation", "bytes")
        )
        self._ids = secrets.token_hex(8).encode()
        self._id = 0
        self._window_ends = 0.0
        tunnels.opened = self.free
        self.answers = Answers(self, connection_id, worker)
        self.answers.configure(gate.configuration)

    def swap(self, gate: Gate) -> None:
        """New rules, for what begins from now on; open connections of clients whose certificate is
        not believed any more are cut, whatever they are doing."""
        gate.inherit(self.gate)
        self.gate = gate
        self.limits = self.guard.limits = gate.configuration.limits
        self.rules += 1
        self.answers.configure(gate.configuration)
        self._ask_anew([one for one in self.connections if one.peer is not None])

    def _ask_anew(self, left: list["Client"]) -> None:
        """Some at a time: thousands of connections must not hold up the requests between."""
        for connection in left[:_AT_A_TIME]:
            if connection.peer is not None and not self.gate.still_believes(connection.peer):
                connection.cut()
        if left[_AT_A_TIME:]:
            self.loop.call_soon(self._ask_anew, left[_AT_A_TIME:])

    def doubt(self, der: bytes) -> None:
        """Something else is known of this certificate: who shows it is asked about anew."""
        self.gate.forget(der)
        self.rules += 1
        self._ask_anew([one for one in self.connections if one.peer == der])

    def new_id(self) -> bytes:
        """For a request that brought none. Unlike any other, and no secret."""
        self._id += 1
        return b"%s%016x" % (self._ids, self._id)

    def told(self, *values: Any) -> None:
        """A line about a request, for the log."""
        if not self._passed:
            self.loop.call_later(_LOG_SECONDS, self._passed.write)
        self._passed.add(*values)

    def delivery(
        self,
        client: "Client",
        desk: Desk,
        wanted: Shelved,
        method: str,
        target: bytes,
        headers: dict[str, str],
        correlation: bytes,
    ) -> Delivery:
        """An answer with content, counted like one of the site."""
        limits = self.limits

        def ended(told: Delivered) -> None:
            METER.took(told.seconds)
            METER.outcomes["content"] += 1
            count = self.counts[CONTENT]
            count.requests += 1
            count.responses += told.whole
            count.failures += not told.whole
            count.response_bytes += told.sent_bytes
            count.seconds += told.seconds
            if not told.whole:
                return
            self.told(
                method,
                _shown(told.url),
                told.status,
                round(told.seconds * 1000, 1),
                told.device,
                told.correlation.decode("ascii"),
                told.sent_bytes,
            )

        return Delivery(
            client,
            desk,
            wanted,
            method=method,
            target=target,
            headers=headers,
            correlation=correlation,
            stall_seconds=limits.stall_seconds,
            patience=limits.request_seconds,
            guard=self.guard,
            ended=ended,
        )

    # -------------------------------------------------------------- requests that wait

    def wait(self, exchange: "Exchange") -> bool:
        """For a connection point with room; False when too many wait already."""
        while self.waiting and not self.waiting[0].waiting:
            self.waiting.popleft()  # It was late, or its client is gone.
        if len(self.waiting) >= self.limits.queue:
            return False
        self.waiting.append(exchange)
        return True

    def free(self) -> None:
        """There may be room again."""
        while self.waiting:
            exchange = self.waiting[0]
            if exchange.waiting and not exchange.begin():
                return
            self.waiting.popleft()

    # -------------------------------------------------------------- time

    async def sweep_always(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sweep(self.loop.time())

    def sweep(self, now: float) -> None:
        """Whoever is late."""
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self.guard.turn()
        for client in [client for client in self.connections if client.deadline <= now]:
            client.late()

    def make_room(self, besides: "Client") -> bool:
        """Close those that have been idle longest; False when nobody is idle."""
        idle = sorted(
            (client for client in self.connections if client.idle and client is not besides),
            key=lambda client: client.deadline,
        )
        # A sixteenth at once: to look for them costs a look at all.
        for client in idle[: max(1, len(idle) // 16)]:
            client.close()
        return bool(idle)

    async def drain(self, seconds: float, arriving: Callable[[], int] = lambda: 0) -> None:
        """Let requests under way end, tell kept connections that they are over, within this time.

        `arriving` says how many connections were taken whose TLS is not finished.

        A request may be on its way on a connection that is idle here. It has a moment to arrive,
        and is answered with `Connection: close`.
        """
        self.draining = True
        begun = self.loop.time()
        known = set(self.connections)
        for client in known:
            client.drain()
        # A client that does not take our farewell is not waited for.
        while (passed := self.loop.time() - begun) < seconds:
            late = passed >= _ARRIVAL_SECONDS or not arriving()
            if late and all(client.said_all for client in self.connections):
                break
            # Of those that came since, the deadline says when.
            moment = begun + passed - _DRAIN_IDLE_SECONDS
            for client in list(self.connections) if passed >= _DRAIN_IDLE_SECONDS else ():
                came = client.deadline - self.limits.idle_seconds
                if client.idle and (client in known or came <= moment):
                    client.close()
            await asyncio.sleep(0.02)
        cut = [client for client in self.connections if not client.closing]
        if cut:
            log.warning("drain ended", cut=len(cut), seconds=seconds)
        for client in list(self.connections):
            client.abort()
        self._passed.write()


# What a connection is doing.
_IDLE: Final = 0  # Between requests, or before the first.
_READING: Final = 1  # A request has begun.
_BUSY: Final = 2  # It is whole, and not answered.
_CLOSING: Final = 3


class Answer(Protocol):
    """What a client waits for, from wherever it comes. It ends with `Client.finished`."""

    keep: bool

    @property
    def answering(self) -> bool:
        """Whether some of it is out."""

    def more(self, piece: bytes, fin: bool = False) -> None:
        """The next of a body that goes on as it comes."""

    def resume(self) -> None:
        """The client takes more; while it does not, `Client.paused` says so."""

    def late(self) -> None:
        """`Client.deadline` is over."""

    def drain(self) -> None:
        """The instance ends soon."""

    def give_up(self, reason: str) -> None:
        """The client is answered otherwise, or not at all."""

    def client_gone(self) -> None: ...


class _Known(NamedTuple):
    """What a connection asked for last, by which rules, and what they said."""

    asked: tuple[int, str, bytes, bytes | None]
    plan: Forward


class Client(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "_body",
        "_edge",
        "_expected",
        "_front",
        "_kept",
        "_knocks",
        "_known",
        "_loop",
        "_paused_at",
        "_plan",
        "_reader",
        "_refusal",
        "_shelved",
        "_state",
        "_transport",
        "address",
        "deadline",
        "exchange",
        "paused",
        "peer",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._loop = front.loop
        self._transport: asyncio.Transport | None = None
        self.peer: bytes | None = None
        self.address = ""
        self.exchange: Answer | None = None
        # When this connection is late with what it owes; `late` knows with what.
        self.deadline = _NEVER
        self._state = _IDLE
        # The client does not take what was written; since when nothing is read of it.
        self.paused = False
        self._paused_at = 0.0
        self._reader = Reader(self, front.limits.header_bytes)
        self._kept = 0
        self._known: _Known | None = None
        self._forget()

    def _forget(self) -> None:
        self._plan: Forward | None = None
        self._edge: EdgeAnswer | None = None
        self._shelved: Shelved | None = None
        # A refusal that waits until the request is whole, and the connection goes on after it.
        self._refusal: Refusal | None = None
        self._body: bytes | bytearray = b""
        self._expected = 0
        self._knocks = False

    # -------------------------------------------------------------- the connection

    @property
    def busy(self) -> bool:
        return self._state is _BUSY

    @property
    def idle(self) -> bool:
        return self._state is _IDLE

    @property
    def closing(self) -> bool:
        return self._state is _CLOSING

    @property
    def said_all(self) -> bool:
        """Whether nothing has to be sent any more."""
        transport = self._transport
        return transport is None or (self.closing and transport.get_write_buffer_size() == 0)

    @property
    def whole(self) -> bool:
        """Whether all of the request is here."""
        return self._reader.whole

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        front = self._front
        tls = transport.get_extra_info("ssl_object")
        self.peer = tls.getpeercert(True) if tls is not None else None
        self.address = str((transport.get_extra_info("peername") or ("?",))[0])
        front.connections.add(self)
        limits = front.limits
        self.deadline = self._loop.time() + limits.idle_seconds
        if not front.guard.connected(self.address):
            self._refuse_and_close(TOO_MANY_CONNECTIONS)
        elif len(front.connections) > limits.connections and not front.make_room(self):
            self._refuse_and_close(_SITE_BUSY)

    def close(self) -> None:
        self._state = _CLOSING
        self.deadline = self._loop.time() + _CLOSING_SECONDS
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """At once: what is under way is not answered, nor is what was written still sent."""
        if self._transport is None:
            return
        log.info("client cut", why="its certificate is not believed any more", busy=self.busy)
        if self.idle:
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        self._state = _CLOSING
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        front = self._front
        self._transport = None
        self._state = _CLOSING
        front.connections.discard(self)
        front.guard.disconnected(self.address)
        self._let_body_go()
        if self.exchange is not None:
            self.exchange.client_gone()
            self.exchange = None

    def drain(self) -> None:
        if self.exchange is not None:
            self.exchange.drain()

    def late(self) -> None:
        """The deadline is over."""
        if self._state is _IDLE:
            self.close()
        elif self._state is _CLOSING:
            self.abort()
        elif self.exchange is not None and self._paused_at == 0 and not self.whole:
            # Its body is on the way, and does not come.
            self.exchange.give_up("The client sends its request too slowly.")
            self._refuse_and_close(_SLOW)
        elif self.exchange is not None:
            self.exchange.late()
        else:
            self._refuse_and_close(_SLOW)

    # -------------------------------------------------------------- flow control

    def pause_writing(self) -> None:
        self.paused = True
        if self.exchange is not None:
            self.deadline = self._loop.time() + self._front.limits.stall_seconds

    def resume_writing(self) -> None:
        self.paused = False
        if self.exchange is not None:
            self.exchange.resume()

    def pause(self) -> None:
        """Read no more, until `resume`."""
        if self._paused_at == 0:
            self._paused_at = self._loop.time()
            # Not at once: aiofastnet keeps what it has read beyond this call (see `backend`).
            self._loop.call_soon(self._stop_reading)

    def _stop_reading(self) -> None:
        if self._paused_at and self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused_at:
            # That time was not the client's fault.
            if not self.whole:
                self._set_body_deadline()
            self._paused_at = 0.0
            if self._transport is not None:
                with contextlib.suppress(RuntimeError):
                    self._transport.resume_reading()

    # -------------------------------------------------------------- the request

    def data_received(self, data: bytes) -> None:
        if self._state >= _BUSY:
            # A request before the last one was answered, or the rest of one that was refused:
            # nobody reads it, and the connection ends with the answer.
            if self._state is _BUSY:
                self._reader.surplus = True
                if self.exchange is not None:
                    self.exchange.keep = False
                self.pause()
            return
        if self._state is _IDLE:
            self._state = _READING
            self.deadline = self._loop.time() + self._front.limits.header_seconds
        try:
            self._reader.feed(data)
        except Refused as error:
            if self.exchange is not None:
                self.exchange.give_up("The client's request broke off.")
            self._refuse_and_close(error.refusal)
        except Exception:
            log.exception("request failed", url=_shown(self._reader.target))
            self.abort()
        else:
            if self._knocks and self._reader.whole:
                self._hand_over()

    def _hand_over(self) -> None:
        """This is no client but a connection point, by HTTPS: its tunnel takes the connection."""
        front, doors, transport = self._front, self._front.doors, self._transport
        if doors is None or transport is None:
            return
        if doors.full or front.draining:
            self._refuse_and_close(_MANY_TUNNELS)
            return
        try:
            doors.take(transport, self._reader.handshake(), self._reader.rest)
        except NotTunnel:
            self._refuse_and_close(_NO_TUNNEL)
            return
        front.connections.discard(self)
        front.guard.disconnected(self.address)
        self._transport = None
        self._state = _CLOSING

    def head_read(self) -> None:
        """The reader has a head: who asks, and for what."""
        reader, front = self._reader, self._front
        if reader.target == _DOOR and front.doors is not None:
            if reader.has_body:
                raise Refused(_NO_TUNNEL)
            self._knocks = True
            return
        gate, token = front.gate, reader.authorization
        asked = front.rules, reader.method, reader.target, token
        known = self._known
        decision: Decision
        if known is not None and known.asked == asked and known.plan.until > gate.now():
            # As the last time: a device asks for the same again and again.
            decision = known.plan
        else:
            headers = {} if token is None else {"authorization": token.decode("latin-1")}
            decision = gate.decide(reader.method, reader.target, headers, self.peer)
            self._known = None
        if isinstance(decision, Forward):
            self._plan = decision
            if self._known is None and (token is None or len(token) <= _TOKEN_KEPT):
                self._known = _Known(asked, decision)
            if reader.length is not None and reader.length > decision.max_body_bytes:
                raise Refused(_too_large(decision))
            if reader.has_body:
                self._expect_body()
            return
        refused = front.guard.unknown(self.address)
        if refused is not None or isinstance(decision, Refusal):
            self._refuse_when_whole(refused or decision)  # type: ignore[arg-type]
            return
        if isinstance(decision, Shelved):
            self._shelved = decision
        else:
            self._edge = decision
        if reader.has_body:
            raise Refused(_NO_BODY)

    def _expect_body(self) -> None:
        reader, front = self._reader, self._front
        self._expected = BODY_KEPT if reader.length is None else min(reader.length, BODY_KEPT)
        if front.bodies_kept + self._expected > BODIES_KEPT:
            self._expected = 0
            self._refuse_when_whole(_SITE_BUSY)
            return
        front.bodies_kept += self._expected
        self._set_body_deadline()
        if reader.expects:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _set_body_deadline(self) -> None:
        """For all of it when its length is known, for the next piece otherwise."""
        limits, reader = self._front.limits, self._reader
        size = reader.body_bytes if reader.length is None else reader.length
        seconds = limits.header_seconds + size / max(1, limits.body_bytes_per_second)
        self.deadline = self._loop.time() + seconds

    def _let_body_go(self) -> None:
        self._front.bodies_kept -= self._expected
        self._expected = 0

    def _refuse_when_whole(self, refusal: Refusal) -> None:
        """Where an honest client comes again with something better, its connection is kept."""
        reader = self._reader
        small = not reader.has_body or (reader.length or BODY_KEPT + 1) <= BODY_KEPT
        if refusal.status not in _KEPT_AFTER or not small or reader.expects:
            raise Refused(refusal)
        self._refusal = refusal

    def body_read(self, piece: bytes) -> None:
        plan, reader = self._plan, self._reader
        if self._refusal is not None or self._state is _CLOSING:
            return
        if plan is None:
            raise Refused(_NO_BODY)
        if reader.body_bytes > plan.max_body_bytes:
            raise Refused(_too_large(plan))
        if reader.length is None:
            self._extend()
        if self.exchange is not None:
            self.exchange.more(piece)
            return
        if not self._body:
            self._body = piece
        elif isinstance(self._body, bytearray):
            self._body += piece
        else:
            self._body = bytearray(self._body)
            self._body += piece
        if len(self._body) > BODY_KEPT:
            self._forward()

    def _extend(self) -> None:
        """A body of unknown length has time according to what of it has come."""
        limits = self._front.limits
        begun = self.deadline - self._kept / max(1, limits.body_bytes_per_second)
        self._kept = self._reader.body_bytes
        self.deadline = begun + self._kept / max(1, limits.body_bytes_per_second)

    def request_read(self) -> None:
        """The reader has all of the request."""
        if self._state is _CLOSING:
            return  # It was refused before its end.
        self._state = _BUSY
        self._kept = 0
        if self.exchange is not None:
            self.exchange.more(b"", fin=True)
            return
        if self._knocks:
            return
        self.deadline = _NEVER
        if self._refusal is not None:
            self._refuse(self._refusal, self.keeps())
            self.finished(self.keeps())
        elif self._edge is not None:
            keep = self.keeps()
            METER.outcomes["edge"] += 1
            count = self._front.counts[EDGE]
            count.requests += 1
            count.responses += 1
            count.head_bytes += self._answer(self._edge.status, "", self._edge.content, keep, [])
            self.finished(keep)
        elif self._shelved is not None:
            self._deliver(self._shelved)
        else:
            self._forward()

    def _deliver(self, wanted: Shelved) -> None:
        """Content, from the shelf of this instance."""
        reader, front = self._reader, self._front
        if front.desk is None:
            self.refuse(_NO_CONTENT)
            return
        headers = reader.headers()
        correlation = reader.correlation or front.new_id()
        made = front.delivery(
            self, front.desk, wanted, reader.method, reader.target, headers, correlation
        )
        self.exchange = made
        made.start()

    def keeps(self) -> bool:
        reader = self._reader
        return reader.keep_alive and not reader.surplus and not self._front.draining

    def _forward(self) -> None:
        """Into the tunnel: the whole request, or what of it has come."""
        plan, reader, front = self._plan, self._reader, self._front
        assert plan is not None
        who = plan.identity if plan.identity != "anonymous" else self.address
        refused = front.guard.begun(who)
        if refused is not None:
            if not reader.whole:
                raise Refused(refused)
            self._refuse(refused, self.keeps())
            self.finished(self.keeps())
            return
        answers = front.answers
        if reader.target not in answers.targets or not answers.take(self, reader, plan, who):
            self._send_on(plan, who)

    def goes_on(self, plan: Forward, who: str) -> None:
        """It waited to be answered here, and is to go to the site."""
        self.exchange = None
        try:
            self._send_on(plan, who)
        except Refused as error:
            self._refuse_and_close(error.refusal)

    def _send_on(self, plan: Forward, who: str) -> None:
        reader, front = self._reader, self._front
        correlation = reader.correlation or front.new_id()
        try:
            head = reader.written(_printable(plan.identity), correlation)
        except Refused:
            front.guard.ended(who)
            raise
        body, self._body = self._body, b""
        exchange = Exchange(
            self, front, plan, who, reader.method, reader.target, head, body, correlation
        )
        self.exchange = exchange
        exchange.start()
        if front.draining:
            exchange.drain()

    # -------------------------------------------------------------- the answer

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def not_modified(self, plan: Forward, who: str, etag: bytes, begun: float) -> None:
        """Answered here in the site's stead, as it would have."""
        reader, front = self._reader, self._front
        correlation = reader.correlation or front.new_id()
        keep = self.keeps()
        head = (
            b"HTTP/1.1 304 Not Modified\r\n%sdate: %s\r\netag: %s\r\n"
            b"cache-control: private, no-cache\r\nx-correlation-id: %s\r\n\r\n"
            % (
                b"" if keep else b"connection: close\r\n",
                front.answers.date(),
                etag,
                correlation,
            )
        )
        self.write(head)
        front.guard.ended(who)
        seconds = self._loop.time() - begun
        METER.took(seconds)
        METER.outcomes["answered"] += 1
        count = front.counts[plan.endpoint]
        count.requests += 1
        count.responses += 1
        count.head_bytes += len(head)
        count.seconds += seconds
        milliseconds = round(seconds * 1000, 1)
        front.told(
            reader.method,
            _shown(reader.target),
            304,
            milliseconds,
            plan.identity,
            correlation.decode("ascii"),
            0,
        )
        self.finished(keep)

    def _answer(self, status: int, text: str, content: bytes, keep: bool, more: list[str]) -> int:
        """How many bytes it is."""
        lines = [f"HTTP/1.1 {status} {text or HTTPStatus(status).phrase}", *more]
        if status != 204:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines.append("Cache-Control: no-store")
        if not keep:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        bare = status == 204 or self._reader.method == "HEAD"
        whole = head if bare else head + content
        self.write(whole)
        return len(whole)

    def _refuse(self, refusal: Refusal, keep: bool, *, counted: bool = False) -> None:
        """The status text stands in the first line, as in the field. `counted`: at its endpoint."""
        reader = self._reader
        correlation = (reader.correlation or self._front.new_id()).decode("ascii")
        log.info(
            "refused",
            code=refusal.code,
            status=refusal.status,
            url=_shown(reader.target),
            address=self.address,
            correlation=correlation,
            **({"why": refusal.why} if refusal.why else {}),
        )
        METER.outcomes["refused"] += 1
        more = [f"X-Correlation-Id: {correlation}"]
        if refusal.status == 401:
            more.append("WWW-Authenticate: Bearer")
        if refusal.retry_after:
            more.append(f"Retry-After: {refusal.retry_after}")
        if refusal.allow:
            more.append(f"Allow: {refusal.allow}")
        count = self._front.counts[REFUSED]
        count.requests += not counted
        count.responses += not counted
        count.head_bytes += self._answer(refusal.status, refusal.code, refusal.body(), keep, more)

    def refuse(self, refusal: Refusal) -> None:
        """In place of the site's answer."""
        keep = self.keeps() and self.whole
        self._refuse(refusal, keep, counted=True)
        self.finished(keep)

    def _refuse_and_close(self, refusal: Refusal) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None and exchange.answering:
            # Half an answer is out: what is written now would be read as the rest of it.
            self.abort()
        elif self._state is not _CLOSING and self._transport is not None:
            self._refuse(refusal, keep=False)
            self.close()

    def finished(self, keep: bool) -> None:
        """The answer is out."""
        self.exchange = None
        self._let_body_go()
        reader = self._reader
        if (
            not keep
            or not reader.whole
            or reader.surplus
            or self._front.draining
            or self._transport is None
        ):
            self.close()
            return
        self._state = _IDLE
        self._forget()
        reader.begin()
        self.resume()
        self.deadline = self._loop.time() + self._front.limits.idle_seconds


def _too_large(plan: Forward) -> Refusal:
    return refusal(
        "CMGService_Content_Length",
        f"The request is larger than the {plan.max_body_bytes} bytes that this address takes.",
    )


@lru_cache(4_096)
def _printable(identity: str) -> bytes:
    """A tenant's claim as the value of a header."""
    if identity.isascii() and identity.isprintable():
        return identity[:256].encode("ascii")
    return "".join(c if " " < c <= "~" else "?" for c in identity[:256]).encode("ascii")


@lru_cache(512)
def _shown(url: bytes) -> str:
    """The path alone: a query may hold what logs must not."""
    return url.partition(b"?")[0][:300].decode("ascii", "replace")


class Exchange:
    """One request on its way through a tunnel, and its answer on the way back."""

    __slots__ = (
        "_begun",
        "_body",
        "_chunked",
        "_client",
        "_correlation",
        "_fin",
        "_front",
        "_head",
        "_head_bytes",
        "_held",
        "_left",
        "_method",
        "_number",
        "_owed",
        "_plan",
        "_received",
        "_repeats",
        "_seconds",
        "_sent_bytes",
        "_status",
        "_streamed",
        "_tried",
        "_tunnel",
        "_url",
        "_who",
        "incoming",
        "keep",
        "outgoing",
        "waiting",
    )

    def __init__(
        self,
        client: Client,
        front: Front,
        plan: Forward,
        who: str,
        method: str,
        url: bytes,
        head: bytes,
        body: bytes | bytearray,
        correlation: bytes,
    ) -> None:
        self._client: Client | None = client
        self._front = front
        self._plan = plan
        self._who = who
        self._method = method
        self._url = url
        self._head = head
        self._body = body
        self._correlation = correlation
        # Whether the connection goes on after this answer, as far as is known.
        self.keep = True
        # A body that goes on as it comes cannot be sent again.
        self._streamed = not client.whole
        self._fin = client.whole
        self._tunnel: Tunnel | None = None
        self._number = 0
        self.outgoing: Outgoing | None = None
        self.incoming: Incoming | None = None
        self._owed = 0
        self.waiting = False
        self._left = False
        self._begun = time.monotonic()
        self._seconds = 0.0
        self._received = len(body)
        self._sent_bytes = self._head_bytes = 0
        self._status = 0
        self._chunked = False
        # The answer's head waits for the first of its body: until then another connection point
        # can answer in place of one that dies, and a small answer goes out in one write.
        self._held = b""
        self._tried = False
        self._repeats = 0

    @property
    def answering(self) -> bool:
        """Whether some of the answer is out."""
        return self._status != 0 and not self._held

    # -------------------------------------------------------------- the request

    def start(self) -> None:
        """To a connection point, or into the queue for one, or refused with a time to come again."""
        front = self._front
        if self.begin():
            return
        client = self._client
        held = len(front.tunnels)
        # What waits at the site anyway has a queue there.
        if client is None or (held and self._plan.hold_seconds) or not front.wait(self):
            self._fail(_SITE_BUSY if held else _NO_CONNECTION_POINT)
            return
        self.waiting = True
        self._let_go()
        self._tunnel = None  # Any will do now, also the one that failed.
        limits = front.limits
        client.deadline = self._front.loop.time() + (
            limits.queue_seconds if held else limits.reconnect_seconds
        )
        if not self._fin:
            client.pause()

    def begin(self) -> bool:
        """False when no connection point has room."""
        hold = self._plan.hold_seconds
        tunnel = self._front.tunnels.next(besides=self._tunnel, held=hold > 0)
        if tunnel is None:
            return False
        self._let_go()
        self.waiting = False
        self._tunnel = tunnel
        self._number = number = tunnel.open(self)
        if hold:
            tunnel.held.add(number)
        mux = tunnel.mux
        self.incoming = Incoming(mux, number)
        # The body travels with the head where it fits: one frame for a small request.
        body = self._body
        if self._fin and len(body) <= _FIRST_FRAME:
            mux.put(encode(Type.OPEN, number, self._head + body, fin=True))
        else:
            mux.put(encode(Type.OPEN, number, self._head, fin=False))
            self.outgoing = Outgoing(mux, number)
            self.outgoing.send(bytes(body), fin=self._fin)
        if self._streamed:
            self._body = b""
        self._pace()
        return True

    def more(self, piece: bytes, fin: bool = False) -> None:
        """The next of the body, of a request that goes on as it comes."""
        self._received += len(piece)
        self._fin = fin
        if self.outgoing is None:
            self._body = bytes(self._body) + piece  # It waits for a connection point.
        else:
            self.outgoing.send(piece, fin)
        self._pace()

    def _pace(self) -> None:
        """As fast as the connection point takes it; whole, it has a time to be answered in."""
        client, outgoing = self._client, self.outgoing
        if client is None or self.waiting:
            return
        if not self._fin:
            if outgoing is not None and outgoing.blocked:
                client.pause()
            else:
                client.resume()
        elif self._status == 0:
            limits = self._front.limits
            seconds = max(self._plan.hold_seconds, limits.request_seconds)
            client.deadline = self._front.loop.time() + seconds

    def writable(self) -> None:
        self._pace()

    def _let_go(self) -> None:
        """Of the tunnel, which counts what waits there."""
        if self._tunnel is not None:
            self._tunnel.held.discard(self._number)

    def late(self) -> None:
        """Nobody did in time what had to come next."""
        client = self._client
        if self.waiting:
            self.waiting = False
            self._fail(_SITE_BUSY if len(self._front.tunnels) else _NO_CONNECTION_POINT)
        elif self._status == 0:
            self._cancel("The site did not answer in time.", failed=True)
            self._fail(_LATE)
        elif client is not None:
            reason = "client does not read" if client.paused else "site does not go on"
            self.give_up(f"The {reason}.")
            log.warning(
                "answer broken off",
                reason=reason,
                url=_shown(self._url),
                correlation=self._correlation.decode(),
            )
            client.abort()

    def drain(self) -> None:
        """The instance ends. What only waits for news at the site is better asked elsewhere."""
        if self._plan.hold_seconds and self._status == 0:
            self._cancel("The gateway's instance is stopping.")
            self._fail(_STOPPING)

    # -------------------------------------------------------------- what the tunnel tells

    def head(self, payload: bytes, fin: bool) -> None:
        client = self._client
        if client is None:
            return
        found = _STATUS.match(payload)
        self._status = int(found[1]) if found is not None else 502
        if self._method != "HEAD" and self._status not in _BODILESS:
            self._chunked = b"\r\ncontent-length:" not in payload.lower()
        # An answer before the request was whole ends the connection: nobody reads the rest.
        self.keep = self.keep and self._fin and client.keeps()
        if self._chunked or not self.keep:
            first, _, rest = payload.partition(b"\r\n")
            chunked = b"transfer-encoding: chunked\r\n" if self._chunked else b""
            close = b"" if self.keep else b"connection: close\r\n"
            payload = b"%s\r\n%s%s%s" % (first, chunked, close, rest)
        self._held = payload
        self._head_bytes = len(payload)
        if fin:
            self.data(b"", True)
        else:
            client.deadline = self._silence()

    def data(self, payload: bytes, fin: bool) -> None:
        client = self._client
        if client is None:
            return
        if payload:
            size = len(payload)
            framed = b"%x\r\n%s\r\n" % (size, payload) if self._chunked else payload
            if fin and self._chunked:
                framed += _LAST_CHUNK
            held, self._held = self._held, b""
            client.write(held + framed if held else framed)
            self._sent_bytes += size
            if fin:
                self._done()
                return
            self._owed += size
            if not client.paused:
                self._give()
        elif fin:
            rest = self._release() + (_LAST_CHUNK if self._chunked else b"")
            if rest:
                client.write(rest)
            self._done()
            return
        if self._owed > 4 * WINDOW:
            # The peer sends more than it has credit for.
            self.give_up("flow control was broken")
            client.abort()
        elif not client.paused:
            client.deadline = self._silence()

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def again(self, reason: str) -> None:
        """The connection point has not begun it: whatever the method, another one can be asked."""
        self.reset(reason, repeat=True)

    def reset(self, reason: str, repeat: bool = False) -> None:
        """The tunnel broke, or the connection point gave up on this request."""
        client = self._client
        if client is None:
            return
        if self.answering:
            # Half an answer is out: only a connection that breaks tells the client.
            self._leave(failed=True)
            client.abort()
            return
        self._status, self._chunked, self._held = 0, False, b""
        self._head_bytes = 0
        self.outgoing = None
        if not self._streamed and (
            (repeat and self._repeats < _MOST_REPEATS)
            or (not self._tried and self._method in IDEMPOTENT)
        ):
            self._tried = self._tried or not repeat
            self._repeats += repeat
            self.start()
            return
        self._fail(
            refusal(
                "CMGConnector_Disconnected",
                f"The request was lost on its way to the site. {reason}"[:300],
            )
        )

    def resume(self) -> None:
        """The client takes more."""
        if self._client is not None and self._status:
            self._client.deadline = self._silence()
        self._give()

    def _silence(self) -> float:
        """Until when the next of an answer has to come."""
        return self._front.loop.time() + self._front.limits.stall_seconds

    def _give(self) -> None:
        if self._owed and self.incoming is not None:
            self.incoming.passed(self._owed)
            self._owed = 0

    # -------------------------------------------------------------- the end

    def _done(self) -> None:
        self._leave(failed=self._status >= 500, answered=True)
        client, self._client = self._client, None
        seconds = self._seconds
        METER.took(seconds)
        METER.outcomes["forwarded"] += 1
        self._front.told(
            self._method,
            _shown(self._url),
            self._status,
            round(seconds * 1000, 1),
            self._plan.identity,
            self._correlation.decode("ascii"),
            self._sent_bytes,
        )
        if client is not None:
            client.finished(self.keep)

    def _fail(self, refusal: Refusal) -> None:
        self._leave(failed=True)
        client, self._client = self._client, None
        if client is not None:
            client.refuse(refusal)

    def _leave(self, failed: bool = False, answered: bool = False) -> None:
        if self._left:
            return
        self._left = True
        front, tunnel = self._front, self._tunnel
        count = (front if tunnel is None else tunnel).counts[self._plan.endpoint]
        count.requests += 1
        count.request_bytes += self._received
        count.responses += answered
        count.failures += failed
        count.response_bytes += self._sent_bytes
        count.head_bytes += self._head_bytes
        self._seconds = seconds = time.monotonic() - self._begun
        count.seconds += seconds
        if tunnel is not None:
            tunnel.mux.streams.pop(self._number, None)
            self._let_go()
        self.waiting = False
        front.guard.ended(self._who)
        if front.waiting:
            front.free()

    def _cancel(self, reason: str, failed: bool = False) -> None:
        if not self._left and self._tunnel is not None and self._tunnel.mux.open:
            self._tunnel.mux.put(encode(Type.RESET, self._number, reason.encode()))
        self._leave(failed)

    def give_up(self, reason: str) -> None:
        """The client is not answered by the site any more."""
        self._client = None
        self._cancel(reason)

    def client_gone(self) -> None:
        if not self._left:
            log.info("client gone", url=_shown(self._url), correlation=self._correlation.decode())
        self.give_up("The client went away.")


_STATUS = re.compile(rb"[^ \r]* ([0-9]{1,9})(?=[ \r])")
_BODILESS = {204, 304}
_LAST_CHUNK = b"0\r\n\r\n"
# Those after which the same client comes again on the same connection.
_KEPT_AFTER = {401, 429, 503}
_NO_CONNECTION_POINT = refusal("CMGService_No_Connection_Point")
_SITE_BUSY = refusal("CMGService_Busy")
_LATE = refusal("CMGConnector_Timeout")
_SLOW = refusal("CMGService_Timeout")
_NO_CONTENT = refusal("CMGService_Content_Not_Found")
_STOPPING = refusal("CMGService_Stopping")
_NO_BODY = refusal("CMGService_Content_Length", "No body is taken here.")
_NO_TUNNEL = refusal(
    "CMGService_Bad_Request", "Only connection points come here, and by WebSocket."
)
_MANY_TUNNELS = refusal("CMGService_Busy", "Too many tunnels begin at once.")
