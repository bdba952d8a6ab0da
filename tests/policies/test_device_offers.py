"""What the tenant has for many devices, asked at once: as it says of each alone."""

from typing import Any

import psycopg
import pytest
from test_delivery import GRAPH, LOCK, oma, profile
from test_policy_objects import Beta

from mdm_world import Mdm

DM = "deviceManagement"


@pytest.fixture
async def beta(mdm: Mdm) -> Beta:
    return Beta(mdm, await mdm.world.bearer())


async def offers(beta: Beta, *ids: str) -> dict[str, dict[str, Any]]:
    answer = await beta("POST", "tandem/deviceOffers", {"ids": list(ids)})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return {one["id"]: found["offers"][one["offer"]] for one in found["devices"]}


async def test_it_says_of_each_device_what_is_said_of_it_alone(mdm: Mdm, beta: Beta) -> None:
    """Settings and apps that the site keeps from being sent are told as withheld."""
    one = await mdm.enrolled("alex", "A" * 32)
    two = await mdm.enrolled("kim", "B" * 32)
    inner = await mdm.group("Inner", one.user.id)
    outer = await mdm.group("Outer", inner.id)
    await profile(beta, "Screens", oma(LOCK, 15), groups=(outer.id,))
    body = {
        "@odata.type": f"{GRAPH}windows10CompliancePolicy",
        "displayName": "Windows 11",
        "osMinimumVersion": "10.0.22631.1",
        "bitLockerEnabled": True,
        "scheduledActionsForRule": [
            {
                "ruleName": "PasswordRequired",
                "scheduledActionConfigurations": [{"actionType": "block", "gracePeriodHours": 0}],
            }
        ],
    }
    policy = await beta.made(f"{DM}/deviceCompliancePolicies", body)
    target = {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": outer.id}
    path = f"{DM}/deviceCompliancePolicies/{policy['id']}/assign"
    assert (await beta("POST", path, {"assignments": [{"target": target}]})).status_code == 200
    web = {
        "@odata.type": f"{GRAPH}webApp",
        "displayName": "Portal",
        "appUrl": "https://portal.test",
    }
    app = await beta.made("deviceAppManagement/mobileApps", web)
    intent = {
        "@odata.type": f"{GRAPH}mobileAppAssignment",
        "intent": "required",
        "target": target,
    }
    given = await beta(
        "POST",
        f"deviceAppManagement/mobileApps/{app['id']}/assign",
        {"mobileAppAssignments": [intent]},
    )
    assert given.status_code < 300, given.text
    one.agent("flags=8193;agent=1.0;client=GUID:PC-ALEX;policy=1")
    await one.check_in()

    found = await offers(beta, one.id, two.id, "no-such-device")
    assert set(found) == {one.id, two.id}
    assert found[two.id] == {"settings": [], "apps": [], "compliancePolicies": []}
    mine = found[one.id]
    alone = (await beta.got(f"{DM}/managedDevices/{one.id}/settings"))["value"]
    assert [item["setting"] for item in mine["settings"]] == [item["setting"] for item in alone]
    (setting,) = mine["settings"]
    assert setting.items() <= alone[0].items()
    assert (setting["outcome"], setting["policyValue"]) == ("withheld", "15")
    (told,) = mine["apps"]
    (said,) = (await beta.got(f"tandem/managedDevices/{one.id}/apps"))["value"]
    assert (told["displayName"], told["intent"], told["installState"]) == (
        said["displayName"],
        said["intent"],
        said["installState"],
    )
    assert (told["workload"], told["withheld"]) == ("client-apps", True)
    (complies,) = mine["compliancePolicies"]
    assert complies["displayName"] == "Windows 11"
    assert complies["rules"] == [
        {"name": "bitLockerEnabled", "value": "true"},
        {"name": "osMinimumVersion", "value": "10.0.22631.1"},
    ]

    # With the MDM service they are pending, or wait for the device.
    one.agent("flags=8445;agent=1.0;client=GUID:PC-ALEX;policy=2")
    await one.check_in()
    assert (await offers(beta, one.id))[one.id]["settings"][0]["outcome"] == "success"


async def test_a_question_names_a_thousand_devices_at_most(beta: Beta) -> None:
    answer = await beta("POST", "tandem/deviceOffers", {"ids": [f"x{n}" for n in range(1001)]})
    assert (answer.status_code, answer.json()["error"]["message"][:22]) == (
        400,
        "Offers of 1001 devices",
    )
    for wrong in ({}, {"ids": "all"}, {"ids": [1]}, {"ids": ["x"], "more": 1}):
        assert (await beta("POST", "tandem/deviceOffers", wrong)).status_code == 400


async def test_however_many_devices_the_database_is_asked_as_often(
    mdm: Mdm, beta: Beta, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await mdm.enrolled("alex", "A" * 32)
    two = await mdm.enrolled("kim", "B" * 32)
    group = await mdm.group("Both", one.user.id, two.user.id)
    await profile(beta, "Screens", oma(LOCK, 15), groups=(group.id,))
    await offers(beta, one.id)  # What is compiled of policies is compiled once.
    asked: list[str] = []
    execute = psycopg.AsyncConnection.execute

    async def counted(self: Any, query: Any, *values: Any, **more: Any) -> Any:
        asked.append(str(query))
        return await execute(self, query, *values, **more)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)
    of_one, of_two = [], []
    for ids, counts in (((one.id,), of_one), ((one.id, two.id), of_two)):
        asked.clear()
        found = await offers(beta, *ids)
        assert [item["setting"] for item in found[one.id]["settings"]]
        counts += asked
    assert len(of_one) == len(of_two) > 3
