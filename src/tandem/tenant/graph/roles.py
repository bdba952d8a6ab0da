"""Directory roles, in the two shapes of Graph: activated roles with members, and assignments."""

import uuid
from collections.abc import Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    BadProperty,
    Body,
    Call,
    Created,
    Field,
    Forbidden,
    Navigation,
    Part,
    Ref,
    Resource,
    missing,
)

# Where the two ids of an assignment become one.
_ASSIGNMENTS = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")


async def _guard(call: Call, role_id: str) -> None:
    """A privileged role makes whoever holds it able to give every role: that takes the highest."""
    if call.caller.sort == "app" or role_id not in directory.PRIVILEGED:
        return
    held = await directory.roles_of(call.tx, call.caller.object_id)
    if directory.GLOBAL_ADMINISTRATOR not in held:
        raise Forbidden(
            "Insufficient privileges to complete the operation: "
            f"{directory.role_name(role_id)} is a privileged role.",
            cure="Sign in as Global Administrator.",
        )


async def _grant(call: Call, role_id: str, member: str) -> None:
    await _guard(call, role_id)
    if member.lower() in {item.id for item in await directory.role_holders(call.tx, role_id)}:
        raise directory.Taken(
            "One or more added object references already exist for the following modified "
            "properties: 'members'.",
            cure="Nothing is left to do: the role is held already.",
        )
    await directory.grant_role(call.tx, role_id, member.lower())


async def _revoke(call: Call, role_id: str, member: str) -> None:
    await _guard(call, role_id)
    if member.lower() not in {item.id for item in await directory.role_holders(call.tx, role_id)}:
        raise missing(member)
    await directory.revoke_role(call.tx, role_id, member.lower())


async def _roles(call: Call) -> Sequence[Row]:
    return [
        {"id": key, "display_name": name, "description": directory.DESCRIPTIONS[key]}
        for key, name in directory.ROLES.items()
    ]


async def _holders(call: Call, key: str) -> Sequence[Ref]:
    return [Ref(item.sort, item.id) for item in await directory.role_holders(call.tx, key)]


async def _activate(call: Call, body: Body) -> Created:
    """Every role is there from the start, so activating one finds it."""
    if body["roleTemplateId"] not in directory.ROLES:
        raise BadProperty(
            f"There is no role template '{body['roleTemplateId']}'.",
            cure="List /directoryRoleTemplates.",
            target="roleTemplateId",
        )
    return Created(body["roleTemplateId"])


DIRECTORY_ROLES = Resource(
    path="directoryRoles",
    type="directoryRole",
    rows=_roles,
    read=permissions.ROLES_READ,
    write=permissions.ROLES_WRITE,
    create=_activate,
    alternate_keys={"roleTemplateId": "id"},
    fields=(
        Field("id", Primitive.GUID),
        Field("deletedDateTime", Primitive.TIME, value=lambda _: None),
        Field("displayName"),
        Field("description"),
        Field("roleTemplateId", Primitive.GUID, column="id", writable=True, required=True),
    ),
    navigations=(
        Navigation(
            "members", _holders, permissions.ROLES_READ, permissions.ROLES_WRITE, _grant, _revoke
        ),
    ),
)

TEMPLATES = Resource(
    path="directoryRoleTemplates",
    type="directoryRoleTemplate",
    rows=_roles,
    read=permissions.ROLES_READ,
    fields=(
        Field("id", Primitive.GUID),
        Field("deletedDateTime", Primitive.TIME, value=lambda _: None),
        Field("displayName"),
        Field("description"),
    ),
)

DEFINITIONS = Resource(
    path="roleManagement/directory/roleDefinitions",
    type="unifiedRoleDefinition",
    rows=_roles,
    read=permissions.ROLES_READ,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName"),
        Field("description"),
        Field("templateId", Primitive.GUID, column="id"),
        Field("version", value=lambda _: "1"),
        Field("isBuiltIn", Primitive.BOOLEAN, value=lambda _: True),
        Field("isEnabled", Primitive.BOOLEAN, value=lambda _: True),
        Field(
            "isPrivileged",
            Primitive.BOOLEAN,
            beta=True,
            value=lambda row: row["id"] in directory.PRIVILEGED,
        ),
        Field("resourceScopes", collection=True, value=lambda _: ["/"]),
        Field("rolePermissions", Primitive.COMPLEX, collection=True, value=lambda _: []),
    ),
)


def _assignment_id(role_id: str, holder_id: str) -> str:
    return str(uuid.uuid5(_ASSIGNMENTS, f"{role_id}/{holder_id}"))


async def _assignments(call: Call) -> Sequence[Row]:
    return [
        {"id": _assignment_id(role, holder), "role_definition_id": role, "principal_id": holder}
        for role, holder in await directory.role_assignments(call.tx)
    ]


async def _assign(call: Call, body: Body) -> Created:
    role, holder = body["roleDefinitionId"], body["principalId"]
    if body.get("directoryScopeId") not in (None, "/"):
        raise BadProperty(
            "Roles are given for the whole directory here.",
            cure='Send "directoryScopeId": "/".',
            target="directoryScopeId",
        )
    await _grant(call, role, holder)
    call.note(name=directory.role_name(role))
    return Created(_assignment_id(role, holder))


async def _unassign(call: Call, key: str) -> None:
    for item in await _assignments(call):
        if item["id"] == key.lower():
            await _revoke(call, item["role_definition_id"], item["principal_id"])
            call.note(name=directory.role_name(item["role_definition_id"]))


async def _principal(call: Call, key: str) -> Sequence[Ref]:
    found: list[Ref] = []
    for item in await _assignments(call):
        if item["id"] == key.lower():
            holders = await directory.sorts(call.tx, [item["principal_id"]])
            found += [Ref(holder.sort, holder.id) for holder in holders]
    return found


async def _definition(call: Call, key: str) -> Sequence[Ref]:
    return [
        Ref("unifiedRoleDefinition", item["role_definition_id"])
        for item in await _assignments(call)
        if item["id"] == key.lower()
    ]


def _whole(_: Row) -> Any:
    return "/"


ASSIGNMENTS = Resource(
    path="roleManagement/directory/roleAssignments",
    type="unifiedRoleAssignment",
    rows=_assignments,
    read=permissions.ROLES_READ,
    write=permissions.ROLES_WRITE,
    create=_assign,
    delete=_unassign,
    fields=(
        Field("id", Primitive.GUID),
        Field("principalId", Primitive.GUID, writable=True, required=True),
        Field("roleDefinitionId", Primitive.GUID, writable=True, required=True),
        Field("directoryScopeId", writable=True, value=_whole),
        Field("appScopeId", value=lambda _: None),
        Field("condition", value=lambda _: None),
    ),
    navigations=(
        Navigation("principal", _principal, permissions.ROLES_READ, single=True),
        Navigation("roleDefinition", _definition, permissions.ROLES_READ, single=True),
    ),
)


def roles() -> Part:
    return Part((DIRECTORY_ROLES, TEMPLATES, DEFINITIONS, ASSIGNMENTS))
