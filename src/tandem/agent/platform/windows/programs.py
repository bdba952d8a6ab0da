"""Programs of Windows, called with arguments and never through a shell.

PowerShell runs fixed scripts only: what a script is to work on goes to its standard input as JSON, so
nothing from outside is ever part of a command, and no secret is in a list of processes.
"""

import asyncio
import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from tandem.infra.errors import AppError, Kind

TIMEOUT_SECONDS = 120.0
_NO_WINDOW = 0x08000000  # CREATE_NO_WINDOW
# The program's own encoding is that of the console's code page; ASCII in, UTF-8 out.
_FRAME = """
[Console]::OutputEncoding = New-Object System.Text.UTF8Encoding $false
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$given = [Console]::In.ReadToEnd() | ConvertFrom-Json
try {
%s
} catch {
  @{ error = $_.Exception.Message; hresult = ('0x{0:X8}' -f $_.Exception.HResult) } |
    ConvertTo-Json -Compress
  exit 1
}
"""


class ProgramFailed(AppError):
    """A program of Windows failed; `details` has its exit code or HRESULT."""

    kind, code = Kind.UNAVAILABLE, "windows.program-failed"


class Done(NamedTuple):
    code: int
    output: bytes
    errors: bytes = b""


# (command, standard input, seconds) -> Done. Raises ProgramFailed when it cannot run to its end.
Run = Callable[[Sequence[str], bytes, float], Awaitable[Done]]


async def run(command: Sequence[str], given: bytes = b"", seconds: float = TIMEOUT_SECONDS) -> Done:
    """The program to its end."""
    hidden = {"creationflags": _NO_WINDOW} if sys.platform == "win32" else {}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **hidden,  # type: ignore[arg-type]
        )
    except OSError as error:
        raise ProgramFailed(f"{command[0]} cannot be started: {error.strerror}.") from None
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate(given)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ProgramFailed(
            f"{command[0]} did not end within {seconds:.0f} seconds.", cure="It is tried again."
        ) from None
    return Done(process.returncode or 0, output, errors)


def system(name: str) -> str:
    """The path of a program of System32: the search path of a service is not to be relied on."""
    root = os.environ.get("SYSTEMROOT", r"C:\Windows")
    return rf"{root}\System32\{name}"


class PowerShell:
    """Windows PowerShell 5.1, which every supported Windows brings."""

    def __init__(self, run: Run = run) -> None:
        self._run = run

    async def ask(self, script: str, **given: Any) -> Any:
        """What the script wrote as JSON; None when it wrote nothing. Raises ProgramFailed."""
        encoded = b64encode((_FRAME % script).encode("utf-16-le")).decode()
        program = system(r"WindowsPowerShell\v1.0\powershell.exe")
        flags = ["-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass"]
        data = json.dumps(given, ensure_ascii=True).encode()
        done = await self._run([program, *flags, "-EncodedCommand", encoded], data, TIMEOUT_SECONDS)
        text = done.output.decode("utf-8-sig", "replace").strip()
        try:
            found = msgspec.json.decode(text) if text else None
        except msgspec.DecodeError:
            raise ProgramFailed(
                f"PowerShell answers what is no JSON (exit code {done.code})."
            ) from None
        if done.code != 0:
            told = found if isinstance(found, dict) else {}
            said = str(told.get("error") or f"exit code {done.code}").strip().rstrip(".")
            raise ProgramFailed(f"PowerShell: {said}.", hresult=told.get("hresult", ""))
        return found


def listed(found: Any) -> list[dict[str, Any]]:
    """PowerShell writes a list of one as its item, and an empty list as nothing."""
    if found is None:
        return []
    return [item for item in (found if isinstance(found, list) else [found]) if item]
