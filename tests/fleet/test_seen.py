"""When a device was last seen: written into its row, whoever is making that anew meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tandem.infra.database import Database, Tx
from tandem.protocols import ccm
from tandem.site import clients, fleet
from tandem.site.clients import store

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


async def _seen_in_list(db: Database) -> datetime | None:
    async with db.transaction() as tx:
        found = await tx.execute("SELECT last_seen_at FROM fleet_device")
        row = await found.fetchone()
    return row["last_seen_at"] if row else None


async def _noted(tx: Tx) -> int:
    found = await tx.execute("SELECT count(*) AS n FROM fleet_changed")
    row = await found.fetchone()
    assert row is not None
    return int(row["n"])


@pytest.fixture
async def client_id(site_db: Database) -> str:
    client = clients.Client(
        clients.ClientId("GUID:1"), "t", "d1", "k1", "PC-1", "Linux", "6", "1", 3, False, NOW, NOW,
        None, 0, None, None,
    )  # fmt: skip
    async with site_db.transaction() as tx:
        await store.save_client(tx, client)
        await fleet.settle(tx)
    return client.id


async def test_a_check_in_makes_no_row_anew(site_db: Database, client_id: str) -> None:
    later = NOW + timedelta(hours=1)
    async with site_db.transaction() as tx:
        await store.mark_all_seen(tx, {client_id: later})
        assert await _noted(tx) == 0
    assert await _seen_in_list(site_db) == later


async def test_a_row_that_is_being_made_is_not_waited_for(
    site_db: Database, client_id: str
) -> None:
    later = NOW + timedelta(hours=1)
    async with site_db.transaction() as making:
        await making.execute("UPDATE fleet_device SET name = name")
        async with site_db.transaction() as tx:
            await asyncio.wait_for(store.mark_all_seen(tx, {client_id: later}), 5)
    async with site_db.transaction() as tx:
        assert await _noted(tx) == 1
        await fleet.settle(tx)
    assert await _seen_in_list(site_db) == later


async def test_who_makes_a_row_keeps_what_came_meanwhile(site_db: Database, client_id: str) -> None:
    """It read the client before, and writes after."""
    later = NOW + timedelta(hours=1)
    state = ccm.ComanagementState(1, False, False, 1)
    facts = clients.facts

    async def slow(tx: Tx, device_ids: list[str]) -> dict[str, clients.DeviceFacts]:
        found = await facts(tx, device_ids)
        async with site_db.transaction() as other:
            await store.mark_all_seen(other, {client_id: later})
        return found

    async with site_db.transaction() as tx:
        await store.save_state(tx, client_id, state, NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "facts", slow)
        async with site_db.transaction() as tx:
            assert await fleet.settle(tx) == 1
    assert await _seen_in_list(site_db) == later
