"""A gateway in the hands of a thief: its key, its connection id and all that it was told, in a program
that does what the thief wants. The connection point and the devices cannot tell it from the real one."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_world import Edge
from tandem import pki
from tandem.infra import http
from tandem.protocols import ccm, tunnel

ANONYMOUS = ("/.sms_aut", "/CCM_Client")
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Seen:
    """One request of a device, as it came, and what the site said."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: bytes = b""


@dataclass
class Stolen:
    edge: Edge
    seen: list[Seen] = field(default_factory=list)
    # What it was told of the site and its clients.
    configuration: bytes = b""
    # What the devices get instead of the site's answer; None: that.
    alter: Callable[[Seen], Response | None] = lambda seen: None

    def __post_init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, tuple[list[bytes], asyncio.Future[bytes]]] = {}
        self._stream = 0
        self.connected = asyncio.Event()

    # -------------------------------------------------------------- towards the site

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = tunnel.Decoder()
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                self._frame(frame, writer)
        writer.close()

    def _frame(self, frame: tunnel.Frame, writer: asyncio.StreamWriter) -> None:
        if frame.type is tunnel.Type.HELLO:
            hello = tunnel.GatewayHello(1, "1-1", 1, 0)
            writer.write(tunnel.encode(tunnel.Type.HELLO, 0, msgspec.json.encode(hello)))
            self._writer = writer
        elif frame.type is tunnel.Type.CONFIGURATION:
            self.configuration = frame.payload
            self.connected.set()
        elif frame.type is tunnel.Type.PING:
            writer.write(tunnel.encode(tunnel.Type.PONG, 0, frame.payload))
        elif frame.stream in self._waiting:
            parts, whole = self._waiting[frame.stream]
            parts.append(frame.payload)
            if frame.type is tunnel.Type.DATA:
                writer.write(tunnel.credit(frame.stream, len(frame.payload)))
            if frame.fin or frame.type is tunnel.Type.RESET:
                del self._waiting[frame.stream]
                if not whole.done():
                    whole.set_result(b"".join(parts))

    async def send(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """A request of the thief's own, or one that he saw, through the tunnel."""
        lines = [f"{method} {target} HTTP/1.1", "host: x"]
        lines += [f"{k}: {v}" for k, v in (headers or {}).items() if k not in {*HOP, "host"}]
        lines.append(f"content-length: {len(body)}")
        return await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def raw(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        assert self._writer is not None
        self._stream += 1
        whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[self._stream] = ([], whole)
        self._writer.write(tunnel.encode(tunnel.Type.OPEN, self._stream, request, fin=True))
        async with asyncio.timeout(20):
            answer = await whole
        head, found, content = answer.partition(b"\r\n\r\n")
        if not found or not head.startswith(b"HTTP/1.1 "):
            return 0, {}, answer
        first, *rest = head.decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in rest)
        return int(first.split(" ")[1]), {k.lower(): v for k, v in fields.items()}, content

    # -------------------------------------------------------------- towards the devices

    async def front(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query = request.scope["query_string"].decode()
        target = request.scope["raw_path"].decode() + (f"?{query}" if query else "")
        seen = Seen(request.method, target, dict(request.headers), await request.body())
        self.seen.append(seen)
        if "/aadauthinfo" in target.lower():
            told = self.edge.configuration().tenants[0]
            answer = http.reply(
                ccm.AuthInfo(told.client_app_id, told.app_id_uri, told.tenant_id, told.authority)
            )
        else:
            seen.status, fields, seen.answer = await self.send(
                seen.method, target, seen.headers, seen.body
            )
            kept = {k: v for k, v in fields.items() if k not in HOP}
            answer = Response(seen.answer, seen.status or 502, kept)
        await (self.alter(seen) or answer)(scope, receive, send)

    def signed(self) -> list[Seen]:
        """Requests that a device signed and the site took; what the site tells anybody is not among
        them (ADR 5)."""
        return [
            one
            for one in self.seen
            if "ccm-signature" in one.headers
            and one.status < 400
            and not any(part in one.target for part in ANONYMOUS)
        ]


@asynccontextmanager
async def stolen(edge: Edge) -> AsyncIterator[Stolen]:
    """Takes the gateway's place, with what lay on its disk."""
    made = Stolen(edge)
    await asyncio.to_thread(edge.stop, "gateway")
    where = edge.folder
    pfx = pki.pfx_open((where / "server.pfx").read_bytes(), "secret")
    chain, key = where / "stolen.pem", where / "stolen.key"
    chain.write_bytes(pki.pem(pfx.certificate, *pfx.chain))
    key.write_bytes(pki.key_pem(pfx.key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.load_verify_locations(where / "site.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    tunnels = await asyncio.start_server(made.accept, "127.0.0.1", edge.tunnel_port, ssl=context)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await made.front(scope, receive, send)

    stop = asyncio.Event()
    listener = http.Listener(app, "127.0.0.1", edge.port, http.TLS(chain, key))
    serving = asyncio.create_task(http.serve([listener], stop, drain_seconds=1))
    try:
        async with asyncio.timeout(20):
            await made.connected.wait()
        yield made
    finally:
        stop.set()
        await serving
        tunnels.close()
