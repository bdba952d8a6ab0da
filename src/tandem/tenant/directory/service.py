"""Use cases of the directory."""

import asyncio
import secrets
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tandem.infra import events
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.tenant.directory import model, rules, store
from tandem.tenant.directory.model import (
    DYNAMIC,
    GLOBAL_ADMINISTRATOR,
    AccountDisabled,
    BadValue,
    Device,
    DeviceQuota,
    DirectorySettings,
    DynamicMembers,
    Group,
    LastAdministrator,
    MdmAddresses,
    MdmAuthority,
    MdmAuthorityIsSet,
    MdmScope,
    Member,
    NewUser,
    NoMdmAuthority,
    NoTenant,
    RulePreview,
    Taken,
    Tenant,
    TenantExists,
    Trust,
    UnknownObject,
    User,
    WrongPassword,
    as_guid,
)

_DEFAULTS = DirectorySettings()
LONGEST_ADDRESS = 1024
# The addresses of MDM under the names that an API has for them.
ADDRESS_NAMES = {
    "discovery": "discoveryUrl",
    "terms_of_use": "termsOfUseUrl",
    "compliance": "complianceUrl",
}
# Each check takes tens of MiB for tens of milliseconds: only few at once, whoever asks.
_checking = ThreadPoolExecutor(2, "password")


# ---------------------------------------------------------------------------------- tenant


async def create_tenant(
    tx: Tx,
    *,
    name: str,
    domain: str,
    administrator_upn: str,
    administrator_name: str = "Administrator",
    password: str,
    now: datetime,
    settings: DirectorySettings = _DEFAULTS,
    tenant_id: str = "",
) -> Tenant:
    """A tenant with one verified domain and its first global administrator.

    Raises TenantExists: a database holds one tenant.
    """
    if await store.tenant(tx) is not None:
        raise TenantExists(
            "This database already holds a tenant.", cure="Use another database for another one."
        )
    await store.insert_tenant(
        tx, tenant_id or str(uuid.uuid4()), name, model.check_domain(domain), now
    )
    first = NewUser(administrator_upn, administrator_name, password)
    administrator = await create_user(tx, first, now, settings)
    await store.insert_role_holder(tx, GLOBAL_ADMINISTRATOR, administrator.id)
    return await tenant(tx)


async def find_tenant(tx: Tx) -> Tenant | None:
    return await store.tenant(tx)


async def tenant(tx: Tx) -> Tenant:
    """The tenant of this database. Raises NoTenant."""
    found = await store.tenant(tx)
    if found is None:
        raise NoTenant(
            "There is no tenant in this database yet.",
            cure="Give the tenant role a [first] section with name, domain and administrator.",
        )
    return found


async def set_mdm_authority(tx: Tx, now: datetime) -> Tenant:
    """Make the MDM service the authority. Set once: raises MdmAuthorityIsSet the second time."""
    here = await tenant(tx)
    if not await store.set_authority(tx, MdmAuthority.INTUNE, now):
        raise MdmAuthorityIsSet(
            "The MDM authority is already set to the MDM service.",
            cure="Nothing is left to do: it is set once and stays.",
        )
    await events.record(tx, "tenant.mdm-authority-set", here.id, {"authority": "intune"})
    return await tenant(tx)


async def require_mdm_authority(tx: Tx) -> None:
    """Raise NoMdmAuthority, which names where to set it, while no authority is chosen."""
    if (await tenant(tx)).mdm_authority is MdmAuthority.UNKNOWN:
        raise NoMdmAuthority(
            "The MDM authority of this tenant is not set, so no device can be managed here.",
            cure="Set it in the console under Tenant administration > Tenant status, or with "
            "`tandem mdm-authority set`.",
        )


async def set_mdm_scope(tx: Tx, scope: MdmScope, groups: Sequence[str] = ()) -> Tenant:
    """Whose devices enrol by themselves. `groups` are ids, for MdmScope.SOME alone."""
    if (scope is MdmScope.SOME) != bool(groups):
        raise BadValue(
            "The MDM user scope 'some' needs at least one group, and only it takes groups.",
            cure="Name the groups with scope 'some', or choose 'none' or 'all'.",
        )
    found = [(await group(tx, group_id)).id for group_id in groups]
    await store.set_scope(tx, scope, found)
    return await tenant(tx)


async def set_mam_scope(tx: Tx, scope: MdmScope, groups: Sequence[str] = ()) -> Tenant:
    """Whose apps would be managed without an enrolment of the device."""
    if (scope is MdmScope.SOME) != bool(groups):
        raise BadValue(
            "The MAM user scope 'some' needs at least one group, and only it takes groups.",
            cure="Name the groups with scope 'some', or choose 'none' or 'all'.",
        )
    found = [(await group(tx, group_id)).id for group_id in groups]
    await store.set_mam_scope(tx, scope, found)
    return await tenant(tx)


