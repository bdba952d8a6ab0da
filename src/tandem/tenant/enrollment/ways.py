"""By which ways devices come in, what the tenant decided about them, and tokens good for one device.

directory      the directory's own JWT, which a joined device brings by itself (section 9)
federated      a sign-in on our page, which hands the device a token (section 4)
programmatic   a token that an administrator issued, for RegisterDeviceWithManagement
password       a user name and a password in the request itself; off unless it is switched on
"""

import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from tandem.infra.errors import AppError, Kind

WINDOWS = "CIMClient_Windows"
LONGEST_TERMS = 20_000
LONGEST_REFUSAL = 500


class Way(StrEnum):
    DIRECTORY = "directory"
    FEDERATED = "federated"
    PROGRAMMATIC = "programmatic"
    PASSWORD = "password"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Options:
    """What the tenant decided. Terms are plain text; without any, nobody is asked to accept."""

    password_enrollment: bool = False
    terms_en: str = ""
    terms_fr: str = ""
    maintenance: bool = False
    refusal_text: str = ""

    @property
    def terms(self) -> bool:
        return bool(self.terms_en or self.terms_fr)

    @property
    def terms_sha256(self) -> str:
        """Of both languages: who accepted one text did not accept another. Empty without terms."""
        if not self.terms:
            return ""
        return sha256(f"{self.terms_en}\0{self.terms_fr}".encode()).hexdigest()

    def terms_in(self, language: str) -> tuple[str, str]:
        """The text and its language: the other one where there is none in this."""
        texts = {"en": self.terms_en, "fr": self.terms_fr}
        if texts.get(language):
            return texts[language], language
        return next(((text, name) for name, text in texts.items() if text), ("", language))

    @property
    def passwords(self) -> bool:
        """Nobody can accept terms in a request that brings a password."""
        return self.password_enrollment and not self.terms


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it can be shown afterwards. `device_name` binds it to one name, if it has one."""

    id: str
    way: Way
    user_id: str
    upn: str
    device_name: str
    issued_by: str
    issued_at: datetime
    expires_at: datetime
    terms_sha256: str = ""
    used_at: datetime | None = None
    windows_id: str = ""
    device_id: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """Who stands behind a request, and by which way.

    `sha256` is that of a credential that is good for one enrollment; empty for a password.
    `device_id` is the joined device that the directory's token names. `address` is where the
    request came from, for the record.
    """

    way: Way
    object_id: str
    upn: str
    device_id: str = ""
    sha256: bytes = b""
    expires_at: datetime | None = None
    address: str = ""


# How a device came, in the words of its timeline; nothing for the usual way.
CAME = {
    Way.DIRECTORY: "",
    Way.FEDERATED: ", who signed in on the page for devices",
    Way.PROGRAMMATIC: ", with a token that an administrator issued",
    Way.PASSWORD: ", with a user name and a password",
}


class BadCredential(AppError):
    """Not the credential of anybody who may enrol; it does not say why."""

    kind, code = Kind.UNAUTHENTICATED, "enrollment.bad-credential"


class TooBusy(AppError):
    kind, code = Kind.UNAVAILABLE, "enrollment.too-busy"


class InMaintenance(AppError):
    kind, code = Kind.UNAVAILABLE, "enrollment.in-maintenance"


class OwnRefusal(AppError):
    """In the words of the tenant's administrator."""

    kind, code = Kind.FORBIDDEN, "enrollment.refused-in-own-words"


class TermsNotAccepted(AppError):
    kind, code = Kind.INVALID, "enrollment.terms-not-accepted"


class NoSuchToken(AppError):
    kind, code = Kind.NOT_FOUND, "enrollment.no-such-token"


class BadOption(AppError):
    kind, code = Kind.INVALID, "enrollment.bad-option"


# Base64 of these letters and digits has neither + nor / nor =, so it survives every form, URL and
# command line, and Windows takes it as the base64 that it wants (section 4, programmatic).
_INNER = re.compile(rb"e1[0-9a-f]{64}")


def new_token() -> tuple[str, bytes]:
    """A token for a device (256 random bits), and the hash to keep of it."""
    inner = b"e1" + secrets.token_hex(32).encode()
    return b64encode(inner).decode(), sha256(inner).digest()


def read_token(value: bytes) -> bytes | None:
    """The hash of a token of ours that went through base64 as often as its bearer liked."""
    for _ in range(3):
        if _INNER.fullmatch(value):
            return sha256(value).digest()
        value = unwrapped(value)
    return None


def unwrapped(value: bytes) -> bytes:
    """One level of base64 less; empty when it is none."""
    bare = b"".join(value.split()).rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        return b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except ValueError:
        return b""


def read_jwt(value: bytes) -> str:
    """A JWT that came as it is, or in base64 once more."""
    if b"." not in value:
        value = unwrapped(value)
    return value.decode("ascii", "replace").strip()
