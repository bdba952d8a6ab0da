"""EnterpriseDesktopAppManagement: MSI packages that the service wants installed (spec 12.3)."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from tandem.agent.folder import Folder
from tandem.agent.mdm import xml
from tandem.agent.mdm.messages import Command, Item
from tandem.agent.mdm.model import BadAnswer
from tandem.agent.mdm.tree import (
    ACCEPTED,
    BAD,
    EXISTS,
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    Path,
    Store,
    Value,
)
from tandem.infra.clock import Clock
from tandem.infra.errors import AppError
from tandem.protocols import msi

MAX_DOWNLOAD_BYTES = 512 * 1024 * 1024
_FILE = "applications.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")

# Status of a job, in the field's numbers.
INITIALIZED, DOWNLOADING, DOWNLOAD_RETRY, DOWNLOAD_FAILED, DOWNLOADED = 10, 20, 25, 30, 40
ENFORCING, ENFORCE_RETRY, ENFORCE_FAILED, COMPLETED = 50, 55, 60, 70
_OVER = (DOWNLOAD_FAILED, ENFORCE_FAILED, COMPLETED)

# What Windows reports for the same trouble (HRESULT).
NO_CONNECTION = 0x80072EFD
WRONG_HASH = 0x80091007
BAD_PACKAGE = 0x80070654
FATAL = 0x80070643
OTHER_PRODUCT = 0x80070645


class Job(msgspec.Struct):
    """One package. `due` is when to try again after trouble."""

    product_code: str
    version: str = ""
    urls: list[str] = []
    sha256: str = ""
    command_line: str = ""
    retry_count: int = 0
    retry_minutes: int = 0
    status: int = 0
    last_error: int = 0
    last_error_text: str = ""
    attempts: int = 0
    name: str = ""
    publisher: str = ""
    installed_version: str = ""
    upgrade_code: str = ""
    installed_at: datetime | None = None
    reported: bool = False

    @property
    def is_over(self) -> bool:
        return self.status in _OVER


class Failure(AppError):
    code = "mdm.install-failed"

    def __init__(self, status: int, hresult: int, message: str) -> None:
        super().__init__(message, hresult=f"0x{hresult:08X}")
        self.status = status
        self.hresult = hresult


class Installer(Protocol):
    """Installs a package that was checked. `files` are those inside it."""

    async def install(self, files: dict[str, bytes], command_line: str) -> None:
        """Raises AppError."""
        ...

    async def remove(self) -> None: ...


class Applications:
    """The branch `./Vendor/MSFT/EnterpriseDesktopAppManagement`, and the work behind it."""

    def __init__(
        self, folder: Folder, installer: Installer, now: Clock, started: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._installer = installer
        self._now = now
        self._started = started
        # A product that the service deleted, until its removal is done.
        self._removing = False
        kept = folder.read(_FILE)
        self.jobs: dict[str, Job] = msgspec.json.decode(kept or b"{}", type=dict[str, Job])

    def save(self) -> None:
        self._folder.write(_FILE, msgspec.json.encode(self.jobs))

    @property
    def waiting(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.sha256 and not job.is_over]

    @property
    def has_work(self) -> bool:
        return self._removing or bool(self.waiting)

    # The branch of the tree.

    def get(self, path: Path) -> Value | None:
        match [part.lower() for part in path]:
            case []:
                return Value.node(["MSI"])
            case ["msi"]:
                return Value.node([*self.jobs])
            case ["msi", "upgradecode", code]:
                same = [j for j in self.jobs.values() if j.upgrade_code.lower() == code]
                return Value(same[0].product_code) if same else None
            case ["msi", code]:
                return Value.node([*self._leaves(code)]) if code.upper() in self.jobs else None
            case ["msi", code, name]:
                leaves = {key.lower(): value for key, value in self._leaves(code).items()}
                return leaves.get(name)
        return None

    def _leaves(self, code: str) -> dict[str, Value]:
        job = self.jobs.get(code.upper())
        if job is None:
            return {}
        signed = job.last_error - (1 << 32) if job.last_error >= 1 << 31 else job.last_error
        leaves = {
            "Status": Value(str(job.status), "int"),
            "LastError": Value(str(signed), "int"),
            "LastErrorDesc": Value(job.last_error_text),
            "DownloadInstall": Value(""),
        }
        if job.status == COMPLETED and job.installed_at is not None:
            leaves |= {
                "Version": Value(job.installed_version),
                "Name": Value(job.name),
                "Publisher": Value(job.publisher),
                "InstallPath": Value(r"C:\Program Files\CcmSetup"),
                "InstallDate": Value(job.installed_at.isoformat()),
            }
        return leaves

    def write(self, path: Path, item: Item, *, add: bool) -> int:
        match [part.lower() for part in path]:
            case ["msi", code, "downloadinstall"]:
                known = self.jobs.get(code.upper())
                if known is not None and add:
                    return EXISTS
                self.jobs.setdefault(code.upper(), Job(code.upper()))
                self.save()
                return OK
        return NOT_ALLOWED

    def delete(self, path: Path) -> int:
        match [part.lower() for part in path]:
            case ["msi", code] | ["msi", code, "downloadinstall"] if code.upper() in self.jobs:
                job = self.jobs.pop(code.upper())
                self._removing = self._removing or job.status == COMPLETED
                self.save()
                self._started()
                return OK
        return NOT_FOUND

    def run(self, path: Path, item: Item) -> int:
        match [part.lower() for part in path]:
            case ["msi", code, "downloadinstall"] if code.upper() in self.jobs:
                return self._order(self.jobs[code.upper()], item.data or "")
        return NOT_FOUND

    @property
    def stores(self) -> tuple[Store, ...]:
        return ()

    def _order(self, before: Job, data: str) -> int:
        if before.status == COMPLETED:
            # The product is installed: the command changes nothing, and its end is told again.
            before.reported = False
            self.save()
            self._started()
            return OK
        try:
            wanted = read_job(data)
        except (BadAnswer, ValueError):
            return BAD
        if wanted.product_code != before.product_code:
            return BAD
        self.jobs[wanted.product_code] = wanted
        self.save()
        self._started()
        return ACCEPTED

    # News for the service.

    def news(self) -> list[tuple[Job, Command]]:
        """An alert for each job that is over and was not told of."""
        found = []
        for job in self.jobs.values():
            if not job.is_over or job.reported:
                continue
            signed = job.last_error - (1 << 32) if job.last_error >= 1 << 31 else job.last_error
            code = job.product_code.replace("{", "%7B").replace("}", "%7D")
            item = Item(
                source=f"./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{code}/DownloadInstall",
                type="Reversed-Domain-Name:com.microsoft.mdm.win32csp_install",
                format="int",
                data=str(signed),
            )
            found.append((job, Command("Alert", "", (item,), data="1226")))
        return found

    def told(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.reported = True
        if jobs:
            self.save()

    # The work.

    async def work(
        self, http: httpx.AsyncClient, wait: Callable[[float], Awaitable[object]]
    ) -> None:
        """Remove, download and install what waits. `wait` takes minutes."""
        if self._removing:
            self._removing = False
            await self._installer.remove()
        for job in self.waiting:
            while not job.is_over and self.jobs.get(job.product_code) is job:
                try:
                    await self._attempt(http, job)
                except Failure as failure:
                    job.last_error = failure.hresult
                    job.last_error_text = failure.message
                    job.attempts += 1
                    if job.attempts > job.retry_count:
                        job.status = failure.status
                    else:
                        download = failure.status == DOWNLOAD_FAILED
                        job.status = DOWNLOAD_RETRY if download else ENFORCE_RETRY
                        self.save()
                        await wait(job.retry_minutes)
                self.save()

    async def _attempt(self, http: httpx.AsyncClient, job: Job) -> None:
        job.status = DOWNLOADING
        self.save()
        data = await download(http, job)
        job.status = DOWNLOADED
        self.save()
        try:
            properties, files = msi.read(data), msi.extract(data)
        except msi.BadMsi as error:
            raise Failure(ENFORCE_FAILED, BAD_PACKAGE, error.message) from None
        if properties.product_code != job.product_code:
            raise Failure(
                ENFORCE_FAILED,
                OTHER_PRODUCT,
                f"The package is product {properties.product_code}, not {job.product_code}.",
            )
        job.status = ENFORCING
        self.save()
        try:
            await self._installer.install(files, job.command_line)
        except AppError as error:
            raise Failure(ENFORCE_FAILED, FATAL, f"{error.message} {error.cure}".strip()) from None
        job.name, job.publisher = properties.product_name, properties.manufacturer
        job.installed_version = properties.product_version
        job.upgrade_code = properties.upgrade_code
        job.installed_at = self._now()
        job.status, job.last_error, job.last_error_text = COMPLETED, 0, ""


async def download(http: httpx.AsyncClient, job: Job) -> bytes:
    """The package from the first place that gives the right bytes. Raises Failure."""
    last = Failure(DOWNLOAD_FAILED, NO_CONNECTION, "The job names no place to download from.")
    for url in job.urls:
        try:
            data = await _fetch(http, url)
        except Failure as failure:
            last = failure
            continue
        if hashlib.sha256(data).hexdigest() == job.sha256:
            return data
        last = Failure(
            DOWNLOAD_FAILED,
            WRONG_HASH,
            "The downloaded package has not the hash that was announced.",
        )
    raise last


async def _fetch(http: httpx.AsyncClient, url: str) -> bytes:
    # The address carries a signature that is nobody's business.
    place = urlsplit(url).netloc
    try:
        head = await http.head(url)
        length = int(head.headers.get("content-length", "0"))
        if head.is_success and length > MAX_DOWNLOAD_BYTES:
            raise Failure(DOWNLOAD_FAILED, NO_CONNECTION, "The package is too large.")
        data = b""
        async with http.stream("GET", url) as response:
            if response.status_code != 200:
                raise Failure(
                    DOWNLOAD_FAILED,
                    0x80190000 + response.status_code,
                    f"{place} answers {response.status_code} to the download.",
                )
            chunks = []
            size = 0
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > MAX_DOWNLOAD_BYTES:
                    raise Failure(DOWNLOAD_FAILED, NO_CONNECTION, "The package is too large.")
                chunks.append(chunk)
            data = b"".join(chunks)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Failure(
            DOWNLOAD_FAILED, NO_CONNECTION, f"{place} does not answer: {type(error).__name__}."
        ) from None
    return data


def read_job(data: str) -> Job:
    """A MsiInstallJob. Raises BadAnswer or ValueError."""
    root = xml.parse(data.encode())
    product = xml.find(root, "Product")
    if xml.local(root) != "MsiInstallJob" or product is None:
        raise ValueError("not a job")
    urls = [xml.text(item) for item in product.iter() if xml.local(item) == "ContentURL"]
    enforcement = xml.find(product, "Enforcement")

    def small(name: str) -> int:
        text = xml.text(None if enforcement is None else xml.find(enforcement, name))
        value = int(text or 0)
        if not 0 <= value <= 255:
            raise ValueError(f"{name} is not an unsigned byte")
        return value

    small("TimeOut")
    # A job that no file can satisfy is refused where it is ordered, not left waiting for ever.
    sha256 = xml.text(xml.find(product, "Validation", "FileHash")).lower()
    if not _SHA256.fullmatch(sha256):
        raise ValueError("FileHash is not a SHA-256 in hexadecimal")
    line = None if enforcement is None else xml.find(enforcement, "CommandLine")
    return Job(
        root.get("id", "").strip().upper(),
        product.get("Version", ""),
        [url for url in urls if url],
        sha256,
        # Kept as it came: the bootstrap gets exactly this.
        "" if line is None else (line.text or ""),
        small("RetryCount"),
        small("RetryInterval"),
        INITIALIZED,
    )
