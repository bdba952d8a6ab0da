"""What an administrator asks devices to do now: through the management point, by real agents, once."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from one_site import TENANT, Moment, Site, log, waits_for_a_lock
from tandem import audit, pki
from tandem.agent import Client, Machine
from tandem.agent.platform.restart import SystemRestart
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import clients, collections, deployments, notifications
from tandem.site.notifications import channel, store
from tandem.workloads import Workload

PATH = "/api/v1/client-notifications"


@dataclass
class Admin:
    web: httpx.AsyncClient
    url: str

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.web.get(f"{self.url}{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, action: str, **to: Any) -> Any:
        answer = await self.web.post(f"{self.url}{PATH}", json={"action": action, **to})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def refusal(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        answer = await self.web.request(method, f"{self.url}{path}", json=body)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["error"]

    async def result(self, operation: Any) -> Any:
        (found,) = (await self.get(f"{PATH}/{operation['id']}"))["devices"]
        return found


@pytest.fixture
def admin(site: Site, web: httpx.AsyncClient) -> Admin:
    return Admin(web, f"https://localhost:{site.port}")


@asynccontextmanager
async def running(client: Client) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(client.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def until(met: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = await met()
        if found:
            return found
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def waits(site: Site) -> None:
    async def held() -> bool:
        return site.channel.waiting > 0

    await until(held)


async def ended(admin: Admin, operation: Any, state: str = "done") -> Any:
    async def is_over() -> Any:
        found = await admin.result(operation)
        return found if found["state"] == state else None

    return await until(is_over)


async def test_a_device_that_waits_does_at_once_what_it_is_asked(
    site: Site, admin: Admin, client: Client, installed: Machine
) -> None:
    slow = Client(replace(installed, minute_seconds=60))
    async with running(slow):
        await waits(site)
        site.content = ccm.PolicyContent(settings={"policy_polling_minutes": 30})
        made = await admin.ask("download-computer-policy", client=client.client_id)
        assert (made["devices"], made["counts"]["done"]) == (1, 0)
        found = await ended(admin, made)
    assert found["text"] == "Policy version 2 is in force."
    assert found["sent_at"] <= found["received_at"] <= found["ended_at"]
    assert installed.mdm.syncs > 0
    (shown,) = (await admin.get(PATH))["operations"]
    assert (shown["counts"]["done"], shown["over"]) == (1, True)
    async with site.db.transaction() as tx:
        told = [e for e in await audit.entries(tx) if e.action == "client-notification.create"]
    assert [(e.target, e.details["devices"]) for e in told] == [("LAB-001", 1)]


async def test_a_device_that_waits_hears_at_once_that_its_policy_has_changed(
    site: Site, client: Client, installed: Machine
) -> None:
    """Nobody asked it: a workload was switched. It takes its policy, and syncs with the MDM service."""
    slow = Client(replace(installed, minute_seconds=60))
    async with running(slow):
        await waits(site)
        syncs = installed.mdm.syncs
        site.content = ccm.PolicyContent(settings={"policy_polling_minutes": 30})
        async with site.db.transaction() as tx:
            await notifications.policy_changed(tx, ["SMS00001"])

        async def has_it() -> bool:
            async with site.db.transaction() as tx:
                return (await clients.find(tx, str(client.client_id))).policy_version == 2

        await until(has_it, 5)

        async def synced() -> bool:
            return installed.mdm.syncs > syncs

        await until(synced, 5)
        await waits(site)


async def test_what_is_deployed_to_users_is_there_at_once_where_they_are_signed_in(
    site: Site, client: Client, installed: Machine
) -> None:
    """And what is taken back is gone as soon; a device of somebody else is not called."""
    site.content = ccm.PolicyContent(
        settings={"enable_user_policy": True, "enable_user_policy_from_internet": True}
    )
    now, told = site.now(), {"actor": "siteadmin", "now": site.now()}
    async with site.db.transaction() as tx:
        for name in ("u1", "u2"):
            user = collections.UserResource(TENANT, name, f"{name}@contoso.com")
            await collections.upsert_user(tx, user, now)
        for name in ("u1", "u2"):
            await collections.create(
                tx,
                "CM1",
                f"Of {name}",
                rules=[collections.WantedRule("direct", user=f"{name}@contoso.com")],
                type=collections.MemberType.USER,
                **told,
            )
    client.wake()
    await client.step()
    async with site.db.transaction() as tx:
        assert await clients.signed_in(tx, [client.client_id]) == {client.client_id: (TENANT, "u1")}
        assert await clients.signed_in(tx, ["another"]) == {}
    slow = Client(replace(installed, minute_seconds=60))

    async def deployed(to: str) -> None:
        async with site.db.transaction() as tx:
            await deployments.create(
                tx, to, setting=f"Desk/{to[-1]}", value="x", collection=to, **told
            )

    async with running(slow):
        await waits(site)
        asked = len([one for one in site.seen if one.url.path.endswith(".sms_pol")])
        await deployed("Of u2")
        site.of_users["u1"] = [
            ccm.Configuration("c1", Workload.DEVICE_CONFIGURATION.value, "Desk/1", "x")
        ]
        await deployed("Of u1")

        async def has_it() -> bool:
            return slow.gate.value("Desk/1") == "x"

        await until(has_it, 30)
        # Called once at most, for what concerns it: the device's policy, and its user's. One that was
        # on its way already may have brought it.
        assert len([one for one in site.seen if one.url.path.endswith(".sms_pol")]) <= asked + 2
        await waits(site)
        site.of_users["u1"] = []
        async with site.db.transaction() as tx:
            await deployments.delete(tx, "Of u1", **told)

        async def gone() -> bool:
            return slow.gate.value("Desk/1") is None

        await until(gone, 30)


async def test_a_site_that_is_busy_calls_nobody_until_it_has_time(
    site: Site, client: Client, installed: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was called would be refused, and come back much later than who was not."""
    waiting, looked = [100], asyncio.Event()

    def look(_: Database) -> int:
        looked.set()
        return waiting[0]

    slow = Client(replace(installed, minute_seconds=60))
    async with running(slow):
        await waits(site)
        site.content = ccm.PolicyContent(settings={"policy_polling_minutes": 30})
        monkeypatch.setattr(Database, "waiting", property(look))
        async with site.db.transaction() as tx:
            await notifications.policy_changed(tx, ["SMS00001"])

        async def turn() -> bool:
            return bool(site.channel.to_come)

        await until(turn, 5)
        for _ in range(2):
            looked.clear()
            await looked.wait()
        assert site.channel.to_come == 1
        waiting[0] = 0

        async def has_it() -> bool:
            async with site.db.transaction() as tx:
                return (await clients.find(tx, str(client.client_id))).policy_version == 2

        await until(has_it, 5)
        assert site.channel.to_come == 0


