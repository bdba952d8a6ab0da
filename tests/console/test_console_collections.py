"""Collections, users, the audit log and administrators: pages on the site's real API."""

import csv
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from console_areas import text, token
from lxml import html

import site_api
from site_api import CHEAP, NOW, PASSWORD, TENANT, Api, add_device
from tandem import console
from tandem.console.site_pages import SitePages
from tandem.infra import http
from tandem.infra.blobs import Blobs
from tandem.infra.database import Database
from tandem.infra.jobs import Jobs
from tandem.infra.secrets import SecretBox
from tandem.site import collections, content, discovery

EVIL = "<img src=x onerror=alert(1)>\"'&"
LAB = "select * from SMS_R_System where Name like 'LAB-%'"


class Browser:
    """A person with a browser: follows links and sends forms by what they see."""

    def __init__(self, web: httpx.AsyncClient, api: Api) -> None:
        self.web = web
        self.api = api

    async def page(self, path: str, status: int = 200) -> Any:
        answer = await self.web.get(path)
        assert answer.status_code == status, answer.text[:2000]
        return html.fromstring(answer.content)

    async def send(self, path: str, **fields: Any) -> httpx.Response:
        """A form of the page at this path's own, with its token."""
        shown = html.fromstring((await self.web.get("/console/password")).content)
        return await self.web.post(path, data={"form_token": token(shown), **fields})

    async def follow(self, answer: httpx.Response) -> Any:
        assert answer.status_code == 303, text(html.fromstring(answer.content))[:1500]
        return await self.page(answer.headers["location"])

    async def sign_in(self, name: str = "siteadmin", password: str = PASSWORD) -> None:
        self.web.cookies.clear()
        page = html.fromstring((await self.web.get("/console/sign-in")).content)
        fields = {"form_token": token(page), "user": name, "password": password, "return_to": ""}
        assert (await self.web.post("/console/sign-in", data=fields)).status_code == 303


@pytest.fixture
async def browser(site_db: Database, tmp_path: Path) -> AsyncIterator[Browser]:
    async with site_api.site_api(site_db, tmp_path) as api:
        await api.sign_in()

        def now() -> Any:
            return api.clock[0]

        async def token_itself(session: console.Session) -> str:
            return session.token

        async def no_sources(tx: Any) -> list[Any]:
            return []

        box = SecretBox(b"k" * 32)
        behind = console.Backend(
            console.Transport("https://site"), token_itself, console.Drafts(site_db, box, now)
        )
        gate = site_api.administrators.Gate(site_db, now, CHEAP)
        found = discovery.Discovery(site_db, Jobs(site_db.dsn), no_sources, now=now)
        packages = content.ClientPackages(Blobs.open(tmp_path / "content"), now)
        pages = SitePages(site_db, now=now, settings=CHEAP)
        app = http.application(
            [
                *api.app.routes,
                *discovery.routes(site_db, found, gate),
                *content.routes(site_db, gate, packages),
                *console.site_routes(pages, now=now, backend=behind),
            ],
            role="site",
        )
        behind.transport.app = app
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as web:
            made = Browser(web, api)
            await made.sign_in()
            yield made


async def devices(api: Api, *names: str) -> None:
    async with api.db.transaction() as tx:
        for name in names:
            await add_device(tx, name)


async def made(api: Api, name: str, *rules: dict[str, str], **more: Any) -> dict[str, Any]:
    wanted = {"name": name, "rules": list(rules), **more}
    answer = await api.web.post("/api/v1/collections", json=wanted)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def in_place(answer: httpx.Response, field: str) -> str:
    """What stands at a field that is wrong, whose control has the focus."""
    page = html.fromstring(answer.content)
    (said,) = page.xpath(f"//*[@id='{field}-said' and @role='alert']")
    assert page.xpath("//*[@autofocus and @aria-invalid='true']")
    return text(said)


def fact(page: Any, label: str) -> str:
    (value,) = page.xpath(f"//dl/div[dt[normalize-space()='{label}']]/dd")
    return text(value)


# ------------------------------------------------------------------------------- the builder


async def begin(browser: Browser, key: str = "collection", query: str = "") -> str:
    answer = await browser.web.get(f"/console/wizards/{key}{query}")
    assert answer.status_code == 303, answer.text[:1000]
    return answer.headers["location"]


