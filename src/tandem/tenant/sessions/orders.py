"""Orders of administrators: sync, restart, rename, wipe, leave."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.tenant import enrollment
from tandem.tenant.enrollment import Device, Enrollment
from tandem.tenant.sessions import model, store
from tandem.tenant.sessions.model import WIPES, ActionResult

_GRAPH_NAMES = {"unenroll": "retire"}
# The status of an order that no device can carry out (SyncML: command not implemented).
NOT_SUPPORTED = 501
# How long a device that was told to leave has for saying that it did (section 14).
_LEAVING = timedelta(days=1)


class Orders:
    """What administrators order of devices, until it is done."""

    def __init__(self, enrollment: Enrollment, now: Clock) -> None:
        self._enrollment = enrollment
        self._now = now

    async def unenroll(self, tx: Tx, device_id: str) -> Device:
        """Have a device leave at its next session. Raises NoSuchDevice."""
        device = await enrollment.device(tx, device_id)
        if device.state == "enrolled":
            await self._enrollment.begin_unenroll(tx, device)
            await store.add_command(tx, device.id, "unenroll", self._now())
        return replace(device, state="unenrolling")

    async def act(self, tx: Tx, device_id: str, kind: str, data: str = "") -> None:
        """Order something of a device, carried out at its next session.

        An order that is still open is not given twice. Raises NoSuchDevice.
        """
        device = await _present(tx, device_id)
        now = self._now()
        if kind in model.UNSUPPORTED_ACTIONS:
            order = await store.add_command(tx, device.id, kind, now)
            await store.end_command(tx, order, now, NOT_SUPPORTED)
            await self._enrollment.note(tx, device, "action", f"{kind}: not supported by Windows")
            return
        open_orders = await store.open_commands(tx, device.id)
        if any((item["kind"], item["data"]) == (kind, data) for item in open_orders):
            return
        await store.add_command(tx, device.id, kind, now, data)
        await self._enrollment.note(tx, device, "action", f"An administrator orders {kind}")
        if kind in WIPES:
            await enrollment.set_management(tx, device.id, "management_state", "wipePending")

    async def tend(self, tx: Tx) -> None:
        """Devices that were told to leave and were never heard of again have left."""
        await store.forget_changes(tx, self._now())
        before = self._now() - _LEAVING
        for device_id in await store.sent_before(tx, "unenroll", before):
            device = await enrollment.device(tx, device_id)
            if device.seen_at is not None and device.seen_at >= before:
                continue
            for order in await store.open_commands(tx, device_id):
                await store.end_command(tx, order["id"], self._now())
            if device.state == "unenrolling":
                await self._enrollment.end(tx, device, "Told to leave, and silent for a day since")

    async def request_sync(self, tx: Tx, device_id: str) -> None:
        """Note that a session is wanted; the device comes at its next poll. Raises NoSuchDevice."""
        device = await _present(tx, device_id)
        now = self._now()
        order = await store.add_command(tx, device.id, "syncDevice", now)
        await store.mark_sent(tx, order, now)
        await self._enrollment.note(tx, device, "sync", "An administrator asks for a check-in")

    async def came(self, tx: Tx, device: Device, now: datetime) -> None:
        """A session is what an administrator who asked for a sync wanted."""
        for order in await store.open_commands(tx, device.id):
            if order["kind"] == "syncDevice":
                await store.end_command(tx, order["id"], now, 200)


async def _present(tx: Tx, device_id: str) -> Device:
    """A device that has not left. Raises NoSuchDevice."""
    device = await enrollment.device(tx, device_id)
    if device.state == "unenrolled":
        raise enrollment.NoSuchDevice(
            f"The device {device.name} has left the MDM service.", cure="It can enroll again."
        )
    return device


async def results(tx: Tx, device_ids: Sequence[str]) -> dict[str, list[ActionResult]]:
    """By device, the last order of each kind and how far it got (Graph's deviceActionResults)."""
    found: dict[str, dict[str, ActionResult]] = {}
    for row in await store.commands_of(tx, device_ids):
        kind = _GRAPH_NAMES.get(row["kind"], row["kind"])
        result = ActionResult(
            kind, _action_state(row["state"], row["code"]), row["created_at"], row["changed_at"]
        )
        found.setdefault(row["device_id"], {})[kind] = result
    return {device_id: list(kinds.values()) for device_id, kinds in found.items()}


def _action_state(state: str, code: int | None) -> str:
    if state != "done":
        return {"pending": "pending", "sent": "active"}[state]
    if code == NOT_SUPPORTED:
        return "notSupported"
    return "done" if code is None or 200 <= code < 300 else "failed"
