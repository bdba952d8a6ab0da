"""Signing in and getting tokens, as clients see it over HTTP."""

import asyncio
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tandem.infra.errors import Kind
from tandem.tenant import directory, oidc
from tandem.tenant.oidc.refusals import AADSTS, NUMBER_OF
from tenant_world import ADMIN, BASE, CHEAP, OUT_OF_BAND, PASSWORD, World, first_form

GRAPH = "https://graph.microsoft.com"


async def claims_of(world: World, token: str) -> dict[str, Any]:
    """What anybody reads from a token with the published keys alone."""
    keys = (await world.client.get(f"{world.authority}/discovery/v2.0/keys")).json()
    return jwt.decode(token, KeySet.import_key_set(keys), algorithms=["RS256"]).claims


async def test_an_administrator_signs_in_and_gets_a_graph_token(world: World) -> None:
    tokens = await world.user_tokens(f"{GRAPH}/.default openid offline_access")
    claims = await claims_of(world, tokens["access_token"])
    assert claims["aud"] == GRAPH
    assert claims["iss"] == f"{BASE}/{world.tenant.id}/"
    assert claims["upn"] == ADMIN
    assert claims["tid"] == world.tenant.id
    assert "User.ReadWrite.All" in claims["scp"].split()
    assert directory.GLOBAL_ADMINISTRATOR in claims["wids"]
    assert (await claims_of(world, tokens["id_token"]))["aud"] == oidc.CLI


async def test_the_metadata_names_every_endpoint_and_the_issuer_of_tokens(world: World) -> None:
    metadata = (await world.client.get("/contoso.com/v2.0/.well-known/openid-configuration")).json()
    assert metadata["issuer"] == f"{BASE}/{world.tenant.id}/v2.0"
    assert metadata["token_endpoint"] == f"{BASE}/{world.tenant.id}/oauth2/v2.0/token"
    assert (await world.client.get(metadata["jwks_uri"])).json()["keys"][0]["kty"] == "RSA"


async def test_an_unknown_tenant_is_refused_by_its_number(world: World) -> None:
    answer = await world.client.get("/fabrikam.com/v2.0/.well-known/openid-configuration")
    assert (answer.status_code, answer.json()["error_codes"]) == (400, [90002])


async def test_a_wrong_password_shows_the_form_again_with_the_number(world: World) -> None:
    page = await world.sign_in_page(**_asking())
    again = await world.submit(page, login=ADMIN, passwd="nonsense")
    assert again.status_code == 400
    assert "AADSTS50126" in again.text
    signed_in = await world.submit(again, login=ADMIN, passwd=PASSWORD)
    assert signed_in.status_code == 302


async def test_wrong_passwords_lock_the_account_for_a_while(world: World) -> None:
    page = await world.sign_in_page(**_asking())
    for _ in range(CHEAP.lock_after):
        await world.submit(page, login=ADMIN, passwd="nonsense")
    locked = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    assert locked.status_code == 429
    assert "AADSTS50053" in locked.text
    world.wait(seconds=CHEAP.lock_seconds + 1)
    assert (await world.submit(page, login=ADMIN, passwd=PASSWORD)).status_code == 302


async def test_the_form_works_only_in_the_browser_that_got_it(world: World) -> None:
    page = await world.sign_in_page(**_asking())
    world.client.cookies.clear()
    stolen = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    assert stolen.status_code == 400
    assert "AADSTS16000" in stolen.text


async def test_the_pages_run_no_script_and_cannot_be_framed(world: World) -> None:
    page = await world.sign_in_page(**_asking())
    assert "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


async def test_an_unregistered_redirect_uri_gets_a_page_and_no_redirect(world: World) -> None:
    page = await world.sign_in_page(**_asking(redirect_uri="https://evil.example/"))
    assert page.status_code == 400
    assert "AADSTS50011" in page.text


async def test_public_clients_must_use_pkce(world: World) -> None:
    query = _asking()
    del query["code_challenge"], query["code_challenge_method"]
    page = await world.sign_in_page(**query)
    assert page.status_code == 302
    assert "error=invalid_request" in page.headers["location"]


