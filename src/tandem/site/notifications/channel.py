"""The channel: a device's request waits here, and is answered as soon as there is an order for it.

The order stands in the database and a NOTIFY only nudges, so any process of the site will do, and a
nudge that gets lost costs the time until the device asks again, never the order.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.rounds import rounds
from tandem.protocols import ccm
from tandem.site import clients, collections
from tandem.site.notifications import store
from tandem.site.notifications.model import TooManyWait

# Each is a connection and some kilobytes of this process.
_MOST = 20_000
_AGAIN_SECONDS = 2.0
# Who finds no place comes back so late.
_FULL_SECONDS = 600
# Longer than a request is held, and until a device that was busy asks again.
_ONLINE_SECONDS = 300.0
_TURNS_A_SECOND, _TURN_SECONDS = 250, 0.1
# With more transactions than this waiting for the database, nobody else is called.
_BUSY = 16
_LOOK = "download-computer-policy"
# Long enough for a slow network, too short for who kept an answer to bring it up again.
_DOCUMENT_LIFE = timedelta(minutes=10)


class Channel:
    """The devices that wait at this process: one request for each, the newest."""

    def __init__(
        self,
        db: Database,
        point: clients.ManagementPointService,
        signing: Callable[[Tx], Awaitable[ccm.SigningIdentity]],
        *,
        now: Clock,
        hold_seconds: float = clients.HOLD_SECONDS,
        most: int = _MOST,
    ) -> None:
        self._db = db
        self._point = point
        self._signing = signing
        self._now = now
        self._seconds = hold_seconds
        self._most = most
        self._waiting: dict[str, asyncio.Event] = {}
        # Who asked here, the latest last, and when by the loop's clock.
        self._lately: dict[str, float] = {}
        # Who is to look at its policy: whose turn comes, and who is told when it asks next.
        self._turn: dict[str, None] = {}
        self._look: set[str] = set()
        self._over = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def to_come(self) -> int:
        """How many devices are still to be told that their policy has changed."""
        return len(self._turn)

    async def run(self, stop: asyncio.Event) -> None:
        """Hear of operations until `stop`; then nobody waits any more."""
        work = (
            (self._hear, _AGAIN_SECONDS, "client notifications are not heard of"),
            (self._hear_of_policy, _AGAIN_SECONDS, "changes of policy are not heard of"),
            (self._take_turns, _TURN_SECONDS, "nobody is called to its policy"),
        )
        await asyncio.gather(
            *(
                rounds(stop, task, pause, failed=failed, cut_off=True)
                for task, pause, failed in work
            )
        )
        self._over = True
        for event in self._waiting.values():
            event.set()

    async def _hear(self) -> None:
        async for operation_id in self._db.listen(store.CHANNEL):
            await self._nudge(operation_id)

    async def _hear_of_policy(self) -> None:
        async for collection_id in self._db.listen(store.POLICY_CHANNEL):
            if collection_id:
                await self._concerns(collections.CollectionId(collection_id))

    async def _concerns(self, collection_id: collections.CollectionId) -> None:
        """Its members that are online here look at their policy, each in its turn; of a collection of
        users, the devices on which one of them is signed in."""
        since = asyncio.get_running_loop().time() - _ONLINE_SECONDS
        for client_id in [id for id, at in self._lately.items() if at < since]:
            del self._lately[client_id]
        if self._lately:
            async with self._db.transaction() as tx:
                members = await collections.client_ids(tx, collection_id)
                if users := await collections.user_ids(tx, collection_id):
                    there = await clients.signed_in(tx, self._lately)
                    members |= {id for id, user in there.items() if user in users}
            self._turn |= dict.fromkeys(id for id in self._lately if id in members)

    async def _take_turns(self) -> None:
        """Not all at once: the site has to answer each of them, and who polls beside them."""
        most = int(_TURNS_A_SECOND * _TURN_SECONDS) if self._db.waiting <= _BUSY else 0
        for client_id in list(self._turn)[:most]:
            del self._turn[client_id]
            self._look.add(client_id)
            if client_id in self._waiting:
                self._waiting[client_id].set()

    async def _nudge(self, operation_id: str) -> None:
        """Those here whom an operation is for; all of them when it listens anew: anything may have
        happened before."""
        called = list(self._waiting)
        if operation_id and called:
            async with self._db.apart() as tx:
                called = await store.told_of(tx, operation_id, called)
        for client_id in called:
            if client_id in self._waiting:
                self._waiting[client_id].set()

    async def answer(self, request: Request) -> str | None:
        """The signed document, or None: nothing came while the device waited.

        Raises what a signed request raises, and TooManyWait when it would have to wait.
        """
        mine, client_id = asyncio.Event(), ""
        try:
            async with self._db.transaction() as tx:
                caller, asked = await clients.signed_request(
                    tx, self._point, request, ccm.NotificationRequest, clients.NOTIFICATION_LIMIT
                )
                if caller.client is None:
                    raise clients.UnknownClient(
                        "Only a registered client is notified.", cure="Register first."
                    )
                client_id, now = caller.client.id, self._now()
                await store.mark(tx, client_id, asked.location, now)
                if asked.taken:
                    await store.taken(tx, client_id, asked.taken, now)
                # It waits before it looks, so nothing comes in between.
                place = self._wait_for(client_id, mine)
                found = await self._sealed(tx, client_id)
            seconds = min(asked.wait_seconds, self._seconds)
            if found is None and seconds > 0 and not self._over:
                if not place:
                    raise TooManyWait("Too many devices wait here.", cure="Come back later.")
                found = await self._later(client_id, mine, seconds)
            return found
        finally:
            if self._waiting.get(client_id) is mine:
                del self._waiting[client_id]

    def _wait_for(self, client_id: str, mine: asyncio.Event) -> bool:
        """False when there is no place."""
        self._lately.pop(client_id, None)
        self._lately[client_id] = asyncio.get_running_loop().time()
        older = self._waiting.get(client_id)
        if older is None and len(self._waiting) >= self._most:
            return False
        self._waiting[client_id] = mine
        if older is not None:
            older.set()  # Its connection is dead, or it has changed its mind.
        return True

    async def _later(self, client_id: str, mine: asyncio.Event, seconds: float) -> str | None:
        try:
            async with asyncio.timeout(seconds):
                await mine.wait()
        except TimeoutError:
            return None
        if self._over or self._waiting.get(client_id) is not mine:
            return None
        # Nothing is lost between two statements: what was sent in vain is sent again.
        async with self._db.apart() as tx:
            return await self._sealed(tx, client_id)

    async def _sealed(self, tx: Tx, client_id: str) -> str | None:
        now = self._now()
        orders = await store.due(tx, client_id, now, ccm.ORDERS_LIMIT)
        if client_id in self._look and len(orders) < ccm.ORDERS_LIMIT:
            self._look.discard(client_id)
            end = now + _DOCUMENT_LIFE
            orders.append(ccm.Order(f"policy-{uuid.uuid4()}", _LOOK, end))
        if not orders:
            return None
        document = ccm.Notifications(client_id, now, now + _DOCUMENT_LIFE, orders)
        return ccm.seal("notification", document, await self._signing(tx))


def routes(channel: Channel) -> list[BaseRoute]:
    """Below the management point's base URL."""

    async def wait(request: Request) -> Response:
        try:
            found = await channel.answer(request)
        except TooManyWait:
            # Nothing is wrong with it: its orders come with its polls.
            return Response(status_code=204, headers={"Retry-After": str(_FULL_SECONDS)})
        if found is None:
            return Response(status_code=204)
        return Response(found, headers={"Cache-Control": "no-store"}, media_type="application/jose")

    return [Route("/bgb", wait, methods=["POST"])]
