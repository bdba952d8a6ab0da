"""Restarting a Linux device that is the agent's own."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tandem.agent.platform.model import CannotRestart

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# People have this minute to save their work, and the agent to say that it has begun.
_COMMAND = ("shutdown", "-r", "+1", "The administrator of this device restarts it.")
_SECONDS = 20


class SystemRestart:
    def __init__(self, command: Sequence[str] = _COMMAND, boot_id: Path = _BOOT_ID) -> None:
        self._command = tuple(command)
        self._boot_id = boot_id

    def boot(self) -> str:
        try:
            return self._boot_id.read_text("ascii").strip()
        except OSError as error:
            raise CannotRestart(
                f"This device does not say when it started: {error.strerror}."
            ) from None

    async def restart(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            raise CannotRestart(
                f"{self._command[0]} cannot be run: {error.strerror}.",
                cure="Install it, or restart the device from its tenant.",
            ) from None
        try:
            async with asyncio.timeout(_SECONDS):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise CannotRestart(f"{self._command[0]} did not end.") from None
        if process.returncode:
            text = " ".join(said.decode("utf-8", "replace").split())[:200]
            raise CannotRestart(
                f"{self._command[0]} ended with {process.returncode}: {text}",
                cure="The agent has to be allowed to restart the device.",
            )
