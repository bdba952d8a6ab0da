"""Users, and what belongs to one: groups, licences, devices."""

import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tandem.infra.errors import AppError
from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, licensing
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Entity,
    Field,
    Forbidden,
    Navigation,
    Part,
    Ref,
    Resource,
    Value,
)

# Those that show without $select come first.
_FREE = (
    "givenName",
    "surname",
    "mail",
    "jobTitle",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
)
_FREE_HIDDEN = tuple(
    name for name in directory.USER_TEXTS if name not in _FREE and name != "userType"
)
_LISTS = ("businessPhones", "otherMails", "proxyAddresses")
_EXTENSIONS = "onPremisesExtensionAttributes"
_NAMES = {
    "displayName": "display_name",
    "userPrincipalName": "user_principal_name",
    "accountEnabled": "account_enabled",
    "mailNickname": "mail_nickname",
    "usageLocation": "usage_location",
}
_LONGEST = {"jobTitle": 128, "department": 64, "mobilePhone": 64, "surname": 64, "givenName": 64}
_LONGEST_TEXT = 256
_LONGEST_LIST = 100

_PASSWORDS = directory.DirectorySettings()


def _profile(body: Body) -> dict[str, Any]:
    """The free properties of a body, each of a length that can be stored and shown."""
    found: dict[str, Any] = {}
    for name in (*_FREE, *_FREE_HIDDEN, "userType"):
        if name in body:
            value = body[name]
            if value is not None and len(value) > _LONGEST.get(name, _LONGEST_TEXT):
                raise _too_long(name)
            found[name] = value or None
    for name in _LISTS:
        if name in body:
            value = body[name] or []
            if len(value) > _LONGEST_LIST or any(len(item) > _LONGEST_TEXT for item in value):
                raise _too_long(name)
            found[name] = value
    if body.get(_EXTENSIONS) is not None:
        found[_EXTENSIONS] = _extensions(body[_EXTENSIONS])
    return found


def _extensions(given: dict[str, Any]) -> dict[str, Any]:
    known = {f"extensionAttribute{number}" for number in range(1, 16)}
    for name, value in given.items():
        if name not in known or not isinstance(value, str | None):
            raise BadProperty(
                f"Invalid value specified for property '{_EXTENSIONS}'.",
                cure="It has the texts extensionAttribute1 to extensionAttribute15.",
                target=_EXTENSIONS,
            )
        if value is not None and len(value) > 1024:
            raise _too_long(_EXTENSIONS)
    return {name: value for name, value in given.items() if value}


def _too_long(name: str) -> BadProperty:
    return BadProperty(
        f"Invalid value specified for property '{name}': it is too long.",
        cure="Send a shorter one.",
        target=name,
    )


def _password(body: Body) -> tuple[str, bool]:
    """The password of a body, and whether it has to be changed at the next sign-in."""
    given = body.get("passwordProfile") or {}
    password = given.get("password", "")
    must_change = given.get("forceChangePasswordNextSignIn", False)
    if not isinstance(password, str) or not isinstance(must_change, bool | None):
        raise BadProperty(
            "Invalid value specified for property 'passwordProfile'.",
            cure="It has a password, and forceChangePasswordNextSignIn true or false.",
            target="passwordProfile",
        )
    return password, bool(must_change)


async def _create(
    call: Call, body: Body, passwords: directory.DirectorySettings = _PASSWORDS
) -> Created:
    await _least_privilege(call, body)
    password, must_change = _password(body)
    made = await directory.create_user(
        call.tx,
        directory.NewUser(
            user_principal_name=body["userPrincipalName"],
            display_name=body["displayName"],
            password=password,
            mail_nickname=body.get("mailNickname") or "",
            account_enabled=body.get("accountEnabled") is not False,
            usage_location=body.get("usageLocation"),
            profile={name: value for name, value in _profile(body).items() if value},
            must_change_password=must_change,
        ),
        call.now,
        passwords,
    )
    await licensing.reconcile(call.tx, call.now, [made.id])
    return Created(made.id)


