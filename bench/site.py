"""Collections of a site under load: 1,000 incremental query collections of 100,000 devices.

Devices with 22 attributes of hardware inventory, and collections with one query each, are loaded by
SQL into the embedded PostgreSQL. A quarter of the queries each: equality, the beginning of a name,
two classes joined, and the end of a text, which no index helps. The evaluator runs as the site's
role runs it, here in the process that measures. Times are from the commit of a change until nothing
waits any more; then what is kept of the changed devices is compared with what the rules say.
"""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench.figures import Figure, Outcome, machine
from tandem.infra.database import Database, Embedded, migrate
from tandem.site import collections
from tandem.site.collections import Resource

DEVICES, COLLECTIONS, CHANGED, ROUNDS = 100_000, 1_000, 1_000, 3


def run() -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        embedded = Embedded.start(Path(folder) / "pg")
        stack.callback(embedded.stop)
        dsn = embedded.dsn("site")
        migrate(dsn, "site")
        with psycopg.connect(dsn) as connection:
            for statement in _LOAD.split(";\n"):
                if statement.strip():
                    connection.execute(statement.replace(":devices", str(DEVICES)).encode())
            _collections(connection)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        figures = asyncio.run(_measure(dsn))
    return Outcome(
        machine(),
        f"{DEVICES:,} devices, {COLLECTIONS:,} incremental query collections of 1 % each,"
        " embedded PostgreSQL",
        figures,
    )


