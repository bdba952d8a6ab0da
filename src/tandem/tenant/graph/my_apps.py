"""The apps that somebody may choose for their own devices.

    GET  tandem/myApps                          the signed-in user's devices, each with its apps
    POST tandem/myApps/request, /withdraw       {"deviceId", "mobileAppId"}

A device of somebody else is one that does not exist.
"""

from typing import Any

from tandem.tenant import enrollment, mobile_apps
from tandem.tenant.graph import permissions
from tandem.tenant.graph.app_statuses import apps_of, choose
from tandem.tenant.graph.model import Action, Answer, Body, Call, Family, Field, Part, Value

# What a user sees of an app; whom it is assigned to is the administrators' affair.
_SHOWN = (
    "id",
    "displayName",
    "publisher",
    "description",
    "version",
    "intent",
    "required",
    "available",
    "installState",
    "error",
    "requestedDateTime",
    "lastSyncDateTime",
)


async def _devices(call: Call) -> list[enrollment.Device]:
    if call.caller.sort != "user":
        return []
    return await enrollment.devices_of(call.tx, call.caller.object_id)


async def _list(call: Call) -> list[dict[str, Any]]:
    found = []
    for device in await _devices(call):
        apps = await apps_of(call.tx, device, reasons=False)
        found.append(
            {
                "deviceId": device.id,
                "deviceName": device.name,
                "lastSyncDateTime": device.seen_at,
                "apps": [
                    {name: app[name] for name in _SHOWN}
                    for app in apps
                    if app["available"] is not None
                    or (app["required"] and app["type"] == mobile_apps.MSI)
                ],
            }
        )
    return found


async def _my_apps(call: Call, body: Body) -> Answer:
    return Value(await _list(call))


async def _mine(call: Call, body: Body) -> enrollment.Device:
    """Raises NoSuchDevice."""
    id = str(body["deviceId"])
    for device in await _devices(call):
        if device.id == id:
            return device
    raise enrollment.NoSuchDevice(
        "This is none of your devices.", cure="Look at the list of them: tandem/myApps."
    )


async def _request(call: Call, body: Body) -> Answer:
    device = await _mine(call, body)
    await choose(call, device, str(body["mobileAppId"]))
    return Value(await _list(call), 200)


async def _withdraw(call: Call, body: Body) -> Answer:
    device = await _mine(call, body)
    await mobile_apps.withdraw(call.tx, str(body["mobileAppId"]), device.id)
    return Value(await _list(call), 200)


def my_apps() -> Part:
    taken = tuple(Field(n, writable=True, required=True) for n in ("deviceId", "mobileAppId"))
    own, family = permissions.OWN, Family.INTUNE
    return Part(
        (),
        (
            Action("tandem/myApps", _my_apps, own, method="GET", family=family),
            Action("tandem/myApps/request", _request, own, body=taken, family=family),
            Action("tandem/myApps/withdraw", _withdraw, own, body=taken, family=family),
        ),
    )
