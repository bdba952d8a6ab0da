"""Take what devices send of their ledgers, and say whether it proves what it is for."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import Invalid
from tandem.protocols import ccm
from tandem.site.ledgers import store
from tandem.site.ledgers.model import (
    Checkpoint,
    Entry,
    FoundMore,
    Ledger,
    NoLedger,
    NothingToAcknowledge,
)
from tandem.workloads import Account, Finding, Flaw, follow, merge_findings

# So many of a device's entries the site keeps at least; older ones go at a checkpoint.
KEEP_ENTRIES = 400


async def take(
    tx: Tx,
    client_id: str,
    thumbprint: str,
    key: dict[str, str],
    part: ccm.LedgerPart,
    now: datetime,
) -> int:
    """Keep what is new and signed by this key. Returns the number of the entry that is wanted next:
    lower than what was sent when something before it is missing that the device may still have."""
    ledger, new = await store.hold(tx, client_id, thumbprint, key, now)
    account, findings, checkpoints = (
        ledger.account,
        list(ledger.findings),
        list(ledger.checkpoints),
    )
    if new and ledger.others:
        text = "The ledger begins anew: the client was registered with another key."
        findings = merge_findings(findings, [Finding(Flaw.NEW_KEY, 1, text)])
    public = ccm.public_key(key)
    opened = [_open(text, public) for text in part.entries]
    here = await store.known(
        tx, ledger.id, [d for e, d, _ in opened if e] + [e.previous for e, _, _ in opened if e]
    )
    here.add(ccm.GENESIS)
    lost = False
    for entry, digest, text in opened:
        if entry is None:
            bad = f"After entry {account.number} came something that this device did not sign."
            findings = merge_findings(findings, [Finding(Flaw.BAD_ENTRY, account.number + 1, bad)])
            lost = True
            continue
        if digest in here:
            continue
        if not account.follows(entry):
            if entry.previous in here:
                every = await store.entries(tx, ledger.id)
                before = _up_to(every, entry.previous, checkpoints)
                if entry.number != before.number + 1:
                    lost = True
                    bad = f"Entry {entry.number} follows entry {before.number}."
                    findings = merge_findings(
                        findings, [Finding(Flaw.BAD_ENTRY, entry.number, bad)]
                    )
                    continue
                findings = merge_findings(findings, [_fork(entry, account)])
                account = before
            elif entry.number < ledger.kept_from:
                # The site keeps no entry from so far back: this one is another, and signed.
                findings = merge_findings(findings, [_fork(entry, account)])
                account = Account(entry.number - 1, entry.previous, partial=True)
            elif lost or part.oldest > account.number + 1:
                findings = merge_findings(findings, [_gap(account.number, entry.number)])
                account = Account(entry.number - 1, entry.previous, partial=True)
            else:
                break
        if entry.kind == "checkpoint":
            checkpoints.append(Checkpoint(entry.number, account))
        account, found = follow(account, entry, digest, now)
        findings = merge_findings(findings, found)
        await store.add(tx, ledger.id, entry.number, digest, text, now)
        here.add(digest)
    if (account, findings) != (ledger.account, ledger.findings):
        kept, from_ = _kept(checkpoints, account), ledger.kept_from
        if kept and kept[0].number > from_:
            from_ = kept[0].number
            await store.drop_before(tx, ledger.id, from_)
        await store.save(tx, ledger.id, account, findings, kept or checkpoints, from_, now)
    return account.number + 1


def _kept(checkpoints: list[Checkpoint], account: Account) -> list[Checkpoint]:
    """From the checkpoint on at which the site's entries may begin; empty when all are to stay.

    The device may send again what follows its newest one but one, so that stays in any case.
    """
    for place in range(len(checkpoints) - 2, -1, -1):
        one = checkpoints[place]
        if account.number - one.number >= KEEP_ENTRIES and not one.account.partial:
            return checkpoints[place:]
    return []


def _open(text: str, key: ec.EllipticCurvePublicKey) -> tuple[ccm.LedgerEntry | None, str, str]:
    try:
        return ccm.open_entry(text, key), ccm.entry_digest(text), text
    except ccm.BadEntry:
        return None, "", text


def _fork(entry: ccm.LedgerEntry, account: Account) -> Finding:
    if entry.number == 1:
        text = (
            f"The ledger begins anew, but the site has {account.number} entries of it: what the"
            " device had written was deleted."
        )
        return Finding(Flaw.BEGAN_ANEW, 1, text)
    text = (
        f"There are two entries {entry.number}, each signed by this device; the newer one is from"
        f" {entry.at.isoformat()}. Its disk was put back to an earlier state, or copied to another"
        " machine."
    )
    return Finding(Flaw.FORK, entry.number, text)


def _gap(last: int, number: int) -> Finding:
    missing = (
        f"Entry {last + 1} is" if number == last + 2 else f"Entries {last + 1} to {number - 1} are"
    )
    if number <= last + 1:
        missing = f"What comes before entry {number} is"
    return Finding(Flaw.GAP, last + 1, f"{missing} missing, and the device has it no longer.")


def _up_to(entries: Sequence[Entry], digest: str, checkpoints: Sequence[Checkpoint]) -> Account:
    """The account of the branch that ends with this entry."""
    of = {one.digest: one for one in entries}
    branch: list[tuple[Entry, ccm.LedgerEntry]] = []
    while (found := of.get(digest)) is not None:
        said = ccm.read_entry(found.text)
        branch.append((found, said))
        digest = said.previous
    account = Account()
    if digest != ccm.GENESIS and branch:
        known = (one.account for one in checkpoints if one.account.digest == digest)
        account = next(known, Account(branch[-1][1].number - 1, digest, partial=True))
    for one, said in reversed(branch):
        account, _ = follow(account, said, one.digest, one.received_at)
    return account


async def find(tx: Tx, client_id: str) -> Ledger:
    """The ledger that this client's device writes now. Raises NoLedger."""
    found = await store.newest(tx, client_id)
    if found is None:
        raise NoLedger(
            "The site has nothing of this device's ledger.",
            cure="It comes with the device's next messages; clients before this version keep none.",
        )
    return found


