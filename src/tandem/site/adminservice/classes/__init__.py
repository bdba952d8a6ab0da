"""The classes that this site serves, each described once.

SMS_Application and what belongs to it are missing: the site has no applications yet.
"""

from dataclasses import replace

from tandem.site.adminservice.classes import (
    client_settings,
    collections,
    comanagement,
    devices,
    memberships,
    people,
    site,
)
from tandem.site.adminservice.model import Class, NoSuchClass

SURFACES = ("wmi", "v1.0")
CLASSES: tuple[Class, ...] = (
    *site.CLASSES,
    *devices.CLASSES,
    *collections.CLASSES,
    *memberships.CLASSES,
    *comanagement.CLASSES,
    *client_settings.CLASSES,
    *people.CLASSES,
)
COMPLEXES = (*collections.COMPLEXES, *comanagement.COMPLEXES, *client_settings.COMPLEXES)

_BY_NAME = {(kind.surface, kind.name.lower()): kind for kind in CLASSES}
_MEMBERS = "sms_cm_res_coll_"


def find(surface: str, name: str) -> Class:
    """By its name in any letter case. Raises NoSuchClass."""
    folded = name.lower()
    if (known := _BY_NAME.get((surface, folded))) is not None:
        return known
    if surface == "wmi" and folded.startswith(_MEMBERS):
        return replace(memberships.of(name[len(_MEMBERS) :].upper()), listed=False)
    here = ", ".join(kind.name for kind in CLASSES if kind.surface == surface)
    raise NoSuchClass(
        f"The AdminService has no {surface}/{name[:100]} here.", cure=f"Here are: {here}."
    )


__all__ = ["CLASSES", "COMPLEXES", "SURFACES", "find"]
