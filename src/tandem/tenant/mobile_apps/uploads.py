"""App content on its way: versions, files, blocks by signed URLs, and the commit that checks them.

    add_version → add_file → url → put_block … put_list → commit → (job) verify → publish

Encrypted blocks lie aside under the file's id and generation until `verify` has decrypted them and
found length, MAC and digest right; only then the plaintext is content. A URL is signed for one file
and one generation of it; a commit ends the generation, so nothing can be put after it, and tidying
up after a generation leaves the next one alone.
"""

import asyncio
import hmac
import tempfile
import uuid
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tandem.infra.blobs import Blob, Blobs, NoSuchBlob
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, TooLarge
from tandem.infra.jobs import Jobs
from tandem.infra.secrets import SecretBox
from tandem.protocols import intunewin, msi
from tandem.tenant.mobile_apps import store
from tandem.tenant.mobile_apps.model import (
    BLOCK_BYTES,
    BLOCKS,
    FILE_BYTES,
    MSI,
    OPEN_STATES,
    WITH_CONTENT,
    App,
    BadApp,
    Block,
    ContentFile,
    LinkExpired,
    NoSuchContent,
    NotOpen,
    UploadState,
    WrongFile,
)

VERIFY = "mobile_apps.verify"
UNSTAGE = "mobile_apps.unstage"
# How long what nobody finished is kept.
KEPT = timedelta(days=7)
_VERSIONS = 100
_FILES = 20


class BadBlock(AppError):
    """A block, or its id, does not fit into the upload."""

    code = "content.bad-block"


class BadBlockList(AppError):
    code = "content.bad-block-list"


