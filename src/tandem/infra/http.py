"""The HTTP server of the roles: Starlette on uvicorn, with the peer's certificate in the scope.

uvicorn does not hand the TLS peer certificate to the application; the protocol here reads it from
the transport once a connection and puts the DER bytes into `scope["extensions"]["tls"]`.
"""

import asyncio
import re
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tandem.infra.errors import HTTP_STATUS, AppError, Invalid, Kind, TooLarge

T = TypeVar("T")
Problems = Callable[[Request, Exception], Response]

DEFAULT_BODY_LIMIT = 64 * 1024
# How soon a renewed certificate is noticed.
_LOOK_SECONDS = 1.0
# Of an answer written together with its head.
_TOGETHER_BYTES = 64 * 1024
# As gateways take it: an id that is replaced on the way is in one log and not in the next.
_CORRELATION = re.compile(r"^[A-Za-z0-9._-]{1,64}$")

log = structlog.get_logger("http")


class TLS(msgspec.Struct, frozen=True):
    """`client_ca` set means that a client certificate is asked for, never required."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class Listener(msgspec.Struct, frozen=True):
    app: Any
    host: str
    port: int
    tls: TLS | None = None


class _Together:
    """A transport that writes once what is written in one turn of the loop.

    uvicorn writes the head of an answer and its body apart: two TLS records and two calls of the
    system for most answers here.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting: list[bytes] = []
        self._size = 0
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)
        self._size += len(data)
        if self._size > _TOGETHER_BYTES:
            self._flush()  # The transport itself has to see it, to say when it is full.

    def _flush(self) -> None:
        if self._waiting:
            data, self._waiting, self._size = b"".join(self._waiting), [], 0
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Together(transport))  # type: ignore[arg-type]
        tls = transport.get_extra_info("ssl_object")
        self._peer = tls.getpeercert(True) if tls is not None else None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._peer is not None:
            self.scope["extensions"] = {"tls": {"client_cert": self._peer}}


def log_as(request: Request, path: str) -> None:
    """What logs say instead of a path that holds a secret. To be called first."""
    request.scope["logged_path"] = path


def _logged(scope: Scope) -> str:
    return str(scope.get("logged_path") or scope["path"])


def peer_certificate(request: Request) -> bytes | None:
    """The certificate that the peer of this connection proved to hold, in DER."""
    tls = request.scope.get("extensions", {}).get("tls", {})
    certificate: bytes | None = tls.get("client_cert")
    return certificate


class _Server(uvicorn.Server):
    """Signals belong to `run_role`: uvicorn must neither catch nor raise them."""

    def capture_signals(self) -> Any:
        import contextlib

        return contextlib.nullcontext()


async def serve(
    listeners: Sequence[Listener], stop: asyncio.Event, drain_seconds: float = 5
) -> None:
    """Serve until `stop` is set, then finish what is under way, at most `drain_seconds` long."""
    configs = [_config(listener, drain_seconds) for listener in listeners]
    servers = [_Server(config) for config in configs]
    renewing = asyncio.create_task(_renewed(list(zip(listeners, configs, strict=True))))
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for server in servers:
            server.should_exit = True
        stopped.cancel()
        renewing.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, SystemExit):
            raise CannotListen(
                "An address of this role cannot be listened on.",
                cure="Another process holds it: stop that one, or change the port in the settings.",
                addresses=[f"{item.host}:{item.port}" for item in listeners],
            )
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def _renewed(served: Sequence[tuple[Listener, uvicorn.Config]]) -> None:
    """A certificate whose files were replaced is what new connections get, without a restart."""
    with_tls = [(one.tls, config.ssl) for one, config in served if one.tls and config.ssl]
    seen = [_stamp(tls) for tls, _ in with_tls]
    while with_tls:
        await asyncio.sleep(_LOOK_SECONDS)
        for number, (tls, context) in enumerate(with_tls):
            stamp = _stamp(tls)
            if stamp == seen[number]:
                continue
            try:
                # In a context of its own first: half of a new pair would break the one in use.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
                context.load_cert_chain(tls.certificate, tls.key)
            except (ssl.SSLError, OSError) as error:
                log.warning("certificate not taken", path=str(tls.certificate), reason=str(error))
                continue
            seen[number] = stamp
            log.info("certificate renewed", path=str(tls.certificate))


def _stamp(tls: TLS) -> tuple[int, ...]:
    try:
        return tuple(path.stat().st_mtime_ns for path in (tls.certificate, tls.key))
    except OSError:
        return ()


class CannotListen(AppError):
    kind, code = Kind.UNAVAILABLE, "http.cannot-listen"


def _config(listener: Listener, drain_seconds: float) -> uvicorn.Config:
    tls = listener.tls
    config = uvicorn.Config(
        listener.app,
        host=listener.host,
        port=listener.port,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(drain_seconds),
        ssl_certfile=str(tls.certificate) if tls else None,
        ssl_keyfile=str(tls.key) if tls else None,
        ssl_ca_certs=str(tls.client_ca) if tls and tls.client_ca else None,
        ssl_cert_reqs=ssl.CERT_OPTIONAL if tls and tls.client_ca else ssl.CERT_NONE,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


async def body(request: Request, limit: int = DEFAULT_BODY_LIMIT) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known to be over the limit."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request is larger than the {limit} bytes that are taken here.")


