"""Use cases of licences."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tandem.infra import events
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.tenant import directory
from tandem.tenant.licensing import store
from tandem.tenant.licensing.model import (
    AAD_PREMIUM,
    CONFLICT,
    CURES,
    DEPENDENCY,
    INTUNE_A,
    NO_ERROR,
    NO_SEATS,
    PLANS,
    REASONS,
    SUITE,
    Assignment,
    Claim,
    NoMdmLicence,
    NoSeats,
    NotAssigned,
    NotSubscribed,
    NoUsageLocation,
    Plan,
    PlanConflict,
    PlanDependency,
    Product,
    Run,
    RunState,
    Seat,
    SeatsInUse,
    Subscription,
    product,
    settle,
)

MAXIMUM_SEATS = 10_000_000

# Defers a run, by its id, in the transaction of the change that it follows from.
Later = Callable[[Tx, str], Awaitable[None]]

# A group of so many users is settled in the request itself; a larger one by a job, in steps that
# keep the lock on all seats short and show progress.
INLINE = 100
CHUNK = 1000


async def establish(tx: Tx, now: datetime) -> None:
    """A new tenant: one suite without a limit, and licences not asked for. Harmless twice."""
    if not await store.subscriptions(tx):
        await store.save_subscription(tx, SUITE, None, now)


async def subscribe(tx: Tx, sku: str, seats: int | None, now: datetime) -> Subscription:
    """Subscribe to a product, or change how many seats it has (None: no limit)."""
    wanted = product(sku)
    if seats is not None and not 0 < seats <= MAXIMUM_SEATS:
        raise SeatsInUse(f"{seats} seats cannot be had.", cure=f"Choose 1 to {MAXIMUM_SEATS}.")
    await store.lock(tx)
    known = await _subscription(tx, wanted)
    if known is not None and seats is not None and seats < known.consumed:
        raise SeatsInUse(
            f"{known.consumed} seats of {wanted.part_number} are in use.",
            cure="Remove assignments first, or choose at least as many seats.",
        )
    await store.save_subscription(tx, wanted.sku_id, seats, now)
    await _fill(tx, now)
    changed = await _subscription(tx, wanted)
    assert changed is not None
    return changed


async def subscriptions(tx: Tx) -> list[Subscription]:
    return await store.subscriptions(tx)


async def _subscription(tx: Tx, wanted: Product) -> Subscription | None:
    found = [item for item in await store.subscriptions(tx) if item.product == wanted]
    return found[0] if found else None


async def licence_required(tx: Tx) -> bool:
    """Whether enrolment asks for licences: the tenant's switch, off in a new tenant."""
    return await store.requirement(tx)


async def require_licence(tx: Tx, required: bool) -> None:
    await store.set_requirement(tx, required)


@dataclass(frozen=True, slots=True)
class Added:
    """A product to assign, with the plans of it that are switched off."""

    sku: str
    disabled_plans: tuple[str, ...] = ()


async def assign(
    tx: Tx, sku: str, holder_id: str, now: datetime, disabled_plans: Sequence[str] = ()
) -> None:
    """Assign one product to a user or a group: see `change`."""
    await change(tx, holder_id, now, add=[Added(sku, tuple(disabled_plans))])


async def unassign(tx: Tx, sku: str, holder_id: str, now: datetime) -> None:
    await change(tx, holder_id, now, remove=[sku])


async def change(
    tx: Tx,
    holder_id: str,
    now: datetime,
    *,
    add: Sequence[Added] = (),
    remove: Sequence[str] = (),
    later: Later | None = None,
) -> Run | None:
    """Assign products to a user or a group and take others away, as one change.

    A user's licences are changed at once or not at all: NoSeats, NoUsageLocation, PlanConflict,
    PlanDependency. For a group the outcome of each member is in `seats`: a member without a seat
    does not keep the others from theirs. Small groups are done when this returns, large ones by
    `later`; the run that is returned tells how far it is.
    """
    await store.lock(tx)
    # A refusal takes back what was changed here, whatever the caller does with it.
    async with tx.transaction():
        return await _change(tx, holder_id, now, add, remove, later)


