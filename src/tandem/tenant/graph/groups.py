"""Groups, their members and their licences."""

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
    Field,
    Forbidden,
    Navigation,
    Part,
    Ref,
    Resource,
    Value,
)
from tandem.tenant.graph.users import member_of, security_identifier, transitive_member_of

_NAMES = {
    "displayName": "display_name",
    "description": "description",
    "mailNickname": "mail_nickname",
    "groupTypes": "group_types",
    "membershipRule": "membership_rule",
    "membershipRuleProcessingState": "rule_processing",
    "mailEnabled": "mail_enabled",
    "securityEnabled": "security_enabled",
    "isAssignableToRole": "is_assignable_to_role",
    "visibility": "visibility",
}
# Kept and given back.
_KEPT = ("uniqueName", "classification", "theme", "preferredDataLocation")
_KEPT_LISTS = ("resourceBehaviorOptions", "resourceProvisioningOptions", "creationOptions")
_TYPES = {"unified": "Unified", "dynamicmembership": directory.DYNAMIC}
_LONGEST_TEXT = 1024


def _values(body: Body) -> dict[str, Any]:
    """Fields of Group from a body of Graph; those that are null and cannot be are left out."""
    values = {_NAMES[name]: value for name, value in body.items() if name in _NAMES}
    for name in ("mail_nickname", "mail_enabled", "security_enabled", "is_assignable_to_role"):
        if name in values and values[name] is None:
            del values[name]
    for name in ("description", "mailNickname", *_KEPT):
        if len(str(body.get(name) or "")) > _LONGEST_TEXT:
            raise _wrong(name, "it is too long")
    if "group_types" in values:
        types = values["group_types"] or []
        unknown = [item for item in types if item.lower() not in _TYPES]
        if unknown:
            raise _wrong("groupTypes", f"{unknown[0]} is not one of {', '.join(_TYPES.values())}")
        values["group_types"] = tuple(_TYPES[item.lower()] for item in types)
    if values.get("mail_enabled") and "Unified" not in (values.get("group_types") or ()):
        raise _wrong("mailEnabled", "there is no mail here for groups that are not Unified")
    if values.get("membership_rule") and "rule_processing" not in values:
        values["rule_processing"] = "On"
    kept = {name: body[name] for name in (*_KEPT, *_KEPT_LISTS) if name in body}
    if kept:
        values["profile"] = kept
    return values


def _wrong(name: str, reason: str) -> BadProperty:
    return BadProperty(
        f"Invalid value specified for property '{name}': {reason}.",
        cure="Correct it and send it again.",
        target=name,
    )


async def _create(call: Call, body: Body) -> Created:
    if body.get("isAssignableToRole"):
        await guard_roles(call)
    values = _values(body)
    made = await directory.create_group(
        call.tx,
        values.pop("display_name"),
        call.now,
        description=values.pop("description", None),
        mail_nickname=values.pop("mail_nickname", None) or "",
        **values,
    )
    return Created(made.id)


async def _update(call: Call, key: str, body: Body) -> None:
    await _guard(call, key)
    if changes := _values(body):
        before = await _licensed_members(call, key) if "membership_rule" in changes else []
        await directory.update_group(call.tx, key, changes)
        if "membership_rule" in changes or "rule_processing" in changes:
            after = await _licensed_members(call, key)
            await licensing.reconcile(call.tx, call.now, [*{*before, *after}])


async def _licensed_members(call: Call, key: str) -> list[str]:
    """Users whose licences may change with the group: nobody's, if it brings none."""
    above = {key, *await directory.groups_of(call.tx, key)}
    holders = {item.holder_id for item in await licensing.assignments(call.tx)}
    if not holders & above:
        return []
    return [m.id for m in await directory.all_members(call.tx, key) if m.sort == "user"]


async def _delete(call: Call, key: str) -> None:
    await _guard(call, key)
    concerned = await _licensed_members(call, key)
    await directory.delete_group(call.tx, key, call.now)
    await licensing.reconcile(call.tx, call.now, concerned)


async def _guard(call: Call, key: str) -> None:
    """Who decides about the members of a group that holds roles gives these roles."""
    if (await directory.group(call.tx, key)).is_assignable_to_role:
        await guard_roles(call)


async def guard_roles(call: Call) -> None:
    caller = call.caller
    if caller.sort == "app" and "RoleManagement.ReadWrite.Directory" in caller.app_roles:
        return
    if not await directory.roles_of(call.tx, caller.object_id) & directory.PRIVILEGED:
        raise Forbidden(
            "Insufficient privileges to complete the operation: this group can hold directory "
            "roles.",
            cure="Sign in as Global Administrator or Privileged Role Administrator.",
        )


async def _add(call: Call, key: str, member: str, later: licensing.Later | None = None) -> None:
    await _guard(call, key)
    await directory.add_member(call.tx, key, member)
    await licensing.member_changed(call.tx, key, member.lower(), call.now, later)


async def _remove(call: Call, key: str, member: str, later: licensing.Later | None = None) -> None:
    await _guard(call, key)
    await directory.remove_member(call.tx, key, member)
    await licensing.member_changed(call.tx, key, member.lower(), call.now, later)


async def _owners(call: Call, key: str) -> Sequence[Ref]:
    return [Ref(item.sort, item.id) for item in await directory.owners(call.tx, key)]


async def _add_owner(call: Call, key: str, owner: str) -> None:
    await _guard(call, key)
    await directory.add_owner(call.tx, key, owner)


async def _remove_owner(call: Call, key: str, owner: str) -> None:
    await _guard(call, key)
    await directory.remove_owner(call.tx, key, owner)


async def _members(call: Call, key: str) -> Sequence[Ref]:
    return [Ref(item.sort, item.id) for item in await directory.members(call.tx, key)]


