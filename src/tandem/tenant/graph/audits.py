"""The audit log: directoryAudits as Graph shows them, and the log itself with its proof."""

from typing import Any

import msgspec

from tandem import audit
from tandem.infra.listing import Row, Source
from tandem.protocols.odata import Primitive
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import Action, Answer, Body, Call, Field, Part, Resource, Value

# Sign-ins have a log of their own.
_AUDITS = Source(
    "(SELECT * FROM audit_entry WHERE action <> 'sign in') a",
    {
        # The newest first is the order in which Graph answers.
        "position": "-a.id",
        "id": "a.id::text",
        "at": "a.at",
        "actor": "a.actor",
        "action": "a.action",
        "target": "a.target",
        "outcome": "CASE a.outcome WHEN 'done' THEN 'success' ELSE 'failure' END",
        "details": "a.details",
        "activity": "coalesce(a.details->>'activity', a.action)",
        "category": "coalesce(a.details->>'category', 'Other')",
        "operation": "coalesce(a.details->>'operation', a.action)",
        "service": "CASE a.details->>'family' WHEN 'intune' THEN 'Device Management'"
        " ELSE 'Core Directory' END",
        "user_id": "CASE WHEN a.details->'by'->>'sort' = 'user' THEN a.details->'by'->>'id' END",
        "user_name": "CASE WHEN a.actor LIKE 'user:%%' THEN substr(a.actor, 6) END",
        "app_id": "CASE WHEN a.details->'by'->>'sort' = 'app' THEN a.details->'by'->>'app_id' END",
        "app_name": "CASE WHEN a.actor LIKE 'app:%%' THEN substr(a.actor, 5) END",
    },
    key="position",
)


def _by(row: Row) -> dict[str, Any]:
    details = row["details"]
    by, address = details.get("by"), details.get("address")
    if not isinstance(by, dict):
        by = {"address": address}  # Of an entry that Graph did not write; the log keeps them all.
    sort, _, name = str(row["actor"]).partition(":")
    if by.get("sort", sort) == "user":
        shown = by.get("name") or name
        user = {"id": by.get("id"), "displayName": None, "userPrincipalName": shown}
        return {"user": {**user, "ipAddress": by.get("address")}, "app": None}
    app = {"appId": by.get("app_id"), "displayName": by.get("name") or name}
    return {
        "user": None,
        "app": {**app, "servicePrincipalId": by.get("id"), "servicePrincipalName": None},
    }


_TYPES = {
    "user": "User",
    "group": "Group",
    "device": "Device",
    "application": "Application",
    "servicePrincipal": "ServicePrincipal",
    "directoryRole": "Role",
}


def _targets(row: Row) -> list[dict[str, Any]]:
    details = row["details"]
    sort, name = str(details.get("type") or ""), details.get("name") or None
    return [
        {
            "id": row["target"],
            "displayName": name,
            "type": _TYPES.get(sort, "Other"),
            "userPrincipalName": name if sort == "user" else None,
            "groupType": None,
            "modifiedProperties": [
                {
                    "displayName": item.get("name"),
                    "oldValue": _json(item.get("old")),
                    "newValue": _json(item.get("new")),
                }
                for item in details.get("changed") or ()
            ],
        }
    ]


def _json(value: Any) -> str | None:
    """Graph gives the values of all types as JSON in a string."""
    return None if value is None else audit.as_json(value)


_SHOWN = {"activity", "category", "operation", "family", "by", "type", "name", "changed"}


def _additional(row: Row) -> list[dict[str, str]]:
    return [
        {"key": name, "value": value if isinstance(value, str) else audit.as_json(value)}
        for name, value in row["details"].items()
        if name not in _SHOWN
    ]


def _hidden(name: str, column: str) -> Field:
    """A part of a complex property, for $filter alone."""
    return Field(name, readable=False, column=column)


