"""The steps of the tutorial, each as a person clicks it."""

import asyncio
import tomllib
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import BrowserContext, expect
from walk_world import by_commands

from tandem import pki
from tandem.cli.lab import steps
from tandem.cli.lab.lab import Lab
from tandem.cli.lab.report import Observer, StepReport
from tandem.cli.lab.steps import SERVICE, SUITE
from tandem.cli.lab.topology import (
    DEPLOYMENT_DOMAIN,
    DOMAIN,
    EXCLUDED,
    LICENSED,
    PILOT,
    PREFIX,
    SCOPE,
    SERVICE_NAME,
    SITE_CODE,
    Person,
)
from tandem.infra import config, net
from tandem.infra.secrets import private_folder, write_private
from tandem.tenant.oidc.words import translate
from tandem.workloads import Workload
from walk_browser import Hands, Seen

# Steps that no page can do yet; the lab's commands do them. Empty when all is done.
BY_API: list[str] = []

SITE = "Configuration Manager"
CERTIFICATE_FILE, CERTIFICATE_PASSWORD = "Certificate file (PFX)", "Password of the file"


@dataclass
class Walk:
    """Two tabs: the site's administrator at the site's console, the tenant's at the tenant's."""

    lab: Lab
    site: Hands
    tenant: Hands
    folder: Path
    at: Hands

    @classmethod
    async def begin(
        cls,
        lab: Lab,
        context: BrowserContext,
        language: str,
        seen: Seen,
        folder: Path,
        *,
        keyboard: bool = False,
    ) -> "Walk":
        site = Hands(await context.new_page(), language, seen, keyboard=keyboard)
        tenant = Hands(await context.new_page(), language, seen, keyboard=keyboard)
        walk = cls(lab, site, tenant, folder, site)
        await walk.sign_in_at_site()
        await walk.sign_in_at_tenant()
        return walk

    async def words(self) -> str:
        return f"{self.at.page.url}: {await self.at.page.locator('body').inner_text()}"

    async def at_site(self, place: str) -> Hands:
        self.at = self.site
        await self.site.page.bring_to_front()
        await self.site.place(place)
        await self.site.look()
        return self.site

    async def at_tenant(self, place: str) -> Hands:
        self.at = self.tenant
        await self.tenant.page.bring_to_front()
        await self.tenant.place(place)
        await self.tenant.look()
        return self.tenant

    async def guide(self, numbers: Sequence[str]) -> None:
        """The first-run guide shows that these steps are done."""
        site = await self.at_site("First-run guide")
        for number in numbers:
            step = site.main.locator(f'[id="step-{number}"]')
            await expect(step).to_contain_text(site.t("Done"), timeout=30_000)

    async def sign_in_at_site(self) -> None:
        self.at, here = self.site, self.lab.topology
        async with self.site.refused(401):
            await self.site.go(f"{here.site_url}/console/")
        await self.site.look()
        await self.site.fill("User name", here.site_admin.upn)
        await self.site.fill("Password", here.site_admin.password)
        await self.site.press("Sign in")
        await expect(self.site.page.get_by_role("heading", level=1)).to_have_text(
            self.site.t("Co-management dashboard")
        )

    async def sign_in_at_tenant(self) -> None:
        self.at, here = self.tenant, self.lab.topology
        async with self.tenant.refused(401):
            await self.tenant.go(f"{here.tenant_url}/console/")
        await self.tenant.look()
        await self.tenant.follow("Sign in")
        await self.tenant.sign_in(here.admin.upn, here.admin.password)
        await expect(self.tenant.page.get_by_role("heading", level=1)).to_have_text(
            self.tenant.t("Devices")
        )

    async def give_code(self) -> None:
        """The step of a wizard in which the tenant's administrator signs in, in a second tab."""
        site, here = self.site, self.lab.topology
        await site.look("sign in to the tenant")
        code = (await site.main.locator("#user-code").inner_text()).strip()
        async with site.page.context.expect_page() as opened:
            link = site.main.get_by_role("link", name=site.t("Open the tenant's page"))
            await site.act(link, loads=False)
        page = await opened.value
        other = Hands(page, site.language, site.seen, keyboard=site.keyboard)
        self.at = other
        await page.wait_for_load_state("load")

        def say(text: str) -> str:
            return translate(text, site.language)

        box = page.get_by_label(say("Code"), exact=True)
        await other.look("device code")
        if not await box.input_value():
            await other.type(box, code)
        await other.act(page.get_by_role("button", name=say("Next"), exact=True))
        heading = page.get_by_role("heading", level=1)
        known = page.get_by_role("button", name=here.admin.upn)
        password = page.get_by_label(say("Password"), exact=True)
        agree = page.get_by_role("button", name=say("Continue"), exact=True)
        await expect(known.or_(password).or_(agree).first).to_be_visible()
        await other.look("device code, who")
        if await known.count():
            await other.act(known)
        elif await password.count():
            await other.sign_in(here.admin.upn, here.admin.password)
        await expect(agree).to_be_visible()
        await other.look("device code, sure")
        await other.act(agree)
        await expect(heading).to_have_text(say("You have signed in on your device"))
        await other.look("device code, done")
        await page.close()
        self.at = site
        await site.page.bring_to_front()
        await site.shows(here.admin.upn, seconds=30)
        await site.look("signed in to the tenant")


