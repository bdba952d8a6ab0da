"""The ledger from the device's disk to the site's verdict, and what goes wrong on the way."""

import contextlib
import shutil
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.responses import Response

from one_site import Moment, Site, enrolled, log
from tandem.agent import Client, Machine
from tandem.agent.folder import Folder
from tandem.infra.errors import Invalid
from tandem.protocols import ccm
from tandem.site import clients, ledgers
from tandem.workloads import Authority, Finding, Flaw, Workload, capabilities

EP = Workload.ENDPOINT_PROTECTION
SCAN = ccm.Configuration("c1", EP.value, "Defender/Scan", "daily")
CLOUD = ccm.Configuration("c2", EP.value, "Defender/Cloud", "on")


def policy(*moved: Workload, configurations: Any = (SCAN, CLOUD)) -> ccm.PolicyContent:
    one = ccm.ConfigurationPolicy("p", "Prod", 1, "production", True, False, capabilities(moved))
    return ccm.PolicyContent(configuration_policies=[one], configurations=list(configurations))


async def goes_on(client: Client, site: Site, content: ccm.PolicyContent | None = None) -> None:
    if content is not None:
        site.content = content
    site.now.passes(seconds=1)
    client.wake()
    await client.step()


async def ledger(site: Site) -> ledgers.Ledger:
    async with site.db.transaction() as tx:
        (one,) = await clients.list_clients(tx)
        return await ledgers.find(tx, one.id)


async def checked(site: Site) -> list[Finding]:
    found = await ledger(site)
    async with site.db.transaction() as tx:
        return await ledgers.check(tx, found)


def flaws(found: list[Finding]) -> list[Flaw]:
    return [one.flaw for one in found]


def numbers(client: Client) -> list[int]:
    text = (client.gate.ledger._path).read_text()
    return [ccm.read_entry(line).number for line in text.splitlines()]


@pytest.fixture
async def managed(site: Site, client: Client, installed: Machine) -> Client:
    """Co-managed, with two settings of the site in force."""
    enrolled(installed)
    await goes_on(client, site, policy())
    return client


async def test_the_site_knows_who_owned_and_wrote_what(site: Site, managed: Client) -> None:
    found = await ledger(site)
    assert found.holds
    assert found.account.number == numbers(managed)[-1]
    assert {s: w.authority for s, w in found.account.settings.items()} == {
        "Defender/Scan": "site",
        "Defender/Cloud": "site",
    }
    assert found.account.owners[EP.value].owner == "site"
    assert await checked(site) == []


async def test_a_switch_makes_before_it_breaks(site: Site, managed: Client) -> None:
    await goes_on(managed, site, policy(EP))
    gate = managed.gate
    assert gate.value("Defender/Cloud") == "on"
    assert gate.handovers[EP].leaving is Authority.SITE
    state = (await _client(site)).state
    assert state
    assert state.handovers == {EP.value: "under way"}
    # A session in which the service said nothing of this workload confirms nothing.
    gate.confirm(Authority.MDM, gate.epoch)
    assert gate.value("Defender/Cloud") == "on"
    assert gate.offer(Authority.MDM, EP, "Defender/Scan", "hourly")
    assert gate.value("Defender/Cloud") == "on"
    gate.confirm(Authority.MDM, gate.epoch - 1)
    assert gate.value("Defender/Cloud") == "on"
    gate.confirm(Authority.MDM, gate.epoch)
    assert (gate.value("Defender/Scan"), gate.value("Defender/Cloud")) == ("hourly", None)
    await goes_on(managed, site)
    found = await ledger(site)
    assert found.holds
    assert not found.account.owners[EP.value].handing
    assert {s: w.authority for s, w in found.account.settings.items()} == {"Defender/Scan": "mdm"}


