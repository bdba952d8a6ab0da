"""The client package: built once, the same bytes each time, and able to run alone."""

import asyncio
import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest

from tandem import pki
from tandem.infra.blobs import Blobs
from tandem.infra.clock import utc_now
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm, msi
from tandem.site import content, properties

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def root() -> pki.Authority:
    return pki.new_root(pki.name("Site"), now=NOW, days=9)


def built(root: pki.Authority, version: str = "1.2.3") -> content.BuiltMsi:
    name, wheel = content.agent_wheel(version)
    pem = pki.pem(root.certificate)
    return content.build_msi(
        version, "CM1", pem, pki.sha256_fingerprint(root.certificate), name, wheel
    )


def test_the_msi_carries_bootstrap_and_trusted_root(root: pki.Authority) -> None:
    made = built(root)
    found = msi.read(made.data)
    assert found.product_name == "ConfigMgr Client Setup Bootstrap"
    assert found.product_version == "1.2.3"
    assert found.per_machine
    assert "CCMSETUPCMD" in found.properties["SecureCustomProperties"].split(";")
    files = msi.extract(made.data)
    assert files["trusted_root.pem"] == pki.pem(root.certificate)
    assert files["bootstrap.whl"] == content.agent_wheel("1.2.3")[1]


async def test_the_same_content_is_the_same_file_whenever_it_is_built(root: pki.Authority) -> None:
    first = built(root)
    await asyncio.sleep(1.1)  # wixl would write another time.
    # What it takes from its own memory layout differs now and then only.
    assert all(built(root) == first for _ in range(30))


def test_another_version_or_site_is_another_product(root: pki.Authority) -> None:
    other = pki.new_root(pki.name("Site"), now=NOW, days=9)
    codes = {built(root).product_code, built(root, "1.2.4").product_code, built(other).product_code}
    assert len(codes) == 3


def test_without_wixl_it_is_said_what_to_install(
    root: pki.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(content.BuildFailed) as refusal:
        built(root)
    assert "wixl" in refusal.value.cure


def test_the_wheel_runs_without_the_rest_of_the_product(tmp_path: Path) -> None:
    """Everything it imports of tandem comes from the wheel, and a host ends with its input."""
    name, wheel = content.agent_wheel("1.2.3")
    with zipfile.ZipFile(BytesIO(wheel)) as archive:
        archive.extractall(tmp_path)
        assert not [n for n in archive.namelist() if "/site/" in n or "/tenant/" in n]
    done = subprocess.run(
        [sys.executable, str(tmp_path)],
        input=json.dumps({"op": "begin", "logs": str(tmp_path / "logs")}).encode() + b"\n",
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    check = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tandem.agent.fleet, tandem.agent;"
        "print([m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'tandem'"
        " and not m.__file__.startswith(sys.argv[1])])"
    )
    said = subprocess.run(
        [sys.executable, "-c", check, str(tmp_path)], capture_output=True, timeout=30
    )
    assert said.stdout.strip() == b"[]", said.stderr
    assert name == "tandem_agent-1.2.3-py3-none-any.whl"


async def test_a_package_is_built_once_and_kept(site_tx: Tx, tmp_path: Path) -> None:
    box = SecretBox.open(tmp_path / "keys" / "key")
    await properties.establish(site_tx, box, code="CM1", name="Lab", now=utc_now())
    blobs = Blobs.open(tmp_path / "content")
    packages = content.ClientPackages(blobs, utc_now, "1.2.3")
    first = await packages.current(site_tx)
    assert await packages.current(site_tx) == first
    assert await content.ClientPackages(blobs, utc_now, "1.2.3").current(site_tx) == first
    newer = await content.ClientPackages(blobs, utc_now, "1.2.4").current(site_tx)
    assert newer.product_code != first.product_code
    data = b"".join([piece async for piece in packages.read_msi(first)])
    assert msi.read(data).product_code == first.product_code
    manifest = await packages.manifest(site_tx)
    identity = await properties.signing_identity(site_tx, box)
    root = await properties.root_certificate(site_tx)
    opened = ccm.open_manifest(ccm.seal("manifest", manifest, identity), root, utc_now())
    found = await packages.content(opened.sha256)
    assert found
    assert found.size_bytes == opened.size_bytes
    wheel = content.agent_wheel("1.2.3")[1]
    assert b"".join([p async for p in found.read(5, 1000)]) == wheel[5:1000]
    assert await packages.content("0" * 64) is None


async def test_a_site_that_came_by_a_runtime_gives_out_another_product_from_then_on(
    site_tx: Tx, tmp_path: Path
) -> None:
    """And back: the package that was handed out before is still the one it was."""
    box = SecretBox.open(tmp_path / "keys" / "key")
    await properties.establish(site_tx, box, code="CM1", name="Lab", now=utc_now())
    blobs, archive = Blobs.open(tmp_path / "content"), tmp_path / "runtime.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for name in ("python.exe", "python312._pth", "site-packages/msgspec/__init__.py"):
            made.writestr(name, name)
    without = await content.ClientPackages(blobs, utc_now, "1.2.3").current(site_tx)
    rich = content.ClientPackages(blobs, utc_now, "1.2.3", archive)
    found = await rich.current(site_tx)
    assert found.product_code != without.product_code
    assert (bool(found.runtime_sha256), without.runtime_sha256) == (True, "")
    assert await rich.current(site_tx) == found
    assert await content.ClientPackages(blobs, utc_now, "1.2.3").current(site_tx) == without
    data = b"".join([piece async for piece in rich.read_msi(found)])
    assert msi.read(data).properties["TANDEMRUNTIME"] == f"runtime {found.runtime_sha256}"


def test_a_site_does_not_start_with_a_runtime_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "runtime.zip").write_bytes(b"nothing")
    with pytest.raises(content.BadRuntime):
        content.ClientPackages(
            Blobs.open(tmp_path / "c"), utc_now, "1.2.3", tmp_path / "runtime.zip"
        )
