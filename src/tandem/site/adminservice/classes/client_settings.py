"""SMS_ClientSettings, the custom client settings, and to which collections they are deployed."""

from collections.abc import Mapping, Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.site import approvals, collections, settings
from tandem.site.adminservice.model import (
    BadProperty,
    Body,
    Call,
    Class,
    Complex,
    Key,
    Property,
)
from tandem.site.collections import MemberType

_INTEGER, _TIME = Primitive.INTEGER, Primitive.TIME
_TYPES = {MemberType.DEVICE: 1, MemberType.USER: 2}
_SETTING = "SMS_ClientSetting"

COMPLEXES = (Complex(_SETTING, (Property("Name"), Property("Group"), Property("Value"))),)


async def _read(call: Call) -> list[Row]:
    return [
        {
            "SettingsID": item.id,
            "Name": item.name,
            "Description": item.description,
            "Type": _TYPES[item.type],
            "Priority": item.priority,
            "Groups": item.groups,
            "AssignmentCount": len(item.deployed_to),
            "CreatedBy": item.created_by,
            "DateCreated": item.created_at,
            "LastModifiedBy": item.changed_by,
            "DateModified": item.changed_at,
        }
        for item in await settings.custom(call.tx)
    ]


async def _values(call: Call, rows: Sequence[Row]) -> list[list[dict[str, Any]]]:
    every = {item.id: item for item in await settings.custom(call.tx)}
    return [
        [
            {
                "@odata.type": f"#AdminService.{_SETTING}",
                "Name": name,
                "Group": settings.CATALOGUE[name].group,
                "Value": str(value),
            }
            for name, value in every[row["SettingsID"]].values.items()
        ]
        for row in rows
    ]


def _wanted(body: Body) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for item in body.get("Settings") or []:
        if not isinstance(item, Mapping) or not isinstance(item.get("Name"), str):
            raise BadProperty(
                "Each of Settings has a Name and a Value.",
                cure='Send {"Name": "policy_polling_minutes", "Value": "30"}.',
            )
        wanted[item["Name"]] = item.get("Value")
    return wanted


async def _create(call: Call, body: Body) -> Key:
    types = {number: type for type, number in _TYPES.items()}
    type = types.get(body.get("Type") or 1)
    if type is None:
        raise BadProperty("Type is 1 or 2.", cure="1 is settings of devices, 2 of users.")
    if "Priority" in body:
        raise BadProperty(
            "New client settings come behind all others.",
            cure="Change Priority once they are there.",
        )
    made = await settings.create(
        call.tx,
        body["Name"],
        description=body.get("Description") or "",
        type=type,
        groups=body.get("Groups") or [],
        wanted=_wanted(body),
        actor=call.who.name,
        now=call.now,
    )
    return {"SettingsID": made.id}


async def _update(call: Call, key: Key, body: Body) -> None:
    found = await settings.find(call.tx, key["SettingsID"])
    if body.get("Type", _TYPES[found.type]) != _TYPES[found.type]:
        raise BadProperty("Type of client settings does not change.", cure="Make others.")
    await settings.change(
        call.tx,
        found.id,
        name=body.get("Name"),
        description=body.get("Description"),
        groups=body.get("Groups"),
        wanted=_wanted(body),
        actor=call.who.name,
        now=call.now,
    )
    if body.get("Priority") is not None:
        await settings.prioritize(
            call.tx, found.id, body["Priority"], actor=call.who.name, now=call.now
        )


async def _delete(call: Call, key: Key) -> None:
    found = await settings.find(call.tx, key["SettingsID"])
    await settings.delete(call.tx, found.id, actor=call.who.name, now=call.now)


async def _assignments(call: Call) -> list[Row]:
    names = {item.id: item.name for item in await collections.collections(call.tx)}
    return [
        {
            "ClientSettingsID": one.settings_id,
            "CollectionID": one.collection_id,
            "CollectionName": names.get(one.collection_id, ""),
            "StartTime": one.deployed_at,
            "AssignedBy": one.deployed_by,
        }
        for one in await settings.deployments(call.tx)
    ]


async def _assign(call: Call, body: Body) -> Key:
    found = await settings.find(call.tx, body["ClientSettingsID"])
    target = await collections.collection(call.tx, body["CollectionID"])
    # Nobody can be asked for approval here: for many members the refusal says where.
    await settings.propose(
        call.tx,
        found.id,
        target.id,
        safeguards=approvals.Safeguards(approval_above=call.others.approval_above),
        actor=call.who.name,
        now=call.now,
    )
    return {"ClientSettingsID": found.id, "CollectionID": target.id}


async def _take_back(call: Call, key: Key) -> None:
    found = await settings.find(call.tx, key["ClientSettingsID"])
    await settings.withdraw(
        call.tx, found.id, key["CollectionID"], actor=call.who.name, now=call.now
    )


SETTINGS = Class(
    surface="wmi",
    name="SMS_ClientSettings",
    key=("SettingsID",),
    properties=(
        Property("SettingsID"),
        Property("Name", writable=True, required=True),
        Property("Description", writable=True),
        Property("Type", _INTEGER, writable=True),
        Property("Priority", _INTEGER, writable=True),
        Property("Groups", many=True, writable=True),
        Property("AssignmentCount", _INTEGER),
        Property("CreatedBy"),
        Property("DateCreated", _TIME),
        Property("LastModifiedBy"),
        Property("DateModified", _TIME),
        Property(
            "Settings",
            Primitive.COMPLEX,
            load=_values,
            many=True,
            lazy=True,
            complex=_SETTING,
            writable=True,
        ),
    ),
    read=_read,
    create=_create,
    update=_update,
    delete=_delete,
)
ASSIGNMENT = Class(
    surface="wmi",
    name="SMS_ClientSettingsAssignment",
    key=("ClientSettingsID", "CollectionID"),
    properties=(
        Property("ClientSettingsID", writable=True, required=True),
        Property("CollectionID", writable=True, required=True),
        Property("CollectionName"),
        Property("StartTime", _TIME),
        Property("AssignedBy"),
    ),
    read=_assignments,
    create=_assign,
    delete=_take_back,
)

CLASSES = (SETTINGS, ASSIGNMENT)
