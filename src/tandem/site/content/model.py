"""The client package of a site."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from tandem.infra.errors import AppError, Kind

MSI_NAME = "ccmsetup.msi"
# What administrators look for in the MDM service's list of apps.
PRODUCT_NAME = "ConfigMgr Client Setup Bootstrap"
MANUFACTURER = "Tandem"
CANNOT_BUILD_CURE = "Install the packages `wixl` and `msitools` (Debian: apt install wixl msitools), then ask again."
_NAMESPACE = UUID("c3c7a4ea-2f0c-5f0e-9a51-6a4c2b4d7f10")


class BuildFailed(AppError):
    kind, code = Kind.UNAVAILABLE, "content.build-failed"


@dataclass(frozen=True, slots=True)
class ClientPackage:
    """One version of the client for one site. Sizes and hashes are those of the files;
    `runtime_sha256` is empty when the package carries no Windows Python runtime."""

    version: str
    site_code: str
    root_sha256: str
    runtime_sha256: str
    product_code: str
    msi_sha256: str
    msi_size_bytes: int
    file_name: str
    sha256: str
    size_bytes: int
    built_at: datetime


@dataclass(frozen=True, slots=True)
class StoredContent:
    """`read(start, end)` gives the bytes of that half-open range."""

    size_bytes: int
    read: Callable[[int, int], AsyncIterator[bytes]]


def code_of(what: str, *parts: str) -> str:
    """A GUID that is the same whenever the same thing is built."""
    return "{" + str(uuid5(_NAMESPACE, "/".join((what, *parts)))).upper() + "}"