def _collections(connection: psycopg.Connection[Any]) -> None:
    for number in range(COLLECTIONS):
        id, value = f"BEN{number:05X}", number // 4 % 100
        connection.execute(
            "INSERT INTO collections_collection (id, name, comment, limiting_id, created_at)"
            " VALUES (%s, %s, '', 'SMS00001', now())",
            (id, f"Bench {number}"),
        )
        connection.execute(
            "INSERT INTO collections_rule (collection_id, kind, name, query)"
            " VALUES (%s, 'query', 'q', %s)",
            (id, _QUERIES[number % 4].format(value=value, half=value // 2, parity=value % 2)),
        )


def _joined(*classes: str) -> str:
    return "select * from SMS_R_System" + "".join(
        f" inner join SMS_G_System_{name} on SMS_G_System_{name}.ResourceID = SMS_R_System.ResourceId"
        for name in classes
    )


_QUERIES = (
    _joined("COMPUTER_SYSTEM") + " where Model = 'Model {value:02}'",
    "select * from SMS_R_System where Name like 'D{value:02}-%'",
    _joined("PC_BIOS", "PROCESSOR")
    + " where SMBIOSBIOSVersion = 'B{half:02}' and NumberOfCores = {parity}",
    _joined("OPERATING_SYSTEM") + " where BuildNumber like '%-{value:02}'",
)
# Of each device g: one of a hundred models, names and builds, one of fifty versions of two cores each.
_LOAD = """
INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name, os_version,
    client_version, discovered_at)
    SELECT 'GUID:' || g, 'D' || lpad((g % 100)::text, 2, '0') || '-' || g, 't', g::text, 'Linux',
        '6.12', '0.1', now() FROM generate_series(0, :devices - 1) g;
INSERT INTO collections_inventory (resource_id, class, instance, properties, folded, reported_at)
    SELECT r.id, 'sms_g_system_' || c.class, c.instance, c.said, lower(c.said::text)::jsonb, now()
    FROM collections_resource r, LATERAL (SELECT r.device_id::bigint AS g) d,
    LATERAL (SELECT lpad((g % 100)::text, 2, '0') AS h) e, LATERAL (VALUES
        ('operating_system', 1, jsonb_build_object('Caption', 'Debian GNU/Linux 13', 'Version', '13',
            'BuildNumber', '6.12.9-' || h, 'TotalVisibleMemorySize', 8000000 + g % 7 * 1000000)),
        ('computer_system', 1, jsonb_build_object('Name', r.name, 'Manufacturer', 'Maker ' || g % 9,
            'Model', 'Model ' || h, 'NumberOfProcessors', 1 + g % 2)),
        ('processor', 1, jsonb_build_object('DeviceID', 'CPU0', 'Name', 'Processor ' || g % 40,
            'Manufacturer', 'GenuineIntel', 'NumberOfCores', g % 2,
            'NumberOfLogicalProcessors', 2 + g % 2)),
        ('x86_pc_memory', 1, jsonb_build_object('TotalPhysicalMemory', 8000000 + g % 7 * 1000000)),
        ('pc_bios', 1, jsonb_build_object('Manufacturer', 'Maker ' || g % 9, 'SMBIOSBIOSVersion',
            'B' || lpad((g % 100 / 2)::text, 2, '0'), 'ReleaseDate', '01/01/2026', 'SerialNumber',
            'S' || g)),
        ('logical_disk', 1, jsonb_build_object('DeviceID', '/', 'FileSystem', 'ext4', 'Size',
            100000 + g % 50)),
        ('network_adapter', 1, jsonb_build_object('Name', 'enp1s0', 'MACAddress', md5(g::text)))
    ) c (class, instance, said);
DELETE FROM collections_changed;
"""


async def _measure(dsn: str) -> list[Figure]:
    database = await Database.open(dsn)
    stop = asyncio.Event()
    evaluator = collections.Evaluator(database, lambda: datetime.now(UTC))
    running = asyncio.create_task(evaluator.run(stop))
    try:
        bench = _Bench(database)
        await bench.settled()  # The first evaluation of all, which is not counted.
        one = [await bench.change([place]) for place in range(ROUNDS)]
        many = [
            await bench.change(list(range(1_000 * (1 + place), 1_000 * (1 + place) + CHANGED)))
            for place in range(ROUNDS)
        ]
        full = await bench.all_anew()
    finally:
        stop.set()
        await running
        await database.close()
    return [
        Figure(
            "a changed device, right in all collections, worst of 3", max(one), "s", reach="<= 5"
        ),
        Figure("1,000 changed devices, the same", max(many), "s", reach="<= 15"),
        Figure("full evaluation of all collections", full, "s", reach="<= 60"),
    ]


class _Bench:
    def __init__(self, database: Database) -> None:
        self._db = database

    async def settled(self) -> None:
        """Until no device and no collection waits."""
        while True:
            async with self._db.transaction() as tx:
                if await collections.waiting(tx, datetime.now(UTC)) == (0, 0):
                    return
            await asyncio.sleep(0.05)

    async def change(self, devices: list[int]) -> float:
        """Give devices another name, model, firmware and system, each by what is reported."""
        by_name = {of.name.rpartition("System_")[2]: of for of in collections.HARDWARE}
        async with self._db.transaction() as tx:
            now = datetime.now(UTC)
            for g in devices:
                h, client = (g * 7 + 13) % 100, f"GUID:{g}"
                name = f"D{h:02}-{g}"
                await collections.upsert_resource(
                    tx, Resource(client, name, "t", str(g), "Linux", "6.12", "0.1"), now
                )
                said: tuple[tuple[str, dict[str, str | int]], ...] = (
                    ("COMPUTER_SYSTEM", {"Name": name, "Model": f"Model {h:02}"}),
                    ("PC_BIOS", {"SMBIOSBIOSVersion": f"B{h // 2:02}"}),
                    ("PROCESSOR", {"DeviceID": "CPU0", "NumberOfCores": h % 2}),
                    ("OPERATING_SYSTEM", {"BuildNumber": f"6.12.10-{h:02}"}),
                )
                for of, row in said:
                    await collections.report(tx, client, by_name[of], [row], now)
        began = time.perf_counter()
        await self.settled()
        took = time.perf_counter() - began
        await self._check(devices)
        return round(took, 2)

    async def _check(self, devices: list[int]) -> None:
        """Raises AssertionError when what is kept of a device is not what the rules say."""
        async with self._db.transaction() as tx:
            ids = [item.id for item in await collections.collections(tx)]
            ids.remove(collections.ALL_SYSTEMS)
            for g in devices[:20]:
                of = await collections.resource_of(tx, f"GUID:{g}")
                kept = await tx.execute(
                    "SELECT collection_id FROM collections_member WHERE resource_id = %s", (of.id,)
                )
                found = {row["collection_id"] async for row in kept}
                assert found == await collections.memberships(tx, ids, of.id), g
                assert found

    async def all_anew(self) -> float:
        async with self._db.transaction() as tx:
            await tx.execute("UPDATE collections_collection SET full_due_at = now()")
        began = time.perf_counter()
        await self.settled()
        took = time.perf_counter() - began
        async with self._db.transaction() as tx:
            row = await (
                await tx.execute("SELECT count(*) AS n FROM collections_member")
            ).fetchone()
        assert row is not None
        assert row["n"] > DEVICES * COLLECTIONS * 0.009
        return round(took, 1)
