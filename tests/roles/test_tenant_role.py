"""The tenant role: what an empty database begins with, and what its listeners ask for."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest

from site_world import free_ports
from tandem import pki
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.roles import tenant
from tandem.tenant import licensing


@pytest.mark.parametrize("required", [False, True])
async def test_the_first_tenant_asks_for_licences_when_its_settings_say_so(
    tenant_db: Database, tmp_path: Path, required: bool
) -> None:
    (tmp_path / "password").write_text("Correct-Horse-1")
    first = tenant.First(
        "Contoso",
        "contoso.com",
        "admin@contoso.com",
        tmp_path / "password",
        licence_required=required,
    )
    settings = tenant.TenantSettings(
        state=tmp_path,
        public_url="https://t",
        management_url="https://m",
        certificate=tmp_path / "c",
        key=tmp_path / "k",
        first=first,
    )
    for _ in range(2):
        await tenant.begin(settings, tenant_db)
    async with tenant_db.transaction() as tx:
        assert await licensing.licence_required(tx) is required
        (found,) = await licensing.subscriptions(tx)
    assert found.seats is None, "one product without a limit"


@pytest.mark.parametrize("asks", [False, True])
async def test_the_public_listener_asks_for_device_certificates_only_when_told_to(
    tenant_db: Database, tmp_path: Path, asks: bool
) -> None:
    """Who asks refuses a certificate that is not of this tenant's devices; who does not never sees it."""
    root = pki.new_root(pki.name("Test root"), now=utc_now())
    _issue(root, tmp_path / "server", usage="server")
    _issue(pki.new_root(pki.name("Strange root"), now=utc_now()), tmp_path / "stranger")
    (tmp_path / "root.pem").write_bytes(pki.pem(root.certificate))
    (tmp_path / "password").write_text("Correct-Horse-1")
    public = free_ports(3)
    settings = tenant.TenantSettings(
        state=tmp_path,
        public_url=f"https://localhost:{public}",
        management_url=f"https://localhost:{public + 1}/ManagementServer/MDM.svc",
        certificate=tmp_path / "server.pem",
        key=tmp_path / "server.key",
        first=tenant.First("Contoso", "contoso.com", "a@contoso.com", tmp_path / "password"),
        dsn=tenant_db.dsn,
        host="127.0.0.1",
        port=public,
        management_port=public + 1,
        ask_for_device_certificates=asks,
        health_port=public + 2,
        ca_file=tmp_path / "root.pem",
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(tenant._main(settings, stop))
    try:
        assert await _status(settings) == 401
        if asks:
            with pytest.raises(httpx.TransportError):
                await _status(settings, tmp_path / "stranger")
        else:
            assert await _status(settings, tmp_path / "stranger") == 401
    finally:
        stop.set()
        await serving


def _issue(root: pki.Authority, path: Path, usage: str = "client") -> None:
    key = pki.generate_key("p256")
    leaf = root.issue(
        key.public_key(),
        pki.name("localhost"),
        now=utc_now(),
        days=1,
        dns=["localhost"],
        usages=[usage],
    )
    path.with_suffix(".pem").write_bytes(pki.pem(leaf))
    path.with_suffix(".key").write_bytes(pki.key_pem(key))


async def _status(settings: tenant.TenantSettings, shown: Path | None = None) -> int:
    """What the public listener answers to someone who could show this certificate."""
    context = ssl.create_default_context(cafile=str(settings.ca_file))
    if shown is not None:
        context.load_cert_chain(shown.with_suffix(".pem"), shown.with_suffix(".key"))
    transport = httpx.AsyncHTTPTransport(verify=context, retries=6, trust_env=False)
    async with httpx.AsyncClient(transport=transport) as web:
        return (await web.get(f"{settings.public_url}/v1.0/users")).status_code
