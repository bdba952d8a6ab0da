"""Talking to the management point: tokens, signatures, refusals, what is worth a second try."""

import re
import secrets
import ssl
from base64 import b64encode, urlsafe_b64decode
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal, TypeVar

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem import pki
from tandem.agent.folder import Folder, device_key, token_box
from tandem.agent.journal import ERROR, WARNING, Journal
from tandem.agent.platform import Machine, NoToken
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import Unsealable
from tandem.protocols import ccm

T = TypeVar("T")

Account = Literal["device", "user"]

# How far a device's clock may be off before the site refuses what it signs.
_SKEW = timedelta(minutes=5)

# The name under which the machine's own token is cached, and what the log calls a user's.
_CONTENT_PATH = re.compile(rb"/CCM_Content/[0-9a-f]{64}")
_SID = {"device": "S-1-5-18", "user": "S-1-5-21-0-0-0-1001"}
_CONTEXT = "agent.ccm-token"
_SITE_TOKEN = "site-token"  # noqa: S105 - the name of a file.
_TO_REGISTER = (
    "Join the device to the directory, or run ccmsetup with a bulk registration token of the site:"
    " /regtoken:<token>."
)


class Unreachable(AppError):
    """Nothing is wrong with the request; another time it may succeed."""

    kind, code = Kind.UNAVAILABLE, "agent.unreachable"


class Refused(AppError):
    """The gateway or the management point says no. `reason` is its own code."""

    kind, code = Kind.FORBIDDEN, "agent.refused"

    def __init__(self, message: str, *, cure: str = "", status: int, reason: str) -> None:
        super().__init__(message, cure=cure, status=status, reason=reason)
        self.status = status
        self.reason = reason


class NotOnboarded(AppError):
    """The gateway knows nothing of this device's tenant."""

    kind, code = Kind.FORBIDDEN, "agent.tenant-not-onboarded"


class NoCertificate(NoToken):
    """The machine was told to use a client certificate, and has none."""

    code = "agent.no-certificate"


class Connection(msgspec.Struct, frozen=True):
    """Where the management point is, and which app of the directory stands for the site."""

    host: str
    info: ccm.AuthInfo
    # Whether the client certificate speaks for this machine (/UsePKICert).
    certificate: bool = False

    @property
    def base(self) -> str:
        return ccm.authentication_bases(self.host)[0]


class _Cached(msgspec.Struct, frozen=True):
    """`user` is who was signed in when a user's token was given, `object_id` who that is by the
    directory's own word."""

    token: str
    expires_at: datetime
    user: str = ""
    object_id: str = ""


class _SiteToken(msgspec.Struct, frozen=True):
    """The site's own token of a client that no directory knows."""

    token: str
    made_at: datetime
    renew_at: datetime
    expires_at: datetime


def has_site_token(folder: Folder) -> bool:
    return folder.read(_SITE_TOKEN) is not None


