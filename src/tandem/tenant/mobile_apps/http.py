"""Content of apps for devices, by signed links. The token in the path never reaches a log.

Windows downloads by BITS: HEAD for the length, then parts, each with the ETag that it began with.
Every answer says its length and is never chunked.
"""

import secrets
from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.tenant.mobile_apps import ranges, service
from tandem.tenant.mobile_apps.model import App
from tandem.tenant.mobile_apps.ranges import Part
from tandem.tenant.mobile_apps.service import Content

_TYPE = "application/x-msi"


def routes(db: Database, content: Content, now: Clock) -> list[BaseRoute]:
    async def read(request: Request) -> Response:
        http.log_as(request, "/content/…")
        app_id = content.app_id(request.path_params["token"], now())
        async with db.transaction() as tx:
            found = await service.app(tx, app_id)
        return answer(request, content, found)

    return [Route("/content/{token}/{file}", read, methods=["GET", "HEAD"])]


def answer(request: Request, content: Content, found: App) -> Response:
    size, given = found.size_bytes, request.headers
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{found.sha256}"'}
    if not _matches(given.get("if-match"), found, absent=True):
        return Response(status_code=412, headers=headers)
    if _matches(given.get("if-none-match"), found, absent=False):
        return Response(status_code=304, headers=headers)
    whole = {**headers, "Content-Length": str(size)}
    if request.method == "HEAD":
        return Response(headers=whole, media_type=_TYPE)
    parts = None
    if given.get("if-range", headers["ETag"]) == headers["ETag"]:
        parts = ranges.wanted(given.get("range", ""), size)
    if parts is None:
        return StreamingResponse(content.read(found, 0, size), 200, whole, _TYPE)
    if not parts:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    if len(parts) > 1:
        return _several(content, found, parts, headers)
    (part,) = parts
    headers |= {"Content-Length": str(part.size), "Content-Range": part.of(size)}
    return StreamingResponse(content.read(found, part.start, part.end), 206, headers, _TYPE)


def _several(
    content: Content, found: App, parts: Sequence[Part], headers: dict[str, str]
) -> Response:
    boundary = secrets.token_hex(16)
    between = ranges.multipart(parts, found.size_bytes, _TYPE, boundary)

    async def body() -> AsyncIterator[bytes]:
        for head, part in zip(between, parts, strict=False):
            yield head
            async for piece in content.read(found, part.start, part.end):
                yield piece
        yield between[-1]

    length = sum(map(len, between)) + sum(part.size for part in parts)
    return StreamingResponse(
        body(),
        206,
        {**headers, "Content-Length": str(length)},
        f"multipart/byteranges; boundary={boundary}",
    )


def _matches(header: str | None, found: App, *, absent: bool) -> bool:
    """Whether a list of ETags names this content; `absent` without a list."""
    if header is None:
        return absent
    named = [one.strip() for one in header.split(",")]
    return "*" in named or f'"{found.sha256}"' in named
