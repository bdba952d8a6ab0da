"""What the client package says in its tables, read by msitools, whose reader is not ours."""

import hashlib
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from tools import msi as make

from tandem.protocols import msi
from tandem.site import content

WHEEL_NAME, WHEEL = content.agent_wheel("1.2.3")
RUNTIME = content.WindowsRuntime(
    "python-9-embed",
    "ab" * 32,
    {
        "python.exe": b"MZ",
        "python312._pth": b"python312.zip\n.\n",
        "python312.zip": b"PK",
        "site-packages/msgspec/__init__.py": b"",
        "site-packages/msgspec/a b.txt": b"a b",
    },
)


def package(tmp_path: Path, runtime: content.WindowsRuntime = content.NO_RUNTIME) -> Path:
    built = content.build_msi("1.2.3", "CM1", b"root", "ff", WHEEL_NAME, WHEEL, runtime)
    file = tmp_path / "ccmsetup.msi"
    file.write_bytes(built.data)
    return file


def table(file: Path, name: str) -> list[dict[str, str]]:
    said = subprocess.run(
        ["msiinfo", "export", str(file), name], capture_output=True, text=True, check=True
    )
    columns, _, _, *rows = said.stdout.replace("\r", "").split("\n")
    return [dict(zip(columns.split("\t"), row.split("\t"), strict=True)) for row in rows if row]


def properties(file: Path) -> dict[str, str]:
    return {row["Property"]: row["Value"] for row in table(file, "Property")}


def test_the_command_line_reaches_the_elevated_part_of_an_installation(tmp_path: Path) -> None:
    """A public property that is not secure is dropped when a standard user starts the package."""
    found = properties(package(tmp_path))
    assert "CCMSETUPCMD" in found["SecureCustomProperties"].split(";")
    assert "CCMSETUPCMD" not in found
    assert found["ALLUSERS"] == "1"


def test_the_command_line_is_handed_over_in_the_registry_of_64_bit_programs(tmp_path: Path) -> None:
    file = package(tmp_path)
    rows = {row["Name"]: row for row in table(file, "Registry")}
    assert rows["CommandLine"]["Value"] == "[CCMSETUPCMD]"
    assert rows["CommandLine"]["Root"] == "2"  # HKEY_LOCAL_MACHINE
    assert {row["Key"] for row in rows.values()} == {r"SOFTWARE\Tandem\Client"}
    (before,) = table(file, "RegLocator")
    assert (before["Key"], before["Type"]) == (r"SOFTWARE\Tandem\Client", "18")  # raw, 64-bit
    assert {row["Attributes"] for row in table(file, "Component")} == {"256"}  # 64-bit


def test_a_package_without_a_runtime_says_so_everywhere(tmp_path: Path) -> None:
    """Whoever finds it in a list of services, in its folder or in its properties can tell."""
    file = package(tmp_path)
    assert properties(file)["TANDEMRUNTIME"] == "PLACEHOLDER"
    (service,) = table(file, "ServiceInstall")
    assert service["StartType"] == "4"  # SERVICE_DISABLED
    assert service["Description"].startswith("PLACEHOLDER")
    assert "PLACEHOLDER-python-runtime.exe" in {row["FileName"] for row in table(file, "File")}
    assert b"PLACEHOLDER" in msi.extract(file.read_bytes())["readme.txt"]
    (control,) = table(file, "ServiceControl")
    assert int(control["Event"]) & 1 == 0  # Not started.


