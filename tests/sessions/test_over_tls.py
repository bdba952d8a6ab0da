"""The management listener with real TLS: the certificate of the handshake is the device."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from mdm_world import live_mdm
from tandem import pki
from tandem.infra.database import Database
from tandem.protocols import syncml
from tandem.protocols.syncml import Message


def trusting(
    root: Path, folder: Path, *, key: pki.PrivateKey, certificate: bytes
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(root))
    (folder / "mine.pem").write_bytes(pki.key_pem(key) + certificate)
    context.load_cert_chain(folder / "mine.pem")
    return context


async def test_only_a_certificate_of_the_device_ca_is_a_device(
    tenant_db: Database, tmp_path: Path
) -> None:
    async with live_mdm(tenant_db, tmp_path) as (mdm, root, url):
        device = await mdm.enrolled()
        message = syncml.write(Message("1", 1, url, device.windows_id))
        pem = ssl.DER_cert_to_PEM_cert(device.certificate).encode()
        mine = trusting(root, tmp_path, key=device.key, certificate=pem)
        async with httpx.AsyncClient(verify=mine) as client:
            answer = await client.post(url, content=message)
            assert answer.status_code == 200
            assert syncml.read(answer.content).commands
        nobody = ssl.create_default_context(cafile=str(root))
        async with httpx.AsyncClient(verify=nobody) as client:
            answer = await client.post(url, content=message)
            asked = syncml.read(answer.content)
            assert (asked.statuses[0].code, asked.commands) == (407, ())
        stranger = pki.new_root(_name(), now=datetime.now(UTC))
        theirs = trusting(
            root, tmp_path, key=stranger.key, certificate=pki.pem(stranger.certificate)
        )
        async with httpx.AsyncClient(verify=theirs) as client:
            with pytest.raises(httpx.TransportError):
                await client.post(url, content=message)


def _name() -> x509.Name:
    return pki.name("Tandem MDM Device CA")
