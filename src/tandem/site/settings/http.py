"""Client settings of the admin API."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.site import collections
from tandem.site.administrators import Require
from tandem.site.settings import service
from tandem.site.settings.model import CATALOGUE, Setting


def routes(db: Database, require: Require, now: Clock) -> list[BaseRoute]:
    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return await _answer(tx)

    async def change(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, dict[str, Any])
        async with db.transaction() as tx:
            await service.hold(tx)
            http.check_version(request, http.version_of(await service.default(tx)))
            await service.change_default(tx, wanted, actor=who.name, now=now())
            return await _answer(tx)

    async def resultant(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            device = await collections.resource(tx, request.path_params["device"])
            found = await service.resultant_of(tx, device.id)
        shape = [{**_shape(item.setting, item.value), "source": item.source} for item in found]
        return http.reply({"device": device.name, "settings": shape})

    return [
        Route("/api/v1/client-settings", show, methods=["GET"]),
        Route("/api/v1/client-settings", change, methods=["PATCH"]),
        Route("/api/v1/client-settings/resultant/{device}", resultant, methods=["GET"]),
    ]


async def _answer(tx: Tx) -> Response:
    """The default settings in the order of the field's pages, with who set what is not as shipped."""
    values, changes = await service.default(tx), await service.changes(tx)
    shape = []
    for name, value in values.items():
        by = changes.get(name)
        shape.append(
            {
                **_shape(CATALOGUE[name], value),
                "changed_at": by.changed_at if by else None,
                "changed_by": by.changed_by if by else "",
            }
        )
    return http.reply(shape, headers={"ETag": http.version_of(values)})


def _shape(item: Setting, value: bool | int) -> dict[str, Any]:
    numeric = not isinstance(item.default, bool)
    return {
        "name": item.name,
        "group": item.group,
        "title": item.title,
        "value": value,
        "default": item.default,
        "changed": value != item.default,
        "minimum": item.minimum if numeric else None,
        "maximum": item.maximum if numeric else None,
    }
