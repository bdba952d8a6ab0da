"""A check-in from memory is the answer that computing would have given, or it is computed."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from checkin_world import PATH, Device, World, world_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandem.infra.database import Database, Tx
from tandem.protocols import ccm
from tandem.site import clients, collections, comanagement
from tandem.workloads import Position, Workload

Databases = Callable[[], AbstractAsyncContextManager[Database]]


async def test_who_has_its_policy_is_answered_without_computing(world: World) -> None:
    device = await world.device("PC-1")
    assert (await device.asks()).status_code == 200
    computed = world.computed
    for _ in range(3):
        answer = await device.asks()
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["cache-control"] == "private, no-cache"
    assert world.computed == computed


async def test_an_answer_from_memory_looks_as_one_that_is_computed(world: World) -> None:
    device = await world.device("PC-1")
    await device.asks(at=0)
    named = {**device.signed("GET", PATH), "X-Correlation-Id": "abcdefgh-1"}
    kept = await device.asks(0, named)
    computed = await device.asks(1, {**named, **device.signed("GET", PATH)})
    assert kept.headers == computed.headers
    assert kept.headers["x-correlation-id"] == "abcdefgh-1"


async def test_a_change_is_in_the_very_next_answer(world: World) -> None:
    """The change is committed, and nothing waits for the word of it to arrive."""
    device = await world.device("PC-1")
    for minutes in range(20, 80):
        at = minutes % 2
        await device.settled(at)
        await world.sets(minutes)
        assert (await device.asks(at)).status_code == 200


async def test_custom_client_settings_are_in_the_very_next_answer(world: World) -> None:
    """Whatever of them is changed: what they say, whom for, in which order, and that they are gone."""
    device = await world.device("PC-1")
    mine = await world.collects("Mine", "select * from SMS_R_System where Name like 'PC%'")

    async def news(change: Awaitable[None]) -> bool:
        await device.settled()
        await change
        return (await device.asks()).status_code == 200

    assert await news(world.settles("Often", 5, mine))
    assert await news(world.settles("Seldom", 300, mine))
    assert await news(world.resets("Often", "priority", 1))
    assert await news(world.resets("Often", "minutes", 7))
    assert await news(world.resets("Often", "withdraw", mine))
    assert await news(world.resets("Seldom", "delete"))
    # What says nothing to the device is no news.
    assert not await news(world.resets("Often", "minutes", 9))


async def test_a_change_of_one_device_leaves_the_others_in_memory(world: World) -> None:
    one, other = await world.device("PC-1"), await world.device("PC-2")
    old = await world.collects(
        "Old",
        "select * from SMS_R_System inner join SMS_G_System_OPERATING_SYSTEM on"
        " SMS_G_System_OPERATING_SYSTEM.ResourceID = SMS_R_System.ResourceId where BuildNumber = '1'",
    )
    await world.deploys("Banner", old)
    for device in (one, other):
        await device.settled()
    computed = world.computed
    await world.reports(one, "1")
    assert (await other.asks()).status_code == 304
    assert world.computed == computed
    assert (await one.asks()).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "select * from SMS_R_System where ClientVersion in (select SMS_R_System.ClientVersion from"
        " SMS_R_System inner join SMS_G_System_OPERATING_SYSTEM on"
        " SMS_G_System_OPERATING_SYSTEM.ResourceID = SMS_R_System.ResourceId"
        " where BuildNumber = '7')",
        "select * from SMS_R_System"
        " inner join SMS_R_System as o on o.ClientVersion = SMS_R_System.ClientVersion"
        " inner join SMS_G_System_OPERATING_SYSTEM as os on os.ResourceID = o.ResourceId"
        " where os.BuildNumber = '7'",
    ],
)
async def test_a_query_that_asks_one_device_about_another_makes_each_change_one_of_all(
    world: World, query: str
) -> None:
    one, other = await world.device("PC-1"), await world.device("PC-2")
    same = await world.collects("Same build as the first", query)
    await world.deploys("Banner", same)
    await other.settled()
    await world.reports(one, "7")
    assert (await other.asks()).status_code == 200


@pytest.mark.parametrize(
    ("query", "across"),
    [
        ("select * from SMS_R_System where Name like 'A%'", False),
        ("… where ResourceId in (select ResourceID from SMS_Client_ComanagementState)", False),
        ("… where ResourceID NOT  IN ( SELECT distinct a.ResourceID from X as a)", False),
        ("… where Name in (select Name from SMS_R_System)", True),
        ("… inner join X as x on x.ResourceID = SMS_R_System.ResourceId where x.A = 1", False),
        ("… join X on X.ResourceID=SMS_R_System.ResourceID and X.A = SMS_R_System.Name", False),
        ("… inner join X as x on x.Serial = SMS_R_System.Name", True),
        ("… join X on X.ResourceID = SMS_R_System.ResourceId JOIN Y ON Y.A = X.A", True),
        ("… join X on X.A = SMS_R_System.Name where X.B in (select B from Y)", True),
        ("… where ResourceId in (select ResourceID from X where Y in (select Y from Z))", True),
        ("… where Name = 'ResourceId in (select ResourceId' and Y in (select Y from Z)", True),
    ],
)
async def test_queries_that_look_at_other_devices(site_tx: Tx, query: str, across: bool) -> None:
    found = await site_tx.execute("SELECT collections_looks_across(%s) AS so", (query,))
    row = await found.fetchone()
    assert row == {"so": across}


async def test_a_blocked_client_is_refused_at_once(world: World) -> None:
    device = await world.device("PC-1")
    await device.settled()
    await world.blocks(device)
    answer = await device.asks()
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "client.blocked")
    await world.blocks(device, False)
    assert (await device.asks()).status_code == 304


async def test_a_token_ends_also_in_memory(world: World) -> None:
    device = await world.device("PC-1")
    await device.settled()
    world.now.passes(hours=8, minutes=2)
    answer = await device.asks()
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "client.token-expired")


async def test_a_policy_that_is_near_its_end_is_sealed_anew(world: World) -> None:
    device = await world.device("PC-1")
    await device.settled()
    for _ in range(7):
        world.now.passes(days=1)
        await device.registers()
        if (await device.asks()).status_code == 200:
            break
    else:
        raise AssertionError("the device never got a policy with another end")


async def test_a_request_is_answered_once(world: World) -> None:
    """Whichever way answered it first."""
    device = await world.device("PC-1")
    await device.settled()
    headers = device.signed("GET", PATH)
    assert (await device.asks(0, headers)).status_code == 304
    for have in (device.etag, "old"):
        again = await device.asks(0, {**headers, "If-None-Match": have})
        assert (again.status_code, again.json()["error"]["code"]) == (401, "client.replayed")
    headers = device.signed("GET", PATH, nonce="n" * 20)
    await device.asks(0, {**headers, "If-None-Match": "old"})
    again = await device.asks(0, headers)
    assert (again.status_code, again.json()["error"]["code"]) == (401, "client.replayed")


async def test_a_nonce_is_remembered_as_long_as_its_date_is_taken(world: World) -> None:
    device = await world.device("PC-1")
    await device.settled()
    early = ccm.SKEW - (ccm.SKEW / 300)
    headers = device.signed("GET", PATH, now=world.now() + early)
    assert (await device.asks(0, headers)).status_code == 304
    for _ in range(3):
        world.now.passes(minutes=3, seconds=18)
        await device.asks()
        assert (await device.asks(0, headers)).status_code == 401


@pytest.mark.parametrize(
    "changed",
    [
        {"CCM-Signature": "A" * 86},
        {"CCM-Nonce": "short"},
        {"CCM-Date": "yesterday"},
        {"CCM-Client": "GUID:OTHER"},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": "Basic abc"},
    ],
)
async def test_what_is_not_right_is_refused_as_ever(world: World, changed: dict[str, str]) -> None:
    device = await world.device("PC-1")
    await device.settled(0)
    answers = [await device.asks(at, {**device.signed("GET", PATH), **changed}) for at in range(2)]
    assert answers[0].status_code == 401
    assert answers[0].json() == answers[1].json()


async def test_another_device_s_answer_cannot_be_had(world: World) -> None:
    one, other = await world.device("PC-1"), await world.device("PC-2")
    await one.settled()
    stolen = {**other.signed("GET", PATH, client_id=one.client_id), "If-None-Match": one.etag}
    assert (await other.asks(0, stolen)).status_code == 401
    stolen["Authorization"] = f"Bearer {one.token}"
    assert (await other.asks(0, stolen)).status_code == 401


async def test_while_nothing_is_heard_all_is_computed(world: World) -> None:
    device = await world.device("PC-1")
    await device.settled()
    computed = world.computed
    await world.cuts_the_line()
    assert (await device.asks()).status_code == 304
    assert world.computed == computed + 1
    await world.listening()
    await device.settled()
    await world.sets(77)
    assert (await device.asks()).status_code == 200


async def test_what_changes_during_a_computation_is_not_kept_out(world: World) -> None:
    """The policy was computed before the change, and is answered after it."""
    device = await world.device("PC-1")
    await device.settled()
    await world.sets(31)
    computed = world.computed
    commit = asyncio.Event()
    policy = world.points[0].policy

    async def slow(*given: object) -> object:
        found = await policy(*given)  # type: ignore[arg-type]
        await commit.wait()
        return found

    world.points[0].policy = slow  # type: ignore[method-assign, assignment]
    asking = asyncio.create_task(device.asks())
    while world.computed == computed:
        await asyncio.sleep(0.001)
    await world.sets(32)
    commit.set()
    assert (await asking).status_code == 200
    world.points[0].policy = policy  # type: ignore[method-assign]
    assert (await device.asks()).status_code == 200


async def test_last_contacts_are_written_together(world: World) -> None:
    devices = [await world.device(f"PC-{n}") for n in range(3)]
    for device in devices:
        await device.settled()
    world.now.passes(minutes=7)
    for device in devices:
        await device.asks()
    await world.memories[0].save_seen()
    async with world.db.transaction() as tx:
        for device in devices:
            assert (await clients.find(tx, device.client_id)).last_seen_at == world.now()


@pytest.mark.parametrize("ago", [float("nan"), float("inf"), float("-inf"), -1e300])
async def test_when_a_gateway_says_it_saw_a_client_is_a_time_whatever_it_says(
    world: World, ago: float
) -> None:
    device = await world.device("PC-1")
    await device.settled()
    memory = world.memories[0]
    memory.saw_elsewhere({device.client_id: ago, "another": ago})
    await memory.save_seen()


async def test_all_that_a_policy_is_computed_from_tells_of_its_changes(world: World) -> None:
    """A table that decides what a device gets, and tells nobody, would be missed for hours."""
    device = await world.device("PC-1")
    await world.enables()
    inner = await world.collects("Inner", "select * from SMS_R_System where Name like 'PC-%'")
    async with world.db.transaction() as tx:
        named = [collections.WantedRule("include", collection=inner)]
        outer = await collections.create(
            tx, "CM1", "Outer", rules=named, actor="a", now=world.now()
        )
    for of in (*collections.HARDWARE, collections.COMANAGEMENT_STATE):
        joined = f"inner join {of.name} on {of.name}.ResourceID = SMS_R_System.ResourceId"
        await world.collects(of.name, f"select * from SMS_R_System {joined}")
        await world.deploys(of.name, of.name)
    await world.switches(Workload.DEVICE_CONFIGURATION, Position.PILOT, outer.id)
    await world.deploys("Banner", inner)
    async with world.db.transaction() as tx:
        before = await _locked(tx)
        await comanagement.policy_content(tx, clients.ClientId(device.client_id))
        read = await _locked(tx) - before
        found = await tx.execute(
            "SELECT DISTINCT tgrelid::regclass::text AS name FROM pg_trigger"
            " WHERE tgname LIKE 'clients_policy_%'"
        )
        telling = {row["name"] async for row in found}
    assert {"collections_rule", "collections_inventory", "comanagement_policy"} <= read
    assert read <= telling


async def _locked(tx: Tx) -> set[str]:
    """The tables that this transaction has read."""
    found = await tx.execute(
        "SELECT DISTINCT coalesce(i.inhparent, c.oid)::regclass::text AS name"
        " FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
        " WHERE l.pid = pg_backend_pid() AND c.relkind IN ('r', 'p')"
        " AND c.relnamespace = 'public'::regnamespace"
    )
    return {row["name"] async for row in found}


# ------------------------------------------------------------------ any course of events

_DEVICES = 3
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "asks", "asks", "asks", "asks an old one", "sets", "deploys", "withdraws", "reports",
                "renames", "blocks", "unblocks", "switches", "joins the pilot", "leaves the pilot",
                "new key", "time", "cut", "listens", "settles", "reorders", "unsettles",
            ]
        ),
        st.integers(0, _DEVICES - 1),
        st.integers(0, 1),
    ),
    min_size=5,
    max_size=40,
)  # fmt: skip


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=_STEPS)
def test_no_course_of_events_makes_memory_and_computing_differ(
    site_copies: Databases, tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    asyncio.run(_Course(tmp_path).run(site_copies, steps))


class _Course:
    """Two management points, three devices, one pilot collection by name and one by inventory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / secrets.token_hex(4)
        self.folder.mkdir()
        self.count = 0
        self.deployed: list[str] = []
        self.settled: list[str] = []
        self.blocked: set[int] = set()

    async def run(self, databases: Databases, steps: list[tuple[str, int, int]]) -> None:
        async with databases() as db, world_of(db, self.folder) as world:
            await self.begin(world)
            for what, which, at in steps:
                await self.step(world, what, self.devices[which], which, at)
            for which, device in enumerate(self.devices):
                for at in range(2):
                    await self.step(world, "asks", device, which, at)

    async def begin(self, world: World) -> None:
        self.devices = [await world.device(f"PC-{n}") for n in range(_DEVICES)]
        await world.enables()
        named = "select * from SMS_R_System where Name like 'Pilot%'"
        self.pilot = await world.collects("Pilot", named)
        self.built = await world.collects(
            "Built",
            "select * from SMS_R_System where ResourceId in (select ResourceID from"
            " SMS_G_System_OPERATING_SYSTEM where BuildNumber = '1')",
        )
        await world.switches(Workload.DEVICE_CONFIGURATION, Position.PILOT, self.pilot)
        await world.deploys("Build", self.built)

    async def step(self, world: World, what: str, device: Device, which: int, at: int) -> None:
        self.count += 1
        match what:
            case "asks" | "asks an old one":
                await self.asks(world, device, which, at, old=what != "asks")
            case "sets":
                await world.sets(10 + self.count)
            case "deploys":
                self.deployed.append(f"D{self.count}")
                await world.deploys(self.deployed[-1], self.pilot if at else "SMS00001")
            case "withdraws" if self.deployed:
                await world.withdraws(self.deployed.pop())
            case "settles":
                self.settled.append(f"S{self.count}")
                to = self.pilot if at else self.built
                await world.settles(self.settled[-1], 10 + self.count, to)
            case "reorders" if self.settled:
                await world.resets(self.settled[0], "priority", 1)
                await world.resets(self.settled[0], "minutes", 300 + self.count)
            case "unsettles" if self.settled:
                await world.resets(self.settled.pop(), "delete")
            case "reports":
                await world.reports(device, str(at))
            case "renames":
                await self.renames(world, device, f"Pilot-{which}" if at else f"PC-{which}")
            case "blocks" if which not in self.blocked:
                self.blocked.add(which)
                await world.blocks(device)
            case "unblocks" if which in self.blocked:
                self.blocked.discard(which)
                await world.blocks(device, False)
            case "switches":
                position = (Position.MDM, Position.SITE)[at]
                await world.switches(Workload.CLIENT_APPS, position)
            case "joins the pilot":
                await self.pilots(world, device, joins=True)
            case "leaves the pilot":
                await self.pilots(world, device, joins=False)
            case "new key" if which not in self.blocked:
                fresh = await world.device(device.name)
                device.key, device.token, device.client_id = fresh.key, fresh.token, fresh.client_id
            case "time":
                world.now.passes(minutes=9)
            case "cut":
                await world.cuts_the_line()
            case "listens":
                await world.listening()

    async def asks(self, world: World, device: Device, which: int, at: int, *, old: bool) -> None:
        if old:
            device.etag = '"00000000000000000000000000000000"'
        have = device.etag
        answer = await device.asks(at)
        if which in self.blocked:
            assert answer.status_code == 403
            return
        assert answer.headers["etag"] == await world.etag_now(device)
        assert answer.status_code == (304 if answer.headers["etag"] == have else 200)

    async def renames(self, world: World, device: Device, name: str) -> None:
        async with world.db.transaction() as tx:
            client = await clients.find(tx, device.client_id)
            found = collections.Resource(
                client.id, name, client.tenant_id, client.device_id, "Linux", "1", "1"
            )
            await collections.upsert_resource(tx, found, world.now())

    async def pilots(self, world: World, device: Device, *, joins: bool) -> None:
        async with world.db.transaction() as tx:
            resource = await collections.resource_of(tx, device.client_id)
            rules = await collections.rules(tx, collections.CollectionId(self.pilot))
            mine = [rule for rule in rules if rule.resource_id == resource.id]
            if joins and not mine:
                await collections.add_members(
                    tx, self.pilot, [str(resource.id)], actor="a", now=world.now()
                )
            if not joins and mine:
                await collections.remove_rule(
                    tx, self.pilot, mine[0].id, actor="a", now=world.now()
                )