async def _change(
    tx: Tx,
    holder_id: str,
    now: datetime,
    add: Sequence[Added],
    remove: Sequence[str],
    later: Later | None,
) -> Run | None:
    added = [await _offered(tx, item) for item in add]
    removed = [product(sku) for sku in remove]
    if twice := {item.sku_id for item, _ in added} & {item.sku_id for item in removed}:
        raise NotAssigned(
            f"The product {product(twice.pop()).part_number} is both added and removed.",
            cure="Name it once.",
        )
    sort = await directory.sort_of(tx, holder_id)
    if sort not in ("user", "group"):
        raise directory.UnknownObject(
            f"There is no user or group '{holder_id}'.", cure="Check the id."
        )
    for item in removed:
        if not await store.delete_assignment(tx, item.sku_id, holder_id):
            raise NotAssigned(
                f"User does not have a corresponding license: {item.part_number} is not assigned "
                "here.",
                cure="A licence that comes from a group is removed at the group.",
            )
    for item, disabled in added:
        await store.save_assignment(tx, item.sku_id, holder_id, disabled, now)
    if sort == "group":
        return await _reach(tx, holder_id, now, later)
    await _change_user(tx, holder_id, {item.sku_id for item, _ in added}, now)
    return None


async def _offered(tx: Tx, item: Added) -> tuple[Product, tuple[str, ...]]:
    wanted = product(item.sku)
    if await _subscription(tx, wanted) is None:
        raise NotSubscribed(
            f"The tenant has no subscription of {wanted.part_number}.",
            cure=f"Subscribe to it first: `tandem license subscribe {wanted.part_number}`.",
        )
    disabled = tuple(dict.fromkeys(plan.lower() for plan in item.disabled_plans))
    unknown = set(disabled) - {plan.id for plan in wanted.plans}
    if unknown:
        raise NotSubscribed(
            f"{wanted.part_number} has no service plan {', '.join(sorted(unknown))}.",
            cure="Disable only plans of the product.",
        )
    return wanted, disabled


async def _change_user(tx: Tx, user_id: str, added: set[str], now: datetime) -> None:
    user = await directory.user(tx, user_id)
    if added and not user.usage_location:
        raise NoUsageLocation(
            "License assignment cannot be done for user with invalid usage location: "
            f"{user.user_principal_name} has none.",
            cure="Set the user's usage location first.",
        )
    settled = await _settle(tx, [user_id], now)
    for claim, error in settled:
        lost = claim.held and claim.holder_id == user_id
        if error != NO_ERROR and (lost or (claim.holder_id == user_id and claim.sku_id in added)):
            raise await _refusal(tx, claim, error)
    await _fill(tx, now)


async def _refusal(tx: Tx, claim: Claim, error: str) -> AppError:
    name, cure = product(claim.sku_id).part_number, CURES[error]
    if error == NO_SEATS:
        known = await _subscription(tx, product(claim.sku_id))
        return NoSeats(
            f"Subscription with SKU {name} does not have any available licenses: "
            f"all {known.seats if known else 0} seats are assigned.",
            cure="Remove an assignment, or subscribe to more seats.",
        )
    if error == CONFLICT:
        return PlanConflict(
            f"License assignment failed because {name} has service plans that conflict with those "
            "of another product of this user.",
            cure=cure,
        )
    if error == DEPENDENCY:
        needed = sorted({PLANS[need].name for plan in claim.plans for need in PLANS[plan].needs})
        return PlanDependency(
            f"License assignment failed because service plans of {name} depend on "
            f"{', '.join(needed)}, which the user would not have.",
            cure=cure,
        )
    return NoUsageLocation(REASONS[error], cure=cure)


async def assignments(tx: Tx, holder_id: str | None = None) -> list[Assignment]:
    return await store.assignments(tx, holder_id)


async def seats(
    tx: Tx, *, user_ids: Sequence[str] | None = None, holder_id: str | None = None
) -> list[Seat]:
    """What assignments came to, the failed ones with their reason."""
    return await store.seats(tx, user_ids=user_ids, holder_id=holder_id)


async def member_changed(
    tx: Tx, group_id: str, member_id: str, now: datetime, later: Later | None = None
) -> None:
    """To be called when something came into a group or left it."""
    holders = {item.holder_id for item in await store.assignments(tx)}
    if not holders & {group_id, *await directory.groups_of(tx, group_id)}:
        return
    if await directory.sort_of(tx, member_id) == "group":
        await _reach(tx, member_id, now, later)
    else:
        await reconcile(tx, now, [member_id])


async def _reach(tx: Tx, group_id: str, now: datetime, later: Later | None) -> Run:
    """Settle everybody in the group: now, or step by step when they are many."""
    total = await store.count_below(tx, group_id)
    run = Run(str(uuid.uuid4()), group_id, RunState.QUEUED, total, 0, 0, None, now, None)
    await store.insert_run(tx, run)
    if later is not None and total > INLINE:
        await later(tx, run.id)
        return run
    while await advance(tx, run.id, now):
        pass
    done = await store.run(tx, run.id)
    assert done is not None
    return done


