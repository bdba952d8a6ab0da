"""Waiting that ends when it has to."""

import asyncio
from contextlib import suppress


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait this long, or until `stop` is set. True when it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await stop.wait()
    return stop.is_set()
