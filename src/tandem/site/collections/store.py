from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation, QueryCanceled, UniqueViolation
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.infra.listing import Row, Source, rows
from tandem.infra.listing import count as count_rows
from tandem.site.collections.classes import EVERYTHING, Tables
from tandem.site.collections.model import (
    Collection,
    CollectionId,
    KnownGroup,
    KnownResource,
    KnownUser,
    MemberType,
    Resource,
    Rule,
    UserResource,
)

_LOCK = 7_311_003
_RESOURCE = (
    "r.id, r.name, r.client_id, r.tenant_id, r.device_id, r.os_name, r.os_version,"
    " r.client_version, r.discovered_at"
)
_USER_COLUMNS = "r.id, r.upn, r.name, r.mail, r.tenant_id, r.object_id, r.discovered_at, r.kind"
_COLLECTION = "id, name, comment, limiting_id, created_at, incremental, full_every_minutes, type"
# The column of a direct rule that names its member, and the table of the members.
NAMED_BY = {MemberType.DEVICE: "resource_id", MemberType.USER: "user_id"}
_MEMBERS = {MemberType.DEVICE: EVERYTHING.resource, MemberType.USER: EVERYTHING.user}


def _collection(row: Row) -> Collection:
    return Collection(**{**row, "type": MemberType(row["type"])})


async def save_resource(tx: Tx, resource: Resource, now: datetime) -> int:
    row = await (
        await tx.execute(
            "INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name,"
            " os_version, client_version, discovered_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (client_id) DO UPDATE SET name = EXCLUDED.name,"
            " tenant_id = EXCLUDED.tenant_id, device_id = EXCLUDED.device_id,"
            " os_name = EXCLUDED.os_name, os_version = EXCLUDED.os_version,"
            " client_version = EXCLUDED.client_version, discovered_at = EXCLUDED.discovered_at"
            " RETURNING id",
            (
                resource.client_id,
                resource.name,
                resource.tenant_id,
                resource.device_id,
                resource.os_name,
                resource.os_version,
                resource.client_version,
                now,
            ),
        )
    ).fetchone()
    assert row is not None
    return int(row["id"])


async def save_inventory(
    tx: Tx,
    client_id: str,
    of: str,
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    now: datetime,
) -> None:
    """The rows of one class of one resource, each as it is shown and as it is compared. Rows that
    are there already stay untouched: nothing has changed then. What is older than they are is
    passed over."""
    await tx.execute(
        """WITH device AS (
               SELECT r.id FROM collections_resource r
               WHERE r.client_id = %(client)s AND NOT EXISTS (
                   SELECT FROM collections_inventory i
                   WHERE i.resource_id = r.id AND i.class = %(of)s AND i.reported_at > %(now)s)
           ), more AS (
               DELETE FROM collections_inventory i USING device
               WHERE i.resource_id = device.id AND i.class = %(of)s AND i.instance > %(count)s
           )
           INSERT INTO collections_inventory AS i
               (resource_id, class, instance, properties, folded, reported_at)
           SELECT device.id, %(of)s, n.place, n.properties, n.folded, %(now)s FROM device,
               unnest(%(shown)s::jsonb[], %(low)s::jsonb[]) WITH ORDINALITY
                   n (properties, folded, place)
           ON CONFLICT (resource_id, class, instance) DO UPDATE
               SET properties = EXCLUDED.properties, folded = EXCLUDED.folded,
                   reported_at = EXCLUDED.reported_at
               WHERE i.properties <> EXCLUDED.properties""",
        {
            "client": client_id,
            "of": of,
            "now": now,
            "count": len(rows),
            "shown": [Jsonb(shown) for shown, _ in rows],
            "low": [Jsonb(low) for _, low in rows],
        },
    )


async def save_user(tx: Tx, user: UserResource, now: datetime) -> bool:
    """Whether the user is new to the site."""
    row = await (
        await tx.execute(
            "INSERT INTO collections_user (tenant_id, object_id, upn, name, mail, sid, properties,"
            " discovered_at, kind) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (tenant_id, object_id) DO UPDATE SET upn = EXCLUDED.upn,"
            " name = EXCLUDED.name, mail = EXCLUDED.mail, sid = EXCLUDED.sid,"
            " properties = EXCLUDED.properties, discovered_at = EXCLUDED.discovered_at,"
            " gone_at = NULL RETURNING xmax = 0 AS added",
            (
                user.tenant_id,
                user.object_id,
                user.upn,
                user.name,
                user.mail,
                user.sid,
                Jsonb(user.properties),
                now,
                user.kind,
            ),
        )
    ).fetchone()
    assert row is not None
    return bool(row["added"])


