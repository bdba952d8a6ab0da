"""Clients of the gateway: HTTP/1.1 over TLS, one request at a time on a connection.

Every request is parsed and written anew: nothing of its framing reaches the inside. A request's
body is kept until it is whole, at most as long as its endpoint allows; an answer is passed on as it
comes, and waits when the client does not read.
"""

import asyncio
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from prometheus_client import Counter, Histogram

from tandem.gateway.carriers import PATH, Doors, NotTunnel
from tandem.gateway.gate import Gate
from tandem.gateway.model import EdgeAnswer, Forward, Refusal
from tandem.gateway.mux import Incoming, Outgoing
from tandem.gateway.tunnels import Tunnel, Tunnels
from tandem.infra.logs import get_logger
from tandem.protocols.tunnel import WINDOW, Type, encode

log = get_logger("gateway")

REQUESTS = Counter("gateway_requests", "Requests by outcome", ["outcome"])
SECONDS = Histogram("gateway_request_seconds", "Time until an answer was complete")

# Headers that end at this hop, and those that only we may say.
_DROPPED = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"upgrade",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"expect",
    b"content-length",
    b"cmg-client-identity",
    # Some servers read an underscore as a hyphen.
    b"cmg_client_identity",
    b"cmg-client_identity",
    b"cmg_client-identity",
    b"x-forwarded-for",
    b"forwarded",
}
_TARGET_LIMIT = 8192
_IDEMPOTENT = {"GET", "HEAD"}
# Connection points that are all being restarted hand a request on; not for ever.
_MOST_REPEATS = 8
# Connections that are looked at between two rounds of the loop when a list of revoked ones arrives.
_AT_A_TIME = 200


@dataclass
class Count:
    """What clients asked of one endpoint since the last line about it."""

    requests: int = 0
    request_bytes: int = 0
    responses: int = 0
    response_bytes: int = 0
    seconds: float = 0.0

    def line(self, endpoint: str) -> str:
        average = self.seconds * 1000 / max(1, self.responses)
        return (
            f"RequestUri: {endpoint} RequestCount: {self.requests}"
            f" RequestSize: {self.request_bytes} Bytes ResponseCount: {self.responses}"
            f" ResponseSize: {self.response_bytes} Bytes AverageElapsedTime: {average:.0f} ms"
        )


class Front:
    """What all client connections of a worker share."""

    def __init__(self, tunnels: Tunnels, gate: Gate) -> None:
        self.tunnels = tunnels
        self.gate = gate
        self.counts: defaultdict[str, Count] = defaultdict(Count)
        self.connections: set[Client] = set()
        self.draining = False
        self.doors: Doors | None = None  # Where connection points come by HTTPS.

    def swap(self, gate: Gate) -> None:
        """New rules, for what begins from now on; open connections of clients whose certificate is
        not believed any more are cut, whatever they are doing."""
        gate.inherit(self.gate)
        self.gate = gate
        self._ask_anew([one for one in self.connections if one.peer is not None])

    def _ask_anew(self, left: list["Client"]) -> None:
        """Some at a time: thousands of connections must not hold up the requests between."""
        for connection in left[:_AT_A_TIME]:
            if connection.peer is not None and not self.gate.still_believes(connection.peer):
                connection.cut()
        if left[_AT_A_TIME:]:
            asyncio.get_running_loop().call_soon(self._ask_anew, left[_AT_A_TIME:])


