"""The SQL of the directory."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.infra.listing import Source
from tandem.tenant.directory.model import (
    BadRule,
    Deleted,
    Device,
    Domain,
    Group,
    MdmAddresses,
    MdmAuthority,
    MdmScope,
    Member,
    Tenant,
    User,
)

_USER = """u.id::text AS id, u.user_principal_name, u.display_name, u.account_enabled,
    u.mail_nickname, u.usage_location, u.profile, u.created_at, u.sessions_valid_from,
    u.must_change_password"""
_GROUP = """g.id::text AS id, g.display_name, g.description, g.mail_nickname, g.created_at,
    g.group_types, g.membership_rule, g.rule_processing, g.mail_enabled, g.security_enabled,
    g.is_assignable_to_role, g.visibility, g.profile"""
_DEVICE = """d.id::text AS id, d.device_id::text AS device_id, d.display_name, d.account_enabled,
    d.operating_system, d.operating_system_version, d.key_thumbprint,
    d.owner_id::text AS owner_id, d.is_managed, d.is_compliant, d.registered_at, d.trust_type,
    d.profile"""

# Everything that contains %(id)s, at any depth. UNION ends it where groups contain each other.
_ABOVE = """WITH RECURSIVE above (id) AS (
    SELECT group_id FROM directory_member WHERE member_id = %(id)s::uuid
    UNION SELECT m.group_id FROM directory_member m JOIN above ON m.member_id = above.id)"""
# Only groups are walked: a large group's people lead nowhere, and the planner cannot know.
_BELOW = """WITH RECURSIVE nested (id) AS (
    SELECT %(id)s::uuid
    UNION SELECT g.id FROM nested JOIN directory_member m ON m.group_id = nested.id
        JOIN directory_group g ON g.id = m.member_id),
below (id) AS (SELECT DISTINCT m.member_id FROM nested
    JOIN directory_member m ON m.group_id = nested.id)"""


# Free texts of a user, by their Graph name, and their column in a row.
USER_TEXTS = {
    "givenName": "given_name",
    "surname": "surname",
    "mail": "mail",
    "userType": "user_type",
    "jobTitle": "job_title",
    "department": "department",
    "companyName": "company_name",
    "officeLocation": "office_location",
    "mobilePhone": "mobile_phone",
    "employeeId": "employee_id",
    "employeeType": "employee_type",
    "faxNumber": "fax_number",
    "preferredLanguage": "preferred_language",
    "streetAddress": "street_address",
    "city": "city",
    "state": "state",
    "postalCode": "postal_code",
    "country": "country",
    "passwordPolicies": "password_policies",
    "onPremisesSecurityIdentifier": "on_premises_security_identifier",
    "onPremisesSamAccountName": "on_premises_sam_account_name",
    "onPremisesImmutableId": "on_premises_immutable_id",
    "onPremisesUserPrincipalName": "on_premises_user_principal_name",
    "onPremisesDomainName": "on_premises_domain_name",
    "onPremisesDistinguishedName": "on_premises_distinguished_name",
}

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
        "manager_id": "u.manager_id",
        # Everything of a user that an administrator can read or change.
        "version": "md5((to_jsonb(u) - '{failures,locked_until,password_hash}'::text[])::text)",
        **{column: f"u.profile->>'{name}'" for name, column in USER_TEXTS.items()},
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
        "group_types": "g.group_types",
        "membership_rule": "g.membership_rule",
        "membership_rule_processing_state": "g.rule_processing",
        "mail_enabled": "g.mail_enabled",
        "security_enabled": "g.security_enabled",
        "is_assignable_to_role": "g.is_assignable_to_role",
        "visibility": "g.visibility",
        "profile": "g.profile",
        "unique_name": "g.profile->>'uniqueName'",
        "version": "md5(to_jsonb(g)::text)",
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
        "key_thumbprint": "d.key_thumbprint",
        "profile": "d.profile",
        "manufacturer": "d.profile->>'manufacturer'",
        "model": "d.profile->>'model'",
        "device_ownership": """coalesce(d.profile->>'deviceOwnership',
            CASE d.trust_type WHEN 'Workplace' THEN 'Personal' ELSE 'Company' END)""",
        "enrollment_profile_name": "d.profile->>'enrollmentProfileName'",
        "device_category": "d.profile->>'deviceCategory'",
    },
)

# ---------------------------------------------------------------------------------- tenant


async def tenant(tx: Tx) -> Tenant | None:
    cursor = await tx.execute(
        """SELECT t.id::text AS id, t.display_name, t.created_at, t.mdm_authority,
            t.mdm_authority_set_at, t.mdm_scope, t.mam_scope, t.mdm_discovery_url,
            t.mdm_terms_of_use_url, t.mdm_compliance_url,
            (SELECT name FROM directory_domain WHERE is_default) AS default_domain,
            ARRAY(SELECT name FROM directory_domain WHERE is_verified
                ORDER BY NOT is_default, name) AS domains,
            ARRAY(SELECT group_id::text FROM directory_mdm_scope_group ORDER BY 1) AS groups,
            ARRAY(SELECT group_id::text FROM directory_mam_scope_group ORDER BY 1) AS mam_groups
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
        mam_scope=MdmScope(row["mam_scope"]),
        mam_scope_groups=tuple(row["mam_groups"]),
        mdm_addresses=MdmAddresses(
            row["mdm_discovery_url"], row["mdm_terms_of_use_url"], row["mdm_compliance_url"]
        ),
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


