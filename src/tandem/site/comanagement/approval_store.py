from datetime import datetime

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.comanagement.model import Request

_COLUMNS = "id, wanted, devices, reason, asked_by, asked_at, expires_at"


async def insert(tx: Tx, made: Request) -> None:
    """Those that nobody decided in time go."""
    await tx.execute("DELETE FROM comanagement_waiting WHERE expires_at <= %s", (made.asked_at,))
    await tx.execute(
        f"INSERT INTO comanagement_waiting ({_COLUMNS})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            Jsonb(made.wanted),
            made.devices,
            made.reason,
            made.asked_by,
            made.asked_at,
            made.expires_at,
        ),
    )


async def requests(tx: Tx, now: datetime) -> list[Request]:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM comanagement_waiting WHERE expires_at > %s"  # noqa: S608
        " ORDER BY asked_at, id",
        (now,),
    )
    return [Request(**row) async for row in found]


async def delete(tx: Tx, id: str) -> bool:
    done = await tx.execute("DELETE FROM comanagement_waiting WHERE id = %s", (id,))
    return done.rowcount == 1
