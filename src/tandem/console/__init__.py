"""The web pages of site and tenant: a library that each role mounts.

Pages know no database: they ask `SiteReads` and `TenantReads`. Owns console_sign_in and
console_session (tenant database).
"""

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
    Gateway,
    Gateways,
    Happening,
    Health,
    Hop,
    Instance,
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
from tandem.console.summary import dashboard, listing
from tandem.console.views import site_routes, tenant_routes

__all__ = [
    "App",
    "AppStatus",
    "Begun",
    "Dashboard",
    "Device",
    "DeviceFacts",
    "Devices",
    "Fact",
    "Filter",
    "Gateway",
    "Gateways",
    "Happening",
    "Health",
    "Hop",
    "Instance",
    "LogText",
    "Owner",
    "Session",
    "SiteReads",
    "Slice",
    "Stage",
    "TenantReads",
    "UnknownApp",
    "UnknownDevice",
    "dashboard",
    "listing",
    "site_routes",
    "tenant_routes",
]
