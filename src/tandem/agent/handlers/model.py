"""What handlers say of what they did, and what they keep to be able to undo it."""

from datetime import datetime

import msgspec

from tandem.infra.errors import AppError, Kind


class Trouble(AppError):
    """A handler cannot do what it was told. `code` is what the owner is told, with the sentence."""

    kind, code = Kind.CONFLICT, "effect.failed"

    def __init__(self, code: str, message: str, *, cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.code = code  # type: ignore[misc]


class Effect(msgspec.Struct, frozen=True):
    """How a setting stands on the device. `source` is the authority that said it last and was let
    through; `code` is for programs, `text` for people."""

    setting: str
    source: str
    code: str
    text: str
    at: datetime
    failed: bool = False


class Before(msgspec.Struct, frozen=True):
    """What a file was before anybody wrote it here. Its content lies beside the record."""

    exists: bool
    mode: int = 0
    uid: int = 0
    gid: int = 0


class Record(msgspec.Struct):
    """One setting's work, written before the work and after it."""

    setting: str
    source: str
    value: str
    effect: Effect
    done: bool = False
    # Its setting says something else now, elsewhere; this stays until that was read back.
    replaced: bool = False
    # Files: what was there, the digests of what may lie there by our hand, and folders made for it.
    before: Before | None = None
    wrote: list[str] = []
    folders: list[str] = []
    # Units: links (path → target) that we made, and those that we took away.
    linked: dict[str, str] = {}
    unlinked: dict[str, str] = {}
    # Apps: whether we installed it, the run that was begun last, and when to look again.
    ours: bool = False
    run: str = ""
    look_at: datetime | None = None
