"""Sign-in of the admin API, and the gate that every other route of it asks."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import Invalid
from tandem.site.administrators import service
from tandem.site.administrators.model import (
    Administrator,
    AdministratorsSettings,
    NotAllowed,
    Role,
)

Require = Callable[..., Awaitable[Administrator]]


class Gate:
    """Who asks, and whether this role may: `who = await gate(request, Role.FULL_ADMINISTRATOR)`.

    Without a role: reading needs any administrator, changing an operations administrator.
    """

    def __init__(
        self, db: Database, now: Clock, settings: AdministratorsSettings | None = None
    ) -> None:
        self._db = db
        self._now = now
        self.settings = settings or AdministratorsSettings()

    async def __call__(self, request: Request, role: Role | None = None) -> Administrator:
        """Raises NotSignedIn, NotAllowed."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        async with self._db.transaction() as tx:
            who = await service.session(
                tx, token if scheme.lower() == "bearer" else "", self._now(), self.settings
            )
        reads = request.method in {"GET", "HEAD"}
        wanted = role or (Role.READ_ONLY_ANALYST if reads else Role.OPERATIONS_ADMINISTRATOR)
        return allow(who, wanted)


def allow(who: Administrator, wanted: Role) -> Administrator:
    """Raises NotAllowed."""
    if who.role.rank < wanted.rank:
        raise NotAllowed(
            f"{who.name} is {who.role.value}; this needs {wanted.value}.",
            cure="Ask a full administrator to do it, or to give you the role.",
        )
    return who


class SignIn(msgspec.Struct):
    name: str
    password: str


class NewAdministrator(msgspec.Struct):
    name: str
    role: str = Role.FULL_ADMINISTRATOR.value
    password: str = ""
    tenant_id: str = ""
    upn: str = ""


class Change(msgspec.Struct):
    role: str


class NewPassword(msgspec.Struct):
    current: str
    password: str


def routes(db: Database, require: Gate, now: Clock, known: service.KnownAccount) -> list[BaseRoute]:
    """`known` says which account of the tenant is meant; accounts are the cloud's to know."""
    settings = require.settings

    async def sign_in(request: Request) -> Response:
        given = await http.decode(request, SignIn)
        session = await service.sign_in(db, given.name, given.password, now(), settings)
        answer = {
            "token": session.token,
            "expires_at": session.expires_at,
            "administrator": _shape(session.administrator),
        }
        return http.reply(answer, headers={"Cache-Control": "no-store"})

    async def sign_out(request: Request) -> Response:
        token = request.headers.get("authorization", "").partition(" ")[2]
        async with db.transaction() as tx:
            await service.sign_out(tx, token)
        return Response(status_code=204)

    async def listed(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply([_shape(who) for who in await service.administrators(tx)])

    async def add(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        new = await http.decode(request, NewAdministrator)
        role = read_role(new.role)
        async with db.transaction() as tx:
            if new.upn:
                made = await service.add_external(
                    tx,
                    new.name,
                    new.tenant_id,
                    new.upn,
                    role,
                    known=known,
                    actor=who.name,
                    now=now(),
                )
            else:
                made = await service.add(
                    tx,
                    new.name,
                    new.password,
                    role,
                    actor=who.name,
                    now=now(),
                    settings=settings,
                )
        return http.reply(_shape(made), 201)

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.administrator(tx, request.path_params["name"])
        return http.reply(_shape(found), headers={"ETag": http.version_of(found)})

    async def me(request: Request) -> Response:
        return http.reply(_shape(await require(request)))

    async def change(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        role = read_role((await http.decode(request, Change)).role)
        name = request.path_params["name"]
        async with db.transaction() as tx:
            http.check_version(request, http.version_of(await service.administrator(tx, name)))
            changed = await service.change_role(tx, name, role, actor=who.name, now=now())
        return http.reply(_shape(changed), headers={"ETag": http.version_of(changed)})

    async def password(request: Request) -> Response:
        who = await require(request, Role.READ_ONLY_ANALYST)
        given = await http.decode(request, NewPassword)
        token = request.headers.get("authorization", "").partition(" ")[2]
        await service.change_password(
            db, who, given.current, given.password, token, now(), settings
        )
        return Response(status_code=204)

    async def remove(request: Request) -> Response:
        who = await require(request, Role.FULL_ADMINISTRATOR)
        async with db.transaction() as tx:
            await service.remove(tx, request.path_params["name"], actor=who.name, now=now())
        return Response(status_code=204)

    return [
        Route("/api/v1/sign-in", sign_in, methods=["POST"]),
        Route("/api/v1/sign-out", sign_out, methods=["POST"]),
        Route("/api/v1/administrators", listed, methods=["GET"]),
        Route("/api/v1/administrators", add, methods=["POST"]),
        Route("/api/v1/administrators/{name}", show, methods=["GET"]),
        Route("/api/v1/administrators/{name}", change, methods=["PATCH"]),
        Route("/api/v1/administrators/{name}", remove, methods=["DELETE"]),
        Route("/api/v1/me", me, methods=["GET"]),
        Route("/api/v1/me/password", password, methods=["POST"]),
    ]


def read_role(name: str) -> Role:
    for role in Role:
        if name.casefold() in {role.value.casefold(), role.name.casefold().replace("_", "-")}:
            return role
    raise Invalid(
        f"There is no role {name[:64]!r}.",
        cure=f"Take one of: {', '.join(r.value for r in Role)}.",
        field="role",
    )


def _shape(who: Administrator) -> dict[str, object]:
    return {
        "name": who.name,
        "role": who.role.value,
        "created_at": who.created_at,
        "tenant_id": who.tenant_id,
        "upn": who.upn,
    }
