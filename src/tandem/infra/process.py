"""One role in one process: uvloop, and a stop event that SIGTERM and SIGINT set."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import uvloop


def run_role(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run until `main` returns. It is expected to drain and return once the event is set."""

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await main(stop)

    uvloop.run(body())
