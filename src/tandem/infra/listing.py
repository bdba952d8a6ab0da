"""Rows of one source, filtered, ordered and by pages: what every list of an API asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tandem.infra.database import Tx

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """What can be listed: a FROM clause, and the SQL expression of each name that can be asked for.

    Everything here is our own text. A `%` in it has to be doubled.
    """

    sql: str
    columns: Mapping[str, str]
    key: str = "id"


async def rows(
    tx: Tx,
    source: Source,
    names: Sequence[str],
    *,
    where: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    order: Sequence[tuple[str, bool]] = (),
    limit: int | None = None,
    offset: int = 0,
) -> list[Row]:
    """Rows with these names, ordered by (name, descending) pairs and then by the key."""
    wanted = dict.fromkeys([source.key, *names])
    columns = ", ".join(f"{source.columns[name]} AS {name}" for name in wanted)
    ordering = [f"{source.columns[name]} {'DESC' if down else 'ASC'}" for name, down in order]
    ordering.append(source.columns[source.key])
    statement = f"SELECT {columns} FROM {source.sql}{_where(where)} ORDER BY {', '.join(ordering)}"  # noqa: S608
    if limit is not None:
        statement += f" LIMIT {int(limit)}"
    if offset:
        statement += f" OFFSET {int(offset)}"
    cursor = await tx.execute(statement.encode(), parameters or {})
    return await cursor.fetchall()


async def count(
    tx: Tx, source: Source, where: Sequence[str] = (), parameters: Mapping[str, Any] | None = None
) -> int:
    statement = f"SELECT count(*) AS n FROM {source.sql}{_where(where)}"  # noqa: S608
    cursor = await tx.execute(statement.encode(), parameters or {})
    row = await cursor.fetchone()
    assert row is not None
    found: int = row["n"]
    return found


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(f'({item})' for item in conditions)}" if conditions else ""