async def test_a_device_that_is_away_has_it_when_it_comes_until_it_expires(
    site: Site, admin: Admin, client: Client, moment: Moment
) -> None:
    kept = await admin.ask("collect-discovery-data", client=client.client_id, minutes=600)
    lost = await admin.ask("collect-discovery-data", client=client.client_id, minutes=30)
    assert (await admin.result(kept))["state"] == "waiting"
    moment.passes(hours=1)
    assert (await admin.result(lost))["state"] == "expired"
    client.wake()
    await client.step()
    await client.step()
    assert (await admin.result(kept))["state"] == "done"
    assert (await admin.result(lost))["state"] == "expired"


async def test_what_is_brought_again_is_not_done_again(
    site: Site, admin: Admin, client: Client, installed: Machine
) -> None:
    """The answer to the acknowledgement is lost, the agent is killed, and the order comes again."""
    made = await admin.ask("collect-discovery-data", client=client.client_id)
    for _ in range(2):
        # Taken and done, then acknowledged.
        client.wake()
        await client.step()
    assert (await admin.result(made))["state"] == "done"
    again = Client(installed)
    async with site.db.transaction() as tx:
        back = await tx.execute("UPDATE notifications_order SET state = 'sent'")
    assert back.rowcount == 1
    for _ in range(3):
        again.wake()
        await again.step()
    taken = [line for line in log(installed, "CcmNotificationAgent") if line.startswith("Receive")]
    done = [line for line in log(installed, "CcmNotificationAgent") if "is done" in line]
    assert (len(taken), len(done)) == (1, 1)
    # Nobody acknowledges again but who was given it again.
    assert (await admin.result(made))["state"] == "received"


