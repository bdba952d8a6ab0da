"""The edge: paths, methods, headers and errors of Graph around `Frame`."""

import re
import uuid
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import HTTP_STATUS, AppError, Kind
from tandem.protocols import odata
from tandem.tenant import directory, oidc
from tandem.tenant.graph import bodies
from tandem.tenant.graph.model import (
    Action,
    BadProperty,
    Call,
    Caller,
    Family,
    MethodNotAllowed,
    NoToken,
    Part,
    UnknownSegment,
)
from tandem.tenant.graph.paths import Found, find, segments
from tandem.tenant.graph.service import Frame, Reply, resolve

# Takes the bearer token; raises an AppError of kind UNAUTHENTICATED.
Authenticate = Callable[[Tx, str, datetime], Awaitable[Caller]]

JSON = (
    "application/json;odata.metadata=minimal;odata.streaming=true;"
    "IEEE754Compatible=false;charset=utf-8"
)
GRAPH_APP_ID = "00000003-0000-0000-c000-000000000000"
BODY_LIMIT = 4 * 1024 * 1024
BATCH_LIMIT = 20

_VERSION = re.compile(r"^/+(v1\.0|beta)(?:/|$)", re.IGNORECASE)
_BATCH = re.compile(r"^/+(v1\.0|beta)/+\$batch/?$", re.IGNORECASE)
_CLIENT_ID = re.compile(r"^[\w.:-]{1,100}$")

# code by family for each kind of refusal
CODES: dict[Kind, tuple[str, str]] = {
    Kind.INVALID: ("Request_BadRequest", "BadRequest"),
    Kind.UNAUTHENTICATED: ("InvalidAuthenticationToken", "InvalidAuthenticationToken"),
    Kind.FORBIDDEN: ("Authorization_RequestDenied", "Forbidden"),
    Kind.NOT_FOUND: ("Request_ResourceNotFound", "ResourceNotFound"),
    Kind.CONFLICT: ("Request_BadRequest", "Conflict"),
    Kind.GONE: ("syncStateNotFound", "syncStateNotFound"),
    Kind.TOO_LARGE: ("Request_BadRequest", "BadRequest"),
    Kind.RATE_LIMITED: ("TooManyRequests", "TooManyRequests"),
    Kind.UNAVAILABLE: ("ServiceNotAvailable", "ServiceNotAvailable"),
    Kind.UNSUPPORTED: ("Request_BadRequest", "BadRequest"),
}

log = structlog.get_logger("graph")


