"""A workload moves ring by ring: gap analysis, gates, a halt, and the way back."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import site_api
from rollout_world import ALL, GATE, MDM, SETTING, URL, Site, app, offered
from site_api import NOW, add_device, report
from tandem.cli.main import build
from tandem.protocols import ccm
from tandem.site import clients, collections

# ---------------------------------------------------------------------------- rings


async def test_rings_follow_each_other_as_each_one_is_well(site: Site) -> None:
    id = await site.started("Pilot", "Second", "All Systems")
    assert await site.standing(id) == {
        "LAB-001": ("pending", "not-asked"),
        "LAB-002": ("waiting", ""),
        "LAB-003": ("waiting", ""),
        "LAB-004": ("waiting", ""),
    }
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [MDM, 8193, 8193]
    assert (await site.tend(id))["ring"] == 1  # Nobody has followed.

    await site.follows("LAB-001")
    found = await site.tend(id)
    assert (found["ring"], [ring["state"] for ring in found["rings"]]) == (
        2,
        ["passed", "running", "waiting"],
    )
    # The second ring takes nothing from the first.
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [MDM, MDM, 8193]
    assert (await site.slider())["position"] == "pilot"

    await site.follows("LAB-002")
    assert (await site.tend(id))["ring"] == 3
    slider = await site.slider()
    assert (slider["position"], slider["also"]) == ("mdm", [])
    await site.follows("LAB-003", "LAB-004")
    found = await site.tend(id)
    assert (found["state"], found["counts"]["done"]) == ("finished", 4)
    assert [entry["action"] for entry in found["history"]] == [
        "rollout.plan",
        "rollout.start",
        "rollout.ring",
        "rollout.pass",
        "rollout.ring",
        "rollout.pass",
        "rollout.ring",
        "rollout.pass",
        "rollout.finish",
    ]
    assert (await site.tend(id))["settled_at"] is not None


async def test_a_device_is_done_when_both_authorities_say_so(site: Site) -> None:
    site.offers("LAB-001", offered())
    id = await site.started("Pilot")
    await site.follows("LAB-001")
    await site.conductor.tend()
    assert await site.standing(id) == {"LAB-001": ("pending", "mdm-pending")}
    site.offers("LAB-001", offered(outcome="success"))
    assert (await site.tend(id))["state"] == "finished"


async def test_why_a_device_does_not_follow_is_told(site: Site) -> None:
    id = await site.started("All Systems", offline_minutes=75)
    await site.follows("LAB-001", flags=8193)
    async with site.api.db.transaction() as tx:
        await tx.execute(
            "UPDATE clients_client SET policy_at = %s, state_at = NULL WHERE name = 'LAB-002'",
            (NOW,),
        )
    await site.conductor.tend()
    assert await site.standing(id) == {
        "LAB-001": ("pending", "kept"),
        "LAB-002": ("pending", "not-reported"),
        "LAB-003": ("pending", "not-asked"),
        "LAB-004": ("pending", "not-asked"),
    }


async def test_who_is_silent_is_offline_and_not_done(site: Site) -> None:
    id = await site.started("Second", offline_minutes=20)
    site.api.wait(minutes=21)
    await site.follows("LAB-001")
    found = await site.tend(id)
    assert await site.standing(id) == {"LAB-001": ("done", ""), "LAB-002": ("offline", "silent")}
    assert found["state"] == "running"
    await site.follows("LAB-002")
    assert (await site.tend(id))["state"] == "finished"


async def test_a_ring_is_watched_for_as_long_as_was_asked(site: Site) -> None:
    id = await site.started("Pilot", gate={"soak_minutes": 15})
    await site.follows("LAB-001")
    assert (await site.tend(id))["state"] == "running"
    site.api.wait(minutes=15)
    assert (await site.tend(id))["state"] == "finished"


async def test_a_device_that_leaves_the_site_is_not_counted(site: Site) -> None:
    id = await site.started("Second")
    async with site.api.db.transaction() as tx:
        await tx.execute("DELETE FROM clients_client WHERE name = 'LAB-002'")
    await site.follows("LAB-001")
    found = await site.tend(id)
    assert (found["state"], found["counts"]["left"]) == ("finished", 1)


# ---------------------------------------------------------------------------- gates


async def _noncompliant(site: Site, name: str = "LAB-001") -> None:
    for item in site.api.cloud.graph.lists["deviceManagement/managedDevices"]:
        if item["deviceName"] == f"d-{name}":
            item["complianceState"] = "noncompliant"


async def _mdm_error(site: Site) -> None:
    site.offers("LAB-001", offered(outcome="error", reason="The device answered 500."))


async def _tells_no_settings(site: Site) -> None:
    """As the vendor's Graph, which has no such question."""
    lists = site.api.cloud.graph.lists
    for name in [name for name in lists if name.endswith("/settings")]:
        lists.pop(name)


