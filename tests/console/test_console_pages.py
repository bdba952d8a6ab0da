"""What the pages say and refuse, read from their HTML."""

import re

import httpx
import pytest
from console_fleet import FLEET, PASSWORD, Fleet
from lxml import html

from tandem.console.pages import FORM_COOKIE, SESSION_COOKIE
from tandem.console.summary import matches

SITE_PAGES = [
    "/console/",
    "/console/devices",
    "/console/devices/d-0001",
    "/console/devices/d-0064/timeline",
    "/console/devices/d-0001/logs",
]
TENANT_PAGES = ["/console/devices", "/console/devices/d-0063", "/console/apps", "/console/apps/a-1"]


def admit(client: httpx.AsyncClient, fleet: Fleet) -> None:
    client.cookies.set(SESSION_COOKIE, fleet.admit().token)


async def read(client: httpx.AsyncClient, path: str, **options: object) -> html.HtmlElement:
    answer = await client.get(path, **options)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return html.fromstring(answer.content)


def text(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def token(page: html.HtmlElement) -> str:
    return str(page.xpath("//input[@name='form_token']/@value")[0])


@pytest.mark.parametrize("path", SITE_PAGES)
async def test_every_page_of_the_site_wants_a_session(site: httpx.AsyncClient, path: str) -> None:
    answer = await site.get(path)
    assert answer.status_code == 401
    assert html.fromstring(answer.content).xpath("//form[@action='/console/sign-in']")


@pytest.mark.parametrize("path", TENANT_PAGES)
async def test_every_page_of_the_tenant_wants_a_session(
    tenant: httpx.AsyncClient, path: str
) -> None:
    answer = await tenant.get(path)
    assert answer.status_code == 401
    assert "/console/sign-in/begin" in answer.text


async def test_signing_in_goes_on_to_the_page_that_was_asked_for(
    site: httpx.AsyncClient,
) -> None:
    asked = html.fromstring((await site.get("/console/devices?stage=policy")).content)
    (back,) = asked.xpath("//form[@action='/console/sign-in']/input[@name='return_to']/@value")
    fields = {
        "form_token": token(asked),
        "return_to": back,
        "user": "admin",
        "password": PASSWORD,
    }
    answer = await site.post("/console/sign-in", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/console/devices?stage=policy",
    )
    (cookie,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE)]
    for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert (await site.get(answer.headers["location"])).status_code == 200


async def test_a_wrong_password_is_refused_on_the_same_form(site: httpx.AsyncClient) -> None:
    page = html.fromstring((await site.get("/console/sign-in")).content)
    fields = {"form_token": token(page), "return_to": "", "user": "admin", "password": "wrong"}
    answer = await site.post("/console/sign-in", data=fields)
    assert answer.status_code == 401
    again = html.fromstring(answer.content)
    assert "TRY-AGAIN" in text(again.xpath("//*[@role='alert']")[0])
    assert again.xpath("//input[@name='user']/@value") == ["admin"]
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
    site: httpx.AsyncClient, fleet: Fleet, spoil: dict[str, dict[str, str]]
) -> None:
    admit(site, fleet)
    good = token(await read(site, "/console/"))
    answer = await site.post(
        "/console/sign-out",
        data={"form_token": good} | spoil.get("data", {}),
        headers=spoil.get("headers", {}),
    )
    assert answer.status_code == 403
    assert fleet.sessions
    answer = await site.post("/console/sign-out", data={"form_token": good})
    assert answer.status_code == 303
    assert not fleet.sessions


