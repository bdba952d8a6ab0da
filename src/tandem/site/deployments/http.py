"""Configurations of the admin API."""

from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.site import collections
from tandem.site.administrators import Require
from tandem.site.approvals import Safeguards
from tandem.site.collections import as_dict
from tandem.site.deployments import service
from tandem.site.deployments.model import Configuration, Request, workload_for
from tandem.workloads import shown


class NewConfiguration(msgspec.Struct):
    name: str
    setting: str
    value: str
    collection: str
    workload: str = ""
    reason: str = ""


class AskedReach(msgspec.Struct):
    collection: str


class Approval(msgspec.Struct):
    # Or users, where it is deployed to these.
    devices: int
    # As the list of what waits has it.
    seen: str


def routes(
    db: Database, require: Require, now: Clock, safeguards: Safeguards | None = None
) -> list[BaseRoute]:
    guards = safeguards or Safeguards()

    async def listed(request: HttpRequest) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            found = await service.deployed(tx, who)
        value = [
            {
                **_shape(item.configuration),
                "collection": item.collection,
                "members": item.members,
                "applied": item.applied,
                "with_mdm": item.with_mdm,
                "type": item.type.value,
            }
            for item in found
        ]
        return http.reply(value)

    async def create(request: HttpRequest) -> Response:
        who = await require(request)
        new = await http.decode(request, NewConfiguration)
        async with db.transaction() as tx:
            made = await service.deploy(
                tx,
                new.name,
                setting=new.setting,
                value=new.value,
                collection=new.collection,
                workload=workload_for(new.setting, new.workload),
                reason=new.reason,
                safeguards=guards,
                who=who,
                now=now(),
            )
            type = (await collections.collection(tx, made.collection_id)).type
        if isinstance(made, Request):
            return http.reply({**_shape(made), "state": "approval", "type": type.value}, 202)
        return http.reply({**_shape(made), "state": "deployed", "type": type.value}, 201)

    async def preview(request: HttpRequest) -> Response:
        await require(request)
        asked = await http.decode(request, AskedReach)
        async with db.transaction() as tx:
            return http.reply(as_dict(await service.reach(tx, asked.collection, guards)))

    async def waiting(request: HttpRequest) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            found = await service.waiting(tx, who, guards, now())
        return http.reply(
            [
                {
                    **_shape(item),
                    "collection": reach.collection,
                    "reaches": reach.devices,
                    "type": reach.type.value,
                    "seen": seen,
                }
                for item, reach, seen in found
            ]
        )

    async def approve(request: HttpRequest) -> Response:
        who = await require(request)
        seen = await http.decode(request, Approval)
        async with db.transaction() as tx:
            id = request.path_params["id"]
            made = await service.approve(
                tx, id, devices=seen.devices, seen=seen.seen, who=who, now=now()
            )
        return http.reply({**_shape(made), "state": "deployed"}, 201)

    async def cancel(request: HttpRequest) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await service.cancel(tx, request.path_params["id"], who=who, now=now())
        return Response(status_code=204)

    async def delete(request: HttpRequest) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            found = await service.find(tx, who, request.path_params["id"])
            await service.delete(tx, found.id, actor=who.name, now=now())
        return Response(status_code=204)

    return [
        Route("/api/v1/configurations", listed, methods=["GET"]),
        Route("/api/v1/configurations", create, methods=["POST"]),
        Route("/api/v1/configurations/preview", preview, methods=["POST"]),
        Route("/api/v1/configurations/waiting", waiting, methods=["GET"]),
        Route("/api/v1/configurations/waiting/{id}/approve", approve, methods=["POST"]),
        Route("/api/v1/configurations/waiting/{id}", cancel, methods=["DELETE"]),
        Route("/api/v1/configurations/{id}", delete, methods=["DELETE"]),
    ]


def _shape(item: Configuration | Request) -> dict[str, Any]:
    """A secret is told once, to the site: nobody reads it back. Scopes are for who gives them."""
    told = {name: value for name, value in as_dict(item).items() if name != "scopes"}
    return {**told, "value": shown(item.setting, item.value)}
