"""Serving the descriptions: who may, what is asked, what is answered."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tandem.infra import listing
from tandem.infra.listing import Row, Source
from tandem.protocols import odata
from tandem.protocols.odata import Column, Primitive, Query
from tandem.tenant import directory
from tandem.tenant.graph import bodies, changes
from tandem.tenant.graph.model import (
    Access,
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Entity,
    Family,
    Field,
    Forbidden,
    MethodNotAllowed,
    Navigation,
    Objects,
    Ref,
    Resource,
    Value,
    missing,
)
from tandem.tenant.graph.paths import Node

# A page that is filtered in memory is read whole; more than this is a description in need of SQL.
MEMORY_LIMIT = 50_000


@dataclass(frozen=True, slots=True)
class Reply:
    body: Any = None
    status: int = 200
    location: str = ""
    text: str = ""


# ---------------------------------------------------------------------------------- permissions


async def authorize(call: Call, allowed: Access | None, family: Family, *, writing: bool) -> None:
    """Raise Forbidden unless the caller may. Directory roles are read anew, not from the token."""
    caller = call.caller
    if allowed is None:
        raise MethodNotAllowed("The request method is not allowed here.", cure="Read it instead.")
    if caller.sort == "app":
        if not caller.app_roles & allowed.application:
            raise _denied(allowed.application, "application")
        return
    if caller.sort != "user" or not caller.scopes & (
        allowed.delegated | (allowed.own if call.own else frozenset())
    ):
        raise _denied(allowed.delegated, "delegated")
    if call.own and not writing:
        return
    if allowed.roles:
        held = await directory.roles_of(call.tx, caller.object_id)
        if not held & (allowed.roles | {directory.GLOBAL_ADMINISTRATOR}):
            names = sorted(directory.role_name(role) for role in allowed.roles)
            raise Forbidden(
                "Insufficient privileges to complete the operation: the signed-in user holds no "
                "directory role that allows it.",
                cure=f"Sign in as Global Administrator or {' or '.join(names)}."
                if names
                else "Sign in as Global Administrator.",
            )


def _denied(permissions: Iterable[str], sort: str) -> Forbidden:
    names = sorted(permissions)
    if not names:
        return Forbidden(
            f"Insufficient privileges to complete the operation: it is not open to {sort} "
            "permissions.",
            cure="Use the other kind of token: an administrator who signs in, or an application.",
        )
    return Forbidden(
        "Insufficient privileges to complete the operation: the token has none of the "
        f"{sort} permissions {', '.join(names)}.",
        cure="Add one of them to the app registration, grant admin consent, and get a new token.",
        needed=names,
    )


# ---------------------------------------------------------------------------------- reading rows


def _fields(resource: Resource, call: Call) -> list[Field]:
    """The fields of the answer: those of $select, or all that show by themselves."""
    available = [item for item in resource.fields if item.readable and (call.beta or not item.beta)]
    if not call.query.select:
        return [item for item in available if item.shown]
    by_name = {item.name.lower(): item for item in available}
    chosen = {"id": by_name["id"]} if "id" in by_name else {}
    navigations = {item.name.lower() for item in resource.navigations}
    for name in call.query.select:
        lower = name.lower()
        if lower == "*":
            return available
        if lower in by_name:
            chosen[lower] = by_name[lower]
        elif resource.family is Family.DIRECTORY and lower not in navigations:
            raise _no_property(resource, name)
    return list(chosen.values())


def _no_property(resource: Resource, name: str) -> BadProperty:
    return BadProperty(
        f"Could not find a property named '{name}' on type 'microsoft.graph.{resource.type}'.",
        cure="Leave it out, or check its spelling.",
        target=name,
    )


def _column_names(fields: Iterable[Field]) -> list[str]:
    return list(dict.fromkeys(name for item in fields for name in item.columns))


def _filter_columns(resource: Resource, source: Source) -> dict[str, Column]:
    """What $filter may name: every property that is a plain column, or says how to look in it."""
    columns = {}
    for item in resource.fields:
        if item.value is None and item.source in source.columns and not item.collection:
            columns[item.name.lower()] = Column(source.columns[item.source], item.primitive)
        elif item.has is not None:
            columns[item.name.lower()] = Column("", item.primitive, item.has)
    return columns


@dataclass(frozen=True, slots=True)
class Page:
    rows: Sequence[Row]
    total: int | None
    token: str


async def page(resource: Resource, call: Call, fields: Sequence[Field]) -> Page:
    """One page of a collection, in the order asked for."""
    size = min(call.query.top or resource.page_size, resource.max_page_size)
    if call.query.top == 0:
        size = 0
    position = _position(call.query.skiptoken)
    if isinstance(resource.rows, Source):
        return await _page_in_sql(resource, resource.rows, call, fields, size, position)
    return await _page_in_memory(resource, call, size, position)


async def _page_in_sql(
    resource: Resource,
    source: Source,
    call: Call,
    fields: Sequence[Field],
    size: int,
    position: Mapping[str, Any],
) -> Page:
    columns = _filter_columns(resource, source)
    where: list[str] = []
    parameters: dict[str, Any] = {}
    if resource.scope is not None:
        condition, values = resource.scope(call)
        where.append(condition)
        parameters.update(values)
    if call.query.filter is not None:
        condition, values = odata.to_sql(call.query.filter, columns)
        where.append(condition)
        parameters.update(values)
    for condition, values in _search(call.query.search, columns):
        where.append(condition)
        parameters.update(values)
    total = None
    if (call.query.count or resource.family is Family.INTUNE) and not position:
        total = await listing.count(call.tx, source, where, parameters)
    order = []
    for item in call.query.orderby:
        known = next((f for f in resource.fields if f.name.lower() == item.name.lower()), None)
        if known is None or known.source not in source.columns:
            raise _no_property(resource, item.name)
        order.append((known.source, item.descending))
    offset = int(position.get("offset", call.query.skip))
    if not order and "after" in position:
        where.append(f"{source.columns[source.key]} > %(after)s")
        parameters["after"] = position["after"]
        offset = 0
    found = await listing.rows(
        call.tx,
        source,
        _column_names(fields),
        where=where,
        parameters=parameters,
        order=order,
        limit=size + 1,
        offset=offset,
    )
    token = ""
    if len(found) > size > 0:
        found = found[:size]
        last = odata.render(found[-1][source.key])
        token = _token({"offset": offset + size} if order else {"after": last})
    return Page(found, total, token)


def _search(text: str, columns: Mapping[str, Column]) -> list[tuple[str, dict[str, Any]]]:
    """$search="displayName:word" or "word": the property begins with or contains the word."""
    plain = text.strip().strip('"')
    if not plain:
        return []
    name, colon, word = plain.partition(":")
    column = columns.get(name.lower() if colon else "displayname")
    if column is None:
        raise BadProperty(
            "This collection cannot be searched in that way.",
            cure='Write $search="displayName:word".',
        )
    escaped = (word if colon else plain).lower().replace("\\", "\\\\")
    pattern = "%" + escaped.replace("%", r"\%").replace("_", r"\_") + "%"
    return [(f"lower({column.sql}) LIKE %(searched)s", {"searched": pattern})]


async def _page_in_memory(
    resource: Resource, call: Call, size: int, position: Mapping[str, Any]
) -> Page:
    assert not isinstance(resource.rows, Source)
    rows = list(await resource.rows(call))
    if call.query.filter is not None:
        condition = call.query.filter
        rows = [row for row in rows if odata.matches(condition, _plain(resource, row))]
    for order in reversed(call.query.orderby):
        name = order.name.lower()
        rows.sort(key=lambda row: _sortable(row, resource, name), reverse=order.descending)
    offset = int(position.get("offset", call.query.skip))
    chosen = rows[offset : offset + size]
    token = _token({"offset": offset + size}) if 0 < size < len(rows) - offset else ""
    wants_count = call.query.count or resource.family is Family.INTUNE
    return Page(chosen, len(rows) if wants_count and not position else None, token)


def _plain(resource: Resource, row: Row) -> dict[str, Any]:
    held = {item.name: _read(item, row) for item in resource.fields if item.load is None}
    if resource.typed is not None:
        held["@odata.type"] = f"#microsoft.graph.{resource.typed(row)}"
    return held


def _sortable(row: Row, resource: Resource, name: str) -> tuple[bool, str]:
    for item in resource.fields:
        if item.name.lower() == name:
            held = _read(item, row)
            return held is not None, str(odata.render(held)).lower()
    raise _no_property(resource, name)


def _token(position: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _position(token: str) -> dict[str, Any]:
    if not token:
        return {}
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        position = msgspec.json.decode(raw, type=dict[str, str | int])
        if isinstance(position.get("offset", 0), int):
            return position
    except (ValueError, msgspec.DecodeError):
        pass
    raise BadProperty(
        "The $skiptoken is not one of ours.", cure="Follow @odata.nextLink as it was given."
    )


async def one(resource: Resource, call: Call, key: str, fields: Sequence[Field]) -> Row:
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
            call.tx, source, _column_names(fields), where=where, parameters=parameters, limit=1
        )
        if found:
            return found[0]
        raise missing(key)
    for row in await resource.rows(call):
        if str(row[resource.key]).lower() == key.lower():
            return row
    raise missing(key)


def is_guid(text: str) -> bool:
    if len(text) != 36:
        return False
    try:
        odata.read_literal(text, Primitive.GUID)
    except ValueError:
        return False
    return True


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


# ---------------------------------------------------------------------------------- serialising


def _read(item: Field, row: Row) -> Any:
    held = item.value(row) if item.value is not None else row.get(item.source)
    if held is None:
        return [] if item.collection and item.initial is None else item.initial
    return held


async def items(
    resource: Resource, call: Call, fields: Sequence[Field], rows: Sequence[Row], *, typed: bool
) -> list[dict[str, Any]]:
    """The rows as JSON objects: every field asked for, whether it has a value or not."""
    key = resource.rows.key if isinstance(resource.rows, Source) else resource.key
    loaded = {
        item.name: await item.load(call, rows) for item in fields if item.load is not None and rows
    }
    answers = []
    for row in rows:
        answer: dict[str, Any] = {}
        if typed and resource.typed is not None:
            answer["@odata.type"] = f"#microsoft.graph.{resource.typed(row)}"
        elif typed:
            answer["@odata.type"] = f"#microsoft.graph.{resource.type}"
        for item in fields:
            if item.load is not None:
                held = loaded[item.name].get(str(row[key]))
                if held is None:
                    held = [] if item.collection and item.initial is None else item.initial
            else:
                held = _read(item, row)
            answer[item.name] = odata.render(held)
        if resource.open:
            for name, value in (row.get("properties") or {}).items():
                answer.setdefault(name, value)
        answers.append(answer)
    return answers


class Frame:
    """All resources and actions that are served, by path and by type."""

    def __init__(self, resources: Iterable[Resource], actions: Iterable[Action]) -> None:
        self.root = Node()
        self.by_type: dict[str, Resource] = {}
        self.contained: dict[str, list[Resource]] = {}
        for resource in resources:
            self._place(resource)
        for action in actions:
            node = self.root.place(action.path)
            node.here[action.method] = action
            if action.method == "GET":
                node.here["function"] = True

    def _place(self, resource: Resource) -> None:
        assert resource.path.lower() not in self.contained, resource.path
        self.by_type.setdefault(resource.type, resource)
        node = self.root.place(resource.path)
        node.here["collection"] = resource
        self.contained.setdefault(resource.path.rpartition("/{")[0] or "", []).append(resource)
        if resource.singleton:
            return
        node.place("$count").here["count"] = resource
        item = self.root.place(f"{resource.path}/{{{resource.type}}}")
        item.here["item"] = resource
        for navigation in resource.navigations:
            place = item.place(navigation.name)
            place.here["navigation"] = (resource, navigation)
            place.place("$count").here["navigation-count"] = (resource, navigation)
            place.place("$ref").here["refs"] = (resource, navigation)
            place.place(f"{{{navigation.name}Item}}/$ref").here["ref"] = (resource, navigation)

    def context(self, call: Call, name: str, *, entity: bool = False) -> str:
        return f"{call.base}/{call.version}/$metadata#{name}{'/$entity' if entity else ''}"

    def path_of(self, resource: Resource, call: Call) -> str:
        """The collection's path as it stands in contexts: keys in quotes and brackets."""
        path = resource.path
        for name, key in call.keys.items():
            path = path.replace(f"/{{{name}}}", f"('{key}')")
        return path

    # ------------------------------------------------------------------ reading

    async def listed(self, call: Call, resource: Resource) -> Reply:
        await authorize(call, resource.read, resource.family, writing=False)
        if resource.singleton:
            return await self._singleton(call, resource)
        fields = _fields(resource, call)
        wanted = await page(resource, call, fields)
        value = await items(resource, call, fields, wanted.rows, typed=resource.typed is not None)
        await self._expand(call, resource, wanted.rows, value)
        body: dict[str, Any] = {
            "@odata.context": self.context(call, self.path_of(resource, call)),
        }
        if wanted.total is not None:
            body["@odata.count"] = wanted.total
        if wanted.token:
            body["@odata.nextLink"] = wanted.token  # the edge makes it a URL
        body["value"] = value
        return Reply(body)

    async def _singleton(self, call: Call, resource: Resource) -> Reply:
        assert not isinstance(resource.rows, Source)
        fields = _fields(resource, call)
        rows = await resource.rows(call)
        (body,) = await items(resource, call, fields, rows[:1], typed=resource.typed is not None)
        context = self.context(call, self.path_of(resource, call), entity=True)
        return Reply({"@odata.context": context, **body})

    async def count(self, call: Call, resource: Resource) -> Reply:
        await authorize(call, resource.read, resource.family, writing=False)
        counting = replace(call.query, count=True, top=0, skiptoken="", orderby=())
        call.query = counting
        found = await page(resource, call, [])
        return Reply(text=str(found.total or 0))

    async def get(self, call: Call, resource: Resource, key: str) -> Reply:
        await authorize(call, resource.read, resource.family, writing=False)
        return await self.entity(call, resource, key)

    async def entity(
        self,
        call: Call,
        resource: Resource,
        key: str,
        status: int = 200,
        once: Mapping[str, Any] | None = None,
    ) -> Reply:
        fields = _fields(resource, call)
        row = await one(resource, call, key, fields)
        found = await items(resource, call, fields, [row], typed=resource.typed is not None)
        await self._expand(call, resource, [row], found)
        context = self.context(call, self.path_of(resource, call), entity=True)
        body = {"@odata.context": context, **found[0], **odata.render(dict(once or {}))}
        location = f"{call.base}/{call.version}/{self.path_of(resource, call)}('{key}')"
        return Reply(body, status, location if status == 201 else "")

    async def _expand(
        self,
        call: Call,
        resource: Resource,
        rows: Sequence[Row],
        answers: list[dict[str, Any]],
    ) -> None:
        for wanted in call.query.expand:
            name = wanted.name.lower()
            navigation = next((n for n in resource.navigations if n.name.lower() == name), None)
            path = f"{resource.path}/{{{resource.type}}}/{wanted.name}".lower()
            inner = next((r for r in self.by_type.values() if r.path.lower() == path), None)
            if navigation is None and inner is None:
                raise _no_property(resource, wanted.name)
            for row, answer in zip(rows, answers, strict=True):
                key = str(row[resource.key])
                below = replace(call, query=wanted.query, keys={**call.keys, resource.type: key})
                if navigation is not None:
                    await authorize(call, navigation.read, resource.family, writing=False)
                    refs = await navigation.refs(below, key)
                    found = await self.referred(below, refs)
                    if navigation.single:
                        answer[navigation.name] = found[0] if found else None
                        continue
                    at = f"{self.path_of(resource, below)}('{key}')/{navigation.name}"
                    answer[f"{navigation.name}@odata.context"] = self.context(call, at)
                    answer[navigation.name] = found
                elif inner is not None:
                    listed = await self.listed(below, inner)
                    if inner.singleton:
                        answer[wanted.name] = listed.body
                        continue
                    answer[f"{wanted.name}@odata.context"] = listed.body["@odata.context"]
                    answer[wanted.name] = listed.body["value"]

    async def referred(self, call: Call, refs: Sequence[Ref]) -> list[dict[str, Any]]:
        """The objects behind references, each with its type, in the order of the references."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for sort in dict.fromkeys(ref.type for ref in refs):
            resource = self.by_type[sort]
            select = tuple(
                name
                for name in call.query.select
                if any(item.name.lower() == name.lower() for item in resource.fields)
            )
            inner = replace(call, query=Query(select=select))
            fields = _fields(resource, inner)
            ids = [ref.id for ref in refs if ref.type == sort]
            rows = await self._by_ids(inner, resource, ids, fields)
            for row, answer in zip(
                rows, await items(resource, inner, fields, rows, typed=True), strict=True
            ):
                found[sort, str(row[resource.key])] = answer
        return [found[ref.type, ref.id] for ref in refs if (ref.type, ref.id) in found]

    async def _by_ids(
        self, call: Call, resource: Resource, ids: Sequence[str], fields: Sequence[Field]
    ) -> Sequence[Row]:
        if isinstance(resource.rows, Source):
            return await listing.rows(
                call.tx,
                resource.rows,
                _column_names(fields),
                where=[f"{resource.rows.columns[resource.key]}::text = ANY(%(ids)s)"],
                parameters={"ids": list(ids)},
            )
        wanted = set(ids)
        return [row for row in await resource.rows(call) if str(row[resource.key]) in wanted]

    async def navigate(
        self, call: Call, resource: Resource, navigation: Navigation, key: str, cast: str
    ) -> Reply:
        await authorize(call, navigation.read, resource.family, writing=False)
        await one(resource, replace(call, query=Query()), key, [])
        refs = [
            ref for ref in await navigation.refs(call, key) if not cast or ref.type.lower() == cast
        ]
        at = f"{self.path_of(resource, call)}('{key}')/{navigation.name}"
        if navigation.single:
            found = await self.referred(call, refs[:1])
            if not found:
                raise missing(navigation.name)
            context = self.context(call, "directoryObjects", entity=True)
            return Reply({"@odata.context": context, **found[0]})
        size = min(call.query.top or resource.page_size, resource.max_page_size)
        offset = int(_position(call.query.skiptoken).get("offset", call.query.skip))
        if call.query.filter is not None:
            found = await self.referred(call, refs)
            condition = call.query.filter
            found = [item for item in found if odata.matches(condition, item)]
            total = len(found)
            found = found[offset : offset + size]
        else:
            total = len(refs)
            found = await self.referred(call, refs[offset : offset + size])
        body: dict[str, Any] = {"@odata.context": self.context(call, at)}
        if call.query.count:
            body["@odata.count"] = total
        if offset + size < total:
            body["@odata.nextLink"] = _token({"offset": offset + size})
        body["value"] = found
        return Reply(body)

    async def navigate_count(
        self, call: Call, resource: Resource, navigation: Navigation, key: str
    ) -> Reply:
        await authorize(call, navigation.read, resource.family, writing=False)
        return Reply(text=str(len(await navigation.refs(call, key))))

    # ------------------------------------------------------------------ writing

    async def create(self, call: Call, resource: Resource, raw: Body) -> Reply:
        if resource.create is None:
            raise _method("POST")
        await authorize(call, resource.write, resource.family, writing=True)
        body = bodies.check(
            raw, resource.fields, creating=True, opened=resource.open, name=resource.type
        )
        made = await resource.create(call, body)
        await self._record(call, "create", resource, made.key, {}, body)
        call.query = Query(select=tuple(item.name for item in resource.fields if item.readable))
        return await self.entity(call, resource, made.key, 201, made.once)

    async def update(self, call: Call, resource: Resource, key: str, raw: Body) -> Reply:
        if resource.update is None:
            raise _method("PATCH")
        await authorize(call, resource.write, resource.family, writing=True)
        body = bodies.check(
            raw, resource.fields, creating=False, opened=resource.open, name=resource.type
        )
        before = await self._snapshot(call, resource, key, body)
        await resource.update(call, key, body)
        await self._record(call, "update", resource, key, before, body)
        if resource.update_status == 204:
            return Reply(status=204)
        if resource.singleton:
            return await self._singleton(call, resource)
        return await self.entity(call, resource, key, resource.update_status)

    async def delete(self, call: Call, resource: Resource, key: str) -> Reply:
        if resource.delete is None:
            raise _method("DELETE")
        await authorize(call, resource.write, resource.family, writing=True)
        before = await self._snapshot(call, resource, key)
        await resource.delete(call, key)
        await changes.record(
            call,
            "delete",
            resource.type,
            key,
            name=_name(before),
            changed=changes.difference(resource, before, {}),
            family=resource.family,
        )
        return Reply(status=204)

    async def _snapshot(
        self, call: Call, resource: Resource, key: str, body: Body | None = None
    ) -> dict[str, Any]:
        """Every property of an item that may be recorded. Raises NotFound."""
        plain = replace(call, query=Query())
        fields = changes.watched(resource, list(body or ()))
        if resource.singleton:
            assert not isinstance(resource.rows, Source)
            row = (await resource.rows(plain))[0]
        else:
            row = await one(resource, plain, key, fields)
        (found,) = await items(resource, plain, fields, [row], typed=False)
        return found

    async def _record(
        self,
        call: Call,
        verb: str,
        resource: Resource,
        key: str,
        before: Mapping[str, Any],
        body: Body,
    ) -> None:
        after = await self._snapshot(call, resource, key, body)
        await changes.record(
            call,
            verb,
            resource.type,
            key,
            name=_name(after),
            changed=changes.difference(resource, before, after),
            properties=sorted(body),
            family=resource.family,
        )

    async def add_ref(
        self, call: Call, resource: Resource, navigation: Navigation, key: str, raw: Body
    ) -> Reply:
        if navigation.add is None:
            raise _method("POST")
        await authorize(call, navigation.write, resource.family, writing=True)
        before = await self._snapshot(call, resource, key)
        target = bound_id(raw.get("@odata.id"))
        await navigation.add(call, key, target)
        await changes.record(
            call,
            "set" if navigation.single else "add",
            resource.type,
            key,
            navigation=navigation.name,
            name=_name(before),
            changed=[{"name": navigation.name, "old": None, "new": target}],
            family=resource.family,
        )
        return Reply(status=204)

    async def remove_ref(
        self, call: Call, resource: Resource, navigation: Navigation, key: str, target: str
    ) -> Reply:
        if navigation.remove is None:
            raise _method("DELETE")
        await authorize(call, navigation.write, resource.family, writing=True)
        before = await self._snapshot(call, resource, key)
        if navigation.single:
            found = await navigation.refs(call, key)
            if not found:
                raise missing(navigation.name)
            target = found[0].id
        await navigation.remove(call, key, target)
        await changes.record(
            call,
            "remove",
            resource.type,
            key,
            navigation=navigation.name,
            name=_name(before),
            changed=[{"name": navigation.name, "old": target, "new": None}],
            family=resource.family,
        )
        return Reply(status=204)

    async def run(self, call: Call, action: Action, raw: Body) -> Reply:
        await authorize(call, action.access, action.family, writing=action.method != "GET")
        body = raw
        if not action.open:
            name = action.path.rpartition("/")[2]
            body = bodies.check(raw, action.body, creating=True, opened=False, name=name)
        answer: Answer = await action.run(call, body)
        if action.method != "GET":
            sort, key = next(reversed(call.keys.items()), ("", action.path))
            verb = action.path.rpartition("/")[2]
            await changes.record(call, verb, sort, key, family=action.family)
        match answer:
            case None:
                return Reply(status=204)
            case Entity(sort, key, status):
                call.query = Query()
                return await self.entity(call, self.by_type[sort], key, status)
            case Objects(refs, single):
                objects = await self.referred(call, refs)
                at = {"@odata.context": self.context(call, "directoryObjects", entity=single)}
                if not single:
                    return Reply({**at, "value": objects})
                if not objects:
                    raise missing(next(reversed(call.keys.values()), ""))
                return Reply({**at, **objects[0]})
            case Value(value, status):
                context = {"@odata.context": self.context(call, action.path.rpartition("/")[2])}
                value = odata.render(value)
                if isinstance(value, dict):
                    return Reply({**context, **value}, status)
                return Reply({**context, "value": value}, status)


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("userPrincipalName") or item.get("displayName") or "")


def bound_id(reference: Any) -> str:
    """The id that a reference by URL means: its last segment, whatever the host."""
    if isinstance(reference, str) and reference.rstrip("/").rpartition("/")[2]:
        last = reference.rstrip("/").rpartition("/")[2]
        if last.endswith("')"):
            last = last[:-2].rpartition("('")[2]
        return last
    raise BadProperty(
        "The body has no '@odata.id' that refers to an object.",
        cure='Send {"@odata.id": "https://…/v1.0/directoryObjects/<id>"}.',
        target="@odata.id",
    )


def _method(name: str) -> MethodNotAllowed:
    return MethodNotAllowed(
        f"The request method {name} is not allowed on this resource.", cure="Use another one."
    )