async def mark_gone(tx: Tx, tenant_id: str, object_ids: Sequence[str], now: datetime) -> int:
    """These users are not in the tenant any more. Returns how many were until now."""
    done = await tx.execute(
        "UPDATE collections_user SET gone_at = %s WHERE tenant_id = %s"
        " AND object_id = ANY(%s::text[]) AND gone_at IS NULL",
        (now, tenant_id, list(object_ids)),
    )
    return done.rowcount


async def mark_others_gone(tx: Tx, tenant_id: str, object_ids: Sequence[str], now: datetime) -> int:
    """No other users than these are in the tenant. Returns how many others were until now."""
    done = await tx.execute(
        "UPDATE collections_user u SET gone_at = %s WHERE u.tenant_id = %s AND u.gone_at IS NULL"
        " AND u.kind = 'user' AND NOT EXISTS (SELECT FROM unnest(%s::text[]) n (id) WHERE n.id = u.object_id)",
        (now, tenant_id, list(object_ids)),
    )
    return done.rowcount


async def forget_gone(tx: Tx, before: datetime) -> None:
    await tx.execute("DELETE FROM collections_user WHERE gone_at < %s", (before,))


async def user_by(tx: Tx, tenant_id: str, object_id: str) -> KnownUser | None:
    row = await (
        await tx.execute(
            "SELECT id, upn, name, mail, tenant_id, object_id, discovered_at"
            " FROM collections_known_user"
            " WHERE tenant_id = %s AND object_id = %s AND kind = 'user'",
            (tenant_id, object_id),
        )
    ).fetchone()
    return KnownUser(**row) if row else None


async def user_named(tx: Tx, tenant_id: str, upn: str) -> KnownUser | None:
    row = await (
        await tx.execute(
            "SELECT id, upn, name, mail, tenant_id, object_id, discovered_at"
            " FROM collections_known_user WHERE tenant_id = %s AND lower(upn) = lower(%s)"
            " AND kind = 'user'"
            # Who had the name before is not there any more.
            " ORDER BY discovered_at DESC, id DESC LIMIT 1",
            (tenant_id, upn),
        )
    ).fetchone()
    return KnownUser(**row) if row else None


_USER = Source(
    "collections_known_user u",
    {
        name: f"u.{name}"
        for name in ("id", "upn", "name", "mail", "tenant_id", "object_id", "discovered_at", "kind")
    },
)
_USER_SEARCH = (
    "(lower(u.upn) LIKE lower(%(prefix)s) OR lower(u.name) LIKE lower(%(prefix)s) OR lower(u.mail) LIKE"
    " lower(%(prefix)s))"
)


async def users(
    tx: Tx, search: str, order: tuple[str, bool], limit: int, offset: int
) -> list[KnownUser]:
    """Those whose sign-in name, name or mail begins with `search`."""
    found = await rows(
        tx,
        _USER,
        list(_USER.columns),
        where=["u.kind = 'user'", *([_USER_SEARCH] if search else [])],
        parameters={"prefix": prefix(search)},
        order=[order],
        limit=limit,
        offset=offset,
    )
    return [KnownUser(**row) for row in found]


async def limited_to(tx: Tx, roots: Sequence[str]) -> list[CollectionId]:
    """These collections that there are, and all that are limited to one of them, however deep."""
    found = await tx.execute(
        "WITH RECURSIVE seen (id) AS ("
        " SELECT id FROM collections_collection WHERE id = ANY(%s)"
        " UNION SELECT c.id FROM collections_collection c JOIN seen s ON c.limiting_id = s.id)"
        " SELECT id FROM seen",
        (list(roots),),
    )
    return [row["id"] async for row in found]


async def of_type(tx: Tx, ids: Sequence[str], of: MemberType) -> set[str]:
    """Those of these collections whose members are devices, or users."""
    found = await tx.execute(
        "SELECT id FROM collections_collection WHERE id = ANY(%s) AND type = %s",
        (list(ids), of.value),
    )
    return {row["id"] async for row in found}


async def count_users(tx: Tx, search: str = "") -> int:
    where = ["u.kind = 'user'", *([_USER_SEARCH] if search else [])]
    return await count_rows(tx, _USER, where, {"prefix": prefix(search)})


