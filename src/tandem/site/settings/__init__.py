"""Client settings. Owns the table settings_default (what differs from the catalogue)."""

from tandem.site.settings.http import routes
from tandem.site.settings.model import CATALOGUE, BadValue, Setting, UnknownSetting, setting
from tandem.site.settings.service import Values, change_default, default, resultant

__all__ = [
    "CATALOGUE",
    "BadValue",
    "Setting",
    "UnknownSetting",
    "Values",
    "change_default",
    "default",
    "resultant",
    "routes",
    "setting",
]
