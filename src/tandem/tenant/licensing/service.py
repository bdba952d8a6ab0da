"""Use cases of licences."""

from collections.abc import Sequence
from datetime import datetime

from tandem.infra import events
from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.licensing import store
from tandem.tenant.licensing.model import (
    AAD_PREMIUM,
    INTUNE_A,
    NO_ERROR,
    NO_LOCATION,
    NO_SEATS,
    SUITE,
    Assignment,
    NoMdmLicence,
    NoSeats,
    NotAssigned,
    NotSubscribed,
    NoUsageLocation,
    Plan,
    Product,
    Seat,
    SeatsInUse,
    Subscription,
    product,
)

MAXIMUM_SEATS = 10_000_000


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
    await reconcile(tx, now)
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


async def assign(
    tx: Tx, sku: str, holder_id: str, now: datetime, disabled_plans: Sequence[str] = ()
) -> None:
    """Assign a product to a user or a group.

    A user gets the seat at once or NoSeats / NoUsageLocation is raised. For a group the outcome
    of each member is in `seats`: a member without a seat does not keep the others from theirs.
    """
    wanted = product(sku)
    await store.lock(tx)
    known = await _subscription(tx, wanted)
    if known is None:
        raise NotSubscribed(
            f"The tenant has no subscription of {wanted.part_number}.",
            cure=f"Subscribe to it first: `tandem license subscribe {wanted.part_number}`.",
        )
    unknown = set(disabled_plans) - {plan.id for plan in wanted.plans}
    if unknown:
        raise NotSubscribed(
            f"{wanted.part_number} has no service plan {', '.join(sorted(unknown))}.",
            cure="Disable only plans of the product.",
        )
    sort = await directory.sort_of(tx, holder_id)
    if sort not in ("user", "group"):
        raise directory.UnknownObject(
            f"There is no user or group '{holder_id}'.", cure="Check the id."
        )
    if sort == "user":
        user = await directory.user(tx, holder_id)
        if not user.usage_location:
            raise NoUsageLocation(
                "License assignment cannot be done for user with invalid usage location: "
                f"{user.user_principal_name} has none.",
                cure="Set the user's usage location first.",
            )
        held = [s for s in await store.seats(tx, user_ids=[user.id]) if s.sku_id == wanted.sku_id]
        if known.free == 0 and not any(seat.active for seat in held):
            raise NoSeats(
                f"Subscription with SKU {wanted.part_number} does not have any available licenses: "
                f"all {known.seats} seats are assigned.",
                cure="Remove an assignment, or subscribe to more seats.",
            )
    await store.save_assignment(tx, wanted.sku_id, holder_id, disabled_plans, now)
    await reconcile(tx, now)


async def unassign(tx: Tx, sku: str, holder_id: str, now: datetime) -> None:
    wanted = product(sku)
    await store.lock(tx)
    if not await store.delete_assignment(tx, wanted.sku_id, holder_id):
        raise NotAssigned(
            f"User does not have a corresponding license: {wanted.part_number} is not assigned "
            "here.",
            cure="A licence that comes from a group is removed at the group.",
        )
    await reconcile(tx, now)


async def assignments(tx: Tx) -> list[Assignment]:
    return await store.assignments(tx)


async def seats(
    tx: Tx, *, user_ids: Sequence[str] | None = None, holder_id: str | None = None
) -> list[Seat]:
    """What assignments came to, the failed ones with their reason."""
    return await store.seats(tx, user_ids=user_ids, holder_id=holder_id)


async def members_changed(tx: Tx, group_id: str, now: datetime) -> None:
    """`reconcile` if the group, or one that contains it, has licences."""
    holders = {assignment.holder_id for assignment in await store.assignments(tx)}
    if holders and holders & {group_id, *await directory.groups_of(tx, group_id)}:
        await reconcile(tx, now)


async def reconcile(tx: Tx, now: datetime) -> None:
    """Bring seats in line with assignments, members, usage locations and limits.

    To be called after a change of a group or a user. Who has a seat keeps it; free seats go to
    the oldest assignment first.
    """
    await store.lock(tx)
    existing = {(s.sku_id, s.holder_id, s.user_id): s for s in await store.seats(tx)}
    located = {user.id: bool(user.usage_location) for user in await directory.users(tx)}
    wanted = await _wanted(tx)
    for gone in existing.keys() - set(wanted):
        await store.delete_seat(tx, *gone)
        await events.record(tx, "licence.changed", gone[2], {"sku": gone[0]})
    for subscription in await store.subscriptions(tx):
        sku = subscription.product.sku_id
        mine = [key for key in wanted if key[0] == sku]
        seated = {key[2] for key in mine if key in existing and existing[key].active}
        for key in mine:
            user_id = key[2]
            if not located[user_id]:
                error = NO_LOCATION
                seated.discard(user_id)
            elif user_id in seated:
                error = NO_ERROR
            elif subscription.seats is None or len(seated) < subscription.seats:
                error = NO_ERROR
                seated.add(user_id)
            else:
                error = NO_SEATS
            if key not in existing or existing[key].error != error:
                await store.save_seat(tx, *key, error, now)
                await events.record(tx, "licence.changed", user_id, {"sku": sku, "error": error})


async def _wanted(tx: Tx) -> list[tuple[str, str, str]]:
    """(sku, holder, user) of every assignment, the oldest first."""
    found: list[tuple[str, str, str]] = []
    for assignment in await store.assignments(tx):
        if await directory.sort_of(tx, assignment.holder_id) == "user":
            users = [assignment.holder_id]
        else:
            inside = await directory.all_members(tx, assignment.holder_id)
            users = [member.id for member in inside if member.sort == "user"]
        found += [(assignment.sku_id, assignment.holder_id, user_id) for user_id in users]
    return found


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
