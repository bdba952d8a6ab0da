"""Wizards and pages with scripts off, over the same lab: nothing but charts needs them."""

from collections.abc import Awaitable, Callable

from playwright.async_api import BrowserContext
from walk_steps import Walk

from tandem import pki
from tandem.cli.lab.topology import DOMAIN, LICENSED, SCOPE
from walk_browser import Hands


async def collection(walk: Walk, hands: Hands) -> None:
    await hands.go(f"{walk.lab.topology.site_url}/console/collections")
    await hands.follow("Create a collection")
    await hands.wrong("Name", "Fill this in.")
    await hands.fill("Name", "Plain")
    await hands.pick("Limiting collection", "All Systems")
    await hands.next()
    await hands.fill("Query", "select * from SMS_R_System where Name like 'LAB-%'")
    await hands.press("Show who would be a member")
    await hands.shows("LAB-001")
    await hands.next()
    await hands.press("Create")
    await hands.shows("Plain")


async def certificate(walk: Walk, hands: Hands) -> None:
    """As far as the request; and a PFX of what the CA answers."""
    await hands.go(f"{walk.lab.topology.site_url}/console/certificates")
    await hands.follow("Request a certificate")
    await hands.fill("Prefix", "plaingw")
    await hands.fill("Public domain of your company", DOMAIN)
    await hands.next()
    await hands.fill("Organisation", "Contoso")
    await hands.next("Make key and request")
    link = hands.main.get_by_role("link", name=hands.t("Download the request"))
    request = await hands.download(walk.folder / "plain.csr", link)
    await hands.next("I have the CA's answer")
    answer = walk.folder / "plain.pem"
    answer.write_bytes(await walk.lab.certify(request.read_bytes()))
    await hands.attach("File of the CA (PEM, DER, P7B or bundle)", answer)
    await hands.next("Import")
    await hands.fill("Password of the PFX", "Plain-pass-word-1")
    await hands.fill("The same password again", "Plain-pass-word-1")
    await hands.next()
    button = hands.main.get_by_role("button", name=hands.t("Download the PFX"))
    pfx = await hands.download(walk.folder / "plain.pfx", button)
    assert pki.pfx_open(pfx.read_bytes(), "Plain-pass-word-1").chain
    await hands.next()
    await hands.press("Done")


async def licence(walk: Walk, hands: Hands) -> None:
    await hands.go(f"{walk.lab.topology.tenant_url}/console/licences")
    await hands.follow("Assign licences")
    await hands.choose("Product", "Enterprise Mobility + Security E3")
    await hands.next()
    await hands.wrong("Users", "Choose at least one user or group.")
    await hands.pick("Groups", LICENSED)
    await hands.next()
    await hands.next()
    await hands.press("Assign")
    await hands.says("What came of the assignment")


async def profile(walk: Walk, hands: Hands) -> None:
    await hands.go(f"{walk.lab.topology.tenant_url}/console/policies")
    await hands.follow("Create a configuration profile")
    await hands.fill("Name", "Plain profile")
    await hands.next()
    await hands.fill("Settings", "nonsense")
    await hands.wrong("Settings")
    await hands.fill("Settings", "Camera/AllowCamera = 1")
    await hands.next()
    await hands.pick("Included groups", SCOPE)
    await hands.next()
    await hands.press("Create the profile")
    await hands.shows("Plain profile")


PLAIN: tuple[Callable[[Walk, Hands], Awaitable[None]], ...] = (
    collection,
    certificate,
    licence,
    profile,
)


async def without_scripts(walk: Walk, context: BrowserContext) -> None:
    """`context` runs no script and has the walk's sessions."""
    await context.add_cookies(await walk.site.page.context.cookies())  # type: ignore[arg-type]
    hands = Hands(await context.new_page(), walk.site.language, walk.site.seen, scripts=False)
    walk.at = hands
    for one in PLAIN:
        await one(walk, hands)
