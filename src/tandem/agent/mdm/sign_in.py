"""A person signs in: the pages of the authority as a browser without scripts fills them in."""

from base64 import urlsafe_b64encode
from hashlib import sha256
from html.parser import HTMLParser
from secrets import token_urlsafe
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx
import msgspec

from tandem.agent.mdm.model import SignInRefused, Unreachable

# Microsoft Authentication Broker, which every directory knows.
BROKER_APP = "29d9ed98-a469-4536-ade2-f981bc1d605e"
BROKER_REDIRECT = "ms-appx-web://Microsoft.AAD.BrokerPlugin"
_PAGES = 8


class Tokens(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str = ""


class _Form(HTMLParser):
    """The first form of a page, and the text of what is marked as an error."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.button: tuple[str, str] | None = None
        self.error = ""
        self._inside = self._error = False
        self._done = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if "error" in given.get("class", "").split():
            self._error = True
        if tag == "form" and not self._done:
            self.action, self._inside = given.get("action", ""), True
        elif self._inside and tag == "input" and given.get("name"):
            if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                self.fields[given["name"]] = given.get("value", "")
        elif self._inside and tag == "button" and self.button is None:
            self.button = given.get("name", ""), given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside, self._done = False, True
        if tag in ("p", "div", "span"):
            self._error = False

    def handle_data(self, data: str) -> None:
        if self._error:
            self.error += data


async def sign_in(
    browser: httpx.AsyncClient, authority: str, scope: str, upn: str, password: str
) -> Tokens:
    """Tokens of this user for the broker. Raises SignInRefused, Unreachable.

    `browser` keeps cookies, so every person needs one of their own.
    """
    verifier = token_urlsafe(48)
    challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    state = token_urlsafe(16)
    query = {
        "client_id": BROKER_APP,
        "response_type": "code",
        "response_mode": "query",
        "redirect_uri": BROKER_REDIRECT,
        "scope": scope,
        "state": state,
        "login_hint": upn,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    page = await _ask(browser, "GET", f"{authority}/oauth2/v2.0/authorize?{urlencode(query)}")
    code = await _through_pages(browser, page, state, upn, password)
    form = {
        "grant_type": "authorization_code",
        "client_id": BROKER_APP,
        "code": code,
        "redirect_uri": BROKER_REDIRECT,
        "code_verifier": verifier,
        "scope": scope,
    }
    return await token(browser, authority, form)


async def _through_pages(
    browser: httpx.AsyncClient, page: httpx.Response, state: str, upn: str, password: str
) -> str:
    asked = False
    for _ in range(_PAGES):
        if page.is_redirect:
            target = urljoin(str(page.url), page.headers["location"])
            if target.lower().startswith(BROKER_REDIRECT.lower()):
                return _code(target, state)
            page = await _ask(browser, "GET", target)
            continue
        form = _Form()
        form.feed(page.text)
        if form.action is None or (asked and "passwd" in form.fields):
            raise SignInRefused(
                "0x8018000E",
                f"{upn} cannot sign in: {form.error.strip() or 'the authority refuses it.'}",
                cure="Check user name and password, and that the account is enabled.",
            )
        fields = dict(form.fields)
        if "passwd" in fields:
            fields |= {"login": upn, "passwd": password}
            asked = True
        if form.button and form.button[0]:
            fields[form.button[0]] = form.button[1]
        page = await _ask(browser, "POST", urljoin(str(page.url), form.action), fields)
    raise SignInRefused("0x8018000F", "The sign-in pages lead nowhere.")


def _code(target: str, state: str) -> str:
    answer = {key: values[0] for key, values in parse_qs(urlsplit(target).query).items()}
    if "error" in answer:
        said = answer.get("error_description", answer["error"]).splitlines()[0]
        raise SignInRefused("0x8018000F", f"The sign-in was refused: {said}")
    if answer.get("state") != state or "code" not in answer:
        raise SignInRefused("0x8018000F", "The answer belongs to another sign-in.")
    return answer["code"]


async def token(http: httpx.AsyncClient, authority: str, form: dict[str, str]) -> Tokens:
    """What the token endpoint answers. Raises SignInRefused, Unreachable."""
    answer = await _ask(http, "POST", f"{authority}/oauth2/v2.0/token", form)
    try:
        if answer.is_success:
            return msgspec.json.decode(answer.content, type=Tokens)
        found = msgspec.json.decode(answer.content, type=dict[str, object])
    except msgspec.DecodeError:
        found = {}
    said = str(found.get("error_description") or found.get("error") or answer.status_code)
    raise SignInRefused(
        "0xCAA20003",
        f"The directory gives no token: {said.splitlines()[0]}",
        cure="Sign in again with the account of this device.",
    )


async def _ask(
    http: httpx.AsyncClient, method: str, url: str, form: dict[str, str] | None = None
) -> httpx.Response:
    try:
        response = await http.request(method, url, data=form)
    except httpx.HTTPError as error:
        raise Unreachable(
            "0x80180010",
            f"The directory does not answer: {error or type(error).__name__}.",
            cure="Check the device's network and that the tenant runs.",
        ) from None
    if response.status_code >= 500 or response.status_code == 429:
        raise Unreachable("0x80180010", f"The directory answers {response.status_code}.")
    return response
