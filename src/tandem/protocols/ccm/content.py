"""Where content is, as the management point tells a device."""

from datetime import datetime

import msgspec

# Whom a content token is for; no other token is good there, nor is it anywhere else.
CONTENT_AUDIENCE = "urn:sccm:content"


class ContentSource(msgspec.Struct, frozen=True):
    """An address, and the token for this content, this device and this gateway."""

    url: str
    token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"ContentSource({self.url})"


class ContentLocation(msgspec.Struct, frozen=True):
    """Where else than at the management point a content is; the better place first."""

    sha256: str
    sources: list[ContentSource] = []
