"""The edge of the sign-in authority: which path is what, forms in, pages and OAuth answers out."""

import asyncio
import re
import uuid
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import AppError
from tandem.tenant import directory
from tandem.tenant.oidc import authorize, catalogue, grants, metadata, pages, sign_ins, store
from tandem.tenant.oidc.consent import client_of
from tandem.tenant.oidc.interaction import Interaction
from tandem.tenant.oidc.join import JoinRequest, join
from tandem.tenant.oidc.model import BadToken, Peer
from tandem.tenant.oidc.refusals import OAuthError, body_of, spoken
from tandem.tenant.oidc.session_store import SignIn
from tandem.tenant.oidc.tokens import Tokens, pairwise

Form = dict[str, str]

_FORM_LIMIT = 64 * 1024
_TENANT_READ_AGAIN = timedelta(seconds=10)
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

_JOIN = "enrollmentserver/device"
# Paths without a tenant, and what may follow /{tenant}/. All in lower case, without end slash.
_FIXED = {
    "common/discovery/instance": "instance",
    "common/oauth2/deviceauth": "devicelogin",
    "common/oauth2/nativeclient": "nativeclient",
    "devicelogin": "devicelogin",
    "metadata/endpoints": "cloud",
    "oidc/userinfo": "userinfo",
    _JOIN: "join",
}
_BELOW_TENANT = {
    "v2.0/.well-known/openid-configuration": "metadata2",
    ".well-known/openid-configuration": "metadata1",
    "discovery/v2.0/keys": "keys",
    "discovery/keys": "keys",
    "oauth2/v2.0/authorize": "authorize",
    "oauth2/authorize": "authorize",
    "oauth2/v2.0/token": "token",
    "oauth2/token": "token1",
    "oauth2/v2.0/devicecode": "devicecode",
    "oauth2/devicecode": "devicecode1",
    "oauth2/v2.0/logout": "logout",
    "oauth2/logout": "logout",
    "oauth2/login": "login",
    "oauth2/pick": "pick",
    "oauth2/password": "password",
    "oauth2/consent": "consent",
    "oauth2/device": "device",
    "oauth2/confirm": "confirm",
}
_PAGES = frozenset(
    {"authorize", "logout", "login", "pick", "password", "consent"}
    | {"device", "confirm", "devicelogin", "nativeclient"}
)
_REALM = "common/userrealm/"
_SORTS = {
    "client_credentials": "app",
    "refresh_token": "refresh",
    "password": "password",
    "device_code": "device-code",
    grants.DEVICE_CODE_GRANT: "device-code",
    grants.DEVICE_GRANT: "device",
}
_PENDING = (70016, 70021)


def place_of(path: str) -> tuple[str, str] | None:
    """What a path is, and the tenant (or user) that it names. Clients double slashes, end with
    them, and vary the case."""
    bare = re.sub(r"/{2,}", "/", path).strip("/")
    low = bare.lower()
    if low in _FIXED:
        return _FIXED[low], "common"
    if low.startswith(_REALM):
        return "userrealm", bare[len(_REALM) :]
    name, _, rest = bare.partition("/")
    place = _BELOW_TENANT.get(rest.lower())
    return (place, name) if place else None