_GROUP = Source(
    "collections_known_user u",
    {
        **{
            name: f"u.{name}"
            for name in ("id", "name", "sid", "tenant_id", "object_id", "discovered_at")
        },
        "members": "(SELECT count(*) FROM collections_group_member m"
        " JOIN collections_known_user k ON k.id = m.user_id WHERE m.group_id = u.id)",
    },
)
GROUP_SORTS = ("name", "members", "discovered_at", "id")


Seen = tuple[str, Mapping[str, Any]]


def _groups_where(seen: Seen, search: str = "") -> list[str]:
    """Of the groups that somebody may see: a condition over a row r, and its named parameters."""
    found = ["lower(u.name) LIKE lower(%(prefix)s)"] if search else []
    if seen[0] != "true":
        found.append(f"u.id IN (SELECT r.id FROM collections_known_user r WHERE {seen[0]})")  # noqa: S608
    return ["u.kind = 'group'", *found]


async def user_groups(
    tx: Tx, seen: Seen, search: str, order: tuple[str, bool], limit: int, offset: int
) -> list[KnownGroup]:
    """Those whose name begins with `search`."""
    found = await rows(
        tx,
        _GROUP,
        list(_GROUP.columns),
        where=_groups_where(seen, search),
        parameters={"prefix": prefix(search), **seen[1]},
        order=[order],
        limit=limit,
        offset=offset,
    )
    return [KnownGroup(**row) for row in found]


async def count_user_groups(tx: Tx, seen: Seen, search: str = "") -> int:
    bound = {"prefix": prefix(search), **seen[1]}
    return await count_rows(tx, _GROUP, _groups_where(seen, search), bound)


async def user_group(tx: Tx, seen: Seen, wanted: str) -> KnownGroup | None:
    """By number, object id or name (the newest of that name)."""
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 19 else -1
    found = await rows(
        tx,
        _GROUP,
        list(_GROUP.columns),
        where=[
            *_groups_where(seen),
            "(u.id = %(number)s OR u.object_id = %(wanted)s OR lower(u.name) = lower(%(wanted)s))",
        ],
        parameters={"number": number, "wanted": wanted, **seen[1]},
        order=[("discovered_at", True), ("id", True)],
        limit=1,
    )
    return KnownGroup(**found[0]) if found else None


async def save_group_members(
    tx: Tx, tenant_id: str, group: str, users: Sequence[str]
) -> tuple[int, int]:
    """These users of the tenant are in the group, and nobody else. Returns how many came, and how
    many went."""
    row = await (
        await tx.execute(
            "WITH g AS (SELECT id FROM collections_user WHERE tenant_id = %(tenant)s"
            " AND object_id = %(group)s AND kind = 'group'), wanted AS (SELECT u.id FROM"
            " unnest(%(users)s::text[]) n (object_id) JOIN collections_user u"
            " ON u.tenant_id = %(tenant)s AND u.object_id = n.object_id AND u.kind = 'user'),"
            " gone AS (DELETE FROM collections_group_member m USING g WHERE m.group_id = g.id"
            " AND NOT EXISTS (SELECT FROM wanted w WHERE w.id = m.user_id) RETURNING 1),"
            " come AS (INSERT INTO collections_group_member (group_id, user_id)"
            " SELECT g.id, w.id FROM g, wanted w ON CONFLICT DO NOTHING RETURNING 1)"
            " SELECT (SELECT count(*) FROM come) AS come, (SELECT count(*) FROM gone) AS gone",
            {"tenant": tenant_id, "group": group, "users": list(users)},
        )
    ).fetchone()
    assert row is not None
    return int(row["come"]), int(row["gone"])


async def group_members(
    tx: Tx,
    seen: tuple[str, tuple[Any, ...]],
    group_id: int,
    search: str,
    order: tuple[str, bool],
    limit: int,
    offset: int,
) -> tuple[list[KnownUser], int]:
    condition = (
        "EXISTS (SELECT 1 FROM collections_group_member m"  # noqa: S608
        f" WHERE m.group_id = %s AND m.user_id = r.id) AND ({seen[0]})"
    )
    values = (group_id, *seen[1])
    found = await user_members(tx, condition, values, limit, offset, search, order)
    return found, await count(tx, condition, values, search, MemberType.USER)


def prefix(text: str) -> str:
    """For LIKE: whatever begins with this text, whose own % and _ are only characters."""
    plain = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{plain}%"


def _contained(text: str) -> str:
    return f"%{prefix(text)}"


