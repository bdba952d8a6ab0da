"""One role in one process: uvloop where there is one, and a stop event that SIGTERM and SIGINT set."""

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

if sys.platform == "win32":

    def _run(main: Coroutine[Any, Any, None]) -> None:
        asyncio.run(main)

    def _on_signal(number: signal.Signals, act: Callable[[], None]) -> None:
        """Handlers run in the main thread, between two steps of the loop."""
        loop = asyncio.get_running_loop()
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))

else:
    import uvloop

    def _run(main: Coroutine[Any, Any, None]) -> None:
        uvloop.run(main)

    def _on_signal(number: signal.Signals, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().add_signal_handler(number, act)


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody waited for, into the log.

    TLS transports, asyncio's own among them, tell of a peer that went away within the handshake with
    the exception's class instead of an exception, which the loop's handler cannot write.
    """
    error = context.get("exception")
    if isinstance(error, type):
        error = error()
        context = {**context, "exception": error}
    if isinstance(error, ConnectionError):
        return
    loop.default_exception_handler(context)


def settle() -> None:
    """Once a role has begun: what it has loaded stays, and is not looked through for garbage again
    and again; of what comes and goes, more is let come together between two looks."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def run_role(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run until `main` returns. It is expected to drain and return once the event is set."""

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(_unhandled)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            _on_signal(number, stop.set)
        await main(stop)

    _run(body())
