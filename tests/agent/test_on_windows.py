"""The agent as it runs on Windows, against a real management point: registry, PowerShell and the key's
signatures are recordings of ours, everything else is the real thing."""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from one_site import TENANT, Moment, Site
from tandem import pki
from tandem.agent.folder import Folder
from tandem.agent.gate import Gate
from tandem.agent.journal import Journal
from tandem.agent.platform.windows import (
    CLIENT_KEY,
    ENROLLMENTS_KEY,
    Done,
    Inventory,
    PowerShell,
    ProgramFailed,
    StoreChannel,
    WindowsBridge,
)
from tandem.agent.platform.windows.machine import WindowsAgent, protect, thumbprint_of
from tandem.agent.platform.windows.registry import POLICIES_KEY
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Authority, Workload, capabilities

pytestmark = pytest.mark.slow

ENROLLMENT = rf"{ENROLLMENTS_KEY}\8B2F5A0C-4E1D-4C77-9E37-1D2C3B4A5968"
MANAGEMENT = "https://manage.example/ManagementServer"


class Computer:
    """What Windows answers."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {CLIENT_KEY: {}}
        self.config_info = ""
        self.sessions = 0
        self.asked: list[str] = []
        self.refused = False

    def values(self, key: str) -> dict[str, Any]:
        return self.keys.get(key, {})

    def below(self, key: str) -> list[str]:
        return [k.rpartition("\\")[2] for k in self.keys if k.rpartition("\\")[0] == key]

    def write(self, key: str, values: Mapping[str, Any]) -> None:
        raise AssertionError("nothing is written")

    def enrols(self, thumbprint: str = "AA11") -> None:
        self.keys[ENROLLMENT] = {
            "EnrollmentState": 1,
            "ProviderID": "TandemMDM",
            "UPN": "alex@contoso.com",
            "DMPCertThumbPrint": thumbprint,
        }

    async def run(self, command: Sequence[str], given: bytes, seconds: float) -> Done:
        if command[0].endswith("schtasks.exe"):
            self.sessions += 1
            return Done(0, b"SUCCESS\r\n")
        script = b64decode(command[-1]).decode("utf-16-le")
        said = json.loads(given)
        if "MDM_MgmtAuthority" in script:
            found = {"AuthorityName": "TandemMDM", "ServerList": f"{MANAGEMENT}/MDM.svc"}
            return Done(0, json.dumps(found).encode())
        if "MDM_DeviceManageability" in script:
            self.config_info = said["text"]
            return Done(0, b"")
        self.asked.append(f"{said['thumbprint']} {said['method']} {said['url']}")
        return Done(0, json.dumps(self._tenant(said["url"])).encode())

    def _tenant(self, url: str) -> dict[str, Any]:
        answer: dict[str, str] = {"access_token": "device:d1"}
        if url == f"{MANAGEMENT}/DeviceIdentity":
            answer = {"tenantId": TENANT, "deviceId": "d1", "authority": f"https://t/{TENANT}"}
        if self.refused:
            answer = {"error": "invalid_grant", "error_description": "AADSTS50155: no."}
        body = b64encode(json.dumps(answer).encode()).decode()
        return {"status": 400 if self.refused else 200, "body": body}


@pytest.fixture
def computer() -> Computer:
    return Computer()


@pytest.fixture
def agent(site: Site, computer: Computer, web: httpx.AsyncClient, tmp_path: Path) -> WindowsAgent:
    root = tmp_path / "trusted-root.pem"
    root.write_bytes(pki.pem(site.root.certificate))
    shell = PowerShell(computer.run)
    return WindowsAgent(
        computer,
        WindowsBridge(computer, shell, computer.run),
        StoreChannel(shell, thumbprint_of(computer)),
        web,
        Inventory("PC-0042", "Microsoft Windows 11 Enterprise", "10.0.22631", 4317),
        folder=tmp_path / "Tandem",
        trusted_root=root,
        minute_seconds=0.02,
        look_seconds=0.02,
    )


async def until(condition: Callable[[], object], seconds: float = 25) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_from_the_command_line_of_the_msi_to_a_co_managed_machine(
    site: Site, computer: Computer, agent: WindowsAgent
) -> None:
    """It waits for the enrollment, asks who it is, and is then the client that it is elsewhere."""
    policy = ccm.ConfigurationPolicy(
        "p", "Prod", 1, "production", True, False, capabilities([Workload.CLIENT_APPS])
    )
    site.content = ccm.PolicyContent(configuration_policies=[policy])
    computer.keys[CLIENT_KEY]["CommandLine"] = site.command_line
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    await asyncio.sleep(0.1)
    assert not computer.asked
    computer.enrols()
    await until(lambda: ccm.ConfigInfo.read(computer.config_info).policy)
    assert computer.asked[:2] == [
        f"AA11 GET {MANAGEMENT}/DeviceIdentity",
        f"AA11 POST {MANAGEMENT}/DeviceToken",
    ]
    assert ccm.ConfigInfo.read(computer.config_info).flags == capabilities([Workload.CLIENT_APPS])
    await until(lambda: computer.sessions)
    stop.set()
    await task
    async with site.db.transaction() as tx:
        found = await clients.find_by_device(tx, TENANT, "d1")
    assert found
    assert (found.name, found.os_version) == ("PC-0042", "10.0.22631.4317")


async def test_a_renewed_certificate_introduces_the_machine_again_and_an_ended_one_ends_it(
    site: Site, computer: Computer, agent: WindowsAgent
) -> None:
    computer.keys[CLIENT_KEY]["CommandLine"] = site.command_line
    computer.refused = True
    computer.enrols()
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    await until(lambda: len(computer.asked) > 1)
    assert agent.place.identity() is None  # Refused: asked again, and nothing is set up.
    computer.refused = False
    await until(lambda: agent.place.identity())
    computer.enrols("BB22")
    await until(lambda: f"BB22 GET {MANAGEMENT}/DeviceIdentity" in computer.asked)
    del computer.keys[ENROLLMENT]
    await until(lambda: agent.place.identity() is None)
    stop.set()
    await task


async def test_without_a_command_line_the_service_stays_and_does_nothing(
    computer: Computer, agent: WindowsAgent
) -> None:
    computer.enrols()
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    await asyncio.sleep(0.1)
    assert not task.done()
    stop.set()
    await task
    assert not computer.asked


async def test_the_folder_of_keys_is_closed_to_users_or_not_used(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    async def icacls(command: Sequence[str], given: bytes, seconds: float) -> Done:
        calls.append(list(command))
        return Done(len(calls) - 1, b"")

    await protect(tmp_path / "Tandem", run=icacls)
    assert "/inheritance:r" in calls[0]
    # LocalSystem and the built-in Administrators, in whatever language.
    assert [word for word in calls[0] if word.startswith("*")] == [
        "*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F"
    ]  # fmt: skip
    with pytest.raises(ProgramFailed, match="cannot be protected"):
        await protect(tmp_path / "Tandem", run=icacls)


def gate_on(folder: Path, moment: Moment, *moved: Workload) -> Gate:
    made = Gate(Folder(folder / "CCM", durable=False), Journal(folder / "Logs", moment), moment)
    made.set(capabilities(moved), registered=True)
    return made


async def test_what_windows_applied_for_the_service_passes_the_gate_afterwards(
    computer: Computer, tmp_path: Path, moment: Moment
) -> None:
    """By what Windows keeps of an enrollment's settings, with what it notes beside each."""
    configuration, update = Workload.DEVICE_CONFIGURATION, Workload.WINDOWS_UPDATE
    gate = gate_on(tmp_path, moment, configuration)
    assert gate.offer(Authority.SITE, update, "Update/DeferQuality", "1")
    bridge = WindowsBridge(computer, PowerShell(computer.run), computer.run)
    bridge.install_gate(gate)
    id = ENROLLMENT.rpartition("\\")[2]
    key = rf"{POLICIES_KEY}\{id}\default\Device"
    computer.enrols()
    computer.keys[rf"{key}\Camera"] = {"AllowCamera": 0, "AllowCamera_LastWrite": 1}
    computer.keys[rf"{key}\Update"] = {"DeferQuality": 9}
    assert bridge.enrollment().enrolled
    # The one is the service's to set; the other stays the site's by the gate, whatever Windows did.
    assert (gate.value("Camera/AllowCamera"), gate.applied["Camera/AllowCamera"].source) == (
        "0", "mdm"
    )  # fmt: skip
    assert gate.applied["Update/DeferQuality"].source == "site"
    assert any("A value from mdm is not applied." in line for line in
               (tmp_path / "Logs/WUAHandler.log").read_text().splitlines())  # fmt: skip
    entries = [ccm.read_entry(line.text) for line in gate.ledger.unsent(100)]
    assert [e.setting for e in entries if (e.kind, e.authority) == ("write", "mdm")] == [
        "Camera/AllowCamera"
    ]
    # A new process knows what was set before, and what Windows has dropped meanwhile goes.
    again = WindowsBridge(computer, PowerShell(computer.run), computer.run)
    again.install_gate(gate)
    del computer.keys[rf"{key}\Camera"]
    again.enrollment()
    assert gate.value("Camera/AllowCamera") is None
