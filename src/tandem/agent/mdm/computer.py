"""The one device of this computer."""

import asyncio

from tandem.agent.mdm.control import serve
from tandem.agent.mdm.devices import Devices
from tandem.agent.mdm.model import ComputerSettings


async def run(settings: ComputerSettings, stop: asyncio.Event) -> None:
    """Be this device until `stop`, or until who directs it says so."""
    devices = Devices(
        [settings.device],
        settings.state / "bootstrap",
        resolver=settings.resolver,
        ca_file=settings.ca_file,
        logs_folder=settings.logs,
    )
    await serve(devices, settings.control, stop, simulated=False)