async def resource(tx: Tx, wanted: str) -> KnownResource | None:
    """By number, client id or name (the newest of that name)."""
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        found = await _resource(tx, "r.id = %s", int(wanted))
        if found is not None:
            return found
    if wanted[:5].upper() == "GUID:":
        return await resource_of(tx, f"GUID:{wanted[5:].upper()}")
    return await _resource(tx, "lower(r.name) = lower(%s)", wanted)


async def resource_of(tx: Tx, client_id: str) -> KnownResource | None:
    return await _resource(tx, "r.client_id = %s", client_id)


async def _resource(tx: Tx, condition: str, value: str | int) -> KnownResource | None:
    row = await (
        await tx.execute(
            f"SELECT {_RESOURCE} FROM collections_resource r WHERE {condition}"  # noqa: S608
            " ORDER BY r.discovered_at DESC, r.id DESC LIMIT 1",
            (value,),
        )
    ).fetchone()
    return KnownResource(**row) if row else None


# What devices can be sorted by.
RESOURCE_SORTS = ("name", "id", "os_name", "os_version", "client_version", "discovered_at")


async def resources(
    tx: Tx,
    condition: str,
    values: tuple[Any, ...],
    limit: int,
    offset: int,
    search: str = "",
    order: tuple[str, bool] = ("name", False),
) -> list[KnownResource]:
    """Those for whom the condition holds and whose name begins with `search`."""
    name, down = order
    assert name in RESOURCE_SORTS
    way = "DESC" if down else "ASC"
    narrowed, bound = _searched(condition, values, search)
    found = await tx.execute(
        f"SELECT {_RESOURCE} FROM collections_resource r WHERE {narrowed}"  # noqa: S608
        f" ORDER BY r.{name} {way}, r.id {way} LIMIT %s OFFSET %s",
        (*bound, limit, offset),
    )
    return [KnownResource(**row) async for row in found]


async def user_members(
    tx: Tx,
    condition: str,
    values: tuple[Any, ...],
    limit: int,
    offset: int,
    search: str = "",
    order: tuple[str, bool] = ("upn", False),
) -> list[KnownUser]:
    """Those for whom the condition holds and whose sign-in name, name or mail begins with
    `search`."""
    name, down = order
    assert name in USER_SORTS
    way = "DESC" if down else "ASC"
    narrowed, bound = _searched(condition, values, search, MemberType.USER)
    found = await tx.execute(
        f"SELECT {_USER_COLUMNS} FROM collections_known_user r WHERE {narrowed}"  # noqa: S608
        f" ORDER BY r.{name} {way}, r.id {way} LIMIT %s OFFSET %s",
        (*bound, limit, offset),
    )
    return [KnownUser(**row) async for row in found]


async def count(
    tx: Tx,
    condition: str,
    values: tuple[Any, ...],
    search: str = "",
    of: MemberType = MemberType.DEVICE,
) -> int:
    narrowed, bound = _searched(condition, values, search, of)
    row = await (
        await tx.execute(
            f"SELECT count(*) AS n FROM {_MEMBERS[of]} r WHERE {narrowed}",  # noqa: S608
            bound,
        )
    ).fetchone()
    return int(row["n"]) if row else 0


async def member_ids(tx: Tx, condition: str, values: tuple[Any, ...], of: MemberType) -> set[int]:
    found = await tx.execute(f"SELECT r.id FROM {_MEMBERS[of]} r WHERE {condition}", values)  # noqa: S608
    return {row["id"] async for row in found}


_SEARCHED = {
    MemberType.DEVICE: ("name",),
    MemberType.USER: ("upn", "name", "mail"),
}


def _searched(
    condition: str,
    values: tuple[Any, ...],
    search: str,
    of: MemberType = MemberType.DEVICE,
) -> tuple[str, tuple[Any, ...]]:
    if not search:
        return condition, values
    columns = _SEARCHED[of]
    found = " OR ".join(f"lower(r.{column}) LIKE lower(%s)" for column in columns)
    return f"({condition}) AND ({found})", (*values, *[prefix(search)] * len(columns))


async def counts(
    tx: Tx,
    conditions: Sequence[tuple[str, tuple[Any, ...]]],
    within_seconds: float,
    of: MemberType = MemberType.DEVICE,
) -> list[int] | None:
    """For how many devices (or users) each condition holds: one look at each, not one a condition.
    None when that takes longer than it may."""
    if not conditions:
        return []
    try:
        async with tx.transaction():
            limit = f"{max(1, int(within_seconds * 1000))}ms"
            await tx.execute("SELECT set_config('statement_timeout', %s, true)", (limit,))
            found = await _counts(tx, conditions, of)
            await tx.execute("SET LOCAL statement_timeout TO DEFAULT")
            return found
    except QueryCanceled:
        return None


