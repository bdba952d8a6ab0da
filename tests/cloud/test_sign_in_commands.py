"""How the command line reads the tenant's sign-in pages."""

import asyncio
import time
import uuid
from pathlib import Path

import pytest

from site_world import Site, admin, connect, tenant_session
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


async def test_an_account_of_the_tenant_signs_in_to_the_site_once_it_was_added(
    contoso: tuple[Site, World],
) -> None:
    site, world = contoso
    await world.user("ada")
    words = (
        *("sign-in", "site", "--with-tenant", "--user", "ada@contoso.com"),
        *("--password-file", site.secret("ada", PASSWORD)),
    )
    await tenant_session(site)
    assert "not connected to your tenant" in (await site.refusal(*words)).message
    await connect(site)
    refused = await site.refusal(*words)
    assert refused.message == "ada@contoso.com is not an administrator of this site."
    add = ("administrator", "add", "Ada", "--role", "read-only-analyst")
    account = ("--upn", "ada@contoso.com", "--tenant-id", world.tenant.id)
    refused = await site.refusal(*add, *account)
    assert refused.code == "tenant.unknown-account"
    assert "tandem discovery run" in refused.cure
    await site.run("discovery", "run")
    await site.run(*add, *account)
    elsewhere = ("--upn", "eve@fabrikam.com", "--tenant-id", str(uuid.uuid4()))
    refused = await site.refusal("administrator", "add", "Eve", *elsewhere)
    assert "not connected to the tenant" in refused.message
    who = (await site.run(*words))["administrator"]
    assert (who["name"], who["role"]) == ("Ada", "Read-only Analyst")
    assert (await site.run("gateway", "list")) == []
    refused = await site.refusal("azure-service", "create", "Another")
    assert "Read-only Analyst" in refused.message


async def test_a_token_that_is_not_for_the_site_signs_nobody_in(
    contoso: tuple[Site, World],
) -> None:
    site, _ = contoso
    await connect(site)
    graph = context.load_session("tenant").token
    anonymous = context.Api(site.url, "", context.profile().ca_file, "site")
    for token in (graph, "", "x.y.z"):
        with pytest.raises(context.Refused) as refused:
            await asyncio.to_thread(
                anonymous.post, "/api/v1/sign-in/tenant", {"access_token": token}
            )
        assert refused.value.remote == "tenant.bad-token"


async def test_a_users_token_that_a_device_sends_through_the_gateway_signs_nobody_in(
    contoso: tuple[Site, World],
) -> None:
    """It has the right audience and the right person, and a stolen gateway has seen it."""
    site, world = contoso
    ada = await world.user("ada")
    _, client = await connect(site)
    await site.run("discovery", "run")
    account = ("--upn", "ada@contoso.com", "--tenant-id", world.tenant.id)
    await site.run("administrator", "add", "Ada", *account)
    scope, redirect = "https://ConfigMgrService/user_impersonation", "https://ConfigMgrClient"
    answer = await world.user_tokens(
        scope, upn="ada@contoso.com", client_id=client, redirect=redirect
    )
    token = answer["access_token"]
    async with site.db.transaction() as tx:
        assert (await site.cloud.tenants.verify_token(tx, token)).object_id == ada.id
    anonymous = context.Api(site.url, "", context.profile().ca_file, "site")
    with pytest.raises(context.Refused) as refused:
        await asyncio.to_thread(anonymous.post, "/api/v1/sign-in/tenant", {"access_token": token})
    assert refused.value.remote == "tenant.bad-token"
    assert "a device's client" in refused.value.message
