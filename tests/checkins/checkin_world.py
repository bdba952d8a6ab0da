"""Two management points on one site database, each with a memory of check-ins, and their devices."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from one_site import TENANT, Moment, verify_token
from tandem import pki
from tandem.infra import http
from tandem.infra.database import Database, Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm
from tandem.site import clients, collections, comanagement, deployments, properties, settings
from tandem.workloads import Position, Workload

PATH = "/SMS_MP/.sms_pol"
Policy = Callable[[Tx, clients.Client], Awaitable[ccm.PolicyContent]]


@dataclass
class Device:
    world: "World"
    name: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    client_id: str = ""
    token: str = ""
    etag: str = ""

    async def registers(self) -> None:
        bearer = f"device:{self.name}"
        proof = ccm.key_proof(self.key, bearer, self.world.now(), secrets.token_urlsafe(18))
        answer = await self.world.webs[0].post(
            "/CCM_STS",
            json={"key": pki.public_jwk(self.key), "proof": proof},
            headers={"Authorization": f"Bearer {bearer}"},
        )
        self.token = answer.json()["access_token"]
        wanted = {
            "site_code": "CM1",
            "name": self.name,
            "key": pki.public_jwk(self.key),
            "client_version": "1",
        }
        path = "/ccm_system_tokenauth/request"
        request = httpx.Request("POST", "https://site" + path, json=wanted)
        headers = self.signed("POST", path, request.content)
        answer = await self.world.webs[0].post(path, content=request.content, headers=headers)
        self.client_id = answer.json()["client_id"]

    def signed(self, method: str, path: str, body: bytes = b"", **changes: Any) -> dict[str, str]:
        given = {
            "method": method,
            "target": path,
            "body": body,
            "client_id": self.client_id,
            "now": self.world.now(),
            "nonce": secrets.token_urlsafe(18),
            **changes,
        }
        signature = ccm.sign_request(self.key, **given)
        return {**signature, "Authorization": f"Bearer {self.token}"}

    async def asks(self, at: int = 0, headers: dict[str, str] | None = None) -> httpx.Response:
        """For news, as a device does that has what it was told last."""
        sent = headers or self.signed("GET", PATH)
        if self.etag and "If-None-Match" not in sent:
            sent = {**sent, "If-None-Match": self.etag}
        answer = await self.world.webs[at].get(PATH, headers=sent)
        if answer.status_code in (200, 304):
            self.etag = answer.headers["etag"]
        return answer

    async def settled(self, at: int = 0) -> None:
        """The management point knows that this device has its policy."""
        await self.asks(at)
        assert (await self.asks(at)).status_code == 304


class World:
    def __init__(self, db: Database, folder: Path, now: Moment) -> None:
        self.db, self.now = db, now
        root = pki.new_root(pki.name("SMS Issuing"), now=now())
        key = pki.generate_key("p256")
        name = pki.name("Site Server Signing")
        signer = root.issue(key.public_key(), name, now=now(), days=365, usages=["code"])
        self.root = root.certificate
        identity = ccm.SigningIdentity(key, signer, root.certificate)
        # How often a policy was computed.
        self.computed = 0

        def policy_by(memory: clients.CheckIns) -> Policy:
            async def policy(tx: Tx, client: clients.Client) -> ccm.PolicyContent:
                self.computed += 1
                plan = await memory.shared(lambda: comanagement.plan(tx))
                return await comanagement.content_of(tx, plan, client.id, client.registered_at)

            return policy

        async def signing(tx: Tx) -> ccm.SigningIdentity:
            return identity

        async def none(tx: Tx) -> Any:
            return None

        async def package(sha256: str) -> None:
            return None

        def point(policy: Policy) -> clients.ManagementPointService:
            with_ = clients.Collaborators(verify_token, policy, signing, none, none, package)
            return clients.ManagementPointService("CM1", self.box, with_, now=now)

        self.box = SecretBox.open(folder / "keys" / "box")
        self.memories = [clients.CheckIns(db, now=now) for _ in range(2)]
        self.points = [point(policy_by(memory)) for memory in self.memories]
        # Computes, and remembers nothing.
        self.afresh = point(lambda tx, client: comanagement.policy_content(tx, client.id))
        self.apps = apps = [
            memory.before(http.application(clients.routes(db, point, memory), role="site"))
            for point, memory in zip(self.points, self.memories, strict=True)
        ]
        self.webs = [
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://site")
            for app in apps
        ]

    async def listening(self) -> None:
        """Both memories hear of changes."""
        while not all(memory.hears for memory in self.memories):
            await asyncio.sleep(0.002)

    async def device(self, name: str) -> Device:
        made = Device(self, name)
        await made.registers()
        return made

    async def etag_now(self, device: Device) -> str:
        """What computing says, and leaves no trace."""
        async with self.db.transaction() as tx:
            client = await clients.find(tx, device.client_id)
            key = pki.public_jwk(device.key)
            found = (await self.afresh.policy(tx, client, key, "")).etag
            await tx.rollback()
        return found

    # What an administrator does, each committed.

    async def sets(self, minutes: int) -> None:
        async with self.db.transaction() as tx:
            wanted = {"policy_polling_minutes": minutes}
            await settings.change_default(tx, wanted, actor="a", now=self.now())

    async def settles(self, name: str, minutes: int, to: str) -> None:
        """Custom client settings for a collection, in front of all others."""
        async with self.db.transaction() as tx:
            wanted = {"policy_polling_minutes": minutes}
            made = await settings.create(tx, name, wanted=wanted, actor="a", now=self.now())
            await settings.deploy(tx, made.id, to, actor="a", now=self.now())
            await settings.prioritize(tx, made.id, 1, actor="a", now=self.now())

    async def resets(self, name: str, what: str, *given: Any) -> None:
        """`what` of the client settings of this name is changed."""
        async with self.db.transaction() as tx:
            found = await settings.find(tx, name)
            match what:
                case "minutes":
                    wanted = {"policy_polling_minutes": given[0]}
                    await settings.change(tx, found.id, wanted=wanted, actor="a", now=self.now())
                case "priority":
                    await settings.prioritize(tx, found.id, given[0], actor="a", now=self.now())
                case "withdraw":
                    await settings.withdraw(tx, found.id, given[0], actor="a", now=self.now())
                case "delete":
                    await settings.delete(tx, found.id, actor="a", now=self.now())

    async def enables(self) -> None:
        async def host(tx: Tx) -> str:
            return "gateway.contoso.com"

        async def tenant(tx: Tx) -> str:
            return TENANT

        async def agrees(tx: Tx, token: str) -> None:
            return None

        async with self.db.transaction() as tx:
            await properties.establish(tx, self.box, code="CM1", name="Contoso", now=self.now())
            await comanagement.enable(
                tx,
                comanagement.Collaborators(host, tenant, agrees),
                auto_enroll=comanagement.AutoEnroll.ALL,
                access_token="t",
                actor="a",
                now=self.now(),
            )

    async def switches(self, workload: Workload, position: Position, pilot: str = "") -> None:
        async with self.db.transaction() as tx:
            await comanagement.switch(
                tx, workload, position, collection=pilot, actor="a", now=self.now()
            )

    async def collects(self, name: str, query: str = "", limiting: str = "SMS00001") -> str:
        async with self.db.transaction() as tx:
            made = await collections.create(
                tx, "CM1", name, query=query, limiting=limiting, actor="a", now=self.now()
            )
        return made.id

    async def deploys(self, name: str, to: str) -> None:
        async with self.db.transaction() as tx:
            await deployments.create(
                tx,
                name,
                setting=f"Demo/{name}",
                value="1",
                collection=to,
                actor="a",
                now=self.now(),
            )

    async def withdraws(self, name: str) -> None:
        async with self.db.transaction() as tx:
            await deployments.delete(tx, name, actor="a", now=self.now())

    async def blocks(self, device: Device, blocked: bool = True) -> None:
        async with self.db.transaction() as tx:
            act = clients.block if blocked else clients.unblock
            await act(tx, device.client_id, actor="a", now=self.now())

    async def reports(self, device: Device, build: str) -> None:
        """A device says which build it has."""
        of = next(c for c in collections.HARDWARE if c.name.endswith("OPERATING_SYSTEM"))
        async with self.db.transaction() as tx:
            rows = [{"BuildNumber": build}]
            await collections.report(tx, device.client_id, of, rows, self.now())

    async def cuts_the_line(self) -> None:
        """Who listens is thrown out by the database."""
        async with self.db.transaction() as tx:
            await tx.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND (query = '' OR query LIKE 'LISTEN%')"
            )


@asynccontextmanager
async def world_of(db: Database, folder: Path, now: Moment | None = None) -> AsyncIterator[World]:
    made = World(db, folder, now or Moment())
    stop = asyncio.Event()
    running = [asyncio.create_task(memory.run(stop)) for memory in made.memories]
    try:
        await made.listening()
        yield made
    finally:
        stop.set()
        for task in running:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for web in made.webs:
            await web.aclose()