async def advance(tx: Tx, run_id: str, now: datetime) -> bool:
    """Settle the next members of a run; False when it is done. Runs again where it stopped."""
    run = await store.run(tx, run_id)
    if run is None or run.state is RunState.DONE:
        return False
    await store.lock(tx)
    users = await store.users_below(tx, run.group_id, run.position, CHUNK)
    if not users:
        await _fill(tx, now)
        await store.save_run(tx, replace(run, state=RunState.DONE, finished_at=now))
        return False
    settled = await _settle(tx, users, now)
    failed = {claim.user_id for claim, error in settled if error != NO_ERROR}
    await store.save_run(
        tx,
        replace(
            run,
            state=RunState.RUNNING,
            total=max(run.total, run.done + len(users)),
            done=run.done + len(users),
            failed=run.failed + len(failed),
            position=users[-1],
        ),
    )
    return True


async def newest_runs(tx: Tx, group_ids: Sequence[str] | None = None) -> list[Run]:
    """The newest run of each group."""
    return await store.newest_runs(tx, group_ids)


async def reconcile(tx: Tx, now: datetime, users: Sequence[str] | None = None) -> None:
    """Bring seats in line with assignments, members, usage locations and limits.

    To be called after a change of these users, or (None) of who knows whom. Who has a seat keeps
    it; free seats go to the oldest assignment first.
    """
    await store.lock(tx)
    concerned = list(users) if users is not None else await store.everyone_concerned(tx)
    for start in range(0, len(concerned), CHUNK):
        await _settle(tx, concerned[start : start + CHUNK], now)
    await _fill(tx, now)


async def _settle(tx: Tx, users: Sequence[str], now: datetime) -> list[tuple[Claim, str]]:
    """The outcome of every assignment that reaches these users, which is stored and told."""
    claims = await store.claims(tx, users)
    keys = [(c.sku_id, c.holder_id, c.user_id) for _, mine in claims.values() for c in mine]
    gone = await store.drop_seats(tx, users, keys)
    free = await store.free_seats(tx)
    settled = [
        outcome
        for located, mine in claims.values()
        for outcome in settle(mine, located=located, free=free)
    ]
    changed = [(claim, error) for claim, error in settled if claim.error != error]
    await store.save_seats(
        tx, [(c.sku_id, c.holder_id, c.user_id, error) for c, error in changed], now
    )
    news: list[tuple[str, dict[str, Any]]] = [(user, {"sku": sku}) for sku, user in gone]
    news += [(c.user_id, {"sku": c.sku_id, "error": error}) for c, error in changed]
    if news:
        await events.record_all(tx, "licence.changed", news)
    return settled


async def _fill(tx: Tx, now: datetime) -> None:
    """Free seats go to those who wait for them."""
    while True:
        for sku_id, free in (await store.free_seats(tx)).items():
            users = await store.waiting(tx, sku_id, int(min(free, CHUNK))) if free >= 1 else []
            if users:
                await _settle(tx, users, now)
                break
        else:
            return


async def tend(tx: Tx, now: datetime) -> None:
    """Runs that ended long ago go."""
    await store.delete_runs(tx, now - timedelta(days=30))


async def plans(tx: Tx, user_id: str) -> frozenset[str]:
    """Names of the service plans that the user's licences bring."""
    found = set()
    for seat in await store.seats(tx, user_ids=[user_id]):
        if seat.active:
            granted = product(seat.sku_id).plans
            found |= {plan.name for plan in granted if plan.id not in seat.disabled_plans}
    return frozenset(found)


async def has_plan(tx: Tx, user_id: str, plan: Plan | str) -> bool:
    """Whether an assigned licence brings this plan, whatever the tenant's switch says."""
    return (plan.name if isinstance(plan, Plan) else plan) in await plans(tx, user_id)


async def may_enroll_automatically(tx: Tx, user_id: str) -> bool:
    """Automatic enrolment at join is a feature of directory premium."""
    return not await store.requirement(tx) or await has_plan(tx, user_id, AAD_PREMIUM)


async def check_mdm_licence(tx: Tx, user_id: str) -> None:
    """Raise NoMdmLicence when licences are asked for and the user has none with the MDM plan."""
    if await store.requirement(tx) and not await has_plan(tx, user_id, INTUNE_A):
        user = await directory.find_user(tx, user_id)
        name = user.user_principal_name if user else user_id
        raise NoMdmLicence(
            f"{name} has no licence for the MDM service (0x80180018, MENROLL_E_USERLICENSE).",
            cure="Assign a product with the plan INTUNE_A to the user or to one of the user's "
            "groups, then try again.",
        )
