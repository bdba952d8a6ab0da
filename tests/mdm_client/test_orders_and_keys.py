"""Orders that could never be carried out, and keys that two ask for at once."""

import asyncio
import threading
from pathlib import Path

import pytest

from tandem import pki
from tandem.agent.mdm import AgentHosts, Device, DeviceSettings, Network
from tandem.agent.mdm.applications import read_job

CODE = "{11111111-2222-3333-4444-555555555555}"


def job(sha256: str) -> str:
    return (
        f'<MsiInstallJob id="{CODE}"><Product Version="1.2.3"><Download><ContentURLList>'
        "<ContentURL>https://t/a.msi</ContentURL></ContentURLList></Download><Validation>"
        f"<FileHash>{sha256}</FileHash></Validation><Enforcement><CommandLine/>"
        "<TimeOut>10</TimeOut><RetryCount>0</RetryCount><RetryInterval>1</RetryInterval>"
        "</Enforcement></Product></MsiInstallJob>"
    )


@pytest.mark.parametrize("sha256", ["", "zz" * 32, "ab" * 31, "é" * 64])
def test_a_job_whose_hash_no_file_can_have_is_refused_at_once(sha256: str) -> None:
    with pytest.raises(ValueError, match="FileHash"):
        read_job(job(sha256))


def test_a_hash_may_be_written_in_capitals() -> None:
    assert read_job(job("AB" * 32)).sha256 == "ab" * 32


async def test_an_enrolment_waits_for_the_key_that_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are made ahead of time; who enrols meanwhile gets that key, and no second one is made."""
    network = Network()
    device = Device(
        DeviceSettings(name="A", state=tmp_path / "d", tenant_url="https://t", tenant_id="T"),
        network,
        AgentHosts(tmp_path / "b", lambda device, what: None),
    )
    begun, go_on = threading.Event(), threading.Event()
    made: list[str] = []

    def slow(kind: str) -> pki.PrivateKey:
        made.append(kind)
        begun.set()
        assert go_on.wait(10)
        return real("p256")

    real = pki.generate_key
    monkeypatch.setattr(pki, "generate_key", slow)
    ahead = asyncio.create_task(asyncio.to_thread(device.prepare))
    assert await asyncio.to_thread(begun.wait, 10)
    others = [asyncio.create_task(asyncio.to_thread(device.prepare)) for _ in range(3)]
    # Long enough for them to begin one, if nothing held them.
    await asyncio.wait(others, timeout=0.2)
    go_on.set()
    await asyncio.gather(ahead, *others)
    await network.close()
    assert made == ["rsa2048"]
