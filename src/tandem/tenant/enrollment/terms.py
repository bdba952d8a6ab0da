"""Terms of use (section 9): a page with a choice, and the proof of it that comes back with the RST.

    device → GET  …/TermsOfUse?redirect_uri=ms-appx-web://…&api-version=1.0&mode=…   Bearer: JWT
    device ← the page; POST {ctx, decision} → 302 redirect_uri?IsAccepted=true&OpaqueBlob=…
    device → RST with ContextItem EnrollmentData = OpaqueBlob

The blob is sealed, lives an hour and is bound to the user and to the text. A sign-in on our own
page shows the same terms, and its token carries that they were accepted.
"""

import re
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol, TypeVar
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger
from tandem.infra.secrets import SecretBox, Unsealable
from tandem.protocols import soap
from tandem.tenant import directory, oidc
from tandem.tenant.enrollment import pages
from tandem.tenant.enrollment import token_store as store
from tandem.tenant.enrollment.credentials import Credentials
from tandem.tenant.enrollment.model import EnrollmentSettings
from tandem.tenant.enrollment.ways import Proof, TermsNotAccepted, Way

log = get_logger("enrollment")

Sealed = TypeVar("Sealed", bound=msgspec.Struct)

_BLOB, _PAGE = "enrollment.terms-accepted", "enrollment.terms-page"
_BLOB_LIFE, _PAGE_LIFE = timedelta(hours=1), timedelta(minutes=30)
_RETURN = re.compile(r"(ms-appx-web|ms-aadj-redir)://[!-~]{1,2000}", re.IGNORECASE)
_NEVER = re.compile(r"[\"'<>\\^`{|}\[\]#]")


class Accepted(msgspec.Struct, frozen=True):
    """What the blob says."""

    user_id: str
    terms: str
    until: int


class Asked(msgspec.Struct, frozen=True):
    """What the page carries from the device's request to the answer."""

    user_id: str
    upn: str
    redirect_uri: str
    request_id: str
    terms: str
    until: int
    optional: bool


def seal(box: SecretBox, value: msgspec.Struct, context: str) -> str:
    return urlsafe_b64encode(box.seal(msgspec.json.encode(value), context)).decode()


def unseal(box: SecretBox, text: str, context: str, sort: type[Sealed]) -> Sealed | None:
    """None for what we did not seal, for another purpose, or before this version."""
    try:
        raw = box.unseal(urlsafe_b64decode(text.encode()), context)
        return msgspec.json.decode(raw, type=sort)
    except (ValueError, Unsealable, msgspec.DecodeError):
        return None


async def require(
    tx: Tx, box: SecretBox, credentials: Credentials, proof: Proof, asked: soap.RequestToken,
    now: datetime,
) -> None:  # fmt: skip
    """Raises TermsNotAccepted where the tenant has terms and this request's user did not accept
    them as they are now. An administrator who issues a token answers for the user."""
    chosen = await store.options(tx)
    if not chosen.terms or proof.way is Way.PROGRAMMATIC:
        return
    given = ""
    if proof.way is Way.FEDERATED:
        given = await credentials.terms_of(tx, proof)
    elif proof.way is Way.DIRECTORY:
        blob = unseal(box, asked.item("EnrollmentData"), _BLOB, Accepted)
        if blob and blob.user_id == proof.object_id and blob.until > now.timestamp():
            given = blob.terms
    if given != chosen.terms_sha256:
        raise TermsNotAccepted(
            "The terms of use were not accepted, or they changed since (0x80180019).",
            cure="Enrol again and accept them, or have an enrolment token issued.",
        )


async def accepted(
    tx: Tx,
    user_id: str,
    upn: str,
    terms_sha256: str,
    way: str,
    now: datetime,
    *,
    yes: bool,
    address: str,
) -> None:
    """Who agreed to what, for the audit log."""
    await audit.record(
        tx,
        actor=f"user:{upn}",
        action="accept terms of use" if yes else "decline terms of use",
        target=user_id,
        details={"terms_sha256": terms_sha256, "way": way, "address": address},
        now=now,
    )


class Enrols(Protocol):
    """What the pages need of Enrollment."""

    box: SecretBox
    credentials: Credentials
    settings: EnrollmentSettings
    now: Clock

    async def may(self, tx: Tx, claims: Proof) -> None: ...


