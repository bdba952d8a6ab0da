"""Tutorial steps 3 and 4 in the console: a gateway made, watched, changed, and its roles."""

import io
import zipfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import site_world
import tenant_world
from browsing import Browser, browsing
from site_world import NAME, PASSWORD, PFX_PASSWORD, Site, connect, create, pfx, ready, shown, until
from tandem import pki
from tandem.console.areas.gateways import words
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.protocols import tunnel
from tandem.site.cloud_services import content_store
from tandem.site.health import CAUSES, CHECKS
from tenant_world import ADMIN, World
from tenant_world import PASSWORD as TENANT_PASSWORD

RECORD = f"{NAME}. CNAME mycmg.cloudapp.example."
PAGE = f"/console/gateways/{NAME}"


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    async with browsing(site.app, "siteadmin", PASSWORD) as made:
        yield made


@pytest.fixture
async def french(site: Site) -> AsyncIterator[Browser]:
    async with browsing(site.app, "siteadmin", PASSWORD, "fr") as made:
        yield made


@pytest.fixture
async def gateway(site: Site) -> dict[str, Any]:
    await create(site)
    return await until(site, ready)


@pytest.fixture
async def contoso(
    site_db: Database, tenant_db: Database, tmp_path: Path
) -> AsyncIterator[tuple[Site, World]]:
    (tmp_path / "tenant").mkdir()
    often = {"device_code_interval_seconds": 1}
    async with tenant_world.live(tenant_db, tmp_path / "tenant", often) as (world, root):
        base = world.tokens.settings.base
        async with site_world.site(site_db, tmp_path, base, root) as made:
            yield made, world


async def _sign_in(browser: Browser, site: Site, world: World) -> None:
    """The administrator enters the code on the tenant's page, and goes on here."""
    async with site.db.transaction() as tx:
        found = await (
            await tx.execute("SELECT user_code FROM cloud_tenant_sign_in ORDER BY began_at DESC")
        ).fetchone()
        assert found is not None
        await tx.execute("UPDATE cloud_tenant_sign_in SET asked_at = NULL")
    page = await world.client.get("/devicelogin")
    page = await world.submit(page, otc=found["user_code"])
    page = await world.submit(page, login=ADMIN, passwd=TENANT_PASSWORD)
    page = await world.submit(page, decision="accept")
    if 'name="decision"' in page.text:
        await world.submit(page, decision="accept")


