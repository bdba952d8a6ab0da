"""Discovery of a tenant's users over Graph. Owns the tables discovery_run and discovery_schedule."""

from tandem.site.discovery.http import routes
from tandem.site.discovery.model import BadSchedule, NoRun, NotEnabled, Run, Schedule
from tandem.site.discovery.service import Discovery, Source, is_known_user

__all__ = [
    "BadSchedule",
    "Discovery",
    "NoRun",
    "NotEnabled",
    "Run",
    "Schedule",
    "Source",
    "is_known_user",
    "routes",
]