# ---------------------------------------------------------------------- 0 Prerequisites


async def tenant_and_people(walk: Walk) -> None:
    tenant = await walk.at_tenant("Licences")
    await tenant.follow("Product and seats")
    await tenant.look()
    await tenant.select("Product", SUITE)
    await tenant.fill("Seats", str(len(walk.lab.topology.people) + 5))
    await tenant.press("Save")
    await tenant.shows(SUITE)
    await tenant.look()
    await tenant.press("Ask for a licence", loads=False)
    await tenant.press("Ask for a licence", within=tenant.main.get_by_role("dialog"))
    await tenant.says("An enrolment asks for a licence of the MDM service.")
    # The same form many times: with the mouse in both languages.
    keyboard, tenant.keyboard = tenant.keyboard, False
    for person in walk.lab.topology.people:
        await _user(walk, person)
    for name in (PILOT, SCOPE, EXCLUDED, LICENSED):
        await _group(walk, name)
    tenant.keyboard = keyboard
    tenant = await walk.at_tenant("Users")
    for person in walk.lab.topology.people:
        await tenant.shows(person.upn)


async def _user(walk: Walk, person: Person) -> None:
    tenant = walk.tenant
    await tenant.place("Users")
    await tenant.follow("New user")
    await tenant.fill("User name", person.upn.partition("@")[0])
    await tenant.select("Domain", DOMAIN)
    await tenant.fill("Display name", person.name)
    if person.located:
        await tenant.fill("Usage location", "FR")
    await tenant.fill("Password", person.password)
    await tenant.tick("It has to be changed at the next sign-in", False)
    if person == walk.lab.topology.people[0]:
        await tenant.look()
    await tenant.press("Create")
    await tenant.says("%(name)s was created.", name=person.name)


async def _group(walk: Walk, name: str) -> None:
    tenant = walk.tenant
    await tenant.place("Groups")
    await tenant.follow("New group")
    await tenant.fill("Name", name)
    for person in walk.lab.topology.people:
        if name in person.groups:
            await tenant.pick("Members", person.name)
    await tenant.look()
    await tenant.press("Create")
    await tenant.says("%(name)s was created.", name=name)
    await tenant.look()


