"""The tenant's administrator signs in for the site's console: a code, and the tenant's own page."""

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import site_world
import tenant_world
from site_world import NAME, PFX_PASSWORD, Site, connect, pfx
from tandem.cli import context
from tandem.infra.database import Database
from tandem.tenant import licensing
from tenant_world import ADMIN, PASSWORD, World

WHERE = "/api/v1/tenant-sign-in"
Contoso = tuple[Site, World]


@pytest.fixture
async def contoso(site_db: Database, tenant_db: Database, tmp_path: Path) -> AsyncIterator[Contoso]:
    """The tenant lets itself be asked every second; no test waits for that second."""
    (tmp_path / "tenant").mkdir()
    often = {"device_code_interval_seconds": 1}
    async with tenant_world.live(tenant_db, tmp_path / "tenant", often) as (world, root):
        base = world.tokens.settings.base
        async with site_world.site(site_db, tmp_path, base, root) as made:
            yield made, world


async def ask(site: Site, method: str, path: str, value: Any = None, token: str = "") -> Any:
    token = token or context.load_session("site").token
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(site.app), base_url=site.url
    ) as client:
        return await client.request(
            method, path, json=value, headers={"Authorization": f"Bearer {token}"}
        )


async def begin(site: Site) -> dict[str, Any]:
    answer = await ask(site, "POST", WHERE)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def look(site: Site, begun: dict[str, Any]) -> dict[str, Any]:
    async with site.db.transaction() as tx:  # The second is over.
        await tx.execute("UPDATE cloud_tenant_sign_in SET asked_at = NULL")
    answer = await ask(site, "GET", f"{WHERE}/{begun['id']}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def enter(
    world: World, begun: dict[str, Any], upn: str = ADMIN, decision: str = "accept"
) -> None:
    """What the administrator does in a browser, on the tenant's page."""
    page = await world.client.get("/devicelogin")
    page = await world.submit(page, otc=begun["user_code"])
    page = await world.submit(page, login=upn, passwd=PASSWORD)
    page = await world.submit(page, decision=decision)
    if 'name="decision"' in page.text:  # …and the permissions of the app.
        await world.submit(page, decision=decision)


async def test_the_code_is_entered_at_the_tenant_and_the_site_learns_who_signed_in(
    contoso: Contoso,
) -> None:
    site, world = contoso
    begun = await begin(site)
    assert begun["state"] == "pending"
    assert len(begun["user_code"]) == 9
    assert begun["verification_uri"] == f"{world.tokens.settings.base}/devicelogin"
    assert begun["verification_uri_complete"].endswith(f"?user_code={begun['user_code']}")
    assert (await look(site, begun))["state"] == "pending"
    await enter(world, begun)
    done = await look(site, begun)
    assert (done["state"], done["upn"], done["tenant_name"]) == ("done", ADMIN, "Contoso")
    assert done["tenant_id"] == world.tenant.id
    assert done["roles"] == ["Global Administrator"]
    assert done["global_administrator"] is True
    assert done["mdm_licence"] is False
    assert (await look(site, begun)) == done  # Asking again asks nobody.


async def test_each_step_that_needs_a_global_administrator_takes_the_sign_in(
    contoso: Contoso,
) -> None:
    site, world = contoso
    begun = await begin(site)
    await enter(world, begun)
    await look(site, begun)
    mine = {"tenant_sign_in": begun["id"]}
    await ask(site, "POST", "/api/v1/azure-services", {"name": "Contoso cloud"})
    for kind in ("server", "client"):
        made = await ask(
            site, "POST", f"/api/v1/azure-services/-/apps/{kind}", {"name": kind, **mine}
        )
        assert made.status_code == 201, made.text
    renewed = await ask(site, "POST", "/api/v1/azure-services/-/secret", mine)
    assert renewed.status_code == 200, renewed.text
    wanted = {"data": b64encode(pfx(NAME)).decode(), "password": PFX_PASSWORD, **mine}
    gateway = await ask(site, "POST", "/api/v1/gateways", wanted)
    assert gateway.status_code == 201, gateway.text
    assert gateway.json()["tenant_id"] == world.tenant.id