class GraphRoute(BaseRoute):
    """Everything below /v1.0 and /beta, in any case and with any number of slashes."""

    def __init__(
        self, frame: Frame, database: Database, clock: Clock, authenticate: Authenticate
    ) -> None:
        self._frame = frame
        self._database = database
        self._clock = clock
        self._authenticate = authenticate

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and _VERSION.match(scope["path"]):
            return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self.respond(request)
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        request_id = str(uuid.uuid4())
        given = request.headers.get("client-request-id", "")
        client_id = given if _CLIENT_ID.match(given) else request_id
        headers = {
            "request-id": request_id,
            "client-request-id": client_id,
            "OData-Version": "4.0",
            "Cache-Control": "no-cache",
        }
        state = _State(request)
        try:
            if _BATCH.match(request.url.path) and request.method == "POST":
                return await self._batch(request, headers)
            reply = await self._answer(request, state)
        except AppError as error:
            return problem(request, error, state.family, headers, self._clock())
        except Exception:
            log.exception("unexpected", path=request.url.path)
            return problem(request, _Bug(_BUG), state.family, headers, self._clock(), status=500)
        if reply.location:
            headers["Location"] = reply.location
        if reply.text:
            return Response(reply.text, 200, headers, media_type="text/plain")
        if reply.body is None:
            return Response(status_code=reply.status, headers=headers)
        if "@odata.nextLink" in reply.body:
            link = _next(request, state.base, reply.body["@odata.nextLink"])
            reply.body["@odata.nextLink"] = link
        content = msgspec.json.encode(reply.body)
        return Response(content, reply.status, {**headers, "Content-Type": JSON})

    async def _batch(self, request: Request, headers: dict[str, str]) -> Response:
        """Up to 20 requests in one, one after the other, each with its own transaction."""
        raw = await http.body(request, BODY_LIMIT)
        try:
            items = msgspec.json.decode(raw, type=_Batch).requests
        except msgspec.DecodeError as error:
            raise BadProperty(
                f"The batch cannot be read: {error}.", cure='Send {"requests": […]}.'
            ) from None
        if not 0 < len(items) <= BATCH_LIMIT:
            raise BadProperty(
                f"A batch holds 1 to {BATCH_LIMIT} requests.", cure="Send several batches."
            )
        answers: dict[str, dict[str, Any]] = {}
        for item in items:
            before = [answers.get(str(name)) for name in item.depends_on]
            failed = any(answer is None or answer["status"] >= 400 for answer in before)
            answers[str(item.id)] = await self._one_of_batch(request, item, failed)
        content = msgspec.json.encode({"responses": list(answers.values())})
        return Response(content, 200, {**headers, "Content-Type": JSON})

    async def _one_of_batch(self, request: Request, item: "_Item", failed: bool) -> dict[str, Any]:
        if failed:
            return _refused(item, 424, "FailedDependency", "A request before it failed.")
        parts = urlsplit(item.url)
        path = parts.path if parts.scheme else "/" + parts.path.lstrip("/")
        if not _VERSION.match(path):
            version = _VERSION.match(request.url.path)
            path = f"/{version[1] if version else 'v1.0'}{path}"
        if _BATCH.match(path):
            return _refused(item, 400, "BadRequest", "A batch cannot hold a batch.")
        content = msgspec.json.encode(item.body) if item.body is not None else b""
        kept = [
            (name, value)
            for name, value in request.scope["headers"]
            if name in (b"authorization", b"host")
        ]
        scope = {
            **request.scope,
            "method": item.method.upper(),
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": parts.query.encode(),
            "headers": kept,
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": content, "more_body": False}

        answer = await self.respond(Request(scope, receive))
        shown: dict[str, Any] = {
            "id": str(item.id),
            "status": answer.status_code,
            "headers": {"Content-Type": answer.headers.get("content-type", JSON)},
        }
        if answer.body:
            body = bytes(answer.body)
            is_json = "json" in answer.headers.get("content-type", "")
            shown["body"] = msgspec.Raw(body) if is_json else b64encode(body).decode()
        return shown

    async def _answer(self, request: Request, state: "_State") -> Reply:
        raw_path: bytes = request.scope.get("raw_path") or quote(request.url.path).encode()
        if b"%00" in raw_path + request.url.query.encode():
            raise BadProperty("The URL holds a NUL character.", cure="Leave it out.")
        parts = segments(raw_path.split(b"?")[0].decode("ascii", "replace"))
        version = parts.pop(0).text.lower()
        if parts and parts[0].text.lower() == "myorganization":
            parts.pop(0)
        token = bearer(request)
        now = self._clock()
        async with self._database.transaction() as tx:
            caller = await self._authenticate(tx, token, now)
            own = bool(parts) and parts[0].text.lower() == "me"
            if own:
                if caller.sort != "user":
                    raise NoUser(
                        "/me request is only valid with delegated authentication flow.",
                        cure="Sign in as a user, or ask for /users/{id}.",
                    )
                parts[:1] = segments(f"users/{caller.object_id}")
            found = find(self._frame.root, parts)
            state.family = _family(found)
            pairs = parse_qsl(request.url.query, keep_blank_values=True)
            call = Call(
                tx=tx,
                now=now,
                caller=caller,
                version="v1.0" if version == "v1.0" else "beta",
                base=state.base,
                path="/".join(part.text for part in parts),
                query=odata.parse_query(pairs),
                parameters=found.parameters,
                own=own,
            )
            await self._resolve_keys(call, found)
            return await self._dispatch(request, call, found)

    async def _resolve_keys(self, call: Call, found: Found) -> None:
        for sort, alternate, value in found.keys:
            resource = self._frame.by_type.get(sort)
            call.keys[sort] = await resolve(resource, call, alternate, value) if resource else value

    async def _dispatch(self, request: Request, call: Call, found: Found) -> Reply:
        here, method, frame = found.node.here, request.method, self._frame
        key = next(reversed(call.keys.values()), "")
        served = here.get(method)
        if isinstance(served, Action):
            return await frame.run(call, served, await _body(request))
        if "collection" in here:
            resource = here["collection"]
            if method == "GET":
                return await frame.listed(call, resource)
            if method == "POST":
                return await frame.create(call, resource, await _body(request))
            if method == "PATCH" and resource.singleton:
                return await frame.update(call, resource, key, await _body(request))
        elif "item" in here:
            resource = here["item"]
            if method == "GET":
                return await frame.get(call, resource, key)
            if method == "PATCH":
                return await frame.update(call, resource, key, await _body(request))
            if method == "DELETE":
                return await frame.delete(call, resource, key)
        elif "navigation" in here and method == "GET":
            resource, navigation = here["navigation"]
            return await frame.navigate(call, resource, navigation, key, found.cast)
        elif "count" in here and method == "GET":
            return await frame.count(call, here["count"])
        elif "navigation-count" in here and method == "GET":
            resource, navigation = here["navigation-count"]
            return await frame.navigate_count(call, resource, navigation, key)
        elif "refs" in here:
            resource, navigation = here["refs"]
            if method == ("PUT" if navigation.single else "POST"):
                return await frame.add_ref(call, resource, navigation, key, await _body(request))
            if method == "DELETE" and navigation.single:
                return await frame.remove_ref(call, resource, navigation, key, "")
        elif "ref" in here and method == "DELETE":
            resource, navigation = here["ref"]
            owner = call.keys[resource.type]
            return await frame.remove_ref(call, resource, navigation, owner, key)
        elif not here:
            raise UnknownSegment(
                f"Resource not found for the segment '{call.path.rpartition('/')[2]}'.",
                cure="Check the path; this part of Graph may not be served here.",
            )
        raise MethodNotAllowed(
            f"The request method {method} is not allowed here.", cure="Use another one."
        )


class _Item(msgspec.Struct):
    id: str | int
    method: str
    url: str
    body: Any = None
    depends_on: list[str | int] = msgspec.field(default_factory=list, name="dependsOn")


class _Batch(msgspec.Struct):
    requests: list[_Item]


def _refused(item: _Item, status: int, code: str, message: str) -> dict[str, Any]:
    return {
        "id": str(item.id),
        "status": status,
        "headers": {"Content-Type": "application/json"},
        "body": {"error": {"code": code, "message": message}},
    }


class _Bug(AppError):
    kind, code = Kind.UNAVAILABLE, "internal"


class NoUser(AppError):
    kind, code = Kind.INVALID, "graph.no-user"


_BUG = "Something went wrong on the server. Look for the request-id of this answer in its log."


class _State:
    def __init__(self, request: Request) -> None:
        self.family = Family.DIRECTORY
        self.base = f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"


def _family(found: Found) -> Family:
    for served in found.node.here.values():
        described = served[0] if isinstance(served, tuple) else served
        family = getattr(described, "family", None)
        if isinstance(family, Family):
            return family
    return Family.DIRECTORY


async def _body(request: Request) -> dict[str, Any]:
    return bodies.parse(await http.body(request, BODY_LIMIT))


def bearer(request: Request) -> str:
    """The token of the Authorization header, or NoToken."""
    sort, _, token = request.headers.get("authorization", "").partition(" ")
    if sort.lower() != "bearer" or not token.strip():
        raise NoToken("Access token is empty.", cure="Sign in and send it as a bearer token.")
    return token.strip()


def _next(request: Request, base: str, token: str) -> str:
    pairs = [
        (name, value)
        for name, value in parse_qsl(request.url.query, keep_blank_values=True)
        if name.lstrip("?$").lower() not in ("skiptoken", "skip")
    ]
    query = urlencode([*pairs, ("$skiptoken", token)], safe="$,()'/", quote_via=quote)
    path = quote(request.url.path, safe="/:$()',=@!*;+&")
    return f"{base}{path}?{query}"


def problem(
    request: Request,
    error: AppError,
    family: Family,
    headers: dict[str, str],
    now: datetime,
    status: int | None = None,
) -> Response:
    """The refusal in Graph's shape and vocabulary."""
    status = status or HTTP_STATUS[error.kind]
    directory_code, intune_code = CODES[error.kind]
    code = directory_code if family is Family.DIRECTORY else intune_code
    if isinstance(error, UnknownSegment):
        code = "BadRequest"
    if isinstance(error, MethodNotAllowed):
        status, code = 405, code if family is Family.DIRECTORY else "MethodNotAllowed"
    elif error.kind is Kind.UNSUPPORTED:
        status = 400
    headers = dict(headers)
    body: dict[str, Any] = {
        "code": code,
        "message": f"{error.message} {error.cure}".strip(),
        "innerError": {
            "code": error.code,
            "date": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": headers["request-id"],
            "client-request-id": headers["client-request-id"],
        },
    }
    target = str(error.details.get("target", ""))
    if error.kind is Kind.CONFLICT:
        if family is Family.DIRECTORY:
            status = 400
        body["details"] = [{"code": "ObjectConflict", "target": target, "message": error.message}]
    elif target:
        body["details"] = [{"code": "InvalidValue", "target": target, "message": error.message}]
    if status == 401:
        base = f"{request.url.scheme}://{request.headers.get('host', '')}"
        headers["WWW-Authenticate"] = (
            f'Bearer realm="", authorization_uri="{base}/common/oauth2/authorize", '
            f'client_id="{GRAPH_APP_ID}"'
        )
    if error.kind is Kind.RATE_LIMITED:
        headers["Retry-After"] = str(int(error.details.get("retry_after_seconds", 10)))
    content = msgspec.json.encode({"error": body})
    return Response(content, status, {**headers, "Content-Type": JSON})


async def _enabled(tx: Tx, claims: oidc.Claims) -> bool:
    """Changes at Graph take effect at once, not when the token expires."""
    if claims.sort == "user":
        user = await directory.find_user(tx, claims.object_id)
        issued = datetime.fromtimestamp(claims.raw["iat"] + 1, UTC)
        return user is not None and user.account_enabled and user.sessions_valid_from <= issued
    if claims.sort == "app":
        return await oidc.applications.is_enabled(tx, claims.object_id)
    device = await directory.find_device_object(tx, claims.object_id)
    return device is not None and device.account_enabled


def routes(
    database: Database,
    tokens: oidc.Tokens,
    now: Clock,
    parts: Iterable[Part],
) -> list[BaseRoute]:
    """Graph under /v1.0 and /beta, with these parts."""
    described = list(parts)
    frame = Frame(
        [resource for part in described for resource in part.resources],
        [action for part in described for action in part.actions],
    )

    async def authenticate(tx: Tx, token: str, at: datetime) -> Caller:
        claims = await tokens.verify_graph(tx, token, at)
        if not await _enabled(tx, claims):
            raise NoToken(
                "The account of this access token is disabled or deleted.",
                cure="Ask an administrator to enable it, then sign in again.",
            )
        return Caller(
            sort=claims.sort,
            object_id=claims.object_id,
            app_id=claims.app_id,
            tenant_id=claims.tenant_id,
            scopes=claims.scopes,
            app_roles=claims.roles,
            name=claims.upn or claims.name,
        )

    return [GraphRoute(frame, database, now, authenticate)]