class Session:
    """Signed requests of one device to one management point."""

    def __init__(
        self, machine: Machine, folder: Folder, connection: Connection, journal: Journal, log: str
    ) -> None:
        self._machine = machine
        self._folder = folder
        self._connection = connection
        self._journal = journal
        self._component = log
        self._box = token_box(folder)
        self.key = device_key(folder)
        self.client_id = ""
        self._worthless: bytes | None = None
        # Base URL of the intranet's management point, when the gateway is not to be used.
        self.intranet = ""
        self._registration_token = ""
        self._stale = False

    @property
    def base(self) -> str:
        return self.intranet.rstrip("/") or self._connection.base

    async def get(
        self,
        target: str,
        *,
        headers: dict[str, str] | None = None,
        account: Account = "device",
        base: str = "",
    ) -> httpx.Response:
        """`base`: of another site system than the management point."""
        return await self._request("GET", target, b"", headers or {}, account, base=base)

    async def post(
        self, target: str, value: msgspec.Struct, *, read_seconds: float | None = None
    ) -> httpx.Response:
        """`read_seconds`: how long the answer may take, where it is meant to take long."""
        headers = {"Content-Type": "application/json"}
        body = msgspec.json.encode(value)
        return await self._request("POST", target, body, headers, "device", read_seconds)

    async def open(self, target: str, headers: dict[str, str]) -> httpx.Response:
        """An answer whose body is still to be read; the caller closes it."""
        response = await self._opened(target, headers)
        if response.status_code == 401:
            # The token may have lost its worth before its time, and a download may be long.
            self._forget("device")
            self._stale = True
            response = await self._opened(target, headers)
        if response.status_code in (200, 206, 416):
            return response
        _check(response)
        raise Unreachable(f"The management point answered {response.status_code} to {target}.")

    async def open_source(
        self, source: ccm.ContentSource, headers: dict[str, str]
    ) -> httpx.Response:
        """Content at a gateway, still to be read; the caller closes it. Raises Refused, Unreachable."""
        url = httpx.URL(source.url)
        # Who answers may not be the site: the device signs nothing but a question for content.
        if url.scheme != "https" or not _CONTENT_PATH.fullmatch(url.raw_path):
            raise Unreachable("The management point names an address that is none of content.")
        base = f"{url.scheme}://{url.netloc.decode('ascii')}"
        request = self._signed("GET", url.path, b"", headers, source.token, base)
        response = await _answer(self._machine.http, request)
        if response.status_code in (200, 206, 416):
            return response
        _check(response)
        raise Unreachable(f"The gateway answered {response.status_code} to {url.path}.")

    async def _opened(self, target: str, headers: dict[str, str]) -> httpx.Response:
        """The answer, with its body still to be read only when it is content."""
        request = self._signed("GET", target, b"", headers, await self.token("device"))
        return await _answer(self._machine.http, request)

    def show(self, registration_token: str) -> None:
        """Ask the management point with this from now on, where there is no directory to ask. It is
        not kept."""
        self._registration_token = registration_token
        if registration_token:
            self._folder.remove("token-device")

    def keep_site_token(self, token: str, expires_in: int) -> None:
        """The site's own token, which stands in for a directory's from now on."""
        now = self._machine.now()
        life = timedelta(seconds=expires_in)
        fresh = _SiteToken(token, now, now + life / 3, now + life)
        self._folder.write(_SITE_TOKEN, self._box.seal(msgspec.json.encode(fresh), _CONTEXT))
        self._folder.remove("token-device")
        self._stale = False
        self._journal.write(
            self._component,
            f"Cached encrypted site token. Will be renewed at '{fresh.renew_at:%m/%d/%Y %H:%M:%S}',"
            f" will expire at '{fresh.expires_at:%m/%d/%Y %H:%M:%S}'",
        )

    async def take_new_key(self) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
        """A key of its own for this machine, and the sealed token that the site gives for it; this
        client's key vouches for it. Nothing is changed yet. Raises NoToken."""
        now, own = self._machine.now(), self._site_token()
        if own is None:
            raise NoToken("The site has given this device no token.", cure=_TO_REGISTER)
        key = pki.generate_key("p256")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        vouched = ccm.key_proof(self.key, pki.jwk_thumbprint(key), now, secrets.token_urlsafe(18))
        reply = await self._exchange(own.token, now, key, vouched)
        fresh = _Cached(reply.access_token, now + timedelta(seconds=reply.expires_in * 0.9))
        return key, self._box.seal(msgspec.json.encode(fresh), _CONTEXT)

    def forget_site_token(self) -> None:
        self._folder.remove(_SITE_TOKEN)

    async def _request(
        self,
        method: str,
        target: str,
        body: bytes,
        headers: dict[str, str],
        account: Account,
        read_seconds: float | None = None,
        base: str = "",
    ) -> httpx.Response:
        token = await self.token(account)
        response = await self._attempt(method, target, body, headers, token, read_seconds, base)
        if response.status_code == 401 and _reason(response) != "client.unknown":
            # The token may have lost its worth before its time: keys change, gateways restart.
            self._forget(account)
            self._stale = True
            token = await self.token(account)
            response = await self._attempt(method, target, body, headers, token, read_seconds, base)
        _check(response)
        return response

    async def _attempt(
        self,
        method: str,
        target: str,
        body: bytes,
        headers: dict[str, str],
        token: str,
        read_seconds: float | None,
        base: str = "",
    ) -> httpx.Response:
        request = self._signed(method, target, body, headers, token, base)
        if read_seconds is not None:
            request.extensions["timeout"] = {
                **request.extensions.get("timeout", {}),
                "read": read_seconds,
            }
        return await _send(self._machine.http, request)

    def _signed(
        self,
        method: str,
        target: str,
        body: bytes,
        headers: dict[str, str],
        token: str,
        base: str = "",
    ) -> httpx.Request:
        request = self._machine.http.build_request(
            method,
            f"{base or self.base}{target}",
            content=body or None,
            headers={**headers, "Authorization": f"Bearer {token}"},
        )
        # What is signed is what is sent, after the library has written the URL its way.
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        signature = ccm.sign_request(
            self.key,
            method=method,
            target=ccm.signed_target(path, query),
            body=body,
            client_id=self.client_id,
            now=self._machine.now(),
            nonce=secrets.token_urlsafe(18),
        )
        request.headers.update(signature)
        return request

    async def token(self, account: Account) -> str:
        """A CCM token with some life left: the cached one, or a new one."""
        now = self._machine.now()
        # Asked before the directory is: whoever signs in meanwhile has a token of their own.
        user = self._machine.directory.signed_in() if account == "user" else ""
        cached = self._cached(account)
        if cached is not None and cached.expires_at > now and cached.user == user:
            return cached.token
        no_directory = (
            self._connection.certificate
            or self._machine.directory.join() is None
            or not self._connection.info.resource_uri
        )
        if account == "device" and no_directory:
            return await self._without_directory(now)
        given = await self._directory_token(account)
        reply = await self._exchange(given, now)
        object_id = _object_id(given) if account == "user" else ""
        return self._cache(account, reply, now, user, object_id)

    def user_id(self) -> str:
        """The object id of whom the user's token in hand was given to; empty where none is, or it
        does not say."""
        cached = self._cached("user")
        return cached.object_id if cached is not None else ""

    async def _without_directory(self, now: datetime) -> str:
        """A token for a device that no directory knows. Raises NoToken."""
        if self._connection.certificate:
            return self._cache("device", await self._exchange_certificate(now), now)
        if self._registration_token:
            return self._cache("device", await self._exchange(self._registration_token, now), now)
        own = self._site_token()
        if own is None:
            raise NoToken(
                "This device is in no directory, and the site has given it no token.",
                cure=_TO_REGISTER,
            )
        # A clock that was put back must not keep a token from being renewed.
        due = self._stale or not own.made_at - _SKEW <= now < own.renew_at
        if due:
            self._journal.write(self._component, "Renewing the site token...")
            try:
                reply = await self._exchange(own.token, now)
            except Unreachable:
                if self._stale or now >= own.expires_at:
                    raise
                return own.token  # Still good: another time.
            self.keep_site_token(reply.access_token, reply.expires_in)
            return reply.access_token
        return own.token

    def _site_token(self) -> _SiteToken | None:
        sealed = self._folder.read(_SITE_TOKEN)
        if sealed is None:
            return None
        try:
            return msgspec.json.decode(self._box.unseal(sealed, _CONTEXT), type=_SiteToken)
        except (Unsealable, msgspec.DecodeError):
            return None

    async def _exchange(
        self,
        bearer: str,
        now: datetime,
        key: ec.EllipticCurvePrivateKey | None = None,
        possession: str = "",
    ) -> ccm.TokenReply:
        """What CCM_STS gives for a token and the proof of this device's key, or of a new one."""
        key = key or self.key
        url = f"{self.base}/CCM_STS"
        self._journal.write(self._component, f"Getting CCM Token from {url}")
        wanted = ccm.TokenRequest(
            pki.public_jwk(key),
            ccm.key_proof(key, bearer, now, secrets.token_urlsafe(18)),
            possession=possession,
        )
        request = self._machine.http.build_request(
            "POST",
            url,
            content=msgspec.json.encode(wanted),
            headers={"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"},
        )
        response = await _send(self._machine.http, request)
        _check(response)
        return decode(response, ccm.TokenReply)

    async def _exchange_certificate(self, now: datetime) -> ccm.TokenReply:
        """What CCM_STS gives for the client certificate, on the address that asks for one."""
        certificate = self._machine.certificate
        if certificate is None:
            raise NoCertificate(
                "This device has no client certificate.",
                cure="Name it in the agent's settings: client_certificate and client_key.",
            )
        der = certificate.der
        self._journal.write(self._component, "Getting CCM Token with the client certificate")
        thumbprint = pki.jwk_thumbprint(self.key)
        wanted = ccm.TokenRequest(
            pki.public_jwk(self.key),
            ccm.key_proof(self.key, sha256(der).hexdigest(), now, secrets.token_urlsafe(18)),
            b64encode(der).decode(),
            certificate.prove(thumbprint, now, secrets.token_urlsafe(18)),
        )
        url = f"{ccm.authentication_bases(self._connection.host)[1]}/CCM_STS"
        try:
            response = await certificate.post(url, msgspec.json.encode(wanted))
        except httpx.HTTPError as error:
            raise unreachable(error, "/CCM_STS") from None
        _check(response)
        return decode(response, ccm.TokenReply)

    def _cache(
        self,
        account: Account,
        reply: ccm.TokenReply,
        now: datetime,
        user: str = "",
        object_id: str = "",
    ) -> str:
        # Renewed when a tenth of its life is left, so no request meets its end.
        expires = now + timedelta(seconds=reply.expires_in * 0.9)
        fresh = _Cached(reply.access_token, expires, user, object_id)
        sealed = self._box.seal(msgspec.json.encode(fresh), _CONTEXT)
        with suppress(OSError):  # A disk that takes nothing keeps nobody from talking.
            self._folder.write(f"token-{account}", sealed)
        self._journal.write(
            self._component,
            f"Cached encrypted token for '{_SID[account]}'. Will expire at "
            f"'{now + timedelta(seconds=reply.expires_in):%m/%d/%Y %H:%M:%S}'",
        )
        return fresh.token

    def _forget(self, account: Account) -> None:
        self._worthless = self._folder.read(f"token-{account}")
        with suppress(OSError):
            self._folder.remove(f"token-{account}")

    def _cached(self, account: Account) -> _Cached | None:
        sealed = self._folder.read(f"token-{account}")
        if sealed is None or sealed == self._worthless:
            return None
        try:
            return msgspec.json.decode(self._box.unseal(sealed, _CONTEXT), type=_Cached)
        except (Unsealable, msgspec.DecodeError):
            return None

    async def _directory_token(self, account: Account) -> str:
        info, broker = self._connection.info, self._machine.directory
        arguments = info.authority, info.client_app_id, info.resource_uri
        if account == "user":
            return await broker.user_token(*arguments)
        self._journal.write(
            self._component,
            f"Getting AAD (device) token with: ClientId = {info.client_app_id}, "
            f"ResourceUrl = {info.resource_uri}, AccountId = {self._machine.name}",
        )
        try:
            return await broker.device_token(*arguments)
        except NoToken as error:
            self._journal.write(self._component, error.message, WARNING)
            self._journal.write(
                self._component, f"Falling back to get user '{_SID['user']}' token for system..."
            )
            return await broker.user_token(*arguments)


