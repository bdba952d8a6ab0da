"""Whom co-management is for: exclusion, pilots, production; and when clients are enrolled."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import Api, CommandFailed, add_device
from tandem.protocols import ccm
from tandem.site import clients, comanagement
from tandem.site.comanagement.model import spread_minutes

URL = "/api/v1/comanagement"


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Three co-managed devices, a client that is not enrolled; a collection of each and of pairs."""
    async with api.db.transaction() as tx:
        for name in ("LAB-001", "LAB-002", "LAB-003"):
            await add_device(tx, name, flags=8193)
        await add_device(tx, "LAB-004", enrolled=False)
    for name, devices in {
        "One": ["LAB-001"],
        "Two": ["LAB-002"],
        "Out": ["LAB-002", "LAB-004"],
    }.items():
        made = await api.web.post("/api/v1/collections", json={"name": name})
        assert made.status_code < 300, made.text
        added = await api.web.post(f"/api/v1/collections/{name}/members", json={"devices": devices})
        assert added.status_code < 300, added.text
    return api


async def put(api: Api, **wanted: Any) -> dict[str, Any]:
    body = {"automatic_enrollment": "all", "access_token": "t", **wanted}
    answer = await api.web.put(URL, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def policies(api: Api, name: str) -> list[str]:
    async with api.db.transaction() as tx:
        (device,) = [one for one in await clients.list_clients(tx) if one.name == name]
        content = await comanagement.policy_content(tx, device.id)
    return sorted(policy.name for policy in content.configuration_policies)


async def content(api: Api, name: str) -> ccm.PolicyContent:
    async with api.db.transaction() as tx:
        (device,) = [one for one in await clients.list_clients(tx) if one.name == name]
        return await comanagement.policy_content(tx, device.id)


async def test_exclusion_goes_before_pilot_and_pilot_before_production(fleet: Api) -> None:
    made = await put(
        fleet,
        workloads={"windows-update": {"position": "pilot", "collections": ["One", "Two"]}},
        staging={"exclusions": ["Out"]},
    )
    assert [one["name"] for one in made["exclusions"]] == ["Out"]
    (slider,) = [one for one in made["workloads"] if one["workload"] == "windows-update"]
    assert [one["name"] for one in slider["pilots"]] == ["One", "Two"]
    assert await policies(fleet, "LAB-001") == [
        "CoMgmtSettingsPilot_windows-update",
        "CoMgmtSettingsProd",
    ]
    assert await policies(fleet, "LAB-002") == []
    assert await policies(fleet, "LAB-003") == ["CoMgmtSettingsProd"]
    assert await policies(fleet, "LAB-004") == []
    status = await fleet.get(f"{URL}/status")
    (move,) = [one for one in status["moves"] if one["workload"] == "windows-update"]
    assert move["to_mdm"] == 1
    members = {one["name"]: one["members"] for one in await fleet.get(f"{URL}/policies")}
    assert members["CoMgmtSettingsProd"] == 2
    # Nobody is kept out any more: the second pilot collection has its device.
    await put(fleet, staging={"exclusions": []})
    assert "CoMgmtSettingsPilot_windows-update_2" in await policies(fleet, "LAB-002")


async def test_one_set_of_pilot_collections_is_for_all_workloads_in_a_pilot(fleet: Api) -> None:
    """The staging of releases up to 1902."""
    await put(
        fleet,
        workloads={
            "windows-update": {"position": "pilot"},
            "client-apps": {"position": "pilot", "collection": "Two"},
        },
        staging={"pilot": ["One"]},
    )
    made = await put(fleet, staging={"pilot": ["One", "Two"]})
    pilots = {
        one["workload"]: [pilot["name"] for pilot in one["pilots"]] for one in made["workloads"]
    }
    assert pilots["windows-update"] == ["One", "Two"]
    assert pilots["client-apps"] == ["One", "Two"]
    assert pilots["compliance-policies"] == []


async def test_a_preview_counts_who_is_kept_out(fleet: Api) -> None:
    await put(fleet, workloads={"client-apps": {"position": "mdm"}})
    preview = await fleet.web.post(f"{URL}/preview", json={"staging": {"exclusions": ["Out"]}})
    changes = {one["workload"]: one for one in preview.json()["changes"]}
    assert (changes["client-apps"]["to_site"], changes["client-apps"]["names"]) == (1, ["LAB-002"])
    assert (await fleet.get(URL))["exclusions"] == []


@pytest.mark.parametrize(
    ("staging", "code"),
    [
        ({"exclusions": ["All Systems"]}, "comanagement.bad-staging"),
        ({"exclusions": ["Nobody"]}, "collection.not-found"),
        ({"exclusions": ["One"] * 51}, "request.invalid"),
        ({"pilot": "One"}, "request.invalid"),
    ],
)
async def test_wrong_staging_changes_nothing(fleet: Api, staging: Any, code: str) -> None:
    await put(fleet, staging={"exclusions": ["One"]})
    _, error = await fleet.refusal("PUT", URL, {"staging": staging})
    assert error["code"] == code
    assert [one["name"] for one in (await fleet.get(URL))["exclusions"]] == ["One"]


async def test_a_collection_that_keeps_devices_out_stays(fleet: Api) -> None:
    await put(fleet, staging={"exclusions": ["Out"]})
    status, error = await fleet.refusal("DELETE", "/api/v1/collections/Out")
    assert (status, error["code"]) == (409, "collection.in-use")


# ---------------------------------------------------------------------- enrolment


def test_a_first_roll_out_is_spread_the_more_clients_there_are() -> None:
    assert spread_minutes(0) == 0
    assert spread_minutes(25) == 2
    assert timedelta(minutes=spread_minutes(100_000)) > timedelta(days=3)
    assert timedelta(minutes=spread_minutes(10_000_000)) == timedelta(days=14)


async def test_clients_that_wait_draw_within_the_spread_and_new_ones_enrol_at_once(
    fleet: Api,
) -> None:
    made = await put(fleet, spread_minutes=600)
    assert made["enablement"]["spread_minutes"] == 600
    spreads = [p.spread_minutes for p in (await content(fleet, "LAB-004")).configuration_policies]
    assert spreads == [600]
    fleet.wait(minutes=5)
    async with fleet.db.transaction() as tx:
        await add_device(tx, "LAB-005", enrolled=False)
        await tx.execute(
            "UPDATE clients_client SET registered_at = %s WHERE name = 'LAB-005'",
            (fleet.clock[0],),
        )
    spreads = [p.spread_minutes for p in (await content(fleet, "LAB-005")).configuration_policies]
    assert spreads == [0]
    status, error = await fleet.refusal("PUT", URL, {"spread_minutes": 99_999_999})
    assert (status, error["details"]["field"]) == (400, "spread_minutes")


async def test_a_client_that_waits_can_be_enrolled_now(fleet: Api) -> None:
    await put(fleet, spread_minutes=5_000)
    assert (await content(fleet, "LAB-004")).enroll_now == ""
    for body in ({"devices": ["lab-004"]}, {"collection": "Out"}):
        before = (await content(fleet, "LAB-004")).enroll_now
        answer = await fleet.web.post(f"{URL}/enroll-now", json=body)
        assert (answer.status_code, answer.json()) == (202, {"devices": 1})
        assert (await content(fleet, "LAB-004")).enroll_now not in ("", before)
    # Who is enrolled, or is not to be, is not ordered to.
    status, error = await fleet.refusal("POST", f"{URL}/enroll-now", {"devices": ["LAB-001"]})
    assert (status, error["code"]) == (409, "comanagement.nothing-to-enroll")
    await put(fleet, staging={"exclusions": ["Out"]})
    status, error = await fleet.refusal("POST", f"{URL}/enroll-now", {"collection": "Out"})
    assert (status, error["code"]) == (409, "comanagement.nothing-to-enroll")
    for wrong in ({}, {"devices": ["NOBODY"]}, {"collection": "Nobody"}):
        status, _ = await fleet.refusal("POST", f"{URL}/enroll-now", wrong)
        assert status in (400, 404)
    actions = [item["action"] for item in await fleet.get("/api/v1/site/audit")]
    assert actions.count("comanagement.enroll-now") == 2


async def test_the_commands_of_staging_and_enrolment(
    fleet: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tandem.cli import comanagement as command

    monkeypatch.setattr(command, "administrator_token", lambda *_: "token")
    async with site_api.commands(fleet, tmp_path) as commands:
        words = ("--workload", "client-apps=pilot", "--pilot", "One", "--pilot", "Two")
        made = await commands.run(
            "comanagement", "enable", "--automatic-enrollment", "all", *words, "--exclude", "Out"
        )
        assert [one["name"] for one in made["exclusions"]] == ["Out"]
        with pytest.raises(CommandFailed):
            await commands.run("comanagement", "enroll-now", "LAB-004")
        made = await commands.run("comanagement", "enable", "--exclude-nobody")
        assert made["exclusions"] == []
        assert (await commands.run("comanagement", "enroll-now", "LAB-004")) == {"devices": 1}
        assert await commands.run("comanagement", "enrollments") == []
        errors = await commands.run("comanagement", "enrollment-errors")
        named = {one["name"]: one["code"] for one in errors}
        assert named["MENROLL_E_USERLICENSE"] == 2149056536
