"""Reading, writing and calling objects of a class, by its description alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from tandem.infra import listing
from tandem.infra.listing import Row, Source
from tandem.protocols import odata
from tandem.protocols.odata import Primitive
from tandem.site.administrators import NotAllowed, Role
from tandem.site.adminservice import bodies, classes
from tandem.site.adminservice.model import (
    BadProperty,
    Body,
    Call,
    Changed,
    Class,
    Key,
    Method,
    NoSuchObject,
    Property,
)
from tandem.site.adminservice.paths import KeyPart

# Scripts do not follow next links of `wmi/`: no page is shorter than the sites that we know.
PAGE = 5000
_FLAGS = {Role.READ_ONLY_ANALYST: 1, Role.OPERATIONS_ADMINISTRATOR: 1 + 2 + 4 + 1024}
_FLAGS[Role.INFRASTRUCTURE_ADMINISTRATOR] = _FLAGS[Role.READ_ONLY_ANALYST]
_FLAGS[Role.FULL_ADMINISTRATOR] = _FLAGS[Role.OPERATIONS_ADMINISTRATOR]


@dataclass(frozen=True, slots=True)
class Page:
    """`total` is None unless it was asked for; `next_skip` is None on the last page."""

    rows: list[Row]
    total: int | None
    next_skip: int | None


# ------------------------------------------------------------------------------- reading


async def page(call: Call, kind: Class, query: odata.Query) -> Page:
    """Raises BadProperty for a name that is not there, and what the filter raises."""
    _refuse_others(query)
    limit = min(query.top if query.top is not None else PAGE, PAGE)
    rows, total = await _rows(call, kind, query, limit + 1)
    more = len(rows) > limit
    rows = rows[:limit]
    whole = query.top is not None and query.top <= limit
    shown = await _shown(call, kind, rows, query, single=False)
    return Page(shown, total, query.skip + limit if more and not whole and limit else None)


async def count(call: Call, kind: Class, query: odata.Query) -> int:
    _refuse_others(query)
    _, total = await _rows(call, kind, odata.Query(filter=query.filter, count=True), 1)
    assert total is not None
    return total


async def one(call: Call, kind: Class, key: Key, query: odata.Query) -> Row:
    """With its lazy properties. Raises NoSuchObject."""
    _refuse_others(query)
    rows = [await _row(call, kind, key)]
    return (await _shown(call, kind, rows, query, single=True))[0]


def check_reach(call: Call, kind: Class) -> None:
    """Raises NotAllowed for a class that shows everything, to who may not see everything."""
    if not kind.narrowed and not call.who.over_all:
        raise NotAllowed(
            f"{call.who.name} is {call.who.title}; {kind.name} needs All: all scopes, and no"
            " limiting collection.",
            cure="Read devices and collections, or ask a full administrator to widen your reach.",
        )


def read_key(kind: Class, parts: Sequence[KeyPart]) -> Key:
    """The key that a path writes. Raises NoSuchObject for what no object's key can be."""
    found: Key = {}
    for place, part in enumerate(parts):
        name = part.name or (kind.key[place] if place < len(kind.key) else "")
        wanted = next((known for known in kind.key if known.lower() == name.lower()), None)
        if wanted is None or wanted in found:
            break
        if kind.property(wanted).primitive is Primitive.INTEGER:
            if not (part.text.isascii() and part.text.isdigit() and len(part.text) < 19):
                break
            found[wanted] = int(part.text)
        else:
            found[wanted] = part.text
    if len(found) != len(kind.key) or len(parts) != len(kind.key):
        said = ", ".join(part.text for part in parts)[:100]
        raise NoSuchObject(
            f"There is no {kind.name} {said!r}.", cure=f"Its key is {', '.join(kind.key)}."
        )
    return found


def _refuse_others(query: odata.Query) -> None:
    for name, given in (
        ("search", query.search),
        ("skiptoken", query.skiptoken),
        ("deltatoken", query.deltatoken),
    ):
        if given:
            raise odata.BadOption(f"${name} is not served here.", cure="Use $filter and $skip.")


async def _row(call: Call, kind: Class, key: Key) -> Row:
    items = tuple(
        odata.Compare("eq", odata.Path((name,)), odata.Literal(value))
        for name, value in key.items()
    )
    condition = items[0] if len(items) == 1 else odata.And(items)
    rows, _ = await _rows(call, kind, odata.Query(filter=condition), 1)
    if not rows:
        said = ", ".join(str(value) for value in key.values())
        raise NoSuchObject(
            f"There is no {kind.name} {said!r}.", cure="List the class to see what is."
        )
    return rows[0]


