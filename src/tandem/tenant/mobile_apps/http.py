"""Content of apps for devices, by signed links. The token in the path never reaches a log."""

import re

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.tenant.mobile_apps import service
from tandem.tenant.mobile_apps.service import Content

_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$")


def routes(db: Database, content: Content, now: Clock) -> list[BaseRoute]:
    async def read(request: Request) -> Response:
        http.log_as(request, "/content/…")
        app_id = content.app_id(request.path_params["token"], now())
        async with db.transaction() as tx:
            found = await service.app(tx, app_id)
        size = found.size_bytes
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{found.sha256}"',
            "Content-Length": str(size),
        }
        media_type = "application/x-msi"
        if request.method == "HEAD":
            return Response(headers=headers, media_type=media_type)
        wanted = _RANGE.match(request.headers.get("range", ""))
        if wanted is None:
            return StreamingResponse(content.read(found, 0, size), 200, headers, media_type)
        first, last = wanted.groups()
        if first:
            start, end = int(first), min(int(last) + 1 if last else size, size)
        else:
            start, end = max(size - int(last or 0), 0), size
        if start >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Length"] = str(end - start)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return StreamingResponse(content.read(found, start, end), 206, headers, media_type)

    return [Route("/content/{token}/{file}", read, methods=["GET", "HEAD"])]
