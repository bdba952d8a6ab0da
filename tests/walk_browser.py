"""Someone at a real browser: finds things by what they are called, and complains of what is wrong.

Every page that is looked at is held against axe in both themes. A message in the browser's console,
a request to anywhere but the two consoles, and an answer of 500 or more is a complaint.
"""

import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    BrowserContext,
    Download,
    Locator,
    Page,
    Response,
    expect,
)

from tandem.console.language import Language
from tandem.tenant.oidc.words import translate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
SIZE = {"width": 1280, "height": 860}
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
COLOURS = ["color-contrast", "link-in-text-block"]
MOST_BYTES, MOST_BYTES_WITH_CHARTS, MOST_REQUESTS = 60_000, 280_000, 30
SECONDS = 15
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9A-Za-z_-]{20,}|\d{6,}")


# Where the focus is, seen from the element that is wanted, and whether a person could see it.
_STOP = """wanted => {
  const at = document.activeElement;
  if (!at || at === document.body) return {nowhere: true};
  const radio = wanted.type === "radio" && at.type === "radio" && at.name === wanted.name;
  const style = getComputedStyle(at), box = at.getBoundingClientRect();
  const marked = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  const x = Math.min(Math.max(box.left + box.width / 2, 0), innerWidth - 1);
  const y = Math.min(Math.max(box.top + Math.min(box.height, 40) / 2, 0), innerHeight - 1);
  const top = document.elementFromPoint(x, y);
  const seen = box.width > 0 && (!top || at.contains(top) || top.contains(at) || top.closest("label")?.contains(at));
  const main = at.id === "main";
  return {there: at === wanted || radio, html: at.outerHTML.slice(0, 120),
    wrong: main ? "" : !marked ? "not marked" : !seen ? "hidden" : ""};
}"""


_PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass
class Seen:
    """What was noticed on the way, over all pages of a context."""

    complaints: list[str] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)  # What a page is called, and one address.
    refusals: Counter[int] = field(default_factory=Counter)  # Answers of 400 and more, expected.
    methods: dict[str, str] = field(default_factory=dict)  # How each address was asked for last.