AUDITS = Resource(
    path="auditLogs/directoryAudits",
    type="directoryAudit",
    key_is_guid=False,
    rows=_AUDITS,
    read=permissions.AUDITS_READ,
    fields=(
        Field("id"),
        Field("category"),
        Field("correlationId", value=lambda _: None),
        Field("result", column="outcome"),
        Field("resultReason", value=lambda _: ""),
        Field("activityDisplayName", column="activity"),
        Field("activityDateTime", Primitive.TIME, column="at"),
        Field("loggedByService", column="service"),
        Field("operationType", column="operation"),
        Field("initiatedBy", Primitive.COMPLEX, value=_by, needs=("actor", "details")),
        Field(
            "targetResources",
            Primitive.COMPLEX,
            collection=True,
            value=_targets,
            needs=("target", "details"),
            has=lambda member, bound: f"a.target = {bound}" if member.lower() == "id" else "FALSE",
        ),
        Field(
            "additionalDetails",
            Primitive.COMPLEX,
            collection=True,
            value=_additional,
            needs=("details",),
        ),
        _hidden("initiatedBy/user/id", "user_id"),
        _hidden("initiatedBy/user/userPrincipalName", "user_name"),
        _hidden("initiatedBy/app/appId", "app_id"),
        _hidden("initiatedBy/app/displayName", "app_name"),
    ),
)

# ---------------------------------------------------------------------------------- the proof

_ENTRIES = Source(
    "audit_entry a",
    {
        "id": "a.id",
        "at": "a.at",
        "actor": "a.actor",
        "action": "a.action",
        "target": "a.target",
        "outcome": "a.outcome",
        "details": "a.details",
        "previous": "encode(a.previous, 'hex')",
        "digest": "encode(a.digest, 'hex')",
    },
)
ENTRIES = Resource(
    path="tandem/auditEntries",
    type="tandemAuditEntry",
    key_is_guid=False,
    rows=_ENTRIES,
    read=permissions.AUDITS_READ,
    fields=(
        Field("id", Primitive.INTEGER),
        Field("at", Primitive.TIME),
        Field("actor"),
        Field("action"),
        Field("target"),
        Field("outcome"),
        Field("details", Primitive.COMPLEX),
        Field("previous"),
        Field("digest"),
    ),
)

_HEADS = Source(
    "audit_head h",
    {
        "number": "h.number",
        "at": "h.at",
        "entries": "h.entries",
        "digest": "encode(h.digest, 'hex')",
        "previous": "encode(h.previous, 'hex')",
        "key_id": "h.key_id",
        "signature": "encode(h.signature, 'hex')",
    },
    key="number",
)
HEADS = Resource(
    path="tandem/auditHeads",
    type="tandemAuditHead",
    key="number",
    key_is_guid=False,
    rows=_HEADS,
    read=permissions.AUDITS_READ,
    fields=(
        Field("number", Primitive.INTEGER),
        Field("at", Primitive.TIME),
        Field("entries", Primitive.INTEGER),
        Field("digest"),
        Field("previous"),
        Field("keyId"),
        Field("signature"),
    ),
)


def audits(signer: audit.Signer) -> Part:
    async def sign(call: Call, body: Body) -> Answer:
        head = await audit.sign(call.tx, signer, call.now)
        return Value({"entries": head.entries if head else 0, "publicKey": signer.public_pem()})

    async def verify(call: Call, body: Body) -> Answer:
        """What `tandem audit verify` asks of an export, asked of the log itself: the newest head
        is signed first, so that every entry is covered."""
        head = await audit.sign(call.tx, signer, call.now)
        problems = await audit.examine(call.tx, [signer.public])
        return Value(
            {
                "whole": not problems,
                "entries": head.entries if head else 0,
                "head": msgspec.to_builtins(head) if head else None,
                "problems": [msgspec.to_builtins(item) for item in problems],
            }
        )

    return Part(
        (AUDITS, ENTRIES, HEADS),
        # Asked, not done: signing what is there changes nothing that an audit would tell of.
        (
            Action("tandem/auditKey", sign, permissions.AUDITS_READ, method="GET"),
            Action("tandem/verifyAudit", verify, permissions.AUDITS_READ, open=True, asks=True),
        ),
    )
