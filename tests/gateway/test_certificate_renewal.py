"""Another certificate takes the place of the old while clients are served: none is turned away."""

import asyncio
import os
import signal
import ssl
from typing import Any

import psutil
import pytest
from cryptography import x509

from tandem import pki

from .conftest import BASE, NAME, Rig, another_certificate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]


def said(rig: Rig) -> str:
    return "".join(
        file.read_text() for file in rig.folder.rglob("*") if file.suffix in {".out", ".jsonl"}
    )


async def shown(rig: Rig, port: int, certificate: str = "") -> str:
    """The fingerprint of what a new connection is shown."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=rig.context(certificate), server_hostname=NAME
    )
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    leaf = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    writer.close()
    return pki.sha256_fingerprint(leaf)


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_is_shown_from_the_next_connection_on_and_nobody_is_turned_away(
    rig: Rig, workers: int
) -> None:
    if workers > 1:
        await asyncio.to_thread(rig.stop, "gateway")
        rig.workers = workers
        rig.start_gateway()
        await rig.until(lambda facts: facts["tunnels"] == 1 and facts["version"] == 1)
    gateway = psutil.Process(rig.processes["gateway"].pid)
    before = [gateway.pid, *(child.pid for child in gateway.children())]
    stop, answers, headers = asyncio.Event(), [], {"Authorization": f"Bearer {rig.token()}"}

    async def ask(**options: Any) -> None:
        async with rig.client(**options) as client:
            while not stop.is_set():
                answers.append((await client.get(f"{BASE}/echo", headers=headers)).status_code)

    async with rig.client() as kept:
        assert (await kept.get(f"{BASE}/echo", headers=headers)).status_code == 200
        asking = [asyncio.create_task(ask()) for _ in range(3)]
        # What cannot be used leaves the one before.
        (rig.folder / "server.pfx").write_bytes(b"no PFX")
        old = (await rig.health())["certificate"]
        os.kill(gateway.pid, signal.SIGHUP)
        async with asyncio.timeout(10):
            while "certificate not renewed" not in said(rig):
                await asyncio.sleep(0.02)
        assert await shown(rig, rig.port) == old
        new = another_certificate(rig)
        os.kill(gateway.pid, signal.SIGHUP)
        await rig.until(lambda facts: facts["certificate"] == new)
        for port, role in ((rig.port, ""), (rig.tunnel_port, "CP01")):
            async with asyncio.timeout(10):
                # The other worker may be a moment behind the one that speaks of itself.
                while {await shown(rig, port, role) for _ in range(8)} != {new}:
                    await asyncio.sleep(0.05)
        assert (await kept.get(f"{BASE}/echo", headers=headers)).status_code == 200
        stop.set()
        await asyncio.gather(*asking)
    assert old != new
    assert set(answers) == {200}
    assert [gateway.pid, *(child.pid for child in gateway.children())] == before
    assert (await rig.health())["tunnels"] == 1
