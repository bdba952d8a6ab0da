"""Discovery.svc, Policy.svc and Enrollment.svc. Every answer is whole and has its length."""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem import pki
from tandem.infra import http
from tandem.infra.database import Database
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger
from tandem.protocols import soap
from tandem.tenant import directory, licensing, oidc
from tandem.tenant.enrollment import certificates, credentials, renewal, restrictions
from tandem.tenant.enrollment.federated import SignInPage
from tandem.tenant.enrollment.model import BadEnrollment, RenewalRefused
from tandem.tenant.enrollment.service import Enrollment
from tandem.tenant.enrollment.terms import TermsPage
from tandem.tenant.enrollment.ways import (
    InMaintenance,
    Options,
    OwnRefusal,
    Proof,
    TermsNotAccepted,
)

log = get_logger("enrollment")

_SMALL, _LARGE = 64 * 1024, 256 * 1024


def routes(db: Database, enrollment: Enrollment, tokens: oidc.Tokens) -> list[BaseRoute]:
    edge = _Edge(db, enrollment)
    sign_in, terms = SignInPage(db, enrollment, tokens), TermsPage(db, enrollment)
    return [
        _any_case("/EnrollmentServer/Discovery.svc", edge.alive, "GET"),
        _any_case("/EnrollmentServer/Discovery.svc", edge.discovery, "POST"),
        _any_case("/EnrollmentServer/Policy.svc", edge.policy, "POST"),
        _any_case("/EnrollmentServer/Enrollment.svc", edge.enrollment, "POST"),
        _any_case(certificates.LIST_PATH, edge.revoked, "GET"),
        _any_case("/EnrollmentServer/Auth", sign_in.begin, "GET"),
        _any_case("/EnrollmentServer/Auth/SignedIn", sign_in.signed_in, "GET"),
        _any_case("/EnrollmentServer/Auth/SignedIn", sign_in.decide, "POST"),
        _any_case("/EnrollmentServer/Auth/submit.js", sign_in.script, "GET"),
        *(
            _any_case(path, work, method)
            for path in ("/EnrollmentServer/TermsOfUse", "/TermsOfUse.aspx")
            for work, method in ((terms.show, "GET"), (terms.decide, "POST"))
        ),
    ]


def _any_case(path: str, work: Callable[[Request], Awaitable[Response]], method: str) -> Route:
    """Some callers spell the fixed paths in lower case (section 2)."""
    route = Route(path, work, methods=[method])
    route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    return route