async def test_the_whole_wizard_makes_a_gateway(contoso: tuple[Site, World]) -> None:
    site, world = contoso
    await connect(site)
    own = site.folder / "own.pfx"
    own.write_bytes(pfx(NAME))
    await site.run(
        *("certificate", "import", own, "--password-file", site.secret("p", PFX_PASSWORD))
    )
    async with browsing(site.app, "siteadmin", PASSWORD) as browser:
        await browser.open("/console/gateways")
        await browser.follow("Create a gateway")
        assert browser.facts()["Free hosts"] == "2 of 2"
        await browser.press("Next")
        await browser.press("Test the connection")
        assert browser.answer.status_code == 422
        assert "You have not signed in to the tenant yet." in browser.alert
        await _sign_in(browser, site, world)
        await browser.press("Test the connection")
        await browser.press("Next", source="upload")

        # Each error of the certificate in place, at its field.
        async def upload(data: bytes, password: str = PFX_PASSWORD) -> None:
            await browser.press("Next", files={"pfx": ("cmg.pfx", data)}, password=password)

        for data, password, at, says in (
            (b"PNG", PFX_PASSWORD, "pfx", "not a PFX"),
            (pfx(NAME), "wrong", "password", "does not open this PFX"),
            (pfx(NAME, begins=-60), PFX_PASSWORD, "pfx", "expired"),
            (pfx(NAME, whole=False), PFX_PASSWORD, "pfx", "lacks the certificate of CN=Public CA"),
            (pfx("my-cmg.contoso.com"), PFX_PASSWORD, "pfx", "can be a service name"),
        ):
            await upload(data, password)
            assert browser.answer.status_code in {400, 422}, says
            assert says in browser.said(at)
        site.names.hosts["taken.cloudapp.example"] = ["192.0.2.1"]
        await upload(pfx("taken.contoso.com"))
        assert "already belongs to a deployment of someone else" in browser.said("pfx")
        await upload(pfx("*.contoso.com"))
        assert browser.facts()["Names of the certificate"] == "*.contoso.com"
        await browser.press("Next")
        assert "say which name the gateway has" in browser.said("service_name")
        await browser.press("Next", service_name="my-cmg.contoso.com")
        assert "The prefix 'my-cmg' cannot be used." in browser.said("service_name")

        # Back to the certificate of the store: it fills in the names.
        await browser.open(browser.url.replace("/settings", "/certificate"))
        await browser.press("Next", source="store")
        kept = browser.page.xpath("//select[@name='certificate']/option[@value!='']/@value")
        await browser.press("Next", certificate=kept[0])
        assert browser.value("service_name") == NAME
        assert browser.facts()["Deployment name"] == "mycmg.cloudapp.example"
        for given, at, says in (
            ({"instances": "17"}, "instances", "From 1 to 16."),
            ({"instances": "3"}, "instances", "hosts for 2 instances at most"),
        ):
            await browser.press("Next", **given)
            assert browser.answer.status_code == 422
            assert says in browser.said(at)
        await browser.press(
            "Next", instances="2", check_revocation=None, description="Lyon", region="Local"
        )
        await browser.press("Next", warning_percent="95")
        assert "its percentage is the lower one" in browser.said("warning_percent")
        await browser.press("Next", warning_percent="70", outbound_gb="500")
        facts = browser.facts()
        assert facts["DNS record to add"] == RECORD
        assert facts["Signed in to the tenant as"] == ADMIN
        assert facts["Outbound transfer in 14 days"].startswith("500 GB, warning at 70 %")
        assert facts["Verify client certificate revocation"] == "No"
        line = f"tandem gateway create --certificate {NAME} --environment Tandem --region Local"
        assert line in browser.main
        assert PFX_PASSWORD not in browser.answer.text
        await browser.press("Create the gateway")
        assert browser.url == PAGE
        assert "is being provisioned. Add its DNS record meanwhile." in browser.main
        assert RECORD in browser.main
        made = await until(site, ready)
        assert (made["instances"], made["check_revocation"]) == (2, False)
        assert made["alerts"]["outbound_gb"] == 500
        await browser.open(PAGE)
        assert "Ready" in browser.main


