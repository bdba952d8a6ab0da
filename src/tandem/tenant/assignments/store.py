from collections.abc import Iterable

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.tenant.assignments.model import Assignment, Target, TargetKind


async def assignments(tx: Tx, kind: str, owners: list[str] | None) -> list[Assignment]:
    found = await tx.execute(
        'SELECT id, owner_id, target, subject, filter_id, filter_mode, "values"'
        " FROM assignments_assignment WHERE owner_kind = %(kind)s"
        " AND (%(owners)s::text[] IS NULL OR owner_id = ANY(%(owners)s))"
        " ORDER BY owner_id, position",
        {"kind": kind, "owners": owners},
    )
    return [
        Assignment(
            row["id"],
            row["owner_id"],
            Target(TargetKind(row["target"]), row["subject"], row["filter_id"], row["filter_mode"]),
            row["values"],
        )
        async for row in found
    ]


async def owners(tx: Tx, kind: str) -> frozenset[str]:
    found = await tx.execute(
        "SELECT DISTINCT owner_id FROM assignments_assignment WHERE owner_kind = %s", (kind,)
    )
    return frozenset([row["owner_id"] async for row in found])


async def lock(tx: Tx, kind: str, owner_id: str) -> None:
    """Two that add at once come one after the other."""
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 7))", (f"{kind}/{owner_id}",)
    )


async def replace(tx: Tx, kind: str, owner_id: str, made: Iterable[Assignment]) -> None:
    await lock(tx, kind, owner_id)
    await tx.execute(
        "DELETE FROM assignments_assignment WHERE owner_kind = %s AND owner_id = %s",
        (kind, owner_id),
    )
    async with tx.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO assignments_assignment (owner_kind, owner_id, id, position, target,"
            ' subject, filter_id, filter_mode, "values")'
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    kind,
                    owner_id,
                    item.id,
                    number,
                    item.target.kind.value,
                    item.target.subject,
                    item.target.filter_id,
                    item.target.filter_mode,
                    Jsonb(dict(item.values)),
                )
                for number, item in enumerate(made)
            ],
        )


async def delete(tx: Tx, kind: str, owner_id: str, id: str) -> bool:
    done = await tx.execute(
        "DELETE FROM assignments_assignment WHERE owner_kind = %s AND owner_id = %s AND id = %s",
        (kind, owner_id, id),
    )
    return done.rowcount == 1
