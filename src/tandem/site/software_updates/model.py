"""Updates, what is decided about them, and how they stand on devices."""

import re
from datetime import datetime
from enum import Enum
from urllib.parse import urlsplit

import msgspec

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.site.clients import Endpoint

# What a gateway has to let through to the software update point, below its role id.
ENDPOINTS = (Endpoint("SMS_SUP", ("GET",), 0),)

# The field's words, as far as they have a sense for packages.
CLASSIFICATIONS = ("critical", "security", "update", "feature")
SEVERITIES = ("none", "low", "moderate", "important", "critical")
# Of one import; a whole tracker is narrowed to a release first.
IMPORT_LIMIT = 5000
IMPORT_BYTES = 16 * 1024 * 1024
# The list of a client counts for so long.
LIST_DAYS = 14
# Who looks at a page of updates or devices sees at most so many at once.
MOST_LISTED = 1000

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,100}")
# deb-version(7): an epoch, an upstream version that begins with a digit, a revision.
_VERSION = re.compile(r"([0-9]{1,9}:)?[0-9][A-Za-z0-9.+~-]{0,98}")
_ARTICLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_RELEASE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Update(msgspec.Struct, frozen=True):
    """One fix of one package. `article` is what it is known by (a CVE, an advisory), and with package
    and release its identity; `superseded_by` is the article of the update that takes its place."""

    id: str
    name: str
    package: str
    fixed_version: str
    article: str
    created_at: datetime
    created_by: str
    changed_at: datetime
    source: bool = False
    release: str = ""
    classification: str = "security"
    severity: str = "none"
    superseded_by: str = ""
    url: str = ""
    sha256: str = ""


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An update as an administrator or a file describes it."""

    package: str
    fixed_version: str
    article: str
    name: str = ""
    source: bool = False
    release: str = ""
    classification: str = "security"
    severity: str = "none"
    superseded_by: str = ""
    url: str = ""
    sha256: str = ""


class Choice(Enum):
    APPROVED = "approved"
    DECLINED = "declined"


class Decision(msgspec.Struct, frozen=True):
    """What is decided about an update for a collection. Declined wins; of several deadlines the
    earliest counts."""

    update_id: str
    collection_id: str
    decision: str
    deadline: datetime | None
    decided_at: datetime
    decided_by: str
    # The collection's name, for who reads it.
    collection: str = ""


class State(Enum):
    """How an update stands on a device, in the field's words; unknown until the device has said."""

    REQUIRED = "required"
    INSTALLED = "installed"
    NOT_APPLICABLE = "not-applicable"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Counts(msgspec.Struct, frozen=True):
    """Of the devices for which an update is approved, or of the updates that are approved for one."""

    required: int = 0
    installed: int = 0
    not_applicable: int = 0
    failed: int = 0
    unknown: int = 0

    @property
    def all(self) -> int:
        return self.required + self.installed + self.not_applicable + self.failed + self.unknown


class OnDevice(msgspec.Struct, frozen=True):
    """An update on a device: `state` and what the device said of it."""

    update_id: str
    client_id: str
    device: str
    state: str
    deadline: datetime | None
    version: str = ""
    code: str = ""
    text: str = ""
    at: datetime | None = None


class Scan(msgspec.Struct, frozen=True):
    """How a client's last scan went. `installs`: whether it installs what is due."""

    client_id: str
    state: str
    installs: bool
    code: str
    text: str
    at: datetime
    asked_at: datetime | None = None


class Point(msgspec.Struct, frozen=True):
    """The software update point of the site."""

    role_id: str
    allowed: bool
    changed_at: datetime | None = None
    changed_by: str = ""


class BadUpdate(Invalid):
    code = "software-update.bad"


class BadFile(Invalid):
    """`position` says where: a line of CSV, a path of JSON."""

    code = "software-update.bad-file"


class BadDecision(Invalid):
    code = "software-update.bad-decision"


class NoSuchUpdate(AppError):
    kind, code = Kind.NOT_FOUND, "software-update.not-found"


class NoSuchDecision(AppError):
    kind, code = Kind.NOT_FOUND, "software-update.no-decision"


class UpdateExists(AppError):
    kind, code = Kind.CONFLICT, "software-update.exists"


class Circular(AppError):
    kind, code = Kind.CONFLICT, "software-update.circular"


class TooManyUpdates(AppError):
    kind, code = Kind.CONFLICT, "software-update.too-many"


def check(wanted: Wanted) -> Wanted:
    """With what is left out filled in. Raises BadUpdate, which names the field."""
    made = msgspec.structs.replace(
        wanted,
        **{
            field: getattr(wanted, field).strip()
            for field in wanted.__struct_fields__
            if isinstance(getattr(wanted, field), str)
        },
    )
    for field, wrong in _wrong(made):
        raise BadUpdate(f"{field}: {wrong}.", cure=_LOOKS_LIKE, field=field)
    return (
        made if made.name else msgspec.structs.replace(made, name=f"{made.article} {made.package}")
    )


_LOOKS_LIKE = (
    "An update has a package, the version that fixes it and an article, like openssl,"
    " 3.0.17-1~deb12u2 and CVE-2025-9230."
)


def _wrong(made: Wanted) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def need(field: str, good: bool, wrong: str) -> None:
        if not good:
            found.append((field, wrong))

    need("package", bool(_PACKAGE.fullmatch(made.package)), "this is no name of a Debian package")
    need(
        "fixed_version",
        bool(_VERSION.fullmatch(made.fixed_version)),
        "this is no version of a Debian package",
    )
    need("article", bool(_ARTICLE.fullmatch(made.article)), "an article is one word, like a CVE")
    need(
        "superseded_by",
        not made.superseded_by or bool(_ARTICLE.fullmatch(made.superseded_by)),
        "an article is one word, like a CVE",
    )
    need(
        "superseded_by",
        made.superseded_by.lower() != made.article.lower(),
        "an update does not supersede itself",
    )
    need("name", len(made.name) <= 256 and made.name.isprintable(), "at most 256 characters")
    need(
        "release",
        not made.release or bool(_RELEASE.fullmatch(made.release)),
        "a release has a code name, like bookworm",
    )
    need(
        "classification",
        made.classification in CLASSIFICATIONS,
        f"one of {', '.join(CLASSIFICATIONS)}",
    )
    need("severity", made.severity in SEVERITIES, f"one of {', '.join(SEVERITIES)}")
    need(
        "url", not made.url or _is_web(made.url), "the address of the content begins with https://"
    )
    need(
        "sha256",
        bool(made.sha256) is bool(made.url)
        and (not made.url or bool(_SHA256.fullmatch(made.sha256))),
        "64 hexadecimal digits, with the address of the content",
    )
    need(
        "source",
        not (made.source and made.url),
        "content is that of one package, and not of a source package",
    )
    return found


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme == "https"
            and bool(parts.hostname)
            and url.isprintable()
            and len(url) < 2048
        )
    except ValueError:
        return False
