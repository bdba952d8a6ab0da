"""Users, groups and roles in the tenant's console, through its real Graph."""

from collections.abc import AsyncIterator

import pytest
from directory_console import Browser, administrator, tenant_console, text_of

from tandem.infra.database import Database
from tandem.tenant import directory
from tenant_world import World

USER = {
    "name": "alex",
    "domain": "contoso.com",
    "displayName": "Alex Wilber",
    "department": "Sales",
    "usageLocation": "fr",
    "enabled": "1",
}


@pytest.fixture
async def world(tenant_db: Database) -> AsyncIterator[World]:
    async with tenant_console(tenant_db) as made:
        yield made


@pytest.fixture
async def browser(world: World) -> Browser:
    return await Browser(world).sign_in()


async def _id(world: World, upn: str) -> str:
    async with world.database.transaction() as tx:
        return (await directory.user(tx, upn)).id


async def test_a_user_is_created_changed_disabled_deleted_and_restored(
    world: World, browser: Browser
) -> None:
    await browser.open("/console/users/new")
    made = await browser.send("/console/users/new", USER)
    assert "shown now and never again" in text_of(made.text)
    password = browser.html.xpath("//pre")[0].text
    assert len(password) > 12
    again = await browser.client.get("/console/users?search=alex")
    assert password not in again.text
    user = f"/console/users/{await _id(world, 'alex@contoso.com')}"
    assert "FR" in await browser.open(user)
    await browser.open(f"{user}/edit")
    said = await browser.follow(
        f"{user}/edit",
        {"userPrincipalName": "alex@contoso.com", "displayName": "Alex W", "department": "HR"},
    )
    assert "Alex W was changed." in said
    assert "Alex W was disabled." in await browser.follow(f"{user}/do/disable")
    asked = await browser.send(f"{user}/do/delete")
    assert "restored from the deleted items" in text_of(asked.text)
    assert "was deleted" in await browser.follow(f"{user}/do/delete", {"confirmed": "1"})
    await browser.open(user, 404)


async def test_what_graph_refuses_stands_at_its_field_with_what_was_typed(
    browser: Browser,
) -> None:
    await browser.open("/console/users/new")
    weak = await browser.send("/console/users/new", {**USER, "password": "short"})
    assert weak.status_code == 422
    (said,) = browser.html.xpath("//p[@id='password-said']")
    assert "complexity" in said.text_content()
    assert browser.html.xpath("//input[@name='displayName']/@value") == ["Alex Wilber"]
    assert "short" not in weak.text
    await browser.send("/console/users/new", {**USER, "usageLocation": "1"})
    assert "two letters" in browser.html.xpath("//p[@id='usageLocation-said']")[0].text_content()
    await browser.send("/console/users/new", USER)
    taken = await browser.send("/console/users/new", USER)
    assert taken.status_code == 422
    assert "Another object" in browser.html.xpath("//p[@id='name-said']")[0].text_content()


async def test_two_administrators_at_one_user(world: World, browser: Browser) -> None:
    await world.user("eva")
    page = f"/console/users/{await _id(world, 'eva@contoso.com')}/edit"
    other = await Browser(world).sign_in()
    await browser.open(page)
    await other.open(page)
    name = {"userPrincipalName": "eva@contoso.com", "displayName": "Eva One"}
    await other.follow(page, name)
    late = await browser.send(page, {**name, "displayName": "Eva Two", "jobTitle": "Seller"})
    assert late.status_code == 409
    assert "Somebody else changed this meanwhile" in text_of(late.text)
    assert browser.html.xpath("//input[@name='jobTitle']/@value") == ["Seller"]
    assert "Eva Two was changed" in await browser.follow(
        page, {**name, "displayName": "Eva Two", "jobTitle": "Seller"}
    )


async def test_the_list_is_searched_sorted_paged_and_exported(
    world: World, browser: Browser
) -> None:
    for number in range(53):
        await world.user(
            f"user{number:02}", profile={"department": "Sales" if number % 2 else "HR"}
        )
    assert "Page 1 of 2" in await browser.open("/console/users")
    second = await browser.open("/console/users?page=2")
    assert "User52" in second
    assert "User52" in await browser.open("/console/users?page=900"), "the last page instead"
    assert "26 users" in await browser.open("/console/users?department=sales")
    found = await browser.open("/console/users?search=ser1&sort=upn&descending=1")
    assert found.index("User19") < found.index("User10")
    assert "No user matches" in await browser.open("/console/users?search=%27%20or%201%20eq%201")
    export = await browser.client.get("/console/users.csv?department=Sales")
    assert export.headers["content-type"].startswith("text/csv")
    assert len(export.text.strip().splitlines()) == 27


