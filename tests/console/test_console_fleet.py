"""The site's devices and dashboard, read from their HTML, on the site's real API and database."""

import csv
import io
import re
from typing import Any

import httpx
import pytest
from console_areas import Browser, browser, replica, text, token
from lxml import html
from psycopg.types.json import Jsonb
from test_console_languages import DATA, Pseudo

from site_api import NOW, TENANT, Api, add_device
from tandem import pki
from tandem.console.language import Language
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import ledgers
from tandem.workloads import Workload, capabilities

DEVICES = "/console/devices"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "'; DROP TABLE fleet_device; --",
    '=HYPERLINK("http://evil")',
    "@SUM(1)",
    "x" * 900,
    "\u202eevil",
    "../../etc/passwd",
]


async def registered(api: Api, *names: str, **state: Any) -> None:
    async with api.db.transaction() as tx:
        for name in names:
            await add_device(tx, name, **state)


def rows(page: html.HtmlElement) -> list[list[str]]:
    return [
        [text(cell) for cell in row.xpath("./th|./td")][1:]
        for row in page.xpath("//table[contains(@class, 'grid')]/tbody/tr[th]")
    ]


def named(page: html.HtmlElement) -> list[str]:
    return [row[0] for row in rows(page)]


async def test_the_list_shows_both_authorities_facts(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-001", flags=8193)
    api.cloud.graph.knows("d-LAB-001", user="ada@contoso.com")
    await api.keeper.tend()
    (row,) = rows(await seen.page(DEVICES))
    assert row[:4] == ["LAB-001", "ada@contoso.com", "10.0.22631.1", "Co-managed"]
    assert "Geräte" not in await seen.said(DEVICES)
    french = await seen.said(DEVICES, **{"accept-language": "fr"})
    assert "Cogéré" in french


async def test_the_timeline_tells_a_story_with_its_trace(api: Api, seen: Browser) -> None:
    """Who decided it, what it is about in the reader's language, and what is waited for."""
    await registered(api, "LAB-001", flags=8193)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    cause = {
        "id": trace,
        "at": NOW.isoformat(),
        "kind": "switch",
        "actor": "ada",
        "details": {"workload": "client-apps", "position": "mdm"},
    }
    async with api.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO clients_timeline (tenant_id, device_id, message_id, topic, state, at,"
            " received_at, data) VALUES (%s, 'd-LAB-001', 'site:1', 9100, 3, %s, %s, %s)",
            (TENANT, NOW, NOW, Jsonb({"version": 7, "trace": trace, "cause": cause})),
        )
    said = await seen.said(f"{DEVICES}/d-LAB-001/timeline")
    assert "A workload was moved to the MDM service" in said
    assert f"Trace id {trace}" in said
    assert "ada" in said
    assert "Client apps" in said
    assert "Waiting" in said
    assert "It has the policy" in said
    french = await seen.said(f"{DEVICES}/d-LAB-001/timeline", **{"accept-language": "fr"})
    assert "Une charge de travail est passée au service MDM" in french
    assert "La version 7 de la stratégie lui a été donnée" in french
    assert "En attente de l'appareil" in french


async def test_a_device_is_sent_away_only_by_its_name(api: Api, seen: Browser) -> None:
    """What it would come to, the confirmation, and the way back while there is one."""
    await registered(api, "LAB-001", flags=8193)
    enable = {"automatic_enrollment": "none", "access_token": "t"}
    assert (await api.web.put("/api/v1/comanagement", json=enable)).status_code == 200
    at = f"{DEVICES}/d-LAB-001/leave"
    assert "Leave the site" in await seen.said(f"{DEVICES}/d-LAB-001")
    said = await seen.said(at)
    assert "LAB-001 would be with the MDM service alone" in said
    assert "nobody knows" in said
    form = {"form_token": token(await seen.page(at)), "confirm": "LAB-001"}
    refused = await seen.web.post(at, data=form)
    assert refused.status_code == 422
    assert "The tenant has nothing for this device in" in text(html.fromstring(refused.text))
    refused = await seen.web.post(at, data={**form, "accept_lacking": "1", "confirm": "yes"})
    assert "takes the site's client off" in text(html.fromstring(refused.text)).replace("’", "'")
    sent = await seen.web.post(at, data={**form, "accept_lacking": "1"})
    assert sent.status_code == 303, sent.text
    page = await seen.page(at)
    assert "Its workloads go to the MDM service" in text(page)
    french = await seen.said(at, **{"accept-language": "fr"})
    assert "Ses charges de travail vont au service MDM" in french
    kept = await seen.web.post(f"{at}/cancel", data={"form_token": token(page)})
    assert kept.status_code == 303
    assert "would be with the MDM service alone" in await seen.said(at)


async def test_a_record_is_deleted_after_a_page_that_says_what_goes(
    api: Api, seen: Browser
) -> None:
    await registered(api, "LAB-001", "LAB-002")
    made = {"name": "Desk", "rules": [{"kind": "direct", "device": "LAB-001"}]}
    assert (await api.web.post("/api/v1/collections", json=made)).status_code == 201
    at = f"{DEVICES}/d-LAB-001/delete"
    assert (await seen.page(f"{DEVICES}/d-LAB-001")).xpath(f"//a[@href='{at}']")
    page = await seen.page(at)
    said = text(page)
    assert "Desk" in said
    assert "registers again" in said
    french = await seen.said(at, **{"accept-language": "fr"})
    assert "Supprimer LAB-001" in french
    assert "registers again" not in french
    form = {"form_token": token(page)}
    await api.post("/api/v1/devices/block", {"devices": ["d-LAB-001"]})
    refused = await seen.web.post(at, data=form)
    assert refused.status_code == 409
    assert "is blocked" in text(html.fromstring(refused.text))
    refused = await seen.web.post(at, data=form, headers={"accept-language": "fr"})
    assert "Débloquez-le d'abord" in text(html.fromstring(refused.text)).replace("’", "'")
    await api.post("/api/v1/devices/unblock", {"devices": ["d-LAB-001"]})
    assert (await seen.web.post(at, data={})).status_code == 403
    done = await seen.web.post(at, data=form)
    assert (done.status_code, done.headers["location"]) == (303, DEVICES)
    assert named(await seen.page(DEVICES)) == ["LAB-002"]
    assert (await seen.web.get(at)).status_code == 404
    # What only the tenant knows is not the site's to delete.
    api.cloud.graph.knows("d-9", name="PC-900")
    await api.keeper.tend()
    assert not (await seen.page(f"{DEVICES}/d-9")).xpath("//a[contains(@href, '/delete')]")
    assert (await seen.web.get(f"{DEVICES}/d-9/delete")).status_code == 404


async def test_filters_sort_and_pages_are_in_the_address(api: Api, seen: Browser) -> None:
    await registered(api, *(f"LAB-{n:03}" for n in range(60)), policy=False)
    await registered(api, "PC-900", "pc-901")
    page = await seen.page(DEVICES)
    assert named(page) == [f"LAB-{n:03}" for n in range(50)]
    assert "Page 1 of 2" in text(page)
    assert named(await seen.page(f"{DEVICES}?page=2"))[-2:] == ["PC-900", "pc-901"]
    assert named(await seen.page(f"{DEVICES}?page=99")) == named(
        await seen.page(f"{DEVICES}?page=2")
    )
    assert named(await seen.page(f"{DEVICES}?search=PC-"))[::-1] == ["pc-901", "PC-900"]
    assert named(await seen.page(f"{DEVICES}?search=*c-901")) == ["pc-901"]
    first = await seen.page(f"{DEVICES}?sort=name&descending=1")
    assert named(first)[0] == "pc-901"
    assert first.xpath("//th[@aria-sort='descending']")
    policy = await seen.page(f"{DEVICES}?stage=policy&colour=red&management=moon&error=x")
    assert len(named(policy)) == 2
    assert [text(chip) for chip in policy.xpath("//ul[@class='chips']/li/span")] == [
        "Has reached: Policy present"
    ]
    assert "No device matches" in await seen.said(f"{DEVICES}?search=nobody")


async def test_a_tile_leads_to_the_devices_that_it_counts(api: Api, seen: Browser) -> None:
    flags = capabilities([Workload.CLIENT_APPS])
    await registered(api, "LAB-001", "LAB-002", flags=flags)
    await registered(api, "LAB-003", policy=False)
    graph = api.cloud.graph
    for name in ("LAB-001", "LAB-003"):
        graph.knows(f"d-{name}")
    graph.refuses("d-LAB-002", 0x80180018)
    await api.keeper.tend()
    page = await seen.page("/console/")
    counted = 0
    for link in page.xpath("//main//a[contains(@href, '/console/devices?')]"):
        row = link.getparent().getparent()
        cells = row.xpath("./td[@class='number']") if row.tag == "tr" else link.xpath("./strong")
        if link.getparent().get("class") == "number":
            cells = [link]
        if not cells:
            continue
        number = int(text(cells[-1]).split()[0])
        listed = await seen.page(link.get("href"))
        assert len(named(listed)) == number, link.get("href")
        counted += number > 0
    assert counted > 12
    assert page.xpath("//*[@hx-get='/console/guide/story']")


async def test_users_without_a_licence_are_told_with_the_way_to_assign(
    api: Api, seen: Browser
) -> None:
    await registered(api, "LAB-001")
    assert "licence" not in await seen.said("/console/")
    api.cloud.graph.knows("d-LAB-001", user="ada@contoso.com", licensed=False)
    await api.keeper.tend()
    page = await seen.page("/console/")
    assert "1 user of a co-managed device has no licence" in text(page)
    assert page.xpath("//a[@href='https://tenant.test/console/wizards/assign-licence']")
    (to,) = page.xpath("//div[@class='notice']//a[contains(., 'licence')][1]/@href")[:1]
    assert named(await seen.page(to)) == ["LAB-001"]
    assert "without licence: 1" in await seen.said("/console/notifications")


async def test_what_is_old_is_said_with_its_age_and_the_reason(api: Api, seen: Browser) -> None:
    api.cloud.graph.knows("d-1")
    await api.keeper.tend()
    api.cloud.graph.gone = "The tenant does not answer."
    api.wait(minutes=10)
    await api.keeper.tend()
    for path in ("/console/", DEVICES, f"{DEVICES}/d-1"):
        said = await seen.said(path)
        assert "read 10 minutes ago: The tenant does not answer." in said, path


async def test_a_site_without_a_tenant_says_so(api: Api, seen: Browser) -> None:
    api.cloud.tenant = ""
    await registered(api, "LAB-001")
    said = await seen.said("/console/")
    assert "half of these numbers is missing: The site is not connected to a tenant." in said


# Hostile input


async def test_whatever_a_device_or_user_is_called_is_text(api: Api, seen: Browser) -> None:
    graph = api.cloud.graph
    for number, name in enumerate(HOSTILE):
        graph.knows(f"d-{number}", name=f"{name}\0", user=f"{name}\0@contoso.com")
    graph.knows("a?c#d%2e<i>", name="odd id")
    async with api.db.transaction() as tx:
        for number, name in enumerate(HOSTILE):
            data = {"log": name, "applied": {name: {"value": name, "source": name}}}
            for topic, state in ((ccm.SETUP_TOPIC, 314), (ccm.COMANAGEMENT_TOPIC, 110)):
                await tx.execute(
                    "INSERT INTO clients_timeline (tenant_id, device_id, message_id, topic, state,"
                    " at, received_at, data) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                    (TENANT, f"d-{number}", str(topic), topic, state, NOW, NOW, Jsonb(data)),
                )
    await api.keeper.tend()
    listed = await seen.page(DEVICES)
    assert len(named(listed)) == len(HOSTILE) + 1
    links = listed.xpath("//table[contains(@class, 'grid')]//th[@scope='row']/a/@href")
    for link in links:
        assert link.startswith("/console/devices/")
        for tab in ("", "/policy", "/deployments", "/timeline", "/ledger", "/logs", "/panel"):
            page = await seen.page(link + tab)
            _harmless(page)
    for number, name in enumerate(HOSTILE):
        page = await seen.page(f"{DEVICES}/d-{number}")
        assert " ".join(name.split()) in text(page.xpath("//h1")[0])
        _harmless(await seen.page(f"{DEVICES}?search={httpx.QueryParams({'q': name})}"[:200]))
    _harmless(listed)


def _harmless(page: html.HtmlElement) -> None:
    for script in page.xpath("//script"):
        assert script.get("src", "").startswith("/console/static/")
        assert not (script.text or "").strip()
    assert not page.xpath("//img | //*[@onerror] | //*[@onclick] | //*[@style]")
    assert not [to for to in page.xpath("//@href") if to.startswith("javascript:")]
    assert "49" not in [text(cell) for cell in page.xpath("//td | //th")]


async def test_the_export_is_whole_in_order_and_no_cell_is_a_formula(
    api: Api, seen: Browser
) -> None:
    graph = api.cloud.graph
    for number, name in enumerate(["=1+1", "+cmd", "-1", "@x", "\ttab", 'say "hi", you', "é"]):
        graph.knows(f"d-{number}", name=name, user=name)
    await registered(api, *(f"LAB-{n:04}" for n in range(30)))
    await api.keeper.tend()
    answer = await seen.web.get(f"{DEVICES}.csv?sort=name&descending=1")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.reader(io.StringIO(answer.text)))
    assert len(lines) == 1 + 37
    assert lines[0][0] == "Device name"
    for line in lines[1:]:
        assert all(cell[:1] not in "=+-@\t\r" or not cell for cell in line)
    order = [line[0] for line in lines if line[0].startswith("LAB")]
    assert order == sorted(order, reverse=True)
    filtered = await seen.web.get(f"{DEVICES}.csv?search=LAB-000")
    assert len(filtered.text.splitlines()) == 1 + 10


