"""Restarts under load, of real processes: every request that was accepted is answered or fails once."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from .conftest import BASE, Rig, code

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@asynccontextmanager
async def asked(rig: Rig, *, keep: bool = True, clients: int = 4) -> AsyncIterator[Counter[str]]:
    """Clients that POST one thing after another, and what came of each.

    `lost` is what was sent and had neither answer nor refusal. Who finds nobody to connect to has
    sent nothing.
    """
    found: Counter[str] = Counter()
    stop = asyncio.Event()

    async def ask() -> None:
        headers = {"Authorization": f"Bearer {rig.token()}"}
        if not keep:
            headers["Connection"] = "close"
        async with rig.client(headers=headers, timeout=20) as client:
            while not stop.is_set():
                try:
                    answer = await client.post(f"{BASE}/echo", content=b"x" * 100)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    found["nobody"] += 1
                    await asyncio.sleep(0.02)
                except httpx.TransportError as error:
                    found[f"lost: {error!r}"] += 1
                else:
                    found["answered" if answer.status_code == 200 else code(answer)] += 1

    asking = [asyncio.create_task(ask()) for _ in range(clients)]
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
