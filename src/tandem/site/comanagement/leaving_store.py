from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.comanagement.leaving_model import OPEN, Offboarding, State

_COLUMNS = (
    "id, client_id, tenant_id, device_id, resource_id, name, state, lacking, begun_at, begun_by,"
    " changed_at, changed_by, proof"
)
_ALIVE = [state.value for state in OPEN]


def _offboarding(row: dict[str, Any]) -> Offboarding:
    return Offboarding(**{**row, "state": State(row["state"]), "lacking": tuple(row["lacking"])})


async def insert(tx: Tx, made: Offboarding) -> bool:
    """False when this device is on its way already, or gone."""
    done = await tx.execute(
        f"INSERT INTO comanagement_offboarding ({_COLUMNS})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            made.id,
            made.client_id,
            made.tenant_id,
            made.device_id,
            made.resource_id,
            made.name,
            made.state.value,
            list(made.lacking),
            made.begun_at,
            made.begun_by,
            made.changed_at,
            made.changed_by,
            Jsonb(made.proof),
        ),
    )
    return done.rowcount == 1


async def save(
    tx: Tx,
    one: Offboarding,
    state: State,
    by: str,
    now: datetime,
    proof: dict[str, Any] | None = None,
) -> Offboarding | None:
    """None when it is no longer in the state that was read."""
    made = replace(
        one,
        state=state,
        changed_at=now,
        changed_by=by,
        proof=one.proof if proof is None else proof,
    )
    done = await tx.execute(
        "UPDATE comanagement_offboarding SET state = %s, changed_at = %s, changed_by = %s,"
        " proof = %s WHERE id = %s AND state = %s",
        (state.value, now, by, Jsonb(made.proof), one.id, one.state.value),
    )
    return made if done.rowcount == 1 else None


async def some(tx: Tx, states: Sequence[State], limit: int, offset: int = 0) -> list[Offboarding]:
    """The newest first."""
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM comanagement_offboarding WHERE state = ANY(%s)"  # noqa: S608
        " ORDER BY begun_at DESC, id LIMIT %s OFFSET %s",
        ([state.value for state in states], limit, offset),
    )
    return [_offboarding(row) async for row in found]


async def find(tx: Tx, wanted: str) -> Offboarding | None:
    """By its id, or the newest of a device by the device's id or name."""
    row = await (
        await tx.execute(
            f"SELECT {_COLUMNS} FROM comanagement_offboarding"  # noqa: S608
            " WHERE id = %(w)s OR device_id = %(w)s OR lower(name) = lower(%(w)s)"
            " ORDER BY begun_at DESC, id LIMIT 1",
            {"w": wanted},
        )
    ).fetchone()
    return _offboarding(row) if row else None


async def under_way(tx: Tx, client_id: str) -> Offboarding | None:
    row = await (
        await tx.execute(
            f"SELECT {_COLUMNS} FROM comanagement_offboarding"  # noqa: S608
            " WHERE client_id = %s AND state = ANY(%s)",
            (client_id, _ALIVE),
        )
    ).fetchone()
    return _offboarding(row) if row else None


async def client_ids(tx: Tx) -> set[str]:
    """The clients of all that are on their way."""
    found = await tx.execute(
        "SELECT client_id FROM comanagement_offboarding WHERE state = ANY(%s)", (_ALIVE,)
    )
    return {row["client_id"] async for row in found}


async def gone(tx: Tx, tenant_id: str, device_id: str) -> Offboarding | None:
    """The record of a device that was taken out."""
    row = await (
        await tx.execute(
            f"SELECT {_COLUMNS} FROM comanagement_offboarding"  # noqa: S608
            " WHERE tenant_id = %s AND device_id = %s AND state IN ('taken', 'done')",
            (tenant_id, device_id),
        )
    ).fetchone()
    return _offboarding(row) if row else None
