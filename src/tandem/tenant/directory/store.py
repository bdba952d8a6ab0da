"""The SQL of the directory."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.infra.listing import Source
from tandem.tenant.directory.model import (
    Device,
    Group,
    MdmAuthority,
    MdmScope,
    Member,
    Tenant,
    User,
)

_USER = """u.id::text AS id, u.user_principal_name, u.display_name, u.account_enabled,
    u.mail_nickname, u.usage_location, u.profile, u.created_at, u.sessions_valid_from"""
_GROUP = "g.id::text AS id, g.display_name, g.description, g.mail_nickname, g.created_at"
_DEVICE = """d.id::text AS id, d.device_id::text AS device_id, d.display_name, d.account_enabled,
    d.operating_system, d.operating_system_version, d.key_thumbprint,
    d.owner_id::text AS owner_id, d.is_managed, d.is_compliant, d.registered_at"""

# Everything that contains %(id)s, at any depth. UNION ends it where groups contain each other.
_ABOVE = """WITH RECURSIVE above (id) AS (
    SELECT group_id FROM directory_member WHERE member_id = %(id)s::uuid
    UNION SELECT m.group_id FROM directory_member m JOIN above ON m.member_id = above.id)"""
_BELOW = """WITH RECURSIVE below (id) AS (
    SELECT member_id FROM directory_member WHERE group_id = %(id)s::uuid
    UNION SELECT m.member_id FROM directory_member m JOIN below ON m.group_id = below.id)"""


# What an API may list and filter by; the names are columns of rows.
USERS = Source(
    "directory_user u",
    {
        "id": "u.id",
        "user_principal_name": "u.user_principal_name",
        "display_name": "u.display_name",
        "account_enabled": "u.account_enabled",
        "mail_nickname": "u.mail_nickname",
        "usage_location": "u.usage_location",
        "created_date_time": "u.created_at",
        "last_password_change_date_time": "u.password_changed_at",
        "sign_in_sessions_valid_from_date_time": "u.sessions_valid_from",
        "profile": "u.profile",
        **{
            column: f"u.profile->>'{name}'"
            for name, column in {
                "givenName": "given_name",
                "surname": "surname",
                "mail": "mail",
                "jobTitle": "job_title",
                "department": "department",
                "companyName": "company_name",
                "officeLocation": "office_location",
                "mobilePhone": "mobile_phone",
                "employeeId": "employee_id",
                "preferredLanguage": "preferred_language",
                "city": "city",
                "country": "country",
                "onPremisesSecurityIdentifier": "on_premises_security_identifier",
                "onPremisesSamAccountName": "on_premises_sam_account_name",
            }.items()
        },
    },
)
GROUPS = Source(
    "directory_group g",
    {
        "id": "g.id",
        "display_name": "g.display_name",
        "description": "g.description",
        "mail_nickname": "g.mail_nickname",
        "created_date_time": "g.created_at",
    },
)
DEVICES = Source(
    "directory_device d",
    {
        "id": "d.id",
        "device_id": "d.device_id",
        "display_name": "d.display_name",
        "account_enabled": "d.account_enabled",
        "operating_system": "d.operating_system",
        "operating_system_version": "d.operating_system_version",
        "trust_type": "d.trust_type",
        "is_managed": "d.is_managed",
        "is_compliant": "d.is_compliant",
        "mdm_app_id": "d.mdm_app_id",
        "registration_date_time": "d.registered_at",
        "approximate_last_sign_in_date_time": "d.last_sign_in_at",
        "owner_id": "d.owner_id",
    },
)

# ---------------------------------------------------------------------------------- tenant


async def tenant(tx: Tx) -> Tenant | None:
    cursor = await tx.execute(
        """SELECT t.id::text AS id, t.display_name, t.created_at, t.mdm_authority,
            t.mdm_authority_set_at, t.mdm_scope,
            (SELECT name FROM directory_domain WHERE is_default) AS default_domain,
            ARRAY(SELECT name FROM directory_domain ORDER BY NOT is_default, name) AS domains,
            ARRAY(SELECT group_id::text FROM directory_mdm_scope_group ORDER BY 1) AS groups
        FROM directory_tenant t"""
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    return Tenant(
        id=row["id"],
        display_name=row["display_name"],
        default_domain=row["default_domain"],
        domains=tuple(row["domains"]),
        created_at=row["created_at"],
        mdm_authority=MdmAuthority(row["mdm_authority"]),
        mdm_authority_set_at=row["mdm_authority_set_at"],
        mdm_scope=MdmScope(row["mdm_scope"]),
        mdm_scope_groups=tuple(row["groups"]),
    )


async def insert_tenant(tx: Tx, tenant_id: str, name: str, domain: str, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO directory_tenant (id, display_name, created_at) VALUES (%s, %s, %s)",
        (tenant_id, name, now),
    )
    await tx.execute(
        "INSERT INTO directory_domain (name, is_default, is_initial) VALUES (%s, true, true)",
        (domain,),
    )


async def set_authority(tx: Tx, authority: MdmAuthority, now: datetime) -> bool:
    cursor = await tx.execute(
        "UPDATE directory_tenant SET mdm_authority = %s, mdm_authority_set_at = %s"
        " WHERE mdm_authority = 'unknown'",
        (authority.value, now),
    )
    return cursor.rowcount == 1


async def set_scope(tx: Tx, scope: MdmScope, groups: Sequence[str]) -> None:
    await tx.execute("UPDATE directory_tenant SET mdm_scope = %s", (scope.value,))
    await tx.execute("DELETE FROM directory_mdm_scope_group")
    await tx.execute(
        "INSERT INTO directory_mdm_scope_group (group_id) SELECT unnest(%s::uuid[])",
        (list(groups),),
    )


async def in_scope_groups(tx: Tx, user_id: str) -> bool:
    cursor = await tx.execute(
        _ABOVE + " SELECT 1 FROM above"  # noqa: S608
        " JOIN directory_mdm_scope_group s ON s.group_id = above.id LIMIT 1",
        {"id": user_id},
    )
    return await cursor.fetchone() is not None


# ---------------------------------------------------------------------------------- objects


async def insert_object(tx: Tx, object_id: str, sort: str) -> None:
    await tx.execute("INSERT INTO directory_object (id, sort) VALUES (%s, %s)", (object_id, sort))


async def sort_of(tx: Tx, object_id: str) -> str | None:
    cursor = await tx.execute("SELECT sort FROM directory_object WHERE id = %s", (object_id,))
    row = await cursor.fetchone()
    return row["sort"] if row else None


async def delete_object(tx: Tx, object_id: str) -> None:
    await tx.execute("DELETE FROM directory_object WHERE id = %s", (object_id,))


# ---------------------------------------------------------------------------------- users


async def insert_user(tx: Tx, user: User, password_hash: str, now: datetime) -> bool:
    """False when the name is taken."""
    taken = await tx.execute(
        "SELECT 1 FROM directory_user WHERE lower(user_principal_name) = lower(%s)",
        (user.user_principal_name,),
    )
    if await taken.fetchone():
        return False
    await insert_object(tx, user.id, "user")
    await tx.execute(
        """INSERT INTO directory_user (id, user_principal_name, display_name, account_enabled,
            mail_nickname, usage_location, profile, created_at, password_hash,
            password_changed_at, sessions_valid_from)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            user.id,
            user.user_principal_name,
            user.display_name,
            user.account_enabled,
            user.mail_nickname,
            user.usage_location,
            Jsonb(user.profile),
            user.created_at,
            password_hash,
            now,
            now,
        ),
    )
    return True


