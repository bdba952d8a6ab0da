"""The agent, a gateway, a connection point and the software update point, each as it is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_world import Edge, JoinedBroker, edge_of, now
from one_site import UPDATES_ID, Bridge, Moment, enrolled, log
from software_updates.conftest import Device
from tandem.agent import Bootstrap, Client, Machine
from tandem.infra import net
from tandem.infra.database import Database
from tandem.protocols import ccm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def moment() -> Moment:
    return now()


@pytest.fixture
async def edge(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[Edge]:
    async with edge_of(site_db, tmp_path, moment) as made:
        yield made


async def test_a_device_on_the_internet_asks_through_the_gateway_until_that_is_withdrawn(
    edge: Edge, root: Path, tmp_path: Path, moment: Moment
) -> None:
    broker = JoinedBroker()
    broker.edge = edge
    outside = ccm.UpdatePoint(
        f"localhost:{edge.port}/CCM_Proxy_MutualAuth/{UPDATES_ID}", "Internet"
    )
    async with (
        net.client(ca_file=edge.folder / "public.pem", timeout=10) as web,
        edge.point.serving(),
        net.client(ca_file=edge.point.folder / "ca.pem", timeout=10) as inside,
    ):
        machine = Machine(
            state=tmp_path / "device",
            name="LAB-001",
            mdm=Bridge(),
            directory=broker,
            http=web,
            trusted_root=edge.point.root.certificate,
            minute_seconds=0.02,
            now=moment,
            root=root,
        )
        enrolled(machine)
        result = await Bootstrap(machine, edge.command_line).run(asyncio.Event())
        assert result.code == 0, result
        client = Client(machine)
        await client.step()
        device = Device(edge.point, machine, client, inside)
        device.installs("lab", "1.0")
        await device.approve(await device.update(), due=False)

        edge.point.update_points = [outside]
        await edge.news(updates=True)
        await device.again()
        await device.step()
        assert await device.stands() == {"CVE-2026-1": ("required", "1.0")}

        # The administrator clears the box; the device still believes that it is published.
        await edge.news(updates=False)
        await device.step()
        scan = (await device.shown())["scan"]
        assert (scan["state"], scan["code"]) == ("failed", "agent.refused")
        assert "CMGService_Not_Published" in scan["text"]
        edge.point.update_points = []
        await device.step()
        assert any("no software update point" in line for line in log(machine, "WUAHandler"))

        edge.point.update_points = [outside]
        await edge.news(updates=True)
        device.installs("lab", "2.0")
        await device.step()
        assert await device.stands() == {"CVE-2026-1": ("installed", "2.0")}
        assert (await device.shown())["scan"]["state"] == "completed"
