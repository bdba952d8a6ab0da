"""Installing an MSI as the service orders it."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import httpx
import pytest

from tandem import pki
from tandem.agent.folder import Folder
from tandem.agent.mdm.applications import Applications, read_job
from tandem.agent.mdm.messages import Item
from tandem.infra.errors import Invalid
from tandem.protocols import msi
from tandem.site import content

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LINE = (
    'CCMSETUPCMD="CCMHOSTNAME=a.contoso.com/CCM_Proxy_MutualAuth/72057594037927941 SMSSITECODE=CM1"'
)


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.files: dict[str, bytes] = {}
        self.refusal: Invalid | None = None
        self.removed = False

    async def install(self, files: dict[str, bytes], command_line: str) -> None:
        if self.refusal:
            raise self.refusal
        self.files, self.lines = files, [*self.lines, command_line]

    async def remove(self) -> None:
        self.removed = True


@pytest.fixture(scope="module")
def package() -> bytes:
    root = pki.new_root(pki.name("Site"), now=NOW, days=9).certificate
    pem, digest = pki.pem(root), pki.sha256_fingerprint(root)
    return content.build_msi("1.2.3", "CM1", pem, digest, "b.whl", b"wheel").data


@pytest.fixture
def code(package: bytes) -> str:
    return msi.read(package).product_code


def job(code: str, sha256: str, retry: int = 0, *urls: str) -> str:
    places = "".join(f"<ContentURL>{u}</ContentURL>" for u in urls or ("https://t/c/x/a.msi",))
    return (
        f'<MsiInstallJob id="{code}"><Product Version="1.2.3"><Download><ContentURLList>{places}'
        f"</ContentURLList></Download><Validation><FileHash>{sha256.upper()}</FileHash></Validation>"
        f"<Enforcement><CommandLine>{escape(LINE)}</CommandLine><TimeOut>10</TimeOut><RetryCount>{retry}"
        "</RetryCount><RetryInterval>1</RetryInterval></Enforcement></Product></MsiInstallJob>"
    )


class Desk:
    """One device's applications, and a place that gives what the test says."""

    def __init__(self, folder: Path, *answers: bytes | int) -> None:
        self.recorder = Recorder()
        self.folder = folder
        self.answers = list(answers)
        self.apps = Applications(Folder(folder), self.recorder, lambda: NOW, lambda: None)
        self.asked: list[str] = []
        self.waits: list[float] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url}")
        if request.method == "HEAD":
            return httpx.Response(200)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return (
            httpx.Response(answer)
            if isinstance(answer, int)
            else httpx.Response(200, content=answer)
        )

    async def order(self, code: str, data: str) -> int:
        uri = ("MSI", code, "DownloadInstall")
        self.apps.write(uri, Item(), add=True)
        return self.apps.run(uri, Item(data=data))

    async def work(self) -> None:
        async def wait(minutes: float) -> None:
            self.waits.append(minutes)

        async with httpx.AsyncClient(transport=httpx.MockTransport(self._answer)) as http:
            await self.apps.work(http, wait)

    def leaf(self, code: str, name: str) -> str:
        found = self.apps.get(("MSI", code, name))
        assert found
        return found.text


async def test_the_bootstrap_gets_exactly_the_command_line_that_arrived(
    package: bytes, code: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, package)
    assert await desk.order(code, job(code, hashlib.sha256(package).hexdigest())) == 202
    await desk.work()
    assert desk.recorder.lines == [LINE]
    assert desk.recorder.files["bootstrap.whl"] == b"wheel"
    assert desk.asked == ["HEAD https://t/c/x/a.msi", "GET https://t/c/x/a.msi"]
    assert desk.leaf(code, "Status") == "70"
    assert desk.leaf(code, "Version") == "1.2.3"
    ((done, alert),) = desk.apps.news()
    assert "win32csp_install" in alert.items[0].type
    assert alert.items[0].data == "0"
    desk.apps.told([done])
    assert not desk.apps.news()