async def mdm_authority(walk: Walk) -> None:
    tenant = await walk.at_tenant("Automatic enrolment")
    await tenant.press("Set the MDM authority")
    await tenant.look()
    await tenant.press("Set the MDM authority")
    await tenant.says("The MDM authority is set.")
    await tenant.choose("MDM user scope", "Some")
    await tenant.pick("Groups of the MDM user scope", SCOPE)
    await tenant.look()
    await tenant.press("Save")
    await tenant.says("The settings were saved. They count at the next join.")
    lab = walk.lab
    inside, outside = lab.managed[0], next(p for p in lab.topology.people if not p.in_scope)
    # Those who enrol before the work starts need their licences.
    await _license(walk, users=[person.name for person in lab.managed if person.early])
    await walk.at_tenant("Automatic enrolment")
    await tenant.fill("User", inside.upn)
    await tenant.press("Check")
    await tenant.says("Devices that %(user)s joins get the MDM URLs.", user=inside.upn)
    await tenant.look()
    await tenant.fill("User", outside.upn)
    await tenant.press("Check")
    await tenant.says("Devices that %(user)s joins do not get the MDM URLs.", user=outside.upn)
    await lab.devices_up()
    answers = await asyncio.gather(*(lab.enroll(p) for p in lab.managed if p.early))
    assert [a.error for a in answers if a.error is not None] == []
    barred = next(person for person in lab.topology.people if person.device == "LAB-NOSCOPE")
    assert (await lab.enroll(barred)).error is not None
    steps.note_refusal(lab, barred.device, (await lab.enroll(barred, manual=True)).error)
    await walk.at_tenant("Devices")
    for person in lab.managed:
        if person.early:
            await walk.tenant.shows(person.device)


async def enhanced_http(walk: Walk) -> None:
    site = await walk.at_site("Site properties")
    label = "Use site-generated certificates for HTTP site systems (enhanced HTTP)"
    await site.tick(label, False)
    await site.press("Save")
    await site.look("enhanced HTTP off, sure")
    await site.press("Switch off")
    await site.says("The management point has no certificate and answers nobody.", seconds=30)
    await site.look()
    await site.tick(label)
    await site.press("Save")
    await site.says("The management point answers with its certificate.", seconds=30)
    await by_commands(walk.lab, "0.3")


async def _license(walk: Walk, users: list[str] = [], group: str = "") -> None:  # noqa: B006
    tenant = await walk.at_tenant("Licences")
    await tenant.follow("Assign licences")
    await tenant.choose("Product", "Enterprise Mobility + Security E3")
    await tenant.look()
    await tenant.next()
    if users:
        await tenant.wrong("Users", "Choose at least one user or group.")
    for name in users:
        await tenant.pick("Users", name)
    if group:
        await tenant.pick("Groups", group)
    await tenant.look()
    await tenant.next()
    await tenant.look()
    await tenant.next()
    await tenant.shows("tandem license assign EMS")
    await tenant.look()
    await tenant.press("Assign")
    await tenant.says("The licences were assigned: see below what came of it.")
    await tenant.look()


# ---------------------------------------------------------------------- 1 A public certificate


async def service_name(walk: Walk) -> None:
    await walk.lab.record(f"taken.{DEPLOYMENT_DOMAIN}", "A", "127.0.0.99")
    site = await walk.at_site("Gateway certificates")
    await site.follow("Request a certificate")
    await site.wrong("Prefix", "Fill this in.")
    await site.fill("Public domain of your company", DOMAIN)
    await site.fill("Prefix", "my-cmg!")
    await site.wrong("Prefix")
    await site.fill("Prefix", "taken")
    await site.wrong("Prefix")
    await site.fill("Prefix", PREFIX)
    await site.next()
    await site.look()


async def certificate_request(walk: Walk) -> None:
    site = walk.at = walk.site
    for label, value in (
        ("Organisation", "Contoso"),
        ("Organisational unit", "IT"),
        ("City", "Paris"),
        ("State or province", "Ile-de-France"),
        ("Country, two letters", "F1"),
    ):
        await site.fill(label, value)
    await site.wrong(
        "Country, two letters",
        "A country is its two letters, like US or FR.",
        next="Make key and request",
    )
    await site.fill("Country, two letters", "FR")
    await site.next("Make key and request")
    await site.look()
    link = site.main.get_by_role("link", name=site.t("Download the request"))
    file = await site.download(walk.folder / "mycmg.csr", link)
    request = pki.read_request(file.read_bytes())
    assert SERVICE_NAME in request.subject.rfc4514_string()


async def certificate_import(walk: Walk) -> None:
    site = walk.at = walk.site
    await site.next("I have the CA's answer")
    foreign = pki.certificate_request(
        pki.generate_key("rsa2048"), pki.name(SERVICE_NAME), [SERVICE_NAME]
    )
    strange, right = walk.folder / "foreign.pem", walk.folder / "mycmg.pem"
    strange.write_bytes(await walk.lab.certify(foreign))
    await site.attach("File of the CA (PEM, DER, P7B or bundle)", strange)
    await site.wrong("File of the CA (PEM, DER, P7B or bundle)", next="Import", status=409)
    # The public CA is asked as an administrator would: with the file, and not from the site.
    right.write_bytes(await walk.lab.certify((walk.folder / "mycmg.csr").read_bytes()))
    await site.attach("File of the CA (PEM, DER, P7B or bundle)", right)
    await site.look()
    await site.next("Import")


