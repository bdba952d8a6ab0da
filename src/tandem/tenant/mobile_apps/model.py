"""Apps that the MDM service has devices install, their content, and its upload."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from tandem.infra.errors import AppError, Invalid, Kind

COMMAND_LINE_LIMIT = 1024
# What one file of an app may have; and what one block of its upload.
FILE_BYTES = 8 * 1024 * 1024 * 1024
BLOCK_BYTES = 100 * 1024 * 1024
BLOCKS = 50_000

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

    @property
    def brings_client(self) -> bool:
        """Whether this is the site's client: its command line is handed on to its set-up."""
        return "CCMSETUPCMD" in self.command_line.upper()


@dataclass(frozen=True, slots=True)
class Status:
    """Of the MSI on a device. `code` is an HRESULT, 0 for none."""

    app_id: str
    device_id: str
    state: Literal["offered", "installing", "installed", "failed", "uninstallFailed"]
    code: int
    sha256: str
    at: datetime


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


class NoSuchApp(AppError):
    kind, code = Kind.NOT_FOUND, "app.not-found"


class NoSuchContent(AppError):
    kind, code = Kind.NOT_FOUND, "content.not-found"


class NotOpen(AppError):
    """The upload is not, or not any more, at the point that this needs."""

    kind, code = Kind.CONFLICT, "content.not-open"


class LinkExpired(AppError):
    kind, code = Kind.FORBIDDEN, "content.link-expired"
