"""The console's pages of co-management, walked as a browser without scripts does."""

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from browsing import Browser, browsing
from site_api import CHEAP, PASSWORD, Api, add_device, report
from tandem import console
from tandem.console.site_pages import SitePages
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm
from tandem.site import clients
from tandem.site.clients import store
from tandem.workloads import Workload

PATH = "/console/comanagement"
API = "/api/v1/comanagement"
# A device calls itself what it likes.
HOSTILE = '<script>alert("LAB")</script>'


async def _token_itself(session: console.Session) -> str:
    return session.token


@pytest.fixture
async def site(api: Api) -> Api:
    """Three co-managed devices, the collection Pilot with two of them, and the console."""

    def now() -> Any:
        return api.clock[0]

    box = SecretBox(b"k" * 32)
    behind = console.Backend(
        console.Transport("https://site"), _token_itself, console.Drafts(api.db, box, now)
    )
    pages = SitePages(api.db, now=now, settings=CHEAP)
    api.app.router.routes.extend(console.site_routes(pages, now=now, backend=behind))
    behind.transport.app = api.app
    async with api.db.transaction() as tx:
        for name in (HOSTILE, "LAB-002", "LAB-003"):
            await add_device(tx, name, flags=8193)
    made = await api.web.post("/api/v1/collections", json={"name": "Pilot"})
    devices = {"devices": [HOSTILE, "LAB-002"]}
    await api.web.post(f"/api/v1/collections/{made.json()['id']}/members", json=devices)
    return api


@pytest.fixture
async def enabled(site: Api) -> Api:
    wanted = {"automatic_enrollment": "none", "access_token": "t"}
    assert (await site.web.put(API, json=wanted)).status_code == 200
    return site


@pytest.fixture
async def browser(site: Api) -> AsyncIterator[Browser]:
    async with browsing(site.app, "siteadmin", PASSWORD) as made:
        yield made


async def pilot(api: Api) -> str:
    return str((await api.get("/api/v1/collections/Pilot"))["id"])


async def test_before_it_is_enabled_the_page_leads_to_the_wizard(browser: Browser) -> None:
    await browser.open(PATH)
    assert "Co-management is not enabled yet." in browser.main
    assert browser.link("Configure co-management") == "/console/wizards/co-management"
    for part in ("enablement", "staging", "policies"):
        await browser.open(f"{PATH}/{part}")
        assert browser.answer.status_code == 200


async def test_what_reaches_many_devices_waits_for_a_second_administrator(
    enabled: Api, browser: Browser
) -> None:
    async with enabled.db.transaction() as tx:
        for number in range(98):
            await add_device(tx, f"MANY-{number:02}", flags=8193)
    bea = {"name": "bea", "role": "full-administrator", "password": PASSWORD}
    assert (await enabled.web.post("/api/v1/administrators", json=bea)).status_code == 201
    await browser.open(PATH)
    await browser.press("Show what would change", **{"client-apps": "mdm"})
    assert "It reaches 101 devices: a second administrator has to approve it." in browser.main
    await browser.press("Ask for approval", reason="the pilot is done")
    assert browser.url == PATH
    assert "This reaches 101 devices: a second administrator has to approve it." in browser.main
    assert "client-apps: mdm" in browser.main
    assert "the pilot is done" in browser.main
    await browser.press("Approve")
    await browser.press("Approve")
    assert "another administrator has to approve it" in browser.main
    async with browsing(enabled.app, "bea", PASSWORD) as second:
        await second.open(PATH)
        await second.press("Approve")
        assert "It reaches 101 devices." in second.main
        await second.press("Approve")
        assert "Devices follow at their next policy poll" in second.main
        assert "the pilot is done" not in second.main
    shown = await enabled.get(f"{API}/workloads/client-apps")
    assert shown["position"] == "mdm"