def test_with_a_runtime_the_service_starts_and_runs_as_the_system(tmp_path: Path) -> None:
    file = package(tmp_path, RUNTIME)
    (service,) = table(file, "ServiceInstall")
    assert service["Name"] == content.SERVICE
    assert service["ServiceType"] == "16"  # SERVICE_WIN32_OWN_PROCESS
    assert service["StartType"] == "2"  # SERVICE_AUTO_START
    assert service["StartName"] == ""  # LocalSystem
    assert service["Arguments"] == (
        r"-X pycache_prefix=[WindowsFolder]Tandem\pycache -m tandem.agent.platform.windows service"
    )
    keys = {row["Component"]: row["KeyPath"] for row in table(file, "Component")}
    names = {row["File"]: row["FileName"] for row in table(file, "File")}
    assert names[keys[service["Component_"]]] == "python.exe"
    (control,) = table(file, "ServiceControl")
    assert control["Name"] == content.SERVICE
    assert int(control["Event"]) == 1 | 2 | 32 | 128  # Start, stop, stop, delete.
    assert properties(file)["TANDEMRUNTIME"] == f"python-9-embed {'ab' * 32}"


def test_no_action_of_ours_runs_anything(tmp_path: Path) -> None:
    """51 sets a property. A package that starts programs cannot be undone by its installer."""
    assert [row["Type"] for row in table(package(tmp_path, RUNTIME), "CustomAction")] == ["51"]


def test_an_older_or_equal_version_is_replaced_and_a_newer_one_is_kept(tmp_path: Path) -> None:
    file = package(tmp_path)
    rows = {row["ActionProperty"]: row for row in table(file, "Upgrade")}
    assert {row["UpgradeCode"] for row in rows.values()} == {properties(file)["UpgradeCode"]}
    older, newer = rows["OLDERFOUND"], rows["NEWERFOUND"]
    assert (older["VersionMin"], older["VersionMax"]) == ("0.0.0", "1.2.4")  # Maximum exclusive.
    assert (newer["VersionMin"], newer["VersionMax"]) == ("1.2.4", "")
    assert (older["Attributes"], newer["Attributes"]) == ("256", "258")  # Minimum inclusive.
    assert [row["Condition"] for row in table(file, "LaunchCondition")] == ["NOT NEWERFOUND"]
    at = {row["Action"]: int(row["Sequence"]) for row in table(file, "InstallExecuteSequence")}
    assert at["InstallValidate"] < at["RemoveExistingProducts"] < at["InstallInitialize"]
    assert at["AppSearch"] < at["KeepCommandLine"] < at["InstallValidate"]


def test_files_keep_their_folders_and_the_interpreter_finds_the_wheel_only(tmp_path: Path) -> None:
    file = package(tmp_path, RUNTIME)
    files = msi.extract(file.read_bytes())
    names = {row["FileName"]: row["File"] for row in table(file, "File")}
    assert files[names["python312._pth"]] == (
        f"python312.zip\r\n.\r\nsite-packages\r\n..\\{WHEEL_NAME}\r\n".encode()
    )
    assert files["bootstrap.whl"] == WHEEL
    folders = {row["Directory"]: row for row in table(file, "Directory")}
    components = {row["Component"]: row["Directory_"] for row in table(file, "Component")}
    folder = next(r for r in table(file, "File") if r["FileName"] == "a b.txt")
    msgspec = folders[components[folder["Component_"]]]
    assert msgspec["DefaultDir"] == "msgspec"
    assert folders[msgspec["Directory_Parent"]]["DefaultDir"] == "site-packages"


def test_another_runtime_is_another_product_of_the_same_line(tmp_path: Path) -> None:
    with_it, without = properties(package(tmp_path, RUNTIME)), properties(package(tmp_path))
    assert with_it["ProductCode"] != without["ProductCode"]
    assert with_it["UpgradeCode"] == without["UpgradeCode"]


# ------------------------------------------------------------------------------- the runtime