async def _counts(
    tx: Tx, conditions: Sequence[tuple[str, tuple[Any, ...]]], of: MemberType
) -> list[int]:
    columns = ", ".join(
        f"count(*) FILTER (WHERE {sql}) AS c{place}" for place, (sql, _) in enumerate(conditions)
    )
    values = [value for _, bound in conditions for value in bound]
    row = await (
        await tx.execute(f"SELECT {columns} FROM {_MEMBERS[of]} r", values)  # noqa: S608
    ).fetchone()
    assert row is not None
    return [int(row[f"c{place}"]) for place in range(len(conditions))]


async def client_ids(tx: Tx, condition: str, values: tuple[Any, ...]) -> set[str]:
    found = await tx.execute(
        f"SELECT r.client_id FROM collections_resource r WHERE {condition}",  # noqa: S608
        values,
    )
    return {row["client_id"] async for row in found}


async def user_ids(tx: Tx, condition: str, values: tuple[Any, ...]) -> list[int]:
    """The members of a collection of users, in the order of their numbers."""
    found = await tx.execute(
        f"SELECT r.id FROM {_MEMBERS[MemberType.USER]} r WHERE {condition} ORDER BY r.id",  # noqa: S608
        values,
    )
    return [row["id"] async for row in found]


async def object_ids(tx: Tx, condition: str, values: tuple[Any, ...]) -> set[tuple[str, str]]:
    """Tenant and object id of the users of a collection; groups are no users."""
    found = await tx.execute(
        f"SELECT r.tenant_id, r.object_id FROM {_MEMBERS[MemberType.USER]} r"  # noqa: S608
        f" WHERE r.kind = 'user' AND {condition}",
        values,
    )
    return {(row["tenant_id"], row["object_id"]) async for row in found}


async def collections(tx: Tx) -> list[Collection]:
    found = await tx.execute(
        f"SELECT {_COLLECTION} FROM collections_collection ORDER BY id"  # noqa: S608
    )
    return [_collection(row) async for row in found]


_LISTED = Source(
    "collections_collection c LEFT JOIN collections_collection l ON l.id = c.limiting_id"
    " LEFT JOIN collections_evaluation e ON e.collection_id = c.id",
    {
        "id": "c.id",
        "name": "c.name",
        "comment": "c.comment",
        "limiting_id": "c.limiting_id",
        "limiting_name": "coalesce(l.name, '')",
        "created_at": "c.created_at",
        "type": "c.type",
        "evaluated_at": "e.at",
        "evaluated_members": "e.members",
        "incremental": "c.incremental",
        "trouble": "c.trouble",
        "full_ms": "e.took_ms",
        "incremental_ms": "e.incremental_total_ms / nullif(e.incremental_runs, 0)",
        "by_cost": "coalesce(e.took_ms, 0)",
        "rule_count": "(SELECT count(*) FROM collections_rule n WHERE n.collection_id = c.id)",
        "by_name": "lower(c.name)",
        "by_limiting": "lower(coalesce(l.name, ''))",
    },
)
_LISTED_SEARCH = "lower(c.name) LIKE lower(%(part)s) OR lower(c.comment) LIKE lower(%(part)s) OR lower(c.id) LIKE lower(%(part)s)"
_LISTED_ORDER = {
    "name": "by_name",
    "limiting": "by_limiting",
    "rules": "rule_count",
    "cost": "by_cost",
}
COLLECTION_SORTS = ("id", "name", "type", "limiting", "rules", "created_at", "evaluated_at", "cost")
USER_SORTS = ("upn", "name", "mail", "discovered_at", "id", "kind")


async def listed(
    tx: Tx,
    search: str,
    order: tuple[str, bool],
    limit: int,
    offset: int,
    of: MemberType | None = None,
    only: Iterable[CollectionId] | None = None,
) -> tuple[list[Row], int]:
    """Collections (of devices or of users; `only` these) with what a list shows of them, and how
    many there are in all."""
    names = [name for name in _LISTED.columns if not name.startswith("by_")]
    where = [f"({_LISTED_SEARCH})"] if search else []
    where += ["c.type = %(type)s"] if of is not None else []
    bound: dict[str, Any] = {"part": _contained(search), "type": of.value if of is not None else ""}
    if only is not None:
        where.append("c.id = ANY(%(only)s)")
        bound["only"] = list(only)
    found = await rows(
        tx,
        _LISTED,
        names,
        where=where,
        parameters=bound,
        order=[(_LISTED_ORDER.get(order[0], order[0]), order[1])],
        limit=limit,
        offset=offset,
    )
    return found, await count_rows(tx, _LISTED, where, bound)