class TermsPage:
    """The endpoint that joined devices are told."""

    def __init__(self, db: Database, enrollment: Enrols) -> None:
        self._db = db
        self._enrollment = enrollment

    async def show(self, request: Request) -> Response:
        query = request.query_params
        back = query.get("redirect_uri", "")
        if not _returns(back):
            return await self._nowhere(request)
        request_id = _guid(query.get("client-request-id", ""))
        try:
            if query.get("api-version") != "1.0":
                return _answer(back, request_id, _refused("invalid_request", "api-version"))
            if query.get("client-request-id") and not request_id:
                return _answer(back, "", _refused("invalid_request", "client-request-id"))
            return await self._show(request, back, request_id)
        except AppError as error:
            known = error.kind in {Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.CONFLICT}
            word = "unauthorized_client" if known else "server_error"
            log.info("terms of use refused", code=error.code, reason=error.message)
            if not known:
                # What is missing here is not the business of whoever asks.
                return _answer(back, request_id, _refused(word, ""))
            return _answer(back, request_id, {"error": word, "error_description": error.message})
        except Exception:
            log.exception("terms of use failed")
            return _answer(back, request_id, _refused("server_error", ""))

    async def _show(self, request: Request, back: str, request_id: str) -> Response:
        credential = soap.Credential("token", soap.JWT_TYPE, _bearer(request))
        now = self._enrollment.now()
        async with self._db.transaction() as tx:
            proof = await self._enrollment.credentials.of_token(tx, credential)
            if proof.way is not Way.DIRECTORY:
                raise oidc.BadToken("Terms are shown to whoever brings the directory's token.")
            await self._enrollment.may(tx, proof)
            chosen = await store.options(tx)
            here = await directory.tenant(tx)
        # A device that joins cannot do without: the join fails with the enrolment (section 9).
        optional = request.query_params.get("mode", "").lower() != "azureadjoin"
        until = int((now + _PAGE_LIFE).timestamp())
        asked = Asked(
            proof.object_id, proof.upn, back, request_id, chosen.terms_sha256, until, optional
        )
        return pages.terms(
            request,
            here.display_name,
            chosen,
            action=request.url.path,
            ctx=seal(self._enrollment.box, asked, _PAGE),
            optional=optional,
            target=back,
        )

    async def decide(self, request: Request) -> Response:
        form = await pages.form(request)
        now = self._enrollment.now()
        asked = unseal(self._enrollment.box, form.get("ctx", ""), _PAGE, Asked)
        if asked is None or asked.until <= now.timestamp():
            return await self._nowhere(
                request, "The page is no longer valid, or came from another browser."
            )
        yes = form.get("decision") == "accept"
        if not yes and not asked.optional:
            return _answer(asked.redirect_uri, asked.request_id, _refused("invalid_request", ""))
        where = oidc.peer_of(request).address
        try:
            async with self._db.transaction() as tx:
                await accepted(
                    tx,
                    asked.user_id,
                    asked.upn,
                    asked.terms,
                    "directory",
                    now,
                    yes=yes,
                    address=where,
                )
        except AppError as error:
            log.warning("terms of use not recorded", code=error.code, reason=error.message)
            return _answer(asked.redirect_uri, asked.request_id, _refused("server_error", ""))
        answer = {"IsAccepted": "false"}
        if yes:
            until = int((now + _BLOB_LIFE).timestamp())
            blob = Accepted(asked.user_id, asked.terms, until)
            answer = {
                "IsAccepted": "true",
                "OpaqueBlob": seal(self._enrollment.box, blob, _BLOB),
            }
        return _answer(asked.redirect_uri, asked.request_id, answer)

    async def _nowhere(
        self, request: Request, why: str = "The address to return to is not one of Windows."
    ) -> Response:
        said, then = "This device was not enrolled", "Close this window and enrol the device again."
        return pages.told(request, "", said, then, why=why, status=400)


def _returns(uri: str) -> bool:
    return bool(_RETURN.fullmatch(uri)) and not _NEVER.search(uri)


def _guid(text: str) -> str:
    try:
        return str(uuid.UUID(text.strip()))
    except ValueError:
        return ""


def _bearer(request: Request) -> bytes:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip().encode() if scheme.lower() == "bearer" else b""


def _refused(word: str, parameter: str) -> dict[str, str]:
    texts = {
        "invalid_request": f"The parameter {parameter} is missing or not supported."
        if parameter
        else "The terms of use cannot be declined when a device joins.",
        "server_error": "The service cannot answer now.",
    }
    return {"error": word, "error_description": texts[word]}


def _answer(back: str, request_id: str, values: Mapping[str, str]) -> Response:
    more = {"client-request-id": request_id} if request_id else {}
    mark = "&" if "?" in back else "?"
    return oidc.pages.redirect(back + mark + urlencode({**values, **more}))
