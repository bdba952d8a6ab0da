"""Configurations of the admin API."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.site.administrators import Require
from tandem.site.collections import as_dict
from tandem.site.deployments import service
from tandem.site.deployments.model import Configuration, workload_for
from tandem.workloads import shown


class NewConfiguration(msgspec.Struct):
    name: str
    setting: str
    value: str
    collection: str
    workload: str = ""


def routes(db: Database, require: Require, now: Clock) -> list[BaseRoute]:
    async def listed(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.deployed(tx)
        value = [
            {
                **_shape(item.configuration),
                "collection": item.collection,
                "members": item.members,
                "applied": item.applied,
                "with_mdm": item.with_mdm,
            }
            for item in found
        ]
        return http.reply(value)

    async def create(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewConfiguration)
        async with db.transaction() as tx:
            made = await service.create(
                tx,
                new.name,
                setting=new.setting,
                value=new.value,
                collection=new.collection,
                workload=workload_for(new.setting, new.workload),
                actor=who.name,
                now=now(),
            )
        return http.reply(_shape(made), 201)

    async def delete(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await service.delete(tx, request.path_params["id"], actor=who.name, now=now())
        return Response(status_code=204)

    return [
        Route("/api/v1/configurations", listed, methods=["GET"]),
        Route("/api/v1/configurations", create, methods=["POST"]),
        Route("/api/v1/configurations/{id}", delete, methods=["DELETE"]),
    ]


def _shape(item: Configuration) -> dict[str, Any]:
    """A secret is told once, to the site: nobody reads it back."""
    return {**as_dict(item), "value": shown(item.setting, item.value)}