async def test_each_answer_is_of_a_moment_between_question_and_answer(
    site_db: Database, tmp_path: Path
) -> None:
    """Questions and changes at once: no answer is older than its question."""
    async with world_of(site_db, tmp_path) as world:
        devices = [await world.device(f"PC-{n}") for n in range(4)]
        committed = [20]
        etags: dict[str, dict[int, str]] = {device.name: {} for device in devices}
        stop = asyncio.Event()

        async def changes() -> None:
            for minutes in range(21, 61):
                await world.sets(minutes)
                committed.append(minutes)
                await asyncio.sleep(0.004)
            stop.set()

        async def asks(device: Device, at: int) -> None:
            while not stop.is_set():
                before = committed[-1]
                answer = await device.asks(at)
                document = answer.text
                if answer.status_code == 200:
                    payload = ccm.open_policy(
                        document,
                        world.root,
                        world.now(),
                        client_id=device.client_id,
                        key=device.key,
                    )
                    minutes = int(payload.settings["policy_polling_minutes"])
                    etags[device.name][minutes] = device.etag
                else:
                    known = etags[device.name]
                    minutes = next(m for m, etag in known.items() if etag == device.etag)
                assert minutes >= before

        await world.sets(20)
        async with asyncio.TaskGroup() as group:
            group.create_task(changes())
            for place, device in enumerate(devices):
                group.create_task(asks(device, place % 2))
