"""Background work by Procrastinate, in the same database as the change that causes it.

Schedules are rows of the modules that own them; one tick task looks at them. A job is deferred in
the caller's transaction: it exists if and only if the change does.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import procrastinate
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx

Work = Callable[..., Awaitable[Any]]

# A worker that gave no sign of life for so long is dead; what it had begun is begun again.
_DEAD_AFTER_SECONDS = 30.0


class Jobs:
    """The jobs of one database. Modules register work by name; one worker runs in the role."""

    def __init__(self, dsn: str) -> None:
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=dsn, min_size=1, max_size=3)
        )

    def register(self, name: str, work: Work) -> None:
        """Name a piece of work. Its arguments are JSON."""
        self._app.task(name=name, pass_context=False)(work)

    async def defer(
        self, tx: Tx, name: str, /, *, lock: str | None = None, **arguments: Any
    ) -> int:
        """Ask for the work in this transaction. The same `lock` is never run twice at once."""
        deferrer = self._app.configure_task(name, lock=lock, connection=tx)
        return int(await deferrer.defer_async(**arguments))

    async def is_open(self, tx: Tx, name: str, /, **arguments: Any) -> bool:
        """Whether this work with these arguments waits or is under way."""
        found = await tx.execute(
            "SELECT FROM procrastinate_jobs WHERE task_name = %s AND args @> %s"
            " AND status IN ('todo', 'doing') LIMIT 1",
            (name, Jsonb(arguments)),
        )
        return await found.fetchone() is not None

    async def run(self, stop: asyncio.Event, concurrency: int = 4) -> None:
        """Work until `stop` is set; what has begun is finished."""
        async with self._app.open_async():
            worker = asyncio.create_task(
                self._app.run_worker_async(
                    concurrency=concurrency,
                    install_signal_handlers=False,
                    wait=True,
                    shutdown_graceful_timeout=5,
                )
            )
            others = asyncio.create_task(self._take_over(stop))
            await stop.wait()
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
            await others

    async def _take_over(self, stop: asyncio.Event) -> None:
        """Jobs of a process that was killed would stay begun, and keep their locks, for ever."""
        while not stop.is_set():
            manager = self._app.job_manager
            for job in await manager.get_stalled_jobs(seconds_since_heartbeat=_DEAD_AFTER_SECONDS):
                await manager.retry_job(job)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DEAD_AFTER_SECONDS):
                    await stop.wait()