async def test_a_collection_is_built_with_a_preview_and_the_same_command(browser: Browser) -> None:
    await devices(browser.api, "LAB-001", "LAB-002", "DEV-001")
    out = await made(browser.api, "Out", {"kind": "direct", "device": "LAB-002"})
    general = await begin(browser)
    answer = await browser.send(general, name="Pilot", comment="the lab's", limiting="SMS00001")
    rules = answer.headers["location"]
    shown = await browser.page(rules)
    assert "Without a rule nobody is a member." in text(shown)
    async with browser.api.db.transaction() as tx:
        dev = await collections.resource(tx, "DEV-001")
    fields = {"devices": str(dev.id), "exclude": out["id"], "query": LAB}
    preview = await browser.send("/console/collections/preview", limiting="SMS00001", **fields)
    said = text(html.fromstring(preview.content))
    assert "2 devices would be members" in said
    assert "DEV-001" in said
    assert "LAB-002" not in said
    summary = await browser.follow(await browser.send(rules, **fields))
    assert fact(summary, "Members today") == "2"
    command = text(summary.xpath("//pre[@id='command']")[0])
    assert command == (
        "tandem collection create Pilot --comment 'the lab'\"'\"'s'"
        f" --member {dev.id} --query '{LAB.replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'"
        f" --exclude {out['id']}"
    )
    finish = rules.rpartition("/")[0] + "/finish"
    page = await browser.follow(await browser.send(finish))
    assert "The collection Pilot was created. Members: 2." in text(page)
    assert (await browser.send(finish)).status_code == 303
    assert (await browser.api.get("/api/v1/collections"))["total"] == 8


async def test_each_wrong_answer_is_at_its_field_and_nothing_is_lost(browser: Browser) -> None:
    general = await begin(browser)
    empty = await browser.send(general, name="", comment="kept", limiting="SMS00001")
    assert empty.status_code == 422
    assert in_place(empty, "name") == "Fill this in."
    assert "kept" in empty.text
    taken = await browser.send(general, name="all systems", limiting="SMS00001")
    assert "There is a collection All Systems already." in in_place(taken, "name")
    rules = (await browser.send(general, name="P", limiting="SMS00001")).headers["location"]
    query = "select * from SMS_R_System where Nme = 'x'"
    wrong = await browser.send(rules, query=query)
    assert wrong.status_code == 422
    assert "SMS_R_System has no attribute Nme." in in_place(wrong, "query")
    (mark,) = html.fromstring(wrong.content).xpath("//pre//mark")
    assert text(mark) == "Nme"
    assert query in text(html.fromstring(wrong.content).xpath("//textarea[@id='query']")[0])
    gone = await browser.send(rules, query=LAB, include="CM1FFFFF")
    assert gone.status_code == 404
    assert "CM1FFFFF" in in_place(gone, "include")


@pytest.mark.parametrize(
    ("rows", "match", "query"),
    [
        ([("Name", "begins", "LAB-")], "all", "Name like 'LAB-%'"),
        ([("Name", "contains", "a_b")], "all", "Name like '%a[_]b%'"),
        (
            [("Name", "is", "O'Hara"), ("Build", "least", "10.0")],
            "any",
            "Name = \"O'Hara\" or Build >= '10.0'",
        ),
        ([("AADDeviceID", "filled", "")], "all", "AADDeviceID is not null"),
    ],
)
async def test_conditions_write_the_query(
    browser: Browser, rows: list[tuple[str, str, str]], match: str, query: str
) -> None:
    general = await begin(browser)
    rules = (await browser.send(general, name="P", limiting="SMS00001")).headers["location"]
    fields = {"match": match, "pen--search": "1"}
    for place, (attribute, operator, value) in enumerate(rows, 1):
        fields |= {f"attribute{place}": attribute, f"operator{place}": operator}
        fields[f"value{place}"] = value
    answer = await browser.send(rules, **fields)
    assert answer.status_code == 200
    page = html.fromstring(answer.content)
    written = text(page.xpath("//textarea[@id='query']")[0])
    assert written == f"select * from SMS_R_System where {query}"
    assert not page.xpath("//*[@id='preview']//*[@role='alert']")


@pytest.mark.parametrize("value", ["100%", "a[b", "both ' and \"", ""])
async def test_a_condition_that_no_query_can_say_is_refused(browser: Browser, value: str) -> None:
    general = await begin(browser)
    rules = (await browser.send(general, name="P", limiting="SMS00001")).headers["location"]
    fields = {"attribute1": "Name", "operator1": "begins", "value1": value, "pen--search": "1"}
    page = html.fromstring((await browser.send(rules, **fields)).content)
    assert page.xpath("//*[@role='alert']")
    assert not text(page.xpath("//textarea[@id='query']")[0])


