"""The connection point's side of the management point, where the kernel's timing decides."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tandem import pki
from tandem.gateway.backend import Backend, Head, Request, Target, Traffic
from tandem.gateway.mux import Mux
from tandem.protocols.tunnel import WINDOW, Type, credit, encode

from .conftest import Rig

# What aiofastnet hands over at once.
_AT_ONCE = 256 * 1024


class Tunnel:
    """The gateway's end: counts what comes, and gives credit when it is told to."""

    def __init__(self) -> None:
        self.first = b""  # Of the answer's lines.
        self.received = bytearray()
        self.ended = asyncio.Event()
        self.far = Mux(lambda _: None)
        self.near = Mux(lambda _: None)
        for end in (self.far, self.near):
            end.feed(encode(Type.HELLO))
        self.far.streams[1] = self
        self.near.attach(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        self.far.feed(data)

    def head(self, payload: bytes, fin: bool) -> None:
        self.first = payload.partition(b"\r\n")[0]

    def data(self, payload: bytes, fin: bool) -> None:
        self.received += payload
        if fin:
            self.ended.set()

    def writable(self) -> None:
        pass

    def reset(self, reason: str) -> None:
        raise AssertionError(reason)

    def give(self, amount: int) -> None:
        self.near.feed(credit(1, amount))


class Record:
    """A TLS server whose bytes this test sends as it likes."""

    def __init__(self, context: ssl.SSLContext, peer: socket.socket) -> None:
        self.peer = peer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    async def until(self, step: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await loop.sock_recv(self.peer, 65536))
            else:
                await self.flush()
                return

    async def flush(self) -> None:
        if self.outgoing.pending:
            await asyncio.get_running_loop().sock_sendall(self.peer, self.outgoing.read())


@asynccontextmanager
async def asked(
    folder: Path, method: str = "GET"
) -> AsyncIterator[tuple[Record, Tunnel, Request, Callable[[], Awaitable[Record]]]]:
    """A request on its way to a management point that has read it and not answered yet, and what
    waits for it to come once more."""
    rig = Rig(folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "mp.pem", folder / "mp.key")
    client = ssl.create_default_context(cadata=pki.pem(rig.site_root.certificate).decode())
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        pool = Backend(f"https://localhost:{listening.getsockname()[1]}", client, True, 30)
        tunnel = Tunnel()
        head, _ = Head.read(f"{method} /big HTTP/1.1\r\n\r\n".encode())
        request = Request(
            tunnel.near, 1, head, b"", True, target=Target(pool, 0, b"", "big"),
            service_name="s", most_bytes=0, traffic=Traffic(), passed=_nothing,
        )  # fmt: skip
        tunnel.near.streams[1] = request
        peers = []

        async def arrived() -> Record:
            peer, _ = await loop.sock_accept(listening)
            peers.append(peer)
            record = Record(server, peer)
            await record.until(record.tls.do_handshake)
            await record.until(lambda: record.tls.read(65536))
            return record

        yield await arrived(), tunnel, request, arrived
        for peer in peers:
            peer.close()
        pool.close()


def _nothing(*_: object) -> None:
    pass


async def test_the_end_of_an_answer_comes_after_a_pause_with_nothing_behind_it(
    tmp_path: Path,
) -> None:
    """Read in one piece: more than is handed over at once, and all that there is."""
    async with asked(tmp_path) as (record, tunnel, request, _):
        assert request._connection is not None
        ours = request._connection._transport
        assert ours is not None
        ours.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        before, rest = b"b" * 20_000, b"r" * (_AT_ONCE + 8_000)
        size = len(before) + len(rest)
        record.tls.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + before)
        record.tls.write(rest)
        sealed = record.outgoing.read()
        loop = asyncio.get_running_loop()
        # A part of a record that TLS holds back makes what comes in one piece more than a read.
        first = 20_000 + 12_000
        await loop.sock_sendall(record.peer, sealed[:first])
        while len(tunnel.received) < len(before):
            await asyncio.sleep(0.01)
        record.peer.setblocking(True)
        record.peer.sendall(sealed[first:])
        record.peer.setblocking(False)
        while len(tunnel.received) < WINDOW:
            await asyncio.sleep(0.01)
        tunnel.give(WINDOW)
        async with asyncio.timeout(5):
            await tunnel.ended.wait()
        assert bytes(tunnel.received) == before + rest


async def test_what_the_management_point_may_have_done_is_not_asked_twice(tmp_path: Path) -> None:
    """It had read the POST and died: whether it did what was asked nobody knows."""
    async with asked(tmp_path, "POST") as (record, tunnel, _, arrived):
        record.peer.close()
        async with asyncio.timeout(10):
            await tunnel.ended.wait()
        assert tunnel.first == b"HTTP/1.1 502 CMGConnector_Disconnected"
        again = asyncio.create_task(arrived())
        done, _ = await asyncio.wait({again}, timeout=0.3)
        again.cancel()
        assert not done


async def test_what_changes_nothing_is_asked_again(tmp_path: Path) -> None:
    async with asked(tmp_path) as (record, tunnel, _, arrived):
        record.peer.close()
        async with asyncio.timeout(10):
            second = await arrived()
            second.tls.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole")
            await second.flush()
            await tunnel.ended.wait()
        assert tunnel.first == b"HTTP/1.1 200 OK"
        assert bytes(tunnel.received) == b"whole"
