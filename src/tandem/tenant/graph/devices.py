"""Devices as directory objects, however they belong to the tenant."""

import base64
import binascii
import uuid
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    BadProperty,
    Body,
    Call,
    Created,
    Field,
    Navigation,
    Part,
    Ref,
    Resource,
)
from tandem.tenant.graph.users import member_of, transitive_member_of

_NAMES = {
    "displayName": "display_name",
    "operatingSystem": "operating_system",
    "operatingSystemVersion": "operating_system_version",
    "accountEnabled": "account_enabled",
}
_TEXTS = (
    "manufacturer",
    "model",
    "deviceOwnership",
    "deviceCategory",
    "deviceMetadata",
    "enrollmentType",
    "enrollmentProfileName",
    "profileType",
)
_LISTS = ("physicalIds", "systemLabels")
_EXTENSIONS = "extensionAttributes"
_LONGEST_TEXT, _LONGEST_LIST = 256, 100
# alternativeSecurityIds: the type of a certificate's key.
_CERTIFICATE = 2


def _wrong(name: str, wanted: str) -> BadProperty:
    return BadProperty(
        f"Invalid value specified for property '{name}'.",
        cure=f"It has to be {wanted}.",
        target=name,
    )


def _profile(body: Body) -> dict[str, Any]:
    for name in (*_NAMES, *_TEXTS):
        if isinstance(body.get(name), str) and len(body[name]) > _LONGEST_TEXT:
            raise _wrong(name, f"at most {_LONGEST_TEXT} characters long")
    for name in _LISTS:
        held = body.get(name) or []
        if len(held) > _LONGEST_LIST or any(len(item) > _LONGEST_TEXT for item in held):
            raise _wrong(name, f"at most {_LONGEST_LIST} texts")
    for value in (body.get(_EXTENSIONS) or {}).values():
        if not isinstance(value, str | None) or len(value or "") > _LONGEST_TEXT:
            raise _wrong(_EXTENSIONS, "texts by name")
    return {name: body[name] for name in (*_TEXTS, *_LISTS, _EXTENSIONS) if name in body}


