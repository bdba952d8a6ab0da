"""Content of an app without HTTP, for tests that are about something else."""

import io
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from tandem.infra.blobs import Blobs
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.jobs import Jobs
from tandem.infra.secrets import SecretBox
from tandem.protocols import intunewin
from tandem.tenant import mobile_apps


def encrypted(package: bytes) -> tuple[bytes, intunewin.EncryptionInfo]:
    out = io.BytesIO()
    info = intunewin.seal([package], out)
    return out.getvalue(), info


async def publish(database: Database, blobs: Blobs, app_id: str, package: bytes, now: Clock) -> Any:
    """Upload, commit, verify and publish a package, as the calls of Graph do."""
    uploads = mobile_apps.Uploads(
        blobs, b"k" * 32, SecretBox(bytes(32)), Jobs(database.dsn), database, now
    )
    uploads.register()
    content, info = encrypted(package)
    async with database.transaction() as tx:
        app = await mobile_apps.app(tx, app_id)
        version = str(await uploads.add_version(tx, app))
        file = await uploads.add_file(
            tx,
            app,
            version,
            name="content",
            size_bytes=len(package),
            encrypted_bytes=len(content),
            manifest=None,
            is_dependency=False,
        )
    query = dict(pair.split("=", 1) for pair in uploads.query(file).split("&"))

    async def whole() -> AsyncIterator[bytes]:
        yield content

    await uploads.put_whole(file, query["se"], query["sig"], whole())
    async with database.transaction() as tx:
        await uploads.commit(tx, file, intunewin.show_info(info))
    await uploads.verify(file.id)
    at: datetime = now()
    async with database.transaction() as tx:
        return await mobile_apps.publish(tx, app_id, version, at)
