"""Co-management of the admin API."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Invalid
from tandem.site import collections
from tandem.site.administrators import Require, Role
from tandem.site.collections import as_dict
from tandem.site.comanagement import service
from tandem.site.comanagement.dashboard import TenantFacts, figures
from tandem.site.comanagement.model import AutoEnroll, Slider, read_workload
from tandem.site.comanagement.service import Collaborators
from tandem.workloads import Position


class Enable(msgspec.Struct):
    """`access_token` is a tenant administrator's, for this one request."""

    automatic_enrollment: str
    access_token: str
    collection: str = ""


class Switch(msgspec.Struct):
    position: str
    collection: str = ""


def routes(db: Database, others: Collaborators, require: Require, now: Clock) -> list[BaseRoute]:
    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply(await _shape(tx, others))

    async def enable(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        wanted = await http.decode(request, Enable)
        async with db.transaction() as tx:
            await service.enable(
                tx,
                others,
                auto_enroll=_read(AutoEnroll, wanted.automatic_enrollment),
                collection=wanted.collection,
                access_token=wanted.access_token,
                actor=who.name,
                now=now(),
            )
            return http.reply(await _shape(tx, others))

    async def switch(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        wanted = await http.decode(request, Switch)
        async with db.transaction() as tx:
            slider = await service.switch(
                tx,
                read_workload(request.path_params["workload"]),
                _read(Position, wanted.position),
                collection=wanted.collection,
                actor=who.name,
                now=now(),
            )
            return http.reply(await _slider(tx, slider))

    async def status(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.status(tx)
        moves = [
            {**as_dict(move), "devices": move.devices, "changed": move.changed, "done": move.done}
            for move in found.moves
        ]
        return http.reply({**as_dict(found), "moves": moves})

    async def dashboard(request: Request) -> Response:
        await require(request)
        known, without = await _tenant_devices(db, others)
        async with db.transaction() as tx:
            devices = await service.fleet(tx, known, tenant_asked=not without)
        return http.reply(as_dict(figures(devices, without)))

    async def command_line(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            await service.required(tx)
            return http.reply({"command_line": await service.command_line_now(tx, others)})

    return [
        Route("/api/v1/comanagement", show, methods=["GET"]),
        Route("/api/v1/comanagement", enable, methods=["PUT"]),
        Route("/api/v1/comanagement/status", status, methods=["GET"]),
        Route("/api/v1/comanagement/dashboard", dashboard, methods=["GET"]),
        Route("/api/v1/comanagement/command-line", command_line, methods=["GET"]),
        Route("/api/v1/comanagement/workloads/{workload}", switch, methods=["PUT"]),
    ]


async def _tenant_devices(
    db: Database, others: Collaborators
) -> tuple[Mapping[str, TenantFacts], str]:
    """What the tenant says of its devices, and why it says nothing when it does not."""
    async with db.transaction() as tx:
        if not await others.tenant_id(tx):
            return {}, "The site is not connected to a tenant."
    try:
        return await others.tenant_devices(), ""
    except AppError as error:
        return {}, error.message


async def _shape(tx: Tx, others: Collaborators) -> dict[str, Any]:
    enablement = await service.enablement(tx)
    try:
        line, missing = await service.command_line_now(tx, others), ""
    except AppError as error:
        line, missing = "", f"{error.message} {error.cure}"
    return {
        "enabled": enablement is not None,
        "enablement": as_dict(enablement) if enablement else None,
        "command_line": line if enablement else "",
        "missing": missing,
        "workloads": [await _slider(tx, item) for item in (await service.sliders(tx)).values()],
        "policies": [as_dict(policy) for policy in await service.policies(tx)],
    }


async def _slider(tx: Tx, slider: Slider) -> dict[str, Any]:
    name = ""
    if slider.collection_id:
        name = (await collections.collection(tx, slider.collection_id)).name
    return {
        **as_dict(slider),
        "title": slider.workload.title,
        "bits": slider.workload.bits,
        "collection": name,
    }


def _read(wanted: Any, name: str) -> Any:
    try:
        return wanted(name.strip().lower())
    except ValueError:
        names = ", ".join(item.value for item in wanted)
        raise Invalid(f"{name!r} is not one of: {names}.", cure="Take one of them.") from None
