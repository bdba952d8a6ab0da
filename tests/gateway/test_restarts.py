"""Restarts under load, of real processes: every request that was accepted is answered or fails once."""

import asyncio
import os
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from tandem.protocols import tunnel

from .conftest import BASE, NAME, Rig, another_certificate, code, free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@asynccontextmanager
async def asked(
    rig: Rig, *, ports: list[int] | None = None, clients: int = 4
) -> AsyncIterator[Counter[str]]:
    """Clients that POST one thing after another, and what came of each.

    `lost` is what was sent and had neither answer nor refusal. Who finds nobody to connect to has
    sent nothing, and goes to the next of the `ports`. Every second one closes its connection behind
    each request.
    """
    found: Counter[str] = Counter()
    stop = asyncio.Event()
    ports = ports or [rig.port]

    async def ask(number: int) -> None:
        headers = {"Authorization": f"Bearer {rig.token()}"}
        if number % 2:
            headers["Connection"] = "close"
        async with rig.client(headers=headers, timeout=20) as client:
            while not stop.is_set():
                port = ports[number % len(ports)]
                try:
                    answer = await client.post(
                        f"https://localhost:{port}{BASE}/echo", content=b"x" * 100
                    )
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    found["nobody"] += 1
                    number += 1
                    await asyncio.sleep(0.02)
                except httpx.TransportError as error:
                    found[f"lost: {error!r}"] += 1
                else:
                    found["answered" if answer.status_code == 200 else code(answer)] += 1

    asking = [asyncio.create_task(ask(number)) for number in range(clients)]
    try:
        yield found
        assert found["answered"] > clients
    finally:
        stop.set()
        await asyncio.gather(*asking)


async def more(found: Counter[str], count: int = 20) -> None:
    """Wait until so many more are answered."""
    before = found["answered"]
    async with asyncio.timeout(30):
        while found["answered"] < before + count:
            await asyncio.sleep(0.01)


async def test_a_connection_point_is_restarted_under_load_and_no_request_fails(rig: Rig) -> None:
    """POSTs, which nobody may send twice: those that it took are answered, the rest goes elsewhere."""
    rig.role("CP02")
    rig.start_connector("CP02")
    await rig.until(lambda facts: facts["connection_points"] == ["CP01", "CP02"])
    async with asked(rig) as found:
        await more(found)
        for _ in range(2):
            await asyncio.to_thread(rig.stop, "CP02")
            await rig.until(lambda facts: facts["connection_points"] == ["CP01"])
            await more(found)
            rig.start_connector("CP02")
            await rig.until(lambda facts: facts["connection_points"] == ["CP01", "CP02"])
            await more(found)
        assert set(found) == {"answered"}, found
        # And killed: what it had fails with a word, and nothing is lost.
        await asyncio.to_thread(rig.stop, "CP02", signal.SIGKILL)
        await more(found)
    assert set(found) <= {"answered", "CMGConnector_Disconnected"}, found


async def test_the_only_connection_point_is_restarted_and_answers_what_it_had(rig: Rig) -> None:
    """A slow answer that is under way when it is told to stop is not cut off."""
    asking = asyncio.create_task(rig.ask("GET", f"{BASE}/big?mb=20", rig.token(), timeout=60))
    while not (await rig.health())["connections"]:
        assert not asking.done()
        await asyncio.sleep(0.01)
    assert await asyncio.to_thread(rig.stop, "connector") == 0
    assert len((await asking).content) == 20_000_000
    rig.start_connector()
    await rig.until(lambda facts: facts["tunnels"] == 1)


