"""Messages of clients: duplicated, out of order, cut off, too large, of another device, from the
future, and after a disk was put back. Nothing is lost, nothing counts twice, the newest stays."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from device_caller import Caller, code, message
from one_site import Moment, Site, log
from tandem.agent import Client, Machine
from tandem.protocols import ccm
from tandem.site import clients

MEMORY, BIOS = "SMS_G_System_X86_PC_MEMORY", "SMS_G_System_PC_BIOS"
ONE, TWO = "a" * 32, "b" * 32


@pytest.fixture
async def caller(site: Site, web: httpx.AsyncClient) -> Caller:
    made = Caller(site, web)
    await made.exchange()
    await made.register()
    return made


class Reports:
    """Inventory of one device, report by report."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.sent = 0

    def made(
        self,
        series: str,
        number: int,
        mib: int,
        whole: bool = False,
        changes: dict[str, Any] | None = None,
    ) -> ccm.Message:
        rows: dict[str, list[dict[str, str | int]]] = {MEMORY: [{"TotalPhysicalMemory": mib}]}
        if whole:
            rows[BIOS] = [{"Manufacturer": f"of {mib}"}]
        report = ccm.Inventory(rows, series, number, whole)
        self.sent += 1
        data = {**msgspec.to_builtins(report), **(changes or {})}
        return ccm.Message(f"i{self.sent}", ccm.INVENTORY_TOPIC, 1, self.caller.site.now(), data)

    async def send(self, *messages: ccm.Message) -> ccm.IncomingReply:
        self.sequence = getattr(self, "sequence", 0) + 1
        request = ccm.IncomingRequest(list(messages), self.sequence)
        answer = await self.caller.send("POST", "/ccm_incoming", request)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=ccm.IncomingReply)

    async def memory(self) -> int | None:
        return (await known(self.caller.site, MEMORY) or [{}])[0].get("TotalPhysicalMemory")


@pytest.fixture
def reports(caller: Caller) -> Reports:
    return Reports(caller)


async def known(site: Site, of: str) -> list[dict[str, Any]]:
    async with site.db.transaction() as tx:
        cursor = await tx.execute(
            "SELECT properties FROM collections_inventory WHERE class = %s ORDER BY instance",
            (of.lower(),),
        )
        return [row["properties"] for row in await cursor.fetchall()]


async def test_reports_in_their_order_count_each(reports: Reports) -> None:
    for number, mib in ((1, 100), (2, 200), (3, 300)):
        reply = await reports.send(reports.made(ONE, number, mib, whole=number == 1))
        assert (await reports.memory(), reply.resync) == (mib, False)


async def test_an_older_report_never_wins(reports: Reports, moment: Moment) -> None:
    """Also when the newer one changed nothing that the site knew."""
    whole, old, new = (
        reports.made(ONE, 1, 300, whole=True),
        reports.made(ONE, 2, 200),
        reports.made(ONE, 3, 300),
    )
    await reports.send(whole)
    moment.passes(minutes=1)
    # The newest comes first: it is not used before its turn, and the whole is asked for.
    assert (await reports.send(new)).resync
    assert await reports.memory() == 300
    await reports.send(old)
    assert (await reports.send(reports.made(ONE, 4, 300, whole=True))).resync is False
    # An old one that was under way for long.
    late = reports.made(ONE, 2, 200)
    assert (await reports.send(late)).resync
    assert await reports.memory() == 300


async def test_a_report_twice_counts_once(reports: Reports) -> None:
    first, second = reports.made(ONE, 1, 100, whole=True), reports.made(ONE, 2, 200)
    await reports.send(first, second)
    reply = await reports.send(first, second)
    assert (reply.accepted, reply.resync) == (["i1", "i2"], False)
    assert await reports.memory() == 200


