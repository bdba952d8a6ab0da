"""Cabinets made to hurt whoever unpacks them."""

import struct
import zlib

import pytest

from tandem.protocols import msi
from tandem.protocols.msi import cabinet
from tandem.protocols.msi.cabinet import BadCabinet

BLOCK = 32768


def zeros() -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"CK" + deflate.compress(bytes(BLOCK)) + deflate.flush()


def name(text: bytes, size: int = 0) -> bytes:
    return struct.pack("<IIHHHH", size, 0, 0, 0, 0, 0x80) + text


def packed(names: list[bytes], *, folders: int = 1, blocks: int = 0) -> bytes:
    """A cabinet whose folders all share the same blocks of zeros."""
    files_at = 36 + 8 * folders
    data_at = files_at + sum(map(len, names))
    head = struct.pack(
        "<4sIIIIIBBHHHHH", b"MSCF", 0, 0, 0, files_at, 0, 3, 1, folders, len(names), 0, 0, 0
    )
    block = zeros()
    body = (struct.pack("<IHH", 0, len(block), BLOCK) + block) * blocks
    return head + struct.pack("<IHH", data_at, blocks, 1) * folders + b"".join(names) + body


def test_a_name_without_an_end_is_refused() -> None:
    with pytest.raises(BadCabinet):
        msi.unpack(packed([name(b"endless")]))


@pytest.mark.parametrize("folders", [1, 3, 8])
def test_what_the_folders_hold_together_is_limited(
    monkeypatch: pytest.MonkeyPatch, folders: int
) -> None:
    """Folders may point at the same blocks, so each of them alone can look harmless."""
    monkeypatch.setattr(cabinet, "MAX_UNPACKED_BYTES", 8 * BLOCK)
    blocks = 8 // folders
    assert msi.unpack(packed([name(b"a\0", BLOCK)], folders=folders, blocks=blocks))
    with pytest.raises(BadCabinet, match="too large"):
        msi.unpack(packed([name(b"a\0", BLOCK)], folders=folders, blocks=blocks + 1))


def test_what_the_files_hold_together_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may share the same bytes of a folder."""
    monkeypatch.setattr(cabinet, "MAX_UNPACKED_BYTES", 4 * BLOCK)
    shared = [name(b"%d\0" % number, BLOCK) for number in range(5)]
    assert len(msi.unpack(packed(shared[:4], blocks=1))) == 4
    with pytest.raises(BadCabinet, match="too large"):
        msi.unpack(packed(shared, blocks=1))
