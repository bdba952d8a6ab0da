"""The clients' own library signs in here without knowing that it is not the vendor's cloud."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tandem.infra.database import Database
from tandem.tenant import oidc
from tenant_world import ADMIN, PASSWORD, World, first_form, live

msal = pytest.importorskip("msal", reason="the independent client library is not installed")
GRAPH = "https://graph.microsoft.com"


async def test_msal_signs_in_refreshes_and_gets_application_tokens(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These would win over the root that MSAL is told to trust.
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    async with live(tenant_db, tmp_path) as (world, root):
        async with world.database.transaction() as tx:
            app = await oidc.applications.create_application(tx, "Server", world.at)
            _, secret = await oidc.applications.add_secret(tx, app.id, world.at)
            await oidc.admin_consent(tx, app.id, world.at)
        for_app = await asyncio.to_thread(_as_application, world, root, app.app_id, secret)
        assert for_app["token_type"] == "Bearer"
        for_user, silent = await asyncio.to_thread(_as_user, world, root)
        assert for_user["id_token_claims"]["preferred_username"] == ADMIN
        assert silent["access_token"] != for_user["access_token"]
        async with httpx.AsyncClient(
            verify=_context(root), base_url=world.tokens.settings.base
        ) as client:
            headers = {"Authorization": f"Bearer {silent['access_token']}"}
            me = await client.get("/v1.0/me", headers=headers)
        assert me.json()["userPrincipalName"] == ADMIN


def _context(root: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(root))


def _options(world: World, root: Path) -> dict[str, Any]:
    return {
        "authority": f"{world.tokens.settings.base}/{world.tenant.id}",
        "instance_discovery": False,
        "verify": str(root),
    }


def _as_application(world: World, root: Path, client_id: str, secret: str) -> Any:
    client = msal.ConfidentialClientApplication(
        client_id, client_credential=secret, **_options(world, root)
    )
    return client.acquire_token_for_client([f"{GRAPH}/.default"])


def _as_user(world: World, root: Path) -> tuple[Any, Any]:
    client = msal.PublicClientApplication(oidc.CLI, **_options(world, root))
    flow = client.initiate_auth_code_flow(
        [f"{GRAPH}/.default"], redirect_uri="http://localhost", response_mode="form_post"
    )
    with httpx.Client(verify=_context(root)) as browser:
        page = browser.get(flow["auth_uri"])
        action, hidden = first_form(page.text)
        fields = {**hidden, "login": ADMIN, "passwd": PASSWORD}
        back = browser.post(f"{world.tokens.settings.base}{action}", data=fields)
    answer = first_form(back.text)[1]
    first = client.acquire_token_by_auth_code_flow(flow, answer)
    assert "error" not in first, first
    (account,) = client.get_accounts()
    cached = client.acquire_token_silent([f"{GRAPH}/.default"], account)
    assert cached["access_token"] == first["access_token"], "MSAL finds its scopes in the answer"
    again = client.acquire_token_silent([f"{GRAPH}/.default"], account, force_refresh=True)
    return first, again
