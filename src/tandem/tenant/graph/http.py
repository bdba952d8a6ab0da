"""The edge: paths, methods, headers and errors of Graph around `Frame`."""

import re
import uuid
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from time import monotonic
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode

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
from tandem.tenant.graph import bodies, changes, describe
from tandem.tenant.graph.model import (
    BadProperty,
    Call,
    Caller,
    Family,
    MethodNotAllowed,
    NoToken,
    Part,
    PreconditionFailed,
    UnknownSegment,
    UnsupportedQuery,
)
from tandem.tenant.graph.paths import Found, Segment, find, segments
from tandem.tenant.graph.rows import resolve
from tandem.tenant.graph.service import Frame, Operation, Reply, UnsupportedCount, authorize
from tandem.tenant.graph.throttle import GraphSettings, Throttle

# Takes the bearer token; raises an AppError of kind UNAUTHENTICATED.
Authenticate = Callable[[Tx, str, datetime], Awaitable[Caller]]

JSON = (
    "application/json;odata.metadata=minimal;odata.streaming=true;"
    "IEEE754Compatible=false;charset=utf-8"
)
GRAPH_APP_ID = "00000003-0000-0000-c000-000000000000"
BODY_LIMIT = 4 * 1024 * 1024
BATCH_LIMIT = 20
BATCH_BODY_LIMIT = 8 * 1024 * 1024
URL_LIMIT = 16 * 1024

Version = Literal["v1.0", "beta"]
# Stands in the path for the signed-in user until the token is read.
_ME = "00000000-0000-0000-0000-00000000000e"
_NOBODY = Caller("", "", "", "")

