"""Content by SHA-256, in a folder or an object store that `obstore` knows by URL."""

import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store, from_url

from tandem.infra.errors import AppError, Kind, TooLarge
from tandem.infra.logs import get_logger

_CHUNK_BYTES = 256 * 1024
SIGNING = (S3Store, GCSStore, AzureStore)
log = get_logger(__name__)
_STAGING = "staging/"
# Parts of a large object that are under way at once, of 5 MiB each; obstore's own default is twelve.
_PARTS = 2


class Blob(msgspec.Struct, frozen=True):
    sha256: str
    size_bytes: int


class BadStore(AppError):
    kind, code = Kind.INVALID, "blob.bad-store"


class NoSuchBlob(AppError):
    kind, code = Kind.NOT_FOUND, "blob.not-found"


class Blobs:
    """Write once, read by hash. The same content twice is stored once."""

    def __init__(self, store: Any) -> None:
        self._store = store

    @classmethod
    def open(cls, place: str | Path, options: Mapping[str, str] | None = None) -> "Blobs":
        """`place` is a folder (made when missing) or a URL like s3://bucket/prefix.

        `options` are those of the store, by obstore's names: endpoint, region, access_key_id….
        Raises BadStore.
        """
        if isinstance(place, str) and "://" in place:
            given: Any = dict(options or {})
            plain = str(given.get("endpoint", "")).startswith("http://")
            try:
                made = from_url(place, config=given, client_options={"allow_http": plain})
            except (BaseError, ValueError, TypeError) as error:
                # Its text may hold what was configured: secrets.
                raise BadStore(
                    "The store for content cannot be opened as it is configured.",
                    cure="Look at its URL and the names of its options.",
                    reason=type(error).__name__,
                ) from None
            return cls(made)
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(LocalStore(folder))

    async def link(self, sha256: str, seconds: float) -> str | None:
        """A URL that anybody may read this content by, until then; None for a store that cannot
        sign one."""
        if not isinstance(self._store, SIGNING):
            return None
        try:
            url = await obstore.sign_async(
                self._store, "GET", _path(sha256), timedelta(seconds=seconds)
            )
        except BaseError as error:
            # Some credentials are good for reading and not for signing.
            log.warning("blobs.not-signed", reason=type(error).__name__)
            return None
        return str(url)

    async def put(self, content: bytes | AsyncIterator[bytes]) -> Blob:
        if isinstance(content, bytes):
            blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
            await obstore.put_async(self._store, _path(blob.sha256), content)
            return blob
        digest, size = hashlib.sha256(), 0
        with tempfile.TemporaryFile() as file:
            async for chunk in content:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.seek(0)
            blob = Blob(digest.hexdigest(), size)
            await obstore.put_async(self._store, _path(blob.sha256), file, max_concurrency=_PARTS)
        return blob

    async def keep(self, file: Path, blob: Blob) -> None:
        """A file whose hash and size are known already."""
        await obstore.put_async(self._store, _path(blob.sha256), file, max_concurrency=_PARTS)

    # What is not whole yet lies under a name until it is: parts of an upload.

    async def stage(self, name: str, content: AsyncIterator[bytes], limit: int) -> int:
        """Keep a part under this name; its size. Raises TooLarge, and keeps nothing then."""
        size = 0
        with tempfile.TemporaryFile() as file:
            async for chunk in content:
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"This part has more than {limit:,} bytes.")
                file.write(chunk)
            file.seek(0)
            await obstore.put_async(self._store, _STAGING + name, file, max_concurrency=_PARTS)
        return size

    async def staged(self, name: str, size: int) -> AsyncIterator[bytes]:
        """A part in pieces. Raises NoSuchBlob."""
        start = 0
        while start < size:
            stop = min(start + _CHUNK_BYTES, size)
            try:
                piece = await obstore.get_range_async(
                    self._store, _STAGING + name, start=start, end=stop
                )
            except FileNotFoundError:
                raise NoSuchBlob("A part of an upload is not there any more.") from None
            yield bytes(piece)
            start = stop

    async def unstage(self, prefix: str) -> None:
        """Drop the parts in this folder, "7/" or "7/2/"; or the one of this name, "7/2/a"."""
        names = [prefix] if "/" in prefix[:-1] and not prefix.endswith("/") else []
        if not names:
            async for page in obstore.list(self._store, _STAGING + prefix):
                names += [str(item["path"]).removeprefix(_STAGING) for item in page]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, _STAGING + name)

    async def size(self, sha256: str) -> int:
        """The length in bytes. Raises NoSuchBlob."""
        try:
            meta = await obstore.head_async(self._store, _path(sha256))
        except FileNotFoundError:
            raise NoSuchBlob("This content is not stored here.", sha256=sha256) from None
        return int(meta["size"])

    async def exists(self, sha256: str) -> bool:
        try:
            await self.size(sha256)
        except NoSuchBlob:
            return False
        return True

    async def read(
        self, sha256: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes from start to before end, in pieces. Raises NoSuchBlob at the first piece."""
        last = await self.size(sha256) if end is None else end
        while start < last:
            stop = min(start + _CHUNK_BYTES, last)
            piece = await obstore.get_range_async(self._store, _path(sha256), start=start, end=stop)
            yield bytes(piece)
            start = stop


def _path(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"
