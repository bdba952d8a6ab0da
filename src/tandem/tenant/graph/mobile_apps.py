"""Line-of-business apps: create, content, assignment, and what became of them."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from tandem.infra.blobs import Blobs
from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, enrollment, mobile_apps
from tandem.tenant.enrollment import Device
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
from tandem.tenant.mobile_apps import App, Assignment, Status

_READ = access("DeviceManagementApps.Read.All", "DeviceManagementApps.ReadWrite.All", roles=READERS)
_WRITE = access("DeviceManagementApps.ReadWrite.All", roles=WRITERS)
_GROUP = "#microsoft.graph.groupAssignmentTarget"
_EXCLUDED = "#microsoft.graph.exclusionGroupAssignmentTarget"


def mobile_app_parts(blobs: Blobs) -> Part:
    async def rows(call: Call) -> Sequence[Row]:
        return [_row(item) for item in await mobile_apps.apps(call.tx)]

    async def create(call: Call, body: Body) -> Created:
        made = await mobile_apps.create(
            call.tx,
            name=body.get("displayName") or "",
            description=body.get("description") or "",
            publisher=body.get("publisher") or "",
            command_line=body.get("commandLine") or "",
            file_name=body.get("fileName") or "",
            now=call.now,
        )
        return Created(made.id)

    async def update(call: Call, key: str, changes: Body) -> None:
        known = await mobile_apps.app(call.tx, key)
        await mobile_apps.update(
            call.tx,
            key,
            name=changes.get("displayName", known.name),
            description=changes.get("description", known.description),
            publisher=changes.get("publisher", known.publisher),
            command_line=changes.get("commandLine", known.command_line),
        )

    async def delete(call: Call, key: str) -> None:
        await mobile_apps.delete(call.tx, key)

    async def upload(call: Call, body: Body) -> Answer:
        """The file in one piece: ours; the vendor's way has a storage account between."""
        key = call.keys["mobileApp"]
        try:
            data = b64decode(str(body.get("content", "")), validate=True)
        except ValueError:
            raise BadProperty("content is not base64.", property="content") from None
        made = await mobile_apps.commit(call.tx, blobs, key, data)
        await call.audit("mobileApp.upload", key, sha256=made.sha256)
        return Value(
            {
                "id": made.id,
                "displayName": made.name,
                "productCode": made.product_code,
                "productVersion": made.product_version,
                "sha256": made.sha256,
                "publishingState": made.state,
            }
        )

    async def assign(call: Call, body: Body) -> Answer:
        key = call.keys["mobileApp"]
        included, excluded = _targets(body.get("mobileAppAssignments", []))
        await mobile_apps.assign(call.tx, key, included, excluded)
        await call.audit("mobileApp.assign", key, included=included, excluded=excluded)
        return None

    async def assignments(call: Call, body: Body) -> Answer:
        key = call.keys["mobileApp"]
        await mobile_apps.app(call.tx, key)
        return Value(
            [
                {
                    "id": f"{item.group_id}_1_0",
                    "intent": "required",
                    "target": {
                        "@odata.type": _EXCLUDED if item.excluded else _GROUP,
                        "groupId": item.group_id,
                    },
                }
                for item in await mobile_apps.assignments(call.tx, key)
            ]
        )

    async def statuses(call: Call, body: Body) -> Answer:
        key = call.keys["mobileApp"]
        found = await mobile_apps.app(call.tx, key)
        known = {item.device_id: item for item in await mobile_apps.statuses(call.tx, app_id=key)}
        given = await mobile_apps.assignments(call.tx, key)
        meant = []
        for device in await enrollment.devices(call.tx):
            why = await _why(call, given, device)
            if why is not None or device.id in known:
                meant.append(_status(found, device, known.get(device.id), why or ""))
        return Value(meant)

    one = "deviceAppManagement/mobileApps/{mobileApp}"
    apps = Resource(
        path="deviceAppManagement/mobileApps",
        type="mobileApp",
        family=Family.INTUNE,
        rows=rows,
        read=_READ,
        write=_WRITE,
        create=create,
        update=update,
        delete=delete,
        typed=lambda _: "windowsMobileMSI",
        fields=(
            Field("id", Primitive.GUID),
            Field("displayName", writable=True),
            Field("description", writable=True),
            Field("publisher", writable=True),
            Field("fileName", writable=True),
            Field("commandLine", writable=True),
            Field("createdDateTime", Primitive.TIME),
            Field("publishingState"),
            Field("productCode"),
            Field("productVersion"),
            Field("identityVersion", column="product_version"),
            Field("size", Primitive.INTEGER),
            Field("sha256"),
            Field("reason"),
        ),
    )
    family = Family.INTUNE
    return Part(
        (apps,),
        (
            Action(
                f"{one}/uploadContent",
                upload,
                _WRITE,
                body=(Field("content", writable=True, required=True),),
                family=family,
            ),
            Action(f"{one}/assign", assign, _WRITE, open=True, family=family),
            Action(f"{one}/assignments", assignments, _READ, method="GET", family=family),
            Action(f"{one}/deviceStatuses", statuses, _READ, method="GET", family=family),
        ),
    )