async def test_a_report_that_is_missing_is_asked_for_until_it_comes(
    reports: Reports, caller: Caller, site: Site
) -> None:
    await reports.send(reports.made(ONE, 1, 100, whole=True))
    assert (await reports.send(reports.made(ONE, 3, 300))).resync
    # Every answer says so: one of them arrives.
    assert (await reports.send(message(site))).resync
    assert (await reports.send(reports.made(TWO, 1, 400, whole=True))).resync is False
    assert await reports.memory() == 400


async def test_a_series_that_was_left_counts_for_nothing(reports: Reports) -> None:
    """A disk that was put back goes on with it; the site wants a new beginning."""
    await reports.send(reports.made(ONE, 1, 100, whole=True))
    await reports.send(reports.made(TWO, 1, 200, whole=True))
    for number in (2, 3):
        reply = await reports.send(reports.made(ONE, number, 900, whole=number == 3))
        assert (await reports.memory(), reply.resync) == (200, True)


async def test_a_whole_report_ends_what_it_does_not_name(reports: Reports, site: Site) -> None:
    await reports.send(reports.made(ONE, 1, 100, whole=True))
    assert await known(site, BIOS) == [{"Manufacturer": "of 100"}]
    last = reports.made(
        ONE, 2, 100, whole=True, changes={"classes": {MEMORY: [{"TotalPhysicalMemory": 1}]}}
    )
    await reports.send(last)
    assert await known(site, BIOS) == []
    assert await reports.memory() == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"classes": []},
        {"classes": {MEMORY: [{"TotalPhysicalMemory": {}}]}},
        {"series": "x" * 40},
        {"number": -1},
        {"whole": "yes"},
    ],
)
async def test_a_report_that_cannot_be_read_is_asked_for_anew(
    reports: Reports, odd: dict[str, Any]
) -> None:
    await reports.send(reports.made(ONE, 1, 100, whole=True))
    assert (await reports.send(reports.made(ONE, 2, 200, changes=odd))).resync
    assert await reports.memory() == 100


async def test_a_client_without_series_is_believed_by_its_clock(
    reports: Reports, moment: Moment
) -> None:
    def plain(mib: int, minutes: int) -> ccm.Message:
        made = reports.made("", 0, mib)
        return msgspec.structs.replace(made, at=moment() + timedelta(minutes=minutes))

    moment.passes(minutes=10)
    await reports.send(plain(200, 0))
    await reports.send(plain(100, -5))
    assert await reports.memory() == 200


# ------------------------------------------------------------------ state and status


def state(message_id: str, flags: int, at: Any) -> ccm.Message:
    data = msgspec.to_builtins(ccm.ComanagementState(flags, True, True, flags))
    return ccm.Message(message_id, ccm.COMANAGEMENT_TOPIC, 100, at, data)


async def flags(site: Site, caller: Caller) -> int:
    async with site.db.transaction() as tx:
        found = (await clients.find(tx, caller.client_id)).state
    return found.flags if found else -1


async def test_a_state_from_the_future_does_not_outrank_the_one_after_it(
    site: Site, caller: Caller, moment: Moment
) -> None:
    """In one batch, as a device sends them whose clock was put right meanwhile."""
    now = moment()
    await caller.report(state("before", 1, now - timedelta(minutes=20)))
    await caller.report(
        state("ahead", 2, now + timedelta(days=4000)), state("right", 3, now - timedelta(seconds=5))
    )
    assert await flags(site, caller) == 3
    async with site.db.transaction() as tx:
        found = await clients.find(tx, caller.client_id)
        entries = await clients.timeline(tx, found.tenant_id, found.device_id)
    assert max(entry.at for entry in entries) <= now
    told = [e.data["device_time"] for e in entries if "device_time" in e.data]
    assert told == [(now + timedelta(days=4000)).isoformat()]