async def test_rules_are_added_to_a_collection(browser: Browser) -> None:
    await devices(browser.api, "LAB-001")
    one = await made(browser.api, "Pilot")
    step = await begin(browser, "collection-rules", f"?collection={one['id']}")
    nothing = await browser.send(step, collection=one["id"])
    assert nothing.status_code == 422
    summary = await browser.follow(await browser.send(step, collection=one["id"], query=LAB))
    assert f"tandem collection add-rule {one['id']} --query" in text(summary)
    page = await browser.follow(await browser.send(step.rpartition("/")[0] + "/finish"))
    assert "The rules of Pilot were added. Members: 1." in text(page)
    circle = await browser.send(
        await begin(browser, "collection-rules", f"?collection={one['id']}"),
        collection=one["id"],
        include=one["id"],
    )
    assert "cannot name itself" in in_place(circle, "include")


# ------------------------------------------------------------------------------- its pages


async def test_a_collection_with_ten_thousand_members_is_read_by_pages(browser: Browser) -> None:
    async with browser.api.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name,"
            " os_version, client_version, discovered_at) SELECT 'GUID:' || n, 'F-' ||"
            " lpad(n::text, 5, '0'), 't', 'd' || n, 'Windows', '10', '5', now()"
            " FROM generate_series(0, 9999) n"
        )
    page = await browser.page("/console/collections/SMS00001/members?page=200")
    assert "10,000 devices" in text(page)
    assert [text(cell) for cell in page.xpath("//tbody//th")][-1] == "F-09999"
    assert "Page 200 of 200" in text(page)
    beyond = await browser.page("/console/collections/SMS00001/members?page=999&sort=-evil")
    assert "Page 200 of 200" in text(beyond)
    found = await browser.page("/console/collections/SMS00001/members?search=f-0001")
    assert "10 devices" in text(found)
    file = (await browser.web.get("/console/collections/SMS00001/members.csv")).text
    assert len(file.splitlines()) == 10_001


async def test_what_a_device_calls_itself_is_never_markup_or_a_formula(browser: Browser) -> None:
    await devices(browser.api, EVIL, "=cmd()|'/c calc'!A1")
    one = await made(browser.api, EVIL, {"kind": "query", "name": EVIL, "query": LAB}, comment=EVIL)
    async with browser.api.db.transaction() as tx:
        user = collections.UserResource(TENANT, "o-1", f"x{EVIL}@contoso.com", EVIL, "+1@c.com")
        await collections.upsert_user(tx, user, NOW)
    await browser.api.keeper.settle_all()
    own = f"/console/collections/{one['id']}"
    paths = ["/console/collections", own, f"{own}/rules", f"{own}/edit", f"{own}/delete"]
    paths += ["/console/collections/SMS00001/members", "/console/users", "/console/audit"]
    paths += ["/console/search?q=%3Cimg", "/console/notifications"]
    for path in paths:
        answer = await browser.web.get(path)
        assert answer.status_code == 200, (path, answer.text[:800])
        page = html.fromstring(answer.content)
        assert not page.xpath("//img | //*[@onerror]"), path
    members = (await browser.web.get("/console/collections/SMS00001/members.csv")).text
    users = (await browser.web.get("/console/users.csv")).text
    audit = (await browser.web.get("/console/audit.csv")).text
    for file in (members, users, audit):
        for row in csv.reader(io.StringIO(file)):
            assert all(not cell.startswith(("=", "+", "@")) for cell in row)


async def test_the_second_administrator_sees_what_the_first_did_and_keeps_the_form(
    browser: Browser,
) -> None:
    one = await made(browser.api, "Pilot", comment="as it was")
    own = f"/console/collections/{one['id']}"
    form = await browser.page(f"{own}/edit")
    version = form.xpath("//input[@name='version']/@value")[0]
    await browser.api.web.patch(f"/api/v1/collections/{one['id']}", json={"comment": "first"})
    fields = {"name": "Pilot 2", "comment": "second", "limiting": "SMS00001", "version": version}
    conflict = await browser.send(f"{own}/edit", **fields)
    assert conflict.status_code == 412
    shown = html.fromstring(conflict.content)
    assert "Somebody else has changed this collection" in text(shown.xpath("//*[@role='alert']")[0])
    assert fact(shown, "Comment") == "first"
    assert shown.xpath("//input[@id='name']/@value") == ["Pilot 2"]
    fields["version"] = shown.xpath("//input[@name='version']/@value")[0]
    page = await browser.follow(await browser.send(f"{own}/edit", **fields))
    assert "Pilot 2 was saved." in text(page)
    taken = await browser.send(f"{own}/edit", **{**fields, "name": "All Systems", "version": ""})
    assert "already" in in_place(taken, "name")