async def test_what_is_deployed_to_many_waits_on_its_page(site: Api, browser: Browser) -> None:
    """A configuration, updates and client settings alike."""
    async with site.db.transaction() as tx:
        for number in range(98):
            await add_device(tx, f"MANY-{number:02}")
    bea = {"name": "bea", "role": "full-administrator", "password": PASSWORD}
    assert (await site.web.post("/api/v1/administrators", json=bea)).status_code == 201
    updates, settings = "/api/v1/software-updates", "/api/v1/client-settings/custom"
    lab = {"package": "lab", "fixed_version": "2.0", "article": "CVE-2026-1"}
    update = (await site.web.post(updates, json=lab)).json()["id"]
    inside = {"name": "Inside", "settings": {"policy_polling_minutes": 1440}}
    custom = (await site.web.post(settings, json=inside)).json()["id"]
    everybody = {"collection": "SMS00001"}
    await browser.open("/console/configurations")
    lock = {"name": "Lock", "setting": "DeviceLock/Max", "value": "9", **everybody}
    await browser.press("Deploy", **lock, reason="all of them")
    assert "a second administrator has to approve it." in browser.main
    await browser.open(f"/console/software-updates/decide?update={update}")
    await browser.press("Decide", **everybody, decision="approved")
    assert "needs a reason" in browser.said("reason")
    await browser.press("Decide", **everybody, decision="approved", reason="a hole in use")
    assert "a second administrator has to approve it." in browser.main
    assert "a hole in use" in browser.main
    await browser.press("Approve")
    await browser.press("Approve")
    assert "another administrator has to approve it" in browser.main
    await browser.open(f"/console/client-settings/custom/{custom}")
    await browser.press("Deploy", **everybody, reason="nobody works outside")
    assert "A second administrator has to approve it." in browser.main
    await browser.press("Deploy")
    assert "a second administrator has to approve it." in browser.main
    async with browsing(site.app, "bea", PASSWORD) as second:
        for page in ("configurations", "software-updates", "client-settings"):
            await second.open(f"/console/{page}")
            await second.press("Approve")
            assert "101 devices" in second.main, page
            await second.press("Approve")
            assert "was deployed" in second.main, page
            assert "Waiting for a second administrator" not in second.main
    assert [item["name"] for item in await site.get("/api/v1/configurations")] == ["Lock"]
    assert (await site.get(f"{updates}/{update}"))["decisions"][0]["decided_by"] == "siteadmin"
    assert (await site.get(f"{settings}/{custom}"))["deployments"][0]["members"] == 101


async def test_a_workload_is_switched_and_followed(enabled: Api, browser: Browser) -> None:
    await browser.open(PATH)
    id = await pilot(enabled)
    await browser.press(
        "Show what would change", **{"client-apps": "pilot", "pilot-client-apps": id}
    )
    assert "2 devices change owner." in browser.main
    assert "Client apps: 2 devices go to the MDM service" in browser.main
    assert "LAB-002" in browser.main
    assert HOSTILE not in browser.answer.text
    assert "CoMgmtSettingsPilot_client-apps" in browser.main
    # Nothing has been done by looking.
    shown = await enabled.get(API)
    assert {item["position"] for item in shown["workloads"]} == {"site"}

    await browser.press("Save")
    assert browser.url == PATH
    assert "Devices follow at their next policy poll" in browser.main
    assert "0 of 2 devices have followed" in browser.main
    notices = (await browser.client.get("/console/notifications")).text
    assert "Client apps is moving: 0 of 2 devices have followed" in notices

    async with enabled.db.transaction() as tx:
        await report(tx, clients.ClientId("GUID:LAB-002"), flags=8193 + 64)
    part = await browser.client.get(PATH, headers={"HX-Request": "true"})
    assert "1 of 2 devices have followed" in part.text
    assert "<form" not in part.text
    async with enabled.db.transaction() as tx:
        await report(tx, clients.ClientId(f"GUID:{HOSTILE.upper()}"), flags=8193 + 64)
    await browser.open(PATH)
    assert "All 2 devices have followed" in browser.main
    assert "is moving" not in (await browser.client.get("/console/notifications")).text


