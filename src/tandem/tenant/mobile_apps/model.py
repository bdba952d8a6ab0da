"""Line-of-business apps: MSI packages that the MDM service has devices install."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tandem.infra.errors import AppError, Invalid, Kind

COMMAND_LINE_LIMIT = 1024
PACKAGE_LIMIT = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class App:
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
    state: Literal["processing", "published", "failed"]
    reason: str
    created_at: datetime

    @property
    def brings_client(self) -> bool:
        """Whether this is the site's client: its command line is handed on to its set-up."""
        return "CCMSETUPCMD" in self.command_line.upper()


@dataclass(frozen=True, slots=True)
class Assignment:
    app_id: str
    group_id: str
    excluded: bool


@dataclass(frozen=True, slots=True)
class Status:
    """Of the MSI on a device. `code` is an HRESULT, 0 for none."""

    app_id: str
    device_id: str
    state: Literal["offered", "installing", "installed", "failed"]
    code: int
    sha256: str
    at: datetime


class WrongFile(Invalid):
    code = "app.wrong-file"


class BadApp(Invalid):
    code = "app.invalid"


class NotPublished(AppError):
    kind, code = Kind.CONFLICT, "app.not-published"


class NoSuchApp(AppError):
    kind, code = Kind.NOT_FOUND, "app.not-found"


class LinkExpired(AppError):
    kind, code = Kind.FORBIDDEN, "content.link-expired"
