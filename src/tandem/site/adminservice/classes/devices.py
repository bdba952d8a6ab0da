"""Devices: SMS_R_System, SMS_CombinedDeviceResources, and v1.0's Device."""

from collections.abc import Mapping
from typing import Any

from tandem.protocols.odata import Expression, Primitive
from tandem.site import clients, collections
from tandem.site.adminservice.model import Call, Class, Key, Property

_INTEGER, _BOOLEAN, _TIME = Primitive.INTEGER, Primitive.BOOLEAN, Primitive.TIME

_EVERY = "collections_resource r LEFT JOIN clients_client c ON c.id = r.client_id"
OS = "trim(r.os_name || ' ' || r.os_version)"
# The field's default for a client that counts as active.
ACTIVE = "coalesce(c.last_seen_at > %(now)s::timestamptz - interval '7 days', false)"
_ENROLLED = "coalesce((c.state ->> 'mdm_enrolled')::boolean, false)"
COMANAGED = f"({_ENROLLED} AND coalesce((c.state ->> 'policy_present')::boolean, false))"
# 0 not approved, 1 approved, 2 not applicable: there is no client.
APPROVED = "CASE WHEN c.id IS NULL THEN 2 ELSE (c.approval > 0)::int END"
# Bits of Graph's managementAgentType: 8 the site's client, 2 the MDM client, both together 10.
_AUTHORITY = f"(CASE WHEN c.id IS NULL THEN 0 ELSE 8 END + CASE WHEN {_ENROLLED} THEN 2 ELSE 0 END)"
BLOCKED = "coalesce(c.blocked, false)"
SITE = "%(site)s::text"


async def _seen(call: Call, _: Expression | None) -> tuple[str, Mapping[str, Any]]:
    """The devices that who asks may see."""
    within = await collections.visible_devices_sql(call.tx)
    if within is None:
        return _EVERY, {}
    sql, bound = within
    seen = f"(SELECT * FROM collections_resource WHERE client_id IN ({sql})) r"  # noqa: S608
    return f"{seen} LEFT JOIN clients_client c ON c.id = r.client_id", bound


async def _delete(call: Call, key: Key) -> None:
    await clients.forget(call.tx, key["ResourceId"], actor=call.who.name, now=call.now)


SYSTEM = Class(
    surface="wmi",
    name="SMS_R_System",
    key=("ResourceId",),
    properties=(
        Property("ResourceId", _INTEGER, sql="r.id"),
        Property("ResourceType", _INTEGER, sql="5"),
        Property("Name", sql="r.name"),
        Property("NetbiosName", sql="r.name"),
        Property("ResourceNames", many=True, sql="ARRAY[r.name]"),
        Property("SMSUniqueIdentifier", sql="r.client_id"),
        Property("Client", _INTEGER, sql="(c.id IS NOT NULL)::int"),
        Property("ClientType", _INTEGER, sql="CASE WHEN c.id IS NOT NULL THEN 1 END"),
        Property("ClientVersion", sql="r.client_version"),
        Property("Active", _INTEGER, sql=f"({ACTIVE})::int"),
        Property("Obsolete", _INTEGER, sql="coalesce(c.obsolete, false)::int"),
        Property("OperatingSystemNameandVersion", sql=OS),
        Property("Build", sql="r.os_version"),
        Property("SMSAssignedSites", many=True, sql=f"ARRAY[{SITE}]"),
        Property(
            "SMSInstalledSites",
            many=True,
            sql=f"CASE WHEN c.id IS NULL THEN ARRAY[]::text[] ELSE ARRAY[{SITE}] END",
        ),
        Property("AADDeviceID", sql="r.device_id"),
        Property("AADTenantID", sql="r.tenant_id"),
        Property("CreationDate", _TIME, sql="coalesce(c.registered_at, r.discovered_at)"),
    ),
    origin=_seen,
    narrowed=True,
    delete=_delete,
    superclass="SMS_Resource",
)

_COMBINED = (
    Property("Name", sql="r.name"),
    Property("SMSID", sql="r.client_id"),
    Property("SiteCode", sql=SITE),
    Property("IsClient", _BOOLEAN, sql="(c.id IS NOT NULL)"),
    Property("IsActive", _BOOLEAN, sql=ACTIVE),
    Property("IsAssigned", _BOOLEAN, sql="(c.id IS NOT NULL)"),
    Property("IsApproved", _INTEGER, sql=APPROVED),
    Property("IsBlocked", _BOOLEAN, sql=BLOCKED),
    Property("IsObsolete", _BOOLEAN, sql="coalesce(c.obsolete, false)"),
    Property("ClientType", _INTEGER, sql="CASE WHEN c.id IS NOT NULL THEN 1 END"),
    Property("ClientVersion", sql="r.client_version"),
    Property("DeviceOS", sql=OS),
    Property("DeviceOSBuild", sql="r.os_version"),
    Property("LastActiveTime", _TIME, sql="c.last_seen_at"),
    Property("LastDDR", _TIME, sql="r.discovered_at"),
    Property("LastPolicyRequest", _TIME, sql="c.policy_at"),
    Property("LastStatusMessage", _TIME, sql="c.state_at"),
    Property("AADDeviceID", sql="r.device_id"),
    Property("AADTenantID", sql="r.tenant_id"),
    Property("CoManaged", _BOOLEAN, sql=COMANAGED),
    Property("ManagementAuthority", _INTEGER, sql=_AUTHORITY),
)
COMBINED = Class(
    surface="wmi",
    name="SMS_CombinedDeviceResources",
    key=("ResourceID",),
    properties=(Property("ResourceID", _INTEGER, sql="r.id"), *_COMBINED),
    origin=_seen,
    narrowed=True,
)

# In v1.0, what is a truth value elsewhere is a number.
_AS_NUMBER = {"IsClient": "(c.id IS NOT NULL)::int"}
DEVICE = Class(
    surface="v1.0",
    name="Device",
    key=("MachineId",),
    properties=(
        Property("MachineId", _INTEGER, sql="r.id"),
        *(
            Property(item.name, _INTEGER, sql=_AS_NUMBER[item.name])
            if item.name in _AS_NUMBER
            else item
            for item in _COMBINED
        ),
    ),
    origin=_seen,
    narrowed=True,
)

CLASSES = (SYSTEM, COMBINED, DEVICE)
