"""Classes of the SMS provider, read-only: names and properties are the field's."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tandem.infra import listing
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.infra.listing import Row, Source
from tandem.protocols import odata
from tandem.site import collections, properties

PAGE = 1000

_PATH = re.compile(r"([A-Za-z0-9_]{1,64})(?:\((.{1,200})\)|/(.{1,200}))?/?")


class NoSuchClass(AppError):
    kind, code = Kind.NOT_FOUND, "adminservice.no-such-class"


class NoSuchObject(AppError):
    kind, code = Kind.NOT_FOUND, "adminservice.no-such-object"


@dataclass(frozen=True, slots=True)
class InDatabase:
    """A class whose objects are rows: filtered, ordered and counted there."""

    surface: str
    name: str
    key: str
    source: Source
    # Of what is no text.
    primitives: Mapping[str, odata.Primitive]


@dataclass(frozen=True, slots=True)
class InMemory:
    """A class with few objects, which are computed."""

    surface: str
    name: str
    key: str
    read: Callable[[Tx], Awaitable[list[Row]]]


Class = InDatabase | InMemory


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[Row]
    total: int
    next_skip: int | None


def read_path(path: str) -> tuple[str, str | None]:
    """The class, and the key of one object: `Class`, `Class(7)`, `Class('A')` or `Class/A`."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise NoSuchClass(
            "The path names no class.", cure="Write it like /AdminService/wmi/SMS_R_System."
        )
    key = found[2] or found[3]
    return found[1], key.strip("'") if key else None


def kind(surface: str, name: str) -> Class:
    """Raises NoSuchClass."""
    for known in _CLASSES:
        if (known.surface, known.name.lower()) == (surface.lower(), name.lower()):
            return known
    names = ", ".join(item.name for item in _CLASSES if item.surface == surface.lower())
    raise NoSuchClass(
        f"The AdminService has no {surface}/{name} here.",
        cure=f"Here are: {names}." if names else "Use /AdminService/wmi or /AdminService/v1.0.",
    )


async def one(tx: Tx, kind: Class, key: str, query: odata.Query) -> Row:
    """Raises NoSuchObject."""
    if isinstance(kind, InMemory):
        found = [row for row in await kind.read(tx) if str(row[kind.key]).lower() == key.lower()]
    else:
        column = f"({kind.source.columns[kind.key]})::text = %(key)s"
        rows = await listing.rows(
            tx, kind.source, list(kind.source.columns), where=[column], parameters={"key": key}
        )
        found = [_named(kind, row) for row in rows]
    if not found:
        raise NoSuchObject(f"There is no {kind.name} {key!r}.")
    return _selected(found[0], query.select)


async def page(tx: Tx, kind: Class, query: odata.Query) -> Page:
    """Raises Invalid for a property that is not there, and what the filter raises."""
    limit = min(query.top if query.top is not None else PAGE, PAGE)
    if isinstance(kind, InMemory):
        rows = [
            r for r in await kind.read(tx) if not query.filter or odata.matches(query.filter, r)
        ]
        for order in reversed(query.orderby):
            name = _property(order.name, rows[0]) if rows else order.name
            rows.sort(key=lambda row: str(row[name]).lower(), reverse=order.descending)
        total, rows = len(rows), rows[query.skip : query.skip + limit]
    else:
        total, rows = await _rows(tx, kind, query, limit)
    shown = [_selected(row, query.select) for row in rows]
    after = query.skip + len(rows)
    whole = query.top is not None and query.top <= limit
    return Page(shown, total, after if rows and after < total and not whole else None)


async def _rows(tx: Tx, kind: InDatabase, query: odata.Query, limit: int) -> tuple[int, list[Row]]:
    where: list[str] = []
    parameters: dict[str, Any] = {}
    if query.filter is not None:
        columns = {
            name.lower(): odata.Column(sql, kind.primitives.get(name, odata.Primitive.STRING))
            for name, sql in kind.source.columns.items()
        }
        sql, parameters = odata.to_sql(query.filter, columns)
        where = [sql]
    names = list(kind.source.columns)
    order = [
        (_property(item.name, dict.fromkeys(names)), item.descending) for item in query.orderby
    ]
    rows = await listing.rows(
        tx,
        kind.source,
        names,
        where=where,
        parameters=parameters,
        order=order,
        limit=limit,
        offset=query.skip,
    )
    total = await listing.count(tx, kind.source, where, parameters)
    return total, [_named(kind, row) for row in rows]


def _named(kind: InDatabase, row: Row) -> Row:
    """PostgreSQL folds the names of columns; the field's names have capitals."""
    return {name: row[name.lower()] for name in kind.source.columns}


def _selected(row: Row, names: tuple[str, ...]) -> Row:
    return {(known := _property(name, row)): row[known] for name in names} if names else row


def _property(name: str, row: Mapping[str, Any]) -> str:
    for known in row:
        if known.lower() == name.lower():
            return known
    raise Invalid(f"There is no property {name!r}.", cure=f"Here are: {', '.join(row)}.")


async def _collections(tx: Tx) -> list[Row]:
    every = await collections.collections(tx)
    names = {item.id: item.name for item in every}
    return [
        {
            "CollectionID": item.id,
            "Name": item.name,
            "Comment": item.comment,
            "CollectionType": 2,
            "LimitToCollectionID": item.limiting_id or "",
            "LimitToCollectionName": names[item.limiting_id] if item.limiting_id else "",
            "MemberCount": await collections.count(tx, item.id),
            "MemberClassName": f"SMS_CM_RES_COLL_{item.id}",
            "IsBuiltIn": item.id == collections.ALL_SYSTEMS,
        }
        for item in every
    ]


async def _site(tx: Tx) -> list[Row]:
    here = await properties.site(tx)
    return [{"SiteCode": here.code, "SiteName": here.name, "Type": 2, "Status": 1}]


_INTEGER, _TIME = odata.Primitive.INTEGER, odata.Primitive.TIME
_CLASSES: tuple[Class, ...] = (
    InDatabase(
        "wmi",
        "SMS_R_System",
        "ResourceId",
        collections.SYSTEMS,
        {"ResourceId": _INTEGER, "Client": _INTEGER, "CreationDate": _TIME},
    ),
    InMemory("wmi", "SMS_Collection", "CollectionID", _collections),
    InMemory("wmi", "SMS_Site", "SiteCode", _site),
    InDatabase(
        "v1.0",
        "Device",
        "MachineId",
        collections.DEVICES,
        {"MachineId": _INTEGER, "IsClient": _INTEGER},
    ),
)