async def set_mdm_addresses(tx: Tx, addresses: MdmAddresses) -> None:
    """Where joined devices are sent instead of to this tenant's own MDM."""
    for name in ("discovery", "terms_of_use", "compliance"):
        url = getattr(addresses, name)
        if url is None:
            continue
        try:
            parts = urlsplit(url)
            known = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known or len(url) > LONGEST_ADDRESS or not url.isprintable() or " " in url:
            raise BadValue(
                f"'{url[:120]}' is no address that devices can be sent to.",
                cure="Give an https address, or restore the default.",
                target=ADDRESS_NAMES[name],
            )
    await store.set_addresses(tx, addresses)


async def in_mdm_scope(tx: Tx, user_id: str) -> bool:
    here = await tenant(tx)
    if here.mdm_scope is MdmScope.SOME:
        return bool(await store.scope_groups_of(tx, user_id))
    return here.mdm_scope is MdmScope.ALL


async def scope_groups_of(tx: Tx, user_id: str) -> list[str]:
    """Ids of the groups by which the user is in the MDM user scope, when it is 'some'."""
    return await store.scope_groups_of(tx, user_id)


# ---------------------------------------------------------------------------------- users


async def create_user(
    tx: Tx, new: NewUser, now: datetime, settings: DirectorySettings = _DEFAULTS
) -> User:
    """Raises BadValue, which names the property, or Taken."""
    here = await tenant(tx)
    upn = model.check_upn(new.user_principal_name, here.domains)
    model.check_password(new.password)
    user = User(
        id=str(uuid.uuid4()),
        user_principal_name=upn,
        display_name=model.check_name(new.display_name),
        account_enabled=new.account_enabled,
        mail_nickname=new.mail_nickname or upn.partition("@")[0],
        usage_location=model.check_location(new.usage_location),
        profile=dict(new.profile or {}),
        created_at=now,
        sessions_valid_from=now,
        must_change_password=new.must_change_password,
    )
    hashed = await _hash(new.password, settings)
    if not await store.insert_user(tx, user, hashed, now):
        raise Taken(
            f"Another object with the same value for property userPrincipalName exists: {upn}.",
            cure="Choose another name.",
            target="userPrincipalName",
        )
    await events.record(tx, "user.created", user.id, {"upn": upn})
    await follow_rules(tx, "user", [user.id])
    return user


async def find_user(tx: Tx, id_or_upn: str) -> User | None:
    guid = as_guid(id_or_upn)
    return await store.user(tx, guid) if guid else await store.user_named(tx, id_or_upn)


async def upn_of_account(tx: Tx, account: str) -> str | None:
    r"""The user name behind DOMAIN\name, for users who came from an on-premises domain: the domain
    by its DNS name or the first label of it, which is what its short name usually is."""
    domain, slash, name = account.strip().partition("\\")
    if not slash or not domain or not name:
        return None
    return await store.upn_of_account(tx, domain, name)


async def user(tx: Tx, id_or_upn: str) -> User:
    """Raises UnknownObject."""
    found = await find_user(tx, id_or_upn)
    if found is None:
        raise _unknown("user", id_or_upn)
    return found


async def users(tx: Tx) -> list[User]:
    return await store.users(tx)


async def update_user(tx: Tx, user_id: str, changes: dict[str, Any], now: datetime) -> User:
    """Change fields of User by their names; `profile` is merged, and None clears in it."""
    here, old = await tenant(tx), await user(tx, user_id)
    values = dict(changes)
    if "user_principal_name" in values:
        upn = model.check_upn(values["user_principal_name"], here.domains)
        other = await store.user_named(tx, upn)
        if other is not None and other.id != old.id:
            raise Taken(
                f"Another object with the same value for property userPrincipalName exists: {upn}.",
                cure="Choose another name.",
                target="userPrincipalName",
            )
        values["user_principal_name"] = upn
    if "usage_location" in values:
        values["usage_location"] = model.check_location(values["usage_location"])
    if "display_name" in values:
        values["display_name"] = model.check_name(values["display_name"])
    profile = {**old.profile, **values.pop("profile", {})}
    values["profile"] = {name: value for name, value in profile.items() if value is not None}
    if old.account_enabled and values.get("account_enabled") is False:
        values["sessions_valid_from"] = now
    changed = replace(old, **values)
    await store.save_user(tx, changed)
    if old.account_enabled and not changed.account_enabled:
        await _keep_an_administrator(tx)
    await events.record(tx, "user.changed", old.id, {"properties": sorted(changes)})
    await follow_rules(tx, "user", [old.id])
    return changed


