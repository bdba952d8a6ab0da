"""Licences, app registrations, automatic enrolment, logs and deleted items in the console."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from directory_console import Browser, administrator, tenant_console, text_of

from tandem import pki
from tandem.infra.database import Database
from tandem.infra.jobs import Jobs
from tandem.tenant import directory, licensing, oidc
from tenant_world import CHEAP, World


@pytest.fixture
async def world(tenant_db: Database) -> AsyncIterator[World]:
    async with tenant_console(tenant_db) as made:
        yield made


@pytest.fixture
async def browser(world: World) -> Browser:
    return await Browser(world).sign_in()


async def _walk(browser: Browser, start: str, *steps: dict[str, Any]) -> str:
    """A wizard from its start to its summary; the text of that."""
    begun = await browser.client.get(start)
    assert begun.status_code == 303, text_of(begun.text)
    at = begun.headers["location"]
    said = await browser.open(at)
    for fields in steps:
        answer = await browser.send(at, fields)
        assert answer.status_code == 303, text_of(answer.text)
        at = answer.headers["location"]
        said = await browser.open(at)
    return said


INTUNE = "061f9ace-7d42-4136-88ac-31dc755f143f"
INTUNE_PLAN = "c1ec4a95-1f05-45b3-a911-aa3fa01094f5"


async def test_licences_are_assigned_to_users_and_groups_with_a_result_for_each(
    world: World, browser: Browser
) -> None:
    eva, bob, zoe = [await world.user(name) for name in ("eva", "bob", "zoe")]
    async with world.database.transaction() as tx:
        await licensing.subscribe(tx, "INTUNE_A", 2, world.at)
        group = await directory.create_group(tx, "Pilot", world.at)
        for one in (bob, zoe):
            await directory.add_member(tx, group.id, one.id)
    said = await _walk(
        browser,
        f"/console/wizards/assign-licence?users={eva.id}",
        {"sku": INTUNE},
        {"users": eva.id, "groups": group.id, "location": ""},
        {"plans": INTUNE_PLAN},
    )
    assert "tandem license assign INTUNE_A --user eva@contoso.com --group Pilot" in said
    assert "Members of the groups 2" in said
    finish = browser.html.xpath("//form[contains(@action, '/finish')]/@action")[0]
    said = await browser.follow(finish)
    assert "Eva Licensed" in said
    assert "2 of 2 members" in said
    assert "No seat of this product is free." in said, "the third has no seat, and is told why"
    assert "1" in await browser.open("/console/licences")
    assert "Pilot" in await browser.open(f"/console/licences/{INTUNE}/errors")
    async with world.database.transaction() as tx:
        await licensing.subscribe(tx, "INTUNE_A", 3, world.at)
    assert "Everybody who should have this product has it." in await browser.open(
        f"/console/licences/{INTUNE}/errors"
    )
    await browser.open(f"/console/groups/{group.id}/licences")
    asked = await browser.send(
        f"/console/licences/{INTUNE}/remove", {"holder": group.id, "sort": "groups"}
    )
    assert "2 users lose it" in text_of(asked.text)
    await browser.follow(
        f"/console/licences/{INTUNE}/remove",
        {"holder": group.id, "sort": "groups", "confirmed": "1"},
    )
    assert "No group gives this product." in await browser.open(
        f"/console/licences/{INTUNE}/groups"
    )


async def test_a_user_without_a_usage_location_is_met_in_the_wizard(
    world: World, browser: Browser
) -> None:
    async with world.database.transaction() as tx:
        new = directory.NewUser("nowhere@contoso.com", "Nowhere", "Correct-Horse-1")
        made = await directory.create_user(tx, new, world.at)
    suite = "b05e124f-c7cc-45a0-a6aa-8cf78c946968"
    begun = await browser.client.get(f"/console/wizards/assign-licence?sku={suite}")
    at = begun.headers["location"]
    await browser.open(at)
    at = (await browser.send(at, {"sku": suite})).headers["location"]
    await browser.open(at)
    refused = await browser.send(at, {"users": made.id})
    assert refused.status_code == 422
    assert "no usage location" in browser.html.xpath("//p[@id='location-said']")[0].text_content()
    nobody = await browser.send(at, {})
    assert "Choose at least one user or group." in text_of(nobody.text)
    at = (await browser.send(at, {"users": made.id, "location": "fr"})).headers["location"]
    await browser.open(at)
    plans = browser.html.xpath("//input[@name='plans']/@value")
    assert len(browser.html.xpath("//input[@name='plans' and @checked]")) == len(plans)
    none = await browser.send(at, {})
    assert "leave one on" in text_of(none.text)
    await browser.follow(at, {"plans": plans})
    finish = browser.html.xpath("//form[contains(@action, '/finish')]/@action")[0]
    assert "Nowhere Licensed" in await browser.follow(finish)
    assert "FR" in await browser.open(f"/console/users/{made.id}")


async def test_what_a_licence_needs_is_refused_with_a_reason_and_tried_again(
    world: World, browser: Browser
) -> None:
    eva, bob = [await world.user(name) for name in ("eva", "bob")]
    async with world.database.transaction() as tx:
        await licensing.subscribe(tx, "INTUNE_A", 1, world.at)
    await _walk(
        browser,
        "/console/wizards/assign-licence",
        {"sku": INTUNE},
        {"users": [eva.id, bob.id]},
        {"plans": INTUNE_PLAN},
    )
    finish = browser.html.xpath("//form[contains(@action, '/finish')]/@action")[0]
    said = await browser.follow(finish)
    assert "Eva Licensed" in said
    assert "Bob Refused" in said
    retry = browser.html.xpath("//form[contains(@action, '/retry')]/@action")[0]
    await browser.follow("/console/licences/subscribe", {"sku": "INTUNE_A", "seats": "2"})
    said = await browser.follow(retry)
    assert "Bob Licensed" in said


async def test_who_has_no_right_to_license_is_told_the_role(world: World) -> None:
    eva = await world.user("eva")
    reader = await administrator(world, "reader", directory.GLOBAL_READER)
    await _walk(
        reader,
        "/console/wizards/assign-licence",
        {"sku": "b05e124f-c7cc-45a0-a6aa-8cf78c946968"},
        {"users": eva.id},
        {"plans": INTUNE_PLAN},
    )
    finish = reader.html.xpath("//form[contains(@action, '/finish')]/@action")[0]
    refused = await reader.send(finish)
    assert refused.status_code == 403
    assert "License Administrator" in text_of(refused.text)


async def test_long_runs_and_missing_licences_are_notices(world: World, browser: Browser) -> None:
    bob = await world.user("bob")
    async with world.database.transaction() as tx:
        await licensing.subscribe(tx, "INTUNE_A", 1, world.at)
        group = await directory.create_group(tx, "Pilot", world.at)
        await directory.add_member(tx, group.id, bob.id)
        await directory.add_member(tx, group.id, (await world_admin(tx)).id)
        await licensing.assign(tx, INTUNE, group.id, world.at)
    said = await browser.open("/console/notifications")
    assert "Users without the licence they should have: 1" in said


async def test_a_large_groups_licences_are_watched_while_they_go_on(tenant_db: Database) -> None:
    waiting: list[str] = []

    async def later(tx: Any, run_id: str) -> None:
        waiting.append(run_id)

    async with tenant_console(tenant_db, later=later) as world:
        async with world.database.transaction() as tx:
            group = await directory.create_group(tx, "Everybody", world.at)
            for number in range(120):
                name = f"u{number:03}"
                new = directory.NewUser(
                    f"{name}@contoso.com", name, "Correct-Horse-1", usage_location="FR"
                )
                made = await directory.create_user(tx, new, world.at, CHEAP)
                await directory.add_member(tx, group.id, made.id)
        browser = await Browser(world).sign_in()
        suite = "b05e124f-c7cc-45a0-a6aa-8cf78c946968"
        await _walk(
            browser,
            "/console/wizards/assign-licence",
            {"sku": suite},
            {"groups": group.id},
            {"plans": INTUNE_PLAN},
        )
        finish = browser.html.xpath("//form[contains(@action, '/finish')]/@action")[0]
        answer = await browser.send(finish)
        results = answer.headers["location"]
        said = await browser.open(results)
        assert "Everybody Waiting" in said
        assert "0 of 120 members" in said
        assert browser.html.xpath("//*[@hx-trigger='every 2s']"), "it is looked at while it goes on"
        assert "Licences of the group Everybody: 0 of 120 members" in await browser.open(
            "/console/notifications"
        )
        (run,) = waiting
        jobs = licensing.Runs(world.database, Jobs(world.database.dsn), world.now)
        await jobs.work(run)
        said = await browser.open(results)
        assert "Everybody Done" in said
        assert "120 of 120 members" in said
        assert "Licences of the group" not in await browser.open("/console/notifications")


async def world_admin(tx: Any) -> directory.User:
    return await directory.user(tx, "admin@contoso.com")


# ---------------------------------------------------------------------------------- applications


async def _app(browser: Browser, **more: str) -> str:
    await browser.open("/console/app-registrations/new")
    fields = {
        "displayName": "ConfigMgr server",
        "identifierUris": "https://ConfigMgrService",
        "home": "https://ConfigMgrService",
        **more,
    }
    answer = await browser.send("/console/app-registrations/new", fields)
    assert answer.status_code == 303, text_of(answer.text)
    return str(answer.headers["location"])


async def test_an_application_is_registered_consented_and_taken_back(
    world: World, browser: Browser
) -> None:
    """Steps 2.2 and 2.5 with a mouse."""
    app = await _app(browser)
    assert "https://ConfigMgrService" in await browser.open(app)
    await browser.open(f"{app}/ask")
    roles = {
        name: browser.html.xpath(f"//label[contains(., '{name}')]//input[@name='Role']/@value")[0]
        for name in ("User.Read.All", "Device.Read.All")
    }
    scope = browser.html.xpath("//label[contains(., 'User.Read')]//input[@name='Scope']/@value")[0]
    graph = "00000003-0000-0000-c000-000000000000"
    said = await browser.follow(
        f"{app}/ask", {"Role": list(roles.values()), "Scope": scope, "api": graph}
    )
    assert "3 permissions wait for an administrator's consent." in said
    assert "Read all users' full profiles" in said
    asked = await browser.send(f"{app}/consent")
    assert "Grant admin consent for Contoso?" in text_of(asked.text)
    assert "Device.Read.All, as itself" in text_of(asked.text)
    said = await browser.follow(f"{app}/consent", {"confirmed": "1"})
    assert "Consent was granted for Contoso." in said
    assert said.count("Granted for Contoso") == 3
    assert "admin@contoso.com" in said, "by whom"
    assert "Not granted" not in said
    row = browser.html.xpath("//tr[contains(., 'Device.Read.All')]")[0]
    fields = {
        name: row.xpath(f".//input[@name='{name}']/@value")[0]
        for name in ("permission", "resource", "sort")
    }
    said = await browser.follow(f"{app}/revoke", fields)
    assert said.count("Granted for Contoso") == 2
    assert "was taken back" in said


async def test_who_deletes_the_consoles_own_registration_is_warned(browser: Browser) -> None:
    await browser.open("/console/app-registrations?search=console")
    (own,) = browser.html.xpath("//tbody//a[contains(., 'Tandem console')]/@href")
    asked = await browser.send(f"{own}/do/delete")
    assert "nobody can sign in here any more" in text_of(asked.text)


async def test_only_who_may_consent_is_offered_it(world: World, browser: Browser) -> None:
    app = await _app(browser)
    person = await administrator(world, "apps", directory.APPLICATION_ADMINISTRATOR)
    said = await person.open(f"{app}/permissions")
    assert "a global administrator's to grant" in said
    refused = await person.send(f"{app}/consent", {"confirmed": "1"})
    assert refused.status_code in (303, 403)


async def test_a_secret_is_shown_once_and_its_end_is_told(world: World, browser: Browser) -> None:
    app = await _app(browser)
    await browser.open(f"{app}/new-secret")
    made = await browser.send(f"{app}/new-secret", {"description": "Site", "months": "6"})
    secret = browser.html.xpath("//pre[@id='new-secret']")[0].text
    assert len(secret) >= 32
    for path in (app, f"{app}/credentials", "/console/app-registrations/expiring"):
        page = await browser.client.get(path)
        assert secret not in page.text
    assert "Site" in await browser.open(f"{app}/credentials")
    world.wait(days=170)
    browser = await Browser(world).sign_in()
    assert "A credential of ConfigMgr server expires in" in await browser.open(
        "/console/notifications"
    )
    await browser.open(f"{app}/credentials")
    key = browser.html.xpath("//input[@name='key']/@value")[0]
    asked = await browser.send(f"{app}/do/remove-secret", {"key": key})
    assert "AADSTS7000215" in text_of(asked.text)
    said = await browser.follow(f"{app}/do/remove-secret", {"key": key, "confirmed": "1"})
    assert "There is no secret or certificate." in said
    assert made.headers["cache-control"] == "no-store"


async def test_certificates_are_added_and_what_is_none_is_refused(
    world: World, browser: Browser
) -> None:
    app = await _app(browser)
    key = pki.generate_key("rsa2048")
    root = pki.new_root(pki.name("App"), now=world.at)
    certificate = root.issue(
        key.public_key(), pki.name("App"), now=world.at, days=90, usages=["client"]
    )
    await browser.open(f"{app}/new-certificate")
    wrong = await browser.send(
        f"{app}/new-certificate", {}, files={"certificate": ("a.pfx", b"\x00garbage")}
    )
    assert wrong.status_code == 422
    assert "This file holds no certificate." in text_of(wrong.text)
    fine = await browser.send(
        f"{app}/new-certificate",
        {"description": "Site"},
        files={"certificate": ("site.pem", pki.pem(certificate))},
    )
    assert fine.status_code == 303, text_of(fine.text)
    assert "Certificate" in await browser.open(fine.headers["location"])


# ---------------------------------------------------------------------------------- enrolment


async def test_automatic_enrolment_is_set_and_checked(world: World, browser: Browser) -> None:
    """Step 0.2: a user in scope gets the MDM URLs, one outside does not, and the page says why."""
    eva = await world.user("eva")
    await world.user("bob")
    async with world.database.transaction() as tx:
        group = await directory.create_group(tx, "Pilot", world.at)
        await directory.add_member(tx, group.id, eva.id)
    page = "/console/enrolment"
    said = await browser.open(page)
    assert "No device can be managed until it is set." in said
    assert "EnterpriseEnrollment.contoso.com" in said
    asked = await browser.send(f"{page}/authority")
    assert "cannot be taken back" in text_of(asked.text)
    await browser.follow(f"{page}/authority", {"confirmed": "1"})
    values = _fields(browser)
    without = await browser.send(page, {**values, "scope": "selected"})
    assert without.status_code == 422
    assert "Choose at least one group." in text_of(without.text)
    said = await browser.follow(page, {**values, "scope": "selected", "groups": group.id})
    assert "They count at the next join." in said
    yes = await browser.open(f"{page}/check?user=eva@contoso.com")
    assert "Devices that eva@contoso.com joins get the MDM URLs." in yes
    assert "Through: Pilot" in yes
    no = await browser.open(f"{page}/check?user=bob@contoso.com")
    assert "do not get the MDM URLs" in no
    assert "add a group the user is in" in no
    assert "There is no user" in await browser.open(f"{page}/check?user=nobody", 422)
    await world.joined("eva@contoso.com", "LAB-1")


def _fields(browser: Browser) -> dict[str, str]:
    names = ("termsOfUseUrl", "discoveryUrl", "complianceUrl")
    values = {n: str(browser.html.xpath(f"//input[@name='{n}']/@value")[0]) for n in names}
    version = str(browser.html.xpath("//input[@name='mam_version']/@value")[0])
    return {**values, "scope": "none", "mam": "none", "mam_version": version}


async def test_the_urls_are_changed_refused_and_restored(world: World, browser: Browser) -> None:
    page = "/console/enrolment"
    await browser.open(page)
    usual = _fields(browser)
    wrong = await browser.send(page, {**usual, "discoveryUrl": "ftp://x"})
    assert wrong.status_code == 422
    plain = await browser.send(page, {**usual, "discoveryUrl": "http://mdm.example/d"})
    assert plain.status_code == 422
    assert "no address that devices can be sent to" in text_of(plain.text)
    await browser.follow(page, {**usual, "discoveryUrl": "https://mdm.example/d"})
    assert _fields(browser)["discoveryUrl"] == "https://mdm.example/d"
    restored = await browser.send(page, {**_fields(browser), "restore": "1"})
    assert restored.status_code == 200
    assert _fields(browser)["discoveryUrl"] == usual["discoveryUrl"]
    await browser.open(page)
    assert _fields(browser)["discoveryUrl"] == "https://mdm.example/d", "nothing is saved yet"
    await browser.follow(page, usual)
    assert _fields(browser)["discoveryUrl"] == usual["discoveryUrl"]


async def test_two_administrators_at_the_enrolment(world: World, browser: Browser) -> None:
    page = "/console/enrolment"
    other = await Browser(world).sign_in()
    await browser.open(page)
    await other.open(page)
    await other.follow(page, {**_fields(other), "scope": "all"})
    late = await browser.send(page, {**_fields(browser), "complianceUrl": "https://mdm.example/c"})
    assert late.status_code == 409
    assert "https://mdm.example/c" in late.text, "what was typed is kept"


# ---------------------------------------------------------------------------------- logs


async def test_the_audit_log_is_filtered_exported_and_verified(
    world: World, browser: Browser
) -> None:
    app = await _app(browser)
    await browser.open(f"{app}/edit")
    await browser.follow(
        f"{app}/edit",
        {"displayName": "=cmd()", "identifierUris": "", "home": "", "web": "", "public": ""},
    )
    said = await browser.open("/console/audit?activity=Update&category=ApplicationManagement")
    assert "Update application" in said
    assert "ConfigMgr server" in said, "before"
    assert "=cmd()" in said, "after"
    assert "No entry matches." in await browser.open("/console/audit?to=2020-01-01")
    await browser.open("/console/audit?from=tomorrow&category=%27%27&outcome=x")
    export = await browser.client.get("/console/audit.csv?activity=Update")
    assert "Update application" in export.text
    assert ",=cmd()" not in export.text
    assert ',"=cmd()' not in export.text
    await browser.open("/console/audit/proof")
    proved = await browser.send("/console/audit/proof")
    assert "each as it was signed. Nothing is missing." in text_of(proved.text)
    async with world.database.transaction() as tx:
        await tx.execute("ALTER TABLE audit_entry DISABLE TRIGGER ALL")
        await tx.execute("DELETE FROM audit_entry WHERE id = 2")
    broken = await browser.send("/console/audit/proof")
    assert "The log is not what was signed:" in text_of(broken.text)


async def test_sign_ins_are_told_in_words(world: World, browser: Browser) -> None:
    await world.user("eva")
    page = await world.sign_in_page(
        client_id=oidc.CLI,
        response_type="code",
        redirect_uri="http://localhost",
        scope="openid",
        code_challenge="x" * 43,
        code_challenge_method="S256",
    )
    await world.submit(page, login="eva@contoso.com", passwd="wrong")
    said = await browser.open("/console/sign-ins?user=eva&result=bad")
    assert "AADSTS50126" in said
    assert "The user name or the password is wrong." in said
    assert "1 sign-in" in await browser.open("/console/sign-ins?code=AADSTS50126")
    french = await Browser(world, "fr").sign_in()
    said = await french.open("/console/sign-ins?code=50126")
    assert "mot de passe est faux" in said
    export = await browser.client.get("/console/sign-ins.csv?code=50126")
    assert "eva@contoso.com" in export.text


async def test_deleted_items_are_restored_or_gone_for_good(world: World, browser: Browser) -> None:
    eva, bob = [await world.user(name) for name in ("eva", "bob")]
    async with world.database.transaction() as tx:
        await directory.delete_user(tx, eva.id, world.at)
        await directory.delete_user(tx, bob.id, world.at)
    said = await browser.open("/console/deleted-items")
    assert "2 deleted items" in said
    said = await browser.follow(f"/console/deleted-items/{eva.id}/restore", {"sort": "user"})
    assert "Eva was restored." in said
    await browser.open("/console/deleted-items")
    asked = await browser.send(f"/console/deleted-items/{bob.id}/purge", {"sort": "user"})
    assert "cannot be restored after that" in text_of(asked.text)
    said = await browser.follow(
        f"/console/deleted-items/{bob.id}/purge", {"sort": "user", "confirmed": "1"}
    )
    assert "Bob was deleted for ever." in said
    assert "Nothing waits here." in said


async def test_a_days_work_at_every_page_in_both_languages(world: World) -> None:
    """Each page of the area opens for a reader, in French as in English."""
    eva = await world.user("eva")
    async with world.database.transaction() as tx:
        await directory.create_group(tx, "Pilot", world.at)
        app = await oidc.applications.create_application(tx, "App", world.at)
        await oidc.applications.add_secret(
            tx, app.id, world.at, ends_at=world.at + timedelta(days=5)
        )
    await administrator(world, "reader", directory.GLOBAL_READER)
    for language in ("en", "fr"):
        reader = await Browser(world, language).sign_in("reader@contoso.com")
        for path in (
            *("users", "groups", "roles", "licences", "app-registrations", "enrolment"),
            *("domains", "domains/contoso.com"),
            *("app-registrations/expiring", "deleted-items", "audit", "audit/proof", "sign-ins"),
            *(f"users/{eva.id}/{tab}" for tab in ("groups", "licences", "devices", "roles")),
            *(f"users/{eva.id}/{tab}" for tab in ("sign-ins", "edit", "password")),
            *(f"app-registrations/{app.id}/{tab}" for tab in ("credentials", "permissions", "api")),
            *("deleted-items?sort=group", "deleted-items?sort=application", "notifications"),
        ):
            await reader.open(f"/console/{path}")


async def test_a_domain_is_added_proved_and_made_the_default(tenant_db: Database) -> None:
    """Step 0.1: a verified domain, proved by a TXT record that DNS has."""
    held: dict[str, list[str]] = {}

    async def texts(name: str) -> list[str]:
        return held.get(name, [])

    async with tenant_console(tenant_db, texts=texts) as world:
        browser = await Browser(world).sign_in()
        await browser.open("/console/domains/new")
        wrong = await browser.send("/console/domains/new", {"id": "no domain"})
        assert wrong.status_code == 422
        said = await browser.follow("/console/domains/new", {"id": "fabrikam.com"})
        assert "Waits for its TXT record" in said
        text = browser.html.xpath("//td/code")[0].text
        refused = await browser.send("/console/domains/fabrikam.com/verify")
        assert refused.status_code == 422
        assert text in text_of(refused.text), "the record that is wanted stays in sight"
        held["fabrikam.com"] = [text]
        said = await browser.follow("/console/domains/fabrikam.com/verify")
        assert "fabrikam.com is verified." in said
        await browser.follow("/console/domains/fabrikam.com/default")
        await browser.open("/console/users/new")
        made = await browser.send(
            "/console/users/new", {"name": "ada", "domain": "fabrikam.com", "displayName": "Ada"}
        )
        assert "ada@fabrikam.com" in text_of(made.text)
        await browser.open("/console/domains/contoso.com")
        assert not browser.html.xpath("//form[contains(@action, '/delete')]"), "the initial one"


async def test_what_graph_refuses_is_said_in_french(world: World) -> None:
    french = await Browser(world, "fr").sign_in()
    await _app(french)
    await french.open("/console/app-registrations/new")
    taken = await french.send(
        "/console/app-registrations/new",
        {"displayName": "Two", "identifierUris": "https://ConfigMgrService"},
    )
    assert taken.status_code == 422
    said = french.html.xpath("//p[@id='identifierUris-said']")[0].text_content()
    assert "Un autre objet a déjà cet URI d'ID d'application" in said
    assert "supprimez l'autre application" in said
