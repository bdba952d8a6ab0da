"""Orders that nothing brings back: hold windows, budgets, a second administrator, deadlines."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from graph_caller import app_graph
from mdm_world import ORDERING, Mdm, TestDevice, mdm_service, new_id
from tandem import audit
from tandem.infra.database import Database
from tandem.infra.errors import AppError
from tandem.protocols.syncml import Command, Item, Message
from tandem.tenant import directory, enrollment, sessions

DEVICES = "deviceManagement/managedDevices"
OTHER = "second@contoso.com"


@pytest.fixture
async def mdm(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Mdm]:
    """With the safeguards that every tenant begins with."""
    async with mdm_service(tenant_db, tmp_path, safeguards=sessions.Safeguards()) as made:
        user = await made.world.user("second")
        async with tenant_db.transaction() as tx:
            await directory.grant_role(tx, directory.INTUNE_ADMINISTRATOR, user.id)
        yield made


async def several(mdm: Mdm, number: int) -> list[TestDevice]:
    return [await mdm.enrolled(f"user{n}", new_id()) for n in range(number)]


async def orders(mdm: Mdm, query: str = "") -> list[dict[str, Any]]:
    answer = await mdm.graph("GET", f"tandem/actions{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["value"])


async def states(mdm: Mdm) -> list[str]:
    return [str(item["state"]) for item in await orders(mdm)]


async def requests(mdm: Mdm) -> list[dict[str, Any]]:
    return list((await mdm.graph("GET", "tandem/actionRequests")).json()["value"])


async def ordered(
    mdm: Mdm, action: str, devices: list[TestDevice], reason: str = "", **more: Any
) -> httpx.Response:
    body = {"action": action, "devices": [item.id for item in devices], "reason": reason, **more}
    return await mdm.graph("POST", "tandem/orderAction", body)


async def second(mdm: Mdm, method: str, path: str, body: Any = None) -> httpx.Response:
    """As the other administrator."""
    return await mdm.graph(method, path, body, OTHER)


async def refused(mdm: Mdm) -> list[tuple[str, str, str]]:
    """What the audit log has of attempts that were refused, the newest first."""
    async with mdm.database.transaction() as tx:
        found = [entry for entry in await audit.entries(tx) if entry.outcome == "refused"]
    return [(e.details["activity"], e.target, e.details["refusal"]) for e in found]


async def tended(mdm: Mdm, wait: timedelta = timedelta(0)) -> None:
    mdm.world.at += wait
    async with mdm.database.transaction() as tx:
        while await mdm.sessions.tend(tx):
            pass


async def waiting(mdm: Mdm, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begin it, and come back when it waits for somebody's lock, or is done."""
    task = asyncio.create_task(work)
    async with asyncio.timeout(30):
        while not task.done():
            async with mdm.database.transaction() as tx:
                found = await tx.execute("SELECT count(*) AS n FROM pg_locks WHERE NOT granted")
                row = await found.fetchone()
            if row is not None and row["n"]:
                break
            await asyncio.sleep(0.01)
    return task


async def management(mdm: Mdm, device: TestDevice) -> str:
    found = (await mdm.graph("GET", f"{DEVICES}/{device.id}")).json()
    return str(found["managementState"])


# ---------------------------------------------------------------------------------- at once


SECOND = sessions.By("00000000-0000-0000-0000-0000000000bb", OTHER)


@pytest.mark.parametrize("kind", ["rebootNow", sessions.RETIRE])
async def test_two_administrators_at_once_order_it_once(mdm: Mdm, kind: str) -> None:
    device = await mdm.enrolled()

    async def too() -> None:
        async with mdm.database.transaction() as tx:
            await mdm.sessions.order(tx, SECOND, kind, [device.id])

    async with mdm.database.transaction() as tx:
        await mdm.sessions.order(tx, ORDERING, kind, [device.id])
        other = await waiting(mdm, too())
    await other
    assert len(await orders(mdm)) == 1