class Hands:
    """One person's browser, in one language: with a mouse, or with the keyboard alone."""

    def __init__(
        self, page: Page, language: str, seen: Seen, *, keyboard: bool = False, scripts: bool = True
    ) -> None:
        self.page = page
        self.language = language
        self.seen = seen
        self.keyboard = keyboard
        self.scripts = scripts
        self.t = Language(language).text

    @property
    def main(self) -> Locator:
        return self.page.locator("main")

    @property
    def where(self) -> str:
        """The path of the page, without what follows it."""
        return urlsplit(self.page.url).path

    # ------------------------------------------------------------------ going

    async def go(self, url: str) -> None:
        await self.page.goto(url, wait_until="load")

    async def place(self, title: str) -> None:
        """A place of the navigation."""
        places = self.page.get_by_role("navigation", name=self.t("Main"))
        link = places.get_by_role("link", name=self.t(title), exact=True).first
        await self._loaded(link.click)

    async def follow(self, text: str, within: Locator | None = None, **values: object) -> None:
        name = self.t(text, **values)
        await self.act((within or self.main).get_by_role("link", name=name, exact=True).first)

    async def press(
        self, text: str, within: Locator | None = None, loads: bool = True, **values: object
    ) -> None:
        name = self.t(text, **values)
        found = (within or self.main).get_by_role("button", name=name, exact=True)
        await self.act(found.first, loads)

    async def press_primary(self) -> None:
        """The button that goes on, whatever it is called: a page that asks whether it is meant."""
        await self.act(self.main.locator("button.primary, button.danger").first)

    async def sign_in(self, upn: str, password: str) -> None:
        """At the tenant's own sign-in page, whose words are not the console's."""
        await self.look("tenant's sign-in")
        await self.type(self.page.get_by_label(translate("User name", self.language)), upn)
        await self.type(self.page.get_by_label(translate("Password", self.language)), password)
        name = translate("Sign in", self.language)
        await self.act(self.page.get_by_role("button", name=name))

    # ------------------------------------------------------------------ forms

    def box(self, label: str) -> Locator:
        """The field of this label; a required one has a star behind it."""
        name = re.compile(rf"^\s*{re.escape(self.t(label))}\s*\*?\s*$")
        return self.main.get_by_label(name).first

    def group(self, label: str) -> Locator:
        """A fieldset by its legend."""
        name = re.compile(rf"^\s*{re.escape(self.t(label))}\s*\*?\s*$")
        return self.main.locator(
            "fieldset", has=self.page.locator("legend").filter(has_text=name)
        ).last

    async def fill(self, label: str, value: str) -> None:
        await self.type(self.box(label), value)

    async def select(self, label: str, value: str) -> None:
        await self.set(self.box(label), value)

    async def set(self, box: Locator, value: str) -> None:
        if not self.keyboard:
            await box.select_option(value)
            return
        await self._reach(box)
        await self.page.keyboard.press("Home")
        for _ in range(await box.locator("option").count()):
            if await box.input_value() == value:
                return
            await self.page.keyboard.press("ArrowDown")
        raise AssertionError(f"there is no {value} to choose")

    async def attach(self, label: str, path: Path) -> None:
        box = self.box(label)
        if not self.keyboard:
            await box.set_input_files(path)
            return
        await self._reach(box)
        async with self.page.expect_file_chooser() as waiting:
            await self.page.keyboard.press("Space")
        await (await waiting.value).set_files(path)

    async def choose(self, label: str, option: str) -> None:
        """One of a group of radios or boxes, by its own words."""
        words = re.compile(rf"^\s*{re.escape(self.t(option))}")
        found = self.group(label).locator("label").filter(has_text=words).first.locator("input")
        await self._take(found)

    async def pick(self, label: str, name: str, search: str | None = None) -> None:
        """Search in a picker, and take what is called so; `search=""`: it is shown without."""
        group = self.group(label)
        found = group.locator(".found label", has_text=name).first.locator("input")
        if await group.locator(".chosen label", has_text=name).count():
            return
        box = group.get_by_role("searchbox")
        if search == "":
            await self._take(found)
            return
        if self.keyboard:
            await self._reach(box)
        await box.press("ControlOrMeta+A")
        if self.scripts:
            # The list is another one when the last letter has been answered.
            asked = f"query={quote_plus(name)}"
            async with self.page.expect_response(lambda answer: asked in answer.url):
                await box.press_sequentially(name)
            await self.page.evaluate(_PAINTED)
        else:
            await box.press_sequentially(name)
            await self.act(group.get_by_role("button"))
        await expect(found).to_be_visible()
        await self._take(found)

    async def tick(self, label: str, wanted: bool = True) -> None:
        box = self.main.get_by_label(self.t(label), exact=True).first
        if await box.is_checked() != wanted:
            await self._take(box, wanted)

    async def check(self, box: Locator) -> None:
        if not await box.is_checked():
            await self._take(box)

    async def next(self, label: str = "Next") -> None:
        """Next of a wizard; it must go on. Says what was refused when it does not."""
        before = self.where
        await self.press(label)
        if self.where == before:
            said = await self.main.get_by_role("alert").all_inner_texts()
            raise AssertionError(f"the step was not accepted: {said or await self.text()}")

    async def wrong(
        self, label: str, words: str = "", next: str = "Next", status: int = 422, **values: object
    ) -> None:
        """Next is refused: at this field, which has the focus, and with these words."""
        before = self.where
        async with self.refused(status):
            await self.press(next)
        assert self.where == before, f"it went on, to {self.where}"
        invalid = self.main.locator("[aria-invalid=true]:focus, fieldset[aria-invalid=true] :focus")
        await expect(invalid).to_be_visible()
        said = self.main.get_by_role("alert").filter(has_text=self.t(words, **values)).first
        await expect(said).to_be_visible()
        await self.look(f"{label} refused")

    async def download(self, path: Path, what: Locator) -> Path:
        async with self.page.expect_download() as waiting:
            await self.act(what, loads=False)
        found: Download = await waiting.value
        await found.save_as(path)
        return path

    # ------------------------------------------------------------------ mouse or keyboard

    async def act(self, target: Locator, loads: bool = True) -> None:
        """Click it, or Enter on it; `loads`: another page must come of that."""

        async def press() -> None:
            if self.keyboard:
                await self._reach(target)
                await self.page.keyboard.press("Enter")
            else:
                await target.click()

        await (self._loaded(press) if loads else press())

    async def _loaded(self, act: Callable[[], Awaitable[None]]) -> None:
        await self.main.first.evaluate("main => main.dataset.left = 1")
        await act()
        await self.page.locator("main:not([data-left])").wait_for(state="attached")
        await self.page.wait_for_load_state("load")

    async def type(self, box: Locator, value: str) -> None:
        if not self.keyboard:
            await box.fill(value)
            return
        await self._reach(box)
        await self.page.keyboard.press("ControlOrMeta+A")
        await self.page.keyboard.insert_text(value)

    async def _take(self, box: Locator, wanted: bool = True) -> None:
        """Check a radio or a box."""
        if not self.keyboard:
            # The words are what people click.
            await box.set_checked(wanted)
            return
        await self._reach(box)
        if await box.get_attribute("type") == "checkbox" or await box.evaluate(
            "e => e === document.activeElement"
        ):
            await self.page.keyboard.press("Space")
        elif not await box.is_checked():
            # One of a group has the focus; arrows go round all of it.
            for _ in range(40):
                await self.page.keyboard.press("ArrowDown")
                if await box.is_checked():
                    break
        await expect(box).to_be_checked(checked=wanted)

    async def _reach(self, target: Locator) -> None:
        """Go to it by Tab; a radio is reached with its group. The focus is visible at each stop."""
        await expect(target).to_be_visible()
        handle = await target.element_handle()
        assert handle is not None
        for _ in range(250):
            stop = await handle.evaluate(_STOP)
            if stop.get("wrong"):
                where = urlsplit(self.page.url).path
                self.seen.complaints.append(
                    f"the focus is {stop['wrong']} on {where}: {stop['html']}"
                )
            if stop.get("there"):
                return
            await self.page.keyboard.press("Tab")
            if stop.get("nowhere") and await self.page.locator("a.skip:focus").count():
                # What is on every page is passed over, as its users do.
                await self.page.keyboard.press("Enter")
                await self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {await target.evaluate('e => e.outerHTML')}")

    # ------------------------------------------------------------------ reading

    async def text(self) -> str:
        return " ".join((await self.main.inner_text()).split())

    async def says(self, text: str, seconds: float = SECONDS, **values: object) -> None:
        """The page comes to say this, by itself."""
        wanted = self.t(text, **values)
        await expect(self.main).to_contain_text(wanted, timeout=seconds * 1000)

    async def shows(self, words: str, seconds: float = SECONDS) -> None:
        """The page comes to show these data."""
        await expect(self.main).to_contain_text(words, timeout=seconds * 1000)

    @asynccontextmanager
    async def refused(self, *statuses: int) -> AsyncIterator[None]:
        """What is done in here is refused, which the browser's console says too."""
        for status in statuses:
            self.seen.refusals[status] += 1
        yield

    async def look(self, name: str = "") -> None:
        """Hold the page against axe, in both themes, and remember it for its weight."""
        if not self.scripts:
            return
        parts = urlsplit(self.page.url)
        shape = _ID.sub("…", parts.path)
        # What answers a form has no address to be fetched from again.
        if self.seen.methods.get(self.page.url) == "GET":
            self.seen.pages.setdefault(f"{parts.netloc}{shape}", self.page.url)
        html = self.page.locator("html")
        was = await html.get_attribute("data-theme")
        assert await html.get_attribute("lang") == self.language, self.page.url
        for theme in ("light", "dark"):
            await self.page.evaluate("t => document.documentElement.dataset.theme = t", theme)
            # Nothing but the colours differs in the dark.
            rules: Any = WCAG if theme == "light" else {"type": "rule", "values": COLOURS}
            found = (await Axe().run(self.page, options={"runOnly": rules})).response["violations"]
            self.seen.complaints += [
                f"axe {item['id']} on {name or shape} ({theme}):"
                f" {node['html'][:160]} {node['failureSummary'][:200]}"
                for item in found
                for node in item["nodes"][:3]
            ]
        await self.page.evaluate("t => document.documentElement.dataset.theme = t", was)
        wide = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            self.seen.complaints.append(f"{name or shape} is {wide} px too wide")


