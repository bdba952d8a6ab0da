"""What a device is to do in a session: questions first, then orders, apps and settings."""

from collections.abc import Collection
from dataclasses import dataclass, field

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols.syncml import Item, Message
from tandem.tenant import directory, enrollment, licensing
from tandem.tenant.enrollment import Device, EnrollmentSettings
from tandem.tenant.sessions import account, model
from tandem.tenant.sessions.configuring import Configuring
from tandem.tenant.sessions.installs import Installs
from tandem.tenant.sessions.model import Order, Sent
from tandem.tenant.sessions.orders import Orders
from tandem.tenant.sessions.quiet import inventory_is_old
from tandem.tenant.sessions.store import Session


@dataclass(frozen=True, slots=True)
class Next:
    """What is next. `asked`: these are questions, or some are not answered yet. `settled`: when
    there are no orders, there will be none until something is changed. `alone`: nothing besides."""

    orders: list[Order] = field(default_factory=list)
    asked: bool = False
    settled: bool = False
    alone: bool = False


class Work:
    """Computes what is next for a device."""

    def __init__(
        self,
        settings: EnrollmentSettings,
        orders: Orders,
        installs: Installs,
        configuring: Configuring,
        now: Clock,
    ) -> None:
        self._settings = settings
        self._orders = orders
        self._installs = installs
        self._configuring = configuring
        self._now = now

    async def next(
        self, tx: Tx, device: Device, before: Session | None, message: Message, begins: bool
    ) -> Next:
        """Questions first; when they are answered, work until there is none."""
        if begins:
            old = inventory_is_old(device.inventory, device.inventory_at, self._now())
            running = await self._installs.questions(tx, device, inventory=old)
            return Next([*model.questions(old), *self._account(device, old), *running], asked=True)
        if not message.final:
            # The device is busy and keeps the session open (section 11.9).
            return Next(asked=before is not None and before.asked)
        if before is None:
            return Next()
        if before.course.questions:
            uris = before.course.questions
            return Next([Order(Sent("ask", uri), "Get", Item(target=uri)) for uri in uris], True)
        done = {what for sent in before.sent.values() for what in sent.values()}
        return await self._work(tx, device, done, before.course.user)

    def _account(self, device: Device, old: bool) -> list[Order]:
        """How the account stands, asked with the inventory; the CSPs once for each OS version."""
        if not old:
            return []
        orders = account.questions(self._settings)
        if device.inventory.get("csps_of") != device.os_version:
            orders.append(account.csp_question())
        return orders

    async def _work(self, tx: Tx, device: Device, done: Collection[Sent], user: bool) -> Next:
        given = {what.order for what in done if what.order}
        actions, nothing_else = await self._orders.hand_out(tx, device, given)
        if nothing_else:
            return Next(actions, alone=True)
        if device.state != "enrolled" or not await _licensed(tx, device):
            return Next(actions, settled=device.state == "enrolled")
        groups = await enrollment.groups_of(tx, device)
        installs, restless = await self._installs.orders(
            tx, device, groups, done, user_signed_in=user
        )
        settings, waiting = await self._configuring.orders(tx, device, groups, user_here=user)
        return Next([*actions, *installs, *settings], settled=not restless and not waiting)


async def _licensed(tx: Tx, device: Device) -> bool:
    """Nothing new is handed out to a user without a licence; the device stays enrolled."""
    try:
        await licensing.check_mdm_licence(tx, device.user_id)
    except licensing.NoMdmLicence:
        return False
    return await directory.find_user(tx, device.user_id) is not None
