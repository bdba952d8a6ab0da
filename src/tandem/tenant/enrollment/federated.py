"""The federated way: a sign-in on our page ends in a token for the device (section 4).

    device  → GET …/Auth?appru=ms-app://…&login_hint=…       in a web view of Windows
    browser → the tenant's own sign-in pages, as for any client, and back with a code
    browser ← terms of use, where there are any
    browser ← a form that posts wresult to appru, which Windows is waiting for

What goes to the sign-in pages and comes back is sealed in `state`; the code is worth nothing
without the verifier, which only this browser's cookie holds.
"""

import re
import secrets
from datetime import datetime, timedelta
from hashlib import sha256

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger
from tandem.tenant import directory, oidc
from tandem.tenant.enrollment import pages, terms
from tandem.tenant.enrollment import token_store as store
from tandem.tenant.enrollment.terms import Enrols, seal, unseal
from tandem.tenant.enrollment.ways import Proof, Way

log = get_logger("enrollment")

_STATE, _PAGE = "enrollment.sign-in", "enrollment.sign-in-terms"
_LIFE = timedelta(minutes=30)
_APPRU = re.compile(r"ms-app(x-web)?://[!-~]{1,2000}", re.IGNORECASE)
_NEVER = re.compile(r"[\"'<>\\^`{|}\[\]]")
_FAILED = "This device was not enrolled"
_AGAIN = "Close this window and enrol the device again."
_STALE = "The page is no longer valid, or came from another browser."


class Begun(msgspec.Struct, frozen=True):
    """What a sign-in carries to its end; `browser` is the hash of the cookie."""

    appru: str
    browser: str
    until: int
    user_id: str = ""
    terms: str = ""