async def test_a_pilot_without_a_collection_is_said_where_it_is_missing(
    enabled: Api, browser: Browser
) -> None:
    await browser.open(PATH)
    await browser.press("Show what would change", **{"windows-update": "pilot"})
    assert browser.answer.status_code == 422
    assert "Pilot needs a collection" in browser.alert
    select = browser.page.xpath("//select[@name='pilot-windows-update']")[0]
    assert select.get("aria-invalid") == "true"
    assert browser.page.xpath("//input[@name='windows-update'][@checked]/@value") == ["pilot"]


async def test_two_administrators_at_the_same_page(enabled: Api, browser: Browser) -> None:
    await browser.open(PATH)
    await enabled.web.put(f"{API}/workloads/windows-update", json={"position": "mdm"})
    await browser.press("Show what would change", **{"client-apps": "mdm"})
    assert browser.answer.status_code == 409
    assert "Somebody else changed co-management" in browser.main
    # What was chosen is still there, and goes through now.
    assert browser.page.xpath("//input[@name='client-apps'][@checked]/@value") == ["mdm"]
    await browser.press("Show what would change", **{"windows-update": "mdm"})
    await browser.press("Save")
    shown = await enabled.get(API)
    positions = {item["workload"]: item["position"] for item in shown["workloads"]}
    assert (positions["client-apps"], positions["windows-update"]) == ("mdm", "mdm")


async def test_a_change_between_preview_and_save_is_noticed(enabled: Api, browser: Browser) -> None:
    await browser.open(PATH)
    await browser.press("Show what would change", **{"client-apps": "mdm"})
    await enabled.web.put(f"{API}/workloads/windows-update", json={"position": "mdm"})
    await browser.press("Save")
    assert browser.answer.status_code == 409
    assert "Somebody else changed co-management" in browser.main


async def test_sliders_are_grey_for_who_is_not_full_administrator(enabled: Api) -> None:
    await enabled.web.post(
        "/api/v1/administrators",
        json={"name": "olga", "role": "Operations Administrator", "password": "Correct-Horse-3"},
    )
    async with browsing(enabled.app, "olga", "Correct-Horse-3") as browser:
        await browser.open(PATH)
        assert "Only a full administrator moves workloads" in browser.main
        fieldsets = browser.page.xpath("//fieldset[contains(@class, 'slider')]")
        assert len(fieldsets) == 7
        assert all(one.get("disabled") is not None for one in fieldsets)
        token = browser.page.xpath("//input[@name='form_token']/@value")[0]
        forged = await browser.client.post(
            PATH, data={"form_token": token, "client-apps": "mdm", "confirmed": "1"}
        )
        assert forged.status_code == 403
        await browser.open("/console/wizards/co-management")
        await browser.press("Next")
        assert "Only a full administrator" in browser.alert


async def test_enablement_is_changed_after_it_was_shown(enabled: Api, browser: Browser) -> None:
    await browser.open(f"{PATH}/enablement")
    assert "CCMSETUPCMD=" in browser.main
    await browser.press("Show what would change", automatic_enrollment="pilot")
    assert browser.answer.status_code == 422
    await browser.press(
        "Show what would change", automatic_enrollment="pilot", collection=await pilot(enabled)
    )
    assert "CoMgmtSettingsPilotAutoEnroll" in browser.main
    await browser.press("Save")
    assert (await enabled.get(API))["enablement"]["auto_enroll"] == "pilot"


async def test_without_a_gateway_the_fields_sentence_stands_in_the_place_of_the_line(
    enabled: Api, browser: Browser
) -> None:
    enabled.cloud.gateway = None
    await browser.open(f"{PATH}/enablement")
    assert "Please ensure the proper prerequisites are installed." in browser.main
    assert "No gateway is ready" in browser.main
    assert "CCMSETUPCMD=" not in browser.main


