"""Signing in to the tenant's pages with the tenant's own accounts, through its token service."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from directory_console import tenant_console

from tandem.infra.database import Database
from tandem.tenant import directory, licensing
from tenant_world import ADMIN, BASE, PASSWORD, World

TENANT_PAGES = ["/console/devices", "/console/apps", "/console/users", "/console/groups"]


@pytest.fixture
async def world(tenant_db: Database) -> AsyncIterator[World]:
    async with tenant_console(tenant_db) as made:
        yield made


async def sign_in(world: World, upn: str = ADMIN) -> httpx.Response:
    begun = await world.client.get("/console/sign-in/begin?return_to=/console/users")
    assert begun.status_code == 303
    page = await world.client.get(begun.headers["location"])
    if page.status_code == 200:
        page = await world.submit(page, login=upn, passwd=PASSWORD)
    assert page.status_code == 302, page.text
    assert page.headers["location"].startswith(f"{BASE}/console/sign-in/done?")
    return await world.client.get(page.headers["location"])


@pytest.mark.parametrize("path", TENANT_PAGES)
async def test_every_page_wants_a_session(world: World, path: str) -> None:
    answer = await world.client.get(path)
    assert answer.status_code == 401
    assert "/console/sign-in/begin" in answer.text


async def test_an_administrator_signs_in_without_being_asked_for_consent(world: World) -> None:
    done = await sign_in(world)
    assert (done.status_code, done.headers["location"]) == (303, "/console/users"), done.text
    for path in ("/console/users", "/console/groups"):
        page = await world.client.get(path)
        assert page.status_code == 200, page.text
        assert ADMIN in page.text


async def test_an_account_without_a_role_comes_to_its_own_page_alone(world: World) -> None:
    await world.user("ada")
    done = await sign_in(world, "ada@contoso.com")
    assert (done.status_code, done.headers["location"]) == (303, "/console/my-apps")
    refused = await world.client.get("/console/users")
    assert refused.status_code == 403
    assert "no role that may use this console" in refused.text


async def test_the_answer_of_another_sign_in_is_refused(world: World) -> None:
    begun = await world.client.get("/console/sign-in/begin")
    page = await world.client.get(begun.headers["location"])
    page = await world.submit(page, login=ADMIN, passwd=PASSWORD)
    back = page.headers["location"]
    await world.client.get("/console/sign-in/begin")
    done = await world.client.get(back)
    assert done.status_code == 401
    assert "did not start on this page" in done.text


async def test_a_session_outlives_its_token_and_ends_with_the_day(world: World) -> None:
    """The token of an hour is renewed behind the pages; what was typed is never lost to it."""
    await sign_in(world)
    for _ in range(4):
        world.wait(hours=2)
        assert (await world.client.get("/console/users")).status_code == 200
    world.wait(hours=3)
    assert (await world.client.get("/console/users")).status_code == 401


async def test_who_is_disabled_or_signed_out_everywhere_is_out_at_once(world: World) -> None:
    await world.user("eva")
    async with world.database.transaction() as tx:
        eva = await directory.user(tx, "eva@contoso.com")
        await directory.grant_role(tx, directory.USER_ADMINISTRATOR, eva.id)
    await sign_in(world, "eva@contoso.com")
    assert (await world.client.get("/console/users")).status_code == 200
    async with world.database.transaction() as tx:
        await directory.update_user(tx, eva.id, {"account_enabled": False}, world.at)
    assert (await world.client.get("/console/users")).status_code == 401


async def test_no_token_reaches_the_browser_or_lies_open_in_the_database(
    world: World, tenant_db: Database
) -> None:
    done = await sign_in(world)
    assert "eyJ" not in str(done.headers)
    async with tenant_db.transaction() as tx:
        cursor = await tx.execute("SELECT * FROM console_session")
        (row,) = await cursor.fetchall()
    assert b"eyJ" not in bytes(row["token"])


async def test_an_administrator_of_devices_without_a_licence_is_not_recognized(
    world: World,
) -> None:
    """Only where licences are asked for, and never who could give one."""
    await world.user("eva")
    async with world.database.transaction() as tx:
        eva = await directory.user(tx, "eva@contoso.com")
        await directory.grant_role(tx, directory.INTUNE_ADMINISTRATOR, eva.id)
        await licensing.require_licence(tx, True)
    refused = await sign_in(world, "eva@contoso.com")
    assert refused.status_code == 401
    assert "User not recognized." in refused.text
    assert "INTUNE_A" in refused.text
    async with world.database.transaction() as tx:
        await licensing.assign(tx, "EMSPREMIUM", eva.id, world.at)
    for upn in ("eva@contoso.com", ADMIN):
        world.client.cookies.clear()
        assert (await sign_in(world, upn)).status_code == 303


async def test_a_form_of_a_session_that_ended_leads_to_its_page_after_signing_in(
    world: World,
) -> None:
    await sign_in(world)
    page = await world.client.get("/console/users")
    token = re.search(r'name="form_token" value="([^"]+)"', page.text)
    world.wait(hours=12)
    answer = await world.client.post(
        "/console/preferences",
        data={"form_token": token[1] if token else "", "theme": "dark"},
        headers={"Referer": f"{BASE}/console/devices?search=x"},
    )
    assert answer.status_code == 401
    assert "return_to=%2Fconsole%2Fdevices%3Fsearch%3Dx" in answer.text
    elsewhere = {"Referer": "https://evil.example/console/devices"}
    answer = await world.client.post("/console/preferences", headers=elsewhere)
    assert "evil" not in answer.text