async def _rows(
    call: Call, kind: Class, query: odata.Query, limit: int
) -> tuple[list[Row], int | None]:
    order = [(kind.property(item.name), item.descending) for item in query.orderby]
    for item, _ in order:
        if item.many or item.lazy or item.complex:
            raise BadProperty(f"{kind.name} cannot be ordered by {item.name}.")
    if kind.read is not None:
        return await _computed(call, kind, query, order, limit)
    origin, bound = kind.origin, dict[str, Any]()
    if not isinstance(origin, str):
        sql, given = await origin(call, query.filter)
        origin, bound = sql, dict(given)
    columns = {item.name: item.sql for item in kind.properties if item.sql}
    source = Source(origin, {**columns, "_key": _key_sql(kind)}, key="_key")
    parameters = {"now": call.now, "site": call.site, **bound}
    where: list[str] = []
    if query.filter is not None:
        sql, values = odata.to_sql(_lenient(kind, query.filter), _columns(kind))
        where, parameters = [sql], {**parameters, **values}
    rows = await listing.rows(
        call.tx,
        source,
        list(columns),
        where=where,
        parameters=parameters,
        order=[(item.name, down) for item, down in order],
        limit=limit,
        offset=query.skip,
    )
    total = None
    if query.count:
        total = await listing.count(call.tx, source, where, parameters)
    # PostgreSQL folds the names of columns; the field's names have capitals.
    return [{name: row[name.lower()] for name in columns} for row in rows], total


def _key_sql(kind: Class) -> str:
    parts = [kind.property(name).sql for name in kind.key]
    return parts[0] if len(parts) == 1 else f"ROW({', '.join(parts)})"


def _columns(kind: Class) -> dict[str, odata.Column]:
    return {
        item.name.lower(): odata.Column(f"to_jsonb({item.sql})", collection=True)
        if item.many
        else odata.Column(item.sql, item.primitive)
        for item in kind.properties
        if item.sql
    }


async def _computed(
    call: Call,
    kind: Class,
    query: odata.Query,
    order: Sequence[tuple[Property, bool]],
    limit: int,
) -> tuple[list[Row], int | None]:
    assert kind.read is not None
    rows = await kind.read(call)
    asked = {name.lower() for name in _names(query.filter)} if query.filter is not None else set()
    for name in asked:
        if kind.property(name).lazy:
            raise BadProperty(f"{kind.name} cannot be filtered by {name!r}.")
    asked |= {item.name.lower() for item, _ in order}
    await _load(call, rows, [item for item in kind.properties if item.name.lower() in asked])
    if query.filter is not None:
        condition = _lenient(kind, query.filter)
        rows = [row for row in rows if odata.matches(condition, row)]
    for item, down in reversed([*order, *((kind.property(name), False) for name in kind.key)]):
        rows.sort(key=lambda row, name=item.name: _rank(row[name]), reverse=down)  # type: ignore[misc]
    return rows[query.skip : query.skip + limit], len(rows) if query.count else None


def _rank(value: Any) -> tuple[bool, Any]:
    return value is None, value.lower() if isinstance(value, str) else (value or 0)


def _lenient(kind: Class, expression: odata.Expression) -> odata.Expression:
    """Truth values that are compared with 0 and 1, as WQL writes them."""
    match expression:
        case odata.And(items):
            return odata.And(tuple(_lenient(kind, item) for item in items))
        case odata.Or(items):
            return odata.Or(tuple(_lenient(kind, item) for item in items))
        case odata.Not(item):
            return odata.Not(_lenient(kind, item))
        case odata.Compare(
            operator, odata.Path((name,)) as path, odata.Literal(0 | 1 as value)
        ) if kind.property(name).primitive is Primitive.BOOLEAN:
            return odata.Compare(operator, path, odata.Literal(bool(value)))
    return expression


def _names(expression: odata.Expression) -> Iterable[str]:
    """The properties that a condition is about."""
    match expression:
        case odata.Path(names):
            yield names[0]
        case odata.And(items) | odata.Or(items):
            for item in items:
                yield from _names(item)
        case odata.Not(item):
            yield from _names(item)
        case odata.Compare(_, left, right):
            yield from _names(left)
            yield from _names(right)
        case odata.In(left, _):
            yield from _names(left)
        case odata.Function(_, arguments):
            for item in arguments:
                yield from _names(item)
        case odata.Lambda(_, collection, _, _):
            yield from _names(collection)


async def _load(call: Call, rows: Sequence[Row], wanted: Iterable[Property]) -> None:
    for item in wanted:
        if item.load is not None and rows and item.name not in rows[0]:
            for row, value in zip(rows, await item.load(call, rows), strict=True):
                row[item.name] = value


async def _shown(
    call: Call, kind: Class, rows: list[Row], query: odata.Query, *, single: bool
) -> list[Row]:
    """Rows as they stand in an answer: selected, filled in, with what OData and WMI add."""
    chosen = [kind.property(name) for name in query.select if name != "*"] or kind.properties
    await _load(call, rows, [item for item in chosen if single or not item.lazy])
    expanded = await _expanded(call, kind, rows, query.expand)
    shown = []
    for place, row in enumerate(rows):
        made: dict[str, Any] = {} if kind.surface != "wmi" else {"@odata.etag": etag(kind, row)}
        if kind.surface == "wmi" and not query.select:
            made["__LAZYPROPERTIES"] = _lazy(kind)
        for item in chosen:
            hidden = item.lazy and not single
            made[item.name] = None if hidden else odata.render(row.get(item.name))
        shown.append({**made, **expanded[place]})
    return shown