async def set_mam_scope(tx: Tx, scope: MdmScope, groups: Sequence[str]) -> None:
    await tx.execute("UPDATE directory_tenant SET mam_scope = %s", (scope.value,))
    await tx.execute("DELETE FROM directory_mam_scope_group")
    await tx.execute(
        "INSERT INTO directory_mam_scope_group (group_id) SELECT unnest(%s::uuid[])",
        (list(groups),),
    )


async def set_addresses(tx: Tx, addresses: MdmAddresses) -> None:
    await tx.execute(
        "UPDATE directory_tenant SET mdm_discovery_url = %s, mdm_terms_of_use_url = %s,"
        " mdm_compliance_url = %s",
        (addresses.discovery, addresses.terms_of_use, addresses.compliance),
    )


async def scope_groups_of(tx: Tx, user_id: str) -> list[str]:
    """The groups of the MDM user scope that the user is in, directly or through others."""
    cursor = await tx.execute(
        _ABOVE + " SELECT DISTINCT above.id::text AS id FROM above"  # noqa: S608
        " JOIN directory_mdm_scope_group s ON s.group_id = above.id ORDER BY 1",
        {"id": user_id},
    )
    return [row["id"] for row in await cursor.fetchall()]


# ---------------------------------------------------------------------------------- objects


async def insert_object(tx: Tx, object_id: str, sort: str) -> None:
    await tx.execute("INSERT INTO directory_object (id, sort) VALUES (%s, %s)", (object_id, sort))


async def sort_of(tx: Tx, object_id: str) -> str | None:
    cursor = await tx.execute(
        "SELECT sort FROM directory_object WHERE id = %s AND deleted_at IS NULL", (object_id,)
    )
    row = await cursor.fetchone()
    return row["sort"] if row else None


async def sorts(tx: Tx, object_ids: Sequence[str]) -> list[Member]:
    cursor = await tx.execute(
        """SELECT o.id::text AS id, o.sort FROM unnest(%s::uuid[]) WITH ORDINALITY w (id, place)
        JOIN directory_object o ON o.id = w.id WHERE o.deleted_at IS NULL ORDER BY w.place""",
        (list(object_ids),),
    )
    return [Member(**row) for row in await cursor.fetchall()]


async def delete_object(tx: Tx, object_id: str) -> None:
    await tx.execute("DELETE FROM directory_object WHERE id = %s", (object_id,))


# ---------------------------------------------------------------------------------- users


