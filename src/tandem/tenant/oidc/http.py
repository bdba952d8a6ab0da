"""The edge of the sign-in authority: pages, OAuth answers, metadata, and the device join."""

import re
import uuid
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from tandem import audit
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import Unsealable
from tandem.tenant import directory
from tandem.tenant.oidc import catalogue, flows, pages, store
from tandem.tenant.oidc.join import JoinRequest, join
from tandem.tenant.oidc.model import AADSTS, NUMBER_OF, BadToken, OAuthError, Request
from tandem.tenant.oidc.tokens import Tokens

T = TypeVar("T")

COOKIE = "tandem_sign_in"
_FORM_LIMIT = 64 * 1024
_CONTEXT = "oidc.sign-in"
_JOIN_PATH = re.compile(r"^/EnrollmentServer/device/?$", re.IGNORECASE)
_PATH = re.compile(
    r"^/([^/]+)/(v2\.0/\.well-known/openid-configuration|\.well-known/openid-configuration|"
    r"discovery/v2\.0/keys|discovery/keys|oauth2/v2\.0/authorize|oauth2/authorize|"
    r"oauth2/v2\.0/token|oauth2/token|oauth2/v2\.0/logout|oauth2/login|oauth2/consent)/?$",
    re.IGNORECASE,
)


class Transit(msgspec.Struct, frozen=True):
    """What the pages hand from one to the next, sealed, and bound to the browser's cookie."""

    request: Request
    browser: str
    until: int
    user_id: str = ""
    signed_in_at: float = 0


