"""Edge answers: devices that have their policy already are told so here, in the site's stead (ADR 46).

    device                          worker                                  site
      GET …/.sms_pol, ETag   →       known: it waits
      GET …/.sms_pol, ETag   →       known: it waits, too
                                     Question: what of this still holds? →
                                                                       ←    Confirmation, since the last one
                             ←  304  those that still hold
                                     all others  →                          as if nothing were known here

Nobody is answered from what was known when the request came: only from what the site says after it.
So what is known here may be old, incomplete or of another time, and a request goes on that need not
have; it is never answered wrongly. Requests that come together share a question, and there are only
so many of them a second, whatever the number of devices.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from tandem.gateway.model import Forward
from tandem.gateway.reader import Reader
from tandem.infra.logs import get_logger
from tandem.protocols import tunnel
from tandem.protocols.ccm import (
    CLIENT_HEADER,
    DATE_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
)
from tandem.protocols.tunnel import (
    Configuration,
    Confirmation,
    Incoming,
    Question,
    Reset,
    Type,
    encode,
)

if TYPE_CHECKING:
    from tandem.gateway.relay import Client, Front
    from tandem.gateway.tunnels import Tunnel

log = get_logger("gateway.answers")

# Between two questions, so that there are few; so many requests do not wait for it.
_PACE_SECONDS = 0.05
_ENOUGH = 64
# Without a request: what is new at the site is fetched, and who was answered is told.
_ROUND_SECONDS = 1.0
# A question that is not answered in time: what waits goes on, and so does all that comes in the next
# seconds.
_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 2.0
# Processes of the site of which something is known here, clients told of at once, bytes of an answer.
_MOST_PROCESSES = 4
_MOST_SEEN = 1000
_MOST_BYTES = 64 * 1024 * 1024
_ETAG = b"if-none-match"
_CLIENT = CLIENT_HEADER.lower().encode()
# In a request that is answered here, each of them is there once.
_READ = frozenset(
    {_ETAG, _CLIENT}
    | {name.lower().encode() for name in (DATE_HEADER, NONCE_HEADER, SIGNATURE_HEADER)}
)
_BEARER = b"bearer "


class Known:
    """What processes of the site told, each of its own part."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[int, dict[bytes, int]]] = {}

    def __len__(self) -> int:
        return sum(len(table) for _, table in self._tables.values())

    def upto(self) -> dict[str, int]:
        return {epoch: upto for epoch, (upto, _) in self._tables.items()}

    def has(self, tag: bytes) -> bool:
        """Whether it may be worth a question."""
        return any(tag in table for _, table in self._tables.values())

    def holds(self, told: Confirmation, tag: bytes) -> bool:
        """Whether that process says so now. What others said is nothing that it speaks for."""
        table = self._tables.get(told.epoch)
        return table is not None and table[1].get(tag, 0) > told.now

    def take(self, told: Confirmation) -> bool:
        """False when it goes on from something that is not known here; then nothing is known."""
        upto, table = self._tables.pop(told.epoch, (0, {}))
        if told.since == 0:
            table = {}
        elif told.since != upto:
            return False
        gone, added = told.gone, told.added
        for start in range(0, len(gone), tunnel.TAG_BYTES):
            table.pop(gone[start : start + tunnel.TAG_BYTES], None)
        # Ends are few, and each is one object.
        ends: dict[bytes, int] = {}
        for start in range(0, len(added), tunnel.ENTRY_BYTES):
            middle = start + tunnel.TAG_BYTES
            end = added[middle : start + tunnel.ENTRY_BYTES]
            value = ends.get(end)
            if value is None:
                value = ends[end] = int.from_bytes(end)
            table[added[start:middle]] = value
        self._tables[told.epoch] = told.upto, table
        # Those that have not been heard of for longest are gone, most likely.
        while len(self._tables) > _MOST_PROCESSES:
            del self._tables[next(iter(self._tables))]
        return True

    def forget(self) -> None:
        self._tables.clear()


