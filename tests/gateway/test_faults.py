"""Every part of the chain is killed once under load; `make faults` does it at random, and for longer."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from tools import faults

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]


async def test_whatever_is_killed_no_accepted_request_is_lost(tmp_path: Path) -> None:
    """Answered, or failed with a status that says why; and what is acknowledged is in the database."""
    with ExitStack() as stack:
        chain, account, _ = await faults.run(
            tmp_path,
            stack,
            lambda chain, account: faults.one_after_another(chain, faults.PARTS, account),
        )
    assert account.lost == []
    assert {part: len(times) for part, times in chain.killed.items()} == dict.fromkeys(
        faults.PARTS, 1
    )
    assert account.answered > 2 * len(faults.PARTS) * faults.DEVICES
    assert account.acknowledged
