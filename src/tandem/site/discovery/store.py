from datetime import datetime

from tandem.infra.database import Tx
from tandem.site.discovery.model import Run

_RUN = "id, service, kind, state, started_at, finished_at, users, added, reason, cure, code"


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


async def progressed(tx: Tx, id: int, users: int) -> None:
    """How many users a run that is under way has read."""
    await tx.execute(
        "UPDATE discovery_run SET users = %s WHERE id = %s AND state = 'running'", (users, id)
    )


async def succeeded(tx: Tx, id: int, now: datetime, *, users: int, added: int) -> None:
    await tx.execute(
        "UPDATE discovery_run SET state = 'succeeded', finished_at = %s, users = %s, added = %s"
        " WHERE id = %s",
        (now, users, added, id),
    )


async def failed(tx: Tx, id: int, now: datetime, *, reason: str, cure: str, code: str) -> None:
    await tx.execute(
        "UPDATE discovery_run SET state = 'failed', finished_at = %s, reason = %s, cure = %s,"
        " code = %s, users = 0 WHERE id = %s",
        (now, reason, cure, code, id),
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
