"""`tandem bulk-registration-token` and what `tandem client` says of clients, against the site's API."""

from pathlib import Path

import pytest

import site_api
from site_api import Api, add_device
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