async def acknowledge(
    tx: Tx, client_id: str, *, seen: int, reason: str, actor: str, now: datetime
) -> Ledger:
    """Take note of all that breaks the proof, so that it holds again for what comes.

    `seen` is how many findings the administrator has seen: what came since is not acknowledged with
    them. Raises NoLedger, NothingToAcknowledge, FoundMore, Invalid without a reason.
    """
    why = reason.strip()
    if not why or len(why) > 500 or not why.isprintable():
        raise Invalid(
            "A finding is acknowledged with a reason of 1 to 500 characters on one line.",
            cure="Say what happened, like 'restored from the snapshot of Tuesday'.",
            field="reason",
        )
    ledger = await store.lock(tx, (await find(tx, client_id)).id)
    open_ = [one for one in ledger.findings if one.breaks]
    if not open_:
        raise NothingToAcknowledge("Nothing that breaks this ledger's proof is open.")
    known = len(ledger.findings)
    if known != seen:
        raise FoundMore(
            f"The ledger has {known} findings by now, and {seen} were seen.",
            cure="Look at them again.",
        )
    findings = [
        msgspec.structs.replace(one, acknowledged_at=now, acknowledged_by=actor, reason=why)
        if one.breaks
        else one
        for one in ledger.findings
    ]
    await store.save_findings(tx, ledger.id, findings)
    told = {"findings": [f"{one.flaw.value} at entry {one.number}" for one in open_], "reason": why}
    await audit.record(
        tx, actor=actor, action="ledger.acknowledge", target=client_id, details=told, now=now
    )
    return msgspec.structs.replace(ledger, findings=findings)


async def entries(tx: Tx, ledger: Ledger, limit: int = 200) -> list[Entry]:
    """The newest first."""
    found = await store.entries(tx, ledger.id, limit=limit, newest_first=True)
    return [_with_words(one) for one in found]


def _with_words(entry: Entry) -> Entry:
    try:
        said = msgspec.to_builtins(msgspec.structs.asdict(ccm.read_entry(entry.text)))
    except ccm.BadEntry:
        said = {}
    return msgspec.structs.replace(entry, said=said)


async def check(tx: Tx, ledger: Ledger) -> list[Finding]:
    """Check everything again, from what the device signed alone; findings of the past stay.

    What the site kept besides may have been changed with it: this finds that too.
    """
    key = ccm.public_key(ledger.key)
    found = list(ledger.findings)
    accounts: dict[str, Account] = {ccm.GENESIS: Account()}
    if ledger.kept_from > 1:
        # What the device signed at this point says whether the site remembers it rightly.
        first = ledger.checkpoints[0]
        accounts[first.account.digest] = first.account
    told = {one.number for one in found if one.flaw in (Flaw.GAP, Flaw.FORK, Flaw.BEGAN_ANEW)}
    for one in await store.entries(tx, ledger.id):
        found = merge_findings(found, _check_one(one, key, accounts, told))
    again = accounts.get(ledger.account.digest)
    if again is None or _whole(again) != _whole(ledger.account):
        text = "What the site says of this ledger is not what its entries say."
        found = merge_findings(found, [Finding(Flaw.ALTERED, ledger.account.number, text)])
    return found


def _whole(account: Account) -> Account:
    return msgspec.structs.replace(account, partial=False)


def _check_one(
    one: Entry, key: ec.EllipticCurvePublicKey, accounts: dict[str, Account], told: set[int]
) -> list[Finding]:
    altered = Finding(
        Flaw.ALTERED, one.number, f"Entry {one.number} was changed in the site's database."
    )
    entry, digest, _ = _open(one.text, key)
    if entry is None or (digest, entry.number) != (one.digest, one.number):
        return [altered]
    before = accounts.get(entry.previous)
    findings: list[Finding] = []
    if before is None:
        before = Account(entry.number - 1, entry.previous, partial=True)
        if not any(number <= entry.number for number in told):
            text = f"What comes before entry {entry.number} is missing in the site's database."
            findings.append(Finding(Flaw.ALTERED, entry.number, text))
    account, wrong = follow(before, entry, digest, one.received_at)
    accounts[digest] = account
    return [*findings, *wrong]