async def collection(tx: Tx, wanted: str) -> Collection | None:
    """By id or name."""
    row = await (
        await tx.execute(
            f"SELECT {_COLLECTION} FROM collections_collection"  # noqa: S608
            " WHERE id = upper(%(w)s) OR lower(name) = lower(%(w)s)"
            " ORDER BY id = upper(%(w)s) DESC LIMIT 1",
            {"w": wanted},
        )
    ).fetchone()
    return _collection(row) if row else None


async def save_description(tx: Tx, id: CollectionId, name: str, comment: str) -> bool:
    """False when another collection has the name."""
    try:
        async with tx.transaction():
            await tx.execute(
                "UPDATE collections_collection SET name = %s, comment = %s WHERE id = %s",
                (name, comment, id),
            )
    except UniqueViolation:
        return False
    return True


async def save_schedule(
    tx: Tx, id: CollectionId, incremental: bool, full_every_minutes: int
) -> None:
    """The next full evaluation comes as long after the last one as it now is to."""
    await tx.execute(
        "UPDATE collections_collection c SET incremental = %(incremental)s,"
        " full_every_minutes = %(every)s, full_due_at = CASE"
        # Who was left out until now is looked at anew.
        " WHEN %(incremental)s AND NOT c.incremental THEN c.created_at"
        " WHEN NOT EXISTS (SELECT 1 FROM collections_evaluation e WHERE e.collection_id = c.id)"
        " THEN c.created_at WHEN %(every)s = 0 THEN NULL"
        " ELSE (SELECT e.at FROM collections_evaluation e WHERE e.collection_id = c.id)"
        " + make_interval(mins => %(every)s) END WHERE c.id = %(id)s",
        {"id": id, "incremental": incremental, "every": full_every_minutes},
    )


async def delete_resource(tx: Tx, id: int) -> None:
    """Direct rules for it go with it."""
    await tx.execute("DELETE FROM collections_resource WHERE id = %s", (id,))


async def next_number(tx: Tx) -> int:
    row = await (
        await tx.execute("SELECT nextval('collections_collection_number') AS n")
    ).fetchone()
    assert row is not None
    return int(row["n"])


async def insert_collection(tx: Tx, made: Collection) -> bool:
    done = await tx.execute(
        "INSERT INTO collections_collection (id, name, comment, limiting_id, created_at,"
        " incremental, full_every_minutes, full_due_at, type)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (
            made.id,
            made.name,
            made.comment,
            made.limiting_id,
            made.created_at,
            made.incremental,
            made.full_every_minutes,
            made.created_at,
            made.type.value,
        ),
    )
    return done.rowcount == 1


async def delete_collection(tx: Tx, id: CollectionId) -> bool:
    """False when something is still deployed to it."""
    try:
        async with tx.transaction():
            await tx.execute("DELETE FROM collections_collection WHERE id = %s", (id,))
    except ForeignKeyViolation:
        return False
    return True


async def lock(tx: Tx) -> None:
    """One administrator at a time changes what limits what."""
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


async def save_limiting(tx: Tx, id: CollectionId, limiting_id: CollectionId) -> None:
    await tx.execute(
        "UPDATE collections_collection SET limiting_id = %s WHERE id = %s", (limiting_id, id)
    )


async def used_by(tx: Tx, id: CollectionId) -> list[tuple[str, CollectionId, str]]:
    """Collections that this one limits, or that a rule names: "limit", "include" or "exclude"."""
    found = await tx.execute(
        "SELECT 'limit' AS how, id, name FROM collections_collection WHERE limiting_id = %(id)s"
        " UNION SELECT r.kind, c.id, c.name FROM collections_rule r"
        " JOIN collections_collection c ON c.id = r.collection_id WHERE r.other_id = %(id)s"
        " ORDER BY name, how",
        {"id": id},
    )
    return [(row["how"], row["id"], row["name"]) async for row in found]


_RULE = (
    "collection_id, id, kind, name, query, coalesce(resource_id, user_id) AS resource_id, other_id"
)


async def with_direct(tx: Tx, among: Tables) -> set[CollectionId]:
    """Collections that have direct rules for any of these resources."""
    found = await tx.execute(
        f"SELECT collection_id FROM collections_rule JOIN {among.resource} s ON s.id = resource_id"  # noqa: S608
        f" UNION SELECT collection_id FROM collections_rule JOIN {among.user} s ON s.id = user_id"
    )
    return {row["collection_id"] async for row in found}


