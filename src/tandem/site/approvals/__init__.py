"""What reaches more devices or users than one administrator may reach alone: a second one is asked.

Owns the table approvals_request. Whoever has something to do to a collection asks here, with a reason,
and does it when somebody else has agreed to what was shown: the same members, and the same thing.
"""

from tandem.site.approvals.http import waiting_routes
from tandem.site.approvals.model import (
    NeedsReason,
    NoSuchRequest,
    NotTwoPeople,
    ReachesOthers,
    Request,
    Safeguards,
)
from tandem.site.approvals.service import approve, ask, cancel, shape, waiting

__all__ = [
    "NeedsReason",
    "NoSuchRequest",
    "NotTwoPeople",
    "ReachesOthers",
    "Request",
    "Safeguards",
    "approve",
    "ask",
    "cancel",
    "shape",
    "waiting",
    "waiting_routes",
]
