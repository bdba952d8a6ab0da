"""What the authority says about itself, under every name that clients know it by."""

from typing import Any

import pytest
from asking import asking, claims_of, number

from tandem.tenant import oidc
from tenant_world import ADMIN, BASE, World

REQUIRED = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "device_authorization_endpoint",
    "jwks_uri",
    "end_session_endpoint",
    "userinfo_endpoint",
    "response_types_supported",
    "response_modes_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
    "scopes_supported",
    "token_endpoint_auth_methods_supported",
    "claims_supported",
    "tenant_region_scope",
    "cloud_instance_name",
    "cloud_graph_host_name",
    "msgraph_host",
]


async def document(world: World, path: str, host: str = "") -> Any:
    headers = {"Host": host} if host else {}
    answer = await world.client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_document_has_what_clients_need(world: World) -> None:
    said = await document(world, "/contoso.com/v2.0/.well-known/openid-configuration")
    assert set(REQUIRED) <= set(said)
    here = f"{BASE}/{world.tenant.id}"
    assert said["issuer"] == f"{here}/v2.0"
    assert said["token_endpoint"] == f"{here}/oauth2/v2.0/token"
    assert said["device_authorization_endpoint"] == f"{here}/oauth2/v2.0/devicecode"
    assert said["response_types_supported"] == ["code", "id_token", "code id_token"]
    assert set(said["token_endpoint_auth_methods_supported"]) == {
        "client_secret_post",
        "private_key_jwt",
        "client_secret_basic",
    }
    common = await document(world, "/common/v2.0/.well-known/openid-configuration")
    assert common["issuer"] == f"{BASE}/{{tenantid}}/v2.0"
    assert common["token_endpoint"] == f"{BASE}/common/oauth2/v2.0/token"
    v1 = await document(world, "/contoso.com/.well-known/openid-configuration")
    assert v1["issuer"] == f"{here}/"
    assert v1["token_endpoint"] == f"{here}/oauth2/token"


async def test_paths_are_taken_as_clients_write_them(world: World) -> None:
    for path in (
        f"{BASE}//CONTOSO.com//v2.0/.well-known/openid-configuration/",
        "/Contoso.Com/V2.0/.Well-Known/OpenID-Configuration",
    ):
        assert (await document(world, path))["issuer"] == f"{BASE}/{world.tenant.id}/v2.0"


async def test_endpoints_stay_on_the_name_that_was_asked_and_the_issuer_does_not(
    world: World,
) -> None:
    path = "/contoso.com/v2.0/.well-known/openid-configuration"
    named = await document(world, path, "login.microsoftonline.com")
    assert named["token_endpoint"].startswith("https://login.microsoftonline.com/")
    assert named["issuer"] == f"{BASE}/{world.tenant.id}/v2.0"
    ported = await document(world, path, "tenant.example:8443")
    assert ported["jwks_uri"].startswith("https://tenant.example:8443/")
    for evil in (
        "evil.example",
        "tenant.example@evil.example",
        "tenant.example.evil.example",
        "x:y",
    ):
        said = await document(world, path, evil)
        assert said["token_endpoint"].startswith(f"{BASE}/"), evil


@pytest.mark.parametrize("world", [{"extra_hosts": ("id.contoso.com",)}], indirect=True)
async def test_further_names_are_a_setting(world: World) -> None:
    path = "/contoso.com/v2.0/.well-known/openid-configuration"
    assert "https://id.contoso.com/" in (await document(world, path, "ID.contoso.com"))["jwks_uri"]
    said = await document(world, path, "login.microsoftonline.com")
    assert said["jwks_uri"].startswith(f"{BASE}/")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_instance_discovery_names_the_configured_address(world: World, version: str) -> None:
    """MSAL loses the port of the address it asks about, so an echo would lead nowhere."""
    answer = await world.client.get(
        "/common/discovery/instance",
        params={
            "authorization_endpoint": "https://tenant.example/contoso.com/oauth2/v2.0/authorize",
            "api-version": version,
        },
        headers={"Host": "login.microsoftonline.com"},
    )
    said = answer.json()
    assert said["tenant_discovery_endpoint"].startswith(f"{BASE}/")
    assert said["api-version"] == version
    hosts = {alias for item in said["metadata"] for alias in item["aliases"]}
    assert {"tenant.example", "login.microsoftonline.com"} <= hosts


