"""Simulated devices against the tenant's own directory and MDM: two implementations, one wire."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from one_management_point import Site
from one_tenant import co_managed, free_port, listens
from test_simulator import banner, running, until

from app_content import publish
from tandem import pki
from tandem.infra import http
from tandem.infra.blobs import Blobs
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm
from tandem.simulator import SimulatedDevice, SimulatorSettings, ask
from tandem.site import clients
from tandem.tenant import (
    directory,
    enrollment,
    licensing,
    mobile_apps,
    oidc,
    policies,
    sessions,
)
from tandem.workloads import Workload, capabilities
from tenant_world import CHEAP, PASSWORD, World, make_world


@dataclass
class Tenant:
    world: World
    folder: Path
    blobs: Blobs
    group: str
    managing: sessions.Sessions

    async def device(self, name: str) -> enrollment.Device:
        async with self.world.database.transaction() as tx:
            return next(d for d in await enrollment.devices(tx) if d.name == name)


@pytest.fixture
async def tenant(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Tenant]:
    now = datetime.now(UTC)
    port, management = free_port(), free_port()
    base, manage_url = f"https://localhost:{port}", f"https://localhost:{management}"
    world = await make_world(tenant_db, None, base, now)
    world.now = utc_now  # type: ignore[method-assign]
    blobs = Blobs.open(tmp_path / "tenant-content")
    content = mobile_apps.Content(blobs, b"s" * 32, base)
    service = enrollment.Enrollment(
        SecretBox(bytes(32)),
        world.tokens,
        now=utc_now,
        public_url=base,
        management_url=f"{manage_url}/ManagementServer/MDM.svc",
    )
    async with tenant_db.transaction() as tx:
        device_ca = await service.establish(tx)
        await directory.set_mdm_authority(tx, now)
        group = await directory.create_group(tx, "Pilot", now)
        await directory.set_mdm_scope(tx, directory.MdmScope.SOME, [group.id])
    root = pki.new_root(pki.name("Tenant TLS root"), now=now)
    key = pki.generate_key()
    leaf = root.issue(
        key.public_key(),
        pki.name("localhost"),
        now=now,
        days=9,
        dns=["localhost"],
        usages=["server"],
    )
    (tmp_path / "tls.t.pem").write_bytes(pki.pem(leaf))
    (tmp_path / "tls.t.key").write_bytes(pki.key_pem(key))
    (tmp_path / "tenant-ca.pem").write_bytes(pki.pem(root.certificate))
    (tmp_path / "device.pem").write_bytes(pki.pem(device_ca))
    plain = http.TLS(tmp_path / "tls.t.pem", tmp_path / "tls.t.key")
    mutual = http.TLS(tmp_path / "tls.t.pem", tmp_path / "tls.t.key", tmp_path / "device.pem")
    orders = sessions.Sessions(
        service,
        content,
        utc_now,
        f"{manage_url}/ManagementServer/MDM.svc",
        safeguards=sessions.Safeguards(hold_minutes=0),
        wakes=sessions.AgentWakes(),
    )
    calls = sessions.Calls(tenant_db, world.tokens, utc_now)
    app = http.application(
        [
            *sessions.call_routes(calls),
            *oidc.routes(tenant_db, world.tokens, utc_now, CHEAP),
            *enrollment.routes(tenant_db, service, world.tokens),
            *mobile_apps.routes(tenant_db, content, utc_now),
        ],
        role="tenant",
    )
    managing = http.application(
        [
            *sessions.routes(tenant_db, orders),
            *oidc.certificate_routes(
                tenant_db,
                world.tokens,
                utc_now,
                lambda tx, proved: service.directory_device(tx, proved, CHEAP),
            ),
        ],
        role="mdm",
        problems=sessions.problems,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(
        http.serve(
            [
                http.Listener(app, "127.0.0.1", port, plain),
                http.Listener(managing, "127.0.0.1", management, mutual),
            ],
            stop,
            drain_seconds=1,
        )
    )
    calling = asyncio.create_task(calls.run(stop))
    await listens(port)
    await listens(management)
    yield Tenant(world, tmp_path, blobs, group.id, orders)
    await world.client.aclose()
    stop.set()
    await task
    await calling


async def fleet(
    tenant: Tenant, *names: str, members: bool = True, join: bool = True
) -> SimulatorSettings:
    folder = tenant.folder
    password = folder / "password"
    password.write_text(PASSWORD)
    devices = []
    for name in names:
        user = await tenant.world.user(name.lower())
        if members:
            async with tenant.world.database.transaction() as tx:
                await directory.add_member(tx, tenant.group, user.id)
        upn = user.user_principal_name
        devices.append(SimulatedDevice(name=name, upn=upn, password_file=password, join=join))
    ca = folder / "all.pem"
    ca.write_bytes(
        b"".join(
            f.read_bytes() for f in (folder / "tenant-ca.pem", folder / "site-ca.pem") if f.exists()
        )
    )
    return SimulatorSettings(
        state=folder / "simulator",
        control=folder / "sim" / "s",
        tenant_url=tenant.world.tokens.settings.base,
        tenant_id=tenant.world.tenant.id,
        devices=devices,
        ca_file=ca,
        minute_seconds=0.1,
        client_minute_seconds=0.02,
    )


async def test_the_tenants_mdm_takes_a_device_in_and_looks_at_it(tenant: Tenant) -> None:
    async with running(await fleet(tenant, "LAB-001")) as settings:
        answer = await ask(settings.control, "enrol", "LAB-001")
        assert answer.ok, answer.error
        await until(settings, "LAB-001", lambda s: s.last_session_at)
        found = await tenant.device("LAB-001")
        assert found.inventory["model"] == "Simulated device"
        assert found.inventory["serial_number"].startswith("SIM-")
        assert answer.device
        assert found.directory_device_id == answer.device.device_id


async def test_the_tenants_refusals_reach_the_device_with_their_numbers(tenant: Tenant) -> None:
    async with running(await fleet(tenant, "NOSCOPE", members=False)) as settings:
        answer = await ask(settings.control, "enrol", "NOSCOPE")
        assert answer.error
        assert answer.error.code == "0x8018002B"
        answer = await ask(settings.control, "enrol", "NOSCOPE", manual=True)
        assert answer.error
        assert answer.error.code == "0x80180003"
        assert "scope" in answer.error.text


async def test_a_user_without_a_licence_is_told_so(tenant: Tenant) -> None:
    async with tenant.world.database.transaction() as tx:
        await licensing.require_licence(tx, True)
    async with running(await fleet(tenant, "NOLICENCE")) as settings:
        answer = await ask(settings.control, "enrol", "NOLICENCE", manual=True)
        assert answer.error
        assert answer.error.code == "0x80180018"
        assert answer.error.cure


async def test_the_tenant_hears_of_a_device_that_leaves(tenant: Tenant) -> None:
    async with running(await fleet(tenant, "LAB-001")) as settings:
        assert (await ask(settings.control, "enrol", "LAB-001")).ok
        await until(settings, "LAB-001", lambda s: s.last_session_at)
        known = await tenant.device("LAB-001")
        assert (await ask(settings.control, "unenrol", "LAB-001")).ok
        async with tenant.world.database.transaction() as tx:
            assert (await enrollment.device(tx, known.id)).state == "unenrolled"


@pytest.mark.parametrize("join", [True, False], ids=["joined", "enrolled-only"])
async def test_the_assigned_package_makes_the_device_co_managed(
    tenant: Tenant, site: Site, join: bool
) -> None:
    """App, assignment, MSI, bootstrap, registration, policy: and both sides agree on the device.

    One that never joined the directory, as no real Windows can join ours, proves itself to it by
    its MDM certificate and ends the same.
    """
    site.content = co_managed(capabilities([Workload.DEVICE_CONFIGURATION]))

    async def verify(tx: object, token: str) -> clients.TenantIdentity:
        claims = await _claims(tenant, token)
        assert claims.get("amr") == (None if join else ["mdm_cert"])
        device = str(claims["deviceid"])
        return clients.TenantIdentity(tenant.world.tenant.id, device, "device", f"o-{device}")

    site.verify = verify
    settings = await fleet(tenant, "LAB-001", join=join)
    db = tenant.world.database
    now = utc_now()
    app = await _brings_the_client(tenant, site)
    async with db.transaction() as tx:
        wanted = await policies.create(tx, "Banner", "Desktop/Banner", "hello", now)
        await policies.assign(tx, wanted.id, [tenant.group], [])
    async with running(settings):
        assert (await ask(settings.control, "enrol", "LAB-001")).ok
        status = await until(settings, "LAB-001", lambda s: s.policy and s.client_id)
        assert status.msi_installed
        await until(settings, "LAB-001", lambda s: banner(s) == "hello")
        async with asyncio.timeout(15):
            while (await tenant.device("LAB-001")).flags != status.flags:
                await asyncio.sleep(0.1)
        async with db.transaction() as tx:
            (known,) = await mobile_apps.statuses(tx, app_id=app.id)
        assert known.state == "installed"
        enrolled = await tenant.device("LAB-001")
        assert enrolled.directory_device_id == status.device_id != ""
        assert status.joined is join
        await _is_called(tenant, settings, enrolled)


async def test_who_signs_in_next_has_their_own_settings(tenant: Tenant, site: Site) -> None:
    """And nothing of who was there before, whose tokens are good for hours yet."""
    on = {"enable_user_policy": True, "enable_user_policy_from_internet": True}
    site.content = ccm.PolicyContent(settings={**on, "policy_polling_minutes": 30})

    async def verify(tx: object, token: str) -> clients.TenantIdentity:
        claims = await _claims(tenant, token)
        device, kind = str(claims["deviceid"]), "user" if claims["idtyp"] == "user" else "device"
        return clients.TenantIdentity(tenant.world.tenant.id, device, kind, str(claims["oid"]))

    site.verify = verify
    settings = await fleet(tenant, "LAB-001")
    first, second = settings.devices[0].upn, await tenant.world.user("second")
    async with tenant.world.database.transaction() as tx:
        users = {user.user_principal_name: user.id for user in await directory.users(tx)}
    for upn, name in ((first, "Desk/First"), (second.user_principal_name, "Desk/Second")):
        of = Workload.DEVICE_CONFIGURATION.value
        site.of_users[users[upn]] = [ccm.Configuration(name, of, name, "on")]
    await _brings_the_client(tenant, site)
    async with running(settings):
        assert (await ask(settings.control, "enrol", "LAB-001")).ok
        await until(settings, "LAB-001", lambda s: set(s.configuration) == {"Desk/First"}, 60)
        refused = await ask(
            settings.control, "sign-in", "LAB-001", upn=first, password_file=tenant.folder / "none"
        )
        assert refused.error
        answer = await ask(
            settings.control,
            "sign-in",
            "LAB-001",
            upn=second.user_principal_name,
            password_file=settings.devices[0].password_file,
        )
        assert answer.ok, answer.error
        await until(settings, "LAB-001", lambda s: set(s.configuration) == {"Desk/Second"}, 60)
        assert (await ask(settings.control, "sign-out", "LAB-001")).ok
        await until(settings, "LAB-001", lambda s: not s.configuration)


async def _brings_the_client(tenant: Tenant, site: Site) -> mobile_apps.App:
    """The site's client is an app of the tenant, for the pilot group."""
    db = tenant.world.database
    client_app = await _client_app(tenant)
    line = (
        f'CCMSETUPCMD="CCMHOSTNAME={site.host} SMSSITECODE=CM1 AADCLIENTAPPID={client_app} '
        f'AADRESOURCEURI=https://ConfigMgrService"'
    )
    async with db.transaction() as tx:
        app = await mobile_apps.create(
            tx,
            name="ConfigMgr Client Setup Bootstrap",
            description="",
            publisher="Tandem",
            command_line=line,
            file_name="ccmsetup.msi",
            now=utc_now(),
        )
    await publish(db, tenant.blobs, app.id, await site.msi(), utc_now)
    async with db.transaction() as tx:
        await mobile_apps.assign(tx, app.id, [tenant.group], [])
    return app