_VERSION = re.compile(r"^/+(v1\.0|beta)(?:/|$)", re.IGNORECASE)
_BATCH = re.compile(r"^/+(v1\.0|beta)/+\$batch/?$", re.IGNORECASE)
_DESCRIBED = re.compile(r"^/+(v1\.0|beta)/+(\$metadata|openapi\.json)/?$", re.IGNORECASE)
_ORIGIN = re.compile(r"^https?://[^/]*", re.IGNORECASE)
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
        self._documents: dict[str, bytes] = {}

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
            if request.method == "GET" and (found := _DESCRIBED.match(request.url.path)):
                return self._described(found[1].lower(), found[2].lower(), state.base, headers)
            reply = await self._answer(request, state)
        except AppError as error:
            return problem(request, error, state.family, headers, self._clock())
        except Exception:
            log.exception("unexpected", path=request.url.path)
            return problem(request, _Bug(_BUG), state.family, headers, self._clock(), status=500)
        if reply.location:
            headers["Location"] = reply.location
        if reply.etag:
            headers["ETag"] = reply.etag
        if reply.text:
            return Response(reply.text, 200, headers, media_type="text/plain")
        if reply.stream is not None:
            headers["Content-Type"] = reply.stream.media_type
            return Response(reply.stream.content, 200, headers)
        if reply.body is None:
            return Response(status_code=reply.status, headers=headers)
        if "@odata.nextLink" in reply.body:
            token = reply.body["@odata.nextLink"]
            reply.body["@odata.nextLink"] = _next(request, state.base, token, sealed=reply.sealed)
        elif "@odata.deltaLink" in reply.body:
            token = reply.body["@odata.deltaLink"]
            path = quote(request.url.path, safe=_PATH_SAFE)
            reply.body["@odata.deltaLink"] = f"{state.base}{path}?$deltatoken={token}"
        content = msgspec.json.encode(reply.body)
        return Response(content, reply.status, {**headers, "Content-Type": JSON})

    def _described(self, version: str, what: str, base: str, headers: dict[str, str]) -> Response:
        """What is served, which is no secret: clients read it before they have a token."""
        if what == "$metadata":
            known = self._documents.get(version)
            if known is None:
                known = self._documents[version] = describe.metadata(self._frame, version)
            return Response(known, 200, headers, media_type="application/xml")
        content = msgspec.json.encode(describe.openapi(self._frame, version, base))
        return Response(content, 200, headers, media_type="application/json")

    async def _batch(self, request: Request, headers: dict[str, str]) -> Response:
        """Up to 20 requests in one, each with its own transaction, those it depends on first."""
        token, now = bearer(request), self._clock()
        async with self._database.apart() as tx:
            await self._authenticate(tx, token, now)
        waiting = _items(await http.body(request, BATCH_BODY_LIMIT))
        answers: dict[str, dict[str, Any]] = {}
        while waiting:
            item = next(i for i in waiting if not {str(d) for d in i.depends_on} & _ids(waiting))
            waiting.remove(item)
            failed = any(answers[str(name)]["status"] >= 400 for name in item.depends_on)
            answers[str(item.id)] = await self._one_of_batch(request, item, failed)
        content = msgspec.json.encode({"responses": list(answers.values())})
        return Response(content, 200, {**headers, "Content-Type": JSON})

    async def _one_of_batch(self, request: Request, item: "_Item", failed: bool) -> dict[str, Any]:
        if failed:
            return _refused(item, 424, "FailedDependency", "A request before it failed.")
        path, _, query = item.url.partition("#")[0].partition("?")
        path = "/" + _ORIGIN.sub("", path).lstrip("/")
        if not _VERSION.match(path):
            version = _VERSION.match(request.url.path)
            path = f"/{version[1] if version else 'v1.0'}{path}"
        if _BATCH.match(path):
            return _refused(item, 400, "BadRequest", "A batch cannot hold a batch.")
        inner = Request(_scope(request, item, path, query), _said(item))
        answer = await self.respond(inner)
        kept = {
            name: answer.headers[name]
            for name in ("Location", "Retry-After", "ETag")
            if name in answer.headers
        }
        shown: dict[str, Any] = {
            "id": str(item.id),
            "status": answer.status_code,
            "headers": {"Content-Type": answer.headers.get("content-type", JSON), **kept},
        }
        if answer.body:
            body = bytes(answer.body)
            is_json = "json" in answer.headers.get("content-type", "")
            shown["body"] = msgspec.Raw(body) if is_json else b64encode(body).decode()
        return shown

    async def _answer(self, request: Request, state: "_State") -> Reply:
        version, parts, pairs = _asked(request)
        token = bearer(request)
        now = self._clock()
        call = Call(
            tx=None,  # type: ignore[arg-type]  # set below, once it is known which kind is needed
            now=now,
            caller=_NOBODY,
            version=version,
            base=state.base,
            path="/".join(part.text for part in parts),
            query=odata.Query(),
            own=bool(parts) and parts[0].text.lower() == "me",
            if_match=request.headers.get("if-match", ""),
            eventual=request.headers.get("consistencylevel", "").lower() == "eventual",
        )
        found = find(self._frame.root, segments(f"users/{_ME}") + parts[1:] if call.own else parts)
        operation = found.node.here.get(request.method)
        state.family = _family(found)
        reads = operation is not None and operation.only_reads
        try:
            return await self._within(request, token, call, found, pairs, reads=reads)
        except AppError as error:
            if error.audited:
                # Its own transaction: that of the attempt is rolled back.
                async with self._database.transaction() as tx:
                    await _tell(replace(call, tx=tx), state.family, error)
            raise

    async def _within(
        self,
        request: Request,
        token: str,
        call: Call,
        found: Found,
        options: list[tuple[str, str]],
        *,
        reads: bool,
    ) -> Reply:
        """The answer, in one transaction. Sets what `call` does not know yet."""
        operation = found.node.here.get(request.method)
        async with self._database.apart() if reads else self._database.transaction() as tx:
            call.tx = tx
            call.caller = await self._authenticate(tx, token, call.now)
            served = _served(call, found, operation, request.method)
            if call.own and call.caller.sort != "user":
                raise NoUser(
                    "/me request is only valid with delegated authentication flow.",
                    cure="Sign in as a user, or ask for /users/{id}.",
                )
            await authorize(call, served.access, writing=served.writing)
            call.query = odata.parse_query(options)
            call.parameters, call.cast = found.parameters, found.cast
            body = await _body(request) if request.method not in ("GET", "DELETE") else {}
            for sort, alternate, value in found.keys:
                resource = self._frame.by_type.get(sort)
                own = call.caller.object_id if call.own and value == _ME else value
                call.keys[sort] = await resolve(resource, call, alternate, own) if resource else own
            return await served.serve(call, next(reversed(call.keys.values()), ""), body)


async def _tell(call: Call, family: Family, error: AppError) -> None:
    """Leave the refused attempt in the audit log."""
    call.note(refusal=error.code, reason=error.message)
    verb = call.path.rpartition("/")[2]
    sort, key = next(reversed(call.keys.items()), ("", call.path))
    if verb == key:
        verb = "delete"
    await changes.record(call, verb, sort, key, family=family, outcome="refused")


