"""The web pages of site and tenant: a library that each role mounts.

Pages know no database: they read and act through the role's own API, with the rights of a session
that `SiteReads` or `TenantReads` gave at the sign-in.
Owns console_draft (both databases), console_sign_in and console_session (tenant database).
"""

from tandem.console.backend import Transport
from tandem.console.drafts import Drafts
from tandem.console.model import Begun, Session, SiteReads, TenantReads
from tandem.console.pages import Backend, Elsewhere
from tandem.console.views import navigation, site_routes, tenant_routes

__all__ = [
    "Backend",
    "Begun",
    "Drafts",
    "Elsewhere",
    "Session",
    "SiteReads",
    "TenantReads",
    "Transport",
    "navigation",
    "site_routes",
    "tenant_routes",
]
