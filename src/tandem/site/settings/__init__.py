"""Client settings. Owns the table settings_default (what differs from the catalogue)."""

from tandem.site.settings.http import routes
from tandem.site.settings.model import (
    CATALOGUE,
    DEFAULT_SETTINGS,
    BadValue,
    Changed,
    Resultant,
    Setting,
    UnknownSetting,
    setting,
)
from tandem.site.settings.service import (
    Values,
    change_default,
    changes,
    default,
    resultant,
    resultant_of,
)

__all__ = [
    "CATALOGUE",
    "DEFAULT_SETTINGS",
    "BadValue",
    "Changed",
    "Resultant",
    "Setting",
    "UnknownSetting",
    "Values",
    "change_default",
    "changes",
    "default",
    "resultant",
    "resultant_of",
    "routes",
    "setting",
]
