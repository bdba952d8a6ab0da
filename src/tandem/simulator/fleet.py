"""The simulated fleet."""

import asyncio
from collections.abc import Iterator

from tandem.agent.mdm import Devices, DeviceSettings, serve
from tandem.simulator.settings import SimulatorSettings


async def run(settings: SimulatorSettings, stop: asyncio.Event) -> None:
    """Simulate these devices until `stop`, or until who directs them says so."""
    devices = Devices(
        _devices(settings),
        settings.state / "bootstrap",
        resolver=settings.resolver,
        ca_file=settings.ca_file,
        logs_folder=settings.logs,
        enroll_at_once=settings.enroll_at_once,
    )
    await serve(devices, settings.control, stop, simulated=True)


def _devices(settings: SimulatorSettings) -> Iterator[DeviceSettings]:
    for wanted in settings.devices:
        yield DeviceSettings(
            name=wanted.name,
            state=settings.state / "devices" / wanted.name,
            tenant_url=settings.tenant_url,
            tenant_id=settings.tenant_id,
            upn=wanted.upn,
            password_file=wanted.password_file,
            join=wanted.join,
            os_version=wanted.os_version,
            manufacturer="Tandem",
            model="Simulated device",
            minute_seconds=settings.minute_seconds,
            client_minute_seconds=settings.client_minute_seconds,
            # Hundreds of devices that share one disk cannot wait for it at each step.
            durable=False,
            simulated=True,
        )
