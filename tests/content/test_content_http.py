"""The MSI over HTTP, and the command that fetches it."""

from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from typer.testing import CliRunner

from tandem.cli import client as command
from tandem.infra import http
from tandem.infra.blobs import Blobs
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.protocols import msi
from tandem.site import administrators, content, properties


async def anyone(request: Request, role: object = None) -> administrators.Administrator:
    if "authorization" not in request.headers:
        raise administrators.NotSignedIn("You are not signed in.", cure="Sign in.")
    return administrators.Administrator(
        "siteadmin", administrators.Role.FULL_ADMINISTRATOR, utc_now()
    )


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> httpx.AsyncClient:
    box = SecretBox.open(tmp_path / "keys" / "key")
    async with site_db.transaction() as tx:
        await properties.establish(tx, box, code="CM1", name="Lab", now=utc_now())
    packages = content.ClientPackages(Blobs.open(tmp_path / "content"), utc_now, "1.2.3")
    app = http.application(content.routes(site_db, anyone, packages), role="site")
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="https://site")


async def test_the_msi_is_where_administrators_look_for_it(site: httpx.AsyncClient) -> None:
    answer = await site.get("/bin/i386/ccmsetup.msi")
    assert msi.read(answer.content).product_name == "ConfigMgr Client Setup Bootstrap"
    assert answer.headers["content-length"] == str(len(answer.content))
    etag = answer.headers["etag"]
    again = await site.get("/bin/i386/ccmsetup.msi", headers={"If-None-Match": etag})
    assert again.status_code == 304
    head = await site.head("/bin/i386/ccmsetup.msi")
    assert head.headers["content-length"] == str(len(answer.content))


async def test_administrators_read_what_it_is(site: httpx.AsyncClient) -> None:
    assert (await site.get("/api/v1/client-package")).status_code == 401
    answer = await site.get("/api/v1/client-package", headers={"Authorization": "Bearer x"})
    found = answer.json()
    package = (await site.get(found["path"])).content
    assert msi.read(package).product_code == found["product_code"]
    assert found["site_code"] == "CM1"
    assert found["client"]["file_name"].endswith(".whl")


def test_the_command_saves_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def get(self, path: str) -> object:
            if path.endswith(".msi"):
                return b"the package"
            return {
                "product_name": "ConfigMgr Client Setup Bootstrap",
                "product_code": "{A}",
                "version": "1.2.3",
                "site_code": "CM1",
                "sha256": "ab",
                "size_bytes": 11,
                "file_name": "ccmsetup.msi",
                "path": "/bin/i386/ccmsetup.msi",
                "windows_runtime_sha256": None,
            }

    monkeypatch.setattr(command, "site_client", Api)
    done = CliRunner().invoke(command.app, ["package", "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Product code  {A}" in done.output
    assert (tmp_path / "ccmsetup.msi").read_bytes() == b"the package"
    assert (
        '"saved"'
        in CliRunner()
        .invoke(command.app, ["package", "--json", "--output", str(tmp_path / "x.msi")])
        .output
    )
