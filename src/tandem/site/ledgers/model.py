"""A device's ledger as the site has checked it."""

from datetime import datetime
from typing import Any

import msgspec

from tandem.infra.errors import AppError, Kind
from tandem.workloads import Account, Finding


class NoLedger(AppError):
    kind, code = Kind.NOT_FOUND, "ledger.none"


class NothingToAcknowledge(AppError):
    kind, code = Kind.CONFLICT, "ledger.nothing-to-acknowledge"


class FoundMore(AppError):
    kind, code = Kind.CONFLICT, "ledger.found-more"


class Checkpoint(msgspec.Struct, frozen=True):
    """A point at which the device shortened its ledger: the entry that says so, and what it says."""

    number: int
    account: Account


class Ledger(msgspec.Struct, frozen=True):
    """`account` is what it says up to its last entry, `findings` all that was ever wrong with it.
    The site has its entries from `kept_from` on; where it dropped older ones, that is the first of
    `checkpoints`.

    `others` counts the ledgers of the same client that other keys have signed.
    """

    id: int
    client_id: str
    thumbprint: str
    key: dict[str, str]
    began_at: datetime
    received_at: datetime
    account: Account
    findings: list[Finding]
    checkpoints: list[Checkpoint] = []
    kept_from: int = 1
    others: int = 0

    @property
    def holds(self) -> bool:
        """Whether it still proves what it is for."""
        return not any(one.breaks for one in self.findings)


class Entry(msgspec.Struct, frozen=True):
    """One entry: what it says, and the text that the device signed."""

    number: int
    digest: str
    received_at: datetime
    text: str
    said: dict[str, Any] = {}