async def test_policy_that_is_not_taken_is_not_reported_as_in_force(
    site: Site, admin: Admin, client: Client
) -> None:
    site.relay = lambda r: Response("forged") if r.url.path.endswith("sms_pol") else None
    made = await admin.ask("download-computer-policy", client=client.client_id)
    for _ in range(3):
        client.wake()
        await client.step()
    found = await admin.result(made)
    assert found["state"] == "failed"
    assert "in force" not in found["text"]


async def test_the_same_thing_asked_for_twice_is_done_once_for_both(
    admin: Admin, client: Client, installed: Machine
) -> None:
    both = [await admin.ask("collect-discovery-data", client=client.client_id) for _ in range(2)]
    client.wake()
    await client.step()
    await client.step()
    assert [(await admin.result(one))["state"] for one in both] == ["done", "done"]
    done = [line for line in log(installed, "CcmNotificationAgent") if "is done" in line]
    assert len(done) == 1


async def test_what_was_cancelled_is_not_done(
    admin: Admin, client: Client, installed: Machine
) -> None:
    made = await admin.ask("collect-discovery-data", client=client.client_id)
    answer = await admin.web.post(f"{admin.url}{PATH}/{made['id']}/cancel")
    assert answer.json()["counts"]["canceled"] == 1
    client.wake()
    await client.step()
    assert (await admin.result(made))["state"] == "canceled"
    status, error = await admin.refusal("POST", f"{PATH}/{made['id']}/cancel")
    assert (status, error["code"]) == (409, "notification.over")


async def test_what_is_cancelled_while_the_device_asks_is_not_done(
    site: Site, admin: Admin, client: Client
) -> None:
    """The device has been read its order, and waits for the row that the cancelling holds."""
    made = await admin.ask("collect-discovery-data", client=client.client_id)
    client.wake()
    async with site.db.transaction() as tx:
        await notifications.cancel(tx, made["id"], actor="a", now=site.now())
        asking = asyncio.create_task(client.step())
        await until(lambda: waits_for_a_lock(site.db))
    await asking
    found = await admin.result(made)
    # Who does it all the same says so.
    assert (found["state"], found["sent_at"]) == ("canceled", None)


async def test_one_order_that_cannot_be_done_now_does_not_hold_up_the_others(
    site: Site, admin: Admin, client: Client
) -> None:
    asked = ("download-computer-policy", "evaluate-co-management")
    made = [await admin.ask(action, client=client.client_id) for action in asked]
    polls = []

    def second_poll_fails(request: Request) -> Response | None:
        if not request.url.path.endswith("/.sms_pol"):
            return None
        polls.append(request)
        return Response(b"", 503) if len(polls) > 1 else None

    site.relay = second_poll_fails
    client.wake()
    await client.step()
    assert len(polls) == 2
    assert [(await admin.result(one))["state"] for one in made] == ["sent", "done"]
    site.relay = lambda request: None
    client.wake()
    await client.step()
    assert [(await admin.result(one))["state"] for one in made] == ["done", "done"]


async def test_a_clock_that_is_a_little_ahead_loses_no_order(
    site: Site, admin: Admin, client: Client, installed: Machine, moment: Moment
) -> None:
    own = Moment()
    own.at = moment() + timedelta(minutes=4)
    here = Client(replace(installed, now=own))
    made = await admin.ask("collect-discovery-data", client=client.client_id, minutes=5)
    moment.passes(minutes=3)
    own.passes(minutes=3)
    await here.step()
    assert (await admin.result(made))["state"] == "done"


async def test_answers_that_bring_nothing_new_are_not_asked_for_without_a_pause(
    site: Site, client: Client, installed: Machine, moment: Moment
) -> None:
    later = moment() + timedelta(hours=1)
    nothing = ccm.Notifications(client.client_id, moment(), later, [])
    document, asked = ccm.seal("notification", nothing, site.identity), asyncio.Event()
    count = 0

    def always(request: Request) -> Response | None:
        nonlocal count
        if not request.url.path.endswith("/bgb"):
            return None
        count += 1
        asked.set()
        return Response(document)

    site.relay = always
    async with running(Client(replace(installed, minute_seconds=60))):
        await asked.wait()
        await asyncio.sleep(0.3)
        assert count <= 2


