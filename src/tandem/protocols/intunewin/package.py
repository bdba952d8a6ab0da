"""`.intunewin` packages: what the metadata says, and where the encrypted content lies."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from lxml import etree

from tandem.infra.errors import Invalid
from tandem.protocols.intunewin.content import BadContent, EncryptionInfo, read_info

_METADATA = "IntuneWinPackage/Metadata/Detection.xml"
_CONTENTS = "IntuneWinPackage/Contents/"
_METADATA_BYTES = 256 * 1024
_PIECE_BYTES = 1024 * 1024


class BadPackage(Invalid):
    code = "package.invalid"


@dataclass(frozen=True, slots=True)
class MsiInfo:
    product_code: str
    product_version: str
    upgrade_code: str
    publisher: str
    execution_context: str
    requires_reboot: bool


@dataclass(frozen=True)
class Package:
    name: str
    file_name: str
    setup_file: str
    size_bytes: int
    encrypted_bytes: int
    info: EncryptionInfo
    msi: MsiInfo | None
    _archive: zipfile.ZipFile
    _member: str

    def content(self) -> Iterator[bytes]:
        """The encrypted content in pieces."""
        with self._archive.open(self._member) as member:
            while piece := member.read(_PIECE_BYTES):
                yield piece


def read_package(file: BinaryIO) -> Package:
    """Raises BadPackage."""
    try:
        archive = zipfile.ZipFile(file)
        metadata = archive.getinfo(_METADATA)
        if metadata.file_size > _METADATA_BYTES:
            raise BadPackage("The package's metadata are too large.")
        tree = _parse(archive.read(metadata))
        members = [item for item in archive.infolist() if item.filename.startswith(_CONTENTS)]
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError):
        raise BadPackage(
            "The file is not an .intunewin package.",
            cure="Make it with the Win32 content prep tool.",
        ) from None
    name = _text(tree, "FileName")
    chosen = [item for item in members if item.filename == _CONTENTS + name] or members[:1]
    if not chosen:
        raise BadPackage("The package has no content.", cure="Make it again.")
    try:
        info = read_info(
            {
                "encryptionKey": _text(tree, "EncryptionInfo/EncryptionKey"),
                "macKey": _text(tree, "EncryptionInfo/MacKey"),
                "initializationVector": _text(tree, "EncryptionInfo/InitializationVector"),
                "mac": _text(tree, "EncryptionInfo/Mac"),
                "fileDigest": _text(tree, "EncryptionInfo/FileDigest"),
                "profileIdentifier": _text(tree, "EncryptionInfo/ProfileIdentifier"),
                "fileDigestAlgorithm": _text(tree, "EncryptionInfo/FileDigestAlgorithm"),
            }
        )
        size = int(_text(tree, "UnencryptedContentSize") or 0)
    except (BadContent, ValueError):
        raise BadPackage("The package's metadata are damaged.", cure="Make it again.") from None
    return Package(
        _text(tree, "Name"),
        name,
        _text(tree, "SetupFile"),
        size,
        chosen[0].file_size,
        info,
        _msi(tree),
        archive,
        chosen[0].filename,
    )


def _parse(data: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError:
        raise BadPackage("The package's metadata cannot be read.", cure="Make it again.") from None


def _text(tree: Any, path: str) -> str:
    steps = "/".join(f"*[local-name()='{step}']" for step in path.split("/"))
    return str(tree.xpath(f"string(./{steps})")).strip()


def _msi(tree: Any) -> MsiInfo | None:
    code = _text(tree, "MsiInfo/MsiProductCode")
    if not code:
        return None
    return MsiInfo(
        code.upper(),
        _text(tree, "MsiInfo/MsiProductVersion"),
        _text(tree, "MsiInfo/MsiUpgradeCode").upper(),
        _text(tree, "MsiInfo/MsiPublisher"),
        _text(tree, "MsiInfo/MsiExecutionContext"),
        _text(tree, "MsiInfo/MsiRequiresReboot").lower() == "true",
    )
