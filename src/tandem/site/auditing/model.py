"""Which entries of the log are asked for, and what a walk along it found."""

from dataclasses import dataclass, field
from datetime import datetime

from tandem.audit import Problem
from tandem.infra.errors import Invalid


@dataclass(frozen=True, slots=True)
class Filter:
    """Entries whose actor, action and target (or its name) begin so, within these times."""

    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """The log was whole up to `entries` at this time, of which heads sign the first `signed`; or
    `problems` say where it is not."""

    at: datetime
    entries: int
    heads: int
    signed: int
    took_ms: float
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.problems


class BadFilter(Invalid):
    code = "audit.bad-filter"
