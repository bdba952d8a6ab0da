"""Content of an app without HTTP, for tests that are about something else."""

import io
import zipfile
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from lxml import etree

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


def win32_package(content: bytes, msi: bool = False, **change: str) -> bytes:
    """A package as the content prep tool writes it."""
    sealed, info = encrypted(content)
    shown = intunewin.show_info(info)
    root = etree.Element("ApplicationInfo", ToolVersion="1.8.6.0")
    facts = {
        "Name": "Contoso Tool",
        "UnencryptedContentSize": str(len(content)),
        "FileName": "IntunePackage.intunewin",
        "SetupFile": "tool.msi" if msi else "setup.exe",
        **change,
    }
    for name, value in facts.items():
        etree.SubElement(root, name).text = value
    inner = etree.SubElement(root, "EncryptionInfo")
    for name, value in shown.items():
        etree.SubElement(inner, name[0].upper() + name[1:]).text = value
    if msi:
        product = etree.SubElement(root, "MsiInfo")
        etree.SubElement(product, "MsiProductCode").text = "{1-2}"
        etree.SubElement(product, "MsiPublisher").text = "Contoso"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("IntuneWinPackage/Metadata/Detection.xml", etree.tostring(root))
        archive.writestr("IntuneWinPackage/Contents/IntunePackage.intunewin", sealed)
    return out.getvalue()
