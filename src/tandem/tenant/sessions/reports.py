"""What a device reports in a session, and what becomes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tandem.infra import events
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import ccm, syncml
from tandem.protocols.syncml import Challenge, Command, Message, Results, Status
from tandem.tenant import enrollment
from tandem.tenant.enrollment import CONFIG_INFO_URI, Device, Enrollment
from tandem.tenant.sessions import account, configuring, course, installs, model, store
from tandem.tenant.sessions.configuring import Configuring
from tandem.tenant.sessions.installs import Installs
from tandem.tenant.sessions.model import Hold, Order, Sent
from tandem.tenant.sessions.orders import Orders
from tandem.tenant.sessions.store import Session
from tandem.workloads import Authority, Workload, owners

# Statuses that say that we sent nonsense (section 11.4): sent again, it is nonsense again.
_OUR_FAULTS = (400, 415)
_SET_ASIDE = ("setting", "removal", "install", "uninstall", account.KIND)


@dataclass(slots=True)
class Taken:
    """What came of a message. `left`: the device is not enrolled any more. `answered` are the
    commands, by message and id, whose Status came; `refused` our messages that it refuses as a
    whole. `user`: whether somebody is signed in, None when it does not say. `challenge`: it wants
    us to prove ourselves. `refusals`: some setting was not taken."""

    left: bool = False
    user: bool | None = None
    held: bool = False
    refusals: bool = False
    challenge: Challenge | None = None
    answered: set[tuple[str, str]] = field(default_factory=set)
    refused: list[tuple[str, int]] = field(default_factory=list)
    corrections: list[Order] = field(default_factory=list)

    def header(self, status: Status) -> None:
        if status.challenge is not None and status.code in (401, 407):
            self.challenge = status.challenge
        if status.code >= 400:
            self.refused.append((status.message_ref, status.code))


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
    ) -> Taken:
        """Keep what the message says."""
        sent = before.sent if before is not None and not begins else {}
        made = Taken()
        settings: list[tuple[Sent, Status]] = []
        for status in message.statuses:
            if status.command_ref == "0":
                made.header(status)
                continue
            what = sent.get(status.message_ref, {}).get(status.command_ref)
            if what is None:
                continue
            made.answered.add((status.message_ref, status.command_ref))
            if what.kind in configuring.KINDS:
                made.refusals = made.refusals or not 200 <= status.code < 300
                if status.code not in model.NOT_DONE:
                    settings.append((what, status))
            else:
                await self._status(tx, device, what, status)
            if status.code in _OUR_FAULTS and what.kind in _SET_ASIDE:
                made.held = True
                reason = f"the device does not understand the command (status {status.code})"
                await self.set_aside(tx, device, what, status.code, reason)
        if settings:
            await self._configuring.answered(tx, device, settings)
        answers = _answers(sent, message.results)
        made.corrections = account.corrections(answers, self._enrollment.settings)
        await self._results(tx, device, answers)
        for whole in message.commands:
            for command in whole.each:
                if command.name == "Alert":
                    made.user = model.signed_in(command, made.user)
                    if await self._alert(tx, device, command):
                        made.left = True
                        return made
                if command.name == "Replace":
                    await self._told(tx, device, command)
        return made

    async def set_aside(self, tx: Tx, device: Device, sent: Sent, code: int, reason: str) -> None:
        """This device does not get the command any more until somebody releases it."""
        held = Hold(device.id, sent.kind, sent.subject[:512], code, reason, self._now())
        await store.hold(tx, device.id, held, course.value_mark(sent))
        text = f"{sent.subject} is set aside: {reason}. The rest goes on"
        await self._enrollment.note(tx, device, "set-aside", text)

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
        elif what.kind == account.KIND and not good:
            text = f"{what.subject} of the account is not set ({told})"
            await self._enrollment.note(tx, device, "account", text)
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
        csps = answers.get(syncml.normal(account.CSP_VERSIONS))
        if csps is not None:
            build = known.get("os_version") or device.os_version
            await store.save_capabilities(tx, device.id, build, account.csps(csps))
            await enrollment.save_inventory(tx, device.id, {"csps_of": build}, None)

    async def _config_info(self, tx: Tx, device: Device, text: str, now: datetime) -> None:
        text = text[:4096]
        if text == device.config_info:
            return
        before, after = device.agent or ccm.ConfigInfo(), enrollment.agent_of(text)
        moves = _moves(device.flags, after.flags if after.policy else None)
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
        if moves or (text and after.flags != before.flags):
            line = f"Workload flags are {after.flags if text else 'gone'}{moves}"
            await self._enrollment.note(tx, device, "workloads", line, trace=after.trace)
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


def _moves(before: int | None, after: int | None) -> str:
    """Which workloads changed hands, and what follows for their policies here (comanagement, F16
    and F17). Flags count only of a client that has policy; without one all is the MDM service's."""
    told = ""
    was, now = (_owners(flags) for flags in (before, after))
    for owner, words in (
        (Authority.MDM, "come from the MDM service now"),
        (Authority.SITE, "are the site's now, and are withheld here"),
    ):
        moved = [one.title for one in Workload if now[one] is owner and was[one] is not owner]
        told += f"; {', '.join(moved)} {words}" if moved else ""
    return told


def _owners(flags: int | None) -> dict[Workload, Authority]:
    return dict.fromkeys(Workload, Authority.MDM) if flags is None else owners(flags)