async def save_user(tx: Tx, user: User) -> None:
    await tx.execute(
        """UPDATE directory_user SET user_principal_name = %s, display_name = %s,
            account_enabled = %s, mail_nickname = %s, usage_location = %s, profile = %s,
            sessions_valid_from = %s
        WHERE id = %s""",
        (
            user.user_principal_name,
            user.display_name,
            user.account_enabled,
            user.mail_nickname,
            user.usage_location,
            Jsonb(user.profile),
            user.sessions_valid_from,
            user.id,
        ),
    )


async def user(tx: Tx, user_id: str) -> User | None:
    cursor = await tx.execute(
        f"SELECT {_USER} FROM directory_user u WHERE u.id = %s",  # noqa: S608
        (user_id,),
    )
    row = await cursor.fetchone()
    return User(**row) if row else None


async def user_named(tx: Tx, upn: str) -> User | None:
    cursor = await tx.execute(
        f"SELECT {_USER} FROM directory_user u"  # noqa: S608
        " WHERE lower(u.user_principal_name) = lower(%s)",
        (upn,),
    )
    row = await cursor.fetchone()
    return User(**row) if row else None


async def users(tx: Tx) -> list[User]:
    cursor = await tx.execute(
        f"SELECT {_USER} FROM directory_user u ORDER BY lower(u.user_principal_name)"  # noqa: S608
    )
    return [User(**row) for row in await cursor.fetchall()]