async def _gone_from_tenant(site: Site) -> None:
    site.api.cloud.graph.lists.pop("deviceManagement/managedDevices/m-d-LAB-001/settings")


async def _unenrolled(site: Site) -> None:
    async with site.api.db.transaction() as tx:
        await report(tx, clients.ClientId("GUID:LAB-001"), flags=MDM, enrolled=False)


async def _blocked(site: Site) -> None:
    async with site.api.db.transaction() as tx:
        await tx.execute("UPDATE clients_client SET blocked = true WHERE name = 'LAB-001'")


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (_noncompliant, "noncompliant"),
        (_mdm_error, "mdm-error"),
        (_gone_from_tenant, "mdm-error"),
        (_unenrolled, "unenrolled"),
        (_blocked, "blocked"),
    ],
)
async def test_a_failed_gate_halts_and_alarms(site: Site, trouble: Any, code: str) -> None:
    id = await site.started("Pilot", "All Systems")
    await site.follows("LAB-001")
    await trouble(site)
    found = await site.tend(id)
    assert (found["state"], found["cause"]["code"]) == ("halted", "too-many-failed")
    assert (await site.standing(id))["LAB-001"] == ("failed", code)
    assert found["rings"][0]["state"] == "failed"
    assert found["history"][-1]["action"] == "rollout.halt"
    # Nobody else is moved, however often it is looked at.
    assert (await site.tend(id))["ring"] == 1
    assert await site.flags("LAB-002") == 8193


async def test_what_was_not_compliant_before_its_ring_is_not_the_moves_fault(site: Site) -> None:
    id = await site.started("Pilot", "Second")
    await _noncompliant(site, "LAB-002")
    await site.follows("LAB-001")
    assert (await site.tend(id))["ring"] == 2
    await site.follows("LAB-002")
    assert (await site.tend(id))["state"] == "finished"


@pytest.mark.parametrize(
    ("setting", "source", "failed", "state"),
    [
        ("TandemUnits/web", "mdm", True, "halted"),
        ("TandemUnits/web", "mdm", False, "finished"),
        ("TandemUnits/web", "site", True, "finished"),
        ("TandemApps/vim", "mdm", True, "finished"),  # Another workload's.
    ],
)
async def test_what_a_device_could_not_bring_about_counts(
    site: Site, setting: str, source: str, failed: bool, state: str
) -> None:
    id = await site.started("Pilot")
    enacted = {setting: ccm.Enacted(source, "unit.failed", "It does not start.", NOW, failed)}
    await site.follows("LAB-001", enacted=enacted)
    assert (await site.tend(id))["state"] == state
    if state == "halted":
        (one,) = (await site.api.get(f"{URL}/{id}/devices"))["items"]
        assert one["cause"] == {
            "code": "effect",
            "text": "The device reports for TandemUnits/web: It does not start.",
        }


async def test_a_tenant_that_does_not_tell_settings_leaves_the_clients_word(site: Site) -> None:
    id = await site.started("Pilot")
    await _tells_no_settings(site)
    await site.follows("LAB-001")
    assert (await site.tend(id))["state"] == "finished"


async def test_a_gate_does_not_pass_while_the_tenant_is_silent(site: Site) -> None:
    id = await site.started("Pilot")
    site.api.cloud.graph.gone = "The tenant is away."
    await site.follows("LAB-001")
    assert (await site.tend(id))["state"] == "running"
    assert (await site.standing(id))["LAB-001"] == ("pending", "unchecked")
    site.api.cloud.graph.gone = ""
    assert (await site.tend(id))["state"] == "finished"


async def test_a_ring_that_is_too_slow_halts(site: Site) -> None:
    id = await site.started("Pilot", "All Systems")
    site.api.wait(minutes=30)
    found = await site.tend(id)
    assert (found["state"], found["cause"]["code"]) == ("halted", "too-slow")
    assert "0 of 1" in found["cause"]["text"]


async def test_a_halted_roll_out_goes_on_with_all_its_time(site: Site) -> None:
    id = await site.started("Pilot")
    site.api.wait(minutes=30)
    assert (await site.tend(id))["state"] == "halted"
    assert (await site.act(id, "resume"))["state"] == "running"
    assert (await site.tend(id))["state"] == "running"
    await site.follows("LAB-001")
    assert (await site.tend(id))["state"] == "finished"


# ---------------------------------------------------------------------------- the way back


