"""Packages on their way into the tenant.

    the browser's form -> a file that lies aside -> what it says of itself -> encrypted
    -> Graph: app, content version, file, blocks, commit

Nothing of a package is held in memory beyond one block, whatever its size. A sending that is cut
off or called back leaves nothing but an app without content, which the next sending fills.
"""

import asyncio
import contextlib
import tempfile
from base64 import b64encode
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from tandem.console.kit import N_, Page, Problem
from tandem.infra.errors import AppError, Invalid, Kind
from tandem.protocols import intunewin, msi

APPS = "/v1.0/deviceAppManagement/mobileApps"
MSI, WIN32 = "windowsMobileMSI", "win32LobApp"
# The service's own limit of one file, and some room for the form around it.
MOST_BYTES = 8 * 1024**3
_AROUND = 64 * 1024
_PIECE = 1024 * 1024
_BLOCK = 4 * 1024 * 1024
# How long a page waits for the service to have looked at a package.
_PATIENCE_SECONDS = 20.0

CHOOSE = N_("Choose a package first.")
CUT_OFF = N_("The package did not arrive whole, so nothing was kept.")
AGAIN = N_("Send it again.")
TOO_LARGE = N_("This package is larger than the 8 GB that an app's file may have.")
EMPTY = N_("This file is empty.")
WRONG_SORT = N_("An app is made of an MSI (.msi) or of a Win32 package (.intunewin).")
TAKE_THE_FILE = N_("Take the file that the site offers: ccmsetup.msi.")
NOT_MSI = N_("This is not a Windows Installer package that can be read: it is damaged or cut off.")
NOT_WIN32 = N_("This is not a Win32 package that can be read: it is damaged or cut off.")
MAKE_ANEW = N_("Make it anew with the packaging tool, or get it again, and send it whole.")
FAILED = N_("The package was refused: %(reason)s")
STILL_CHECKED = N_("The service is still checking the package.")
WAIT = N_("Wait a moment, then try again.")
OTHER_SORT = N_("This app's packages are of another sort: %(sort)s.")


# For whom a package installs; "either" is chosen when its app is made, and stays.
_CONTEXT = {
    msi.PackageType.PER_MACHINE: "device",
    msi.PackageType.PER_USER: "user",
    msi.PackageType.DUAL_PURPOSE: "either",
}


class CutOff(AppError):
    kind, code = Kind.INVALID, "console.cut-off"


async def received(page: Page[Any]) -> tuple[UploadFile | None, dict[str, str]]:
    """The file of a form, lying aside on disk, and the form's other fields. The caller closes it.

    Raises FormExpired, Problem, CutOff.
    """
    _ = page.session
    announced = page.request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MOST_BYTES + _AROUND:
        raise Problem("package", TOO_LARGE)
    parser = MultiPartParser(
        page.request.headers, _limited(page), max_files=1, max_fields=20, max_part_size=_AROUND
    )
    try:
        form = await parser.parse()
    except ClientDisconnect:
        _close(parser)
        raise CutOff(CUT_OFF, cure=AGAIN) from None
    except (MultiPartException, UnicodeDecodeError, KeyError, ValueError):
        raise Invalid(CUT_OFF, cure=AGAIN) from None
    except BaseException:
        _close(parser)
        raise
    found: UploadFile | None = None
    fields = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            found = value
        else:
            fields[name] = value
    if found is None and parser._files_to_close_on_error:
        # The file began, and the form ended without its last line.
        _close(parser)
        raise CutOff(CUT_OFF, cure=AGAIN)
    try:
        page.prove(fields.pop("form_token", ""))
    except AppError:
        if found is not None:
            await found.close()
        raise
    if found is not None and not found.filename:
        await found.close()
        found = None
    return found, fields


def _close(parser: MultiPartParser) -> None:
    for file in parser._files_to_close_on_error:
        file.close()


async def _limited(page: Page[Any]) -> AsyncGenerator[bytes, None]:
    came = 0
    async for piece in page.request.stream():
        came += len(piece)
        if came > MOST_BYTES + _AROUND:
            raise Problem("package", TOO_LARGE)
        yield piece


# ---------------------------------------------------------------------------------- what it says


