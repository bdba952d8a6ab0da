"""What was deleted and can be restored for 30 days: users, groups and applications."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, licensing
from tandem.tenant.graph import permissions
from tandem.tenant.graph.groups import guard_roles
from tandem.tenant.graph.model import Action, Answer, Body, Call, Entity, Field, Part, Resource
from tandem.tenant.graph.users import guard_administrators
from tandem.tenant.oidc import applications

_PATH = "directory/deletedItems"


def _of(name: str, initial: Any = None) -> Callable[[Row], Any]:
    """A property that was in the row, or among its free ones."""
    return lambda row: row["kept"]["row"].get(name, initial)


def _free(name: str) -> Callable[[Row], Any]:
    return lambda row: row["kept"]["row"].get("profile", {}).get(name)


_COMMON = (
    Field("id", Primitive.GUID),
    Field("deletedDateTime", Primitive.TIME),
    Field("displayName"),
)
_KEPT: Mapping[str, Any] = {"needs": ("kept",)}
_FIELDS: dict[str, tuple[Field, ...]] = {
    "user": (
        Field("userPrincipalName"),
        Field("mail"),
        Field("mailNickname"),
        Field("accountEnabled", Primitive.BOOLEAN, value=_of("account_enabled"), **_KEPT),
        Field("usageLocation", value=_of("usage_location"), **_KEPT),
        Field("createdDateTime", Primitive.TIME, value=_of("created_at"), **_KEPT),
        *(
            Field(name, value=_free(name), **_KEPT)
            for name in ("givenName", "surname", "jobTitle", "department", "mobilePhone")
        ),
    ),
    "group": (
        Field("mailNickname"),
        Field("description", value=_of("description"), **_KEPT),
        Field("mailEnabled", Primitive.BOOLEAN, value=_of("mail_enabled"), **_KEPT),
        Field("securityEnabled", Primitive.BOOLEAN, value=_of("security_enabled"), **_KEPT),
        Field("groupTypes", collection=True, value=_of("group_types", []), **_KEPT),
        Field("createdDateTime", Primitive.TIME, value=_of("created_at"), **_KEPT),
    ),
    "application": (
        Field("appId", Primitive.GUID),
        Field("identifierUris", collection=True, value=_of("identifier_uris", []), **_KEPT),
        Field("createdDateTime", Primitive.TIME, value=_of("created_at"), **_KEPT),
    ),
}


async def _purge(call: Call, key: str) -> None:
    item, _ = await directory.deleted(call.tx, key)
    await _guard(call, item)
    await directory.purge(call.tx, key)
    call.note(activity=f"Hard delete {item.sort}", name=item.display_name, type=item.sort)


async def _guard(call: Call, item: directory.Deleted) -> None:
    """An administrator, or a group that holds roles, comes back as what it was."""
    roles = await directory.roles_of(call.tx, item.id)
    if item.sort == "user":
        await guard_administrators(call, item.id)
    elif roles:
        await guard_roles(call)


async def _restore(call: Call, body: Body) -> Answer:
    key = call.keys["deletedItem"]
    item, _ = await directory.deleted(call.tx, key)
    await _guard(call, item)
    if item.sort == "application":
        await applications.restore_application(call.tx, item.id)
    else:
        await directory.restore(call.tx, item.id)
    users = [item.id] if item.sort == "user" else []
    if item.sort == "group":
        inside = await directory.all_members(call.tx, item.id)
        users = [member.id for member in inside if member.sort == "user"]
    await licensing.reconcile(call.tx, call.now, users)
    call.note(activity=f"Restore {item.sort}", name=item.display_name, type=item.sort)
    return Entity(item.sort, item.id)


ITEMS = Resource(
    path=_PATH,
    type="deletedItem",
    rows=directory.DELETED,
    read=permissions.OBJECTS_READ,
    write=permissions.DELETED_WRITE,
    delete=_purge,
    type_column="sort",
    bases=dict.fromkeys(_FIELDS, "deletedItem"),
    fields=_COMMON,
)


def _typed(sort: str) -> Resource:
    """`directory/deletedItems/microsoft.graph.user`: the cast is a collection of its own."""
    return replace(
        ITEMS,
        path=f"{_PATH}/{sort}",
        type=f"deleted{sort.capitalize()}",
        scope=lambda _: ("x.sort = %(deleted_sort)s", {"deleted_sort": sort}),
        type_column="",
        bases={},
        delete=None,
        fields=(*_COMMON, *_FIELDS[sort]),
    )


def deleted_items() -> Part:
    restore = Action(
        f"{_PATH}/{{deletedItem}}/restore", _restore, permissions.DELETED_WRITE, open=True
    )
    return Part((ITEMS, *(_typed(sort) for sort in _FIELDS)), (restore,))
