"""Directory objects of any type: by id, many by their ids, and what contains them."""

from collections.abc import Sequence

from tandem.protocols.odata import Primitive
from tandem.tenant import directory
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    Access,
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Field,
    Objects,
    Part,
    Ref,
    Value,
    missing,
)

_MOST_IDS = 1000
_MOST_CHECKED = 20
_KINDS: dict[str, Access] = {
    "users/{user}": permissions.USERS_READ,
    "groups/{group}": permissions.GROUPS_READ,
    "devices/{device}": permissions.DEVICES_READ,
    "servicePrincipals/{servicePrincipal}": permissions.APPLICATIONS_READ,
    "directoryObjects/{directoryObject}": permissions.OBJECTS_READ,
}


def _few(ids: Sequence[str], most: int, name: str) -> None:
    if len(ids) > most:
        raise BadProperty(
            f"Too many values for '{name}'.", cure=f"Send at most {most} at once.", target=name
        )


async def _here(call: Call) -> str:
    key = next(reversed(call.keys.values()))
    if await directory.sort_of(call.tx, key) is None:
        raise missing(key)
    return key


async def _groups(call: Call, body: Body) -> list[str]:
    key = await _here(call)
    found = sorted(await directory.groups_of(call.tx, key))
    if not body.get("securityEnabledOnly"):
        return found
    return [item for item in found if (await directory.group(call.tx, item)).security_enabled]


async def _member_groups(call: Call, body: Body) -> Answer:
    return Value(await _groups(call, body))


async def _member_objects(call: Call, body: Body) -> Answer:
    groups = await _groups(call, body)
    return Value([*groups, *sorted(await directory.roles_of(call.tx, await _here(call)))])


async def _check_groups(call: Call, body: Body) -> Answer:
    _few(body["groupIds"], _MOST_CHECKED, "groupIds")
    held = await directory.groups_of(call.tx, await _here(call))
    return Value([item for item in body["groupIds"] if item in held])


async def _check_objects(call: Call, body: Body) -> Answer:
    _few(body["ids"], _MOST_CHECKED, "ids")
    key = await _here(call)
    held = await directory.groups_of(call.tx, key) | await directory.roles_of(call.tx, key)
    return Value([item for item in body["ids"] if item in held])


async def _by_ids(call: Call, body: Body) -> Answer:
    _few(body["ids"], _MOST_IDS, "ids")
    types = {item.lower() for item in body.get("types") or ()} - {"directoryobject"}
    return Objects(
        [
            Ref(item.sort, item.id)
            for item in await directory.sorts(call.tx, body["ids"])
            if not types or item.sort.lower() in types
        ]
    )


async def _one(call: Call, body: Body) -> Answer:
    found = await directory.sorts(call.tx, [call.keys["directoryObject"]])
    return Objects([Ref(item.sort, item.id) for item in found], single=True)


_ONLY_SECURITY = (Field("securityEnabledOnly", Primitive.BOOLEAN, writable=True),)
_IDS = Field("ids", Primitive.GUID, collection=True, writable=True, required=True)
_GROUP_IDS = Field("groupIds", Primitive.GUID, collection=True, writable=True, required=True)


def directory_objects() -> Part:
    actions = [
        Action("directoryObjects/{directoryObject}", _one, permissions.OBJECTS_READ, method="GET"),
        Action(
            "directoryObjects/getByIds",
            _by_ids,
            permissions.OBJECTS_READ,
            body=(_IDS, Field("types", collection=True, writable=True)),
            asks=True,
        ),
    ]
    for path, access in _KINDS.items():
        actions += [
            Action(
                f"{path}/getMemberGroups", _member_groups, access, body=_ONLY_SECURITY, asks=True
            ),
            Action(
                f"{path}/getMemberObjects", _member_objects, access, body=_ONLY_SECURITY, asks=True
            ),
            Action(
                f"{path}/checkMemberGroups", _check_groups, access, body=(_GROUP_IDS,), asks=True
            ),
            Action(f"{path}/checkMemberObjects", _check_objects, access, body=(_IDS,), asks=True),
        ]
    return Part((), tuple(actions))
