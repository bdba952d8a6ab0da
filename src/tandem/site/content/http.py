"""The MSI for whoever installs by hand, and the client package of the admin API."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Database
from tandem.site.administrators import Require
from tandem.site.content.model import MSI_NAME, PRODUCT_NAME, ClientPackage
from tandem.site.content.service import ClientPackages


def routes(db: Database, require: Require, packages: ClientPackages) -> list[BaseRoute]:
    """The MSI is no secret: what it installs is told by its command line, which is not in it."""

    async def current() -> ClientPackage:
        async with db.transaction() as tx:
            return await packages.current(tx)

    async def show(request: Request) -> Response:
        await require(request)
        return http.reply(_shape(await current()))

    async def download(request: Request) -> Response:
        found = await current()
        headers = {
            "Content-Length": str(found.msi_size_bytes),
            "Content-Disposition": f'attachment; filename="{MSI_NAME}"',
            "ETag": f'"{found.msi_sha256}"',
            "Cache-Control": "no-cache",
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers={"ETag": headers["ETag"]})
        if request.method == "HEAD":
            return Response(headers=headers, media_type="application/x-msi")
        return StreamingResponse(
            packages.read_msi(found), headers=headers, media_type="application/x-msi"
        )

    return [
        Route("/bin/i386/ccmsetup.msi", download, methods=["GET", "HEAD"]),
        Route("/api/v1/client-package", show, methods=["GET"]),
    ]


def _shape(package: ClientPackage) -> dict[str, Any]:
    return {
        "product_name": PRODUCT_NAME,
        "product_code": package.product_code,
        "version": package.version,
        "site_code": package.site_code,
        "file_name": MSI_NAME,
        "size_bytes": package.msi_size_bytes,
        "sha256": package.msi_sha256,
        "path": "/bin/i386/ccmsetup.msi",
        "windows_runtime_sha256": package.runtime_sha256 or None,
        "client": {
            "file_name": package.file_name,
            "size_bytes": package.size_bytes,
            "sha256": package.sha256,
        },
        "built_at": package.built_at,
    }
