"""Off-boarding of the admin API."""

from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import Invalid
from tandem.site.administrators import Require, Role
from tandem.site.comanagement import leaving
from tandem.site.comanagement.leaving_model import CANCELLABLE, Offboarding, Preview, State
from tandem.site.comanagement.service import Collaborators

_URL = "/api/v1/comanagement/offboardings"
_FULL = Role.FULL_ADMINISTRATOR


class Begin(msgspec.Struct, forbid_unknown_fields=True):
    """`confirm` is the device's name, typed."""

    device: str
    confirm: str = ""
    accept_lacking: bool = False


def routes(db: Database, others: Collaborators, require: Require, now: Clock) -> list[BaseRoute]:
    async def listed(request: Request) -> Response:
        await require(request)
        part = http.listing(request, ("begun_at",), limit=50)
        async with db.transaction() as tx:
            found = await leaving.listed(tx, part.limit, part.offset)
            return http.reply({"items": [await _shape(tx, one) for one in found]})

    async def preview(request: Request) -> Response:
        await require(request)
        device = _device(request.query_params.get("device", ""))
        return http.reply(_told(await leaving.preview(db, others, device)))

    async def begin(request: Request) -> Response:
        who = await require(request, _FULL)
        wanted = await http.decode(request, Begin)
        made = await leaving.begin(
            db,
            others,
            _device(wanted.device),
            confirm=wanted.confirm,
            accept_lacking=wanted.accept_lacking,
            actor=who.name,
            now=now(),
        )
        async with db.transaction() as tx:
            return http.reply(await _shape(tx, made), 201, {"Location": f"{_URL}/{made.id}"})

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply(await _shape(tx, await leaving.find(tx, _id(request))))

    def action(change: Any) -> Any:
        async def act(request: Request) -> Response:
            who = await require(request, _FULL)
            async with db.transaction() as tx:
                found = await change(tx, _id(request), actor=who.name, now=now())
                return http.reply(await _shape(tx, found))

        return act

    return [
        Route(_URL, listed, methods=["GET"]),
        Route(_URL, begin, methods=["POST"]),
        Route(f"{_URL}/preview", preview, methods=["GET"]),
        Route(f"{_URL}/{{id}}", show, methods=["GET"]),
        Route(f"{_URL}/{{id}}/cancel", action(leaving.cancel), methods=["POST"]),
        Route(f"{_URL}/{{id}}/readmit", action(leaving.readmit), methods=["POST"]),
    ]


def _device(text: str) -> str:
    if not text.strip() or "\0" in text or len(text) > 256:
        raise Invalid(
            "Say which device.", cure="Its name, or its number among resources.", field="device"
        )
    return text.strip()


def _id(request: Request) -> str:
    return str(request.path_params["id"])[:256].replace("\0", "")


async def _shape(tx: Tx, one: Offboarding) -> dict[str, Any]:
    found = await leaving.progress(tx, one)
    plain: dict[str, Any] = msgspec.to_builtins(replace(one), builtin_types=())
    return {
        **plain,
        "waits_for": found.waits_for,
        "since": found.since,
        "workloads": list(found.workloads),
        "can_cancel": one.state in CANCELLABLE,
        "can_readmit": one.state is State.DONE,
    }


def _told(found: Preview) -> dict[str, Any]:
    return {
        "name": found.name,
        "going": [
            {
                "workload": one.workload.value,
                "title": one.workload.title,
                "site": one.site,
                "mdm": one.mdm,
                "lacking": one.lacking,
            }
            for one in found.going
        ],
        "lacking": [one.workload.value for one in found.going if one.lacking],
        "lost": list(found.lost),
        "collections": list(found.collections),
        "client_is_assigned": found.app,
        "trouble": found.trouble,
    }