def _keys(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for item in given:
        key = item.get("key")
        try:
            base64.b64decode(str(key), validate=True)
        except (binascii.Error, ValueError):
            raise _wrong("alternativeSecurityIds", "a list with type and key (base64)") from None
        if not key or item.get("type") != _CERTIFICATE:
            raise _wrong("alternativeSecurityIds", "a list with type 2 and key (base64)")
        found.append({"type": _CERTIFICATE, "identityProvider": None, "key": key})
    return found


async def _create(call: Call, body: Body) -> Created:
    """What the site tells of a computer of its domain; it has no owner and no key of its own yet."""
    keys = _keys(body.get("alternativeSecurityIds") or ())
    if not keys:
        raise _wrong("alternativeSecurityIds", "a list with the device's certificate")
    made = await directory.create_device(
        call.tx,
        directory.Device(
            id=str(uuid.uuid4()),
            device_id=body["deviceId"],
            display_name=body["displayName"],
            account_enabled=body.get("accountEnabled") is not False,
            operating_system=body["operatingSystem"],
            operating_system_version=body["operatingSystemVersion"],
            # No key thumbprint of the join looks like this, so no assertion matches it.
            key_thumbprint="given:" + sha256(keys[0]["key"].encode()).hexdigest(),
            owner_id=None,
            is_managed=False,
            is_compliant=None,
            registered_at=call.now,
            trust_type=body.get("trustType") or directory.Trust.HYBRID.value,
            profile={**_profile(body), "alternativeSecurityIds": keys},
        ),
    )
    return Created(made.id)


async def _update(call: Call, key: str, body: Body) -> None:
    changes = {_NAMES[name]: value for name, value in body.items() if name in _NAMES}
    for name, column in _NAMES.items():
        if column in changes and changes[column] is None:
            raise _wrong(name, "a value")
    if profile := _profile(body):
        changes["profile"] = profile
    if changes:
        await directory.update_device(call.tx, key, changes)


async def _delete(call: Call, key: str) -> None:
    await directory.delete_device(call.tx, key)


async def _owners(call: Call, key: str) -> Sequence[Ref]:
    device = await directory.find_device_object(call.tx, key)
    return [Ref("user", device.owner_id)] if device and device.owner_id else []


def _management_type(row: Row) -> str | None:
    return "MDM" if row.get("is_managed") else None


def _held(name: str, initial: Any = None) -> Any:
    return lambda row: (row.get("profile") or {}).get(name, initial)


def _security_ids(row: Row) -> list[dict[str, Any]]:
    """The key that the device joined with, as Windows writes a certificate's key: its thumbprint
    behind a label, in UTF-16. Ours is the SHA-256 of the public key (RFC 7638)."""
    given = (row.get("profile") or {}).get("alternativeSecurityIds")
    if given:
        return list(given)
    label = f"X509:<SHA256-JWK>{row['key_thumbprint']}"
    key = base64.b64encode(label.encode("utf-16-le")).decode()
    return [{"type": _CERTIFICATE, "identityProvider": None, "key": key}]


def _extension_attributes(row: Row) -> dict[str, Any]:
    held = (row.get("profile") or {}).get(_EXTENSIONS) or {}
    names = [f"extensionAttribute{number}" for number in range(1, 16)]
    return {name: held.get(name) for name in names}


def _physical_ids(row: Row) -> list[str]:
    held: list[str] = (row.get("profile") or {}).get("physicalIds") or []
    return held or [f"[GID]:g:{row['device_id']}"]


DEVICES = Resource(
    path="devices",
    type="device",
    rows=directory.DEVICES,
    read=permissions.DEVICES_READ,
    write=permissions.DEVICES_WRITE,
    create=_create,
    update=_update,
    delete=_delete,
    alternate_keys={"deviceId": "device_id"},
    fields=(
        Field("id", Primitive.GUID),
        Field("deviceId", Primitive.GUID, writable=True, required=True),
        Field("displayName", writable=True, required=True),
        Field("accountEnabled", Primitive.BOOLEAN, writable=True),
        Field("operatingSystem", writable=True, required=True),
        Field("operatingSystemVersion", writable=True, required=True),
        Field("trustType", writable=True, choices=tuple(item.value for item in directory.Trust)),
        Field(
            "profileType",
            writable=True,
            value=_held("profileType", "RegisteredDevice"),
            needs=("profile",),
        ),
        Field("isManaged", Primitive.BOOLEAN),
        Field("isCompliant", Primitive.BOOLEAN),
        Field("managementType", value=_management_type, needs=("is_managed",)),
        Field("mdmAppId", Primitive.GUID),
        Field("deviceOwnership", writable=True, choices=("Company", "Personal", "Unknown")),
        Field("enrollmentType", writable=True, value=_held("enrollmentType"), needs=("profile",)),
        Field("enrollmentProfileName", writable=True),
        Field("deviceVersion", Primitive.INTEGER, value=lambda _: 2),
        Field("deviceMetadata", writable=True, value=_held("deviceMetadata"), needs=("profile",)),
        Field("deviceCategory", writable=True),
        Field("manufacturer", writable=True),
        Field("model", writable=True),
        Field(
            "physicalIds",
            collection=True,
            writable=True,
            value=_physical_ids,
            needs=("profile", "device_id"),
        ),
        Field(
            "alternativeSecurityIds",
            Primitive.COMPLEX,
            collection=True,
            writable=True,
            value=_security_ids,
            needs=("profile", "key_thumbprint"),
        ),
        Field(
            "systemLabels",
            collection=True,
            writable=True,
            value=_held("systemLabels", []),
            needs=("profile",),
        ),
        Field(
            _EXTENSIONS,
            Primitive.COMPLEX,
            writable=True,
            value=_extension_attributes,
            needs=("profile",),
        ),
        Field("registrationDateTime", Primitive.TIME),
        Field("createdDateTime", Primitive.TIME, column="registration_date_time"),
        Field("deletedDateTime", Primitive.TIME, value=lambda _: None),
        Field("approximateLastSignInDateTime", Primitive.TIME),
        Field("complianceExpirationDateTime", Primitive.TIME, value=lambda _: None),
        Field("isRooted", Primitive.BOOLEAN, value=lambda _: None),
        Field(
            "onPremisesSyncEnabled",
            Primitive.BOOLEAN,
            value=lambda row: True if row["trust_type"] == "ServerAd" else None,
            needs=("trust_type",),
        ),
        Field("onPremisesLastSyncDateTime", Primitive.TIME, value=lambda _: None),
        Field("onPremisesSecurityIdentifier", value=lambda _: None),
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
