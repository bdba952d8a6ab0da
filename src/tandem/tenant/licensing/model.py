"""The catalogue of products, and what a licence is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tandem.infra.errors import AppError, Kind


@dataclass(frozen=True, slots=True)
class Plan:
    """`needs` and `excludes` are ids of plans that a user must have, or must not have, besides."""

    id: str
    name: str
    title: str
    service: str
    needs: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Product:
    """Something to subscribe to. Ids are the ones that scripts hard-code (graph-compat.md 3.7)."""

    sku_id: str
    part_number: str
    title: str
    plans: tuple[Plan, ...]


_INTUNE_A = "c1ec4a95-1f05-45b3-a911-aa3fa01094f5"
_INTUNE_EDU = "da24caf9-af8e-485c-b7c8-e73336da2693"

INTUNE_A = Plan(_INTUNE_A, "INTUNE_A", "MDM service", "SCO", excludes=(_INTUNE_EDU,))
INTUNE_EDU = Plan(
    _INTUNE_EDU, "INTUNE_EDU", "MDM service for education", "SCO", excludes=(_INTUNE_A,)
)
INTUNE_P2 = Plan(
    "b3c26516-8073-46a4-bd29-3e4d6d82ee99", "INTUNE_P2", "MDM service 2", "SCO", needs=(_INTUNE_A,)
)
REMOTE_HELP = Plan(
    "a4c6cf29-1168-4076-ba5c-e8fe0e62b17e", "REMOTE_HELP", "Remote help", "SCO", needs=(_INTUNE_A,)
)
AAD_PREMIUM = Plan(
    "41781fb2-bc02-4b7c-bd55-b576c07bb09d",
    "AAD_PREMIUM",
    "Directory premium P1",
    "AADPremiumService",
)
AAD_PREMIUM_P2 = Plan(
    "eec0eb4f-6444-4f95-aba0-50c24d67f998",
    "AAD_PREMIUM_P2",
    "Directory premium P2",
    "AADPremiumService",
)
MFA_PREMIUM = Plan(
    "8a256a2b-b617-496d-b51b-e76466e88db0",
    "MFA_PREMIUM",
    "Multifactor authentication",
    "MultiFactorService",
)

SUITE = "b05e124f-c7cc-45a0-a6aa-8cf78c946968"

CATALOGUE = (
    Product(
        SUITE,
        "EMSPREMIUM",
        "Enterprise Mobility + Security E5",
        (INTUNE_A, AAD_PREMIUM, AAD_PREMIUM_P2, MFA_PREMIUM),
    ),
    Product(
        "efccb6f7-5641-4e0e-bd10-b4976e1bf68e",
        "EMS",
        "Enterprise Mobility + Security E3",
        (INTUNE_A, AAD_PREMIUM, MFA_PREMIUM),
    ),
    Product("061f9ace-7d42-4136-88ac-31dc755f143f", "INTUNE_A", "MDM service", (INTUNE_A,)),
    Product(
        "078d2b04-f1bd-4111-bbd4-b4b1b354cef4",
        "AAD_PREMIUM",
        "Directory premium P1",
        (AAD_PREMIUM, MFA_PREMIUM),
    ),
    Product(
        "84a661c4-e949-4bd2-a560-ed7766fcaf2b",
        "AAD_PREMIUM_P2",
        "Directory premium P2",
        (AAD_PREMIUM, AAD_PREMIUM_P2, MFA_PREMIUM),
    ),
    Product(
        "a929cd4d-8672-47c9-8664-159c1f322ba8",
        "INTUNE_SUITE",
        "MDM service suite (add-on)",
        (INTUNE_P2, REMOTE_HELP),
    ),
    Product(
        "d9d89b70-a645-4c24-b041-8d3cb1884ec7",
        "INTUNE_EDU",
        "MDM service for education",
        (INTUNE_EDU,),
    ),
)
PLANS = {plan.id: plan for item in CATALOGUE for plan in item.plans}


def product(sku: str) -> "Product":
    """By sku id or part number. Raises UnknownProduct."""
    for item in CATALOGUE:
        if sku.lower() in (item.sku_id, item.part_number.lower()):
            return item
    raise UnknownProduct(
        f"There is no product '{sku}'.",
        cure="Choose one of: " + ", ".join(item.part_number for item in CATALOGUE) + ".",
    )


@dataclass(frozen=True, slots=True)
class Subscription:
    """`seats` None means as many as are needed."""

    product: Product
    seats: int | None
    consumed: int
    created_at: datetime

    @property
    def free(self) -> int | None:
        return None if self.seats is None else max(0, self.seats - self.consumed)


@dataclass(frozen=True, slots=True)
class Assignment:
    """To a user or a group, before it is known who gets a seat."""

    sku_id: str
    holder_id: str
    disabled_plans: tuple[str, ...]
    assigned_at: datetime


NO_ERROR = "None"
NO_SEATS = "CountViolation"
NO_LOCATION = "ProhibitedInUsageLocationViolation"
CONFLICT = "MutuallyExclusiveViolation"
DEPENDENCY = "DependencyViolation"
REASONS = {
    NO_SEATS: "No seat of this product is free.",
    NO_LOCATION: "The user has no usage location.",
    CONFLICT: "A plan of this product excludes a plan that the user has from another product.",
    DEPENDENCY: "A plan of this product needs another plan, which the user does not have.",
}
CURES = {
    NO_SEATS: "Subscribe to more seats or remove an assignment; who waits gets the seat by itself.",
    NO_LOCATION: "Set the user's usage location; the licence follows by itself.",
    CONFLICT: "Turn one of the two plans off in its assignment, or remove one product; then "
    "reprocess the user.",
    DEPENDENCY: "Assign a product with the plan that is needed, or turn the plan that needs it off; "
    "then reprocess the user.",
}


@dataclass(frozen=True, slots=True)
class Seat:
    """What an assignment comes to for one user. `error` is None or why there is no seat, in
    Graph's spelling."""

    sku_id: str
    holder_id: str
    user_id: str
    disabled_plans: tuple[str, ...]
    error: str
    updated_at: datetime

    @property
    def active(self) -> bool:
        return self.error == NO_ERROR

    @property
    def by_group(self) -> str | None:
        return None if self.holder_id == self.user_id else self.holder_id

    @property
    def reason(self) -> str:
        return REASONS.get(self.error, "")

    @property
    def cure(self) -> str:
        return CURES.get(self.error, "")


