"""A roll-out between a site and a real tenant: Graph on one side, a device's OMA-DM on the other."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mdm_world import Mdm, TestDevice, mdm_service
from rollout_world import GATE, MDM, SETTING, URL, Site
from site_api import Api, add_device
from tandem.infra.database import Database

DM = "deviceManagement"
LOCK = f"./Device/Vendor/MSFT/Policy/Config/{SETTING}"
CUSTOM = "#microsoft.graph.windows10CustomConfiguration"


class TenantGraph:
    """The tenant's own Graph, as the site asks it."""

    def __init__(self, mdm: Mdm) -> None:
        self.mdm = mdm

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.mdm.graph("GET", path)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "tandem/deviceOffers", "a roll-out only reads"
        answer = await self.mdm.graph("POST", path, body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
async def mdm(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Mdm]:
    (tmp_path / "tenant").mkdir()
    async with mdm_service(tenant_db, tmp_path / "tenant") as made:
        yield made


@pytest.fixture
async def device(mdm: Mdm) -> TestDevice:
    """It is enrolled, and its agent says that everything is the site's."""
    made = await mdm.enrolled()
    made.agent("flags=8193;agent=1.0;client=GUID:PC-ALEX;policy=1")
    await made.check_in()
    return made


async def lock(mdm: Mdm, device: TestDevice, name: str, value: str) -> str:
    """A profile of the tenant for this device's user."""
    group = await mdm.group(f"Group of {name}", device.user.id)
    setting = {
        "@odata.type": "#microsoft.graph.omaSettingInteger",
        "displayName": "Lock",
        "omaUri": LOCK,
        "value": int(value),
    }
    body = {"@odata.type": CUSTOM, "displayName": name, "omaSettings": [setting]}
    made = await mdm.graph("POST", f"{DM}/deviceConfigurations", body)
    assert made.status_code == 201, made.text
    path = f"{DM}/deviceConfigurations/{made.json()['id']}"
    target = {"@odata.type": "#microsoft.graph.groupAssignmentTarget", "groupId": group.id}
    given = await mdm.graph("POST", f"{path}/assign", {"assignments": [{"target": target}]})
    assert given.status_code == 200, given.text
    return path


async def test_a_conflict_in_the_tenant_halts_it_and_the_site_has_it_again(
    api: Api, mdm: Mdm, device: TestDevice
) -> None:
    """The analysis reads what the tenant withholds; the gate what came of it on the device."""
    assert device.joined is not None
    async with api.db.transaction() as tx:
        await add_device(tx, "PC-ALEX", flags=8193)
        await tx.execute("UPDATE clients_client SET device_id = %s", (device.joined.device_id,))
    api.cloud.graph = TenantGraph(mdm)  # type: ignore[assignment]
    site = Site(api)
    await api.web.put(
        "/api/v1/comanagement", json={"automatic_enrollment": "none", "access_token": "t"}
    )
    await api.web.post(
        "/api/v1/configurations",
        json={"name": "Lock", "setting": SETTING, "value": "15", "collection": "SMS00001"},
    )
    await lock(mdm, device, "Screens", "30")
    wanted = {
        "workload": "device-configuration",
        "rings": [{"collection": "SMS00001", **GATE}],
    }
    id = (await api.web.post(URL, json=wanted)).json()["id"]
    found = await site.tend(id)
    assert [
        (gap["kind"], gap["setting"], gap["site_value"], gap["value"], gap["policy"])
        for gap in found["gaps"]
    ] == [("changes", SETTING, "15", "30", "Screens")]

    # Somebody assigns a second profile that wants something else, and nobody notices.
    second = await lock(mdm, device, "Screens again", "60")
    await site.act(id, "start", confirm=1, accept_gaps=True)
    await site.follows("PC-ALEX")
    await site.conductor.tend()
    # The client has moved; the MDM service does not know it before the device's next session.
    assert (await site.standing(id))["PC-ALEX"] == ("pending", "mdm-pending")
    device.agent(f"flags={MDM};agent=1.0;client=GUID:PC-ALEX;policy=2")
    assert await device.check_in() == []
    found = await site.tend(id)
    assert (found["state"], found["cause"]["code"]) == ("halted", "too-many-failed")
    (one,) = (await api.get(f"{URL}/{id}/devices"))["items"]
    assert one["cause"]["text"] == (
        f"The MDM service reports for {SETTING}: Policies want different values, so none is sent."
    )
    assert (await site.act(id, "back"))["state"] == "returned"
    assert await site.flags("PC-ALEX") == 8193
    api.wait(seconds=1)
    await site.follows("PC-ALEX", flags=8193)
    device.agent("flags=8193;agent=1.0;client=GUID:PC-ALEX;policy=3")
    await device.check_in()
    assert (await site.tend(id))["settled_at"] is not None

    # What was wrong is put right, and the same plan goes through.
    assert (await mdm.graph("DELETE", second)).status_code < 300
    again = (await api.web.post(URL, json=wanted)).json()["id"]
    await site.conductor.tend()
    await site.act(again, "start", confirm=1, accept_gaps=True)
    await site.follows("PC-ALEX")
    device.agent(f"flags={MDM};agent=1.0;client=GUID:PC-ALEX;policy=4")
    (sent,) = await device.check_in()
    assert (sent.items[0].target, sent.items[0].data) == (LOCK, "30")
    assert (await site.tend(again))["state"] == "finished"
