"""The devices of one process: a fleet of simulated ones, or the one of a computer."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from tandem.agent.mdm.device import Device, Network
from tandem.agent.mdm.installer import AgentHosts
from tandem.agent.mdm.model import DeviceSettings, Status
from tandem.infra import logs
from tandem.infra.clock import Clock, utc_now
from tandem.infra.errors import AppError, Kind

log = logs.get_logger(__name__)


class NoSuchDevice(AppError):
    kind, code = Kind.NOT_FOUND, "device.no-such-device"


class Devices:
    """All devices, by name. `run` keeps them alive until `stop`."""

    def __init__(
        self,
        devices: Iterable[DeviceSettings],
        bootstrap: Path,
        *,
        resolver: str = "",
        ca_file: Path | None = None,
        logs_folder: Path | None = None,
        enroll_at_once: int = 8,
        now: Clock = utc_now,
    ) -> None:
        """`bootstrap` is the folder in which what was in the MSIs is unpacked."""
        self._network = Network(resolver, ca_file)
        self._hosts = AgentHosts(
            bootstrap, self._said, resolver=resolver, ca_file=ca_file, logs_folder=logs_folder
        )
        self._limit = asyncio.Semaphore(enroll_at_once)
        self.devices = {
            settings.name: Device(settings, self._network, self._hosts, now) for settings in devices
        }

    def _said(self, device: str, what: str) -> None:
        found = self.devices.get(device)
        if found is not None:
            found.agent_said(what)

    def device(self, name: str) -> Device:
        """Raises NoSuchDevice."""
        found = self.devices.get(name)
        if found is None:
            raise NoSuchDevice(
                f"There is no device {name} here.", cure="Ask for the list of devices."
            )
        return found

    async def enroll(self, name: str, *, manual: bool = False) -> Status:
        device = self.device(name)
        async with self._limit:
            await device.enroll(manual=manual)
        return device.status()

    async def sync(self, name: str) -> Status:
        device = self.device(name)
        await device.sync()
        return device.status()

    async def unenroll(self, name: str) -> Status:
        device = self.device(name)
        await device.unenroll()
        return device.status()

    async def sign_in(self, name: str, upn: str, password_file: Path) -> Status:
        device = self.device(name)
        await device.sign_in(upn, password_file)
        return device.status()

    async def sign_out(self, name: str) -> Status:
        device = self.device(name)
        await device.sign_out()
        return device.status()

    def statuses(self) -> list[Status]:
        return [device.status() for device in self.devices.values()]

    @property
    def host_pids(self) -> list[int]:
        """The agent processes."""
        return self._hosts.pids

    async def run(self, stop: asyncio.Event) -> None:
        log.info("devices.started", devices=len(self.devices))
        keys = asyncio.create_task(self._prepare(stop))
        try:
            await asyncio.gather(*(device.run(stop) for device in self.devices.values()))
        finally:
            keys.cancel()
            await self._hosts.close()
            await self._network.close()

    async def _prepare(self, stop: asyncio.Event) -> None:
        """Make keys while nobody waits for them."""
        for device in self.devices.values():
            if stop.is_set():
                return
            await asyncio.to_thread(device.prepare)