async def test_what_is_used_is_not_deleted_and_the_page_names_what_uses_it(
    browser: Browser,
) -> None:
    one = await made(browser.api, "Pilot")
    inner = await made(browser.api, "Inner", limiting="Pilot")
    own = f"/console/collections/{one['id']}"
    page = await browser.page(f"{own}/delete", 409)
    (row,) = page.xpath("//tbody/tr")
    assert [text(cell) for cell in row][:2] == ["Limits the collection", "Inner"]
    assert (await browser.send(f"{own}/delete", confirmed="1")).status_code == 409
    gone = f"/console/collections/{inner['id']}/delete"
    ask = await browser.page(gone)
    assert "0 devices are members" in text(ask)
    version = ask.xpath("//input[@name='version']/@value")[0]
    page = await browser.follow(await browser.send(gone, confirmed="1", version=version))
    assert "The collection Inner was deleted." in text(page)


async def test_what_evaluating_costs_and_when_it_is_done(browser: Browser) -> None:
    await devices(browser.api, "LAB-001")
    one = await made(browser.api, "Lab", {"kind": "query", "query": LAB})
    own = f"/console/collections/{one['id']}/evaluation"
    page = await browser.page(own)
    assert fact(page, "Last full update") == "–"
    assert "1 device, 2 collections" in fact(page, "Waiting to be looked at")
    await browser.api.evaluator.tend()
    await devices(browser.api, "LAB-002")
    await browser.api.evaluator.tend()
    page = await browser.page(own)
    assert "ms" in fact(page, "Last full update")
    assert fact(page, "Incremental updates so far").startswith("1, on average")
    assert fact(page, "Members found") == "2"
    assert "0 devices, 0 collections" in fact(page, "Waiting to be looked at")
    assert page.xpath("//input[@name='incremental'][@checked]")
    version = page.xpath("//input[@name='version']/@value")[0]
    wrong = await browser.send(own, full_every_minutes="-1", version=version)
    assert wrong.status_code == 422
    assert in_place(wrong, "full_every_minutes")
    saved = await browser.send(own, full_every_minutes="0", version=version)
    page = await browser.follow(saved)
    assert "Lab was saved." in text(page)
    assert fact(page, "Next full update") == "By hand"
    assert not page.xpath("//input[@name='incremental'][@checked]")
    assert (await browser.send(own, full_every_minutes="5", version=version)).status_code == 409
    page = await browser.page("/console/collections?sort=cost&descending=1")
    assert page.xpath(f"//td/a[@href='{own}']")


async def test_a_rule_is_removed_once_it_is_confirmed(browser: Browser) -> None:
    await devices(browser.api, "LAB-001")
    one = await made(browser.api, "Pilot", {"kind": "direct", "device": "LAB-001"})
    path = f"/console/collections/{one['id']}/rules/{one['rules'][0]['id']}/remove"
    ask = await browser.send(path, name="LAB-001")
    assert "LAB-001 is removed from Pilot. Members now: 1." in text(html.fromstring(ask.content))
    page = await browser.follow(await browser.send(path, name="LAB-001", confirmed="1"))
    assert "No rule. A collection without rules has no members." in text(page)
    updated = await browser.send(f"/console/collections/{one['id']}/evaluate")
    assert "Members: 0" in text(await browser.follow(updated))


@pytest.mark.parametrize(
    "path", ["collections/CM1FFFFF", "collections/%00", "administrators/x/role"]
)
async def test_what_is_not_there_is_said_so(browser: Browser, path: str) -> None:
    answer = await browser.web.get(f"/console/{path}")
    assert answer.status_code in (400, 404)
    assert "Traceback" not in answer.text


# ------------------------------------------------------------------------------- people


