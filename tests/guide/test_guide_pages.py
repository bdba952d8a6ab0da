"""The first-run guide and the wizard of co-management, beside a real tenant that is signed in to."""

from collections.abc import AsyncIterator

import pytest

from browsing import Browser, browsing
from guide_world import Guided
from site_api import add_device
from site_world import PASSWORD, connect, create, ready, until
from tenant_world import ADMIN
from tenant_world import PASSWORD as TENANT_PASSWORD

GUIDE = "/console/guide"
WIZARD = "/console/wizards/co-management"


@pytest.fixture
async def browser(guided: Guided) -> AsyncIterator[Browser]:
    async with browsing(guided.site.app, "siteadmin", PASSWORD) as made:
        yield made


def leads(browser: Browser, id: str) -> str:
    return str(browser.page.xpath(f"//li[@id='step-{id}']//a/@href")[0])


def step(browser: Browser, id: str) -> str:
    found = browser.page.xpath(f"//li[@id='step-{id}']")[0]
    return " ".join(found.text_content().split())


async def test_the_guide_shows_each_step_and_does_what_needs_no_secret(
    guided: Guided, browser: Browser
) -> None:
    await browser.open(GUIDE)
    assert "2 of the four are Yes." in step(browser, "4.3")
    assert "Cannot be known from here" in step(browser, "6.1")
    assert "Not in this version" in step(browser, "7.3")
    assert leads(browser, "1.2") == "/console/wizards/gateway-certificate"
    assert leads(browser, "4.3") == "/console/client-settings"
    assert leads(browser, "5.1") == WIZARD
    await browser.press("Do it for me: Set the four settings")
    assert "They hold for every device of the site" in browser.main
    assert "Partly" in step(await browser.open(GUIDE), "4.3")  # It was only asked.
    await browser.press("Do it for me: Set the four settings")
    await browser.press("Set the four settings")
    assert "Done: look at the step below." in browser.main
    assert "All four are Yes." in step(browser, "4.3")
    assert "siteadmin changed the default client settings" in browser.main
    assert "Do it for me: Set the four settings" not in browser.main
    # What the guide does not offer is not done either.
    token = browser.page.xpath("//input[@name='form_token']/@value")[0]
    sent = {"form_token": token, "confirmed": "1"}
    for id in ("3.1", "4.3", "9.9"):
        answer = await browser.client.post(f"{GUIDE}/{id}/do", data=sent)
        assert answer.status_code == 303


async def test_every_link_of_the_guide_leads_to_a_page(guided: Guided, browser: Browser) -> None:
    await browser.open(GUIDE)
    links = browser.page.xpath("//li[@class='step']//a/@href")
    here = [one for one in links if one.startswith("/")]
    assert len(here) > 15
    for url in dict.fromkeys(here):
        await browser.open(url)
        assert browser.answer.status_code == 200, url


async def test_the_story_is_a_part_of_the_dashboard(guided: Guided, browser: Browser) -> None:
    part = await browser.client.get("/console/guide/story", headers={"HX-Request": "true"})
    assert "set-up made siteadmin an administrator" in part.text
    assert "<html" not in part.text
    await browser.open("/console/guide/story")
    assert "set-up made siteadmin an administrator" in browser.main
    await browser.open("/console/")
    assert browser.link("The whole story") == GUIDE


async def test_the_guide_speaks_french(guided: Guided) -> None:
    async with browsing(guided.site.app, "siteadmin", PASSWORD, "fr") as browser:
        await browser.open(GUIDE)
        assert "Pas encore" in browser.main
        for word in (" the ", "Not yet", "There is", "Create", "Do it"):
            assert word not in browser.main, word


async def tenant_accepts(guided: Guided, browser: Browser) -> None:
    """The administrator enters the code on the tenant's page."""
    code = browser.page.xpath("//*[@id='user-code']")[0].text_content().strip()
    world = guided.tenant
    page = await world.client.get("/devicelogin")
    page = await world.submit(page, otc=code)
    page = await world.submit(page, login=ADMIN, passwd=TENANT_PASSWORD)
    page = await world.submit(page, decision="accept")
    if 'name="decision"' in page.text:
        await world.submit(page, decision="accept")
    async with guided.site.db.transaction() as tx:  # It may be asked again.
        await tx.execute("UPDATE cloud_tenant_sign_in SET asked_at = NULL")


