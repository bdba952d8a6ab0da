import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from one_site import Bridge, Broker, Moment, Site
from tandem.agent import Bootstrap, Client, Machine
from tandem.infra import net
from tandem.infra.database import Database


@pytest.fixture
def moment() -> Moment:
    # TLS looks at the real clock, so the test's starts there.
    clock = Moment()
    clock.at = datetime.now(UTC).replace(microsecond=0)
    return clock


@pytest.fixture
async def site(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Site(site_db, tmp_path, moment, port)
    async with made.serving():
        yield made


@pytest.fixture
async def web(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with net.client(ca_file=site.folder / "ca.pem", timeout=5) as client:
        yield client


@pytest.fixture
def machine(site: Site, web: httpx.AsyncClient, tmp_path: Path) -> Machine:
    return Machine(
        state=tmp_path / "device",
        name="LAB-001",
        mdm=Bridge(),
        directory=Broker(),
        http=web,
        trusted_root=site.root.certificate,
        minute_seconds=0.02,
        now=site.now,
    )


@pytest.fixture
async def installed(site: Site, machine: Machine) -> Machine:
    """The machine after ccmsetup."""
    result = await Bootstrap(machine, site.command_line).run(asyncio.Event())
    assert result.code == 0, result
    return machine


@pytest.fixture
async def client(installed: Machine) -> Client:
    """The client after its first step: registered, with policy."""
    made = Client(installed)
    await made.step()
    return made
