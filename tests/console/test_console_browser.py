"""The pages in a real browser: accessibility, keyboard, scripts, and not one request elsewhere."""

import asyncio
import shutil
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from console_fleet import FLEET, NOW, PASSWORD, Fleet
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from test_console_pages import SITE_PAGES, TENANT_PAGES

from tandem import console, pki
from tandem.console.pages import SESSION_COOKIE
from tandem.infra import http

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

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


class Served:
    """Both consoles over TLS, each on a port of its own, in a thread with a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet()
        self.ports = {}
        certificate, key = _certificate(folder)
        for area in ("site", "tenant"):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.ports[area] = probe.getsockname()[1]
        self._tls = http.TLS(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def url(self, area: str, path: str = "") -> str:
        return f"https://localhost:{self.ports[area]}{path}"

    def _run(self) -> None:
        site = console.site_routes(self.fleet, now=lambda: NOW)
        tenant = console.tenant_routes(self.fleet, now=lambda: NOW)
        listeners = [
            http.Listener(
                http.application(routes, role=area), "127.0.0.1", self.ports[area], self._tls
            )
            for area, routes in (("site", site), ("tenant", tenant))
        ]
        self._loop.run_until_complete(http.serve(listeners, self._stop, drain_seconds=1))
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


def _certificate(folder: Path) -> tuple[Path, Path]:
    now = datetime.now(UTC)
    root = pki.new_root(pki.name("Test root"), now=now, days=2)
    key = pki.generate_key("p256")
    leaf = root.issue(
        key.public_key(),
        pki.name("localhost"),
        dns=["localhost"],
        usages=["server"],
        now=now,
        days=1,
    )
    certificate, private = folder / "tls.pem", folder / "tls.key"
    certificate.write_bytes(pki.pem(leaf, root.certificate))
    private.write_bytes(pki.key_pem(key))
    return certificate, private


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("tls"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian, Ubuntu: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    """Signed in at both; a message in the browser's console or a request elsewhere is a failure."""
    opened = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 860})
    token = served.fleet.admit().token
    opened.add_cookies([_cookie(served, SESSION_COOKIE, token)])
    complaints: list[str] = []
    elsewhere: list[str] = []
    opened.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    opened.on("weberror", lambda error: complaints.append(str(error.error)))
    own = tuple(served.url(area, "/") for area in served.ports)
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith(own) else elsewhere.append(asked.url),
    )
    yield opened
    opened.close()
    assert not complaints
    assert not elsewhere


def _cookie(served: Served, name: str, value: str) -> dict[str, object]:
    return {
        "name": name,
        "value": value,
        "url": served.url("site", "/"),
        "secure": True,
        "httpOnly": True,
        "sameSite": "Strict",
    }


def axe_complaints(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{item['id']}: {node['html'][:200]}: {node['failureSummary'][:300]}"
        for item in found
        for node in item["nodes"]
    ]


EVERY_PAGE = [("site", path) for path in [*SITE_PAGES, "/console/none", "/console/devices/d-0064"]]
EVERY_PAGE += [("tenant", path) for path in TENANT_PAGES]


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(
    context: BrowserContext, served: Served, theme: str, language: str
) -> None:
    context.add_cookies(
        [
            _cookie(served, "tandem-theme", theme),
            _cookie(served, "tandem-language", language),
        ]
    )
    page = context.new_page()
    for area, path in EVERY_PAGE:
        if path == "/console/none":
            continue
        page.goto(served.url(area, path), wait_until="load")
        assert page.locator("html").get_attribute("lang") == language
        assert not axe_complaints(page), f"{area} {path}"
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{area} {path} is {wide} px too wide in {language}"


def test_the_sign_in_page_works_by_keyboard(browser: Browser, served: Served) -> None:
    opened = browser.new_context(ignore_https_errors=True)
    page = opened.new_page()
    page.goto(served.url("site", "/console/sign-in"))
    assert not axe_complaints(page)
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type("admin")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Co-management dashboard")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    opened.close()


def test_charts_are_drawn_and_follow_the_numbers(context: BrowserContext, served: Served) -> None:
    page = context.new_page()
    page.goto(served.url("site", "/console/"))
    expect(page.locator(".chart svg")).to_have_count(5)
    expect(page.locator("#co-managed")).to_have_text("61")
    served.fleet.devices_known = FLEET[10:]
    try:
        expect(page.locator("#co-managed")).to_have_text("51", timeout=9000)
        expect(page.locator(".chart svg")).to_have_count(5)
    finally:
        served.fleet.devices_known = FLEET


def test_a_tile_leads_to_its_devices_and_the_panel_opens_and_closes(
    context: BrowserContext, served: Served
) -> None:
    page = context.new_page()
    page.goto(served.url("site", "/console/"))
    page.get_by_role("link", name="Failure, hybrid joined").click()
    expect(page.get_by_role("status").first).to_have_text("1 device")
    page.get_by_label("Details of LAB-065").press("Enter")
    panel = page.get_by_role("dialog")
    expect(panel.get_by_role("heading", level=2)).to_have_text("LAB-065")
    assert not axe_complaints(page)
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    page.get_by_label("Remove the filter Enrolment status").click()
    expect(page.locator(".count")).to_have_text(f"{len(FLEET)} devices")


def test_sorting_and_paging_change_the_address_and_go_back(
    context: BrowserContext, served: Served
) -> None:
    page = context.new_page()
    page.goto(served.url("site", "/console/devices"))
    page.get_by_role("link", name="Next").click()
    expect(page.locator("tbody tr")).to_have_count(19)
    assert page.url.endswith("/console/devices?page=2")
    page.get_by_role("link", name="Primary user").press("Enter")
    expect(page.locator("th[aria-sort]")).to_have_text("Primary user")
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(19)


def test_theme_and_language_change_with_a_click(context: BrowserContext, served: Served) -> None:
    page = context.new_page()
    page.goto(served.url("site", "/console/devices"))
    page.get_by_role("button", name="Dark theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Français").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Appareils")
    assert page.url.endswith("/console/devices")


def test_signing_out_by_the_account_menu(context: BrowserContext, served: Served) -> None:
    page = context.new_page()
    page.goto(served.url("site", "/console/"))
    page.get_by_role("button", name="Account of admin").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_without_scripts_lists_filters_and_sign_in_work(browser: Browser, served: Served) -> None:
    opened = browser.new_context(ignore_https_errors=True, java_script_enabled=False)
    page = opened.new_page()
    page.goto(served.url("site", "/console/devices"))
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Has reached", exact=True).select_option("policy")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".count")).to_have_text("62 devices")
    page.get_by_role("link", name="Last seen").click()
    expect(page.locator("th[aria-sort]")).to_have_text("Last seen")
    page.get_by_label("Details of LAB-060").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("LAB-060")
    opened.close()
