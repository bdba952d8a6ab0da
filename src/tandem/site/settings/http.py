"""Client settings of the admin API."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.site import collections
from tandem.site.administrators import Require
from tandem.site.settings import service
from tandem.site.settings.model import CATALOGUE


def routes(db: Database, require: Require, now: Clock) -> list[BaseRoute]:
    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply(_shape(await service.default(tx)))

    async def change(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, dict[str, Any])
        async with db.transaction() as tx:
            changed = await service.change_default(tx, wanted, actor=who.name, now=now())
        return http.reply(_shape(changed))

    async def resultant(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            device = await collections.resource(tx, request.path_params["device"])
            shape = _shape(await service.resultant(tx, device.id))
        return http.reply({"device": device.name, "settings": shape})

    return [
        Route("/api/v1/client-settings", show, methods=["GET"]),
        Route("/api/v1/client-settings", change, methods=["PATCH"]),
        Route("/api/v1/client-settings/resultant/{device}", resultant, methods=["GET"]),
    ]


def _shape(values: service.Values) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "group": CATALOGUE[name].group,
            "title": CATALOGUE[name].title,
            "value": value,
            "default": CATALOGUE[name].default,
        }
        for name, value in values.items()
    ]