async def test_the_form_token_is_another_one_after_signing_in(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    before = token(await read(site, "/console/sign-in"))
    assert site.cookies[FORM_COOKIE]
    admit(site, fleet)
    assert token(await read(site, "/console/")) != before


async def test_going_on_never_leads_to_another_site(site: httpx.AsyncClient, fleet: Fleet) -> None:
    admit(site, fleet)
    good = token(await read(site, "/console/"))
    for back in (
        "https://elsewhere.test/",
        "//elsewhere.test",
        "/console/\\elsewhere",
        "/api/v1/x",
    ):
        fields = {"form_token": good, "return_to": back, "theme": "dark"}
        answer = await site.post("/console/preferences", data=fields)
        assert answer.headers["location"] == "/console/"


async def test_theme_and_language_are_kept(site: httpx.AsyncClient, fleet: Fleet) -> None:
    admit(site, fleet)
    good = token(await read(site, "/console/"))
    for field in ({"theme": "dark"}, {"language": "fr"}):
        await site.post("/console/preferences", data={"form_token": good, "return_to": "/"} | field)
    page = await read(site, "/console/devices")
    assert (page.get("lang"), page.get("data-theme")) == ("fr", "dark")
    assert text(page.xpath("//h1")[0]) == "Appareils"


async def test_the_browser_s_language_is_spoken(site: httpx.AsyncClient, fleet: Fleet) -> None:
    admit(site, fleet)
    for accepted, spoken in {
        "fr-BE,fr;q=0.9,en;q=0.5": "fr",
        "de": "en",
        "en,fr;q=0.1": "en",
    }.items():
        page = await read(site, "/console/", headers={"accept-language": accepted})
        assert page.get("lang") == spoken


@pytest.mark.parametrize("path", SITE_PAGES)
async def test_nothing_on_a_page_is_inline_or_from_elsewhere(
    site: httpx.AsyncClient, fleet: Fleet, path: str
) -> None:
    admit(site, fleet)
    answer = await site.get(path)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'self'")
    page = html.fromstring(answer.content)
    assert not page.xpath("//script[not(@src)] | //style | //@style | //@onclick | //@hx-on")
    for address in page.xpath("//@src | //link/@href | //form/@action | //@hx-get"):
        assert address.startswith("/console/")


async def test_static_files_may_be_kept_for_ever_under_their_digest(
    site: httpx.AsyncClient,
) -> None:
    page = html.fromstring((await site.get("/console/sign-in")).content)
    for address in page.xpath("//script/@src | //link/@href"):
        answer = await site.get(address)
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["cache-control"]
        if len(answer.content) > 1000:
            assert answer.headers["content-encoding"] == "gzip"
    answer = await site.get("/console/static/x/..%2f..%2fpages.py")
    assert answer.status_code == 404


async def test_the_dashboard_counts_what_its_links_list(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    """Every number of every tile leads to a list of exactly that many devices."""
    admit(site, fleet)
    page = await read(site, "/console/")
    followed = 0
    for link in page.xpath("//div[@class='tiles']//table//tr[.//a]"):
        for anchor in link.xpath(".//a"):
            shown = text(anchor) if anchor.getparent().tag == "td" else text(link.xpath("./td")[-1])
            count = int(re.sub(r"\(.*\)|\D", "", shown))
            listed = await read(site, anchor.get("href"))
            found = int(re.sub(r"\D", "", text(listed.xpath("//p[@class='count']")[0])))
            assert found == count, anchor.get("href")
            followed += 1
    assert followed > 35


async def test_the_five_tiles_and_the_sixth_are_there(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    admit(site, fleet)
    page = await read(site, "/console/")
    assert {text(h) for h in page.xpath("//div[@class='tiles']//h2")} == {
        "Client OS distribution",
        "Co-management status",
        "Co-management enrolment status",
        "Workload transition",
        "Enrolment errors",
        "From enrolment to co-management",
    }
    assert "0x80180018" in text(page)


async def test_co_managed_is_shown_only_while_both_authorities_say_so(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    admit(site, fleet)
    by_id = {device.id: device for device in FLEET}
    assert not by_id["d-0062"].mdm_enrolled
    for device_id, said in {
        "d-0001": "Co-managed",
        "d-0062": "Site",
        "d-0063": "MDM service",
        "d-0064": "Nobody yet",
    }.items():
        page = await read(site, f"/console/devices/{device_id}")
        assert text(page.xpath("//p[@class='headline']/span")[0]) == said
    page = await read(site, "/console/devices?management=co-managed")
    assert text(page.xpath("//p[@class='count']")[0]) == "61 devices"


async def test_a_device_shows_who_owns_each_of_the_seven_workloads(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    admit(site, fleet)
    page = await read(site, "/console/devices/d-0061")
    rows = {
        text(row.xpath("./th")[0]): [text(cell) for cell in row.xpath("./td")]
        for row in page.xpath("//section[.//*[@id='owners-title']]//tbody/tr")
    }
    assert len(rows) == 7
    assert rows["Client apps"] == ["MDM service", "Site", "On its way"]
    assert rows["Compliance policies"] == ["Site", "Site", "Agreed"]


async def test_the_list_filters_sorts_and_pages_by_its_address(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    admit(site, fleet)
    page = await read(site, "/console/devices?sort=name&descending=1&page=2")
    names = [text(cell) for cell in page.xpath("//tbody/tr/th")]
    assert names == [f"LAB-{number:03}" for number in range(19, 0, -1)]
    assert page.xpath("//th[@aria-sort='descending']")
    page = await read(site, "/console/devices?search=lab-06&page=99")
    assert len(page.xpath("//tbody/tr")) == 10
    assert "LAB-06" in text(page)
    page = await read(site, "/console/devices?sort=nonsense&stage=nonsense&page=x&error=%C2%B2")
    assert text(page.xpath("//p[@class='count']")[0]) == f"{len(FLEET)} devices"


async def test_what_is_listed_can_be_exported(site: httpx.AsyncClient, fleet: Fleet) -> None:
    from console_fleet import device

    fleet.devices_known = (*FLEET, device(99, name="=cmd|calc", user="@x"))
    admit(site, fleet)
    answer = await site.get("/console/devices.csv?sort=name")
    lines = answer.text.splitlines()
    assert len(lines) == len(fleet.devices_known) + 1
    assert lines[1].startswith("'=cmd|calc,'@x,")
    answer = await site.get("/console/devices.csv?enrollment=failure-joined")
    assert len(answer.text.splitlines()) == 2


async def test_a_fragment_is_sent_only_when_it_has_news(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    admit(site, fleet)
    page = await read(site, "/console/")
    version = re.search(r"\w{16}", page.xpath("//*[@id='live']/@hx-headers")[0])
    assert version
    ask = {"HX-Request": "true", "X-Fragment-Version": version[0]}
    answer = await site.get("/console/", headers=ask)
    assert (answer.status_code, answer.text) == (204, "")
    fleet.devices_known = FLEET[1:]
    answer = await site.get("/console/", headers=ask)
    assert answer.status_code == 200
    assert answer.text.lstrip().startswith('<div id="live"')
    assert "<html" not in answer.text


async def test_an_ended_session_leads_a_fragment_to_the_sign_in(
    site: httpx.AsyncClient,
) -> None:
    current = "https://site.test/console/devices?search=x"
    headers = {"HX-Request": "true", "HX-Current-URL": current}
    answer = await site.get("/console/", headers=headers)
    back = "%2Fconsole%2Fdevices%3Fsearch%3Dx"
    assert answer.headers["hx-redirect"] == f"/console/sign-in?return_to={back}"


async def test_without_the_tenant_the_pages_say_what_is_missing(
    site: httpx.AsyncClient, fleet: Fleet
) -> None:
    fleet.tenant_gone = "TENANT-UNREACHABLE"
    admit(site, fleet)
    for path in ("/console/", "/console/devices", "/console/devices/d-0001"):
        assert "TENANT-UNREACHABLE" in text(await read(site, path))


async def test_a_refusal_is_a_page_with_its_cure(site: httpx.AsyncClient, fleet: Fleet) -> None:
    admit(site, fleet)
    answer = await site.get("/console/devices/none")
    assert answer.status_code == 404
    assert "LOOK-IN-THE-LIST" in answer.text
    answer = await site.get("/console/no/such/page", headers={"accept-language": "fr"})
    assert answer.status_code == 404
    assert "Cette page n’existe pas." in answer.text


async def test_a_bug_shows_an_id_and_nothing_else(site: httpx.AsyncClient, fleet: Fleet) -> None:
    admit(site, fleet)
    fleet.broken = True
    answer = await site.get("/console/", headers={"x-correlation-id": "0123456789abcdef"})
    assert answer.status_code == 500
    assert "0123456789abcdef" in answer.text
    assert "RuntimeError" not in answer.text
    assert "a bug" not in answer.text


async def test_data_of_devices_is_never_markup(site: httpx.AsyncClient, fleet: Fleet) -> None:
    from console_fleet import device

    fleet.devices_known = (device(1, name="<script>x</script>", trouble="<img src=x>"),)
    admit(site, fleet)
    for path in ("/console/", "/console/devices", "/console/devices/d-0001"):
        answer = await site.get(path)
        assert "<script>x" not in answer.text
        assert "<img" not in answer.text


async def test_the_tenant_s_sign_in_goes_through_its_token_service(
    tenant: httpx.AsyncClient,
) -> None:
    answer = await tenant.get("/console/sign-in/begin?return_to=/console/apps")
    assert answer.status_code == 303
    assert answer.headers["location"] == "https://tenant/authorize?to=/console/apps"
    answer = await tenant.get("/console/sign-in/done?code=bad")
    assert answer.status_code == 401
    assert "SIGN-IN-NOT-FINISHED" in answer.text
    tenant.cookies.clear()
    tenant.cookies.set(FORM_COOKIE, "secret-of-this-sign-in")
    answer = await tenant.get("/console/sign-in/done?code=good")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/apps")
    assert (await tenant.get("/console/apps")).status_code == 200


async def test_an_app_keeps_the_msi_and_its_client_apart(
    tenant: httpx.AsyncClient, fleet: Fleet
) -> None:
    admit(tenant, fleet)
    page = await read(tenant, "/console/apps/a-1")
    rows = [[text(cell) for cell in row.xpath("./th|./td")] for row in page.xpath("//tbody/tr")]
    assert rows[0] == ["LAB-001", "user1@contoso.com", "Installed", "ccmsetup 0", "Yes", "Yes", "–"]
    assert rows[1][-1] == "ccmsetup failed with 0x87d0027e"


def test_the_tiles_count_each_device_by_what_is_so_now() -> None:
    from tandem.console import Filter, Stage, dashboard

    shown = dashboard(FLEET, {})
    assert shown.devices == len(FLEET)
    for stage, count in shown.stages.items():
        assert count == sum(matches(device, Filter(stage=stage)) for device in FLEET)
    assert shown.stages[Stage.POLICY] == 62
    assert shown.stages[Stage.CO_MANAGED] == 61


async def test_pages_stay_light(site: httpx.AsyncClient, fleet: Fleet) -> None:
    """What a first visit carries over the wire, compressed: 60 kB for a list, 280 kB with charts."""
    import gzip

    admit(site, fleet)
    for path, budget in {"/console/devices": 60_000, "/console/": 280_000}.items():
        answer = await site.get(path)
        page = html.fromstring(answer.content)
        parts = [answer.content]
        for address in page.xpath("//script/@src | //link/@href"):
            parts.append((await site.get(address)).content)
        assert sum(len(gzip.compress(part)) for part in parts) < budget
