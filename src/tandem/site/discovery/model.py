"""Runs of user discovery."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tandem.infra.errors import AppError, Invalid, Kind


@dataclass(frozen=True, slots=True)
class Run:
    """`kind` is full, delta or groups, `state` is running, succeeded or failed; `reason`, `cure` and `code` are of the failure.

    `users` were read; `added` of them are new, and `removed` others are not in the tenant any more. A
    run of groups found `groups` that are resources, with these users in them.
    """

    id: int
    service: str
    kind: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    users: int
    added: int
    removed: int
    groups: int
    reason: str
    cure: str
    code: str


# The actor of runs that a schedule asks for.
BY_SCHEDULE = "schedule"
MOST_DAYS = 365
MOST_MINUTES = 10_080
FULL_DAYS = 7


@dataclass(frozen=True, slots=True)
class Schedule:
    """When discovery of one Azure service runs by itself; 0 is never. Full discovery repeats from
    the first run on, which somebody asks for; delta goes on from a full run."""

    service_id: str
    full_days: int = FULL_DAYS
    delta_minutes: int = 0
    full_at: datetime | None = None
    delta_at: datetime | None = None
    delta_link: str = ""

    def due(self, now: datetime) -> str:
        """full, delta or nothing."""
        if (
            self.full_days
            and self.full_at is not None
            and self.full_at + timedelta(days=self.full_days) <= now
        ):
            return "full"
        last = max((at for at in (self.full_at, self.delta_at) if at is not None), default=None)
        if (
            self.delta_minutes
            and last is not None
            and last + timedelta(minutes=self.delta_minutes) <= now
        ):
            return "delta"
        return ""


class BadSchedule(Invalid):
    code = "discovery.bad-schedule"


class NotEnabled(AppError):
    kind, code = Kind.CONFLICT, "discovery.not-enabled"


class NoRun(AppError):
    kind, code = Kind.NOT_FOUND, "discovery.no-run"


class Interrupted(AppError):
    kind, code = Kind.UNAVAILABLE, "discovery.interrupted"


# More groups than people choose by hand, few enough for one page and one run.
MOST_GROUPS = 500
MOST_HOURS = 8_760


@dataclass(frozen=True, slots=True)
class GroupSchedule:
    """Discovery of chosen groups of one Azure service: whether, and every how many hours (0: never)
    from the first run on, which somebody asks for. There is no delta of groups."""

    service_id: str
    enabled: bool = False
    every_hours: int = 24
    at: datetime | None = None

    def due(self, now: datetime) -> bool:
        if not self.enabled or not self.every_hours or self.at is None:
            return False
        return self.at + timedelta(hours=self.every_hours) <= now


@dataclass(frozen=True, slots=True)
class ChosenGroup:
    """A group that discovery reads, as the last run found it: `state` is security (it is a resource),
    other (only its members are), gone (the tenant does not have it any more), or empty before."""

    object_id: str
    name: str
    added_at: datetime
    state: str
    members: int


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """A group of the tenant, which can be chosen."""

    object_id: str
    name: str
    description: str
    security: bool
    chosen: bool


class NoSuchGroup(AppError):
    kind, code = Kind.NOT_FOUND, "discovery.no-such-group"


class AmbiguousGroup(AppError):
    kind, code = Kind.CONFLICT, "discovery.ambiguous-group"


class TooManyGroups(AppError):
    kind, code = Kind.CONFLICT, "discovery.too-many-groups"


class NoGroups(AppError):
    kind, code = Kind.CONFLICT, "discovery.no-groups"
