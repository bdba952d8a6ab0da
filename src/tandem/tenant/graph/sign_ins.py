"""auditLogs/signIns: the sign-in log of the authority, as Graph shows it."""

from typing import Any

from tandem.infra.listing import Row, Source
from tandem.protocols.odata import Primitive
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import Field, Part, Resource

_CLIENTS = {
    "interactive": "Browser",
    "refresh": "Mobile Apps and Desktop clients",
    "device-code": "Mobile Apps and Desktop clients",
    "password": "Other clients",
}
_EVENTS = {
    "interactive": "interactiveUser",
    "device-code": "interactiveUser",
    "app": "servicePrincipal",
}

_SIGN_INS = Source(
    "oidc_sign_in s",
    {
        # The newest first is the order in which Graph answers.
        "position": "-extract(epoch FROM s.at)",
        "id": "s.id",
        "at": "s.at",
        "sort": "s.sort",
        "user_id": "s.user_id",
        "upn": "s.upn",
        "user_name": "s.user_name",
        "app_id": "s.app_id",
        "app_name": "s.app_name",
        "resource_id": "s.resource_id",
        "resource_name": "s.resource_name",
        "device_id": "s.device_id",
        "address": "s.address",
        "client": "s.client",
        "number": "s.number",
        "reason": "s.reason",
        "conditions": "s.conditions",
        "correlation_id": "s.correlation_id",
        "interactive": "s.sort IN ('interactive', 'device-code')",
    },
    key="position",
)


def _status(row: Row) -> dict[str, Any]:
    reason = row["reason"] or "Other."
    return {"errorCode": row["number"], "failureReason": reason, "additionalDetails": None}


def _device(row: Row) -> dict[str, Any]:
    return {
        "deviceId": row["device_id"],
        "displayName": "",
        "operatingSystem": "",
        "browser": row["client"] if row["sort"] == "interactive" else "",
        "isCompliant": None,
        "isManaged": None,
        "trustType": "",
    }


SIGN_INS = Resource(
    path="auditLogs/signIns",
    type="signIn",
    rows=_SIGN_INS,
    read=permissions.AUDITS_READ,
    fields=(
        Field("id", Primitive.GUID),
        Field("createdDateTime", Primitive.TIME, column="at"),
        Field("userDisplayName", column="user_name"),
        Field("userPrincipalName", column="upn"),
        Field("userId", Primitive.GUID, column="user_id"),
        Field("appId", column="app_id"),
        Field("appDisplayName", column="app_name"),
        Field("ipAddress", column="address"),
        Field("clientAppUsed", value=lambda row: _CLIENTS.get(row["sort"], ""), needs=("sort",)),
        Field("correlationId", column="correlation_id"),
        Field("conditionalAccessStatus", column="conditions"),
        Field("isInteractive", Primitive.BOOLEAN, column="interactive"),
        Field(
            "signInEventTypes",
            collection=True,
            value=lambda row: [_EVENTS.get(row["sort"], "nonInteractiveUser")],
            needs=("sort",),
        ),
        Field("riskDetail", value=lambda _: "none"),
        Field("riskLevelAggregated", value=lambda _: "none"),
        Field("riskLevelDuringSignIn", value=lambda _: "none"),
        Field("riskState", value=lambda _: "none"),
        Field("riskEventTypes_v2", collection=True, value=lambda _: []),
        Field("resourceId", column="resource_id"),
        Field("resourceDisplayName", column="resource_name"),
        Field("status", Primitive.COMPLEX, value=_status, needs=("number", "reason")),
        Field(
            "deviceDetail",
            Primitive.COMPLEX,
            value=_device,
            needs=("device_id", "client", "sort"),
        ),
        Field("location", Primitive.COMPLEX, value=lambda _: None),
        Field("appliedConditionalAccessPolicies", collection=True, value=lambda _: []),
        # For $filter alone, as Graph's own examples write it.
        Field("status/errorCode", Primitive.INTEGER, readable=False, column="number"),
    ),
)


def sign_ins() -> Part:
    return Part((SIGN_INS,), ())
