"""The encrypted content, in both directions."""

import binascii
import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from tandem.infra.errors import Invalid

MAC_BYTES = 32
IV_BYTES = 16
OVERHEAD_BYTES = MAC_BYTES + IV_BYTES
_BLOCK_BYTES = 16
PROFILE = "ProfileVersion1"
DIGEST = "SHA256"


class BadContent(Invalid):
    """The content is not what its encryption info says."""

    code = "content.damaged"


@dataclass(frozen=True, slots=True)
class EncryptionInfo:
    encryption_key: bytes = field(repr=False)
    mac_key: bytes = field(repr=False)
    initialization_vector: bytes
    mac: bytes
    file_digest: bytes


_MEMBERS = {
    "encryptionKey": ("encryption_key", 32),
    "macKey": ("mac_key", 32),
    "initializationVector": ("initialization_vector", IV_BYTES),
    "mac": ("mac", MAC_BYTES),
    "fileDigest": ("file_digest", 32),
}


def read_info(given: Mapping[str, Any]) -> EncryptionInfo:
    """`fileEncryptionInfo` by Graph's names. Raises BadContent, which names what is wrong."""
    found = {}
    for name, (attribute, size) in _MEMBERS.items():
        try:
            value = b64decode(str(given.get(name) or ""), validate=True)
        except (binascii.Error, ValueError):
            value = b""
        if len(value) != size:
            raise BadContent(
                f"'{name}' of the encryption info is not {size} bytes in base64.",
                cure="Send the values that the content was encrypted with.",
                target=name,
            )
        found[attribute] = value
    if (given.get("profileIdentifier") or PROFILE) != PROFILE:
        raise BadContent(f"The encryption profile is not {PROFILE}.", cure="Encrypt it with that.")
    if str(given.get("fileDigestAlgorithm") or DIGEST).upper() != DIGEST:
        raise BadContent(f"The digest's algorithm is not {DIGEST}.", cure="Use that one.")
    return EncryptionInfo(**found)


def show_info(info: EncryptionInfo) -> dict[str, str]:
    shown = {
        name: b64encode(getattr(info, attribute)).decode()
        for name, (attribute, _) in _MEMBERS.items()
    }
    return {**shown, "profileIdentifier": PROFILE, "fileDigestAlgorithm": DIGEST}


def encrypted_size(size_bytes: int) -> int:
    """PKCS#7 always adds 1 to 16 bytes."""
    return OVERHEAD_BYTES + (size_bytes // _BLOCK_BYTES + 1) * _BLOCK_BYTES


class Opener:
    """Decrypts content that comes in pieces. Nothing of it counts before `finish` has returned."""

    def __init__(self, info: EncryptionInfo) -> None:
        self._info = info
        self._head = b""
        self._mac = hmac.new(info.mac_key, digestmod=hashlib.sha256)
        self._digest = hashlib.sha256()
        self._unpad = PKCS7(_BLOCK_BYTES * 8).unpadder()
        mode = modes.CBC(info.initialization_vector)
        self._cipher = Cipher(algorithms.AES(info.encryption_key), mode).decryptor()

    def feed(self, piece: bytes) -> bytes:
        """The next piece of content; the plaintext so far as it is known."""
        if len(self._head) < OVERHEAD_BYTES:
            wanted = OVERHEAD_BYTES - len(self._head)
            self._head += piece[:wanted]
            piece = piece[wanted:]
            if len(self._head) == OVERHEAD_BYTES:
                self._mac.update(self._head[MAC_BYTES:])
        self._mac.update(piece)
        plain: bytes = self._unpad.update(self._cipher.update(piece))
        self._digest.update(plain)
        return plain

    def finish(self) -> bytes:
        """The rest of the plaintext. Raises BadContent: then all of it is to be thrown away."""
        if len(self._head) < OVERHEAD_BYTES:
            raise _damaged("It is shorter than its own header.")
        sent, iv = self._head[:MAC_BYTES], self._head[MAC_BYTES:]
        good = hmac.compare_digest(self._mac.digest(), sent)
        good &= hmac.compare_digest(sent, self._info.mac)
        good &= hmac.compare_digest(iv, self._info.initialization_vector)
        if not good:
            raise _damaged("Its MAC does not fit: it was altered or cut off, or the key is wrong.")
        try:
            last: bytes = self._unpad.update(self._cipher.finalize()) + self._unpad.finalize()
        except ValueError:
            raise _damaged("It cannot be decrypted to its end.") from None
        self._digest.update(last)
        if not hmac.compare_digest(self._digest.digest(), self._info.file_digest):
            raise _damaged("What it decrypts to does not have the file digest that was sent.")
        return last


def _damaged(why: str) -> BadContent:
    return BadContent(
        f"The uploaded content is not what was announced. {why}",
        cure="Upload the file again, with the encryption info that belongs to it.",
    )


def seal(content: Iterable[bytes], out: BinaryIO) -> EncryptionInfo:
    """Write the content encrypted with keys of its own to a file that can be sought in."""
    key, mac_key, iv = os.urandom(32), os.urandom(32), os.urandom(IV_BYTES)
    mac = hmac.new(mac_key, iv, hashlib.sha256)
    digest = hashlib.sha256()
    pad = PKCS7(_BLOCK_BYTES * 8).padder()
    cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    start = out.tell()
    out.write(bytes(MAC_BYTES) + iv)
    for piece in content:
        digest.update(piece)
        sealed = cipher.update(pad.update(piece))
        mac.update(sealed)
        out.write(sealed)
    sealed = cipher.update(pad.finalize()) + cipher.finalize()
    mac.update(sealed)
    out.write(sealed)
    end = out.tell()
    out.seek(start)
    out.write(mac.digest())
    out.seek(end)
    return EncryptionInfo(key, mac_key, iv, mac.digest(), digest.digest())
