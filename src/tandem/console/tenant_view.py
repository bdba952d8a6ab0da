"""What the tenant knows of devices, as the site's pages read it: over Graph, like anyone else.

    managedDevices               enrolled in the MDM, by whom, when, and what the agent told it
    devices                      joined to the directory, perhaps not enrolled
    users?…assignedPlans         who may enrol by licence
    troubleshootingEvents        enrolments that failed, with their code
    mobileApps/{id}/deviceStatuses   the app that brings the site's client

A part of Graph that answers "not found" is left out; one that cannot be reached at all is said.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from tandem.console import labels
from tandem.console.model import Fact, Happening
from tandem.infra.errors import AppError, Kind
from tandem.workloads import BASE, Authority, Workload

# GET of a path below /v1.0 with the caller's rights: the JSON object. Raises AppError.
GraphGet = Callable[[str], Awaitable[Mapping[str, Any]]]

PAGE = 999
CLIENT = "configurationManagerClient"


class TenantDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device by the tenant's account. `device_id` is its id in the directory."""

    device_id: str
    name: str = ""
    user: str = ""
    mdm_id: str = ""
    os_version: str = ""
    model: str = ""
    serial_number: str = ""
    joined: bool = True
    hybrid: bool = False
    licensed: bool = False
    mdm_enrolled: bool = False
    enrolled_at: datetime | None = None
    checked_in_at: datetime | None = None
    app_offered: bool = False
    msi_installed: bool = False
    enrollment_error: int | None = None
    # What the agent let the MDM read of it (DeviceManageability).
    client_reported: bool = False
    policy_reported: bool = False
    agent: str = ""
    flags: int = 0
    trouble: str = ""


class TenantDevices(Protocol):
    """The tenant's account. Both raise an AppError where the tenant cannot be asked."""

    async def __call__(self) -> Mapping[str, TenantDevice]: ...

    async def timeline(self, device: TenantDevice) -> tuple[Happening, ...]: ...


class GraphDevices:
    """All devices of the tenant by directory id; asked anew after `keep_seconds`."""

    def __init__(
        self, get: GraphGet, keep_seconds: float = 5, tick: Callable[[], float] = time.monotonic
    ) -> None:
        self._get = get
        self._keep_seconds = keep_seconds
        self._tick = tick
        self._kept: tuple[float, dict[str, TenantDevice]] | None = None

    async def __call__(self) -> Mapping[str, TenantDevice]:
        if self._kept is None or self._tick() - self._kept[0] > self._keep_seconds:
            self._kept = (self._tick(), await self._read())
        return self._kept[1]

    async def timeline(self, device: TenantDevice) -> tuple[Happening, ...]:
        """What the MDM service recorded of a device, in its own words."""
        source = labels.AUTHORITY[Authority.MDM]
        if not device.mdm_id:
            return ()
        path = f"deviceManagement/managedDevices/{device.mdm_id}/timeline"
        return tuple(
            Happening(at, source, str(item.get("text") or ""), failed=bool(item.get("code")))
            for item in await every(self._get, path)
            if (at := when(item.get("dateTime"))) is not None
        )

    async def _read(self) -> dict[str, TenantDevice]:
        joined = await every(self._get, f"devices?$top={PAGE}")
        managed = await every(self._get, f"deviceManagement/managedDevices?$top={PAGE}")
        failures = await every(self._get, "deviceManagement/troubleshootingEvents")
        licensed = {
            str(user.get("userPrincipalName", "")).casefold()
            for user in await every(
                self._get, f"users?$select=id,userPrincipalName,assignedLicenses&$top={PAGE}"
            )
            if user.get("assignedLicenses")
        }
        offered, installed, stuck = await self._app_statuses()
        found: dict[str, TenantDevice] = {}
        for item in joined:
            key = str(item.get("deviceId", ""))
            owner = _owner(item)
            found[key] = TenantDevice(
                device_id=key,
                name=str(item.get("displayName") or ""),
                user=owner,
                os_version=str(item.get("operatingSystemVersion") or ""),
                hybrid=item.get("trustType") == "ServerAd",
                licensed=owner.casefold() in licensed,
            )
        for item in managed:
            key = str(item.get("azureADDeviceId") or item.get("id"))
            mdm_id = str(item.get("id", ""))
            user = str(item.get("userPrincipalName") or "")
            found[key] = TenantDevice(
                device_id=key,
                mdm_id=mdm_id,
                name=str(item.get("deviceName") or ""),
                user=user,
                os_version=str(item.get("osVersion") or ""),
                model=str(item.get("model") or ""),
                serial_number=str(item.get("serialNumber") or ""),
                hybrid=found[key].hybrid if key in found else False,
                licensed=user.casefold() in licensed,
                mdm_enrolled=True,
                enrolled_at=when(item.get("enrolledDateTime")),
                checked_in_at=when(item.get("lastSyncDateTime")),
                app_offered=mdm_id in offered,
                msi_installed=mdm_id in installed,
                client_reported=str(item.get("managementAgent")).startswith(CLIENT),
                policy_reported=item.get("managementAgent") == f"{CLIENT}Mdm",
                agent=str(
                    (item.get("configurationManagerClientInformation") or {}).get("clientVersion")
                    or ""
                ),
                flags=_flags(item),
                trouble=stuck.get(mdm_id, ""),
            )
        for item in sorted(failures, key=lambda event: str(event.get("eventDateTime", ""))):
            key = str(item.get("deviceId") or "")
            code = _code(item)
            if code is None or (key in found and found[key].mdm_enrolled):
                continue
            before = found.get(key) or TenantDevice(device_id=key, joined=False)
            found[key] = msgspec.structs.replace(before, enrollment_error=code)
        found.pop("", None)
        return found

    async def _app_statuses(self) -> tuple[set[str], set[str], dict[str, str]]:
        offered: set[str] = set()
        installed: set[str] = set()
        stuck: dict[str, str] = {}
        for app in await every(self._get, "deviceAppManagement/mobileApps"):
            # The site's client comes as a line-of-business MSI that carries its command line.
            if "CCMHOSTNAME" not in str(app.get("commandLine") or ""):
                continue
            path = f"deviceAppManagement/mobileApps/{app['id']}/deviceStatuses"
            for status in await every(self._get, path):
                device = str(status.get("deviceId", ""))
                if status.get("installState") not in ("excluded", "available", "absent"):
                    offered.add(device)
                if status.get("installState") == "installed":
                    installed.add(device)
                client = status.get("client")
                if isinstance(client, Mapping) and client.get("stuckAt"):
                    stuck[device] = str(client["stuckAt"])
        return offered, installed, stuck