async def test_one_click_puts_everything_back(site: Site) -> None:
    id = await site.started("Pilot", "Second", "All Systems")
    await site.follows("LAB-001")
    await site.tend(id)
    before = await site.slider()
    assert before["also"]
    site.api.wait(seconds=1)
    found = await site.act(id, "back")
    assert found["state"] == "returned"
    slider = await site.slider()
    assert (slider["position"], slider["collection_id"], slider["also"]) == ("site", "", [])
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [8193] * 3
    found = await site.tend(id)
    # The second device never fetched what it was to do, so it has nothing to undo.
    assert await site.standing(id) == {
        "LAB-001": ("pending", "not-asked"),
        "LAB-002": ("done", ""),
        "LAB-003": ("waiting", ""),
        "LAB-004": ("waiting", ""),
    }
    assert found["settled_at"] is None
    await site.follows("LAB-001", flags=8193)
    found = await site.tend(id)
    assert ((await site.standing(id))["LAB-001"], bool(found["settled_at"])) == (("done", ""), True)
    # Twice is once.
    again = await site.act(id, "back")
    assert (again["state"], len(again["history"])) == ("returned", len(found["history"]))


async def test_a_pilot_that_was_there_before_is_there_again(site: Site) -> None:
    switch = {"position": "pilot", "collection": "Pilot"}
    url = "/api/v1/comanagement/workloads/device-configuration"
    assert (await site.api.web.put(url, json=switch)).status_code == 200
    id = await site.started("Second")
    # LAB-001 has moved already: it is not asked again.
    assert set(await site.standing(id)) == {"LAB-002"}
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2)] == [MDM, MDM]
    await site.act(id, "back")
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2)] == [MDM, 8193]


async def _third_ring(site: Site) -> str:
    """LAB-001 and LAB-002 have moved; LAB-003 and LAB-004 have just been asked."""
    id = await site.started("Pilot", "Second", "All Systems")
    for name in ("LAB-001", "LAB-002"):
        await site.follows(name)
        await site.tend(id)
    assert (await site.show(id))["ring"] == 3
    site.api.wait(seconds=1)
    return id


async def test_it_goes_back_to_a_ring_that_was_well(site: Site) -> None:
    id = await _third_ring(site)
    for ring in (3, 4, -1):
        _, error = await site.api.refusal("POST", f"{URL}/{id}/back", {"ring": ring})
        assert error["code"] == "rollout.wrong-state"
    found = await site.act(id, "back", ring=1)
    assert (found["state"], found["kept_rings"]) == ("returned", 1)
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [MDM, 8193, 8193]
    await site.tend(id)
    standing = await site.standing(id)
    assert (standing["LAB-001"], standing["LAB-002"]) == (("done", ""), ("pending", "not-asked"))
    await site.follows("LAB-002", flags=8193)
    assert (await site.tend(id))["settled_at"] is not None
    assert (await site.standing(id))["LAB-001"] == ("done", "")


async def test_what_a_first_way_back_left_goes_back_with_a_second(site: Site) -> None:
    """The rings that stayed turn out bad, too."""
    id = await _third_ring(site)
    assert (await site.act(id, "back", ring=2))["kept_rings"] == 2
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [MDM, MDM, 8193]
    site.api.wait(seconds=1)
    # Twice is once, and no way back leads forward.
    assert (await site.act(id, "back", ring=2))["kept_rings"] == 2
    _, error = await site.api.refusal("POST", f"{URL}/{id}/back", {"ring": 3})
    assert error["code"] == "rollout.wrong-state"
    assert (await site.act(id, "back", ring=1))["kept_rings"] == 1
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [MDM, 8193, 8193]
    site.api.wait(seconds=1)
    assert (await site.act(id, "back"))["kept_rings"] == 0
    assert (await site.slider())["position"] == "site"
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [8193, 8193, 8193]
    await site.follows("LAB-001", "LAB-002", "LAB-003", flags=8193)
    assert (await site.tend(id))["settled_at"] is not None


STEPS = "/api/v1/comanagement/workloads/device-configuration/steps"
BACK = "/api/v1/comanagement/workloads/device-configuration/back"


