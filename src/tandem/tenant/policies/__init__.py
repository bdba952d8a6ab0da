"""Policy objects: what administrators write, kept with its versions; and what of it is delivered.

Owns the tables policies_…. An object is a document in Graph's words, of a kind that is the name
of its collection. Device configurations with settings of the policy CSP reach devices.
"""

from tandem.tenant.policies.model import (
    KIND,
    BadObject,
    Configuration,
    NoSuchObject,
    PolicyObject,
    Version,
    check,
    loc_uri,
    oma_setting,
    settings_of,
)
from tandem.tenant.policies.service import (
    assign,
    change,
    choose,
    configurations,
    create,
    effective,
)
from tandem.tenant.policies.store import (
    add,
    find,
    lock,
    next_number,
    objects,
    remove,
    save,
    versions,
)

__all__ = [
    "KIND",
    "BadObject",
    "Configuration",
    "NoSuchObject",
    "PolicyObject",
    "Version",
    "add",
    "assign",
    "change",
    "check",
    "choose",
    "configurations",
    "create",
    "effective",
    "find",
    "loc_uri",
    "lock",
    "next_number",
    "objects",
    "oma_setting",
    "remove",
    "save",
    "settings_of",
    "versions",
]
