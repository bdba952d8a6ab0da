"""Content of apps over Graph and signed URLs, as uploaders send it: whole, wrong, twice, late."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest

from app_content import encrypted
from mdm_world import Mdm, mdm_service
from tandem.infra.blobs import Blobs
from tandem.infra.database import Database
from tandem.infra.errors import Kind
from tandem.protocols import intunewin
from tandem.tenant.mobile_apps import uploads_http

APPS = "deviceAppManagement/mobileApps"
GRAPH = "#microsoft.graph."


@pytest.fixture
async def mdm(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Mdm]:
    async with mdm_service(tenant_db, tmp_path) as made, made.working():
        yield made


class Uploader:
    """The calls of an uploader, for one file of one app."""

    def __init__(self, mdm: Mdm, app: dict[str, Any], files: str, file: dict[str, Any]) -> None:
        self.mdm, self.app, self.files, self.file = mdm, app, files, file
        self.url = ""

    @classmethod
    async def begin(
        cls, mdm: Mdm, size: int, encrypted_size: int, sort: str = "windowsMobileMSI"
    ) -> "Uploader":
        body = {"@odata.type": f"{GRAPH}{sort}", "displayName": "", "fileName": "client.msi"}
        app = (await mdm.graph("POST", APPS, body)).json()
        versions = f"{APPS}/{app['id']}/microsoft.graph.{sort}/contentVersions"
        made = await mdm.graph("POST", versions, {})
        assert made.status_code == 201, made.text
        files = f"{versions}/{made.json()['id']}/files"
        answer = await mdm.graph(
            "POST",
            files,
            {
                "@odata.type": f"{GRAPH}mobileAppContentFile",
                "name": "client.msi",
                "size": size,
                "sizeEncrypted": encrypted_size,
                "manifest": b64encode(b"<MobileMsiData/>").decode(),
                "isDependency": False,
            },
        )
        assert answer.status_code == 201, answer.text
        assert answer.json()["uploadState"] == "azureStorageUriRequestPending"
        assert answer.json()["azureStorageUri"] is None
        self = cls(mdm, app, files, answer.json())
        await self.read()
        return self

    async def read(self) -> dict[str, Any]:
        answer = await self.mdm.graph("GET", f"{self.files}/{self.file['id']}")
        assert answer.status_code == 200, answer.text
        self.file = answer.json()
        self.url = self.file["azureStorageUri"] or self.url
        return self.file

    async def put(self, query: str, content: Any, **headers: str) -> Any:
        return await self.mdm.world.client.put(self.url + query, content=content, headers=headers)

    async def block(self, number: int, content: bytes) -> Any:
        id = b64encode(f"{number:04d}".encode()).decode().replace("=", "%3D")
        return await self.put(f"&comp=block&blockid={id}", content)

    async def list(self, *numbers: int) -> Any:
        ids = [b64encode(f"{n:04d}".encode()).decode() for n in numbers]
        latest = "".join(f"<Latest>{id}</Latest>" for id in ids)
        return await self.put(
            "&comp=blocklist", f'<?xml version="1.0"?><BlockList>{latest}</BlockList>'
        )

    async def commit(self, info: intunewin.EncryptionInfo) -> dict[str, Any]:
        """The file's last state."""
        body = {"fileEncryptionInfo": intunewin.show_info(info)}
        answer = await self.mdm.graph("POST", f"{self.files}/{self.file['id']}/commit", body)
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(30):
            while (await self.read())["uploadState"] == "commitFilePending":
                await asyncio.sleep(0.02)
        return self.file

    async def publish(self) -> Any:
        body = {"@odata.type": self.app["@odata.type"], "committedContentVersion": "1"}
        return await self.mdm.graph("PATCH", f"{APPS}/{self.app['id']}", body)

    async def shown(self) -> dict[str, Any]:
        return dict((await self.mdm.graph("GET", f"{APPS}/{self.app['id']}")).json())


def staged(folder: Path) -> list[Path]:
    return [path for path in (folder / "content" / "staging").rglob("*") if path.is_file()]


