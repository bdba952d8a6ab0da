"""The agent's program on Windows.

python -m tandem.agent.platform.windows service       started by the service manager
python -m tandem.agent.platform.windows run           the same in a console, until Ctrl-C
python -m tandem.agent.platform.windows status        service, enrollment and setup, as JSON
python -m tandem.agent.platform.windows inventory     what CIM says of the machine, as JSON
python -m tandem.agent.platform.windows sync          have an MDM session now
python -m tandem.agent.platform.windows enroll --upn … --discovery … --token-file …
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from tandem.agent.platform.windows import service
from tandem.agent.platform.windows.bridge import CannotEnroll, WindowsBridge, register
from tandem.agent.platform.windows.certificates import StoreChannel
from tandem.agent.platform.windows.inventory import inventory
from tandem.agent.platform.windows.machine import (
    WindowsAgent,
    protect,
    state_folder,
    thumbprint_of,
)
from tandem.agent.platform.windows.programs import PowerShell
from tandem.agent.platform.windows.registry import CLIENT_KEY, Registry, enrollment
from tandem.infra import logs, net
from tandem.infra.errors import AppError
from tandem.infra.process import run_role

log = logs.get_logger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 after a sentence on standard error; as a service the number that Windows gave."""
    parser = argparse.ArgumentParser(
        prog="tandem.agent.platform.windows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["service", "run", "status", "inventory", "sync", "enroll"])
    parser.add_argument("--upn", default="", help="whose device it becomes")
    parser.add_argument("--discovery", default="", help="…/EnrollmentServer/Discovery.svc")
    parser.add_argument("--token-file", type=Path, help="the enrolment token, base64")
    given = parser.parse_args(arguments)
    try:
        return _do(given)
    except AppError as error:
        sys.stderr.write(f"Error: {error.message} {error.cure}\n".rstrip(" "))
        return 1


def _do(given: argparse.Namespace) -> int:
    match given.what:
        case "service":
            return _be_the_service()
        case "run":
            run_role(_serve)
        case "status":
            _show(asyncio.run(_status(_registry())))
        case "inventory":
            _show(asyncio.run(inventory(PowerShell())))
        case "sync":
            asyncio.run(WindowsBridge(_registry(), PowerShell()).sync())
        case "enroll":
            if not (given.upn and given.discovery and given.token_file):
                raise CannotEnroll("Name --upn, --discovery and --token-file.")
            try:
                token = given.token_file.read_text("utf-8").strip()
            except OSError as error:
                raise CannotEnroll(f"The token cannot be read: {error.strerror}.") from None
            asyncio.run(register(given.upn, given.discovery, token))
    return 0


def _be_the_service() -> int:
    if sys.platform == "win32":
        number = service.serve(_serve)
        if number == service.NOT_A_SERVICE:
            raise CannotEnroll(
                "This is for the service manager to start.", cure="Use `run` in a console."
            )
        return number
    raise CannotEnroll("Only Windows has services.", cure="Use `tandem agent run`.")


def _registry() -> Registry:
    if sys.platform == "win32":
        from tandem.agent.platform.windows.registry import LocalMachine

        return LocalMachine()
    raise CannotEnroll("Only Windows has a registry.", cure="Use `tandem agent run`.")


async def _serve(stop: asyncio.Event) -> None:
    folder = state_folder()
    await protect(folder)
    logs.configure("agent", folder / "Logs")
    try:
        await _agent(folder, stop)
    except Exception:
        # A service has no console: what ends it is in its log, or nowhere.
        log.exception("windows.agent-failed")
        raise


async def _agent(folder: Path, stop: asyncio.Event) -> None:
    registry, shell = _registry(), PowerShell()
    facts = await inventory(shell)
    # The interpreter lies in …\CcmSetup\python, the trusted root beside that folder.
    root = Path(sys.executable).parent.parent / "trusted-root.pem"
    async with net.client(resolver=net.Resolver(None)) as http:
        await WindowsAgent(
            registry,
            WindowsBridge(registry, shell),
            StoreChannel(shell, thumbprint_of(registry)),
            http,
            facts,
            folder=folder,
            trusted_root=root,
        ).run(stop)


async def _status(registry: Registry) -> dict[str, Any]:
    found, state = enrollment(registry), await service.status()
    return {
        "service": state.name.lower() if state is not None else "not installed",
        "enrolled": found is not None,
        "upn": found.upn if found else "",
        "certificate": found.thumbprint if found else "",
        "client": registry.values(CLIENT_KEY),
    }


def _show(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
