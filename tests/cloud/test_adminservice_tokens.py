"""Tokens of the tenant at the AdminService: on the site's network, and through a gateway."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from scripts_world import REDIRECT, SCOPE, add_ada, register
from site_world import NAME, PASSWORD, Site, connect, create
from tandem.tenant import oidc
from tenant_world import World

DIRECT = "/AdminService_TokenAuth/wmi"
DOOR = f"/AdminService_Gateway/{NAME}/ServerAuth/wmi"


@dataclass
class Scripts:
    """A site with an account of the tenant as its operations administrator, and an app for her
    scripts that is registered in the tenant."""

    site: Site
    world: World
    app_id: str
    device_app: str
    web: httpx.AsyncClient

    async def token(self, app_id: str = "", upn: str = "ada@contoso.com") -> str:
        app_id = app_id or self.app_id
        redirects = {self.app_id: REDIRECT, self.device_app: "https://ConfigMgrClient"}
        redirect = redirects.get(app_id, "http://localhost")
        answer = await self.world.user_tokens(SCOPE, upn=upn, client_id=app_id, redirect=redirect)
        return str(answer["access_token"])

    async def ask(self, token: str, path: str, method: str = "GET", body: Any = None) -> int:
        answer = await self.web.request(
            method, path, json=body, headers={"Authorization": f"Bearer {token}"}
        )
        return answer.status_code

    async def opens_a_session(self, token: str) -> int:
        answer = await self.web.post("/api/v1/sign-in/tenant", json={"access_token": token})
        return answer.status_code


@pytest.fixture
async def scripts(contoso: tuple[Site, World]) -> Any:
    site, world = contoso
    _, device_app = await connect(site)
    await add_ada(site, world)
    await create(site)
    await site.run("management-point", "set", "--allow-gateway-traffic")
    transport = httpx.ASGITransport(app=site.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as web:
        yield Scripts(site, world, await register(world), device_app, web)


async def test_an_administrators_token_counts_for_her_role_on_the_sites_network(
    scripts: Scripts,
) -> None:
    new = {"Name": "By token"}
    for app_id in (oidc.CLI, scripts.app_id):
        token = await scripts.token(app_id)
        assert await scripts.ask(token, f"{DIRECT}/SMS_Site") == 200
        assert await scripts.ask(token, "/AdminService/wmi/SMS_Site") == 200
    assert await scripts.ask(token, f"{DIRECT}/SMS_Collection", "POST", new) == 201
    (service,) = (
        await scripts.web.get(
            "/AdminService/wmi/SMS_AzureService", headers={"Authorization": f"Bearer {token}"}
        )
    ).json()["value"]
    assert service["ClientAppID"] == scripts.device_app
    assert service["ServerAppIDURI"] == "https://ConfigMgrService"
    assert not any("secret" in key.lower() and key != "ServerAppSecretExpiry" for key in service)


async def test_who_is_no_administrator_is_told_so(scripts: Scripts) -> None:
    await scripts.world.user("eve")
    token = await scripts.token(upn="eve@contoso.com")
    answer = await scripts.web.get(
        f"{DIRECT}/SMS_Site", headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 403
    assert "not an administrator" in answer.json()["error"]["message"]


async def test_tokens_that_are_for_something_else(scripts: Scripts) -> None:
    graph = (await scripts.world.bearer("ada@contoso.com"))["Authorization"].partition(" ")[2]
    good = await scripts.token()
    head, body, _ = good.split(".")
    # A device sends the last one through gateways for its user.
    device = await scripts.token(scripts.device_app)
    for token in (graph, f"{head}.{body}.AAAA", f"{head}.{body}.", device):
        assert await scripts.ask(token, f"{DIRECT}/SMS_Site") == 401
    await scripts.site.run("management-point", "publish-adminservice", scripts.app_id)
    assert await scripts.ask(device, f"{DOOR}/SMS_Site") == 401
    assert await scripts.ask(graph, f"{DOOR}/SMS_Site") == 401


async def test_nothing_is_published_until_a_full_administrator_names_an_app(
    scripts: Scripts,
) -> None:
    token = await scripts.token()
    assert await scripts.ask(token, f"{DOOR}/SMS_Site") == 404
    shown = await scripts.site.run("management-point", "show")
    assert shown["adminservice"] == []
    assert not any("AdminService" in item["prefix"] for item in shown["endpoints"])
    for app_id in (scripts.device_app, oidc.CLI, "x", "'; drop"):
        refused = await scripts.site.refusal("management-point", "publish-adminservice", app_id)
        assert refused.code == "azure-service.bad-app", app_id
    answer = await scripts.web.put(
        f"/api/v1/management-point/adminservice/{scripts.app_id}",
        json={},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 401


async def test_what_a_gateway_has_seen_reads_and_opens_no_session(scripts: Scripts) -> None:
    token, other = await scripts.token(), await scripts.token(oidc.CLI)
    assert await scripts.opens_a_session(token) == 200
    shown = await scripts.site.run("management-point", "publish-adminservice", scripts.app_id)
    published = [item for item in shown["endpoints"] if "AdminService" in item["prefix"]]
    assert {item["prefix"].split("/")[1] for item in published} == {
        "CCM_Proxy_ServerAuth",
        "CCM_Proxy_MutualAuth",
    }
    assert {(*item["methods"], *item["auth"]) for item in published} == {("GET", "token")}
    new = {"Name": "By token"}
    for base in (DOOR, DIRECT, DOOR.replace("ServerAuth", "mutualauth")):
        assert await scripts.ask(token, f"{base}/SMS_Site") == 200, base
        assert await scripts.ask(token, f"{base}/SMS_Collection", "POST", new) == 403, base
    assert await scripts.opens_a_session(token) == 401
    # Of an app that nobody published, and credentials of the site's own: not through the gateway.
    assert await scripts.ask(other, f"{DOOR}/SMS_Site") == 403
    session = await scripts.web.post(
        "/api/v1/sign-in", json={"name": "siteadmin", "password": PASSWORD}
    )
    assert await scripts.ask(session.json()["token"], f"{DOOR}/SMS_Site") == 401
    basic = await scripts.web.get(f"{DOOR}/SMS_Site", auth=("siteadmin", PASSWORD))
    assert basic.status_code == 401
    assert basic.headers.get_list("www-authenticate") == ["Bearer"]
    elsewhere = DOOR.replace(NAME, "other.contoso.com")
    assert await scripts.ask(token, f"{elsewhere}/SMS_Site") == 404


async def test_writing_through_the_gateway_is_a_switch_of_its_own(scripts: Scripts) -> None:
    token = await scripts.token()
    words = ("management-point", "publish-adminservice", scripts.app_id)
    shown = await scripts.site.run(*words, "--allow-writes")
    assert shown["adminservice"] == [
        {"app_id": scripts.app_id, "writes": True, "published_by": "siteadmin"}
    ]
    assert "POST" in shown["endpoints"][-1]["methods"]
    assert await scripts.ask(token, f"{DOOR}/SMS_Collection", "POST", {"Name": "By token"}) == 201
    await scripts.site.run(*words)
    assert await scripts.ask(token, f"{DOOR}/SMS_Collection", "POST", {"Name": "Again"}) == 403


async def test_what_was_published_once_never_counts_for_more(scripts: Scripts) -> None:
    token = await scripts.token()
    await scripts.site.run("management-point", "publish-adminservice", scripts.app_id)
    shown = await scripts.site.run("management-point", "unpublish-adminservice", scripts.app_id)
    assert shown["adminservice"] == []
    assert await scripts.ask(token, f"{DOOR}/SMS_Site") == 404
    assert await scripts.ask(token, f"{DIRECT}/SMS_Site") == 403
    assert await scripts.opens_a_session(token) == 401
    refused = await scripts.site.refusal(
        "management-point", "unpublish-adminservice", scripts.app_id
    )
    assert refused.code == "adminservice.app-not-published"


async def test_closing_the_gateway_closes_this_too(scripts: Scripts) -> None:
    token = await scripts.token()
    await scripts.site.run("management-point", "publish-adminservice", scripts.app_id)
    await scripts.site.run("management-point", "set", "--no-allow-gateway-traffic")
    assert await scripts.ask(token, f"{DOOR}/SMS_Site") == 404
