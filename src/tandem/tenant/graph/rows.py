"""Rows of a resource: what a request asks for, brought from where they are, and shown as JSON.

What depends only on the resource and on $select is worked out once and kept (`plan`): a request
then does no work per field but to read it.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2s
from typing import Any

import msgspec

from tandem.infra import listing
from tandem.infra.listing import Row, Source
from tandem.protocols import odata
from tandem.protocols.odata import Column, Primitive
from tandem.tenant.graph.model import BadProperty, Call, Family, Field, Resource, missing

_KEPT_PLANS = 2_048
_GUID = re.compile(r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")

_Reader = tuple[str, str, Callable[[Row], Any] | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one $select of one resource needs.

    `shapes` tell by type what an item looks like before a row fills it in, and what fills it in;
    `rest` tells which properties of an open resource are shown: None is all.
    """

    columns: tuple[str, ...]
    shapes: Mapping[str, "Shape"]
    loads: tuple[Field, ...]
    rest: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Shape:
    """`empty` holds every property in order, each with what stands for "not set"; `filled` are
    name, column and function of those that a row may have a value of."""

    empty: Mapping[str, Any]
    filled: tuple[_Reader, ...]


def every_field(resource: Resource) -> tuple[Field, ...]:
    """The fields of the resource's type and of all types that derive from it."""
    return (*resource.fields, *(item for more in resource.derived.values() for item in more))


def fields_of(resource: Resource, type_name: str) -> tuple[Field, ...]:
    """The fields of one type: its own and those of the types it derives from."""
    wanted, found = type_name, list[Field]()
    for _ in range(8):
        if wanted not in resource.derived and wanted not in resource.bases:
            break
        found[:0] = resource.derived.get(wanted, ())
        wanted = resource.bases.get(wanted, resource.type)
    return (*resource.fields, *found)


@lru_cache(maxsize=_KEPT_PLANS)
def plan(resource: Resource, beta: bool, select: tuple[str, ...], *, single: bool = False) -> Plan:
    """Raises BadProperty for a $select of what a directory object does not have."""
    every = every_field(resource)
    available = {
        item.name.lower(): item for item in every if item.readable and (beta or not item.beta)
    }
    wanted = {name.lower() for name in select}
    if not wanted:
        chosen = {name for name, item in available.items() if item.shown}
    elif "*" in wanted:
        chosen = set(available)
    else:
        navigations = {item.name.lower() for item in resource.navigations}
        unknown = wanted - set(available) - navigations
        if resource.family is Family.DIRECTORY and not resource.open and unknown:
            raise no_property(resource, next(n for n in select if n.lower() in unknown))
        chosen = (wanted & set(available)) | ({"id"} & set(available))
    types = {resource.type, *resource.derived, *resource.bases}
    shapes = {
        name: _shape(
            [
                item
                for item in fields_of(resource, name)
                if item.name.lower() in chosen and item.readable and (beta or not item.beta)
            ]
        )
        for name in types
    }
    columns = [name for key in sorted(chosen) for name in available[key].columns]
    if isinstance(resource.rows, Source):
        columns += [resource.type_column] if resource.type_column else []
        # Only a single object says its version when items do not.
        columns += [resource.etag] if resource.etag and (resource.tells_etag or single) else []
        columns += ["properties"] if resource.open else []
    return Plan(
        tuple(dict.fromkeys(columns)),
        shapes,
        tuple(available[name] for name in chosen if available[name].load is not None),
        None if not wanted or "*" in wanted else frozenset(wanted),
    )


def _shape(fields: Sequence[Field]) -> Shape:
    empty = {
        item.name: [] if item.collection and item.initial is None else item.initial
        for item in fields
    }
    filled = tuple(
        (
            item.name,
            item.source if item.load is None else f"@{item.name}",
            None if item.load is not None else item.value,
        )
        for item in fields
        if not item.constant
    )
    return Shape(empty, filled)


def no_property(resource: Resource, name: str) -> BadProperty:
    return BadProperty(
        f"Could not find a property named '{name}' on type 'microsoft.graph.{resource.type}'.",
        cure="Leave it out, or check its spelling.",
        target=name,
    )


def type_of(resource: Resource, row: Row) -> str:
    if resource.typed is not None:
        return resource.typed(row)
    if resource.type_column:
        return str(row[resource.type_column])
    return resource.type


def is_polymorphic(resource: Resource) -> bool:
    return resource.typed is not None or bool(resource.type_column)


@lru_cache(maxsize=512)
def filter_columns(resource: Resource) -> Mapping[str, Column]:
    """What $filter may name: every property that is a plain column, or says how to look in it."""
    source = resource.rows
    assert isinstance(source, Source)
    columns = {}
    for item in every_field(resource):
        name = item.name.lower()
        sql = item.sql or (source.columns.get(item.source, "") if item.value is None else "")
        if item.has is not None:
            columns[name] = Column("", item.primitive, item.has)
        elif sql and item.collection:
            columns[name] = Column(f"to_jsonb({sql})", collection=True)
        elif sql:
            json = item.primitive is Primitive.COMPLEX
            columns[name] = Column(
                f"to_jsonb({sql})" if json else sql, item.primitive, json=json, choices=item.choices
            )
    if resource.open and "properties" in source.columns:
        columns[odata.REST] = Column(source.columns["properties"], json=True)
    return columns