async def test_discovery_says_how_it_goes_in_plain_words(browser: Browser) -> None:
    refused = await browser.send("/console/discovery")
    assert refused.status_code == 409
    assert "User discovery is not enabled for any Azure service." in refused.text
    async with browser.api.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO discovery_run (service, kind, state, started_at, users, reason, cure)"
            " VALUES ('Contoso', 'full', 'failed', %s, 0, 'No consent.', 'Grant it.')",
            (NOW,),
        )
    page = await browser.page("/console/discovery")
    assert "No consent. Grant it." in text(page)
    assert "User discovery failed" in text(await browser.page("/console/notifications"))
    async with browser.api.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO discovery_run (service, kind, state, started_at, users)"
            " VALUES ('Contoso', 'full', 'running', %s, 1500)",
            (NOW,),
        )
    shown = text(await browser.page("/console/discovery"))
    assert "Discovery of Contoso is under way; users so far: 1,500" in shown
    assert "users so far: 1500" in text(await browser.page("/console/notifications"))


async def test_an_administrator_is_added_changed_and_removed(browser: Browser) -> None:
    add = "/console/administrators/add"
    fields = {"name": "Ola", "role": "Read-only Analyst", "sort": "local", "scopes": "All"}
    missing = await browser.send(add, **fields)
    assert in_place(missing, "password") == "Fill this in."
    weak = await browser.send(add, **fields, password="short")
    assert "at least 10 characters" in in_place(weak, "password")
    assert "short" not in html.fromstring(weak.content).xpath("//input/@value")
    page = await browser.follow(await browser.send(add, **fields, password=PASSWORD))
    assert "Ola was added." in text(page)
    twice = await browser.send(add, **fields, password=PASSWORD)
    assert "There is an administrator Ola already" in in_place(twice, "name")
    role = "/console/administrators/Ola/role"
    version = (await browser.page(role)).xpath("//input[@name='version']/@value")[0]
    fields = {"role": "Operations Administrator", "version": version, "scopes": "All"}
    assert "was changed" in text(await browser.follow(await browser.send(role, **fields)))
    stale = await browser.send(role, **{**fields, "role": "Full Administrator"})
    assert stale.status_code == 409
    ask = await browser.page("/console/administrators/Ola/remove")
    assert "every open session ends" in text(ask)
    gone = await browser.send("/console/administrators/Ola/remove", confirmed="1")
    assert "no longer an administrator" in text(await browser.follow(gone))


async def test_scopes_are_made_given_to_an_administrator_and_shown(browser: Browser) -> None:
    scopes = "/console/scopes"
    assert "Paris was added." in text(
        await browser.follow(await browser.send(scopes, name="Paris", comment="The office"))
    )
    twice = await browser.send(scopes, name="paris")
    assert "There is a scope paris already" in in_place(twice, "name")
    fields = {"name": "Pat", "role": "Full Administrator", "sort": "local", "password": PASSWORD}
    none = await browser.send("/console/administrators/add", **fields)
    assert "at least one scope" in in_place(none, "scopes")
    unknown = {**fields, "scopes": "Paris", "collections": "Nowhere"}
    assert (await browser.send("/console/administrators/add", **unknown)).status_code == 404
    page = await browser.follow(
        await browser.send(
            "/console/administrators/add", **fields, scopes="Paris", collections="All Systems"
        )
    )
    assert "Paris; SMS00001" in text(page)
    may = text(await browser.page("/console/administrators/Pat/permissions"))
    assert "only what has the scopes Paris" in may
    used = await browser.send(f"{scopes}/Paris/remove")
    assert (used.status_code, "Give them other scopes first" in used.text) == (409, True)


async def test_scopes_are_given_to_objects_and_taken_from_them(browser: Browser) -> None:
    assert (await browser.api.web.post("/api/v1/scopes", json={"name": "Paris"})).is_success
    new = {"name": EVIL, "setting": "Demo/A", "value": "1", "collection": "SMS00001"}
    assert (await browser.api.web.post("/api/v1/configurations", json=new)).is_success
    objects = "/console/scopes/objects"
    shown = await browser.page(objects)
    assert EVIL in text(shown)
    (link,) = [a for a in shown.xpath("//a") if a.text == EVIL]
    form = await browser.page(link.get("href"))
    assert "Default" in text(form)
    assert form.xpath("//input[@name='scopes' and @value='All']") == []
    (version,) = form.xpath("//input[@name='version']/@value")
    given = await browser.send(link.get("href"), scopes="Paris", version=version)
    assert f"The scopes of {EVIL} were changed." in text(await browser.follow(given))
    late = await browser.send(link.get("href"), scopes="Default", version=version)
    assert late.status_code == 409
    none = await browser.send(link.get("href"))
    assert "at least one scope" in in_place(none, "scopes")
    paris = text(await browser.page("/console/scopes/Paris"))
    assert EVIL in paris
    assert "No administrator has it." in paris
    for nothing in ("gateway/nothing", "configuration/nothing", "device/x"):
        assert (await browser.web.get(f"{objects}/{nothing}")).status_code in (400, 404)