async def test_blocks_in_parallel_and_twice_make_the_app(
    mdm: Mdm, package: bytes, tmp_path: Path
) -> None:
    content, info = encrypted(package)
    upload = await Uploader.begin(mdm, len(package), len(content))
    assert upload.file["uploadState"] == "azureStorageUriRequestSuccess"
    assert upload.url.startswith(mdm.world.tokens.settings.base + "/")
    assert "?" in upload.url
    third = len(content) // 3
    parts = [content[:third], content[third : 2 * third], content[2 * third :]]
    answers = await asyncio.gather(
        upload.block(2, parts[2]),
        upload.block(0, b"of an earlier try"),
        upload.block(1, parts[1]),
    )
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert (await upload.block(0, parts[0])).status_code == 201
    assert (await upload.list(0, 1, 2)).status_code == 201
    head = await mdm.world.client.head(upload.url)
    assert head.headers["content-length"] == str(len(content))
    assert (await upload.publish()).status_code == 400, "nothing is committed yet"
    file = await upload.commit(info)
    assert (file["uploadState"], file["isCommitted"]) == ("commitFileSuccess", True)
    assert file["azureStorageUri"] is None
    assert file["manifest"] == b64encode(b"<MobileMsiData/>").decode()
    assert (await upload.publish()).status_code == 204
    app = await upload.shown()
    assert (app["publishingState"], app["committedContentVersion"]) == ("published", "1")
    assert (app["displayName"], app["productVersion"]) == ("Client Setup", "1.2.3")
    assert app["size"] == len(package)
    async with asyncio.timeout(10):
        while staged(tmp_path):
            await asyncio.sleep(0.02)


