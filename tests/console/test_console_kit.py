"""The kit: a wizard over a real database and the site's real API, walked as a browser does."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from console_areas import text, token
from lxml import html
from starlette.responses import Response
from starlette.routing import BaseRoute

from site_api import CHEAP, NOW, PASSWORD
from tandem import console
from tandem.console.kit import (
    N_,
    ROOT,
    Area,
    Console,
    Draft,
    Fact,
    Hit,
    Notice,
    Outcome,
    Page,
    Place,
    Problem,
    Step,
    Wizard,
    field,
)
from tandem.console.site_pages import SitePages
from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.site import administrators, collections, properties

BOX = SecretBox(b"k" * 32)


async def _free(page: Page[Any], draft: Draft | None, name: str) -> None:
    for item in (await page.api.get("/api/v1/collections"))["items"]:
        if item["name"] == name:
            raise Problem("name", N_("%(name)s is taken."), name=name)


async def _limiting(page: Page[Any], draft: Draft | None, query: str) -> list[tuple[str, str]]:
    found = (await page.api.get("/api/v1/collections"))["items"]
    return [(i["id"], i["name"]) for i in found if query.casefold() in i["name"].casefold()]


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    return [Fact(N_("Name"), draft.values["name"]), Fact(N_("Password"), "•" * 8)]


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    made = await page.api.post(
        "/api/v1/collections", {"name": draft.values["name"], "comment": draft.values["comment"]}
    )
    assert draft.secret("password") == "sesame"
    return Outcome(N_("%(name)s was created."), f"{ROOT}/notifications", {"name": made["name"]})


async def _command(page: Page[Any], draft: Draft) -> str:
    return f"tandem collection create {draft.values['name']}"


async def _found(page: Page[Any], query: str) -> list[Hit]:
    items = (await page.api.get("/api/v1/collections"))["items"]
    return [Hit(N_("Collections"), i["name"], "", "/") for i in items if query in i["name"]]


async def _notices(page: Page[Any]) -> list[Notice]:
    return [Notice(title=N_("Discovery is under way"), progress=0.5, url=f"{ROOT}/")]


SAMPLE = Wizard(
    key="sample",
    title=N_("Sample wizard"),
    steps=(
        Step(
            key="general",
            title=N_("General"),
            fields=(
                field("name", N_("Name"), required=True, limit=40, check=_free),
                field("comment", N_("Comment"), "textarea"),
                field("size", N_("Size"), "number", least=1, most=16, default="1"),
            ),
        ),
        Step(
            key="secret",
            title=N_("Secret"),
            fields=(
                field("password", N_("Password"), "password", secret=True, required=True),
                field("file", N_("File"), "file", accept=".pfx"),
                field("limiting", N_("Limiting collection"), "picker", options=_limiting),
            ),
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
)


async def _ask(page: Page[Any]) -> Response:
    await page.form()
    return page.confirm("Sure?", "One thing goes.", "Go", back=f"{ROOT}/")


def _routes(pages: Console[Any]) -> list[BaseRoute]:
    return [pages.route(f"{ROOT}/sample/go", _ask, post=True)]


AREA = Area(
    name="sample",
    routes=_routes,
    places=(Place(f"{ROOT}/sample", N_("Sample"), "box", N_("Administration")),),
    wizards=(SAMPLE,),
    search=(_found,),
    notices=(_notices,),
)


class Watch:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Watch:
    return Watch()


def application(db: Database, now: Clock) -> Any:
    async def token_itself(session: console.Session) -> str:
        return session.token

    behind = console.Backend(
        console.Transport("https://site"), token_itself, console.Drafts(db, BOX, now)
    )
    gate = administrators.Gate(db, now, CHEAP)
    pages = SitePages(db, now=now, settings=CHEAP)
    app = http.application(
        [
            *collections.routes(db, gate, now),
            *console.site_routes(pages, now=now, backend=behind, areas=(AREA,)),
        ],
        role="site",
    )
    behind.transport.app = app
    return app


@pytest.fixture
async def browser(site_db: Database, clock: Watch) -> AsyncIterator[httpx.AsyncClient]:
    async with site_db.transaction() as tx:
        await properties.establish(tx, BOX, code="ABC", name="", now=NOW)
        await administrators.create_first(tx, "admin", PASSWORD, NOW, CHEAP)
    transport = httpx.ASGITransport(application(site_db, clock))
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as client:
        await sign_in(client)
        yield client


async def sign_in(client: httpx.AsyncClient, back: str = "") -> httpx.Response:
    page = html.fromstring((await client.get(f"{ROOT}/sign-in")).content)
    fields = {"form_token": token(page), "user": "admin", "password": PASSWORD}
    return await client.post(f"{ROOT}/sign-in", data={**fields, "return_to": back})


async def begin(client: httpx.AsyncClient) -> tuple[str, str]:
    """The address of the first step, and the form token."""
    answer = await client.get(f"{ROOT}/wizards/sample?name=Pilot")
    assert answer.status_code == 303, answer.text
    here = answer.headers["location"]
    return here, token(html.fromstring((await client.get(here)).content))


async def test_a_wizard_is_walked_from_its_first_step_to_its_end(
    browser: httpx.AsyncClient, site_db: Database
) -> None:
    here, form = await begin(browser)
    page = html.fromstring((await browser.get(here)).content)
    assert page.xpath("//input[@id='name']/@value") == ["Pilot"]
    assert page.xpath("//li[@class='current']/span/@aria-current") == ["step"]
    answer = await browser.post(here, data={"form_token": form, "name": "Pilot", "size": "3"})
    second = answer.headers["location"]
    assert second.endswith("/secret")
    files = {"file": ("C:\\Certs\\a.pfx", b"\x30\x82")}
    chosen = {"limiting": "SMS00001", "limiting--name": "SMS00001\x1fAll Systems"}
    answer = await browser.post(
        second, data={"form_token": form, "password": "sesame", **chosen}, files=files
    )
    assert answer.headers["location"].endswith("/summary")
    kept = (await browser.get(second)).text
    assert "a.pfx" in kept
    assert "sesame" not in kept
    assert "All Systems" in kept
    summary = await browser.get(answer.headers["location"])
    assert "tandem collection create Pilot" in summary.text
    finish = here.rpartition("/")[0] + "/finish"
    done = await browser.post(finish, data={"form_token": form})
    after = done.headers["location"]
    assert after == f"{ROOT}/notifications"
    assert "Pilot was created." in text(html.fromstring((await browser.get(after)).content))
    assert "Pilot was created." not in (await browser.get(after)).text
    again = await browser.post(finish, data={"form_token": form})
    assert again.status_code == 303
    async with site_db.transaction() as tx:
        made = [c for c in await collections.collections(tx) if c.name == "Pilot"]
        row = await (await tx.execute("SELECT sealed FROM console_draft")).fetchone()
    assert len(made) == 1
    assert row is not None
    assert row["sealed"] is None


async def test_what_is_wrong_is_said_at_its_field_and_nothing_is_lost(
    browser: httpx.AsyncClient,
) -> None:
    here, form = await begin(browser)
    data = {"form_token": form, "name": "All Systems", "comment": "why <b>", "size": "17"}
    answer = await browser.post(here, data=data)
    assert answer.status_code == 422
    page = html.fromstring(answer.content)
    assert "All Systems is taken." in text(page.xpath("//*[@id='name-said']")[0])
    assert "From 1 to 16." in text(page.xpath("//*[@id='size-said']")[0])
    name = page.xpath("//input[@id='name']")[0]
    assert name.get("aria-invalid") == "true"
    assert name.get("autofocus") is not None
    assert page.xpath("//textarea/text()") == ["why <b>"]
    assert page.xpath("//input[@id='size']/@value") == ["17"]
    ahead = await browser.get(here.replace("/general", "/secret"))
    assert ahead.headers["location"] == here
    long = await browser.post(here, data={**data, "name": "x" * 41, "size": "many"})
    assert "At most 40 characters; these are 41." in text(html.fromstring(long.content))
    nul = await browser.post(here, data={**data, "name": "a\0b"})
    assert nul.status_code == 422
    browser.cookies.set("tandem-language", "fr")
    french = await browser.post(here, data=data)
    assert "De 1 à 16." in french.text


async def test_a_field_is_checked_while_it_is_typed(browser: httpx.AsyncClient) -> None:
    here, form = await begin(browser)
    headers = {"HX-Request": "true"}
    taken = await browser.post(
        f"{here}/check/name", data={"form_token": form, "name": "All Systems"}, headers=headers
    )
    assert "All Systems is taken." in text(html.fromstring(taken.content))
    free = await browser.post(
        f"{here}/check/name", data={"form_token": form, "name": "New one"}, headers=headers
    )
    assert "This can be used." in text(html.fromstring(free.content))
    kept = html.fromstring((await browser.get(here)).content)
    assert kept.xpath("//input[@id='name']/@value") == ["New one"]


async def test_a_session_that_ends_in_mid_form_comes_back_to_the_same_step(
    browser: httpx.AsyncClient, clock: Watch
) -> None:
    here, form = await begin(browser)
    clock.at += timedelta(hours=20)
    typed = {"form_token": form, "name": "Kept name", "comment": "kept text", "size": "4"}
    answer = await browser.post(here, data=typed)
    assert answer.status_code == 401
    back = html.fromstring(answer.content).xpath("//input[@name='return_to']/@value")
    assert set(back) == {here}
    assert (await sign_in(browser, here)).headers["location"] == here
    page = html.fromstring((await browser.get(here)).content)
    assert page.xpath("//input[@id='name']/@value") == ["Kept name"]
    assert page.xpath("//textarea/text()") == ["kept text"]
    # The new session goes on with it, and what is typed in that one is kept too.
    form = token(page)
    await browser.post(f"{here}/check/name", data={"form_token": form, "name": "Later name"})
    page = html.fromstring((await browser.get(here)).content)
    assert page.xpath("//input[@id='name']/@value") == ["Later name"]


async def test_another_session_writes_nothing_into_a_draft(
    browser: httpx.AsyncClient, site_db: Database, clock: Watch
) -> None:
    here, form = await begin(browser)
    transport = httpx.ASGITransport(application(site_db, clock))
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as other:
        other.cookies.set("__Host-tandem-session", "made-up", domain="site.test")
        answer = await other.post(here, data={"form_token": form, "name": "Theirs"})
        assert answer.status_code == 403
    page = html.fromstring((await browser.get(here)).content)
    assert page.xpath("//input[@id='name']/@value") == ["Pilot"]


async def test_two_replicas_share_a_draft_and_it_can_be_taken_up_again(
    browser: httpx.AsyncClient, site_db: Database, clock: Watch
) -> None:
    here, form = await begin(browser)
    await browser.post(here, data={"form_token": form, "name": "Pilot", "size": "1"})
    transport = httpx.ASGITransport(application(site_db, clock))
    async with httpx.AsyncClient(
        transport=transport, base_url="https://site.test", cookies=browser.cookies
    ) as replica:
        start = html.fromstring((await replica.get(f"{ROOT}/wizards/sample")).content)
        assert start.xpath("//a[@class='primary']/@href") == [here.replace("general", "secret")]
        discard = start.xpath("//form[contains(@action, 'discard')]/@action")[0]
        await replica.post(discard, data={"form_token": form})
    assert (await browser.get(here)).status_code == 404


async def test_a_change_of_an_earlier_step_asks_for_the_later_ones_again(
    browser: httpx.AsyncClient,
) -> None:
    here, form = await begin(browser)
    second = here.replace("general", "secret")
    await browser.post(here, data={"form_token": form, "name": "Pilot", "size": "1"})
    await browser.post(second, data={"form_token": form, "password": "sesame"})
    summary = here.replace("general", "summary")
    assert (await browser.get(summary)).status_code == 200
    await browser.post(here, data={"form_token": form, "name": "Other", "size": "1"})
    assert (await browser.get(summary)).headers["location"] == second
    # The secret is still there: it need not be typed again.
    again = await browser.post(second, data={"form_token": form, "password": ""})
    assert again.headers["location"] == summary


async def test_a_picker_searches_with_and_without_a_script(browser: httpx.AsyncClient) -> None:
    here, form = await begin(browser)
    await browser.post(here, data={"form_token": form, "name": "Pilot", "size": "1"})
    second = here.replace("general", "secret")
    found = await browser.get(f"{second}/options/limiting", params={"limiting--query": "all sys"})
    assert text(html.fromstring(found.content)).split() == ["All", "Systems"]
    plain = {"limiting--query": "nothing", "limiting--search": "1"}
    answer = await browser.post(second, data={"form_token": form, **plain})
    assert answer.status_code == 200
    assert "Nothing found." in answer.text


async def test_search_and_notifications_ask_every_area(browser: httpx.AsyncClient) -> None:
    page = html.fromstring((await browser.get(f"{ROOT}/search?q=Systems")).content)
    assert "All Systems" in text(page)
    count = await browser.get(f"{ROOT}/notifications/count", headers={"HX-Request": "true"})
    assert "1" in text(html.fromstring(count.content))
    assert "Discovery is under way" in (await browser.get(f"{ROOT}/notifications")).text
    assert page.xpath("//nav[@id='navigation']//a[@href='/console/sample']") == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"--x\r\nContent-Disposition: form-data; name", "multipart/form-data; boundary=x"),
        (b"nothing", "multipart/form-data"),
        (b"\xff\xfe%%%", "application/x-www-form-urlencoded"),
        (b"a=1&" * 3000, "application/x-www-form-urlencoded"),
    ],
)
async def test_a_broken_form_is_refused_and_changes_nothing(
    browser: httpx.AsyncClient, body: bytes, kind: str
) -> None:
    here, _ = await begin(browser)
    answer = await browser.post(here, content=body, headers={"Content-Type": kind})
    assert answer.status_code in (400, 403)
    huge = await browser.post(here, content=b"x" * 3_000_000, headers={"Content-Type": kind})
    assert huge.status_code == 413


async def test_a_page_is_compressed_and_its_form_token_is_another_text_each_time(
    browser: httpx.AsyncClient,
) -> None:
    """So the size of what is compressed gives nothing of the token away."""
    here, first = await begin(browser)
    answer = await browser.get(here, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    second = token(html.fromstring(answer.content))
    assert first != second
    for one in (first, second):
        taken = await browser.post(here, data={"form_token": one, "name": "All Systems"})
        assert taken.status_code == 422
    flipped = ("0" if second[0] != "0" else "1") + second[1:]
    for wrong in ("", "zz", second[:64], flipped, "0" * 128):
        refused = await browser.post(here, data={"form_token": wrong, "name": "Pilot"})
        assert refused.status_code == 403


async def test_another_theme_on_an_answer_to_a_form_leads_to_the_page_of_that_form(
    browser: httpx.AsyncClient,
) -> None:
    here, form = await begin(browser)
    before = f"https://site.test{here}"
    answer = await browser.post(
        f"{ROOT}/sample/go", data={"form_token": form}, headers={"Referer": before}
    )
    page = html.fromstring(answer.content)
    back = page.xpath("//form[contains(@action, '/preferences')]/input[@name='return_to']/@value")
    assert back == [here]
    changed = await browser.post(
        f"{ROOT}/preferences", data={"form_token": form, "return_to": back[0], "theme": "dark"}
    )
    assert (await browser.get(changed.headers["location"])).status_code == 200