async def _update(
    call: Call,
    key: str,
    body: Body,
    passwords: directory.DirectorySettings = _PASSWORDS,
) -> None:
    await _least_privilege(call, body)
    if body.keys() & _SENSITIVE:
        await guard_administrators(call, key)
    changes: dict[str, Any] = {_NAMES[name]: body[name] for name in body if name in _NAMES}
    for name in ("accountEnabled", "mailNickname", "userPrincipalName"):
        if name in body and body[name] in (None, ""):
            raise BadProperty(
                f"Invalid value specified for property '{name}': it cannot be empty.",
                cure="Leave it out, or send a value.",
                target=name,
            )
    if free := _profile(body):
        changes["profile"] = free
    password, must_change = _password(body)
    if "passwordProfile" in body:
        changes["must_change_password"] = must_change
    if changes:
        await directory.update_user(call.tx, key, changes, call.now)
    if password:
        await directory.set_password(call.tx, key, password, call.now, passwords)
    await licensing.reconcile(call.tx, call.now, [key])


async def _delete(call: Call, key: str) -> None:
    await _least_privilege(call, {"id": key})
    await guard_administrators(call, key)
    await directory.delete_user(call.tx, key, call.now)
    await licensing.reconcile(call.tx, call.now, [])


# What makes somebody else of a user, or lets somebody else be it.
_SENSITIVE = {
    "passwordProfile",
    "accountEnabled",
    "userPrincipalName",
    "mobilePhone",
    "otherMails",
    "businessPhones",
    "proxyAddresses",
    "mail",
}
# Roles that may change some properties of users only.
_NARROW = {
    directory.HELPDESK_ADMINISTRATOR: {"passwordProfile"},
    directory.LICENSE_ADMINISTRATOR: {"usageLocation"},
}


async def _least_privilege(call: Call, body: Body) -> None:
    if call.caller.sort != "user":
        return
    held = await directory.roles_of(call.tx, call.caller.object_id)
    if held & {directory.GLOBAL_ADMINISTRATOR, directory.USER_ADMINISTRATOR}:
        return
    allowed = {name for role in held for name in _NARROW.get(role, ())}
    if not body.keys() <= allowed:
        raise Forbidden(
            "Insufficient privileges to complete the operation: the roles of the signed-in user "
            f"allow to change {', '.join(sorted(allowed)) or 'nothing'} of users.",
            cure="Sign in as Global Administrator or User Administrator.",
        )


async def guard_administrators(call: Call, key: str) -> None:
    """Who resets an administrator's password becomes one: only a global administrator may."""
    if not await directory.roles_of(call.tx, key):
        return
    held = await directory.roles_of(call.tx, call.caller.object_id)
    if directory.GLOBAL_ADMINISTRATOR not in held:
        raise Forbidden(
            "Insufficient privileges to complete the operation: this user holds a directory role.",
            cure="Sign in as Global Administrator.",
        )


async def _managers(call: Call, key: str) -> Sequence[Ref]:
    found = await directory.manager(call.tx, key)
    return [Ref("user", found)] if found else []


async def _set_manager(call: Call, key: str, manager_id: str) -> None:
    await directory.set_manager(call.tx, key, manager_id)


async def _remove_manager(call: Call, key: str, manager_id: str) -> None:
    await directory.set_manager(call.tx, key, None)


async def _reports(call: Call, key: str) -> Sequence[Ref]:
    return [Ref("user", item) for item in await directory.reports(call.tx, key)]


async def owned_objects(call: Call, key: str) -> Sequence[Ref]:
    owned = await directory.owned_by(call.tx, key)
    known = await directory.sorts(call.tx, owned)
    objects = [Ref(item.sort, item.id) for item in known]
    others = set(owned) - {item.id for item in known}
    devices = [Ref("device", item) for item in await directory.devices_of(call.tx, key)]
    return [*objects, *(Ref("application", item) for item in sorted(others)), *devices]


async def _resolve(call: Call, name: str) -> str | None:
    found = await directory.find_user(call.tx, name)
    return found.id if found else None


async def member_of(call: Call, key: str) -> Sequence[Ref]:
    groups = [Ref("group", item) for item in await directory.direct_groups_of(call.tx, key)]
    roles = sorted(await directory.roles_of(call.tx, key))
    return [*groups, *(Ref("directoryRole", item) for item in roles)]


async def transitive_member_of(call: Call, key: str) -> Sequence[Ref]:
    groups = sorted(await directory.groups_of(call.tx, key))
    roles = sorted(await directory.roles_of(call.tx, key))
    return [Ref("group", item) for item in groups] + [Ref("directoryRole", item) for item in roles]


async def _devices(call: Call, key: str) -> Sequence[Ref]:
    return [Ref("device", item) for item in await directory.devices_of(call.tx, key)]