class SignInPage:
    """The pages of the federated way."""

    def __init__(self, db: Database, enrollment: Enrols, tokens: oidc.Tokens) -> None:
        self._db = db
        self._enrollment = enrollment
        self._tokens = tokens
        base = tokens.settings.base
        self._back = oidc.enrollment_redirect(base)
        self._secure = base.startswith("https://")
        self._cookie = f"{'__Host-' if self._secure else ''}tandem_enrol"

    async def begin(self, request: Request) -> Response:
        appru = request.query_params.get("appru", "")
        async with self._db.transaction() as tx:
            here = await directory.tenant(tx)
        if not _APPRU.fullmatch(appru) or _NEVER.search(appru):
            return pages.told(
                request,
                here.display_name,
                "Devices open this page when they enrol",
                "To enrol this computer, open Settings, Accounts, Access work or school, and choose"
                " to enrol only in device management.",
                why="The address to return to is not one of Windows." if appru else "",
                status=400 if appru else 200,
            )
        verifier = secrets.token_urlsafe(48)
        begun = Begun(appru, _hash(verifier), self._until(self._enrollment.now()))
        url = oidc.sign_in_url(
            self._tokens,
            here.id,
            client_id=oidc.MDM_ENROLLMENT,
            redirect_uri=self._back,
            scope=f"openid {oidc.MDM_APP}/mdm_delegation",
            state=seal(self._enrollment.box, begun, _STATE),
            verifier=verifier,
            login_hint=request.query_params.get("login_hint", "")[:320],
        )
        response = oidc.pages.redirect(url)
        response.set_cookie(
            self._cookie, verifier, path="/", secure=self._secure, httponly=True, samesite="lax"
        )
        return response

    async def signed_in(self, request: Request) -> Response:
        """Back from the sign-in pages: the code, or why there is none."""
        query, verifier = request.query_params, request.cookies.get(self._cookie, "")
        begun = self._open(query.get("state", ""), _STATE, verifier)
        if begun is None:
            return pages.told(request, "", _FAILED, _AGAIN, why=_STALE, status=400)
        if not query.get("code"):
            return pages.told(
                request, "", _FAILED, _AGAIN, why="The sign-in did not succeed.", status=400
            )
        now = self._enrollment.now()
        try:
            user = await oidc.signed_in(
                self._db,
                self._tokens,
                client_id=oidc.MDM_ENROLLMENT,
                redirect_uri=self._back,
                code=query["code"],
                verifier=verifier,
                peer=oidc.peer_of(request),
                now=now,
            )
        except AppError as error:
            log.info("sign-in of an enrolment refused", code=error.code, reason=error.message)
            return pages.told(
                request, "", _FAILED, _AGAIN, why="The sign-in did not succeed.", status=400
            )
        return await self._go_on(request, begun, user)

    async def _go_on(self, request: Request, begun: Begun, user: directory.User) -> Response:
        proof = Proof(Way.FEDERATED, user.id, user.user_principal_name)
        now = self._enrollment.now()
        async with self._db.transaction() as tx:
            here = await directory.tenant(tx)
            chosen = await store.options(tx)
            try:
                await self._enrollment.may(tx, proof)
            except AppError as error:
                log.info("enrollment refused", code=error.code, reason=error.message)
                why, ask = pages.reason(error), "Ask your administrator."
                status = 503 if error.kind is Kind.UNAVAILABLE else 403
                return pages.told(request, here.display_name, _FAILED, ask, why=why, status=status)
            if chosen.terms:
                onward = msgspec.structs.replace(
                    begun, user_id=user.id, terms=chosen.terms_sha256, until=self._until(now)
                )
                return pages.terms(
                    request,
                    here.display_name,
                    chosen,
                    action=request.url.path,
                    ctx=seal(self._enrollment.box, onward, _PAGE),
                    optional=True,
                    target=begun.appru,
                )
            return await self._hand_over(tx, request, begun, user, here)

    async def decide(self, request: Request) -> Response:
        """The choice about the terms."""
        form = await pages.form(request)
        verifier = request.cookies.get(self._cookie, "")
        begun = self._open(form.get("ctx", ""), _PAGE, verifier)
        if begun is None or not begun.user_id:
            return pages.told(request, "", _FAILED, _AGAIN, why=_STALE, status=400)
        yes, now = form.get("decision") == "accept", self._enrollment.now()
        async with self._db.transaction() as tx:
            here = await directory.tenant(tx)
            user = await directory.find_user(tx, begun.user_id)
            if user is None or not user.account_enabled:
                return pages.told(request, "", _FAILED, _AGAIN, why=_STALE, status=400)
            await terms.accepted(
                tx,
                user.id,
                user.user_principal_name,
                begun.terms,
                "federated",
                now,
                yes=yes,
                address=oidc.peer_of(request).address,
            )
            if yes:
                return await self._hand_over(tx, request, begun, user, here)
        return pages.told(
            request,
            here.display_name,
            _FAILED,
            "Close this window, and start again if you change your mind.",
            why="You declined the terms of use.",
        )

    async def _hand_over(
        self,
        tx: Tx,
        request: Request,
        begun: Begun,
        user: directory.User,
        here: directory.Tenant,
    ) -> Response:
        _, token = await self._enrollment.credentials.issue(
            tx,
            Way.FEDERATED,
            user,
            lifetime=timedelta(seconds=self._enrollment.settings.sign_in_token_seconds),
            issued_by=user.user_principal_name,
            terms_sha256=begun.terms,
        )
        response = pages.page(
            request,
            "hand_over",
            here.display_name,
            appru=begun.appru,
            token=token,
            target=begun.appru,
            script=True,
        )
        response.delete_cookie(
            self._cookie, path="/", secure=self._secure, httponly=True, samesite="lax"
        )
        return response

    async def script(self, _: Request) -> Response:
        return Response(pages.SUBMIT, media_type="text/javascript")

    def _until(self, now: datetime) -> int:
        return int((now + _LIFE).timestamp())

    def _open(self, text: str, context: str, verifier: str) -> Begun | None:
        """The sealed state, if it is of this browser and not too old."""
        begun = unseal(self._enrollment.box, text, context, Begun)
        if begun is None or begun.until <= self._enrollment.now().timestamp():
            return None
        return begun if secrets.compare_digest(_hash(verifier), begun.browser) else None


def _hash(verifier: str) -> str:
    return sha256(verifier.encode()).hexdigest()
