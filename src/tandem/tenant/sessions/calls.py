"""Calls to devices: an agent waits here, and hears at once that its device is wanted.

    agent  → GET /tandem/calls?after={at}     its device token for the MDM service
    tenant ← 200 {"at": "…"}    an order newer than `after` waits: hold a session, then ask again
           ← 204                nothing for four minutes: ask again
           ← 401                no token of a device; 503 with Retry-After: too many wait here

The order stands in the database and a NOTIFY only nudges, so any process of the tenant will do, and
a call that gets lost costs the time until the next poll, never the order.
"""

import asyncio
import contextlib
from datetime import datetime
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger
from tandem.tenant import oidc
from tandem.tenant.sessions import order_store
from tandem.tenant.sessions.wakes import CHANNEL

log = get_logger("sessions")

# Shorter than what balancers cut off, long enough to cost next to nothing.
_WAIT_SECONDS = 240.0
# Each waiting agent is a connection and some kilobytes of this process.
_MOST = 20_000
_AGAIN_SECONDS = 2.0


class VerifiesDevices(Protocol):
    async def verify_mdm_device(self, tx: Tx, token: str, now: datetime) -> oidc.Claims: ...


class TooManyWait(AppError):
    kind, code = Kind.UNAVAILABLE, "calls.too-many"


class Calls:
    """The agents that wait at this process: one for each device, the newest."""

    def __init__(
        self,
        database: Database,
        tokens: VerifiesDevices,
        now: Clock,
        *,
        wait_seconds: float = _WAIT_SECONDS,
        most: int = _MOST,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._now = now
        self._seconds = wait_seconds
        self._most = most
        self._waiting: dict[str, asyncio.Event] = {}
        self._over = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self, stop: asyncio.Event) -> None:
        """Hear of orders until `stop`; then nobody waits any more."""
        hearing = asyncio.create_task(self._hear())
        await stop.wait()
        self._over = True
        hearing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hearing
        self._nudge("")

    async def _hear(self) -> None:
        while True:
            try:
                async for device_id in self._database.listen(CHANNEL):
                    # The empty one says that it listens anew: anything may have happened before.
                    self._nudge(device_id)
            except AppError as error:
                log.warning("calls to devices are not heard of", reason=error.message)
            await asyncio.sleep(_AGAIN_SECONDS)

    def _nudge(self, device_id: str) -> None:
        waiting = [self._waiting[device_id]] if device_id in self._waiting else []
        for event in self._waiting.values() if not device_id else waiting:
            event.set()

    async def device(self, token: str) -> str:
        """Whose token it is, as the directory calls the device. Raises BadToken."""
        async with self._database.apart() as tx:
            return (await self._tokens.verify_mdm_device(tx, token, self._now())).device_id

    async def wait(self, device_id: str, after: datetime | None) -> datetime | None:
        """Until an order newer than `after` waits for this device: since when. None: none came.

        Raises TooManyWait.
        """
        older = self._waiting.get(device_id)
        if older is None and len(self._waiting) >= self._most:
            raise TooManyWait(
                "Too many devices wait here.", cure="Come back later.", retry_after_seconds=600
            )
        mine = self._waiting[device_id] = asyncio.Event()
        if older is not None:
            older.set()  # Its connection is dead, or it has changed its mind.
        until = asyncio.get_running_loop().time() + self._seconds
        try:
            while not self._over:
                mine.clear()
                async with self._database.apart() as tx:
                    at = await order_store.wanted_since(tx, device_id, self._now())
                if at is not None and (after is None or at > after):
                    return at
                async with asyncio.timeout_at(until):
                    await mine.wait()
                if self._waiting.get(device_id) is not mine:
                    return None
        except TimeoutError:
            pass
        finally:
            if self._waiting.get(device_id) is mine:
                del self._waiting[device_id]
        return None


def call_routes(calls: Calls) -> list[BaseRoute]:
    """On the public listener: the agent holds no certificate of the MDM client's."""

    async def wait(request: Request) -> Response:
        sort, _, token = request.headers.get("authorization", "").partition(" ")
        if sort.lower() != "bearer" or not token.strip():
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        text = request.query_params.get("after", "")
        try:
            after = datetime.fromisoformat(text) if text else None
            if after is not None and after.tzinfo is None:
                raise ValueError("no time zone")
        except ValueError:
            return Response(status_code=400)
        try:
            device_id = await calls.device(token.strip())
        except oidc.BadToken:
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        try:
            at = await calls.wait(device_id, after)
        except TooManyWait as error:
            later = str(error.details["retry_after_seconds"])
            return Response(status_code=503, headers={"Retry-After": later})
        if at is None:
            return Response(status_code=204)
        return http.reply({"at": at.isoformat()}, headers={"Cache-Control": "no-store"})

    return [Route("/tandem/calls", wait, methods=["GET"])]
