"""What a device takes in the site's database, with its inventory and 30 days of what it reports.

The month is written by the management point's own code, on the embedded PostgreSQL: each day a report of a
changed state, one changed class of inventory, a client check, and two entries of the ledger; each week a
heartbeat with all of the inventory; every third day a new policy. Then the site runs until it is at rest, so
the device list and the members of collections are there, too. The figure is the growth of all tables with
their indexes and large values (`pg_total_relation_size`), divided by the devices.
"""

import asyncio
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec

from bench.figures import Figure, Outcome, machine
from bench.registered import STATE, TENANT, Registered
from tandem import pki
from tandem.infra.database import Database, Tx
from tandem.protocols import ccm
from tandem.site import clients, comanagement, properties
from tandem.site.clients.model import TokenHolder
from tandem.site.clients.service import Caller

DEVICES, DAYS = 200, 30


def run() -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        figures = _measure(Registered(Path(folder), stack, DEVICES))
    return Outcome(
        machine(), f"{DEVICES} registered devices, {DAYS} days, embedded PostgreSQL", figures
    )


def _measure(site: Registered) -> list[Figure]:
    site.migrate()
    before = _sizes(site.dsn)
    site.prepare()
    asyncio.run(_Month(site).pass_())
    site.serve()
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    grown = {
        name: (size - before.get(name, 0)) / DEVICES / 1000
        for name, size in _sizes(site.dsn).items()
    }
    largest = sorted(grown.items(), key=lambda one: -one[1])[:6]
    return [
        Figure("database for each device", round(sum(grown.values()), 1), "KB", reach="<= 200"),
        *(Figure(f"of it {name}", round(size, 1), "KB") for name, size in largest),
    ]


def _sizes(dsn: str) -> dict[str, int]:
    """Bytes of each table; partitions count as their table."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT coalesce(i.inhparent, c.oid)::regclass::text, sum(pg_total_relation_size(c.oid))"
            " FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY 1"
        ).fetchall()
    return {name: int(size) for name, size in found}


class _Month:
    def __init__(self, site: Registered) -> None:
        self.site = site
        self.now = datetime.now(UTC) - timedelta(days=DAYS)
        self.ledgers: dict[str, tuple[int, str]] = {}

    async def pass_(self) -> None:
        database = await Database.open(self.site.dsn)
        try:
            async with database.transaction() as tx:
                self.identity = await properties.signing_identity(tx, self.site.box)
            point = self._point()
            devices = [self._device(line) for line in self.site.file.read_text().splitlines()]
            for day in range(DAYS):
                self.now += timedelta(days=1)
                for place, (id, key) in enumerate(devices):
                    async with database.transaction() as tx:
                        await self._day(tx, point, id, key, place, day)
                async with database.transaction() as tx:
                    await tx.execute("DELETE FROM clients_nonce")
        finally:
            await database.close()

    def _point(self) -> clients.ManagementPointService:
        async def signing(tx: Tx) -> ccm.SigningIdentity:
            return self.identity

        async def nothing(*_: Any) -> Any:
            return None

        async def policy(tx: Tx, client: clients.Client) -> ccm.PolicyContent:
            return await comanagement.policy_content(tx, client.id)

        with_ = clients.Collaborators(nothing, policy, signing, nothing, nothing, nothing)
        return clients.ManagementPointService("CM1", self.site.box, with_, now=lambda: self.now)

    def _device(self, line: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
        id, _, secret = line.split()[:3]
        return id, ec.derive_private_key(int(secret, 16), ec.SECP256R1())

    async def _day(
        self,
        tx: Tx,
        point: clients.ManagementPointService,
        id: str,
        key: ec.EllipticCurvePrivateKey,
        place: int,
        day: int,
    ) -> None:
        client = await clients.find(tx, id)
        holder = TokenHolder(
            TENANT, client.device_id, "device", "", client.thumbprint, pki.public_jwk(key), 0
        )
        said = {**STATE, "policy_version": day, "effects": {"day": str(day)}}
        build: dict[str, Any] = {
            "SMS_G_System_OPERATING_SYSTEM": [
                {
                    "Caption": "Debian GNU/Linux 13",
                    "Version": "13",
                    "BuildNumber": f"6.12.{day}",
                    "TotalVisibleMemorySize": 8_000_000,
                }
            ]
        }
        whole = {
            f"SMS_G_System_{name}": [{"Manufacturer": "Maker", "Name": "A name of some length"}]
            for name in ("COMPUTER_SYSTEM", "PROCESSOR", "PC_BIOS", "LOGICAL_DISK")
        }
        messages = [
            (ccm.COMANAGEMENT_TOPIC, 100, said),
            (ccm.INVENTORY_TOPIC, 1, {"classes": build}),
            (ccm.FRAMEWORK_TOPIC, 1, {}),
            (ccm.LEDGER_TOPIC, 1, msgspec.to_builtins(self._ledger(id, key))),
        ]
        if day % 7 == place % 7:
            messages.append((ccm.HEARTBEAT_TOPIC, 1, {"name": client.name}))
            messages.append((ccm.INVENTORY_TOPIC, 1, {"classes": {**whole, **build}}))
        told = [
            ccm.Message(f"{day:016x}{n:016x}", topic, state, self.now, data)
            for n, (topic, state, data) in enumerate(messages)
        ]
        await point.receive(tx, Caller(holder, client), told)
        if day % 3 == place % 3:
            await point.policy(tx, client, holder.key, "")

    def _ledger(self, id: str, key: ec.EllipticCurvePrivateKey) -> ccm.LedgerPart:
        number, previous = self.ledgers.get(id, (0, ccm.GENESIS))
        entries = []
        for _ in range(2):
            number += 1
            begins = number == 1
            entry = ccm.LedgerEntry(
                number,
                self.now,
                previous,
                "begin" if begins else "write",
                "" if begins else "device-configuration",
                "" if begins else "site",
                "" if begins else "Demo/Setting1",
                "" if begins else "0" * 64,
            )
            entries.append(ccm.sign_entry(entry, key))
            previous = ccm.entry_digest(entries[-1])
        self.ledgers[id] = number, previous
        return ccm.LedgerPart(entries)
