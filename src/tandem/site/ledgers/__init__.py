"""Ledgers of devices: who owned each workload there, and who set or removed what, as they sign it.

Owns the tables ledgers_…. An entry is kept when the device's key signed it; with each, the account
of its ledger goes on, and what is wrong is written down. One ledger a client and key.
Older entries go at a point that the device signed (`checkpoint`).
"""

from tandem.site.ledgers.model import Entry, FoundMore, Ledger, NoLedger, NothingToAcknowledge
from tandem.site.ledgers.service import acknowledge, check, entries, find, take

__all__ = [
    "Entry",
    "FoundMore",
    "Ledger",
    "NoLedger",
    "NothingToAcknowledge",
    "acknowledge",
    "check",
    "entries",
    "find",
    "take",
]
