"""Installing and removing packages without a word to the user."""

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PureWindowsPath
from typing import NamedTuple

from tandem.agent.platform.windows.programs import Run, run, system
from tandem.infra.errors import Invalid

# Windows Installer waits for another installation itself; an hour is what the MDM client allows.
_SECONDS = 3600.0
_PROPERTY = re.compile(r"^[A-Z_][A-Z0-9_.]*$")
_PRODUCT = re.compile(r"^\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}$", re.IGNORECASE)


class Result(Enum):
    DONE = "done"
    RESTART = "restart"  # Done, and complete after a restart.
    LATER = "later"  # Not done for a reason that passes.
    FAILED = "failed"


class Outcome(NamedTuple):
    result: Result
    code: int
    text: str


# Windows Installer's codes and what they mean for whoever asked.
_CODES = {
    0: Outcome(Result.DONE, 0, "Installed."),
    1602: Outcome(Result.FAILED, 1602, "The user cancelled the installation."),
    1603: Outcome(Result.FAILED, 1603, "A fatal error during installation; its log tells which."),
    1605: Outcome(Result.DONE, 1605, "The product is not installed."),
    1612: Outcome(Result.FAILED, 1612, "The package's source is not available."),
    1618: Outcome(Result.LATER, 1618, "Another installation is in progress."),
    1619: Outcome(Result.FAILED, 1619, "The package could not be opened."),
    1620: Outcome(Result.FAILED, 1620, "The package is no valid package of Windows Installer."),
    1625: Outcome(Result.FAILED, 1625, "A policy of this machine forbids the installation."),
    1633: Outcome(Result.FAILED, 1633, "The package is for another kind of processor."),
    1638: Outcome(Result.FAILED, 1638, "Another version of the product is installed."),
    1641: Outcome(Result.RESTART, 1641, "Installed; the installer restarts the machine."),
    3010: Outcome(Result.RESTART, 3010, "Installed; it is complete after a restart."),
}


def outcome(code: int) -> Outcome:
    known = _CODES.get(code)
    return known or Outcome(Result.FAILED, code, f"The installation failed with code {code}.")


async def install(
    package: PureWindowsPath,
    properties: Mapping[str, str],
    log: PureWindowsPath,
    *,
    run: Run = run,
) -> Outcome:
    """Install a package for the machine. Raises Invalid, ProgramFailed."""
    words = [f"{_name(name)}={_value(value)}" for name, value in properties.items()]
    return await _msiexec(["/i", str(package), *_QUIET, "/l*v", str(log), *words], run)


async def remove(product_code: str, log: PureWindowsPath, *, run: Run = run) -> Outcome:
    """Remove a product. One that is not there was removed."""
    if not _PRODUCT.match(product_code):
        raise Invalid(f"{product_code[:60]!r} is no product code.", cure="Use {XXXXXXXX-…}.")
    return await _msiexec(["/x", product_code, *_QUIET, "/l*v", str(log)], run)


_QUIET = ("/qn", "/norestart")


async def _msiexec(words: list[str], run: Run) -> Outcome:
    done = await run([system("msiexec.exe"), *words], b"", _SECONDS)
    return outcome(done.code)


def _name(name: str) -> str:
    if not _PROPERTY.match(name):
        raise Invalid(f"{name[:60]!r} is no public property.", cure="Use capital letters.")
    return name


def _value(value: str) -> str:
    """Windows Installer ends a value at a quotation mark, and what follows would be an option."""
    if '"' in value or any(ord(character) < 32 for character in value):
        raise Invalid("A property cannot hold quotation marks or control characters.")
    return value
