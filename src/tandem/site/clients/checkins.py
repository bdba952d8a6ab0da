"""Check-ins without news, answered from memory.

    device                                       management point
      GET /SMS_MP/.sms_pol  If-None-Match: e  →    computed: 304, and what it took to know is kept
      GET /SMS_MP/.sms_pol  If-None-Match: e  →    kept: signature, nonce and block are looked at; 304
    database
      NOTIFY clients_policy, 'GUID:…'         →    what is kept of this client is dropped
      NOTIFY clients_policy, ''               →    all is dropped

Triggers on every table that a policy is computed from tell of each change in its own transaction. An
answer from memory is given only after the database has proved that every change committed before the
request came was heard of (`infra.database.Notices`); so it is the answer that computing would have
given. What cannot be proved is computed. Nothing here decides anything else: whoever is not answered
from memory goes the long way, which refuses what is to be refused.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar, cast

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Notices
from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger
from tandem.infra.rounds import rounds
from tandem.protocols import ccm, tunnel
from tandem.site.clients import store
from tandem.site.clients.model import TokenHolder
from tandem.site.clients.told import Journal

T = TypeVar("T")

log = get_logger("http")

CHANNEL = "clients_policy"
POLICY_PATH = "/SMS_MP/.sms_pol"
_SEEN_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
# What a gateway tells of a client lies no longer back than this.
_LONGEST_AGO = 600.0
# A date is taken from 5 minutes before to 5 minutes after the site's own.
_NONCE_LIFE = 2 * ccm.SKEW + timedelta(minutes=1)
# What the answer from memory is decided by: each of these is in a request once, or not at all.
_READ = {
    name.lower().encode(): name.lower()
    for name in (
        "Authorization",
        "If-None-Match",
        "X-Correlation-Id",
        ccm.CLIENT_HEADER,
        ccm.DATE_HEADER,
        ccm.NONCE_HEADER,
        ccm.SIGNATURE_HEADER,
    )
}
_WITH_A_BODY = {b"content-length", b"transfer-encoding"}


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was found when this client was last answered the long way, and is so still."""

    token: bytes  # SHA-256 of the token that was verified then.
    token_ends: float
    key: bytes  # The point: a key object would be twenty times as large.
    holder: str
    etag: str
    etag_ends: float  # From then on the policy has another ETag by itself.
    tag: bytes  # By which gateways know it.


@dataclass(eq=False, slots=True)
class Ticket:
    """A computation under way. `void` once something has changed that it may not have seen."""

    client_id: str
    void: bool = False