def _asked(request: Request) -> tuple[Version, list[Segment], list[tuple[str, str]]]:
    """Version, path and query options of the URL. Raises BadProperty."""
    raw_path: bytes = request.scope.get("raw_path") or quote(request.url.path).encode()
    raw_query: bytes = request.scope["query_string"]
    if b"%00" in raw_path + raw_query:
        raise BadProperty("The URL holds a NUL character.", cure="Leave it out.")
    if len(raw_path) + len(raw_query) > URL_LIMIT:
        raise BadProperty(
            f"The URL is longer than {URL_LIMIT} bytes.",
            cure="Ask for less at once, or put the request into a $batch.",
        )
    parts = segments(raw_path.split(b"?")[0].decode("ascii", "replace"))
    version = parts.pop(0).text.lower()
    if parts and parts[0].text.lower() == "myorganization":
        parts.pop(0)
    query = raw_query.decode("ascii", "replace")
    pairs = parse_qsl(query, keep_blank_values=True) if query else []
    return ("v1.0" if version == "v1.0" else "beta"), parts, pairs


def _served(call: Call, found: Found, operation: Operation | None, method: str) -> Operation:
    """Raises UnknownSegment, MethodNotAllowed."""
    if operation is not None:
        return operation
    if found.node.here:
        raise MethodNotAllowed(
            f"The request method {method} is not allowed here.",
            cure=f"Allowed: {', '.join(sorted(found.node.here))}.",
        )
    raise UnknownSegment(
        f"Resource not found for the segment '{call.path.rpartition('/')[2]}'.",
        cure="Check the path; this part of Graph may not be served here.",
    )


class _Item(msgspec.Struct):
    id: str | int
    method: str
    url: str
    headers: dict[str, str] | None = None
    body: Any = None
    depends_on: list[str | int] = msgspec.field(default_factory=list, name="dependsOn")


class _Batch(msgspec.Struct):
    requests: list[_Item]


# What a request in a batch may say for itself; the token is that of the batch.
_OWN_HEADERS = frozenset({"consistencylevel", "if-match", "prefer", "content-type"})


def _items(raw: bytes) -> list[_Item]:
    """Raises BadProperty, when an id is missing or twice there, or none of them can be first."""
    try:
        items = msgspec.json.decode(raw, type=_Batch).requests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadProperty(
            f"The batch cannot be read: {error}.", cure='Send {"requests": […]}.'
        ) from None
    if not 0 < len(items) <= BATCH_LIMIT:
        raise BadProperty(
            f"A batch holds 1 to {BATCH_LIMIT} requests.", cure="Send several batches."
        )
    if len(_ids(items)) < len(items):
        raise BadProperty("Two requests of the batch have the same id.", cure="Give each its own.")
    left = list(items)
    while left:
        known = _ids(left)
        free = [i for i in left if not {str(name) for name in i.depends_on} & known]
        unknown = {str(name) for item in left for name in item.depends_on} - _ids(items)
        if unknown or not free:
            raise BadProperty(
                "A request of the batch depends on one that is not in it, or on itself.",
                cure="Name in dependsOn ids of other requests of this batch, in no circle.",
            )
        left = [item for item in left if item not in free]
    return items


def _ids(items: Iterable[_Item]) -> set[str]:
    return {str(item.id) for item in items}


def _scope(request: Request, item: _Item, path: str, query: str) -> Scope:
    """The request of a batch as if it had come by itself. Its URL need not be escaped."""
    headers = [
        (name, value)
        for name, value in request.scope["headers"]
        if name in (b"authorization", b"host", b"client-request-id")
    ]
    for name, value in (item.headers or {}).items():
        if name.lower() in _OWN_HEADERS:
            headers.append((name.lower().encode(), value.encode("latin-1", "replace")))
    return {
        **request.scope,
        "method": item.method.upper(),
        "path": unquote(path),
        "raw_path": quote(path, safe="/:$()',=@!*;+&%").encode(),
        "query_string": quote(query, safe="/:$()',=@!*;+&%?").encode(),
        "headers": headers,
    }


def _said(item: _Item) -> Receive:
    content = msgspec.json.encode(item.body) if item.body is not None else b""

    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


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
    here: Iterable[Operation] = found.node.here.values()
    return next((operation.family for operation in here), Family.DIRECTORY)


async def _body(request: Request) -> dict[str, Any]:
    return bodies.parse(await http.body(request, BODY_LIMIT))


def bearer(request: Request) -> str:
    """The token of the Authorization header, or NoToken."""
    sort, _, token = request.headers.get("authorization", "").partition(" ")
    if sort.lower() != "bearer" or not token.strip():
        raise NoToken("Access token is empty.", cure="Sign in and send it as a bearer token.")
    return token.strip()


