"""Answers with content, to clients of the gateway: whole, or one range of it."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from tandem.gateway.content_tokens import Right
from tandem.gateway.desk import Desk, Dropped, NotHere, WrongContent
from tandem.gateway.guard import Guard
from tandem.gateway.model import Refusal, Shelved
from tandem.gateway.origin import Away, Declined
from tandem.gateway.shelf import CHUNK, Title
from tandem.gateway.statuses import refusal
from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger

log = get_logger("gateway.content")

# What is handed to a connection at once.
_SLICE = 64 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Listener(Protocol):
    """The connection of a client that content is given to."""

    paused: bool
    deadline: float
    address: str

    def write(self, data: bytes) -> None: ...
    def keeps(self) -> bool: ...
    def refuse(self, refusal: Refusal) -> None: ...
    def finished(self, keep: bool) -> None: ...
    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Delivered:
    """What is said of an answer when it is over."""

    url: bytes
    status: int
    seconds: float
    device: str
    correlation: bytes
    sent_bytes: int
    whole: bool  # Or it broke off.


class Delivery:
    """One answer with content, to one client."""

    def __init__(
        self,
        client: Listener,
        desk: Desk,
        wanted: Shelved,
        *,
        method: str,
        target: bytes,
        headers: dict[str, str],
        correlation: bytes,
        stall_seconds: float,
        patience: float,
        guard: Guard,
        ended: Callable[[Delivered], None],
    ) -> None:
        """`patience`: until the first byte has to be out. `ended` is called once, unless
        the answer was a refusal."""
        self._client: Listener | None = client
        self._desk = desk
        self._wanted = wanted
        self._method = method
        self._target = target
        self._headers = headers
        self._correlation = correlation
        self._stall = stall_seconds
        self._patience = patience
        self._guard = guard
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._begun = time.monotonic()
        self._ready = asyncio.Event()
        self._status = 0
        self._sent = 0
        self._right: Right | None = None
        self._admitted = False
        self._task: asyncio.Task[None] | None = None
        self.keep = True

    @property
    def answering(self) -> bool:
        return self._status != 0

    def start(self) -> None:
        """What can be said at once is; the rest comes as it is read."""
        desk, client = self._desk, self._client
        assert client is not None
        right = desk.check(self._wanted.sha256, self._method, self._target, self._headers)
        if isinstance(right, Refusal):
            self._refuse(right)
            return
        self._right = right
        refused = self._guard.begun(right.device)
        if refused is not None:
            self._refuse(refused)
            return
        self._admitted = True
        span = _span(self._headers, right.title)
        if span is None:
            self._refuse(refusal("CMGService_Range"))
            return
        client.deadline = self._loop.time() + self._patience
        self._task = self._loop.create_task(self._answer(right, *span))

    def _refuse(self, refused: Refusal) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.refuse(refused)
            self._over(None)

    async def _answer(self, right: Right, start: int, end: int) -> None:
        try:
            if self._method != "HEAD":
                await self._send(right, start, end)
            else:
                self._head(right, start, end)
            self._done()
        except AppError as error:
            self._failed(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("content failed", sha256=right.title.sha256)
            self._failed(Away("It failed."))

    async def _send(self, right: Right, start: int, end: int) -> None:
        title, at = right.title, start
        if start == end:
            self._head(right, start, end)
        while at < end:
            number = at // CHUNK
            try:
                chunk = await self._desk.chunk(title, number)
            except NotHere:
                await self._pass(right, start, at, end)
                return
            if at == start:
                self._head(right, start, end)
            first = at - number * CHUNK
            last = min(len(chunk), end - number * CHUNK)
            until = min(first + _SLICE, last)
            piece = chunk[first:until]
            # A client that reads slowly waits with this piece alone, and not with all of the chunk.
            del chunk
            at = number * CHUNK + until
            await self._write(piece, at == end)

    async def _pass(self, right: Right, start: int, at: int, end: int) -> None:
        """From the site, past the shelf. What is given from its first byte to its last is judged by
        its hash before the last piece goes out."""
        title = right.title
        total = sha256() if (at, end) == (0, title.size_bytes) else None
        held = b""
        async for piece in self._desk.pieces(title, at, end):
            if not self._status:
                self._head(right, start, end)
            if total is not None:
                total.update(piece)
            held, piece = piece, held
            if piece:
                await self._write(piece)
        if total is not None and total.hexdigest() != title.sha256:
            log.error("wrong content", sha256=title.sha256)
            raise WrongContent("What the site gave is not this content.")
        if held:
            await self._write(held, last=True)

    def _head(self, right: Right, start: int, end: int) -> None:
        client, size = self._client, right.title.size_bytes
        if client is None:
            return
        whole = (start, end) == (0, size) and not self._headers.get("range")
        self._status = 200 if whole else 206
        lines = [
            "HTTP/1.1 200 OK" if whole else "HTTP/1.1 206 Partial Content",
            "content-type: application/octet-stream",
            f"content-length: {end - start}",
            "accept-ranges: bytes",
            f'etag: "{right.title.sha256}"',
            "cache-control: private, no-store",
            f"x-correlation-id: {self._correlation.decode('ascii')}",
        ]
        if not whole:
            lines.append(f"content-range: bytes {start}-{end - 1}/{size}")
        self.keep = self.keep and client.keeps()
        if not self.keep:
            lines.append("connection: close")
        client.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def _write(self, data: bytes, last: bool = False) -> None:
        """Nothing may come between the last of it and the end: a client that has all asks again."""
        client = self._client
        if client is None:
            raise asyncio.CancelledError
        client.write(data)
        self._sent += len(data)
        if last:
            return
        if client.paused:
            # Its deadline runs; `resume` is told when it takes more.
            self._ready.clear()
            await self._ready.wait()
        else:
            client.deadline = self._loop.time() + self._stall
            await asyncio.sleep(0)

    def _done(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self._over(whole=True)
        client.finished(self.keep)

    def _over(self, whole: bool | None) -> None:
        """`whole` is None for a refusal, which counts as one."""
        right, seconds = self._right, time.monotonic() - self._begun
        if right is not None and self._admitted:
            self._guard.ended(right.device)
            self._admitted = False
        if whole is not None and right is not None:
            self._ended(
                Delivered(
                    self._target,
                    self._status,
                    seconds,
                    right.device,
                    self._correlation,
                    self._sent,
                    whole,
                )
            )

    def _failed(self, error: AppError) -> None:
        """Before the first byte the client is told why; after it only an end that is no end tells."""
        client = self._client
        if client is None:
            return
        if self._status:
            self._client = None
            log.warning(
                "answer broken off",
                reason=error.message,
                url=self._target.decode("ascii", "replace"),
                correlation=self._correlation.decode("ascii"),
            )
            self._over(whole=False)
            client.abort()
        elif isinstance(error, WrongContent):
            self._refuse(refusal("CMGService_Content_Wrong"))
        elif isinstance(error, Dropped | Declined):
            self._refuse(refusal("CMGService_Content_Not_Found"))
        else:
            self._refuse(refusal("CMGService_Content_Unavailable"))

    # -------------------------------------------------------------- what the client tells

    def more(self, piece: bytes, fin: bool = False) -> None:
        """No body is taken here."""

    def resume(self) -> None:
        if self._client is not None:
            self._client.deadline = self._loop.time() + self._stall
        self._ready.set()

    def late(self) -> None:
        client = self._client
        if client is None:
            return
        if not self._status:
            self._cancel()
            self._refuse(refusal("CMGService_Content_Unavailable"))
            return
        log.warning(
            "answer broken off",
            reason="The client does not read." if client.paused else "The content does not come.",
            url=self._target.decode("ascii", "replace"),
            correlation=self._correlation.decode("ascii"),
        )
        self.give_up("late")
        client.abort()

    def drain(self) -> None:
        """What is under way ends, if it can in the time that is left."""

    def give_up(self, reason: str) -> None:
        self._cancel()
        if self._client is not None:
            self._client = None
            self._over(whole=False)

    def client_gone(self) -> None:
        self.give_up("The client went away.")

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _span(headers: dict[str, str], title: Title) -> tuple[int, int] | None:
    """The half-open range that is asked for, all of it where none is; None when there is no such.

    A unit that nobody knows and a condition that does not hold make it the whole (RFC 9110, 14.2);
    several ranges at once are refused: they cost more than they are worth.
    """
    size, asked = title.size_bytes, headers.get("range", "").strip()
    if headers.get("if-range", f'"{title.sha256}"') != f'"{title.sha256}"':
        headers.pop("range", None)
        return 0, size
    if not asked.lower().startswith("bytes="):
        headers.pop("range", None)
        return 0, size
    found = _RANGE.fullmatch(asked.lower())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return (max(0, size - int(found[2])), size) if int(found[2]) and size else None
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    return (start, end) if start < end else None
