"""The service and the device's own MDM client, which was written by itself, over real TLS."""

import json
from pathlib import Path
from typing import Any

from mdm_world import ORDERING, live_mdm
from tandem.agent import open_gate
from tandem.agent.handlers import Handlers
from tandem.agent.installation import FILE, Installation, client_folder
from tandem.agent.journal import Journal
from tandem.agent.mdm import AgentHosts, Device, DeviceSettings, Network
from tandem.agent.session import Connection
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.tenant import enrollment, policies, sessions
from tandem.tenant.directory import User
from tandem.workloads import Workload, capabilities
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


async def test_a_custom_setting_of_the_tenant_becomes_a_file_on_linux_while_it_is_the_owner(
    tenant_db: Database, tmp_path: Path
) -> None:
    """From the profile in the tenant over OMA-DM and the device's gate to the file itself."""
    (tmp_path / "password").write_text(PASSWORD)
    root = tmp_path / "root"
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("22 1 253:0 / / rw - ext4 /dev/dm-0 rw\n")
    (root / "sys/dev/block/253:0/dm").mkdir(parents=True)
    (root / "sys/dev/block/253:0/dm/uuid").write_text("CRYPT-LUKS2-0f-crypt\n")
    (root / "etc").mkdir()
    async with live_mdm(tenant_db, tmp_path) as (mdm, ca_file, _):
        alex: User = await mdm.world.user("alex")
        group = await mdm.group("Everyone", alex.id)
        value = json.dumps({"path": "/etc/motd", "content": "of the tenant"})
        async with tenant_db.transaction() as tx:
            made = await policies.create(tx, "Welcome", "TandemFiles/Motd", value, mdm.world.at)
            await policies.assign(tx, made.id, [group.id], [])
        network = Network(ca_file=ca_file)
        settings = DeviceSettings(
            name="LAB-001",
            state=tmp_path / "device",
            tenant_url=mdm.world.tokens.settings.base,
            tenant_id=mdm.world.tenant.id,
            upn="alex@contoso.com",
            password_file=tmp_path / "password",
            durable=False,
        )
        hosts = AgentHosts(tmp_path / "agents", lambda device, what: None)
        device = Device(settings, network, hosts)
        await device.enroll()

        # The client of a site on this device, by what its setup leaves behind.
        state = settings.state / "agent"
        folder = client_folder(state, durable=False)
        point = Connection("localhost/CCM_Proxy_MutualAuth/1", ccm.AuthInfo("a", "r", "t"))
        folder.save(FILE, Installation("", "CM1", point, "1.0", "client.whl", client_id="GUID:1"))
        gate = open_gate(state, utc_now, durable=False)
        assert gate is not None
        handlers = Handlers(
            root, folder, gate, Journal(state / "Logs", utc_now), network.http, utc_now,
            forbidden=state, minute_seconds=1,
        )  # fmt: skip

        async def with_the_service(*moved: Workload) -> dict[str, Any]:
            gate.set(capabilities(moved), registered=True)
            info = ccm.ConfigInfo(gate.flags, "1.0", "GUID:1", True)
            device.place.publish(info.text())
            await handlers.act()
            await device.sync()
            await handlers.act()
            async with tenant_db.transaction() as tx:
                (known,) = await enrollment.devices(tx)
            answer = await mdm.graph("GET", f"deviceManagement/managedDevices/{known.id}")
            found: dict[str, Any] = answer.json()
            return found

        shown = await with_the_service(Workload.COMPLIANCE_POLICIES)
        assert shown["isEncrypted"] is True
        assert not (root / "etc/motd").exists()
        await with_the_service(Workload.DEVICE_CONFIGURATION)
        await with_the_service(Workload.DEVICE_CONFIGURATION)
        assert (root / "etc/motd").read_text() == "of the tenant"
        assert [(one.code, one.source) for one in handlers.effects] == [("written", "mdm")]

        async with tenant_db.transaction() as tx:
            await policies.remove(tx, policies.KIND, made.id, mdm.world.at, "")
        await with_the_service(Workload.DEVICE_CONFIGURATION)
        assert not (root / "etc/motd").exists()
        await network.close()