async def _all_members(call: Call, key: str) -> Sequence[Ref]:
    return [Ref(item.sort, item.id) for item in await directory.all_members(call.tx, key)]


async def _assigned(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for item in await licensing.assignments(call.tx):
        licence = {"skuId": item.sku_id, "disabledPlans": list(item.disabled_plans)}
        found.setdefault(item.holder_id, []).append(licence)
    return found


async def _failed(call: Call, key: str) -> Sequence[Ref]:
    seats = await licensing.seats(call.tx, holder_id=key)
    return [Ref("user", seat.user_id) for seat in seats if not seat.active]


_STATES = {
    licensing.RunState.QUEUED: "QueuedForProcessing",
    licensing.RunState.RUNNING: "ProcessingInProgress",
    licensing.RunState.DONE: "ProcessingComplete",
}


async def _licence_state(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    runs = await licensing.newest_runs(call.tx, [str(row["id"]) for row in rows])
    return {run.group_id: {"state": _STATES[run.state]} for run in runs}


async def _failures(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    found = {}
    for row in rows:
        seats = await licensing.seats(call.tx, holder_id=str(row["id"]))
        found[str(row["id"])] = any(not seat.active for seat in seats)
    return found


def _kept(name: str, initial: Any = None) -> Any:
    return lambda row: (row.get("profile") or {}).get(name, initial)


def _has_type(_: str, bound: str) -> str:
    return f"lower({bound}) = ANY(SELECT lower(t) FROM unnest(g.group_types) t)"  # noqa: S608


def _none(name: str, primitive: Primitive = Primitive.STRING) -> Field:
    return Field(name, primitive, value=lambda _: None)


GROUPS = Resource(
    path="groups",
    type="group",
    rows=directory.GROUPS,
    read=permissions.GROUPS_READ,
    write=permissions.GROUPS_WRITE,
    create=_create,
    update=_update,
    delete=_delete,
    alternate_keys={"uniqueName": "unique_name"},
    etag="version",
    tells_etag=False,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName", writable=True, required=True),
        Field("description", writable=True),
        Field("mailNickname", writable=True),
        Field("mailEnabled", Primitive.BOOLEAN, writable=True),
        Field("securityEnabled", Primitive.BOOLEAN, writable=True),
        Field("groupTypes", collection=True, writable=True, has=_has_type),
        Field("membershipRule", writable=True),
        Field("membershipRuleProcessingState", writable=True, choices=("On", "Paused")),
        Field("isAssignableToRole", Primitive.BOOLEAN, writable=True),
        Field("visibility", writable=True, choices=("Public", "Private", "HiddenMembership")),
        Field("uniqueName", writable=True),
        *(
            Field(name, writable=True, value=_kept(name), needs=("profile",))
            for name in _KEPT
            if name != "uniqueName"
        ),
        *(
            Field(name, collection=True, writable=True, value=_kept(name, []), needs=("profile",))
            for name in _KEPT_LISTS
        ),
        _none("mail"),
        Field("proxyAddresses", collection=True, value=lambda _: []),
        Field("securityIdentifier", value=security_identifier),
        Field("createdDateTime", Primitive.TIME),
        Field("renewedDateTime", Primitive.TIME, column="created_date_time"),
        _none("deletedDateTime", Primitive.TIME),
        _none("expirationDateTime", Primitive.TIME),
        _none("onPremisesSyncEnabled", Primitive.BOOLEAN),
        _none("onPremisesLastSyncDateTime", Primitive.TIME),
        _none("onPremisesDomainName"),
        _none("onPremisesNetBiosName"),
        _none("onPremisesSamAccountName"),
        _none("onPremisesSecurityIdentifier"),
        Field("onPremisesProvisioningErrors", collection=True, value=lambda _: []),
        Field("assignedLicenses", Primitive.COMPLEX, collection=True, shown=False, load=_assigned),
        Field("licenseProcessingState", Primitive.COMPLEX, shown=False, load=_licence_state),
        Field("hasMembersWithLicenseErrors", Primitive.BOOLEAN, shown=False, load=_failures),
    ),
    navigations=(
        Navigation(
            "members",
            _members,
            permissions.GROUPS_READ,
            permissions.MEMBERS_WRITE,
            _add,
            _remove,
            binds=True,
        ),
        Navigation("transitiveMembers", _all_members, permissions.GROUPS_READ),
        Navigation("memberOf", member_of, permissions.GROUPS_READ),
        Navigation("transitiveMemberOf", transitive_member_of, permissions.GROUPS_READ),
        Navigation(
            "owners",
            _owners,
            permissions.GROUPS_READ,
            permissions.GROUPS_WRITE,
            _add_owner,
            _remove_owner,
            binds=True,
        ),
        Navigation("membersWithLicenseErrors", _failed, permissions.GROUPS_READ),
    ),
)


async def _preview(call: Call, body: Body) -> Answer:
    """Whom a rule would bring into a group, or what is wrong with it."""
    found = await directory.preview_rule(call.tx, body["membershipRule"])
    return Value(
        {
            "memberType": found.sort,
            "count": found.total,
            "first": [{"id": key, "displayName": name} for key, name in found.first],
        }
    )


def groups(later: licensing.Later | None = None) -> Part:
    members, *others = GROUPS.navigations
    members = replace(members, add=partial(_add, later=later), remove=partial(_remove, later=later))
    resource = replace(
        GROUPS,
        navigations=(members, *others),
    )
    return Part(
        (resource,),
        (
            Action(
                "tandem/membershipRule",
                _preview,
                # Whoever may try conditions on users learns what users are like.
                permissions.USERS_READ,
                body=(Field("membershipRule", writable=True, required=True),),
                asks=True,
            ),
        ),
    )
