"""Use cases of the directory."""

import asyncio
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tandem.infra import events
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.tenant.directory import model, store
from tandem.tenant.directory.model import (
    GLOBAL_ADMINISTRATOR,
    AccountDisabled,
    BadValue,
    Device,
    DeviceQuota,
    DirectorySettings,
    Group,
    LastAdministrator,
    MdmAuthority,
    MdmAuthorityIsSet,
    MdmScope,
    Member,
    NewUser,
    NoMdmAuthority,
    NoTenant,
    Taken,
    Tenant,
    TenantExists,
    UnknownObject,
    User,
    WrongPassword,
    as_guid,
)

_DEFAULTS = DirectorySettings()
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


async def in_mdm_scope(tx: Tx, user_id: str) -> bool:
    here = await tenant(tx)
    if here.mdm_scope is MdmScope.SOME:
        return await store.in_scope_groups(tx, user_id)
    return here.mdm_scope is MdmScope.ALL


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
    )
    hashed = await _hash(new.password, settings)
    if not await store.insert_user(tx, user, hashed, now):
        raise Taken(
            f"Another object with the same value for property userPrincipalName exists: {upn}.",
            cure="Choose another name.",
            target="userPrincipalName",
        )
    await events.record(tx, "user.created", user.id, {"upn": upn})
    return user


async def find_user(tx: Tx, id_or_upn: str) -> User | None:
    guid = as_guid(id_or_upn)
    return await store.user(tx, guid) if guid else await store.user_named(tx, id_or_upn)


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
        await _keep_an_administrator(tx, old.id)
        values["sessions_valid_from"] = now
    changed = replace(old, **values)
    await store.save_user(tx, changed)
    await events.record(tx, "user.changed", old.id, {"properties": sorted(changes)})
    return changed


async def delete_user(tx: Tx, user_id: str) -> None:
    found = await user(tx, user_id)
    await _keep_an_administrator(tx, found.id)
    await store.delete_object(tx, found.id)
    await events.record(tx, "user.deleted", found.id, {"upn": found.user_principal_name})


async def set_password(
    tx: Tx, user_id: str, password: str, now: datetime, settings: DirectorySettings = _DEFAULTS
) -> None:
    """Also ends every session: refresh tokens from before are refused."""
    model.check_password(password)
    found = await user(tx, user_id)
    await store.save_password(tx, found.id, await _hash(password, settings), now)


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
    tx: Tx, name: str, now: datetime, *, description: str | None = None, mail_nickname: str = ""
) -> Group:
    title = model.check_name(name)
    nickname = mail_nickname or "".join(part for part in name if part.isalnum()) or "group"
    made = Group(str(uuid.uuid4()), title, description, nickname, now)
    await store.insert_group(tx, made)
    return made


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
    changed = replace(await group(tx, group_id), **changes)
    model.check_name(changed.display_name)
    await store.save_group(tx, changed)
    return changed


async def delete_group(tx: Tx, group_id: str) -> None:
    found = await group(tx, group_id)
    if found.id in (await tenant(tx)).mdm_scope_groups:
        raise Taken(
            f"The MDM user scope names the group '{found.display_name}'.",
            cure="Take the group out of the MDM user scope first.",
        )
    await store.delete_object(tx, found.id)
    await events.record(tx, "group.deleted", found.id, {"name": found.display_name})


async def add_member(tx: Tx, group_id: str, member_id: str) -> None:
    """Raises Taken when it is a member already, UnknownObject when there is no such object."""
    found = await group(tx, group_id)
    guid = as_guid(member_id)
    sort = await store.sort_of(tx, guid) if guid else None
    if guid is None or sort is None:
        raise _unknown("object", member_id)
    if guid == found.id:
        raise BadValue("A group cannot be a member of itself.", cure="Name another member.")
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
    if guid is None or not await store.delete_member(tx, found.id, guid):
        raise _unknown("member", member_id)
    await events.record(tx, "group.member-removed", found.id, {"member": guid})


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


async def direct_groups_of(tx: Tx, object_id: str) -> list[str]:
    guid = as_guid(object_id)
    return await store.direct_groups_of(tx, guid) if guid else []


async def sort_of(tx: Tx, object_id: str) -> str | None:
    """user, group, device or servicePrincipal; None when there is no such object."""
    guid = as_guid(object_id)
    return await store.sort_of(tx, guid) if guid else None


async def add_object(tx: Tx, object_id: str, sort: str) -> None:
    """For modules above that keep directory objects in tables of their own."""
    await store.insert_object(tx, object_id, sort)


async def remove_object(tx: Tx, object_id: str) -> None:
    await store.delete_object(tx, object_id)


# ---------------------------------------------------------------------------------- roles


async def grant_role(tx: Tx, role_id: str, holder_id: str) -> None:
    if role_id not in model.ROLES:
        raise _unknown("directory role", role_id)
    if await sort_of(tx, holder_id) not in ("user", "servicePrincipal"):
        raise _unknown("user", holder_id)
    await store.insert_role_holder(tx, role_id, holder_id)


async def revoke_role(tx: Tx, role_id: str, holder_id: str) -> None:
    """Raises LastAdministrator rather than leave the tenant without a global administrator."""
    if role_id == GLOBAL_ADMINISTRATOR:
        await _keep_an_administrator(tx, holder_id)
    await store.delete_role_holder(tx, role_id, holder_id)


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


async def _keep_an_administrator(tx: Tx, leaving: str) -> None:
    if await store.enabled_holders(tx, GLOBAL_ADMINISTRATOR) == {leaving}:
        raise LastAdministrator(
            "This is the tenant's last enabled Global Administrator.",
            cure="Make somebody else Global Administrator first.",
        )


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
    )
    await store.insert_device(tx, device)
    await events.record(
        tx, "device.joined", device.device_id, {"name": display_name, "owner": owner_id}
    )
    return device


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


async def enable_device(tx: Tx, object_id: str, enabled: bool) -> None:
    await store.set_device_enabled(tx, object_id, enabled)


async def mark_device_sign_in(tx: Tx, object_id: str, now: datetime) -> None:
    await store.set_last_sign_in(tx, object_id, now)


async def delete_device(tx: Tx, object_id: str) -> None:
    found = await find_device_object(tx, object_id)
    if found is None:
        raise _unknown("device", object_id)
    await store.delete_object(tx, found.id)
    await events.record(tx, "device.deleted", found.device_id, {"name": found.display_name})


def _unknown(sort: str, given: str) -> UnknownObject:
    return UnknownObject(
        f"There is no {sort} '{given}', or its name is not unique.",
        cure="Check the id or name, or list what there is.",
    )