async def delete_user(tx: Tx, user_id: str, now: datetime) -> None:
    """Soft: sign-in, tokens, memberships and roles end at once, and for 30 days the user can be
    restored with `restore`."""
    found = await user(tx, user_id)
    await store.soft_delete(tx, found.id, "user", now)
    await _keep_an_administrator(tx)
    await events.record(tx, "user.deleted", found.id, {"upn": found.user_principal_name})


async def end_sessions(tx: Tx, user_id: str, now: datetime) -> None:
    """Every token from before is refused from now on."""
    await store.save_user(tx, replace(await user(tx, user_id), sessions_valid_from=now))
    await events.record(tx, "user.changed", user_id, {"properties": ["sessions_valid_from"]})


async def set_password(
    tx: Tx, user_id: str, password: str, now: datetime, settings: DirectorySettings = _DEFAULTS
) -> None:
    """Also ends every session: refresh tokens from before are refused."""
    model.check_password(password)
    found = await user(tx, user_id)
    await store.save_password(tx, found.id, await _hash(password, settings), now)
    await events.record(tx, "user.changed", found.id, {"properties": ["password"]})


async def manager(tx: Tx, user_id: str) -> str | None:
    return await store.manager(tx, user_id)


async def reports(tx: Tx, user_id: str) -> list[str]:
    """Ids of those whose manager the user is."""
    return await store.reports(tx, user_id)


async def set_manager(tx: Tx, user_id: str, manager_id: str | None) -> None:
    found = await user(tx, user_id)
    if manager_id is not None:
        guid = as_guid(manager_id)
        if guid is None or await store.sort_of(tx, guid) != "user":
            raise _unknown("user", manager_id)
        if guid == found.id:
            raise BadValue("A user cannot be their own manager.", cure="Name somebody else.")
        manager_id = guid
    await store.set_manager(tx, found.id, manager_id)
    await events.record(tx, "user.changed", found.id, {"properties": ["manager"]})


async def authenticate(
    tx: Tx, upn: str, password: str, now: datetime, settings: DirectorySettings = _DEFAULTS
) -> User | AppError:
    """The user whose password this is, or the refusal as a value.

    It is returned, not raised, because a wrong password is counted in this transaction, which an
    exception would undo. An unknown name costs as much time as a wrong password.
    """
    found = await store.user_named(tx, upn.strip())
    if found is None:
        await _verify(_nobody(settings), password, settings)
        return _wrong()
    held = await store.credentials(tx, found.id)
    if held["locked_until"] is not None and held["locked_until"] > now:
        return model.locked(held["locked_until"], now)
    if not await _verify(held["password_hash"], password, settings):
        wait = model.lock_time(await store.count_failure(tx, found.id), settings)
        if wait:
            await store.lock_user(tx, found.id, now + wait)
        return _wrong()
    if held["failures"]:
        await store.forget_failures(tx, found.id)
    if not found.account_enabled:
        return AccountDisabled(
            "This account is disabled.", cure="Ask an administrator to enable it."
        )
    return found


def _wrong() -> WrongPassword:
    return WrongPassword(
        "The user name or the password is wrong.", cure="Check both and try again."
    )


def _hasher(settings: DirectorySettings) -> PasswordHasher:
    return PasswordHasher(
        time_cost=settings.password_passes, memory_cost=settings.password_memory_kib, parallelism=1
    )


_nobodies: dict[DirectorySettings, str] = {}


def _nobody(settings: DirectorySettings) -> str:
    if settings not in _nobodies:
        _nobodies[settings] = _hasher(settings).hash(uuid.uuid4().hex)
    return _nobodies[settings]


async def _hash(password: str, settings: DirectorySettings) -> str:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_checking, _hasher(settings).hash, password)


async def _verify(hashed: str, password: str, settings: DirectorySettings) -> bool:
    def check() -> bool:
        try:
            return _hasher(settings).verify(hashed, password[: model.MAXIMUM_PASSWORD + 1])
        except (VerificationError, InvalidHashError):
            return False

    return await asyncio.get_running_loop().run_in_executor(_checking, check)


# ---------------------------------------------------------------------------------- groups


