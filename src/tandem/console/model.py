"""Who is signed in, and what the pages ask of the role for that: `site_pages`, `tenant_pages`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from tandem.infra.errors import AppError, Kind


class NotSignedIn(AppError):
    kind, code = Kind.UNAUTHENTICATED, "console.not-signed-in"


class NotAllowed(AppError):
    kind, code = Kind.FORBIDDEN, "console.not-allowed"


class FormExpired(AppError):
    """A form that did not come from a page of ours, or from one that is too old."""

    kind, code = Kind.FORBIDDEN, "console.form-expired"


class UnknownPage(AppError):
    kind, code = Kind.NOT_FOUND, "console.unknown-page"


class Session(msgspec.Struct, frozen=True):
    """A signed-in person. `token` is what the cookie holds, and leaves this process nowhere else.

    `own`: somebody without a role, for whom the pages of their own affairs are open and no others.
    """

    token: str
    user: str
    role: str
    own: bool = False


class Fact(msgspec.Struct, frozen=True):
    """One line of an authority's account: `label` is a message id, `value` is data."""

    label: str
    value: str | int | bool | datetime | None


class Begun(msgspec.Struct, frozen=True):
    """A sign-in on its way: where to send the browser, and what its cookie keeps until it is back."""

    url: str
    secret: str


class SiteReads(Protocol):
    async def sign_in(self, user: str, password: str) -> Session:
        """Raises an UNAUTHENTICATED AppError."""

    async def session(self, token: str) -> Session | None: ...

    async def sign_out(self, session: Session) -> None: ...


class TenantReads(Protocol):
    async def begin(self, return_to: str) -> Begun: ...

    async def finish(self, secret: str, query: Mapping[str, str]) -> tuple[Session, str]:
        """The session, and the page to go on to. Raises an AppError when the sign-in failed."""

    async def session(self, token: str) -> Session | None: ...

    async def sign_out(self, session: Session) -> None: ...
