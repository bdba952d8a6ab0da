"""Two machines that are one client, and one machine that is two: noticed, told, decided.

A disk that was copied to another machine has the client's key on it, so both are believed. Each
batch of messages has a number that grows and names the hardware that sends it: when the hardware
changes, or a number comes that was used before, an administrator is told. Nothing is refused for
it, so neither machine loses what it has to say. Decisions and their reasons are in ADR 31.
"""

from datetime import datetime, timedelta
from typing import Literal
from uuid import uuid4

import msgspec

from tandem import audit
from tandem.infra import events
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.protocols import ccm
from tandem.site.clients import store
from tandem.site.clients.model import (
    CONFLICT,
    REVIVED,
    SITE_TOPIC,
    SUPERSEDED,
    Client,
    Conflict,
    ConflictKind,
)

Decision = Literal["new-identity", "dismiss"]
NEW_IDENTITY: Decision = "new-identity"
# For so long an obsolete record stays, as in the field.
KEEP_OBSOLETE = timedelta(days=7)
_MOST = 1000
# More other machines than this are told of together: one client must not bury what others' are.
_MOST_OTHERS = 8


class NoSuchConflict(AppError):
    kind, code = Kind.NOT_FOUND, "client.no-such-conflict"


class NotPossible(AppError):
    kind, code = Kind.CONFLICT, "client.no-new-identity"


class Noted(msgspec.Struct, frozen=True):
    """The highest number that this client has used; whether who sent this is to take an identity of
    its own; whether the whole inventory was wanted before."""

    sequence: int = 0
    leaves: bool = False
    resync: bool = False


async def note_batch(tx: Tx, client: Client, request: ccm.IncomingRequest, now: datetime) -> Noted:
    """Look at who sends, before what is sent."""
    if not request.sequence:
        return Noted()
    before = await store.hold_continuity(tx, client.id)
    here = request.hardware_id
    known = before.hardware or client.hardware_id
    back = request.sequence <= before.sequence
    sequence = max(request.sequence, before.sequence)
    after = store.Continuity(sequence, here or before.hardware)
    await store.save_continuity(tx, client.id, after)
    if here and known and here != known:
        other = here if here != client.hardware_id else before.hardware
        if await store.open_conflicts(tx, client.id, "clone", other) >= _MOST_OTHERS:
            other = ""
        await _tell(tx, client, "clone", other, now)
    elif back:
        await _tell(tx, client, "sequence", "", now)
    leaves = False
    for found in await store.decided(tx, client.id, NEW_IDENTITY) if before.decided else ():
        conflict = await store.conflict(tx, found)
        if conflict is not None:
            leaves |= here == conflict.other if conflict.kind == "clone" else back
    return Noted(sequence, leaves, before.resync)


async def _tell(tx: Tx, client: Client, kind: ConflictKind, other: str, now: datetime) -> None:
    times, _ = await store.add_conflict(tx, client.id, kind, other, now)
    if times == 1:
        data: dict[str, object] = {"kind": kind, "other": other, "name": client.name}
        await _enter(tx, client, CONFLICT, data, now)
        await events.record(tx, "client.conflict", client.id, {"device": client.device_id, **data})


async def _enter(
    tx: Tx, client: Client, state: int, data: dict[str, object], now: datetime
) -> None:
    entry = ccm.Message(f"site:{uuid4().hex}", SITE_TOPIC, state, now, data)
    await store.add_entry(tx, client.tenant_id, client.device_id, entry, now)


async def supersede(tx: Tx, client: Client, now: datetime) -> None:
    """A machine that registered as a new client leaves the records that it had before behind it."""
    if not client.hardware_id:
        return
    for old in await store.same_hardware(tx, client.hardware_id, client.id):
        if await store.set_obsolete(tx, old.id, True, now):
            await _enter(tx, old, SUPERSEDED, {"by": client.id, "name": client.name}, now)
            data = {"device": old.device_id, "by": client.id}
            await events.record(tx, "client.superseded", old.id, data)