async def test_a_hand_over_that_takes_too_long_alarms_once_and_removes_nothing(
    site: Site, managed: Client, installed: Machine
) -> None:
    await goes_on(managed, site, policy(EP))
    for _ in range(3):
        # A minute lasts as long as the test says.
        site.now.passes(minutes=1)
        await goes_on(managed, site)
    assert managed.gate.value("Defender/Cloud") == "on"
    async with site.db.transaction() as tx:
        client = await clients.find(tx, (await clients.list_clients(tx))[0].id)
        entries = await clients.timeline(tx, client.tenant_id, client.device_id)
    alarms = [e for e in entries if e.data.get("code") == "handover.overdue"]
    assert len(alarms) == 1
    assert "Endpoint Protection to the MDM service" in alarms[0].data["message"]
    assert client.state
    assert client.state.handovers == {EP.value: "overdue"}
    held = (await ledger(site)).account.owners[EP.value]
    assert held.overdue
    assert any("overdue" in line for line in log(installed, "EndpointProtectionAgent"))


async def test_what_the_policy_names_no_longer_goes(site: Site, managed: Client) -> None:
    await goes_on(managed, site, policy(configurations=[SCAN]))
    assert managed.gate.value("Defender/Cloud") is None
    assert set((await ledger(site)).account.settings) == {"Defender/Scan"}


async def test_an_answer_that_is_lost_makes_no_entry_twice(site: Site, managed: Client) -> None:
    lost: list[bytes] = []

    def relay(request: Any) -> Response | None:
        if request.url.path.endswith("ccm_incoming") and not lost:
            lost.append(b"")
            return Response(status_code=503)
        return None

    before = numbers(managed)
    file = managed.gate.ledger._path.with_name("ledger.sent")
    file.unlink()
    site.relay = relay
    await goes_on(managed, site)
    await goes_on(managed, site)
    found = await ledger(site)
    assert found.holds
    assert found.account.number == before[-1]


async def test_a_disk_that_was_put_back_is_a_fork(
    site: Site, managed: Client, installed: Machine, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    shutil.copytree(installed.state, image)
    await goes_on(managed, site, policy(EP))
    await goes_on(managed, site, policy())
    at = numbers(managed)[-1]
    shutil.rmtree(installed.state)
    shutil.copytree(image, installed.state)
    again = Client(installed)
    start = numbers(again)[-1]
    assert start < at
    await goes_on(again, site, policy(configurations=[SCAN]))
    found = await ledger(site)
    assert not found.holds
    (fork,) = [one for one in found.findings if one.flaw is Flaw.FORK]
    assert fork.number == start + 1
    # It goes on from there: the newest branch is followed, and nothing else is wrong.
    await goes_on(again, site, policy())
    found = await ledger(site)
    assert flaws(found.findings) == [Flaw.FORK]
    assert found.account.number == numbers(again)[-1]
    assert flaws(await checked(site)) == [Flaw.FORK]


async def test_a_ledger_that_was_deleted_with_the_state_begins_anew(
    site: Site, managed: Client, installed: Machine
) -> None:
    for name in ("ledger.jws", "ledger.sent", "gate.json"):
        (installed.state / "CCM" / name).unlink()
    again = Client(installed)
    await goes_on(again, site, policy())
    assert Flaw.BEGAN_ANEW in flaws((await ledger(site)).findings)


async def test_a_state_that_was_deleted_goes_on_in_the_ledger_and_says_so(
    site: Site, managed: Client, installed: Machine
) -> None:
    (installed.state / "CCM" / "gate.json").unlink()
    again = Client(installed)
    await goes_on(again, site, policy())
    found = await ledger(site)
    assert found.holds
    assert flaws(found.findings) == [Flaw.STATE_LOST]


async def test_entries_that_the_device_lost_are_a_gap(
    site: Site, managed: Client, installed: Machine
) -> None:
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM ledgers_ledger")
    path = installed.state / "CCM" / "ledger.jws"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[3:]))
    path.with_name("ledger.sent").unlink()
    await goes_on(managed, site)
    found = await ledger(site)
    (gap,) = found.findings
    assert (gap.flaw, gap.number) == (Flaw.GAP, 1)
    assert "Entries 1 to 3 are missing" in gap.text
    assert flaws(await checked(site)) == [Flaw.GAP]


def _changed(line: str) -> str:
    head, payload, signature = line.split(".")
    said = msgspec.json.decode(urlsafe_b64decode(payload + "=="))
    said["authority"] = "mdm"
    coded = urlsafe_b64encode(msgspec.json.encode(said)).decode().rstrip("=")
    return f"{head}.{coded}.{signature}"