async def test_every_place_where_a_workload_stood_can_be_gone_back_to(site: Site) -> None:
    """Several steps at once, over the end of one roll-out into what was before it."""
    url = "/api/v1/comanagement/workloads/device-configuration"
    await site.api.web.put(url, json={"position": "pilot", "collection": "Pilot"})
    site.api.wait(seconds=1)
    id = (await site.plan("Second", "All Systems"))["id"]
    await site.act(id, "start", confirm=3)
    await site.follows("LAB-002")
    await site.tend(id)
    site.api.wait(seconds=1)
    items = (await site.api.get(STEPS))["items"]
    assert [
        (one["position"], one["collections"], one["rollout_id"], one["ring"], one["now"])
        for one in items
    ] == [
        ("mdm", [], id, 2, True),
        ("pilot", ["Pilot", "Second"], id, 1, False),
        ("pilot", ["Pilot"], "", 0, False),
        ("site", [], "", 0, False),
    ]
    # To what was before the roll-out: it is switched back with it, and its devices are followed.
    slider = await site.api.post(BACK, {"step": items[2]["id"]})
    assert (slider["position"], slider["pilots"][0]["name"]) == ("pilot", "Pilot")
    assert (await site.show(id))["state"] == "returned"
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2)] == [MDM, 8193]
    # And further, to where it all began. Twice is once.
    for _ in range(2):
        await site.api.post(BACK, {"step": items[3]["id"]})
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2)] == [8193, 8193]
    now = (await site.api.get(STEPS))["items"]
    assert (len(now), now[0]["back_to"], now[0]["position"]) == (6, items[3]["id"], "site")


async def test_a_step_into_the_middle_of_a_roll_out_keeps_its_first_rings(site: Site) -> None:
    id = await _third_ring(site)
    items = (await site.api.get(STEPS))["items"]
    second = next(one for one in items if one["ring"] == 2)
    await site.api.post(BACK, {"step": second["id"]})
    found = await site.show(id)
    assert (found["state"], found["kept_rings"]) == ("returned", 2)
    assert [await site.flags(f"LAB-00{n}") for n in (1, 2, 3)] == [MDM, MDM, 8193]


async def test_back_is_never_forward(site: Site) -> None:
    id = await site.started("Pilot")
    site.api.wait(seconds=1)
    await site.act(id, "back")
    items = (await site.api.get(STEPS))["items"]
    status, error = await site.api.refusal("POST", BACK, {"step": items[1]["id"]})
    assert (status, error["code"]) == (409, "comanagement.goes-forward")
    assert error["details"]["devices"] == 1
    assert (await site.slider())["position"] == "site"
    for wrong in (items[0]["id"] + 1000, -1):
        assert (await site.api.refusal("POST", BACK, {"step": wrong}))[0] == 404
    other = "/api/v1/comanagement/workloads/client-apps/back"
    _, error = await site.api.refusal("POST", other, {"step": items[1]["id"]})
    assert error["code"] == "comanagement.no-such-step"


async def test_a_pilot_whose_collection_was_deleted_is_no_place_to_go_back_to(site: Site) -> None:
    url = "/api/v1/comanagement/workloads/device-configuration"
    await site.api.web.put(url, json={"position": "pilot", "collection": "Second"})
    await site.api.web.put(url, json={"position": "pilot", "collection": "Pilot"})
    answer = await site.api.web.delete("/api/v1/collections/Second")
    assert answer.status_code < 300, answer.text
    items = (await site.api.get(STEPS))["items"]
    assert [one["gone"] for one in items] == [False, True, False]
    status, error = await site.api.refusal("POST", BACK, {"step": items[1]["id"]})
    assert (status, error["code"]) == (404, "collection.not-found")


async def test_it_goes_back_by_itself_only_where_that_was_asked_for(site: Site) -> None:
    id = await site.started("Pilot", automatic_back=True)
    await site.follows("LAB-001")
    await _mdm_error(site)
    found = await site.tend(id)
    assert (found["state"], found["ended_by"]) == ("returned", "roll-out")
    assert found["cause"]["code"] == "too-many-failed"
    assert [entry["action"] for entry in found["history"]][-2:] == ["rollout.halt", "rollout.back"]
    assert await site.flags("LAB-001") == 8193


@pytest.mark.parametrize("workload", ["windows-update", "office-click-to-run"])
async def test_what_leaves_effects_never_goes_back_by_itself(site: Site, workload: str) -> None:
    rings = [{"collection": "Pilot", **GATE}]
    wanted = {"workload": workload, "rings": rings, "automatic_back": True}
    status, error = await site.api.refusal("POST", URL, wanted)
    assert (status, error["code"]) == (400, "rollout.no-automatic-back")
    assert "stays" in error["message"]


async def test_it_does_not_go_back_over_what_somebody_set_since(site: Site) -> None:
    id = await site.started("Pilot")
    await site.act(id, "cancel")
    assert await site.flags("LAB-001") == MDM  # Cancelling moves nobody.
    site.api.wait(seconds=1)
    url = "/api/v1/comanagement/workloads/device-configuration"
    assert (await site.api.web.put(url, json={"position": "mdm"})).status_code == 200
    status, error = await site.api.refusal("POST", f"{URL}/{id}/back", {})
    assert (status, error["code"]) == (409, "rollout.superseded")


# ---------------------------------------------------------------------------- pause, twice, restart


