"""Devices that no directory knows come in from the internet: ccmsetup and agent as processes, through
a gateway that is one, with a token that an administrator made or with a certificate."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from device_caller import Caller
from edge_world import Edge, edge_of, now
from gateway.conftest import BASE
from one_site import Moment
from tandem import pki
from tandem.agent import AgentSettings, MeetingPlace
from tandem.infra import config, net
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import clients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

CCMSETUP = "import sys; from tandem.agent.bootstrap import main; sys.exit(main())"
AGENT = "import sys; from pathlib import Path; from tandem.roles import agent; agent.run(Path(sys.argv[1]))"


@pytest.fixture
def moment() -> Moment:
    return now()


@pytest.fixture
async def edge(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[Edge]:
    async with edge_of(site_db, tmp_path, moment) as made, made.point.serving():
        yield made


@pytest.fixture
async def web(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with net.client(ca_file=edge.folder / "public.pem", timeout=10) as made:
        yield made


async def token(edge: Edge, **wanted: Any) -> dict[str, Any]:
    async with net.client(ca_file=edge.point.folder / "ca.pem", timeout=10) as inside:
        url = f"https://localhost:{edge.point.port}/api/v1/registration-tokens"
        made: dict[str, Any] = (await inside.post(url, json=wanted)).json()
    return made


async def real_agent(edge: Edge, folder: Path, parameter: str, **more: Any) -> AgentSettings:
    """ccmsetup with this parameter, and the agent until it has policy; each is a process."""
    settings = AgentSettings(
        state=folder / "agent",
        name="KIOSK-1",
        meeting=folder / "meeting",
        ca_file=edge.folder / "public.pem",
        minute_seconds=0.02,
        **more,
    )
    file, root = folder / "agent.toml", folder / "root.pem"
    file.write_text(config.dump(settings))
    root.write_bytes(pki.pem(edge.point.root.certificate))
    line = edge.command_line.replace('="', f'="{parameter} ', 1)
    setup = [sys.executable, "-c", CCMSETUP, "--config", file, "--trusted-root", root, "-"]
    # Through standard input: in the list of processes everybody could read it.
    done = await asyncio.to_thread(
        subprocess.run, setup, input=line, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    agent = subprocess.Popen([sys.executable, "-c", AGENT, file], stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(90):
            while not (settings.state / "CCM" / "policy.json").exists():
                await asyncio.sleep(0.05)
    finally:
        agent.terminate()
        await asyncio.to_thread(agent.wait, 20)
    return settings


async def test_a_real_agent_registers_by_a_bulk_token(edge: Edge, tmp_path: Path) -> None:
    made = await token(edge)
    settings = await real_agent(edge, tmp_path, f"/regtoken:{made['token']}")
    place = MeetingPlace(settings.meeting)
    request = place.setup()
    assert request
    assert "regtoken" not in request.command_line
    async with edge.point.db.transaction() as tx:
        (found,) = await clients.list_clients(tx)
    assert found.id == ccm.ConfigInfo.read(place.config_info).client
    assert (found.name, found.registered_by, found.tenant_id) == ("KIOSK-1", "bulk-token", "")
    for path in [*settings.state.rglob("*"), *settings.meeting.rglob("*"), *edge.folder.rglob("*")]:
        if path.is_file():
            assert made["token"][-40:].encode() not in path.read_bytes(), path


async def test_a_real_agent_registers_by_a_client_certificate(edge: Edge, tmp_path: Path) -> None:
    """Gateway and site each look at it; the way in is the gateway's for certificates."""
    edge.point.client_roots = [edge.clients_root.certificate]
    key = pki.generate_key()
    leaf = edge.clients_root.issue(
        key.public_key(), pki.name("srv-1"), now=edge.point.now(), days=9, usages=["client"]
    )
    (tmp_path / "srv.key").write_bytes(pki.key_pem(key))
    (tmp_path / "srv.pem").write_bytes(pki.pem(leaf))
    await real_agent(
        edge,
        tmp_path,
        "/UsePKICert",
        client_certificate=tmp_path / "srv.pem",
        client_key=tmp_path / "srv.key",
    )
    async with edge.point.db.transaction() as tx:
        (found,) = await clients.list_clients(tx)
    assert (found.name, found.registered_by) == ("KIOSK-1", "certificate")


async def test_the_gateway_lets_a_site_token_be_renewed_after_its_end_and_nothing_else(
    edge: Edge, web: httpx.AsyncClient, moment: Moment
) -> None:
    """The gateway looks at the real clock, so the token is made in the past."""
    moment.passes(days=-100)
    async with net.client(ca_file=edge.point.folder / "ca.pem", timeout=10) as near:
        caller = Caller(edge.point, near)
        await caller.exchange((await token(edge))["token"])
        short = caller.token
        own = (await caller.register()).json()["token"]
    moment.passes(days=100)
    caller.web, caller.base = web, f"https://localhost:{edge.port}{BASE}"
    caller.token = own
    refused = await caller.send("GET", "/SMS_MP/.sms_pol")
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "CMGService_Invalid_Token"
    # Neither a short token nor a bulk token is taken after its end, not even there.
    for old in (short, (await _made_before(edge, moment))["token"]):
        answer = await caller.exchange(old)
        assert answer.json()["error"]["code"] == "CMGService_Invalid_Token"
    assert (await caller.exchange(own)).json()["kind"] == "site"
    assert (await caller.send("GET", "/SMS_MP/.sms_pol")).status_code == 200


async def _made_before(edge: Edge, moment: Moment) -> dict[str, Any]:
    there = moment.at
    moment.at = there - timedelta(days=10)
    try:
        return await token(edge)
    finally:
        moment.at = there
