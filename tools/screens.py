"""Twenty pictures of the console for the documents: python -m tools.screens [--out DIR] [--only NAME]

It starts a lab of its own with 12 devices, performs the tutorial, begins wizards where one is to be
seen, and takes each picture in its theme and language. Names are those of the lab; ids and times
are of the day on which the pictures were taken.
"""

import argparse
import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from playwright.async_api import BrowserContext, Page, async_playwright
from playwright.async_api import Error as PlaywrightError

from tandem.cli.lab import plan
from tandem.cli.lab.lab import Lab
from tandem.cli.lab.report import Screen
from tandem.cli.lab.steps import STEPS
from tandem.cli.lab.topology import SERVICE_NAME

ROOT = Path(__file__).parents[1]
SIZE = {"width": 1280, "height": 860}
DEVICES, INSTANCES, COLOURS = 12, 2, 128
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LONG_MS, SETTLE_MS = 20_000, 700

Visit = Callable[[Page], Awaitable[None]]


class Shot(NamedTuple):
    """`visit` goes on from the page at `path` to what is to be seen."""

    name: str
    console: str
    path: str
    theme: str = "light"
    language: str = "en"
    visit: Visit | None = None
    after: str = STEPS[-1].id  # The step behind which it is taken.


def row(text: str) -> Visit:
    """The page that the list's row of this name leads to."""

    async def visit(page: Page) -> None:
        await page.locator("main table").get_by_role("link", name=text, exact=True).first.click()
        await page.wait_for_load_state("load")

    return visit


async def first_row(page: Page) -> None:
    await page.locator("main table tbody th a").first.click()
    await page.wait_for_load_state("load")


async def next_step(page: Page) -> None:
    await page.locator("main form.form button.primary").first.click()
    await page.wait_for_load_state("load")


async def gateway_name(page: Page) -> None:
    """The name is checked while it is typed."""
    await page.locator("#prefix").press_sequentially("contosogw")
    await page.locator("#domain").press_sequentially("contoso.com")
    await page.locator("#domain-said .icon").wait_for()


async def new_service(page: Page) -> None:
    await page.locator("#name").fill("Contoso second service")
    await next_step(page)
    await next_step(page)
    await page.locator("#user-code").wait_for()


async def sign_in_step(page: Page) -> None:
    await next_step(page)
    await page.locator("#user-code").wait_for()


async def story(page: Page) -> None:
    """Past the story, to the steps that are left."""
    await page.locator("details[open] h2").first.scroll_into_view_if_needed()


async def rules(page: Page) -> None:
    await page.locator("#name").fill("Laptops of the lab")
    await next_step(page)
    await page.locator("#query").fill("select * from SMS_R_System where Name like 'LAB-00%'")
    await page.locator("#query").press("Space")
    await page.locator("#preview li, #preview td").first.wait_for()


async def switch(page: Page) -> None:
    """What a switch would change, before it is saved."""
    slider = page.locator("fieldset.slider").filter(has_text="Client apps")
    await slider.locator("input[value=mdm]").check(force=True)
    await next_step(page)


async def licence_people(page: Page) -> None:
    await page.locator("main form.form input[type=radio]").first.check()
    await next_step(page)


async def permissions(page: Page) -> None:
    await row("ConfigMgr Server")(page)
    await page.locator("nav.tabs a[href$=permissions]").click()
    await page.wait_for_load_state("load")


SITE, TENANT = "site", "tenant"
SHOTS = (
    Shot("guide", SITE, "/console/guide", visit=story, after="2.6"),
    Shot(
        "gateway-wizard-dark",
        SITE,
        "/console/wizards/create-gateway",
        "dark",
        "en",
        sign_in_step,
        "2.6",
    ),
    Shot("dashboard", SITE, "/console/"),
    Shot("dashboard-dark-fr", SITE, "/console/", "dark", "fr"),
    Shot("devices", SITE, "/console/devices"),
    Shot("device", SITE, "/console/devices", visit=row("LAB-005")),
    Shot("certificate-wizard", SITE, "/console/wizards/gateway-certificate", visit=gateway_name),
    Shot(
        "azure-service-wizard-fr",
        SITE,
        "/console/wizards/azure-service",
        "light",
        "fr",
        new_service,
    ),
    Shot("gateway", SITE, f"/console/gateways/{SERVICE_NAME}"),
    Shot("chain-dark-fr", SITE, "/console/health", "dark", "fr"),
    Shot("collection-wizard", SITE, "/console/wizards/collection", visit=rules),
    Shot("workloads", SITE, "/console/comanagement"),
    Shot("switch", SITE, "/console/comanagement", visit=switch),
    Shot("client-settings-fr", SITE, "/console/client-settings", "light", "fr"),
    Shot("audit-dark", SITE, "/console/audit", "dark"),
    Shot("tenant-devices", TENANT, "/console/devices"),
    Shot("app", TENANT, "/console/apps", visit=first_row),
    Shot(
        "licence-wizard-fr",
        TENANT,
        "/console/wizards/assign-licence",
        "light",
        "fr",
        licence_people,
    ),
    Shot("enrolment-dark-fr", TENANT, "/console/enrolment", "dark", "fr"),
    Shot("consent", TENANT, "/console/app-registrations", visit=permissions),
)