async def test_a_pause_stops_the_clock_and_no_device(site: Site) -> None:
    id = await site.started("Pilot", "All Systems")
    site.api.wait(minutes=25)
    assert (await site.act(id, "pause"))["state"] == "paused"
    site.api.wait(minutes=25)
    await site.follows("LAB-001")
    found = await site.tend(id)
    assert (found["state"], found["ring"], found["counts"]["done"]) == ("paused", 1, 1)
    await site.act(id, "resume")
    assert (await site.tend(id))["ring"] == 2


async def test_two_that_move_it_on_at_once_begin_a_ring_once(site: Site) -> None:
    id = await site.started("Pilot", "Second", "All Systems")
    await site.follows("LAB-001")
    other = Site(site.api)
    await asyncio.gather(*(one.conductor.tend() for one in (site, other, site, other)))
    found = await site.show(id)
    assert (found["ring"], found["rings"][2]["state"]) == (2, "waiting")
    assert [e["action"] for e in found["history"]].count("rollout.ring") == 2


async def test_while_it_runs_the_slider_is_its_own(site: Site) -> None:
    id = await site.started("Pilot")
    url = "/api/v1/comanagement/workloads/device-configuration"
    status, error = await site.api.refusal("PUT", url, {"position": "mdm"})
    assert (status, error["code"]) == (409, "rollout.under-way")
    assert id in error["cure"]
    # Other workloads are nobody's business of it.
    other = "/api/v1/comanagement/workloads/client-apps"
    assert (await site.api.web.put(other, json={"position": "mdm"})).status_code == 200
    second = await site.plan("Second")
    _, error = await site.api.refusal("POST", f"{URL}/{second['id']}/start", {"accept_gaps": True})
    assert error["code"] == "rollout.under-way"


async def test_a_collection_that_a_ring_waits_for_is_not_deleted(site: Site) -> None:
    await site.started("Pilot", "Second")
    status, error = await site.api.refusal("DELETE", "/api/v1/collections/Second")
    assert status == 409
    assert "roll-out" in error["message"]


# ---------------------------------------------------------------------------- gap analysis


async def _configure(site: Site, value: str = "15", setting: str = SETTING) -> None:
    wanted = {"name": setting, "setting": setting, "value": value, "collection": ALL}
    answer = await site.api.web.post("/api/v1/configurations", json=wanted)
    assert answer.status_code < 300, answer.text