async def certificate_export(walk: Walk) -> None:
    site = walk.at = walk.site
    password = walk.lab.kept.setdefault("pfx_password", "Export-a-b-c-1")
    await site.fill("Password of the PFX", password)
    await site.fill("The same password again", "another")
    await site.wrong("Password of the PFX", "The two passwords differ.")
    await site.fill("Password of the PFX", password)
    await site.fill("The same password again", password)
    await site.look()
    await site.next()
    await site.look()
    folder = walk.lab.folder / "certificates"
    folder.mkdir(exist_ok=True)
    button = site.main.get_by_role("button", name=site.t("Download the PFX"))
    pfx = await site.download(folder / "mycmg.pfx", button)
    assert len(pki.pfx_open(pfx.read_bytes(), password).chain) >= 2
    await site.tick("Remove the working copy, key included, from the site server at the end")
    await site.next()
    await site.look()
    await site.press("Done")
    await site.says(
        "The working copy of %(name)s was removed from the site server.", name=SERVICE_NAME
    )
    await site.look()


# ---------------------------------------------------------------------- 2 Azure Services


async def azure_service(walk: Walk) -> None:
    site = await walk.at_site("Azure services")
    await site.follow("Connect to a tenant")
    await site.wrong("Name", "Fill this in.")
    await site.fill("Name", SERVICE)
    await site.next()
    await site.look()
    await site.next()
    await walk.give_code()
    await site.next()


async def server_app(walk: Walk) -> None:
    site = walk.at = walk.site
    await site.look()
    await site.fill("Application name", "ConfigMgr Server")
    await site.next()


async def client_app(walk: Walk) -> None:
    site = walk.at = walk.site
    await site.look()
    await site.fill("Application name", "ConfigMgr Client")
    await site.next()


async def enable_discovery(walk: Walk) -> None:
    site = walk.at = walk.site
    await site.look()
    await site.tick("Enable user discovery")
    await site.next()
    await site.look()
    await site.press("Finish")
    await site.says("%(name)s is connected. Now grant its apps their permissions.", name=SERVICE)
    await site.look()


async def consent(walk: Walk) -> None:
    site = walk.site
    await site.says(
        "Permissions are missing: a global administrator of the tenant has to grant them."
    )
    tenant = await walk.at_tenant("App registrations")
    for kind, name in (("server_app", "ConfigMgr Server"), ("client_app", "ConfigMgr Client")):
        await walk.at_tenant("App registrations")
        await tenant.follow(name)
        await tenant.look()
        await tenant.follow("API permissions")
        await tenant.look()
        await tenant.press("Grant admin consent for %(tenant)s", tenant="Contoso")
        await tenant.look()
        await tenant.press_primary()
        await tenant.look()
        found = walk.lab.graph().every("/v1.0/applications")
        walk.lab.kept[kind] = next(a["appId"] for a in found if a["displayName"] == name)
    await walk.at_site("Azure services")
    await site.follow(SERVICE)
    await site.follow("Consent")
    await site.says("Both apps have every permission that they need.", seconds=30)
    await site.look()


async def discovery(walk: Walk) -> None:
    site = walk.at = walk.site
    await site.press("Run full discovery now")
    await site.says("Full discovery has begun.")
    for _ in range(60):
        if site.t("Succeeded") in await site.text():
            break
        await asyncio.sleep(0.5)
        await site.follow("Refresh")
    await site.says("Succeeded")
    await site.look()
    await walk.at_site("Users")
    for person in walk.lab.topology.people:
        await site.shows(person.upn)
    walk.lab.kept["discovered"] = len(walk.lab.topology.people)


# ---------------------------------------------------------------------- 3 The gateway


