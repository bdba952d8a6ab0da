"""Serving the descriptions: who may, what is asked, what is answered.

`Frame` turns each description into operations, one for each method at each place of the tree of
paths. Everything else reads those: the edge runs them, `$metadata` and OpenAPI describe them, and
the test of permissions asks each of them about each permission and role.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tandem.infra.listing import Row, Source
from tandem.infra.secrets import SecretBox
from tandem.protocols import odata
from tandem.protocols.odata import Query
from tandem.tenant import directory
from tandem.tenant.graph import bodies, changes, delta, rows
from tandem.tenant.graph.model import (
    Access,
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Entity,
    Family,
    Forbidden,
    Listed,
    Navigation,
    Objects,
    PreconditionFailed,
    Ref,
    Resource,
    Stream,
    UnsupportedQuery,
    Value,
    missing,
)
from tandem.tenant.graph.paths import Node

MOST_BOUND = 20

# Collections whose harder questions need the header ConsistencyLevel (graph-compat.md 4.2).
ADVANCED = frozenset({"user", "group", "device", "application", "servicePrincipal"})


@dataclass(frozen=True, slots=True)
class Reply:
    body: Any = None
    status: int = 200
    location: str = ""
    text: str = ""
    etag: str = ""
    stream: Stream | None = None
    # Whether the token of the next link holds the whole question.
    sealed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One method at one place: who may, and what then happens. `sort` says which of the frame's
    own it is: list, get, create, update, replace, delete, count, navigate, add-ref, … or run."""

    sort: str
    method: str
    path: str
    access: Access
    family: Family
    serve: Callable[[Call, str, Body], Awaitable[Reply]]
    resource: Resource | None = None
    navigation: Navigation | None = None
    action: Action | None = None

    @property
    def writing(self) -> bool:
        return self.method != "GET" and not (self.action is not None and self.action.asks)

    @property
    def only_reads(self) -> bool:
        """Whether each of its statements may stand by itself, without a transaction."""
        return self.method == "GET" and self.action is None


# ---------------------------------------------------------------------------------- permissions


async def authorize(call: Call, allowed: Access, *, writing: bool) -> None:
    """Raise Forbidden unless the caller may. Directory roles are read anew, not from the token."""
    refusal = refused(call.caller, allowed, own=call.own)
    if refusal is not None:
        raise refusal
    if call.caller.sort == "app" or (call.own and not writing) or not allowed.roles:
        return
    held = call.caller.directory_roles
    if held is None:
        held = await directory.roles_of(call.tx, call.caller.object_id)
    if not held & (allowed.roles | {directory.GLOBAL_ADMINISTRATOR}):
        names = sorted(
            directory.role_name(role) for role in allowed.roles - {directory.GLOBAL_ADMINISTRATOR}
        )
        raise Forbidden(
            "Insufficient privileges to complete the operation: the signed-in user holds no "
            "directory role that allows it.",
            cure=f"Sign in as {' or '.join(['Global Administrator', *names])}.",
        )


def refused(caller: Any, allowed: Access, *, own: bool) -> Forbidden | None:
    """Why the token does not suffice, whoever the user is."""
    if caller.sort == "app":
        enough = caller.app_roles & allowed.application
        return None if enough else _denied(allowed.application, "application")
    own_scopes = allowed.own if own else frozenset()
    if caller.sort == "user" and caller.scopes & (allowed.delegated | own_scopes):
        return None
    return _denied(allowed.delegated, "delegated")


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


# ---------------------------------------------------------------------------------- the frame


