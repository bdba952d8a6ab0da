"""tandem/access: what the caller may do here, so that a page shows no button that is refused."""

from tandem.tenant import directory
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import Access, Action, Answer, Body, Call, Forbidden, Part, Value
from tandem.tenant.graph.service import authorize

# Read and write by what it is about, as the operations of these parts ask for it themselves.
_PARTS: dict[str, tuple[Access, Access]] = {
    "users": (permissions.USERS_READ, permissions.USERS_WRITE),
    "sessions": (permissions.USERS_READ, permissions.SESSIONS_WRITE),
    "groups": (permissions.GROUPS_READ, permissions.GROUPS_WRITE),
    "members": (permissions.GROUPS_READ, permissions.MEMBERS_WRITE),
    "licences": (permissions.LICENCES_READ, permissions.LICENCES_WRITE),
    "organization": (permissions.ORGANIZATION_READ, permissions.ORGANIZATION_WRITE),
    "mdmSettings": (permissions.MDM_SETTINGS_READ, permissions.MDM_SETTINGS_WRITE),
    "applications": (permissions.APPLICATIONS_READ, permissions.APPLICATIONS_WRITE),
    "consent": (permissions.GRANTS_READ, permissions.GRANTS_WRITE),
    "appRoles": (permissions.APPLICATIONS_READ, permissions.ROLE_ASSIGNMENTS_WRITE),
    "roles": (permissions.ROLES_READ, permissions.ROLES_WRITE),
    "deletedItems": (permissions.OBJECTS_READ, permissions.DELETED_WRITE),
    "devices": (permissions.DEVICES_READ, permissions.DEVICES_WRITE),
    "domains": (permissions.ORGANIZATION_READ, permissions.DOMAINS_WRITE),
    "audit": (permissions.AUDITS_READ, permissions.AUDITS_READ),
}


async def _may(call: Call, allowed: Access, *, writing: bool) -> bool:
    try:
        await authorize(call, allowed, writing=writing)
    except Forbidden:
        return False
    return True


async def _access(call: Call, body: Body) -> Answer:
    held: frozenset[str] = frozenset()
    if call.caller.sort == "user":
        held = await directory.roles_of(call.tx, call.caller.object_id)
    return Value(
        {
            "roles": sorted(directory.role_name(role) for role in held),
            "parts": {
                name: {
                    "read": await _may(call, read, writing=False),
                    "write": await _may(call, write, writing=True),
                    # Who could, besides a Global Administrator.
                    "writers": sorted(directory.role_name(role) for role in write.roles),
                }
                for name, (read, write) in _PARTS.items()
            },
        }
    )


def own_access() -> Part:
    return Part((), (Action("tandem/access", _access, permissions.OWN, method="GET"),))
