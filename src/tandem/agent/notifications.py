"""Client notification: what the site asks for now, taken over a request that waits at the site.

An order is on the disk before the site hears that it is taken, and is done once: whoever brings it up
again, or ends the agent in between, changes nothing.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal

import msgspec

from tandem.agent.folder import Folder
from tandem.agent.journal import ERROR, Journal
from tandem.agent.platform import Machine
from tandem.agent.session import Refused, Session, Unreachable
from tandem.agent.waiting import pause
from tandem.infra.errors import AppError
from tandem.protocols import ccm

LOG = "CcmNotificationAgent"
WAIT_SECONDS = 120.0
# The site, and whoever is on the way, have so much more before the agent gives up.
_GRACE_SECONDS = 40.0
_RETRY_MINUTES = 2.0
# However short a simulated minute is: what fails is not asked for without a pause.
_PAUSE_SECONDS = 1.0
# A site that has no channel may be a newer one tomorrow.
_UNKNOWN_MINUTES = 24 * 60.0
# An answer that somebody kept is of no use after ten minutes; orders are remembered for longer.
_REMEMBERED = timedelta(hours=1)
_MOST = 500
_FILE = "orders.json"


class TakenOrder(msgspec.Struct):
    """`acknowledged`: the site knows that it is here. `boot`: which start of the device was under way
    when it was begun."""

    id: str
    action: str
    expires_at: datetime
    state: Literal["taken", "begun", "told"] = "taken"
    acknowledged: bool = False
    boot: str = ""
    begun_at: datetime | None = None


class _Memory(msgspec.Struct):
    orders: list[TakenOrder] = []


class Notifications:
    """`came` is called when there is something to do; `location` is told to the site; without a `way`
    to the site nobody asks."""

    def __init__(
        self,
        machine: Machine,
        folder: Folder,
        session: Session,
        journal: Journal,
        *,
        came: Callable[[], None],
        location: Callable[[], ccm.Location],
        way: Callable[[], bool],
    ) -> None:
        self._machine = machine
        self._folder = folder
        self._session = session
        self._journal = journal
        self._came = came
        self._location = location
        self._way = way
        self._memory = folder.load(_FILE, _Memory) or _Memory()
        self._said = ""
        self._again_at: datetime | None = None
        # Whether a request waits at the site all the time, so nobody needs to ask in between.
        self.open = False
        self._under_way: asyncio.Task[float] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Wait for one order after the other until `stop`. Never raises for what the network does."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                step = self._under_way = asyncio.create_task(self._step())
                await asyncio.wait({step, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if step.cancelled():
                    continue
                if not step.done():
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
                    return
                await pause(stop, step.result())
        finally:
            self.open = False
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)

    def moved(self) -> None:
        """The way to the site is another one: what waits at the end of the old one waits in vain."""
        if self._under_way is not None:
            self._under_way.cancel()

    def doubt(self) -> None:
        """The clock by which the site is not asked was wrong: the next look asks."""
        self._again_at = None

    async def _step(self) -> float:
        """One request; the seconds until the next is worth trying."""
        minute = self._machine.minute_seconds
        if not self._session.client_id or not self._way():
            self.open = False
            return max(_PAUSE_SECONDS, minute)
        try:
            rest = await self.ask(WAIT_SECONDS)
        except OSError as error:
            self.open = False
            self._tell(f"The disk does not take orders: {error.strerror or error}.")
            return max(_PAUSE_SECONDS, minute * _RETRY_MINUTES)
        except AppError as error:
            self.open = False
            if isinstance(error, Refused) and error.status in (404, 405):
                self._tell("This site has no client notification; orders come with policy.")
                return minute * _UNKNOWN_MINUTES
            self._tell(f"No notifications can be waited for: {error.message}")
            return max(_PAUSE_SECONDS, minute * _RETRY_MINUTES) * random.uniform(0.5, 1.0)  # noqa: S311
        # Who rests for long may be told something by its next poll.
        self.open = rest == 0.0
        return rest

    async def look(self) -> None:
        """Ask once without waiting, where no request waits all the time. What goes wrong waits for
        the next time."""
        now = self._machine.now()
        if not self._way() or self.open or (self._again_at is not None and now < self._again_at):
            return
        try:
            await self.ask(0)
        except AppError as error:
            self._tell(f"Notifications could not be asked for: {error.message}")
            if isinstance(error, Refused) and error.status in (404, 405):
                minutes = timedelta(seconds=self._machine.minute_seconds * _UNKNOWN_MINUTES)
                self._again_at = now + minutes

    async def ask(self, seconds: float) -> float:
        """Take what the site has for this client. The seconds before it is worth asking again. Raises
        AppError."""
        taken = [one.id for one in self._memory.orders if not one.acknowledged][: ccm.ORDERS_LIMIT]
        if seconds > 0:
            self.open = True
            self._tell("Waiting for notifications of the site.")
        response = await self._session.post(
            "/bgb",
            ccm.NotificationRequest(taken, seconds, self._location()),
            read_seconds=seconds + _GRACE_SECONDS,
        )
        if taken:
            for one in self._memory.orders:
                one.acknowledged = one.acknowledged or one.id in taken
            self._save()
        if response.status_code == 204:
            later = response.headers.get("retry-after", "")
            return float(later) if later.isdigit() and len(later) < 6 else 0.0
        try:
            found = ccm.open_notifications(
                response.text,
                self._machine.trusted_root,
                self._machine.now(),
                client_id=self._session.client_id,
            )
        except ccm.BadDocument as error:
            # A forged order must not be worth more than none; who brings it waits with the rest.
            self._journal.write(LOG, error.message, ERROR)
            raise Unreachable(f"What came as a notification is none: {error.message}") from None
        # The same again would come at once.
        new = self._take(found.orders)
        return 0.0 if new else max(_PAUSE_SECONDS, self._machine.minute_seconds)

    def _take(self, orders: Sequence[ccm.Order]) -> bool:
        """Whether any was new."""
        now = self._machine.now()
        known = {one.id for one in self._memory.orders}
        new = [
            TakenOrder(one.id, one.action, one.expires_at)
            for one in orders
            if one.id not in known and one.expires_at + ccm.SKEW > now
        ]
        for again in (one for one in self._memory.orders if one.id in {o.id for o in orders}):
            again.acknowledged = False  # The site does not know of it yet, or not any more.
        if new:
            kept = [one for one in self._memory.orders if one.expires_at + _REMEMBERED > now]
            before, self._memory.orders = self._memory.orders, [*kept, *new][-_MOST:]
            try:
                self._save()
            except OSError:
                # What does not lie on the disk is not taken: the site has it again.
                self._memory.orders = before
                raise
            for order in new:
                self._journal.write(LOG, f"Receive notification {order.id}: {order.action}.")
            self._came()
        return bool(new)

    def waiting(self) -> list[tuple[str, list[TakenOrder]]]:
        """What is to be done now, by action: what was asked for twice is done once."""
        now = self._machine.now()
        due = [
            one
            for one in self._memory.orders
            # A restart that was begun in time is brought to its end.
            # The site gave it out in time, by a clock that may differ from this one.
            if one.state != "told" and (one.expires_at + ccm.SKEW > now or one.boot)
        ]
        ordered = sorted(due, key=lambda one: (one.action, one.boot))
        return [
            (action, list(found))
            for (action, _), found in groupby(ordered, lambda one: (one.action, one.boot))
        ]

    def begin(self, orders: Sequence[TakenOrder], boot: str = "") -> None:
        for order in orders:
            if order.state == "taken":
                order.state, order.boot, order.begun_at = "begun", boot, self._machine.now()
        self._save()

    def told(self, orders: Sequence[TakenOrder]) -> None:
        """Their results lie in the spool."""
        for order in orders:
            order.state = "told"
        self._save()

    def _save(self) -> None:
        self._folder.save(_FILE, self._memory)

    def _tell(self, line: str) -> None:
        """Once, until something else is so."""
        if line != self._said:
            self._said = line
            self._journal.write(LOG, line)