@pytest.mark.parametrize("spoil", [_changed, lambda line: "rubbish", lambda line: "x" * 20_000])
async def test_a_line_that_was_changed_on_the_disk_is_named(
    site: Site, managed: Client, installed: Machine, spoil: Callable[[str], str]
) -> None:
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM ledgers_ledger")
    path = installed.state / "CCM" / "ledger.jws"
    lines = path.read_text().splitlines()
    lines[-2] = spoil(lines[-2])
    path.write_text("".join(f"{line}\n" for line in lines))
    path.with_name("ledger.sent").unlink()
    await goes_on(managed, site)
    found = await ledger(site)
    assert flaws(found.findings) == [Flaw.BAD_ENTRY, Flaw.GAP]
    assert found.findings[0].number == len(lines) - 1
    assert found.account.number == len(lines)


async def test_a_site_that_was_put_back_is_sent_everything_again(
    site: Site, managed: Client
) -> None:
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM ledgers_ledger")
    await goes_on(managed, site, policy(EP))
    found = await ledger(site)
    assert found.holds
    assert found.account.number == numbers(managed)[-1]


async def test_what_was_changed_in_the_sites_database_is_found(site: Site, managed: Client) -> None:
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE ledgers_entry SET text = text || 'A' WHERE number = 2")
    assert Flaw.ALTERED in flaws(await checked(site))


async def test_what_was_removed_from_the_sites_database_is_found(
    site: Site, managed: Client
) -> None:
    async with site.db.transaction() as tx:
        await tx.execute(
            "DELETE FROM ledgers_entry WHERE number = (SELECT max(number) FROM ledgers_entry)"
        )
    assert Flaw.ALTERED in flaws(await checked(site))


async def test_a_clock_that_is_turned_back_is_a_doubt(
    site: Site, managed: Client, moment: Moment, installed: Machine
) -> None:
    entries = numbers(managed)[-1]
    moment.passes(hours=-1)
    managed.gate.offer(Authority.SITE, EP, "Defender/Scan", "weekly")
    moment.passes(hours=1)
    await goes_on(managed, site)
    found = await ledger(site)
    assert found.holds
    assert [(one.flaw, one.number) for one in found.findings] == [(Flaw.CLOCK_BACK, entries + 1)]


