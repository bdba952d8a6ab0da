"""Pictures of the console for the documents: python -m tools.screenshots [--lab lab.json] [--out DIR]

Needs a lab that is serving; its lab.json says where the console is and who signs in.
"""

import argparse
import json
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
SHOTS = (
    ("dashboard", "/console/", "light", "en"),
    ("dashboard-dark-fr", "/console/", "dark", "fr"),
    ("devices", "/console/devices", "light", "en"),
    ("gateway", "/console/gateways", "light", "en"),
)
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def sign_in(page: Page, base: str, user: str, password: str) -> None:
    page.goto(f"{base}/console/sign-in")
    page.locator("#user").fill(user)
    page.locator("#password").fill(password)
    page.locator("button.primary").click()
    page.locator("#live").wait_for()


def shoot(base: str, user: str, password: str, out: Path) -> list[Path]:
    """One picture for each of SHOTS, and one of the first device that the list names."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is missing (Debian, Ubuntu: apt-get install chromium).")
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        # The lab's public CA is its own: this browser has no reason to know it.
        context = browser.new_context(
            ignore_https_errors=True, viewport={"width": 1280, "height": 860}
        )
        page = context.new_page()
        sign_in(page, base, user, password)
        page.goto(f"{base}/console/devices?management=co-managed")
        device = page.locator("tbody th a").first.get_attribute("href")
        shots = [*SHOTS, *([("device", device, "light", "en")] if device else [])]
        for name, path, theme, language in shots:
            for cookie, value in (("tandem-theme", theme), ("tandem-language", language)):
                context.add_cookies([{"name": cookie, "value": value, "url": base}])
            page.goto(base + path)
            page.locator("#live").wait_for()
            page.wait_for_function("!document.querySelector('.chart:empty')")
            made.append(out / f"{name}.png")
            page.screenshot(path=made[-1], full_page=True)
        browser.close()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lab", type=Path, default=ROOT / ".lab" / "lab.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--user", default="")
    parser.add_argument("--password-file", type=Path)
    chosen = parser.parse_args()
    if not chosen.lab.is_file():
        raise SystemExit(f"No lab is serving: {chosen.lab} is missing. Start one: make lab")
    lab = json.loads(chosen.lab.read_text())
    admin = lab.get("site_admin") or lab["admin"]
    user = chosen.user or admin.get("name") or admin["upn"]
    password = (
        chosen.password_file.read_text().strip() if chosen.password_file else admin["password"]
    )
    base = lab["console_url"].split("/console")[0].rstrip("/")
    for path in shoot(base, user, password, chosen.out):
        print(path)


if __name__ == "__main__":
    main()
