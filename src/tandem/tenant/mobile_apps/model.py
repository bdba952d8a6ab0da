"""Apps that the MDM service has devices install, their content, and its upload."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.tenant.mobile_apps.intents import Choice

COMMAND_LINE_LIMIT = 1024
# What one file of an app may have; and what one block of its upload.
FILE_BYTES = 8 * 1024 * 1024 * 1024
BLOCK_BYTES = 100 * 1024 * 1024
BLOCKS = 50_000

# Minutes, times and minutes of the job for devices: unsigned bytes, 0 minutes for no limit
# (windows-mdm, 12.3); each with what holds when an app does not say.
TIMING = {
    "installTimeoutInMinutes": 60,
    "installRetryCount": 3,
    "installRetryIntervalInMinutes": 5,
}

MSI = "windowsMobileMSI"
WIN32 = "win32LobApp"
# Apps that are files, and published when a file is; the others are what their properties say.
WITH_CONTENT = frozenset(
    (
        MSI,
        WIN32,
        "windowsUniversalAppX",
        "windowsAppX",
        "macOSLobApp",
        "macOSPkgApp",
        "macOSDmgApp",
        "iosLobApp",
        "androidLobApp",
        "managedIOSLobApp",
        "managedAndroidLobApp",
        "windowsPhone81AppX",
        "windowsPhoneXAP",
    )
)


@dataclass(frozen=True, slots=True)
class App:
    """`type` is Graph's, without the namespace. `properties` are those that only Graph reads."""

    id: str
    name: str
    description: str
    publisher: str
    command_line: str
    file_name: str
    product_code: str  # {GUID} in capitals, from the file.
    product_version: str
    upgrade_code: str
    sha256: str
    size_bytes: int
    state: Literal["notPublished", "processing", "published"]
    reason: str
    created_at: datetime
    type: str = MSI
    properties: Mapping[str, Any] = field(default_factory=dict)
    committed_version: str = ""
    changed_at: datetime = datetime(1, 1, 1, tzinfo=UTC)

    package_type: str = "perMachine"  # perMachine, perUser, dualPurpose

    @property
    def brings_client(self) -> bool:
        """Whether this is the site's client: its command line is handed on to its set-up."""
        return "CCMSETUPCMD" in self.command_line.upper()

    @property
    def for_user(self) -> bool:
        """Whether it installs for one user, who has to be signed in (section 12.3)."""
        if self.package_type == "dualPurpose":
            return self.properties.get("useDeviceContext") is False
        return self.package_type == "perUser"

    @property
    def any_version(self) -> bool:
        """Whether any version that is there will do: a product that updates itself."""
        return bool(self.properties.get("ignoreVersionDetection"))

    def timing(self, name: str) -> int:
        """One of TIMING, as the job for devices has it."""
        value = self.properties.get(name)
        return TIMING[name] if value is None else int(value)


InstallState = Literal["offered", "installing", "installed", "failed", "uninstallFailed"]


@dataclass(frozen=True, slots=True)
class Status:
    """Of the MSI on a device. `code` is an HRESULT, 0 for none; `detail` is the number that the
    device's installer reports (section 12.3), 0 for none. `attempts` failed one after the other.

    `found`: it was there already, and did not come from here, so it is not uninstalled from here.
    `version` is what the device says that it has. `repairs` of a client that was broken.
    """

    app_id: str
    device_id: str
    state: InstallState
    code: int
    sha256: str
    at: datetime
    attempts: int = 0
    detail: int = 0
    version: str = ""
    found: bool = False
    repairs: int = 0
    repaired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a device's user chose of an app, and when a copy of it went once."""

    app_id: str
    user_id: str = ""
    requested_at: datetime | None = None
    removed_at: datetime | None = None

    @property
    def choice(self) -> Choice:
        return Choice(self.requested_at is not None, self.removed_at is not None)


class UploadState(StrEnum):
    """Graph's names of where the upload of a file stands."""

    URI_PENDING = "azureStorageUriRequestPending"
    URI_READY = "azureStorageUriRequestSuccess"
    URI_RENEWED = "azureStorageUriRenewalSuccess"
    COMMIT_PENDING = "commitFilePending"
    COMMITTED = "commitFileSuccess"
    COMMIT_FAILED = "commitFileFailed"


OPEN_STATES = (UploadState.URI_READY, UploadState.URI_RENEWED)


@dataclass(frozen=True, slots=True)
class Block:
    """A block that was put. `object` is where it lies."""

    id: str
    object: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ContentFile:
    """A file of a content version, on its way or committed.

    `generation` is part of every upload URL: when it grows, the URLs given out before are void.
    `blocks` is the block list in force. `facts` were read from the content.
    """

    id: str
    app_id: str
    version: int
    name: str
    size_bytes: int
    encrypted_bytes: int
    manifest: str | None
    is_dependency: bool
    state: UploadState
    reason: str
    generation: int
    expires_at: datetime
    blocks: tuple[Block, ...] | None
    sealed: bytes | None = field(repr=False)
    sha256: str
    facts: Mapping[str, Any]
    created_at: datetime

    @property
    def committed(self) -> bool:
        return self.state is UploadState.COMMITTED


class WrongFile(Invalid):
    code = "app.wrong-file"


class BadApp(Invalid):
    code = "app.invalid"


class NotPublished(AppError):
    kind, code = Kind.CONFLICT, "app.not-published"


class SameProduct(AppError):
    """Devices that have this product code would not install the new content."""

    kind, code = Kind.CONFLICT, "app.same-product"


class NotOffered(AppError):
    kind, code = Kind.CONFLICT, "app.not-offered"


class NoSuchApp(AppError):
    kind, code = Kind.NOT_FOUND, "app.not-found"


class NoSuchContent(AppError):
    kind, code = Kind.NOT_FOUND, "content.not-found"


class NotOpen(AppError):
    """The upload is not, or not any more, at the point that this needs."""

    kind, code = Kind.CONFLICT, "content.not-open"


class LinkExpired(AppError):
    kind, code = Kind.FORBIDDEN, "content.link-expired"
