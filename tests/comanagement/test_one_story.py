"""One trace id from a decision at the site to what came of it on the device, through real parts:
the site's API, the management point over TLS, the agent, and a tenant's MDM service."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_rollout_of_both import TenantGraph, lock

import one_site
from mdm_world import Mdm, TestDevice, mdm_service
from one_site import Bridge, Broker, Moment
from rollout_world import SETTING
from site_api import Api, Graph, commands
from tandem.agent import Bootstrap, Client, Machine, MdmEnrollment
from tandem.agent import client as agent_client
from tandem.agent.folder import Folder
from tandem.infra import net
from tandem.infra.database import Database, Tx
from tandem.protocols import ccm
from tandem.site import clients, comanagement, traces
from tandem.site.comanagement import leaving, leaving_store
from tandem.site.comanagement.leaving_model import State
from tandem.workloads import Authority, Workload

DEVICES = "/api/v1/devices"


class Between(Bridge):
    """The agent's word reaches a real MDM service with the device's next session."""

    device: TestDevice
    offline = False

    def publish(self, config_info: str) -> None:
        super().publish(config_info)
        self.device.agent(config_info)

    async def sync(self) -> None:
        await super().sync()
        if not self.offline:
            await self.device.check_in()


class WholeGraph(TenantGraph):
    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.mdm.graph("POST", path, body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@dataclass
class World:
    api: Api
    mdm: Mdm
    device: TestDevice
    bridge: Between
    agent: Client
    moment: Moment
    machine: Machine
    command_line: str
    site: one_site.Site

    async def install(self) -> Client:
        """ccmsetup, and the client."""
        assert (await Bootstrap(self.machine, self.command_line).run(asyncio.Event())).code == 0
        return Client(self.machine)

    async def story(self, place: int = 0) -> dict[str, Any]:
        assert self.device.joined is not None
        found = await self.api.get(f"{DEVICES}/{self.device.joined.device_id}/timeline")
        story: dict[str, Any] = found["stories"][place]
        return story

    async def passes(self, **amount: float) -> None:
        self.moment.passes(**amount)
        self.api.clock[0] = self.moment.at

    async def step(self) -> None:
        """The device asks for policy, acts and reports."""
        self.agent.wake()
        await self.agent.step()


def stages(story: dict[str, Any]) -> list[str]:
    return [("…" if step["at"] is None else "") + step["stage"] for step in story["steps"]]


async def traced(
    tx: Tx, client: clients.Client, content: ccm.PolicyContent, digest: str, now: datetime
) -> clients.Traced:
    plan = await comanagement.plan(tx)
    return await comanagement.trace(tx, plan, client, content, digest, now)


@pytest.fixture
async def mdm(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Mdm]:
    (tmp_path / "tenant").mkdir()
    async with mdm_service(tenant_db, tmp_path / "tenant") as made:
        yield made


@pytest.fixture
async def world(api: Api, mdm: Mdm, site_db: Database, tmp_path: Path) -> AsyncIterator[World]:
    device = await mdm.enrolled()
    assert device.joined is not None
    moment = Moment()
    moment.at = datetime.now(UTC).replace(microsecond=0)
    api.clock[0] = moment.at
    await api.sign_in()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site = one_site.Site(site_db, tmp_path, moment, port)
    site.policy_of = comanagement.policy_content
    site.trace_of = traced
    site.admits = comanagement.admit
    api.cloud.tenant = one_site.TENANT
    api.cloud.graph = WholeGraph(mdm)  # type: ignore[assignment]
    enable = {"automatic_enrollment": "none", "access_token": "t"}
    assert (await api.web.put("/api/v1/comanagement", json=enable)).status_code == 200
    bridge = Between(MdmEnrollment(True, "user@contoso.com", "TandemMDM", True))
    bridge.device = device
    async with site.serving(), net.client(ca_file=tmp_path / "ca.pem", timeout=5) as web:
        machine = Machine(
            state=tmp_path / "device",
            name="PC-ALEX",
            mdm=bridge,
            directory=Broker(device.joined.device_id),
            http=web,
            trusted_root=site.root.certificate,
            minute_seconds=0.02,
            now=moment,
        )
        made = World(api, mdm, device, bridge, None, moment, machine, site.command_line, site)  # type: ignore[arg-type]
        made.agent = await made.install()
        await made.agent.step()
        await api.keeper.tend()
        await made.passes(minutes=1)
        yield made


async def _by_the_collection(api: Api, pilot: str) -> None:
    await api.web.post(f"/api/v1/collections/{pilot}/members", json={"devices": ["PC-ALEX"]})


async def _by_the_list_of_devices(api: Api, pilot: str) -> None:
    (row,) = (await api.get(DEVICES))["devices"]
    wanted = {"devices": [row["id"]], "collection": pilot}
    answer = await api.web.post(f"{DEVICES}/add-to-collection", json=wanted)
    assert answer.json()["changed"] == 1


@pytest.mark.parametrize("add", [_by_the_collection, _by_the_list_of_devices])
async def test_a_collections_change_is_one_story_to_the_devices_report(
    world: World, add: Callable[[Api, str], Awaitable[None]]
) -> None:
    """Collection, policy, flags, session, setting, report: one id, with times and who."""
    api = world.api
    await lock(world.mdm, world.device, "Screens", "30")
    pilot = (await api.web.post("/api/v1/collections", json={"name": "Pilot"})).json()["id"]
    await api.web.put(
        "/api/v1/comanagement/workloads/device-configuration",
        json={"position": "pilot", "collection": pilot},
    )
    await world.step()
    await world.passes(minutes=5)
    # Nothing of this concerned the device: it was in no pilot.
    assert (await world.story())["kind"] == "registered"

    await add(api, pilot)
    waiting = await world.story()
    assert stages(waiting) == ["cause", "…policy"]
    assert waiting["steps"][1]["since"] == waiting["at"]
    await world.passes(minutes=5)
    await world.step()
    told = await world.story()
    assert told["trace"] == waiting["trace"]
    assert (told["kind"], told["actor"], told["state"]) == ("collection", "siteadmin", "done")
    # The MDM service of this test has a clock of its own, so only what happened is compared.
    every = ["cause", "collections", "flags", "mdm", "policy", "setting", "state", "sync", "taken"]
    assert sorted(stages(told)) == every
    texts = {step["stage"]: step["text"] for step in told["steps"]}
    assert texts["cause"] == "The collection Pilot was changed"
    assert texts["collections"] == "It came into Pilot"
    assert texts["setting"] == f"{SETTING} set to 30"
    (flags,) = [step for step in told["steps"] if step["stage"] == "flags"]
    # Device configuration takes two along.
    assert flags["workloads"] == ["resource-access", "device-configuration", "endpoint-protection"]
    # The same id is in the device's log, with the MDM service, and in the audit log.
    assert world.bridge.info.trace == told["trace"]
    path = f"deviceManagement/managedDevices/{world.device.id}/timeline"
    theirs = (await world.mdm.graph("GET", path)).json()["value"]
    assert {one["kind"] for one in theirs if one["traceId"] == told["trace"]} == {
        "workloads",
        "setting",
    }
    assert told["steps"][0]["who"] == "siteadmin"
    log = (world.agent._machine.logs / "CoManagementHandler.log").read_text()
    assert f"follows trace {told['trace']}" in log
    async with commands(api, api.folder) as tandem:
        found = await tandem.run("device", "timeline", "PC-ALEX", "--trace", told["trace"])
    assert [one["trace"] for one in found["stories"]] == [told["trace"]]


async def test_what_is_waited_for_has_a_name(world: World) -> None:
    api = world.api
    await api.web.put(
        "/api/v1/comanagement/workloads/device-configuration", json={"position": "mdm"}
    )
    world.bridge.offline = True
    await world.step()
    told = await world.story()
    assert (told["kind"], told["state"]) == ("switch", "under way")
    (gap,) = [step for step in told["steps"] if step["at"] is None and step["stage"] == "mdm"]
    assert gap["text"] == "Waits for the device's session with the MDM service"
    # Nobody waits for ever: what was not done for one cause is done for the next.
    await world.passes(minutes=5)
    await api.web.put(
        "/api/v1/comanagement/workloads/device-configuration", json={"position": "site"}
    )
    world.bridge.offline = False
    await world.step()
    assert (await world.story(1))["state"] == "overtaken"
    back = await world.story()
    assert (back["kind"], back["steps"][0]["text"]) == (
        "switch",
        "A workload was moved to Configuration Manager",
    )


async def test_a_device_that_changes_by_itself_is_a_story_too(world: World) -> None:
    """Nobody decided anything: it came into a collection by what it reports."""
    api = world.api
    query = "select * from SMS_R_System where SMS_R_System.Name = 'PC-NEW'"
    pilot = (
        await api.web.post("/api/v1/collections", json={"name": "New ones", "query": query})
    ).json()["id"]
    await api.web.put(
        "/api/v1/comanagement/workloads/client-apps",
        json={"position": "pilot", "collection": pilot},
    )
    await api.evaluator.tend()
    await world.passes(minutes=5)
    async with api.db.transaction() as tx:
        await tx.execute("UPDATE collections_resource SET name = 'PC-NEW'")
    await api.evaluator.tend()
    await world.passes(minutes=5)
    await world.step()
    told = await world.story()
    assert (told["kind"], told["actor"]) == ("device", "")
    assert [s["text"] for s in told["steps"] if s["stage"] == "collections"] == [
        "It came into New ones"
    ]


async def test_policy_of_a_site_that_traces_nothing_is_policy(world: World) -> None:
    """An agent keeps to a document without the field, as older sites sign it."""
    assert ccm.ConfigInfo.read("flags=1;trace=../../x;policy=1").trace == ""
    assert "trace" not in ccm.ConfigInfo(1, "1.0", "GUID:1", True).text()


# Off-boarding: the same world, to its end.

OFF = "/api/v1/comanagement/offboardings"


async def _site_sets(world: World) -> None:
    api = world.api
    await api.web.post(
        "/api/v1/configurations",
        json={"name": "Lock", "setting": SETTING, "value": "15", "collection": "SMS00001"},
    )
    await world.passes(minutes=5)
    await world.step()


async def _show(world: World) -> dict[str, Any]:
    found: dict[str, Any] = await world.api.get(f"{OFF}/PC-ALEX")
    return found


async def test_a_device_leaves_for_the_mdm_service_alone(world: World) -> None:
    """Workloads first, each value replaced before the old one goes; then the client; nothing stays."""
    api = world.api
    conductor = comanagement.Conductor(api.db, api.cloud.others, lambda: world.moment.at)
    await _site_sets(world)
    assert world.agent.gate.value(SETTING) == "15"

    # The tenant has nothing for it yet, so it is refused, by workload.
    told = await api.get(f"{OFF}/preview", device="PC-ALEX")
    assert (told["lost"], told["trouble"]) == (["Lock"], "")
    assert "device-configuration" in told["lacking"]
    status, refused = await api.refusal("POST", OFF, {"device": "PC-ALEX", "confirm": "PC-ALEX"})
    assert (status, refused["code"]) == (409, "offboarding.lacks-policies")
    await lock(world.mdm, world.device, "Screens", "30")
    told = await api.get(f"{OFF}/preview", device="PC-ALEX")
    assert "device-configuration" not in told["lacking"]
    assert told["lost"] == []
    # Its name has to be typed.
    body = {"device": "PC-ALEX", "accept_lacking": True}
    status, refused = await api.refusal("POST", OFF, {**body, "confirm": "yes"})
    assert (status, refused["code"]) == (400, "offboarding.not-confirmed")
    made = await api.web.post(OFF, json={**body, "confirm": "pc-alex"})
    assert made.status_code == 201, made.text
    assert (await _show(world))["waits_for"].startswith("The device has not reported yet")

    # Moving: the site's value stays until the MDM service's is there.
    await world.passes(minutes=5)
    world.bridge.offline = True
    await world.step()
    assert world.agent.gate.value(SETTING) == "15"
    await conductor.tend()
    waiting = await _show(world)
    assert (waiting["state"], waiting["workloads"]) == ("moving", ["device-configuration"])
    world.bridge.offline = False
    gate = world.agent.gate
    epoch = gate.epoch
    for command in await world.device.check_in():
        assert command.items[0].data == "30"
        gate.offer(Authority.MDM, Workload.DEVICE_CONFIGURATION, SETTING, "30")
    gate.confirm(Authority.MDM, epoch)
    await world.passes(minutes=5)
    await world.step()
    await conductor.tend()
    assert (await _show(world))["state"] == "leaving"
    # Until it is told, it may stay.
    assert (await _show(world))["can_cancel"]

    await world.passes(minutes=5)
    await world.step()
    assert world.agent.left
    assert world.bridge.info.client == ""
    await conductor.tend()
    gone = await _show(world)
    assert (gone["state"], gone["proof"]["holds"], gone["waits_for"]) == ("done", True, "")
    # Nothing lingers: no client, no resource, no member of anything.
    async with api.db.transaction() as tx:
        for table in ("clients_client", "collections_resource", "traces_given"):
            row = await (await tx.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()
            assert row is not None
            assert row["n"] == 0, table
    await api.keeper.tend()
    (row,) = (await api.get(DEVICES))["devices"]
    assert (row["registered"], row["management"]) == (False, "mdm")
    await world.device.check_in()
    path = f"deviceManagement/managedDevices/{world.device.id}"
    assert (await world.mdm.graph("GET", path)).json()["managementAgent"] == "mdm"


async def test_who_has_left_registers_only_when_readmitted(world: World) -> None:
    """An MDM service that installs the client again does not undo it by accident."""
    api = world.api
    conductor = comanagement.Conductor(api.db, api.cloud.others, lambda: world.moment.at)
    body = {"device": "PC-ALEX", "accept_lacking": True, "confirm": "PC-ALEX"}
    assert (await api.web.post(OFF, json=body)).status_code == 201
    status, refused = await api.refusal("POST", OFF, body)
    assert (status, refused["code"]) == (409, "offboarding.under-way")
    for _ in range(2):
        await world.passes(minutes=5)
        await world.step()
        await conductor.tend()
    assert world.agent.left
    status, refused = await api.refusal("POST", f"{OFF}/PC-ALEX/cancel", {})
    assert (status, refused["code"]) == (409, "offboarding.too-late")
    again = await world.install()
    await again.step()
    assert not again.client_id
    log = (again._machine.logs / "ClientIDManagerStartup.log").read_text()
    assert "was taken out of co-management" in log
    assert (await api.post(f"{OFF}/PC-ALEX/readmit", {}))["state"] == "readmitted"
    await world.passes(minutes=30)
    await again.step()
    assert again.client_id


async def test_it_may_stay_until_it_was_told(world: World) -> None:
    api = world.api
    await _site_sets(world)
    body = {"device": "PC-ALEX", "accept_lacking": True, "confirm": "PC-ALEX"}
    assert (await api.web.post(OFF, json=body)).status_code == 201
    await world.passes(minutes=5)
    await world.step()
    assert world.bridge.info.flags != 8193
    assert (await api.post(f"{OFF}/PC-ALEX/cancel", {}))["state"] == "cancelled"
    await world.passes(minutes=5)
    await world.step()
    # It has what it had, and was never without.
    assert (world.bridge.info.flags, world.agent.gate.value(SETTING)) == (8193, "15")
    assert (await world.story())["steps"][0][
        "text"
    ] == "The device stays: its leaving was cancelled"


async def test_a_silent_tenant_is_no_tenant_with_policies(world: World) -> None:
    api = world.api
    api.cloud.graph = Graph(gone="The tenant does not answer.")
    told = await api.get(f"{OFF}/preview", device="PC-ALEX")
    assert told["trouble"] == "The tenant does not answer."
    assert {one["mdm"] for one in told["going"]} == {None}
    status, refused = await api.refusal("POST", OFF, {"device": "PC-ALEX", "confirm": "PC-ALEX"})
    assert (status, refused["code"]) == (409, "offboarding.lacks-policies")
    assert "The tenant does not answer." in refused["message"]
    for device in ("", "NOBODY", "x\0y", "y" * 999):
        status, _ = await api.refusal("POST", OFF, {"device": device})
        assert status in (400, 404)


async def test_what_was_decided_for_others_hides_nothing_that_concerns_a_device(
    site_db: Database,
) -> None:
    now = datetime.now(UTC)
    known = traces.Cause(traces.TraceId("0" * 32), now - timedelta(hours=2), traces.Kind.REGISTERED)
    last = traces.Given(known, now - timedelta(hours=2), (), "")
    async with site_db.transaction() as tx:
        made = []
        for minute, name in enumerate(["PC-1", *["PC-2"] * 25]):
            made.append(
                await traces.begin(
                    tx,
                    traces.Kind.COLLECTION,
                    actor="anna",
                    collections=["CM100001"],
                    details={"action": "collection.add-members", "devices": [name]},
                    now=now - timedelta(minutes=60 - minute),
                )
            )
        found = await traces.since(tx, last, "PC-1", ["CM100001"])
        assert [cause.id for cause in found] == made[:1]
        assert await traces.forget(tx, now - timedelta(minutes=50)) == 10


# What comes at the same time, or is killed in between.


class Killed(BaseException):
    """As a process that ends there."""


async def _begin(world: World) -> comanagement.Conductor:
    """On its way: the device has reported that its workloads are with the MDM service."""
    body = {"device": "PC-ALEX", "accept_lacking": True, "confirm": "PC-ALEX"}
    made = await world.api.web.post(OFF, json=body)
    assert made.status_code == 201, made.text
    await world.passes(minutes=5)
    await world.step()
    return comanagement.Conductor(world.api.db, world.api.cloud.others, lambda: world.moment.at)


async def _somebody_waits(db: Database) -> None:
    for _ in range(1000):
        if await one_site.waits_for_a_lock(db):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("nobody waits")


async def _cancel(world: World, tx: Tx) -> None:
    await leaving.cancel(tx, "PC-ALEX", actor="siteadmin", now=world.moment.at)


async def test_a_round_that_read_before_it_does_not_undo_a_cancelling(world: World) -> None:
    conductor = await _begin(world)
    async with world.api.db.transaction() as tx:
        await _cancel(world, tx)
        tending = asyncio.create_task(conductor.tend())
        await _somebody_waits(world.api.db)
    await tending
    assert (await _show(world))["state"] == "cancelled"


async def test_who_is_told_at_this_moment_cannot_be_kept(world: World) -> None:
    conductor = await _begin(world)
    await conductor.tend()
    async with world.api.db.transaction() as tx:
        one = await leaving.find(tx, "PC-ALEX")
        assert one.state is State.LEAVING
        await leaving_store.save(tx, one, State.TAKEN, "off-boarding", world.moment.at)
        asked = asyncio.create_task(world.api.refusal("POST", f"{OFF}/PC-ALEX/cancel", {}))
        await _somebody_waits(world.api.db)
    status, refused = await asked
    assert (status, refused["code"]) == (409, "offboarding.too-late")
    assert (await _show(world))["state"] == "taken"


async def test_who_goes_on_at_this_moment_can_be_kept(world: World) -> None:
    await _begin(world)
    async with world.api.db.transaction() as tx:
        one = await leaving.find(tx, "PC-ALEX")
        assert one.state is State.MOVING
        await leaving_store.save(tx, one, State.LEAVING, "off-boarding", world.moment.at)
        asked = asyncio.create_task(world.api.post(f"{OFF}/PC-ALEX/cancel", {}))
        await _somebody_waits(world.api.db)
    assert (await asked)["state"] == "cancelled"
    assert (await _show(world))["state"] == "cancelled"


async def test_nobody_is_told_to_leave_whose_leaving_is_cancelled_at_this_moment(
    world: World,
) -> None:
    await _site_sets(world)
    conductor = await _begin(world)
    gate = world.agent.gate
    gate.offer(Authority.MDM, Workload.DEVICE_CONFIGURATION, SETTING, "30")
    gate.confirm(Authority.MDM, gate.epoch)
    await world.passes(minutes=5)
    await world.step()
    await conductor.tend()
    assert (await _show(world))["state"] == "leaving"
    async with world.api.db.transaction() as tx:
        await _cancel(world, tx)
        asking = asyncio.create_task(world.step())
        await _somebody_waits(world.api.db)
    await asking
    assert (await _show(world))["state"] == "cancelled"
    assert not world.agent.left
    await world.passes(minutes=5)
    await world.step()
    assert (world.bridge.info.flags, gate.value(SETTING)) == (8193, "15")


async def test_who_is_deleted_on_its_way_out_may_come_back(world: World) -> None:
    conductor = await _begin(world)
    async with world.api.db.transaction() as tx:
        one = await leaving.find(tx, "PC-ALEX")
        await clients.forget(tx, one.resource_id, actor="siteadmin", now=world.moment.at)
    (listed,) = (await world.api.get(OFF))["items"]
    assert listed["waits_for"] == "The device was deleted from the site meanwhile."
    await conductor.tend()
    assert (await _show(world))["state"] == "cancelled"
    before = world.agent.client_id
    for _ in range(2):
        await world.passes(minutes=30)
        await world.step()
    assert world.agent.client_id not in ("", before)


async def test_a_client_that_was_killed_before_it_was_removed_goes_when_it_starts_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last word is out, and the site knows it no more."""
    conductor = await _begin(world)
    await conductor.tend()

    def killed(folder: Folder) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(agent_client, "remove", killed)
        await world.passes(minutes=5)
        with pytest.raises(Killed):
            await world.step()
    await conductor.tend()
    assert (await _show(world))["state"] == "done"
    again = Client(world.machine)
    await world.passes(minutes=30)
    await again.step()
    assert again.left
    assert world.bridge.info.client == ""


async def test_who_leaves_a_second_time_says_so_a_second_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time it was killed when all but its own note was removed."""
    conductor = await _begin(world)
    await conductor.tend()
    remove = agent_client.remove

    def killed(folder: Folder) -> None:
        remove(folder)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(agent_client, "remove", killed)
        await world.passes(minutes=5)
        with pytest.raises(Killed):
            await world.step()
    await conductor.tend()
    await world.api.post(f"{OFF}/PC-ALEX/readmit", {})
    world.agent = await world.install()
    for _ in range(2):
        await world.passes(minutes=6)
        await world.step()
        await world.api.keeper.tend()
    conductor = await _begin(world)
    await conductor.tend()
    await world.passes(minutes=5)
    await world.step()
    assert world.agent.left
    await conductor.tend()
    assert (await _show(world))["state"] == "done"