def _object_id(token: str) -> str:
    """Whom a token of the directory names. It came from the directory itself, over TLS; whether it
    is good the site says."""
    try:
        body = token.split(".")[1]
        claims = msgspec.json.decode(
            urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=dict[str, object]
        )
    except (IndexError, ValueError):
        return ""
    found = claims.get("oid")
    return found if isinstance(found, str) else ""


async def auth_info(machine: Machine, host: str, tenant_id: str, journal: Journal) -> ccm.AuthInfo:
    """What the gateway says about the device's tenant. Raises NotOnboarded."""
    service = host.partition("/")[0]
    journal.write("ccmsetup", f"Getting AAD info from CMG '{service}'")
    request = machine.http.build_request(
        "GET",
        f"https://{service}/CCM_Proxy_ServerAuth/AADAuthInfo",
        params={"TenantID": tenant_id},
    )
    response = await _send(machine.http, request)
    if response.status_code in (204, 404) or (response.is_success and not response.content):
        raise NotOnboarded(
            f"The gateway {service} has no information for the tenant {tenant_id}: it is not "
            "onboarded with this site, or authentication is disabled for it.",
            cure="Connect the site to the device's tenant (Azure Services), and deploy the "
            "gateway's configuration.",
        )
    _check(response)
    return decode(response, ccm.AuthInfo)


