"""The site's pages on the site's real database, with a tenant that answers, lags or is gone."""

import json
from datetime import timedelta

import httpx
import pytest
from console_fleet import NOW
from lxml import html
from test_console_pages import text, token

import site_api
from tandem import console
from tandem.console import labels
from tandem.console.site_pages import SitePages
from tandem.console.tenant_view import GraphDevices
from tandem.infra import http
from tandem.infra.database import Database, Tx
from tandem.protocols.ccm import COMANAGEMENT_TOPIC as COMANAGEMENT
from tandem.site import administrators, fleet
from tandem.site.clients import model as clients_model
from tandem.site.clients.model import SITE_TOPIC
from tandem.workloads import Workload, capabilities

CHEAP = administrators.AdministratorsSettings(password_memory_kib=64, password_passes=1)
PASSWORD = "Correct-Horse-1"


class Tenant(site_api.Graph):
    """What it knows is heard by the site with `heard`, as its keeper does by itself."""

    keeper: fleet.Keeper

    async def heard(self) -> None:
        await self.keeper.tend()


async def client_row(db: Database, device_id: str, name: str, flags: int, policy: bool) -> None:
    state = {
        "flags": flags,
        "mdm_enrolled": True,
        "policy_present": policy,
        "capabilities": flags,
    }
    async with db.transaction() as tx:
        await tx.execute(
            """INSERT INTO clients_client (id, tenant_id, device_id, thumbprint, name, os_name,
                   os_version, client_version, approval, registered_at, last_seen_at, state_at, state)
               VALUES (%s, 't', %s, %s, %s, 'Windows', '10.0.22631.1', '5.00.0001', 3, %s, %s, %s, %s)""",
            (f"GUID:{name}", device_id, name, name, NOW, NOW, NOW, json.dumps(state)),
        )


async def reported(
    db: Database,
    device_id: str,
    state: int,
    data: dict[str, object],
    *,
    topic: int = 800,
    ago: timedelta = timedelta(minutes=1),
) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            """INSERT INTO clients_timeline (tenant_id, device_id, message_id, topic, state, at,
                   received_at, data) VALUES ('t', %s, %s, %s, %s, %s, %s, %s)""",
            (device_id, f"m{topic}-{state}-{ago}", topic, state, NOW - ago, NOW, json.dumps(data)),
        )


@pytest.fixture
def tenant_side() -> Tenant:
    return Tenant()


@pytest.fixture
async def pages(site_db: Database, tenant_side: Tenant) -> SitePages:
    async with site_db.transaction() as tx:
        await administrators.create_first(tx, "admin", PASSWORD, NOW, CHEAP)

    async def graph() -> Tenant:
        return tenant_side

    async def tenant_id(_: Tx) -> str:
        return "t"

    tenant_side.keeper = fleet.Keeper(site_db, fleet.Collaborators(tenant_id, graph), lambda: NOW)
    return SitePages(site_db, now=lambda: NOW, settings=CHEAP, tenant=graph)


@pytest.fixture
async def browser(pages: SitePages):
    app = http.application(console.site_routes(pages, now=lambda: NOW), role="site")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as client:
        yield client


async def sign_in(browser: httpx.AsyncClient, password: str = PASSWORD) -> httpx.Response:
    page = html.fromstring((await browser.get("/console/sign-in")).content)
    fields = {"form_token": token(page), "user": "admin", "password": password, "return_to": ""}
    return await browser.post("/console/sign-in", data=fields)


async def test_the_site_s_administrator_signs_in_and_out(browser: httpx.AsyncClient) -> None:
    assert (await sign_in(browser, "wrong")).status_code == 401
    assert (await sign_in(browser)).status_code == 303
    page = await browser.get("/console/")
    assert page.status_code == 200
    good = token(html.fromstring(page.content))
    await browser.post("/console/sign-out", data={"form_token": good})
    assert (await browser.get("/console/")).status_code == 401


async def test_both_accounts_of_a_device_come_together(
    browser: httpx.AsyncClient, site_db: Database, tenant_side: Tenant
) -> None:
    flags = capabilities([Workload.CLIENT_APPS])
    await client_row(site_db, "dev-1", "LAB-001", flags, policy=True)
    tenant_side.knows("dev-1", user="ada@contoso.com")
    await tenant_side.heard()
    await sign_in(browser)
    page = html.fromstring((await browser.get("/console/devices/dev-1")).content)
    assert text(page.xpath("//p[@class='headline']")[0]) == "Co-managed ada@contoso.com"
    said = text(page)
    assert "GUID:LAB-001" in said
    dashboard = html.fromstring((await browser.get("/console/")).content)
    assert text(dashboard.xpath("//*[@id='co-managed']")[0]) == "1"


async def test_both_authorities_tell_the_timeline_and_what_repeats_is_one_line(
    pages: SitePages, site_db: Database, tenant_side: Tenant
) -> None:
    await client_row(site_db, "dev-1", "LAB-001", capabilities([]), policy=True)
    tenant_side.knows("dev-1")
    tenant_side.lists["deviceManagement/managedDevices/m-dev-1/timeline"] = [
        {"dateTime": "2026-11-24T08:00:00Z", "text": "Enrolled in MDM by ada", "code": None}
    ]
    await tenant_side.heard()
    for minutes in range(1, 6):
        await reported(site_db, "dev-1", 4, {}, topic=SITE_TOPIC, ago=timedelta(minutes=minutes))
    await reported(site_db, "dev-1", 1, {}, topic=SITE_TOPIC, ago=timedelta(minutes=30))
    session = await pages.sign_in("admin", PASSWORD)
    shown = (await pages.device(session, "dev-1")).timeline
    assert [(item.source, item.text, item.times) for item in shown] == [
        ("Site", "Policy of a user delivered", 5),
        ("Site", "Registered with the site", 1),
        ("MDM service", "Enrolled in MDM by ada", 1),
    ]
    assert shown[0].at == NOW - timedelta(minutes=1)