def archive(files: dict[str, bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """What stands for python.org's archive, and a folder of wheels."""
    embed, wheels = tmp_path / "python-9-embed.zip", tmp_path / "wheels"
    embed.write_bytes(archive({"python.exe": b"MZ", "python39._pth": b".", "python39.zip": b"P"}))
    wheels.mkdir()
    (wheels / "msgspec-1.whl").write_bytes(archive({"msgspec/__init__.py": b"#"}))
    return embed, wheels


def test_a_runtime_is_made_from_pinned_parts_the_same_each_time(
    tmp_path: Path, parts: tuple[Path, Path]
) -> None:
    embed, wheels = parts
    pins = {"sha256": hashlib.sha256(embed.read_bytes()).hexdigest(), "version": "9", "file": "x"}
    made = make.assemble(embed, wheels, pins)
    assert make.assemble(embed, wheels, pins) == made
    file = tmp_path / "runtime.zip"
    file.write_bytes(made)
    runtime = content.load_runtime(file)
    assert runtime.sha256 == hashlib.sha256(made).hexdigest()
    assert set(runtime.files) == {
        "python.exe", "python39._pth", "python39.zip", "site-packages/msgspec/__init__.py"
    }  # fmt: skip


def test_another_python_than_the_pinned_one_is_not_packed(
    tmp_path: Path, parts: tuple[Path, Path], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = ["msi", "--python-embed", str(parts[0]), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", words)
    assert make.main() == 1
    said = capsys.readouterr().err
    assert "SHA-256" in said
    assert "python-3.12.10-embed-amd64.zip" in said
    assert not list((tmp_path / "out").iterdir())


def test_make_msi_without_inputs_makes_a_placeholder_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["msi", "--out", str(tmp_path / "out")])
    assert make.main() == 0
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == "ccmsetup-PLACEHOLDER.msi"
    assert capsys.readouterr().out.count("PLACEHOLDER: ") == 2
    assert msi.read(file.read_bytes()).properties["TANDEMRUNTIME"] == "PLACEHOLDER"


def test_a_package_for_a_site_takes_site_and_root_from_that_sites_package(
    tmp_path: Path, parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, site_root: bytes
) -> None:
    embed, wheels = parts
    mine = content.build_msi("1.2.3", "CM1", site_root, make._fingerprint(site_root), "w", b"w")
    source = tmp_path / "ccmsetup.msi"
    source.write_bytes(mine.data)
    pins = tmp_path / "pins.toml"
    digest = hashlib.sha256(embed.read_bytes()).hexdigest()
    pins.write_text(f'version = "9"\nfile = "x"\nsha256 = "{digest}"\n')
    monkeypatch.setattr(make, "PINS", pins)
    make.build(embed, wheels, source, "1.2.3", tmp_path / "out")
    found = tmp_path / "out" / "ccmsetup.msi"
    assert properties(found)["SMSSITECODE"] == "CM1"
    assert properties(found)["UpgradeCode"] == properties(source)["UpgradeCode"]
    assert msi.extract(found.read_bytes())["trusted_root.pem"] == site_root


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"python.exe": b"", "site-packages/msgspec/__init__.py": b""}, "._pth"),
        ({"python312._pth": b"", "site-packages/msgspec/__init__.py": b""}, "python.exe"),
        ({"python312._pth": b"", "python.exe": b""}, "msgspec"),
        ({"../evil.dll": b""}, "evil"),
        ({"/windows/system32/x.dll": b""}, "system32"),
        ({'a"b.txt': b""}, "a"),
    ],
)
def test_an_archive_that_is_no_runtime_is_refused(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    file = tmp_path / "runtime.zip"
    file.write_bytes(archive(files))
    with pytest.raises(content.BadRuntime, match=said) as refusal:
        content.load_runtime(file)
    assert "PYTHON_EMBED" in refusal.value.cure


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "runtime.zip"
    file.write_bytes(data)
    with pytest.raises(content.BadRuntime):
        content.load_runtime(file)


def test_every_library_that_the_agent_asks_for_is_pinned_for_windows() -> None:
    pinned = {line.split("==")[0] for line in make.LOCK.read_text().splitlines() if "==" in line}
    with zipfile.ZipFile(BytesIO(WHEEL)) as wheel:
        (metadata,) = (n for n in wheel.namelist() if n.endswith("METADATA"))
        lines = wheel.read(metadata).decode().splitlines()
    asked = [line.split(": ")[1] for line in lines if line.startswith("Requires-Dist")]
    on_windows = {name for name in asked if "!= 'win32'" not in name}
    assert on_windows <= pinned
    assert "msgspec" in on_windows
