"""Changes of co-management that one administrator's word is not enough for.

A change that gives workloads of more devices to the MDM service than `approval_above`, or has more
clients enrolled, waits for a second administrator: All Systems is chosen by mistake in one click.
The way back to the site never waits, for it is taken when something is wrong. Roll-outs have gates
and an approval of their own.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.site import collections
from tandem.site.approvals import Safeguards
from tandem.site.comanagement import approval_store, service
from tandem.site.comanagement.model import (
    Enablement,
    NeedsReason,
    NoSuchRequest,
    NotTwoPeople,
    ReachesOthers,
    Request,
    Settings,
)
from tandem.site.comanagement.service import Collaborators


async def reaches_far(
    tx: Tx,
    others: Collaborators,
    wanted: Settings,
    guards: Safeguards,
    *,
    actor: str,
    now: datetime,
) -> service.Preview | None:
    """What the change would do, when it reaches more devices than one administrator may reach
    alone; None when it does not. Raises what `configure` refuses."""
    if await collections.count_resources(tx) <= guards.approval_above:
        return None
    found = await service.preview(tx, others, wanted, actor=actor, now=now)
    return found if found.reaches > guards.approval_above else None


async def ask(
    tx: Tx,
    others: Collaborators,
    found: service.Preview,
    asked: Mapping[str, Any],
    *,
    access_token: str,
    reason: str,
    guards: Safeguards,
    actor: str,
    now: datetime,
) -> Request:
    """Let a change wait. `asked` is it as the API reads it, without what signs somebody in: that is
    used now, and kept nowhere. The same again is what waits already.

    Raises NeedsReason, Prerequisites, NeedsSignIn, and what the tenant refuses."""
    await service.check_tenant(tx, others, access_token)
    reason = reason.strip()
    if not reason or len(reason) > 1024:
        raise NeedsReason(
            f"This change reaches {found.reaches} devices: a second administrator has to approve"
            " it, and needs a reason.",
            cure="Say why, in at most 1,024 characters (`--reason`), or begin with a pilot, or with"
            " a roll-out: `tandem rollout plan`.",
            field="reason",
            devices=found.reaches,
        )
    for known in await approval_store.requests(tx, now):
        if (known.asked_by, known.wanted) == (actor, asked):
            return known
    made = Request(
        str(uuid.uuid4()),
        dict(asked),
        found.reaches,
        reason,
        actor,
        now,
        now + timedelta(hours=guards.approval_hours),
    )
    await approval_store.insert(tx, made)
    await audit.record(
        tx,
        actor=actor,
        action="comanagement.ask",
        target="comanagement",
        now=now,
        details={"devices": made.devices, "reason": reason, "wanted": made.wanted},
    )
    return made


async def waiting(tx: Tx, now: datetime) -> list[Request]:
    """What waits for a second administrator, the oldest first."""
    return await approval_store.requests(tx, now)


async def approve(
    tx: Tx,
    others: Collaborators,
    request: Request,
    wanted: Settings,
    *,
    devices: int,
    seen: str,
    actor: str,
    now: datetime,
) -> Enablement:
    """Do what somebody else has asked for. `devices` is how many the one who approves saw that it
    reaches, and `seen` the value that was shown with it. Raises NotTwoPeople, ReachesOthers, and what `configure` refuses."""
    if request.asked_by == actor:
        raise NotTwoPeople(
            f"{request.asked_by} asked for this: another administrator has to approve it.",
            cure="Ask another full administrator, or appoint one: `tandem administrator add`.",
        )
    found = await service.preview(tx, others, wanted, actor=request.asked_by, now=now)
    if found.reaches != devices:
        raise ReachesOthers(
            f"This change reaches {found.reaches} devices by now, not {devices}.",
            cure="Look at it again, and approve it if you still agree.",
            devices=found.reaches,
        )
    if found.seen != seen:
        raise ReachesOthers(
            "This change reaches other devices by now.",
            cure="Look at it again (`tandem comanagement waiting`), and approve it if you still agree.",
            devices=found.reaches,
        )
    await _decide(tx, request, "approve", actor, now, devices=devices)
    return await service.configure_checked(tx, others, wanted, actor=request.asked_by, now=now)


async def cancel(tx: Tx, id: str, *, actor: str, now: datetime) -> None:
    """Nothing is changed: by whoever asked, or by anybody who may. Raises NoSuchRequest."""
    await _decide(tx, await find(tx, id, now), "cancel", actor, now)


async def _decide(
    tx: Tx, request: Request, what: str, actor: str, now: datetime, **details: Any
) -> None:
    """One administrator decides it. Raises NoSuchRequest."""
    if not await approval_store.delete(tx, request.id):
        raise _missing()
    await audit.record(
        tx,
        actor=actor,
        action=f"comanagement.{what}",
        target="comanagement",
        now=now,
        details={"asked_by": request.asked_by, "reason": request.reason, **details},
    )


async def find(tx: Tx, id: str, now: datetime) -> Request:
    """Raises NoSuchRequest."""
    for item in await approval_store.requests(tx, now):
        if item.id == id:
            return item
    raise _missing()


def _missing() -> AppError:
    return NoSuchRequest(
        "No such change waits for approval.",
        cure="Somebody decided it, or its time is over: `tandem comanagement waiting`.",
    )
