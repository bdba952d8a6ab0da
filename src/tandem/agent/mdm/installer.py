"""Installing the client's MSI: the bootstrap inside it runs, as its own process, from its own code.

One process hosts the agents of all devices that installed the same wheel, so a fleet of simulated
devices costs one process, and a single device costs the same one. The code it runs is what was in
the package: its folder is the first place Python looks for modules in.
"""

import asyncio
import hashlib
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tandem.agent.folder import Folder
from tandem.agent.mdm.model import DeviceSettings
from tandem.agent.platform.meeting import MeetingPlace, SetupRequest
from tandem.infra import logs
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import private_folder

WHEEL, ROOT = "bootstrap.whl", "trusted_root.pem"
_RESTART_SECONDS = 1.0
_STOP_SECONDS = 10.0

log = logs.get_logger(__name__)


class BadBootstrap(AppError):
    kind, code = Kind.INVALID, "mdm.bad-bootstrap"


class _Installed(msgspec.Struct, frozen=True):
    wheel: str


class AgentHosts:
    """The agent processes of the devices in this process. `said` hears (device, what)."""

    def __init__(
        self,
        folder: Path,
        said: Callable[[str, str], None],
        *,
        resolver: str = "",
        ca_file: Path | None = None,
        logs_folder: Path | None = None,
    ) -> None:
        self._folder = private_folder(folder)
        self._said = said
        self._begin = {
            "op": "begin",
            "resolver": resolver,
            "ca_file": str(ca_file.absolute()) if ca_file else "",
            "logs": str(logs_folder.absolute()) if logs_folder else "",
        }
        self._hosts: dict[str, _HostProcess] = {}
        self._where: dict[str, str] = {}

    @property
    def pids(self) -> list[int]:
        return [host.pid for host in self._hosts.values() if host.pid]

    async def install(
        self, device: DeviceSettings, place: MeetingPlace, files: dict[str, bytes], line: str
    ) -> None:
        """Start the bootstrap with this command line, as it came. Raises BadBootstrap.

        A package without our bootstrap has nothing to start.
        """
        wheel = files.get(WHEEL)
        if wheel is None:
            return
        if ROOT not in files:
            raise BadBootstrap("The package carries no trusted root key.")
        name = await asyncio.to_thread(self._extract, wheel)
        Folder(device.state, device.durable).save("installed.json", _Installed(name))
        place.install(SetupRequest(line, files[ROOT].decode("ascii", "replace")))
        await self._host(name, device)

    async def resume(self, device: DeviceSettings) -> None:
        """Go on hosting a device that has installed the package earlier."""
        found = Folder(device.state, device.durable).load("installed.json", _Installed)
        if found is not None and (self._folder / found.wheel).is_dir():
            await self._host(found.wheel, device)

    async def leave(self, device: DeviceSettings) -> None:
        """The package is removed: its agent stops."""
        Folder(device.state, device.durable).remove("installed.json")
        host = self._hosts.get(self._where.pop(device.name, ""))
        if host is not None:
            host.leave(device.name)

    async def close(self) -> None:
        await asyncio.gather(*(host.close() for host in self._hosts.values()))

    def _extract(self, wheel: bytes) -> str:
        """Called by several threads at once when several devices install: each unpacks into a
        folder of its own, and the first to be ready gives its folder the name."""
        name = hashlib.sha256(wheel).hexdigest()
        target = self._folder / name
        if target.is_dir():
            return name
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=self._folder) as folder:
            part = Path(folder) / "code"
            try:
                with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
                    archive.extractall(part)
            except (zipfile.BadZipFile, ValueError, NotImplementedError):
                raise BadBootstrap("The bootstrap in the package is no wheel.") from None
            if not (part / "__main__.py").exists():
                raise BadBootstrap("The bootstrap in the package cannot be started.")
            try:
                part.replace(target)
            except OSError:
                if not target.is_dir():
                    raise
        return name

    async def _host(self, wheel: str, device: DeviceSettings) -> None:
        before = self._where.get(device.name)
        if before not in (None, wheel):
            self._hosts[before or ""].leave(device.name)
        host = self._hosts.get(wheel)
        if host is None:
            host = self._hosts[wheel] = _HostProcess(self._folder / wheel, self._begin, self._said)
        self._where[device.name] = wheel
        await host.add(device)


class _HostProcess:
    """One agent process, started again when it dies, and told again whom to host."""

    def __init__(self, code: Path, begin: dict[str, str], said: Callable[[str, str], None]) -> None:
        self._code = code
        self._begin = begin
        self._said = said
        self._orders: dict[str, dict[str, Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def add(self, device: DeviceSettings) -> None:
        order = {
            "op": "host",
            "name": device.name,
            "state": str(device.state.absolute() / "agent"),
            "meeting": str(device.state.absolute() / "meeting"),
            "os_version": device.os_version,
            "minute_seconds": device.client_minute_seconds,
            "durable": device.durable,
            "simulated": device.simulated,
            "root": str(device.root.absolute()) if device.root else "",
            "own_network": device.own_network,
        }
        self._orders[device.name] = order
        if self._task is None:
            self._task = asyncio.create_task(self._keep())
        else:
            self._tell(order)

    def leave(self, name: str) -> None:
        if self._orders.pop(name, None):
            self._tell({"op": "leave", "name": name})

    def _tell(self, order: dict[str, Any]) -> None:
        process = self._process
        # Without a process, or with one that just died, the next one is told everything.
        if process and process.stdin and not process.stdin.is_closing():
            process.stdin.write(msgspec.json.encode(order) + b"\n")

    async def _keep(self) -> None:
        while not self._closing:
            try:
                await self._one()
            except OSError:
                log.exception("agent-host.not-started", code=str(self._code))
            if not self._closing:
                log.warning("agent-host.ended", code=self._code.name)
                await asyncio.sleep(_RESTART_SECONDS)

    async def _one(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self._code),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        self._tell(self._begin)
        for order in list(self._orders.values()):
            self._tell(order)
        while line := await process.stdout.readline():
            try:
                said = msgspec.json.decode(line, type=dict[str, str])
                self._said(said["device"], said["said"])
            except (msgspec.DecodeError, KeyError):
                continue
        await process.wait()

    async def close(self) -> None:
        """End the process; what it hosts goes on when it is started again."""
        self._closing = True
        process = self._process
        if process and process.stdin:
            process.stdin.close()
        if self._task is None:
            return
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._task
        except TimeoutError:
            if process and process.returncode is None:
                process.kill()
            self._task.cancel()
