"""The settings of one device over both authorities: in force, whose, by whom written, who lost."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from test_device_ledger import Device

from site_api import NOW, Api, add_device, commands
from tandem.cli.device import _settings as told
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Workload, capabilities

DC = "device-configuration"
LOCK = "DeviceLock/MaxInactivityTimeDeviceLock"
NODE = f"./Device/Vendor/MSFT/Policy/Config/{LOCK}"
MDM = capabilities([Workload.DEVICE_CONFIGURATION])


@pytest.fixture
async def device(api: Api) -> Device:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001", flags=8193)
    api.cloud.graph.knows("d-LAB-001")
    return Device(api, "LAB-001")


async def configure(api: Api, name: str, value: str, setting: str = LOCK) -> str:
    wanted = {"name": name, "setting": setting, "value": value, "collection": "SMS00001"}
    answer = await api.web.post("/api/v1/configurations", json=wanted)
    assert answer.status_code == 201, answer.text
    api.wait(seconds=1)
    return str(answer.json()["id"])


async def says(api: Api, *, flags: int = 8193, **applied: tuple[str, str]) -> None:
    """What the device reports: setting → value and whose it is."""
    kept = {
        name: {"value": value, "source": source, "workload": DC}
        for name, (value, source) in applied.items()
    }
    state = ccm.ComanagementState(flags, True, True, flags, applied=kept)
    async with api.db.transaction() as tx:
        await clients.keep_state(tx, clients.ClientId("GUID:LAB-001"), state, api.clock[0])


def offers(api: Api, *settings: dict[str, Any]) -> None:
    api.cloud.graph.lists["deviceManagement/managedDevices/m-d-LAB-001/settings"] = list(settings)


def policy(name: str, value: str, outcome: str, setting: str = NODE) -> dict[str, Any]:
    return {
        "setting": setting,
        "workload": DC,
        "outcome": outcome,
        "policyName": name,
        "policyValue": value,
        "reason": f"It is {outcome}.",
    }


async def of(api: Api) -> dict[str, dict[str, Any]]:
    await api.keeper.tend()  # The tenant is read.
    found = await api.get("/api/v1/devices/d-LAB-001/settings")
    return {one["setting"]: one for one in found["settings"]}


def roles(one: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(item["authority"], item["name"], item["role"]) for item in one["contenders"]]


async def test_the_owners_value_wins_and_the_others_say_why_not(api: Api, device: Device) -> None:
    """One line for the setting, however each authority spells it."""
    await configure(api, "Older", "15")
    await configure(api, "Newer", "20")
    offers(api, policy("Screens", "30", "withheld"))
    await says(api, **{LOCK: ("15", "site")})
    value = sha256(b"15").hexdigest()
    await device.sends(
        device.writes("begin"),
        device.writes("own", workload=DC, authority="site", flags=8193),
        device.writes("write", workload=DC, authority="site", setting=LOCK, value=value),
    )
    (one,) = (await of(api)).values()
    assert (one["state"], one["value"], one["source"], one["owner"]) == (
        "in-force",
        "15",
        "site",
        "site",
    )
    assert (one["written_by"], one["entry"]) == ("site", 3)
    assert one["written_at"].startswith(NOW.isoformat()[:19])
    assert roles(one) == [
        ("site", "Older", "wins"),
        ("site", "Newer", "loses"),
        ("mdm", "Screens", "loses"),
    ]
    assert "older one holds" in one["contenders"][1]["why"]
    assert one["contenders"][2]["why"] == "It is withheld."


async def test_on_the_way_from_one_to_the_other_the_old_value_is_left(
    api: Api, device: Device
) -> None:
    await configure(api, "Site", "15")
    offers(api, policy("Screens", "30", "pending"))
    await says(api, flags=MDM, **{LOCK: ("15", "site")})
    (one,) = (await of(api)).values()
    assert (one["state"], one["owner"], one["source"]) == ("left", "mdm", "site")
    assert roles(one) == [("site", "Site", "wins"), ("mdm", "Screens", "waits")]
    offers(api, policy("Screens", "30", "success"))
    await says(api, flags=MDM, **{LOCK: ("30", "mdm")})
    (one,) = (await of(api)).values()
    assert (one["state"], roles(one)) == (
        "in-force",
        [("site", "Site", "loses"), ("mdm", "Screens", "wins")],
    )


async def test_what_waits_fails_conflicts_or_nobody_wants_says_so(api: Api, device: Device) -> None:
    await configure(api, "New", "1", "Power/Standby")
    offers(
        api,
        policy("One", "1", "conflict", "Area/Both"),
        policy("Broken", "1", "error", "Area/Broken"),
    )
    await says(api, **{"Area/Orphan": ("x", "site")})
    found = await of(api)
    assert {name: one["state"] for name, one in found.items()} == {
        "Power/Standby": "waits",
        "Area/Both": "nobody",  # The site owns it: no value of the tenant counts.
        "Area/Broken": "nobody",
        "Area/Orphan": "in-force",
    }
    await says(api, flags=MDM)
    api.cloud.graph.lists["tandem/managedDevices/m-d-LAB-001/why"] = [
        {"policyName": "One", "value": "1", "role": "conflicts"},
        {"policyName": "Two", "value": "2", "role": "conflicts"},
        {"policyName": "Three", "value": "3", "role": "notMeant"},
    ]
    found = await of(api)
    # Every policy that is in the conflict is told, not only the first.
    assert roles(found["Area/Both"]) == [("mdm", "One", "loses"), ("mdm", "Two", "loses")]
    assert (found["Area/Both"]["state"], found["Area/Broken"]["state"]) == ("conflict", "failed")


async def test_a_tenant_that_is_away_leaves_the_sites_part(api: Api, device: Device) -> None:
    await configure(api, "Site", "15")
    await says(api, **{LOCK: ("15", "site")})
    await of(api)
    api.cloud.graph.gone = "The tenant is away."
    found = await api.get("/api/v1/devices/d-LAB-001/settings")
    assert found["without_tenant"] == "The tenant is away."
    assert [one["value"] for one in found["settings"]] == ["15"]


async def test_secrets_stay_secret(api: Api, device: Device) -> None:
    await configure(api, "Net", "correct horse", "WiFi/SharedKey")
    found = await api.web.get("/api/v1/devices/d-LAB-001/settings")
    assert found.status_code == 200
    assert "correct horse" not in found.text
    assert "WiFi/SharedKey" in found.text


async def test_who_is_not_there_and_who_may_not(api: Api, device: Device) -> None:
    assert (await api.refusal("GET", "/api/v1/devices/none/settings"))[0] == 404
    assert (await api.refusal("GET", "/api/v1/devices/a%00b/settings"))[0] == 400


async def test_the_command_says_it_in_a_table(api: Api, device: Device, tmp_path: Path) -> None:
    await configure(api, "Older", "15")
    await configure(api, "Newer", "20")
    await says(api, **{LOCK: ("15", "site")})
    await of(api)
    async with commands(api, tmp_path) as run:
        found = await run.run("device", "settings", "LAB-001")
        assert found["settings"][0]["state"] == "in-force"
        text = told(found)
    assert "Newer (site): An older configuration" in text
