"""What a change leaves in the audit log: by whom, on what, and each property before and after.

The words are those of Graph's directoryAudits, so that they can be read back as such. Only what an
answer of Graph may show is recorded: a property that cannot be read (a password) is named without
its value, and so are complex values of device management, which may hold secrets of a policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tandem import audit
from tandem.protocols import odata
from tandem.protocols.odata import Primitive, Query
from tandem.tenant.graph.model import Call, Family, Field, Resource

_LONGEST = 2000

CATEGORIES = {
    "user": "UserManagement",
    "group": "GroupManagement",
    "device": "Device",
    "application": "ApplicationManagement",
    "servicePrincipal": "ApplicationManagement",
    "oAuth2PermissionGrant": "ApplicationManagement",
    "appRoleAssignment": "ApplicationManagement",
    "appRoleAssignedTo": "ApplicationManagement",
    "directoryRole": "RoleManagement",
    "unifiedRoleAssignment": "RoleManagement",
    "domain": "DirectoryManagement",
    "organization": "DirectoryManagement",
    "deletedItem": "DirectoryManagement",
}

# Where the verb, the type and the navigation do not make Graph's own words by themselves.
_WORDS = {
    ("create", "application", ""): "Add application",
    ("create", "servicePrincipal", ""): "Add service principal",
    ("update", "servicePrincipal", ""): "Update service principal",
    ("delete", "servicePrincipal", ""): "Remove service principal",
    ("create", "oAuth2PermissionGrant", ""): "Add delegated permission grant",
    ("update", "oAuth2PermissionGrant", ""): "Update delegated permission grant",
    ("delete", "oAuth2PermissionGrant", ""): "Remove delegated permission grant",
    ("create", "appRoleAssignment", ""): "Add app role assignment to service principal",
    ("create", "appRoleAssignedTo", ""): "Add app role assignment to service principal",
    ("delete", "appRoleAssignment", ""): "Remove app role assignment from service principal",
    ("delete", "appRoleAssignedTo", ""): "Remove app role assignment from service principal",
    ("create", "unifiedRoleAssignment", ""): "Add member to role",
    ("delete", "unifiedRoleAssignment", ""): "Remove member from role",
    ("add", "directoryRole", "members"): "Add member to role",
    ("remove", "directoryRole", "members"): "Remove member from role",
    ("set", "user", "manager"): "Set user manager",
    ("remove", "user", "manager"): "Remove user manager",
    ("assignLicense", "user", ""): "Change user license",
    ("assignLicense", "group", ""): "Set group license",
    ("reprocessLicenseAssignment", "user", ""): "Reprocess user license assignment",
    ("revokeSignInSessions", "user", ""): "Revoke sign-in sessions",
    ("changePassword", "user", ""): "Change user password",
    ("delete", "deletedItem", ""): "Hard delete",
}
_VERBS = {"create": "Add", "update": "Update", "delete": "Delete"}
_OPERATIONS = {"create": "Add", "update": "Update", "delete": "Delete", "add": "Assign"}


def activity(verb: str, sort: str, navigation: str = "") -> str:
    """Graph's name of the activity: `Add user`, `Remove member from group`."""
    known = _WORDS.get((verb, sort, navigation))
    if known:
        return known
    one = navigation.removesuffix("s")
    if navigation and verb == "add":
        return f"Add {one} to {sort}"
    if navigation:
        return f"{verb.capitalize()} {one} {'from' if verb == 'remove' else 'of'} {sort}"
    if verb in _VERBS:
        return f"{_VERBS[verb]} {sort}"
    return verb


def watched(resource: Resource, names: Sequence[str] | None = None) -> list[Field]:
    """The fields whose values are recorded: those that a row holds, and `names` that are loaded."""
    asked = {name.lower() for name in names or ()}
    return [
        item
        for item in resource.fields
        if item.readable and (item.load is None or item.name.lower() in asked)
    ]


def difference(
    resource: Resource, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The properties that are not what they were, in the order of the description."""
    found = []
    for item in resource.fields:
        old, new = before.get(item.name), after.get(item.name)
        if item.readable and item.name != "id" and _set(old) != _set(new):
            found.append({"name": item.name, **_values(resource, item, old, new)})
    return found


def _set(value: Any) -> Any:
    return None if value in ("", [], {}) else value


def _values(resource: Resource, item: Field, old: Any, new: Any) -> dict[str, Any]:
    hidden = resource.family is Family.INTUNE and item.primitive in (
        Primitive.COMPLEX,
        Primitive.BINARY,
    )
    return {} if hidden else {"old": _short(old), "new": _short(new)}


def _short(value: Any) -> Any:
    plain = odata.render(value)
    if isinstance(plain, str | list | dict) and len(str(plain)) > _LONGEST:
        return str(plain)[:_LONGEST] + "…"
    return plain


async def record(
    call: Call,
    verb: str,
    sort: str,
    key: str,
    *,
    navigation: str = "",
    name: str = "",
    changed: Sequence[Mapping[str, Any]] = (),
    properties: Sequence[str] = (),
    family: Family = Family.DIRECTORY,
    outcome: audit.Outcome = "done",
) -> None:
    """Leave one entry in the transaction of the change. What the use case noted has precedence."""
    caller, noted = call.caller, dict(call.notes)
    call.notes.clear()
    by: dict[str, Any] = {"sort": caller.sort, "id": caller.object_id, "app_id": caller.app_id}
    by["name"] = caller.name
    details: dict[str, Any] = {
        "activity": activity(verb, sort, navigation),
        "category": CATEGORIES.get(sort, "Other"),
        "operation": _OPERATIONS.get(verb, verb),
        "family": family.value,
        "by": by,
        "type": sort,
        "name": name,
        "changed": list(changed),
        **noted,
    }
    if properties:
        details["properties"] = list(properties)
    words = f"{verb} {sort}" if verb in _VERBS else f"{verb} {sort} {navigation}".strip()
    await audit.record(
        call.tx,
        actor=f"{caller.sort}:{caller.name or caller.object_id}",
        action=words,
        target=key,
        outcome=outcome,
        details=details,
        now=call.now,
    )


def plain(call: Call) -> Call:
    """The call without its query: for reading the whole object."""
    return replace(call, query=Query())