async def test_without_a_free_host_the_wizard_does_not_begin(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    await site.run("gateway", "set", "--instances", 2)
    await browser.open("/console/wizards/create-gateway")
    assert "The provider has no free host for a gateway" in browser.alert


async def test_a_gateways_page_has_its_record_and_its_traffic(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    await site.run("connection-point", "add", "CP01")
    told = tunnel.ConnectorReport(
        "CP01",
        [
            tunnel.ConnectionState(
                NAME, 1, "disconnected", "1", 1_700_000_000.0, "Nothing listens on x."
            )
        ],
        [tunnel.Traffic(NAME, "/CCM_Proxy_ServerAuth/7/SMS_MP", 12, 3, 10, 2_000_000, 5.0)],
    )
    async with site.db.transaction() as tx:
        point = await site.cloud.connections.connection_point(tx, "CP01")
        await site.cloud.connections.report(tx, point, told)
    await browser.open("/console/gateways")
    (row,) = browser.page.xpath("//h3/following::tr[@class='bad'][td[2]='Connection point CP01']")
    cells = [" ".join(cell.text_content().split()) for cell in row.xpath("./td")]
    assert cells[4].startswith("Nothing listens where the connection point dials.")
    assert "Look whether the instance runs" in cells[4]
    await browser.follow(NAME)
    assert f"DNS has no CNAME record for {NAME}." in browser.main
    assert RECORD in browser.main
    (row,) = browser.page.xpath("//tr[th='CP01']")
    assert [cell.text_content() for cell in row.xpath("./td")][:3] == [
        "Management point",
        "12",
        "3",
    ]
    assert len(browser.page.xpath("//*[@id='traffic-table']//tbody/tr")) == 14
    site.names.aliases[NAME] = "mycmg.cloudapp.example"
    site.names.hosts["mycmg.cloudapp.example"] = ["127.0.0.11"]
    await browser.open(PAGE)
    assert "The record is there: devices find the gateway." in browser.main
    site.names.away = True
    await browser.open(PAGE)
    assert "DNS does not answer" in browser.main


async def test_each_tunnel_says_which_way_it_takes_and_what_failed_before(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    await site.run("connection-point", "add", "CP01")
    failed = tunnel.Failure(1_700_000_000.0, "tls", "Nothing listens on 192.0.2.1:10140.")
    held = tunnel.ConnectionState(
        NAME, 1, "connected", "1-7", 1_700_000_060.0, "", "https", "proxy.corp:8080", [failed]
    )
    async with site.db.transaction() as tx:
        point = await site.cloud.connections.connection_point(tx, "CP01")
        await site.cloud.connections.report(tx, point, tunnel.ConnectorReport("CP01", [held]))
    (told,) = (await site.run("connection-point", "show", "CP01"))["connections"]
    assert (told["carrier"], told["through"]) == ("https", "proxy.corp:8080")
    assert told["failures"] == [{"at": failed.at, "carrier": "tls", "reason": failed.reason}]
    await browser.open("/console/site-systems/CP01")
    (row,) = browser.page.xpath("//tr[contains(th, ' 1')]")
    cells = [" ".join(cell.text_content().split()) for cell in row.xpath("./td")]
    assert cells[2] == "HTTPSthrough proxy.corp:8080"
    assert cells[4].endswith(f"Before, TLS: {failed.reason}")


async def test_stopping_says_how_far_it_reaches_and_deleting_too(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    await browser.open(PAGE)
    await browser.follow("Stop")
    assert "No device on the internet reaches the site through it" in browser.main
    assert (await shown(site))["state"] == "Ready"
    await browser.press("Stop the gateway")
    assert f"{NAME} is stopped." in browser.main
    assert (await shown(site))["state"] == "Stopped"
    await browser.follow("Start")
    await browser.press("Start the gateway")
    await until(site, ready)
    await site.run("connection-point", "add", "CP01")
    await browser.open(f"{PAGE}/do/delete")
    await browser.press("Delete the gateway")
    assert "Connection points use mycmg.contoso.com: CP01." in browser.text
    await site.run("connection-point", "remove", "CP01")
    await browser.open(f"{PAGE}/do/delete")
    await browser.press("Delete the gateway")
    assert "is being deleted." in browser.main
    assert (await browser.open(f"{PAGE}/do/explode")).answer.status_code == 404


async def test_properties_are_saved_and_refusals_stay_in_place(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    await browser.open(f"{PAGE}/settings")
    await browser.press("Save", instances="9", description="<b>Lyon</b>")
    assert "free addresses for 2 instances" in browser.said("instances")
    assert browser.value("description") == "<b>Lyon</b>"
    await browser.press("Save", instances="1")
    assert f"{NAME} was changed." in browser.main
    assert (await shown(site))["description"] == "<b>Lyon</b>"

    # Somebody else is quicker: what was typed is kept, and nothing of theirs is undone unseen.
    await browser.open(f"{PAGE}/settings")
    await site.run("gateway", "set", "--description", "theirs")
    await browser.press("Save", description="mine")
    assert browser.answer.status_code == 412
    assert "Somebody else changed it" in browser.alert
    assert browser.value("description") == "mine"
    assert (await shown(site))["description"] == "theirs"
    await browser.press("Save")
    assert (await shown(site))["description"] == "mine"

    await browser.open(f"{PAGE}/alerts")
    await browser.press("Save", watch="1", warning_percent="90")
    assert "The warning comes before" in browser.said("warning_percent")
    await browser.press("Save", warning_percent="50", outbound_gb="7", stop_when_critical="1")
    assert (await site.run("gateway", "alerts"))["level"] == "good"
    assert (await browser.open(f"{PAGE}/content")).answer.status_code == 200
    assert "This gateway may serve content." in browser.main
    assert "No device has asked this gateway for a package yet." in browser.main


async def test_a_package_is_distributed_again_and_removed(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    sha256 = "a1" * 32
    async with site.db.transaction() as tx:
        made = content_store.Distributed(
            NAME, sha256, "client.whl", "0.1.0", 2_000_000, 1, False, utc_now()
        )
        await content_store.insert(tx, made, site.box.seal(bytes(32), "cloud.content-key"))
        copy = tunnel.Copy(sha256, 1, 2_000_100, True)
        state = tunnel.ContentState(1, [copy], 2_000_100, 10**10)
        await content_store.save_state(tx, NAME, state, utc_now())
    await browser.open(f"{PAGE}/content")
    assert "client.whl" in browser.main
    assert "Stored" in browser.main
    await browser.follow("Distribute again")
    await browser.press("Distribute again")
    assert "client.whl is distributed again." in browser.text
    assert "Fetched when the first device asks" in browser.main
    await browser.follow("Remove")
    assert "The gateway drops its copies" in browser.main
    await browser.press("Remove")
    assert "client.whl is removed from the gateway." in browser.text
    assert "Removed" in browser.main
    nowhere = await browser.open(f"{PAGE}/content/{'0' * 64}/remove")
    assert nowhere.answer.status_code == 404


async def test_a_revocation_list_is_uploaded_and_shown(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    root = pki.new_root(pki.name("Contoso Clients"), now=utc_now())
    crl = root.crl([], now=utc_now(), next_update=utc_now() + timedelta(days=1), number=1)
    await browser.open(f"{PAGE}/settings")
    assert "None: clients with certificates are refused" in browser.main
    await browser.press("Upload the list", files={"crl": ("x.crl", b"PNG")})
    assert "not a certificate revocation list" in browser.said("crl")
    await browser.press("Upload the list", files={"crl": ("x.crl", crl)})
    assert "The list of CN=Contoso Clients is on its way" in browser.main
    assert browser.page.xpath("//tr[th='CN=Contoso Clients'][td='Revocation list']")


async def test_the_certificate_is_replaced_only_by_one_of_the_same_name(
    browser: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    await browser.open(f"{PAGE}/certificate")

    async def replace(data: bytes, password: str = PFX_PASSWORD) -> None:
        (form,) = browser.page.xpath("//form[.//input[@name='pfx']]")
        sent = {**dict(form.form_values()), "password": password}
        answer = await browser.client.post(
            form.get("action"), data=sent, files={"pfx": ("new.pfx", data)}
        )
        await browser._take(answer)

    await replace(pfx("other.contoso.com"))
    assert browser.answer.status_code == 422
    assert (
        f"The existing common name is {NAME}, the new one is other.contoso.com: they must be the"
        " same" in browser.said("pfx")
    )
    await replace(pfx(NAME), "wrong")
    assert "does not open this PFX" in browser.said("password")
    for name in ("MyCMG.contoso.com", NAME):  # Letter case is no other name.
        await replace(pfx(name))
        assert f"The certificate of {NAME} was replaced" in browser.main
        await browser.open(f"{PAGE}/certificate")


async def test_a_connection_point_is_added_installed_changed_and_removed(
    browser: Browser, site: Site
) -> None:
    await browser.open("/console/site-systems")
    await browser.follow("Add site system roles")
    await browser.press("Next")
    assert "There is no gateway that a connection point could serve." in browser.said("role")
    await create(site)
    await create(site, pfx=pfx("second.contoso.com"))
    await browser.press("Next")
    await browser.press("Next", name="CP01", gateway=NAME)
    assert browser.facts()["Region"] == "Local"
    assert f"tandem connection-point add CP01 --gateway {NAME}" in browser.main
    await browser.press("Add the role")
    assert "Now install it on its server" in browser.main
    assert "tandem connector run --config connector.toml" in browser.main
    page = browser.url
    await browser.press("Download settings, certificate and key")
    assert browser.answer.headers["cache-control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(browser.answer.content)) as packed:
        assert sorted(packed.namelist()) == [
            "certificate.pem",
            "connector.toml",
            "key.pem",
            "root.pem",
        ]
        assert all(item.external_attr >> 16 & 0o077 == 0 for item in packed.infolist())
        packed.extractall(site.folder / "unpacked")
    from tandem.gateway import ConnectorSettings
    from tandem.infra import config

    settings = config.load(site.folder / "unpacked" / "connector.toml", ConnectorSettings)
    assert (settings.connection_point, settings.management_point_url) == ("CP01", site.url)
    await browser.open(page)
    assert "PRIVATE KEY" not in browser.answer.text
    await browser.press("Save", gateway="second.contoso.com")
    assert "CP01 serves second.contoso.com now." in browser.main
    await browser.follow("Remove the role")
    assert "It is the only one of second.contoso.com" in browser.main
    await browser.press("Remove the role")
    assert "CP01 is no connection point any more." in browser.main
    await browser.open("/console/wizards/add-role")
    await site.run("connection-point", "add", "CP01", "--gateway", NAME)
    await browser.press("Next")
    await browser.press("Next", name="cp01", gateway=NAME)
    assert "CP01 is a connection point already." in browser.said("name")


async def test_the_management_point_takes_gateway_traffic_or_says_why_it_cannot(
    browser: Browser, site: Site
) -> None:
    await browser.open("/console/site-systems")
    assert "The wire between WSUS and Windows is not in this version." in browser.main
    await browser.follow("Management point")
    await browser.press("Save", allow_gateway_traffic="1")
    assert "The management point takes gateway traffic." in browser.main
    await browser.press("Save", allow_gateway_traffic=None)
    assert "Every device on the internet loses the site at once" in browser.main
    await browser.press("Close the way")
    assert not (await site.run("management-point", "show"))["allow_gateway_traffic"]
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM properties_credential WHERE role = 'site-systems'")
    await browser.open("/console/site-systems/management-point")
    assert browser.page.xpath("//input[@name='allow_gateway_traffic']/@disabled")
    assert "Switch enhanced HTTP on" in browser.main


async def test_chain_analyzer_ports_and_about_in_both_languages(
    browser: Browser, french: Browser, site: Site, gateway: dict[str, Any]
) -> None:
    await browser.open("/console/health")
    assert "No connection point serves this gateway." in browser.main
    assert "Add the role of the connection point to a server" in browser.main
    await browser.follow("Connection analyzer")
    await browser.press("Start", identity="token")
    assert browser.said("access_token") == "Paste the token."
    await browser.press("Start", identity="certificate", files={"pfx": ("x.pfx", b"PNG")})
    assert "not a PFX" in browser.said("pfx")
    await browser.press("Start", identity="site")
    assert "A device's way is cut" in browser.main
    assert browser.page.xpath("//tr[@class='bad'][contains(., 'takes no connection')]")
    await browser.open("/console/ports")
    assert str(site.cloud.gateways.settings.gateway.tunnel_port) in browser.main
    assert "Nothing: the management point takes no gateway traffic." in browser.main
    await browser.open("/console/about")
    assert browser.facts()["Site"] == "CM1 Contoso"
    assert browser.facts()["Logs"] == str(site.folder / "logs")
    assert browser.page.xpath("//tr[th='htmx.org'][td='0BSD']")
    for path, heading in (
        ("/console/health", "Santé de la chaîne"),
        ("/console/ports", "Ports et points de terminaison"),
        ("/console/about", "À propos et santé"),
        ("/console/site-systems", "Rôles de système de site"),
        (PAGE, NAME),
    ):
        await french.open(path)
        assert french.page.xpath("//h1")[0].text_content() == heading
    await french.open("/console/health")
    assert "Aucun point de connexion ne dessert cette passerelle." in french.main


async def test_a_gateway_that_is_being_made_or_failed_is_a_notification(
    browser: Browser, site: Site
) -> None:
    folder = site.folder / "gateways" / NAME
    folder.mkdir(parents=True)
    (folder / "hold").touch()
    await create(site)
    await browser.open("/console/notifications")
    assert f"{NAME} is being provisioned." in browser.main
    await browser.open(f"/console/search?q={NAME[:5]}")
    assert NAME in browser.main
    await site.run("gateway", "stop")
    (folder / "hold").unlink()
    (folder / "refuse").touch()
    await site.refusal("gateway", "start")
    await browser.open("/console/notifications")
    assert f"{NAME} could not be provisioned." in browser.main
    assert "The port is in use by somebody else." in browser.main


async def test_who_may_only_read_is_told_so(site: Site, gateway: dict[str, Any]) -> None:
    await site.run(
        *("administrator", "add", "reader", "--role", "read-only-analyst"),
        *("--password-file", site.secret("r", "Reader-Secret-1")),
    )
    async with browsing(site.app, "reader", "Reader-Secret-1") as browser:
        await browser.open(f"{PAGE}/settings")
        await browser.press("Save", description="x")
        assert browser.answer.status_code == 403
        assert "this needs Full Administrator" in browser.alert
    assert (await shown(site))["description"] == ""


def test_the_words_of_the_pages_are_those_of_the_site() -> None:
    """One list of causes in two places: English pages and the API say the same."""
    assert words.CAUSES == CAUSES
    assert words.CHECKS == CHECKS