# ---------------------------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class Page:
    rows: Sequence[Row]
    total: int | None
    token: str


def page_size(resource: Resource, call: Call) -> int:
    if call.query.top is None:
        return resource.default_page
    return min(call.query.top, resource.longest_page)


async def page(resource: Resource, call: Call, asked: Plan) -> Page:
    """One page of a collection, in the order asked for."""
    size = page_size(resource, call)
    position = read_position(call.query.skiptoken)
    if isinstance(resource.rows, Source):
        return await _page_in_sql(resource, resource.rows, call, asked, size, position)
    return await _page_in_memory(resource, call, size, position)


def conditions(resource: Resource, source: Source, call: Call) -> tuple[list[str], dict[str, Any]]:
    """What narrows the rows: the path, a cast in it, $filter and $search."""
    where: list[str] = []
    parameters: dict[str, Any] = {}
    if resource.scope is not None:
        condition, values = resource.scope(call)
        where.append(condition)
        parameters.update(values)
    if call.cast and resource.type_column:
        where.append(f"lower({source.columns[resource.type_column]}) = ANY(%(cast)s)")
        parameters["cast"] = list(resource.types(call.cast))
    asked = call.query.condition
    if asked is not None:
        type_sql = source.columns[resource.type_column] if resource.type_column else ""
        text, values = odata.to_sql(
            asked, filter_columns(resource), resource.types, type_sql or f"'{resource.type}'"
        )
        where.append(text)
        parameters.update(values)
    return where, parameters


async def _page_in_sql(
    resource: Resource,
    source: Source,
    call: Call,
    asked: Plan,
    size: int,
    position: Mapping[str, Any],
) -> Page:
    where, parameters = conditions(resource, source, call)
    counted = list(where)
    order = []
    for item in call.query.orderby:
        known = next(
            (f for f in every_field(resource) if f.name.lower() == item.name.lower()), None
        )
        if known is None or known.source not in source.columns:
            raise no_property(resource, item.name)
        order.append((known.source, item.descending))
    offset = int(position.get("offset", call.query.skip))
    if not order and "after" in position:
        where.append(f"{source.columns[source.key]} > %(after)s")
        parameters["after"] = position["after"]
        offset = 0
    found = await listing.rows(
        call.tx,
        source,
        asked.columns,
        where=where,
        parameters=parameters,
        order=order,
        limit=size + 1,
        offset=offset,
    )
    total = None
    if (call.query.count or resource.family is Family.INTUNE) and not position:
        total = len(found)
        if offset or total > size:
            total = await listing.count(call.tx, source, counted, parameters)
    token = ""
    if len(found) > size > 0:
        found = found[:size]
        last = odata.render(found[-1][source.key])
        token = position_token({"offset": offset + size} if order else {"after": last})
    return Page(found[:size], total, token)


async def _page_in_memory(
    resource: Resource, call: Call, size: int, position: Mapping[str, Any]
) -> Page:
    assert not isinstance(resource.rows, Source)
    rows = list(await resource.rows(call))
    if call.cast and is_polymorphic(resource):
        wanted = resource.types(call.cast)
        rows = [row for row in rows if type_of(resource, row).lower() in wanted]
    condition = call.query.condition
    if condition is not None:
        types = resource.types
        rows = [row for row in rows if odata.matches(condition, plain(resource, row), types)]
    for order in reversed(call.query.orderby):
        name = order.name.lower()
        rows.sort(key=lambda row: _sortable(row, resource, name), reverse=order.descending)
    offset = int(position.get("offset", call.query.skip))
    chosen = rows[offset : offset + size]
    token = position_token({"offset": offset + size}) if 0 < size < len(rows) - offset else ""
    wants_count = call.query.count or resource.family is Family.INTUNE
    return Page(chosen, len(rows) if wants_count and not position else None, token)


def plain(resource: Resource, row: Row) -> dict[str, Any]:
    """The row by Graph's names, for conditions."""
    held = dict(row.get("properties") or {}) if resource.open else {}
    name = type_of(resource, row)
    for item in fields_of(resource, name):
        if item.load is None:
            held[item.name] = _read(item, row)
    if is_polymorphic(resource):
        held["@odata.type"] = f"#microsoft.graph.{name}"
    return held


def _read(item: Field, row: Row) -> Any:
    shape = _shape([item])
    for _, column, compute in shape.filled:
        held = compute(row) if compute is not None else row.get(column)
        return shape.empty[item.name] if held is None else held
    return item.initial


def _sortable(row: Row, resource: Resource, name: str) -> tuple[bool, Any]:
    for item in every_field(resource):
        if item.name.lower() == name:
            held = _read(item, row)
            if isinstance(held, int | float) and not isinstance(held, bool):
                return True, f"{held:030.6f}"
            return held is not None, str(odata.render(held)).lower()
    if resource.open:
        return False, ""
    raise no_property(resource, name)


