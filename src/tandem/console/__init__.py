"""The web pages of site and tenant: a library that each role mounts.

Pages know no database: they ask `SiteReads` and `TenantReads`, and act through the role's own API.
Owns console_draft (both databases), console_sign_in and console_session (tenant database).
"""

from tandem.console.backend import Transport
from tandem.console.drafts import Drafts
from tandem.console.model import (
    App,
    AppStatus,
    Begun,
    Dashboard,
    Device,
    DeviceFacts,
    Devices,
    Fact,
    Filter,
    Happening,
    LogText,
    Owner,
    Session,
    SiteReads,
    Slice,
    Stage,
    TenantReads,
    UnknownApp,
    UnknownDevice,
)
from tandem.console.pages import Backend, Elsewhere
from tandem.console.summary import dashboard, listing
from tandem.console.views import navigation, site_routes, tenant_routes

__all__ = [
    "App",
    "AppStatus",
    "Backend",
    "Begun",
    "Dashboard",
    "Device",
    "DeviceFacts",
    "Devices",
    "Drafts",
    "Elsewhere",
    "Fact",
    "Filter",
    "Happening",
    "LogText",
    "Owner",
    "Session",
    "SiteReads",
    "Slice",
    "Stage",
    "TenantReads",
    "Transport",
    "UnknownApp",
    "UnknownDevice",
    "dashboard",
    "listing",
    "navigation",
    "site_routes",
    "tenant_routes",
]
