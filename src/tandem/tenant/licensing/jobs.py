"""Licences of large groups, worked through in the background."""

from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.jobs import Jobs
from tandem.tenant.licensing import service

_RUN = "licensing.run"


class Runs:
    """Takes runs a step at a time, each in a transaction of its own: a worker that dies loses one
    step, and the next goes on from there."""

    def __init__(self, database: Database, jobs: Jobs, now: Clock) -> None:
        self._database = database
        self._jobs = jobs
        self._now = now
        jobs.register(_RUN, self.work)

    async def later(self, tx: Tx, run_id: str) -> None:
        await self._jobs.defer(tx, _RUN, lock=_RUN, run_id=run_id)

    async def work(self, run_id: str) -> None:
        more = True
        while more:
            async with self._database.transaction() as tx:
                more = await service.advance(tx, run_id, self._now())