class _Edge:
    def __init__(self, db: Database, enrollment: Enrollment) -> None:
        self._db = db
        self._enrollment = enrollment

    async def alive(self, _: Request) -> Response:
        return Response(b"", 200)

    async def discovery(self, request: Request) -> Response:
        return await self._answer(request, soap.DISCOVER_RESPONSE, _SMALL, self._discover)

    async def policy(self, request: Request) -> Response:
        return await self._answer(request, soap.GET_POLICIES_RESPONSE, _SMALL, self._policies)

    async def enrollment(self, request: Request) -> Response:
        async def work(envelope: soap.Envelope, peer: oidc.Peer) -> bytes:
            asked = envelope.body
            if isinstance(asked, soap.RequestToken) and renewal.is_asked(asked):
                held = http.peer_certificate(request)
                return await self._renew(envelope, asked, held, peer.address)
            return await self._enroll(envelope, peer)

        return await self._answer(request, soap.REQUEST_TOKEN_RESPONSE, _LARGE, work)

    async def revoked(self, _: Request) -> Response:
        """The revocation list of the tenant's device CA."""
        async with self._db.transaction() as tx:
            authority = await self._enrollment.authority(tx)
            found = await certificates.revocation_list(tx, authority, self._enrollment.now())
        return Response(found, 200, media_type="application/pkix-crl")

    async def _renew(
        self, envelope: soap.Envelope, asked: soap.RequestToken, peer: bytes | None, address: str
    ) -> bytes:
        claim = renewal.claim(envelope, asked, peer, address)
        try:
            async with self._db.transaction() as tx:
                answer = await renewal.renew(tx, self._enrollment, claim)
        except AppError as error:
            text = f"{error.message} {error.cure}".strip()
            async with self._db.transaction() as tx:
                code = _vocabulary(error).hresult
                await renewal.refused(tx, self._enrollment, claim, text, code)
            raise
        return soap.token_response(envelope.message_id, answer)

    async def _discover(self, envelope: soap.Envelope, _: oidc.Peer) -> bytes:
        asked = envelope.body
        if not isinstance(asked, soap.Discover):
            raise soap.BadMessage("another message was expected")
        # Who can sign in on a page does, so that nobody else's discovery asks the database.
        passwords = False
        if asked.auth_policies and soap.FEDERATED not in asked.auth_policies:
            passwords = (await self._chosen()).passwords
        answer = self._enrollment.discover(asked, passwords=passwords)
        return soap.discover_response(envelope.message_id, answer)

    async def _policies(self, envelope: soap.Envelope, peer: oidc.Peer) -> bytes:
        if not isinstance(envelope.body, soap.GetPolicies):
            raise soap.BadMessage("another message was expected")
        credential = soap.one_credential(envelope)
        chosen = await self._chosen()
        _not_in_maintenance(chosen)
        proof = await self._enrollment.credentials.proof(self._db, credential, peer)
        try:
            async with self._db.transaction() as tx:
                await self._enrollment.may(tx, proof)
                found = await certificates.profile(tx, self._enrollment.settings)
        except AppError as error:
            raise await self._refusal(error, chosen, proof) from None
        policy = soap.KeyPolicy(
            found.key_bits, found.providers, found.validity_days, found.renewal_days
        )
        return soap.policies_response(envelope.message_id, policy)

    async def _enroll(self, envelope: soap.Envelope, peer: oidc.Peer) -> bytes:
        asked = envelope.body
        if not isinstance(asked, soap.RequestToken):
            raise soap.BadMessage("another message was expected")
        self._enrollment.require_new(asked)
        credential = soap.one_credential(envelope)
        chosen = await self._chosen()
        _not_in_maintenance(chosen)
        proof = await self._enrollment.credentials.proof(self._db, credential, peer)
        try:
            async with self._db.transaction() as tx:
                answer = await self._enrollment.enroll(tx, proof, asked)
        except AppError as error:
            raise await self._refusal(error, chosen, proof, asked) from None
        return soap.token_response(envelope.message_id, answer)

    async def _chosen(self) -> Options:
        async with self._db.transaction() as tx:
            return await credentials.options(tx)

    async def _refusal(
        self,
        error: AppError,
        chosen: Options,
        proof: Proof,
        asked: soap.RequestToken | None = None,
    ) -> AppError:
        """What is answered. Whoever proved to be a user of the tenant and was refused is listed."""
        if error.kind in {Kind.UNAUTHENTICATED, Kind.UNAVAILABLE}:
            return error
        code = _vocabulary(error).hresult
        text = f"{error.message} {error.cure}".strip()
        async with self._db.transaction() as tx:
            await self._enrollment.refused(tx, asked, proof, text, code)
        return _in_own_words(error, chosen)

    async def _answer(
        self,
        request: Request,
        action: str,
        limit: int,
        work: Callable[[soap.Envelope, oidc.Peer], Awaitable[bytes]],
    ) -> Response:
        relates_to, old, trace = "invalid_message_id", False, str(uuid.uuid4())
        peer = oidc.peer_of(request)
        try:
            raw = await http.body(request, limit)
            relates_to, old = soap.message_id(raw), soap.is_soap11(raw)
            content = await work(soap.read(raw), peer)
        except soap.BadSecurity:
            content = soap.fault(
                action,
                relates_to,
                soap.Fault("a:InvalidSecurity", "Invalid security header.", "", trace),
            )
        except soap.BadMessage as error:
            log.info(
                "enrollment message refused",
                reason=str(error),
                address=peer.address,
                trace=trace,
            )
            content = soap.fault(
                action,
                relates_to,
                soap.Fault("s:MessageFormat", "The message cannot be read.", "", trace),
            )
        except AppError as error:
            content = soap.fault(action, relates_to, _fault(error, trace))
            log.info(
                "enrollment refused",
                code=error.code,
                reason=error.message,
                address=peer.address,
                trace=trace,
            )
        except Exception:
            log.exception("enrollment failed", trace=trace)
            told = soap.Fault("a:InternalServiceFault", "Internal error.", "", trace)
            content = soap.fault(action, relates_to, told)
        if old:
            return Response(soap.as_soap11(content), 200, media_type="text/xml; charset=utf-8")
        return Response(content, 200, media_type="application/soap+xml; charset=utf-8")


