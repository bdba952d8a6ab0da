"""Collections and resources of the admin API."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import Invalid
from tandem.site import properties
from tandem.site.administrators import Require
from tandem.site.collections import service, store
from tandem.site.collections.classes import CLASSES, Class
from tandem.site.collections.model import (
    BUILT_IN,
    WEEK_MINUTES,
    Collection,
    Guard,
    MemberType,
    Rule,
    UsedFor,
    WantedRule,
)

_PAGE = 1000
# Rules that a collection shows with itself; the others are read by pages.
_RULES_SHOWN = 1000
# A collection with some ten thousand direct rules.
_LARGE_BODY = 2_000_000


class AskedRule(msgspec.Struct):
    kind: str
    name: str = ""
    query: str = ""
    device: str = ""
    collection: str = ""
    user: str = ""

    def wanted(self) -> WantedRule:
        return WantedRule(self.kind, self.name, self.query, self.device, self.collection, self.user)


class NewCollection(msgspec.Struct):
    name: str
    limiting: str = ""
    query: str = ""
    comment: str = ""
    rules: list[AskedRule] = []
    incremental: bool = True
    full_every_minutes: int = WEEK_MINUTES
    type: MemberType = MemberType.DEVICE


class Change(msgspec.Struct):
    name: str | None = None
    comment: str | None = None
    limiting: str | None = None
    rules: list[AskedRule] | None = None
    incremental: bool | None = None
    full_every_minutes: int | None = None


class AskedPreview(msgspec.Struct):
    limiting: str = ""
    rules: list[AskedRule] = []
    collection: str = ""
    first: int = 20
    type: MemberType = MemberType.DEVICE


class NewRules(msgspec.Struct):
    rules: list[AskedRule]


class NewMembers(msgspec.Struct):
    devices: list[str] = []
    query: str = ""
    rule: str = ""


def routes(
    db: Database,
    require: Require,
    now: Clock,
    used_for: Sequence[UsedFor] = (),
    approval_above: int = 100,
) -> list[BaseRoute]:
    """`used_for` says what the modules above use a collection for; more devices than
    `approval_above` do not come at once into one that is used."""
    guard = Guard(used_for, approval_above)

    def checked(request: Request) -> Callable[[service.Version], None]:
        return lambda version: http.check_version(request, http.version_of(version))

    async def listed(request: Request) -> Response:
        await require(request)
        asked = http.listing(request, store.COLLECTION_SORTS)
        counted = request.query_params.get("count") != "false"
        of = _type(request)
        async with db.transaction() as tx:
            found, total = await service.listed(
                tx, asked.search, asked.order, asked.limit, asked.offset, counted=counted, of=of
            )
        return http.reply({"items": found, "total": total})

    async def create(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewCollection, _LARGE_BODY)
        async with db.transaction() as tx:
            code = (await properties.site(tx)).code
            made = await service.create(
                tx,
                code,
                new.name,
                limiting=new.limiting,
                query=new.query,
                comment=new.comment,
                rules=[rule.wanted() for rule in new.rules],
                incremental=new.incremental,
                full_every_minutes=new.full_every_minutes,
                type=new.type,
                actor=who.name,
                now=now(),
            )
            return await _reply(tx, made, 201)

    async def preview(request: Request) -> Response:
        await require(request)
        asked = await http.decode(request, AskedPreview, _LARGE_BODY)
        if not 0 <= asked.first <= _PAGE:
            raise Invalid(f"first is a number from 0 to {_PAGE}.", field="first")
        async with db.transaction() as tx:
            found = await service.preview(
                tx,
                asked.limiting,
                [rule.wanted() for rule in asked.rules],
                of=asked.collection,
                first=asked.first,
                type=asked.type,
            )
        shape = {
            "members": found.members,
            "first": [as_dict(item) for item in found.first],
            "took_ms": found.took_ms,
            "direct": found.direct,
            "rules": [{**_rule(rule), "members": count} for rule, count in found.rules],
        }
        return http.reply(shape)

    async def readable(request: Request) -> Response:
        await require(request)
        return http.reply([_class(found) for found in CLASSES.values()])

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.collection(tx, request.path_params["id"])
            return await _reply(tx, found)

    async def change(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Change, _LARGE_BODY)
        rules = None if wanted.rules is None else [rule.wanted() for rule in wanted.rules]
        id = request.path_params["id"]
        async with db.transaction() as tx, service.guarded(tx, id, guard):
            changed = await service.change(
                tx,
                id,
                name=wanted.name,
                comment=wanted.comment,
                limiting=wanted.limiting,
                rules=rules,
                incremental=wanted.incremental,
                full_every_minutes=wanted.full_every_minutes,
                check=checked(request),
                actor=who.name,
                now=now(),
            )
            return await _reply(tx, changed)

    async def waiting(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            resources, collections = await service.waiting(tx, now())
        return http.reply({"resources": resources, "collections": collections})

    async def delete(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await service.delete(
                tx,
                request.path_params["id"],
                used_for=used_for,
                check=checked(request),
                actor=who.name,
                now=now(),
            )
        return Response(status_code=204)

    async def uses(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.collection(tx, request.path_params["id"])
            shown = await service.seen_uses(tx, found.id, used_for)
        told = [{name: v for name, v in as_dict(use).items() if name != "seen"} for use in shown]
        return http.reply(told)

    async def dependencies(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.dependencies(tx, request.path_params["id"])
        return http.reply(as_dict(found))

    async def evaluate(request: Request) -> Response:
        who = await require(request)
        id = request.path_params["id"]
        async with db.transaction() as tx:
            found = await service.evaluate(tx, id, actor=who.name, now=now())
        return http.reply(as_dict(found))

    async def members(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            of = await service.collection(tx, request.path_params["id"])
            sorts = store.USER_SORTS if of.type is MemberType.USER else store.RESOURCE_SORTS
            asked = http.listing(request, sorts, limit=_PAGE)
            found, total = await service.some_members(
                tx,
                of,
                asked.search,
                asked.order,
                asked.limit,
                asked.offset,
            )
        return http.reply({"items": [as_dict(item) for item in found], "total": total})

    async def add_members(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewMembers, 1_000_000)
        id = request.path_params["id"]
        async with db.transaction() as tx, service.guarded(tx, id, guard):
            if new.query:
                await service.add_query(
                    tx, id, new.rule or new.query[:200], new.query, actor=who.name, now=now()
                )
            added = await service.add_members(tx, id, new.devices, actor=who.name, now=now())
            found = await service.collection(tx, id)
            answer = {**await _shape(tx, found), "added": [item.name for item in added]}
        return http.reply(answer)

    async def rules(request: Request) -> Response:
        await require(request)
        asked = http.listing(request, ("kind",), limit=100)
        kind = request.query_params.get("kind", "")
        async with db.transaction() as tx:
            found, total = await service.some_rules(
                tx, request.path_params["id"], kind, asked.search, asked.limit, asked.offset
            )
        return http.reply({"items": [_rule(item) for item in found], "total": total})

    async def add_rules(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewRules, _LARGE_BODY)
        id = request.path_params["id"]
        async with db.transaction() as tx, service.guarded(tx, id, guard):
            wanted = [rule.wanted() for rule in new.rules]
            await service.add_rules(tx, id, wanted, actor=who.name, now=now())
            return await _reply(tx, await service.collection(tx, id))

    async def remove_rule(request: Request) -> Response:
        who = await require(request)
        path = request.path_params
        async with db.transaction() as tx, service.guarded(tx, path["id"], guard):
            await service.remove_rule(
                tx, path["id"], path["rule"], check=checked(request), actor=who.name, now=now()
            )
        return Response(status_code=204)

    async def resources(request: Request) -> Response:
        await require(request)
        asked = http.listing(request, store.RESOURCE_SORTS, limit=_PAGE)
        async with db.transaction() as tx:
            found = await service.resources(
                tx, asked.limit, asked.offset, search=asked.search, order=asked.order
            )
            total = await service.count_resources(tx, asked.search)
        return http.reply({"items": [as_dict(item) for item in found], "total": total})

    async def users(request: Request) -> Response:
        await require(request)
        asked = http.listing(request, store.USER_SORTS, limit=_PAGE)
        async with db.transaction() as tx:
            found = await service.users(
                tx, asked.limit, asked.offset, search=asked.search, order=asked.order
            )
            total = await service.count_users(tx, asked.search)
        return http.reply({"items": [as_dict(item) for item in found], "total": total})

    async def user_groups(request: Request) -> Response:
        await require(request)
        asked = http.listing(request, store.GROUP_SORTS, limit=_PAGE)
        async with db.transaction() as tx:
            found = await service.user_groups(
                tx, asked.limit, asked.offset, search=asked.search, order=asked.order
            )
            total = await service.count_user_groups(tx, asked.search)
        return http.reply({"items": [as_dict(item) for item in found], "total": total})

    async def user_group(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.user_group(tx, request.path_params["id"])
        return http.reply(as_dict(found))

    async def group_members(request: Request) -> Response:
        await require(request)
        asked = http.listing(request, store.USER_SORTS, limit=_PAGE)
        async with db.transaction() as tx:
            of = await service.user_group(tx, request.path_params["id"])
            found, total = await service.group_members(
                tx, of.id, asked.search, asked.order, asked.limit, asked.offset
            )
        return http.reply({"items": [as_dict(item) for item in found], "total": total})

    one = "/api/v1/collections/{id}"
    return [
        Route("/api/v1/collections", listed, methods=["GET"]),
        Route("/api/v1/collections", create, methods=["POST"]),
        Route("/api/v1/collections/preview", preview, methods=["POST"]),
        Route("/api/v1/collections/classes", readable, methods=["GET"]),
        Route("/api/v1/collections/waiting", waiting, methods=["GET"]),
        Route(one, show, methods=["GET"]),
        Route(one, change, methods=["PATCH"]),
        Route(one, delete, methods=["DELETE"]),
        Route(f"{one}/evaluate", evaluate, methods=["POST"]),
        Route(f"{one}/uses", uses, methods=["GET"]),
        Route(f"{one}/dependencies", dependencies, methods=["GET"]),
        Route(f"{one}/members", members, methods=["GET"]),
        Route(f"{one}/members", add_members, methods=["POST"]),
        Route(f"{one}/rules", rules, methods=["GET"]),
        Route(f"{one}/rules", add_rules, methods=["POST"]),
        Route(f"{one}/rules/{{rule:int}}", remove_rule, methods=["DELETE"]),
        Route("/api/v1/resources", resources, methods=["GET"]),
        Route("/api/v1/users", users, methods=["GET"]),
        Route("/api/v1/user-groups", user_groups, methods=["GET"]),
        Route("/api/v1/user-groups/{id}", user_group, methods=["GET"]),
        Route("/api/v1/user-groups/{id}/members", group_members, methods=["GET"]),
    ]


def _type(request: Request) -> MemberType | None:
    """Raises Invalid."""
    said = request.query_params.get("type", "")
    try:
        return MemberType(said) if said else None
    except ValueError:
        raise Invalid("type is device or user.", field="type") from None


async def _reply(tx: Tx, found: Collection, status: int = 200) -> Response:
    """A collection with its version."""
    version = http.version_of(await service.version(tx, found))
    return http.reply(await _shape(tx, found), status, {"ETag": version})


async def _shape(tx: Tx, item: Collection) -> dict[str, Any]:
    rules, total = await service.some_rules(tx, item.id, "", "", _RULES_SHOWN, 0)
    limiting = await service.name_of(tx, item.limiting_id) if item.limiting_id else ""
    evaluation = await service.last_evaluation(tx, item.id)
    due_at, trouble = await service.schedule(tx, item.id)
    return {
        **as_dict(item),
        "limiting_name": limiting,
        "built_in": item.built_in,
        "rule_of_the_site": BUILT_IN.get(item.id, ""),
        "members": await service.count(tx, item.id),
        "rule_count": total,
        "rules": [_rule(rule) for rule in rules],
        "evaluation": as_dict(evaluation) if evaluation else None,
        "full_due_at": due_at,
        "trouble": trouble,
    }


def _class(found: Class) -> dict[str, Any]:
    attributes = [
        {"name": item.name, "type": "number" if item.number else "text"}
        for item in found.attributes
    ]
    return {"name": found.name, "resource": found.is_resource, "attributes": attributes}


def _rule(rule: Rule) -> dict[str, Any]:
    return as_dict(rule)


def as_dict(item: Any) -> dict[str, Any]:
    shape: dict[str, Any] = msgspec.to_builtins(item, builtin_types=())
    return shape
