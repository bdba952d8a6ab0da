"""Windows's own MDM client, seen from the agent.

What it is enrolled in stands in the registry; ConfigInfo goes through the MDM bridge of WMI to the node
that the server reads; a session starts with the scheduled task that a push notification starts.
"""

import asyncio
import sys
from contextlib import suppress

from tandem.agent.platform.model import ConfigurationGate, MdmEnrollment
from tandem.agent.platform.windows.programs import (
    PowerShell,
    ProgramFailed,
    Run,
    listed,
    run,
    system,
)
from tandem.agent.platform.windows.registry import Registry, as_seen, enrollment, policies
from tandem.infra import logs
from tandem.infra.errors import AppError, Kind
from tandem.workloads import Authority, workload_of_area

# The bridge takes this instance alone: a caller cannot choose the provider id
# (MDM_DeviceManageability_Provider01_01), so this is the node that the MDM service reads.
BRIDGE_PROVIDER = "WMI_Bridge_Server"
_PARENT = "./Vendor/MSFT/DeviceManageability/Provider"
_PUBLISH = r"""
$space = 'root\cimv2\mdm\dmmap'; $class = 'MDM_DeviceManageability_Provider01_01'
$known = Get-CimInstance -Namespace $space -ClassName $class |
  Where-Object { $_.InstanceID -eq $given.instance }
if ($known) { Set-CimInstance -InputObject $known -Property @{ ConfigInfo = $given.text } }
else {
  [void](New-CimInstance -Namespace $space -ClassName $class -Property @{
    ParentID = $given.parent; InstanceID = $given.instance; ConfigInfo = $given.text })
}
"""
_SERVERS = r"""
Get-CimInstance -Namespace 'root\cimv2\mdm' -ClassName MDM_MgmtAuthority |
  Select-Object AuthorityName, ProvisionedCertThumbprint, ServerList | ConvertTo-Json -Compress
"""
_TRIES = 5
_AGAIN_SECONDS = 60.0

log = logs.get_logger(__name__)


class CannotEnroll(AppError):
    kind, code = Kind.FORBIDDEN, "mdm.cannot-enroll"


class RegistrationFailed(AppError):
    """`details` has Windows's `hresult`."""

    kind, code = Kind.FORBIDDEN, "mdm.registration-failed"


class WindowsBridge:
    """The `MdmBridge` of Windows."""

    def __init__(self, registry: Registry, shell: PowerShell, run: Run = run) -> None:
        self._registry = registry
        self._shell = shell
        self._run = run
        self._said = ""
        self._telling: asyncio.Task[None] | None = None
        self._gate: ConfigurationGate | None = None
        self._offered: set[str] = set()
        self._unheeded: set[str] = set()

    def enrollment(self) -> MdmEnrollment:
        found = enrollment(self._registry)
        self._offer(found.id if found is not None else "")
        return as_seen(found)

    def _offer(self, id: str) -> None:
        """Hand to the gate what Windows has applied for the service, and take back what is gone.

        The gate cannot hold Windows back; but what it refuses is in the workload's log and the
        service's, and what it takes is in the ledger.
        """
        if self._gate is None:
            return
        wanted = {
            setting: (workload_of_area(setting.partition("/")[0]), value)
            for setting, value in (policies(self._registry, id) if id else {}).items()
        }
        with suppress(AppError):  # A disk that takes nothing is the client's to tell of.
            self._gate.change(Authority.MDM, wanted, self._offered - set(wanted))
            self._offered = set(wanted)
        unheeded = {
            setting
            for setting, (workload, _) in wanted.items()
            if self._gate.owner(workload) is not Authority.MDM
        }
        for setting in sorted(unheeded - self._unheeded):
            log.warning("windows.not-the-owner", setting=setting)
        self._unheeded = unheeded

    def publish(self, config_info: str) -> None:
        """Told in the background; what is newer meanwhile replaces it."""
        if config_info == self._said:
            return
        self._said = config_info
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        tries, told = 0, None
        while told != self._said and tries < _TRIES:
            text = self._said
            try:
                await self._shell.ask(_PUBLISH, instance=BRIDGE_PROVIDER, parent=_PARENT, text=text)
                told, tries = text, 0
            except AppError as error:
                # The bridge answers only LocalSystem, and only on an enrolled machine.
                tries += 1
                log.warning("windows.config-info-not-told", reason=error.message)
                await asyncio.sleep(_AGAIN_SECONDS)
        if told != self._said:
            self._said = ""  # The next word is told even when it is the same.

    async def told(self) -> None:
        """Until what was published last has been told, or given up."""
        if self._telling is not None:
            await self._telling

    def install_gate(self, gate: ConfigurationGate) -> None:
        """Windows asks nobody before it applies a setting: the MDM service withholds what the site
        owns, by the flags in ConfigInfo. So the gate is asked afterwards, by what Windows keeps of each
        enrollment's settings, and what it had taken in an earlier process is known from it."""
        self._gate = gate
        self._offered = set(gate.of(Authority.MDM))

    async def enroll(self, user: bool = False) -> None:
        if enrollment(self._registry) is not None:
            return
        raise CannotEnroll(
            "Windows enrols with credentials of its own directory only, which this tenant is not.",
            cure="Enrol from Settings, by the deep link, or with "
            "`python -m tandem.agent.platform.windows enroll`.",
        )

    async def sync(self) -> None:
        found = enrollment(self._registry)
        if found is None:
            return
        task = rf"\Microsoft\Windows\EnterpriseMgmt\{found.id}\PushLaunch"
        try:
            done = await self._run([system("schtasks.exe"), "/run", "/tn", task], b"", 30.0)
        except ProgramFailed as error:
            log.warning("windows.no-session", reason=error.message)
            return
        if done.code != 0:
            said = done.errors.decode("utf-8", "replace").strip()
            log.warning("windows.no-session", code=done.code, reason=said[:200])

    async def management_address(self) -> str:
        """Where the MDM service of this enrollment is; empty when Windows does not say."""
        found = enrollment(self._registry)
        if found is None:
            return ""
        for item in listed(await self._shell.ask(_SERVERS)):
            thumbprint = str(item.get("ProvisionedCertThumbprint") or "").upper()
            if thumbprint == found.thumbprint or item.get("AuthorityName") == found.provider:
                return str(item.get("ServerList") or "").split(";")[0].split(" ")[0].strip()
        return ""


async def register(upn: str, discovery_url: str, token: str) -> None:
    """Enrol this machine with a token, without a window. Raises RegistrationFailed, CannotEnroll.

    It takes an elevated administrator, not the built-in one.
    """
    result = await asyncio.to_thread(_register, upn, discovery_url, token)
    if result != 0:
        number = f"0x{result & 0xFFFFFFFF:08X}"
        raise RegistrationFailed(
            f"Windows did not enrol ({number}).",
            cure="docs/guide/first-windows-machine.md lists the numbers.",
            hresult=number,
        )


def _register(upn: str, discovery_url: str, token: str) -> int:
    if sys.platform == "win32":
        import ctypes

        call = ctypes.WinDLL("mdmregistration.dll").RegisterDeviceWithManagement
        call.argtypes = [ctypes.c_wchar_p] * 3
        call.restype = ctypes.c_long
        return int(call(upn, discovery_url, token))
    raise CannotEnroll("Only Windows can enrol like this.", cure="Use a Windows machine.")