async def decode(request: Request, wanted: type[T], limit: int = DEFAULT_BODY_LIMIT) -> T:
    """The JSON body as this type. Raises Invalid, which names the field that is wrong."""
    raw = await body(request, limit)
    if b"\\u0000" in raw:
        # PostgreSQL's text cannot hold it, and no field of ours has a use for it.
        raise Invalid("The request cannot be read: it has a NUL character.")
    try:
        return msgspec.json.decode(raw or b"{}", type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The request cannot be read: {error}.") from None


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON with its Content-Length."""
    return Response(
        msgspec.json.encode(value, enc_hook=str), status, headers, media_type="application/json"
    )


class Changed(AppError):
    """If-Match names another version of the thing than there is; answered with 412."""

    kind, code = Kind.CONFLICT, "request.changed"


def version_of(value: Any) -> str:
    """An ETag: another one whenever anything of the value is another."""
    return f'"{sha256(msgspec.json.encode(value, enc_hook=str)).hexdigest()[:32]}"'


def check_version(request: Request, version: str) -> None:
    """What If-Match asks for, when it is sent. Raises Changed."""
    wanted = request.headers.get("if-match", "")
    if wanted and wanted != "*" and version not in (item.strip() for item in wanted.split(",")):
        raise Changed(
            "Somebody else changed it since you read it.",
            cure="Read it again, and make your change to what it is now.",
            version=version,
        )


class Listing(msgspec.Struct, frozen=True):
    """Which part of a list is asked for: `?search=…&sort=-name&limit=50&offset=100`.

    `order` is a pair of a name that can be sorted by and whether it descends.
    """

    search: str
    order: tuple[str, bool]
    limit: int
    offset: int


_MOST_ROWS = 1000


def listing(
    request: Request, sorts: Sequence[str], *, limit: int = 100, most: int = _MOST_ROWS
) -> Listing:
    """What a list is asked for; the first of `sorts` is the usual order. Raises Invalid."""
    asked = request.query_params
    sort = asked.get("sort") or sorts[0]
    name = sort.removeprefix("-")
    if name not in sorts:
        raise Invalid(
            f"This list cannot be sorted by {name[:64]!r}.",
            cure=f"Take one of: {', '.join(sorts)}; with - before it, the last come first.",
            field="sort",
        )
    search = asked.get("search", "").strip()
    if len(search) > 256 or "\x00" in search:
        raise Invalid("A search has at most 256 characters.", field="search")
    wanted = number_of(request, "limit", limit)
    if not 1 <= wanted <= most:
        raise Invalid(f"limit is a number from 1 to {most}.", field="limit")
    return Listing(search, (name, sort.startswith("-")), wanted, number_of(request, "offset", 0))


def number_of(request: Request, name: str, default: int) -> int:
    """A number of the query, 0 or more. Raises Invalid."""
    raw = request.query_params.get(name, "")
    if not raw:
        return default
    if not raw.isascii() or not raw.isdigit() or len(raw) > 9:
        raise Invalid(f"{name} is a number of rows, 0 or more.", field=name)
    return int(raw)


def problem_json(request: Request, error: Exception) -> Response:
    """The error shape of our own APIs. What is not an AppError is a bug and stays unnamed."""
    if not isinstance(error, AppError):
        return _problem(500, "internal", "Something went wrong on the server.", _BUG_CURE, {})
    status = 412 if isinstance(error, Changed) else HTTP_STATUS[error.kind]
    return _problem(status, error.code, error.message, error.cure, error.details)


_BUG_CURE = "Look for the correlation id of this answer in the role's log, and report it."


def _problem(status: int, code: str, message: str, cure: str, details: dict[str, Any]) -> Response:
    error = {"code": code, "message": message, "cure": cure, "details": details}
    return reply({"error": error}, status)


def correlation_id(given: str) -> str:
    """What a request is called in logs: as its sender calls it, when that can be a name."""
    return given if _CORRELATION.match(given) else uuid.uuid4().hex


class _Edge:
    """Correlation id, access log, and errors in the vocabulary of this application."""

    def __init__(self, app: ASGIApp, role: str, problems: Problems) -> None:
        self._app = app
        self._role = role
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        correlation = correlation_id(request.headers.get("x-correlation-id", ""))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation=correlation)
        status, started, begun = 500, False, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message.setdefault("headers", []).append(
                    (b"x-correlation-id", correlation.encode())
                )
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = 499
        except Exception as error:
            if not isinstance(error, AppError):
                log.exception("unexpected", role=self._role, path=_logged(scope))
            if started:
                raise
            await self._problems(request, error)(scope, receive, sending)
        finally:
            log.info(
                "request",
                method=request.method,
                path=_logged(scope),
                status=status,
                ms=round((time.perf_counter() - begun) * 1000, 1),
            )


def application(
    routes: Iterable[BaseRoute],
    *,
    role: str,
    problems: Problems = problem_json,
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """An application whose refusals are spoken by `problems`, with a correlation id throughout."""

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = NoSuchPage if error.status_code == 404 else WrongMethod
        if error.status_code not in (404, 405):
            return Response(error.detail, error.status_code, dict(error.headers or {}))
        return problems(request, kind(f"There is nothing at {request.method} {request.url.path}."))

    return Starlette(
        routes=list(routes),
        exception_handlers={HTTPException: unrouted},
        middleware=[Middleware(_Edge, role=role, problems=problems), *middleware],
    )


class NoSuchPage(AppError):
    kind, code = Kind.NOT_FOUND, "http.not-found"


class WrongMethod(AppError):
    kind, code = Kind.NOT_FOUND, "http.wrong-method"


def health_app(ready: Callable[[], Awaitable[dict[str, Any]]]) -> Starlette:
    """/healthz, /readyz and /metrics, for an address that only operators reach.

    `ready` returns facts to show, or raises: then /readyz answers 503 with the reason.
    """

    async def healthz(_: Request) -> Response:
        return reply({"ok": True})

    async def readyz(_: Request) -> Response:
        try:
            return reply({"ok": True, **await ready()})
        except AppError as error:
            return reply({"ok": False, "code": error.code, "reason": error.message}, 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )
