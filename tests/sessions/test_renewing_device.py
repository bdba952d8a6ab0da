"""A device that renews its certificate by itself, over real TLS, by its own implementation."""

from pathlib import Path

import pytest
from cryptography import x509

from mdm_world import live_mdm
from tandem.agent.mdm import AgentHosts, Device, DeviceSettings, Network
from tandem.infra.database import Database
from tandem.tenant import enrollment
from tenant_world import PASSWORD


@pytest.mark.parametrize("ask", [False, True])
async def test_a_device_renews_when_its_window_opens_and_goes_on(
    tenant_db: Database, tmp_path: Path, ask: bool
) -> None:
    """The profile is the administrator's: two days of validity, the second of them to renew in."""
    (tmp_path / "password").write_text(PASSWORD)
    async with live_mdm(tenant_db, tmp_path, ask=ask) as (mdm, root, _):
        profile = enrollment.CertificateProfile(2, 1, 1)
        async with tenant_db.transaction() as tx:
            await enrollment.set_profile(tx, profile)
        await mdm.world.user("alex")
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
        hosts = AgentHosts(tmp_path / "agents", lambda device, what: None)
        device = Device(settings, network, hosts, mdm.world.now)

        async def states() -> list[str]:
            async with tenant_db.transaction() as tx:
                (known,) = await enrollment.devices(tx)
                return [item.state for item in await enrollment.certificates_of(tx, known.id)]

        def certificate() -> x509.Certificate:
            return x509.load_pem_x509_certificate(
                (settings.state / "MDM" / "client.pem").read_bytes()
            )

        await device.enroll()
        await device.sync()
        first = certificate()
        assert await states() == ["active"]

        mdm.world.wait(days=1)
        account = device.account
        assert account is not None
        assert (account.renew_days, account.retry_days) == (1, 1)
        await device.sync()
        second = certificate()
        assert second.public_key() != first.public_key()
        assert second.not_valid_after_utc > first.not_valid_after_utc
        assert await states() == ["active", "superseded"]

        # What was written last before a crash is taken up at the next start.
        again = Device(settings, network, hosts, mdm.world.now)
        await again.sync()
        assert await states() == ["active", "superseded"]
        assert not list((settings.state / "MDM").glob("renewed.*"))
        await network.close()
