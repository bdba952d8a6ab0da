"""Collections and resources of the admin API."""

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
from tandem.site.collections import service
from tandem.site.collections.model import ALL_SYSTEMS, Collection

_PAGE = 1000


class NewCollection(msgspec.Struct):
    name: str
    limiting: str = ALL_SYSTEMS
    query: str = ""
    comment: str = ""


class Change(msgspec.Struct):
    limiting: str


class NewMembers(msgspec.Struct):
    devices: list[str] = []
    query: str = ""
    rule: str = ""


def routes(db: Database, require: Require, now: Clock) -> list[BaseRoute]:
    async def listed(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply([await _shape(tx, item) for item in await service.collections(tx)])

    async def create(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewCollection)
        async with db.transaction() as tx:
            code = (await properties.site(tx)).code
            made = await service.create(
                tx,
                code,
                new.name,
                limiting=new.limiting,
                query=new.query,
                comment=new.comment,
                actor=who.name,
                now=now(),
            )
            return http.reply(await _shape(tx, made), 201)

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.collection(tx, request.path_params["id"])
            rules = [as_dict(r) for r in await service.rules(tx, found.id)]
            return http.reply({**await _shape(tx, found), "rules": rules})

    async def change(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Change)
        async with db.transaction() as tx:
            changed = await service.limit(
                tx, request.path_params["id"], wanted.limiting, actor=who.name, now=now()
            )
            return http.reply(await _shape(tx, changed))

    async def delete(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await service.delete(tx, request.path_params["id"], actor=who.name, now=now())
        return Response(status_code=204)

    async def members(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.members(tx, request.path_params["id"], _PAGE, offset_of(request))
        return http.reply([as_dict(item) for item in found])

    async def add_members(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewMembers, 1_000_000)
        id = request.path_params["id"]
        async with db.transaction() as tx:
            if new.query:
                await service.add_query(
                    tx, id, new.rule or new.query[:200], new.query, actor=who.name, now=now()
                )
            added = await service.add_members(tx, id, new.devices, actor=who.name, now=now())
            found = await service.collection(tx, id)
            answer = {**await _shape(tx, found), "added": [item.name for item in added]}
        return http.reply(answer)

    async def remove_rule(request: Request) -> Response:
        who = await require(request)
        path = request.path_params
        async with db.transaction() as tx:
            await service.remove_rule(tx, path["id"], path["rule"], actor=who.name, now=now())
        return Response(status_code=204)

    async def resources(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.resources(tx, _PAGE, offset_of(request))
        return http.reply([as_dict(item) for item in found])

    async def users(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.users(tx, _PAGE, offset_of(request))
        return http.reply([as_dict(item) for item in found])

    one = "/api/v1/collections/{id}"
    return [
        Route("/api/v1/collections", listed, methods=["GET"]),
        Route("/api/v1/collections", create, methods=["POST"]),
        Route(one, show, methods=["GET"]),
        Route(one, change, methods=["PATCH"]),
        Route(one, delete, methods=["DELETE"]),
        Route(f"{one}/members", members, methods=["GET"]),
        Route(f"{one}/members", add_members, methods=["POST"]),
        Route(f"{one}/rules/{{rule:int}}", remove_rule, methods=["DELETE"]),
        Route("/api/v1/resources", resources, methods=["GET"]),
        Route("/api/v1/users", users, methods=["GET"]),
    ]


async def _shape(tx: Tx, item: Collection) -> dict[str, Any]:
    return {**as_dict(item), "members": await service.count(tx, item.id)}


def as_dict(item: Any) -> dict[str, Any]:
    shape: dict[str, Any] = msgspec.to_builtins(item, builtin_types=())
    return shape


def offset_of(request: Request) -> int:
    raw = request.query_params.get("offset", "0")
    if not raw.isascii() or not raw.isdigit() or len(raw) > 9:
        raise Invalid("offset is a number of rows, 0 or more.")
    return int(raw)