@pytest.mark.parametrize(
    "query",
    [
        "search=%00",
        "page=-1",
        "page=99999999",
        "page=x",
        "sort=;",
        "error=99999999999",
        "search=" + "x" * 900,
    ],
)
async def test_an_odd_address_still_opens(api: Api, seen: Browser, query: str) -> None:
    await registered(api, "LAB-001")
    assert (await seen.web.get(f"{DEVICES}?{query}")).status_code == 200


async def test_a_device_that_is_not_there(api: Api, seen: Browser) -> None:
    for id in ("nobody", "%00", "..%2f..%2fclients", "x" * 3000):
        answer = await seen.web.get(f"{DEVICES}/{id}")
        assert answer.status_code in (400, 404), id
        assert "Traceback" not in answer.text


# One device


async def test_a_device_page_has_the_accounts_of_both_and_its_tabs(api: Api, seen: Browser) -> None:
    flags = capabilities([Workload.CLIENT_APPS])
    await registered(api, "LAB-001", flags=flags)
    graph = api.cloud.graph
    graph.knows("d-LAB-001", user="ada@contoso.com", managed={"model": "Book 5"})
    graph.lists["deviceManagement/managedDevices/m-d-LAB-001/timeline"] = [
        {"dateTime": "2026-11-24T08:00:00Z", "text": "Enrolled in MDM by ada", "code": None}
    ]
    async with api.db.transaction() as tx:
        await tx.execute(
            "UPDATE clients_client SET state = jsonb_set(state, '{applied}', %s)",
            (Jsonb({"DeviceLock/Max": {"value": "10", "source": "site"}}),),
        )
    await api.keeper.tend()
    at = f"{DEVICES}/d-LAB-001"
    page = await seen.page(at)
    assert text(page.xpath("//p[@class='headline']")[0]) == "Co-managed ada@contoso.com"
    for word in ("Book 5", "GUID:LAB-001", "On its way"):
        assert word in text(page), word
    assert page.xpath(f"//a[@href='https://tenant.test{at}']")
    policy = await seen.said(f"{at}/policy")
    for word in ("Resultant client settings", "enable_cloud_management_gateway", "DeviceLock/Max"):
        assert word in policy
    assert "All Systems" in await seen.said(f"{at}/deployments")
    wanted = {
        "name": "Screen lock",
        "workload": "client-apps",
        "setting": "DeviceLock/Max",
        "value": "10",
        "collection": "SMS00001",
    }
    assert (await api.web.post("/api/v1/configurations", json=wanted)).status_code == 201
    page = await seen.page(f"{at}/deployments")
    (row,) = page.xpath("//table/tbody/tr")
    assert [text(cell) for cell in row] == ["Screen lock", "Client apps", "DeviceLock/Max", "10"]
    assert "Enrolled in MDM by ada" in await seen.said(f"{at}/timeline")
    assert "reported no" not in await seen.said(f"{at}/logs")
    assert "LAB-001" in await seen.said(f"{at}/panel")