async def test_a_device_that_breaks_the_rule_is_caught_by_its_own_word(
    site: Site, managed: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that was tampered with lets the MDM service write what the site owns."""
    monkeypatch.setattr("tandem.agent.gate.Gate._may_write", lambda *_: True)
    managed.gate.offer(Authority.MDM, EP, "Defender/Scan", "never")
    await goes_on(managed, site)
    found = await ledger(site)
    assert Flaw.NOT_OWNER in flaws(found.findings)
    assert not found.holds


async def test_another_devices_entries_are_not_taken(
    site: Site, managed: Client, installed: Machine
) -> None:
    from tandem import pki

    key = pki.generate_key("p256")
    before = await ledger(site)
    entry = ccm.LedgerEntry(before.account.number + 1, site.now(), before.account.digest, "begin")
    managed.gate.ledger.append([ccm.sign_entry(entry, key)])
    await goes_on(managed, site)
    assert flaws((await ledger(site)).findings) == [Flaw.BAD_ENTRY]


# What was found, acknowledged.


async def acknowledge(site: Site, reason: str, seen: int) -> ledgers.Ledger:
    async with site.db.transaction() as tx:
        (one,) = await clients.list_clients(tx)
        return await ledgers.acknowledge(
            tx, one.id, seen=seen, reason=reason, actor="siteadmin", now=site.now()
        )


async def test_a_fork_is_acknowledged_and_the_next_one_is_not(
    site: Site, managed: Client, installed: Machine, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    shutil.copytree(installed.state, image)
    await goes_on(managed, site, policy(EP))
    for number in (1, 2):
        shutil.rmtree(installed.state)
        shutil.copytree(image, installed.state)
        await goes_on(Client(installed), site, policy(configurations=[SCAN] * number))
        found = await ledger(site)
        assert (flaws(found.findings), found.holds) == ([Flaw.FORK] * number, False)
        with pytest.raises(ledgers.FoundMore):
            await acknowledge(site, "seen too late", number - 1)
        with pytest.raises(Invalid):
            await acknowledge(site, " ", number)
        found = await acknowledge(site, "restored from Tuesday's image", number)
        assert found.holds
        assert found.findings[-1].reason == "restored from Tuesday's image"
        with pytest.raises(ledgers.NothingToAcknowledge):
            await acknowledge(site, "again", number)
        # A check finds nothing new, and nothing that was acknowledged comes back with it.
        assert flaws(await checked(site)) == [Flaw.FORK] * number
        assert not any(one.breaks for one in await checked(site))


# Shortening it.


async def switched(client: Client, site: Site, times: int) -> None:
    for number in range(times):
        await goes_on(client, site, policy(*([EP] if number % 2 else [])))


async def test_a_long_ledger_is_cut_at_a_point_that_the_device_signs(
    site: Site, managed: Client, installed: Machine
) -> None:
    await switched(managed, site, 3)
    before = numbers(managed)
    assert not managed.gate.shorten(10_000_000)
    assert managed.gate.shorten(0)
    assert numbers(managed) == [before[-1] + 1]
    # Started anew, it goes on from there; the site follows it over the cut.
    again = Client(installed)
    await switched(again, site, 2)
    found = await ledger(site)
    assert (found.account.number, found.findings) == (numbers(again)[-1], [])
    assert await checked(site) == []
    assert [one.number for one in found.checkpoints] == [before[-1] + 1]
    # What is not sent yet stays: the site may still want it.
    site.relay = lambda r: Response(status_code=503) if "ccm_incoming" in r.url.path else None
    await switched(again, site, 1)
    assert not again.gate.shorten(0)


async def test_the_site_drops_old_entries_and_proves_the_rest(
    site: Site, managed: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.site.ledgers.service.KEEP_ENTRIES", 5)
    for _ in range(4):
        await switched(managed, site, 2)
        assert managed.gate.shorten(0)
    await switched(managed, site, 2)
    found = await ledger(site)
    assert found.kept_from == found.checkpoints[0].number > 1
    async with site.db.transaction() as tx:
        kept = [one.number for one in await ledgers.entries(tx, found, limit=1000)]
    assert min(kept) == found.kept_from
    assert found.account.number - found.kept_from >= 5
    assert await checked(site) == []
    # What the site remembers of the time before is held against the device's signature.
    async with site.db.transaction() as tx:
        await tx.execute(
            """UPDATE ledgers_ledger SET checkpoints = jsonb_set(checkpoints,
                   '{0,account,settings}', '{}')"""
        )
    assert Flaw.BAD_ENTRY in flaws(await checked(site))


async def test_a_disk_from_before_the_sites_oldest_entry_is_a_fork(
    site: Site, managed: Client, installed: Machine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tandem.site.ledgers.service.KEEP_ENTRIES", 2)
    image = tmp_path / "image"
    shutil.copytree(installed.state, image)
    for _ in range(3):
        await switched(managed, site, 2)
        assert managed.gate.shorten(0)
    await switched(managed, site, 2)
    assert (await ledger(site)).kept_from > numbers(managed)[0] - 20
    shutil.rmtree(installed.state)
    shutil.copytree(image, installed.state)
    await goes_on(Client(installed), site, policy(configurations=[SCAN]))
    assert Flaw.FORK in flaws((await ledger(site)).findings)


@pytest.mark.parametrize("killed_at", range(5))
async def test_killed_while_it_is_cut_the_ledger_is_whole(
    site: Site, managed: Client, installed: Machine, killed_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await switched(managed, site, 2)
    left, real = [killed_at], Folder.write

    class Killed(BaseException):
        pass

    def write(self: Folder, name: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(self, name, data)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(Folder, "write", write)
        managed.gate.shorten(0)
    again = Client(installed)
    await switched(again, site, 2)
    found = await ledger(site)
    assert (found.findings, found.account.number) == ([], numbers(again)[-1])
    assert await checked(site) == []
    # And is cut the next time.
    length = len(numbers(again))
    assert again.gate.shorten(0)
    assert len(numbers(again)) < length


async def _client(site: Site) -> clients.Client:
    async with site.db.transaction() as tx:
        return await clients.find(tx, (await clients.list_clients(tx))[0].id)
