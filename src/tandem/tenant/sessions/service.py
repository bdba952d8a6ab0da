"""Sessions with enrolled devices: what they report is kept, what they are to do is computed.

A command is done when its Status arrives. What an answer brought that the device never got is simply
computed again in its next session; a device that repeats a message gets the answer it was given.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

from tandem.infra import events
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import ccm, syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status
from tandem.tenant import directory, enrollment, licensing, mobile_apps, policies
from tandem.tenant.enrollment import CONFIG_INFO_URI, Device, Enrollment, NotEnrolled
from tandem.tenant.mobile_apps import Content
from tandem.tenant.sessions import model, store
from tandem.tenant.sessions.model import ActionResult, Order, Sent
from tandem.tenant.sessions.store import Session

_INVENTORY_EVERY = timedelta(hours=24)
_MESSAGES_MOST = 60
_GRAPH_NAMES = {"unenroll": "retire"}
# A first message that comes again later than this is a session of its own (section 11.3).
_REPEATS_WITHIN = timedelta(minutes=10)
_WIPES = ("wipe", "cleanWindowsDevice")
# The status of an order that no device can carry out (SyncML: command not implemented).
NOT_SUPPORTED = 501
# How long a device that was told to leave has for saying that it did (section 14).
_LEAVING = timedelta(days=1)


class Sessions:
    """The management service: one call of `exchange` for each message of a device."""

    def __init__(self, enrollment: Enrollment, content: Content, now: Clock, url: str) -> None:
        self._enrollment = enrollment
        self._content = content
        self._now = now
        self._url = url

    async def exchange(self, tx: Tx, certificate: bytes | None, message: Message) -> bytes:
        """The answer to a message. Raises NotEnrolled."""
        device = await self._enrollment.authenticate(tx, certificate, message.source)
        if _names_another(message, device):
            raise NotEnrolled("This device is not enrolled.", claimed="DevId")
        before = await store.session(tx, device.id)
        now = self._now()
        first = before.first_sha256 if before is not None else ""
        if message.number == 1:
            # Compared as it was understood: white space and prefixes say nothing.
            first = sha256(syncml.write(message)).hexdigest()
        begins = message.number == 1 and (
            before is None or not _repeats(before, message, first, now)
        )
        if before is not None and not begins:
            if before.session != message.session or message.number < before.number:
                # Late, or of another session: nothing is done, and the session ends.
                return self._closing(message)
            if message.number == before.number:
                return before.answer
        elif before is None and message.number != 1:
            return self._closing(message)
        await enrollment.mark_seen(tx, device.id, now)
        if begins:
            await self._came(tx, device, now)
        ended = await self._take(tx, device, before, message, begins)
        if ended or any((c.name, c.data) == ("Alert", model.ABORT) for c in message.commands):
            return self._closing(message)
        device = await enrollment.device(tx, device.id)
        asked, orders = await self._next(tx, device, before, message, begins)
        open_before = {} if begins or before is None else before.sent
        return await self._answer(tx, device, message, orders, asked, open_before, first)

    async def _came(self, tx: Tx, device: Device, now: datetime) -> None:
        """A session is what an administrator who asked for a sync wanted."""
        for order in await store.open_commands(tx, device.id):
            if order["kind"] == "syncDevice":
                await store.end_command(tx, order["id"], now, 200)

    # -------------------------------------------------------------- what a device reports

    async def _take(
        self, tx: Tx, device: Device, before: Session | None, message: Message, begins: bool
    ) -> bool:
        """Keep what the message says. Returns whether the device has left."""
        sent = before.sent if before is not None and not begins else {}
        for status in message.statuses:
            what = sent.get(status.message_ref, {}).get(status.command_ref)
            if what is not None:
                await self._status(tx, device, what, status)
        await self._results(tx, device, _answers(sent, message.results))
        for command in message.commands:
            if command.name == "Alert" and await self._alert(tx, device, command):
                return True
            if command.name == "Replace":
                await self._told(tx, device, command)
        return False

    async def _status(self, tx: Tx, device: Device, what: Sent, status: Status) -> None:
        now = self._now()
        good = 200 <= status.code < 300
        told = f"status {status.code}"
        told += f", {status.original_error[:32]}" if status.original_error else ""
        if status.code in model.NOT_DONE:
            return
        if what.kind == "setting":
            await store.save_delivery(
                tx, device.id, what.subject, what.value, status.code, what.workload, now
            )
            text = (
                f"{what.subject} set to {what.value}"
                if good
                else (f"{what.subject} refused by the device ({told})")
            )
            await self._enrollment.note(tx, device, "setting", text)
            if status.code == 403:
                # The site's client keeps this workload: ask again once its flags say otherwise.
                await store.forget_delivery(tx, device.id, what.subject)
        elif what.kind == "removal":
            await self._removed(tx, device, what.subject, status)
        elif what.kind == "install":
            state = "installing" if good else "failed"
            # A new device may not know the node yet (section 12.3): offered again next time.
            state = "offered" if status.code == 404 else state
            code = 0 if good else status.code
            try:
                app = await mobile_apps.app(tx, what.subject)
            except mobile_apps.NoSuchApp:
                return  # It was deleted since: nobody asks what became of it.
            await mobile_apps.save_status(tx, app.id, device.id, state, code, what.value, now)
            text = f"{app.name}: installation {'began' if good else f'was refused ({told})'}"
            await self._enrollment.note(tx, device, "app", text)
        elif what.kind == "uninstall":
            await self._uninstalled(tx, device, what.subject, status, told)
        elif what.kind == "action":
            await store.end_command(tx, what.order, now, status.code)
            text = f"{what.subject}: " + (
                "the device has it" if good else f"refused by the device ({told})"
            )
            await self._enrollment.note(tx, device, "action", text)
            if what.subject in _WIPES:
                state = "wipeIssued" if good else "wipeFailed"
                await enrollment.set_management(tx, device.id, "management_state", state)
        elif what.kind == "unenroll" and not good:
            # It is told again at its next session: the order stands until the device has left.
            text = f"The device refuses to leave ({told})"
            await self._enrollment.note(tx, device, "unenrolling", text)
        elif (what.kind, what.subject, status.code) == ("ask", CONFIG_INFO_URI, 404):
            await self._config_info(tx, device, "", now)

    async def _uninstalled(
        self, tx: Tx, device: Device, app_id: str, status: Status, told: str
    ) -> None:
        try:
            app = await mobile_apps.app(tx, app_id)
        except mobile_apps.NoSuchApp:
            return  # It was deleted since: nobody asks what became of it.
        if 200 <= status.code < 300 or status.code == 404:
            await mobile_apps.forget_status(tx, app.id, device.id)
            await self._enrollment.note(tx, device, "app", f"{app.name}: uninstalled")
            return
        now = self._now()
        await mobile_apps.save_status(
            tx, app.id, device.id, "uninstallFailed", status.code, model.fingerprint(app), now
        )
        text = f"{app.name}: uninstalling was refused ({told})"
        await self._enrollment.note(tx, device, "app", text)

    async def _removed(self, tx: Tx, device: Device, setting: str, status: Status) -> None:
        if status.code == 403:
            return  # The site's client keeps this workload: asked again at the next session.
        await store.forget_delivery(tx, device.id, setting)
        good = 200 <= status.code < 300 or status.code == 404
        text = f"{setting} removed" if good else f"{setting} stays (status {status.code})"
        await self._enrollment.note(tx, device, "setting", text)

    async def _results(self, tx: Tx, device: Device, answers: dict[str, str]) -> None:
        now = self._now()
        agent = answers.get(syncml.normal(CONFIG_INFO_URI))
        if agent is not None:
            await self._config_info(tx, device, agent, now)
        known = {
            name: model.inventory_value(name, answers[syncml.normal(uri)])
            for uri, name in model.INVENTORY.items()
            if syncml.normal(uri) in answers
        }
        if known:
            await enrollment.save_inventory(tx, device.id, known, now)
        if any(uri.startswith(syncml.normal(model.MSI)) for uri in answers):
            await self._install_states(tx, device, answers)

    async def _config_info(self, tx: Tx, device: Device, text: str, now: datetime) -> None:
        text = text[:4096]
        if text == device.config_info:
            return
        before, after = device.agent or ccm.ConfigInfo(), enrollment.agent_of(text)
        if not text:
            await self._enrollment.note(tx, device, "client", "The site's client is gone")
        await enrollment.save_config_info(tx, device.id, text, now)
        if after.setup and after.setup != before.setup:
            code = f"0x{after.code & 0xFFFFFFFF:08x}" if after.code else ""
            line = f"Client setup: state {after.setup}. {after.log}".strip()
            await self._enrollment.note(tx, device, "client-setup", line, code)
        if after.client and after.client != before.client:
            await self._enrollment.note(
                tx, device, "client", f"The site's client registered as {after.client}"
            )
        if after.policy and not before.policy:
            await self._enrollment.note(tx, device, "client", "The site's policy is present")
        if after.flags != before.flags and text:
            await self._enrollment.note(
                tx, device, "workloads", f"Workload flags are {after.flags}"
            )
        await events.record(
            tx, "device.config-info", device.id, {"flags": after.flags, "policy": after.policy}
        )

    async def _install_states(self, tx: Tx, device: Device, answers: dict[str, str]) -> None:
        for app in await mobile_apps.apps(tx):
            node = syncml.normal(f"{model.MSI}/{app.product_code}")
            status = model.whole(answers.get(f"{node}/status"))
            if status is not None:
                state = model.install_state(status)
                error = model.whole(answers.get(f"{node}/lasterror")) or 0
                await self._installed(tx, device, app, state, error if state == "failed" else 0)

    async def _installed(
        self, tx: Tx, device: Device, app: mobile_apps.App, state: str, code: int
    ) -> None:
        known = await mobile_apps.statuses(tx, app_id=app.id, device_id=device.id)
        if known and known[0].state == state and known[0].code == code:
            return
        await mobile_apps.save_status(
            tx, app.id, device.id, state, code, model.fingerprint(app), self._now()
        )
        text = f"{app.name}: {state}"
        await self._enrollment.note(
            tx, device, "app", text, f"0x{code & 0xFFFFFFFF:08x}" if code else ""
        )

    async def _alert(self, tx: Tx, device: Device, command: Command) -> bool:
        """Returns whether the device leaves with it."""
        for item in command.items:
            if item.type.endswith(model.UNENROLL_ALERT):
                why = (
                    "Ended by an administrator"
                    if device.state == "unenrolling"
                    else ("Ended on the device")
                )
                for order in await store.open_commands(tx, device.id):
                    await store.end_command(tx, order["id"], self._now())
                await self._enrollment.end(tx, device, why)
                return True
            if item.type.endswith(model.MSI_ALERT):
                await self._msi_alert(tx, device, item)
        return False

    async def _msi_alert(self, tx: Tx, device: Device, item: Item) -> None:
        code = model.whole(item.data)
        if code is None:
            return  # How it ended is asked for at the next session.
        uri = syncml.normal(item.source or item.target)
        for app in await mobile_apps.apps(tx):
            if app.product_code and app.product_code.lower() in uri:
                # A restart that is still to come does not make it a failure.
                good = code in {0, 3010, 1641}
                await self._installed(
                    tx, device, app, "installed" if good else "failed", 0 if good else code
                )

    async def _told(self, tx: Tx, device: Device, command: Command) -> None:
        known = {
            name: model.inventory_value(name, item.data or "")
            for item in command.items
            for uri, name in model.DEVICE_INFO.items()
            if syncml.same_node(item.source or item.target, uri)
        }
        if known:
            await enrollment.save_inventory(tx, device.id, known, None)

    # -------------------------------------------------------------- what a device is to do

    async def _next(
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

    # -------------------------------------------------------------- the answer

    async def _answer(
        self,
        tx: Tx,
        device: Device,
        message: Message,
        orders: list[Order],
        asked: bool,
        open_before: dict[str, dict[str, Sent]],
        first_sha256: str,
    ) -> bytes:
        statuses = _statuses(message)
        made, sent = model.commands(orders, len(statuses) + 1)
        answer = syncml.write(
            Message(
                message.session,
                message.number,
                message.source,
                self._url,
                tuple(made),
                tuple(statuses),
            )
        )
        kept = Session(
            message.session,
            message.number,
            answer,
            {**open_before, str(message.number): sent},
            asked,
            self._now(),
            first_sha256,
        )
        await store.save_session(tx, device.id, kept)
        return answer

    def _closing(self, message: Message) -> bytes:
        """Statuses and nothing more: the device ends the session."""
        return syncml.write(
            Message(
                message.session,
                message.number,
                message.source,
                self._url,
                (),
                tuple(_statuses(message)),
            )
        )

    # -------------------------------------------------------------- orders of administrators

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
        if kind in _WIPES:
            await enrollment.set_management(tx, device.id, "management_state", "wipePending")

    async def tend(self, tx: Tx) -> None:
        """Devices that were told to leave and were never heard of again have left."""
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


def _names_another(message: Message, device: Device) -> bool:
    """Whether it says another DevId than its certificate was issued for (section 11.7)."""
    return any(
        (item.data or "").strip() != device.windows_id
        for command in message.commands
        if command.name == "Replace"
        for item in command.items
        if syncml.same_node(item.source or item.target, model.DEVICE_ID)
    )


def _answers(sent: dict[str, dict[str, Sent]], given: Sequence[Results]) -> dict[str, str]:
    """Values by node, of what this session asked for; anything else is passed over."""
    found: dict[str, str] = {}
    for results in given:
        what = sent.get(results.message_ref, {}).get(results.command_ref)
        if what is not None and what.kind == "ask":
            for item in results.items:
                uri = item.source or item.target or what.subject
                found[syncml.normal(uri)] = (item.data or "").strip()
    return found


async def _present(tx: Tx, device_id: str) -> Device:
    """A device that has not left. Raises NoSuchDevice."""
    device = await enrollment.device(tx, device_id)
    if device.state == "unenrolled":
        raise enrollment.NoSuchDevice(
            f"The device {device.name} has left the MDM service.", cure="It can enroll again."
        )
    return device


def _repeats(before: Session, message: Message, first: str, now: datetime) -> bool:
    """The same first message again: its answer was lost on the way.

    Session ids come again after a restart of the device (section 11.2), so a message that says
    something else, or comes much later, begins a session.
    """
    return (
        (before.session, before.number) == (message.session, 1)
        and now - before.changed_at <= _REPEATS_WITHIN
        and before.first_sha256 == first
    )


def _statuses(message: Message) -> list[Status]:
    """200 for the header and for each command of the device that has an id, in order.

    Statuses and results are not answered (section 11.3).
    """
    number = str(message.number)
    made = [Status("1", number, "0", "SyncHdr", 200)]
    for command in message.commands:
        if command.id:
            made.append(Status(str(len(made) + 1), number, command.id, command.name, 200))
    return made


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


async def deliveries(tx: Tx, device_id: str) -> dict[str, model.Delivery]:
    """Settings that a device took, with the value and its status code."""
    return await store.deliveries(tx, device_id)
