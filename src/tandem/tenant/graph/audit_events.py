"""Audit events of device management: the Intune half of the audit log, in Intune's words."""

from typing import Any

from tandem import audit
from tandem.infra import listing
from tandem.infra.listing import Row, Source
from tandem.protocols.odata import Primitive
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
from tandem.tenant.graph.permissions import READERS

_READ = access(
    "DeviceManagementApps.Read.All",
    "DeviceManagementApps.ReadWrite.All",
    "DeviceManagementConfiguration.Read.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "DeviceManagementManagedDevices.Read.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    "DeviceManagementServiceConfig.Read.All",
    "DeviceManagementServiceConfig.ReadWrite.All",
    roles=READERS,
)
# By resource type: the component that Intune files it under, and the category.
_COMPONENTS = {
    "managedDevice": ("ManagedDevices", "Device"),
    "comanagedDevice": ("ManagedDevices", "Device"),
    "mobileApp": ("MobileApp", "Application"),
    "mobileAppCategory": ("MobileApp", "Application"),
    "mobileAppAssignment": ("MobileApp", "Application"),
    "mobileAppContent": ("MobileApp", "Application"),
    "mobileAppContentFile": ("MobileApp", "Application"),
    "deviceConfiguration": ("DeviceConfiguration", "DeviceConfiguration"),
    "deviceManagementConfigurationPolicy": ("DeviceConfiguration", "DeviceConfiguration"),
    "deviceCompliancePolicy": ("DeviceCompliancePolicy", "Compliance"),
    "deviceEnrollmentConfiguration": ("Enrollment", "Enrollment"),
    "mobilityManagementPolicy": ("Enrollment", "Enrollment"),
    "deviceAndAppManagementAssignmentFilter": ("AssignmentFilter", "Other"),
    "notificationMessageTemplate": ("NotificationMessageTemplate", "Compliance"),
    "roleDefinition": ("RoleBasedAccessControl", "Role"),
    "roleScopeTag": ("RoleBasedAccessControl", "Role"),
    "deviceAndAppManagementRoleAssignment": ("RoleBasedAccessControl", "Role"),
    "deviceManagement": ("DeviceManagementSettings", "Other"),
}
_OTHER = ("DeviceManagement", "Other")
_OPERATIONS = {"Add": "Create", "Update": "Patch", "Delete": "Delete", "Assign": "SetReference"}
# How far back activity types are gathered.
_NEWEST = 10_000
_AUDIT_TYPES = {"deviceManagement": "DeviceManagementSettings"}


def _chosen(column: str, words: dict[str, str], otherwise: str) -> str:
    """A CASE over a text; everything in it is our own."""
    cases = " ".join(f"WHEN '{name}' THEN '{word}'" for name, word in words.items())
    return f"CASE {column} {cases} ELSE '{otherwise}' END"


_TYPE = "coalesce(a.details->>'type', '')"
_OPERATION = _chosen("a.details->>'operation'", _OPERATIONS, "Action")
EVENTS = Source(
    "(SELECT * FROM audit_entry WHERE details->>'family' = 'intune') a",
    {
        # The newest first, as Intune answers.
        "position": "-a.id",
        "id": "lpad(to_hex(a.id), 8, '0') || '-0000-0000-0000-000000000000'",
        "at": "a.at",
        "actor": "a.actor",
        "target": "a.target",
        "details": "a.details",
        "outcome": "CASE a.outcome WHEN 'done' THEN 'Success' ELSE 'Failure' END",
        "activity": "coalesce(a.details->>'activity', a.action)",
        "operation": _OPERATION,
        "component": _chosen(
            _TYPE, {name: one for name, (one, _) in _COMPONENTS.items()}, _OTHER[0]
        ),
        "category": _chosen(
            _TYPE, {name: two for name, (_, two) in _COMPONENTS.items()}, _OTHER[1]
        ),
    },
    key="position",
)


def _actor(row: Row) -> dict[str, Any]:
    by = row["details"].get("by") or {}
    user = by.get("sort") == "user"
    return {
        "auditActorType": "ItPro" if user else "Application",
        "userPermissions": [],
        "applicationId": by.get("app_id"),
        "applicationDisplayName": None if user else by.get("name"),
        "userPrincipalName": by.get("name") if user else None,
        "servicePrincipalName": None,
        "ipAddress": by.get("address"),
        "userId": by.get("id") if user else None,
    }


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else audit.as_json(value)


def _resources(row: Row) -> list[dict[str, Any]]:
    """Always one at least: clients take the first without looking (graph-compat, 6.8)."""
    details = row["details"]
    sort = str(details.get("type") or "")
    return [
        {
            "displayName": details.get("name") or None,
            "auditResourceType": _AUDIT_TYPES.get(sort, sort),
            "resourceId": row["target"],
            "modifiedProperties": [
                {
                    "displayName": item.get("name"),
                    "oldValue": _text(item.get("old")),
                    "newValue": _text(item.get("new")),
                }
                for item in details.get("changed") or ()
            ],
        }
    ]


def _type_is(member: str, bound: str) -> str:
    """`resources/any(s: s/auditResourceType eq '…')`."""
    if member.lower() == "resourceid":
        return f"a.target = {bound}"
    if member.lower() != "auditresourcetype":
        return "FALSE"
    settings = f"({_TYPE} = 'deviceManagement' AND {bound} = 'DeviceManagementSettings')"
    return f"({_TYPE} = {bound} OR {settings})"


AUDIT_EVENTS = Resource(
    path="deviceManagement/auditEvents",
    type="auditEvent",
    family=Family.INTUNE,
    key_is_guid=False,
    page_size=1000,
    max_page_size=1000,
    rows=EVENTS,
    read=_READ,
    fields=(
        Field("id"),
        Field("displayName", column="activity"),
        Field("componentName", column="component"),
        Field("actor", Primitive.COMPLEX, value=_actor, needs=("details",)),
        Field("activity"),
        Field("activityDateTime", Primitive.TIME, column="at"),
        Field("activityType", column="activity"),
        Field("activityOperationType", column="operation"),
        Field("activityResult", column="outcome"),
        Field("correlationId", column="id"),
        Field("category"),
        Field(
            "resources",
            Primitive.COMPLEX,
            collection=True,
            value=_resources,
            needs=("target", "details"),
            has=_type_is,
        ),
    ),
)


async def _categories(call: Call, body: Body) -> Answer:
    return Value(sorted({category for _, category in (*_COMPONENTS.values(), _OTHER)}))


async def _activity_types(call: Call, body: Body) -> Answer:
    """What was done so far in one category, or in all of them when the name is empty."""
    rows = await listing.rows(
        call.tx,
        EVENTS,
        ["activity"],
        where=[f"%(category)s IN ('', {EVENTS.columns['category']})"],
        parameters={"category": call.parameters.get("category", "")},
        limit=_NEWEST,
    )
    return Value(sorted({row["activity"] for row in rows}))


def audit_events() -> Part:
    at = "deviceManagement/auditEvents"
    asked = {"getAuditCategories": _categories, "getAuditActivityTypes": _activity_types}
    return Part(
        (AUDIT_EVENTS,),
        tuple(
            Action(f"{at}/{name}", run, _READ, method="GET", family=Family.INTUNE)
            for name, run in asked.items()
        ),
    )
