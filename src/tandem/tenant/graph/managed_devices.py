"""Managed devices: what the MDM service knows of each, and orders to it."""

from collections.abc import Sequence

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import enrollment, policies, sessions
from tandem.tenant.enrollment import Device
from tandem.tenant.graph.model import (
    Action,
    Answer,
    Body,
    Call,
    Family,
    Field,
    Part,
    Resource,
    Value,
    access,
)
from tandem.tenant.graph.permissions import READERS, WRITERS
from tandem.tenant.sessions import Sessions
from tandem.workloads import Authority, Workload, owner_of

_READ = access(
    "DeviceManagementManagedDevices.Read.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    roles=READERS,
)
_PRIVILEGED = access(
    "DeviceManagementManagedDevices.PrivilegedOperations.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    roles=WRITERS,
)
_CONFIGURATION_READ = access(
    "DeviceManagementConfiguration.Read.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "DeviceManagementManagedDevices.Read.All",
    roles=READERS,
)

# Graph's names of the workloads in configurationManagerClientEnabledFeatures.
_FEATURES = {
    Workload.COMPLIANCE_POLICIES: "compliancePolicy",
    Workload.RESOURCE_ACCESS: "resourceAccess",
    Workload.DEVICE_CONFIGURATION: "deviceConfiguration",
    Workload.WINDOWS_UPDATE: "windowsUpdateForBusiness",
    Workload.ENDPOINT_PROTECTION: "endpointProtection",
    Workload.CLIENT_APPS: "modernApps",
    Workload.OFFICE_CLICK_TO_RUN: "officeApps",
}
_EMPTY = "00000000-0000-0000-0000-000000000000"


def managed_devices(service: Sessions) -> Part:
    async def rows(call: Call) -> Sequence[Row]:
        return [_row(item) for item in await enrollment.devices(call.tx)]

    async def sync(call: Call, body: Body) -> Answer:
        key = call.keys["managedDevice"]
        await service.request_sync(call.tx, key)
        await call.audit("managedDevice.sync", key)
        return None

    async def retire(call: Call, body: Body) -> Answer:
        key = call.keys["managedDevice"]
        await service.unenroll(call.tx, key)
        await call.audit("managedDevice.retire", key)
        return None

    async def timeline(call: Call, body: Body) -> Answer:
        found = await enrollment.timeline(call.tx, device_id=call.keys["managedDevice"])
        return Value(
            [
                {
                    "dateTime": item.at,
                    "kind": item.kind,
                    "text": item.text,
                    "code": item.code or None,
                }
                for item in found
            ]
        )

    async def settings(call: Call, body: Body) -> Answer:
        """What a device took, and what it is to have: the proof of one writer."""
        device = await enrollment.device(call.tx, call.keys["managedDevice"])
        groups = await enrollment.groups_of(call.tx, device)
        wanted = await policies.effective(call.tx, groups, device.flags)
        delivered = {
            name: found
            for name, found in (await sessions.deliveries(call.tx, device.id)).items()
            if found.code != sessions.LAPSED
        }
        names = sorted({*wanted, *delivered})
        return Value(
            [
                {
                    "setting": name,
                    "wanted": wanted[name].value if name in wanted else None,
                    "delivered": delivered[name].value if name in delivered else None,
                    "status": delivered[name].code if name in delivered else None,
                }
                for name in names
            ]
        )

    async def failures(call: Call) -> Sequence[Row]:
        return [
            {
                "id": f"{item.id:08d}-0000-0000-0000-000000000000",
                "event_date_time": item.at,
                "device_id": item.directory_device_id or _EMPTY,
                "failure_reason": item.text,
                "failure_code": item.code,
                "correlation_id": str(item.id),
            }
            for item in await enrollment.timeline(call.tx, kind="refused")
        ]

    devices = Resource(
        path="deviceManagement/managedDevices",
        type="managedDevice",
        family=Family.INTUNE,
        rows=rows,
        read=_READ,
        write=_PRIVILEGED,
        fields=(
            Field("id", Primitive.GUID),
            Field("userId", Primitive.GUID),
            Field("deviceName"),
            Field("managedDeviceOwnerType", value=lambda _: "company"),
            Field("enrolledDateTime", Primitive.TIME),
            Field("lastSyncDateTime", Primitive.TIME),
            Field("operatingSystem", value=lambda _: "Windows"),
            Field("osVersion"),
            Field("complianceState", value=lambda _: "unknown"),
            Field("managementAgent"),
            Field("managementState"),
            Field("deviceEnrollmentType"),
            Field("azureADRegistered", Primitive.BOOLEAN),
            Field("azureADDeviceId", Primitive.GUID),
            Field("deviceRegistrationState"),
            Field("emailAddress", column="user_principal_name"),
            Field("userPrincipalName"),
            Field("userDisplayName"),
            Field("model"),
            Field("manufacturer"),
            Field("serialNumber"),
            Field("configurationManagerClientEnabledFeatures", Primitive.COMPLEX),
            Field("configurationManagerClientHealthState", Primitive.COMPLEX),
            Field("configurationManagerClientInformation", Primitive.COMPLEX),
        ),
    )
    events = Resource(
        path="deviceManagement/troubleshootingEvents",
        type="enrollmentTroubleshootingEvent",
        family=Family.INTUNE,
        rows=failures,
        read=_READ,
        key_is_guid=False,
        fields=(
            Field("id"),
            Field("eventDateTime", Primitive.TIME),
            Field("correlationId"),
            Field("deviceId"),
            Field("failureCategory", value=lambda _: "authorization"),
            Field("failureReason"),
            Field("failureCode"),
        ),
    )
    one = "deviceManagement/managedDevices/{managedDevice}"
    return Part(
        (devices, events),
        (
            Action(f"{one}/syncDevice", sync, _PRIVILEGED, family=Family.INTUNE),
            Action(f"{one}/retire", retire, _PRIVILEGED, family=Family.INTUNE),
            Action(f"{one}/timeline", timeline, _READ, method="GET", family=Family.INTUNE),
            Action(
                f"{one}/settings", settings, _CONFIGURATION_READ, method="GET", family=Family.INTUNE
            ),
        ),
    )


