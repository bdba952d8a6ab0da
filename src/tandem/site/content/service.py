"""Building the client package once, and giving it out."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

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
from tandem.site.content.wheel import agent_wheel


class ClientPackages:
    """The client packages of a site: one for each version of the software that ran here."""

    def __init__(self, blobs: Blobs, now: Clock, version: str = tandem.__version__) -> None:
        self._blobs = blobs
        self._now = now
        self._version = version
        self._building = asyncio.Lock()

    async def current(self, tx: Tx) -> ClientPackage:
        """This version's package, built at the first call. Raises BuildFailed."""
        site = await properties.site(tx)
        root = await properties.root_certificate(tx)
        fingerprint = pki.sha256_fingerprint(root)
        found = await store.find(tx, self._version, site.code, fingerprint)
        if found is not None and await self._is_whole(found):
            return found
        # Whoever asks at the same moment builds the same bytes; one after the other spares the work.
        async with self._building:
            found = await store.find(tx, self._version, site.code, fingerprint)
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
        return await store.find(tx, self._version, site.code, fingerprint) or made

    async def _is_whole(self, found: ClientPackage) -> bool:
        return await self._blobs.exists(found.msi_sha256) and await self._blobs.exists(found.sha256)

    async def _build(self, site_code: str, root: x509.Certificate) -> ClientPackage:
        fingerprint = pki.sha256_fingerprint(root)

        def work() -> tuple[str, bytes, BuiltMsi]:
            name, wheel = agent_wheel(self._version)
            built = build_msi(self._version, site_code, pki.pem(root), fingerprint, name, wheel)
            return name, wheel, built

        name, wheel, built = await asyncio.to_thread(work)
        client = await self._blobs.put(wheel)
        package = await self._blobs.put(built.data)
        return ClientPackage(
            self._version,
            site_code,
            fingerprint,
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

    async def content(self, sha256: str) -> StoredContent | None:
        """A stored file by its hash, or None."""
        try:
            size = await self._blobs.size(sha256)
        except NoSuchBlob:
            return None
        return StoredContent(size, partial(self._blobs.read, sha256))

    def read_msi(self, package: ClientPackage) -> AsyncIterator[bytes]:
        return self._blobs.read(package.msi_sha256)
