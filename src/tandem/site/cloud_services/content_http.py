"""Content at gateways, on the management point's listener: for devices, and for gateways."""

import re
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.errors import Invalid
from tandem.protocols import ccm, tunnel
from tandem.site import clients, content
from tandem.site.cloud_services import content_store, contents, store

if TYPE_CHECKING:
    from tandem.site.cloud_services.http import CloudServices

T = TypeVar("T")

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_KEY_LIMIT, _STATE_LIMIT = 4096, 64 * 1024


def content_routes(
    cloud: "CloudServices",
    point: clients.ManagementPointService,
    packages: content.ClientPackages,
) -> list[BaseRoute]:
    """`packages` is where content comes from."""

    async def location(request: Request) -> Response:
        """Where a device finds this content, and the tokens that it shows there."""
        wanted = _sha256(request)
        found = []
        async with cloud.db.transaction() as tx:
            caller = await clients.signed_question(tx, point, request)
            for gateway in await store.gateways(tx):
                source = await contents.locate(
                    tx,
                    point,
                    caller.holder,
                    packages,
                    cloud.box,
                    cloud.connections.authority(gateway),
                    gateway,
                    wanted,
                )
                # One that serves nothing else is for this.
                found += [(not gateway.content_only, source)] if source else []
        sources = [source for _, source in sorted(found, key=lambda pair: pair[0])]
        answer = ccm.ContentLocation(wanted, sources)
        return http.reply(answer, headers={"Cache-Control": "no-store"})

    async def key(request: Request) -> Response:
        raw = await http.body(request, _KEY_LIMIT)
        wanted = _read(raw, tunnel.KeyRequest)
        async with cloud.db.transaction() as tx:
            gateway = await contents.asking(tx, *_asked(request, "/key"), raw, cloud.now)
            found = await contents.key(tx, cloud.box, gateway, wanted)
        return http.reply(found, headers={"Cache-Control": "no-store"})

    async def state(request: Request) -> Response:
        raw = await http.body(request, _STATE_LIMIT)
        said = _read(raw, tunnel.ContentState)
        async with cloud.db.transaction() as tx:
            gateway = await contents.asking(tx, *_asked(request, "/state"), raw, cloud.now)
            await content_store.save_state(tx, gateway.service_name, said, cloud.now())
        return Response(status_code=204)

    async def read(request: Request) -> Response:
        wanted = _sha256(request)
        async with cloud.db.transaction() as tx:
            gateway = await contents.asking(tx, *_asked(request, f"/{wanted}"), b"", cloud.now)
            known = await content_store.find(tx, gateway.service_name, wanted)
            contents.served(gateway, known[0] if known else None)
        return clients.content_answer(await point.package(wanted), wanted, request)

    origin = f"{tunnel.ORIGIN}/{{gateway}}"
    return [
        Route("/CCM_Client/{sha256}/location", location, methods=["GET"]),
        Route(f"{origin}/key", key, methods=["POST"]),
        Route(f"{origin}/state", state, methods=["POST"]),
        Route(f"{origin}/{{sha256}}", read, methods=["GET"]),
    ]


def _asked(request: Request, path: str) -> tuple[str, str, str, str]:
    return (
        request.path_params["gateway"],
        request.headers.get(tunnel.PROOF_HEADER, ""),
        request.method,
        path,
    )


def _sha256(request: Request) -> str:
    wanted: str = request.path_params["sha256"].lower()
    if not _SHA256.match(wanted):
        raise Invalid("Content is asked for by its SHA-256, in hex.")
    return wanted


def _read(raw: bytes, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The request cannot be read: {error}.") from None
