"""Co-management as an administrator sets it, and the policies that come of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.site.collections import ALL_SYSTEMS, CollectionId
from tandem.workloads import BASE, Position, Workload, plan

# Every MSI property page and the MDM's form stop here.
COMMAND_LINE_LIMIT = 1024

PRODUCTION = "CoMgmtSettingsProd"
PILOT_AUTO_ENROLL = "CoMgmtSettingsPilotAutoEnroll"
PILOT = "CoMgmtSettingsPilot"


class AutoEnroll(Enum):
    """Automatic enrolment into MDM of clients that are not enrolled yet."""

    NONE = "none"
    PILOT = "pilot"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Slider:
    """Where one workload stands, and whom its pilot is for: its collection, and `also` those that a
    roll-out has come to."""

    workload: Workload
    position: Position = Position.SITE
    collection_id: str = ""
    changed_at: datetime | None = None
    changed_by: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Where a workload has stood since `at`. `rollout_id` and `ring` did it, or a roll-out that was
    switched back when there is no ring; `back_to` is the step whose place it took up again."""

    id: int
    workload: Workload
    at: datetime
    by: str
    position: Position
    collection_id: str
    also: tuple[str, ...]
    rollout_id: str = ""
    ring: int = 0
    back_to: int | None = None

    @property
    def place(self) -> tuple[Position, str, tuple[str, ...]]:
        """What of it matters for devices: a pilot that is remembered is nobody's."""
        if self.position is Position.PILOT:
            return self.position, self.collection_id, self.also
        return self.position, "", ()


@dataclass(frozen=True, slots=True)
class Enablement:
    tenant_id: str
    auto_enroll: AutoEnroll
    collection_id: str  # Of automatic enrolment; empty unless it is Pilot.
    enabled_at: datetime
    enabled_by: str
    # Clients that are older than this draw a moment within the spread; newer ones enrol at once.
    enrolls_since: datetime | None = None
    spread_minutes: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """A co-management policy with the collection that it is deployed to."""

    id: str
    name: str
    kind: Literal["production", "pilot"]
    collection_id: CollectionId
    allow: bool
    auto_enroll: bool
    capabilities: int
    version: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """A policy that ought to exist, without its number and version."""

    name: str
    kind: Literal["production", "pilot"]
    collection_id: CollectionId
    auto_enroll: bool
    capabilities: int


@dataclass(frozen=True, slots=True)
class NewCollection:
    """A pilot collection that is made together with what it is for."""

    name: str
    query: str = ""
    devices: tuple[str, ...] = ()
    limiting: str = ALL_SYSTEMS
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an administrator wants of co-management, all at once. What is not named stays as it is;
    a collection is named by its id or its name, one of `collections` too.

    `pilots` are for every workload at Pilot that names none of its own: the staging of releases up to
    1902 has one set of pilot collections, later ones have one for each workload (spec 2.9).
    """

    auto_enroll: AutoEnroll | None
    collection: str = ""
    workloads: Mapping[Workload, "Wish"] = field(default_factory=dict)
    collections: tuple[NewCollection, ...] = ()
    pilots: tuple[str, ...] = ()
    exclusions: tuple[str, ...] | None = None
    spread_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a workload is to stand, and the collections of its pilot by id or name.

    One alone is its first collection, and those that a roll-out has come to stay with it; `exact`
    ones are all that it has.
    """

    position: Position
    pilots: tuple[str, ...] = ()
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A client whose enrolment is to come, or was tried: when, by the client's own account."""

    device_id: str
    name: str
    state: int
    text: str
    planned_at: datetime | None
    tries: int
    code: int | None
    reported_at: datetime
    ordered_at: datetime | None = None
    ordered_by: str = ""


