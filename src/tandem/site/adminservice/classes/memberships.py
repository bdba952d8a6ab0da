"""Who is in which collection: computed when somebody asks, filtered and paged in the database."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tandem.protocols import odata
from tandem.protocols.odata import Primitive
from tandem.site import collections
from tandem.site.adminservice.classes import devices
from tandem.site.adminservice.model import Call, Class, Navigation, Property


def _asked(condition: odata.Expression | None) -> str | None:
    """The one collection that a condition is about, if it is about one."""
    match condition:
        case odata.Compare("eq", odata.Path((name,)), odata.Literal(str(value))) if (
            name.lower() == "collectionid"
        ):
            return value
        case odata.And(items):
            return next((found for item in items if (found := _asked(item)) is not None), None)
    return None


async def _from(call: Call, ids: list[collections.CollectionId]) -> tuple[str, Mapping[str, Any]]:
    members, parameters = await collections.memberships_sql(call.tx, ids)
    return (
        f"({members}) m JOIN collections_resource r ON r.id = m.resource_id"
        " LEFT JOIN clients_client c ON c.id = r.client_id",
        parameters,
    )


async def _everywhere(
    call: Call, condition: odata.Expression | None
) -> tuple[str, Mapping[str, Any]]:
    only = await collections.visible(call.tx)
    every = [
        item.id
        for item in await collections.collections(call.tx)
        if only is None or item.id in only
    ]
    asked = _asked(condition)
    if asked is not None:
        every = [id for id in every if id.lower() == asked.lower()]
    return await _from(call, every)


_DIRECT = Property("IsDirect", Primitive.BOOLEAN, sql="m.is_direct")
_KEYS = (
    Property("CollectionID", sql="m.collection_id"),
    Property("ResourceID", Primitive.INTEGER, sql="m.resource_id"),
    Property("ResourceType", Primitive.INTEGER, sql="5"),
)
_OF_MEMBERS = {"Name", "SMSID", "SiteCode", "IsClient", "IsActive", "IsApproved", "IsBlocked"}
_MEMBER = tuple(item for item in devices.COMBINED.properties if item.name in _OF_MEMBERS)

FULL = Class(
    surface="wmi",
    name="SMS_FullCollectionMembership",
    key=("CollectionID", "ResourceID"),
    properties=(*_KEYS, *_MEMBER, _DIRECT),
    origin=_everywhere,
    narrowed=True,
    superclass="SMS_CollectionMember",
)
MEMBERSHIP = Class(
    surface="v1.0",
    name="ResourceCollectionMembership",
    key=("CollectionID", "ResourceID"),
    properties=(*_KEYS, *_MEMBER, _DIRECT),
    origin=_everywhere,
    narrowed=True,
    navigations=(Navigation("Collection", "Collections", "CollectionID"),),
)


def of(collection_id: str) -> Class:
    """SMS_CM_RES_COLL_…, the class of one collection's members: its MemberClassName."""

    async def members(call: Call, _: odata.Expression | None) -> tuple[str, Mapping[str, Any]]:
        return await _from(call, [(await collections.collection(call.tx, collection_id)).id])

    return replace(
        devices.COMBINED,
        name=f"SMS_CM_RES_COLL_{collection_id}",
        properties=(*devices.COMBINED.properties, _DIRECT),
        origin=members,
        superclass="SMS_CollectionMember",
    )


CLASSES = (FULL, MEMBERSHIP)