async def test_a_limited_full_administrator_gets_their_part_and_grey_sliders(
    browser: Browser,
) -> None:
    made = await browser.api.web.post("/api/v1/collections", json={"name": "Paris"})
    wanted = {"name": "Pat", "role": "full-administrator", "password": PASSWORD}
    wanted |= {"collections": [made.json()["id"]]}
    assert (await browser.api.web.post("/api/v1/administrators", json=wanted)).status_code == 201
    await browser.sign_in("Pat")
    found = text(await browser.page("/console/collections"))
    assert "Paris" in found
    assert "SMS00001" not in found
    for hidden in ("administrators", "audit", "users", "collections/SMS00001"):
        answer = await browser.web.get(f"/console/{hidden}")
        assert answer.status_code in (403, 404), hidden
        assert "siteadmin" not in answer.text
    assert "siteadmin" not in (await browser.web.get("/console/notifications")).text


async def test_the_last_full_administrator_cannot_go(browser: Browser) -> None:
    answer = await browser.send("/console/administrators/siteadmin/remove", confirmed="1")
    assert answer.status_code == 409
    assert "the last full administrator" in answer.text
    role = await browser.send(
        "/console/administrators/siteadmin/role", role="Read-only Analyst", scopes="All"
    )
    assert "the last full administrator" in role.text


async def test_who_may_not_is_told_which_role_it_needs(browser: Browser) -> None:
    wanted = {"name": "Rea", "role": "read-only-analyst", "password": PASSWORD}
    assert (await browser.api.web.post("/api/v1/administrators", json=wanted)).status_code == 201
    await browser.sign_in("Rea")
    page = await browser.page("/console/administrators")
    assert "Only a full administrator" in text(page)
    assert not page.xpath("//a[contains(@href, '/administrators/add')]")
    refused = await browser.send("/console/collections/SMS00001/evaluate")
    assert refused.status_code == 403
    assert "Operations Administrator" in refused.text


async def test_one_s_own_password_is_changed(browser: Browser) -> None:
    path = "/console/password"
    new = "Battery-Staple-3"
    other = await browser.send(path, current=PASSWORD, password=new, again="different-1")
    assert in_place(other, "again") == "This is not the same password."
    wrong = await browser.send(path, current="not-it-at-all", password=new, again=new)
    assert "The current password is wrong." in in_place(wrong, "current")
    assert new not in wrong.text
    page = await browser.follow(await browser.send(path, current=PASSWORD, password=new, again=new))
    assert "Your password was changed" in text(page)
    await browser.sign_in(password=new)


# ------------------------------------------------------------------------------- log, search


async def test_the_log_shows_before_and_after_and_its_proof(browser: Browser) -> None:
    one = await made(browser.api, "Pilot", comment="old")
    await browser.api.web.patch(f"/api/v1/collections/{one['id']}", json={"comment": "new"})
    page = await browser.page("/console/audit?target=pilot")
    assert "2 entries" in text(page)
    (row,) = page.xpath("//tbody/tr[.//del]")
    assert [text(row.xpath(f".//{tag}")[0]) for tag in ("del", "ins")] == ["old", "new"]
    assert "Not verified yet" in text(page)
    page = await browser.follow(await browser.send("/console/audit/verify"))
    assert "Verified up to entry" in text(page)
    async with browser.api.db.transaction() as tx:
        await tx.execute("ALTER TABLE audit_entry DISABLE TRIGGER ALL")
        await tx.execute("UPDATE audit_entry SET actor = 'mallory' WHERE id = 2")
    page = await browser.follow(await browser.send("/console/audit/verify"))
    assert "Entry 2 was changed" in text(page.xpath("//*[@role='alert']")[0])
    wrong = await browser.page("/console/audit?from=yesterday", 422)
    assert "from is no time" in text(wrong)
    file = (await browser.web.get("/console/audit.csv?action=collection.change")).text
    assert "comment: old → new" in file