async def gateway(walk: Walk) -> None:
    lab, site = walk.lab, await walk.at_site("Cloud management gateway")
    password = lab.kept["pfx_password"]
    await site.follow("Create a gateway")
    await site.look()
    await site.next()
    await walk.give_code()
    await site.next("Test the connection, and go on")
    await site.choose("Where it is", "In a file (PFX) with its password")
    await site.look()
    await site.next()
    await site.wrong(CERTIFICATE_FILE)
    await site.attach(CERTIFICATE_FILE, lab.folder / "certificates" / "mycmg.pfx")
    await site.fill(CERTIFICATE_PASSWORD, "not the password")
    await site.wrong(CERTIFICATE_PASSWORD)
    await site.fill(CERTIFICATE_PASSWORD, password)
    await site.next()
    # Service and deployment name fill in from the certificate.
    await site.shows(f"{PREFIX}.{DEPLOYMENT_DOMAIN}")
    assert await site.box("Service name").input_value() == SERVICE_NAME
    await site.select("Region", "West Europe")
    await site.fill("Name of the new resource group", "contoso-rg")
    await site.fill("Number of instances", "17")
    await site.wrong("Number of instances")
    await site.fill("Number of instances", str(lab.progress.instances))
    await site.next()
    await site.look()
    await site.next()
    await site.shows("tandem gateway create")
    await site.look()
    await site.press("Create the gateway")
    await site.says(
        "%(name)s is being provisioned. Add its DNS record meanwhile.", name=SERVICE_NAME
    )
    await site.look()
    await site.says("Ready", seconds=60)
    await site.look()
    await lab.adopt_gateways()


async def dns(walk: Walk) -> None:
    lab, site = walk.lab, walk.site
    walk.at = site
    deployment = f"{PREFIX}.{DEPLOYMENT_DOMAIN}"
    record = await site.main.locator("#dns-record").inner_text()
    assert deployment in record, record
    # The owner of the zone adds it, as the page says; the page sees it by itself.
    hosts = [f"127.0.0.{11 + number}" for number in range(lab.progress.instances)]
    await lab.record(deployment, "A", *hosts)
    await lab.record(SERVICE_NAME, "CNAME", deployment)
    await site.says("The record is there: devices find the gateway.", seconds=30)


# ---------------------------------------------------------------------- 4 Let clients use it


async def connection_point(walk: Walk) -> None:
    lab, site = walk.lab, await walk.at_site("Site system roles")
    await site.follow("Add site system roles")
    await site.look()
    await site.next()
    await site.fill("Name of the server", "CP01")
    await site.select("Cloud management gateway", SERVICE_NAME)
    await site.look()
    await site.next()
    await site.look()
    await site.press("Add the role")
    await site.says(
        "%(name)s has the role. Now install it on its server, as is said here.", name="CP01"
    )
    await site.look()
    button = site.main.get_by_role("button", name=site.t("Download settings, certificate and key"))
    packed = await site.download(walk.folder / "connection-point.zip", button)
    lab.kept["connectors"] = [str(_unpacked(lab, packed))]
    await lab.start_connectors()
    for _ in range(60):
        if site.t("Has never reported") not in await site.text():
            break
        await asyncio.sleep(0.5)
        await site.follow("Refresh")
    await site.says("Connected")
    await site.look()
    await walk.at_site("Chain health")


def _unpacked(lab: Lab, packed: Path) -> Path:
    """What its server's administrator does: unpack it, and say what is particular to this network."""
    folder = private_folder(lab.folder / "connector-1")
    with zipfile.ZipFile(packed) as opened:
        opened.extractall(folder)
    settings = tomllib.loads((folder / "connector.toml").read_text())
    for name in ("certificate", "key", "site_root", "state"):
        settings[name] = str(folder / settings[name])
    private_folder(folder / "state")
    settings |= {
        "gateway_ca_file": str(lab.public_root),
        "logs": str(lab.logs),
        "health": lab.connector_health(0),
        "report_seconds": lab.timers.connection_report_seconds,
    }
    write_private(folder / "connector.toml", config.toml(settings).encode())
    return folder / "connector.toml"


