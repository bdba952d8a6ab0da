"""Joined devices as directory objects."""

from collections.abc import Sequence

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import Body, Call, Field, Navigation, Part, Ref, Resource
from tandem.tenant.graph.users import member_of, transitive_member_of


async def _update(call: Call, key: str, body: Body) -> None:
    if "accountEnabled" in body:
        await directory.enable_device(call.tx, key, body["accountEnabled"])


async def _delete(call: Call, key: str) -> None:
    await directory.delete_device(call.tx, key)


async def _owners(call: Call, key: str) -> Sequence[Ref]:
    device = await directory.find_device_object(call.tx, key)
    return [Ref("user", device.owner_id)] if device and device.owner_id else []


def _management_type(row: Row) -> str | None:
    return "MDM" if row.get("is_managed") else None


DEVICES = Resource(
    path="devices",
    type="device",
    rows=directory.DEVICES,
    read=permissions.DEVICES_READ,
    write=permissions.DEVICES_WRITE,
    update=_update,
    delete=_delete,
    alternate_keys={"deviceId": "device_id"},
    fields=(
        Field("id", Primitive.GUID),
        Field("deviceId", Primitive.GUID),
        Field("displayName"),
        Field("accountEnabled", Primitive.BOOLEAN, writable=True),
        Field("operatingSystem"),
        Field("operatingSystemVersion"),
        Field("trustType"),
        Field("profileType", value=lambda _: "RegisteredDevice"),
        Field("isManaged", Primitive.BOOLEAN),
        Field("isCompliant", Primitive.BOOLEAN),
        Field("managementType", value=_management_type, needs=("is_managed",)),
        Field("mdmAppId", Primitive.GUID),
        Field("deviceOwnership", value=lambda _: "Company"),
        Field("registrationDateTime", Primitive.TIME),
        Field("approximateLastSignInDateTime", Primitive.TIME),
        Field("physicalIds", collection=True, value=lambda _: []),
        Field("systemLabels", collection=True, value=lambda _: []),
        Field("onPremisesSyncEnabled", Primitive.BOOLEAN, value=lambda _: None),
    ),
    navigations=(
        Navigation("registeredOwners", _owners, permissions.DEVICES_READ),
        Navigation("registeredUsers", _owners, permissions.DEVICES_READ),
        Navigation("memberOf", member_of, permissions.DEVICES_READ),
        Navigation("transitiveMemberOf", transitive_member_of, permissions.DEVICES_READ),
    ),
)


def devices() -> Part:
    return Part((DEVICES,))
