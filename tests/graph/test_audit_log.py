"""What the audit log tells of changes made through Graph, and its proof from the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from graph_caller import USER, Graph, group_body, ref
from tandem import audit
from tenant_world import ADMIN, PASSWORD, World

AUDITS = "auditLogs/directoryAudits"


async def newest(graph: Graph) -> dict[str, Any]:
    found: dict[str, Any] = (await graph.get(f"{AUDITS}?$top=1"))["value"][0]
    return found


def properties(item: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    (target,) = item["targetResources"]
    changed = target["modifiedProperties"]
    return {prop["displayName"]: (prop["oldValue"], prop["newValue"]) for prop in changed}


async def test_a_change_is_told_with_each_property_before_and_after(admin: Graph) -> None:
    made = await admin.post("users", USER)
    item = await newest(admin)
    assert (item["activityDisplayName"], item["category"]) == ("Add user", "UserManagement")
    assert item["initiatedBy"]["user"]["userPrincipalName"] == ADMIN
    assert item["targetResources"][0]["id"] == made["id"]
    assert properties(item)["department"] == (None, '"Sales"')
    await admin.call("PATCH", f"users/{made['id']}", {"department": "IT", "accountEnabled": False})
    item = await newest(admin)
    assert item["activityDisplayName"] == "Update user"
    assert properties(item)["department"] == ('"Sales"', '"IT"')
    assert properties(item)["accountEnabled"] == ("true", "false")
    assert "displayName" not in properties(item)
    await admin.call("DELETE", f"users/{made['id']}")
    item = await newest(admin)
    assert item["activityDisplayName"] == "Delete user"
    assert item["targetResources"][0]["userPrincipalName"] == "alex@contoso.com"


async def test_no_secret_is_in_the_log(admin: Graph, world: World) -> None:
    made = await admin.post("users", USER)
    change = {"passwordProfile": {"password": "Another-Horse-2"}}
    await admin.call("PATCH", f"users/{made['id']}", change)
    item = await newest(admin)
    assert {"key": "properties", "value": '["passwordProfile"]'} in item["additionalDetails"]
    app = await admin.post("applications", {"displayName": "Server"})
    secret = await admin.post(f"applications/{app['id']}/addPassword", {}, status=200)
    async with world.database.transaction() as tx:
        entries = await audit.stored_entries(tx)
    written = audit.as_json([item.entry.details for item in entries])
    for text in (PASSWORD, "Another-Horse-2", secret["secretText"]):
        assert text not in written


async def test_the_log_is_filtered_by_date_activity_actor_and_target(admin: Graph) -> None:
    alex = await admin.post("users", USER)
    admin.world.wait(minutes=5)
    group = await admin.post("groups", group_body("Pilot"))
    await admin.post(f"groups/{group['id']}/members/$ref", ref(alex["id"]), status=204)

    async def activities(condition: str) -> list[str]:
        found = await admin.get(f"{AUDITS}?$filter={condition}")
        return [item["activityDisplayName"] for item in found["value"]]

    added = ["Add member to group", "Add group"]
    assert await activities("activityDateTime ge 2026-11-24T09:04:00Z") == added
    assert await activities("activityDisplayName eq 'Add user'") == ["Add user"]
    assert await activities(f"targetResources/any(t:t/id eq '{group['id']}')") == added
    by_admin = f"initiatedBy/user/userPrincipalName eq '{ADMIN}' and category eq 'UserManagement'"
    assert await activities(by_admin) == ["Add user"]
    assert await activities("initiatedBy/user/userPrincipalName eq 'eve@contoso.com'") == []
    page = await admin.get(f"{AUDITS}?$top=2")
    assert [item["activityDisplayName"] for item in page["value"]] == added
    page = await admin.get(page["@odata.nextLink"])
    assert [item["activityDisplayName"] for item in page["value"]] == ["Add user"]
    one = await admin.get(f"{AUDITS}/{page['value'][0]['id']}")
    assert one["activityDisplayName"] == "Add user"


async def test_the_log_is_for_those_who_may_read_it(world: World) -> None:
    await world.user("alex")
    alex = Graph(world, await world.bearer("alex@contoso.com"))
    for path in (AUDITS, "tandem/auditEntries", "tandem/auditHeads", "tandem/auditKey"):
        await alex.get(path, status=403)
    await alex.call("DELETE", f"{AUDITS}/1", status=405)


def audit_commands(run: Callable[..., Any], folder: Path) -> None:
    """Run by `test_commands`, as an administrator who exports and verifies."""
    first = folder / "first"
    exported = run(f"audit export {first}")
    assert exported["whole"]
    assert exported["entries"] > 5
    run("group create Later")
    shown = run("audit list --limit 1")
    assert shown[0]["activityDisplayName"] == "Add group"
    second = folder / "second"
    assert run(f"audit export {second}")["entries"] == exported["entries"] + 1
    key = folder / "audit.pem"
    run(f"audit key --output {key}")
    anchored = f"--public-key {key} --anchor {first / 'head.json'}"
    assert run(f"audit verify {second} {anchored}")["whole"]
    lines = (second / "entries.jsonl").read_bytes().splitlines(keepends=True)
    changed = lines[0].replace(b"done", b"none")
    assert changed != lines[0]
    (second / "entries.jsonl").write_bytes(b"".join([changed, *lines[1:]]))
    found = run(f"audit verify {second}", code=1)
    assert found["problems"][0]["text"] == "Entry 1 was changed."