async def gateway_traffic(walk: Walk) -> None:
    lab, site = walk.lab, await walk.at_site("Site system roles")
    await site.follow("Management point")
    await site.tick("Allow gateway traffic to this management point")
    await site.press("Save")
    await site.says("The management point takes gateway traffic.")
    await site.look()
    await walk.at_site("Ports and endpoints")
    await walk.at_site("Cloud management gateway")
    shown = await lab.commands.run("management-point", "show")
    path = f"/CCM_Proxy_ServerAuth/{shown['role_id']}/CCM_STS"
    base = f"https://{SERVICE_NAME}:{lab.topology.ports.gateway}"
    async with net.client(
        resolver=net.Resolver(lab.topology.resolver), ca_file=lab.public_root, base_url=base
    ) as outside:

        async def published() -> tuple[bool, str]:
            answer = await outside.post(path)
            return answer.status_code == 401, f"{answer.status_code} {answer.text[:200]}"

        held, seen = await steps.until(published, 40)
        assert held, seen
        assert (await outside.get("/api/v1/clients")).status_code == 403


async def client_settings(walk: Walk) -> None:
    site = await walk.at_site("Client settings")
    for label in (
        "Automatically register new Windows 10 domain joined devices with Azure AD",
        "Allow access to cloud distribution point",
        "Enable clients to use a cloud management gateway",
        "Enable user policy requests from internet clients",
    ):
        await site.select(label, "yes")
    await site.press("Save")
    await expect(site.main.get_by_role("status").first).to_be_visible()
    await site.look()


# ---------------------------------------------------------------------- 5 Enable co-management


async def enable(walk: Walk) -> None:
    lab, site = walk.lab, await walk.at_site("Co-management settings")
    await site.follow("Configure co-management")
    await site.look()
    await site.next()
    await walk.give_code()
    await site.next()
    line = (await site.main.locator("#command-line").inner_text()).strip()
    point = (await lab.commands.run("management-point", "show"))["role_id"]
    assert SERVICE_NAME in line
    assert point in line
    assert f"SMSSITECODE={SITE_CODE}" in line
    if not site.keyboard:
        # What the page's own button puts on the clipboard is what the app is given later.
        await site.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await site.press("Copy", loads=False)
        await expect(site.page.locator("#toast")).to_have_text(site.t("Copied."))
        assert await site.page.evaluate("navigator.clipboard.readText()") == line
    lab.kept["command_line"] = line
    await site.choose("Automatic enrolment into the MDM service", "Pilot")
    await site.wrong(
        "Collection whose clients are enrolled", "Choose the collection that the pilot is for."
    )
    await site.pick(
        "Collection whose clients are enrolled",
        site.t("A new collection, described below"),
        search="",
    )
    await site.next()


async def workloads(walk: Walk) -> None:
    site = walk.at = walk.site
    await site.look()
    # Nothing need be switched on the first day.
    await site.next()
    names = [person.device for person in walk.lab.managed][
        : steps.pilot_size(walk.lab.progress.devices)
    ]
    listed = ", ".join(f"'{name}'" for name in names)
    await site.fill("Name of the new collection", steps.PILOT_DEVICES)
    await site.wrong("Devices", "Choose devices, or write a query.")
    await site.fill("Or a query", f"select * from SMS_R_System where Name in ({listed})")
    await site.look()
    await site.next()


async def policies(walk: Walk) -> None:
    site = walk.at = walk.site
    await site.shows("tandem comanagement enable")
    await site.look()
    await site.press("Enable co-management")
    await site.says("Co-management is enabled. Here is how far devices have followed.")
    await site.look()
    await site.follow("Policies")
    await site.shows(steps.PILOT_DEVICES)
    await site.look()


# ---------------------------------------------------------------------- 6 MDM installs the client


