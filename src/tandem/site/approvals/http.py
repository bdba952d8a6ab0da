"""What waits, in the admin API: the same three routes for whatever may have to wait."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.site.administrators import Require
from tandem.site.approvals import service
from tandem.site.approvals.model import Request


class Approval(msgspec.Struct):
    devices: int
    # As the list of what waits has it.
    seen: str


def waiting_routes(
    url: str,
    kind: str,
    db: Database,
    require: Require,
    now: Clock,
    describe: service.Describe,
    act: Callable[[Tx, Request, datetime], Awaitable[Any]],
) -> list[BaseRoute]:
    """`…/waiting`, `…/waiting/{id}/approve`, `…/waiting/{id}`. `act` does what was asked for, and says
    what came of it."""

    async def waiting(request: HttpRequest) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.waiting(tx, kind, describe, now())
        return http.reply(
            [
                {
                    **service.shape(one.request),
                    **one.about,
                    "collection": one.collection,
                    "reaches": one.reaches,
                    "seen": one.seen,
                }
                for one in found
            ]
        )

    async def approve(request: HttpRequest) -> Response:
        who = await require(request)
        shown = await http.decode(request, Approval)
        at = now()
        async with db.transaction() as tx:
            asked = await service.approve(
                tx,
                kind,
                request.path_params["id"],
                describe,
                devices=shown.devices,
                seen=shown.seen,
                actor=who.name,
                now=at,
            )
            made = await act(tx, asked, at)
        return http.reply(made, 201)

    async def cancel(request: HttpRequest) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            id = request.path_params["id"]
            await service.cancel(tx, kind, id, actor=who.name, now=now())
        return Response(status_code=204)

    return [
        Route(f"{url}/waiting", waiting, methods=["GET"]),
        Route(f"{url}/waiting/{{id}}/approve", approve, methods=["POST"]),
        Route(f"{url}/waiting/{{id}}", cancel, methods=["DELETE"]),
    ]
