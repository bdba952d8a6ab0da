"""What the vendor has no word for in orders to devices: how far each is, hold windows, a second
administrator, and the safeguards themselves. All of it is below /tandem."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import sessions
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Family,
    Field,
    Part,
    Resource,
    Value,
    missing,
    snake,
)
from tandem.tenant.sessions import By, Safeguards, Sessions

# Names of the reach of an order that an answer holds; the rest is counted.
_NAMED = 200


def by(call: Call) -> By:
    caller = call.caller
    return By(caller.object_id, caller.name or caller.object_id, caller.sort == "user")


# ---------------------------------------------------------------------------------- what is ordered


def _nothing(_: Body) -> str:
    return ""


def _scan(body: Body) -> str:
    """1 is a quick scan, 2 a full one (Defender CSP)."""
    return "1" if body.get("quickScan") else "2"


_PLACEHOLDER = re.compile(r"%RAND:([1-9])%|%SERIAL%")
_COMPUTER_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_LONGEST_NAME = 15


def _name(body: Body) -> str:
    """A computer's name. What stands for a serial number counts as one letter: the device cuts it."""
    given = str(body["deviceName"])
    digits = [int(found[1]) for found in _PLACEHOLDER.finditer(given) if found[1]]
    # Filled in with what the device puts there; a letter, as a name may not be digits alone.
    filled = _PLACEHOLDER.sub(lambda found: "x" * int(found[1] or 1), given)
    why = ""
    if "%" in filled:
        why = "what stands between percent signs has to be %SERIAL% or %RAND:n%, with n from 1 to 9"
    elif len(filled) > _LONGEST_NAME:
        why = f"it has {len(filled)} characters"
        why += f", counting {sum(digits)} for %RAND%" if digits else ""
        why += f", and Windows takes {_LONGEST_NAME}"
    elif not _COMPUTER_NAME.fullmatch(filled):
        why = (
            "a name has letters, digits and hyphens, begins and ends with a letter or digit, and"
            " is not digits alone"
        )
    if why:
        raise BadProperty(
            f"'{given[:80]}' is no name of a Windows computer: {why}.",
            cure="Use at most 15 letters, digits and hyphens; %SERIAL% and %RAND:n% stand for"
            " what the device fills in.",
            target="deviceName",
        )
    return given


def _wiping(body: Body) -> str:
    keeps = [name for name in ("keepUserData", "keepEnrollmentData") if body.get(name)]
    if body.get("useProtectedWipe"):
        if keeps:
            raise BadProperty(
                f"A protected wipe keeps nothing, and {keeps[0]} asks it to.",
                cure="Leave out one of them.",
                target=keeps[0],
            )
        return sessions.DO_WIPE_PROTECTED
    if body.get("keepUserData"):
        return sessions.DO_WIPE_BUT_USER_DATA
    return sessions.DO_WIPE_BUT_ENROLLMENT if body.get("keepEnrollmentData") else sessions.DO_WIPE


def _flag(name: str) -> Field:
    return Field(name, Primitive.BOOLEAN, writable=True)


_OPTIONS = {
    "windowsDefenderScan": (_flag("quickScan"),),
    "setDeviceName": (Field("deviceName", writable=True, required=True),),
    "wipe": (
        _flag("keepEnrollmentData"),
        _flag("keepUserData"),
        _flag("useProtectedWipe"),
        Field("macOsUnlockCode", writable=True),
        _flag("persistEsimDataPlan"),
    ),
    "cleanWindowsDevice": (_flag("keepUserData"),),
}
_DATA = {
    "windowsDefenderScan": _scan,
    "setDeviceName": _name,
    "wipe": _wiping,
    "cleanWindowsDevice": _wiping,
}
# Orders by Graph's names: what the body may hold.
ORDERS: dict[str, tuple[Field, ...]] = {
    name: _OPTIONS.get(name, ())
    for name in (
        "syncDevice",
        "rebootNow",
        "setDeviceName",
        "windowsDefenderScan",
        "windowsDefenderUpdateSignatures",
        "cleanWindowsDevice",
        "retire",
        "wipe",
        *sessions.UNSUPPORTED,
    )
}


def order_of(action: str, body: Body) -> tuple[str, str]:
    """What a session calls it, and what the device gets of the body. Raises BadProperty."""
    if action in ("retire", "delete"):
        return sessions.RETIRE, "delete" if action == "delete" else ""
    return action, _DATA.get(action, _nothing)(body)


_MANY = (*(name for name in ORDERS if name not in sessions.UNSUPPORTED), "delete")


