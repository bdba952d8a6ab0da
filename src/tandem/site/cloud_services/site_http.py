"""The site's communication, whom it trusts, and what ends when, in the admin API."""

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.site.administrators import Gate
from tandem.site.cloud_services import communication, expirations
from tandem.site.collections import as_dict

if TYPE_CHECKING:
    from tandem.site.cloud_services.http import CloudServices


class Change(msgspec.Struct):
    """What is not named stays as it is."""

    site_systems: str | None = None
    enhanced_http: bool | None = None
    pki_client_certificate: bool | None = None
    check_crl: bool | None = None


class Renew(msgspec.Struct):
    id: str


def routes(cloud: "CloudServices", require: Gate) -> list[BaseRoute]:
    async def show(request: Request) -> Response:
        await require(request)
        async with cloud.db.transaction() as tx:
            found = await communication.shape(tx)
        return http.reply(found, headers={"ETag": communication.version(found)})

    async def change(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Change)
        async with cloud.db.transaction() as tx:
            # One administrator at a time: the second reads what the first one wrote.
            await tx.execute("LOCK TABLE properties_communication IN EXCLUSIVE MODE")
            http.check_version(request, communication.version(await communication.shape(tx)))
            await communication.change(
                tx,
                site_systems=wanted.site_systems,
                enhanced_http=wanted.enhanced_http,
                pki_client_certificate=wanted.pki_client_certificate,
                check_crl=wanted.check_crl,
                actor=who.name,
                now=cloud.now(),
            )
            found = await communication.shape(tx)
        cloud.news.tell()
        return http.reply(found, headers={"ETag": communication.version(found)})

    async def remove_root(request: Request) -> Response:
        who = await require(request)
        async with cloud.db.transaction() as tx:
            id = request.path_params["id"]
            await communication.remove_root(tx, id, actor=who.name, now=cloud.now())
        cloud.news.tell()
        return Response(status_code=204)

    async def ends(request: Request) -> Response:
        await require(request)
        async with cloud.db.transaction() as tx:
            found = await expirations.expirations(tx, cloud.now())
        return http.reply([as_dict(item) for item in found])

    async def renew(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Renew)
        async with cloud.db.transaction() as tx:
            made = await expirations.renew(
                tx, cloud.box, wanted.id, actor=who.name, now=cloud.now()
            )
        return http.reply(as_dict(made))

    return [
        Route("/api/v1/site/properties", show, methods=["GET"]),
        Route("/api/v1/site/properties", change, methods=["PATCH"]),
        Route("/api/v1/trust/roots/{id:int}", remove_root, methods=["DELETE"]),
        Route("/api/v1/expirations", ends, methods=["GET"]),
        Route("/api/v1/expirations/renew", renew, methods=["POST"]),
    ]
