"""The token endpoint for devices that are enrolled and not joined, on the management listener.

    device → GET  /ManagementServer/DeviceIdentity    who it is in the directory, and to which tenant
    device → POST /ManagementServer/DeviceToken       grant_type=urn:tandem:…:mdm-certificate,
                                                      client_id, scope
    tenant ← 200 {"access_token", "token_type", "expires_in"}, or OAuth's refusal

The connection is mutual TLS: the MDM certificate is the credential (RFC 8705 does the same for
OAuth's clients), so nothing in the body proves anything and nothing in it can be replayed.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.tenant import directory
from tandem.tenant.oidc import grants, sign_ins
from tandem.tenant.oidc.http import form_of, peer_of, refusal, traced
from tandem.tenant.oidc.refusals import OAuthError, spoken
from tandem.tenant.oidc.tokens import Tokens

# The directory's device of a connection's certificate (None: there was none). Raises AppError.
CertificateHolder = Callable[[Tx, bytes | None], Awaitable[directory.Device]]

# "Device authentication failed" and "the device does not exist in this tenant".
_NUMBERS = {Kind.UNAUTHENTICATED: 50155, Kind.NOT_FOUND: 70043}
_NO_STORE = {"Cache-Control": "no-store"}


def certificate_routes(
    database: Database, tokens: Tokens, now: Clock, holder: CertificateHolder
) -> list[BaseRoute]:
    """To be served where peers are asked for a certificate of the device CA."""

    async def identity(request: Request) -> Response:
        try:
            async with database.transaction() as tx:
                device = await _holder(tx, request)
                here = await directory.tenant(tx)
        except AppError as error:
            return refusal(request, error, now())
        answer = {
            "tenantId": here.id,
            "deviceId": device.device_id,
            "authority": f"{tokens.settings.base}/{here.id}",
        }
        return http.reply(answer, headers=_NO_STORE)

    async def token(request: Request) -> Response:
        entry, at = None, now()
        try:
            ask = grants.asking(
                tokens,
                await form_of(request),
                None,
                peer_of(request),
                at,
                directory.DirectorySettings(),
                v1=False,
            )
            entry = sign_ins.entry("device", ask.form.get("client_id", "")[:80], ask.peer, at)
            async with database.transaction() as tx:
                issued = await grants.certificate_token(tx, ask, lambda tx: _holder(tx, request))
                await sign_ins.record(tx, issued.entry)
        except AppError as error:
            if entry is not None:
                said = spoken(error)
                values = {"number": said.number, "reason": said.message[:500]}
                async with database.transaction() as tx:
                    await sign_ins.record(tx, sign_ins.changed(entry, values))
            return refusal(request, error, at)
        return http.reply(issued.answer, headers={**_NO_STORE, **traced(request)[2]})

    async def _holder(tx: Tx, request: Request) -> directory.Device:
        try:
            device = await holder(tx, http.peer_certificate(request))
        except AppError as error:
            number = _NUMBERS.get(error.kind)
            if number is None:
                raise
            raise OAuthError(number, error.message, cure=error.cure) from None
        if not device.account_enabled:
            raise OAuthError(
                135011,
                "The device used during the authentication is disabled.",
                cure="Enable it in the tenant's device list.",
            )
        return device

    return [
        Route("/ManagementServer/DeviceIdentity", identity, methods=["GET"]),
        Route("/ManagementServer/DeviceToken", token, methods=["POST"]),
    ]
