"""Co-management as an administrator sets it, and the policies that come of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Literal

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
class Enablement:
    tenant_id: str
    auto_enroll: AutoEnroll
    collection_id: str  # Of automatic enrolment; empty unless it is Pilot.
    enabled_at: datetime
    enabled_by: str


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
    a collection is named by its id or its name, one of `collections` too."""

    auto_enroll: AutoEnroll | None
    collection: str = ""
    workloads: Mapping[Workload, tuple[Position, str]] = field(default_factory=dict)
    collections: tuple[NewCollection, ...] = ()


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


class NotEnabled(AppError):
    kind, code = Kind.CONFLICT, "comanagement.not-enabled"


class Prerequisites(AppError):
    """The field's sentence, and then which prerequisite it is."""

    kind, code = Kind.CONFLICT, "comanagement.prerequisites"


class NeedsCollection(Invalid):
    code = "comanagement.needs-collection"


class NeedsSignIn(Invalid):
    code = "comanagement.needs-sign-in"


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
