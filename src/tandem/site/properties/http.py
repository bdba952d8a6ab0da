"""The site itself in the admin API: what it is, and who did what."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem import __version__, audit, pki
from tandem.infra import http
from tandem.infra.database import Database
from tandem.infra.errors import Invalid
from tandem.site.properties import service, store

# Administrators stand above this module, so their gate is handed in.
Require = Callable[[Request], Awaitable[object]]

_MOST_ENTRIES = 1000


def routes(db: Database, require: Require) -> list[BaseRoute]:
    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            site = await service.site(tx)
            root = await service.root_certificate(tx)
            roles = await store.credentials(tx)
        answer = {
            "code": site.code,
            "name": site.name,
            "version": __version__,
            "management_point_id": str(site.management_point_id),
            "established_at": site.established_at,
            "enhanced_http": service.SITE_SYSTEMS in {role for role, _ in roles},
            "issuing_root": {
                "subject": root.subject.rfc4514_string(),
                "sha256": pki.sha256_fingerprint(root),
                "expires_at": root.not_valid_after_utc,
                "certificate": pki.pem(root).decode(),
            },
            "certificates": [{"role": role, "expires_at": ends} for role, ends in roles],
        }
        return http.reply(answer)

    async def entries(request: Request) -> Response:
        await require(request)
        limit = request.query_params.get("limit", "100")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= _MOST_ENTRIES:
            raise Invalid(f"limit is a number from 1 to {_MOST_ENTRIES}.")
        async with db.transaction() as tx:
            found = await audit.entries(
                tx, target=request.query_params.get("target"), limit=int(limit)
            )
        return http.reply(msgspec.to_builtins(found, builtin_types=()))

    return [
        Route("/api/v1/site", show, methods=["GET"]),
        Route("/api/v1/site/audit", entries, methods=["GET"]),
    ]
