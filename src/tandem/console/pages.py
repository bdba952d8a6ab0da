"""How a page is made: who asks, in which language and theme, and what every answer must carry.

    request -> session from the cookie -> view -> template -> page, or its fragment for htmx
    form    -> same origin, and the token that only our own page could hold -> view -> 303

Every refusal becomes a page in the reader's language; a bug becomes one with the id to look for.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import jinja2
import msgspec
import structlog
from markupsafe import Markup
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tandem.console import labels
from tandem.console.backend import Api, Refused, Transport
from tandem.console.drafts import Drafts
from tandem.console.fields import Upload
from tandem.console.labels import N_
from tandem.console.language import LANGUAGES, Language, negotiate
from tandem.console.model import FormExpired, NotAllowed, NotSignedIn, Session, UnknownPage
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.errors import HTTP_STATUS, AppError, Invalid, Kind

log = structlog.get_logger("console")

HERE = Path(__file__).parent
ROOT = "/console"
SESSION_COOKIE = "__Host-tandem-session"
FORM_COOKIE = "__Host-tandem-form"
THEME_COOKIE = "tandem-theme"
LANGUAGE_COOKIE = "tandem-language"
# A sentence for the next page: what has just been done.
SAID_COOKIE = "__Host-tandem-said"
THEMES = ("light", "dark")
YEAR = 365 * 24 * 3600
MAX_FORM_BYTES = 64 * 1024
MOST_FIELDS = 2000
MOST_SAID = 1500

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class HasSessions(Protocol):
    async def session(self, token: str) -> Session | None: ...

    async def sign_out(self, session: Session) -> None: ...


class Backend(msgspec.Struct, frozen=True):
    """What pages act through. `bearer` is the token of the role's API that a session stands for."""

    transport: Transport
    bearer: Callable[[Session], Awaitable[str]]
    drafts: Drafts


class Elsewhere(msgspec.Struct, frozen=True):
    """The other authority's console: its address, and its places below that."""

    area: str
    url: str
    navigation: tuple[labels.Place, ...]


async def nowhere() -> Elsewhere | None:
    return None


Reads = TypeVar("Reads", bound=HasSessions)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(labels=labels, root=ROOT, static=static_url)
    return environment


@cache
def _digest(name: str) -> str:
    path = HERE / "static" / name
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "0"


def static_url(name: str) -> str:
    """An address that changes with the file, so it may be kept for ever."""
    return f"{ROOT}/static/{_digest(name)}/{name}"


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    path = (HERE / "static" / name).resolve()
    if not path.is_relative_to(HERE / "static") or not path.is_file():
        raise UnknownPage(N_("This file is not part of the console."))
    kept = request.path_params["digest"] == _digest(name)
    age = f"public, max-age={YEAR}, immutable" if kept else "no-cache"
    return FileResponse(path, headers={"Cache-Control": age})


