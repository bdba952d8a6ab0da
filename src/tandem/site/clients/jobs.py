"""Background work: forgetting nonces, and records that were superseded."""

from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.jobs import Jobs
from tandem.site.clients import service

FORGET_NONCES = "clients.forget-nonces"


def register(jobs: Jobs, db: Database, *, now: Clock) -> None:
    """Name the work; a tick of the role defers it every few minutes."""

    async def forget() -> None:
        async with db.transaction() as tx:
            await service.forget_nonces(tx, now())
            await service.forget_obsolete(tx, now())

    jobs.register(FORGET_NONCES, forget)