def position_token(position: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def read_position(token: str) -> dict[str, Any]:
    """Where a page begins. Raises BadProperty."""
    if not token:
        return {}
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        position = msgspec.json.decode(raw, type=dict[str, str | int])
        offset = position.get("offset", 0)
        if isinstance(offset, int) and 0 <= offset < 2**31:
            return position
    except (ValueError, msgspec.DecodeError):
        pass
    raise BadProperty(
        "The $skiptoken is not one of ours.", cure="Follow @odata.nextLink as it was given."
    )


# ---------------------------------------------------------------------------------- one item


async def one(resource: Resource, call: Call, key: str, columns: Sequence[str] = ()) -> Row:
    """The item with this key, or NotFound."""
    if isinstance(resource.rows, Source):
        source = resource.rows
        where = [f"{source.columns[resource.key]}::text = %(key)s"]
        if resource.key_is_guid:
            where = [f"{source.columns[resource.key]} = %(key)s::uuid"]
            if not is_guid(key):
                raise missing(key)
        parameters: dict[str, Any] = {"key": key.lower() if resource.key_is_guid else key}
        if resource.scope is not None:
            condition, values = resource.scope(call)
            where.append(condition)
            parameters.update(values)
        found = await listing.rows(
            call.tx, source, columns, where=where, parameters=parameters, limit=1
        )
        if found:
            return found[0]
        raise missing(key)
    for row in await resource.rows(call):
        if str(row[resource.key]).lower() == key.lower():
            return row
    raise missing(key)


async def by_ids(
    call: Call, resource: Resource, ids: Sequence[str], columns: Sequence[str]
) -> Sequence[Row]:
    if not ids:
        return []
    if isinstance(resource.rows, Source):
        cast = "::uuid[]" if resource.key_is_guid else "::text[]"
        return await listing.rows(
            call.tx,
            resource.rows,
            columns,
            where=[f"{resource.rows.columns[resource.key]} = ANY(%(ids)s{cast})"],
            parameters={"ids": list(ids)},
        )
    wanted = set(ids)
    return [row for row in await resource.rows(call) if str(row[resource.key]) in wanted]


def is_guid(text: str) -> bool:
    return _GUID.match(text) is not None


async def resolve(resource: Resource, call: Call, alternate: str, value: str) -> str:
    """The key that an alternate key or another name of the item stands for."""
    if alternate and alternate.lower() != resource.key:
        column = {name.lower(): item for name, item in resource.alternate_keys.items()}.get(
            alternate.lower()
        )
        if column is None:
            raise missing(value)
        if not isinstance(resource.rows, Source):
            for row in await resource.rows(call):
                if str(row[column]).lower() == value.lower():
                    return str(row[resource.key])
            raise missing(value)
        source = resource.rows
        found = await listing.rows(
            call.tx,
            source,
            [],
            where=[f"lower({source.columns[column]}::text) = lower(%(value)s)"],
            parameters={"value": value},
            limit=1,
        )
        if not found:
            raise missing(value)
        return str(found[0][source.key])
    if resource.resolve is not None and not is_guid(value):
        key = await resource.resolve(call, value)
        if key is None:
            raise missing(value)
        return key
    return value


# ---------------------------------------------------------------------------------- as JSON


async def items(
    resource: Resource, call: Call, asked: Plan, rows: Sequence[Row], *, typed: bool | None = None
) -> list[dict[str, Any]]:
    """The rows as JSON objects: every field asked for, whether it has a value or not."""
    typed = is_polymorphic(resource) if typed is None else typed
    key = resource.rows.key if isinstance(resource.rows, Source) else resource.key
    if asked.loads and rows:
        rows = [dict(row) for row in rows]
        for item in asked.loads:
            assert item.load is not None
            found = await item.load(call, rows)
            for row in rows:
                row[f"@{item.name}"] = found.get(str(row[key]))
    polymorphic = is_polymorphic(resource)
    name, shape = resource.type, asked.shapes[resource.type]
    answers = []
    for row in rows:
        if polymorphic:
            name = type_of(resource, row)
            shape = asked.shapes.get(name, asked.shapes[resource.type])
        answer: dict[str, Any] = {"@odata.type": f"#microsoft.graph.{name}"} if typed else {}
        if resource.etag and resource.tells_etag:
            answer["@odata.etag"] = etag(row[resource.etag])
        answer.update(shape.empty)
        for shown, column, compute in shape.filled:
            held = compute(row) if compute is not None else row.get(column)
            if held is not None:
                answer[shown] = held
        if resource.open:
            for shown, held in (row.get("properties") or {}).items():
                if asked.rest is None or shown.lower() in asked.rest:
                    answer.setdefault(shown, held)
        answers.append(answer)
    return answers


def etag(value: Any) -> str:
    """A weak entity tag: it changes when the column does."""
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return f'W/"{blake2s(text.encode(), digest_size=9).hexdigest()}"'
