"""A worker that is told to stop: what is under way ends, what is kept is told, and it takes no longer
than it may."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from .conftest import BASE, Rig, code, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]


async def test_requests_under_way_end_and_are_told_that_the_connection_does(tmp_path: Path) -> None:
    made = Rig(tmp_path)
    made.drain_seconds = 4
    async with serving(made):
        headers = {"Authorization": f"Bearer {made.token()}"}
        async with made.client(timeout=20) as one, made.client(timeout=20) as two:
            assert (await two.get(f"{BASE}/echo", headers=headers)).status_code == 200
            under_way = asyncio.create_task(one.get(f"{BASE}/pausing?ms=800", headers=headers))
            held = asyncio.create_task(made.ask("GET", f"{BASE}/held", made.token(), timeout=20))
            reader, writer = await asyncio.open_connection(
                "localhost", made.port, ssl=made.context(), limit=1024
            )
            request = f"GET {BASE}/big?mb=50 HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\n\r\n"
            writer.write(request.encode())
            await reader.readline()
            while made.under_way < 1:
                await asyncio.sleep(0.02)
            process = made.processes.pop("gateway")
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            # On its way when the end began.
            late = await two.get(f"{BASE}/echo", headers=headers)
            assert (late.status_code, late.headers["connection"]) == (200, "close")
            waited = await held
            assert (waited.status_code, code(waited)) == (503, "CMGService_Stopping")
            assert waited.headers["retry-after"] == "1"
            answer = await under_way
            assert (answer.text, answer.headers["connection"]) == ("rested", "close")
            # The client that does not read is not waited for any longer than that.
            assert await asyncio.to_thread(process.wait, 15) == 0
            assert 3 < time.monotonic() - begun < 8
            writer.transport.abort()
    lines = (tmp_path / "logs/gateway-1.jsonl").read_text()
    assert '"cut": 1' in lines
    assert lines.count('"event":"request"') == 3


async def test_with_nothing_under_way_it_ends_at_once(tmp_path: Path) -> None:
    made = Rig(tmp_path)
    async with serving(made):
        async with made.client() as client:
            headers = {"Authorization": f"Bearer {made.token()}"}
            assert (await client.get(f"{BASE}/echo", headers=headers)).status_code == 200
            begun = time.monotonic()
            assert await asyncio.to_thread(made.stop, "gateway") == 0
            assert time.monotonic() - begun < 3