async def credentials(tx: Tx, user_id: str) -> dict[str, Any]:
    cursor = await tx.execute(
        "SELECT password_hash, failures, locked_until FROM directory_user WHERE id = %s",
        (user_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row


async def count_failure(tx: Tx, user_id: str) -> int:
    """One wrong password more; returns how many there were in a row."""
    cursor = await tx.execute(
        "UPDATE directory_user SET failures = failures + 1 WHERE id = %s RETURNING failures",
        (user_id,),
    )
    row = await cursor.fetchone()
    return row["failures"] if row else 0


async def lock_user(tx: Tx, user_id: str, until: datetime) -> None:
    await tx.execute("UPDATE directory_user SET locked_until = %s WHERE id = %s", (until, user_id))


async def forget_failures(tx: Tx, user_id: str) -> None:
    await tx.execute(
        "UPDATE directory_user SET failures = 0, locked_until = NULL WHERE id = %s", (user_id,)
    )


async def save_password(tx: Tx, user_id: str, password_hash: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE directory_user SET password_hash = %s, password_changed_at = %s,"
        " sessions_valid_from = %s, failures = 0, locked_until = NULL WHERE id = %s",
        (password_hash, now, now, user_id),
    )


# ---------------------------------------------------------------------------------- groups


async def insert_group(tx: Tx, group: Group) -> None:
    await insert_object(tx, group.id, "group")
    await tx.execute(
        "INSERT INTO directory_group (id, display_name, description, mail_nickname, created_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        (group.id, group.display_name, group.description, group.mail_nickname, group.created_at),
    )


async def save_group(tx: Tx, group: Group) -> None:
    await tx.execute(
        "UPDATE directory_group SET display_name = %s, description = %s, mail_nickname = %s"
        " WHERE id = %s",
        (group.display_name, group.description, group.mail_nickname, group.id),
    )


async def group(tx: Tx, group_id: str) -> Group | None:
    cursor = await tx.execute(
        f"SELECT {_GROUP} FROM directory_group g WHERE g.id = %s",  # noqa: S608
        (group_id,),
    )
    row = await cursor.fetchone()
    return Group(**row) if row else None


async def groups_named(tx: Tx, name: str) -> list[Group]:
    cursor = await tx.execute(
        f"SELECT {_GROUP} FROM directory_group g WHERE lower(g.display_name) = lower(%s)"  # noqa: S608
        " ORDER BY g.id",
        (name,),
    )
    return [Group(**row) for row in await cursor.fetchall()]


async def groups(tx: Tx) -> list[Group]:
    cursor = await tx.execute(
        f"SELECT {_GROUP} FROM directory_group g ORDER BY lower(g.display_name), g.id"  # noqa: S608
    )
    return [Group(**row) for row in await cursor.fetchall()]


async def insert_member(tx: Tx, group_id: str, member_id: str) -> bool:
    cursor = await tx.execute(
        "INSERT INTO directory_member (group_id, member_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (group_id, member_id),
    )
    return cursor.rowcount == 1


async def delete_member(tx: Tx, group_id: str, member_id: str) -> bool:
    cursor = await tx.execute(
        "DELETE FROM directory_member WHERE group_id = %s AND member_id = %s",
        (group_id, member_id),
    )
    return cursor.rowcount == 1


async def members(tx: Tx, group_id: str) -> list[Member]:
    cursor = await tx.execute(
        """SELECT o.id::text AS id, o.sort FROM directory_member m
        JOIN directory_object o ON o.id = m.member_id WHERE m.group_id = %s ORDER BY o.id""",
        (group_id,),
    )
    return [Member(**row) for row in await cursor.fetchall()]


async def all_members(tx: Tx, group_id: str) -> list[Member]:
    cursor = await tx.execute(
        _BELOW + " SELECT o.id::text AS id, o.sort FROM below"  # noqa: S608
        " JOIN directory_object o ON o.id = below.id ORDER BY o.id",
        {"id": group_id},
    )
    return [Member(**row) for row in await cursor.fetchall()]


async def groups_of(tx: Tx, object_id: str) -> frozenset[str]:
    cursor = await tx.execute(
        _ABOVE + " SELECT id::text AS id FROM above",  # noqa: S608
        {"id": object_id},
    )
    return frozenset(row["id"] for row in await cursor.fetchall())


async def direct_groups_of(tx: Tx, object_id: str) -> list[str]:
    cursor = await tx.execute(
        "SELECT group_id::text AS id FROM directory_member WHERE member_id = %s ORDER BY 1",
        (object_id,),
    )
    return [row["id"] for row in await cursor.fetchall()]


# ---------------------------------------------------------------------------------- roles


async def insert_role_holder(tx: Tx, role_id: str, holder_id: str) -> None:
    await tx.execute(
        "INSERT INTO directory_role_holder (role_id, holder_id) VALUES (%s, %s)"
        " ON CONFLICT DO NOTHING",
        (role_id, holder_id),
    )


async def delete_role_holder(tx: Tx, role_id: str, holder_id: str) -> None:
    await tx.execute(
        "DELETE FROM directory_role_holder WHERE role_id = %s AND holder_id = %s",
        (role_id, holder_id),
    )


async def roles_of(tx: Tx, holder_id: str) -> frozenset[str]:
    cursor = await tx.execute(
        "SELECT role_id::text AS id FROM directory_role_holder WHERE holder_id = %s", (holder_id,)
    )
    return frozenset(row["id"] for row in await cursor.fetchall())


async def standing(tx: Tx, user_id: str, issued_at: datetime) -> frozenset[str] | None:
    cursor = await tx.execute(
        """SELECT ARRAY(SELECT role_id::text FROM directory_role_holder WHERE holder_id = u.id)
            AS roles
        FROM directory_user u
        WHERE u.id = %s AND u.account_enabled AND u.sessions_valid_from <= %s""",
        (user_id, issued_at),
    )
    row = await cursor.fetchone()
    return frozenset(row["roles"]) if row else None


async def role_holders(tx: Tx, role_id: str) -> list[Member]:
    cursor = await tx.execute(
        """SELECT o.id::text AS id, o.sort FROM directory_role_holder h
        JOIN directory_object o ON o.id = h.holder_id WHERE h.role_id = %s ORDER BY o.id""",
        (role_id,),
    )
    return [Member(**row) for row in await cursor.fetchall()]


async def enabled_holders(tx: Tx, role_id: str) -> frozenset[str]:
    cursor = await tx.execute(
        """SELECT u.id::text AS id FROM directory_role_holder h
        JOIN directory_user u ON u.id = h.holder_id
        WHERE h.role_id = %s AND u.account_enabled""",
        (role_id,),
    )
    return frozenset(row["id"] for row in await cursor.fetchall())


# ---------------------------------------------------------------------------------- devices


async def insert_device(tx: Tx, device: Device) -> None:
    await insert_object(tx, device.id, "device")
    await tx.execute(
        """INSERT INTO directory_device (id, device_id, display_name, operating_system,
            operating_system_version, key_thumbprint, owner_id, registered_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            device.id,
            device.device_id,
            device.display_name,
            device.operating_system,
            device.operating_system_version,
            device.key_thumbprint,
            device.owner_id,
            device.registered_at,
        ),
    )


async def rejoin(tx: Tx, device: Device) -> None:
    await tx.execute(
        """UPDATE directory_device SET display_name = %s, operating_system = %s,
            operating_system_version = %s, owner_id = %s WHERE id = %s""",
        (
            device.display_name,
            device.operating_system,
            device.operating_system_version,
            device.owner_id,
            device.id,
        ),
    )


async def device(tx: Tx, where: str, value: Any) -> Device | None:
    columns = {"id": "id", "device_id": "device_id", "key_thumbprint": "key_thumbprint"}
    cursor = await tx.execute(
        f"SELECT {_DEVICE} FROM directory_device d WHERE d.{columns[where]} = %s",  # noqa: S608
        (value,),
    )
    row = await cursor.fetchone()
    return Device(**row) if row else None


async def devices_of(tx: Tx, owner_id: str) -> list[str]:
    cursor = await tx.execute(
        "SELECT id::text AS id FROM directory_device WHERE owner_id = %s ORDER BY 1", (owner_id,)
    )
    return [row["id"] for row in await cursor.fetchall()]


async def set_management(
    tx: Tx,
    device_id: uuid.UUID | str,
    is_managed: bool,
    is_compliant: bool | None,
    mdm_app_id: str | None,
) -> None:
    await tx.execute(
        "UPDATE directory_device SET is_managed = %s, is_compliant = %s, mdm_app_id = %s"
        " WHERE device_id = %s",
        (is_managed, is_compliant, mdm_app_id, device_id),
    )


async def set_device_enabled(tx: Tx, object_id: str, enabled: bool) -> None:
    await tx.execute(
        "UPDATE directory_device SET account_enabled = %s WHERE id = %s", (enabled, object_id)
    )


async def set_last_sign_in(tx: Tx, object_id: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE directory_device SET last_sign_in_at = %s WHERE id = %s", (now, object_id)
    )
