"""A site with four co-managed devices, its tenant, and what moves its roll-outs on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from site_api import Api, add_device
from tandem.protocols import ccm
from tandem.site import clients, comanagement
from tandem.workloads import Workload, capabilities, merge

URL = "/api/v1/comanagement/rollouts"
MDM = capabilities([Workload.DEVICE_CONFIGURATION])
SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"
GATE = {"minutes": 30, "soak_minutes": 0, "done_percent": 100, "failed_percent": 0}
ALL = "SMS00001"


class Site:
    """Four co-managed devices, LAB-001 in Pilot, LAB-001 and LAB-002 in Second; and its tenant."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.conductor = comanagement.Conductor(
            api.db,
            api.cloud.others,
            lambda: api.clock[0],
            comanagement.Pace(list_seconds=0, again_seconds=0),
        )

    async def plan(self, *collections: str, **more: Any) -> dict[str, Any]:
        """Planned and analysed."""
        gate = {**GATE, **more.pop("gate", {})}
        wanted: dict[str, Any] = {
            "workload": "device-configuration",
            "rings": [{"collection": name, **gate} for name in collections],
            **more,
        }
        answer = await self.api.web.post(URL, json=wanted)
        assert answer.status_code == 201, answer.text
        await self.conductor.tend()
        return await self.show(answer.json()["id"])

    async def show(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.api.get(f"{URL}/{id}")
        return found

    async def tend(self, id: str) -> dict[str, Any]:
        await self.conductor.tend()
        return await self.show(id)

    async def act(self, id: str, action: str, **body: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self.api.post(f"{URL}/{id}/{action}", body)
        return found

    async def started(self, *collections: str, **more: Any) -> str:
        id = str((await self.plan(*collections, **more))["id"])
        confirm = {"confirm": 4} if collections[-1] == "All Systems" else {}
        assert (await self.act(id, "start", **confirm, accept_gaps=True))["state"] == "running"
        return id

    async def follows(self, *names: str, flags: int = MDM, **more: Any) -> None:
        """They fetch their policy now, and report these flags and what else they have to say."""
        now = self.api.clock[0]
        async with self.api.db.transaction() as tx:
            for name in names:
                id = clients.ClientId(f"GUID:{name}")
                await tx.execute(
                    "UPDATE clients_client SET policy_at = %s, last_seen_at = %s WHERE id = %s",
                    (now, now, id),
                )
                state = ccm.ComanagementState(flags, True, True, flags, **more)
                await clients.keep_state(tx, id, state, now)

    def offers(self, name: str, *settings: dict[str, Any]) -> None:
        lists = self.api.cloud.graph.lists
        lists[f"deviceManagement/managedDevices/m-d-{name}/settings"] = list(settings)

    def has_apps(self, name: str, *apps: dict[str, Any]) -> None:
        self.api.cloud.graph.lists[f"tandem/managedDevices/m-d-{name}/apps"] = list(apps)

    def complies(self, name: str, *policies: dict[str, Any]) -> None:
        """Compliance policies that the tenant has for a device."""
        self.api.cloud.graph.lists[f"compliance/m-d-{name}"] = list(policies)

    async def standing(self, id: str) -> dict[str, tuple[str, str]]:
        found = await self.api.get(f"{URL}/{id}/devices")
        return {one["name"]: (one["standing"], one["cause"]["code"]) for one in found["items"]}

    async def slider(self) -> dict[str, Any]:
        found = await self.api.get("/api/v1/comanagement")
        return next(
            item for item in found["workloads"] if item["workload"] == "device-configuration"
        )

    async def flags(self, name: str) -> int:
        """What the device makes of the policy that it gets."""
        async with self.api.db.transaction() as tx:
            content = await comanagement.policy_content(tx, clients.ClientId(f"GUID:{name}"))
        return merge(content.configuration_policies).flags


def offered(setting: str = SETTING, value: str = "15", **more: Any) -> dict[str, Any]:
    return {
        "setting": setting,
        "workload": "device-configuration",
        "outcome": "withheld",
        "policyName": "Lock screens",
        "policyValue": value,
        **more,
    }


def app(name: str, **more: Any) -> dict[str, Any]:
    return {
        "displayName": name,
        "version": "1.0",
        "workload": "client-apps",
        "intent": "requiredInstall",
        "required": True,
        "uninstall": False,
        "available": False,
        "withheld": True,
        **more,
    }


@asynccontextmanager
async def rollout_site(api: Api) -> AsyncIterator[Site]:
    names = [f"LAB-00{number}" for number in (1, 2, 3, 4)]
    async with api.db.transaction() as tx:
        for name in names:
            await add_device(tx, name, flags=8193)
        await add_device(tx, "LAB-005", enrolled=False)
    made = Site(api)
    for name in names:
        api.cloud.graph.knows(f"d-{name}", managed={"complianceState": "compliant"})
        made.offers(name)
    enable = {"automatic_enrollment": "none", "access_token": "t"}
    assert (await api.web.put("/api/v1/comanagement", json=enable)).status_code == 200
    for name, devices in (("Pilot", names[:1]), ("Second", names[:2])):
        answer = await api.web.post("/api/v1/collections", json={"name": name})
        await api.web.post(
            f"/api/v1/collections/{answer.json()['id']}/members", json={"devices": devices}
        )
    yield made
