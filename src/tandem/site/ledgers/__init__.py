"""Ledgers of devices: who owned each workload there, and who set or removed what, as they sign it.

Owns the tables ledgers_…. An entry is kept when the device's key signed it; with each, the account
of its ledger goes on, and what is wrong is written down. One ledger a client and key.
"""

from tandem.site.ledgers.model import Entry, Ledger, NoLedger
from tandem.site.ledgers.service import check, entries, find, take

__all__ = ["Entry", "Ledger", "NoLedger", "check", "entries", "find", "take"]