class Package:
    """A package with what it says of itself, and its encrypted content."""

    def __init__(
        self,
        facts: dict[str, Any],
        content: BinaryIO | intunewin.Package,
        info: intunewin.EncryptionInfo,
        encrypted_bytes: int,
    ) -> None:
        self.facts = facts
        self.info = info
        self.encrypted_bytes = encrypted_bytes
        self._content = content

    def blocks(self) -> Iterator[bytes]:
        if isinstance(self._content, intunewin.Package):
            held = bytearray()
            for piece in self._content.content():
                held += piece
                while len(held) >= _BLOCK:
                    yield bytes(held[:_BLOCK])
                    del held[:_BLOCK]
            if held:
                yield bytes(held)
            return
        self._content.seek(0)
        while block := self._content.read(_BLOCK):
            yield block


def opened(file: BinaryIO, name: str, sealed: BinaryIO) -> Package:
    """Read a package, and encrypt it into `sealed` where it is not encrypted itself.

    Raises Problem, in words that say what is wrong with the file.
    """
    name = name.replace("\\", "/").rpartition("/")[2][:200]
    file.seek(0, 2)
    size = file.tell()
    file.seek(0)
    if not size:
        raise Problem("package", EMPTY)
    if name.lower().endswith(".msi"):
        return _msi(file, name, size, sealed)
    if name.lower().endswith(".intunewin"):
        return _win32(file, name)
    raise Problem("package", WRONG_SORT, cure=TAKE_THE_FILE)


def _msi(file: BinaryIO, name: str, size: int, sealed: BinaryIO) -> Package:
    try:
        read = msi.read(file)
    except AppError:
        raise Problem("package", NOT_MSI, cure=TAKE_THE_FILE) from None
    file.seek(0)
    info = intunewin.seal(_pieces(file), sealed)
    facts = {
        "type": MSI,
        "file": name,
        "size": size,
        "name": read.product_name,
        "publisher": read.manufacturer,
        "version": read.product_version,
        "product_code": read.product_code,
        "context": _CONTEXT[read.package_type],
    }
    return Package(facts, sealed, info, sealed.tell())


def _win32(file: BinaryIO, name: str) -> Package:
    try:
        read = intunewin.read_package(file)
    except AppError:
        raise Problem("package", NOT_WIN32, cure=MAKE_ANEW) from None
    inside = read.msi
    facts = {
        "type": WIN32,
        "file": read.file_name or name,
        "setup": read.setup_file,
        "size": read.size_bytes,
        "name": read.name,
        "publisher": inside.publisher if inside else "",
        "version": inside.product_version if inside else "",
        "product_code": inside.product_code if inside else "",
        "context": "device",
        "install": f'msiexec /i "{read.setup_file}" /qn' if inside else "",
        "uninstall": f"msiexec /x {inside.product_code} /qn" if inside else "",
    }
    return Package(facts, read, read.info, read.encrypted_bytes)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


# ---------------------------------------------------------------------------------- into Graph