class Client(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.peer: bytes | None = None
        self.busy = False
        self.exchange: Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._plan: Forward | None = None
        self._answered = False
        self._whole = False
        self._knocks = False

    # -------------------------------------------------------------- the connection

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._front.connections.add(self)
        tls = transport.get_extra_info("ssl_object")
        self.peer = tls.getpeercert(True) if tls is not None else None
        self._wait()

    def _limits(self) -> Any:
        return self._front.gate.configuration.limits

    def _wait(self) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(self._limits().idle_seconds, self.close)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """At once: what is under way is not answered, nor is what was written still sent."""
        if self._transport is None:
            return
        log.info("client cut", why="its certificate is not believed any more", busy=self.busy)
        if self.busy:
            self._transport.abort()
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._transport = None
        self._front.connections.discard(self)
        if self.exchange is not None:
            self.exchange.client_gone()
            self.exchange = None

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.paused = True

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.resume()

    # -------------------------------------------------------------- the request

    def data_received(self, data: bytes) -> None:
        if self.busy:
            # Nobody of ours sends a second request before the first is answered.
            self._refuse_and_close(Refusal(400, "CMGService_Pipelining", "One request at a time."))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._hand_over(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            refusal = error.__context__
            if isinstance(refusal, _Refused):
                self._refuse_and_close(refusal.refusal)
            else:
                log.error("parser callback failed", exc_info=error)
                self.close()
        except httptools.HttpParserError:
            self._refuse_and_close(
                Refusal(400, "CMGService_Bad_Request", "The request is not valid HTTP.")
            )

    def on_message_begin(self) -> None:
        if self._whole:
            raise _Refused(Refusal(400, "CMGService_Pipelining", "One request at a time."))

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > _TARGET_LIMIT:
            raise _Refused(Refusal(414, "CMGService_Url_Too_Long", "The address is too long."))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._size += len(name) + len(value)
        if len(self._headers) > 100 or self._size > self._limits().header_bytes:
            raise _Refused(
                Refusal(431, "CMGService_Headers", "The request's headers are too many.")
            )

    def on_headers_complete(self) -> None:
        if self._url == PATH.encode() and self._front.doors is not None:
            self._knocks = True
            return
        names = [name for name, _ in self._headers]
        if names.count(b"host") != 1:
            raise _Refused(Refusal(400, "CMGService_Bad_Request", "A request names one host."))
        if names.count(b"authorization") > 1:
            # Which one counts must not depend on who reads them.
            raise _Refused(Refusal(400, "CMGService_Bad_Request", "A request has one token."))
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in self._headers}
        method = self._parser.get_method().decode("ascii")
        decision = self._front.gate.decide(method, self._url, headers, self.peer)
        if isinstance(decision, Refusal):
            raise _Refused(decision)
        if isinstance(decision, EdgeAnswer):
            self._edge = decision
            return
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > decision.max_body_bytes:
            raise _Refused(_too_large(decision))
        self._plan = decision
        if headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._plan is None:
            raise _Refused(Refusal(413, "CMGService_Content_Length", "No body is taken here."))
        self._body_bytes += len(body)
        if self._body_bytes > self._plan.max_body_bytes:
            raise _Refused(_too_large(self._plan))
        self._body.append(body)

    def _hand_over(self, rest: bytes) -> None:
        """This is no client but a connection point, by HTTPS: its tunnel takes the connection."""
        doors, transport = self._front.doors, self._transport
        if not self._knocks or doors is None or transport is None:
            return
        if doors.full or self._front.draining:
            self._refuse_and_close(
                Refusal(503, "CMGService_Busy", "Too many tunnels begin at once.", "Try again.")
            )
            return
        try:
            doors.take(transport, self._headers, rest)
        except NotTunnel:
            self._refuse_and_close(_NO_TUNNEL)
            return
        self._cancel_timer()
        self._front.connections.discard(self)
        self._transport = None

    def on_message_complete(self) -> None:
        self._whole = True
        if self._knocks:
            if not self._parser.should_upgrade():
                raise _Refused(_NO_TUNNEL)
            return
        self._cancel_timer()
        keep = self._parser.should_keep_alive() and not self._front.draining
        method = self._parser.get_method().decode("ascii")
        self.busy = True
        if self._plan is None:
            self._answer(self._edge.status, self._edge.content, keep, method == "HEAD")
            REQUESTS.labels("edge").inc()
            self.finished(keep)
            return
        correlation = next((v for n, v in self._headers if n == b"x-correlation-id"), b"")
        self.exchange = Exchange(
            self,
            self._front,
            self._plan,
            method,
            self._url,
            self._request(method, correlation or uuid.uuid4().hex.encode()),
            b"".join(self._body),
            keep,
            (correlation or b"").decode("ascii", "replace")[:64],
        )
        self.exchange.begin()

    def _request(self, method: str, correlation: bytes) -> bytes:
        assert self._plan is not None
        kept = [(n, v) for n, v in self._headers if n not in _DROPPED and n != b"x-correlation-id"]
        kept.append((b"x-correlation-id", correlation[:64]))
        kept.append((b"cmg-client-identity", _printable(self._plan.identity)))
        if self._body_bytes or method not in _IDEMPOTENT:
            kept.append((b"content-length", b"%d" % self._body_bytes))
        lines = [b"%s %s HTTP/1.1" % (method.encode(), self._url)]
        lines += [b"%s: %s" % pair for pair in kept]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # -------------------------------------------------------------- the answer

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _answer(self, status: int, content: bytes, keep: bool, head_only: bool = False) -> None:
        phrase = HTTPStatus(status).phrase
        lines = [f"HTTP/1.1 {status} {phrase}"]
        if status != 204:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        if not keep:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        self.write(head if head_only or status == 204 else head + content)

    def refuse(self, refusal: Refusal, keep: bool) -> None:
        log.info(
            "refused",
            code=refusal.code,
            status=refusal.status,
            url=_shown(self._url),
            **({"why": refusal.why} if refusal.why else {}),
        )
        REQUESTS.labels("refused").inc()
        self._answer(refusal.status, refusal.body(), keep)

    def _refuse_and_close(self, refusal: Refusal) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.refuse(refusal, keep=False)
            self.close()

    def finished(self, keep: bool) -> None:
        self.exchange = None
        self.busy = False
        if not keep or self._front.draining or self._transport is None:
            self.close()
            return
        self._reset()
        self._wait()


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


def _too_large(plan: Forward) -> Refusal:
    return Refusal(
        413,
        "CMGService_Content_Length",
        f"The request is larger than the {plan.max_body_bytes} bytes that this address takes.",
    )


def _printable(identity: str) -> bytes:
    """A tenant's claim as the value of a header."""
    return "".join(c if " " < c <= "~" else "?" for c in identity[:256]).encode("ascii")


def _shown(url: bytes) -> str:
    """The path alone: a query may hold what logs must not."""
    return url.partition(b"?")[0][:300].decode("ascii", "replace")


class Exchange:
    """One request on its way through a tunnel, and its answer on the way back."""

    def __init__(
        self,
        client: Client,
        front: Front,
        plan: Forward,
        method: str,
        url: bytes,
        head: bytes,
        body: bytes,
        keep: bool,
        correlation: str,
    ) -> None:
        self._client: Client | None = client
        self._front = front
        self._plan = plan
        self._method = method
        self._url = url
        self._head = head
        self._body = body
        self._keep = keep
        self._correlation = correlation
        self._tunnel: Tunnel | None = None
        self._number = 0
        self.outgoing: Outgoing | None = None
        self.incoming: Incoming | None = None
        self._owed = 0
        self.paused = False
        self._begun = time.monotonic()
        count = front.counts[plan.endpoint]
        count.requests += 1
        count.request_bytes += len(body)
        self._count = count
        self._status = 0
        self._chunked = False
        # The answer's head waits for the first of its body: until then another connection point
        # can answer in place of one that dies, and a small answer goes out in one write.
        self._held = b""
        self._tried = False
        self._may_repeat = False
        self._repeats = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        hold = self._plan.hold_seconds
        tunnel = self._front.tunnels.next(besides=self._tunnel, held=hold > 0)
        if tunnel is None:
            held = len(self._front.tunnels)
            self._fail(_BUSY if held else _NO_CONNECTION_POINT)
            return
        self._let_go()
        self._tunnel = tunnel
        self._number = tunnel.open(self)
        if hold:
            tunnel.held.add(self._number)
        mux = tunnel.mux
        self.outgoing = Outgoing(mux, self._number)
        self.incoming = Incoming(mux, self._number)
        # Identity and body travel with the head where they fit: one frame for a small request.
        small = len(self._body) <= 32_768
        first = self._head + self._body if small else self._head
        mux.put(encode(Type.OPEN, self._number, first, fin=small))
        if not small:
            self.outgoing.send(self._body, fin=True)
        seconds = max(hold, self._front.gate.configuration.limits.request_seconds)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _let_go(self) -> None:
        """Of the tunnel, which counts what waits there."""
        if self._tunnel is not None:
            self._tunnel.held.discard(self._number)

    def _late(self) -> None:
        if self._status == 0:
            self._cancel("The site did not answer in time.")
            self._fail(_LATE)

    # What the tunnel tells.

    def head(self, payload: bytes, fin: bool) -> None:
        client = self._client
        if client is None:
            return
        first, _, rest = payload.partition(b"\r\n")
        parts = first.split(b" ", 2)
        self._status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 502
        has_body = self._method != "HEAD" and self._status not in {204, 304}
        sized = b"\r\ncontent-length:" in b"\r\n" + payload.lower()
        extra = b""
        if has_body and not sized:
            self._chunked = True
            extra += b"transfer-encoding: chunked\r\n"
        if not self._keep:
            extra += b"connection: close\r\n"
        self._held = first + b"\r\n" + extra + rest
        if fin:
            client.write(self._release())
            self._done()

    def data(self, payload: bytes, fin: bool) -> None:
        client = self._client
        if client is None:
            return
        if payload:
            framed = b"%x\r\n%s\r\n" % (len(payload), payload) if self._chunked else payload
            client.write(self._release() + framed)
            self._owed += len(payload)
            self._count.response_bytes += len(payload)
            if not self.paused:
                self._give()
        if fin:
            rest = self._release() + (b"0\r\n\r\n" if self._chunked else b"")
            if rest:
                client.write(rest)
            self._done()
        elif self._owed > 4 * WINDOW:
            # The peer sends more than it has credit for.
            self._cancel("flow control was broken")
            client.close()

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def writable(self) -> None:
        pass

    def again(self, reason: str) -> None:
        """The connection point has not begun it: whatever the method, another one can be asked."""
        self._may_repeat = True
        self.reset(reason)

    def reset(self, reason: str) -> None:
        """The tunnel broke, or the connection point gave up on this request."""
        repeat, self._may_repeat = self._may_repeat, False
        if self._client is None:
            return
        if self._status and not self._held:
            # Half an answer is out: only a closed connection tells the client.
            self._client.close()
            return
        self._status, self._chunked, self._held = 0, False, b""
        if (repeat and self._repeats < _MOST_REPEATS) or (
            not self._tried and self._method in _IDEMPOTENT
        ):
            self._tried = self._tried or not repeat
            self._repeats += repeat
            self.begin()
            return
        self._fail(
            Refusal(
                502,
                "CMGConnector_Disconnected",
                f"The request was lost on its way to the site. {reason}"[:300],
                "Try again; if it lasts, look at the connection point.",
            )
        )

    def resume(self) -> None:
        self.paused = False
        self._give()

    def _give(self) -> None:
        if self._owed and self.incoming is not None and self._tunnel is not None:
            self.incoming.passed(self._owed)
            self._owed = 0

    def _done(self) -> None:
        self._leave()
        client, self._client = self._client, None
        seconds = time.monotonic() - self._begun
        SECONDS.observe(seconds)
        self._count.responses += 1
        self._count.seconds += seconds
        REQUESTS.labels("forwarded").inc()
        log.info(
            "request",
            method=self._method,
            url=_shown(self._url),
            status=self._status,
            ms=round(seconds * 1000, 1),
            client=self._plan.identity,
            correlation=self._correlation,
        )
        if client is not None:
            client.finished(self._keep)

    def _fail(self, refusal: Refusal) -> None:
        self._leave()
        client, self._client = self._client, None
        if client is not None:
            client.refuse(refusal, self._keep)
            client.finished(self._keep)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._tunnel is not None:
            self._tunnel.mux.streams.pop(self._number, None)
        self._let_go()

    def _cancel(self, reason: str) -> None:
        if self._tunnel is not None and self._tunnel.mux.open:
            self._tunnel.mux.put(encode(Type.RESET, self._number, reason.encode()))
        self._leave()

    def client_gone(self) -> None:
        self._client = None
        self._cancel("The client went away.")


_NO_CONNECTION_POINT = Refusal(
    503,
    "CMGService_No_Connection_Point",
    "No connection point of the site is connected to this gateway.",
    "Start the connection point, or look why it cannot dial: `tandem connection-point show`.",
)
_BUSY = Refusal(503, "CMGService_Busy", "The site is busy.", "Try again in a minute.")
_NO_TUNNEL = Refusal(
    400, "CMGService_Bad_Request", "Only connection points come here, and by WebSocket."
)
_LATE = Refusal(504, "CMGConnector_Timeout", "The site did not answer in time.", "Try again later.")
