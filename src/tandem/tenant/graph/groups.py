"""Groups, their members and their licences."""

from collections.abc import Mapping, Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, licensing
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import Body, Call, Created, Field, Navigation, Part, Ref, Resource
from tandem.tenant.graph.users import member_of

_NAMES = {
    "displayName": "display_name",
    "description": "description",
    "mailNickname": "mail_nickname",
}


class DynamicGroups(directory.BadValue):
    code = "graph.dynamic-groups"


async def _create(call: Call, body: Body) -> Created:
    if "DynamicMembership" in (body.get("groupTypes") or ()) or body.get("membershipRule"):
        raise DynamicGroups(
            "Groups whose members a rule decides are not served here.",
            cure="Create a group without groupTypes and add members.",
        )
    made = await directory.create_group(
        call.tx,
        body["displayName"],
        call.now,
        description=body.get("description"),
        mail_nickname=body.get("mailNickname") or "",
    )
    return Created(made.id)


async def _update(call: Call, key: str, body: Body) -> None:
    changes = {_NAMES[name]: value for name, value in body.items() if name in _NAMES}
    if changes.get("mail_nickname", "") is None:
        del changes["mail_nickname"]
    if changes:
        await directory.update_group(call.tx, key, changes)


async def _delete(call: Call, key: str) -> None:
    await directory.delete_group(call.tx, key)
    await licensing.reconcile(call.tx, call.now)


async def _add(call: Call, key: str, member: str) -> None:
    await directory.add_member(call.tx, key, member)
    await licensing.members_changed(call.tx, key, call.now)


async def _remove(call: Call, key: str, member: str) -> None:
    await directory.remove_member(call.tx, key, member)
    await licensing.members_changed(call.tx, key, call.now)


async def _members(call: Call, key: str) -> Sequence[Ref]:
    return [Ref(item.sort, item.id) for item in await directory.members(call.tx, key)]


async def _all_members(call: Call, key: str) -> Sequence[Ref]:
    return [Ref(item.sort, item.id) for item in await directory.all_members(call.tx, key)]


async def _no_owners(call: Call, key: str) -> Sequence[Ref]:
    return []


async def _assigned(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for item in await licensing.assignments(call.tx):
        licence = {"skuId": item.sku_id, "disabledPlans": list(item.disabled_plans)}
        found.setdefault(item.holder_id, []).append(licence)
    return found


async def _failed(call: Call, key: str) -> Sequence[Ref]:
    seats = await licensing.seats(call.tx, holder_id=key)
    return [Ref("user", seat.user_id) for seat in seats if not seat.active]


GROUPS = Resource(
    path="groups",
    type="group",
    rows=directory.GROUPS,
    read=permissions.GROUPS_READ,
    write=permissions.GROUPS_WRITE,
    create=_create,
    update=_update,
    delete=_delete,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName", writable=True, required=True),
        Field("description", writable=True),
        Field("mailNickname", writable=True),
        Field("mailEnabled", Primitive.BOOLEAN, writable=True, value=lambda _: False),
        Field("securityEnabled", Primitive.BOOLEAN, writable=True, value=lambda _: True),
        Field("groupTypes", collection=True, writable=True, value=lambda _: []),
        Field("membershipRule", writable=True, value=lambda _: None),
        Field("membershipRuleProcessingState", writable=True, value=lambda _: None),
        Field("isAssignableToRole", Primitive.BOOLEAN, writable=True, value=lambda _: False),
        Field("visibility", writable=True, value=lambda _: None),
        Field("mail", value=lambda _: None),
        Field("createdDateTime", Primitive.TIME),
        Field("onPremisesSyncEnabled", Primitive.BOOLEAN, value=lambda _: None),
        Field("assignedLicenses", Primitive.COMPLEX, collection=True, shown=False, load=_assigned),
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
        Navigation("owners", _no_owners, permissions.GROUPS_READ),
        Navigation("membersWithLicenseErrors", _failed, permissions.GROUPS_READ),
    ),
)


def groups() -> Part:
    return Part((GROUPS,))
