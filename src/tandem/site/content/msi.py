"""Building the MSI with wixl: one way, for `make msi` and for the package that a site gives out."""

import hashlib
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
from tandem.site.content.runtime import NO_RUNTIME, WindowsRuntime, search_path

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
WHEEL, ROOT, README = "bootstrap.whl", "trusted_root.pem", "readme.txt"

SERVICE = "TandemAgent"
REGISTRY_KEY = "SOFTWARE\\Tandem\\Client"
# What is compiled lies in the agent's own folder: beside the sources it would outlive them.
_ARGUMENTS = (
    "-X pycache_prefix=[WindowsFolder]Tandem\\pycache -m tandem.agent.platform.windows service"
)
_README = (
    "{name} {version} of site {site}\r\n\r\n"
    "The service {service} is the client: it reads CommandLine from HKLM\\{key}, which the package\r\n"
    "wrote from its property CCMSETUPCMD, and keeps its state and logs in %SystemRoot%\\Tandem.\r\n\r\n"
    "Windows Python runtime: {runtime}\r\n"
)
_README_PLACEHOLDER = (
    "PLACEHOLDER: this package carries no Windows Python runtime, so its service is disabled.\r\n"
    "It is good for looking at and for checking the installer, not for managing a machine.\r\n"
)

# No custom action runs anything: a value in the registry and a service that starts are the whole
# hand-over, so Windows Installer can undo all of it, and a failed bootstrap is no failed package.
# Actions have numbers: one that is only placed before or after another, wixl may put anywhere there.
# Older versions go before the new files come: late, they would take files of the same path along.
_SOURCE = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id={product} Name={name} Language="1033" Version={version}
           Manufacturer={manufacturer} UpgradeCode={upgrade}>
    <Package InstallerVersion="500" Compressed="yes" InstallScope="perMachine" Comments={comments}/>
    <Media Id="1" Cabinet="client.cab" EmbedCab="yes"/>
    <Upgrade Id={upgrade}>
      <UpgradeVersion Property="OLDERFOUND" Minimum="0.0.0" IncludeMinimum="yes"
                      Maximum={following} IncludeMaximum="no"/>
      <UpgradeVersion Property="NEWERFOUND" Minimum={following} IncludeMinimum="yes"
                      OnlyDetect="yes"/>
    </Upgrade>
    <Condition Message="A newer version of the client is installed.">NOT NEWERFOUND</Condition>
    <Property Id="ARPNOMODIFY" Value="1"/>
    <Property Id="SMSSITECODE" Value={site}/>
    <Property Id="TANDEMRUNTIME" Value={runtime}/>
    <Property Id="BEFORECMD">
      <RegistrySearch Id="{LOCATOR}" Root="HKLM" Key={key} Name="CommandLine" Type="raw"/>
    </Property>
    <CustomAction Id="KeepCommandLine" Property="CCMSETUPCMD" Value="[BEFORECMD]"
                  Impersonate="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="ProgramFiles64Folder">
        <Directory Id="INSTALLDIR" Name="CcmSetup">
          <Component Id="Bootstrap" Guid={component} Win64="yes">
            <File Id="{WHEEL}" Name={wheel} Source="{WHEEL}" KeyPath="yes"/>
            <File Id="{ROOT}" Name="trusted-root.pem" Source="{ROOT}"/>
            <File Id="{README}" Name="README.txt" Source="{README}"/>
            <RegistryValue Root="HKLM" Key={key} Name="CommandLine" Type="string"
                           Value="[CCMSETUPCMD]"/>
            <RegistryValue Root="HKLM" Key={key} Name="Version" Type="string" Value={version}/>
            <RegistryValue Root="HKLM" Key={key} Name="Runtime" Type="string" Value={runtime}/>
          </Component>
          <Directory Id="RUNTIME" Name="python">{runtime_files}</Directory>
        </Directory>
      </Directory>
    </Directory>
    <InstallExecuteSequence>
      <Custom Action="KeepCommandLine" Sequence="60">NOT CCMSETUPCMD AND BEFORECMD</Custom>
      <RemoveExistingProducts Sequence="1450"/>
    </InstallExecuteSequence>
    <Feature Id="Client" Level="1"><ComponentRef Id="Bootstrap"/>{references}</Feature>
  </Product>
</Wix>
"""
_SERVICE = """<ServiceInstall Id="AgentService" Name={service} DisplayName={display} Type="ownProcess"
  Start={start} ErrorControl="normal" Description={description} Arguments={arguments}/>
