"""Co-management as the tenant counts it: who owns what, who could join in, and overviews."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import enrollment
from tandem.tenant.graph.managed_devices import READ
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
)
from tandem.workloads import (
    CATALOGUE,
    Authority,
    Eligibility,
    Facts,
    eligibility,
    owner_of,
)

# Graph's names of the workloads' counters in getComanagedDevicesSummary.
_COUNTERS = {workload: entry.counter for workload, entry in CATALOGUE.items()}
_ELIGIBILITY = {
    Eligibility.COMANAGED: "comanagedCount",
    Eligibility.ELIGIBLE: "eligibleCount",
    Eligibility.NOT_JOINED: "eligibleButNotAzureAdJoinedCount",
    Eligibility.NEEDS_OS_UPDATE: "needsOsUpdateCount",
    Eligibility.INELIGIBLE: "ineligibleCount",
}


async def _summary(call: Call, body: Body) -> Answer:
    """How many co-managed devices the MDM service owns each workload of."""
    by_flags = await enrollment.count_by_flags(call.tx)
    total = sum(by_flags.values())
    counted: dict[str, Any] = {
        name: sum(n for flags, n in by_flags.items() if owner_of(workload, flags) is Authority.MDM)
        for workload, name in _COUNTERS.items()
    }
    return Value({"value": {"inventoryCount": total, **counted, "totalComanagedCount": total}})


def _facts(os_version: str, joined: bool, together: bool) -> Facts:
    return Facts(os_version=os_version, joined=joined, mdm_enrolled=True, policy_present=together)


async def _eligible_summary(call: Call, body: Body) -> Answer:
    found: Counter[str] = Counter(dict.fromkeys(_ELIGIBILITY.values(), 0))
    for os_version, joined, together, number in await enrollment.count_by_eligibility(call.tx):
        found[_ELIGIBILITY[eligibility(_facts(os_version, joined, together))]] += number
    # Enrolment of existing clients is planned by the site, which the tenant does not see into.
    return Value({"value": {**found, "scheduledForEnrollmentCount": 0}})


def _status(row: Row) -> str:
    together = row["management_agent"] == "configurationManagerClientMdm"
    return eligibility(_facts(row["os_version"], row["azure_ad_registered"], together)).value


async def _overview(call: Call) -> Sequence[Row]:
    agents = await enrollment.count_by_agent(call.tx)
    total = sum(agents.values())
    nothing = dict.fromkeys(
        (
            "androidCount", "iosCount", "macOSCount", "windowsMobileCount", "unknownCount",
            "androidDedicatedCount", "androidDeviceAdminCount", "androidFullyManagedCount",
            "androidWorkProfileCount", "androidCorporateWorkProfileCount", "configMgrDeviceCount",
        ),
        0,
    )  # fmt: skip
    access = ("allowed", "blocked", "quarantined", "unknown", "unavailable")
    return [
        {
            "id": "managedDeviceOverview",
            "enrolled_device_count": total,
            "mdm_enrolled_count": total,
            "dual_enrolled_device_count": agents.get("configurationManagerClientMdm", 0),
            "device_operating_system_summary": {**nothing, "windowsCount": total},
            "device_exchange_access_state_summary": {f"{name}DeviceCount": 0 for name in access},
        }
    ]


_ELIGIBLE = Resource(
    path="deviceManagement/comanagementEligibleDevices",
    type="comanagementEligibleDevice",
    family=Family.INTUNE,
    rows=enrollment.DEVICES,
    scope=lambda _: ("d.state <> 'unenrolled'", {}),
    key_is_guid=False,
    page_size=1000,
    max_page_size=1000,
    read=READ,
    fields=(
        Field("id"),
        Field("deviceName"),
        Field("deviceType", initial="windowsRT", constant=True),
        Field("clientRegistrationStatus", initial="registered", constant=True),
        Field("ownerType", column="managed_device_owner_type"),
        Field("managementAgents", column="management_agent"),
        Field("managementState"),
        Field("referenceId", column="azure_ad_device_id"),
        Field("mdmStatus", initial="Enrolled", constant=True),
        Field("osVersion"),
        Field("serialNumber"),
        Field("manufacturer"),
        Field("model"),
        Field("osDescription", column="operating_system"),
        Field("entitySource", Primitive.INTEGER, initial=1, constant=True),
        Field("userId"),
        Field("upn", column="user_principal_name"),
        Field("userEmail", column="user_principal_name"),
        Field("userName", column="user_principal_name"),
        Field(
            "status",
            value=_status,
            needs=("os_version", "azure_ad_registered", "management_agent"),
        ),
    ),
)

_OVERVIEW = Resource(
    path="deviceManagement/managedDeviceOverview",
    type="managedDeviceOverview",
    family=Family.INTUNE,
    rows=_overview,
    singleton=True,
    read=READ,
    fields=(
        Field("id"),
        Field("enrolledDeviceCount", Primitive.INTEGER),
        Field("mdmEnrolledCount", Primitive.INTEGER),
        Field("dualEnrolledDeviceCount", Primitive.INTEGER),
        Field("deviceOperatingSystemSummary", Primitive.COMPLEX),
        Field("deviceExchangeAccessStateSummary", Primitive.COMPLEX),
    ),
)


def comanagement() -> Part:
    asked = {
        "getComanagedDevicesSummary": _summary,
        "getComanagementEligibleDevicesSummary": _eligible_summary,
    }
    return Part(
        (_ELIGIBLE, _OVERVIEW),
        tuple(
            Action(f"deviceManagement/{name}", run, READ, method="GET", family=Family.INTUNE)
            for name, run in asked.items()
        ),
    )
