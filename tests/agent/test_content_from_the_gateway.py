"""The agent's client package from the gateway's shelf: a real device, gateway, connection point and site."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edge_world import Edge, JoinedBroker, edge_of, now
from gateway.conftest import CONNECTION_ID, NAME
from gateway.content_rig import CHUNK, plain
from one_site import Bridge, Moment, log
from tandem.agent import Bootstrap, Machine
from tandem.infra import net
from tandem.infra.database import Database, Tx
from tandem.protocols import ccm, tunnel
from tandem.site import clients
from tandem.site.cloud_services import content_routes, content_store, contents, store
from tandem.site.cloud_services.model import Gateway, GatewayState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

PACKAGE = plain(3 * CHUNK + 50_000, seed=77)
NAMED = sha256(PACKAGE).hexdigest()


class ContentEdge(Edge):
    serves = True
    dropped: dict[str, int] = {}

    def configuration(self) -> tunnel.Configuration:
        service = tunnel.ContentService(self.dropped) if self.serves else None
        return msgspec.structs.replace(super().configuration(), content=service)

    def connector_configuration(self, name: str = "CP01") -> tunnel.ConnectorConfiguration:
        found = super().connector_configuration(name)
        origin = f"https://localhost:{self.point.port}{tunnel.ORIGIN}/{NAME}"
        mapped = [*found.map, tunnel.Mapping(tunnel.ORIGIN, origin)]
        return msgspec.structs.replace(found, map=mapped)

    def fetched(self, part: str) -> list[str]:
        """What was asked of the management point, of this kind."""
        return [path for one in self.point.seen if part in (path := one.url.path)]


@pytest.fixture
def moment() -> Moment:
    return now()


@pytest.fixture
async def edge(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[ContentEdge]:
    async with edge_of(site_db, tmp_path, moment, kind=ContentEdge) as made:
        assert isinstance(made, ContentEdge)
        site = made.point
        site.package = PACKAGE
        site.manifest = ccm.ClientManifest("CM1", "0.1.0", "client.whl", NAMED, len(PACKAGE))

        async def find(tx: Tx, wanted: str) -> Any:
            known = SimpleNamespace(
                file_name="client.whl", version="0.1.0", size_bytes=len(PACKAGE)
            )
            return known if wanted == NAMED else None

        cloud: Any = SimpleNamespace(
            db=site_db,
            box=site.box,
            connections=SimpleNamespace(authority=lambda gateway: f"localhost:{made.port}"),
            now=moment,
        )
        packages: Any = SimpleNamespace(find=find)
        site.more = content_routes(cloud, site.point, packages)
        async with site_db.transaction() as tx:
            at = moment()
            gateway = Gateway(
                NAME, "mycmg", "t", "here", "", "", 1, False, True, {}, GatewayState.READY, "",
                CONNECTION_ID, at, at, at + timedelta(days=30),
            )  # fmt: skip
            await store.insert_gateway(tx, gateway, b"", b"")
        yield made


async def machine_of(edge: Edge, folder: Path, device: str, web: Any) -> Machine:
    broker = JoinedBroker()
    broker.edge, broker.device = edge, device
    return Machine(
        state=folder / device,
        name=device.upper(),
        mdm=Bridge(),
        directory=broker,
        http=web,
        trusted_root=edge.point.root.certificate,
        minute_seconds=0.1,
        now=edge.point.now,
    )


@pytest.fixture
async def device(edge: ContentEdge, tmp_path: Path) -> AsyncIterator[Any]:
    async with net.client(ca_file=edge.folder / "public.pem", timeout=20) as web:

        async def made(name: str) -> Machine:
            return await machine_of(edge, tmp_path, name, web)

        yield made


async def installs(edge: Edge, machine: Machine) -> None:
    result = await Bootstrap(machine, edge.command_line).run(asyncio.Event())
    assert result.code == 0, result
    assert (machine.state / "CCM" / "client" / "client.whl").read_bytes() == PACKAGE


async def test_the_client_package_leaves_the_site_once_for_all_devices(
    edge: ContentEdge, device: Any
) -> None:
    async with edge.point.serving():
        for name in ("d1", "d2", "d3"):
            machine = await device(name)
            await installs(edge, machine)
            address = f"https://localhost:{edge.port}{tunnel.CONTENT}/{NAMED}"
            assert f"Downloaded client.whl from {address}" in log(machine, "ccmsetup")
    assert edge.fetched(f"{tunnel.ORIGIN}/{NAME}/{NAMED}") == [f"{tunnel.ORIGIN}/{NAME}/{NAMED}"]
    # Nobody took the long way, by the management point.
    assert not [path for path in edge.fetched("/CCM_Client/") if path.endswith(NAMED)]
    # No two devices have the same token, and no token is in a log.
    text = "".join(path.read_text() for path in (edge.folder / "logs").glob("*"))
    assert "eyJ" not in text


async def test_a_gateway_without_the_content_costs_nothing_but_the_longer_way(
    edge: ContentEdge, device: Any
) -> None:
    async with edge.point.serving():
        await edge.news(serves=False)
        machine = await device("d1")
        await installs(edge, machine)
    assert any("does not give it" in line for line in log(machine, "ccmsetup"))
    assert [path for path in edge.fetched("/CCM_Client/") if path.endswith(NAMED)]


async def test_a_removed_package_is_not_looked_for_at_the_gateway(
    edge: ContentEdge, device: Any, site_db: Database
) -> None:
    async with edge.point.serving():
        await installs(edge, await device("d1"))
        async with site_db.transaction() as tx:
            assert await content_store.remove(tx, NAME, NAMED, edge.point.now())
            gateway = await store.gateway(tx, NAME)
            assert gateway is not None
            told = await contents.service(tx, gateway)
        assert told is not None
        assert told.dropped == {NAMED: 1}
        await edge.news(dropped=told.dropped)
        machine = await device("d2")
        await installs(edge, machine)
    assert not any(tunnel.CONTENT in line for line in log(machine, "ccmsetup"))


async def test_a_download_goes_on_at_the_gateway_after_it_was_killed(
    edge: ContentEdge, device: Any
) -> None:
    """What the device has it keeps; what the gateway has it keeps, too."""
    kills = [edge.restart_gateway]

    async def package(wanted: str) -> clients.Package:
        async def read(start: int, end: int) -> AsyncIterator[bytes]:
            for at in range(start, end, 100_000):
                if at > 2 * CHUNK + 200_000 and kills:
                    # Two chunks are on the gateway's disk, and with the device.
                    part = machine.state / "ccmsetup" / f"{wanted}.part"
                    while not part.exists() or part.stat().st_size < 2 * CHUNK:
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(kills.pop())
                yield PACKAGE[at : min(at + 100_000, end)]

        return clients.Package(len(PACKAGE), read)

    edge.point.package_of = package
    machine = await device("d1")
    async with edge.point.serving():
        await installs(edge, machine)
    resumed = [line for line in log(machine, "ccmsetup") if line.startswith("Resuming the")]
    assert len(resumed) <= 1  # Or it went on at the management point without an end between.


async def test_who_asks_proves_who_it_is(edge: ContentEdge, device: Any, site_db: Database) -> None:
    """A device to learn where content is; a gateway to get its key, or the content itself."""
    async with edge.point.serving(), edge.client() as web:
        path = f"/CCM_Proxy_ServerAuth/72057594037927941/CCM_Client/{NAMED}/location"
        assert (await web.get(path)).status_code == 401
        headers = {"Authorization": f"Bearer {edge.token()}"}
        assert (await web.get(path, headers=headers)).status_code == 401
    async with edge.point.serving(), net.client(ca_file=edge.point.folder / "ca.pem") as inside:
        base = f"https://localhost:{edge.point.port}{tunnel.ORIGIN}/{NAME}"
        # Who is no gateway gets neither key nor content, also within the walls.
        for proof in ("", "1.00", tunnel.prove("wrong id", "GET", f"/{NAMED}", b"", 0)):
            told = {tunnel.PROOF_HEADER: proof}
            assert (await inside.get(f"{base}/{NAMED}", headers=told)).status_code == 401
            asked = msgspec.json.encode(tunnel.KeyRequest(NAMED, 1))
            answer = await inside.post(f"{base}/key", content=asked, headers=told)
            assert answer.status_code == 401