<ServiceControl Id="AgentControl" Name={service} {begin} Stop="both" Remove="uninstall" Wait="yes"/>
"""
_FILE = '<File Id="{id}" Name={name} Source={source} KeyPath="{key}"/>'
# What wixl has no words for, in the words of the tables: the property that an elevated installation
# takes from the command line, and the registry of 64-bit programs, where the value was written.
_QUERIES = (
    "UPDATE `Property` SET `Value`='CCMSETUPCMD;NEWERFOUND;OLDERFOUND'"
    " WHERE `Property`='SecureCustomProperties'",
    "UPDATE `RegLocator` SET `Type`=18 WHERE `Signature_`='PreviousCommandLine'",
)
_LOCATOR = "PreviousCommandLine"


@dataclass(frozen=True)
class BuiltMsi:
    product_code: str
    data: bytes


def build_msi(
    version: str,
    site_code: str,
    root_pem: bytes,
    root_sha256: str,
    wheel_name: str,
    wheel: bytes,
    runtime: WindowsRuntime = NO_RUNTIME,
) -> BuiltMsi:
    """The package, the same bytes for the same arguments. Raises BuildFailed.

    A site that was rebuilt under its old code has another root, and gets another product; so does
    a site that came by another runtime.
    """
    for program in ("wixl", "msibuild"):
        if shutil.which(program) is None:
            raise BuildFailed(
                f"The client package cannot be built: the program {program} is missing.",
                cure=CANNOT_BUILD_CURE,
            )
    identity = (site_code, root_sha256, version, *([runtime.sha256] if runtime.sha256 else []))
    product = code_of("product", *identity)
    runtime = search_path(runtime, wheel_name)
    with tempfile.TemporaryDirectory(prefix="tandem-msi-") as folder:
        tree, references = _runtime(runtime, identity)
        source = _source(version, identity, product, wheel_name, runtime, tree, references)
        readme = _README.format(
            name=PRODUCT_NAME,
            version=version,
            site=site_code,
            service=SERVICE,
            key=REGISTRY_KEY,
            runtime=_named(runtime),
        ) + ("" if runtime.sha256 else _README_PLACEHOLDER)
        files = {
            WHEEL: wheel,
            ROOT: root_pem,
            README: readme.encode(),
            "client.wxs": source.encode(),
            **{f"runtime/{name}": data for name, data in runtime.files.items()},
        }
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (_TIME, _TIME))
        data = _built(Path(folder))
    data = _settle(data, code_of("package", *identity))
    assert msi.read(data).product_code == product
    return BuiltMsi(product, data)


def _named(runtime: WindowsRuntime) -> str:
    return f"{runtime.name} {runtime.sha256}".strip()


def _source(
    version: str,
    identity: tuple[str, ...],
    product: str,
    wheel: str,
    runtime: WindowsRuntime,
    tree: str,
    references: str,
) -> str:
    site_code, root = identity[:2]
    found = _VERSION.match(version)
    if found is None:
        raise BuildFailed(
            f"{version} cannot be the version of an MSI.", cure="Use numbers, like 1.2.3."
        )
    # The same version with another runtime replaces this one; wixl knows no inclusive maximum.
    major, minor, build = found[0].split(".")
    return _SOURCE.format(
        following=quoteattr(f"{major}.{minor}.{int(build) + 1}"),
        product=quoteattr(product),
        name=quoteattr(PRODUCT_NAME),
        version=quoteattr(found[0]),
        manufacturer=quoteattr(MANUFACTURER),
        upgrade=quoteattr(code_of("upgrade", site_code, root)),
        component=quoteattr(code_of("component", *identity)),
        comments=quoteattr(f"Client of site {site_code}"),
        site=quoteattr(site_code),
        wheel=quoteattr(wheel),
        runtime=quoteattr(_named(runtime)),
        key=quoteattr(REGISTRY_KEY),
        runtime_files=tree,
        references=references,
        LOCATOR=_LOCATOR,
        WHEEL=WHEEL,
        ROOT=ROOT,
        README=README,
    )


def _runtime(runtime: WindowsRuntime, identity: tuple[str, ...]) -> tuple[str, str]:
    """The runtime's folders as elements of the source, and the references to their components.

    The service belongs to the component of its executable. Without a runtime it is there, and
    disabled: it must not be tried at each start of the machine.
    """
    whole = bool(runtime.sha256)
    service = _SERVICE.format(
        service=quoteattr(SERVICE),
        display=quoteattr("Tandem agent"),
        description=quoteattr(
            "Client of the site: registration, policy and co-management."
            if whole
            else "PLACEHOLDER: this package carries no Windows Python runtime."
        ),
        start=quoteattr("auto" if whole else "disabled"),
        arguments=quoteattr(_ARGUMENTS),
        begin='Start="install"' if whole else "",
    )
    folders: dict[str, list[str]] = {"": []}
    for name in sorted(runtime.files):
        parent = name.rpartition("/")[0]
        folders.setdefault(parent, []).append(name)
        while parent:
            parent = parent.rpartition("/")[0]
            folders.setdefault(parent, [])
    references: list[str] = []

    def component(folder: str, files: list[str], inner: str = "") -> str:
        name = _identifier("c", folder, *files[:1])
        references.append(f'<ComponentRef Id="{name}"/>')
        guid = code_of("component", *identity, "runtime", folder, *files[:1])
        rows = "".join(
            _FILE.format(
                id=_identifier("f", file),
                name=quoteattr(file.rpartition("/")[2]),
                source=quoteattr(f"runtime/{file}"),
                key="yes" if number == 0 else "no",
            )
            for number, file in enumerate(files)
        )
        return f'<Component Id="{name}" Guid="{guid}" Win64="yes">{rows}{inner}</Component>'

    def tree(folder: str) -> str:
        files = folders[folder]
        said = ""
        if not folder:
            files = [file for file in files if file != runtime.executable]
            said = component(folder, [runtime.executable], service)
        if files:
            said += component(folder, files)
        for below in sorted(folders):
            if below and below.rpartition("/")[0] == folder:
                name = quoteattr(below.rpartition("/")[2])
                said += f'<Directory Id="{_identifier("d", below)}" Name={name}>{tree(below)}</Directory>'
        return said

    return tree(""), "".join(references)


def _identifier(sort: str, *names: str) -> str:
    return f"{sort}{hashlib.sha256('|'.join(names).encode()).hexdigest()[:24]}"


def _built(folder: Path) -> bytes:
    _run(folder, "wixl", "--arch", "x64", "-o", "out.msi", "client.wxs")
    for query in _QUERIES:
        _run(folder, "msibuild", "out.msi", "-q", query)
    return (folder / "out.msi").read_bytes()


def _run(folder: Path, *command: str) -> None:
    environment = {"PATH": os.environ.get("PATH", "/usr/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=_TIMEOUT_SECONDS
        )
        if done.returncode == 0:
            return
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    raise BuildFailed(f"{command[0]} could not build the client package: {' '.join(said)}.")


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
