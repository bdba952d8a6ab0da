"""Tutorial step 2 in the console: sign-in by a code, both apps, consent, discovery, and afterwards."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import site_world
import tenant_world
from browsing import Browser, browsing
from site_world import PASSWORD, Site, tenant_session
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tenant_world import ADMIN, World

START = "/console/wizards/azure-service"
SITE_PAGES = "/console/azure-services"
Contoso = tuple[Site, World]


@pytest.fixture
async def contoso(site_db: Database, tenant_db: Database, tmp_path: Path) -> AsyncIterator[Contoso]:
    (tmp_path / "tenant").mkdir()
    often = {"device_code_interval_seconds": 1}
    async with tenant_world.live(tenant_db, tmp_path / "tenant", often) as (world, root):
        base = world.tokens.settings.base
        async with site_world.site(site_db, tmp_path, base, root) as made:
            yield made, world


@pytest.fixture
async def browser(contoso: Contoso) -> AsyncIterator[Browser]:
    async with browsing(contoso[0].app, "siteadmin", PASSWORD) as made:
        yield made


async def enter(contoso: Contoso, browser: Browser, upn: str = ADMIN) -> None:
    """At the tenant, in another tab; the second between two questions is over."""
    site, world = contoso
    code = browser.page.xpath("//*[@id='user-code']")[0].text_content()
    page = await world.client.get("/devicelogin")
    page = await world.submit(page, otc=code)
    if 'name="passwd"' in page.text:
        page = await world.submit(page, login=upn, passwd=tenant_world.PASSWORD)
    for _ in range(2):
        if 'name="decision"' in page.text:
            page = await world.submit(page, decision="accept")
    world.client.cookies.clear()
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_tenant_sign_in SET asked_at = NULL")


async def to_sign_in(browser: Browser, name: str = "Contoso cloud") -> None:
    await browser.open(START)
    if "Start anew" in browser.main:
        await browser.press("Start anew")
    environment = browser.page.xpath("//select[@name='environment']/option/@value")[-1]
    await browser.press("Next", name=name, environment=environment)
    await browser.press("Next")


async def to_summary(contoso: Contoso, browser: Browser, **server: Any) -> None:
    await to_sign_in(browser)
    await enter(contoso, browser)
    await browser.press("Next")
    await browser.press("Next", **server)
    await browser.press("Next")
    await browser.press("Next")


async def test_the_tenant_is_connected_consent_given_and_users_found(
    contoso: Contoso, browser: Browser
) -> None:
    site, world = contoso
    await world.user("ada")
    await to_sign_in(browser)
    assert "/devicelogin?user_code=" in browser.link("Open the tenant's page")
    await browser.press("Next")
    assert browser.alert.startswith("You have not signed in to the tenant yet.")
    await enter(contoso, browser)
    await browser.follow("Check")
    assert f"Signed in to Contoso as {ADMIN}" in browser.main
    await browser.press("Next")
    await browser.press("Next")
    await browser.press("Next")
    await browser.press("Next", user_discovery="1")
    facts = browser.facts()
    assert facts["Tenant"] == f"Contoso ({world.tenant.id})"
    assert facts["Signed in to the tenant as"] == ADMIN
    assert "tandem azure-service app create server --name 'ConfigMgr Server'" in browser.main
    await browser.press("Finish")
    assert "Contoso cloud is connected." in browser.main
    assert "Permissions are missing" in browser.main
    assert "Directory.Read.All" in browser.main
    here = browser.url
    await browser.open(here.replace("consent", "discovery"))
    await browser.press("Run full discovery now")
    await site.jobs_done()
    await browser.open(browser.url)
    assert "lacks the application permission Directory.Read.All" in browser.main
    await browser.open(here)
    await browser.follow("Grant with a sign-in")
    await enter(contoso, browser)
    await browser.press("Next")
    assert "user_impersonation" in browser.facts()["Native client app"]
    await browser.press("Grant")
    assert "Both apps have every permission that they need." in browser.main
    await browser.press("Run full discovery now")
    await site.jobs_done()
    await browser.open(browser.url)
    assert "Succeeded" in browser.main
    shown = await site.run("azure-service", "consent")
    assert shown["ok"]


async def test_an_account_without_the_role_does_not_get_on_and_takes_a_new_code(
    contoso: Contoso, browser: Browser
) -> None:
    await contoso[1].user("ada")
    await to_sign_in(browser)
    await enter(contoso, browser, "ada@contoso.com")
    await browser.press("Next")
    assert "ada@contoso.com is not a global administrator of the tenant Contoso." in browser.alert
    await browser.press("Take a new code")
    assert "Waiting for the sign-in" in browser.main
    await enter(contoso, browser)
    await browser.press("Next")
    assert "Create server app" in browser.main


async def test_the_waiting_part_of_the_page_is_fetched_again_until_it_is_done(
    contoso: Contoso, browser: Browser
) -> None:
    await to_sign_in(browser)
    (part,) = browser.page.xpath("//*[@id='tenant-sign-in']")
    assert part.get("hx-trigger") == "every 3s"
    headers = {"HX-Request": "true"}
    waiting = await browser.client.get(part.get("hx-get"), headers=headers)
    assert "hx-trigger" in waiting.text
    await enter(contoso, browser)
    done = await browser.client.get(part.get("hx-get"), headers=headers)
    assert ADMIN in done.text
    assert "hx-trigger" not in done.text
    assert "eyJ" not in done.text


async def test_an_app_id_uri_in_use_leads_back_to_its_step_and_leaves_nothing(
    contoso: Contoso, browser: Browser
) -> None:
    site, _ = contoso
    await to_summary(contoso, browser)
    await browser.press("Finish")
    await browser.open(START)
    await browser.open(START)
    await to_sign_in(browser, "Second")
    await enter(contoso, browser)
    for _ in range(4):
        await browser.press("Next")
    await browser.press("Finish")
    assert browser.answer.status_code == 409
    assert "is in use by another app of the tenant" in browser.alert
    assert [item["name"] for item in await site.run("azure-service", "list")] == ["Contoso cloud"]
    await browser.follow("Go to the step that needs a change")
    await browser.press("Next", app_id_uri="https://contoso.com/second")
    while "Summary" not in browser.page.xpath("string(//title)"):
        await browser.press("Next")
    await browser.press("Finish")
    assert "Second is connected." in browser.main


async def test_names_and_uris_are_checked_in_place(contoso: Contoso, browser: Browser) -> None:
    await contoso[0].run("azure-service", "create", "Taken")
    await browser.open(START)
    await browser.press("Next", name="taken")
    assert browser.said("name") == "There is an Azure service taken already. Take another name."
    await to_sign_in(browser)
    await enter(contoso, browser)
    await browser.press("Next")
    await browser.press("Next", app_id_uri="ConfigMgrService", home_page="nowhere")
    assert "begins with api:// or https://" in browser.said("app_id_uri")
    assert "begins with https://" in browser.said("home_page")


async def test_existing_apps_are_verified_before_they_are_imported(
    contoso: Contoso, browser: Browser
) -> None:
    site, world = contoso
    await tenant_session(site)
    secret = site.folder / "app-secret"
    made = await site.run(
        *("app-registration", "create", "By hand", "--secret-file", secret),
        *("--application-permission", "Directory.Read.All"),
    )
    await site.run("app-registration", "consent", made["app_id"])
    await browser.open(START)
    environment = browser.page.xpath("//select[@name='environment']/option/@value")[-1]
    await browser.press("Next", name="Imported", environment=environment)
    await browser.press("Next", server_how="import", client_how="import")
    values = {
        "import_tenant_id": world.tenant.id,
        "import_client_id": made["app_id"],
        "import_app_id_uri": "api://by-hand",
        "import_secret_expires": "2099-01-01",
    }
    past = {**values, "import_secret_expires": "2020-01-01"}
    await browser.press("Verify", **past, import_secret="wrong")
    assert "has expired on that day" in browser.said("import_secret_expires")
    await browser.press("Verify", **values)
    assert "AADSTS7000215" in browser.said("import_secret")
    await browser.press("Verify", **{**values, "import_client_id": "x"})
    assert "is not the id of an app" in browser.said("import_client_id")
    await browser.press("Verify", **values, import_secret=secret.read_text())
    await browser.press("Next", import_client_app_id="11111111-2222-3333-4444-555555555555")
    await browser.press("Next")
    assert secret.read_text() not in browser.answer.text
    await browser.press("Finish")
    shown = await site.run("azure-service", "show", "--service", "Imported")
    assert shown["tenant_name"] == "Contoso"
    assert [item["app_id"] for item in shown["apps"]] == [
        made["app_id"],
        "11111111-2222-3333-4444-555555555555",
    ]


async def test_its_properties_are_changed_afterwards(contoso: Contoso, browser: Browser) -> None:
    site, world = contoso
    await site_world.connect(site)
    id = (await site.run("azure-service", "show"))["id"]
    page = f"{SITE_PAGES}/{id}"
    await browser.open(page)
    version = browser.value("version")
    await browser.press("Save", name="Contoso", description="Ours")
    assert "The changes were saved." in browser.main
    await browser.press("Save", name="Mine", version=version)
    assert browser.answer.status_code == 409
    assert "Somebody else changed it" in browser.alert
    assert browser.value("name") == "Mine"
    await browser.open(f"{page}/applications")
    await browser.press("Verify")
    assert "The server app gets a token" in browser.main
    token = (await world.user_tokens("https://ConfigMgrService/user_impersonation"))["access_token"]
    await browser.press("Disable directory authentication")
    assert "Discovery goes on" in browser.main
    await browser.press("Disable")
    assert "Tokens of this tenant do not count any more." in browser.main
    async with site.db.transaction() as tx:
        assert await site.cloud.tenants.trusted_tenants(tx) == []
        with pytest.raises(site_world.cloud_services.BadTenantToken):
            await site.cloud.tenants.verify_token(tx, token)
    await browser.press("Enable directory authentication")
    async with site.db.transaction() as tx:
        assert len(await site.cloud.tenants.trusted_tenants(tx)) == 1
    await browser.open(f"{page}/discovery")
    await browser.press("Switch user discovery off")
    await browser.press("Run full discovery now")
    assert "User discovery is not enabled" in browser.alert
    await browser.open(page)
    await browser.press("Delete")
    assert "The apps stay in the directory" in browser.main
    await browser.press("Delete")
    assert "Its apps stay in the directory." in browser.main
    assert await site.run("azure-service", "list") == []


async def test_a_secret_is_renewed_with_a_sign_in(contoso: Contoso, browser: Browser) -> None:
    site, _ = contoso
    await site_world.connect(site)
    id = (await site.run("azure-service", "show"))["id"]
    await browser.open(f"{SITE_PAGES}/{id}/applications")
    await browser.follow("Renew the secret")
    await enter(contoso, browser)
    await browser.press("Next")
    await browser.press("Next", secret_years="2")
    await browser.press("Renew")
    assert "has a new secret" in browser.main
    shown = await site.run("azure-service", "show")
    ends = str((utc_now() + timedelta(days=730)).year)
    assert shown["apps"][0]["secret_expires_at"].startswith(ends)


async def test_application_settings_are_updated_with_a_sign_in(
    contoso: Contoso, browser: Browser
) -> None:
    site, _ = contoso
    await site_world.connect(site)
    id = (await site.run("azure-service", "show"))["id"]
    await browser.open(f"{SITE_PAGES}/{id}/applications")
    await browser.follow("Update application settings")
    await enter(contoso, browser)
    await browser.press("Next")
    await browser.press("Update")
    assert "nothing was changed" in browser.main


async def test_the_schedule_of_discovery_is_changed_in_place(
    contoso: Contoso, browser: Browser
) -> None:
    site, _ = contoso
    await site_world.connect(site)
    id = (await site.run("azure-service", "show"))["id"]
    await browser.open(f"{SITE_PAGES}/{id}/discovery")
    await browser.press("Save", full_days="3", delta_minutes="99999")
    assert "99999" in browser.main
    assert (await site.run("discovery", "schedule"))["full_days"] == 7
    await browser.press("Save", full_days="3", delta_minutes="5")
    assert "The schedule was saved." in browser.main
    shown = await site.run("discovery", "schedule")
    assert (shown["full_days"], shown["delta_minutes"]) == (3, 5)
    await browser.press("Run delta discovery now")
    assert "Delta discovery has begun." in browser.main


async def test_groups_are_searched_chosen_read_and_taken_out_in_place(
    contoso: Contoso, browser: Browser
) -> None:
    site, world = contoso
    await site_world.connect(site)
    await world.user("ada")
    await site.run("group", "create", "Finance")
    await site.run("group", "add-member", "Finance", "ada@contoso.com")
    page = f"{SITE_PAGES}/{(await site.run('azure-service', 'show'))['id']}/discovery"
    await browser.open(page)
    await browser.press("Switch discovery of groups on")
    assert "Discovery of groups is on." in browser.main
    await browser.press("Save for groups", every_hours="99999")
    assert "99999" in browser.main
    await browser.press("Save for groups", every_hours="6")
    await browser.open(f"{page}/groups?search=nothing")
    assert "No group of the tenant matches." in browser.main
    await browser.open(f"{page}/groups?search=fin")
    await browser.press("Choose")
    assert "The group is read with the next run." in browser.main
    await browser.press("Run discovery of groups now")
    await site.jobs_done()
    await browser.open(page)
    assert "Security group" in browser.main
    await browser.open("/console/user-groups?search=f")
    await browser.follow("Finance")
    assert "ada@contoso.com" in browser.main
    await browser.open(page)
    await browser.press("Remove")
    await browser.press("Remove")
    assert "The group is discovered no more." in browser.main
    await browser.open("/console/user-groups")
    assert "No group matches." in browser.main


async def test_commands_for_what_the_pages_do(contoso: Contoso) -> None:
    site, _ = contoso
    await site_world.connect(site, consent=False)
    missing = await site.run("azure-service", "consent")
    assert not missing["ok"]
    assert "Directory.Read.All" in missing["apps"][0]["missing"]
    granted = await site.run("azure-service", "consent", "--grant", *site_world.admin(site))
    assert granted["ok"]
    assert (await site.run("azure-service", "consent", "--grant", *site_world.admin(site)))["ok"]
    changed = await site.run("azure-service", "change", "--name", "Renamed", "--no-authentication")
    assert (changed["name"], changed["authentication_enabled"]) == ("Renamed", False)
