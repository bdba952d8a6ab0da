"""Bring the console's third-party assets into the package when a wheel or an editable install is made.

They are named and locked in tools/console-assets, and not committed. npm runs only when something
there changed since the last time. TANDEM_NO_CONSOLE=1 leaves the console out: agent and gateway
need none of it.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCE = ROOT / "tools" / "console-assets"
VENDOR = ROOT / "src" / "tandem" / "console" / "static" / "vendor"
INPUTS = (SOURCE / "package-lock.json", SOURCE / "package.json", SOURCE / "build.mjs")

NO_NPM = """
The console needs npm once, to bring htmx, ECharts and the Fluent colours and icons into the package, and there is none here.
Install Node.js 18 or newer with npm (Debian, Ubuntu: apt-get install nodejs npm), or set TANDEM_NO_CONSOLE=1
to install without the console: agent and gateway do not need it.
"""
FAILED = """
npm could not bring the console's assets into the package. What it said:

{said}

Check that the npm registry can be reached (npm ping) and start again, or set TANDEM_NO_CONSOLE=1 to install
without the console: agent and gateway do not need it.
"""


class ConsoleAssets(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("TANDEM_NO_CONSOLE") == "1" or _is_current():
            return
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            self.app.abort(NO_NPM)
            return
        self.app.display_info("Bringing the console's assets with npm …")
        for command in (
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            ["node", "build.mjs", str(VENDOR)],
        ):
            done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True)
            if done.returncode != 0:
                self.app.abort(FAILED.format(said=(done.stderr or done.stdout)[-2000:]))
                return
        (VENDOR / "inputs.sha256").write_text(_fingerprint() + "\n")


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in INPUTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_current() -> bool:
    """Whether what lies in the package is whole and was built from these inputs."""
    try:
        if (VENDOR / "inputs.sha256").read_text().strip() != _fingerprint():
            return False
        manifest = json.loads((VENDOR / "manifest.json").read_text())
        return all(
            hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == sha256
            for name, sha256 in manifest["sha256"].items()
        )
    except (OSError, ValueError, KeyError):
        return False
