"""The connection analyzer at a real gateway and a real connection point, each hop cut in turn."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import site_world
import tenant_world
from site_world import NAME, PFX_PASSWORD, Site, admin, connect, pfx
from tandem import pki
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.site.cloud_services.gateways import INSTANCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Rows = dict[str, dict[str, Any]]


@pytest.fixture
async def site(site_db: Database, tenant_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "tenant").mkdir()
    async with tenant_world.live(tenant_db, tmp_path / "tenant") as (world, root):
        base = world.tokens.settings.base
        async with site_world.site(site_db, tmp_path, base, root, INSTANCE) as made:
            yield made


async def _analyzed(site: Site, *words: object, cause: str = "", check: str = "") -> Rows:
    """The rows, as soon as the check has this cause: news is on its way for a moment."""
    for _ in range(150):
        found = await site.run("gateway", "analyze", *words)
        rows = {item["check"]: item for item in found["checks"]}
        if not check and found["ok"]:
            return rows
        if check and rows[check]["cause"] == cause:
            assert rows[check]["cure"]
            return rows
        await asyncio.sleep(0.2)
    raise AssertionError(found)


async def test_every_hop_of_a_real_way_is_named_when_it_is_cut(site: Site) -> None:
    await connect(site)
    file, public_root = site.folder / "cmg.pfx", site.folder / "public.pem"
    file.write_bytes(pfx(NAME, root_file=public_root))
    made = await site.run(
        *("gateway", "create", "--pfx", file, "--password-file", site.secret("p", PFX_PASSWORD)),
        *admin(site),
    )
    site.names.aliases[NAME] = "mycmg.cloudapp.example"
    site.names.hosts["mycmg.cloudapp.example"] = [made["nodes"][0]["host"]]
    # No connection point yet: the gateway has no rules, and no way in.
    rows = await _analyzed(site, check="channel", cause="tunnel.no-point")
    assert rows["instance"]["state"] == rows["tls"]["state"] == "good"
    assert rows["configuration"]["cause"] == "probe.older-rules"
    point = await site.run(
        *("connection-point", "add", "CP01", "--folder", site.folder / "cp01"),
        *("--gateway-ca-file", public_root, "--report-seconds", "0.2"),
    )
    # In the test the management point's certificate is of a root of its own.
    own_root = (site.folder / "site-root.pem").read_bytes()
    (site.folder / "cp01" / "root.pem").write_bytes(own_root)

    async def connector() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tandem.cli", "connector", "run", "--config", point["settings"])
        )

    running = await connector()
    try:
        await _analyzed(site, check="management-point", cause="probe.not-published")
        await site.run("management-point", "set", "--allow-gateway-traffic")
        await _analyzed(site)
        await _tokens_and_certificates(site)
        await _management_point(site)
        running.terminate()
        await running.wait()
        await _analyzed(site, check="management-point", cause="probe.no-point")
        running = await connector()
        await _analyzed(site)
        await _connected_by_another_root(site)
    finally:
        if running.returncode is None:
            running.terminate()
            await running.wait()


async def _tokens_and_certificates(site: Site) -> None:
    bad = site.secret("bad-token", "eyJhbGciOiJub25lIn0.e30.")
    rows = await _analyzed(
        site, "--token-file", bad, check="management-point", cause="probe.token-refused"
    )
    assert rows["identity"]["cause"] == "identity.token"
    assert "CMGService_Invalid_Token" in rows["management-point"]["text"]
    clients = pki.new_root(pki.name("Clients' root"), now=utc_now())
    root, crl = site.folder / "clients.pem", site.folder / "clients.crl"
    root.write_bytes(pki.pem(clients.certificate))
    key, now = pki.generate_key(), utc_now()
    leaf = clients.issue(key.public_key(), pki.name("PC-1"), now=now, days=30, usages=["client"])
    mine = site.folder / "pc-1.pfx"
    mine.write_bytes(pki.pfx_export(key, leaf, [], PFX_PASSWORD, "PC-1"))
    who = ("--client-pfx", mine, "--password-file", site.secret("p", PFX_PASSWORD))
    # Nobody's certificate is asked for while no authority is uploaded.
    rows = await _analyzed(site, *who, check="management-point", cause="probe.not-believed")
    assert rows["identity"]["cause"] == "identity.certificate-unknown"
    await site.run("management-point", "trust-root", root)
    rows = await _analyzed(site, *who, check="management-point", cause="probe.no-list")
    assert rows["crl"]["cause"] == "crl.missing"

    async def publish(*revoked: int, number: int) -> None:
        made = utc_now()
        entries = [(serial, made) for serial in revoked]
        crl.write_bytes(
            clients.crl(entries, now=made, next_update=made + timedelta(days=9), number=number)
        )
        await site.run("management-point", "add-crl", crl)

    await publish(number=1)
    await _analyzed(site, *who)
    await publish(leaf.serial_number, number=2)
    rows = await _analyzed(site, *who, check="management-point", cause="probe.revoked")
    assert rows["identity"]["cause"] == "identity.certificate-revoked"
    stranger = site.folder / "stranger.pfx"
    stranger.write_bytes(pfx(NAME, usages=["client"]))
    who = ("--client-pfx", stranger, "--password-file", site.secret("p", PFX_PASSWORD))
    rows = await _analyzed(site, *who, check="management-point", cause="probe.certificate-refused")
    assert rows["tls"]["state"] == "good"


async def _management_point(site: Site) -> None:
    """It is away: where the connection point is to find it, nothing listens."""
    connections = site.cloud.connections
    settings = connections.settings
    away = f"https://localhost:{site_world.free_ports()}"
    object.__setattr__(
        connections, "settings", msgspec.structs.replace(settings, management_point_url=away)
    )
    site.cloud.news.tell()
    rows = await _analyzed(site, check="management-point", cause="probe.management-point")
    assert "CMGConnector_Management_Point_Unreachable" in rows["management-point"]["text"]
    assert rows["channel"]["state"] == "good"
    object.__setattr__(connections, "settings", settings)
    site.cloud.news.tell()
    await _analyzed(site)


async def _connected_by_another_root(site: Site) -> None:
    """The instance shows what is not the gateway's: the files of the instance were changed by hand."""
    folder = next((site.folder / "gateways").rglob("*.pfx")).parent
    file = next(folder.glob("*.pfx"))
    before = file.read_bytes()
    file.write_bytes(pfx(NAME))
    node = (await site.run("gateway", "show"))["nodes"][0]
    os.kill(node["pid"], signal.SIGHUP)
    rows = await _analyzed(site, check="tls", cause="probe.certificate-unknown")
    assert rows["management-point"]["state"] == "skipped"
    file.write_bytes(before)
    os.kill(node["pid"], signal.SIGHUP)
    await _analyzed(site)