async def insert_user(tx: Tx, user: User, password_hash: str, now: datetime) -> bool:
    """False when the name is taken."""
    await insert_object(tx, user.id, "user")
    cursor = await tx.execute(
        """INSERT INTO directory_user (id, user_principal_name, display_name, account_enabled,
            mail_nickname, usage_location, profile, created_at, password_hash,
            password_changed_at, sessions_valid_from, must_change_password)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (lower(user_principal_name)) DO NOTHING""",
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
            user.must_change_password,
        ),
    )
    if cursor.rowcount != 1:
        await delete_object(tx, user.id)
    return cursor.rowcount == 1


async def save_user(tx: Tx, user: User) -> None:
    await tx.execute(
        """UPDATE directory_user SET user_principal_name = %s, display_name = %s,
            account_enabled = %s, mail_nickname = %s, usage_location = %s, profile = %s,
            sessions_valid_from = %s, must_change_password = %s
        WHERE id = %s""",
        (
            user.user_principal_name,
            user.display_name,
            user.account_enabled,
            user.mail_nickname,
            user.usage_location,
            Jsonb(user.profile),
            user.sessions_valid_from,
            user.must_change_password,
            user.id,
        ),
    )


async def manager(tx: Tx, user_id: str) -> str | None:
    cursor = await tx.execute(
        "SELECT manager_id::text AS id FROM directory_user WHERE id = %s", (user_id,)
    )
    row = await cursor.fetchone()
    return row["id"] if row else None


async def set_manager(tx: Tx, user_id: str, manager_id: str | None) -> None:
    await tx.execute(
        "UPDATE directory_user SET manager_id = %s WHERE id = %s", (manager_id, user_id)
    )


async def reports(tx: Tx, user_id: str) -> list[str]:
    cursor = await tx.execute(
        "SELECT id::text AS id FROM directory_user WHERE manager_id = %s ORDER BY 1", (user_id,)
    )
    return [row["id"] for row in await cursor.fetchall()]


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


async def upn_of_account(tx: Tx, domain: str, name: str) -> str | None:
    """None as well when it is two people's."""
    found = await (
        await tx.execute(
            """SELECT user_principal_name FROM directory_user
            WHERE profile ? 'onPremisesSamAccountName'
            AND lower(profile->>'onPremisesSamAccountName') = lower(%(name)s)
            AND lower(%(domain)s) IN (lower(profile->>'onPremisesDomainName'),
                split_part(lower(profile->>'onPremisesDomainName'), '.', 1)) LIMIT 2""",
            {"name": name, "domain": domain},
        )
    ).fetchall()
    return found[0]["user_principal_name"] if len(found) == 1 else None


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
        "INSERT INTO directory_group (id, display_name, mail_nickname, created_at)"
        " VALUES (%s, %s, %s, %s)",
        (group.id, group.display_name, group.mail_nickname, group.created_at),
    )
    await save_group(tx, group)


async def save_group(tx: Tx, group: Group) -> None:
    await tx.execute(
        """UPDATE directory_group SET display_name = %s, description = %s, mail_nickname = %s,
            group_types = %s, membership_rule = %s, rule_processing = %s, mail_enabled = %s,
            security_enabled = %s, is_assignable_to_role = %s, visibility = %s, profile = %s
        WHERE id = %s""",
        (
            group.display_name,
            group.description,
            group.mail_nickname,
            list(group.group_types),
            group.membership_rule,
            group.rule_processing,
            group.mail_enabled,
            group.security_enabled,
            group.is_assignable_to_role,
            group.visibility,
            Jsonb(group.profile),
            group.id,
        ),
    )


def _group(row: dict[str, Any]) -> Group:
    return Group(**{**row, "group_types": tuple(row["group_types"])})


async def group(tx: Tx, group_id: str) -> Group | None:
    cursor = await tx.execute(
        f"SELECT {_GROUP} FROM directory_group g WHERE g.id = %s",  # noqa: S608
        (group_id,),
    )
    row = await cursor.fetchone()
    return _group(row) if row else None


