"""Discovery of groups, over a real Graph: what is chosen, read, kept and taken out again."""

from typing import Any

from site_world import Site, connect
from tandem.infra.clock import utc_now
from tandem.site import collections
from tandem.tenant import directory
from tenant_world import World

Contoso = tuple[Site, World]
FINANCE = "select * from SMS_R_User where UserGroupName = 'finance'"


async def team(site: Site, world: World) -> None:
    """Finance has Ada and, by the group Auditors within it, Bob; Chat is no security group."""
    for name in ("ada", "bob", "cleo"):
        await world.user(name)
    for name in ("Finance", "Auditors"):
        await site.run("group", "create", name)
    found = {item["displayName"]: item for item in await site.run("group", "list")}
    await site.run("group", "add-member", "Finance", "ada@contoso.com", found["Auditors"]["id"])
    await site.run("group", "add-member", "Auditors", "bob@contoso.com")
    async with world.database.transaction() as tx:
        await directory.create_group(
            tx,
            "Chat",
            world.now(),
            mail_nickname="chat",
            group_types=("Unified",),
            mail_enabled=True,
            security_enabled=False,
        )
    await site.run("group", "add-member", "Chat", "cleo@contoso.com")


async def upns(site: Site, collection: str) -> set[str]:
    found = await site.run("collection", "members", collection)
    return {(item["upn"] or item["name"]).partition("@")[0] for item in found}


async def evaluated(site: Site, name: str) -> set[str]:
    """Whom the site keeps as members of a collection, once what has changed was looked at."""
    await collections.Evaluator(site.db, utc_now).tend()
    async with site.db.transaction() as tx:
        found = await tx.execute(
            "SELECT u.upn, u.name FROM collections_user_member m JOIN collections_user u"
            " ON u.id = m.resource_id JOIN collections_collection c ON c.id = m.collection_id"
            " WHERE c.name = %s",
            (name,),
        )
        return {(row["upn"] or row["name"]).partition("@")[0] async for row in found}


def chosen(shown: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(item["name"], item["state"], item["members"]) for item in shown["groups"]]


async def test_chosen_groups_become_resources_and_their_members_can_be_queried(
    contoso: Contoso,
) -> None:
    site, world = contoso
    await connect(site)
    await team(site, world)
    found = await site.run("discovery", "find-groups", "f")
    assert [(item["name"], item["security"], item["chosen"]) for item in found] == [
        ("Finance", True, False)
    ]
    assert {item["name"] for item in await site.run("discovery", "find-groups")} == {
        "Auditors", "Finance",
    }  # fmt: skip
    everything = {item["name"] for item in await site.run("discovery", "find-groups", "--all")}
    assert everything == {"Auditors", "Chat", "Finance"}

    shown = await site.run("discovery", "add-group", "FINANCE", "Chat")
    assert chosen(shown) == [("Chat", "", 0), ("Finance", "", 0)]
    assert (shown["enabled"], shown["every_hours"], shown["at"]) == (False, 24, None)
    refused = await site.refusal("discovery", "run", "--groups")
    assert (refused.code, "tandem discovery groups --on" in refused.cure) == (
        "discovery.not-enabled", True,
    )  # fmt: skip
    await site.run("discovery", "groups", "--on", "--every-hours", 12)
    run = await site.run("discovery", "run", "--groups")
    # Users whom no discovery had found yet; a group that is no security group brings its own too.
    assert (run["kind"], run["groups"], run["users"], run["added"]) == ("groups", 1, 3, 3)
    shown = await site.run("discovery", "groups")
    assert chosen(shown) == [("Chat", "other", 1), ("Finance", "security", 2)]
    assert "UDX for Azure Active Directory groups. Groups: 2, users: 3" in site.log(
        "SMS_AZUREAD_DISCOVERY_AGENT"
    )

    groups = await site.run("collection", "groups")
    assert [(item["name"], item["members"]) for item in groups] == [("Finance", 2)]
    members = await site.run("collection", "groups", "--members", "finance")
    assert {item["upn"] for item in members} == {"ada@contoso.com", "bob@contoso.com"}
    for query, who in (
        (FINANCE, {"ada", "bob"}),
        ("select * from SMS_R_User where UserGroupName like 'fin%'", {"ada", "bob"}),
        ("select * from SMS_R_User where not UserGroupName = 'Finance'", {"cleo"}),
        ("select * from SMS_R_User where UserGroupName is null", {"cleo"}),
        ("select * from SMS_R_User where UserGroupName in ('Finance','x')"
         " and Name like 'a%'", {"ada"}),
        ("select * from SMS_R_UserGroup where UsergroupName = 'Finance'", {"Finance"}),
        ("select * from SMS_R_User where UserGroupName in"
         " (select Name from SMS_R_UserGroup where Name like '%nance')", {"ada", "bob"}),
    ):  # fmt: skip
        preview = await site.run("collection", "preview", "--type", "user", "--query", query)
        first = {(item["upn"] or item["name"]).partition("@")[0] for item in preview["first"]}
        assert (first, preview["members"]) == (who, len(who)), query
    assert await upns(site, "All User Groups") == {"Finance"}
    assert await upns(site, "All Users") == {"ada", "bob", "cleo"}
    assert await upns(site, "All Users and User Groups") == {"ada", "bob", "cleo", "Finance"}
    listed = await site.run("collection", "users")
    assert {item["kind"] for item in listed} == {"user"}
    # A group is a member itself, by name.
    await site.run("collection", "create", "By name", "--type", "user", "--user", "Finance")
    assert await upns(site, "By name") == {"Finance"}
    wrong = "select * from SMS_R_User where ResourceId in (select UserGroupName from SMS_R_User)"
    refused = await site.refusal("collection", "preview", "--type", "user", "--query", wrong)
    assert "UserGroupName has many values" in refused.message


