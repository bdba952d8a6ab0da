from datetime import datetime

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.approvals.model import Request

_COLUMNS = "id, kind, name, subject, collection_id, reason, devices, asked_by, asked_at, expires_at"


async def insert(tx: Tx, made: Request) -> None:
    """Those that nobody decided in time go."""
    await tx.execute("DELETE FROM approvals_request WHERE expires_at <= %s", (made.asked_at,))
    await tx.execute(
        f"INSERT INTO approvals_request ({_COLUMNS})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.kind,
            made.name,
            Jsonb(made.subject),
            made.collection_id,
            made.reason,
            made.devices,
            made.asked_by,
            made.asked_at,
            made.expires_at,
        ),
    )


async def requests(tx: Tx, kind: str, now: datetime) -> list[Request]:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM approvals_request WHERE kind = %s AND expires_at > %s"  # noqa: S608
        " ORDER BY asked_at, id",
        (kind, now),
    )
    return [Request(**row) async for row in found]


async def take(tx: Tx, kind: str, id: str, now: datetime) -> Request | None:
    """The request, which is there no more: one administrator decides it."""
    row = await (
        await tx.execute(
            "DELETE FROM approvals_request WHERE kind = %s AND id = %s AND expires_at > %s"  # noqa: S608
            f" RETURNING {_COLUMNS}",
            (kind, id, now),
        )
    ).fetchone()
    return Request(**row) if row else None
