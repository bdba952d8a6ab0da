"""Refusals, in words for whoever asked. Each edge has one table from `Kind` to its own vocabulary."""

from enum import Enum
from typing import Any, ClassVar


class Kind(Enum):
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    GONE = "gone"
    TOO_LARGE = "too-large"
    RATE_LIMITED = "rate-limited"
    UNAVAILABLE = "unavailable"
    UNSUPPORTED = "unsupported"


HTTP_STATUS = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.GONE: 410,
    Kind.TOO_LARGE: 413,
    Kind.RATE_LIMITED: 429,
    Kind.UNAVAILABLE: 503,
    Kind.UNSUPPORTED: 501,
}


class AppError(Exception):
    """A refusal that is understood: `message` says what and why, `cure` what to do next.

    `details` are for programs and logs; they reach the caller, so no secret belongs in them.
    `audited`: the attempt itself is worth an entry in the audit log.
    """

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "invalid"
    audited: ClassVar[bool] = False

    def __init__(self, message: str, *, cure: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.details = details


class Invalid(AppError):
    """The request does not have the shape or the values that this place takes."""

    kind, code = Kind.INVALID, "request.invalid"


class TooLarge(AppError):
    kind, code = Kind.TOO_LARGE, "request.too-large"
