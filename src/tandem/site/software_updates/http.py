"""Updates of the admin API. The software update point's own properties are at `cloud_services`,
which publishes it."""

from datetime import datetime
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import Invalid
from tandem.site import approvals
from tandem.site.administrators import Require
from tandem.site.software_updates import service
from tandem.site.software_updates.model import (
    CLASSIFICATIONS,
    IMPORT_BYTES,
    MOST_LISTED,
    SEVERITIES,
    Choice,
    Counts,
    Decision,
    State,
    Update,
    Wanted,
)

_PATH = "/api/v1/software-updates"


class File(msgspec.Struct):
    format: Literal["csv", "debian-tracker"]
    content: str
    release: str = ""


class NewDecision(msgspec.Struct):
    updates: list[str]
    collection: str
    decision: Literal["approved", "declined"]
    deadline: datetime | None = None
    reason: str = ""


def routes(
    db: Database, require: Require, now: Clock, safeguards: approvals.Safeguards | None = None
) -> list[BaseRoute]:
    """`/api/v1/software-updates…`."""
    guards = safeguards or approvals.Safeguards()

    async def listed(request: Request) -> Response:
        await require(request)
        filter = {
            name: _one_of(request, name, known)
            for name, known in (
                ("classification", CLASSIFICATIONS),
                ("severity", SEVERITIES),
                ("decision", ("approved", "declined", "none")),
            )
        }
        filter["release"] = _text(request.query_params.get("release", ""))
        search = _text(request.query_params.get("search", ""))
        limit, offset = _page(request, 100)
        async with db.transaction() as tx:
            found, total = await service.listed(tx, search, filter, limit, offset)
        value = [{**_shape(one.update), **_told(one.decisions, one.counts)} for one in found]
        return http.reply({"updates": value, "total": total})

    async def create(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Wanted)
        async with db.transaction() as tx:
            made = await service.create(tx, wanted, actor=who.name, now=now())
        return http.reply(_shape(made), 201)

    async def take(request: Request) -> Response:
        who = await require(request)
        file = await http.decode(request, File, IMPORT_BYTES)
        async with db.transaction() as tx:
            made = await service.take_file(
                tx, file.format, file.content, file.release, actor=who.name, now=now()
            )
        return http.reply(made)

    async def show(request: Request) -> Response:
        await require(request)
        state = _one_of(request, "state", [one.value for one in State])
        limit, offset = _page(request, 200)
        async with db.transaction() as tx:
            id = _text(request.path_params["id"])
            found = await service.show(tx, id, state, limit, offset)
        return http.reply(
            {
                **_shape(found.update),
                **_told(found.decisions, found.counts),
                "devices": found.devices,
            }
        )

    async def delete(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            id = _text(request.path_params["id"])
            await service.delete(tx, id, actor=who.name, now=now())
        return Response(status_code=204)

    async def decide(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, NewDecision)
        async with db.transaction() as tx:
            made = await service.propose(
                tx,
                [_text(one) for one in wanted.updates],
                _text(wanted.collection),
                Choice(wanted.decision),
                wanted.deadline,
                reason=wanted.reason,
                safeguards=guards,
                actor=who.name,
                now=now(),
            )
        if isinstance(made, approvals.Request):
            return http.reply(approvals.shape(made), 202)
        return http.reply(made)

    async def withdraw(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await service.withdraw(
                tx,
                _text(request.path_params["id"]),
                _text(request.path_params["collection"]),
                actor=who.name,
                now=now(),
            )
        return Response(status_code=204)

    async def reach(request: Request) -> Response:
        """How many devices a decision for a collection would be for."""
        await require(request)
        async with db.transaction() as tx:
            wanted = _text(request.query_params.get("collection", ""))
            return http.reply(await service.reach(tx, wanted, guards))

    async def devices(request: Request) -> Response:
        await require(request)
        state = _one_of(request, "state", [one.value for one in State])
        limit, offset = _page(request, 100)
        async with db.transaction() as tx:
            found = await service.devices(tx, state, limit, offset)
        return http.reply({"devices": found})

    async def of_device(request: Request) -> Response:
        await require(request)
        state = _one_of(request, "state", [one.value for one in State])
        limit, offset = _page(request, 200)
        async with db.transaction() as tx:
            wanted = _text(request.path_params["device"])
            found = await service.of_device(tx, wanted, state, limit, offset)
        return http.reply(found)

    return [
        Route(_PATH, listed, methods=["GET"]),
        Route(_PATH, create, methods=["POST"]),
        Route(f"{_PATH}/import", take, methods=["POST"]),
        Route(f"{_PATH}/decisions", decide, methods=["POST"]),
        *approvals.waiting_routes(
            _PATH, service.KIND, db, require, now, service.described, service.approved
        ),
        Route(f"{_PATH}/reach", reach, methods=["GET"]),
        Route(f"{_PATH}/devices", devices, methods=["GET"]),
        Route(f"{_PATH}/devices/{{device}}", of_device, methods=["GET"]),
        Route(f"{_PATH}/{{id}}", show, methods=["GET"]),
        Route(f"{_PATH}/{{id}}", delete, methods=["DELETE"]),
        Route(f"{_PATH}/{{id}}/decisions/{{collection}}", withdraw, methods=["DELETE"]),
    ]


def _shape(update: Update) -> dict[str, Any]:
    return msgspec.structs.asdict(update)


def _told(decisions: list[Decision], counts: Counts) -> dict[str, Any]:
    return {"decisions": decisions, "counts": counts}


def _page(request: Request, default: int) -> tuple[int, int]:
    return _number(request, "limit", default, MOST_LISTED), _number(request, "offset", 0, 10**7)


def _one_of(request: Request, name: str, known: Any) -> str:
    value = request.query_params.get(name, "")
    if value and value not in known:
        raise Invalid(f"{name} is one of {', '.join(known)}.", field=name)
    return value


def _text(value: str) -> str:
    if "\0" in value:
        raise Invalid("A NUL character is in no name and no id.")
    return value


def _number(request: Request, name: str, default: int, maximum: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) > maximum:
        raise Invalid(f"{name} is a whole number from 0 to {maximum}.", field=name)
    return int(text)