class Frame:
    """All resources and actions that are served, by path and by type."""

    def __init__(
        self, resources: Iterable[Resource], actions: Iterable[Action], box: SecretBox
    ) -> None:
        self.root = Node()
        self._box = box
        self.by_type: dict[str, Resource] = {}
        self.by_path: dict[str, Resource] = {}
        for resource in resources:
            self._place_resource(resource)
        for action in actions:
            self._place(
                self.root.place(action.path),
                Operation(
                    "run",
                    action.method,
                    action.path,
                    action.access,
                    action.family,
                    partial(self.run, action),
                    action=action,
                ),
            )

    def operations(self) -> Iterator[Operation]:
        """Every operation that is served."""
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            waiting += [*node.children.values(), *([node.keyed] if node.keyed else [])]
            yield from node.here.values()

    def _place(self, node: Node, operation: Operation) -> None:
        node.here[operation.method] = operation
        node.function = node.function or (operation.sort == "run" and operation.method == "GET")

    def _place_resource(self, resource: Resource) -> None:
        assert resource.path.lower() not in self.by_path, resource.path
        self.by_type.setdefault(resource.type, resource)
        self.by_path[resource.path.lower()] = resource
        at = resource.path
        read, write = resource.read, resource.write or Access()

        def serve(sort: str, method: str, path: str, access: Access, run: Any) -> None:
            operation = Operation(sort, method, path, access, resource.family, run, resource)
            self._place(self.root.place(path), operation)

        if resource.singleton:
            serve("singleton", "GET", at, read, partial(self.singleton, resource))
            if resource.update is not None:
                serve("update", "PATCH", at, write, partial(self.update, resource))
            if resource.replace is not None:
                serve("replace", "PUT", at, write, partial(self.replace, resource))
        else:
            serve("list", "GET", at, read, partial(self.listed, resource))
            serve("count", "GET", f"{at}/$count", read, partial(self.count, resource))
            if resource.type in delta.LOGGED:
                serve("delta", "GET", f"{at}/delta", read, partial(self.delta, resource))
            item = f"{at}/{{{resource.type}}}"
            serve("get", "GET", item, read, partial(self.get, resource))
            if resource.create is not None:
                serve("create", "POST", at, write, partial(self.create, resource))
            if resource.update is not None:
                serve("update", "PATCH", item, write, partial(self.update, resource))
            if resource.replace is not None:
                serve("replace", "PUT", item, write, partial(self.replace, resource))
            if resource.delete is not None:
                serve("delete", "DELETE", item, write, partial(self.delete, resource))
            at = item
        for navigation in resource.navigations:
            self._place_navigation(resource, navigation, at)

    def _place_navigation(self, resource: Resource, navigation: Navigation, item: str) -> None:
        read, write = navigation.read, navigation.write or Access()
        at = f"{item}/{navigation.name}"

        def serve(sort: str, method: str, path: str, access: Access, run: Any) -> None:
            operation = Operation(
                sort, method, path, access, resource.family, run, resource, navigation
            )
            self._place(self.root.place(path), operation)

        serve("navigate", "GET", at, read, partial(self.navigate, resource, navigation))
        serve("refs", "GET", f"{at}/$ref", read, partial(self.references, resource, navigation))
        add, remove = (
            partial(self.add_ref, resource, navigation),
            partial(self.remove_ref, resource, navigation),
        )
        if navigation.single:
            if navigation.add is not None:
                serve("set-ref", "PUT", f"{at}/$ref", write, add)
            if navigation.remove is not None:
                serve("remove-ref", "DELETE", f"{at}/$ref", write, remove)
            return
        counted = partial(self.navigate_count, resource, navigation)
        serve("navigate-count", "GET", f"{at}/$count", read, counted)
        if navigation.add is not None:
            serve("add-ref", "POST", f"{at}/$ref", write, add)
        if navigation.remove is not None:
            one = f"{at}/{{{navigation.name}Item}}/$ref"
            serve("remove-ref", "DELETE", one, write, remove)

    def context(self, call: Call, name: str, *, entity: bool = False) -> str:
        return f"{call.base}/{call.version}/$metadata#{name}{'/$entity' if entity else ''}"

    def path_of(self, resource: Resource, call: Call) -> str:
        """The collection's path as it stands in contexts: keys in quotes and brackets."""
        path = resource.path
        if "{" in path:
            for name, key in call.keys.items():
                path = path.replace(f"/{{{name}}}", f"('{key}')")
        return path

    # ------------------------------------------------------------------ reading

    async def listed(self, resource: Resource, call: Call, key: str = "", _: Any = None) -> Reply:
        check_advanced(resource, call)
        asked = rows.plan(resource, call.beta, call.query.select)
        wanted = await rows.page(resource, call, asked)
        value = await rows.items(resource, call, asked, wanted.rows)
        await self._expand(call, resource, wanted.rows, value)
        name = self.path_of(resource, call)
        body: dict[str, Any] = {
            "@odata.context": self.context(call, f"{name}{_shape(call.query)}"),
        }
        if wanted.total is not None:
            body["@odata.count"] = wanted.total
        if wanted.token:
            body["@odata.nextLink"] = wanted.token  # the edge makes it a URL
        body["value"] = value
        return Reply(body)

    async def delta(self, resource: Resource, call: Call, key: str, _: Any) -> Reply:
        value, token, whole = await delta.answer(resource, call, self._box)
        # The edge makes it a URL, which needs no other option: the token holds the question.
        link = {"@odata.deltaLink" if whole else "@odata.nextLink": token}
        context = self.context(call, f"{self.path_of(resource, call)}/$delta")
        return Reply({"@odata.context": context, **link, "value": value}, sealed=True)

    async def singleton(
        self, resource: Resource, call: Call, key: str = "", _: Any = None
    ) -> Reply:
        row = await self._row(call, resource, key)
        return await self._shown(call, resource, row, self.path_of(resource, call))

    async def count(self, resource: Resource, call: Call, key: str, _: Any) -> Reply:
        _check_countable(resource, call)
        call.query = replace(call.query, count=True, top=0, skip=0, skiptoken="", orderby=())
        found = await rows.page(resource, call, rows.plan(resource, True, ("id",)))
        return Reply(text=str(found.total or 0))

    async def get(self, resource: Resource, call: Call, key: str, _: Any = None) -> Reply:
        return await self.entity(call, resource, key)

    async def entity(
        self,
        call: Call,
        resource: Resource,
        key: str,
        status: int = 200,
        once: Mapping[str, Any] | None = None,
    ) -> Reply:
        asked = rows.plan(resource, call.beta, call.query.select, single=True)
        row = await rows.one(resource, call, key, asked.columns)
        name = self.path_of(resource, call)
        reply = await self._shown(call, resource, row, name, status)
        reply.body.update(once or {})
        if once is None:
            return reply
        return replace(reply, location=f"{call.base}/{call.version}/{name}('{key}')")

    async def _row(self, call: Call, resource: Resource, key: str) -> Row:
        """The row that a change is about, before it. Raises NotFound, PreconditionFailed."""
        if not resource.singleton:
            columns = [name for name in (resource.etag, resource.type_column) if name]
            if resource.etag:
                # One writer at a time, so that no change slips in behind the comparison.
                await call.tx.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (key,))
            row = await rows.one(resource, replace(call, query=Query()), key, columns)
        else:
            assert not isinstance(resource.rows, Source)
            row = (await resource.rows(call))[0]
        if call.if_match and call.if_match != "*" and resource.etag:
            known = rows.etag(row[resource.etag])
            if known not in [item.strip() for item in call.if_match.split(",")]:
                raise PreconditionFailed(
                    "The object has changed since it was read: If-Match names another version.",
                    cure="Read it again, and send its entity tag.",
                )
        return row

    async def _shown(
        self, call: Call, resource: Resource, row: Row, name: str, status: int = 200
    ) -> Reply:
        asked = rows.plan(resource, call.beta, call.query.select, single=True)
        found = await rows.items(resource, call, asked, [row])
        await self._expand(call, resource, [row], found)
        context = self.context(call, f"{name}{_shape(call.query)}", entity=True)
        return Reply(
            {"@odata.context": context, **found[0]},
            status,
            etag=rows.etag(row[resource.etag]) if resource.etag else "",
        )

    async def _expand(
        self,
        call: Call,
        resource: Resource,
        found: Sequence[Row],
        answers: list[dict[str, Any]],
    ) -> None:
        for wanted in call.query.expand:
            name = wanted.name.lower()
            navigation = next((n for n in resource.navigations if n.name.lower() == name), None)
            at = f"{resource.path}/{'' if resource.singleton else f'{{{resource.type}}}/'}"
            inner = self.by_path.get(f"{at}{wanted.name}".lower())
            described = navigation or inner
            if described is None:
                raise rows.no_property(resource, wanted.name)
            await authorize(call, described.read, writing=False)
            for row, answer in zip(found, answers, strict=True):
                key = str(row[resource.key])
                below = replace(
                    call, query=wanted.query, keys={**call.keys, resource.type: key}, cast=""
                )
                if navigation is not None:
                    await self._expand_navigation(below, resource, navigation, key, answer)
                elif inner is not None:
                    await self._expand_contained(below, inner, answer)

    async def _expand_navigation(
        self,
        call: Call,
        resource: Resource,
        navigation: Navigation,
        key: str,
        answer: dict[str, Any],
    ) -> None:
        found = await self.referred(call, await navigation.refs(call, key))
        if call.query.filter is not None:
            condition = call.query.filter
            found = [item for item in found if odata.matches(condition, item)]
        if call.query.top is not None:
            found = found[: call.query.top]
        if navigation.single:
            answer[navigation.name] = found[0] if found else None
            return
        at = f"{self.path_of(resource, call)}('{key}')/{navigation.name}"
        answer[f"{navigation.name}@odata.context"] = self.context(call, at)
        answer[navigation.name] = found

    async def _expand_contained(self, call: Call, inner: Resource, answer: dict[str, Any]) -> None:
        name = inner.path.rpartition("/")[2]
        if inner.singleton:
            answer[name] = (await self.singleton(inner, call)).body
            return
        listed = (await self.listed(inner, call)).body
        answer[f"{name}@odata.context"] = listed["@odata.context"]
        answer[name] = listed["value"]

    async def referred(self, call: Call, refs: Sequence[Ref]) -> list[dict[str, Any]]:
        """The objects behind references, each with its type, in the order of the references."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for sort in dict.fromkeys(ref.type for ref in refs):
            resource = self.by_type.get(sort)
            if resource is None:
                continue
            known = {item.name.lower() for item in rows.every_field(resource)}
            select = tuple(name for name in call.query.select if name.lower() in known)
            if call.query.select and not select:
                select = ("id",)
            inner = replace(call, query=Query(select=select, expand=call.query.expand))
            asked = rows.plan(resource, call.beta, select)
            ids = [ref.id for ref in refs if ref.type == sort]
            held = await rows.by_ids(inner, resource, ids, asked.columns)
            answers = await rows.items(resource, inner, asked, held, typed=True)
            await self._expand(inner, resource, held, answers)
            for row, answer in zip(held, answers, strict=True):
                found[sort, str(row[resource.key])] = answer
        return [found[ref.type, ref.id] for ref in refs if (ref.type, ref.id) in found]

    async def navigate(
        self, resource: Resource, navigation: Navigation, call: Call, key: str, _: Any
    ) -> Reply:
        refs = await self._refs(call, resource, navigation, key)
        at = f"{self.path_of(resource, call)}('{key}')/{navigation.name}"
        if navigation.single:
            found = await self.referred(call, refs[:1])
            if not found:
                raise missing(navigation.name)
            context = self.context(call, "directoryObjects", entity=True)
            return Reply({"@odata.context": context, **found[0]})
        size = rows.page_size(resource, call)
        offset = int(rows.read_position(call.query.skiptoken).get("offset", call.query.skip))
        if call.query.condition is not None or call.query.orderby:
            found = await self.referred(replace(call, query=replace(call.query, select=())), refs)
            found = _narrowed(found, call.query)
            total = len(found)
            found = [_selected(item, call.query) for item in found[offset : offset + size]]
        else:
            total = len(refs)
            found = await self.referred(call, refs[offset : offset + size])
        body: dict[str, Any] = {"@odata.context": self.context(call, at)}
        if call.query.count:
            body["@odata.count"] = total
        if 0 < size < total - offset:
            body["@odata.nextLink"] = rows.position_token({"offset": offset + size})
        body["value"] = found
        return Reply(body)

    async def _refs(
        self, call: Call, resource: Resource, navigation: Navigation, key: str
    ) -> list[Ref]:
        await rows.one(resource, replace(call, query=Query()), key)
        cast = call.cast.lower()
        return [
            ref for ref in await navigation.refs(call, key) if not cast or ref.type.lower() == cast
        ]

    async def references(
        self, resource: Resource, navigation: Navigation, call: Call, key: str, _: Any
    ) -> Reply:
        """Where the objects are, instead of what they are."""
        refs = await self._refs(call, resource, navigation, key)
        at = f"{call.base}/{call.version}/directoryObjects"
        if navigation.single:
            if not refs:
                raise missing(navigation.name)
            context = self.context(call, "$ref")
            return Reply({"@odata.context": context, "@odata.id": f"{at}/{refs[0].id}"})
        size = rows.page_size(resource, call)
        offset = int(rows.read_position(call.query.skiptoken).get("offset", call.query.skip))
        body: dict[str, Any] = {"@odata.context": self.context(call, "Collection($ref)")}
        if 0 < size < len(refs) - offset:
            body["@odata.nextLink"] = rows.position_token({"offset": offset + size})
        chosen = refs[offset : offset + size]
        return Reply({**body, "value": [{"@odata.id": f"{at}/{ref.id}"} for ref in chosen]})

    async def navigate_count(
        self, resource: Resource, navigation: Navigation, call: Call, key: str, _: Any
    ) -> Reply:
        _check_countable(resource, call)
        refs = await self._refs(call, resource, navigation, key)
        if call.query.condition is None:
            return Reply(text=str(len(refs)))
        found = await self.referred(replace(call, query=Query()), refs)
        return Reply(text=str(len(_narrowed(found, call.query))))

    # ------------------------------------------------------------------ writing

    async def create(self, resource: Resource, call: Call, key: str, raw: Body) -> Reply:
        assert resource.create is not None
        raw, bound = _taken(resource, raw)
        body = bodies.check(raw, resource, creating=True)
        made = await resource.create(call, body)
        await self._bind(call, resource, made.key, bound)
        await self._record(call, "create", resource, made.key, {}, body)
        call.query = Query(select=("*",))
        return await self.entity(call, resource, made.key, resource.create_status, made.once)

    async def update(self, resource: Resource, call: Call, key: str, raw: Body) -> Reply:
        assert resource.update is not None
        status = resource.update_status
        return await self._change("update", resource.update, status, resource, call, key, raw)

    async def replace(self, resource: Resource, call: Call, key: str, raw: Body) -> Reply:
        assert resource.replace is not None
        status = resource.replace_status
        return await self._change("replace", resource.replace, status, resource, call, key, raw)

    async def _change(
        self,
        verb: str,
        run: Callable[[Call, str, Body], Awaitable[None]],
        status: int,
        resource: Resource,
        call: Call,
        key: str,
        raw: Body,
    ) -> Reply:
        row = await self._row(call, resource, key)
        raw, bound = _taken(resource, raw)
        body = bodies.check(raw, resource, creating=verb == "replace", row=row)
        before = await self._snapshot(call, resource, key, body)
        await run(call, key, body)
        await self._bind(call, resource, key, bound)
        await self._record(call, verb, resource, key, before, body)
        return await self._changed(call, resource, key, status)

    async def _changed(self, call: Call, resource: Resource, key: str, status: int) -> Reply:
        if status == 204:
            return Reply(status=204)
        call.query = Query(select=("*",))
        if resource.singleton:
            return replace(await self.singleton(resource, call, key), status=status)
        return await self.entity(call, resource, key, status)

    async def delete(self, resource: Resource, call: Call, key: str, _: Any) -> Reply:
        assert resource.delete is not None
        await self._row(call, resource, key)
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
        return Reply(status=resource.deleted_status)

    async def _bind(
        self, call: Call, resource: Resource, key: str, bound: Mapping[str, list[str]]
    ) -> None:
        for navigation in resource.navigations:
            for target in bound.get(navigation.name, ()):
                assert navigation.write is not None
                await authorize(call, navigation.write, writing=True)
                await self._add(call, resource, navigation, key, target)

    async def _add(
        self, call: Call, resource: Resource, navigation: Navigation, key: str, target: str
    ) -> None:
        assert navigation.add is not None
        before = await self._snapshot(call, resource, key)
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

    async def _snapshot(
        self, call: Call, resource: Resource, key: str, body: Body | None = None
    ) -> dict[str, Any]:
        """Every property of an item that may be recorded. Raises NotFound."""
        plain = replace(call, query=Query())
        names = tuple(item.name for item in changes.watched(resource, list(body or ())))
        asked = rows.plan(resource, True, names or ("id",))
        if resource.singleton:
            assert not isinstance(resource.rows, Source)
            row = (await resource.rows(plain))[0]
        else:
            row = await rows.one(resource, plain, key, asked.columns)
        (found,) = await rows.items(resource, plain, asked, [row], typed=False)
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
        self, resource: Resource, navigation: Navigation, call: Call, key: str, raw: Body
    ) -> Reply:
        """Key is the owner's, which the path names last."""
        await self._add(call, resource, navigation, key, bound_id(raw.get("@odata.id")))
        return Reply(status=204)

    async def remove_ref(
        self, resource: Resource, navigation: Navigation, call: Call, key: str, _: Any
    ) -> Reply:
        assert navigation.remove is not None
        owner, target = call.keys[resource.type], "" if navigation.single else key
        before = await self._snapshot(call, resource, owner)
        if navigation.single:
            refs = await navigation.refs(call, owner)
            if not refs:
                raise missing(navigation.name)
            target = refs[0].id
        await navigation.remove(call, owner, target)
        await changes.record(
            call,
            "remove",
            resource.type,
            owner,
            navigation=navigation.name,
            name=_name(before),
            changed=[{"name": navigation.name, "old": target, "new": None}],
            family=resource.family,
        )
        return Reply(status=204)

    # ------------------------------------------------------------------ actions

    async def run(self, action: Action, call: Call, key: str, raw: Body) -> Reply:
        name = action.path.rpartition("/")[2]
        body = raw if action.open else bodies.taken(raw, action.body, name)
        answer: Answer = await action.run(call, body)
        if action.method != "GET" and not action.asks:
            sort, target = next(reversed(call.keys.items()), ("", action.path))
            await changes.record(call, name, sort, target, family=action.family)
        match answer:
            case None:
                return Reply(status=204)
            case Entity(sort, made, status):
                call.query = Query(select=call.query.select if action.method == "GET" else ())
                return await self.entity(call, self.by_type[sort], made, status)
            case Objects(refs, single):
                objects = await self.referred(call, refs)
                at = {"@odata.context": self.context(call, "directoryObjects", entity=single)}
                if not single:
                    return Reply({**at, "value": objects})
                if not objects:
                    raise missing(next(reversed(call.keys.values()), ""))
                return Reply({**at, **objects[0]})
            case Listed(path, status):
                if action.method != "GET":
                    call.query = Query()
                return replace(await self.listed(self.by_path[path.lower()], call), status=status)
            case Stream():
                return Reply(stream=answer)
            case Value(value, status):
                context = {"@odata.context": self.context(call, self._named(call, action))}
                if isinstance(value, dict):
                    return Reply({**context, **value}, status)
                return Reply({**context, "value": value}, status)

    def _named(self, call: Call, action: Action) -> str:
        """What a result is called in its context: a contained collection by its whole path."""
        if action.method != "GET":
            return action.path.rpartition("/")[2]
        path = action.path
        for name, key in call.keys.items():
            path = path.replace(f"/{{{name}}}", f"('{key}')")
        return path


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("userPrincipalName") or item.get("displayName") or "")