async def create_group(
    tx: Tx,
    name: str,
    now: datetime,
    *,
    description: str | None = None,
    mail_nickname: str = "",
    **values: Any,
) -> Group:
    """`values` are further fields of Group. A group with a rule has its members at once."""
    title = model.check_name(name)
    nickname = mail_nickname or "".join(part for part in name if part.isalnum()) or "group"
    made = Group(str(uuid.uuid4()), title, description, nickname, now, **values)
    _check_group(made)
    await store.insert_group(tx, made)
    await events.record(tx, "group.created", made.id, {"name": title})
    await _apply_rule(tx, made, None)
    return made


def _check_group(item: Group) -> None:
    if item.is_dynamic != bool(item.membership_rule):
        raise BadValue(
            f"The group type {DYNAMIC} and membershipRule go together.",
            cure="Send both, or neither.",
            target="membershipRule",
        )
    if item.membership_rule:
        rules.compile_rule(item.membership_rule)
    if item.is_assignable_to_role and (item.is_dynamic or not item.security_enabled):
        raise BadValue(
            "A group that can hold roles has to be a security group with assigned members.",
            cure="Leave isAssignableToRole out, or the rule.",
            target="isAssignableToRole",
        )


async def find_group(tx: Tx, id_or_name: str) -> Group | None:
    """By id, or by a display name that only one group has."""
    guid = as_guid(id_or_name)
    if guid:
        return await store.group(tx, guid)
    named = await store.groups_named(tx, id_or_name)
    return named[0] if len(named) == 1 else None


async def group(tx: Tx, group_id: str) -> Group:
    """Raises UnknownObject."""
    found = await find_group(tx, group_id)
    if found is None:
        raise _unknown("group", group_id)
    return found


async def groups(tx: Tx) -> list[Group]:
    return await store.groups(tx)


async def update_group(tx: Tx, group_id: str, changes: dict[str, Any]) -> Group:
    """Change fields of Group by their names; `profile` is merged, and None clears in it."""
    old, values = await group(tx, group_id), dict(changes)
    profile = {**old.profile, **values.pop("profile", {})}
    values["profile"] = {name: value for name, value in profile.items() if value is not None}
    changed = replace(old, **values)
    model.check_name(changed.display_name)
    if changed.is_assignable_to_role != old.is_assignable_to_role:
        raise BadValue(
            "Whether a group can hold roles is decided when it is created.",
            cure="Create another group.",
            target="isAssignableToRole",
        )
    _check_group(changed)
    await store.save_group(tx, changed)
    await events.record(tx, "group.changed", old.id, {"properties": sorted(changes)})
    before = (old.membership_rule, old.rule_processing)
    if before != (changed.membership_rule, changed.rule_processing):
        await _apply_rule(tx, changed, None)
    return changed


async def _apply_rule(tx: Tx, item: Group, object_ids: Sequence[str] | None) -> bool:
    """Follow the group's rule for these objects (None: all); whether a membership changed."""
    if not item.membership_rule or item.rule_processing != "On":
        return False
    rule = rules.compile_rule(item.membership_rule)
    changed = await store.apply_rule(
        tx, item.id, rule.table, rule.condition, rule.parameters, object_ids
    )
    if changed:
        await events.record(tx, "group.members-changed", item.id, {"members": len(changed)})
    return bool(changed)


async def follow_rules(tx: Tx, sort: str, object_ids: Sequence[str]) -> None:
    """Bring the objects into the groups whose rules they meet, and out of the others: to be called
    when users or devices changed."""
    for item in await store.rule_groups(tx):
        assert item.membership_rule
        if rules.compile_rule(item.membership_rule).sort == sort:
            await _apply_rule(tx, item, object_ids)


async def preview_rule(tx: Tx, text: str, limit: int = 20) -> RulePreview:
    """Whom a membership rule names now, before it is a group's. Raises BadRule."""
    rule = rules.compile_rule(text)
    total, found = await store.rule_matches(tx, rule.table, rule.condition, rule.parameters, limit)
    return RulePreview(rule.sort, total, tuple((row["id"], row["display_name"]) for row in found))


async def delete_group(tx: Tx, group_id: str, now: datetime) -> None:
    """Soft: it has no members and gives nothing from now on, until it is restored."""
    found = await group(tx, group_id)
    here = await tenant(tx)
    scopes = {"MDM": here.mdm_scope_groups, "MAM": here.mam_scope_groups}
    for name, named in scopes.items():
        if found.id in named:
            raise Taken(
                f"The {name} user scope names the group '{found.display_name}'.",
                cure=f"Take the group out of the {name} user scope first.",
            )
    await store.soft_delete(tx, found.id, "group", now)
    if found.is_assignable_to_role:
        await _keep_an_administrator(tx)
    await events.record(tx, "group.deleted", found.id, {"name": found.display_name})