class CheckIns:
    """The memory of one management point."""

    def __init__(self, db: Database, *, now: Clock) -> None:
        self._db = db
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._journal = Journal()
        # Clients of whom something was kept until lately: of them, too, a gateway may still tell.
        self._before: set[str] = set()
        self._long_before: set[str] = set()
        self._tickets: set[Ticket] = set()
        self._common: list[Any] = []
        self._notices: Notices | None = None
        self._seen: dict[str, datetime] = {}
        self._nonces: set[bytes] = set()
        self._older_nonces: set[bytes] = set()
        self._nonces_since = now()

    @property
    def hears(self) -> bool:
        """Whether changes are heard of now; while they are not, all is computed."""
        return self._notices is not None

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`. While nothing is heard, nothing is kept."""
        seen = rounds(stop, self.save_seen, _SEEN_SECONDS, failed="last contacts are not written")
        listening = asyncio.create_task(self._listen(stop))
        await seen
        await listening
        with contextlib.suppress(AppError):
            await self.save_seen()

    async def _listen(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        while not stop.is_set():
            try:
                async with self._db.notices(CHANNEL, self._heard) as notices:
                    self._notices = notices
                    lost = asyncio.create_task(notices.lost.wait())
                    await asyncio.wait([stopped, lost], return_when=asyncio.FIRST_COMPLETED)
                    lost.cancel()
            except AppError as error:
                log.warning("changes of policy are not heard", reason=error.message)
            finally:
                self._notices = None
                self._heard("")
            await asyncio.wait([stopped], timeout=_AGAIN_SECONDS)
        await stopped

    def _heard(self, client_id: str) -> None:
        if client_id:
            kept = self._kept.pop(client_id, None)
            if kept is not None:
                self._journal.drop(kept.tag)
                self._before.add(client_id)
        else:
            self._before.update(self._kept)
            self._kept.clear()
            self._journal.clear()
            self._common = []
        for ticket in self._tickets:
            if not client_id or ticket.client_id == client_id:
                ticket.void = True

    async def shared(self, load: Callable[[], Awaitable[T]]) -> T:
        """What policies have in common: loaded once, and again after each change of it."""
        notices = self._notices
        if notices is None or not await notices.caught_up():
            return await load()
        # Another one is there as soon as something has changed; who loads fills the one it took.
        common = self._common
        if not common:
            found = await load()
            common[:] = [found]
        return cast(T, common[0])

    # ------------------------------------------------------------------ the long way

    @contextlib.contextmanager
    def computing(self, client_id: str) -> Any:
        """A ticket for `keep`, to be had before the computation looks at anything."""
        ticket = Ticket(client_id, void=self._notices is None)
        self._tickets.add(ticket)
        try:
            yield ticket
        finally:
            self._tickets.discard(ticket)

    def keep(
        self, ticket: Ticket, holder: TokenHolder, token: str, etag: str, etag_ends: float
    ) -> None:
        """The client's answer from now on. To be called within `computing`, once all that the
        answer says is committed."""
        if ticket.void:
            return
        key = ccm.public_point(holder.key)
        digest = sha256(token.encode()).digest()
        tag = tunnel.tag(ticket.client_id.encode(), etag.encode(), digest)
        before = self._kept.get(ticket.client_id)
        if before is not None and before.tag != tag:
            self._journal.drop(before.tag)
        self._kept[ticket.client_id] = _Kept(
            digest, holder.expires, key, holder.thumbprint, etag, etag_ends, tag
        )
        self._journal.add(tag, min(holder.expires, etag_ends))

    def first_use(self, thumbprint: str, nonce: str) -> bool:
        """False when this key has used this nonce here before."""
        if self._now() - self._nonces_since > _NONCE_LIFE:
            self._older_nonces, self._nonces = self._nonces, set()
            self._nonces_since = self._now()
        used = _use(thumbprint, nonce)
        if used in self._nonces or used in self._older_nonces:
            return False
        self._nonces.add(used)
        return True

    # ------------------------------------------------------------------ from memory

    def before(self, app: Any) -> Any:
        """The application, with an answer from memory where there is one."""

        async def answering(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"].endswith(POLICY_PATH):
                begun = time.perf_counter()
                found = await self._answer(scope)
                if found is not None:
                    await _not_modified(scope, send, *found, begun)
                    return
            await app(scope, receive, send)

        return answering

    async def _answer(self, scope: Any) -> tuple[str, str] | None:
        """(ETag, correlation id) of an answer without news; None: it has to be computed."""
        notices = self._notices
        if notices is None or scope["method"] != "GET" or scope["query_string"]:
            return None
        sent = _headers(scope["headers"])
        if sent is None:
            return None
        client_id = sent.get("ccm-client", "")
        kept = self._kept.get(client_id)
        now = self._now()
        if kept is None or not _fits(kept, sent, now.timestamp()):
            return None
        signed = _verified(kept, sent, scope["raw_path"], now)
        if signed is None or not self.first_use(kept.holder, signed.nonce):
            return None
        # What was kept may be dropped while this waits.
        if await notices.caught_up() and self._kept.get(client_id) is kept:
            self.saw(client_id)
            return kept.etag, sent.get("x-correlation-id", "")
        self._nonces.discard(_use(kept.holder, signed.nonce))
        return None

    # ------------------------------------------------------------------ for gateways

    async def told(self, question: tunnel.Question) -> tunnel.Confirmation | None:
        """What a gateway may answer, now that every change is heard of that was committed before
        the question came; None when that cannot be said."""
        notices = self._notices
        if notices is None or not await notices.caught_up() or self._notices is not notices:
            return None
        return self._journal.told(question, self._now().timestamp())

    def saw_elsewhere(self, seen: Mapping[str, float]) -> None:
        """Clients that a gateway has answered, so many seconds ago. Of those alone that have been
        here lately: about all others it knows nothing."""
        now = self._now()
        for client_id, ago in seen.items():
            told_of = client_id in self._kept or client_id in self._before
            if not told_of and client_id not in self._long_before:
                continue
            at = now - timedelta(seconds=min(max(0.0, ago), _LONGEST_AGO))
            if at > self._seen.get(client_id, at - _NONCE_LIFE):
                self._seen[client_id] = at

    def saw(self, client_id: str) -> None:
        self._seen[client_id] = self._now()

    async def save_seen(self) -> None:
        """Write when clients were last heard of: those of some seconds with one statement."""
        self._long_before, self._before = self._before, set()
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            async with self._db.transaction() as tx:
                await store.mark_all_seen(tx, seen)
        except AppError:
            self._seen = {**seen, **self._seen}
            raise


def _use(thumbprint: str, nonce: str) -> bytes:
    return sha256(f"{thumbprint} {nonce}".encode()).digest()[:16]


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """What is decided by; None when the request is not one that is decided here."""
    found: dict[str, str] = {}
    for name, value in raw:
        known = _READ.get(name)
        if known is not None:
            if known in found:
                return None
            found[known] = value.decode("latin-1")
        elif name in _WITH_A_BODY:
            return None
    return found


def _fits(kept: _Kept, sent: dict[str, str], at: float) -> bool:
    """Whether the request has the policy that is kept, and the token that was verified."""
    if sent.get("if-none-match") != kept.etag or at >= kept.etag_ends or at >= kept.token_ends:
        return False
    scheme, _, token = sent.get("authorization", "").partition(" ")
    # Both sides are hashes, so the time that comparing takes tells nothing.
    return scheme.lower() == "bearer" and sha256(token.strip().encode()).digest() == kept.token


def _verified(
    kept: _Kept, sent: dict[str, str], raw_path: bytes, now: datetime
) -> ccm.Signed | None:
    target = ccm.signed_target(raw_path.decode("ascii", "replace"))
    if target != POLICY_PATH:
        return None
    try:
        signed = ccm.read_signature(sent)
        key = ccm.key_of_point(kept.key)
        ccm.verify_request(key, signed, method="GET", target=target, body=b"", now=now)
    except ccm.BadSignature:
        return None  # Refused in its own words by the long way.
    return signed


async def _not_modified(
    scope: Any,
    send: Callable[[Any], Awaitable[None]],
    etag: str,
    correlation: str,
    begun: float,
) -> None:
    correlation = http.correlation_id(correlation)
    headers = [
        (b"etag", etag.encode()),
        (b"cache-control", b"private, no-cache"),
        (b"x-correlation-id", correlation.encode()),
    ]
    await send({"type": "http.response.start", "status": 304, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
    log.info(
        "request",
        correlation=correlation,
        method="GET",
        path=scope["path"],
        status=304,
        ms=round((time.perf_counter() - begun) * 1000, 1),
    )