async def test_who_joins_a_group_or_leaves_it_moves_between_collections(contoso: Contoso) -> None:
    site, world = contoso
    await connect(site)
    await team(site, world)
    await site.run("discovery", "groups", "--on")
    await site.run("discovery", "add-group", "Finance")
    await site.run("discovery", "run", "--groups")
    await site.run("collection", "create", "Finance people", "--type", "user", "--query", FINANCE)
    assert await evaluated(site, "Finance people") == {"ada", "bob"}
    await site.run("group", "add-member", "Finance", "cleo@contoso.com")
    users = {item["userPrincipalName"]: item["id"] for item in await site.run("user", "list")}
    groups = {item["displayName"]: item["id"] for item in await site.run("group", "list")}
    async with world.database.transaction() as tx:
        await directory.remove_member(tx, groups["Finance"], users["ada@contoso.com"])
    again = await site.run("discovery", "run", "--groups")
    assert (again["users"], again["added"]) == (2, 1)
    assert await evaluated(site, "Finance people") == {"bob", "cleo"}

    # A full run of users does not take groups for users who are gone.
    assert (await site.run("discovery", "run"))["removed"] == 0
    assert await upns(site, "All User Groups") == {"Finance"}

    # A group that the tenant does not have any more, and one that is not chosen any more.
    async with world.database.transaction() as tx:
        await directory.delete_group(tx, groups["Finance"], world.now())
    gone = await site.run("discovery", "run", "--groups")
    assert (gone["state"], gone["groups"], gone["removed"]) == ("succeeded", 0, 1)
    assert chosen(await site.run("discovery", "groups")) == [("Finance", "gone", 0)]
    assert await upns(site, "All User Groups") == set()
    assert await evaluated(site, "Finance people") == set()
    assert chosen(await site.run("discovery", "remove-group", "finance")) == []
    refused = await site.refusal("discovery", "remove-group", "Finance")
    assert refused.code == "discovery.no-such-group"
    assert (await site.refusal("discovery", "run", "--groups")).code == "discovery.no-groups"
    await site.run("discovery", "add-group", groups["Auditors"])
    await site.run("discovery", "run", "--groups")
    assert await upns(site, "All User Groups") == {"Auditors"}
    await site.run("discovery", "remove-group", "Auditors")
    assert await upns(site, "All User Groups") == set()


async def test_what_cannot_be_chosen_or_read_is_refused_with_its_cure(contoso: Contoso) -> None:
    site, _ = contoso
    server, _ = await connect(site, consent=False)
    refused = await site.refusal("discovery", "find-groups", "f")
    assert refused.code == "azure-service.consent-missing"
    await site.run("app-registration", "consent", server)
    for _ in range(2):
        await site.run("group", "create", "O'Twins")
    refused = await site.refusal("discovery", "add-group", "O'Twins")
    assert refused.code == "discovery.ambiguous-group"
    ids = [item["id"] for item in await site.run("group", "list")]
    assert all(id in refused.cure for id in ids)
    for name in ("nobody", "00000000-0000-0000-0000-000000000000", " ", "x" * 300):
        refused = await site.refusal("discovery", "add-group", ids[0], name)
        assert refused.code == "discovery.no-such-group", name
    # All of them, or none.
    assert chosen(await site.run("discovery", "groups")) == []
    refused = await site.refusal("discovery", "groups", "--every-hours", 9000)
    assert refused.code == "discovery.bad-schedule"
    assert chosen(await site.run("discovery", "add-group", ids[1])) == [("O'Twins", "", 0)]


async def test_groups_are_read_on_their_schedule(contoso: Contoso) -> None:
    site, _ = contoso
    await connect(site)
    await site.run("group", "create", "Finance")
    await site.run("discovery", "groups", "--on", "--every-hours", 2)
    await site.run("discovery", "add-group", "Finance")

    async def due() -> list[str]:
        async with site.db.transaction() as tx:
            found = [run.kind for run in await site.discovery.request_due(tx)]
        await site.jobs_done()
        return found

    # The first run is somebody's; from then on it repeats.
    assert await due() == []
    await site.run("discovery", "run", "--groups")
    for span, kinds in (("1 hour", []), ("1 hour", ["groups"]), ("1 hour", [])):
        async with site.db.transaction() as tx:
            await tx.execute(
                "UPDATE discovery_schedule SET groups_at = groups_at - %s::interval", (span,)
            )
        assert await due() == kinds
    states = [(run["kind"], run["state"]) for run in await site.run("discovery", "status")]
    assert states == [("groups", "succeeded")] * 2
    await site.run("discovery", "groups", "--off")
    assert (await site.refusal("discovery", "run", "--groups")).code == "discovery.not-enabled"