def _kinds(found: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    return {(gap["kind"], gap["setting"]): gap["names"] for gap in found["gaps"]}


async def test_the_analysis_says_of_each_device_what_it_would_lose(site: Site) -> None:
    await _configure(site)
    site.offers("LAB-001", offered())
    site.offers("LAB-002", offered(f"./Device/Vendor/MSFT/Policy/Config/{SETTING}", "30"))
    site.offers("LAB-003", offered("Power/Standby", "1"))
    site.offers("LAB-004", offered(outcome="notApplicable"), offered("X/Y", workload="client-apps"))
    found = await site.plan("All Systems")
    assert _kinds(found) == {
        ("same", SETTING): ["LAB-001"],
        ("changes", SETTING): ["LAB-002"],
        ("lost", SETTING): ["LAB-003", "LAB-004"],
        ("gains", "Power/Standby"): ["LAB-003"],
    }
    changes = next(gap for gap in found["gaps"] if gap["kind"] == "changes")
    assert (changes["site_value"], changes["value"], changes["policy"]) == (
        "15",
        "30",
        "Lock screens",
    )
    lost = next(gap for gap in found["gaps"] if gap["kind"] == "lost")
    those = await site.api.get(f"{URL}/{found['id']}/devices", gap=lost["number"])
    assert [one["name"] for one in those["items"]] == ["LAB-003", "LAB-004"]
    assert found["not_known"]


async def test_the_tenant_is_asked_once_for_all_devices(site: Site) -> None:
    """And once for what came of the move, however many have moved."""
    asked = site.api.cloud.graph.asked
    id = (await site.plan("All Systems"))["id"]
    assert asked.count("tandem/deviceOffers") == 1
    await site.act(id, "start", confirm=4)
    await site.follows("LAB-001", "LAB-002", "LAB-003", "LAB-004")
    assert (await site.tend(id))["state"] == "finished"
    assert asked.count("tandem/deviceOffers") == 2
    assert not [path for path in asked if path.endswith("/settings")]


async def test_apps_are_compared_with_the_workload_that_moves_them(site: Site) -> None:
    package = {"name": "tree", "url": "https://apps.test/tree.deb", "sha256": "0" * 64}
    for name, value in (
        ("TandemApps/Tree", {"package": package}),
        ("TandemApps/vim", {"install": "true", "detect": {"file": "/usr/bin/vim"}}),
    ):
        await _configure(site, json.dumps(value), name)
    site.has_apps(
        "LAB-001",
        app("Tree", version="2.1"),
        app("Firefox"),
        app("Old tool", uninstall=True, required=False, intent="requiredUninstall"),
        app("Office", workload="office-click-to-run"),
        app("Client", bringsClient=True),
    )
    found = await site.plan("Pilot", workload="client-apps")
    assert {(g["kind"], g["setting"], g["subject"], g["value"]) for g in found["gaps"]} == {
        ("changes", "TandemApps/Tree", "app", "requiredInstall 2.1"),
        ("lost", "TandemApps/vim", "app", ""),
        ("gains", "Firefox", "app", "requiredInstall 1.0"),
        ("lost", "Old tool", "app", "requiredUninstall 1.0"),
    }
    office = await site.plan("Pilot", workload="office-click-to-run")
    assert [gap["setting"] for gap in office["gaps"]] == ["Office"]


async def test_rules_of_compliance_policies_are_compared(site: Site) -> None:
    """A device that no policy of the tenant is for would be judged by nobody."""
    rules = [{"name": "osMinimumVersion", "value": "10.0.22631.1"}]
    site.complies("LAB-001", {"displayName": "Windows 11", "rules": rules})
    found = await site.plan("Second", workload="compliance-policies")
    assert {
        (gap["kind"], gap["setting"], gap["value"], gap["policy"], *gap["names"])
        for gap in found["gaps"]
    } == {
        ("gains", "osMinimumVersion", "10.0.22631.1", "Windows 11", "LAB-001"),
        ("lost", "", "", "", "LAB-002"),
    }
    _, error = await site.api.refusal("POST", f"{URL}/{found['id']}/start", {})
    assert (error["code"], error["details"]["lost"]) == ("rollout.has-gaps", 1)


async def test_a_secret_is_neither_told_nor_called_the_same(site: Site) -> None:
    await _configure(site, "correct horse", "WiFi/SharedKey")
    site.offers("LAB-001", offered("WiFi/SharedKey", "********"))
    found = await site.plan("Pilot")
    assert _kinds(found) == {("unknown", "WiFi/SharedKey"): ["LAB-001"]}
    assert "correct horse" not in json.dumps(found)


async def test_gaps_have_to_be_accepted(site: Site) -> None:
    await _configure(site)
    id = (await site.plan("Pilot"))["id"]
    status, error = await site.api.refusal("POST", f"{URL}/{id}/start", {})
    assert (status, error["code"]) == (409, "rollout.has-gaps")
    assert (await site.act(id, "start", accept_gaps=True))["state"] == "running"


async def test_what_the_tenant_does_not_say_is_unknown_and_not_fine(site: Site) -> None:
    await _configure(site)
    site.api.cloud.graph.gone = "The tenant is away."
    found = await site.plan("Pilot")
    assert _kinds(found) == {("unknown", SETTING): ["LAB-001"]}
    assert (found["cause"]["text"], found["analysed"]) == ("The tenant is away.", 1)
    _, error = await site.api.refusal("POST", f"{URL}/{found['id']}/start", {})
    assert error["code"] == "rollout.has-gaps"
    # Again, when it is back.
    site.api.cloud.graph.gone = ""
    site.offers("LAB-001", offered())
    await site.act(found["id"], "analyse")
    found = await site.tend(found["id"])
    assert (_kinds(found), found["cause"]["text"]) == ({("same", SETTING): ["LAB-001"]}, "")


async def test_nothing_starts_before_it_is_analysed(site: Site) -> None:
    wanted = {"workload": "device-configuration", "rings": [{"collection": "Pilot"}]}
    id = (await site.api.web.post(URL, json=wanted)).json()["id"]
    status, error = await site.api.refusal("POST", f"{URL}/{id}/start", {"accept_gaps": True})
    assert (status, error["code"]) == (409, "rollout.not-analysed")
    await site.conductor.tend()
    async with site.api.db.transaction() as tx:
        await add_device(tx, "LAB-009", flags=8193)
    members = {"devices": ["LAB-009"]}
    await site.api.web.post("/api/v1/collections/Pilot/members", json=members)
    _, error = await site.api.refusal("POST", f"{URL}/{id}/start", {"accept_gaps": True})
    assert error["code"] == "rollout.not-analysed"


# ---------------------------------------------------------------------------- blast radius


async def test_all_systems_needs_the_number_of_devices(site: Site) -> None:
    id = (await site.plan("Pilot", "All Systems"))["id"]
    for confirm in ({}, {"confirm": 3}):
        status, error = await site.api.refusal("POST", f"{URL}/{id}/start", confirm)
        assert (status, error["code"]) == (409, "rollout.needs-confirmation")
        assert error["details"]["devices"] == 4
    assert (await site.slider())["position"] == "site"
    assert (await site.act(id, "start", confirm=4))["state"] == "running"
    assert (await site.act(id, "start"))["state"] == "running"  # Twice is once.


async def test_whom_it_reaches_is_told_before_it_starts(site: Site) -> None:
    async with site.api.db.transaction() as tx:
        for name, days in (("LAB-002", 3), ("LAB-003", 8), ("LAB-004", 40)):
            await tx.execute(
                "UPDATE clients_client SET last_seen_at = %s WHERE name = %s",
                (site.api.clock[0] - timedelta(days=days), name),
            )
    for item in site.api.cloud.graph.lists["deviceManagement/managedDevices"]:
        item["userPrincipalName"] = {
            "d-LAB-001": "Alex@contoso.com",
            "d-LAB-002": "alex@contoso.com",
            "d-LAB-003": "kim@contoso.com",
        }.get(item["deviceName"], "")
    found = (await site.plan("Second", "All Systems"))["reach"]
    assert (found["devices"], found["users"], found["without_user"]) == (4, 2, 1)
    assert (found["days"], found["silent"], found["names"]) == (7, 2, ["LAB-003", "LAB-004"])
    assert [(one["days"], one["devices"]) for one in found["offline"]] == [(1, 3), (7, 2), (30, 1)]
    assert [
        (ring["collection"], ring["members"], ring["moves"], ring["silent"])
        for ring in found["rings"]
    ] == [("Second", 2, 2, 0), ("All Systems", 5, 2, 2)]
    id = (await site.plan("Pilot"))["id"]
    assert (await site.api.get(f"{URL}/{id}", offline_days=2))["reach"]["silent"] == 0
    for wrong in ("0", "-1", "x", "99999", "²"):
        status, _ = await site.api.refusal("GET", f"{URL}/{id}?offline_days={wrong}")
        assert status == 400, wrong
    await site.act(id, "start", accept_gaps=True)
    assert (await site.show(id))["reach"] is None


async def test_what_a_device_has_by_its_user_is_compared_too(site: Site) -> None:
    """After what is deployed to the device, and only where that user is signed in."""
    api, paint = site.api, "Desk/Paint"
    async with api.db.transaction() as tx:
        for name in ("anna", "bert"):
            user = collections.UserResource(site_api.TENANT, f"o-{name}", f"{name}@contoso.com")
            await collections.upsert_user(tx, user, api.clock[0])
    rules = [{"kind": "direct", "user": "anna@contoso.com"}]
    wanted = {"name": "Painters", "type": "user", "rules": rules}
    assert (await api.web.post("/api/v1/collections", json=wanted)).status_code == 201
    for name, setting, value, to in (
        ("Hers", SETTING, "7", "Painters"),
        ("Its own", SETTING, "10", "Pilot"),
        ("Paint", paint, "blue", "Painters"),
        ("Brush", "Desk/Brush", "fine", "Painters"),
    ):
        made = {"name": name, "setting": setting, "value": value, "collection": to}
        assert (await api.web.post("/api/v1/configurations", json=made)).status_code == 201
        api.wait(seconds=1)
    await site.follows("LAB-001", "LAB-002", flags=8193, user="o-anna")
    await site.follows("LAB-003", flags=8193, user="o-bert")
    site.offers("LAB-001", offered(), offered(paint, "red"))
    found = await site.plan("All Systems")
    assert {
        (gap["kind"], gap["site_name"], gap["of_user"], *sorted(gap["names"]))
        for gap in found["gaps"]
    } == {
        ("changes", "Its own", False, "LAB-001"),
        ("lost", "Hers", True, "LAB-002"),
        ("changes", "Paint", True, "LAB-001"),
        ("lost", "Paint", True, "LAB-002"),
        ("lost", "Brush", True, "LAB-001", "LAB-002"),
    }
    assert any("who is signed in now" in line for line in found["not_known"])
    # Nobody loses it without having been told.
    _, error = await api.refusal("POST", f"{URL}/{found['id']}/start", {"confirm": 4})
    assert error["code"] == "rollout.has-gaps"


async def test_a_second_administrator_is_somebody_else(site: Site) -> None:
    id = (await site.plan("Pilot", second_approval=True))["id"]
    for action in ("start", "approve"):
        _, error = await site.api.refusal("POST", f"{URL}/{id}/{action}", {})
        assert error["code"] == "rollout.needs-approval"
    other = {"name": "second", "role": "Full Administrator", "password": site_api.PASSWORD}
    assert (await site.api.web.post("/api/v1/administrators", json=other)).status_code < 300
    await site.api.sign_in("second")
    assert (await site.act(id, "approve"))["approved_by"] == "second"
    await site.api.sign_in()
    # For the devices that the rings have by now nobody has approved it.
    assert (await site.act(id, "analyse"))["approved_by"] == ""
    await site.conductor.tend()
    _, error = await site.api.refusal("POST", f"{URL}/{id}/start", {})
    assert error["code"] == "rollout.needs-approval"
    await site.api.sign_in("second")
    await site.act(id, "approve")
    await site.api.sign_in()
    assert (await site.act(id, "start"))["state"] == "running"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rings": []}, "rollout.bad-plan"),
        ({"rings": [{"collection": ALL}, {"collection": "Pilot"}]}, "rollout.bad-plan"),
        ({"rings": [{"collection": "Pilot"}] * 2}, "rollout.bad-plan"),
        ({"rings": [{"collection": "Nobody"}]}, "collection.not-found"),
        ({"rings": [{"collection": "Pilot", "done_percent": 101}]}, "rollout.bad-plan"),
        ({"rings": [{"collection": "Pilot", "minutes": 1, "soak_minutes": 2}]}, "rollout.bad-plan"),
        ({"rings": [{"collection": "Pilot", "minutes": 1e300}]}, "rollout.bad-plan"),
        ({"rings": [{"collection": "Pilot"}], "hurry": True}, "request.invalid"),
        ({"workload": "everything"}, "comanagement.unknown-workload"),
    ],
)
async def test_a_plan_that_cannot_be_is_refused(
    site: Site, change: dict[str, Any], code: str
) -> None:
    wanted = {"workload": "device-configuration", "rings": [{"collection": "Pilot"}], **change}
    _, error = await site.api.refusal("POST", URL, wanted)
    assert error["code"] == code, error
    assert (await site.api.get(URL))["items"] == []


