"""The package's database, as far as its properties and its embedded cabinet."""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, BinaryIO

import olefile

from tandem.infra.errors import Invalid
from tandem.protocols.msi.cabinet import BadCabinet, unpack

MAX_BYTES = 2 * 1024 * 1024 * 1024
# Enough for the largest real packages; a stranger's package cannot make us hold more than this.
_MAX_TABLE_BYTES = 64 * 1024 * 1024
_CODE = re.compile(r"^\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}$")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class BadMsi(Invalid):
    """The bytes are not a Windows Installer package that can be used."""

    code = "msi.invalid"


class PackageType(Enum):
    """For whom a package installs: told by ALLUSERS (1, 2, absent)."""

    PER_MACHINE = "perMachine"
    DUAL_PURPOSE = "dualPurpose"
    PER_USER = "perUser"


@dataclass(frozen=True)
class MsiProperties:
    """What a package says about itself. Codes have capitals and braces."""

    product_code: str
    product_name: str
    product_version: str
    manufacturer: str
    upgrade_code: str
    language: str
    package_type: PackageType
    requires_reboot: bool
    properties: dict[str, str] = field(repr=False)

    @property
    def per_machine(self) -> bool:
        return self.package_type is PackageType.PER_MACHINE


def read(data: bytes | BinaryIO) -> MsiProperties:
    """The package's properties. Raises BadMsi, with what is wrong with the file.

    Of an open file only what is needed is read.
    """
    with _open(data) as package:
        found = package.properties()
    code = found.get("ProductCode", "").upper()
    if not _CODE.match(code):
        raise BadMsi(
            "The package has no product code.",
            cure="Build it as an installation package; patches and merge modules cannot be used.",
        )
    for name in ("ProductName", "ProductVersion", "Manufacturer"):
        if not found.get(name, "").strip():
            raise BadMsi(f"The package has no {name}.", cure="Set it, and build the package again.")
    types = {"1": PackageType.PER_MACHINE, "2": PackageType.DUAL_PURPOSE}
    return MsiProperties(
        code,
        found["ProductName"],
        found["ProductVersion"],
        found["Manufacturer"],
        found.get("UpgradeCode", "").upper(),
        found.get("ProductLanguage", ""),
        types.get(found.get("ALLUSERS", ""), PackageType.PER_USER),
        found.get("REBOOT", "").upper()[:1] == "F",
        found,
    )


def extract(data: bytes) -> dict[str, bytes]:
    """The files of the embedded cabinets by their keys in the File table. Raises BadMsi."""
    with _open(data) as package:
        files: dict[str, bytes] = {}
        for cabinet in package.cabinets():
            try:
                files.update(unpack(package.stream(cabinet)))
            except BadCabinet as error:
                raise BadMsi(f"The files in the package cannot be read: {error}.") from None
    return files


def _open(data: bytes | BinaryIO) -> "_Package":
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(8) != _SIGNATURE:
        raise BadMsi(
            "The file is not a Windows Installer package.",
            cure="Choose the .msi file itself, not an archive or a program that contains it.",
        )
    if size > MAX_BYTES:
        raise BadMsi("The package is larger than 2 GB.", cure="Build a smaller package.")
    file.seek(0)
    try:
        return _Package(olefile.OleFileIO(file))
    except BadMsi:
        raise
    except Exception as error:
        # The library lets through whatever a damaged file makes it stumble over.
        raise _damaged(error) from None


def _damaged(error: Exception) -> BadMsi:
    return BadMsi(
        "The package is damaged or incomplete.",
        cure="Compare its size with the original, and copy it again.",
        reason=type(error).__name__,
    )


class _Package:
    def __init__(self, ole: Any) -> None:
        self._ole = ole
        self._names = {_name(entry[0]): entry[0] for entry in ole.listdir() if len(entry) == 1}
        self._wide, self._strings = self._pool()

    def __enter__(self) -> "_Package":
        return self

    def __exit__(self, *_: object) -> None:
        self._ole.close()

    def stream(self, name: str) -> bytes:
        """The bytes of a stream, by its readable name. Raises BadMsi."""
        if name not in self._names:
            raise BadMsi(f"The package has no {name.lstrip('!')}.", cure="Build it again.")
        try:
            with self._ole.openstream([self._names[name]]) as stream:
                content: bytes = stream.read()
        except Exception as error:
            raise _damaged(error) from None
        return content

    def _table(self, name: str) -> bytes:
        if f"!{name}" not in self._names:
            return b""
        content = self.stream(f"!{name}")
        if len(content) > _MAX_TABLE_BYTES:
            raise BadMsi(f"The package's table {name} is too large.")
        return content

    def _pool(self) -> tuple[bool, list[str]]:
        try:
            return _strings(self._table("_StringPool"), self._table("_StringData"))
        except (struct.error, LookupError) as error:
            raise _damaged(error) from None

    def _string(self, number: int) -> str:
        return self._strings[number] if number < len(self._strings) else ""

    def _columns(self, name: str, widths: list[int]) -> Iterator[list[int]]:
        """The rows of a table whose columns have these widths in bytes (0: a string)."""
        data = self._table(name)
        sizes = [width or (3 if self._wide else 2) for width in widths]
        count = len(data) // sum(sizes)
        at, columns = 0, []
        for size in sizes:
            cells = [data[at + i * size : at + (i + 1) * size] for i in range(count)]
            columns.append([int.from_bytes(cell, "little") for cell in cells])
            at += size * count
        for row in zip(*columns, strict=True):
            yield list(row)

    def properties(self) -> dict[str, str]:
        rows = self._columns("Property", [0, 0])
        return {self._string(key): self._string(value) for key, value in rows}

    def cabinets(self) -> list[str]:
        # DiskId, LastSequence (4 bytes where the package was made for many files), DiskPrompt,
        # Cabinet, VolumeLabel, Source. Trying both widths needs no _Columns table.
        string = 3 if self._wide else 2
        size = len(self._table("Media"))
        widths = [2, 4, 0, 0, 0, 0] if size % (6 + 4 * string) == 0 else [2, 2, 0, 0, 0, 0]
        named = [self._string(row[3]) for row in self._columns("Media", widths)]
        return [name[1:] for name in named if name.startswith("#")]


def _strings(pool: bytes, data: bytes) -> tuple[bool, list[str]]:
    """Whether numbers of strings take three bytes, and the strings by number."""
    (head,) = struct.unpack_from("<I", pool)
    page = head & 0x7FFFFFFF
    encoding = {0: "cp1252", 65001: "utf-8"}.get(page, f"cp{page}")
    strings, at, offset = [""], 4, 0
    while at + 4 <= len(pool):
        length, references = struct.unpack_from("<HH", pool, at)
        at += 4
        if length == 0 and references:
            # A string over 64 KB: its length takes the place of the next entry.
            (length,) = struct.unpack_from("<I", pool, at)
            at += 4
        if offset + length > len(data):
            raise LookupError("string beyond the data")
        strings.append(data[offset : offset + length].decode(encoding, "replace"))
        offset += length
    return bool(head & 0x80000000), strings


def _name(packed: str) -> str:
    """The readable name of a stream; `!` begins the name of a table."""
    out = []
    for character in packed:
        number = ord(character)
        if 0x3800 <= number < 0x4800:
            number -= 0x3800
            out += [_ALPHABET[number & 0x3F], _ALPHABET[number >> 6]]
        elif 0x4800 <= number < 0x4840:
            out.append(_ALPHABET[number - 0x4800])
        elif number == 0x4840:
            out.append("!")
        else:
            out.append(character)
    return "".join(out)
