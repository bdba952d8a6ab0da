"""The agent's platform module for Windows, with recorded output.

The recordings are ours, written in the format in which Windows's tools answer; what only a real
machine can show is listed in docs/guide/first-windows-machine.md.
"""

import json
import subprocess
import sys
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from tandem.agent import NotJoined, NoToken
from tandem.agent.platform.meeting import DirectoryUnreachable
from tandem.agent.platform.windows import (
    CLIENT_KEY,
    ENROLLMENTS_KEY,
    CannotEnroll,
    Done,
    PowerShell,
    ProgramFailed,
    StoreChannel,
    WindowsBridge,
    enrollment,
    inventory,
    msiexec,
    service,
)
from tandem.agent.platform.windows import __main__ as program
from tandem.agent.platform.windows.programs import run as really_run
from tandem.agent.platform.windows.registry import check_ours
from tandem.agent.platform.windows.service import Life, State, Word
from tandem.infra.errors import Invalid
from tandem.site import content

ID = "8B2F5A0C-4E1D-4C77-9E37-1D2C3B4A5968"
THUMBPRINT = "5E0F6C7B8A9D0E1F2A3B4C5D6E7F8091A2B3C4D5"
ENROLLED = {
    "EnrollmentState": 1,
    "EnrollmentType": 6,
    "ProviderID": "TandemMDM",
    "UPN": "alex@contoso.com",
    "DMPCertThumbPrint": THUMBPRINT.lower(),
    "DiscoveryServiceFullURL": "https://tenant.example/EnrollmentServer/Discovery.svc",
}


class Keys:
    """A registry."""

    def __init__(self, **enrollments: Mapping[str, Any]) -> None:
        self.keys: dict[str, dict[str, Any]] = {
            rf"{ENROLLMENTS_KEY}\{id}": dict(values) for id, values in enrollments.items()
        }

    def values(self, key: str) -> dict[str, Any]:
        return self.keys.get(key, {})

    def below(self, key: str) -> list[str]:
        return [k.rpartition("\\")[2] for k in self.keys if k.rpartition("\\")[0] == key]

    def write(self, key: str, values: Mapping[str, Any]) -> None:
        check_ours(key)
        self.keys.setdefault(key, {}).update(values)


class Programs:
    """Programs that answer what was recorded, in order, and remember how they were called."""

    def __init__(self, *answers: Done | ProgramFailed) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[list[str], bytes]] = []

    async def __call__(self, command: Sequence[str], given: bytes, seconds: float) -> Done:
        self.calls.append((list(command), given))
        answer = self.answers.pop(0)
        if isinstance(answer, ProgramFailed):
            raise answer
        return answer

    def script(self, number: int = -1) -> str:
        return b64decode(self.calls[number][0][-1]).decode("utf-16-le")

    def given(self, number: int = -1) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.calls[number][1])
        return found


def said(value: object, code: int = 0) -> Done:
    """PowerShell ends what it writes with a line break."""
    return Done(code, json.dumps(value).encode() + b"\r\n")


# ------------------------------------------------------------------------------- PowerShell


async def test_what_a_script_works_on_is_never_part_of_a_command() -> None:
    programs = Programs(said({"ok": 1}))
    evil = "'; Remove-Item C:\\ -Recurse #  \u00e9\u2028"
    assert await PowerShell(programs).ask("$given.text", text=evil) == {"ok": 1}
    command, given = programs.calls[0]
    assert command[0].endswith(r"\System32\WindowsPowerShell\v1.0\powershell.exe")
    assert "Remove-Item" not in programs.script() + " ".join(command)
    assert given.isascii()
    assert json.loads(given)["text"] == evil


async def test_a_script_that_fails_says_why_in_one_sentence() -> None:
    programs = Programs(said({"error": "Invalid class", "hresult": "0x80041010"}, 1))
    with pytest.raises(ProgramFailed, match=r"^PowerShell: Invalid class\.$") as failure:
        await PowerShell(programs).ask("x")
    assert failure.value.details["hresult"] == "0x80041010"