# What may stand in a path as it is.
_PATH_SAFE = "/:$()',=@!*;+&"


def _next(request: Request, base: str, token: str, *, sealed: bool) -> str:
    path = quote(request.url.path, safe=_PATH_SAFE)
    if sealed:
        return f"{base}{path}?$skiptoken={token}"
    pairs = [
        (name, value)
        for name, value in parse_qsl(request.scope["query_string"].decode("ascii", "replace"), True)
        if name.lstrip("?$").lower() not in ("skiptoken", "skip")
    ]
    query = urlencode([*pairs, ("$skiptoken", token)], safe="$,()'/", quote_via=quote)
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
    if isinstance(error, UnsupportedQuery):
        code = "Request_UnsupportedQuery"
    if isinstance(error, UnsupportedCount):
        code = "Request_BadRequest"
    if isinstance(error, PreconditionFailed):
        status, code = 412, "PreconditionFailed"
    elif isinstance(error, MethodNotAllowed):
        status, code = 405, code if family is Family.DIRECTORY else "MethodNotAllowed"
    elif error.kind is Kind.UNSUPPORTED:
        status = 400
    headers = dict(headers)
    body: dict[str, Any] = {
        "code": code,
        "message": f"{error.message} {error.cure}".strip(),
        "innerError": {
            "code": error.code,
            # The two halves of `message`, for a page that speaks another language.
            "said": error.message,
            "cure": error.cure,
            "date": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": headers["request-id"],
            "client-request-id": headers["client-request-id"],
        },
    }
    target = str(error.details.get("target", ""))
    if error.kind is Kind.CONFLICT and status != 412:
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
    if error.kind in (Kind.RATE_LIMITED, Kind.UNAVAILABLE) and status != 500:
        headers["Retry-After"] = str(int(error.details.get("retry_after_seconds", 10)))
    if "location" in error.details:
        headers["Location"] = str(error.details["location"])
    content = msgspec.json.encode({"error": body})
    return Response(content, status, {**headers, "Content-Type": JSON})


class _Verified:
    """Tokens whose signature was found good a moment ago, by their hash.

    At most `SECONDS` after a signing key is withdrawn its tokens are refused; expiry, revocation,
    the account and its roles are looked at for every request.
    """

    SECONDS = 30.0
    MOST = 4_096

    def __init__(self, tokens: oidc.Tokens) -> None:
        self._tokens = tokens
        self._known: dict[bytes, tuple[float, oidc.Claims]] = {}

    async def claims(self, tx: Tx, token: str, now: datetime) -> oidc.Claims:
        digest = sha256(token.encode("utf-8", "replace")).digest()
        at, known = self._known.get(digest, (0.0, None))
        fresh = at > monotonic() and known is not None and now.timestamp() <= known.expires_at
        if known is not None and fresh:
            session = known.raw.get("sid")
            if not session or not await self._tokens.is_revoked(tx, session, now):
                return known
        claims = await self._tokens.verify_graph(tx, token, now)
        if len(self._known) >= self.MOST:
            self._known.clear()
        self._known[digest] = (monotonic() + self.SECONDS, claims)
        return claims


async def _standing(tx: Tx, claims: oidc.Claims) -> frozenset[str] | None:
    """The caller's directory roles as they are now, or None when the account is no more to be
    let in: changes at Graph take effect at once, not when the token expires."""
    if claims.sort == "app":
        return frozenset() if await oidc.applications.is_enabled(tx, claims.object_id) else None
    if claims.sort == "device":
        device = await directory.find_device_object(tx, claims.object_id)
        return frozenset() if device is not None and device.account_enabled else None
    issued = datetime.fromtimestamp(claims.raw["iat"] + 1, UTC)
    return await directory.standing(tx, claims.object_id, issued)


def routes(
    database: Database,
    tokens: oidc.Tokens,
    now: Clock,
    parts: Iterable[Part],
    settings: GraphSettings | None = None,
) -> list[BaseRoute]:
    """Graph under /v1.0 and /beta, with these parts."""
    described = list(parts)
    frame = Frame(
        [resource for part in described for resource in part.resources],
        [action for part in described for action in part.actions],
        tokens.box,
    )
    verified = _Verified(tokens)
    throttle = Throttle(settings or GraphSettings())

    async def authenticate(tx: Tx, token: str, at: datetime) -> Caller:
        claims = await verified.claims(tx, token, at)
        throttle.take(claims.app_id, at.timestamp())
        roles = await _standing(tx, claims)
        if roles is None:
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
            directory_roles=roles,
        )

    return [GraphRoute(frame, database, now, authenticate)]
