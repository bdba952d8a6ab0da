"""Devices that are enrolled no more and call all the same: a restored image, or one never told (14).

They hear what strangers hear. That they call is kept for the administrator, who may have such a
device told to leave: one message with that command alone, to whoever holds its old certificate.
"""

from datetime import timedelta

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.protocols.syncml import Message
from tandem.tenant import enrollment
from tandem.tenant.enrollment import Device, Enrollment, NotEnrolled
from tandem.tenant.sessions import model, store
from tandem.tenant.sessions.authentication import Peer, proven
from tandem.tenant.sessions.model import Order, Stray

# Told again when it still calls after this: it answers nothing to what it is told.
_AGAIN = timedelta(minutes=10)


class NoSuchStray(AppError):
    kind, code = Kind.NOT_FOUND, "device.not-calling"


class Strays:
    def __init__(self, enrollment: Enrollment, now: Clock) -> None:
        self._enrollment = enrollment
        self._now = now

    async def called(
        self, tx: Tx, peer: Peer, message: Message
    ) -> tuple[Device, list[Order]] | None:
        """What a caller that is nobody's device gets; None for one that never was, or is told
        nothing."""
        now = self._now()
        try:
            certificate = proven(peer, now)
        except NotEnrolled:
            return None
        if certificate is None or message.number != 1:
            return None
        device = await self._enrollment.left(tx, certificate, message.source)
        if device is None:
            return None
        if _leaves(message):
            await store.forget_stray(tx, device.id)
            await self._enrollment.note(tx, device, "left", "It has left on the device, too")
            return device, []
        known = await store.stray_called(tx, device.id, now)
        if known.calls == 1:
            text = "The device has left, and calls all the same"
            await self._enrollment.note(tx, device, "stray", text)
        told = known.told_at is not None and now - known.told_at < _AGAIN
        if known.ordered_at is None or told:
            return None
        await store.stray_told(tx, device.id, now)
        await self._enrollment.note(tx, device, "stray", "It called, and is told to leave")
        return device, [model.unenroll(self._enrollment.settings.provider_id, 0)]

    async def tell(self, tx: Tx, device_id: str) -> None:
        """Have it told to leave when it calls. Raises NoSuchStray."""
        if not await store.strays(tx, device_id):
            raise NoSuchStray(
                "This device has not called since it left.",
                cure="Those that do are listed: `tandem managed-device strays`.",
            )
        await store.order_stray(tx, device_id, self._now())
        device = await enrollment.device(tx, device_id)
        text = "An administrator has it told to leave when it calls"
        await self._enrollment.note(tx, device, "stray", text)


def _leaves(message: Message) -> bool:
    return any(
        item.type.endswith(model.UNENROLL_ALERT)
        for whole in message.commands
        for command in whole.each
        for item in command.items
    )


async def strays(tx: Tx) -> list[Stray]:
    return await store.strays(tx)
