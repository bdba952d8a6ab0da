"""What a gateway itself asks of its site, over the tunnel: keys, content, and to be heard."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import msgspec

from tandem.gateway.mux import Incoming
from tandem.gateway.tunnels import Tunnel, Tunnels
from tandem.infra.errors import AppError, Kind
from tandem.protocols.tunnel import (
    ORIGIN,
    PROOF_HEADER,
    ContentKey,
    ContentState,
    KeyRequest,
    Reset,
    Type,
    encode,
    prove,
)

_ANSWER_LIMIT = 64 * 1024


class Away(AppError):
    """The site cannot be asked now; another time it can."""

    kind, code = Kind.UNAVAILABLE, "origin.away"


class Declined(AppError):
    """The site does not give it to this gateway."""

    kind, code = Kind.NOT_FOUND, "origin.declined"


class Origin:
    def __init__(
        self,
        tunnels: Tunnels,
        connection_id: str,
        new_id: Callable[[], bytes],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tunnels = tunnels
        self._connection_id = connection_id
        self._new_id = new_id
        self._now = now

    async def key(self, sha256: str, distribution: int) -> ContentKey:
        """Raises Away, Declined."""
        body = msgspec.json.encode(KeyRequest(sha256, distribution))
        raw = await self._small("POST", "/key", body)
        try:
            return msgspec.json.decode(raw, type=ContentKey)
        except msgspec.DecodeError:
            raise Away("The site's answer about a key cannot be read.") from None

    async def tell(self, state: ContentState) -> None:
        """Raises Away, Declined."""
        await self._small("POST", "/state", msgspec.json.encode(state))

    async def content(self, sha256: str, start: int, end: int) -> "Fetch":
        """The bytes from start to before end. Raises Away, Declined."""
        fetch = self._begin("GET", f"/{sha256}", b"", [b"range: bytes=%d-%d" % (start, end - 1)])
        status = await fetch.status()
        if status != 206:
            fetch.close()
            raise _refused(status)
        return fetch

    async def _small(self, method: str, path: str, body: bytes) -> bytes:
        fetch = self._begin(method, path, body, [])
        try:
            status = await fetch.status()
            found = b""
            while piece := await fetch.piece():
                found += piece
                if len(found) > _ANSWER_LIMIT:
                    raise Away("The site's answer is larger than it can be.")
            if status not in (200, 204):
                raise _refused(status)
            return found
        finally:
            fetch.close()

    def _begin(self, method: str, path: str, body: bytes, fields: list[bytes]) -> "Fetch":
        tunnel = self._tunnels.next()
        if tunnel is None:
            raise Away("No connection point of the site is connected to this gateway.")
        proof = prove(self._connection_id, method, path, body, self._now())
        lines = [
            f"{method} {ORIGIN}{path} HTTP/1.1".encode(),
            b"x-correlation-id: " + self._new_id(),
            f"{PROOF_HEADER.lower()}: {proof}".encode(),
            *fields,
        ]
        if body:
            lines += [b"content-type: application/json", b"content-length: %d" % len(body)]
        limits = self._tunnels.limits()
        return Fetch(
            tunnel,
            b"\r\n".join(lines) + b"\r\n\r\n" + body,
            limits.request_seconds,
            limits.stall_seconds,
            self._tunnels.opened,
        )


def _refused(status: int) -> AppError:
    if status in (401, 403, 404, 410):
        return Declined(f"The site does not give this content to this gateway ({status}).")
    return Away(f"The site answers {status}.")


class Fetch:
    """One request of the gateway's own, and its answer piece by piece."""

    outgoing = None

    def __init__(
        self,
        tunnel: Tunnel,
        request: bytes,
        seconds: float,
        stall: float,
        freed: Callable[[], None],
    ) -> None:
        """`freed` is told when the tunnel has room for another request."""
        self._tunnel = tunnel
        self._freed = freed
        self._seconds = seconds
        self._stall = stall
        self._news = asyncio.Event()
        self._status = 0
        self._pieces: deque[bytes] = deque()
        self._over = False
        self._broken = ""
        self._number = tunnel.open(self)
        self.incoming = Incoming(tunnel.mux, self._number)
        tunnel.mux.put(encode(Type.OPEN, self._number, request, fin=True))

    async def status(self) -> int:
        """Raises Away."""
        await self._until(lambda: self._status, self._seconds)
        return self._status

    async def piece(self) -> bytes:
        """The next of the body; nothing when it is over. Raises Away when it breaks off."""
        await self._until(lambda: self._pieces or self._over, self._stall)
        if not self._pieces:
            return b""
        found = self._pieces.popleft()
        if not self._over and not self._broken:
            self.incoming.passed(len(found))
        return found

    async def _until(self, holds: Callable[[], object], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    if self._broken:
                        raise Away(self._broken)
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self.close()
            raise Away("The site did not answer in time.") from None

    def close(self) -> None:
        """Nothing more of it is wanted."""
        if not self._over and not self._broken:
            self._broken = "It is not wanted any more."
            mux = self._tunnel.mux
            if self._number in mux.streams and mux.open:
                mux.reset(self._number, Reset.CANCELLED, self._broken)
            self._freed()

    # -------------------------------------------------------------- what the tunnel tells

    def head(self, payload: bytes, fin: bool) -> None:
        parts = payload.partition(b"\r\n")[0].split(b" ", 2)
        self._status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 502
        self._end(fin)

    def data(self, payload: bytes, fin: bool) -> None:
        if payload:
            self._pieces.append(payload)
        self._end(fin)

    def _end(self, fin: bool) -> None:
        if fin:
            self._over = True
            self._tunnel.mux.streams.pop(self._number, None)
            self._freed()
        self._news.set()

    def writable(self) -> None:
        """All of the request is out with its head."""

    def reset(self, reason: str) -> None:
        self._broken = reason or "The tunnel to the site broke."
        self._news.set()