async def add_member(tx: Tx, group_id: str, member_id: str) -> None:
    """Raises Taken when it is a member already, UnknownObject when there is no such object."""
    found = await group(tx, group_id)
    guid = as_guid(member_id)
    sort = await store.sort_of(tx, guid) if guid else None
    if guid is None or sort is None:
        raise _unknown("object", member_id)
    _assigned(found)
    if guid == found.id:
        raise BadValue("A group cannot be a member of itself.", cure="Name another member.")
    if found.is_assignable_to_role and sort == "group":
        raise BadValue(
            "A group that can hold roles has no groups as members.", cure="Add the users."
        )
    if not await store.insert_member(tx, found.id, guid):
        raise Taken(
            "One or more added object references already exist for the following modified "
            "properties: 'members'.",
            cure="Nothing is left to do: the object is a member already.",
        )
    await events.record(tx, "group.member-added", found.id, {"member": guid, "sort": sort})


async def remove_member(tx: Tx, group_id: str, member_id: str) -> None:
    found = await group(tx, group_id)
    guid = as_guid(member_id)
    _assigned(found)
    if guid is None or not await store.delete_member(tx, found.id, guid):
        raise _unknown("member", member_id)
    if found.is_assignable_to_role:
        await _keep_an_administrator(tx)
    await events.record(tx, "group.member-removed", found.id, {"member": guid})


def _assigned(item: Group) -> None:
    if item.is_dynamic:
        raise DynamicMembers(
            f"The members of '{item.display_name}' are decided by its membership rule.",
            cure="Change the rule, or what it asks of the user or device.",
        )


async def members(tx: Tx, group_id: str) -> list[Member]:
    """The direct members."""
    return await store.members(tx, (await group(tx, group_id)).id)


async def all_members(tx: Tx, group_id: str) -> list[Member]:
    """Members at any depth, groups in between included."""
    return await store.all_members(tx, (await group(tx, group_id)).id)


async def groups_of(tx: Tx, object_id: str) -> frozenset[str]:
    """Ids of every group that contains the user or device, at any depth."""
    guid = as_guid(object_id)
    return await store.groups_of(tx, guid) if guid else frozenset()


async def groups_of_pair(
    tx: Tx, user_id: str, device_id: str
) -> tuple[frozenset[str], frozenset[str]]:
    """The groups of a user and of a device, at any depth. `device_id` is the one of tokens and MDM."""
    return await store.groups_of_pair(tx, as_guid(user_id), as_guid(device_id))


async def groups_of_all(tx: Tx, object_ids: Iterable[str]) -> dict[str, frozenset[str]]:
    """As `groups_of`, of many objects at once; those in no group are left out."""
    guids = {guid: id for id in object_ids if (guid := as_guid(id))}
    found = await store.groups_of_all(tx, list(guids)) if guids else {}
    return {guids[guid]: groups for guid, groups in found.items()}


async def objects_of_devices(tx: Tx, device_ids: Iterable[str]) -> dict[str, str]:
    """By the device id that tokens and MDM use: the id of its directory object, which groups use."""
    guids = {guid: id for id in device_ids if (guid := as_guid(id))}
    found = await store.objects_of_devices(tx, list(guids)) if guids else {}
    return {guids[guid]: object_id for guid, object_id in found.items()}


async def ways_up(tx: Tx, object_id: str) -> dict[str, list[tuple[str, str]]]:
    """For each group that contains the object at any depth, the shortest way to it: the id and
    name of each group on the way, that group last."""
    guid = as_guid(object_id)
    found: dict[str, list[tuple[str, str]]] = {}
    if guid is None:
        return found
    above: dict[str, list[tuple[str, str]]] = {}
    for member, group, name in await store.memberships_above(tx, guid):
        above.setdefault(member, []).append((group, name))
    reached: list[tuple[str, list[tuple[str, str]]]] = [(guid, [])]
    for member, way in reached:
        for group, name in above.get(member, []):
            if group not in found:
                found[group] = [*way, (group, name)]
                reached.append((group, found[group]))
    return found


async def direct_groups_of(tx: Tx, object_id: str) -> list[str]:
    guid = as_guid(object_id)
    return await store.direct_groups_of(tx, guid) if guid else []


async def sort_of(tx: Tx, object_id: str) -> str | None:
    """user, group, device or servicePrincipal; None when there is no such object."""
    guid = as_guid(object_id)
    return await store.sort_of(tx, guid) if guid else None


async def sorts(tx: Tx, object_ids: Sequence[str]) -> list[Member]:
    """Those of the objects that there are, in the order asked for."""
    guids = [guid for item in object_ids if (guid := as_guid(item))]
    return await store.sorts(tx, guids)


