"""A device that leaves the site for the MDM service alone, step by step."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.protocols import ccm
from tandem.workloads import Workload, capabilities

POLICY = "CoMgmtSettingsOffboarding"


class State(Enum):
    MOVING = "moving"  # All workloads go to the MDM service; what the site set stays meanwhile.
    LEAVING = "leaving"  # They are there: the client is told to go at its next poll.
    TAKEN = "taken"  # It has been told. There is no way back any more.
    DONE = "done"  # It has gone, and the site's record of it is retired.
    CANCELLED = "cancelled"
    READMITTED = "readmitted"  # It had gone, and may register again.


OPEN = (State.MOVING, State.LEAVING, State.TAKEN)
CANCELLABLE = (State.MOVING, State.LEAVING)


@dataclass(frozen=True, slots=True)
class Offboarding:
    """`lacking` are workloads that go although the tenant has nothing for them. `proof` is what the
    device's ledger said in the end."""

    id: str
    client_id: str
    tenant_id: str
    device_id: str
    resource_id: int
    name: str
    state: State
    begun_at: datetime
    begun_by: str
    changed_at: datetime
    changed_by: str
    lacking: tuple[str, ...] = ()
    proof: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Going:
    """A workload that the site has now, and what there is for it when the site is gone: how many
    settings each has; `mdm` is None where nobody knows."""

    workload: Workload
    site: int
    mdm: int | None

    @property
    def lacking(self) -> bool:
        return not self.mdm


@dataclass(frozen=True, slots=True)
class Preview:
    """What leaving would come to. `trouble` is why the tenant could not be asked; `app` whether its
    MDM service would install the client again."""

    name: str
    going: tuple[Going, ...]
    lost: tuple[str, ...]
    collections: tuple[str, ...]
    app: bool
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where it stands, and what is waited for; empty when nothing is."""

    offboarding: Offboarding
    waits_for: str = ""
    since: datetime | None = None
    workloads: tuple[str, ...] = ()


class NoSuchOffboarding(AppError):
    kind, code = Kind.NOT_FOUND, "offboarding.not-found"


class NotCoManaged(AppError):
    kind, code = Kind.CONFLICT, "offboarding.not-co-managed"


class LacksPolicies(AppError):
    """The tenant has nothing for a workload that the site has now."""

    kind, code = Kind.CONFLICT, "offboarding.lacks-policies"


class NotConfirmed(Invalid):
    code = "offboarding.not-confirmed"


class UnderWay(AppError):
    kind, code = Kind.CONFLICT, "offboarding.under-way"


class TooLate(AppError):
    kind, code = Kind.CONFLICT, "offboarding.too-late"


class Offboarded(AppError):
    """A device that was taken out wants to register."""

    kind, code = Kind.FORBIDDEN, "client.offboarded"


def policy_of(one: Offboarding) -> ccm.ConfigurationPolicy:
    """Everything is the MDM service's: merged with whatever else the device has, for bits are OR."""
    return ccm.ConfigurationPolicy(
        f"ScopeId_{one.id}/ConfigurationPolicy_{one.id}",
        POLICY,
        1,
        "pilot",
        True,
        False,
        capabilities(list(Workload)),
    )