@dataclass(frozen=True)
class Uploads:
    blobs: Blobs
    secret: bytes
    box: SecretBox
    jobs: Jobs
    database: Database
    now: Clock
    lifetime: timedelta = timedelta(hours=2)

    def register(self) -> None:
        """Name this module's background work; once, before the worker runs."""
        self.jobs.register(VERIFY, self.verify)
        self.jobs.register(UNSTAGE, self.blobs.unstage)

    # ------------------------------------------------------------------ the signed URL

    def query(self, file: ContentFile) -> str:
        """The query of the file's upload URL. Clients append to it: it never ends in nothing."""
        end = file.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"sv=2021-08-06&sr=b&sp=rw&se={end}&sig={self._signature(file, end)}"

    def _signature(self, file: ContentFile, end: str) -> str:
        text = f"upload\n{file.id}\n{file.generation}\n{end}"
        digest = hmac.digest(self.secret, text.encode(), sha256)
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    def _check(self, file: ContentFile | None, end: str, signature: str) -> ContentFile:
        """Raises LinkExpired."""
        good = file is not None and hmac.compare_digest(
            self._signature(file, end).encode(), signature.encode()
        )
        # The text of the time is signed, and sorts as time does.
        late = end <= self.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if file is None or not good or late:
            raise LinkExpired(
                "The signature of this URL is not valid, or not any more.",
                cure="Ask for a new URL: renewUpload, then read the file.",
            )
        if file.state not in OPEN_STATES:
            raise NotOpen("This file takes no content now.", cure="Ask for a new URL.")
        return file

    async def opened(self, file_id: str, end: str, signature: str) -> ContentFile:
        """The file that a URL is for. Raises LinkExpired, NotOpen."""
        async with self.database.transaction() as tx:
            return self._check(await store.file(tx, file_id), end, signature)

    # ------------------------------------------------------------------ blocks

    async def put_block(
        self, file: ContentFile, end: str, signature: str, id: str, content: AsyncIterator[bytes]
    ) -> None:
        """Keep one block aside. The same id again takes its place.

        Raises TooLarge, LinkExpired, NotOpen, BadBlock (an id of another length).
        """
        made = await self._stage(file, id, content, min(BLOCK_BYTES, file.encrypted_bytes))
        dropped = made.object
        try:
            async with self.database.transaction() as tx:
                now = self._check(await store.file(tx, file.id, lock=True), end, signature)
                count, held, length = await store.staged(tx, file.id)
                if count and length != len(id):
                    raise BadBlock(
                        "The id of this block is not as long as those before it.",
                        cure="Give all blocks of a file ids of one length.",
                    )
                # One block's worth more: a block that is put again counts twice for a moment.
                if held + made.size_bytes > file.encrypted_bytes + BLOCK_BYTES or count >= BLOCKS:
                    raise TooLarge("More content came than was announced for this file.")
                before = await store.save_block(tx, file.id, made)
                listed = {block.object for block in now.blocks or ()}
            dropped = before if before not in listed else ""
        finally:
            if dropped:
                await self.blobs.unstage(dropped)

    async def put_list(
        self, file: ContentFile, end: str, signature: str, ids: Sequence[tuple[str, str]]
    ) -> None:
        """The blocks that make the content, in order. Each is named with where to look for it:
        "latest", "uncommitted" or "committed". Raises BadBlockList for a block that is not there."""
        async with self.database.transaction() as tx:
            known = self._check(await store.file(tx, file.id, lock=True), end, signature)
            waiting = await store.blocks(tx, file.id)
            listed = {block.id: block for block in known.blocks or ()}
            chosen: list[Block] = []
            for place, id in ids:
                found = waiting.get(id) if place in ("latest", "uncommitted") else None
                if found is None and place in ("latest", "committed"):
                    found = listed.get(id)
                if found is None:
                    raise BadBlockList(
                        "The block list names a block that was not put.",
                        cure="Put the block, then the list.",
                    )
                chosen.append(found)
            await self._set_list(tx, known, chosen, [*waiting.values(), *listed.values()])

    async def put_whole(
        self, file: ContentFile, end: str, signature: str, content: AsyncIterator[bytes]
    ) -> None:
        """The content in one piece. Raises as `put_block`."""
        made = await self._stage(file, "", content, file.encrypted_bytes)
        try:
            async with self.database.transaction() as tx:
                known = self._check(await store.file(tx, file.id, lock=True), end, signature)
                waiting = await store.blocks(tx, file.id)
                await self._set_list(tx, known, [made], [*waiting.values(), *(known.blocks or ())])
        except AppError:
            await self.blobs.unstage(made.object)
            raise

    async def _stage(
        self, file: ContentFile, id: str, content: AsyncIterator[bytes], limit: int
    ) -> Block:
        name = f"{_aside(file.id, file.generation)}{uuid.uuid4().hex}"
        return Block(id, name, await self.blobs.stage(name, content, limit))

    async def _set_list(
        self, tx: Tx, file: ContentFile, chosen: Sequence[Block], known: Sequence[Block]
    ) -> None:
        await store.save_file(tx, replace(file, blocks=tuple(chosen)))
        await store.drop_blocks(tx, file.id)
        kept = {block.object for block in chosen}
        for block in known:
            if block.object not in kept:
                await self.jobs.defer(tx, UNSTAGE, prefix=block.object)

    # ------------------------------------------------------------------ versions and files

    async def add_version(self, tx: Tx, app: App) -> int:
        """Raises BadApp."""
        _has_content(app)
        await store.lock(tx, app.id)
        if len(await store.versions(tx, app.id)) >= _VERSIONS:
            raise BadApp(
                f"An app has {_VERSIONS} content versions at most.", cure="Make a new app."
            )
        return await store.add_version(tx, app.id)

    async def add_file(
        self,
        tx: Tx,
        app: App,
        version: str,
        *,
        name: str,
        size_bytes: int,
        encrypted_bytes: int,
        manifest: str | None,
        is_dependency: bool,
    ) -> ContentFile:
        """Raises BadApp, NoSuchContent."""
        number = await self.version(tx, app, version)
        # Whether the two sizes fit together is for the commit to say, as for all that is wrong.
        if not (0 <= size_bytes <= FILE_BYTES and 0 < encrypted_bytes <= FILE_BYTES + 64):
            raise BadApp(
                f"A file of an app has at most {FILE_BYTES:,} bytes.",
                cure="Send its 'size' and 'sizeEncrypted'; divide a larger package.",
                target="size",
            )
        if len(await store.files(tx, app.id, number)) >= _FILES:
            raise BadApp(f"A content version has {_FILES} files at most.")
        now = self.now()
        made = ContentFile(
            str(uuid.uuid4()),
            app.id,
            number,
            name[:256],
            size_bytes,
            encrypted_bytes,
            manifest,
            is_dependency,
            UploadState.URI_READY,
            "",
            1,
            now + self.lifetime,
            None,
            None,
            "",
            {},
            now,
        )
        await store.insert_file(tx, made)
        return made

    async def version(self, tx: Tx, app: App, version: str) -> int:
        """The number of a content version. Raises NoSuchContent."""
        known = await store.versions(tx, app.id)
        if not version.isascii() or not version.isdigit() or int(version[:9]) not in known:
            raise NoSuchContent(
                f"The app has no content version {version[:32]!r}.", cure="List its versions."
            )
        return int(version)

    async def file(self, tx: Tx, app_id: str, version: str, id: str) -> ContentFile:
        """Raises NoSuchContent."""
        found = await store.file(tx, id)
        if found is None or (found.app_id, str(found.version)) != (app_id, version):
            raise NoSuchContent(f"The content version has no file {id!r}.", cure="List its files.")
        return found

    async def renew(self, tx: Tx, file: ContentFile) -> None:
        """A new URL; after a commit that failed, for a new beginning. Raises NotOpen."""
        locked = await self._locked(tx, file)
        if locked.state in (UploadState.COMMIT_PENDING, UploadState.COMMITTED):
            raise NotOpen(
                "This file is committed, or about to be: it takes no content any more.",
                cure="Make a new content version for other content.",
            )
        changed = replace(
            locked,
            state=UploadState.URI_RENEWED,
            reason="",
            expires_at=self.now() + self.lifetime,
        )
        await store.save_file(tx, changed)

    async def _locked(self, tx: Tx, file: ContentFile) -> ContentFile:
        found = await store.file(tx, file.id, lock=True)
        if found is None:
            raise NoSuchContent("This file is not there any more.")
        return found

    async def commit(self, tx: Tx, file: ContentFile, given: Mapping[str, Any]) -> None:
        """Close the upload and ask for its verification. Raises NotOpen, BadContent.

        The key is sealed for this file alone, and goes when the content is decrypted.
        """
        info = intunewin.read_info(given)
        locked = await self._locked(tx, file)
        if locked.state is UploadState.COMMIT_PENDING:
            return
        if locked.state not in OPEN_STATES:
            raise NotOpen(
                f"This file cannot be committed: its state is {locked.state.value}.",
                cure="After a failure renew the upload, and put the content again.",
            )
        shown = msgspec.json.encode(intunewin.show_info(info))
        changed = replace(
            locked,
            state=UploadState.COMMIT_PENDING,
            reason="",
            generation=locked.generation + 1,
            sealed=self.box.seal(shown, _purpose(locked.id)),
        )
        await store.save_file(tx, changed)
        await self.jobs.defer(tx, VERIFY, lock=f"mobile-app-file-{file.id}", file_id=file.id)

    # ------------------------------------------------------------------ verification

    async def verify(self, file_id: str) -> None:
        """Background work: decrypt what was committed, and say whether it is what was announced.

        Runs again from the start when it was cut off; a file that is not pending is left alone.
        """
        async with self.database.transaction() as tx:
            file = await store.file(tx, file_id)
            app = await store.app(tx, file.app_id) if file is not None else None
        if file is None or app is None or file.state is not UploadState.COMMIT_PENDING:
            return
        try:
            blob, facts = await self._opened(app, file)
            changed = replace(
                file,
                state=UploadState.COMMITTED,
                reason="",
                sha256=blob.sha256,
                facts=facts,
                sealed=None,
                blocks=None,
            )
        except (intunewin.BadContent, WrongFile, NoSuchBlob) as error:
            reason = f"{error.message} {error.cure}".strip()
            changed = replace(
                file, state=UploadState.COMMIT_FAILED, reason=reason, sealed=None, blocks=None
            )
        async with self.database.transaction() as tx:
            now = await store.file(tx, file_id, lock=True)
            if now is None or now.state is not UploadState.COMMIT_PENDING:
                return
            await store.save_file(tx, changed)
            await store.drop_blocks(tx, file_id)
            await self.jobs.defer(tx, UNSTAGE, prefix=_aside(file_id, file.generation - 1))

    async def _opened(self, app: App, file: ContentFile) -> tuple[Blob, dict[str, Any]]:
        """The plaintext, checked and kept. Raises BadContent, WrongFile, NoSuchBlob."""
        came = sum(block.size_bytes for block in file.blocks or ())
        if came != file.encrypted_bytes:
            raise intunewin.BadContent(
                f"{came:,} bytes were uploaded; {file.encrypted_bytes:,} were announced.",
                cure="Upload the file again, whole, and put the list of its blocks.",
            )
        assert file.sealed is not None
        info = intunewin.read_info(
            msgspec.json.decode(self.box.unseal(file.sealed, _purpose(file.id)))
        )
        opener = intunewin.Opener(info)
        with tempfile.TemporaryDirectory(prefix="tandem-content-") as folder:
            plain = Path(folder) / "content"
            with await asyncio.to_thread(plain.open, "wb") as out:
                for block in file.blocks or ():
                    async for piece in self.blobs.staged(block.object, block.size_bytes):
                        await asyncio.to_thread(_decrypt, opener, piece, out)
                out.write(opener.finish())
            size = plain.stat().st_size
            if size != file.size_bytes:
                raise intunewin.BadContent(
                    f"It decrypts to {size:,} bytes; {file.size_bytes:,} were announced.",
                    cure="Send the file's size as 'size'.",
                )
            facts = await asyncio.to_thread(read_msi, plain, app) if app.type == MSI else {}
            blob = Blob(info.file_digest.hex(), size)
            await self.blobs.keep(plain, blob)
        return blob, facts

    async def tend(self, tx: Tx) -> None:
        """What was uploaded and never committed goes after a week."""
        for id in await store.stale(tx, self.now() - KEPT):
            file = await store.file(tx, id, lock=True)
            if file is not None and not file.committed:
                changed = replace(file, blocks=None, generation=file.generation + 1)
                await store.save_file(tx, changed)
                await store.drop_blocks(tx, id)
                await self.jobs.defer(tx, UNSTAGE, prefix=_aside(id, file.generation))