class UnsupportedCount(BadProperty):
    code = "graph.unsupported-count"


def _check_countable(resource: Resource, call: Call) -> None:
    if resource.type in ADVANCED and not call.eventual:
        raise UnsupportedCount(
            "$count is not currently supported.",
            cure="Send the header ConsistencyLevel: eventual.",
        )


def check_advanced(resource: Resource, call: Call) -> None:
    """Raise UnsupportedQuery for what a directory collection answers only with the header."""
    if resource.type not in ADVANCED:
        return
    query = call.query
    # $search is the one that does without $count.
    counted = query.count or (query.hard and not replace(query, search=None).hard)
    if (query.hard and not (call.eventual and counted)) or (query.count and not call.eventual):
        raise UnsupportedQuery(
            "Request with $count, $search, $orderby beside $filter, or a $filter that is advanced "
            "is only supported with the header ConsistencyLevel: eventual and, but for $search, "
            "$count=true.",
            cure="Send both, or ask with eq and startsWith.",
        )


def _shape(query: Query) -> str:
    return f"({','.join(query.select)})" if query.select and "*" not in query.select else ""


def _narrowed(found: list[dict[str, Any]], query: Query) -> list[dict[str, Any]]:
    condition = query.condition
    if condition is not None:
        found = [item for item in found if odata.matches(condition, item)]
    for order in reversed(query.orderby):
        found.sort(key=lambda item: _text(item, order.name), reverse=order.descending)
    return found


def _text(item: Mapping[str, Any], name: str) -> str:
    lower = name.lower()
    held = next((value for key, value in item.items() if key.lower() == lower), None)
    return "" if held is None else str(odata.render(held)).lower()


def _selected(item: dict[str, Any], query: Query) -> dict[str, Any]:
    if not query.select:
        return item
    wanted = {"id", "@odata.type", *(name.lower() for name in query.select)}
    return {name: value for name, value in item.items() if name.lower() in wanted}


def _taken(resource: Resource, raw: Body) -> tuple[Body, dict[str, list[str]]]:
    """The body without the references that the frame itself binds, and those by navigation."""
    rest, bound = dict(raw), {}
    for navigation in resource.navigations:
        if not navigation.binds:
            continue
        wanted = f"{navigation.name}@odata.bind".lower()
        given = next((name for name in rest if name.lower() == wanted), None)
        if given is None:
            continue
        value = rest.pop(given)
        references = value if isinstance(value, list) else [value]
        if len(references) > MOST_BOUND:
            raise BadProperty(
                f"'{given}' refers to more than {MOST_BOUND} objects.",
                cure="Add the others in further requests.",
                target=given,
            )
        bound[navigation.name] = [bound_id(item) for item in references]
    return rest, bound


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
