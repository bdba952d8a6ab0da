"""Client settings of the admin API."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.site import approvals, collections
from tandem.site.administrators import Require
from tandem.site.collections import MemberType
from tandem.site.settings import model, service
from tandem.site.settings.model import (
    CATALOGUE,
    DEFAULT_PRIORITY,
    DEFAULT_SETTINGS,
    CustomSettings,
    Resultant,
    Say,
    Setting,
)

_CUSTOM = "/api/v1/client-settings/custom"


class NewSettings(msgspec.Struct):
    name: str
    description: str = ""
    type: MemberType = MemberType.DEVICE
    groups: list[str] = []
    settings: dict[str, Any] = {}


class Change(msgspec.Struct):
    """What is None stays as it is."""

    name: str | None = None
    description: str | None = None
    priority: int | None = None
    groups: list[str] | None = None
    settings: dict[str, Any] = {}


class NewDeployment(msgspec.Struct):
    collection: str
    reason: str = ""


def routes(
    db: Database, require: Require, now: Clock, safeguards: approvals.Safeguards | None = None
) -> list[BaseRoute]:
    guards = safeguards or approvals.Safeguards()

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return await _answer(tx)

    async def change_default(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, dict[str, Any])
        async with db.transaction() as tx:
            await service.hold(tx)
            http.check_version(request, http.version_of(await service.default(tx)))
            await service.change_default(tx, wanted, actor=who.name, now=now())
            return await _answer(tx)

    async def catalogue(request: Request) -> Response:
        """Which settings there are, in their groups, and of whom they can be."""
        await require(request)
        return http.reply(
            [
                {
                    **_described(item),
                    "types": [type.value for type in MemberType if item.is_of(type)],
                }
                for item in CATALOGUE.values()
            ]
        )

    async def listed(request: Request) -> Response:
        """In the order in which they win, the default settings at the end."""
        await require(request)
        async with db.transaction() as tx:
            every = await service.custom(tx)
            names = await _names(tx)
        rows = [_row(item, names) for item in every]
        rows.append({"id": "", "name": DEFAULT_SETTINGS, "priority": DEFAULT_PRIORITY})
        return http.reply(rows)

    async def shown(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return await _one(tx, await service.find(tx, request.path_params["id"]))

    async def create(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewSettings)
        async with db.transaction() as tx:
            made = await service.create(
                tx,
                new.name,
                description=new.description,
                type=new.type,
                groups=new.groups,
                wanted=new.settings,
                actor=who.name,
                now=now(),
            )
            return await _one(tx, made, 201)

    async def change(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Change)
        async with db.transaction() as tx:
            found = await _held(tx, request)
            made = await service.change(
                tx,
                found.id,
                name=wanted.name,
                description=wanted.description,
                groups=wanted.groups,
                wanted=wanted.settings,
                actor=who.name,
                now=now(),
            )
            if wanted.priority is not None:
                made = await service.prioritize(
                    tx, made.id, wanted.priority, actor=who.name, now=now()
                )
            return await _one(tx, made)

    async def delete(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            found = await _held(tx, request)
            await service.delete(tx, found.id, actor=who.name, now=now())
        return Response(status_code=204)

    async def reach(request: Request) -> Response:
        """For how many it would hold where it is deployed to a collection, and with what effect."""
        await require(request)
        wanted = request.query_params.get("collection", "")[:256].replace("\0", "")
        async with db.transaction() as tx:
            found = await service.find(tx, request.path_params["id"])
            target = await service.target_of(tx, found, wanted)
            members = await collections.count(tx, target.id)
        return http.reply(
            {
                "collection_id": target.id,
                "collection": target.name,
                "members": members,
                "needs_approval": members > guards.approval_above,
                "leave_the_gateway": found.values.get("enable_cloud_management_gateway") is False,
            }
        )

    async def deploy(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewDeployment)
        async with db.transaction() as tx:
            found = await service.find(tx, request.path_params["id"])
            made = await service.propose(
                tx,
                found.id,
                new.collection,
                reason=new.reason,
                safeguards=guards,
                actor=who.name,
                now=now(),
            )
            if isinstance(made, approvals.Request):
                return http.reply(approvals.shape(made), 202)
            return await _one(tx, made, 201)

    async def approved(tx: Tx, asked: approvals.Request, at: datetime) -> dict[str, Any]:
        found = await service.find(tx, asked.subject["settings"])
        target = asked.collection_id
        made = await service.deploy(tx, found.id, target, actor=asked.asked_by, now=at)
        return _row(made, await _names(tx))

    async def withdraw(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            found = await service.find(tx, request.path_params["id"])
            made = await service.withdraw(
                tx, found.id, request.path_params["collection"], actor=who.name, now=now()
            )
            return await _one(tx, made)

    async def resultant(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            device = await collections.resource(tx, request.path_params["device"])
            found = await service.resultant_of(tx, device.id)
            names = await _names(tx)
        return http.reply({"device": device.name, "settings": _shown(found, names)})

    async def resultant_of_user(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            user = await collections.user(tx, request.path_params["user"])
            found = await service.resultant_of_user(tx, user.id)
            names = await _names(tx)
        return http.reply({"user": user.upn, "settings": _shown(found, names)})

    return [
        Route("/api/v1/client-settings", show, methods=["GET"]),
        Route("/api/v1/client-settings", change_default, methods=["PATCH"]),
        Route("/api/v1/client-settings/catalogue", catalogue, methods=["GET"]),
        *approvals.waiting_routes(
            "/api/v1/client-settings",
            service.KIND,
            db,
            require,
            now,
            service.described,
            approved,
        ),
        Route(_CUSTOM, listed, methods=["GET"]),
        Route(_CUSTOM, create, methods=["POST"]),
        Route(f"{_CUSTOM}/{{id}}", shown, methods=["GET"]),
        Route(f"{_CUSTOM}/{{id}}", change, methods=["PATCH"]),
        Route(f"{_CUSTOM}/{{id}}", delete, methods=["DELETE"]),
        Route(f"{_CUSTOM}/{{id}}/reach", reach, methods=["GET"]),
        Route(f"{_CUSTOM}/{{id}}/deployments", deploy, methods=["POST"]),
        Route(f"{_CUSTOM}/{{id}}/deployments/{{collection}}", withdraw, methods=["DELETE"]),
        Route("/api/v1/client-settings/resultant/{device}", resultant, methods=["GET"]),
        Route("/api/v1/client-settings/resultant-user/{user}", resultant_of_user, methods=["GET"]),
    ]


async def _held(tx: Tx, request: Request) -> CustomSettings:
    """Nobody else changes it meanwhile. Raises NoSuchSettings, and Changed where somebody has."""
    await service.hold(tx)
    found = await service.find(tx, request.path_params["id"])
    http.check_version(request, _version(found))
    return found


def _version(found: CustomSettings) -> str:
    return http.version_of(collections.as_dict(found))


async def _names(tx: Tx) -> dict[str, str]:
    """Of the collections that who asks may see: the others are left out of what is shown."""
    only = await collections.visible(tx)
    return {
        item.id: item.name
        for item in await collections.collections(tx)
        if only is None or item.id in only
    }


def _row(item: CustomSettings, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": item.id,
        "name": item.name,
        "description": item.description,
        "type": item.type.value,
        "priority": item.priority,
        "groups": item.groups,
        "deployments": [
            {"collection_id": id, "collection": names[id]} for id in item.deployed_to if id in names
        ],
        "created_at": item.created_at,
        "created_by": item.created_by,
        "changed_at": item.changed_at,
        "changed_by": item.changed_by,
    }


async def _one(tx: Tx, item: CustomSettings, status: int = 200) -> Response:
    names, default = await _names(tx), await service.default(tx)
    deployments = [
        {
            "collection_id": one.collection_id,
            "collection": names[one.collection_id],
            "members": await collections.count(tx, one.collection_id),
            "deployed_at": one.deployed_at,
            "deployed_by": one.deployed_by,
        }
        for one in await service.deployments(tx)
        if one.settings_id == item.id and one.collection_id in names
    ]
    shape = {
        **_row(item, names),
        "possible_groups": model.groups(item.type),
        "settings": [
            {**_described(CATALOGUE[name]), "value": value, "in_default": default[name]}
            for name, value in item.values.items()
            if name in CATALOGUE
        ],
        "deployments": deployments,
        "last_priority": len(await service.custom(tx)),
    }
    return http.reply(shape, status, headers={"ETag": _version(item)})


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
    return {**_described(item), "value": value, "changed": value != item.default}


def _described(item: Setting) -> dict[str, Any]:
    numeric = not isinstance(item.default, bool)
    return {
        "name": item.name,
        "group": item.group,
        "title": item.title,
        "default": item.default,
        "minimum": item.minimum if numeric else None,
        "maximum": item.maximum if numeric else None,
    }


def _shown(found: list[Resultant], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each setting with the settings that won, and those that had another say."""
    return [
        {
            **_shape(item.setting, item.value),
            "source": item.winner.name,
            "winner": _say(item.winner, names),
            "losers": [_say(one, names) for one in item.losers],
        }
        for item in found
    ]


def _say(one: Say, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "priority": one.priority,
        "value": one.value,
        "collections": [{"id": id, "name": names[id]} for id in one.collections if id in names],
    }
