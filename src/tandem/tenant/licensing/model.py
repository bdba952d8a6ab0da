"""The catalogue of products, and what a licence is."""

from dataclasses import dataclass
from datetime import datetime

from tandem.infra.errors import AppError, Kind


@dataclass(frozen=True, slots=True)
class Plan:
    id: str
    name: str
    title: str
    service: str


@dataclass(frozen=True, slots=True)
class Product:
    """Something to subscribe to. Ids are the ones that scripts hard-code (graph-compat.md 3.7)."""

    sku_id: str
    part_number: str
    title: str
    plans: tuple[Plan, ...]


INTUNE_A = Plan("c1ec4a95-1f05-45b3-a911-aa3fa01094f5", "INTUNE_A", "MDM service", "SCO")
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
)


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


@dataclass(frozen=True, slots=True)
class Seat:
    """What an assignment comes to for one user. `error` is None, CountViolation (no seats left)
    or ProhibitedInUsageLocationViolation (no usage location), in Graph's spelling."""

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


NO_ERROR = "None"
NO_SEATS = "CountViolation"
NO_LOCATION = "ProhibitedInUsageLocationViolation"
REASONS = {
    NO_SEATS: "No seat of this product is free.",
    NO_LOCATION: "The user has no usage location.",
}


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


class NoMdmLicence(AppError):
    """The enrolment edge answers it as MENROLL_E_USERLICENSE, 0x80180018."""

    kind, code = Kind.FORBIDDEN, "licensing.no-mdm-licence"