class AuthorityRoute(BaseRoute):
    """Everything of the authority below /{tenant}/, in any case."""

    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        now: Clock,
        passwords: directory.DirectorySettings,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._now = now
        self._passwords = passwords

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = scope["type"] == "http" and (
            _PATH.match(scope["path"]) or _JOIN_PATH.match(scope["path"])
        )
        return (Match.FULL, {}) if found else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HttpRequest(scope, receive)
        if _JOIN_PATH.match(request.url.path):
            response = await self._join(request)
        else:
            response = await self._serve(request)
        await response(scope, receive, send)

    async def _serve(self, request: HttpRequest) -> Response:
        found = _PATH.match(request.url.path)
        assert found is not None
        name, place = found[1], found[2].lower()
        page = place.endswith("authorize") or place in ("oauth2/login", "oauth2/consent")
        try:
            async with self._database.transaction() as tx:
                here = await self._tenant(tx, name)
            match request.method, place:
                case "GET", "v2.0/.well-known/openid-configuration":
                    return http.reply(self._metadata(name, here.id, 2))
                case "GET", ".well-known/openid-configuration":
                    return http.reply(self._metadata(name, here.id, 1))
                case "GET", "discovery/v2.0/keys" | "discovery/keys":
                    async with self._database.transaction() as tx:
                        keys = await self._tokens.jwks(tx)
                    return http.reply(keys, headers={"Cache-Control": "max-age=300"})
                case "GET", "oauth2/v2.0/authorize" | "oauth2/authorize":
                    return await self._authorize(request, here)
                case "POST", "oauth2/login":
                    return await self._login(request, here)
                case "POST", "oauth2/consent":
                    return await self._consent(request, here)
                case "POST", "oauth2/v2.0/token" | "oauth2/token":
                    return await self._token(request, v1=place == "oauth2/token")
                case "GET", "oauth2/v2.0/logout":
                    return pages.page(
                        "error", tenant=here.display_name, error="You are signed out."
                    )
            raise OAuthError(90100, f"{request.method} is not served here.", cure="Use another.")
        except AppError as error:
            if page:
                return self._error_page(error)
            return self._refusal(request, error)

    async def _tenant(self, tx: Tx, name: str) -> directory.Tenant:
        here = await directory.tenant(tx)
        if name.lower() in (here.id, *here.domains, "common", "organizations"):
            return here
        raise OAuthError(
            90002,
            f"Tenant '{name[:80]}' not found. Check to make sure you have the correct tenant ID.",
            cure=f"This server holds the tenant {here.default_domain}.",
        )

    def _metadata(self, name: str, tenant_id: str, version: int) -> dict[str, Any]:
        base = f"{self._tokens.settings.base}/{tenant_id}"
        if name.lower() in ("common", "organizations"):
            base = f"{self._tokens.settings.base}/{name.lower()}"
        v2 = "v2.0/" if version == 2 else ""
        issuer = self._tokens.issuer(
            "{tenantid}" if name.lower() in ("common", "organizations") else tenant_id, version
        )
        return {
            "issuer": issuer,
            "authorization_endpoint": f"{base}/oauth2/{v2}authorize",
            "token_endpoint": f"{base}/oauth2/{v2}token",
            "device_authorization_endpoint": f"{base}/oauth2/{v2}devicecode",
            "jwks_uri": f"{base}/discovery/{v2}keys",
            "end_session_endpoint": f"{base}/oauth2/v2.0/logout",
            "userinfo_endpoint": f"{self._tokens.settings.base}/oidc/userinfo",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "grant_types_supported": [
                "authorization_code",
                "refresh_token",
                "client_credentials",
                flows.DEVICE_GRANT,
            ],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "name", "oid", "tid"],
            "tenant_region_scope": None,
            "cloud_instance_name": re.sub(r"^https?://", "", self._tokens.settings.base),
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": re.sub(r"^https?://", "", self._tokens.settings.base),
        }

    # ------------------------------------------------------------------ pages

    async def _authorize(self, request: HttpRequest, here: directory.Tenant) -> Response:
        query = _pairs(request.url.query.encode())
        async with self._database.transaction() as tx:
            asked = await flows.check_client(tx, query)
            client, _ = await flows.client_of(tx, asked.app_id)
            try:
                await flows.check_request(tx, asked, query)
            except OAuthError as error:
                return pages.answer(asked, _error_fields(error), here.display_name)
        browser = request.cookies.get(COOKIE, "") or uuid.uuid4().hex
        until = int(self._now().timestamp()) + self._tokens.settings.sign_in_seconds
        response = self._login_page(
            here, Transit(asked, browser, until), client.display_name, asked.login_hint
        )
        response.set_cookie(
            COOKIE,
            browser,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
        return response

    def _login_page(
        self,
        here: directory.Tenant,
        transit: Transit,
        client: str,
        login: str = "",
        error: str = "",
        status: int = 200,
    ) -> Response:
        return pages.page(
            "login",
            status=status,
            target=transit.request.redirect_uri,
            tenant=here.display_name,
            action=f"/{here.id}/oauth2/login",
            ctx=self._seal(transit),
            client=client,
            login=login,
            error=error,
        )

    async def _login(self, request: HttpRequest, here: directory.Tenant) -> Response:
        form = await _form(request)
        transit = self._open(request, form)
        now = self._now()
        login, password = form.get("login", "").strip(), form.get("passwd", "")
        async with self._database.transaction() as tx:
            client, _ = await flows.client_of(tx, transit.request.app_id)
            user = await directory.authenticate(tx, login, password, now, self._passwords)
            await audit.record(
                tx,
                actor=f"user:{login[:200]}",
                action="sign in",
                target=client.app_id,
                outcome="refused" if isinstance(user, AppError) else "done",
                now=now,
            )
        if isinstance(user, AppError):
            number = NUMBER_OF[user.kind]
            text = f"AADSTS{number}: {user.message} {user.cure}"
            status = 429 if user.kind is Kind.RATE_LIMITED else 400
            return self._login_page(here, transit, client.display_name, login, text, status)
        async with self._database.transaction() as tx:
            try:
                missing = await flows.consent_needed(tx, transit.request, user)
            except OAuthError as error:
                return pages.answer(transit.request, _error_fields(error), here.display_name)
            if missing is None:
                return await self._hand_over(tx, transit.request, user, now, here)
            roles = await directory.roles_of(tx, user.id)
        if not flows.may_consent(missing, roles):
            needed = OAuthError(
                90094,
                f"{client.display_name} needs permission to {', '.join(missing.missing)} that "
                "only an administrator can grant.",
                cure="Ask a Global Administrator to grant admin consent.",
            )
            return pages.answer(transit.request, _error_fields(needed), here.display_name)
        onward = msgspec.structs.replace(transit, user_id=user.id, signed_in_at=now.timestamp())
        return pages.page(
            "consent",
            target=transit.request.redirect_uri,
            tenant=here.display_name,
            action=f"/{here.id}/oauth2/consent",
            ctx=self._seal(onward),
            client=client.display_name,
            resource=missing.resource.display_name,
            scopes=missing.missing,
            upn=user.user_principal_name,
            administrator=directory.GLOBAL_ADMINISTRATOR in roles,
        )

    async def _consent(self, request: HttpRequest, here: directory.Tenant) -> Response:
        form = await _form(request)
        transit = self._open(request, form)
        if not transit.user_id:
            raise OAuthError(16000, "Nobody has signed in here.", cure="Start again.")
        if form.get("decision") != "accept":
            declined = OAuthError(
                65004, "User declined to consent to access the app.", cure="Accept, to use it."
            )
            return pages.answer(transit.request, _error_fields(declined), here.display_name)
        now = self._now()
        signed_in_at = datetime.fromtimestamp(transit.signed_in_at, UTC)
        try:
            async with self._database.transaction() as tx:
                user = await directory.user(tx, transit.user_id)
                missing = await flows.consent_needed(tx, transit.request, user)
                if missing is not None:
                    everybody = form.get("everybody") == "1"
                    await flows.accept(tx, missing, user, now, everybody=everybody)
                return await self._hand_over(tx, transit.request, user, signed_in_at, here)
        except OAuthError as error:
            return pages.answer(transit.request, _error_fields(error), here.display_name)

    async def _hand_over(
        self,
        tx: Tx,
        asked: Request,
        user: directory.User,
        signed_in_at: datetime,
        here: directory.Tenant,
    ) -> Response:
        now = self._now()
        code = await flows.issue_code(tx, self._tokens, asked, user, signed_in_at, now)
        fields = [("code", code)]
        if asked.client_info:
            info = msgspec.json.encode({"uid": user.id, "utid": here.id})
            fields.append(("client_info", urlsafe_b64encode(info).rstrip(b"=").decode()))
        return pages.answer(asked, fields, here.display_name)

    def _seal(self, transit: Transit) -> str:
        sealed = self._tokens.box.seal(msgspec.json.encode(transit), _CONTEXT)
        return urlsafe_b64encode(sealed).decode()

    def _open(self, request: HttpRequest, form: dict[str, str]) -> Transit:
        """The sealed state of the form, which has to come from the browser that got the page."""
        stale = OAuthError(
            16000,
            "The sign-in page is no longer valid, or came from another browser.",
            cure="Go back to the application and start again; cookies have to be allowed.",
        )
        try:
            sealed = urlsafe_b64decode(form.get("ctx", ""))
            transit = msgspec.json.decode(self._tokens.box.unseal(sealed, _CONTEXT), type=Transit)
        except (ValueError, Unsealable, msgspec.DecodeError):
            raise stale from None
        if request.cookies.get(COOKIE, "") != transit.browser:
            raise stale
        if transit.until < self._now().timestamp():
            raise stale
        return transit

    def _error_page(self, error: AppError) -> Response:
        refusal = spoken(error)
        text = f"AADSTS{refusal.number}: {refusal.message} {refusal.cure}"
        return pages.page("error", status=refusal.status, tenant="", error=text)

    # ------------------------------------------------------------------ tokens

    async def _token(self, request: HttpRequest, *, v1: bool) -> Response:
        form = await _form(request)
        now = self._now()
        async with self._database.transaction() as tx:
            answer = await flows.token(tx, self._tokens, form, _basic(request), now)
        if isinstance(answer, flows.Denied):
            return self._refusal(request, answer.error)
        if v1:
            issued = int(now.timestamp())
            seconds = answer["expires_in"]
            answer |= {
                "expires_in": str(seconds),
                "ext_expires_in": str(seconds),
                "expires_on": str(issued + seconds),
                "not_before": str(issued),
                "resource": form.get("resource", ""),
            }
        return http.reply(answer, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})

    def _refusal(self, request: HttpRequest, error: AppError) -> Response:
        refusal = spoken(error)
        trace = str(uuid.uuid4())
        correlation = request.headers.get("client-request-id", "")[:64] or str(uuid.uuid4())
        at = self._now().astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        body: dict[str, Any] = {
            "error": refusal.error,
            "error_description": (
                f"AADSTS{refusal.number}: {refusal.message} {refusal.cure} Trace ID: {trace} "
                f"Correlation ID: {correlation} Timestamp: {at}"
            ),
            "error_codes": [refusal.number],
            "timestamp": at,
            "trace_id": trace,
            "correlation_id": correlation,
        }
        if refusal.suberror:
            body["suberror"] = refusal.suberror
        headers = {"Cache-Control": "no-store"}
        if refusal.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="token"'
        return http.reply(body, refusal.status, headers)

    # ------------------------------------------------------------------ join

    async def _join(self, request: HttpRequest) -> Response:
        """Refusals here are in the shape of our own APIs."""
        try:
            if request.method != "POST":
                raise http.WrongMethod("Devices join with POST.", cure="Use POST.")
            sort, _, token = request.headers.get("authorization", "").partition(" ")
            if sort.lower() != "bearer":
                raise BadToken("There is no access token.", cure="Sign in first.")
            asked = await http.decode(request, JoinRequest)
            now = self._now()
            async with self._database.transaction() as tx:
                service = await store.application(tx, app_id=catalogue.DEVICE_REGISTRATION)
                assert service is not None
                audiences = (service.app_id, service.uri)
                claims = await self._tokens.verify(tx, token.strip(), now, audiences)
                answer = await join(tx, self._tokens, claims, asked, now, self._passwords)
            return http.reply(answer)
        except AppError as error:
            return http.problem_json(request, error)