async def test_where_too_many_wait_an_order_comes_all_the_same(
    site: Site, admin: Admin, client: Client, installed: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who has to wait takes a place, and what it acknowledged counts."""
    monkeypatch.setattr(site.channel, "_most", 0)
    made = await admin.ask("collect-discovery-data", client=client.client_id)
    client.wake()
    await client.step()
    assert (await admin.result(made))["state"] == "done"
    request = ccm.NotificationRequest([], 5, ccm.Location())
    answer = await client._session.post("/bgb", request)
    assert (answer.status_code, answer.headers.get("retry-after")) == (204, "600")
    count = len(site.seen)
    async with running(Client(replace(installed, minute_seconds=60))):

        async def asked() -> bool:
            return sum(r.url.path.endswith("/bgb") for r in site.seen[count:]) >= 1

        await until(asked)
        await asyncio.sleep(0.3)
        # The agent does as it is told: it polls, and does not ask without a pause.
        assert sum(r.url.path.endswith("/bgb") for r in site.seen[count:]) <= 2


async def test_a_site_without_notifications_is_asked_again_when_the_clock_was_put_back(
    site: Site, admin: Admin, client: Client, installed: Machine, moment: Moment
) -> None:
    own = Moment()
    own.at = moment() + timedelta(minutes=4)
    here = Client(replace(installed, now=own))
    site.relay = lambda r: Response(b"", 404) if r.url.path.endswith("/bgb") else None
    await here.step()
    site.relay = lambda request: None
    made = await admin.ask("collect-discovery-data", client=client.client_id)
    own.passes(minutes=-8)
    here.wake()
    await here.step()
    assert (await admin.result(made))["state"] == "done"


async def test_a_mistake_in_hearing_does_not_end_the_hearing(
    site: Site,
    admin: Admin,
    client: Client,
    installed: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told_of, failed = store.told_of, asyncio.Event()

    async def told(*asked: Any) -> list[str]:
        if failed.is_set():
            return await told_of(*asked)
        failed.set()
        raise ValueError("a mistake")

    monkeypatch.setattr(store, "told_of", told)
    monkeypatch.setattr(channel, "_AGAIN_SECONDS", 0.05)
    async with running(Client(replace(installed, minute_seconds=60))):
        await waits(site)
        made = await admin.ask("collect-discovery-data", client=client.client_id)
        await failed.wait()
        await ended(admin, made)


async def test_what_a_client_cannot_do_fails_with_the_cause(
    admin: Admin, client: Client, installed: Machine
) -> None:
    asked = {
        "collect-hardware-inventory": "notification.not-here",
        "download-user-policy": "policy.no-user",
        "restart": "restart.impossible",
        "evaluate-configurations": "notification.not-here",
    }
    made = {action: await admin.ask(action, client=client.client_id) for action in asked}
    client.wake()
    await client.step()
    for action, code in asked.items():
        found = await admin.result(made[action])
        assert (found["state"], found["code"]) == ("failed", code)
        assert found["text"].endswith(".")


async def test_a_restart_is_done_when_the_device_has_started_again(
    site: Site, admin: Admin, client: Client, installed: Machine, tmp_path: Path
) -> None:
    boot, calls = tmp_path / "boot_id", tmp_path / "calls"
    boot.write_text("first\n")
    script = f"open({str(calls)!r}, 'a').write('r')"
    machine = replace(installed, restart=SystemRestart((sys.executable, "-c", script), boot))
    here = Client(machine)
    made = await admin.ask("restart", client=client.client_id)
    for _ in range(3):
        here.wake()
        await here.step()
    assert calls.read_text() == "r"
    assert (await admin.result(made))["state"] == "received"
    boot.write_text("second\n")
    after = Client(machine)
    await after.step()
    found = await admin.result(made)
    assert (found["state"], found["text"]) == ("done", "The device has started again.")
    assert calls.read_text() == "r"


async def test_a_restart_that_the_system_refuses_says_why(
    admin: Admin, client: Client, installed: Machine, tmp_path: Path
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    script = "import sys; sys.exit('Access denied')"
    here = Client(replace(installed, restart=SystemRestart((sys.executable, "-c", script), boot)))
    made = await admin.ask("restart", client=client.client_id)
    here.wake()
    await here.step()
    found = await admin.result(made)
    assert found["state"] == "failed"
    assert found["text"].endswith("ended with 1: Access denied")


async def test_an_order_that_the_site_did_not_sign_is_not_followed(
    site: Site, admin: Admin, client: Client, installed: Machine, moment: Moment
) -> None:
    impostor = pki.new_root(pki.name("SMS Issuing"), now=moment())
    key = pki.generate_key()
    leaf = impostor.issue(key.public_key(), pki.name("x"), now=moment(), days=9, usages=["code"])
    later = moment() + timedelta(hours=1)
    order = ccm.Order("11111111-2222-4333-8444-555555555555", "collect-discovery-data", later)
    other = ccm.Notifications("GUID:OTHER", moment(), later, [order])
    mine = ccm.Notifications(client.client_id, moment(), later, [order])
    old = ccm.Notifications(client.client_id, moment(), moment(), [order])
    forged = ccm.seal("notification", mine, ccm.SigningIdentity(key, leaf, impostor.certificate))
    bodies = [
        forged,
        ccm.seal("notification", other, site.identity),
        ccm.seal("notification", old, site.identity),
        ccm.seal("policy", mine, site.identity),
        "x" * 100,
    ]
    site.relay = lambda r: Response(bodies.pop()) if r.url.path.endswith("/bgb") else None
    for _ in range(5):
        client.wake()
        await client.step()
    assert not bodies
    lines = log(installed, "CcmNotificationAgent")
    assert not [line for line in lines if line.startswith("Receive")]
    assert any("not by the site" in line for line in lines)


async def test_a_blocked_client_is_neither_counted_nor_told(
    site: Site, admin: Admin, client: Client
) -> None:
    async with site.db.transaction() as tx:
        await clients.block(tx, client.client_id, actor="a", now=site.now())
    status, error = await admin.refusal(
        "POST", PATH, action="collect-discovery-data", client=client.client_id
    )
    assert (status, error["code"]) == (409, "notification.nobody")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"action": "explode", "client": "x"}, "notification.unknown-action"),
        ({"action": "wake-up", "client": "x"}, "notification.unknown-action"),
        ({"action": "restart"}, "request.invalid"),
        ({"action": "restart", "client": "x", "collection": "y"}, "request.invalid"),
        ({"action": "restart", "client": "x"}, "client.not-found"),
        ({"action": "restart", "collection": "nope"}, "collection.not-found"),
        ({"action": "restart", "client": "x", "minutes": 1}, "notification.bad-life"),
        ({"action": "restart", "client": "x", "minutes": 1e9}, "notification.bad-life"),
    ],
)
async def test_what_nobody_can_do_is_refused(admin: Admin, body: dict[str, Any], code: str) -> None:
    status, error = await admin.refusal("POST", PATH, **body)
    assert 400 <= status < 500
    assert error["code"] == code
    assert error["message"]


async def test_a_request_that_is_not_signed_by_the_client_waits_for_nothing(
    site: Site, client: Client
) -> None:
    web = client._machine.http
    path = f"https://localhost:{site.port}/CCM_Proxy_ServerAuth/72057594037927941/bgb"
    for body in (b"", b"{}", b'{"wait_seconds": 1e99}', b"\xff" * 20, b"x" * 9000):
        answer = await web.post(path, content=body)
        assert answer.status_code in (401, 413), (body, answer.text)
    assert site.channel.waiting == 0


async def test_a_restart_of_a_collection_names_how_many_first(
    site: Site, admin: Admin, client: Client
) -> None:
    status, error = await admin.refusal("POST", PATH, action="restart", collection="SMS00001")
    assert (status, error["code"]) == (409, "notification.count-changed")
    assert "1 devices of All Systems" in error["message"]
    made = await admin.ask("restart", collection="SMS00001", expected=1)
    assert (made["target"], made["devices"]) == ("All Systems", 1)


async def test_online_and_activity_are_shown(
    site: Site, admin: Admin, client: Client, moment: Moment
) -> None:
    shown = await admin.get(f"{PATH}/clients/{client.client_id}")
    assert shown["channel"]["online"] is True
    assert shown["activity"]["active"] is True
    assert shown["activity"]["heartbeat_at"] is not None
    moment.passes(minutes=6)
    shown = await admin.get(f"{PATH}/clients/{client.client_id}")
    assert shown["channel"]["online"] is False
    moment.passes(days=8)
    shown = await admin.get(f"{PATH}/clients/{client.client_id}")
    assert shown["activity"]["active"] is False