async def add_object(tx: Tx, object_id: str, sort: str) -> None:
    """For modules above that keep directory objects in tables of their own."""
    await store.insert_object(tx, object_id, sort)


async def remove_object(tx: Tx, object_id: str) -> None:
    await store.delete_object(tx, object_id)


# ---------------------------------------------------------------------------------- roles


async def grant_role(tx: Tx, role_id: str, holder_id: str) -> None:
    """To a user, a service principal, or a group that was made for it."""
    if role_id not in model.ROLES:
        raise _unknown("directory role", role_id)
    sort = await sort_of(tx, holder_id)
    if sort == "group" and not (await group(tx, holder_id)).is_assignable_to_role:
        raise BadValue(
            "This group cannot hold roles.", cure="Create one with isAssignableToRole true."
        )
    if sort not in ("user", "servicePrincipal", "group"):
        raise _unknown("user", holder_id)
    await store.insert_role_holder(tx, role_id, holder_id)
    await events.record(tx, "role.granted", holder_id, {"role": role_id})


async def revoke_role(tx: Tx, role_id: str, holder_id: str) -> None:
    """Raises LastAdministrator rather than leave the tenant without a global administrator."""
    await store.delete_role_holder(tx, role_id, holder_id)
    if role_id == GLOBAL_ADMINISTRATOR:
        await _keep_an_administrator(tx)
    await events.record(tx, "role.revoked", holder_id, {"role": role_id})


async def roles_of(tx: Tx, object_id: str) -> frozenset[str]:
    """Ids (template ids) of the directory roles that the object holds."""
    guid = as_guid(object_id)
    return await store.roles_of(tx, guid) if guid else frozenset()


async def standing(tx: Tx, user_id: str, issued_at: datetime) -> frozenset[str] | None:
    """The directory roles of a user whose session from then still counts; None: it does not,
    because the account is gone, disabled or signed out since."""
    guid = as_guid(user_id)
    return await store.standing(tx, guid, issued_at) if guid else None


async def role_holders(tx: Tx, role_id: str) -> list[Member]:
    return await store.role_holders(tx, role_id)


async def role_assignments(tx: Tx) -> list[tuple[str, str]]:
    """(role, holder) of every assignment."""
    return await store.role_assignments(tx)


async def _keep_an_administrator(tx: Tx) -> None:
    """To be called after the change, which is undone by the refusal."""
    await store.lock_roles(tx)
    if not await store.has_enabled_holder(tx, GLOBAL_ADMINISTRATOR):
        raise LastAdministrator(
            "This is the tenant's last enabled Global Administrator.",
            cure="Make somebody else Global Administrator first.",
        )


# ---------------------------------------------------------------------------------- owners


async def owners(tx: Tx, owned_id: str) -> list[Member]:
    """Of a group, an application or a service principal."""
    return await store.owners(tx, owned_id)


async def owned_by(tx: Tx, owner_id: str) -> list[str]:
    return await store.owned_by(tx, owner_id)


async def add_owner(tx: Tx, owned_id: str, owner_id: str) -> None:
    guid = as_guid(owner_id)
    sort = await store.sort_of(tx, guid) if guid else None
    if guid is None or sort not in ("user", "servicePrincipal"):
        raise _unknown("user", owner_id)
    if not await store.insert_owner(tx, owned_id, guid):
        raise Taken(
            "One or more added object references already exist for the following modified "
            "properties: 'owners'.",
            cure="Nothing is left to do: it is an owner already.",
        )


async def remove_owner(tx: Tx, owned_id: str, owner_id: str) -> None:
    guid = as_guid(owner_id)
    if guid is None or not await store.delete_owner(tx, owned_id, guid):
        raise _unknown("owner", owner_id)


# ---------------------------------------------------------------------------------- devices


async def join_device(
    tx: Tx,
    *,
    owner_id: str,
    display_name: str,
    operating_system: str,
    operating_system_version: str,
    key_thumbprint: str,
    now: datetime,
    settings: DirectorySettings = _DEFAULTS,
    trust: Trust = Trust.JOINED,
) -> Device:
    """The join record of this key: a new one, or the same again when the device asks twice."""
    known = await store.device(tx, "key_thumbprint", key_thumbprint)
    if known is not None:
        if known.owner_id != owner_id:
            raise Taken(
                "Another user has already joined a device with this key.",
                cure="Make a new key on the device and join again.",
            )
        again = replace(
            known,
            display_name=display_name,
            operating_system=operating_system,
            operating_system_version=operating_system_version,
        )
        await store.rejoin(tx, again)
        return again
    if len(await store.devices_of(tx, owner_id)) >= settings.devices_per_user:
        raise DeviceQuota(
            f"This user has already joined {settings.devices_per_user} devices.",
            cure="Delete devices that are no longer used, or raise devices_per_user.",
        )
    device = Device(
        id=str(uuid.uuid4()),
        device_id=str(uuid.uuid4()),
        display_name=display_name,
        account_enabled=True,
        operating_system=operating_system,
        operating_system_version=operating_system_version,
        key_thumbprint=key_thumbprint,
        owner_id=owner_id,
        is_managed=False,
        is_compliant=None,
        registered_at=now,
        trust_type=trust.value,
    )
    await store.insert_device(tx, device)
    await events.record(
        tx, "device.joined", device.device_id, {"name": display_name, "owner": owner_id}
    )
    await follow_rules(tx, "device", [device.id])
    return device


