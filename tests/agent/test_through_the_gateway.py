"""The agent, a gateway, a connection point and the management point, each as it is, and hands that
kill them: nothing that was acknowledged is lost, and who is in the way is named."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_world import Edge, JoinedBroker, edge_of, now
from gateway.conftest import ROLE, TENANT
from one_site import PACKAGE, Bridge, Moment, log
from tandem.agent import Bootstrap, Client, Machine
from tandem.agent.folder import Folder
from tandem.agent.spool import Spool
from tandem.infra import net
from tandem.infra.database import Database
from tandem.site import clients, notifications

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

TOPIC = 1300


@pytest.fixture
def moment() -> Moment:
    return now()


@pytest.fixture
async def edge(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[Edge]:
    async with edge_of(site_db, tmp_path, moment) as made:
        yield made


@pytest.fixture
async def machine(edge: Edge, tmp_path: Path, moment: Moment) -> AsyncIterator[Machine]:
    broker = JoinedBroker()
    broker.edge = edge
    async with net.client(ca_file=edge.folder / "public.pem", timeout=10) as web:
        yield Machine(
            state=tmp_path / "device",
            name="LAB-001",
            mdm=Bridge(),
            directory=broker,
            http=web,
            trusted_root=edge.point.root.certificate,
            minute_seconds=0.02,
            now=moment,
        )


async def installed(edge: Edge, machine: Machine) -> Client:
    result = await Bootstrap(machine, edge.command_line).run(asyncio.Event())
    assert result.code == 0, result
    client = Client(machine)
    await client.step()
    assert client.client_id
    return client


async def arrived(edge: Edge) -> list[int]:
    """The numbers of our messages at the site, oldest first."""
    async with edge.point.db.transaction() as tx:
        history = await clients.timeline(tx, TENANT, "d1", limit=1000)
    return sorted(entry.state for entry in history if entry.topic == TOPIC)


async def test_a_gateway_that_is_killed_during_the_download_costs_no_byte(
    edge: Edge, machine: Machine
) -> None:
    half = 200_000
    kills = [edge.restart_gateway]

    async def package(wanted: str) -> clients.Package:
        async def read(start: int, end: int) -> AsyncIterator[bytes]:
            yield PACKAGE[start : start + half]
            if kills:
                part = machine.state / "ccmsetup" / f"{wanted}.part"
                while not part.exists() or part.stat().st_size < half // 2:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(kills.pop())
            yield PACKAGE[start + half : end]

        return clients.Package(len(PACKAGE), read)

    edge.point.package_of = package
    async with edge.point.serving():
        assert await installed(edge, machine)
    assert (machine.state / "CCM" / "client" / "client.whl").read_bytes() == PACKAGE
    resumed = [line for line in log(machine, "ccmsetup") if line.startswith("Resuming the")]
    assert len(resumed) == 1
    assert int(resumed[0].rsplit(" ", 1)[1].rstrip(".")) >= half // 2


async def test_messages_arrive_once_whoever_is_killed(edge: Edge, machine: Machine) -> None:
    """Gateway and connection point die in the middle of reports, and the device too."""
    async with edge.point.serving():
        client = await installed(edge, machine)
        spool = Spool(Folder(machine.state / "CCM" / "spool"))
        sent = 0
        for victim in ("gateway", "connector", "gateway", "connector"):
            for _ in range(10):
                spool.add(TOPIC, sent, machine.now(), {"text": "x" * 3000})
                sent += 1
            client.wake()
            step = asyncio.create_task(client.step())
            await asyncio.sleep(random.uniform(0, 0.05))
            await asyncio.to_thread(edge.stop, victim, signal.SIGKILL)
            await step
            edge.start_gateway() if victim == "gateway" else edge.start_connector()
            await edge.until(lambda facts: facts["tunnels"] == 1)
            client = Client(machine)
        deadline = time.monotonic() + 20
        while len(spool):
            assert time.monotonic() < deadline, log(machine, "CcmMessaging")[-4:]
            client.wake()
            await client.step()
        assert await arrived(edge) == list(range(sent))


async def test_a_device_hears_through_the_gateway_what_it_is_to_do_now(
    edge: Edge, machine: Machine
) -> None:
    """The request that waits at the site takes none of the gateway's places for others, and comes
    again when gateway or connection point were away."""
    stop = asyncio.Event()
    async with edge.point.serving():
        client = await installed(edge, machine)
        patient = Client(replace(machine, minute_seconds=2))
        task = asyncio.create_task(patient.run(stop))
        try:
            for victim in ("", "gateway", "connector"):
                await until_held(edge)
                if victim:
                    await asyncio.to_thread(edge.stop, victim, signal.SIGKILL)
                    edge.start_gateway() if victim == "gateway" else edge.start_connector()
                    await edge.until(lambda facts: facts["tunnels"] == 1)
                async with edge.point.db.transaction() as tx:
                    made = await notifications.create(
                        tx,
                        "download-computer-policy",
                        client=client.client_id,
                        actor="siteadmin",
                        now=machine.now(),
                    )
                begun = time.monotonic()
                await until_done(edge, made.id, machine)
                if not victim:
                    assert time.monotonic() - begun < 5
        finally:
            stop.set()
            await task


async def until_held(edge: Edge) -> None:
    async with asyncio.timeout(20):
        while not edge.point.channel.waiting:
            await asyncio.sleep(0.02)


async def until_done(edge: Edge, operation: str, machine: Machine) -> None:
    async with asyncio.timeout(30):
        while True:
            async with edge.point.db.transaction() as tx:
                found = await notifications.find(tx, operation, now=machine.now())
            if found.counts.get("done"):
                return
            assert not found.counts.get("failed"), found
            await asyncio.sleep(0.05)


async def test_a_stopped_management_point_is_named_and_what_waits_is_delivered_later(
    edge: Edge, machine: Machine
) -> None:
    spool = Spool(Folder(machine.state / "CCM" / "spool"))
    async with edge.point.serving():
        client = await installed(edge, machine)
    spool.add(TOPIC, 7, machine.now(), {})
    client.wake()
    await client.step()
    said = log(machine, "CcmMessaging")
    assert any("502: The management point does not answer the connection point." in s for s in said)
    assert any(s.startswith("Start the management point") for s in said)
    assert len(spool)
    async with edge.point.serving():
        client.wake()
        await client.step()
        assert len(spool) == 0
        assert await arrived(edge) == [7]


async def test_an_expired_token_is_refused_at_the_gateway_and_replaced(
    edge: Edge, machine: Machine, moment: Moment
) -> None:
    """The site's clock is nine hours slow: its tokens are over when they are made."""
    async with edge.point.serving():
        moment.passes(hours=-9)
        result = await Bootstrap(machine, edge.command_line).run(asyncio.Event())
        assert (result.code, result.state) == (6, 322)
        assert "401 CMGService_Invalid_Token: The token has expired." in result.message
        assert "clock" in result.cure
        moment.passes(hours=9)
        assert await installed(edge, machine)


async def test_an_address_that_is_not_published_is_refused_by_name(
    edge: Edge, machine: Machine
) -> None:
    async with edge.point.serving():
        line = edge.command_line.replace(ROLE, "72057594037999999")
        result = await Bootstrap(machine, line).run(asyncio.Event())
    assert result.code == 6
    assert "403 CMGService_Not_Published" in result.message
    assert "correct the address" in result.cure


async def test_without_a_tunnel_the_setup_waits_and_says_for_what(
    edge: Edge, machine: Machine
) -> None:
    await asyncio.to_thread(edge.stop, "connector")
    await edge.until(lambda facts: facts["tunnels"] == 0)
    async with edge.point.serving():
        setup = asyncio.create_task(Bootstrap(machine, edge.command_line).run(asyncio.Event()))
        async with asyncio.timeout(20):
            while not any("No connection point" in line for line in said(machine)):
                await asyncio.sleep(0.05)
        edge.start_connector()
        assert (await setup).code == 0


def said(machine: Machine) -> list[str]:
    try:
        return log(machine, "ccmsetup")
    except FileNotFoundError:
        return []
