"""Sessions with enrolled devices: what they report is kept, what they are to do is computed.

A command is done when its Status arrives. What an answer brought that the device never got is simply
computed again in its next session; a device that repeats a message gets the answer it was given.
"""

from datetime import datetime, timedelta

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import syncml
from tandem.protocols.syncml import Message
from tandem.tenant import enrollment
from tandem.tenant.enrollment import Device, Enrollment, NotEnrolled
from tandem.tenant.mobile_apps import Content
from tandem.tenant.policies import Policies
from tandem.tenant.sessions import model, quiet, store
from tandem.tenant.sessions.actions import Safeguards
from tandem.tenant.sessions.configuring import Configuring
from tandem.tenant.sessions.installs import Installs
from tandem.tenant.sessions.model import Order, Sent
from tandem.tenant.sessions.orders import Orders
from tandem.tenant.sessions.reports import Reports
from tandem.tenant.sessions.store import Session
from tandem.tenant.sessions.wakes import Wakes
from tandem.tenant.sessions.work import Work

# A first message that comes again later than this is a session of its own (section 11.3).
_REPEATS_WITHIN = timedelta(minutes=10)


class Sessions(Orders):
    """The management service: one call of `exchange` for each message of a device."""

    def __init__(
        self,
        enrollment: Enrollment,
        content: Content,
        now: Clock,
        url: str,
        *,
        safeguards: Safeguards | None = None,
        wakes: Wakes | None = None,
    ) -> None:
        super().__init__(enrollment, now, safeguards, wakes)
        installs = Installs(enrollment, content, now)
        self.policies = Policies()
        configuring = Configuring(enrollment, self.policies, now)
        self._reports = Reports(enrollment, self, installs, configuring, now)
        self._work = Work(self, installs, configuring, now)
        self._quiet = quiet.Quiet(now, url)
        self._url = url

    async def quietly(
        self, connection: Tx, certificate: bytes | None, message: Message
    ) -> bytes | None:
        """The answer to a message in which nothing is new; None, and nothing done, for any other.

        `connection` commits each statement by itself.
        """
        return await self._quiet.answer(connection, certificate, message)

    async def forget(self, tx: Tx) -> None:
        """What has changed long ago is not remembered."""
        await store.forget_changes(tx, self._now())

    async def exchange(self, tx: Tx, certificate: bytes | None, message: Message) -> bytes:
        """The answer to a message. Raises NotEnrolled."""
        device = await self._enrollment.authenticate(tx, certificate, message.source)
        if _names_another(message, device):
            raise NotEnrolled("This device is not enrolled.", claimed="DevId")
        before = await store.session(tx, device.id)
        now = self._now()
        first = before.first_sha256 if before is not None else ""
        if message.number == 1:
            first = quiet.digest(message)
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
            await self.came(tx, device, now)
        ended = await self._reports.take(tx, device, before, message, begins)
        if ended or any((c.name, c.data) == ("Alert", model.ABORT) for c in message.commands):
            return self._closing(message)
        device = await enrollment.device(tx, device.id)
        asked, orders, settled = await self._work.next(tx, device, before, message, begins)
        open_before = {} if begins or before is None else before.sent
        snapshot = before.snapshot if settled and before is not None else None
        return await self._answer(tx, device, message, orders, asked, open_before, first, snapshot)

    async def _answer(
        self,
        tx: Tx,
        device: Device,
        message: Message,
        orders: list[Order],
        asked: bool,
        open_before: dict[str, dict[str, Sent]],
        first_sha256: str,
        snapshot: str | None,
    ) -> bytes:
        statuses = model.statuses(message)
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
            snapshot,
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
                tuple(model.statuses(message)),
            )
        )


def _names_another(message: Message, device: Device) -> bool:
    """Whether it says another DevId than its certificate was issued for (section 11.7)."""
    return any(
        (item.data or "").strip() != device.windows_id
        for command in message.commands
        if command.name == "Replace"
        for item in command.items
        if syncml.same_node(item.source or item.target, model.DEVICE_ID)
    )


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


async def deliveries(tx: Tx, device_id: str) -> dict[str, model.Delivery]:
    """Settings that a device took, with the value and its status code."""
    return await store.deliveries(tx, device_id)