def _aside(file_id: str, generation: int) -> str:
    """Where the blocks of one generation of a file lie."""
    return f"{file_id}/{generation}/"


def _decrypt(opener: intunewin.Opener, piece: bytes, out: BinaryIO) -> None:
    out.write(opener.feed(piece))


def _purpose(file_id: str) -> str:
    return f"mobile-apps.content-key.{file_id}"


def _has_content(app: App) -> None:
    if app.type not in WITH_CONTENT:
        raise BadApp(
            f"A {app.type} has no content.", cure="What it needs stands in its properties."
        )


def read_msi(file: Path, app: App) -> dict[str, Any]:
    """What the package says of itself. Raises WrongFile for what devices cannot install."""
    with file.open("rb") as opened:
        try:
            read = msi.read(opened)
        except AppError as error:
            raise WrongFile(
                f"{app.file_name} is not a Windows Installer package that can be used."
                f" {error.message}",
                cure="Take the client's MSI: `tandem client package`.",
            ) from None
    if not read.per_machine and app.brings_client:
        raise WrongFile(
            f"{app.file_name} installs for one user; the client is for the machine.",
            cure="Take an MSI with ALLUSERS=1: `tandem client package`.",
        )
    return {
        "productCode": read.product_code.upper(),
        "productVersion": read.product_version,
        "upgradeCode": read.upgrade_code,
        "productName": read.product_name,
        "publisher": read.manufacturer,
        "packageType": read.package_type.value,
    }


def block_id(text: str) -> str:
    """A block's id, checked: base64 of at most 64 bytes. Raises BadBlock."""
    try:
        good = 0 < len(b64decode(text, validate=True)) <= 64
    except ValueError:
        good = False
    if not good:
        raise BadBlock("A block's id is not base64 of 1 to 64 bytes.", cure="Name it like that.")
    return text
