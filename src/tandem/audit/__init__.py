"""Who did what: append-only, each entry chained to the one before by its hash, its heads signed.

Owns the tables audit_entry and audit_head, which both databases have; triggers refuse to change or
remove their rows. An entry's digest covers every column of it and the digest before, so an altered,
missing or inserted row breaks the chain from there on. A head signs how many entries there are and
the last digest, with a key that is not in the database, and names the head before. What that is
worth against whom is in docs/adr/0012-audit.md.
"""

from tandem.audit.model import (
    BadAuditKey,
    Broken,
    Entry,
    Head,
    Problem,
    Signer,
    Stored,
    as_json,
    key_id,
    read_public_key,
)
from tandem.audit.offline import BadExport, Export, inspect, read_export, read_heads, write_export
from tandem.audit.service import (
    Outcome,
    entries,
    examine,
    heads,
    last_head,
    record,
    sign,
    stored_entries,
    verify,
)

__all__ = [
    "BadAuditKey",
    "BadExport",
    "Broken",
    "Entry",
    "Export",
    "Head",
    "Outcome",
    "Problem",
    "Signer",
    "Stored",
    "as_json",
    "entries",
    "examine",
    "heads",
    "inspect",
    "key_id",
    "last_head",
    "read_export",
    "read_heads",
    "read_public_key",
    "record",
    "sign",
    "stored_entries",
    "verify",
    "write_export",
]
