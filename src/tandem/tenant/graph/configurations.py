"""Device configurations: one setting each, with assignments to groups."""

from collections.abc import Mapping, Sequence

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, policies
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Family,
    Field,
    Part,
    Resource,
    Value,
    access,
)
from tandem.tenant.graph.permissions import READERS, WRITERS
from tandem.workloads import Workload

_READ = access(
    "DeviceManagementConfiguration.Read.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    roles=READERS,
)
_WRITE = access("DeviceManagementConfiguration.ReadWrite.All", roles=WRITERS)
_GROUP = "#microsoft.graph.groupAssignmentTarget"
_EXCLUDED = "#microsoft.graph.exclusionGroupAssignmentTarget"
_ONE = "deviceManagement/deviceConfigurations/{deviceConfiguration}"


async def _rows(call: Call) -> Sequence[Row]:
    return [
        {
            "id": item.id,
            "display_name": item.name,
            "workload": item.workload.value,
            "setting": item.setting,
            "value": item.value,
            "created_date_time": item.created_at,
            "last_modified_date_time": item.changed_at,
        }
        for item in await policies.configurations(call.tx)
    ]


async def _create(call: Call, body: Body) -> Created:
    name = body.get("workload") or Workload.DEVICE_CONFIGURATION.value
    try:
        workload = Workload(name)
    except ValueError:
        raise BadProperty(f"There is no workload {name!r}.", property="workload") from None
    made = await policies.create(
        call.tx,
        body.get("displayName") or "",
        body.get("setting") or "",
        body.get("value") or "",
        call.now,
        workload,
    )
    return Created(made.id)


async def _update(call: Call, key: str, changes: Body) -> None:
    if "value" in changes:
        await policies.change(call.tx, key, str(changes["value"]), call.now)


async def _delete(call: Call, key: str) -> None:
    await policies.delete(call.tx, key)


async def _assign(call: Call, body: Body) -> Answer:
    key = call.keys["deviceConfiguration"]
    included: list[str] = []
    excluded: list[str] = []
    given = body.get("assignments", [])
    if not isinstance(given, list):
        raise BadProperty("assignments is a list.", property="assignments")
    for item in given:
        target = item.get("target") if isinstance(item, Mapping) else None
        if not isinstance(target, Mapping) or not isinstance(target.get("groupId"), str):
            raise BadProperty("An assignment needs target.groupId.", property="target")
        group = await directory.group(call.tx, target["groupId"])
        (excluded if target.get("@odata.type") == _EXCLUDED else included).append(group.id)
    await policies.assign(call.tx, key, included, excluded)
    await call.audit("deviceConfiguration.assign", key, included=included, excluded=excluded)
    return None


async def _assignments(call: Call, body: Body) -> Answer:
    key = call.keys["deviceConfiguration"]
    return Value(
        [
            {
                "id": f"{item.configuration_id}_{item.group_id}",
                "target": {
                    "@odata.type": _EXCLUDED if item.excluded else _GROUP,
                    "groupId": item.group_id,
                },
            }
            for item in await policies.assignments(call.tx, key)
        ]
    )


def configurations() -> Part:
    resource = Resource(
        path="deviceManagement/deviceConfigurations",
        type="deviceConfiguration",
        family=Family.INTUNE,
        rows=_rows,
        read=_READ,
        write=_WRITE,
        create=_create,
        update=_update,
        delete=_delete,
        typed=lambda _: "windows10CustomConfiguration",
        fields=(
            Field("id", Primitive.GUID),
            Field("displayName", writable=True, required=True),
            Field("workload", writable=True),
            Field("setting", writable=True),
            Field("value", writable=True),
            Field("createdDateTime", Primitive.TIME),
            Field("lastModifiedDateTime", Primitive.TIME),
        ),
    )
    family = Family.INTUNE
    return Part(
        (resource,),
        (
            Action(f"{_ONE}/assign", _assign, _WRITE, open=True, family=family),
            Action(f"{_ONE}/assignments", _assignments, _READ, method="GET", family=family),
        ),
    )