async def test_the_device_s_page_says_whose_value_is_in_force(
    pages: SitePages, site_db: Database, tenant_side: Tenant
) -> None:
    await client_row(site_db, "dev-1", "LAB-001", capabilities([]), policy=True)
    applied = {"DeviceLock/Max": {"value": "10", "source": "site"}}
    async with site_db.transaction() as tx:
        await tx.execute(
            "UPDATE clients_client SET state = jsonb_set(state, '{applied}', %s)",
            (json.dumps(applied),),
        )
    await reported(site_db, "dev-1", 100, {"flags": 8193, "applied": applied}, topic=COMANAGEMENT)
    session = await pages.sign_in("admin", PASSWORD)
    shown = await pages.device(session, "dev-1")
    assert "DeviceLock/Max = 10 (site)" in [fact.value for fact in shown.site]
    (log,) = shown.logs
    assert log.lines[0].endswith("workload flags 8193, DeviceLock/Max = 10 (site)")


def test_the_console_knows_what_the_site_says_of_a_device() -> None:
    """Otherwise a French page says it in English."""
    assert set(clients_model._STATES.values()) <= set(labels.HAPPENINGS)


@pytest.mark.parametrize(("enrolled", "policy"), [(False, True), (True, False)])
async def test_one_authority_alone_does_not_make_a_device_co_managed(
    pages: SitePages, site_db: Database, tenant_side: Tenant, enrolled: bool, policy: bool
) -> None:
    await client_row(site_db, "dev-1", "LAB-001", capabilities([]), policy)
    tenant_side.knows("dev-1", enrolled=enrolled)
    await tenant_side.heard()
    session = await pages.sign_in("admin", PASSWORD)
    shown = await pages.dashboard(session)
    assert shown.stages[console.Stage.CO_MANAGED] == 0


async def test_a_device_that_stands_still_is_listed_with_its_log_line(
    pages: SitePages, site_db: Database, tenant_side: Tenant
) -> None:
    await reported(site_db, "dev-2", 302, {"log": "Failed to get manifest 0x87d0027e"})
    tenant_side.knows("dev-2", name="LAB-002")
    await tenant_side.heard()
    session = await pages.sign_in("admin", PASSWORD)
    found = await pages.devices(session, console.Filter(), console.Slice())
    (device,) = found.rows
    assert (device.name, device.registered) == ("LAB-002", False)
    assert device.trouble == "Failed to get manifest 0x87d0027e"


async def test_the_pages_work_while_the_tenant_is_down(
    browser: httpx.AsyncClient, site_db: Database, tenant_side: Tenant
) -> None:
    await client_row(site_db, "dev-1", "LAB-001", capabilities([]), policy=True)
    tenant_side.gone = "The tenant does not answer."
    await tenant_side.heard()
    await sign_in(browser)
    for path in ("/console/", "/console/devices", "/console/devices/dev-1"):
        answer = await browser.get(path)
        assert answer.status_code == 200
        assert "The tenant does not answer." in answer.text


async def test_graph_is_read_once_for_pages_that_follow_each_other() -> None:
    asked = []
    answers = {
        "devices": [{"deviceId": "dev-1", "displayName": "LAB-001"}],
        "deviceManagement/managedDevices": [
            {
                "id": "m-1",
                "azureADDeviceId": "dev-1",
                "deviceName": "LAB-001",
                "userPrincipalName": "Ada@contoso.com",
                "managementAgent": "configurationManagerClientMdm",
                "configurationManagerClientEnabledFeatures": {"modernApps": True},
                "enrolledDateTime": "2026-11-24T09:00:00Z",
            }
        ],
        "users": [{"userPrincipalName": "ada@contoso.com", "assignedLicenses": [{"skuId": "x"}]}],
        "deviceManagement/troubleshootingEvents": [
            {"deviceId": "dev-9", "failureReason": "userLicense (0x80180018)"}
        ],
        "deviceAppManagement/mobileApps": [
            {"id": "a-1", "commandLine": 'CCMSETUPCMD="CCMHOSTNAME=gw/…"'},
            {"id": "a-2", "commandLine": "/quiet"},
        ],
        "deviceAppManagement/mobileApps/a-1/deviceStatuses": [
            {
                "deviceId": "m-1",
                "installState": "installed",
                "client": {"stuckAt": "ccmsetup failed"},
            }
        ],
    }

    async def get(path: str) -> dict[str, object]:
        asked.append(path)
        return {"value": answers[path.partition("?")[0]]}

    moments = iter([0.0, 0.0, 1.0, 99.0, 99.0])
    read = GraphDevices(get, keep_seconds=5, tick=lambda: next(moments))
    found = await read()
    count = len(asked)
    assert await read() is found
    assert len(asked) == count
    device = found["dev-1"]
    assert device.licensed
    assert device.msi_installed
    assert device.policy_reported
    assert device.trouble == "ccmsetup failed"
    assert device.flags == capabilities([Workload.CLIENT_APPS])
    assert found["dev-9"].enrollment_error == 0x80180018
