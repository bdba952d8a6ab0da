"""What clients install: the MSI with the bootstrap, and the client package it fetches.

Owns the table content_client_package; the files themselves lie in a content store by SHA-256.

Both are built once for each version and site, and kept: the hash that an MDM service was given stays
right for as long as the version does. Which client a device takes is said by the manifest that the
site signs.
"""

from tandem.site.content.http import routes
from tandem.site.content.model import (
    CANNOT_BUILD_CURE,
    MSI_NAME,
    BuildFailed,
    ClientPackage,
    StoredContent,
)
from tandem.site.content.msi import REGISTRY_KEY, SERVICE, BuiltMsi, build_msi
from tandem.site.content.runtime import (
    NO_RUNTIME,
    BadRuntime,
    WindowsRuntime,
    load_runtime,
)
from tandem.site.content.service import ClientPackages
from tandem.site.content.wheel import agent_wheel

__all__ = [
    "CANNOT_BUILD_CURE",
    "MSI_NAME",
    "NO_RUNTIME",
    "REGISTRY_KEY",
    "SERVICE",
    "BadRuntime",
    "BuildFailed",
    "BuiltMsi",
    "ClientPackage",
    "ClientPackages",
    "StoredContent",
    "WindowsRuntime",
    "agent_wheel",
    "build_msi",
    "load_runtime",
    "routes",
]
