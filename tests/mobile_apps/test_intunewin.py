"""`.intunewin` packages: read, refused, and uploaded by the command as they are."""

import asyncio
import io
import zipfile
from pathlib import Path

import pytest
from test_mdm_commands import run

from app_content import win32_package
from command_world import signed_in
from mdm_world import live_mdm
from tandem.cli import context
from tandem.infra.database import Database
from tandem.protocols import intunewin
from tandem.tenant import mobile_apps

SETUP = b"MZ setup" * 5000


def test_a_package_says_what_it_is() -> None:
    read = intunewin.read_package(io.BytesIO(win32_package(SETUP, msi=True)))
    assert (read.name, read.setup_file, read.size_bytes) == ("Contoso Tool", "tool.msi", len(SETUP))
    assert read.msi is not None
    assert (read.msi.product_code, read.msi.publisher) == ("{1-2}", "Contoso")
    opener = intunewin.Opener(read.info)
    assert b"".join(map(opener.feed, read.content())) + opener.finish() == SETUP


def _zip(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"IntuneWinPackage/{name.replace('_', '/')}.xml", content)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ",
        win32_package(SETUP)[:-30],
        win32_package(SETUP, UnencryptedContentSize="many"),
        _zip(Metadata_Detection=b"<a>"),
        _zip(Metadata_Detection=b"<ApplicationInfo/>"),
        _zip(Metadata_Detection=b"<a>" + b" " * 300_000 + b"</a>"),
    ],
)
def test_what_is_no_package_is_refused(data: bytes) -> None:
    with pytest.raises(intunewin.BadPackage):
        intunewin.read_package(io.BytesIO(data))


async def test_the_command_uploads_a_package_as_it_is(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool.intunewin").write_bytes(win32_package(SETUP, msi=True))
    (tmp_path / "other.intunewin").write_bytes(win32_package(SETUP))
    # Longer than one block of the command's, so that there are several.
    (tmp_path / "large.intunewin").write_bytes(win32_package(bytes(20_000_000)))
    async with (
        live_mdm(tenant_db, tmp_path) as (mdm, root, _),
        signed_in(mdm.world, root, tmp_path, monkeypatch),
    ):
        made = await asyncio.to_thread(run, "app", "upload", str(tmp_path / "tool.intunewin"))
        assert (made["@odata.type"], made["displayName"], made["publishingState"]) == (
            "#microsoft.graph.win32LobApp",
            "Contoso Tool",
            "published",
        )
        assert made["installCommandLine"] == 'msiexec /i "tool.msi" /qn'
        assert made["rules"][0]["productCode"] == "{1-2}"
        other = str(tmp_path / "other.intunewin")
        with pytest.raises(context.Refused, match="does not say how it is installed"):
            await asyncio.to_thread(run, "app", "upload", other)
        words = ("--install", "setup /q", "--uninstall", "setup /x")
        detect = ("--detect-file", "C:\\Program Files\\Contoso\\tool.exe")
        large = await asyncio.to_thread(
            run, "app", "upload", str(tmp_path / "large.intunewin"), *words, *detect
        )
        assert large["rules"][0]["path"] == "C:\\Program Files\\Contoso"
        assert large["size"] == 20_000_000
        async with tenant_db.transaction() as tx:
            app = await mobile_apps.app(tx, made["id"])
        served = b"".join([piece async for piece in mdm.content.read(app, 0, app.size_bytes)])
        assert served == SETUP
