"""A connection point moves to another gateway while it is used: what it has is finished first."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from tandem.protocols import tunnel

from .conftest import BASE, CONNECTION_ID, NAME, Rig, free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

SECOND = "second.contoso.com"


@dataclass
class TwoGateways(Rig):
    """The site's word decides which of them the connection point serves."""

    serves: str = NAME
    second_port: int = field(default_factory=free_port)
    second_tunnel_port: int = field(default_factory=free_port)
    second_health_port: int = field(default_factory=free_port)

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        made = super().connector_configuration(name)
        if self.serves == NAME:
            return made
        instance = tunnel.Instance(1, "127.0.0.1", self.second_port, self.second_tunnel_port)
        theirs = msgspec.structs.replace(self.configuration(), service_name=SECOND)
        # Both show the certificate of the rig.
        target = tunnel.GatewayTarget(SECOND, NAME, CONNECTION_ID, [instance], theirs)
        return msgspec.structs.replace(made, gateways=[target])

    def start_second(self) -> None:
        settings = {
            "service_name": SECOND, "instance": 1, "host": "127.0.0.1", "port": self.second_port,
            "tunnel_port": self.second_tunnel_port,
            "health": f"127.0.0.1:{self.second_health_port}",
            "pfx": str(self.folder / "server.pfx"),
            "pfx_password_file": str(self.folder / "server.password"),
            "connector_ca": str(self.folder / "site.pem"), "connection_id": CONNECTION_ID,
            "state": str(self.folder / "second"), "logs": str(self.folder / "logs"),
        }  # fmt: skip
        self._start("gateway", settings, "second")

    async def held(self, port: int) -> int:
        async with httpx.AsyncClient(trust_env=False) as web:
            try:
                return int((await web.get(f"http://127.0.0.1:{port}/readyz")).json()["tunnels"])
            except httpx.TransportError:
                return -1


@pytest_asyncio.fixture(loop_scope="module")
async def two(tmp_path: Path) -> AsyncIterator[TwoGateways]:
    async with serving(TwoGateways(tmp_path)) as made:
        assert isinstance(made, TwoGateways)
        made.start_second()
        async with asyncio.timeout(30):
            while await made.held(made.second_health_port) != 0:
                await asyncio.sleep(0.05)
        yield made


async def test_what_it_has_is_finished_and_nobody_is_cut_off(two: TwoGateways) -> None:
    headers = {"Authorization": f"Bearer {two.token()}"}
    gone, answers = asyncio.Event(), []

    async def ask() -> None:
        """Clients of the old gateway: served, and then told that nobody is there."""
        async with two.client() as client:
            while not gone.is_set():
                answer = await client.get(f"{BASE}/echo", headers=headers)
                answers.append(answer.status_code)

    async with two.client() as client:
        async with client.stream("GET", f"{BASE}/big?mb=8", headers=headers) as under_way:
            received = under_way.aiter_raw()
            size = len(await anext(received))
            asking = [asyncio.create_task(ask()) for _ in range(3)]
            while len(answers) < 5:
                await asyncio.sleep(0.01)
            # The window is full: the rest waits for whoever reads, and the move for that.
            two.serves, two.version = SECOND, two.version + 1
            async with asyncio.timeout(30):
                while await two.held(two.second_health_port) != 1:
                    await asyncio.sleep(0.05)
            async for piece in received:
                size += len(piece)
        assert (under_way.status_code, size) == (200, 8_000_000)
    async with asyncio.timeout(30):
        while await two.held(two.health_port) != 0:
            await asyncio.sleep(0.05)
    gone.set()
    await asyncio.gather(*asking)
    assert set(answers) <= {200, 503}
    assert answers.count(200) >= 5
    async with two.client() as client:
        url: Any = httpx.URL(f"https://localhost:{two.second_port}{BASE}/echo")
        assert (await client.get(url, headers=headers)).status_code == 200
        assert (await client.get(f"{BASE}/echo", headers=headers)).status_code == 503
