"""Simulated devices from sign-in to co-management, each line of it the real protocol."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from one_management_point import Site
from one_tenant import PROVIDER, TENANT, Person, Tenant, co_managed

from tandem import simulator
from tandem.agent.mdm import ComputerSettings, NotRunning, Status
from tandem.infra import config
from tandem.protocols import msi
from tandem.simulator import SimulatedDevice, SimulatorSettings, ask
from tandem.workloads import Workload, capabilities

BANNER = "./Device/Vendor/MSFT/Policy/Config/Desktop/Banner"


def settings_for(tenant: Tenant, folder: Path, *names: str) -> SimulatorSettings:
    devices = []
    for name in names:
        upn = f"{name.lower()}@contoso.com"
        tenant.people.setdefault(upn, Person())
        password = folder / f"{name}.password"
        password.write_text("secret\n")
        devices.append(SimulatedDevice(name=name, upn=upn, password_file=password))
    ca = folder / "both-ca.pem"
    ca.write_bytes(b"".join(f.read_bytes() for f in sorted(folder.glob("*ca.pem")) if f != ca))
    return SimulatorSettings(
        state=folder / "simulator",
        control=folder / "sim" / "s",
        tenant_url=tenant.url,
        tenant_id=TENANT,
        devices=devices,
        ca_file=ca,
        minute_seconds=0.05,
        client_minute_seconds=0.02,
        logs=folder / "logs",
    )


@asynccontextmanager
async def running(settings: SimulatorSettings) -> AsyncIterator[SimulatorSettings]:
    stop = asyncio.Event()
    task = asyncio.create_task(simulator.run(settings, stop))
    async with asyncio.timeout(5):
        while not settings.control.exists():
            await asyncio.sleep(0.01)
    try:
        yield settings
    finally:
        stop.set()
        await task


async def listens(settings: SimulatorSettings) -> bool:
    """The socket is there a moment before somebody listens at it."""
    try:
        await ask(settings.control, "list")
    except NotRunning:
        return False
    return True


async def device(settings: SimulatorSettings, name: str) -> Status:
    found = await ask(settings.control, "list")
    assert found.devices
    return next(status for status in found.devices if status.name == name)


async def until(
    settings: SimulatorSettings, name: str, holds: Callable[[Status], object], seconds: float = 25
) -> Status:
    status = await device(settings, name)
    try:
        async with asyncio.timeout(seconds):
            while not holds(status):
                await asyncio.sleep(0.05)
                status = await device(settings, name)
    except TimeoutError:
        raise AssertionError(status) from None
    return status


def put(number: int, uri: str, data: str) -> str:
    return (
        f"<Replace><CmdID>{number}</CmdID><Item><Target><LocURI>{uri}</LocURI></Target>"
        f'<Meta><Format xmlns="syncml:metinf">chr</Format></Meta><Data>{data}</Data></Item></Replace>'
    )


def get(number: int, uri: str) -> str:
    item = f"<Item><Target><LocURI>{uri}</LocURI></Target></Item>"
    return f"<Get><CmdID>{number}</CmdID>{item}</Get>"


def install(tenant: Tenant, package: bytes, line: str, root: str = "") -> str:
    """Add and Exec, as an MDM service sends them."""
    code = msi.read(package).product_code
    tenant.files["ccmsetup.msi"] = package
    node = code.replace("{", "%7B").replace("}", "%7D")
    uri = f"./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/{node}/DownloadInstall"
    job = (
        f'<MsiInstallJob id="{code}"><Product Version="0.1.0"><Download><ContentURLList><ContentURL>'
        f"{tenant.url}/content/ccmsetup.msi</ContentURL></ContentURLList></Download><Validation>"
        f"<FileHash>{hashlib.sha256(package).hexdigest()}</FileHash></Validation><Enforcement>"
        f"<CommandLine>{escape(line)}</CommandLine><TimeOut>10</TimeOut><RetryCount>3</RetryCount>"
        "<RetryInterval>5</RetryInterval></Enforcement></Product></MsiInstallJob>"
    )
    return (
        f"<Add><CmdID>10</CmdID><Item><Target><LocURI>{uri}</LocURI></Target></Item></Add><Exec>"
        f"<CmdID>11</CmdID><Item><Target><LocURI>{uri}</LocURI></Target><Meta>"
        '<Format xmlns="syncml:metinf">xml</Format></Meta>'
        f"<Data>{escape(job)}</Data></Item></Exec>"
    )


async def test_a_device_signs_in_joins_enrols_and_calls(tenant: Tenant, tmp_path: Path) -> None:
    async with running(settings_for(tenant, tmp_path, "LAB-001")) as settings:
        assert not (await device(settings, "LAB-001")).joined
        answer = await ask(settings.control, "enrol", "LAB-001")
        assert answer.ok, answer.error
        assert answer.device
        assert answer.device.simulated
        assert answer.device.mdm_enrolled
        await until(settings, "LAB-001", lambda s: s.sessions > 0)
        tenant.by_name("LAB-001").queue += [
            get(2, "./DevDetail/Ext/Microsoft/OSPlatform"),
            put(3, BANNER, "hello"),
        ]
        assert (await ask(settings.control, "sync", "LAB-001")).ok
        status = await device(settings, "LAB-001")
        assert status.configuration["Desktop/Banner"].value == "hello"
        assert (
            "simulated" in tenant.by_name("LAB-001").results["./DevDetail/Ext/Microsoft/OSPlatform"]
        )
        assert (BANNER, "200") in tenant.by_name("LAB-001").statuses


async def test_a_restarted_device_is_still_enrolled_and_calls_by_itself(
    tenant: Tenant, tmp_path: Path
) -> None:
    settings = settings_for(tenant, tmp_path, "LAB-001")
    async with running(settings):
        await ask(settings.control, "enrol", "LAB-001")
        before = await until(settings, "LAB-001", lambda s: s.last_session_at)
    async with running(settings):
        after = await until(settings, "LAB-001", lambda s: s.sessions > before.sessions)
    assert after.mdm_device_id == before.mdm_device_id
    assert after.device_id == before.device_id


async def test_each_refusal_has_number_text_and_cure(tenant: Tenant, tmp_path: Path) -> None:
    settings = settings_for(tenant, tmp_path, "UNLICENSED", "NOSCOPE", "STRANGER")
    tenant.people["unlicensed@contoso.com"].licensed = False
    tenant.people["noscope@contoso.com"].offered = False
    tenant.people["stranger@contoso.com"].password = "another"
    async with running(settings):
        found = {}
        for name in ("UNLICENSED", "NOSCOPE", "STRANGER"):
            answer = await ask(settings.control, "enrol", name)
            assert not answer.ok
            assert answer.error
            assert answer.error.cure
            found[name] = answer.error.code
            kept = (await device(settings, name)).last_error
            assert kept
            assert kept.code == answer.error.code
        assert found == {
            "UNLICENSED": "0x80180018",
            "NOSCOPE": "0x8018002B",
            "STRANGER": "0x8018000E",
        }
        # Who types the name of the service goes there without the directory's offer.
        manual = await ask(settings.control, "enrol", "NOSCOPE", manual=True)
        assert manual.ok
        # Once the licence is assigned, the same device enrols.
        tenant.people["unlicensed@contoso.com"].licensed = True
        assert (await ask(settings.control, "enrol", "UNLICENSED")).ok
        assert (await device(settings, "UNLICENSED")).last_error is None


async def test_a_service_that_is_away_for_a_moment_is_tried_again(
    tenant: Tenant, tmp_path: Path
) -> None:
    async with running(settings_for(tenant, tmp_path, "LAB-001")) as settings:
        tenant.down = 2
        assert (await ask(settings.control, "enrol", "LAB-001")).ok


async def test_unenrolling_is_told_once_and_the_device_can_come_back(
    tenant: Tenant, tmp_path: Path
) -> None:
    async with running(settings_for(tenant, tmp_path, "LAB-001")) as settings:
        answer = await ask(settings.control, "enrol", "LAB-001")
        assert answer.ok, answer.error
        first = tenant.by_name("LAB-001")
        answer = await ask(settings.control, "unenrol", "LAB-001")
        assert answer.device
        assert not answer.device.mdm_enrolled
        assert ("com.microsoft:mdm.unenrollment.userrequest", "1") in first.alerts
        assert (await ask(settings.control, "enrol", "LAB-001")).ok
        second = tenant.by_name("LAB-001")
        assert second is not first
        uri = f"./Vendor/MSFT/DMClient/Provider/{PROVIDER}/Unenroll"
        second.queue.append(put(5, uri, PROVIDER).replace("Replace", "Exec"))
        await ask(settings.control, "sync", "LAB-001")
        await until(settings, "LAB-001", lambda s: not s.mdm_enrolled)
        assert ("com.microsoft:mdm.unenrollment.userrequest", "1") in second.alerts


def banner(status: Status) -> str:
    found = status.configuration.get("Desktop/Banner")
    return found.value if found else ""


async def test_from_enrolment_to_co_management(tenant: Tenant, site: Site, tmp_path: Path) -> None:
    """The MSI arrives by MDM, its bootstrap runs from it, and the client becomes co-managed."""
    site.content = co_managed(capabilities([Workload.WINDOWS_UPDATE]))
    settings = settings_for(tenant, tmp_path, "LAB-001", "LAB-002")
    package = await site.msi()
    async with running(settings):
        for name in ("LAB-001", "LAB-002"):
            assert (await ask(settings.control, "enrol", name)).ok
            tenant.by_name(name).queue += [
                put(9, BANNER, "from mdm"),
                install(tenant, package, site.command_line),
            ]
            assert (await ask(settings.control, "sync", name)).ok
        for name in ("LAB-001", "LAB-002"):
            status = await until(settings, name, lambda s: s.policy and s.client_id)
            # The site hears it too.
            assert (await site.client(status.client_id)).os_name == "Windows (simulated)"
            assert status.msi_installed
            assert status.flags == capabilities([Workload.WINDOWS_UPDATE])
            assert status.ccmsetup_code == 0
        managed = tenant.by_name("LAB-001")
        await until(settings, "LAB-001", lambda s: any("win32csp" in k for k, _ in managed.alerts))
        listed = await ask(settings.control, "list")
        assert listed.agent_pids
        assert len(listed.agent_pids) == 1
        maps = Path(f"/proc/{listed.agent_pids[0]}/cmdline").read_bytes()
        assert str(settings.state / "bootstrap").encode() in maps
        # Its modules were compiled where they were unpacked: nothing of this checkout runs there.
        used = (settings.state / "bootstrap").glob("*/tandem/agent/__pycache__/client.*.pyc")
        assert len(list(used)) == 1
        setup = settings.state / "devices" / "LAB-001" / "agent" / "Logs" / "ccmsetup.log"
        assert f"Command line: {site.command_line}" in setup.read_text()
        # The site owns device configuration now: another value of the service is refused.
        managed.queue.append(put(12, BANNER, "again"))
        await ask(settings.control, "sync", "LAB-001")
        assert (BANNER, "403") in managed.statuses
        assert banner(await device(settings, "LAB-001")) != "again"
        # Switched to the service, it is taken.
        site.content = co_managed(capabilities([Workload.DEVICE_CONFIGURATION]))
        moved = capabilities([Workload.DEVICE_CONFIGURATION])
        await until(settings, "LAB-001", lambda s: s.flags == moved)
        managed.queue.append(put(13, BANNER, "again"))
        await ask(settings.control, "sync", "LAB-001")
        assert banner(await device(settings, "LAB-001")) == "again"
        # What the service reads is what the agent said.
        uri = "./Device/Vendor/MSFT/DeviceManageability/Provider/WMI_Bridge_Server/ConfigInfo"
        managed.queue.append(get(13, uri))
        await ask(settings.control, "sync", "LAB-001")
        known = (await device(settings, "LAB-001")).client_id
        assert f"client={known}" in managed.results[uri]
        # An agent process that is killed comes back, and goes on.
        os.kill(listed.agent_pids[0], signal.SIGKILL)
        site.content = co_managed(capabilities([Workload.CLIENT_APPS]))
        await until(settings, "LAB-002", lambda s: s.flags == capabilities([Workload.CLIENT_APPS]))


async def test_a_command_line_that_cannot_be_used_shows_where_it_stopped(
    tenant: Tenant, site: Site, tmp_path: Path
) -> None:
    settings = settings_for(tenant, tmp_path, "LAB-001")
    async with running(settings):
        assert (await ask(settings.control, "enrol", "LAB-001")).ok
        package = await site.msi()
        line = 'CCMSETUPCMD="CCMHOSTNAME=nowhere SMSSITECODE=CM1"'
        tenant.by_name("LAB-001").queue.append(install(tenant, package, line))
        await ask(settings.control, "sync", "LAB-001")
        status = await until(settings, "LAB-001", lambda s: s.ccmsetup_code)
        assert status.msi_installed
        assert (status.ccmsetup_state, status.client_id) == (307, "")
        assert "CCMHOSTNAME" in status.ccmsetup_log


async def test_who_asks_nobody_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        await ask(tmp_path / "nowhere", "list")


async def test_an_unknown_device_or_operation_is_refused(tenant: Tenant, tmp_path: Path) -> None:
    async with running(settings_for(tenant, tmp_path, "LAB-001")) as settings:
        for op, name in (("enrol", "LAB-999"), ("dance", ""), ("sync", "LAB-001")):
            answer = await ask(settings.control, op, name)
            assert not answer.ok
            assert answer.error
            assert answer.error.cure
        assert settings.control.stat().st_mode & 0o777 == 0o600


def test_settings_read_back(tenant: Tenant, tmp_path: Path) -> None:
    settings = settings_for(tenant, tmp_path, "LAB-001")
    file = tmp_path / "simulator.toml"
    file.write_text(config.dump(settings))
    assert config.load(file, SimulatorSettings) == settings


async def test_a_real_device_is_a_process_that_does_the_same(
    tenant: Tenant, site: Site, tmp_path: Path
) -> None:
    """`tandem agent run` with a computer's settings, from sign-in to policy."""
    site.content = co_managed(capabilities([Workload.WINDOWS_UPDATE]))
    fleet = settings_for(tenant, tmp_path, "LAB-REAL")
    computer = ComputerSettings(
        name="LAB-REAL",
        state=tmp_path / "computer",
        control=fleet.control,
        tenant_url=tenant.url,
        tenant_id=TENANT,
        upn="lab-real@contoso.com",
        password_file=fleet.devices[0].password_file,
        ca_file=fleet.ca_file,
        minute_seconds=0.05,
        client_minute_seconds=0.02,
        logs=tmp_path / "logs",
    )
    file = tmp_path / "agent.toml"
    file.write_text(config.dump(computer))
    words = [sys.executable, "-m", "tandem.cli", "agent", "run", "--config", str(file)]
    package = await site.msi()
    process = await asyncio.create_subprocess_exec(*words)
    try:
        async with asyncio.timeout(20):
            while not await listens(fleet):
                await asyncio.sleep(0.05)
        assert (await ask(fleet.control, "enrol", "LAB-REAL")).ok
        tenant.by_name("LAB-REAL").queue.append(install(tenant, package, site.command_line))
        assert (await ask(fleet.control, "sync", "LAB-REAL")).ok
        status = await until(fleet, "LAB-REAL", lambda s: s.policy)
        assert not status.simulated
        assert (await site.client(status.client_id)).os_name == "Windows"
        agents = (await ask(fleet.control, "list")).agent_pids
    finally:
        process.terminate()
        await process.wait()
    assert process.returncode == 0
    assert agents
    assert not Path(f"/proc/{agents[0]}").exists()
