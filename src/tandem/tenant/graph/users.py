"""Users, and what belongs to one: groups, licences, devices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

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

_FREE = (
    "givenName",
    "surname",
    "mail",
    "jobTitle",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
)
_FREE_HIDDEN = (
    "department",
    "companyName",
    "employeeId",
    "city",
    "country",
    "onPremisesSecurityIdentifier",
    "onPremisesSamAccountName",
)
_NAMES = {
    "displayName": "display_name",
    "userPrincipalName": "user_principal_name",
    "accountEnabled": "account_enabled",
    "mailNickname": "mail_nickname",
    "usageLocation": "usage_location",
}


_PASSWORDS = directory.DirectorySettings()


async def _create(
    call: Call, body: Body, passwords: directory.DirectorySettings = _PASSWORDS
) -> Created:
    password = (body.get("passwordProfile") or {}).get("password", "")
    made = await directory.create_user(
        call.tx,
        directory.NewUser(
            user_principal_name=body["userPrincipalName"],
            display_name=body["displayName"],
            password=password,
            mail_nickname=body.get("mailNickname") or "",
            account_enabled=body.get("accountEnabled") is not False,
            usage_location=body.get("usageLocation"),
            profile={
                name: body[name]
                for name in (*_FREE, *_FREE_HIDDEN, "businessPhones")
                if body.get(name) is not None
            },
        ),
        call.now,
        passwords,
    )
    return Created(made.id)


async def _update(
    call: Call,
    key: str,
    body: Body,
    passwords: directory.DirectorySettings = _PASSWORDS,
) -> None:
    await _guard_administrators(call, key, body)
    changes: dict[str, Any] = {_NAMES[name]: body[name] for name in body if name in _NAMES}
    for name in ("accountEnabled", "mailNickname", "userPrincipalName"):
        if name in body and body[name] in (None, ""):
            raise BadProperty(
                f"Invalid value specified for property '{name}': it cannot be empty.",
                cure="Leave it out, or send a value.",
                target=name,
            )
    free = {name: body[name] for name in (*_FREE, *_FREE_HIDDEN, "businessPhones") if name in body}
    if free:
        changes["profile"] = free
    if changes:
        await directory.update_user(call.tx, key, changes, call.now)
    password = (body.get("passwordProfile") or {}).get("password")
    if password:
        await directory.set_password(call.tx, key, password, call.now, passwords)
    if "usage_location" in changes:
        await licensing.reconcile(call.tx, call.now)


async def _delete(call: Call, key: str) -> None:
    await _guard_administrators(call, key, {"accountEnabled": False})
    await directory.delete_user(call.tx, key)


async def _guard_administrators(call: Call, key: str, body: Body) -> None:
    """Who resets an administrator's password becomes one: only a global administrator may."""
    if not body.keys() & {"passwordProfile", "accountEnabled", "userPrincipalName"}:
        return
    if not await directory.roles_of(call.tx, key):
        return
    held = await directory.roles_of(call.tx, call.caller.object_id)
    if directory.GLOBAL_ADMINISTRATOR not in held:
        raise Forbidden(
            "Insufficient privileges to complete the operation: this user holds a directory role.",
            cure="Sign in as Global Administrator.",
        )


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
    found: dict[str, Any] = {}
    for user_id, seats in (await _seats(call, rows)).items():
        active = {seat.sku_id: seat for seat in seats if seat.active}
        found[user_id] = [
            {"skuId": seat.sku_id, "disabledPlans": list(seat.disabled_plans)}
            for seat in active.values()
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


def _free(name: str, *, shown: bool = True) -> Field:
    return Field(name, writable=True, shown=shown)


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
    fields=(
        Field("id", Primitive.GUID),
        Field(
            "businessPhones",
            collection=True,
            writable=True,
            value=lambda row: (row.get("profile") or {}).get("businessPhones", []),
            needs=("profile",),
        ),
        Field("displayName", writable=True, required=True),
        Field("userPrincipalName", writable=True, required=True),
        *(_free(name) for name in _FREE),
        Field("accountEnabled", Primitive.BOOLEAN, writable=True, shown=False),
        Field("mailNickname", writable=True, shown=False),
        Field("usageLocation", writable=True, shown=False),
        Field("createdDateTime", Primitive.TIME, shown=False),
        Field("lastPasswordChangeDateTime", Primitive.TIME, shown=False),
        Field("signInSessionsValidFromDateTime", Primitive.TIME, shown=False),
        Field("userType", value=lambda _: "Member", shown=False),
        Field("onPremisesSyncEnabled", Primitive.BOOLEAN, value=lambda _: None, shown=False),
        Field("onPremisesDomainName", value=lambda _: None, shown=False),
        Field("onPremisesDistinguishedName", value=lambda _: None, shown=False),
        *(_free(name, shown=False) for name in _FREE_HIDDEN),
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
    ),
    navigations=(
        Navigation("memberOf", member_of, permissions.USERS_READ),
        Navigation("transitiveMemberOf", transitive_member_of, permissions.USERS_READ),
        Navigation("ownedDevices", _devices, permissions.USERS_READ),
        Navigation("registeredDevices", _devices, permissions.USERS_READ),
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


async def change_licences(call: Call, holder_id: str, body: Body) -> None:
    for sku in body.get("removeLicenses", ()):
        await licensing.unassign(call.tx, sku, holder_id, call.now)
    for item in body.get("addLicenses", ()):
        plans = [str(plan).lower() for plan in item.get("disabledPlans") or ()]
        sku = str(item.get("skuId", ""))
        await licensing.assign(call.tx, sku, holder_id, call.now, plans)


async def _assign_to_user(call: Call, body: Body) -> Answer:
    await change_licences(call, call.keys["user"], body)
    return Entity("user", call.keys["user"])


async def _assign_to_group(call: Call, body: Body) -> Answer:
    await change_licences(call, call.keys["group"], body)
    return Entity("group", call.keys["group"], status=202)


async def _member_groups(call: Call, body: Body) -> Answer:
    key = call.keys.get("user") or call.keys.get("device") or call.keys.get("group") or ""
    return Value(sorted(await directory.groups_of(call.tx, key)))


def users(passwords: directory.DirectorySettings = _PASSWORDS) -> Part:
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
                _assign_to_group,
                permissions.LICENCES_WRITE,
                body=_LICENCE_BODY,
            ),
            Action(
                "users/{user}/getMemberGroups",
                _member_groups,
                permissions.USERS_READ,
                open=True,
            ),
        ),
    )
