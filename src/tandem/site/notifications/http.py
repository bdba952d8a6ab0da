"""Client notifications of the admin API."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import Invalid
from tandem.site.administrators import Require
from tandem.site.notifications import service
from tandem.site.notifications.model import (
    ACTIONS,
    DEFAULT_MINUTES,
    MISSING,
    Operation,
    OrderState,
    action,
)

_PATH = "/api/v1/client-notifications"
_MOST = 1000


class NewOperation(msgspec.Struct):
    """Either `client`, by its id, or `collection`, by its id or name."""

    action: str
    client: str = ""
    collection: str = ""
    minutes: float = DEFAULT_MINUTES
    expected: int | None = None


def admin_routes(db: Database, require: Require, now: Clock) -> list[BaseRoute]:
    """`/api/v1/client-notifications…`."""

    async def actions(request: Request) -> Response:
        await require(request)
        missing = [{"id": id, "reason": why} for id, why in MISSING]
        return http.reply({"actions": list(ACTIONS.values()), "missing": missing})

    async def listed(request: Request) -> Response:
        await require(request)
        limit, offset = _number(request, "limit", 100, _MOST), _number(request, "offset", 0, 10**7)
        async with db.transaction() as tx:
            found, total = await service.listed(tx, now=now(), limit=limit, offset=offset)
        return http.reply({"operations": [_shape(one) for one in found], "total": total})

    async def create(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewOperation)
        _check_target(new.client, new.collection)
        async with db.transaction() as tx:
            made = await service.create(
                tx,
                new.action,
                client=new.client,
                collection=new.collection,
                minutes=new.minutes,
                expected=new.expected,
                actor=who.name,
                now=now(),
            )
        return http.reply(_shape(made), 201)

    async def reach(request: Request) -> Response:
        """How many devices an operation would be for. It changes nothing."""
        await require(request)
        client = _text(request.query_params.get("client", ""))
        collection = _text(request.query_params.get("collection", ""))
        _check_target(client, collection)
        async with db.transaction() as tx:
            found = await service.reach(tx, client=client, collection=collection, now=now())
        return http.reply(found)

    async def shown(request: Request) -> Response:
        await require(request)
        state = request.query_params.get("state", "")
        if state and state not in {one.value for one in OrderState}:
            names = ", ".join(one.value for one in OrderState)
            raise Invalid(f"state is one of {names}.", field="state")
        limit, offset = _number(request, "limit", 200, _MOST), _number(request, "offset", 0, 10**7)
        async with db.transaction() as tx:
            found = await service.find(tx, _text(request.path_params["id"]), now=now())
            devices = await service.results(
                tx, found.id, now=now(), state=state, limit=limit, offset=offset
            )
        return http.reply({"operation": _shape(found), "devices": devices})

    async def cancel(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            id = _text(request.path_params["id"])
            found = await service.cancel(tx, id, actor=who.name, now=now())
        return http.reply(_shape(found))

    async def client(request: Request) -> Response:
        """Whether a client can be told something now, how active it is, what it was asked lately."""
        await require(request)
        id = _text(request.path_params["id"])
        async with db.transaction() as tx:
            activity = await service.activity(tx, id, now=now())
            channel = await service.channel_of(tx, id, now=now())
            orders = await service.orders_of(tx, id, now=now())
        where = msgspec.structs.asdict(channel.location)
        shown = {"online": channel.online, "asked_at": channel.asked_at, "location": where}
        return http.reply({"channel": shown, "activity": activity, "orders": orders})

    return [
        Route(f"{_PATH}/actions", actions, methods=["GET"]),
        Route(_PATH, listed, methods=["GET"]),
        Route(_PATH, create, methods=["POST"]),
        Route(f"{_PATH}/reach", reach, methods=["GET"]),
        Route(f"{_PATH}/clients/{{id}}", client, methods=["GET"]),
        Route(f"{_PATH}/{{id}}", shown, methods=["GET"]),
        Route(f"{_PATH}/{{id}}/cancel", cancel, methods=["POST"]),
    ]


def _shape(found: Operation) -> dict[str, Any]:
    counts = {one.value: found.counts.get(one.value, 0) for one in OrderState}
    told = msgspec.structs.asdict(found)
    return {**told, "title": action(found.action).title, "counts": counts, "over": found.over}


def _check_target(client: str, collection: str) -> None:
    if bool(client) == bool(collection):
        raise Invalid("Name a client or a collection, and not both.", field="client")


def _text(value: str) -> str:
    if "\0" in value:
        raise Invalid("A NUL character is in no name and no id.")
    return value


def _number(request: Request, name: str, default: int, maximum: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) > maximum:
        raise Invalid(f"{name} is a whole number from 0 to {maximum}.", field=name)
    return int(text)