class Page(Generic[Reads]):
    """One request on its way through a view."""

    def __init__(
        self, request: Request, reads: Reads, session: Session | None, console: "Console[Reads]"
    ) -> None:
        self.request = request
        self.reads = reads
        self._session = session
        self._console = console
        code = negotiate(
            request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", "")
        )
        self.language = console.languages(code)
        theme = request.cookies.get(THEME_COOKIE)
        self.theme = theme if theme in THEMES else "auto"
        self.now = console.now()
        self._form_secret = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
        self._fields: dict[str, Sequence[str]] | None = None
        self._bearer = ""
        self.files: dict[str, Upload] = {}
        self.elsewhere: Elsewhere | None = None

    @property
    def session(self) -> Session:
        """Raises NotSignedIn."""
        if self._session is None:
            raise NotSignedIn(
                N_("You are not signed in, or your session has ended."), cure=N_("Sign in again.")
            )
        return self._session

    @property
    def signed_in(self) -> bool:
        return self._session is not None

    @property
    def partial(self) -> bool:
        return self.request.headers.get("hx-request") == "true"

    @property
    def cookie(self) -> str:
        """The session that the browser names, whether it still holds or not."""
        return self.request.cookies.get(SESSION_COOKIE, "")

    @property
    def api(self) -> Api:
        """The role's own API with the rights of who is signed in. Raises NotSignedIn."""
        if not self._bearer:
            raise NotSignedIn(
                N_("You are not signed in, or your session has ended."), cure=N_("Sign in again.")
            )
        return Api(self._console.backend.transport, self._bearer)

    @property
    def drafts(self) -> Drafts:
        return self._console.backend.drafts

    async def arrive(self) -> None:
        """What a page needs that has to be asked for: its rights, and the other console."""
        if self._session is not None:
            self._bearer = await self._console.backend.bearer(self._session)
        if not self.partial and not (self._session is not None and self._session.own):
            self.elsewhere = await self._console.elsewhere()

    async def other(self) -> Elsewhere | None:
        """The other authority's console, also for a part of a page."""
        return self.elsewhere or await self._console.elsewhere()

    def form_token(self) -> str:
        """What a form of this page proves to come from it: no other site can read or guess it.

        It is another text each time, so that a page that is compressed gives nothing of it away by
        its size (BREACH)."""
        token, mask = self._form_token(), secrets.token_bytes(32)
        return (mask + _masked(token, mask)).hex()

    def _form_token(self, secret: str = "") -> bytes:
        secret = secret or (self._session.token if self._session else self._form_secret)
        return hmac.new(secret.encode(), b"console form", hashlib.sha256).digest()

    async def form(self, limit: int = MAX_FORM_BYTES, *, ended: bool = False) -> Mapping[str, str]:
        """The fields of a form that one of our own pages sent; files are in `files`, names that come
        more than once in `form_lists`. `ended`: also of a session that has ended meanwhile.

        Raises FormExpired, TooLarge, Invalid.
        """
        if self._fields is None:
            self._fields = await self._parse(limit)
        fields = {name: values[-1] for name, values in self._fields.items()}
        self.prove(fields.pop("form_token", ""), ended=ended)
        return fields

    def prove(self, given: str, *, ended: bool = False) -> None:
        """That a form of ours sent this token: for views that read a large body themselves.

        Raises FormExpired.
        """
        if ended and self._session is None:
            known, wanted = bool(self.cookie), self._form_token(self.cookie or "-")
        else:
            known = self._session is not None or FORM_COOKIE in self.request.cookies
            if not known and self.cookie:
                # A form of a session that has ended: to sign in again is what helps.
                raise NotSignedIn(
                    N_("You are not signed in, or your session has ended."),
                    cure=N_("Sign in again."),
                )
            wanted = self._form_token()
        if not (known and self._same_origin() and hmac.compare_digest(_unmasked(given), wanted)):
            raise FormExpired(
                N_("This form is no longer valid, so nothing was done."),
                cure=N_("Go back, reload the page and try again."),
            )

    @property
    def form_lists(self) -> Mapping[str, Sequence[str]]:
        """All values of each field, after `form`."""
        return self._fields or {}

    @property
    def form_values(self) -> Mapping[str, str]:
        return {name: values[-1] for name, values in (self._fields or {}).items()}

    async def _parse(self, limit: int) -> dict[str, Sequence[str]]:
        raw = await http.body(self.request, limit)
        found: dict[str, list[str]] = {}
        if self.request.headers.get("content-type", "").startswith("multipart/form-data"):
            for name, value in await _multipart(self.request, raw):
                if isinstance(value, UploadFile):
                    data = await value.read()
                    await value.close()
                    if value.filename:
                        self.files[name] = Upload(_file_name(value.filename), data)
                else:
                    found.setdefault(name, []).append(value)
        else:
            try:
                pairs = parse_qsl(
                    raw.decode("utf-8", "replace"),
                    keep_blank_values=True,
                    max_num_fields=MOST_FIELDS,
                )
            except ValueError:
                raise http_too_many() from None
            for name, value in pairs:
                found.setdefault(name, []).append(value)
        return dict(found)

    def to(self, path: str, said: str = "", **values: object) -> Response:
        """On to another page, which shows the sentence once. A path of this console only."""
        answer = RedirectResponse(local_path(path), 303)
        if said:
            sentence = {"said": said, "values": {k: str(v)[:300] for k, v in values.items()}}
            packed = urlsafe_b64encode(msgspec.json.encode(sentence)).decode()
            if len(packed) <= MOST_SAID:
                set_cookie(answer, SAID_COOKIE, packed, max_age=60)
        return answer

    def _said(self) -> str:
        try:
            found = msgspec.json.decode(
                urlsafe_b64decode(self.request.cookies.get(SAID_COOKIE, "")),
                type=dict[str, str | dict[str, str]],
            )
            said, values = found["said"], found["values"]
            return self.language.text(str(said), **(values if isinstance(values, dict) else {}))
        except (ValueError, KeyError, TypeError):
            return ""

    def confirm(
        self,
        title: str,
        text: str,
        label: str,
        *,
        back: str,
        fields: Mapping[str, str] | None = None,
        items: Sequence[str] = (),
        danger: bool = True,
        reason: str = "",
        status: int = 200,
    ) -> Response:
        """Ask before what cannot be taken back. `text` names how far it reaches; the form comes to
        this address again, with `fields` and `confirmed`, and with a `reason` where a label for it
        is given. Texts are translated already."""
        return self.render(
            "confirm.html",
            status,
            heading=title,
            text=text,
            label=label,
            back=local_path(back),
            fields=dict(fields or {}),
            items=list(items),
            danger=danger,
            reason=reason,
        )

    def _same_origin(self) -> bool:
        if self.request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = self.request.headers.get("origin")
        return origin is None or urlsplit(origin).netloc == self.request.headers.get("host")

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """The page; for htmx only its fragment, and nothing (204) when that has not changed."""
        shown = repr((self.request.url.query, self.language.code, sorted(context.items())))
        version = hashlib.sha256(shown.encode()).hexdigest()[:16]
        vary = {"Vary": "HX-Request"}
        if self.partial and self.request.headers.get("x-fragment-version") == version:
            return Response(status_code=204, headers=vary)
        said = "" if self.partial else self._said()
        text = self._fill(template, partial=self.partial, version=version, said_now=said, **context)
        answer = Response(text, status, vary, media_type="text/html")
        if said:
            answer.delete_cookie(SAID_COOKIE, path="/", secure=True, httponly=True)
        if not self.signed_in and not self.partial:
            set_cookie(answer, FORM_COOKIE, self._form_secret)
        return answer

    def _fill(self, template: str, **context: Any) -> str:
        language = self.language
        return (
            _templates()
            .get_template(template)
            .render(
                _=language.text,
                said=language.said,
                problem=language.problem,
                plural=language.plural,
                number=language.number,
                share=language.share,
                time=language.time,
                day=language.day,
                moment=moment,
                ago=lambda at: language.since(at, self.now),
                language=language.code,
                theme=self.theme,
                session=self._session,
                form_token=self.form_token(),
                path=self.request.url.path,
                here=self.here,
                stay=self.back,
                area=self._console.area,
                navigation=_grouped(self._places()),
                elsewhere=self.elsewhere,
                other_navigation=_grouped(self.elsewhere.navigation if self.elsewhere else ()),
                with_query=self.with_query,
                **context,
            )
        )

    def _places(self) -> Sequence[labels.Place]:
        places = self._console.navigation
        if self._session is not None and self._session.own:
            return [place for place in places if place.own]
        return places

    @property
    def here(self) -> str:
        """The address of this page, to come back to."""
        query = self.request.url.query
        return self.request.url.path + (f"?{query}" if query else "")

    @property
    def back(self) -> str:
        """Where to go on after a sign-in or another theme: this page, or the one whose form was sent
        here, whose address may be for forms only."""
        referer = self.request.headers.get("referer", "")
        if self.request.method != "POST" or not referer:
            return self.here
        sent = urlsplit(referer)
        if sent.netloc != self.request.headers.get("host"):
            return f"{ROOT}/"
        return local_path(sent.path + (f"?{sent.query}" if sent.query else ""))

    def with_query(self, **changes: object) -> str:
        """This page with some parameters of its address changed; None takes one away."""
        query = dict(self.request.query_params)
        for name, value in changes.items():
            if value is None:
                query.pop(name, None)
            else:
                query[name] = str(value)
        return Markup.escape(self.request.url.path + (f"?{urlencode(query)}" if query else ""))


