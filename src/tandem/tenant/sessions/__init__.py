"""OMA-DM sessions with enrolled devices. Owns the tables sessions_….

What a device is to have is computed when it calls, from its groups, its user's licence and the
workloads that its agent reports. Events: device.config-info (subject: the device's id).
"""

from tandem.tenant.sessions.http import problems, routes
from tandem.tenant.sessions.installs import withheld
from tandem.tenant.sessions.model import (
    LAPSED,
    UNSUPPORTED_ACTIONS,
    WIPE,
    WIPE_BUT_ENROLLMENT,
    WIPE_BUT_USER_DATA,
    ActionResult,
    Delivery,
)
from tandem.tenant.sessions.orders import results
from tandem.tenant.sessions.service import Sessions, deliveries

__all__ = [
    "LAPSED",
    "UNSUPPORTED_ACTIONS",
    "WIPE",
    "WIPE_BUT_ENROLLMENT",
    "WIPE_BUT_USER_DATA",
    "ActionResult",
    "Delivery",
    "Sessions",
    "deliveries",
    "problems",
    "results",
    "routes",
    "withheld",
]