@pytest.mark.parametrize("output", [b"Windows PowerShell\r\nCopyright", b"{", b"\xff\xfe{}"])
async def test_what_is_no_json_is_a_failure(output: bytes) -> None:
    with pytest.raises(ProgramFailed):
        await PowerShell(Programs(Done(0, output))).ask("x")


async def test_a_program_that_hangs_is_ended_and_one_that_is_missing_is_named() -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(ProgramFailed, match="did not end within 0 seconds"):
        await really_run(sleeping, b"", 0.2)
    with pytest.raises(ProgramFailed, match="nowhere"):
        await really_run(["/nowhere/program.exe"])
    done = await really_run([sys.executable, "-c", "print(input()); exit(3)"], b"word\n")
    assert (done.code, done.output.strip()) == (3, b"word")


# ------------------------------------------------------------------------------- registry


def test_the_enrollment_in_force_is_ours_and_has_a_certificate() -> None:
    former = {**ENROLLED, "EnrollmentState": 0}
    other = {**ENROLLED, "ProviderID": "MS DM Server"}
    residue = {**ENROLLED, "DMPCertThumbPrint": ""}
    found = enrollment(Keys(A=former, B=other, C=residue, D={}, E=ENROLLED))
    assert found is not None
    assert (found.id, found.upn, found.thumbprint) == ("E", "alex@contoso.com", THUMBPRINT)
    assert enrollment(Keys(A=former, B=other, C=residue)) is None
    assert enrollment(Keys()) is None


@pytest.mark.parametrize(
    "key",
    [
        r"SOFTWARE\Microsoft\CCM",
        r"SOFTWARE\Microsoft\CCM\CoManagementFlags",
        r"SOFTWARE\TandemX\Client",
        rf"{ENROLLMENTS_KEY}\{ID}",
    ],
)
def test_keys_of_others_are_never_written(key: str) -> None:
    with pytest.raises(ValueError, match="not a key of ours"):
        check_ours(key)
    check_ours(CLIENT_KEY)


# ------------------------------------------------------------------------------- the MDM client


async def test_the_bridge_says_what_windows_is_enrolled_in() -> None:
    bridge = WindowsBridge(Keys(**{ID: ENROLLED}), PowerShell(Programs()))
    assert bridge.enrollment().enrolled
    assert bridge.enrollment().upn == "alex@contoso.com"
    assert not WindowsBridge(Keys(), PowerShell(Programs())).enrollment().enrolled


async def test_config_info_goes_to_the_one_node_that_windows_lets_a_program_write() -> None:
    programs = Programs(Done(0, b""), Done(0, b""))
    bridge = WindowsBridge(Keys(**{ID: ENROLLED}), PowerShell(programs))
    bridge.publish("flags=1")
    bridge.publish("flags=1")
    bridge.publish("flags=3")
    await bridge.told()
    assert [programs.given(n)["text"] for n in range(len(programs.calls))] == ["flags=3"]
    assert programs.given() == {
        "instance": "WMI_Bridge_Server",
        "parent": "./Vendor/MSFT/DeviceManageability/Provider",
        "text": "flags=3",
    }
    assert "MDM_DeviceManageability_Provider01_01" in programs.script()
    assert r"root\cimv2\mdm\dmmap" in programs.script()