async def test_marked_users_are_disabled_together_after_a_page_that_names_them(
    world: World, browser: Browser
) -> None:
    ids = [(await world.user(name)).id for name in ("ada", "bob")]
    await browser.open("/console/users")
    asked = await browser.send("/console/users/bulk", {"what": "disable", "chosen": ids})
    assert "This concerns 2 users." in text_of(asked.text)
    assert "Ada (ada@contoso.com)" in text_of(asked.text)
    said = await browser.follow(
        "/console/users/bulk", {"what": "disable", "chosen": ids, "confirmed": "1"}
    )
    assert "Done for 2 users." in said
    assert "2 users" in await browser.open("/console/users?enabled=no")


async def test_who_may_only_read_sees_no_buttons_and_is_told_who_may(world: World) -> None:
    await world.user("eva")
    reader = await administrator(world, "reader", directory.GLOBAL_READER)
    said = await reader.open("/console/users")
    assert "You may look at this and not change it." in said
    assert "User administrator" in said
    assert not reader.html.xpath("//a[@href='/console/users/new']")
    page = f"/console/users/{await _id(world, 'eva@contoso.com')}"
    await reader.open(page)
    assert not reader.html.xpath("//main//form[contains(@action, '/do/')]")
    refused = await reader.send(f"{page}/do/disable")
    assert refused.status_code == 403
    assert "User Administrator" in text_of(refused.text), "the role that is missing is named"


async def test_groups_by_hand_and_by_rule(world: World, browser: Browser) -> None:
    eva = await world.user("eva", profile={"department": "Sales"})
    await browser.open("/console/groups/new")
    rule = {"displayName": "Sales", "mode": "rule", "membershipRule": 'user.department -eq "'}
    wrong = await browser.send("/console/groups/new", rule)
    assert wrong.status_code == 422
    assert (
        "cannot be read" in browser.html.xpath("//p[@id='membershipRule-said']")[0].text_content()
    )
    rule["membershipRule"] = 'user.department -eq "sales"'
    tried = await browser.send("/console/groups/new", {**rule, "try": "1"})
    assert "The rule names 1 member now." in text_of(tried.text)
    assert "Sales was created." in await browser.follow("/console/groups/new", rule)
    found = await browser.open(browser.html.xpath("//nav[@class='tabs']/a/@href")[1])
    assert "Eva" in found
    assert "Members come and go by the rule." in found
    await browser.open("/console/groups/new")
    pilot = {"displayName": "Pilot", "mode": "assigned", "members": [eva.id]}
    await browser.follow("/console/groups/new", pilot)
    members = browser.html.xpath("//nav[@class='tabs']/a/@href")[1]
    assert "1 member" in await browser.open(members)
    bob = await world.user("bob")
    assert "Added to the group: 1." in await browser.follow(members, {"members": [eva.id, bob.id]})
    base = members.removesuffix("/members")
    said = await browser.follow(f"{base}/do/remove", {"member": eva.id})
    assert "The member was removed." in said
    asked = await browser.send(f"{base}/do/delete")
    assert "1 member loses the licences, apps and policies" in text_of(asked.text)
    assert "was deleted" in await browser.follow(f"{base}/do/delete", {"confirmed": "1"})


async def test_members_of_groups_inside_are_shown_when_asked_for(
    world: World, browser: Browser
) -> None:
    eva = await world.user("eva")
    async with world.database.transaction() as tx:
        inner = await directory.create_group(tx, "Inner", world.at)
        outer = await directory.create_group(tx, "Outer", world.at)
        await directory.add_member(tx, outer.id, inner.id)
        await directory.add_member(tx, inner.id, eva.id)
    page = f"/console/groups/{outer.id}/members"
    await browser.open(page)
    (direct,) = browser.html.xpath("//tbody")
    assert "Inner" in direct.text_content()
    assert "Eva" not in direct.text_content()
    assert "Eva" in await browser.open(f"{page}?nested=1")
    assert "Through another group" in await browser.open(f"/console/users/{eva.id}/groups")