async def _seats(call: Call, rows: Sequence[Row]) -> dict[str, list[licensing.Seat]]:
    held: dict[str, list[licensing.Seat]] = {}
    for seat in await licensing.seats(call.tx, user_ids=[str(row["id"]) for row in rows]):
        held.setdefault(seat.user_id, []).append(seat)
    return held


async def _assigned_licences(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    """One entry a product: a plan is off when every assignment that stands has it off."""
    found: dict[str, Any] = {}
    for user_id, seats in (await _seats(call, rows)).items():
        off: dict[str, set[str]] = {}
        for seat in seats:
            if seat.active:
                disabled = set(seat.disabled_plans)
                off[seat.sku_id] = off.get(seat.sku_id, disabled) & disabled
        found[user_id] = [
            {"skuId": sku_id, "disabledPlans": sorted(plans)} for sku_id, plans in off.items()
        ]
    return found


async def _licence_states(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    return {
        user_id: [
            {
                "skuId": seat.sku_id,
                "disabledPlans": list(seat.disabled_plans),
                "assignedByGroup": seat.by_group,
                "state": "Active" if seat.active else "Error",
                "error": seat.error,
                "lastUpdatedDateTime": seat.updated_at,
            }
            for seat in seats
        ]
        for user_id, seats in (await _seats(call, rows)).items()
    }


async def _assigned_plans(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for user_id, seats in (await _seats(call, rows)).items():
        found[user_id] = [
            {
                "servicePlanId": plan.id,
                "service": plan.service,
                "capabilityStatus": "Enabled",
                "assignedDateTime": seat.updated_at,
            }
            for seat in seats
            if seat.active
            for plan in licensing.product(seat.sku_id).plans
            if plan.id not in seat.disabled_plans
        ]
    return found


async def _provisioned(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    return {
        user_id: [
            {
                "service": plan["service"],
                "capabilityStatus": "Enabled",
                "provisioningStatus": "Success",
            }
            for plan in plans
        ]
        for user_id, plans in (await _assigned_plans(call, rows)).items()
    }


def _free(name: str, *, shown: bool = True) -> Field:
    return Field(name, writable=True, shown=shown)


def _in_profile(name: str, initial: Any = None) -> Any:
    return lambda row: (row.get("profile") or {}).get(name, initial)


def _holds(name: str) -> Any:
    """`proxyAddresses/any(p:p eq 'smtp:…')`: one of the texts in this list."""
    texts = f"jsonb_array_elements_text(coalesce(u.profile->'{name}', '[]')) AS t (held)"
    return lambda _, bound: f"EXISTS (SELECT 1 FROM {texts} WHERE lower(held) = lower({bound}))"  # noqa: S608


def _identities(row: Row) -> list[dict[str, Any]]:
    upn = str(row.get("user_principal_name") or "")
    domain = upn.rpartition("@")[2]
    return [{"signInType": "userPrincipalName", "issuer": domain, "issuerAssignedId": upn}]


def _extension_attributes(row: Row) -> dict[str, Any]:
    held = (row.get("profile") or {}).get(_EXTENSIONS, {})
    names = [f"extensionAttribute{number}" for number in range(1, 16)]
    return {name: held.get(name) for name in names}


def security_identifier(row: Row) -> str:
    """The SID that Windows gives a directory object on joined devices: its id in four parts."""
    parts = struct.unpack("<4I", uuid.UUID(str(row["id"])).bytes_le)
    return "S-1-12-1-" + "-".join(str(part) for part in parts)


def _none(_: Row) -> None:
    return None


def _list_field(name: str, *, shown: bool = False) -> Field:
    return Field(
        name,
        collection=True,
        writable=True,
        shown=shown,
        value=_in_profile(name, []),
        needs=("profile",),
        has=_holds(name),
    )


USERS = Resource(
    path="users",
    type="user",
    rows=directory.USERS,
    read=permissions.USERS_READ,
    write=permissions.USERS_WRITE,
    create=_create,
    update=_update,
    delete=_delete,
    resolve=_resolve,
    alternate_keys={"userPrincipalName": "user_principal_name"},
    etag="version",
    tells_etag=False,
    fields=(
        Field("id", Primitive.GUID),
        _list_field("businessPhones", shown=True),
        Field("displayName", writable=True, required=True),
        Field("userPrincipalName", writable=True, required=True),
        *(_free(name) for name in _FREE),
        Field("accountEnabled", Primitive.BOOLEAN, writable=True, shown=False),
        Field("mailNickname", writable=True, shown=False),
        Field("usageLocation", writable=True, shown=False),
        Field("createdDateTime", Primitive.TIME, shown=False),
        Field("deletedDateTime", Primitive.TIME, value=_none, shown=False),
        Field("lastPasswordChangeDateTime", Primitive.TIME, shown=False),
        Field("signInSessionsValidFromDateTime", Primitive.TIME, shown=False),
        Field(
            "userType", writable=True, choices=("Member", "Guest"), initial="Member", shown=False
        ),
        Field("creationType", value=_none, shown=False),
        *(_free(name, shown=False) for name in _FREE_HIDDEN),
        _list_field("otherMails"),
        _list_field("proxyAddresses"),
        Field(
            "identities",
            Primitive.COMPLEX,
            collection=True,
            value=_identities,
            needs=("user_principal_name",),
            shown=False,
        ),
        Field("securityIdentifier", value=security_identifier, shown=False),
        Field("onPremisesSyncEnabled", Primitive.BOOLEAN, value=_none, shown=False),
        Field("onPremisesLastSyncDateTime", Primitive.TIME, value=_none, shown=False),
        Field(
            _EXTENSIONS,
            Primitive.COMPLEX,
            writable=True,
            value=_extension_attributes,
            needs=("profile",),
            shown=False,
        ),
        Field(
            "deviceEnrollmentLimit",
            Primitive.INTEGER,
            value=lambda _: _PASSWORDS.devices_per_user,
            shown=False,
        ),
        Field("passwordProfile", Primitive.COMPLEX, writable=True, readable=False, required=True),
        Field(
            "assignedLicenses",
            Primitive.COMPLEX,
            collection=True,
            shown=False,
            load=_assigned_licences,
            has=lambda member, bound: (
                licensing.holds_sku("u.id", bound) if member.lower() == "skuid" else "FALSE"
            ),
        ),
        Field(
            "licenseAssignmentStates",
            Primitive.COMPLEX,
            collection=True,
            shown=False,
            load=_licence_states,
        ),
        Field(
            "assignedPlans", Primitive.COMPLEX, collection=True, shown=False, load=_assigned_plans
        ),
        Field(
            "provisionedPlans", Primitive.COMPLEX, collection=True, shown=False, load=_provisioned
        ),
    ),
    navigations=(
        Navigation(
            "manager",
            _managers,
            permissions.USERS_READ,
            permissions.USERS_WRITE,
            _set_manager,
            _remove_manager,
            single=True,
            binds=True,
        ),
        Navigation("directReports", _reports, permissions.USERS_READ),
        Navigation("memberOf", member_of, permissions.USERS_READ),
        Navigation("transitiveMemberOf", transitive_member_of, permissions.USERS_READ),
        Navigation("ownedDevices", _devices, permissions.USERS_READ),
        Navigation("registeredDevices", _devices, permissions.USERS_READ),
        Navigation("ownedObjects", owned_objects, permissions.USERS_READ),
    ),
)


async def _licence_details(call: Call) -> Sequence[Row]:
    seats = await licensing.seats(call.tx, user_ids=[call.keys["user"]])
    active = {seat.sku_id: seat for seat in seats if seat.active}
    rows = []
    for seat in active.values():
        product = licensing.product(seat.sku_id)
        rows.append(
            {
                "id": f"{seat.user_id}_{seat.sku_id}",
                "sku_id": seat.sku_id,
                "sku_part_number": product.part_number,
                "service_plans": [
                    {
                        "servicePlanId": plan.id,
                        "servicePlanName": plan.name,
                        "provisioningStatus": "Disabled"
                        if plan.id in seat.disabled_plans
                        else "Success",
                        "appliesTo": "User",
                    }
                    for plan in product.plans
                ],
            }
        )
    return rows


LICENCE_DETAILS = Resource(
    path="users/{user}/licenseDetails",
    type="licenseDetails",
    key_is_guid=False,
    rows=_licence_details,
    read=permissions.USERS_READ,
    fields=(
        Field("id"),
        Field("skuId", Primitive.GUID),
        Field("skuPartNumber"),
        Field("servicePlans", Primitive.COMPLEX, collection=True),
    ),
)

_LICENCE_BODY = (
    Field("addLicenses", Primitive.COMPLEX, collection=True, writable=True),
    Field("removeLicenses", Primitive.GUID, collection=True, writable=True),
)


def _licence_changes(body: Body) -> tuple[list[licensing.Added], list[str]]:
    added = []
    for item in body.get("addLicenses", ()):
        plans, sku = item.get("disabledPlans") or [], item.get("skuId")
        if not isinstance(sku, str) or not isinstance(plans, list):
            raise _bad_licence()
        if not all(isinstance(plan, str) for plan in plans):
            raise _bad_licence()
        added.append(licensing.Added(sku, tuple(plans)))
    return added, list(body.get("removeLicenses", ()))


def _bad_licence() -> BadProperty:
    return BadProperty(
        "Invalid value specified for property 'addLicenses'.",
        cure="Each item has skuId and disabledPlans, a list of ids.",
        target="addLicenses",
    )


def _note_licences(call: Call, added: Sequence[licensing.Added], removed: Sequence[str]) -> None:
    call.note(
        changed=[
            *({"name": "licence", "old": None, "new": _words(item)} for item in added),
            *({"name": "licence", "old": sku, "new": None} for sku in removed),
        ]
    )


def _words(item: licensing.Added) -> dict[str, Any]:
    return {"skuId": item.sku, "disabledPlans": list(item.disabled_plans)}


async def _assign_to_user(call: Call, body: Body) -> Answer:
    key = call.keys["user"]
    await directory.user(call.tx, key)
    added, removed = _licence_changes(body)
    await licensing.change(call.tx, key, call.now, add=added, remove=removed)
    _note_licences(call, added, removed)
    return Entity("user", key)


async def _assign_to_group(call: Call, body: Body, later: licensing.Later | None = None) -> Answer:
    key = call.keys["group"]
    await directory.group(call.tx, key)
    added, removed = _licence_changes(body)
    await licensing.change(call.tx, key, call.now, add=added, remove=removed, later=later)
    _note_licences(call, added, removed)
    return Entity("group", key, status=202)


async def _reprocess(call: Call, body: Body) -> Answer:
    key = call.keys["user"]
    await directory.user(call.tx, key)
    await licensing.reconcile(call.tx, call.now, [key])
    return Entity("user", key)


async def _revoke_sessions(call: Call, body: Body) -> Answer:
    key = call.keys["user"]
    if key != call.caller.object_id:
        await guard_administrators(call, key)
    await directory.end_sessions(call.tx, key, call.now)
    return Value({"value": True})


async def _change_password(
    call: Call, body: Body, passwords: directory.DirectorySettings = _PASSWORDS
) -> Answer:
    key = call.keys["user"]
    if key != call.caller.object_id:
        raise Forbidden(
            "Insufficient privileges to complete the operation: a password is changed by its "
            "owner; an administrator sets passwordProfile.",
            cure="PATCH /users/{id} with passwordProfile.",
        )
    user = await directory.user(call.tx, key)
    checked = await directory.authenticate(
        call.tx, user.user_principal_name, body["currentPassword"], call.now, passwords
    )
    if isinstance(checked, AppError):
        # Answered and not raised: the wrong password is counted in this transaction.
        message = f"The specified password does not match. {checked.message} {checked.cure}"
        return Value({"error": {"code": "Request_BadRequest", "message": message}}, status=400)
    await directory.set_password(call.tx, key, body["newPassword"], call.now, passwords)
    return None


def users(
    passwords: directory.DirectorySettings = _PASSWORDS, later: licensing.Later | None = None
) -> Part:
    resource = replace(
        USERS,
        create=partial(_create, passwords=passwords),
        update=partial(_update, passwords=passwords),
    )
    return Part(
        (resource, LICENCE_DETAILS),
        (
            Action(
                "users/{user}/assignLicense",
                _assign_to_user,
                permissions.LICENCES_WRITE,
                body=_LICENCE_BODY,
            ),
            Action(
                "groups/{group}/assignLicense",
                partial(_assign_to_group, later=later),
                permissions.LICENCES_WRITE,
                body=_LICENCE_BODY,
            ),
            Action(
                "users/{user}/reprocessLicenseAssignment",
                _reprocess,
                permissions.LICENCES_WRITE,
                open=True,
            ),
            Action(
                "users/{user}/revokeSignInSessions",
                _revoke_sessions,
                permissions.SESSIONS_WRITE,
                open=True,
            ),
            Action(
                "users/{user}/changePassword",
                partial(_change_password, passwords=passwords),
                permissions.OWN_PASSWORD,
                body=(
                    Field("currentPassword", writable=True, required=True),
                    Field("newPassword", writable=True, required=True),
                ),
            ),
        ),
    )
