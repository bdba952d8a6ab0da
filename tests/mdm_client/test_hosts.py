"""The agent's process, which runs the code that was in the package."""

import asyncio
import io
import zipfile
from pathlib import Path

import pytest

from tandem.agent import MeetingPlace
from tandem.agent.mdm import AgentHosts, BadBootstrap, DeviceSettings

_MAIN = """
import json, sys
import parts
for line in sys.stdin:
    order = json.loads(line)
    if order["op"] == "host":
        print(json.dumps({"device": order["name"], "said": str(parts.COUNT)}), flush=True)
"""
_PARTS = 400


def bootstrap() -> bytes:
    """A wheel of many modules, each of which its start needs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("__main__.py", _MAIN)
        for number in range(_PARTS):
            archive.writestr(f"parts/part{number}.py", f"# {number}\n" * 50)
        every = "\n".join(f"from parts import part{number}" for number in range(_PARTS))
        archive.writestr("parts/__init__.py", f"{every}\nCOUNT = {_PARTS}\n")
    return out.getvalue()


def device(folder: Path, name: str) -> DeviceSettings:
    return DeviceSettings(
        name, folder / name, "https://localhost", "contoso", durable=False, simulated=True
    )


async def test_devices_that_install_one_package_at_once_get_it_whole(tmp_path: Path) -> None:
    heard: dict[str, str] = {}
    hosts = AgentHosts(tmp_path / "bootstrap", heard.__setitem__)
    devices = [device(tmp_path, f"PC-{number:02}") for number in range(12)]
    files = {"bootstrap.whl": bootstrap(), "trusted_root.pem": b"root"}
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(
                    hosts.install(one, MeetingPlace(one.state / "meeting"), files, "LINE")
                    for one in devices
                )
            )
            while len(heard) < len(devices):
                await asyncio.sleep(0.05)
    finally:
        await hosts.close()
    assert set(heard.values()) == {str(_PARTS)}
    (code,) = (tmp_path / "bootstrap").iterdir()
    assert len(list((code / "parts").glob("part*.py"))) == _PARTS


async def test_what_is_no_bootstrap_leaves_nothing(tmp_path: Path) -> None:
    hosts = AgentHosts(tmp_path / "bootstrap", lambda name, said: None)
    one = device(tmp_path, "PC-01")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    for wheel in (b"no wheel", empty.getvalue()):
        with pytest.raises(BadBootstrap):
            await hosts.install(
                one,
                MeetingPlace(one.state / "meeting"),
                {"bootstrap.whl": wheel, "trusted_root.pem": b"root"},
                "LINE",
            )
    assert list((tmp_path / "bootstrap").iterdir()) == []
