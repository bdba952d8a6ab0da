"""Discovery of the admin API."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Database
from tandem.infra.errors import Invalid
from tandem.site.administrators import Require
from tandem.site.collections import as_dict
from tandem.site.discovery.model import MOST_GROUPS, Schedule
from tandem.site.discovery.service import Discovery


class Wanted(msgspec.Struct):
    full_days: int
    delta_minutes: int


class WantedGroups(msgspec.Struct):
    """What is left out stays as it is."""

    enabled: bool | None = None
    every_hours: int | None = None


class Chosen(msgspec.Struct):
    groups: list[str]


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

    async def groups_run(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            return http.reply(as_dict(await discovery.request_groups(tx, actor=who.name)), 202)

    async def groups(request: Request) -> Response:
        await require(request)
        return await _groups(request)

    async def _groups(request: Request, status: int = 200) -> Response:
        async with db.transaction() as tx:
            service, schedule, chosen = await discovery.groups.settings(tx, _service(request))
        shape = {
            "service": service,
            "enabled": schedule.enabled,
            "every_hours": schedule.every_hours,
            "at": schedule.at,
            "groups": [as_dict(item) for item in chosen],
        }
        return http.reply(shape, status)

    async def set_groups(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, WantedGroups)
        of = _service(request)
        async with db.transaction() as tx:
            _, now, _ = await discovery.groups.settings(tx, of)
            await discovery.groups.change(
                tx,
                of,
                enabled=now.enabled if wanted.enabled is None else wanted.enabled,
                every_hours=now.every_hours if wanted.every_hours is None else wanted.every_hours,
                actor=who.name,
            )
        return await _groups(request)

    async def find_groups(request: Request) -> Response:
        await require(request)
        asked = request.query_params
        search = asked.get("search", "").strip()
        if len(search) > 256 or "\x00" in search:
            raise Invalid("A search has at most 256 characters.", field="search")
        found = await discovery.groups.find(
            _service(request), search, security_only=asked.get("all", "") != "1"
        )
        return http.reply([as_dict(item) for item in found])

    async def choose(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Chosen)
        if not 1 <= len(wanted.groups) <= MOST_GROUPS:
            raise Invalid(f"Name 1 to {MOST_GROUPS} groups.", field="groups")
        await discovery.groups.choose(_service(request), wanted.groups, actor=who.name)
        return await _groups(request, 201)

    async def unchoose(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await discovery.groups.unchoose(
                tx, _service(request), request.path_params["group"], actor=who.name
            )
        return await _groups(request)

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
        Route("/api/v1/discovery/group-runs", groups_run, methods=["POST"]),
        Route("/api/v1/discovery/groups/{service}", groups, methods=["GET"]),
        Route("/api/v1/discovery/groups/{service}", set_groups, methods=["PATCH"]),
        Route("/api/v1/discovery/groups/{service}/found", find_groups, methods=["GET"]),
        Route("/api/v1/discovery/groups/{service}/scope", choose, methods=["POST"]),
        Route("/api/v1/discovery/groups/{service}/scope/{group}", unchoose, methods=["DELETE"]),
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