async def create_device(tx: Tx, device: Device) -> Device:
    """A device that the site or an administrator tells of, and that has not joined by itself."""
    if await store.device(tx, "device_id", device.device_id) or await store.device(
        tx, "key_thumbprint", device.key_thumbprint
    ):
        raise Taken(
            "Another object with the same value for property deviceId or alternativeSecurityIds "
            "exists.",
            cure="Use the device there is, or delete it.",
            target="deviceId",
        )
    made = replace(device, display_name=model.check_name(device.display_name))
    await store.insert_device(tx, made)
    await events.record(tx, "device.joined", made.device_id, {"name": made.display_name})
    await follow_rules(tx, "device", [made.id])
    return made


async def update_device(tx: Tx, object_id: str, changes: dict[str, Any]) -> Device:
    """Change fields of Device by their names; `profile` is merged, and None clears in it."""
    old = await find_device_object(tx, object_id)
    if old is None:
        raise _unknown("device", object_id)
    values = dict(changes)
    profile = {**old.profile, **values.pop("profile", {})}
    values["profile"] = {name: value for name, value in profile.items() if value is not None}
    changed = replace(old, **values)
    model.check_name(changed.display_name)
    await store.save_device(tx, changed)
    await events.record(tx, "device.changed", old.device_id, {"properties": sorted(changes)})
    await follow_rules(tx, "device", [old.id])
    return changed


async def find_device(tx: Tx, device_id: str) -> Device | None:
    """By the device id that tokens and MDM use."""
    guid = as_guid(device_id)
    return await store.device(tx, "device_id", guid) if guid else None


async def find_device_object(tx: Tx, object_id: str) -> Device | None:
    """By the directory object's id, which groups use."""
    guid = as_guid(object_id)
    return await store.device(tx, "id", guid) if guid else None


async def devices_of(tx: Tx, owner_id: str) -> list[str]:
    """Object ids of the devices that the user joined."""
    guid = as_guid(owner_id)
    return await store.devices_of(tx, guid) if guid else []


async def set_device_management(
    tx: Tx,
    device_id: str,
    *,
    is_managed: bool,
    is_compliant: bool | None = None,
    mdm_app_id: str | None = None,
) -> None:
    """What the MDM service knows of a device; unknown devices are ignored."""
    guid = as_guid(device_id)
    if guid:
        await store.set_management(tx, guid, is_managed, is_compliant, mdm_app_id)
        found = await store.device(tx, "device_id", guid)
        if found is not None:
            await follow_rules(tx, "device", [found.id])


async def enable_device(tx: Tx, object_id: str, enabled: bool) -> None:
    """A disabled device gets no token, and those it has are refused by the tenant at once."""
    await update_device(tx, object_id, {"account_enabled": enabled})


async def mark_device_sign_in(tx: Tx, object_id: str, now: datetime) -> None:
    await store.set_last_sign_in(tx, object_id, now)


async def delete_device(tx: Tx, object_id: str) -> None:
    found = await find_device_object(tx, object_id)
    if found is None:
        raise _unknown("device", object_id)
    await store.delete_object(tx, found.id)
    await events.record(tx, "device.deleted", found.device_id, {"name": found.display_name})


# ---------------------------------------------------------------------------------- deleted items


async def keep(tx: Tx, item: model.Deleted, kept: dict[str, Any]) -> None:
    """For modules above: keep what a deleted thing of theirs was, until it is restored or purged."""
    await store.keep(tx, item, kept)


async def deleted(tx: Tx, object_id: str) -> tuple[model.Deleted, dict[str, Any]]:
    """A deleted item with what was kept. Raises UnknownObject."""
    guid = as_guid(object_id)
    found = await store.deleted(tx, guid) if guid else None
    if found is None:
        raise _unknown("deleted item", object_id)
    return found