async def groups_named(tx: Tx, name: str) -> list[Group]:
    cursor = await tx.execute(
        f"SELECT {_GROUP} FROM directory_group g WHERE lower(g.display_name) = lower(%s)"  # noqa: S608
        " ORDER BY g.id",
        (name,),
    )
    return [_group(row) for row in await cursor.fetchall()]


async def groups(tx: Tx) -> list[Group]:
    cursor = await tx.execute(
        f"SELECT {_GROUP} FROM directory_group g ORDER BY lower(g.display_name), g.id"  # noqa: S608
    )
    return [_group(row) for row in await cursor.fetchall()]


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


async def groups_of_all(tx: Tx, object_ids: Sequence[str]) -> dict[str, frozenset[str]]:
    cursor = await tx.execute(
        """WITH RECURSIVE above (root, id) AS (
            SELECT member_id, group_id FROM directory_member WHERE member_id = ANY(%s::uuid[])
            UNION SELECT above.root, m.group_id FROM above
                JOIN directory_member m ON m.member_id = above.id)
        SELECT root::text AS root, array_agg(id::text) AS ids FROM above GROUP BY root""",
        (list(object_ids),),
    )
    return {row["root"]: frozenset(row["ids"]) for row in await cursor.fetchall()}


async def groups_of_pair(
    tx: Tx, user_id: str | None, device_id: str | None
) -> tuple[frozenset[str], frozenset[str]]:
    cursor = await tx.execute(
        """WITH RECURSIVE above (of_device, id) AS (
            SELECT false, group_id FROM directory_member WHERE member_id = %s::uuid
            UNION ALL (SELECT true, m.group_id FROM directory_device d
                JOIN directory_member m ON m.member_id = d.id WHERE d.device_id = %s::uuid)
            UNION SELECT above.of_device, m.group_id FROM above
                JOIN directory_member m ON m.member_id = above.id)
        SELECT of_device, id::text AS id FROM above""",
        (user_id, device_id),
    )
    found = await cursor.fetchall()
    return (
        frozenset(row["id"] for row in found if not row["of_device"]),
        frozenset(row["id"] for row in found if row["of_device"]),
    )


async def objects_of_devices(tx: Tx, device_ids: Sequence[str]) -> dict[str, str]:
    cursor = await tx.execute(
        "SELECT device_id::text AS device_id, id::text AS id FROM directory_device"
        " WHERE device_id = ANY(%s::uuid[])",
        (list(device_ids),),
    )
    return {row["device_id"]: row["id"] for row in await cursor.fetchall()}


async def memberships_above(tx: Tx, object_id: str) -> list[tuple[str, str, str]]:
    """Member, group and the group's name, of every membership on a way up from an object."""
    cursor = await tx.execute(
        _ABOVE  # noqa: S608
        + """ SELECT m.member_id::text AS member_id, m.group_id::text AS group_id, g.display_name
            FROM directory_member m JOIN directory_group g ON g.id = m.group_id
            WHERE m.member_id = %(id)s::uuid OR m.member_id IN (SELECT id FROM above)
            ORDER BY g.display_name, g.id""",
        {"id": object_id},
    )
    return [
        (row["member_id"], row["group_id"], row["display_name"]) for row in await cursor.fetchall()
    ]


async def direct_groups_of(tx: Tx, object_id: str) -> list[str]:
    cursor = await tx.execute(
        "SELECT group_id::text AS id FROM directory_member WHERE member_id = %s ORDER BY 1",
        (object_id,),
    )
    return [row["id"] for row in await cursor.fetchall()]


# ---------------------------------------------------------------------------------- roles


_HOLDERS = """SELECT h.holder_id AS id FROM directory_role_holder h WHERE h.role_id = %(role)s
    UNION SELECT m.member_id FROM directory_role_holder h
    JOIN directory_group g ON g.id = h.holder_id AND g.is_assignable_to_role
    JOIN directory_member m ON m.group_id = g.id WHERE h.role_id = %(role)s"""


