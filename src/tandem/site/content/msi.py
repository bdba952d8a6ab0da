"""Building the MSI with wixl."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import olefile

from tandem.protocols import msi
from tandem.site.content.model import (
    CANNOT_BUILD_CURE,
    MANUFACTURER,
    PRODUCT_NAME,
    BuildFailed,
    code_of,
)

_TIMEOUT_SECONDS = 60
# 2020-01-01, as a file's time and as a Windows FILETIME.
_TIME = 1577836800
_FILETIME = ((_TIME + 11644473600) * 10**7).to_bytes(8, "little")
# A property of type VT_FILETIME with a time of these decades [MS-OLEPS].
_TYPE_TIME = b"\x40\x00\x00\x00"
_TIME_PROPERTY = re.compile(_TYPE_TIME + rb".{6}[\xd0-\xef]\x01", re.DOTALL)
_PACKAGE_CODE = 9
_VERSION = re.compile(r"^\d{1,3}\.\d{1,3}\.\d{1,5}")

# Keys in the File table: the names under which the cabinet holds the files.
WHEEL, ROOT, COMMAND = "bootstrap.whl", "trusted_root.pem", "ccmsetup.cmd"

_COMMAND_TEXT = (
    "@echo off\r\n"
    "rem Starts the bootstrap with the command line that the MSI was given.\r\n"
    'py -3 -m pip install --quiet --no-deps --upgrade "%~dp0{wheel}" || exit /b 6\r\n'
    'py -3 -m tandem.agent.bootstrap --config "%ProgramData%\\Tandem\\agent.toml" '
    '--trusted-root "%~dp0trusted-root.pem" %*\r\n'
)

# The action has a number: one that is only placed before another, wixl may put anywhere before it.
_SOURCE = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id={product} Name={name} Language="1033" Version={version}
           Manufacturer={manufacturer} UpgradeCode={upgrade}>
    <Package InstallerVersion="500" Compressed="yes" InstallScope="perMachine" Comments={comments}/>
    <Media Id="1" Cabinet="client.cab" EmbedCab="yes"/>
    <Property Id="SecureCustomProperties" Value="CCMSETUPCMD"/>
    <Property Id="ARPNOMODIFY" Value="1"/>
    <Property Id="SMSSITECODE" Value={site}/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="ProgramFiles64Folder">
        <Directory Id="INSTALLDIR" Name="CcmSetup">
          <Component Id="Bootstrap" Guid={component} Win64="yes">
            <File Id="{WHEEL}" Name={wheel} Source="{WHEEL}" KeyPath="yes"/>
            <File Id="{ROOT}" Name="trusted-root.pem" Source="{ROOT}"/>
            <File Id="{COMMAND}" Name="ccmsetup.cmd" Source="{COMMAND}"/>
          </Component>
        </Directory>
      </Directory>
    </Directory>
    <CustomAction Id="RunSetup" FileKey="{COMMAND}" ExeCommand={arguments}
                  Execute="deferred" Impersonate="no" Return="check"/>
    <InstallExecuteSequence>
      <Custom Action="RunSetup" Sequence="6550">NOT REMOVE</Custom>
    </InstallExecuteSequence>
    <Feature Id="Client" Level="1"><ComponentRef Id="Bootstrap"/></Feature>
  </Product>
</Wix>
"""


@dataclass(frozen=True)
class BuiltMsi:
    product_code: str
    data: bytes


def build_msi(
    version: str, site_code: str, root_pem: bytes, root_sha256: str, wheel_name: str, wheel: bytes
) -> BuiltMsi:
    """The package, the same bytes for the same arguments. Raises BuildFailed.

    A site that was rebuilt under its old code has another root, and gets another product.
    """
    product = code_of("product", site_code, root_sha256, version)
    if shutil.which("wixl") is None:
        raise BuildFailed(
            "The client package cannot be built: the program wixl is missing.",
            cure=CANNOT_BUILD_CURE,
        )
    with tempfile.TemporaryDirectory(prefix="tandem-msi-") as folder:
        files = {
            WHEEL: wheel,
            ROOT: root_pem,
            COMMAND: _COMMAND_TEXT.format(wheel=wheel_name).encode(),
            "client.wxs": _source(version, site_code, root_sha256, product, wheel_name).encode(),
        }
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
            os.utime(Path(folder) / name, (_TIME, _TIME))
        data = _wixl(Path(folder))
    data = _settle(data, code_of("package", site_code, root_sha256, version))
    assert msi.read(data).product_code == product
    return BuiltMsi(product, data)


def _source(version: str, site_code: str, root: str, product: str, wheel: str) -> str:
    found = _VERSION.match(version)
    if found is None:
        raise BuildFailed(
            f"{version} cannot be the version of an MSI.", cure="Use numbers, like 1.2.3."
        )
    return _SOURCE.format(
        product=quoteattr(product),
        name=quoteattr(PRODUCT_NAME),
        version=quoteattr(found[0]),
        manufacturer=quoteattr(MANUFACTURER),
        upgrade=quoteattr(code_of("upgrade", site_code, root)),
        component=quoteattr(code_of("component", site_code, root, version)),
        comments=quoteattr(f"Client of site {site_code}"),
        site=quoteattr(site_code),
        wheel=quoteattr(wheel),
        # Quotation marks around the property would end at the first one inside it.
        arguments=quoteattr("[CCMSETUPCMD]"),
        WHEEL=WHEEL,
        ROOT=ROOT,
        COMMAND=COMMAND,
    )


def _wixl(folder: Path) -> bytes:
    environment = {"PATH": os.environ.get("PATH", "/usr/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    try:
        done = subprocess.run(
            ["wixl", "--arch", "x64", "-o", "out.msi", "client.wxs"],
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
        )
        if done.returncode == 0:
            return (folder / "out.msi").read_bytes()
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    raise BuildFailed(f"wixl could not build the client package: {' '.join(said)}.")


def _settle(data: bytes, package_code: str) -> bytes:
    """Replace what wixl takes from the clock and from chance: times and the package code."""
    with olefile.OleFileIO(data) as package:
        summary = package.openstream("\x05SummaryInformation").read()
        code = package.getproperties("\x05SummaryInformation")[_PACKAGE_CODE]
    settled = _TIME_PROPERTY.sub(
        _TYPE_TIME + _FILETIME, summary.replace(code, package_code.encode())
    )
    if data.count(summary) != 1 or len(settled) != len(summary):
        raise BuildFailed("wixl built a package of an unexpected form.")
    return data.replace(summary, settled)