async def test_another_pilot_collection_moves_who_enters_and_who_leaves(
    enabled: Api, browser: Browser
) -> None:
    await browser.open(f"{PATH}/staging")
    assert "No workload is in a pilot." in browser.main
    wanted = {"position": "pilot", "collection": "Pilot"}
    await enabled.web.put(f"{API}/workloads/client-apps", json=wanted)
    other = (await enabled.web.post("/api/v1/collections", json={"name": "Other"})).json()["id"]
    await enabled.web.post(f"/api/v1/collections/{other}/members", json={"devices": ["LAB-003"]})
    await browser.open(f"{PATH}/staging")
    await browser.press("Show what would change", **{"pilot-client-apps": other})
    assert "1 device goes to the MDM service" in browser.main
    assert "2 devices go back to the site" in browser.main
    await browser.press("Save")
    shown = await enabled.get(API)
    slider = next(item for item in shown["workloads"] if item["workload"] == "client-apps")
    assert (slider["position"], slider["collection"]) == ("pilot", "Other")


async def test_policies_and_what_they_hand_over(enabled: Api, browser: Browser) -> None:
    await enabled.web.put(f"{API}/workloads/client-apps", json={"position": "mdm"})
    new = {"name": "Lock", "setting": "DeviceLock/X", "value": "1", "collection": "Pilot"}
    await enabled.web.post("/api/v1/configurations", json=new)
    await browser.open(f"{PATH}/policies")
    assert "DeviceLock/X" in browser.main
    assert "Take back" not in browser.main.replace("take back", "")
    assert "CoMgmtSettingsProd" in browser.main
    assert "Client apps" in browser.main
    assert "0 of 3 clients" in browser.main


async def test_configurations_are_deployed_and_taken_back(enabled: Api, browser: Browser) -> None:
    await browser.open("/console/configurations")
    assert "The site deploys no configuration yet." in browser.main
    given = {"name": "<b>Lock", "setting": "no setting", "value": "10"}
    await browser.press("Deploy", **given, collection=await pilot(enabled))
    assert browser.answer.status_code == 422
    assert "is not the name of a setting" in browser.said("setting")
    assert browser.value("name") == "<b>Lock"
    await browser.press("Deploy", setting="DeviceLock/X")
    assert "<b>Lock was deployed." in browser.main
    assert "0 of 2 clients" in browser.main
    await browser.press("Take back")
    assert "is in force on 0 devices" in browser.main
    await browser.press("Take back")
    assert "<b>Lock was taken back." in browser.main
    assert await enabled.get("/api/v1/configurations") == []


async def test_a_deployment_to_many_is_approved_on_the_page(enabled: Api, browser: Browser) -> None:
    async with enabled.db.transaction() as tx:
        for number in range(98):
            await add_device(tx, f"MANY-{number:02}", flags=8193)
    bea = {"name": "bea", "role": "full-administrator", "password": PASSWORD}
    assert (await enabled.web.post("/api/v1/administrators", json=bea)).status_code == 201
    wanted = {"name": "Lock", "setting": "DeviceLock/X", "value": "1", "collection": "SMS00001"}
    asked = await enabled.web.post("/api/v1/configurations", json={**wanted, "reason": "audit"})
    assert asked.status_code == 202
    async with browsing(enabled.app, "bea", PASSWORD) as second:
        await second.open("/console/configurations")
        await second.press("Approve")
        assert "Lock reaches 101 devices." in second.main
        await second.press("Approve")
    assert [one["name"] for one in await enabled.get("/api/v1/configurations")] == ["Lock"]


async def test_client_settings_are_changed_with_what_was_typed_kept(
    enabled: Api, browser: Browser
) -> None:
    url = "/console/client-settings"
    await browser.open(url)
    assert "Cloud services" in browser.main
    await browser.press("Save", policy_polling_minutes="2", enable_user_policy="no")
    assert browser.answer.status_code == 422
    assert "a number from 3 to 1440" in browser.said("policy_polling_minutes")
    assert browser.value("policy_polling_minutes") == "2"
    await browser.press("Save", policy_polling_minutes="30")
    assert "Clients follow with their next policy." in browser.main
    assert "Changed siteadmin" in browser.main
    values = {item["name"]: item["value"] for item in await enabled.get("/api/v1/client-settings")}
    assert (values["policy_polling_minutes"], values["enable_user_policy"]) == (30, False)
    await browser.press("Save")
    assert "nothing was changed" in browser.main
    await enabled.web.patch("/api/v1/client-settings", json={"state_reporting_minutes": 5})
    await browser.press("Save", policy_polling_minutes="45")
    assert browser.answer.status_code == 409
    assert browser.value("policy_polling_minutes") == "45"


