"""The shell of the site's pages: sessions, forms, languages, fragments and refusals."""

import re
from typing import Any

import httpx
import pytest
from console_areas import Browser, text, token
from lxml import html

from site_api import PASSWORD, Api, add_device
from tandem.console.pages import FORM_COOKIE, SESSION_COOKIE
from tandem.console.site_pages import SitePages

SITE_PAGES = [
    "/console/",
    "/console/devices",
    "/console/devices/d-LAB-001",
    "/console/devices/d-LAB-001/timeline",
    "/console/devices/d-LAB-001/logs",
]


def sent(page: html.HtmlElement, password: str = PASSWORD, back: str = "") -> dict[str, str]:
    """The form of the sign-in page, filled in."""
    fields = {"user": "siteadmin", "password": password, "return_to": back}
    return {"form_token": token(page), **fields}


async def answer_page(browser: Browser, path: str, **headers: str) -> html.HtmlElement:
    """A page, whatever its status."""
    return html.fromstring((await browser.web.get(path, headers=headers)).content)


@pytest.mark.parametrize("path", SITE_PAGES)
async def test_every_page_wants_a_session(stranger: Browser, path: str) -> None:
    answer = await stranger.web.get(path)
    assert answer.status_code == 401
    assert html.fromstring(answer.content).xpath("//form[@action='/console/sign-in']")


async def test_signing_in_goes_on_to_the_page_that_was_asked_for(stranger: Browser) -> None:
    asked = await answer_page(stranger, "/console/devices?stage=policy")
    (back,) = asked.xpath("//form[@action='/console/sign-in']/input[@name='return_to']/@value")
    answer = await stranger.web.post("/console/sign-in", data=sent(asked, back=back))
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/console/devices?stage=policy",
    )
    (cookie,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE)]
    for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert (await stranger.web.get(answer.headers["location"])).status_code == 200


async def test_a_wrong_password_is_refused_on_the_same_form(stranger: Browser) -> None:
    page = await answer_page(stranger, "/console/sign-in")
    answer = await stranger.web.post("/console/sign-in", data=sent(page, "wrong"))
    assert answer.status_code == 401
    again = html.fromstring(answer.content)
    assert "Check both" in text(again.xpath("//*[@role='alert']")[0])
    assert again.xpath("//input[@name='user']/@value") == ["siteadmin"]
    assert not again.xpath("//input[@name='password']/@value")


@pytest.mark.parametrize(
    "spoil",
    [
        {"data": {"form_token": "made up"}},
        {"headers": {"origin": "https://elsewhere.test"}},
        {"headers": {"sec-fetch-site": "cross-site"}},
    ],
)
async def test_a_form_of_another_site_does_nothing(
    seen: Browser, spoil: dict[str, dict[str, str]]
) -> None:
    form = {"form_token": token(await seen.page("/console/"))}
    answer = await seen.web.post(
        "/console/sign-out",
        data=form | spoil.get("data", {}),
        headers=spoil.get("headers", {}),
    )
    assert answer.status_code == 403
    kept = seen.web.cookies[SESSION_COOKIE]
    assert (await seen.web.get("/console/")).status_code == 200
    answer = await seen.web.post("/console/sign-out", data=form)
    assert answer.status_code == 303
    seen.web.cookies.set(SESSION_COOKIE, kept, domain="site.test")
    assert (await seen.web.get("/console/")).status_code == 401


async def test_the_form_token_is_another_one_after_signing_in(stranger: Browser) -> None:
    before = token(await stranger.page("/console/sign-in"))
    assert stranger.web.cookies[FORM_COOKIE]
    await stranger.sign_in()
    answer = await stranger.web.post("/console/sign-out", data={"form_token": before})
    assert answer.status_code == 403


async def test_going_on_never_leads_to_another_site(seen: Browser) -> None:
    for back in (
        "https://elsewhere.test/",
        "//elsewhere.test",
        "/console/\\elsewhere",
        "/api/v1/x",
    ):
        fields = {"return_to": back, "theme": "dark"}
        answer = await seen.post("/console/preferences", fields, on="/console/")
        assert answer.headers["location"] == "/console/"


