"""What is deployed to users, from the site's collections through a gateway to the device on which they
are signed in, and away again when somebody else is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from joserfc import jwt

from edge_world import Edge, edge_of, now
from gateway.conftest import TENANT
from one_site import Bridge, Broker, Moment
from tandem.agent import Bootstrap, Client, Machine
from tandem.infra import net
from tandem.infra.database import Database, Tx
from tandem.protocols import ccm
from tandem.site import clients, collections, comanagement, deployments, settings
from tandem.site.collections import MemberType, WantedRule

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


class Tokens(Broker):
    """Tokens as a tenant makes them: the gateway reads them too."""

    edge: Edge

    async def device_token(self, authority: str, client_app_id: str, resource: str) -> str:
        return self.edge.token(deviceid=self.device, oid=f"o-{self.device}")

    async def user_token(self, authority: str, client_app_id: str, resource: str) -> str:
        return self.edge.token(deviceid=self.device, oid=f"o-{self.user}", idtyp="user")


@pytest.fixture
def moment() -> Moment:
    return now()


@pytest.fixture
async def edge(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[Edge]:
    async with edge_of(site_db, tmp_path, moment) as made:
        site = made.point

        async def verify(_: Tx, token: str) -> clients.TenantIdentity:
            claims = jwt.decode(token, made.tenant_key, algorithms=["RS256"]).claims
            kind = "user" if claims["idtyp"] == "user" else "device"
            return clients.TenantIdentity(TENANT, claims["deviceid"], kind, claims["oid"])

        async def of_user(
            tx: Tx, client: clients.Client, user: clients.TokenHolder
        ) -> list[ccm.Configuration]:
            plan = await comanagement.plan(tx)
            return await comanagement.content_of_user(
                tx, plan, client.id, user.tenant_id, user.object_id
            )

        site.verify_token = verify
        site.policy_of = comanagement.policy_content
        site.user_policy_of = of_user
        yield made


@pytest.fixture
async def machine(edge: Edge, tmp_path: Path, moment: Moment) -> AsyncIterator[Machine]:
    broker = Tokens(user="anna")
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


async def deployed(edge: Edge, moment: Moment) -> None:
    """The device has a colour; Anna has another, and a size."""
    told = {"actor": "siteadmin", "now": moment()}
    async with edge.point.db.transaction() as tx:
        for name in ("anna", "bert"):
            user = collections.UserResource(TENANT, f"o-{name}", f"{name}@contoso.com")
            await collections.upsert_user(tx, user, moment())
        made = await collections.create(
            tx,
            "CM1",
            "Painters",
            rules=[WantedRule("direct", user="anna@contoso.com")],
            type=MemberType.USER,
            **told,
        )
        for name, where, value, to in (
            ("Own", "Desk/Colour", "grey", "SMS00001"),
            ("Colour", "Desk/Colour", "blue", made.id),
            ("Size", "Desk/Size", "big", made.id),
            ("Bert's", "Desk/Chair", "red", "SMS00002"),
        ):
            await deployments.create(tx, name, setting=where, value=value, collection=to, **told)
        on = {"enable_user_policy": True, "enable_user_policy_from_internet": True}
        await settings.change_default(tx, on, **told)


async def polled(client: Client) -> dict[str, str]:
    """What is in force after a poll."""
    client.wake()
    await client.step()
    return {name: one.value for name, one in client.gate.applied.items()}


async def test_a_users_deployments_come_through_the_gateway_and_go_with_the_user(
    edge: Edge, machine: Machine, moment: Moment
) -> None:
    await deployed(edge, moment)
    broker = machine.directory
    assert isinstance(broker, Tokens)
    async with edge.point.serving():
        result = await Bootstrap(machine, edge.command_line).run(asyncio.Event())
        assert result.code == 0, result
        client = Client(machine)
        everybodys = {"Desk/Colour": "grey", "Desk/Chair": "red"}
        assert await polled(client) == {**everybodys, "Desk/Size": "big"}
        # What the gateway and the disk have of it cannot be read without the device's key.
        kept = (machine.state / "CCM" / "user-policy.json").read_bytes()
        assert b'"Desk' not in kept
        assert b"big" not in kept
        broker.user = "bert"
        assert await polled(client) == everybodys
        broker.user = "anna"
        assert (await polled(client))["Desk/Size"] == "big"
        # Taken back by the site.
        async with edge.point.db.transaction() as tx:
            await deployments.delete(tx, "Size", actor="siteadmin", now=moment())
        assert await polled(client) == everybodys
        # Switched off.
        async with edge.point.db.transaction() as tx:
            off = {"enable_user_policy_from_internet": False}
            await settings.change_default(tx, off, actor="siteadmin", now=moment())
        assert await polled(client) == {"Desk/Colour": "grey"}
        found = await _state(edge, client)
        assert (found.user, set(found.applied)) == ("", {"Desk/Colour"})
    lines = client.gate.ledger._path.read_text().splitlines()
    said = [(one.kind, one.setting) for one in map(ccm.read_entry, lines) if one.setting]
    assert said.count(("write", "Desk/Size")) == said.count(("remove", "Desk/Size")) == 2
    assert said.count(("write", "Desk/Colour")) == 1


async def _state(edge: Edge, client: Client) -> ccm.ComanagementState:
    async with edge.point.db.transaction() as tx:
        found = await clients.find(tx, clients.ClientId(client.client_id))
    assert found.state is not None
    return found.state
