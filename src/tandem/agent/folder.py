"""What a device keeps: small files that are whole or not there, whenever the process is killed."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem import pki
from tandem.infra.secrets import SecretBox, private_folder, write_private

T = TypeVar("T")


class Folder:
    """The state folder of one device. `durable` off leaves the time of writing to the disk."""

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path = private_folder(path)
        self._durable = durable

    def below(self, name: str) -> "Folder":
        return Folder(self.path / name, self._durable)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replace the file, all or nothing; it is readable by its owner alone."""
        if self._durable:
            write_private(self.path / name, data)
            self.sync()
            return
        temporary = self.path / f".{name}.{os.getpid()}"
        try:
            temporary.touch(mode=0o600)
            temporary.write_bytes(data)
            temporary.replace(self.path / name)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of a file; whoever is killed meanwhile leaves a part of it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.path / name, flags, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Make names that were added or removed last."""
        if not self._durable or sys.platform == "win32":
            return  # NTFS journals names itself, and a folder cannot be opened like this there.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def load(self, name: str, wanted: type[T]) -> T | None:
        """What was saved, or None when there is nothing that this version can read."""
        data = self.read(name)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=wanted)
        except msgspec.DecodeError:
            return None

    def save(self, name: str, value: msgspec.Struct) -> None:
        self.write(name, msgspec.json.encode(value))


def device_key(folder: Folder) -> ec.EllipticCurvePrivateKey:
    """The key of this device, made at the first call. It never leaves the folder."""
    data = folder.read("key.pem")
    if data is None:
        data = pki.key_pem(pki.generate_key("p256"))
        folder.write("key.pem", data)
    key = pki.load_key(data)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def token_box(folder: Folder) -> SecretBox:
    """Seals cached tokens, so a copy of a token file alone is of no use."""
    return SecretBox.open(folder.path / "tokens.key")