@dataclass(frozen=True, slots=True)
class Claim:
    """An assignment that reaches a user. `held` says that it has its seat already."""

    sku_id: str
    holder_id: str
    user_id: str
    disabled_plans: tuple[str, ...]
    assigned_at: datetime
    held: bool
    error: str | None = None  # As it stands; None: not settled yet.

    @property
    def plans(self) -> frozenset[str]:
        return enabled_plans(self.sku_id, self.disabled_plans)


def enabled_plans(sku_id: str, disabled: Iterable[str]) -> frozenset[str]:
    return frozenset(plan.id for plan in product(sku_id).plans) - frozenset(disabled)


def settle(
    claims: Sequence[Claim], *, located: bool, free: dict[str, float]
) -> list[tuple[Claim, str]]:
    """What one user's claims come to: for each, None or the error. Takes the seats from `free`.

    Who has a seat keeps it, then the oldest assignment comes first; a user who is licensed twice
    takes one seat. Conflicts are judged before dependencies: a plan that is refused is not there
    to be depended on.
    """
    ordered = sorted(claims, key=lambda c: (not c.held, c.assigned_at, c.sku_id, c.holder_id))
    errors: dict[int, str] = {}
    had: set[str] = set()
    for number, claim in enumerate(ordered):
        if not located:
            errors[number] = NO_LOCATION
        elif any(had.intersection(PLANS[plan].excludes) for plan in claim.plans):
            errors[number] = CONFLICT
        else:
            had |= claim.plans
    while True:
        standing = [n for n in range(len(ordered)) if n not in errors]
        had = {plan for n in standing for plan in ordered[n].plans}
        lacking = [n for n in standing if not _met(ordered[n].plans, had)]
        if not lacking:
            break
        errors.update(dict.fromkeys(lacking, DEPENDENCY))
    short = _take_seats([c for n, c in enumerate(ordered) if n not in errors], claims, free)
    for number, claim in enumerate(ordered):
        if number not in errors and claim.sku_id in short:
            errors[number] = NO_SEATS
    if short:  # What waits for a seat gives no plan that others could stand on.
        had = {plan for n, c in enumerate(ordered) if n not in errors for plan in c.plans}
        for number, claim in enumerate(ordered):
            if number not in errors and not _met(claim.plans, had):
                errors[number] = DEPENDENCY
                if not any(
                    other.sku_id == claim.sku_id and n not in errors
                    for n, other in enumerate(ordered)
                ):
                    free[claim.sku_id] += 1
    return [(claim, errors.get(number, NO_ERROR)) for number, claim in enumerate(ordered)]


def _met(plans: frozenset[str], had: set[str]) -> bool:
    return all(had.issuperset(PLANS[plan].needs) for plan in plans)


def _take_seats(
    standing: Sequence[Claim], claims: Sequence[Claim], free: dict[str, float]
) -> set[str]:
    """Take one seat for each product, or give back what is held no longer; which ones are short."""
    wanted = {claim.sku_id for claim in standing}
    holding = {claim.sku_id for claim in claims if claim.held}
    for sku_id in holding - wanted:
        free[sku_id] += 1
    short = set()
    for sku_id in wanted - holding:
        if free.get(sku_id, 0) >= 1:
            free[sku_id] -= 1
        else:
            short.add(sku_id)
    return short


class RunState(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Run:
    """A change of a group's licences on its way through `total` members."""

    id: str
    group_id: str
    state: RunState
    total: int
    done: int
    failed: int
    position: str | None
    queued_at: datetime
    finished_at: datetime | None


class UnknownProduct(AppError):
    kind, code = Kind.NOT_FOUND, "licensing.unknown-product"


class NotSubscribed(AppError):
    kind, code = Kind.INVALID, "licensing.not-subscribed"


class NotAssigned(AppError):
    kind, code = Kind.INVALID, "licensing.not-assigned"


class SeatsInUse(AppError):
    kind, code = Kind.CONFLICT, "licensing.seats-in-use"


class NoSeats(AppError):
    kind, code = Kind.INVALID, "licensing.no-seats"


class NoUsageLocation(AppError):
    kind, code = Kind.INVALID, "licensing.no-usage-location"


class PlanConflict(AppError):
    kind, code = Kind.INVALID, "licensing.plan-conflict"


class PlanDependency(AppError):
    kind, code = Kind.INVALID, "licensing.plan-dependency"


class NoMdmLicence(AppError):
    """The enrolment edge answers it as MENROLL_E_USERLICENSE, 0x80180018."""

    kind, code = Kind.FORBIDDEN, "licensing.no-mdm-licence"