def _row(item: App) -> Row:
    return {
        "id": item.id,
        "display_name": item.name,
        "description": item.description,
        "publisher": item.publisher,
        "file_name": item.file_name,
        "command_line": item.command_line,
        "created_date_time": item.created_at,
        "publishing_state": item.state,
        "product_code": item.product_code,
        "product_version": item.product_version,
        "size": item.size_bytes,
        "sha256": item.sha256,
        "reason": item.reason,
    }


def _targets(given: Any) -> tuple[list[str], list[str]]:
    """Included and excluded groups of Graph's assignments. Raises BadProperty."""
    included: list[str] = []
    excluded: list[str] = []
    if not isinstance(given, list):
        raise BadProperty("mobileAppAssignments is a list.", property="mobileAppAssignments")
    for item in given:
        target = item.get("target") if isinstance(item, Mapping) else None
        group = target.get("groupId") if isinstance(target, Mapping) else None
        if not isinstance(group, str):
            raise BadProperty("An assignment needs target.groupId.", property="target")
        if item.get("intent", "required") != "required":
            raise BadProperty("Only the intent required exists here.", property="intent")
        kind = str(target.get("@odata.type", _GROUP)) if isinstance(target, Mapping) else _GROUP
        (excluded if kind == _EXCLUDED else included).append(group)
    return included, excluded


async def _why(call: Call, given: Sequence[Assignment], device: Device) -> str | None:
    """Why a device has this app, or is left out of it: "" included, else the excluding group."""
    groups = await enrollment.groups_of(call.tx, device)
    mine = [a for a in given if a.group_id in groups]
    for item in mine:
        if item.excluded:
            return (await directory.group(call.tx, item.group_id)).display_name
    return "" if mine else None


def _status(app: App, device: Device, status: Status | None, excluded_by: str) -> dict[str, Any]:
    """The MSI's fate and the client's side by side: the first says nothing of the second."""
    agent = device.agent
    stuck = ""
    installed = status is not None and status.state == "installed"
    if app.brings_client and installed and (agent is None or not agent.policy):
        stuck = agent.log if agent is not None else "The client has not said anything yet."
    state = status.state if status is not None else "notInstalled"
    return {
        "deviceId": device.id,
        "deviceName": device.name,
        "userPrincipalName": device.upn,
        "installState": "excluded" if excluded_by else state,
        "excludedBy": excluded_by or None,
        "errorCode": status.code if status is not None else 0,
        "lastSyncDateTime": status.at if status is not None else device.seen_at,
        "client": {
            "step": str(agent.setup or "") if agent is not None else "",
            "code": agent.code if agent is not None else None,
            "registered": bool(agent.client) if agent is not None else False,
            "policyPresent": agent.policy if agent is not None else False,
            "stuckAt": stuck,
        },
    }
