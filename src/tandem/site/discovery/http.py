"""Discovery of the admin API."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Database
from tandem.site.administrators import Require
from tandem.site.collections import as_dict
from tandem.site.discovery.service import Discovery


def routes(db: Database, discovery: Discovery, require: Require) -> list[BaseRoute]:
    async def run(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            return http.reply(as_dict(await discovery.request_full(tx, actor=who.name)), 202)

    async def listed(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply([as_dict(item) for item in await discovery.runs(tx)])

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply(as_dict(await discovery.run(tx, request.path_params["id"])))

    return [
        Route("/api/v1/discovery/runs", run, methods=["POST"]),
        Route("/api/v1/discovery/runs", listed, methods=["GET"]),
        Route("/api/v1/discovery/runs/{id:int}", show, methods=["GET"]),
    ]
