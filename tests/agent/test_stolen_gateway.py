"""A stolen gateway gets nowhere: it may drop what passes, and that is noticed."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from starlette.responses import Response

from device_caller import Caller
from edge_world import JoinedBroker, edge_of, now
from gateway.conftest import BASE
from one_site import Bridge, Moment, enrolled, log
from stolen_gateway import Stolen, stolen
from tandem import pki
from tandem.agent import Bootstrap, Client, Machine
from tandem.infra import net
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Authority, Workload, capabilities

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

POLICY = "/SMS_MP/.sms_pol"
WORKLOAD = Workload.DEVICE_CONFIGURATION


@pytest.fixture
def moment() -> Moment:
    return now()


@pytest.fixture
async def thief(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[Stolen]:
    async with edge_of(site_db, tmp_path, moment) as edge, edge.point.serving():
        async with stolen(edge) as made:
            yield made


@pytest.fixture
async def machine(thief: Stolen, tmp_path: Path, moment: Moment) -> AsyncIterator[Machine]:
    """A device that is set up through the stolen gateway: nothing tells it apart."""
    edge = thief.edge
    broker = JoinedBroker()
    broker.edge = edge
    edge.point.content = content([])
    async with net.client(ca_file=edge.folder / "public.pem", timeout=10) as web:
        made = Machine(
            state=tmp_path / "device",
            name="LAB-001",
            mdm=Bridge(),
            directory=broker,
            http=web,
            trusted_root=edge.point.root.certificate,
            minute_seconds=0.02,
            now=moment,
        )
        result = await Bootstrap(made, edge.command_line).run(asyncio.Event())
        assert result.code == 0, result
        yield made


def content(moved: list[Workload]) -> ccm.PolicyContent:
    policy = ccm.ConfigurationPolicy(
        "ScopeId_1/ConfigurationPolicy_1",
        "CoMgmtSettingsProd",
        3,
        "production",
        allow=True,
        auto_enroll=False,
        capabilities=capabilities(moved),
    )
    return ccm.PolicyContent(configuration_policies=[policy])


def code(answer: tuple[int, dict[str, str], bytes]) -> str:
    return f"{answer[0]} {json.loads(answer[2])['error']['code']}"


async def test_what_it_saw_and_what_it_makes_up_authorise_nothing(
    thief: Stolen, machine: Machine, moment: Moment
) -> None:
    """The identity header, tokens and whole requests that passed it, and its own signatures."""
    client = Client(machine)
    await client.step()
    assert client.client_id
    point = thief.edge.point
    before = await everything(point.db)
    # Its word about who asks.
    for target, method in (
        (POLICY, "GET"),
        ("/ccm_incoming", "POST"),
        ("/ccm_system/request", "POST"),
    ):
        named = {"cmg-client-identity": client.client_id, "ccm-client": client.client_id}
        answer = await thief.send(method, BASE + target, named)
        assert answer[0] in {401, 404}, answer
    assert code(await thief.send("GET", BASE + POLICY, named)) == "401 client.bad-token"
    # A request that it saw, again: as it was, with another body, to another address.
    taken = thief.signed()
    assert {one.method for one in taken} == {"GET", "POST"}
    for one in taken:
        again = await thief.send(one.method, one.target, one.headers, one.body)
        assert again[0] == 401, (one.target, again)
        assert code(again) == "401 client.replayed", one.target
    posted = next(one for one in taken if one.target.endswith("/ccm_incoming"))
    fresh = {**posted.headers, "ccm-nonce": "n" * 24}
    for headers, body in ((fresh, posted.body), (posted.headers, posted.body + b" ")):
        answer = await thief.send("POST", posted.target, headers, body)
        assert code(answer) == "401 client.bad-signature"
    got = next(one for one in taken if POLICY in one.target)
    answer = await thief.send("GET", got.target.partition("?")[0] + "?user", got.headers)
    assert code(answer) == "401 client.bad-signature"
    # A token that it saw, with signatures by a key of its own; and the directory's token, exchanged.
    async with net.client(ca_file=point.folder / "ca.pem", timeout=5) as near:
        own = Caller(point, near)
        own.token, own.client_id = got.headers["authorization"].partition(" ")[2], client.client_id
        answer = await thief.send("GET", BASE + POLICY, own.sign("GET", POLICY, b""))
        assert code(answer) == "401 client.bad-signature"
    (exchanged,) = [one for one in thief.seen if one.target.endswith("/CCM_STS")][:1]
    again = await thief.send("POST", exchanged.target, exchanged.headers, exchanged.body)
    assert code(again) == "401 client.replayed"
    mine = {**json.loads(exchanged.body), "key": pki.public_jwk(own.key)}
    answer = await thief.send(
        "POST", exchanged.target, exchanged.headers, msgspec.json.encode(mine)
    )
    assert code(answer) == "401 client.bad-signature"
    assert await everything(point.db) == before


async def everything(db: Database) -> tuple[object, ...]:
    """What the site knows of its clients."""
    async with db.transaction() as tx:
        (summary,) = await clients.list_clients(tx)
        found = await clients.find(tx, summary.id)
        told = await clients.timeline(tx, found.tenant_id, found.device_id, limit=1000)
    return found, told


INSIDE = [
    "/SMS_CMG/connector/configuration",
    "/api/v1/clients",
    "/SMS_MP/../SMS_CMG/connector/configuration",
    f"{BASE}/SMS_MP/../../SMS_CMG/connector/configuration",
    f"{BASE}/SMS_MP/%2e%2e/SMS_CMG/connector/configuration",
    f"{BASE}/SMS_CMG/connector/configuration",
    f"{BASE}/../api/v1/clients",
    "https://localhost/api/v1/clients",
]


async def test_it_reaches_nothing_else_inside_and_learns_no_secret(
    thief: Stolen, machine: Machine
) -> None:
    for target in INSIDE:
        status, _, body = await thief.send("GET", target)
        assert status in {0, 400, 403, 404, 502}, (target, status)
        assert b"connection_point" not in body
        assert b'"clients"' not in body
    smuggled = (
        f"POST {BASE}/ccm_incoming HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n"
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/clients HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    status, _, body = await thief.raw(smuggled.encode())
    assert status in {0, 400, 401}
    assert b'"clients"' not in body
    told = json.loads(thief.configuration)
    assert not [key for one in told["tenants"] for key in one["jwks"]["keys"] if "d" in key]
    assert not [key for key in told["site_token_keys"]["keys"] if "d" in key]
    assert b"PRIVATE" not in thief.configuration
    # Where the published addresses lead is not for it to know.
    assert str(thief.edge.point.port).encode() not in thief.configuration.replace(
        thief.edge.authority.encode(), b""
    )


async def test_policy_that_it_alters_replays_or_withholds_moves_nothing(
    thief: Stolen, machine: Machine, moment: Moment
) -> None:
    enrolled(machine)
    point = thief.edge.point
    client = Client(machine)
    await client.step()
    assert client.policy
    assert client.gate.owner(WORKLOAD) is Authority.SITE
    old = client.policy

    async def polls(hours: float = 1) -> list[str]:
        """What the agent's log says of it."""
        before = len(log(machine, "PolicyAgent"))
        moment.passes(hours=hours)
        client.wake()
        await client.step()
        return log(machine, "PolicyAgent")[before:]

    def altered(seen: object) -> Response | None:
        if POLICY not in seen.target or not seen.answer:  # type: ignore[attr-defined]
            return None
        head, body, signature = seen.answer.decode().split(".")  # type: ignore[attr-defined]
        return Response(f"{head}.{body[:-8]}{body[-8:].swapcase()}.{signature}")

    point.content = content([WORKLOAD])
    thief.alter = altered
    assert any("policy" in line.lower() for line in await polls())
    assert client.policy == old
    # The site's answer for this device arrives, and is the last that does.
    thief.alter = lambda seen: None
    await polls()
    assert client.gate.owner(WORKLOAD) is Authority.MDM
    newer = client.policy
    older = ccm.seal("policy", old, point.identity)
    thief.alter = lambda seen: Response(older) if POLICY in seen.target else None
    await polls()
    assert client.policy == newer
    thief.alter = lambda seen: Response(status_code=304) if POLICY in seen.target else None
    assert not any("expired" in line for line in await polls())
    assert any("expired" in line for line in await polls(hours=8 * 24))
    # It stays as the site said last, here and to the MDM service, and the site is told as soon as
    # anything of the device's comes through.
    assert client.gate.owner(WORKLOAD) is Authority.MDM
    assert machine.mdm.info.policy is False  # type: ignore[attr-defined]
    async with point.db.transaction() as tx:
        found = await clients.find(tx, client.client_id)
        told = await clients.timeline(tx, found.tenant_id, found.device_id)
    assert (ccm.FRAMEWORK_TOPIC, 2) in [(entry.topic, entry.state) for entry in told]