async def test_search_groups_what_it_finds_by_kind(browser: Browser) -> None:
    await devices(browser.api, "CONT-1")
    await browser.api.keeper.settle_all()
    one = await made(browser.api, "Contractors")
    page = await browser.page("/console/search?q=cont")
    headings = [text(item) for item in page.xpath("//main//h2")]
    assert [item for item in headings if item != "Gateways"] == [
        "Devices", "Collections", "Apps of the tenant",
    ]  # fmt: skip
    assert page.xpath(f"//a[@href='/console/collections/{one['id']}']")


async def test_the_client_package_is_shown_or_why_there_is_none(browser: Browser) -> None:
    page = await browser.page("/console/content")
    assert re.search("SHA-256|wixl", text(page))
    assert "a placeholder stands in its place" in text(page)


# ------------------------------------------------------------------------------- both languages


async def test_every_page_speaks_french(browser: Browser) -> None:
    one = await made(browser.api, "Pilot", {"kind": "query", "query": LAB})
    browser.web.cookies.set("tandem-language", "fr")
    own = f"/console/collections/{one['id']}"
    said = {
        "/console/collections": "Regroupements",
        f"{own}/rules": "Règles d'appartenance",
        f"{own}/uses": "Rien n'utilise ce regroupement",
        f"{own}/members": "Aucun appareil ne correspond.",
        f"{own}/evaluation": "Ce que coûte l'évaluation",
        "/console/users": "Aucun utilisateur ne correspond.",
        "/console/discovery": "La découverte n'a pas encore été lancée.",
        "/console/administrators": "Ajouter un administrateur",
        "/console/password": "Mot de passe actuel",
        "/console/audit": "Journal d'audit",
        "/console/content": "Applications et contenu",
    }
    for path, sentence in said.items():
        assert sentence in text(await browser.page(path)), path
    general = await begin(browser)
    rules = (await browser.send(general, name="P", limiting="SMS00001")).headers["location"]
    wrong = await browser.send(rules, query="select * from SMS_R_System where Nme = 'x'")
    assert "SMS_R_System n'a pas d'attribut Nme." in in_place(wrong, "query")


async def test_a_collection_of_users_is_built_shown_and_kept_apart(browser: Browser) -> None:
    async with browser.api.db.transaction() as tx:
        for name in ("ada", "bob"):
            user = collections.UserResource(
                "t", f"o-{name}", f"{name}@contoso.com", name.title(), f"{name}@contoso.com"
            )
            await collections.upsert_user(tx, user, NOW)
        ada = await collections.find_user(tx, "t", "o-ada")
    assert ada is not None
    general = await begin(browser, "user-collection")
    rules = (await browser.send(general, name="Staff", limiting="SMS00004")).headers["location"]
    query = "select * from SMS_R_User where Mail like 'b%'"
    preview = await browser.send(
        "/console/collections/preview", type="user", limiting="SMS00004", users=str(ada.id),
        query=query,
    )  # fmt: skip
    assert "2 users would be members" in text(html.fromstring(preview.content))
    wrong = await browser.send(rules, query="select * from SMS_R_System")
    assert "read SMS_R_User" in in_place(wrong, "query")
    summary = await browser.follow(await browser.send(rules, users=str(ada.id), query=query))
    assert fact(summary, "Members today") == "2"
    command = text(summary.xpath("//pre[@id='command']")[0])
    assert command.startswith(f"tandem collection create Staff --type user --user {ada.id} --query")
    page = await browser.follow(await browser.send(rules.rpartition("/")[0] + "/finish"))
    assert "The collection Staff was created. Members: 2." in text(page)
    (made,) = (await browser.api.get("/api/v1/collections", search="Staff"))["items"]
    own = f"/console/collections/{made['id']}"
    shown = text(await browser.page(f"{own}/members?sort=upn&descending=1"))
    assert shown.index("bob@contoso.com") < shown.index("ada@contoso.com")
    assert "bob@contoso.com" in (await browser.web.get(f"{own}/members.csv")).text
    assert "All Users and User Groups" in text(await browser.page(f"{own}/uses"))
    assert "Create a collection of users" in text(await browser.page("/console/collections"))
    eligible = text(await browser.page("/console/collections/SMS000CE"))
    assert "joined to the tenant" in eligible
    assert "It is not changed and not deleted" in eligible
