"""The site's list of devices is tended again after a round that failed in a way nobody foresaw."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from tandem.infra.database import Database
from tandem.site import fleet


async def test_the_list_is_tended_after_a_round_that_failed(site_db: Database) -> None:
    failed, done, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
    others: Any = None
    keeper = fleet.Keeper(site_db, others, lambda: datetime.now(UTC))
    tend = keeper.settle_all

    async def settled() -> None:
        try:
            await tend()
        except Exception:
            failed.set()
            raise
        done.set()

    keeper.settle_all = settled  # type: ignore[method-assign]
    async with site_db.transaction() as tx:
        await tx.execute("ALTER TABLE fleet_changed RENAME TO away")
    running = asyncio.create_task(keeper.run(stop, 0.01))
    async with asyncio.timeout(20):
        await failed.wait()
        async with site_db.transaction() as tx:
            await tx.execute("ALTER TABLE away RENAME TO fleet_changed")
        await done.wait()
        stop.set()
        await running