async def prepared(guided: Guided) -> None:
    """Steps 2 to 4, as far as the command line needs them, and two co-managed devices."""
    await connect(guided.site)
    await guided.site.run("mdm-authority", "set")
    await create(guided.site, tenant_id=guided.tenant.tenant.id)
    await until(guided.site, ready)
    await guided.do("4.2")
    async with guided.site.db.transaction() as tx:
        for name in ("LAB-001", "LAB-002"):
            await add_device(tx, name, flags=8193)


async def test_without_prerequisites_the_wizard_says_what_is_missing(browser: Browser) -> None:
    await browser.open(WIZARD)
    assert "The site is not connected to a tenant." in browser.main
    await browser.press("Next")
    assert browser.answer.status_code == 422
    assert "Please ensure the proper prerequisites are installed." in browser.alert
    assert browser.link("The first-run guide") == GUIDE


async def test_what_is_missing_is_said_in_french_too(guided: Guided) -> None:
    async with browsing(guided.site.app, "siteadmin", PASSWORD, "fr") as browser:
        await browser.open(WIZARD)
        assert "Le site n’est connecté à aucun locataire." in browser.main
        assert "Aucune passerelle n’est prête" in browser.main
        for word in ("gateway", "Connect", "Create", "site is"):
            assert word not in browser.main.replace("--allow-gateway-traffic", ""), word


async def test_the_wizard_enables_everything_at_once(guided: Guided, browser: Browser) -> None:
    await prepared(guided)
    await browser.open(WIZARD)
    assert "Clients use the gateway" in browser.main
    await browser.press("Next")
    await tenant_accepts(guided, browser)
    await browser.press("Next")
    assert browser.url.endswith("/enablement"), browser.main
    assert "CCMSETUPCMD=" in browser.main
    await browser.press("Next", automatic_enrollment="pilot")
    assert browser.answer.status_code == 422
    assert "Choose the collection" in browser.said("collection")
    await browser.press("Next", automatic_enrollment="pilot", collection="+new")
    assert browser.url.endswith("/workloads"), browser.main
    await browser.press("Next", **{"client-apps": "pilot", "windows-update": "mdm"})
    assert browser.url.endswith("/staging"), browser.main
    await browser.press("Next", new_name="Pilot")
    assert "Choose the collection that the pilot is for." in browser.said("pilot-client-apps")
    query = "select * from SMS_R_System where Name = 'LAB-001'"
    await browser.press("Next", **{"pilot-client-apps": "+new", "new_query": "nonsense"})
    assert browser.answer.status_code == 422
    assert "cannot be read" in browser.main
    # The members are seen before anything is made.
    await browser.press("Preview", new_query=query)
    assert "1 device would be in it" in browser.main
    assert "LAB-001" in browser.main
    await browser.press("Next")
    assert browser.url.endswith("/summary"), browser.main
    facts = browser.facts()
    assert facts["Signed in to the tenant as"] == ADMIN
    assert facts["Client apps"] == "Pilot MDM: Pilot"
    assert facts["Devices that change owner"] == "2"
    assert "--workload windows-update=mdm" in browser.main
    assert "--new-collection 'Pilot=select * from" in browser.main
    shown = await guided.web.get("/api/v1/comanagement")
    assert not shown.json()["enabled"]
    finish = browser.form("Enable co-management")[0].get("action")
    token = browser.value("form_token")
    await browser.press("Enable co-management")
    assert browser.url == "/console/comanagement"
    assert "Co-management is enabled." in browser.main
    again = await browser.client.post(finish, data={"form_token": token})
    assert again.status_code == 303
    made = (await guided.web.get("/api/v1/comanagement")).json()
    positions = {item["workload"]: item for item in made["workloads"]}
    assert positions["client-apps"]["collection"] == "Pilot"
    assert positions["windows-update"]["position"] == "mdm"
    assert made["enablement"]["auto_enroll"] == "pilot"
    await _told(guided, browser)


async def _told(guided: Guided, browser: Browser) -> None:
    """The guide knows of it, and tells it."""
    await browser.open(GUIDE)
    assert "Done" in step(browser, "5.1")
    assert leads(browser, "5.1") == "/console/comanagement"
    assert "siteadmin moved Client apps to the MDM service for the pilot Pilot" in browser.main
    assert "0 of" in step(browser, "7.2")
    async with browsing(guided.site.app, "siteadmin", PASSWORD, "fr") as french:
        await french.open(GUIDE)
        assert "pour le pilote Pilot" in french.main
        assert "Applications clientes" in french.main.partition("0. ")[0]
    await browser.open(WIZARD)
    await browser.press("Next")
    assert "Co-management is enabled already." in browser.alert
