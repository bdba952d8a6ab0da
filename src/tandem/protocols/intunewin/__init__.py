"""App content as it is uploaded: encrypted, with a MAC, and `.intunewin` packages around it.

    content   HMAC-SHA256 (32 bytes) ‖ IV (16) ‖ AES-256-CBC ciphertext with PKCS#7
    MAC       over IV ‖ ciphertext, with its own key; again in the encryption info
    digest    SHA-256 of the plaintext

    package   a zip: IntuneWinPackage/Metadata/Detection.xml      name, set-up file, encryption info
                     IntuneWinPackage/Contents/….intunewin        the encrypted content

Nothing is held whole: `Opener` and `seal` go through content piece by piece. Plaintext that an
`Opener` has given out is good only when its `finish` has not raised.
"""

from tandem.protocols.intunewin.content import (
    OVERHEAD_BYTES,
    BadContent,
    EncryptionInfo,
    Opener,
    encrypted_size,
    read_info,
    seal,
    show_info,
)
from tandem.protocols.intunewin.package import BadPackage, MsiInfo, Package, read_package

__all__ = [
    "OVERHEAD_BYTES",
    "BadContent",
    "BadPackage",
    "EncryptionInfo",
    "MsiInfo",
    "Opener",
    "Package",
    "encrypted_size",
    "read_info",
    "read_package",
    "seal",
    "show_info",
]
