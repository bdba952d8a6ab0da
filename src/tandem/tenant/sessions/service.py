"""Sessions with enrolled devices: what they report is kept, what they are to do is computed.

A command is done when its Status arrives. What an answer brought that the device never got is simply
computed again in its next session; a device that repeats a message gets the answer it was given.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.logs import get_logger
from tandem.protocols import syncml
from tandem.protocols.syncml import Message, Status
from tandem.tenant import enrollment
from tandem.tenant.enrollment import Device, Enrollment, NotEnrolled
from tandem.tenant.mobile_apps import Content
from tandem.tenant.policies import Policies
from tandem.tenant.sessions import account, course, model, objects, quiet, store
from tandem.tenant.sessions.actions import Safeguards
from tandem.tenant.sessions.authentication import MD5, Authentication, Peer, Proof
from tandem.tenant.sessions.configuring import KINDS, Configuring
from tandem.tenant.sessions.course import Course
from tandem.tenant.sessions.installs import Installs
from tandem.tenant.sessions.model import Order, Sent
from tandem.tenant.sessions.orders import Orders
from tandem.tenant.sessions.reports import Reports, Taken
from tandem.tenant.sessions.store import Session
from tandem.tenant.sessions.strays import Strays
from tandem.tenant.sessions.wakes import Wakes
from tandem.tenant.sessions.work import Next, Work

log = get_logger("sessions")

# Not executed, and more than is taken (section 11.4).
_NOT_DONE, _TOO_MUCH = 215, 413
# How often a device may have us prove ourselves in one session.
_PROOFS = 2

# A first message that comes again later than this is a session of its own (section 11.3).
_REPEATS_WITHIN = timedelta(minutes=10)
# Messages of one session that follow one another as quickly as this are one sign of life.
_SEEN_EVERY = timedelta(seconds=10)


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
        installs = self._installs = Installs(enrollment, content, now)
        self.policies = Policies()
        self.overdue_after = enrollment.settings.overdue_after
        configuring = Configuring(enrollment, self.policies, now)
        self._reports = Reports(enrollment, self, installs, configuring, now)
        self._work = Work(enrollment.settings, self, installs, configuring, now)
        self._quiet = quiet.Quiet(now, url)
        self._strays = Strays(enrollment, now)
        self._authentication = Authentication(enrollment, content.secret)
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

    async def exchange(self, tx: Tx, peer: Peer, message: Message) -> bytes:
        """The answer to a message. Raises NotEnrolled."""
        now = self._now()
        proof = await self._authentication.prove(tx, peer, message, now)
        if proof.device is None:
            return self._written(message, model.statuses(message, proof.code, proof.challenge)[:1])
        device = proof.device
        if _names_another(message, device):
            raise NotEnrolled("This device is not enrolled.", claimed="DevId")
        before = await store.session(tx, device.id)
        first = before.first_sha256 if before is not None else ""
        if message.number == 1:
            first = quiet.digest(replace(message, credential=None))
        begins = _begins(before, message, proof, first, now)
        if not begins:
            if before is None or before.session != message.session:
                # Its first message may have been answered quietly elsewhere: the next is not.
                await store.unsettle(tx, device.id)
                return self._unheard(message)
            if message.number == before.number:
                if course.proves_less(proof.level, before.course.level):
                    return self._unheard(message)
                return before.answer
            if message.number != before.number + 1:
                return self._unheard(message)
        going = Course() if before is None else before.course
        lost = None
        if begins and before is not None:
            last = list(before.sent.get(str(before.number), {}).values())
            going, lost = course.lose(course.begins(going), last)
        digested = proof.level == course.DIGEST
        going = msgspec.structs.replace(
            course.weighed(going, message, len(peer.body)),
            level=proof.level,
            connection=peer.connection if digested else "",
        )
        if course.over(going, message.number):
            log.warning("session is too long", device=device.id, number=message.number)
            return self._unheard(message, _TOO_MUCH)
        if device.seen_at is None or not -_SEEN_EVERY < now - device.seen_at < _SEEN_EVERY:
            await enrollment.mark_seen(tx, device.id, now)
        if begins:
            await self.came(tx, device, now)
        if lost is not None:
            await self._lost(tx, device, lost)
        parts = await objects.assembled(tx, device.id, going, message)
        taken = await self._reports.take(tx, device, before, parts.message, begins)
        statuses = model.statuses(message, proof.code, proof.challenge, parts.codes)
        if taken.left:
            return self._written(message, statuses)
        sent = {} if begins or before is None else dict(before.sent)
        going = await self._went(tx, device, taken, parts.course, sent)
        answer = _Answer(message, statuses, parts.alerts, first, sent, going)
        if _aborts(message) or going.asked > _PROOFS:
            return await self._answer(tx, device, answer, Next())
        if before is not None and not begins and _nothing_is_left(before, message, taken):
            return await self._answer(
                tx, device, answer, Next(settled=True), before.course.complete
            )
        device = await enrollment.device(tx, device.id)
        resumed = replace(before, sent=sent, course=going) if before is not None else None
        following = await self._work.next(tx, device, resumed, message, begins)
        if message.final and not following.asked and not following.alone:
            following = replace(following, orders=[*taken.corrections, *following.orders])
        snapshot = before.snapshot if before is not None else None
        return await self._answer(tx, device, answer, following, snapshot)

    async def _went(
        self,
        tx: Tx,
        device: Device,
        taken: Taken,
        going: Course,
        sent: dict[str, dict[str, Sent]],
    ) -> Course:
        """How the session goes on after what came. What the device did not get to leaves `sent`."""
        for reference, _ in taken.refused:
            given = sent.pop(reference, {})
            left = [one for id, one in given.items() if (reference, id) not in taken.answered]
            if left and taken.challenge is None:
                going, lost = course.lose(going, left)
                if lost is not None:
                    await self._lost(tx, device, lost)
        challenge = taken.challenge
        return msgspec.structs.replace(
            going,
            user=going.user if taken.user is None else taken.user,
            holds=going.holds or taken.held,
            nonce=b64encode(challenge.nonce).decode() if challenge is not None else going.nonce,
            asked=going.asked + (challenge is not None),
        )

    async def _lost(self, tx: Tx, device: Device, lost: course.Lost) -> None:
        reason = f"the device breaks its sessions off at it ({lost.times} times)"
        await self._reports.set_aside(tx, device, lost.sent, 0, reason)

    async def _answer(
        self,
        tx: Tx,
        device: Device,
        made: "_Answer",
        following: Next,
        snapshot: str | None = None,
    ) -> bytes:
        going, orders = made.going, following.orders
        if going.holds and orders:
            orders = course.without(orders, await store.held_marks(tx, device.id))
        settled = following.settled and not orders
        orders = course.allowed(orders, going.level)
        done = {what for given in made.sent.values() for what in given.values()}
        chosen, too_large = course.batch(orders, done, going, len(made.statuses))
        for order in too_large:
            reason = "it is larger than the messages that the device takes"
            await self._reports.set_aside(tx, device, order.sent, _TOO_MUCH, reason)
        asked = tuple(o.item.target for o in orders if following.asked and o not in chosen)
        whole = following.settled and len(chosen) == len(following.orders)
        going = msgspec.structs.replace(
            going,
            questions=asked,
            holds=going.holds or bool(too_large),
            nonce="",
            complete=(snapshot or "") if whole and _settings_only(chosen) else "",
        )
        alerts = [
            syncml.Command("Alert", str(len(made.statuses) + number), data=data)
            for number, data in enumerate(made.alerts, 1)
        ]
        offset = len(made.statuses) + len(alerts) + 1
        commands, sent = model.commands(chosen, offset)
        credential = None
        if made.going.nonce:
            credential = await self._credential(tx, device, b64decode(made.going.nonce))
        answer = self._written(made.message, made.statuses, [*alerts, *commands], credential)
        kept = Session(
            made.message.session,
            made.message.number,
            answer,
            {**made.sent, str(made.message.number): sent},
            following.asked,
            self._now(),
            made.first_sha256,
            snapshot if settled else None,
            going,
        )
        await store.save_session(tx, device.id, kept)
        return answer

    async def _credential(self, tx: Tx, device: Device, nonce: bytes) -> syncml.Credential | None:
        """Ours, for a device that has us prove ourselves (section 11.7)."""
        found = await self._enrollment.session_secrets(tx, device.windows_id)
        if found is None:
            return None
        return syncml.Credential(MD5, enrollment.auth_md5(found[1].service, nonce))

    async def stray(self, tx: Tx, peer: Peer, message: Message) -> bytes | None:
        """The answer to somebody who is not enrolled; None for the usual refusal."""
        found = await self._strays.called(tx, peer, message)
        if found is None:
            return None
        statuses = model.statuses(message)
        commands, _ = model.commands(found[1], len(statuses) + 1)
        return self._written(message, statuses, commands)

    async def tell_to_leave(self, tx: Tx, device_id: str) -> None:
        """A device that has left and still calls is told at its next call. Raises NoSuchStray."""
        await self._strays.tell(tx, device_id)

    async def release(self, tx: Tx, device_id: str, kind: str = "", subject: str = "") -> int:
        """Give the device again what was set aside; how much that is. Raises NoSuchDevice."""
        device = await enrollment.device(tx, device_id)
        released = await store.release(tx, device_id, kind, subject)
        await self._ask_again(tx, device_id, released)
        for one in released:
            text = f"{one.subject} is released by an administrator"
            await self._enrollment.note(tx, device, "set-aside", text)
        await store.unsettle(tx, device_id)
        return len(released)

    async def _ask_again(self, tx: Tx, device_id: str, released: Sequence[model.Hold]) -> None:
        """What the device answered before does not count: a refusal is tried anew a day later."""
        delivered = await store.deliveries(tx, device_id)
        refused = [
            one.subject
            for one in released
            if one.kind == "setting"
            and one.subject in delivered
            and not 200 <= delivered[one.subject].code < 300
        ]
        if refused:
            await store.lapse_deliveries(tx, device_id, refused)
        for one in released:
            if one.kind == "install":
                await self._installs.offer_again(tx, device_id, one.subject)

    def _unheard(self, message: Message, header: int = 200) -> bytes:
        """Nothing was done with it: the device ends the session, and says it again in the next."""
        codes = {each.id: _NOT_DONE for whole in message.commands for each in whole.each}
        return self._written(message, model.statuses(message, header, codes=codes))

    def _written(
        self,
        message: Message,
        statuses: Sequence[Status],
        commands: Sequence[syncml.Command] = (),
        credential: syncml.Credential | None = None,
    ) -> bytes:
        return syncml.write(
            Message(
                message.session,
                message.number,
                message.source,
                self._url,
                tuple(commands),
                tuple(statuses),
                max_size=course.MAX_MESSAGE_BYTES if _large_is_asked(commands) else 0,
                credential=credential,
            )
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an answer begins with: statuses, our alerts, and what was sent in the session before."""

    message: Message
    statuses: list[Status]
    alerts: list[str]
    first_sha256: str
    sent: dict[str, dict[str, Sent]]
    going: Course


