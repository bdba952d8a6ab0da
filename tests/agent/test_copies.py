"""Machines that were set up anew are one record; disks that were copied are told of and put apart."""

import asyncio
import shutil
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from device_caller import Caller, code, message
from one_site import Broker, Moment, Site, log
from tandem import pki
from tandem.agent import Bootstrap, Client, Machine
from tandem.protocols import ccm
from tandem.site import clients
from tandem.site.clients import service

ONE, TWO = "2:" + "1" * 40, "2:" + "2" * 40
TOPIC = 1300


class Admin:
    def __init__(self, site: Site, web: httpx.AsyncClient) -> None:
        self._url = f"https://localhost:{site.port}/api/v1"
        self._web = web

    async def post(self, path: str, value: Any = None) -> httpx.Response:
        return await self._web.post(self._url + path, json=value or {})

    async def token(self) -> str:
        return str((await self.post("/registration-tokens")).json()["token"])

    async def conflicts(self, more: str = "") -> list[dict[str, Any]]:
        answer = await self._web.get(f"{self._url}/client-conflicts{more}")
        found: list[dict[str, Any]] = answer.json()["conflicts"]
        return found

    async def clients(self, more: str = "") -> list[str]:
        listed = (await self._web.get(f"{self._url}/clients{more}")).json()
        assert listed["total"] == len(listed["clients"])
        return [one["id"] for one in listed["clients"]]

    async def decide(self, id: int, decision: str) -> httpx.Response:
        return await self.post(f"/client-conflicts/{id}/decide", {"decision": decision})


@pytest.fixture
def admin(site: Site, web: httpx.AsyncClient) -> Admin:
    return Admin(site, web)


async def registered(site: Site, admin: Admin, web: httpx.AsyncClient, hardware: str) -> Caller:
    caller = Caller(site, web)
    await caller.exchange(await admin.token())
    assert (await caller.register(hardware_id=hardware)).status_code == 200
    return caller


# ------------------------------------------------------------------ set up anew


async def test_a_machine_that_was_set_up_anew_is_one_record(
    site: Site, admin: Admin, web: httpx.AsyncClient, moment: Moment
) -> None:
    before = await registered(site, admin, web, ONE)
    await before.report(message(site))
    moment.passes(minutes=30)
    after = await registered(site, admin, web, ONE)
    assert after.client_id != before.client_id
    assert await admin.clients() == [after.client_id]
    assert set(await admin.clients("?obsolete=true")) == {before.client_id, after.client_id}
    # Its history is there as long as the record is: a week.
    for days, there in ((6, True), (2, False)):
        moment.passes(days=days)
        async with site.db.transaction() as tx:
            await service.forget_obsolete(tx, moment())
        assert (before.client_id in await admin.clients("?obsolete=true")) is there
    assert await admin.clients() == [after.client_id]