@asynccontextmanager
async def sitting(
    browser: Browser, language: str, own: tuple[str, ...], seen: Seen, **more: Any
) -> AsyncIterator[BrowserContext]:
    """A browser of somebody who reads this language. `own` are the origins that it may ask."""
    # The lab's public CA is its own: this browser has no reason to know it.
    opened = await browser.new_context(
        ignore_https_errors=True,
        viewport=SIZE,
        locale={"en": "en-GB", "fr": "fr-FR"}[language],
        permissions=[],
        accept_downloads=True,
        **more,
    )
    opened.set_default_timeout(SECONDS * 1000)

    def said(message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        refused = re.search(r"status of (\d+)", message.text)
        if refused and seen.refusals[int(refused[1])] > 0:
            seen.refusals[int(refused[1])] -= 1
            return
        where = message.location.get("url", "")
        seen.complaints.append(f"browser's console: {message.text} ({where})")

    def asked(request: Any) -> None:
        if request.is_navigation_request():
            seen.methods[request.url] = request.method
        if not request.url.startswith((*own, "data:", "blob:")):
            seen.complaints.append(f"asked elsewhere: {request.url}")

    def answered(response: Response) -> None:
        if response.status >= 500:
            seen.complaints.append(
                f"{response.status} from {response.request.method} {response.url}"
            )

    opened.on("console", said)
    opened.on("weberror", lambda error: seen.complaints.append(f"script: {error.error}"))
    opened.on("request", asked)
    opened.on("response", answered)
    yield opened
    await opened.close()


async def weight(context: BrowserContext, url: str) -> tuple[int, int, bool]:
    """Bytes on the wire and requests of a page with an empty cache, and whether it has charts."""
    page = await context.new_page()
    client = await context.new_cdp_session(page)
    await client.send("Network.enable")
    await client.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[float] = []
    client.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    await page.goto(url, wait_until="load")
    charts = await page.locator(".chart").count() > 0
    await page.close()
    return round(sum(sizes)), len(sizes), charts
