"""The log in the database: appending, reading, signing its head."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from psycopg.types.json import Jsonb

from tandem.audit.model import (
    GENESIS,
    Broken,
    Entry,
    Head,
    Problem,
    Signer,
    Stored,
    digest,
    key_id,
)
from tandem.audit.offline import judge_heads
from tandem.infra.database import Tx

Outcome = Literal["done", "refused"]

# One writer at a time: the chain has one end.
_LOCK = 4_120_771
# One an hour for a hundred years.
MOST_HEADS = 1_000_000
_ENTRY = "id, at, actor, action, target, outcome, details"
_HEAD = """number, at, entries, encode(digest, 'hex') AS digest, encode(previous, 'hex') AS previous,
    key_id, encode(signature, 'hex') AS signature"""


async def record(
    tx: Tx,
    *,
    actor: str,
    action: str,
    target: str,
    now: datetime,
    outcome: Outcome = "done",
    details: dict[str, Any] | None = None,
) -> None:
    """Append one entry in the transaction of what it tells. Details hold no secret."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    cursor = await tx.execute("SELECT id, digest FROM audit_entry ORDER BY id DESC LIMIT 1")
    last = await cursor.fetchone()
    previous = bytes(last["digest"]) if last else GENESIS
    number = last["id"] + 1 if last else 1
    # Numbers and times are stored as JSON and back: hash what will be read.
    plain = msgspec.json.decode(msgspec.json.encode(details or {}, enc_hook=str))
    entry = Entry(number, now, actor, action, target, outcome, plain)
    await tx.execute(
        "INSERT INTO audit_entry"
        " (id, at, actor, action, target, outcome, details, previous, digest)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            entry.id,
            entry.at,
            actor,
            action,
            target,
            outcome,
            Jsonb(plain),
            previous,
            digest(entry, previous),
        ),
    )


async def entries(tx: Tx, *, target: str | None = None, limit: int = 100) -> list[Entry]:
    """The newest entries, newest first."""
    cursor = await tx.execute(
        f"SELECT {_ENTRY} FROM audit_entry"  # noqa: S608
        " WHERE %(target)s::text IS NULL OR target = %(target)s"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"target": target, "limit": limit},
    )
    return [Entry(**row) for row in await cursor.fetchall()]


async def stored_entries(tx: Tx, after: int = 0, limit: int = 1000) -> list[Stored]:
    """Entries with their digests, oldest first, for an export."""
    cursor = await tx.execute(
        f"SELECT {_ENTRY}, previous, digest FROM audit_entry"  # noqa: S608
        " WHERE id > %s ORDER BY id LIMIT %s",
        (after, limit),
    )
    return [_stored(row) async for row in cursor]


def _stored(row: dict[str, Any]) -> Stored:
    before, after = bytes(row.pop("previous")), bytes(row.pop("digest"))
    return Stored(Entry(**row), before.hex(), after.hex())


async def _chain(tx: Tx) -> AsyncIterator[Stored]:
    cursor = await tx.execute(f"SELECT {_ENTRY}, previous, digest FROM audit_entry ORDER BY id")  # noqa: S608
    async for row in cursor:
        yield _stored(row)


async def verify(tx: Tx) -> Broken | None:
    """Walk the whole chain. None means that every entry follows from the one before."""
    previous, expected = GENESIS, 1
    async for item in _chain(tx):
        stored, before = bytes.fromhex(item.digest), bytes.fromhex(item.previous)
        entry = item.entry
        if entry.id != expected or before != previous or digest(entry, before) != stored:
            return Broken(entry.id)
        previous, expected = stored, expected + 1
    return None


async def examine(tx: Tx, keys: Sequence[Ed25519PublicKey]) -> list[Problem]:
    """Everything that is wrong with the log and its heads, as `inspect` tells of an export."""
    known = await heads(tx, limit=MOST_HEADS)
    problems = list(judge_heads(known, {key_id(key): key for key in keys})) if known else []
    cursor = await tx.execute(
        """SELECT h.number, h.entries FROM audit_head h LEFT JOIN audit_entry e ON e.id = h.entries
        WHERE e.digest IS DISTINCT FROM h.digest ORDER BY h.number LIMIT 20"""
    )
    for row in await cursor.fetchall():
        text = f"Entry {row['entries']} is not the one that head {row['number']} signed."
        problems.append(Problem("not-as-signed", text, row["entries"], row["number"]))
    broken = await verify(tx)
    if broken is not None:
        text = f"Entry {broken.id} was changed, or does not follow from the one before."
        problems.insert(0, Problem("entry-changed", text, entry=broken.id))
    return problems


# ---------------------------------------------------------------------------------- heads


async def heads(tx: Tx, after: int = 0, limit: int = 1000) -> list[Head]:
    """Signed heads, oldest first."""
    cursor = await tx.execute(
        f"SELECT {_HEAD} FROM audit_head WHERE number > %s ORDER BY number LIMIT %s",  # noqa: S608
        (after, limit),
    )
    return [Head(**row) for row in await cursor.fetchall()]


async def last_head(tx: Tx) -> Head | None:
    cursor = await tx.execute(f"SELECT {_HEAD} FROM audit_head ORDER BY number DESC LIMIT 1")  # noqa: S608
    row = await cursor.fetchone()
    return Head(**row) if row else None


async def sign(tx: Tx, signer: Signer, now: datetime) -> Head | None:
    """The head that covers every entry until now: a new one, or the last if nothing was added.

    None while the log is empty. Whoever keeps a head elsewhere can prove what the log held then.
    """
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    cursor = await tx.execute("SELECT id, digest FROM audit_entry ORDER BY id DESC LIMIT 1")
    newest = await cursor.fetchone()
    if newest is None:
        return None
    last = await last_head(tx)
    if last and (last.entries, last.key_id) == (newest["id"], signer.key_id):
        return last
    made = signer.sign(
        Head(
            number=last.number + 1 if last else 1,
            at=now,
            entries=newest["id"],
            digest=bytes(newest["digest"]).hex(),
            previous=last.fingerprint() if last else GENESIS.hex(),
            key_id=signer.key_id,
        )
    )
    await tx.execute(
        "INSERT INTO audit_head (number, at, entries, digest, previous, key_id, signature)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (
            made.number,
            made.at,
            made.entries,
            bytes.fromhex(made.digest),
            bytes.fromhex(made.previous),
            made.key_id,
            bytes.fromhex(made.signature),
        ),
    )
    return made