async def _is_called(
    tenant: Tenant, settings: SimulatorSettings, device: enrollment.Device
) -> None:
    """An administrator's order reaches the device through its agent, not at its next poll."""
    logs = settings.state / "devices" / "LAB-001" / "agent" / "Logs"
    log = logs / "CcmNotificationAgent.log"
    async with asyncio.timeout(15):
        while not log.exists():
            await asyncio.sleep(0.05)
    ordered = utc_now()
    async with tenant.world.database.transaction() as tx:
        by = sessions.By("1", "admin@contoso.com")
        await tenant.managing.order(tx, by, sessions.SYNC, [device.id])
    async with asyncio.timeout(10):
        while True:
            async with tenant.world.database.transaction() as tx:
                lines = await enrollment.timeline(tx, device_id=device.id, kind="action")
            if [line.text for line in lines][:1] == ["The device checks in, as it was asked to"]:
                break
            await asyncio.sleep(0.05)
    assert (lines[0].at - ordered).total_seconds() < 5
    assert "The MDM service calls" in log.read_text()


async def _client_app(tenant: Tenant) -> str:
    async with tenant.world.database.transaction() as tx:
        now = utc_now()
        server = await oidc.applications.create_application(
            tx, "Server", now, identifier_uris=("https://ConfigMgrService",)
        )
        await oidc.applications.create_principal(tx, server.app_id, now)
        client = await oidc.applications.create_application(
            tx, "Client", now, public_redirect_uris=("https://ConfigMgrClient",)
        )
        await oidc.applications.create_principal(tx, client.app_id, now)
        return str(client.app_id)