async def test_an_order_for_many_takes_no_more_statements_than_for_two(
    mdm: Mdm, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = await several(mdm, 8)
    strong = sessions.Safeguards(budget_per_hour=1, approval_above=1, hold_minutes=0)
    async with mdm.database.transaction() as tx:
        await mdm.sessions.change_safeguards(tx, ORDERING, strong)
        held = sessions.Safeguards(budget_per_hour=1, approval_above=1, hold_minutes=10)
        await mdm.sessions.change_safeguards(tx, ORDERING, held)
    counted: list[int] = []
    execute = psycopg.AsyncConnection.execute

    async def watched(self: Any, *given: Any, **more: Any) -> Any:
        counted[-1] += 1
        return await execute(self, *given, **more)

    async def course(ids: list[str]) -> list[int]:
        counted.clear()
        async with mdm.database.transaction() as tx:
            monkeypatch.setattr(psycopg.AsyncConnection, "execute", watched)
            counted.append(0)
            await mdm.sessions.order(tx, ORDERING, "rebootNow", ids)
            counted.append(0)
            made = await mdm.sessions.order(tx, ORDERING, "wipe", ids, "doWipe", "lost")
            assert made.request_id is not None
            counted.append(0)
            await mdm.sessions.approve(tx, SECOND, made.request_id)
            counted.append(0)
            await mdm.sessions.cancel_request(tx, SECOND, made.request_id)
            monkeypatch.undo()
        return list(counted)

    few = await course([device.id for device in devices[:2]])
    many = await course([device.id for device in devices[2:]])
    assert many == few
    assert sorted(await states(mdm)) == ["cancelled"] * 8 + ["pending"] * 8
    async with mdm.database.transaction() as tx:
        for device in devices:
            told = [item.text for item in await enrollment.timeline(tx, device_id=device.id)]
            assert sum("orders" in text for text in told) == 2, "each device's own timeline has it"
    assert {await management(mdm, device) for device in devices} == {"wipeCanceled"}


# ---------------------------------------------------------------------------------- hold window


@pytest.mark.parametrize("action", ["wipe", "retire", "cleanWindowsDevice"])
async def test_a_device_gets_it_after_the_hold_window_only(mdm: Mdm, action: str) -> None:
    device = await mdm.enrolled()
    assert (await mdm.graph("POST", f"{DEVICES}/{device.id}/{action}")).status_code == 204
    assert await states(mdm) == ["held"]
    assert await device.check_in() == []
    mdm.world.at += timedelta(minutes=9)
    assert await device.check_in() == []
    mdm.world.at += timedelta(minutes=2)
    assert [command.name for command in await device.check_in()] == ["Exec"]


async def test_a_device_that_is_held_goes_on_being_managed(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await mdm.graph("POST", f"{DEVICES}/{device.id}/retire")
    async with mdm.database.transaction() as tx:
        assert (await enrollment.device(tx, device.id)).state == "enrolled"
    await mdm.graph("POST", f"{DEVICES}/{device.id}/rebootNow")
    (command,) = await device.check_in()
    assert command.items[0].target.endswith("/RebootNow"), "what can be repaired does not wait"


@pytest.mark.parametrize("tending", [False, True])
async def test_anybody_with_the_right_can_cancel_until_the_device_has_it(
    mdm: Mdm, tending: bool
) -> None:
    device = await mdm.enrolled()
    await mdm.graph("DELETE", f"{DEVICES}/{device.id}")
    (found,) = await orders(mdm)
    assert (found["action"], found["canBeCancelled"]) == ("delete", True)
    if tending:
        await tended(mdm, timedelta(minutes=11))
        assert await states(mdm) == ["pending"]
        async with mdm.database.transaction() as tx:
            assert (await enrollment.device(tx, device.id)).state == "unenrolling"
    assert (await second(mdm, "POST", f"tandem/actions/{found['id']}/cancel")).status_code == 204
    (found,) = await orders(mdm)
    assert (found["state"], found["explanation"]) == ("cancelled", f"Cancelled by {OTHER}.")
    assert await management(mdm, device) == "retireCanceled"
    mdm.world.at += timedelta(days=1)
    assert await device.check_in() == []
    async with mdm.database.transaction() as tx:
        assert (await enrollment.device(tx, device.id)).state == "enrolled"
    again = await mdm.graph("POST", f"tandem/actions/{found['id']}/cancel")
    assert again.status_code == 409
    assert "over" in again.json()["error"]["message"]


async def test_what_the_device_has_cannot_be_taken_back(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await mdm.graph("POST", f"{DEVICES}/{device.id}/wipe")
    mdm.world.at += timedelta(minutes=11)
    questions = await device.begins()
    await device.says(2, **device.replies(questions))
    (found,) = await orders(mdm)
    assert (found["state"], found["canBeCancelled"]) == ("sent", False)
    answer = await mdm.graph("POST", f"tandem/actions/{found['id']}/cancel")
    assert answer.status_code == 409
    assert "The device has this order already" in answer.json()["error"]["message"]


@pytest.mark.parametrize("key", ["0", "999", "x", "1' OR '1'='1", "9" * 30])
async def test_an_order_that_is_not_there_is_not_found(mdm: Mdm, key: str) -> None:
    assert (await mdm.graph("POST", f"tandem/actions/{key}/cancel")).status_code == 404
    assert (await mdm.graph("POST", f"tandem/actionRequests/{key}/approve")).status_code == 404


# ---------------------------------------------------------------------------------- budget


async def test_one_administrator_has_five_devices_an_hour(mdm: Mdm) -> None:
    devices = await several(mdm, 6)
    for device in devices[:5]:
        path = f"{DEVICES}/{device.id}"
        assert (await mdm.graph("POST", f"{path}/wipe")).status_code == 204
        assert (await mdm.graph("POST", f"{path}/wipe")).status_code == 204, "no second one"
    answer = await mdm.graph("POST", f"{DEVICES}/{devices[5].id}/retire")
    assert answer.status_code == 429
    assert "0 of 5 are left" in answer.json()["error"]["message"]
    assert await states(mdm) == ["held"] * 5
    together = await ordered(mdm, "retire", devices[4:])
    assert together.status_code == 429
    assert (await mdm.graph("DELETE", f"{DEVICES}/{devices[5].id}")).status_code == 429
    assert await refused(mdm) == [
        ("Delete managedDevice", devices[5].id, "action.budget-spent"),
        ("retire", "tandem/orderAction", "action.budget-spent"),
        ("retire", devices[5].id, "action.budget-spent"),
    ]
    assert (await second(mdm, "POST", f"{DEVICES}/{devices[5].id}/retire")).status_code == 204
    mdm.world.at += timedelta(minutes=61)
    assert (await mdm.graph("POST", f"{DEVICES}/{devices[5].id}/rebootNow")).status_code == 204


async def test_cancelling_does_not_fill_the_budget_again(mdm: Mdm) -> None:
    """Otherwise a stolen account tries for ever which of its orders nobody notices."""
    devices = await several(mdm, 2)
    for _ in range(5):
        await mdm.graph("POST", f"{DEVICES}/{devices[0].id}/wipe")
        (newest, *_) = await orders(mdm)
        await mdm.graph("POST", f"tandem/actions/{newest['id']}/cancel")
    assert (await mdm.graph("POST", f"{DEVICES}/{devices[1].id}/wipe")).status_code == 429


async def test_another_wipe_has_to_wait_for_the_first_to_be_cancelled(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await mdm.graph("POST", f"{DEVICES}/{device.id}/wipe", {"keepUserData": True})
    answer = await mdm.graph("POST", f"{DEVICES}/{device.id}/wipe")
    assert answer.status_code == 409
    assert "Another wipe of PC-Alex is under way" in answer.json()["error"]["message"]


# ---------------------------------------------------------------------------------- approval


async def test_an_order_for_many_needs_a_second_administrator(mdm: Mdm) -> None:
    devices = await several(mdm, 6)
    assert (await ordered(mdm, "wipe", devices)).status_code == 400, "a reason is missing"
    answer = await ordered(mdm, "wipe", devices, "Stolen from the warehouse")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["deviceCount"], told["userCount"], told["state"]) == (6, 6, "approval")
    (request,) = await requests(mdm)
    assert (request["state"], request["reason"]) == ("waiting", "Stolen from the warehouse")
    assert request["requestedBy"] == "admin@contoso.com"
    assert [item["deviceName"] for item in request["devices"]] == [f"PC-User{n}" for n in range(6)]
    mdm.world.at += timedelta(hours=1)
    assert await devices[0].check_in() == []

    path = f"tandem/actionRequests/{request['id']}"
    own = await mdm.graph("POST", f"{path}/approve")
    assert own.status_code == 403
    assert "another administrator has to approve it" in own.json()["error"]["message"]
    script = await app_graph(mdm.world, "DeviceManagementManagedDevices.ReadWrite.All")
    assert (await script.raw("POST", f"{path}/approve")).status_code == 403
    assert (await second(mdm, "POST", f"{path}/approve")).status_code == 204
    assert await states(mdm) == ["held"] * 6
    assert await devices[0].check_in() == [], "the hold window begins with the approval"
    assert (await second(mdm, "POST", f"{path}/approve")).status_code == 409
    await mdm.graph("POST", f"{path}/cancel")
    assert await states(mdm) == ["cancelled"] * 6


async def test_approved_orders_go_and_draw_on_nobodys_budget(mdm: Mdm) -> None:
    devices = await several(mdm, 7)
    await ordered(mdm, "retire", devices[:6], "Sold")
    (request,) = await requests(mdm)
    await second(mdm, "POST", f"tandem/actionRequests/{request['id']}/approve")
    await tended(mdm, timedelta(minutes=11))
    assert await states(mdm) == ["pending"] * 6
    assert [command.name for command in await devices[0].check_in()] == ["Exec"]
    assert (await mdm.graph("POST", f"{DEVICES}/{devices[6].id}/wipe")).status_code == 204


async def test_a_second_administrator_can_reject(mdm: Mdm) -> None:
    devices = await several(mdm, 6)
    await ordered(mdm, "wipe", devices, "Because")
    (request,) = await requests(mdm)
    path = f"tandem/actionRequests/{request['id']}"
    assert (await second(mdm, "POST", f"{path}/reject", {"reason": "No"})).status_code == 204
    (request,) = await requests(mdm)
    assert (request["state"], request["decidedBy"], request["decisionReason"]) == (
        "rejected", OTHER, "No",
    )  # fmt: skip
    assert await states(mdm) == ["cancelled"] * 6
    assert await management(mdm, devices[0]) == "wipeCanceled"
    assert (await second(mdm, "POST", f"{path}/approve")).status_code == 409


async def test_without_a_second_administrator_it_is_over_after_three_days(mdm: Mdm) -> None:
    devices = await several(mdm, 6)
    await ordered(mdm, "wipe", devices, "Because")
    (request,) = await requests(mdm)
    await tended(mdm, timedelta(hours=73))
    assert await states(mdm) == ["expired"] * 6
    (found,) = await requests(mdm)
    assert found["state"] == "expired"
    answer = await second(mdm, "POST", f"tandem/actionRequests/{request['id']}/approve")
    assert answer.status_code == 409


async def test_the_reach_is_named_before_anything_is_ordered(mdm: Mdm) -> None:
    devices = await several(mdm, 2)
    body = {"action": "wipe", "devices": [item.id for item in devices]}
    answer = await mdm.graph("POST", "tandem/assessAction", body)
    assert answer.json() == {
        **answer.json(),
        "deviceCount": 2,
        "userCount": 2,
        "coManagedCount": 0,
        "deviceNames": ["PC-User0", "PC-User1"],
        "needsApproval": False,
        "budgetLeft": 5,
        "holdMinutes": 10,
    }
    assert await orders(mdm) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "explode", "devices": ["x"]}, 400),
        ({"action": "remoteLock", "devices": ["x"]}, 400),
        ({"action": "wipe", "devices": []}, 400),
        ({"action": "wipe", "devices": ["nothing"]}, 404),
        ({"action": "wipe", "devices": "x"}, 400),
        ({"action": "wipe", "devices": [1]}, 400),
        ({"action": "wipe"}, 400),
        ({"devices": ["x"]}, 400),
        ({"action": "setDeviceName", "devices": ["x"]}, 400),
    ],
)
async def test_what_cannot_be_ordered_is_refused(mdm: Mdm, body: Any, status: int) -> None:
    answer = await mdm.graph("POST", "tandem/orderAction", body)
    assert answer.status_code == status, answer.text


