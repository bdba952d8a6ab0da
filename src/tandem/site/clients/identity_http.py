"""The admin API of how clients come to be known, and of those that are not one machine each."""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import Invalid
from tandem.infra.secrets import SecretBox
from tandem.site import administrators
from tandem.site.administrators import Role
from tandem.site.clients import conflicts, registration_tokens

_LIMIT = 4096


class _NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    minutes: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)] = (
        registration_tokens.DEFAULT_MINUTES
    )
    description: str = ""


class _Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    decision: str


def identity_routes(
    db: Database, box: SecretBox, site_code: str, *, require: administrators.Require, now: Clock
) -> list[BaseRoute]:
    """`/api/v1/registration-tokens…` and `/api/v1/client-conflicts…`. What lets devices in needs a full administrator; to block is
    anybody's who may change something."""

    async def list_(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply({"tokens": await registration_tokens.every(tx)})

    async def create(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        wanted = await http.decode(request, _NewToken, _LIMIT)
        async with db.transaction() as tx:
            made = await registration_tokens.create(
                tx,
                box,
                site_code,
                minutes=wanted.minutes,
                description=wanted.description.strip(),
                actor=who.name,
                now=now(),
            )
        return http.reply(made, 201, headers={"Cache-Control": "no-store"})

    async def block(request: Request) -> Response:
        who = await require(request)
        return await _set_blocked(request, True, who.name)

    async def unblock(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        return await _set_blocked(request, False, who.name)

    async def _set_blocked(request: Request, blocked: bool, actor: str) -> Response:
        async with db.transaction() as tx:
            return http.reply(
                await registration_tokens.set_blocked(
                    tx, _id(request), blocked, actor=actor, now=now()
                )
            )

    async def listed(request: Request) -> Response:
        await require(request)
        resolved = request.query_params.get("resolved", "") == "true"
        async with db.transaction() as tx:
            return http.reply({"conflicts": await conflicts.every(tx, resolved)})

    async def decide(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, _Decision, _LIMIT)
        id = _id(request)
        if not id.isascii() or not id.isdigit() or len(id) > 18:
            raise Invalid("A conflict is named by its number.")
        async with db.transaction() as tx:
            return http.reply(
                await conflicts.decide(tx, int(id), wanted.decision, actor=who.name, now=now())
            )

    async def delete(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        async with db.transaction() as tx:
            await registration_tokens.delete(tx, _id(request), actor=who.name, now=now())
        return Response(status_code=204)

    return [
        Route("/api/v1/client-conflicts", listed, methods=["GET"]),
        Route("/api/v1/client-conflicts/{id}/decide", decide, methods=["POST"]),
        Route("/api/v1/registration-tokens", list_, methods=["GET"]),
        Route("/api/v1/registration-tokens", create, methods=["POST"]),
        Route("/api/v1/registration-tokens/{id}", delete, methods=["DELETE"]),
        Route("/api/v1/registration-tokens/{id}/block", block, methods=["POST"]),
        Route("/api/v1/registration-tokens/{id}/unblock", unblock, methods=["POST"]),
    ]


def _id(request: Request) -> str:
    found: str = request.path_params["id"]
    if "\0" in found:
        raise Invalid("A NUL character is in no id.")
    return found
