"""Managed devices: what the MDM service knows of each, and orders to it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tandem.infra import listing
from tandem.infra.listing import Row
from tandem.protocols.ccm import ConfigInfo
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, enrollment, sessions
from tandem.tenant.graph import device_settings
from tandem.tenant.graph.device_actions import ORDERS, by, device_actions, order_of
from tandem.tenant.graph.device_offers import device_offers
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Family,
    Field,
    Part,
    Resource,
    Value,
    access,
)
from tandem.tenant.graph.permissions import MANAGED_READ, PRIVILEGED, READERS, WRITERS
from tandem.tenant.sessions import Sessions
from tandem.workloads import CATALOGUE, Authority, owner_of

READ = MANAGED_READ
_WRITE = access("DeviceManagementManagedDevices.ReadWrite.All", roles=WRITERS)
_CONFIGURATION_READ = access(
    "DeviceManagementConfiguration.Read.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "DeviceManagementManagedDevices.Read.All",
    roles=READERS,
)

# Graph's names of the workloads in configurationManagerClientEnabledFeatures.
_FEATURES = {workload: entry.feature for workload, entry in CATALOGUE.items()}
_EMPTY = "00000000-0000-0000-0000-000000000000"


def managed_devices(service: Sessions) -> Part:
    async def retired(call: Call, key: str) -> None:
        await service.order(call.tx, by(call), *_first(order_of("delete", {}), key))

    def ordering(action: str) -> Callable[[Call, Body], Awaitable[Answer]]:
        async def order(call: Call, body: Body) -> Answer:
            await service.order(call.tx, by(call), *_first(order_of(action, body), _device(call)))
            return None

        return order

    async def timeline(call: Call, body: Body) -> Answer:
        found = await enrollment.timeline(call.tx, device_id=_device(call))
        return Value(
            [
                {
                    "dateTime": item.at,
                    "kind": item.kind,
                    "text": item.text,
                    "code": item.code or None,
                    "traceId": item.trace or None,
                }
                for item in found
            ]
        )

    async def settings(call: Call, body: Body) -> Answer:
        """What a device took, and what it is to have: the proof of one writer."""
        device = await enrollment.device(call.tx, _device(call))
        return Value(await device_settings.of_device(call.tx, service.policies, device))

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

    async def release(call: Call, body: Body) -> Answer:
        given = str(body.get("kind") or ""), str(body.get("subject") or "")
        return Value(await service.release(call.tx, _device(call), *given))

    async def capabilities(call: Call, body: Body) -> Answer:
        """Which CSPs the device's Windows has, as it says of itself."""
        device = await enrollment.device(call.tx, _device(call))
        build, csps = await sessions.capabilities(call.tx, device.id)
        found = [{"node": node, "version": version} for node, version in sorted(csps.items())]
        return Value({"osVersion": build or None, "csps": found})

    devices = Resource(
        path="deviceManagement/managedDevices",
        type="managedDevice",
        family=Family.INTUNE,
        rows=enrollment.DEVICES,
        scope=lambda _: ("d.state <> 'unenrolled'", {}),
        key_is_guid=False,
        page_size=1000,
        max_page_size=1000,
        read=READ,
        write=_WRITE,
        update=_update,
        delete=retired,
        fields=FIELDS,
    )
    together = replace(
        devices,
        path="deviceManagement/comanagedDevices",
        type="comanagedDevice",
        scope=lambda _: (f"d.state <> 'unenrolled' AND {_CO_MANAGED}", {}),
    )
    overdue = _overdue(devices, service)
    events = Resource(
        path="deviceManagement/troubleshootingEvents",
        type="enrollmentTroubleshootingEvent",
        family=Family.INTUNE,
        rows=failures,
        read=READ,
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
    actions = []
    for one in (
        "deviceManagement/managedDevices/{managedDevice}",
        "deviceManagement/comanagedDevices/{comanagedDevice}",
    ):
        actions += [
            Action(f"{one}/timeline", timeline, READ, method="GET", family=Family.INTUNE),
            Action(
                f"{one}/releaseCommands", release, PRIVILEGED, body=_RELEASE, family=Family.INTUNE
            ),
            Action(f"{one}/capabilities", capabilities, READ, method="GET", family=Family.INTUNE),
            Action(
                f"{one}/settings", settings, _CONFIGURATION_READ, method="GET", family=Family.INTUNE
            ),
        ]
        actions += [
            Action(f"{one}/{name}", ordering(name), PRIVILEGED, body=taken, family=Family.INTUNE)
            for name, taken in ORDERS.items()
        ]
    guarded = device_actions(service)
    settings_of = device_settings.device_settings(service.policies)
    strays, told = _strays(service)
    return Part(
        (
            devices,
            together,
            overdue,
            *_contained(service),
            events,
            _holds(),
            strays,
            *guarded.resources,
        ),
        (*actions, told, *guarded.actions, *settings_of.actions, device_offers(service.policies)),
    )


def _overdue(devices: Resource, service: Sessions) -> Resource:
    """Devices that have not called for longer than their schedule and a day explain (section 13)."""
    after = service.overdue_after

    def overdue_at(row: Row) -> Any:
        return row["last_sync_date_time"] + after

    return replace(
        devices,
        path="tandem/overdueDevices",
        type="overdueDevice",
        scope=lambda call: (
            "d.state <> 'unenrolled' AND coalesce(d.seen_at, d.enrolled_at) < %(overdue_before)s",
            {"overdue_before": call.now - after},
        ),
        write=None,
        update=None,
        delete=None,
        fields=(
            *FIELDS,
            Field(
                "overdueSinceDateTime",
                Primitive.TIME,
                value=overdue_at,
                needs=("last_sync_date_time",),
            ),
        ),
    )


def _first(order: tuple[str, str], device: str) -> tuple[str, list[str], str]:
    """The arguments of an order for this device alone."""
    return order[0], [device], order[1]


_RELEASE = (Field("kind", writable=True), Field("subject", writable=True))
_HOLD_FIELDS = (
    Field("id"),
    Field("deviceId"),
    Field("deviceName"),
    Field("kind"),
    Field("subject"),
    Field("status", Primitive.INTEGER),
    Field("reason"),
    Field("setAsideDateTime", Primitive.TIME),
)


async def _held(call: Call, device_id: str = "") -> Sequence[Row]:
    """Commands that devices do not get any more, with the names of those devices: of a device that
    has left there is nothing to release."""
    found = await sessions.holds(call.tx, device_id)
    known = await listing.rows(
        call.tx,
        enrollment.DEVICES,
        ["device_name"],
        where=["d.state <> 'unenrolled'", "d.id = ANY(string_to_array(%(ids)s, ','))"],
        parameters={"ids": ",".join({one.device_id for one in found})},
    )
    names = {row["id"]: row["device_name"] for row in known}
    return [
        {
            "id": f"{one.device_id}_{one.kind}_{one.subject}",
            "device_id": one.device_id,
            "device_name": names[one.device_id],
            "kind": one.kind,
            "subject": one.subject,
            "status": one.code or None,
            "reason": one.reason,
            "set_aside_date_time": one.at,
        }
        for one in found
        if one.device_id in names
    ]


def _holds() -> Resource:
    return Resource(
        path="tandem/setAsideCommands",
        type="setAsideCommand",
        family=Family.INTUNE,
        rows=_held,
        read=READ,
        key_is_guid=False,
        fields=_HOLD_FIELDS,
    )


def _strays(service: Sessions) -> tuple[Resource, Action]:
    """Devices that have left and call all the same, and that they be told to leave."""

    async def rows(call: Call) -> Sequence[Row]:
        found = await sessions.strays(call.tx)
        names = await enrollment.names_of(call.tx, [one.device_id for one in found])
        return [
            {
                "id": one.device_id,
                "device_name": names.get(one.device_id, ""),
                "calls": one.calls,
                "first_call_date_time": one.first_at,
                "last_call_date_time": one.last_at,
                "unenroll_ordered_date_time": one.ordered_at,
                "unenroll_sent_date_time": one.told_at,
            }
            for one in found
        ]

    async def unenroll(call: Call, body: Body) -> Answer:
        await service.tell_to_leave(call.tx, call.keys["strayDevice"])
        return None

    listed = Resource(
        path="tandem/strayDevices",
        type="strayDevice",
        family=Family.INTUNE,
        rows=rows,
        read=READ,
        key_is_guid=False,
        fields=(
            Field("id"),
            Field("deviceName"),
            Field("calls", Primitive.INTEGER),
            Field("firstCallDateTime", Primitive.TIME),
            Field("lastCallDateTime", Primitive.TIME),
            Field("unenrollOrderedDateTime", Primitive.TIME),
            Field("unenrollSentDateTime", Primitive.TIME),
        ),
    )
    told = Action(
        "tandem/strayDevices/{strayDevice}/unenroll", unenroll, PRIVILEGED, family=Family.INTUNE
    )
    return listed, told


def _device(call: Call) -> str:
    return call.keys.get("managedDevice") or call.keys["comanagedDevice"]


async def _update(call: Call, key: str, changes: Body) -> None:
    columns = {
        "notes": "notes",
        "managedDeviceName": "managed_name",
        "managedDeviceOwnerType": "owner_type",
    }
    for name, value in changes.items():
        if name == "managedDeviceOwnerType" and value is None:
            raise BadProperty(
                "Invalid value specified for property 'managedDeviceOwnerType': it cannot be empty.",
                cure="Send company or personal.",
                target=name,
            )
        await enrollment.set_management(call.tx, key, columns[name], value)


async def _names(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    """The display names of the devices' users, by device."""
    found = await listing.rows(
        call.tx,
        directory.USERS,
        ["display_name"],
        where=["u.id = ANY(string_to_array(%(ids)s, ',')::uuid[])"],
        parameters={"ids": ",".join({row["user_id"] for row in rows if row["user_id"]})},
    )
    names = {str(row["id"]): row["display_name"] for row in found}
    return {row["id"]: names.get(row["user_id"]) for row in rows}


async def _results(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    found = await sessions.results(call.tx, [row["id"] for row in rows])
    return {
        device_id: [
            {
                "actionName": item.name,
                "actionState": item.state,
                "startDateTime": item.started_at,
                "lastUpdatedDateTime": item.changed_at,
            }
            for item in results
        ]
        for device_id, results in found.items()
    }


def _agent(row: Row) -> ConfigInfo | None:
    return ConfigInfo.read(row["config_info"]) if row["config_info"] else None


def _features(row: Row) -> dict[str, bool] | None:
    """Who owns the workload: true is the MDM service. None without a site's client."""
    agent = _agent(row)
    if agent is None or not agent.policy:
        return None
    owned = {
        name: owner_of(workload, agent.flags) is Authority.MDM
        for workload, name in _FEATURES.items()
    }
    return {**owned, "inventory": True}


def _health(row: Row) -> dict[str, Any] | None:
    agent = _agent(row)
    if agent is None or not agent.client:
        return None
    return {
        "state": "healthy" if agent.policy else "installed",
        "errorCode": agent.code,
        "lastSyncDateTime": row["config_info_at"],
    }


def _client(row: Row) -> dict[str, Any] | None:
    agent = _agent(row)
    if agent is None:
        return None
    return {
        "clientIdentifier": agent.client,
        "isBlocked": False,
        "clientVersion": agent.agent,
        "workloadFlags": agent.flags,
        "policyPresent": agent.policy,
        "setupState": agent.setup,
        "setupCode": agent.code,
        "setupLog": agent.log,
    }


_UNSET = "0001-01-01T00:00:00Z"
_CO_MANAGED = "d.management_agent = 'configurationManagerClientMdm'"

# Properties of Graph that a Windows device here never has; scripts read them all the same.
_ALWAYS: dict[str, Any] = {
    "deviceRegistrationState": "registered",
    "jailBroken": "Unknown",
    "easActivated": False,
    "easDeviceId": None,
    "easActivationDateTime": _UNSET,
    "activationLockBypassCode": None,
    "remoteAssistanceSessionUrl": None,
    "remoteAssistanceSessionErrorDetails": None,
    "isSupervised": False,
    "exchangeLastSuccessfulSyncDateTime": _UNSET,
    "exchangeAccessState": "none",
    "exchangeAccessStateReason": "none",
    "deviceCategoryDisplayName": None,
    "complianceGracePeriodExpirationDateTime": "9999-12-31T23:59:59Z",
    "phoneNumber": None,
    "androidSecurityPatchLevel": None,
    "deviceHealthAttestationState": None,
    "subscriberCarrier": None,
    "meid": None,
    "imei": None,
    "iccid": None,
    "udid": None,
    "totalStorageSpaceInBytes": 0,
    "freeStorageSpaceInBytes": 0,
    "partnerReportedThreatState": "unknown",
    "requireUserEnrollmentApproval": None,
    "wiFiMacAddress": None,
    "ethernetMacAddress": None,
    "enrollmentProfileName": None,
}
_ALWAYS_BETA: dict[str, Any] = {
    "autopilotEnrolled": False,
    "deviceType": "windowsRT",
    "chassisType": "unknown",
    "processorArchitecture": "unknown",
    "skuFamily": None,
    "skuNumber": 0,
    "specificationVersion": None,
    "managementFeatures": "none",
    "windowsActiveMalwareCount": 0,
    "windowsRemediatedMalwareCount": 0,
    "retireAfterDateTime": _UNSET,
    "preferMdmOverGroupPolicyAppliedDateTime": _UNSET,
    "chromeOSDeviceInfo": [],
    "lostModeState": "disabled",
    "bootstrapTokenEscrowed": False,
    "roleScopeTagIds": ["0"],
    "usersLoggedOn": [],
    "cloudPcRemoteActionResults": [],
}


def _fixed(values: Mapping[str, Any], *, beta: bool) -> tuple[Field, ...]:
    kinds = {bool: Primitive.BOOLEAN, int: Primitive.INTEGER, list: Primitive.COMPLEX}
    return tuple(
        Field(
            name,
            kinds.get(type(value), Primitive.STRING),
            collection=isinstance(value, list),
            initial=value,
            constant=True,
            beta=beta,
        )
        for name, value in values.items()
    )


FIELDS = (
    Field("id"),
    Field("userId"),
    Field("deviceName"),
    Field("managedDeviceName", writable=True),
    Field("managedDeviceOwnerType", writable=True, choices=("unknown", "company", "personal")),
    Field("enrolledDateTime", Primitive.TIME),
    Field("lastSyncDateTime", Primitive.TIME),
    Field("operatingSystem"),
    Field("osVersion"),
    Field("complianceState"),
    Field("managementAgent"),
    Field("managementState"),
    Field("deviceEnrollmentType"),
    Field("azureADRegistered", Primitive.BOOLEAN, column="azure_ad_registered"),
    Field("azureADDeviceId", column="azure_ad_device_id"),
    Field("emailAddress", column="user_principal_name"),
    Field("userPrincipalName"),
    Field("userDisplayName", load=_names),
    Field("model"),
    Field("manufacturer"),
    Field("serialNumber"),
    Field("notes", writable=True),
    Field("physicalMemoryInBytes", Primitive.INTEGER, initial=0),
    Field(
        "managementCertificateExpirationDate",
        Primitive.TIME,
        column="certificate_ends_at",
    ),
    Field(
        "configurationManagerClientEnabledFeatures",
        Primitive.COMPLEX,
        value=_features,
        needs=("config_info",),
    ),
    Field("isEncrypted", Primitive.BOOLEAN),
    Field("deviceActionResults", Primitive.COMPLEX, collection=True, load=_results),
    *_fixed(_ALWAYS, beta=False),
    Field(
        "configurationManagerClientHealthState",
        Primitive.COMPLEX,
        value=_health,
        needs=("config_info", "config_info_at"),
    ),
    Field(
        "configurationManagerClientInformation",
        Primitive.COMPLEX,
        value=_client,
        needs=("config_info",),
    ),
    Field("azureActiveDirectoryDeviceId", column="azure_ad_device_id", beta=True),
    Field("aadRegistered", Primitive.BOOLEAN, column="azure_ad_registered", beta=True),
    Field("ownerType", column="managed_device_owner_type", beta=True),
    Field("enrolledByUserPrincipalName", column="user_principal_name", beta=True),
    Field(
        "joinType",
        value=lambda row: "azureADJoined" if row["azure_ad_registered"] else "unknown",
        needs=("azure_ad_registered",),
        beta=True,
    ),
    Field(
        "hardwareInformation",
        Primitive.COMPLEX,
        value=lambda row: {
            "serialNumber": row["serial_number"],
            "model": row["model"],
            "manufacturer": row["manufacturer"],
            "osBuildNumber": row["os_version"],
            "isEncrypted": row["is_encrypted"],
        },
        needs=("serial_number", "model", "manufacturer", "os_version", "is_encrypted"),
        beta=True,
    ),
    *_fixed(_ALWAYS_BETA, beta=True),
)


def _contained(service: Sessions) -> list[Resource]:
    """What belongs to one device: its user, and the settings it took."""

    async def users(call: Call) -> Sequence[Row]:
        device = await enrollment.device(call.tx, _device(call))
        found = await directory.find_user(call.tx, device.user_id)
        return (
            []
            if found is None
            else [
                {
                    "id": found.id,
                    "display_name": found.display_name,
                    "user_principal_name": found.user_principal_name,
                }
            ]
        )

    async def states(call: Call) -> Sequence[Row]:
        device = await enrollment.device(call.tx, _device(call))
        return await device_settings.states(call.tx, service.policies, device)

    async def aside(call: Call) -> Sequence[Row]:
        device = await enrollment.device(call.tx, _device(call))
        return await _held(call, device.id)

    async def none(call: Call) -> Sequence[Row]:
        await enrollment.device(call.tx, _device(call))
        return []

    state_fields = (
        Field("id"),
        Field("displayName"),
        Field("version", Primitive.INTEGER, initial=1, constant=True),
        Field("platformType", initial="windows10AndLater", constant=True),
        Field("state"),
        Field("settingCount", Primitive.INTEGER),
        Field("settingStates", Primitive.COMPLEX, collection=True),
    )
    category = (Field("id"), Field("displayName"), Field("description"))
    applications = (Field("id"), Field("displayName"), Field("version"))
    at = "deviceManagement/managedDevices/{managedDevice}"
    kinds = (
        (
            "users",
            "managedDeviceUser",
            users,
            tuple(map(Field, ("id", "displayName", "userPrincipalName"))),
        ),
        ("setAsideCommands", "setAsideCommand", aside, _HOLD_FIELDS),
        ("deviceConfigurationStates", "deviceConfigurationState", states, state_fields),
        ("deviceCompliancePolicyStates", "deviceCompliancePolicyState", none, state_fields),
        ("detectedApps", "detectedApp", none, applications),
        ("logCollectionRequests", "deviceLogCollectionResponse", none, category[:1]),
    )
    return [
        Resource(
            path=f"{at}/{name}",
            type=sort,
            family=Family.INTUNE,
            rows=rows,
            read=READ,
            key_is_guid=False,
            fields=fields,
        )
        for name, sort, rows, fields in kinds
    ]
