"""A new identity for a machine that has another one's, as a disk that was copied has.

The new key and the token that the site gave for it lie in one sealed file before anything is
changed, so whoever is killed meanwhile becomes the new one at the next start.
"""

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from tandem import pki
from tandem.agent.folder import Folder, token_box
from tandem.agent.gate import Gate
from tandem.agent.installation import FILE, Installation, installed
from tandem.infra.secrets import Unsealable

_NEXT = "next-identity"
_CONTEXT = "agent.next-identity"
# What the old identity knew and the new one has to learn anew.
_OLD = ("site-token", "token-device", "token-user", "policy.json", "inventory", "assignment")


class _Next(msgspec.Struct, frozen=True):
    """`token` is the cached token of the new key, sealed; empty when the directory gives one."""

    key: str
    token: bytes = b""


def prepare(folder: Folder, key: ec.EllipticCurvePrivateKey, token: bytes = b"") -> None:
    """From now on this machine becomes the holder of this key, whatever happens."""
    sealed = token_box(folder).seal(
        msgspec.json.encode(_Next(pki.key_pem(key).decode(), token)), _CONTEXT
    )
    folder.write(_NEXT, sealed)


def complete(folder: Folder, gate: Gate) -> bool:
    """Become who was prepared. False when nobody was."""
    sealed = folder.read(_NEXT)
    if sealed is None:
        return False
    try:
        wanted = msgspec.json.decode(token_box(folder).unseal(sealed, _CONTEXT), type=_Next)
    except (Unsealable, msgspec.DecodeError):
        folder.remove(_NEXT)
        return False
    gate.begin_anew()
    folder.write("key.pem", wanted.key.encode())
    for name in _OLD:
        folder.remove(name)
    found: Installation | None = installed(folder)
    if found is not None:
        folder.save(FILE, msgspec.structs.replace(found, client_id=""))
    if wanted.token:
        folder.write("token-device", wanted.token)
    folder.remove(_NEXT)
    folder.sync()
    return True
