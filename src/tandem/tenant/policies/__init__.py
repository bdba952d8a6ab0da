"""Device configurations and whom they are for. Owns the tables policies_…."""

from tandem.tenant.policies.model import (
    Assignment,
    BadConfiguration,
    Configuration,
    NameTaken,
    NoSuchConfiguration,
    loc_uri,
)
from tandem.tenant.policies.service import (
    assign,
    assignments,
    change,
    choose,
    configurations,
    create,
    delete,
    effective,
)

__all__ = [
    "Assignment",
    "BadConfiguration",
    "Configuration",
    "NameTaken",
    "NoSuchConfiguration",
    "assign",
    "assignments",
    "change",
    "choose",
    "configurations",
    "create",
    "delete",
    "effective",
    "loc_uri",
]
