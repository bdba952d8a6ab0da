"""Runs of user discovery."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from tandem.infra.errors import AppError, Invalid, Kind


@dataclass(frozen=True, slots=True)
class Run:
    """`kind` is full or delta, `state` is running, succeeded or failed; `reason`, `cure` and `code` are of the failure.

    `users` were read; `added` of them are new, and `removed` others are not in the tenant any more.
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
    reason: str
    cure: str
    code: str


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