def _begins(
    before: Session | None, message: Message, proof: Proof, first: str, now: datetime
) -> bool:
    """Whether a session begins with it (section 11.3).

    A device that was challenged may count its second attempt as the session's second message.
    """
    if message.number == 1:
        return before is None or not _repeats(before, message, first, now)
    if not proof.anew or message.number > 3 or not any(map(_opens, message.commands)):
        return False
    return before is None or before.session != message.session


def _settings_only(orders: Sequence[Order]) -> bool:
    return bool(orders) and all(order.sent.kind in KINDS for order in orders)


def _nothing_is_left(before: Session, message: Message, taken: Taken) -> bool:
    """Whether the last answer held all that was to do, and the device did it: that there is
    nothing more need not be computed."""
    reference = str(before.number)
    return (
        bool(before.course.complete)
        and message.final
        and not message.commands
        and not message.results
        and not taken.refusals
        and not taken.refused
        and taken.answered >= {(reference, id) for id in before.sent.get(reference, {})}
    )


def _large_is_asked(commands: Sequence[syncml.Command]) -> bool:
    """Whether the answer may be larger than a message: then the device is to send it in parts."""
    return any(item.target == account.CSP_VERSIONS for one in commands for item in one.items)


def _opens(command: syncml.Command) -> bool:
    return command.name == "Alert" and command.data in ("1200", "1201")


def _aborts(message: Message) -> bool:
    return any((c.name, c.data) == ("Alert", model.ABORT) for c in message.commands)


def _names_another(message: Message, device: Device) -> bool:
    """Whether it says another DevId than its certificate was issued for (section 11.7)."""
    return any(
        (item.data or "").strip() != device.windows_id
        for whole in message.commands
        for command in whole.each
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


async def holds(
    tx: Tx, device_id: str = "", subjects: Sequence[str] | None = None
) -> list[model.Hold]:
    """Commands that are set aside: a device's, or those for these subjects on any device."""
    return await store.holds(tx, device_id, subjects)


async def capabilities(tx: Tx, device_id: str) -> tuple[str, dict[str, str]]:
    """The version of Windows that it was asked on, and its CSPs with their versions."""
    return await store.capabilities(tx, device_id)


async def deliveries(tx: Tx, device_id: str) -> dict[str, model.Delivery]:
    """Settings that a device took, with the value and its status code."""
    return await store.deliveries(tx, device_id)


async def deliveries_of(tx: Tx, device_ids: Sequence[str]) -> dict[str, dict[str, model.Delivery]]:
    """As `deliveries`, of many devices at once; those that took none are left out."""
    return await store.deliveries_of(tx, device_ids)