async def perform(lab: Lab, until: str) -> None:
    """The tutorial, up to a step."""
    wanted = plan.up_to(STEPS, until)
    if not await plan.perform(lab, wanted, lab.progress.steps, lab.screen, lab.keep):
        raise SystemExit("The tutorial did not hold, so no picture was taken.")
    await lab.adopt_gateways()


async def sign_in(context: BrowserContext, lab: Lab) -> None:
    here, page = lab.topology, await context.new_page()
    await page.goto(f"{here.site_url}/console/sign-in")
    await page.locator("#user").fill(here.site_admin.upn)
    await page.locator("#password").fill(here.site_admin.password)
    await page.locator("main form.card button.primary").first.click()
    await page.locator("#navigation").wait_for(state="attached")
    await page.goto(f"{here.tenant_url}/console/sign-in/begin")
    await page.locator("input[name=login]").fill(here.admin.upn)
    await page.locator("input[name=passwd]").fill(here.admin.password)
    await page.locator("main button[type=submit]").first.click()
    await page.locator("#navigation").wait_for(state="attached")
    await page.close()


async def take(context: BrowserContext, lab: Lab, shot: Shot, out: Path) -> Path:
    base = lab.topology.site_url if shot.console == SITE else lab.topology.tenant_url
    for cookie, value in (("tandem-theme", shot.theme), ("tandem-language", shot.language)):
        await context.add_cookies([{"name": cookie, "value": value, "url": base}])
    page = await context.new_page()
    page.set_default_timeout(LONG_MS)
    await page.goto(base + shot.path, wait_until="load")
    if shot.visit is not None:
        await shot.visit(page)
    await page.wait_for_function("!document.querySelector('.chart:empty')")
    # What a page fetches by itself once it is there, the story on the dashboard for one.
    await page.wait_for_timeout(SETTLE_MS)
    await page.evaluate("document.activeElement?.blur()")
    path = out / f"{shot.name}.png"
    await page.screenshot(path=path, animations="disabled", caret="hide")
    await page.close()
    return path


async def shoot(out: Path, only: str) -> list[Path]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is missing (Debian, Ubuntu: apt-get install chromium).")
    made: list[Path] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="screens-") as folder:
        lab = Lab(Path(folder) / "lab", DEVICES, "lab", INSTANCES, Screen(quiet=False))
        try:
            await lab.begin()
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
                # The lab's public CA is its own: this browser has no reason to know it.
                context = await browser.new_context(ignore_https_errors=True, viewport=SIZE)
                await sign_in(context, lab)
                for after in sorted({shot.after for shot in SHOTS}):
                    await perform(lab, after)
                    for shot in SHOTS:
                        if shot.after != after or only not in shot.name:
                            continue
                        try:
                            made.append(await take(context, lab, shot, out))
                        except PlaywrightError as error:
                            failed.append(f"{shot.name}: {error.message.splitlines()[0]}")
                await browser.close()
        finally:
            await lab.end()
    if failed:
        raise SystemExit("Not taken: " + "; ".join(failed))
    return made


def squeeze(path: Path) -> None:
    """As few colours as a page needs; a picture that would get worse by it stays as it is."""
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(
            ["pngquant", "--force", "--strip", "--speed=1", f"--output={path}", str(COLOURS), path],
            check=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screens")
    parser.add_argument("--only", default="", help="only pictures whose name holds this")
    chosen = parser.parse_args()
    if shutil.which("pngquant") is None:
        raise SystemExit("pngquant is missing (Debian, Ubuntu: apt-get install pngquant).")
    chosen.out.mkdir(parents=True, exist_ok=True)
    for path in asyncio.run(shoot(chosen.out, chosen.only)):
        squeeze(path)
        print(f"{path.stat().st_size / 1000:6.0f} kB  {path}")


if __name__ == "__main__":
    main()