async def test_what_results_for_a_device_says_where_it_is_from(
    enabled: Api, browser: Browser
) -> None:
    url = "/console/client-settings/resultant"
    await browser.open(f"{url}?device=LAB-002")
    assert "Default client settings" in browser.main
    await browser.open(f"{url}?device=NOBODY")
    assert browser.answer.status_code == 404
    assert "The site knows no device NOBODY." in browser.alert


@pytest.mark.parametrize(
    "path",
    [PATH, f"{PATH}/enablement", f"{PATH}/staging", f"{PATH}/policies", "/console/configurations",
     "/console/client-settings", "/console/client-settings/resultant?device=LAB-002"],
)  # fmt: skip
async def test_the_pages_speak_french(enabled: Api, path: str) -> None:
    wanted = {"position": "pilot", "collection": "Pilot"}
    await enabled.web.put(f"{API}/workloads/client-apps", json=wanted)
    async with browsing(enabled.app, "siteadmin", PASSWORD, "fr") as browser:
        await browser.open(path)
        assert browser.answer.status_code == 200
        for word in ("Workload", "devices", "Show what", " the ", "Pilot MDM "):
            assert word not in browser.main.replace("Pilot devices", ""), word


async def test_each_workload_has_a_page_that_says_what_moves_here_today(
    enabled: Api, browser: Browser
) -> None:
    await browser.open(PATH)
    hints = browser.page.xpath("//fieldset[contains(@class, 'slider')]//p[@class='hint']")
    marked = [one for one in hints if "Moves the flag only" in one.text_content()]
    assert (len(hints), len(marked)) == (7, 3)
    await browser.open(f"{PATH}/workloads/device-configuration")
    assert "Moves with effects on devices that run Linux." in browser.main
    assert "systemd units" in browser.main
    assert "TandemFiles/<name>" in browser.main
    assert "0 of 0 devices are with the MDM service." in browser.main
    await browser.open(f"{PATH}/workloads/windows-update")
    assert "Moves with effects on devices that run Linux." in browser.main
    assert "Updates that are approved at the software update point" in browser.main
    assert "Its effects do not roll back" in browser.main
    await browser.open(f"{PATH}/workloads/office-click-to-run")
    assert "Moves the flag only" in browser.main
    # An empty workload is switched like any other.
    path = f"{API}/workloads/office-click-to-run"
    switched = await enabled.web.put(path, json={"position": "mdm"})
    assert switched.status_code == 200
    await browser.open(f"{PATH}/workloads/office-click-to-run")
    assert "0 of 3 devices are with the MDM service." in browser.main


async def test_the_page_of_a_workload_that_does_not_exist_says_so(
    enabled: Api, browser: Browser
) -> None:
    answer = await browser.client.get(f"{PATH}/workloads/printers")
    assert answer.status_code == 400
    assert "There is no workload" in answer.text
    assert "printers" in answer.text


async def test_the_page_of_a_workload_is_in_french_too(enabled: Api) -> None:
    async with browsing(enabled.app, "siteadmin", PASSWORD, "fr") as browser:
        for workload in Workload:
            await browser.open(f"{PATH}/workloads/{workload.value}")
            assert "Ce qui se déplace ici aujourd’hui" in browser.main
            assert not re.search(r"\b(The|with|their|nothing|settings)\b", browser.main)


async def test_the_catalogue_and_both_encodings_by_the_api(enabled: Api) -> None:
    found = await enabled.get(f"{API}/workloads")
    assert [item["workload"] for item in found if item["has_effect"]] == [
        "compliance-policies",
        "device-configuration",
        "windows-update",
        "client-apps",
    ]
    one = await enabled.get(f"{API}/workloads/client-apps")
    assert (one["position"], one["moves"]) == (
        "site",
        "Moves with effects on devices that run Linux.",
    )
    assert "TandemApps/<name>" in one["policies"][0]["site"]
    old, new = (
        await enabled.get(f"{API}/capabilities/45"),
        await enabled.get(f"{API}/capabilities/12333"),
    )
    assert (old["encoding"], new["encoding"]) == ("2107", "2111")
    assert old["workloads"] == new["workloads"]
    for nonsense in ("-1", "twelve", "9" * 40, "1e3"):
        answer = await enabled.web.get(f"{API}/capabilities/{nonsense}")
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith("Capabilities are an integer")