async def lock_roles(tx: Tx) -> None:
    """One at a time: two administrators who remove each other would leave none."""
    await tx.execute("SELECT pg_advisory_xact_lock(4120774)")


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


# Its own, and those of the role-assignable groups that it is a direct member of.
_ROLES = """SELECT role_id::text AS id FROM directory_role_holder WHERE holder_id = {id}
    UNION SELECT h.role_id::text FROM directory_member m
    JOIN directory_group g ON g.id = m.group_id AND g.is_assignable_to_role
    JOIN directory_role_holder h ON h.holder_id = g.id WHERE m.member_id = {id}"""


async def roles_of(tx: Tx, holder_id: str) -> frozenset[str]:
    cursor = await tx.execute(_ROLES.format(id="%(id)s").encode(), {"id": holder_id})
    return frozenset(row["id"] for row in await cursor.fetchall())


async def standing(tx: Tx, user_id: str, issued_at: datetime) -> frozenset[str] | None:
    cursor = await tx.execute(
        f"""SELECT ARRAY({_ROLES.format(id="u.id")}) AS roles
        FROM directory_user u
        WHERE u.id = %s AND u.account_enabled AND u.sessions_valid_from <= %s""".encode(),  # noqa: S608
        (user_id, issued_at),
    )
    row = await cursor.fetchone()
    return frozenset(row["roles"]) if row else None


async def role_holders(tx: Tx, role_id: str) -> list[Member]:
    cursor = await tx.execute(
        """SELECT o.id::text AS id, o.sort FROM directory_role_holder h
        JOIN directory_object o ON o.id = h.holder_id
        WHERE h.role_id = %s AND o.deleted_at IS NULL ORDER BY o.id""",
        (role_id,),
    )
    return [Member(**row) for row in await cursor.fetchall()]


async def role_assignments(tx: Tx) -> list[tuple[str, str]]:
    """(role, holder) of all that are live."""
    cursor = await tx.execute(
        """SELECT h.role_id::text AS role, h.holder_id::text AS holder FROM directory_role_holder h
        JOIN directory_object o ON o.id = h.holder_id WHERE o.deleted_at IS NULL ORDER BY 1, 2"""
    )
    return [(row["role"], row["holder"]) for row in await cursor.fetchall()]


async def has_enabled_holder(tx: Tx, role_id: str) -> bool:
    cursor = await tx.execute(
        f"SELECT 1 FROM ({_HOLDERS}) h JOIN directory_user u ON u.id = h.id"  # noqa: S608
        " WHERE u.account_enabled LIMIT 1",
        {"role": role_id},
    )
    return await cursor.fetchone() is not None


# ---------------------------------------------------------------------------------- owners


async def insert_owner(tx: Tx, owned_id: str, owner_id: str) -> bool:
    cursor = await tx.execute(
        "INSERT INTO directory_owner (owned_id, owner_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (owned_id, owner_id),
    )
    return cursor.rowcount == 1


async def delete_owner(tx: Tx, owned_id: str, owner_id: str) -> bool:
    cursor = await tx.execute(
        "DELETE FROM directory_owner WHERE owned_id = %s AND owner_id = %s", (owned_id, owner_id)
    )
    return cursor.rowcount == 1


async def owners(tx: Tx, owned_id: str) -> list[Member]:
    cursor = await tx.execute(
        """SELECT o.id::text AS id, o.sort FROM directory_owner w
        JOIN directory_object o ON o.id = w.owner_id
        WHERE w.owned_id = %s AND o.deleted_at IS NULL ORDER BY o.id""",
        (owned_id,),
    )
    return [Member(**row) for row in await cursor.fetchall()]


async def owned_by(tx: Tx, owner_id: str) -> list[str]:
    cursor = await tx.execute(
        "SELECT owned_id::text AS id FROM directory_owner WHERE owner_id = %s ORDER BY 1",
        (owner_id,),
    )
    return [row["id"] for row in await cursor.fetchall()]