def _masked(token: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(token, mask, strict=True))


def _unmasked(given: str) -> bytes:
    """The token of a form; nothing for what is none."""
    try:
        raw = bytes.fromhex(given)
    except ValueError:
        return b""
    return _masked(raw[32:], raw[:32]) if len(raw) == 64 else b""


async def _multipart(request: Request, raw: bytes) -> list[tuple[str, UploadFile | str]]:
    """The parts of a form with files. Raises Invalid."""

    async def once() -> AsyncGenerator[bytes, None]:
        yield raw

    parser = MultiPartParser(
        request.headers, once(), max_files=20, max_fields=MOST_FIELDS, max_part_size=len(raw) + 1
    )
    try:
        return (await parser.parse()).multi_items()
    except (MultiPartException, UnicodeDecodeError, KeyError, ValueError):
        raise Invalid(
            N_("The form did not arrive whole, so nothing was done."), cure=N_("Send it again.")
        ) from None


def moment(value: object) -> datetime | None:
    """A time of the API's JSON, for `time()`; None for none."""
    if isinstance(value, datetime):
        return value
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else None


def http_too_many() -> Invalid:
    return Invalid(N_("The form has too many fields, so nothing was done."))


def _file_name(name: str) -> str:
    """The last part of it: some browsers send a whole path."""
    return name.replace("\\", "/").rpartition("/")[2].replace("\0", "")[:200]


