"""Agents of one or many devices in one process, directed by whoever started it.

The installer of an MSI starts it from the wheel that was in the package:

    → {"op": "begin", "resolver": "127.0.0.1:53", "ca_file": "…", "logs": "…"}
    → {"op": "host", "name": "LAB-001", "state": "…", "meeting": "…", …}     (AgentSettings)
    → {"op": "leave", "name": "LAB-001"}
    ← {"device": "LAB-001", "said": "config-info" | "wanted"}

One JSON value a line. Everything lasting is in the devices' folders: a process that was killed goes
on where it stopped, once it is told again whom to host. It ends when its standard input does.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
from cryptography import x509

from tandem.agent.assembly import machine_of
from tandem.agent.host import Host
from tandem.agent.platform import Machine
from tandem.agent.platform.meeting import FolderBridge, MeetingPlace, Wanted
from tandem.agent.settings import AgentSettings
from tandem.infra import logs, net
from tandem.infra.process import run_role

_LINE_LIMIT = 1 << 20
_CONNECTIONS = 140
# The first devices hold two open, to be called by either authority; the rest come at their next poll.
_CALLED = 40

log = logs.get_logger(__name__)


class Begin(msgspec.Struct, frozen=True, tag_field="op", tag="begin"):
    resolver: str = ""
    ca_file: str = ""
    logs: str = ""


class HostDevice(msgspec.Struct, frozen=True, tag_field="op", tag="host"):
    name: str
    state: str
    meeting: str
    os_version: str = "10.0.22631.1"
    minute_seconds: float = 60.0
    durable: bool = True
    simulated: bool = False
    root: str = ""
    own_network: bool = False


class Leave(msgspec.Struct, frozen=True, tag_field="op", tag="leave"):
    name: str


class Said(msgspec.Struct, frozen=True):
    """Something in the device's meeting folder has changed."""

    device: str
    said: str


Order = Begin | HostDevice | Leave


class _Bridge(FolderBridge):
    """Says when there is something to look at, so the MDM client need not keep looking."""

    def __init__(self, place: MeetingPlace, say: Callable[[str], None]) -> None:
        super().__init__(place)
        self._say = say

    def publish(self, config_info: str) -> None:
        super().publish(config_info)
        self._say("config-info")

    def _want(self, *, session: int = 0, device: int = 0, user: int = 0) -> Wanted:
        asked = super()._want(session=session, device=device, user=user)
        self._say("wanted")
        return asked


class Fleet:
    def __init__(self, begin: Begin, http: httpx.AsyncClient, say: Callable[[Said], None]) -> None:
        self._begin = begin
        self._http = http
        self._say = say
        self._hosts: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    async def follow(self, order: Order) -> None:
        match order:
            case HostDevice() if order.name not in self._hosts:
                stop = asyncio.Event()
                self._hosts[order.name] = stop, asyncio.create_task(self._host(order, stop))
            case Leave():
                await self._leave(order.name)

    async def _leave(self, name: str) -> None:
        if name in self._hosts:
            stop, task = self._hosts.pop(name)
            stop.set()
            await task

    async def _host(self, order: HostDevice, stop: asyncio.Event) -> None:
        settings = AgentSettings(
            state=Path(order.state),
            name=order.name,
            meeting=Path(order.meeting),
            os_version=order.os_version,
            simulated=order.simulated,
            resolver=self._begin.resolver,
            ca_file=Path(self._begin.ca_file) if self._begin.ca_file else None,
            minute_seconds=order.minute_seconds,
            durable=order.durable,
            root=Path(order.root) if order.root else None,
            own_network=order.own_network,
        )
        place = MeetingPlace(settings.meeting, settings.durable)
        called = len(self._hosts) < _CALLED

        def machine(root: x509.Certificate) -> Machine:
            bridge = _Bridge(place, lambda what: self._say(Said(order.name, what)))
            return replace(
                machine_of(settings, place, self._http, root), mdm=bridge, waits_for_calls=called
            )

        while not stop.is_set():
            try:
                await Host(place, machine).run(stop)
            except Exception:
                # One device's trouble must not end the others; it starts anew from its folder.
                log.exception("agent.failed", device=order.name)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await stop.wait()

    async def close(self) -> None:
        for stop, _ in self._hosts.values():
            stop.set()
        await asyncio.gather(*(task for _, task in self._hosts.values()))


async def serve(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    begin = msgspec.json.decode(await reader.readline() or b"{}", type=Begin)
    logs.configure("agent-host", Path(begin.logs) if begin.logs else None)

    def say(what: Said) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
        sys.stdout.buffer.flush()

    orders = msgspec.json.Decoder(Order)
    stopped = asyncio.create_task(stop.wait())
    async with net.client(
        resolver=net.Resolver(begin.resolver or None),
        ca_file=Path(begin.ca_file) if begin.ca_file else None,
        max_connections=_CONNECTIONS,
    ) as http:
        fleet = Fleet(begin, http, say)
        while not stop.is_set():
            line = asyncio.create_task(reader.readline())
            await asyncio.wait({line, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not line.done() or not line.result():
                line.cancel()
                break
            await fleet.follow(orders.decode(line.result()))
        stopped.cancel()
        await fleet.close()


def main() -> int:
    """Host agents until standard input ends or SIGTERM comes."""
    run_role(serve)
    return 0