async def rules(
    tx: Tx, ids: Sequence[CollectionId], *, direct: bool = True
) -> list[tuple[CollectionId, Rule]]:
    """The rules of these collections, each with the collection that it is of. Direct rules can be
    many: whoever only evaluates them leaves them to the database."""
    found = await tx.execute(
        f"SELECT {_RULE} FROM collections_rule"  # noqa: S608
        " WHERE collection_id = ANY(%s) AND (%s OR kind <> 'direct') ORDER BY id",
        (list(ids), direct),
    )
    return [(row.pop("collection_id"), Rule(**row)) async for row in found]


async def every_rule(tx: Tx) -> list[tuple[CollectionId, Rule]]:
    """Query, include and exclude rules of all collections."""
    found = await tx.execute(
        f"SELECT {_RULE} FROM collections_rule WHERE kind <> 'direct' ORDER BY id"  # noqa: S608
    )
    return [(row.pop("collection_id"), Rule(**row)) async for row in found]


async def some_rules(
    tx: Tx, id: CollectionId, kind: str, search: str, limit: int, offset: int
) -> tuple[list[Rule], int]:
    """One collection's rules by pages: queries and other collections first, then devices."""
    where = (
        "collection_id = %(id)s AND (%(kind)s = '' OR kind = %(kind)s)"
        " AND (%(search)s = '' OR lower(name) LIKE lower(%(prefix)s))"
    )
    bound = {"id": id, "kind": kind, "search": search, "prefix": prefix(search)}
    found = await tx.execute(
        f"SELECT {_RULE} FROM collections_rule WHERE {where}"  # noqa: S608
        " ORDER BY kind = 'direct', kind, lower(name), id LIMIT %(limit)s OFFSET %(offset)s",
        {**bound, "limit": limit, "offset": offset},
    )
    some = [Rule(**{k: v for k, v in row.items() if k != "collection_id"}) async for row in found]
    row = await (
        await tx.execute(f"SELECT count(*) AS n FROM collections_rule WHERE {where}", bound)  # noqa: S608
    ).fetchone()
    return some, int(row["n"]) if row else 0


async def rules_version(tx: Tx, id: CollectionId) -> tuple[int, int]:
    """Another pair whenever a rule came or went: rules are never changed in place."""
    row = await (
        await tx.execute(
            "SELECT count(*) AS n, coalesce(max(id), 0) AS newest FROM collections_rule"
            " WHERE collection_id = %s",
            (id,),
        )
    ).fetchone()
    assert row is not None
    return int(row["n"]), int(row["newest"])


async def true_of(
    tx: Tx, of: MemberType, conditions: Sequence[tuple[str, tuple[Any, ...]]], resource_id: int
) -> list[bool]:
    """Which of the conditions hold for one device or user."""
    columns = ", ".join(f"({sql}) AS c{place}" for place, (sql, _) in enumerate(conditions))
    values = [value for _, bound in conditions for value in bound]
    row = await (
        await tx.execute(
            f"SELECT {columns} FROM {_MEMBERS[of]} r WHERE r.id = %s",  # noqa: S608
            (*values, resource_id),
        )
    ).fetchone()
    return [bool(row and row[f"c{place}"]) for place in range(len(conditions))]


async def true_of_client(
    tx: Tx, conditions: Sequence[tuple[str, tuple[Any, ...]]], client_id: str
) -> tuple[int, list[bool]] | None:
    """The resource of a client, and which of the conditions hold for it."""
    columns = "".join(f", ({sql}) AS c{place}" for place, (sql, _) in enumerate(conditions))
    values = [value for _, bound in conditions for value in bound]
    row = await (
        await tx.execute(
            f"SELECT r.id{columns} FROM collections_resource r WHERE r.client_id = %s",  # noqa: S608
            (*values, client_id),
        )
    ).fetchone()
    if row is None:
        return None
    return row["id"], [bool(row[f"c{place}"]) for place in range(len(conditions))]


async def add_rule(tx: Tx, collection_id: CollectionId, rule: Rule) -> bool:
    """False when there is such a rule already."""
    done = await tx.execute(
        "INSERT INTO collections_rule (collection_id, kind, name, query, resource_id, other_id)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (collection_id, rule.kind, rule.name, rule.query, rule.resource_id, rule.other_id),
    )
    return done.rowcount == 1