async def test_a_session_starts_with_the_task_that_a_push_starts() -> None:
    programs = Programs(Done(0, b"SUCCESS: Attempted to run the scheduled task.\r\n"))
    await WindowsBridge(Keys(**{ID: ENROLLED}), PowerShell(programs), programs).sync()
    (command, _), *_ = programs.calls
    assert command[0].endswith(r"\System32\schtasks.exe")
    assert command[1:] == [
        "/run", "/tn", rf"\Microsoft\Windows\EnterpriseMgmt\{ID}\PushLaunch"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        Done(1, b"", b"ERROR: The system cannot find the file specified.\r\n"),
        ProgramFailed("schtasks.exe cannot be started."),
    ],
)
async def test_a_session_that_does_not_start_harms_nobody(answer: Done | ProgramFailed) -> None:
    programs = Programs(answer)
    await WindowsBridge(Keys(**{ID: ENROLLED}), PowerShell(programs), programs).sync()
    await WindowsBridge(Keys(), PowerShell(programs), programs).sync()
    assert len(programs.calls) == 1


async def test_windows_is_asked_where_its_mdm_service_is() -> None:
    servers = [
        {"AuthorityName": "Other", "ProvisionedCertThumbprint": "00", "ServerList": "https://o/x"},
        {
            "AuthorityName": "TandemMDM",
            "ProvisionedCertThumbprint": THUMBPRINT,
            "ServerList": "https://manage.example:444/ManagementServer/MDM.svc",
        },
    ]
    for answer in (servers, servers[1]):  # A list of one is written as its item.
        bridge = WindowsBridge(Keys(**{ID: ENROLLED}), PowerShell(Programs(said(answer))))
        address = await bridge.management_address()
        assert address == "https://manage.example:444/ManagementServer/MDM.svc"
    nothing = WindowsBridge(Keys(**{ID: ENROLLED}), PowerShell(Programs(Done(0, b""))))
    assert await nothing.management_address() == ""


async def test_windows_does_not_enrol_by_a_directory_that_is_not_its_own() -> None:
    with pytest.raises(CannotEnroll) as refusal:
        await WindowsBridge(Keys(), PowerShell(Programs())).enroll()
    assert "Settings" in refusal.value.cure
    await WindowsBridge(Keys(**{ID: ENROLLED}), PowerShell(Programs())).enroll()


# ------------------------------------------------------------------------------- the certificate


async def test_a_request_with_the_certificate_is_made_where_its_key_is() -> None:
    body = b64encode(b'{"access_token":"t"}').decode()
    programs = Programs(said({"status": 200, "body": body}))
    channel = StoreChannel(PowerShell(programs), lambda: THUMBPRINT)
    answer = await channel.post("https://manage.example/T", {"scope": "a b", "client_id": "ü"})
    assert answer == (200, b'{"access_token":"t"}')
    assert programs.given() == {
        "thumbprint": THUMBPRINT,
        "method": "POST",
        "url": "https://manage.example/T",
        "body": "scope=a+b&client_id=%C3%BC",
    }
    assert r"Cert:\LocalMachine\My" in programs.script()


async def test_a_refusal_of_the_tenant_arrives_with_its_body() -> None:
    programs = Programs(said({"status": 400, "body": b64encode(b"{}").decode()}))
    assert (await StoreChannel(PowerShell(programs), lambda: "AA").get("https://m/")).status == 400


async def test_without_network_certificate_or_enrollment_it_is_said_what_is_missing() -> None:
    programs = Programs(
        said({"unreachable": "The remote name could not be resolved: 'm'"}),
        said({"error": "Cannot find path 'Cert:\\LocalMachine\\My\\AA'"}, 1),
    )
    channel = StoreChannel(PowerShell(programs), lambda: "AA")
    with pytest.raises(DirectoryUnreachable, match="could not be resolved"):
        await channel.get("https://m/")
    with pytest.raises(NoToken, match="certificate AA cannot be used"):
        await channel.get("https://m/")
    with pytest.raises(NotJoined):
        await StoreChannel(PowerShell(programs), lambda: "").get("https://m/")
    with pytest.raises(NoToken, match="no address"):
        await channel.get("http://m/")


async def test_signatures_are_made_where_the_key_is() -> None:
    programs = Programs(said({"signature": b64encode(b"signed").decode()}))
    assert await StoreChannel(PowerShell(programs), lambda: "AA").sign(b"data") == b"signed"
    assert b64decode(programs.given()["data"]) == b"data"