async def ledger_of(api: Api, name: str, *, ledger_setting: str, by: str = "site") -> None:
    """What this device has signed: three entries, and one that breaks the rule if `by` is another."""
    key = pki.generate_key("p256")
    digest, lines = ccm.GENESIS, []
    for number, more in enumerate(
        (
            {"kind": "begin"},
            {"kind": "own", "workload": "endpoint-protection", "authority": "site"},
            {
                "kind": "write",
                "workload": "endpoint-protection",
                "authority": by,
                "setting": ledger_setting,
            },
        ),
        1,
    ):
        lines.append(ccm.sign_entry(ccm.LedgerEntry(number, NOW, digest, **more), key))
        digest = ccm.entry_digest(lines[-1])
    async with api.db.transaction() as tx:
        part = ccm.LedgerPart(lines)
        thumbprint = pki.jwk_thumbprint(key.public_key())
        await ledgers.take(tx, f"GUID:{name}", thumbprint, pki.public_jwk(key), part, NOW)


async def test_the_ledger_says_whether_its_proof_holds(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-001", "LAB-002", "LAB-003")
    await ledger_of(api, "LAB-001", ledger_setting="Defender/Scan")
    await ledger_of(api, "LAB-002", ledger_setting=HOSTILE[0], by="mdm")
    good = await seen.said(f"{DEVICES}/d-LAB-001/ledger")
    for word in ("The proof holds", "3 entries", "Defender/Scan", "Setting written", "Settled"):
        assert word in good
    assert "checked again just now" in await seen.said(f"{DEVICES}/d-LAB-001/ledger?check=1")
    page = await seen.page(f"{DEVICES}/d-LAB-002/ledger")
    _harmless(page)
    assert "The proof does not hold" in text(page)
    assert "Entry 3: an authority wrote a setting whose workload it did not own." in text(page)
    assert "has nothing of this device's ledger" in await seen.said(f"{DEVICES}/d-LAB-003/ledger")


async def test_what_breaks_a_proof_is_acknowledged_with_a_reason(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-002")
    await ledger_of(api, "LAB-002", ledger_setting="Defender/Scan", by="mdm")
    at = f"{DEVICES}/d-LAB-002/ledger"
    unsaid = await seen.post(f"{at}?seen=1", {"reason": ""}, on=at)
    assert unsaid.status_code == 422
    stale = await seen.post(f"{at}?seen=0", {"reason": "ours"}, on=at)
    assert "1 findings by now, and 0 were seen" in text(html.fromstring(stale.content))
    done = await seen.post(f"{at}?seen=1", {"reason": HOSTILE[0]}, on=at)
    assert done.status_code in (200, 303)
    page = await seen.page(at)
    _harmless(page)
    assert "The proof holds" in text(page)
    assert f"Acknowledged by siteadmin: {HOSTILE[0]}" in text(page)
    assert not page.xpath("//form[contains(@action, '/ledger')]")


# Actions


async def asked(seen: Browser, fields: dict[str, Any]) -> html.HtmlElement:
    answer = await seen.post(f"{DEVICES}/action", fields, on=DEVICES)
    assert answer.status_code == 200, answer.text
    return html.fromstring(answer.content)


def answered(page: html.HtmlElement, **more: str) -> dict[str, Any]:
    """What the form of a question sends when its button is pressed."""
    (form,) = page.xpath("//main//form[@action='/console/devices/action']")
    fields = {i.get("name"): i.get("value", "") for i in form.xpath(".//input[@type='hidden']")}
    return {**fields, **more}


async def test_devices_are_blocked_when_how_many_was_agreed_to(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-001", "LAB-002", "PC-003")
    api.cloud.graph.knows("d-9", name="LAB-009")
    await api.keeper.tend()
    given = {"do": "block", "all": "1", "filter": "search=LAB"}
    page = await asked(seen, given)
    assert "3 devices are selected." in text(page)
    assert "1 of them is not a client of the site, and is left alone." in text(page)
    assert "Search: LAB" in text(page)
    assert "Block: 2 devices" in text(page)
    assert list(map(text, page.xpath("//ul[@class='bullets']/li"))) == [
        "LAB-001",
        "LAB-002",
        "LAB-009",
    ]
    await registered(api, "LAB-004")
    stale = await seen.web.post(f"{DEVICES}/action", data=answered(page))
    assert stale.status_code == 409
    again = html.fromstring(stale.content)
    assert "Now 4 devices match; 3 were agreed to." in text(again)
    done = await seen.web.post(f"{DEVICES}/action", data=answered(again))
    assert done.status_code == 303
    after = await seen.page(done.headers["location"])
    assert "Clients blocked: 3." in text(after)
    assert named(await seen.page(f"{DEVICES}?blocked=1")) == ["LAB-001", "LAB-002", "LAB-004"]


async def test_ticked_devices_go_into_a_collection(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-001", "LAB-002", "LAB-003")
    made = (await api.web.post("/api/v1/collections", json={"name": "<b>Pilot"})).json()
    given = {"do": "add-to-collection", "device": ["d-LAB-001", "d-LAB-003"]}
    page = await asked(seen, given)
    assert page.xpath("//select[@name='collection']/option[. = '<b>Pilot']")
    empty = await seen.web.post(f"{DEVICES}/action", data=answered(page))
    assert empty.status_code == 422
    assert html.fromstring(empty.content).xpath("//*[@role='alert' and normalize-space(.)]")
    done = await seen.web.post(f"{DEVICES}/action", data=answered(page, collection=made["id"]))
    assert done.status_code == 303, done.text
    found = await api.get(f"/api/v1/collections/{made['id']}")
    assert [rule["name"] for rule in found["rules"]] == ["LAB-001", "LAB-003"]


async def test_one_device_is_blocked_and_unblocked_from_its_page(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-001")
    at = f"{DEVICES}/d-LAB-001"
    for do, there in (("block", True), ("unblock", False)):
        page = await seen.page(at)
        (form,) = page.xpath(f"//form[.//input[@name='do' and @value='{do}']]")
        fields = {i.get("name"): i.get("value") for i in form.xpath(".//input")}
        question = html.fromstring((await seen.web.post(form.get("action"), data=fields)).content)
        done = await seen.web.post(form.get("action"), data=answered(question))
        assert done.headers["location"] == at
        assert ("has blocked this client" in await seen.said(at)) is there


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"do": "block"}, 422),
        ({"do": "wipe", "all": "1"}, 400),
        ({}, 400),
        ({"do": "block", "device": ["x"] * 2, "devices": "\0"}, 200),
        ({"do": "block", "devices": "\n".join(map(str, range(1001)))}, 422),
        ({"do": "block", "all": "1", "expected": "x", "confirmed": "1"}, 409),
        ({"do": "block", "all": "1", "back": "https://evil.test/"}, 200),
    ],
)
async def test_a_form_that_makes_no_sense_does_nothing(
    api: Api, seen: Browser, fields: dict[str, Any], status: int
) -> None:
    await registered(api, "LAB-001")
    answer = await seen.post(f"{DEVICES}/action", fields, on=DEVICES)
    assert answer.status_code == status, answer.text
    assert "evil.test" not in answer.text
    assert named(await seen.page(f"{DEVICES}?blocked=1")) == []


async def test_a_form_of_another_site_blocks_nobody(api: Api, seen: Browser) -> None:
    await registered(api, "LAB-001")
    form = token(await seen.page(DEVICES))
    given = {"do": "block", "all": "1", "expected": "1", "confirmed": "1"}
    for spoil, sent in (
        ({"data": {**given, "form_token": "made up"}}, None),
        ({"data": {**given, "form_token": form}, "headers": {"origin": "https://evil.test"}}, None),
    ):
        answer = await seen.web.post(f"{DEVICES}/action", **spoil)  # type: ignore[arg-type]
        assert answer.status_code == 403, sent
    assert (await api.get("/api/v1/devices", blocked="true"))["total"] == 0


async def test_who_may_only_read_is_told_which_right_is_missing(api: Api) -> None:
    await registered(api, "LAB-001")
    given = {"name": "reader", "role": "Read-only Analyst", "password": "Correct-Horse-9"}
    await api.web.post("/api/v1/administrators", json=given)
    async with browser(replica(api.db, api)) as reader:
        await reader.sign_in("reader", "Correct-Horse-9")
        fields = {"do": "block", "all": "1", "expected": "1", "confirmed": "1"}
        answer = await reader.post(f"{DEVICES}/action", fields, on=DEVICES)
        assert answer.status_code in (403, 422)
        assert "Operations Administrator" in answer.text


async def test_two_replicas_show_and_do_the_same(api: Api, site_db: Database) -> None:
    """One session, its pages and its forms, now here and now there."""
    await registered(api, *(f"LAB-{n:03}" for n in range(120)))
    second = await Database.open(site_db.dsn, 2)
    try:
        async with (
            browser(replica(api.db, api)) as one,
            browser(replica(second, api)) as two,
        ):
            await one.sign_in()
            two.web.cookies.update(one.web.cookies)
            found = []
            for number in (1, 2, 3):
                here = (one, two)[number % 2]
                found += named(await here.page(f"{DEVICES}?page={number}"))
            assert found == [f"LAB-{n:03}" for n in range(120)]
            page = await asked(one, {"do": "block", "device": "d-LAB-007"})
            done = await two.web.post(f"{DEVICES}/action", data=answered(page))
            assert done.status_code == 303
            assert named(await one.page(f"{DEVICES}?blocked=1")) == ["LAB-007"]
    finally:
        await second.close()


async def test_no_text_of_these_pages_bypasses_the_catalogue(api: Api) -> None:
    await registered(api, "LAB-001", flags=capabilities([Workload.CLIENT_APPS]))
    graph = api.cloud.graph
    graph.knows("d-LAB-001", user="ada@contoso.com", licensed=False)
    graph.refuses("d-LAB-009", 0x80180018)
    await api.keeper.tend()
    at = f"{DEVICES}/d-LAB-001"
    await ledger_of(api, "LAB-001", ledger_setting="defender_scan")
    tabs = (
        "",
        "/policy",
        "/deployments",
        "/timeline",
        "/ledger",
        "/ledger?check=1",
        "/logs",
        "/panel",
    )
    app = replica(api.db, api, languages=lambda code: Language(code, Pseudo()))
    async with browser(app) as seen:
        await seen.sign_in()
        pages = [await seen.page(at + tab) for tab in tabs]
        pages += [await seen.page(path) for path in ("/console/", DEVICES, f"{DEVICES}?blocked=1")]
        pages.append(await asked(seen, {"do": "add-to-collection", "all": "1"}))
    data = re.compile(
        rf"GUID:\S+|(m-)?d-\S+|10\.0\.\S+|All Systems|All Desktop and Server Clients|Co-management Eligible Devices|[*]|{DATA.pattern}|[a-z_]{{6,}}"
    )
    for page in pages:
        said = page.xpath("//main//text() | //title/text() | //*[@id='panel-title']/..//text()")
        for words in [*said, *page.xpath("//main//@aria-label | //main//@placeholder")]:
            left = re.sub(r"⟦[^⟦⟧]*(⟦[^⟦⟧]*⟧[^⟦⟧]*)*⟧", "", words)
            assert not data.sub("", left).strip(), f"not translated: {words!r}"
