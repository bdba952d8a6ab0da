"""`tandem bulk-registration-token` and what `tandem client` says of clients, against the site's API."""

from pathlib import Path

import pytest

import site_api
from site_api import Api, add_device
from tandem import audit
from tandem.site.clients import store


async def test_a_token_by_the_fields_verbs(api: Api, tmp_path: Path) -> None:
    noun = "bulk-registration-token"
    async with site_api.commands(api, tmp_path) as commands:
        made = await commands.run(noun, "new", "--lifetime", "60", "--description", "Kiosks")
        assert made["token"].count(".") == 2
        (listed,) = await commands.run(noun, "list")
        assert (listed["id"], listed["description"], listed["blocked"]) == (
            made["id"],
            "Kiosks",
            False,
        )
        assert "token" not in listed
        assert (await commands.run(noun, "block", made["id"]))["blocked"] is True
        assert (await commands.run(noun, "unblock", made["id"]))["blocked"] is False
        assert (await commands.run(noun, "delete", made["id"]))["deleted"] is True
        assert await commands.run(noun, "list") == []


async def test_who_may_let_devices_in(api: Api) -> None:
    """An operations administrator blocks; only a full one issues, unblocks and deletes."""
    tokens = "/api/v1/registration-tokens"
    made = (await api.web.post(tokens, json={})).json()
    for name, role in (("olga", "Operations Administrator"), ("ana", "Read-only Analyst")):
        account = {"name": name, "role": role, "password": "Correct-Horse-3"}
        assert (await api.web.post("/api/v1/administrators", json=account)).is_success
    await api.sign_in("olga", "Correct-Horse-3")
    path = f"{tokens}/{made['id']}"
    assert (await api.post(f"{path}/block", None))["blocked"] is True
    for method, where in (("POST", tokens), ("POST", f"{path}/unblock"), ("DELETE", path)):
        assert (await api.refusal(method, where, {}))[0] == 403
    await api.sign_in("ana", "Correct-Horse-3")
    assert (await api.refusal("POST", f"{path}/block"))[0] == 403


async def test_conflicts_are_listed_and_decided(api: Api, tmp_path: Path) -> None:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-007")
        (client,) = await store.clients(tx, store.Wanted(), None, 0)
        await store.add_conflict(tx, client.id, "sequence", "", api.clock[0])
    async with site_api.commands(api, tmp_path) as commands:
        listed = await commands.run("client", "list")
        assert (listed["total"], listed["activity"]["active"]) == (1, 1)
        assert (await commands.run("client", "list", "--inactive"))["clients"] == []
        (found,) = await commands.run("client", "conflicts")
        assert found["name"] == "LAB-007"
        with pytest.raises(Exception, match="cannot be given an identity"):
            await commands.run("client", "new-identity", str(found["id"]))
        await commands.run("client", "dismiss", str(found["id"]))
        assert await commands.run("client", "conflicts") == []
        assert len(await commands.run("client", "conflicts", "--all")) == 1


async def audited(api: Api, action: str) -> list[tuple[str, str]]:
    async with api.db.transaction() as tx:
        found = await audit.entries(tx, limit=100)
    return [(one.actor, one.target) for one in found if one.action == action]


async def test_the_record_of_a_device_is_deleted(api: Api, tmp_path: Path) -> None:
    """By its id or its name; one that is blocked stays, and two of one name are told apart."""
    async with api.db.transaction() as tx:
        for name in ("LAB-001", "LAB-002", "LAB-003"):
            await add_device(tx, name)
        await tx.execute("UPDATE clients_client SET name = 'LAB-002' WHERE device_id = 'd-LAB-003'")
    direct = {"name": "Desk", "rules": [{"kind": "direct", "device": "LAB-001"}]}
    made = (await api.web.post("/api/v1/collections", json=direct)).json()
    async with site_api.commands(api, tmp_path) as commands:
        await api.post("/api/v1/clients/GUID:LAB-001/block", None)
        with pytest.raises(Exception, match="Unblock it first"):
            await commands.run("client", "delete", "lab-001", "--yes")
        await api.post("/api/v1/clients/GUID:LAB-001/unblock", None)
        done = await commands.run("client", "delete", "lab-001", "--yes")
        assert (done["id"], done["name"], done["deleted"]) == ("GUID:LAB-001", "LAB-001", True)
        with pytest.raises(Exception, match="2 are called 'LAB-002'"):
            await commands.run("client", "delete", "LAB-002", "--yes")
        await commands.run("client", "delete", "GUID:LAB-003", "--yes")
        assert [one["id"] for one in (await commands.run("client", "list"))["clients"]] == [
            "GUID:LAB-002"
        ]
        with pytest.raises(Exception, match="no client 'LAB-001'"):
            await commands.run("client", "delete", "LAB-001", "--yes")
    assert (await api.get(f"/api/v1/collections/{made['id']}/rules"))["items"] == []
    assert [d["name"] for d in (await api.get("/api/v1/devices"))["devices"]] == ["LAB-002"]
    assert sorted(await audited(api, "resource.delete")) == [
        ("siteadmin", "GUID:LAB-001"),
        ("siteadmin", "GUID:LAB-003"),
    ]


async def test_a_record_without_a_resource_is_deleted_too(api: Api) -> None:
    """Nothing else shows such a client, so nothing else could take it away."""
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
        await tx.execute("DELETE FROM collections_resource")
    url = "/api/v1/clients/GUID:LAB-001"
    assert (await api.web.delete(url)).status_code == 204
    assert (await api.refusal("DELETE", url))[1]["code"] == "client.not-found"
    assert await audited(api, "client.delete") == [("siteadmin", "GUID:LAB-001")]


async def test_who_only_builds_or_reads_deletes_no_device(api: Api) -> None:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    url = "/api/v1/clients/GUID:LAB-001"
    for name, role in (("ira", "Infrastructure Administrator"), ("ana", "Read-only Analyst")):
        account = {"name": name, "role": role, "password": "Correct-Horse-3"}
        assert (await api.web.post("/api/v1/administrators", json=account)).is_success
    for name in ("ira", "ana"):
        await api.sign_in(name, "Correct-Horse-3")
        assert (await api.refusal("DELETE", url))[0] == 403
    await api.sign_in()
    assert (await api.get(url))["client"]["name"] == "LAB-001"