def _row(device: Device) -> Row:
    agent = device.agent
    together = agent is not None and agent.policy
    flags = device.flags or 0
    known = agent is not None and bool(agent.client)
    return {
        "id": device.id,
        "user_id": device.user_id,
        "device_name": device.name,
        "enrolled_date_time": device.enrolled_at,
        "last_sync_date_time": device.seen_at or device.enrolled_at,
        "os_version": device.os_version,
        "management_agent": _agent(known, bool(together)),
        "management_state": "retirePending" if device.state == "unenrolling" else "managed",
        "device_enrollment_type": "windowsAzureADJoin"
        if device.directory_device_id
        else "userEnrollment",
        "azure_ad_registered": bool(device.directory_device_id),
        "azure_addevice_id": device.directory_device_id or _EMPTY,
        "azure_ad_device_id": device.directory_device_id or _EMPTY,
        "device_registration_state": "registered",
        "user_principal_name": device.upn,
        "user_display_name": device.upn.partition("@")[0],
        "model": device.inventory.get("model", ""),
        "manufacturer": device.inventory.get("manufacturer", ""),
        "serial_number": device.inventory.get("serial_number", ""),
        "configuration_manager_client_enabled_features": {
            name: owner_of(workload, flags) is Authority.MDM for workload, name in _FEATURES.items()
        }
        | {"inventory": True}
        if together
        else None,
        "configuration_manager_client_health_state": {
            "state": "healthy" if together else "installed",
            "errorCode": agent.code if agent is not None else 0,
            "lastSyncDateTime": device.config_info_at,
        }
        if known
        else None,
        "configuration_manager_client_information": {
            "clientIdentifier": agent.client,
            "isBlocked": False,
            "clientVersion": agent.agent,
            "workloadFlags": agent.flags,
            "policyPresent": agent.policy,
            "setupState": agent.setup,
            "setupCode": agent.code,
            "setupLog": agent.log,
        }
        if agent is not None
        else None,
    }


def _agent(known: bool, together: bool) -> str:
    """Graph's word: both count only when the site's client has policy."""
    if together:
        return "configurationManagerClientMdm"
    return "configurationManagerClient" if known else "mdm"
