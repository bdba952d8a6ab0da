"""Discovery of a tenant's users and groups over Graph. Owns the tables discovery_…"""

from tandem.site.discovery.graph import Source
from tandem.site.discovery.groups import Groups
from tandem.site.discovery.http import routes
from tandem.site.discovery.model import BadSchedule, NoRun, NotEnabled, Run, Schedule
from tandem.site.discovery.service import Discovery, is_known_user

__all__ = [
    "BadSchedule",
    "Discovery",
    "Groups",
    "NoRun",
    "NotEnabled",
    "Run",
    "Schedule",
    "Source",
    "is_known_user",
    "routes",
]
