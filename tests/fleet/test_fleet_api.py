"""Devices and dashboard of the admin API, with a tenant that answers, lags or is gone."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

import site_api
from site_api import NOW, TENANT, Api, add_device, report
from tandem.infra.database import Database, Tx
from tandem.protocols import ccm
from tandem.site import fleet
from tandem.workloads import Workload

DASHBOARD, DEVICES = "/api/v1/comanagement/dashboard", "/api/v1/devices"


async def registered(api: Api, *names: str, **state: Any) -> None:
    async with api.db.transaction() as tx:
        for name in names:
            await add_device(tx, name, **state)


async def names(api: Api, **query: Any) -> list[str]:
    return [device["name"] for device in (await api.get(DEVICES, **query))["devices"]]


async def said(
    tx: Tx, device_id: str, topic: int, state: int, data: dict[str, Any], id: str = "1"
) -> None:
    await tx.execute(
        "INSERT INTO clients_timeline"
        " (tenant_id, device_id, message_id, topic, state, at, received_at, data)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (TENANT, device_id, id, topic, state, NOW, NOW, Jsonb(data)),
    )


async def test_the_tenants_word_on_enrolment_counts_once_it_was_heard(api: Api) -> None:
    await registered(api, "LAB-001", flags=8193 + 64)
    await registered(api, "LAB-002", flags=8193)
    alone = await api.get(DASHBOARD)
    assert alone["without_tenant"] == "The site is not connected to a tenant."
    assert alone["stages"]["co-managed"] == 2
    assert alone["workloads"]["client-apps"] == 1
    graph = api.cloud.graph
    graph.knows("d-LAB-001")
    graph.knows("d-LAB-003", enrolled=False, licensed=False)
    graph.refuses("d-LAB-003", 0x80180018)
    graph.lists["deviceAppManagement/mobileApps"] = [
        {"id": "a-1", "commandLine": 'CCMSETUPCMD="CCMHOSTNAME=gw"'},
        {"id": "a-2", "commandLine": "/quiet"},
    ]
    graph.offered, graph.installed = {"m-d-LAB-001", "m-x"}, {"m-d-LAB-001"}
    await api.keeper.tend()
    both = await api.get(DASHBOARD)
    assert both["without_tenant"] == ""
    assert both["devices"] == 3
    assert both["operating_systems"]["current"] == 2
    assert both["funnel"] == {"eligible": 2, "scheduled": 0, "initiated": 0, "enrolled": 1}
    assert both["enrollment"]["success-joined"] == 1
    assert both["enrollment"]["failure-joined"] == 1
    assert both["errors"] == {str(0x80180018): 1}
    assert both["stages"] == {
        "licensed": 1,
        "enrolled": 1,
        "app-offered": 1,
        "msi-installed": 1,
        "registered": 2,
        "policy": 2,
        "co-managed": 1,
    }
    assert both["workloads"] == {
        workload.value: int(workload is Workload.CLIENT_APPS) for workload in Workload
    }


async def test_a_site_fact_is_in_the_next_answer(api: Api) -> None:
    """Nothing has to run in between: whoever asks has what has changed until then."""
    await registered(api, "LAB-001", policy=False)
    assert await names(api) == ["LAB-001"]
    assert await names(api, stage="policy") == []
    async with api.db.transaction() as tx:
        await report(tx, "GUID:LAB-001", flags=8193)  # type: ignore[arg-type]
        await said(tx, "d-LAB-009", ccm.SETUP_TOPIC, 314, {"log": "no manifest 0x87d0027e"})
    assert await names(api, stage="policy") == ["LAB-001"]
    (stuck,) = (await api.get(DEVICES, search="D-LAB-009"))["devices"]
    assert (stuck["trouble"], stuck["registered"]) == ("no manifest 0x87d0027e", False)
    async with api.db.transaction() as tx:
        await tx.execute("DELETE FROM clients_client")
    assert await names(api) == ["d-LAB-009"]


async def test_what_the_tenant_says_no_more_goes(api: Api) -> None:
    graph = api.cloud.graph
    for number in range(5):
        graph.knows(f"d-{number}")
    await api.keeper.read()
    api.cloud.graph.refuses("d-9", 0x80180018)
    await api.keeper.read()
    assert len(await names(api)) == 6
    graph.lists["deviceManagement/managedDevices"] = []
    graph.lists["deviceManagement/troubleshootingEvents"] = []
    del graph.lists["devices"][0]
    await api.keeper.read()
    found = (await api.get(DEVICES))["devices"]
    assert [(d["id"], d["mdm_enrolled"]) for d in found] == [
        (f"d-{n}", False) for n in (1, 2, 3, 4)
    ]


async def test_a_silent_tenant_leaves_what_was_heard_with_its_age_and_the_reason(api: Api) -> None:
    await registered(api, "LAB-001")
    api.cloud.graph.knows("d-LAB-001")
    await api.keeper.tend()
    heard = (await api.get(DEVICES))["tenant"]
    assert (heard["read_at"], heard["silence"]) == ("2026-11-24T09:00:00Z", "")
    api.cloud.graph.gone = "The tenant does not answer."
    api.wait(minutes=7)
    await api.keeper.tend()
    told = await api.get(DEVICES)
    assert told["tenant"] == {"read_at": heard["read_at"], "silence": "The tenant does not answer."}
    assert [device["management"] for device in told["devices"]] == ["co-managed"]
    assert (await api.get(DASHBOARD))["without_tenant"] == "The tenant does not answer."


async def test_another_tenant_begins_anew(api: Api) -> None:
    api.cloud.graph.knows("d-1")
    await api.keeper.tend()
    assert await names(api) == ["d-1"]
    api.cloud.tenant = ""
    await api.keeper.tend()
    assert await names(api) == []
    assert (await api.get(DEVICES))["tenant"]["silence"] == "The site is not connected to a tenant."


async def test_the_tenant_is_read_often_only_while_somebody_looks(api: Api) -> None:
    asked = api.cloud.graph.asked
    await api.keeper.tend()
    first = len(asked)
    assert first
    api.wait(seconds=30)
    await api.keeper.tend()
    assert len(asked) == first
    await api.get(DEVICES)
    await api.keeper.tend()
    assert len(asked) == 2 * first
    api.wait(seconds=1)
    await api.keeper.tend()
    assert len(asked) == 2 * first
    api.wait(minutes=2)
    await api.keeper.tend()
    assert len(asked) == 3 * first


async def test_a_reading_that_takes_long_is_repeated_seldom(api: Api) -> None:
    asked = api.cloud.graph.asked
    await api.keeper.tend()
    first = len(asked)
    async with api.db.transaction() as tx:
        await tx.execute("UPDATE fleet_reading SET took_seconds = 30")
    await api.get(DEVICES)
    for minutes, times in ((4, 1), (2, 2)):
        api.wait(minutes=minutes)
        await api.get(DEVICES)
        await api.keeper.tend()
        assert len(asked) == times * first


async def test_one_replica_reads_and_every_replica_answers(api: Api, site_db: Database) -> None:
    """Two sites on one database: a claim keeps the second from reading, and ends with a crash."""
    other = fleet.Keeper(await Database.open(site_db.dsn, 2), api.cloud.fleet, lambda: api.clock[0])
    api.cloud.graph.knows("d-1")
    reading_inside: list[int] = []

    async def get(path: str, real: Any = api.cloud.graph.get) -> Any:
        before = len(api.cloud.graph.asked)
        await other.tend()
        reading_inside.append(len(api.cloud.graph.asked) - before)
        return await real(path)

    api.cloud.graph.get = get  # type: ignore[method-assign]
    await api.keeper.tend()
    assert reading_inside
    assert not any(reading_inside)
    assert await names(api) == ["d-1"]
    async with api.db.transaction() as tx:
        await tx.execute("UPDATE fleet_reading SET claimed_until = %s", (NOW + timedelta(1),))
    api.wait(hours=25)
    del api.cloud.graph.get  # type: ignore[method-assign]
    before = len(api.cloud.graph.asked)
    await other.tend()
    assert len(api.cloud.graph.asked) > before
    await other._db.close()


async def test_a_site_that_ends_in_the_middle_leaves_the_reading_to_the_next(api: Api) -> None:
    begun, stop = asyncio.Event(), asyncio.Event()
    graph = api.cloud.graph
    graph.knows("d-1")
    real = graph.get

    async def never(path: str) -> Any:
        begun.set()
        await asyncio.Event().wait()

    graph.get = never  # type: ignore[method-assign]
    running = asyncio.create_task(api.keeper.run(stop))
    await asyncio.wait_for(begun.wait(), 20)
    stop.set()
    await asyncio.wait_for(running, 5)
    graph.get = real  # type: ignore[method-assign]
    api.wait(seconds=1)
    await api.keeper.tend()
    assert await names(api) == ["d-1"]


async def test_the_answer_is_the_same_from_any_replica(api: Api, site_db: Database) -> None:
    await registered(api, *(f"LAB-{n:03}" for n in range(120)))
    second = await Database.open(site_db.dsn, 2)
    try:
        gate = site_api.administrators.Gate(second, lambda: NOW, site_api.CHEAP)
        app = site_api.http.application(
            fleet.routes(second, api.cloud.fleet, gate, lambda: NOW), role="site"
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://two.test") as web:
            web.headers.update(api.web.headers)
            found: list[str] = []
            after = ""
            for turn in range(20):
                client = (api.web, web)[turn % 2]
                answer = await client.get(DEVICES, params={"after": after, "limit": 13})
                found += [device["name"] for device in answer.json()["devices"]]
                after = answer.json()["after"]
                if not after:
                    break
        assert found == [f"LAB-{n:03}" for n in range(120)]
    finally:
        await second.close()


@pytest.mark.parametrize(
    "query",
    [
        {"stage": "moon"},
        {"limit": "0"},
        {"limit": "1001"},
        {"offset": "-1"},
        {"sort": "name; DROP TABLE fleet_device"},
        {"colour": "red"},
        {"error": "-1"},
        {"error": "99999999999999999999"},
        {"search": "x" * 257},
        {"search": "a\0b"},
        {"after": "a\0b"},
        {"after": "%%%"},
        {"after": "WzFd"},
        {"after": "WyJ4IiwieSJd", "sort": "seen"},
        {"failed": "perhaps"},
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(api: Api, query: dict[str, str]) -> None:
    answer = await api.web.get(DEVICES, params=query)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


async def test_a_tenant_may_send_anything(api: Api) -> None:
    graph = api.cloud.graph
    graph.lists["devices"] = [
        {"deviceId": "d-1", "displayName": "<script>alert(1)</script>\0\ud800", "trustType": 7},
        {"deviceId": None},
        {"deviceId": {"a": 1}, "registeredOwners": "x"},
        {"deviceId": "d-2", "displayName": "L" * 100_000, "registeredOwners": [None, {}]},
        {"deviceId": "d-3", "displayName": "", "operatingSystemVersion": "1e9.-3..٣"},
    ]
    graph.lists["deviceManagement/managedDevices"] = [
        {"id": "m-1", "azureADDeviceId": "d-1", "deviceName": None, "lastSyncDateTime": "never"},
        {"id": "m-2", "configurationManagerClientInformation": [1], "userPrincipalName": 5},
    ]
    graph.lists["deviceManagement/troubleshootingEvents"] = [
        {"deviceId": "d-3", "failureCode": -2145910760, "eventDateTime": None},
        {"deviceId": "d-4", "failureReason": "no code (0xZZ)"},
        {"failureCode": 1},
    ]
    await api.keeper.read()
    found = {device["id"]: device for device in (await api.get(DEVICES))["devices"]}
    assert set(found) == {"d-1", "d-2", "d-3", "m-2"}
    assert found["d-3"]["enrollment_error"] == 0x80180018
    assert len(found["d-2"]["name"]) == 1000
    for sort in fleet.Sort:
        assert len(await names(api, sort=sort.value)) == 4


# One device, and many at once


async def test_a_devices_page_has_both_accounts(api: Api) -> None:
    await registered(api, "LAB-001", flags=8193 + 64)
    graph = api.cloud.graph
    graph.knows("d-LAB-001", user="ada@contoso.com", managed={"model": "Book 5"})
    graph.lists["deviceManagement/managedDevices/m-d-LAB-001/timeline"] = [
        {"dateTime": "2026-11-24T08:00:00Z", "text": "Enrolled", "code": None}
    ]
    await api.keeper.tend()
    found = await api.get(f"{DEVICES}/d-LAB-001")
    assert found["device"]["management"] == "co-managed"
    assert found["mdm"]["model"] == "Book 5"
    assert found["client"]["id"] == "GUID:LAB-001"
    assert [item["text"] for item in found["tenant_timeline"]] == ["Enrolled"]
    assert {owner["workload"]: owner["reported"] for owner in found["owners"]}[
        "client-apps"
    ] == "mdm"
    assert {item["name"] for item in found["collections"]} == {
        "All Systems",
        "All Desktop and Server Clients",
        "Co-management Eligible Devices",
    }
    assert found["settings"]
    status, error = await api.refusal("GET", f"{DEVICES}/nobody")
    assert (status, error["code"]) == (404, "fleet.no-such-device")


async def test_users_of_co_managed_devices_without_a_licence_are_counted_and_listed(
    api: Api,
) -> None:
    await registered(api, "LAB-001", "LAB-002", "LAB-003", "LAB-004")
    graph = api.cloud.graph
    graph.knows("d-LAB-001", user="ada@contoso.com", licensed=False)
    graph.knows("d-LAB-002", user="Ada@Contoso.com", licensed=False)
    graph.knows("d-LAB-003", user="bob@contoso.com")
    graph.knows("d-LAB-004", user="eve@contoso.com", licensed=False, enrolled=False)
    await api.keeper.tend()
    assert (await api.get(DASHBOARD))["unlicensed_users"] == 1
    assert await names(api, unlicensed="true") == ["LAB-001", "LAB-002"]


async def test_many_devices_are_blocked_at_once_as_somebody_agreed(api: Api) -> None:
    await registered(api, "LAB-001", "LAB-002", "PC-003")
    api.cloud.graph.knows("d-LAB-009", name="LAB-009")
    await api.keeper.tend()
    wanted: dict[str, Any] = {"filter": {"search": "lab-"}}
    reach = await api.post(f"{DEVICES}/selection", wanted)
    assert reach == {
        "devices": 3,
        "names": ["LAB-001", "LAB-002", "LAB-009"],
        "clients": 2,
        "without_client": 1,
        "blocked": 0,
    }
    await registered(api, "LAB-004")
    status, error = await api.refusal("POST", f"{DEVICES}/block", {**wanted, "expected": 3})
    assert (status, error["code"]) == (409, "fleet.selection-changed")
    assert error["details"]["devices"] == 4
    done = await api.post(f"{DEVICES}/block", {**wanted, "expected": 4})
    assert done["changed"] == 3
    assert await names(api, blocked="true") == ["LAB-001", "LAB-002", "LAB-004"]
    done = await api.post(f"{DEVICES}/unblock", {"devices": ["d-LAB-001", "d-PC-003"]})
    assert done["changed"] == 1
    async with api.db.transaction() as tx:
        rows = await (await tx.execute("SELECT * FROM audit_entry ORDER BY id")).fetchall()
    entries = [(row["action"], row["actor"], row["details"]["changed"]) for row in rows[-2:]]
    assert entries == [
        ("client.block-many", "siteadmin", 3),
        ("client.unblock-many", "siteadmin", 1),
    ]
    assert rows[-2]["details"]["filter"] == {"search": "lab-"}


async def test_many_devices_go_into_a_collection(api: Api) -> None:
    await registered(api, "LAB-001", "LAB-002", "PC-003")
    await api.web.post("/api/v1/collections", json={"name": "Pilot"})
    wanted = {"filter": {"search": "LAB"}, "collection": "Pilot"}
    assert (await api.post(f"{DEVICES}/add-to-collection", wanted))["changed"] == 2
    assert (await api.post(f"{DEVICES}/add-to-collection", wanted))["changed"] == 0
    shown = await api.get(f"{DEVICES}/d-LAB-002")
    assert "Pilot" in [item["name"] for item in shown["collections"]]
    assert len(shown["collections"]) == 4
    for collection, code in (("Nowhere", 404), ("SMS00001", 409)):
        status, _ = await api.refusal(
            "POST", f"{DEVICES}/add-to-collection", {**wanted, "collection": collection}
        )
        assert status == code


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"devices": []},
        {"devices": ["x"] * 1001},
        {"devices": ["a\0b"]},
        {"filter": {"stage": "moon"}},
        {"filter": {"drop": "table"}},
        {"filter": {"search": "\0"}},
    ],
)
async def test_a_selection_that_selects_nothing_clear_is_refused(
    api: Api, body: dict[str, Any]
) -> None:
    for action in ("selection", "block", "unblock", "add-to-collection"):
        status, error = await api.refusal("POST", f"{DEVICES}/{action}", body)
        assert status == 400
        assert error["message"]


async def test_who_may_only_read_blocks_nobody(api: Api) -> None:
    await registered(api, "LAB-001")
    given = {"name": "reader", "role": "Read-only Analyst", "password": "Correct-Horse-9"}
    await api.web.post("/api/v1/administrators", json=given)
    await api.sign_in("reader", "Correct-Horse-9")
    assert await names(api) == ["LAB-001"]
    for action in ("block", "unblock", "add-to-collection"):
        status, error = await api.refusal(
            "POST", f"{DEVICES}/{action}", {"filter": {}, "collection": "Pilot"}
        )
        assert status == 403
        assert "Operations Administrator" in error["message"]


async def test_the_commands_list_and_act_on_many(api: Api, tmp_path: Path) -> None:
    await registered(api, "LAB-001", "LAB-002", "PC-003")
    await api.web.post("/api/v1/collections", json={"name": "Pilot"})
    async with site_api.commands(api, tmp_path) as tandem:
        found = await tandem.run("device", "list", "--search", "lab", "--stage", "policy")
        assert (found["total"], [d["name"] for d in found["devices"]]) == (
            2,
            ["LAB-001", "LAB-002"],
        )
        shown = await tandem.run("device", "show", "PC-003")
        assert shown["device"]["stages"] == ["enrolled", "registered", "policy", "co-managed"]
        assert (await tandem.run("device", "block", "--search", "LAB"))["changed"] == 2
        assert (await tandem.run("device", "unblock", "d-LAB-001"))["changed"] == 1
        assert (await tandem.run("device", "unblock", "--all"))["devices"] == 1
        added = await tandem.run("device", "add-to-collection", "Pilot", "--all")
        assert added["changed"] == 3
        refused = await tandem.refusal("device", "block")
        assert "No device is selected." in str(refused)
        await tandem.refusal("device", "list", "--stage", "moon")
