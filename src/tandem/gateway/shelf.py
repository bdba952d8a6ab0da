"""Copies of content, encrypted, in a folder or an object store that `obstore` knows by URL.

    <sha256>/<distribution>/<number>   CHUNK bytes of the content: nonce ‖ AES-256-GCM
    <sha256>/<distribution>/whole      the chunks' hashes, encrypted, once the SHA-256 of all fits

Every chunk is bound to its place: to content, distribution, number and how many there are. A chunk that
was altered, cut short, moved or exchanged is `Damaged` and never content. The key comes with each
call and is not kept here. All of this blocks: call it in a thread.
"""

import contextlib
import os
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import obstore
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import private_folder

CHUNK = 1024 * 1024
_NONCE = 12
# What a chunk takes beside its content.
OVERHEAD = _NONCE + 16
_WHOLE = "whole"


class Damaged(AppError):
    """What is kept is not what was put there, or it is not there at all."""

    kind, code = Kind.UNAVAILABLE, "shelf.damaged"


class CannotKeep(AppError):
    """The store takes nothing: it is full, or broken."""

    kind, code = Kind.UNAVAILABLE, "shelf.cannot-keep"


class BadShelf(AppError):
    kind, code = Kind.INVALID, "shelf.bad-store"


@dataclass(frozen=True, slots=True)
class Title:
    """One content in one distribution."""

    sha256: str
    distribution: int
    size_bytes: int

    @property
    def chunks(self) -> int:
        return max(1, -(-self.size_bytes // CHUNK))

    @property
    def folder(self) -> str:
        return f"{self.sha256}/{self.distribution}"

    def length(self, number: int) -> int:
        """Of this chunk's content."""
        return min(CHUNK, self.size_bytes - number * CHUNK)


@dataclass(slots=True)
class Kept:
    """What the store has of a content."""

    stored_bytes: int = 0
    whole: bool = False


class Shelf:
    def __init__(self, store: Any, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def open(cls, place: str | Path, options_file: Path | None = None) -> "Shelf":
        """`place` is a folder (made when missing) or a URL like s3://bucket/prefix; the options of
        its store lie in a file, as they hold secrets. Raises BadShelf."""
        if isinstance(place, str) and "://" in place:
            return cls(_remote(place, options_file))
        folder = private_folder(Path(place))
        return cls(LocalStore(folder), folder)

    # -------------------------------------------------------------- one content

    def put(self, title: Title, key: bytes, number: int, content: bytes) -> None:
        """Raises CannotKeep."""
        self._put(f"{title.folder}/{number}", _seal(key, content, _place(title, number)))

    def chunk(self, title: Title, key: bytes, number: int) -> bytes:
        """Raises Damaged."""
        found = _open(key, self._get(f"{title.folder}/{number}"), _place(title, number))
        if len(found) != title.length(number):
            raise Damaged("A chunk has not its length.")
        return found

    def has(self, title: Title, number: int) -> bool:
        """Whether there is a chunk; not whether it is right."""
        try:
            obstore.head(self._store, f"{title.folder}/{number}")
        except (FileNotFoundError, BaseError, OSError):
            return False
        return True

    def finish(self, title: Title, key: bytes, hashes: list[bytes]) -> None:
        """All chunks are there, and together they are the content. Raises CannotKeep."""
        sealed = _seal(key, b"".join(hashes), _place(title, _WHOLE))
        self._put(f"{title.folder}/{_WHOLE}", sealed)

    def whole(self, title: Title, key: bytes) -> list[bytes] | None:
        """The chunks' SHA-256 when all of them were put; None when they were not. Raises Damaged."""
        try:
            sealed = self._get(f"{title.folder}/{_WHOLE}")
        except Damaged:
            return None
        found = _open(key, sealed, _place(title, _WHOLE))
        if len(found) != 32 * title.chunks:
            raise Damaged("The list of chunks has not its length.")
        return [found[n : n + 32] for n in range(0, len(found), 32)]

    # -------------------------------------------------------------- all of them

    def kept(self) -> dict[tuple[str, int], Kept]:
        """What there is, by content and distribution. Raises CannotKeep."""
        found: defaultdict[tuple[str, int], Kept] = defaultdict(Kept)
        for path, size in self._list(""):
            parts = path.split("/")
            if len(parts) != 3 or not parts[1].isdigit():
                continue  # Nothing of ours.
            kept = found[parts[0], int(parts[1])]
            kept.stored_bytes += size
            kept.whole = kept.whole or parts[2] == _WHOLE
        return dict(found)

    def drop(self, sha256: str, distribution: int) -> None:
        """All of this content up to this distribution. Raises CannotKeep."""
        for path, _ in self._list(f"{sha256}/"):
            parts = path.split("/")
            if len(parts) == 3 and parts[1].isdigit() and int(parts[1]) <= distribution:
                with contextlib.suppress(FileNotFoundError):
                    try:
                        obstore.delete(self._store, path)
                    except (BaseError, OSError) as error:
                        if not isinstance(error, FileNotFoundError):
                            raise _cannot(error) from None

    def free_bytes(self) -> int | None:
        """What is left on the disk; None where nobody says so."""
        if self._folder is None:
            return None
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    # -------------------------------------------------------------- the store

    def _put(self, path: str, data: bytes) -> None:
        try:
            obstore.put(self._store, path, data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise _cannot(error) from None

    def _get(self, path: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except (FileNotFoundError, BaseError, OSError) as error:
            raise Damaged("A chunk cannot be read.", reason=type(error).__name__) from None

    def _list(self, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            for page in obstore.list(self._store, prefix or None):
                for item in page:
                    yield str(item["path"]), int(item["size"])
        except (BaseError, OSError) as error:
            raise _cannot(error) from None


def _place(title: Title, name: int | str) -> bytes:
    return f"{title.folder}/{name} of {title.chunks}, {title.size_bytes} bytes".encode()


def _seal(key: bytes, content: bytes, place: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, content, place)


def _open(key: bytes, sealed: bytes, place: bytes) -> bytes:
    if len(sealed) < OVERHEAD:
        raise Damaged("A chunk is cut short.")
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
    except InvalidTag:
        raise Damaged("A chunk is not what was put there.") from None


def digest(content: bytes) -> bytes:
    return sha256(content).digest()


def _cannot(error: Exception) -> CannotKeep:
    # Of a store's answer only the first line: the rest may be a page.
    said = str(error).partition("\n")[0][:200]
    return CannotKeep(
        f"The store for content takes nothing: {said or type(error).__name__}",
        cure="Make room on the gateway's disk, remove packages from the gateway, or repair the store.",
    )


def _remote(url: str, options_file: Path | None) -> Any:
    options: Any = {}
    if options_file is not None:
        try:
            read = tomllib.loads(options_file.read_text("utf-8"))
            options = msgspec.convert(read.get("options", {}), dict[str, str])
        except (OSError, ValueError) as error:
            raise BadShelf(
                f"The options of the store for content cannot be read: {type(error).__name__}.",
                cure="Check content_options_file in the settings: a table [options] of texts.",
            ) from None
    plain = str(options.get("endpoint", "")).startswith("http://")
    try:
        return from_url(url, config=options, client_options={"allow_http": plain})
    except (BaseError, ValueError, TypeError) as error:
        # Its text may hold what was configured: secrets.
        raise BadShelf(
            "The store for content cannot be opened as it is configured.",
            cure="Look at its URL and the names of its options.",
            reason=type(error).__name__,
        ) from None
