"""What a device is to do in a session: questions first, then orders, apps and settings."""

from datetime import timedelta

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols.syncml import Item, Message
from tandem.tenant import directory, enrollment, licensing, mobile_apps, policies
from tandem.tenant.enrollment import Device, Enrollment
from tandem.tenant.mobile_apps import Content
from tandem.tenant.sessions import model, store
from tandem.tenant.sessions.model import Order, Sent
from tandem.tenant.sessions.store import Session

_INVENTORY_EVERY = timedelta(hours=24)
_MESSAGES_MOST = 60


class Work:
    """Computes what is next for a device."""

    def __init__(self, enrollment: Enrollment, content: Content, now: Clock) -> None:
        self._enrollment = enrollment
        self._content = content
        self._now = now

    async def next(
        self, tx: Tx, device: Device, before: Session | None, message: Message, begins: bool
    ) -> tuple[bool, list[Order]]:
        """Questions first; when they are answered, work until there is none.

        Returns whether there are questions that the device has not answered yet.
        """
        if begins:
            old = device.inventory_at is None or (
                self._now() - device.inventory_at > _INVENTORY_EVERY
            )
            statuses = await mobile_apps.statuses(tx, device_id=device.id)
            running = [
                (await mobile_apps.app(tx, item.app_id)).product_code
                for item in statuses
                if item.state == "installing"
            ]
            return True, model.questions(old or "serial_number" not in device.inventory, running)
        asked = before is not None and before.asked
        if not message.final:
            return asked, []  # The device is busy and keeps the session open (section 11.9).
        if before is None or message.number > _MESSAGES_MOST:
            return False, []
        done = {what for sent in before.sent.values() for what in sent.values()}
        return False, model.batch(await self._work(tx, device), done)

    async def _work(self, tx: Tx, device: Device) -> list[Order]:
        for order in await store.open_commands(tx, device.id):
            if order["kind"] == "unenroll":
                await store.mark_sent(tx, order["id"], self._now())
                return [_unenroll(self._enrollment.settings.provider_id, order["id"])]
        actions = []
        for order in await store.open_commands(tx, device.id):
            if order["kind"] in model.ACTIONS:
                await store.mark_sent(tx, order["id"], self._now())
                actions.append(model.action(order["kind"], order["data"], order["id"]))
        if device.state != "enrolled" or not await _licensed(tx, device):
            return actions
        groups = await enrollment.groups_of(tx, device)
        statuses = {
            item.app_id: item for item in await mobile_apps.statuses(tx, device_id=device.id)
        }
        apps = await mobile_apps.required(tx, groups)
        losing = await mobile_apps.unwanted(tx, groups)
        links = {app.id: self._content.link(app, self._now()) for app in apps}
        wanted = await policies.effective(tx, groups, device.flags)
        delivered = await store.deliveries(tx, device.id)
        removals, lapsing = model.unwanted(wanted, delivered, device.flags)
        for subject in lapsing:
            await store.lapse_delivery(tx, device.id, subject)
        return [
            *actions,
            *model.uninstalls(losing, statuses, self._now()),
            *model.installs(apps, statuses, links, self._now()),
            *removals,
            *model.settings(wanted, delivered),
        ]


def _unenroll(provider: str, order: int) -> Order:
    uri = f"./Vendor/MSFT/DMClient/Provider/{provider}/Unenroll"
    item = Item(target=uri, data=provider, format="chr", type="text/plain")
    return Order(Sent("unenroll", provider, order=order), "Exec", item)


async def _licensed(tx: Tx, device: Device) -> bool:
    """Nothing new is handed out to a user without a licence; the device stays enrolled."""
    try:
        await licensing.check_mdm_licence(tx, device.user_id)
    except licensing.NoMdmLicence:
        return False
    return await directory.find_user(tx, device.user_id) is not None