class Waiting:
    """A device's request, until its question is answered."""

    __slots__ = ("_answers", "_client", "begun", "etag", "keep", "of", "plan", "tag", "who")

    def __init__(
        self, answers: "Answers", client: "Client", plan: Forward, who: str, found: "_Asked"
    ) -> None:
        self._answers = answers
        self._client: Client | None = client
        self.plan = plan
        self.who = who
        self.of, self.etag, self.tag = found
        self.begun = answers.now()
        self.keep = True

    # What a client waits for (`relay.Answer`).

    answering = False

    def more(self, piece: bytes, fin: bool = False) -> None:
        """It has no body."""

    def resume(self) -> None:
        """Nothing is under way to the client."""

    def late(self) -> None:
        """The question has its own time."""

    def drain(self) -> None:
        """It is answered in a moment."""

    def give_up(self, reason: str) -> None:
        self.client_gone()

    def client_gone(self) -> None:
        if self._client is not None:
            self._client = None
            self._answers.front.guard.ended(self.who)

    # What becomes of it.

    def answered(self) -> bool:
        client, self._client = self._client, None
        if client is None:
            return False
        client.not_modified(self.plan, self.who, self.etag, self.begun)
        return True

    def goes_on(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.goes_on(self.plan, self.who)


_Asked = tuple[bytes, bytes, bytes]


@dataclass
class Asked:
    """A question under way: who waits for its answer, and which clients it tells of."""

    id: str
    waiting: list[Any]
    seen: dict[str, float]
    body: bytes


@dataclass
class Desk:
    """Who waits for which question, without I/O. The proof of all of this is that a request is put
    to a question that is asked after it came (`ask`), and answered by that question's answer alone.
    """

    known: Known = field(default_factory=Known)
    waiting: list[Any] = field(default_factory=list)
    # Clients that were answered, and when, until the site knows.
    seen: dict[str, float] = field(default_factory=dict)
    answered: int = 0
    unknown: int = 0
    unproven: int = 0
    _name: str = field(default_factory=lambda: secrets.token_hex(8))
    _number: int = 0

    def ask(self, now: float, worker: str = "") -> Asked:
        waiting, self.waiting = self.waiting, []
        seen = dict(list(self.seen.items())[:_MOST_SEEN])
        self._number += 1
        id = f"{self._name}-{self._number}"
        question = Question(
            id,
            self.known.upto(),
            {client: now - at for client, at in seen.items()},
            worker,
            len(self.known),
            self.answered,
            self.unknown,
            self.unproven,
        )
        return Asked(id, waiting, seen, msgspec.msgpack.encode(question))

    def told(self, asked: Asked, told: Confirmation, now: float) -> None:
        """The answer to this question: who waited for it is answered, or goes on."""
        if told.id != asked.id:
            self.failed(asked)
            return
        for client, at in asked.seen.items():
            if self.seen.get(client) == at:
                del self.seen[client]
        whole = self.known.take(told)
        for one in asked.waiting:
            if not whole or not self.known.holds(told, one.tag):
                self.unproven += 1
                one.goes_on()
            elif one.answered():
                self.answered += 1
                self.seen[one.of.decode("latin-1")] = now

    def failed(self, asked: Asked) -> None:
        """There is no answer, or it cannot be read: nothing is proven."""
        self.unproven += len(asked.waiting)
        for one in asked.waiting:
            one.goes_on()

    def let_go(self) -> None:
        """Nobody is answered here from now on."""
        waiting, self.waiting = self.waiting, []
        self.known.forget()
        for one in waiting:
            one.goes_on()


class Answers:
    """The edge answers of one worker."""

    def __init__(self, front: "Front", connection_id: str, worker: str = "") -> None:
        self.front = front
        self.desk = Desk()
        # The addresses of policy; none while the site does not want answers here.
        self.targets: frozenset[bytes] = frozenset()
        self.questions = 0
        self.failures = 0
        self._key = tunnel.answers_key(connection_id)
        self._worker = worker
        self._head = b""
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._tunnel: Tunnel | None = None  # Who was asked last.
        self._stream: _Stream | None = None  # The question under way.
        self._timer: asyncio.TimerHandle | None = None
        self._asked_at = 0.0
        self._silent_until = 0.0
        self._date = (0, b"")

    def configure(self, configuration: Configuration) -> None:
        wanted = configuration.answers
        if wanted is None:
            self.targets = frozenset()
            self.desk.let_go()
            return
        self.targets = frozenset(target.encode() for target in wanted.targets)
        self._head = (
            f"POST {wanted.prefix} HTTP/1.1\r\nhost: gateway\r\nauthorization: CMG {self._key}\r\n"
            "content-type: application/msgpack\r\n\r\n"
        ).encode()

    def facts(self) -> dict[str, Any]:
        desk = self.desk
        return {
            "on": bool(self.targets),
            "entries": len(desk.known),
            "answered": desk.answered,
            "unknown": desk.unknown,
            "unproven": desk.unproven,
            "questions": self.questions,
            "failures": self.failures,
        }

    def date(self) -> bytes:
        """As the site's answers say it."""
        second = int(time.time())
        if second != self._date[0]:
            self._date = second, formatdate(second, usegmt=True).encode()
        return self._date[1]

    # -------------------------------------------------------------- requests

    def take(self, client: "Client", reader: Reader, plan: Forward, who: str) -> bool:
        """A request for policy that may pass. False: it goes on to the site at once."""
        if self._silent_until > self.now() or not len(self.front.tunnels):
            return False
        found = _conditional(reader)
        if found is None:
            return False
        if not self.desk.known.has(found[2]):
            self.desk.unknown += 1
            return False
        waiting = Waiting(self, client, plan, who, found)
        client.exchange = waiting
        self.desk.waiting.append(waiting)
        self._soon()
        return True

    # -------------------------------------------------------------- questions

    def _soon(self) -> None:
        """Ask, together with what comes in the same moment."""
        if self._stream is not None:
            return  # Its answer is the moment for the next one.
        wait = self._asked_at + _PACE_SECONDS - self.now()
        if wait <= 0 or len(self.desk.waiting) == _ENOUGH:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(0, self._ask)
        elif self._timer is None:
            self._timer = self._loop.call_later(wait, self._ask)

    def _ask(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stream is not None:
            return
        at = self._source()
        if at is None:
            self.desk.failed(self.desk.ask(self.now()))
            return
        self._asked_at = now = self.now()
        self.questions += 1
        asked = self.desk.ask(now, self._worker)
        self._stream = stream = _Stream(self._heard, asked, at)
        stream.timer = self._loop.call_later(_PATIENCE_SECONDS, stream.late)
        stream.begin(self._head)

    def _source(self) -> "Tunnel | None":
        """The one that was asked last while there is one: it leads to the same process of the site,
        more likely than not."""
        tunnels = self.front.tunnels
        if self._tunnel is None or not tunnels.holds(self._tunnel):
            self._tunnel = tunnels.next()
        return self._tunnel

    def _heard(self, stream: "_Stream", status: int, content: bytes) -> None:
        """The answer; status 0: there will be none."""
        self._stream = None
        desk = self.desk
        told: Confirmation | None = None
        if status == 200 and self.targets:
            with contextlib.suppress(msgspec.DecodeError):
                told = msgspec.msgpack.decode(content, type=Confirmation)
        if told is not None:
            desk.told(stream.asked, told, self.now())
            if desk.waiting:
                self._soon()
            elif told.more or len(desk.seen) > _MOST_SEEN:
                self._loop.call_soon(self._ask)
            return
        self.failures += 1
        self._tunnel = None
        self._silent_until = self.now() + _PAUSE_SECONDS
        waiting = len(stream.asked.waiting)
        desk.failed(stream.asked)
        if desk.waiting:
            desk.failed(desk.ask(self.now()))
        if self.targets:
            log.warning("not answered", status=status, waiting=waiting)

    async def run(self) -> None:
        """Learn what is new, and tell who was answered, also while nobody asks."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            lately = self.now() - self._asked_at < _ROUND_SECONDS
            if self.targets and not lately and len(self.front.tunnels):
                self._ask()

    async def end(self) -> None:
        """Tell the site of those who were answered last."""
        if not self.targets or not self.desk.seen or not len(self.front.tunnels):
            return
        self._ask()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self.desk.seen and self._stream is not None:
                    await asyncio.sleep(0.01)


def _conditional(reader: Reader) -> _Asked | None:
    """(client, ETag, tag) of a request that could be answered here. What is unusual in any way is
    the site's."""
    token = reader.authorization
    if reader.method != "GET" or reader.has_body or token is None:
        return None
    if token[:7].lower() != _BEARER:
        return None
    found = reader.once(_READ)
    if found is None or len(found) != len(_READ):
        return None
    client, etag = found[_CLIENT], found[_ETAG]
    digest = sha256(token[7:].strip()).digest()
    return client, etag, tunnel.tag(client, etag, digest)


class _Stream:
    """One question in a tunnel."""

    def __init__(
        self, heard: Callable[["_Stream", int, bytes], None], asked: Asked, at: "Tunnel"
    ) -> None:
        self._heard = heard
        self.asked = asked
        self._at = at
        self._number = 0
        self._status = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._over = False
        self.incoming: Incoming | None = None
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, head: bytes) -> None:
        mux = self._at.mux
        self._number = self._at.open(self)
        self.incoming = Incoming(mux, self._number)
        mux.put(encode(Type.OPEN, self._number, head + self.asked.body, fin=True))

    def head(self, payload: bytes, fin: bool) -> None:
        parts = payload.split(b" ", 2)
        self._status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 502
        if fin:
            self._end(self._status)

    def data(self, payload: bytes, fin: bool) -> None:
        self._parts.append(payload)
        self._size += len(payload)
        if self.incoming is not None:
            self.incoming.passed(len(payload))
        if self._size > _MOST_BYTES:
            self._cancel("The answer is too large.")
        elif fin:
            self._end(self._status)

    def writable(self) -> None:
        """Nothing waits to be sent."""

    def reset(self, reason: str) -> None:
        """The tunnel broke, or the connection point gave up."""
        self._end(0)

    def late(self) -> None:
        self._cancel("The site did not say in time what holds.")

    def _cancel(self, reason: str) -> None:
        if not self._over and self._at.mux.open:
            self._at.mux.reset(self._number, Reset.CANCELLED, reason)
        self._end(0)

    def _end(self, status: int) -> None:
        if self._over:
            return
        self._over = True
        if self.timer is not None:
            self.timer.cancel()
        self._at.mux.streams.pop(self._number, None)
        self._heard(self, status, b"".join(self._parts))
