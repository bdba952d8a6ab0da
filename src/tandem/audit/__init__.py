"""Who did what: append-only, each entry chained to the one before by its hash.

Owns the table audit_entry, which both databases have. An entry's digest covers every column of it
and the digest before, so an altered, missing or inserted row breaks the chain from there on.
"""

from tandem.audit.service import Broken, Entry, Outcome, entries, record, verify

__all__ = ["Broken", "Entry", "Outcome", "entries", "record", "verify"]
