"""The Python that the Windows client runs on: an archive that `make msi` puts together.

    python.exe, python3.dll, python312.zip, python312._pth, …      python.org's embeddable package
    site-packages/…                                                the wheels that the agent needs

Which files they are is pinned by hash where the archive is made; here it is an input like another.
"""

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tandem.infra.errors import AppError, Kind

EXECUTABLE = "python.exe"
PLACEHOLDER = "PLACEHOLDER-python-runtime.exe"
_PLACEHOLDER_TEXT = (
    "This file stands where the Windows Python runtime would be. The package was built without\r\n"
    "one, so its service is disabled. Build with PYTHON_EMBED=…, or name client_runtime in the\r\n"
    "settings of the site; docs/guide/first-windows-machine.md says how.\r\n"
)
_PATHS = re.compile(r"^python\d+\._pth$")
# Ten times what CPython with the agent's wheels needs.
_LIMIT_BYTES = 512 << 20
_LIMIT_FILES = 10_000
# What Windows allows in a name, less what a package source could trip over.
_NAME = re.compile(r"^[A-Za-z0-9_.+ ()\-]{1,120}$")
_CURE = "Make it with `make msi PYTHON_EMBED=…`: docs/guide/first-windows-machine.md."


class BadRuntime(AppError):
    kind, code = Kind.INVALID, "content.bad-runtime"


@dataclass(frozen=True)
class WindowsRuntime:
    """`files` by path below the runtime's folder, with `/`. `sha256` is empty for the placeholder."""

    name: str
    sha256: str
    files: dict[str, bytes]

    @property
    def executable(self) -> str:
        return EXECUTABLE if self.sha256 else PLACEHOLDER


NO_RUNTIME = WindowsRuntime("PLACEHOLDER", "", {PLACEHOLDER: _PLACEHOLDER_TEXT.encode()})


def load_runtime(path: Path) -> WindowsRuntime:
    """The archive at this path. Raises BadRuntime."""
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > _LIMIT_FILES or sum(e.file_size for e in entries) > _LIMIT_BYTES:
                raise BadRuntime(f"The Windows runtime {path} is too large.", cure=_CURE)
            files = {_path(entry.filename): archive.read(entry) for entry in entries}
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise BadRuntime(
            f"The Windows runtime {path} cannot be read: {error}.", cure=_CURE
        ) from None
    missing = {EXECUTABLE, "site-packages/msgspec/__init__.py"} - files.keys()
    if missing or not any(_PATHS.match(name) for name in files):
        named = ", ".join(sorted(missing)) or "python3xx._pth"
        raise BadRuntime(f"{path} is no Windows runtime: {named} is not in it.", cure=_CURE)
    return WindowsRuntime(path.stem, hashlib.sha256(data).hexdigest(), files)


def search_path(runtime: WindowsRuntime, wheel: str) -> WindowsRuntime:
    """The runtime whose interpreter finds the wheel beside its folder, and nothing elsewhere.

    A `._pth` file is the whole of `sys.path`: neither the registry, nor PYTHONPATH, nor the working
    directory can add to what a service of LocalSystem runs.
    """
    files = dict(runtime.files)
    for name in files:
        if _PATHS.match(name):
            library = name.removesuffix("._pth") + ".zip"
            lines = [library, ".", "site-packages", f"..\\{wheel}"]
            files[name] = "".join(f"{line}\r\n" for line in lines).encode()
    return WindowsRuntime(runtime.name, runtime.sha256, files)


def _path(name: str) -> str:
    parts = PurePosixPath(name).parts
    bad = not parts or any(not _NAME.match(part) or part in {".", ".."} for part in parts)
    if bad or name.startswith("/"):
        raise BadRuntime(f"The Windows runtime holds a file of the name {name!r}.", cure=_CURE)
    return "/".join(parts)
