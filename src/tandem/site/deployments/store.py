from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.site.deployments.model import Configuration
from tandem.workloads import Workload

_COLUMNS = "id, name, workload, setting, value, collection_id, created_at"


def _configuration(row: dict[str, Any]) -> Configuration:
    return Configuration(**{**row, "workload": Workload(row["workload"])})


async def configurations(tx: Tx) -> list[Configuration]:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM deployments_configuration"  # noqa: S608
        " ORDER BY created_at, id"
    )
    return [_configuration(row) async for row in found]


async def insert(tx: Tx, made: Configuration) -> bool:
    done = await tx.execute(
        f"INSERT INTO deployments_configuration ({_COLUMNS})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            made.id,
            made.name,
            made.workload.value,
            made.setting,
            made.value,
            made.collection_id,
            made.created_at,
        ),
    )
    return done.rowcount == 1


async def delete(tx: Tx, wanted: str, now: datetime) -> Configuration | None:
    """By id or name."""
    row = await (
        await tx.execute(
            "DELETE FROM deployments_configuration"  # noqa: S608
            " WHERE id = %(w)s OR lower(name) = lower(%(w)s)"
            f" RETURNING {_COLUMNS}",
            {"w": wanted},
        )
    ).fetchone()
    return _configuration(row) if row else None