async def test_an_installed_product_is_not_installed_again(
    package: bytes, code: str, tmp_path: Path
) -> None:
    order = job(code, hashlib.sha256(package).hexdigest())
    desk = Desk(tmp_path, package)
    await desk.order(code, order)
    await desk.work()
    again = Desk(tmp_path, package)
    assert await again.order(code, order) == 200
    await again.work()
    assert again.recorder.lines == []
    assert again.apps.news()


@pytest.mark.parametrize(
    ("answer", "digest", "status", "error"),
    [
        (404, "", "30", "0x80190194"),
        (b"other bytes", "", "30", "0x80091007"),
        (b"not an msi", hashlib.sha256(b"not an msi").hexdigest(), "60", "0x80070654"),
    ],
)
async def test_what_goes_wrong_has_its_status_and_number(
    package: bytes,
    code: str,
    tmp_path: Path,
    answer: bytes | int,
    digest: str,
    status: str,
    error: str,
) -> None:
    desk = Desk(tmp_path, answer)
    await desk.order(code, job(code, digest or hashlib.sha256(package).hexdigest()))
    await desk.work()
    assert desk.leaf(code, "Status") == status
    assert int(desk.leaf(code, "LastError")) & 0xFFFFFFFF == int(error, 16)
    assert desk.leaf(code, "LastErrorDesc")
    assert "c/x" not in desk.leaf(code, "LastErrorDesc")
    assert desk.recorder.lines == []


async def test_a_package_of_another_product_is_refused(package: bytes, tmp_path: Path) -> None:
    other = "{00000000-0000-0000-0000-000000000001}"
    desk = Desk(tmp_path, package)
    await desk.order(other, job(other, hashlib.sha256(package).hexdigest()))
    await desk.work()
    assert desk.leaf(other, "Status") == "60"


async def test_trouble_is_tried_again_as_often_as_ordered(
    package: bytes, code: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, 503, 503, package)
    await desk.order(code, job(code, hashlib.sha256(package).hexdigest(), 2))
    await desk.work()
    assert desk.waits == [1, 1]
    assert desk.leaf(code, "Status") == "70"


async def test_a_restart_goes_on_with_what_was_ordered(
    package: bytes, code: str, tmp_path: Path
) -> None:
    await Desk(tmp_path, package).order(code, job(code, hashlib.sha256(package).hexdigest()))
    desk = Desk(tmp_path, package)
    await desk.work()
    assert desk.recorder.lines == [LINE]


async def test_a_refused_setup_is_a_failed_installation(
    package: bytes, code: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, package)
    desk.recorder.refusal = Invalid("The package carries no trusted root key.")
    await desk.order(code, job(code, hashlib.sha256(package).hexdigest()))
    await desk.work()
    assert desk.leaf(code, "Status") == "60"
    assert "trusted root" in desk.leaf(code, "LastErrorDesc")


async def test_an_order_that_cannot_be_read_is_refused_at_once(code: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, 404)
    for bad in ("", "<x/>", "<MsiInstallJob/>", job(code, "0").replace(">10<", ">1000<")):
        assert await desk.order(code, bad) == 400
    assert desk.apps.run(("MSI", "{NONE}", "DownloadInstall"), Item()) == 404


def test_the_job_of_a_real_service_is_read(samples: Path) -> None:
    from tandem.agent.mdm import messages

    raw = (samples / "mdm" / "s2d-msi-install-device.xml").read_bytes()
    raw = raw.replace(b"<SyncBody", b"<SyncHdr/><SyncBody", 1)
    jobs = [
        item.data
        for command in messages.read(raw).commands
        for inner in (command, *command.children)
        for item in inner.items
        if inner.name == "Exec" and item.data
    ]
    assert jobs
    assert read_job(jobs[0]).product_code.startswith("{")


async def test_a_deleted_product_is_removed_from_the_device(
    package: bytes, code: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, package)
    await desk.order(code, job(code, hashlib.sha256(package).hexdigest()))
    await desk.work()
    assert desk.apps.delete(("MSI", code)) == 200
    assert desk.apps.has_work
    await desk.work()
    assert desk.recorder.removed
    assert desk.apps.get(("MSI", code)) is None
    assert desk.apps.delete(("MSI", code)) == 404