# ------------------------------------------------------------------------------- msiexec


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (0, msiexec.Result.DONE),
        (1605, msiexec.Result.DONE),
        (1618, msiexec.Result.LATER),
        (1641, msiexec.Result.RESTART),
        (3010, msiexec.Result.RESTART),
        (1603, msiexec.Result.FAILED),
        (1619, msiexec.Result.FAILED),
        (1625, msiexec.Result.FAILED),
        (1638, msiexec.Result.FAILED),
        (4711, msiexec.Result.FAILED),
    ],
)
async def test_exit_codes_of_windows_installer_in_words(code: int, result: msiexec.Result) -> None:
    programs = Programs(Done(code, b""))
    package, log = PureWindowsPath(r"C:\p q\a.msi"), PureWindowsPath(r"C:\l.log")
    found = await msiexec.install(package, {"CCMSETUPCMD": "A=1 B=2"}, log, run=programs)
    assert (found.result, found.code) == (result, code)
    assert found.text.endswith(".")
    assert programs.calls[0][0][1:] == [
        "/i", r"C:\p q\a.msi", "/qn", "/norestart", "/l*v", r"C:\l.log", "CCMSETUPCMD=A=1 B=2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "properties",
    [{"CCMSETUPCMD": 'x" REMOVE="ALL'}, {"A": "x\n/x"}, {"/x": "1"}, {"lower": "1"}],
)
async def test_a_property_cannot_become_an_option(properties: dict[str, str]) -> None:
    programs = Programs()
    with pytest.raises(Invalid):
        await msiexec.install(PureWindowsPath("a"), properties, PureWindowsPath("l"), run=programs)
    with pytest.raises(Invalid):
        await msiexec.remove("{not a code}", PureWindowsPath("l"), run=programs)
    assert not programs.calls


# ------------------------------------------------------------------------------- inventory


CIM = {
    "os_name": "Microsoft Windows 11 Enterprise",
    "os_version": "10.0.22631",
    "revision": 4317,
    "edition": 4,
    "architecture": "64-bit",
    "name": "PC-0042",
    "manufacturer": "Contoso",
    "model": None,
    "memory_bytes": 17046945792,
    "serial_number": "",
    "uuid": "4C4C4544-0042-4810-8032-B8C04F303333",
    "disks": [{"DeviceID": "C:", "Size": 510770802688, "FreeSpace": None}],
}


async def test_the_inventory_takes_what_makers_leave_out() -> None:
    found = await inventory(PowerShell(Programs(said(CIM))))
    assert (found.name, found.full_version) == ("PC-0042", "10.0.22631.4317")
    assert [(disk.name, disk.free_bytes) for disk in found.disks] == [("C:", None)]


@pytest.mark.parametrize("answer", [None, [], {"name": 1}, {**CIM, "revision": "x"}])
async def test_an_inventory_of_another_form_is_refused(answer: Any) -> None:
    with pytest.raises(ProgramFailed, match="CIM"):
        await inventory(PowerShell(Programs(said(answer))))


# ------------------------------------------------------------------------------- the service


def test_the_life_of_the_service_as_the_manager_is_told_it() -> None:
    life = Life()
    assert life.word.state is State.START_PENDING
    assert life.started() == Word(State.RUNNING, accepts=1 | 4)
    assert life.control(4) == (0, life.word, False)  # SERVICE_CONTROL_INTERROGATE
    answer, word, stop = life.control(1)  # SERVICE_CONTROL_STOP
    assert (answer, stop) == (0, True)
    assert word is not None
    assert (word.state, word.accepts) == (State.STOP_PENDING, 0)
    assert word.hint_milliseconds > 0
    assert life.control(5) == (0, None, False)  # Shutting down while it stops.
    assert life.ended(failed=False) == Word(State.STOPPED)
    assert life.control(1) == (0, None, False)


