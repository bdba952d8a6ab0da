"""How the command line reads the tenant's sign-in pages."""

import time
from pathlib import Path

from site_world import Site, admin, tenant_session
from tandem.cli import context
from tandem.cli.sign_in import Form
from tenant_world import ADMIN, PASSWORD, World


def test_the_first_form_is_filled_in_and_its_first_button_pressed() -> None:
    form = Form.of(
        '<form action="/consent"><input type="hidden" name="ctx" value="a&amp;b">'
        '<input name="login" type="email"><input name="passwd" type="password">'
        '<input type="checkbox" name="everybody" value="1">'
        '<button name="decision" value="accept">Yes</button>'
        '<button name="decision" value="cancel">No</button></form>'
        '<form action="/other"><input type="hidden" name="trap" value="1"></form>'
    )
    assert form.action == "/consent"
    assert form.fields == {"ctx": "a&b", "decision": "accept"}
    assert form.empty == {"login", "passwd"}


def test_what_a_page_says_is_wrong_is_read() -> None:
    form = Form.of('<p class="error" role="alert">AADSTS50126: No.</p><form action="/l"></form>')
    assert form.error == "AADSTS50126: No."


async def test_a_session_at_the_tenant_is_kept_in_a_private_file(
    contoso: tuple[Site, World],
) -> None:
    site, world = contoso
    await tenant_session(site)
    path = context.session_path("tenant")
    assert path.stat().st_mode & 0o077 == 0
    assert PASSWORD not in path.read_text()
    assert context.load_session("tenant").expires_at > time.time() + 60
    assert context.profile().tenant_id == world.tenant.id


async def test_a_tenant_that_is_away_is_said_to_be_away(site: Site) -> None:
    refused = await site.refusal(
        *("sign-in", "tenant", "https://localhost:1", "--user", ADMIN),
        *("--password-file", site.secret("p", PASSWORD)),
    )
    assert refused.code == "cli.not-reachable"
    assert context.profile().tenant_url == ""
    refused = await site.refusal("sign-in", "tenant", "http://localhost:1", "--user", ADMIN)
    assert "not an https address" in refused.message


async def test_the_tenant_has_to_be_known_before_its_administrator_signs_in(
    site: Site, tmp_path: Path
) -> None:
    await site.run("azure-service", "create", "Contoso cloud")
    refused = await site.refusal("azure-service", "app", "create", "server", *admin(site))
    assert "tandem sign-in tenant" in refused.cure


async def test_a_wrong_password_at_the_site_is_refused(site: Site) -> None:
    refused = await site.refusal(
        *("sign-in", "site", site.url, "--user", "siteadmin"),
        *("--password-file", site.secret("w", "wrong")),
    )
    assert refused.code == "site.sign-in-failed"
    assert await site.run("certificate", "list") == []  # The earlier session lasts.
