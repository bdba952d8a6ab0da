"""What a device is to do in a session: questions first, then orders, apps and settings."""

from collections.abc import Collection

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols.syncml import Message
from tandem.tenant import directory, enrollment, licensing
from tandem.tenant.enrollment import Device
from tandem.tenant.sessions import model
from tandem.tenant.sessions.configuring import Configuring
from tandem.tenant.sessions.installs import Installs
from tandem.tenant.sessions.model import Order, Sent
from tandem.tenant.sessions.orders import Orders
from tandem.tenant.sessions.quiet import inventory_is_old
from tandem.tenant.sessions.store import Session

_MESSAGES_MOST = 60


class Work:
    """Computes what is next for a device."""

    def __init__(
        self, orders: Orders, installs: Installs, configuring: Configuring, now: Clock
    ) -> None:
        self._orders = orders
        self._installs = installs
        self._configuring = configuring
        self._now = now

    async def next(
        self, tx: Tx, device: Device, before: Session | None, message: Message, begins: bool
    ) -> tuple[bool, list[Order], bool]:
        """Questions first; when they are answered, work until there is none.

        Returns whether there are questions that the device has not answered yet, what it is to
        do, and whether it is settled: nothing is to do or awaited, until something is changed.
        """
        if begins:
            old = inventory_is_old(device.inventory, device.inventory_at, self._now())
            installs = await self._installs.questions(tx, device, inventory=old)
            return True, [*model.questions(old), *installs], False
        asked = before is not None and before.asked
        if not message.final:
            return asked, [], False  # The device is busy and keeps the session open (section 11.9).
        if before is None or message.number > _MESSAGES_MOST:
            return False, [], False
        done = {what for sent in before.sent.values() for what in sent.values()}
        orders, restless = await self._work(tx, device, done)
        return False, model.batch(orders, done), not orders and not restless

    async def _work(
        self, tx: Tx, device: Device, done: Collection[Sent]
    ) -> tuple[list[Order], bool]:
        """What is to do, and whether more may be to do later though nothing is changed."""
        given = {what.order for what in done if what.order}
        actions, nothing_else = await self._orders.hand_out(tx, device, given)
        if nothing_else:
            return actions, True
        if device.state != "enrolled" or not await _licensed(tx, device):
            return actions, device.state != "enrolled"
        groups = await enrollment.groups_of(tx, device)
        installs, restless = await self._installs.orders(tx, device, groups, done)
        settings, waiting = await self._configuring.orders(tx, device, groups, user_here=False)
        return [*actions, *installs, *settings], restless or waiting


async def _licensed(tx: Tx, device: Device) -> bool:
    """Nothing new is handed out to a user without a licence; the device stays enrolled."""
    try:
        await licensing.check_mdm_licence(tx, device.user_id)
    except licensing.NoMdmLicence:
        return False
    return await directory.find_user(tx, device.user_id) is not None
