"""Take a device out of co-management, so that the MDM service alone manages it: one at a time.

begin      all workloads go to the MDM service; what the site set stays until its values are there
leaving    they are there: the client is told, with its signed policy, to go
taken      it was told: what the site set goes, its proof and its last word come, it removes itself
done       the site's record of it is retired; it may not register again until it is readmitted
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from structlog import get_logger

from tandem import audit
from tandem.infra import events
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.site import clients, collections, deployments, ledgers, traces
from tandem.site.comanagement import leaving_store as rows
from tandem.site.comanagement import service, tenant
from tandem.site.comanagement.leaving_model import (
    CANCELLABLE,
    OPEN,
    Going,
    LacksPolicies,
    NoSuchOffboarding,
    NotCoManaged,
    NotConfirmed,
    Offboarded,
    Offboarding,
    Preview,
    Progress,
    State,
    TooLate,
    UnderWay,
)
from tandem.site.comanagement.service import Collaborators
from tandem.workloads import Authority, Workload, effective, owner_of, owners

log = get_logger("offboarding")

AUTOMATIC = "off-boarding"
_SOME = 1000


async def preview(db: Database, others: Collaborators, device: str) -> Preview:
    """What leaving would come to. Changes nothing. Raises NoSuchResource, NotCoManaged, UnderWay."""
    async with db.transaction() as tx:
        found, client = await _co_managed(tx, device)
        theirs = await deployments.holding(tx, found.id)
        every = await collections.collections(tx)
        of = await collections.memberships(tx, [one.id for one in every], found.id)
    state = client.state
    assert state is not None
    now = owners(effective(state.flags, state.mdm_enrolled))
    there, app, trouble = await _tenant(others, client.device_id)
    ours = Counter(item.workload for item in theirs)
    going = tuple(
        Going(workload, ours[workload], there.get(workload, 0) if there is not None else None)
        for workload, owner in now.items()
        if owner is Authority.SITE
    )
    lacking = {one.workload for one in going if one.lacking}
    return Preview(
        found.name,
        going,
        tuple(item.name for item in theirs if item.workload in lacking),
        tuple(one.name for one in every if one.id in of and one.id != collections.ALL_SYSTEMS),
        app,
        trouble,
    )


async def _co_managed(tx: Tx, device: str) -> tuple[collections.KnownResource, clients.Client]:
    found = await collections.resource(tx, device)
    client = await clients.find(tx, found.client_id)
    if await rows.under_way(tx, client.id) is not None:
        raise UnderWay(
            f"{found.name} is leaving already.", cure="See how far: `tandem offboarding show`."
        )
    state = client.state
    if state is None or not (state.mdm_enrolled and state.policy_present):
        raise NotCoManaged(
            f"{found.name} is not co-managed: without the site nobody would manage it.",
            cure="Enrol it into the MDM service first, and wait for its report.",
        )
    return found, client


async def _tenant(
    others: Collaborators, device_id: str
) -> tuple[Mapping[Workload, int] | None, bool, str]:
    """How many settings the MDM service has for each workload of a device, whether it would install
    the client, and why that is not known."""
    try:
        graph = await others.graph()
        mdm_id, managed = await tenant.managed_device(graph, device_id)
        if not mdm_id:
            return None, False, "The tenant lists no such managed device."
        found: Counter[Workload] = Counter()
        for offered in await tenant.settings(graph, mdm_id):
            if offered.policy and offered.workload in {one.value for one in Workload}:
                found[Workload(offered.workload)] += 1
        app, apps = await tenant.apps(graph, mdm_id)
        found[Workload.CLIENT_APPS] += apps
        if managed.get("complianceState") in ("compliant", "noncompliant", "inGracePeriod"):
            found[Workload.COMPLIANCE_POLICIES] += 1
    except AppError as error:
        if error.kind in tenant.ABSENT:
            return None, False, "This tenant's Graph does not tell the settings of a device."
        return None, False, error.message
    return found, app, ""


async def begin(
    db: Database,
    others: Collaborators,
    device: str,
    *,
    confirm: str,
    accept_lacking: bool,
    actor: str,
    now: datetime,
) -> Offboarding:
    """Send a device on its way. `confirm` is its name, typed.

    Raises what `preview` does, LacksPolicies, NotConfirmed, NotEnabled.
    """
    told = await preview(db, others, device)
    lacking = [one.workload for one in told.going if one.lacking]
    if lacking and not accept_lacking:
        names = ", ".join(one.title for one in lacking)
        raise LacksPolicies(
            f"The tenant has nothing for this device in: {names}."
            + (f" {told.trouble}" if told.trouble else ""),
            cure="Assign policies there first; or say that it may go without them:"
            " `--accept-lacking`.",
            workloads=[one.value for one in lacking],
        )
    if confirm.strip().casefold() != told.name.casefold():
        raise NotConfirmed(
            f"This takes the site's client off {told.name} for good.",
            cure=f"When you mean that, type its name: `--confirm {told.name}`.",
            field="confirm",
        )
    async with db.transaction() as tx:
        await service.hold(tx)
        await service.required(tx)
        found, client = await _co_managed(tx, device)
        made = Offboarding(
            str(uuid.uuid4()),
            client.id,
            client.tenant_id,
            client.device_id,
            found.id,
            found.name,
            State.MOVING,
            now,
            actor,
            now,
            actor,
            tuple(one.value for one in lacking),
        )
        if not await rows.insert(tx, made):
            raise UnderWay(f"{found.name} is leaving already, or was taken out before.")
        await _cause(
            tx, made, "The device leaves the site: its workloads go to the MDM service", actor, now
        )
        await _audit(tx, made, "offboarding.begin", actor, now, lacking=list(made.lacking))
    return made


async def _cause(tx: Tx, one: Offboarding, text: str, actor: str, now: datetime) -> None:
    await traces.begin(
        tx,
        traces.Kind.OFFBOARDING,
        actor=actor,
        collections=[collections.ALL_SYSTEMS],
        details={"text": text, "devices": [one.name]},
        now=now,
    )


async def _audit(
    tx: Tx, one: Offboarding, action: str, actor: str, now: datetime, **details: Any
) -> None:
    await audit.record(
        tx,
        actor=actor,
        action=action,
        target=one.device_id,
        now=now,
        details={"name": one.name, "offboarding": one.id, **details},
    )


async def find(tx: Tx, wanted: str) -> Offboarding:
    """By its id, or the newest of a device. Raises NoSuchOffboarding."""
    found = await rows.find(tx, wanted)
    if found is None:
        raise NoSuchOffboarding(
            f"No device {wanted[:64]!r} is leaving or has left.",
            cure="List them: `tandem offboarding list`.",
        )
    return found


async def listed(tx: Tx, limit: int, offset: int) -> list[Offboarding]:
    return await rows.some(tx, list(State), limit, offset)


async def progress(tx: Tx, one: Offboarding) -> Progress:
    """What it waits for, and since when."""
    if one.state not in OPEN:
        return Progress(one)
    try:
        client = await clients.find(tx, one.client_id)
    except clients.NoSuchClient:
        return Progress(one, "The device was deleted from the site meanwhile.", one.changed_at)
    if one.state is State.LEAVING:
        return Progress(one, "The device is told to leave at its next poll.", one.changed_at)
    if one.state is State.TAKEN:
        text = "The device was told to leave; its last word is not here yet."
        return Progress(one, text, one.changed_at)
    left = _not_moved(client)
    if left:
        text = "The device has not reported yet that these are with the MDM service."
        return Progress(one, text, one.begun_at, tuple(w.value for w in left))
    waiting = _not_confirmed(client, one)
    text = "The MDM service's values are not confirmed yet; what the site set stays until then."
    return Progress(one, text if waiting else "", client.state_at, tuple(waiting))


def _not_moved(client: clients.Client) -> list[Workload]:
    state = client.state
    if state is None:
        return list(Workload)
    flags = effective(state.flags, state.mdm_enrolled)
    return [one for one in Workload if owner_of(one, flags) is not Authority.MDM]


def _not_confirmed(client: clients.Client, one: Offboarding) -> list[str]:
    """Workloads whose old values are in force still, but those that go without a successor."""
    state = client.state
    return sorted(set(state.handovers) - set(one.lacking)) if state is not None else []


async def cancel(tx: Tx, wanted: str, *, actor: str, now: datetime) -> Offboarding:
    """The device stays with both. Possible until it was told to leave. Raises TooLate."""
    await service.hold(tx)
    one, made = await find(tx, wanted), None
    while made is None and one.state in CANCELLABLE:
        made = await rows.save(tx, one, State.CANCELLED, actor, now)
        if made is None:
            one = await find(tx, one.id)  # It went on at this moment.
    if one.state is State.CANCELLED:
        return one
    if made is None:
        raise TooLate(
            f"{one.name} was told to leave already."
            if one.state is State.TAKEN
            else f"{one.name} has left already.",
            cure="When it is gone, let it in again: `tandem offboarding readmit`.",
        )
    await _cause(tx, made, "The device stays: its leaving was cancelled", actor, now)
    await _audit(tx, made, "offboarding.cancel", actor, now)
    return made


async def readmit(tx: Tx, wanted: str, *, actor: str, now: datetime) -> Offboarding:
    """A device that has left may register again. Raises NoSuchOffboarding, TooLate."""
    one = await find(tx, wanted)
    if one.state is State.READMITTED:
        return one
    if one.state is not State.DONE:
        raise TooLate(f"{one.name} has not left.", cure="Wait for that, or cancel it.")
    made = await rows.save(tx, one, State.READMITTED, actor, now)
    if made is None:
        return await find(tx, one.id)  # Somebody else did it at this moment.
    await _audit(tx, made, "offboarding.readmit", actor, now)
    return made


async def admit(tx: Tx, tenant_id: str, device_id: str) -> None:
    """Raises Offboarded for a device that was taken out."""
    one = await rows.gone(tx, tenant_id, device_id)
    if one is not None:
        raise Offboarded(
            f"{one.name} was taken out of co-management; the MDM service alone manages it.",
            cure=f"To have it back: `tandem offboarding readmit {one.name}`. Otherwise take the"
            " client's app from it in the tenant.",
        )


# What moves it on


async def tend(tx: Tx, now: datetime) -> bool:
    """Each one step further, where its device has done its part. Whether any is under way."""
    found = await rows.some(tx, OPEN, _SOME)
    for one in found:
        try:
            async with tx.transaction():
                await _onward(tx, one, now)
        except AppError as error:
            log.error("an off-boarding is not moved on", device=one.name, reason=error.message)
    return bool(found)


async def _onward(tx: Tx, one: Offboarding, now: datetime) -> None:
    try:
        client = await clients.find(tx, one.client_id)
    except clients.NoSuchClient:
        # Somebody deleted the device meanwhile: there is nothing left to retire. Who was not told to
        # leave is still there, and may register again.
        over = State.DONE if one.state is State.TAKEN else State.CANCELLED
        await rows.save(tx, one, over, AUTOMATIC, now)
        return
    if one.state is State.MOVING:
        if not _not_moved(client) and not _not_confirmed(client, one):
            made = await rows.save(tx, one, State.LEAVING, AUTOMATIC, now)
            if made is None:
                return  # Cancelled meanwhile.
            await _cause(tx, made, "The client is told to leave", AUTOMATIC, now)
            await _audit(tx, made, "offboarding.leave", AUTOMATIC, now)
    elif one.state is State.TAKEN and await clients.said_farewell(tx, client, one.begun_at):
        await _retire(tx, one, now)


async def _retire(tx: Tx, one: Offboarding, now: datetime) -> None:
    """Nothing of it lingers but that it was here, and what its ledger proved in the end."""
    proof: dict[str, Any] = {}
    try:
        ledger = await ledgers.find(tx, one.client_id)
        account = ledger.account
        proof = {"holds": ledger.holds, "entries": account.number, "digest": account.digest}
    except ledgers.NoLedger:
        pass
    made = await rows.save(tx, one, State.DONE, AUTOMATIC, now, proof)
    if made is None:
        return
    await clients.forget(tx, one.resource_id, actor=AUTOMATIC, now=now)
    await _audit(tx, made, "offboarding.done", AUTOMATIC, now, **proof)
    await events.record(tx, "comanagement.offboarded", one.device_id, {"name": one.name})
