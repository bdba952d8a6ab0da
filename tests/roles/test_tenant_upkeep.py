"""The tenant's background work goes on after a round that failed in a way nobody foresaw."""

import asyncio
from pathlib import Path

import pytest

from mdm_world import mdm_service
from tandem.infra.database import Database, Tx
from tandem.roles import tenant


async def test_orders_are_tended_again_after_a_round_that_failed(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, done, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(tenant, "_ORDERS_SECONDS", 0.01)
    async with mdm_service(tenant_db, tmp_path) as mdm:
        tend = mdm.sessions.tend

        async def seen(tx: Tx) -> int:
            try:
                moved = await tend(tx)
            except Exception:
                failed.set()
                raise
            done.set()
            return moved

        monkeypatch.setattr(mdm.sessions, "tend", seen)
        async with tenant_db.transaction() as tx:
            await tx.execute("ALTER TABLE sessions_order RENAME TO away")
        tending = asyncio.create_task(tenant._tend_orders(tenant_db, mdm.sessions, stop))
        await asyncio.wait_for(failed.wait(), 10)
        async with tenant_db.transaction() as tx:
            await tx.execute("ALTER TABLE away RENAME TO sessions_order")
        await asyncio.wait_for(done.wait(), 10)
        stop.set()
        await tending
