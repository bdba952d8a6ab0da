"""Calls of the tenant: the agent waits for one, and then has the MDM client hold a session.

Without them, or while nobody answers, the device comes at its next poll: nothing is lost but time.
"""

import asyncio
import random
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import httpx
import msgspec

from tandem.agent.journal import Journal
from tandem.agent.platform import Machine
from tandem.agent.waiting import pause
from tandem.infra.errors import AppError

_LOG = "CcmNotificationAgent"
# The MDM service, as every directory of the field names it.
_MDM_APP = "0000000a-0000-0000-c000-000000000000"
_TOKEN_LIFE = timedelta(minutes=45)
# Longer than the tenant lets a call wait.
_READ_SECONDS = 300.0
_RETRY_MINUTES = 10.0
# However short a simulated minute is: what fails is not asked for without a pause.
_PAUSE_SECONDS = 5.0
_NEXT_SECONDS = 0.5
# A tenant that does not know calls may be a newer one tomorrow.
_UNKNOWN_MINUTES = 24 * 60.0


class _Call(msgspec.Struct, frozen=True):
    at: datetime


class Calls:
    """`run` waits for one call after the other."""

    def __init__(self, machine: Machine, client_app_id: str, journal: Journal) -> None:
        self._machine = machine
        self._client_app_id = client_app_id
        self._journal = journal
        self._after: datetime | None = None
        self._token = ""
        self._token_until: datetime | None = None
        self._said = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. Never raises for what the network or the tenant does."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                step = asyncio.create_task(self._step())
                await asyncio.wait({step, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
                    return
                await pause(stop, step.result())
        finally:
            stopped.cancel()

    async def _step(self) -> float:
        """One call; the seconds until the next is worth trying."""
        minute = self._machine.minute_seconds
        again = max(_PAUSE_SECONDS, minute * _RETRY_MINUTES) * random.uniform(0.5, 1.0)  # noqa: S311
        join = self._machine.directory.join()
        if join is None or not join.authority.startswith("https://"):
            return again
        try:
            answer = await self._ask(join.authority)
        except (AppError, httpx.HTTPError, OSError) as error:
            self._tell(f"No calls can be waited for: {error or type(error).__name__}")
            return again
        if answer.status_code == 200:
            try:
                self._after = msgspec.json.decode(answer.content, type=_Call).at
            except msgspec.DecodeError:
                return again
            self._journal.write(_LOG, "The MDM service calls: a session is asked for.")
            await self._machine.mdm.sync()
            self._said = ""
            return _NEXT_SECONDS
        if answer.status_code == 204:
            return _NEXT_SECONDS
        if answer.status_code == 401:
            self._token = ""
        if answer.status_code in (404, 405):
            self._tell("This MDM service does not call devices; they come at their next poll.")
            return minute * _UNKNOWN_MINUTES
        self._tell(f"The MDM service answers {answer.status_code} to who waits for its calls.")
        later = answer.headers.get("retry-after", "")
        return max(again, float(later)) if later.isdigit() and len(later) < 6 else again

    async def _ask(self, authority: str) -> httpx.Response:
        now = self._machine.now()
        if not self._token or self._token_until is None or self._token_until <= now:
            self._token = await self._machine.directory.device_token(
                authority, self._client_app_id, _MDM_APP
            )
            self._token_until = now + _TOKEN_LIFE
        self._tell("Waiting for calls of the MDM service.")
        tenant = urlsplit(authority)
        return await self._machine.http.get(
            f"{tenant.scheme}://{tenant.netloc}/tandem/calls",
            params={"after": self._after.isoformat()} if self._after is not None else {},
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=httpx.Timeout(30.0, read=_READ_SECONDS),
        )

    def _tell(self, line: str) -> None:
        """Once, until something else is so."""
        if line != self._said:
            self._said = line
            self._journal.write(_LOG, line)
