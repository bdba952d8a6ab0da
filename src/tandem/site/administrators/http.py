"""Sign-in of the admin API, and the gate that every other route of it asks."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import Invalid
from tandem.site.administrators import permissions, scoping, service
from tandem.site.administrators.model import (
    ALL,
    Administrator,
    AdministratorsSettings,
    NotAllowed,
    Role,
    Scope,
)

Require = Callable[..., Awaitable[Administrator]]


class Gate:
    """Who asks, and whether they may: `who = await gate(request)`.

    What an operation needs is in `permissions`, by its method and path. A role that is named here
    is needed besides. From then on the request sees what its administrator may (`scoping.limit`).
    """

    def __init__(
        self, db: Database, now: Clock, settings: AdministratorsSettings | None = None
    ) -> None:
        self._db = db
        self._now = now
        self.settings = settings or AdministratorsSettings()

    async def __call__(self, request: Request, role: Role | None = None) -> Administrator:
        """Raises NotSignedIn, NotAllowed, NotInScope."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        needed = permissions.permission_for(request.method, request.url.path)
        async with self._db.transaction() as tx:
            who = await service.session(
                tx, token if scheme.lower() == "bearer" else "", self._now(), self.settings
            )
            needed.check(who)
            if role is not None:
                allow(who, role)
            if needed.kind:
                named = request.path_params[needed.parameter]
                await scoping.check_visible(tx, who, needed.kind, named)
        scoping.ask_as(who)
        return who


def allow(who: Administrator, wanted: Role) -> Administrator:
    """Raises NotAllowed."""
    if not who.role.covers(wanted):
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
    scopes: tuple[str, ...] = (ALL,)
    collections: list[str] = []


class Change(msgspec.Struct):
    role: str | None = None
    scopes: list[str] | None = None
    collections: list[str] | None = None


class NewScope(msgspec.Struct):
    name: str
    comment: str = ""


class GivenScopes(msgspec.Struct):
    scopes: list[str]


class OtherScopes(msgspec.Struct):
    add: list[str] = []
    remove: list[str] = []


class NewPassword(msgspec.Struct):
    current: str
    password: str


async def _as_written(tx: Tx, collection: str) -> str:
    return collection


