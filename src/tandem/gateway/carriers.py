"""The ways of a tunnel: TLS to the tunnel's own port, or a WebSocket in HTTPS, also by a web proxy.

    frames ── TLS 1.3, both with certificates ── TCP 10140
    frames ── TLS 1.3, both with certificates ── WebSocket ── HTTPS 443 [── CONNECT ── web proxy]

The second carries the very bytes of the first: who may open a tunnel is decided by one rule, whatever
lies between, and the listener of the clients asks nobody for a certificate of the site's roles.
"""

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiofastnet
import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import ProtocolError

from tandem.infra.logs import get_logger
from tandem.protocols.tunnel import WebProxy

log = get_logger("tunnel")

# Where the gateway's HTTPS listener takes tunnels.
PATH = "/CCM_Proxy_Tunnel"
SUBPROTOCOL = "tandem-tunnel"
# WebSockets of a worker on which nobody has proved yet to be a connection point.
MOST_UNPROVED = 64
_HANDSHAKE_SECONDS = 10.0
_ANSWER_LIMIT = 16 * 1024

Factory = Callable[[], asyncio.Protocol]


class Unreachable(ConnectionError):
    """A carrier that does not come up, in a sentence for the administrator."""


class NotTunnel(ValueError):
    """A request at PATH that asks for no WebSocket of ours."""


# ------------------------------------------------------------------ the connection point dials


async def dial_tls(
    factory: Factory, host: str, port: int, context: ssl.SSLContext, name: str, fast: bool
) -> None:
    """Raises OSError or ssl.SSLError."""
    await _tls(factory, context, name, fast, host=host, port=port)


async def dial_https(
    factory: Factory,
    host: str,
    port: int,
    context: ssl.SSLContext,
    outer: ssl.SSLContext,
    name: str,
    fast: bool,
    proxy: WebProxy | None,
) -> None:
    """Raises OSError, of these Unreachable with the reason of a proxy or web server; ssl.SSLError."""
    sock = await (_through(proxy, host, port) if proxy else _connected(host, port))
    pipe = _Pipe(WSConnection(ConnectionType.CLIENT))
    await _tls(lambda: pipe, outer, name, fast, sock=sock)
    near, far = socket.socketpair()
    far.setblocking(False)
    try:
        try:
            await pipe.request(name)
            await pipe.join(near)
        except BaseException:
            near.close()
            far.close()
            raise
        await _tls(factory, context, name, fast, sock=far, unix=True)
    except BaseException:
        pipe.close()
        raise


async def _tls(
    factory: Factory,
    context: ssl.SSLContext,
    name: str,
    fast: bool,
    *,
    unix: bool = False,
    **where: Any,
) -> None:
    loop = asyncio.get_running_loop()
    options = {
        "ssl": context,
        "server_hostname": name,
        "ssl_handshake_timeout": _HANDSHAKE_SECONDS,
        **where,
    }
    if fast:
        await aiofastnet.create_connection(loop, factory, **options)
    elif unix:
        await loop.create_unix_connection(factory, **options)
    else:
        await loop.create_connection(factory, **options)


async def _connected(host: str, port: int) -> socket.socket:
    """Raises OSError of the last address that was tried."""
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for family, kind, number, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, number)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed or OSError(f"{host} has no address")


async def _through(proxy: WebProxy, host: str, port: int) -> socket.socket:
    """A connection that the proxy has opened. Raises Unreachable."""
    where = f"{proxy.host}:{proxy.port}"
    try:
        sock = await _connected(proxy.host, proxy.port)
    except OSError as error:
        raise Unreachable(
            f"The web proxy {where} cannot be reached: {error.strerror or error}."
        ) from None
    try:
        status = await _connect(
            sock, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        )
    except BaseException:
        sock.close()
        raise
    if 200 <= status < 300:
        return sock
    sock.close()
    if status in {401, 407}:  # 401 is tinyproxy's word for a wrong password.
        what = "does not take this name and password" if proxy.user else "wants name and password"
        raise Unreachable(f"The web proxy {where} {what} ({status}).")
    if status in {403, 405}:
        raise Unreachable(f"The web proxy {where} does not allow {host}:{port} ({status}).")
    raise Unreachable(f"The web proxy {where} does not reach {host}:{port} ({status}).")


async def _connect(sock: socket.socket, proxy: WebProxy, target: str) -> int:
    """CONNECT (RFC 9110, 9.3.6), with Basic credentials (RFC 7617) where there are some."""
    loop = asyncio.get_running_loop()
    headers = [("Host", target)]
    if proxy.user:
        account = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {account}"))
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ANSWER_LIMIT)
    asked = connection.send(h11.Request(method="CONNECT", target=target, headers=headers))
    try:
        await loop.sock_sendall(sock, asked or b"")
        connection.send(h11.EndOfMessage())
        first = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await loop.sock_recv(sock, 4096)
                # h11 would wait for the end of what another protocol says.
                first = first or data[:5]
                if not b"HTTP/".startswith(first):
                    raise h11.RemoteProtocolError("no HTTP")
                connection.receive_data(data)
            elif isinstance(event, h11.Response):
                if connection.trailing_data[0] and 200 <= event.status_code < 300:
                    raise Unreachable("The web proxy speaks before the gateway was asked.")
                return event.status_code
            elif isinstance(event, h11.ConnectionClosed):
                raise Unreachable(f"The web proxy {proxy.host}:{proxy.port} hung up.")
    except (h11.RemoteProtocolError, ConnectionError) as error:
        if isinstance(error, Unreachable):
            raise
        raise Unreachable(f"What answers at {proxy.host}:{proxy.port} is no web proxy.") from None


# ------------------------------------------------------------------ the gateway takes


