from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.site.deployments.model import Configuration, Request
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


_REQUEST = (
    "id, name, workload, setting, value, collection_id, reason, devices, asked_by, asked_at,"
    " expires_at, scopes"
)


def _request(row: dict[str, Any]) -> Request:
    typed = {"workload": Workload(row["workload"]), "scopes": tuple(row["scopes"])}
    return Request(**{**row, **typed})


async def insert_request(tx: Tx, made: Request) -> None:
    """Those that nobody decided in time go."""
    await tx.execute("DELETE FROM deployments_request WHERE expires_at <= %s", (made.asked_at,))
    await tx.execute(
        f"INSERT INTO deployments_request ({_REQUEST})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.id,
            made.name,
            made.workload.value,
            made.setting,
            made.value,
            made.collection_id,
            made.reason,
            made.devices,
            made.asked_by,
            made.asked_at,
            made.expires_at,
            list(made.scopes),
        ),
    )


async def requests(tx: Tx, now: datetime) -> list[Request]:
    found = await tx.execute(
        f"SELECT {_REQUEST} FROM deployments_request WHERE expires_at > %s"  # noqa: S608
        " ORDER BY asked_at, id",
        (now,),
    )
    return [_request(row) async for row in found]


async def take_request(tx: Tx, id: str, now: datetime) -> Request | None:
    """The request, which is there no more: one administrator decides it."""
    row = await (
        await tx.execute(
            "DELETE FROM deployments_request WHERE id = %s AND expires_at > %s"  # noqa: S608
            f" RETURNING {_REQUEST}",
            (id, now),
        )
    ).fetchone()
    return _request(row) if row else None


async def named(tx: Tx, name: str) -> bool:
    """Whether a configuration has this name."""
    row = await (
        await tx.execute(
            "SELECT 1 FROM deployments_configuration WHERE lower(name) = lower(%s)", (name,)
        )
    ).fetchone()
    return row is not None
