"""Work that is done again and again for as long as a role runs."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger

log = get_logger("rounds")


async def rounds(
    stop: asyncio.Event,
    work: Callable[[], Awaitable[float | None]],
    every_seconds: float,
    *,
    failed: str,
    cut_off: bool = False,
) -> None:
    """Do `work` until `stop`, with `every_seconds` between two rounds, or what a round returns.

    A round that fails is logged as `failed`, and the next one comes all the same: neither a
    database that is away nor a mistake in one round is a reason to have no rounds any more. The
    round under way is finished at the stop, or cut off where `cut_off` says so.
    """
    if not cut_off:
        await _go_on(stop, work, every_seconds, failed)
        return
    going = asyncio.create_task(_go_on(stop, work, every_seconds, failed))
    try:
        await stop.wait()
    finally:
        going.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await going


async def _go_on(
    stop: asyncio.Event,
    work: Callable[[], Awaitable[float | None]],
    every_seconds: float,
    failed: str,
) -> None:
    while not stop.is_set():
        pause = None
        try:
            pause = await work()
        except AppError as error:
            log.warning(failed, reason=error.message)
        except Exception:
            log.exception(failed)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_seconds if pause is None else pause):
                await stop.wait()
