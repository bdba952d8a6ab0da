"""Check-ins without news are answered at the gateway: a gateway, a connection point and a management
point, each as it is. What the site did not do is read from what it was asked."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkin_world import PATH, Device, World, world_of

from gateway.conftest import BASE, CONNECTION_ID, NAME, Rig, free_port, serving
from one_site import Moment
from tandem.infra import http
from tandem.infra.database import Database
from tandem.protocols import tunnel
from tandem.site import clients, cloud_services
from tandem.site.clients import service
from tandem.site.cloud_services import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

PREFIX = "/CCM_Proxy_EdgeAnswers"
GATEWAY = 2  # Where devices ask: behind the two management points themselves.


class Edge(Rig):
    """A gateway before the management points of a world."""

    world: World
    inside: int
    site_keys: dict[str, Any]
    answers: bool = True
    # (path, status) of what came to the management point.
    asked: list[tuple[str, int]]

    def configuration(self) -> tunnel.Configuration:
        made = super().configuration()
        policy = tunnel.Endpoint(f"{BASE}/SMS_MP", ["GET"], 0, ["token"])
        answers = tunnel.EdgeAnswers(PREFIX, [f"{BASE}{PATH}"])
        return tunnel.Configuration(
            made.version,
            NAME,
            "CM1",
            site_token_keys=self.site_keys,
            tenants=made.tenants,
            endpoints=[policy],
            answers=answers if self.answers else None,
        )

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        found = super().connector_configuration(name)
        inside = f"https://localhost:{self.inside}"
        mappings = [
            tunnel.Mapping(f"{BASE}/SMS_MP", f"{inside}/SMS_MP"),
            tunnel.Mapping(PREFIX, f"{inside}/EdgeAnswers/{NAME}"),
        ]
        return tunnel.ConnectorConfiguration(name, found.gateways, mappings)

    def heard(self, app: Any) -> Any:
        async def telling(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                if message["type"] == "http.response.start":
                    self.asked.append((scope["path"], message["status"]))
                await send(message)

            await app(scope, receive, sending if scope["type"] == "http" else send)

        return telling

    @property
    def policy_asked(self) -> int:
        """How many check-ins have come to the site."""
        return sum(path.endswith(PATH) for path, _ in self.asked)

    async def answers_for(self, device: Device) -> None:
        """The gateway answers this device itself."""
        await device.asks(GATEWAY)
        deadline = time.monotonic() + 40
        while True:
            before = self.policy_asked
            assert (await device.asks(GATEWAY)).status_code == 304
            if self.policy_asked == before:
                return
            assert time.monotonic() < deadline, await self.health()
            await asyncio.sleep(0.1)

    async def contact(self, device: Device) -> datetime:
        async with self.world.db.transaction() as tx:
            found = await clients.find(tx, device.client_id)
        assert found.last_seen_at is not None
        return found.last_seen_at


async def _row(db: Database, **changes: Any) -> None:
    """The gateway as the site has it."""
    now = datetime.now(UTC)
    made = cloud_services.Gateway(
        *(NAME, "mycmg.cloudapp.net", "t", "Local", "group", "", 1, False, True, {}),
        *(cloud_services.GatewayState.READY, "", CONNECTION_ID, now, now, now),
    )
    async with db.transaction() as tx:
        if not await store.insert_gateway(tx, made, b"", b""):
            await store.change_gateway(tx, replace(made, **changes), now)


@asynccontextmanager
async def _edge(db: Database, folder: Path) -> AsyncIterator[Edge]:
    clock = Moment()
    clock.at = datetime.now(UTC).replace(microsecond=0)
    (folder / "edge").mkdir()
    made = Edge(folder / "edge")
    made.asked, made.inside = [], free_port()
    stop = asyncio.Event()
    await _row(db)
    async with world_of(db, folder, clock) as world:
        made.world = world
        async with db.transaction() as tx:
            made.site_keys = await clients.token_keys(tx, world.box, clock())
        door = cloud_services.EdgeAnswers(db, world.memories[0])
        tls = http.TLS(made.folder / "mp.pem", made.folder / "mp.key")
        app = made.heard(door.before(world.apps[0]))
        site = asyncio.create_task(
            http.serve([http.Listener(app, "127.0.0.1", made.inside, tls)], stop, 1)
        )
        world.webs.append(
            httpx.AsyncClient(
                base_url=f"https://localhost:{made.port}{BASE}",
                verify=made.context(),
                trust_env=False,
                timeout=30,
            )
        )
        try:
            async with serving(made):
                yield made
        finally:
            stop.set()
            await site


@pytest.fixture
async def edge(site_db: Database, tmp_path: Path) -> AsyncIterator[Edge]:
    async with _edge(site_db, tmp_path) as made:
        yield made


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not await what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_who_has_its_policy_is_answered_at_the_gateway(edge: Edge) -> None:
    """One gateway for all of it: to start one takes seconds."""
    await _looks_as_the_sites_own(edge)
    await _the_site_knows_of_it(edge)
    await _a_change_is_in_the_very_next_answer(edge)
    await _who_is_blocked_or_gone_is_not_answered(edge)
    await _what_is_not_the_same_goes_to_the_site(edge)
    await _what_nobody_confirms_goes_to_the_site(edge)
    await _nothing_is_said_to_others(edge)
    await _switched_off_all_goes_to_the_site(edge)


async def _looks_as_the_sites_own(edge: Edge) -> None:
    device = await edge.world.device("PC-A")
    await device.asks(GATEWAY)
    through = await device.asks(GATEWAY, named(device, "of-the-site-1"))
    assert through.status_code == 304
    await edge.answers_for(device)
    before, facts = edge.policy_asked, (await edge.health())["answers"]
    answers = [await device.asks(GATEWAY, named(device, f"at-the-edge-{n}")) for n in range(5)]
    assert {answer.status_code for answer in answers} == {304}
    assert edge.policy_asked == before
    counted = (await edge.health())["answers"]
    assert counted["answered"] == facts["answered"] + 5
    # It looks as the site's own answer does.
    here = dict(answers[0].headers)
    assert here.pop("x-correlation-id") == "at-the-edge-0"
    there = dict(through.headers)
    assert there.pop("date") <= here.pop("date")
    assert there.pop("x-correlation-id") == "of-the-site-1"
    assert here == there
    lines = await logged(edge, "at-the-edge-4")
    assert [(line["event"], line["status"], line["url"]) for line in lines] == [
        ("request", 304, f"{BASE}{PATH}")
    ]
    assert lines[0]["client"] == (await logged(edge, "of-the-site-1"))[0]["client"]
    outside = "".join(p.read_text("utf-8") for p in (edge.folder / "logs").glob("SMS_Cloud*"))
    assert "of-the-site-1" in outside
    assert "at-the-edge" not in outside


async def logged(edge: Edge, correlation: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def written() -> bool:
        text = (edge.folder / "logs" / "gateway-1.jsonl").read_text("utf-8")
        found[:] = [json.loads(line) for line in text.splitlines() if correlation in line]
        return bool(found)

    await until(written)
    return found


def named(device: Device, correlation: str) -> dict[str, str]:
    return {**device.signed("GET", PATH), "X-Correlation-Id": correlation}


async def _the_site_knows_of_it(edge: Edge) -> None:
    device = await edge.world.device("PC-B")
    await edge.answers_for(device)
    edge.world.now.passes(minutes=3)
    before = edge.policy_asked
    assert (await device.asks(GATEWAY)).status_code == 304
    assert edge.policy_asked == before

    async def told() -> bool:
        await edge.world.memories[0].save_seen()
        return await edge.contact(device) >= edge.world.now() - timedelta(seconds=60)

    await until(told)


async def _a_change_is_in_the_very_next_answer(edge: Edge) -> None:
    """The change is committed, and nothing waits for anybody to hear of it."""
    device = await edge.world.device("PC-C")
    for minutes in range(20, 28):
        await edge.answers_for(device)
        await edge.world.sets(minutes)
        assert (await device.asks(GATEWAY)).status_code == 200


async def _who_is_blocked_or_gone_is_not_answered(edge: Edge) -> None:
    one, other = [await edge.world.device(name) for name in ("PC-D", "PC-E")]
    await edge.answers_for(one)
    await edge.answers_for(other)
    await edge.world.blocks(one)
    assert (await one.asks(GATEWAY)).status_code == 403
    assert (await other.asks(GATEWAY)).status_code == 304
    async with edge.world.db.transaction() as tx:
        await service.delete(tx, other.client_id, actor="a", now=edge.world.now())
    assert (await other.asks(GATEWAY)).status_code in (401, 403, 404)


async def _what_is_not_the_same_goes_to_the_site(edge: Edge) -> None:
    one, other = [await edge.world.device(name) for name in ("PC-F", "PC-G")]
    await edge.answers_for(one)
    await edge.answers_for(other)
    before = edge.policy_asked
    foreign = {**one.signed("GET", PATH), "Authorization": f"Bearer {other.token}"}
    assert (await one.asks(GATEWAY, foreign)).status_code == 401
    stale = {**one.signed("GET", PATH), "If-None-Match": '"something-else"'}
    assert (await one.asks(GATEWAY, stale)).status_code == 200
    unsigned = {k: v for k, v in one.signed("GET", PATH).items() if k != "CCM-Signature"}
    assert (await one.asks(GATEWAY, unsigned)).status_code == 401
    assert edge.policy_asked == before + 3


async def _what_nobody_confirms_goes_to_the_site(edge: Edge) -> None:
    """The site does not hear of changes: it says nothing to the gateway, and computes itself."""
    device = await edge.world.device("PC-H")
    await edge.answers_for(device)
    await edge.world.cuts_the_line()
    before = edge.policy_asked
    assert (await device.asks(GATEWAY)).status_code == 304
    assert edge.policy_asked == before + 1


async def test_a_cut_tunnel_is_no_reason_to_miss_a_change(edge: Edge) -> None:
    device = await edge.world.device("PC-1")
    for minutes, victim in enumerate(["connector", "gateway"], 77):
        await _cut(edge, device, victim, minutes)


async def _cut(edge: Edge, device: Device, victim: str, minutes: int) -> None:
    await edge.answers_for(device)
    await asyncio.to_thread(edge.stop, victim, signal.SIGKILL)
    await edge.world.sets(minutes)
    if victim == "connector":
        # Nobody confirms what is known here, and nobody is there to go on to.
        assert (await device.asks(GATEWAY)).status_code == 503
    edge.start_gateway() if victim == "gateway" else edge.start_connector()
    await edge.until(lambda facts: facts["tunnels"] == 1)
    assert (await device.asks(GATEWAY)).status_code == 200
    await edge.answers_for(device)
    before = edge.policy_asked
    assert (await device.asks(GATEWAY)).status_code == 304
    assert edge.policy_asked == before


async def _switched_off_all_goes_to_the_site(edge: Edge) -> None:
    device = await edge.world.device("PC-I")
    await edge.answers_for(device)
    await edge.news(answers=False)
    facts = await edge.until(lambda facts: facts["answers"]["entries"] == 0)
    assert not facts["answers"]["on"]
    before = edge.policy_asked
    assert (await device.asks(GATEWAY)).status_code == 304
    assert edge.policy_asked == before + 1
    await edge.news(answers=True)
    await edge.answers_for(device)


async def _nothing_is_said_to_others(edge: Edge) -> None:
    device = await edge.world.device("PC-J")
    await edge.answers_for(device)
    question = {"content": b"\x91\xa1x", "headers": {"Authorization": "CMG 00"}}
    url = f"https://localhost:{edge.inside}/EdgeAnswers"
    context = edge.context()
    context.load_verify_locations(edge.folder / "site.pem")
    async with httpx.AsyncClient(verify=context, trust_env=False) as web:
        assert (await web.post(f"{url}/{NAME}", **question)).status_code == 401
        assert (await web.post(f"{url}/other.contoso.com", **question)).status_code == 401
        key = {"Authorization": f"CMG {tunnel.answers_key(CONNECTION_ID)}"}
        assert (await web.post(f"{url}/{NAME}", content=b"{", headers=key)).status_code == 400
    # Nor does a client come there by the gateway's own address of it.
    answer = await edge.ask("POST", PREFIX, token=device.token, content=b"")
    assert answer.status_code == 403
