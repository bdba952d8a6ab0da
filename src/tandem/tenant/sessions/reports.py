"""What a device reports in a session, and what becomes of it."""

from collections.abc import Sequence
from datetime import datetime

from tandem.infra import events
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import ccm, syncml
from tandem.protocols.syncml import Command, Message, Results, Status
from tandem.tenant import enrollment
from tandem.tenant.enrollment import CONFIG_INFO_URI, Device, Enrollment
from tandem.tenant.sessions import configuring, installs, model
from tandem.tenant.sessions.configuring import Configuring
from tandem.tenant.sessions.installs import Installs
from tandem.tenant.sessions.model import Sent
from tandem.tenant.sessions.orders import Orders
from tandem.tenant.sessions.store import Session


class Reports:
    """Keeps what devices say."""

    def __init__(
        self,
        enrollment: Enrollment,
        orders: Orders,
        installs: Installs,
        configuring: Configuring,
        now: Clock,
    ) -> None:
        self._enrollment = enrollment
        self._orders = orders
        self._installs = installs
        self._configuring = configuring
        self._now = now

    async def take(
        self, tx: Tx, device: Device, before: Session | None, message: Message, begins: bool
    ) -> bool:
        """Keep what the message says. Returns whether the device has left."""
        sent = before.sent if before is not None and not begins else {}
        settings: list[tuple[Sent, Status]] = []
        for status in message.statuses:
            what = sent.get(status.message_ref, {}).get(status.command_ref)
            if what is None:
                continue
            if what.kind in configuring.KINDS:
                if status.code not in model.NOT_DONE:
                    settings.append((what, status))
            else:
                await self._status(tx, device, what, status)
        if settings:
            await self._configuring.answered(tx, device, settings)
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
        if what.kind == "action":
            await self._orders.answered(tx, device, what.order, status.code)
            return
        if status.code in model.NOT_DONE:
            return
        if what.kind in installs.KINDS:
            await self._installs.status(tx, device, what, status, told)
        elif what.kind == "unenroll" and not good:
            # It is told again at its next session: the order stands until the device has left.
            text = f"The device refuses to leave ({told})"
            await self._enrollment.note(tx, device, "unenrolling", text)
        elif (what.kind, what.subject, status.code) == ("ask", CONFIG_INFO_URI, 404):
            await self._config_info(tx, device, "", now)
        elif (what.kind, status.code) == ("ask", 404):
            await self._installs.absent(tx, device, what.subject)

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
        await self._installs.answers(tx, device, answers)

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

    async def _alert(self, tx: Tx, device: Device, command: Command) -> bool:
        """Returns whether the device leaves with it."""
        for item in command.items:
            if item.type.endswith(model.UNENROLL_ALERT):
                why = (
                    "Ended by an administrator"
                    if device.state == "unenrolling"
                    else ("Ended on the device")
                )
                await self._orders.left(tx, device)
                await self._enrollment.end(tx, device, why)
                return True
            if item.type.endswith(installs.MSI_ALERT):
                await self._installs.alert(tx, device, item)
        return False

    async def _told(self, tx: Tx, device: Device, command: Command) -> None:
        known = {
            name: model.inventory_value(name, item.data or "")
            for item in command.items
            for uri, name in model.DEVICE_INFO.items()
            if syncml.same_node(item.source or item.target, uri)
        }
        if known:
            await enrollment.save_inventory(tx, device.id, known, None)


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
