"""Where gateways ask what of devices' policies still holds, so that they can say so (ADR 46).

    POST /EdgeAnswers/<service name>    Question → Confirmation, in MessagePack
      401   not this gateway's key
      404   this gateway is not to answer
      503   changes are not heard of now: nothing can be said

On the management point's listener, and before all else there: some questions a second from each worker
of each gateway take the place of every check-in without news.
"""

import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from tandem.infra.database import Database
from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger
from tandem.protocols import tunnel
from tandem.site import clients
from tandem.site.cloud_services import store

log = get_logger("http")

DOOR = tunnel.ANSWERS_ENDPOINT
# What the gateway asks for, in its tunnels; no client's path begins so.
PREFIX = "/CCM_Proxy_EdgeAnswers"
_PATH = f"/{DOOR}/"
_SCHEME = b"CMG "
_LIMIT = 256 * 1024
# A gateway that was switched off, redeployed or deleted may still ask for so long.
_KEPT_SECONDS = 5.0

Send = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Asker:
    key: bytes
    wanted: bool
    until: float


class EdgeAnswers:
    """The door, and what gateways say at it."""

    def __init__(self, db: Database, checkins: clients.CheckIns) -> None:
        self._db = db
        self._checkins = checkins
        self._askers: dict[str, _Asker] = {}
        # The last question of each worker, for who wants to see how it goes.
        self.workers: dict[tuple[str, str], tuple[float, tunnel.Question]] = {}

    def before(self, app: Any) -> Any:
        """The application, with this door in front of it."""

        async def answering(scope: Any, receive: Any, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(_PATH):
                await app(scope, receive, send)
                return
            try:
                status, content = await self._answer(scope, receive)
            except AppError as error:
                status, content = 503, b""
                log.warning("edge answers", reason=error.message)
            await _reply(send, status, content)

        return answering

    async def _answer(self, scope: Any, receive: Any) -> tuple[int, bytes]:
        if scope["method"] != "POST":
            return 405, b""
        name = scope["path"][len(_PATH) :]
        asker = await self._asker(name)
        given = dict(scope["headers"]).get(b"authorization", b"")
        if asker is None or not hmac.compare_digest(given, _SCHEME + asker.key):
            return 401, b""
        if not asker.wanted:
            return 404, b""
        body = await _body(receive)
        if body is None:
            return 413, b""
        try:
            question = msgspec.msgpack.decode(body, type=tunnel.Question)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 400, b""
        self._checkins.saw_elsewhere(question.seen)
        told = await self._checkins.told(question)
        self._note(name, question)
        return (503, b"") if told is None else (200, msgspec.msgpack.encode(told))

    async def _asker(self, name: str) -> _Asker | None:
        now = time.monotonic()
        known = self._askers.get(name)
        if known is not None and known.until > now:
            return known
        async with self._db.transaction() as tx:
            found = await store.gateway(tx, name)
        if found is None:
            self._askers.pop(name, None)
            return None
        key = tunnel.answers_key(found.connection_id).encode()
        wanted = found.edge_answers and not found.content_only
        made = self._askers[name] = _Asker(key, wanted, now + _KEPT_SECONDS)
        return made

    def _note(self, name: str, question: tunnel.Question) -> None:
        key = (name, question.worker[:64])
        self.workers.pop(key, None)
        self.workers[key] = time.monotonic(), msgspec.structs.replace(question, seen={}, known={})
        if len(self.workers) > 1000:
            del self.workers[next(iter(self.workers))]


async def _body(receive: Any) -> bytes | None:
    """None when it is too large, or who sends it has gone."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _LIMIT:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


async def _reply(send: Send, status: int, content: bytes) -> None:
    headers = [(b"content-length", str(len(content)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
