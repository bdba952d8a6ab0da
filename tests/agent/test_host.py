"""MDM client and agent as two processes that meet in a folder."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from one_site import TENANT, BadDirectoryToken, Site, joined
from tandem import pki
from tandem.agent import (
    AgentSettings,
    Host,
    MdmEnrollment,
    MeetingPlace,
    NoToken,
    SetupRequest,
    machine_of,
    open_gate,
)
from tandem.agent import gate as gates
from tandem.agent.folder import Folder
from tandem.agent.journal import Journal
from tandem.agent.platform.meeting import (
    EnrollmentAsked,
    EnrollmentFailed,
    FolderBridge,
    JoinBroker,
)
from tandem.infra import config
from tandem.infra.clock import utc_now
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Authority, Workload, capabilities

pytestmark = pytest.mark.slow

SETTING = "Desktop/Banner"


@pytest.fixture
def settings(site: Site, tmp_path: Path) -> AgentSettings:
    return AgentSettings(
        state=tmp_path / "agent",
        name="LAB-REAL",
        meeting=tmp_path / "meeting",
        ca_file=site.folder / "ca.pem",
        minute_seconds=0.02,
    )


@pytest.fixture
def place(site: Site, settings: AgentSettings, tmp_path: Path) -> MeetingPlace:
    made = MeetingPlace(settings.meeting)
    made.joined(joined(site, tmp_path))
    made.enrolled(MdmEnrollment(True, "user@contoso.com", "TandemMDM", True))
    return made


def request(site: Site) -> SetupRequest:
    return SetupRequest(site.command_line, pki.pem(site.root.certificate).decode())


def co_managed(*moved: Workload) -> ccm.PolicyContent:
    policy = ccm.ConfigurationPolicy("p", "Prod", 1, "production", True, False, capabilities(moved))
    return ccm.PolicyContent(configuration_policies=[policy])


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_the_host_goes_from_the_msi_to_a_co_managed_client(
    site: Site, settings: AgentSettings, place: MeetingPlace, web: httpx.AsyncClient
) -> None:
    site.content = co_managed(Workload.CLIENT_APPS)
    stop = asyncio.Event()
    host = Host(place, lambda root: machine_of(settings, place, web, root))
    task = asyncio.create_task(host.run(stop))
    assert open_gate(settings.state, utc_now) is None
    place.install(request(site))
    await until(lambda: ccm.ConfigInfo.read(place.config_info).policy)
    stop.set()
    await task
    gate = open_gate(settings.state, utc_now)
    assert gate
    assert gate.owner(Workload.CLIENT_APPS) is Authority.MDM
    assert gate.offer(Authority.MDM, Workload.CLIENT_APPS, SETTING, "a")
    assert not gate.offer(Authority.MDM, Workload.WINDOWS_UPDATE, SETTING, "b")
    assert place.wanted.sessions >= 1
    async with site.db.transaction() as tx:
        found = await clients.find_by_device(tx, TENANT, "d7")
    assert found
    assert found.name == "LAB-REAL"


async def test_a_new_setup_request_is_taken_up(
    site: Site,
    settings: AgentSettings,
    place: MeetingPlace,
    web: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tandem.agent.host.LOOK_SECONDS", 0.02)
    stop = asyncio.Event()
    host = Host(place, lambda root: machine_of(settings, place, web, root))
    task = asyncio.create_task(host.run(stop))
    site.site_code = "XYZ"
    place.install(request(site))
    await until(lambda: ccm.ConfigInfo.read(place.config_info).setup == 602)
    site.site_code = "CM1"
    place.install(request(site))
    await until(lambda: ccm.ConfigInfo.read(place.config_info).client)
    stop.set()
    await task


async def test_a_device_that_left_the_directory_gets_no_token(
    site: Site, place: MeetingPlace, web: httpx.AsyncClient
) -> None:
    site.joined.clear()
    broker = JoinBroker(place, web, site.now)
    with pytest.raises(NoToken, match="no such join"):
        await broker.device_token("", "app", "https://ConfigMgrService")
    with pytest.raises(NoToken, match="No user is signed in"):
        await broker.user_token("", "app", "https://ConfigMgrService")


async def test_enrolment_is_asked_of_the_other_process(place: MeetingPlace) -> None:
    place.enrolled(MdmEnrollment(False))
    with pytest.raises(EnrollmentAsked):
        await FolderBridge(place, patience_seconds=0.05).enroll()
    assert (place.wanted.device_enrolments, place.wanted.user_enrolments) == (1, 0)


async def test_the_other_process_says_how_an_enrolment_went(place: MeetingPlace) -> None:
    place.enrolled(MdmEnrollment(False))
    bridge = FolderBridge(place, patience_seconds=20)
    refusal = BadDirectoryToken("No licence.", cure="Assign one.", hresult="0x80180018")
    asking = asyncio.create_task(bridge.enroll())
    await until(lambda: place.wanted.device_enrolments == 1)
    place.answer(place.wanted, refusal)
    with pytest.raises(EnrollmentFailed, match="No licence") as raised:
        await asking
    assert raised.value.details["hresult"] == "0x80180018"
    assert raised.value.cure == "Assign one."
    # The answer of the last try is none to the next one.
    asking = asyncio.create_task(bridge.enroll(user=True))
    await until(lambda: place.wanted.user_enrolments == 1)
    await asyncio.sleep(0.3)
    assert not asking.done()
    place.enrolled(MdmEnrollment(True, "u@contoso.com", "TandemMDM", False))
    place.answer(place.wanted, None)
    await asking


def test_two_processes_share_one_gate(tmp_path: Path) -> None:
    def opened() -> gates.Gate:
        return gates.Gate(Folder(tmp_path), Journal(tmp_path / "Logs", utc_now), utc_now)

    agent, mdm = opened(), opened()
    workload = Workload.DEVICE_CONFIGURATION
    assert mdm.offer(Authority.MDM, workload, SETTING, "mdm")
    agent.set(8193, registered=True)
    assert not mdm.offer(Authority.MDM, workload, SETTING, "mdm again")
    assert agent.offer(Authority.SITE, workload, SETTING, "site")
    assert mdm.value(SETTING) == "site"
    assert mdm.applied[SETTING].count == 2


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
async def test_the_role_survives_being_killed(
    site: Site, settings: AgentSettings, place: MeetingPlace, tmp_path: Path, kill: signal.Signals
) -> None:
    """A process of its own, killed again and again, is one client with one history in the end."""
    file = tmp_path / "agent.toml"
    file.write_text(config.dump(settings))
    program = "import sys; from pathlib import Path; from tandem.roles import agent; agent.run(Path(sys.argv[1]))"

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", program, str(file)], stderr=subprocess.DEVNULL
        )

    place.install(request(site))
    site.content = co_managed()
    for seconds in (0.6, 0.9):
        process = start()
        await asyncio.sleep(seconds)
        os.kill(process.pid, kill)
        await asyncio.to_thread(process.wait, 10)
    site.content = co_managed(Workload.CLIENT_APPS)
    process = start()
    try:
        await until(lambda: ccm.ConfigInfo.read(place.config_info).flags == 8193 + 64)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert await asyncio.to_thread(process.wait, 10) == 0
    async with site.db.transaction() as tx:
        assert await clients.count(tx) == 1
        entries = await clients.timeline(tx, TENANT, "d7")
    assert [e.state for e in entries if e.topic == ccm.SETUP_TOPIC].count(400) <= 2
    assert [e.text for e in entries].count("Registered with the site") == 1


async def test_ccmsetup_is_a_program(
    site: Site, settings: AgentSettings, place: MeetingPlace, tmp_path: Path
) -> None:
    file, root = tmp_path / "agent.toml", tmp_path / "root.pem"
    file.write_text(config.dump(settings))
    root.write_bytes(pki.pem(site.root.certificate))

    async def ccmsetup(command_line: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [
                sys.executable,
                "-c",
                "import sys; from tandem.agent.bootstrap import main; sys.exit(main())",
                "--config",
                str(file),
                "--trusted-root",
                str(root),
                command_line,
            ],
            capture_output=True,
            text=True,
        )

    refused = await ccmsetup('CCMSETUPCMD="SMSSITECODE=CM1"')
    assert refused.returncode == 6
    assert refused.stderr.startswith("Error: CCMHOSTNAME is missing")
    assert place.setup() is None
    done = await ccmsetup(site.command_line)
    assert (done.returncode, done.stderr) == (0, "")
    assert place.setup()
    stored = json.loads((settings.state / "CCM" / "client.json").read_text())
    assert stored["site_code"] == "CM1"
    assert datetime.now(UTC)