async def _expanded(
    call: Call, kind: Class, rows: list[Row], expand: Sequence[odata.Expand]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{} for _ in rows]
    for wanted in expand:
        navigation = next(
            (item for item in kind.navigations if item.name.lower() == wanted.name.lower()), None
        )
        if navigation is None:
            names = ", ".join(item.name for item in kind.navigations)
            raise odata.BadOption(
                f"{kind.name} has nothing to expand by the name {wanted.name!r}.",
                cure=f"It has: {names}." if names else "Leave out $expand.",
            )
        target = classes.find("v1.0", navigation.target)
        check_reach(call, target)
        keys = list(dict.fromkeys(row[navigation.by] for row in rows))
        objects: dict[Any, Row] = {}
        for start in range(0, len(keys), 100):
            values = tuple(odata.Literal(key) for key in keys[start : start + 100])
            condition = odata.In(odata.Path((target.key[0],)), values)
            held, _ = await _rows(call, target, odata.Query(filter=condition), len(values))
            ids = [row[target.key[0]] for row in held]
            shown = await _shown(call, target, held, wanted.query, single=False)
            objects.update(zip(ids, shown, strict=True))
        for row, extra in zip(rows, found, strict=True):
            extra[navigation.name] = objects.get(row[navigation.by])
    return found


# ------------------------------------------------------------------------------- what WMI adds


def etag(kind: Class, row: Mapping[str, Any]) -> str:
    """Changes when anything of the object does that it has by itself."""
    held = [row.get(item.name) for item in kind.properties if item.held]
    return f'W/"{blake2b(msgspec.json.encode(held, enc_hook=str), digest_size=9).hexdigest()}"'


def _lazy(kind: Class) -> list[str]:
    return [item.name for item in kind.properties if item.lazy]


def system_properties(call: Call, kind: Class, row: Mapping[str, Any]) -> dict[str, Any]:
    """The WMI system properties of an object, as the answer to its creation has them."""
    said = ",".join(
        f"{name}={row[name]}" if isinstance(row[name], int) else f'{name}="{row[name]}"'
        for name in kind.key
    )
    path = f"{kind.name}.{said}"
    namespace = f"root\\sms\\site_{call.site}"
    return {
        "__LAZYPROPERTIES": _lazy(kind),
        "__QUALIFIER_SECURITYVERBS": _FLAGS[call.who.role],
        "__GENUS": 2,  # An instance, and no class.
        "__CLASS": kind.name,
        "__SUPERCLASS": kind.superclass,
        "__DYNASTY": "SMS_BaseClass",
        "__RELPATH": path,
        "__PROPERTY_COUNT": len(kind.properties),
        "__DERIVATION": list(dict.fromkeys([kind.superclass, "SMS_BaseClass"])),
        "__SERVER": call.others.server,
        "__NAMESPACE": namespace,
        "__PATH": f"\\\\{call.others.server}\\{namespace}:{path}",
    }


# ------------------------------------------------------------------------------- writing


async def create(call: Call, kind: Class, body: Mapping[str, Any]) -> tuple[Key, Row]:
    """The new object's key, and the object with everything that WMI says of it."""
    assert kind.create is not None
    key = await kind.create(call, bodies.for_create(kind, body))
    made = await one(call, kind, key, odata.Query())
    return key, {**made, **system_properties(call, kind, made)}


async def update(
    call: Call, kind: Class, key: Key, body: Mapping[str, Any], if_match: str
) -> tuple[Key, Row]:
    """The key as the object has it, and the object afterwards. Raises NoSuchObject, Changed."""
    assert kind.update is not None
    before = await _match(call, kind, key, if_match)
    (shown,) = await _shown(call, kind, [before], odata.Query(), single=True)
    key = {name: before[name] for name in kind.key}
    await kind.update(call, key, bodies.for_update(kind, body, shown))
    return key, await one(call, kind, key, odata.Query())


async def delete(call: Call, kind: Class, key: Key, if_match: str) -> Key:
    """Raises NoSuchObject, Changed."""
    assert kind.delete is not None
    row = await _match(call, kind, key, if_match)
    key = {name: row[name] for name in kind.key}
    await kind.delete(call, key)
    return key


async def invoke(
    call: Call, kind: Class, key: Key, method: Method, body: Mapping[str, Any]
) -> Body:
    """The out parameters. Raises NoSuchObject, and what the method raises."""
    arguments = bodies.for_method(method, body)
    if not method.static:
        row = await _row(call, kind, key)
        key = {name: row[name] for name in kind.key}
    return {"ReturnValue": 0, **await method.run(call, key, arguments)}


async def _match(call: Call, kind: Class, key: Key, if_match: str) -> Row:
    row = await _row(call, kind, key)
    wanted = [item.strip() for item in if_match.split(",") if item.strip()]
    if wanted and "*" not in wanted and etag(kind, row) not in wanted:
        raise Changed(
            f"This {kind.name} was changed meanwhile.",
            cure="Read it again, then repeat the change.",
        )
    return row
