"""Causes, and which of them a device follows."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NewType

# 32 hexadecimal digits: the trace-id of W3C Trace Context, section 3.2.2.3.
TraceId = NewType("TraceId", str)


class Kind(Enum):
    SWITCH = "switch"  # A slider was moved by hand.
    ROLLOUT = "rollout"  # A ring of a roll-out began, or it was switched back.
    CONFIGURE = "configure"  # Co-management was enabled or configured.
    COLLECTION = "collection"  # Who is in a collection was changed.
    CONFIGURATION = "configuration"  # A configuration was deployed, or is not any more.
    SETTINGS = "client-settings"
    OFFBOARDING = "offboarding"
    REGISTERED = "registered"  # The device has its first policy.
    DEVICE = "device"  # Nobody decided anything: what is known of the device changed.


@dataclass(frozen=True, slots=True)
class Cause:
    """`collections` are those whose members it concerns; `details` say what it is about."""

    id: TraceId
    at: datetime
    kind: Kind
    actor: str = ""
    collections: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Given:
    """What the newest policy of a device follows; `collections` are those that it came of, and
    `digest` is of what it says."""

    cause: Cause
    at: datetime
    collections: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Followed:
    """The cause that a policy follows, what else was decided meanwhile, and the collections of
    which the policy came to come, or comes no more."""

    cause: Cause
    also: list[Cause]
    came: list[str]
    left: list[str]


def new_trace_id() -> TraceId:
    return TraceId(secrets.token_hex(16))
