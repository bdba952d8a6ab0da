"""Actions, operations, and what became of them on each device."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum

import msgspec

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.protocols import ccm

# A device that has not asked for so long is offline (spec F12).
OFFLINE_AFTER = timedelta(minutes=5)
# A client that did none of this for so long is inactive (spec 3.3: 7 days each, history 31).
INACTIVE_AFTER = timedelta(days=7)
HISTORY = timedelta(days=31)
DEFAULT_MINUTES, LEAST_MINUTES, MOST_MINUTES = 24 * 60, 5, 7 * 24 * 60


class Action(msgspec.Struct, frozen=True):
    """`disruptive`: whoever uses the device notices, so it is said first how many it reaches."""

    id: str
    title: str
    text: str
    disruptive: bool = False


_EVERY = (
    Action(
        "download-computer-policy",
        "Download computer policy",
        "The device asks for its policy, acts on it, and asks the MDM service for a session.",
    ),
    Action(
        "download-user-policy",
        "Download user policy",
        "The device asks for the policy of whoever is signed in.",
    ),
    Action(
        "collect-discovery-data",
        "Collect discovery data",
        "The device sends its heartbeat.",
    ),
    Action(
        "collect-hardware-inventory",
        "Collect hardware inventory",
        "The device reports its hardware whole, not only what has changed.",
    ),
    Action(
        "evaluate-application-deployments",
        "Evaluate application deployments",
        "Apps are looked for again; what is missing is installed, where the site owns client apps.",
    ),
    Action(
        "evaluate-software-update-deployments",
        "Evaluate software update deployments",
        "Approved updates are asked for and compared again; what is due is installed, where the site"
        " owns Windows Update policies.",
    ),
    Action(
        "evaluate-configurations",
        "Evaluate configurations and compliance",
        "Every value is compared with the device again, and compliance is found out anew.",
    ),
    Action(
        "evaluate-co-management",
        "Evaluate co-management",
        "The policies of co-management are merged again, and the MDM service is asked for a session.",
    ),
    Action(
        "evaluate-location",
        "Evaluate location",
        "The device finds out again whether it is on the intranet, and which way it takes.",
    ),
    Action(
        "restart",
        "Restart",
        "The device restarts after a minute. Unsaved work is lost.",
        disruptive=True,
    ),
)
ACTIONS: Mapping[str, Action] = {one.id: one for one in _EVERY}

# Of the field's list (spec 2.22), with why they are not there.
MISSING = (
    ("collect-software-inventory", "This client has no software inventory."),
    ("switch-to-next-software-update-point", "The site has one software update point."),
    ("evaluate-device-health-attestation", "This client attests no health."),
    ("wake-up", "A sleeping device is woken on its own network only."),
    ("run-script", "Scripts are deployed as apps."),
    ("endpoint-protection-scan", "This client has no scanner of its own."),
    ("collect-client-logs", "Logs stay on the device: `Logs` in the folder of its client."),
)  # fmt: skip


class OrderState(Enum):
    """What became of an operation on one device."""

    WAITING = "waiting"  # Its device has not asked yet.
    SENT = "sent"  # It is in an answer to the device.
    RECEIVED = "received"  # It lies on the device's disk.
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"  # Before the device took it.
    EXPIRED = "expired"


OPEN = (OrderState.WAITING, OrderState.SENT, OrderState.RECEIVED)


class Operation(msgspec.Struct, frozen=True):
    """`target` names the device or the collection; `counts` is how many devices are in each state."""

    id: str
    action: str
    target: str
    collection_id: str
    client_id: str
    devices: int
    created_at: datetime
    created_by: str
    expires_at: datetime
    canceled_at: datetime | None = None
    canceled_by: str = ""
    counts: dict[str, int] = {}

    @property
    def over(self) -> bool:
        return not any(self.counts.get(state.value) for state in OPEN)


class Reach(msgspec.Struct, frozen=True):
    """Whom an operation would be for: so many devices, so many of them online."""

    target: str
    devices: int
    online: int


class Result(msgspec.Struct, frozen=True):
    """What became of it on one device. `code` and `text` say why it failed, or what was done."""

    operation_id: str
    action: str
    client_id: str
    device: str
    state: str
    sent_at: datetime | None
    received_at: datetime | None
    ended_at: datetime | None
    code: str
    text: str
    created_at: datetime
    expires_at: datetime


class ChannelState(msgspec.Struct, frozen=True):
    """Whether a device can be told something now, and where it says it is."""

    online: bool
    asked_at: datetime | None = None
    location: ccm.Location = ccm.Location()


class Activity(msgspec.Struct, frozen=True):
    """When a client last did what clients do. `active`: one of it within the last seven days."""

    active: bool
    policy_at: datetime | None
    heartbeat_at: datetime | None
    inventory_at: datetime | None
    state_at: datetime | None
    seen_at: datetime


class UnknownAction(Invalid):
    code = "notification.unknown-action"


class BadLife(Invalid):
    code = "notification.bad-life"


class NoSuchOperation(AppError):
    kind, code = Kind.NOT_FOUND, "notification.not-found"


class NobodyThere(AppError):
    kind, code = Kind.CONFLICT, "notification.nobody"


class CountChanged(AppError):
    kind, code = Kind.CONFLICT, "notification.count-changed"


class AlreadyOver(AppError):
    kind, code = Kind.CONFLICT, "notification.over"


class TooManyWait(AppError):
    kind, code = Kind.UNAVAILABLE, "notification.too-many"


def action(id: str) -> Action:
    """Raises UnknownAction."""
    found = ACTIONS.get(id)
    if found is None:
        missing = dict(MISSING).get(id)
        raise UnknownAction(
            f"Clients here know no action {id[:64]!r}." + (f" {missing}" if missing else ""),
            cure=f"Take one of {', '.join(ACTIONS)}.",
            field="action",
        )
    return found


def check_life(minutes: float) -> timedelta:
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise BadLife(
            f"An order waits for {LEAST_MINUTES} to {MOST_MINUTES} minutes.",
            cure=f"Take {DEFAULT_MINUTES} for a day.",
            field="minutes",
        )
    return timedelta(minutes=minutes)
