"""SMS_CoManagementSettings: where the sliders stand, and the policies that come of it. Read only:
sliders are moved by a full administrator, through the admin API."""

from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.site import comanagement
from tandem.site.adminservice.model import Call, Class, Complex, Property
from tandem.workloads import plan

_INTEGER, _BOOLEAN, _TIME = Primitive.INTEGER, Primitive.BOOLEAN, Primitive.TIME

_WORKLOAD = (
    Property("Name"),
    Property("DisplayName"),
    Property("Capability", _INTEGER),
    Property("Position"),
    Property("PilotCollectionID"),
    Property("LastModifiedDate", _TIME),
    Property("LastModifiedBy"),
)
_POLICY = (
    Property("PolicyID"),
    Property("Name"),
    Property("CollectionID"),
    Property("CoManagementFlags", _INTEGER),
    Property("AutoEnroll", _BOOLEAN),
    Property("Version", _INTEGER),
)
COMPLEXES = (
    Complex("SMS_CoManagementWorkload", _WORKLOAD),
    Complex("SMS_CoManagementPolicy", _POLICY),
)


async def _read(call: Call) -> list[Row]:
    enabled = await comanagement.enablement(call.tx)
    sliders = await comanagement.sliders(call.tx)
    production, pilots = plan({item.workload: item.position for item in sliders.values()})
    everything = production
    for flags in pilots.values():
        everything |= flags
    return [
        {
            "SiteCode": call.site,
            "IsEnabled": enabled is not None,
            "AADTenantID": enabled.tenant_id if enabled else "",
            "AutoEnroll": enabled.auto_enroll.value if enabled else "none",
            "AutoEnrollCollectionID": enabled.collection_id if enabled else "",
            "EnabledDate": enabled.enabled_at if enabled else None,
            "EnabledBy": enabled.enabled_by if enabled else "",
            "CoManagementFlags": production if enabled else 0,
            "PilotCoManagementFlags": everything if enabled else 0,
            "CoManagementWorkloads": [_workload(item) for item in sliders.values()],
            "CoManagementPolicies": [
                _policy(item) for item in await comanagement.policies(call.tx)
            ],
        }
    ]


def _workload(item: comanagement.Slider) -> dict[str, Any]:
    return {
        "@odata.type": "#AdminService.SMS_CoManagementWorkload",
        "Name": item.workload.value,
        "DisplayName": item.workload.title,
        "Capability": item.workload.bits,
        "Position": item.position.value,
        "PilotCollectionID": item.collection_id,
        "LastModifiedDate": item.changed_at,
        "LastModifiedBy": item.changed_by,
    }


def _policy(item: comanagement.Policy) -> dict[str, Any]:
    return {
        "@odata.type": "#AdminService.SMS_CoManagementPolicy",
        "PolicyID": item.id,
        "Name": item.name,
        "CollectionID": item.collection_id,
        "CoManagementFlags": item.capabilities,
        "AutoEnroll": item.auto_enroll,
        "Version": item.version,
    }


SETTINGS = Class(
    surface="wmi",
    name="SMS_CoManagementSettings",
    key=("SiteCode",),
    properties=(
        Property("SiteCode"),
        Property("IsEnabled", _BOOLEAN),
        Property("AADTenantID"),
        Property("AutoEnroll"),
        Property("AutoEnrollCollectionID"),
        Property("EnabledDate", _TIME),
        Property("EnabledBy"),
        Property("CoManagementFlags", _INTEGER),
        Property("PilotCoManagementFlags", _INTEGER),
        Property(
            "CoManagementWorkloads",
            Primitive.COMPLEX,
            many=True,
            complex="SMS_CoManagementWorkload",
        ),
        Property(
            "CoManagementPolicies", Primitive.COMPLEX, many=True, complex="SMS_CoManagementPolicy"
        ),
    ),
    read=_read,
)

CLASSES = (SETTINGS,)
