"""Discovery of a tenant's users over Graph. Owns the table discovery_run."""

from tandem.site.discovery.http import routes
from tandem.site.discovery.model import NoRun, NotEnabled, Run
from tandem.site.discovery.service import Discovery, Source, is_known_user

__all__ = ["Discovery", "NoRun", "NotEnabled", "Run", "Source", "is_known_user", "routes"]
