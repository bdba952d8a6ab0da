"""Discovery of the admin API."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Database
from tandem.site.administrators import Require
from tandem.site.collections import as_dict
from tandem.site.discovery.model import Schedule
from tandem.site.discovery.service import Discovery


class Wanted(msgspec.Struct):
    full_days: int
    delta_minutes: int


def routes(db: Database, discovery: Discovery, require: Require) -> list[BaseRoute]:
    async def run(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            return http.reply(as_dict(await discovery.request_full(tx, actor=who.name)), 202)

    async def delta(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            return http.reply(as_dict(await discovery.request_delta(tx, actor=who.name)), 202)

    async def schedule(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply(_schedule(*await discovery.schedule(tx, _service(request))))

    async def set_schedule(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Wanted)
        async with db.transaction() as tx:
            made = await discovery.set_schedule(
                tx,
                _service(request),
                full_days=wanted.full_days,
                delta_minutes=wanted.delta_minutes,
                actor=who.name,
            )
        return http.reply(_schedule(*made))

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
        Route("/api/v1/discovery/delta-runs", delta, methods=["POST"]),
        Route("/api/v1/discovery/schedules/{service}", schedule, methods=["GET"]),
        Route("/api/v1/discovery/schedules/{service}", set_schedule, methods=["PUT"]),
        Route("/api/v1/discovery/runs", listed, methods=["GET"]),
        Route("/api/v1/discovery/runs/{id:int}", show, methods=["GET"]),
    ]


def _service(request: Request) -> str:
    name = str(request.path_params["service"])
    return "" if name == "-" else name


def _schedule(service: str, found: Schedule) -> dict[str, Any]:
    return {
        "service": service,
        "full_days": found.full_days,
        "delta_minutes": found.delta_minutes,
        "full_at": found.full_at,
        "delta_at": found.delta_at,
        "delta_ready": bool(found.delta_link),
    }