async def test_the_page_of_a_device_shows_effects_with_who_wrote_them_and_its_facts(
    enabled: Api, browser: Browser
) -> None:
    at = "2026-11-24T12:00:00Z"
    told = {
        "flags": 8193,
        "mdm_enrolled": True,
        "policy_present": True,
        "capabilities": 8193,
        "enacted": {
            "TandemFiles/Motd": {"source": "mdm", "code": "written", "text": "/etc/motd was written.", "at": at},
            "TandemUnits/X": {
                "source": "site", "code": "unit.not-found", "text": HOSTILE, "at": at, "failed": True,
            },
        },
        "facts": {"os_name": "Debian 13", "encryption": "yes", "encryption_by": "253:0 is LUKS2"},
    }  # fmt: skip
    async with enabled.db.transaction() as tx:
        state = msgspec.convert(told, ccm.ComanagementState)
        await store.save_state(tx, clients.ClientId("GUID:LAB-002"), state, enabled.clock[0])
    await browser.open("/console/devices/d-LAB-002/policy")
    assert "/etc/motd was written." in browser.main
    assert HOSTILE in browser.main
    assert "Debian 13" in browser.main
    assert "yes (253:0 is LUKS2)" in browser.main
    assert "MDM service" in browser.main


async def test_devices_are_kept_out_on_the_staging_page(enabled: Api, browser: Browser) -> None:
    wanted = {"position": "pilot", "collection": "Pilot"}
    await enabled.web.put(f"{API}/workloads/client-apps", json=wanted)
    other = (await enabled.web.post("/api/v1/collections", json={"name": "Other"})).json()["id"]
    await browser.open(f"{PATH}/staging")
    await browser.press(
        "Show what would change", **{"add-client-apps": other, "add-out": await pilot(enabled)}
    )
    assert "2 devices change owner." in browser.main
    await browser.press("Save")
    shown = await enabled.get(API)
    assert [one["name"] for one in shown["exclusions"]] == ["Pilot"]
    (slider,) = [one for one in shown["workloads"] if one["workload"] == "client-apps"]
    assert [one["name"] for one in slider["pilots"]] == ["Pilot", "Other"]
    await browser.open(f"{PATH}/staging")
    # A box that is not ticked any more is not sent.
    await browser.press("Show what would change", **{f"keep-out--{await pilot(enabled)}": None})
    await browser.press("Save")
    assert (await enabled.get(API))["exclusions"] == []


async def test_a_planned_enrolment_is_seen_and_ordered_at_once(
    enabled: Api, browser: Browser
) -> None:
    async with enabled.db.transaction() as tx:
        id = await add_device(tx, "LAB-007", enrolled=False)
        client = await clients.find(tx, id)
        planned = {"at": "2026-12-24T10:00:00+00:00"}
        told = ccm.Message("m1", ccm.COMANAGEMENT_TOPIC, 101, enabled.clock[0], planned)
        await store.add_entry(tx, client.tenant_id, client.device_id, told, enabled.clock[0])
    await enabled.web.put(API, json={"automatic_enrollment": "all", "spread_minutes": 900})
    await browser.open(f"{PATH}/enablement")
    assert "Now: 900 minutes." in browser.main
    assert "LAB-007" in browser.main
    assert "MDM enrollment scheduled" in browser.main
    await browser.press("Enrol now")
    assert "Ordered. Devices enrol when they next get their policy." in browser.answer.text
    (one,) = await enabled.get(f"{API}/enrollments")
    assert (one["name"], one["ordered_by"]) == ("LAB-007", "siteadmin")
