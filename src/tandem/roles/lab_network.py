"""A network of its own for the real device: a namespace with loopback alone, and the internet's doors.

    lab ── network role (outside) ◄── listening sockets over a Unix socket ── starter (inside) → agent

The starter is the agent's process before it becomes the agent. It opens, inside the namespace, one
listening socket for each address of the internet that the lab has, hands them to the relay outside
and goes on as the agent. The relay joins what is accepted inside to the same address outside. What
has no door is not there: the site's addresses are refused inside, as is everything else. No
interface, route or rule of the machine is touched, and with the agent the namespace is gone.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tandem.infra import config, logs
from tandem.infra.config import Settings
from tandem.infra.process import run_role

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_MOST_BYTES = 65536
_ANSWER_SECONDS = 5.0


class Door(msgspec.Struct, frozen=True):
    """An address that is the same inside and outside."""

    host: str
    port: int
    udp: bool = False


class LabNetworkSettings(Settings, frozen=True):
    socket: Path  # Where the starter hands over what it opened.
    doors: list[Door]
    logs: Path | None = None


def unavailable() -> str:
    """Why a process cannot have a network of its own here, in a sentence; empty when it can."""
    if sys.platform != "linux":
        return "Network namespaces are Linux's."
    if os.geteuid() != 0:
        return "It takes root to make a network namespace."
    for program, package in (("unshare", "util-linux"), ("nft", "nftables")):
        if shutil.which(program) is None:
            return f"The program {program} is not installed (package {package})."
    said = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if said.returncode:
        return f"This machine lets nobody make a network namespace: {said.stderr.strip()}."
    return ""


def enter(path: Path, command: Sequence[str]) -> None:
    """Open the doors inside, hand them over, and become the command. Does not return."""
    settings = config.load(path, LabNetworkSettings)
    with socket.socket(type=socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    opened = []
    for door in settings.doors:
        kind = socket.SOCK_DGRAM if door.udp else socket.SOCK_STREAM
        one = socket.socket(type=kind)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((door.host, door.port))
        if not door.udp:
            one.listen(128)
        opened.append(one)
    relay = socket.socket(socket.AF_UNIX)
    relay.connect(str(settings.socket))
    socket.send_fds(relay, [b"doors"], [one.fileno() for one in opened])
    # It stays open in the agent: the relay knows by it how long the agent lives.
    relay.set_inheritable(True)
    os.execv(command[0], list(command))  # noqa: S606 - the lab's own command line


def run(path: Path) -> None:
    """The relay's role, until SIGTERM."""
    settings = config.load(path, LabNetworkSettings)
    logs.configure("network", settings.logs)
    run_role(lambda stop: serve(settings, stop))


async def serve(settings: LabNetworkSettings, stop: asyncio.Event) -> None:
    """Relay for whoever hands over doors, one after the other or together, until `stop`."""
    settings.socket.unlink(missing_ok=True)
    loop = asyncio.get_running_loop()
    served: set[asyncio.Task[None]] = set()

    async def accept(listening: socket.socket) -> None:
        while True:
            connection, _ = await loop.sock_accept(listening)
            task = asyncio.create_task(_serve_one(connection, settings.doors))
            served.add(task)
            task.add_done_callback(served.discard)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(settings.socket))
        settings.socket.chmod(0o600)
        listening.listen()
        listening.setblocking(False)
        accepting = asyncio.create_task(accept(listening))
        await stop.wait()
        ending = [accepting, *served]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
    settings.socket.unlink(missing_ok=True)


async def _serve_one(connection: socket.socket, doors: Sequence[Door]) -> None:
    """The doors of one process, for as long as it lives."""
    loop = asyncio.get_running_loop()
    with connection, contextlib.ExitStack() as held:
        connection.setblocking(False)
        await _readable(connection)
        _, descriptors, _, _ = socket.recv_fds(connection, 16, len(doors))
        for door, descriptor in zip(doors, descriptors, strict=True):
            one = socket.socket(fileno=descriptor)
            one.setblocking(False)
            if door.udp:
                transport, _ = await loop.create_datagram_endpoint(_Datagrams.to(door), sock=one)
                held.callback(transport.close)
            else:
                server = await asyncio.start_server(_joined_to(door), sock=one)
                held.callback(server.close)
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(connection, 16):
                pass


async def _readable(connection: socket.socket) -> None:
    loop, come = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, come.set)
    try:
        await come.wait()
    finally:
        loop.remove_reader(connection)


def _joined_to(
    door: Door,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def join(inside: asyncio.StreamReader, to_inside: asyncio.StreamWriter) -> None:
        with contextlib.closing(to_inside):
            try:
                outside, to_outside = await asyncio.open_connection(door.host, door.port)
            except OSError:
                return  # Inside it is a connection that ends at once.
            with contextlib.closing(to_outside):
                await asyncio.gather(_carry(inside, to_outside), _carry(outside, to_inside))

    return join


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(_MOST_BYTES):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()


class _Datagrams(asyncio.DatagramProtocol):
    """Each question goes out of a socket of its own, so the answer finds who asked."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._asking: set[asyncio.Task[None]] = set()

    @classmethod
    def to(cls, door: Door) -> "Callable[[], _Datagrams]":
        return lambda: cls(door)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.create_task(self._ask(data, addr))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, data: bytes, asker: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as outside:
            outside.setblocking(False)
            with contextlib.suppress(OSError, TimeoutError):
                await loop.sock_connect(outside, (self._door.host, self._door.port))
                await loop.sock_sendall(outside, data)
                async with asyncio.timeout(_ANSWER_SECONDS):
                    answer = await loop.sock_recv(outside, _MOST_BYTES)
                self._transport.sendto(answer, asker)