async def test_a_role_is_given_and_taken_and_a_privileged_one_refused_in_place(
    world: World, browser: Browser
) -> None:
    eva = await world.user("eva")
    page = f"/console/roles/{directory.USER_ADMINISTRATOR}"
    await browser.open(page)
    assert "The role was given." in await browser.follow(page, {"holder": eva.id})
    assert "Eva" in await browser.open(page)
    assert "taken away" in await browser.follow(f"{page}/do/take", {"holder": eva.id})
    last = await browser.send(
        f"/console/roles/{directory.GLOBAL_ADMINISTRATOR}/do/take",
        {"holder": await _id(world, "admin@contoso.com")},
    )
    assert last.status_code == 400
    assert "Global Administrator" in text_of(last.text)
    keeper = await administrator(world, "keeper", directory.PRIVILEGED_ROLE_ADMINISTRATOR)
    top = f"/console/roles/{directory.GLOBAL_ADMINISTRATOR}"
    await keeper.open(top)
    refused = await keeper.send(top, {"holder": eva.id})
    assert refused.status_code == 403
    assert "Global Administrator" in text_of(refused.text)


async def test_pickers_find_while_somebody_types(world: World, browser: Browser) -> None:
    await world.user("eva")
    found = await browser.client.get(
        "/console/directory/pick/members?members--query=ev", headers={"HX-Request": "true"}
    )
    assert "Eva" in found.text
    assert (await browser.client.get("/console/directory/pick/shoes")).status_code == 404


async def test_the_search_of_the_shell_finds_users_and_groups(
    world: World, browser: Browser
) -> None:
    await world.user("eva")
    async with world.database.transaction() as tx:
        await directory.create_group(tx, "Evaluation", world.at)
    found = await browser.open("/console/search?q=eva")
    assert "eva@contoso.com" in found
    assert "Evaluation" in found


HOSTILE = "<script>alert(1)</script>{{7*7}}"


async def test_names_are_shown_as_they_are_and_run_nowhere(world: World, browser: Browser) -> None:
    async with world.database.transaction() as tx:
        new = directory.NewUser("xss@contoso.com", HOSTILE, "Correct-Horse-1")
        made = await directory.create_user(tx, new, world.at)
        group = await directory.create_group(tx, HOSTILE, world.at)
        await directory.add_member(tx, group.id, made.id)
    for path in (
        "/console/users",
        f"/console/users/{made.id}",
        f"/console/users/{made.id}/groups",
        f"/console/groups/{group.id}/members",
        f"/console/groups/{group.id}/edit",
        "/console/search?q=script",
    ):
        page = await browser.client.get(path)
        assert page.status_code == 200, path
        assert "<script>alert" not in page.text, path


async def test_a_group_by_rule_needs_its_rule(browser: Browser) -> None:
    await browser.open("/console/groups/new")
    wrong = await browser.send("/console/groups/new", {"displayName": "Sales", "mode": "rule"})
    assert wrong.status_code == 422
    assert "A group by rule needs its rule." in text_of(wrong.text)


async def test_a_picker_works_without_a_script(world: World, browser: Browser) -> None:
    """Its search is the form sent with another button: nothing is made, and nothing typed is lost."""
    await world.user("eva")
    await world.user("bob")
    await browser.open("/console/groups/new")
    typed = {"displayName": "Pilot", "mode": "assigned", "members--query": "ev"}
    found = await browser.send("/console/groups/new", {**typed, "members--search": "1"})
    assert found.status_code == 200
    (list_of,) = browser.html.xpath("//div[@id='members-found']")
    assert "Eva" in list_of.text_content()
    assert "Bob" not in list_of.text_content()
    assert browser.html.xpath("//input[@name='displayName']/@value") == ["Pilot"]
    assert "No group matches." in await browser.open("/console/groups")


async def test_a_form_of_another_site_changes_nothing(world: World, browser: Browser) -> None:
    eva = await world.user("eva")
    page = f"/console/users/{eva.id}"
    await browser.open(page)
    for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        refused = await browser.send(f"{page}/do/disable", headers=foreign)
        assert refused.status_code == 403
    without = await browser.client.post(f"{page}/do/disable")
    assert without.status_code == 403
    assert "Enabled" in await browser.open(page)
