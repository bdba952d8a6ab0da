"""The software update point, as clients ask it: on the management point's listener."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.protocols import ccm
from tandem.site import clients
from tandem.site.software_updates import service


def point_routes(
    db: Database,
    point: clients.ManagementPointService,
    signing: Callable[[Tx], Awaitable[ccm.SigningIdentity]],
    now: Clock,
) -> list[BaseRoute]:
    """Below the software update point's base URL."""

    async def updates(request: Request) -> Response:
        async with db.transaction() as tx:
            caller = await clients.signed_question(tx, point, request)
            if caller.client is None:
                raise clients.UnknownClient(
                    "Only a registered client has approved updates.", cure="Register first."
                )
            have = request.headers.get("if-none-match", "")
            found = await service.list_for(tx, caller.client, have, now())
            headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
            if found.document is None:
                return Response(status_code=304, headers=headers)
            sealed = ccm.seal("updates", found.document, await signing(tx))
        return Response(sealed, headers=headers, media_type="application/jose")

    return [Route("/SMS_SUP/.sms_upd", updates, methods=["GET"])]