async def test_what_the_whole_site_trusts_is_not_changed_with_a_gateway_by_who_is_limited(
    contoso: Contoso,
) -> None:
    site, _ = contoso
    for path, new in (
        ("scopes", {"name": "Paris"}),
        (
            "administrators",
            {
                "name": "Ina",
                "role": "infrastructure-administrator",
                "password": PASSWORD,
                "scopes": ["Paris"],
            },
        ),
    ):
        made = await ask(site, "POST", f"/api/v1/{path}", new)
        assert made.status_code == 201, made.text
    given = {"name": "Ina", "password": PASSWORD}
    token = (await ask(site, "POST", "/api/v1/sign-in", given)).json()["token"]
    root = b64encode(b"-----BEGIN CERTIFICATE-----").decode()
    data = {"data": b64encode(pfx(NAME)).decode(), "password": PFX_PASSWORD}
    for wanted in ({**data, "trusted_roots": [root]}, {"certificate": "1"}):
        refused = await ask(site, "POST", "/api/v1/gateways", wanted, token)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "site.not-allowed")
    # Without them it is the sign-in at the tenant that is missing.
    refused = await ask(site, "POST", "/api/v1/gateways", data, token)
    assert refused.json()["error"]["code"] != "site.not-allowed"


async def test_no_token_and_no_device_code_leaves_the_site_or_lies_open_in_it(
    contoso: Contoso, capfd: pytest.CaptureFixture[str]
) -> None:
    site, world = contoso
    begun = await begin(site)
    said = [str(begun)]
    await enter(world, begun)
    said.append(str(await look(site, begun)))
    async with site.db.transaction() as tx:
        await tx.execute("SET LOCAL bytea_output = 'escape'")
        found = await tx.execute("SELECT t::text AS row FROM cloud_tenant_sign_in t")
        said += [row["row"] async for row in found]
        found = await tx.execute("SELECT t::text AS row FROM audit_entry t")
        said += [row["row"] async for row in found]
        token = await site.cloud.sign_ins.token(tx, begun["id"], "siteadmin")
    captured = capfd.readouterr()
    said += [captured.out, captured.err]
    assert token.count(".") == 2  # The site does hold one.
    for part in ("device_code", *(p for p in token.split(".") if len(p) > 40)):
        assert not any(part in text for text in said), part


async def test_a_sign_in_is_of_the_administrator_who_began_it(contoso: Contoso) -> None:
    site, world = contoso
    begun = await begin(site)
    await enter(world, begun)
    await look(site, begun)
    other = site.secret("other-password", "Correct-Horse-3")
    await site.run("administrator", "add", "mallory", "--password-file", other)
    signed_in = await ask(
        site, "POST", "/api/v1/sign-in", {"name": "mallory", "password": "Correct-Horse-3"}
    )
    token = signed_in.json()["token"]
    for method in ("GET", "DELETE"):
        answer = await ask(site, method, f"{WHERE}/{begun['id']}", token=token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            404,
            "tenant-sign-in.not-found",
        )
    await ask(site, "POST", "/api/v1/azure-services", {"name": "Contoso cloud"})
    value = {"name": "x", "tenant_sign_in": begun["id"]}
    path = "/api/v1/azure-services/-/apps/server"
    refused = await ask(site, "POST", path, value, token)
    assert refused.status_code == 404
    assert (await ask(site, "POST", path, value)).status_code == 201