async def add_clients(tx: Tx, collection_id: CollectionId, client_ids: Sequence[str]) -> list[str]:
    """A direct rule for each of these clients' devices that has none yet: their names."""
    added = await tx.execute(
        "INSERT INTO collections_rule (collection_id, kind, name, query, resource_id)"
        " SELECT %s, 'direct', name, '', id FROM collections_resource WHERE client_id = ANY(%s)"
        " ON CONFLICT DO NOTHING RETURNING name",
        (collection_id, list(client_ids)),
    )
    return [row["name"] async for row in added]


async def add_plain_rules(
    tx: Tx, collection_id: CollectionId, rules: Sequence[Rule], of: MemberType
) -> None:
    """Direct, include and exclude rules, however many; those that are there already stay."""
    await tx.execute(
        "INSERT INTO collections_rule"  # noqa: S608
        f" (collection_id, kind, name, query, {NAMED_BY[of]}, other_id)"
        " SELECT %s, kind, name, '', resource_id, other_id"
        " FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[])"
        " AS wanted (kind, name, resource_id, other_id) ON CONFLICT DO NOTHING",
        (
            collection_id,
            [rule.kind for rule in rules],
            [rule.name for rule in rules],
            [rule.resource_id for rule in rules],
            [rule.other_id for rule in rules],
        ),
    )


async def remove_rule(tx: Tx, collection_id: CollectionId, id: int) -> str | None:
    """The name of the rule that is gone."""
    row = await (
        await tx.execute(
            "DELETE FROM collections_rule WHERE collection_id = %s AND id = %s RETURNING name",
            (collection_id, id),
        )
    ).fetchone()
    return row["name"] if row else None


async def remove_rules(tx: Tx, collection_id: CollectionId, ids: Sequence[int]) -> None:
    await tx.execute(
        "DELETE FROM collections_rule WHERE collection_id = %s AND id = ANY(%s)",
        (collection_id, list(ids)),
    )


async def named_resources(tx: Tx, wanted: Sequence[str]) -> dict[str, KnownResource]:
    """Many devices at once, by number, client id or name (the newest of that name)."""
    numbers = [item for item in wanted if item.isascii() and item.isdigit() and len(item) < 19]
    clients = [item for item in wanted if item[:5].upper() == "GUID:"]
    found = await tx.execute(
        f"SELECT DISTINCT ON (item) item, {_RESOURCE} FROM ("  # noqa: S608
        " SELECT n.item, 0 AS rank, r.* FROM unnest(%s::text[]) n(item)"
        "   JOIN collections_resource r ON r.id = n.item::bigint"
        " UNION ALL SELECT c.item, 0, r.* FROM unnest(%s::text[]) c(item)"
        "   JOIN collections_resource r ON r.client_id = 'GUID:' || upper(substr(c.item, 6))"
        " UNION ALL SELECT w.item, 1, r.* FROM unnest(%s::text[]) w(item)"
        "   JOIN collections_resource r ON lower(r.name) = lower(w.item)"
        ") r ORDER BY item, rank, discovered_at DESC, id DESC",
        (numbers, clients, list(wanted)),
    )
    return {row.pop("item"): KnownResource(**row) async for row in found}


async def named_users(tx: Tx, wanted: Sequence[str]) -> dict[str, KnownUser]:
    """Many users and groups at once, by number, object id or sign-in name, and groups by their name
    (the newest of that name)."""
    numbers = [item for item in wanted if item.isascii() and item.isdigit() and len(item) < 19]
    found = await tx.execute(
        f"SELECT DISTINCT ON (item) item, {_USER_COLUMNS} FROM ("  # noqa: S608
        " SELECT n.item, 0 AS rank, r.* FROM unnest(%s::text[]) n(item)"
        "   JOIN collections_known_user r ON r.id = n.item::bigint"
        " UNION ALL SELECT o.item, 0, r.* FROM unnest(%s::text[]) o(item)"
        "   JOIN collections_known_user r ON r.object_id = o.item"
        " UNION ALL SELECT w.item, 1, r.* FROM unnest(%s::text[]) w(item)"
        "   JOIN collections_known_user r ON lower(r.upn) = lower(w.item) AND r.kind = 'user'"
        " UNION ALL SELECT g.item, 2, r.* FROM unnest(%s::text[]) g(item)"
        "   JOIN collections_known_user r ON lower(r.name) = lower(g.item) AND r.kind = 'group'"
        ") r ORDER BY item, rank, discovered_at DESC, id DESC",
        (numbers, list(wanted), list(wanted), list(wanted)),
    )
    return {row.pop("item"): KnownUser(**row) async for row in found}
