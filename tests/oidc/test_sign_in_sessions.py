"""Browsers that stay signed in: single sign-on, what a request may ask of it, and its ends."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from asking import GRAPH, REDIRECT, asking, claims_of, number, register

from tandem.tenant import directory, oidc
from tenant_world import ADMIN, CHEAP, OUT_OF_BAND, PASSWORD, World, first_form

ALEX = "alex@contoso.com"


def back(page: Any) -> dict[str, str]:
    assert page.status_code == 302, page.text
    parts = urlsplit(page.headers["location"])
    return {name: values[0] for name, values in parse_qs(parts.query or parts.fragment).items()}


async def signed_in(world: World, upn: str = ADMIN, **query: str) -> dict[str, str]:
    page = await world.sign_in_page(**asking(prompt="login", login_hint=upn, **query))
    assert 'name="passwd"' in page.text
    return back(await world.submit(page, login=upn, passwd=PASSWORD))


async def silent(world: World, **query: str) -> dict[str, str]:
    return back(await world.sign_in_page(**asking(prompt="none", **query)))


async def test_one_sign_in_serves_every_application(world: World) -> None:
    other = await register(world, public_redirect_uris=("http://localhost",))
    assert (await silent(world))["error"] == "login_required"
    await signed_in(world)
    world.wait(minutes=5)
    again = back(await world.sign_in_page(**asking(client_id=other.app_id)))
    assert again["code"]
    assert (await silent(world, client_id=other.app_id))["code"]


async def test_the_time_of_the_sign_in_is_that_of_the_password(world: World) -> None:
    began = int(world.at.timestamp())
    await world.code("openid")
    world.wait(minutes=5)
    tokens = await world.user_tokens("openid")
    claims = await claims_of(world, tokens["id_token"])
    assert (claims["auth_time"], claims["iat"]) == (began, began + 300)
    assert claims["sid"]


async def test_a_request_may_ask_for_a_fresh_password(world: World) -> None:
    await signed_in(world)
    for query in ({"prompt": "login"}, {"max_age": "0"}):
        world.wait(seconds=5)
        page = await world.sign_in_page(**asking(**query))
        assert 'name="passwd"' in page.text, query
    world.wait(minutes=20)
    page = await world.sign_in_page(**asking(max_age="1200", login_hint=ADMIN))
    assert 'name="passwd"' in page.text, "signed in longer ago than max_age"
    assert (await silent(world, max_age="1200"))["error"] == "login_required"
    assert (await silent(world, max_age="7200"))["code"]


async def test_a_request_may_ask_for_consent_again(world: World) -> None:
    app = await register(world, public_redirect_uris=("http://localhost",))
    query = asking(client_id=app.app_id, scope=f"{GRAPH}/User.Read")
    await signed_in(world)
    assert (await silent(world, **query))["error"] == "consent_required"
    page = await world.sign_in_page(**query)
    assert "Permissions requested" in page.text
    await world.submit(page, decision="accept")
    assert (await silent(world, **query))["code"]
    page = await world.sign_in_page(**{**query, "prompt": "consent"})
    assert "Permissions requested" in page.text
    assert back(await world.submit(page, decision="accept"))["code"]


async def test_several_accounts_are_picked_from(world: World) -> None:
    await world.user("alex")
    await signed_in(world)
    world.wait(seconds=1)
    await signed_in(world, ALEX)
    page = await world.sign_in_page(**asking())
    assert "Pick an account" in page.text
    assert page.text.index(ALEX) < page.text.index(ADMIN), "the one used last comes first"
    assert (await silent(world))["error"] == "interaction_required"
    hinted = await silent(world, login_hint=ADMIN.upper(), scope=f"openid {GRAPH}/.default")
    assert hinted["code"]
    other = await world.submit(page, account="other")
    assert 'name="passwd"' in other.text
    forged = await world.submit(page, account="00000000-0000-0000-0000-000000000000")
    assert 'name="passwd"' in forged.text
    assert (await silent(world, login_hint="nobody@contoso.com"))["error"] == "login_required"


async def test_select_account_shows_the_accounts_even_if_there_is_one(world: World) -> None:
    page = await world.sign_in_page(**asking(prompt="select_account"))
    assert 'name="passwd"' in page.text
    await signed_in(world)
    page = await world.sign_in_page(**asking(prompt="select_account"))
    assert "Pick an account" in page.text
    account = page.text.partition('name="account"')[2].partition('value="')[2].partition('"')[0]
    assert back(await world.submit(page, account=account))["code"]


@pytest.mark.parametrize("prompt", ["none login", "create", "login nonsense"])
async def test_a_prompt_that_contradicts_itself_is_refused(world: World, prompt: str) -> None:
    assert back(await world.sign_in_page(**asking(prompt=prompt)))["error"] == "invalid_request"


async def test_sessions_end_when_the_account_says_so(world: World) -> None:
    """A new password, a revocation, a disabled account; at the next request, and for refreshing."""
    alex = await world.user("alex")
    ends = [
        {"sessions_valid_from": None},
        {"account_enabled": False},
    ]
    for change in ends:
        await signed_in(world, ALEX)
        assert (await silent(world))["code"]
        world.wait(seconds=10)
        async with world.database.transaction() as tx:
            values = {k: world.at if v is None else v for k, v in change.items()}
            await directory.update_user(tx, alex.id, values, world.at)
        assert (await silent(world))["error"] == "login_required", change
        async with world.database.transaction() as tx:
            await directory.update_user(tx, alex.id, {"account_enabled": True}, world.at)
    await signed_in(world, ALEX)
    world.wait(seconds=10)
    async with world.database.transaction() as tx:
        await directory.set_password(tx, alex.id, "Another-Horse-2", world.at, CHEAP)
    assert (await silent(world))["error"] == "login_required"


async def test_sessions_end_by_themselves(world: World) -> None:
    await signed_in(world)
    for _ in range(3):
        world.wait(hours=7)
        assert (await silent(world))["code"], "used within eight hours"
    world.wait(hours=4)
    assert (await silent(world))["error"] == "login_required", "a day after the sign-in"
    await signed_in(world)
    world.wait(hours=9)
    assert (await silent(world))["error"] == "login_required", "not used for eight hours"


async def test_signing_out_ends_it_and_leads_only_to_registered_addresses(world: World) -> None:
    app = await register(
        world, web_redirect_uris=(REDIRECT,), properties={"logoutUrl": "https://app.example/bye"}
    )
    other = await register(world, "Other", web_redirect_uris=("https://other.example/back",))
    out = f"{world.authority}/oauth2/v2.0/logout"
    for target in (REDIRECT, "https://app.example/bye"):
        await signed_in(world)
        query = {"post_logout_redirect_uri": target, "state": "x&y", "client_id": app.app_id}
        page = await world.client.get(out, params=query)
        assert page.headers["location"] == f"{target}?state=x%26y"
        assert (await silent(world))["error"] == "login_required"
    wrong = {"post_logout_redirect_uri": REDIRECT, "client_id": other.app_id}
    page = await world.client.get(out, params=wrong)
    assert (page.status_code, "You are signed out" in page.text) == (200, True)
    forged = {"post_logout_redirect_uri": REDIRECT, "id_token_hint": "a.b.c"}
    assert (await world.client.get(out, params=forged)).status_code == 200
    tokens = await world.user_tokens("openid")
    hinted = {"post_logout_redirect_uri": OUT_OF_BAND, "id_token_hint": tokens["id_token"]}
    assert (await world.client.get(out, params=hinted)).status_code == 302


async def test_a_stolen_database_opens_no_session(world: World) -> None:
    await signed_in(world)
    values = [cookie.value or "" for cookie in world.client.cookies.jar]
    async with world.database.transaction() as tx:
        cursor = await tx.execute("SELECT digest FROM oidc_session")
        (row,) = await cursor.fetchall()
    assert all(value.encode() != bytes(row["digest"]) for value in values)


async def test_the_pages_speak_french_to_who_asks(world: World) -> None:
    world.client.headers["Accept-Language"] = "fr-CA, en;q=0.8"
    page = await world.sign_in_page(**asking())
    assert '<html lang="fr"' in page.text
    assert "Mot de passe" in page.text
    assert page.headers["content-language"] == "fr"


async def test_two_browsers_are_two_sessions(world: World) -> None:
    await signed_in(world)
    kept = world.client.cookies
    world.client.cookies = type(kept)()
    assert (await silent(world))["error"] == "login_required"
    await signed_in(world)
    await world.client.get(f"{world.authority}/oauth2/v2.0/logout")
    world.client.cookies = kept
    assert (await silent(world))["code"]


async def test_refreshing_after_a_revocation_is_refused(world: World) -> None:
    alex = await world.user("alex")
    tokens = await world.user_tokens("openid offline_access", upn=ALEX)
    world.wait(seconds=10)
    async with world.database.transaction() as tx:
        await directory.update_user(tx, alex.id, {"sessions_valid_from": world.at}, world.at)
    answer = await world.token(
        grant_type="refresh_token", client_id=oidc.CLI, refresh_token=tokens["refresh_token"]
    )
    assert (number(answer), answer.json()["suberror"]) == (50173, "bad_token")


async def test_a_password_that_has_to_be_changed_is_changed_before_anything_else(
    world: World,
) -> None:
    await world.user("alex", must_change_password=True)
    page = await world.sign_in_page(**asking())
    change = await world.submit(page, login=ALEX, passwd=PASSWORD)
    assert "Choose a new password" in change.text
    assert (await silent(world))["error"] == "login_required", "not signed in yet"
    for wrong in (
        {"newpasswd": PASSWORD, "again": PASSWORD},
        {"newpasswd": "New-Horse-77", "again": "New-Horse-78"},
        {"newpasswd": "short", "again": "short"},
    ):
        change = await world.submit(change, **wrong)
        assert (change.status_code, "Choose a new password" in change.text) == (400, True)
    done = await world.submit(change, newpasswd="New-Horse-77", again="New-Horse-77")
    assert back(done)["code"]
    assert (await silent(world))["code"]
    again = await world.submit(change, newpasswd="Other-Horse-7", again="Other-Horse-7")
    assert 'name="passwd"' in again.text, "the page works once"
    page = await world.sign_in_page(**asking(prompt="login"))
    assert "AADSTS50126" in (await world.submit(page, login=ALEX, passwd=PASSWORD)).text


async def test_nobody_changes_a_password_without_the_old_one(world: World) -> None:
    await world.user("alex", must_change_password=True)
    page = await world.sign_in_page(**asking())
    _, hidden = first_form(page.text)
    answer = await world.client.post(
        f"{world.authority}/oauth2/password",
        data={**hidden, "newpasswd": "New-Horse-77", "again": "New-Horse-77"},
    )
    assert (answer.status_code, "AADSTS16000" in answer.text) == (400, True)