def routes(
    db: Database,
    require: Gate,
    now: Clock,
    known: service.KnownAccount,
    collection: Callable[[Tx, str], Awaitable[str]] = _as_written,
    objects: scoping.Objects | None = None,
) -> list[BaseRoute]:
    """`known` says which account of the tenant is meant; accounts are the cloud's to know.
    `collection` is the id of a collection that is named, and raises for one that is not there.
    `objects` are what carries scopes."""
    carriers = objects or {}
    settings = require.settings

    async def named(tx: Tx, wanted: list[str]) -> list[str]:
        return [await collection(tx, name) for name in wanted]

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
        who = await require(request)
        new = await http.decode(request, NewAdministrator)
        role = read_role(new.role)
        async with db.transaction() as tx:
            limits = await named(tx, new.collections)
            if new.upn:
                made = await service.add_external(
                    tx,
                    new.name,
                    new.tenant_id,
                    new.upn,
                    role,
                    scopes=new.scopes,
                    collections=limits,
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
                    scopes=new.scopes,
                    collections=limits,
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
        who = await require(request)
        wanted = await http.decode(request, Change)
        if wanted == Change():
            raise Invalid("Nothing is to change.", cure="Name a role, scopes or collections.")
        role = None if wanted.role is None else read_role(wanted.role)
        name = request.path_params["name"]
        async with db.transaction() as tx:
            http.check_version(request, http.version_of(await service.administrator(tx, name)))
            limits = wanted.collections
            changed = await service.change_rights(
                tx,
                name,
                role=role,
                scopes=wanted.scopes,
                collections=None if limits is None else await named(tx, limits),
                actor=who.name,
                now=now(),
            )
        return http.reply(_shape(changed), headers={"ETag": http.version_of(changed)})

    async def my_permissions(request: Request) -> Response:
        return http.reply(_permissions(await require(request)))

    async def their_permissions(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.administrator(tx, request.path_params["name"])
        return http.reply(_permissions(found))

    async def scopes(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply([_scope(item) for item in await scoping.scopes(tx)])

    async def add_scope(request: Request) -> Response:
        who = await require(request)
        new = await http.decode(request, NewScope)
        async with db.transaction() as tx:
            made = await scoping.add_scope(tx, new.name, new.comment, actor=who.name, now=now())
        return http.reply(_scope(made), 201)

    async def remove_scope(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await scoping.remove_scope(tx, request.path_params["name"], actor=who.name, now=now())
        return Response(status_code=204)

    async def scope(request: Request) -> Response:
        """A scope, with who and what has it."""
        await require(request)
        async with db.transaction() as tx:
            found = await scoping.scope(tx, request.path_params["name"])
            people = [who for who in await service.administrators(tx) if found.name in who.scopes]
            items = await scoping.every_scoped(tx, carriers, found.name)
        answer = {"has": [_shape(who) for who in people], "carried_by": [_scoped(i) for i in items]}
        return http.reply({**_scope(found), **answer})

    async def every(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await scoping.every_scoped(tx, carriers)
        return http.reply([_scoped(item) for item in found])

    async def scoped(request: Request) -> Response:
        """Objects of a kind, each with its scopes."""
        await require(request)
        async with db.transaction() as tx:
            found = await scoping.scoped(tx, carriers, request.path_params["kind"])
        return http.reply([_scoped(item) for item in found])

    async def one_scoped(request: Request) -> Response:
        await require(request)
        path = request.path_params
        async with db.transaction() as tx:
            found = await scoping.find_scoped(tx, carriers, path["kind"], path["id"])
        return http.reply(_scoped(found), headers={"ETag": http.version_of(found)})

    async def give(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, GivenScopes)
        return await given(request, who, names=wanted.scopes)

    async def give_more(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, OtherScopes)
        if wanted == OtherScopes():
            raise Invalid("Nothing is to change.", cure="Name scopes to add or to remove.")
        return await given(request, who, add=wanted.add, remove=wanted.remove)

    async def given(request: Request, who: Administrator, **change: Sequence[str]) -> Response:
        path = request.path_params
        async with db.transaction() as tx:
            found = await scoping.give(
                tx,
                carriers,
                path["kind"],
                path["id"],
                **change,
                check=lambda item: http.check_version(request, http.version_of(item)),
                actor=who.name,
                now=now(),
            )
        return http.reply(_scoped(found), headers={"ETag": http.version_of(found)})

    async def password(request: Request) -> Response:
        who = await require(request)
        given = await http.decode(request, NewPassword)
        token = request.headers.get("authorization", "").partition(" ")[2]
        await service.change_password(
            db, who, given.current, given.password, token, now(), settings
        )
        return Response(status_code=204)

    async def remove(request: Request) -> Response:
        who = await require(request)
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
        Route("/api/v1/administrators/{name}/permissions", their_permissions, methods=["GET"]),
        Route("/api/v1/scopes", scopes, methods=["GET"]),
        Route("/api/v1/scopes", add_scope, methods=["POST"]),
        Route("/api/v1/scopes/objects", every, methods=["GET"]),
        Route("/api/v1/scopes/{name}", scope, methods=["GET"]),
        Route("/api/v1/scopes/{name}", remove_scope, methods=["DELETE"]),
        Route("/api/v1/scopes/objects/{kind}", scoped, methods=["GET"]),
        Route("/api/v1/scopes/objects/{kind}/{id}", one_scoped, methods=["GET"]),
        Route("/api/v1/scopes/objects/{kind}/{id}", give, methods=["PUT"]),
        Route("/api/v1/scopes/objects/{kind}/{id}", give_more, methods=["PATCH"]),
        Route("/api/v1/me", me, methods=["GET"]),
        Route("/api/v1/me/permissions", my_permissions, methods=["GET"]),
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
        "scopes": list(who.scopes),
        "collections": list(who.collections),
        "over_all": who.over_all,
    }


def _scope(item: Scope) -> dict[str, object]:
    return {
        "name": item.name,
        "comment": item.comment,
        "built_in": item.built_in,
        "administrators": item.administrators,
        "objects": item.objects,
        "created_at": item.created_at,
    }


def _scoped(item: scoping.Scoped) -> dict[str, object]:
    return {"kind": item.kind, "id": item.id, "name": item.name, "scopes": list(item.scopes)}


def _permissions(who: Administrator) -> dict[str, object]:
    """What this administrator may do: every operation, and how far it reaches for them."""
    return {
        "administrator": _shape(who),
        "operations": [
            {
                "operation": item.operation,
                "allowed": item.allows(who),
                "limited": item.reach in (permissions.Reach.SEEN, permissions.Reach.ONE)
                and not who.over_all,
                "needs": [role.value for role in item.roles],
                "over_all": item.reach is permissions.Reach.ALL,
            }
            for item in permissions.PERMISSIONS.values()
        ],
    }
