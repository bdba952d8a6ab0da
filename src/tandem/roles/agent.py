"""The agent of one device.

With the settings of a whole computer (`tenant_url`, …) it is the device: MDM client, installer and,
as a process of its own from the installed package, the agent. With an agent's settings alone it is
the agent beside an MDM client that somebody else runs.
"""

import asyncio
import tomllib
from pathlib import Path

from tandem.agent import AgentSettings, Host, MeetingPlace, machine_of, mdm
from tandem.infra import config, logs, net
from tandem.infra.process import run_role


def run(path: Path) -> None:
    """Run until SIGTERM. Raises AppError when the settings cannot be used."""
    if _is_computer(path):
        computer = config.load(path, mdm.ComputerSettings)
        logs.configure("agent", computer.logs)
        run_role(lambda stop: mdm.run(computer, stop))
        return
    settings = config.load(path, AgentSettings)
    logs.configure("agent", settings.logs)
    run_role(lambda stop: _main(settings, stop))


def _is_computer(path: Path) -> bool:
    try:
        return "tenant_url" in tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False  # What is wrong with the file is said where it is loaded.


async def _main(settings: AgentSettings, stop: asyncio.Event) -> None:
    place = MeetingPlace(settings.meeting)
    resolver = net.Resolver(settings.resolver or None)
    async with net.client(resolver=resolver, ca_file=settings.ca_file) as http:
        await Host(place, lambda root: machine_of(settings, place, http, root)).run(stop)