async def _claims(tenant: Tenant, token: str) -> dict[str, object]:
    from joserfc import jwt
    from joserfc.jwk import KeySet

    async with tenant.world.database.transaction() as tx:
        keys = await tenant.world.tokens.jwks(tx)
    return dict(jwt.decode(token, KeySet.import_key_set(keys)).claims)


async def test_a_wiped_device_is_gone_until_it_enrols_again(tenant: Tenant) -> None:
    """The order is done when the device is back as another enrolment; it is not wiped again."""
    db = tenant.world.database
    async with running(await fleet(tenant, "LAB-001")) as settings:
        assert (await ask(settings.control, "enrol", "LAB-001")).ok
        await until(settings, "LAB-001", lambda s: s.last_session_at)
        before = await tenant.device("LAB-001")
        async with db.transaction() as tx:
            by = sessions.By("1", "admin@contoso.com")
            await tenant.managing.order(tx, by, "wipe", [before.id], sessions.DO_WIPE)
        await ask(settings.control, "sync", "LAB-001")
        await until(settings, "LAB-001", lambda s: not s.mdm_enrolled)
        async with db.transaction() as tx:
            (known,) = (await sessions.results(tx, [before.id]))[before.id]
        assert known.state == "active", "it has begun; nobody knows yet how it ended"
        assert (await ask(settings.control, "enrol", "LAB-001")).ok
        await until(settings, "LAB-001", lambda s: s.mdm_enrolled)
        async with db.transaction() as tx:
            await tenant.managing.tend(tx)
            (known,) = (await sessions.results(tx, [before.id]))[before.id]
        assert known.state == "done"
        assert (await ask(settings.control, "sync", "LAB-001")).ok
        await until(settings, "LAB-001", lambda s: s.mdm_enrolled and s.sessions > 2)
