"""Reading the log, signing its heads, and walking along it."""

import time
from datetime import datetime

from tandem import audit
from tandem.audit import Entry, Head, Signer
from tandem.infra.database import Tx
from tandem.site.auditing import store
from tandem.site.auditing.model import Filter, Verification


async def entries(
    tx: Tx, wanted: Filter, newest_first: bool, limit: int, offset: int
) -> tuple[list[Entry], int]:
    """A page of the entries that are asked for, and how many such there are."""
    return await store.entries(tx, wanted, newest_first, limit, offset)


async def sign(tx: Tx, signer: Signer, now: datetime) -> Head | None:
    """The head that covers every entry until now. None while the log is empty."""
    return await audit.sign(tx, signer, now)


async def verify(tx: Tx, signer: Signer, now: datetime) -> Verification:
    """Walk along the whole log, once its newest head is signed, and remember what was found."""
    started = time.perf_counter()
    await audit.sign(tx, signer, now)
    problems = await audit.examine(tx, [signer.public])
    count, heads, signed = await store.counts(tx)
    took = round((time.perf_counter() - started) * 1000, 1)
    made = Verification(now, count, heads, signed, took, problems)
    await store.save_verification(tx, made)
    return made


async def last_verification(tx: Tx) -> Verification | None:
    return await store.verification(tx)


async def state(tx: Tx) -> tuple[int, int, int]:
    """How many entries there are now, how many heads, and how many entries those cover."""
    return await store.counts(tx)