class _Refusal(NamedTuple):
    """A fault's subcode and detail, and the number that Windows makes of them (section 10)."""

    subcode: str
    detail: str
    hresult: str


# From a kind of refusal to the fault for it; single refusals that Windows tells apart come first.
_FAULTS = {
    Kind.INVALID: _Refusal("s:MessageFormat", "", "0x80180001"),
    Kind.UNAUTHENTICATED: _Refusal("s:Authentication", "", "0x80180002"),
    Kind.FORBIDDEN: _Refusal("s:Authorization", "", "0x80180003"),
    Kind.NOT_FOUND: _Refusal("s:MessageFormat", "", "0x80180001"),
    Kind.CONFLICT: _Refusal("s:Authorization", "", "0x80180003"),
    Kind.GONE: _Refusal("s:Authorization", "", "0x80180003"),
    Kind.TOO_LARGE: _Refusal("s:MessageFormat", "", "0x80180001"),
    Kind.RATE_LIMITED: _Refusal("s:EnrollmentServer", "", "0x80180005"),
    Kind.UNAVAILABLE: _Refusal("s:EnrollmentServer", "", "0x80180005"),
    Kind.UNSUPPORTED: _Refusal("s:MessageFormat", "", "0x80180001"),
}


def _vocabulary(error: AppError) -> _Refusal:
    match error:
        case licensing.NoMdmLicence():
            return _Refusal("s:Authorization", "UserLicense", "0x80180018")
        case directory.NoMdmAuthority():
            return _Refusal("s:Authorization", "NotSupported", "0x80180015")
        case restrictions.DeviceCapReached():
            return _Refusal("s:Authorization", "DeviceCapReached", "0x80180013")
        case restrictions.DeviceNotSupported():
            return _Refusal("s:Authorization", "DeviceNotSupported", "0x80180014")
        case InMaintenance():
            return _Refusal("s:EnrollmentServer", "InMaintenance", "0x80180017")
        case OwnRefusal():
            return _Refusal("s:Authorization", "CustomServerError", "0x80180032")
        case BadEnrollment() | TermsNotAccepted():
            return _Refusal("s:MessageFormat", "InvalidEnrollmentData", "0x80180019")
        case RenewalRefused():
            return _Refusal("s:Authorization", "NotEligibleToRenew", "0x80180016")
        case pki.BadRequest():
            return _Refusal("s:CertificateRequest", "", "0x80180004")
        case _:
            return _FAULTS[error.kind]


def _not_in_maintenance(chosen: Options) -> None:
    if chosen.maintenance:
        raise InMaintenance(
            "Enrolment is closed for maintenance.", cure="Enrol the device again later."
        )


def _in_own_words(error: AppError, chosen: Options) -> AppError:
    """The administrator's text for whoever may not enrol, where Windows has no words of its own."""
    told = _vocabulary(error)
    if chosen.refusal_text and told.subcode == "s:Authorization" and not told.detail:
        return OwnRefusal(chosen.refusal_text)
    return error


def _fault(error: AppError, trace: str) -> soap.Fault:
    told = _vocabulary(error)
    text = f"{error.message} {error.cure}".strip()
    if error.kind is Kind.UNAVAILABLE and not isinstance(error, InMaintenance):
        # What is missing here is not the business of whoever asks.
        text = "The service cannot answer now. Enrol the device again later."
    return soap.Fault(told.subcode, text, told.detail, trace)