@dataclass(frozen=True, slots=True)
class Prerequisite:
    code: str
    ok: bool
    text: str
    cure: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The last change that gave a workload another owner on some devices."""

    workload: Workload
    began_at: datetime
    began_by: str
    devices: int  # Co-managed devices that were to change owner.


@dataclass(frozen=True, slots=True)
class Request:
    """A change that waits for a second administrator: `wanted` as the API reads it. `devices` are
    how many it reached when it was asked for."""

    id: str
    wanted: dict[str, Any]
    devices: int
    reason: str
    asked_by: str
    asked_at: datetime
    expires_at: datetime


class NeedsReason(Invalid):
    code = "comanagement.needs-reason"


class NotTwoPeople(AppError):
    kind, code = Kind.FORBIDDEN, "comanagement.second-administrator"


class NoSuchRequest(AppError):
    kind, code = Kind.NOT_FOUND, "comanagement.no-such-request"


class ReachesOthers(AppError):
    kind, code = Kind.CONFLICT, "comanagement.reaches-others"


class NotEnabled(AppError):
    kind, code = Kind.CONFLICT, "comanagement.not-enabled"


class Prerequisites(AppError):
    """The field's sentence, and then which prerequisite it is."""

    kind, code = Kind.CONFLICT, "comanagement.prerequisites"


class NeedsCollection(Invalid):
    code = "comanagement.needs-collection"


class NeedsSignIn(Invalid):
    code = "comanagement.needs-sign-in"


class NothingToEnroll(AppError):
    kind, code = Kind.CONFLICT, "comanagement.nothing-to-enroll"


class BadStaging(Invalid):
    code = "comanagement.bad-staging"


class OtherRequest(AppError):
    kind, code = Kind.CONFLICT, "comanagement.other-request"


class UnknownWorkload(Invalid):
    code = "comanagement.unknown-workload"


class TooLongCommandLine(AppError):
    kind, code = Kind.INVALID, "comanagement.command-line-too-long"


def wanted_policies(
    enablement: Enablement, sliders: Mapping[Workload, Slider], all_systems: CollectionId
) -> list[Wanted]:
    """The policies that these settings come to (spec F14, F16).

    Production goes to All Systems and carries the workloads that are with the MDM for all. Each
    workload at Pilot has a policy of its own for each of its collections: a client that is in several
    merges them, so one more collection takes nothing from the others. Automatic enrolment at Pilot is
    a policy that moves nothing.
    """
    production, pilots = plan({item.workload: item.position for item in sliders.values()})
    everyone = enablement.auto_enroll is AutoEnroll.ALL
    found = [Wanted(PRODUCTION, "production", all_systems, everyone, production)]
    if enablement.auto_enroll is AutoEnroll.PILOT:
        found.append(
            Wanted(PILOT_AUTO_ENROLL, "pilot", CollectionId(enablement.collection_id), True, BASE)
        )
    for workload, capabilities in pilots.items():
        slider = sliders[workload]
        for place, collection in enumerate((slider.collection_id, *slider.also), 1):
            name = f"{PILOT}_{workload.value}" + (f"_{place}" if place > 1 else "")
            found.append(Wanted(name, "pilot", CollectionId(collection), False, capabilities))
    return found


# How many clients of a first roll-out the tenant is to enrol in a minute: 100,000 take three days and
# a half, as clients of a site draw their moment from a spread that grows with their number (spec F15).
ENROLMENTS_PER_MINUTE = 20
MOST_SPREAD_MINUTES = 14 * 24 * 60


def spread_minutes(waiting: int) -> int:
    """Over how many minutes so many clients draw the moment of their enrolment."""
    return min(MOST_SPREAD_MINUTES, -(-waiting // ENROLMENTS_PER_MINUTE))


def new_policy_id() -> str:
    return (
        f"ScopeId_{uuid.uuid4()}/ConfigurationPolicy_{uuid.uuid4()}".upper()
        .replace("SCOPEID", "ScopeId")
        .replace("CONFIGURATIONPOLICY", "ConfigurationPolicy")
    )


def command_line(gateway_host: str, site_code: str) -> str:
    """What the MDM service gives the client's MSI. Raises TooLongCommandLine."""
    line = f'CCMSETUPCMD="CCMHOSTNAME={gateway_host} SMSSITECODE={site_code}"'
    if len(line) > COMMAND_LINE_LIMIT:
        raise TooLongCommandLine(
            f"The command line has {len(line)} characters; an MSI takes {COMMAND_LINE_LIMIT}.",
            cure="Choose a shorter service name for the gateway.",
        )
    return line


def read_workload(name: str) -> Workload:
    """By its name or its title. Raises UnknownWorkload."""
    folded = name.strip().casefold().replace("_", "-")
    for item in Workload:
        if folded in {item.value, item.title.casefold()}:
            return item
    raise UnknownWorkload(
        f"There is no workload {name!r}.",
        cure=f"Take one of: {', '.join(item.value for item in Workload)}.",
    )