async def test_loopback_redirects_may_use_any_port(world: World) -> None:
    page = await world.sign_in_page(**_asking(redirect_uri="http://localhost:8412"))
    assert page.status_code == 200
    assert (
        await world.sign_in_page(**_asking(redirect_uri="http://localhost.evil.example"))
    ).status_code == 400


async def test_form_post_answers_with_a_form_to_the_redirect_uri(world: World) -> None:
    page = await world.sign_in_page(**_asking(response_mode="form_post"))
    last = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    action, fields = first_form(last.text)
    assert action == OUT_OF_BAND
    assert set(fields) == {"code", "state", "iss", "session_state"}


async def test_a_code_works_once_and_its_second_use_revokes_what_it_gave(world: World) -> None:
    back, verifier = await world.code("openid offline_access")
    form = {
        "grant_type": "authorization_code",
        "client_id": oidc.CLI,
        "code": back["code"],
        "redirect_uri": OUT_OF_BAND,
        "code_verifier": verifier,
    }
    first = await world.token(**form)
    second = await world.token(**form)
    assert second.json()["error_codes"] == [54005]
    revoked = await _refresh(world, first.json()["refresh_token"])
    assert revoked.json()["error"] == "invalid_grant"


async def test_two_requests_at_once_cannot_both_use_a_code(world: World) -> None:
    back, verifier = await world.code("openid")
    form = {
        "grant_type": "authorization_code",
        "client_id": oidc.CLI,
        "code": back["code"],
        "redirect_uri": OUT_OF_BAND,
        "code_verifier": verifier,
    }
    answers = await asyncio.gather(*(world.token(**form) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


async def test_upkeep_drops_what_expired_and_rotates_keys_when_due(world: World) -> None:
    tokens = await world.user_tokens("openid offline_access")
    world.wait(days=181)
    async with world.database.transaction() as tx:
        await oidc.tend(tx, world.tokens, world.at)
        await oidc.tend(tx, world.tokens, world.at)
        cursor = await tx.execute("SELECT count(*) AS n FROM oidc_refresh_token")
        row = await cursor.fetchone()
    assert row == {"n": 0}
    assert (await _refresh(world, tokens["refresh_token"])).status_code == 400
    keys = (await world.client.get("/common/discovery/v2.0/keys")).json()["keys"]
    assert len(keys) == 2


async def test_a_code_with_the_wrong_verifier_is_refused_and_spent(world: World) -> None:
    back, verifier = await world.code("openid")
    form = {"grant_type": "authorization_code", "client_id": oidc.CLI, "code": back["code"]}
    wrong = await world.token(**form, redirect_uri=OUT_OF_BAND, code_verifier="x" * 43)
    assert wrong.json()["error_codes"] == [501481]
    late = await world.token(**form, redirect_uri=OUT_OF_BAND, code_verifier=verifier)
    assert late.json()["error_codes"] == [54005]


async def test_refresh_tokens_rotate_and_reuse_revokes_the_whole_sign_in(world: World) -> None:
    first = (await world.user_tokens("openid offline_access"))["refresh_token"]
    second = (await _refresh(world, first)).json()["refresh_token"]
    assert second != first
    assert (await _refresh(world, first)).status_code == 200, "the answer may have been lost"
    world.wait(seconds=31)
    stolen = await _refresh(world, first)
    assert "already used" in stolen.json()["error_description"]
    assert (await _refresh(world, second)).status_code == 400


async def test_a_new_password_ends_every_session(world: World) -> None:
    tokens = await world.user_tokens("openid offline_access")
    world.wait(seconds=5)
    async with world.database.transaction() as tx:
        admin = await directory.user(tx, ADMIN)
        await directory.set_password(tx, admin.id, "Another-Horse-2", world.at, CHEAP)
    answer = await _refresh(world, tokens["refresh_token"])
    assert answer.json()["error_codes"] == [50173]


async def test_a_disabled_user_gets_no_new_tokens(world: World) -> None:
    alex = await world.user("alex")
    tokens = await world.user_tokens("openid offline_access", upn="alex@contoso.com")
    async with world.database.transaction() as tx:
        await directory.update_user(tx, alex.id, {"account_enabled": False}, world.at)
    assert (await _refresh(world, tokens["refresh_token"])).json()["error_codes"] == [50057]


async def test_a_refresh_token_serves_another_resource(world: World) -> None:
    tokens = await world.user_tokens(f"openid {oidc.DEVICE_REGISTRATION}/.default")
    answer = await _refresh(world, tokens["refresh_token"], scope=f"{oidc.MDM_APP}/.default")
    claims = await claims_of(world, answer.json()["access_token"])
    assert (claims["aud"], claims["scp"]) == ("https://contoso.com/mdm", "mdm_delegation")
    async with world.database.transaction() as tx:
        token = answer.json()["access_token"]
        seen = await world.tokens.verify_mdm(tx, token, world.at)
        assert (seen.upn, seen.tenant_id, seen.device_id) == (ADMIN, world.tenant.id, "")
        with pytest.raises(oidc.BadToken, match="Invalid audience"):
            await world.tokens.verify_graph(tx, token, world.at)
        world.wait(hours=2)
        with pytest.raises(oidc.BadToken, match="expired"):
            await world.tokens.verify_mdm(tx, token, world.at)


async def test_a_token_signed_by_somebody_else_is_no_token(world: World) -> None:
    from joserfc.jwk import OctKey, RSAKey

    tokens = await world.user_tokens(f"{GRAPH}/.default")
    kid = (await world.client.get("/common/discovery/keys")).json()["keys"][0]["kid"]
    claims = await claims_of(world, tokens["access_token"])
    own = jwt.encode({"alg": "RS256", "kid": kid}, claims, RSAKey.generate_key(2048))
    symmetric = jwt.encode({"alg": "HS256", "kid": kid}, claims, OctKey.generate_key(256))
    async with world.database.transaction() as tx:
        for forged in (own, symmetric, "nonsense", "a.b.c"):
            with pytest.raises(oidc.BadToken):
                await world.tokens.verify_graph(tx, forged, world.at)


async def test_a_new_key_is_announced_before_it_signs(world: World) -> None:
    async with world.database.transaction() as tx:
        kid = await world.tokens.rotate(tx, world.at)
    keys = (await world.client.get("/common/discovery/v2.0/keys")).json()["keys"]
    assert len(keys) == 2
    before = await world.user_tokens(f"{GRAPH}/.default")
    world.wait(hours=25)
    after = await world.user_tokens(f"{GRAPH}/.default")
    assert _kid(before["access_token"]) != kid
    assert _kid(after["access_token"]) == kid
    await claims_of(world, before["access_token"])


async def test_consent_is_asked_once_and_only_an_administrator_grants_admin_scopes(
    world: World,
) -> None:
    await world.user("alex")
    async with world.database.transaction() as tx:
        app = await oidc.applications.create_application(
            tx, "Reports", world.at, public_redirect_uris=("http://localhost",)
        )
    options: Any = {"client_id": app.app_id}
    back, _ = await world.code(f"{GRAPH}/User.Read.All", upn="alex@contoso.com", **options)
    assert "AADSTS90094" in back["error_description"]
    allowed = await world.user_tokens(
        f"{GRAPH}/User.Read openid", upn="alex@contoso.com", **options
    )
    assert f"{GRAPH}/User.Read" in allowed["scope"].split()
    again = await world.sign_in_page(**_asking(client_id=app.app_id, scope=f"{GRAPH}/User.Read"))
    assert again.status_code == 302, "consent was remembered, and so was the sign-in"


async def test_declining_consent_goes_back_to_the_client(world: World) -> None:
    async with world.database.transaction() as tx:
        app = await oidc.applications.create_application(
            tx, "Reports", world.at, public_redirect_uris=("http://localhost",)
        )
    page = await world.sign_in_page(**_asking(client_id=app.app_id, scope=f"{GRAPH}/User.Read"))
    page = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    back = await world.submit(page, decision="cancel")
    assert "error=access_denied" in back.headers["location"]


async def test_an_application_gets_the_permissions_that_were_consented_to(world: World) -> None:
    async with world.database.transaction() as tx:
        graph = await oidc.applications.application(tx, oidc.GRAPH)
        role = next(r["id"] for r in graph.app_roles if r["value"] == "User.Read.All")
        needed = {
            "resourceAppId": oidc.GRAPH,
            "resourceAccess": [{"id": role, "type": "Role"}],
        }
        app = await oidc.applications.create_application(
            tx, "ConfigMgr server", world.at, required_access=(needed,)
        )
        _, secret = await oidc.applications.add_secret(tx, app.id, world.at)
        await oidc.applications.create_principal(tx, app.app_id, world.at)
    form = {
        "grant_type": "client_credentials",
        "client_id": app.app_id,
        "client_secret": secret,
        "scope": f"{GRAPH}/.default",
    }
    before = await claims_of(world, (await world.token(**form)).json()["access_token"])
    assert before["roles"] == []
    async with world.database.transaction() as tx:
        assert await oidc.admin_consent(tx, app.app_id, world.at) == ["User.Read.All"]
    after = await claims_of(world, (await world.token(**form)).json()["access_token"])
    assert after["roles"] == ["User.Read.All"]
    assert after["idtyp"] == "app"
    wrong = await world.token(**{**form, "client_secret": "wrong"})
    assert (wrong.status_code, wrong.json()["error_codes"]) == (401, [7000215])
    world.wait(days=731)
    expired = await world.token(**form)
    assert expired.json()["error_codes"] == [7000222]


@pytest.mark.parametrize("login", ["a\0b", "x" * 10_000, "nobody", "", "%"])
async def test_odd_user_names_are_just_wrong(world: World, login: str) -> None:
    page = await world.sign_in_page(**_asking())
    assert (await world.submit(page, login=login, passwd="x" * 20_000)).status_code == 400


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ({"grant_type": "password", "client_id": oidc.CLI}, 70003),
        ({"client_id": oidc.CLI}, 900144),
        ({"grant_type": "client_credentials", "client_id": oidc.CLI}, 7000218),
        ({"grant_type": "client_credentials", "client_id": "unknown"}, 700016),
        (
            {"grant_type": "refresh_token", "client_id": oidc.CLI, "refresh_token": "x"},
            70000,
        ),
    ],
)
async def test_refusals_carry_their_number(world: World, form: dict[str, str], number: int) -> None:
    answer = await world.token(**form)
    assert answer.json()["error_codes"] == [number]
    assert f"AADSTS{number}: " in answer.json()["error_description"]


