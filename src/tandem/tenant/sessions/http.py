"""MDM.svc: OMA-DM over mutual TLS."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem import pki
from tandem.infra import http
from tandem.infra.database import Database
from tandem.infra.errors import HTTP_STATUS, AppError, Kind
from tandem.infra.logs import get_logger
from tandem.protocols import syncml
from tandem.tenant.enrollment import NotEnrolled
from tandem.tenant.sessions.authentication import Peer
from tandem.tenant.sessions.service import Sessions

log = get_logger("sessions")

_LIMIT = 4 * 1024 * 1024
_TYPE = "application/vnd.syncml.dm+xml"


def routes(db: Database, sessions: Sessions) -> list[BaseRoute]:
    async def manage(request: Request) -> Response:
        if "wbxml" in request.headers.get("content-type", ""):
            return Response(status_code=415)
        raw = await http.body(request, _LIMIT)
        try:
            message = syncml.read(raw)
        except syncml.BadMessage as error:
            log.info("message refused", reason=str(error))
            return Response(status_code=400)
        certificate = http.peer_certificate(request)
        async with db.apart() as connection:
            answer = await sessions.quietly(connection, certificate, message)
        if answer is not None:
            return Response(answer, media_type=f"{_TYPE}; charset=utf-8")
        peer = Peer(certificate, _signature(request), raw, _connection(request))
        try:
            async with db.transaction() as tx:
                answer = await sessions.exchange(tx, peer, message)
        except NotEnrolled as error:
            # The device hears nothing (section 20); who runs the service has to see it.
            fingerprint = pki.sha256_fingerprint(certificate) if certificate is not None else ""
            log.warning(
                "session refused",
                source=message.source[:128],
                certificate=fingerprint,
                **error.details,
            )
            async with db.transaction() as tx:
                told = await sessions.stray(tx, peer, message)
            if told is None:
                raise
            answer = told
        return Response(answer, media_type=f"{_TYPE}; charset=utf-8")

    return [Route("/ManagementServer/MDM.svc", manage, methods=["POST"])]


def _signature(request: Request) -> str:
    """MDM-Signature, by either of its names (section 11.7)."""
    headers = request.headers
    return headers.get("mdm-signature", "") or headers.get("ms-signature", "")


# What proxies say of themselves. One may send the messages of many devices over one connection, so
# that connection tells no device from another.
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip")


def _connection(request: Request) -> str:
    """Address and port of the sender; empty where a proxy stands between."""
    if any(name in request.headers for name in _FORWARDED):
        return ""
    client = request.client
    return f"{client.host} {client.port}" if client is not None else ""


def problems(_: Request, error: Exception) -> Response:
    """Refusals without a body: a device acts on the status alone (section 11.1)."""
    if isinstance(error, AppError):
        headers = {"Retry-After": "60"} if error.kind is Kind.RATE_LIMITED else None
        return Response(status_code=HTTP_STATUS[error.kind], headers=headers)
    return Response(status_code=500)
