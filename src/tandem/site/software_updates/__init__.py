"""The software update point: which updates are approved for whom, and how they stand on devices.

Owns the tables software_updates_…. Administrators keep the list, collection by collection; clients on
Linux ask for theirs, signed by the site, and say what they found. The wire between WSUS and Windows
is not spoken. Publishing the point through gateways is `cloud_services`' work.
"""

from tandem.site.software_updates.http import routes
from tandem.site.software_updates.model import (
    ENDPOINTS,
    BadDecision,
    BadFile,
    BadUpdate,
    Choice,
    Circular,
    Counts,
    Decision,
    NoSuchDecision,
    NoSuchUpdate,
    OnDevice,
    Point,
    Scan,
    State,
    TooManyUpdates,
    Update,
    UpdateExists,
    Wanted,
)
from tandem.site.software_updates.point import point_routes
from tandem.site.software_updates.service import (
    allow,
    create,
    decide,
    of_device,
    offered,
    point,
    show,
    take,
    take_file,
    used_for,
    withdraw,
)

__all__ = [
    "ENDPOINTS",
    "BadDecision",
    "BadFile",
    "BadUpdate",
    "Choice",
    "Circular",
    "Counts",
    "Decision",
    "NoSuchDecision",
    "NoSuchUpdate",
    "OnDevice",
    "Point",
    "Scan",
    "State",
    "TooManyUpdates",
    "Update",
    "UpdateExists",
    "Wanted",
    "allow",
    "create",
    "decide",
    "of_device",
    "offered",
    "point",
    "point_routes",
    "routes",
    "show",
    "take",
    "take_file",
    "used_for",
    "withdraw",
]
