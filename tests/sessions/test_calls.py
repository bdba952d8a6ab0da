"""Agents wait for calls, and hear at once that an order waits for their device."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from mdm_world import Mdm, TestDevice
from tandem.infra import http
from tandem.tenant import oidc, sessions

PATH = "/tandem/calls"


async def token(mdm: Mdm, device: TestDevice, scope: str = oidc.MDM_APP) -> str:
    async with mdm.database.transaction() as tx:
        make, principal = oidc.applications.create_application, oidc.applications.create_principal
        client = await make(
            tx, "Client", mdm.world.at, public_redirect_uris=("https://ConfigMgrClient",)
        )
        await principal(tx, client.app_id, mdm.world.at)
    assert device.joined is not None
    answer = await mdm.world.token(
        grant_type=oidc.DEVICE_GRANT,
        client_id=client.app_id,
        scope=f"{scope}/.default",
        assertion=mdm.world.assertion(device.joined),
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@asynccontextmanager
async def process(
    mdm: Mdm, wait_seconds: float = 20.0, most: int = 9
) -> AsyncIterator[tuple[sessions.Calls, httpx.AsyncClient]]:
    """One process of the tenant that agents may wait at."""
    calls = sessions.Calls(
        mdm.database, mdm.world.tokens, mdm.world.now, wait_seconds=wait_seconds, most=most
    )
    stop = asyncio.Event()
    running = asyncio.create_task(calls.run(stop))
    transport = httpx.ASGITransport(http.application(sessions.call_routes(calls), role="tenant"))
    async with httpx.AsyncClient(transport=transport, base_url="https://tenant.example") as client:
        yield calls, client
    stop.set()
    await running


async def asks(client: httpx.AsyncClient, bearer: str, after: str = "") -> httpx.Response:
    query = {"after": after} if after else {}
    return await client.get(PATH, params=query, headers={"Authorization": f"Bearer {bearer}"})


async def waits(calls: sessions.Calls, number: int = 1) -> None:
    async with asyncio.timeout(10):
        while calls.waiting != number:
            await asyncio.sleep(0.005)


@pytest.fixture
async def device(mdm: Mdm) -> TestDevice:
    return await mdm.enrolled()


async def order(mdm: Mdm, device: TestDevice, action: str) -> None:
    path = f"deviceManagement/managedDevices/{device.id}/{action}"
    assert (await mdm.graph("POST", path)).status_code == 204


@pytest.mark.parametrize("action", ["syncDevice", "rebootNow", "wipe"])
async def test_an_order_calls_the_device_at_whichever_process_it_waits(
    mdm: Mdm, device: TestDevice, action: str
) -> None:
    bearer = await token(mdm, device)
    async with process(mdm) as (calls, client), process(mdm) as (others, elsewhere):
        there = asyncio.create_task(asks(elsewhere, bearer))
        await waits(others)
        assert calls.waiting == 0
        await order(mdm, device, action)
        answer = await asyncio.wait_for(there, 10)
        assert answer.status_code == 200
        # It has not come yet: what it knows of already does not call it again.
        here = asyncio.create_task(asks(client, bearer, answer.json()["at"]))
        await waits(calls)
        mdm.world.at += timedelta(seconds=1)
        await order(mdm, device, "windowsDefenderScan")
        assert (await asyncio.wait_for(here, 10)).status_code == 200


async def test_what_was_ordered_before_it_waits_calls_it_at_once(
    mdm: Mdm, device: TestDevice
) -> None:
    bearer = await token(mdm, device)
    await order(mdm, device, "rebootNow")
    async with process(mdm, wait_seconds=0.01) as (_, client):
        assert (await asks(client, bearer)).status_code == 200
        await device.check_in()
        assert (await asks(client, bearer)).status_code == 204


async def test_a_held_order_calls_when_its_window_is_over(mdm: Mdm, device: TestDevice) -> None:
    bearer = await token(mdm, device)
    assert (
        await mdm.graph("PATCH", "tandem/actionSafeguards", {"holdMinutes": 10})
    ).status_code == 200
    async with process(mdm) as (calls, client):
        waiting = asyncio.create_task(asks(client, bearer))
        await waits(calls)
        await order(mdm, device, "wipe")
        mdm.world.at += timedelta(minutes=11)
        async with mdm.database.transaction() as tx:
            assert await mdm.sessions.tend(tx) == 1
        assert (await asyncio.wait_for(waiting, 10)).status_code == 200


async def test_one_device_is_called_and_no_other(mdm: Mdm, device: TestDevice) -> None:
    other = await mdm.enrolled("sam", "F" * 32)
    async with process(mdm) as (calls, client):
        mine = asyncio.create_task(asks(client, await token(mdm, device)))
        theirs = asyncio.create_task(asks(client, await token(mdm, other)))
        await waits(calls, 2)
        await order(mdm, device, "syncDevice")
        assert (await asyncio.wait_for(mine, 10)).status_code == 200
        assert not theirs.done()
        theirs.cancel()


async def test_the_newest_connection_of_a_device_counts_and_their_number_is_bounded(
    mdm: Mdm, device: TestDevice
) -> None:
    other = await mdm.enrolled("sam", "F" * 32)
    bearer = await token(mdm, device)
    async with process(mdm, most=1) as (calls, client):
        first = asyncio.create_task(asks(client, bearer))
        await waits(calls)
        second = asyncio.create_task(asks(client, bearer))
        assert (await asyncio.wait_for(first, 10)).status_code == 204
        refused = await asks(client, await token(mdm, other))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "600")
        await order(mdm, device, "syncDevice")
        assert (await asyncio.wait_for(second, 10)).status_code == 200
        assert calls.waiting == 0


async def test_who_waits_is_let_go_when_the_process_ends(mdm: Mdm, device: TestDevice) -> None:
    bearer = await token(mdm, device)
    async with process(mdm) as (calls, client):
        waiting = asyncio.create_task(asks(client, bearer))
        await waits(calls)
        calls_over = calls
    assert (await asyncio.wait_for(waiting, 10)).status_code == 204
    assert calls_over.waiting == 0


async def test_only_a_device_with_a_token_for_the_mdm_service_may_wait(
    mdm: Mdm, device: TestDevice
) -> None:
    async with process(mdm, wait_seconds=0.01) as (_, client):
        assert (await client.get(PATH)).status_code == 401
        assert (await asks(client, "x.y.z")).status_code == 401
        assert device.joined is not None
        assert (await asks(client, await mdm.mdm_token(device.joined))).status_code == 401, "a user"
        graph = await token(mdm, device, "https://graph.microsoft.com")
        assert (await asks(client, graph)).status_code == 401, "for another audience"
        bearer = await token(mdm, device)
        for after in ("yesterday", "2026-01-01T00:00:00", "9" * 5000):
            assert (await asks(client, bearer, after)).status_code == 400
        mdm.world.at += timedelta(hours=2)
        assert (await asks(client, bearer)).status_code == 401, "out of date"
