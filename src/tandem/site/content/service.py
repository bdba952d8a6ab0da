"""Building the client package once, and giving it out."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from cryptography import x509

import tandem
from tandem import audit, pki
from tandem.infra.blobs import Blobs, NoSuchBlob
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import ccm
from tandem.site import properties
from tandem.site.content import store
from tandem.site.content.model import ClientPackage, StoredContent
from tandem.site.content.msi import BuiltMsi, build_msi
from tandem.site.content.runtime import NO_RUNTIME, WindowsRuntime, load_runtime
from tandem.site.content.wheel import agent_wheel


class ClientPackages:
    """The client packages of a site: one for each version of the software that ran here."""

    def __init__(
        self,
        blobs: Blobs,
        now: Clock,
        version: str = tandem.__version__,
        runtime: Path | None = None,
    ) -> None:
        """`runtime` is the archive of the Windows Python runtime. Raises BadRuntime."""
        self._blobs = blobs
        self._now = now
        self._version = version
        self._runtime = runtime
        # Read whole once, so a bad archive is known at the start; its files are not kept in memory.
        self._runtime_sha256 = self._load().sha256
        self._building = asyncio.Lock()

    async def current(self, tx: Tx) -> ClientPackage:
        """This version's package, built at the first call. Raises BuildFailed."""
        site = await properties.site(tx)
        root = await properties.root_certificate(tx)
        fingerprint = pki.sha256_fingerprint(root)
        found = await self._find(tx, site.code, fingerprint)
        if found is not None and await self._is_whole(found):
            return found
        # Whoever asks at the same moment builds the same bytes; one after the other spares the work.
        async with self._building:
            found = await self._find(tx, site.code, fingerprint)
            if found is not None and await self._is_whole(found):
                return found
            made = await self._build(site.code, root)
        if await store.insert(tx, made):
            await audit.record(
                tx,
                actor="site",
                action="build client package",
                target=made.product_code,
                details={"version": made.version, "msi_sha256": made.msi_sha256},
                now=made.built_at,
            )
            return made
        return await self._find(tx, site.code, fingerprint) or made

    def _load(self) -> WindowsRuntime:
        return load_runtime(self._runtime) if self._runtime else NO_RUNTIME

    async def _find(self, tx: Tx, site_code: str, root_sha256: str) -> ClientPackage | None:
        return await store.find(tx, self._version, site_code, root_sha256, self._runtime_sha256)

    async def _is_whole(self, found: ClientPackage) -> bool:
        return await self._blobs.exists(found.msi_sha256) and await self._blobs.exists(found.sha256)

    async def _build(self, site_code: str, root: x509.Certificate) -> ClientPackage:
        fingerprint = pki.sha256_fingerprint(root)

        def work() -> tuple[str, bytes, BuiltMsi]:
            name, wheel = agent_wheel(self._version)
            built = build_msi(
                self._version, site_code, pki.pem(root), fingerprint, name, wheel, self._load()
            )
            return name, wheel, built

        name, wheel, built = await asyncio.to_thread(work)
        client = await self._blobs.put(wheel)
        package = await self._blobs.put(built.data)
        return ClientPackage(
            self._version,
            site_code,
            fingerprint,
            self._runtime_sha256,
            built.product_code,
            package.sha256,
            package.size_bytes,
            name,
            client.sha256,
            client.size_bytes,
            self._now(),
        )

    async def manifest(self, tx: Tx) -> ccm.ClientManifest:
        """Which client this site wants installed; the management point signs it."""
        wanted = await self.current(tx)
        return ccm.ClientManifest(
            wanted.site_code, wanted.version, wanted.file_name, wanted.sha256, wanted.size_bytes
        )

    async def find(self, tx: Tx, sha256: str) -> ClientPackage | None:
        """The newest package whose client has this hash."""
        return await store.find_by_hash(tx, sha256)

    async def content(self, sha256: str) -> StoredContent | None:
        """A stored file by its hash, or None."""
        try:
            size = await self._blobs.size(sha256)
        except NoSuchBlob:
            return None
        return StoredContent(size, partial(self._blobs.read, sha256))

    def read_msi(self, package: ClientPackage) -> AsyncIterator[bytes]:
        return self._blobs.read(package.msi_sha256)
