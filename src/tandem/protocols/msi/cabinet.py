"""Cabinets [MS-CAB]: stored or MSZIP-compressed, in one part."""

import struct
import zlib
from collections.abc import Iterator

# A cabinet says itself how large its files are, and folders and files may share bytes: this is what
# we are ready to hold of all folders together, and of all files together.
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
_HEADER = struct.Struct("<4sIIIIIBBHHHHH")
_FOLDER = struct.Struct("<IHH")
_FILE = struct.Struct("<IIHHHH")
_DATA = struct.Struct("<IHH")
_PREVIOUS, _NEXT, _RESERVE = 1, 2, 4
_STORED, _MSZIP = 0, 1
_TOO_LARGE = "the files are too large"


class BadCabinet(ValueError):
    """The bytes are not a cabinet that can be unpacked; the text says why."""


def unpack(data: bytes) -> dict[str, bytes]:
    """File name to content. Raises BadCabinet."""
    try:
        return _unpack(data)
    except BadCabinet:
        raise
    except (struct.error, IndexError, zlib.error, ValueError) as error:
        raise BadCabinet(f"the cabinet is damaged ({error})") from None


def _unpack(data: bytes) -> dict[str, bytes]:
    header = _HEADER.unpack_from(data)
    signature, files_at, folder_count, file_count, flags = (
        header[0],
        header[4],
        header[8],
        header[9],
        header[10],
    )
    if signature != b"MSCF":
        raise BadCabinet("there is no cabinet signature")
    if flags & (_PREVIOUS | _NEXT):
        raise BadCabinet("the cabinet is one part of several")
    at, of_folder, of_block = _HEADER.size, 0, 0
    if flags & _RESERVE:
        of_header, of_folder, of_block = struct.unpack_from("<HBB", data, at)
        at += 4 + of_header
    folders: list[bytes] = []
    left = MAX_UNPACKED_BYTES
    for _ in range(folder_count):
        first, blocks, compression = _FOLDER.unpack_from(data, at)
        at += _FOLDER.size + of_folder
        folders.append(_folder(data, first, blocks, compression & 0x0F, of_block, left))
        left -= len(folders[-1])
    return dict(_files(data, files_at, file_count, folders))


def _files(data: bytes, at: int, count: int, folders: list[bytes]) -> Iterator[tuple[str, bytes]]:
    left = MAX_UNPACKED_BYTES
    for _ in range(count):
        size, start, folder, _, _, attributes = _FILE.unpack_from(data, at)
        at += _FILE.size
        end = data.index(b"\0", at)
        name = data[at:end].decode("utf-8" if attributes & 0x80 else "cp1252")
        at = end + 1
        left -= size
        if left < 0:
            raise BadCabinet(_TOO_LARGE)
        content = folders[folder][start : start + size]
        if len(content) != size:
            raise BadCabinet(f"{name} ends early")
        yield name, content


def _folder(data: bytes, at: int, blocks: int, compression: int, reserve: int, limit: int) -> bytes:
    if compression not in (_STORED, _MSZIP):
        raise BadCabinet(f"compression {compression} is not read here")
    out = bytearray()
    for _ in range(blocks):
        _, packed, size = _DATA.unpack_from(data, at)
        at += _DATA.size + reserve
        block = data[at : at + packed]
        if len(block) != packed:
            raise BadCabinet("a block ends early")
        at += packed
        out += block if compression == _STORED else _inflate(block, size, bytes(out[-32768:]))
        if len(out) > limit:
            raise BadCabinet(_TOO_LARGE)
    return bytes(out)


def _inflate(block: bytes, size: int, before: bytes) -> bytes:
    if block[:2] != b"CK":
        raise BadCabinet("a block is not MSZIP")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS, zdict=before)
    content = inflate.decompress(block[2:], size + 1)
    if len(content) != size:
        raise BadCabinet("a block has another size than it says")
    return content
