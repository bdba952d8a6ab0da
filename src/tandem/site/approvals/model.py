"""What waits for a second administrator, and when one is needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.site.collections import CollectionId


class Safeguards(Settings, frozen=True):
    """When one administrator's word is not enough. A deployment that reaches more devices than
    `approval_above` waits for a second administrator, `approval_hours` at most."""

    approval_above: Annotated[int, Meta(ge=0, le=10_000_000)] = 100
    approval_hours: Annotated[int, Meta(ge=1, le=720)] = 72


@dataclass(frozen=True, slots=True)
class Request:
    """`subject` is what is to be done, as whoever asked for it reads it again; `name` says it to
    people. `devices` are how many members the collection had when it was asked for."""

    id: str
    kind: str
    name: str
    subject: Mapping[str, Any]
    collection_id: CollectionId
    reason: str
    devices: int
    asked_by: str
    asked_at: datetime
    expires_at: datetime


class NeedsReason(Invalid):
    code = "approval.needs-reason"


class NotTwoPeople(AppError):
    kind, code = Kind.FORBIDDEN, "approval.second-administrator"


class NoSuchRequest(AppError):
    kind, code = Kind.NOT_FOUND, "approval.no-such-request"


class ReachesOthers(AppError):
    kind, code = Kind.CONFLICT, "approval.reaches-others"