async def test_a_set_up_from_the_future_is_not_the_newest_for_ever(
    site: Site, caller: Caller, moment: Moment
) -> None:
    ahead = ccm.Message("s1", ccm.SETUP_TOPIC, 322, moment() + timedelta(days=900), {})
    await caller.report(ahead)
    moment.passes(minutes=1)
    await caller.report(ccm.Message("s2", ccm.SETUP_TOPIC, 400, moment(), {}))
    async with site.db.transaction() as tx:
        (newest,) = await clients.setup_states(tx)
    assert newest.state == 400


async def test_a_time_before_all_others_is_kept_and_can_be_read(site: Site, caller: Caller) -> None:
    """PostgreSQL takes a year before Christ, and nothing here could read it any more."""
    data = msgspec.to_builtins(ccm.ComanagementState(7, True, True, 7))
    at = "0001-01-01T00:00:00+23:59"
    sent = {"messages": [
        {"id": "m1", "topic": 810, "state": 100, "at": at, "data": data},
        {"id": "m2", "topic": ccm.SETUP_TOPIC, "state": 400, "at": at, "data": {}},
    ]}  # fmt: skip
    assert (await caller.send("POST", "/ccm_incoming", sent)).status_code == 200
    assert await flags(site, caller) == 7
    async with site.db.transaction() as tx:
        assert len(await clients.list_clients(tx)) == 1
        assert len(await clients.setup_states(tx)) == 1