async def every(get: GraphGet, path: str) -> list[Mapping[str, Any]]:
    """Every page of a collection; empty where this tenant's Graph has no such thing."""
    found: list[Mapping[str, Any]] = []
    following: str | None = path
    while following:
        try:
            page = await get(following)
        except AppError as error:
            if error.kind in (Kind.NOT_FOUND, Kind.INVALID, Kind.UNSUPPORTED):
                return found
            raise
        found.extend(page.get("value", ()))
        onward = page.get("@odata.nextLink")
        following = str(onward).partition("/v1.0/")[2] if onward else None
    return found


# Which of configurationManagerClientEnabledFeatures stands for which workload: true is the MDM's.
_FEATURES = {
    "compliancePolicy": Workload.COMPLIANCE_POLICIES,
    "resourceAccess": Workload.RESOURCE_ACCESS,
    "deviceConfiguration": Workload.DEVICE_CONFIGURATION,
    "windowsUpdateForBusiness": Workload.WINDOWS_UPDATE,
    "endpointProtection": Workload.ENDPOINT_PROTECTION,
    "modernApps": Workload.CLIENT_APPS,
    "officeApps": Workload.OFFICE_CLICK_TO_RUN,
}


def _flags(item: Mapping[str, Any]) -> int:
    features = item.get("configurationManagerClientEnabledFeatures")
    if not isinstance(features, Mapping):
        return 0
    value = BASE
    for name, workload in _FEATURES.items():
        if features.get(name) is True:
            value |= workload.bits
    return value


def _owner(item: Mapping[str, Any]) -> str:
    for owner in item.get("registeredOwners") or item.get("registeredUsers") or ():
        if name := owner.get("userPrincipalName"):
            return str(name)
    return ""


def when(value: object) -> datetime | None:
    if not isinstance(value, str) or value.startswith("0001"):
        return None
    try:
        return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return None


def _code(event: Mapping[str, Any]) -> int | None:
    """The HRESULT of a failed enrolment, from the fields that may carry it."""
    for name in ("failureCode", "errorCode", "failureReason"):
        value = event.get(name)
        if isinstance(value, int):
            return value & 0xFFFFFFFF
        if isinstance(value, str):
            for word in value.replace("(", " ").replace(")", " ").replace(".", " ").split():
                if word.lower().startswith("0x"):
                    try:
                        return int(word, 16)
                    except ValueError:
                        continue
    return None


def account(device: TenantDevice | None) -> tuple[Fact, ...]:
    """The MDM service's lines of a device's page."""
    if device is None:
        return (Fact(labels.ENROLLED, False),)
    return (
        Fact(labels.ENROLLED, device.mdm_enrolled),
        Fact(labels.ENROLLED_AT, device.enrolled_at),
        Fact(labels.LAST_CHECK_IN, device.checked_in_at),
        Fact(labels.OWNER, device.user),
        Fact(labels.DIRECTORY_ID, device.device_id),
        Fact(labels.MDM_ID, device.mdm_id),
        Fact(labels.MODEL, device.model),
        Fact(labels.SERIAL, device.serial_number),
        Fact(labels.APP_OFFERED, device.app_offered),
        Fact(labels.MSI_INSTALLED, device.msi_installed),
    )
