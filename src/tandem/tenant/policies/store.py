from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.tenant.policies.model import Assignment, Configuration
from tandem.workloads import Workload

_COLUMNS = "id, name, workload, setting, value, created_at, changed_at"


def _configuration(row: dict[str, Any]) -> Configuration:
    return Configuration(**{**row, "workload": Workload(row["workload"])})


async def configurations(tx: Tx) -> list[Configuration]:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM policies_configuration ORDER BY created_at, id"  # noqa: S608
    )
    return [_configuration(row) async for row in found]


async def insert(tx: Tx, made: Configuration) -> bool:
    done = await tx.execute(
        f"INSERT INTO policies_configuration ({_COLUMNS})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            made.id,
            made.name,
            made.workload.value,
            made.setting,
            made.value,
            made.created_at,
            made.changed_at,
        ),
    )
    return done.rowcount == 1


async def change(tx: Tx, id: str, value: str, now: datetime) -> bool:
    done = await tx.execute(
        "UPDATE policies_configuration SET value = %s, changed_at = %s WHERE id = %s",
        (value, now, id),
    )
    return done.rowcount == 1


async def delete(tx: Tx, id: str) -> bool:
    done = await tx.execute("DELETE FROM policies_configuration WHERE id = %s", (id,))
    return done.rowcount == 1


async def assignments(tx: Tx) -> list[Assignment]:
    found = await tx.execute(
        "SELECT configuration_id, group_id, excluded FROM policies_assignment ORDER BY group_id"
    )
    return [Assignment(**row) async for row in found]


async def assign(tx: Tx, id: str, groups: list[tuple[str, bool]]) -> None:
    await tx.execute("DELETE FROM policies_assignment WHERE configuration_id = %s", (id,))
    for group_id, excluded in groups:
        await tx.execute(
            "INSERT INTO policies_assignment (configuration_id, group_id, excluded)"
            " VALUES (%s, %s, %s)",
            (id, group_id, excluded),
        )
