"""An app on its way to the device's own MDM client, which was written by itself, over real TLS."""

import asyncio
from pathlib import Path

from app_content import publish
from mdm_world import live_mdm
from tandem.agent.mdm import AgentHosts, Device, DeviceSettings, Network
from tandem.infra.blobs import Blobs
from tandem.infra.database import Database
from tandem.tenant import mobile_apps
from tenant_world import PASSWORD


async def test_a_device_downloads_checks_and_installs_what_its_user_is_to_have(
    tenant_db: Database, tmp_path: Path, package: bytes
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    async with live_mdm(tenant_db, tmp_path) as (mdm, root, _):
        alex = await mdm.world.user("alex")
        group = await mdm.group("Everyone", alex.id)
        async with tenant_db.transaction() as tx:
            app = await mobile_apps.create(
                tx,
                name="",
                description="",
                publisher="",
                command_line="LANG=en",
                file_name="client setup.msi",
                now=mdm.world.at,
            )
        blobs = Blobs.open(tmp_path / "content")
        await publish(tenant_db, blobs, app.id, package, mdm.world.now)
        async with tenant_db.transaction() as tx:
            await mobile_apps.assign(tx, app.id, [group.id], [])
        network = Network(ca_file=root)
        settings = DeviceSettings(
            name="LAB-001",
            state=tmp_path / "device",
            tenant_url=mdm.world.tokens.settings.base,
            tenant_id=mdm.world.tenant.id,
            upn="alex@contoso.com",
            password_file=tmp_path / "password",
            durable=False,
        )
        device = Device(settings, network, AgentHosts(tmp_path / "agents", lambda name, what: None))
        stop = asyncio.Event()
        running = asyncio.create_task(device.run(stop))
        await device.enroll()
        async with asyncio.timeout(30):
            while (state := await _state(tenant_db, app.id)) not in {"installed", "failed"}:
                # The device works on its own time; a session is when it tells.
                await asyncio.sleep(0.1)
                await device.sync()
        assert state == "installed"
        stop.set()
        await running
        await network.close()


async def _state(database: Database, app: str) -> str:
    async with database.transaction() as tx:
        found = await mobile_apps.statuses(tx, app_id=app)
    return found[0].state if found else ""