async def test_theme_and_language_are_kept(seen: Browser) -> None:
    for field in ({"theme": "dark"}, {"language": "fr"}):
        await seen.post("/console/preferences", {"return_to": "/", **field}, on="/console/")
    page = await seen.page("/console/devices")
    assert (page.get("lang"), page.get("data-theme")) == ("fr", "dark")
    assert text(page.xpath("//h1")[0]) == "Appareils"


async def test_the_browser_s_language_is_spoken(seen: Browser) -> None:
    for accepted, spoken in {
        "fr-BE,fr;q=0.9,en;q=0.5": "fr",
        "de": "en",
        "en,fr;q=0.1": "en",
    }.items():
        page = await seen.page("/console/", **{"accept-language": accepted})
        assert page.get("lang") == spoken


@pytest.mark.parametrize("path", SITE_PAGES)
async def test_nothing_on_a_page_is_inline_or_from_elsewhere(stranger: Browser, path: str) -> None:
    await stranger.sign_in()
    answer = await stranger.web.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'self'")
    page = html.fromstring(answer.content)
    assert not page.xpath("//script[not(@src)] | //style | //@style | //@onclick | //@hx-on")
    for address in page.xpath("//@src | //link/@href | //form/@action | //@hx-get"):
        assert address.startswith("/console/")


async def test_static_files_may_be_kept_for_ever_under_their_digest(stranger: Browser) -> None:
    page = await answer_page(stranger, "/console/sign-in")
    for address in page.xpath("//script/@src | //link/@href"):
        answer = await stranger.web.get(address)
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["cache-control"]
        if len(answer.content) > 1000:
            assert answer.headers["content-encoding"] == "gzip"
    answer = await stranger.web.get("/console/static/x/..%2f..%2fpages.py")
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["/console/", "/console/devices", "/console/devices/d-LAB-001"])
async def test_a_fragment_is_sent_only_when_it_has_news(
    api: Api, stranger: Browser, path: str
) -> None:
    await stranger.sign_in()
    page = await stranger.page(path)
    version = re.search(r"\w{16}", page.xpath("//*[@id='live']/@hx-headers")[0])
    assert version
    ask = {"HX-Request": "true", "X-Fragment-Version": version[0]}
    answer = await stranger.web.get(path, headers=ask)
    assert (answer.status_code, answer.text) == (204, "")
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001", flags=8193)
        await add_device(tx, "LAB-002")
    answer = await stranger.web.get(path, headers=ask)
    assert answer.status_code == 200
    assert answer.text.lstrip().startswith('<div id="live"')
    assert "<html" not in answer.text


async def test_an_ended_session_leads_a_fragment_to_the_sign_in(stranger: Browser) -> None:
    current = "https://site.test/console/devices?search=x"
    headers = {"HX-Request": "true", "HX-Current-URL": current}
    answer = await stranger.web.get("/console/", headers=headers)
    back = "%2Fconsole%2Fdevices%3Fsearch%3Dx"
    assert answer.headers["hx-redirect"] == f"/console/sign-in?return_to={back}"


async def test_a_refusal_is_a_page_with_its_cure(seen: Browser) -> None:
    answer = await seen.web.get("/console/devices/none")
    assert answer.status_code == 404
    assert "The device list shows all of them." in answer.text
    answer = await seen.web.get("/console/no/such/page", headers={"accept-language": "fr"})
    assert answer.status_code == 404
    assert "Cette page n’existe pas." in answer.text


async def test_a_bug_shows_an_id_and_nothing_else(
    seen: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(SitePages, "session", broken)
    answer: httpx.Response = await seen.web.get(
        "/console/", headers={"x-correlation-id": "0123456789abcdef"}
    )
    assert answer.status_code == 500
    assert "0123456789abcdef" in answer.text
    assert "RuntimeError" not in answer.text
    assert "a bug" not in answer.text


async def test_pages_stay_light(stranger: Browser) -> None:
    """What a first visit carries over the wire, compressed: 60 kB for a list, 280 kB with charts."""
    import gzip

    await stranger.sign_in()
    for path, budget in {"/console/devices": 60_000, "/console/": 280_000}.items():
        answer = await stranger.web.get(path)
        page = html.fromstring(answer.content)
        parts = [answer.content]
        for address in page.xpath("//script/@src | //link/@href"):
            parts.append((await stranger.web.get(address)).content)
        assert sum(len(gzip.compress(part)) for part in parts) < budget
