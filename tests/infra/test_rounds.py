"""Background work goes on after rounds that failed, and ends when it is told to."""

import asyncio

import pytest

from tandem.infra.errors import AppError
from tandem.infra.rounds import rounds


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_round_that_fails_is_not_the_last(cut_off: bool) -> None:
    stop, count = asyncio.Event(), 0

    async def work() -> float:
        nonlocal count
        count += 1
        if count == 1:
            raise AppError("The database is away.")
        if count == 2:
            raise ValueError("a mistake")
        if count == 4:
            stop.set()
        return 0

    async with asyncio.timeout(10):
        await rounds(stop, work, 0.01, failed="failed", cut_off=cut_off)
    assert count == 4


async def test_the_round_under_way_is_finished_or_cut_off() -> None:
    for cut_off in (False, True):
        stop, begun, ended = asyncio.Event(), asyncio.Event(), False

        async def work(begun: asyncio.Event = begun, slow: bool = cut_off) -> None:
            nonlocal ended
            begun.set()
            await asyncio.sleep(60 if slow else 0.05)
            ended = True

        running = asyncio.create_task(rounds(stop, work, 60, failed="failed", cut_off=cut_off))
        async with asyncio.timeout(10):
            await begun.wait()
            stop.set()
            await running
        assert ended is not cut_off
