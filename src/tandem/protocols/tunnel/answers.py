"""Edge answers: a gateway's question whether what it knows of devices' policies still holds.

    gateway (one worker)                                   site
      devices ask for policy, and have it already
      POST <prefix>  Question: known up to 17, …   →       what it keeps, after all changes were heard of
                                                   ←       Confirmation: since 17: 3 new, 1 gone, up to 21
      those that still hold are answered with 304

A question travels through a tunnel as a request of the gateway's own, MessagePack both ways, so a
connection point that knows nothing of it passes it on. `tag` stands for one client with one token and
one ETag. What one process of the site tells carries its `epoch`; numbers count within it.
"""

import hmac
from hashlib import sha256

import msgspec

# Where a gateway asks: the first of the path at the site, and in the logs of connection points.
ANSWERS_ENDPOINT = "EdgeAnswers"
TAG_BYTES = 16
# An entry of `Confirmation.added`: the tag, and until when it counts in seconds since 1970.
ENTRY_BYTES = TAG_BYTES + 4


class EdgeAnswers(msgspec.Struct, frozen=True):
    """What a gateway may answer itself: where it asks, and the addresses of policy."""

    prefix: str
    targets: list[str]


class Question(msgspec.Struct, frozen=True, array_like=True):
    """`known` says up to which number the worker has what each process told it; `seen` which clients
    were answered, and how many seconds ago."""

    id: str  # Unlike that of any other question.
    known: dict[str, int]
    seen: dict[str, float] = {}
    worker: str = ""
    # Of this worker since it began: entries, answered here, passed on because nothing was known of
    # them, passed on because it did not hold any more or nobody said so in time.
    entries: int = 0
    answered: int = 0
    unknown: int = 0
    unproven: int = 0


class Confirmation(msgspec.Struct, frozen=True, array_like=True):
    """What is so at this process of the site, at a moment after the question `id` arrived there.

    `since` 0 replaces all that it told before. `gone` is complete in any case; with `more`, there is
    more to add than what is here. `now` is the time there, by which entries end.
    """

    id: str
    epoch: str
    since: int
    upto: int
    now: float
    added: bytes = b""
    gone: bytes = b""
    more: bool = False


def tag(client_id: bytes, etag: bytes, token_sha256: bytes) -> bytes:
    return sha256(b"%s\n%s\n%s" % (client_id, etag, token_sha256)).digest()[:TAG_BYTES]


def answers_key(connection_id: str) -> str:
    """What a gateway proves itself with when it asks: made of the secret that it has anyway."""
    return hmac.new(connection_id.encode(), b"edge answers", "sha256").hexdigest()