def _asked(body: Body) -> tuple[str, str, list[str]]:
    action = str(body["action"])
    if action not in _MANY:
        raise BadProperty(
            f"'{action[:40]}' is no action for several devices.",
            cure=f"Use one of {', '.join(_MANY)}.",
            target="action",
        )
    if action == "setDeviceName" and not body.get("deviceName"):
        raise BadProperty("A new name is missing.", cure="Send deviceName.", target="deviceName")
    devices = body["devices"]
    if not isinstance(devices, list) or not all(isinstance(item, str) for item in devices):
        raise BadProperty("devices is a list of ids.", target="devices")
    return *order_of(action, body), devices


def _reach(found: sessions.Reach) -> dict[str, Any]:
    return {
        "deviceCount": len(found.devices),
        "userCount": found.users,
        "coManagedCount": found.co_managed,
        "deviceNames": [device.name for device in found.devices[:_NAMED]],
        "needsApproval": found.needs_approval,
        "budgetLeft": found.budget_left,
        "holdMinutes": found.safeguards.hold_minutes,
    }


# ---------------------------------------------------------------------------------- resources


async def _devices(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    return await sessions.devices_of_requests(call.tx, [row["id"] for row in rows])


_ORDERS = Resource(
    path="tandem/actions",
    type="tandemAction",
    family=Family.INTUNE,
    key_is_guid=False,
    rows=sessions.ORDERS,
    read=permissions.MANAGED_READ,
    fields=(
        Field("id"),
        Field("deviceId"),
        Field("deviceName"),
        Field("userPrincipalName"),
        Field("action"),
        Field("option"),
        Field("state"),
        Field("requestId"),
        Field("orderedBy"),
        Field("reason"),
        Field("orderedDateTime", Primitive.TIME),
        Field("heldUntilDateTime", Primitive.TIME),
        Field("expiresDateTime", Primitive.TIME),
        Field("sentDateTime", Primitive.TIME),
        Field("endedDateTime", Primitive.TIME),
        Field("statusCode", Primitive.INTEGER),
        Field("explanation"),
        Field("canBeCancelled", Primitive.BOOLEAN),
    ),
)
_REQUESTS = Resource(
    path="tandem/actionRequests",
    type="tandemActionRequest",
    family=Family.INTUNE,
    key_is_guid=False,
    rows=sessions.REQUESTS,
    read=permissions.MANAGED_READ,
    fields=(
        Field("id"),
        Field("action"),
        Field("option"),
        Field("reason"),
        Field("requestedById"),
        Field("requestedBy"),
        Field("requestedDateTime", Primitive.TIME),
        Field("deviceCount", Primitive.INTEGER),
        Field("userCount", Primitive.INTEGER),
        Field("state"),
        Field("decidedBy"),
        Field("decidedDateTime", Primitive.TIME),
        Field("decisionReason"),
        Field("expiresDateTime", Primitive.TIME),
        Field("heldUntilDateTime", Primitive.TIME),
        Field("canBeCancelled", Primitive.BOOLEAN),
        Field("devices", Primitive.COMPLEX, collection=True, load=_devices),
    ),
)

# By Graph's names.
_SAFEGUARDS = {
    "budgetPerHour": "budget_per_hour",
    "approvalAbove": "approval_above",
    "holdMinutes": "hold_minutes",
    "approvalHours": "approval_hours",
}


def _shown(safeguards: Safeguards) -> dict[str, int]:
    return {name: getattr(safeguards, own) for name, own in _SAFEGUARDS.items()}


def device_actions(service: Sessions) -> Part:
    async def assess(call: Call, body: Body) -> Answer:
        kind, _, devices = _asked(body)
        return Value(_reach(await service.reach(call.tx, by(call), kind, devices)))

    async def order(call: Call, body: Body) -> Answer:
        kind, data, devices = _asked(body)
        reason = str(body.get("reason") or "")[:1000]
        call.note(activity=body["action"], name=f"{len(devices)} devices", devices=devices[:_NAMED])
        reach = await service.reach(call.tx, by(call), kind, devices)
        made = await service.order(call.tx, by(call), kind, devices, data, reason)
        call.note(
            name=f"{len(made.devices)} devices",
            devices=[device.id for device in made.devices[:_NAMED]],
            reason=reason,
            state=made.state.value,
        )
        held = made.held_until
        return Value(
            {
                **_reach(reach),
                "deviceCount": len(made.devices),
                "requestId": made.request_id,
                "state": made.state.value,
                "heldUntilDateTime": held.isoformat() if held is not None else None,
            }
        )

    async def cancel(call: Call, body: Body) -> Answer:
        key = call.keys["tandemAction"]
        if not re.fullmatch(r"[0-9]{1,18}", key):
            raise missing(key)
        device = await service.cancel(call.tx, by(call), int(key))
        call.note(activity="Cancel action", type="managedDevice", name=device.name)
        return None

    async def cancel_request(call: Call, body: Body) -> Answer:
        number = await service.cancel_request(call.tx, by(call), _request(call))
        call.note(activity="Cancel action request", name=f"{number} devices")
        return None

    async def approve(call: Call, body: Body) -> Answer:
        number = await service.approve(call.tx, by(call), _request(call))
        call.note(activity="Approve action request", name=f"{number} devices")
        return None

    async def reject(call: Call, body: Body) -> Answer:
        reason = str(body.get("reason") or "")[:1000]
        number = await service.reject(call.tx, by(call), _request(call), reason)
        call.note(activity="Reject action request", name=f"{number} devices", reason=reason)
        return None

    async def safeguards(call: Call) -> Sequence[Row]:
        found = await service.safeguards(call.tx)
        proposal = await service.proposal(call.tx)
        return [
            {
                "id": "actionSafeguards",
                **{snake(name): value for name, value in _shown(found).items()},
                "proposal": proposal
                and {
                    **_shown(proposal.safeguards),
                    "proposedBy": proposal.by_name,
                    "proposedById": proposal.by,
                    "proposedDateTime": proposal.at,
                },
            }
        ]

    async def change(call: Call, key: str, changes: Body) -> None:
        before = await service.safeguards(call.tx)
        wanted = {own: changes[name] for name, own in _SAFEGUARDS.items() if name in changes}
        try:
            after = msgspec.convert({**msgspec.to_builtins(before), **wanted}, Safeguards)
        except msgspec.ValidationError as error:
            raise BadProperty(
                f"A safeguard has a value that it cannot have: {error}.",
                cure="Read the limits: `tandem actions safeguards --help`.",
            ) from None
        in_force = await service.change_safeguards(call.tx, by(call), after)
        activity = "Update action safeguards" if in_force else "Propose weaker action safeguards"
        call.note(activity=activity, changed=_difference(before, after))

    async def approve_weaker(call: Call, body: Body) -> Answer:
        before = await service.safeguards(call.tx)
        seen = {
            own: int(body[name]) for name, own in _SAFEGUARDS.items() if body.get(name) is not None
        }
        after = await service.approve_safeguards(call.tx, by(call), seen)
        call.note(activity="Weaken action safeguards", changed=_difference(before, after))
        return None

    async def withdraw(call: Call, body: Body) -> Answer:
        await service.withdraw_safeguards(call.tx)
        call.note(activity="Withdraw weaker action safeguards")
        return None

    numbers = tuple(Field(name, Primitive.INTEGER, writable=True) for name in _SAFEGUARDS)
    guarded = Resource(
        path="tandem/actionSafeguards",
        type="tandemActionSafeguards",
        family=Family.INTUNE,
        singleton=True,
        update_status=200,
        rows=safeguards,
        read=permissions.MANAGED_READ,
        write=permissions.PRIVILEGED,
        update=change,
        fields=(
            *numbers,
            Field("proposal", Primitive.COMPLEX),
        ),
    )
    taken = (
        Field("action", writable=True, required=True),
        Field("devices", collection=True, writable=True, required=True),
        Field("reason", writable=True),
        *{
            item.name: replace(item, required=False) for of in _OPTIONS.values() for item in of
        }.values(),
    )
    reason = (Field("reason", writable=True),)

    def action(path: str, run: Any, body: tuple[Field, ...] = (), *, asks: bool = False) -> Action:
        return Action(
            f"tandem/{path}",
            run,
            permissions.PRIVILEGED,
            body=body,
            family=Family.INTUNE,
            asks=asks,
        )

    one, request = "actions/{tandemAction}", "actionRequests/{tandemActionRequest}"
    return Part(
        (_ORDERS, _REQUESTS, guarded),
        (
            action("assessAction", assess, taken, asks=True),
            action("orderAction", order, taken),
            action(f"{one}/cancel", cancel),
            action(f"{request}/cancel", cancel_request),
            action(f"{request}/approve", approve),
            action(f"{request}/reject", reject, reason),
            action("actionSafeguards/approve", approve_weaker, numbers),
            action("actionSafeguards/withdraw", withdraw),
        ),
    )


def _request(call: Call) -> str:
    """Raises NotFound for what is no id."""
    key = call.keys["tandemActionRequest"]
    try:
        return str(uuid.UUID(key))
    except ValueError:
        raise missing(key) from None


def _difference(before: Safeguards, after: Safeguards) -> list[dict[str, Any]]:
    old, new = _shown(before), _shown(after)
    return [
        {"name": name, "old": old[name], "new": new[name]} for name in old if old[name] != new[name]
    ]
