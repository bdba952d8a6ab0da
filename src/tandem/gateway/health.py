"""/healthz, /readyz and /metrics on a private address, without a web framework."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Ready = Callable[[], tuple[bool, dict[str, Any]]]

_TEXT = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


async def serve(address: str, ready: Ready) -> asyncio.Server:
    """`ready` says whether, and facts to show."""
    host, _, port = address.rpartition(":")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.LimitOverrunError):
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1:2] or [b""]
            status, content_type, content = _answer(path[0].decode("ascii", "replace"), ready)
            writer.write(
                f"HTTP/1.1 {status} {_TEXT[status]}\r\nContent-Type: {content_type}\r\n"
                f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
                + content
            )
            await writer.drain()
        writer.close()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    return await asyncio.start_server(guarded, host, int(port), limit=16_384)


def _answer(path: str, ready: Ready) -> tuple[int, str, bytes]:
    if path == "/healthz":
        return 200, "application/json", b'{"ok":true}'
    if path == "/readyz":
        good, facts = ready()
        return 200 if good else 503, "application/json", msgspec.json.encode({"ok": good, **facts})
    if path == "/metrics":
        ready()  # It brings what is counted by looking up to date.
        return 200, CONTENT_TYPE_LATEST, generate_latest()
    return 404, "text/plain", b"/healthz, /readyz, /metrics\n"
