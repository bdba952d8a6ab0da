"""Parts of content that a request asks for (RFC 9110, 14), and several of them as one body."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_RANGES = re.compile(r"bytes=(.+)", re.IGNORECASE)
_ONE = re.compile(r"(\d{0,18})-(\d{0,18})")
# Downloads ask for one part at a time, or a few; who asks for more gets the whole.
_MOST = 16


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` to before `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def of(self, size: int) -> str:
        """Content-Range."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


def wanted(header: str, size: int) -> list[Part] | None:
    """The parts that a Range header asks for of content of this size.

    None for a header that says nothing that counts: the whole is sent then. An empty list when it
    asks for nothing that is there.
    """
    found = _RANGES.fullmatch(header.strip())
    if found is None:
        return None
    pieces = [piece.strip() for piece in found[1].split(",") if piece.strip()]
    if not pieces or len(pieces) > _MOST:
        return None
    parts = []
    for piece in pieces:
        one = _ONE.fullmatch(piece)
        if one is None or piece == "-":
            return None
        first, last = one.groups()
        if first:
            if last and int(last) < int(first):
                return None
            part = Part(int(first), min(int(last) + 1, size) if last else size)
        else:
            part = Part(max(size - int(last), 0), size)
        if part.start < part.end:
            parts.append(part)
    # Overlapping parts could make an answer of many times the content.
    return None if sum(part.size for part in parts) > size else parts


def multipart(parts: Sequence[Part], size: int, media_type: str, boundary: str) -> list[bytes]:
    """What stands before each part, and after the last (multipart/byteranges)."""
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {part.of(size)}\r\n\r\n"
        for part in parts
    ]
    return [text.encode() for text in (*heads, f"\r\n--{boundary}--\r\n")]
