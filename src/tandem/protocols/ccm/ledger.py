"""What a device writes down of itself: who owned each workload, and who set or removed what.

A ledger is a chain of compact JWS, each signed with the device's key over a number that counts up
and the digest of the entry before. The digest covers what was signed and not the signature, which
has more than one valid form. Values are named by their SHA-256: the proof needs no more.
"""

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem.infra.errors import AppError, Kind
from tandem.protocols.ccm import jws

GENESIS = "0" * 64
# Of one entry, in characters.
ENTRY_LIMIT = 8192
TEXT_LIMIT = 512
_TYPE = "ccm-ledger+jwt"

EntryKind = Literal[
    "begin",  # A ledger begins, or goes on after the device's state was lost (`reason`).
    "own",  # `authority` is the owner of `workload` from now on.
    "confirm",  # Its values are in force; the hand-over is over.
    "overdue",  # The hand-over took longer than it may; the old values stay.
    "write",  # `authority` set `setting`.
    "remove",  # A value that `authority` had set is gone (`reason`: leftover, withdrawn, left).
    "checkpoint",  # `value` is a digest of owners and settings; what comes before may be dropped.
]
# No NUL: a database cannot keep it.
_Text = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT, pattern=r"^[^\x00]*$")]


class LedgerEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    number: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    previous: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    kind: EntryKind
    workload: _Text = ""
    authority: _Text = ""
    setting: _Text = ""
    # SHA-256 of the value that was set, or of what the entries before say.
    value: _Text = ""
    reason: _Text = ""
    # Of "own": the flags that decided, and how many seconds the hand-over may take.
    flags: int = 0
    bound: float = 0


class LedgerPart(msgspec.Struct, frozen=True):
    """`data` of a message with topic 9003. `oldest` is the first number that the device still has."""

    entries: Annotated[list[str], msgspec.Meta(max_length=200)]
    oldest: Annotated[int, msgspec.Meta(ge=1)] = 1


class BadEntry(AppError):
    """Not an entry, or not one that this device signed."""

    kind, code = Kind.INVALID, "ledger.bad-entry"


def sign_entry(entry: LedgerEntry, key: ec.EllipticCurvePrivateKey) -> str:
    return jws.serialize({"typ": _TYPE}, msgspec.json.encode(entry), key)


def entry_digest(text: str) -> str:
    return sha256(text.rpartition(".")[0].encode()).hexdigest()


def read_entry(text: str) -> LedgerEntry:
    """What an entry says, whoever signed it. Raises BadEntry."""
    try:
        if len(text) > ENTRY_LIMIT:
            raise ValueError("too long")
        header, payload, _, _ = jws.parse(text)
        if header.get("typ") != _TYPE or header.get("alg") != "ES256":
            raise ValueError("another kind of JWS")
        return msgspec.json.decode(payload, type=LedgerEntry)
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise BadEntry("This is not an entry of a device's ledger.") from None


def open_entry(text: str, key: ec.EllipticCurvePublicKey) -> LedgerEntry:
    """Raises BadEntry when it cannot be read, or another key signed it."""
    entry = read_entry(text)
    _, _, signing, signature = jws.parse(text)
    if not jws.is_signed(key, signature, signing):
        raise BadEntry(f"Entry {entry.number} was not signed with this device's key.")
    return entry
