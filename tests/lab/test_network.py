"""A network of its own, and the doors in it: what has a door is reached, and nothing else is there."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from own_network import own_network
from tandem.infra import config
from tandem.roles.lab_network import Door, LabNetworkSettings, serve, unavailable


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data.upper(), addr)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # All of it, so that the end of what is sent has to come through as well.
    writer.write((await reader.read()).upper())
    await writer.drain()
    writer.close()


@dataclass
class Network:
    settings: Path
    open: int
    shut: int
    udp: int
    relay: asyncio.Task[None]
    stop: asyncio.Event

    async def start(self, program: str, *words: object) -> asyncio.subprocess.Process:
        starter = ["lab", "inside", "--config", str(self.settings), "--"]
        return await asyncio.create_subprocess_exec(
            "unshare", "--net", sys.executable, "-m", "tandem.cli", *starter,
            sys.executable, "-c", program, *map(str, words),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    with own_network():  # Skips where there can be none, and has no other use here.
        pass
    assert unavailable() == ""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    shut = await asyncio.start_server(_echo, "127.0.0.1", 0)
    udp, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    ports = [one.sockets[0].getsockname()[1] for one in (server, shut)]
    asked = udp.get_extra_info("sockname")[1]
    doors = [Door("127.0.0.1", ports[0]), Door("127.0.0.1", asked, udp=True)]
    table = {"socket": str(tmp_path / "n.sock"), "doors": msgspec.to_builtins(doors)}
    file = tmp_path / "network.toml"
    file.write_text(config.toml(table))
    relay = asyncio.create_task(serve(config.load(file, LabNetworkSettings), stop))
    while not (tmp_path / "n.sock").exists():
        await asyncio.sleep(0)
    yield Network(file, ports[0], ports[1], asked, relay, stop)
    stop.set()
    await relay
    assert not (tmp_path / "n.sock").exists()
    server.close()
    shut.close()
    udp.close()


ASK = """
import json, os, socket, sys
open_port, shut, udp = map(int, sys.argv[1:])
said = {"net": os.readlink("/proc/self/ns/net")}
with socket.create_connection(("127.0.0.1", open_port)) as one:
    one.sendall(b"hello " * 50_000)
    one.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: one.recv(65536), b""))
said["tcp"] = answer == b"HELLO " * 50_000
with socket.socket(type=socket.SOCK_DGRAM) as one:
    one.settimeout(20)
    one.sendto(b"name?", ("127.0.0.1", udp))
    said["udp"] = one.recv(99).decode()
for name, where in (("shut", ("127.0.0.1", shut)), ("outside", ("192.0.2.1", 80))):
    try:
        socket.create_connection(where, 5)
    except OSError as error:
        said[name] = error.strerror
print(json.dumps(said), flush=True)
sys.stdin.read()
"""


async def test_what_has_a_door_is_reached_and_nothing_else_is_there(network: Network) -> None:
    process = await network.start(ASK, network.open, network.shut, network.udp)
    assert process.stdout
    said = json.loads(await process.stdout.readline())
    assert said.pop("net") != os.readlink("/proc/self/ns/net")
    assert said == {
        "tcp": True,
        "udp": "NAME?",
        "shut": "Connection refused",
        "outside": "Network is unreachable",
    }
    # Another one beside it has doors of its own; the relay outlives them both.
    second = await network.start(ASK, network.open, network.shut, network.udp)
    for one in (process, second):
        output, _ = await one.communicate(b"")
        assert one.returncode == 0
    assert json.loads(output)["tcp"]
    assert not network.relay.done()


async def test_a_relay_that_ends_shuts_the_doors_of_who_still_lives(network: Network) -> None:
    program = ASK.replace("sys.stdin.read()", "sys.stdin.readline()") + (
        "try:\n    socket.create_connection(('127.0.0.1', open_port), 5)\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    process = await network.start(program, network.open, network.shut, network.udp)
    assert process.stdout
    await process.stdout.readline()
    network.stop.set()
    await network.relay
    output, _ = await process.communicate(b"\n")
    assert output.decode().strip() == "Connection refused"
