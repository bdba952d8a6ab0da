"""`tandem-ccmsetup`: the bootstrap as a program.

    tandem-ccmsetup --config agent.toml --trusted-root root.pem \\
        'CCMSETUPCMD="CCMHOSTNAME=… SMSSITECODE=…"'

With `-` the command line is read from standard input: a registration token in it is then not in the
list of processes.

Exits with ccmsetup's return code. The client itself is `tandem agent run`.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from cryptography import x509

from tandem.agent import commandline
from tandem.agent.assembly import machine_of
from tandem.agent.platform.meeting import MeetingPlace, SetupRequest
from tandem.agent.settings import AgentSettings
from tandem.agent.setup import ERROR, Bootstrap, SetupResult
from tandem.infra import config, net
from tandem.infra.errors import AppError


def main(arguments: list[str] | None = None) -> int:
    """Set the client up, and leave word for the agent's process. Returns the return code."""
    parser = argparse.ArgumentParser(
        prog="tandem-ccmsetup",
        description="Install the client.",
        epilog=commandline.described(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, help="the agent's settings, TOML")
    parser.add_argument("--trusted-root", type=Path, required=True, help="the site's root, PEM")
    parser.add_argument(
        "command_line",
        help="CCMSETUPCMD=… as the MSI gets it; - reads it from standard input, where others do not"
        " see a registration token",
    )
    given = parser.parse_args(arguments)
    if given.command_line == "-":
        given.command_line = sys.stdin.readline().strip()
    try:
        settings = config.load(given.config, AgentSettings)
        pem = given.trusted_root.read_text()
        result = asyncio.run(_setup(settings, given.command_line, pem))
    except AppError as error:
        result = SetupResult(ERROR, 0, error.message, error.cure)
    except (OSError, ValueError) as error:
        result = SetupResult(ERROR, 0, f"The trusted root cannot be read: {error}.")
    if result.code != 0:
        sys.stderr.write(f"Error: {result.message} {result.cure}\n")
    return result.code


async def _setup(settings: AgentSettings, command_line: str, pem: str) -> SetupResult:
    place = MeetingPlace(settings.meeting)
    async with net.client(
        resolver=net.Resolver(settings.resolver or None), ca_file=settings.ca_file
    ) as http:
        machine = machine_of(settings, place, http, x509.load_pem_x509_certificate(pem.encode()))
        result = await Bootstrap(machine, command_line).run(asyncio.Event())
    if result.code == 0:
        place.install(SetupRequest(commandline.kept(command_line), pem))
    return result
