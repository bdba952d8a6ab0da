"""Whom something is for: groups, everybody, the site's collections. Owns assignments_assignment.

Apps and policy objects are assigned in one way. `given_to` says what an assignment means for a
member of groups; what follows from it is the owner's to decide.
"""

from tandem.tenant.assignments.model import (
    Assignment,
    BadAssignment,
    Membership,
    New,
    NoSuchAssignment,
    Side,
    Target,
    TargetKind,
    given_to,
    reasons,
    sides,
)
from tandem.tenant.assignments.service import (
    add,
    every,
    forget,
    of,
    owners,
    remove,
    replace,
    targets,
)

__all__ = [
    "Assignment",
    "BadAssignment",
    "Membership",
    "New",
    "NoSuchAssignment",
    "Side",
    "Target",
    "TargetKind",
    "add",
    "every",
    "forget",
    "given_to",
    "of",
    "owners",
    "reasons",
    "remove",
    "replace",
    "sides",
    "targets",
]