def test_a_service_that_fails_says_so_and_what_it_does_not_know_it_refuses() -> None:
    life = Life()
    life.started()
    assert life.control(2) == (120, None, False)  # SERVICE_CONTROL_PAUSE: not implemented.
    assert life.ended(failed=True) == Word(State.STOPPED, exit_code=1066, specific_code=1)


QUERY = b"""\r
SERVICE_NAME: TandemAgent \r
        TYPE               : 10  WIN32_OWN_PROCESS  \r
        STATE              : 4  RUNNING \r
                                (STOPPABLE, NOT_PAUSABLE, ACCEPTS_SHUTDOWN)\r
        WIN32_EXIT_CODE    : 0  (0x0)\r
        SERVICE_EXIT_CODE  : 0  (0x0)\r
        CHECKPOINT         : 0x0\r
        WAIT_HINT          : 0x0\r
        PID                : 4711\r
        FLAGS              : \r
"""
MISSING = (
    b"[SC] EnumQueryServicesStatus:OpenService FAILED 1060:\r\n\r\n"
    b"The specified service does not exist as an installed service.\r\n\r\n"
)


async def test_the_state_of_the_service() -> None:
    assert await service.status(run=Programs(Done(0, QUERY))) is State.RUNNING
    assert await service.status(run=Programs(Done(1060, MISSING))) is None
    with pytest.raises(ProgramFailed):
        await service.status(run=Programs(Done(0, b"nonsense")))
    with pytest.raises(ProgramFailed, match="code 5") as refusal:
        await service.status(run=Programs(Done(5, b"")))
    assert refusal.value.cure


async def test_starting_what_runs_and_stopping_what_stands_is_fine() -> None:
    programs = Programs(Done(0, b""), Done(1056, b""), Done(0, b""), Done(1062, b""))
    for act in (service.start, service.start, service.stop, service.stop):
        await act(run=programs)
    assert [call[0][1:] for call in programs.calls] == [
        ["start", "TandemAgent"], ["start", "TandemAgent"],
        ["stop", "TandemAgent"], ["stop", "TandemAgent"],
    ]  # fmt: skip
    with pytest.raises(ProgramFailed):
        await service.start(run=Programs(Done(1058, b"")))  # Disabled: the placeholder.


# ------------------------------------------------------------------------------- the program


@pytest.mark.parametrize("what", ["service", "status", "sync", "enroll"])
def test_where_there_is_no_windows_the_program_says_so(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([what]) == 1
    assert capsys.readouterr().err.startswith("Error: ")


def test_the_package_names_the_service_and_the_module_that_exist() -> None:
    assert content.SERVICE == service.NAME
    assert content.REGISTRY_KEY == CLIENT_KEY


def test_nothing_that_the_service_imports_is_of_unix_alone(tmp_path: Path) -> None:
    """The wheel, alone, where the modules that Windows lacks cannot be imported."""
    with zipfile.ZipFile(BytesIO(content.agent_wheel("1.2.3")[1])) as archive:
        archive.extractall(tmp_path)
    code = """
import sys
sys.path.insert(0, sys.argv[1])
unix = {"fcntl", "uvloop", "pwd", "grp", "resource", "termios", "tty", "pty"}
import asyncio, subprocess, httpx, dns.resolver, structlog  # They decide for themselves.
for name in unix: sys.modules[name] = None
sys.platform = "win32"
class Anything:
    def __getattr__(self, name): return Anything()
    def __call__(self, *a, **k): return Anything()
    def __or__(self, other): return self
    def __mul__(self, number): return type("Array", (), {})
sys.modules["winreg"] = sys.modules["msvcrt"] = Anything()
import ctypes, types
ctypes.WinDLL, ctypes.WINFUNCTYPE = Anything(), lambda *a, **k: ctypes.c_void_p
import tandem.agent.platform.windows.__main__ as program
print(program.__file__.startswith(sys.argv[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "True", done.stderr