async def test_what_was_cut_off_or_changed_on_its_way_is_refused_whole(
    site: Site, caller: Caller
) -> None:
    body = msgspec.json.encode(ccm.IncomingRequest([message(site), message(site, "m2")]))
    for changed in (body[:-1], body[: len(body) // 2], b"", body.replace(b"m2", b"m3")):
        headers = caller.sign("POST", "/ccm_incoming", body)
        answer = await caller.web.post(
            f"{caller.base}/ccm_incoming", content=changed, headers=headers
        )
        assert code(answer) == "401 client.bad-signature"
    # Signed as it is, it is still nothing that can be taken; none of it is.
    for half in (body[:-1], b"[]", b'{"messages":[{"id":"m9"}]}', b"\xff"):
        headers = caller.sign("POST", "/ccm_incoming", half)
        answer = await caller.web.post(f"{caller.base}/ccm_incoming", content=half, headers=headers)
        assert code(answer) == "400 request.invalid"
    async with site.db.transaction() as tx:
        found = await clients.find(tx, caller.client_id)
        entries = await clients.timeline(tx, found.tenant_id, found.device_id)
    assert [e.text for e in entries] == ["Registered with the site"]


@pytest.mark.parametrize(
    "odd", [{"sequence": -1}, {"sequence": 2**60}, {"hardware_id": "x"}, {"hardware_id": "\x00"}]
)
async def test_a_batch_that_says_odd_things_of_itself_is_refused(
    caller: Caller, odd: dict[str, Any]
) -> None:
    answer = await caller.send("POST", "/ccm_incoming", {"messages": [], **odd})
    assert code(answer) == "400 request.invalid"


# ------------------------------------------------------------------ the agent's side


@pytest.fixture
def box(machine: Machine, tmp_path: Path) -> Machine:
    """A machine with some memory in it."""
    made = replace(machine, root=tmp_path / "root")
    set_memory(made, 1000)
    return made


def set_memory(machine: Machine, kib: int) -> None:
    assert machine.root
    (machine.root / "proc").mkdir(parents=True, exist_ok=True)
    (machine.root / "proc/meminfo").write_text(f"MemTotal:       {kib} kB\n")


async def step(client: Client, moment: Moment) -> None:
    """A day of the device's."""
    machine = client._machine
    moment.passes(seconds=client.settings.hardware_inventory_minutes * machine.minute_seconds + 1)
    await client.step()


async def test_the_agent_sends_what_changed_and_the_whole_when_asked(
    site: Site, installed: Machine, box: Machine, moment: Moment
) -> None:
    client = Client(box)
    await client.step()
    assert await known(site, MEMORY) == [{"TotalPhysicalMemory": 1000}]
    set_memory(box, 2000)
    await step(client, moment)
    assert await known(site, MEMORY) == [{"TotalPhysicalMemory": 2000}]
    # The site's database was put back: it lost a report.
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE clients_client SET inventory_number = 1")
        await tx.execute("DELETE FROM collections_inventory")
    set_memory(box, 3000)
    await step(client, moment)
    await client.step()
    assert "The site wants the whole inventory." in log(box, "InventoryAgent")
    assert await known(site, MEMORY) == [{"TotalPhysicalMemory": 3000}]
    assert await known(site, "SMS_G_System_COMPUTER_SYSTEM") is not None


async def test_an_agent_whose_disk_was_put_back_brings_the_site_up_to_date(
    site: Site, installed: Machine, box: Machine, moment: Moment
) -> None:
    client = Client(box)
    await client.step()
    ccm_folder = box.state / "CCM"
    kept = {name: (ccm_folder / name).read_bytes() for name in ("inventory", "sequence")}
    for kib in (2000, 3000):
        set_memory(box, kib)
        await step(client, moment)
    for name, data in kept.items():
        (ccm_folder / name).write_bytes(data)
    set_memory(box, 1500)
    back = Client(box)
    await step(back, moment)
    await back.step()
    assert await known(site, MEMORY) == [{"TotalPhysicalMemory": 1500}]
    # It goes on above the numbers that it had used, so this is told once.
    await step(back, moment)
    async with site.db.transaction() as tx:
        (row,) = await (await tx.execute("SELECT kind, times FROM clients_conflict")).fetchall()
    assert (row["kind"], row["times"]) == ("sequence", 1)


async def test_a_message_that_is_too_large_is_dropped_and_told(
    site: Site, installed: Machine, moment: Moment
) -> None:
    client = Client(installed)
    await client.step()
    client._report(1300, 7, {"text": "x" * 600_000})
    client._report(1300, 8, {"text": "small"})
    client.wake()
    await client.step()
    client.wake()
    await client.step()
    async with site.db.transaction() as tx:
        found = await clients.find(tx, client.client_id)
        entries = await clients.timeline(tx, found.tenant_id, found.device_id)
    assert [e.state for e in entries if e.topic == 1300] == [8]
    (told,) = [e for e in entries if e.topic == ccm.FRAMEWORK_TOPIC]
    assert told.data["code"] == "message.dropped"
    assert "topic 1300" in told.data["message"]


async def test_history_goes_after_its_time_but_for_the_last_word_of_each_kind(
    site: Site, caller: Caller, moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.service, "_FORGET_AT_ONCE", 2)

    async def says(topic: int, state: int, day: int) -> None:
        said = ccm.Message(f"t{topic}-{state}-{day}", topic, state, site.now(), {"day": day})
        answer = await caller.send("POST", "/ccm_incoming", ccm.IncomingRequest([said]))
        assert answer.status_code == 200

    for day in range(4):
        await says(ccm.HEARTBEAT_TOPIC, 1, day)
        if day < 2:
            await says(ccm.SETUP_TOPIC, 301, day)
        await says(ccm.SETUP_TOPIC, 400, day)
        moment.passes(hours=1)
    gone = await clients.forget_history(site.db, moment() - timedelta(minutes=30))
    async with site.db.transaction() as tx:
        known = await clients.find(tx, caller.client_id)
        left = await clients.timeline(tx, known.tenant_id, known.device_id)
    reported = [
        (item.topic, item.state, item.data["day"])
        for item in left
        if item.topic in (ccm.HEARTBEAT_TOPIC, ccm.SETUP_TOPIC)
    ]
    assert gone == 7
    assert reported == [
        (ccm.SETUP_TOPIC, 301, 1),
        (ccm.HEARTBEAT_TOPIC, 1, 3),
        (ccm.SETUP_TOPIC, 400, 3),
    ]
    assert await clients.forget_history(site.db, moment() - timedelta(minutes=30)) == 0
