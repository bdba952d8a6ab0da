"""The doors of the AdminService: read the path, ask who it is, call, and write it down."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem import audit
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import HTTP_STATUS, AppError
from tandem.protocols import odata
from tandem.site import administrators, cloud_services, properties
from tandem.site.administrators import Gate, NotAllowed
from tandem.site.adminservice import classes, paths, service
from tandem.site.adminservice.access import Access, Asker
from tandem.site.adminservice.metadata import csdl
from tandem.site.adminservice.model import (
    Body,
    Call,
    Changed,
    Class,
    Collaborators,
    Key,
    Method,
    MethodNotAllowed,
    NoSuchClass,
    NoSuchMethod,
)

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_LIMIT = 256 * 1024
# The status message of the field for a call to the AdminService.
_STATUS_MESSAGE = 11618
_SHOWN_QUERY = 512


@dataclass(frozen=True, slots=True)
class Door:
    """One way in: how it is called in the audit log, the address that links lead back to, and
    who asks."""

    name: str
    base: Callable[[Request], Awaitable[str]]
    asker: Callable[[Request], Awaitable[Asker]]


class _AnyCase(Route):
    """The field's web server does not look at letter case, nor at doubled slashes."""

    def __init__(self, path: str, endpoint: Any) -> None:
        super().__init__(path, endpoint, methods=_METHODS)
        pattern = self.path_regex.pattern.replace("^/", "^/+", 1)
        self.path_regex = re.compile(pattern, re.IGNORECASE)


def routes(
    db: Database, gate: Gate, now: Clock, others: Collaborators | None = None
) -> list[BaseRoute]:
    """For the site's own network."""
    others = others or Collaborators()
    access = Access(db, gate, now, others)

    def door(name: str, *, basic: bool) -> Door:
        async def base(request: Request) -> str:
            return str(request.base_url.replace(path=f"/{name}"))

        async def asker(request: Request) -> Asker:
            return await access.asker(request, basic=basic)

        return Door(name, base, asker)

    api = _AdminService(db, now, others)
    return [
        _AnyCase("/AdminService/{path:path}", api.at(door("AdminService", basic=True))),
        _AnyCase(
            "/AdminService_TokenAuth/{path:path}",
            api.at(door("AdminService_TokenAuth", basic=False)),
        ),
    ]


def gateway_routes(db: Database, gate: Gate, now: Clock, others: Collaborators) -> list[BaseRoute]:
    """For the management point's listener, where connection points bring what came through a
    gateway. Links in answers lead back through that gateway."""
    access = Access(db, gate, now, others)

    async def base(request: Request) -> str:
        given = request.path_params
        async with db.transaction() as tx:
            return await others.address(tx, given["service"], given["entry"])

    api = _AdminService(db, now, others)
    path = f"/{cloud_services.ADMINSERVICE_DOOR}/{{service}}/{{entry}}/{{path:path}}"
    return [_AnyCase(path, api.at(Door("gateway", base, access.from_gateway)))]


@dataclass(frozen=True, slots=True)
class _Work:
    """What a path and a method come to, before it is known who asks."""

    kind: Class
    verb: str  # read, count, create, update, delete or call
    key: Key | None = None
    method: Method | None = None

    @property
    def changes(self) -> bool:
        return self.verb in ("create", "update", "delete") or (
            self.method is not None and not self.method.asks
        )

    @property
    def target(self) -> str:
        key = ",".join(str(value) for value in (self.key or {}).values())
        called = f".{self.method.name}" if self.method else ""
        return f"{self.kind.name}{f'({key})' if key else ''}{called}"


