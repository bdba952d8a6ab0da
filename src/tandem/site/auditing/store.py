from collections.abc import Sequence
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tandem.audit import Entry, Problem
from tandem.infra.database import Tx
from tandem.infra.listing import Source, count, rows
from tandem.site.auditing.model import Filter, Verification

_COLUMNS = ("id", "at", "actor", "action", "target", "outcome", "details")
_ENTRIES = Source("audit_entry a", {name: f"a.{name}" for name in _COLUMNS})


async def entries(
    tx: Tx, wanted: Filter, newest_first: bool, limit: int, offset: int
) -> tuple[list[Entry], int]:
    """A page of entries, and how many there are."""
    where, bound = _where(wanted)
    found = await rows(
        tx,
        _ENTRIES,
        _COLUMNS,
        where=where,
        parameters=bound,
        order=[("id", newest_first)],
        limit=limit,
        offset=offset,
    )
    return [Entry(**row) for row in found], await count(tx, _ENTRIES, where, bound)


def _where(wanted: Filter) -> tuple[Sequence[str], dict[str, Any]]:
    conditions = {
        "actor": "lower(a.actor) LIKE lower(%(actor)s)",
        "action": "lower(a.action) LIKE lower(%(action)s)",
        "target": "lower(a.target) LIKE lower(%(target)s)"
        " OR lower(coalesce(a.details->>'name', '')) LIKE lower(%(target)s)",
        "outcome": "a.outcome = %(outcome)s",
        "since": "a.at >= %(since)s",
        "until": "a.at < %(until)s",
    }
    bound: dict[str, Any] = {
        name: value for name in conditions if (value := getattr(wanted, name)) not in ("", None)
    }
    for name in ("actor", "action", "target"):
        if name in bound:
            bound[name] = _prefix(bound[name])
    return [conditions[name] for name in bound], bound


def _prefix(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{plain}%"


async def counts(tx: Tx) -> tuple[int, int, int]:
    """How many entries, how many heads, and how many entries the heads cover."""
    row = await (
        await tx.execute(
            "SELECT (SELECT coalesce(max(id), 0) FROM audit_entry) AS entries,"
            " coalesce(max(number), 0) AS heads, coalesce(max(entries), 0) AS signed"
            " FROM audit_head"
        )
    ).fetchone()
    assert row is not None
    return int(row["entries"]), int(row["heads"]), int(row["signed"])


async def save_verification(tx: Tx, made: Verification) -> None:
    problems = [msgspec.to_builtins(problem) for problem in made.problems]
    await tx.execute(
        "INSERT INTO auditing_verification (at, entries, heads, signed, took_ms, problems)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (singleton) DO UPDATE SET"
        " at = EXCLUDED.at, entries = EXCLUDED.entries, heads = EXCLUDED.heads,"
        " signed = EXCLUDED.signed, took_ms = EXCLUDED.took_ms, problems = EXCLUDED.problems",
        (made.at, made.entries, made.heads, made.signed, made.took_ms, Jsonb(problems)),
    )


async def verification(tx: Tx) -> Verification | None:
    row = await (
        await tx.execute(
            "SELECT at, entries, heads, signed, took_ms, problems FROM auditing_verification"
        )
    ).fetchone()
    if row is None:
        return None
    problems = [msgspec.convert(item, Problem) for item in row.pop("problems")]
    return Verification(**row, problems=problems)
