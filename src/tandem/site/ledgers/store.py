"""SQL of the tables ledgers_…, and nothing else."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.site.ledgers.model import Checkpoint, Entry, Ledger
from tandem.workloads import Account, Finding

_LEDGER = """id, client_id, thumbprint, key, began_at, received_at, account, findings, checkpoints,
    kept_from,
    (SELECT count(*) FROM ledgers_ledger o WHERE o.client_id = l.client_id) - 1 AS others"""


def _ledger(row: dict[str, Any]) -> Ledger:
    account = msgspec.convert(row.pop("account"), Account)
    findings = msgspec.convert(row.pop("findings"), list[Finding])
    checkpoints = msgspec.convert(row.pop("checkpoints"), list[Checkpoint])
    return Ledger(**row, account=account, findings=findings, checkpoints=checkpoints)


async def hold(
    tx: Tx, client_id: str, thumbprint: str, key: dict[str, str], now: datetime
) -> tuple[Ledger, bool]:
    """The ledger, which nobody else writes until this transaction ends; and whether it is new."""
    made = await tx.execute(
        """INSERT INTO ledgers_ledger (client_id, thumbprint, key, began_at, received_at, account,
               findings) VALUES (%s, %s, %s, %s, %s, %s, '[]') ON CONFLICT DO NOTHING""",
        (client_id, thumbprint, Jsonb(key), now, now, Jsonb(msgspec.to_builtins(Account()))),
    )
    cursor = await tx.execute(
        f"""SELECT {_LEDGER} FROM ledgers_ledger l
            WHERE client_id = %s AND thumbprint = %s FOR UPDATE""".encode(),  # noqa: S608
        (client_id, thumbprint),
    )
    row = await cursor.fetchone()
    assert row is not None
    return _ledger(row), made.rowcount == 1


async def save(
    tx: Tx,
    ledger_id: int,
    account: Account,
    findings: Sequence[Finding],
    checkpoints: Sequence[Checkpoint],
    kept_from: int,
    now: datetime,
) -> None:
    await tx.execute(
        """UPDATE ledgers_ledger SET account = %s, findings = %s, checkpoints = %s, kept_from = %s,
               received_at = %s WHERE id = %s""",
        (
            Jsonb(msgspec.to_builtins(account)),
            Jsonb(msgspec.to_builtins(list(findings))),
            Jsonb(msgspec.to_builtins(list(checkpoints))),
            kept_from,
            now,
            ledger_id,
        ),
    )


async def save_findings(tx: Tx, ledger_id: int, findings: Sequence[Finding]) -> None:
    await tx.execute(
        "UPDATE ledgers_ledger SET findings = %s WHERE id = %s",
        (Jsonb(msgspec.to_builtins(list(findings))), ledger_id),
    )


async def drop_before(tx: Tx, ledger_id: int, number: int) -> None:
    await tx.execute(
        "DELETE FROM ledgers_entry WHERE ledger_id = %s AND number < %s", (ledger_id, number)
    )


async def lock(tx: Tx, ledger_id: int) -> Ledger:
    """The ledger, which nobody else writes until this transaction ends."""
    cursor = await tx.execute(
        f"SELECT {_LEDGER} FROM ledgers_ledger l WHERE id = %s FOR UPDATE".encode(),  # noqa: S608
        (ledger_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return _ledger(row)


async def newest(tx: Tx, client_id: str) -> Ledger | None:
    """Of the key that wrote last."""
    cursor = await tx.execute(
        f"""SELECT {_LEDGER} FROM ledgers_ledger l WHERE client_id = %s
            ORDER BY received_at DESC, id DESC LIMIT 1""".encode(),  # noqa: S608
        (client_id,),
    )
    row = await cursor.fetchone()
    return _ledger(row) if row is not None else None


async def known(tx: Tx, ledger_id: int, digests: Sequence[str]) -> set[str]:
    """Those of these entries that are here."""
    cursor = await tx.execute(
        """SELECT encode(digest, 'hex') AS digest FROM ledgers_entry
           WHERE ledger_id = %s AND digest = ANY(SELECT decode(d, 'hex') FROM unnest(%s::text[]) d)""",
        (ledger_id, list(digests)),
    )
    return {row["digest"] for row in await cursor.fetchall()}


async def add(
    tx: Tx, ledger_id: int, number: int, digest: str, text: str, received_at: datetime
) -> None:
    await tx.execute(
        """INSERT INTO ledgers_entry (ledger_id, number, digest, text, received_at)
           VALUES (%s, %s, decode(%s, 'hex'), %s, %s) ON CONFLICT DO NOTHING""",
        (ledger_id, number, digest, text, received_at),
    )


async def entries(
    tx: Tx, ledger_id: int, *, limit: int | None = None, newest_first: bool = False
) -> list[Entry]:
    order = "DESC" if newest_first else "ASC"
    cursor = await tx.execute(
        f"""SELECT number, encode(digest, 'hex') AS digest, text, received_at FROM ledgers_entry
            WHERE ledger_id = %s ORDER BY number {order}, received_at {order}, digest LIMIT %s""".encode(),  # noqa: S608
        (ledger_id, limit),
    )
    return [Entry(**row) for row in await cursor.fetchall()]