def _grouped(
    places: Sequence[labels.Place],
) -> list[tuple[str, list[labels.Place]]]:
    """Places by group, each in the order in which the first of it comes."""
    groups: dict[str, list[labels.Place]] = {}
    for place in places:
        groups.setdefault(place.group, []).append(place)
    return list(groups.items())


def set_cookie(answer: Response, name: str, value: str, max_age: int | None = None) -> None:
    answer.set_cookie(
        name, value, max_age=max_age, path="/", secure=True, httponly=True, samesite="strict"
    )


View = Callable[[Page[Reads]], Awaitable[Response]]


class Console(Generic[Reads]):
    """The pages of one role: its views, and what they share."""

    def __init__(
        self,
        reads: Reads,
        *,
        area: str,
        navigation: tuple[labels.Place, ...],
        sign_in: View[Reads],
        now: Clock,
        languages: Callable[[str], Language] = Language,
        backend: Backend,
        elsewhere: Callable[[], Awaitable[Elsewhere | None]] = nowhere,
    ) -> None:
        self.area = area
        self.navigation = navigation
        self.backend = backend
        self.elsewhere = elsewhere
        self.now: Callable[[], datetime] = now
        self.languages = languages
        self._reads = reads
        self._sign_in = sign_in

    def route(
        self, path: str, view: View[Reads], *, post: bool = False, own: bool = False
    ) -> Route:
        """What is read is compressed; what answers a form may hold a new secret, and is not.

        `own`: it shows nobody but who is signed in, so that it is open without a role, too.
        """

        async def endpoint(request: Request) -> Response:
            answer = await self._answer(request, view, own)
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            return answer

        return Route(
            path,
            endpoint,
            methods=["POST"] if post else ["GET"],
            middleware=None
            if post
            else [Middleware(GZipMiddleware, minimum_size=1000, compresslevel=6)],
        )

    async def _answer(self, request: Request, view: View[Reads], own: bool) -> Response:
        token = request.cookies.get(SESSION_COOKIE)
        page: Page[Reads] | None = None
        try:
            session = await self._reads.session(token) if token else None
            page = Page(request, self._reads, session, self)
            if session is not None and session.own and not own:
                raise NotAllowed(labels.NOT_ALLOWED, cure=labels.NOT_ALLOWED_CURE)
            await page.arrive()
            return await view(page)
        except NotSignedIn:
            return await self._sign_in_again(request)
        except AppError as error:
            if isinstance(error, Refused) and error.kind is Kind.UNAUTHENTICATED:
                return await self._sign_in_again(request)
            page = page or Page(request, self._reads, None, self)
            return self._refusal(page, error)
        except Exception:
            log.exception("unexpected", path=request.url.path)
            page = page or Page(request, self._reads, None, self)
            return self._refusal(page, Broken(labels.BROKEN, cure=labels.BROKEN_CURE))

    async def _sign_in_again(self, request: Request) -> Response:
        page = Page(request, self._reads, None, self)
        await page.arrive()
        if page.partial:
            # htmx says which page it is on: that one is come back to.
            current = urlsplit(request.headers.get("hx-current-url", ""))
            back = local_path(current.path + (f"?{current.query}" if current.query else ""))
            to = f"{ROOT}/sign-in?{urlencode({'return_to': back})}"
            return Response(headers={"HX-Redirect": to})
        return await self._sign_in(page)

    def _refusal(self, page: Page[Reads], error: AppError) -> Response:
        status = 500 if isinstance(error, Broken) else HTTP_STATUS[error.kind]
        correlation = structlog.contextvars.get_contextvars().get("correlation", "")
        return page.render("error.html", status, error=error, number_of=status, id=correlation)

    def shared(self) -> list[BaseRoute]:
        """What every area has; it ends with the answer to an address that does not exist."""

        async def preferences(page: Page[Reads]) -> Response:
            fields = await page.form()
            answer = RedirectResponse(local_path(fields.get("return_to", "")), 303)
            if fields.get("theme") in THEMES:
                set_cookie(answer, THEME_COOKIE, fields["theme"], YEAR)
            if fields.get("language") in LANGUAGES:
                set_cookie(answer, LANGUAGE_COOKIE, fields["language"], YEAR)
            return answer

        async def sign_out(page: Page[Reads]) -> Response:
            await page.form()
            if page.signed_in:
                await page.reads.sign_out(page.session)
            answer = RedirectResponse(f"{ROOT}/sign-in", 303)
            answer.delete_cookie(
                SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="strict"
            )
            return answer

        async def unknown(page: Page[Reads]) -> Response:
            raise UnknownPage(
                N_("There is no such page."), cure=N_("Choose one from the navigation.")
            )

        async def static(page: Page[Reads]) -> Response:
            return await _static(page.request)

        return [
            self.route(f"{ROOT}/static/{{digest}}/{{name:path}}", static, own=True),
            self.route(f"{ROOT}/preferences", preferences, post=True, own=True),
            self.route(f"{ROOT}/sign-out", sign_out, post=True, own=True),
            self.route(f"{ROOT}/{{path:path}}", unknown),
        ]


class Broken(AppError):
    """A bug: what went wrong is in the log, under the id that the page shows."""

    kind, code = Kind.UNAVAILABLE, "console.broken"


def local_path(path: str) -> str:
    """Only a page of this console is gone back to."""
    safe = path.startswith(f"{ROOT}/") and "\\" not in path and "\n" not in path
    return path if safe else f"{ROOT}/"
