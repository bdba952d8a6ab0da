"""Enablement, workloads and pilot collections in one request; what it would do; who has followed."""

from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import Api, CommandFailed, add_device, report
from tandem.site import clients

URL = "/api/v1/comanagement"
PILOT = {"position": "pilot", "collection": "Pilot"}


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Three co-managed devices, and a client that is not enrolled."""
    async with api.db.transaction() as tx:
        for name in ("LAB-001", "LAB-002", "LAB-003"):
            await add_device(tx, name, flags=8193)
        await add_device(tx, "LAB-004", enrolled=False)
    return api


def wish(**more: Any) -> dict[str, Any]:
    return {"automatic_enrollment": "none", "access_token": "t", **more}


async def put(api: Api, wanted: dict[str, Any], **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.web.put(URL, json=wanted, headers=sent)


async def audited(api: Api) -> list[str]:
    return [item["action"] for item in await api.get("/api/v1/site/audit")]


async def test_everything_is_applied_at_once(fleet: Api) -> None:
    answer = await put(
        fleet,
        wish(
            automatic_enrollment="pilot",
            collection="Pilot",
            workloads={"windows-update": PILOT, "client-apps": {"position": "mdm"}},
            new_collections=[
                {"name": "Pilot", "query": "select * from SMS_R_System where Name = 'LAB-001'"}
            ],
        ),
    )
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["enablement"]["auto_enroll"] == "pilot"
    positions = {item["workload"]: item["position"] for item in made["workloads"]}
    assert (positions["windows-update"], positions["client-apps"]) == ("pilot", "mdm")
    assert {item["name"]: item["capabilities"] for item in made["policies"]} == {
        "CoMgmtSettingsProd": 8193 + 64,
        "CoMgmtSettingsPilotAutoEnroll": 8193,
        "CoMgmtSettingsPilot_windows-update": 8193 + 16,
    }
    assert (await fleet.get("/api/v1/collections/Pilot"))["members"] == 1
    assert answer.headers["etag"] == (await fleet.web.get(URL)).headers["etag"]


@pytest.mark.parametrize(
    ("wrong", "code", "field"),
    [
        ({"workloads": {"windows-update": {"position": "pilot"}}}, "needs-collection", True),
        ({"workloads": {"windows-update": {"position": "up"}}}, "request.invalid", True),
        ({"workloads": {"coffee": {"position": "mdm"}}}, "unknown-workload", False),
        ({"workloads": {"windows-update": PILOT}}, "collection.not-found", True),
        ({"automatic_enrollment": "pilot"}, "needs-collection", True),
        ({"new_collections": [{"name": "Pilot", "query": "nonsense"}]}, "bad-query", True),
        ({"new_collections": [{"name": "All Systems"}]}, "name-taken", True),
        ({"new_collections": [{"name": " "}]}, "bad-name", True),
        (
            {"new_collections": [{"name": "Pilot", "devices": ["NOBODY"]}]},
            "resource.not-found",
            False,
        ),
        ({"access_token": ""}, "needs-sign-in", True),
    ],
)
async def test_all_of_it_or_nothing(
    fleet: Api, wrong: dict[str, Any], code: str, field: bool
) -> None:
    before = await audited(fleet)
    collections = await fleet.get("/api/v1/collections")
    status, error = await fleet.refusal("PUT", URL, wish(**wrong))
    assert status in (400, 404, 409)
    assert code in error["code"]
    assert bool(error["details"].get("field")) is field
    shown = await fleet.get(URL)
    assert not shown["enabled"]
    assert shown["policies"] == []
    assert await fleet.get("/api/v1/collections") == collections
    assert await audited(fleet) == before


async def test_what_is_enabled_is_changed_without_the_tenant(fleet: Api) -> None:
    await put(fleet, wish(automatic_enrollment="all"))
    fleet.cloud.gateway = None
    fleet.cloud.mdm_authority = False
    answer = await put(fleet, {"workloads": {"client-apps": {"position": "mdm"}}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["enablement"]["auto_enroll"] == "all"
    status, error = await fleet.refusal("PUT", URL, wish())
    assert (status, error["code"]) == (409, "cloud.no-mdm-authority")


async def test_the_second_of_two_administrators_is_told(fleet: Api) -> None:
    await put(fleet, wish())
    read = (await fleet.web.get(URL)).headers["etag"]
    first = await put(fleet, {"workloads": {"client-apps": {"position": "mdm"}}}, If_Match=read)
    assert first.status_code == 200
    assert first.headers["etag"] != read
    moved = {"workloads": {"windows-update": {"position": "mdm"}}}
    second = await put(fleet, moved, If_Match=read)
    assert second.status_code == 412
    assert second.json()["error"]["code"] == "request.changed"
    path = f"{URL}/workloads/windows-update"
    late = await fleet.web.put(path, json={"position": "mdm"}, headers={"If-Match": read})
    assert late.status_code == 412
    now = first.headers["etag"]
    done = await fleet.web.put(path, json={"position": "mdm"}, headers={"If-Match": now})
    assert done.status_code == 200
    assert done.headers["etag"] == (await fleet.web.get(URL)).headers["etag"]


async def test_a_request_that_comes_twice_is_done_once(fleet: Api) -> None:
    wanted = wish(
        workloads={"windows-update": PILOT},
        new_collections=[{"name": "Pilot", "devices": ["LAB-001"]}],
    )
    for token in ("first", "another sign-in"):
        answer = await put(fleet, {**wanted, "access_token": token}, Idempotency_Key="draft-1")
        assert answer.status_code == 200, answer.text
    assert (await audited(fleet)).count("comanagement.switch") == 1
    other = await put(fleet, wish(), Idempotency_Key="draft-1")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "comanagement.other-request")
    bad = await put(fleet, wish(), Idempotency_Key="x" * 200)
    assert bad.status_code == 400


async def test_an_operations_administrator_may_look_and_not_move(fleet: Api) -> None:
    await fleet.web.post(
        "/api/v1/administrators",
        json={"name": "olga", "role": "Operations Administrator", "password": "Correct-Horse-3"},
    )
    await fleet.sign_in("olga", "Correct-Horse-3")
    for path in ("", "/workloads/client-apps"):
        status, error = await fleet.refusal("PUT", f"{URL}{path}", wish(position="mdm"))
        assert (status, error["code"]) == (403, "site.not-allowed")
        assert "Full Administrator" in error["message"]
    assert (await fleet.web.post(f"{URL}/preview", json=wish())).status_code == 200


# ---------------------------------------------------------------------------- preview


async def test_the_preview_names_exactly_who_changes_owner(fleet: Api) -> None:
    wanted = wish(
        automatic_enrollment="all",
        workloads={"device-configuration": PILOT, "client-apps": {"position": "mdm"}},
        new_collections=[{"name": "Pilot", "devices": ["LAB-001", "LAB-004"]}],
    )
    before = await audited(fleet)
    seen = (await fleet.web.post(f"{URL}/preview", json=wanted)).json()
    assert (seen["devices"], seen["co_managed"], seen["enrols"]) == (4, 3, 1)
    assert seen["collections"] == {"Pilot": 2}
    changes = {item["workload"]: item for item in seen["changes"]}
    assert changes["device-configuration"]["names"] == ["LAB-001"]
    assert changes["endpoint-protection"] == {
        **changes["device-configuration"],
        "workload": "endpoint-protection",
        "title": "Endpoint Protection",
        "along": True,
    }
    assert (changes["client-apps"]["to_mdm"], changes["client-apps"]["to_site"]) == (3, 0)
    assert changes["windows-update"]["to_mdm"] == 0
    assert set(seen["creates"]) == {
        "CoMgmtSettingsProd",
        "CoMgmtSettingsPilot_device-configuration",
    }
    # Nothing of it was done.
    assert not (await fleet.get(URL))["enabled"]
    assert await audited(fleet) == before
    await put(fleet, wanted)
    back = {"workloads": {"device-configuration": {"position": "site"}}}
    seen = (await fleet.web.post(f"{URL}/preview", json=back)).json()
    changes = {item["workload"]: item for item in seen["changes"]}
    assert (changes["device-configuration"]["to_site"], seen["removes"]) == (
        1,
        ["CoMgmtSettingsPilot_device-configuration"],
    )


async def test_a_preview_is_refused_for_what_the_change_would_be_refused_for(fleet: Api) -> None:
    wanted = wish(workloads={"windows-update": PILOT})
    status, error = await fleet.refusal("POST", f"{URL}/preview", wanted)
    assert (status, error["code"]) == (404, "collection.not-found")
    assert error["details"]["field"] == "windows-update"


async def test_prerequisites_and_the_line_that_they_make(fleet: Api) -> None:
    shown = await fleet.get(f"{URL}/prerequisites")
    assert shown["ok"]
    assert shown["command_line"].startswith('CCMSETUPCMD="CCMHOSTNAME=cmg.contoso.com/')
    fleet.cloud.gateway, fleet.cloud.tenant = None, ""
    shown = await fleet.get(f"{URL}/prerequisites")
    assert (shown["ok"], shown["command_line"]) == (False, "")
    assert [(item["code"], item["ok"]) for item in shown["checks"]] == [
        ("tenant", False),
        ("gateway", False),
    ]
    assert all(item["cure"] for item in shown["checks"])


# ---------------------------------------------------------------------------- progress


async def move(api: Api, workload: str) -> dict[str, Any]:
    status = await api.get(f"{URL}/status")
    found: dict[str, Any] = next(one for one in status["moves"] if one["workload"] == workload)
    return found


async def test_a_move_is_followed_device_by_device(fleet: Api) -> None:
    await put(fleet, wish())
    assert (await move(fleet, "client-apps"))["began_at"] is None
    await fleet.web.put(f"{URL}/workloads/client-apps", json={"position": "mdm"})
    for followed in range(4):
        seen = await move(fleet, "client-apps")
        assert (seen["followed"], seen["moving"], seen["done"]) == (followed, 3, followed == 3)
        assert seen["began_by"] == "siteadmin"
        if followed < 3:
            async with fleet.db.transaction() as tx:
                name = clients.ClientId(f"GUID:LAB-00{followed + 1}")
                await report(tx, name, flags=8193 + 64)


async def test_what_moves_along_is_a_move_too(fleet: Api) -> None:
    await put(fleet, wish())
    await fleet.web.put(f"{URL}/workloads/device-configuration", json={"position": "mdm"})
    assert (await move(fleet, "resource-access"))["moving"] == 3
    assert (await move(fleet, "windows-update"))["moving"] == 0


async def test_a_policy_is_applied_when_its_client_fetched_and_reports_it(fleet: Api) -> None:
    await put(fleet, wish(workloads={"client-apps": {"position": "mdm"}}))

    async def applied() -> dict[str, tuple[int, int]]:
        found = await fleet.get(f"{URL}/policies")
        return {item["name"]: (item["applied"], item["members"]) for item in found}

    assert await applied() == {"CoMgmtSettingsProd": (0, 4)}
    async with fleet.db.transaction() as tx:
        await tx.execute("UPDATE clients_client SET policy_at = %s", (site_api.NOW,))
        await report(tx, clients.ClientId("GUID:LAB-001"), flags=8193 + 64)
    assert await applied() == {"CoMgmtSettingsProd": (1, 4)}
    # The switch back hands nothing over, but has to be fetched.
    fleet.wait(minutes=1)
    await fleet.web.put(f"{URL}/workloads/client-apps", json={"position": "site"})
    assert await applied() == {"CoMgmtSettingsProd": (0, 4)}


# ---------------------------------------------------------------------------- configurations


async def test_a_configuration_says_how_far_it_has_come(fleet: Api) -> None:
    from psycopg.types.json import Jsonb

    setting = "DeviceLock/MaxInactivityTimeDeviceLock"
    new = {"name": "Lock", "setting": setting, "value": "10", "collection": "SMS00001"}
    assert (await fleet.web.post("/api/v1/configurations", json=new)).status_code == 201
    async with fleet.db.transaction() as tx:
        for name, value, source in (("LAB-001", "10", "site"), ("LAB-002", "5", "mdm")):
            await tx.execute(
                "UPDATE clients_client SET state = state || %s WHERE name = %s",
                (Jsonb({"applied": {setting: {"value": value, "source": source}}}), name),
            )
    (shown,) = await fleet.get("/api/v1/configurations")
    assert (shown["collection"], shown["members"]) == ("All Systems", 4)
    assert (shown["applied"], shown["with_mdm"]) == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"setting": "no such"}, "setting"),
        ({"value": "x" * 4097}, "value"),
        ({"workload": "coffee"}, "workload"),
    ],
)
async def test_a_wrong_configuration_is_refused_by_its_field(
    api: Api, wrong: dict[str, str], field: str
) -> None:
    new = {"name": "Lock", "setting": "DeviceLock/X", "value": "1", "collection": "SMS00001"}
    status, error = await api.refusal("POST", "/api/v1/configurations", {**new, **wrong})
    assert (status, error["details"]["field"]) == (400, field)


# ---------------------------------------------------------------------------- client settings


async def test_settings_say_what_was_changed_and_by_whom(api: Api) -> None:
    url = "/api/v1/client-settings"
    read = await api.web.get(url)
    assert not any(item["changed"] for item in read.json())
    answer = await api.web.patch(
        url, json={"policy_polling_minutes": "30"}, headers={"If-Match": read.headers["etag"]}
    )
    changed = {item["name"]: item for item in answer.json()}["policy_polling_minutes"]
    assert (changed["value"], changed["default"], changed["changed"]) == (30, 60, True)
    assert (changed["minimum"], changed["maximum"]) == (3, 1440)
    assert changed["changed_by"] == "siteadmin"
    late = await api.web.patch(
        url, json={"enable_user_policy": False}, headers={"If-Match": read.headers["etag"]}
    )
    assert late.status_code == 412
    status, error = await api.refusal("PATCH", url, {"policy_polling_minutes": 2})
    assert (status, error["details"]["field"]) == (400, "policy_polling_minutes")
    # The same again is no news.
    await api.web.patch(url, json={"policy_polling_minutes": 30})
    assert (await audited(api)).count("client-settings.change") == 1


async def test_the_resultant_settings_say_where_each_is_from(fleet: Api) -> None:
    shown = await fleet.get("/api/v1/client-settings/resultant/LAB-001")
    assert {item["source"] for item in shown["settings"]} == {"Default Client Settings"}


# ---------------------------------------------------------------------------- commands


async def test_the_commands_preview_and_apply(
    fleet: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tandem.cli import comanagement as command

    asked = []
    monkeypatch.setattr(command, "administrator_token", lambda *who: asked.append(who) or "token")
    async with site_api.commands(fleet, tmp_path) as commands:
        words = (
            "comanagement", "enable", "--automatic-enrollment", "none", "--workload",
            "windows-update=pilot:Pilot", "--new-collection", "Pilot=select * from SMS_R_System where Name = 'LAB-001'",
        )  # fmt: skip
        seen = await commands.run(*words, "--preview")
        assert (seen["collections"], asked) == ({"Pilot": 1}, [])
        made = await commands.run(*words)
        assert made["enabled"]
        assert len(asked) == 1
        await commands.run("comanagement", "enable", "--workload", "windows-update=mdm")
        assert len(asked) == 1
        found = await commands.run("comanagement", "policies")
        assert [item["name"] for item in found] == ["CoMgmtSettingsProd"]
        with pytest.raises(CommandFailed):
            await commands.run("comanagement", "enable", "--workload", "windows-update")
