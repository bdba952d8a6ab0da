import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mdm_world import Mdm, mdm_service
from tandem.infra.database import Database

SOURCE = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="11111111-2222-3333-4444-55555555555a" Name="Client Setup" Language="1033"
           Version="1.2.3" Manufacturer="Contoso"
           UpgradeCode="21111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="500" Compressed="yes" InstallScope="{scope}"/>
    <Media Id="1" Cabinet="files.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="INSTALLDIR" Name="Thing">
      <Component Id="c" Guid="31111111-2222-3333-4444-555555555555">
        <File Id="a.txt" Name="a.txt" Source="a.txt" KeyPath="yes"/>
      </Component></Directory></Directory>
    <Feature Id="f" Level="1"><ComponentRef Id="c"/></Feature>
  </Product>
</Wix>
"""


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MSI that a real tool built, for the machine."""
    return _build(tmp_path_factory.mktemp("msi"), "perMachine")


@pytest.fixture(scope="session")
def package_for_one_user(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _build(tmp_path_factory.mktemp("user"), "perUser")


def _build(folder: Path, scope: str) -> bytes:
    (folder / "a.txt").write_bytes(b"hello" * 1000)
    (folder / "a.wxs").write_text(SOURCE.format(scope=scope), encoding="utf-8")
    subprocess.run(["wixl", "-o", "a.msi", "a.wxs"], cwd=folder, check=True)
    return (folder / "a.msi").read_bytes()


@pytest.fixture
async def mdm(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Mdm]:
    async with mdm_service(tenant_db, tmp_path) as made:
        yield made
