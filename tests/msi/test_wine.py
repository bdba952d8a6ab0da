"""The client package through a Windows Installer that is not ours: Debian's Wine.

Wine stands for Windows here in what it has of its own: msiexec, the registry, the service manager.
It is no Windows, and has no MDM client; docs/guide/first-windows-machine.md lists what remains.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.site import content

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COMMAND = "CCMHOSTNAME=gw.example.org/CCM_Proxy_MutualAuth/7 SMSSITECODE=CM1"
NAME, WHEEL = content.agent_wheel("1.2.3")


class Windows:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "WINEPREFIX": str(folder), "WINEDEBUG": "-all"}
        self._environment.pop("DISPLAY", None)
        self.run("wineboot", "-i")

    def run(self, *command: str) -> int:
        """Its exit code, of which a Unix shows the last eight bits. All that it started has ended
        and the registry is on the disk when this returns."""
        done = subprocess.run(["wine", *command], env=self._environment, capture_output=True)
        subprocess.run(["wineserver", "-w"], env=self._environment, check=True)
        return done.returncode

    def installed(self) -> set[str]:
        below = self.folder / "drive_c" / "Program Files" / "CcmSetup"
        return {f.relative_to(below).as_posix() for f in below.rglob("*") if f.is_file()}

    def registry(self, key: str) -> dict[str, str]:
        """The values of a key of HKEY_LOCAL_MACHINE; none when it does not exist."""
        text = (self.folder / "system.reg").read_text("utf-8")
        head = "[" + key.replace("\\", "\\\\") + "]"
        section = re.search(re.escape(head) + r".*?\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.I)
        if section is None:
            return {}
        pairs = re.findall(r'^"(\w+)"=(?:"(.*)"|(dword:\w+))$', section[1], re.MULTILINE)
        return {name: (value or number).replace("\\\\", "\\") for name, value, number in pairs}


SERVICE = rf"System\CurrentControlSet\Services\{content.SERVICE}"
CLIENT = r"Software\Tandem\Client"


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    folder = tmp_path_factory.mktemp("wine")
    yield Windows(folder)
    shutil.rmtree(folder, ignore_errors=True)


def package(folder: Path, version: str, runtime: content.WindowsRuntime) -> str:
    built = content.build_msi(version, "CM1", b"root", "ff", NAME, WHEEL, runtime)
    file = folder / f"ccmsetup-{version}-{runtime.name}.msi"
    file.write_bytes(built.data)
    return str(file)


def test_the_placeholder_installs_with_its_command_line_and_leaves_nothing(
    windows: Windows, tmp_path: Path
) -> None:
    file = package(tmp_path, "1.2.3", content.NO_RUNTIME)
    assert windows.run("msiexec", "/i", file, "/qn", f"CCMSETUPCMD={COMMAND}") == 0
    assert windows.installed() == {
        NAME, "README.txt", "trusted-root.pem", "python/PLACEHOLDER-python-runtime.exe"
    }  # fmt: skip
    assert windows.registry(CLIENT) == {
        "CommandLine": COMMAND, "Version": "1.2.3", "Runtime": "PLACEHOLDER"
    }  # fmt: skip
    service = windows.registry(SERVICE)
    assert service["Start"] == "dword:00000004"  # Disabled.
    assert "PLACEHOLDER" in service["Description"]
    assert windows.run("msiexec", "/x", file, "/qn") == 0
    assert windows.installed() == set()
    assert windows.registry(CLIENT) == {}
    assert windows.registry(SERVICE) == {}


def test_a_package_with_a_runtime_starts_its_service_is_upgraded_and_removed(
    windows: Windows, tmp_path: Path
) -> None:
    """A service of Wine's own stands for Python: an installation whose service does not start
    fails and is rolled back, so success says that it was started."""
    stand_in = windows.folder / "drive_c" / "windows" / "system32" / "plugplay.exe"
    files = {
        "python.exe": stand_in.read_bytes(),
        "python312._pth": b".",
        "site-packages/msgspec/__init__.py": b"#",
    }
    runtime = content.WindowsRuntime("stand-in", "ab" * 32, files)
    old, new = package(tmp_path, "1.2.3", runtime), package(tmp_path, "1.3.0", runtime)

    assert windows.run("msiexec", "/i", old, "/qn", f"CCMSETUPCMD={COMMAND}") == 0
    assert "python/site-packages/msgspec/__init__.py" in windows.installed()
    service = windows.registry(SERVICE)
    assert service["ImagePath"].endswith(
        r"\CcmSetup\python\python.exe -X pycache_prefix=C:\windows\Tandem\pycache"
        " -m tandem.agent.platform.windows service"
    )
    assert service["Start"] == "dword:00000002"  # Automatic.
    assert service["ObjectName"] == "LocalSystem"

    # An upgrade says no command line again (an MDM service sends one, a person forgets it).
    assert windows.run("msiexec", "/i", new, "/qn") == 0
    assert windows.registry(CLIENT)["Version"] == "1.3.0"
    assert windows.registry(CLIENT)["CommandLine"] == COMMAND
    assert NAME in windows.installed()
    assert windows.registry(SERVICE)

    assert windows.run("msiexec", "/i", old, "/qn") == 1603 & 0xFF
    assert windows.registry(CLIENT)["Version"] == "1.3.0"

    assert windows.run("msiexec", "/x", new, "/qn") == 0
    assert (windows.installed(), windows.registry(CLIENT), windows.registry(SERVICE)) == (
        set(), {}, {}
    )  # fmt: skip


def test_a_service_that_does_not_start_undoes_the_installation(
    windows: Windows, tmp_path: Path
) -> None:
    files = {"python.exe": b"no program", "python312._pth": b"."}
    broken = content.WindowsRuntime("broken", "cd" * 32, files)
    file = package(tmp_path, "1.2.3", broken)
    assert windows.run("msiexec", "/i", file, "/qn", f"CCMSETUPCMD={COMMAND}") != 0
    assert windows.registry(SERVICE) == {}
    assert windows.registry(CLIENT) == {}