class AuthorityRoute(BaseRoute):
    """Everything of the authority, and the join of devices."""

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
        self._pages = Interaction(database, tokens, now, passwords)
        self._here: directory.Tenant | None = None
        self._read_at: datetime | None = None
        self._writing: set[asyncio.Task[None]] = set()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        found = place_of(scope["path"])
        return (Match.FULL, {"authority": found}) if found else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        place, name = scope["authority"]
        if place == "join":
            response = await self._join(request)
        else:
            response = await self._serve(request, place, name)
        await response(scope, receive, send)

    async def _serve(self, request: Request, place: str, name: str) -> Response:
        page = place in _PAGES
        try:
            if place == "userrealm":
                return await self._userrealm(name)
            here = await self._tenant(name)
            if request.method == "GET":
                return await self._get(request, place, name, here)
            if request.method == "POST":
                return await self._post(request, place, here)
            raise _wrong_method(request)
        except AppError as error:
            if page:
                return self._pages.error_page(request, error)
            return self._refusal(request, error)

    async def _get(
        self, request: Request, place: str, name: str, here: directory.Tenant
    ) -> Response:
        settings, host = self._tokens.settings, request.headers.get("host", "")
        match place:
            case "metadata2" | "metadata1":
                version = 2 if place == "metadata2" else 1
                document = metadata.openid_configuration(settings, host, name, here.id, version)
                return http.reply(document)
            case "keys":
                async with self._database.transaction() as tx:
                    keys = await self._tokens.jwks(tx)
                return http.reply(keys, headers={"Cache-Control": "max-age=300"})
            case "instance":
                version_asked = request.query_params.get("api-version", "1.0")[:10]
                return http.reply(metadata.instance(settings, version_asked))
            case "cloud":
                return http.reply(metadata.cloud(settings, host))
            case "userinfo":
                return await self._userinfo(request)
            case "authorize":
                query = _pairs(request.url.query.encode())
                return await self._pages.authorize(request, query, peer_of(request), here)
            case "devicelogin":
                query = _pairs(request.url.query.encode())
                code = query.get("user_code") or query.get("otc", "")
                return self._pages.device_page(request, here, code)
            case "nativeclient":
                return pages.page("said", tenant=here.display_name, said="Signed in", more="")
            case "logout":
                query = _pairs(request.url.query.encode())
                return await self._pages.sign_out(request, query, here)
        raise _wrong_method(request)

    async def _post(self, request: Request, place: str, here: directory.Tenant) -> Response:
        if place == "userinfo":
            return await self._userinfo(request)
        form, peer = await form_of(request), peer_of(request)
        match place:
            case "token" | "token1":
                return await self._token(request, form, peer, v1=place == "token1")
            case "devicecode" | "devicecode1":
                return await self._device_code(request, form, v1=place == "devicecode1")
            case "authorize":
                return await self._pages.authorize(request, form, peer, here)
            case "login":
                return await self._pages.login(request, form, peer, here)
            case "pick":
                return await self._pages.pick(request, form, peer, here)
            case "password":
                return await self._pages.change_password(request, form, peer, here)
            case "consent":
                return await self._pages.consent(request, form, peer, here)
            case "device":
                return await self._pages.device(request, form, peer, here)
            case "confirm":
                return await self._pages.confirm(request, form, peer, here)
            case "logout":
                return await self._pages.sign_out(request, form, here)
        raise _wrong_method(request)

    async def _tenant(self, name: str) -> directory.Tenant:
        """The tenant, read again every few seconds or for a name that is not known."""
        now = self._now()
        here = self._here
        fresh = self._read_at is not None and timedelta() <= now - self._read_at
        if here is None or not fresh or now - self._read_at > _TENANT_READ_AGAIN:  # type: ignore[operator]
            here = await self._read_tenant(now)
        low = name.lower()
        if low in metadata.ANY_TENANT or low == here.id:
            return here
        if low not in here.domains:
            here = await self._read_tenant(now)
        if low in here.domains:
            return here
        raise OAuthError(
            90002,
            f"Tenant '{name[:80]}' not found. Check to make sure you have the correct tenant ID.",
            cure=f"This server holds the tenant {here.default_domain}.",
        )

    async def _read_tenant(self, now: datetime) -> directory.Tenant:
        async with self._database.transaction() as tx:
            here = await directory.tenant(tx)
        self._here, self._read_at = here, now
        return here

    # ------------------------------------------------------------------ tokens

    async def _token(self, request: Request, form: Form, peer: Peer, *, v1: bool) -> Response:
        ask = grants.asking(
            self._tokens, form, _basic(request), peer, self._now(), self._passwords, v1=v1
        )
        async with self._database.apart() as tx:
            usual = await grants.app_token(tx, ask)
        if usual is not None:
            await self._log_later(usual.entry)
            return self._issued(request, ask, usual.answer)
        try:
            async with self._database.transaction() as tx:
                outcome = await grants.token(tx, ask)
                if isinstance(outcome, grants.Issued) and outcome.entry.sort != "interactive":
                    # An interactive one was logged when the browser was sent back.
                    await sign_ins.record(tx, outcome.entry)
        except OAuthError as error:
            outcome = grants.Denied(error)
        if isinstance(outcome, grants.Issued):
            return self._issued(request, ask, outcome.answer)
        await self._log_refusal(ask, outcome)
        return self._refusal(request, outcome.error)

    def _issued(self, request: Request, ask: grants.Asking, answer: dict[str, Any]) -> Response:
        if ask.v1:
            issued = int(ask.now.timestamp())
            seconds = answer["expires_in"]
            answer |= {
                "expires_in": str(seconds),
                "ext_expires_in": str(seconds),
                "expires_on": str(issued + seconds),
                "not_before": str(issued),
                "resource": ask.form.get("resource", ""),
            }
        return http.reply(answer, headers={**_NO_STORE, **traced(request)[2]})

    async def _log_later(self, entry: SignIn) -> None:
        waiting, delay = self._tokens.waiting, self._tokens.settings.sign_in_log_delay_seconds
        first = waiting.add(entry)
        if delay <= 0:
            await waiting.write(self._database)
        elif first:
            asyncio.get_running_loop().call_later(delay, self._write)

    def _write(self) -> None:
        task = asyncio.create_task(self._tokens.waiting.write(self._database))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _log_refusal(self, ask: grants.Asking, denied: grants.Denied) -> None:
        error = denied.error
        if error.number in _PENDING:
            return
        values = {
            "number": error.number,
            "reason": error.message[:500],
            "upn": ask.form.get("username", "")[:320],
        }
        entry = denied.entry or sign_ins.entry(
            _SORTS.get(ask.form.get("grant_type", ""), "interactive"),
            ask.form.get("client_id", "")[:80].lower(),
            ask.peer,
            ask.now,
        )
        if denied.entry is not None:
            del values["upn"]
        async with self._database.transaction() as tx:
            await sign_ins.record(tx, sign_ins.changed(entry, values))

    async def _device_code(self, request: Request, form: Form, *, v1: bool) -> Response:
        now, settings = self._now(), self._tokens.settings
        base = metadata.base_of(settings, request.headers.get("host", ""))
        scope = form.get("scope", "")
        if form.get("resource"):
            scope = form["resource"].rstrip("/") + "/.default openid offline_access"
        async with self._database.transaction() as tx:
            client, _ = await client_of(tx, authorize.need(form, "client_id"))
            device_code, user_code = await authorize.begin_device(
                tx, self._tokens, client, scope, now
            )
        page = f"{base}/devicelogin"
        answer: dict[str, Any] = {
            "user_code": user_code,
            "device_code": device_code,
            "verification_uri": page,
            "expires_in": settings.device_code_seconds,
            "interval": settings.device_code_interval_seconds,
            "message": f"To sign in, use a web browser to open the page {page} and enter the code "
            f"{user_code} to authenticate.",
        }
        if v1:
            answer["verification_url"] = answer.pop("verification_uri")
            for name in ("expires_in", "interval"):
                answer[name] = str(answer[name])
        return http.reply(answer, headers=_NO_STORE)

    def _refusal(self, request: Request, error: AppError) -> Response:
        return refusal(request, error, self._now())

    # ------------------------------------------------------------------ about users

    async def _userrealm(self, login: str) -> Response:
        here = await self._tenant("common")
        known = login.rpartition("@")[2].lower() in here.domains
        return http.reply(metadata.user_realm(self._tokens.settings, login[:320], known))

    async def _userinfo(self, request: Request) -> Response:
        """OpenID Connect Core 5.3, for the token of Graph that the client holds anyway."""
        sort, _, token = request.headers.get("authorization", "").partition(" ")
        headers = {**_NO_STORE, "WWW-Authenticate": 'Bearer error="invalid_token"'}
        try:
            if sort.lower() != "bearer" or not token.strip():
                raise BadToken("There is no access token.", cure="Send one as a bearer.")
            async with self._database.transaction() as tx:
                claims = await self._tokens.verify_graph(tx, token.strip(), self._now())
                user = await directory.find_user(tx, claims.object_id)
            if claims.sort != "user" or user is None or not user.account_enabled:
                raise BadToken("It is not the token of a user.", cure="Sign in as a user.")
        except BadToken as error:
            body = {"error": "invalid_token", "error_description": error.message}
            return http.reply(body, 401, headers)
        values = {
            "sub": pairwise(user.id, claims.app_id),
            "name": user.display_name,
            "given_name": user.profile.get("givenName"),
            "family_name": user.profile.get("surname"),
            "email": user.profile.get("mail") or user.user_principal_name,
        }
        found = {name: value for name, value in values.items() if value}
        return http.reply(found, headers=_NO_STORE)

    # ------------------------------------------------------------------ join

    async def _join(self, request: Request) -> Response:
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


