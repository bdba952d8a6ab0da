"""Reading packages that real tools built, and what is made of damaged ones."""

import contextlib
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.protocols import msi
from tandem.protocols.msi.cabinet import BadCabinet

PRODUCT = "{11111111-2222-3333-4444-555555555555}"
SOURCE = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="11111111-2222-3333-4444-555555555555" Name="{name}" Language="1036" Version="1.2.3"
           Manufacturer="Contoso &amp; Co" UpgradeCode="21111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="500" Compressed="yes" {scope}/>
    <Media Id="1" Cabinet="files.cab" EmbedCab="yes"/>
    <Property Id="LONG" Value="{long}"/>
    <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="INSTALLDIR" Name="Thing">
      <Component Id="c" Guid="31111111-2222-3333-4444-555555555555">
        <File Id="big.bin" Name="big.bin" Source="big.bin" KeyPath="yes"/>
        <File Id="small.txt" Name="small.txt" Source="small.txt"/>
      </Component></Directory></Directory>
    <Feature Id="f" Level="1"><ComponentRef Id="c"/></Feature>
  </Product>
</Wix>
"""
BIG = random.Random(1).randbytes(100_000) + bytes(90_000)


def build(folder: Path, name: str = "Thing", scope: str = "", long: str = "x") -> bytes:
    (folder / "big.bin").write_bytes(BIG)
    (folder / "small.txt").write_bytes(b"hello")
    source = SOURCE.format(name=name, scope=scope, long=long)
    (folder / "thing.wxs").write_text(source, encoding="utf-8")
    subprocess.run(["wixl", "-o", "thing.msi", "thing.wxs"], cwd=folder, check=True)
    return (folder / "thing.msi").read_bytes()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(tmp_path_factory.mktemp("msi"), scope='InstallScope="perMachine"')


def test_a_package_says_what_it_is(package: bytes) -> None:
    found = msi.read(package)
    assert found.product_code == PRODUCT
    assert found.product_name == "Thing"
    assert found.product_version == "1.2.3"
    assert found.manufacturer == "Contoso & Co"
    assert found.upgrade_code == "{21111111-2222-3333-4444-555555555555}"
    assert found.language == "1036"
    assert found.per_machine


def test_the_files_inside_come_out_as_they_went_in(package: bytes) -> None:
    assert msi.extract(package) == {"big.bin": BIG, "small.txt": b"hello"}


def test_a_package_without_allusers_is_for_one_user(tmp_path: Path) -> None:
    found = msi.read(build(tmp_path, scope='InstallScope="perUser"'))
    assert found.package_type is msi.PackageType.PER_USER


def test_a_string_of_more_than_64_kb_does_not_shift_the_others(tmp_path: Path) -> None:
    found = msi.read(build(tmp_path, name="Behind", long="y" * 70_000))
    assert len(found.properties["LONG"]) == 70_000
    assert found.product_name == "Behind"


@pytest.mark.parametrize("data", [b"", b"MZ", b"PK\x03\x04" + bytes(5000), b"\x00" * 9999])
def test_another_file_is_named_as_such(data: bytes) -> None:
    with pytest.raises(msi.BadMsi, match="not a Windows Installer package") as refusal:
        msi.read(data)
    assert "Choose" in refusal.value.cure


@pytest.mark.parametrize("length", [8, 511, 1535, 1536, 5_000, 60_000, 100_000])
def test_a_truncated_package_is_refused(package: bytes, length: int) -> None:
    with pytest.raises(msi.BadMsi):
        msi.read(package[:length])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(), count=st.integers(1, 40))
def test_a_damaged_package_is_read_or_refused_and_nothing_else(
    package: bytes, seed: int, count: int
) -> None:
    chance = random.Random(seed)
    damaged = bytearray(package)
    # The head holds the allocation tables; the tables lie at the end.
    for _ in range(count):
        where = chance.choice([range(8, 2048), range(len(package) - 60_000, len(package))])
        damaged[chance.choice(where)] = chance.randrange(256)
    for work in (msi.read, msi.extract):
        with contextlib.suppress(msi.BadMsi):
            work(bytes(damaged))


def cabinet(files: dict[str, bytes], compression: int) -> bytes:
    """A cabinet written from [MS-CAB], block by block."""
    content = b"".join(files.values())
    blocks, before = [], b""
    for at in range(0, len(content), 32768):
        piece = content[at : at + 32768]
        packed = piece
        if compression == 1:
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=before)
            packed = b"CK" + deflate.compress(piece) + deflate.flush()
        blocks.append(struct.pack("<IHH", 0, len(packed), len(piece)) + packed)
        before = piece
    names, start = b"", 0
    for name, data in files.items():
        names += struct.pack("<IIHHHH", len(data), start, 0, 0, 0, 0x80) + name.encode() + b"\0"
        start += len(data)
    first = 36 + 8 + len(names)
    head = struct.pack("<4sIIIIIBBHHHHH", b"MSCF", 0, 0, 0, 44, 0, 3, 1, 1, len(files), 0, 0, 0)
    return head + struct.pack("<IHH", first, len(blocks), compression) + names + b"".join(blocks)


FILES = st.dictionaries(
    st.text("abcé._", min_size=1, max_size=9), st.binary(max_size=70_000), max_size=3
)


@settings(max_examples=30, deadline=None)
@given(files=FILES, compression=st.sampled_from([0, 1]))
def test_a_cabinet_comes_out_as_it_went_in(files: dict[str, bytes], compression: int) -> None:
    assert msi.unpack(cabinet(files, compression)) == files


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_bytes_that_are_no_cabinet_are_refused(data: bytes) -> None:
    with pytest.raises(BadCabinet):
        msi.unpack(b"XSCF" + data)
    with contextlib.suppress(BadCabinet):
        msi.unpack(b"MSCF" + data)