async def test_an_obsolete_client_that_speaks_is_no_longer_obsolete_and_both_are_told_of(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    """So nobody can push a client aside by saying that he is its machine."""
    victim = await registered(site, admin, web, ONE)
    liar = await registered(site, admin, web, ONE)
    assert await admin.clients() == [liar.client_id]
    assert (await victim.send("GET", "/SMS_MP/.sms_pol")).status_code == 200
    assert set(await admin.clients()) == {victim.client_id, liar.client_id}
    (found,) = await admin.conflicts()
    assert (found["kind"], found["client_id"]) == ("hardware", victim.client_id)
    assert found["other"] == liar.client_id
    assert code(await admin.decide(found["id"], "new-identity")) == "409 client.no-new-identity"
    assert (await admin.decide(found["id"], "dismiss")).status_code == 200
    assert await admin.conflicts() == []
    assert (await admin.conflicts("?resolved=true"))[0]["decided_by"] == "siteadmin"


async def test_machines_that_do_not_say_what_they_are_are_not_taken_for_one(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    found = {(await registered(site, admin, web, "")).client_id for _ in range(2)}
    assert set(await admin.clients()) == found


# ------------------------------------------------------------------ copied


@pytest.fixture
async def original(site: Site, admin: Admin, machine: Machine) -> Machine:
    """A machine that is in no directory, with its client."""
    loner = replace(
        machine,
        hardware_id=ONE,
        directory=Broker(device=None, device_tokens=False, user_tokens=False),
    )
    line = site.command_line.replace('="', f'="/regtoken:{await admin.token()} ', 1)
    assert (await Bootstrap(loner, line).run(asyncio.Event())).code == 0
    await Client(loner).step()
    return loner


def copied(machine: Machine, hardware: str = TWO) -> Machine:
    folder = machine.state.with_name("copy")
    shutil.copytree(machine.state, folder)
    return replace(machine, state=folder, hardware_id=hardware, name="LAB-COPY")


async def say(client: Client, number: int) -> None:
    client._report(TOPIC, number, {})
    client.wake()
    await client.step()


async def said(site: Site) -> dict[str, list[int]]:
    """The numbers that were heard, by device."""
    async with site.db.transaction() as tx:
        cursor = await tx.execute(
            "SELECT device_id, state FROM clients_timeline WHERE topic = %s ORDER BY state",
            (TOPIC,),
        )
        found: dict[str, list[int]] = {}
        for row in await cursor.fetchall():
            found.setdefault(row["device_id"], []).append(row["state"])
    return found


@pytest.mark.parametrize("hardware", [TWO, ""], ids=["other-hardware", "hardware-unknown"])
async def test_two_machines_from_one_disk_are_told_of_and_put_apart(
    site: Site, admin: Admin, original: Machine, hardware: str
) -> None:
    if not hardware:
        original = replace(original, hardware_id="")
    copy = copied(original, hardware)
    first, second = Client(original), Client(copy)
    for number in range(1, 7, 2):
        await say(first, number)
        await say(second, number + 1)
    (found,) = await admin.conflicts()
    assert found["kind"] == ("clone" if hardware else "sequence")
    assert found["times"] >= 2
    assert (found["other"], found["name"]) == (hardware, "LAB-001")
    assert found["cure"] == "Give the copy an identity of its own."
    # Both were heard, and neither twice.
    assert list((await said(site)).values()) == [[1, 2, 3, 4, 5, 6]]

    assert (await admin.decide(found["id"], "new-identity")).json()["decision"] == "new-identity"
    await say(first, 7)
    await say(second, 8)
    while not (first.over or second.over):
        await say(first, 9)
        await say(second, 9)
    assert second.over or not hardware  # Which is the copy nobody can say who sees no hardware.
    leaves, machine = (second, copy) if second.over else (first, original)
    stays = first if leaves is second else second
    before = leaves.client_id
    again = Client(machine)
    again.wake()
    await again.step()
    assert "This machine has a new key of its own." in log(machine, "ClientIDManagerStartup")
    assert again.client_id not in ("", before)
    await say(again, 10)
    await say(stays, 11)
    assert stays.client_id == before
    assert set(await admin.clients()) == {before, again.client_id}
    assert await admin.conflicts() == []
    async with site.db.transaction() as tx:
        new = await clients.find(tx, again.client_id)
    heard = await said(site)
    assert heard[new.device_id] == [10]
    assert {7, 8, 11} <= set().union(*(heard[d] for d in heard if d != new.device_id))
    # And it stays so.
    await say(again, 12)
    await say(stays, 13)
    assert await admin.conflicts() == []


async def test_who_is_killed_while_it_becomes_another_becomes_it_at_the_next_start(
    site: Site, admin: Admin, original: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(original)
    await say(Client(original), 1)
    second = Client(copy)
    await say(second, 2)
    (found,) = await admin.conflicts()
    await admin.decide(found["id"], "new-identity")

    def killed(self: object) -> None:
        raise KeyboardInterrupt

    await say(second, 3)
    assert second.over
    with monkeypatch.context() as now:
        now.setattr("tandem.agent.gate.Gate.begin_anew", killed)
        with pytest.raises(KeyboardInterrupt):
            Client(copy)
    again = Client(copy)
    await again.step()
    assert len(await admin.clients()) == 2


async def test_a_key_alone_makes_no_second_client(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    """Only what an administrator decided lets one client's key vouch for another."""
    caller = await registered(site, admin, web, ONE)
    own = (await caller.register(hardware_id=ONE)).json()["token"]
    other = Caller(site, web)
    proof = ccm.key_proof(caller.key, pki.jwk_thumbprint(other.key), site.now(), "n" * 20)
    answer = await other.exchange(own, possession=proof)
    assert code(answer) == "401 client.bad-signature"
    assert "nobody asked for a new identity" in answer.json()["error"]["message"]


async def test_a_copy_that_joins_the_directory_again_takes_a_key_of_its_own(
    site: Site, admin: Admin, installed: Machine
) -> None:
    """Two machines with one place in the directory: the site cannot part them, and says who can."""
    original = replace(installed, hardware_id=ONE)
    first = Client(original)
    await first.step()
    copy = copied(original)
    second = Client(copy)
    await say(first, 1)
    await say(second, 2)
    (found,) = await admin.conflicts()
    refused = await admin.decide(found["id"], "new-identity")
    assert code(refused) == "409 client.no-new-identity"
    assert "leave the directory and join it again" in refused.json()["error"]["cure"]

    copy = replace(copy, directory=Broker(device="d1-copy"))
    (copy.state / "CCM" / "token-device").unlink()
    rejoined = Client(copy)
    await rejoined._forget_registration()
    await rejoined.step()
    assert rejoined.over
    again = Client(copy)
    await again.step()
    assert len(await admin.clients()) == 2
    await say(again, 3)
    await say(first, 4)
    assert sorted((await said(site)).items()) == [("d1", [1, 2, 4]), ("d1-copy", [3])]


async def test_a_conflict_that_is_not_there_is_not_decided(admin: Admin) -> None:
    assert code(await admin.decide(77, "dismiss")) == "404 client.no-such-conflict"
    assert code(await admin.post("/client-conflicts/x/decide", {"decision": "dismiss"})) == (
        "400 request.invalid"
    )


async def test_a_disk_that_was_moved_is_dismissed_and_that_is_that(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    caller = await registered(site, admin, web, ONE)

    async def speaks(number: int, hardware: str) -> None:
        request = ccm.IncomingRequest([message(site, f"m{number}")], number, hardware)
        assert (await caller.send("POST", "/ccm_incoming", request)).status_code == 200

    await speaks(1, ONE)
    await speaks(2, TWO)
    (found,) = await admin.conflicts()
    assert found["text"].startswith("The client speaks from other hardware")
    await admin.decide(found["id"], "dismiss")
    await speaks(3, TWO)
    assert await admin.conflicts() == []
    # The machine that it was on before is another one now.
    assert (await registered(site, admin, web, ONE)).client_id in await admin.clients()
    assert caller.client_id in await admin.clients()


async def test_what_is_decided_is_one_of_two(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    caller = await registered(site, admin, web, ONE)
    for number, hardware in ((1, ONE), (2, TWO)):
        request = ccm.IncomingRequest([message(site, f"m{number}")], number, hardware)
        await caller.send("POST", "/ccm_incoming", request)
    (found,) = await admin.conflicts()
    assert code(await admin.decide(found["id"], "merge")) == "400 request.invalid"
    assert (site.now() - timedelta(minutes=1)).isoformat() < found["last_at"]


async def test_a_client_that_was_not_heard_of_for_a_week_is_inactive(
    site: Site, admin: Admin, web: httpx.AsyncClient, moment: Moment
) -> None:
    still = await registered(site, admin, web, ONE)
    moment.passes(days=7, minutes=1)
    live = await registered(site, admin, web, TWO)
    assert await admin.clients("?active=true") == [live.client_id]
    assert await admin.clients("?active=false") == [still.client_id]
    url = f"https://localhost:{site.port}/api/v1/clients?limit=1"
    found = (await web.get(url)).json()
    assert (found["total"], len(found["clients"])) == (2, 1)
    assert (found["activity"]["active"], found["activity"]["inactive"]) == (1, 1)
    await still.exchange(await admin.token())
    await still.report(message(site))
    assert set(await admin.clients("?active=true")) == {still.client_id, live.client_id}


# ------------------------------------------------------------------ who means harm, or comes late


async def test_a_client_that_was_off_for_long_has_its_week_too(
    site: Site, admin: Admin, web: httpx.AsyncClient, moment: Moment
) -> None:
    """Whoever says that he is a machine that is switched off does not have it deleted."""
    victim = await registered(site, admin, web, ONE)
    moment.passes(days=8)
    await registered(site, admin, web, ONE)
    async with site.db.transaction() as tx:
        await service.forget_obsolete(tx, moment())
    assert victim.client_id in await admin.clients("?obsolete=true")
    await victim.exchange(await admin.token())
    assert (await victim.send("GET", "/SMS_MP/.sms_pol")).status_code == 200


async def test_a_blocked_client_is_not_hidden_by_one_that_says_it_is_its_machine(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    blocked = await registered(site, admin, web, ONE)
    await admin.post(f"/clients/{blocked.client_id}/block")
    await registered(site, admin, web, ONE)
    assert blocked.client_id in await admin.clients()


async def test_a_copy_is_put_apart_also_when_the_token_behind_it_is_gone(
    site: Site, admin: Admin, web: httpx.AsyncClient, moment: Moment
) -> None:
    first = Caller(site, web)
    await first.exchange(await admin.token())
    own = (await first.register(hardware_id=ONE)).json()["token"]
    for number, hardware in ((1, ONE), (2, TWO)):
        said = ccm.IncomingRequest([message(site, f"n{number}")], number, hardware)
        assert (await first.send("POST", "/ccm_incoming", said)).status_code == 200
    (found,) = await admin.conflicts()
    await admin.decide(found["id"], "new-identity")
    (token,) = (await web.get(f"{admin._url}/registration-tokens")).json()["tokens"]
    await web.delete(f"{admin._url}/registration-tokens/{token['id']}")
    moment.passes(days=8)
    other = Caller(site, web)
    proof = ccm.key_proof(first.key, pki.jwk_thumbprint(other.key), site.now(), "n" * 20)
    assert (await other.exchange(own, possession=proof)).status_code == 200
    assert (await other.register(hardware_id=TWO)).status_code == 200
    assert other.client_id != first.client_id
    assert await admin.conflicts() == []
    # What was decided is done once.
    third = Caller(site, web)
    proof = ccm.key_proof(first.key, pki.jwk_thumbprint(third.key), site.now(), "o" * 20)
    assert code(await third.exchange(own, possession=proof)) == "401 client.bad-signature"


async def test_one_client_does_not_bury_the_conflicts_of_others(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    caller = await registered(site, admin, web, ONE)
    for number in range(1, 31):
        hardware = "2:" + f"{number:040d}"
        said = ccm.IncomingRequest([message(site, f"n{number}")], number, hardware)
        answer = await caller.send("POST", "/ccm_incoming", said)
        assert answer.status_code == 200
    found = await admin.conflicts()
    assert len(found) <= 9
    assert sum(one["times"] for one in found) == 30


async def test_a_certificate_s_copy_is_not_promised_what_cannot_be(
    site: Site, admin: Admin, web: httpx.AsyncClient
) -> None:
    """Only a site token can be handed over; who shows a certificate needs another one."""
    caller = await registered(site, admin, web, ONE)
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE clients_client SET registered_by = 'certificate'")
    said = ccm.IncomingRequest([message(site)], 1, TWO)
    assert (await caller.send("POST", "/ccm_incoming", said)).status_code == 200
    (found,) = await admin.conflicts()
    assert "certificate" in found["cure"]
    assert code(await admin.decide(found["id"], "new-identity")) == "409 client.no-new-identity"
