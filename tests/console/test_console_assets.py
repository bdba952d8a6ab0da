"""Third-party assets come from the lock file, whole; without npm the refusal says what to do."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src" / "tandem" / "console" / "static"
sys.path.insert(0, str(ROOT))


class App:
    def __init__(self) -> None:
        self.said: list[str] = []

    def abort(self, message: str) -> None:
        self.said.append(message)

    def display_info(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch):
    import hatch_build

    monkeypatch.delenv("TANDEM_NO_CONSOLE", raising=False)
    monkeypatch.setattr(hatch_build, "_is_current", lambda: False)
    app = App()
    made = hatch_build.ConsoleAssets.__new__(hatch_build.ConsoleAssets)
    monkeypatch.setattr(hatch_build.ConsoleAssets, "app", app)
    return made


def test_what_lies_in_the_package_is_what_the_lock_file_names() -> None:
    manifest = json.loads((STATIC / "vendor" / "manifest.json").read_text())
    lock = json.loads((ROOT / "tools" / "console-assets" / "package-lock.json").read_text())
    for name, version in manifest["versions"].items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    for name, sha256 in manifest["sha256"].items():
        data = (STATIC / "vendor" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256


def test_the_lock_file_names_no_registry_and_every_package_has_its_hash() -> None:
    lock = json.loads((ROOT / "tools" / "console-assets" / "package-lock.json").read_text())
    for name, package in lock["packages"].items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")


def test_every_colour_and_icon_that_pages_name_exists() -> None:
    tokens = (STATIC / "vendor" / "tokens.css").read_text()
    for token in set(re.findall(r"var\((--\w+)\)", (STATIC / "app.css").read_text())):
        assert f"{token}:" in tokens, token
    sprite = (STATIC / "vendor" / "icons.svg").read_text()
    templates = STATIC.parent / "templates"
    text = "".join(path.read_text() for path in templates.glob("*.html"))
    text += (STATIC.parent / "views.py").read_text()
    for icon in set(re.findall(r'icon\("(\w+)"\)|, "(\w+)"\),$', text, re.MULTILINE)):
        assert f'id="{icon[0] or icon[1]}"' in sprite, icon


def test_without_npm_the_refusal_names_the_cure(hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    hook.initialize("standard", {})
    (said,) = hook.app.said
    assert "apt-get install nodejs npm" in said
    assert "TANDEM_NO_CONSOLE=1" in said


def test_an_install_without_the_console_needs_no_npm(hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("TANDEM_NO_CONSOLE", "1")
    hook.initialize("standard", {})
    assert not hook.app.said


def test_a_failing_npm_is_quoted(hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("npm", "node"):
        (tmp_path / name).write_text("#!/bin/sh\necho no route to the registry >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    hook.initialize("standard", {})
    assert "no route to the registry" in hook.app.said[-1]