async def app(walk: Walk) -> None:
    package = await walk.lab.commands.run(
        "client", "package", "--output", walk.folder / "ccmsetup.msi"
    )
    tenant = await walk.at_tenant("Apps")
    await tenant.follow("Add an app")
    wrong = walk.folder / "wrong.msi"
    wrong.write_text("This is not an MSI.")
    await tenant.look()
    await tenant.attach("Package file", wrong)
    await tenant.press("Send the package", loads=False)
    await expect(tenant.main.get_by_role("alert")).to_be_visible()
    await tenant.look("a package refused")
    await tenant.attach("Package file", Path(package["saved"]))
    await tenant.press("Send the package", loads=False)
    await tenant.shows(package["product_code"], seconds=60)
    await tenant.look()
    await tenant.next()
    await tenant.look()
    assert await tenant.box("Name").input_value() == package["product_name"]
    await tenant.fill("Description", "The site's client")
    await tenant.fill("Publisher", "Contoso")
    await tenant.fill("Command-line arguments", "x" * 1025)
    await tenant.wrong("Command-line arguments", "")
    await tenant.fill("Command-line arguments", walk.lab.kept["command_line"])
    await tenant.next()
    await tenant.look()


async def assignment(walk: Walk) -> None:
    tenant = walk.at = walk.tenant
    await tenant.pick("Required for groups", PILOT)
    await tenant.pick("Required, but not for groups", EXCLUDED)
    await tenant.look()
    await tenant.next()
    await tenant.shows(PILOT)
    await tenant.look()
    await tenant.press("Create the app")
    await tenant.says("Assignments")
    await tenant.look()
    found = walk.lab.graph().every("/v1.0/deviceAppManagement/mobileApps")
    walk.lab.kept["app"] = found[0]["id"]


async def licences(walk: Walk) -> None:
    await _license(walk, group=LICENSED)
    # One member has no usage location: why it gets none is said by name.
    missing = next(person for person in walk.lab.topology.people if not person.located)
    await walk.tenant.shows(missing.name)


async def devices(walk: Walk) -> None:
    """They enrol, install the client, register and get their policy: their own doing."""
    # Their people do not wait for the next check-in, hours later: Settings, Sync.
    await asyncio.gather(*(walk.lab.sync(person) for person in walk.lab.managed if person.early))
    await by_commands(walk.lab, "6.4")
    for hands in (await walk.at_site("Devices"), await walk.at_tenant("Devices")):
        walk.at = hands
        for person in walk.lab.managed:
            await hands.shows(person.device)
        await hands.look()
        await hands.follow(walk.lab.managed[-1].device)
        await expect(hands.page.get_by_role("heading", level=1)).to_contain_text(
            walk.lab.managed[-1].device
        )
        await hands.look()


# ---------------------------------------------------------------------- 7 Afterwards


async def dashboard(walk: Walk) -> None:
    await by_commands(walk.lab, "7.1")
    site = await walk.at_site("Co-management dashboard")
    await expect(site.page.locator("#co-managed")).to_have_text(str(walk.lab.progress.devices))
    await walk.at_site("First-run guide")
    await walk.at_site("Chain health")


async def switch(walk: Walk) -> None:
    """Ring by ring: once into a failure that halts it, then through, and back in two steps."""
    lab = walk.lab
    everyone = [person.device for person in lab.managed]
    pilot = everyone[: steps.pilot_size(lab.progress.devices)]
    await _site_value(walk)
    await _profile(walk, "Screen lock (MDM)", steps.MDM_VALUE)
    see = Observer(StepReport("7.2", ""), lambda text: None)
    await steps._all_have(lab, see, "the site's value holds everywhere", [], everyone)

    site = await _planned(walk)
    # Nobody notices that a second profile wants something else.
    await _profile(walk, steps.CONFLICTING, "99")
    await _started(walk, site, len(everyone))
    await site.says("Halted", seconds=120)
    await site.says("When a gate fails it halts, and you decide.")
    await site.shows(steps.SETTING)
    await site.look("a roll-out that has halted")
    await site.press("Switch back")
    await site.says("Switched back. Every device that had moved follows at its next policy poll.")
    await site.look()
    await steps._all_have(lab, see, "it is switched back", [], everyone)
    await _no_profile(walk, steps.CONFLICTING)

    site = await _planned(walk)
    await _started(walk, site, len(everyone))
    await site.says("Finished", seconds=180)
    await site.look("a roll-out that has finished")
    await steps._all_have(lab, see, "all have changed", everyone, everyone)
    await steps._agreed(lab, see, Workload.DEVICE_CONFIGURATION, len(everyone))
    await site.follow("Where the workload stood, step by step")
    for place, with_mdm in ((0, pilot), (-1, [])):
        await site.look("where a workload stood")
        back = site.main.get_by_role("button", name=site.t("Back to here"), exact=True)
        await site.act(back.nth(place))
        await site.says(
            "Switched back. Every device that had moved follows at its next policy poll."
        )
        await steps._all_have(lab, see, "back", with_mdm, everyone)
        await steps._agreed(lab, see, Workload.DEVICE_CONFIGURATION, len(with_mdm))