async def _send(
    http: httpx.AsyncClient, request: httpx.Request, stream: bool = False
) -> httpx.Response:
    try:
        return await http.send(request, stream=stream)
    except httpx.HTTPError as error:
        raise unreachable(error, request.url.path) from None


async def _answer(http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """With its body still to be read only when it is content."""
    response = await _send(http, request, stream=True)
    if response.status_code in (200, 206, 416):
        return response
    try:
        await response.aread()
    except httpx.HTTPError as error:
        raise unreachable(error, request.url.path) from None
    finally:
        await response.aclose()
    return response


def unreachable(error: httpx.HTTPError, target: str) -> Unreachable:
    """The transport's failure, with the flag by which administrators know its cause."""
    text = f"{error}"
    flag = _tls_flag(error)
    if flag:
        return Unreachable(
            f"Failed with error 12175 ERROR_WINHTTP_SECURE_FAILURE: {flag}. {text}",
            cure="Install the root of the gateway's certificate on the device, or correct the "
            "name in the certificate.",
            flag=flag,
        )
    return Unreachable(
        f"Nothing answers at {target}: {text or type(error).__name__}.",
        cure="Check the network, the name in DNS, and that the gateway is running.",
    )


def _tls_flag(error: BaseException | None) -> str:
    text = str(error)
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    if error is None and "CERTIFICATE_VERIFY_FAILED" not in text:
        return ""
    if "mismatch" in text.lower():
        return "WINHTTP_CALLBACK_STATUS_FLAG_CERT_CN_INVALID"
    if "expired" in text:
        return "WINHTTP_CALLBACK_STATUS_FLAG_CERT_DATE_INVALID"
    return "WINHTTP_CALLBACK_STATUS_FLAG_INVALID_CA"


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""
    cure: str = ""


class _Problem(msgspec.Struct):
    error: _Error


def _problem(response: httpx.Response) -> _Error:
    try:
        return msgspec.json.decode(response.content, type=_Problem).error
    except msgspec.DecodeError:
        return _Error("", response.text[:200].strip())


def _reason(response: httpx.Response) -> str:
    return _problem(response).code


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status < 400:
        return
    problem = _problem(response)
    said = problem.message or response.reason_phrase
    path = response.request.url.path
    if status >= 500 or status in (408, 429):
        raise Unreachable(
            f"{path} answered {status}: {said}", cure=problem.cure, reason=problem.code
        )
    raise Refused(
        f"{path} answered {status} {problem.code}: {said}",
        cure=problem.cure,
        status=status,
        reason=problem.code,
    )


def decode(response: httpx.Response, wanted: type[T]) -> T:
    """The body as this type. What cannot be read is a peer that is not ours: try later."""
    try:
        return msgspec.json.decode(response.content, type=wanted)
    except msgspec.DecodeError as error:
        raise Unreachable(
            f"The answer of {response.request.url.path} is not ours: {error}."
        ) from None


def describe(journal: Journal, component: str, error: AppError) -> None:
    """Write a refusal as an administrator should read it."""
    journal.write(component, error.message, ERROR)
    if error.cure:
        journal.write(component, error.cure, WARNING)
        # What happened is what the MDM service is told, not what to do about it.
        journal.last = error.message