async def test_an_empty_first_ring_proves_nothing(site: Site) -> None:
    await site.api.web.post("/api/v1/collections", json={"name": "Nobody"})
    id = (await site.plan("Nobody", "Pilot"))["id"]
    _, error = await site.api.refusal("POST", f"{URL}/{id}/start", {})
    assert error["code"] == "rollout.bad-plan"
    assert (await site.show(id))["state"] == "planned"
    assert (await site.slider())["position"] == "site"


async def test_unknown_roll_outs_and_who_may_not(site: Site) -> None:
    assert (await site.api.refusal("GET", f"{URL}/none"))[1]["code"] == "rollout.not-found"
    assert (await site.api.refusal("POST", f"{URL}/none/back", {}))[0] == 404
    for role in ("Operations Administrator", "Read-only Analyst"):
        name = role.split()[0].lower()
        await site.api.web.post(
            "/api/v1/administrators",
            json={"name": name, "role": role, "password": site_api.PASSWORD},
        )
    await site.api.sign_in("operations")
    status, _ = await site.api.refusal("POST", URL, {"workload": "client-apps", "rings": []})
    assert status == 403
    assert (await site.api.get(URL))["total"] == 0


# ---------------------------------------------------------------------------- command line


async def test_the_commands_plan_start_and_put_back(site: Site, tmp_path: Path) -> None:
    await _configure(site)
    async with site_api.commands(site.api, tmp_path) as commands:
        gate = "Pilot:minutes=30,soak=0,done=100,failed=0"
        words = ("rollout", "plan", "device-configuration", "--ring", gate, "--no-wait")
        id = (await commands.run(*words))["id"]
        await site.conductor.tend()
        tree = build()
        shown = await asyncio.to_thread(
            CliRunner().invoke, tree, ["rollout", "show", "device-configuration"]
        )
        line = next(line for line in shown.stdout.splitlines() if SETTING in line)
        assert line.split() == ["lost", SETTING, "15", "1", "LAB-001"]
        assert "100 % done in 30 min, at most 0 % failed, watched 0 min" in shown.stdout
        assert (await commands.refusal("rollout", "start", id)).code == "rollout.has-gaps"
        assert (await commands.run("rollout", "start", id, "--accept-gaps"))["state"] == "running"
        await site.follows("LAB-001")
        await site.conductor.tend()
        (one,) = await commands.run("rollout", "devices", id)
        assert (one["standing"], one["gaps"][0]["kind"]) == ("done", "lost")
        assert (await commands.run("rollout", "back", id))["state"] == "returned"
        (listed,) = await commands.run("rollout", "list")
        assert (listed["id"], listed["state"]) == (id, "returned")
        refused = await commands.refusal("rollout", "show", "../../administrators")
        assert "no such roll-out" in refused.message
        bad = ("rollout", "plan", "client-apps", "--ring", "Pilot:hurry=1")
        assert "minutes=" in (await commands.refusal(*bad)).message
