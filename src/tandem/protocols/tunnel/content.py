"""Content at the gateway: what gateway and site say to each other about it, over the tunnel.

    device  ── GET /CCM_Content/<sha256>, content token ──▶  gateway
    gateway ── POST /CMG_Content/key ──────────────────────▶  site: the key that its copy is kept under
            ── GET  /CMG_Content/<sha256> ─────────────────▶  site: the content, or a range of it
            ── POST /CMG_Content/state ────────────────────▶  site: what it keeps

The gateway asks as itself: it proves that it knows its connection id, and what it asks for. A
connection point lets nothing else of a gateway's through to these addresses, and no client of the
gateway reaches them. ADR 44.
"""

import hmac
from hashlib import sha256

import msgspec

CONTENT, ORIGIN = "/CCM_Content", "/CMG_Content"
PROOF_HEADER = "CMG-Proof"
# How far the clocks of gateway and site may be apart.
PROOF_SECONDS = 300


class ContentService(msgspec.Struct, frozen=True):
    """That a gateway serves content, and how.

    `dropped` says of a content (its SHA-256) up to which distribution copies of it are not to be
    kept or served any more. `quota_bytes` is what copies may take altogether; 0: what there is.
    """

    dropped: dict[str, int] = {}
    quota_bytes: int = 0


class KeyRequest(msgspec.Struct, frozen=True):
    sha256: str
    distribution: int


class ContentKey(msgspec.Struct, frozen=True):
    """What a copy is kept under: 32 bytes in hex. Known to the site, and in the gateway's memory."""

    sha256: str
    distribution: int
    size_bytes: int
    key: str

    def __repr__(self) -> str:
        return f"ContentKey({self.sha256[:8]})"


class Copy(msgspec.Struct, frozen=True):
    """One content on a gateway's instance, and how much of it."""

    sha256: str
    distribution: int
    stored_bytes: int
    whole: bool


class ContentState(msgspec.Struct, frozen=True):
    """What an instance says of its copies. `full` is when nothing could be stored; `problem` why."""

    instance: int
    copies: list[Copy] = []
    used_bytes: int = 0
    free_bytes: int | None = None
    full: bool = False
    problem: str = ""


def prove(connection_id: str, method: str, path: str, body: bytes, at: float) -> str:
    """The value of PROOF_HEADER. `path` is what follows ORIGIN."""
    return f"{int(at)}.{_mac(connection_id, method, path, body, int(at))}"


def is_proven(
    said: str, connection_id: str, method: str, path: str, body: bytes, now: float
) -> bool:
    at, _, mac = said.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 12 and mac.isascii()):
        return False
    if abs(now - int(at)) > PROOF_SECONDS:
        return False
    return hmac.compare_digest(mac, _mac(connection_id, method, path, body, int(at)))


def _mac(connection_id: str, method: str, path: str, body: bytes, at: int) -> str:
    lines = [method, path, str(at), sha256(body).hexdigest()]
    return hmac.new(connection_id.encode(), "\n".join(lines).encode(), sha256).hexdigest()
