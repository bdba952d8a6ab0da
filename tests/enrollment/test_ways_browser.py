"""The federated page in a real browser: what it does by itself, and what Windows would get."""

from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from mdm_world import live_mdm, subcode
from tandem.infra.database import Database
from tenant_world import PASSWORD
from walk_browser import ARGUMENTS, CHROMIUM
from ways_world import APPRU, choose, enrol, issued

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
async def test_a_browser_posts_the_token_to_windows_by_itself(
    tenant_db: Database, tmp_path: Path
) -> None:
    """Nobody presses anything after the terms: the page's file does, and the policy allows it."""
    async with live_mdm(tenant_db, tmp_path) as (mdm, _, _), async_playwright() as playwright:
        await mdm.world.user("alex")
        await choose(mdm, terms_en="Be kind.")
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await chromium.new_page(ignore_https_errors=True)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        base = mdm.world.tokens.settings.base
        await page.goto(f"{base}/EnrollmentServer/Auth?appru={APPRU.partition('?')[0]}")
        await page.get_by_label("User name").fill("alex@contoso.com")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_text("Be kind.").wait_for()
        # Chromium has nobody for ms-app, so what the page's file does is seen at its call.
        await page.context.add_init_script(
            "HTMLFormElement.prototype.submit = function () {"
            " window.sent = [this.action, this.elements.wresult.value]; }"
        )
        await page.get_by_role("button", name="Accept").click()
        await page.wait_for_function("window.sent")
        action, token = await page.evaluate("window.sent")
        assert action.lower() == APPRU.partition("?")[0].lower()
        assert not [text for text in said if "Content Security Policy" in text]
        assert subcode(await enrol(mdm, issued(token))) == ""
        await chromium.close()