async def _planned(walk: Walk) -> Hands:
    """The pilot first, then everybody; compared, and not started."""
    site = await walk.at_site("Co-management settings")
    await site.follow("Move one ring by ring instead")
    await site.select("Workload", Workload.DEVICE_CONFIGURATION.value)
    box = site.box("First ring: the pilot")
    value = await box.locator("option", has_text=steps.PILOT_DEVICES).get_attribute("value")
    await site.set(box, str(value))
    await site.tick("At the end all devices (All Systems)")
    await site.fill("Minutes that a ring has", "30")
    await site.fill("Percent of its devices that have to be done by then", "100")
    await site.fill("Percent of its devices that may fail", "0")
    await site.fill("Minutes that a ring is watched at least", "0")
    await site.look("the plan of a roll-out")
    await site.press("Plan and compare")
    await site.says("Planned. Nothing has moved: first see what the devices would lose.")
    await site.says("Would change", seconds=60)
    await site.shows(steps.SETTING)
    await site.says("Whom it reaches")
    await site.look("the gap analysis of a roll-out")
    return site


async def _started(walk: Walk, site: Hands, devices: int) -> None:
    walk.at = site
    await site.page.bring_to_front()
    await site.press("Start")
    await site.look("whether a roll-out is meant")
    await site.check(site.main.locator("[name=accept_gaps]"))
    await site.fill("Type how many devices this moves", str(devices))
    await site.press("Start")
    await site.says("Started. The devices of the first ring are asked to follow.")
    await site.look("a roll-out under way")


async def _site_value(walk: Walk) -> None:
    """The same setting by both authorities, so that it shows who is in force."""
    site = await walk.at_site("Configurations of the site")
    await site.fill("Name", "Screen lock (site)")
    await site.fill("Setting", steps.SETTING)
    await site.fill("Value", steps.SITE_VALUE)
    await site.select("Workload", Workload.DEVICE_CONFIGURATION.value)
    await site.select("Collection", "SMS00001")
    await site.press("Deploy")
    await site.shows("Screen lock (site)")
    await site.look()


async def _profile(walk: Walk, name: str, value: str) -> None:
    tenant = await walk.at_tenant("Policies")
    await tenant.follow("Create a configuration profile")
    await tenant.fill("Name", name)
    await tenant.look()
    await tenant.next()
    await tenant.fill("Settings", f"{steps.SETTING} = {value}")
    await tenant.look()
    await tenant.next()
    await tenant.pick("Included groups", SCOPE)
    await tenant.look()
    await tenant.next()
    await tenant.look()
    await tenant.press("Create the profile")
    await tenant.says("%(name)s was created.", name=name)
    await tenant.look()


async def _no_profile(walk: Walk, name: str) -> None:
    tenant = await walk.at_tenant("Policies")
    await tenant.follow(name)
    await tenant.follow("Delete", tenant.page.locator("body"))
    await tenant.look("whether a profile is to go")
    await tenant.press_primary()


CLICKED: dict[str, Callable[[Walk], Awaitable[None]]] = {
    "0.1": tenant_and_people,
    "0.2": mdm_authority,
    "0.3": enhanced_http,
    "1.1": service_name,
    "1.2": certificate_request,
    "1.3": certificate_import,
    "1.4": certificate_export,
    "2.1": azure_service,
    "2.2": server_app,
    "2.3": client_app,
    "2.4": enable_discovery,
    "2.5": consent,
    "2.6": discovery,
    "3.1": gateway,
    "3.2": dns,
    "4.1": connection_point,
    "4.2": gateway_traffic,
    "4.3": client_settings,
    "5.1": enable,
    "5.2": workloads,
    "5.3": policies,
    "6.1": app,
    "6.2": assignment,
    "6.3": licences,
    "6.4": devices,
    "7.1": dashboard,
    "7.2": switch,
}