@dataclass
class TwoInstances(Rig):
    """One gateway of two instances, at addresses of their own."""

    second_port: int = field(default_factory=free_port)
    second_tunnel_port: int = field(default_factory=free_port)
    second_health_port: int = field(default_factory=free_port)

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        made = super().connector_configuration(name)
        second = tunnel.Instance(2, "127.0.0.1", self.second_port, self.second_tunnel_port)
        one = made.gateways[0]
        both = msgspec.structs.replace(one, instances=[*one.instances, second])
        return msgspec.structs.replace(made, gateways=[both])

    def start_second(self) -> None:
        self.start_gateway(
            "second",
            instance=2,
            port=self.second_port,
            tunnel_port=self.second_tunnel_port,
            health=f"127.0.0.1:{self.second_health_port}",
            state=str(self.folder / "second"),
        )

    async def second_serves(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as web, asyncio.timeout(60):
            while True:
                try:
                    url = f"http://127.0.0.1:{self.second_health_port}/readyz"
                    facts = (await web.get(url)).json()
                    # A tunnel is there before what the site says comes through it.
                    if facts["tunnels"] == 1 and facts["version"] == 1:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)


async def test_one_instance_is_restarted_under_load_and_nobody_notices(tmp_path: Path) -> None:
    """What the one that ends has taken it answers; who dials finds the other one."""
    rig = TwoInstances(tmp_path)
    async with serving(rig):
        rig.start_second()
        await rig.second_serves()
        async with asked(rig, ports=[rig.second_port, rig.port], clients=6) as found:
            await more(found, 40)
            for _ in range(3):
                assert await asyncio.to_thread(rig.stop, "second") == 0
                await more(found, 40)
                rig.start_second()
                await rig.second_serves()
                await more(found, 40)
        assert set(found) <= {"answered", "nobody"}, found
        assert found["nobody"] < found["answered"]


async def test_an_instance_that_is_killed_takes_its_workers_with_it(tmp_path: Path) -> None:
    """The parent of two workers: they held its ports, and whoever took its place did not come up."""
    rig = Rig(tmp_path, workers=2)
    async with serving(rig):
        workers = psutil.Process(rig.processes["gateway"].pid).children()
        assert len(workers) == 2
        await asyncio.to_thread(rig.stop, "gateway", signal.SIGKILL)
        await asyncio.to_thread(psutil.wait_procs, workers, 30)
        rig.start_gateway()
        await rig.until(lambda facts: facts["tunnels"] == 1)
        assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200


class Hello:
    """A client that is in the middle of its handshake: it has said hello, and read the answer."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=NAME)

    async def begin(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        await self._turn()

    async def _turn(self) -> None:
        self._writer.write(self._out.read())
        data = await self._reader.read(65536)
        assert data, "cut off"
        self._in.write(data)

    async def _until(self, what: Callable[[], Any]) -> Any:
        while True:
            try:
                done = what()
            except ssl.SSLWantReadError:
                await self._turn()
            else:
                self._writer.write(self._out.read())
                return done

    async def ask(self, token: str) -> bytes:
        """Finish, ask, and read the answer's first piece."""
        await self._until(self._tls.do_handshake)
        head = f"GET {BASE}/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        await self._until(lambda: self._tls.write(head.encode()))
        answer = await self._until(lambda: self._tls.read(65536))
        self._writer.transport.abort()
        return bytes(answer)


@pytest.mark.parametrize("fast", [True, False], ids=["aiofastnet", "uvloop"])
async def test_who_is_in_the_middle_of_the_handshake_is_not_cut_off(
    tmp_path: Path, fast: bool
) -> None:
    """Neither when another certificate is shown from then on, nor when the instance ends."""
    rig = Rig(tmp_path, fast_tls=fast)
    async with serving(rig):
        during, new = Hello(rig.context()), another_certificate(rig)
        await during.begin(rig.port)
        os.kill(rig.processes["gateway"].pid, signal.SIGHUP)
        await rig.until(lambda facts: facts["certificate"] == new)
        assert (await during.ask(rig.token())).startswith(b"HTTP/1.1 200 OK\r\n")
        ending = Hello(rig.context())
        await ending.begin(rig.port)
        process = rig.processes.pop("gateway")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while await _answers(rig.port):
                await asyncio.sleep(0.01)
        answer = await ending.ask(rig.token())
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in answer
        assert await asyncio.to_thread(process.wait, 30) == 0


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True