# ---------------------------------------------------------------------------------- devices


async def insert_device(tx: Tx, device: Device) -> None:
    await insert_object(tx, device.id, "device")
    await tx.execute(
        """INSERT INTO directory_device (id, device_id, display_name, operating_system,
            operating_system_version, key_thumbprint, owner_id, registered_at, trust_type, profile,
            account_enabled)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            device.id,
            device.device_id,
            device.display_name,
            device.operating_system,
            device.operating_system_version,
            device.key_thumbprint,
            device.owner_id,
            device.registered_at,
            device.trust_type,
            Jsonb(device.profile),
            device.account_enabled,
        ),
    )


async def save_device(tx: Tx, device: Device) -> None:
    await tx.execute(
        """UPDATE directory_device SET display_name = %s, operating_system = %s,
            operating_system_version = %s, account_enabled = %s, profile = %s WHERE id = %s""",
        (
            device.display_name,
            device.operating_system,
            device.operating_system_version,
            device.account_enabled,
            Jsonb(device.profile),
            device.id,
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


async def set_last_sign_in(tx: Tx, object_id: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE directory_device SET last_sign_in_at = %s WHERE id = %s", (now, object_id)
    )


# ---------------------------------------------------------------------------------- deleted items

DELETED = Source(
    "directory_deleted x",
    {
        "id": "x.id",
        "sort": "x.sort",
        "display_name": "x.display_name",
        "deleted_date_time": "x.deleted_at",
        "kept": "x.kept",
        "user_principal_name": "x.kept->'row'->>'user_principal_name'",
        "mail_nickname": "x.kept->'row'->>'mail_nickname'",
        "mail": "x.kept->'row'->'profile'->>'mail'",
        "app_id": "x.kept->'row'->>'app_id'",
    },
)
_TABLES = {"user": "directory_user", "group": "directory_group"}


async def hide(tx: Tx, object_id: str, now: datetime) -> None:
    """The object is no member of anything, has none, and holds nothing until it is shown again.

    What refers to it stays, except memberships: those would count through a group that is no more,
    so they wait in a table of their own until both ends are there again.
    """
    await tx.execute(
        """WITH gone AS (
            DELETE FROM directory_member WHERE group_id = %(id)s OR member_id = %(id)s RETURNING *)
        INSERT INTO directory_deleted_member (group_id, member_id)
        SELECT group_id, member_id FROM gone ON CONFLICT DO NOTHING""",
        {"id": object_id},
    )
    await tx.execute("UPDATE directory_object SET deleted_at = %s WHERE id = %s", (now, object_id))


async def show(tx: Tx, object_id: str) -> None:
    await tx.execute("UPDATE directory_object SET deleted_at = NULL WHERE id = %s", (object_id,))
    await tx.execute(
        """WITH back AS (
            DELETE FROM directory_deleted_member m USING directory_object g, directory_object o
            WHERE g.id = m.group_id AND o.id = m.member_id AND g.deleted_at IS NULL
                AND o.deleted_at IS NULL AND (m.group_id = %(id)s OR m.member_id = %(id)s)
            RETURNING m.*)
        INSERT INTO directory_member (group_id, member_id)
        SELECT group_id, member_id FROM back ON CONFLICT DO NOTHING""",
        {"id": object_id},
    )


async def soft_delete(tx: Tx, object_id: str, sort: str, now: datetime) -> None:
    """Take the row out of its table, so that nothing finds it, and keep it for a restore."""
    await hide(tx, object_id, now)
    await tx.execute(
        f"""WITH gone AS (DELETE FROM {_TABLES[sort]} WHERE id = %(id)s RETURNING *)
        INSERT INTO directory_deleted (id, sort, display_name, deleted_at, kept)
        SELECT id, %(sort)s, display_name, %(now)s, jsonb_build_object('row', to_jsonb(gone),
            'devices', (SELECT coalesce(jsonb_agg(d.id), '[]') FROM directory_device d
                WHERE d.owner_id = %(id)s)) FROM gone""",  # noqa: S608
        {"id": object_id, "sort": sort, "now": now},
    )


async def rows_of(
    tx: Tx, table: str, condition: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows as JSON, to be kept. `table` and `condition` are our own text."""
    cursor = await tx.execute(
        f"SELECT to_jsonb(t) AS row FROM {table} t WHERE {condition}".encode(),  # noqa: S608
        values,
    )
    return [item["row"] for item in await cursor.fetchall()]


async def keep(tx: Tx, item: Deleted, kept: dict[str, Any]) -> None:
    await tx.execute(
        "INSERT INTO directory_deleted (id, sort, display_name, deleted_at, kept)"
        " VALUES (%s, %s, %s, %s, %s)",
        (item.id, item.sort, item.display_name, item.deleted_at, Jsonb(kept)),
    )


async def deleted(tx: Tx, object_id: str) -> tuple[Deleted, dict[str, Any]] | None:
    """Locked until the transaction ends: it is restored or purged once."""
    cursor = await tx.execute(
        """SELECT id::text AS id, sort, display_name, deleted_at, kept FROM directory_deleted
        WHERE id = %s FOR UPDATE""",
        (object_id,),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    kept = row.pop("kept")
    return Deleted(**row), kept


async def deleted_before(tx: Tx, moment: datetime) -> list[Deleted]:
    cursor = await tx.execute(
        """SELECT id::text AS id, sort, display_name, deleted_at FROM directory_deleted
        WHERE deleted_at < %s ORDER BY deleted_at""",
        (moment,),
    )
    return [Deleted(**row) for row in await cursor.fetchall()]


async def put_back(tx: Tx, table: str, row: dict[str, Any]) -> bool:
    """Insert a row that was kept as JSON. Columns that came since have their defaults.

    False when a row with the same unique value is there by now. `table` is our own text.
    """
    cursor = await tx.execute(
        """SELECT attname AS name FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped""",
        (table,),
    )
    known = [item["name"] for item in await cursor.fetchall() if item["name"] in row]
    columns = ", ".join(known)
    cursor = await tx.execute(
        f"INSERT INTO {table} ({columns}) SELECT {columns}"  # noqa: S608
        f" FROM jsonb_populate_record(NULL::{table}, %s) ON CONFLICT DO NOTHING".encode(),
        (Jsonb(row),),
    )
    return cursor.rowcount == 1


async def restore(tx: Tx, item: Deleted, kept: dict[str, Any]) -> bool:
    row = kept["row"]
    if row.get("manager_id") and await sort_of(tx, row["manager_id"]) is None:
        row["manager_id"] = None
    if not await put_back(tx, _TABLES[item.sort], row):
        return False
    await show(tx, item.id)
    await tx.execute(
        "UPDATE directory_device SET owner_id = %s WHERE owner_id IS NULL AND id = ANY(%s::uuid[])",
        (item.id, kept.get("devices", [])),
    )
    await forget(tx, item.id)
    return True


async def forget(tx: Tx, object_id: str) -> None:
    await tx.execute("DELETE FROM directory_deleted WHERE id = %s", (object_id,))


async def purge(tx: Tx, object_id: str) -> None:
    await forget(tx, object_id)
    await tx.execute("DELETE FROM directory_owner WHERE owned_id = %s", (object_id,))
    await delete_object(tx, object_id)


# ---------------------------------------------------------------------------------- domains


async def domains(tx: Tx) -> list[Domain]:
    cursor = await tx.execute(
        "SELECT name, is_default, is_initial, is_verified, challenge FROM directory_domain"
        " ORDER BY NOT is_default, name"
    )
    return [Domain(**row) for row in await cursor.fetchall()]


async def insert_domain(tx: Tx, name: str, challenge: str) -> bool:
    cursor = await tx.execute(
        "INSERT INTO directory_domain (name, is_verified, challenge) VALUES (%s, false, %s)"
        " ON CONFLICT DO NOTHING",
        (name, challenge),
    )
    return cursor.rowcount == 1


async def verify_domain(tx: Tx, name: str) -> None:
    await tx.execute("UPDATE directory_domain SET is_verified = true WHERE name = %s", (name,))


async def make_default(tx: Tx, name: str) -> None:
    await tx.execute("UPDATE directory_domain SET is_default = false WHERE is_default")
    await tx.execute("UPDATE directory_domain SET is_default = true WHERE name = %s", (name,))


async def delete_domain(tx: Tx, name: str) -> None:
    await tx.execute("DELETE FROM directory_domain WHERE name = %s", (name,))


async def users_of_domain(tx: Tx, name: str) -> int:
    cursor = await tx.execute(
        "SELECT count(*) AS n FROM directory_user"
        " WHERE right(lower(user_principal_name), length(%(name)s) + 1) = '@' || %(name)s",
        {"name": name},
    )
    row = await cursor.fetchone()
    return int(row["n"]) if row else 0


# ---------------------------------------------------------------------------------- rules


async def rule_groups(tx: Tx) -> list[Group]:
    """Groups whose rule is on."""
    cursor = await tx.execute(
        f"SELECT {_GROUP} FROM directory_group g"  # noqa: S608
        " WHERE g.rule_processing = 'On' AND g.membership_rule IS NOT NULL ORDER BY g.id"
    )
    return [_group(row) for row in await cursor.fetchall()]


async def apply_rule(
    tx: Tx,
    group_id: str,
    table: str,
    condition: str,
    parameters: dict[str, Any],
    object_ids: Sequence[str] | None,
) -> list[str]:
    """Bring the members in line with the rule, all of them or only these objects; returns whose
    membership changed. `table` and `condition` are our own text."""
    values = {**parameters, "group": group_id, "ids": list(object_ids) if object_ids else None}
    cursor = await _matching(
        tx,
        f"""WITH wanted AS (
            SELECT o.id FROM {table} o
            WHERE ({condition}) AND (%(ids)s::uuid[] IS NULL OR o.id = ANY(%(ids)s::uuid[]))),
        gone AS (
            DELETE FROM directory_member m WHERE m.group_id = %(group)s
                AND (%(ids)s::uuid[] IS NULL OR m.member_id = ANY(%(ids)s::uuid[]))
                AND m.member_id NOT IN (SELECT id FROM wanted) RETURNING m.member_id),
        come AS (
            INSERT INTO directory_member (group_id, member_id)
            SELECT %(group)s::uuid, id FROM wanted ON CONFLICT DO NOTHING RETURNING member_id)
        SELECT member_id::text AS id FROM gone
        UNION ALL SELECT member_id::text FROM come""",  # noqa: S608
        values,
    )
    return [row["id"] for row in await cursor.fetchall()]


async def _matching(tx: Tx, statement: str, values: dict[str, Any]) -> psycopg.AsyncCursor[Any]:
    """Only PostgreSQL knows what it reads as a regular expression. Raises BadRule."""
    try:
        async with tx.transaction():
            return await tx.execute(statement.encode(), values)
    except psycopg.errors.InvalidRegularExpression:
        raise BadRule(
            "The membership rule is not valid here: a pattern of -match is no regular expression.",
            cure="Close every bracket of the pattern, and write \\ before a character that is meant "
            "as it stands.",
            target="membershipRule",
        ) from None


async def rule_matches(
    tx: Tx, table: str, condition: str, parameters: dict[str, Any], limit: int
) -> tuple[int, list[dict[str, Any]]]:
    """How many objects a rule names, and the first of them by name."""
    cursor = await _matching(
        tx,
        f"SELECT o.id::text AS id, o.display_name, count(*) OVER () AS total FROM {table} o"  # noqa: S608
        f" WHERE {condition} ORDER BY lower(o.display_name), o.id LIMIT %(limit)s",
        {**parameters, "limit": limit},
    )
    rows = await cursor.fetchall()
    return (int(rows[0]["total"]) if rows else 0), rows