def _wrong_method(request: Request) -> OAuthError:
    return OAuthError(
        900491, f"{request.method} is not served here.", cure="Use the method of the standard."
    )


def refusal(request: Request, error: AppError, now: datetime) -> Response:
    """Any refusal in the shape of the token endpoint."""
    said = spoken(error)
    trace, correlation, headers = traced(request)
    at = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    body = body_of(said, trace, correlation, at)
    headers = {**headers, **_NO_STORE}
    if said.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="token"'
    if said.retry_after_seconds:
        headers["Retry-After"] = str(said.retry_after_seconds)
    return http.reply(body, said.status, headers)


def traced(request: Request) -> tuple[str, str, dict[str, str]]:
    """Trace id, correlation id, and the headers that carry them; once a request."""
    known: tuple[str, str, dict[str, str]] | None = request.scope.get("traced")
    if known is not None:
        return known
    trace = str(uuid.uuid4())
    given = request.headers.get("client-request-id", "")
    correlation = given if re.fullmatch(r"[A-Za-z0-9-]{1,64}", given) else trace
    headers = {"x-ms-request-id": trace, "client-request-id": correlation}
    request.scope["traced"] = trace, correlation, headers
    return trace, correlation, headers


def peer_of(request: Request) -> Peer:
    """Where a request comes from, for limits and the sign-in log."""
    address = request.client.host if request.client else ""
    agent = request.headers.get("x-client-sku") or request.headers.get("user-agent", "")
    return Peer(address, re.sub(r"[^\x20-\x7e]", "", agent)[:200], traced(request)[1])


async def form_of(request: Request) -> Form:
    return _pairs(await http.body(request, _FORM_LIMIT))


def _pairs(raw: bytes) -> Form:
    """A form or query. A parameter that comes twice (RFC 6749, 3.1) would mean one thing to us and
    another to whoever looked at it before, so it is refused."""
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=100, errors="strict")
    except (ValueError, UnicodeDecodeError):
        pairs = [("", "\0")]
    if any("\0" in name + value for name, value in pairs):
        raise OAuthError(90100, "The form cannot be read.", cure="Send a URL-encoded form.")
    found = dict(pairs)
    if len(found) != len(pairs):
        raise OAuthError(90100, "A parameter is there twice.", cure="Send each once.")
    return found


def _basic(request: Request) -> tuple[str, str] | None:
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
