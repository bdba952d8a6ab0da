"""One search over what the site knows, and over the tenant's apps where it is connected."""

from tandem.site.search.http import routes
from tandem.site.search.service import Collaborators, Found, search

__all__ = ["Collaborators", "Found", "routes", "search"]