async def test_what_comes_to_nothing_says_why(contoso: Contoso) -> None:
    site, world = contoso
    declined = await begin(site)
    await enter(world, declined, decision="cancel")
    found = await look(site, declined)
    assert (found["state"], found["reason"]) == (
        "refused",
        "The sign-in was declined on the tenant's page.",
    )
    late = await begin(site)
    world.wait(seconds=901)
    found = await look(site, late)
    assert (found["state"], found["reason"]) == ("expired", "The code was not used in time.")
    await ask(site, "POST", "/api/v1/azure-services", {"name": "Contoso cloud"})
    path = "/api/v1/azure-services/-/apps/server"
    refused = await ask(site, "POST", path, {"name": "x", "tenant_sign_in": late["id"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (410, "tenant-sign-in.over")


async def test_a_step_before_the_sign_in_names_the_code(contoso: Contoso) -> None:
    site, _ = contoso
    begun = await begin(site)
    await ask(site, "POST", "/api/v1/azure-services", {"name": "Contoso cloud"})
    path = "/api/v1/azure-services/-/apps/server"
    refused = await ask(site, "POST", path, {"name": "x", "tenant_sign_in": begun["id"]})
    assert refused.status_code == 409
    assert begun["user_code"] in refused.json()["error"]["cure"]
    neither = await ask(site, "POST", path, {"name": "x"})
    assert neither.status_code == 400
    assert neither.json()["error"]["details"]["field"] == "tenant_sign_in"


async def test_it_is_forgotten_after_half_an_hour_or_when_asked(contoso: Contoso) -> None:
    site, world = contoso
    begun = await begin(site)
    await enter(world, begun)
    await look(site, begun)
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_tenant_sign_in SET expires_at = now() - interval '1 s'")
    assert (await look(site, begun))["state"] == "expired"
    assert (await ask(site, "GET", f"{WHERE}/{begun['id']}")).status_code == 404
    second = await begin(site)
    assert (await ask(site, "DELETE", f"{WHERE}/{second['id']}")).status_code == 204
    assert (await ask(site, "GET", f"{WHERE}/{second['id']}")).status_code == 404
    many = [await begin(site) for _ in range(10)]
    states = [(await ask(site, "GET", f"{WHERE}/{item['id']}")).status_code for item in many]
    assert states == [404, 404, *[200] * 8]


async def test_the_tenant_is_asked_no_more_often_than_it_allows(contoso: Contoso) -> None:
    site, _ = contoso
    begun = await begin(site)
    site.asked.clear()
    for _ in range(3):
        answer = await ask(site, "GET", f"{WHERE}/{begun['id']}")
        assert answer.json()["state"] == "pending"
    assert len([path for _, path in site.asked if path.endswith("/token")]) == 1


async def test_an_account_without_the_role_is_told_at_the_step_and_a_licence_is_seen(
    contoso: Contoso,
) -> None:
    site, world = contoso
    ada = await world.user("ada")
    async with world.database.transaction() as tx:
        await licensing.assign(tx, "EMSPREMIUM", ada.id, world.at)
    begun = await begin(site)
    await enter(world, begun, "ada@contoso.com")
    done = await look(site, begun)
    assert (done["state"], done["upn"], done["roles"]) == ("done", "ada@contoso.com", [])
    assert (done["global_administrator"], done["mdm_licence"]) == (False, True)
    await ask(site, "POST", "/api/v1/azure-services", {"name": "Contoso cloud"})
    path = "/api/v1/azure-services/-/apps/server"
    refused = await ask(site, "POST", path, {"name": "x", "tenant_sign_in": begun["id"]})
    assert refused.json()["error"]["code"] == "azure-service.not-global-administrator"


async def test_a_site_without_a_cloud_says_so(site: Site) -> None:
    refused = await ask(site, "POST", WHERE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "tenant.no-environment")


async def test_a_tenant_that_is_away_in_between_is_waited_for(contoso: Contoso) -> None:
    site, world = contoso
    begun = await begin(site)
    await enter(world, begun)
    tenants = site.cloud.tenants
    before = tenants.http
    async with httpx.AsyncClient(transport=httpx.MockTransport(_away)) as away:
        tenants.http = away
        found = await look(site, begun)
    assert (found["state"], "does not answer" in found["reason"]) == ("pending", True)
    tenants.http = before
    assert (await look(site, begun))["state"] == "done"


def _away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("away")


async def test_connecting_with_commands_still_works(contoso: Contoso) -> None:
    site, _ = contoso
    server, client = await connect(site)
    assert server != client


async def test_a_command_signs_in_by_a_code_too(contoso: Contoso) -> None:
    site, world = contoso
    begun = await site.run("sign-in", "code", "--no-wait")
    await enter(world, begun)
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_tenant_sign_in SET asked_at = NULL")
    done = await site.run("sign-in", "code", begun["id"])
    assert (done["state"], done["upn"]) == ("done", ADMIN)
    await site.run("azure-service", "create", "Contoso cloud")
    words = ("azure-service", "app", "create", "server", "--tenant-sign-in", begun["id"])
    assert (await site.run(*words))["app_id"]
    world.client.cookies.clear()
    declined = await site.run("sign-in", "code", "--no-wait")
    await enter(world, declined, decision="cancel")
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_tenant_sign_in SET asked_at = NULL")
    refused = await site.refusal("sign-in", "code", declined["id"])
    assert "declined" in refused.message