async def test_what_a_device_gets_is_the_plaintext(mdm: Mdm, package: bytes) -> None:
    content, info = encrypted(package)
    upload = await Uploader.begin(mdm, len(package), len(content))
    answer = await upload.put("", content, **{"x-ms-blob-type": "BlockBlob"})
    assert answer.status_code == 201
    assert (await upload.commit(info))["uploadState"] == "commitFileSuccess"
    await upload.publish()
    async with mdm.database.transaction() as tx:
        from tandem.tenant import mobile_apps

        app = await mobile_apps.app(tx, upload.app["id"])
    served = await mdm.world.client.get(await mdm.content.link(app, mdm.world.at))
    assert served.content == package


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE = {
    "ciphertext": (lambda c: _flipped(c, len(c) // 2), "MAC does not fit"),
    "mac": (lambda c: _flipped(c, 3), "MAC does not fit"),
    "iv": (lambda c: _flipped(c, 40), "MAC does not fit"),
    "truncated": (lambda c: c[:-16], "were uploaded"),
    "tiny": (lambda c: c[:20], "were uploaded"),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_damaged_content_fails_the_commit_and_says_why(
    mdm: Mdm, package: bytes, what: str
) -> None:
    content, info = encrypted(package)
    change, why = DAMAGE[what]
    upload = await Uploader.begin(mdm, len(package), len(content))
    await upload.block(0, change(content))
    await upload.list(0)
    file = await upload.commit(info)
    assert (file["uploadState"], file["isCommitted"]) == ("commitFileFailed", False)
    assert why in file["reason"]
    assert (await upload.publish()).status_code == 400
    assert (await upload.shown())["publishingState"] == "notPublished"
    # A new beginning is possible, and the old URL is void.
    old = upload.url
    answer = await mdm.graph("POST", f"{upload.files}/{file['id']}/renewUpload", {})
    assert answer.status_code in (200, 204)
    assert (await upload.read())["uploadState"] == "azureStorageUriRenewalSuccess"
    assert (await mdm.world.client.put(old + "&comp=blocklist", content=b"")).status_code == 403
    await upload.block(0, content)
    await upload.list(0)
    assert (await upload.commit(info))["uploadState"] == "commitFileSuccess"


@pytest.fixture
def tidying(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """What was staged is dropped only from this event on, as with a worker that is busy."""
    gate, unstage = asyncio.Event(), Blobs.unstage

    async def later(self: Blobs, prefix: str) -> None:
        await gate.wait()
        await unstage(self, prefix)

    monkeypatch.setattr(Blobs, "unstage", later)
    return gate


async def test_tidying_up_late_does_not_drop_what_came_since(
    tidying: asyncio.Event, mdm: Mdm, package: bytes, tmp_path: Path
) -> None:
    content, info = encrypted(package)
    upload = await Uploader.begin(mdm, len(package), len(content))
    await upload.block(0, _flipped(content, 40))
    await upload.list(0)
    assert (await upload.commit(info))["uploadState"] == "commitFileFailed"
    await mdm.graph("POST", f"{upload.files}/{upload.file['id']}/renewUpload", {})
    await upload.read()
    await upload.block(0, content)
    await upload.list(0)
    assert len(staged(tmp_path)) == 2
    tidying.set()
    async with asyncio.timeout(10):
        while len(staged(tmp_path)) == 2:
            await asyncio.sleep(0.02)
    assert (await upload.commit(info))["uploadState"] == "commitFileSuccess"


async def test_sizes_and_digest_that_were_announced_are_held_to(mdm: Mdm, package: bytes) -> None:
    content, info = encrypted(package)
    other = intunewin.EncryptionInfo(
        info.encryption_key, info.mac_key, info.initialization_vector, info.mac, bytes(32)
    )
    for size, said, why in (
        (len(package), other, "file digest"),
        (len(package) - 1, info, "were announced"),
    ):
        upload = await Uploader.begin(mdm, size, len(content))
        await upload.block(0, content)
        await upload.list(0)
        assert why in (await upload.commit(said))["reason"]
    nothing = await Uploader.begin(mdm, len(package), len(content))
    assert (await nothing.commit(info))["uploadState"] == "commitFileFailed"


async def test_a_wrong_package_fails_the_commit(mdm: Mdm) -> None:
    package = b"MZ no package" * 99
    content, info = encrypted(package)
    upload = await Uploader.begin(mdm, len(package), len(content))
    await upload.block(0, content)
    await upload.list(0)
    file = await upload.commit(info)
    assert file["uploadState"] == "commitFileFailed"
    assert "not a Windows Installer package" in file["reason"]


async def test_more_than_was_announced_is_refused_while_it_comes(mdm: Mdm) -> None:
    upload = await Uploader.begin(mdm, 100, 160)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(1024)

    for answer in (
        await upload.put("&comp=block&blockid=MDAwMA==", bytes(161)),
        await upload.put("&comp=block&blockid=MDAwMA==", endless()),
        await upload.put("", endless(), **{"x-ms-blob-type": "BlockBlob"}),
    ):
        assert answer.status_code == 413
        assert answer.headers["x-ms-error-code"] == "RequestBodyTooLarge"


async def test_refusals_are_the_storage_service_s(mdm: Mdm) -> None:
    upload = await Uploader.begin(mdm, 100, 160)
    await upload.block(0, b"x")
    cases = [
        (await upload.put("&comp=block&blockid=***", b"x"), 400, "InvalidBlobOrBlock"),
        (await upload.put("&comp=block&blockid=MDA=", b"x"), 400, "InvalidBlobOrBlock"),
        (await upload.list(7), 400, "InvalidBlockList"),
        (await upload.put("&comp=blocklist", b"<not"), 400, "InvalidXmlDocument"),
        (await upload.put("&comp=blocklist", b"<Other/>"), 400, "InvalidXmlDocument"),
        (
            await upload.put(
                "&comp=blocklist",
                b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
                b"<BlockList><Latest>&e;</Latest></BlockList>",
            ),
            400,
            "InvalidBlockList",
        ),
        (await upload.put("&comp=lease", b""), 400, "InvalidQueryParameterValue"),
        (await upload.put("", b"x"), 400, "MissingRequiredHeader"),
        (
            await upload.put("&comp=block&blockid=MDAwMA==", b"x", **{"content-md5": "AAAA"}),
            400,
            "Md5Mismatch",
        ),
        (await mdm.world.client.delete(upload.url), 405, "UnsupportedHttpVerb"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (status, code)
        assert ElementTree.fromstring(answer.content).findtext("Code") == code


async def test_only_the_signed_url_opens_and_only_in_its_time(mdm: Mdm) -> None:
    upload = await Uploader.begin(mdm, 100, 160)
    other = await Uploader.begin(mdm, 100, 160)
    parts = urlsplit(upload.url)
    stolen = urlsplit(other.url)
    wrong = [
        f"{parts.path}",
        f"{parts.path}?{stolen.query}",
        f"{parts.path}?{parts.query.replace('sig=', 'sig=A')}",
        f"{parts.path}?{parts.query.replace('se=2026', 'se=2036')}",
        f"{uploads_http.PATH}/nothing?{parts.query}",
    ]
    for url in wrong:
        answer = await mdm.world.client.put(url, content=b"x")
        assert answer.status_code == 403
        assert answer.headers["x-ms-error-code"] == "AuthenticationFailed"
    mdm.world.wait(hours=3)
    assert (await upload.block(0, b"x")).status_code == 403
    await mdm.graph("POST", f"{upload.files}/{upload.file['id']}/renewUpload", {})
    await upload.read()
    assert (await upload.block(0, b"x")).status_code == 201


async def test_nothing_is_put_or_committed_again_after_the_commit(mdm: Mdm, package: bytes) -> None:
    content, info = encrypted(package)
    upload = await Uploader.begin(mdm, len(package), len(content))
    await upload.block(0, content)
    await upload.list(0)
    await upload.commit(info)
    assert (await upload.block(0, content)).status_code == 403
    one = f"{upload.files}/{upload.file['id']}"
    body = {"fileEncryptionInfo": intunewin.show_info(info)}
    assert (await mdm.graph("POST", f"{one}/commit", body)).status_code == 409
    assert (await mdm.graph("POST", f"{one}/renewUpload", {})).status_code == 409
    assert (await upload.read())["isCommitted"] is True


async def test_keys_are_sealed_until_they_are_used_and_in_no_log(
    mdm: Mdm, package: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    content, info = encrypted(package)
    upload = await Uploader.begin(mdm, len(package), len(content))
    await upload.block(0, content)
    await upload.list(0)
    secret = b64encode(info.encryption_key).decode()
    body = {"fileEncryptionInfo": intunewin.show_info(info)}
    await mdm.graph("POST", f"{upload.files}/{upload.file['id']}/commit", body)
    async with mdm.database.transaction() as tx:
        rows = await (await tx.execute("SELECT sealed FROM mobile_apps_file")).fetchall()
        audited = await (await tx.execute("SELECT details FROM audit_entry")).fetchall()
    for row in rows:
        assert info.encryption_key not in bytes(row["sealed"] or b"")
        assert secret.encode() not in bytes(row["sealed"] or b"")
    assert secret not in json.dumps([row["details"] for row in audited], default=str)
    async with asyncio.timeout(30):
        while (await upload.read())["uploadState"] == "commitFilePending":
            await asyncio.sleep(0.02)
    async with mdm.database.transaction() as tx:
        rows = await (await tx.execute("SELECT sealed FROM mobile_apps_file")).fetchall()
    assert [row["sealed"] for row in rows] == [None]
    logged = capsys.readouterr()
    signature = upload.url.rpartition("sig=")[2]
    assert secret not in logged.out + logged.err
    assert signature not in logged.out + logged.err


async def test_encryption_info_that_is_none_is_refused_at_once(mdm: Mdm) -> None:
    upload = await Uploader.begin(mdm, 100, 160)
    one = f"{upload.files}/{upload.file['id']}/commit"
    good = intunewin.show_info(encrypted(b"x" * 100)[1])
    for change in ({"encryptionKey": "AA=="}, {"mac": "no"}, {"profileIdentifier": "V9"}):
        answer = await mdm.graph("POST", one, {"fileEncryptionInfo": {**good, **change}})
        assert answer.status_code == 400, change
        assert "AA==" not in answer.text
    assert (await mdm.graph("POST", one, {})).status_code == 400


def test_no_kind_of_refusal_is_missing() -> None:
    assert set(uploads_http.CODES) == set(Kind)