@dataclass(frozen=True)
class _AdminService:
    db: Database
    now: Clock
    others: Collaborators

    def at(self, door: Door) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                base = await door.base(request)
                asker = await door.asker(request)
            except AppError as error:
                return _problem(error, request)
            return await self._answer(request, door, base, asker)

        return answer

    async def _answer(self, request: Request, door: Door, base: str, asker: Asker) -> Response:
        details = {
            "status_message": _STATUS_MESSAGE,
            "method": request.method,
            "path": request.path_params["path"][:_SHOWN_QUERY],
            "query": request.url.query[:_SHOWN_QUERY],
            "door": door.name,
            "credential": asker.way,
            **({"app": asker.app.app_id} if asker.app else {}),
        }
        target = request.path_params["path"][:200].replace("\x00", "") or "/"
        try:
            body = await _body(request)
            async with self.db.transaction() as tx:
                administrators.ask_as(asker.who)
                site = await properties.site(tx)
                call = Call(tx, self.now(), asker.who, site.code, self.others)
                found = _read(request)
                if isinstance(found, _Work):
                    target = found.target
                    asker.require(
                        found.kind.writes if found.changes else found.kind.reads,
                        changes=found.changes,
                    )
                    service.check_reach(call, found.kind)
                    _refuse_foreign(request, found.changes)
                    answer = await self._do(call, request, base, found, body)
                else:
                    answer = found(base)
                await self._record(tx, asker, target, "done", details)
                return answer
        except AppError as error:
            async with self.db.transaction() as tx:
                told = {**details, "reason": error.code}
                await self._record(tx, asker, target, "refused", told)
            return _problem(error, request)

    async def _record(
        self, tx: Any, asker: Asker, target: str, outcome: Any, details: dict[str, Any]
    ) -> None:
        safe = {
            name: value.replace("\x00", "") if isinstance(value, str) else value
            for name, value in details.items()
        }
        await audit.record(
            tx,
            actor=asker.who.name,
            action="adminservice.call",
            target=target.replace("\x00", ""),
            now=self.now(),
            outcome=outcome,
            details=safe,
        )

    async def _do(
        self, call: Call, request: Request, base: str, work: _Work, body: Body
    ) -> Response:
        kind, key = work.kind, work.key or {}
        context = f"{base}/{kind.surface}/$metadata#{kind.name}"
        if_match = request.headers.get("if-match", "")
        if work.method is not None:
            out = await service.invoke(call, kind, key, work.method, body)
            parameters = f"{base}/{kind.surface}/$metadata#__PARAMETERS"
            return _reply({"@odata.context": parameters, **out})
        match work.verb:
            case "create":
                key, made = await service.create(call, kind, body)
                where = {"Location": f"{base}/{kind.surface}/{kind.name}({_written(key)})"}
                answer = {"@odata.context": f"{context}/$entity", **made}
                return _reply(answer, 201, where)
            case "update":
                _, made = await service.update(call, kind, key, body, if_match)
                return _reply(_single(kind, context, made))
            case "delete":
                await service.delete(call, kind, key, if_match)
                return Response(status_code=204)
        query = odata.parse_query(request.query_params.multi_items())
        if work.verb == "count":
            return Response(str(await service.count(call, kind, query)), media_type="text/plain")
        if work.key is not None:
            found = await service.one(call, kind, key, query)
            return _reply(_single(kind, context, found))
        page = await service.page(call, kind, query)
        answer = {"@odata.context": context}
        if page.total is not None:
            answer["@odata.count"] = page.total
        answer["value"] = page.rows
        if page.next_skip is not None:
            answer["@odata.nextLink"] = _next(request, f"{base}/{kind.surface}/{kind.name}", page)
        return _reply(answer)


# ------------------------------------------------------------------------------- paths to work


def _read(request: Request) -> "_Work | Callable[[str], Response]":
    """Raises NoSuchClass, NoSuchObject, NoSuchMethod, MethodNotAllowed."""
    segments = paths.split(request.path_params["path"])
    surface = segments[0].raw.lower() if segments else ""
    if surface not in classes.SURFACES:
        raise NoSuchClass(
            f"The AdminService has no {surface[:40]!r}.",
            cure="Use /AdminService/wmi or /AdminService/v1.0.",
        )
    rest = segments[1:]
    if not rest or rest[0].raw.lower() == "$metadata":
        if request.method != "GET":
            raise _not_allowed("GET")
        if len(rest) > 1:
            raise NoSuchClass("The path goes on behind its end.", cure="Shorten it.")
        return _metadata(surface) if rest else _service_document(surface)
    return _work(request.method, surface, rest)


def _work(method: str, surface: str, rest: list[paths.Segment]) -> _Work:
    first, *more = rest
    name, dot, static = first.name.partition(".")
    kind = classes.find(surface, name)
    if dot:
        called = _method(kind, static, static=True)
        return _called(method, kind, called, None, more)
    key = service.read_key(kind, first.key) if first.key else None
    if more and key is None and not more[0].key:
        if more[0].raw.lower() == "$count":
            return _only("GET", method, _Work(kind, "count"), more[1:])
        key = service.read_key(kind, more.pop(0).as_key)
    if more:
        space, _, wanted = more[0].name.partition(".")
        called = _method(kind, wanted if space.lower() == "adminservice" else "", static=False)
        if key is None:
            raise NoSuchMethod(f"{called.name} is for one {kind.name}.", cure="Name its key first.")
        return _called(method, kind, called, key, more[1:])
    if method == "GET":
        return _Work(kind, "read", key)
    if key is None and method == "POST" and kind.create is not None:
        return _Work(kind, "create")
    if key is not None and method in ("PUT", "PATCH") and kind.update is not None:
        return _Work(kind, "update", key)
    if key is not None and method == "DELETE" and kind.delete is not None:
        return _Work(kind, "delete", key)
    raise _not_allowed(*_allowed(kind, key))


