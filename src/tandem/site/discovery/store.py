from datetime import datetime

from tandem.infra.database import Tx
from tandem.site.discovery.model import Run

_RUN = "id, service, kind, state, started_at, finished_at, users, added, reason"


async def begin(tx: Tx, service: str, kind: str, now: datetime) -> int:
    row = await (
        await tx.execute(
            "INSERT INTO discovery_run (service, kind, state, started_at)"
            " VALUES (%s, %s, 'running', %s) RETURNING id",
            (service, kind, now),
        )
    ).fetchone()
    assert row is not None
    return int(row["id"])


async def end(
    tx: Tx, id: int, state: str, now: datetime, *, users: int, added: int, reason: str
) -> None:
    await tx.execute(
        "UPDATE discovery_run SET state = %s, finished_at = %s, users = %s, added = %s,"
        " reason = %s WHERE id = %s",
        (state, now, users, added, reason, id),
    )


async def runs(tx: Tx, limit: int) -> list[Run]:
    found = await tx.execute(
        f"SELECT {_RUN} FROM discovery_run ORDER BY id DESC LIMIT %s",  # noqa: S608
        (limit,),
    )
    return [Run(**row) async for row in found]


async def run(tx: Tx, id: int) -> Run | None:
    row = await (
        await tx.execute(
            f"SELECT {_RUN} FROM discovery_run WHERE id = %s",  # noqa: S608
            (id,),
        )
    ).fetchone()
    return Run(**row) if row else None