async def test_a_protected_wipe_keeps_nothing(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    body = {"useProtectedWipe": True, "keepUserData": True}
    answer = await mdm.graph("POST", f"{DEVICES}/{device.id}/wipe", body)
    assert answer.status_code == 400
    assert await orders(mdm) == []


# ---------------------------------------------------------------------------------- safeguards


async def test_stronger_safeguards_are_in_force_at_once_and_weaker_ones_wait(mdm: Mdm) -> None:
    path = "tandem/actionSafeguards"
    answer = await mdm.graph("PATCH", path, {"budgetPerHour": 3, "approvalAbove": 2})
    assert answer.status_code == 200, answer.text
    found = (await mdm.graph("GET", path)).json()
    assert (found["budgetPerHour"], found["approvalAbove"], found["proposal"]) == (3, 2, None)

    await mdm.graph("PATCH", path, {"holdMinutes": 0})
    found = (await mdm.graph("GET", path)).json()
    assert found["holdMinutes"] == 10
    assert (found["proposal"]["holdMinutes"], found["proposal"]["proposedBy"]) == (
        0, "admin@contoso.com",
    )  # fmt: skip
    assert (await mdm.graph("POST", f"{path}/approve")).status_code == 403
    assert (await second(mdm, "POST", f"{path}/approve")).status_code == 204
    found = (await mdm.graph("GET", path)).json()
    assert (found["holdMinutes"], found["proposal"]) == (0, None)
    assert (await second(mdm, "POST", f"{path}/approve")).status_code == 409

    audits = (await mdm.graph("GET", "deviceManagement/auditEvents")).json()["value"]
    assert [item["activity"] for item in audits] == [
        "Weaken action safeguards",
        "Propose weaker action safeguards",
        "Update action safeguards",
    ]
    (change,) = audits[0]["resources"][0]["modifiedProperties"]
    assert (change["oldValue"], change["newValue"]) == ("10", "0")


async def test_a_proposal_can_be_withdrawn_and_gets_old(mdm: Mdm) -> None:
    path = "tandem/actionSafeguards"
    await mdm.graph("PATCH", path, {"holdMinutes": 5})
    assert (await second(mdm, "POST", f"{path}/withdraw")).status_code == 204
    assert (await second(mdm, "POST", f"{path}/approve")).status_code == 409
    await mdm.graph("PATCH", path, {"holdMinutes": 5})
    mdm.world.at += timedelta(hours=73)
    assert (await second(mdm, "POST", f"{path}/approve")).status_code == 409


async def test_another_proposal_than_the_one_that_was_read_is_not_approved(mdm: Mdm) -> None:
    path = "tandem/actionSafeguards"
    await mdm.graph("PATCH", path, {"holdMinutes": 5})
    await mdm.graph("PATCH", path, {"holdMinutes": 0, "budgetPerHour": 500})
    answer = await second(mdm, "POST", f"{path}/approve", {"holdMinutes": 5, "budgetPerHour": 5})
    assert answer.status_code == 409
    assert "are others than those that you have seen" in answer.json()["error"]["message"]
    assert (await mdm.graph("GET", path)).json()["holdMinutes"] == 10
    answer = await second(mdm, "POST", f"{path}/approve", {"holdMinutes": 0, "budgetPerHour": 500})
    assert answer.status_code == 204


async def test_an_approval_does_not_take_back_what_is_made_stronger_meanwhile(mdm: Mdm) -> None:
    async def approve() -> None:
        async with mdm.database.transaction() as tx:
            await mdm.sessions.approve_safeguards(tx, SECOND)

    async with mdm.database.transaction() as tx:
        await mdm.sessions.change_safeguards(tx, ORDERING, sessions.Safeguards(hold_minutes=0))
    stronger = sessions.Safeguards(hold_minutes=60)
    async with mdm.database.transaction() as tx:
        await mdm.sessions.change_safeguards(tx, ORDERING, stronger)
        approving = await waiting(mdm, approve())
    with pytest.raises(AppError, match="No change of the safeguards waits"):
        await approving
    async with mdm.database.transaction() as tx:
        assert await mdm.sessions.safeguards(tx) == stronger


@pytest.mark.parametrize(
    "changes",
    [
        {"approvalAbove": 6},
        {"budgetPerHour": -1},
        {"holdMinutes": 100_000},
        {"approvalHours": 0},
        {"holdMinutes": "soon"},
        {"holdMinutes": None},
    ],
)
async def test_safeguards_that_make_no_sense_are_refused(mdm: Mdm, changes: Any) -> None:
    answer = await mdm.graph("PATCH", "tandem/actionSafeguards", changes)
    assert answer.status_code == 400, answer.text


# ---------------------------------------------------------------------------------- what devices do


async def wiped(mdm: Mdm, status: int = 200, body: Any = None) -> TestDevice:
    device = await mdm.enrolled()
    device.codes["Exec"] = status
    await mdm.graph("POST", f"{DEVICES}/{device.id}/wipe", body)
    mdm.world.at += timedelta(minutes=11)
    await device.check_in()
    return device


async def test_a_wipe_is_alone_in_its_message_and_given_once(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await mdm.graph("POST", f"{DEVICES}/{device.id}/wipe", {"keepEnrollmentData": True})
    await mdm.graph("POST", f"{DEVICES}/{device.id}/rebootNow")
    mdm.world.at += timedelta(minutes=11)
    questions = await device.begins()
    answer = await device.says(2, **device.replies(questions))
    assert [item.items[0].target for item in answer.commands] == [
        "./Device/Vendor/MSFT/RemoteWipe/doWipePersistProvisionedData"
    ]
    # Its Status never came. The device comes back: wiping it again would lose what is on it now.
    assert [command.name for command in await device.check_in()] == ["Exec"], "the restart"
    by_action = {item["action"]: item for item in await orders(mdm)}
    assert by_action["wipe"]["state"] == "timedOut"
    assert "order that again" in by_action["wipe"]["explanation"]
    assert await management(mdm, device) == "wipeFailed"


async def test_a_wipe_that_the_device_did_not_get_to_is_given_again(mdm: Mdm) -> None:
    device = await wiped(mdm, 215)
    assert await states(mdm) == ["pending"]
    device.codes["Exec"] = 200
    assert len(await device.check_in()) == 1
    assert await states(mdm) == ["accepted"]


async def test_a_wiped_device_that_enrols_again_ends_the_order_and_its_old_certificate(
    mdm: Mdm,
) -> None:
    device = await wiped(mdm)
    assert (await states(mdm), await management(mdm, device)) == (["accepted"], "wipeIssued")
    joined = await mdm.world.joined(device.user.user_principal_name, "PC-NEW")
    fresh = await mdm.enroll(device.user, joined, device.windows_id)
    await tended(mdm)
    assert await states(mdm) == ["done"]
    assert (await device.send(_first(device))).status_code == 401
    assert await fresh.check_in() == [], "it is not wiped again"


def _first(device: TestDevice) -> Any:
    return Message("77", 1, "https://m", device.windows_id, (Command("Alert", "2", (), "1201"),))


async def test_a_wiped_device_that_is_silent_for_a_day_is_gone(mdm: Mdm) -> None:
    device = await wiped(mdm)
    await tended(mdm, timedelta(hours=23))
    assert await states(mdm) == ["accepted"]
    await tended(mdm, timedelta(hours=2))
    assert await states(mdm) == ["done"]
    assert (await mdm.graph("GET", f"{DEVICES}/{device.id}")).status_code == 404


async def test_a_device_without_windows_re_says_so_in_words(mdm: Mdm) -> None:
    device = await wiped(mdm, 500)
    (found,) = await orders(mdm)
    assert (found["state"], found["statusCode"]) == ("failed", 500)
    assert "Windows RE is disabled" in found["explanation"]
    line = (await mdm.graph("GET", f"{DEVICES}/{device.id}/timeline")).json()["value"][0]["text"]
    assert "reagentc /enable" in line


async def test_what_is_meant_for_now_is_not_done_next_week(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await mdm.graph("POST", f"{DEVICES}/{device.id}/rebootNow")
    await mdm.graph("POST", f"{DEVICES}/{device.id}/syncDevice")
    mdm.world.at += timedelta(hours=25)
    assert await device.check_in() == []
    await tended(mdm)
    assert sorted(await states(mdm)) == ["done", "expired"]
    found = (await mdm.graph("GET", f"{DEVICES}/{device.id}")).json()["deviceActionResults"]
    assert {item["actionName"]: item["actionState"] for item in found} == {
        "rebootNow": "failed", "syncDevice": "done",
    }  # fmt: skip


async def test_a_sync_that_nobody_heard_has_an_end(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await mdm.graph("POST", f"{DEVICES}/{device.id}/syncDevice")
    await tended(mdm, timedelta(hours=25))
    assert await states(mdm) == ["timedOut"]


async def test_orders_of_a_device_that_leaves_by_itself_are_off(mdm: Mdm) -> None:
    device = await mdm.enrolled()
    await mdm.graph("POST", f"{DEVICES}/{device.id}/wipe")
    item = Item(data="1", type="com.microsoft:mdm.unenrollment.userrequest", format="int")
    await device.begins(Command("Alert", "3", (item,), "1226"))
    (found,) = await orders(mdm)
    assert (found["state"], found["explanation"]) == ("cancelled", "The device has left.")


async def test_lists_are_filtered_by_the_database(mdm: Mdm) -> None:
    devices = await several(mdm, 2)
    for device in devices:
        await mdm.graph("POST", f"{DEVICES}/{device.id}/rebootNow")
    found = await orders(mdm, f"?$filter=deviceId eq '{devices[1].id}' and state eq 'pending'")
    assert [item["deviceName"] for item in found] == ["PC-User1"]
    one = (await mdm.graph("GET", f"tandem/actions/{found[0]['id']}")).json()
    assert (one["action"], one["orderedBy"]) == ("rebootNow", "admin@contoso.com")
