"""Outgoing connections: none is left open by a request that was given up."""

import asyncio
import contextlib
import gc
import ssl
import warnings

import httpx
import pytest

from tandem.infra import net


@pytest.mark.parametrize("how", ["cancelled", "too late"])
async def test_a_handshake_that_is_given_up_leaves_no_connection_open(how: str) -> None:
    ended = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        context = ssl.create_default_context()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            async with net.client(
                context=context, timeout=60 if how == "cancelled" else 0.2
            ) as web:
                asking = asyncio.create_task(web.get(f"https://127.0.0.1:{port}/"))
                if how == "cancelled":
                    while not web._transport._pool.connections:  # type: ignore[attr-defined]
                        await asyncio.sleep(0)
                    await asyncio.sleep(0.1)
                    asking.cancel()
                with pytest.raises((asyncio.CancelledError, httpx.ConnectTimeout)):
                    await asking
            async with asyncio.timeout(20):
                await ended.wait()
            del asking
            gc.collect()
    assert [str(item.message) for item in warned] == []
