"""The agent as a wheel, made from the package that is running: what devices need and no more."""

import hashlib
import io
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import tandem

# Folders and files below `tandem`. A test starts the wheel alone and finds what is missing.
_PARTS = (
    "__init__.py",
    "py.typed",
    "agent",
    "workloads",
    "pki",
    "protocols/__init__.py",
    "protocols/ccm",
    "protocols/cmtrace",
    "infra/__init__.py",
    *(f"infra/{name}.py" for name in ("clock", "config", "errors", "logs", "net", "process")),
    "infra/secrets.py",
)
# The MDM client is the operating system's part of a device; it comes before any wheel.
_LEFT_OUT = ("agent/mdm/",)
_REQUIRES = (
    *("cryptography", "dnspython", "httpx", "joserfc", "msgspec", "structlog"),
    "uvloop; sys_platform != 'win32'",
)
# `python <folder of the wheel>` hosts agents: the wheel is also the bootstrap.
_MAIN = "from tandem.agent.fleet import main\n\nraise SystemExit(main())\n"
# The earliest date a zip can hold: the same source gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def agent_wheel(version: str) -> tuple[str, bytes]:
    """(file name, bytes); the bytes depend on the source alone."""
    info = f"tandem_agent-{version}.dist-info"
    files = dict(_sources(Path(tandem.__file__).parent))
    files["__main__.py"] = _MAIN.encode()
    files[f"{info}/METADATA"] = _metadata(version).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: tandem\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = (
        b"[console_scripts]\ntandem-ccmsetup = tandem.agent.bootstrap:main\n"
    )
    record = "".join(f"{name},{_hash(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return f"tandem_agent-{version}-py3-none-any.whl", out.getvalue()


def _sources(top: Path) -> Iterator[tuple[str, bytes]]:
    for part in _PARTS:
        path = top / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(top).as_posix()
            if not name.startswith(_LEFT_OUT):
                yield f"tandem/{name}", file.read_bytes()


def _metadata(version: str) -> str:
    lines = ["Metadata-Version: 2.1", "Name: tandem-agent", f"Version: {version}"]
    lines += ["Summary: Tandem's client for managed devices", "License: Apache-2.0"]
    lines += ["Requires-Python: >=3.11", *(f"Requires-Dist: {name}" for name in _REQUIRES)]
    return "\n".join(lines) + "\n"


def _hash(data: bytes) -> str:
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