async def test_user_realm_says_which_domains_are_ours_and_not_who_exists(world: World) -> None:
    known, unknown, foreign = [
        (await world.client.get(f"/common/userrealm/{name}?api-version=1.0")).json()
        for name in (ADMIN, "nobody@contoso.com", "x@elsewhere.example")
    ]
    assert known == unknown
    assert (known["account_type"], known["domain_name"]) == ("Managed", "contoso.com")
    assert foreign["account_type"] == "Unknown"


async def test_the_cloud_is_described_for_terraform(world: World) -> None:
    said = await document(world, "/metadata/endpoints?api-version=2022-09-01")
    assert said["microsoftGraphResourceId"] == f"{BASE}/"
    assert said["authentication"]["loginEndpoint"] == f"{BASE}/"


async def test_userinfo_says_who_signed_in(world: World) -> None:
    await world.user("alex", profile={"givenName": "Alex", "surname": "Doe"})
    tokens = await world.user_tokens("openid profile User.Read", upn="alex@contoso.com")
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    for answer in (
        await world.client.get("/oidc/userinfo", headers=bearer),
        await world.client.post("/oidc/userinfo", headers=bearer),
    ):
        said = answer.json()
        assert (said["name"], said["given_name"]) == ("Alex", "Alex")
        assert said["email"] == "alex@contoso.com"
        assert said["sub"] == (await claims_of(world, tokens["id_token"]))["sub"]
    refused = await world.client.get("/oidc/userinfo")
    assert refused.status_code == 401
    assert "Bearer" in refused.headers["www-authenticate"]


async def test_refusals_carry_what_their_reader_needs(world: World) -> None:
    answer = await world.client.post(
        f"{world.authority}/oauth2/v2.0/token",
        data={"grant_type": "client_credentials", "client_id": "x"},
        headers={"client-request-id": "5e7b3f4a-0000-4000-8000-000000000001"},
    )
    said = answer.json()
    assert said["correlation_id"] == "5e7b3f4a-0000-4000-8000-000000000001"
    assert answer.headers["client-request-id"] == said["correlation_id"]
    assert said["trace_id"] == answer.headers["x-ms-request-id"]
    assert said["error_description"].startswith("AADSTS700016: ")
    for part in ("Trace ID: ", "Correlation ID: ", "Timestamp: "):
        assert part in said["error_description"]
    assert said["timestamp"] == "2026-11-24 09:00:00Z"
    assert said["error_uri"].endswith("700016")
    wrong_tenant = await world.client.post("/fabrikam.com/oauth2/v2.0/token", data={})
    assert (wrong_tenant.json()["error"], number(wrong_tenant)) == ("invalid_tenant", 90002)
    assert (await world.client.delete(f"{world.authority}/oauth2/v2.0/token")).status_code == 400


async def test_the_ids_that_scripts_hard_code_are_there(world: World) -> None:
    known = [
        "00000003-0000-0000-c000-000000000000",
        "00000002-0000-0000-c000-000000000000",
        "0000000a-0000-0000-c000-000000000000",
        "d4ebce55-015a-49b5-a083-c84d1797ae8c",
        "01cb2876-7ebd-4aa4-9cc9-d28bd4d359a9",
        "29d9ed98-a469-4536-ade2-f981bc1d605e",
        "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
        "14d82eec-204b-4c2f-b7e8-296a70dab67e",
        "1950a258-227b-4e31-a9cf-717495945fc2",
        "d1ddf0e4-d672-4dae-b554-9d5bdfd93547",
    ]
    async with world.database.transaction() as tx:
        for app_id in known:
            assert (await oidc.applications.principal(tx, app_id)).app_id == app_id
        graph = await oidc.applications.application(tx, oidc.GRAPH)
    roles = {item["value"]: item["id"] for item in graph.app_roles}
    scopes = {item["value"]: item["id"] for item in graph.scopes}
    assert roles["User.Read.All"] == "df021288-bdef-4463-88db-98f22de89214"
    assert scopes["User.Read"] == "e1fe6dd8-ba31-4d61-89e7-88639da4683d"
    for name in ("DeviceManagementScripts.Read.All", "DeviceManagementScripts.ReadWrite.All"):
        assert name in roles
        assert name in scopes
    for redirect in (
        "https://login.microsoftonline.com/common/oauth2/nativeclient",
        "urn:ietf:wg:oauth:2.0:oob",
        "http://localhost:8400",
        "http://127.0.0.1:8999",
    ):
        page = await world.sign_in_page(**asking(redirect_uri=redirect))
        assert page.status_code == 200, redirect
    assert (await world.client.get("/common/oauth2/nativeclient")).status_code == 200
