"""Where a workload stood, step by step, and the way back to any of these places.

A way back is one step more: nothing that happened is taken out of the list. It only takes devices
away from the MDM service; whoever means to hand it more plans a roll-out.
"""

from datetime import datetime

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.site import clients, collections
from tandem.site.comanagement import rollout_store as rows
from tandem.site.comanagement import rollouts, service, store
from tandem.site.comanagement.model import Slider, Step
from tandem.site.comanagement.rollout_model import OPEN, State
from tandem.workloads import Position, Workload

_SHOWN = 100


class NoSuchStep(AppError):
    kind, code = Kind.NOT_FOUND, "comanagement.no-such-step"


class GoesForward(AppError):
    kind, code = Kind.CONFLICT, "comanagement.goes-forward"


async def steps(tx: Tx, workload: Workload) -> list[Step]:
    """The newest first, which is where it stands."""
    return await store.steps(tx, workload, _SHOWN)


async def back(tx: Tx, workload: Workload, id: int, *, actor: str, now: datetime) -> Slider:
    """Put a workload where it stood at a step. A roll-out that is under way, or was the last to
    move it, is switched back with it, as far as need be.

    Raises NotEnabled, NoSuchStep, NoSuchCollection, GoesForward.
    """
    await store.lock(tx)
    await service.required(tx)
    wanted = await store.step(tx, workload, id)
    if wanted is None:
        raise NoSuchStep(
            f"There is no such step of {workload.title}.",
            cure=f"List them: `tandem comanagement steps {workload.value}`.",
        )
    slider = (await store.sliders(tx))[workload]
    (newest,) = await store.steps(tx, workload, 1)
    if newest.place == wanted.place:
        return slider
    for needed in (wanted.collection_id, *wanted.also) if wanted.position is Position.PILOT else ():
        await collections.collection(tx, needed)
    owned = (await service.decided_now(tx))[workload]
    last = await rows.newest_started(tx, workload)
    if last is not None and last.state is not State.RETURNED:
        open_ = last.state in OPEN
        if open_ or not await rollouts.overtaken(tx, last):
            ring = wanted.ring if wanted.rollout_id == last.id else 0
            await rollouts.back(tx, last.id, ring=ring, actor=actor, now=now)
    placed = Slider(workload, wanted.position, wanted.collection_id, now, actor, wanted.also)
    about = {"back": True, "back_to": wanted.id}
    await service.place(tx, placed, about=about, actor=actor, now=now)
    gained = (await service.decided_now(tx))[workload] - owned
    together = {one.id for one in await clients.reported(tx) if one.co_managed}
    more = len(gained & together)
    if more:
        raise GoesForward(
            f"That would hand {workload.title} of {more} more devices to the MDM service: it is no"
            " way back.",
            cure=f"Plan a roll-out: `tandem rollout plan {workload.value}`.",
            devices=more,
        )
    await audit.record(
        tx,
        actor=actor,
        action="comanagement.back",
        target=workload.value,
        now=now,
        details={"step": wanted.id, "to": wanted.position.value},
    )
    return (await store.sliders(tx))[workload]
