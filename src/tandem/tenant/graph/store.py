"""The SQL of the change log that delta queries read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tandem.infra.database import Tx


@dataclass(frozen=True, slots=True)
class Changed:
    """An object that something happened to; `gone` is why it may not be there any more."""

    id: str
    gone: str


@dataclass(frozen=True, slots=True)
class MemberChange:
    group_id: str
    member_id: str
    member_sort: str | None
    joined: bool


async def oldest_running(tx: Tx) -> int:
    """All transactions before this one have ended: what they wrote is there to be read."""
    cursor = await tx.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xid")
    row = await cursor.fetchone()
    assert row is not None
    return int(row["xid"])


async def changed(
    tx: Tx, sort: str, since: int, until: int, after: str, limit: int, only: Sequence[str]
) -> list[Changed]:
    cursor = await tx.execute(
        """SELECT object_id::text AS id,
            CASE WHEN max(seq) FILTER (WHERE what = 'soft-delete')
                > coalesce(max(seq) FILTER (WHERE what = 'purge'), 0)
            THEN 'changed' ELSE 'deleted' END AS gone
        FROM graph_change
        WHERE sort = %(sort)s AND xid >= %(since)s AND xid < %(until)s
            AND object_id > %(after)s::uuid
            AND (%(only)s::uuid[] IS NULL OR object_id = ANY(%(only)s::uuid[]))
        GROUP BY object_id ORDER BY object_id LIMIT %(limit)s""",
        {
            "sort": sort,
            "since": since,
            "until": until,
            "after": after,
            "limit": limit,
            "only": list(only) or None,
        },
    )
    return [Changed(**row) for row in await cursor.fetchall()]


async def member_changes(
    tx: Tx, groups: Sequence[str], since: int, until: int
) -> list[MemberChange]:
    """The last that happened to each membership of these groups."""
    cursor = await tx.execute(
        """SELECT DISTINCT ON (object_id, member_id) object_id::text AS group_id,
            member_id::text AS member_id, member_sort, what = 'member' AS joined
        FROM graph_change
        WHERE sort = 'group' AND xid >= %(since)s AND xid < %(until)s
            AND object_id = ANY(%(groups)s::uuid[]) AND member_id IS NOT NULL
        ORDER BY object_id, member_id, seq DESC""",
        {"groups": list(groups), "since": since, "until": until},
    )
    return [MemberChange(**row) for row in await cursor.fetchall()]


async def prune(tx: Tx, before: datetime) -> int:
    cursor = await tx.execute("DELETE FROM graph_change WHERE at < %s", (before,))
    return cursor.rowcount