class Doors:
    """The HTTPS carrier's end in a worker of the gateway."""

    def __init__(self, make: Factory, context: ssl.SSLContext, fast: bool) -> None:
        self._make = make
        self._context = context
        self._fast = fast
        self._unproved = 0

    @property
    def full(self) -> bool:
        """Whether too many stand at the door who have not proved yet who they are."""
        return self._unproved >= MOST_UNPROVED

    def take(
        self, transport: Any, headers: list[tuple[bytes, bytes]], rest: bytes = b""
    ) -> asyncio.Protocol:
        """Go on with a client's connection as a tunnel; `rest` is what came behind the request.

        Raises NotTunnel.
        """
        ws = WSConnection(ConnectionType.SERVER)
        try:
            ws.initiate_upgrade_connection(headers, PATH)
            (asked,) = ws.events()
            if not isinstance(asked, Request) or SUBPROTOCOL not in asked.subprotocols:
                raise NotTunnel("no WebSocket of a tunnel")
            answer = ws.send(AcceptConnection(subprotocol=SUBPROTOCOL))
        except (ProtocolError, h11.ProtocolError, UnicodeError, ValueError):
            raise NotTunnel("no WebSocket of a tunnel") from None
        pipe = _Pipe(ws)
        transport.set_protocol(pipe)
        pipe.connection_made(transport)
        transport.write(answer)
        task = asyncio.get_running_loop().create_task(self._join(pipe))
        # The loop keeps no more than a weak reference.
        pipe.task = task
        if rest:
            pipe.data_received(rest)
        return pipe

    async def _join(self, pipe: "_Pipe") -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        far.setblocking(False)
        self._unproved += 1
        try:
            try:
                await pipe.join(near)
            except OSError:
                near.close()
                far.close()
                raise
            options: dict[str, Any] = {
                "ssl": self._context,
                "ssl_handshake_timeout": _HANDSHAKE_SECONDS,
            }
            if self._fast:
                await aiofastnet.connect_accepted_socket(loop, self._make, far, **options)
            else:
                await loop.connect_accepted_socket(self._make, far, **options)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            log.warning("tunnel refused", reason=str(error) or "no handshake", carrier="https")
            pipe.close()
        finally:
            self._unproved -= 1


# ------------------------------------------------------------------ between WebSocket and TLS


class _Pipe(asyncio.Protocol):
    """The WebSocket's end of a pipe; `near` is a socket whose other end speaks TLS."""

    def __init__(self, ws: WSConnection) -> None:
        self._ws = ws
        self._loop = asyncio.get_running_loop()
        self._outer: Any = None
        self._inner: _Inner | None = None
        self._early: list[bytes] = []
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self.task: asyncio.Task[None] | None = None

    # The client's handshake.

    async def request(self, name: str) -> None:
        """Raises Unreachable when the web server takes no tunnel."""
        asked = Request(host=name, target=PATH, subprotocols=[SUBPROTOCOL])
        self._outer.write(self._ws.send(asked))
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await self._accepted
        except TimeoutError:
            raise Unreachable("The gateway's web server does not answer.") from None

    async def join(self, near: socket.socket) -> None:
        if self._outer is None:
            raise Unreachable("The gateway's web server closed the connection.")
        near.setblocking(False)
        self._inner = inner = _Inner(self)
        await self._loop.create_unix_connection(lambda: inner, sock=near)
        early, self._early = self._early, []
        for data in early:
            inner.write(data)

    # From the network.

    def connection_made(self, transport: Any) -> None:
        self._outer = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                self._take(event)
        except (ProtocolError, h11.ProtocolError) as error:
            self._refused(f"What answers is no gateway: {error}.")

    def _take(self, event: Any) -> None:
        if isinstance(event, BytesMessage):
            data = bytes(event.data)
            if self._inner is None:
                self._early.append(data)
            else:
                self._inner.write(data)
        elif isinstance(event, AcceptConnection):
            if event.subprotocol != SUBPROTOCOL:
                self._refused("The web server at the gateway's address takes no tunnels.")
            elif not self._accepted.done():
                self._accepted.set_result(None)
        elif isinstance(event, Ping):
            self._send(event.response())
        elif isinstance(event, RejectConnection):
            self._refused(f"The gateway's web server refuses the tunnel ({event.status_code}).")
        elif not isinstance(event, Pong | RejectData):
            self.close()

    def _refused(self, reason: str) -> None:
        if not self._accepted.done():
            self._accepted.set_exception(Unreachable(reason))
            self._accepted.exception()  # Nobody may be waiting any more.
        self.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused("The gateway's web server closed the connection.")
        self._outer = None
        if self._inner is not None:
            self._inner.close()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume()

    # From the tunnel's TLS.

    def send(self, data: bytes) -> None:
        self._send(BytesMessage(data=data))

    def _send(self, event: Any) -> None:
        if self._outer is not None:
            with contextlib.suppress(ProtocolError):  # It is closing.
                self._outer.write(self._ws.send(event))

    def pause(self) -> None:
        # Not within a call of data_received: what is read already would lie there (aiofastnet 1.2).
        self._loop.call_soon(self._stop, True)

    def resume(self) -> None:
        self._loop.call_soon(self._stop, False)

    def _stop(self, stop: bool) -> None:
        if self._outer is not None:
            with contextlib.suppress(RuntimeError):
                (self._outer.pause_reading if stop else self._outer.resume_reading)()

    def close(self) -> None:
        self._send(CloseConnection(code=1000))
        if self._outer is not None:
            self._outer.close()


class _Inner(asyncio.Protocol):
    """The other side of the pipe: what the tunnel's TLS says and hears."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pipe.send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pipe.close()

    def pause_writing(self) -> None:
        self._pipe.pause()

    def resume_writing(self) -> None:
        self._pipe.resume()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
