"""More than there is room for: served late, or refused with a time to come again, and never lost."""

import asyncio
import os
import signal
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import BASE, TENANT, Rig, code

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]

PAUSING = f"{BASE}/pausing"
ECHO = f"{BASE}/echo"


async def many(rig: Rig, count: int, path: str, **options: Any) -> list[httpx.Response]:
    headers = {"Authorization": f"Bearer {rig.token(**options)}"}
    async with rig.client(timeout=30, limits=httpx.Limits(max_connections=count)) as client:
        return await asyncio.gather(*(client.get(path, headers=headers) for _ in range(count)))


async def test_a_request_beyond_what_the_connection_point_takes_waits(shared: Rig) -> None:
    await shared.news(limits={"requests_per_connection_point": 3})
    shared.most_under_way = 0
    answers = await many(shared, 12, f"{PAUSING}?ms=100")
    assert [answer.text for answer in answers] == ["rested"] * 12
    assert shared.most_under_way == 3


async def test_what_finds_no_place_in_the_queue_hears_when_to_come_again(shared: Rig) -> None:
    await shared.news(limits={"requests_per_connection_point": 1, "queue": 2, "queue_seconds": 1})
    answers = await many(shared, 6, f"{PAUSING}?ms=3000")
    busy = [answer for answer in answers if answer.status_code == 503]
    assert [answer.status_code for answer in answers].count(200) == 1
    assert {code(answer) for answer in busy} == {"CMGService_Busy"}
    assert {answer.headers["retry-after"] for answer in busy} == {"30"}
    assert {answer.reason_phrase for answer in busy} == {"CMGService_Busy"}
    # Three at once, two after a second; nobody's connection was closed for it.
    assert all("connection" not in answer.headers for answer in busy)
    await shared.news(limits={})
    assert (await shared.ask("GET", ECHO, shared.token())).status_code == 200


async def test_a_request_waits_for_a_connection_point_that_comes_back(rig: Rig) -> None:
    await rig.news(limits={"reconnect_seconds": 60})
    await asyncio.to_thread(rig.stop, "connector", signal.SIGKILL)
    await rig.until(lambda facts: facts["tunnels"] == 0)
    waiting = asyncio.create_task(rig.ask("POST", ECHO, rig.token(), content=b"x", timeout=90))
    rig.start_connector()
    answer = await waiting
    assert (answer.status_code, answer.text) == (200, "POST 1")


async def test_a_client_that_asks_too_often_is_told_so_and_others_are_served(shared: Rig) -> None:
    await shared.news(limits={"requests_per_client": 3})
    headers = {"Authorization": f"Bearer {shared.token(deviceid='loop')}"}
    async with shared.client() as client:
        # Within two windows at most: no more than twice as many pass.
        answers = [await client.get(ECHO, headers=headers) for _ in range(8)]
    passed = [answer.status_code for answer in answers].count(200)
    assert 3 <= passed <= 6
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {code(answer) for answer in refused} == {"CMGService_Rate_Limit"}
    assert refused[0].headers["retry-after"] == "10"
    assert "connection" not in refused[0].headers
    other = await shared.ask("GET", ECHO, shared.token(deviceid="quiet"))
    assert other.status_code == 200
    await shared.news(limits={})


async def test_a_client_has_so_many_requests_under_way(shared: Rig) -> None:
    await shared.news(limits={"under_way_per_client": 2})
    answers = await many(shared, 5, f"{PAUSING}?ms=300", deviceid="greedy")
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    # What ended is not counted any more.
    again = await many(shared, 2, f"{PAUSING}?ms=0", deviceid="greedy")
    assert [answer.status_code for answer in again] == [200, 200]
    await shared.news(limits={})


async def test_strangers_are_counted_by_their_address(shared: Rig) -> None:
    await shared.news(limits={"unknown_requests_per_address": 3})
    async with shared.client() as client:
        where = f"/CCM_Proxy_ServerAuth/AADAuthInfo?TenantID={TENANT}"
        answers = [await client.get(where) for _ in range(8)]
        known = await client.get(ECHO, headers={"Authorization": f"Bearer {shared.token()}"})
    statuses = [answer.status_code for answer in answers]
    assert 3 <= statuses.count(200) <= 6
    assert statuses.count(200) + statuses.count(429) == 8
    assert known.status_code == 200
    await shared.news(limits={})


async def test_connections_have_a_number(shared: Rig) -> None:
    """The one that was idle longest gives way; when none is idle, the next one is told so."""
    before = (await shared.health())["connections"]
    await shared.news(limits={"connections": before + 3})
    headers = {"Authorization": f"Bearer {shared.token()}"}
    clients = [shared.client(timeout=20) for _ in range(4)]
    try:
        for client in clients:
            assert (await client.get(ECHO, headers=headers)).status_code == 200
        await shared.until(lambda facts: facts["connections"] <= before + 3)
        busy = [
            asyncio.create_task(client.get(f"{PAUSING}?ms=1500", headers=headers))
            for client in clients[1:]
        ]
        while shared.under_way < 3:
            await asyncio.sleep(0.02)
        refused = await clients[0].get(ECHO, headers=headers)
        assert (refused.status_code, code(refused)) == (503, "CMGService_Busy")
        assert "retry-after" in refused.headers
        assert {task.result().status_code for task in (await asyncio.wait(busy))[0]} == {200}
    finally:
        for client in clients:
            await client.aclose()
    await shared.news(limits={"connections_per_address": 1})
    async with shared.client() as first, shared.client() as second:
        assert (await first.get(ECHO, headers=headers)).status_code == 200
        many_connections = await second.get(ECHO, headers=headers)
        assert (many_connections.status_code, code(many_connections)) == (
            429,
            "CMGService_Connections",
        )
    await shared.news(limits={})


@pytest.mark.parametrize("sized", [True, False])
async def test_a_large_body_goes_on_as_it_comes_and_arrives_whole(shared: Rig, sized: bool) -> None:
    content = os.urandom(500_000)

    async def pieces() -> Any:
        for start in range(0, len(content), 50_000):
            yield content[start : start + 50_000]

    given: Any = content if sized else pieces()
    answer = await shared.ask("POST", f"{BASE}/large", shared.token(), content=given)
    assert (answer.status_code, answer.text) == (200, "POST 500000")
    assert shared.seen[-1]["body"] == content


async def test_connections_that_never_send_cost_little_and_hold_up_nobody(shared: Rig) -> None:
    """TANDEM_SILENT=10000 for the full number; its clients need as many file descriptors."""
    count = int(os.environ.get("TANDEM_SILENT", "300"))
    pid = shared.processes["gateway"].pid

    def kilobytes() -> int:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.partition("\nPss:")[2].split()[0])

    await shared.ask("GET", ECHO, shared.token())
    before = kilobytes()
    writers = []
    for number in range(count):
        context: ssl.SSLContext | None = shared.context() if number % 2 and number < 600 else None
        _, writer = await asyncio.open_connection(
            "127.0.0.1", shared.port, ssl=context,
            server_hostname="localhost" if context else None,
        )  # fmt: skip
        writers.append(writer)
    try:
        assert (await shared.ask("GET", ECHO, shared.token())).status_code == 200
        assert (kilobytes() - before) / count < 60
    finally:
        for writer in writers:
            writer.transport.abort()
