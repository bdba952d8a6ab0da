"""The agent of one device, beside the device's MDM client."""

import asyncio
from pathlib import Path

from tandem.agent import AgentSettings, Host, MeetingPlace, machine_of
from tandem.infra import config, logs, net
from tandem.infra.process import run_role


def run(path: Path) -> None:
    """Run until SIGTERM. Raises AppError when the settings cannot be used."""
    settings = config.load(path, AgentSettings)
    logs.configure("agent", settings.logs)
    run_role(lambda stop: _main(settings, stop))


async def _main(settings: AgentSettings, stop: asyncio.Event) -> None:
    place = MeetingPlace(settings.meeting)
    resolver = net.Resolver(settings.resolver or None)
    async with net.client(resolver=resolver, ca_file=settings.ca_file) as http:
        await Host(place, lambda root: machine_of(settings, place, http, root)).run(stop)
