"""OMA-DM sessions with enrolled devices. Owns the tables sessions_….

What a device is to have is computed when it calls, from its groups, its user's licence and the
workloads that its agent reports. What administrators order is kept until it is done, cancelled or
out of time (`actions`). Events: device.config-info (subject: the device's id).
"""

from tandem.tenant.sessions.actions import (
    DESTRUCTIVE,
    DO_WIPE,
    DO_WIPE_BUT_ENROLLMENT,
    DO_WIPE_BUT_USER_DATA,
    DO_WIPE_PROTECTED,
    RETIRE,
    SYNC,
    UNSUPPORTED,
    BadSafeguards,
    Safeguards,
    State,
)
from tandem.tenant.sessions.authentication import Peer
from tandem.tenant.sessions.calls import Calls, call_routes
from tandem.tenant.sessions.configuring import os_version
from tandem.tenant.sessions.http import problems, routes
from tandem.tenant.sessions.installs import withheld
from tandem.tenant.sessions.model import LAPSED, ActionResult, Delivery, Hold, Stray
from tandem.tenant.sessions.orders import (
    ORDERS,
    REQUESTS,
    BadOrder,
    By,
    Ordered,
    Reach,
    devices_of_requests,
    results,
)
from tandem.tenant.sessions.service import Sessions, capabilities, deliveries, deliveries_of, holds
from tandem.tenant.sessions.strays import NoSuchStray, strays
from tandem.tenant.sessions.wakes import AgentWakes, NoWakes, Wakes

__all__ = [
    "DESTRUCTIVE",
    "DO_WIPE",
    "DO_WIPE_BUT_ENROLLMENT",
    "DO_WIPE_BUT_USER_DATA",
    "DO_WIPE_PROTECTED",
    "LAPSED",
    "ORDERS",
    "REQUESTS",
    "RETIRE",
    "SYNC",
    "UNSUPPORTED",
    "ActionResult",
    "AgentWakes",
    "BadOrder",
    "BadSafeguards",
    "By",
    "Calls",
    "Delivery",
    "Hold",
    "NoSuchStray",
    "NoWakes",
    "Ordered",
    "Peer",
    "Reach",
    "Safeguards",
    "Sessions",
    "State",
    "Stray",
    "Wakes",
    "call_routes",
    "capabilities",
    "deliveries",
    "deliveries_of",
    "devices_of_requests",
    "holds",
    "os_version",
    "problems",
    "results",
    "routes",
    "strays",
    "withheld",
]
