"""The management point's endpoints, and the clients of the admin API."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import Invalid
from tandem.protocols import ccm
from tandem.site import administrators
from tandem.site.clients import service
from tandem.site.clients.checkins import CheckIns
from tandem.site.clients.model import (
    MESSAGES_LIMIT,
    REGISTRATION_LIMIT,
    TOKEN_LIMIT,
    BadToken,
    Package,
    UnknownClient,
)
from tandem.site.clients.service import Caller, ManagementPointService

T = TypeVar("T")

_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


def routes(
    db: Database, point: ManagementPointService, checkins: CheckIns | None = None
) -> list[BaseRoute]:
    """Everything below the management point's base URL. What is computed for a check-in is handed
    to `checkins`, which answers the next ones."""
    edge = _Edge(db, point, checkins or CheckIns(db, now=point.now))
    return [
        Route("/CCM_STS", edge.exchange, methods=["POST"]),
        Route("/SMS_MP/.sms_aut", edge.location, methods=["GET"]),
        Route("/CCM_Client/manifest", edge.manifest, methods=["GET"]),
        Route("/CCM_Client/{sha256}", edge.package, methods=["GET"]),
        Route("/ccm_system_tokenauth/request", edge.register, methods=["POST"]),
        Route("/SMS_MP/.sms_pol", edge.policy, methods=["GET"]),
        Route("/ccm_incoming", edge.incoming, methods=["POST"]),
    ]


class _Edge:
    """Decodes, opens the transaction, calls, encodes."""

    def __init__(self, db: Database, point: ManagementPointService, checkins: CheckIns) -> None:
        self._db = db
        self._point = point
        self._checkins = checkins

    async def exchange(self, request: Request) -> Response:
        wanted = await http.decode(request, ccm.TokenRequest, TOKEN_LIMIT)
        bearer = None if wanted.certificate else _bearer(request)
        async with self._db.transaction() as tx:
            return http.reply(
                await self._point.exchange(tx, bearer, wanted),
                headers={"Cache-Control": "no-store"},
            )

    async def location(self, request: Request) -> Response:
        query = request.url.query.upper()
        async with self._db.transaction() as tx:
            if query == "SITESIGNCERT":
                return http.reply(await self._point.signing_certificate(tx))
            if query.startswith("MPLIST"):
                return http.reply(await self._point.management_points(tx))
            if query.startswith("SUPLIST"):
                return http.reply(await self._point.update_points(tx))
        raise Invalid("SMS_MP/.sms_aut answers ?SITESIGNCERT, ?MPLIST and ?SUPLIST.")

    async def manifest(self, request: Request) -> Response:
        async with self._db.transaction() as tx:
            sealed = await self._point.manifest(tx)
        return Response(sealed, media_type="application/jose")

    async def package(self, request: Request) -> Response:
        wanted = request.path_params["sha256"].lower()
        if not _SHA256.match(wanted):
            raise Invalid("A client package is asked for by its SHA-256, in hex.")
        return content_answer(await self._point.package(wanted), wanted, request)

    async def register(self, request: Request) -> Response:
        async with self._db.transaction() as tx:
            caller, raw = await self._caller(tx, request, REGISTRATION_LIMIT)
            wanted = _read(raw, ccm.RegistrationRequest)
            return http.reply(await self._point.register(tx, caller.holder, wanted))

    async def policy(self, request: Request) -> Response:
        for_user = request.url.query.lower() == "user"
        with self._checkins.computing(request.headers.get(ccm.CLIENT_HEADER, "")) as ticket:
            caller, sealed = await self._policy(request, for_user)
            if not for_user:
                self._checkins.keep(
                    ticket, caller.holder, _bearer(request), sealed.etag, sealed.etag_ends
                )
        headers = {"ETag": sealed.etag, "Cache-Control": "private, no-cache"}
        if sealed.document is None:
            return Response(status_code=304, headers=headers)
        return Response(sealed.document, headers=headers, media_type="application/jose")

    async def _policy(
        self, request: Request, for_user: bool
    ) -> tuple[Caller, service.SealedPolicy]:
        async with self._db.transaction() as tx:
            caller, _ = await self._caller(tx, request, 0, note=False)
            nonce = request.headers[ccm.NONCE_HEADER]
            if not self._checkins.first_use(caller.holder.thumbprint, nonce):
                raise service.replayed()
            if caller.client is None:
                raise UnknownClient("Only a registered client has policy.", cure="Register first.")
            self._checkins.saw(caller.client.id)
            if for_user and caller.holder.kind != "user":
                raise BadToken(
                    "Policy of a user needs the user's token.",
                    cure="Show CCM_STS the token of the signed-in user.",
                )
            user = caller.holder if for_user else None
            have = request.headers.get("if-none-match", "")
            key = caller.holder.key
            return caller, await self._point.policy(tx, caller.client, key, have, user)

    async def incoming(self, request: Request) -> Response:
        async with self._db.transaction() as tx:
            caller, raw = await self._caller(tx, request, MESSAGES_LIMIT)
            wanted = _read(raw, ccm.IncomingRequest)
            if len(wanted.messages) > service.MAX_MESSAGES:
                raise Invalid(f"At most {service.MAX_MESSAGES} messages are taken at once.")
            return http.reply(await self._point.receive(tx, caller, wanted))

    async def _caller(
        self, tx: Tx, request: Request, limit: int, note: bool = True
    ) -> tuple[Caller, bytes]:
        raw = await http.body(request, limit)
        path = request.scope["raw_path"].decode("ascii", "replace")
        target = ccm.signed_target(path, request.url.query)
        bearer = _bearer(request)
        caller = await self._point.authenticate(
            tx, bearer, request.headers, request.method, target, raw, note=note
        )
        return caller, raw


async def signed_request(
    tx: Tx, point: ManagementPointService, request: Request, wanted: type[T], limit: int
) -> tuple[Caller, T]:
    """Who signed a request, and its body: for endpoints of other modules at the management point.

    Raises what `ManagementPointService.authenticate` raises, TooLarge, and Invalid.
    """
    caller, raw = await _signed(tx, point, request, limit)
    return caller, _read(raw, wanted)


async def signed_question(tx: Tx, point: ManagementPointService, request: Request) -> Caller:
    """Who signed a request without a body. Raises as `signed_request` does."""
    return (await _signed(tx, point, request, 0))[0]


async def _signed(
    tx: Tx, point: ManagementPointService, request: Request, limit: int
) -> tuple[Caller, bytes]:
    raw = await http.body(request, limit)
    path = request.scope["raw_path"].decode("ascii", "replace")
    target = ccm.signed_target(path, request.url.query)
    caller = await point.authenticate(
        tx, _bearer(request), request.headers, request.method, target, raw
    )
    return caller, raw


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise BadToken("The request carries no token.", cure="Send it as `Authorization: Bearer`.")
    return token.strip()


def _read(raw: bytes, wanted: type[Any]) -> Any:
    # The signature is over the bytes, so they are decoded after it was checked.
    if b"\\u0000" in raw.replace(b"\\\\", b""):
        raise Invalid("The request holds a NUL character, which cannot be kept.")
    try:
        return msgspec.json.decode(raw, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The request cannot be read: {error}.") from None


def content_answer(package: Package, sha256: str, request: Request) -> Response:
    """All of a stored file, or the range of it that is asked for."""
    size, etag = package.size_bytes, f'"{sha256}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag}
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range", etag) != etag:
        return _stream(package.read(0, size), size, 200, headers)
    span = _span(asked, size)
    if span is None:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    start, end = span
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return _stream(package.read(start, end), end - start, 206, headers)


def _stream(
    chunks: AsyncIterator[bytes], length: int, status: int, headers: dict[str, str]
) -> Response:
    return StreamingResponse(
        chunks,
        status,
        {**headers, "Content-Length": str(length)},
        media_type="application/octet-stream",
    )


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """The half-open range of one `bytes=` range, or None when it lies outside."""
    found = _RANGE.match(asked)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return (max(0, size - int(found[2])), size) if int(found[2]) else None
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    return (start, end) if start < size and start < end else None


def admin_routes(
    db: Database, *, require: administrators.Require, now: Clock, inactive_days: float = 7
) -> list[BaseRoute]:
    """`/api/v1/clients…`. `require` refuses who is not an administrator of the site."""

    async def list_(request: Request) -> Response:
        await require(request)
        search = _text(request.query_params.get("search", ""))
        limit = _number(request, "limit", 100, 1000)
        offset = _number(request, "offset", 0, 10_000_000)
        obsolete = request.query_params.get("obsolete", "") == "true"
        active = {"true": True, "false": False}.get(request.query_params.get("active", ""))
        since = now() - timedelta(days=inactive_days)
        async with db.transaction() as tx:
            found = await service.listed(tx, search, obsolete, active, since, limit, offset)
        return http.reply(found)

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            client = await service.find(tx, _text(request.path_params["id"]))
            entries = await service.timeline(tx, client.tenant_id, client.device_id)
        return http.reply({"client": client, "timeline": entries})

    async def setup(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return http.reply({"devices": await service.setup_states(tx)})

    async def block(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            return http.reply(
                await service.block(tx, _text(request.path_params["id"]), actor=who.name, now=now())
            )

    async def unblock(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            return http.reply(
                await service.unblock(
                    tx, _text(request.path_params["id"]), actor=who.name, now=now()
                )
            )

    async def delete(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await service.delete(tx, _text(request.path_params["id"]), actor=who.name, now=now())
        return Response(status_code=204)

    return [
        Route("/api/v1/clients", list_, methods=["GET"]),
        Route("/api/v1/client-setup", setup, methods=["GET"]),
        Route("/api/v1/clients/{id}", show, methods=["GET"]),
        Route("/api/v1/clients/{id}", delete, methods=["DELETE"]),
        Route("/api/v1/clients/{id}/block", block, methods=["POST"]),
        Route("/api/v1/clients/{id}/unblock", unblock, methods=["POST"]),
    ]


def _text(value: str) -> str:
    if "\0" in value:
        raise Invalid("A NUL character is in no name and no id.")
    return value


def _number(request: Request, name: str, default: int, maximum: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) > maximum:
        raise Invalid(f"{name} is a whole number from 0 to {maximum}.")
    return int(text)
