"""The agent on Windows, put together: what `service` and `run` do until they are stopped.

%SystemRoot%\\Tandem             state, meeting folder and logs; for the system and administrators
%ProgramFiles%\\CcmSetup         what the MSI brought, the trusted root among it
HKLM\\SOFTWARE\\Tandem\\Client     the command line of the MSI
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import httpx
from cryptography import x509

from tandem.agent.host import Host
from tandem.agent.platform.certificate import CertificateBroker, CertificateChannel, introduce
from tandem.agent.platform.meeting import MeetingPlace, SetupRequest
from tandem.agent.platform.model import Machine
from tandem.agent.platform.windows.bridge import WindowsBridge
from tandem.agent.platform.windows.inventory import Inventory
from tandem.agent.platform.windows.programs import ProgramFailed, Run, run, system
from tandem.agent.platform.windows.registry import CLIENT_KEY, Registry, enrollment
from tandem.agent.waiting import pause
from tandem.infra import logs
from tandem.infra.errors import AppError
from tandem.infra.secrets import private_folder

# How often it is looked whether Windows has enrolled, or renewed its certificate.
LOOK_SECONDS = 60.0
# The system and administrators, by the numbers that do not depend on the language.
_GRANTS = ("*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F")

log = logs.get_logger(__name__)


def state_folder() -> Path:
    """Below a folder in which only administrators can make others: below %ProgramData% any user
    could have made ours first, and would own it."""
    return Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "Tandem"


async def protect(folder: Path, *, run: Run = run) -> None:
    """Nobody else reads keys and tokens: permissions are inherited no more. Raises ProgramFailed."""
    private_folder(folder)
    words = [str(folder), "/inheritance:r", "/grant:r", *_GRANTS, "/q"]
    done = await run([system("icacls.exe"), *words], b"", 60.0)
    if done.code != 0:
        raise ProgramFailed(
            f"The folder {folder} cannot be protected: icacls ended with code {done.code}.",
            cure="Run it as the system or as an administrator.",
        )


class WindowsAgent:
    """One machine's agent. `facts` is what the machine said of itself."""

    def __init__(
        self,
        registry: Registry,
        bridge: WindowsBridge,
        channel: CertificateChannel,
        http: httpx.AsyncClient,
        facts: Inventory,
        *,
        folder: Path,
        trusted_root: Path,
        minute_seconds: float = 60.0,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._registry = registry
        self._bridge = bridge
        self._channel = channel
        self._http = http
        self._facts = facts
        self._folder = folder
        self._trusted_root = trusted_root
        self._minute_seconds = minute_seconds
        self._look_seconds = look_seconds
        self.place = MeetingPlace(folder / "meeting")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: wait for the enrollment, set the client up, be the client."""
        line = str(self._registry.values(CLIENT_KEY).get("CommandLine", "")).strip()
        if not line:
            log.warning(
                "windows.no-command-line",
                cure="Install the package again with CCMSETUPCMD=…: the service has nothing to do.",
            )
            await stop.wait()
            return
        self.place.install(SetupRequest(line, self._trusted_root.read_text("utf-8")))
        knowing = asyncio.create_task(self._keep_identity(stop))
        try:
            while not stop.is_set() and self.place.identity() is None:
                await pause(stop, min(1.0, self._look_seconds))
            if not stop.is_set():
                await Host(self.place, self._machine).run(stop)
        finally:
            stop.set()
            await knowing

    def _machine(self, root: x509.Certificate) -> Machine:
        return Machine(
            state=self._folder,
            name=self._facts.name,
            mdm=self._bridge,
            directory=CertificateBroker(self.place, self._channel),
            http=self._http,
            trusted_root=root,
            os_version=self._facts.full_version,
            os_name="Windows",
            minute_seconds=self._minute_seconds,
        )

    async def _keep_identity(self, stop: asyncio.Event) -> None:
        """Who this device is in the directory: asked once for each certificate it gets."""
        known = None
        while not stop.is_set():
            found = enrollment(self._registry)
            if found is None:
                self.place.identify(None)
                known = None
            elif found.thumbprint != known:
                try:
                    self.place.identify(await introduce(self._channel, await self._address()))
                    known = found.thumbprint
                except AppError as error:
                    log.warning("windows.not-introduced", reason=error.message, cure=error.cure)
            await pause(stop, self._look_seconds)

    async def _address(self) -> str:
        """Of the MDM service; ManagementUrl of our key goes before what Windows says."""
        named = str(self._registry.values(CLIENT_KEY).get("ManagementUrl", ""))
        address = named or await self._bridge.management_address()
        if not address:
            raise ProgramFailed(
                "Windows does not say where its MDM service is.",
                cure=rf"Put the address into HKLM\{CLIENT_KEY}, value ManagementUrl.",
            )
        return address


def thumbprint_of(registry: Registry) -> Callable[[], str]:
    """The thumbprint of the certificate in force, asked for at each use; empty without one."""

    def now() -> str:
        found = enrollment(registry)
        return found.thumbprint if found is not None else ""

    return now
