"""The service and the device's own MDM client, which was written by itself, over real TLS."""

from pathlib import Path

from mdm_world import ORDERING, live_mdm
from tandem.agent.mdm import AgentHosts, Device, DeviceSettings, Network
from tandem.infra.database import Database
from tandem.tenant import enrollment, policies, sessions
from tandem.tenant.directory import User
from tenant_world import PASSWORD

SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"


async def test_a_device_enrols_takes_a_setting_gives_it_back_and_leaves(
    tenant_db: Database, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    async with live_mdm(tenant_db, tmp_path) as (mdm, root, _):
        alex: User = await mdm.world.user("alex")
        group = await mdm.group("Everyone", alex.id)
        async with tenant_db.transaction() as tx:
            made = await policies.create(tx, "Lock", SETTING, "15", mdm.world.at)
            await policies.assign(tx, made.id, [group.id], [])
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
        device = Device(
            settings, network, AgentHosts(tmp_path / "agents", lambda device, what: None)
        )
        await device.enroll()
        await device.sync()
        async with tenant_db.transaction() as tx:
            (known,) = await enrollment.devices(tx)
            given = await sessions.deliveries(tx, known.id)
        assert (known.name, known.upn) == ("LAB-001", "alex@contoso.com")
        assert known.directory_device_id
        assert known.inventory["manufacturer"] == "Contoso"
        assert (given[SETTING].value, given[SETTING].code) == ("15", 200)
        assert device._policy.in_force(SETTING) == "15"

        async with tenant_db.transaction() as tx:
            await policies.remove(tx, policies.KIND, made.id, mdm.world.at, "")
        await device.sync()
        assert device._policy.in_force(SETTING) is None
        async with tenant_db.transaction() as tx:
            assert await sessions.deliveries(tx, known.id) == {}

        async with tenant_db.transaction() as tx:
            await mdm.sessions.order(tx, ORDERING, sessions.RETIRE, [known.id])
        await device.sync()
        assert device.account is None
        async with tenant_db.transaction() as tx:
            assert (await enrollment.device(tx, known.id)).state == "unenrolled"
        await network.close()