async def test_an_unknown_resource_is_named(world: World) -> None:
    page = await world.sign_in_page(**_asking(scope="https://nothing.example/.default"))
    assert "AADSTS500011" in page.headers["location"]


def test_every_kind_of_refusal_has_a_number() -> None:
    assert set(NUMBER_OF) == set(Kind)
    assert set(NUMBER_OF.values()) <= set(AADSTS)


def _asking(**changes: str) -> dict[str, str]:
    return {
        "client_id": oidc.CLI,
        "response_type": "code",
        "redirect_uri": OUT_OF_BAND,
        "scope": "openid",
        "state": "s1",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
        **changes,
    }


def _kid(token: str) -> str:
    from tandem.tenant.oidc.tokens import jwt_header

    return str(jwt_header(token)["kid"])


async def _refresh(world: World, text: str, **more: str) -> Any:
    return await world.token(
        grant_type="refresh_token", client_id=oidc.CLI, refresh_token=text, **more
    )


async def test_the_pages_speak_and_look_as_the_console_was_told_to(world: World) -> None:
    """Its cookies count here too: it is on the same host. Without them the browser's wishes do."""
    asked = {
        "client_id": oidc.CLI,
        "response_type": "code",
        "redirect_uri": OUT_OF_BAND,
        "scope": "openid",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
    }
    page = await world.sign_in_page(**asked)
    assert 'lang="en" data-theme="auto"' in page.text
    world.client.cookies.set("tandem-language", "fr")
    world.client.cookies.set("tandem-theme", "dark")
    page = await world.sign_in_page(**asked)
    assert 'lang="fr" data-theme="dark"' in page.text
    wrong = await world.submit(page, login=ADMIN, passwd="wrong")
    assert "AADSTS50126 : Le nom d&#39;utilisateur ou le mot de passe est incorrect." in wrong.text
    world.client.cookies.set("tandem-theme", '"><script>')
    assert 'data-theme="auto"' in (await world.sign_in_page(**asked)).text
