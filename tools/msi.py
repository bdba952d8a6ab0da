"""`make msi`: the Windows client package, by the same code with which a site builds its own.

    make msi                                               a placeholder where the runtime would be
    make msi PYTHON_EMBED=~/python-3.12.10-embed-amd64.zip           also the runtime's archive
    make msi PYTHON_EMBED=… FROM=ccmsetup.msi              for the site whose package that is

Into OUT (dist). The archive is for the site's settings, as `client_runtime`: from then on the site
gives out packages with it.
"""

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

import tandem
from tandem.infra.errors import AppError, Invalid
from tandem.protocols import msi
from tandem.site import content

_HERE = Path(__file__).parent
PINS, LOCK = _HERE / "windows-runtime.toml", _HERE / "windows-runtime.lock"
_DATE = (1980, 1, 1, 0, 0, 0)
# Of nobody: a bootstrap refuses to trust what is no certificate.
_NO_ROOT = b"PLACEHOLDER: this package belongs to no site; build it with FROM=ccmsetup.msi.\n"
_NO_SITE = "XXX"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python-embed", type=Path, help="python.org's embeddable package")
    parser.add_argument("--wheels", type=Path, help="a folder with the wheels; unset: pip fetches")
    parser.add_argument("--from", dest="source", type=Path, help="the site's own ccmsetup.msi")
    parser.add_argument("--version", default=tandem.__version__)
    parser.add_argument("--out", type=Path, default=Path("dist"))
    given = parser.parse_args()
    try:
        for line in build(given.python_embed, given.wheels, given.source, given.version, given.out):
            print(line)
    except AppError as error:
        print(f"Error: {error.message} {error.cure}", file=sys.stderr)
        return 1
    return 0


def build(
    embed: Path | None, wheels: Path | None, source: Path | None, version: str, out: Path
) -> list[str]:
    """Write the package, and the runtime's archive. Returns what to say. Raises AppError."""
    out.mkdir(parents=True, exist_ok=True)
    said = []
    runtime = content.NO_RUNTIME
    if embed is not None:
        archive = assemble(embed, wheels, tomllib.loads(PINS.read_text("utf-8")))
        file = out / f"tandem-{embed.stem}.zip"
        file.write_bytes(archive)
        runtime = content.load_runtime(file)
        said.append(f"Runtime  {file} SHA-256 {runtime.sha256}")
    site, root = _site(source)
    wheel_name, wheel = content.agent_wheel(version)
    digest = hashlib.sha256(root).hexdigest() if root == _NO_ROOT else _fingerprint(root)
    built = content.build_msi(version, site, root, digest, wheel_name, wheel, runtime)
    whole = embed is not None and source is not None
    file = out / ("ccmsetup.msi" if whole else "ccmsetup-PLACEHOLDER.msi")
    file.write_bytes(built.data)
    said.append(f"Package  {file} SHA-256 {hashlib.sha256(built.data).hexdigest()}")
    said.append(f"Product  {built.product_code} version {version}, site {site}")
    if embed is None:
        said.append("PLACEHOLDER: no Windows Python runtime in it; give PYTHON_EMBED=….")
    if source is None:
        said.append("PLACEHOLDER: it belongs to no site; give FROM=ccmsetup.msi of one.")
    return said


def assemble(embed: Path, wheels: Path | None, pins: dict[str, str]) -> bytes:
    """The runtime's archive, the same bytes for the same inputs. Raises Invalid."""
    try:
        data = embed.read_bytes()
    except OSError as error:
        raise Invalid(f"{embed} cannot be read: {error.strerror}.") from None
    found = hashlib.sha256(data).hexdigest()
    if found != pins["sha256"]:
        raise Invalid(
            f"{embed} is not {pins['file']}: its SHA-256 is {found}, not {pins['sha256']}.",
            cure=f"Take the Windows embeddable package (64-bit) of Python {pins['version']}.",
        )
    with tempfile.TemporaryDirectory(prefix="tandem-runtime-") as folder:
        if wheels is None:
            wheels = Path(folder)
            _fetch(wheels)
        files = dict(_members(data, ""))
        for wheel in sorted(wheels.glob("*.whl")):
            files |= dict(_members(wheel.read_bytes(), "site-packages/"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content_ in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content_)
    return out.getvalue()


def _members(data: bytes, below: str) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(below + e.filename, archive.read(e)) for e in archive.infolist() if not e.is_dir()]


def _fetch(folder: Path) -> None:
    """The locked wheels for Windows, with pip, which checks their hashes."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    where = ["--platform", "win_amd64", "--python-version", "312", "--implementation", "cp"]
    what = ["--only-binary=:all:", "--no-deps", "--require-hashes", "-r", str(LOCK)]
    done = subprocess.run([*pip, *where, *what, "-d", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Invalid(
            f"pip could not fetch the wheels: {done.stderr.strip().splitlines()[-1:]}.",
            cure="Check the network, or give a folder with them: --wheels.",
        )


def _site(source: Path | None) -> tuple[str, bytes]:
    if source is None:
        return _NO_SITE, _NO_ROOT
    try:
        data = source.read_bytes()
    except OSError as error:
        raise Invalid(f"{source} cannot be read: {error.strerror}.") from None
    code = msi.read(data).properties.get("SMSSITECODE")
    root = msi.extract(data).get("trusted_root.pem")
    if not code or not root:
        raise Invalid(f"{source} is no client package of a site.", cure="Save it from the console.")
    return code, root


def _fingerprint(root: bytes) -> str:
    from tandem import pki

    return pki.sha256_fingerprint(pki.read_certificates(root)[0])


if __name__ == "__main__":
    raise SystemExit(main())