async def revive(tx: Tx, client: Client, now: datetime) -> None:
    """An obsolete client speaks: there are two machines that say they are the same hardware."""
    if not await store.set_obsolete(tx, client.id, False, now):
        return
    await _enter(tx, client, REVIVED, {}, now)
    for other in await store.same_hardware(tx, client.hardware_id, client.id):
        await _tell(tx, client, "hardware", other.id, now)


async def every(tx: Tx, resolved: bool = False) -> list[Conflict]:
    """Those that nobody has decided or that are under way, the newest first; then the others."""
    return [_worded(found) for found in await store.conflicts(tx, resolved, _MOST)]


async def decide(tx: Tx, id: int, decision: str, *, actor: str, now: datetime) -> Conflict:
    """Raises NoSuchConflict, NotPossible, Invalid."""
    found = await store.conflict(tx, id)
    if found is None or found.resolved_at is not None:
        raise NoSuchConflict(
            f"There is no open conflict {id}.",
            cure="`tandem client conflicts` shows those that there are.",
        )
    if decision not in ("new-identity", "dismiss"):
        raise Invalid("A conflict is decided by new-identity or dismiss.")
    if decision == NEW_IDENTITY and (
        found.kind == "hardware" or found.registered_by != "bulk-token"
    ):
        said = _worded(found)
        raise NotPossible(
            "This machine cannot be given an identity of its own from here.", cure=said.cure
        )
    resolved = now if decision == "dismiss" else None
    await store.decide(tx, id, decision, actor, resolved)
    if resolved and found.kind == "clone":
        await store.settle_hardware(tx, found.client_id)
    details = {"kind": found.kind, "other": found.other, "decision": decision}
    await audit.record(
        tx,
        actor=actor,
        action="client.conflict-decide",
        target=found.client_id,
        details=details,
        now=now,
    )
    after = await store.conflict(tx, id)
    assert after is not None
    return _worded(after)


async def settled(tx: Tx, client_id: str, now: datetime) -> None:
    """The copy of this client has registered as another one."""
    await store.forget_last_hardware(tx, client_id)
    await store.resolve(tx, await store.decided(tx, client_id, NEW_IDENTITY), now)


def _worded(found: Conflict) -> Conflict:
    text, cure = _WORDS[found.kind, found.times > 1]
    if found.kind != "hardware" and found.registered_by in _ELSEWHERE:
        cure = _ELSEWHERE[found.registered_by]
    return msgspec.structs.replace(found, text=text, cure=cure)


_TAKE_OR_DISMISS = (
    "If it was copied, give the copy an identity of its own; if it was moved or put back, dismiss"
    " this."
)
_REJOIN = (
    "If the disk was copied, make the copy leave the directory and join it again: it then takes a"
    " key of its own. If it was moved or put back, dismiss this."
)
_REISSUE = (
    "If the disk was copied, give the copy a certificate and a key of its own, and revoke the one that"
    " both have. If it was moved or put back, dismiss this."
)
# Only the site's own token can be handed over; these are told apart where they are known.
_ELSEWHERE = {"directory": _REJOIN, "certificate": _REISSUE}
_TWO = "Give the copy an identity of its own."
_KEEP = (
    "If one of the two is gone, delete its record (`tandem client delete`); if both are real, as"
    " virtual machines from one template can be, dismiss this."
)
_WORDS: dict[tuple[ConflictKind, bool], tuple[str, str]] = {
    ("clone", False): (
        "The client speaks from other hardware: its disk was moved to another machine, or copied.",
        _TAKE_OR_DISMISS,
    ),
    ("clone", True): ("Two machines are this client, by turns: its disk was copied.", _TWO),
    ("sequence", False): (
        "The client repeated a number that it had used: its disk was put back to an earlier state,"
        " or copied.",
        _TAKE_OR_DISMISS,
    ),
    ("sequence", True): (
        "The client repeats numbers again and again: two machines have a copy of its disk.",
        _TWO,
    ),
    ("hardware", False): ("Two clients that are both alive say they are the same hardware.", _KEEP),
    ("hardware", True): ("Two clients that are both alive say they are the same hardware.", _KEEP),
}
