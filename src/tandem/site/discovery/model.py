"""Runs of user discovery."""

from dataclasses import dataclass
from datetime import datetime

from tandem.infra.errors import AppError, Kind


@dataclass(frozen=True, slots=True)
class Run:
    """`state` is running, succeeded or failed; `reason`, `cure` and `code` are of the failure."""

    id: int
    service: str
    kind: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    users: int
    added: int
    reason: str
    cure: str
    code: str


class NotEnabled(AppError):
    kind, code = Kind.CONFLICT, "discovery.not-enabled"


class NoRun(AppError):
    kind, code = Kind.NOT_FOUND, "discovery.no-run"


class Interrupted(AppError):
    kind, code = Kind.UNAVAILABLE, "discovery.interrupted"