def spoken(error: AppError) -> OAuthError:
    """Any refusal in the authority's vocabulary."""
    if isinstance(error, OAuthError):
        return error
    return OAuthError(NUMBER_OF[error.kind], error.message, cure=error.cure)


def _error_fields(error: OAuthError) -> list[tuple[str, str]]:
    number = error.number
    word = {65001: "consent_required"}.get(number, AADSTS[number][0])
    text = f"AADSTS{number}: {error.message} {error.cure}".strip()
    return [("error", word), ("error_description", text)]


async def _form(request: HttpRequest) -> dict[str, str]:
    raw = await http.body(request, _FORM_LIMIT)
    return _pairs(raw)


def _pairs(raw: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=100, errors="strict")
        if not any("\0" in name + value for name, value in pairs):
            return dict(pairs)
        raise ValueError("a NUL character")
    except (ValueError, UnicodeDecodeError):
        raise OAuthError(
            90100, "The form cannot be read.", cure="Send a URL-encoded form."
        ) from None


def _basic(request: HttpRequest) -> tuple[str, str] | None:
    sort, _, value = request.headers.get("authorization", "").partition(" ")
    if sort.lower() != "basic":
        return None
    try:
        name, colon, secret = b64decode(value, validate=True).decode().partition(":")
    except (ValueError, UnicodeDecodeError):
        return None
    return (unquote_plus(name), unquote_plus(secret)) if colon else None


def routes(
    database: Database,
    tokens: Tokens,
    now: Clock,
    passwords: directory.DirectorySettings | None = None,
) -> list[BaseRoute]:
    """The authority's endpoints, the sign-in pages, and POST /EnrollmentServer/device/."""
    return [AuthorityRoute(database, tokens, now, passwords or directory.DirectorySettings())]
