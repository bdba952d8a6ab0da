"""A device's agent as one long-running process: waits for the MSI, sets up, then is the client."""

import asyncio
from collections.abc import Callable

from cryptography import x509

from tandem.agent import commandline
from tandem.agent.client import Client
from tandem.agent.gate import NotKept
from tandem.agent.platform import Machine
from tandem.agent.platform.meeting import MeetingPlace, SetupRequest
from tandem.agent.setup import SUCCESS, Bootstrap
from tandem.agent.waiting import pause
from tandem.infra.logs import get_logger

# The field runs a scheduled task that tries a failed setup again every five hours.
SETUP_AGAIN_MINUTES = 300
DISK_AGAIN_MINUTES = 5
LOOK_SECONDS = 1.0

log = get_logger("agent")


class Host:
    """`machine` makes the machine once its trusted root is known, which is in the MSI."""

    def __init__(self, place: MeetingPlace, machine: Callable[[x509.Certificate], Machine]) -> None:
        self._place = place
        self._machine = machine

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. A new setup request replaces the client that runs."""
        while not stop.is_set():
            request = self._place.setup()
            if request is None:
                await pause(stop, LOOK_SECONDS)
                continue
            await self._serve(request, stop)

    async def _serve(self, request: SetupRequest, stop: asyncio.Event) -> None:
        """Set up and be the client, until `stop` or until another setup is asked for."""
        over = asyncio.Event()
        work = asyncio.create_task(self._work(request, over))
        try:
            while not stop.is_set() and not work.done() and self._place.setup() == request:
                await pause(stop, LOOK_SECONDS)
        finally:
            over.set()
            await work

    async def _work(self, request: SetupRequest, over: asyncio.Event) -> None:
        root = x509.load_pem_x509_certificate(request.trusted_root.encode())
        machine = self._machine(root)
        while not over.is_set():
            try:
                result = await Bootstrap(machine, request.command_line).run(over)
                if result.code == SUCCESS:
                    kept = commandline.kept(request.command_line)
                    if kept != request.command_line:
                        # The token in it has done its work. Whoever asked is asked again, without it.
                        self._place.install(SetupRequest(kept, request.trusted_root))
                        return
                    while not over.is_set():
                        # Again when it ends by itself: this machine is a client of its own then.
                        client = Client(machine)
                        await client.run(over)
                        if client.left:
                            self._place.withdraw_setup()
                            return
                    return
            except (OSError, NotKept) as error:
                # A disk that is full or read-only is not for ever.
                log.warning("agent.disk", reason=str(error))
                await pause(over, DISK_AGAIN_MINUTES * machine.minute_seconds)
                continue
            await pause(over, SETUP_AGAIN_MINUTES * machine.minute_seconds)
