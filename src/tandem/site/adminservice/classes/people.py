"""Users that discovery found, administrators and their roles."""

from collections.abc import Mapping
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Expression, Primitive
from tandem.site import administrators, collections
from tandem.site.administrators import Role
from tandem.site.adminservice.model import Call, Class, Property

_INTEGER, _BOOLEAN, _TIME = Primitive.INTEGER, Primitive.BOOLEAN, Primitive.TIME


async def _users(call: Call, _: Expression | None) -> tuple[str, Mapping[str, Any]]:
    seen, parameters = await collections.visible_users_sql(call.tx)
    return (
        f"(SELECT r.* FROM collections_known_user r WHERE r.kind = 'user' AND ({seen})) u",  # noqa: S608
        parameters,
    )


USER = Class(
    surface="wmi",
    name="SMS_R_User",
    key=("ResourceId",),
    properties=(
        Property("ResourceId", _INTEGER, sql="u.id"),
        Property("ResourceType", _INTEGER, sql="4"),
        Property("Name", sql="u.upn"),
        Property("UserName", sql="split_part(u.upn, '@', 1)"),
        Property("UniqueUserName", sql="u.upn"),
        Property("UserPrincipalName", sql="u.upn"),
        Property("FullUserName", sql="u.name"),
        Property("Mail", sql="u.mail"),
        Property("AADUserID", sql="u.object_id"),
        Property("AADTenantID", sql="u.tenant_id"),
        Property("SID", sql="u.sid"),
        Property("CreationDate", _TIME, sql="u.discovered_at"),
    ),
    origin=_users,
    narrowed=True,
    superclass="SMS_Resource",
)

ADMIN = Class(
    surface="wmi",
    name="SMS_Admin",
    key=("AdminID",),
    properties=(
        Property("AdminID", _INTEGER, sql="a.number"),
        Property("AccountType", _INTEGER, sql="0"),
        Property("LogonName", sql="CASE WHEN a.upn = '' THEN a.name ELSE a.upn END"),
        Property("DisplayName", sql="a.name"),
        Property("IsGroup", _BOOLEAN, sql="false"),
        Property("RoleNames", many=True, sql="ARRAY[a.role]"),
        Property("AADTenantID", sql="a.tenant_id"),
        Property("AADUserID", sql="a.object_id"),
        Property("CreatedDate", _TIME, sql="a.created_at"),
    ),
    origin="administrators_administrator a",
)


async def _roles(call: Call) -> list[Row]:
    everyone = await administrators.administrators(call.tx)
    return [
        {
            "RoleName": role.value,
            "IsBuiltIn": True,
            "NumberOfAdmins": sum(who.role is role for who in everyone),
            "SourceSite": call.site,
        }
        for role in Role
    ]


ROLE = Class(
    surface="wmi",
    name="SMS_Role",
    key=("RoleName",),
    properties=(
        Property("RoleName"),
        Property("IsBuiltIn", _BOOLEAN),
        Property("NumberOfAdmins", _INTEGER),
        Property("SourceSite"),
    ),
    read=_roles,
)

CLASSES = (USER, ADMIN, ROLE)