async def restore(tx: Tx, object_id: str) -> model.Deleted:
    """A deleted user or group, as it was: memberships, roles and licences count again.

    Raises Taken when the name belongs to somebody else by now.
    """
    item, kept = await deleted(tx, object_id)
    if item.sort == "user":
        upn = kept["row"]["user_principal_name"]
        if (other := await store.user_named(tx, upn)) is not None:
            raise Taken(
                f"The user cannot be restored: the userPrincipalName {upn} belongs to "
                f"'{other.display_name}' ({other.id}) by now.",
                cure="Give that user another name first, then restore this one.",
                target="userPrincipalName",
            )
    if not await store.restore(tx, item, kept):
        raise Taken(
            f"'{item.display_name}' cannot be restored: something else has its name by now.",
            cure="Rename that first.",
        )
    await events.record(tx, f"{item.sort}.restored", item.id, {"name": item.display_name})
    if item.sort == "user":
        await follow_rules(tx, "user", [item.id])
    else:
        await _apply_rule(tx, await group(tx, item.id), None)
    return item


async def put_back(tx: Tx, table: str, row: dict[str, Any]) -> bool:
    """For modules above: a kept row of a table of theirs. False when its place is taken."""
    return await store.put_back(tx, table, row)


async def rows_of(
    tx: Tx, table: str, condition: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    """For modules above: rows of a table of theirs as JSON, for `keep`."""
    return await store.rows_of(tx, table, condition, values)


async def hide(tx: Tx, object_id: str, now: datetime) -> None:
    """For modules above: an object of theirs is no member and no holder until it is shown again."""
    await store.hide(tx, object_id, now)


async def show(tx: Tx, object_id: str) -> None:
    await store.show(tx, object_id)


async def forget(tx: Tx, object_id: str) -> None:
    await store.forget(tx, object_id)


async def purge(tx: Tx, object_id: str) -> model.Deleted:
    """Delete a deleted item for good."""
    item, kept = await deleted(tx, object_id)
    await store.purge(tx, item.id)
    for principal in kept.get("principals", ()):
        await store.purge(tx, principal)
    await events.record(tx, f"{item.sort}.purged", item.id, {"name": item.display_name})
    return item


async def tend(tx: Tx, now: datetime) -> list[model.Deleted]:
    """Delete for good what was deleted 30 days ago; returns it."""
    gone = await store.deleted_before(tx, now - model.KEPT_AFTER_DELETION)
    for item in gone:
        await purge(tx, item.id)
    return gone


# ---------------------------------------------------------------------------------- domains


async def domains(tx: Tx) -> list[model.Domain]:
    return await store.domains(tx)


async def domain(tx: Tx, name: str) -> model.Domain:
    for item in await store.domains(tx):
        if item.name == name.lower():
            return item
    raise _unknown("domain", name)


async def add_domain(tx: Tx, name: str) -> model.Domain:
    """Not verified yet: nobody can be called by it."""
    checked = model.check_domain(name)
    if not await store.insert_domain(tx, checked, f"tandem-verify={secrets.token_hex(16)}"):
        raise Taken(f"The domain {checked} has been added already.", cure="Verify it.", target="id")
    return await domain(tx, checked)


async def verify_domain(tx: Tx, name: str, texts: Sequence[str]) -> model.Domain:
    """`texts` are the TXT records that DNS has for the domain. Raises NotVerified."""
    found = await domain(tx, name)
    if not found.is_verified and found.challenge not in texts:
        raise model.NotVerified(
            f"The domain {found.name} has no TXT record '{found.challenge}'.",
            cure="Add the record, wait until DNS shows it, then verify again.",
        )
    await store.verify_domain(tx, found.name)
    return await domain(tx, found.name)


async def make_default(tx: Tx, name: str) -> None:
    found = await domain(tx, name)
    if not found.is_verified:
        raise model.NotVerified(f"{found.name} is not verified.", cure="Verify it first.")
    await store.make_default(tx, found.name)


async def delete_domain(tx: Tx, name: str) -> None:
    found = await domain(tx, name)
    users = await store.users_of_domain(tx, found.name)
    if found.is_initial or found.is_default or users:
        reason = "it is the tenant's first or default domain"
        if users:
            reason = f"{users} users are called by it"
        raise Taken(
            f"The domain {found.name} cannot be deleted: {reason}.",
            cure="Rename the users, or make another domain the default.",
        )
    await store.delete_domain(tx, found.name)


def _unknown(sort: str, given: str) -> UnknownObject:
    return UnknownObject(
        f"There is no {sort} '{given}', or its name is not unique.",
        cure="Check the id or name, or list what there is.",
    )