async def sent(
    page: Page[Any], upload: UploadFile, app: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A package as a new content version of an app, which is made when there is none yet.

    What the package says, with `app` (its id), `content` (the version) and `content_file`. The
    service looks at it by itself afterwards: see `checked`. Raises Problem, or what Graph refuses.
    """
    # The encrypted copy lies aside as the package does.
    with tempfile.TemporaryFile() as sealed:
        package = await asyncio.to_thread(opened, upload.file, upload.filename or "", sealed)
        facts = package.facts
        if app is not None and app["type"] != facts["type"]:
            raise Problem("package", OTHER_SORT, sort=app["type"])
        sort = f"microsoft.graph.{facts['type']}"
        id = app["id"] if app is not None else await _made(page, facts)
        versions = f"{APPS}/{id}/{sort}/contentVersions"
        version = (await page.api.post(versions, {}))["id"]
        body = {
            "@odata.type": "#microsoft.graph.mobileAppContentFile",
            "name": facts["file"],
            "size": facts["size"],
            "sizeEncrypted": package.encrypted_bytes,
            "isDependency": False,
        }
        file = await page.api.post(f"{versions}/{version}/files", body)
        one = f"{versions}/{version}/files/{file['id']}"
        address = (await page.api.get(one))["azureStorageUri"]
        ids: list[str] = []
        blocks = package.blocks()
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            ids.append(b64encode(f"{len(ids):08d}".encode()).decode())
            put = f"{address}&comp=block&blockid={quote(ids[-1], safe='')}"
            await page.api.ask("PUT", put, content=_once(block))
            del block
        listed = "".join(f"<Latest>{block_id}</Latest>" for block_id in ids)
        await page.api.ask(
            "PUT",
            f"{address}&comp=blocklist",
            content=f"<BlockList>{listed}</BlockList>".encode(),
        )
        info = {"fileEncryptionInfo": intunewin.show_info(package.info)}
        await page.api.post(f"{one}/commit", info)
    return {**facts, "app": id, "content": version, "content_file": file["id"]}


async def _once(block: bytes) -> AsyncGenerator[bytes, None]:
    """A request is kept until the next collection of cycles; what it sent is not kept with it."""
    for at in range(0, len(block), _PIECE):
        yield block[at : at + _PIECE]


async def _made(page: Page[Any], facts: Mapping[str, Any]) -> str:
    """The app that the package is for: without its other properties yet, and assigned to nobody."""
    body = {
        "@odata.type": f"#microsoft.graph.{facts['type']}",
        "displayName": facts["name"] or facts["file"],
        "publisher": facts["publisher"],
        "fileName": facts["file"],
    }
    if facts["type"] == WIN32:
        body["setupFilePath"] = facts["setup"]
    return str((await page.api.post(APPS, body))["id"])


def content_path(facts: Mapping[str, Any]) -> str:
    version = f"{APPS}/{facts['app']}/microsoft.graph.{facts['type']}/contentVersions"
    return f"{version}/{facts['content']}/files/{facts['content_file']}"


async def state_of(page: Page[Any], facts: Mapping[str, Any]) -> tuple[str, str]:
    """Where a package stands that was sent: good, waiting or bad, and why."""
    file = await page.api.get(content_path(facts))
    state = str(file["uploadState"])
    if state == "commitFileSuccess":
        return "good", ""
    return ("waiting", "") if state == "commitFilePending" else ("bad", file.get("reason") or state)


async def checked(page: Page[Any], facts: Mapping[str, Any]) -> None:
    """Wait for the service to have looked at a package that was sent.

    Raises Problem for one that it refused, or that it has still not looked at.
    """
    pause, waited = 0.05, 0.0
    while True:
        state, reason = await state_of(page, facts)
        if state == "good":
            return
        if state == "bad":
            raise Problem("package", FAILED, cure=AGAIN, reason=reason)
        if waited >= _PATIENCE_SECONDS:
            raise Problem("package", STILL_CHECKED, cure=WAIT)
        await asyncio.sleep(pause)
        waited += pause
        pause = min(pause * 2, 1.0)


async def published(page: Page[Any], facts: Mapping[str, Any]) -> None:
    """Make a package that was sent the app's content. Raises as `checked`."""
    await checked(page, facts)
    body = {
        "@odata.type": f"#microsoft.graph.{facts['type']}",
        "committedContentVersion": facts["content"],
    }
    await page.api.patch(f"{APPS}/{facts['app']}", body)


async def newest(page: Page[Any], app: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest content of an app when that is not the one in force: on its way, or refused."""
    sort = str(app["@odata.type"]).rpartition(".")[2]
    if sort not in (MSI, WIN32):
        return None
    base = f"{APPS}/{app['id']}/microsoft.graph.{sort}/contentVersions"
    versions = (await page.api.get(base))["value"]
    numbers = sorted((int(item["id"]) for item in versions), reverse=True)
    if not numbers or str(numbers[0]) == str(app.get("committedContentVersion") or ""):
        return None
    files = (await page.api.get(f"{base}/{numbers[0]}/files"))["value"]
    if not files:
        return None
    return {
        "app": app["id"],
        "type": sort,
        "content": str(numbers[0]),
        "content_file": files[0]["id"],
        "name": files[0]["name"],
        "state": files[0]["uploadState"],
        "reason": files[0].get("reason") or "",
    }


async def forget(page: Page[Any], id: str) -> None:
    """An app that nobody needs: what was made for a package that is not wanted after all."""
    with contextlib.suppress(AppError):
        await page.api.delete(f"{APPS}/{id}")
