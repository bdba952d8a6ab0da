"""Content at the edge: copies that are pulled from the site once, and given to devices from then on.

    device ── Delivery ──▶ Desk.chunk ──▶ memory, or the shelf (a thread decrypts), or a Pull
                                          │
    site  ◀── Origin, over the tunnel ────┘   one Pull a content, however many wait for it

A Pull stores chunk after chunk, and whoever reads follows it. Its last chunk is given to nobody before
the SHA-256 of the whole fits; when it does not fit, nothing is kept, and answers that were begun
break off. Where nothing can be stored, answers come from the site each time, and there is an alarm.
The key of a copy comes from the site and lies in memory alone.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from tandem.gateway.content_tokens import ContentTokens, Right
from tandem.gateway.model import Refusal
from tandem.gateway.origin import Away, Declined, Fetch, Origin
from tandem.gateway.shelf import CHUNK, CannotKeep, Damaged, Kept, Shelf, Title, digest
from tandem.gateway.statuses import refusal
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger
from tandem.infra.secrets import private_folder
from tandem.protocols.tunnel import Configuration, ContentState, Copy

log = get_logger("gateway.content")
T = TypeVar("T")

# Decrypted chunks that a worker keeps: what many devices fetch at once is decrypted once.
_MEMORY = 32 * CHUNK
_THREADS = 4
# A reader that wants something so many chunks ahead of the pull is not made to wait for it.
_FAR = 16
# How often a pull goes on where it broke off, and how long it waits until then.
_ATTEMPTS = 5
_AGAIN_SECONDS = 1.0
# How long what failed is not tried again: the site would be asked for all of it by each device.
_REST_SECONDS = 20.0
# How often one looks at what another worker of this instance pulls.
_LOOK_SECONDS = 0.2
# How often the site is told what is kept, at least and at most.
_TELL_SECONDS, _TELL_AGAIN_SECONDS, _TOGETHER_SECONDS = 60.0, 5.0, 0.5
# What a pull leaves on the disk: configuration and logs of the gateway lie there too.
_RESERVE_BYTES = 256 * 1024 * 1024
_FULL = "CMGService_Storage_Full"


class NotHere(AppError):
    """Nothing can be stored of it, or not now: it has to come from the site."""

    kind, code = Kind.UNAVAILABLE, "content.not-here"


class WrongContent(AppError):
    """The site gave something whose SHA-256 is another one."""

    kind, code = Kind.UNAVAILABLE, "content.wrong"


class Dropped(AppError):
    """This distribution is not served any more."""

    kind, code = Kind.NOT_FOUND, "content.dropped"


class Memory:
    """The chunks that were used last."""

    def __init__(self, most: int = _MEMORY) -> None:
        self._most = most
        self._size = 0
        self._held: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()

    def get(self, title: Title, number: int) -> bytes | None:
        key = (title.sha256, title.distribution, number)
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, title: Title, number: int, content: bytes) -> None:
        key = (title.sha256, title.distribution, number)
        if key not in self._held:
            self._held[key] = content
            self._size += len(content)
            while self._size > self._most:
                self._size -= len(self._held.popitem(last=False)[1])

    def forget(self, sha256: str, distribution: int) -> None:
        for key in [k for k in self._held if k[0] == sha256 and k[1] <= distribution]:
            self._size -= len(self._held.pop(key))


class Desk:
    """The content of one worker. `locks` is a folder that all workers of the instance share."""

    def __init__(
        self,
        shelf: Shelf,
        locks: Path,
        origin: Origin,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.shelf = shelf
        self.origin = origin
        self.memory = Memory()
        self._locks = private_folder(locks)
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(_THREADS, "content")
        self._tokens: ContentTokens | None = None
        self._dropped: dict[str, int] = {}
        self._quota = 0
        self._keys: dict[tuple[str, int], asyncio.Future[bytes]] = {}
        self._whole: dict[tuple[str, int], list[bytes]] = {}
        self._pulls: dict[tuple[str, int], Pull] = {}
        self._rests: dict[tuple[str, int], tuple[float, AppError]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        # Why nothing could be stored, and when that was last tried.
        self.problem = ""
        self._tried_at = 0.0
        # Something is to be told to the site.
        self._news = asyncio.Event()
        self.alarm: Callable[[str, str], None] = lambda name, text: None

    async def work(self, work: Callable[..., T], *arguments: Any) -> T:
        """Disks and decryption, off the loop."""
        return await self._loop.run_in_executor(self._threads, work, *arguments)

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Whoever waited was told; perhaps nobody waits any more.

    def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -------------------------------------------------------------- what the site says

    def configure(self, configuration: Configuration) -> None:
        """What is served from now on, and what is not any more."""
        said = configuration.content
        self._tokens = ContentTokens(configuration) if said is not None else None
        self._quota = said.quota_bytes if said is not None else 0
        before, self._dropped = self._dropped, dict(said.dropped) if said is not None else {}
        gone = {
            name: distribution
            for name, distribution in self._dropped.items()
            if distribution > before.get(name, 0)
        }
        for name, distribution in gone.items():
            self._forget(name, distribution)
        if gone:
            self._begin(self._drop(gone))
        self._news.set()

    def _forget(self, name: str, distribution: int) -> None:
        self.memory.forget(name, distribution)
        for known in (self._keys, self._whole, self._rests):
            for key in [k for k in known if k[0] == name and k[1] <= distribution]:
                del known[key]
        for key in [k for k in self._pulls if k[0] == name and k[1] <= distribution]:
            self._pulls.pop(key).stop()

    async def _drop(self, gone: dict[str, int]) -> None:
        for name, distribution in gone.items():
            try:
                await self.work(self.shelf.drop, name, distribution)
            except CannotKeep as error:
                log.warning("content not dropped", sha256=name, reason=error.message)
            else:
                log.info("content dropped", sha256=name, distribution=distribution)
        self._news.set()

    # -------------------------------------------------------------- who may have what

    def check(
        self, wanted: str, method: str, target: bytes, headers: dict[str, str]
    ) -> Right | Refusal:
        if self._tokens is None:
            return refusal("CMGService_Content_Not_Found")
        now = self._now()
        right = self._tokens.check(wanted, method, target.decode("ascii"), headers, now)
        if isinstance(right, Right) and not self._serves(right.title):
            return refusal("CMGService_Content_Not_Found")
        return right

    def _serves(self, title: Title) -> bool:
        return self._tokens is not None and title.distribution > self._dropped.get(title.sha256, 0)

    # -------------------------------------------------------------- chunks

    async def key(self, title: Title) -> bytes:
        """Of the site, once. Raises Away, Declined."""
        name = (title.sha256, title.distribution)
        found = self._keys.get(name)
        if found is None:
            found = self._keys[name] = self._begin(self._ask_key(title))
        try:
            # Whoever asked first may go away; the others still wait.
            return await asyncio.shield(found)
        except AppError:
            if self._keys.get(name) is found:
                del self._keys[name]
            raise

    async def _ask_key(self, title: Title) -> bytes:
        given = await self.origin.key(title.sha256, title.distribution)
        try:
            key = bytes.fromhex(given.key)
        except ValueError:
            key = b""
        if (
            (given.sha256, given.distribution) != (title.sha256, title.distribution)
            or given.size_bytes != title.size_bytes
            or len(key) != 32
        ):
            raise Away("The site's answer about a key is about something else.")
        return key

    async def chunk(self, title: Title, number: int) -> bytes:
        """Raises NotHere, WrongContent, Dropped, Away, Declined."""
        if not self._serves(title):
            raise Dropped("This content is not served any more.")
        found = self.memory.get(title, number) if self._may_give(title, number) else None
        if found is not None:
            return found
        key = await self.key(title)
        if await self._hashes(title, key) is None:
            if not self._serves(title):  # Since the site was asked for the key.
                raise Dropped("This content is not served any more.")
            await self._pull(title, key).reached(number)
            found = self.memory.get(title, number)
            if found is not None:
                return found
        try:
            found = await self.work(self.shelf.chunk, title, key, number)
        except Damaged as error:
            found = await self._mended(title, key, number, error)
        self.memory.put(title, number, found)
        return found

    def _may_give(self, title: Title, number: int) -> bool:
        name = (title.sha256, title.distribution)
        pull = self._pulls.get(name)
        return name in self._whole or (pull is not None and pull.available > number)

    async def _hashes(self, title: Title, key: bytes) -> list[bytes] | None:
        """Those of the chunks, when the copy is whole."""
        name = (title.sha256, title.distribution)
        if name in self._whole:
            return self._whole[name]
        if name in self._pulls:
            return None
        try:
            found = await self.work(self.shelf.whole, title, key)
        except Damaged as error:
            log.warning("copy damaged", sha256=title.sha256, reason=error.message)
            with contextlib.suppress(CannotKeep):
                await self.work(self.shelf.drop, title.sha256, title.distribution)
            return None
        if found is not None:
            self._whole[name] = found
        return found

    async def _mended(self, title: Title, key: bytes, number: int, error: Damaged) -> bytes:
        """The chunk, pulled anew."""
        log.warning("chunk damaged", sha256=title.sha256, chunk=number, reason=error.message)
        hashes = self._whole.get((title.sha256, title.distribution))
        if hashes is None:
            raise NotHere("The chunk is damaged, and the copy not whole.")
        start = number * CHUNK
        content = b"".join(
            [piece async for piece in self.pieces(title, start, start + title.length(number))]
        )
        if digest(content) != hashes[number]:
            raise WrongContent("The site's content is not what it was.")
        try:
            await self.work(self.shelf.put, title, key, number, content)
        except CannotKeep as full:
            self.full(full)
        else:
            log.info("chunk pulled again", sha256=title.sha256, chunk=number)
        return content

    async def pieces(self, title: Title, start: int, end: int) -> Any:
        """Bytes from the site, past the shelf. Raises Away, Declined."""
        if start >= end:
            return
        fetch: Fetch = await self.origin.content(title.sha256, start, end)
        left = end - start
        try:
            while piece := await fetch.piece():
                left -= len(piece)
                if left < 0:
                    raise WrongContent("The site gives more than was asked for.")
                yield piece
        finally:
            fetch.close()
        if left:
            raise Away("The site's answer ended too soon.")

    def _pull(self, title: Title, key: bytes) -> "Pull":
        name = (title.sha256, title.distribution)
        pull = self._pulls.get(name)
        if pull is None:
            until, error = self._rests.get(name, (0.0, None))
            if error is not None and until > self._loop.time():
                raise error
            pull = self._pulls[name] = Pull(self, title, key)
            pull.task = self._begin(pull.run())
        return pull

    def pulled(self, pull: "Pull", hashes: list[bytes] | None, error: AppError | None) -> None:
        """A pull is over."""
        name = (pull.title.sha256, pull.title.distribution)
        self._news.set()
        if self._pulls.get(name) is pull:
            del self._pulls[name]
            if hashes is not None:
                self._whole[name] = hashes
                self._rests.pop(name, None)
            elif error is not None and not isinstance(error, Away):
                self._rests[name] = (self._loop.time() + _REST_SECONDS, error)

    @contextlib.contextmanager
    def lock(self, title: Title) -> Iterator[bool]:
        """Whether this worker is the one of its instance that pulls."""
        path = self._locks / f"{title.sha256}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    # -------------------------------------------------------------- the store's state

    def full(self, error: CannotKeep) -> None:
        self._tried_at = self._loop.time()
        if not self.problem:
            log.warning("alarm", alarm=_FULL, text=error.message)
            self.alarm(_FULL, f"{error.message} {error.cure}")
        self.problem = error.message

    def stored(self) -> None:
        """Something was: what was wrong is not any more."""
        if self.problem:
            log.info("alarm over", alarm=_FULL)
            self.problem = ""
            self._news.set()

    @property
    def rests(self) -> bool:
        """Whether the store took nothing a moment ago."""
        return bool(self.problem) and self._loop.time() < self._tried_at + _REST_SECONDS

    async def room(self, title: Title) -> None:
        """Raises CannotKeep when the copies would be more than the site allows, or when the disk
        would have no room left for what this gateway itself has to write."""
        free = await self.work(self.shelf.free_bytes)
        if free is not None and title.size_bytes > free - _RESERVE_BYTES:
            raise CannotKeep(
                f"The disk has {free} bytes left, and {title.size_bytes} are needed beside a reserve"
                f" of {_RESERVE_BYTES}.",
                cure="Give the disk room, or remove packages from the gateway.",
            )
        if self._quota:
            kept = await self.work(self.shelf.kept)
            used = sum(
                one.stored_bytes
                for name, one in kept.items()
                if name != (title.sha256, title.distribution)
            )
            if used + title.size_bytes > self._quota:
                raise CannotKeep(
                    f"Copies may take {self._quota} bytes here: {used} are taken, and"
                    f" {title.size_bytes} more are needed.",
                    cure="Remove packages from the gateway, or let it keep more.",
                )

    async def state(self, instance: int) -> ContentState:
        """What the site is told. Raises CannotKeep."""
        kept: dict[tuple[str, int], Kept] = await self.work(self.shelf.kept)
        copies = [
            Copy(name, number, one.stored_bytes, one.whole)
            for (name, number), one in sorted(kept.items())
        ]
        free = await self.work(self.shelf.free_bytes)
        used = sum(one.stored_bytes for one in copies)
        return ContentState(instance, copies, used, free, bool(self.problem), self.problem)

    async def tell_always(self, instance: int) -> None:
        """Let the site know what is kept: when it changes, and now and then."""
        while True:
            seconds = _TELL_SECONDS
            if self._tokens is not None:
                self._news.clear()
                try:
                    await self.origin.tell(await self.state(instance))
                except (Away, Declined, CannotKeep) as error:
                    log.info("state of content not told", reason=error.message)
                    seconds = _TELL_AGAIN_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            # What belongs together is told together.
            await asyncio.sleep(_TOGETHER_SECONDS)


class Pull:
    """One content on its way from the site to the shelf."""

    def __init__(self, desk: Desk, title: Title, key: bytes) -> None:
        self._desk = desk
        self.title = title
        self._key = key
        self._have = 0
        self._hashes: list[bytes] = []
        self._sum = sha256()
        self._done = False
        self._error: AppError | None = None
        self._news = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None

    @property
    def available(self) -> int:
        """Chunks that may be given: the last one only when all of them are right."""
        return self._have if self._done else min(self._have, self.title.chunks - 1)

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
        self._end(Dropped("This content is not served any more."))

    async def reached(self, number: int) -> None:
        """Until this chunk may be given. Raises what the pull ended with, NotHere."""
        while self.available <= number and not self._done:
            if self._error is not None:
                raise self._error
            if number > self._have + _FAR:
                raise NotHere("It is too far ahead of what was pulled.")
            news = self._news
            await news.wait()
        if self._error is not None:
            raise self._error

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _end(self, error: AppError | None) -> None:
        if not self._done and self._error is None:
            self._done, self._error = error is None, error
            self._desk.pulled(self, self._hashes if error is None else None, error)
        self._tell()

    async def run(self) -> None:
        try:
            await self._run()
        # Whoever waits is told first: a log on the same full disk must not keep them waiting.
        except CannotKeep as error:
            self._end(NotHere(error.message))
            self._desk.full(error)
        except AppError as error:
            self._end(error)
            log.warning("pull failed", sha256=self.title.sha256, reason=error.message)
        except asyncio.CancelledError:
            self._end(Away("The pull was stopped."))
            raise
        except Exception:
            self._end(NotHere("The pull failed."))
            log.exception("pull failed", sha256=self.title.sha256)
        else:
            self._end(None)

    async def _run(self) -> None:
        desk = self._desk
        if desk.rests:
            raise NotHere(desk.problem)
        while True:
            with desk.lock(self.title) as mine:
                if mine:
                    # Another worker may have ended it while this one looked.
                    if not await self._is_whole():
                        await desk.room(self.title)
                        await self._take()
                    return
            if await self._is_whole():
                return
            # Another worker pulls: what it has stored can be read.
            while self._have < self.title.chunks - 1 and await desk.work(
                desk.shelf.has, self.title, self._have
            ):
                self._have += 1
                self._tell()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _is_whole(self) -> bool:
        try:
            found = await self._desk.work(self._desk.shelf.whole, self.title, self._key)
        except Damaged:
            return False
        if found is None:
            return False
        self._have, self._hashes = self.title.chunks, found
        return True

    async def _take(self) -> None:
        begun, desk = time.monotonic(), self._desk
        await self._go_on()
        kept = len(self._hashes)
        for attempt in range(_ATTEMPTS):
            try:
                await self._fetch()
                break
            except Away:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
        if self._sum.hexdigest() != self.title.sha256:
            await desk.work(desk.shelf.drop, self.title.sha256, self.title.distribution)
            desk.memory.forget(self.title.sha256, self.title.distribution)
            raise WrongContent(
                "What the site gave is not this content: its SHA-256 is another one.",
                cure="Distribute the package again; something between site and gateway alters it.",
            )
        await desk.work(desk.shelf.finish, self.title, self._key, self._hashes)
        desk.stored()
        log.info(
            "content pulled",
            sha256=self.title.sha256,
            distribution=self.title.distribution,
            bytes=self.title.size_bytes,
            chunks_kept=kept,
            seconds=round(time.monotonic() - begun, 2),
        )

    async def _go_on(self) -> None:
        """What was stored before a restart, as far as it is right."""
        desk = self._desk
        while len(self._hashes) < self.title.chunks:
            number = len(self._hashes)
            try:
                found = await desk.work(desk.shelf.chunk, self.title, self._key, number)
            except Damaged:
                break
            await self._count(found)
            # As it is found right it can be given: nobody goes past the shelf for it.
            self._have = max(self._have, len(self._hashes))
            self._tell()

    async def _count(self, content: bytes) -> None:
        def work() -> bytes:
            self._sum.update(content)
            return digest(content)

        self._hashes.append(await self._desk.work(work))

    async def _fetch(self) -> None:
        """From where it stands to the end."""
        title = self.title
        kept = bytearray()
        start = len(self._hashes) * CHUNK
        if len(self._hashes) < title.chunks and not title.size_bytes:
            await self._store(b"")
        async for piece in self._desk.pieces(title, start, title.size_bytes):
            kept += piece
            while len(self._hashes) < title.chunks and len(kept) >= (
                length := title.length(len(self._hashes))
            ):
                content = bytes(kept[:length])
                del kept[:length]
                await self._store(content)

    async def _store(self, content: bytes) -> None:
        desk, number = self._desk, len(self._hashes)
        await desk.work(desk.shelf.put, self.title, self._key, number, content)
        await self._count(content)
        desk.memory.put(self.title, number, content)
        self._have = max(self._have, len(self._hashes))
        self._tell()