def _allowed(kind: Class, key: Key | None) -> list[str]:
    if key is None:
        return ["GET", *(["POST"] if kind.create else [])]
    changes = [*(["PUT", "PATCH"] if kind.update else []), *(["DELETE"] if kind.delete else [])]
    return ["GET", *changes]


def _method(kind: Class, name: str, *, static: bool) -> Method:
    for known in kind.methods:
        if known.name.lower() == name.lower() and known.static is static:
            return known
    here = ", ".join(item.name for item in kind.methods if item.static is static)
    raise NoSuchMethod(
        f"{kind.name} has no such method.", cure=f"It has: {here}." if here else "It has none."
    )


def _called(
    method: str, kind: Class, called: Method, key: Key | None, more: list[paths.Segment]
) -> _Work:
    return _only("POST", method, _Work(kind, "call", key, called), more)


def _only(wanted: str, method: str, work: _Work, more: list[paths.Segment]) -> _Work:
    if more:
        raise NoSuchClass("The path goes on behind its end.", cure="Shorten it.")
    if method != wanted:
        raise _not_allowed(wanted)
    return work


def _not_allowed(*methods: str) -> MethodNotAllowed:
    allowed = ", ".join(methods)
    return MethodNotAllowed(
        "That cannot be done here.", cure=f"Here is served: {allowed}.", allow=allowed
    )


# ------------------------------------------------------------------------------- answers


def _service_document(surface: str) -> Callable[[str], Response]:
    def answer(base: str) -> Response:
        sets = [
            {"name": kind.name, "kind": "EntitySet", "url": kind.name}
            for kind in classes.CLASSES
            if kind.surface == surface and kind.listed
        ]
        return _reply({"@odata.context": f"{base}/{surface}/$metadata", "value": sets})

    return answer


def _metadata(surface: str) -> Callable[[str], Response]:
    def answer(_: str) -> Response:
        known = [kind for kind in classes.CLASSES if kind.surface == surface]
        content = csdl(known, classes.COMPLEXES)
        return Response(content, media_type="application/xml", headers={"OData-Version": "4.0"})

    return answer


def _single(kind: Class, context: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """An object of wmi/ comes as a list of one; an object of v1.0/ comes plain."""
    if kind.surface == "wmi":
        return {"@odata.context": context, "value": [row]}
    return {"@odata.context": f"{context}/$entity", **row}


def _reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return http.reply(value, status, {"OData-Version": "4.0", **(headers or {})})


def _written(key: Key) -> str:
    parts = {
        name: str(value) if isinstance(value, int) else quote("'" + value.replace("'", "''") + "'")
        for name, value in key.items()
    }
    if len(parts) == 1:
        return next(iter(parts.values()))
    return ",".join(f"{name}={value}" for name, value in parts.items())


def _next(request: Request, where: str, page: service.Page) -> str:
    kept = [item for item in request.query_params.multi_items() if "skip" not in item[0].lower()]
    return f"{where}?{urlencode([*kept, ('$skip', str(page.next_skip))])}"


def _problem(error: AppError, request: Request) -> Response:
    status = HTTP_STATUS[error.kind]
    if isinstance(error, MethodNotAllowed):
        status = 405
    elif isinstance(error, Changed):
        status = 412
    message = " ".join(part for part in (error.message, error.cure) if part)
    answer = _reply({"error": {"code": error.code, "message": message}}, status)
    if isinstance(error, MethodNotAllowed):
        answer.headers["Allow"] = str(error.details["allow"])
    if status == 401:
        answer.headers.append("WWW-Authenticate", "Bearer")
        if not request.url.path.lower().lstrip("/").startswith("adminservice_"):
            answer.headers.append("WWW-Authenticate", 'Basic realm="AdminService", charset="UTF-8"')
    return answer


async def _body(request: Request) -> Body:
    if request.method in ("GET", "DELETE"):
        return {}
    found = await http.decode(request, dict[str, Any], _LIMIT)
    return found


def _refuse_foreign(request: Request, changes: bool) -> None:
    """A browser that remembers a Basic credential sends it for any page that asks it to: what a
    page of another origin sends changes nothing. Raises NotAllowed."""
    origin = request.headers.get("origin")
    if not changes or origin is None:
        return
    if origin.partition("://")[2].lower() != request.url.netloc.lower():
        raise NotAllowed(
            "This request comes from a web page of another origin.", cure="Send it from a script."
        )
