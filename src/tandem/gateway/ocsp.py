"""What responders say about clients' certificates (OCSP, RFC 6960), asked beside the requests.

No request waits here: a certificate is judged by what is known of it, and whoever it is known of is
told when that changes. An answer counts until its end, and is asked for anew before.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from cryptography import x509

from tandem import pki
from tandem.infra import net
from tandem.infra.logs import get_logger

log = get_logger("gateway")

_SECONDS = 5.0
# Questions under way at once, and those that wait for their turn; more are asked when they come again.
_AT_ONCE = 16
_MOST_WAITING = 20_000
_MOST_KEPT = 20_000
_MOST_BYTES = 64 * 1024
# A responder that did not answer is asked again after so long.
_AGAIN_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_FAULT_SECONDS = 900.0
_ALARM = "CMGService_Ocsp_Unavailable"


@dataclass(slots=True)
class Verdict:
    """What is known of a certificate. Without an answer, `fault` says why, or it is being asked."""

    answer: pki.OcspAnswer | None = None
    fault: str = ""
    asking: bool = False
    again_at: float = 0.0

    def counts(self, now: float) -> pki.OcspAnswer | None:
        known = self.answer
        return known if known is not None and known.ends.timestamp() > now else None


class Responders:
    """The responders that certificates name. `changed` is told whose standing is another now."""

    def __init__(
        self, changed: Callable[[bytes], None], now: Callable[[], float] = time.time
    ) -> None:
        self._changed = changed
        self._now = now
        self._kept: dict[bytes, Verdict] = {}
        self._waiting: deque[tuple[bytes, x509.Certificate, x509.Certificate, str]] = deque()
        self._known: dict[bytes, tuple[x509.Certificate, x509.Certificate, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._web: httpx.AsyncClient | None = None
        # Of each responder that does not answer, since when it was last seen so.
        self._faults: dict[str, float] = {}
        self.seconds = 3600.0

    def verdict(
        self, der: bytes, certificate: x509.Certificate, issuer: x509.Certificate
    ) -> Verdict | None:
        """What is known now; None for a certificate that names no responder. Asks when it is time."""
        known = self._kept.get(der)
        if known is None:
            urls = pki.ocsp_urls(certificate)
            if not urls:
                return None
            if len(self._kept) >= _MOST_KEPT:
                self._forget_one()
            known = self._kept[der] = Verdict()
            self._known[der] = (certificate, issuer, urls[0])
        if not known.asking and known.again_at <= self._now():
            self._ask(der, known)
        return known

    def refresh(self, of: Iterable[bytes]) -> None:
        """Ask again about these, where it is time; nothing is asked about who is not connected."""
        now = self._now()
        for der in of:
            known = self._kept.get(der)
            if known is not None and not known.asking and known.again_at <= now:
                self._ask(der, known)

    def _forget_one(self) -> None:
        """The oldest of which nothing bad is known: who was revoked stays so."""
        harmless = (
            der
            for der, known in self._kept.items()
            if not known.asking
            and not (known.answer and known.answer.standing is pki.Standing.REVOKED)
        )
        der = next(harmless, next(iter(self._kept)))
        del self._kept[der], self._known[der]

    def _ask(self, der: bytes, known: Verdict) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            return
        known.asking = True
        self._waiting.append((der, *self._known[der]))
        if len(self._tasks) < _AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        while self._waiting:
            der, certificate, issuer, url = self._waiting.popleft()
            known = self._kept.get(der)
            if known is None:
                continue
            before, fault = known.answer, known.fault
            try:
                answer = await self._answer(certificate, issuer, url)
                if before is not None and answer.begins < before.begins:
                    # A responder may lag behind another; who says otherwise repeats old news.
                    if answer.standing is not before.standing:
                        raise pki.BadAnswer("its answer is older than the one before")
                    answer = before
                known.answer, known.fault = answer, ""
            except TimeoutError:
                known.fault = "it takes too long"
            except (httpx.HTTPError, httpx.InvalidURL, pki.BadAnswer) as error:
                known.fault = str(error)[:200] or type(error).__name__
            except Exception as error:
                log.exception("responder")
                known.fault = type(error).__name__
            known.asking = False
            known.again_at = self._due(known)
            self._tell(url, known.fault)
            standing = known.answer and known.answer.standing
            if (before and before.standing) != standing or bool(fault) != bool(known.fault):
                self._changed(der)

    def _due(self, known: Verdict) -> float:
        now = self._now()
        if known.fault or known.answer is None:
            return now + _AGAIN_SECONDS
        # Half way to the end, so that there is time for a responder that is away for a while.
        left = (known.answer.ends.timestamp() - now) / 2
        return now + max(0.5, min(left, self.seconds))

    async def _answer(
        self, certificate: x509.Certificate, issuer: x509.Certificate, url: str
    ) -> pki.OcspAnswer:
        if self._web is None:
            self._web = net.plain_client(timeout=_SECONDS)
        data = bytearray()
        headers = {"Content-Type": "application/ocsp-request", "Accept-Encoding": "identity"}
        content = pki.ocsp_request(certificate, issuer)
        # As a whole: who sends a byte now and then would keep the others' questions waiting.
        async with (
            asyncio.timeout(_SECONDS),
            self._web.stream("POST", url, content=content, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise pki.BadAnswer(f"the responder answers {answer.status_code}")
            async for piece in answer.aiter_raw():
                data += piece
                if len(data) > _MOST_BYTES:
                    raise pki.BadAnswer("its answer is too large")
        now = datetime.fromtimestamp(self._now(), UTC)
        return await asyncio.to_thread(pki.read_ocsp, bytes(data), certificate, issuer, now)

    @property
    def faulty(self) -> list[str]:
        """The responders that did not answer when they were asked last."""
        return list(self._faults)

    def _tell(self, url: str, fault: str) -> None:
        """Into the log once, and once more when it is over."""
        if fault and url not in self._faults:
            log.warning("alarm", alarm=_ALARM, responder=url, text=fault)
        elif not fault and url in self._faults:
            log.info("alarm over", alarm=_ALARM, responder=url)
        if fault:
            self._faults[url] = self._now()
        else:
            self._faults.pop(url, None)

    def _forget_faults(self) -> None:
        """Of responders that nobody's certificate asks for any more."""
        old = self._now() - _FAULT_SECONDS
        for url in [url for url, at in self._faults.items() if at < old]:
            self._tell(url, "")

    async def look_always(self, connected: Callable[[], Iterable[bytes]]) -> None:
        """Ask again about whoever is connected, before what is known of them ends."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._kept:
                self.refresh(connected())
                self._forget_faults()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._web is not None:
            await self._web.aclose()
